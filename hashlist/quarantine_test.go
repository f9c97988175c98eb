package hashlist_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/store"
)

// quarantined is a world in which 1,000 pictures were let through two days ago and theirs is
// a list of another node that is heeded fully.
func quarantined(t testing.TB) (w *world, now *time.Time) {
	at := time.Now().Add(-48 * time.Hour)
	now = &at
	w = newWorld(t, func(c *hashlist.WindowConfig) {
		c.Keep, c.Flood, c.Now = 240*time.Hour, hashlist.Flood{Uploads: 50, Share: 0.005}, func() time.Time { return *now }
	})
	w.lists.Heed(theirs, hashlist.VerdictReject, hashlist.MostBelief)
	for n := range 1000 {
		w.upload(hashlist.Reference{Post: fmt.Sprint(n)}, picture(t, n, 0))
	}
	w.settle()
	at = time.Now()
	return w, now
}

// What a list would match beyond what is expected does not act, wherever its issuer puts the
// cuts between statements; what matches nothing recent acts.
func TestFloodGoesIntoQuarantine(t *testing.T) {
	for _, size := range []int{1, 7, 500} {
		t.Run(fmt.Sprintf("statements of %d", size), func(t *testing.T) {
			w, _ := quarantined(t)
			var hashes []hashlist.Hash
			for n := range 500 {
				hashes = append(hashes, picture(t, n, 4))
			}
			acted := 0
			for some := range slices.Chunk(hashes, size) {
				w.ban(theirs, some...)
				acted = max(acted, w.refused(500))
			}
			if acted > 50 {
				t.Errorf("%d harmless uploads would have been refused on the way", acted)
			}
			if n := w.refused(500); n != 0 {
				t.Errorf("%d harmless uploads would be refused", n)
			}
			fresh := picture(t, 5000, 0)
			w.ban(theirs, fresh)
			if v, _ := w.upload(hashlist.Reference{}, fresh); v != hashlist.VerdictReject {
				t.Errorf("what matches nothing that was let through: %v", v)
			}
			held := w.window.Quarantined(false)
			if want := (500 + size - 1) / size; len(held) != want {
				t.Errorf("%d statements in quarantine, want %d", len(held), want)
			}
			select {
			case <-w.window.Asked():
			default:
				t.Error("nobody is asked")
			}
			w.restart()
			w.lists.Heed(theirs, hashlist.VerdictReject, hashlist.MostBelief)
			if n := w.refused(500); n != 0 {
				t.Errorf("after a restart %d harmless uploads would be refused", n)
			}
			// A person decides: one stays out for good, the rest acts.
			if n, err := w.window.Decide(t.Context(), held[0].Statement, hashlist.QuarantineKept, "alice", "not that one"); n != 1 || err != nil {
				t.Fatalf("%d, %v", n, err)
			}
			if len(held) > 1 {
				if n, err := w.window.Decide(t.Context(), theirs, hashlist.QuarantineReleased, "alice", "seen"); n != len(held)-1 || err != nil {
					t.Fatalf("%d, %v", n, err)
				}
			}
			if _, err := w.window.Decide(t.Context(), theirs, hashlist.QuarantineReleased, "alice", "again"); !errors.Is(err, hashlist.ErrNotQuarantined) {
				t.Errorf("nothing is left to decide: %v", err)
			}
			w.restart()
			w.lists.Heed(theirs, hashlist.VerdictReject, hashlist.MostBelief)
			if n := w.refused(500); n != 500-size {
				t.Errorf("after the decision %d are refused, want %d", n, 500-size)
			}
		})
	}
}

// A list that is defined anew, with wider radii, matches no more than one that was wide from the beginning.
func TestFloodByRedefinition(t *testing.T) {
	w, _ := quarantined(t)
	define := func(radius uint8) {
		d := definition("theirs")
		d.Radii[hashlist.PDQ] = radius
		w.say(hashlist.Statement{Kind: hashlist.DefineList, List: theirs, Definition: d, Published: time.Now().UTC().Truncate(time.Second).Add(time.Duration(radius) * time.Second)})
	}
	define(0)
	for n := range 500 {
		w.ban(theirs, picture(t, n, 4))
	}
	define(31)
	if n := w.refused(500); n != 0 {
		t.Errorf("%d harmless uploads would be refused", n)
	}
	if held := w.window.Quarantined(false); len(held) != 500 {
		t.Errorf("%d statements in quarantine", len(held))
	}
}

// One file that is uploaded again and again does not raise how much a list may match.
func TestFloodLimitCountsFiles(t *testing.T) {
	w, now := quarantined(t)
	w.close()
	w.config.Flood = hashlist.Flood{Uploads: 10, Share: 0.02}
	*now = time.Now().Add(-48 * time.Hour)
	var err error
	if w.db, err = store.Open(t.Context(), filepath.Join(w.dir, "tocsin.db")); err != nil {
		t.Fatal(err)
	}
	w.open()
	w.lists.Heed(theirs, hashlist.VerdictReject, hashlist.MostBelief)
	for range 3000 {
		w.upload(hashlist.Reference{}, picture(t, 7000, 0))
	}
	w.settle()
	*now = time.Now()
	var hashes []hashlist.Hash
	for n := range 40 { // of 1,001 files and 4,000 uploads
		hashes = append(hashes, picture(t, n, 4))
	}
	if _, of, suspicious := w.window.Suspicious(hashes, hashlist.DefaultRadii); !suspicious {
		t.Errorf("40 of %d are not suspicious", of)
	}
	w.ban(theirs, hashes...)
	if n := w.refused(40); n != 0 {
		t.Errorf("%d harmless uploads would be refused", n)
	}
}

