package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/hashlist/imagehash"
	"github.com/tocsin-fed/tocsin/platform"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
	"github.com/tocsin-fed/tocsin/revisit"
)

const (
	defaultRevisits = 1000
	maxRevisits     = 10_000
)

type revisitService struct {
	pb.UnimplementedRevisitServiceServer
	s *Server
}

// openRevisits makes what looks again at addresses.
func (s *Server) openRevisits(ctx context.Context) error {
	if s.cfg.Revisits == nil {
		return nil
	}
	c := *s.cfg.Revisits
	c.Examine, c.Judge, c.Tell, c.Log = s.examineRevisited, s.judgeRevisited, s.tellRevisited, s.log
	var err error
	if s.revisits, err = revisit.NewVisitor(ctx, c); err != nil {
		return fmt.Errorf("watched addresses: %w", err)
	}
	return nil
}

// examineRevisited hashes what was found at an address. It is no upload: no hook counts it, and the recent
// window does not remember it.
func (s *Server) examineRevisited(ctx context.Context, file []byte) (revisit.Seen, error) {
	release, err := s.hold(ctx)
	if err != nil {
		return revisit.Seen{}, err
	}
	defer release()
	media, err := s.hash(ctx, file)
	if err != nil {
		_, _, sum := imagehash.Digests(file)
		seen := revisit.Seen{Hashes: []hashlist.Hash{sum}, Result: s.judgeRevisited([]hashlist.Hash{sum})}
		if errors.Is(err, imagehash.ErrUndecodable) || errors.Is(err, imagehash.ErrVideo) || errors.Is(err, imagehash.ErrTooLarge) {
			err = revisit.ErrNoPicture
		}
		return seen, err
	}
	seen := revisit.Seen{Hashes: []hashlist.Hash{media.SHA256}, Result: s.cfg.Lists.Lookup(hashlist.Query{Probes: probes(media, s.cfg.Policy.MinQuality), Limit: defaultMatches})}
	if len(media.Frames) > 0 && media.Frames[0].Quality >= s.cfg.Policy.MinQuality {
		seen.Hashes = append(seen.Hashes, media.Frames[0].PDQ[0])
	}
	return seen, nil
}

// judgeRevisited says what the lists make of hashes that are remembered.
func (s *Server) judgeRevisited(hashes []hashlist.Hash) hashlist.Result {
	q := hashlist.Query{Limit: defaultMatches}
	for _, h := range hashes {
		q.Probes = append(q.Probes, hashlist.Probe{Hash: h})
	}
	return s.cfg.Lists.Lookup(q)
}

// tellRevisited tells of what was found: the audit log, the review queue, and what acts on platforms. An
// empty place is only noted: whoever looks for the picture sees as much.
func (s *Server) tellRevisited(ctx context.Context, n revisit.News) error {
	a := &n.Address
	ref := hashlist.Reference{URL: a.URL, Post: a.Post, Actor: a.Actor}
	id := ""
	if s.cfg.Audit != nil {
		body, err := json.Marshal(map[string]string{
			"url": a.URL, "post": a.Post, "actor": a.Actor, "state": a.State.String(), "note": a.Note, "verdict": n.Result.Verdict.String(),
		})
		if err != nil {
			return err
		}
		e, err := s.cfg.Audit.AppendAudit(ctx, hashlist.AuditEntry{Kind: "revisit", At: a.Checked, Who: "revisit", Body: body})
		if err != nil {
			return err
		}
		id = e.ID
	}
	if a.State == revisit.Gone {
		return nil
	}
	if id == "" {
		id = reference()
	}
	if s.cfg.Reviews != nil {
		r := hashlist.Review{
			ID: "revisit-" + id, Kind: hashlist.ReviewHit, Reference: ref,
			Summary: fmt.Sprintf("A picture that was approved stays on another server, and what is there now is not what it was, or is listed by now: %s.", a.Note),
		}
		if m := n.Result.Decided(); m != nil {
			r.Statement, r.List, r.Issuer, r.Distance, r.Algorithm = m.Statement, m.List, m.Issuer, m.Distance, m.Probe.Hash.Algorithm().String()
		}
		if _, err := s.cfg.Reviews.AddReview(ctx, r); err != nil && !errors.Is(err, hashlist.ErrReviewsFull) {
			return err
		}
	}
	if m := n.Result.Decided(); m != nil {
		s.act(ctx, platform.Finding{
			ID: id, At: a.Checked, Verdict: n.Result.Verdict, Labels: m.Labels, Statement: m.Statement, List: m.List, Issuer: m.Issuer, Why: n.Result.Reason,
			URL: ref.URL, Post: ref.Post, Actor: ref.Actor,
		})
	}
	return nil
}

