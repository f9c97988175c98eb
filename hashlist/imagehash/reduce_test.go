package imagehash

import (
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// photographs returns those of the demo.
func photographs(tb testing.TB) []image.Image {
	tb.Helper()
	paths, err := filepath.Glob("../../cmd/demo/photos/*.jpg")
	if err != nil || len(paths) < 5 {
		tb.Fatalf("the photographs of the demo are gone: %v, %v", paths, err)
	}
	var all []image.Image
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			tb.Fatal(err)
		}
		img, _, err := image.Decode(f)
		f.Close()
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, img)
	}
	return all
}

// cut copies a part of a picture into one of its own, of another kind.
func cut(img image.Image, r image.Rectangle, kind int) image.Image {
	switch m := img.(type) {
	case *image.YCbCr:
		if kind == 0 {
			return m.SubImage(r)
		}
	}
	var dst draw.Image
	switch kind {
	case 1:
		dst = image.NewGray(r)
	case 2:
		dst = image.NewNRGBA(r)
	default:
		dst = image.NewRGBA(r)
	}
	draw.Draw(dst, r, img, r.Min, draw.Src)
	return dst
}

// noise fills a picture of a random kind with random bytes, smooth when grain
// is small: with chroma that leaves the cube of RGB, which no photograph has.
func noise(r *rand.Rand, w, h int) image.Image {
	rect := image.Rect(0, 0, w, h)
	fill := func(pix []uint8) {
		v, grain := float64(r.IntN(256)), math.Exp(r.Float64()*6)
		for i := range pix {
			v = max(0, min(255, v+grain*r.NormFloat64()))
			pix[i] = uint8(v)
		}
	}
	switch kind := r.IntN(11); kind {
	case 0:
		m := image.NewGray(rect)
		fill(m.Pix)
		return m
	case 1:
		m := image.NewNRGBA(rect)
		fill(m.Pix)
		return m
	case 2:
		m := image.NewCMYK(rect)
		fill(m.Pix)
		return m
	case 3:
		m := image.NewPaletted(rect, make(color.Palette, 256))
		for i := range m.Palette {
			m.Palette[i] = color.RGBA{uint8(r.Uint32()), uint8(r.Uint32()), uint8(r.Uint32()), 255}
		}
		fill(m.Pix)
		return m
	case 4:
		m := image.NewRGBA(rect)
		fill(m.Pix)
		return m
	default:
		m := image.NewYCbCr(rect, []image.YCbCrSubsampleRatio{
			image.YCbCrSubsampleRatio444, image.YCbCrSubsampleRatio422, image.YCbCrSubsampleRatio420,
			image.YCbCrSubsampleRatio440, image.YCbCrSubsampleRatio411, image.YCbCrSubsampleRatio410}[kind-5])
		fill(m.Y)
		fill(m.Cb)
		fill(m.Cr)
		return m
	}
}

// The fused reduction gives the reference's hashes, but where a coefficient is
// as near to the median as the noise of the reference's own sums.
func TestReduceEqualsReference(t *testing.T) {
	const seed = 20
	r := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	type subject struct {
		name string
		img  image.Image
	}
	var subjects []subject
	add := func(what string, img image.Image) {
		b := img.Bounds()
		subjects = append(subjects, subject{fmt.Sprintf("%s %T %dx%d at %v", what, img, b.Dx(), b.Dy(), b.Min), img})
	}
	// A side that is no multiple of 128 has windows of every length and cut.
	length := func(limit int) int {
		return 5 + int(float64(limit-5)*math.Pow(r.Float64(), 2))
	}
	many := 150
	if raceDetector {
		many = 20
	}
	photos := photographs(t)
	for _, img := range photos {
		add("photograph", img)
	}
	for i := range many {
		img := photos[i%len(photos)]
		b := img.Bounds()
		w, h := length(b.Dx()), length(b.Dy())
		at := image.Pt(r.IntN(b.Dx()-w+1), r.IntN(b.Dy()-h+1))
		add("part of a photograph", cut(img, image.Rectangle{Min: at, Max: at.Add(image.Pt(w, h))}, i%4))
	}
	for i := range many {
		add("procedural", picture(length(700), length(700), float64(i+1)))
	}
	for range 2 * many {
		add("noise", noise(r, length(900), length(900)))
	}
	for n := 5; n <= 400; n += 3 {
		add("thin", noise(r, n, 5+n%7))
	}
	// The reference's sums run over thousands of float32 values: this is what
	// their noise comes to in a coefficient. Coefficients of pictures are tens
	// to thousands.
	const floatNoise = 0.01
	var tileNoise, dctNoise, farthest float64
	var pictures, differing, degenerate, bits, qualities int
	for _, s := range subjects {
		pictures++
		var got, want tile
		reduce(s.img, &got)
		referenceReduce(s.img, &want)
		for i := range got {
			tileNoise = max(tileNoise, math.Abs(float64(got[i]-want[i])))
		}
		gotDCT, wantDCT := transform(&got), transform(&want)
		for i := range gotDCT {
			for j := range gotDCT[i] {
				dctNoise = max(dctNoise, math.Abs(float64(gotDCT[i][j]-wantDCT[i][j])))
			}
		}
		gotSet, gotQuality := hashTile(&got)
		_, wantQuality := hashTile(&want)
		var wantSet [8]hashlist.Hash
		for i := range wantSet {
			wantSet[i] = referenceSigns(&wantDCT, i)
		}
		if gotQuality != wantQuality {
			qualities++
			t.Errorf("%s: quality %d, the reference's is %d", s.name, gotQuality, wantQuality)
		}
		if gotSet == wantSet {
			continue
		}
		differing++
		b := s.img.Bounds()
		if b.Dx() == 8 || b.Dx() == 16 || b.Dy() == 8 || b.Dy() == 16 {
			// Eight or four equal values in a row: coefficients of that period are
			// zero, and their bits noise in the reference as well.
			degenerate++
		} else {
			t.Logf("%s of quality %d differs: %d bits of the original", s.name, wantQuality, distance(gotSet[0], wantSet[0]))
		}
		for i := range gotSet {
			n, margin := differences(gotSet[i], wantSet[i], &wantDCT, i)
			bits += n
			if farthest = max(farthest, margin); margin > floatNoise {
				t.Errorf("%s: a bit of %s differs whose coefficient is %g from the median", s.name, Transforms[i], margin)
			}
		}
	}
	t.Logf("%d pictures: %d differ, %d of them with a side of 8 or 16 pixels, in %d of %d bits, none more than %.2g from the median; %d qualities differ; noise of the tile %.2g, of the coefficients %.2g",
		pictures, differing, degenerate, bits, pictures*8*256, farthest, qualities, tileNoise, dctNoise)
	// Chance puts a coefficient of one picture in some hundreds that near to one
	// of the four medians.
	if differing-degenerate > pictures/200 {
		t.Errorf("%d pictures differ that have no reason to", differing-degenerate)
	}
}

