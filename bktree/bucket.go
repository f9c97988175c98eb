package bktree

import (
	"sync/atomic"
	"unsafe"
)

// A table is what the search knows of one word of the ring: buckets of points by the upper
// bits of that word. A bucket has lanes. In lane i there are the next word of a point, its
// fingerprint, which the search compares first, and its ID. A bucket's fingerprints are
// whole cache lines of 32 lanes; its IDs are in an array of their own, because few of them
// are ever read.
//
// Lane 0 holds no point: its fingerprint is the bucket's count, and its ID the
// number of the block to go on with, or 0. A block is a bucket like the others, filled when
// the first is full. Those come in spares, and the newest is the first in the chain.
//
// There is one writer; readers take no lock. Entries do not move within a table, so a reader misses
// none. The writer stores an ID, then its fingerprint, then the count that takes them in, each
// atomically, so whoever sees an entry counted sees all of it. A vacated lane has
// ID noPoint; a later point takes it in the same order, ID last this time. Should a
// reader combine the old fingerprint with the new ID, it gets a point that
// is in the index, and judges it by its full distance, as it does every candidate.
type table struct {
	level
	fps    []uint64 // four lanes in each
	ids    []uint32
	mem    *region
	spares atomic.Pointer[[]*spare] // replaced as a whole
	used   int                      // blocks in use in spares; the writer's, as are:
	live   int
	dead   int // vacated lanes
}

// spare holds the blocks that full buckets go on in.
type spare struct {
	fps []uint64
	ids []uint32
}

// level is the shape of a table.
type level struct {
	bits  int // of the word that choose the bucket
	lines int // of 32 lanes in a bucket
}

const (
	lanes       = 32     // 16-bit fingerprints in a cache line
	lineWords   = 8      // 64-bit words in a cache line
	noPoint     = 0      // IDs are stored plus one, so zeroed memory is empty
	vacated     = 0x8000 // flag in the count: a lane of this bucket is free again
	spareBlocks = 32
)

func (l level) buckets() int  { return 1 << l.bits }
func (l level) capacity() int { return l.lines*lanes - 1 }

// address is the bucket of a word.
func (l level) address(word uint16) int { return int(word >> (wordBits - l.bits)) }

func newTable(l level) *table {
	fps, ids := l.buckets()*l.lines*lineWords, l.buckets()*l.lines*lanes
	t := &table{level: l, mem: newRegion(fps + ids/2)}
	t.fps, t.ids = view[uint64](t.mem, 0, fps), view[uint32](t.mem, fps, ids)
	t.spares.Store(new([]*spare))
	return t
}

func (t *table) bytes() int64 {
	n := int64(len(*t.spares.Load()))
	return t.mem.bytes() + n*spareBlocks*int64(t.lines)*(lineWords*8+lanes*4)
}

// block returns the fingerprints and IDs of a bucket or, beyond those, of a spare block.
func (t *table) block(i int) ([]uint64, []uint32) {
	fps, ids := t.fps, t.ids
	if i -= t.buckets(); i >= 0 {
		s := (*t.spares.Load())[i/spareBlocks]
		fps, ids = s.fps, s.ids
		i %= spareBlocks
	} else {
		i += t.buckets()
	}
	f, d := t.lines*lineWords, t.lines*lanes
	return fps[i*f : (i+1)*f : (i+1)*f], ids[i*d : (i+1)*d : (i+1)*d]
}

func fingerprint(fps []uint64, lane int) uint16 {
	return uint16(atomic.LoadUint64(&fps[lane>>2]) >> (lane & 3 * 16))
}

// setFingerprint replaces one lane. Only the writer changes the word.
func setFingerprint(fps []uint64, lane int, v uint16) {
	word, shift := &fps[lane>>2], lane&3*16
	publish(word, *word&^(0xffff<<shift)|uint64(v)<<shift)
}

// put adds a point to a bucket.
func (t *table) put(bucket int, fp uint16, id ID) {
	t.live++
	first, firstIDs := t.block(bucket)
	if t.putBlock(first, firstIDs, fp, id) {
		return
	}
	head := int(firstIDs[0])
	if head != 0 {
		fps, ids := t.block(head)
		if t.putBlock(fps, ids, fp, id) {
			return
		}
	}
	if t.used%spareBlocks == 0 {
		old := *t.spares.Load()
		grown := append(old[:len(old):len(old)], newSpare(t.lines))
		t.spares.Store(&grown)
	}
	fresh := t.buckets() + t.used
	t.used++
	fps, ids := t.block(fresh)
	ids[0] = uint32(head)
	t.putBlock(fps, ids, fp, id)
	publishID(&firstIDs[0], uint32(fresh))
}

func newSpare(lines int) *spare {
	fps := spareBlocks * lines * lineWords
	ids := spareBlocks * lines * lanes
	mem := make([]uint64, fps+ids/2)
	r := region{words: mem}
	return &spare{fps: view[uint64](&r, 0, fps), ids: view[uint32](&r, fps, ids)}
}

func (t *table) putBlock(fps []uint64, ids []uint32, fp uint16, id ID) bool {
	head := fingerprint(fps, 0)
	count := int(head &^ vacated)
	if head&vacated != 0 {
		// The lane that was vacated, and whether it was the only one.
		free, more := 0, false
		for lane := 1; lane <= count; lane++ {
			if ids[lane] == noPoint {
				if free != 0 {
					more = true
					break
				}
				free = lane
			}
		}
		setFingerprint(fps, free, fp)
		publishID(&ids[free], uint32(id)+1)
		if !more {
			setFingerprint(fps, 0, uint16(count))
		}
		t.dead--
		return true
	}
	if count == t.capacity() {
		return false
	}
	count++
	publishID(&ids[count], uint32(id)+1)
	if count < 4 { // in one word with the count
		publish(&fps[0], fps[0]&^(0xffff<<(count*16)|0xffff)|uint64(fp)<<(count*16)|uint64(count))
		return true
	}
	setFingerprint(fps, count, fp)
	publish(&fps[0], fps[0]&^0xffff|uint64(count))
	return true
}

// remove vacates the lane of a point that is in the bucket.
func (t *table) remove(bucket int, id ID) {
	for i := bucket; ; {
		fps, ids := t.block(i)
		head := fingerprint(fps, 0)
		for lane := 1; lane <= int(head&^vacated); lane++ {
			if ids[lane] == uint32(id)+1 {
				publishID(&ids[lane], noPoint)
				setFingerprint(fps, 0, head|vacated)
				t.live--
				t.dead++
				return
			}
		}
		if i = int(ids[0]); i == 0 {
			panic("bktree: a point is not in its bucket")
		}
	}
}

// each calls visit for every point in a bucket; for the writer.
func (t *table) each(bucket int, visit func(fp uint16, id ID)) {
	for i := bucket; ; {
		fps, ids := t.block(i)
		for lane := 1; lane <= int(fingerprint(fps, 0)&^vacated); lane++ {
			if ids[lane] != noPoint {
				visit(fingerprint(fps, lane), ID(ids[lane]-1))
			}
		}
		if i = int(ids[0]); i == 0 {
			return
		}
	}
}

// lineOf returns the address of the first fingerprints of a bucket, and of its IDs, to
// be fetched ahead of use.
func (t *table) lineOf(bucket int) (fps, ids unsafe.Pointer) {
	return unsafe.Pointer(&t.fps[bucket*t.lines*lineWords]), unsafe.Pointer(&t.ids[bucket*t.lines*lanes])
}
