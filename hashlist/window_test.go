package hashlist_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/store"
)

const (
	home    = "https://home.example"
	abroad  = "https://abroad.example"
	refused = home + "/lists/refused"
	theirs  = abroad + "/lists/theirs"
)

// world is a node's lists and window on a real database.
type world struct {
	t      testing.TB
	dir    string
	key    []byte
	db     *store.DB
	lists  *hashlist.Lists
	window *hashlist.Window
	config hashlist.WindowConfig
	log    strings.Builder
	n      int                   // statements made
	heed   func(*hashlist.Lists) // before the window starts; nil for nothing
	reads  *atomic.Int64         // uploads read to be judged, by how often; nil if nobody counts
}

func newWorld(t testing.TB, change func(*hashlist.WindowConfig)) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), key: []byte(strings.Repeat("k", hashlist.WindowKeySize))}
	db, err := store.Create(t.Context(), filepath.Join(w.dir, "tocsin.db"))
	if err != nil {
		t.Fatal(err)
	}
	w.db = db
	w.config = hashlist.WindowConfig{Keep: 24 * time.Hour, Entries: 10_000, Key: w.key}
	if change != nil {
		change(&w.config)
	}
	w.open()
	t.Cleanup(w.close)
	w.say(hashlist.Statement{Kind: hashlist.DefineList, List: refused, Definition: definition("refused")})
	w.say(hashlist.Statement{Kind: hashlist.DefineList, List: theirs, Definition: definition("theirs")})
	return w
}

func definition(name string) *hashlist.Definition {
	return &hashlist.Definition{Name: name, Labels: []string{"spam"}, Audience: hashlist.Public, Action: hashlist.Reject, Radii: hashlist.DefaultRadii}
}

func (w *world) open() {
	w.t.Helper()
	policy := hashlist.DefaultPolicy()
	policy.Own = home
	var err error
	if w.lists, err = hashlist.Open(w.t.Context(), w.db, policy); err != nil {
		w.t.Fatal(err)
	}
	w.config.Store, w.config.Quarantine = w.db, w.db
	if w.reads != nil {
		w.config.Store = countedStore{w.db, w.reads}
	}
	w.config.Log = slog.New(slog.NewTextHandler(&w.log, nil))
	if w.window, err = hashlist.OpenWindow(w.t.Context(), w.lists, w.config); err != nil {
		w.t.Fatal(err)
	}
	if w.heed != nil {
		w.heed(w.lists)
	}
	w.window.Start()
}

func (w *world) close() {
	w.window.Close()
	w.lists.Close()
	if err := w.db.Close(); err != nil {
		w.t.Error(err)
	}
}

// restart closes the node and opens it again.
func (w *world) restart() {
	w.t.Helper()
	w.close()
	w.reopen()
}

func (w *world) reopen() {
	w.t.Helper()
	var err error
	if w.db, err = store.Open(w.t.Context(), filepath.Join(w.dir, "tocsin.db")); err != nil {
		w.t.Fatal(err)
	}
	w.open()
}

// say applies a statement of the list's issuer.
func (w *world) say(s hashlist.Statement) string {
	w.t.Helper()
	w.n++
	o, err := hashlist.Origin(s.List)
	if err != nil {
		w.t.Fatal(err)
	}
	s.ID, s.Issuer = fmt.Sprintf("%s/statements/%d", o, w.n), o+"/users/alice"
	if s.Published.IsZero() {
		s.Published = time.Now().UTC().Truncate(time.Second)
	}
	r := hashlist.Record{Statement: s, Signed: []byte("signed"), Received: s.Published}
	if _, err := w.lists.Apply(w.t.Context(), r); err != nil {
		w.t.Fatal(err)
	}
	return s.ID
}

func (w *world) ban(list string, hashes ...hashlist.Hash) string {
	w.t.Helper()
	return w.say(hashlist.Statement{Kind: hashlist.AddHashes, List: list, Hashes: hashes, Reason: "spam wave"})
}

// upload looks something up as a hook does, and has it seen.
func (w *world) upload(ref hashlist.Reference, hashes ...hashlist.Hash) (hashlist.Verdict, uint64) {
	q := hashlist.Query{Reference: ref}
	for _, h := range hashes {
		q.Probes = append(q.Probes, hashlist.Probe{Hash: h})
		if h.Algorithm() == hashlist.PDQ {
			q.Probes = append(q.Probes, hashlist.Probe{Hash: h.Complement(), Transform: "inverted"})
		}
	}
	r := w.lists.Lookup(q)
	return r.Verdict, w.window.See(q, &r)
}

