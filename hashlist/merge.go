package hashlist

import (
	"cmp"
	"container/heap"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/tocsin-fed/tocsin/bktree"
)

// fold is what a set of statements comes to. merge is commutative and
// idempotent: the fold depends on which statements were merged, and on nothing
// else. The rules that make it so:
//
//   - A statement is known by its id, and its id is made from its content, so
//     there are no two versions of one.
//   - A retraction acts on the statement it names if both have the same issuer
//     and list, whether it comes before or after it. It is never undone: a hash
//     is listed again by a new statement.
//   - Of several definitions of a list the latest counts, by (published, id).
//   - Hashes of a list that has no definition are kept and match nothing.
//
// On top of that, and not of the log, lies what this node was told: which issuers'
// statements are void, and how far lists of other nodes are heeded. Lookups see the
// fold with that; write prints it without.
type fold struct {
	stmts    []stmt // by number
	byID     map[string]uint32
	lists    map[string]*list    // by IRI
	tombs    map[tombKey]*tomb   // what was retracted, before or after it came
	points   [SHA256 + 1]points  // the distinct hashes in force
	owners   [SHA256 + 1][]owner // by the points' IDs: the first posting of each
	postings []posting
	free     map[uint32][]uint32 // by length: blocks of postings to use again
	lapsing  lapses
	interned map[string]string
	radius   [SHA256 + 1]int    // the largest of any list that is heeded
	own      string             // origin of the lists that are heeded fully; "" for all
	heeded   map[string]Verdict // by IRI: lists of other origins, also such as nothing is known of
	voids    map[string][]span  // by issuer
}

// owner is 1 + the number of a posting, 0 for none.
type owner uint32

// posting says that a statement lists a hash. The postings of one statement are
// one block, in the order of its hashes; those of one hash are chained.
type posting struct {
	stmt  uint32
	next  owner
	point bktree.ID
	alg   Algorithm // 0 once retracted or lapsed
	kept  bool      // retracted, but by nothing that is not void
}

// stmt is an AddHashes or DefineList statement. Retractions are only tombs.
type stmt struct {
	id        string
	seq       uint64 // place in the log
	issuer    string
	list      *list
	labels    []string
	reason    string
	published int64 // Unix seconds
	expires   int64 // Unix seconds, 0 for never
	first     uint32
	count     uint32 // postings in its block
	live      uint32 // of them in force
	kind      Kind
	action    Action
	void      bool
}

type list struct {
	iri        string
	origin     string       // "" for this node's own
	most       Verdict      // its matches come to no more; 0 if it is not heeded
	defs       []definition // in no order, retracted ones too
	current    *definition  // nil while there is none
	stated     *definition  // the same, if nothing were void
	hashes     int          // postings in force, but for those of void statements
	statements int          // with at least one such posting
}

type definition struct {
	Definition
	stmt uint32
}

func newFold() *fold {
	return &fold{
		byID: map[string]uint32{}, lists: map[string]*list{}, tombs: map[tombKey]*tomb{},
		points: newPoints(), free: map[uint32][]uint32{}, interned: map[string]string{},
		heeded: map[string]Verdict{}, voids: map[string][]span{},
	}
}

// intern keeps one copy of what many statements share.
func (f *fold) intern(s string) string {
	if v, ok := f.interned[s]; ok {
		return v
	}
	s = strings.Clone(s)
	f.interned[s] = s
	return s
}

func (f *fold) list(iri string) *list {
	l := f.lists[iri]
	if l == nil {
		l = &list{iri: f.intern(iri), most: VerdictReject}
		if o, err := Origin(iri); f.own != "" && (err != nil || o != f.own) {
			l.origin, l.most = f.intern(cmp.Or(o, iri)), f.heeded[iri]
		}
		f.lists[l.iri] = l
	}
	return l
}

// merge adds a valid statement, which stands at seq in the log. now is the time at which statements lapse; it
// only ever grows.
func (f *fold) merge(seq uint64, s *Statement, now time.Time) {
	if s.Kind == Retraction {
		f.retract(s)
		return
	}
	if _, known := f.byID[s.ID]; known {
		return
	}
	n := uint32(len(f.stmts))
	v := stmt{
		id: s.ID, seq: seq, issuer: f.intern(s.Issuer), list: f.list(s.List), reason: s.Reason, kind: s.Kind,
		action: s.Action, published: s.Published.Unix(),
	}
	for _, l := range s.Labels {
		v.labels = append(v.labels, f.intern(l))
	}
	if !s.Expires.IsZero() {
		v.expires = s.Expires.Unix()
	}
	v.void = within(v.published, f.voids[v.issuer])
	f.byID[v.id] = n
	f.stmts = append(f.stmts, v)
	switch s.Kind {
	case DefineList:
		v.list.defs = append(v.list.defs, definition{*s.Definition, n})
		f.choose(v.list)
		f.widen()
	case AddHashes:
		if v.expires != 0 && v.expires <= now.Unix() {
			return // known, so that it stays known, but in force no more
		}
		f.post(n, s.Hashes)
	}
}

