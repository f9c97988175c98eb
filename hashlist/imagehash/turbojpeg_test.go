//go:build linux && cgo

package imagehash

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// withTurbo has this process decode as a child with libjpeg-turbo does.
func withTurbo(tb testing.TB) {
	tb.Helper()
	if openTurbo(); !turbo {
		tb.Fatal("there is no libturbojpeg.so.0: run `tools/setup turbojpeg`, or install Debian's libturbojpeg0")
	}
	tb.Cleanup(func() { turbo = false })
}

// compressed returns photographs as JPEG files: the demo's anew at several qualities, in
// colour and grey, and those of other projects as they are.
func compressed(t *testing.T) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for i, p := range photographs(t) {
		grey := cut(p, p.Bounds(), 1)
		for _, quality := range []int{80, 90, 100} {
			for kind, img := range map[string]image.Image{"colour": p, "grey": grey} {
				var b bytes.Buffer
				if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: quality}); err != nil {
					t.Fatal(err)
				}
				files[fmt.Sprintf("photograph %d, %s, quality %d", i, kind, quality)] = b.Bytes()
			}
		}
	}
	root := os.Getenv("TOCSIN_TESTDATA")
	if root == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("CI needs TOCSIN_TESTDATA")
		}
		return files
	}
	err := filepath.WalkDir(filepath.Join(root, "pdq", "images"), func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".jpg") {
			files[filepath.Base(path)], err = os.ReadFile(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestTurboAgrees(t *testing.T) {
	withTurbo(t)
	worst, taken := 0, 0
	for name, file := range compressed(t) {
		c, err := jpeg.DecodeConfig(bytes.NewReader(file))
		if err != nil {
			t.Fatal(name, err)
		}
		img, ok := decodeTurbo(file, c.Width, c.Height)
		if !ok {
			t.Logf("%s is left to package jpeg", name)
			continue
		}
		taken++
		want, err := jpeg.Decode(bytes.NewReader(file))
		if err != nil {
			t.Fatal(name, err)
		}
		if img.Bounds() != want.Bounds() {
			t.Fatalf("%s: bounds %v, want %v", name, img.Bounds(), want.Bounds())
		}
		got, gotQuality := hashPDQ(img)
		set, quality := hashPDQ(want)
		if quality < 50 {
			continue // bits of noise
		}
		for i := range set {
			d := distance(got[i], set[i])
			if worst = max(worst, d); d > 2 {
				t.Errorf("%s: %s hash differs in %d bits", name, Transforms[i], d)
			}
		}
		if gotQuality < quality-1 || gotQuality > quality+1 {
			t.Errorf("%s: quality %d, want %d", name, gotQuality, quality)
		}
		p, d := hashSmall(img)
		wantP, wantD := hashSmall(want)
		if distance(p, wantP) > 1 || distance(d, wantD) > 1 {
			t.Errorf("%s: pHash differs in %d bits, dHash in %d", name, distance(p, wantP), distance(d, wantD))
		}
	}
	if taken < 25 {
		t.Errorf("only %d files were taken", taken)
	}
	t.Logf("%d files, the worst differs in %d bits", taken, worst)
}

// What a broken file shows is for the code around package jpeg.
func TestTurboLeavesBlemishes(t *testing.T) {
	withTurbo(t)
	file := jpegOf(t, picture(320, 240, 4))
	if _, ok := decodeTurbo(file, 320, 240); !ok {
		t.Fatal("a good file was refused")
	}
	for name, broken := range map[string][]byte{
		"nothing":           nil,
		"cut":               file[:len(file)/2],
		"without an end":    file[:len(file)-2],
		"bad Huffman codes": slices.Concat(file[:len(file)-300], bytes.Repeat([]byte{0xff, 0}, 100), []byte{0xff, 0xd9}),
		"stray restart":     slices.Insert(bytes.Clone(file), len(file)-300, 0xff, 0xd3),
		"no picture":        bytes.Repeat([]byte("not a picture "), 100),
	} {
		if _, ok := decodeTurbo(broken, 320, 240); ok {
			t.Errorf("%s was taken", name)
		}
	}
	if _, ok := decodeTurbo(file, 320, 241); ok {
		t.Error("a file of another size than declared was taken")
	}
}

// A child uses the library if it is told to. The two differ on this file.
func TestTurboInChild(t *testing.T) {
	withTurbo(t)
	file, err := os.ReadFile("../../cmd/demo/photos/coffee.jpg")
	if err != nil {
		t.Fatal(err)
	}
	img, err := jpeg.Decode(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	set, _ := hashPDQ(img)
	fast, _ := decodeTurbo(file, img.Bounds().Dx(), img.Bounds().Dy())
	fastSet, _ := hashPDQ(fast)
	for on, want := range map[bool][8]hashlist.Hash{false: set, true: fastSet} {
		l := DefaultLimits()
		l.Workers, l.TurboJPEG = 1, on
		m, err := newHasher(t, l).Hash(t.Context(), file)
		if err != nil || m.Frames[0].PDQ != want {
			t.Errorf("turbo %v: %v, %v", on, m.Frames, err)
		}
	}
}

func FuzzTurboJPEG(f *testing.F) {
	withTurbo(f)
	f.Add(jpegOf(f, picture(64, 48, 4)))
	f.Add(jpegOf(f, image.NewGray(image.Rect(0, 0, 17, 9))))
	f.Fuzz(func(t *testing.T, file []byte) {
		c, err := jpeg.DecodeConfig(bytes.NewReader(file))
		if err != nil || c.Width*c.Height > 1<<20 {
			return
		}
		img, ok := decodeTurbo(file, c.Width, c.Height)
		if !ok {
			return
		}
		if img.Bounds().Dx() != c.Width || img.Bounds().Dy() != c.Height {
			t.Fatalf("bounds %v of a file of %dx%d", img.Bounds(), c.Width, c.Height)
		}
		hashPDQ(img)
		hashSmall(img)
		// What it takes is a file that package jpeg takes too, or none of its kind.
		var unsupported jpeg.UnsupportedError
		if _, err := jpeg.Decode(bytes.NewReader(file)); err != nil && !errors.As(err, &unsupported) {
			t.Logf("package jpeg refuses it: %v", err)
		}
	})
}

// BenchmarkJPEG takes a photograph of 12 megapixels from its bytes to all hashes,
// beside what package jpeg takes to decode it.
func BenchmarkJPEG(b *testing.B) {
	var file bytes.Buffer
	if err := jpeg.Encode(&file, enlarged(photographs(b)[0].(*image.YCbCr), image.Pt(4032, 3024)), &jpeg.Options{Quality: 90}); err != nil {
		b.Fatal(err)
	}
	for _, on := range []bool{false, true} {
		b.Run(fmt.Sprintf("turbo=%v", on), func(b *testing.B) {
			withTurbo(b)
			turbo = on
			var whole, plain []time.Duration // in turns
			for b.Loop() {
				start := time.Now()
				if _, err := examine(request{maxPixels: 64 << 20, maxFrames: 8}, file.Bytes()); err != nil {
					b.Fatal(err)
				}
				whole = append(whole, time.Since(start))
				start = time.Now()
				if _, err := jpeg.Decode(bytes.NewReader(file.Bytes())); err != nil {
					b.Fatal(err)
				}
				plain = append(plain, time.Since(start))
			}
			slices.Sort(whole)
			slices.Sort(plain)
			w, p := whole[len(whole)/2], plain[len(plain)/2]
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(w.Seconds()*1e3, "whole-ms")
			b.ReportMetric(p.Seconds()*1e3, "decoding-by-Go-ms")
			b.ReportMetric(w.Seconds()/p.Seconds(), "of-decoding-by-Go")
		})
	}
}
