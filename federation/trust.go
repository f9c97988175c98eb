package federation

import (
	"context"
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mr-tron/base58"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// The names of the lists on which a node's issuer says whom to believe. The first is
// named in the issuer's actor; the second never leaves the node.
const (
	TrustList        = "trust"
	PrivateTrustList = "trust-private"
)

// Bounds of what is followed because somebody is believed who is believed. Who is
// vouched for with a great depth could otherwise have this node fetch from as many servers as they like.
const (
	maxRelying = 64              // lists
	maxRelied  = 10_000          // statements of one
	relyAgain  = time.Hour       // when what could not be followed is tried again
	relyTime   = 2 * time.Minute // for all that is to be fetched at one time
)

// rely follows the trust lists of those whose word on others counts here, and
// unfollows those of others, whenever that changes, until ctx ends.
func (n *Node) rely(ctx context.Context) {
	var seen uint64
	for first := true; ; first = false {
		if g := n.cfg.Lists.TrustGeneration(); first || g != seen {
			seen = g
			n.relyOn(ctx)
		}
		// What changes comes through the log; what time changes, and what failed, is looked at now and then.
		wait, cancel := context.WithTimeout(ctx, jitter(relyAgain))
		for wait.Err() == nil && n.cfg.Lists.TrustGeneration() == seen {
			if err := n.cfg.Lists.Wait(wait, n.cfg.Lists.Seq()); err != nil && wait.Err() == nil {
				<-ctx.Done() // the lists are closed
			}
		}
		if cancel(); ctx.Err() != nil {
			return
		}
		seen = ^uint64(0)
	}
}

func (n *Node) relyOn(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, relyTime)
	defer cancel()
	wanted := n.cfg.Lists.Introducers(n.now())
	wanted = wanted[:min(len(wanted), maxRelying)]
	for _, f := range n.Follows() {
		if f.Terms.TrustOnly && f.State != FollowEnded && !slices.ContainsFunc(f.Issuers, func(i string) bool { return slices.Contains(wanted, i) }) {
			if _, err := n.Unfollow(ctx, f.List); err != nil {
				n.log.Warn("could not unfollow the trust list of one who is not relied on any more", "list", f.List, "error", err)
			}
		}
	}
	for _, issuer := range wanted {
		if ctx.Err() != nil {
			return
		}
		if err := n.relyOnIssuer(ctx, issuer); err != nil {
			n.log.Warn("could not follow the list of those whom an issuer believes", "issuer", issuer, "error", err)
		}
	}
}

func (n *Node) relyOnIssuer(ctx context.Context, issuer string) error {
	if n.ours(issuer) {
		return nil
	}
	for _, f := range n.Follows() {
		// The usual case, for which nobody is asked: it is followed already, by whichever terms.
		if f.State != FollowEnded && f.List == n.trustListOf(issuer) {
			return nil
		}
	}
	raw, err := n.fetch.document(ctx, issuer, maxActor)
	if err != nil {
		return err
	}
	a, err := readActor(raw)
	if err != nil {
		return err
	}
	if a.ID != issuer || a.Trust == "" {
		return nil // they keep to themselves whom they believe
	}
	n.mu.Lock()
	n.trustLists[issuer] = a.Trust
	s := n.follows[a.Trust]
	n.mu.Unlock()
	if s != nil {
		if f := s.follow(); f.State == FollowAccepted || f.State == FollowAsked || f.State == FollowDiverged {
			return nil
		}
	}
	_, err = n.followOn(ctx, a.Trust, hashlist.VerdictAllow, func(t *Terms) { t.TrustOnly = true })
	return err
}

func (n *Node) trustListOf(issuer string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.trustLists[issuer]
}

func (n *Node) termsOf(list string) Terms {
	n.mu.Lock()
	defer n.mu.Unlock()
	t := n.terms[list]
	t.List = list
	return t
}

