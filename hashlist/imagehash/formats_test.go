package imagehash

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/color"
	"image/color/palette"
	"image/draw"
	"image/gif"
	"image/jpeg"
	"image/png"
	"os"
	"strings"
	"testing"

	"github.com/corona10/goimagehash"
	"github.com/gen2brain/webp"
	"github.com/tocsin-fed/tocsin/hashlist"
)

// must unwraps a call that a sound test does not fail.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func encoded(encode func(*bytes.Buffer) error) []byte {
	var b bytes.Buffer
	if err := encode(&b); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func pngOf(m image.Image) []byte {
	return encoded(func(b *bytes.Buffer) error { return png.Encode(b, m) })
}

func webpOf(m image.Image, lossless bool) []byte {
	return encoded(func(b *bytes.Buffer) error {
		return webp.Encode(b, m, webp.Options{Lossless: lossless, Quality: 90})
	})
}

// sampleFile reads a file of picture(160, 120, 3): see testdata/README.md.
func sampleFile(format string) []byte { return must(os.ReadFile("testdata/sample." + format)) }

func paletted(m image.Image) *image.Paletted {
	p := image.NewPaletted(m.Bounds(), palette.Plan9)
	draw.FloydSteinberg.Draw(p, p.Rect, m, m.Bounds().Min)
	return p
}

// gifOf makes an animation of whole frames.
func gifOf(frames ...image.Image) []byte {
	g := new(gif.GIF)
	for _, f := range frames {
		g.Image = append(g.Image, paletted(f))
		g.Delay = append(g.Delay, 5)
	}
	return encoded(func(b *bytes.Buffer) error { return gif.EncodeAll(b, g) })
}

// webpAnimation puts frames into the animated container.
func webpAnimation(w, h int, frames ...[]byte) []byte {
	file := []byte("RIFF\x00\x00\x00\x00WEBP")
	chunk := func(id string, data []byte) {
		file = append(file, id...)
		file = binary.LittleEndian.AppendUint32(file, uint32(len(data)))
		file = append(file, data...)
		if len(data)%2 == 1 {
			file = append(file, 0)
		}
	}
	put24 := func(b []byte, v int) []byte { return append(b, byte(v), byte(v>>8), byte(v>>16)) }
	chunk("VP8X", put24(put24([]byte{2, 0, 0, 0}, w-1), h-1))
	chunk("ANIM", []byte{0, 0, 0, 0, 0, 0})
	for _, f := range frames {
		chunk("ANMF", f)
	}
	binary.LittleEndian.PutUint32(file[4:], uint32(len(file)-8))
	return file
}

// webpFrameOf makes the body of an ANMF chunk of a still file.
func webpFrameOf(still []byte, x, y, w, h int, flags byte) []byte {
	put24 := func(b []byte, v int) []byte { return append(b, byte(v), byte(v>>8), byte(v>>16)) }
	b := put24(put24(put24(put24(nil, x/2), y/2), w-1), h-1)
	b = append(put24(b, 40), flags)
	chunks := still[12:]
	if string(chunks[:4]) == "VP8X" {
		chunks = chunks[18:]
	}
	return append(b, chunks...)
}

func hashOK(t *testing.T, h *Hasher, name string, file []byte) Media {
	t.Helper()
	m, err := h.Hash(context.Background(), file)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return m
}

func distance(a, b hashlist.Hash) int {
	d, ok := a.Distance(b)
	if !ok {
		return 999
	}
	return d
}

