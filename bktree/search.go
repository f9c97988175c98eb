package bktree

import (
	"math"
	"math/bits"
	"sync/atomic"
	"unsafe"
)

// search is what a search of the tables needs besides what it finds; kept between searches.
type search struct {
	sweeps     [maxWords]sweep
	tables     [maxWords]*table
	at         []uintptr // buckets of all words, in the order in which they are looked at
	hits       []hit
	full       [maxFlips]uint32
	lanes      []lane
	candidates []candidate
	query      [maxWords + 2]uint16 // its words
	budget     int                  // candidates left before giving up

	// Of chain: fields, because what a kernel is given escapes.
	block   sweep
	blockAt uintptr
	flip    uint32
	none    [1]uint32
}

// lane is one whose fingerprint passed the filter.
type lane struct {
	at    uint32 // in the table's memory, as entries
	word  uint8
	allow int8 // bits by which the word after may differ
}

// candidate is a point whose tag passed as well.
type candidate struct {
	id   ID
	word uint32
}

const (
	// Buckets that a kernel is given at a time, which bounds the room for hits, and
	// how long a goroutine cannot be preempted.
	maxFlips = 128
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
func costScan(words, radius int) float64 {
	switch {
	case words == 4:
		return costPoint64
	case radius <= halfway:
		return costPoint256
	}
	return costWhole256
}

func (m *multi[P]) near(q P, into *nearest) {
	s := into.search
	if s == nil {
		s = new(search)
		into.search = s
	}
	split := splitFor(m.words, into.radius)
	if split == nil || !m.prepare(q, split, into.radius, s) {
		m.store.scan(q, into)
	} else {
		start, radius := into.start, into.radius
		if !m.sweep(q, split, s, into) {
			// A crowd round the query, of which every point is a candidate in many
			// words. What was found so far is found again.
			into.begin(radius, into.limit, into.found[:start])
			m.store.scan(q, into)
		}
	}
	s.forget()
}

// forget lets go of the tables: an idle reader would keep the memory of those that are gone.
func (s *search) forget() {
	clear(s.tables[:])
	for c := range s.sweeps {
		s.sweeps[c].fps = nil
	}
	s.block.fps = nil
}

// prepare fills in the sweeps, one for each word that has a threshold. It
// reports whether to go on: not without tables, nor when the scan is cheaper.
func (m *multi[P]) prepare(q P, split *split, radius int, s *search) bool {
	w := &s.query
	cut(&q, w)
	n := int(m.n.Load())
	cost := float64(costQuery)
	for c := range m.words {
		if split[c] < 0 {
			s.sweeps[c].n = 0
			continue
		}
		t := m.tables[c].Load()
		if t == nil {
			return false
		}
		b := balls[t.bits]
		buckets := b.size[split[c]]
		used := min((n>>t.bits)/lanes+1, t.lines)
		allow := int(split[c] + split[c+1] + 1)
		cost += float64(buckets*(costBucket+(used-1)*costLine)) +
			float64(n>>t.bits+1)*b.pass[split[c]][allow]*costCandidate
		s.tables[c] = t
		s.sweeps[c] = sweep{
			fps:      unsafe.Pointer(&t.fps[0]),
			flips:    unsafe.Pointer(&b.flips[0]),
			n:        buckets,
			key:      t.address(w[c]),
			stride:   t.stride(),
			lines:    t.lines,
			fp:       int(w[c+1]),
			allow:    allow,
			capacity: t.capacity(),
		}
		if m.kernel.fetches {
			s.sweeps[c].ahead = used
			s.sweeps[c].distance = min(max(linesAhead/used, 2), bucketsAhead)
		}
		if need := maxFlips * t.lines; len(s.hits) < need {
			s.hits = make([]hit, need)
		}
	}
	return cost < float64(n)*costScan(m.words, radius) || m.always
}

// aim lists the buckets that the kernel is to look at, and has the first of them fetched. The
// tables are kept from going away by s.tables and by the announcement of the reader.
func (m *multi[P]) aim(s *search) {
	total := 0
	for c := range m.words {
		total += s.sweeps[c].n
	}
	if need := total + bucketsAhead; len(s.at) < need {
		s.at = make([]uintptr, need*2)
	}
	at := s.at[:total+bucketsAhead]
	done := 0
	for c := range m.words {
		sw := &s.sweeps[c]
		if sw.n == 0 {
			continue
		}
		flips := balls[s.tables[c].bits].flips[:sw.n]
		part := at[done : done+len(flips)]
		base, bytes := uintptr(sw.fps), uintptr(sw.stride)*64
		for i, flip := range flips {
			part[i] = base + uintptr(sw.key^int(flip&0xffff))*bytes
		}
		done += len(flips)
	}
	for i := total; i < len(at); i++ {
		at[i] = at[total-1] // there is nothing more to fetch, so something near
	}
	for c := range m.words {
		if sw := &s.sweeps[c]; sw.n > 0 && sw.ahead > 0 {
			fetchBuckets(&at[0], min(sw.distance, total), sw.ahead)
			break
		}
	}
}

// sweep searches the tables. It gives up, and
// returns false, when there are so many candidates that a scan would have been
// cheaper.
func (m *multi[P]) sweep(q P, split *split, s *search, into *nearest) bool {
	s.lanes, s.candidates = s.lanes[:0], s.candidates[:0]
	s.budget = int(float64(m.n.Load())*costScan(m.words, into.radius)/costCandidate) + maxCandidates
	if m.always {
		s.budget = math.MaxInt
	}
	m.aim(s)
	done := 0
	for c := range m.words {
		sw := &s.sweeps[c]
		for from, n := 0, sw.n; from < n; from += maxFlips {
			sw.flips = unsafe.Pointer(&balls[s.tables[c].bits].flips[from])
			sw.at = unsafe.Pointer(&s.at[done])
			sw.n = min(n-from, maxFlips)
			done += sw.n
			hits, full := m.kernel.sweep(sw, &s.hits[0], &s.full[0])
			m.collect(c, split, s.hits[:hits], s)
			if len(s.lanes) >= maxCandidates {
				m.verify(q, split, s, into)
			}
			for _, flip := range s.full[:full] {
				m.chain(q, split, c, flip, s, into)
			}
			if s.budget < 0 {
				return false
			}
		}
	}
	m.verify(q, split, s, into)
	return true
}

// chain follows a full bucket to the blocks it goes on in.
func (m *multi[P]) chain(q P, split *split, c int, flip uint32, s *search, into *nearest) {
	t := s.tables[c]
	block := &s.block
	*block = s.sweeps[c]
	_, ids := t.block(block.key ^ int(flip&0xffff))
	s.flip = flip &^ 0xffff // nothing to flip, but the bucket differs in as many bits
	block.at, block.flips, block.n, block.key = unsafe.Pointer(&s.blockAt), unsafe.Pointer(&s.flip), 1, 0
	block.ahead = 0
	for {
		next := int(atomic.LoadUint32(&ids[0]))
		if next == 0 {
			return
		}
		var fps []uint64
		fps, ids = t.block(next)
		block.fps = unsafe.Pointer(&fps[0])
		s.blockAt = uintptr(block.fps)
		hits, _ := m.kernel.sweep(block, &s.hits[0], &s.none[0])
		for _, h := range s.hits[:hits] {
			for mask := h.mask; mask != 0; mask &= mask - 1 {
				at := int(h.line)*lanes + bits.TrailingZeros32(mask)
				allow := block.allow - int(flip>>16) - bits.OnesCount16(fingerprint(fps, at)^s.query[c+1])
				s.judge(t, atomic.LoadUint32(&ids[at]), c, allow+int(split[c+2])+1)
			}
		}
		s.budget-- // for the block
		if len(s.candidates) >= maxCandidates {
			m.verify(q, split, s, into)
		}
		if s.budget < 0 {
			return
		}
	}
}

// collect notes the lanes of the hits, and how far the word after the fingerprint may differ in each, and
// fetches their entries ahead: to wait for each would cost more than everything else.
func (m *multi[P]) collect(c int, split *split, hits []hit, s *search) {
	t, sw := s.tables[c], &s.sweeps[c]
	flips := unsafe.Slice((*uint32)(sw.flips), sw.n)
	for _, h := range hits {
		flip := flips[sw.n-int(h.left)]
		first := (sw.key ^ int(flip&0xffff)) * sw.stride
		line := int(h.line)
		ids := (2*line - first + sw.lines) * lineWords * 2
		allow := sw.allow - int(flip>>16) + int(split[c+2]) + 1
		for mask := h.mask; mask != 0; mask &= mask - 1 {
			i := bits.TrailingZeros32(mask)
			differ := bits.OnesCount16(fingerprint(t.fps[line*lineWords:], i) ^ s.query[c+1])
			s.lanes = append(s.lanes, lane{uint32(ids + i), uint8(c), int8(allow - differ)})
			if m.kernel.fetches {
				fetchLine(unsafe.Pointer(&t.ids[ids+i]))
			}
		}
	}
}

// judge takes an entry of table c for a candidate unless its tag differs in more bits than allowed.
func (s *search) judge(t *table, entry uint32, c, allow int) {
	if entry == noPoint || bits.OnesCount32(entry>>t.idBits^t.tag(s.query[c+2])) > allow {
		return
	}
	s.candidates = append(s.candidates, candidate{t.id(entry), uint32(c)})
}

// verify reports the candidates that are within the radius, each from one word only.
func (m *multi[P]) verify(q P, split *split, s *search, into *nearest) {
	for _, l := range s.lanes {
		t := s.tables[l.word]
		s.judge(t, atomic.LoadUint32(&t.ids[l.at]), int(l.word), int(l.allow))
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
		d := Distance(q, points[slot])
		if d > into.radius {
			continue
		}
		var words [maxWords + 2]int8
		wordDistances(&q, &points[slot], &words)
		if split.starts(&words, m.words) == int(c.word) {
			into.add(c.id, d)
		}
	}
	s.lanes, s.candidates = s.lanes[:0], s.candidates[:0]
}
