package hashlist_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// nearer is a rule: what matches at a distance of at most so many bits comes to a verdict.
type nearer struct {
	distance int
	then     hashlist.Verdict
}

func (r nearer) Apply(f *hashlist.Facts) (hashlist.Verdict, string, bool) {
	return r.then, "nearer", f.Distance <= r.distance
}

func (nearer) Text(string) string { return "" }

// TestReplay: of what was uploaded it is told what other rules would have answered, and nothing
// is answered otherwise by that.
func TestReplay(t *testing.T) {
	w := newWorld(t, func(c *hashlist.WindowConfig) { c.Durable = true })
	w.lists.Heed(theirs, hashlist.VerdictReject, hashlist.PartialBelief)
	const listed, harmless = 30, 10
	for i := range listed {
		w.ban(theirs, picture(t, i, 0))
	}
	for i := range listed + harmless { // copies at distances of 0 to 29, and pictures that nobody lists
		want := hashlist.VerdictAllow
		if i < listed {
			want = hashlist.VerdictHold
		}
		ref := hashlist.Reference{Post: fmt.Sprintf("https://here.example/post/%d", i)}
		if v, seen := w.upload(ref, picture(t, i, i)); v != want || seen == 0 {
			t.Fatalf("upload %d: %v, seen as %d", i, v, seen)
		}
	}
	before := w.window.Stats()
	for name, c := range map[string]struct {
		most           int
		rules          hashlist.Rules
		uploads        int
		rejected       int // and the same number more than now
		held           int
		flagged        int // and the same number instead of a hold
		decided, shown int
	}{
		"no rules":      {rules: nil, uploads: 40, held: 30},
		"near: reject":  {rules: nearer{2, hashlist.VerdictReject}, uploads: 40, rejected: 3, held: 27, decided: 3, shown: 3},
		"near: flag":    {rules: nearer{9, hashlist.VerdictFlag}, uploads: 40, held: 20, flagged: 10, decided: 10, shown: 5},
		"as it is now":  {rules: nearer{31, hashlist.VerdictHold}, uploads: 40, held: 30, decided: 30},
		"the newest 12": {most: 12, rules: nearer{31, hashlist.VerdictReject}, uploads: 12, rejected: 2, decided: 2, shown: 2},
	} {
		r, err := w.window.Replay(t.Context(), c.most, 5, c.rules)
		if err != nil {
			t.Fatal(err)
		}
		if r.Uploads != c.uploads || r.Would[hashlist.VerdictReject] != c.rejected || r.Graver[hashlist.VerdictReject] != c.rejected ||
			r.Would[hashlist.VerdictHold] != c.held || r.Graver[hashlist.VerdictHold]+r.Milder[hashlist.VerdictHold] != 0 ||
			r.Would[hashlist.VerdictFlag] != c.flagged || r.Milder[hashlist.VerdictFlag] != c.flagged || r.Rules["nearer"] != c.decided || len(r.Examples) != c.shown {
			t.Errorf("%s: %+v", name, r)
		}
		for i, x := range r.Examples {
			if x.Now != hashlist.VerdictHold || x.Would == x.Now || x.Rule != "nearer" || x.Seen.Sightings[0].Reference.Post == "" ||
				i > 0 && x.Seen.Last.After(r.Examples[i-1].Seen.Last) {
				t.Errorf("%s: example %+v", name, x)
			}
		}
		if c.rejected > 0 {
			t.Logf("%s: would have rejected %d of the last %d", name, r.Would[hashlist.VerdictReject], r.Uploads)
		}
	}
	if v, _ := w.upload(hashlist.Reference{}, picture(t, 0, 0)); v != hashlist.VerdictHold || w.lists.Rules() != nil {
		t.Errorf("after the replays it comes to %v", v)
	}
	if after := w.window.Stats(); after.Hits != before.Hits || after.Entries != before.Entries {
		t.Errorf("a replay changed the window: %+v, %+v", before, after)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.window.Replay(ended, 0, 0, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("of a caller who has gone: %v", err)
	}
	if r, err := (*hashlist.Window)(nil).Replay(t.Context(), 0, 0, nil); err != nil || r.Uploads != 0 {
		t.Errorf("without a window: %+v, %v", r, err)
	}
}
