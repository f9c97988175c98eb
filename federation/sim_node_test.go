package federation_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
)

// simKeys sign the requests of all nodes: a few, because to make one takes long.
var simKeys = sync.OnceValue(func() (keys [3]*rsa.PrivateKey) {
	for i := range keys {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		keys[i] = k
	}
	return keys
})

// simNode is a node of a simulation, on or off.
type simNode struct {
	net    *simNet
	origin string
	index  int
	shown  int // which of a liar's faces it sees
	issuer *federation.Issuer
	secret ed25519.PrivateKey
	heads  ed25519.PrivateKey
	disk   *simDisk
	skew   atomic.Int64 // nanoseconds that its clock is ahead
	fate   func() (fail, storeFirst bool)
	log    *slog.Logger

	mu   sync.Mutex
	life *simLife // nil while it is off
}

// simLife is a node from one start to the end of it.
type simLife struct {
	*federation.Node
	lists   *hashlist.Lists
	store   *simStore
	handler http.Handler
	ctx     context.Context // of the requests it answers
	end     context.CancelFunc
	ran     sync.WaitGroup
}

// add makes a node. Nodes with one index are faces of one liar: they have the
// same name and keys, and nothing else in common.
func (n *simNet) add(index int) *simNode {
	s := &simNode{net: n, index: index, shown: index, origin: fmt.Sprintf("https://n%03d.example", index), disk: newSimDisk(), log: slog.New(slog.DiscardHandler)}
	host := strings.TrimPrefix(s.origin, "https://")
	seed := make([]byte, ed25519.SeedSize)
	seed[0], seed[1] = byte(index), byte(index>>8)
	s.secret = ed25519.NewKeyFromSeed(seed)
	seed[2] = 1
	s.heads = ed25519.NewKeyFromSeed(seed)
	var err error
	if s.issuer, err = federation.NewIssuer(s.origin+"/users/alice", s.secret); err != nil {
		panic(err)
	}
	s.fate = func() (bool, bool) { return false, false }
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[host] = append(n.hosts[host], s)
	return s
}

func (s *simNode) living() *simLife {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.life
}

func (s *simNode) now() time.Time { return time.Now().Add(time.Duration(s.skew.Load())) }

// start turns the node on. It fails if its disk does.
func (s *simNode) start() error {
	l := &simLife{store: &simStore{simDisk: s.disk, broken: s.net.broken, fate: s.fate}}
	policy := hashlist.DefaultPolicy()
	policy.Own = s.origin
	var err error
	if l.lists, err = hashlist.Open(context.Background(), l.store, policy); err != nil {
		return err
	}
	l.Node, err = federation.New(context.Background(), federation.Config{
		Origin: s.origin, Lists: l.lists, Peers: l.store, Key: simKeys()[s.index%3], HeadKey: s.heads, Version: "sim",
		Issuers:   []federation.LocalIssuer{{Name: "alice", Public: s.issuer.PublicKey()}},
		Transport: simDoor{s.net, s}, Now: s.now, Log: s.log,
	})
	if err != nil {
		l.lists.Close()
		return err
	}
	l.handler = l.Handler()
	l.ctx, l.end = context.WithCancel(context.Background())
	l.ran.Go(func() {
		if err := l.Run(l.ctx); err != nil && !l.store.cut.Load() {
			s.net.broken(s.origin + " has ended by itself: " + err.Error())
		}
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.life = l
	return nil
}

// stop turns the node off. Killed, it stores nothing more from now on, and the positions that
// it saved may be lost.
func (s *simNode) stop(killed, losePositions bool) {
	s.mu.Lock()
	l := s.life
	s.life = nil
	s.mu.Unlock()
	if l == nil {
		return
	}
	l.store.cut.Store(killed)
	l.end()
	l.ran.Wait()
	l.lists.Close()
	s.disk.settle(losePositions)
}

// say makes a statement of the node's admin. It reports whether it was taken for certain.
func (s *simNode) say(v hashlist.Statement) (hashlist.Statement, bool) {
	v.Published = s.now().UTC().Truncate(time.Second)
	r, err := s.issuer.Seal(v)
	if err != nil {
		s.net.broken("seal: " + err.Error())
		return v, false
	}
	return r.Statement, s.apply(r)
}

func (s *simNode) apply(r hashlist.Record) bool {
	for range 100 {
		l := s.living()
		if l == nil {
			return false
		}
		if _, err := l.lists.Apply(context.Background(), r); err == nil {
			return true
		}
	}
	return false
}

func (s *simNode) list(name string) string { return s.origin + "/lists/" + name }

func (s *simNode) define(list, summary string, audience hashlist.Audience) (hashlist.Statement, bool) {
	return s.say(hashlist.Statement{Kind: hashlist.DefineList, List: list, Definition: &hashlist.Definition{
		Name: list[strings.LastIndexByte(list, '/')+1:], Summary: summary, Labels: []string{"spam"}, Audience: audience,
		Action: hashlist.Reject, Radii: hashlist.DefaultRadii,
	}})
}

func (s *simNode) ban(list string, hashes ...hashlist.Hash) (hashlist.Statement, bool) {
	return s.say(hashlist.Statement{Kind: hashlist.AddHashes, List: list, Hashes: hashes})
}

// follow returns how a node stands to a list.
func (s *simNode) follow(list string) federation.FollowStatus {
	for _, f := range s.living().Follows() {
		if f.List == list {
			return f
		}
	}
	return federation.FollowStatus{}
}

func (s *simNode) fold() string {
	var b strings.Builder
	if err := s.living().lists.WriteFold(&b); err != nil {
		s.net.broken(err.Error())
	}
	return b.String()
}

// mustStart starts nodes whose disks do not fail.
func mustStart(t *testing.T, nodes ...*simNode) {
	t.Helper()
	for _, s := range nodes {
		if err := s.start(); err != nil {
			t.Fatal(err)
		}
	}
}

// wait lets time pass until something is so, and returns how long it took. It must be called
// from within the bubble.
func simWait(t *testing.T, what string, most time.Duration, done func() bool) time.Duration {
	t.Helper()
	from := time.Now()
	for step := 100 * time.Millisecond; !done(); step = min(2*step, 30*time.Second) {
		if time.Since(from) > most {
			t.Fatalf("in vain for %v: %s", most, what)
		}
		pause(context.Background(), step)
	}
	return time.Since(from)
}
