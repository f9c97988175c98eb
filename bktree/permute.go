package bktree

// Perceptual hashes are not random bits: neighbours in the hash stand for
// neighbouring frequencies and go together. Words cut from a hash as it is
// stored therefore crowd into fewer buckets than random ones: real PDQ hashes
// make a search look at a third more candidates than random bits would, and worse
// cuts at two to four times as many. So every point is permuted before it is cut,
// always in the same way, which changes no distance.
//
// The permutation is a network of exchanges, one stage for each distance 1, 2,
// 4 ... 128 between bit positions: at each stage every pair of bits that far
// apart is exchanged or not, as a fixed random mask says. After all stages each bit may have come
// from anywhere. That takes some fifty instructions; a table for an arbitrary permutation
// would need a quarter of a megabyte of the cache that the search wants.
type network struct {
	within [6][4]uint64 // exchanges inside the words, at distances 1<<stage
	across [2][2]uint64 // exchanges between words, one and two apart
}

// shuffle is the network in use. Its masks are successive outputs of SplitMix64
// (G. L. Steele, D. Lea, C. H. Flood, "Fast splittable pseudorandom number
// generators", 2014). The seed is the one of 1 to 300 that spreads the 733 unrelated hashes
// among the sample images of the PDQ reference best: with it a search meets 1.03
// times the candidates that random bits would give, and 1.21 times in the worst word; other seeds
// 1.1 to 1.2, hashes as they are stored 1.32 and 2.3. Nothing that
// leaves the process depends on it.
var shuffle = newNetwork(shuffleSeed)

const shuffleSeed = 89

func newNetwork(seed uint64) *network {
	next := func() uint64 {
		seed += 0x9e3779b97f4a7c15
		z := seed
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		return z ^ z>>31
	}
	n := new(network)
	// The lower position of each pair at distance 1, 2, 4 ...
	lower := [6]uint64{
		0x5555555555555555, 0x3333333333333333, 0x0f0f0f0f0f0f0f0f,
		0x00ff00ff00ff00ff, 0x0000ffff0000ffff, 0x00000000ffffffff,
	}
	for s := range n.within {
		for w := range n.within[s] {
			n.within[s][w] = next() & lower[s]
		}
	}
	for s := range n.across {
		for w := range n.across[s] {
			n.across[s][w] = next()
		}
	}
	return n
}

// exchange swaps the bits of x that mask names with those distance above them.
func exchange(x, mask uint64, distance int) uint64 {
	t := (x>>distance ^ x) & mask
	return x ^ t ^ t<<distance
}

// permute and restore are each other's inverse: the stages undo themselves and
// run backwards.
func permute[P Point](p P) P {
	switch p := any(&p).(type) {
	case *Point64:
		*p = Point64(shuffle.forward(uint64(*p), 0))
	case *Point256:
		for w := range p {
			p[w] = shuffle.forward(p[w], w)
		}
		shuffle.cross(p, 0)
		shuffle.cross(p, 1)
	}
	return p
}

func restore[P Point](p P) P {
	switch p := any(&p).(type) {
	case *Point64:
		*p = Point64(shuffle.backward(uint64(*p), 0))
	case *Point256:
		shuffle.cross(p, 1)
		shuffle.cross(p, 0)
		for w := range p {
			p[w] = shuffle.backward(p[w], w)
		}
	}
	return p
}

func (n *network) forward(x uint64, w int) uint64 {
	x = exchange(x, n.within[0][w], 1)
	x = exchange(x, n.within[1][w], 2)
	x = exchange(x, n.within[2][w], 4)
	x = exchange(x, n.within[3][w], 8)
	x = exchange(x, n.within[4][w], 16)
	return exchange(x, n.within[5][w], 32)
}

func (n *network) backward(x uint64, w int) uint64 {
	x = exchange(x, n.within[5][w], 32)
	x = exchange(x, n.within[4][w], 16)
	x = exchange(x, n.within[3][w], 8)
	x = exchange(x, n.within[2][w], 4)
	x = exchange(x, n.within[1][w], 2)
	return exchange(x, n.within[0][w], 1)
}

// cross exchanges bits between words one apart (stage 0) or two (stage 1).
func (n *network) cross(p *Point256, stage int) {
	apart := 1 << stage
	for i, mask := range n.across[stage] {
		a := i << (1 - stage) // 0 and 2, or 0 and 1
		t := (p[a] ^ p[a+apart]) & mask
		p[a] ^= t
		p[a+apart] ^= t
	}
}
