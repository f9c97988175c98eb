package imagehash

import (
	"bytes"
	"compress/lzw"
	"encoding/binary"
	"fmt"
	"image"
	"image/gif"
	"io"
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
	err = d.animate("gif", g.width, g.height, g.frames)
	d.media.Truncated = d.media.Truncated || g.mended
	return err
}

type gifFile struct {
	width, height int
	frames        []animFrame
	truncated     bool // the blocks end without a trailer
	mended        bool // the first frame was broken; known when it is decoded
}

// parseGIF walks the blocks of a file (GIF89a specification) and checks the
// declared sizes.
func parseGIF(b []byte, maxPixels int64) (g *gifFile, err error) {
	g = new(gifFile)
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
				var mended *bool
				if len(g.frames) == 0 {
					// Of the first frame browsers show what there is; a later one that is
					// broken ends the animation.
					mended = &g.mended
				}
				f.decode = gifFrame(head, control, b[start:min(at, len(b))], x+fw, y+fh, mended)
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
// canvas just holds it. The frame's colours get a table of 256, for a pixel
// beyond a smaller one is black to browsers and an error to the decoder. If
// mended is not nil, pixels that are broken, too few or too many are taken as
// far as they go, and mended is set.
func gifFrame(head, control, data []byte, right, bottom int64, mended *bool) func() (image.Image, error) {
	return func() (image.Image, error) {
		const headLen, frameLen, tableLen = 13, 10, 3 << 8
		h := slices.Clone(head[:headLen])
		binary.LittleEndian.PutUint16(h[6:], uint16(min(right, 1<<16-1)))
		binary.LittleEndian.PutUint16(h[8:], uint16(min(bottom, 1<<16-1)))
		h[10], h[11] = 0, 0 // no table of the file
		frame, pixels, table := slices.Clone(data[:frameLen]), data[frameLen:], head[headLen:]
		if flags := frame[9]; flags&0x80 != 0 {
			n := 3 << (1 + flags&7)
			if n > len(pixels) {
				return nil, fmt.Errorf("%w: gif ends in a colour table", ErrUndecodable)
			}
			table, pixels = pixels[:n], pixels[n:]
		}
		if len(table) == 0 {
			return nil, fmt.Errorf("%w: gif without a colour table", ErrUndecodable)
		}
		frame[9] |= 0x87
		table = append(slices.Clone(table), make([]byte, tableLen-len(table))...)
		decode := func(pixels []byte) (image.Image, error) {
			return gif.Decode(bytes.NewReader(slices.Concat(h, control, frame, table, pixels, []byte{0x3b})))
		}
		img, err := decode(pixels)
		if err == nil || mended == nil {
			return img, err
		}
		w, high := binary.LittleEndian.Uint16(frame[5:]), binary.LittleEndian.Uint16(frame[7:])
		again, ok := mendGIF(pixels, int(w)*int(high))
		if !ok {
			return nil, err
		}
		*mended = true
		return decode(again)
	}
}

// mendGIF decompresses what it can of the pixels of a frame, at most n, and
// compresses them again with zeros for those that lack. It fails if there are
// none.
func mendGIF(b []byte, n int) ([]byte, bool) {
	if len(b) == 0 || b[0] < 2 || b[0] > 8 {
		return nil, false
	}
	width := int(b[0])
	var packed []byte
	for b = b[1:]; len(b) > 0 && b[0] != 0; {
		size := min(1+int(b[0]), len(b))
		packed = append(packed, b[1:size]...)
		b = b[size:]
	}
	r := lzw.NewReader(bytes.NewReader(packed), lzw.LSB, width)
	defer r.Close()
	pixels := make([]byte, n)
	if got, _ := io.ReadFull(r, pixels); got == 0 {
		return nil, false
	}
	var whole bytes.Buffer
	w := lzw.NewWriter(&whole, lzw.LSB, width)
	if _, err := w.Write(pixels); err != nil {
		return nil, false
	}
	if err := w.Close(); err != nil {
		return nil, false
	}
	out := []byte{byte(width)}
	for block := range slices.Chunk(whole.Bytes(), 255) {
		out = append(append(out, byte(len(block))), block...)
	}
	return append(out, 0), true
}
