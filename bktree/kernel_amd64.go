//go:build amd64 && !race

package bktree

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

// kernels returns those that this processor can run, fastest first. That the
// operating system saves the wide registers is part of what cpu reports.
func kernels() []kernel {
	var k []kernel
	if cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512BITALG && cpu.X86.HasBMI2 {
		k = append(k, kernel{"avx512", sweepAVX512, true})
	}
	if cpu.X86.HasAVX2 && cpu.X86.HasBMI2 {
		k = append(k, kernel{"avx2", sweepAVX2, true})
	}
	// Fetching ahead is a third of the gain, and needs no vector instructions.
	return append(k, kernel{"go+fetch", sweepGo, true}, goKernel)
}

//go:noescape
func sweepAVX512(s *sweep, hits *hit, full *uint32) (nhits, nfull int)

//go:noescape
func sweepAVX2(s *sweep, hits *hit, full *uint32) (nhits, nfull int)

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
