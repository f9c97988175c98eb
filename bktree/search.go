package bktree

import (
	"math"
	"math/bits"
	"sync/atomic"
	"unsafe"
)

// search is what a search of the tables needs besides what it finds; kept between searches.
type search struct {
	sweeps   []sweep  // one for each word that is looked up, and in folded tables two
	opposite *nearest // gets what is near the complement of the query, if that is asked for

	at           []uintptr // buckets of all sweeps, in the order in which they are looked at
	listed       int       // of at
	listedSweeps int

	hits       []hit
	full       [maxFlips]uint32 // of the kernel
	shells     shells
	fulls      []full
	lanes      []lane
	candidates []candidate
	budget     int // candidates left before giving up

	// Of chain: fields, because what a kernel is given escapes.
	block   sweep
	blockAt uintptr
	flip    uint32
	more    [1]uint32 // what of full is for a kernel with one block
	none    [1]uint32 // always 0
}

// full is a full bucket, or a block of those that it goes on in.
type full struct {
	block int
	sweep int
	allow int // bits by which fingerprints may differ
}

// lane is one whose fingerprint passed the filter.
type lane struct {
	at    uint32 // of the table's entries
	sweep uint8
	allow int8 // bits by which the rest of the next word may differ
}

// candidate is a point whose tag passed as well.
type candidate struct {
	id    ID
	sweep uint32
}

const (
	// Buckets that a kernel is given at a time, which bounds the room for hits, and
	// how long a goroutine cannot be preempted.
	maxFlips = 256
	// Candidates collected before they are verified: enough for their memory accesses to overlap.
	maxCandidates = 256
	// Lines fetched ahead of the bucket that the kernel is at, and buckets at most.
	// The processor keeps few more on their way.
	linesAhead   = 64
	bucketsAhead = 32
)

// Estimates, in nanoseconds, on the machine of the package comment. Only their
// ratios count, and only for sets and radii where it is a near thing.
const (
	costQuery     = 300 // of a search of the tables, whatever it finds
	costBucket    = 5   // of looking at a bucket of one line
	costLine      = 3   // of each further line
	costCandidate = 25  // of verifying one
	costPoint64   = 0.6 // of a point in the scan
	costPoint256  = 1.1
	costWhole256  = 1.8 // beyond the radius where half of a point decides
)

// costScan is what a scan of one point costs.
func (k *cutting) costScan(radius int) float64 {
	switch {
	case k == four:
		return costPoint64
	case radius <= halfway:
		return costPoint256
	}
	return costWhole256
}

func (m *multi[P]) near(q P, into *nearest) { m.search(q, into, nil) }

// nearEither is near, and opposite gets what is near the complement of q. At radii of half the
// bits and more a point may be near both, which a single search does not tell.
func (m *multi[P]) nearEither(q P, into, opposite *nearest) {
	if r := m.ring.Load(); r != nil && r.cut.folded && into.radius < width[P]()/2 {
		m.search(q, into, opposite)
		return
	}
	m.search(q, into, nil)
	opposite.search = into.search
	m.search(complement(q), opposite, nil)
}

func (m *multi[P]) search(q P, into, opposite *nearest) {
	if into.search == nil {
		into.search = new(search)
	}
	s := into.search
	s.opposite = opposite
	start, radius := into.start, into.radius
	r := m.ring.Load()
	if r == nil || opposite != nil && !r.cut.folded || !m.prepare(q, r, radius, s) {
		m.scan(q, into, opposite)
	} else if !m.sweep(q, r, s, into) {
		// A crowd round the query, of which every point is a candidate in many
		// words. What was found so far is found again.
		into.begin(radius, into.limit, into.found[:start])
		if opposite != nil {
			opposite.begin(radius, 0, opposite.found[:opposite.start])
		}
		m.scan(q, into, opposite)
	}
	s.forget()
}

func (m *multi[P]) scan(q P, into, opposite *nearest) {
	m.store.scan(q, into)
	if opposite != nil {
		m.store.scan(complement(q), opposite)
	}
}

// forget lets go of the tables: an idle reader would keep the memory of those that are gone.
func (s *search) forget() {
	clear(s.sweeps)
	s.sweeps, s.opposite = s.sweeps[:0], nil
	s.block = sweep{}
}

