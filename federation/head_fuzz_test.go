package federation

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// FuzzParseHead: what is read of a head is what stands in it.
func FuzzParseHead(f *testing.F) {
	f.Add("hashes.example/lists/csam\n1000\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n")
	f.Add("hashes.example/lists/csam\n0\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\nmore\nlines\n")
	f.Add("a\n-1\n\n")
	f.Add("a\n9223372036854775808\nAA==\n")
	f.Fuzz(func(t *testing.T, text string) {
		h, err := parseHead(text)
		if err != nil {
			if len(err.Error()) > 300 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		if again := fmt.Sprintf("%s\n%d\n%v\n", h.list, h.size, h.root); !strings.HasPrefix(text, again) || h.size < 0 {
			t.Errorf("%q was read as %q", text, again)
		}
	})
}

// FuzzOpenHead: nothing but what the key signed opens, and what opens is what was signed.
func FuzzOpenHead(f *testing.F) {
	const list = "https://hashes.example/lists/csam"
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))
	var signed [][]byte
	for size := range int64(3) {
		b, err := head{list, size, tlog.Hash{byte(size)}}.sign(key)
		if err != nil {
			f.Fatal(err)
		}
		signed = append(signed, b)
		f.Add(b)
		f.Add(append(bytes.Clone(b), "— other AAAAAAAA\n"...))
	}
	other, err := head{"https://hashes.example/lists/other", 1, tlog.Hash{}}.sign(key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(other)
	keys := []ed25519.PublicKey{key.Public().(ed25519.PublicKey)}
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := openHead(data, list, keys)
		if err != nil {
			return
		}
		for _, s := range signed {
			text, _, _ := bytes.Cut(s, []byte("\n\n"))
			if bytes.HasPrefix(data, append(text, "\n\n"...)) && h.list == list {
				return
			}
		}
		t.Errorf("%q opened as %+v", data, h)
	})
}

// FuzzReadPage: a page that is read keeps to its bounds, and is written again as the same page.
func FuzzReadPage(f *testing.F) {
	const list = "https://hashes.example/lists/csam"
	for _, p := range []page{
		{list: list},
		{list: list, start: 1 << 53, items: []json.RawMessage{[]byte(`{"id":"x"}`), []byte(`1`)}, head: []byte("a\nb\n"), more: true},
	} {
		var b bytes.Buffer
		if err := p.encode(&b); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Add([]byte(`{"type":["x","OrderedCollectionPage"],"partOf":"` + list + `/log","startIndex":-0,"orderedItems":null,"head":""}`))
	f.Add([]byte(`{"type":"OrderedCollectionPage","partOf":"` + list + `/log","startIndex":1e2,"orderedItems":[[[[]]]]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := readPage(data, list)
		if err != nil {
			return
		}
		if p.start < 0 || p.start > 1<<53 || len(p.items) > maxPageItems || len(p.head) > maxHead || p.list != list {
			t.Fatalf("%+v", p)
		}
		var b bytes.Buffer
		if err := p.encode(&b); err != nil {
			t.Fatal(err)
		}
		again, err := readPage(b.Bytes(), list)
		if err != nil {
			t.Fatalf("%v: %s", err, b.Bytes())
		}
		if again.start != p.start || again.more != p.more || !bytes.Equal(again.head, p.head) || len(again.items) != len(p.items) {
			t.Errorf("%+v became %+v", p, again)
		}
		for i, item := range p.items {
			if !bytes.Equal(again.items[i], item) {
				t.Errorf("statement %q became %q", item, again.items[i])
			}
			o := openOf(list, nil, item)
			if o.err == nil && !o.unknown {
				t.Errorf("opened without a key: %s", item)
			}
		}
	})
}
