package imagehash

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

// What browsers skip or forgive in a JPEG file does not hide a picture.
func TestBrokenJPEG(t *testing.T) {
	h := sharedHasher()
	file := jpegOf(t, picture(640, 480, 4))
	want := hashOK(t, h, "whole", file).Frames[0]
	sos := bytes.Index(file, []byte{0xff, 0xda})
	insert := func(at int, more string) []byte { return slices.Insert(bytes.Clone(file), at, []byte(more)...) }
	late := func(more string) []byte { return append(bytes.Clone(file[:len(file)-300]), more...) }
	replace := func(at int, with string) []byte {
		b := bytes.Clone(file)
		copy(b[at:], with)
		return b
	}
	for name, c := range map[string]struct {
		file      []byte
		truncated bool
		limit     int
	}{
		"TEM":                  {insert(sos, "\xff\x01"), false, 0},
		"TEM at the beginning": {insert(2, "\xff\x01\xff\x01"), false, 0},
		"DNL":                  {insert(sos, "\xff\xdc\x00\x04\x01\xe0"), false, 0},
		"DAC":                  {insert(sos, "\xff\xcc\x00\x04\x00\x00"), false, 0},
		"all, and fill bytes":  {insert(sos, "\xff\xff\xff\x01\xff\xdc\x00\x04\x01\xe0\xff\xff\xcc\x00\x02"), false, 0},
		"bad Huffman codes":    {late(strings.Repeat("\xff\x00", 100) + "\xff\xd9"), true, 10},
		"noise":                {replace(len(file)-1000, strings.Repeat("\xff\x00\x7f\xff\x00", 100)), true, 20},
		"stray RST":            {insert(len(file)-300, "\xff\xd3"), true, 10},
		"early EOI":            {insert(len(file)-300, "\xff\xd9"), true, 10},
		"APP0 in the scan":     {insert(len(file)-300, "\xff\xe0\x00\x04ab"), true, 10},
		"second SOF":           {late("\xff\xc0\x00\x04ab"), true, 10},
		"broken second SOS":    {replace(len(file)-2, "\xff\xda\x00\x03\x01"), true, 10},
		"broken DHT":           {append(bytes.Clone(file[:len(file)-2]), "\xff\xc4\x00\x03\x01"...), true, 10},
	} {
		m := hashOK(t, h, name, c.file)
		if d := distance(m.Frames[0].PDQ[0], want.PDQ[0]); d > c.limit || m.Truncated != c.truncated {
			t.Errorf("%s: distance %d, truncated %v", name, d, m.Truncated)
		}
	}
}

// The scans of a file are counted before any is decoded.
func TestScansOfJPEG(t *testing.T) {
	for n, tooMany := range map[int]bool{0: false, maxScans - 1: false, maxScans: true} {
		file := manyScans(t, 64, 64, n) // and one that is first
		if got := walkJPEG(file).scans; got != n+1 {
			t.Errorf("%d scans counted, want %d", got, n+1)
		}
		_, err := examine(request{maxPixels: 1 << 20, maxFrames: 1}, file)
		if errors.Is(err, ErrTooLarge) != tooMany || err != nil && !tooMany {
			t.Errorf("%d scans: %v", n+1, err)
		}
	}
}
