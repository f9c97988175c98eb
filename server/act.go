package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/platform"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

const (
	defaultActs = 100
	maxActs     = 1000
	// outcomeTime is how long a decision waits for what comes of it: most platforms answer within it.
	outcomeTime = 20 * time.Second
	maxWhy      = 2000 // bytes of a person's reason
	maxWho      = 128  // bytes of who decides
)

type actService struct {
	pb.UnimplementedActServiceServer
	s *Server
}

// desk returns what acts on platforms, or why nothing does.
func (s *Server) desk() (*platform.Desk, error) {
	if s.cfg.Acts == nil {
		return nil, refuse(errState, "no platform is configured: add a [[platform]] to config.toml and start the node again")
	}
	return s.cfg.Acts, nil
}

func actMessage(a *platform.Act) *pb.Act {
	m := &pb.Act{
		Id: a.ID, Platform: a.Platform, Kind: string(a.Kind), Target: a.Target, State: pb.ActState(a.State), Soft: a.Soft,
		Made: when(a.Made), Changed: when(a.Changed), Next: when(a.Next), Tries: uint32(a.Tries), Note: a.Note, Does: a.Does(), Undo: a.Undo(),
		Finding: a.Finding.ID, Why: a.Finding.Why, Statement: a.Finding.Statement,
	}
	for _, d := range a.People {
		m.Decisions = append(m.Decisions, &pb.ActDecision{Who: d.Who, At: when(d.At), What: d.What, Why: d.Why})
	}
	return m
}

// actError gives the errors of a desk the class they have for callers.
func actError(err error) error {
	switch {
	case errors.Is(err, platform.ErrNoAct):
		return refuse(errUnknown, "%v", err)
	case errors.Is(err, platform.ErrState):
		return refuse(errState, "%v", err)
	}
	return err
}

// ListActs implements the RPC.
func (a *actService) ListActs(_ context.Context, r *pb.ListActsRequest) (*pb.ListActsResponse, error) {
	desk, err := a.s.desk()
	if err != nil {
		return nil, err
	}
	limit := int(r.GetLimit())
	switch {
	case limit > maxActs:
		return nil, refuse(errInvalid, "limit %d is more than %d", limit, maxActs)
	case limit == 0:
		limit = defaultActs
	}
	if _, known := pb.ActState_name[int32(r.GetState())]; !known {
		return nil, refuse(errInvalid, "unknown state %d", r.GetState())
	}
	v := &pb.ListActsResponse{}
	for i, act := range desk.List(r.GetPlatform(), platform.State(r.GetState())) {
		if i >= limit {
			v.More++
			continue
		}
		v.Acts = append(v.Acts, actMessage(&act))
	}
	return v, nil
}

// GetAct implements the RPC.
func (a *actService) GetAct(_ context.Context, r *pb.GetActRequest) (*pb.GetActResponse, error) {
	desk, err := a.s.desk()
	if err != nil {
		return nil, err
	}
	act, err := desk.Act(r.GetId())
	if err != nil {
		return nil, actError(err)
	}
	return &pb.GetActResponse{Act: actMessage(&act)}, nil
}

// DecideAct implements the RPC.
func (a *actService) DecideAct(ctx context.Context, r *pb.DecideActRequest) (*pb.DecideActResponse, error) {
	who, err := a.s.person(ctx, r.GetWho())
	if err != nil {
		return nil, err
	}
	if len(r.GetWhy()) > maxWhy {
		return nil, refuse(errInvalid, "a reason of %d bytes is longer than %d", len(r.GetWhy()), maxWhy)
	}
	act, err := a.s.decideAct(ctx, r.GetId(), r.GetWhat(), who, r.GetWhy())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, outcomeTime)
	defer cancel()
	if act, err = a.s.cfg.Acts.Settled(ctx, act.ID); err != nil {
		return nil, err
	}
	return &pb.DecideActResponse{Act: actMessage(&act)}, nil
}

// person is who decides: the caller, and the name that they gave of themselves.
func (s *Server) person(ctx context.Context, who string) (string, error) {
	if len(who) > maxWho {
		return "", refuse(errInvalid, "a name of %d bytes is longer than %d", len(who), maxWho)
	}
	name := ""
	if c := callerOf(ctx); c != nil {
		name = c.name
	}
	switch {
	case who == "":
		return name, nil
	case name == "":
		return who, nil
	}
	return who + " (" + name + ")", nil
}

// decideAct notes what a person decided, and closes what asked for the decision.
func (s *Server) decideAct(ctx context.Context, id, what, who, why string) (platform.Act, error) {
	desk, err := s.desk()
	if err != nil {
		return platform.Act{}, err
	}
	act, err := desk.Decide(ctx, id, what, who, why)
	if err != nil {
		return act, actError(err)
	}
	if s.cfg.Reviews == nil {
		return act, nil
	}
	for _, asked := range []platform.State{platform.Waiting, platform.Failed, platform.Unsure} {
		_, err := s.cfg.Reviews.ChangeReview(ctx, actReview(id, asked), func(r *hashlist.Review) error {
			if r.State.Waiting() {
				r.State = hashlist.ReviewClosed
			}
			return nil
		})
		if err != nil && !errors.Is(err, hashlist.ErrNoReview) {
			return act, err
		}
	}
	return act, nil
}

