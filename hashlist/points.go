package hashlist

import (
	"encoding/binary"

	"github.com/tocsin-fed/tocsin/bktree"
)

// points is the set of the distinct listed hashes of one algorithm. Each has a
// small number, beside which the fold keeps who listed it.
type points interface {
	insert(Hash) bktree.ID
	insertAll(hashes []Hash, ids []bktree.ID) []bktree.ID // appends the number of each; for many at once
	drop(bktree.ID)                                       // of a hash that is there
	find(Hash) (bktree.ID, bool)
	at(bktree.ID) Hash // of a hash that is there
	near(h Hash, radius int, dst []bktree.Neighbour) []bktree.Neighbour
	// nearEither appends to found[i] what is near hashes[i] and near its complement.
	nearEither(hashes []Hash, radius int, found []bktree.Both)
	each(func(bktree.ID, Hash))
	len() int
	bytes() int64 // of memory

	// Between the two inserts are quick, and near takes its time: for a log that is
	// read from its beginning.
	beginBulk()
	endBulk()
}

func newPoints() [VPDQ + 1]points {
	var t [VPDQ + 1]points
	for _, a := range Algorithms {
		switch {
		case a == PDQ:
			t[a] = &indexed[bktree.Point256]{index: bktree.NewFolded(), point: point256, hash: hash256(a)}
		case a == VPDQ:
			t[a] = &indexed[bktree.Point256]{index: bktree.New[bktree.Point256](), point: point256, hash: hash256(a)}
		case a.Perceptual():
			t[a] = &indexed[bktree.Point64]{index: bktree.New[bktree.Point64](), point: point64, hash: hash64(a)}
		default:
			// Not a map: that takes more than twice the memory, and all of it anew
			// for a moment when it grows.
			t[a] = &indexed[bktree.Point256]{index: bktree.NewExact[bktree.Point256](), point: point256, hash: hash256(a), exact: true}
		}
	}
	return t
}

func point256(h Hash) (p bktree.Point256) {
	for i := range p {
		p[i] = binary.BigEndian.Uint64(h.sum[8*i:])
	}
	return p
}

func hash256(a Algorithm) func(bktree.Point256) Hash {
	return func(p bktree.Point256) Hash {
		h := Hash{alg: a}
		for i, w := range p {
			binary.BigEndian.PutUint64(h.sum[8*i:], w)
		}
		return h
	}
}

func point64(h Hash) bktree.Point64 { return bktree.Point64(binary.BigEndian.Uint64(h.sum[:])) }

func hash64(a Algorithm) func(bktree.Point64) Hash {
	return func(p bktree.Point64) Hash {
		h := Hash{alg: a}
		binary.BigEndian.PutUint64(h.sum[:], uint64(p))
		return h
	}
}

// indexed are points in an index. Shorter digests have zeros at the end.
type indexed[P bktree.Point] struct {
	index *bktree.Index[P]
	point func(Hash) P
	hash  func(P) Hash
	exact bool // of digests: near is to be the hash itself
	batch []P  // of insertAll
}

func (t *indexed[P]) insert(h Hash) bktree.ID {
	id, _ := t.index.Insert(t.point(h))
	return id
}

func (t *indexed[P]) insertAll(hashes []Hash, ids []bktree.ID) []bktree.ID {
	t.batch = t.batch[:0]
	for _, h := range hashes {
		t.batch = append(t.batch, t.point(h))
	}
	return t.index.InsertBatch(t.batch, ids)
}

func (t *indexed[P]) drop(id bktree.ID) {
	if p, ok := t.index.Point(id); ok {
		t.index.Remove(p)
	}
}

func (t *indexed[P]) find(h Hash) (bktree.ID, bool) { return t.index.Find(t.point(h)) }
func (t *indexed[P]) at(id bktree.ID) Hash {
	p, _ := t.index.Point(id)
	return t.hash(p)
}

func (t *indexed[P]) len() int     { return t.index.Stats().Points }
func (t *indexed[P]) bytes() int64 { return t.index.Stats().Bytes }
func (t *indexed[P]) beginBulk()   { t.index.BeginBulk() }
func (t *indexed[P]) endBulk()     { t.index.EndBulk() }

func (t *indexed[P]) near(h Hash, radius int, dst []bktree.Neighbour) []bktree.Neighbour {
	if t.exact {
		radius = 0
	}
	dst, _ = t.index.Near(t.point(h), radius, 0, dst)
	return dst
}

func (t *indexed[P]) nearEither(hashes []Hash, radius int, found []bktree.Both) {
	points := make([]P, len(hashes))
	for i, h := range hashes {
		points[i] = t.point(h)
	}
	t.index.NearEither(points, radius, found)
}

func (t *indexed[P]) each(visit func(bktree.ID, Hash)) {
	for id := range bktree.ID(t.index.Stats().IDs) {
		if p, ok := t.index.Point(id); ok {
			visit(id, t.hash(p))
		}
	}
}

// exact is a set of keys, each with a small number. It is not locked: the fold's
// lock covers it.
type exact[K comparable] struct {
	ids  map[K]bktree.ID
	keys []K // by ID
	free []bktree.ID
}

func (t *exact[K]) add(k K) bktree.ID {
	if id, ok := t.ids[k]; ok {
		return id
	}
	id := bktree.ID(len(t.keys))
	if n := len(t.free); n > 0 {
		id, t.free = t.free[n-1], t.free[:n-1]
		t.keys[id] = k
	} else {
		t.keys = append(t.keys, k)
	}
	t.ids[k] = id
	return id
}

func (t *exact[K]) drop(id bktree.ID) {
	delete(t.ids, t.keys[id])
	var none K
	t.keys[id] = none // a text need not live on
	t.free = append(t.free, id)
}

func (t *exact[K]) get(k K) (bktree.ID, bool) {
	id, ok := t.ids[k]
	return id, ok
}

func (t *exact[K]) all(visit func(bktree.ID, K)) {
	for k, id := range t.ids {
		visit(id, k)
	}
}

func (t *exact[K]) len() int { return len(t.ids) }