// Every format gives nearly the hash of the picture it was made of.
func TestFormats(t *testing.T) {
	h := sharedHasher()
	m, m3 := picture(240, 180, 1), picture(160, 120, 3)
	want, _ := hashPDQ(m)
	want3, _ := hashPDQ(m3)
	alpha := image.NewNRGBA(m.Rect)
	copy(alpha.Pix, m.Pix)
	for i := 3; i < len(alpha.Pix); i += 4 {
		alpha.Pix[i] = uint8(i/7) | 1
	}
	heicAs := func(brand string) []byte {
		b := bytes.Clone(sampleFile("heic"))
		copy(b[8:], brand)
		return b
	}
	for _, c := range []struct {
		name, format string
		file         []byte
		want         hashlist.Hash
		within       int
	}{
		{"jpeg", "jpeg", jpegOf(t, m), want[0], 10},
		{"png", "png", pngOf(m), want[0], 0},
		{"png with alpha", "png", pngOf(alpha), want[0], 0},
		{"gif", "gif", gifOf(m), want[0], 10},
		{"webp", "webp", webpOf(m, false), want[0], 10},
		{"webp lossless", "webp", webpOf(m, true), want[0], 0},
		{"webp with alpha", "webp", webpOf(alpha, false), want[0], 10},
		{"webp lossless with alpha", "webp", encoded(func(b *bytes.Buffer) error {
			return webp.Encode(b, alpha, webp.Options{Lossless: true, Exact: true})
		}), want[0], 0},
		{"heic", "heic", sampleFile("heic"), want3[0], 16},
		{"avif", "avif", sampleFile("avif"), want3[0], 16},
		{"jxl", "jxl", sampleFile("jxl"), want3[0], 16},
		{"heic by its compatible brand", "heic", heicAs("mif1"), want3[0], 16},
	} {
		got := hashOK(t, h, c.name, c.file)
		d := distance(got.Frames[0].PDQ[0], c.want)
		t.Logf("%-26s %6d bytes, distance %d, quality %d, decoded in %v", c.name, len(c.file), d, got.Frames[0].Quality, got.DecodeTime)
		ways := 1
		if strings.Contains(c.name, "alpha") {
			ways = maxWays
		}
		if got.Format != c.format || d > c.within || len(got.Frames) != ways || got.Truncated {
			t.Errorf("%s: %s with %d frames at distance %d, want %s with %d at %d", c.name, got.Format, len(got.Frames), d, c.format, ways, c.within)
		}
		size := m.Rect.Size()
		if c.want == want3[0] {
			size = m3.Rect.Size()
		}
		if image.Pt(got.Width, got.Height) != size {
			t.Errorf("%s: size %dx%d, want %v", c.name, got.Width, got.Height, size)
		}
		if sum, _, _ := Digests(c.file); got.MD5 != sum || got.SHA1.IsZero() || got.SHA256.IsZero() {
			t.Errorf("%s: digests are missing or wrong", c.name)
		}
	}
}

// Kinds of pixels: 16 bits, palettes, 1 bit, grey, CMYK, interlaced, thin.
func TestPixelKinds(t *testing.T) {
	h := sharedHasher()
	m := picture(200, 150, 2)
	want, _ := hashPDQ(m)
	convert := func(dst draw.Image) image.Image {
		draw.Draw(dst, m.Rect, m, image.Point{}, draw.Src)
		return dst
	}
	bits := image.NewPaletted(m.Rect, color.Palette{color.Black, color.White})
	draw.FloydSteinberg.Draw(bits, m.Rect, m, image.Point{})
	thin := func(w, h int) image.Image { return picture(w, h, 1) }
	for _, c := range []struct {
		name   string
		file   []byte
		within int // distance to the picture; -1: has no hash
	}{
		{"16 bits", pngOf(convert(image.NewNRGBA64(m.Rect))), 0},
		{"16 bits grey", pngOf(convert(image.NewGray16(m.Rect))), 8},
		{"grey", pngOf(convert(image.NewGray(m.Rect))), 8},
		{"grey jpeg", jpegOf(t, convert(image.NewGray(m.Rect))), 12},
		{"palette", pngOf(paletted(m)), 10},
		{"1 bit", pngOf(bits), 24},
		{"cmyk jpeg", cmykJPEG(t, m), 12},
		{"interlaced", interlacedPNG(m), 0},
		{"1x1", pngOf(thin(1, 1)), -1},
		{"1x3000", pngOf(thin(1, 3000)), -1},
		{"3000x1", pngOf(thin(3000, 1)), -1},
		{"4x300", jpegOf(t, thin(4, 300)), -1},
	} {
		got := hashOK(t, h, c.name, c.file)
		f := got.Frames[0]
		if c.within < 0 {
			if f.PDQ != [8]hashlist.Hash{} || f.Quality != 0 {
				t.Errorf("%s: has PDQ hashes of quality %d, want none", c.name, f.Quality)
			}
			continue
		}
		if d := distance(f.PDQ[0], want[0]); d > c.within {
			t.Errorf("%s: distance %d, want at most %d", c.name, d, c.within)
		} else {
			t.Logf("%-13s distance %d", c.name, d)
		}
	}
}

