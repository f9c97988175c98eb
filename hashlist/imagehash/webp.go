package imagehash

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"

	"golang.org/x/image/webp"
)

// webp decodes still and animated files. The decoder, which is memory-safe,
// knows still ones only, so the container is walked here and every frame
// becomes a file of its own. libwebp's own animation decoder as it can be had
// in WebAssembly returns all frames at once, at a cost the file's author sets.
func (d *decoder) webp(media []byte) error {
	w, err := parseWebP(media, d.maxPixels)
	if err != nil {
		return err
	}
	d.media.Width, d.media.Height = w.width, w.height
	if !w.animated {
		return d.still(w.frames[0].decode)
	}
	d.media.Truncated = w.truncated
	return d.animate("webp", w.width, w.height, w.frames)
}

type webpFile struct {
	width, height int
	frames        []animFrame
	animated      bool
	truncated     bool
}

// riff calls f for each chunk until f or the bytes end. It reports whether the
// chunks ended where the bytes did.
func riff(b []byte, f func(id string, data []byte) (more bool)) bool {
	for len(b) >= 8 {
		id, n := string(b[:4]), int64(binary.LittleEndian.Uint32(b[4:]))
		b = b[8:]
		if n > int64(len(b)) {
			f(id, b)
			return false
		}
		if !f(id, b[:n:n]) {
			return true
		}
		b = b[min(int64(len(b)), n+n&1):]
	}
	return len(b) == 0
}

// parseWebP walks the chunks of a file (WebP Container Specification, RFC 9649)
// and checks every declared size: the canvas, each frame, each bitstream.
func parseWebP(b []byte, maxPixels int64) (f webpFile, err error) {
	if len(b) < 12 || string(b[:4]) != "RIFF" || string(b[8:12]) != "WEBP" {
		return f, fmt.Errorf("%w: webp ends in its header", ErrUndecodable)
	}
	var canvasW, canvasH int64
	var alpha []byte
	complete := riff(b[12:], func(id string, data []byte) bool {
		switch id {
		case "VP8X":
			if len(data) < 10 || canvasW != 0 {
				err = fmt.Errorf("%w: webp has a bad VP8X chunk", ErrUndecodable)
				return false
			}
			f.animated = data[0]&2 != 0
			canvasW, canvasH = 1+uint24(data[4:]), 1+uint24(data[7:])
			err = checkPixels("webp", canvasW, canvasH, maxPixels)
		case "ALPH":
			alpha = data
		case "VP8 ", "VP8L":
			if f.animated {
				return true // not part of the animation
			}
			var frame animFrame
			if frame, err = webpFrame(id, data, alpha, maxPixels); err != nil {
				return false
			}
			size := frame.rect.Size()
			if canvasW != 0 && image.Pt(int(canvasW), int(canvasH)) != size {
				err = fmt.Errorf("%w: webp canvas is %dx%d but its picture %dx%d", ErrUndecodable, canvasW, canvasH, size.X, size.Y)
			}
			canvasW, canvasH = int64(size.X), int64(size.Y)
			f.frames = append(f.frames, frame)
			return false
		case "ANMF":
			if !f.animated {
				return true
			}
			var frame animFrame
			if frame, err = webpAnimFrame(data, maxPixels); err != nil {
				break
			}
			f.frames = append(f.frames, frame)
			err = checkFrames("webp", len(f.frames))
		}
		return err == nil
	})
	if err != nil {
		return f, err
	}
	if len(f.frames) == 0 {
		return f, fmt.Errorf("%w: webp without a picture", ErrUndecodable)
	}
	f.width, f.height, f.truncated = int(canvasW), int(canvasH), !complete
	return f, nil
}

func uint24(b []byte) int64 { return int64(b[0]) | int64(b[1])<<8 | int64(b[2])<<16 }

func webpAnimFrame(data []byte, maxPixels int64) (f animFrame, err error) {
	if len(data) < 16 {
		return f, fmt.Errorf("%w: webp ends in a frame", ErrUndecodable)
	}
	at := image.Pt(int(2*uint24(data)), int(2*uint24(data[3:])))
	w, h := 1+uint24(data[6:]), 1+uint24(data[9:])
	if err := checkPixels("a frame of the webp", w, h, maxPixels); err != nil {
		return f, err
	}
	flags := data[15]
	var alpha []byte
	riff(data[16:], func(id string, data []byte) bool {
		switch id {
		case "ALPH":
			alpha = data
		case "VP8 ", "VP8L":
			f, err = webpFrame(id, data, alpha, maxPixels)
			return false
		}
		return true
	})
	if err != nil {
		return f, err
	}
	if f.decode == nil || f.rect.Size() != image.Pt(int(w), int(h)) {
		return f, fmt.Errorf("%w: a frame of the webp is not what it declares", ErrUndecodable)
	}
	f.rect = f.rect.Add(at)
	if flags&1 != 0 {
		f.dispose = clearRect
	}
	if flags&2 != 0 { // do not blend
		f.opaque = true
	}
	return f, nil
}

// webpFrame reads the size of a bitstream (RFC 6386, section 9.1; RFC 9649,
// section 3.4) and returns the frame it makes.
func webpFrame(id string, data, alpha []byte, maxPixels int64) (f animFrame, err error) {
	var w, h int64
	switch {
	case id == "VP8L" && len(data) >= 5 && data[0] == 0x2f:
		bits := binary.LittleEndian.Uint32(data[1:])
		w, h = int64(bits&0x3fff)+1, int64(bits>>14&0x3fff)+1
		f.opaque = bits>>28&1 == 0
		alpha = nil
	case id == "VP8 " && len(data) >= 10 && data[0]&1 == 0 && string(data[3:6]) == "\x9d\x01\x2a":
		w = int64(binary.LittleEndian.Uint16(data[6:]) & 0x3fff)
		h = int64(binary.LittleEndian.Uint16(data[8:]) & 0x3fff)
		f.opaque = len(alpha) == 0
	default:
		return f, fmt.Errorf("%w: webp has a bad %s chunk", ErrUndecodable, id)
	}
	if err := checkPixels("webp", w, h, maxPixels); err != nil {
		return f, err
	}
	f.rect = image.Rect(0, 0, int(w), int(h))
	f.decode = func() (image.Image, error) {
		file := []byte("RIFF\x00\x00\x00\x00WEBP")
		chunk := func(id string, data []byte) {
			file = append(file, id...)
			file = binary.LittleEndian.AppendUint32(file, uint32(len(data)))
			file = append(file, data...)
			if len(data)%2 != 0 {
				file = append(file, 0)
			}
		}
		if len(alpha) > 0 {
			x := make([]byte, 10)
			x[0] = 0x10 // has alpha
			x[4], x[5], x[6] = byte(w-1), byte((w-1)>>8), byte((w-1)>>16)
			x[7], x[8], x[9] = byte(h-1), byte((h-1)>>8), byte((h-1)>>16)
			chunk("VP8X", x)
			chunk("ALPH", alpha)
		}
		chunk(id, data)
		binary.LittleEndian.PutUint32(file[4:], uint32(len(file)-8))
		return webp.Decode(bytes.NewReader(file))
	}
	return f, nil
}
