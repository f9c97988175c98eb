package imagehash

import (
	"image"
	"math"

	"github.com/tocsin-fed/tocsin/hashlist/luma"
)

// pHash and dHash are taken from pictures of these sizes.
var thumbnailSizes = [2]image.Point{{64, 64}, {9, 8}}

// maxThumbnailSide keeps the sums of a window within 31 bits, for the smallest
// side of a thumbnail.
const maxThumbnailSide = 1 << 17

// minVector is the width from which a sum for each window is worth its while: in narrower pictures most of
// the time goes into columns, and two planes together take half of it.
const minVector = 512

// thumbnails makes the picture small as goimagehash does for pHash and for
// dHash: by github.com/nfnt/resize with its bilinear kernel, to the bit. That
// library copies the picture, filters it for each size and looks for the edge at
// every weight; it is the fallback when ok is false, for kinds of pictures that
// are rare here.
//
// The kernel is a triangle twice as long as the step between its places, in
// weights of 8 bits. A row is made narrow first and rounded down to 8 bits
// again, then the columns. Beyond an edge, the pixel at the edge is repeated.
func thumbnails(img image.Image) (small [2]image.Image, ok bool) {
	b := img.Bounds()
	w, h := b.Dx(), b.Dy()
	if w < 1 || h < 1 || w >= maxThumbnailSide || h >= maxThumbnailSide {
		return small, false
	}
	for _, size := range thumbnailSizes {
		if b.Size() == size {
			return small, false // the library leaves it as it is
		}
	}
	// Offsets count from the start of Pix, whatever the bounds are: the library
	// does not look at them either.
	switch m := img.(type) {
	case *image.Gray:
		grey := shrinkPlane(w, h, 1, 1, m.Pix, m.Stride)
		for i, size := range thumbnailSizes {
			t := image.NewGray(image.Rectangle{Max: size})
			spread(t.Pix, 1, grey[i], 0)
			small[i] = t
		}
	case *image.YCbCr:
		sx, sy := 1, 1
		switch m.SubsampleRatio {
		case image.YCbCrSubsampleRatio444:
		case image.YCbCrSubsampleRatio422:
			sx = 2
		case image.YCbCrSubsampleRatio420:
			sx, sy = 2, 2
		case image.YCbCrSubsampleRatio440:
			sy = 2
		case image.YCbCrSubsampleRatio411:
			sx = 4
		case image.YCbCrSubsampleRatio410:
			sx, sy = 4, 2
		default:
			return small, false
		}
		y := shrinkPlane(w, h, 1, 1, m.Y, m.YStride)
		cb, cr, shift := [2][]uint64{}, [2][]uint64{}, 0
		if luma.Vectors() && w >= minVector {
			cb, cr = shrinkPlane(w, h, sx, sy, m.Cb, m.CStride), shrinkPlane(w, h, sx, sy, m.Cr, m.CStride)
		} else {
			cb = shrinkPairs(w, h, sx, sy, m.Cb, m.Cr, m.CStride)
			cr, shift = cb, 32
		}
		for i, size := range thumbnailSizes {
			t := image.NewYCbCr(image.Rectangle{Max: size}, image.YCbCrSubsampleRatio444)
			spread(t.Y, 1, y[i], 0)
			spread(t.Cb, 1, cb[i], 0)
			spread(t.Cr, 1, cr[i], shift)
			small[i] = t
		}
	case *image.RGBA:
		return rgbaThumbnails(w, h, m.Pix, m.Stride, false), true
	case *image.NRGBA:
		return rgbaThumbnails(w, h, m.Pix, m.Stride, true), true
	default:
		return small, false
	}
	return small, true
}

func rgbaThumbnails(w, h int, pix []uint8, stride int, multiply bool) (small [2]image.Image) {
	for i, size := range thumbnailSizes {
		small[i] = image.NewRGBA(image.Rectangle{Max: size})
	}
	for c := 0; c < 4; c += 2 {
		pairs := shrink(w, h, 1, 1, func(words []uint64, y int) {
			row := pix[y*stride:][:4*len(words)]
			for x := range words {
				p := row[4*x : 4*x+4 : 4*x+4]
				first, second := uint64(p[c]), uint64(p[c+1])
				if multiply {
					alpha := uint64(p[3])
					first = first * alpha / 255
					if c == 0 {
						second = second * alpha / 255
					}
				}
				words[x] = first | second<<32
			}
		})
		for i := range small {
			out := small[i].(*image.RGBA).Pix
			spread(out[c:], 4, pairs[i], 0)
			spread(out[c+1:], 4, pairs[i], 32)
		}
	}
	return small
}

// spread writes one lane of each word to every step-th byte.
func spread(out []uint8, step int, words []uint64, shift int) {
	for i, v := range words {
		out[i*step] = uint8(v >> shift)
	}
}