// decideActReview does what a person decided about an act in the review queue. An act that has moved on
// meanwhile is left as it is: there is nothing to decide any more.
func (s *Server) decideActReview(ctx context.Context, r hashlist.Review, d *hashlist.ReviewDecision) error {
	desk, err := s.desk()
	if err != nil {
		return err
	}
	id, _, _ := strings.Cut(strings.TrimPrefix(r.ID, "act-"), "-")
	act, err := desk.Act(id)
	if err != nil {
		return actError(err)
	}
	what := ""
	switch approved := d.What == hashlist.ChooseApprove; {
	case approved && act.State == platform.Waiting:
		what = "approve"
	case approved && (act.State == platform.Failed || act.State == platform.Unsure):
		what = "run"
	case !approved && (act.State == platform.Waiting || act.State == platform.Unsure):
		what = "decline"
	default:
		return nil
	}
	_, err = s.decideAct(ctx, id, what, d.Who, d.Why)
	return err
}

// actReview is the id of the review that asks about an act in a state.
func actReview(id string, s platform.State) string {
	if s == platform.Waiting {
		return "act-" + id
	}
	return "act-" + id + "-" + s.String() // it may have been asked about before
}

// AskAboutAct puts an act that needs a person into the review queue.
func AskAboutAct(ctx context.Context, reviews hashlist.Reviews, a *platform.Act) error {
	_, err := reviews.AddReview(ctx, hashlist.Review{
		ID: actReview(a.ID, a.State), Kind: hashlist.ReviewAct, Verdict: a.Finding.ID, Statement: a.Finding.Statement, List: a.Finding.List, Issuer: a.Finding.Issuer,
		Reference: hashlist.Reference{URL: a.Finding.URL, Alias: a.Finding.Alias, Post: a.Finding.Post, Actor: a.Finding.Actor},
		Summary:   fmt.Sprintf("On %s: %s. It is %v: %s. Its undo: %s.", a.Platform, a.Does(), a.State, a.Note, a.Undo()),
	})
	return err
}

// act hands what was found to the desk, if anything is switched on for it. What cannot be noted is logged:
// the answer to an upload does not wait for it to work.
func (s *Server) act(ctx context.Context, f platform.Finding) {
	if s.cfg.Acts == nil || !s.cfg.Acts.Serves(f.Verdict) {
		return
	}
	if _, err := s.cfg.Acts.Find(context.WithoutCancel(ctx), f); err != nil {
		s.log.Error("an act could not be noted", slog.String("finding", f.ID), errorText(err))
	}
}

// Marks keep the places of those who read something in its order. Methods may be called concurrently.
type Marks interface {
	// Mark returns the place that was noted under a name, with the time noted beside it; zero for none.
	Mark(ctx context.Context, name string) (position uint64, at time.Time, err error)
	// SaveMark notes both durably.
	SaveMark(ctx context.Context, name string, position uint64, at time.Time) error
}

// hitsMark is where the acts on hits have come to.
const hitsMark = "acts"

// actOnHits hands every hit of the recent window to the desk until the drain begins. A hit is handed over
// again after a crash, which changes nothing: acts have their names from it.
func (s *Server) actOnHits(ctx context.Context) {
	for ctx.Err() == nil {
		seq, _, err := s.cfg.Marks.Mark(ctx, hitsMark)
		if err == nil {
			err = s.actOnHitsAfter(ctx, seq)
		}
		if err == nil || ctx.Err() != nil {
			return
		}
		s.log.Error("hits of the recent window could not be acted on; it is tried again", errorText(err))
		select {
		case <-time.After(time.Minute):
		case <-ctx.Done():
		}
	}
}

func (s *Server) actOnHitsAfter(ctx context.Context, seq uint64) error {
	for {
		before := seq
		for hit, err := range s.cfg.Window.Hits(ctx, seq) {
			if err != nil {
				return err
			}
			if !hit.Withdrawn {
				for _, f := range findingsOf(&hit) {
					s.act(ctx, f)
				}
			}
			seq = hit.Seq
		}
		if seq != before {
			if err := s.cfg.Marks.SaveMark(ctx, hitsMark, seq, time.Now().UTC().Truncate(time.Microsecond)); err != nil {
				return err
			}
		}
		if err := s.cfg.Window.WaitHits(ctx, seq); err != nil {
			return err
		}
	}
}

// findingsOf makes a finding of each place where the picture of a hit was seen.
func findingsOf(h *hashlist.Hit) []platform.Finding {
	var all []platform.Finding
	for _, seen := range h.Seen.Sightings {
		if seen.Reference.IsZero() {
			continue
		}
		r := seen.Reference
		all = append(all, platform.Finding{
			ID: fmt.Sprintf("%s-%d", h.ID, seen.ID), At: h.At, Verdict: h.Verdict, Labels: h.Match.Labels, Statement: h.Match.Statement,
			List: h.Match.List, Issuer: h.Match.Issuer, Why: h.Reason, URL: r.URL, Alias: r.Alias, Post: r.Post, Actor: r.Actor,
		})
	}
	return all
}

// actOn hands a verdict on what a caller names to the desk. id is the verdict's, "" if it has none.
func (s *Server) actOn(id string, q *hashlist.Query, r *hashlist.Result) {
	if r.Verdict == hashlist.VerdictAllow || q.Reference.IsZero() || s.cfg.Acts == nil {
		return
	}
	m, ref := r.Decided(), q.Reference
	if m == nil {
		return
	}
	if id == "" {
		id = reference()
	}
	f := platform.Finding{
		ID: id, At: time.Now().UTC().Truncate(time.Microsecond), Verdict: r.Verdict, Labels: m.Labels, Statement: m.Statement, List: m.List,
		Issuer: m.Issuer, Why: r.Reason, URL: ref.URL, Alias: ref.Alias, Post: ref.Post, Actor: ref.Actor,
	}
	if r.Decision.Label != "" {
		f.Labels = []string{r.Decision.Label}
	}
	s.act(s.hard, f)
}
