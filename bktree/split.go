package bktree

import "slices"

// maxThreshold is the largest number of differing bits per word that a search
// enumerates: 2,517 keys of 16 bits, 5,036 of 19. Radii that need more are left to the scan.
const maxThreshold = 4

// A split gives each word of the ring a threshold, so that a search needs to
// look only at points that are within it in some word; see the package comment for why
// that is exact. A word with the threshold -1 is never looked up.
type split distances

// makeSplits returns the split for each radius for so many words:
// thresholds as equal as possible, because the number of keys grows twelvefold
// with each bit, and the larger ones spread evenly over the ring, because a pair of
// neighbours is filtered by the sum of theirs. If first is given, it is all words in the
// order in which they get them.
func makeSplits(words int, first []int) []split {
	largest := words*(maxThreshold+1) - 1
	all := make([]split, largest+1)
	for radius := range all {
		// The sum of (threshold + 1) is radius + 1.
		for c := range words {
			all[radius][c] = int8((c+1)*(radius+1)/words - c*(radius+1)/words - 1)
			if first != nil {
				all[radius][c] = int8((radius+1)/words - 1 + one(slices.Index(first, c) < (radius+1)%words))
			}
		}
		all[radius][words], all[radius][words+1] = all[radius][0], all[radius][1]
	}
	return all
}

// split returns the thresholds for a radius, or nil when there are none.
func (k *cutting) split(radius int) *split {
	if radius < 0 || radius >= len(k.splits) {
		return nil
	}
	return &k.splits[radius]
}

// starts reports the first word from which a point at the given distances word by
// word can be found: where it is within the threshold, with the next word together within both, and with
// the one after within all three.
// The ring lemma says that there is one if the point is within the radius. It is the
// only word from which the point is reported, so that it is reported once.
func (s *split) starts(d *distances, words int) int {
	for c := range words {
		if d[c] <= s[c] && d[c]+d[c+1] <= s[c]+s[c+1]+1 && d[c]+d[c+1]+d[c+2] <= s[c]+s[c+1]+s[c+2]+2 {
			return c
		}
	}
	return -1
}

// ball is the Hamming ball round 0 among keys of some width, nearest first:
// what to flip in a key to get every key within a threshold. The lower 24 bits of an element are the
// flips, the upper eight how many they are.
type ball struct {
	flips []uint32
	size  [maxThreshold + 1]int // keys within each threshold
	whole [maxThreshold + 1]shells

	// By threshold and allowance: how many candidates to expect from the keys
	// within the threshold for each point in a bucket, were the bits random.
	pass [maxThreshold + 1][2*maxThreshold + 2]float64
}

// balls by the width of the keys; only the widths of levels are filled.
var balls [maxBits + 1]*ball

func init() {
	for _, l := range slices.Concat(levels64, levels256, levelsFolded) {
		for c := range l.cut.words {
			if width := l.of(c).bits; balls[width] == nil {
				balls[width] = newBall(width)
			}
		}
	}
}

const (
	keyBits = 24 // of a flip
	keyMask = 1<<keyBits - 1
	maxBits = 19 // of a key
)

// shells says where, in n flips from one on, they begin to be of a bit more than those before: for each such place
// how many are left, and then 0.
func (b *ball) shells(from, n int) (left shells) {
	at := 0
	for _, size := range b.size {
		if from < size && size < from+n {
			left[at] = uint32(from + n - size)
			at++
		}
	}
	return left
}

type shells [maxThreshold + 2]uint32

func newBall(width int) *ball {
	b := new(ball)
	b.flips = []uint32{0}
	for k := range b.size {
		// From one number of k bits to the next larger one (R. W. Gosper, HAKMEM item 175, 1972). To count the
		// bits of all numbers of 19 would take milliseconds, at each start.
		for f := uint32(1)<<k - 1; k > 0 && f < 1<<width; {
			b.flips = append(b.flips, uint32(k)<<keyBits|f)
			low := f & -f
			f += low
			f |= ((f - low) ^ f) >> 2 / low
		}
		b.size[k] = len(b.flips)
	}
	for k, n := range b.size {
		b.whole[k] = b.shells(0, n)
	}
	// within[d]: 16-bit words at distance d or less from one, as a part of all.
	var within [2*maxThreshold + 2]float64
	for d, c, sum := 0, 1, 0; d < len(within); d++ {
		sum += c
		within[d] = float64(sum) / (1 << fingerprintBits)
		c = c * (fingerprintBits - d) / (d + 1)
	}
	for threshold := range b.pass {
		for allow := range b.pass[threshold] {
			for _, flip := range b.flips[:b.size[threshold]] {
				if k := int(flip >> keyBits); k <= allow {
					b.pass[threshold][allow] += within[allow-k]
				}
			}
		}
	}
	return b
}
