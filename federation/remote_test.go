package federation

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"maps"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// requestKey is an RSA key for tests. Making one takes a while.
var requestKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

func spki(t testing.TB, public any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// someActor is an actor document with all that is read, for tests to change.
func someActor(t testing.TB) map[string]any {
	const id = "https://hashes.example/lists/csam"
	return map[string]any{
		"@context": activityStreams, "id": id, "type": "Service", "name": "CSAM", "summary": "known material", "preferredUsername": "csam",
		"inbox": id + "/inbox", "outbox": id + "/outbox", "followers": id + "/followers", "log": id + "/log", "head": id + "/head",
		"endpoints": map[string]any{"sharedInbox": "https://hashes.example/inbox"}, "manuallyApprovesFollowers": true,
		"attributedTo": []any{"https://hashes.example/users/alice"},
		"publicKey":    map[string]any{"id": id + "#main-key", "owner": id, "publicKeyPem": spki(t, requestKey().Public())},
		"assertionMethod": []any{map[string]any{
			"id": id + "#" + w3cPublic, "type": "Multikey", "controller": id, "publicKeyMultibase": w3cPublic,
			"expires": "2027-01-01T00:00:00Z", "revoked": "2026-12-01T01:00:00.1234567+01:00",
		}},
	}
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestReadActor(t *testing.T) {
	raw := encode(t, someActor(t))
	a, err := readActor(raw)
	if err != nil {
		t.Fatal(err)
	}
	const id = "https://hashes.example/lists/csam"
	for _, c := range [][2]string{
		{a.ID, id}, {a.Type, "Service"}, {a.Name, "CSAM"}, {a.Summary, "known material"}, {a.PreferredUsername, "csam"}, {a.Inbox, id + "/inbox"},
		{a.SharedInbox, "https://hashes.example/inbox"}, {a.Outbox, id + "/outbox"}, {a.Followers, id + "/followers"}, {a.Log, id + "/log"},
		{a.Head, id + "/head"}, {strings.Join(a.Writers, " "), "https://hashes.example/users/alice"}, {string(a.Raw), string(raw)},
	} {
		if c[0] != c[1] {
			t.Errorf("got %q, want %q", c[0], c[1])
		}
	}
	if !a.ManuallyApproves {
		t.Error("it approves followers by itself")
	}
	if len(a.PublicKeys) != 1 || a.PublicKeys[0].Owner != id || !requestKey().PublicKey.Equal(a.publicKey(id+"#main-key")) || a.publicKey(id) != nil {
		t.Errorf("keys %+v", a.PublicKeys)
	}
	if len(a.Methods) != 1 {
		t.Fatalf("methods %+v", a.Methods)
	}
	m := a.Methods[0]
	if m.ID != id+"#"+w3cPublic || m.Controller != id || Multikey(m.Public) != w3cPublic ||
		m.Expires != time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC) || m.Revoked != time.Date(2026, 12, 1, 0, 0, 0, 123456000, time.UTC) {
		t.Errorf("%+v", m)
	}
}

// TestReadActorShapes: what today's servers write in other ways.
func TestReadActorShapes(t *testing.T) {
	const id = "https://hashes.example/lists/csam"
	key := requestKey().Public().(*rsa.PublicKey)
	for name, change := range map[string]func(map[string]any){
		"as it is": func(map[string]any) {},
		"nulls": func(d map[string]any) {
			for _, n := range []string{"summary", "name", "log", "icon", "alsoKnownAs"} {
				d[n] = nil
			}
			d["endpoints"].(map[string]any)["oauthTokenEndpoint"] = nil
			d["publicKey"].(map[string]any)["type"] = nil
		},
		"arrays of one": func(d map[string]any) {
			d["type"], d["publicKey"], d["outbox"] = []any{"Service"}, []any{d["publicKey"]}, []any{d["outbox"]}
		},
		"a type of its own": func(d map[string]any) { d["type"] = []any{"HashList", "Service", "Person"} },
		"embedded collections": func(d map[string]any) {
			d["outbox"] = map[string]any{"id": id + "/outbox", "type": "OrderedCollection", "totalItems": 3}
			d["attributedTo"] = []any{map[string]any{"type": "Person", "id": "https://hashes.example/users/alice"}}
		},
		"natural languages": func(d map[string]any) {
			d["name"], d["nameMap"] = map[string]any{"en": "x"}, map[string]any{"en": "x"}
		},
		"PKCS #1": func(d map[string]any) {
			d["publicKey"].(map[string]any)["publicKeyPem"] = string(pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(key)}))
		},
		"a key that is only named": func(d map[string]any) { d["publicKey"] = []any{d["publicKey"], id + "#other"} },
		"keys of other kinds": func(d map[string]any) {
			ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			d["publicKey"] = []any{
				d["publicKey"], map[string]any{"id": id + "#ec", "owner": id, "publicKeyPem": spki(t, ec.Public())},
				map[string]any{"id": id + "#none", "owner": id},
				map[string]any{"id": id + "#broken", "owner": id, "publicKeyPem": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"},
				map[string]any{"id": id + "#twice", "owner": id, "publicKeyPem": spki(t, key) + spki(t, key)},
			}
			d["assertionMethod"] = append(d["assertionMethod"].([]any), id+"#named",
				map[string]any{"id": id + "#x", "type": "JsonWebKey", "controller": "did:example:x"},
				map[string]any{"id": id + "#y", "type": "Multikey", "controller": id, "publicKeyMultibase": "zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme"},
				map[string]any{"id": id + "#z", "type": []any{}, "publicKeyMultibase": 3})
		},
		"one method": func(d map[string]any) { d["assertionMethod"] = d["assertionMethod"].([]any)[0] },
		"Mastodon": func(d map[string]any) {
			maps.Copy(d, map[string]any{
				"@context":  []any{activityStreams, "https://w3id.org/security/v1", map[string]any{"toot": "http://joinmastodon.org/ns#", "Device": "toot:Device"}},
				"following": id + "/following", "featured": id + "/collections/featured", "url": "https://hashes.example/@csam", "discoverable": true,
				"indexable": false, "published": "2026-01-01T00:00:00Z", "memorial": false, "tag": []any{}, "devices": id + "/collections/devices",
				"attachment": []any{map[string]any{"type": "PropertyValue", "name": "x", "value": "<a href=\"https://x.example\">x</a>"}},
				"icon":       map[string]any{"type": "Image", "mediaType": "image/png", "url": "https://files.example/x.png"}, "attributionDomains": []any{"x.example"},
			})
		},
		"Lemmy": func(d map[string]any) {
			maps.Copy(d, map[string]any{
				"type": "Service", "source": map[string]any{"content": "x", "mediaType": "text/markdown"}, "sensitive": false, "postingRestrictedToMods": false,
				"language": []any{map[string]any{"identifier": "en", "name": "English"}}, "attributedTo": "https://hashes.example/users/alice",
				"featured": id + "/featured", "image": map[string]any{"type": "Image", "url": "https://cdn.example/x.png"},
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := someActor(t)
			change(d)
			a, err := readActor(encode(t, d))
			if err != nil {
				t.Fatal(err)
			}
			if a.Type != "Service" || a.Outbox != id+"/outbox" || !slices.Equal(a.Writers, []string{"https://hashes.example/users/alice"}) {
				t.Errorf("%+v", a)
			}
			if len(a.PublicKeys) != 1 || !key.Equal(a.publicKey(id+"#main-key")) || len(a.Methods) != 1 || Multikey(a.Methods[0].Public) != w3cPublic {
				t.Errorf("keys %+v, %+v", a.PublicKeys, a.Methods)
			}
		})
	}
}

func TestReadActorRefuses(t *testing.T) {
	const id = "https://hashes.example/lists/csam"
	key := func(d map[string]any) map[string]any { return d["publicKey"].(map[string]any) }
	method := func(d map[string]any) map[string]any { return d["assertionMethod"].([]any)[0].(map[string]any) }
	for _, c := range []struct {
		name, says string
		change     func(map[string]any)
	}{
		{"no id", "id", func(d map[string]any) { delete(d, "id") }},
		{"an id that is a number", "id is not a string", func(d map[string]any) { d["id"] = 1 }},
		{"an id with a fragment", "part of a document", func(d map[string]any) { d["id"] = id + "#x" }},
		{"an id with a query", "plain https", func(d map[string]any) { d["id"] = id + "?x" }},
		{"an id that is a name", "plain https", func(d map[string]any) { d["id"] = "acct:csam@hashes.example" }},
		{"no type", "type", func(d map[string]any) { delete(d, "type") }},
		{"a note", "type", func(d map[string]any) { d["type"] = "Note" }},
		{"a type in lower case", "type", func(d map[string]any) { d["type"] = "service" }},
		{"no inbox", "no inbox", func(d map[string]any) { delete(d, "inbox") }},
		{"Inbox", "no inbox", func(d map[string]any) { d["Inbox"] = d["inbox"]; delete(d, "inbox") }},
		{"an inbox elsewhere", "another server", func(d map[string]any) { d["inbox"] = "https://other.example/inbox" }},
		{"an inbox at another port", "another server", func(d map[string]any) { d["inbox"] = "https://hashes.example:8443/inbox" }},
		{"an inbox by http", "another server", func(d map[string]any) { d["inbox"] = "http://hashes.example/inbox" }},
		{"an inbox without server", "plain https", func(d map[string]any) { d["inbox"] = "/inbox" }},
		{"a shared inbox elsewhere", "another server", func(d map[string]any) { d["endpoints"] = map[string]any{"sharedInbox": "https://other.example/inbox"} }},
		{"endpoints that are an address", "endpoints", func(d map[string]any) { d["endpoints"] = id }},
		{"an outbox elsewhere", "another server", func(d map[string]any) { d["outbox"] = "https://other.example/" }},
		{"an embedded outbox elsewhere", "another server", func(d map[string]any) { d["outbox"] = map[string]any{"id": "https://other.example/"} }},
		{"two outboxes", "at most 1", func(d map[string]any) { d["outbox"] = []any{id + "/a", id + "/b"} }},
		{"followers elsewhere", "another server", func(d map[string]any) { d["followers"] = "https://other.example/" }},
		{"a log elsewhere", "another server", func(d map[string]any) { d["log"] = "https://other.example/" }},
		{"a head elsewhere", "another server", func(d map[string]any) { d["head"] = "https://other.example/" }},
		{"a writer elsewhere", "another server", func(d map[string]any) { d["attributedTo"] = "https://other.example/users/mallory" }},
		{"a number for a writer", "no address", func(d map[string]any) { d["attributedTo"] = 3 }},
		{"too many writers", "at most 64", func(d map[string]any) { d["attributedTo"] = slices.Repeat([]any{id}, 65) }},
		{"a key elsewhere", "another server", func(d map[string]any) { key(d)["id"] = "https://other.example/users/bob#main-key" }},
		{"a key without id", "no id", func(d map[string]any) { delete(key(d), "id") }},
		{"a key of another", "is owned by", func(d map[string]any) { key(d)["owner"] = "https://hashes.example/users/alice" }},
		{"a key of another server's", "is owned by", func(d map[string]any) { key(d)["owner"] = "https://other.example/users/bob" }},
		{"a key of nobody", "is owned by", func(d map[string]any) { delete(key(d), "owner") }},
		{"a key twice", "twice", func(d map[string]any) { d["publicKey"] = []any{key(d), key(d)} }},
		{"too many keys", "at most 8", func(d map[string]any) { d["publicKey"] = slices.Repeat([]any{key(d)}, 9) }},
		{"PEM that is a number", "not a string", func(d map[string]any) { key(d)["publicKeyPem"] = 1 }},
		{"a method elsewhere", "another server", func(d map[string]any) { method(d)["id"] = "https://other.example/#x" }},
		{"a method without id", "no id", func(d map[string]any) { delete(method(d), "id") }},
		{"a method of another", "controlled by", func(d map[string]any) { method(d)["controller"] = "https://hashes.example/users/alice" }},
		{"a method of nobody", "controlled by", func(d map[string]any) { delete(method(d), "controller") }},
		{"a method twice", "twice", func(d map[string]any) { d["assertionMethod"] = []any{method(d), method(d)} }},
		{"too many methods", "at most 32", func(d map[string]any) { d["assertionMethod"] = slices.Repeat([]any{method(d)}, 33) }},
		{"revoked some time", "revoked", func(d map[string]any) { method(d)["revoked"] = "yesterday" }},
		{"revoked without zone", "revoked", func(d map[string]any) { method(d)["revoked"] = "2026-01-01T00:00:00" }},
		{"revoked as a number", "revoked", func(d map[string]any) { method(d)["revoked"] = 1 }},
		{"revoked at no time", "revoked", func(d map[string]any) { method(d)["revoked"] = "" }},
		{"expired in the year 1", "expires", func(d map[string]any) { method(d)["expires"] = "0001-01-01T00:00:00Z" }},
		{"approves perhaps", "neither true nor false", func(d map[string]any) { d["manuallyApprovesFollowers"] = "true" }},
		{"too large", "larger than", func(d map[string]any) { d["x"] = strings.Repeat("x", maxActor) }},
		{"too deep", "nested", func(d map[string]any) { d["x"] = json.RawMessage(strings.Repeat("[", 40) + strings.Repeat("]", 40)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := someActor(t)
			c.change(d)
			if a, err := readActor(encode(t, d)); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %+v, %v, want an error that says %q", a, err, c.says)
			}
		})
	}
	twice := strings.Replace(string(encode(t, someActor(t))), `{`, `{"\u0069nbox":"https://other.example/inbox",`, 1)
	for _, raw := range []string{"", "null", "[]", `"x"`, twice} {
		if a, err := readActor([]byte(raw)); err == nil {
			t.Errorf("%.80s was read as %+v", raw, a)
		}
	}
}

// odd is an odd number of so many bits.
func odd(t *testing.T, bits int) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), uint(bits-1)))
	if err != nil {
		t.Fatal(err)
	}
	return n.SetBit(n.SetBit(n, bits-1, 1), 0, 1)
}

