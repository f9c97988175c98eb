package federation

import (
	"context"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"

	"github.com/tocsin-fed/tocsin/guarded"
	"github.com/tocsin-fed/tocsin/hashlist"
)

// Config is all that a Node is made of and told.
type Config struct {
	Origin  string // public address of the node, as in https://hashes.example
	Lists   *hashlist.Lists
	Peers   Peers
	Letters Letters          // of single statements; nil if none are sent
	Reviews hashlist.Reviews // before whom disputes are put; nil if nobody looks at them
	Issuers []LocalIssuer
	Key     *rsa.PrivateKey    // signs requests; 2048 bits, as the fediverse demands
	HeadKey ed25519.PrivateKey // signs the heads of the node's lists, and nothing else

	// Loopback lets the node reach out to http addresses and to loopback, and take
	// others there for real. For trying things out on one machine only.
	Loopback bool

	Transport http.RoundTripper // nil for the network, through the guarded dialer
	Now       func() time.Time  // nil for time.Now
	Log       *slog.Logger      // nil for slog.Default. It gets no hash of a list.
	Version   string

	// Doubt is told of each key that an issuer of another node shows beside those it had,
	// and that none of them backs, once it is on the disk. It may be nil, and must not call the Node.
	Doubt func(ctx context.Context, k Key)
}

// LocalIssuer is an admin of this node.
type LocalIssuer struct {
	Name   string            // as in ORIGIN/users/NAME
	Public ed25519.PublicKey // the key that signs now
}

// Bounds on what is remembered of strangers. Each is a cap: what does not fit
// pushes out what was not used for longest.
const (
	maxSigners = 10_000 // keys that signed requests
	maxReplays = 100_000
	maxOrigins = 10_000 // whose pace is watched
)

// Node is this node as others see it: its actors, its inbox, its lists, and
// what it follows. Call New, serve Handler on the public listener, and call Run.
//
// There are four kinds of goroutine, all owned by Run: one that watches the log
// grow, one for each list that is followed, one for each inbox that is delivered to, and one for
// each server that letters wait for. None
// of them waits for another, so a peer that is slow, hostile or gone holds up nobody else.
type Node struct {
	cfg     Config
	log     *slog.Logger
	host    string // of the origin, with its port
	client  *http.Client
	fetch   *fetcher
	schemes *lru.Cache[string, scheme] // by host: how it takes requests

	signers     *lru.Cache[string, peerKey]       // by key id
	fetching    singleflight.Group                // of key ids and actors
	fetches     *places                           // fetches on behalf of strangers
	waiting     *places                           // requests that wait for one
	fetchPaces  *lru.Cache[string, *rate.Limiter] // of such fetches, by origin
	learnPaces  *lru.Cache[string, *rate.Limiter] // of fetches for keys that statements name, by issuer
	failed      *lru.Cache[string, time.Time]     // by key id: when it could not be had
	replays     *lru.Cache[[32]byte, time.Time]   // signatures of requests that were accepted, with when they were made
	forgotten   atomic.Int64                      // Unix seconds: replays has all signatures that were made then or later, and are not too old anyway
	paces       *lru.Cache[string, *rate.Limiter] // by origin
	heard       *lru.Cache[string, time.Time]     // by origin: the last signed request
	inProgress  *semaphore.Weighted               // requests that are being worked on
	misdirected atomic.Int64                      // signed requests for another host
	reading     *semaphore.Weighted               // requests whose bodies are being read
	bodyTime    time.Duration                     // for one of them

	letterPaces  *lru.Cache[string, *rate.Limiter] // of statements that come by themselves, by origin
	disputePaces *lru.Cache[string, *rate.Limiter] // of those of them that a person gets to see
	strangers    *lru.Cache[string, []proofKey]    // keys of issuers who sent one, by issuer
	carrying     *semaphore.Weighted               // letters that are under way

	maxOfOrigin int // followers of a list that are of one server

	bodies *lru.Cache[push, pushed] // of pushes, most of which go to many

	counters Counters

	mu        sync.Mutex                      // guards what follows, but for what is inside a subscription
	follows   map[string]*subscription        // by list
	followers map[string]map[string]*Follower // by list, then actor
	outlets   map[string]*outlet              // by inbox
	keys      map[string][]Key                // by issuer, ours and others'; newest first
	marks     map[string]KeyMark              // by method
	terms     map[string]Terms                // by list
	// trustLists are where issuers of others tell whom they believe, by issuer.
	trustLists map[string]string
	sequences  map[string]*sequence       // of this node's lists, by list
	upTo       uint64                     // place in the log that the sequences reflect
	dirty      map[string]map[string]bool // followers whose Position is to be saved: list, actor
	letters    map[[2]string]*Letter      // by statement and actor
	carriers   map[string]chan struct{}   // by origin: wakes who brings the letters there
	run        context.Context            // while Run runs
	running    sync.WaitGroup             // what Run waits for
}

