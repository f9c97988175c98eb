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

// file puts points into the tables.
func (m *multi[P]) file(ids []ID, points []P) {
	if len(ids) == 0 {
		return
	}
	m.n.Add(int64(len(ids)))
	m.noteOdd(ids, points)
	if m.level >= 0 && uint64(m.end) >= 1<<m.idBits {
		// No lane can hold such an ID. With IDs as dense as they are given, tables grow
		// before that: it takes readers that for long keep many IDs from being given again.
		m.stop()
		m.fill(m.levelFor(int(m.n.Load())), runtime.GOMAXPROCS(0))
	} else if m.level >= 0 {
		m.fileIn(m.ring.Load(), ids, points)
		if b := m.build; b != nil {
			for i := range ids {
				if w := &m.cuts[i]; b.copied(w) {
					b.to.file(b.word, w, ids[i])
				}
			}
		}
		if m.move != nil {
			for i, id := range ids {
				if int(id) < m.move.next {
					m.fileIn(m.move.to, ids[i:i+1], points[i:i+1])
				}
			}
		}
	}
	m.tend(len(ids))
}

// fileIn puts points into the tables of a ring, and leaves their words in m.cuts. That means to write to
// three cache lines in each of the tables, none of which is near: so the buckets are fetched first, then, by their
// counts, the lanes, and then they are written to.
func (m *multi[P]) fileIn(r *ring, ids []ID, points []P) {
	if len(ids) == 0 {
		return
	}
	cuts, words := m.cuts[:len(points)], r.cut.words
	for i := range points {
		cut(r.cut, &points[i], &cuts[i])
	}
	ahead := (inFlight + len(ids) - 1) / len(ids) // words
	for c := -2 * ahead; c < words; c++ {
		if next := c + 2*ahead; next < words && m.kernel.fetches {
			r.tables[next].Load().expectBuckets(next, cuts)
		}
		if next := c + ahead; next >= 0 && next < words && m.kernel.fetches {
			r.tables[next].Load().expectLanes(next, cuts)
		}
		if c >= 0 {
			t := r.tables[c].Load()
			for i := range cuts {
				t.file(c, &cuts[i], ids[i])
			}
		}
	}
}

// file adds a point, of which these are the words, to the table of word c.
func (t *table) file(c int, w *pieces, id ID) {
	bucket, turn := t.address(w[c])
	fp, following := t.cut.fingerprint(w, c)
	t.put(bucket, fp^turn, t.entry(id, following^turn))
}

func (t *table) expectBuckets(c int, cuts []pieces) {
	for i := range cuts {
		bucket, _ := t.address(cuts[i][c])
		fps, _ := t.lineOf(bucket)
		ownLine(fps)
	}
}

func (t *table) expectLanes(c int, cuts []pieces) {
	for i := range cuts {
		bucket, _ := t.address(cuts[i][c])
		fps, ids := t.lineOf(bucket)
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
		m.fill(m.levelFor(n), runtime.GOMAXPROCS(0))
	}
	m.tend(0)
}

// filed is a point on its way to one table.
type filed struct {
	low   uint16 // the bucket's bits below those that choose the bin
	fp    uint16
	entry uint32
}

// bins collect entries by the first bits of their bucket, until there are enough of
// one kind.
type bins struct {
	points []filed
	size   int // of a bin
	used   [binCount]int
}

const (
	binBits  = 8
	binCount = 1 << binBits
	// Entries in a bin at most, by trial. Of folded tables a bin has eight times as many buckets.
	maxBin       = 4096
	maxBinFolded = 8192
)

func newBins(points int, k *cutting) *bins {
	most := maxBin
	if k.folded {
		most = maxBinFolded
	}
	size := min(max(points/binCount, 16), most)
	return &bins{size: size, points: make([]filed, binCount*size)}
}

// fill makes all tables of what is in the store.
func (m *multi[P]) fill(level, workers int) {
	n := int(m.n.Load())
	m.level, m.idBits = level, m.idBitsFor(level)
	r := newRing(m.levels[level], m.idBits)
	next := make(chan int, r.cut.words)
	for c := range r.cut.words {
		next <- c
	}
	close(next)
	var wait sync.WaitGroup
	for range min(workers, r.cut.words) {
		wait.Go(func() {
			b := newBins(n, r.cut)
			for c := range next {
				m.store.fill(r.tables[c].Load(), c, b)
			}
		})
	}
	wait.Wait()
	m.replace(r)
}

// fill puts all points into the table of word c, in which nobody looks yet. Point after
// point that would be to write all over the table, and to wait for memory each
// time. The buckets for one bin fit the processor's own cache.
func (s *store[P]) fill(t *table, c int, b *bins) {
	var p P
	per := int(unsafe.Sizeof(p)) / 8 // 64-bit words in a point
	k := t.cut
	next, after := (c+1)%k.words, (c+2)%k.words
	shift := segmentBits[P]()
	below := max(t.bits-binBits, 0)
	for at, seg := range *s.segments.Load() {
		if seg == nil {
			continue
		}
		words := unsafe.Slice((*uint64)(unsafe.Pointer(&seg.points[0])), len(seg.points)*per)
		for w, live := range seg.live {
			for ; live != 0; live &= live - 1 {
				slot := w<<6 + bits.TrailingZeros64(live)
				point := words[slot*per:][:per]
				bucket, turn := t.address(k.piece(point, c))
				fp, following := k.beside(k.piece(point, next), k.piece(point, after), c)
				bin := bucket >> below
				e := filed{
					low:   uint16(bucket - bin<<below),
					fp:    fp ^ turn,
					entry: t.entry(ID(at<<shift+slot), following^turn),
				}
				b.points[bin*b.size+b.used[bin]] = e
				if b.used[bin]++; b.used[bin] == b.size {
					b.empty(t, bin, below)
				}
			}
		}
	}
	for bin := range b.used {
		b.empty(t, bin, below)
	}
}

func (b *bins) empty(t *table, bin, below int) {
	for _, e := range b.points[bin*b.size:][:b.used[bin]] {
		t.put(bin<<below+int(e.low), e.fp, e.entry)
	}
	b.used[bin] = 0
}
