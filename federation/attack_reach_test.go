package federation_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/store"
)

// TestAttackPrivateAddresses: a node as it runs for real is sent to look at its own network, and does not; nor
// does its answer tell what is there. That the guard holds after DNS, for all kinds of
// addresses and for names that change their mind, is shown in dialer_test.go.
func TestAttackPrivateAddresses(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	reached := make(chan struct{}, 100)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			reached <- struct{}{}
			c.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())

	db, err := store.Create(t.Context(), filepath.Join(t.TempDir(), "tocsin.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	policy := hashlist.DefaultPolicy()
	policy.Own = "https://hashes.example"
	lists, err := hashlist.Open(context.Background(), db, policy)
	if err != nil {
		t.Fatal(err)
	}
	defer lists.Close()
	_, heads, _ := ed25519.GenerateKey(rand.Reader)
	n, err := federation.New(t.Context(), federation.Config{
		Origin: policy.Own, Lists: lists, Peers: db, Key: requestKey(), HeadKey: heads,
		Log: slog.New(slog.NewTextHandler(logWriter{t, "node"}, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{
		"https://127.0.0.1:" + port + "/x#main-key", "https://localhost:" + port + "/x#main-key", "https://[::1]:" + port + "/x#main-key",
		"https://[::ffff:127.0.0.1]:" + port + "/x#main-key", "https://0.0.0.0:" + port + "/x#main-key", "https://[::]:" + port + "/x#main-key",
		"https://2130706433:" + port + "/x#main-key", "https://127.1:" + port + "/x#main-key", "https://10.0.0.1/x#main-key", "https://169.254.169.254/latest#main-key",
		"https://[64:ff9b::7f00:1]:" + port + "/x#main-key", "https://[fe80::1]/x#main-key", "https://[fd00::1]/x#main-key",
		"http://127.0.0.1:" + port + "/x#main-key", "ftp://127.0.0.1/x", "https://user@127.0.0.1/x", "https://127.0.0.1:" + port + "?x",
	} {
		body := `{"id":"https://evil.example/1","type":"Follow","actor":"https://evil.example/actor","object":"https://hashes.example/lists/x"}`
		r := httptest.NewRequest("POST", "https://hashes.example/inbox", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/activity+json")
		r.Header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
		r.Header.Set("Signature", `keyId="`+key+`",algorithm="rsa-sha256",headers="(request-target) host date digest",signature="AAAA"`)
		w := httptest.NewRecorder()
		n.Handler().ServeHTTP(w, r)
		if w.Code != 401 {
			t.Errorf("%s: %d %s", key, w.Code, w.Body)
		}
		for _, tells := range []string{"refused", "prohibited", "dial", "lookup", "no such host", "connect", "certificate"} {
			if strings.Contains(w.Body.String(), tells) {
				t.Errorf("%s: the answer tells what is there: %s", key, w.Body)
			}
		}
	}
	select {
	case <-reached:
		t.Error("the node connected to loopback")
	default:
	}
}
