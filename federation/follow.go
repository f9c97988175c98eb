package federation

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/time/rate"

	"github.com/tocsin-fed/tocsin/hashlist"
)

const (
	askEvery    = 24 * time.Hour   // a Follow that was not answered is sent again
	pollEvery   = 10 * time.Minute // a list is asked for what no push told of
	renewEvery  = 24 * time.Hour   // the actors of a list and its issuers are read again
	maxPullWait = time.Hour        // between two tries to read a list that cannot be reached
	maxAskWait  = 24 * time.Hour   // between two tries to deliver a Follow or its Undo
	giveUpUndo  = 7 * 24 * time.Hour
	pageTime    = time.Minute // for one page of a list's log
	maxPageRead = 8 << 20     // bytes of one, unpacked
	maxKeys     = 256         // of an issuer, ever: they are not forgotten
)

// subscription is a list of another node that this node follows, or did.
type subscription struct {
	poke chan struct{} // has room for one: there is news, or the state has changed

	// mu is held while statements are taken over, so that they come in order,
	// by whichever way they come. It is never held while another server is waited for.
	mu      sync.Mutex
	f       Follow
	actor   *remoteActor // what f.Actor says
	tree    tree         // of what was taken over
	unsure  bool         // more leaves may be stored than are in tree: writing them failed, or seemed to
	shown   int64        // the largest size of a head that the publisher has shown
	checked time.Time    // when it was last asked successfully
	renewed time.Time    // when its actors were last read
	stale   bool         // they have changed since
	// compared is when other nodes were last asked for their heads. Not each time the actors are
	// read: the publisher can bring that about as often as it likes, and they have not asked for it.
	compared time.Time
	busy     bool // attend runs
}

