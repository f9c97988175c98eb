package federation

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// Bounds on statements that come by themselves. Whoever has a domain may send them.
const (
	maxLetter     = 16 << 10 // bytes of one
	letterEvery   = 10 * time.Second
	letterBurst   = 30               // of one origin, whatever they say
	disputeEvery  = 30 * time.Minute // between disputes of one origin that a person gets to see
	disputeBurst  = 20
	keysOfStrange = 1000 // issuers whose keys are remembered, for a while, because they sent something
)

// isLetter reports whether an activity is a statement that came by itself: a dispute, a
// confirmation or a retraction. Other activities may carry proofs, but no nonce.
func isLetter(kind string, body []byte) bool {
	if kind != "Flag" && kind != "Announce" && kind != "Undo" {
		return false
	}
	nonce, err := topMember(body, "nonce")
	if err != nil || nonce == nil {
		return false
	}
	proof, err := topMember(body, "proof")
	return err == nil && proof != nil
}

// letterCame takes a statement that another server brought by itself. who has signed the
// request; the statement's issuer must be of the same server, and its proof must hold, whatever it is
// about, before anything is looked up that this node knows: what is answered tells nobody
// whether there is a statement of some id here, or who may read it.
func (n *Node) letterCame(ctx context.Context, body []byte, who *remoteActor) error {
	if len(body) > maxLetter {
		return badActivity{fmt.Sprintf("a statement that is sent by itself has at most %d bytes", maxLetter)}
	}
	origin, err := hashlist.Origin(who.ID)
	if err != nil {
		return badActivity{"the signature is of no server"}
	}
	if !allowed(n.letterPaces, origin, rate.Every(letterEvery), letterBurst) {
		return errTooOften
	}
	signed, err := withoutSignature(body)
	if err != nil {
		return badActivity{err.Error()}
	}
	s, err := n.openLetter(ctx, signed, origin)
	switch {
	case errors.Is(err, ErrUnknownKind):
		return errIgnored
	case errors.Is(err, errBusy), errors.Is(err, errTooOften), errors.Is(err, ErrRemote):
		return err
	case err != nil:
		return badActivity{err.Error()}
	case s.Published.After(n.now().Add(maxAhead)):
		return badActivity{"it was made in the future"}
	}
	switch s.Kind {
	case hashlist.Dispute:
		return n.disputed(ctx, &s, signed, who.ID)
	case hashlist.Confirmation, hashlist.Retraction:
		return n.answerCame(ctx, &s, signed)
	}
	return errIgnored
}

// maxAhead is how far the clocks of two servers may differ.
const maxAhead = 5 * time.Minute

// openLetter opens a statement of an issuer of the given origin. Keys of issuers that
// this node has nothing to do with are not kept: strangers must not fill the database.
func (n *Node) openLetter(ctx context.Context, signed []byte, origin string) (hashlist.Statement, error) {
	for again := false; ; again = true {
		var missing string
		s, err := Open(signed, func(issuer, method string) (ed25519.PublicKey, error) {
			if !isOf(issuer, origin) {
				return nil, fmt.Errorf("it is a statement of %.200q, and another server sends it", issuer)
			}
			known := n.keysOf([]string{issuer})[issuer]
			for _, k := range known {
				switch {
				case k.Method != method:
				case k.State == KeyDoubted:
					return nil, fmt.Errorf("nothing but the server of %.200q says that its key %.200q is theirs", issuer, method)
				case !k.Revoked.IsZero() || !k.Expires.IsZero():
					return nil, fmt.Errorf("%.200q has replaced the key %.200q", issuer, method)
				default:
					return k.Public, nil
				}
			}
			// Whose keys are known is no stranger: a key that their server tells anew is weighed before it says anything.
			if methods, ok := n.strangers.Get(issuer); ok && len(known) == 0 {
				for _, m := range methods {
					if m.ID == method && m.Revoked.IsZero() && m.Expires.IsZero() {
						return m.Public, nil
					}
				}
			}
			missing = issuer
			return nil, &missingKeyError{issuer, method}
		})
		if missing == "" || again {
			return s, err
		}
		if err := n.meet(ctx, missing, origin); err != nil {
			return s, err
		}
	}
}

// meet fetches the keys of an issuer who sent something, from their own server, which has
// signed the request: nobody can have this node fetch from anybody else.
func (n *Node) meet(ctx context.Context, issuer, origin string) error {
	if !n.fetches.enter(origin) {
		return errBusy
	}
	defer n.fetches.leave(origin)
	if !allowed(n.fetchPaces, origin, 2, 60) {
		return errTooOften
	}
	if len(n.keysOf([]string{issuer})[issuer]) > 0 {
		return n.learn(ctx, issuer, 0)
	}
	ctx, cancel := context.WithTimeout(ctx, sendTime)
	defer cancel()
	a, err := n.fetch.actor(ctx, issuer)
	if err != nil {
		return fmt.Errorf("%w: keys of %s: %w", ErrRemote, issuer, tame(err))
	}
	if a.ID != issuer {
		return fmt.Errorf("%w: at %s is the actor %s", ErrRemote, issuer, a.ID)
	}
	n.strangers.Add(issuer, a.Methods)
	return nil
}

