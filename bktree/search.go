package bktree

import (
	"math"
	"unsafe"
)

// search is what a search of the tables needs besides what it finds; kept between searches. It is for several
// points at a time, and goes through the tables word by word for all of them.
type search struct {
	asked  []asked
	sweeps []sweep // for each word, one for each point that looks it up, and in folded tables two

	// The addresses of buckets, in the order in which they are looked at: at[done:listed] are still to be, and
	// those of the sweeps from listedSweeps on are yet to be listed.
	at           []uintptr
	done, listed int
	listedSweeps int

	hits         []hit
	full         [maxFlips]uint32 // of the kernel
	shells       shells
	fulls        []full // noted
	fetchedFulls []full
	lanes        []lane // noted
	fetchedLanes []lane
	candidates   []candidate // fetched

	// Of chain: fields, because what a kernel is given escapes.
	block   sweep
	blockAt uintptr
	flip    uint32
	more    [1]uint32 // what of full is for a kernel with one block
	none    [1]uint32 // always 0
}

// asked is what a search knows of one point besides its sweeps.
type asked struct {
	pieces pieces
	split  *split
	reach  int  // the radius within which the tables are searched
	apart  bool // and those points of the tables that have an odd number of ones are left out
	budget int  // left before giving up: a candidate is 4, a lane 1
}

