package imagehash

import (
	"image"
	"image/draw"
)

// opaque reports whether no pixel of a picture lets a background through. A type
// that cannot tell has no alpha that we know of.
func opaque(img image.Image) bool {
	m, ok := img.(interface{ Opaque() bool })
	return !ok || m.Opaque()
}

// backgrounds are what transparent pictures are composited on: those of the
// pages and viewers that people look at.
var backgrounds = [...]image.Image{image.White, image.Black}

// onBackground draws a picture on a background. The memory is used again by the
// next call if it is passed in.
func onBackground(canvas *image.RGBA, img, background image.Image) *image.RGBA {
	b := img.Bounds()
	if canvas == nil {
		canvas = image.NewRGBA(image.Rect(0, 0, b.Dx(), b.Dy()))
	}
	draw.Draw(canvas, canvas.Rect, background, image.Point{}, draw.Src)
	// Package draw is several times slower on these two than on NRGBA.
	const rows = 16
	strip := image.NewNRGBA(image.Rect(0, 0, b.Dx(), rows))
	for y := 0; y < b.Dy(); y += rows {
		r := image.Rect(0, y, b.Dx(), min(y+rows, b.Dy()))
		switch m := img.(type) {
		case *image.NRGBA64:
			for i := range r.Dy() {
				pix := m.Pix[m.PixOffset(b.Min.X, b.Min.Y+y+i):]
				out := strip.Pix[i*strip.Stride:][:strip.Stride]
				for x := range out {
					out[x] = pix[2*x]
				}
			}
		case *image.NYCbCrA:
			colours := &image.RGBA{Pix: strip.Pix, Stride: strip.Stride, Rect: strip.Rect}
			draw.Draw(colours, r.Sub(r.Min), &m.YCbCr, b.Min.Add(r.Min), draw.Src)
			for i := range r.Dy() {
				alpha := m.A[m.AOffset(b.Min.X, b.Min.Y+y+i):]
				out := strip.Pix[i*strip.Stride:]
				for x := range b.Dx() {
					out[4*x+3] = alpha[x]
				}
			}
		default:
			draw.Draw(canvas, canvas.Rect, img, b.Min, draw.Over)
			return canvas
		}
		draw.Draw(canvas, r, strip, image.Point{}, draw.Over)
	}
	return canvas
}
