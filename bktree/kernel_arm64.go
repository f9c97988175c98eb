//go:build !race

package bktree

import "unsafe"

// kernels returns those that this processor can run, fastest first. Every 64-bit ARM
// has these instructions.
func kernels() []kernel {
	return []kernel{{"neon", sweepNEON, fetch}, {"go+fetch", sweepGo, fetch}, goKernel}
}

//go:noescape
func sweepNEON(s *sweep, hits *hit, full *uint32) (nhits, nfull int)

// fetch asks for the lines of a sweep to be brought near the processor.
//
//go:noescape
func fetch(s *sweep)

// fetchLine asks for one cache line.
//
//go:noescape
func fetchLine(p unsafe.Pointer)

// ownLine asks for one cache line, to write to it.
//
//go:noescape
func ownLine(p unsafe.Pointer)
