package hashlist

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tocsin-fed/tocsin/bktree"
)

// anyVoids draws what is void of some issuers of anyStatement's world.
func anyVoids(t *rapid.T) map[string][]Span {
	voids := map[string][]Span{}
	for range rapid.IntRange(0, 3).Draw(t, "voids") {
		issuer := fmt.Sprintf("%s/users/%d", rapid.SampledFrom([]string{origin, foreign}).Draw(t, "origin"), rapid.IntRange(0, 2).Draw(t, "issuer"))
		var spans []Span
		for range rapid.IntRange(0, 2).Draw(t, "spans") {
			var s Span
			if rapid.Bool().Draw(t, "begins") {
				s.From = epoch.Add(time.Duration(rapid.IntRange(-1, 8).Draw(t, "from")) * time.Second / 2)
			}
			if rapid.Bool().Draw(t, "ends") {
				s.Until = epoch.Add(time.Duration(rapid.IntRange(-1, 8).Draw(t, "until")) * time.Second / 2)
			}
			spans = append(spans, s)
		}
		voids[issuer] = spans
	}
	return voids
}

// without is the definition of void.
func without(world []Statement, voids map[string][]Span) []Statement {
	return slices.DeleteFunc(slices.Clone(world), func(s Statement) bool {
		return slices.ContainsFunc(voids[s.Issuer], func(v Span) bool {
			return !s.Published.Before(v.From) && (v.Until.IsZero() || s.Published.Before(v.Until))
		})
	})
}

// acting prints what is in force with heed to what is void.
func acting(f *fold, now time.Time) string {
	var lines []string
	for _, l := range f.lists {
		if c := l.current; c != nil {
			lines = append(lines, fmt.Sprintf("list %s %s %q labels=%v audience=%v action=%v radii=%v by %s\n",
				l.iri, c.Name, c.Summary, c.Labels, c.Audience, c.Action, c.Radii, f.stmts[c.stmt].id))
		}
	}
	for _, a := range Algorithms {
		f.points[a].each(func(_ bktree.ID, h Hash) {
			f.each(h, func(s *stmt) bool {
				if s.stands(now.Unix()) {
					lines = append(lines, fmt.Sprintf("hash %v on %s labels=%v action=%v until=%d by %s\n", h, s.list.iri, s.labels, s.action, s.expires, s.id))
				}
				return true
			})
		})
	}
	for kind := AddAccounts; kind <= Vouch; kind++ {
		f.textsOf(kind.table()).all(func(id bktree.ID, text string) {
			for o := f.owners[kind.table()][id]; o != 0; o = f.postings[o-1].next {
				switch s := &f.stmts[f.postings[o-1].stmt]; {
				case !s.stands(now.Unix()):
				case kind == Confirmation || kind == Dispute:
					lines = append(lines, fmt.Sprintf("%v of %s on %s until=%d by %s\n", kind, text, s.list.iri, s.expires, s.id))
				case kind == Vouch:
					v := f.trust.said[f.postings[o-1].stmt]
					lines = append(lines, fmt.Sprintf("vouch for %s on %s labels=%v amount=%d depth=%d from=%d until=%d by %s\n",
						text, s.list.iri, s.labels, v.amount, v.depth, v.from, s.expires, s.id))
				default:
					lines = append(lines, fmt.Sprintf("%v %s on %s labels=%v action=%v until=%d by %s\n", kind, text, s.list.iri, s.labels, s.action, s.expires, s.id))
				}
			}
		})
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// TestVoidAgainstModel: whenever it is said, and whatever was said about the same
// issuers before, what is void acts as if it had never come; and the fold that nodes
// compare does not show it.
func TestVoidAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var world []Statement
		byID := map[string]Statement{}
		for id := range rapid.IntRange(1, 30).Draw(t, "statements") {
			s := anyStatement(t, id)
			world, byID[s.ID] = append(world, s), s
		}
		now := epoch.Add(time.Duration(rapid.IntRange(0, 250).Draw(t, "now")) * time.Second)
		f := newFold()
		voids := map[string][]Span{}
		order := rapid.Permutation(world).Draw(t, "order")
		for i := range order {
			at := now.Add(time.Duration(i-len(order)+1) * 10 * time.Second)
			f.lapse(at)
			f.merge(uint64(i+1), &order[i], at)
			if rapid.IntRange(0, 4).Draw(t, "say") == 0 || i == len(order)-1 {
				for issuer, spans := range anyVoids(t) {
					voids[issuer] = spans
					read := map[string]Statement{}
					for _, id := range f.missing(issuer, seconds(spans), nil, at) {
						read[id] = byID[id]
					}
					f.annul(issuer, seconds(spans), read, at)
				}
			}
			check(t, f)
		}
		f.lapse(now)
		check(t, f)
		if got, want := acting(f, now), modelFold(without(world, voids), now); got != want {
			t.Fatalf("void %v of\n%+v\nleaves\n%s\nwant\n%s", voids, world, got, want)
		}
		var b strings.Builder
		if err := f.write(&b, now); err != nil {
			t.Fatal(err)
		}
		if want := modelFold(world, now); b.String() != want {
			t.Fatalf("void %v changed the fold of statements\n%s\nwant\n%s", voids, b.String(), want)
		}
	})
}