func (s *subscription) nudge() {
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

func (s *subscription) follow() Follow {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.f
}

// update changes the follow, durably.
func (n *Node) update(ctx context.Context, s *subscription, change func(*Follow)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return n.updateLocked(ctx, s, change)
}

func (n *Node) updateLocked(ctx context.Context, s *subscription, change func(*Follow)) error {
	f := s.f
	change(&f)
	if err := n.cfg.Peers.SaveFollow(ctx, f); err != nil {
		return fmt.Errorf("save the follow of %s: %w", f.List, err)
	}
	s.f = f
	return nil
}

// attend does what is to be done about one list, until ctx ends or it was unfollowed.
func (n *Node) attend(ctx context.Context, s *subscription) {
	s.mu.Lock()
	if s.busy {
		s.mu.Unlock()
		return
	}
	s.busy = true // until leave says otherwise, or for good once ctx has ended
	s.mu.Unlock()
	var failures uint32
	for {
		wait, longest, err := n.advance(ctx, s)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			failures++
			wait = n.backoff(failures, longest)
			f := s.follow()
			n.log.Warn("a followed list is in trouble", "list", f.List, "error", err, "next", wait.Round(time.Second))
		} else {
			failures = 0
		}
		n.noteTrouble(ctx, s, err)
		if wait < 0 {
			if n.leave(s) {
				return
			}
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-s.poke:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// over reports whether nothing is left to be done about a follow.
func (n *Node) over(f Follow) bool {
	return f.State == FollowEnded && (f.Told || n.now().Sub(f.Answered) > giveUpUndo)
}

// leave reports whether a list needs no attention any more. What it decides is
// decided with busy: who changes the follow later finds nobody busy, and begins anew.
func (n *Node) leave(s *subscription) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n.over(s.f) {
		s.busy = false
		return true
	}
	return false
}

// noteTrouble keeps what is wrong with a list for people to see.
func (n *Node) noteTrouble(ctx context.Context, s *subscription, err error) {
	text := ""
	if err != nil {
		text = bounded(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// What two who compared have found stays until it was dealt with: the publisher goes on as if
	// nothing were, and so nothing else would be wrong.
	if s.f.Trouble == text || s.f.State == FollowDiverged || strings.HasPrefix(s.f.Trouble, otherHistory) {
		return
	}
	if err := n.updateLocked(ctx, s, func(f *Follow) { f.Trouble = text }); err != nil {
		n.log.Error("could not note what is wrong with a list", "error", err)
	}
}

// advance takes the next step. It returns how long to wait before the one
// after it, less than 0 for ever, and how long at most if it failed.
func (n *Node) advance(ctx context.Context, s *subscription) (wait, longest time.Duration, err error) {
	switch f := s.follow(); f.State {
	case FollowAsked:
		return jitter(askEvery), maxAskWait, n.ask(ctx, s, f)
	case FollowAccepted:
		if !f.Told {
			if err := n.ask(ctx, s, f); err != nil {
				return 0, maxPullWait, err
			}
		}
		err := n.pull(ctx, s)
		var said *statusError
		if errors.As(err, &said) && slices.Contains([]int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound}, said.Code) {
			// Perhaps it was ended over there, and what told so was overtaken by the approval: it is asked once more.
			err = errors.Join(err, n.update(ctx, s, func(f *Follow) { f.Told = false }))
		}
		return jitter(pollEvery), maxPullWait, err
	case FollowEnded:
		if n.over(f) {
			return -1, 0, nil
		}
		body, err := undoFollow(n.cfg.Origin+"/follows/"+token(), f.ID, n.cfg.Origin+"/actor", f.List)
		if err != nil {
			return 0, maxAskWait, err
		}
		if err := n.post(ctx, s.inbox(), n.nodeKey(), body); err != nil {
			return 0, maxAskWait, fmt.Errorf("tell that it is followed no more: %w", err)
		}
		return -1, maxAskWait, n.told(ctx, s, f)
	}
	return renewEvery, maxAskWait, nil
}

// ask sends a Follow.
func (n *Node) ask(ctx context.Context, s *subscription, f Follow) error {
	body, err := followActivity(f.ID, n.cfg.Origin+"/actor", f.List)
	if err != nil {
		return err
	}
	if err := n.post(ctx, s.inbox(), n.nodeKey(), body); err != nil {
		return fmt.Errorf("ask to follow: %w", err)
	}
	return n.told(ctx, s, f)
}

// told notes that the publisher has heard what was sent of a follow as it was
// then. Meanwhile somebody may have ended it or asked anew, and of that nothing was heard.
func (n *Node) told(ctx context.Context, s *subscription, then Follow) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.f.ID != then.ID || s.f.State != then.State {
		return nil
	}
	return n.updateLocked(ctx, s, func(f *Follow) { f.Told = true })
}

func (s *subscription) inbox() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.actor.Inbox
}

// pull reads the list's log from where this node is to its end. The next page
// is on its way while one is checked.
func (n *Node) pull(ctx context.Context, s *subscription) error {
	s.mu.Lock()
	list, stale := s.f.List, s.stale || n.now().Sub(s.renewed) > renewEvery
	s.stale = false // they may change again while they are read
	from := s.tree.size
	s.mu.Unlock()
	if stale {
		if err := n.renew(ctx, s); err != nil {
			s.mu.Lock()
			s.stale = true
			s.mu.Unlock()
			return err
		}
	}
	reading, cancel := context.WithCancel(ctx)
	defer cancel()
	pages := make(chan *page)
	var fetchErr error // read after pages is closed
	go func() {
		defer close(pages)
		for at, more := from, true; more; {
			var p *page
			if p, fetchErr = n.fetchPage(reading, list, at); fetchErr != nil {
				return
			}
			if p.start != at || p.more && len(p.items) == 0 {
				fetchErr = fmt.Errorf("%w: page %d of %s begins elsewhere, or is empty and has a next one", ErrRemote, at, list)
				return
			}
			at, more = at+int64(len(p.items)), p.more
			select {
			case pages <- p:
			case <-reading.Done():
				fetchErr = reading.Err()
				return
			}
		}
	}()
	var err error
	for p := range pages {
		if err == nil {
			if err = n.take(ctx, s, p); err != nil {
				cancel()
			}
		}
	}
	if err != nil {
		return err
	}
	if fetchErr != nil {
		return fetchErr
	}
	s.mu.Lock()
	compare := n.now().Sub(s.compared) > compareEvery
	if compare {
		s.compared = n.now()
	}
	s.mu.Unlock()
	if compare {
		n.compareAll(ctx, s)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checked = n.now()
	if s.tree.size < s.shown && s.f.State == FollowAccepted {
		return fmt.Errorf("%w: the log of %s ends at %d statements, but a head it signed says %d: its publisher went back, or holds some back",
			ErrRemote, list, s.tree.size, s.shown)
	}
	return nil
}

func (n *Node) fetchPage(ctx context.Context, list string, at int64) (*page, error) {
	ctx, cancel := context.WithTimeout(ctx, pageTime)
	defer cancel()
	data, err := n.fetch.raw(ctx, fmt.Sprintf("%s/log/%d", list, at), activityMediaType, maxPageRead)
	if err != nil {
		return nil, err
	}
	return readPage(data, list)
}

// opened is a statement of a page after it was looked at.
type opened struct {
	statement hashlist.Statement
	signed    []byte
	err       error
	unknown   bool // of a kind this program does not know, or by a key that counted no more
}

// take takes over what is new on a page: it checks every statement, and the
// head against all there was so far, appends to the log, and remembers the
// place. When it returns without an error all of it is durable.
func (n *Node) take(ctx context.Context, s *subscription, p *page) error {
	var again bool
	for {
		err := n.takeOnce(ctx, s, p)
		var missing *missingKeyError
		if again || !errors.As(err, &missing) {
			return err
		}
		again = true
		if !allowed(n.learnPaces, missing.issuer, rate.Every(keyAgain), 10) {
			return err
		}
		if err := n.learn(ctx, missing.issuer, keyAgain); err != nil {
			return err
		}
	}
}

func (n *Node) takeOnce(ctx context.Context, s *subscription, p *page) error {
	ctx = context.WithoutCancel(ctx) // statements, place and head go together, whoever hangs up meanwhile
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.f.State != FollowAccepted {
		return fmt.Errorf("%w: %s is not followed", ErrState, s.f.List)
	}
	if s.unsure {
		stored, err := n.cfg.Peers.Leaves(ctx, s.f.List, uint64(s.tree.size))
		if err != nil {
			return fmt.Errorf("find the place in %s: %w", s.f.List, err)
		}
		for _, l := range stored {
			s.tree.add(l)
		}
		s.unsure = false
	}
	if p.start > s.tree.size {
		return errGap
	}
	items := p.items[min(s.tree.size-p.start, int64(len(p.items))):]
	all := n.openAll(s, items)
	was := s.tree.size
	var records []hashlist.Record
	var leaves [][32]byte
	var unknown uint64
	received := n.stamp()
	for i, o := range all {
		if o.err != nil {
			return fmt.Errorf("%w: statement %d of %s: %w", ErrRemote, was+int64(i), s.f.List, o.err)
		}
		leaves = append(leaves, leafOf(o.statement.ID))
		if o.unknown {
			unknown++
			continue
		}
		records = append(records, hashlist.Record{Received: received, Statement: o.statement, Signed: o.signed})
	}
	for _, l := range leaves {
		s.tree.add(l)
	}
	top, err := n.agree(s, p)
	if err != nil {
		s.tree.cut(was)
		var d *divergence
		if errors.As(err, &d) {
			n.log.Error("a followed list contradicts itself: nothing more of it is taken over", "list", s.f.List, "error", err)
			err = errors.Join(err, n.updateLocked(ctx, s, func(f *Follow) { f.State, f.Trouble = FollowDiverged, bounded(err) }))
		}
		return err
	}
	if len(records) > 0 {
		if _, err := n.cfg.Lists.Apply(ctx, records...); err != nil {
			s.tree.cut(was)
			return err
		}
	}
	if unknown > 0 {
		// Before their leaves: counted twice they do no harm, uncounted they would pass for lost.
		if err := n.updateLocked(ctx, s, func(f *Follow) { f.Skipped += unknown }); err != nil {
			s.tree.cut(was)
			return err
		}
	}
	if len(leaves) > 0 {
		if err := n.cfg.Peers.AppendLeaves(ctx, s.f.List, uint64(was), leaves); err != nil {
			s.tree.cut(was)
			s.unsure = true
			return fmt.Errorf("remember the place in %s: %w", s.f.List, err)
		}
	}
	n.count(func(c *Counters) { c.Statements += uint64(len(records)); c.UnknownKinds += unknown })
	// Also if nothing is new: the head of what was taken over last may not have been kept.
	if top != nil && !bytes.Equal(top, s.f.Head) {
		return n.updateLocked(ctx, s, func(f *Follow) { f.Head = top })
	}
	return nil
}

// errGap: what was pushed begins behind what this node has.
var errGap = errors.New("there is a gap")

// divergence: the publisher signed two heads, or a head and statements, that cannot both be true.
type divergence struct{ text string }

func (d *divergence) Error() string { return d.text }

// agree checks the head of a page against the statements taken over so far,
// those of the page included. It returns the head if it is of just these.
func (n *Node) agree(s *subscription, p *page) (signed []byte, err error) {
	if p.head == nil {
		return nil, nil
	}
	h, err := openHead(p.head, s.f.List, headKeys(s.actor))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRemote, err)
	}
	if h.size <= s.tree.size {
		if s.tree.root(h.size) != h.root {
			return nil, &divergence{fmt.Sprintf("the head that the publisher of %s signed for %d statements is not of those it sent: "+
				"it shows different histories, or has gone back to a backup; ask it, then `tocsin follow --anew` takes over what it shows now",
				s.f.List, h.size)}
		}
	}
	s.shown = max(s.shown, h.size)
	if h.size == s.tree.size {
		return p.head, nil
	}
	return nil, nil
}

