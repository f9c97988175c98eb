package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tocsin-fed/tocsin/exchange/source"
	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

type sourceService struct {
	pb.UnimplementedSourceServiceServer
	s *Server
}

// keeper returns what keeps the sources, or why nothing does.
func (s *Server) keeper() (*source.Keeper, error) {
	if s.cfg.Sources == nil {
		return nil, refuse(errState, "this node keeps no sources")
	}
	return s.cfg.Sources, nil
}

// sourceFault gives an error of package source its class.
func sourceFault(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, source.ErrUnknown):
		return refuse(errUnknown, "%v", err)
	case errors.Is(err, source.ErrState):
		return refuse(errState, "%v", err)
	case errors.Is(err, source.ErrInvalid):
		return refuse(errInvalid, "%v", err)
	}
	return err
}

// byHand refuses to put something on a source's list by hand: it would act no more than the source
// is believed, and the next run would take it for what the source once said.
func (s *Server) byHand(list *hashlist.List) error {
	if s.cfg.Sources == nil {
		return nil
	}
	if name := s.cfg.Sources.Feeds(list.ID); name != "" {
		return refuse(errState, "list %s is kept on behalf of source %s: put it on a list of your own, which acts above any source", list.Name, name)
	}
	return nil
}

func sourceMessage(v *source.Source) *pb.Source {
	belief, shrink := uint32(v.Belief), uint32(v.MaxShrink)
	return &pb.Source{
		Name: v.Name, Url: v.URL, Format: v.Format, List: v.List, Every: durationpb.New(v.Every), Belief: &belief, Most: pb.Verdict(v.Most),
		MaxChanges: uint32(v.MaxChanges), MaxShrink: &shrink, Labels: v.Labels, Credentials: v.Credentials, Columns: v.Columns,
		Snapshot: v.Snapshot, State: pb.SourceState(v.State), Created: when(v.Created), Next: when(v.Next), Tried: when(v.Tried),
		Heard: when(v.Heard), Failures: v.Failures, Trouble: v.Trouble, Pending: v.Pending, Partner: source.Partner(v.Format),
	}
}

func runMessage(r *source.Run) *pb.SourceRun {
	v := &pb.SourceRun{
		Number: r.Number, Begun: when(r.Begun), Ended: when(r.Ended), State: pb.RunState(r.State), Rows: r.Rows, Refused: r.Refused,
		Before: r.Before, Added: r.Added, Changed: r.Changed, Retracted: r.Retracted, Kept: r.Kept, Missing: r.Missing, Why: r.Why,
		Sample: r.Sample, Who: r.Who, Decided: when(r.Decided), Statements: uint32(r.Statements),
	}
	for _, f := range r.Refusals {
		v.RefusedRows = append(v.RefusedRows, &pb.RefusedRow{Line: uint64(f.Line), Reason: f.Reason})
	}
	return v
}

var (
	sourcesBy   = prometheus.NewDesc("tocsin_sources", "Lists of other systems, by how far they have come.", []string{"state"}, nil)
	sourcesWait = prometheus.NewDesc("tocsin_sources_waiting", "Sources with a run that waits for a person.", nil, nil)
	sourcesFail = prometheus.NewDesc("tocsin_sources_failing", "Sources whose last run failed.", nil, nil)
)

// collectSources tells how the sources are, every state at zero too.
func collectSources(k *source.Keeper, gauge func(*prometheus.Desc, float64, ...string)) {
	var waiting, failing float64
	by := map[source.State]int{}
	for _, s := range k.Sources() {
		by[s.State]++
		if s.Pending != 0 {
			waiting++
		}
		if s.Failures > 0 && s.State != source.Removed {
			failing++
		}
	}
	for state := source.Draft; state <= source.Removed; state++ {
		gauge(sourcesBy, float64(by[state]), state.String())
	}
	gauge(sourcesWait, waiting)
	gauge(sourcesFail, failing)
}

