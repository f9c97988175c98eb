package federation

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
)

const (
	longestWait = 24 * time.Hour      // between two tries to reach a peer
	deadAfter   = 14 * 24 * time.Hour // of failures in a row; then a peer is retired until it is heard of again
	refusals    = 3                   // tries of an activity that a peer answers with 4xx, before it counts as settled
	saveEvery   = 2 * time.Second     // how often the positions of followers are saved
	maxBehind   = 5 * maxPushItems    // statements; a follower further behind is told to fetch them
)

// outlet is an inbox that is delivered to, for all followers behind it. Node.mu
// guards it, but for wake.
type outlet struct {
	inbox    string
	wake     chan struct{} // has room for one
	peer     Peer
	mine     map[[2]string]*Follower // by list and actor: those whose inbox it is
	next     time.Time               // not before, after a failure
	revive   bool                    // it was heard of: try now
	refused  int                     // tries of the present activity that were answered with 4xx
	gone     bool                    // nobody is behind it any more
	decision int                     // counts decisions to be told, so that one that came meanwhile is not taken for told
}

func (o *outlet) wakeUp() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// push is a piece of a list that goes to many: its body is made once.
type push struct {
	list     string
	from, to int64
}

// parcel is what is to be delivered next to an inbox.
type parcel struct {
	push     // if follower is nil
	list     string
	follower *Follower // whom to tell what was decided; a copy
	decision int
}

// putFollowerLocked keeps a follower in memory and sees to it that there is
// somebody who delivers to it.
func (n *Node) putFollowerLocked(f Follower) {
	if n.followers[f.List] == nil {
		n.followers[f.List] = map[string]*Follower{}
	}
	at := [2]string{f.List, f.Actor}
	old := n.followers[f.List][f.Actor]
	n.followers[f.List][f.Actor] = &f
	if old != nil {
		n.leaveLocked(n.outlets[old.Inbox], at, f.Inbox)
	}
	// Who waits for a decision, or follows no more, has nothing to get: a flood of those costs no goroutines.
	if f.State != FollowerApproved && !f.untold() {
		n.leaveLocked(n.outlets[f.Inbox], at, "")
		return
	}
	o := n.outlets[f.Inbox]
	if o == nil {
		o = &outlet{inbox: f.Inbox, wake: make(chan struct{}, 1), peer: Peer{Inbox: f.Inbox}, mine: map[[2]string]*Follower{}}
		n.outlets[f.Inbox] = o
		n.spawnLocked(func(ctx context.Context) { n.deliver(ctx, o) })
	}
	o.mine[at] = &f
	if f.untold() {
		o.decision++
	}
	o.wakeUp()
}

// leaveLocked takes a follower away from an inbox. An inbox that nobody is behind is let go of, unless it is keep.
func (n *Node) leaveLocked(o *outlet, at [2]string, keep string) {
	if o == nil {
		return
	}
	if delete(o.mine, at); len(o.mine) == 0 && o.inbox != keep {
		o.gone = true
		delete(n.outlets, o.inbox)
		o.wakeUp()
		if o.peer.Failures > 0 {
			// Who follows from there again begins anew, also after a restart.
			o.peer = Peer{Inbox: o.inbox}
			n.savePeerLocked(context.Background(), o)
		}
	}
}

// untold reports whether there is a decision that a follower has not heard of.
func (f *Follower) untold() bool {
	return !f.Told && (f.State == FollowerApproved || f.State == FollowerRejected)
}

// saveFollowerLocked keeps a follower, durably.
func (n *Node) saveFollowerLocked(ctx context.Context, f Follower) error {
	if err := n.cfg.Peers.SaveFollower(ctx, f); err != nil {
		return fmt.Errorf("save the follower %s of %s: %w", f.Actor, f.List, err)
	}
	n.putFollowerLocked(f)
	return nil
}

// deliver brings to one inbox what it is to have, one activity after the other, until ctx ends.
func (n *Node) deliver(ctx context.Context, o *outlet) {
	for ctx.Err() == nil {
		p, wait := n.due(o)
		if wait < 0 {
			return
		}
		if p == nil {
			pause, stop := ctx, func() {}
			if wait > 0 {
				pause, stop = context.WithTimeout(ctx, wait)
			}
			select {
			case <-o.wake:
			case <-pause.Done():
			}
			stop()
			continue
		}
		body, key, err := n.wrap(ctx, p)
		if err == nil {
			err = n.post(ctx, o.inbox, key, body)
		}
		if ctx.Err() != nil {
			return
		}
		n.settle(ctx, o, p, err)
	}
}

