package imagehash

import (
	"fmt"
	"image"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/corona10/goimagehash"
	"github.com/tocsin-fed/tocsin/hashlist"
)

// pHash and dHash are the library's to the bit.
func TestThumbnailsEqualLibrary(t *testing.T) {
	const seed = 21
	r := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	many, each := 100, 12
	if raceDetector {
		many, each = 10, 3
	}
	length := func(limit int) int { return 1 + int(float64(limit-1)*math.Pow(r.Float64(), 2)) }
	subjects := photographs(t)
	photos := subjects
	for i := range many {
		img := photos[i%len(photos)]
		b := img.Bounds()
		w, h := length(b.Dx()), length(b.Dy())
		at := image.Pt(r.IntN(b.Dx()-w+1), r.IntN(b.Dy()-h+1))
		subjects = append(subjects, cut(img, image.Rectangle{Min: at, Max: at.Add(image.Pt(w, h))}, i%4))
	}
	for range 3 * many {
		subjects = append(subjects, noise(r, length(900), length(900)))
	}
	for _, size := range []image.Point{{64, 64}, {9, 8}, {64, 65}, {9, 9}, {128, 64}, {576, 512}, {1, 1}, {1, 5000}, {5000, 1}, {2304, 2}, {4096, 3}, {3, 4096}, {4032, 100}} {
		for range each {
			subjects = append(subjects, noise(r, size.X, size.Y))
		}
	}
	covered := 0
	for _, img := range subjects {
		b := img.Bounds()
		small, ok := thumbnails(img)
		if ok {
			// More of the thumbnail than pHash looks at: each step between neighbours.
			got, want := must(goimagehash.ExtDifferenceHash(small[0], 63, 64)), must(goimagehash.ExtDifferenceHash(img, 63, 64))
			if !slices.Equal(got.GetHash(), want.GetHash()) {
				t.Errorf("%T %v: the thumbnail differs from the library's", img, b)
			}
			got, want = must(goimagehash.ExtAverageHash(small[0], 64, 64)), must(goimagehash.ExtAverageHash(img, 64, 64))
			if !slices.Equal(got.GetHash(), want.GetHash()) {
				t.Errorf("%T %v: the mean of the thumbnail differs from the library's", img, b)
			}
		}
		if ok {
			covered++
		}
		phash, dhash := hashSmall(img)
		if want := hash64(hashlist.PHash, goimagehash.PerceptionHash, img); phash != want {
			t.Errorf("%T %v: pHash %v, want %v", img, b, phash, want)
		}
		if want := hash64(hashlist.DHash, goimagehash.DifferenceHash, img); dhash != want {
			t.Errorf("%T %v: dHash %v, want %v", img, b, dhash, want)
		}
	}
	t.Logf("%d pictures, %d of them not by the library", len(subjects), covered)
	if covered < len(subjects)/2 {
		t.Error("most were made small by the library: nothing is compared")
	}
}

func BenchmarkSmall(b *testing.B) {
	for _, size := range []image.Point{{1600, 1200}, {4032, 3024}} {
		img := enlarged(photographs(b)[0].(*image.YCbCr), size)
		b.Run(fmt.Sprintf("%dx%d", size.X, size.Y), func(b *testing.B) {
			for b.Loop() {
				hashSmall(img)
			}
		})
	}
}

func BenchmarkSmallLibrary(b *testing.B) {
	for _, size := range []image.Point{{1600, 1200}, {4032, 3024}} {
		img := enlarged(photographs(b)[0].(*image.YCbCr), size)
		b.Run(fmt.Sprintf("%dx%d", size.X, size.Y), func(b *testing.B) {
			for b.Loop() {
				hash64(hashlist.PHash, goimagehash.PerceptionHash, img)
				hash64(hashlist.DHash, goimagehash.DifferenceHash, img)
			}
		})
	}
}
