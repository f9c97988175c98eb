package hashlist

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"sync/atomic"
)

// How far an issuer is believed is a flow, as in the OpenPGP web of trust of
// draft-nhw-openpgp-web-of-trust (Sequoia). The vertices are issuers, and a vouching in force is an
// edge that carries at most its amount. This node's own issuers are the roots. A path of k edges
// from a root is admissible if the depth of its i-th edge is at least k-i: who is
// vouched for with depth 0 is believed, and nobody through them. The belief in a set of backers is what flows over
// admissible paths from all roots together into all of them together, no edge above its amount, at most 120.
//
// That bounds what an attacker can gain: whatever is invented behind an edge, be it a thousand
// issuers who vouch for each other, every path to it leads over that edge, so all of it together
// comes to no more than the edge's amount. The same goes for every cut.
//
// Where this differs from the draft:
//
//   - The draft asks about one binding; here backers are asked about together, because a verdict rests on all who stand
//     behind a statement. Two who share an edge of 40 come to 40 and not to 80.
//   - The draft's paths are found one after the other, and what one took is gone. Here a later path may send an earlier one
//     another way, as in the method of Ford and Fulkerson, so that what is believed does
//     not depend on which path was found first.
//   - A vouching holds for labels, not for user ids that match an expression.
//   - Depth ends at MaxDepth, which there means "without end" at 255.
//   - Of two vouchings by one issuer for one object the latest counts, as with the draft's
//     certifications, but label by label.
//
// Under limits of depth a true maximum is a matter of linear programming and not of flows, if
// one edge lies on paths with different rests of depth. What is computed here is then
// still a flow over admissible paths, so never more than the maximum; where no edge does, it is the maximum.

// vouched is what the fold keeps of a Vouch statement beside its stmt.
type vouched struct {
	from          int64 // Unix seconds
	by, object    uint32
	amount, depth uint8
}

// inbound is a Vouch statement in force.
type inbound struct {
	stmt uint32
	vouched
}

// trust is what the Vouch statements come to. The fold's lock covers it, but for the
// graphs, which readers fill in.
type trust struct {
	said       map[uint32]vouched // by number of the statement
	numbers    map[string]uint32  // of the issuers who vouch or are vouched for: the vertices
	names      []string           // by vertex
	servers    []string           // by vertex: its origin, see fold.server
	in         [][]inbound        // by vertex: the statements in force that vouch for it
	labels     map[string]int     // that vouchings in force name: how many
	generation uint64             // grows with every change
	changes    []uint32           // the vertices that others vouch for otherwise than when the first of graphs was made, as they changed

	mu     sync.Mutex // held by who makes a graph
	graphs atomic.Pointer[map[string]*graph]
}

func (t *trust) init() {
	t.said, t.numbers, t.labels = map[uint32]vouched{}, map[string]uint32{}, map[string]int{}
}

// vertex returns the number of an issuer, which is given for good.
func (t *trust) vertex(f *fold, issuer string) uint32 {
	if v, ok := t.numbers[issuer]; ok {
		return v
	}
	v := uint32(len(t.names))
	issuer = f.intern(issuer)
	t.numbers[issuer] = v
	origin, _ := Origin(issuer) // checked when the statement was
	t.names, t.servers, t.in = append(t.names, issuer), append(t.servers, f.intern(origin)), append(t.in, nil)
	return v
}

// vouch notes what statement n says, before it is posted.
func (f *fold) vouch(n uint32, s *Statement) {
	v := vouched{from: s.Published.Unix(), by: f.trust.vertex(f, s.Issuer), object: f.trust.vertex(f, s.Vouch.Object), amount: s.Vouch.Amount, depth: s.Vouch.Depth}
	if !s.Vouch.From.IsZero() {
		v.from = s.Vouch.From.Unix()
	}
	f.trust.said[n] = v
}

// relate notes that statement n, a Vouch, has come into force or gone out of it.
func (f *fold) relate(n uint32, by int) {
	t := &f.trust
	v := t.said[n]
	if by > 0 {
		t.in[v.object] = append(t.in[v.object], inbound{n, v})
	} else {
		t.in[v.object] = slices.DeleteFunc(t.in[v.object], func(m inbound) bool { return m.stmt == n })
	}
	for _, l := range f.stmts[n].labels {
		if t.labels[l] += by; t.labels[l] == 0 {
			delete(t.labels, l)
		}
	}
	if f.trust.generation++; len(t.changes) < maxChanges {
		t.changes = append(t.changes, v.object)
		return
	}
	f.retrust()
}

// retrust forgets what was worked out of the relationships.
func (f *fold) retrust() {
	if len(f.trust.said) == 0 {
		return
	}
	f.trust.generation++
	f.trust.changes = nil
	f.trust.graphs.Store(nil)
}

