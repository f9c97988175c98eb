package federation

import (
	"bytes"
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// activityMediaType is that of all we send but heads.
const activityMediaType = "application/activity+json"

const (
	sendTime  = 45 * time.Second // for one request of ours and its answer: some servers answer when they have worked all of it off (Fedify)
	maxAnswer = 64 << 10         // bytes of an answer that are read where nothing is expected
	keyAge    = 24 * time.Hour   // after which a key is fetched again
	keyAgain  = time.Minute      // between two fetches of a key that did not fit
	keyFailed = 10 * time.Second // between two fetches of a key that could not be had
)

// Bounds on fetches of keys on behalf of strangers, in all and from one origin: one that
// answers slowly holds up its own.
const (
	maxFetches, maxFetchesOf = 32, 4   // at once
	maxWaiting, maxWaitingOf = 128, 16 // requests that wait for one; fewer than maxRequests
)

// peerKey is a key that signs requests, and whose it is.
type peerKey struct {
	actor   *remoteActor // ID, Inbox and SharedInbox alone: there may be 10,000 of these, and a document has up to 64 KiB
	public  *rsa.PublicKey
	fetched time.Time
}

// nodeKey is the id of the key that signs requests of the node itself; the key
// of a list's requests is the same under an id of the list's.
func (n *Node) nodeKey() string { return n.cfg.Origin + "/actor#main-key" }

func listKey(list string) string { return list + "#main-key" }

// Do signs a request without a body as the node and sends it.
func (n *Node) Do(r *http.Request) (*http.Response, error) {
	return n.send(r.Context(), r.Method, r.URL.String(), n.nodeKey(), nil, r.Header)
}

// send signs a request and sends it. It begins with the scheme that the host took
// last, and knocks once more with the other if that is refused.
func (n *Node) send(ctx context.Context, method, address, keyID string, body []byte, header http.Header) (*http.Response, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("address %.200q cannot be read", address)
	}
	first, known := n.schemes.Get(u.Host)
	if !known {
		// A server that does not know RFC 9421 says so to a POST, but some answer a GET with less than
		// they would (Misskey).
		first = scheme9421
		if method == http.MethodGet {
			first = schemeCavage
		}
	}
	for _, s := range [...]scheme{first, schemeCavage + scheme9421 - first} {
		var content io.Reader
		if body != nil {
			content = bytes.NewReader(body)
		}
		r, err := http.NewRequestWithContext(ctx, method, address, content)
		if err != nil {
			return nil, err
		}
		for name, values := range header {
			r.Header[name] = values
		}
		if body != nil && r.Header.Get("Content-Type") == "" {
			r.Header.Set("Content-Type", activityMediaType)
		}
		r.Header.Set("User-Agent", n.agent())
		if err := signRequest(r, body, keyID, n.cfg.Key, s, n.now()); err != nil {
			return nil, fmt.Errorf("sign request: %w", err)
		}
		answer, err := n.client.Do(r)
		if err != nil {
			return nil, err
		}
		if c := answer.StatusCode; s == first && (c == http.StatusUnauthorized || c == http.StatusForbidden || c == http.StatusBadRequest || c >= 500) {
			drain(answer)
			continue
		}
		// That a GET was answered says little: some hosts answer those that are not signed.
		if answer.StatusCode < 300 && (method == http.MethodPost || s != first) {
			n.schemes.Add(u.Host, s)
		}
		return answer, nil
	}
	panic("unreachable: the second scheme always returns")
}

func drain(answer *http.Response) {
	io.CopyN(io.Discard, answer.Body, maxAnswer) // so that the connection can be used again
	answer.Body.Close()
}

// post delivers an activity to an inbox. A statusError tells what the other side said.
func (n *Node) post(ctx context.Context, inbox, keyID string, body []byte) error {
	if !n.cfg.Loopback && !outside(inbox) {
		return fmt.Errorf("%s is not an https address", inbox)
	}
	ctx, cancel := context.WithTimeout(ctx, sendTime)
	defer cancel()
	answer, err := n.send(ctx, http.MethodPost, inbox, keyID, body, nil)
	if err != nil {
		return err
	}
	defer drain(answer)
	if answer.StatusCode >= 200 && answer.StatusCode < 300 {
		return nil
	}
	return &statusError{Address: inbox, Code: answer.StatusCode, RetryAfter: retryAfter(answer.Header.Get("Retry-After"), n.now())}
}