// due returns what is to be delivered to an inbox now, or how long to wait for
// it, 0 for until there is news, less than 0 for ever.
func (n *Node) due(o *outlet) (*parcel, time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if o.gone {
		return nil, -1
	}
	if o.revive {
		o.revive, o.next, o.peer.Retired = false, time.Time{}, false
	}
	if o.peer.Retired {
		return nil, 0
	}
	p := n.dueLocked(o)
	if p == nil {
		return nil, 0
	}
	if wait := time.Until(o.next); wait > 0 {
		return nil, wait
	}
	return p, 0
}

func (n *Node) dueLocked(o *outlet) *parcel {
	var best *parcel
	for at, f := range o.mine {
		list := at[0]
		if f.untold() {
			v := *f
			return &parcel{follower: &v, list: list, decision: o.decision}
		}
		s := n.sequences[list]
		if f.State != FollowerApproved || s == nil || int64(f.Position) >= s.tree.size || n.audience(list) == hashlist.Local {
			continue
		}
		from := int64(f.Position)
		if best == nil || list == best.list && from < best.from {
			best = &parcel{push: push{list, from, s.tree.size}, list: list}
		}
	}
	return best
}

// wrap makes the activity of a parcel, and says with which key it is signed. It
// settles how much of a list goes into a push.
func (n *Node) wrap(ctx context.Context, p *parcel) (body []byte, key string, err error) {
	if f := p.follower; f != nil {
		if f.State == FollowerApproved {
			body, err = acceptFollow(f.List+"/accepts/"+token(), f.Follow, f.Actor, f.List)
		} else {
			body, err = rejectFollow(f.List+"/rejects/"+token(), f.Follow, f.Actor, f.List)
		}
		return body, listKey(f.List), err
	}
	if made, ok := n.bodies.Get(p.push); ok {
		p.to = made.to
		return made.body, listKey(p.list), nil
	}
	v := page{list: p.list, start: p.from}
	whole := p.push
	if p.to-p.from > maxBehind {
		v.start = p.to // the news is that there is more: it is fetched
	} else {
		signed, err := n.statements(ctx, p.list, p.from, maxPushItems, maxPushBytes)
		if err != nil {
			return nil, "", err
		}
		for _, s := range signed {
			v.items = append(v.items, s)
		}
		p.to = p.from + int64(len(signed))
	}
	top, h, err := n.signedHead(p.list)
	if err != nil {
		return nil, "", err
	}
	v.head, v.more = top, v.start+int64(len(v.items)) < h.size
	body, err = v.announce()
	if err == nil {
		n.bodies.Add(whole, pushed{body, p.to})
	}
	return body, listKey(p.list), err
}

// pushed is the body of a push, and where it ends: not all may have found room.
type pushed struct {
	body []byte
	to   int64
}

