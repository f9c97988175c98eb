package federation_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/store"
)

// documents is a network in which an address is answered with a document that lies there.
type documents map[string][]byte

// RoundTrip implements http.RoundTripper.
func (d documents) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		io.Copy(io.Discard, r.Body)
		r.Body.Close()
	}
	w := httptest.NewRecorder()
	switch b, ok := d[r.URL.String()]; {
	case r.Method == http.MethodPost:
		w.WriteHeader(http.StatusAccepted)
	case !ok:
		w.WriteHeader(http.StatusNotFound)
	default:
		w.Header().Set("Content-Type", "application/activity+json")
		w.Write(b)
	}
	res := w.Result()
	res.Request = r
	return res, nil
}

// newFuzzed is a node with a list secret, that follows the list of b, in a network without sockets.
func newFuzzed(f *testing.F, b *bad) (*federation.Node, *hashlist.Lists) {
	const origin = "https://hashes.example"
	db, err := store.Create(f.Context(), filepath.Join(f.TempDir(), "tocsin.db"))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { db.Close() })
	policy := hashlist.DefaultPolicy()
	policy.Own = origin
	lists, err := hashlist.Open(context.Background(), db, policy)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(lists.Close)
	_, secret, _ := ed25519.GenerateKey(rand.Reader)
	alice, err := federation.NewIssuer(origin+"/users/alice", secret)
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []hashlist.Statement{
		{Kind: hashlist.DefineList, List: origin + "/lists/secret", Definition: &hashlist.Definition{Name: "secret", Audience: hashlist.Followers, Action: hashlist.Reject}},
		{Kind: hashlist.AddHashes, List: origin + "/lists/secret", Hashes: []hashlist.Hash{pdq(f, 990)}},
	} {
		r, err := alice.Seal(s)
		if err != nil {
			f.Fatal(err)
		}
		if _, err := lists.Apply(f.Context(), r); err != nil {
			f.Fatal(err)
		}
	}
	n, err := federation.New(f.Context(), federation.Config{
		Origin: origin, Lists: lists, Peers: db, Letters: db, Reviews: db, Key: requestKey(), HeadKey: secret, Loopback: true,
		Issuers: []federation.LocalIssuer{{Name: "alice", Public: alice.PublicKey()}},
		Transport: documents{
			b.list: encode(f, b.listActor()), b.origin + "/users/mallory": encode(f, b.person("/users/mallory", method(b.origin+"/users/mallory", b.secret))),
			b.origin + "/actor": encode(f, b.actor("/actor")),
		},
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		f.Fatal(err)
	}
	if _, err := n.Follow(f.Context(), b.list, hashlist.VerdictReject); err != nil {
		f.Fatal(err)
	}
	return n, lists
}

// clock makes every signature another one, in the window that is believed.
var clock atomic.Int64

func signedFor(b *bad, key, path, media string, body []byte) *http.Request {
	r := httptest.NewRequest("POST", "https://hashes.example"+path, bytes.NewReader(body))
	r.RequestURI = path
	sum := sha256.Sum256(body)
	r.Header.Set("Content-Type", media)
	r.Header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	r.Header.Set("X-Nonce", fmt.Sprint(clock.Add(1)))
	r.Header.Set("Digest", "SHA-256="+base64.StdEncoding.EncodeToString(sum[:]))
	text := "(request-target): post " + path + "\nhost: hashes.example\ndate: " + r.Header.Get("Date") + "\ndigest: " + r.Header.Get("Digest") + "\nx-nonce: " + r.Header.Get("X-Nonce")
	r.Header.Set("Signature", fmt.Sprintf(`keyId="%s",algorithm="rsa-sha256",headers="(request-target) host date digest x-nonce",signature="%s"`,
		key, base64.StdEncoding.EncodeToString(rsaSign(b.key, text))))
	return r
}