func TestParseRSA(t *testing.T) {
	for _, bits := range []int{1024, 2048, 8192 + 64} {
		// What is measured is the modulus; that it has no known factors does not matter here.
		k := &rsa.PublicKey{E: 65537, N: odd(t, bits)}
		if _, err := parseRSA(spki(t, k)); (err == nil) != (bits == 2048) {
			t.Errorf("%d bits: %v", bits, err)
		}
	}
	for e, ok := range map[int]bool{1: false, 2: false, 3: true, 65536: false} {
		if _, err := parseRSA(spki(t, &rsa.PublicKey{E: e, N: odd(t, 2048)})); (err == nil) != ok {
			t.Errorf("exponent %d: %v", e, err)
		}
	}
	even := odd(t, 2048)
	even.SetBit(even, 0, 0)
	private := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(requestKey())}))
	for _, text := range []string{"", "x", spki(t, &rsa.PublicKey{E: 3, N: even}), private, spki(t, requestKey().Public()) + "x"} {
		if _, err := parseRSA(text); err == nil {
			t.Errorf("%.40q was read", text)
		}
	}
}

func TestShownText(t *testing.T) {
	d := someActor(t)
	d["name"], d["summary"] = "a\u202eb\x07c"+strings.Repeat("é", 300), strings.Repeat("s", 3000)
	a, err := readActor(encode(t, d))
	if err != nil || !strings.HasPrefix(a.Name, "a b cé") || len(a.Name) > maxName || len(a.Summary) > maxSummary {
		t.Errorf("%q, %q, %v", a.Name, a.Summary, err)
	}
}

