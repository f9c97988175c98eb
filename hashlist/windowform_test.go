package hashlist

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"
)

func anUpload() *upload {
	at := time.Unix(1_795_700_000, 0).UTC()
	pdq, _ := NewHash(PDQ, bytes.Repeat([]byte{0xa5}, 32))
	small, _ := NewHash(PHash, bytes.Repeat([]byte{1}, 8))
	file, _ := NewHash(SHA256, bytes.Repeat([]byte{2}, 32))
	return &upload{
		id: 7, hit: VerdictHold, hitSeq: 3,
		seen: SeenUpload{First: at, Last: at.Add(time.Hour), Count: 2, Answered: VerdictFlag, Sightings: []Sighting{
			{ID: 7, At: at, Answered: VerdictFlag, Reference: Reference{URL: "https://here.example/a.jpg", Actor: "mallory"}},
			{ID: 9, At: at.Add(time.Hour), Answered: VerdictAllow},
		}},
		probes: []Probe{
			{Hash: file}, {Hash: pdq, Index: 1, Transform: "rot90", Flat: true}, {Hash: pdq.Complement(), Index: 1, Transform: "inverted-rot90", Flat: true},
			{Hash: pdq, Transform: "as somebody else calls it"}, {Hash: pdq.Complement()}, {Hash: small, Index: 2, Transform: "original"},
		},
	}
}

// What is sealed can be opened by whoever has the key, as what it is and nothing else.
func TestWindowRowsAreBound(t *testing.T) {
	s, err := newSealer([]byte(strings.Repeat("k", WindowKeySize)))
	if err != nil {
		t.Fatal(err)
	}
	u := anUpload()
	row := s.seal(sealedUpload, u.id, u.encode(nil))
	plain, err := s.open(sealedUpload, u.id, row)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := decodeUpload(u.id, plain); err != nil || !reflect.DeepEqual(got, u) {
		t.Errorf("%+v, %v", got, err)
	}
	if again := s.seal(sealedUpload, u.id, u.encode(nil)); bytes.Equal(again, row) {
		t.Error("sealed twice it is the same")
	}
	other, err := newSealer([]byte(strings.Repeat("x", WindowKeySize)))
	if err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func() ([]byte, error){
		"another row":  func() ([]byte, error) { return s.open(sealedUpload, u.id+1, row) },
		"another kind": func() ([]byte, error) { return s.open(sealedHit, u.id, row) },
		"another key":  func() ([]byte, error) { return other.open(sealedUpload, u.id, row) },
		"cut short":    func() ([]byte, error) { return s.open(sealedUpload, u.id, row[:len(row)-1]) },
		"nothing":      func() ([]byte, error) { return s.open(sealedUpload, u.id, nil) },
	} {
		if _, err := open(); err == nil {
			t.Errorf("%s can be opened", name)
		}
	}
	if s.tag("post", "x") == s.tag("actor", "x") || s.tag("post", "x") == other.tag("post", "x") {
		t.Error("tags of other fields or keys are the same")
	}
	if _, err := newSealer([]byte("short")); err == nil {
		t.Error("a short key is taken")
	}
}

// Exchanging rows and columns of a PDQ hash twice gives it back, and leaves the diagonal.
func TestTransposed(t *testing.T) {
	var sum [32]byte
	for i := range sum {
		sum[i] = byte(37*i + 11)
	}
	h, err := NewHash(PDQ, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	bit := func(h Hash, i, j int) byte { k := 16*i + j; return h.sum[31-k/8] >> (k % 8) & 1 }
	x := h.transposed()
	for i := range 16 {
		for j := range 16 {
			if bit(h, i, j) != bit(x, j, i) {
				t.Fatalf("bit %d, %d", i, j)
			}
		}
	}
	if x == h || x.transposed() != h {
		t.Error("it does not come back")
	}
}

func FuzzDecodeUpload(f *testing.F) {
	f.Add(anUpload().encode(nil))
	f.Add([]byte{windowForm})
	f.Fuzz(func(t *testing.T, b []byte) {
		u, err := decodeUpload(1, b)
		if err != nil {
			return
		}
		again, err := decodeUpload(1, u.encode(nil))
		if err != nil || !reflect.DeepEqual(u, again) {
			t.Fatalf("%+v\n%+v\n%v", u, again, err)
		}
	})
}

func FuzzDecodeHit(f *testing.F) {
	u := anUpload()
	h := &Hit{ID: "x", At: u.seen.First, Seen: u.seen, Verdict: VerdictReject, Algorithm: PDQ, Reason: "r", Withdrawn: true,
		Match: Match{Distance: 3, List: "l", Labels: []string{"spam"}, Action: Reject, Published: u.seen.First}}
	f.Add(h.encode(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeHit(1, b)
		if err != nil {
			return
		}
		again, err := decodeHit(1, h.encode(nil))
		if err != nil || !reflect.DeepEqual(h, again) {
			t.Fatalf("%+v\n%+v\n%v", h, again, err)
		}
	})
}
