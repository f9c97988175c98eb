package bktree

import (
	"math/bits"
	"sync/atomic"
	"unsafe"
)

// store keeps the points by their IDs, in segments of two mebibytes: growth copies
// nothing, except while there is less than one segment, which doubles.
//
// Readers need no lock, but must be announced (see readers) while they use a
// point: its slot is not used for another before they have finished. A slot that is
// not live may be written to and must not be read.
type store[P Point] struct {
	segments atomic.Pointer[[]*segment[P]] // replaced as a whole; nil elements are empty
	limbo    *limbo
	held     int64 // bytes in segments
}

// segment holds the points whose IDs differ in their lower bits only.
type segment[P Point] struct {
	points []P
	live   []uint64 // read atomically; bit i: slot i has a point
	n      int      // bits set in live; the writer's
	mem    *region
}

const segmentBytes = hugePage

func segmentBits[P Point]() int {
	var p P
	return bits.TrailingZeros(uint(segmentBytes / unsafe.Sizeof(p)))
}

func newStore[P Point](l *limbo) *store[P] {
	s := &store[P]{limbo: l}
	s.segments.Store(new([]*segment[P]))
	return s
}

func (s *store[P]) newSegment(slots int) *segment[P] {
	var p P
	mem := newRegion(slots * int(unsafe.Sizeof(p)) / 8)
	seg := &segment[P]{points: view[P](mem, 0, slots), live: make([]uint64, (slots+63)/64), mem: mem}
	s.held += seg.bytes()
	return seg
}

func (seg *segment[P]) bytes() int64 { return seg.mem.bytes() + int64(len(seg.live))*8 }

// put stores a point. Whoever learns the ID afterwards finds it.
func (s *store[P]) put(id ID, p P) {
	shift := segmentBits[P]()
	at, slot := int(id>>shift), int(id)&(1<<shift-1)
	segments := *s.segments.Load()
	if at >= len(segments) || segments[at] == nil || slot >= len(segments[at].points) {
		slots := 1 << shift
		if at == 0 {
			slots = min(slots, max(minSegment, 2<<bits.Len(uint(slot))))
		}
		s.replace(at, s.newSegment(slots))
		segments = *s.segments.Load()
	}
	seg := segments[at]
	seg.points[slot] = p
	publish(&seg.live[slot>>6], seg.live[slot>>6]|1<<(slot&63))
	seg.n++
}

// minSegment is the least number of slots of the first segment.
const minSegment = 1024

func (s *store[P]) drop(id ID) {
	shift := segmentBits[P]()
	at, slot := int(id>>shift), int(id)&(1<<shift-1)
	seg := (*s.segments.Load())[at]
	publish(&seg.live[slot>>6], seg.live[slot>>6]&^(1<<(slot&63)))
	seg.n--
	if seg.n == 0 {
		s.replace(at, nil)
		return
	}
	// The first segment gets smaller again, once nothing is left in the upper
	// three quarters.
	if slots := len(seg.points); at == 0 && slots > minSegment && seg.n <= slots/8 {
		for w := len(seg.live) - 1; w >= slots/256; w-- {
			if seg.live[w] != 0 {
				return
			}
		}
		s.replace(at, s.newSegment(slots/4))
	}
}

// replace puts a segment, or none, in the place of another, whose live points it copies.
// A reader that still has the old one finds there what was live when it began.
func (s *store[P]) replace(at int, seg *segment[P]) {
	old := *s.segments.Load()
	segments := make([]*segment[P], max(len(old), at+1))
	copy(segments, old)
	was := segments[at]
	segments[at] = seg
	if was != nil && seg != nil {
		n := min(len(was.points), len(seg.points))
		copy(seg.points, was.points[:n])
		copy(seg.live, was.live[:n/64])
		seg.n = was.n
	}
	s.segments.Store(&segments)
	if was != nil {
		s.retire(was)
	}
}

func (s *store[P]) retire(seg *segment[P]) {
	s.held -= seg.bytes()
	s.limbo.add(seg.mem)
}

// at returns the point with an ID, if it is live.
func (s *store[P]) at(id ID) (p P, ok bool) {
	shift := segmentBits[P]()
	segments := *s.segments.Load()
	at, slot := int(id>>shift), int(id)&(1<<shift-1)
	if at >= len(segments) || segments[at] == nil || slot >= len(segments[at].points) {
		return p, false
	}
	seg := segments[at]
	if atomic.LoadUint64(&seg.live[slot>>6])>>(slot&63)&1 == 0 {
		return p, false
	}
	return seg.points[slot], true
}

// gather reads points that are live, all at once: to wait for each would take longer.
func (s *store[P]) gather(ids []ID, into *[maxBatch]P) {
	shift := segmentBits[P]()
	segments := *s.segments.Load()
	for _, id := range ids {
		fetchLine(unsafe.Pointer(&segments[id>>shift].points[id&(1<<shift-1)]))
	}
	for i, id := range ids {
		into[i] = segments[id>>shift].points[id&(1<<shift-1)]
	}
}

// scan compares the query with every live point.
func (s *store[P]) scan(q P, into *nearest) {
	shift := segmentBits[P]()
	for at, seg := range *s.segments.Load() {
		if seg == nil {
			continue
		}
		for w := range seg.live {
			live := atomic.LoadUint64(&seg.live[w])
			if live == 0 {
				continue
			}
			base := ID(at<<shift + w<<6)
			if live != 1<<64-1 || len(seg.points) < w<<6+64 {
				for ; live != 0; live &= live - 1 {
					i := bits.TrailingZeros64(live)
					if d := Distance(q, seg.points[w<<6+i]); d <= into.radius {
						into.add(base+ID(i), d)
					}
				}
				continue
			}
			switch points := any(&seg.points).(type) {
			case *[]Point64:
				scan64((*[64]Point64)((*points)[w<<6:]), *any(&q).(*Point64), base, into)
			case *[]Point256:
				scan256((*[64]Point256)((*points)[w<<6:]), any(&q).(*Point256), base, into)
			}
		}
	}
}

func scan64(points *[64]Point64, q Point64, base ID, into *nearest) {
	radius := into.radius
	for i, p := range points {
		if d := bits.OnesCount64(uint64(p ^ q)); d <= radius {
			into.add(base+ID(i), d)
			radius = into.radius
		}
	}
}

// scan256 judges a point after half of its words while the radius is small; see
// halfway.
func scan256(points *[64]Point256, q *Point256, base ID, into *nearest) {
	q0, q1, q2, q3 := q[0], q[1], q[2], q[3]
	radius := into.radius
	half := radius
	if radius > halfway {
		half = 128
	}
	for i := range points {
		p := &points[i]
		d := bits.OnesCount64(p[0]^q0) + bits.OnesCount64(p[1]^q1)
		if d > half {
			continue
		}
		d += bits.OnesCount64(p[2]^q2) + bits.OnesCount64(p[3]^q3)
		if d <= radius {
			into.add(base+ID(i), d)
			radius = into.radius
		}
	}
}
