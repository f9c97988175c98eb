package bktree

import (
	"math/bits"
	"unsafe"
)

func lowest(word uint64) int { return bits.TrailingZeros64(word) }

const (
	shards = 64
	// A map smaller than this is not worth making anew to free its memory.
	minRebuild = 1 << 7
)

// table maps each point to its ID. A Go map never gives memory back, so a
// shard that has lost three quarters of its points is copied to a new map.
// Sharding keeps that pause short: with ten million points, 40,000 copies.
type table[P Point] struct {
	shard [shards]struct {
		ids  map[P]ID
		peak int // most points since ids was made
	}
	n int
}

// shardOf spreads points by bits from everywhere. Whoever chooses points so
// that they fall into one shard gains a longer pause and nothing else.
func shardOf[P Point](p P) int {
	var w uint64
	switch p := any(&p).(type) {
	case *Point64:
		w = uint64(*p)
	case *Point256:
		w = p[0] ^ p[1] ^ p[2] ^ p[3]
	}
	const golden = 0x9e3779b97f4a7c15 // 2^64 over the golden ratio: Knuth's multiplicative hashing
	return int(w * golden >> (64 - 6))
}

func (t *table[P]) len() int { return t.n }

func (t *table[P]) get(p P) (ID, bool) {
	id, ok := t.shard[shardOf(p)].ids[p]
	return id, ok
}

func (t *table[P]) set(p P, id ID) {
	s := &t.shard[shardOf(p)]
	if s.ids == nil {
		s.ids = make(map[P]ID)
	}
	s.ids[p] = id
	s.peak = max(s.peak, len(s.ids))
	t.n++
}

func (t *table[P]) remove(p P) {
	s := &t.shard[shardOf(p)]
	delete(s.ids, p)
	t.n--
	if n := len(s.ids); s.peak >= minRebuild && n < s.peak/4 {
		smaller := make(map[P]ID, n)
		for p, id := range s.ids {
			smaller[p] = id
		}
		s.ids, s.peak = smaller, n
	}
}

// bytes estimates: a Go map has a power of two of slots, at most seven eighths
// of them used, and a control byte for each.
func (t *table[P]) bytes() int64 {
	var slot struct {
		p  P
		id ID
	}
	total := int64(unsafe.Sizeof(*t))
	for i := range t.shard {
		if peak := t.shard[i].peak; peak > 0 {
			slots := int64(1) << bits.Len(uint(peak*8/7))
			total += slots * int64(unsafe.Sizeof(slot)+1)
		}
	}
	return total
}
