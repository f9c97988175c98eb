package imagehash

import (
	"bytes"
	"image"
	"image/color"
	"image/draw"
	"image/gif"
	"testing"
)

// What browsers forgive in a GIF file does not hide a picture.
func TestBrokenGIF(t *testing.T) {
	h := sharedHasher()
	src := picture(320, 240, 4)
	greys := func(n int) (p color.Palette) {
		for i := range n {
			p = append(p, color.Gray{uint8(i % 128 * 2)})
		}
		return p
	}
	m := image.NewPaletted(src.Rect, greys(128))
	draw.FloydSteinberg.Draw(m, m.Rect, src, image.Point{})
	m.Palette = greys(256)
	file := func() []byte {
		return encoded(func(b *bytes.Buffer) error {
			return gif.EncodeAll(b, &gif.GIF{Image: []*image.Paletted{m}, Delay: []int{0}, Config: image.Config{ColorModel: m.Palette, Width: m.Rect.Dx(), Height: m.Rect.Dy()}})
		})
	}
	good := file()
	want := hashOK(t, h, "whole", good).Frames[0]
	const head, table = 13, 3 * 256
	if good[10] != 0x87 {
		t.Fatalf("flags of the file are %x, want a table of 256", good[10])
	}
	// A table of half the length, and a pixel beyond it.
	m.Pix[len(m.Pix)-1] = 200
	beyond := file()
	beyond = append(bytes.Clone(beyond[:head+table/2]), beyond[head+table:]...)
	beyond[10] = 0x86
	noise := bytes.Clone(good)
	for i := len(noise) - 400; i < len(noise)-300; i++ {
		noise[i] ^= 0xa5
	}
	m.Pix = append(m.Pix, make([]byte, 320*10)...)
	m.Rect.Max.Y += 10
	more := bytes.Clone(file())
	if at := bytes.Index(more, []byte{0x2c, 0, 0, 0, 0, 0x40, 1, 250, 0}); at < 0 {
		t.Fatal("no frame of 320x250")
	} else {
		more[at+7], more[8] = 240, 240 // of the frame and of the canvas
	}
	for name, c := range map[string]struct {
		file      []byte
		truncated bool
		limit     int
	}{
		"no trailer":                {good[:len(good)-1], true, 0},
		"5 % cut":                   {good[:len(good)*95/100], true, 30},
		"pixel beyond the table":    {beyond, false, 4},
		"that and 5 % cut":          {beyond[:len(beyond)*95/100], true, 30},
		"noise near the end":        {noise, true, 30},
		"more pixels than declared": {more, true, 4},
	} {
		got := hashOK(t, h, name, c.file)
		if d := distance(got.Frames[0].PDQ[0], want.PDQ[0]); d > c.limit || got.Truncated != c.truncated {
			t.Errorf("%s: distance %d, truncated %v", name, d, got.Truncated)
		}
	}
}