// shrink filters samples down to both sizes of thumbnails. A word is two
// samples, in its halves; read fills words with row y of them. A sample stands
// for sx by sy of the w by h pixels.
func shrink(w, h, sx, sy int, read func(words []uint64, y int)) (out [2][]uint64) {
	var across [2]kernel
	var down [2]columns
	for i, size := range thumbnailSizes {
		across[i], down[i] = newKernel(w, size.X, sx), newColumns(h, size, sy)
	}
	words, narrow := make([]uint64, (w+sx-1)/sx), make([]uint64, thumbnailSizes[0].X)
	for y := range (h + sy - 1) / sy {
		read(words, y)
		for i, size := range thumbnailSizes {
			across[i].filter(words, narrow[:size.X])
			down[i].add(narrow[:size.X], y)
		}
	}
	for i := range down {
		out[i] = down[i].finish()
	}
	return out
}

// shrinkPairs is shrink for two planes of samples, the first in the lower halves.
func shrinkPairs(w, h, sx, sy int, first, second []uint8, stride int) [2][]uint64 {
	return shrink(w, h, sx, sy, func(words []uint64, y int) {
		a, b := first[y*stride:][:len(words)], second[y*stride:][:len(words)]
		for x := range words {
			words[x] = uint64(a[x]) | uint64(b[x])<<32
		}
	})
}

// shrinkPlane is shrink for samples of one kind. The words it returns have one sample.
func shrinkPlane(w, h, sx, sy int, pix []uint8, stride int) (out [2][]uint64) {
	if luma.Vectors() && w >= minVector {
		if out, ok := shrinkVector(w, h, sx, sy, pix, stride); ok {
			return out
		}
	}
	var across [2]interleaved
	var down [2]columns
	n := (w + sx - 1) / sx
	for i, size := range thumbnailSizes {
		var ok bool
		if across[i], ok = interleave(newKernel(w, size.X, sx), n); !ok {
			// A picture narrower than that.
			return shrink(w, h, sx, sy, func(words []uint64, y int) {
				for x, v := range pix[y*stride:][:n] {
					words[x] = uint64(v)
				}
			})
		}
		down[i] = newColumns(h, size, sy)
	}
	narrow := make([]uint64, thumbnailSizes[0].X)
	for y := range (h + sy - 1) / sy {
		for i, size := range thumbnailSizes {
			across[i].filter(pix[y*stride:][:n], narrow[:size.X])
			down[i].add(narrow[:size.X], y)
		}
	}
	for i := range down {
		out[i] = down[i].finish()
	}
	return out
}

// shrinkVector is shrinkPlane with a sum for each window. It fails where a weight is too large for it: at
// the edges of a very long side, where many weights fall on one sample.
func shrinkVector(w, h, sx, sy int, pix []uint8, stride int) (out [2][]uint64, ok bool) {
	var across [2]kernel
	var weights [2][][]uint16
	var down [2]columns
	for i, size := range thumbnailSizes {
		across[i], down[i] = newKernel(w, size.X, sx), newColumns(h, size, sy)
		weights[i] = make([][]uint16, len(across[i]))
		for j := range across[i] {
			from := across[i][j].weights
			short := make([]uint16, (len(from)+15)&^15)
			for k, weight := range from {
				if weight > math.MaxInt16 {
					return out, false
				}
				short[k] = uint16(weight)
			}
			weights[i][j] = short
		}
	}
	narrow := make([]uint64, thumbnailSizes[0].X)
	for y := range (h + sy - 1) / sy {
		row := pix[y*stride:]
		for i, size := range thumbnailSizes {
			for j := range across[i] {
				p := &across[i][j]
				narrow[j] = uint64(luma.WeighBytes(row[p.start:], weights[i][j]) / p.sum)
			}
			down[i].add(narrow[:size.X], y)
		}
	}
	for i := range down {
		out[i] = down[i].finish()
	}
	return out, true
}

// A kernel is what the samples of a side become: for each of its places, the
// first sample of its window, the weights from there on and their sum.
type kernel []place

type place struct {
	start   int
	weights []uint64
	sum     uint32
}

