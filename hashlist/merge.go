package hashlist

import (
	"cmp"
	"container/heap"
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
//     and list, whether it comes before or after it. It is never undone: a hash or
//     subject is listed again by a new statement. Part of a definition, a confirmation,
//     a dispute or a vouching there is not: naming one retracts all of a definition, and nothing of
//     the others.
//   - Of several definitions of a list the latest counts, by (published, id). That it is of
//     partner data is said once and for all.
//   - What is on a list that has no definition is kept and matches nothing.
//
// On top of that, and not of the log, lies what this node was told: which issuers'
// statements are void, and how far lists of other nodes are heeded. Lookups see the
// fold with that; write prints it without.
type fold struct {
	stmts    []stmt // by number
	byID     map[string]uint32
	lists    map[string]*list       // by IRI
	tombs    map[tombKey]*tomb      // what was retracted, before or after it came
	points   [VPDQ + 1]points       // the distinct hashes in force
	texts    [textual]exact[string] // the distinct subjects in force, what opinions are about, and who is vouched for
	owners   [tables][]owner        // by the IDs in points and texts: the first posting of each
	postings []posting
	free     map[uint32][]uint32 // by length: blocks of postings to use again
	lapsing  turns
	turns    turns
	looked   int64 // Unix seconds: what begins or ends later is among turns
	interned map[string]string
	radius   [VPDQ + 1]int      // the largest of any list that is heeded
	own      string             // origin of the lists that are heeded fully; "" for all
	heeded   map[string]Verdict // by IRI: lists of other origins, also such as nothing is known of
	behalf   map[string]bool    // by IRI: lists of this origin that are kept for others, see OnBehalf
	voids    map[string][]span  // by issuer
	directs  map[string]uint8   // by IRI, as heeded: the belief that following gives
	relied   map[string]bool    // by IRI: lists of other origins that are heeded for whom they vouch for alone
	trust    trust
	held     map[string]struct{} // the IDs of statements that match nothing until a person has decided; see Quarantined
	soft     map[string]struct{} // issuers whose matches come to hold at most; see Breaker
	ids      []bktree.ID         // of post
}

// owner is 1 + the number of a posting, 0 for none.
type owner uint32

// posting says that a statement lists a hash or subject, or is about another
// statement. The postings of one statement are one block, in the order of its hashes or
// subjects; those of one hash or subject are chained.
type posting struct {
	stmt  uint32
	next  owner
	point bktree.ID
	in    table // 0 once retracted or lapsed
	kept  bool  // retracted, but by nothing that is not void
}

// table says what the point of a posting is of: an algorithm's points, or behind them
// the texts of a kind.
type table uint8

const (
	textual = int(Vouch-AddAccounts) + 1 // kinds that have texts
	tables  = int(VPDQ) + 1 + textual
)

// table is that of the texts of statements of kind k, AddAccounts to Vouch.
func (k Kind) table() table { return table(VPDQ) + 1 + table(k-AddAccounts) }

// textsOf returns the texts of table in, which is not an algorithm's.
func (f *fold) textsOf(in table) *exact[string] { return &f.texts[in-table(VPDQ)-1] }

// stmt is a statement. Retractions are only tombs.
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
	held      bool // in quarantine
}

type list struct {
	iri        string
	origin     string        // "" for this node's own; its own address if it is kept for somebody else
	most       Verdict       // its matches come to no more; 0 if it is not heeded
	partner    bool          // a definition of it, retracted or not, has the label PartnerData
	direct     uint8         // belief in what it lists because it is followed
	relied     bool          // who it vouches for counts, whatever most is
	defs       []*definition // in no order; retracted by nothing that is not void
	gone       []*definition // the retracted ones, which come back if that was void
	current    *definition   // nil while there is none
	stated     *definition   // the same, if nothing were void
	hashes     int           // postings of hashes in force, but for those of void statements
	subjects   int           // the same of accounts, servers and content
	statements int           // with at least one posting that is in force and not void
}

type definition struct {
	Definition
	stmt uint32
}