// announce is the activity by which a list tells its followers that it has
// grown: an Announce of a piece of its log, as groups announce what their
// members said, unchanged (FEP-1b12). It needs no proof: its statements have theirs.
func (p *page) announce() ([]byte, error) {
	var inner bytes.Buffer
	if err := p.encode(&inner); err != nil {
		return nil, err
	}
	id := p.list + "/pushes/" + strconv.FormatInt(p.start, 10) + "-" + strconv.FormatInt(p.start+int64(len(p.items)), 10)
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"@context":%s,"id":%s,"type":"Announce","actor":%s,"to":[%s],"object":`, pageContext,
		jsonText(id), jsonText(p.list), jsonText(p.list+"/followers"))
	b.Write(bytes.TrimSpace(inner.Bytes()))
	b.WriteString("}\n")
	return b.Bytes(), nil
}

func jsonText(s string) []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // strings always go into JSON
	}
	return b
}

// settle notes what became of a delivery.
func (n *Node) settle(ctx context.Context, o *outlet, p *parcel, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if o.gone {
		return // and its followers, if they are back, are another's to tell
	}
	var said *statusError
	refusedForGood := errors.As(err, &said) && said.Code >= 400 && said.Code < 500 && !slices.Contains([]int{
		http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusGone, http.StatusRequestTimeout, http.StatusTooManyRequests,
	}, said.Code)
	if refusedForGood {
		o.refused++
	}
	if err == nil || refusedForGood && o.refused >= refusals {
		if err == nil {
			n.counters.Delivered++
		} else {
			n.counters.Failed++
			n.log.Warn("a peer refuses an activity for good: it is passed over", "inbox", o.inbox, "list", p.list, "error", err)
		}
		was := o.peer
		o.refused, o.next = 0, time.Time{}
		o.peer.Failing, o.peer.Failures, o.peer.Trouble = time.Time{}, 0, ""
		if was.Failures > 0 {
			n.savePeerLocked(ctx, o)
		}
		n.advanceLocked(ctx, o, p)
		return
	}
	n.counters.Failed++
	now := n.stamp()
	if o.peer.Failures == 0 {
		o.peer.Failing = now
	}
	o.peer.Failures++
	o.peer.Trouble = bounded(err)
	wait := n.backoff(o.peer.Failures, longestWait)
	if said != nil {
		wait = max(wait, min(said.RetryAfter, longestWait))
	}
	o.next = time.Now().Add(wait) // not n.now: that clock may be set back
	if said != nil && said.Code == http.StatusGone || now.Sub(o.peer.Failing) > deadAfter {
		o.peer.Retired = true
		n.log.Warn("a peer is retired: nothing is delivered until it is heard of again", "inbox", o.inbox, "error", err)
	} else if o.peer.Failures == 1 {
		n.log.Info("cannot deliver to a peer; it is tried again", "inbox", o.inbox, "error", err)
	}
	// The first failure, and then ever rarer: what is lost is when it began.
	if o.peer.Retired || o.peer.Failures&(o.peer.Failures-1) == 0 {
		n.savePeerLocked(ctx, o)
	}
}

func (n *Node) savePeerLocked(ctx context.Context, o *outlet) {
	if err := n.cfg.Peers.SavePeer(ctx, o.peer); err != nil && ctx.Err() == nil {
		n.log.Error("could not note how a peer is", "error", err)
	}
}

// advanceLocked notes that a parcel was taken.
func (n *Node) advanceLocked(ctx context.Context, o *outlet, p *parcel) {
	if p.follower != nil {
		f := n.followers[p.list][p.follower.Actor]
		if f == nil || p.decision != o.decision {
			return // something was decided meanwhile
		}
		v := *f
		v.Told = true
		if err := n.cfg.Peers.SaveFollower(ctx, v); err != nil {
			if ctx.Err() == nil {
				n.log.Error("could not note that a follower was told", "error", err)
			}
		}
		if *f = v; f.State != FollowerApproved {
			n.leaveLocked(o, [2]string{f.List, f.Actor}, "")
		}
		return
	}
	for at, f := range o.mine {
		if at[0] == p.list && f.State == FollowerApproved && int64(f.Position) >= p.from && int64(f.Position) < p.to {
			f.Position = uint64(p.to)
			if n.dirty[p.list] == nil {
				n.dirty[p.list] = map[string]bool{}
			}
			n.dirty[p.list][f.Actor] = true
		}
	}
}

// flush saves the positions of followers now and then: what is lost of them in
// a crash is delivered twice.
func (n *Node) flush(ctx context.Context) {
	t := time.NewTicker(saveEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			if err := n.savePositions(ctx); err != nil && ctx.Err() == nil {
				n.log.Error("could not save how far delivery has come", "error", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

func (n *Node) savePositions(ctx context.Context) error {
	n.mu.Lock()
	var all []Follower
	for list, actors := range n.dirty {
		for a := range actors {
			all = append(all, *n.followers[list][a])
		}
	}
	clear(n.dirty)
	n.mu.Unlock()
	if len(all) == 0 {
		return nil
	}
	return n.cfg.Peers.SavePositions(ctx, all)
}

// Followers returns those who follow the list with the given IRI, asked to, or
// once did; all lists' for "".
func (n *Node) Followers(list string) ([]FollowerStatus, error) {
	if list != "" {
		if _, ok := n.cfg.Lists.List(list); !ok || !n.ours(list) {
			return nil, fmt.Errorf("%w: %s", ErrUnknownList, list)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []FollowerStatus
	for _, l := range sortedKeys(n.followers) {
		if list != "" && l != list {
			continue
		}
		for _, a := range sortedKeys(n.followers[l]) {
			out = append(out, n.followerStatusLocked(n.followers[l][a]))
		}
	}
	return out, nil
}

func (n *Node) followerStatusLocked(f *Follower) FollowerStatus {
	v := FollowerStatus{Follower: *f}
	if d, ok := n.cfg.Lists.List(f.List); ok {
		v.ListName = d.Name
	}
	if s := n.sequences[f.List]; s != nil {
		v.Size = uint64(s.tree.size)
	}
	return v
}

// Decide approves a follower or one who asks to be, or rejects them. It fails
// with ErrUnknownFollower if nobody of that address asked. The follower may be named by
// its host, if only one of that host has asked.
func (n *Node) Decide(ctx context.Context, list, follower string, approve bool) (FollowerStatus, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f := n.followers[list][follower]
	if f == nil {
		for _, a := range sortedKeys(n.followers[list]) {
			if o, err := hashlist.Origin(a); err == nil && (o == follower || strings.SplitN(o, "://", 2)[1] == follower) {
				if f != nil {
					return FollowerStatus{}, fmt.Errorf("%w: several of %s asked: give the whole address", ErrState, follower)
				}
				f = n.followers[list][a]
			}
		}
	}
	if f == nil {
		return FollowerStatus{}, fmt.Errorf("%w: %s of %s", ErrUnknownFollower, follower, list)
	}
	v := *f
	switch {
	case approve && v.State == FollowerApproved, !approve && v.State == FollowerRejected:
		return n.followerStatusLocked(f), nil
	case v.State == FollowerLeft:
		return FollowerStatus{}, fmt.Errorf("%w: %s has left by itself", ErrState, v.Actor)
	}
	v.State = FollowerRejected
	if approve {
		v.State = FollowerApproved
		// What came before is fetched; what comes from now on is pushed.
		if s := n.sequences[list]; s != nil {
			v.Position = uint64(s.tree.size)
		}
	}
	v.Decided, v.Told = n.stamp(), false
	if err := n.saveFollowerLocked(ctx, v); err != nil {
		return FollowerStatus{}, err
	}
	return n.followerStatusLocked(&v), nil
}

// PeerStatuses returns the servers this node has to do with, by origin.
func (n *Node) PeerStatuses() []PeerStatus {
	follows := n.Follows()
	n.mu.Lock()
	defer n.mu.Unlock()
	all := map[string]*PeerStatus{}
	at := func(iri string) *PeerStatus {
		o, err := hashlist.Origin(iri)
		if err != nil {
			o = iri
		}
		if all[o] == nil {
			all[o] = &PeerStatus{Origin: o}
		}
		return all[o]
	}
	for _, f := range follows {
		if p := at(f.List); f.State != FollowEnded {
			p.Follows++
			p.Trouble = cmp.Or(p.Trouble, f.Trouble)
		}
	}
	for _, actors := range n.followers {
		for _, f := range actors {
			if p := at(f.Actor); f.State == FollowerApproved {
				p.Followers++
			}
		}
	}
	for inbox, o := range n.outlets {
		p := at(inbox)
		if o.peer.Failures > p.Failures {
			p.Failing, p.Failures, p.Trouble, p.Next = o.peer.Failing, o.peer.Failures, o.peer.Trouble, o.next
		}
		p.Retired = p.Retired || o.peer.Retired
	}
	var out []PeerStatus
	for _, o := range sortedKeys(all) {
		p := all[o]
		_, host, _ := strings.Cut(o, "://")
		if s, ok := n.schemes.Peek(host); ok {
			p.Scheme = s.String()
		}
		p.Heard, _ = n.heard.Peek(o)
		out = append(out, *p)
	}
	return out
}

// Outbox returns this node's lists that others may read.
func (n *Node) Outbox(ctx context.Context) ([]OutboxStatus, error) {
	var out []OutboxStatus
	for _, l := range n.cfg.Lists.All() {
		if _, ok := n.published(l.ID); !ok {
			continue
		}
		signed, h, err := n.signedHead(l.ID)
		if err != nil {
			return nil, err
		}
		v := OutboxStatus{List: l.ID, Name: l.Name, Audience: l.Audience, Size: uint64(h.size), Root: h.root, Head: string(signed)}
		n.mu.Lock()
		for _, f := range n.followers[l.ID] {
			switch f.State {
			case FollowerAsked:
				v.Waiting++
			case FollowerApproved:
				v.Followers++
				if int64(f.Position) < h.size || !f.Told {
					v.Behind++
				}
			}
		}
		n.mu.Unlock()
		out = append(out, v)
	}
	return out, nil
}
