package federation_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/store"
)

// requestKey is one for all nodes of a test: to make RSA keys takes long, and
// nothing depends on whose it is but the ids they stand under.
var requestKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

// node is a real node on loopback: a database, a socket, its admin.
type node struct {
	*federation.Node
	t      testing.TB
	dir    string
	origin string
	addr   string
	issuer *federation.Issuer
	secret ed25519.PrivateKey
	heads  ed25519.PrivateKey
	key    *rsa.PrivateKey // requestKey for nil
	ahead  atomic.Int64    // how far its clock is, as a time.Duration

	db     *store.DB
	lists  *hashlist.Lists
	config federation.Config
	stop   func()
}

// newNode starts a node with an admin alice.
func newNode(t testing.TB) *node {
	t.Helper()
	n := &node{t: t, dir: t.TempDir()}
	_, n.secret, _ = ed25519.GenerateKey(rand.Reader)
	_, n.heads, _ = ed25519.GenerateKey(rand.Reader)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.addr = l.Addr().String()
	n.origin = "http://" + n.addr
	if n.issuer, err = federation.NewIssuer(n.origin+"/users/alice", n.secret); err != nil {
		t.Fatal(err)
	}
	db, err := store.Create(t.Context(), filepath.Join(n.dir, "tocsin.db"))
	if err != nil {
		t.Fatal(err)
	}
	n.db = db
	n.start(l)
	t.Cleanup(func() { n.stop() })
	return n
}

