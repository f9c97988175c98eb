//go:build !race

package bktree

import "unsafe"

// kernels returns those that this processor can run, fastest first. Every 64-bit ARM
// has these instructions.
func kernels() []kernel {
	return []kernel{{"neon", sweepNEON, true}, {"go+fetch", sweepGo, true}, goKernel}
}

//go:noescape
func sweepNEON(s *sweep, hits *hit, full *uint32) (nhits, nfull int)

// fetchLine asks for one cache line.
//
//go:noescape
func fetchLine(p unsafe.Pointer)

// fetchBuckets asks for so many lines of each of n buckets, of which at is the first's address. Neither is 0.
//
//go:noescape
func fetchBuckets(at *uintptr, n, lines int)

// ownLine asks for one cache line, to write to it.
//
//go:noescape
func ownLine(p unsafe.Pointer)
