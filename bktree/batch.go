package bktree

import "slices"

// maxBatch is how many points are inserted under one lock. While the memory for some is on
// its way, the others are worked on.
const maxBatch = 64

// batch is what insert needs; kept between inserts.
type batch[P Point] struct {
	asked  [maxBatch]P // permuted
	ids    [maxBatch]ID
	points [maxBatch]P // those that were not there
}

// InsertBatch inserts points and appends to ids the ID of each, in their order. It
// is Insert for many points at a lower price.
func (x *Index[P]) InsertBatch(points []P, ids []ID) []ID {
	for part := range slices.Chunk(points, maxBatch) {
		ids = x.insertLocked(part, ids)
	}
	return ids
}

func (x *Index[P]) insertLocked(points []P, ids []ID) []ID {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.insert(points, ids)
}

// insert inserts at most maxBatch points; for whoever holds mu.
func (x *Index[P]) insert(points []P, ids []ID) []ID {
	b := &x.batch
	for i, p := range points {
		b.asked[i] = permute(p)
		x.exact.expect(b.asked[i])
	}
	x.settle()
	n := 0
	defer func() { x.structure.file(b.ids[:n], b.points[:n]) }() // also when take panics
	for _, p := range b.asked[:len(points)] {
		id, ok := x.exact.find(p, x.structure)
		if !ok {
			id = x.alloc.take()
			x.structure.keep(id, p)
			x.exact.set(p, id, x.structure)
			b.ids[n], b.points[n] = id, p
			n++
		}
		ids = append(ids, id)
	}
	return ids
}

// BeginBulk prepares for so many inserts and removes that it is cheaper to build
// what makes Near fast from nothing afterwards: from now on, until EndBulk, Insert and
// Remove take a fraction of their time, and Near, which stays exact, scans
// all points.
func (x *Index[P]) BeginBulk() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.structure.suspend()
}

// EndBulk builds what makes Near fast, on all processors. Inserts and removes wait
// until it returns, lookups do not. Without BeginBulk it does nothing.
func (x *Index[P]) EndBulk() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.structure.resume()
}
