package main

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"

	"golang.org/x/image/draw"
)

// picture is what somebody uploads.
type picture struct {
	name  string
	bytes []byte
	known bool // whether the node should know it
}

// copies are the banned photograph, and what people make of one to get it past a filter.
func copies(original []byte) ([]picture, error) {
	src, err := jpeg.Decode(bytes.NewReader(original))
	if err != nil {
		return nil, fmt.Errorf("decode the photograph: %w", err)
	}
	w, h := src.Bounds().Dx(), src.Bounds().Dy()
	half := image.NewRGBA(image.Rect(0, 0, w/2, h/2))
	draw.CatmullRom.Scale(half, half.Bounds(), src, src.Bounds(), draw.Src, nil)
	mirrored := image.NewRGBA(image.Rect(0, 0, w, h))
	turned := image.NewRGBA(image.Rect(0, 0, h, w))
	inverted := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			r, g, b, _ := src.At(src.Bounds().Min.X+x, src.Bounds().Min.Y+y).RGBA()
			c := color.RGBA{uint8(r >> 8), uint8(g >> 8), uint8(b >> 8), 255}
			mirrored.SetRGBA(w-1-x, y, c)
			turned.SetRGBA(h-1-y, x, c)
			inverted.SetRGBA(x, y, color.RGBA{255 - c.R, 255 - c.G, 255 - c.B, 255})
		}
	}
	pictures := []picture{{"the photograph itself", original, true}}
	for _, v := range []struct {
		name    string
		img     image.Image
		quality int
	}{
		{"encoded again, JPEG quality 30", src, 30},
		{fmt.Sprintf("half its size, %dx%d", w/2, h/2), half, 85},
		{"mirrored", mirrored, 85},
		{"turned by 90 degrees", turned, 85},
		{"colours inverted", inverted, 85},
	} {
		var b bytes.Buffer
		if err := jpeg.Encode(&b, v.img, &jpeg.Options{Quality: v.quality}); err != nil {
			return nil, fmt.Errorf("encode a copy: %w", err)
		}
		pictures = append(pictures, picture{v.name, b.Bytes(), true})
	}
	return pictures, nil
}
