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

// fetchLines asks for n cache lines from an address on, n > 0.
func fetchLines(at uintptr, n int)

// ownLine asks for one cache line, to write to it.
//
//go:noescape
func ownLine(p unsafe.Pointer)
