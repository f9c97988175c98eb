package hashlist

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tocsin-fed/tocsin/bktree"
)

// Span is the time from From until just before Until. A zero From is the
// beginning, a zero Until is for ever.
type Span struct{ From, Until time.Time }

// Void has the statements of an issuer act as if they were not there, if they were
// published within one of spans: an issuer's key was in other hands from then
// on, and was replaced at the end. Retractions are statements too: what they withdrew is in
// force again. It takes the place of what was said before about that issuer, so no
// spans end it. It is not part of the log: whoever opens the lists says it again.
//
// Everything that tells what is in force heeds it, but for WriteFold, which prints
// what statements come to by themselves, and the numbers of Counts, in which void
// hashes are still counted.
//
// The times are those that statements claim. Whoever has a key can date statements
// back to before From: against that stands only who received what when, which the
// caller has to look at.
//
// What void retractions withdrew is read from the log. If that fails,
// nothing has changed.
func (l *Lists) Void(ctx context.Context, issuer string, spans []Span) error {
	l.voiding.Lock()
	defer l.voiding.Unlock()
	s := seconds(spans)
	// Lookups do not wait for the log: what is needed of it is read between two
	// looks at the fold, until nothing is missing.
	have := map[string]Statement{}
	for {
		l.mu.Lock()
		now := l.steady()
		missing := l.fold.missing(issuer, s, have, now)
		if len(missing) == 0 {
			l.fold.annul(issuer, s, have, now)
			l.changed("")
			l.mu.Unlock()
			return nil
		}
		l.mu.Unlock()
		for _, id := range missing {
			r, known, err := l.log.Find(ctx, id)
			if err == nil && !known {
				err = errors.New("it is not in the log")
			}
			if err != nil {
				return fmt.Errorf("bring back statement %s: %w", id, err)
			}
			have[id] = r.Statement
		}
	}
}

// span is a Span in Unix seconds.
type span struct{ from, until int64 }

func seconds(spans []Span) []span {
	s := make([]span, len(spans))
	for i, v := range spans {
		s[i] = span{ceiling(v.From), ceiling(v.Until)}
		if v.Until.IsZero() {
			s[i].until = math.MaxInt64
		}
	}
	return s
}

// ceiling is the first whole second that is not before t. Statements are
// published at whole seconds.
func ceiling(t time.Time) int64 {
	if t.Nanosecond() > 0 {
		return t.Unix() + 1
	}
	return t.Unix()
}

func within(at int64, spans []span) bool {
	for _, s := range spans {
		if s.from <= at && at < s.until {
			return true
		}
	}
	return false
}

// tombKey is what a retraction must agree with to act.
type tombKey struct{ statement, issuer, list string }

// tomb is all that was retracted of one statement, and when the retractions were
// published: some may turn out to be void. Parts are maps, because an issuer may
// retract hash by hash a thousand times over.
type tomb struct {
	whole    moments
	hashes   map[Hash]moments
	subjects map[string]moments
}

// moments are Unix seconds, sorted, none twice.
type moments []int64

// with returns m with one more. It does not change m, which may be shared.
func (m moments) with(at int64) moments {
	i, known := slices.BinarySearch(m, at)
	if known {
		return m
	}
	return slices.Concat(m[:i], moments{at}, m[i:])
}

// act reports whether one of m is outside of all spans.
func (m moments) act(spans []span) bool {
	if len(spans) == 0 {
		return len(m) > 0
	}
	return slices.ContainsFunc(m, func(at int64) bool { return !within(at, spans) })
}

// hash returns when h was retracted by itself.
func (t *tomb) hash(h Hash) moments {
	if t == nil {
		return nil
	}
	return t.hashes[h]
}

// text returns when a text of a statement of the given kind was retracted by itself.
// Confirmations, disputes and vouchings are retracted whole.
func (t *tomb) text(kind Kind, text string) moments {
	if t == nil || kind >= Confirmation {
		return nil
	}
	return t.subjects[text]
}

