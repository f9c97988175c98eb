package federation

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

var bothSchemes = map[string]scheme{"cavage": schemeCavage, "9421": scheme9421}

// signedAt is when the tests sign, in whole seconds as Date and created are.
var signedAt = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

const (
	signer     = "https://hashes.example/actor#main-key"
	signedFor  = "https://tocsin.example"
	signedBody = `{"type":"Follow"}`
)

// testKey is made anew for each run: nothing depends on which one it is.
var testKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

// signedRequest is what a client would send, signed.
func signedRequest(t testing.TB, s scheme, method, address, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), method, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/activity+json")
	}
	if err := signRequest(r, []byte(body), signer, testKey(), s, signedAt); err != nil {
		t.Fatal(err)
	}
	return r
}

func checkSigned(r *http.Request, body, origin string, public *rsa.PublicKey, now time.Time) error {
	s, err := readSignature(r)
	if err != nil {
		return err
	}
	return s.verify(r, []byte(body), origin, public, now)
}

func TestSignatureRoundTrip(t *testing.T) {
	type answer struct {
		err error
		uri string
		sig *requestSignature
	}
	answers := make(chan answer, 1)
	var origin string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := answer{uri: r.RequestURI}
		defer func() { answers <- a }()
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil {
			a.err = err
			return
		}
		if a.sig, a.err = readSignature(r); a.err != nil {
			return
		}
		a.err = a.sig.verify(r, body, origin, &testKey().PublicKey, signedAt)
	}))
	defer server.Close()
	origin = server.URL
	for name, s := range bothSchemes {
		other := schemeCavage + scheme9421 - s
		for _, c := range []struct{ method, target, body string }{
			{"GET", "/users/alice", ""},
			{"GET", "", ""},
			{"HEAD", "/users/alice", ""},
			{"GET", "/outbox?cursor=0&page=true", ""},
			{"GET", "/outbox?", ""},
			{"GET", "/?", ""},
			{"GET", "/.well-known/webfinger?resource=acct%3Aalice%40hashes.example", ""},
			{"GET", "/a%2Fb/c%20d?q=%2F+x", ""},
			{"GET", "/%C3%A9t%C3%A9", ""},
			{"GET", "//double//slash", ""},
			{"GET", "/a/../b", ""},
			{"POST", "/inbox", signedBody},
			{"POST", "/inbox", ""},
			{"POST", "/a%2Fb?x=1", strings.Repeat("x", 100_000)},
			{"PUT", "/inbox", signedBody},
			{"DELETE", "/inbox", ""},
		} {
			t.Run(name+" "+c.method+" "+c.target, func(t *testing.T) {
				r, err := http.NewRequestWithContext(t.Context(), c.method, server.URL+c.target, nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Content-Type", "application/activity+json")
				// Twice, as after a 401: the second time must leave nothing of the first.
				for _, now := range []scheme{other, s} {
					if err := signRequest(r, []byte(c.body), signer, testKey(), now, signedAt); err != nil {
						t.Fatal(err)
					}
					response, err := server.Client().Do(r)
					if err != nil {
						t.Fatal(err)
					}
					response.Body.Close()
					a := <-answers
					if a.err != nil {
						t.Fatalf("%s: %v", a.uri, a.err)
					}
					if a.sig.Scheme != now || a.sig.KeyID != signer || !a.sig.Created.Equal(signedAt) {
						t.Errorf("got %+v", a.sig)
					}
				}
			})
		}
	}
}

// TestSignatureWindow holds the limits to the nanosecond.
func TestSignatureWindow(t *testing.T) {
	for name, s := range bothSchemes {
		r := signedRequest(t, s, "GET", signedFor+"/actor", "")
		for _, c := range []struct {
			now  time.Time
			good bool
		}{
			{signedAt, true},
			{signedAt.Add(signaturePast), true},
			{signedAt.Add(signaturePast + 1), false},
			{signedAt.Add(-signatureLead), true},
			{signedAt.Add(-signatureLead - 1), false},
			{signedAt.Add(-signatureLead).In(time.FixedZone("elsewhere", 7*3600)), true},
		} {
			if err := checkSigned(r, "", signedFor, &testKey().PublicKey, c.now); (err == nil) != c.good {
				t.Errorf("%s: after %s: %v", name, c.now.Sub(signedAt), err)
			}
		}
	}
	if signaturePast != 65*time.Minute || signatureLead != 5*time.Minute {
		t.Error("the window is not the one of the specification")
	}
}

// TestMissingQuery checks for whom, and for what, the draft's target may do without its query.
func TestMissingQuery(t *testing.T) {
	for _, c := range []struct {
		method, sent, signed string
		good                 bool
	}{
		{"GET", "/outbox?page=2", "/outbox", true},
		{"HEAD", "/outbox?page=2", "/outbox", true},
		{"GET", "/outbox?page=2", "/outbox?page=3", false},
		{"GET", "/outbox?page=2", "/inbox", false},
		{"GET", "/outbox", "/outbox?page=2", false},
		{"GET", "/a%2Fb?x", "/a/b", false},
		{"POST", "/inbox?x=1", "/inbox", false},
	} {
		r := signedRequest(t, schemeCavage, c.method, signedFor+c.sent, "")
		r.Header = signedRequest(t, schemeCavage, c.method, signedFor+c.signed, "").Header
		if err := checkSigned(r, "", signedFor, &testKey().PublicKey, signedAt); (err == nil) != c.good {
			t.Errorf("%s %s signed as %s: %v", c.method, c.sent, c.signed, err)
		}
	}
	r := signedRequest(t, scheme9421, "GET", signedFor+"/outbox?page=2", "")
	r.Header = signedRequest(t, scheme9421, "GET", signedFor+"/outbox", "").Header
	if checkSigned(r, "", signedFor, &testKey().PublicKey, signedAt) == nil {
		t.Error("RFC 9421 without the query")
	}
}

