package revisit_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/guarded"
	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/revisit"
	"github.com/tocsin-fed/tocsin/store"
)

// place is another people's server with one picture at any path.
type place struct {
	*httptest.Server
	mu    sync.Mutex
	body  string
	code  int
	etag  string
	asked []string // what came in the condition
}

func newPlace(t *testing.T) *place {
	p := &place{body: "picture 0", code: http.StatusOK, etag: `"0"`}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.asked = append(p.asked, r.Header.Get("If-None-Match"))
		if r.URL.Path == "/around" {
			http.Redirect(w, r, "/around", http.StatusFound)
			return
		}
		if r.URL.Path == "/unchanged" {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		if r.URL.Path == "/private" {
			http.Redirect(w, r, "http://169.254.169.254/latest/meta-data", http.StatusFound)
			return
		}
		w.Header().Set("ETag", p.etag)
		if p.code == http.StatusOK && r.Header.Get("If-None-Match") == p.etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.WriteHeader(p.code)
		io.WriteString(w, p.body)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *place) put(code int, body string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.code, p.body, p.etag = code, body, fmt.Sprintf("%q", body)
}

// pdq is the PDQ hash of "picture N", which is N bits from that of "picture 0".
func pdq(t *testing.T, n int) hashlist.Hash {
	sum := [32]byte{31: 0xff} // a hash of zeros is refused
	for i := range n {
		sum[i/8] |= 1 << (i % 8)
	}
	h, err := hashlist.NewHash(hashlist.PDQ, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return h
}

type world struct {
	*revisit.Visitor
	db     *store.DB
	mu     sync.Mutex
	listed map[hashlist.Hash]bool
	told   []string
	mute   bool // Tell fails
}

func newWorld(t *testing.T, change func(*revisit.Config)) *world {
	t.Helper()
	db, err := store.Create(t.Context(), filepath.Join(t.TempDir(), "log.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	w := &world{db: db, listed: map[hashlist.Hash]bool{}}
	judge := func(hashes []hashlist.Hash) hashlist.Result {
		w.mu.Lock()
		defer w.mu.Unlock()
		if slices.ContainsFunc(hashes, func(h hashlist.Hash) bool { return w.listed[h] }) {
			return hashlist.Result{Verdict: hashlist.VerdictReject, Reason: "on list refused"}
		}
		return hashlist.Result{Verdict: hashlist.VerdictAllow}
	}
	c := revisit.Config{
		Addresses: db, Client: guarded.Client(guarded.Options{Loopback: true}), Log: slog.New(slog.DiscardHandler), Judge: judge,
		Every: 24 * time.Hour, Max: 3, MaxBytes: 1000, Radius: 31, Agent: "tocsin",
		Examine: func(_ context.Context, file []byte) (revisit.Seen, error) {
			sum := sha256.Sum256(file)
			exact, err := hashlist.NewHash(hashlist.SHA256, sum[:])
			if err != nil {
				return revisit.Seen{}, err
			}
			seen := revisit.Seen{Hashes: []hashlist.Hash{exact}}
			var n int
			if _, err := fmt.Sscanf(string(file), "picture %d", &n); err != nil {
				return seen, revisit.ErrNoPicture
			}
			seen.Hashes = append(seen.Hashes, pdq(t, n))
			seen.Result = judge(seen.Hashes)
			return seen, nil
		},
		Tell: func(_ context.Context, n revisit.News) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.mute {
				return errors.New("nobody listens")
			}
			w.told = append(w.told, n.Address.State.String())
			return nil
		},
	}
	if change != nil {
		change(&c)
	}
	if w.Visitor, err = revisit.NewVisitor(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) add(t *testing.T, url string) {
	t.Helper()
	if _, _, err := w.Add(t.Context(), revisit.Address{URL: url, Post: "https://here.example/post/1"}); err != nil {
		t.Fatal(err)
	}
}

func (w *world) visit(t *testing.T, url string) revisit.Address {
	t.Helper()
	a, err := w.Visit(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// What is swapped, listed, emptied or broken is noticed, and told once each.
func TestWhatBecomesOfAPicture(t *testing.T) {
	p := newPlace(t)
	w := newWorld(t, nil)
	url := p.URL + "/a.png"
	w.add(t, url)
	for i, c := range []struct {
		what  func()
		state revisit.State
		told  string // all that was told by then
	}{
		{func() {}, revisit.Same, ""},
		{func() {}, revisit.Same, ""},
		{func() { p.put(200, "picture 20") }, revisit.Same, ""},                    // reduced, or encoded anew
		{func() { p.put(200, "picture 40") }, revisit.Changed, "changed"},          // swapped
		{func() {}, revisit.Changed, "changed"},                                    // 304
		{func() { p.put(200, "picture 40 ") }, revisit.Changed, "changed changed"}, // another file
		{func() { p.put(404, "") }, revisit.Gone, "changed changed gone"},          //
		{func() {}, revisit.Gone, "changed changed gone"},                          // told once
		{func() { p.put(200, "picture 1") }, revisit.Same, "changed changed gone"}, // back again
		{func() { w.mu.Lock(); w.listed[pdq(t, 1)] = true; w.mu.Unlock(); p.put(200, "picture 1 ") }, revisit.Matched, "changed changed gone matched"}, //
		{func() { p.put(500, "") }, revisit.Failing, "changed changed gone matched"},                                                                   //
		{func() { p.put(200, "<html>") }, revisit.Changed, "changed changed gone matched changed"},                                                     // no picture
		{func() { p.put(200, strings.Repeat("x", 1001)) }, revisit.Failing, "changed changed gone matched changed"},                                    // too large
	} {
		c.what()
		a := w.visit(t, url)
		if a.State != c.state || strings.Join(w.told, " ") != c.told {
			t.Errorf("step %d: %v (%s), told %q; want %v, %s", i, a.State, a.Note, w.told, c.state, c.told)
		}
		if a.Checked.IsZero() || !a.Next.After(a.Checked.Add(time.Hour)) {
			t.Errorf("step %d: next at %v", i, a.Next)
		}
		kept, err := w.db.Addresses(t.Context())
		if err != nil || len(kept) != 1 || kept[0].State != a.State {
			t.Errorf("step %d: kept %+v, %v", i, kept, err)
		}
	}
	if !slices.Equal(p.asked[:2], []string{"", `"0"`}) {
		t.Errorf("asked %q", p.asked)
	}
}

// What was approved is listed later: the server need not send it again.
func TestListedLater(t *testing.T) {
	p := newPlace(t)
	w := newWorld(t, nil)
	w.add(t, p.URL)
	w.visit(t, p.URL)
	w.mu.Lock()
	w.listed[pdq(t, 0)] = true
	w.mu.Unlock()
	w.mute = true
	if a := w.visit(t, p.URL); a.State != revisit.Matched || a.Next.After(time.Now().Add(time.Hour)) {
		t.Errorf("%+v", a)
	}
	w.mute = false
	for range 2 {
		if a := w.visit(t, p.URL); a.State != revisit.Matched {
			t.Errorf("%+v", a)
		}
	}
	if !slices.Equal(w.told, []string{"matched"}) {
		t.Errorf("told %q", w.told)
	}
}

// What was approved elsewhere counts, not what is found first.
func TestApprovedByTheCaller(t *testing.T) {
	p := newPlace(t)
	w := newWorld(t, nil)
	if _, _, err := w.Add(t.Context(), revisit.Address{URL: p.URL, Approved: []hashlist.Hash{pdq(t, 200)}}); err != nil {
		t.Fatal(err)
	}
	if a := w.visit(t, p.URL); a.State != revisit.Changed {
		t.Errorf("%+v", a)
	}
	if _, known, err := w.Add(t.Context(), revisit.Address{URL: p.URL, Approved: []hashlist.Hash{pdq(t, 0)}}); err != nil || !known {
		t.Error(known, err)
	}
	if a := w.visit(t, p.URL); a.State != revisit.Same {
		t.Errorf("%+v", a)
	}
}

// Private addresses are refused, at once and behind a redirect, and so are endless ways.
func TestWhereItDoesNotGo(t *testing.T) {
	p := newPlace(t)
	strict := newWorld(t, func(c *revisit.Config) { c.Client = guarded.Client(guarded.Options{}) })
	loose := newWorld(t, nil)
	for _, c := range []struct {
		w   *world
		url string
	}{
		{strict, p.URL}, {strict, "https://127.0.0.1/"}, {strict, "https://[::ffff:10.0.0.1]/"}, {loose, p.URL + "/private"}, {loose, p.URL + "/around"},
		{loose, p.URL + "/unchanged"}, // which says so to whoever never saw it
	} {
		c.w.add(t, c.url)
		if a := c.w.visit(t, c.url); a.State != revisit.Failing || a.Failures != 1 {
			t.Errorf("%s: %v: %s", c.url, a.State, a.Note)
		} else {
			t.Logf("%s: %s", c.url, a.Note)
		}
	}
}

func TestAddressesRefused(t *testing.T) {
	w := newWorld(t, nil)
	for _, url := range []string{"", "ftp://far.example/a", "far.example/a.png", "https://u:p@far.example/", "https://far.example/ a", "https://far.example/#x", "https://far.example/" + strings.Repeat("x", 2048)} {
		if _, _, err := w.Add(t.Context(), revisit.Address{URL: url}); err == nil {
			t.Errorf("%.80q: taken", url)
		}
	}
	for i := range 3 {
		w.add(t, fmt.Sprintf("https://far%d.example/", i))
	}
	if _, _, err := w.Add(t.Context(), revisit.Address{URL: "https://more.example/"}); !errors.Is(err, revisit.ErrFull) {
		t.Error(err)
	}
	if err := w.Remove(t.Context(), "https://far1.example/"); err != nil {
		t.Error(err)
	}
	if err := w.Remove(t.Context(), "https://far1.example/"); !errors.Is(err, revisit.ErrNotThere) {
		t.Error(err)
	}
	if all := w.List("https://far"); len(all) != 2 || all[0].URL != "https://far0.example/" {
		t.Errorf("%+v", all)
	}
}

// Run asks each address once, no host twice at a time, and goes on after a restart where it was.
func TestRun(t *testing.T) {
	var mu sync.Mutex
	at, most, asked := 0, 0, 0
	full := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		at++
		most, asked = max(most, at), asked+1
		if asked == 3 {
			close(full)
		}
		mu.Unlock()
		io.WriteString(w, "picture 1")
		mu.Lock()
		at--
		mu.Unlock()
	}))
	t.Cleanup(s.Close)
	w := newWorld(t, nil)
	for i := range 3 {
		w.add(t, fmt.Sprintf("%s/%d", s.URL, i))
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	<-full
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if most != 1 || asked != 3 {
		t.Errorf("asked %d times, %d at once", asked, most)
	}
}