func (r *revisitService) visitor() (*revisit.Visitor, error) {
	if r.s.revisits == nil {
		return nil, refuse(errState, "addresses are not watched: set revisit.every in config.toml and start the node again")
	}
	return r.s.revisits, nil
}

func revisitMessage(a *revisit.Address) *pb.Revisit {
	return &pb.Revisit{
		Url: a.URL, Post: a.Post, Actor: a.Actor, State: pb.RevisitState(a.State), Added: when(a.Added), Checked: when(a.Checked), Next: when(a.Next),
		Failures: uint32(a.Failures), Note: a.Note,
	}
}

// AddRevisit implements the RPC.
func (r *revisitService) AddRevisit(ctx context.Context, q *pb.AddRevisitRequest) (*pb.AddRevisitResponse, error) {
	v, err := r.visitor()
	if err != nil {
		return nil, err
	}
	a := revisit.Address{URL: q.GetUrl(), Post: q.GetPost(), Actor: q.GetActor(), State: revisit.New}
	if err := (hashlist.Reference{URL: a.URL, Post: a.Post, Actor: a.Actor}).Validate(); err != nil {
		return nil, invalid("address", err)
	}
	if len(q.GetApproved()) > 2 {
		return nil, refuse(errInvalid, "%d approved hashes are more than a PDQ hash and a SHA-256", len(q.GetApproved()))
	}
	for _, text := range q.GetApproved() {
		h, err := hashlist.ParseHash(text)
		if err != nil || h.Algorithm() != hashlist.PDQ && h.Algorithm() != hashlist.SHA256 {
			return nil, refuse(errInvalid, "an approved hash is no PDQ hash and no SHA-256")
		}
		a.Approved = append(a.Approved, h)
	}
	if err := a.Validate(); err != nil {
		return nil, invalid("address", err)
	}
	added, known, err := v.Add(ctx, a)
	switch {
	case errors.Is(err, revisit.ErrFull):
		return nil, refuse(errLimit, "%v: remove some, or raise revisit.max", err)
	case err != nil:
		return nil, err
	}
	return &pb.AddRevisitResponse{Revisit: revisitMessage(&added), Known: known}, nil
}

// ListRevisits implements the RPC.
func (r *revisitService) ListRevisits(_ context.Context, q *pb.ListRevisitsRequest) (*pb.ListRevisitsResponse, error) {
	v, err := r.visitor()
	if err != nil {
		return nil, err
	}
	limit := int(q.GetLimit())
	switch {
	case limit > maxRevisits:
		return nil, refuse(errInvalid, "limit %d is more than %d", limit, maxRevisits)
	case limit == 0:
		limit = defaultRevisits
	}
	answer := &pb.ListRevisitsResponse{}
	for i, a := range v.List(q.GetPrefix()) {
		if i >= limit {
			answer.More++
			continue
		}
		answer.Revisits = append(answer.Revisits, revisitMessage(&a))
	}
	return answer, nil
}

// RemoveRevisit implements the RPC.
func (r *revisitService) RemoveRevisit(ctx context.Context, q *pb.RemoveRevisitRequest) (*pb.RemoveRevisitResponse, error) {
	v, err := r.visitor()
	if err != nil {
		return nil, err
	}
	switch err := v.Remove(ctx, q.GetUrl()); {
	case errors.Is(err, revisit.ErrNotThere):
		return nil, refuse(errUnknown, "%v", err)
	case err != nil:
		return nil, err
	}
	return &pb.RemoveRevisitResponse{}, nil
}

// runRevisits looks at addresses again until ctx ends.
func (s *Server) runRevisits(ctx context.Context) {
	if err := s.revisits.Run(ctx); err != nil && ctx.Err() == nil {
		s.log.Error("watched addresses are not looked at any more", errorText(err))
	}
}