// hit waits for the next hit behind a place.
func (w *world) hit(after uint64) hashlist.Hit {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	if err := w.window.WaitHits(ctx, after); err != nil {
		w.t.Fatalf("no hit behind %d: %v", after, err)
	}
	for h, err := range w.window.Hits(ctx, after) {
		if err != nil {
			w.t.Fatal(err)
		}
		return h
	}
	w.t.Fatalf("no hit behind %d, although it was told of", after)
	panic("unreachable")
}

func (w *world) hits() (all []hashlist.Hit) {
	w.t.Helper()
	for h, err := range w.window.Hits(w.t.Context(), 0) {
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, h)
	}
	return all
}

// picture is the PDQ hash of picture n with its first bits turned.
func picture(t testing.TB, n, bits int) hashlist.Hash {
	t.Helper()
	var sum [32]byte
	x := uint64(n)*0x9e3779b97f4a7c15 + 1
	for i := range sum {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		sum[i] = byte(x)
	}
	for i := range bits {
		sum[i/8] ^= 1 << (i % 8)
	}
	return hash(t, hashlist.PDQ, sum[:])
}

func hash(t testing.TB, a hashlist.Algorithm, sum []byte) hashlist.Hash {
	t.Helper()
	h, err := hashlist.NewHash(a, sum)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// What is banned an hour too late is found, and says which upload it was; once the ban is
// withdrawn, so is the hit.
func TestWindowFindsWhatIsBannedLater(t *testing.T) {
	w := newWorld(t, nil)
	ref := hashlist.Reference{URL: "https://home.example/a.jpg", Alias: "a.jpg", Post: "https://home.example/post/1", Actor: "https://home.example/u/mallory"}
	v, id := w.upload(ref, picture(t, 1, 0))
	if v != hashlist.VerdictAllow || id == 0 {
		t.Fatalf("%v, %d", v, id)
	}
	w.upload(hashlist.Reference{Post: "https://home.example/post/2"}, picture(t, 2, 0))
	ban := w.ban(refused, picture(t, 1, 12))
	h := w.hit(0)
	if h.Verdict != hashlist.VerdictReject || h.Match.Statement != ban || h.Match.Distance != 12 || h.Algorithm != hashlist.PDQ || h.Withdrawn {
		t.Errorf("%+v", h)
	}
	if !h.Match.Probe.Hash.IsZero() {
		t.Error("the hit has a hash")
	}
	if s := h.Seen; s.Count != 1 || s.Answered != hashlist.VerdictAllow || len(s.Sightings) != 1 || s.Sightings[0].ID != id || s.Sightings[0].Reference != ref {
		t.Errorf("%+v", h.Seen)
	}
	if again, _ := w.upload(ref, picture(t, 1, 0)); again != hashlist.VerdictReject {
		t.Errorf("afterwards it is %v", again)
	}
	w.restart()
	w.say(hashlist.Statement{Kind: hashlist.Retraction, List: refused, Retracts: ban})
	back := w.hit(h.Seq)
	if !back.Withdrawn || back.ID != h.ID || back.Match.Statement != ban {
		t.Errorf("%+v", back)
	}
	w.ban(refused, picture(t, 1, 3))
	if h := w.hit(back.Seq); h.Withdrawn || h.Match.Distance != 3 || h.Seen.Count != 1 {
		t.Errorf("banned once more: %+v", h)
	}
	if n := len(w.hits()); n != 3 {
		t.Errorf("%d hits", n)
	}
	if st := w.window.Stats(); st.Entries != 2 || st.Uploads != 2 || st.Open != 1 {
		t.Errorf("%+v", st)
	}
}

// Everything that can make something act is news: each case brings one about.
func TestWindowHearsOfEveryChange(t *testing.T) {
	digest := hash(t, hashlist.SHA256, []byte(strings.Repeat("d", 32)))
	for _, c := range []struct {
		name   string
		before func(w *world) string
		change func(w *world, statement string)
		want   hashlist.Verdict
	}{
		{"a list is heeded from now on", func(w *world) string { return w.ban(theirs, picture(t, 1, 5)) },
			func(w *world, _ string) {
				w.lists.Heed(theirs, hashlist.VerdictReject, hashlist.DirectBelief(hashlist.VerdictReject))
			}, hashlist.VerdictReject},
		{"a list is heeded more than before", func(w *world) string {
			w.lists.Heed(theirs, hashlist.VerdictFlag, hashlist.DirectBelief(hashlist.VerdictFlag))
			return w.ban(theirs, picture(t, 1, 5))
		}, func(w *world, _ string) {
			w.lists.Heed(theirs, hashlist.VerdictHold, hashlist.DirectBelief(hashlist.VerdictHold))
		}, hashlist.VerdictHold},
		{"a radius grows", func(w *world) string {
			d := definition("refused")
			d.Radii[hashlist.PDQ] = 4
			w.say(hashlist.Statement{Kind: hashlist.DefineList, List: refused, Definition: d, Published: time.Now().UTC().Truncate(time.Second).Add(time.Second)})
			return w.ban(refused, picture(t, 1, 5))
		}, func(w *world, _ string) {
			w.say(hashlist.Statement{Kind: hashlist.DefineList, List: refused, Definition: definition("refused"), Published: time.Now().UTC().Truncate(time.Second).Add(2 * time.Second)})
		}, hashlist.VerdictReject},
		{"what was known to be harmless is so no more", func(w *world) string {
			ok := w.say(hashlist.Statement{Kind: hashlist.AddHashes, List: refused, Action: hashlist.Accept, Hashes: []hashlist.Hash{digest}})
			w.ban(refused, picture(t, 1, 5))
			return ok
		}, func(w *world, ok string) {
			w.say(hashlist.Statement{Kind: hashlist.Retraction, List: refused, Retracts: ok})
		}, hashlist.VerdictReject},
		{"a retraction turns out to be void", func(w *world) string {
			ban := w.ban(refused, picture(t, 1, 5))
			w.say(hashlist.Statement{Kind: hashlist.Retraction, List: refused, Retracts: ban, Published: time.Now().UTC().Truncate(time.Second).Add(10 * time.Second)})
			return ban
		}, func(w *world, _ string) {
			if err := w.lists.Void(t.Context(), home+"/users/alice", []hashlist.Span{{From: time.Now().Add(5 * time.Second)}}); err != nil {
				t.Fatal(err)
			}
		}, hashlist.VerdictReject},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, nil)
			statement := c.before(w)
			v, id := w.upload(hashlist.Reference{Post: "p"}, digest, picture(t, 1, 0))
			if id == 0 || v >= c.want {
				t.Fatalf("before: %v, %d", v, id)
			}
			w.settle()
			c.change(w, statement)
			if h := w.hit(0); h.Verdict != c.want || h.Seen.Answered != v {
				t.Errorf("%+v", h)
			}
		})
	}
}

