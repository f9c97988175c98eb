package bktree

import (
	"math/bits"
	"slices"
	"sync/atomic"
	"unsafe"
)

// full is a full bucket, or a block of those that it goes on in.
type full struct {
	block int
	sweep uint16
	allow int8 // bits by which fingerprints may differ
	seen  bool // its fingerprints were looked at
}

// lane is one whose fingerprint passed the filter.
type lane struct {
	at    uint32 // of the table's entries
	sweep uint16
	allow int8 // bits by which the rest of the next word may differ
}

// candidate is a point whose tag passed as well.
type candidate struct {
	id    ID
	sweep uint32
}

// chain goes on by a step with the full buckets: it looks at the blocks that were fetched, and has fetched where those
// go on, and the entries of the buckets that were noted since, which say where they do.
func (m *multi[P]) chain(s *search) {
	block, n := &s.block, 0
	for _, f := range s.fetchedFulls {
		sw := &s.sweeps[f.sweep]
		if s.asked[sw.asked].budget < 0 {
			continue
		}
		t := sw.table
		fps, ids := t.block(f.block)
		if !f.seen {
			*block = *sw
			block.fps = unsafe.Pointer(&fps[0])
			s.blockAt, s.flip = uintptr(block.fps), 0
			block.at, block.flips, block.n, block.key = unsafe.Pointer(&s.blockAt), unsafe.Pointer(&s.flip), 1, 0
			block.allow, block.ahead, block.distance, block.shells = int(f.allow), 0, 0, unsafe.Pointer(&s.none)
			hits, _ := m.kernel.sweep(block, &s.hits[0], &s.more[0])
			for _, h := range s.hits[:hits] {
				for mask := h.mask; mask != 0; mask &= mask - 1 {
					lane := int(h.line)*lanes + bits.TrailingZeros32(mask)
					s.judge(int(f.sweep), atomic.LoadUint32(&ids[lane]), block.allow-bits.OnesCount16(fingerprint(fps, lane)^uint16(sw.fp)))
				}
			}
			s.asked[sw.asked].budget -= 4 * t.lines
		}
		if next := int(atomic.LoadUint32(&ids[0])); next != 0 {
			s.fetchedFulls[n] = full{next, f.sweep, f.allow, false}
			n++
		}
	}
	s.fetchedFulls = append(s.fetchedFulls[:n], s.fulls...)
	s.fulls = s.fulls[:0]
	if m.kernel.fetches {
		for _, f := range s.fetchedFulls {
			fps, ids := s.sweeps[f.sweep].table.block(f.block)
			if !f.seen {
				fetchLine(unsafe.Pointer(&fps[0]))
			}
			fetchLine(unsafe.Pointer(&ids[0]))
		}
	}
}

// collect notes the lanes of the hits, and how far the rest of the next word may differ in each. To look at the entry of each
// would cost more than everything else; most lanes are spared it by a tag
// at the end of the bucket. Whether one is is as good as random, so nothing here branches on it.
func (m *multi[P]) collect(i int, hits []hit, s *search) {
	sw := &s.sweeps[i]
	t := sw.table
	flips := unsafe.Slice((*uint32)(sw.flips), sw.n)
	short := min(t.tagBits(), spareTagBits)
	query := sw.tag >> (t.tagBits() - short)
	rest := min(sw.rest, short)
	n := len(s.lanes)
	s.lanes = slices.Grow(s.lanes, len(hits)*lanes)
	kept := s.lanes[n:cap(s.lanes)]
	n = 0
	for _, h := range hits {
		flip := flips[sw.n-int(h.left)]
		bucket := sw.key ^ int(flip&keyMask)
		fps := t.fps[bucket*t.fpStep:][:t.lines*lineWords]
		before := (int(h.line) - bucket*sw.stride) * lanes
		ids := bucket*t.idStep + t.idBase
		for mask := h.mask; mask != 0; mask &= mask - 1 {
			at := before + bits.TrailingZeros32(mask)
			allow := sw.allow - int(flip>>keyBits) - bits.OnesCount16(fingerprint(fps, at)^uint16(sw.fp))
			passes := 1
			if t.folded { // the same for all
				tag, ok := t.spareTag(fps, at)
				passes -= one(ok) & differs(uint32(tag)>>(spareTagBits-short)^query, short, rest, allow, sw.more)
			}
			kept[n] = lane{uint32(ids + at), uint16(i), int8(allow)}
			n += passes
		}
	}
	s.lanes = s.lanes[:len(s.lanes)+n]
	s.asked[sw.asked].budget -= n
}

