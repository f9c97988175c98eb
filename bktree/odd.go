package bktree

import (
	"math/bits"
	"slices"
	"unsafe"
)

// oddPoints are all points with an odd number of ones, while they are few. Two points of which each has an even number are
// at an even distance, so with the odd ones apart to search within 31 of one of the others is to search the tables
// within 30, which is less work by an eighth, and to look at the odd ones. A PDQ hash says which coefficients are above
// their median, so half of its bits are ones: each of 3,148 photographs' had 128. Only pictures with many equal coefficients,
// such as blank ones, differ.
//
// They are in the tables as well, because they may become too many at any time. A search that takes them from here leaves those out.
// Not changed once readers have it.
type oddPoints[P Point] struct {
	points []P
	ids    []ID
}

// maxOdd is how many are kept apart: to look at them is not to cost more than a small part of a search.
const maxOdd = 256

func weighsOdd[P Point](p P) bool {
	switch p := any(&p).(type) {
	case *Point64:
		return bits.OnesCount64(uint64(*p))&1 == 1
	case *Point256:
		return bits.OnesCount64(p[0]^p[1]^p[2]^p[3])&1 == 1
	}
	panic("bktree: neither 64 nor 256 bits")
}

// noteOdd notes points that are about to be filed.
func (m *multi[P]) noteOdd(ids []ID, points []P) {
	was := m.odd.Load()
	more := was
	for i, p := range points {
		if !weighsOdd(p) {
			continue
		}
		if m.odds++; more == nil {
			continue
		}
		if len(more.ids) == maxOdd {
			more = nil
			continue
		}
		if more == was {
			more = &oddPoints[P]{slices.Clone(was.points), slices.Clone(was.ids)}
		}
		more.points, more.ids = append(more.points, p), append(more.ids, ids[i])
	}
	if more != was {
		m.odd.Store(more)
	}
}

// dropOdd forgets a point that is being dropped. Points that were too many are kept apart again when all of them are gone.
func (m *multi[P]) dropOdd(id ID, p P) {
	if !weighsOdd(p) {
		return
	}
	m.odds--
	was := m.odd.Load()
	if was == nil {
		if m.odds == 0 {
			m.odd.Store(new(oddPoints[P]))
		}
		return
	}
	at := slices.Index(was.ids, id)
	m.odd.Store(&oddPoints[P]{slices.Delete(slices.Clone(was.points), at, at+1), slices.Delete(slices.Clone(was.ids), at, at+1)})
}

func (o *oddPoints[P]) scan(q P, into *nearest) {
	for i, p := range o.points {
		if d := Distance(q, p); d <= into.radius {
			into.add(o.ids[i], d)
		}
	}
}

func (o *oddPoints[P]) bytes() int64 {
	if o == nil {
		return 0
	}
	return int64(cap(o.points))*int64(unsafe.Sizeof(*new(P))) + int64(cap(o.ids))*4
}