// refused counts which of the first pictures would be refused.
func (w *world) refused(of int) (n int) {
	for i := range of {
		r := w.lists.Lookup(hashlist.Query{Probes: []hashlist.Probe{{Hash: picture(w.t, i, 0)}}})
		if r.Verdict == hashlist.VerdictReject {
			n++
		}
	}
	return n
}

// The node's own bans always act, and so does a ban that finds a fresh wave of spam.
func TestFloodLetsBansThrough(t *testing.T) {
	w, _ := quarantined(t)
	var hashes []hashlist.Hash
	for n := range 200 {
		hashes = append(hashes, picture(t, n, 4))
	}
	if matched, of, suspicious := w.window.Suspicious(hashes, hashlist.DefaultRadii); matched != 200 || of != 1000 || !suspicious {
		t.Errorf("%d of %d, %v", matched, of, suspicious)
	}
	w.ban(refused, hashes...)
	if n := w.refused(200); n != 200 {
		t.Errorf("of our own ban %d act", n)
	}
	for range 300 {
		w.upload(hashlist.Reference{}, picture(t, 7000, 0))
	}
	w.settle()
	w.ban(theirs, picture(t, 7000, 2))
	if v, _ := w.upload(hashlist.Reference{}, picture(t, 7000, 0)); v != hashlist.VerdictReject {
		t.Errorf("a wave of spam an hour after it began: %v", v)
	}
	for at := uint64(0); ; {
		h := w.hit(at)
		if at = h.Seq; h.Seen.Count == 300 {
			break
		}
	}
}

// A preview says what would have been refused, with references, and changes nothing.
func TestPreview(t *testing.T) {
	w, _ := quarantined(t)
	w.lists.Heed(theirs, hashlist.VerdictFlag, hashlist.MostBelief)
	w.ban(theirs, picture(t, 1, 3), picture(t, 2, 0), picture(t, 9000, 0))
	suppose, err := w.lists.Suppose(t.Context(), theirs, hashlist.VerdictHold)
	if err != nil {
		t.Fatal(err)
	}
	p, err := w.window.Preview(t.Context(), suppose, 1)
	if err != nil {
		t.Fatal(err)
	}
	if p.Uploads != 1000 || p.Changed != [hashlist.VerdictReject + 1]int{hashlist.VerdictHold: 2} || p.Hashes != 3 || p.Suspicious || len(p.Examples) != 1 {
		t.Errorf("%+v", p)
	}
	if e := p.Examples[0]; e.Verdict != hashlist.VerdictHold || e.Seen.Sightings[0].Reference.Post != "2" || e.Distance != 0 {
		t.Errorf("%+v", e)
	}
	if n := w.refused(10); n != 0 {
		t.Errorf("the preview has refused %d", n)
	}
	seen := 0
	for r, err := range w.window.Recent(t.Context(), 100) {
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprint(999 - seen); r.Query.Reference.Post != want || w.lists.Lookup(r.Query).Verdict > hashlist.VerdictFlag {
			t.Fatalf("upload %d is %q, want %s", seen, r.Query.Reference.Post, want)
		}
		seen++
	}
	if seen != 100 {
		t.Errorf("%d recent uploads", seen)
	}
}

// The circuit breaker turns refusals into holds when they get too many, for one issuer
// and for all, and never for what the node itself lists.
func TestBreaker(t *testing.T) {
	w := newWorld(t, nil)
	w.lists.Heed(theirs, hashlist.VerdictReject, hashlist.MostBelief)
	now := time.Now()
	var opened []hashlist.OpenBreaker
	b := hashlist.NewBreaker(w.lists, hashlist.BreakerConfig{
		PerIssuer: 10, Total: 100, Stay: 30 * time.Minute, Now: func() time.Time { return now },
		Opened: func(o hashlist.OpenBreaker) { opened = append(opened, o) },
	})
	w.ban(refused, picture(t, 999, 0))
	var hashes []hashlist.Hash
	for n := range 20 {
		hashes = append(hashes, picture(t, n, 0))
	}
	w.ban(theirs, hashes...)
	ask := func(n int) hashlist.Verdict {
		r := w.lists.Lookup(hashlist.Query{Probes: []hashlist.Probe{{Hash: picture(t, n, 0)}}})
		b.Note(&r)
		return r.Verdict
	}
	for range 1000 { // one picture, again and again
		if v := ask(0); v != hashlist.VerdictReject {
			t.Fatal(v)
		}
	}
	for n := range 10 {
		if v := ask(n); v != hashlist.VerdictReject {
			t.Fatalf("%d: %v", n, v)
		}
	}
	if len(opened) != 0 {
		t.Fatalf("%+v", opened)
	}
	ask(10)
	if len(opened) != 1 || opened[0].Issuer != abroad+"/users/alice" || opened[0].Refusals != 11 {
		t.Fatalf("%+v", opened)
	}
	if v := ask(11); v != hashlist.VerdictHold {
		t.Errorf("open: %v", v)
	}
	if v := ask(999); v != hashlist.VerdictReject {
		t.Errorf("our own ban: %v", v)
	}
	now = now.Add(31 * time.Minute)
	if open := b.Open(); len(open) != 0 || ask(11) != hashlist.VerdictReject {
		t.Errorf("after its time: %+v", open)
	}
	for n := range 12 {
		ask(n)
	}
	if len(opened) != 2 || !b.Close(abroad+"/users/alice") || ask(11) != hashlist.VerdictReject || b.Close(abroad+"/users/alice") {
		t.Errorf("closed by hand: %+v", opened)
	}
}

