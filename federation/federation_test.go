package federation

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gowebpki/jcs"
	"github.com/mr-tron/base58"
	"pgregory.net/rapid"

	"github.com/tocsin-fed/tocsin/hashlist"
)

const actor = "https://hashes.example/users/alice"

// The key pair of the W3C's test vectors for eddsa-jcs-2022.
const (
	w3cPublic  = "z6MkrJVnaZkeFzdQyMZu1cgjg7k1pZZ6pvBQ7XJPt4swbTQ2"
	w3cPrivate = "z3u2en7t5LR2WtQH5PfFqMqwVHBeXouLzo6haApm8XHqvjxq"
)

func w3cKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	b, err := base58.Decode(w3cPrivate[1:])
	if err != nil || len(b) != 34 || b[0] != 0x80 || b[1] != 0x26 {
		t.Fatal(b, err)
	}
	return ed25519.NewKeyFromSeed(b[2:])
}

func alice(t testing.TB) *Issuer {
	t.Helper()
	i, err := NewIssuer(actor, w3cKey(t))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func keyOf(i *Issuer) func(string, string) (ed25519.PublicKey, error) {
	return func(issuer, method string) (ed25519.PublicKey, error) {
		if issuer != i.Actor() || method != i.Actor()+"#"+Multikey(i.PublicKey()) {
			return nil, fmt.Errorf("asked for %s of %s", method, issuer)
		}
		return i.PublicKey(), nil
	}
}

func hash(t testing.TB, text string) hashlist.Hash {
	t.Helper()
	h, err := hashlist.ParseHash(text)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func anyHash(t *rapid.T) hashlist.Hash {
	a := rapid.SampledFrom(hashlist.Algorithms[:]).Draw(t, "algorithm")
	sum := rapid.SliceOfN(rapid.Byte(), a.Size(), a.Size()).Draw(t, "sum")
	sum[0] |= 1
	h, err := hashlist.NewHash(a, sum)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func anyStatement(t *rapid.T) hashlist.Statement {
	s := hashlist.Statement{
		List:   "https://hashes.example/lists/csam",
		Kind:   hashlist.Kind(rapid.IntRange(int(hashlist.AddHashes), int(hashlist.Vouch)).Draw(t, "kind")),
		Reason: rapid.SampledFrom([]string{"", "reported", "<script>&\"\\\u2028 \U0001f514\n\té"}).Draw(t, "reason"),
	}
	names := func() []string {
		l := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z0-9]{1,8}`), 0, 4, rapid.ID).Draw(t, "labels")
		slices.Sort(l)
		if len(l) == 0 {
			return nil
		}
		return l
	}
	hashes := func(least int) []hashlist.Hash {
		h := rapid.SliceOfNDistinct(rapid.Custom(anyHash), least, 20, rapid.ID).Draw(t, "hashes")
		if len(h) == 0 {
			return nil
		}
		return h
	}
	domain := rapid.StringMatching(`([a-z0-9]|xn--[a-z0-9]{1,9})(-?[a-z0-9]){0,20}\.(example|ex-ample\.org)`)
	address := rapid.Map(rapid.SliceOfN(rapid.StringMatching(`[!$&'()*+,\-./0-9:;=?@A-Z_a-z~#\[\]]|%[0-9A-Fa-f]{2}`), 0, 40), func(path []string) string {
		return "https://bad.example:8443/" + strings.Join(path, "")
	})
	subjects := func(one *rapid.Generator[string]) []string {
		return rapid.SliceOfNDistinct(one, 1, 20, rapid.ID).Draw(t, "subjects")
	}
	terms := func() {
		s.Labels = names()
		s.Action = hashlist.Action(rapid.IntRange(0, 4).Draw(t, "action"))
	}
	switch s.Kind {
	case hashlist.AddHashes:
		s.Hashes = hashes(1)
		terms()
	case hashlist.AddAccounts, hashlist.AddContent:
		s.Subjects = subjects(address)
		terms()
	case hashlist.AddInstances:
		s.Subjects = subjects(domain)
		terms()
	case hashlist.Confirmation, hashlist.Dispute:
		s.About = "https://other.example/statements/x"
	case hashlist.Vouch:
		s.Labels = names()
		s.Vouch = &hashlist.Vouching{
			Object: "https://other.example/users/bob", Amount: rapid.Uint8Range(1, hashlist.MostBelief).Draw(t, "amount"),
			Depth: rapid.Uint8Range(0, hashlist.MaxDepth).Draw(t, "depth"),
		}
		if rapid.Bool().Draw(t, "begins") {
			s.Vouch.From = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
		}
	case hashlist.Retraction:
		s.Retracts = "https://hashes.example/statements/x"
		switch rapid.IntRange(0, 3).Draw(t, "what") {
		case 0:
			s.Hashes = hashes(1)
		case 1:
			s.Subjects = subjects(address)
		case 2:
			s.Subjects = subjects(domain)
		}
	case hashlist.DefineList:
		s.Definition = &hashlist.Definition{
			Name: "csam", Summary: s.Reason, Labels: names(), Audience: hashlist.Audience(rapid.IntRange(1, 3).Draw(t, "audience")),
			Action: hashlist.Action(rapid.IntRange(1, 4).Draw(t, "action")),
			Radii:  hashlist.Radii{hashlist.PDQ: rapid.Uint8Range(0, 63).Draw(t, "radius"), hashlist.PHash: 16},
		}
	}
	if s.Kind != hashlist.Retraction && s.Kind != hashlist.DefineList && rapid.Bool().Draw(t, "lapses") {
		s.Expires = time.Now().UTC().Truncate(time.Second).Add(time.Hour)
	}
	return s
}

// TestSealOpen: what is sealed opens as what was said; and bytes that differ
// in any way that matters do not open.
func TestSealOpen(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		i := alice(t)
		said := anyStatement(rt)
		r, err := i.Seal(said)
		if err != nil {
			rt.Fatal(err)
		}
		s, err := Open(r.Signed, keyOf(i))
		if err != nil {
			rt.Fatalf("%s: %v", r.Signed, err)
		}
		if d := cmp.Diff(r.Statement, s, cmp.AllowUnexported(hashlist.Hash{})); d != "" {
			rt.Fatal(d)
		}
		s.ID, s.Issuer, s.Published = "", "", time.Time{}
		if d := cmp.Diff(said, s, cmp.AllowUnexported(hashlist.Hash{})); d != "" {
			rt.Fatal(d)
		}
		var spaced bytes.Buffer
		if err := json.Indent(&spaced, r.Signed, "", "  "); err != nil {
			rt.Fatal(err)
		}
		if _, err := Open(spaced.Bytes(), keyOf(i)); err != nil {
			rt.Fatalf("spaces broke the proof: %v", err)
		}
		at := rapid.IntRange(0, len(r.Signed)-1).Draw(rt, "at")
		bit := rapid.IntRange(0, 7).Draw(rt, "bit")
		altered := bytes.Clone(r.Signed)
		altered[at] ^= 1 << bit
		if _, err := Open(altered, keyOf(i)); err == nil {
			rt.Fatalf("opened with bit %d of byte %d turned: %s", bit, at, altered)
		}
		again, err := i.Seal(said)
		if err != nil || again.Statement.ID == r.Statement.ID {
			rt.Fatalf("said twice, the statement has the same id: %v", err)
		}
	})
}

