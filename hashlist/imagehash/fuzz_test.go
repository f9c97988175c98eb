package imagehash

import (
	"bytes"
	"errors"
	"image"
	"slices"
	"testing"
	"time"
)

func seeds(f *testing.F) [][]byte {
	m := picture(40, 30, 1)
	frame := webpFrameOf(webpOf(m, true), 0, 0, 40, 30, 0)
	list := [][]byte{
		jpegOf(f, m), cmykJPEG(f, m), manyScans(f, 32, 32, 2), pngOf(m), pngOf(paletted(m)), interlacedPNG(m),
		gifOf(m, m), webpOf(m, false), webpOf(m, true), webpAnimation(40, 30, frame, frame),
		sampleFile("avif"), sampleFile("heic"), sampleFile("jxl"),
		isoHeader("avis", box("moov", box("trak", box("mdia", box("minf", box("stbl",
			box("stsd", make([]byte, 8), box("av01", make([]byte, 28))), box("stsz", make([]byte, 12)))))))),
		box("JXL ", []byte("\r\n\x87\n")),
	}
	alpha := image.NewNRGBA(image.Rect(0, 0, 9, 9))
	alpha.Pix[3] = 7
	return append(list, webpOf(alpha, false))
}

// Whatever the bytes, examine returns, fails with an error of the file, and
// stays within its limits.
func FuzzDecode(f *testing.F) {
	fuzzDecode(f, "jpeg", "png", "gif", "webp")
}

// The decoders in WebAssembly take seconds to start and milliseconds a file, so
// they do not hold up the others.
func FuzzDecodeWASM(f *testing.F) {
	fuzzDecode(f, "avif", "heic", "jxl")
}

func fuzzDecode(f *testing.F, only ...string) {
	for _, s := range seeds(f) {
		if format, err := sniff(s); err == nil && slices.Contains(only, format) {
			f.Add(s)
		}
	}
	const maxPixels, maxFrames = 1 << 15, 3
	f.Fuzz(func(t *testing.T, media []byte) {
		format, err := sniff(media)
		if err != nil {
			if !errors.Is(err, ErrUndecodable) && !errors.Is(err, ErrVideo) {
				t.Fatalf("sniff: %v", err)
			}
			return
		}
		if !slices.Contains(only, format) {
			return
		}
		r := request{size: int64(len(media)), maxPixels: maxPixels, maxFrames: maxFrames, timeout: time.Minute}
		r.format = slices.Index(formats[:], format)
		before := bytes.Clone(media)
		m, err := examine(r, media)
		if !bytes.Equal(before, media) {
			t.Fatal("the file was changed")
		}
		if err != nil {
			if !errors.Is(err, ErrUndecodable) && !errors.Is(err, ErrTooLarge) {
				t.Fatalf("examine: %v", err)
			}
			if back, bad := parseFailure(encodeFailure(err)); bad != nil || errors.Is(back, ErrTooLarge) != errors.Is(err, ErrTooLarge) {
				t.Fatalf("failure %v became %v, %v", err, back, bad)
			}
			return
		}
		if m.Width*m.Height > maxPixels || m.Width < 1 || m.Height < 1 || len(m.Frames) > maxWays*(maxFrames+1) {
			t.Fatalf("beyond limits: %dx%d, %d frames", m.Width, m.Height, len(m.Frames))
		}
		back, err := parseResult(encodeResult(&m), r)
		if err != nil || len(back.Frames) != len(m.Frames) || back.Frames[0] != m.Frames[0] {
			t.Fatalf("result %+v became %+v, %v", m, back, err)
		}
	})
}

// The walks over headers, without the safety net of examine.
func FuzzHeaders(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s)
	}
	const maxPixels = 1 << 15
	f.Fuzz(func(t *testing.T, b []byte) {
		check := func(what string, w, h int64, err error) {
			if err != nil {
				if !errors.Is(err, ErrUndecodable) && !errors.Is(err, ErrTooLarge) {
					t.Fatalf("%s: %v", what, err)
				}
			} else if w < 1 || h < 1 || w*h > maxPixels {
				t.Fatalf("%s: accepted %dx%d", what, w, h)
			}
		}
		_, _ = sniff(b)
		g, err := parseGIF(b, maxPixels)
		check("gif", int64(g.width), int64(g.height), err)
		w, err := parseWebP(b, maxPixels)
		check("webp", int64(w.width), int64(w.height), err)
		for _, frames := range [][]animFrame{g.frames, w.frames} {
			for _, a := range frames {
				if s := a.rect.Size(); err == nil && s.X*s.Y > maxPixels || a.decode == nil {
					t.Fatalf("frame of %v", s)
				}
			}
			if len(frames) > maxAnimation+1 {
				t.Fatalf("%d frames", len(frames))
			}
		}
		boxes, err := parseBoxes(b, maxPixels)
		check("boxes", boxes.pixels, 1, err)
		if w := walkJPEG(b); len(w.file) > len(b) || w.scans > len(b)/4 || w.firstScan > len(w.file) {
			t.Fatalf("jpeg of %d bytes has %d scans, the first at %d", len(w.file), w.scans, w.firstScan)
		}
		p, err := parsePNG(b, maxPixels)
		check("png", int64(p.width), int64(p.height), err)
		j, err := parseJXL(b)
		if err == nil && (j.width < 0 || j.height < 1 || j.height > 1<<30) {
			t.Fatalf("jxl of %dx%d", j.width, j.height)
		}
	})
}

// Replies of a child that was taken over.
func FuzzReply(f *testing.F) {
	r := request{maxPixels: 1 << 20, maxFrames: 3, timeout: time.Second, format: 1}
	m := Media{Format: "png", Width: 40, Height: 30, Frames: []Frame{{Index: 0, Quality: 100}, {Index: 7}}}
	m.Frames[0].PDQ, _ = hashPDQ(picture(40, 30, 1))
	var good bytes.Buffer
	_ = writeMessage(&good, sayResult, encodeResult(&m))
	f.Add(good.Bytes())
	good.Reset()
	_ = writeMessage(&good, sayFailure, encodeFailure(ErrTooLarge))
	f.Add(good.Bytes())
	f.Add([]byte{sayResult, 0xff, 0xff, 0xff, 0xff})
	f.Add(r.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		_, body, err := readMessage(bytes.NewReader(b))
		if err == nil && len(body) > maxReply {
			t.Fatalf("message of %d bytes", len(body))
		}
		if m, err := parseResult(body, r); err == nil {
			if again := encodeResult(&m); !bytes.Equal(again, body) {
				t.Fatalf("result %x reads as %x", body, again)
			}
			if len(m.Frames) > maxWays*(r.maxFrames+1) || int64(m.Width)*int64(m.Height) > r.maxPixels {
				t.Fatalf("beyond limits: %+v", m)
			}
		}
		if failure, err := parseFailure(body); err == nil {
			if s := failure.Error(); len(s) > 3*maxMessage || bytes.ContainsAny([]byte(s), "\n\x1b\x00") {
				t.Fatalf("failure of %q", s)
			}
		}
		if r, err := parseRequest(b); err == nil && !bytes.Equal(r.encode(), b) {
			t.Fatalf("request %x reads as %+v", b, r)
		}
	})
}
