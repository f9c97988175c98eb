package bktree

import (
	"fmt"
	"math"
	"math/bits"
	"runtime"
	"sync"
)

// ID is the number an Index gives a point. IDs are dense and small: a new
// point gets the lowest free one, so a caller can keep data beside the point in
// a slice. An ID is free to be given again once Remove has returned it and the
// lookups that were running then have ended.
type ID uint32

// Neighbour is a point that Near found.
type Neighbour struct {
	ID       ID
	Distance int // Hamming distance from the point asked for, in bits
}

// Stats describes an Index at one moment.
type Stats struct {
	Points int   // points in the index
	IDs    int   // all IDs are below this; it never shrinks
	Bytes  int64 // memory held, in bytes
}

// structure is what searches. The Index in front of it decides which points
// exist and which ID each has: keep is only called with an ID that is free and
// a point that is absent, file with what was kept, drop only with a pair that was
// filed. The points are permuted, see permute.
//
// near and at run beside all others, which come one at a time, and are announced as
// readers.
type structure[P Point] interface {
	expect(p P)                         // drop may follow
	gather(ids []ID, into *[maxBatch]P) // the points, which are live; for the writer
	keep(id ID, p P)                    // from here on at finds p
	file(ids []ID, points []P)          // from here on near finds them; at most maxBatch
	drop(id ID, p P)
	suspend() // until resume near may take its time, so that file need not
	resume()
	near(q P, into *nearest)
	at(id ID) (P, bool)
	bytes() int64
}

// Index answers exactly which points lie within a Hamming radius of another.
// It is safe for concurrent use. Lookups run while points are inserted and
// removed: an Insert or Remove that has returned is seen by every Near that
// starts afterwards.
//
// Near is not a snapshot. A point that is inserted or removed while Near runs
// may or may not be in the answer, and an ID in the answer may have been given
// to another point by the time the caller reads it. A caller that keeps data
// beside the IDs must hold its own lock over both, or compare the point.
type Index[P Point] struct {
	readers   readers
	structure structure[P]
	exact     exact[P]  // written under mu
	idle      sync.Pool // of *reader: one that this processor used before

	mu      sync.Mutex // of whoever writes; guards what follows
	alloc   allocator
	removed []removedID // whose IDs may still be in the hands of a reader
	batch   batch[P]
}

type removedID struct {
	id    ID
	epoch uint64
}

// New returns an empty Index.
func New[P Point]() *Index[P] {
	x := newIndex[P](nil)
	x.structure = newMulti[P](&x.readers)
	return x
}

// NewFolded returns an empty Index for points of 256 bits that are looked up with NearEither. With some seven million
// points or more that takes three fifths of two calls of Near, and a call of Near a sixth longer than with New;
// below it is like New. When it gets there by inserts, these take many times as long for about a million points, and
// a point takes some 350 bytes meanwhile.
func NewFolded() *Index[Point256] {
	x := New[Point256]()
	x.structure.(*multi[Point256]).levels = levelsFolded
	return x
}

// NewExact returns an empty Index for points that are only asked for themselves,
// with Find or with Near at radius 0. It takes 38 bytes for a point of 256 bits, and at
// other radii scans all points.
func NewExact[P Point]() *Index[P] {
	x := New[P]()
	x.structure.(*multi[P]).from = math.MaxInt
	return x
}

func newIndex[P Point](s structure[P]) *Index[P] {
	x := &Index[P]{structure: s}
	x.exact.init()
	return x
}

// begin announces a reader.
func (x *Index[P]) begin() *reader {
	hint, _ := x.idle.Get().(*reader)
	return x.readers.enter(hint)
}

// end takes the announcement back. The Index is kept alive until here: mapped
// memory goes with it.
func (x *Index[P]) end(r *reader) {
	r.exit()
	runtime.KeepAlive(x)
	x.idle.Put(r)
}

// Insert adds p and returns its ID. Identical points are one point: if p is
// there already, Insert returns the ID it has and false.
//
// Insert panics when all 2^32 - 3 IDs are given out.
func (x *Index[P]) Insert(p P) (id ID, added bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	before := x.exact.n
	var points [1]P
	var ids [1]ID
	points[0] = p
	x.insert(points[:], ids[:0])
	return ids[0], x.exact.n > before
}

// Remove takes p out and returns the ID it had, or false if it was not there.
func (x *Index[P]) Remove(p P) (id ID, removed bool) {
	p = permute(p)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.structure.expect(p)
	id, ok := x.exact.find(p, x.structure)
	if !ok {
		return 0, false
	}
	x.settle()
	x.exact.remove(p, id, x.structure)
	x.structure.drop(id, p)
	x.removed = append(x.removed, removedID{id, x.readers.retire()})
	return id, true
}

// settle frees the IDs that no reader can have in hand any more.
func (x *Index[P]) settle() {
	if len(x.removed) == 0 {
		return
	}
	oldest := x.readers.oldest()
	n := 0
	for ; n < len(x.removed) && x.removed[n].epoch < oldest; n++ {
		x.alloc.give(x.removed[n].id)
	}
	if n > 0 {
		x.removed = x.removed[:copy(x.removed, x.removed[n:])]
	}
}

// Find returns the ID of p itself. It is a hash table lookup.
func (x *Index[P]) Find(p P) (ID, bool) {
	r := x.begin()
	defer x.end(r)
	return x.exact.find(permute(p), x.structure)
}