// headKeys are the keys that may sign the heads of a list, by its actor document.
func headKeys(actor *remoteActor) []ed25519.PublicKey {
	var all []ed25519.PublicKey
	for _, m := range actor.Methods {
		if m.Revoked.IsZero() {
			all = append(all, m.Public)
		}
	}
	return all
}

// openAll opens the statements of a page, on all processors.
func (n *Node) openAll(s *subscription, items []json.RawMessage) []opened {
	all := make([]opened, len(items))
	keys := n.keysOf(s.actor.Writers)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(items)) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(items) {
					return
				}
				all[i] = openOf(s.f.List, keys, items[i])
			}
		})
	}
	wg.Wait()
	return all
}

// keysOf returns the keys of issuers as they are known now.
func (n *Node) keysOf(issuers []string) map[string][]Key {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := make(map[string][]Key, len(issuers))
	for _, i := range issuers {
		all[i] = n.keys[i]
	}
	return all
}

// openOf opens a statement of a list whose writers have the given keys.
func openOf(list string, keys map[string][]Key, item []byte) opened {
	// What is kept is the canonical form without what relays may have put beside the
	// statement: the proof covers neither.
	signed, err := withoutSignature(item)
	if err != nil {
		return opened{err: err}
	}
	var used Key
	s, err := Open(signed, func(issuer, method string) (ed25519.PublicKey, error) {
		own, ok := keys[issuer]
		if !ok {
			return nil, fmt.Errorf("%s may not write to %s", issuer, list)
		}
		for _, k := range own {
			if k.Method == method {
				used = k
				return k.Public, nil
			}
		}
		return nil, &missingKeyError{issuer, method}
	})
	unknown := errors.Is(err, ErrUnknownKind)
	if err != nil && !unknown {
		return opened{err: err}
	}
	if s.List != list {
		return opened{err: fmt.Errorf("it is of the list %s", s.List)}
	}
	// Made with a key after that was replaced: its place counts, what it says does not.
	if !used.Expires.IsZero() && !s.Published.Before(used.Expires) {
		unknown = true
	}
	return opened{statement: s, signed: signed, unknown: unknown}
}

