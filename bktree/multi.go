package bktree

import (
	"math/bits"
	"slices"
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
	levels []level
	from   int // tablesFrom and tablesUntil, but in tests
	until  int
	always bool                         // search the tables even if the scan is cheaper; for tests
	ring   atomic.Pointer[ring]         // nil: no tables, scan
	n      atomic.Int64                 // points
	odd    atomic.Pointer[oddPoints[P]] // nil: there are, or were, too many

	// The writer's:
	odds      int // points with an odd number of ones
	level     int // index in levels that the tables are to have; -1: none
	end       int // IDs from here on were never given
	idBits    int // the fewest of any table, while there are tables
	build     *build
	move      *move
	bins      *bins            // nil but while there are tables to fill
	cuts      [maxBatch]pieces // of file
	suspended bool
}

// ring is a table for each word, all with the same points.
type ring struct {
	cut    *cutting
	tables [maxWords]atomic.Pointer[table] // as many as there are words
}

// move is a ring on its way, of points that are cut in another way than those of the
// present one, whose place it takes when it is done. Point by point, in the order of IDs, they are filed
// in it. What is filed and dropped meanwhile goes to both where the ID was passed.
type move struct {
	to   *ring
	next int // IDs below this are filed

	// First the memory is had, a page at a time: to file the first few points would be to want all
	// of it at once, and wait for a second.
	word, page int // the next page, of the table of a word
}

// build is a table on its way to a level with as many buckets, or to the same. Bucket by bucket, from the first, the
// entries are copied; what is filed and dropped meanwhile goes to both where the
// bucket is copied already. When it is done, the new table takes the place of the old.
type build struct {
	word     int
	from, to *table
	next     int // buckets of from below this are copied
}

// levels64, levels256 and levelsFolded are the shapes of tables, by growing capacity. From a level to the next the
// buckets get longer by a line, which is cheap, as entries keep their place;
// now and then they get eight times as many, which means to look at every point again.
var (
	levels64     = levelsOf(four, maxLines)
	levels256    = levelsOf(sixteen, maxLines)
	levelsFolded = append(levelsOf(sixteen, 4), lengthening(thirteen, maxBits, maxLines/8)...)
)

const maxLines = 512 // 2^30 points

// levelsOf are those with 7, 10, 13 and 16 bits, the last with buckets of up to so many lines.
func levelsOf(k *cutting, most int) []level {
	return slices.Concat(lengthening(k, 7, 3), lengthening(k, 10, 3), lengthening(k, 13, 3), lengthening(k, 16, most))
}

func lengthening(k *cutting, bits, most int) (l []level) {
	for lines := 1; lines <= most; lines += 1 + lines/8 {
		l = append(l, level{k, bits, lines})
	}
	return l
}

// fits is how many points a level is meant for. With evenly spread words 1 bucket in
// 300 or fewer is full then: the mean is 2.6 standard deviations or more below the capacity. Folded
// tables are the large ones, and may be fuller: 1 bucket in 100 then is, and of those of narrow words, see of, 1 in 20.
func (l level) fits() int {
	c := l.capacity()
	root := 0
	for (root+1)*(root+1) <= c {
		root++
	}
	if l.cut.folded {
		return (c - root*9/4) << l.bits
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
	// IDs passed, free ones too, for each point filed or dropped during a move. It must end before IDs
	// outgrow the old tables: seven points are gained on each that arrives, so after a seventh more.
	movePace = 8
)

func newMulti[P Point](rs *readers) *multi[P] {
	l := &limbo{readers: rs}
	m := &multi[P]{
		store:  newStore[P](l),
		limbo:  l,
		kernel: best,
		levels: levels64,
		from:   tablesFrom,
		until:  tablesUntil,
		level:  -1,
	}
	m.odd.Store(new(oddPoints[P]))
	if _, wide := any(*new(P)).(Point256); wide {
		m.levels = levels256
	}
	return m
}

func (m *multi[P]) at(id ID) (P, bool) { return m.store.at(id) }

func (m *multi[P]) gather(ids []ID, into *[maxBatch]P) { m.store.gather(ids, into) }

// expect fetches what drop is going to write to.
func (m *multi[P]) expect(p P) {
	if !m.kernel.fetches || m.level < 0 {
		return
	}
	var w pieces
	r := m.ring.Load()
	cut(r.cut, &p, &w)
	n := int(m.n.Load())
	for c := range r.cut.words {
		t := r.tables[c].Load()
		bucket, _ := t.address(w[c])
		fps, ids := t.lineOf(bucket)
		fetchLine(fps)
		lane := min(n>>t.bits+1, t.capacity())
		fetchLine(unsafe.Add(ids, lane*4))
		if t.lines > 1 {
			fetchLine(unsafe.Add(fps, lane*2))
		}
	}
}

func (m *multi[P]) drop(id ID, p P) {
	m.dropOdd(id, p)
	if m.level >= 0 {
		var w pieces
		r := m.ring.Load()
		cut(r.cut, &p, &w)
		r.remove(&w, id)
		if b := m.build; b != nil && b.copied(&w) {
			b.to.remove(w[b.word], id)
		}
		if m.move != nil && int(id) < m.move.next {
			cut(m.move.to.cut, &p, &w)
			m.move.to.remove(&w, id)
		}
	}
	m.n.Add(-1)
	m.store.drop(id)
	m.tend(1)
}

func (r *ring) remove(w *pieces, id ID) {
	for c := range r.cut.words {
		r.tables[c].Load().remove(w[c], id)
	}
}

// copied reports whether a build has passed the bucket of a point.
func (b *build) copied(w *pieces) bool {
	bucket, _ := b.from.address(w[b.word])
	return bucket < b.next
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
	case m.move != nil:
		m.moveOn(changes * movePace)
	default:
		m.plan(n)
	}
}

