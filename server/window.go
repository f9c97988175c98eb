package server

import (
	"context"
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

const (
	defaultExamples = 10
	maxExamples     = 100
	previewTime     = 5 * time.Minute // for a preview of a list with millions of hashes
)

type windowService struct {
	pb.UnimplementedWindowServiceServer
	s *Server
}

// window returns what is remembered, or why nothing is.
func (s *Server) window() (*hashlist.Window, error) {
	if s.cfg.Window == nil {
		return nil, refuse(errState, "nothing is remembered: set window.days in config.toml to more than 0 and start the node again")
	}
	return s.cfg.Window, nil
}

// readReference reads what a caller calls what it asks about.
func readReference(r *pb.Reference) (hashlist.Reference, error) {
	ref := hashlist.Reference{URL: r.GetUrl(), Alias: r.GetAlias(), Post: r.GetPost(), Actor: r.GetActor()}
	if err := ref.Validate(); err != nil {
		return hashlist.Reference{}, invalid("reference", err)
	}
	return ref, nil
}

// see has the recent window keep what was asked and answered, and returns its number
// there; 0 if it is not kept. The circuit breaker counts what was refused.
func (s *Server) see(q hashlist.Query, r *hashlist.Result) uint64 {
	s.breaker.Note(r)
	return s.cfg.Window.See(q, r)
}

func seenMessage(v *hashlist.SeenUpload) *pb.SeenUpload {
	m := &pb.SeenUpload{
		First: timestamppb.New(v.First), Last: timestamppb.New(v.Last), Count: uint64(v.Count), Answered: pb.Verdict(v.Answered),
	}
	for i := range v.Sightings {
		g := &v.Sightings[i]
		m.Sightings = append(m.Sightings, &pb.Sighting{
			SeenId: g.ID, At: timestamppb.New(g.At), Answered: pb.Verdict(g.Answered),
			Reference: &pb.Reference{Url: g.Reference.URL, Alias: g.Reference.Alias, Post: g.Reference.Post, Actor: g.Reference.Actor},
		})
	}
	return m
}

func hitMessage(h *hashlist.Hit) *pb.Hit {
	m := &h.Match
	return &pb.Hit{
		Seq: h.Seq, Id: h.ID, At: timestamppb.New(h.At), Seen: seenMessage(&h.Seen), Verdict: pb.Verdict(h.Verdict),
		Reason: h.Reason, Withdrawn: h.Withdrawn,
		Match: &pb.Match{
			List: m.ListName, ListId: m.List, Labels: m.Labels, Algorithm: h.Algorithm.String(), Distance: uint32(m.Distance),
			Issuer: m.Issuer, StatementId: m.Statement, Action: pb.Action(m.Action), Transform: m.Probe.Transform, Reason: m.Reason,
			Published: when(m.Published),
		},
	}
}

// WatchHits implements the RPC. It ends when the node stops.
func (v *windowService) WatchHits(r *pb.WatchHitsRequest, stream pb.WindowService_WatchHitsServer) error {
	w, err := v.s.window()
	if err != nil {
		return err
	}
	ctx, cancel := v.s.untilStopping(stream.Context())
	defer cancel()
	at := r.GetAfter()
	if r.GetNewOnly() {
		at = w.LastHit()
	}
	for {
		if err := w.WaitHits(ctx, at); err != nil {
			return causeOf(ctx, err)
		}
		last := w.LastHit()
		for h, err := range w.Hits(ctx, at) {
			if err != nil {
				return causeOf(ctx, err)
			}
			at = h.Seq
			if err := stream.Send(&pb.WatchHitsResponse{Hit: hitMessage(&h)}); err != nil {
				return err
			}
		}
		at = max(at, last)
	}
}

// ListHits implements the RPC.
func (v *windowService) ListHits(ctx context.Context, r *pb.ListHitsRequest) (*pb.ListHitsResponse, error) {
	w, err := v.s.window()
	if err != nil {
		return nil, err
	}
	limit := int(r.GetLimit())
	switch {
	case limit > maxPage:
		return nil, refuse(errInvalid, "limit %d is more than %d", limit, maxPage)
	case limit == 0:
		limit = defaultPage
	}
	withdrawn := map[string]uint64{} // the last withdrawal of a hit
	if r.GetOpenOnly() {
		for h, err := range w.Hits(ctx, r.GetAfter()) {
			if err != nil {
				return nil, err
			}
			if h.Withdrawn {
				withdrawn[h.ID] = h.Seq
			}
		}
	}
	answer := &pb.ListHitsResponse{}
	for h, err := range w.Hits(ctx, r.GetAfter()) {
		if err != nil {
			return nil, err
		}
		if r.GetOpenOnly() && (h.Withdrawn || withdrawn[h.ID] > h.Seq) {
			continue
		}
		if len(answer.Hits) == limit {
			answer.Truncated = true
			break
		}
		answer.Hits = append(answer.Hits, hitMessage(&h))
	}
	return answer, nil
}

// GetWindow implements the RPC.
func (v *windowService) GetWindow(context.Context, *pb.GetWindowRequest) (*pb.GetWindowResponse, error) {
	w := v.s.cfg.Window
	st := w.Stats()
	answer := &pb.GetWindowResponse{
		On: w != nil, Entries: uint64(st.Entries), Most: uint64(st.Most), Uploads: st.Uploads, Bytes: uint64(st.Bytes), Oldest: when(st.Oldest),
		KeepSeconds: uint64(st.Keep / time.Second), Waiting: uint64(st.Waiting), Dropped: st.Dropped, Hits: st.Hits, Open: uint64(st.Open),
		Behind: st.Behind, Quarantined: uint64(len(w.Quarantined(false))),
	}
	for _, o := range v.s.breaker.Open() {
		answer.Breakers = append(answer.Breakers, &pb.Breaker{
			Issuer: o.Issuer, Refusals: uint32(o.Refusals), Opened: timestamppb.New(o.Opened), Closes: timestamppb.New(o.Closes),
		})
	}
	return answer, nil
}

// Forget implements the RPC.
func (v *windowService) Forget(ctx context.Context, r *pb.ForgetRequest) (*pb.ForgetResponse, error) {
	w, err := v.s.window()
	if err != nil {
		return nil, err
	}
	ref, err := readReference(r.GetReference())
	if err != nil {
		return nil, err
	}
	if ref.IsZero() {
		return nil, refuse(errInvalid, "what is to be forgotten? (want a url, an alias, a post or an actor)")
	}
	n, err := w.Forget(ctx, ref)
	return &pb.ForgetResponse{Forgotten: uint64(n)}, err
}

// Preview implements the RPC.
func (v *windowService) Preview(ctx context.Context, r *pb.PreviewRequest) (*pb.PreviewResponse, error) {
	s := v.s
	w, err := s.window()
	if err != nil {
		return nil, err
	}
	examples := int(r.GetExamples())
	switch {
	case examples > maxExamples:
		return nil, refuse(errInvalid, "%d examples are more than %d", examples, maxExamples)
	case examples == 0:
		examples = defaultExamples
	}
	most := hashlist.Verdict(r.GetMost())
	if r.GetMost() == pb.Verdict_VERDICT_UNSPECIFIED {
		most = hashlist.VerdictReject
	} else if most < hashlist.VerdictAllow || most > hashlist.VerdictReject {
		return nil, refuse(errInvalid, "the gravest verdict is %d (want flag, hold or reject)", r.GetMost())
	}
	ctx, cancel := context.WithTimeout(ctx, previewTime)
	defer cancel()
	var suppose []hashlist.Supposition
	switch {
	case r.GetList() != "" && len(r.GetHashes()) > 0 || r.GetList() == "" && len(r.GetHashes()) == 0:
		return nil, refuse(errInvalid, "a preview is of a list or of hashes")
	case r.GetList() != "":
		list, err := s.find(r.GetList())
		if err != nil {
			return nil, err
		}
		if suppose, err = s.cfg.Lists.Suppose(ctx, list.ID, most); err != nil {
			return nil, err
		}
	default:
		hashes, err := parseHashes(r.GetHashes())
		if err != nil {
			return nil, err
		}
		suppose = []hashlist.Supposition{{Hashes: hashes, Radii: hashlist.DefaultRadii, Most: most, Action: hashlist.Reject}}
	}
	p, err := w.Preview(ctx, suppose, examples)
	if err != nil {
		return nil, err
	}
	return previewMessage(&p), nil
}

func previewMessage(p *hashlist.Preview) *pb.PreviewResponse {
	answer := &pb.PreviewResponse{
		Uploads: uint64(p.Uploads), Flagged: uint64(p.Changed[hashlist.VerdictFlag]), Held: uint64(p.Changed[hashlist.VerdictHold]),
		Rejected: uint64(p.Changed[hashlist.VerdictReject]), Hashes: uint64(p.Hashes), Suspicious: p.Suspicious,
	}
	for i := range p.Examples {
		e := &p.Examples[i]
		answer.Examples = append(answer.Examples, &pb.PreviewExample{
			Seen: seenMessage(&e.Seen), Verdict: pb.Verdict(e.Verdict), Distance: uint32(e.Distance), Algorithm: e.Algorithm.String(),
		})
	}
	return answer
}

// ListQuarantine implements the RPC.
func (v *windowService) ListQuarantine(_ context.Context, r *pb.ListQuarantineRequest) (*pb.ListQuarantineResponse, error) {
	w, err := v.s.window()
	if err != nil {
		return nil, err
	}
	all := w.Quarantined(r.GetAll())
	answer := &pb.ListQuarantineResponse{Truncated: len(all) > maxPage}
	for _, q := range all[:min(len(all), maxPage)] {
		answer.Statements = append(answer.Statements, &pb.Quarantined{
			StatementId: q.Statement, List: q.List, Issuer: q.Issuer, Matched: uint64(q.Matched), Uploads: uint64(q.Uploads),
			Since: timestamppb.New(q.Since), State: pb.QuarantineState(q.State), Decided: when(q.Decided), Who: q.Who, Why: q.Why,
		})
	}
	return answer, nil
}

// DecideQuarantine implements the RPC.
func (v *windowService) DecideQuarantine(ctx context.Context, r *pb.DecideQuarantineRequest) (*pb.DecideQuarantineResponse, error) {
	s := v.s
	w, err := s.window()
	if err != nil {
		return nil, err
	}
	state := hashlist.QuarantineState(r.GetState())
	if state != hashlist.QuarantineReleased && state != hashlist.QuarantineKept {
		return nil, refuse(errInvalid, "want released or kept")
	}
	if err := checkReason(r.GetWhy()); err != nil {
		return nil, err
	}
	subject := r.GetSubject()
	if list, err := s.find(subject); err == nil {
		subject = list.ID
	}
	s.deciding.Lock()
	defer s.deciding.Unlock()
	d := hashlist.ReviewDecision{What: hashlist.ChooseRelease, Who: callerOf(ctx).name, Why: r.GetWhy(), When: time.Now().UTC().Truncate(time.Microsecond)}
	if state == hashlist.QuarantineKept {
		d.What = hashlist.ChooseKeep
	}
	n, err := w.Decide(ctx, subject, state, d.Who, d.Why)
	if errors.Is(err, hashlist.ErrNotQuarantined) {
		return nil, refuse(errUnknown, "%v: %.*s", err, hashlist.MaxIRI, r.GetSubject())
	}
	if err == nil {
		err = s.settleQuarantine(context.WithoutCancel(ctx), subject, d)
	}
	return &pb.DecideQuarantineResponse{Statements: uint64(n)}, err
}

// CloseBreaker implements the RPC.
func (v *windowService) CloseBreaker(ctx context.Context, r *pb.CloseBreakerRequest) (*pb.CloseBreakerResponse, error) {
	issuer := r.GetIssuer() // "" for all other nodes together
	if issuer != "" {
		var err error
		if issuer, err = v.s.issuer(ctx, issuer, false); err != nil {
			return nil, err
		}
	}
	return &pb.CloseBreakerResponse{WasOpen: v.s.breaker.Close(issuer)}, nil
}

// quarantinedLists returns the lists that a person has to decide on, with how many
// statements and how many matches of the recent uploads there are.
func quarantinedLists(all []hashlist.Quarantined) (iris []string, statements, matched map[string]int, of map[string]hashlist.Quarantined) {
	statements, matched, of = map[string]int{}, map[string]int{}, map[string]hashlist.Quarantined{}
	for _, q := range all {
		if statements[q.List] == 0 {
			iris = append(iris, q.List)
		}
		statements[q.List]++
		matched[q.List] += q.Matched
		of[q.List] = q
	}
	slices.Sort(iris)
	return iris, statements, matched, of
}