// prepare fills in the sweeps. It reports whether to go on: not when the scan is cheaper.
func (m *multi[P]) prepare(q P, r *ring, radius int, s *search) bool {
	split := r.cut.split(radius)
	if split == nil {
		return false
	}
	var w pieces
	cut(r.cut, &q, &w)
	n := int(m.n.Load())
	cost := float64(costQuery)
	for c := range r.cut.words {
		if split[c] < 0 {
			continue
		}
		t := r.tables[c].Load()
		key, turn := t.address(w[c])
		allow := int(split[c] + split[c+1] + 1)
		fp, following := r.cut.fingerprint(&w, c)
		used := min((n>>t.bits)/lanes+1, t.lines)
		sw := s.add()
		sw.fps, sw.table, sw.word, sw.turned = unsafe.Pointer(&t.fps[0]), t, c, false
		sw.key, sw.stride, sw.lines, sw.capacity = key, t.stride(), t.lines, t.capacity()
		sw.fp, sw.tag = int(fp^turn), t.tag(following^turn)
		sw.rest, sw.allow, sw.more = min(r.cut.rest[c], t.tagBits()), allow, int(split[c+2])+1
		sw.ahead, sw.distance = 0, 0
		if m.kernel.fetches {
			sw.ahead, sw.distance = used, min(max(linesAhead/used, 2), bucketsAhead)
		}
		cost += sw.within(int(split[c]), used, n)
		if r.cut.folded && split[c] > 0 {
			// Points whose word is filed as it is where the query's is turned, or the other way round. Their
			// first bit differs, which is not in the key, and one bit fewer of the others may.
			other := s.add()
			*other = s.sweeps[len(s.sweeps)-2]
			other.key ^= t.buckets() - 1
			other.fp ^= 1<<fingerprintBits - 1
			other.tag = t.tag(^(following ^ turn))
			other.allow--
			other.turned = true
			cost += other.within(int(split[c])-1, used, n)
		}
		if need := maxFlips * t.lines; len(s.hits) < need {
			s.hits = make([]hit, need)
		}
	}
	scan := float64(n) * r.cut.costScan(radius)
	if s.opposite != nil {
		scan *= 2
	}
	return cost < scan || m.always
}

// add appends a sweep, which the caller fills in.
func (s *search) add() *sweep {
	if s.sweeps == nil {
		s.sweeps = make([]sweep, 0, 2*maxWords)
	}
	s.sweeps = s.sweeps[:len(s.sweeps)+1]
	return &s.sweeps[len(s.sweeps)-1]
}

// within makes a sweep one of the keys within a threshold, and returns what it is expected to cost.
func (sw *sweep) within(threshold, used, n int) float64 {
	b := balls[sw.table.bits]
	sw.flips, sw.n, sw.shells = unsafe.Pointer(&b.flips[0]), b.size[threshold], unsafe.Pointer(&b.whole[threshold])
	return float64(sw.n*(costBucket+(used-1)*costLine)) +
		float64(n>>sw.table.bits+1)*b.pass[threshold][sw.allow]*costCandidate
}

// aim makes room for the list of buckets and has the first of them fetched.
func (s *search) aim() {
	total := 0
	for i := range s.sweeps {
		total += s.sweeps[i].n
	}
	if need := total + bucketsAhead; len(s.at) < need {
		s.at = make([]uintptr, need*2)
	}
	s.listed, s.listedSweeps = 0, 0
	first := &s.sweeps[0]
	s.list(first.distance)
	if first.ahead > 0 {
		fetchBuckets(&s.at[0], first.distance, first.ahead)
	}
}

// list lists so many buckets at least that the kernel is to look at or to fetch. Not all at once, because it costs
// least while there is memory on its way. The tables are kept from going away by the sweeps and by the announcement of the reader.
func (s *search) list(need int) {
	for s.listed < need {
		if s.listedSweeps == len(s.sweeps) {
			s.at[s.listed] = s.at[s.listed-1] // there is nothing more to fetch, so something near
			s.listed++
			continue
		}
		sw := &s.sweeps[s.listedSweeps]
		s.listedSweeps++
		flips := balls[sw.table.bits].flips[:sw.n]
		at := s.at[s.listed:][:len(flips)]
		base, bytes := uintptr(sw.fps), uintptr(sw.stride)*lineWords*8
		for i, flip := range flips {
			at[i] = base + uintptr(sw.key^int(flip&keyMask))*bytes
		}
		s.listed += len(flips)
	}
}

