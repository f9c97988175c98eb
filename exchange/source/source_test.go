package source_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tocsin-fed/tocsin/exchange/source"
	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/guarded"
	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const origin = "https://hashes.example"

// node is a node with a source to come, on a real database, and a server that the source is on.
type node struct {
	t      *testing.T
	db     *store.DB
	lists  *hashlist.Lists
	keeper *source.Keeper
	cfg    source.Config
	asked  []string // runs that a person was asked about

	server *httptest.Server
	mu     sync.Mutex
	answer http.HandlerFunc
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{t: t}
	var err error
	if n.db, err = store.Create(t.Context(), filepath.Join(t.TempDir(), "log.db")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.db.Close() })
	policy := hashlist.DefaultPolicy()
	policy.Own = origin
	if n.lists, err = hashlist.Open(t.Context(), n.db, policy); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.lists.Close)
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := federation.NewIssuer(origin+"/users/admin", private)
	if err != nil {
		t.Fatal(err)
	}
	n.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.mu.Lock()
		answer := n.answer
		n.mu.Unlock()
		answer(w, r)
	}))
	client := guarded.Client(guarded.Options{Loopback: true})
	t.Cleanup(func() { client.CloseIdleConnections(); n.server.CloseClientConnections(); n.server.Close() })
	n.cfg = source.Config{
		Lists: n.lists, Store: n.db, Issuer: issuer, Origin: origin, Client: client, Loopback: true, Dir: t.TempDir(), Version: "test",
		Log: slog.New(slog.DiscardHandler), RunTime: time.Minute, Idle: 20 * time.Second, MaxBody: 1 << 20,
		Ask: func(_ context.Context, s source.Source, r source.Run) error {
			n.asked = append(n.asked, fmt.Sprintf("%s/%d", s.Name, r.Number))
			return nil
		},
	}
	n.open()
	return n
}

// open takes up the sources as a node does that has started again.
func (n *node) open() {
	n.t.Helper()
	k, err := source.Open(n.t.Context(), n.cfg)
	if err != nil {
		n.t.Fatal(err)
	}
	n.keeper = k
}

func (n *node) serve(answer http.HandlerFunc) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answer = answer
}

// text serves a body as of a media type.
func text(media, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", media)
		fmt.Fprint(w, body)
	}
}

// blocks is a list of n domains in Mastodon's format.
func blocks(n int) string {
	var b strings.Builder
	b.WriteString("#domain,#severity,#reject_media,#reject_reports,#public_comment,#obfuscate\n")
	for i := range n {
		fmt.Fprintf(&b, "bad%d.example,suspend,false,false,spam,false\n", i)
	}
	return b.String()
}

func (n *node) subscribe(change ...func(*source.Source)) {
	n.t.Helper()
	s := source.Source{Name: "blocks", URL: n.server.URL + "/blocks.csv", Format: "mastodon", List: origin + "/lists/blocks",
		Belief: 120, MaxShrink: 10, MaxChanges: 50, Snapshot: true}
	for _, f := range change {
		f(&s)
	}
	if _, err := n.keeper.Subscribe(n.t.Context(), s); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) run() source.Run {
	n.t.Helper()
	r, err := n.keeper.RunNow(n.t.Context(), "blocks", nil)
	if err != nil {
		n.t.Fatal(err)
	}
	return r
}

