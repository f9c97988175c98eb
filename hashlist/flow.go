package hashlist

import (
	"slices"
	"strings"
	"sync"
)

// network is a flow network laid out for one question. Its nodes are issuers with the rest of
// depth that a path has left there: what stands at (v, r) may pass r edges more. A vouching
// of depth d leads from (u, r) to (v, r-1), for every r up to d+1, and what has more depth left than it
// can use goes from (v, r) to (v, r-1) for nothing. So every way from the source to the
// sink is an admissible path. The arcs of one vouching share its amount: they are a bundle.
type network struct {
	arcs    []arc
	first   []int32  // by node: its newest arc, -1 for none
	bundles []bundle //
	via     []int32  // by node: the arc over which a search came, -1 for none
	queue   []int32  //
	path    []int32  // of arcs

	base    []int32 // by vertex: its node (v, 0), 0 if it has none
	visited []visit // the vertices that have nodes, in order
	split   bool    // each node has another behind it, so that what passes it can be bounded
	groups  map[string]int32
}

// arc is one direction of a link between nodes; the other is its neighbour in arcs.
type arc struct {
	to, next int32
	bundle   int32 // -1 if it may carry anything; of both directions
	flow     int32 // of the forward direction, which has an even number
	banned   bool
}

type bundle struct {
	edge      edge   // 0 amount if it is none
	head      uint32 // of edge
	cap, used int32
	uses      int32 // by the path that is looked at
}

type visit struct {
	vertex uint32
	need   int8 // edges that have to follow at least
}

// The nodes that are none of an issuer.
const (
	source = 0
	sink   = 1
)

// maxBans bounds how often a search is repeated because its path would have used an edge twice.
const maxBans = 64

var networks = sync.Pool{New: func() any { return new(network) }}

// lay makes n the part of g from which backers can be reached.
func (n *network) lay(f *fold, g *graph, backers []backer, split bool) {
	for _, v := range n.visited {
		n.base[v.vertex] = 0
	}
	if len(n.base) < len(g.in) {
		n.base = make([]int32, len(g.in))
	}
	n.arcs, n.bundles, n.visited, n.split = n.arcs[:0], n.bundles[:0], n.visited[:0], split
	n.first = append(n.first[:0], -1, -1)
	n.groups = map[string]int32{}
	for i := range backers {
		if v, known := f.trust.numbers[backers[i].issuer]; known && g.reach[v] >= 0 && g.reach[v] != rootReach {
			n.visit(g, v, 0)
		}
	}
	ends := len(n.visited)
	for i := 0; i < len(n.visited); i++ {
		v, need := n.visited[i].vertex, n.visited[i].need
		top := g.reach[v]
		for r := need; r <= top; r++ {
			if r > need {
				n.link(n.node(v, r), n.node(v, r-1), -1)
			}
			if split {
				n.link(n.node(v, r), n.behind(v, r), n.group(f.server(f.trust.names[v])))
			}
		}
		if i < ends {
			n.link(n.behind(v, 0), sink, -1)
		}
		for _, e := range g.in[v] {
			tail := g.reach[e.from]
			if int8(e.depth) < need || tail <= need {
				continue
			}
			b := n.bundle(bundle{edge: e, head: v, cap: int32(e.amount)})
			if tail == rootReach {
				n.link(source, n.node(v, int8(e.depth)), b)
				continue
			}
			n.visit(g, e.from, need+1)
			for r := need + 1; r <= min(tail, int8(e.depth)+1); r++ {
				n.link(n.behind(e.from, r), n.node(v, r-1), b)
			}
		}
	}
}

// visit gives a vertex its nodes.
func (n *network) visit(g *graph, v uint32, need int8) {
	if n.base[v] != 0 {
		return
	}
	n.base[v] = int32(len(n.first))
	n.visited = append(n.visited, visit{v, need})
	nodes := int(g.reach[v]) + 1
	if n.split {
		nodes *= 2
	}
	for range nodes {
		n.first = append(n.first, -1)
	}
}

func (n *network) node(v uint32, r int8) int32 {
	if n.split {
		return n.base[v] + 2*int32(r)
	}
	return n.base[v] + int32(r)
}

// behind is where what has passed a node goes on.
func (n *network) behind(v uint32, r int8) int32 {
	if n.split {
		return n.node(v, r) + 1
	}
	return n.node(v, r)
}

func (n *network) bundle(b bundle) int32 {
	n.bundles = append(n.bundles, b)
	return int32(len(n.bundles) - 1)
}

// group is the bundle of a server, which one path may pass.
func (n *network) group(origin string) int32 {
	b, known := n.groups[origin]
	if !known {
		b = n.bundle(bundle{cap: 1})
		n.groups[origin] = b
	}
	return b
}

