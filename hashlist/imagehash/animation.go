package imagehash

import (
	"fmt"
	"image"
	"image/draw"
	"time"
)

const (
	// maxAnimation is how many frames an animation may have: ten minutes at 30
	// a second. To draw a late frame, all before it may have to be decoded.
	maxAnimation = 20_000
	// maxAnimationPixels is how many times MaxPixels the frames that must be
	// decoded may have together.
	maxAnimationPixels = 8
)

// What becomes of a frame's rectangle before the next frame is drawn.
type disposal uint8

const (
	keep disposal = iota
	clearRect
	restore
)

// An animFrame is one frame of an animation, not decoded yet.
type animFrame struct {
	rect    image.Rectangle // where it is drawn on the canvas
	opaque  bool            // it replaces what is in its rectangle
	dispose disposal
	decode  func() (image.Image, error)
}

// checkPixels fails unless a declared size is positive and within the limit.
// what names the thing that declares it.
func checkPixels(what string, w, h, limit int64) error {
	if w <= 0 || h <= 0 {
		return fmt.Errorf("%w: %s declares a picture of %dx%d pixels", ErrUndecodable, what, w, h)
	}
	if w > limit || h > limit/w {
		return fmt.Errorf("%w: %s declares %dx%d pixels, more than the limit of %d", ErrTooLarge, what, w, h, limit)
	}
	return nil
}

func checkFrames(what string, n int) error {
	if n > maxAnimation {
		return fmt.Errorf("%w: %s has more than %d frames", ErrTooLarge, what, maxAnimation)
	}
	return nil
}

// sample chooses at most m of n frames: the first, the last, and an even
// spread between. A picture that hides in a few frames between them is missed.
func sample(n, m int) []int {
	if n <= m {
		m = n
	}
	if m == 1 {
		return []int{0}
	}
	at := make([]int, m)
	for i := range at {
		at[i] = i * (n - 1) / (m - 1)
	}
	return at
}

// animate draws the wanted frames and hands them to show, in order. It decodes
// only what they are made of: from the last frame before each that covers the
// whole canvas. A broken frame after the first ends the animation, as it does
// in browsers; truncated tells.
func (d *decoder) animate(what string, width, height int, frames []animFrame) error {
	if err := checkPixels(what, int64(width), int64(height), d.maxPixels); err != nil {
		return err
	}
	canvasRect := image.Rect(0, 0, width, height)
	wanted := sample(len(frames), d.maxFrames)
	need := make([]bool, len(frames))
	pixels := int64(0)
	for _, w := range wanted {
		for i := w; i >= 0 && !need[i]; i-- {
			need[i] = true
			pixels += int64(frames[i].rect.Dx()) * int64(frames[i].rect.Dy())
			if frames[i].opaque && canvasRect.In(frames[i].rect) {
				break
			}
		}
	}
	if pixels/maxAnimationPixels > d.maxPixels {
		return fmt.Errorf("%w: %s has frames of %d pixels together, more than %d times the limit of %d",
			ErrTooLarge, what, pixels, maxAnimationPixels, d.maxPixels)
	}
	var canvas, saved *image.RGBA
	var undo animFrame // the frame before, whose disposal is due
	for i, f := range frames {
		if !need[i] {
			undo = animFrame{}
			continue
		}
		start := time.Now()
		img, err := f.decode()
		if err != nil {
			if i == 0 {
				return err
			}
			d.media.Truncated = true
			break
		}
		whole := f.opaque && canvasRect.In(f.rect)
		last := i == len(frames)-1 || !need[i+1]
		shown := wanted[0] == i
		if whole && last && img.Bounds().Size() == canvasRect.Size() {
			// The frame is the picture. No copy: hashes see the decoder's own pixels.
			d.decodeTime += time.Since(start)
			if shown {
				d.show(d.firstIndex+i, img)
			}
			canvas, undo = nil, animFrame{}
		} else {
			if canvas == nil {
				canvas = image.NewRGBA(canvasRect)
			}
			switch undo.dispose {
			case clearRect:
				draw.Draw(canvas, undo.rect, image.Transparent, image.Point{}, draw.Src)
			case restore:
				draw.Draw(canvas, undo.rect, saved, undo.rect.Min, draw.Src)
			}
			if f.dispose == restore {
				if saved == nil {
					saved = image.NewRGBA(canvasRect)
				}
				draw.Draw(saved, f.rect, canvas, f.rect.Min, draw.Src)
			}
			op := draw.Over
			if f.opaque {
				op = draw.Src
			}
			draw.Draw(canvas, f.rect, img, img.Bounds().Min, op)
			undo = f
			d.decodeTime += time.Since(start)
			if shown {
				d.show(d.firstIndex+i, canvas)
			}
		}
		if shown {
			if wanted = wanted[1:]; len(wanted) == 0 {
				break
			}
		}
	}
	return nil
}
