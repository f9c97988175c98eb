package bktree

import (
	"sync/atomic"
	"unsafe"
)

// sweep is the part of a search that a kernel does: some buckets of one table.
// The assembly knows the fields by their offsets.
type sweep struct {
	at       unsafe.Pointer // 0: *uintptr, the addresses of the buckets, and of those that come after
	flips    unsafe.Pointer // 8: *uint32, how the buckets differ from key; see ball
	n        int            // 16: how many flips
	fps      unsafe.Pointer // 24: *uint64, the memory of the table
	distance int            // 32: how far ahead in at is the bucket to be fetched
	fp       int            // 40: the query's next word
	allow    int            // 48: bits by which a fingerprint may differ from it, less those flipped in the key
	capacity int            // 56: of a bucket
	ahead    int            // 64: lines of a bucket to fetch ahead; 0: none
	_        int            // 72: the kernel's place in shells
	shells   unsafe.Pointer // 80: *uint32, where flips begin to be of one bit more, by how many buckets are left; then 0

	// The same for sweepGo, which the race detector and checkptr watch.
	key    int // the bucket of the query's own word
	stride int // lines from one bucket's fingerprints to the next one's
	lines  int // of fingerprints in a bucket

	// For what becomes of the hits.
	table  *table
	word   int
	asked  int    // the point asked for, by its number in the search
	tag    uint32 // of the query
	rest   int    // how many bits of a tag are the next word's
	more   int    // bits that may differ in the word after the next one, besides what is left of allow
	turned bool   // the bucket has points whose word begins with another bit than the query's
}

// hit is a cache line with fingerprints that may differ as much as they do.
type hit struct {
	line uint32 // counted from the start of the table
	mask uint32 // the lanes
	left uint32 // buckets from its own on, itself included
	_    uint32
}

// A kernel goes through the buckets of a sweep and writes to hits the lines with
// candidates, and to full which buckets are full and may go on elsewhere, as left in hit. While it is at one it
// asks for the lines of another, so that memory is never waited for idly. It
// returns the number of each. There is room for all buckets and all of their lines.
//
// Kernels that use instructions read lines while the writer changes them. That is right on amd64: its stores become visible in program order, a
// vector load is made of aligned loads of at least eight bytes, and those are never
// torn. So an entry whose Insert returned before the query began is seen entirely, and of one that is being
// written any part may be seen: a part is a candidate at most. On arm64 an Insert that returned before has made
// its stores visible to whoever learned of it, and loads of eight bytes are not torn either. The race
// detector cannot see into assembly, so a race build has the Go kernel alone,
// which does the same with atomic loads.
type kernel struct {
	name    string
	sweep   func(s *sweep, hits *hit, full *uint32) (nhits, nfull int)
	fetches bool // lines can be fetched ahead
}

var goKernel = kernel{name: "go", sweep: sweepGo}

// best is the fastest kernel of this processor.
var best = kernels()[0]

const low16 = 0x0001_0001_0001_0001 // one in each lane

// sweepGo counts the bits of four lanes in each step.
func sweepGo(s *sweep, hits *hit, full *uint32) (nhits, nfull int) {
	if s.n == 0 {
		return 0, 0
	}
	flips := unsafe.Slice((*uint32)(s.flips), s.n)
	query := uint64(s.fp) * low16
	if s.ahead > 0 { // all at once: a call for each would cost a fifth of the time
		fetchBuckets((*uintptr)(unsafe.Add(s.at, s.distance*8)), s.n, s.ahead)
	}
	for i, flip := range flips {
		bucket := s.key ^ int(flip&keyMask)
		allow := (uint64(s.allow)-uint64(flip>>keyBits))*low16 | 0x8000*low16
		line := bucket * s.stride
		words := unsafe.Slice((*uint64)(unsafe.Add(s.fps, line*lineWords*8)), s.lines*lineWords)
		count := int(atomic.LoadUint64(&words[0]) & (vacated - 1))
		if count == s.capacity {
			*(*uint32)(unsafe.Add(unsafe.Pointer(full), nfull*4)) = uint32(s.n - i)
			nfull++
		}
		valid := ^uint32(1) // lane 0 is the count
		for left := count + 1; left > 0; left -= lanes {
			var mask uint32
			w := (*[lineWords]uint64)(words)
			// Only the words that have lanes in use.
			for i := 0; i < min(left+3, lanes)>>2; i++ {
				x := atomic.LoadUint64(&w[i]) ^ query
				x -= x >> 1 & 0x5555555555555555
				x = x&0x3333333333333333 + x>>2&0x3333333333333333
				x = (x + x>>4) & 0x0f0f0f0f0f0f0f0f
				x = (x + x>>8) & (0x1f * low16)
				x = (allow - x) >> 15 & low16 // 1 where the count is at most allow
				if x != 0 {
					mask |= uint32((x|x>>15|x>>30|x>>45)&0xf) << (4 * i)
				}
			}
			if left < lanes {
				mask &= 1<<left - 1
			}
			if mask &= valid; mask != 0 {
				*(*hit)(unsafe.Add(unsafe.Pointer(hits), nhits*16)) = hit{line: uint32(line), mask: mask, left: uint32(s.n - i)}
				nhits++
			}
			valid = ^uint32(0)
			line++
			words = words[lineWords:]
		}
	}
	return nhits, nfull
}