// sweep searches the tables. It gives up, and
// returns false, when there are so many candidates that a scan would have been
// cheaper.
func (m *multi[P]) sweep(q P, r *ring, s *search, into *nearest) bool {
	split := r.cut.split(into.radius)
	s.fulls, s.lanes, s.candidates = s.fulls[:0], s.lanes[:0], s.candidates[:0]
	s.budget = int(float64(m.n.Load())*r.cut.costScan(into.radius)/costCandidate) + maxCandidates
	if m.always {
		s.budget = math.MaxInt
	}
	s.aim()
	done := 0
	for i := range s.sweeps {
		sw := &s.sweeps[i]
		b, n := balls[sw.table.bits], sw.n
		s.list(done + n) // before n is cut to what a kernel is given
		for from := 0; from < n; from += sw.n {
			sw.flips = unsafe.Pointer(&b.flips[from])
			sw.at = unsafe.Pointer(&s.at[done])
			sw.n = min(n-from, maxFlips)
			if sw.n < n {
				s.shells = b.shells(from, sw.n)
				sw.shells = unsafe.Pointer(&s.shells)
			}
			done += sw.n
			s.list(done + sw.distance)
			hits, full := m.kernel.sweep(sw, &s.hits[0], &s.full[0])
			m.collect(i, s.hits[:hits], s)
			if len(s.lanes) >= maxCandidates {
				m.verify(q, split, s, into)
			}
			for _, left := range s.full[:full] {
				s.noteFull(i, b.flips[from+sw.n-int(left)])
			}
			if len(s.fulls) >= maxFlips {
				m.chain(q, split, s, into)
			}
			if s.budget < 0 {
				return false
			}
		}
	}
	if m.chain(q, split, s, into); s.budget < 0 {
		return false
	}
	m.verify(q, split, s, into)
	return true
}

// noteFull notes a full block, and has fetched what says where it goes on.
func (s *search) noteFull(i int, flip uint32) {
	sw := &s.sweeps[i]
	block := sw.key ^ int(flip&keyMask)
	if sw.ahead > 0 {
		_, ids := sw.table.block(block)
		fetchLine(unsafe.Pointer(&ids[0]))
	}
	s.fulls = append(s.fulls, full{block, i, sw.allow - int(flip>>keyBits)})
}

// chain looks at the blocks that the full buckets go on in: at one of each, then at the next of those that
// have one, because each is somewhere else and has to be fetched.
func (m *multi[P]) chain(q P, split *split, s *search, into *nearest) {
	block := &s.block
	for len(s.fulls) > 0 {
		n := 0
		for _, f := range s.fulls {
			t := s.sweeps[f.sweep].table
			_, ids := t.block(f.block)
			next := int(atomic.LoadUint32(&ids[0]))
			if next == 0 {
				continue
			}
			f.block = next
			s.fulls[n] = f
			n++
			if m.kernel.fetches {
				fps, _ := t.block(next)
				fetchLine(unsafe.Pointer(&fps[0]))
			}
		}
		s.fulls = s.fulls[:n]
		for at := range s.fulls {
			f := &s.fulls[at]
			*block = s.sweeps[f.sweep]
			fps, ids := block.table.block(f.block)
			block.fps = unsafe.Pointer(&fps[0])
			s.blockAt, s.flip = uintptr(block.fps), 0
			block.at, block.flips, block.n, block.key = unsafe.Pointer(&s.blockAt), unsafe.Pointer(&s.flip), 1, 0
			block.allow, block.ahead, block.distance, block.shells = f.allow, 0, 0, unsafe.Pointer(&s.none)
			hits, _ := m.kernel.sweep(block, &s.hits[0], &s.more[0])
			for _, h := range s.hits[:hits] {
				for mask := h.mask; mask != 0; mask &= mask - 1 {
					lane := int(h.line)*lanes + bits.TrailingZeros32(mask)
					s.judge(f.sweep, atomic.LoadUint32(&ids[lane]), f.allow-bits.OnesCount16(fingerprint(fps, lane)^uint16(block.fp)))
				}
			}
			if m.kernel.fetches {
				fetchLine(unsafe.Pointer(&ids[0]))
			}
			s.budget -= block.lines
			if len(s.candidates) >= maxCandidates {
				m.verify(q, split, s, into)
			}
			if s.budget < 0 {
				s.fulls = s.fulls[:0]
				return
			}
		}
	}
}

