package imagehash

import (
	"bytes"
	"compress/zlib"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"
)

func zlibOf(raw []byte) []byte {
	return encoded(func(b *bytes.Buffer) error {
		z, _ := zlib.NewWriterLevel(b, zlib.BestSpeed)
		if _, err := z.Write(raw); err != nil {
			return err
		}
		return z.Close()
	})
}

// zlibZeros is a stream of n zero bytes.
func zlibZeros(n int) []byte {
	return encoded(func(b *bytes.Buffer) error {
		z, _ := zlib.NewWriterLevel(b, zlib.BestCompression)
		block := make([]byte, 1<<20)
		for ; n > 0; n -= len(block) {
			if _, err := z.Write(block[:min(n, len(block))]); err != nil {
				return err
			}
		}
		return z.Close()
	})
}

func box(name string, bodies ...[]byte) []byte {
	b := append([]byte{0, 0, 0, 0}, name...)
	for _, body := range bodies {
		b = append(b, body...)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)))
	return b
}

func isoHeader(brand string, more ...[]byte) []byte {
	return append(box("ftyp", []byte(brand), make([]byte, 4), []byte(brand+"mif1")), bytes.Join(more, nil)...)
}

func ispe(w, h uint32) []byte {
	return box("ispe", binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(make([]byte, 4), w), h))
}

// patchISPE changes every declared size in an ISO file.
func patchISPE(file []byte, w, h uint32) []byte {
	file = bytes.Clone(file)
	for rest, at := file, 0; ; {
		i := bytes.Index(rest, []byte("ispe"))
		if i < 0 {
			return file
		}
		at += i
		binary.BigEndian.PutUint32(file[at+8:], w)
		binary.BigEndian.PutUint32(file[at+12:], h)
		at += 4
		rest = file[at:]
	}
}

type hostile struct {
	name string
	file []byte
	want error // nil: decoded
}

// manyScans is a progressive JPEG that repeats a scan of one coefficient.
func manyScans(tb testing.TB, w, h uint16, n int) []byte {
	grey := jpegOf(tb, image.NewGray(image.Rect(0, 0, 8, 8)))
	file := grey[:2:2]
	for at := 2; grey[at+1] != 0xda; {
		seg := bytes.Clone(grey[at : at+2+int(binary.BigEndian.Uint16(grey[at+2:]))])
		at += len(seg)
		if seg[1] == 0xc0 {
			seg[1] = 0xc2
			binary.BigEndian.PutUint16(seg[5:], h)
			binary.BigEndian.PutUint16(seg[7:], w)
		}
		file = append(file, seg...)
	}
	// First of DC, then refinements of it over and over: one bit a block.
	file = append(file, 0xff, 0xda, 0, 8, 1, 1, 0, 0, 0, 0x01)
	file = append(file, bytes.Repeat([]byte{0}, int(w)*int(h)/64/3+64)...)
	for range n {
		file = append(file, 0xff, 0xda, 0, 8, 1, 1, 0, 0, 0, 0x10)
		file = append(file, bytes.Repeat([]byte{0}, int(w)*int(h)/64/8+1)...)
	}
	return append(file, 0xff, 0xd9)
}

// emptyScans is a progressive file with n scans that have no data.
func emptyScans(tb testing.TB, n int) []byte {
	file := manyScans(tb, 4000, 4000, 0)
	empty := []byte{0xff, 0xda, 0, 8, 1, 1, 0, 0, 0, 0x10, 0}
	return append(append(file[:len(file)-2:len(file)-2], bytes.Repeat(empty, n)...), 0xff, 0xd9)
}

