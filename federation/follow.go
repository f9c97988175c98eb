package federation

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"math/big"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/tlog"

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
	terms   Terms
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

// Follow asks to follow a list of another node, whose address is an IRI or
// @list@host. The publisher is asked in the background until it has answered;
// what it answers is found in Follows. Matches of the list may come to at most
// most here; 0 leaves that as it was, or is reject. Following a list that is followed already changes that and nothing else.
func (n *Node) Follow(ctx context.Context, address string, most hashlist.Verdict) (FollowStatus, error) {
	return n.followOn(ctx, address, most, func(t *Terms) { t.TrustOnly = false })
}

// FollowByTrust is Follow, and says whether those who write to the list are believed as far as they are vouched for
// alone, or also because it is followed.
func (n *Node) FollowByTrust(ctx context.Context, address string, most hashlist.Verdict, byTrust bool) (FollowStatus, error) {
	return n.followOn(ctx, address, most, func(t *Terms) { t.TrustOnly, t.ByTrust = false, byTrust })
}

// followOn follows a list on terms that say makes of those that it was followed on before.
func (n *Node) followOn(ctx context.Context, address string, most hashlist.Verdict, say func(*Terms)) (FollowStatus, error) {
	if most > hashlist.VerdictReject {
		return FollowStatus{}, fmt.Errorf("%w: what its matches may come to is none of allow, flag, hold and reject", ErrState)
	}
	// How far a list is heeded is decided here: its publisher need not be there for it.
	if s, err := n.subscription(address); err == nil {
		f, before := s.follow(), n.termsOf(address)
		after := before
		if say(&after); before.TrustOnly == after.TrustOnly && (most != 0 || before != after) && (f.State == FollowAccepted || f.State == FollowDiverged) {
			return n.heed(ctx, s, cmp.Or(most, f.Most), after)
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
		s = &subscription{poke: make(chan struct{}, 1), f: Follow{List: iri}, terms: n.terms[iri]}
		n.follows[iri] = s
	}
	n.mu.Unlock()
	s.mu.Lock()
	after := s.terms
	after.List = iri
	say(&after)
	if s.f.State != 0 && s.terms.TrustOnly && !after.TrustOnly {
		// What was passed over until now is read from the start.
		if err = n.cfg.Peers.DropLeaves(ctx, iri); err == nil {
			s.tree, s.unsure, s.shown = tree{}, false, 0
		}
	}
	err = cmp.Or(err, n.setTerms(ctx, s, after))
	if err == nil {
		err = n.updateLocked(ctx, s, func(f *Follow) {
			f.Most, f.Actor = cmp.Or(most, f.Most, hashlist.VerdictReject), actor.Raw
			if f.State != FollowAccepted && f.State != FollowDiverged {
				f.ID, f.State, f.Told = n.cfg.Origin+"/follows/"+token(), FollowAsked, false
				f.Asked, f.Answered, f.Trouble = n.stamp(), time.Time{}, ""
			}
		})
	}
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
func (n *Node) heed(ctx context.Context, s *subscription, most hashlist.Verdict, t Terms) (FollowStatus, error) {
	s.mu.Lock()
	err := n.setTerms(ctx, s, t)
	if err == nil {
		err = n.updateLocked(ctx, s, func(f *Follow) { f.Most = most })
	}
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
	most, direct := s.f.Most, hashlist.DirectBelief(s.f.Most)
	counts := s.f.State != FollowAsked && s.f.State != FollowEnded
	if !counts || s.terms.TrustOnly {
		most, direct = 0, 0
	}
	if s.terms.ByTrust {
		direct = 0
	}
	n.cfg.Lists.Heed(s.f.List, most, direct)
	n.cfg.Lists.Rely(s.f.List, counts && s.terms.TrustOnly)
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
	v := FollowStatus{Follow: s.f, Terms: s.terms, Position: uint64(s.tree.size), HeadSize: uint64(max(s.shown, s.tree.size)), Checked: s.checked,
		Headless: s.tree.size > 0 && !s.signs()}
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
