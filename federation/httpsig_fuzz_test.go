package federation

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// fuzzKey is test-key-rsa of RFC 9421, appendix B.1.1. Fuzzing has many processes, and a corpus that
// outlives them: what is signed in it must stay signed.
const fuzzKey = `-----BEGIN RSA PRIVATE KEY-----
MIIEqAIBAAKCAQEAhAKYdtoeoy8zcAcR874L8cnZxKzAGwd7v36APp7Pv6Q2jdsP
BRrwWEBnez6d0UDKDwGbc6nxfEXAy5mbhgajzrw3MOEt8uA5txSKobBpKDeBLOsd
JKFqMGmXCQvEG7YemcxDTRPxAleIAgYYRjTSd/QBwVW9OwNFhekro3RtlinV0a75
jfZgkne/YiktSvLG34lw2zqXBDTC5NHROUqGTlML4PlNZS5Ri2U4aCNx2rUPRcKI
lE0PuKxI4T+HIaFpv8+rdV6eUgOrB2xeI1dSFFn/nnv5OoZJEIB+VmuKn3DCUcCZ
SFlQPSXSfBDiUGhwOw76WuSSsf1D4b/vLoJ10wIDAQABAoIBAG/JZuSWdoVHbi56
vjgCgkjg3lkO1KrO3nrdm6nrgA9P9qaPjxuKoWaKO1cBQlE1pSWp/cKncYgD5WxE
CpAnRUXG2pG4zdkzCYzAh1i+c34L6oZoHsirK6oNcEnHveydfzJL5934egm6p8DW
+m1RQ70yUt4uRc0YSor+q1LGJvGQHReF0WmJBZHrhz5e63Pq7lE0gIwuBqL8SMaA
yRXtK+JGxZpImTq+NHvEWWCu09SCq0r838ceQI55SvzmTkwqtC+8AT2zFviMZkKR
Qo6SPsrqItxZWRty2izawTF0Bf5S2VAx7O+6t3wBsQ1sLptoSgX3QblELY5asI0J
YFz7LJECgYkAsqeUJmqXE3LP8tYoIjMIAKiTm9o6psPlc8CrLI9CH0UbuaA2JCOM
cCNq8SyYbTqgnWlB9ZfcAm/cFpA8tYci9m5vYK8HNxQr+8FS3Qo8N9RJ8d0U5Csw
DzMYfRghAfUGwmlWj5hp1pQzAuhwbOXFtxKHVsMPhz1IBtF9Y8jvgqgYHLbmyiu1
mwJ5AL0pYF0G7x81prlARURwHo0Yf52kEw1dxpx+JXER7hQRWQki5/NsUEtv+8RT
qn2m6qte5DXLyn83b1qRscSdnCCwKtKWUug5q2ZbwVOCJCtmRwmnP131lWRYfj67
B/xJ1ZA6X3GEf4sNReNAtaucPEelgR2nsN0gKQKBiGoqHWbK1qYvBxX2X3kbPDkv
9C+celgZd2PW7aGYLCHq7nPbmfDV0yHcWjOhXZ8jRMjmANVR/eLQ2EfsRLdW69bn
f3ZD7JS1fwGnO3exGmHO3HZG+6AvberKYVYNHahNFEw5TsAcQWDLRpkGybBcxqZo
81YCqlqidwfeO5YtlO7etx1xLyqa2NsCeG9A86UjG+aeNnXEIDk1PDK+EuiThIUa
/2IxKzJKWl1BKr2d4xAfR0ZnEYuRrbeDQYgTImOlfW6/GuYIxKYgEKCFHFqJATAG
IxHrq1PDOiSwXd2GmVVYyEmhZnbcp8CxaEMQoevxAta0ssMK3w6UsDtvUvYvF22m
qQKBiD5GwESzsFPy3Ga0MvZpn3D6EJQLgsnrtUPZx+z2Ep2x0xc5orneB5fGyF1P
WtP+fG5Q6Dpdz3LRfm+KwBCWFKQjg7uTxcjerhBWEYPmEMKYwTJF5PBG9/ddvHLQ
EQeNC8fHGg4UXU8mhHnSBt3EA10qQJfRDs15M38eG2cYwB1PZpDHScDnDA0=
-----END RSA PRIVATE KEY-----`