// collect notes the lanes of the hits, and how far the rest of the next word may differ in each, and
// fetches their entries ahead: to wait for each would cost more than everything else. Most lanes are spared it by a tag
// at the end of the bucket.
func (m *multi[P]) collect(i int, hits []hit, s *search) {
	sw := &s.sweeps[i]
	t := sw.table
	flips := unsafe.Slice((*uint32)(sw.flips), sw.n)
	short := min(t.tagBits(), spareTagBits)
	query := sw.tag >> (t.tagBits() - short)
	rest := min(sw.rest, short)
	for _, h := range hits {
		flip := flips[sw.n-int(h.left)]
		bucket := sw.key ^ int(flip&keyMask)
		fps := t.fps[bucket*t.fpStep:][:t.lines*lineWords]
		before := (int(h.line) - bucket*sw.stride) * lanes
		ids := bucket*t.idStep + t.idBase
		for mask := h.mask; mask != 0; mask &= mask - 1 {
			at := before + bits.TrailingZeros32(mask)
			allow := sw.allow - int(flip>>keyBits) - bits.OnesCount16(fingerprint(fps, at)^uint16(sw.fp))
			if tag, ok := t.spareTag(fps, at); ok && differs(uint32(tag)>>(spareTagBits-short)^query, short, rest, allow, sw.more) {
				continue
			}
			s.lanes = append(s.lanes, lane{uint32(ids + at), uint8(i), int8(allow)})
			if m.kernel.fetches {
				fetchLine(unsafe.Pointer(&t.ids[ids+at]))
			}
		}
	}
}

// differs reports whether a tag of so many bits differs too much: its first bits are the rest of the next
// word, which may differ by what is allowed, and the others those of the word after, which may by some more.
func differs(tag uint32, bitsOf, rest, allow, more int) bool {
	return bits.OnesCount32(tag>>(bitsOf-rest)) > allow || bits.OnesCount32(tag) > allow+more
}

// judge takes an entry of sweep i for a candidate unless its tag differs too much.
func (s *search) judge(i int, entry uint32, allow int) {
	sw := &s.sweeps[i]
	if entry == noPoint || differs(entry>>sw.table.idBits^sw.tag, sw.table.tagBits(), sw.rest, allow, sw.more) {
		return
	}
	s.candidates = append(s.candidates, candidate{sw.table.id(entry), uint32(i)})
}

// verify reports the candidates that are within the radius, each from one word only.
func (m *multi[P]) verify(q P, split *split, s *search, into *nearest) {
	for _, l := range s.lanes {
		s.judge(int(l.sweep), atomic.LoadUint32(&s.sweeps[l.sweep].table.ids[l.at]), int(l.allow))
	}
	// Not before the IDs were read: put stores a point before its ID, so these
	// segments have the points of all candidates.
	s.budget -= len(s.candidates) + len(s.lanes)/4
	segments := *m.store.segments.Load()
	shift := segmentBits[P]()
	if m.kernel.fetches {
		for _, c := range s.candidates {
			at, slot := int(c.id>>shift), int(c.id)&(1<<shift-1)
			if at < len(segments) && segments[at] != nil && slot < len(segments[at].points) {
				fetchLine(unsafe.Pointer(&segments[at].points[slot]))
			}
		}
	}
	for _, c := range s.candidates {
		at, slot := int(c.id>>shift), int(c.id)&(1<<shift-1)
		if at >= len(segments) || segments[at] == nil {
			continue // removed since
		}
		points := segments[at].points
		if slot >= len(points) {
			continue
		}
		m.report(q, points[slot], c, split, s, into)
	}
	s.lanes, s.candidates = s.lanes[:0], s.candidates[:0]
}

// report adds a candidate to what it is near to, unless it is reported from another sweep.
func (m *multi[P]) report(q, p P, c candidate, split *split, s *search, into *nearest) {
	d := Distance(q, p)
	if d > into.radius {
		d = width[P]() - d
		if into = s.opposite; into == nil || d > into.radius {
			return
		}
		q = complement(q)
	}
	var differ pieces
	sw := &s.sweeps[c.sweep]
	p = difference(p, q)
	cut(sw.table.cut, &p, &differ)
	words := differ.distances(sw.table.cut.words)
	if split.starts(&words, sw.table.cut.words) != sw.word {
		return
	}
	if firstBit := differ[sw.word]>>31 != 0; sw.table.cut.folded && firstBit != sw.turned {
		return
	}
	into.add(c.id, d)
}

// width is the bits of a point.
func width[P Point]() int {
	var p P
	return int(unsafe.Sizeof(p)) * 8
}
