package imagehash

import (
	"bytes"
	"image"
	"image/color"
	"image/draw"
	"image/gif"
	"testing"

	"github.com/gen2brain/avif"
	"github.com/gen2brain/webp"
)

// nearest is the distance of the closest of the frames of a number.
func nearest(m Media, index int, want Frame) int {
	best := 999
	for _, f := range m.Frames {
		if f.Index == index {
			best = min(best, distance(f.PDQ[0], want.PDQ[0]))
		}
	}
	return best
}

// A picture that is kept in the alpha channel is seen, and so is one that is
// disturbed by what is not.
func TestTransparency(t *testing.T) {
	h := sharedHasher()
	const w, hh = 240, 180
	src := picture(w, hh, 5)
	grey := image.NewGray(src.Rect)
	draw.Draw(grey, grey.Rect, src, image.Point{}, draw.Src)
	want := hashOK(t, h, "plain", pngOf(grey)).Frames[0]

	alpha := image.NewNRGBA(src.Rect) // black, and the picture on white
	for i, v := range grey.Pix {
		alpha.Pix[4*i+3] = 255 - v
	}
	light := image.NewNRGBA(src.Rect) // white, and the picture on black
	for i, v := range grey.Pix {
		light.Pix[4*i], light.Pix[4*i+1], light.Pix[4*i+2], light.Pix[4*i+3] = 255, 255, 255, v
	}
	// Every other pixel is the complement, and transparent.
	mixed := image.NewNRGBA(image.Rect(0, 0, 2*w, 2*hh))
	for y := range 2 * hh {
		for x := range 2 * w {
			c := src.RGBAAt(x/2, y/2)
			if (x+y)%2 == 0 {
				mixed.SetNRGBA(x, y, color.NRGBA{c.R, c.G, c.B, 255})
			} else {
				mixed.SetNRGBA(x, y, color.NRGBA{255 - c.R, 255 - c.G, 255 - c.B, 0})
			}
		}
	}
	deep := image.NewNRGBA64(src.Rect)
	draw.Draw(deep, deep.Rect, alpha, image.Point{}, draw.Src)
	bits := image.NewPaletted(src.Rect, color.Palette{color.Black, color.White})
	draw.FloydSteinberg.Draw(bits, bits.Rect, grey, image.Point{})
	bits.Palette = color.Palette{color.NRGBA{0, 0, 0, 255}, color.NRGBA{}}
	lossless := func(m image.Image) []byte {
		return encoded(func(b *bytes.Buffer) error { return webp.Encode(b, m, webp.Options{Lossless: true, Exact: true}) })
	}
	lossy := encoded(func(b *bytes.Buffer) error { return webp.Encode(b, alpha, webp.Options{Quality: 90, Exact: true}) })
	frame := func(still []byte) []byte { return webpFrameOf(still, 0, 0, w, hh, 2) }
	opaqueFrame := lossless(picture(w, hh, 6))
	for name, c := range map[string]struct {
		file  []byte
		index int
		limit int
	}{
		"png, on white":   {pngOf(alpha), 0, 2},
		"png, on black":   {pngOf(light), 0, 2},
		"png, 16 bits":    {pngOf(deep), 0, 2},
		"png, complement": {pngOf(mixed), 0, 16},
		"gif": {encoded(func(b *bytes.Buffer) error {
			return gif.EncodeAll(b, &gif.GIF{Image: []*image.Paletted{bits}, Delay: []int{0}})
		}), 0, 20},
		"webp, lossless":   {lossless(alpha), 0, 2},
		"webp, lossy":      {lossy, 0, 10},
		"webp, last frame": {webpAnimation(w, hh, frame(opaqueFrame), frame(lossless(alpha))), 1, 2},
		"avif": {encoded(func(b *bytes.Buffer) error {
			return avif.Encode(b, alpha, avif.Options{Quality: 80, QualityAlpha: 80, Speed: 10})
		}), 0, 16},
		"png, second frame": {pngChunks(w, hh, 8, 6, 0, acTL, fcTL(alpha.Rect, 0, 0), idat(mixed.SubImage(alpha.Rect)), fcTL(alpha.Rect, 0, 0), fdAT(alpha), iend), 1, 2},
	} {
		m := hashOK(t, h, name, c.file)
		if d := nearest(m, c.index, want); d > c.limit {
			t.Errorf("%s: distance %d", name, d)
		}
		ways := 0
		for _, f := range m.Frames {
			if f.Index == c.index {
				ways++
			}
		}
		if ways != 3 {
			t.Errorf("%s: %d ways", name, ways)
		}
	}
	// The first is as lists have it: alpha dropped.
	bare := image.NewRGBA(mixed.Rect)
	for i := range bare.Pix {
		bare.Pix[i] = mixed.Pix[i] | byte(i%4/3*255)
	}
	if got, want := hashOK(t, h, "mixed", pngOf(mixed)), hashOK(t, h, "bare", pngOf(bare)); got.Frames[0].PDQ != want.Frames[0].PDQ || len(want.Frames) != 1 {
		t.Errorf("without alpha: distance %d, %d frames of an opaque one", distance(got.Frames[0].PDQ[0], want.Frames[0].PDQ[0]), len(want.Frames))
	}
	// The most frames that a reply may have.
	l := DefaultLimits()
	l.Workers, l.MaxFrames = 1, maxReplyFrames
	small := alpha.SubImage(image.Rect(0, 0, 24, 24))
	chunks := [][2][]byte{acTL, idat(small)}
	for range 70 {
		chunks = append(chunks, fcTL(small.Bounds(), 1, 0), fdAT(small))
	}
	m := hashOK(t, newHasher(t, l), "many", pngChunks(24, 24, 8, 6, 0, append(chunks, iend)...))
	if len(m.Frames) != 3*65 {
		t.Errorf("%d frames", len(m.Frames))
	}
}