func TestSignRequest(t *testing.T) {
	// What is sent, to the byte: others compare it with theirs.
	r := signedRequest(t, schemeCavage, "POST", "https://Other.Example:443/inbox", signedBody)
	for _, want := range []string{
		`keyId="https://hashes.example/actor#main-key",algorithm="rsa-sha256",headers="(request-target) host date digest content-type",signature="`,
	} {
		if got := r.Header.Get("Signature"); !strings.HasPrefix(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if r.Host != "other.example" || r.Header.Get("Date") != "Sun, 22 Nov 2026 12:00:00 GMT" || r.Header.Get("Digest") != "SHA-256=GYwYnH3BiO6aICFt0ThC5bUIJ4byvqdpWtR8m5fNkww=" {
		t.Errorf("host %s, %v", r.Host, r.Header)
	}
	r = signedRequest(t, scheme9421, "POST", "https://other.example/inbox", signedBody)
	if got, want := r.Header.Get("Signature-Input"), `sig1=("@method" "@target-uri" "content-digest" "content-type");created=1795348800;keyid="https://hashes.example/actor#main-key";alg="rsa-v1_5-sha256"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if r.Header.Get("Content-Digest") != "sha-256=:GYwYnH3BiO6aICFt0ThC5bUIJ4byvqdpWtR8m5fNkww=:" || r.Header.Get("Digest") != "" {
		t.Errorf("%v", r.Header)
	}
	r = signedRequest(t, scheme9421, "GET", "https://other.example/", "")
	if got := r.Header.Get("Signature-Input"); !strings.HasPrefix(got, `sig1=("@method" "@target-uri");`) || r.Header.Get("Content-Digest") != "" {
		t.Errorf("%v", r.Header)
	}

	key := testKey()
	short := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: big.NewInt(1 << 40), E: 65537}}
	for _, c := range []struct {
		name, says, address, id string
		key                     *rsa.PrivateKey
		scheme                  scheme
	}{
		{"no key", "no key", signedFor, signer, nil, scheme9421},
		{"a short key", "bits", signedFor, signer, short, scheme9421},
		{"no key id", "key id", signedFor, "", key, scheme9421},
		{"a key id that ends its quotes", "key id", signedFor, `x",headers="date`, key, schemeCavage},
		{"a key id with a line break", "key id", signedFor, "x\ny", key, schemeCavage},
		{"another protocol", "not http", "ftp://tocsin.example/", signer, key, scheme9421},
		{"no protocol", "not http", "/inbox", signer, key, scheme9421},
		{"no host", "no host", "https:///inbox", signer, key, scheme9421},
		{"opaque", "not http", "https:inbox", signer, key, scheme9421},
		{"a name to be translated", "xn--", "https://töcsin.example/", signer, key, scheme9421},
		{"no scheme", "unknown scheme", signedFor, signer, key, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), "GET", c.address, nil)
			if err != nil {
				t.Fatal(err)
			}
			err = signRequest(r, nil, c.id, c.key, c.scheme, signedAt)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want an error that says %q", err, c.says)
			}
			if r.Header.Get("Signature") != "" {
				t.Error("signed all the same")
			}
		})
	}
}

func TestReplayKey(t *testing.T) {
	seen := map[[32]byte]string{}
	for name, s := range bothSchemes {
		for _, target := range []string{"/a", "/b"} {
			r := signedRequest(t, s, "GET", signedFor+target, "")
			a, err := readSignature(r)
			if err != nil {
				t.Fatal(err)
			}
			again, err := readSignature(r)
			if err != nil || a.replayKey() != again.replayKey() {
				t.Errorf("%s %s: two keys for one signature, %v", name, target, err)
			}
			b := *a
			b.KeyID, b.signature = a.KeyID+"x", a.signature
			c := *a
			c.KeyID, c.signature = a.KeyID+string(a.signature[:1]), a.signature[1:]
			for i, s := range []*requestSignature{a, &b, &c} {
				if other, ok := seen[s.replayKey()]; ok {
					t.Errorf("%s %s %d has the key of %s", name, target, i, other)
				}
				seen[s.replayKey()] = fmt.Sprint(name, target, i)
			}
		}
	}
}

func BenchmarkSignature(b *testing.B) {
	for name, s := range bothSchemes {
		r := signedRequest(b, s, "POST", signedFor+"/inbox", signedBody)
		b.Run("sign "+name, func(b *testing.B) {
			for b.Loop() {
				if err := signRequest(r, []byte(signedBody), signer, testKey(), s, signedAt); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("verify "+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := checkSigned(r, signedBody, signedFor, &testKey().PublicKey, signedAt); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