func outside(address string) bool {
	u, err := url.Parse(address)
	return err == nil && u.Scheme == "https"
}

// What becomes of a request that is not believed. The text goes back to who sent it.
var (
	errReplay   = errors.New("this signature was seen before")
	errOld      = errors.New("this signature is older than what this node remembers: sign again")
	errBusy     = errors.New("too many requests at once: try again later")
	errTooOften = errors.New("too many requests of your server: try again later")
)

// authenticate returns who signed a request. body is nil for a request without one.
func (n *Node) authenticate(r *http.Request, body []byte) (*remoteActor, error) {
	who, _, err := n.authenticateSigned(r, body)
	return who, err
}

// authenticateOnce does the same for a request that changes something, and refuses it if it came before.
func (n *Node) authenticateOnce(r *http.Request, body []byte) (*remoteActor, error) {
	who, sig, err := n.authenticateSigned(r, body)
	if err != nil {
		return nil, err
	}
	if sig.Created.Unix() < n.remembers() {
		return nil, errOld
	}
	made := sig.Created
	if now := n.now(); made.After(now) {
		made = now // who dates ahead must not make this node refuse what others sign now
	}
	if seen, _ := n.replays.ContainsOrAdd(sig.replayKey(), made); seen {
		return nil, errReplay
	}
	return who, nil
}

// remembers returns since when, in Unix seconds, no signature was forgotten. If that is to come, the
// clock was ahead and has been set right: then it is now. A node that came up with its
// clock a year ahead would otherwise believe nobody for a year.
func (n *Node) remembers() int64 {
	for {
		since, now := n.forgotten.Load(), n.now().Unix()
		if since <= now+1 { // forget adds one
			return since
		}
		if n.forgotten.CompareAndSwap(since, now) {
			return now
		}
	}
}

// forget notes that a signature is remembered no more: what is as old is not believed
// from then on. Otherwise whoever sends enough could have this node forget what
// others sent, and send that again.
func (n *Node) forget(_ [32]byte, made time.Time) {
	for {
		was := n.forgotten.Load()
		if was > made.Unix() || n.forgotten.CompareAndSwap(was, made.Unix()+1) {
			return
		}
	}
}

func (n *Node) authenticateSigned(r *http.Request, body []byte) (*remoteActor, *requestSignature, error) {
	sig, err := readSignature(r)
	if err != nil {
		return nil, nil, err
	}
	if r.Host != n.host && n.misdirected.Add(1)&(n.misdirected.Load()-1) == 0 { // ever rarer
		n.log.Warn("a signed request came for another host than this node's: a proxy in front of it must pass on the Host that was asked for, with its port",
			"host", printable(r.Host, 100), "want", n.host)
	}
	origin, err := hashlist.Origin(withoutFragment(sig.KeyID))
	if err != nil {
		return nil, nil, fmt.Errorf("key of the signature: %w", err)
	}
	if origin == n.cfg.Origin {
		return nil, nil, errors.New("this node does not write to itself")
	}
	who, cached, err := n.signer(r.Context(), sig.KeyID, keyAge)
	if err != nil {
		return nil, nil, err
	}
	err = sig.verify(r, body, n.cfg.Origin, who.public, n.now())
	if err != nil && cached {
		// The key may have been replaced since.
		if again, cached, fetchErr := n.signer(r.Context(), sig.KeyID, keyAgain); fetchErr == nil && !cached {
			who = again
			err = sig.verify(r, body, n.cfg.Origin, who.public, n.now())
		}
	}
	if err != nil {
		return nil, nil, err
	}
	// Only now that it is theirs: else anybody could use up what another server may.
	if !allowed(n.paces, origin, 50, 500) {
		return nil, nil, errTooOften
	}
	n.hear(origin)
	return who.actor, sig, nil
}

// allowed reports whether an origin may do something once more, at so many a second and a burst.
func allowed(paces *lru.Cache[string, *rate.Limiter], origin string, each rate.Limit, burst int) bool {
	pace, ok := paces.Get(origin)
	if !ok {
		pace = rate.NewLimiter(each, burst)
		paces.Add(origin, pace)
	}
	return pace.Allow()
}

