package bktree

import (
	"math"
	"sync"
	"unsafe"
)

// tree is a BK-tree (W. A. Burkhard and R. M. Keller, "Some approaches to
// best-match file searching", Communications of the ACM 16(4), 1973). A node
// files every point below it under the point's distance from the node. By the
// triangle inequality, the points within r of a query at distance d from the
// node are all filed under distances from d-r to d+r; the rest of the subtree
// is not looked at.
//
// A removed point leaves a dead node, which still tells the way to those below
// it. When the dead outnumber the living, the tree is planted anew, a few nodes
// with every put and drop, so that no call takes long: until the old tree is
// used up, a search walks both.
type tree[P Point] struct {
	mu   sync.RWMutex // guards what follows
	grow arena[P]     // points are put here
	old  arena[P]     // being moved to grow, from the front; empty most of the time
	next int          // nodes of old below this are moved
	held map[ID]P     // the living points by their IDs
}

// arena holds the nodes of one tree; node 0 is the root.
type arena[P Point] struct {
	nodes []node[P]
	dead  int
}

// node is 20 or 48 bytes without a pointer, so the garbage collector does not
// look into the arena.
type node[P Point] struct {
	point    P
	id       ID     // noID: removed
	child    uint32 // first child: the one at the least distance; 0: none
	sibling  uint32 // next child of the same parent, at a greater distance; 0: none
	distance uint16 // from the parent
}

const (
	noID ID = math.MaxUint32
	// moves is how many old nodes each keep and drop deals with. Every one of
	// them adds at most one node to the work, so more than two would do.
	moves = 8
	// minDead keeps small trees from being planted anew all the time.
	minDead = 64
)

func newTree[P Point]() *tree[P] { return &tree[P]{held: make(map[ID]P)} }

func (t *tree[P]) expect(P)       {}
func (t *tree[P]) file([]ID, []P) {}
func (t *tree[P]) suspend()       {}
func (t *tree[P]) resume()        {}

func (t *tree[P]) gather(ids []ID, into *[maxBatch]P) {
	for i, id := range ids {
		into[i], _ = t.at(id)
	}
}

func (t *tree[P]) keep(id ID, p P) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.held[id] = p
	t.grow.put(id, p)
	t.tend()
}

func (t *tree[P]) drop(id ID, p P) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.held, id)
	if !t.grow.drop(p) {
		t.old.drop(p)
	}
	t.tend()
}

// tend moves a few points of the old tree, or decides that the time has come.
func (t *tree[P]) tend() {
	if len(t.old.nodes) == 0 {
		if dead := t.grow.dead; dead >= minDead && dead > len(t.grow.nodes)/2 {
			t.old, t.grow, t.next = t.grow, arena[P]{}, 0
		}
		return
	}
	for range moves {
		if t.next == len(t.old.nodes) {
			t.old = arena[P]{}
			return
		}
		n := &t.old.nodes[t.next]
		t.next++
		if n.id != noID {
			t.grow.put(n.id, n.point)
			n.id = noID
			t.old.dead++
		}
	}
}

func (t *tree[P]) at(id ID) (P, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	p, ok := t.held[id]
	return p, ok
}

// walks keeps, between searches, the stacks of nodes yet to visit.
var walks = sync.Pool{New: func() any { return new([]uint32) }}

func (t *tree[P]) near(q P, into *nearest) {
	walk := walks.Get().(*[]uint32)
	defer walks.Put(walk)
	t.mu.RLock()
	defer t.mu.RUnlock()
	t.grow.near(q, into, walk)
	if t.old.dead < len(t.old.nodes) {
		t.old.near(q, into, walk)
	}
}

func (t *tree[P]) bytes() int64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return int64(cap(t.grow.nodes)+cap(t.old.nodes))*int64(unsafe.Sizeof(node[P]{})) + int64(len(t.held))*48
}

func (a *arena[P]) put(id ID, p P) {
	if len(a.nodes) == 0 {
		a.nodes = append(a.nodes, node[P]{point: p, id: id})
		return
	}
	for at := uint32(0); ; {
		n := &a.nodes[at]
		d := uint16(Distance(p, n.point))
		if d == 0 { // dead: put is not called with a point that is there
			n.id = id
			a.dead--
			return
		}
		link := &n.child
		for *link != 0 && a.nodes[*link].distance < d {
			link = &a.nodes[*link].sibling
		}
		if *link != 0 && a.nodes[*link].distance == d {
			at = *link
			continue
		}
		added := node[P]{point: p, id: id, sibling: *link, distance: d}
		*link = uint32(len(a.nodes)) // before append, which may move what link points into
		a.nodes = append(a.nodes, added)
		return
	}
}

// drop marks p dead and reports whether it was there.
func (a *arena[P]) drop(p P) bool {
	for at := uint32(0); int(at) < len(a.nodes); {
		n := &a.nodes[at]
		d := uint16(Distance(p, n.point))
		if d == 0 {
			if n.id == noID {
				return false
			}
			n.id = noID
			a.dead++
			return true
		}
		for at = n.child; at != 0 && a.nodes[at].distance < d; {
			at = a.nodes[at].sibling
		}
		if at == 0 || a.nodes[at].distance != d {
			return false
		}
	}
	return false
}

// near visits depth first, with a stack of its own: points can be chosen so
// that the tree is a chain.
func (a *arena[P]) near(q P, into *nearest, walk *[]uint32) {
	if len(a.nodes) == 0 {
		return
	}
	stack := append((*walk)[:0], 0)
	for len(stack) > 0 {
		n := &a.nodes[stack[len(stack)-1]]
		stack = stack[:len(stack)-1]
		d := Distance(q, n.point)
		if d <= into.radius && n.id != noID {
			into.add(n.id, d)
		}
		for at := n.child; at != 0; {
			c := &a.nodes[at]
			if int(c.distance) > d+into.radius {
				break // and so are its siblings
			}
			if int(c.distance) >= d-into.radius {
				stack = append(stack, at)
			}
			at = c.sibling
		}
	}
	*walk = stack
}