// fate tells whether what was retracted by itself at the moments part was retracted at
// all, and whether by something that is not void.
func (t *tomb) fate(part moments, spans []span) (retracted, acts bool) {
	if t == nil {
		return false, false
	}
	return len(t.whole)+len(part) > 0, t.whole.act(spans) || part.act(spans)
}

// parts yields when each part was retracted by itself.
func (t *tomb) parts(yield func(moments) bool) {
	for _, m := range t.hashes {
		if !yield(m) {
			return
		}
	}
	for _, m := range t.subjects {
		if !yield(m) {
			return
		}
	}
}

// any tells what fate tells of a definition, for which every retraction is one of
// all of it.
func (t *tomb) any(spans []span) (retracted, acts bool) {
	if t == nil {
		return false, false
	}
	acts = t.whole.act(spans)
	for m := range t.parts {
		acts = acts || m.act(spans)
	}
	return true, acts
}

// lifts reports whether spans make void what alone withdrew something.
func (t *tomb) lifts(spans []span) bool {
	if t.whole.act(spans) {
		return false
	}
	if len(t.whole) > 0 {
		return true
	}
	for m := range t.parts {
		if !m.act(spans) {
			return true
		}
	}
	return false
}

// bury notes what r retracts, and returns its key and the tomb.
func (f *fold) bury(r *Statement) (tombKey, *tomb) {
	key := tombKey{r.Retracts, f.intern(r.Issuer), f.intern(r.List)}
	t := f.tombs[key]
	if t == nil {
		t = &tomb{}
		key.statement = strings.Clone(key.statement)
		f.tombs[key] = t
	}
	at := r.Published.Unix()
	one := moments{at} // shared by those that are retracted for the first time
	switch {
	case len(r.Hashes) > 0:
		if t.hashes == nil {
			t.hashes = make(map[Hash]moments, len(r.Hashes))
		}
		retire(t.hashes, r.Hashes, one)
	case len(r.Subjects) > 0:
		if t.subjects == nil {
			t.subjects = make(map[string]moments, len(r.Subjects))
		}
		retire(t.subjects, r.Subjects, one)
	default:
		t.whole = t.whole.with(at)
	}
	return key, t
}

func retire[K comparable](parts map[K]moments, retracted []K, one moments) {
	for _, k := range retracted {
		if m := parts[k]; m == nil {
			parts[k] = one
		} else {
			parts[k] = m.with(one[0])
		}
	}
}

// tomb returns what was retracted of s, nil for nothing.
func (f *fold) tomb(s *stmt) *tomb { return f.tombs[tombKey{s.id, s.issuer, s.list.iri}] }

// buried returns the number of the statement that retractions with key act on.
func (f *fold) buried(key tombKey) (uint32, bool) {
	n, known := f.byID[key.statement]
	if !known || f.stmts[n].issuer != key.issuer || f.stmts[n].list.iri != key.list {
		return 0, false
	}
	return n, true
}

// settle does to posting i, which is in force, what was retracted asks for. It
// stays if all retractions are void, and is told apart from others.
func (f *fold) settle(i uint32) {
	p := &f.postings[i]
	s := &f.stmts[p.stmt]
	t := f.tomb(s)
	var part moments
	if p.in <= table(VPDQ) {
		part = t.hash(f.points[p.in].at(p.point))
	} else {
		part = t.text(s.kind, f.textsOf(p.in).keys[p.point])
	}
	retracted, acts := t.fate(part, f.voids[s.issuer])
	if p.kept = retracted; acts {
		f.unpost(i)
	}
}

// settleOne settles the posting of statement n at a point, if it has one.
func (f *fold) settleOne(n uint32, in table, point bktree.ID) {
	for o := f.owners[in][point]; o != 0; o = f.postings[o-1].next {
		if f.postings[o-1].stmt == n {
			f.settle(uint32(o - 1))
			return
		}
	}
}

