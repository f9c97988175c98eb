//go:build !amd64

package luma

// No machine here has AVX2.
const vectors = false

func lumaSingles(row *uint32, y, cb, cr *uint8, n int)    {}
func lumaPairs(row *uint32, y, cb, cr *uint8, n int)      {}
func lumaGrays(row *uint32, y *uint8, n int)              {}
func weighVector(row, weights *uint32, n int) uint64      { return 0 }
func weighBytes(in *uint8, weights *uint16, n int) uint32 { return 0 }
