package federation

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
)

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
	var doubted []Key
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
				// Before the key itself: one that was saved without its mark would pass for one of the first.
				mark := n.weighKey(a, m, now)
				if err := n.saveMarkLocked(ctx, mark); err != nil {
					return err
				}
				if k.State = mark.State; k.State == KeyDoubted {
					doubted = append(doubted, k)
				}
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
	err := n.saveKeysLocked(ctx, a.ID, changed)
	if err == nil && n.cfg.Doubt != nil {
		for _, k := range doubted {
			n.cfg.Doubt(ctx, k)
		}
	}
	if err != nil || !tooMany {
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
	c.State = n.marks[c.Method].State
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
