package imagehash

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"image/gif"
	"slices"
)

// gif looks at an animation frame by frame. The standard decoder takes a whole
// file and keeps all of its frames; so each frame that is wanted becomes a file
// of its own. The walk over the blocks is also what finds the declared sizes
// before anything is allocated: of 34 bytes, the decoder would allocate 4 GiB.
func (d *decoder) gif(media []byte) error {
	g, err := parseGIF(media, d.maxPixels)
	if err != nil {
		return err
	}
	d.media.Width, d.media.Height = g.width, g.height
	d.media.Truncated = g.truncated
	return d.animate("gif", g.width, g.height, g.frames)
}

type gifFile struct {
	width, height int
	frames        []animFrame
	truncated     bool // the blocks end without a trailer
}

// parseGIF walks the blocks of a file (GIF89a specification) and checks the
// declared sizes.
func parseGIF(b []byte, maxPixels int64) (g gifFile, err error) {
	const headLen = 13
	if len(b) < headLen || string(b[:3]) != "GIF" {
		return g, fmt.Errorf("%w: gif ends in its header", ErrUndecodable)
	}
	w, h := int64(binary.LittleEndian.Uint16(b[6:])), int64(binary.LittleEndian.Uint16(b[8:]))
	at := headLen
	if b[10]&0x80 != 0 {
		at += 3 << (1 + b[10]&7)
	}
	if at > len(b) {
		return g, fmt.Errorf("%w: gif ends in its colour table", ErrUndecodable)
	}
	head := b[:at:at]
	// control is the graphic control extension before an image.
	var control []byte
	// subBlocks steps over data blocks and their terminator.
	subBlocks := func() bool {
		for at < len(b) {
			n := int(b[at])
			at += 1 + n
			if n == 0 {
				return true
			}
		}
		return false
	}
walk:
	for {
		if at >= len(b) {
			g.truncated = true
			break
		}
		start := at
		switch b[at] {
		case 0x3b: // trailer
			break walk
		case 0x21: // extension
			if at+2 > len(b) {
				g.truncated = true
				break walk
			}
			label := b[at+1]
			at += 2
			if !subBlocks() {
				g.truncated = true
				break walk
			}
			if label == 0xf9 && at-start == 8 {
				control = b[start:at:at]
			}
		case 0x2c: // image
			if at+10 > len(b) {
				g.truncated = true
				break walk
			}
			d := b[at : at+10]
			x, y := int64(binary.LittleEndian.Uint16(d[1:])), int64(binary.LittleEndian.Uint16(d[3:]))
			fw, fh := int64(binary.LittleEndian.Uint16(d[5:])), int64(binary.LittleEndian.Uint16(d[7:]))
			if len(g.frames) == 0 {
				// Browsers stretch the canvas to the first frame.
				w, h = max(w, x+fw), max(h, y+fh)
				if err := checkPixels("gif", w, h, maxPixels); err != nil {
					return g, err
				}
			}
			if err := checkPixels("a frame of the gif", fw, fh, maxPixels); err != nil {
				return g, err
			}
			at += 10
			if d[9]&0x80 != 0 {
				at += 3 << (1 + d[9]&7)
			}
			at++ // code size
			if !subBlocks() {
				// The frame is cut. The decoder will tell whether it is all there.
				g.truncated, at = true, len(b)
			}
			f := animFrame{rect: image.Rect(int(x), int(y), int(x+fw), int(y+fh)), opaque: true}
			if control != nil {
				f.opaque = control[3]&1 == 0
				switch control[3] >> 2 & 7 {
				case 2:
					f.dispose = clearRect
				case 3:
					f.dispose = restore
				}
			}
			if start < at && start+10 < len(b) {
				f.decode = gifFrame(head, control, b[start:min(at, len(b))], x+fw, y+fh)
				g.frames = append(g.frames, f)
			}
			if err := checkFrames("gif", len(g.frames)); err != nil {
				return g, err
			}
			control = nil
		case 0: // padding that some writers leave between blocks
			at++
		default:
			g.truncated = true
			break walk
		}
	}
	if err := checkPixels("gif", w, h, maxPixels); err != nil {
		return g, err
	}
	if len(g.frames) == 0 {
		return g, fmt.Errorf("%w: gif without a frame", ErrUndecodable)
	}
	g.width, g.height = int(w), int(h)
	return g, nil
}

// gifFrame returns a function that decodes a frame as a file of its own, whose
// canvas just holds it.
func gifFrame(head, control, data []byte, right, bottom int64) func() (image.Image, error) {
	return func() (image.Image, error) {
		h := slices.Clone(head)
		binary.LittleEndian.PutUint16(h[6:], uint16(min(right, 1<<16-1)))
		binary.LittleEndian.PutUint16(h[8:], uint16(min(bottom, 1<<16-1)))
		return gif.Decode(bytes.NewReader(slices.Concat(h, control, data, []byte{0x3b})))
	}
}