func (n *node) approve() source.Run {
	n.t.Helper()
	r, err := n.keeper.Approve(n.t.Context(), "blocks", 0, "tester", nil, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	return r
}

// fold is what is in force on the source's list, as a sum.
func (n *node) fold() string {
	n.t.Helper()
	var b strings.Builder
	if err := n.lists.WriteFold(&b); err != nil {
		n.t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(b.String()))
	return hex.EncodeToString(sum[:4])
}

func (n *node) subjects() int {
	l, _ := n.lists.List(origin + "/lists/blocks")
	return l.Subjects
}

// listed reports whether a domain acts.
func (n *node) listed(domain string) bool {
	return len(n.lists.Subject(hashlist.AddInstances, domain)) > 0
}

// TestBadSources: what a source may come back as, and what that does to the fold, which is nothing that
// a person did not approve.
func TestBadSources(t *testing.T) {
	good := blocks(40)
	hang := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/csv")
		fmt.Fprint(w, good[:200])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		want   source.RunState
		why    string
	}{
		{"the same", text("text/csv", good), source.Unchanged, ""},
		{"empty", text("text/csv", ""), source.Failed, "not a header"},
		{"a header alone", text("text/csv", blocks(0)), source.Held, "came back empty"},
		{"cut off inside a row", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/csv")
			w.Header().Set("Content-Length", fmt.Sprint(len(good)))
			fmt.Fprint(w, good[:len(good)/2])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, source.Failed, "cut off"},
		{"cut off, with a length that says otherwise", text("text/csv", good[:len(good)/2]), source.Held, "are gone"},
		{"half as long", text("text/csv", blocks(20)), source.Held, "20 of 40"},
		{"one eighth shorter", text("text/csv", blocks(35)), source.Held, "5 of 40"},
		{"one shorter", text("text/csv", blocks(39)), source.Applied, ""},
		{"one longer", text("text/csv", blocks(41)), source.Applied, ""},
		{"a web page", text("text/html; charset=utf-8", "<!doctype html><title>Gone</title>"), source.Failed, "media type"},
		{"a web page that says it is CSV", text("text/csv", "\n<!DOCTYPE html><title>Gone</title>"), source.Failed, "web page"},
		{"UTF-16", text("text/csv", "\xff\xfe#\x00d\x00"), source.Failed, "UTF-16"},
		{"Latin-1", text("text/csv", "#domain\nb\xfccher.example\n"), source.Failed, "UTF-8"},
		{"Latin-1 that says so", text("text/csv; charset=iso-8859-1", good), source.Failed, "character set"},
		{"an archive", text("text/csv", "PK\x03\x04...."), source.Failed, "archive"},
		{"packed though nobody asked", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/csv")
			w.Header().Set("Content-Encoding", "br")
			fmt.Fprint(w, good)
		}, source.Failed, "encoded"},
		{"a column that is called another", text("text/csv", strings.Replace(good, "#domain", "#severity", 1)), source.Failed, ""},
		{"ten times as long", text("text/csv", blocks(400)), source.Held, "more than 50"},
		{"too large", text("text/csv", good+strings.Repeat("# filler\n", 200_000)), source.Failed, "larger than"},
		{"never ends", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/csv")
			fmt.Fprint(w, good)
			for r.Context().Err() == nil {
				if _, err := fmt.Fprint(w, strings.Repeat("x", 64<<10)); err != nil {
					return
				}
			}
		}, source.Failed, "larger than"},
		{"never comes", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, source.Failed, "nothing came"},
		{"stops in the middle", hang, source.Failed, "nothing came"},
		{"redirected to another server", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://elsewhere.example/blocks.csv", http.StatusFound)
		}, source.Failed, "another server"},
		{"redirected in a circle", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x", http.StatusFound) }, source.Failed, "redirects"},
		{"gone", func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }, source.Failed, "404"},
		{"too many requests", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(http.StatusTooManyRequests)
		}, source.Failed, "1h0m0s"},
		{"not changed, though nobody has it", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) }, source.Failed, "304"},
		{"another format", text("application/json", `[{"domain":"bad0.example"}]`), source.Failed, ""},
		{"rows that are none", text("text/csv", blocks(0)+strings.Repeat("nonsense of many words,maybe\n", 60)), source.Held, "could not be read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			n.serve(text("text/csv", good))
			n.subscribe()
			if r := n.run(); r.State != source.Held || r.Added != 40 || n.subjects() != 0 {
				t.Fatalf("the first run is %v with %d added and %d on the list (%s), want a draft", r.State, r.Added, n.subjects(), r.Why)
			}
			if r := n.approve(); r.State != source.Applied || n.subjects() != 40 {
				t.Fatalf("approved: %v, %d on the list", r.State, n.subjects())
			}
			before := n.fold()
			if c.why == "nothing came" {
				n.cfg.Idle = 300 * time.Millisecond
				n.open()
			}
			n.serve(c.answer)
			r := n.run()
			if r.State != c.want || !strings.Contains(r.Why, c.why) {
				t.Errorf("%v (%s), want %v (%s)", r.State, r.Why, c.want, c.why)
			}
			changed := n.fold() != before
			if changed != (c.want == source.Applied) {
				t.Errorf("the fold changed: %v", changed)
			}
			t.Logf("| %s | %v | %s | %d -> %d |", c.name, r.State, strings.ReplaceAll(r.Why, n.server.URL, ""), 40, n.subjects())
		})
	}
}