// setTerms changes on what terms a list is followed, durably. s.mu is held.
func (n *Node) setTerms(ctx context.Context, s *subscription, t Terms) error {
	if s.terms == t || s.terms == (Terms{}) && t == (Terms{List: t.List}) {
		return nil
	}
	if err := n.cfg.Peers.SaveTerms(ctx, t); err != nil {
		return fmt.Errorf("save on what terms %s is followed: %w", t.List, err)
	}
	s.terms = t
	n.mu.Lock()
	defer n.mu.Unlock()
	n.terms[t.List] = t
	return nil
}

// Fingerprint is what two people read to each other to make sure that a key is an issuer's: eight
// groups of five digits, made from the SHA-512 of the issuer's address and the key. Digits are
// the same in most languages and hard to mishear; 40 of them are 132 bits, so that nobody finds another key that
// has the same. It is not secret.
func Fingerprint(issuer string, key ed25519.PublicKey) string {
	sum := sha512.Sum512([]byte("tocsin fingerprint 1\n" + issuer + "\n" + string(key)))
	groups := make([]string, 8)
	for i := range groups {
		// Of 40 bits the rest by 100,000 is even to within a ten-millionth.
		v := binary.BigEndian.Uint64(append([]byte{0, 0, 0}, sum[5*i:5*i+5]...))
		groups[i] = fmt.Sprintf("%05d", v%100_000)
	}
	return strings.Join(groups, " ")
}

// fingerprintDigits takes from what a person typed all that is between the digits.
func fingerprintDigits(text string) (string, error) {
	digits := strings.Map(func(r rune) rune {
		if r == ' ' || r == '-' || r == '.' || r == '\t' || r == '\n' {
			return -1
		}
		return r
	}, text)
	if len(digits) != 40 || strings.Trim(digits, "0123456789") != "" {
		return "", errors.New("a fingerprint is eight groups of five digits")
	}
	return digits, nil
}

// VerifyKey notes that a person has compared a fingerprint with the one an issuer of another node read to them.
// What the key signed and what waited for this is taken over from then on.
func (n *Node) VerifyKey(ctx context.Context, issuer, fingerprint, who string) (Key, error) {
	digits, err := fingerprintDigits(fingerprint)
	if err != nil {
		return Key{}, fmt.Errorf("%w: %w", ErrState, err)
	}
	n.mu.Lock()
	all := n.keys[issuer]
	if len(all) == 0 {
		n.mu.Unlock()
		return Key{}, fmt.Errorf("%w: this node knows no key of %s: follow a list of theirs first, or vouch for them", ErrState, issuer)
	}
	for i := range all {
		k := all[i]
		if own, _ := fingerprintDigits(Fingerprint(issuer, k.Public)); own != digits {
			continue
		}
		m := n.marks[k.Method]
		m.Issuer, m.Method, m.State, m.At, m.Who = issuer, k.Method, KeyVerified, n.stamp(), who[:min(len(who), 128)]
		err := n.saveMarkLocked(ctx, m)
		if err == nil {
			n.putKeyLocked(k)
			k.State = KeyVerified
			for _, s := range n.follows {
				s.nudge()
			}
		}
		n.mu.Unlock()
		return k, err
	}
	n.mu.Unlock()
	return Key{}, fmt.Errorf("%w: no key that %s shows has this fingerprint: you misheard a digit, or somebody between you shows a key of theirs; "+
		"believe nothing new of this issuer until it is cleared up", ErrState, issuer)
}

// KeyReview is the id of the review that asks a person about a key.
func KeyReview(k Key) string {
	sum := sha512.Sum512([]byte(k.Method))
	return fmt.Sprintf("key-%x", sum[:16])
}

