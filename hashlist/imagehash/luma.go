package imagehash

import (
	"image"
	"image/color"
	"image/draw"
)

// lumaOf holds the reference's weights times each 8-bit value, rounded to
// float32: a luma is the sum of three of them, from left to right.
var lumaOf = func() (t [3][256]float32) {
	for c, weight := range [3]float32{.299, .587, .114} {
		for v := range t[c] {
			t[c][v] = weight * float32(v)
		}
	}
	return t
}()

func luma(r, g, b uint8) float32 {
	return float32(float32(lumaOf[0][r]+lumaOf[1][g]) + lumaOf[2][b])
}

// A lumaSource gives the rows of a picture as luma values, 0 to 255.
//
// Colours become 8-bit RGB first, whatever they were: that is what other
// implementations hash. Samples of 16 bits lose their lower half. Alpha is
// dropped, not composited, as the reference does it; where a decoder has
// multiplied it in, it is divided out. Palettes and CMYK are converted to the
// colours they stand for (python-threatexchange hashes the palette's indices
// and takes C, M and Y for R, G and B; its hashes of such files differ).
type lumaSource struct {
	img    image.Image
	strip  *image.RGBA // of batch rows, for what is converted by package draw
	lookup []float32   // luma of each palette index
}

func newLumaSource(img image.Image) *lumaSource {
	s := &lumaSource{img: img}
	w := img.Bounds().Dx()
	switch m := img.(type) {
	case *image.NYCbCrA:
		s.img = &m.YCbCr
		s.strip = image.NewRGBA(image.Rect(0, 0, w, batch))
	case *image.YCbCr, *image.CMYK:
		s.strip = image.NewRGBA(image.Rect(0, 0, w, batch))
	case *image.Paletted:
		s.lookup = make([]float32, 256)
		for i, c := range m.Palette {
			n := color.NRGBAModel.Convert(c).(color.NRGBA)
			s.lookup[i&255] = luma(n.R, n.G, n.B)
		}
	}
	return s
}

// read fills out with n rows from row y on, counted from the top of the picture.
func (s *lumaSource) read(out []float32, y, n int) {
	b := s.img.Bounds()
	w := b.Dx()
	for i := 0; i < n; i++ {
		row := out[i*w : (i+1)*w]
		at := b.Min.Y + y + i
		switch m := s.img.(type) {
		case *image.YCbCr, *image.CMYK:
			// package draw knows both, and converts them exactly as package color does.
			k := min(n-i, batch)
			draw.Draw(s.strip, image.Rect(0, 0, w, k), m, image.Pt(b.Min.X, at), draw.Src)
			for j := range k {
				rgbRow(out[(i+j)*w:(i+j+1)*w], s.strip.Pix[j*s.strip.Stride:])
			}
			i += k - 1
		case *image.Gray:
			pix := m.Pix[m.PixOffset(b.Min.X, at):]
			for x := range row {
				row[x] = float32(pix[x])
			}
		case *image.Gray16:
			pix := m.Pix[m.PixOffset(b.Min.X, at):]
			for x := range row {
				row[x] = float32(pix[2*x])
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
}

func rgbRow(row []float32, pix []uint8) {
	pix = pix[:4*len(row)]
	for x := range row {
		p := pix[4*x : 4*x+4 : 4*x+4]
		row[x] = luma(p[0], p[1], p[2])
	}
}
