package imagehash

import (
	"bytes"
	"errors"
	"testing"
)

// A picture is one whatever its major brand says, as browsers see it.
func TestForeignBrands(t *testing.T) {
	h := sharedHasher()
	for format, brands := range map[string]string{"avif": "avifmif1", "heic": "mif1heic"} {
		file := sampleFile(format)
		want := hashOK(t, h, format, file).Frames[0]
		ftyp := int(file[3])
		for _, major := range []string{"isom", "mp42", "qt  ", "zzzz", "miaf", "\x00\x00\x00\x00"} {
			// Of the length that it had: offsets in the file count from its beginning.
			head := box("ftyp", []byte(major+"\x00\x00\x00\x00"+brands))
			head = append(head, bytes.Repeat([]byte("isom"), (ftyp-len(head))/4)...)
			head[3] = byte(ftyp)
			m := hashOK(t, h, format+" as "+major, append(head, file[ftyp:]...))
			if m.Format != format || m.Frames[0].PDQ != want.PDQ {
				t.Errorf("%s as %q: %s at distance %d", format, major, m.Format, distance(m.Frames[0].PDQ[0], want.PDQ[0]))
			}
		}
	}
	for major, want := range map[string]error{"isom": ErrVideo, "mp42": ErrVideo, "qt  ": ErrVideo, "3gp4": ErrVideo, "zzzz": ErrUndecodable, "isoz": ErrVideo, "mif1": ErrUndecodable} {
		if _, err := sniff(box("ftyp", []byte(major+"\x00\x00\x00\x00"+major+"dash"))); !errors.Is(err, want) {
			t.Errorf("%q: got %v, want %v", major, err, want)
		}
	}
	if _, err := sniff(box("ftyp", []byte("isom\x00\x00\x00\x00isommif1"))); !errors.Is(err, ErrUndecodable) {
		t.Errorf("video with the brand of a picture: %v", err)
	}
}
