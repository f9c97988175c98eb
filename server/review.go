package server

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// Review says how people decide what waits for them.
type Review struct {
	// Deadlines are the times within which an item of a kind should be decided; 0 for none.
	// Nothing is decided when one passes: it is told, and counted.
	Deadlines map[hashlist.ReviewKind]time.Duration
	// TwoPerson are the choices that two persons have to agree on.
	TwoPerson []hashlist.ReviewChoice
	// Keep is how long items are kept after they were decided; 0 for ever.
	Keep time.Duration
	// Decisions is the name of the local list to which bans, exceptions and ignored
	// statements go; default decisions.
	Decisions string
	// Opinions is the name of the list to which confirmations and disputes go; default opinions.
	Opinions string
	// OpinionsAudience is who may read it where this node makes it; default followers.
	OpinionsAudience hashlist.Audience
}

type reviewService struct {
	pb.UnimplementedReviewServiceServer
	s *Server
}

// reviewID makes the id of an item from what it is about. It is a digest, so that
// what is asked twice has one id and the id tells nothing.
func reviewID(kind hashlist.ReviewKind, parts ...string) string {
	d := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(d, "%d:%s", len(p), p)
	}
	return kind.String() + "-" + strings.ToLower(base32.StdEncoding.EncodeToString(d.Sum(nil)[:15]))
}

// reviews returns the queue, or refuses if this node keeps none.
func (s *Server) reviews() (hashlist.Reviews, error) {
	if s.cfg.Reviews == nil {
		return nil, refuse(errState, "this node keeps no review queue")
	}
	return s.cfg.Reviews, nil
}

// deadline is by when somebody should have decided; zero for no such time.
func (s *Server) deadline(r *hashlist.Review) time.Time {
	if !r.Deadline.IsZero() {
		return r.Deadline
	}
	if within := s.cfg.Review.Deadlines[r.Kind]; within > 0 {
		return r.At.Add(within)
	}
	return time.Time{}
}

// overdue reports whether somebody should have decided by now.
func (s *Server) overdue(r *hashlist.Review) bool {
	at := s.deadline(r)
	return r.State.Waiting() && !at.IsZero() && time.Now().After(at)
}

// reviewMessage tells all about an item but its body.
func (s *Server) reviewMessage(r *hashlist.Review) *pb.Review {
	v := &pb.Review{
		Seq: r.Seq, Id: r.ID, Kind: pb.ReviewKind(r.Kind), State: pb.ReviewState(r.State), Asked: timestamppb.New(r.At),
		Last: timestamppb.New(r.Last), Count: r.Count, Overdue: s.overdue(r), VerdictId: r.Verdict, StatementId: r.Statement,
		List: r.List, Issuer: r.Issuer, Url: r.Reference.URL, Alias: r.Reference.Alias, Post: r.Reference.Post, Actor: r.Reference.Actor,
		Distance: uint32(r.Distance), Algorithm: r.Algorithm, Summary: r.Summary,
	}
	if at := s.deadline(r); !at.IsZero() {
		v.Deadline = timestamppb.New(at)
	}
	for _, d := range r.Decisions {
		v.Decisions = append(v.Decisions, &pb.ReviewDecision{
			Who: d.Who, When: timestamppb.New(d.When), What: pb.ReviewChoice(d.What), Why: d.Why, StatementIds: d.Statements,
		})
	}
	if r.State.Waiting() {
		for _, c := range s.offered(r) {
			v.Choices = append(v.Choices, pb.ReviewChoice(c))
			if s.takesTwo(r.Kind, c) {
				v.TwoPerson = append(v.TwoPerson, pb.ReviewChoice(c))
			}
		}
	}
	return v
}

// kindsOf reads kinds of reviews.
func kindsOf(all []pb.ReviewKind) ([]hashlist.ReviewKind, error) {
	var kinds []hashlist.ReviewKind
	for _, k := range all {
		if _, known := pb.ReviewKind_name[int32(k)]; !known || k == 0 {
			return nil, refuse(errInvalid, "unknown kind of review %d", k)
		}
		kinds = append(kinds, hashlist.ReviewKind(k))
	}
	return kinds, nil
}

