package server

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
	"google.golang.org/grpc/metadata"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// A token's secret is "tocsin_" and 32 random bytes in base64url without
// padding. The prefix lets scanners find one that was published by mistake.
const (
	secretPrefix = "tocsin_"
	secretBytes  = 32
)

func newSecret() string {
	var b [secretBytes]byte
	rand.Read(b[:]) // never fails since Go 1.24
	return secretPrefix + base64.RawURLEncoding.EncodeToString(b[:])
}

// secretSum returns the SHA-256 of a secret, and false for what cannot be one.
// The sum finds the token: to compare it in constant time would gain nothing,
// since nobody can choose a secret by its sum.
func secretSum(secret string) ([32]byte, bool) {
	digits, ok := strings.CutPrefix(secret, secretPrefix)
	if !ok || len(digits) != base64.RawURLEncoding.EncodedLen(secretBytes) {
		return [32]byte{}, false
	}
	var b [secretBytes]byte
	// The decoder passes over line breaks, so the count is checked too.
	if n, err := base64.RawURLEncoding.Strict().Decode(b[:], []byte(digits)); err != nil || n != secretBytes {
		return [32]byte{}, false
	}
	return sha256.Sum256([]byte(secret)), true
}

var scopes = [...]Scope{ScopeLookup, ScopeSubmit, ScopeAdmin}

// includes reports whether s allows what needs scope o.
func (s Scope) includes(o Scope) bool {
	have, need := slices.Index(scopes[:], s), slices.Index(scopes[:], o)
	return need >= 0 && have >= need
}

// caller is who makes a call. The owner of the unix socket has no key: nothing
// limits it and it cannot be revoked.
type caller struct {
	name  string
	scope Scope
	key   *key
}

// key is a token in use.
type key struct {
	Token
	live context.Context // ends when the token is revoked
	end  context.CancelFunc
	rate *rate.Limiter  // nil for no limit
	asks rate.Sometimes // when a question that met something is logged
}

// spend takes n lookups from what the caller may make.
func (c *caller) spend(n int) error {
	if c.key == nil || c.key.rate == nil {
		return nil
	}
	now := time.Now()
	r := c.key.rate.ReserveN(now, n)
	if !r.OK() {
		return refuse(errLimit, "%d lookups at once are more than the %d this token may make: ask for fewer", n, c.key.rate.Burst())
	}
	if wait := r.DelayFrom(now); wait > 0 {
		r.CancelAt(now)
		return &fault{class: errLimit, retry: wait,
			text: fmt.Sprintf("token %s makes more than %v lookups a second: try again in %v", c.name, c.key.rate.Limit(), wait.Round(time.Millisecond))}
	}
	return nil
}

// askEvery is how often the log names a token whose questions meet what is listed.
const askEvery = time.Second

// asked leaves a trace of a question that was answered with a hold or a rejection, beside which nothing is kept: whoever
// has got hold of a token could try hash after hash, and nobody would know whose it is. The owner of the socket leaves none.
func (s *Server) asked(ctx context.Context, r *hashlist.Result) {
	c := callerOf(ctx)
	if c == nil || c.key == nil || r.Verdict < hashlist.VerdictHold {
		return
	}
	c.key.asks.Do(func() {
		s.log.Info("a question met what is listed", slog.String("caller", c.name), slog.String("verdict", r.Verdict.String()))
	})
}

// keyring holds the tokens, the store's and its own copy of them. Each token
// carries its own limiter: there are no more of those than tokens, and none is
// ever evicted and so refilled.
type keyring struct {
	store Tokens
	limit Limit

	change sync.Mutex // held while the store and keys change together

	mu   sync.RWMutex // guards keys
	keys map[[32]byte]*key
}

func openKeyring(ctx context.Context, store Tokens, limit Limit) (*keyring, error) {
	k := &keyring{store: store, limit: limit, keys: map[[32]byte]*key{}}
	tokens, err := store.Tokens(ctx)
	if err != nil {
		return nil, fmt.Errorf("read tokens: %w", err)
	}
	for _, t := range tokens {
		if !t.Scope.Valid() {
			return nil, fmt.Errorf("token %.80q has the unknown scope %.80q", t.Name, t.Scope)
		}
		k.add(t)
	}
	return k, nil
}