// missingKeyError: an issuer signed with a key that this node has not seen.
type missingKeyError struct{ issuer, method string }

func (e *missingKeyError) Error() string {
	return fmt.Sprintf("%s has no key %.200s", e.issuer, e.method)
}

// learn reads the keys of an issuer of another node, unless that was done within age.
func (n *Node) learn(ctx context.Context, issuer string, age time.Duration) error {
	_, err, _ := n.fetching.Do("issuer "+issuer, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sendTime)
		defer cancel()
		raw, err := n.fetch.document(ctx, issuer, maxActor)
		if err != nil {
			return nil, err
		}
		a, err := readActor(raw)
		if err != nil {
			return nil, err
		}
		if a.ID != issuer {
			return nil, fmt.Errorf("%w: at %s is the actor %s", ErrRemote, issuer, a.ID)
		}
		return nil, n.keep(ctx, a)
	})
	if err != nil {
		return fmt.Errorf("keys of %s: %w", issuer, err)
	}
	return nil
}

// keep remembers the keys that an issuer's actor document tells. A key is
// never forgotten, because statements made with it stay; one that is no longer told
// counts as replaced from now on.
func (n *Node) keep(ctx context.Context, a *remoteActor) error {
	now := n.stamp()
	n.mu.Lock()
	defer n.mu.Unlock()
	old := map[string]Key{}
	for _, k := range n.keys[a.ID] {
		old[k.Method] = k
	}
	var changed []Key
	have, tooMany := len(n.keys[a.ID]), false
	for _, m := range a.Methods {
		k, known := old[m.ID]
		delete(old, m.ID)
		if !known && have == maxKeys {
			tooMany = true // what is said about the others still counts
			continue
		}
		if !known {
			have++
			k = Key{Issuer: a.ID, Method: m.ID, Public: m.Public, Seen: now}
			if len(n.keys[a.ID]) > 0 {
				n.log.Warn("an issuer has a new key: ask them over another way whether it is theirs", "issuer", a.ID, "key", m.ID)
			}
		}
		if !known || !k.Expires.Equal(m.Expires) || !k.Revoked.Equal(m.Revoked) {
			if !m.Revoked.IsZero() && !m.Revoked.Equal(k.Revoked) {
				n.log.Warn("an issuer says that a key was in other hands: statements made with it since then act no more",
					"issuer", a.ID, "key", m.ID, "since", m.Revoked)
			}
			k.Expires, k.Revoked = m.Expires, m.Revoked
			changed = append(changed, k)
		}
	}
	for _, k := range old {
		if k.Expires.IsZero() {
			k.Expires = now.Truncate(time.Second)
			changed = append(changed, k)
		}
	}
	if err := n.saveKeysLocked(ctx, a.ID, changed); err != nil || !tooMany {
		return err
	}
	return fmt.Errorf("%w: %s has had more than %d keys", ErrRemote, a.ID, maxKeys)
}

