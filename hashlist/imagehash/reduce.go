package imagehash

import (
	"image"

	"github.com/tocsin-fed/tocsin/hashlist/luma"
)

// reduce blurs a picture and samples it down to a tile. The blur is two passes
// of a box filter along rows and two along columns, each window a 128th of the
// picture (Wojciech Jarosz, "Fast Image Convolutions", 2001), of which the
// middles of 64 parts are kept.
//
// All of it is linear and works on each axis alone, so a value of the tile is a
// weighted mean of the few pixels that its two windows reach, and the blurred
// picture need not exist. A pixel is in one such mean or two, rarely in none:
// one multiplication takes the place of four running sums.
//
// The reference keeps running sums in float32, and its result carries their
// noise, a thousandth of a step of luma in the worst case. Here a row's sums are of whole
// numbers, thousandths of luma times whole weights, and what follows is in
// float64: the result is the reference's without that noise. A bit of a hash can
// differ where a coefficient is as near to the median: of 6,000 pictures of all
// shapes, 7 had such a bit in one of their eight hashes, and one differed in its
// quality, by one. Pictures with a side of exactly 8 or 16 pixels stand apart.
// Their tile repeats its values in a period that makes coefficients zero, and
// bits of those are noise in the reference too.
func reduce(img image.Image, out *tile) {
	b := img.Bounds()
	w, h := b.Dx(), b.Dy()
	src := luma.NewSource(img)
	row := make([]uint32, w, w+7) // luma.Weigh reads on to a multiple of 8
	if w == side && h == side {
		// The reference takes such a picture as reduced already.
		for y := range side {
			src.Read(row, y)
			for x, v := range row {
				out[y*side+x] = float32(float64(v) / luma.Unit)
			}
		}
		return
	}
	across, down := newAxis(w), newAxis(h)
	var at int // the row that sums is of
	var sums [side]float64
	have := false
	for i := range down {
		win := &down[i]
		var acc [side]float64
		for k := range win.size {
			if y := win.start + k; !have || y != at {
				// Windows overlap by a row at most: the last one is all there is to keep.
				src.Read(row, y)
				across.sum(row, &sums)
				at, have = y, true
			}
			weight := win.weight(k)
			for j, v := range sums {
				acc[j] += float64(v * weight)
			}
		}
		for j, v := range acc {
			out[i*side+j] = float32(v * win.scale / luma.Unit)
		}
	}
}

// A span is the weighted mean that one value of the tile is along one axis.
// The weights start at a pixel and are to be multiplied by the scale.
type span struct {
	start, size int
	scale       float64
	whole       []uint32  // the weights where no window is cut, at most win, and zeros up to a multiple of 8
	cut         []float64 // the weights where one is cut by the picture's edge
}

func (s *span) weight(i int) float64 {
	if s.cut != nil {
		return s.cut[i]
	}
	return float64(s.whole[i])
}

// An axis holds what becomes of a side of a picture.
type axis [side]span

// newAxis lays two passes of the box filter and the sampling of a side of n
// pixels into one. The window around a value reaches (win+2)/2 - 1 values
// forward; at the edges it is cut and the sum divided by what is left of it.
func newAxis(n int) *axis {
	win := window(n)
	ahead := (win+2)/2 - 1
	back := win - 1 - ahead
	// Box upon box is a triangle.
	triangle := make([]uint32, (2*win-1+7)&^7)
	for i := range 2*win - 1 {
		triangle[i] = uint32(min(i+1, 2*win-1-i))
	}
	var a axis
	for i, at := range samples(n) {
		s := &a[i]
		s.start, s.size = at-2*back, 2*win-1
		if s.start >= 0 && s.start+s.size <= n {
			s.scale, s.whole = 1/(float64(win)*float64(win)), triangle
			continue
		}
		s.start = max(at-2*back, 0)
		s.size = min(at+2*ahead+1, n) - s.start
		s.scale, s.cut = 1, make([]float64, s.size)
		first, last := max(at-back, 0), min(at+ahead, n-1)
		for j := first; j <= last; j++ {
			from, to := max(j-back, 0), min(j+ahead, n-1)
			weight := 1 / (float64(last-first+1) * float64(to-from+1))
			for k := from; k <= to; k++ {
				s.cut[k-s.start] += weight
			}
		}
	}
	return &a
}

// sum takes the weighted means of a row of luma in thousandths.
func (a *axis) sum(row []uint32, out *[side]float64) {
	for i := range a {
		s := &a[i]
		px := row[s.start : s.start+s.size]
		if s.cut != nil {
			var sum float64
			for k, v := range px {
				sum += float64(float64(v) * s.cut[k])
			}
			out[i] = sum
			continue
		}
		out[i] = float64(luma.Weigh(px, s.whole)) * s.scale
	}
}

// window is the length of the box filter for a side of n pixels.
func window(n int) int { return (n + 2*side - 1) / (2 * side) }

// samples are the pixels of a side of n that become the tile's: the middles of
// its 64 parts.
func samples(n int) (at [side]int) {
	for i := range at {
		at[i] = int((float64(i) + 0.5) * float64(n) / side)
	}
	return at
}
