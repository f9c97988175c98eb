package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
	"github.com/tocsin-fed/tocsin/store"
)

// remembering gives a node a recent window and a review queue, on a real database.
func remembering(t testing.TB) func(*Config) { return rememberingUpTo(t, 50) }

// rememberingUpTo is remembering where statements may match so many recent uploads.
func rememberingUpTo(t testing.TB, uploads int) func(*Config) {
	return func(c *Config) {
		db, err := store.Create(t.Context(), filepath.Join(t.TempDir(), "tocsin.db"))
		if err != nil {
			t.Fatal(err)
		}
		w, err := hashlist.OpenWindow(t.Context(), c.Lists, hashlist.WindowConfig{
			Store: db, Quarantine: db, Key: bytes.Repeat([]byte{7}, hashlist.WindowKeySize), Keep: time.Hour, Entries: 1000, Log: c.Log,
			Flood: hashlist.Flood{Uploads: uploads, Share: .005},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			w.Close()
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		})
		w.Start()
		c.Window, c.Reviews = w, db
	}
}

// hookReceiver is where webhooks go. It answers with the given statuses first, and then
// with 204.
type hookReceiver struct {
	*httptest.Server
	mu       sync.Mutex
	statuses []int
	asked    int
	taken    []hookHit
	wrong    []string
}

func receive204(t testing.TB, secret []byte, statuses ...int) *hookReceiver {
	r := &hookReceiver{statuses: statuses}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		r.mu.Lock()
		defer r.mu.Unlock()
		complain := func(format string, args ...any) { r.wrong = append(r.wrong, fmt.Sprintf(format, args...)) }
		if err != nil {
			complain("body: %v", err)
		}
		stamp, _, _ := strings.Cut(strings.TrimPrefix(q.Header.Get("Tocsin-Signature"), "t="), ",")
		at, err := strconv.ParseInt(stamp, 10, 64)
		if err != nil || time.Since(time.Unix(at, 0)) > time.Minute || q.Header.Get("Tocsin-Signature") != SignWebhook(secret, time.Unix(at, 0), body) {
			complain("signature %s", q.Header.Get("Tocsin-Signature"))
		}
		if bytes.Contains(body, []byte("pdq:")) || bytes.Contains(body, []byte("sha256:")) {
			complain("a hash: %s", body)
		}
		r.asked++
		if len(r.statuses) > 0 {
			if r.statuses[0] == http.StatusFound {
				w.Header().Set("Location", "/elsewhere")
			}
			w.WriteHeader(r.statuses[0])
			r.statuses = r.statuses[1:]
			return
		}
		var h hookHit
		if err := json.Unmarshal(body, &h); err != nil || q.URL.Path != "/hook" {
			complain("%s at %s: %v", body, q.URL.Path, err)
		}
		r.taken = append(r.taken, h)
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *hookReceiver) all() (taken []hookHit, wrong []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]hookHit{}, r.taken...), r.wrong
}

// awaitWindow waits for something that another goroutine brings about.
func awaitWindow(t testing.TB, what string, done func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("in vain: %s", what)
		}
	}
}

