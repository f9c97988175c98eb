package hashlist

import (
	"encoding/binary"

	"github.com/tocsin-fed/tocsin/bktree"
)

// points is the set of the distinct listed hashes of one algorithm. Each has a
// small number, beside which the fold keeps who listed it.
type points interface {
	insert(Hash) bktree.ID
	drop(bktree.ID) // of a hash that is there
	find(Hash) (bktree.ID, bool)
	at(bktree.ID) Hash // of a hash that is there
	near(h Hash, radius int, dst []bktree.Neighbour) []bktree.Neighbour
	each(func(bktree.ID, Hash))
	len() int
}

func newPoints() [SHA256 + 1]points {
	var t [SHA256 + 1]points
	for _, a := range Algorithms {
		switch {
		case a == PDQ:
			t[a] = perceptual[bktree.Point256]{bktree.New[bktree.Point256](), point256, hash256}
		case a.Perceptual():
			t[a] = perceptual[bktree.Point64]{bktree.New[bktree.Point64](), point64, hash64(a)}
		default:
			t[a] = &digests{alg: a, ids: map[[32]byte]bktree.ID{}}
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

func hash256(p bktree.Point256) Hash {
	h := Hash{alg: PDQ}
	for i, w := range p {
		binary.BigEndian.PutUint64(h.sum[8*i:], w)
	}
	return h
}

func point64(h Hash) bktree.Point64 { return bktree.Point64(binary.BigEndian.Uint64(h.sum[:])) }

func hash64(a Algorithm) func(bktree.Point64) Hash {
	return func(p bktree.Point64) Hash {
		h := Hash{alg: a}
		binary.BigEndian.PutUint64(h.sum[:], uint64(p))
		return h
	}
}

type perceptual[P bktree.Point] struct {
	index *bktree.Index[P]
	point func(Hash) P
	hash  func(P) Hash
}

func (t perceptual[P]) insert(h Hash) bktree.ID {
	id, _ := t.index.Insert(t.point(h))
	return id
}

func (t perceptual[P]) drop(id bktree.ID) {
	if p, ok := t.index.Point(id); ok {
		t.index.Remove(p)
	}
}

func (t perceptual[P]) find(h Hash) (bktree.ID, bool) { return t.index.Find(t.point(h)) }
func (t perceptual[P]) at(id bktree.ID) Hash {
	p, _ := t.index.Point(id)
	return t.hash(p)
}

func (t perceptual[P]) len() int { return t.index.Stats().Points }

func (t perceptual[P]) near(h Hash, radius int, dst []bktree.Neighbour) []bktree.Neighbour {
	dst, _ = t.index.Near(t.point(h), radius, 0, dst)
	return dst
}

func (t perceptual[P]) each(visit func(bktree.ID, Hash)) {
	for id := range bktree.ID(t.index.Stats().IDs) {
		if p, ok := t.index.Point(id); ok {
			visit(id, t.hash(p))
		}
	}
}

// digests are looked up exactly. They are not locked: the fold's lock covers them.
type digests struct {
	alg  Algorithm
	ids  map[[32]byte]bktree.ID
	sums [][32]byte // by ID
	free []bktree.ID
}

func (t *digests) insert(h Hash) bktree.ID {
	if id, ok := t.ids[h.sum]; ok {
		return id
	}
	id := bktree.ID(len(t.sums))
	if n := len(t.free); n > 0 {
		id, t.free = t.free[n-1], t.free[:n-1]
		t.sums[id] = h.sum
	} else {
		t.sums = append(t.sums, h.sum)
	}
	t.ids[h.sum] = id
	return id
}

func (t *digests) drop(id bktree.ID) {
	delete(t.ids, t.sums[id])
	t.free = append(t.free, id)
}

func (t *digests) find(h Hash) (bktree.ID, bool) {
	id, ok := t.ids[h.sum]
	return id, ok
}

func (t *digests) at(id bktree.ID) Hash { return Hash{t.alg, t.sums[id]} }

func (t *digests) near(h Hash, _ int, dst []bktree.Neighbour) []bktree.Neighbour {
	if id, ok := t.ids[h.sum]; ok {
		dst = append(dst, bktree.Neighbour{ID: id})
	}
	return dst
}

func (t *digests) each(visit func(bktree.ID, Hash)) {
	for sum, id := range t.ids {
		visit(id, Hash{t.alg, sum})
	}
}

func (t *digests) len() int { return len(t.ids) }
