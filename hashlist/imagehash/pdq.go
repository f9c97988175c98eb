package imagehash

import (
	"image"
	"math"
	"slices"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// Transforms names the dihedral set, in the order of Frame.PDQ: the picture
// itself, turned counter-clockwise by quarters, top and bottom exchanged, left
// and right exchanged, and mirrored in either diagonal.
var Transforms = [8]string{
	"original", "rot90", "rot180", "rot270", "flipx", "flipy", "transpose", "antitranspose",
}

// The shapes of PDQ: the picture is reduced to side x side, of whose cosine
// transform the freqs x freqs lowest coefficients beside the means are kept.
const (
	side  = 64
	freqs = 16
	// minSide is the smallest picture PDQ is defined for, in pixels.
	minSide = 5
)

// A tile is the picture reduced to side x side luma values, 0 to 255.
type tile [side * side]float32

// dctMatrix is the part of the cosine transform that PDQ uses. There is no row
// for the mean, so a change of brightness changes nothing. The product is taken
// in float64 and rounded once, as the reference does it.
var dctMatrix = func() (d [freqs][side]float32) {
	scale := float64(float32(math.Sqrt(2.0 / side)))
	for i := range d {
		for j := range d[i] {
			d[i][j] = float32(scale * math.Cos(math.Pi/2/side*float64(i+1)*float64(2*j+1)))
		}
	}
	return d
}()

// hashPDQ computes the eight dihedral PDQ hashes and the quality, 0 to 100, of
// a picture. The algorithm is Meta's (facebook/ThreatExchange, hashing/hashing.pdf).
// From the tile on it is in float32 and in the reference's order of operations;
// the tile itself is the exact one, which the reference's differs from by the
// noise of its sums (see reduce). Equal pixels give equal bits but where a
// coefficient is that near to the median. A picture of fewer than five pixels
// across has no hash and quality 0.
//
// Every product is converted to float32 before it is added: the language lets a
// compiler fuse the two, which on arm64 would change bits.
func hashPDQ(img image.Image) (set [8]hashlist.Hash, quality int) {
	if b := img.Bounds(); b.Dx() < minSide || b.Dy() < minSide {
		return set, 0
	}
	var t tile
	reduce(img, &t)
	return hashTile(&t)
}

func hashTile(t *tile) (set [8]hashlist.Hash, quality int) {
	dct := transform(t)
	return signs(&dct), t.quality()
}

// quality sums the gradients of the tile, quantised so that only visible steps
// count. The constants are the reference's.
func (t *tile) quality() int {
	sum := 0
	step := func(u, v float32) {
		d := int(float32(float32(u-v)*100) / 255)
		sum += max(d, -d)
	}
	for i := range side {
		for j := range side {
			if i+1 < side {
				step(t[i*side+j], t[(i+1)*side+j])
			}
			if j+1 < side {
				step(t[i*side+j], t[i*side+j+1])
			}
		}
	}
	return min(sum/90, 100)
}

// transform returns D*A*Dᵀ. Sums run over k upwards: another order rounds
// differently.
func transform(a *tile) (b [freqs][freqs]float32) {
	var t [freqs][side]float32
	for i := range freqs {
		row := &t[i]
		for k := range side {
			d := dctMatrix[i][k]
			for j, v := range a[k*side : (k+1)*side] {
				row[j] += float32(d * v)
			}
		}
	}
	for i := range freqs {
		for j := range freqs {
			var sum float32
			for k := range side {
				sum += float32(t[i][k] * dctMatrix[j][k])
			}
			b[i][j] = sum
		}
	}
	return b
}

// Turning and mirroring a picture negates coefficients and exchanges the axes.
// Which are negated, and whether the axes are exchanged then, in the order of
// Transforms.
var (
	negated = [4]func(i, j int) bool{
		func(i, j int) bool { return false },
		func(i, j int) bool { return (i+j)%2 == 1 },
		func(i, j int) bool { return i%2 == 0 },
		func(i, j int) bool { return j%2 == 0 },
	}
	variants = [8]struct {
		negated    int
		transposed bool
	}{{0, false}, {3, true}, {1, false}, {2, true}, {2, false}, {3, false}, {0, true}, {1, true}}
)

// signs makes the hashes of the dihedral variants from the transform of the
// original. A variant's hash cannot be had from another's bits: what is negated
// has another median. Exchanging the axes leaves the median as it is.
func signs(a *[freqs][freqs]float32) (set [8]hashlist.Hash) {
	for n, negative := range negated {
		v := *a
		for i := range freqs {
			for j := range freqs {
				if negative(i, j) {
					v[i][j] = -v[i][j]
				}
			}
		}
		var sorted [freqs * freqs]float32
		for i := range freqs {
			copy(sorted[i*freqs:], v[i][:])
		}
		slices.Sort(sorted[:])
		median := sorted[len(sorted)/2-1] // the lower one of the two
		var plain, transposed [32]byte
		for i := range freqs {
			for j := range freqs {
				if v[i][j] > median {
					k, t := i*freqs+j, j*freqs+i
					plain[31-k/8] |= 1 << (k % 8)
					transposed[31-t/8] |= 1 << (t % 8)
				}
			}
		}
		for i, variant := range variants {
			if variant.negated != n {
				continue
			}
			sum := &plain
			if variant.transposed {
				sum = &transposed
			}
			h, err := hashlist.NewHash(hashlist.PDQ, sum[:])
			if err != nil { // all zero: no coefficient stands out of a flat picture
				h = hashlist.Hash{}
			}
			set[i] = h
		}
	}
	return set
}