// cmykJPEG makes a file of four components as Adobe's programs do: the picture
// in C, M and Y, no black, all inverted. The encoder knows no such files, so
// grey files of one component each are interleaved at the level of markers:
// every component gets a scan of its own.
func cmykJPEG(tb testing.TB, m image.Image) []byte {
	b := m.Bounds()
	w, h := b.Dx(), b.Dy()
	var out []byte
	var scans [][]byte
	for c := range 4 {
		plane := image.NewGray(image.Rect(0, 0, w, h))
		for y := range h {
			for x := range w {
				p := color.RGBAModel.Convert(m.At(x, y)).(color.RGBA)
				plane.SetGray(x, y, color.Gray{Y: [4]uint8{p.R, p.G, p.B, 255}[c]})
			}
		}
		f := jpegOf(tb, plane)
		// Segments up to the scan: tables are the same in each file.
		at := 2
		for f[at+1] != 0xda {
			n := 2 + int(binary.BigEndian.Uint16(f[at+2:]))
			seg := f[at : at+n]
			if c == 0 && seg[1] == 0xc0 {
				sof := append([]byte{0xff, 0xc0, 0, 20}, seg[4:9]...)
				sof = append(sof, 4)
				for id := range byte(4) {
					sof = append(sof, id+1, 0x11, 0)
				}
				out = append(out, sof...)
			} else if c == 0 {
				out = append(out, seg...)
			}
			at += n
		}
		scan := bytes.Clone(f[at : len(f)-2])
		scan[5] = byte(c + 1) // component of the only one in the scan
		scans = append(scans, scan)
	}
	file := []byte{0xff, 0xd8, 0xff, 0xee, 0, 14, 'A', 'd', 'o', 'b', 'e', 0, 100, 0, 0, 0, 0, 0}
	file = append(file, out...)
	for _, s := range scans {
		file = append(file, s...)
	}
	return append(file, 0xff, 0xd9)
}

// pngChunks makes a file of an IHDR and what follows.
func pngChunks(w, h uint32, depth, kind, interlace byte, rest ...[2][]byte) []byte {
	out := []byte("\x89PNG\r\n\x1a\n")
	chunk := func(id string, data []byte) {
		out = binary.BigEndian.AppendUint32(out, uint32(len(data)))
		at := len(out)
		out = append(append(out, id...), data...)
		out = binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(out[at:]))
	}
	head := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, w), h)
	chunk("IHDR", append(head, depth, kind, 0, 0, interlace))
	for _, c := range rest {
		chunk(string(c[0]), c[1])
	}
	return out
}

func interlacedPNG(m *image.RGBA) []byte {
	b := m.Bounds()
	var raw []byte
	for _, p := range [7][4]int{{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4}, {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}} {
		for y := p[1]; y < b.Dy(); y += p[3] {
			raw = append(raw, 0)
			for x := p[0]; x < b.Dx(); x += p[2] {
				o := m.PixOffset(x, y)
				raw = append(raw, m.Pix[o:o+3]...)
			}
		}
	}
	return pngChunks(uint32(b.Dx()), uint32(b.Dy()), 8, 2, 1, [2][]byte{[]byte("IDAT"), zlibOf(raw)}, [2][]byte{[]byte("IEND"), nil})
}

