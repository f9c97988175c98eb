package bktree

import (
	"math/bits"
	"unsafe"
)

// A cutting is a way to cut points into the words of a ring, and says whether its tables
// are folded: a folded table files a point whose word begins with a one as if all of its bits
// were turned, so that a point and its complement share a bucket, and a search finds both.
type cutting struct {
	words  int
	width  [maxWords]int // bits of each word
	offset [maxWords]int // of its lowest bit in the point
	rest   [maxWords]int // bits of the next word that are not in the fingerprint
	even   bool          // all words have 16 bits
	folded bool
	splits []split // by radius
}

// pieces are the words of a point, each with its first bit in bit 31 and zeros behind its last. The
// first two follow again after the last: the words are a ring.
type pieces [maxWords + 2]uint32

const maxWords = 16

var (
	four    = newCutting(nil, 16, 16, 16, 16)
	sixteen = newCutting(nil, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16)
	// thirteen has its narrow words where radii of 30 and 31 have thresholds of 1: those
	// look up few buckets, which may be longer.
	thirteen = newCutting([]int{2, 8, 4, 10, 6, 12, 9, 11, 0, 5, 1, 7, 3}, 19, 19, 20, 19, 20, 19, 20, 19, 20, 20, 20, 21, 20)
)

// newCutting returns one that is folded if first is given, see makeSplits.
func newCutting(first []int, widths ...int) *cutting {
	k := &cutting{words: len(widths), even: true, folded: first != nil, splits: makeSplits(len(widths), first)}
	at := 0
	for c, w := range widths {
		k.width[c], k.offset[c] = w, at
		k.even = k.even && w == 16
		k.rest[c] = widths[(c+1)%len(widths)] - fingerprintBits
		at += w
	}
	return k
}

// piece returns one word of a permuted point, of which these are the 64-bit words.
func (k *cutting) piece(point []uint64, c int) uint32 {
	at, shift, width := k.offset[c]>>6, k.offset[c]&63, k.width[c]
	v := point[at] >> shift
	if shift+width > 64 {
		v |= point[at+1] << (64 - shift)
	}
	return uint32(v) << (32 - width)
}

// cut cuts a permuted point.
func cut[P Point](k *cutting, p *P, w *pieces) {
	point := unsafe.Slice((*uint64)(unsafe.Pointer(p)), int(unsafe.Sizeof(*p))/8)
	if k.even {
		for i, x := range point {
			low, high := uint32(x), uint32(x>>32)
			w[4*i], w[4*i+1], w[4*i+2], w[4*i+3] = low<<16, low&0xffff0000, high<<16, high&0xffff0000
		}
	} else {
		for c := range k.words {
			w[c] = k.piece(point, c)
		}
	}
	w[k.words], w[k.words+1] = w[0], w[1]
}

// fingerprint is the first 16 bits of the word after word c, and following the 16 bits that follow those
// on the ring: what that word has besides, and the first of the next.
func (k *cutting) fingerprint(w *pieces, c int) (fp, following uint16) {
	return k.beside(w[c+1], w[c+2], c)
}

func (k *cutting) beside(next, after uint32, c int) (fp, following uint16) {
	rest := next<<16 | after>>k.rest[c]
	return uint16(next >> 16), uint16(rest >> 16)
}

// distances counts the bits set in each word.
func (w *pieces) distances(words int) (d distances) {
	for c := range words + 2 {
		d[c] = int8(bits.OnesCount32(w[c]))
	}
	return d
}

// distances are those of two points word by word.
type distances [maxWords + 2]int8

// difference has ones where two points differ.
func difference[P Point](p, q P) P {
	switch p := any(&p).(type) {
	case *Point64:
		*p ^= *any(&q).(*Point64)
	case *Point256:
		for i, w := range any(&q).(*Point256) {
			p[i] ^= w
		}
	}
	return p
}

// complement is the point with all bits turned.
func complement[P Point](p P) P {
	switch p := any(&p).(type) {
	case *Point64:
		*p = ^*p
	case *Point256:
		for i, w := range p {
			p[i] = ^w
		}
	}
	return p
}