// ListReviews implements the RPC. A page ends early when it gets too large for a message.
func (v *reviewService) ListReviews(ctx context.Context, r *pb.ListReviewsRequest) (*pb.ListReviewsResponse, error) {
	s := v.s
	queue, err := s.reviews()
	if err != nil {
		return nil, err
	}
	only := hashlist.ReviewSelection{Limit: maxPage}
	if only.Kinds, err = kindsOf(r.GetKinds()); err != nil {
		return nil, err
	}
	for _, state := range r.GetStates() {
		if _, known := pb.ReviewState_name[int32(state)]; !known || state == 0 {
			return nil, refuse(errInvalid, "unknown state of a review %d", state)
		}
		only.States = append(only.States, hashlist.ReviewState(state))
	}
	if len(only.States) == 0 {
		only.States = []hashlist.ReviewState{hashlist.ReviewOpen, hashlist.ReviewProposed}
	}
	if only.After, err = parsePageToken(r.GetPageToken()); err != nil {
		return nil, err
	}
	size := int(r.GetPageSize())
	switch {
	case size > maxPage:
		return nil, refuse(errInvalid, "page size %d is more than %d", size, maxPage)
	case size == 0:
		size = defaultPage
	}
	answer := &pb.ListReviewsResponse{}
	budget := answerBytes
	for {
		all, err := queue.Reviews(ctx, only)
		if err != nil {
			return nil, err
		}
		for i := range all {
			m := s.reviewMessage(&all[i])
			if r.GetOverdue() && !m.GetOverdue() {
				continue
			}
			if budget -= proto.Size(m) + 8; len(answer.Reviews) == size || budget < 0 && len(answer.Reviews) > 0 {
				answer.NextPageToken = pageToken(answer.Reviews[len(answer.Reviews)-1].Seq)
				return answer, nil
			}
			answer.Reviews = append(answer.Reviews, m)
		}
		if len(all) < only.Limit {
			return answer, nil
		}
		only.After = all[len(all)-1].Seq
	}
}

// find finds an item of the queue.
func (s *Server) findReview(ctx context.Context, id string) (hashlist.Review, error) {
	queue, err := s.reviews()
	if err != nil {
		return hashlist.Review{}, err
	}
	r, ok, err := queue.FindReview(ctx, id)
	if err == nil && !ok {
		err = refuse(errUnknown, "nothing with the id %.*s waits or has waited for a decision: `tocsin review list` shows what does", hashlist.MaxReviewID, id)
	}
	return r, err
}

// GetReview implements the RPC.
func (v *reviewService) GetReview(ctx context.Context, r *pb.GetReviewRequest) (*pb.GetReviewResponse, error) {
	found, err := v.s.findReview(ctx, r.GetId())
	if err != nil {
		return nil, err
	}
	return &pb.GetReviewResponse{Review: v.s.reviewMessage(&found)}, nil
}

// WatchReviews implements the RPC. It ends when the node stops.
func (v *reviewService) WatchReviews(r *pb.WatchReviewsRequest, stream pb.ReviewService_WatchReviewsServer) error {
	s := v.s
	queue, err := s.reviews()
	if err != nil {
		return err
	}
	only := hashlist.ReviewSelection{After: r.GetAfter()}
	if only.Kinds, err = kindsOf(r.GetKinds()); err != nil {
		return err
	}
	ctx, cancel := s.untilStopping(stream.Context())
	defer cancel()
	for seen := only.After; ; {
		if err := queue.WaitReviews(ctx, seen); err != nil {
			return causeOf(ctx, err)
		}
		all, err := queue.Reviews(ctx, only)
		if err != nil {
			return causeOf(ctx, err)
		}
		for i := range all {
			if err := stream.Send(&pb.WatchReviewsResponse{Review: s.reviewMessage(&all[i])}); err != nil {
				return err
			}
			only.After = all[i].Seq
		}
		// What is of another kind is passed over one by one, which is rare enough.
		seen = max(seen+1, only.After)
	}
}

// DecideReview implements the RPC.
func (v *reviewService) DecideReview(ctx context.Context, r *pb.DecideReviewRequest) (*pb.DecideReviewResponse, error) {
	s := v.s
	if _, known := pb.ReviewChoice_name[int32(r.GetChoice())]; !known || r.GetChoice() == 0 {
		return nil, refuse(errInvalid, "unknown decision %d", r.GetChoice())
	}
	if err := checkReason(r.GetWhy()); err != nil {
		return nil, err
	}
	d := hashlist.ReviewDecision{What: hashlist.ReviewChoice(r.GetChoice()), Why: r.GetWhy()}
	var err error
	if d.Who, err = who(ctx, r.GetWho()); err != nil {
		return nil, err
	}
	if d.Labels, err = labels(r.GetLabels()); err != nil {
		return nil, err
	}
	if d.Expires, err = expiry(r.GetExpires()); err != nil {
		return nil, err
	}
	decided, err := s.decide(ctx, r.GetId(), d)
	if err != nil {
		return nil, err
	}
	return &pb.DecideReviewResponse{Review: s.reviewMessage(&decided)}, nil
}

// who is a caller as decisions name them: by their token, with what they call
// themselves in brackets.
func who(ctx context.Context, calls string) (string, error) {
	name := "nobody"
	if c := callerOf(ctx); c != nil {
		name = c.name
	}
	if calls == "" {
		return name, nil
	}
	if len(calls) > 64 || strings.ContainsFunc(calls, func(r rune) bool { return r < ' ' || r == '(' || r == ')' || r == 0x7f }) {
		return "", refuse(errInvalid, "%.80q is no name for somebody who decides: at most 64 bytes without brackets", calls)
	}
	return name + " (" + calls + ")", nil
}

// personOf is who decided as the rule of two persons sees them. What callers call
// themselves is not proved, so it makes nobody a second person; all who use the unix
// socket are one, because whoever can open it can pretend to be any of them.
func personOf(who string) string {
	name, _, _ := strings.Cut(who, " (")
	return name
}