// start makes the tables of what is in the store: at once, for it is little.
func (m *multi[P]) start(n int) { m.fill(m.levelFor(2*n), 1) }

// stop gives the tables up.
func (m *multi[P]) stop() {
	if m.build != nil {
		m.build.to.mapped((*region).free) // no reader has seen it
		m.build = nil
	}
	if m.move != nil {
		for c := range m.move.to.cut.words {
			m.move.to.tables[c].Load().mapped((*region).free)
		}
		m.move = nil
	}
	m.replace(nil)
	m.level = -1
}

// replace puts a ring, or none, in the place of the present one.
func (m *multi[P]) replace(r *ring) {
	was := m.ring.Swap(r)
	if was == nil {
		return
	}
	for c := range was.cut.words {
		was.tables[c].Load().mapped(m.limbo.add)
	}
}

// levelFor returns the lowest level for n points.
func (m *multi[P]) levelFor(n int) int {
	for i, l := range m.levels {
		if n <= l.fits() {
			return i
		}
	}
	return len(m.levels) - 1
}

// plan decides whether a table is to be built anew. A level is left upwards when it
// is full, and downwards when a quarter of the next lower one would do.
func (m *multi[P]) plan(n int) {
	if n > m.levels[m.level].fits() {
		m.level = min(m.level+1, len(m.levels)-1)
	} else if low := m.levelFor(4 * n); low < m.level {
		m.level = low
	}
	l, r := m.levels[m.level], m.ring.Load()
	if l.cut != r.cut {
		m.bins = nil
		idBits := m.idBitsFor(m.level)
		m.move = &move{to: newRing(l, idBits)}
		m.idBits = min(m.idBits, idBits)
		return
	}
	for c := range r.cut.words {
		t, shape := r.tables[c].Load(), l.of(c)
		if t.level == shape && (t.dead <= 1024 || t.dead <= t.live) {
			continue
		}
		if t.bits == shape.bits {
			// Entries are copied, and a tag cannot get longer so.
			to := newTable(shape, max(m.idBitsFor(m.level), t.idBits))
			m.build = &build{word: c, from: t, to: to}
			return
		}
		to := newTable(shape, m.idBitsFor(m.level))
		m.idBits = min(m.idBits, to.idBits)
		// All at once: writers wait for a few milliseconds, as there are at most
		// some 600,000 points then. Bucket by bucket it takes ten times as long.
		if m.bins == nil {
			m.bins = newBins(n, r.cut)
		}
		m.store.fill(to, c, m.bins)
		r.tables[c].Store(to)
		t.mapped(m.limbo.add)
		return
	}
	m.bins = nil
	m.idBits = r.tables[0].Load().idBits
	for c := range r.cut.words {
		m.idBits = min(m.idBits, r.tables[c].Load().idBits)
	}
}

// newRing returns one of empty tables.
func newRing(l level, idBits int) *ring {
	r := &ring{cut: l.cut}
	for c := range l.cut.words {
		r.tables[c].Store(newTable(l.of(c), idBits))
	}
	return r
}

// moveOn goes on with a move.
func (m *multi[P]) moveOn(points int) {
	var ids [maxBatch]ID
	var batch [maxBatch]P
	mv := m.move
	for ; mv.word < mv.to.cut.words; mv.word, mv.page = mv.word+1, 0 {
		if mv.to.tables[mv.word].Load().mem.touch(mv.page) {
			mv.page++
			return
		}
	}
	for points > 0 && mv.next < m.end {
		n := 0
		for ; n < maxBatch && points > 0 && mv.next < m.end; mv.next++ {
			if p, ok := m.store.at(ID(mv.next)); ok {
				ids[n], batch[n] = ID(mv.next), p
				n++
			}
			points-- // a free ID costs something, too
		}
		m.fileIn(mv.to, ids[:n], batch[:n])
	}
	if mv.next < m.end {
		return
	}
	m.move = nil
	m.replace(mv.to)
	m.plan(int(m.n.Load()))
}

// idBitsFor returns how many bits of an entry are for the ID in a table of a level: so many
// that IDs are not used up before the next level is reached, which is at most a
// quarter further on when the last table of this one is replaced, or the ring. The others are
// for the tag.
func (m *multi[P]) idBitsFor(level int) int {
	most := max(m.levels[level].fits()*5/4, m.end*9/8) + maxBatch
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
	m.ring.Load().tables[b.word].Store(b.to)
	b.from.mapped(m.limbo.add)
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
		copy(f, fps[:used/4]) // not in words that have spare tags of the new block
		for lane := used &^ 3; lane < used; lane++ {
			setFingerprint(f, lane, fingerprint(fps, lane))
		}
		copy(d, ids[:used])
		for lane := 1; lane < used && to.folded; lane++ {
			to.setSpareTag(f, lane, int(head), d[lane])
		}
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
	total := m.store.bytes() + m.limbo.bytes + int64(unsafe.Sizeof(*m)) + m.odd.Load().bytes()
	total += m.ring.Load().bytes()
	if m.build != nil {
		total += m.build.to.bytes()
	}
	if m.move != nil {
		total += m.move.to.bytes()
	}
	return total
}

func (r *ring) bytes() (total int64) {
	if r == nil {
		return 0
	}
	for c := range r.cut.words {
		total += r.tables[c].Load().bytes()
	}
	return total
}

func (s *store[P]) bytes() int64 { return s.held + int64(cap(*s.segments.Load()))*8 }