// edit changes a sealed statement as a forger would: the id is made to fit
// again, and it is signed with key, unless that is nil.
func edit(t *testing.T, signed []byte, key ed25519.PrivateKey, change func(map[string]any)) []byte {
	t.Helper()
	var doc map[string]any
	if err := json.Unmarshal(signed, &doc); err != nil {
		t.Fatal(err)
	}
	proof := doc["proof"].(map[string]any)
	change(doc)
	if key == nil {
		b, _ := json.Marshal(doc)
		return b
	}
	delete(doc, "proof")
	delete(doc, "id")
	b, err := marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	all, err := members(b)
	if err != nil {
		t.Fatal(err)
	}
	created, err := time.Parse(time.RFC3339, proof["created"].(string))
	if err != nil {
		t.Fatal(err)
	}
	id := quote("https://hashes.example" + statementPath(b))
	out, err := sign(insert(all, member{"id", id}), key, proof["verificationMethod"].(string), created)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestOpenRefuses(t *testing.T) {
	i := alice(t)
	seal := func(s hashlist.Statement) []byte {
		s.List = "https://hashes.example/lists/csam"
		r, err := i.Seal(s)
		if err != nil {
			t.Fatal(err)
		}
		return r.Signed
	}
	h := hash(t, "pdq:f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22")
	add := seal(hashlist.Statement{Kind: hashlist.AddHashes, Hashes: []hashlist.Hash{h}, Labels: []string{"csam"}})
	undo := seal(hashlist.Statement{Kind: hashlist.Retraction, Retracts: "https://hashes.example/statements/x", Hashes: []hashlist.Hash{h}})
	list := seal(hashlist.Statement{Kind: hashlist.DefineList, Definition: &hashlist.Definition{
		Name: "csam", Audience: hashlist.Local, Action: hashlist.Reject, Radii: hashlist.DefaultRadii,
	}})
	accounts := seal(hashlist.Statement{Kind: hashlist.AddAccounts, Subjects: []string{"https://bad.example/users/mallory"}})
	servers := seal(hashlist.Statement{Kind: hashlist.AddInstances, Subjects: []string{"bad.example"}})
	content := seal(hashlist.Statement{Kind: hashlist.AddContent, Subjects: []string{"https://bad.example/1.png"}})
	parts := seal(hashlist.Statement{Kind: hashlist.Retraction, Retracts: "https://hashes.example/statements/x", Subjects: []string{"bad.example"}})
	confirm := seal(hashlist.Statement{Kind: hashlist.Confirmation, About: "https://other.example/statements/x"})
	dispute := seal(hashlist.Statement{Kind: hashlist.Dispute, About: "https://other.example/statements/x"})
	key := w3cKey(t)
	_, other, _ := ed25519.GenerateKey(rand.Reader)
	object := func(d map[string]any) map[string]any { return d["object"].(map[string]any) }
	proof := func(d map[string]any) map[string]any { return d["proof"].(map[string]any) }

	// The forger's tool itself makes statements that open.
	for _, s := range [][]byte{add, undo, list, accounts, servers, content, parts, confirm, dispute} {
		if _, err := Open(edit(t, s, key, func(d map[string]any) { d["unknown"] = []any{1.5, nil, "x"} }), keyOf(i)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name, says string
		signed     []byte
	}{
		{"empty", "not a JSON object|not JSON|no canonical", nil},
		{"an array", "not a JSON object", []byte(`[]`)},
		{"a string", "not a JSON object", []byte(`"x"`)},
		{"two documents", "canonical", append(slices.Clone(add), add...)},
		{"too large", "larger than", append([]byte(`{"x":"`+strings.Repeat("x", MaxSigned)), `"}`...)},
		{"too deep", "nested", []byte(`{"x":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`)},
		{"unclosed", "JSON|canonical", []byte(strings.Repeat(`{"a":`, 20))},
		{"a name twice", "canonical", []byte(`{"type":"Add","type":"Undo"}`)},
		{"a name twice, escaped", "canonical", []byte(`{"type":"Add","\u0074ype":"Undo"}`)},
		{"not UTF-8", "canonical|UTF-8", []byte("{\"a\":\"\xff\"}")},
		{"a lone surrogate", "canonical", []byte(`{"a":"\ud800"}`)},
		{"beyond 2^53", "within 2^53", []byte(`{"a":9007199254740993}`)},
		{"beyond a double", "out of range", []byte(`{"a":1e400}`)},
		{"no proof", "no proof", edit(t, add, nil, func(d map[string]any) { delete(d, "proof") })},
		{"proof is null", "object was expected", edit(t, add, nil, func(d map[string]any) { d["proof"] = nil })},
		{"proof is an array", "object was expected", edit(t, add, nil, func(d map[string]any) { d["proof"] = []any{d["proof"]} })},
		{"another suite", "cryptosuite", edit(t, add, nil, func(d map[string]any) { proof(d)["cryptosuite"] = "eddsa-rdfc-2022" })},
		{"another purpose", "proofPurpose", edit(t, add, nil, func(d map[string]any) { proof(d)["proofPurpose"] = "authentication" })},
		{"another time in the proof", "altered", edit(t, add, nil, func(d map[string]any) { proof(d)["created"] = "2020-01-01T00:00:00Z" })},
		{"a signature of nothing", "signature", edit(t, add, nil, func(d map[string]any) { proof(d)["proofValue"] = "z" })},
		{"a member more in the proof", "altered", edit(t, add, nil, func(d map[string]any) { proof(d)["domain"] = "x" })},
		{"signed by somebody else", "altered", edit(t, add, other, func(map[string]any) {})},
		{"a key of somebody else", "not a key of", edit(t, add, key, func(d map[string]any) {
			proof(d)["verificationMethod"] = "https://hashes.example/users/bob#" + w3cPublic
		})},
		{"a key of no actor", "not a key of", edit(t, add, key, func(d map[string]any) { proof(d)["verificationMethod"] = w3cPublic })},
		{"an id that was chosen", "digest of its content", edit(t, add, nil, func(d map[string]any) { d["id"] = "https://hashes.example/statements/1" })},
		{"an id of another origin", "is of", edit(t, add, nil, func(d map[string]any) { d["id"] = "https://other.example/statements/1" })},
		{"altered and not signed again", "digest of its content", edit(t, add, nil, func(d map[string]any) { d["summary"] = "x" })},
		{"for another's list", "is of", edit(t, add, key, func(d map[string]any) { d["target"] = "https://other.example/lists/csam" })},
		{"for no list", "list", edit(t, add, key, func(d map[string]any) { delete(d, "target") })},
		{"names in capitals", "nonce", edit(t, add, key, func(d map[string]any) { d["Nonce"] = d["nonce"]; delete(d, "nonce") })},
		{"a nonce over two lines", "nonce", edit(t, add, key, func(d map[string]any) { n := d["nonce"].(string); d["nonce"] = n[:8] + "\n" + n[8:] })},
		{"an Undo with an end", "nothing but hashes", edit(t, undo, key, func(d map[string]any) { d["endTime"] = "2099-01-01T00:00:00Z" })},
		{"another context in the proof", "another @context", edit(t, add, nil, func(d map[string]any) { proof(d)["@context"] = "https://www.w3.org/ns/activitystreams" })},
		{"no nonce", "nonce", edit(t, add, key, func(d map[string]any) { delete(d, "nonce") })},
		{"fractions of a second", "published", edit(t, add, key, func(d map[string]any) { d["published"] = "2026-11-22T12:00:00.5Z" })},
		{"another time zone", "published", edit(t, add, key, func(d map[string]any) { d["published"] = "2026-11-22T12:00:00+01:00" })},
		{"published at another time than signed", "was not made when", edit(t, add, key, func(d map[string]any) { d["published"] = "2020-01-01T00:00:00Z" })},
		{"lapsed before it began", "before it was published", edit(t, add, key, func(d map[string]any) { d["endTime"] = "2020-01-01T00:00:00Z" })},
		{"two types", "not a string", edit(t, add, key, func(d map[string]any) { d["type"] = []any{"Add", "Undo"} })},
		{"actor is an object", "not a string", edit(t, add, key, func(d map[string]any) { d["actor"] = map[string]any{"id": actor} })},
		{"no hashes", "no hashes", edit(t, add, key, func(d map[string]any) { object(d)["hashes"] = []any{} })},
		{"hashes in capitals", "lower case", edit(t, add, key, func(d map[string]any) {
			object(d)["hashes"] = strings.ToUpper(h.Hex()[:0]) + "pdq:" + strings.ToUpper(h.Hex())
		})},
		{"a hash twice", "twice", edit(t, add, key, func(d map[string]any) { object(d)["hashes"] = []any{h.String(), h.String()} })},
		{"a number for a hash", "array of strings", edit(t, add, key, func(d map[string]any) { object(d)["hashes"] = []any{1} })},
		{"null for a hash", "array of strings", edit(t, add, key, func(d map[string]any) { object(d)["hashes"] = []any{nil} })},
		{"too many hashes", "at most", edit(t, add, key, func(d map[string]any) {
			var many []any
			for n := range hashlist.MaxHashes + 1 {
				many = append(many, fmt.Sprintf("md5:%032x", n))
			}
			object(d)["hashes"] = many
		})},
		{"labels out of order", "out of order", edit(t, add, key, func(d map[string]any) {
			object(d)["tag"] = []any{map[string]any{"type": "Label", "name": "b"}, map[string]any{"type": "Label", "name": "a"}}
		})},
		{"an unknown action", "unknown action", edit(t, add, key, func(d map[string]any) { object(d)["recommendedAction"] = "ban" })},
		{"an Undo of another's statement", "cannot be retracted", edit(t, undo, key, func(d map[string]any) { object(d)["id"] = "https://other.example/statements/x" })},
		{"an Undo of no hashes", "names none", edit(t, undo, key, func(d map[string]any) { delete(object(d), "hashes") })},
		{"an Undo that lapses", "", edit(t, undo, key, func(d map[string]any) { d["object"] = 1 })},
		{"another's list", "is of", edit(t, list, key, func(d map[string]any) { object(d)["id"] = "https://other.example/lists/csam" })},
		{"a list for nobody", "unknown audience", edit(t, list, key, func(d map[string]any) { delete(object(d), "readers") })},
		{"a radius too large", "radius", edit(t, list, key, func(d map[string]any) { object(d)["radius"] = map[string]any{"pdq": 64} })},
		{"a negative radius", "radius", edit(t, list, key, func(d map[string]any) { object(d)["radius"] = map[string]any{"pdq": -1} })},
		{"a radius for a digest", "radius", edit(t, list, key, func(d map[string]any) { object(d)["radius"] = map[string]any{"md5": 1} })},
		{"no type", "no type", edit(t, add, key, func(d map[string]any) { delete(d, "type") })},
		{"nothing added", "an object was expected", edit(t, add, key, func(d map[string]any) { delete(d, "object") })},
		{"an address added", "an object was expected", edit(t, add, key, func(d map[string]any) { d["object"] = "https://other.example/x" })},
		{"types that are no strings", "array of strings", edit(t, add, key, func(d map[string]any) { object(d)["type"] = []any{1} })},
		{"no list", "list:", edit(t, add, key, func(d map[string]any) { delete(d, "target") })},
		{"hashes and accounts at once", "it is both", edit(t, add, key, func(d map[string]any) { object(d)["type"] = []any{"MediaHashes", "Accounts"} })},
		{"accounts under another name", "about nothing", edit(t, accounts, key, func(d map[string]any) {
			object(d)["url"] = object(d)["items"]
			delete(object(d), "items")
		})},
		{"no accounts", "about nothing", edit(t, accounts, key, func(d map[string]any) { object(d)["items"] = []any{} })},
		{"an account that is an object", "array of strings", edit(t, accounts, key, func(d map[string]any) { object(d)["items"] = []any{map[string]any{"id": actor}} })},
		{"a handle for an account", "not an https address", edit(t, accounts, key, func(d map[string]any) { object(d)["items"] = "@mallory@bad.example" })},
		{"an account twice", "twice", edit(t, accounts, key, func(d map[string]any) { object(d)["items"] = []any{actor, actor} })},
		{"too many accounts", "at most 1000", edit(t, accounts, key, func(d map[string]any) {
			var many []any
			for n := range hashlist.MaxSubjects + 1 {
				many = append(many, fmt.Sprintf("https://bad.example/%d", n))
			}
			object(d)["items"] = many
		})},
		{"a domain in capitals", "lower case", edit(t, servers, key, func(d map[string]any) { object(d)["domains"] = "Bad.example" })},
		{"a domain with a port", "without port", edit(t, servers, key, func(d map[string]any) { object(d)["domains"] = []any{"bad.example:443"} })},
		{"an address for a domain", "domain", edit(t, servers, key, func(d map[string]any) { object(d)["domains"] = "https://bad.example" })},
		{"a top-level domain", "not the domain of a server", edit(t, servers, key, func(d map[string]any) { object(d)["domains"] = "example" })},
		{"a script for content", "not an https address", edit(t, content, key, func(d map[string]any) { object(d)["url"] = "javascript:alert(1)" })},
		{"content with a password", "not an https address", edit(t, content, key, func(d map[string]any) { object(d)["url"] = "https://a:b@bad.example/" })},
		{"a long address of content", "longer than", edit(t, content, key, func(d map[string]any) { object(d)["url"] = "https://bad.example/" + strings.Repeat("x", 2048) })},
		{"an unknown action for accounts", "unknown action", edit(t, accounts, key, func(d map[string]any) { object(d)["recommendedAction"] = "suspend" })},
		{"accounts that lapsed", "before it was published", edit(t, accounts, key, func(d map[string]any) { d["endTime"] = "2020-01-01T00:00:00Z" })},
		{"an Undo of hashes and domains", "both hashes and subjects", edit(t, parts, key, func(d map[string]any) { object(d)["hashes"] = h.String() })},
		{"an Undo of a domain that is none", "not a domain", edit(t, parts, key, func(d map[string]any) { object(d)["subjects"] = "bad example" })},
		{"a confirmation of an object", "not a string", edit(t, confirm, key, func(d map[string]any) { d["object"] = map[string]any{"id": actor} })},
		{"a confirmation of nothing", "about", edit(t, confirm, key, func(d map[string]any) { delete(d, "object") })},
		{"a confirmation of many", "not a string", edit(t, confirm, key, func(d map[string]any) { d["object"] = []any{actor} })},
		{"a dispute of no address", "about", edit(t, dispute, key, func(d map[string]any) { d["object"] = "that" })},
		{"a dispute with a query", "plain https", edit(t, dispute, key, func(d map[string]any) { d["object"] = actor + "?x" })},
		{"an Update with a target", "target", edit(t, list, key, func(d map[string]any) { d["target"] = "https://hashes.example/lists/csam" })},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := Open(c.signed, keyOf(i))
			if err == nil {
				t.Fatalf("opened: %+v", s)
			}
			if !slices.ContainsFunc(strings.Split(c.says, "|"), func(w string) bool { return strings.Contains(err.Error(), w) }) {
				t.Errorf("got %v, want an error that says %q", err, c.says)
			}
		})
	}
	unknown := errors.New("unknown issuer")
	if _, err := Open(add, func(string, string) (ed25519.PublicKey, error) { return nil, unknown }); !errors.Is(err, unknown) {
		t.Errorf("got %v", err)
	}
	if _, err := Open(add, func(string, string) (ed25519.PublicKey, error) { return nil, nil }); err == nil {
		t.Error("opened without a key")
	}
}

