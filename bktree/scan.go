package bktree

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"unsafe"
)

const (
	chunkBits  = 12
	chunkSlots = 1 << chunkBits // 32 KiB of Point64, 128 KiB of Point256
)

// scan compares the query with every point. Points lie in chunks, the point
// with ID i in slot i%chunkSlots of chunk i/chunkSlots, and never move: so a
// lookup that goes from chunk to chunk misses none, although it holds the
// lock of one chunk at a time, for some eight microseconds.
//
// A lock for each chunk is the simple choice: taking it costs a hundredth of
// the chunk's scan. Without locks every word would have to be an atomic and
// every slot that is used again would need a version to detect a torn read.
type scan[P Point] struct {
	// chunks is replaced, by keep alone, with a longer slice over the same
	// array where it has room; a reader never looks past its own length.
	chunks atomic.Pointer[[]*chunk[P]]
}

type chunk[P Point] struct {
	mu     sync.RWMutex // guards what follows
	points []P          // grows to chunkSlots; nil when nothing is live
	live   [chunkSlots / 64]uint64
	n      int // bits set in live
}

func newScan[P Point]() *scan[P] {
	s := new(scan[P])
	s.chunks.Store(new([]*chunk[P]))
	return s
}

func (s *scan[P]) expect(P)       {}
func (s *scan[P]) file([]ID, []P) {}
func (s *scan[P]) suspend()       {}
func (s *scan[P]) resume()        {}

func (s *scan[P]) gather(ids []ID, into *[maxBatch]P) {
	for i, id := range ids {
		into[i], _ = s.at(id)
	}
}

func (s *scan[P]) keep(id ID, p P) {
	chunks := *s.chunks.Load()
	if int(id>>chunkBits) == len(chunks) {
		chunks = append(chunks, new(chunk[P]))
		s.chunks.Store(&chunks)
	}
	c := chunks[id>>chunkBits]
	slot := int(id % chunkSlots)
	c.mu.Lock()
	defer c.mu.Unlock()
	if slot >= cap(c.points) {
		// By doubling, so that an index of ten points does not take 128 KiB.
		bigger := make([]P, slot+1, min(chunkSlots, max(16, 2*cap(c.points), slot+1)))
		copy(bigger, c.points)
		c.points = bigger
	} else if slot >= len(c.points) {
		c.points = c.points[:slot+1]
	}
	c.points[slot] = p
	c.live[slot>>6] |= 1 << (slot & 63)
	c.n++
}

func (s *scan[P]) drop(id ID, _ P) {
	c := (*s.chunks.Load())[id>>chunkBits]
	slot := int(id % chunkSlots)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.live[slot>>6] &^= 1 << (slot & 63)
	if c.n--; c.n == 0 {
		c.points = nil
	}
}

func (s *scan[P]) at(id ID) (p P, ok bool) {
	chunks := *s.chunks.Load()
	if int(id>>chunkBits) >= len(chunks) {
		return p, false
	}
	c := chunks[id>>chunkBits]
	slot := int(id % chunkSlots)
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.live[slot>>6]>>(slot&63)&1 == 0 {
		return p, false
	}
	return c.points[slot], true
}

func (s *scan[P]) near(q P, into *nearest) {
	for i, c := range *s.chunks.Load() {
		c.mu.RLock()
		switch points := any(&c.points).(type) {
		case *[]Point64:
			near64(*points, *any(&q).(*Point64), c.live[:], ID(i<<chunkBits), into)
		case *[]Point256:
			near256(*points, any(&q).(*Point256), c.live[:], ID(i<<chunkBits), into)
		}
		c.mu.RUnlock()
	}
}

func near64(points []Point64, q Point64, live []uint64, base ID, into *nearest) {
	radius := into.radius
	for i, p := range points {
		n := bits.OnesCount64(uint64(p ^ q))
		if n <= radius && live[i>>6]>>(i&63)&1 != 0 {
			into.add(base+ID(i), n)
			radius = into.radius
		}
	}
}

// halfway is the largest radius at which a point is judged after half of its
// words. Half of an unrelated point's bits differ: 64 +- 5.7 of the first 128,
// so up to here the branch nearly always goes the same way.
const halfway = 40

func near256(points []Point256, q *Point256, live []uint64, base ID, into *nearest) {
	q0, q1, q2, q3 := q[0], q[1], q[2], q[3]
	radius := into.radius
	if radius > halfway {
		for i := range points {
			p := &points[i]
			n := bits.OnesCount64(p[0]^q0) + bits.OnesCount64(p[1]^q1) +
				bits.OnesCount64(p[2]^q2) + bits.OnesCount64(p[3]^q3)
			if n <= radius && live[i>>6]>>(i&63)&1 != 0 {
				into.add(base+ID(i), n)
				radius = into.radius
			}
		}
		return
	}
	for i := range points {
		p := &points[i]
		n := bits.OnesCount64(p[0]^q0) + bits.OnesCount64(p[1]^q1)
		if n > radius {
			continue
		}
		n += bits.OnesCount64(p[2]^q2) + bits.OnesCount64(p[3]^q3)
		if n <= radius && live[i>>6]>>(i&63)&1 != 0 {
			into.add(base+ID(i), n)
			radius = into.radius
		}
	}
}

func (s *scan[P]) bytes() int64 {
	var point P
	chunks := *s.chunks.Load()
	total := int64(cap(chunks)) * int64(unsafe.Sizeof(uintptr(0)))
	for _, c := range chunks {
		c.mu.RLock()
		total += int64(unsafe.Sizeof(*c)) + int64(cap(c.points))*int64(unsafe.Sizeof(point))
		c.mu.RUnlock()
	}
	return total
}
