package imagehash

import (
	"bytes"
	"encoding/binary"
	"image"
	"image/color"
	"image/draw"
	"testing"
)

// pngBody is what the pixels of a PNG file deflate to.
func pngBody(m image.Image) []byte {
	file := pngOf(m)
	var all []byte
	for at := 8; at < len(file); {
		n := int(binary.BigEndian.Uint32(file[at:]))
		if string(file[at+4:at+8]) == "IDAT" {
			all = append(all, file[at+8:at+8+n]...)
		}
		at += 12 + n
	}
	return all
}

// fcTL is the control chunk of a frame.
func fcTL(r image.Rectangle, dispose, blend byte) [2][]byte {
	b := make([]byte, 4)
	for _, v := range []int{r.Dx(), r.Dy(), r.Min.X, r.Min.Y} {
		b = binary.BigEndian.AppendUint32(b, uint32(v))
	}
	return [2][]byte{[]byte("fcTL"), append(b, 0, 1, 0, 10, dispose, blend)}
}

func fdAT(m image.Image) [2][]byte {
	return [2][]byte{[]byte("fdAT"), append(make([]byte, 4), pngBody(m)...)}
}

func idat(m image.Image) [2][]byte { return [2][]byte{[]byte("IDAT"), pngBody(m)} }

var (
	acTL = [2][]byte{[]byte("acTL"), make([]byte, 8)}
	iend = [2][]byte{[]byte("IEND"), nil}
)

// The animation of a PNG file is seen, and so is a default image beside it.
func TestAnimatedPNG(t *testing.T) {
	h := sharedHasher()
	const w, hh = 160, 120
	shown, other := picture(w, hh, 1), picture(w, hh, 2)
	// Opaque pictures are encoded as RGB, type 2.
	whole := image.Rect(0, 0, w, hh)
	left, right := image.Rect(0, 0, 80, hh), image.Rect(80, 0, w, hh)
	want, wantOther := hashOK(t, h, "shown", pngOf(shown)).Frames[0], hashOK(t, h, "other", pngOf(other)).Frames[0]
	mixed := image.NewRGBA(whole)
	draw.Draw(mixed, left, shown, image.Point{}, draw.Src)
	draw.Draw(mixed, right, other, right.Min, draw.Src)
	wantMixed := hashOK(t, h, "mixed", pngOf(mixed)).Frames[0]
	file := func(chunks ...[2][]byte) []byte { return pngChunks(w, hh, 8, 2, 0, append(chunks, iend)...) }
	for name, c := range map[string]struct {
		file      []byte
		want      []Frame
		truncated bool
	}{
		"default image hidden":        {file(acTL, idat(other), fcTL(whole, 0, 0), fdAT(shown)), []Frame{wantOther, want}, false},
		"default image first":         {file(acTL, fcTL(whole, 0, 0), idat(other), fcTL(whole, 0, 0), fdAT(shown)), []Frame{wantOther, want}, false},
		"in two halves":               {file(acTL, idat(other), fcTL(left, 0, 0), fdAT(shown.SubImage(left)), fcTL(right, 0, 0), fdAT(shown.SubImage(right))), []Frame{wantOther, {}, want}, false},
		"half over the default image": {file(acTL, fcTL(whole, 0, 0), idat(other), fcTL(left, 0, 1), fdAT(shown)), []Frame{wantOther}, true},
		"half replaced":               {file(acTL, fcTL(whole, 0, 0), idat(other), fcTL(left, 0, 0), fdAT(shown.SubImage(left))), []Frame{wantOther, wantMixed}, false},
		"half put back":               {file(acTL, fcTL(whole, 0, 0), idat(other), fcTL(left, 2, 0), fdAT(shown.SubImage(left)), fcTL(right, 0, 0), fdAT(other.SubImage(right))), []Frame{wantOther, wantMixed, wantOther}, false},
		"no acTL":                     {file(idat(other), fcTL(whole, 0, 0), fdAT(shown)), []Frame{wantOther}, false},
		"frame beyond the canvas":     {file(acTL, idat(other), fcTL(whole.Add(image.Pt(1, 0)), 0, 0), fdAT(shown)), []Frame{wantOther}, true},
		"default image broken":        {file(acTL, [2][]byte{[]byte("IDAT"), {1, 2}}, fcTL(whole, 0, 0), fdAT(shown)), []Frame{want}, true},
	} {
		m := hashOK(t, h, name, c.file)
		var got []Frame
		index := -1
		for _, f := range m.Frames {
			if f.Index > index {
				got = append(got, f)
				index = f.Index
			}
		}
		if name == "half over the default image" {
			// The data is of another width: what it shows is not defined.
			got = got[:1]
		}
		if len(got) != len(c.want) || m.Truncated != c.truncated || m.Width != w || m.Height != hh {
			t.Errorf("%s: %d frames of %dx%d, truncated %v", name, len(got), m.Width, m.Height, m.Truncated)
			continue
		}
		for i, f := range got {
			if c.want[i] != (Frame{}) && f.PDQ != c.want[i].PDQ {
				t.Errorf("%s: frame %d is at distance %d", name, i, distance(f.PDQ[0], c.want[i].PDQ[0]))
			}
		}
	}
	one := newHasher(t, Limits{Workers: 1, MaxFrames: 1})
	m := hashOK(t, one, "one frame", file(acTL, idat(other), fcTL(whole, 0, 0), fdAT(shown), fcTL(whole, 0, 0), fdAT(other)))
	if len(m.Frames) != 2 || m.Frames[1].PDQ != want.PDQ || m.Frames[1].Index != 1 {
		t.Errorf("default image and one frame: %d frames", len(m.Frames))
	}
}