// hear notes that a server is alive, and takes up delivery to it again.
func (n *Node) hear(origin string) {
	n.heard.Add(origin, n.now())
	n.mu.Lock()
	defer n.mu.Unlock()
	for inbox, o := range n.outlets {
		if (o.peer.Retired || o.peer.Failures > 0) && isOf(inbox, origin) {
			o.revive = true
			o.wakeUp()
		}
	}
}

// within reports whether at is less than age ago. What is to come is not: the
// clock was ahead then, and waiting for it could take for ever.
func (n *Node) within(at time.Time, age time.Duration) bool {
	ago := n.now().Sub(at)
	return ago >= 0 && ago < age
}

// signer returns the key of the given id, fetched no longer ago than age, and whether it was
// remembered. Nobody has proved anything yet who has a key fetched: what that costs this node and
// the origin of the key is bounded for each origin.
func (n *Node) signer(ctx context.Context, keyID string, age time.Duration) (peerKey, bool, error) {
	known, ok := n.signers.Get(keyID)
	if ok && n.within(known.fetched, age) {
		return known, true, nil
	}
	found, err := n.fetchSigner(ctx, keyID)
	switch {
	case err == nil:
		return found, false, nil
	case ok && (errors.Is(err, errTooOften) || errors.Is(err, errBusy)):
		return known, true, nil // old, but others must not be able to make it unknown
	}
	return peerKey{}, false, fmt.Errorf("key %.200s: %w", keyID, err)
}

func (n *Node) fetchSigner(ctx context.Context, keyID string) (peerKey, error) {
	origin, err := hashlist.Origin(keyID)
	if err != nil {
		return peerKey{}, err
	}
	if at, ok := n.failed.Get(keyID); ok && n.within(at, keyFailed) {
		return peerKey{}, errors.New("it could not be had a moment ago: try again later")
	}
	if !n.waiting.enter(origin) {
		return peerKey{}, errBusy
	}
	defer n.waiting.leave(origin)
	// Others may wait for the same key: it is not fetched in the name of one of them.
	found, err, _ := n.fetching.Do("key "+keyID, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sendTime)
		defer cancel()
		if !n.fetches.enter(origin) {
			return nil, errBusy
		}
		defer n.fetches.leave(origin)
		if !allowed(n.fetchPaces, origin, 2, 60) {
			return nil, errTooOften
		}
		actor, public, err := n.fetch.key(ctx, keyID)
		if err != nil {
			n.failed.Add(keyID, n.now())
			return nil, err
		}
		s := peerKey{&remoteActor{ID: actor.ID, Inbox: actor.Inbox, SharedInbox: actor.SharedInbox}, public, n.now()}
		n.signers.Add(keyID, s)
		return s, nil
	})
	if err != nil {
		return peerKey{}, err
	}
	return found.(peerKey), nil
}

// places bounds how many do something at once, in all and for each origin.
type places struct {
	most, each int

	mu  sync.Mutex // guards what follows
	all int
	of  map[string]int
}

// enter reports whether there was a place. It is given back with leave.
func (p *places) enter(origin string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all >= p.most || p.of[origin] >= p.each {
		return false
	}
	if p.of == nil {
		p.of = map[string]int{}
	}
	p.all++
	p.of[origin]++
	return true
}

func (p *places) leave(origin string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all--
	if p.of[origin]--; p.of[origin] == 0 {
		delete(p.of, origin)
	}
}

func withoutFragment(iri string) string {
	before, _, _ := cutFragment(iri)
	return before
}

// backoff is how long to wait after so many failures in a row: 1.25^(n-1)
// seconds, as Lemmy does, at most longest, less up to a fifth so that peers that went away together do not
// come back together.
func (n *Node) backoff(failures uint32, longest time.Duration) time.Duration {
	d := float64(time.Second)
	for range min(failures, 100) - 1 {
		d *= 1.25
	}
	return jitter(min(time.Duration(min(d, float64(longest))), longest))
}

// bounded is an error's text, as it is stored and shown.
func bounded(err error) string { return printable(err.Error(), 1000) }

// String returns cavage or rfc9421.
func (s scheme) String() string {
	if s == schemeCavage {
		return "cavage"
	}
	return "rfc9421"
}
