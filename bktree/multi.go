package bktree

import (
	"math/bits"
	"sync/atomic"
	"unsafe"
)

// multi is the index over words that the package comment tells of: all points in
// a store, and for each word of the ring a table of them by that word. With few
// points there are no tables, and the store is scanned.
//
// One writer at a time; readers take no lock but must be announced. A reader
// takes each table as it finds it: every one is complete for the points whose Insert
// returned before.
type multi[P Point] struct {
	store  *store[P]
	limbo  *limbo
	kernel kernel
	words  int
	from   int // tablesFrom and tablesUntil, but in tests
	until  int
	always bool                            // search the tables even if the scan is cheaper; for tests
	tables [maxWords]atomic.Pointer[table] // nil: none, scan; all are or none, but for moments
	n      atomic.Int64                    // points

	// The writer's:
	level     int // index in levels that the tables are to have; -1: none
	end       int // IDs from here on were never given
	idBits    int // the fewest of any table, while there are tables
	build     *build
	bins      *bins                          // nil but while there are tables to fill
	cuts      [maxBatch][maxWords + 2]uint16 // of file
	suspended bool
}

// build is a table on its way to a level with as many buckets, or to the same. Bucket by bucket, from the first, the
// entries are copied; what is filed and dropped meanwhile goes to both where the
// bucket is copied already. When it is done, the new table takes the place of the old.
type build struct {
	word     int
	from, to *table
	next     int // buckets of from below this are copied
}

// levels are the shapes of a table, by growing capacity. From a level to the next the
// buckets get longer by a line, which is cheap, as entries keep their place;
// now and then they get eight times as many, which means to look at every point again.
var levels = func() []level {
	l := []level{{7, 1}, {7, 2}, {7, 3}, {10, 1}, {10, 2}, {10, 3}, {13, 1}, {13, 2}, {13, 3}}
	for lines := 1; lines <= maxLines; lines += 1 + lines/8 {
		l = append(l, level{wordBits, lines})
	}
	return l
}()

const maxLines = 512 // 2^30 points

// fits is how many points a level is meant for. With evenly spread words 1 bucket in
// 300 or fewer is full then: the mean is 2.6 standard deviations or more below the capacity.
func (l level) fits() int {
	c := l.capacity()
	root := 0
	for (root+1)*(root+1) <= c {
		root++
	}
	return (c - root*5/2) << l.bits
}

const (
	// From this many points on a search of the tables is faster at the usual radii.
	tablesFrom = 1500
	// And below this many they are given up: what lies between saves
	// building them again and again.
	tablesUntil = 300
	// Entries copied, or empty buckets passed, for each point filed or dropped during a
	// build. From 18 points a bucket to 158, growing to the next level means to copy at most 89
	// entries for each point that arrives before the one after it is due.
	pace = 96
)

func newMulti[P Point](rs *readers) *multi[P] {
	var p P
	l := &limbo{readers: rs}
	return &multi[P]{
		store:  newStore[P](l),
		limbo:  l,
		kernel: best,
		words:  int(unsafe.Sizeof(p)) / 2,
		from:   tablesFrom,
		until:  tablesUntil,
		level:  -1,
	}
}

func (m *multi[P]) at(id ID) (P, bool) { return m.store.at(id) }

func (m *multi[P]) gather(ids []ID, into *[maxBatch]P) { m.store.gather(ids, into) }

// expect fetches what drop is going to write to.
func (m *multi[P]) expect(p P) {
	if !m.kernel.fetches || m.level < 0 {
		return
	}
	var w [maxWords + 2]uint16
	cut(&p, &w)
	n := int(m.n.Load())
	for c := range m.words {
		t := m.tables[c].Load()
		fps, ids := t.lineOf(t.address(w[c]))
		fetchLine(fps)
		lane := min(n>>t.bits+1, t.capacity())
		fetchLine(unsafe.Add(ids, lane*4))
		if t.lines > 1 {
			fetchLine(unsafe.Add(fps, lane*2))
		}
	}
}

func (m *multi[P]) drop(id ID, p P) {
	if m.level >= 0 {
		var w [maxWords + 2]uint16
		cut(&p, &w)
		for c := range m.words {
			t := m.tables[c].Load()
			t.remove(t.address(w[c]), id)
		}
		if b := m.copied(&w); b != nil {
			b.to.remove(b.to.address(w[b.word]), id)
		}
	}
	m.n.Add(-1)
	m.store.drop(id)
	m.tend(1)
}

// copied returns the build under way if it has passed the bucket of a point.
func (m *multi[P]) copied(w *[maxWords + 2]uint16) *build {
	if b := m.build; b != nil && b.from.address(w[b.word]) < b.next {
		return b
	}
	return nil
}

