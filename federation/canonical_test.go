package federation

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// FuzzIsCanonical holds the fast way to see that a document is canonical
// against the slow one: what it lets through must be accepted there and come out
// as it is, or what is signed would not be what is read.
func FuzzIsCanonical(f *testing.F) {
	r, err := alice(f).Seal(anyAdd(f, 3))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(r.Signed)
	for _, s := range []string{
		`{}`, `{"a":1,"b":[true,false,null,-1,0,"\"\\\b\f\n\r\t"]}`, `{"a":{"a":{}},"b":[[],{}]}`, `{"a":-0}`, `{"a":01}`, `{"a":1.0}`, `{"a":1e3}`,
		`{"b":1,"a":1}`, `{"a":1,"a":1}`, `{"a":1, "b":2}`, `{"a":"\u0041"}`, `{"a":"\/"}`, `{"a":"é"}`, `{"a":1}{}`, `{"a":9007199254740993}`,
		`{"":"","a":""}`, `{"a":tru}`, `{"a":`, `{"a"`, `{"a":"`, `{"a":"\`, `{"a":-}`, `{"a":"` + "\x7f" + `"}`, `{"a\\":1,"aB":2}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > MaxSigned || !isCanonical(data) {
			return
		}
		slow, err := canonicalize(data)
		if err != nil {
			t.Fatalf("%q passes for canonical, and is refused: %v", data, err)
		}
		if !bytes.Equal(slow, data) {
			t.Fatalf("%q passes for canonical, and is %q", data, slow)
		}
		var want map[string]json.RawMessage
		if err := json.Unmarshal(data, &want); err != nil {
			t.Fatal(err)
		}
		all, ok := split(data)
		if !ok || len(all) != len(want) {
			t.Fatalf("%q is split into %d of %d members", data, len(all), len(want))
		}
		for _, m := range all {
			if !bytes.Equal(m.value, want[m.name]) {
				t.Fatalf("%q of %q is split off as %q", m.name, data, m.value)
			}
			var texts []string
			if got, ok := splitTexts(m.value); ok && (json.Unmarshal(m.value, &texts) != nil || !slices.Equal(got, texts)) {
				t.Fatalf("%q is split into %q", m.value, got)
			}
		}
	})
}

// What is split must be what the slow way reads from it, canonical or not.
func FuzzSplit(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":1,"b":[true]}`, `{"a":"\u0041"}`, `{"a":1}{}`, `{"b":1,"a":2}`, `{"a":["b","c"]}`, `["a","b"]`, `["a",1]`, `["\n"]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if all, ok := split(data); ok {
			var want map[string]json.RawMessage
			if err := json.Unmarshal(data, &want); err != nil || len(want) != len(all) {
				t.Fatalf("%q is split into %d of %d members: %v", data, len(all), len(want), err)
			}
			for _, m := range all {
				if !bytes.Equal(m.value, want[m.name]) {
					t.Fatalf("%q of %q is split off as %q", m.name, data, m.value)
				}
			}
		}
		if got, ok := splitTexts(data); ok {
			var want []string
			if json.Unmarshal(data, &want) != nil || !slices.Equal(got, want) {
				t.Fatalf("%q is split into %q", data, got)
			}
		}
	})
}

// Statements go the fast way: if they no longer did, nothing but the time it takes would tell.
func TestIsCanonical(t *testing.T) {
	r, err := alice(t).Seal(anyAdd(t, 1000))
	if err != nil {
		t.Fatal(err)
	}
	if !isCanonical(r.Signed) {
		t.Errorf("a statement is not seen to be canonical")
	}
	deep := func(n int) []byte {
		return bytes.Join([][]byte{[]byte(`{"a":`), bytes.Repeat([]byte{'['}, n-1), bytes.Repeat([]byte{']'}, n-1), []byte(`}`)}, nil)
	}
	for _, n := range []int{maxDepth, maxDepth + 1} {
		if _, err := canonicalize(deep(n)); isCanonical(deep(n)) != (err == nil) {
			t.Errorf("at depth %d: %v", n, err)
		}
	}
}

func TestQuote(t *testing.T) {
	for _, s := range []string{"", "a", "hashes", `"`, `\`, "é", "\x00", "\x7f", "\u2028", "<&>"} {
		var back string
		if err := json.Unmarshal(quote(s), &back); err != nil || back != s {
			t.Errorf("%q is quoted as %s", s, quote(s))
		}
	}
}

// anyAdd is a statement with n hashes.
func anyAdd(t testing.TB, n int) hashlist.Statement {
	t.Helper()
	s := hashlist.Statement{Kind: hashlist.AddHashes, List: "https://hashes.example/lists/refused"}
	for i := range n {
		b := make([]byte, 32)
		b[0], b[1] = byte(i), byte(i>>8)
		h, err := hashlist.NewHash(hashlist.SHA256, b)
		if err != nil {
			t.Fatal(err)
		}
		s.Hashes = append(s.Hashes, h)
	}
	return s
}

func BenchmarkOpen(b *testing.B) {
	for _, n := range []int{1, 1000} {
		r, err := alice(b).Seal(anyAdd(b, n))
		if err != nil {
			b.Fatal(err)
		}
		key := keyOf(alice(b))
		b.Run(map[int]string{1: "hashes=1", 1000: "hashes=1000"}[n], func(b *testing.B) {
			b.SetBytes(int64(len(r.Signed)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Open(r.Signed, key); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