// A person's approval is of what was shown: what the source says meanwhile waits for its own run.
func TestApprovedIsWhatWasShown(t *testing.T) {
	n := newNode(t)
	n.serve(text("text/csv", blocks(3)))
	n.subscribe()
	first := n.run()
	if first.State != source.Held || !slices.Equal(first.Sample, []string{"+ bad0.example drop", "+ bad1.example drop", "+ bad2.example drop"}) {
		t.Fatalf("%v %q", first.State, first.Sample)
	}
	if again := n.run(); again.State != source.Unchanged || len(n.asked) != 1 {
		t.Errorf("the same draft again: %v, asked %v", again.State, n.asked)
	}
	n.serve(text("text/csv", blocks(5)))
	n.approve()
	if n.subjects() != 3 {
		t.Errorf("%d on the list, and 3 were approved", n.subjects())
	}
	if _, err := n.keeper.Approve(t.Context(), "blocks", 0, "tester", nil, nil); err == nil {
		t.Error("approved twice")
	}
	if r := n.run(); r.State != source.Applied || r.Added != 2 || n.subjects() != 5 {
		t.Errorf("%v, %d added, %d on the list", r.State, r.Added, n.subjects())
	}
	// Another plan takes the place of the one that waits, which can be approved no more.
	n.serve(text("text/csv", blocks(0)))
	held := n.run()
	n.serve(text("text/csv", blocks(1)))
	later := n.run()
	if held.State != source.Held || later.State != source.Held {
		t.Fatalf("%v, %v", held.State, later.State)
	}
	if _, err := n.keeper.Approve(t.Context(), "blocks", held.Number, "tester", nil, nil); err == nil {
		t.Error("a plan was approved that another has replaced")
	}
	n.open() // what waits outlives the process
	if r := n.approve(); r.Number != later.Number || n.subjects() != 1 {
		t.Errorf("run %d applied, %d on the list", r.Number, n.subjects())
	}
}

