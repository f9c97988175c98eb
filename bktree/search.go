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
	hits       []hit
	full       [maxFlips]uint32
	lanes      []candidate // id is the lane of the table until it is read there
	candidates []candidate
	budget     int // candidates left before giving up

	// Of chain: fields, because what a kernel is given escapes.
	block sweep
	flip  uint32
	none  [1]uint32
}

// candidate is a lane that passed the filter, or the ID found in it.
type candidate struct {
	id   uint32
	word uint32
}

const (
	// Buckets that a kernel is given at a time, which bounds the room for hits, and
	// how long a goroutine cannot be preempted.
	maxFlips = 128
	// Candidates collected before they are verified: enough for their memory accesses to overlap.
	maxCandidates = 256
	// Lines fetched ahead of the word that the kernel is at. The processor keeps few
	// more on their way; asking for all of a search at once is a little slower.
	fetchLines = 64
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
		return
	}
	start, radius := into.start, into.radius
	if !m.sweep(q, split, s, into) {
		// A crowd round the query, of which every point is a candidate in many
		// words. What was found so far is found again.
		into.begin(radius, into.limit, into.found[:start])
		m.store.scan(q, into)
	}
	clear(s.tables[:m.words])
}

// prepare fills in the sweeps, one for each word that has a threshold. It
// reports whether to go on: not without tables, nor when the scan is cheaper.
func (m *multi[P]) prepare(q P, split *split, radius int, s *search) bool {
	var w [maxWords + 1]uint16
	cut(&q, &w)
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
			lines:    t.lines,
			fp:       int(w[c+1]),
			allow:    allow,
			capacity: t.capacity(),
			ahead:    used,
		}
		if need := maxFlips * t.lines; len(s.hits) < need {
			s.hits = make([]hit, need)
		}
	}
	return cost < float64(n)*costScan(m.words, radius) || m.always
}

// sweep searches the tables. The lines of some words are fetched ahead of the
// one that the kernel is at, so that they are there when it comes to them. It gives up, and
// returns false, when there are so many candidates that a scan would have been
// cheaper.
func (m *multi[P]) sweep(q P, split *split, s *search, into *nearest) bool {
	s.lanes, s.candidates = s.lanes[:0], s.candidates[:0]
	s.budget = int(float64(m.n.Load())*costScan(m.words, into.radius)/costCandidate) + maxCandidates
	if m.always {
		s.budget = math.MaxInt
	}
	fetched, ahead := 0, 0 // words fetched, and lines of those not swept yet
	for c := range m.words {
		sw := &s.sweeps[c]
		if m.kernel.fetch != nil {
			for ; fetched < m.words && (fetched <= c || ahead < fetchLines); fetched++ {
				next := &s.sweeps[fetched]
				if next.n > 0 {
					m.kernel.fetch(next)
					ahead += next.n * next.ahead
				}
			}
			ahead -= sw.n * sw.ahead
		}
		for from, n := 0, sw.n; from < n; from += maxFlips {
			sw.flips = unsafe.Pointer(&balls[s.tables[c].bits].flips[from])
			sw.n = min(n-from, maxFlips)
			hits, full := m.kernel.sweep(sw, &s.hits[0], &s.full[0])
			m.collect(c, s.hits[:hits], s)
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
	s.flip = flip &^ 0xffff // nothing to flip, but the bucket differs in as many bits
	block.flips, block.n, block.key = unsafe.Pointer(&s.flip), 1, 0
	ids := t.ids[(s.sweeps[c].key^int(flip&0xffff))*t.lines*lanes:]
	for {
		next := int(atomic.LoadUint32(&ids[0]))
		if next == 0 {
			return
		}
		var fps []uint64
		fps, ids = t.block(next)
		block.fps = unsafe.Pointer(&fps[0])
		hits, _ := m.kernel.sweep(block, &s.hits[0], &s.none[0])
		for _, h := range s.hits[:hits] {
			for mask := h.mask; mask != 0; mask &= mask - 1 {
				lane := int(h.line)*lanes + bits.TrailingZeros32(mask)
				if id := atomic.LoadUint32(&ids[lane]); id != noPoint {
					s.candidates = append(s.candidates, candidate{id - 1, uint32(c)})
				}
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

// collect notes the lanes of the hits and fetches their IDs ahead: to wait for each
// would cost more than everything else.
func (m *multi[P]) collect(c int, hits []hit, s *search) {
	ids := s.tables[c].ids
	for _, h := range hits {
		for mask := h.mask; mask != 0; mask &= mask - 1 {
			lane := h.line*lanes + uint32(bits.TrailingZeros32(mask))
			s.lanes = append(s.lanes, candidate{lane, uint32(c)})
			if m.kernel.fetch != nil {
				fetchLine(unsafe.Pointer(&ids[lane]))
			}
		}
	}
}

// verify reports the candidates that are within the radius, each from one word only.
func (m *multi[P]) verify(q P, split *split, s *search, into *nearest) {
	for _, l := range s.lanes {
		if id := atomic.LoadUint32(&s.tables[l.word].ids[l.id]); id != noPoint {
			s.candidates = append(s.candidates, candidate{id - 1, l.word})
		}
	}
	// Not before the IDs were read: put stores a point before its ID, so these
	// segments have the points of all candidates.
	s.budget -= len(s.candidates)
	segments := *m.store.segments.Load()
	shift := segmentBits[P]()
	if m.kernel.fetch != nil {
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
		var words [maxWords + 1]int8
		wordDistances(&q, &points[slot], &words)
		if split.starts(&words, m.words) == int(c.word) {
			into.add(ID(c.id), d)
		}
	}
	s.lanes, s.candidates = s.lanes[:0], s.candidates[:0]
}
