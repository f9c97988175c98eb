package imagehash

import (
	"bytes"
	"compress/flate"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"image"
	"image/png"
	"io"
)

// png decodes still and animated files. The standard decoder knows the default
// image only and checks more than browsers do, so the chunks are walked here
// and every picture becomes a file of its own, of the critical chunks alone.
func (d *decoder) png(media []byte) error {
	p, err := parsePNG(media, d.maxPixels)
	if err != nil {
		return err
	}
	d.media.Width, d.media.Height = p.width, p.height
	d.media.Truncated = p.truncated
	decode := func(w, h int, data [][]byte) func() (image.Image, error) {
		return func() (image.Image, error) {
			img, mended, err := p.decode(w, h, data)
			d.media.Truncated = d.media.Truncated || mended
			return img, err
		}
	}
	var failed error
	if p.still != nil {
		failed = d.still(decode(p.width, p.height, p.still))
		if failed == nil {
			d.firstIndex = 1
		}
	}
	if len(p.frames) > 0 {
		frames := make([]animFrame, len(p.frames))
		for i, f := range p.frames {
			frames[i] = f.animFrame
			frames[i].decode = decode(f.rect.Dx(), f.rect.Dy(), f.data)
		}
		if err := d.animate("png", p.width, p.height, frames); err != nil {
			failed = err
		}
	}
	if failed != nil && len(d.media.Frames) > 0 && !errors.Is(failed, ErrTooLarge) {
		// Browsers show what there is: the default image, or the animation.
		d.media.Truncated = true
		return nil
	}
	return failed
}

type pngFile struct {
	width, height int
	header        []byte // body of IHDR
	palette       []byte // body of PLTE, if the picture has one
	transparency  []byte // body of tRNS, if it is sound
	still         [][]byte
	frames        []pngFrame
	truncated     bool // the chunks end without IEND, or a frame is not sound
}

type pngFrame struct {
	animFrame
	data [][]byte
}

// parsePNG walks the chunks of a file (PNG specification, third edition) and
// checks the declared sizes. When the default image is the first frame of the
// animation, still is nil. Checksums, sequence numbers, the number of frames
// declared and ancillary chunks are not looked at: browsers differ in what they
// forgive, and what one of them shows must be seen.
func parsePNG(b []byte, maxPixels int64) (p pngFile, err error) {
	const signature, headSize = 8, 13
	if len(b) < signature+8+headSize || string(b[12:16]) != "IHDR" {
		return p, fmt.Errorf("%w: png ends in its header", ErrUndecodable)
	}
	p.header = b[16 : 16+headSize : 16+headSize]
	w, h := int64(binary.BigEndian.Uint32(p.header)), int64(binary.BigEndian.Uint32(p.header[4:]))
	if err := checkPixels("png", w, h, maxPixels); err != nil {
		return p, err
	}
	p.width, p.height = int(w), int(h)
	depth, colour := p.header[8], p.header[9]
	canvas := image.Rect(0, 0, p.width, p.height)

	animated, complete, unsound := false, false, false
	var current *pngFrame // that the control chunk before began
	done := func() {
		if current != nil && current.data != nil {
			p.frames = append(p.frames, *current)
		}
		current = nil
	}
	seenData := false // of the default image
	for b = b[signature:]; len(b) >= 8 && !complete; {
		n, name := int64(binary.BigEndian.Uint32(b)), string(b[4:8])
		b = b[8:]
		body := b[:min(n, int64(len(b)))]
		b = b[min(n+4, int64(len(b))):]
		whole := int64(len(body)) == n
		switch name {
		case "PLTE":
			if colour == 3 && p.palette == nil && !seenData && whole {
				p.palette = body[:min(len(body)/3, 1<<min(depth, 8))*3]
			}
		case "tRNS":
			sound := colour == 0 && n == 2 || colour == 2 && n == 6 || colour == 3 && n > 0 && n <= int64(len(p.palette)/3)
			if sound && p.transparency == nil && !seenData && whole {
				p.transparency = body
			}
		case "acTL":
			animated = animated || !seenData
		case "fcTL":
			if !animated {
				break
			}
			done()
			f, ok := pngControl(body, canvas)
			if !ok {
				unsound = true
				break
			}
			current = &f
			if err := checkFrames("png", len(p.frames)+1); err != nil {
				return p, err
			}
		case "IDAT":
			switch {
			case len(p.frames) > 0 || seenData && p.still == nil && current == nil:
				// Not where it belongs.
			case current != nil && p.still == nil:
				// The default image is a frame. It has the size of the canvas,
				// whatever its control chunk says.
				current.rect = canvas
				current.data = append(current.data, body)
			case current == nil:
				p.still = append(p.still, body)
			}
			seenData = true
		case "fdAT":
			if current != nil && seenData && len(body) >= 4 {
				current.data = append(current.data, body[4:])
			}
		case "IEND":
			complete = true
		}
	}
	done()
	p.truncated = !complete || unsound
	if p.still == nil && len(p.frames) == 0 {
		return p, fmt.Errorf("%w: png without a picture", ErrUndecodable)
	}
	return p, nil
}