func hostiles(tb testing.TB) []hostile {
	m := picture(160, 120, 3)
	r := rand.New(rand.NewPCG(7, 7))
	noise := make([]byte, 1<<16)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	good := map[string][]byte{
		"jpeg": jpegOf(tb, m), "png": pngOf(m), "gif": gifOf(m), "webp": webpOf(m, false),
		"webp lossless": webpOf(m, true),
		"avif":          sampleFile("avif"), "heic": sampleFile("heic"), "jxl": sampleFile("jxl"),
	}
	jpegHuge := bytes.Clone(good["jpeg"])
	sof := bytes.Index(jpegHuge, []byte{0xff, 0xc0})
	copy(jpegHuge[sof+5:], "\xff\xff\xff\xff")

	gif34 := append([]byte("GIF89a\xff\xff\xff\xff\x80\x00\x00"), 0, 0, 0, 255, 255, 255)
	gif34 = append(gif34, 0x2c, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 2, 1, 0, 0, 0x3b)
	// 10^5 frames of one pixel.
	dot := []byte{0x2c, 0, 0, 0, 0, 1, 0, 1, 0, 0, 2, 2, 0x44, 1, 0}
	gifMany := append([]byte("GIF89a\x01\x00\x01\x00\x80\x00\x00"), 0, 0, 0, 255, 255, 255)
	gifMany = append(append(gifMany, bytes.Repeat(dot, 100_000)...), 0x3b)
	gifFew := append([]byte("GIF89a\x08\x00\x08\x00\x80\x00\x00"), 0, 0, 0, 255, 255, 255)
	gifFew = append(append(gifFew, bytes.Repeat(dot, 20_000)...), 0x3b)
	// A frame inside a small canvas that is not small.
	gifFrame := append([]byte("GIF89a\x01\x00\x01\x00\x80\x00\x00"), 0, 0, 0, 255, 255, 255)
	gifFrame = append(append(gifFrame, dot...), 0x2c, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 2, 1, 0, 0, 0x3b)

	webpDot := webpOf(image.NewRGBA(image.Rect(0, 0, 2, 2)), true)
	anmf := webpFrameOf(webpDot, 0, 0, 2, 2, 0)
	webpMany := make([][]byte, 30_000)
	for i := range webpMany {
		webpMany[i] = anmf
	}
	vp8 := bytes.Clone(good["webp"])
	v := bytes.Index(vp8, []byte("\x9d\x01\x2a"))
	copy(vp8[v+3:], "\xff\x3f\xff\x3f")
	vp8l := bytes.Clone(good["webp lossless"])
	l := bytes.Index(vp8l, []byte("VP8L"))
	copy(vp8l[l+9:], "\xff\xff\xff\x1f")
	bigFrame := webpFrameOf(webpDot, 0, 0, 1<<24, 1<<24, 0)

	jxlHuge := append([]byte{0xff, 0x0a}, 0xfe, 0xff, 0xff, 0xff, 0x07, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	jxlNoise := append([]byte{0xff, 0x0a, 0x3f, 0x40}, noise[:2000]...)

	deep := ispe(8, 8)
	for range 10_000 {
		deep = box("meta", make([]byte, 4), deep)
	}
	hugeBox := binary.BigEndian.AppendUint64([]byte("\x00\x00\x00\x01meta"), 1<<63)
	loops := bytes.Repeat(box("free"), 500_000)

	list := []hostile{
		{"zero bytes", nil, ErrUndecodable},
		{"one byte", []byte{0xff}, ErrUndecodable},
		{"random bytes", noise, ErrUndecodable},
		{"text", []byte(strings.Repeat("hello ", 100)), ErrUndecodable},
		{"gif of 34 bytes, 65535x65535", gif34, ErrTooLarge},
		{"gif, 10^5 frames", gifMany, ErrTooLarge},
		{"gif, 20000 frames", gifFew, nil},
		{"gif, huge later frame", gifFrame, ErrTooLarge},
		{"jpeg, 65535x65535", jpegHuge, ErrTooLarge},
		{"png, 2^31x2^31", pngChunks(1<<31-1, 1<<31-1, 8, 6, 0), ErrTooLarge},
		{"png, 60000x60000, zeros", pngChunks(60000, 60000, 8, 6, 0, [2][]byte{[]byte("IDAT"), zlibZeros(8 << 20)}), ErrTooLarge},
		{"png, IHDR of 2^32x1", pngChunks(1<<32-1, 1, 8, 6, 0), ErrTooLarge},
		{"png, 0x10", pngChunks(0, 10, 8, 6, 0), ErrUndecodable},
		{"png, 200 MB more data than pixels", pngChunks(10, 10, 8, 2, 0, [2][]byte{[]byte("IDAT"), zlibZeros(200 << 20)}, [2][]byte{[]byte("IEND"), nil}), nil},
		{"png, text that inflates to 200 MB", pngChunks(10, 10, 8, 2, 0, [2][]byte{[]byte("zTXt"), append([]byte("a\x00\x00"), zlibZeros(200<<20)...)}, [2][]byte{[]byte("IDAT"), zlibZeros(310)}, [2][]byte{[]byte("IEND"), nil}), nil},
		{"webp vp8, 16383x16383", vp8, ErrTooLarge},
		{"webp vp8l, 16384x16384", vp8l, ErrTooLarge},
		{"webp, canvas of 2^24x2^24", webpAnimation(1<<24, 1<<24, anmf), ErrTooLarge},
		{"webp, frame of 2^24x2^24", webpAnimation(8, 8, anmf, bigFrame), ErrTooLarge},
		{"webp, 30000 frames", webpAnimation(8, 8, webpMany...), ErrTooLarge},
		{"webp, 5000 frames", webpAnimation(8, 8, webpMany[:5000]...), nil},
		{"avif, 2^32x2^32", patchISPE(good["avif"], 1<<32-1, 1<<32-1), ErrTooLarge},
		{"avif, 60000x1000 of little data", patchISPE(good["avif"], 60000, 1000), ErrUndecodable},
		{"avif, no size", isoHeader("avif", box("meta", make([]byte, 4))), ErrUndecodable},
		{"avif, no picture", isoHeader("avif", box("meta", make([]byte, 4), box("iprp", box("ipco", ispe(64, 64))))), ErrUndecodable},
		{"avif, 10000 deep boxes", isoHeader("avif", deep), ErrUndecodable},
		{"avif, a box of 2^63 bytes", isoHeader("avif", hugeBox), ErrUndecodable},
		{"avif, 500000 boxes", isoHeader("avif", loops), ErrUndecodable},
		{"heic, 2^32x2^32", patchISPE(good["heic"], 1<<32-1, 1<<32-1), ErrTooLarge},
		{"heic, 60000x1000 of little data", patchISPE(good["heic"], 60000, 1000), errAny},
		{"heic, 10000 deep boxes", isoHeader("heic", deep), ErrUndecodable},
		{"jxl, 2^30x2^30", jxlHuge, ErrTooLarge},
		{"jxl, noise", jxlNoise, ErrUndecodable},
		{"mp4", append(box("ftyp", []byte("isom\x00\x00\x02\x00isomiso2mp41")), box("moov")...), ErrVideo},
		{"mov", box("ftyp", []byte("qt  \x00\x00\x02\x00qt  ")), ErrVideo},
		{"webm", append([]byte("\x1aE\xdf\xa3\x9f"), noise[:200]...), ErrVideo},
		{"avi", []byte("RIFF\x00\x00\x00\x00AVI LIST"), ErrVideo},
		{"ogg", []byte("OggS\x00\x02"), ErrVideo},
		{"mpeg-ts", bytes.Repeat(append([]byte{0x47}, make([]byte, 187)...), 4), ErrVideo},
	}
	for _, name := range []string{"jpeg", "png", "gif", "webp", "webp lossless", "avif", "heic", "jxl"} {
		f := good[name]
		want := ErrUndecodable
		if name == "jpeg" || name == "png" || name == "gif" {
			want = nil
		}
		list = append(list,
			hostile{name + ", cut in half", f[:len(f)/2], want},
			hostile{name + ", first 40 bytes", f[:40], ErrUndecodable})
		for _, share := range []int{10, 50, 90} {
			broken := bytes.Clone(f)
			at := len(broken) * share / 100
			for i := at; i < min(at+64, len(broken)); i++ {
				broken[i] = noise[i%len(noise)]
			}
			list = append(list, hostile{fmt.Sprintf("%s, 64 bytes of noise at %d %%", name, share), broken, errAny})
		}
	}
	// Last, for a child that is killed takes its compiled decoders with it.
	return append(list,
		hostile{"jpeg, 95 scans of 7000x7000", manyScans(tb, 7000, 7000, 95), errSlow},
		hostile{"jpeg, 400 scans of 5000x5000", manyScans(tb, 5000, 5000, 400), ErrTooLarge},
		hostile{"jpeg, 50000 empty scans", emptyScans(tb, 50000), ErrTooLarge},
		hostile{"png, 8000x8000 16-bit RGBA of zeros", pngChunks(8000, 8000, 16, 6, 0, [2][]byte{[]byte("IDAT"), zlibZeros(8000 * (8*8000 + 1))}, [2][]byte{[]byte("IEND"), nil}), errSlow})
}

// errAny stands for any outcome: the file is broken in a way that a decoder may
// or may not notice.
var errAny = errors.New("any")

// errSlow stands for decoded, ErrTimeout or ErrTooLarge: the race detector makes
// a child many times as slow and as large.
var errSlow = errors.New("decoded, timeout or too large")

// resetPeak makes peakMemory start anew. Without the right to, peaks only grow.
func resetPeak(pid int) { _ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0) }

