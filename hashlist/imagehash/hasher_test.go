package imagehash

import (
	"bytes"
	"context"
	"image"
	"image/jpeg"
	"math"
	"math/rand/v2"
	"testing"
)

// picture is a procedural photograph: light and colour that vary at several
// scales, as in real ones, so that no coefficient of its transform is near the
// median by construction. Different seeds give unrelated hashes.
func picture(w, h int, seed float64) *image.RGBA {
	r := rand.New(rand.NewPCG(uint64(seed), 1))
	var planes [3][]float64
	for c := range planes {
		planes[c] = make([]float64, w*h)
	}
	for _, octave := range []struct {
		cells  int
		height float64
		grey   bool
	}{{3, 40, false}, {7, 40, true}, {13, 45, true}, {29, 50, true}, {40, 15, false}} {
		n := octave.cells
		for c := range planes {
			if octave.grey && c > 0 {
				continue
			}
			grid := make([]float64, (n+2)*(n+2))
			for i := range grid {
				grid[i] = (r.Float64() - .5) * 2 * octave.height
			}
			for y := range h {
				v := float64(y) / float64(h) * float64(n)
				i, fv := int(v), v-math.Floor(v)
				for x := range w {
					u := float64(x) / float64(w) * float64(n)
					j, fu := int(u), u-math.Floor(u)
					g := grid[i*(n+2)+j:]
					val := (1-fv)*((1-fu)*g[0]+fu*g[1]) + fv*((1-fu)*g[n+2]+fu*g[n+3])
					planes[c][y*w+x] += val
					if octave.grey {
						planes[1][y*w+x] += val
						planes[2][y*w+x] += val
					}
				}
			}
		}
	}
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	for i := range w * h {
		for c := range planes {
			m.Pix[4*i+c] = uint8(max(0, min(255, 127+planes[c][i])))
		}
		m.Pix[4*i+3] = 255
	}
	return m
}

func jpegOf(tb testing.TB, m image.Image) []byte {
	tb.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, &jpeg.Options{Quality: 90}); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func newHasher(tb testing.TB, l Limits) *Hasher {
	tb.Helper()
	h, err := NewHasher(l)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { h.Close() })
	return h
}

func TestHash(t *testing.T) {
	h := newHasher(t, DefaultLimits())
	file := jpegOf(t, picture(640, 480, 1))
	m, err := h.Hash(context.Background(), file)
	if err != nil {
		t.Fatal(err)
	}
	img, err := jpeg.Decode(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	set, quality := hashPDQ(img)
	if len(m.Frames) != 1 || m.Frames[0].PDQ != set || m.Frames[0].Quality != quality {
		t.Errorf("got %+v, want one frame of %v", m, set)
	}
	t.Logf("%v, %+v", m, h.Stats())
}

func BenchmarkHash(b *testing.B) {
	h := newHasher(b, DefaultLimits())
	file := jpegOf(b, picture(1600, 1200, 1))
	b.SetBytes(int64(len(file)))
	for b.Loop() {
		if _, err := h.Hash(context.Background(), file); err != nil {
			b.Fatal(err)
		}
	}
	s := h.Stats()
	b.ReportMetric(float64(s.DecodeTime)/float64(b.Elapsed())*100, "%decode")
	b.ReportMetric(float64(s.HashTime)/float64(b.Elapsed())*100, "%hash")
}
