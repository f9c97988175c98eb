// Package luma gives the rows of a picture as luma and sums parts of them with weights: what of
// hashing is done for every pixel. On amd64 with AVX2 it takes vector instructions, which is why it is a
// package of its own: Go allows no assembly beside cgo.
package luma

import (
	"image"
	"image/color"
	"image/draw"
)

// Unit is 1 of luma in the numbers of this package.
const Unit = 1000

// luma is .299 R + .587 G + .114 B in thousandths, 0 to 255000. The reference
// rounds products and sums to float32; this is exact.
func luma(r, g, b uint8) uint32 {
	return 299*uint32(r) + 587*uint32(g) + 114*uint32(b)
}

// A Source gives the rows of a picture as luma values, in thousandths.
//
// Colours become 8-bit RGB first, whatever they were: that is what other
// implementations hash. Samples of 16 bits lose their lower half. Alpha is
// dropped, not composited, as the reference does it; where a decoder has
// multiplied it in, it is divided out. Palettes and CMYK are converted to the
// colours they stand for (python-threatexchange hashes the palette's indices
// and takes C, M and Y for R, G and B; its hashes of such files differ).
type Source struct {
	img    image.Image
	chroma chromaRow
	strip  *image.RGBA // one row, for what is converted by package draw
	lookup []uint32    // luma of each palette index
}

// NewSource returns the rows of img.
func NewSource(img image.Image) *Source {
	s := &Source{img: img}
	w := img.Bounds().Dx()
	switch m := img.(type) {
	case *image.NYCbCrA:
		s.img = &m.YCbCr
	case *image.CMYK:
		s.strip = image.NewRGBA(image.Rect(0, 0, w, 1))
	case *image.Paletted:
		s.lookup = make([]uint32, 256)
		for i, c := range m.Palette {
			n := color.NRGBAModel.Convert(c).(color.NRGBA)
			s.lookup[i&255] = luma(n.R, n.G, n.B)
		}
	}
	return s
}

// Read fills row, which is as long as the picture is wide, with row y, counted from the top of the
// picture.
func (s *Source) Read(row []uint32, y int) {
	b := s.img.Bounds()
	at := b.Min.Y + y
	switch m := s.img.(type) {
	case *image.YCbCr:
		s.chroma.ycbcrRow(row, m, at)
	case *image.CMYK:
		// package draw knows it, and converts it exactly as package color does.
		draw.Draw(s.strip, s.strip.Rect, m, image.Pt(b.Min.X, at), draw.Src)
		rgbRow(row, s.strip.Pix)
	case *image.Gray:
		pix := m.Pix[m.PixOffset(b.Min.X, at):][:len(row)]
		done := 0
		if vectors && len(row) >= 8 {
			done = len(row) &^ 7
			lumaGrays(&row[0], &pix[0], done)
		}
		for x := done; x < len(row); x++ {
			row[x] = Unit * uint32(pix[x])
		}
	case *image.Gray16:
		pix := m.Pix[m.PixOffset(b.Min.X, at):]
		for x := range row {
			row[x] = Unit * uint32(pix[2*x])
		}
	case *image.Paletted:
		pix := m.Pix[m.PixOffset(b.Min.X, at):]
		for x := range row {
			row[x] = s.lookup[pix[x]]
		}
	case *image.NRGBA:
		rgbRow(row, m.Pix[m.PixOffset(b.Min.X, at):])
	case *image.NRGBA64:
		pix := m.Pix[m.PixOffset(b.Min.X, at):]
		for x := range row {
			row[x] = luma(pix[8*x], pix[8*x+2], pix[8*x+4])
		}
	case *image.RGBA:
		pix := m.Pix[m.PixOffset(b.Min.X, at):]
		for x := range row {
			p := pix[4*x : 4*x+4 : 4*x+4]
			if p[3] == 255 {
				row[x] = luma(p[0], p[1], p[2])
			} else {
				c := color.NRGBAModel.Convert(color.RGBA{R: p[0], G: p[1], B: p[2], A: p[3]}).(color.NRGBA)
				row[x] = luma(c.R, c.G, c.B)
			}
		}
	default:
		for x := range row {
			c := color.NRGBAModel.Convert(m.At(b.Min.X+x, at)).(color.NRGBA)
			row[x] = luma(c.R, c.G, c.B)
		}
	}
}

func rgbRow(row []uint32, pix []uint8) {
	pix = pix[:4*len(row)]
	for x := range row {
		p := pix[4*x : 4*x+4 : 4*x+4]
		row[x] = luma(p[0], p[1], p[2])
	}
}

// maxVector is the longest row that weighVector can take: with a triangle of weights up to win, an eighth of
// their sum is win*win/8 + win at most, which times 255,000 fits in 32 bits up to a win of 360.
const maxVector = 2*360 - 1

// Weigh returns the sum of the values of row times their weights, which are a triangle: 1, 2, 3 and so on
// to the middle and back, and zeros up to a multiple of 8. It may read what is behind row, up to the number
// of weights. With 18 bits of luma a sum fits for a side of 16 million pixels.
func Weigh(row, weights []uint32) uint64 {
	if vectors && len(row) <= maxVector && len(row) > 0 && len(weights) >= len(row) && len(weights)%8 == 0 && len(weights) <= cap(row) {
		return weighVector(&row[0], &weights[0], len(weights))
	}
	var sum uint64
	weights = weights[:len(row)]
	for k, v := range row {
		sum += uint64(v) * uint64(weights[k])
	}
	return sum
}

// Vectors reports whether Weigh and WeighBytes are fast here. Where they are not, there are better ways
// than one sum for each window.
func Vectors() bool { return vectors }

// WeighBytes returns the sum of bytes times their weights, of which there are a multiple of 16, none above
// 32,767. The sum must fit in 31 bits. Bytes that are not there count as 0.
func WeighBytes(in []uint8, weights []uint16) uint32 {
	if vectors && len(weights) <= len(in) && len(weights) > 0 && len(weights)%16 == 0 {
		return weighBytes(&in[0], &weights[0], len(weights))
	}
	var sum uint32
	for i, v := range in[:min(len(in), len(weights))] {
		sum += uint32(v) * uint32(weights[i])
	}
	return sum
}