// TestCapturedActors reads actors as Fedify 2.3.6 and GoToSocial 0.20 serve them.
func TestCapturedActors(t *testing.T) {
	for name, want := range map[string]struct {
		id, key string
		bits    int
		proofs  int
	}{
		"captured/gotosocial/actor-admin.json": {"http://localhost:18090/users/admin", "http://localhost:18090/users/admin/main-key", 2048, 0},
		"captured/fedify/actor-alice.json":     {"http://127.0.0.1:18081/users/alice", "http://127.0.0.1:18081/users/alice#main-key", 4096, 1},
		"captured/fedify/actor-bob.json":       {"http://127.0.0.1:18082/users/bob", "http://127.0.0.1:18082/users/bob#main-key", 4096, 1},
	} {
		raw := vectors(t, name)
		if raw == nil {
			return
		}
		a, err := readActor(raw)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if k := a.publicKey(want.key); a.ID != want.id || k == nil || k.N.BitLen() != want.bits || len(a.Methods) != want.proofs {
			t.Errorf("%s: %+v", name, a)
		}
	}
}

func FuzzReadActor(f *testing.F) {
	f.Add(encode(f, someActor(f)))
	f.Add([]byte(`{"id":"https://a.example/","type":["Person"],"inbox":"https://a.example/i","publicKey":["x",null],"assertionMethod":{"type":"Multikey"}}`))
	for n := range 3 {
		d := someActor(f)
		for i, name := range slices.Sorted(maps.Keys(d)) {
			if i%3 == n {
				d[name] = []any{d[name], nil}
			}
		}
		f.Add(encode(f, d))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := readActor(data)
		if err != nil {
			if len(err.Error()) > 2000 {
				t.Errorf("error of %d bytes", len(err.Error()))
			}
			return
		}
		for _, iri := range append([]string{a.Inbox, a.SharedInbox, a.Outbox, a.Followers, a.Log, a.Head}, a.Writers...) {
			if iri != "" && !ofOneOrigin(iri, a.ID) {
				t.Errorf("%s has %s", a.ID, iri)
			}
		}
		for _, k := range a.PublicKeys {
			if k.Owner != a.ID || !ofOneOrigin(k.ID, a.ID) || k.Public.N.BitLen() < 2048 {
				t.Errorf("%s has the key %+v", a.ID, k)
			}
		}
		for _, m := range a.Methods {
			if m.Controller != a.ID || !ofOneOrigin(m.ID, a.ID) || len(m.Public) != 32 {
				t.Errorf("%s has the method %+v", a.ID, m)
			}
		}
		if keyOwner(data, a.ID) != "" {
			t.Error("an actor is a key")
		}
		// The order of its members means nothing.
		sorted, err := canonical(data)
		if err != nil || len(sorted) > maxActor {
			return
		}
		again, err := readActor(sorted)
		if err != nil {
			t.Fatal(err)
		}
		a.Raw, again.Raw = nil, nil
		if !reflect.DeepEqual(a, again) {
			t.Errorf("%+v, in canonical form %+v", a, again)
		}
	})
}