// missing returns the IDs of the statements, but for those in have, of which
// something may come back into force if spans are what is void. The fold has let go
// of their hashes and subjects.
func (f *fold) missing(issuer string, spans []span, have map[string]Statement, now time.Time) []string {
	var ids []string
	for key, t := range f.tombs {
		if key.issuer != issuer || !t.lifts(spans) {
			continue
		}
		n, known := f.buried(key)
		if !known || !f.stmts[n].torn(now) {
			continue
		}
		if _, read := have[key.statement]; !read {
			ids = append(ids, key.statement)
		}
	}
	slices.Sort(ids)
	return ids
}

// torn reports whether s might have more in force than it has.
func (s *stmt) torn(now time.Time) bool {
	return s.kind != DefineList && (s.expires == 0 || s.expires > now.Unix()) && (s.live == 0 || s.live < s.count)
}

// annul makes void what an issuer said within spans, and nothing else of theirs.
// have holds the statements that missing asked for.
func (f *fold) annul(issuer string, spans []span, have map[string]Statement, now time.Time) {
	delete(f.voids, issuer)
	if len(spans) > 0 {
		f.voids[f.intern(issuer)] = spans
	}
	for n := range f.stmts {
		if s := &f.stmts[n]; s.issuer == issuer {
			s.annul(within(s.published, spans))
		}
	}
	for key := range f.tombs {
		n, known := f.buried(key)
		if key.issuer != issuer || !known || f.stmts[n].kind == DefineList {
			continue
		}
		s := &f.stmts[n]
		for i := s.first; i < s.first+s.count && s.live > 0; i++ {
			if f.postings[i].in != 0 {
				f.settle(i)
			}
		}
		if v, read := have[key.statement]; read && s.torn(now) {
			f.post(n, &v)
		}
	}
	for _, l := range f.lists {
		l.defs, l.gone = append(l.defs, l.gone...), nil
		f.choose(l)
	}
	f.widen()
	f.retrust()
}

// annul says whether s is void. What is void stays in the index, so that it can
// come back, but its list does not count it.
func (s *stmt) annul(void bool) {
	if s.void == void {
		return
	}
	live := int(s.live)
	if s.void = void; void {
		s.list.tally(s.kind, -live, -min(1, live))
	} else {
		s.list.tally(s.kind, live, min(1, live))
	}
}

// grow changes how many hashes or subjects of s are in force.
func (s *stmt) grow(by int) {
	was := min(1, int(s.live))
	s.live = uint32(int(s.live) + by)
	if !s.void {
		s.list.tally(s.kind, by, min(1, int(s.live))-was)
	}
}

func (l *list) tally(kind Kind, postings, statements int) {
	switch kind {
	case AddHashes:
		l.hashes += postings
	case AddAccounts, AddInstances, AddContent:
		l.subjects += postings
	}
	l.statements += statements
}

// choose works out which definition of l counts.
func (f *fold) choose(l *list) {
	l.current, l.stated = nil, nil
	defs := l.defs
	l.defs = nil
	for _, d := range defs {
		f.weigh(l, d)
	}
}

// weigh gives l a definition, which counts if it is the latest that is neither
// retracted nor void.
func (f *fold) weigh(l *list, d *definition) {
	s := &f.stmts[d.stmt]
	retracted, acts := f.tomb(s).any(f.voids[s.issuer])
	if acts {
		l.gone = append(l.gone, d)
		return
	}
	l.defs = append(l.defs, d)
	if !retracted && f.later(d, l.stated) {
		l.stated = d
	}
	if !s.void && f.later(d, l.current) {
		l.current = d
	}
}

func (f *fold) later(d, than *definition) bool {
	if than == nil {
		return true
	}
	a, b := &f.stmts[d.stmt], &f.stmts[than.stmt]
	return cmp.Or(cmp.Compare(a.published, b.published), cmp.Compare(a.id, b.id)) > 0
}
