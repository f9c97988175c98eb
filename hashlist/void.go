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
// The hashes that void retractions withdrew are read from the log. If that fails,
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
// published: some may turn out to be void. Parts are a map, because an issuer may
// retract hash by hash a thousand times over.
type tomb struct {
	whole moments
	parts map[Hash]moments
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

// fate tells whether h was retracted, and whether by a retraction that is not void.
func (t *tomb) fate(h Hash, spans []span) (retracted, acts bool) {
	if t == nil {
		return false, false
	}
	part := t.parts[h]
	return len(t.whole)+len(part) > 0, t.whole.act(spans) || part.act(spans)
}

// any tells what fate tells of a definition, for which every retraction is one of
// all of it.
func (t *tomb) any(spans []span) (retracted, acts bool) {
	if t == nil {
		return false, false
	}
	acts = t.whole.act(spans)
	for _, m := range t.parts {
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
	for _, m := range t.parts {
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
	if len(r.Hashes) == 0 {
		t.whole = t.whole.with(at)
		return key, t
	}
	if t.parts == nil {
		t.parts = make(map[Hash]moments, len(r.Hashes))
	}
	one := moments{at} // shared by those that are retracted for the first time
	for _, h := range r.Hashes {
		if m := t.parts[h]; m == nil {
			t.parts[h] = one
		} else {
			t.parts[h] = m.with(at)
		}
	}
	return key, t
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
	retracted, acts := f.tomb(s).fate(f.points[p.alg].at(p.point), f.voids[s.issuer])
	if p.kept = retracted; acts {
		f.unpost(i)
	}
}

// missing returns the IDs of the statements, but for those in have, of which
// something may come back into force if spans are what is void. The fold has let go
// of their hashes.
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
			if f.postings[i].alg != 0 {
				f.settle(i)
			}
		}
		if v, read := have[key.statement]; read && s.torn(now) {
			f.post(n, v.Hashes)
		}
	}
	for _, l := range f.lists {
		f.choose(l)
	}
	f.widen()
}

// annul says whether s is void. What is void stays in the index, so that it can
// come back, but its list does not count it.
func (s *stmt) annul(void bool) {
	if s.void == void {
		return
	}
	by, one := int(s.live), min(1, int(s.live))
	if s.void = void; void {
		by, one = -by, -one
	}
	s.list.hashes += by
	s.list.statements += one
}

// grow changes how many hashes of s are in force.
func (s *stmt) grow(by int) {
	was := min(1, int(s.live))
	s.live = uint32(int(s.live) + by)
	if !s.void {
		s.list.hashes += by
		s.list.statements += min(1, int(s.live)) - was
	}
}

// choose works out which definition of l counts: the latest that is neither
// retracted nor void; and which one would, if nothing were void.
func (f *fold) choose(l *list) {
	l.current, l.stated = nil, nil
	for i := range l.defs {
		d := &l.defs[i]
		s := &f.stmts[d.stmt]
		retracted, acts := f.tomb(s).any(f.voids[s.issuer])
		if !retracted && f.later(d, l.stated) {
			l.stated = d
		}
		if !acts && !s.void && f.later(d, l.current) {
			l.current = d
		}
	}
}

func (f *fold) later(d, than *definition) bool {
	if than == nil {
		return true
	}
	a, b := &f.stmts[d.stmt], &f.stmts[than.stmt]
	return cmp.Or(cmp.Compare(a.published, b.published), cmp.Compare(a.id, b.id)) > 0
}