// flooding is a world in which theirs, which does not act, lists 200 of what was let through later. It is followed and
// nobody vouches for it, if byTrust is set, and else it is not followed.
func flooding(t *testing.T, byTrust bool) *world {
	at := time.Now().Add(-48 * time.Hour)
	now := &at
	w := newWorld(t, func(c *hashlist.WindowConfig) {
		c.Keep, c.Flood, c.Now = 240*time.Hour, hashlist.Flood{Uploads: 50, Share: 0.005}, func() time.Time { return *now }
	})
	if byTrust {
		w.lists.Heed(theirs, hashlist.VerdictReject, 0)
	}
	for n := range 200 {
		w.ban(theirs, picture(t, n, 4)) // nothing is remembered yet that it could be compared with
	}
	w.ban(theirs, picture(t, 9000, 0))
	for n := range 1000 {
		w.upload(hashlist.Reference{Post: fmt.Sprint(n)}, picture(t, n, 0))
	}
	w.settle()
	at = time.Now()
	return w
}

// What stands on a list for long is looked at when it comes to act: because the list is followed, because it
// may come to more, or because those who write to it are vouched for, by whomever.
func TestFloodOfWhatStandsAlready(t *testing.T) {
	alice := abroad + "/users/alice"
	vouch := func(w *world, list, object string, depth uint8) {
		w.say(hashlist.Statement{Kind: hashlist.Vouch, List: list, Vouch: &hashlist.Vouching{Object: object, Amount: hashlist.MostBelief, Depth: depth}})
	}
	define := func(w *world, list string) {
		w.say(hashlist.Statement{Kind: hashlist.DefineList, List: list, Definition: definition("trust")})
	}
	const trust, friend = home + "/lists/trust", "https://friend.example"
	for _, c := range []struct {
		name    string
		byTrust bool
		acts    func(w *world)
	}{
		{"followed", false, func(w *world) { w.lists.Heed(theirs, hashlist.VerdictReject, hashlist.MostBelief) }},
		{"flagged before", false, func(w *world) {
			w.lists.Heed(theirs, hashlist.VerdictAllow, 0)
			w.lists.Heed(theirs, hashlist.VerdictReject, hashlist.MostBelief)
		}},
		{"vouched for by this node", true, func(w *world) {
			define(w, trust)
			vouch(w, trust, alice, 0)
		}},
		{"vouched for by a friend who is relied on", true, func(w *world) {
			define(w, trust)
			vouch(w, trust, friend+"/users/alice", 1)
			define(w, friend+"/lists/trust")
			vouch(w, friend+"/lists/trust", alice, 0)
			w.lists.Rely(friend+"/lists/trust", true)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := flooding(t, c.byTrust)
			if held := w.window.Quarantined(false); len(held) != 0 {
				t.Fatalf("%d statements in quarantine before they could act", len(held))
			}
			c.acts(w)
			if n := w.refused(200); n != 0 {
				t.Errorf("%d harmless uploads would be refused", n)
			}
			if v, _ := w.upload(hashlist.Reference{}, picture(t, 9000, 0)); v != hashlist.VerdictReject {
				t.Errorf("what matches nothing that was let through: %v", v)
			}
			if held := w.window.Quarantined(false); len(held) != 200 || held[0].Issuer != alice || held[0].Matched != 1 {
				t.Errorf("%d statements in quarantine, want 200", len(held))
			}
			select {
			case <-w.window.Asked():
			default:
				t.Error("nobody is asked")
			}
			if n, err := w.window.Decide(t.Context(), theirs, hashlist.QuarantineReleased, "bob", "seen"); n != 200 || err != nil {
				t.Fatalf("%d, %v", n, err)
			}
			if n := w.refused(200); n != 200 {
				t.Errorf("after the decision %d are refused", n)
			}
			// What was decided is not asked again.
			w.lists.Heed(theirs, 0, 0)
			w.lists.Heed(theirs, hashlist.VerdictReject, hashlist.MostBelief)
			if held := w.window.Quarantined(false); len(held) != 0 {
				t.Errorf("%d statements in quarantine once more", len(held))
			}
		})
	}
}