// Animations give their first and last frame and some between, as they are
// drawn on the canvas.
func TestAnimations(t *testing.T) {
	l := DefaultLimits()
	l.MaxFrames = 4
	h := newHasher(t, l)
	const w, ht = 160, 120
	pictures := make([]image.Image, 10)
	for i := range pictures {
		pictures[i] = picture(w, ht, float64(i+1))
	}
	var frames [][]byte
	for _, p := range pictures {
		frames = append(frames, webpFrameOf(webpOf(p, true), 0, 0, w, ht, 2))
	}
	for name, c := range map[string]struct {
		file   []byte
		within int
	}{
		"gif":  {gifOf(pictures...), 12},
		"webp": {webpAnimation(w, ht, frames...), 0},
	} {
		got := hashOK(t, h, name, c.file)
		if len(got.Frames) != 4 {
			t.Fatalf("%s: %d frames, want 4", name, len(got.Frames))
		}
		for i, index := range []int{0, 3, 6, 9} {
			want, _ := hashPDQ(pictures[index])
			if d := distance(got.Frames[i].PDQ[0], want[0]); got.Frames[i].Index != index || d > c.within {
				t.Errorf("%s: frame %d is number %d at distance %d, want %d at %d", name, i, got.Frames[i].Index, d, index, c.within)
			}
		}
	}
}

// Disposal, transparency and frames that are parts of the canvas are drawn as
// the formats say.
func TestComposition(t *testing.T) {
	h := sharedHasher()
	const w, ht = 160, 120
	background := paletted(picture(w, ht, 1))
	// A patch whose left half is transparent.
	patchRect := image.Rect(40, 20, 120, 80)
	patch := image.NewPaletted(patchRect, append(color.Palette{color.Transparent}, palette.WebSafe...))
	for y := patchRect.Min.Y; y < patchRect.Max.Y; y++ {
		for x := 80; x < patchRect.Max.X; x++ {
			patch.Set(x, y, picture(1, 1, float64(y%7)).At(0, 0))
		}
	}
	second := image.NewRGBA(background.Rect)
	draw.Draw(second, second.Rect, background, image.Point{}, draw.Src)
	draw.Draw(second, patchRect, patch, patchRect.Min, draw.Over)
	onFirst := second
	onClear := image.NewRGBA(background.Rect)
	draw.Draw(onClear, onClear.Rect, second, image.Point{}, draw.Src)
	draw.Draw(onClear, patchRect, image.Transparent, image.Point{}, draw.Src)

	dot := image.NewPaletted(image.Rect(0, 0, 1, 1), background.Palette)
	dot.SetColorIndex(0, 0, background.ColorIndexAt(0, 0))
	for disposal, third := range map[byte]image.Image{
		gif.DisposalNone:       onFirst,
		gif.DisposalBackground: onClear,
		gif.DisposalPrevious:   background,
	} {
		g := &gif.GIF{
			Image:    []*image.Paletted{background, patch, dot},
			Delay:    []int{5, 5, 5},
			Disposal: []byte{gif.DisposalNone, disposal, gif.DisposalNone},
		}
		got := hashOK(t, h, "gif", encoded(func(b *bytes.Buffer) error { return gif.EncodeAll(b, g) }))
		for i, img := range []image.Image{background, second, third} {
			want, _ := hashPDQ(img)
			if got.Frames[i].PDQ != want {
				t.Errorf("gif with disposal %d: frame %d is at distance %d", disposal, i, distance(got.Frames[i].PDQ[0], want[0]))
			}
		}
	}

	// The same in WebP: a lossless patch, blended, and cleared afterwards.
	still := webpOf(background, true)
	patchFile := encoded(func(b *bytes.Buffer) error {
		flat := image.NewNRGBA(image.Rect(0, 0, patchRect.Dx(), patchRect.Dy()))
		draw.Draw(flat, flat.Rect, patch, patchRect.Min, draw.Src)
		return webp.Encode(b, flat, webp.Options{Lossless: true, Exact: true})
	})
	dotFile := webpOf(dot, true)
	for flags, third := range map[byte]image.Image{0: onFirst, 1: onClear} {
		file := webpAnimation(w, ht,
			webpFrameOf(still, 0, 0, w, ht, 0),
			webpFrameOf(patchFile, patchRect.Min.X, patchRect.Min.Y, patchRect.Dx(), patchRect.Dy(), flags),
			webpFrameOf(dotFile, 0, 0, 1, 1, 0))
		got := hashOK(t, h, "webp", file)
		for i, img := range []image.Image{background, second, third} {
			want, _ := hashPDQ(img)
			if got.Frames[i].PDQ != want {
				t.Errorf("webp with flags %d: frame %d is at distance %d", flags, i, distance(got.Frames[i].PDQ[0], want[0]))
			}
		}
	}
}