// differences counts the bits in which two hashes of one variant differ, and
// tells how far from the median the farthest of their coefficients is.
func differences(got, want hashlist.Hash, a *[freqs][freqs]float32, variant int) (n int, farthest float64) {
	var v, sorted [freqs * freqs]float32
	for i := range freqs {
		for j := range freqs {
			x := a[i][j]
			if negated[variants[variant].negated](i, j) {
				x = -x
			}
			if variants[variant].transposed {
				v[j*freqs+i] = x
			} else {
				v[i*freqs+j] = x
			}
		}
	}
	sorted = v
	slices.Sort(sorted[:])
	median := sorted[127]
	for k, x := range v {
		if bit(got, k) != bit(want, k) {
			n++
			farthest = max(farthest, math.Abs(float64(x-median)))
		}
	}
	return n, farthest
}

func bit(h hashlist.Hash, k int) byte {
	if h.IsZero() {
		return 0
	}
	return h.Sum()[31-k/8] >> (k % 8) & 1
}

// The weights of every side add up to one, and to what boxes give that are
// applied one after the other.
func TestAxis(t *testing.T) {
	for n := minSide; n < 1200; n++ {
		a, at := newAxis(n), samples(n)
		for _, i := range []int{0, 1, 31, 62, 63} {
			s := &a[i]
			if s.start < 0 || s.size < 1 || s.start+s.size > n {
				t.Fatalf("side of %d: window %d is %d pixels from %d", n, i, s.size, s.start)
			}
			row := make([]float64, n)
			once := func(at int, weight float64, to func(int, float64)) {
				win := window(n)
				first, last := max(at+(win+2)/2-win, 0), min(at+(win+2)/2-1, n-1)
				for j := first; j <= last; j++ {
					to(j, weight/float64(last-first+1))
				}
			}
			once(at[i], 1, func(j int, weight float64) {
				once(j, weight, func(k int, weight float64) { row[k] += weight })
			})
			for k, want := range row {
				got := 0.0
				if k >= s.start && k < s.start+s.size {
					got = s.weight(k-s.start) * s.scale
				}
				if math.Abs(got-want) > 1e-15 {
					t.Fatalf("side of %d: weight of pixel %d in window %d is %g, want %g", n, k, i, got, want)
				}
			}
		}
	}
}

// enlarged is a picture of some size as a JPEG decoder gives it, of the colours
// of a photograph.
func enlarged(photo *image.YCbCr, size image.Point) *image.YCbCr {
	img := image.NewYCbCr(image.Rectangle{Max: size}, image.YCbCrSubsampleRatio420)
	for y := range size.Y {
		for x := range size.X {
			c := photo.YCbCrAt(x*photo.Rect.Dx()/size.X, y*photo.Rect.Dy()/size.Y)
			img.Y[img.YOffset(x, y)] = c.Y
			img.Cb[img.COffset(x, y)], img.Cr[img.COffset(x, y)] = c.Cb, c.Cr
		}
	}
	return img
}

func benchmarkReduce(b *testing.B, reduce func(image.Image, *tile)) {
	for _, size := range []image.Point{{512, 512}, {1600, 1200}, {4032, 3024}} {
		img := enlarged(photographs(b)[0].(*image.YCbCr), size)
		b.Run(fmt.Sprintf("%dx%d", size.X, size.Y), func(b *testing.B) {
			for b.Loop() {
				var out tile
				reduce(img, &out)
				hashTile(&out)
			}
		})
	}
}

func BenchmarkPDQ(b *testing.B)          { benchmarkReduce(b, reduce) }
func BenchmarkPDQReference(b *testing.B) { benchmarkReduce(b, referenceReduce) }

func BenchmarkTile(b *testing.B) {
	var t tile
	reduce(picture(200, 200, 1), &t)
	for b.Loop() {
		hashTile(&t)
	}
}
