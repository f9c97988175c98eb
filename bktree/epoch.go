package bktree

import (
	"math"
	"sync/atomic"
)

// readers lets a writer know when nobody can still be looking at what it has
// taken out. A reader announces, before it looks at anything, the epoch in which
// it began, and takes the announcement back when it has finished. A writer takes
// a thing out of reach, ends the epoch, and may use the thing again as soon as
// every announced reader began later. Nobody waits for anybody.
//
// A reader that read the epoch and was put to sleep before it announced it does
// no harm: it has looked at nothing yet, and the writer that did not see it had
// taken the thing out of reach before.
type readers struct {
	epoch atomic.Uint64
	head  atomic.Pointer[reader] // all readers there ever were; never unlinked
}

// reader is one announcement, and what a search keeps for the next one. There are as many as
// ever searched at the same time. The announcement has a cache line to itself, so that
// readers on different processors do not slow each other down.
type reader struct {
	since atomic.Uint64 // 0: idle
	_     [56]byte
	next  *reader // set before the reader is linked
	nearest
	either *[2][maxAsked]nearest // of NearEither
}

// enter announces a reader. The hint, which may be nil, is one that the caller
// used before and is probably free: it saves the search for another.
func (rs *readers) enter(hint *reader) *reader {
	now := rs.epoch.Load() + 1
	if hint != nil && hint.since.CompareAndSwap(0, now) {
		return hint
	}
	for r := rs.head.Load(); r != nil; r = r.next {
		if r.since.Load() == 0 && r.since.CompareAndSwap(0, now) {
			return r
		}
	}
	r := new(reader)
	r.since.Store(now)
	for {
		r.next = rs.head.Load()
		if rs.head.CompareAndSwap(r.next, r) {
			return r
		}
	}
}

func (r *reader) exit() { r.since.Store(0) }

// retire ends an epoch and returns its number: what is out of reach now may be
// used again when oldest is larger.
func (rs *readers) retire() uint64 { return rs.epoch.Add(1) }

// oldest is the epoch in which the longest running reader began.
func (rs *readers) oldest() uint64 {
	oldest := uint64(math.MaxUint64)
	for r := rs.head.Load(); r != nil; r = r.next {
		if since := r.since.Load(); since != 0 {
			oldest = min(oldest, since)
		}
	}
	return oldest
}

// limbo holds memory that is out of reach, until no reader can be looking at it.
type limbo struct {
	readers *readers
	waiting []retired // in the order of their epochs
	bytes   int64
}

type retired struct {
	epoch uint64
	mem   *region
}

// add takes memory that no reader who begins from now on can reach.
func (l *limbo) add(mem *region) {
	l.waiting = append(l.waiting, retired{l.readers.retire(), mem})
	l.bytes += mem.bytes()
}

// atOnce is about how many bytes are given back in one call of reclaim: where they are in small pages that takes
// tens of milliseconds for a gigabyte.
const atOnce = 64 << 20

// reclaim frees what no reader can be looking at, or some of it.
func (l *limbo) reclaim() {
	if len(l.waiting) == 0 {
		return
	}
	oldest := l.readers.oldest()
	n := 0
	for before := l.bytes; n < len(l.waiting) && l.waiting[n].epoch < oldest && before-l.bytes < atOnce; n++ {
		l.bytes -= l.waiting[n].mem.bytes()
		l.waiting[n].mem.free()
	}
	rest := copy(l.waiting, l.waiting[n:])
	clear(l.waiting[rest:])
	l.waiting = l.waiting[:rest]
}