// waiting counts what waits for a decision.
type waiting struct {
	open, proposed, overdue int
	oldest                  time.Time
}

// waitingReviews counts what waits for a decision, by kind.
func (s *Server) waitingReviews(ctx context.Context) (map[hashlist.ReviewKind]waiting, error) {
	all, err := s.cfg.Reviews.Reviews(ctx, hashlist.ReviewSelection{
		States: []hashlist.ReviewState{hashlist.ReviewOpen, hashlist.ReviewProposed}, Limit: len(hashlist.ReviewKinds) * hashlist.MaxOpenReviews,
	})
	if err != nil {
		return nil, err
	}
	counts := map[hashlist.ReviewKind]waiting{}
	for i := range all {
		r := &all[i]
		c := counts[r.Kind]
		if r.State == hashlist.ReviewOpen {
			c.open++
		} else {
			c.proposed++
		}
		if s.overdue(r) {
			c.overdue++
		}
		if c.oldest.IsZero() || r.At.Before(c.oldest) {
			c.oldest = r.At
		}
		counts[r.Kind] = c
	}
	return counts, nil
}

// reviewWarnings tell the operator what waits for them.
func (s *Server) reviewWarnings(ctx context.Context) []string {
	if s.cfg.Reviews == nil {
		return nil
	}
	counts, err := s.waitingReviews(ctx)
	if err != nil {
		return []string{fmt.Sprintf("the review queue cannot be read: %v", err)}
	}
	var kinds []string
	total, overdue := 0, 0
	for _, k := range hashlist.ReviewKinds {
		if n := counts[k].open + counts[k].proposed; n > 0 {
			kinds = append(kinds, fmt.Sprintf("%d %v", n, k))
			total, overdue = total+n, overdue+counts[k].overdue
		}
	}
	if total == 0 {
		return nil
	}
	text := fmt.Sprintf("%d wait for a decision (%s): `tocsin review list` shows them", total, strings.Join(kinds, ", "))
	if overdue > 0 {
		text = fmt.Sprintf("%d wait for a decision (%s), %d of them for longer than they should: `tocsin review list --overdue` shows those", total, strings.Join(kinds, ", "), overdue)
	}
	return []string{text}
}

// addReview puts something into the queue, if there is one. That it is full is no
// fault of the one whose call brings it: it is counted, and said in the log now and then.
func (s *Server) addReview(ctx context.Context, r hashlist.Review) (added bool, err error) {
	if s.cfg.Reviews == nil {
		return false, nil
	}
	added, err = s.cfg.Reviews.AddReview(ctx, r)
	switch {
	case errors.Is(err, hashlist.ErrReviewsFull):
		s.metrics.reviewsLost.WithLabelValues(r.Kind.String()).Inc()
	case added:
		s.log.Info("something waits for a decision: `tocsin review show` tells what", "kind", r.Kind.String(), "review", r.ID)
	}
	return added, err
}

// keepReviews deletes old items until ctx ends.
func (s *Server) keepReviews(ctx context.Context) {
	const every = time.Hour
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		if n, err := s.cfg.Reviews.DropReviews(ctx, time.Now().Add(-s.cfg.Review.Keep)); err != nil && ctx.Err() == nil {
			s.log.Error("could not delete old reviews", errorText(err))
		} else if n > 0 {
			s.log.Info("deleted reviews that were decided long ago", "reviews", n)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// bounded cuts a text to so many bytes, between two characters, and takes out what
// would steer a terminal.
func boundedText(text string, most int) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if len(text) <= most {
		return text
	}
	cut := most - len("…")
	for cut > 0 && text[cut]&0xc0 == 0x80 {
		cut--
	}
	return text[:cut] + "…"
}

// validate checks the settings and fills in defaults.
func (r *Review) validate() error {
	if r.Decisions == "" {
		r.Decisions = "decisions"
	}
	if r.Opinions == "" {
		r.Opinions = "opinions"
	}
	if r.OpinionsAudience == 0 {
		r.OpinionsAudience = hashlist.Followers
	}
	for _, name := range [...]string{r.Decisions, r.Opinions} {
		if err := hashlist.CheckName(name); err != nil {
			return fmt.Errorf("list of decisions: %w", err)
		}
	}
	if r.Decisions == r.Opinions {
		return fmt.Errorf("review.decisions and review.opinions are both %s: what is decided here alone would be told to others", r.Decisions)
	}
	for _, c := range r.TwoPerson {
		if !slices.Contains(twoPersonChoices, c) {
			return fmt.Errorf("two persons cannot be asked to agree on %v", c)
		}
	}
	return nil
}

// twoPersonChoices are those on which two persons may have to agree.
var twoPersonChoices = []hashlist.ReviewChoice{
	hashlist.ChooseBan, hashlist.ChooseAllow, hashlist.ChooseIgnore, hashlist.ChooseConfirm, hashlist.ChooseDispute,
	hashlist.ChooseWithdraw, hashlist.ChooseUphold, hashlist.ChooseRelease, hashlist.ChooseApprove,
}
