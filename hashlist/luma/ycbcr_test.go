package luma

import (
	"image"
	"image/color"
	"math/rand/v2"
	"testing"
)

// Every colour that Y, Cb and Cr can make has the luma of package color's RGB.
func TestEveryYCbCr(t *testing.T) { withBoth(t, everyYCbCr) }

func everyYCbCr(t *testing.T) {
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
			src := NewSource(m)
			for cb := range 256 {
				src.Read(row, cb)
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
func TestEverySubsampling(t *testing.T) { withBoth(t, everySubsampling) }

func everySubsampling(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for ratio := image.YCbCrSubsampleRatio444; ratio <= image.YCbCrSubsampleRatio410; ratio++ {
		whole := image.NewYCbCr(image.Rect(-9, -9, 90, 30), ratio)
		for _, pix := range [][]uint8{whole.Y, whole.Cb, whole.Cr} {
			for i := range pix {
				pix[i] = uint8(r.Uint32())
			}
		}
		for range 200 {
			x, y := r.IntN(90)-9, r.IntN(30)-9
			rect := image.Rect(x, y, x+1+r.IntN(90-x), y+1+r.IntN(30-y))
			m := whole.SubImage(rect).(*image.YCbCr)
			src, row := NewSource(m), make([]uint32, rect.Dx())
			for y := range rect.Dy() {
				src.Read(row, y)
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

// withBoth runs a test with vector instructions, where there are any, and without.
func withBoth(t *testing.T, test func(t *testing.T)) {
	t.Run("go", func(t *testing.T) { without(t); test(t) })
	if !vectors {
		t.Log("there are no vector instructions here")
		return
	}
	t.Run("vectors", test)
}

// TestWeigh: windows of all lengths, of the darkest and the brightest pixels and of others.
func TestWeigh(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for win := 1; win < 420; win += 1 + win/20 {
		n := 2*win - 1
		weights := make([]uint32, (n+7)&^7)
		for i := range n {
			weights[i] = uint32(min(i+1, 2*win-1-i))
		}
		row := make([]uint32, n+20)
		for kind := range 3 {
			for i := range row {
				row[i] = [3]uint32{0, 255 * Unit, r.Uint32N(255*Unit + 1)}[kind]
			}
			want := uint64(0)
			for i := range n {
				want += uint64(row[i]) * uint64(weights[i])
			}
			for _, behind := range []int{0, 20} { // bytes that may be read and must not count
				if got := Weigh(row[:n:n+behind], weights); got != want {
					t.Fatalf("%d pixels: %d, want %d", n, got, want)
				}
			}
		}
	}
}

// TestWeighBytes: up to the largest sum, and beside an end.
func TestWeighBytes(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for n := 16; n < 600; n += 16 {
		for kind := range 3 {
			in, weights := make([]uint8, n), make([]uint16, n)
			for i := range in {
				in[i] = [3]uint8{0, 255, uint8(r.Uint32())}[kind]
				weights[i] = uint16([3]uint32{32767, uint32(min(32767, 1<<31/255/n)), r.Uint32N(8000)}[kind])
			}
			for _, there := range []int{n, n - 1 - r.IntN(n-1)} {
				want := uint32(0)
				for i, v := range in[:there] {
					want += uint32(v) * uint32(weights[i])
				}
				if got := WeighBytes(in[:there], weights); got != want {
					t.Fatalf("%d of %d bytes: %d, want %d", there, n, got, want)
				}
			}
		}
	}
}

func BenchmarkLuma(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	m := image.NewYCbCr(image.Rect(0, 0, 1600, 1200), image.YCbCrSubsampleRatio420)
	for _, pix := range [][]uint8{m.Y, m.Cb, m.Cr} {
		for i := range pix {
			pix[i] = uint8(100 + r.IntN(50))
		}
	}
	row := make([]uint32, m.Rect.Dx())
	b.SetBytes(int64(m.Rect.Dx() * m.Rect.Dy()))
	for b.Loop() {
		src := NewSource(m)
		for y := range m.Rect.Dy() {
			src.Read(row, y)
		}
	}
}