// disputed puts a dispute of a statement of this node before a person, if whoever sends
// it may have read that statement. For all else the answer is the same, and nothing happens.
func (n *Node) disputed(ctx context.Context, s *hashlist.Statement, signed []byte, reader string) error {
	r, ok := n.disputeOf(s)
	if !ok || !s.Expires.IsZero() && !s.Expires.After(n.now()) || !n.mayRead(r.List, reader) {
		return errIgnored
	}
	origin, err := hashlist.Origin(s.Issuer)
	if err != nil || n.cfg.Reviews == nil {
		return errIgnored
	}
	if !allowed(n.disputePaces, origin, rate.Every(disputeEvery), disputeBurst) {
		n.log.Warn("a server disputes more than a person could look at: the rest is passed over", "origin", origin)
		return errIgnored // not errTooOften, which would tell that the others were found
	}
	r.Body = signed
	return n.review(ctx, r)
}

// disputeOf describes a dispute of a statement of an issuer of this node; false if it is none.
func (n *Node) disputeOf(s *hashlist.Statement) (hashlist.Review, bool) {
	if s.Kind != hashlist.Dispute || !n.ours(s.About) || n.ours(s.Issuer) {
		return hashlist.Review{}, false
	}
	_, list, known := n.cfg.Lists.Belongs(s.About)
	if !known {
		return hashlist.Review{}, false
	}
	sum := sha256.Sum256([]byte(s.About + " " + s.Issuer))
	return hashlist.Review{
		// One for each who disputes: what they say again changes nothing.
		ID:   "dispute-" + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:15])),
		Kind: hashlist.ReviewDispute, At: n.stamp(), Statement: s.About, List: list, Issuer: s.Issuer,
		Summary: disputeSummary(s),
	}, true
}

func disputeSummary(s *hashlist.Statement) string {
	text := s.Issuer + " finds this statement wrong and gives no reason."
	if s.Reason != "" {
		text = s.Issuer + " finds this statement wrong. In their words: " + s.Reason
	}
	if len(text) > hashlist.MaxReason {
		text = strings.ToValidUTF8(text[:hashlist.MaxReason], "")
	}
	return text
}

// review puts something before a person. That too much waits already is no fault of the sender's,
// and is not told to them.
func (n *Node) review(ctx context.Context, r hashlist.Review) error {
	added, err := n.cfg.Reviews.AddReview(ctx, r)
	switch {
	case errors.Is(err, hashlist.ErrReviewsFull):
		n.log.Warn("too many disputes wait for a decision: one is passed over", "statement", r.Statement)
		return errIgnored
	case err != nil:
		return err
	case added:
		n.log.Info("a statement of this node is disputed: `tocsin review list` shows it", "statement", r.Statement, "by", r.Issuer)
	}
	return nil
}

// noticed looks through what a followed list brought for disputes of this node's
// statements, and for answers to disputes of its own.
func (n *Node) noticed(ctx context.Context, records []hashlist.Record) error {
	for i := range records {
		s := &records[i].Statement
		if r, ok := n.disputeOf(s); ok && n.cfg.Reviews != nil {
			if err := n.review(ctx, r); err != nil && !errors.Is(err, errIgnored) {
				return err
			}
		}
		if s.Kind == hashlist.Confirmation || s.Kind == hashlist.Retraction && len(s.Hashes)+len(s.Subjects) == 0 {
			if err := n.noteAnswer(ctx, s); err != nil {
				return err
			}
		}
	}
	return nil
}

// answerCame takes the answer to a dispute of this node: the issuer of the disputed
// statement confirms it once more, or retracts it. From a list that is followed it comes in
// its place; this is for those who do not follow any more.
func (n *Node) answerCame(ctx context.Context, s *hashlist.Statement, signed []byte) error {
	about := s.About + s.Retracts // one of them is empty
	issuer, list, known := n.cfg.Lists.Belongs(about)
	if !known || issuer != s.Issuer || len(s.Hashes)+len(s.Subjects) > 0 || s.Kind == hashlist.Retraction && s.List != list || !n.awaits(about, s.Kind) {
		return errIgnored // also a second confirmation: the log must not grow by what nobody asked for
	}
	if f, err := n.subscription(s.List); err == nil && f.follow().State == FollowAccepted {
		f.nudge()
		return nil
	}
	if _, err := n.cfg.Lists.Apply(ctx, hashlist.Record{Received: n.stamp(), Statement: *s, Signed: signed}); err != nil {
		return err
	}
	n.count(func(c *Counters) { c.Statements++ })
	return n.noteAnswer(ctx, s)
}

// awaits reports whether an answer of a kind to a dispute about a statement is still to come: one
// confirmation, and one retraction.
func (n *Node) awaits(about string, kind hashlist.Kind) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.letters {
		if l.About == about && !l.Withdrawn && (l.Answer == "" || kind == hashlist.Retraction) {
			return true
		}
	}
	return false
}

// noteAnswer notes that a dispute of this node was answered.
func (n *Node) noteAnswer(ctx context.Context, s *hashlist.Statement) error {
	about := s.About + s.Retracts
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.letters {
		if l.About != about || l.Withdrawn || !isOf(l.To, originOrNone(s.Issuer)) {
			continue
		}
		v := *l
		v.Answer, v.Withdrawn = s.ID, s.Kind == hashlist.Retraction
		if err := n.saveLetterLocked(ctx, v); err != nil {
			return err
		}
		n.log.Info("a dispute of this node was answered", "statement", about, "withdrawn", v.Withdrawn)
	}
	return nil
}

// originOrNone is the origin of an address, or what is no origin of anything.
func originOrNone(iri string) string {
	o, err := hashlist.Origin(iri)
	if err != nil {
		return "\x00"
	}
	return o
}
