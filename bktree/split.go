package bktree

import "math/bits"

// maxThreshold is the largest number of differing bits per word that a search
// enumerates: 2,517 keys of 16 bits. Radii that need more are left to the scan.
const maxThreshold = 4

// A split gives each word of the ring a threshold, so that a search needs to
// look only at points that are within it in some word; see the package comment for why
// that is exact. A word with the threshold -1 is never looked up.
type split [maxWords + 2]int8

// splits holds the split for each radius, for points of 4 and of 16 words:
// thresholds as equal as possible, because the number of keys grows twelvefold
// with each bit, and the larger ones spread evenly over the ring, because a pair of
// neighbours is filtered by the sum of theirs.
var (
	splits64  = makeSplits(4)
	splits256 = makeSplits(16)
)

func makeSplits(words int) []split {
	largest := words*(maxThreshold+1) - 1
	all := make([]split, largest+1)
	for radius := range all {
		for c := range words {
			// The sum of (threshold + 1) is radius + 1.
			all[radius][c] = int8((c+1)*(radius+1)/words - c*(radius+1)/words - 1)
		}
		all[radius][words], all[radius][words+1] = all[radius][0], all[radius][1]
	}
	return all
}

// splitFor returns the thresholds for a radius, or nil when there are none.
func splitFor(words, radius int) *split {
	all := splits256
	if words == 4 {
		all = splits64
	}
	if radius < 0 || radius >= len(all) {
		return nil
	}
	return &all[radius]
}

// starts reports the first word from which a point at the given distances word by
// word can be found: where it is within the threshold, with the next word together within both, and with
// the one after within all three.
// The ring lemma says that there is one if the point is within the radius. It is the
// only word from which the point is reported, so that it is reported once.
func (s *split) starts(d *[maxWords + 2]int8, words int) int {
	for c := range words {
		if d[c] <= s[c] && d[c]+d[c+1] <= s[c]+s[c+1]+1 && d[c]+d[c+1]+d[c+2] <= s[c]+s[c+1]+s[c+2]+2 {
			return c
		}
	}
	return -1
}

// ball is the Hamming ball round 0 among keys of some width, nearest first:
// what to flip in a key to get every key within a threshold. The lower half of an element is the
// flips, the upper half how many they are.
type ball struct {
	flips []uint32
	size  [maxThreshold + 1]int // keys within each threshold

	// By threshold and allowance: how many candidates to expect from the keys
	// within the threshold for each point in a bucket, were the bits random.
	pass [maxThreshold + 1][2*maxThreshold + 2]float64
}

// balls by the width of the keys; only the widths of levels are filled.
var balls [wordBits + 1]*ball

func init() {
	for _, l := range levels {
		if balls[l.bits] == nil {
			balls[l.bits] = newBall(l.bits)
		}
	}
}

func newBall(width int) *ball {
	b := new(ball)
	for k := range b.size {
		for f := range uint32(1) << width {
			if bits.OnesCount32(f) == k {
				b.flips = append(b.flips, uint32(k)<<16|f)
			}
		}
		b.size[k] = len(b.flips)
	}
	// within[d]: 16-bit words at distance d or less from one, as a part of all.
	var within [2*maxThreshold + 2]float64
	for d, c, sum := 0, 1, 0; d < len(within); d++ {
		sum += c
		within[d] = float64(sum) / (1 << wordBits)
		c = c * (wordBits - d) / (d + 1)
	}
	for threshold := range b.pass {
		for allow := range b.pass[threshold] {
			for _, flip := range b.flips[:b.size[threshold]] {
				if k := int(flip >> 16); k <= allow {
					b.pass[threshold][allow] += within[allow-k]
				}
			}
		}
	}
	return b
}