func (k *keyring) add(t Token) {
	v := &key{Token: t, asks: rate.Sometimes{Interval: askEvery}}
	v.live, v.end = context.WithCancel(context.Background())
	if k.limit.LookupsPerSecond > 0 {
		v.rate = rate.NewLimiter(rate.Limit(k.limit.LookupsPerSecond), k.limit.Burst)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys[t.Sum] = v
}

// create makes a token and returns it with its secret, which nothing keeps.
func (k *keyring) create(ctx context.Context, name string, scope Scope, expires time.Time) (Token, string, error) {
	if err := hashlist.CheckName(name); err != nil {
		return Token{}, "", invalid("name of the token", err)
	}
	if !scope.Valid() {
		return Token{}, "", refuse(errInvalid, "unknown scope %.40q (want lookup, submit, admin, blocks or read:LIST)", string(scope))
	}
	secret := newSecret()
	sum, _ := secretSum(secret)
	t := Token{Name: name, Scope: scope, Sum: sum, Created: time.Now().UTC().Truncate(time.Second), Expires: expires}
	if !expires.IsZero() && !expires.After(time.Now()) {
		return Token{}, "", refuse(errInvalid, "the token would end at %s, which is past", expires.Format(time.RFC3339))
	}
	k.change.Lock()
	defer k.change.Unlock()
	if err := k.store.SaveToken(ctx, t); err != nil {
		return Token{}, "", fmt.Errorf("save token %s: %w", name, err)
	}
	k.add(t)
	return t, secret, nil
}

// revoke ends a token, and the calls that are being made with it.
func (k *keyring) revoke(ctx context.Context, name string) error {
	k.change.Lock()
	defer k.change.Unlock()
	if err := k.store.DeleteToken(ctx, name); err != nil {
		return fmt.Errorf("revoke token %.80s: %w", name, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for sum, v := range k.keys {
		if v.Name == name {
			delete(k.keys, sum)
			v.end()
		}
	}
	return nil
}

// all returns the tokens by name.
func (k *keyring) all() []Token {
	k.mu.RLock()
	defer k.mu.RUnlock()
	var all []Token
	for _, v := range k.keys {
		all = append(all, v.Token)
	}
	slices.SortFunc(all, func(a, b Token) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// find returns who a secret belongs to.
func (k *keyring) find(secret string) (*caller, error) {
	sum, ok := secretSum(secret)
	if !ok {
		return nil, refuse(errNobody, "that is no token: it begins with %s and has %d characters behind", secretPrefix,
			base64.RawURLEncoding.EncodedLen(secretBytes))
	}
	k.mu.RLock()
	v := k.keys[sum]
	k.mu.RUnlock()
	if v == nil {
		return nil, refuse(errNobody, "unknown token: it may have been revoked")
	}
	if !v.Expires.IsZero() && !time.Now().Before(v.Expires) {
		return nil, refuse(errNobody, "token %s ended at %s", v.Name, v.Expires.Format(time.RFC3339))
	}
	return &caller{name: v.Name, scope: v.Scope, key: v}, nil
}

// bearer takes the secret from a call's metadata.
func bearer(md metadata.MD) (string, error) {
	switch v := md.Get("authorization"); {
	case len(v) == 0:
		return "", refuse(errNobody, "no token: send one as metadata authorization: Bearer TOKEN")
	case len(v) > 1:
		return "", refuse(errNobody, "more than one authorization was sent")
	case len(v[0]) < 7 || !strings.EqualFold(v[0][:7], "bearer "):
		return "", refuse(errNobody, "authorization is not of the form Bearer TOKEN")
	default:
		return v[0][7:], nil
	}
}

// bound returns a context for a call that ends with its token.
func (c *caller) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if c.key == nil {
		return context.WithCancel(ctx)
	}
	var lapsed context.CancelFunc = func() {}
	if !c.key.Expires.IsZero() {
		ctx, lapsed = context.WithDeadlineCause(ctx, c.key.Expires, refuse(errNobody, "token %s ended meanwhile", c.name))
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(c.key.live, func() { cancel(refuse(errNobody, "token %s was revoked", c.name)) })
	return ctx, func() { stop(); cancel(nil); lapsed() }
}

// strikes counts failed authentications by address. A good token is let
// through whatever others did from the same address: behind a proxy or a
// container's bridge all callers share one, and pict-rs refuses every upload
// whose hook does not answer. Nobody can guess 256 bits at any speed, so what is
// to be kept small is what a failure costs: beyond the limit it is neither
// logged nor explained.
type strikes struct {
	seen *lru.Cache[netip.Prefix, *rate.Limiter]
}

const (
	strikeBurst  = 10
	strikeEvery  = time.Minute / 10
	strikeMemory = 4096 // addresses
)

func newStrikes() *strikes {
	c, err := lru.New[netip.Prefix, *rate.Limiter](strikeMemory)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &strikes{c}
}

// note records a failure and reports whether it is within the limit.
func (s *strikes) note(addr net.Addr) bool {
	from := network(addr)
	l, ok := s.seen.Get(from)
	if !ok {
		l = rate.NewLimiter(rate.Every(strikeEvery), strikeBurst)
		if before, ok, _ := s.seen.PeekOrAdd(from, l); ok {
			l = before
		}
	}
	return l.Allow()
}

var errStrikes = refuse(errLimit, "too many calls without a good token from this address")

// network is what one caller can be expected to hold: an IPv4 address, or the
// 64-bit network of an IPv6 address.
func network(addr net.Addr) netip.Prefix {
	var ip netip.Addr
	if a, ok := addr.(*net.TCPAddr); ok {
		ip = a.AddrPort().Addr().Unmap().WithZone("")
	} else if addr != nil {
		if ap, err := netip.ParseAddrPort(addr.String()); err == nil {
			ip = ap.Addr().Unmap().WithZone("")
		}
	}
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits) // the zero Prefix for an address of no IP network
	return p
}