// Subscribe implements the RPC.
func (v *sourceService) Subscribe(ctx context.Context, r *pb.SubscribeRequest) (*pb.SubscribeResponse, error) {
	k, err := v.s.keeper()
	if err != nil {
		return nil, err
	}
	q := r.GetSource()
	if err := hashlist.CheckName(q.GetName()); err != nil {
		return nil, invalid("name of the source", err)
	}
	list := q.GetList()
	if list == "" {
		list = q.GetName()
	}
	iri, err := v.s.resolve(list)
	if err != nil {
		return nil, err
	}
	if err := v.s.own(iri); err != nil {
		return nil, err
	}
	if _, there := v.s.cfg.Lists.List(iri); !there && !strings.Contains(list, "/") {
		if err := v.s.checkListName(list); err != nil {
			return nil, err
		}
	}
	s := source.Source{
		Name: q.GetName(), URL: q.GetUrl(), Format: q.GetFormat(), List: iri, Every: q.GetEvery().AsDuration(), Belief: source.DefaultBelief,
		Most: hashlist.Verdict(q.GetMost()), MaxChanges: int(q.GetMaxChanges()), MaxShrink: source.DefaultMaxShrink,
		Credentials: q.GetCredentials(), Columns: q.GetColumns(), Snapshot: q.GetSnapshot(),
	}
	if q.Belief != nil {
		s.Belief = uint8(min(q.GetBelief(), 255))
	}
	if q.MaxShrink != nil {
		s.MaxShrink = int(min(q.GetMaxShrink(), 255))
	}
	if s.Labels, err = labels(q.GetLabels()); err != nil {
		return nil, err
	}
	made, err := k.Subscribe(ctx, s)
	if err != nil {
		return nil, sourceFault(err)
	}
	return &pb.SubscribeResponse{Source: sourceMessage(&made)}, nil
}

// ListSources implements the RPC.
func (v *sourceService) ListSources(context.Context, *pb.ListSourcesRequest) (*pb.ListSourcesResponse, error) {
	k, err := v.s.keeper()
	if err != nil {
		return nil, err
	}
	answer := &pb.ListSourcesResponse{}
	for _, s := range k.Sources() {
		answer.Sources = append(answer.Sources, sourceMessage(&s))
	}
	return answer, nil
}

// GetSource implements the RPC.
func (v *sourceService) GetSource(ctx context.Context, r *pb.GetSourceRequest) (*pb.GetSourceResponse, error) {
	k, err := v.s.keeper()
	if err != nil {
		return nil, err
	}
	s, err := k.Source(r.GetName())
	if err != nil {
		return nil, sourceFault(err)
	}
	runs, err := k.Runs(ctx, s.Name, int(min(r.GetRuns(), 1000)))
	if err != nil {
		return nil, sourceFault(err)
	}
	answer := &pb.GetSourceResponse{Source: sourceMessage(&s)}
	for i := range runs {
		answer.Runs = append(answer.Runs, runMessage(&runs[i]))
	}
	return answer, nil
}

// teller passes on how far something is, not too often. Its functions may be called by another goroutine
// than the handler's, but by one at a time.
type teller struct {
	mu   sync.Mutex
	last time.Time
	send func(stage string, n uint64) error
}

func (t *teller) tell(stage string, n uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := time.Now(); now.Sub(t.last) >= progressEvery {
		t.last = now
		t.send(stage, n) // a caller who has gone ends the call's context as well
	}
}

// RunSource implements the RPC.
func (v *sourceService) RunSource(r *pb.RunSourceRequest, stream pb.SourceService_RunSourceServer) error {
	k, err := v.s.keeper()
	if err != nil {
		return err
	}
	t := &teller{send: func(stage string, n uint64) error {
		return stream.Send(&pb.RunSourceResponse{Stage: stage, Count: n})
	}}
	ctx, cancel := v.s.untilStopping(stream.Context())
	defer cancel()
	run, err := k.RunNow(ctx, r.GetName(), t.tell)
	if err != nil {
		return sourceFault(err)
	}
	return stream.Send(&pb.RunSourceResponse{Run: runMessage(&run)})
}

// ApproveSource implements the RPC.
func (v *sourceService) ApproveSource(r *pb.ApproveSourceRequest, stream pb.SourceService_ApproveSourceServer) error {
	k, err := v.s.keeper()
	if err != nil {
		return err
	}
	t := &teller{send: func(_ string, n uint64) error { return stream.Send(&pb.ApproveSourceResponse{Count: n}) }}
	var draft func(hashlist.Statement) error
	if r.GetDraft() {
		draft = func(s hashlist.Statement) error {
			b, err := v.s.draft(s)
			if err != nil {
				return err
			}
			return stream.Send(&pb.ApproveSourceResponse{Drafts: [][]byte{b}})
		}
	}
	run, err := k.Approve(stream.Context(), r.GetName(), r.GetRun(), callerOf(stream.Context()).name, draft, t.tell)
	if err != nil {
		return sourceFault(err)
	}
	return stream.Send(&pb.ApproveSourceResponse{Run: runMessage(&run)})
}

// PauseSource implements the RPC.
func (v *sourceService) PauseSource(ctx context.Context, r *pb.PauseSourceRequest) (*pb.PauseSourceResponse, error) {
	s, err := v.change(func(k *source.Keeper) (source.Source, error) { return k.Pause(ctx, r.GetName()) })
	return &pb.PauseSourceResponse{Source: s}, err
}