// TestHeedAndVoid looks at all that a caller sees.
func TestHeedAndVoid(t *testing.T) {
	log := &memoryLog{}
	p := DefaultPolicy()
	p.Own = origin
	l, err := Open(context.Background(), log, p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	abroad := func(s Statement) Statement {
		for _, iri := range []*string{&s.ID, &s.Issuer, &s.List, &s.Retracts} {
			*iri = strings.Replace(*iri, origin, foreign, 1)
		}
		return s
	}
	after := func(s Statement, seconds int) Statement {
		s.Published = epoch.Add(time.Duration(seconds) * time.Second)
		return s
	}
	undo := func(s Statement, hashes ...Hash) Statement {
		statements++
		return Statement{
			ID: fmt.Sprintf("%s/statements/u%06d", foreign, statements), Issuer: s.Issuer, List: s.List, Kind: Retraction,
			Published: epoch, Retracts: s.ID, Hashes: hashes,
		}
	}
	def := abroad(define("ban", Reject))
	a := abroad(add("ban", hashAt(t, PDQ), hashAt(t, SHA256), hashAt(t, MD5)))
	b := after(abroad(add("ban", hashAt(t, PDQ))), 10) // while the key is in other hands
	other := after(abroad(define("ban", Accept)), 10)
	gone, part := after(undo(a), 10), after(undo(a, a.Hashes[2]), 0)
	verdict := func(want Verdict, matches int) {
		t.Helper()
		if r := l.Lookup(probe(hashAt(t, PDQ), hashAt(t, SHA256), hashAt(t, MD5))); r.Verdict != want || len(r.Matches) != matches {
			t.Errorf("%v of %d matches, want %v of %d", r.Verdict, len(r.Matches), want, matches)
		}
	}
	void := func(spans ...Span) {
		t.Helper()
		if err := l.Void(context.Background(), a.Issuer, spans); err != nil {
			t.Fatal(err)
		}
	}
	listed := func(want ...bool) {
		t.Helper()
		if got := l.Listed(a.List, a.Issuer, a.Hashes); !slices.Equal(got, want) {
			t.Errorf("listed %v, want %v", got, want)
		}
	}

	apply(t, l, def, a, part)
	verdict(VerdictAllow, 0) // not heeded before anything was said
	if v, ok := l.List(a.List); !ok || v.Most != 0 || v.Hashes != 2 {
		t.Errorf("%+v", v)
	}
	if r := l.fold.radius[PDQ]; r != 0 {
		t.Errorf("a list that is not heeded has lookups search as far as %d", r)
	}
	l.Heed(a.List, VerdictAllow, DirectBelief(VerdictAllow))
	verdict(VerdictAllow, 2)
	l.Heed(a.List, VerdictFlag, DirectBelief(VerdictFlag))
	verdict(VerdictFlag, 2)
	l.Heed(a.List, 99, DirectBelief(99))
	verdict(VerdictReject, 2)
	if v, _ := l.List(a.List); v.Most != VerdictReject {
		t.Errorf("%+v", v)
	}
	l.Heed(origin+"/lists/own", 0, DirectBelief(0)) // of no effect: it is our own
	own := add("own", hashAt(t, PDQ))
	apply(t, l, define("own", Filter), own)
	l.Heed(own.List, 0, DirectBelief(0))
	l.Heed(a.List, 0, DirectBelief(0))
	verdict(VerdictFlag, 1)
	l.Heed(a.List, VerdictReject, DirectBelief(VerdictReject))

	thief := Span{From: epoch.Add(5 * time.Second), Until: epoch.Add(15 * time.Second)}
	apply(t, l, gone, b, other)
	listed(true, false, false)
	verdict(VerdictFlag, 2) // our own, and what the thief has accepted
	void(thief)
	listed(true, true, false) // by a again, and the MD5 was retracted before
	verdict(VerdictReject, 3)
	if v, _ := l.List(a.List); v.Action != Reject || v.Hashes != 2 || v.Statements != 1 || v.Statement != def.ID {
		t.Errorf("%+v", v)
	}
	if in := l.InForce(&a); !slices.Equal(in, a.Hashes[:2]) || l.InForce(&b) != nil {
		t.Errorf("in force: %v, %v", in, l.InForce(&b))
	}
	if s := l.Standing(a.List, a.Issuer, a.Hashes[0]); len(s) != 1 || s[0].ID != a.ID {
		t.Errorf("%+v", s)
	}
	if got := l.Definitions(a.List); len(got) != 2 {
		t.Errorf("definitions %v", got)
	}
	// What comes later is measured by the same span.
	c := after(abroad(add("ban", hashAt(t, MD5))), 14)
	d := after(abroad(add("ban", hashAt(t, MD5))), 15)
	apply(t, l, c)
	listed(true, true, false)
	apply(t, l, d, after(undo(d), 14))
	listed(true, true, true)
	if in := l.InForce(&d); len(in) != 1 {
		t.Errorf("in force: %v", in)
	}
	// The bytes that nodes compare are those of a node that was told nothing.
	silent := open(t, log)
	if got, want := folded(t, l), folded(t, silent); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	void(Span{From: epoch}) // all of it, for ever
	verdict(VerdictFlag, 1)
	if _, ok := l.List(a.List); ok {
		t.Error("a list that only void statements define is there")
	}
	if c := l.Counts(); c.Lists != 1 {
		t.Errorf("%+v", c)
	}
	void(Span{}) // a zero span is all of time
	verdict(VerdictFlag, 1)
	void()
	listed(true, false, true)
	if v, _ := l.List(a.List); v.Action != Accept || v.Hashes != 2 {
		t.Errorf("%+v", v)
	}

	// What cannot be read from the log changes nothing.
	log.failFind = errors.New("unreadable")
	if err := l.Void(context.Background(), a.Issuer, []Span{thief}); !errors.Is(err, log.failFind) || !strings.Contains(err.Error(), a.ID) {
		t.Errorf("got %v", err)
	}
	listed(true, false, true)
	log.failFind = nil
	log.records = slices.DeleteFunc(log.records, func(r Record) bool { return r.Statement.ID == a.ID })
	if err := l.Void(context.Background(), a.Issuer, []Span{thief}); err == nil || !strings.Contains(err.Error(), "not in the log") {
		t.Errorf("got %v", err)
	}
	if err := l.Void(context.Background(), origin+"/users/nobody", []Span{thief}); err != nil {
		t.Error(err)
	}

	p.Own = origin + "/"
	if _, err := Open(context.Background(), log, p); err == nil || !strings.Contains(err.Error(), "own origin") {
		t.Errorf("got %v", err)
	}
}

// TestVoidWhileBusy: nothing gets lost between the looks that Void takes at the
// fold, however statements come in.
func TestVoidWhileBusy(t *testing.T) {
	l := open(t, &memoryLog{})
	apply(t, l, define("ban", Reject))
	const n = 200
	var adds, undos []Statement
	for i := range n {
		a := add("ban", hashAt(t, PDQ, i), hashAt(t, MD5, i%128, (i/128+i+1)%128))
		undos = append(undos, Statement{
			ID: fmt.Sprintf("%s/statements/busy%d", origin, i), Issuer: a.Issuer, List: a.List, Kind: Retraction,
			Published: epoch.Add(10 * time.Second), Retracts: a.ID,
		})
		adds = append(adds, a)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range n {
			apply(t, l, adds[i])
			apply(t, l, undos[i])
		}
	})
	wg.Go(func() {
		for i := range n {
			l.Lookup(probe(hashAt(t, PDQ, i)))
			l.Heed(origin+"/lists/ban", VerdictHold, DirectBelief(VerdictHold))
		}
	})
	for range 2 {
		wg.Go(func() {
			for i := range 50 {
				spans := []Span{{From: epoch.Add(5 * time.Second)}}[:i%2]
				if err := l.Void(context.Background(), adds[0].Issuer, spans); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := l.Void(context.Background(), adds[0].Issuer, []Span{{From: epoch.Add(5 * time.Second)}}); err != nil {
		t.Fatal(err)
	}
	for i := range adds {
		if in := l.InForce(&adds[i]); len(in) != 2 {
			t.Fatalf("statement %d has %d hashes in force", i, len(in))
		}
	}
	if err := l.Void(context.Background(), adds[0].Issuer, nil); err != nil {
		t.Fatal(err)
	}
	if v, _ := l.List(origin + "/lists/ban"); v.Hashes != 0 {
		t.Fatalf("%+v", v)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	check(t, l.fold)
}