// New returns the node. What it has agreed with others is read from cfg.Peers, and cfg.Lists is told
// which lists of others to heed.
func New(ctx context.Context, cfg Config) (*Node, error) {
	origin, err := hashlist.Origin(cfg.Origin)
	if err != nil || origin != cfg.Origin {
		return nil, fmt.Errorf("origin %.80q is not scheme and host alone", cfg.Origin)
	}
	if cfg.Key == nil || cfg.Key.N.BitLen() < 2048 || len(cfg.HeadKey) != ed25519.PrivateKeySize {
		return nil, errors.New("a node needs an RSA key of 2048 bits and an Ed25519 key for the heads of its lists")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	u, err := url.Parse(origin)
	if err != nil {
		return nil, fmt.Errorf("origin: %w", err)
	}
	n := &Node{
		cfg: cfg, log: cfg.Log, host: u.Host,
		fetches: &places{most: maxFetches, each: maxFetchesOf}, waiting: &places{most: maxWaiting, each: maxWaitingOf}, inProgress: semaphore.NewWeighted(maxRequests),
		reading: semaphore.NewWeighted(maxReading), bodyTime: bodyTime, maxOfOrigin: maxOfOrigin,
		schemes: cacheOf[string, scheme](maxOrigins), signers: cacheOf[string, peerKey](maxSigners),
		fetchPaces: cacheOf[string, *rate.Limiter](maxOrigins), learnPaces: cacheOf[string, *rate.Limiter](maxOrigins),
		failed: cacheOf[string, time.Time](maxOrigins), paces: cacheOf[string, *rate.Limiter](maxOrigins),
		heard: cacheOf[string, time.Time](maxOrigins), bodies: cacheOf[push, pushed](64),
		follows: map[string]*subscription{}, followers: map[string]map[string]*Follower{}, outlets: map[string]*outlet{},
		letterPaces: cacheOf[string, *rate.Limiter](maxOrigins), disputePaces: cacheOf[string, *rate.Limiter](maxOrigins),
		strangers: cacheOf[string, []proofKey](keysOfStrange), carrying: semaphore.NewWeighted(maxCarried),
		letters: map[[2]string]*Letter{}, carriers: map[string]chan struct{}{},
		marks: map[string]KeyMark{}, terms: map[string]Terms{}, trustLists: map[string]string{},
		keys: map[string][]Key{}, sequences: map[string]*sequence{}, dirty: map[string]map[string]bool{},
	}
	// What came before the start is remembered by nobody, so signatures from before it are not believed.
	n.forgotten.Store(n.now().Unix())
	if n.replays, err = lru.NewWithEvict(maxReplays, n.forget); err != nil {
		return nil, err
	}
	n.client = &http.Client{Transport: cfg.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if cfg.Transport == nil {
		n.client = guarded.Client(guarded.Options{Loopback: cfg.Loopback})
	}
	n.fetch = &fetcher{client: n, agent: n.agent(), loopback: cfg.Loopback}
	if err := n.load(ctx); err != nil {
		return nil, err
	}
	return n, nil
}

func cacheOf[K comparable, V any](size int) *lru.Cache[K, V] {
	c, err := lru.New[K, V](size)
	if err != nil {
		panic(err) // only for a size below 1
	}
	return c
}

// load reads what the node has agreed with others.
func (n *Node) load(ctx context.Context) error {
	marks, err := n.cfg.Peers.KeyMarks(ctx)
	if err != nil {
		return err
	}
	for _, m := range marks {
		n.marks[m.Method] = m
	}
	terms, err := n.cfg.Peers.Terms(ctx)
	if err != nil {
		return err
	}
	for _, t := range terms {
		n.terms[t.List] = t
	}
	keys, err := n.cfg.Peers.Keys(ctx)
	if err != nil {
		return err
	}
	for _, k := range keys {
		k.State = n.marks[k.Method].State
		n.keys[k.Issuer] = append(n.keys[k.Issuer], k)
	}
	for _, i := range n.cfg.Issuers {
		if err := n.adopt(ctx, n.cfg.Origin+"/users/"+i.Name, i.Public); err != nil {
			return err
		}
	}
	for issuer := range n.keys {
		if err := n.voidLocked(ctx, issuer); err != nil {
			return err
		}
	}
	follows, err := n.cfg.Peers.Follows(ctx)
	if err != nil {
		return err
	}
	for _, f := range follows {
		s := &subscription{f: f, terms: n.terms[f.List], poke: make(chan struct{}, 1)}
		if s.actor, err = readActor(f.Actor); err != nil {
			return fmt.Errorf("the followed list %s: %w", f.List, err)
		}
		leaves, err := n.cfg.Peers.Leaves(ctx, f.List, 0)
		if err != nil {
			return err
		}
		for _, l := range leaves {
			s.tree.add(l)
		}
		n.follows[f.List] = s
		n.heedLocked(s)
	}
	followers, err := n.cfg.Peers.Followers(ctx)
	if err != nil {
		return err
	}
	for _, f := range followers {
		n.putFollowerLocked(f)
	}
	peers, err := n.cfg.Peers.Peers(ctx)
	if err != nil {
		return err
	}
	for _, p := range peers {
		if o := n.outlets[p.Inbox]; o != nil {
			o.peer = p
		}
	}
	if err := n.loadLetters(ctx); err != nil {
		return err
	}
	return n.extend(ctx)
}

// Run follows and delivers until ctx ends, and returns when every goroutine
// has ended. It must be called once.
func (n *Node) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	n.mu.Lock()
	n.run = ctx
	for _, s := range n.follows {
		n.spawnLocked(func(ctx context.Context) { n.attend(ctx, s) })
	}
	for _, o := range n.outlets {
		n.spawnLocked(func(ctx context.Context) { n.deliver(ctx, o) })
	}
	n.spawnLocked(n.flush)
	n.carryAllLocked()
	n.spawnLocked(n.rely)
	n.mu.Unlock()

	err := n.watch(ctx)
	stop()
	n.mu.Lock()
	n.run = nil
	n.mu.Unlock()
	n.running.Wait()
	n.client.CloseIdleConnections()
	return errors.Join(err, n.savePositions(context.WithoutCancel(ctx)))
}

// spawnLocked runs f as one of Run's goroutines. Before Run it does nothing,
// because Run starts what is there; after it, there is nothing to do.
func (n *Node) spawnLocked(f func(ctx context.Context)) {
	if ctx := n.run; ctx != nil && ctx.Err() == nil {
		n.running.Go(func() { f(ctx) })
	}
}

// agent is how this node names itself to others.
func (n *Node) agent() string { return "tocsin/" + n.cfg.Version + " (+" + n.cfg.Origin + ")" }

func (n *Node) now() time.Time { return n.cfg.Now().UTC() }

// stamp is now as it is stored.
func (n *Node) stamp() time.Time { return n.now().Truncate(time.Microsecond) }

// watch keeps the sequences of this node's lists up with the log, and wakes
// those who deliver.
func (n *Node) watch(ctx context.Context) error {
	for {
		n.mu.Lock()
		seq := n.upTo
		n.mu.Unlock()
		err := n.cfg.Lists.Wait(ctx, seq)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, hashlist.ErrClosed):
			<-ctx.Done()
			return nil
		case err != nil:
			return err
		}
		if err := n.extend(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// extend reads what the log has grown by into the sequences of this node's
// lists. It holds the lock meanwhile, which keeps the sequences and upTo in step; what is new is
// little, but for the first time.
func (n *Node) extend(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	grown := map[string]bool{}
	for r, err := range n.cfg.Lists.After(ctx, n.upTo, hashlist.Selection{Bare: true}) {
		if err != nil {
			return fmt.Errorf("read the log behind statement %d: %w", n.upTo, err)
		}
		n.upTo = r.Seq
		if !n.ours(r.Statement.List) {
			continue
		}
		s := n.sequences[r.Statement.List]
		if s == nil {
			s = &sequence{}
			n.sequences[r.Statement.List] = s
		}
		s.seqs = append(s.seqs, r.Seq)
		s.tree.add(leafOf(r.Statement.ID))
		grown[r.Statement.List] = true
	}
	for list := range grown {
		for _, f := range n.followers[list] {
			if o := n.outlets[f.Inbox]; o != nil && f.State == FollowerApproved {
				o.wakeUp()
			}
		}
	}
	return nil
}

// ours reports whether an address is of this node.
func (n *Node) ours(iri string) bool {
	o, err := hashlist.Origin(iri)
	return err == nil && o == n.cfg.Origin
}

// publicKeys are those that heads of a list of this node are checked with.
func (n *Node) headKey() ed25519.PublicKey { return n.cfg.HeadKey.Public().(ed25519.PublicKey) }

// Counters tell what became of what others sent, since the start.
type Counters struct {
	Accepted     uint64 // requests that were signed as they must be, and acted on
	Refused      uint64 // requests that were not
	Replayed     uint64 // of those refused, seen before
	Ignored      uint64 // activities of a kind that means nothing here
	Statements   uint64 // of other nodes that were taken over
	UnknownKinds uint64 // statements of kinds that this program does not know
	Delivered    uint64 // activities that a peer took
	Failed       uint64 // deliveries that failed
}

// Counters tells what became of what others sent.
func (n *Node) Counters() Counters {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.counters
}

func (n *Node) count(f func(*Counters)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f(&n.counters)
}

// sortedKeys gives maps an order that people can rely on.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
