package imagehash

import (
	"image"
	"image/color"
	"math/rand/v2"
	"testing"
)

// Every colour that Y, Cb and Cr can make has the luma of package color's RGB.
func TestEveryYCbCr(t *testing.T) {
	for _, ratio := range []image.YCbCrSubsampleRatio{image.YCbCrSubsampleRatio444, image.YCbCrSubsampleRatio422} {
		share := 1
		if ratio == image.YCbCrSubsampleRatio422 {
			share = 2
		}
		// Y across, Cb down, a picture for each Cr.
		m := image.NewYCbCr(image.Rect(0, 0, 256, 256), ratio)
		for i := range m.Y {
			m.Y[i] = uint8(i)
		}
		for i := range m.Cb {
			m.Cb[i] = uint8(i * share >> 8)
		}
		row := make([]uint32, 256)
		for cr := range 256 {
			for i := range m.Cr {
				m.Cr[i] = uint8(cr)
			}
			src := newLumaSource(m)
			for cb := range 256 {
				src.read(row, cb)
				for y, got := range row {
					if want := luma(color.YCbCrToRGB(uint8(y), uint8(cb), uint8(cr))); got != want {
						t.Fatalf("%v: luma of %d, %d, %d is %d, want %d", ratio, y, cb, cr, got, want)
					}
				}
			}
		}
	}
}

// Every way of sharing chroma, wherever the picture begins.
func TestEverySubsampling(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for ratio := image.YCbCrSubsampleRatio444; ratio <= image.YCbCrSubsampleRatio410; ratio++ {
		whole := image.NewYCbCr(image.Rect(-9, -9, 40, 30), ratio)
		for _, pix := range [][]uint8{whole.Y, whole.Cb, whole.Cr} {
			for i := range pix {
				pix[i] = uint8(r.Uint32())
			}
		}
		for range 200 {
			x, y := r.IntN(40)-9, r.IntN(30)-9
			rect := image.Rect(x, y, x+1+r.IntN(40-x), y+1+r.IntN(30-y))
			m := whole.SubImage(rect).(*image.YCbCr)
			src, row := newLumaSource(m), make([]uint32, rect.Dx())
			for y := range rect.Dy() {
				src.read(row, y)
				for x, got := range row {
					c := m.YCbCrAt(rect.Min.X+x, rect.Min.Y+y)
					if want := luma(color.YCbCrToRGB(c.Y, c.Cb, c.Cr)); got != want {
						t.Fatalf("%v at %v: luma of pixel %d, %d is %d, want %d", ratio, rect, x, y, got, want)
					}
				}
			}
		}
	}
}

func BenchmarkLuma(b *testing.B) {
	m := photographs(b)[0].(*image.YCbCr)
	row := make([]uint32, m.Rect.Dx())
	b.SetBytes(int64(m.Rect.Dx() * m.Rect.Dy()))
	for b.Loop() {
		src := newLumaSource(m)
		for y := range m.Rect.Dy() {
			src.read(row, y)
		}
	}
}
