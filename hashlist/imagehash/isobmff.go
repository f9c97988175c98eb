package imagehash

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"slices"
	"time"

	"github.com/gen2brain/avif"
	"github.com/gen2brain/heic"
)

// maxSequenceBytes bounds the frames of an AVIF sequence together, at 4 bytes a
// pixel: the library returns them all at once.
const maxSequenceBytes = 512 << 20

// avif decodes still pictures and sequences.
func (d *decoder) avif(media []byte) error {
	boxes, err := parseBoxes(media, d.maxPixels)
	if err != nil {
		return err
	}
	if boxes.frames < 2 || string(media[8:12]) != "avis" {
		err := d.still(func() (image.Image, error) {
			img, err := avif.Decode(bytes.NewReader(media))
			if err != nil {
				return nil, err
			}
			if blank(img) {
				return nil, fmt.Errorf("%w: avif has no picture or a wholly transparent one", ErrUndecodable)
			}
			return img, d.fit(img)
		})
		if err == nil || boxes.frames < 2 || errors.Is(err, ErrTooLarge) {
			return err
		}
		// No picture but a sequence, whatever the major brand says.
		media = slices.Clone(media)
		copy(media[8:12], "avis")
	}
	if err := checkFrames("avif", int(min(boxes.frames, maxAnimation+1))); err != nil {
		return err
	}
	if boxes.pixels > maxSequenceBytes/4/boxes.frames {
		return fmt.Errorf("%w: avif declares %d frames of %d pixels, more than %d bytes together",
			ErrTooLarge, boxes.frames, boxes.pixels, maxSequenceBytes)
	}
	start := time.Now()
	all, err := avif.DecodeAll(bytes.NewReader(media))
	if err != nil {
		return err
	}
	d.decodeTime += time.Since(start)
	return d.sequence(all.Image)
}

// sequence hashes a sample of frames that a library has decoded together.
func (d *decoder) sequence(frames []image.Image) error {
	if err := checkFrames(d.media.Format, len(frames)); err != nil {
		return err
	}
	if len(frames) == 0 {
		return nil
	}
	for i, n := range sample(len(frames), d.maxFrames) {
		img := frames[n]
		if blank(img) {
			if i == 0 {
				return fmt.Errorf("%w: %s has no picture or a wholly transparent one", ErrUndecodable, d.media.Format)
			}
			d.media.Truncated = true
			break
		}
		if err := d.fit(img); err != nil {
			return err
		}
		d.show(n, img)
	}
	return nil
}

// fit takes the size of a decoded picture, which rotation may have changed or
// the header may have lied about.
func (d *decoder) fit(img image.Image) error {
	b := img.Bounds()
	return d.declare(int64(b.Dx()), int64(b.Dy()))
}

// blank reports whether a picture is made of zero bytes. The library's AVIF
// decoder succeeds even when no frame could be decoded, and leaves the output
// as it was; a real picture has at least its alpha set.
func blank(img image.Image) bool {
	var pix []byte
	switch m := img.(type) {
	case *image.RGBA:
		pix = m.Pix
	case *image.RGBA64:
		pix = m.Pix
	case *image.NRGBA:
		pix = m.Pix
	case *image.NRGBA64:
		pix = m.Pix
	default:
		return false
	}
	for len(pix) > 0 {
		n := min(len(pix), len(zeros))
		if !bytes.Equal(pix[:n], zeros[:n]) {
			return false
		}
		pix = pix[n:]
	}
	return true
}

var zeros [4096]byte

// heic decodes the primary image of a file.
func (d *decoder) heic(media []byte) error {
	if _, err := parseBoxes(media, d.maxPixels); err != nil {
		return err
	}
	if string(media[8:12]) != "heic" {
		// The library goes by the major brand alone, and knows few.
		media = slices.Clone(media)
		copy(media[8:12], "heic")
	}
	return d.still(func() (image.Image, error) {
		img, err := heic.Decode(bytes.NewReader(media))
		if err != nil {
			return nil, err
		}
		return img, d.fit(img)
	})
}

// boxInfo is what the boxes of a file declare.
type boxInfo struct {
	pixels int64 // of the largest picture
	frames int64 // of the longest track
}

// parseBoxes walks the boxes of an ISO media file (ISO/IEC 14496-12, 23008-12)
// that declare sizes: ispe of items, the sample entries of tracks, and their
// numbers of samples. A coded picture may still be larger than it declares: the
// libraries have limits of their own for that, and the child's memory cap.
func parseBoxes(b []byte, maxPixels int64) (info boxInfo, err error) {
	declare := func(what string, w, h int64) {
		if e := checkPixels(what, w, h, maxPixels); e != nil {
			if err == nil {
				err = e
			}
			return
		}
		info.pixels = max(info.pixels, w*h)
	}
	var walk func(b []byte, depth int)
	walk = func(b []byte, depth int) {
		eachBox(b, func(name string, body []byte) {
			skip := -1 // bytes before the boxes inside, if it is a container
			switch name {
			case "iprp", "ipco", "moov", "trak", "mdia", "minf", "stbl":
				skip = 0
			case "meta":
				skip = 4
			case "stsd":
				skip = 8
			case "ispe":
				if len(body) >= 12 {
					declare("an ispe box", int64(binary.BigEndian.Uint32(body[4:])), int64(binary.BigEndian.Uint32(body[8:])))
				}
			case "av01", "hvc1", "hev1":
				if len(body) >= 28 {
					declare("a track", int64(binary.BigEndian.Uint16(body[24:])), int64(binary.BigEndian.Uint16(body[26:])))
				}
			case "stsz":
				if len(body) >= 12 {
					info.frames = max(info.frames, int64(binary.BigEndian.Uint32(body[8:])))
				}
			}
			// Real files are seven deep.
			if skip >= 0 && len(body) >= skip && depth < 8 {
				walk(body[skip:], depth+1)
			}
		})
	}
	walk(b, 0)
	if err == nil && info.pixels == 0 {
		err = fmt.Errorf("%w: no box declares the size of a picture", ErrUndecodable)
	}
	return info, err
}

// eachBox calls f for each box in b. A box that claims more than there is gets
// what there is, so that what it holds is seen whatever a library makes of it.
func eachBox(b []byte, f func(name string, body []byte)) {
	for len(b) >= 8 {
		size, head := uint64(binary.BigEndian.Uint32(b)), uint64(8)
		name := string(b[4:8])
		switch size {
		case 0: // to the end
			size = uint64(len(b))
		case 1:
			if len(b) < 16 {
				return
			}
			size, head = binary.BigEndian.Uint64(b[8:]), 16
		}
		if size < head {
			return
		}
		size = min(size, uint64(len(b)))
		f(name, b[head:size])
		b = b[size:]
	}
}
