package imagehash

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"image/jpeg"
	"io"
)

// maxScans is how many scans a JPEG file may have. Encoders write ten. Each
// costs a pass over the whole picture, however few bytes it has.
const maxScans = 100

func (d *decoder) jpeg(media []byte) error {
	walk := walkJPEG(media)
	media = walk.file
	c, err := jpeg.DecodeConfig(bytes.NewReader(media))
	if err != nil {
		return err
	}
	if err := d.declare(int64(c.Width), int64(c.Height)); err != nil {
		return err
	}
	if walk.scans > maxScans {
		return fmt.Errorf("%w: jpeg has %d scans, more than the limit of %d", ErrTooLarge, walk.scans, maxScans)
	}
	return d.still(func() (image.Image, error) {
		if turbo {
			if img, ok := decodeTurbo(media, c.Width, c.Height); ok {
				return img, nil
			}
		}
		img, err := jpeg.Decode(bytes.NewReader(media))
		if err == nil || walk.scans == 0 {
			return img, err
		}
		// Browsers show what there is. If we did not, cutting a few bytes off a
		// known picture, or breaking a few near its end, would hide it.
		broken := &shortReads{rest: media}
		if _, err := jpeg.Decode(broken); err == nil {
			return img, err
		}
		at := len(media) - len(broken.rest)
		if at < len(media) {
			at -= shortRead
		}
		for _, back := range []int{0, 2 * shortRead, 1024} {
			at -= back
			if at <= walk.firstScan {
				break
			}
			// Zeros decode to something dull in any Huffman table; more than this
			// many bits no rest of a scan can need.
			zeros := io.LimitReader(zeroReader{}, int64(c.Width)*int64(c.Height)/4+1<<16)
			end := bytes.NewReader([]byte{0xff, 0xd9})
			if cut, err := jpeg.Decode(io.MultiReader(bytes.NewReader(media[:at]), zeros, end)); err == nil {
				d.media.Truncated = true
				return cut, nil
			}
		}
		return img, err
	})
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// shortRead is how exactly the place where a file is broken is found, in bytes.
const shortRead = 32

// shortReads gives a file in so short reads that what has been read tells where
// its reader stopped.
type shortReads struct{ rest []byte }

// Read implements io.Reader.
func (r *shortReads) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), shortRead)], r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// A jpegWalk is what the markers of a file tell.
type jpegWalk struct {
	file      []byte // without the segments that browsers skip and the decoder refuses
	scans     int
	firstScan int // where in file the first scan's data begin
}

// walkJPEG follows the markers of a file (ITU-T T.81, annex B) as far as they
// go, in one pass. Like the decoder, it skips what is not a marker.
func walkJPEG(b []byte) (w jpegWalk) {
	const (
		tem, dac, rst0, rst7, soi, eoi, sos, dnl = 0x01, 0xcc, 0xd0, 0xd7, 0xd8, 0xd9, 0xda, 0xdc
	)
	kept, copied := 0, false
	drop := func(from, to int) {
		if w.scans > 0 {
			return // in front of the first scan only: that it hides nothing is certain there
		}
		w.file, copied = append(w.file, b[kept:from]...), true
		kept = to
	}
	for at := 0; at+1 < len(b); {
		if b[at] != 0xff {
			next := bytes.IndexByte(b[at:], 0xff)
			if next < 0 {
				break
			}
			at += next
			continue
		}
		marker := b[at+1]
		switch {
		case marker == 0xff: // fill
			at++
			continue
		case marker == tem:
			drop(at, at+2)
			at += 2
			continue
		case marker == 0, rst0 <= marker && marker <= rst7, marker == soi:
			at += 2
			continue
		}
		if marker == eoi || at+4 > len(b) {
			break
		}
		end := at + 2 + int(binary.BigEndian.Uint16(b[at+2:]))
		if end > len(b) {
			break
		}
		switch marker {
		case dac, dnl:
			drop(at, end)
		case sos:
			if w.scans++; w.scans == 1 {
				w.firstScan = len(w.file) + end - kept
			}
		}
		at = end
	}
	if !copied {
		w.file = b
	} else {
		w.file = append(w.file, b[kept:]...)
	}
	return w
}