// saveKeysLocked stores changed keys of an issuer and lets them act.
func (n *Node) saveKeysLocked(ctx context.Context, issuer string, changed []Key) error {
	if len(changed) == 0 {
		return nil
	}
	if err := n.cfg.Peers.SaveKeys(ctx, changed); err != nil {
		return fmt.Errorf("save the keys of %s: %w", issuer, err)
	}
	for _, c := range changed {
		n.putKeyLocked(c)
	}
	return n.voidLocked(ctx, issuer)
}

func (n *Node) putKeyLocked(c Key) {
	for i, k := range n.keys[c.Issuer] {
		if k.Method == c.Method {
			all := append([]Key(nil), n.keys[c.Issuer]...) // others hold the slice
			all[i] = c
			n.keys[c.Issuer] = all
			return
		}
	}
	n.keys[c.Issuer] = append([]Key{c}, n.keys[c.Issuer]...)
}

// voidLocked tells the lists which statements of an issuer do not count: those
// made while one of their keys was in other hands.
func (n *Node) voidLocked(ctx context.Context, issuer string) error {
	var spans []hashlist.Span
	for _, k := range n.keys[issuer] {
		if !k.Revoked.IsZero() {
			spans = append(spans, hashlist.Span{From: k.Revoked, Until: k.Expires})
		}
	}
	return n.cfg.Lists.Void(ctx, issuer, spans)
}