// backer is an issuer who stands behind something.
type backer struct {
	issuer string
	direct uint8 // belief that the operator gave by following the list on which they do
}

// edge is the vouching that counts of one issuer for another.
type edge struct {
	from, stmt    uint32
	amount, depth uint8
}

// graph is the relationships that hold for a label at a time. It is not changed once it
// is made, but for memo.
type graph struct {
	from, until int64      // it is the same at all times from from to just before until
	changes     int        // how many of trust.changes it has in it
	in          [][]edge   // by vertex: who vouches for it, roots first
	out         [][]uint32 // by vertex: for whom it vouches
	reach       []int8     // by vertex: the most edges that a path may go on behind it; rootReach for a root, -1 if there is no path
	memo        []atomic.Uint32
}

// rootReach is the reach of a root: its own edges may be as deep as they like.
const rootReach = MaxDepth + 1

// anyLabel stands for all labels at once. It is none, and only good for finding out who could matter.
const anyLabel = "*"

// maxChanges bounds the changes that are taken over one by one.
const maxChanges = 1024

// maxGraphs bounds the labels that graphs are kept of: strangers choose their names.
const maxGraphs = 256

// graph returns that of a label at a time.
func (f *fold) graph(label string, at int64) *graph {
	t := &f.trust
	if t.labels[label] == 0 && label != anyLabel {
		label = "" // nobody says anything of it in particular
	}
	right := func(g *graph) bool { return g != nil && g.from <= at && at < g.until }
	if all := t.graphs.Load(); all != nil {
		if g := (*all)[label]; right(g) && g.changes == len(t.changes) {
			return g
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	next := map[string]*graph{}
	if all := t.graphs.Load(); all != nil && len(*all) < maxGraphs {
		for l, g := range *all {
			next[l] = g
		}
	}
	g := next[label]
	switch {
	case right(g) && g.changes == len(t.changes):
		return g
	case right(g):
		g = f.changeGraph(g, label, at)
	default:
		g = f.makeGraph(label, at)
	}
	next[label] = g
	t.graphs.Store(&next)
	return g
}

func (f *fold) makeGraph(label string, at int64) *graph {
	t := &f.trust
	g := &graph{
		from: math.MinInt64, until: math.MaxInt64, changes: len(t.changes),
		in: make([][]edge, len(t.names)), out: make([][]uint32, len(t.names)), memo: make([]atomic.Uint32, len(t.names)),
	}
	for v := range g.in {
		g.in[v] = f.edges(uint32(v), label, at, g)
		for _, e := range g.in[v] {
			g.out[e.from] = append(g.out[e.from], uint32(v))
		}
	}
	f.measure(g)
	return g
}

// changeGraph makes of a graph what it is after the changes since, for the same label. What it knows of
// those whom no change can reach stays known.
func (f *fold) changeGraph(old *graph, label string, at int64) *graph {
	t := &f.trust
	g := &graph{
		from: old.from, until: old.until, changes: len(t.changes),
		in: make([][]edge, len(t.names)), out: make([][]uint32, len(t.names)), memo: make([]atomic.Uint32, len(t.names)),
	}
	copy(g.in, old.in)
	copy(g.out, old.out)
	touched := make([]bool, len(t.names))
	var queue []uint32
	touch := func(v uint32) {
		if !touched[v] {
			touched[v] = true
			queue = append(queue, v)
		}
	}
	for _, v := range t.changes[old.changes:] {
		if touched[v] {
			continue
		}
		for _, e := range g.in[v] {
			g.out[e.from] = slices.DeleteFunc(slices.Clone(g.out[e.from]), func(w uint32) bool { return w == v }) // others hold the slice
		}
		g.in[v] = f.edges(v, label, at, g)
		for _, e := range g.in[v] {
			g.out[e.from] = append(slices.Clip(g.out[e.from]), v)
		}
		touch(v)
	}
	f.measure(g)
	for i := 0; i < len(queue); i++ {
		v := queue[i]
		if g.reach[v] == rootReach || g.reach[v] < 1 && (int(v) >= len(old.reach) || old.reach[v] < 1) {
			continue // introduces nobody, and did not
		}
		for _, w := range g.out[v] {
			touch(w)
		}
	}
	for v := range old.memo {
		if !touched[v] {
			g.memo[v].Store(old.memo[v].Load())
		}
	}
	return g
}

// measure finds the reach of each vertex.
func (f *fold) measure(g *graph) {
	t := &f.trust
	g.reach = make([]int8, len(t.names))
	// The widest first: no edge makes it wider.
	var queue [rootReach + 1][]uint32
	for v := range g.reach {
		if g.reach[v] = -1; f.own == "" || t.servers[v] == f.own && !f.behalf[t.names[v]] {
			g.reach[v] = rootReach
			queue[rootReach] = append(queue[rootReach], uint32(v))
		}
	}
	for r := int8(rootReach); r > 0; r-- {
		for i := 0; i < len(queue[r]); i++ {
			u := queue[r][i]
			if g.reach[u] != r {
				continue
			}
			for _, v := range g.out[u] {
				for _, e := range g.in[v] {
					if w := min(r-1, int8(e.depth)); e.from == u && w > g.reach[v] {
						g.reach[v] = w
						queue[w] = append(queue[w], v)
					}
				}
			}
		}
	}
}

// edges returns those to a vertex that hold for a label at a time, and narrows the
// time for which g is right.
func (f *fold) edges(v uint32, label string, at int64, g *graph) []edge {
	t := &f.trust
	var all []edge
	for i := range t.in[v] {
		d := &t.in[v][i]
		s := &f.stmts[d.stmt]
		if s.void || s.list.current == nil || s.list.most == 0 && !s.list.relied || label != anyLabel && len(s.labels) > 0 && !slices.Contains(s.labels, label) {
			continue
		}
		switch {
		case at < d.from:
			g.until = min(g.until, d.from)
			continue
		case s.expires != 0 && at >= s.expires:
			g.from = max(g.from, s.expires)
			continue
		}
		g.from = max(g.from, d.from)
		if s.expires != 0 {
			g.until = min(g.until, s.expires)
		}
		all = append(all, edge{d.by, d.stmt, d.amount, d.depth})
	}
	if len(all) < 2 || label == anyLabel {
		return all
	}
	// By who vouches, the latest first, and in an order that does not depend on how they came.
	slices.SortFunc(all, func(a, b edge) int {
		if a.from != b.from {
			return cmp.Compare(t.names[a.from], t.names[b.from])
		}
		x, y := &f.stmts[a.stmt], &f.stmts[b.stmt]
		return cmp.Or(cmp.Compare(y.published, x.published), cmp.Compare(y.id, x.id))
	})
	return slices.CompactFunc(all, func(a, b edge) bool { return a.from == b.from })
}

// believe tells how far backers are believed together about a label at a time (Unix
// seconds): amount is the flow from the roots to all of them, 0 to MostBelief, and independent
// how many of them are reached over paths that share no server but this one. An own issuer is
// believed fully, and is one voice.
//
// What the operator gave by following is an edge from a root over which nobody can be introduced. A
// server is followed once, however many issuers it has: what was given to it goes to all of
// them together. If the roots vouch for an issuer as well, the greater of the two counts.
func (f *fold) believe(label string, at int64, backers []backer) (amount, independent int) {
	if len(backers) == 1 {
		amount = f.believeOne(label, at, &backers[0])
		return amount, min(1, amount)
	}
	n := networks.Get().(*network)
	defer networks.Put(n)
	g := f.graph(label, at)
	amount = n.believed(f, g, backers)
	independent = n.independent(f, g, backers)
	return amount, independent
}

// believeOne is the usual case, and costs two reads once it was worked out.
func (f *fold) believeOne(label string, at int64, b *backer) int {
	v, known := f.trust.numbers[b.issuer]
	if !known {
		if f.ownIssuer(b.issuer) {
			return MostBelief
		}
		return min(int(b.direct), MostBelief)
	}
	g := f.graph(label, at)
	if g.reach[v] == rootReach {
		return MostBelief
	}
	m := g.memo[v].Load()
	if m == 0 {
		n := networks.Get().(*network)
		m = 1 | uint32(n.believed(f, g, []backer{{issuer: b.issuer}}))<<8 | uint32(g.said(v))<<16
		networks.Put(n)
		g.memo[v].Store(m)
	}
	return min(int(m>>8&0xff)+max(0, int(b.direct)-int(m>>16)), MostBelief)
}

// ownIssuer reports whether an issuer is one of this node's own, a root. A list that is kept
// for somebody else is a voice of its own, and none of ours.
func (f *fold) ownIssuer(issuer string) bool {
	o, err := Origin(issuer)
	return err == nil && (f.own == "" || o == f.own) && !f.behalf[issuer]
}

// server is what an issuer shares with those whom nothing keeps from being one person.
func (f *fold) server(issuer string) string {
	o, err := Origin(issuer)
	if err != nil || f.behalf[issuer] {
		return issuer
	}
	return o
}

// said is what the roots say of a vertex themselves, at most 255.
func (g *graph) said(v uint32) (sum int) {
	for _, e := range g.in[v] {
		if g.reach[e.from] == rootReach {
			sum += int(e.amount)
		}
	}
	return min(sum, 255)
}