// ResumeSource implements the RPC.
func (v *sourceService) ResumeSource(ctx context.Context, r *pb.ResumeSourceRequest) (*pb.ResumeSourceResponse, error) {
	s, err := v.change(func(k *source.Keeper) (source.Source, error) { return k.Resume(ctx, r.GetName()) })
	return &pb.ResumeSourceResponse{Source: s}, err
}

// RemoveSource implements the RPC.
func (v *sourceService) RemoveSource(ctx context.Context, r *pb.RemoveSourceRequest) (*pb.RemoveSourceResponse, error) {
	s, err := v.change(func(k *source.Keeper) (source.Source, error) { return k.Remove(ctx, r.GetName()) })
	return &pb.RemoveSourceResponse{Source: s}, err
}

// BelieveSource implements the RPC.
func (v *sourceService) BelieveSource(ctx context.Context, r *pb.BelieveSourceRequest) (*pb.BelieveSourceResponse, error) {
	if r.GetBelief() > 120 {
		return nil, refuse(errInvalid, "belief %d is not 0 to 120", r.GetBelief())
	}
	if _, known := pb.Verdict_name[int32(r.GetMost())]; !known {
		return nil, refuse(errInvalid, "unknown verdict %d", r.GetMost())
	}
	s, err := v.change(func(k *source.Keeper) (source.Source, error) {
		return k.Believe(ctx, r.GetName(), uint8(r.GetBelief()), hashlist.Verdict(r.GetMost()))
	})
	return &pb.BelieveSourceResponse{Source: s}, err
}

func (v *sourceService) change(how func(*source.Keeper) (source.Source, error)) (*pb.Source, error) {
	k, err := v.s.keeper()
	if err != nil {
		return nil, err
	}
	s, err := how(k)
	if err != nil {
		return nil, sourceFault(err)
	}
	return sourceMessage(&s), nil
}

// sourceBody is what a review of a run remembers.
type sourceBody struct {
	Source string
	Run    uint64
}

// AskAboutSource puts a run that waits for a person into the queue of reviews. It is what
// source.Config.Ask is set to where there is one.
func AskAboutSource(reviews hashlist.Reviews) func(context.Context, source.Source, source.Run) error {
	return func(ctx context.Context, s source.Source, r source.Run) error {
		body, err := json.Marshal(sourceBody{s.Name, r.Number})
		if err != nil {
			return err
		}
		summary := fmt.Sprintf("Run %d of source %s would add %d, change %d and take back %d: %s. `tocsin sources show %[2]s` has the preview.",
			r.Number, s.Name, r.Added, r.Changed, r.Retracted, r.Why)
		_, err = reviews.AddReview(ctx, hashlist.Review{
			ID: sourceReview(s.Name, r.Number), Kind: hashlist.ReviewSource, At: r.Ended, List: s.List, Summary: summary, Body: body,
		})
		return err
	}
}

func sourceReview(name string, run uint64) string { return fmt.Sprintf("source-%s-%d", name, run) }

// SettleSource closes the review of a run that was decided elsewhere, or that a later one has replaced. It is what
// source.Config.Settle is set to where Ask is AskAboutSource.
func SettleSource(reviews hashlist.Reviews) func(context.Context, string, uint64) error {
	return func(ctx context.Context, name string, run uint64) error {
		_, err := reviews.ChangeReview(ctx, sourceReview(name, run), func(r *hashlist.Review) error {
			if r.State.Waiting() {
				r.State = hashlist.ReviewClosed
			}
			return nil
		})
		if errors.Is(err, hashlist.ErrNoReview) {
			return nil
		}
		return err
	}
}

// decideSource carries out what a person decided about a run: approve does what was shown, dismiss
// discards it.
func (s *Server) decideSource(ctx context.Context, r hashlist.Review, d *hashlist.ReviewDecision) error {
	k, err := s.keeper()
	if err != nil {
		return err
	}
	var b sourceBody
	if err := json.Unmarshal(r.Body, &b); err != nil {
		return fmt.Errorf("review %s does not say which run it is of: %w", r.ID, err)
	}
	switch d.What {
	case hashlist.ChooseApprove:
		_, err = k.Approve(ctx, b.Source, b.Run, d.Who, nil, nil)
	case hashlist.ChooseDismiss:
		_, err = k.Refuse(ctx, b.Source, b.Run, d.Who)
	default:
		return refuse(errInvalid, "a run of a source is approved or dismissed")
	}
	return sourceFault(err)
}
