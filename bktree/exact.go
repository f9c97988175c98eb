package bktree

import (
	"math/bits"
	"math/rand/v2"
	"sync/atomic"
	"unsafe"
)

const (
	shards = 256
	// Slots hold an ID in their lower bits and bits of the hash above it. An
	// empty slot ends a search, a vacated one does not.
	emptySlot   = 0
	vacatedSlot = 1
	firstID     = 2 // what ID 0 is stored as
	minSlots    = 8
)

// exact finds the ID of a point: a hash table with open addressing that holds
// IDs only, for the points are kept elsewhere. It takes six bytes for a point.
//
// The table is cut into shards that grow one at a time, so that no insert takes
// long: with ten million points a shard is made anew in under a millisecond.
// Lookups need no lock: a shard made anew is another array, and the old one is complete for
// whoever still reads it. Writers must come one at a time.
type exact[P Point] struct {
	secret [4]uint64 // whoever chooses the points cannot choose where they go
	shard  [shards]shard
	n      int

	ids    [maxBatch]ID // of rebuild
	points [maxBatch]P
}

type shard struct {
	slots atomic.Pointer[slots]
	live  int
	used  int // live and vacated
}

type slots struct {
	idBits int      // bits of a slot that hold the ID
	slot   []uint32 // read atomically
}

func (x *exact[P]) init() {
	for i := range x.secret {
		x.secret[i] = rand.Uint64()
	}
}

// hash folds products of 128 bits. An attacker who does not know the secret
// cannot make points collide.
func (x *exact[P]) hash(p P) uint64 {
	fold := func(a, b uint64) uint64 {
		hi, lo := bits.Mul64(a, b)
		return hi ^ lo
	}
	var h uint64
	switch p := any(&p).(type) {
	case *Point64:
		h = fold(uint64(*p)^x.secret[0], x.secret[1]|1)
	case *Point256:
		h = fold(p[0]^x.secret[0], p[1]^x.secret[1]) ^ bits.RotateLeft64(fold(p[2]^x.secret[2], p[3]^x.secret[3]), 32)
	}
	return fold(h^x.secret[2], x.secret[3]|1)
}

// position is where a search starts, tag what the upper bits of a slot hold.
func (s *slots) position(h uint64) int { return int(uint64(uint32(h>>8)) * uint64(len(s.slot)) >> 32) }
func (s *slots) tag(h uint64) uint32   { return uint32(h>>32) >> s.idBits << s.idBits }

// find returns the ID of p. The caller says where the points are, and keeps them from
// being overwritten.
func (x *exact[P]) find(p P, points structure[P]) (ID, bool) {
	h := x.hash(p)
	s := x.shard[h%shards].slots.Load()
	if s == nil {
		return 0, false
	}
	tag := s.tag(h)
	for i := s.position(h); ; i++ {
		if i == len(s.slot) {
			i = 0
		}
		v := atomic.LoadUint32(&s.slot[i])
		if v == emptySlot {
			return 0, false
		}
		if v>>s.idBits == tag>>s.idBits && v != vacatedSlot {
			id := ID(v^tag) - firstID
			if q, ok := points.at(id); ok && q == p {
				return id, true
			}
		}
	}
}

// expect fetches what find and set look at first.
func (x *exact[P]) expect(p P) {
	h := x.hash(p)
	if s := x.shard[h%shards].slots.Load(); s != nil {
		ownLine(unsafe.Pointer(&s.slot[s.position(h)]))
	}
}

// set adds a point that is not there, with an ID that points knows already.
func (x *exact[P]) set(p P, id ID, points structure[P]) {
	h := x.hash(p)
	sh := &x.shard[h%shards]
	s := sh.slots.Load()
	if s == nil || (sh.used+1)*25 > len(s.slot)*22 || uint64(id)+firstID >= 1<<s.idBits {
		s = x.rebuild(sh, id, points)
	}
	sh.live++
	x.n++
	if s.put(h, id) {
		sh.used++
	}
}

// put reports whether it used an empty slot rather than a vacated one.
func (s *slots) put(h uint64, id ID) bool {
	for i := s.position(h); ; i++ {
		if i == len(s.slot) {
			i = 0
		}
		if v := s.slot[i]; v == emptySlot || v == vacatedSlot {
			publishID(&s.slot[i], s.tag(h)|uint32(id+firstID))
			return v == emptySlot
		}
	}
}

// remove takes out p, which is there with the given ID.
func (x *exact[P]) remove(p P, id ID, points structure[P]) {
	h := x.hash(p)
	sh := &x.shard[h%shards]
	s := sh.slots.Load()
	want := s.tag(h) | uint32(id+firstID)
	for i := s.position(h); ; i++ {
		if i == len(s.slot) {
			i = 0
		}
		if s.slot[i] != want {
			continue
		}
		if s.slot[(i+1)%len(s.slot)] == emptySlot {
			publishID(&s.slot[i], emptySlot) // no search goes on beyond it
			sh.used--
		} else {
			publishID(&s.slot[i], vacatedSlot)
		}
		break
	}
	sh.live--
	x.n--
	if len(s.slot) > minSlots && sh.live < len(s.slot)/4 {
		x.rebuild(sh, id, points)
	}
}

// rebuild copies a shard into an array with room for a third more than is live, and for
// IDs up to at least twice the given one.
func (x *exact[P]) rebuild(sh *shard, id ID, points structure[P]) *slots {
	old := sh.slots.Load()
	idBits := min(32, bits.Len64(2*uint64(id)+64))
	if old != nil {
		idBits = max(idBits, old.idBits)
	}
	if sh.live == 0 && old != nil && len(old.slot) > minSlots {
		sh.slots.Store(nil)
		sh.used = 0
		return nil
	}
	s := &slots{idBits: idBits, slot: make([]uint32, max(minSlots, (sh.live+1)*3/2))}
	if old != nil {
		n := 0
		move := func() {
			points.gather(x.ids[:n], &x.points)
			for i, id := range x.ids[:n] {
				s.put(x.hash(x.points[i]), id)
			}
			n = 0
		}
		for _, v := range old.slot {
			if v == emptySlot || v == vacatedSlot {
				continue
			}
			x.ids[n] = ID(v&(1<<old.idBits-1)) - firstID
			if n++; n == maxBatch {
				move()
			}
		}
		move()
	}
	sh.slots.Store(s)
	sh.used = sh.live
	return s
}

func (x *exact[P]) bytes() int64 {
	total := int64(unsafe.Sizeof(*x))
	for i := range x.shard {
		if s := x.shard[i].slots.Load(); s != nil {
			total += int64(unsafe.Sizeof(*s)) + int64(cap(s.slot))*4
		}
	}
	return total
}
