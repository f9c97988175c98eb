package bktree

import (
	"runtime"
	"sync/atomic"
	"unsafe"
)

// region is memory for arrays without pointers. Where the system allows it lies
// outside the Go heap: there it can be had in huge pages, which make a random
// access up to twice as fast, and it does not make the garbage collector think
// that the program holds twice as much.
type region struct {
	words   []uint64
	mapped  []byte // nil: words is ordinary Go memory
	cleanup runtime.Cleanup
}

const hugePage = 2 << 20

// mappedBytes is what all regions have mapped.
var mappedBytes atomic.Int64

// newRegion returns zeroed memory for n words, n > 0. What is smaller than a huge
// page comes from the Go heap.
func newRegion(n int) *region {
	r := new(region)
	if size := n * 8; size >= hugePage {
		size = (size + hugePage - 1) &^ (hugePage - 1)
		mapped, offset := mapHuge(size)
		if mapped != nil {
			r.mapped = mapped
			r.words = unsafe.Slice((*uint64)(unsafe.Pointer(&mapped[offset])), size/8)[:n]
			// For an Index that is dropped as a whole: it has no Close.
			r.cleanup = runtime.AddCleanup(r, unmap, r.mapped)
			return r
		}
	}
	// At least 32 KiB, which Go aligns to a page, so that no bucket straddles
	// two cache lines.
	r.words = make([]uint64, n, max(n, 32<<10/8+1))
	return r
}

// free gives mapped memory back at once. Nobody may look at it any more.
func (r *region) free() {
	if r.mapped != nil {
		r.cleanup.Stop()
		unmap(r.mapped)
	}
	r.words, r.mapped = nil, nil
}

// touch has the system give a huge page of fresh memory, which it clears first: that takes a millisecond. It returns
// false when there is none of that number.
func (r *region) touch(page int) bool {
	at := page * hugePage / 8
	if at >= len(r.words) {
		return false
	}
	r.words[at] = 0
	return true
}

func (r *region) bytes() int64 {
	return int64(cap(r.words)) * 8
}

// view returns the region as n values of another type without pointers, starting
// at the given word.
func view[T any](r *region, word, n int) []T {
	if n == 0 {
		return nil
	}
	tail := r.words[word:]
	var t T
	_ = tail[(n*int(unsafe.Sizeof(t))+7)/8-1]
	return unsafe.Slice((*T)(unsafe.Pointer(&tail[0])), n)
}