func fuzzSigner(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	block, _ := pem.Decode([]byte(fuzzKey))
	k, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// fuzzSigned is all that was ever signed with fuzzKey.
var fuzzSigned = []struct {
	scheme               scheme
	method, target, body string
}{
	{schemeCavage, "GET", "/outbox?page=1", ""},
	{schemeCavage, "GET", "/actor", ""},
	{schemeCavage, "POST", "/inbox", signedBody},
	{schemeCavage, "POST", "/a%2Fb", ""},
	{scheme9421, "GET", "/outbox?page=1", ""},
	{scheme9421, "POST", "/inbox", signedBody},
	{scheme9421, "POST", "/a%2Fb", ""},
}

// FuzzVerifySignature looks for a request that is taken for signed and was not. The headers
// may be anything; method, target and body must be what was signed.
func FuzzVerifySignature(f *testing.F) {
	key := fuzzSigner(f)
	for _, c := range fuzzSigned {
		r, err := http.NewRequest(c.method, signedFor+c.target, nil)
		if err != nil {
			f.Fatal(err)
		}
		if c.body != "" {
			r.Header.Set("Content-Type", "application/activity+json")
		}
		if err := signRequest(r, []byte(c.body), signer, key, c.scheme, signedAt); err != nil {
			f.Fatal(err)
		}
		if err := checkSigned(r, c.body, signedFor, &key.PublicKey, signedAt); err != nil {
			f.Fatal(err)
		}
		h := r.Header
		f.Add(c.method, c.target, r.Host, h.Get("Signature"), h.Get("Signature-Input"), h.Get("Date"), h.Get("Digest"), h.Get("Content-Digest"), h.Get("Content-Type"), []byte(c.body))
	}
	f.Fuzz(func(t *testing.T, method, target, host, signature, input, date, digest, contentDigest, contentType string, body []byte) {
		r := &http.Request{Method: method, Host: host, RequestURI: target, URL: &url.URL{Path: "/"}, Header: http.Header{}}
		for name, value := range map[string]string{
			"Signature": signature, "Signature-Input": input, "Date": date, "Digest": digest, "Content-Digest": contentDigest, "Content-Type": contentType,
		} {
			if value != "" {
				r.Header.Set(name, value)
			}
		}
		s, err := readSignature(r)
		if err != nil {
			return
		}
		if s.verify(r, body, signedFor, &key.PublicKey, signedAt) != nil {
			return
		}
		for _, c := range fuzzSigned {
			path, _, _ := strings.Cut(target, "?") // the draft's GET may be signed without its query
			sameTarget := target == c.target || c.scheme == schemeCavage && method == "GET" && path == c.target
			if s.Scheme == c.scheme && method == c.method && sameTarget && string(body) == c.body {
				return
			}
		}
		t.Errorf("verified: %s %s %q: %+v", method, target, body, s)
	})
}

// FuzzReadSignature gives the parsers the header alone, and goes on to the base behind them.
func FuzzReadSignature(f *testing.F) {
	for _, c := range [][2]string{
		{`keyId="x",algorithm="hs2019",headers="(request-target) (created) (expires) host date",signature="AA==",created=1,expires=2`, ""},
		{`keyId="x",headers="date",signature="AA==" , opaque=1`, ""},
		{`sig1=:AA==:`, `sig1=("@method" "@target-uri" "date");created=1;keyid="x";alg="rsa-v1_5-sha256";nonce="x";expires=2`},
		{`a=:AA==:, b=:AA==:`, `a=("@query-param";name="x");created=1;keyid="x", b=("@path" "@query" "@authority" "@scheme" "@request-target");created=-1;keyid="y";x=?1;y=1.5;z=tok;w=:AA==:`},
		{`sig1`, `sig1`},
		{`sig1=-`, `sig1=(-`},
	} {
		f.Add(c[0], c[1])
	}
	f.Fuzz(func(t *testing.T, signature, input string) {
		r := &http.Request{Method: "GET", Host: "tocsin.example", RequestURI: "/x?y", URL: &url.URL{Path: "/"}, Header: http.Header{
			"Signature": {signature}, "Date": {"Sun, 22 Nov 2026 12:00:00 GMT"}, "Accept": {"x"},
		}}
		if input != "" {
			r.Header.Set("Signature-Input", input)
		}
		s, err := readSignature(r)
		if err != nil {
			return
		}
		if checkKeyID(s.KeyID) != nil || len(s.KeyID) > hashlist.MaxIRI || len(s.signature) == 0 || len(s.covered) > maxCovered {
			t.Fatalf("read %+v", s)
		}
		if sorted := slices.Sorted(slices.Values(s.covered)); len(slices.Compact(sorted)) != len(s.covered) {
			t.Fatalf("covered twice: %q", s.covered)
		}
		m, err := receivedAt(r, signedFor)
		if err != nil {
			t.Fatal(err)
		}
		base, err := s.base(m)
		if err != nil {
			return
		}
		// One line for each component, and each begins with its name: nothing can pass for another one.
		lines := strings.Split(string(base), "\n")
		want := len(s.covered)
		if s.Scheme == scheme9421 {
			want++ // @signature-params
		}
		if len(lines) != want {
			t.Fatalf("%d lines for %q: %q", len(lines), s.covered, base)
		}
		for i, name := range s.covered {
			if s.Scheme == scheme9421 {
				name = `"` + name + `"`
			}
			if !strings.HasPrefix(lines[i], name+": ") {
				t.Fatalf("line %d is %q, want %s", i, lines[i], name)
			}
		}
		// What is written again is read as the same.
		if s.Scheme == scheme9421 {
			again, err := read9421([]string{"x=" + s.params}, []string{"x=:AA==:"})
			if err != nil || again.params != s.params || again.KeyID != s.KeyID || !again.Created.Equal(s.Created) {
				t.Fatalf("%q was read as %+v, %v", s.params, again, err)
			}
		}
	})
}
