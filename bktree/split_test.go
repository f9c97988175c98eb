package bktree

import (
	"encoding/binary"
	"encoding/hex"
	"math/bits"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestRing is the ring lemma, tried: wherever up to radius differing bits are put, there
// is a word to find the point from, and the tables' looser condition holds there too.
func TestRing(t *testing.T) {
	rnd := newRand(t)
	for _, k := range []*cutting{four, thirteen, sixteen} {
		words, radius := k.words, 0
		for ; k.split(radius) != nil; radius++ {
			s := k.split(radius)
			sum := 0
			for c := range words {
				if s[c] < -1 || s[c] > maxThreshold {
					t.Fatalf("radius %d: threshold %d", radius, s[c])
				}
				sum += int(s[c]) + 1
			}
			if sum != radius+1 || s[words] != s[0] || s[words+1] != s[1] {
				t.Fatalf("radius %d: thresholds %v", radius, s)
			}
			for range 2000 {
				d := scatter(rnd, words, rnd.IntN(radius+1))
				if c := s.starts(&d, words); c < 0 {
					t.Fatalf("radius %d: distances %v are found from no word", radius, d)
				} else if s[c] < 0 || d[c] > s[c] || d[c]+d[c+1] > s[c]+s[c+1]+1 || d[c]+d[c+1]+d[c+2] > s[c]+s[c+1]+s[c+2]+2 {
					t.Fatalf("radius %d: distances %v are not found from word %d", radius, d, c)
				}
			}
		}
		if k.split(-1) != nil || radius != words*(maxThreshold+1) {
			t.Errorf("%d words: radii up to %d", words, radius-1)
		}
	}
}

// scatter puts n differing bits into words, sometimes many into few.
func scatter(rnd *rand.Rand, words, n int) (d distances) {
	among := 1 + rnd.IntN(words)
	first := rnd.IntN(words)
	for n > 0 {
		c := (first + rnd.IntN(among)) % words
		if d[c] == 16 {
			among = words
			continue
		}
		d[c]++
		n--
	}
	d[words], d[words+1] = d[0], d[1]
	return d
}

func TestBalls(t *testing.T) {
	for width, b := range balls {
		if b == nil {
			continue
		}
		want, c := 0, 1
		for k, size := range b.size {
			want += c
			c = c * (width - k) / (k + 1)
			if size != want {
				t.Errorf("%d keys of %d bits within %d, want %d", size, width, k, want)
			}
		}
		if !slices.IsSorted(b.flips) {
			t.Errorf("keys of %d bits are not in order", width)
		}
		for i, f := range b.flips {
			if bits.OnesCount32(f&keyMask) != int(f>>keyBits) || int(f&keyMask)>>width != 0 || i > 0 && f == b.flips[i-1] {
				t.Errorf("%d bits: flip %#x", width, f)
			}
		}
	}
}

// TestPermute: a permutation of the bits, and its inverse.
func TestPermute(t *testing.T) {
	t.Run("64", permutes[Point64])
	t.Run("256", permutes[Point256])
}

func permutes[P Point](t *testing.T) {
	rnd := newRand(t)
	var zero P
	seen := make(map[P]bool)
	for i := range width[P]() {
		p := permute(flip(zero, i))
		if Distance(p, zero) != 1 || seen[p] {
			t.Fatalf("bit %d becomes %v", i, p)
		}
		seen[p] = true
	}
	for range 1000 {
		p, q := random[P](rnd), random[P](rnd)
		if Distance(permute(p), permute(q)) != Distance(p, q) || restore(permute(p)) != p || permute(restore(p)) != p {
			t.Fatalf("%v is %v, and back %v", p, permute(p), restore(permute(p)))
		}
	}
}

// TestPermutationSpreads measures what the permutation is for on real hashes.
func TestPermutationSpreads(t *testing.T) {
	dir := os.Getenv("TOCSIN_TESTDATA")
	if dir == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("TOCSIN_TESTDATA is not set")
		}
		t.Log("not measured: set TOCSIN_TESTDATA")
		return
	}
	data, err := os.ReadFile(filepath.Join(dir, "pdq", "haystack.txt"))
	if err != nil {
		t.Fatal(err)
	}
	var stored, permuted []Point256
lines:
	for _, line := range strings.Fields(string(data)) {
		sum, err := hex.DecodeString(line)
		if err != nil || len(sum) != 32 {
			t.Fatalf("not a PDQ hash: %q", line)
		}
		var p Point256
		for i := range p {
			p[i] = binary.BigEndian.Uint64(sum[8*i:])
		}
		if ones := Distance(p, Point256{}); ones < 120 || ones > 136 {
			continue // of a flat picture
		}
		for _, q := range stored {
			if Distance(p, q) <= 60 {
				continue lines
			}
		}
		stored, permuted = append(stored, p), append(permuted, permute(p))
	}
	mean, worst := skew(stored)
	t.Logf("as stored: %.2f times the candidates of random bits, %.2f in the worst word", mean, worst)
	meanAfter, worstAfter := skew(permuted)
	t.Logf("permuted:  %.2f times, %.2f in the worst word", meanAfter, worstAfter)
	if meanAfter > 1.15 || worstAfter > 1.5 || meanAfter > mean || worstAfter > worst {
		t.Error("the permutation does not spread real hashes")
	}
}

// skew returns how many times the pairs that are within one bit in a word are those that
// random bits would give, on average over the words and in the worst.
func skew(points []Point256) (mean, worst float64) {
	var within [maxWords]int
	for i := range points {
		for j := range i {
			var w pieces
			differ := difference(points[i], points[j])
			cut(sixteen, &differ, &w)
			d := w.distances(sixteen.words)
			for c := range within {
				if d[c] <= 1 {
					within[c]++
				}
			}
		}
	}
	pairs := float64(len(points)*(len(points)-1)) / 2
	for _, n := range within {
		times := float64(n) / pairs / (17.0 / 65536)
		mean += times / maxWords
		worst = max(worst, times)
	}
	return mean, worst
}
