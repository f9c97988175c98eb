package federation

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/time/rate"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// opened is a statement of a page after it was looked at.
type opened struct {
	statement hashlist.Statement
	signed    []byte
	err       error
	unknown   bool // of a kind this program does not know, or by a key that counted no more
	doubted   Key  // the key that signed it, if nobody knows yet whether it is the issuer's
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
	var waits error // what follows is not taken over yet
	received := n.stamp()
	for i, o := range all {
		if o.err != nil {
			return fmt.Errorf("%w: statement %d of %s: %w", ErrRemote, was+int64(i), s.f.List, o.err)
		}
		if o.doubted.Issuer != "" {
			waits = &doubtError{o.doubted.Issuer, s.f.List}
			break
		}
		if s.terms.TrustOnly && !o.unknown {
			if was+int64(i) >= maxRelied {
				return fmt.Errorf("%w: %s has more than %d statements, too many of whom its issuers vouch for", ErrRemote, s.f.List, maxRelied)
			}
			switch o.statement.Kind {
			case hashlist.Vouch, hashlist.Retraction, hashlist.DefineList:
			default:
				o.unknown = true // nobody asked for it
			}
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
	top, err := n.agree(s, p, len(leaves) > 0)
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
	// Before their leaves: what is not noted is taken over once more.
	if err := n.noticed(ctx, records); err != nil {
		s.tree.cut(was)
		return err
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
		return cmp.Or(n.updateLocked(ctx, s, func(f *Follow) { f.Head = top }), waits)
	}
	return waits
}

// errGap: what was pushed begins behind what this node has.
var errGap = errors.New("there is a gap")

// errNoHead: what a page has is kept back, because no signed head stands for it.
var errNoHead = errors.New("no signed head stands for it")

// signs reports whether the publisher has ever shown a signed head of the list.
func (s *subscription) signs() bool { return s.f.Head != nil || s.shown > 0 }

// divergence: the publisher signed two heads, or a head and statements, that cannot both be true.
type divergence struct{ text string }

// Error implements error.
func (d *divergence) Error() string { return d.text }

// agree checks the head of a page against the statements taken over so far,
// those of the page included. It returns the head if it is of just these.
//
// A publisher that has shown heads owes one for all it shows later, at least as large as the page goes: otherwise it
// could show each follower something else, or that nothing is new, and would have signed nothing that two of them could compare. One that
// never did is of an older version, and is taken at its word. A push that brings nothing may be late.
func (n *Node) agree(s *subscription, p *page, fresh bool) (signed []byte, err error) {
	owed, end := s.signs() && (fresh || p.asked), p.start+int64(len(p.items))
	if p.head == nil {
		if owed {
			return nil, fmt.Errorf("%w: statements %d to %d of %s are kept back: %w, although its publisher has signed heads before; they are asked for again. "+
				"If it went back to an older version, ask its admin, then `tocsin follow --anew` takes over what it shows now",
				ErrRemote, p.start, end, s.f.List, errNoHead)
		}
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
	if owed && h.size < end {
		return nil, fmt.Errorf("%w: statements %d to %d of %s are kept back: %w, the one that came with them is of %d statements; they are asked for again",
			ErrRemote, p.start, end, s.f.List, errNoHead, h.size)
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
	if used.State == KeyDoubted {
		return opened{statement: s, doubted: used}
	}
	return opened{statement: s, signed: signed, unknown: unknown}
}