// newKernel computes the weights that the library has for a side of n pixels
// that becomes one of size. Those that fall on one sample are added up: beyond
// the edges, and where a sample stands for several pixels.
//
// The expressions are the library's in shape too. Where a compiler fuses
// multiplication and addition it does so in both.
func newKernel(n, size, share int) kernel {
	scale := float64(n) / float64(size)
	length := 2 * int(max(math.Ceil(scale), 1))
	factor := min(1/scale, 1)
	k := make(kernel, size)
	for i := range k {
		center := scale*(float64(i)+0.5) - 0.5
		start := int(center) - length/2 + 1
		center -= float64(start)
		p := &k[i]
		sample := func(j int) int { return min(max(start+j, 0), n-1) / share }
		for j := range length {
			distance := math.Abs((center - float64(j)) * factor)
			if distance > 1 {
				continue
			}
			weight := uint64((1 - distance) * 256)
			if weight == 0 {
				continue
			}
			if p.weights == nil {
				p.start = sample(j)
			}
			at := sample(j) - p.start
			for len(p.weights) <= at {
				p.weights = append(p.weights, 0)
			}
			p.weights[at] += weight
			p.sum += uint32(weight)
		}
	}
	return k
}

// filter takes the weighted means of both samples of words.
func (k kernel) filter(words, out []uint64) {
	for i := range k {
		p := &k[i]
		weights := p.weights
		in := words[p.start:][:len(weights)]
		var a, b uint64
		x := 0
		for ; x+4 <= len(in); x += 4 {
			v, w := (*[4]uint64)(in[x:x+4]), (*[4]uint64)(weights[x:x+4])
			a += v[0]*w[0] + v[1]*w[1]
			b += v[2]*w[2] + v[3]*w[3]
		}
		for ; x < len(in); x++ {
			a += in[x] * weights[x]
		}
		out[i] = divide(a+b, p.sum)
	}
}

func divide(sums uint64, by uint32) uint64 {
	return uint64(uint32(sums)/by) | uint64(uint32(sums>>32)/by)<<32
}

// An interleaved kernel has the weights of windows with even numbers in the
// lower halves of its words and those of odd ones in the upper halves, so that
// one multiplication serves the two windows that a sample is in.
type interleaved struct {
	kernel  kernel
	weights []uint64 // of each sample
}

// interleave fails if a sample is in more than two windows.
func interleave(k kernel, n int) (v interleaved, ok bool) {
	v = interleaved{kernel: k, weights: make([]uint64, n)}
	for i := range k {
		p := &k[i]
		if i+1 < len(k) && k[i+1].start < p.start || i+2 < len(k) && k[i+2].start < p.start+len(p.weights) {
			return v, false
		}
		for j, weight := range p.weights {
			v.weights[p.start+j] |= weight << (i % 2 * 32)
		}
	}
	return v, true
}

// filter takes the weighted means of a row. A window ends where the next but
// one begins, so it is two of the stretches between beginnings.
func (v *interleaved) filter(in []uint8, out []uint64) {
	k := v.kernel
	before := uint64(0)
	for i := range k {
		end := len(in)
		if i+1 < len(k) {
			end = k[i+1].start
		}
		sum := dot(in[k[i].start:end], v.weights[k[i].start:end])
		if i > 0 {
			out[i-1] = uint64(uint32((before+sum)>>((i-1)%2*32)) / k[i-1].sum)
		}
		before = sum
	}
	last := len(k) - 1
	out[last] = uint64(uint32(before>>(last%2*32)) / k[last].sum)
}

func dot(in []uint8, weights []uint64) uint64 {
	var a, b uint64
	weights = weights[:len(in)]
	x := 0
	for ; x+4 <= len(in); x += 4 {
		v, w := (*[4]uint8)(in[x:x+4]), (*[4]uint64)(weights[x:x+4])
		a += uint64(v[0])*w[0] + uint64(v[1])*w[1]
		b += uint64(v[2])*w[2] + uint64(v[3])*w[3]
	}
	for ; x < len(in); x++ {
		a += uint64(in[x]) * weights[x]
	}
	return a + b
}

// columns filters down the columns of rows that come one by one.
type columns struct {
	kernel kernel
	sums   []uint64
	next   int // the first place whose window is not over
}

func newColumns(n int, size image.Point, share int) columns {
	return columns{kernel: newKernel(n, size.Y, share), sums: make([]uint64, size.X*size.Y)}
}

// add takes row y of samples. Rows come in order.
func (c *columns) add(row []uint64, y int) {
	for i := c.next; i < len(c.kernel) && c.kernel[i].start <= y; i++ {
		p := &c.kernel[i]
		at := y - p.start
		if at >= len(p.weights) {
			if i == c.next {
				c.next++
			}
			continue
		}
		weight := p.weights[at]
		sums := c.sums[i*len(row):][:len(row)]
		for j, v := range row {
			sums[j] += v * weight
		}
	}
}

// finish returns the filtered rows.
func (c *columns) finish() []uint64 {
	width := len(c.sums) / len(c.kernel)
	for i := range c.kernel {
		sums := c.sums[i*width:][:width]
		for j, v := range sums {
			sums[j] = divide(v, c.kernel[i].sum)
		}
	}
	return c.sums
}
