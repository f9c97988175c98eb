package bktree

import "math/bits"

// Point64 is a 64-bit point, such as a pHash.
type Point64 uint64

// Point256 is a 256-bit point, such as a PDQ hash. Word 0 holds the most
// significant 64 bits.
type Point256 [4]uint64

// Point is what an Index can hold.
type Point interface{ Point64 | Point256 }

// Distance is the Hamming distance between two points: the number of bits in
// which they differ, 0 to 64 or 0 to 256.
func Distance[P Point](a, b P) int {
	// Pointers, because a pointer fits an interface value without a copy.
	switch a := any(&a).(type) {
	case *Point64:
		return bits.OnesCount64(uint64(*a ^ *any(&b).(*Point64)))
	case *Point256:
		b := any(&b).(*Point256)
		return bits.OnesCount64(a[0]^b[0]) + bits.OnesCount64(a[1]^b[1]) +
			bits.OnesCount64(a[2]^b[2]) + bits.OnesCount64(a[3]^b[3])
	}
	panic("unreachable: Point has two members")
}
