package federation

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// TestOpenUnknownKind: what a later version may say is told apart from what is
// wrong, and checked as far as it can be.
func TestOpenUnknownKind(t *testing.T) {
	i, key := alice(t), w3cKey(t)
	_, other, _ := ed25519.GenerateKey(rand.Reader)
	const list = "https://hashes.example/lists/csam"
	seal := func(s hashlist.Statement) hashlist.Record {
		s.List, s.Reason = list, "why"
		r, err := i.Seal(s)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	add := seal(hashlist.Statement{Kind: hashlist.AddHashes, Hashes: []hashlist.Hash{hash(t, "md5:d41d8cd98f00b204e9800998ecf8427e")}})
	undo := seal(hashlist.Statement{Kind: hashlist.Retraction, Retracts: add.Statement.ID, Hashes: add.Statement.Hashes})
	update := seal(hashlist.Statement{Kind: hashlist.DefineList, Definition: &hashlist.Definition{
		Name: "csam", Audience: hashlist.Local, Action: hashlist.Reject, Radii: hashlist.DefaultRadii,
	}})
	type doc = map[string]any
	object := func(d doc) doc { return d["object"].(doc) }
	kinds := map[string]struct {
		of     hashlist.Record
		change func(doc)
	}{
		"another activity":   {add, func(d doc) { d["type"] = "Offer" }},
		"another object":     {add, func(d doc) { object(d)["type"] = []any{"Relationship", "Trust"}; object(d)["hashes"] = "not one" }},
		"an untyped object":  {add, func(d doc) { delete(object(d), "type") }},
		"part of another":    {undo, func(d doc) { object(d)["type"] = "Offer" }},
		"an update of other": {update, func(d doc) { object(d)["type"] = "Person"; d["target"] = list }},
	}
	for name, c := range kinds {
		t.Run(name, func(t *testing.T) {
			signed := edit(t, c.of.Signed, key, c.change)
			s, err := Open(signed, keyOf(i))
			if !errors.Is(err, ErrUnknownKind) {
				t.Fatalf("got %v", err)
			}
			var d doc
			if err := json.Unmarshal(signed, &d); err != nil {
				t.Fatal(err)
			}
			want := hashlist.Statement{ID: d["id"].(string), Issuer: actor, List: list, Published: c.of.Statement.Published}
			if diff := cmp.Diff(want, s, cmp.AllowUnexported(hashlist.Hash{})); diff != "" || s.ID == c.of.Statement.ID {
				t.Error(diff)
			}
			for what, spoilt := range map[string][]byte{
				"altered":           bytes.Replace(signed, []byte(`"why"`), []byte(`"not"`), 1),
				"another's key":     edit(t, signed, other, func(doc) {}),
				"another's id":      edit(t, signed, nil, func(d doc) { d["id"] = c.of.Statement.ID }),
				"no proof":          edit(t, signed, nil, func(d doc) { delete(d, "proof") }),
				"no list":           edit(t, signed, key, func(d doc) { delete(d, "target") }),
				"another's list":    edit(t, signed, key, func(d doc) { d["target"] = "https://other.example/lists/csam" }),
				"another's actor":   edit(t, signed, key, func(d doc) { d["actor"] = "https://other.example/users/alice" }),
				"no nonce":          edit(t, signed, key, func(d doc) { delete(d, "nonce") }),
				"no time":           edit(t, signed, key, func(d doc) { delete(d, "published") }),
				"before time began": edit(t, signed, key, func(d doc) { d["published"] = "1960-01-01T00:00:00Z" }),
				"a summary of two":  edit(t, signed, key, func(d doc) { d["summary"] = []any{"a", "b"} }),
			} {
				if s, err := Open(spoilt, keyOf(i)); err == nil || errors.Is(err, ErrUnknownKind) || s.ID != "" {
					t.Errorf("%s: %+v, %v", what, s, err)
				}
			}
		})
	}
}

// TestSealTooLarge: what others would refuse to read is not signed.
func TestSealTooLarge(t *testing.T) {
	i := alice(t)
	s := hashlist.Statement{Kind: hashlist.AddContent, List: "https://hashes.example/lists/csam", Reason: "y"}
	for n := range 255 {
		s.Subjects = append(s.Subjects, fmt.Sprintf("https://bad.example/%04d/%s", n, strings.Repeat("x", 1000)))
	}
	r, err := i.Seal(s)
	for ; err != nil && strings.Contains(err.Error(), "262144"); r, err = i.Seal(s) {
		s.Subjects = s.Subjects[1:]
	}
	if err != nil || len(s.Subjects) == 255 {
		t.Fatalf("%d subjects: %v", len(s.Subjects), err)
	}
	// Up to the bound, but for what base58 takes more or less for a signature, and beyond it.
	s.Reason = strings.Repeat("y", 1+MaxSigned-4-len(r.Signed))
	if r, err = i.Seal(s); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(r.Signed, keyOf(i)); err != nil || len(r.Signed) < MaxSigned-8 {
		t.Fatalf("%d bytes: %v", len(r.Signed), err)
	}
	s.Reason += "yyyyyyyy"
	if r, err := i.Seal(s); err == nil || !strings.Contains(err.Error(), "more than 262144") {
		t.Errorf("%d bytes: %v", len(r.Signed), err)
	}
}
