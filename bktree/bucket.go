package bktree

import (
	"math"
	"sync/atomic"
	"unsafe"
)

// A table is what the search knows of one word of the ring: buckets of points by the upper
// bits of that word. A bucket has lanes. In lane i there are the first 16 bits of the next word of a point, its
// fingerprint, which the search compares first, and its entry: the ID, stored plus one, and in the bits
// that no ID of this table needs the bits that follow the fingerprint on the ring, its tag, which
// is compared before the point is fetched. A bucket's fingerprints are
// whole cache lines of 32 lanes, and its entries the lines that follow, because few of them
// are ever read. They are not in an array of their own: to find the page of a distant address takes longer
// than to read the line, in a virtual machine several times as long. But in folded tables they are, whose many short buckets
// would be in too many pages otherwise; these keep the first bits of tags where a block has lanes to spare, see spareTag.
//
// Lane 0 holds no point: its fingerprint is the bucket's count, and its entry the
// number of the block to go on with, or 0. A block is a bucket like the others, filled when
// the first is full. Those come in spares, and the newest is the first in the chain.
//
// There is one writer; readers take no lock. Entries do not move within a table, so a reader misses
// none. The writer stores an entry, then its fingerprint, then the count that takes them in, each
// atomically, so whoever sees an entry counted sees all of it. A vacated lane has
// the entry noPoint; a later point takes it in the same order, entry last this time. Should a
// reader combine the old fingerprint with the new entry, it gets a point that
// is in the index, and judges it by its full distance, as it does every candidate.
type table struct {
	level
	memory
	idBits int  // of an entry that hold the ID
	folded bool // as the level says, like blocks: kept because an insert asks in every table
	blocks
	spares      atomic.Pointer[[]memory] // replaced as a whole
	spareBlocks int                      // in each of spares
	used        int                      // blocks in use in spares; the writer's, as are:
	live        int
	dead        int // vacated lanes
}

// blocks says where the blocks of a table are in its memory.
type blocks struct {
	fpStep int // from the fingerprints of one block to those of the next
	idStep int // from its entries to those of the next
	idBase int // the first block's entries
}

// memory is that of some blocks, the same seen as fingerprints and as entries.
type memory struct {
	fps []uint64 // four lanes in each
	ids []uint32
	mem *region
}

// level is the shape of a table.
type level struct {
	cut   *cutting
	bits  int // of the word that choose the bucket
	lines int // of 32 lanes in a bucket
}

const (
	fingerprintBits = 16

	lanes     = 32     // fingerprints in a cache line
	lineWords = 8      // 64-bit words in a cache line
	linesEach = 3      // cache lines for the fingerprints and the entries of 32 lanes
	minIDBits = 16     // as a tag has no more than the bits of a word
	noPoint   = 0      // IDs are stored plus one, so zeroed memory is empty
	vacated   = 0x8000 // flag in the count: a lane of this bucket is free again
)

func (l level) buckets() int  { return 1 << l.bits }
func (l level) capacity() int { return l.lines*lanes - 1 }

// address is the bucket of a word. If it is folded, turn has ones where the fingerprint and the tag of
// the point are to be turned, which is everywhere or nowhere.
func (t *table) address(word uint32) (bucket int, turn uint16) {
	if t.folded {
		all := uint32(int32(word) >> 31)
		return int((word ^ all) << 1 >> (32 - t.bits)), uint16(all)
	}
	return int(word >> (32 - t.bits)), 0
}

// of is the shape of the table of word c. Where a word is too narrow for as many buckets, it has a quarter
// of them, of as many lines as are needed when other words' buckets are as full as
// fits allows: half the buckets would leave more lanes empty.
func (l level) of(c int) level {
	width := l.cut.width[c]
	if l.cut.folded {
		width--
	}
	if l.bits <= width {
		return l
	}
	mean := 4 * float64(l.fits()>>l.bits)
	return level{l.cut, l.bits - 2, int(math.Ceil((mean + 1.5*math.Sqrt(mean) + 1) / lanes))}
}

