package imagehash

import (
	"image"
	"image/color"
	"image/draw"
)

// lumaUnit is 1 of luma, as luma counts it.
const lumaUnit = 1000

// luma is .299 R + .587 G + .114 B in thousandths, 0 to 255000. The reference
// rounds products and sums to float32; this is exact.
func luma(r, g, b uint8) uint32 {
	return 299*uint32(r) + 587*uint32(g) + 114*uint32(b)
}

// A lumaSource gives the rows of a picture as luma values, in thousandths.
//
// Colours become 8-bit RGB first, whatever they were: that is what other
// implementations hash. Samples of 16 bits lose their lower half. Alpha is
// dropped, not composited, as the reference does it; where a decoder has
// multiplied it in, it is divided out. Palettes and CMYK are converted to the
// colours they stand for (python-threatexchange hashes the palette's indices
// and takes C, M and Y for R, G and B; its hashes of such files differ).
type lumaSource struct {
	img    image.Image
	chroma chromaRow
	strip  *image.RGBA // one row, for what is converted by package draw
	lookup []uint32    // luma of each palette index
}

func newLumaSource(img image.Image) *lumaSource {
	s := &lumaSource{img: img}
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

// read fills row with row y, counted from the top of the picture.
func (s *lumaSource) read(row []uint32, y int) {
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
		pix := m.Pix[m.PixOffset(b.Min.X, at):]
		for x := range row {
			row[x] = lumaUnit * uint32(pix[x])
		}
	case *image.Gray16:
		pix := m.Pix[m.PixOffset(b.Min.X, at):]
		for x := range row {
			row[x] = lumaUnit * uint32(pix[2*x])
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