// start brings the node up on a listener; stop takes it down.
func (n *node) start(l net.Listener) {
	t := n.t
	t.Helper()
	policy := hashlist.DefaultPolicy()
	policy.Own = n.origin
	lists, err := hashlist.Open(context.Background(), n.db, policy)
	if err != nil {
		t.Fatal(err)
	}
	n.lists = lists
	n.config = federation.Config{
		Origin: n.origin, Lists: lists, Peers: n.db, Letters: n.db, Reviews: n.db, Key: cmp.Or(n.key, requestKey()), HeadKey: n.heads,
		Now:      func() time.Time { return time.Now().Add(time.Duration(n.ahead.Load())) },
		Loopback: true, Version: "test",
		Issuers: []federation.LocalIssuer{{Name: "alice", Public: n.issuer.PublicKey()}},
		Log:     slog.New(slog.NewTextHandler(logWriter{t, n.addr}, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if n.Node, err = federation.New(context.Background(), n.config); err != nil {
		t.Fatal(err)
	}
	handler := n.Handler()
	var handling sync.WaitGroup
	web := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handling.Add(1)
		defer handling.Done()
		handler.ServeHTTP(w, r)
	})}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { web.Serve(l) })
	wg.Go(func() {
		if err := n.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	var once sync.Once
	n.stop = func() {
		once.Do(func() {
			web.Close()
			cancel()
			wg.Wait()
			handling.Wait() // they log to a test that must not have ended
			lists.Close()
			if err := n.db.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
}

// restart brings a stopped node up again at its address.
func (n *node) restart() {
	n.t.Helper()
	db, err := store.Open(n.t.Context(), filepath.Join(n.dir, "tocsin.db"))
	if err != nil {
		n.t.Fatal(err)
	}
	n.db = db
	l, err := net.Listen("tcp", n.addr)
	if err != nil {
		n.t.Fatal(err)
	}
	n.start(l)
}

// logWriter shows what a node says if its test fails.
type logWriter struct {
	t    testing.TB
	name string
}

func (w logWriter) Write(b []byte) (int, error) {
	noteLog(b)
	w.t.Logf("%s: %s", w.name, bytes.TrimSpace(b))
	return len(b), nil
}

// say makes a statement of the node's admin.
func (n *node) say(s hashlist.Statement) hashlist.Statement {
	n.t.Helper()
	r, err := n.issuer.Seal(s)
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := n.lists.Apply(n.t.Context(), r); err != nil {
		n.t.Fatal(err)
	}
	return r.Statement
}

func (n *node) list(name string) string { return n.origin + "/lists/" + name }

// define makes a list.
func (n *node) define(name string, audience hashlist.Audience) string {
	n.t.Helper()
	n.say(hashlist.Statement{Kind: hashlist.DefineList, List: n.list(name), Definition: &hashlist.Definition{
		Name: name, Summary: "a list of a test", Labels: []string{"spam"}, Audience: audience, Action: hashlist.Reject, Radii: hashlist.DefaultRadii,
	}})
	return n.list(name)
}

func (n *node) ban(list string, hashes ...hashlist.Hash) hashlist.Statement {
	n.t.Helper()
	return n.say(hashlist.Statement{Kind: hashlist.AddHashes, List: list, Hashes: hashes})
}

func (n *node) verdict(h hashlist.Hash) hashlist.Verdict {
	return n.lists.Lookup(hashlist.Query{Probes: []hashlist.Probe{{Hash: h}}}).Verdict
}

func (n *node) fold() string {
	n.t.Helper()
	var b strings.Builder
	if err := n.lists.WriteFold(&b); err != nil {
		n.t.Fatal(err)
	}
	return b.String()
}

// until waits for something that another goroutine brings about.
func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("in vain: %s", what)
		}
	}
}

func pdq(t testing.TB, n int) hashlist.Hash {
	t.Helper()
	var b [32]byte
	// Far from each other: every number has its own half of the bits, by a multiplication.
	x := uint64(n)*0x9e3779b97f4a7c15 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	h, err := hashlist.ParseHash(fmt.Sprintf("pdq:%x", b))
	if err != nil {
		t.Fatal(err)
	}
	noteHash(h)
	return h
}

// befriend has b follow a list of a, and a approve it.
func befriend(t testing.TB, a, b *node, list string) {
	t.Helper()
	if _, err := b.Follow(t.Context(), list, hashlist.VerdictReject); err != nil {
		t.Fatal(err)
	}
	until(t, "the publisher hears of it", func() bool { f, err := a.Followers(list); return err == nil && len(f) > 0 })
	if _, err := a.Decide(t.Context(), list, b.origin+"/actor", true); err != nil {
		t.Fatal(err)
	}
	until(t, "the follow is accepted", func() bool { return b.Follows()[0].State == federation.FollowAccepted })
}

func TestFollow(t *testing.T) {
	a, b := newNode(t), newNode(t)
	list := a.define("refused", hashlist.Followers)
	early := a.ban(list, pdq(t, 1))

	status, err := b.Follow(t.Context(), "@refused@"+a.addr, hashlist.VerdictReject)
	if err != nil {
		t.Fatal(err)
	}
	if status.List != list || status.State != federation.FollowAsked || len(status.Issuers) != 1 || status.Issuers[0] != a.issuer.Actor() {
		t.Fatalf("%+v", status)
	}
	until(t, "a hears of it", func() bool { f, err := a.Followers(list); return err == nil && len(f) == 1 })
	if f, _ := a.Followers(list); f[0].State != federation.FollowerAsked || f[0].Actor != b.origin+"/actor" {
		t.Fatalf("%+v", f)
	}
	if v := b.verdict(pdq(t, 1)); v != hashlist.VerdictAllow {
		t.Fatalf("before it was approved: %v", v)
	}
	if _, err := a.Decide(t.Context(), list, b.addr, true); err != nil {
		t.Fatal(err)
	}
	until(t, "what was banned before is refused", func() bool { return b.verdict(pdq(t, 1)) == hashlist.VerdictReject })

	a.ban(list, pdq(t, 2))
	until(t, "what is banned now is refused", func() bool { return b.verdict(pdq(t, 2)) == hashlist.VerdictReject })

	b.stop()
	a.ban(list, pdq(t, 3))
	a.say(hashlist.Statement{Kind: hashlist.Retraction, List: list, Retracts: early.ID})
	b.restart()
	until(t, "what was banned meanwhile is refused", func() bool { return b.verdict(pdq(t, 3)) == hashlist.VerdictReject })
	until(t, "what was retracted meanwhile is allowed", func() bool { return b.verdict(pdq(t, 1)) == hashlist.VerdictAllow })
	if a.fold() != b.fold() {
		t.Fatalf("the folds differ:\n%s\n%s", a.fold(), b.fold())
	}

	a.stop()
	a.restart()
	a.ban(list, pdq(t, 4))
	until(t, "after a restart of the publisher", func() bool { return b.verdict(pdq(t, 4)) == hashlist.VerdictReject })

	v, err := b.Verify(t.Context(), list, []string{a.origin})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range v.Checks {
		if !c.Passed {
			t.Errorf("%s: %s", c.Name, c.Detail)
		}
	}
	if v, err = a.Verify(t.Context(), list, nil); err != nil || !v.Passed() || v.Size != 6 {
		t.Errorf("%+v, %v", v, err)
	}

	if _, err := b.Unfollow(t.Context(), list); err != nil {
		t.Fatal(err)
	}
	if v := b.verdict(pdq(t, 4)); v != hashlist.VerdictAllow {
		t.Fatalf("after it was unfollowed: %v", v)
	}
	until(t, "a hears of the end", func() bool { f, err := a.Followers(list); return err == nil && f[0].State == federation.FollowerLeft })
}

func TestHeedIsDecidedHere(t *testing.T) {
	a, b := newNode(t), newNode(t)
	list := a.define("refused", hashlist.Followers)
	a.ban(list, pdq(t, 1))
	befriend(t, a, b, list)
	until(t, "the list is there", func() bool { return b.verdict(pdq(t, 1)) == hashlist.VerdictReject })

	// The publisher need not be there for it.
	a.stop()
	f, err := b.Follow(t.Context(), list, hashlist.VerdictFlag)
	if err != nil || f.Most != hashlist.VerdictFlag {
		t.Fatalf("%+v, %v", f, err)
	}
	if v := b.verdict(pdq(t, 1)); v != hashlist.VerdictFlag {
		t.Errorf("heeded as far as flag: %v", v)
	}
	if v, err := b.Verify(t.Context(), list, nil); err != nil || v.Passed() {
		t.Errorf("a publisher that is down: %+v, %v", v, err)
	} else {
		for _, c := range v.Checks {
			if c.Alarm {
				t.Errorf("alarm because a server is down: %s: %s", c.Name, c.Detail)
			}
		}
	}
	a.restart()

	// Followed once more, it is heeded as before, and does not act before it is accepted.
	if _, err := b.Unfollow(t.Context(), list); err != nil {
		t.Fatal(err)
	}
	until(t, "a hears of the end", func() bool { f, err := a.Followers(list); return err == nil && f[0].State == federation.FollowerLeft })
	if f, err = b.Follow(t.Context(), list, 0); err != nil || f.Most != hashlist.VerdictFlag {
		t.Fatalf("%+v, %v", f, err)
	}
	if v := b.verdict(pdq(t, 1)); v != hashlist.VerdictAllow {
		t.Errorf("asked for, and not accepted: %v", v)
	}
	until(t, "a is asked again", func() bool { f, err := a.Followers(list); return err == nil && f[0].State == federation.FollowerAsked })
	if _, err := a.Decide(t.Context(), list, b.origin+"/actor", true); err != nil {
		t.Fatal(err)
	}
	until(t, "it acts again", func() bool { return b.verdict(pdq(t, 1)) == hashlist.VerdictFlag })

	if _, err := b.Follow(t.Context(), "@refused@127.0.0.1:1", 0); !errors.Is(err, federation.ErrRemote) {
		t.Errorf("a host that does not answer: %v", err)
	}
}

// The key of requests is replaced by another under the same id: a peer that
// remembers the old one fetches it again, but not for every request that does not fit.
func TestRequestKeyIsReplaced(t *testing.T) {
	a, b := newNode(t), newNode(t)
	list := a.define("refused", hashlist.Followers)
	befriend(t, a, b, list)
	a.ban(list, pdq(t, 1))
	until(t, "it is refused", func() bool { return b.verdict(pdq(t, 1)) == hashlist.VerdictReject })
	a.stop()
	var err error
	if a.key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	a.restart()
	b.ahead.Store(int64(2 * time.Minute))
	a.ban(list, pdq(t, 2))
	until(t, "what is pushed with the new key is taken", func() bool { return b.verdict(pdq(t, 2)) == hashlist.VerdictReject })
	b.stop()
	if b.key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	a.ban(list, pdq(t, 3))
	a.ahead.Store(int64(2 * time.Minute))
	b.restart()
	until(t, "what is asked for with the new key is given", func() bool { return b.verdict(pdq(t, 3)) == hashlist.VerdictReject })
}
