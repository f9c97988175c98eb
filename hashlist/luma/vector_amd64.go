package luma

import "golang.org/x/sys/cpu"

// vectors reports whether the functions below may be called. Tests set it.
var vectors = cpu.X86.HasAVX2

// lumaSingles fills row with the luma of n pixels that have chroma each; n is a multiple of 8.
//
//go:noescape
func lumaSingles(row *uint32, y, cb, cr *uint8, n int)

// lumaPairs does the same for pixels of which two share chroma; n is a multiple of 16.
//
//go:noescape
func lumaPairs(row *uint32, y, cb, cr *uint8, n int)

// lumaGrays does the same for grey pixels; n is a multiple of 8.
//
//go:noescape
func lumaGrays(row *uint32, y *uint8, n int)

// weighVector returns the sum of n values times their weights; n is a multiple of 8, and every
// eighth value's share of the sum must fit in 32 bits.
//
//go:noescape
func weighVector(row, weights *uint32, n int) uint64

// weighBytes returns the sum of n bytes times their weights, which are below 32,768; n is a multiple of 16,
// and the sum fits in 31 bits.
//
//go:noescape
func weighBytes(in *uint8, weights *uint16, n int) uint32