// What browsers forgive in a PNG file does not hide a picture.
func TestBrokenPNG(t *testing.T) {
	h := sharedHasher()
	const w, hh = 320, 240
	rgb := picture(w, hh, 4)
	grey := image.NewGray(rgb.Rect)
	draw.Draw(grey, grey.Rect, rgb, image.Point{}, draw.Src)
	clear := image.NewPaletted(rgb.Rect, append(color.Palette{color.NRGBA{}}, paletted(rgb).Palette[:255]...))
	draw.FloydSteinberg.Draw(clear, clear.Rect, rgb, image.Point{})
	for kind, m := range map[string]image.Image{"rgb": rgb, "grey": grey, "palette": paletted(rgb), "interlaced": nil, "transparent palette": clear} {
		file := interlacedPNG(rgb)
		if m != nil {
			file = pngOf(m)
		}
		whole := hashOK(t, h, kind, file).Frames[0]
		raw := func(b []byte, at int, with string) []byte {
			return append(append(bytes.Clone(b[:at]), with...), b[at:]...)
		}
		const afterHeader = 8 + 25
		text := string(pngChunk(nil, "tEXt", []byte("a\x00b")))
		broken := map[string]struct {
			file      []byte
			truncated bool
			limit     int
		}{
			"checksum of a text":     {raw(file, afterHeader, text[:len(text)-1]+"?"), false, 0},
			"no IEND":                {file[:len(file)-12], true, 0},
			"half a checksum":        {file[:len(file)-14], true, 0},
			"length of tRNS":         {raw(file, afterHeader, string(pngChunk(nil, "tRNS", make([]byte, 777)))), false, 0},
			"checksum of the pixels": {append(append(bytes.Clone(file[:len(file)-17]), file[len(file)-17]^1), file[len(file)-16:]...), true, 0},
			"2 % cut":                {file[:len(file)*98/100], true, 30},
			"too much data":          {raw(file, len(file)-12, text+string(pngChunk(nil, "IDAT", []byte{1, 2, 3}))), false, 0},
		}
		for name, c := range broken {
			m := hashOK(t, h, kind+", "+name, c.file)
			if d := distance(m.Frames[0].PDQ[0], whole.PDQ[0]); d > c.limit || m.Truncated != c.truncated {
				t.Errorf("%s, %s: distance %d, truncated %v", kind, name, d, m.Truncated)
			}
		}
	}
}
