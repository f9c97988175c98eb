package bktree

import (
	"math/bits"
	"runtime"
	"sync"
	"unsafe"
)

// inFlight is how many buckets of each kind are fetched ahead while points are filed.
const inFlight = 64

func (m *multi[P]) keep(id ID, p P) {
	m.end = max(m.end, int(id)+1)
	m.store.put(id, p)
}

// file puts points into the tables. That means to write to three cache lines in each of
// sixteen tables, none of which is near: so the buckets are fetched first, then, by their
// counts, the lanes, and then they are written to.
func (m *multi[P]) file(ids []ID, points []P) {
	if len(ids) == 0 {
		return
	}
	m.n.Add(int64(len(ids)))
	if m.level >= 0 && uint64(m.end) >= 1<<m.idBits {
		// No lane can hold such an ID. With IDs as dense as they are given, tables grow
		// before that: it takes readers that for long keep many IDs from being given again.
		m.stop()
		m.fill(levelFor(int(m.n.Load())), runtime.GOMAXPROCS(0))
	} else if m.level >= 0 {
		for i := range points {
			cut(&points[i], &m.cuts[i])
		}
		cuts := m.cuts[:len(points)]
		ahead := (inFlight + len(ids) - 1) / len(ids) // words
		for c := -2 * ahead; c < m.words; c++ {
			if next := c + 2*ahead; next < m.words {
				m.expectBuckets(next, cuts)
			}
			if next := c + ahead; next >= 0 && next < m.words {
				m.expectLanes(next, cuts)
			}
			if c >= 0 {
				t := m.tables[c].Load()
				for i := range cuts {
					t.file(c, &cuts[i], ids[i])
				}
			}
		}
		if b := m.build; b != nil {
			for i := range cuts {
				if b.from.address(cuts[i][b.word]) < b.next {
					b.to.file(b.word, &cuts[i], ids[i])
				}
			}
		}
	}
	m.tend(len(ids))
}

// file adds a point, of which these are the words, to the table of word c.
func (t *table) file(c int, w *[maxWords + 2]uint16, id ID) {
	t.put(t.address(w[c]), w[c+1], t.entry(id, w[c+2]))
}

func (m *multi[P]) expectBuckets(c int, cuts [][maxWords + 2]uint16) {
	if !m.kernel.fetches {
		return
	}
	t := m.tables[c].Load()
	for i := range cuts {
		fps, _ := t.lineOf(t.address(cuts[i][c]))
		ownLine(fps)
	}
}

func (m *multi[P]) expectLanes(c int, cuts [][maxWords + 2]uint16) {
	if !m.kernel.fetches {
		return
	}
	t := m.tables[c].Load()
	for i := range cuts {
		fps, ids := t.lineOf(t.address(cuts[i][c]))
		lane := min(int(*(*uint16)(fps)&^vacated)+1, t.capacity())
		if lane >= lanes {
			ownLine(unsafe.Add(fps, lane*2))
		}
		ownLine(unsafe.Add(ids, lane*4))
	}
}

func (m *multi[P]) suspend() {
	m.suspended = true
	if m.level >= 0 {
		m.stop()
	}
}

func (m *multi[P]) resume() {
	if !m.suspended {
		return
	}
	m.suspended = false
	if n := int(m.n.Load()); n >= m.from {
		m.fill(levelFor(n), runtime.GOMAXPROCS(0))
	}
	m.tend(0)
}

// filed is a point on its way to one table: its word, the next one, and its entry.
type filed struct {
	word, fp uint16
	entry    uint32
}

// bins collect entries by the upper half of their word, until there are enough of
// one kind.
type bins struct {
	points []filed
	size   int // of a bin
	used   [binCount]int
}

const (
	binBits  = 8
	binCount = 1 << binBits
	maxBin   = 4096
)

func newBins(points int) *bins {
	size := min(max(points/binCount, 16), maxBin)
	return &bins{size: size, points: make([]filed, binCount*size)}
}

// fill makes all tables of what is in the store.
func (m *multi[P]) fill(level, workers int) {
	n := int(m.n.Load())
	next := make(chan int, m.words)
	for c := range m.words {
		next <- c
	}
	close(next)
	var fresh [maxWords]*table
	m.idBits = m.idBitsFor(level)
	var wait sync.WaitGroup
	for range min(workers, m.words) {
		wait.Go(func() {
			b := newBins(n)
			for c := range next {
				fresh[c] = newTable(levels[level], m.idBits)
				m.store.fill(fresh[c], c, b)
			}
		})
	}
	wait.Wait()
	m.level = level
	for c := range m.words {
		m.tables[c].Store(fresh[c])
	}
}

// fill puts all points into the table of word c, in which nobody looks yet. Point after
// point that would be to write all over the table, and to wait for memory each
// time. The buckets for one bin fit the processor's own cache.
func (s *store[P]) fill(t *table, c int, b *bins) {
	var p P
	per := int(unsafe.Sizeof(p)) / 8 // 64-bit words in a point, of four 16-bit words each
	next, after := (c+1)%(4*per), (c+2)%(4*per)
	shift := segmentBits[P]()
	for at, seg := range *s.segments.Load() {
		if seg == nil {
			continue
		}
		words := unsafe.Slice((*uint64)(unsafe.Pointer(&seg.points[0])), len(seg.points)*per)
		for w, live := range seg.live {
			for ; live != 0; live &= live - 1 {
				slot := w<<6 + bits.TrailingZeros64(live)
				e := filed{
					word:  uint16(words[slot*per+c>>2] >> (c & 3 * wordBits)),
					fp:    uint16(words[slot*per+next>>2] >> (next & 3 * wordBits)),
					entry: t.entry(ID(at<<shift+slot), uint16(words[slot*per+after>>2]>>(after&3*wordBits))),
				}
				bin := int(e.word >> (wordBits - binBits))
				b.points[bin*b.size+b.used[bin]] = e
				if b.used[bin]++; b.used[bin] == b.size {
					b.empty(t, bin)
				}
			}
		}
	}
	for bin := range b.used {
		b.empty(t, bin)
	}
}

func (b *bins) empty(t *table, bin int) {
	for _, e := range b.points[bin*b.size:][:b.used[bin]] {
		t.put(t.address(e.word), e.fp, e.entry)
	}
	b.used[bin] = 0
}