// pHash and dHash are the library's on the decoded picture.
func TestLibraryHashes(t *testing.T) {
	h := sharedHasher()
	file := jpegOf(t, picture(333, 222, 4))
	img := must(jpeg.Decode(bytes.NewReader(file)))
	got := hashOK(t, h, "jpeg", file).Frames[0]
	p, d := must(goimagehash.PerceptionHash(img)), must(goimagehash.DifferenceHash(img))
	if want := binary.BigEndian.AppendUint64(nil, p.GetHash()); !bytes.Equal(got.PHash.Sum(), want) {
		t.Errorf("pHash %v, want %x", got.PHash, want)
	}
	if want := binary.BigEndian.AppendUint64(nil, d.GetHash()); !bytes.Equal(got.DHash.Sum(), want) {
		t.Errorf("dHash %v, want %x", got.DHash, want)
	}
}

// The dihedral set of a picture holds the hash of each turned or mirrored copy,
// in the order of Transforms. Not to the bit: a box of even length is half a
// pixel off centre, to the same side however the picture is turned, which shows
// in small pictures.
func TestDihedralCopies(t *testing.T) {
	w, h := 700, 600
	m := picture(w, h, 5)
	set, _ := hashPDQ(m)
	for i, at := range []func(x, y int) (int, int){
		func(x, y int) (int, int) { return x, y },
		func(x, y int) (int, int) { return w - 1 - y, x },
		func(x, y int) (int, int) { return w - 1 - x, h - 1 - y },
		func(x, y int) (int, int) { return y, h - 1 - x },
		func(x, y int) (int, int) { return x, h - 1 - y },
		func(x, y int) (int, int) { return w - 1 - x, y },
		func(x, y int) (int, int) { return y, x },
		func(x, y int) (int, int) { return w - 1 - y, h - 1 - x },
	} {
		size := image.Pt(w, h)
		if i == 1 || i == 3 || i > 5 {
			size = image.Pt(h, w)
		}
		turned := image.NewRGBA(image.Rectangle{Max: size})
		for y := range size.Y {
			for x := range size.X {
				sx, sy := at(x, y)
				turned.SetRGBA(x, y, m.RGBAAt(sx, sy))
			}
		}
		got, _ := hashPDQ(turned)
		d := distance(got[0], set[i])
		t.Logf("%-13s %d bits", Transforms[i], d)
		if d > 10 {
			t.Errorf("the %s copy is %d bits from its hash in the set", Transforms[i], d)
		}
	}
}

// A copy with inverted colours is found by the complement.
func TestInvertedCopies(t *testing.T) {
	worst := 0
	for seed := range 20 {
		m := picture(320, 240, float64(seed+1))
		inverted := image.NewRGBA(m.Rect)
		for i, v := range m.Pix {
			if inverted.Pix[i] = 255 - v; i%4 == 3 {
				inverted.Pix[i] = v
			}
		}
		a, _ := hashPDQ(m)
		b, _ := hashPDQ(inverted)
		for i := range a {
			worst = max(worst, distance(a[i].Complement(), b[i]))
		}
	}
	t.Logf("worst distance to the complement: %d", worst)
	if worst > 6 {
		t.Errorf("the hash of an inverted copy is %d bits from the complement, want at most 6", worst)
	}
}
