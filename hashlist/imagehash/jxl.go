package imagehash

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"time"

	"github.com/gen2brain/jpegxl"
)

// jxl decodes still pictures and animations. How many frames an animation has
// is known only once all their headers are read, so the child's memory cap is
// what bounds them.
func (d *decoder) jxl(media []byte) error {
	h, err := parseJXL(media)
	if err != nil {
		return err
	}
	if err := d.declare(h.width, h.height); err != nil {
		return err
	}
	if !h.animated {
		return d.still(func() (image.Image, error) {
			img, err := jpegxl.Decode(bytes.NewReader(media))
			if err != nil {
				return nil, err
			}
			return img, d.fit(img)
		})
	}
	start := time.Now()
	all, err := jpegxl.DecodeAll(bytes.NewReader(media))
	if err != nil {
		return err
	}
	d.decodeTime += time.Since(start)
	return d.sequence(all.Image)
}

type jxlHeader struct {
	width, height int64
	animated      bool
}

// parseJXL reads the beginning of a codestream (ISO/IEC 18181-1, 9.2 and
// annex D), which may be in a container.
func parseJXL(b []byte) (h jxlHeader, err error) {
	bad := fmt.Errorf("%w: jxl ends in its header", ErrUndecodable)
	if len(b) >= 2 && b[0] != 0xff {
		var code []byte
		eachBox(b, func(name string, body []byte) {
			switch {
			case code != nil:
			case name == "jxlc":
				code = body
			case name == "jxlp" && len(body) >= 4 && binary.BigEndian.Uint32(body)&(1<<31-1) == 0:
				code = body[4:]
			}
		})
		b = code
	}
	if len(b) < 2 || b[0] != 0xff || b[1] != 0x0a {
		return h, fmt.Errorf("%w: jxl without a codestream", ErrUndecodable)
	}
	r := bitReader{b: b[2:]}
	h.width, h.height = r.size()
	if allDefault := r.bits(1) == 1; !allDefault && r.bits(1) == 1 { // extra fields
		r.bits(3)           // orientation
		if r.bits(1) == 1 { // intrinsic size
			r.size()
		}
		if r.bits(1) == 1 { // preview
			r.preview()
		}
		h.animated = r.bits(1) == 1
	}
	if r.short {
		return jxlHeader{}, bad
	}
	return h, nil
}

// A bitReader reads bits, lowest first. Past the end it reads zeros and says so.
type bitReader struct {
	b     []byte
	at    int
	short bool
}

func (r *bitReader) bits(n int) (v int64) {
	for i := range n {
		if r.at/8 >= len(r.b) {
			r.short = true
			return v
		}
		v |= int64(r.b[r.at/8]>>(r.at%8)&1) << i
		r.at++
	}
	return v
}

// choice reads one of four ranges: so many bits and what is added to them.
func (r *bitReader) choice(n, add [4]int) int64 {
	c := r.bits(2)
	return r.bits(n[c]) + int64(add[c])
}

// ratio gives the width of one of seven named shapes.
func ratio(code, height int64) int64 {
	of := [8][2]int64{{1, 1}, {1, 1}, {12, 10}, {4, 3}, {3, 2}, {16, 9}, {5, 4}, {2, 1}}[code&7]
	return height * of[0] / of[1]
}

func (r *bitReader) size() (w, h int64) {
	side := func(small bool) int64 {
		if small {
			return 8 * (r.bits(5) + 1)
		}
		return r.choice([4]int{9, 13, 18, 30}, [4]int{1, 1, 1, 1})
	}
	small := r.bits(1) == 1
	h = side(small)
	if code := r.bits(3); code != 0 {
		return ratio(code, h), h
	}
	return side(small), h
}

func (r *bitReader) preview() {
	side := func(by8 bool) {
		if by8 {
			r.choice([4]int{0, 0, 5, 9}, [4]int{16, 32, 1, 33})
			return
		}
		r.choice([4]int{6, 8, 10, 12}, [4]int{1, 65, 321, 1345})
	}
	by8 := r.bits(1) == 1
	side(by8)
	if r.bits(3) == 0 {
		side(by8)
	}
}
