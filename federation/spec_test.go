package federation

import (
	"crypto/ed25519"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// TestSpec runs the examples of spec.md.
func TestSpec(t *testing.T) {
	text, err := os.ReadFile("../spec.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := map[string][]string{}
	for _, m := range regexp.MustCompile("(?ms)^```([a-z-]+)\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
		examples[m[1]] = append(examples[m[1]], m[2])
	}
	public := w3cKey(t).Public().(ed25519.PublicKey)
	var kinds []hashlist.Kind
	log := map[string]bool{}
	for _, e := range examples["statement"] {
		s, err := Open([]byte(e), func(issuer, method string) (ed25519.PublicKey, error) { return public, nil })
		if err != nil {
			t.Errorf("%v in the example\n%s", err, e)
			continue
		}
		if s.Kind == hashlist.Retraction && !log[s.Retracts] {
			t.Errorf("%s retracts %s, which is no example", s.ID, s.Retracts)
		}
		log[s.ID] = true
		kinds = append(kinds, s.Kind)
		if _, err := Open([]byte(strings.Replace(e, "hashes.example", "hashes.exampl3", 1)), func(string, string) (ed25519.PublicKey, error) { return public, nil }); err == nil {
			t.Error("an altered example opens")
		}
	}
	if want := []hashlist.Kind{
		hashlist.AddHashes, hashlist.AddAccounts, hashlist.AddInstances, hashlist.AddContent, hashlist.Retraction, hashlist.Retraction,
		hashlist.DefineList, hashlist.Confirmation, hashlist.Dispute, hashlist.Vouch,
	}; !slices.Equal(kinds, want) {
		t.Errorf("examples are of the kinds %v, want %v", kinds, want)
	}
	for _, kind := range []string{"hash", "not-a-hash"} {
		lines := strings.Fields(strings.Join(examples[kind], ""))
		if len(lines) < 3 {
			t.Errorf("%d examples of %s", len(lines), kind)
		}
		for _, l := range lines {
			if h, err := hashlist.ParseHash(l); (err == nil) != (kind == "hash") || err == nil && h.String() != l {
				t.Errorf("%s %q was read as %v, %v", kind, l, h, err)
			}
		}
	}
	named := map[string]hashlist.Kind{"accounts": hashlist.AddAccounts, "instances": hashlist.AddInstances, "content": hashlist.AddContent}
	for _, kind := range []string{"subject", "not-a-subject"} {
		lines := strings.Split(strings.TrimSpace(strings.Join(examples[kind], "")), "\n")
		if len(lines) < 3 {
			t.Errorf("%d examples of %s", len(lines), kind)
		}
		for _, l := range lines {
			what, subject, _ := strings.Cut(l, " ")
			if err := hashlist.CheckSubject(named[what], subject); (err == nil) != (kind == "subject") {
				t.Errorf("%s %q: %v", kind, l, err)
			}
		}
	}
}