func (n *network) link(from, to, bundle int32) {
	n.arcs = append(n.arcs, arc{to: to, next: n.first[from], bundle: bundle}, arc{to: from, next: n.first[to], bundle: bundle})
	n.first[from], n.first[to] = int32(len(n.arcs)-2), int32(len(n.arcs)-1)
}

// fill lets flow from the source to the sink what can, at most most.
func (n *network) fill(most int32) (total int32) {
	bans := 0
	for total < most && n.search() {
		by := most - total
		for _, a := range n.path {
			if v := &n.arcs[a]; a&1 == 1 {
				by = min(by, n.arcs[a^1].flow)
			} else if v.bundle >= 0 {
				n.bundles[v.bundle].uses++
			}
		}
		for _, a := range n.path { // what is sent another way makes room, but not before it is
			if b := n.arcs[a].bundle; a&1 == 0 && b >= 0 {
				by = min(by, (n.bundles[b].cap-n.bundles[b].used)/n.bundles[b].uses)
			}
		}
		for _, a := range n.path {
			if b := n.arcs[a].bundle; b >= 0 {
				if by == 0 && n.bundles[b].uses > 1 {
					n.arcs[a].banned = true
				}
				n.bundles[b].uses = 0
			}
		}
		if by == 0 {
			if bans++; bans > maxBans {
				return total
			}
			continue
		}
		for _, a := range n.path {
			v, d := &n.arcs[a&^1], by
			if a&1 == 1 {
				d = -by
			}
			v.flow += d
			if v.bundle >= 0 {
				n.bundles[v.bundle].used += d
			}
		}
		total += by
	}
	return total
}

// search finds the way with the fewest arcs that something more can take, from the sink back to
// the source, and puts it into path.
func (n *network) search() bool {
	n.via = n.via[:0]
	for range n.first {
		n.via = append(n.via, -1)
	}
	n.queue = append(n.queue[:0], source)
	for i := 0; i < len(n.queue); i++ {
		u := n.queue[i]
		for a := n.first[u]; a >= 0; a = n.arcs[a].next {
			v := &n.arcs[a]
			if v.banned || v.to == source || n.via[v.to] >= 0 {
				continue
			}
			if a&1 == 1 && n.arcs[a^1].flow == 0 || a&1 == 0 && v.bundle >= 0 && n.bundles[v.bundle].used >= n.bundles[v.bundle].cap {
				continue
			}
			n.via[v.to] = a
			if v.to == sink {
				n.path = n.path[:0]
				for at := int32(sink); at != source; at = n.arcs[n.via[at]^1].to {
					n.path = append(n.path, n.via[at])
				}
				return true
			}
			n.queue = append(n.queue, v.to)
		}
	}
	return false
}

// distinct returns backers by issuer, each once with the most that was given to them, and how many of
// them are own issuers, who are left out.
func (f *fold) distinct(backers []backer) (all []backer, own int) {
	all = slices.Clone(backers)
	slices.SortFunc(all, func(a, b backer) int {
		if a.issuer != b.issuer {
			return strings.Compare(a.issuer, b.issuer)
		}
		return int(b.direct) - int(a.direct)
	})
	all = slices.CompactFunc(all, func(a, b backer) bool { return a.issuer == b.issuer })
	n := len(all)
	all = slices.DeleteFunc(all, func(b backer) bool { return f.ownIssuer(b.issuer) })
	return all, n - len(all)
}

// believed is the flow into all backers.
func (n *network) believed(f *fold, g *graph, backers []backer) int {
	backers, own := f.distinct(backers)
	if own > 0 {
		return MostBelief
	}
	n.lay(f, g, backers, false)
	total := int(n.fill(MostBelief))
	for _, d := range f.followed(g, backers) {
		total += d
	}
	return min(total, MostBelief)
}

// followed is what was given to backers by following, beyond what the roots
// say of them themselves, by server.
func (f *fold) followed(g *graph, backers []backer) map[string]int {
	var most, sum map[string]int
	for _, b := range backers {
		if b.direct == 0 {
			continue
		}
		if most == nil {
			most, sum = map[string]int{}, map[string]int{}
		}
		o := f.server(b.issuer)
		most[o] = max(most[o], int(b.direct))
		more := int(b.direct)
		if v, known := f.trust.numbers[b.issuer]; known {
			more = max(0, more-g.said(v))
		}
		sum[o] += more
	}
	for o, m := range most {
		most[o] = min(m, sum[o])
	}
	return most
}

// independent is how many of backers are reached over paths that share no server.
func (n *network) independent(f *fold, g *graph, backers []backer) int {
	backers, own := f.distinct(backers)
	n.lay(f, g, backers, true)
	for _, b := range backers {
		if b.direct > 0 {
			n.link(source, sink, n.group(f.server(b.issuer)))
		}
	}
	return own + int(n.fill(int32(len(backers))))
}