func TestNewIssuer(t *testing.T) {
	for _, a := range []string{"", "alice", "https://hashes.example/users/alice?x", "https://a:b@hashes.example/users/alice"} {
		if _, err := NewIssuer(a, w3cKey(t)); err == nil {
			t.Errorf("%q is an issuer", a)
		}
	}
	if _, err := NewIssuer(actor, nil); err == nil {
		t.Error("an issuer without a key")
	}
	if got := Multikey(alice(t).PublicKey()); got != w3cPublic {
		t.Errorf("got %s, want %s", got, w3cPublic)
	}
	for _, text := range []string{"", "z", "Z" + w3cPublic[1:], w3cPublic[1:], w3cPublic + "1", w3cPrivate, "z" + strings.Repeat("1", 64), "z0OIl"} {
		if k, err := ParseMultikey(text); err == nil {
			t.Errorf("%q was read as %x", text, k)
		}
	}
}

// vectors opens a published test vector. Users do not have them; with CI=true they must be there.
func vectors(t *testing.T, name string) []byte {
	t.Helper()
	dir := os.Getenv("TOCSIN_TESTDATA")
	if dir == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("TOCSIN_TESTDATA is not set, but CI is")
		}
		return nil
	}
	b, err := os.ReadFile(filepath.Join(dir, "signatures", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// w3cSigned is the signed document of the W3C's test vector, from
// w3c/vc-di-eddsa, TestVectors/signedJCS.json, in its canonical form; w3cInput is what its proof signs.
const (
	w3cSigned = `{"@context":["https://www.w3.org/ns/credentials/v2","https://www.w3.org/ns/credentials/examples/v2"],"credentialSubject":{"alumniOf":"The School of Examples","id":"did:example:abcdefgh"},"description":"A minimum viable example of an Alumni Credential.","id":"urn:uuid:58172aac-d8ba-11ed-83dd-0b3aef56cc33","issuer":"https://vc.example/issuers/5678","name":"Alumni Credential","proof":{"@context":["https://www.w3.org/ns/credentials/v2","https://www.w3.org/ns/credentials/examples/v2"],"created":"2023-02-24T23:36:38Z","cryptosuite":"eddsa-jcs-2022","proofPurpose":"assertionMethod","proofValue":"z2HnFSSPPBzR36zdDgK8PbEHeXbR56YF24jwMpt3R1eHXQzJDMWS93FCzpvJpwTWd3GAVFuUfjoJdcnTMuVor51aX","type":"DataIntegrityProof","verificationMethod":"did:key:z6MkrJVnaZkeFzdQyMZu1cgjg7k1pZZ6pvBQ7XJPt4swbTQ2#z6MkrJVnaZkeFzdQyMZu1cgjg7k1pZZ6pvBQ7XJPt4swbTQ2"},"type":["VerifiableCredential","AlumniCredential"],"validFrom":"2023-01-01T00:00:00Z"}`
	w3cInput  = "66ab154f5c2890a140cb8388a22a160454f80575f6eae09e5a097cabe539a1db59b7cb6251b8991add1ce0bc83107e3db9dbbab5bd2c28f687db1a03abc92f19"
)

func TestProofVectors(t *testing.T) {
	public := w3cKey(t).Public().(ed25519.PublicKey)
	any := func(string) (ed25519.PublicKey, error) { return public, nil }
	check := func(name string, signed []byte) []member {
		t.Helper()
		doc, err := canonical(signed)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all, err := members(doc)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, _, err := verify(all, any); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		// And signing gives the same bytes, down to the signature.
		i := slices.IndexFunc(all, func(m member) bool { return m.name == "proof" })
		p := newObject(all[i].value)
		created, _ := parseTime(p.text("created"))
		bare := slices.Delete(slices.Clone(all), i, i+1)
		if again, err := sign(bare, w3cKey(t), p.text("verificationMethod"), created); err != nil || !bytes.Equal(again, doc) {
			t.Errorf("%s: signed again:\n%s\nwant:\n%s\n%v", name, again, doc, err)
		}
		return bare
	}
	bare := check("W3C", []byte(w3cSigned))
	options := `{"@context":["https://www.w3.org/ns/credentials/v2","https://www.w3.org/ns/credentials/examples/v2"],"created":"2023-02-24T23:36:38Z","cryptosuite":"eddsa-jcs-2022","proofPurpose":"assertionMethod","type":"DataIntegrityProof","verificationMethod":"did:key:z6MkrJVnaZkeFzdQyMZu1cgjg7k1pZZ6pvBQ7XJPt4swbTQ2#z6MkrJVnaZkeFzdQyMZu1cgjg7k1pZZ6pvBQ7XJPt4swbTQ2"}`
	if got := hex.EncodeToString(signingInput([]byte(options), join(bare))); got != w3cInput {
		t.Errorf("signing input %s, want %s", got, w3cInput)
	}
	if b := vectors(t, "w3c-eddsa-jcs-2022/signedJCS.json"); b != nil {
		check("W3C file", b)
	}
	if b := vectors(t, "fep/fep-8b32.feature"); b != nil {
		// The first document of the feature that has a proof.
		for n, part := range strings.Split(string(b), `"""`) {
			if strings.Contains(part, "proofValue") {
				check(fmt.Sprintf("FEP-8b32 part %d", n), []byte(part))
				break
			}
		}
	}
}

func TestCanonicalVectors(t *testing.T) {
	for _, name := range []string{"arrays", "french", "structures", "unicode", "values", "weird"} {
		in := vectors(t, "jcs/input/"+name+".json")
		if in == nil {
			return
		}
		want := vectors(t, "jcs/output/"+name+".json")
		if got, err := jcs.Transform(in); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	i := alice(f)
	h := hash(f, "md5:d41d8cd98f00b204e9800998ecf8427e")
	for _, s := range []hashlist.Statement{
		{Kind: hashlist.AddHashes, Hashes: []hashlist.Hash{h}, Labels: []string{"csam"}, Reason: "x"},
		{Kind: hashlist.Retraction, Retracts: "https://hashes.example/statements/x"},
		{Kind: hashlist.Retraction, Retracts: "https://hashes.example/statements/x", Subjects: []string{"bad.example"}},
		{Kind: hashlist.AddAccounts, Subjects: []string{"https://bad.example/users/mallory", "https://bad.example/?author=1"}, Action: hashlist.Filter},
		{Kind: hashlist.AddInstances, Subjects: []string{"bad.example", "xn--bcher-kva.example"}, Labels: []string{"spam"}},
		{Kind: hashlist.AddContent, Subjects: []string{"https://bad.example/media/1.png?size=full%20"}},
		{Kind: hashlist.Confirmation, About: "https://other.example/statements/x"},
		{Kind: hashlist.Dispute, About: "https://other.example/statements/x", Reason: "it is a painting"},
		{Kind: hashlist.Vouch, Labels: []string{"csam"}, Vouch: &hashlist.Vouching{Object: "https://other.example/users/bob", Amount: 120, Depth: 1, From: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}},
		{Kind: hashlist.DefineList, Definition: &hashlist.Definition{Name: "csam", Audience: hashlist.Local, Action: hashlist.Reject, Radii: hashlist.DefaultRadii}},
	} {
		s.List = "https://hashes.example/lists/csam"
		r, err := i.Seal(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(r.Signed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Open(data, keyOf(i))
		if err != nil {
			return
		}
		if err := s.Validate(); err != nil {
			t.Errorf("opened, but not valid: %v", err)
		}
	})
}

// FuzzParse goes behind the proof, where a hostile issuer's bytes get to.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"type":"Add","actor":"https://a.example/u","target":"https://a.example/l","object":{"type":["Document","MediaHashes"],"hashes":"md5:d41d8cd98f00b204e9800998ecf8427e","tag":{"type":"Label","name":"x"}}}`))
	f.Add([]byte(`{"type":"Undo","object":{"id":"x","hashes":[]}}`))
	f.Add([]byte(`{"type":"Undo","object":{"id":"x","type":"Add","subjects":["bad.example"]}}`))
	f.Add([]byte(`{"type":"Add","object":{"type":["Collection","Accounts"],"items":["https://b.example/?author=1"]}}`))
	f.Add([]byte(`{"type":"Add","object":{"type":["Collection","Instances"],"domains":"bad.example"}}`))
	f.Add([]byte(`{"type":"Add","object":{"type":["Document","ContentNotice"],"url":["https://b.example/1.png?x=%20"]}}`))
	f.Add([]byte(`{"type":"Announce","object":"https://b.example/statements/x","endTime":"2026-11-22T12:00:00Z"}`))
	f.Add([]byte(`{"type":"Flag","object":"https://b.example/statements/x","summary":"no"}`))
	f.Add([]byte(`{"type":"Add","actor":"https://a.example/u","object":{"type":["Relationship","Vouch"],"subject":"https://a.example/u","object":"https://b.example/u","relationship":"https://tocsin-fed.github.io/ns#vouchesFor","amount":40,"depth":0,"tag":[]}}`))
	f.Add([]byte(`{"type":"Offer","object":{}}`))
	f.Add([]byte(`{"type":"Update","object":{"type":"HashList","radius":{"pdq":31}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		doc, err := canonical(data)
		if err != nil {
			return
		}
		all, err := members(doc)
		if err != nil {
			t.Fatalf("canonical, but has no members: %v: %s", err, doc)
		}
		if got := join(all); !bytes.Equal(got, doc) {
			t.Fatalf("members of\n%s\nare\n%s", doc, got)
		}
		s, unknown, err := parse(doc)
		switch {
		case err != nil:
		case unknown != nil:
			_ = checkFrame(&s)
		case s.Kind == 0:
			t.Errorf("parsed as no kind: %s", doc)
		default:
			_ = s.Validate()
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	i := alice(b)
	s := hashlist.Statement{Kind: hashlist.AddHashes, List: "https://hashes.example/lists/csam"}
	for n := range hashlist.MaxHashes {
		s.Hashes = append(s.Hashes, hash(b, fmt.Sprintf("pdq:%064x", n+1)))
	}
	r, err := i.Seal(s)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("seal 1000", func(b *testing.B) {
		for b.Loop() {
			if _, err := i.Seal(s); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("open 1000", func(b *testing.B) {
		for b.Loop() {
			if _, err := Open(r.Signed, keyOf(i)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
