package source

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzSniff: what passes for the begin of a list is text, and no page for people.
func FuzzSniff(f *testing.F) {
	for _, s := range []string{"#domain\n", "<!doctype html>", "\xff\xfea\x00", "\xef\xbb\xbf{}", "PK\x03\x04", "<?xml version='1.0'?>", strings.Repeat("é", maxSniff/2)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, start []byte) {
		start = start[:min(len(start), maxSniff)]
		if sniff(start) != nil {
			return
		}
		if bytes.IndexByte(start, 0) >= 0 || len(start) < maxSniff && !utf8.Valid(start) || bytes.HasPrefix(bytes.ToLower(bytes.TrimSpace(start)), []byte("<html")) {
			t.Errorf("%.60q passed", start)
		}
	})
}

// FuzzLinks: whatever an answer says comes next is on the same server, and what is sent back is harmless in a header.
func FuzzLinks(f *testing.F) {
	f.Add("/v2/entries?x", `"tag"`, "https://a.example/changes/0197c0de-0000-7000-8000-000000000001")
	f.Add("//evil.example/", "a\r\nb: c", "-")
	f.Add("https://a.example:8443/", "\x7f", "")
	f.Fuzz(func(t *testing.T, next, tag, key string) {
		if at, err := sameOrigin("https://a.example/v2/entries", next); err == nil && !strings.HasPrefix(at, "https://a.example/") && at != "https://a.example" && !strings.HasPrefix(at, "https://a.example?") {
			t.Errorf("%q leads to %q", next, at)
		}
		if v := validator(tag); strings.ContainsAny(v, "\r\n\x00") || len(v) > maxValidator {
			t.Errorf("%q is sent back", v)
		}
		if id := changeID(key); id != "" && len(id) != 36 {
			t.Errorf("id %q", id)
		}
	})
}

// FuzzCredentials: whatever is in the file, an error holds nothing of it.
func FuzzCredentials(f *testing.F) {
	f.Add("basic a:b\n")
	f.Add("header X-Key: s3cret-s3cret\n# x\n\nbearer t")
	f.Add("nonsense s3cret-s3cret")
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "c")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		h, err := ReadCredentials(path)
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%v", err)
		}
		for name, values := range h {
			for _, v := range values {
				if strings.ContainsAny(name+v, "\r\n") {
					t.Errorf("header %q: %q", name, v)
				}
			}
		}
	})
}
