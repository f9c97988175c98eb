package main

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/server"
	"github.com/tocsin-fed/tocsin/store"
)

const testActor = "https://hashes.example/users/admin"

// keyDir makes the keys of a data directory.
func keyDir(t *testing.T) (dir string, public ed25519.PublicKey) {
	t.Helper()
	dir = t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, keysName), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := writeIssuerKey(keyPath(dir, "admin")); err != nil {
		t.Fatal(err)
	}
	public, _, err := readIssuerKey(dir, "admin")
	if err != nil {
		t.Fatal(err)
	}
	return dir, public
}

func testStatement() hashlist.Statement {
	h, err := hashlist.ParseHash(hashOf(hashlist.PDQ, 0, "signer", 0))
	if err != nil {
		panic(err) // hashOf writes what ParseHash reads
	}
	return hashlist.Statement{Kind: hashlist.AddHashes, List: "https://hashes.example/lists/refused", Hashes: []hashlist.Hash{h}}
}

// keyFiles are the names of what lies in the directory of keys.
func keyFiles(t *testing.T, dir string) (names []string) {
	t.Helper()
	all, err := os.ReadDir(filepath.Join(dir, keysName))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		names = append(names, e.Name())
	}
	return names
}

// TestReplacementIsSettled starts a node after the replacement of its key was cut
// off at each point, and shows that it signs with the key that counts.
func TestReplacementIsSettled(t *testing.T) {
	for _, c := range []struct {
		name    string
		leave   func(s *signer, public ed25519.PublicKey, private ed25519.PrivateKey) error
		stored  bool // it came into the database
		taken   bool // it is in use afterwards
		offline bool
	}{
		{"before the database", func(s *signer, p ed25519.PublicKey, k ed25519.PrivateKey) error {
			return s.propose(keyPath(s.dir, s.name)+next, p, k)
		}, false, false, false},
		{"behind the database", func(s *signer, p ed25519.PublicKey, k ed25519.PrivateKey) error {
			return s.propose(keyPath(s.dir, s.name)+next, p, k)
		}, true, true, false},
		{"behind the database, kept elsewhere", func(s *signer, p ed25519.PublicKey, _ ed25519.PrivateKey) error {
			return s.propose(publicKeyPath(s.dir, s.name)+next, p, nil)
		}, true, true, true},
		{"when the old key was gone", func(s *signer, p ed25519.PublicKey, _ ed25519.PrivateKey) error {
			return errors.Join(s.propose(publicKeyPath(s.dir, s.name)+next, p, nil), os.Remove(keyPath(s.dir, s.name)))
		}, true, true, true},
		{"while it was written", func(s *signer, _ ed25519.PublicKey, _ ed25519.PrivateKey) error {
			return os.WriteFile(keyPath(s.dir, s.name)+next, []byte("-----BEGIN PRIV"), 0o600)
		}, false, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, old := keyDir(t)
			public, private, err := ed25519.GenerateKey(nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.leave(&signer{dir: dir, name: "admin", actor: testActor}, public, private); err != nil {
				t.Fatal(err)
			}
			stored := []federation.Key{{Issuer: testActor, Public: old}, {Issuer: "https://hashes.example/users/other", Public: public}}
			if c.stored {
				stored = append(stored, federation.Key{Issuer: testActor, Public: public})
			}
			s, err := openSigner(dir, "admin", testActor, stored)
			if err != nil {
				t.Fatal(err)
			}
			want := old
			if c.taken {
				want = public
			}
			if !s.PublicKey().Equal(want) || s.offline() != c.offline {
				t.Errorf("the new key is in use: %v, offline: %v", s.PublicKey().Equal(public), s.offline())
			}
			wantFiles := []string{"admin.pem"}
			if c.offline {
				wantFiles = []string{"admin.pub.pem"}
			}
			if got := keyFiles(t, dir); !slices.Equal(got, wantFiles) {
				t.Errorf("there are %q, want %q", got, wantFiles)
			}
			if _, err := s.Seal(testStatement()); errors.Is(err, server.ErrOffline) != c.offline {
				t.Errorf("sealing: %v", err)
			}
		})
	}
}