// one is 1 or 0, without a branch.
func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

// differs is 1 if a tag of so many bits differs too much, and else 0: its first bits are the rest of the next
// word, which may differ by what is allowed, and the others those of the word after, which may by some more.
func differs(tag uint32, bitsOf, rest, allow, more int) int {
	return one(bits.OnesCount32(tag>>(bitsOf-rest)) > allow) | one(bits.OnesCount32(tag) > allow+more)
}

// judge takes an entry of sweep i for a candidate unless its tag differs too much.
func (s *search) judge(i int, entry uint32, allow int) {
	sw := &s.sweeps[i]
	if entry == noPoint || differs(entry>>sw.table.idBits^sw.tag, sw.table.tagBits(), sw.rest, allow, sw.more) != 0 {
		return
	}
	s.candidates = append(s.candidates, candidate{sw.table.id(entry), uint32(i)})
	s.asked[sw.asked].budget -= 4
}

// verify goes on by a step with what was collected: it reports the candidates that are within the radius, each from one word
// only, makes candidates of the lanes whose entries were fetched, and has their points fetched, and the entries of
// the lanes that were noted since.
func (m *multi[P]) verify(q []P, s *search, into, opposite []nearest) {
	// Loaded after the IDs were read: put stores a point before its ID, so these
	// segments have the points of all candidates.
	segments := *m.store.segments.Load()
	shift := segmentBits[P]()
	for _, c := range s.candidates {
		at, slot := int(c.id>>shift), int(c.id)&(1<<shift-1)
		if at >= len(segments) || segments[at] == nil {
			continue // removed since
		}
		points := segments[at].points
		if slot >= len(points) {
			continue
		}
		m.report(q, points[slot], c, s, into, opposite)
	}
	s.candidates = s.candidates[:0]
	for _, l := range s.fetchedLanes {
		s.judge(int(l.sweep), atomic.LoadUint32(&s.sweeps[l.sweep].table.ids[l.at]), int(l.allow))
	}
	if m.kernel.fetches {
		segments := *m.store.segments.Load()
		for _, c := range s.candidates {
			at, slot := int(c.id>>shift), int(c.id)&(1<<shift-1)
			if at < len(segments) && segments[at] != nil && slot < len(segments[at].points) {
				fetchLine(unsafe.Pointer(&segments[at].points[slot]))
			}
		}
		for _, l := range s.lanes {
			fetchLine(unsafe.Pointer(&s.sweeps[l.sweep].table.ids[l.at]))
		}
	}
	s.fetchedLanes, s.lanes = s.lanes, s.fetchedLanes[:0]
}

// report adds a candidate to what it is near to, unless it is reported from another sweep.
func (m *multi[P]) report(q []P, p P, c candidate, s *search, into, opposite []nearest) {
	sw := &s.sweeps[c.sweep]
	of, a := q[sw.asked], &s.asked[sw.asked]
	d, to := Distance(of, p), &into[sw.asked]
	if d > to.radius {
		if opposite == nil {
			return
		}
		d, to, of = width[P]()-d, &opposite[sw.asked], complement(of)
		if d > to.radius {
			return
		}
	}
	if a.apart && d&1 != a.reach&1 {
		return // see oddPoints
	}
	var differ pieces
	k := sw.table.cut
	p = difference(p, of)
	cut(k, &p, &differ)
	words := differ.distances(k.words)
	if a.split.starts(&words, k.words) != sw.word {
		return
	}
	if firstBit := differ[sw.word]>>31 != 0; k.folded && firstBit != sw.turned {
		return
	}
	to.add(c.id, d)
}

// width is the bits of a point.
func width[P Point]() int {
	var p P
	return int(unsafe.Sizeof(p)) * 8
}