func newFold() *fold {
	f := &fold{
		byID: map[string]uint32{}, lists: map[string]*list{}, tombs: map[tombKey]*tomb{},
		points: newPoints(), free: map[uint32][]uint32{}, interned: map[string]string{},
		heeded: map[string]Verdict{}, behalf: map[string]bool{}, voids: map[string][]span{},
		directs: map[string]uint8{}, relied: map[string]bool{}, held: map[string]struct{}{},
	}
	f.trust.init()
	for i := range f.texts {
		f.texts[i].ids = map[string]bktree.ID{}
	}
	return f
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
		l = &list{iri: f.intern(iri), most: VerdictReject, direct: MostBelief}
		if o, err := Origin(iri); f.own != "" && (err != nil || o != f.own) {
			l.origin, l.most = f.intern(cmp.Or(o, iri)), f.heeded[iri]
		} else if f.behalf[iri] {
			l.origin, l.most = l.iri, f.heeded[iri]
		}
		if l.origin != "" {
			l.direct, l.relied = f.directs[iri], f.relied[iri]
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
	if s.Kind == Vouch {
		f.vouch(n, s)
	}
	v.void = within(v.published, f.voids[v.issuer])
	_, v.held = f.held[s.ID]
	f.byID[v.id] = n
	f.stmts = append(f.stmts, v)
	f.await(n)
	switch s.Kind {
	case DefineList:
		v.list.partner = v.list.partner || s.Definition.partner()
		f.weigh(v.list, &definition{*s.Definition, n})
		f.widen()
		f.retrust()
	default:
		if v.expires != 0 && v.expires <= now.Unix() {
			return // known, so that it stays known, but in force no more
		}
		f.post(n, s)
	}
}

// says returns what a statement puts into force: one of the two is empty.
func (s *Statement) says() (hashes []Hash, texts []string) {
	switch s.Kind {
	case AddHashes:
		return s.Hashes, nil
	case AddAccounts, AddInstances, AddContent:
		return nil, s.Subjects
	case Confirmation, Dispute:
		return nil, []string{s.About}
	case Vouch:
		return nil, []string{s.Vouch.Object}
	}
	return nil, nil
}

// post puts what statement n says, as v has it, into force, but for what is retracted
// and what is in force already.
func (f *fold) post(n uint32, v *Statement) {
	s := &f.stmts[n]
	t, spans := f.tomb(s), f.voids[s.issuer]
	hashes, texts := v.says()
	fresh := s.count == 0
	if fresh {
		s.count = uint32(len(hashes) + len(texts))
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
	if fresh && t == nil {
		put = f.linkAll(s.first, hashes)
		hashes = nil
	}
	for i, h := range hashes {
		at := s.first + uint32(i)
		if retracted, acts := t.fate(t.hash(h), spans); !acts && f.postings[at].in == 0 {
			f.link(at, table(h.alg), f.points[h.alg].insert(h), retracted)
			put++
		}
	}
	for i, text := range texts {
		at := s.first + uint32(i)
		if retracted, acts := t.fate(t.text(s.kind, text), spans); !acts && f.postings[at].in == 0 {
			f.link(at, s.kind.table(), f.textsOf(s.kind.table()).add(text), retracted)
			put++
		}
	}
	s.grow(put)
	switch {
	case s.live == 0:
		f.release(s)
	case had == 0 && s.expires != 0:
		heap.Push(&f.lapsing, turn{at: s.expires, stmt: n})
	}
}

// link puts posting i into the chain of a point.
func (f *fold) link(i uint32, in table, point bktree.ID, kept bool) {
	p := &f.postings[i]
	p.in, p.point, p.kept = in, point, kept
	heads := &f.owners[in]
	for int(point) >= len(*heads) {
		*heads = append(*heads, 0)
	}
	p.next = (*heads)[point]
	(*heads)[point] = owner(i + 1)
	if in == Vouch.table() {
		f.relate(p.stmt, 1)
	}
}

// linkAll puts the hashes of a block of postings that begins at first into force,
// and returns how many they are. Those of one algorithm go into the index together, which is
// several times quicker.
func (f *fold) linkAll(first uint32, hashes []Hash) int {
	for from, to := 0, 0; from < len(hashes); from = to {
		alg := hashes[from].alg
		for to = from + 1; to < len(hashes) && hashes[to].alg == alg; to++ {
		}
		f.ids = f.points[alg].insertAll(hashes[from:to], f.ids[:0])
		for i, id := range f.ids {
			f.link(first+uint32(from+i), table(alg), id, false)
		}
	}
	return len(hashes)
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
		f.retrust()
	case t.whole.act(f.voids[s.issuer]):
		f.withdraw(n)
	case len(r.Hashes)+len(r.Subjects) == 0:
		for i := s.first; i < s.first+s.count; i++ {
			f.postings[i].kept = f.postings[i].in != 0
		}
	default:
		for _, h := range r.Hashes {
			if id, ok := f.points[h.alg].find(h); ok {
				f.settleOne(n, table(h.alg), id)
			}
		}
		for _, v := range r.Subjects {
			if s.kind == AddHashes {
				continue
			}
			if id, ok := f.textsOf(s.kind.table()).get(v); ok {
				f.settleOne(n, s.kind.table(), id)
			}
		}
	}
}

// withdraw takes all of statement n out of force.
func (f *fold) withdraw(n uint32) {
	s := &f.stmts[n]
	for i := s.first; i < s.first+s.count && s.live > 0; i++ {
		if f.postings[i].in != 0 {
			f.unpost(i)
		}
	}
}

// unpost takes one posting out of force, and its point with it if nobody else
// lists it.
func (f *fold) unpost(i uint32) {
	p := &f.postings[i]
	s := &f.stmts[p.stmt]
	at := &f.owners[p.in][p.point]
	for *at != owner(i+1) {
		at = &f.postings[*at-1].next
	}
	*at = p.next
	if f.owners[p.in][p.point] == 0 {
		if p.in <= table(VPDQ) {
			f.points[p.in].drop(p.point)
		} else {
			f.textsOf(p.in).drop(p.point)
		}
	}
	if p.in == Vouch.table() {
		f.relate(p.stmt, -1)
	}
	p.in, p.next = 0, 0
	s.grow(-1)
	if s.live == 0 {
		f.release(s)
	}
}

// release lets the block of a statement that has nothing in force be used again.
func (f *fold) release(s *stmt) {
	f.free[s.count] = append(f.free[s.count], s.first)
	s.first, s.count = 0, 0
}

// heed sets how far a list of another origin is heeded.
func (f *fold) heed(iri string, most Verdict, direct uint8) {
	if most == 0 {
		delete(f.heeded, iri)
		delete(f.directs, iri)
	} else {
		f.heeded[iri], f.directs[iri] = most, direct
	}
	if l := f.lists[iri]; l != nil && l.origin != "" {
		l.most, l.direct = most, direct
		f.widen()
		f.retrust()
	}
}

// rely sets whether whom a list of another origin vouches for counts.
func (f *fold) rely(iri string, relied bool) {
	if relied {
		f.relied[iri] = true
	} else {
		delete(f.relied, iri)
	}
	if l := f.lists[iri]; l != nil && l.origin != "" {
		l.relied = relied
		f.retrust()
	}
}

// radii are those by which a list that has a definition matches here. Only this node's own go beyond
// DefaultRadii: at 63 bits most of the index is searched, for every upload, whoever asked for it.
func (l *list) radii() Radii {
	radii := l.current.Radii
	if l.origin != "" {
		for a := range radii {
			radii[a] = min(radii[a], DefaultRadii[a])
		}
	}
	return radii
}

// widen works out the largest radii. A list that is not heeded does not slow
// down lookups by a wide one.
func (f *fold) widen() {
	f.radius = [VPDQ + 1]int{}
	for _, l := range f.lists {
		if l.current != nil && l.most != 0 {
			for a, r := range l.radii() {
				f.radius[a] = max(f.radius[a], int(r))
			}
		}
	}
}

// lapse takes out of force what has lapsed by now.
func (f *fold) lapse(now time.Time) {
	for len(f.lapsing) > 0 && f.lapsing[0].at <= now.Unix() {
		n := heap.Pop(&f.lapsing).(turn).stmt
		f.withdraw(n)
	}
}