// pngControl reads the body of an fcTL chunk. A frame that is empty or reaches
// beyond the canvas is not shown by browsers.
func pngControl(b []byte, canvas image.Rectangle) (f pngFrame, ok bool) {
	if len(b) < 26 {
		return f, false
	}
	at := func(i int) int { return int(binary.BigEndian.Uint32(b[i:]) &^ (1 << 31)) }
	f.rect = image.Rect(at(12), at(16), at(12)+at(4), at(16)+at(8))
	if f.rect.Empty() || !f.rect.In(canvas) {
		return f, false
	}
	switch b[24] {
	case 1:
		f.dispose = clearRect
	case 2:
		f.dispose = restore
	}
	f.opaque = b[25] == 0
	return f, true
}

// decode decodes one picture of a file. When the data of its pixels is broken
// or too short, it is decoded as far as it goes and the rest is zero, as
// browsers show it; mended tells. That there is too much data, or that its
// checksum is wrong, hides nothing either.
func (p *pngFile) decode(w, h int, data [][]byte) (img image.Image, mended bool, err error) {
	head := []byte("\x89PNG\r\n\x1a\n")
	ihdr := bytes.Clone(p.header)
	binary.BigEndian.PutUint32(ihdr, uint32(w))
	binary.BigEndian.PutUint32(ihdr[4:], uint32(h))
	head = pngChunk(head, "IHDR", ihdr)
	if p.palette != nil {
		head = pngChunk(head, "PLTE", p.palette)
	}
	if p.transparency != nil {
		head = pngChunk(head, "tRNS", p.transparency)
	}
	all := bytes.Join(data, nil)
	file := pngChunk(append(make([]byte, 0, len(head)+len(all)+24), head...), "IDAT", all)
	img, err = png.Decode(bytes.NewReader(pngChunk(file, "IEND", nil)))
	if err == nil {
		return img, false, nil
	}
	file = nil
	if len(all) < 3 {
		return nil, false, err
	}
	mend := newPNGData(flate.NewReader(bytes.NewReader(all[2:])), pngRawSize(ihdr))
	if mend.fill() == 0 {
		return nil, false, err
	}
	img, again := png.Decode(io.MultiReader(bytes.NewReader(head), mend))
	if again != nil {
		return nil, false, err
	}
	return img, true, nil
}

// pngChunk appends a chunk.
func pngChunk(file []byte, name string, body []byte) []byte {
	file = binary.BigEndian.AppendUint32(file, uint32(len(body)))
	start := len(file)
	file = append(append(file, name...), body...)
	return binary.BigEndian.AppendUint32(file, crc32.ChecksumIEEE(file[start:]))
}

// pngRawSize is how many bytes the data of a picture inflates to, at the least
// as many as its decoder reads.
func pngRawSize(header []byte) int64 {
	w, h := int64(binary.BigEndian.Uint32(header)), int64(binary.BigEndian.Uint32(header[4:]))
	samples := map[byte]int64{0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[header[9]]
	bits := samples * int64(header[8])
	if header[12] == 0 {
		return h * (1 + (w*bits+7)/8)
	}
	size := int64(0)
	for _, pass := range [7][4]int64{{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4}, {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}} {
		pw, ph := (w-pass[0]+pass[2]-1)/pass[2], (h-pass[1]+pass[3]-1)/pass[3]
		if pw > 0 && ph > 0 {
			size += ph * (1 + (pw*bits+7)/8)
		}
	}
	return size
}

// pngData is a reader of IDAT chunks and IEND, made of what can be inflated and
// zeros up to the size that the picture needs. It holds one chunk at a time.
type pngData struct {
	in    io.Reader // nil when it is broken or at its end
	left  int64     // bytes of pixels still to come
	out   *zlib.Writer
	raw   []byte
	ready bytes.Buffer // deflated, not in a chunk yet
	chunk []byte       // not read yet
	ended bool
}

func newPNGData(in io.Reader, size int64) *pngData {
	d := &pngData{in: in, left: size, raw: make([]byte, 32<<10)}
	d.out, _ = zlib.NewWriterLevel(&d.ready, zlib.NoCompression) // fails on an unknown level only
	return d
}

// fill makes the next chunk and returns how many bytes of it were inflated.
func (d *pngData) fill() int {
	want := d.raw[:min(int64(len(d.raw)), d.left)]
	n := 0
	if d.in != nil {
		var err error
		if n, err = io.ReadFull(d.in, want); err != nil {
			d.in = nil
		}
	}
	clear(want[n:])
	d.left -= int64(len(want))
	_, _ = d.out.Write(want) // to memory
	if d.left == 0 {
		_ = d.out.Close()
	} else {
		_ = d.out.Flush()
	}
	d.chunk = pngChunk(d.chunk[:0], "IDAT", d.ready.Bytes())
	d.ready.Reset()
	if d.left == 0 {
		d.chunk = pngChunk(d.chunk, "IEND", nil)
		d.ended = true
	}
	return n
}

// Read implements io.Reader.
func (d *pngData) Read(p []byte) (int, error) {
	if len(d.chunk) == 0 {
		if d.ended {
			return 0, io.EOF
		}
		d.fill()
	}
	n := copy(p, d.chunk)
	d.chunk = d.chunk[n:]
	return n, nil
}