// What a person took off the list stays off, and what the source takes back and says again comes back.
func TestPeopleOutweighSources(t *testing.T) {
	n := newNode(t)
	n.serve(text("text/csv", blocks(20)))
	n.subscribe()
	n.run()
	n.approve()
	var add hashlist.Record
	for r, err := range n.lists.After(t.Context(), 0, hashlist.Selection{List: origin + "/lists/blocks"}) {
		if err != nil {
			t.Fatal(err)
		}
		if r.Statement.Kind == hashlist.AddInstances {
			add = r
		}
	}
	off, err := n.cfg.Issuer.Seal(hashlist.Statement{Kind: hashlist.Retraction, List: add.Statement.List, Retracts: add.Statement.ID, Subjects: []string{"bad3.example"}, Reason: "a mistake there"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.lists.Apply(t.Context(), off); err != nil {
		t.Fatal(err)
	}
	if r := n.run(); r.State != source.Unchanged || r.Kept != 1 || n.listed("bad3.example") {
		t.Errorf("%v, %d kept off, listed %v", r.State, r.Kept, n.listed("bad3.example"))
	}
	n.serve(text("text/csv", blocks(19)))
	if r := n.run(); r.State != source.Applied || r.Retracted != 1 || n.listed("bad19.example") {
		t.Errorf("%v, %d retracted: %s", r.State, r.Retracted, r.Why)
	}
	n.serve(text("text/csv", blocks(20)))
	if r := n.run(); r.State != source.Applied || r.Added != 1 || !n.listed("bad19.example") {
		t.Errorf("%v, %d added: %s", r.State, r.Added, r.Why)
	}
	// On other terms: the new ones alone are in force.
	n.serve(text("text/csv", strings.Replace(blocks(20), "bad5.example,suspend", "bad5.example,silence", 1)))
	r := n.run()
	said := n.lists.Subject(hashlist.AddInstances, "bad5.example")
	if r.State != source.Applied || r.Changed != 1 || len(said) != 1 || said[0].Action != hashlist.Filter {
		t.Errorf("%v, %d changed, %v", r.State, r.Changed, said)
	}
}

// A source acts as far as it is believed; paused it acts on, and removed no more, also after a restart.
func TestBeliefAndStates(t *testing.T) {
	n := newNode(t)
	n.serve(text("text/csv", blocks(2)))
	n.subscribe(func(s *source.Source) { s.Belief = 0 })
	n.run()
	n.approve()
	if n.listed("bad0.example") {
		t.Error("a source that is not believed acts")
	}
	if _, err := n.keeper.Believe(t.Context(), "blocks", 40, 0); err != nil {
		t.Fatal(err)
	}
	if !n.listed("bad0.example") {
		t.Error("a source that is believed does not act")
	}
	if _, err := n.keeper.Pause(t.Context(), "blocks"); err != nil {
		t.Fatal(err)
	}
	n.open()
	if !n.listed("bad0.example") {
		t.Error("a paused source does not act")
	}
	if _, err := n.keeper.Resume(t.Context(), "blocks"); err != nil {
		t.Fatal(err)
	}
	if _, err := n.keeper.Remove(t.Context(), "blocks"); err != nil {
		t.Fatal(err)
	}
	n.open()
	if _, err := n.keeper.RunNow(t.Context(), "blocks", nil); err == nil || n.listed("bad0.example") {
		t.Errorf("a removed source acts, or is read: %v", err)
	}
	// Again under its name: it is a draft once more, and knows what it said before.
	n.subscribe()
	if r := n.run(); r.State != source.Unchanged || r.Before != 2 {
		t.Errorf("%v, %d before", r.State, r.Before)
	}
}

// TestSubscribeRefuses: what cannot become a source.
func TestSubscribeRefuses(t *testing.T) {
	n := newNode(t)
	own, err := n.cfg.Issuer.Seal(hashlist.Statement{Kind: hashlist.DefineList, List: origin + "/lists/own", Definition: &hashlist.Definition{
		Name: "own", Audience: hashlist.Local, Action: hashlist.Reject, Radii: hashlist.DefaultRadii,
	}})
	if err != nil {
		t.Fatal(err)
	}
	ban, err := n.cfg.Issuer.Seal(hashlist.Statement{Kind: hashlist.AddInstances, List: own.Statement.List, Subjects: []string{"bad.example"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.lists.Apply(t.Context(), own, ban); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(n.cfg.Dir, "open")
	if err := os.WriteFile(secret, []byte("bearer abc\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	n.serve(text("text/csv", blocks(1)))
	n.subscribe()
	for _, c := range []struct {
		change func(*source.Source)
		want   string
	}{
		{func(s *source.Source) { s.Name = "other" }, "list of its own"},
		{func(s *source.Source) {}, "already"},
		{func(s *source.Source) { s.Name, s.List = "own", origin+"/lists/own" }, "statements of its own"},
		{func(s *source.Source) { s.Name, s.List = "x", "https://elsewhere.example/lists/x" }, "not of this node"},
		{func(s *source.Source) { s.Name, s.List, s.URL = "x", origin+"/lists/x", "ftp://a.example/x" }, "not like https"},
		{func(s *source.Source) { s.Name, s.List, s.URL = "x", origin+"/lists/x", "https://me:pw@a.example/x" }, "password"},
		{func(s *source.Source) { s.Name, s.List, s.Format = "x", origin+"/lists/x", "nonsense" }, "unknown format"},
		{func(s *source.Source) { s.Name, s.List, s.Every = "x", origin+"/lists/x", time.Second }, "every"},
		{func(s *source.Source) { s.Name, s.List, s.Belief = "x", origin+"/lists/x", 121 }, "belief"},
		{func(s *source.Source) { s.Name, s.List, s.Credentials = "x", origin+"/lists/x", "open" }, "chmod 600"},
		{func(s *source.Source) { s.Name, s.List, s.Credentials = "x", origin+"/lists/x", "missing" }, "credentials"},
	} {
		s := source.Source{Name: "blocks", URL: n.server.URL, Format: "mastodon", List: origin + "/lists/blocks"}
		c.change(&s)
		if _, err := n.keeper.Subscribe(t.Context(), s); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "abc") {
			t.Errorf("%+v: %v, want %q in it", s, err, c.want)
		}
	}
}