// Point returns the point that has the given ID, or false if none has. It spares
// a caller that keeps data beside the IDs its own copy of the points.
func (x *Index[P]) Point(id ID) (P, bool) {
	r := x.begin()
	defer x.end(r)
	p, ok := x.structure.at(id)
	if !ok {
		return p, false // the zero point, which restore leaves alone, but who would know
	}
	return restore(p), true
}

// Near appends to dst every point whose Hamming distance from p is at most
// radius bits, nearest first, ties in the order of their IDs. A negative radius
// finds nothing.
//
// A limit above zero caps how many are appended. Those appended are then the
// nearest, and truncated reports that there were more.
func (x *Index[P]) Near(p P, radius, limit int, dst []Neighbour) (near []Neighbour, truncated bool) {
	if radius < 0 {
		return dst, false
	}
	r := x.begin()
	defer x.end(r)
	return x.near(permute(p), radius, limit, dst, &r.nearest)
}

func (x *Index[P]) near(p P, radius, limit int, dst []Neighbour, into *nearest) ([]Neighbour, bool) {
	if radius == 0 {
		if id, ok := x.exact.find(p, x.structure); ok {
			dst = append(dst, Neighbour{ID: id})
		}
		return dst, false
	}
	into.begin(radius, limit, dst)
	x.structure.near(p, into)
	return into.finish()
}

// Both is what NearEither finds for a point: what is near it, and what is near its complement.
type Both struct{ Near, Opposite []Neighbour }

// NearEither is Near, without a limit, for several points and for the complement of each, which has every bit turned. To
// found[i], which must be there, it appends what Near does for points[i] and for its complement, with the
// distances from each. No two slices in found may share memory. Many points at a time take less than one after the other; see also NewFolded.
func (x *Index[P]) NearEither(points []P, radius int, found []Both) {
	if radius < 0 {
		return
	}
	for len(points) > 0 {
		n := min(len(points), maxAsked)
		x.nearEither(points[:n], radius, found[:n])
		points, found = points[n:], found[n:]
	}
}

// nearEither is NearEither for at most maxAsked points and a radius that is not negative.
func (x *Index[P]) nearEither(points []P, radius int, found []Both) {
	r := x.begin()
	defer x.end(r)
	m, ok := x.structure.(*multi[P])
	if !ok || radius == 0 {
		for i, p := range points {
			p = permute(p)
			found[i].Near, _ = x.near(p, radius, 0, found[i].Near, &r.nearest)
			found[i].Opposite, _ = x.near(complement(p), radius, 0, found[i].Opposite, &r.nearest)
		}
		return
	}
	if r.either == nil {
		r.either = new([2][maxAsked]nearest)
	}
	var q [maxAsked]P
	near, opposite := r.either[0][:len(points)], r.either[1][:len(points)]
	for i, p := range points {
		q[i] = permute(p)
		near[i].begin(radius, 0, found[i].Near)
		opposite[i].begin(radius, 0, found[i].Opposite)
	}
	m.nearEither(q[:len(points)], near, opposite)
	for i := range points {
		found[i].Near = r.finish(&near[i])
		found[i].Opposite = r.finish(&opposite[i])
	}
}

// finish is that of n, with the room that the reader has for sorting.
func (r *reader) finish(n *nearest) []Neighbour {
	n.spare = r.nearest.spare
	found, _ := n.finish()
	r.nearest.spare, n.spare = n.spare, nil
	return found
}

// Stats returns the size of the index.
func (x *Index[P]) Stats() Stats {
	x.mu.Lock()
	defer x.mu.Unlock()
	return Stats{
		Points: x.exact.n,
		IDs:    x.alloc.end,
		Bytes:  x.exact.bytes() + x.alloc.bytes() + x.structure.bytes() + int64(cap(x.removed))*16,
	}
}

// maxIDs leaves the last ID for the tree, where it marks a dead node, and two
// values of the hash table's slots that are no IDs.
const maxIDs = math.MaxUint32 - 2

// allocator gives out the lowest free ID, which keeps IDs dense after removals
// and lets the upper chunks of the scan drain. It is a bitmap of the free IDs
// below end, and a bitmap of the words of the first that are not zero.
type allocator struct {
	end   int      // IDs from here on were never given
	free  []uint64 // bit i: ID i is free
	words []uint64 // bit i: free[i] != 0
	first int      // words below this are all zero
}

func (a *allocator) take() ID {
	for ; a.first < len(a.words); a.first++ {
		if a.words[a.first] == 0 {
			continue
		}
		w := a.first<<6 + bits.TrailingZeros64(a.words[a.first])
		bit := bits.TrailingZeros64(a.free[w])
		if a.free[w] &^= 1 << bit; a.free[w] == 0 {
			a.words[a.first] &^= 1 << (w & 63)
		}
		return ID(w<<6 + bit)
	}
	if a.end >= maxIDs {
		panic(fmt.Sprintf("bktree: more than %d points", a.end))
	}
	id := a.end
	a.end++
	if id>>6 == len(a.free) {
		a.free = append(a.free, 0)
	}
	if id>>12 == len(a.words) {
		a.words = append(a.words, 0)
	}
	return ID(id)
}

func (a *allocator) give(id ID) {
	a.free[id>>6] |= 1 << (id & 63)
	a.words[id>>12] |= 1 << (id >> 6 & 63)
	a.first = min(a.first, int(id>>12))
}

func (a *allocator) bytes() int64 { return int64(cap(a.free)+cap(a.words)) * 8 }