// What passed the hook and is banned later goes to whoever watches, to webhooks that are
// asked until they take it, and into the review queue; a withdrawal follows it.
func TestHitsGoOut(t *testing.T) {
	secret := []byte("a secret of the webhook")
	slow, deaf := receive204(t, secret, http.StatusServiceUnavailable), receive204(t, secret, http.StatusGone)
	n := start(t, remembering(t), func(c *Config) {
		c.Webhook = Webhook{URLs: []string{slow.URL + "/hook", deaf.URL + "/hook"}, Secret: secret}
	})
	n.secrets = append(n.secrets, string(secret), "u/mallory")
	file := encodeJPEG(t, photo(1, 320, 240), 85)
	if code, _ := n.post(n.token("hook", ScopeLookup), bytes.NewReader(file)); code != http.StatusOK {
		t.Fatal(code)
	}
	lookups := pb.NewLookupServiceClient(n.owner())
	media := n.media(file)
	ref := &pb.Reference{Post: "https://here.example/post/1", Actor: "https://here.example/u/mallory"}
	seen, err := lookups.Lookup(t.Context(), &pb.LookupRequest{Hashes: []string{media.Frames[0].PDQ[0].String()}, Reference: ref})
	if err != nil || seen.GetSeenId() == 0 {
		t.Fatalf("%v, %v", seen, err)
	}
	if unnamed, err := lookups.Lookup(t.Context(), &pb.LookupRequest{Hashes: []string{media.SHA256.String()}}); err != nil || unnamed.GetSeenId() != 0 {
		t.Errorf("without a reference: %v, %v", unnamed, err)
	}
	window := pb.NewWindowServiceClient(n.owner())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := window.WatchHits(ctx, &pb.WatchHitsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	ban := n.ban("refused", media.Frames[0].PDQ[0])
	watched := map[string]*pb.Hit{} // by its name
	for len(watched) < 2 {
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		h := m.GetHit()
		if h.GetVerdict() != pb.Verdict_VERDICT_REJECT || h.GetMatch().GetStatementId() != ban.GetStatementId() || h.GetWithdrawn() {
			t.Errorf("%v", h)
		}
		watched[h.GetSeen().GetSightings()[0].GetReference().GetPost()] = h
	}
	if h := watched[ref.GetPost()]; h == nil || h.GetSeen().GetSightings()[0].GetSeenId() != seen.GetSeenId() || h.GetSeen().GetAnswered() != pb.Verdict_VERDICT_ALLOW {
		t.Errorf("%v", watched)
	}
	awaitWindow(t, "both are in the review queue", func() bool { return len(n.waitingFor(hashlist.ReviewHit)) == 2 })
	for _, r := range n.waitingFor(hashlist.ReviewHit) {
		if r.Statement != ban.GetStatementId() || !strings.Contains(r.Summary, "let through at") {
			t.Errorf("%+v", r)
		}
	}
	awaitWindow(t, "the webhook that failed once is asked again, and tells both", func() bool { all, _ := slow.all(); return len(all) == 2 })

	if _, err := pb.NewListServiceClient(n.owner()).Retract(t.Context(), &pb.RetractRequest{StatementId: ban.GetStatementId()}); err != nil {
		t.Fatal(err)
	}
	awaitWindow(t, "the withdrawals are told", func() bool { all, _ := slow.all(); return len(all) == 4 })
	awaitWindow(t, "nobody has to decide any more", func() bool { return len(n.waitingFor(hashlist.ReviewHit)) == 0 })
	awaitWindow(t, "the webhook that refused its first is told the others", func() bool { all, _ := deaf.all(); return len(all) == 3 })
	all, wrong := slow.all()
	for i, h := range all {
		if want := map[bool]string{true: "hit", false: "withdrawal"}[i < 2]; h.Type != want {
			t.Errorf("%d: %+v", i, h)
		}
	}
	also, wrongToo := deaf.all()
	if len(wrong)+len(wrongToo) > 0 || len(also) != 3 {
		t.Errorf("%v %v; the one that refused its first got %d more", wrong, wrongToo, len(also))
	}
	list, err := window.ListHits(t.Context(), &pb.ListHitsRequest{OpenOnly: true})
	if err != nil || len(list.GetHits()) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	forgotten, err := window.Forget(t.Context(), &pb.ForgetRequest{Reference: &pb.Reference{Actor: ref.GetActor()}})
	if err != nil || forgotten.GetForgotten() != 1 {
		t.Errorf("%v, %v", forgotten, err)
	}
}

// waitingFor are the reviews of a kind that wait for a decision.
func (n *node) waitingFor(kind hashlist.ReviewKind) (waiting []hashlist.Review) {
	n.t.Helper()
	all, err := n.cfg.Reviews.Reviews(n.t.Context(), hashlist.ReviewSelection{Kinds: []hashlist.ReviewKind{kind}})
	if err != nil {
		n.t.Fatal(err)
	}
	for _, r := range all {
		if r.State.Waiting() {
			waiting = append(waiting, r)
		}
	}
	return waiting
}

// A redirect is not followed: the address is what the operator wrote.
func TestWebhookFollowsNoRedirect(t *testing.T) {
	secret := []byte("a secret of the webhook")
	r := receive204(t, secret, http.StatusFound)
	n := start(t)
	n.cfg.Webhook.Secret = secret
	send := n.webhook(r.URL + "/hook")
	h := &hashlist.Hit{ID: "x", Verdict: hashlist.VerdictReject, Algorithm: hashlist.PDQ}
	if err := send(t.Context(), h); err == nil || !strings.Contains(err.Error(), "302") {
		t.Errorf("%v", err)
	}
	if err := send(t.Context(), h); err != nil {
		t.Error(err)
	}
	if all, wrong := r.all(); len(all) != 1 || len(wrong) != 0 || r.asked != 2 {
		t.Errorf("%v %v %d", all, wrong, r.asked)
	}
	r.Close()
	if err := send(t.Context(), h); err == nil || strings.Contains(err.Error(), r.URL) {
		t.Errorf("the address is in the error, or there is none: %v", err)
	}
}

// What is asked of the window is checked, and needs the scope.
func TestWindowService(t *testing.T) {
	n := start(t, remembering(t))
	w := pb.NewWindowServiceClient(n.owner())
	for name, call := range map[string]func() error{
		"forget nothing": func() error { _, err := w.Forget(t.Context(), &pb.ForgetRequest{}); return err },
		"a long reference": func() error {
			_, err := w.Forget(t.Context(), &pb.ForgetRequest{Reference: &pb.Reference{Post: strings.Repeat("x", 2049)}})
			return err
		},
		"a preview of nothing": func() error { _, err := w.Preview(t.Context(), &pb.PreviewRequest{}); return err },
		"many examples": func() error {
			_, err := w.Preview(t.Context(), &pb.PreviewRequest{List: "x", Examples: 101})
			return err
		},
		"decide nothing": func() error {
			_, err := w.DecideQuarantine(t.Context(), &pb.DecideQuarantineRequest{Subject: "x"})
			return err
		},
		"many hits": func() error { _, err := w.ListHits(t.Context(), &pb.ListHitsRequest{Limit: 1001}); return err },
	} {
		if err := call(); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := w.DecideQuarantine(t.Context(), &pb.DecideQuarantineRequest{Subject: "x", State: pb.QuarantineState_QUARANTINE_STATE_KEPT}); status.Code(err) != codes.NotFound {
		t.Errorf("what is not there: %v", err)
	}
	stranger := pb.NewWindowServiceClient(n.dial(n.grpc, n.token("looker", ScopeLookup)))
	if _, err := stranger.ListHits(t.Context(), &pb.ListHitsRequest{}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("with scope lookup: %v", err)
	}
	off := pb.NewWindowServiceClient(start(t).owner())
	if v, err := off.GetWindow(t.Context(), &pb.GetWindowRequest{}); err != nil || v.GetOn() {
		t.Errorf("without a window: %v, %v", v, err)
	}
	if _, err := off.ListHits(t.Context(), &pb.ListHitsRequest{}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("without a window: %v", err)
	}
}

// A list that floods twice on a day is asked about twice; who decides by `quarantine` settles
// the item, which then takes no contrary decision; and explain says what is in quarantine.
func TestQuarantineIsAskedAgain(t *testing.T) {
	const origin, list = "https://other.example", "https://other.example/lists/refused"
	n := start(t, func(c *Config) {
		policy := hashlist.DefaultPolicy()
		policy.Own = testOrigin
		lists, err := hashlist.Open(t.Context(), &memoryLog{places: map[string]uint64{}}, policy)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(lists.Close)
		c.Lists = lists
	}, remembering(t))
	cfg := n.Server.cfg
	cfg.Lists.Heed(list, hashlist.VerdictReject, hashlist.MostBelief)
	hashes := randomHashes(600) // of which each counts a tenth: they are fresh
	for _, h := range hashes {
		q := hashlist.Query{Probes: []hashlist.Probe{{Hash: h}}}
		r := cfg.Lists.Lookup(q)
		cfg.Window.See(q, &r)
	}
	awaitWindow(t, "all are kept", func() bool { return cfg.Window.Stats().Entries == 600 })
	owner, w := clientsOf(n.owner()), pb.NewWindowServiceClient(n.owner())
	apply := func(s hashlist.Statement) {
		s.Issuer, s.List, s.Published = origin+"/users/bob", list, time.Unix(1_790_000_000, 0).UTC()
		if _, err := cfg.Lists.Apply(t.Context(), hashlist.Record{Statement: s}); err != nil {
			t.Fatal(err)
		}
	}
	apply(hashlist.Statement{ID: origin + "/statements/d", Kind: hashlist.DefineList, Definition: &hashlist.Definition{
		Name: "refused", Audience: hashlist.Public, Action: hashlist.Reject, Radii: hashlist.DefaultRadii,
	}})
	var asked []string
	for i := range 2 {
		id := fmt.Sprintf("%s/statements/%d", origin, i)
		apply(hashlist.Statement{ID: id, Kind: hashlist.AddHashes, Hashes: hashes})
		awaitWindow(t, "somebody is asked", func() bool {
			all, err := cfg.Reviews.Reviews(t.Context(), hashlist.ReviewSelection{
				Kinds: []hashlist.ReviewKind{hashlist.ReviewQuarantine}, States: []hashlist.ReviewState{hashlist.ReviewOpen},
			})
			if err == nil && len(all) == 1 {
				asked = append(asked, all[0].ID)
			}
			return err == nil && len(all) == 1
		})
		x, err := pb.NewExplainServiceClient(n.owner()).Explain(t.Context(), &pb.ExplainRequest{Subject: id})
		if text := x.String(); err != nil || !strings.Contains(text, "tocsin quarantine release "+id) || strings.Contains(text, "nothing known against it") {
			t.Errorf("explained: %v, %v", x.GetNow(), err)
		}
		if _, err := w.DecideQuarantine(t.Context(), &pb.DecideQuarantineRequest{Subject: list, State: pb.QuarantineState_QUARANTINE_STATE_KEPT}); err != nil {
			t.Fatal(err)
		}
		_, err = owner.decide(t, asked[i], pb.ReviewChoice_REVIEW_CHOICE_RELEASE, "")
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "keep") {
			t.Errorf("the contrary: %v", err)
		}
	}
	if asked[0] == asked[1] {
		t.Error("asked once")
	}
}