// FuzzInbox posts what it likes, well signed, as the publisher of a list that is followed, or as a stranger.
func FuzzInbox(f *testing.F) {
	b := newBad(f)
	n, lists := newFuzzed(f, b)
	follow := n.Follows()[0].ID
	accept := b.activity("Accept", b.list, object{"type": "Follow", "id": follow, "actor": "https://hashes.example/actor", "object": b.list})
	w := httptest.NewRecorder()
	n.Handler().ServeHTTP(w, signedFor(b, b.list+"#main-key", "/inbox", "application/activity+json", encode(f, accept)))
	if w.Code != 202 || n.Follows()[0].State != federation.FollowAccepted {
		f.Fatalf("%d %s", w.Code, w.Body)
	}
	more := b.ban(pdq(f, 991))
	b.items = append(b.items, more)
	for _, v := range []any{
		accept, b.activity("Reject", b.list, follow), b.activity("Follow", b.origin+"/actor", "https://hashes.example/lists/secret"),
		b.activity("Undo", b.origin+"/actor", object{"type": "Follow", "actor": b.origin + "/actor", "object": "https://hashes.example/lists/secret"}),
		b.activity("Announce", b.list, json.RawMessage(b.pageOf(0, 1, b.head(1), false))),
		b.activity("Announce", b.list, json.RawMessage(b.pageOf(0, 2, b.head(2), true))),
		b.activity("Announce", b.list, b.list), b.activity("Delete", b.list, b.list),
	} {
		f.Add(encode(f, v), true)
		f.Add(encode(f, v), false)
	}
	for _, s := range []hashlist.Statement{
		{Kind: hashlist.Dispute, About: "https://hashes.example/statements/x", Reason: "wrong"},
		{Kind: hashlist.Confirmation, About: "https://hashes.example/statements/x"},
		{Kind: hashlist.Retraction, Retracts: more.Statement.ID},
	} {
		f.Add(b.seal(s).Signed, false) // statements that come by themselves
	}
	f.Fuzz(func(t *testing.T, body []byte, publisher bool) {
		key := b.origin + "/actor#main-key"
		if publisher {
			key = b.list + "#main-key"
		}
		n.ForgetPaces()
		w := httptest.NewRecorder()
		n.Handler().ServeHTTP(w, signedFor(b, key, "/inbox", "application/activity+json", body))
		switch w.Code {
		case 202, 400, 413, 429: // 429 for one who asks to follow too often
		default:
			t.Fatalf("%d %s for %q", w.Code, w.Body, body)
		}
		if strings.ContainsAny(w.Body.String(), "\x1b\x00") || w.Body.Len() > 1100 {
			t.Fatalf("%q for %q", w.Body, body)
		}
		// Of all that could be said, nothing but what the issuer has signed is on the list.
		s := n.Follows()[0]
		if s.Position > 2 || lists.Counts().Statements > 4 {
			t.Fatalf("%+v after %q", s, body)
		}
		if all, err := n.Followers(""); err != nil || len(all) > 5 {
			t.Fatalf("%+v, %v", all, err)
		}
		for _, f := range n.PeerStatuses() {
			if f.Origin != b.origin {
				t.Fatalf("%+v after %q", f, body)
			}
		}
	})
}

// FuzzWitness shows what it likes, well signed.
func FuzzWitness(f *testing.F) {
	b := newBad(f)
	n, _ := newFuzzed(f, b)
	f.Add([]byte(b.head(1)))
	f.Add([]byte("hashes.example/lists/secret\n2\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n— hashes.example/lists/secret AAAA\n"))
	f.Add([]byte("\n\n\n\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		n.ForgetPaces()
		w := httptest.NewRecorder()
		n.Handler().ServeHTTP(w, signedFor(b, b.origin+"/actor#main-key", "/witness", "text/plain", body))
		switch w.Code {
		case 404, 400, 413:
		default: // nobody has a head to show: there is nothing to answer with
			t.Fatalf("%d %s for %q", w.Code, w.Body, body)
		}
	})
}