// settle waits until what was seen is stored: forgetting waits for it.
func (w *world) settle() {
	w.t.Helper()
	if _, err := w.window.Forget(w.t.Context(), hashlist.Reference{Actor: "nobody"}); err != nil {
		w.t.Fatal(err)
	}
}

// A ban that comes between the answer to an upload and the moment at which the window
// has it is found all the same.
func TestWindowMissesNothingInBetween(t *testing.T) {
	w := newWorld(t, nil)
	for n := range 200 {
		done := make(chan struct{})
		go func() { w.ban(refused, picture(t, n, 0)); close(done) }()
		v, _ := w.upload(hashlist.Reference{Post: fmt.Sprint(n)}, picture(t, n, 0))
		<-done
		if v == hashlist.VerdictReject {
			continue
		}
		last := uint64(0)
		for _, h := range w.hits() {
			last = h.Seq
		}
		for found := false; !found; {
			if found = slices.ContainsFunc(w.hits(), func(h hashlist.Hit) bool { return h.Seen.Sightings[0].Reference.Post == fmt.Sprint(n) }); !found {
				w.hit(last) // which fails the test if there is none
			}
		}
	}
}

// Of one picture there is one entry, with the references of those who brought it.
func TestWindowKnowsAPictureAgain(t *testing.T) {
	w := newWorld(t, func(c *hashlist.WindowConfig) { c.Durable = true })
	for n := range hashlist.MaxSightings + 5 {
		w.upload(hashlist.Reference{Post: fmt.Sprint(n)}, picture(t, 1, 0))
	}
	w.restart()
	w.upload(hashlist.Reference{Post: "last"}, picture(t, 1, 0))
	if st := w.window.Stats(); st.Entries != 1 || st.Uploads != hashlist.MaxSightings+6 {
		t.Fatalf("%+v", st)
	}
	w.ban(refused, picture(t, 1, 0))
	s := w.hit(0).Seen
	if s.Count != hashlist.MaxSightings+6 || len(s.Sightings) != hashlist.MaxSightings || s.Sightings[0].Reference.Post != "0" ||
		s.Sightings[len(s.Sightings)-1].Reference.Post != "last" {
		t.Errorf("%+v", s)
	}
}

