package hashlist

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// anyHash draws a hash of any algorithm. Few distinct ones are drawn, and some
// near each other, so that statements meet.
func anyHash(t *rapid.T) Hash {
	a := rapid.SampledFrom(Algorithms[:]).Draw(t, "algorithm")
	sum := make([]byte, a.Size())
	for i := range sum {
		sum[i] = byte(i + 1)
	}
	for range rapid.IntRange(0, 3).Draw(t, "flips") {
		sum[rapid.IntRange(0, 2).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
	}
	h, err := NewHash(a, sum)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestHashForms(t *testing.T) {
	const pdq = "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22"
	want, err := ParseHash("pdq:" + pdq)
	if err != nil {
		t.Fatal(err)
	}
	var bits strings.Builder
	for _, b := range want.Sum() {
		fmt.Fprintf(&bits, "%08b", b)
	}
	for _, text := range []string{
		pdq, strings.ToUpper(pdq), "pdq:" + pdq, "PDQ:" + strings.ToUpper(pdq),
		base64.StdEncoding.EncodeToString(want.Sum()), bits.String(),
	} {
		if h, err := ParseHashLenient(PDQ, text); err != nil || h != want {
			t.Errorf("ParseHashLenient(%q) = %v, %v", text, h, err)
		}
	}
	for _, text := range []string{
		"", pdq, "pdq", "pdq:", ":" + pdq, "pdq:" + strings.ToUpper(pdq), "PDQ:" + pdq, "pdq: " + pdq, "pdq:" + pdq + "\n",
		"pdq:" + pdq[1:], "pdq:" + pdq + "0", "pdq:" + pdq[:63] + "g", "md5:" + pdq, "pdq:0" + pdq[:62] + "é",
		"pdq:" + strings.Repeat("0", 64), "phash:" + strings.Repeat("0", 16), "photodna:" + pdq,
	} {
		if h, err := ParseHash(text); err == nil {
			t.Errorf("ParseHash(%q) = %v, want an error", text, h)
		}
	}
	for _, text := range []string{"", "pdq", "md5:" + pdq, strings.Repeat("2", 256), base64.RawStdEncoding.EncodeToString(want.Sum()), pdq + pdq} {
		if h, err := ParseHashLenient(PDQ, text); err == nil {
			t.Errorf("ParseHashLenient(%q) = %v, want an error", text, h)
		}
	}
	// A file of zeros is a file, and has whatever digest it has.
	if _, err := ParseHash("md5:" + strings.Repeat("0", 32)); err != nil {
		t.Error(err)
	}
	if _, err := NewHash(0, nil); err == nil {
		t.Error("a hash without an algorithm was made")
	}
}

func TestHashDistance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyHash(t), anyHash(t)
		d, ok := a.Distance(b)
		if ok != (a.Algorithm() == b.Algorithm()) {
			t.Fatalf("distance of %v and %v: %v", a, b, ok)
		}
		if back, _ := b.Distance(a); back != d || ok && (d == 0) != (a == b) {
			t.Fatalf("distance of %v and %v is %d and %d", a, b, d, back)
		}
		if c := a.Complement(); a.Algorithm().Perceptual() {
			if d, _ := a.Distance(c); d != 8*a.Algorithm().Size() || c.Complement() != a {
				t.Fatalf("complement of %v is %v", a, c)
			}
		} else if !c.IsZero() {
			t.Fatalf("digest %v has a complement", a)
		}
		text, err := a.MarshalText()
		var back Hash
		if err != nil || back.UnmarshalText(text) != nil || back != a {
			t.Fatalf("%v became %v", a, back)
		}
	})
}

func FuzzParseHash(f *testing.F) {
	f.Add(uint8(PDQ), "pdq:f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22")
	f.Add(uint8(MD5), "D41D8CD98F00B204E9800998ECF8427E")
	f.Add(uint8(PHash), strings.Repeat("01", 32))
	f.Fuzz(func(t *testing.T, a uint8, text string) {
		if h, err := ParseHash(text); err == nil && h.String() != text {
			t.Errorf("%q was read as %v", text, h)
		}
		h, err := ParseHashLenient(Algorithm(a), text)
		if err != nil {
			return
		}
		if again, err := ParseHash(h.String()); err != nil || again != h {
			t.Errorf("%v does not survive its text form: %v", h, err)
		}
	})
}