// tend sees to it that the tables have the right size, after some changes.
func (m *multi[P]) tend(changes int) {
	m.limbo.reclaim()
	if m.suspended {
		return
	}
	n := int(m.n.Load())
	switch {
	case m.level < 0:
		if n >= m.from {
			m.start(n)
		}
	case n < m.until:
		m.stop()
	case m.build != nil:
		m.advance(changes * pace)
	default:
		m.plan(n)
	}
}

// start makes the tables of what is in the store: at once, for it is little.
func (m *multi[P]) start(n int) { m.fill(levelFor(2*n), 1) }

// stop gives the tables up.
func (m *multi[P]) stop() {
	if m.build != nil {
		m.build.to.mem.free() // no reader has seen it
		m.build = nil
	}
	for c := range m.words {
		t := m.tables[c].Load()
		m.tables[c].Store(nil)
		m.limbo.add(t.mem)
	}
	m.level = -1
}

// levelFor returns the lowest level for n points.
func levelFor(n int) int {
	for i, l := range levels {
		if n <= l.fits() {
			return i
		}
	}
	return len(levels) - 1
}

// plan decides whether a table is to be built anew. A level is left upwards when it
// is full, and downwards when a quarter of the next lower one would do.
func (m *multi[P]) plan(n int) {
	if n > levels[m.level].fits() {
		m.level = min(m.level+1, len(levels)-1)
	} else if low := levelFor(4 * n); low < m.level {
		m.level = low
	}
	for c := range m.words {
		t := m.tables[c].Load()
		if t.level == levels[m.level] && (t.dead <= 1024 || t.dead <= t.live) {
			continue
		}
		if t.bits == levels[m.level].bits {
			// Entries are copied, and a tag cannot get longer so.
			to := newTable(levels[m.level], max(m.idBitsFor(m.level), t.idBits))
			m.build = &build{word: c, from: t, to: to}
			return
		}
		to := newTable(levels[m.level], m.idBitsFor(m.level))
		m.idBits = min(m.idBits, to.idBits)
		// All at once: writers wait for a few milliseconds, as there are at most
		// some 600,000 points then. Bucket by bucket it takes ten times as long.
		if m.bins == nil {
			m.bins = newBins(n)
		}
		m.store.fill(to, c, m.bins)
		m.tables[c].Store(to)
		m.limbo.add(t.mem)
		return
	}
	m.bins = nil
	m.idBits = m.tables[0].Load().idBits
	for c := range m.words {
		m.idBits = min(m.idBits, m.tables[c].Load().idBits)
	}
}

// idBitsFor returns how many bits of an entry are for the ID in a table of a level: so many
// that IDs are not used up before the next level is reached, which is at most a
// quarter further on when the last table of this one is replaced. The others are
// for the tag.
func (m *multi[P]) idBitsFor(level int) int {
	most := max(levels[level].fits()*5/4, m.end*9/8) + maxBatch
	return min(max(bits.Len(uint(most)), minIDBits), 32)
}

// advance goes on with a build.
func (m *multi[P]) advance(work int) {
	b := m.build
	for ; work > 0 && b.next < b.from.buckets(); b.next++ {
		work -= 1 + copyBucket(b)
	}
	if b.next < b.from.buckets() {
		return
	}
	m.tables[b.word].Store(b.to)
	m.limbo.add(b.from.mem)
	m.build = nil
	m.plan(int(m.n.Load()))
}

// copyBucket copies the next bucket and returns what that cost, in entries.
func copyBucket(b *build) int {
	from, to := b.from, b.to
	fps, ids := from.block(b.next)
	head := fingerprint(fps, 0)
	if head&vacated == 0 && ids[0] == 0 && int(head) <= to.capacity() && from.idBits == to.idBits {
		f, d := to.block(b.next)
		used := int(head) + 1
		copy(f, fps[:(used+3)/4])
		copy(d, ids[:used])
		to.live += int(head)
		return int(head) / 2
	}
	work := 0
	from.each(b.next, func(fp uint16, entry uint32) {
		tag := entry >> from.idBits >> (to.idBits - from.idBits)
		to.put(b.next, fp, uint32(from.id(entry))+1|tag<<to.idBits)
		work += 4
	})
	return work
}

func (m *multi[P]) bytes() int64 {
	total := m.store.bytes() + m.limbo.bytes + int64(unsafe.Sizeof(*m))
	for c := range m.words {
		if t := m.tables[c].Load(); t != nil {
			total += t.bytes()
		}
	}
	if m.build != nil {
		total += m.build.to.bytes()
	}
	return total
}

// word returns one word of a permuted point.
func word[P Point](p *P, c int) uint16 {
	switch p := any(p).(type) {
	case *Point64:
		return uint16(*p >> (c * wordBits))
	case *Point256:
		return uint16(p[c>>2] >> (c & 3 * wordBits))
	}
	panic("unreachable: Point has two members")
}

func (s *store[P]) bytes() int64 { return s.held + int64(cap(*s.segments.Load()))*8 }