// What is asked to be forgotten is gone, with its hits, also from the database.
func TestWindowForgets(t *testing.T) {
	w := newWorld(t, nil)
	w.upload(hashlist.Reference{Post: "one", Actor: "mallory"}, picture(t, 1, 0))
	w.upload(hashlist.Reference{Post: "two", Actor: "mallory"}, picture(t, 2, 0))
	w.upload(hashlist.Reference{Post: "three", Actor: "alice"}, picture(t, 3, 0))
	w.settle()
	w.ban(refused, picture(t, 1, 0), picture(t, 3, 0))
	for w.window.Stats().Open < 2 {
		w.hit(w.window.LastHit() - min(1, w.window.LastHit()))
	}
	n, err := w.window.Forget(t.Context(), hashlist.Reference{Actor: "mallory"})
	if err != nil || n != 2 {
		t.Fatalf("%d, %v", n, err)
	}
	if hits := w.hits(); len(hits) != 1 || hits[0].Seen.Sightings[0].Reference.Post != "three" {
		t.Errorf("%+v", hits)
	}
	w.restart()
	if st := w.window.Stats(); st.Entries != 1 || st.Open != 1 {
		t.Errorf("%+v", st)
	}
	w.ban(refused, picture(t, 2, 0))
	w.settle()
	if n, err := w.window.Forget(t.Context(), hashlist.Reference{Post: "three"}); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if hits := w.hits(); len(hits) != 0 {
		t.Errorf("%+v", hits)
	}
}

// The window is bounded in number and in time, and the oldest go first.
func TestWindowIsBounded(t *testing.T) {
	now := time.Now()
	w := newWorld(t, func(c *hashlist.WindowConfig) {
		c.Entries, c.Keep, c.Durable, c.Now = 10, time.Hour, true, func() time.Time { return now }
	})
	for n := range 15 {
		w.upload(hashlist.Reference{}, picture(t, n, 0))
		w.upload(hashlist.Reference{}, picture(t, 0, 0)) // stays, because it comes again and again
	}
	if st := w.window.Stats(); st.Entries != 10 {
		t.Fatalf("%+v", st)
	}
	w.ban(refused, picture(t, 0, 0), picture(t, 3, 0), picture(t, 14, 0))
	for w.window.Stats().Open < 2 {
		w.hit(w.window.LastHit() - min(1, w.window.LastHit()))
	}
	now = now.Add(2 * time.Hour)
	w.restart()
	if st := w.window.Stats(); st.Entries != 0 || len(w.hits()) != 2 {
		t.Errorf("after its time: %+v, %d hits", st, len(w.hits()))
	}
	now = now.Add(31 * 24 * time.Hour)
	w.restart()
	if n := len(w.hits()); n != 0 {
		t.Errorf("%d hits after a month", n)
	}
}

// Nothing that was seen can be read in the database, and with another key nothing at all.
func TestWindowIsSealed(t *testing.T) {
	w := newWorld(t, nil)
	w.upload(hashlist.Reference{Actor: "https://home.example/u/mallory"}, picture(t, 1, 0))
	w.settle()
	for row, err := range w.db.Uploads(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{"mallory", string(picture(t, 1, 0).Sum())} {
			if strings.Contains(string(row.Sealed), secret) {
				t.Error("it can be read in the database")
			}
		}
	}
	w.config.Key = []byte(strings.Repeat("x", hashlist.WindowKeySize))
	w.restart()
	if st := w.window.Stats(); st.Entries != 0 || !strings.Contains(w.log.String(), "cannot be read") {
		t.Errorf("%+v\n%s", st, w.log.String())
	}
	if strings.Contains(w.log.String(), "mallory") {
		t.Error("the log names an uploader")
	}
}
