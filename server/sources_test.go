package server

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/tocsin-fed/tocsin/exchange/source"
	"github.com/tocsin-fed/tocsin/guarded"
	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
	"github.com/tocsin-fed/tocsin/store"
)

// withSources lets the node of a test read lists of others.
func withSources(t *testing.T, change ...func(*source.Config)) func(*Config) {
	return func(c *Config) {
		db, err := store.Create(t.Context(), filepath.Join(t.TempDir(), "sources.db"))
		if err != nil {
			t.Fatal(err)
		}
		client := guarded.Client(guarded.Options{Loopback: true})
		t.Cleanup(func() { client.CloseIdleConnections(); db.Close() })
		cfg := source.Config{
			Lists: c.Lists, Store: db, Issuer: c.Issuer, Origin: c.Origin, Client: client, Loopback: true, Dir: t.TempDir(),
			Log: slog.New(slog.DiscardHandler), Ask: AskAboutSource(db), Settle: SettleSource(db),
		}
		for _, f := range change {
			f(&cfg)
		}
		if c.Sources, err = source.Open(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		c.Reviews = db
	}
}

func TestSourceService(t *testing.T) {
	offline := false
	n := start(t, withSources(t, func(c *source.Config) { c.Offline = func() bool { return offline } }))
	rows := 3
	lists := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		for i := range rows {
			fmt.Fprintf(w, "bad%d.example\n", i)
		}
	}))
	defer lists.Close()
	c := pb.NewSourceServiceClient(n.owner())
	ctx := t.Context()
	belief := uint32(120)
	if _, err := c.Subscribe(ctx, &pb.SubscribeRequest{Source: &pb.Source{Name: "Bad name", Url: lists.URL, Format: "domains"}}); err == nil {
		t.Error("a name that is none was taken")
	}
	_, err := c.Subscribe(ctx, &pb.SubscribeRequest{Source: &pb.Source{Name: "x", Url: lists.URL, Format: "no-format"}})
	wantCode(t, "unknown format", err, codes.InvalidArgument)
	_, err = c.GetSource(ctx, &pb.GetSourceRequest{Name: "x"})
	wantCode(t, "unknown source", err, codes.NotFound)
	v, err := c.Subscribe(ctx, &pb.SubscribeRequest{Source: &pb.Source{Name: "tier0", Url: lists.URL, Format: "domains", Belief: &belief, Snapshot: true}})
	if err != nil || v.GetSource().GetState() != pb.SourceState_SOURCE_STATE_DRAFT {
		t.Fatalf("%v, %v", v, err)
	}
	run := func() *pb.SourceRun {
		t.Helper()
		stream, err := c.RunSource(ctx, &pb.RunSourceRequest{Name: "tier0"})
		for {
			if err != nil {
				t.Fatal(err)
			}
			m, e := stream.Recv()
			if err = e; err == nil && m.GetRun() != nil {
				return m.GetRun()
			}
		}
	}
	approve := func(draft bool) (drafts [][]byte, last *pb.SourceRun, err error) {
		stream, err := c.ApproveSource(ctx, &pb.ApproveSourceRequest{Name: "tier0", Draft: draft})
		for err == nil {
			var m *pb.ApproveSourceResponse
			if m, err = stream.Recv(); err == nil {
				drafts, last = append(drafts, m.GetDrafts()...), m.GetRun()
			}
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return drafts, last, err
	}
	// It is read by itself as soon as it is there, and a person is asked once.
	run()
	s, err := c.GetSource(ctx, &pb.GetSourceRequest{Name: "tier0"})
	if err != nil || s.GetSource().GetPending() == 0 {
		t.Fatalf("%v, %v", s, err)
	}
	reviews, err := n.cfg.Reviews.Reviews(ctx, hashlist.ReviewSelection{Kinds: []hashlist.ReviewKind{hashlist.ReviewSource}})
	if err != nil || len(reviews) != 1 || !strings.Contains(reviews[0].Summary, "would add 3") {
		t.Errorf("%+v, %v", reviews, err)
	}
	// Where the key is elsewhere, drafts are given out and nothing is signed.
	offline = true
	_, _, err = approve(false)
	wantCode(t, "approve without the key", err, codes.FailedPrecondition)
	drafts, last, err := approve(true)
	if err != nil || len(drafts) != 1 || last.GetState() != pb.RunState_RUN_STATE_DRAFTED || !strings.Contains(string(drafts[0]), "bad2.example") {
		t.Fatalf("%d drafts, %v, %v", len(drafts), last, err)
	}
	offline = false
	if r := run(); r.GetState() != pb.RunState_RUN_STATE_APPLIED || r.GetAdded() != 3 { // it is approved now, and within its bounds
		t.Errorf("%v", r)
	}
	// A person's answer by way of the queue.
	rows = 0
	held := run()
	if held.GetState() != pb.RunState_RUN_STATE_HELD {
		t.Fatalf("%v", held)
	}
	reviews, err = n.cfg.Reviews.Reviews(ctx, hashlist.ReviewSelection{})
	if err != nil || len(reviews) != 2 {
		t.Fatalf("%+v, %v", reviews, err)
	}
	if reviews[0].State != hashlist.ReviewClosed || reviews[1].State != hashlist.ReviewOpen {
		t.Errorf("what was decided is %v in the queue, and what was not %v", reviews[0].State, reviews[1].State)
	}
	full, _, err := n.cfg.Reviews.FindReview(ctx, reviews[1].ID)
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, "another choice", n.decideSource(ctx, full, &hashlist.ReviewDecision{Who: "me", What: hashlist.ChooseBan}), codes.Unknown)
	if err := n.decideSource(ctx, full, &hashlist.ReviewDecision{Who: "me", What: hashlist.ChooseDismiss}); err != nil {
		t.Fatal(err)
	}
	if s, _ := c.GetSource(ctx, &pb.GetSourceRequest{Name: "tier0"}); s.GetSource().GetState() != pb.SourceState_SOURCE_STATE_PAUSED || s.GetRuns()[0].GetWho() != "me" {
		t.Errorf("%v", s)
	}
	if err := n.decideSource(ctx, full, &hashlist.ReviewDecision{Who: "me", What: hashlist.ChooseApprove}); err == nil {
		t.Error("what was dismissed was approved")
	}
	for _, want := range []string{`tocsin_sources{state="paused"} 1`, `tocsin_sources{state="draft"} 0`, "tocsin_sources_waiting 0"} {
		if !n.metric(want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	// Nobody adds to a source's list by hand.
	_, err = pb.NewListServiceClient(n.owner()).Submit(ctx, &pb.SubmitRequest{List: "tier0", Hashes: []string{randomHashes(1)[0].String()}})
	wantCode(t, "ban on a source's list", err, codes.FailedPrecondition)
}