// post puts the hashes of statement n into force, but for those retracted and those
// that are in force already.
func (f *fold) post(n uint32, hashes []Hash) {
	s := &f.stmts[n]
	t, spans := f.tomb(s), f.voids[s.issuer]
	if s.count == 0 {
		s.count = uint32(len(hashes))
		if blocks := f.free[s.count]; len(blocks) > 0 {
			s.first = blocks[len(blocks)-1]
			f.free[s.count] = blocks[:len(blocks)-1]
		} else {
			s.first = uint32(len(f.postings))
			f.postings = append(f.postings, make([]posting, s.count)...)
		}
		for i := range s.count {
			f.postings[s.first+i] = posting{stmt: n}
		}
	}
	had, put := s.live, 0
	for i, h := range hashes {
		p := &f.postings[s.first+uint32(i)]
		retracted, acts := t.fate(h, spans)
		if acts || p.alg != 0 {
			continue
		}
		p.alg, p.point, p.kept = h.alg, f.points[h.alg].insert(h), retracted
		heads := &f.owners[h.alg]
		for int(p.point) >= len(*heads) {
			*heads = append(*heads, 0)
		}
		p.next = (*heads)[p.point]
		(*heads)[p.point] = owner(s.first + uint32(i) + 1)
		put++
	}
	s.grow(put)
	switch {
	case s.live == 0:
		f.release(s)
	case had == 0 && s.expires != 0:
		heap.Push(&f.lapsing, lapse{s.expires, n})
	}
}

func (f *fold) retract(r *Statement) {
	key, t := f.bury(r)
	n, ok := f.buried(key)
	if !ok {
		return
	}
	s := &f.stmts[n]
	switch {
	case s.kind == DefineList:
		f.choose(s.list)
		f.widen()
	case t.whole.act(f.voids[s.issuer]):
		f.withdraw(n)
	case len(r.Hashes) == 0:
		for i := s.first; i < s.first+s.count; i++ {
			f.postings[i].kept = f.postings[i].alg != 0
		}
	default:
		for _, h := range r.Hashes {
			if id, ok := f.points[h.alg].find(h); ok {
				for o := f.owners[h.alg][id]; o != 0; o = f.postings[o-1].next {
					if f.postings[o-1].stmt == n {
						f.settle(uint32(o - 1))
						break
					}
				}
			}
		}
	}
}

// withdraw takes all of statement n out of force.
func (f *fold) withdraw(n uint32) {
	s := &f.stmts[n]
	for i := s.first; i < s.first+s.count && s.live > 0; i++ {
		if p := f.postings[i]; p.alg != 0 {
			f.unpost(i)
		}
	}
}

// unpost takes one posting out of force, and the hash with it if nobody else
// lists it.
func (f *fold) unpost(i uint32) {
	p := &f.postings[i]
	s := &f.stmts[p.stmt]
	at := &f.owners[p.alg][p.point]
	for *at != owner(i+1) {
		at = &f.postings[*at-1].next
	}
	*at = p.next
	if f.owners[p.alg][p.point] == 0 {
		f.points[p.alg].drop(p.point)
	}
	p.alg, p.next = 0, 0
	s.grow(-1)
	if s.live == 0 {
		f.release(s)
	}
}

// release lets the block of a statement that has no hash in force be used again.
func (f *fold) release(s *stmt) {
	f.free[s.count] = append(f.free[s.count], s.first)
	s.first, s.count = 0, 0
}

// heed sets how far a list of another origin is heeded.
func (f *fold) heed(iri string, most Verdict) {
	if most == 0 {
		delete(f.heeded, iri)
	} else {
		f.heeded[iri] = most
	}
	if l := f.lists[iri]; l != nil && l.origin != "" {
		l.most = most
		f.widen()
	}
}

// widen works out the largest radii. A list that is not heeded does not slow
// down lookups by a wide one.
func (f *fold) widen() {
	f.radius = [SHA256 + 1]int{}
	for _, l := range f.lists {
		if l.current != nil && l.most != 0 {
			for a, r := range l.current.Radii {
				f.radius[a] = max(f.radius[a], int(r))
			}
		}
	}
}

// lapse takes out of force what has lapsed by now.
func (f *fold) lapse(now time.Time) {
	for len(f.lapsing) > 0 && f.lapsing[0].at <= now.Unix() {
		n := heap.Pop(&f.lapsing).(lapse).stmt
		f.withdraw(n)
	}
}

// write prints the fold in a form that depends on nothing but the statements: what
// is in force at now if nothing is void, sorted. Two nodes that hold the same statements print the
// same bytes.
func (f *fold) write(w io.Writer, now time.Time) error {
	var lines []string
	for _, l := range f.lists {
		if c := l.stated; c != nil {
			lines = append(lines, fmt.Sprintf("list %s %s %q labels=%v audience=%v action=%v radii=%v by %s\n",
				l.iri, c.Name, c.Summary, c.Labels, c.Audience, c.Action, c.Radii, f.stmts[c.stmt].id))
		}
	}
	for _, a := range Algorithms {
		f.points[a].each(func(id bktree.ID, h Hash) {
			for o := f.owners[a][id]; o != 0; o = f.postings[o-1].next {
				if s := &f.stmts[f.postings[o-1].stmt]; !f.postings[o-1].kept && (s.expires == 0 || s.expires > now.Unix()) {
					lines = append(lines, fmt.Sprintf("hash %v on %s labels=%v action=%v until=%d by %s\n",
						h, s.list.iri, s.labels, s.action, s.expires, s.id))
				}
			}
		})
	}
	slices.Sort(lines)
	for _, l := range lines {
		if _, err := io.WriteString(w, l); err != nil {
			return err
		}
	}
	return nil
}

// lapses is a heap of the statements that lapse, the next one first.
type lapses []lapse

type lapse struct {
	at   int64 // Unix seconds
	stmt uint32
}

func (h lapses) Len() int           { return len(h) }
func (h lapses) Less(i, j int) bool { return h[i].at < h[j].at }
func (h lapses) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *lapses) Push(v any)        { *h = append(*h, v.(lapse)) }
func (h *lapses) Pop() any {
	old := *h
	v := old[len(old)-1]
	*h = old[:len(old)-1]
	return v
}