// TestTwoKeys shows that a node does not guess between two keys.
func TestTwoKeys(t *testing.T) {
	dir, public := keyDir(t)
	write := func(key ed25519.PublicKey) {
		t.Helper()
		text, err := publicPEM(key)
		if err == nil {
			err = os.WriteFile(publicKeyPath(dir, "admin"), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write(public)
	if _, private, err := readIssuerKey(dir, "admin"); err != nil || private == nil {
		t.Errorf("both halves: %v", err)
	}
	other, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	write(other)
	if _, _, err := readIssuerKey(dir, "admin"); err == nil || !strings.Contains(err.Error(), "different keys") {
		t.Errorf("two keys: %v", err)
	}
	if err := os.Remove(keyPath(dir, "admin")); err != nil {
		t.Fatal(err)
	}
	if got, private, err := readIssuerKey(dir, "admin"); err != nil || private != nil || !got.Equal(other) {
		t.Errorf("the public one alone: %v", err)
	}
	for _, bad := range []struct{ text, want string }{
		{"", "no public key in PEM"},
		{"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "damaged or not an Ed25519"},
		{rsaPublic(t), "damaged or not an Ed25519"},
	} {
		if err := os.WriteFile(publicKeyPath(dir, "admin"), []byte(bad.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := readIssuerKey(dir, "admin"); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%q: %v, want %q", bad.text, err, bad.want)
		}
	}
}

func rsaPublic(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rsa.pem")
	if err := writeRequestKey(path); err != nil {
		t.Fatal(err)
	}
	key, err := readRequestKey(path)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// nowhere is a network on which nobody answers.
type nowhere struct{}

func (nowhere) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("there is no network in this test")
}

// federatedNode is what serve makes of dir, without listeners.
func federatedNode(t *testing.T, dir string) (federated, *store.DB) {
	t.Helper()
	db, err := store.Create(t.Context(), filepath.Join(dir, databaseName))
	if err != nil {
		t.Fatal(err)
	}
	lists, err := hashlist.Open(t.Context(), db, hashlist.DefaultPolicy())
	if err != nil {
		t.Fatal(err)
	}
	s, err := openSigner(dir, "admin", testActor, nil)
	if err != nil {
		t.Fatal(err)
	}
	key, head, err := nodeKeys(t.Context(), dir, slog.New(slog.DiscardHandler), db)
	if err != nil {
		t.Fatal(err)
	}
	node, err := federation.New(t.Context(), federation.Config{
		Origin: "https://hashes.example", Lists: lists, Peers: db, Key: key, HeadKey: head, Transport: nowhere{}, Log: slog.New(slog.DiscardHandler),
		Issuers: []federation.LocalIssuer{{Name: "admin", Public: s.PublicKey()}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		lists.Close()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return federated{node, s}, db
}

// TestRotation replaces a key by one of the node's, and that by one that is kept elsewhere.
func TestRotation(t *testing.T) {
	dir, first := keyDir(t)
	f, _ := federatedNode(t, dir)
	r, err := f.signer.Seal(testStatement())
	if err != nil {
		t.Fatal(err)
	}
	if err := f.RotateKey(t.Context(), nil, time.Time{}); err != nil {
		t.Fatal(err)
	}
	second := f.signer.PublicKey()
	if second.Equal(first) {
		t.Fatal("the key is the same")
	}
	keys := f.IssuerKeys(testActor)
	if len(keys) != 2 || !keys[0].Public.Equal(second) || !keys[1].Public.Equal(first) || !keys[0].Expires.IsZero() {
		t.Fatalf("keys: %v", keys)
	}
	// Dates are in whole seconds: what was said just before must still count.
	if !r.Statement.Published.Before(keys[1].Expires) {
		t.Errorf("a statement of %v does not count under a key that ended at %v", r.Statement.Published, keys[1].Expires)
	}
	if private, err := readKey(keyPath(dir, "admin")); err != nil || !private.Public().(ed25519.PublicKey).Equal(second) {
		t.Errorf("on the disk: %v", err)
	}
	elsewhere, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.RotateKey(t.Context(), elsewhere, time.Time{}); err != nil {
		t.Fatal(err)
	}
	if !f.signer.offline() || !f.signer.PublicKey().Equal(elsewhere) {
		t.Error("the key that is kept elsewhere is not in use")
	}
	if got, want := keyFiles(t, dir), []string{"admin.pub.pem", "heads.ed25519.pem", "request.rsa.pem"}; !slices.Equal(got, want) {
		t.Errorf("there are %q, want %q", got, want)
	}
	// The first one cannot come back: nothing has changed after the attempt.
	if err := f.RotateKey(t.Context(), first, time.Time{}); !errors.Is(err, federation.ErrState) {
		t.Errorf("a key that was replaced: %v", err)
	}
	if got := keyFiles(t, dir); !f.signer.PublicKey().Equal(elsewhere) || slices.Contains(got, "admin.pub.pem"+next) {
		t.Errorf("after a rotation that failed there are %q", got)
	}
}

// TestRotationWaits shows that the new key comes after all that the old one has
// dated, and that it is not waited for long.
func TestRotationWaits(t *testing.T) {
	dir, _ := keyDir(t)
	f, _ := federatedNode(t, dir)
	ahead := testStatement()
	ahead.Published = time.Now().UTC().Truncate(time.Second).Add(2 * time.Second)
	if _, err := f.signer.Seal(ahead); err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.RotateKey(gone, nil, time.Time{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller who left: %v", err)
	}
	if err := f.RotateKey(t.Context(), nil, time.Time{}); err != nil {
		t.Fatal(err)
	}
	if now := time.Now(); !now.After(ahead.Published) {
		t.Errorf("the key was replaced at %v, when the old one had signed for %v", now, ahead.Published)
	}
	far := testStatement()
	far.Published = time.Now().UTC().Truncate(time.Second).Add(time.Hour)
	if _, err := f.signer.Seal(far); err != nil {
		t.Fatal(err)
	}
	if err := f.RotateKey(t.Context(), nil, time.Time{}); !errors.Is(err, federation.ErrState) || !strings.Contains(err.Error(), "dated 1h0m") {
		t.Errorf("an hour ahead: %v", err)
	}
}

// TestNodeKeys makes the keys of an older data directory, and shows that a key for
// heads is not made anew where there are followers.
func TestNodeKeys(t *testing.T) {
	dir, _ := keyDir(t)
	f, db := federatedNode(t, dir) // which had none
	for _, path := range []string{requestKeyPath(dir), headKeyPath(dir)} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	read := func() (err error) {
		_, _, err = nodeKeys(t.Context(), dir, slog.New(slog.DiscardHandler), db)
		return err
	}
	if err := read(); err != nil {
		t.Error(err)
	}
	if err := os.Remove(headKeyPath(dir)); err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	if err := db.SaveFollower(t.Context(), federation.Follower{
		List: "https://hashes.example/lists/refused", Actor: "https://other.example/actor", Inbox: "https://other.example/inbox",
		Follow: "https://other.example/follows/1", State: federation.FollowerApproved, Asked: now, Decided: now,
	}); err != nil {
		t.Fatal(err)
	}
	if err := read(); err == nil || !strings.Contains(err.Error(), "heads.ed25519.pem is missing: restore it from a backup") {
		t.Errorf("a key for heads that followers know: %v", err)
	}
	if err := os.Remove(requestKeyPath(dir)); err != nil {
		t.Fatal(err)
	}
	_ = read() // which makes the other one all the same
	if _, err := readRequestKey(requestKeyPath(dir)); err != nil {
		t.Error(err)
	}
	_ = f
}

// TestFederationWarnings shows which configurations are shouted about.
func TestFederationWarnings(t *testing.T) {
	for _, c := range []struct {
		origin   string
		loopback bool
		want     string
	}{
		{"https://hashes.example", false, ""},
		{"https://hashes.example", true, "federation.loopback is on"},
		{"http://localhost:7482", true, "federation.loopback is on"},
		{"http://localhost:7482", false, "is for trying it out"},
		{"https://127.0.0.1", false, "is for trying it out"},
		{"http://[::1]:80", false, "is for trying it out"},
		{"http://hashes.example", false, "is not https"},
	} {
		conf := defaults()
		conf.Node.Origin, conf.Federation.Loopback = c.origin, c.loopback
		got := strings.Join(conf.federationWarnings(), "\n")
		if !strings.Contains(got, c.want) || (c.want == "") != (got == "") {
			t.Errorf("%s, loopback %v: %q, want %q", c.origin, c.loopback, got, c.want)
		}
	}
}
