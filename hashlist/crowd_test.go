package hashlist

import (
	"fmt"
	"testing"
	"time"
)

// What an issuer says thousands of times takes no more work than what it says a few times, and comes to the
// same; so does what it says of thousands of hashes near one another, each under a label of its own.
func TestCrowd(t *testing.T) {
	const many = 5000
	for _, c := range []struct {
		name string
		hash func(n int) Hash
	}{
		{"one hash", func(int) Hash { return hashAt(t, PDQ) }},
		{"hashes near one another", func(n int) Hash { return hashAt(t, PDQ, n%60, 60+n/60%90, 150) }},
	} {
		w := newTown(t, nil, "a", "b")
		w.vouch("a", MostBelief)
		w.vouch("b", MostBelief)
		for n := range many {
			s := w.statement("a", "ban", AddHashes)
			s.Hashes, s.Labels = []Hash{c.hash(n)}, []string{fmt.Sprintf("label-%d", n)}
			w.say(s)
		}
		w.ban("b", c.hash(0))
		nearest := w.ban("a", hashAt(t, PDQ))
		q := Query{Probes: []Probe{{Hash: hashAt(t, PDQ)}, {Hash: hashAt(t, PDQ), Index: 1}}}
		r := w.l.Lookup(q)
		by := map[string]int{}
		for _, m := range r.Matches {
			by[m.Issuer]++
		}
		if by[w.issuer("a")] != 2*maxAlike || by[w.issuer("b")] != 2 || r.Verdict != VerdictReject {
			t.Errorf("%s: %v, %v", c.name, by, r.Verdict)
		}
		if d := r.Decision; d.Belief != MostBelief || d.Distance != 0 || d.Label == "csam" && d.Statements[0] != nearest.ID && c.name != "one hash" {
			t.Errorf("%s: %+v", c.name, d)
		}
	}

	w := newTown(t, nil, "a", "b", "c", "d")
	w.vouch("a", MostBelief)
	w.vouch("b", 40)
	w.vouch("c", 40)
	s := w.ban("a", hashAt(t, PDQ))
	for range many {
		w.dispute("b", s)
		w.confirm("c", s)
	}
	if said := w.l.fold.talk(w.l.fold.byID[s.ID], time.Now().Unix()); len(said.confirmed) != 1 || len(said.disputed) != 1 {
		t.Errorf("%d confirmations and %d disputes are weighed", len(said.confirmed), len(said.disputed))
	}

	for n := range many {
		s := w.statement("a", "ban", AddInstances)
		s.Subjects, s.Labels = []string{"bad.example"}, []string{fmt.Sprintf("label-%d", n)}
		w.say(s)
	}
	if b := w.l.Blocks(); len(b) != 1 || len(b[0].Labels) != maxAlike+1 || b[0].Action != Reject {
		t.Errorf("blocks %.300v", b)
	}
	// Of what this node says itself nothing is left out.
	for n := range 2 * maxAlike {
		w.ban("me", hashAt(t, PDQ, first(n%20)...))
	}
	own := 0
	for _, m := range w.l.Lookup(Query{Probes: []Probe{{Hash: hashAt(t, PDQ)}}}).Matches {
		if m.Issuer == w.issuer("me") {
			own++
		}
	}
	if own != 2*maxAlike {
		t.Errorf("%d of %d own statements match", own, 2*maxAlike)
	}
}