// renew reads the actors of a list and of those who write to it again.
func (n *Node) renew(ctx context.Context, s *subscription) error {
	s.mu.Lock()
	list, before := s.f.List, s.actor.Writers
	s.mu.Unlock()
	// First those known: a list may be gone because of what they say of their keys.
	for _, w := range before {
		if err := n.learn(ctx, w, keyAgain); err != nil {
			return err
		}
	}
	actor, err := n.followable(ctx, list)
	if err != nil {
		return err
	}
	for _, w := range actor.Writers {
		if slices.Contains(before, w) {
			continue
		}
		if err := n.learn(ctx, w, keyAgain); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := n.updateLocked(ctx, s, func(f *Follow) { f.Actor = actor.Raw }); err != nil {
		return err
	}
	s.actor, s.renewed = actor, n.now()
	return nil
}

// followable fetches the actor of a list and checks that it is one that can be followed.
func (n *Node) followable(ctx context.Context, iri string) (*remoteActor, error) {
	raw, err := n.fetch.document(ctx, iri, maxActor)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRemote, err)
	}
	a, err := readActor(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRemote, err)
	}
	switch {
	case a.ID != iri:
		return nil, fmt.Errorf("%w: at %s is the actor %s", ErrRemote, iri, a.ID)
	case a.Log != a.ID+"/log" || len(a.Writers) == 0 || len(headKeys(a)) == 0:
		return nil, fmt.Errorf("%w: %s is an actor, but not a list of hashes that tocsin can follow", ErrRemote, iri)
	}
	return a, nil
}

// Follow asks to follow a list of another node, whose address is an IRI or
// @list@host. The publisher is asked in the background until it has answered;
// what it answers is found in Follows. Matches of the list may come to at most
// most here; 0 leaves that as it was, or is reject. Following a list that is followed already changes that and nothing else.
func (n *Node) Follow(ctx context.Context, address string, most hashlist.Verdict) (FollowStatus, error) {
	if most > hashlist.VerdictReject {
		return FollowStatus{}, fmt.Errorf("%w: what its matches may come to is none of allow, flag, hold and reject", ErrState)
	}
	// How far a list is heeded is decided here: its publisher need not be there for it.
	if s, err := n.subscription(address); err == nil && most != 0 {
		if f := s.follow(); f.State == FollowAccepted || f.State == FollowDiverged {
			return n.heed(ctx, s, most)
		}
	}
	iri, err := n.fetch.resolve(ctx, address)
	if err != nil {
		return FollowStatus{}, fmt.Errorf("%w: %w", ErrRemote, err)
	}
	if n.ours(iri) {
		return FollowStatus{}, fmt.Errorf("%w: %s is a list of this node", ErrState, iri)
	}
	actor, err := n.followable(ctx, iri)
	if err != nil {
		return FollowStatus{}, err
	}
	for _, w := range actor.Writers {
		if err := n.learn(ctx, w, keyAgain); err != nil {
			return FollowStatus{}, fmt.Errorf("%w: %w", ErrRemote, err)
		}
	}
	n.mu.Lock()
	s := n.follows[iri]
	if s == nil {
		s = &subscription{poke: make(chan struct{}, 1), f: Follow{List: iri}}
		n.follows[iri] = s
	}
	n.mu.Unlock()
	s.mu.Lock()
	err = n.updateLocked(ctx, s, func(f *Follow) {
		f.Most, f.Actor = cmp.Or(most, f.Most, hashlist.VerdictReject), actor.Raw
		if f.State != FollowAccepted && f.State != FollowDiverged {
			f.ID, f.State, f.Told = n.cfg.Origin+"/follows/"+token(), FollowAsked, false
			f.Asked, f.Answered, f.Trouble = n.stamp(), time.Time{}, ""
		}
	})
	if err != nil {
		empty := s.f.State == 0
		s.mu.Unlock()
		if empty {
			n.mu.Lock()
			delete(n.follows, iri)
			n.mu.Unlock()
		}
		return FollowStatus{}, err
	}
	s.actor, s.renewed, s.compared = actor, n.now(), n.now()
	n.heedLocked(s)
	s.mu.Unlock()
	n.begin(s)
	return n.followStatus(s), nil
}

// heed changes how far a list is heeded.
func (n *Node) heed(ctx context.Context, s *subscription, most hashlist.Verdict) (FollowStatus, error) {
	s.mu.Lock()
	err := n.updateLocked(ctx, s, func(f *Follow) { f.Most = most })
	n.heedLocked(s)
	s.mu.Unlock()
	if err != nil {
		return FollowStatus{}, err
	}
	return n.followStatus(s), nil
}

// heedLocked lets a list act as far as it is to. One that was asked for does not until
// that is accepted, also if it was followed before.
func (n *Node) heedLocked(s *subscription) {
	most := s.f.Most
	if s.f.State == FollowAsked || s.f.State == FollowEnded {
		most = 0
	}
	n.cfg.Lists.Heed(s.f.List, most)
}