const (
	// Points asked for at a time: so many that several find what they need of a table in pages that the
	// processor still knows. The sweeps of more would take the cache that these pages' tables need.
	maxAsked = 32
	// Buckets that a kernel is given at a time, which bounds the room for hits, and
	// how long a goroutine cannot be preempted.
	maxFlips = 256
	// Lanes and full buckets noted before what is needed of them is fetched. All at once: one by one, between the
	// sweeps, took a tenth more time, as the processor finds the addresses of several pages at the same time.
	maxLanes = 64
	maxFulls = 32
	// And candidates, of which chains can have any number.
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

func (m *multi[P]) near(q P, into *nearest) {
	q1 := [1]P{q}
	m.search(q1[:], unsafe.Slice(into, 1), nil)
}

// nearEither is near for at most maxAsked points, and opposite gets what is near their complements. At radii of half the
// bits and more a point may be near both, which a single search does not tell.
func (m *multi[P]) nearEither(q []P, into, opposite []nearest) {
	if r := m.ring.Load(); r != nil && r.cut.folded && into[0].radius < width[P]()/2 {
		m.search(q, into, opposite)
		return
	}
	m.search(q, into, nil)
	var turned [maxAsked]P
	for i := range q {
		turned[i] = complement(q[i])
	}
	opposite[0].search = into[0].search
	m.search(turned[:len(q)], opposite, nil)
}

// search finds for each point of q what is near it, within a radius that is the same for all, and what is near
// its complement if opposite is not nil.
func (m *multi[P]) search(q []P, into, opposite []nearest) {
	if into[0].search == nil {
		into[0].search = new(search)
	}
	s, radius := into[0].search, into[0].radius
	odd := m.odd.Load()
	r := m.ring.Load()
	if r == nil || opposite != nil && !r.cut.folded || !m.prepare(q, r, odd, radius, opposite != nil, s) {
		for i := range q {
			m.scan(q, i, into, opposite)
		}
		s.forget()
		return
	}
	m.sweep(q, s, into, opposite)
	for i := range q {
		switch a := &s.asked[i]; {
		case a.budget < 0:
			// A crowd round the point, of which every one is a candidate in many
			// words. What was found so far is found again.
			into[i].begin(radius, into[i].limit, into[i].found[:into[i].start])
			if opposite != nil {
				opposite[i].begin(radius, 0, opposite[i].found[:opposite[i].start])
			}
			m.scan(q, i, into, opposite)
		case a.apart:
			odd.scan(q[i], &into[i])
			if opposite != nil {
				odd.scan(complement(q[i]), &opposite[i])
			}
		}
	}
	s.forget()
}

func (m *multi[P]) scan(q []P, i int, into, opposite []nearest) {
	m.store.scan(q[i], &into[i])
	if opposite != nil {
		m.store.scan(complement(q[i]), &opposite[i])
	}
}

// forget lets go of the tables: an idle reader would keep the memory of those that are gone.
func (s *search) forget() {
	clear(s.sweeps)
	s.sweeps = s.sweeps[:0]
	s.block = sweep{}
}

// prepare fills in the sweeps. It reports whether to go on: not when the scan is cheaper.
func (m *multi[P]) prepare(q []P, r *ring, odd *oddPoints[P], radius int, either bool, s *search) bool {
	n := int(m.n.Load())
	scan := float64(n) * r.cut.costScan(radius)
	budget := 4 * (int(scan/costCandidate) + maxCandidates)
	if m.always {
		budget = math.MaxInt
	}
	s.asked = s.asked[:0]
	for i := range q {
		a := asked{reach: radius, budget: budget}
		if odd != nil && weighsOdd(q[i]) == (radius&1 == 0) {
			a.reach, a.apart = radius-1, true
		}
		if a.split = r.cut.split(a.reach); a.split == nil {
			return false
		}
		cut(r.cut, &q[i], &a.pieces)
		s.asked = append(s.asked, a)
	}
	cost := float64(costQuery)
	for c := range r.cut.words {
		t := r.tables[c].Load()
		used := min((n>>t.bits)/lanes+1, t.lines)
		for i := range s.asked {
			a := &s.asked[i]
			threshold := int(a.split[c])
			if threshold < 0 {
				continue
			}
			key, turn := t.address(a.pieces[c])
			fp, following := r.cut.fingerprint(&a.pieces, c)
			sw := s.add()
			sw.fps, sw.table, sw.word, sw.asked = unsafe.Pointer(&t.fps[0]), t, c, i
			sw.key, sw.stride, sw.lines, sw.capacity = key, t.stride(), t.lines, t.capacity()
			sw.fp, sw.tag = int(fp^turn), t.tag(following^turn)
			sw.rest, sw.more = min(r.cut.rest[c], t.tagBits()), int(a.split[c+2])+1
			sw.allow = threshold + int(a.split[c+1]) + 1
			if m.kernel.fetches {
				sw.ahead, sw.distance = used, min(max(linesAhead/used, 2), bucketsAhead)
			}
			cost += sw.within(threshold, used, n)
			if r.cut.folded && threshold > 0 {
				// Points whose word is filed as it is where the query's is turned, or the other way round. Their
				// first bit differs, which is not in the key, and one bit fewer of the others may.
				other := s.add()
				*other = s.sweeps[len(s.sweeps)-2]
				other.key ^= t.buckets() - 1
				other.fp ^= 1<<fingerprintBits - 1
				other.tag = t.tag(^(following ^ turn))
				other.allow--
				other.turned = true
				cost += other.within(threshold-1, used, n)
			}
		}
		if need := maxFlips * t.lines; len(s.hits) < need {
			s.hits = make([]hit, need)
		}
	}
	scan *= float64(len(q))
	if either {
		scan *= 2
	}
	return cost < scan || m.always
}

// add appends a sweep, which the caller fills in.
func (s *search) add() *sweep {
	s.sweeps = append(s.sweeps, sweep{})
	return &s.sweeps[len(s.sweeps)-1]
}

// within makes a sweep one of the keys within a threshold, and returns what it is expected to cost.
func (sw *sweep) within(threshold, used, n int) float64 {
	b := balls[sw.table.bits]
	sw.flips, sw.n, sw.shells = unsafe.Pointer(&b.flips[0]), b.size[threshold], unsafe.Pointer(&b.whole[threshold])
	return float64(sw.n*(costBucket+(used-1)*costLine)) +
		float64(n>>sw.table.bits+1)*b.pass[threshold][sw.allow]*costCandidate
}

// aim has the first buckets fetched.
func (s *search) aim() {
	s.done, s.listed, s.listedSweeps = 0, 0, 0
	first := &s.sweeps[0]
	s.list(first.distance)
	if first.ahead > 0 {
		fetchBuckets(&s.at[0], first.distance, first.ahead)
	}
}

// list lists buckets until there are so many that the kernel is to look at or to fetch. Not all at once, because it costs
// least while there is memory on its way. The tables are kept from going away by the sweeps and by the announcement of the reader.
func (s *search) list(need int) {
	for s.listed-s.done < need {
		if s.listedSweeps == len(s.sweeps) {
			s.room(1)
			s.at[s.listed] = s.at[s.listed-1] // there is nothing more to fetch, so something near
			s.listed++
			continue
		}
		sw := &s.sweeps[s.listedSweeps]
		s.listedSweeps++
		flips := balls[sw.table.bits].flips[:sw.n]
		s.room(len(flips))
		at := s.at[s.listed:][:len(flips)]
		base, bytes := uintptr(sw.fps), uintptr(sw.stride)*lineWords*8
		for i, flip := range flips {
			at[i] = base + uintptr(sw.key^int(flip&keyMask))*bytes
		}
		s.listed += len(flips)
	}
}

// room makes room in at for so many more, in the place of what is done.
func (s *search) room(n int) {
	if s.listed+n <= len(s.at) {
		return
	}
	left := s.at[s.done:s.listed]
	if need := 2 * (len(left) + n + maxFlips); len(s.at) < need {
		s.at = make([]uintptr, 2*need)
	}
	s.done, s.listed = 0, copy(s.at, left)
}

// sweep searches the tables. For a point with so many candidates that a scan would have been
// cheaper it gives up, and leaves a budget below zero.
func (m *multi[P]) sweep(q []P, s *search, into, opposite []nearest) {
	s.fulls, s.fetchedFulls = s.fulls[:0], s.fetchedFulls[:0]
	s.lanes, s.fetchedLanes, s.candidates = s.lanes[:0], s.fetchedLanes[:0], s.candidates[:0]
	s.aim()
	for i := range s.sweeps {
		sw := &s.sweeps[i]
		b, n := balls[sw.table.bits], sw.n
		s.list(n) // before n is cut to what a kernel is given
		if s.asked[sw.asked].budget < 0 {
			s.done += n
			continue
		}
		for from := 0; from < n; from += sw.n {
			sw.flips = unsafe.Pointer(&b.flips[from])
			sw.n = min(n-from, maxFlips)
			if sw.n < n {
				s.shells = b.shells(from, sw.n)
				sw.shells = unsafe.Pointer(&s.shells)
			}
			s.list(sw.n + sw.distance)
			sw.at = unsafe.Pointer(&s.at[s.done])
			s.done += sw.n
			nhits, nfull := m.kernel.sweep(sw, &s.hits[0], &s.full[0])
			m.collect(i, s.hits[:nhits], s)
			for _, left := range s.full[:nfull] {
				flip := b.flips[from+sw.n-int(left)]
				s.fulls = append(s.fulls, full{sw.key ^ int(flip&keyMask), uint16(i), int8(sw.allow - int(flip>>keyBits)), true})
			}
			if len(s.fulls) >= maxFulls {
				m.chain(s)
			}
			if len(s.lanes) >= maxLanes || len(s.candidates) >= maxCandidates {
				m.verify(q, s, into, opposite)
			}
		}
	}
	for len(s.fulls)+len(s.fetchedFulls)+len(s.lanes)+len(s.fetchedLanes)+len(s.candidates) > 0 {
		m.chain(s)
		m.verify(q, s, into, opposite)
	}
}