// newTable returns an empty table for the IDs below 1<<idBits - 1.
func newTable(l level, idBits int) *table {
	mem := newRegion(l.buckets() * l.lines * linesEach * lineWords)
	t := &table{level: l, memory: l.memoryOf(mem), idBits: idBits, folded: l.cut.folded, blocks: l.blocks(), spareBlocks: 32}
	if t.hugeSpares() {
		t.spareBlocks = hugePage / (l.lines * linesEach * lineWords * 8)
	}
	t.spares.Store(new([]memory))
	return t
}

func (l level) memoryOf(r *region) memory {
	n := len(r.words)
	if l.cut.folded {
		fps := n / linesEach &^ (lineWords - 1)
		return memory{view[uint64](r, 0, fps), view[uint32](r, fps, 2*(n-fps)), r}
	}
	return memory{view[uint64](r, 0, n), view[uint32](r, 0, 2*n), r}
}

// hugeSpares reports whether spares come in huge pages. 1 bucket in 100 goes on in one of them, see fits, and to find those of
// short buckets, of which a search looks at many, in small pages took a tenth of its time.
func (t *table) hugeSpares() bool { return t.folded && t.mem.mapped != nil && t.lines <= 2 }

// moreSpares is memory for spareBlocks.
func (t *table) moreSpares() memory {
	if t.hugeSpares() {
		return t.memoryOf(newRegion(hugePage / 8))
	}
	return t.memoryOf(&region{words: make([]uint64, t.spareBlocks*t.lines*linesEach*lineWords)})
}

func (t *table) bytes() int64 {
	total := t.mem.bytes()
	for _, s := range *t.spares.Load() {
		total += s.mem.bytes()
	}
	return total
}

// mapped calls visit for the memory that is to be given back when nobody can be looking at the table.
func (t *table) mapped(visit func(*region)) {
	visit(t.mem)
	for _, s := range *t.spares.Load() {
		if s.mem.mapped != nil {
			visit(s.mem)
		}
	}
}

// entry is what a table keeps of a point besides its fingerprint; following are the bits that
// follow that on the ring.
func (t *table) entry(id ID, following uint16) uint32 {
	return uint32(id) + 1 | t.tag(following)<<t.idBits
}

// tag is what an entry keeps of the bits that follow the fingerprint.
func (t *table) tag(following uint16) uint32 { return uint32(following >> (t.idBits - minIDBits)) }

// tagBits is how many these are.
func (t *table) tagBits() int { return 32 - t.idBits }

// spareTag returns the first bits of the tag of a lane, from 1, of a block of a folded table, and false if they are not kept:
// a block of many points has no room for those of the last lanes. Tables that are not folded have none,
// as an insert takes an eighth longer with them.
func (t *table) spareTag(fps []uint64, lane int) (tag uint8, ok bool) {
	at := t.spareTagOf(lane)
	tag = uint8(atomic.LoadUint64(&fps[at>>4])>>(at&15*spareTagBits)) & (1<<spareTagBits - 1)
	// The count is read after the tag: one more than are counted may be written just now, but no more than that had
	// been when the tag was read.
	count := int(fingerprint(fps, 0)&^vacated) + 1
	return tag, at >= 4*(count+1)
}

// spareTagBits are enough for what the next word has besides the fingerprint, which is what most candidates fail by; with
// twice as many bits, in half as many lanes, 70 entries were looked at for 54.
const spareTagBits = 4

// spareTagOf says where the tag of a lane is in a block, in fours of bits: the last is that of lane 1.
func (t *table) spareTagOf(lane int) int { return t.lines*lineWords*16 - lane }

// setSpareTag keeps it, if there is room when so many lanes are in use. For the writer of a folded table.
func (t *table) setSpareTag(fps []uint64, lane, count int, entry uint32) {
	at := t.spareTagOf(lane)
	if at < 4*(count+1) {
		return
	}
	tag := uint64(entry>>t.idBits) << spareTagBits >> t.tagBits()
	word, shift := &fps[at>>4], at&15*spareTagBits
	publish(word, *word&^((1<<spareTagBits-1)<<shift)|tag<<shift)
}

// id returns the ID of an entry other than noPoint.
func (t *table) id(entry uint32) ID { return ID(entry&(1<<t.idBits-1)) - 1 }