// LearnIssuer finds an issuer of another node by address or @NAME@HOST, and reads their keys: those that are
// there when they are met for the first time are taken for theirs.
func (n *Node) LearnIssuer(ctx context.Context, address string) (string, error) {
	iri := address
	if !strings.Contains(address, "/") || n.ours(address) {
		var err error
		if iri, err = n.fetch.resolve(ctx, address); err != nil {
			return "", fmt.Errorf("%w: %w", ErrRemote, err)
		}
	}
	if n.ours(iri) {
		return "", fmt.Errorf("%w: %s is of this node, whose issuers are believed fully", ErrState, iri)
	}
	if _, err := hashlist.Origin(iri); err != nil {
		return "", fmt.Errorf("%w: %w", ErrState, err)
	}
	if err := n.learn(ctx, iri, keyAgain); err != nil {
		return "", fmt.Errorf("%w: %w", ErrRemote, err)
	}
	if len(n.IssuerKeys(iri)) == 0 {
		return "", fmt.Errorf("%w: %s is an actor, but shows no key that signs statements", ErrRemote, iri)
	}
	return iri, nil
}

// succession is what an older key signs to back a new one.
func succession(issuer string, public ed25519.PublicKey) []byte {
	return []byte("tocsin key succession 1\n" + issuer + "\n" + Multikey(public) + "\n")
}

// backing is the mark of a new key that an issuer backs with the one they have.
func backing(issuer string, public ed25519.PublicKey, old *Issuer, now time.Time) KeyMark {
	return KeyMark{
		Issuer: issuer, Method: issuer + "#" + Multikey(public), State: KeyBacked, At: now,
		Old: old.method, Proof: "z" + base58.Encode(ed25519.Sign(old.key, succession(issuer, public))),
	}
}

// weighKey decides whether a key that an issuer's actor shows beside those it had is taken for
// theirs: if one of those backs it that was taken for theirs itself and is not said to have been in other hands.
// n.mu is held.
func (n *Node) weighKey(a *remoteActor, m proofKey, now time.Time) KeyMark {
	mark := KeyMark{Issuer: a.ID, Method: m.ID, State: KeyDoubted, At: now}
	stolen := slices.ContainsFunc(a.Methods, func(o proofKey) bool { return o.ID == m.Old && !o.Revoked.IsZero() })
	for _, k := range n.keys[a.ID] {
		if k.Method != m.Old || k.State == KeyDoubted || !k.Revoked.IsZero() || stolen {
			continue
		}
		if proof := parseSignature(m.Proof); proof != nil && ed25519.Verify(k.Public, succession(a.ID, m.Public), proof) {
			mark.State, mark.Old, mark.Proof = KeyBacked, m.Old, m.Proof
			n.log.Warn("an issuer has a new key, which the one before it backs", "issuer", a.ID, "key", m.ID)
			return mark
		}
	}
	n.log.Error("an issuer shows a new key that none of their keys backs: what it signs waits until you have compared its fingerprint with theirs, "+
		"over the telephone, and said so with `tocsin trust verify`", "issuer", a.ID, "key", m.ID, "fingerprint", Fingerprint(a.ID, m.Public))
	return mark
}

func (n *Node) saveMarkLocked(ctx context.Context, m KeyMark) error {
	if err := n.cfg.Peers.SaveKeyMark(ctx, m); err != nil {
		return fmt.Errorf("save what is thought of the key %s: %w", m.Method, err)
	}
	n.marks[m.Method] = m
	return nil
}

// KeyMarks returns what was found out of the keys of an issuer, by method.
func (n *Node) KeyMarks(issuer string) map[string]KeyMark {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := map[string]KeyMark{}
	for _, k := range n.keys[issuer] {
		if m, ok := n.marks[k.Method]; ok {
			all[k.Method] = m
		}
	}
	return all
}

// doubtError: what a list goes on with is signed with a key of which only the issuer's server says that it is theirs.
type doubtError struct{ issuer, list string }

func (e *doubtError) Error() string {
	return fmt.Sprintf("%s goes on with a new key of %s that none of their keys backs: ask them for its fingerprint over another way, then `tocsin trust verify %s FINGERPRINT`",
		e.list, e.issuer, e.issuer)
}