// contradict tells the publisher of a list once more how things are. It takes this
// node for a follower by the Follow with the given id, "" if it did not say which, and that is
// not how this node has it: the last thing that one of the two said came too early or
// never, because requests overtake each other.
func (n *Node) contradict(ctx context.Context, s *subscription, follow string) error {
	err := n.update(ctx, s, func(f *Follow) {
		switch f.State {
		case FollowRefused:
			f.State, f.Answered = FollowAsked, time.Time{}
		case FollowEnded:
			f.Answered = n.stamp() // tried for as long as after the end
			if follow != "" {
				f.ID = follow
			}
		}
		f.Told = f.State == FollowDiverged
	})
	if err != nil {
		return err
	}
	n.begin(s)
	return nil
}

// begin sees to it that a list is attended to.
func (n *Node) begin(s *subscription) {
	s.nudge()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.spawnLocked(func(ctx context.Context) { n.attend(ctx, s) })
}

func (n *Node) subscription(list string) (*subscription, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s := n.follows[list]; s != nil {
		return s, nil
	}
	return nil, fmt.Errorf("%w: %s", ErrUnknownList, list)
}

// Unfollow ends it: the list's statements stay in the log and act no more.
func (n *Node) Unfollow(ctx context.Context, list string) (FollowStatus, error) {
	s, err := n.subscription(list)
	if err != nil {
		return FollowStatus{}, err
	}
	err = n.update(ctx, s, func(f *Follow) {
		if f.State != FollowEnded {
			f.State, f.Told, f.Answered = FollowEnded, false, n.stamp()
		}
	})
	if err != nil {
		return FollowStatus{}, err
	}
	s.mu.Lock()
	n.heedLocked(s)
	s.mu.Unlock()
	n.begin(s)
	return n.followStatus(s), nil
}

// FollowAnew forgets the order in which a followed list's statements came, and takes its
// history over from the start, as it is shown now. It is the way out when a publisher
// had to go back to a backup. Statements that came before stay.
func (n *Node) FollowAnew(ctx context.Context, list string) (FollowStatus, error) {
	s, err := n.subscription(list)
	if err != nil {
		return FollowStatus{}, err
	}
	s.mu.Lock()
	if s.f.State != FollowAccepted && s.f.State != FollowDiverged {
		s.mu.Unlock()
		return FollowStatus{}, fmt.Errorf("%w: %s is not followed", ErrState, list)
	}
	if err = n.cfg.Peers.DropLeaves(ctx, list); err == nil {
		s.tree, s.unsure, s.shown = tree{}, false, 0
		err = n.updateLocked(ctx, s, func(f *Follow) { f.State, f.Head, f.Trouble, f.Skipped = FollowAccepted, nil, "", 0 })
	}
	s.mu.Unlock()
	if err != nil {
		return FollowStatus{}, err
	}
	n.begin(s)
	return n.followStatus(s), nil
}

// Follows returns the lists of others, by IRI, ended ones too.
func (n *Node) Follows() []FollowStatus {
	n.mu.Lock()
	var all []*subscription
	for _, list := range sortedKeys(n.follows) {
		all = append(all, n.follows[list])
	}
	n.mu.Unlock()
	var out []FollowStatus
	for _, s := range all {
		out = append(out, n.followStatus(s))
	}
	return out
}

func (n *Node) followStatus(s *subscription) FollowStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := FollowStatus{Follow: s.f, Position: uint64(s.tree.size), HeadSize: uint64(max(s.shown, s.tree.size)), Checked: s.checked}
	if s.actor != nil {
		v.Name, v.Summary, v.Issuers = s.actor.Name, s.actor.Summary, s.actor.Writers
	}
	return v
}

// token is part of an address that nobody can guess.
func token() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// jitter takes up to a fifth off a time.
func jitter(d time.Duration) time.Duration {
	v, err := rand.Int(rand.Reader, big.NewInt(int64(d)/5+1))
	if err != nil {
		return d
	}
	return d - time.Duration(v.Int64())
}

var _ tlog.HashReader = (*tree)(nil)
