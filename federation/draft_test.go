package federation

import (
	"bytes"
	"crypto/ed25519"
	"testing"

	"github.com/tocsin-fed/tocsin/hashlist"
)

func TestDraft(t *testing.T) {
	i := alice(t)
	s := hashlist.Statement{Kind: hashlist.AddHashes, List: "https://hashes.example/lists/csam", Reason: "x",
		Hashes: []hashlist.Hash{hash(t, "md5:d41d8cd98f00b204e9800998ecf8427e")}}
	draft, err := Draft(i.Actor(), s)
	if err != nil {
		t.Fatal(err)
	}
	r, err := i.SealDraft(draft)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Open(r.Signed, keyOf(i))
	if err != nil {
		t.Fatal(err)
	}
	if got.ID != r.Statement.ID || got.Reason != "x" || len(got.Hashes) != 1 || got.Issuer != i.Actor() {
		t.Errorf("%+v", got)
	}
	again, err := i.SealDraft(draft)
	if err != nil || !bytes.Equal(again.Signed, r.Signed) {
		t.Errorf("signed again it is another statement: %v", err)
	}
	_, key, _ := ed25519.GenerateKey(nil)
	bob, err := NewIssuer("https://hashes.example/users/bob", key)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]struct {
		by    *Issuer
		draft []byte
	}{
		"another's draft":  {bob, draft},
		"signed already":   {i, r.Signed},
		"not canonical":    {i, []byte(`{"type":"Add","type":"Undo"}`)},
		"no statement":     {i, []byte(`{}`)},
		"of another place": {i, bytes.ReplaceAll(draft, []byte("https://hashes.example/lists"), []byte("https://other.example/lists"))},
	} {
		if _, err := bad.by.SealDraft(bad.draft); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
}