// peakMemory is the most a process has had in memory, in bytes.
func peakMemory(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		var kb int64
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kb); err == nil {
			return kb << 10
		}
	}
	return 0
}

// pids are the children that run.
func pids(h *Hasher) (ids []int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.all {
		ids = append(ids, c.cmd.Process.Pid)
	}
	return ids
}

// Each hostile file gets a clear error in time, and after each a good picture
// is hashed as before.
func TestHostileFiles(t *testing.T) {
	h := sharedHasher()
	good := jpegOf(t, picture(320, 240, 8))
	want := hashOK(t, h, "good", good)
	for _, c := range hostiles(t) {
		restarts := h.Stats().Started
		for _, pid := range pids(h) {
			resetPeak(pid)
		}
		start := time.Now()
		m, err := h.Hash(context.Background(), c.file)
		took := time.Since(start)
		// Which child it was is known when it is still there.
		peak := int64(0)
		for _, pid := range pids(h) {
			peak = peakMemory(pid)
		}
		verdict := fmt.Sprint(err)
		if err == nil {
			verdict = fmt.Sprintf("%d frames, quality %d, truncated %v", len(m.Frames), m.Frames[0].Quality, m.Truncated)
		}
		t.Logf("%-40s %9d bytes %6d ms %5d MiB %d new  %s", c.name, len(c.file), took.Milliseconds(), peak>>20, h.Stats().Started-restarts, verdict)
		known := err == nil || errors.Is(err, ErrUndecodable) || errors.Is(err, ErrTooLarge) || errors.Is(err, ErrTimeout) || errors.Is(err, ErrVideo)
		asWanted := errors.Is(err, c.want) || c.want == errAny || c.want == errSlow && (err == nil || errors.Is(err, ErrTimeout) || errors.Is(err, ErrTooLarge))
		if !asWanted || !known {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
		if errors.Is(err, ErrTimeout) && took > h.limits.Timeout+5*time.Second {
			t.Errorf("%s: took %v", c.name, took)
		}
		again := hashOK(t, h, "good after "+c.name, good)
		if again.Frames[0] != want.Frames[0] {
			t.Errorf("after %s a good picture has another hash", c.name)
		}
	}
	t.Logf("%+v", h.Stats())
}