// block returns the fingerprints and entries of a bucket or, beyond those, of a spare block.
func (t *table) block(i int) ([]uint64, []uint32) {
	m := &t.memory
	if i -= t.buckets(); i >= 0 {
		m = &(*t.spares.Load())[i/t.spareBlocks]
		i %= t.spareBlocks
	} else {
		i += t.buckets()
	}
	fps, ids := i*t.fpStep, i*t.idStep+t.idBase
	return m.fps[fps:][: t.lines*lineWords : t.lines*lineWords], m.ids[ids:][: t.lines*lanes : t.lines*lanes]
}

func (l level) blocks() blocks {
	if l.cut.folded {
		return blocks{fpStep: l.lines * lineWords, idStep: l.lines * lanes}
	}
	words := l.lines * linesEach * lineWords
	return blocks{fpStep: words, idStep: 2 * words, idBase: l.lines * lineWords * 2}
}

// stride is the lines from the fingerprints of one block to those of the next.
func (b blocks) stride() int { return b.fpStep / lineWords }

func fingerprint(fps []uint64, lane int) uint16 {
	return uint16(atomic.LoadUint64(&fps[lane>>2]) >> (lane & 3 * 16))
}

// setFingerprint replaces one lane. Only the writer changes the word.
func setFingerprint(fps []uint64, lane int, v uint16) {
	word, shift := &fps[lane>>2], lane&3*16
	publish(word, *word&^(0xffff<<shift)|uint64(v)<<shift)
}

// put adds a point to a bucket.
func (t *table) put(bucket int, fp uint16, entry uint32) {
	t.live++
	first, firstIDs := t.block(bucket)
	if t.putBlock(first, firstIDs, fp, entry) {
		return
	}
	head := int(firstIDs[0])
	if head != 0 {
		fps, ids := t.block(head)
		if t.putBlock(fps, ids, fp, entry) {
			return
		}
	}
	if t.used%t.spareBlocks == 0 {
		old := *t.spares.Load()
		grown := append(old[:len(old):len(old)], t.moreSpares())
		t.spares.Store(&grown)
	}
	fresh := t.buckets() + t.used
	t.used++
	fps, ids := t.block(fresh)
	ids[0] = uint32(head)
	t.putBlock(fps, ids, fp, entry)
	publishID(&firstIDs[0], uint32(fresh))
}

func (t *table) putBlock(fps []uint64, ids []uint32, fp uint16, entry uint32) bool {
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
		if t.folded {
			t.setSpareTag(fps, free, count, entry)
		}
		publishID(&ids[free], entry)
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
	publishID(&ids[count], entry)
	if t.folded {
		t.setSpareTag(fps, count, count, entry)
	}
	if count < 4 { // in one word with the count
		publish(&fps[0], fps[0]&^(0xffff<<(count*16)|0xffff)|uint64(fp)<<(count*16)|uint64(count))
		return true
	}
	setFingerprint(fps, count, fp)
	publish(&fps[0], fps[0]&^0xffff|uint64(count))
	return true
}

// remove vacates the lane of a point that is in the bucket of a word.
func (t *table) remove(word uint32, id ID) {
	bucket, _ := t.address(word)
	for i := bucket; ; {
		fps, ids := t.block(i)
		head := fingerprint(fps, 0)
		for lane := 1; lane <= int(head&^vacated); lane++ {
			if ids[lane] != noPoint && t.id(ids[lane]) == id {
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
func (t *table) each(bucket int, visit func(fp uint16, entry uint32)) {
	for i := bucket; ; {
		fps, ids := t.block(i)
		for lane := 1; lane <= int(fingerprint(fps, 0)&^vacated); lane++ {
			if ids[lane] != noPoint {
				visit(fingerprint(fps, lane), ids[lane])
			}
		}
		if i = int(ids[0]); i == 0 {
			return
		}
	}
}

// lineOf returns the address of the first fingerprints of a bucket, and of its entries, to
// be fetched ahead of use.
func (t *table) lineOf(bucket int) (fps, ids unsafe.Pointer) {
	return unsafe.Pointer(&t.fps[bucket*t.fpStep]), unsafe.Pointer(&t.ids[bucket*t.idStep+t.idBase])
}
