package federation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
)

const (
	maxInbox     = 1 << 20          // bytes of what is posted
	maxAsking    = 1000             // that wait for an answer, for each list
	maxKept      = 20_000           // followers of a list, whatever became of them
	maxOfOrigin  = 2000             // of them of one server
	maxAskOrigin = 5                // of them of one server
	maxReading   = 128              // bodies that are read at once
	bodyTime     = 15 * time.Second // for one of them
)

// receive takes what others post into an inbox. There is one inbox, whatever
// its address: what an activity is about stands in it.
//
// What is answered with 202 is durable, or repeats itself: a follower that is told of statements
// behind a gap asks for them by itself, also after a restart.
func (n *Node) receive(w http.ResponseWriter, r *http.Request) {
	if !isActivityRequest(r) {
		http.Error(w, "want Content-Type: "+activityMediaType, http.StatusUnsupportedMediaType)
		return
	}
	body, ok := n.readBody(w, r, maxInbox)
	if !ok {
		return
	}
	if !n.inProgress.TryAcquire(1) {
		n.refuse(w, r, http.StatusServiceUnavailable, errBusy)
		return
	}
	defer n.inProgress.Release(1)
	kind := activityType(body)
	if kind == "Delete" {
		// Servers tell all they know of when an account is deleted, with a key that is gone. Nothing here follows from it.
		n.count(func(c *Counters) { c.Ignored++ })
		w.WriteHeader(http.StatusAccepted)
		return
	}
	who, err := n.authenticateOnce(r, body)
	if err != nil {
		n.refuse(w, r, http.StatusUnauthorized, err)
		return
	}
	// Not the sender's context: by hanging up at the right moment they could have one thing stored and another remembered.
	err = n.act(context.WithoutCancel(r.Context()), kind, body, who)
	var bad badActivity
	switch {
	case err == nil:
		n.count(func(c *Counters) { c.Accepted++ })
	case errors.Is(err, errIgnored):
		n.count(func(c *Counters) { c.Ignored++ })
	case errors.Is(err, errTooOften):
		n.refuse(w, r, http.StatusTooManyRequests, err)
		return
	case errors.As(err, &bad), isDivergence(err), errors.Is(err, ErrRemote):
		n.refuse(w, r, http.StatusBadRequest, err)
		return
	default:
		n.fail(w, err)
		return
	}
	w.WriteHeader(http.StatusAccepted)
}

// readBody reads what is posted, or answers that it will not. Who sends slowly holds none of the places of
// those who are worked on, and is cut off in the end.
func (n *Node) readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, bool) {
	if !n.reading.TryAcquire(1) {
		n.refuse(w, r, http.StatusServiceUnavailable, errBusy)
		return nil, false
	}
	defer n.reading.Release(1)
	rc := http.NewResponseController(w)
	// By the system's clock, as the network's deadlines are. A server that has none reads on.
	_ = rc.SetReadDeadline(time.Now().Add(n.bodyTime))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var large *http.MaxBytesError
	switch {
	case err == nil:
		_ = rc.SetReadDeadline(time.Time{}) // else it would end the request while it is worked on
		return body, true
	case errors.As(err, &large):
		http.Error(w, fmt.Sprintf("it is larger than %d bytes", limit), http.StatusRequestEntityTooLarge)
	case errors.Is(err, os.ErrDeadlineExceeded):
		w.Header().Set("Connection", "close")
		http.Error(w, "it did not come in time", http.StatusRequestTimeout)
	default:
		http.Error(w, "it could not be read", http.StatusBadRequest)
	}
	return nil, false
}

// isActivityRequest reports whether what is posted says that it is an activity.
func isActivityRequest(r *http.Request) bool {
	media, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && isActivity(media, params)
}

// errIgnored: an activity that means nothing here. It is answered as if it did: a
// sender that hears of an error tries again.
var errIgnored = errors.New("ignored")

// badActivity: what was sent breaks the protocol. The text goes back to the sender.
type badActivity struct{ text string }

// Error implements error.
func (b badActivity) Error() string { return b.text }

// refuse answers a request that is not acted on.
func (n *Node) refuse(w http.ResponseWriter, r *http.Request, code int, err error) {
	n.count(func(c *Counters) {
		c.Refused++
		if errors.Is(err, errReplay) {
			c.Replayed++
		}
	})
	switch {
	case errors.Is(err, errBusy):
		code = http.StatusServiceUnavailable
	case errors.Is(err, errTooOften):
		code = http.StatusTooManyRequests
		w.Header().Set("Retry-After", "10")
	}
	n.log.Debug("refused a request", "path", r.URL.Path, "code", code, "error", err)
	text := bounded(err)
	if errors.As(err, new(unreachable)) {
		text = "could not be fetched: the server does not answer"
	}
	http.Error(w, text, code)
}

// act does what an activity asks for. who has signed the request.
func (n *Node) act(ctx context.Context, kind string, body []byte, who *remoteActor) error {
	if _, err := n.subscription(who.ID); err != nil && isLetter(kind, body) {
		return n.letterCame(ctx, body, who)
	}
	switch kind {
	case "Announce":
		return n.pushed(ctx, body, who)
	case "Follow", "Undo", "Accept", "Reject":
	default:
		return errIgnored
	}
	e, err := readEnvelope(body)
	if err != nil {
		return badActivity{err.Error()}
	}
	if e.Actor != who.ID {
		return badActivity{"the activity is " + e.Actor + "'s, but " + who.ID + " signed the request"}
	}
	if !ofOneOrigin(e.ID, who.ID) {
		return badActivity{"the activity's id is not of its actor's server"}
	}
	switch {
	case kind == "Follow":
		return n.asked(ctx, e, who)
	case kind == "Undo" && e.ObjectType == "Follow":
		return n.left(ctx, e)
	case kind == "Accept" || kind == "Reject":
		return n.answered(ctx, e, kind == "Accept")
	}
	return errIgnored
}

// asked: somebody asks to follow a list.
func (n *Node) asked(ctx context.Context, e envelope, who *remoteActor) error {
	d, ok := n.published(e.Object)
	if !ok {
		return errIgnored // whether it is there is nobody's business
	}
	inbox := who.Inbox
	if who.SharedInbox != "" {
		inbox = who.SharedInbox
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	f := Follower{List: d.ID, Actor: who.ID, State: FollowerAsked}
	if old := n.followers[d.ID][who.ID]; old != nil {
		f = *old
	}
	switch {
	case f.State == FollowerLeft && f.Follow == e.ID:
		return nil // an old Follow that comes again does not follow again
	case f.State == FollowerLeft, f.Asked.IsZero():
		if err := n.roomLocked(d.ID, who.ID); err != nil {
			return err
		}
		f.State, f.Asked, f.Decided, f.Position = FollowerAsked, n.stamp(), time.Time{}, 0
	}
	if f.State == FollowerAsked && d.Audience == hashlist.Public {
		f.State, f.Decided = FollowerApproved, n.stamp()
		if s := n.sequences[d.ID]; s != nil {
			f.Position = uint64(s.tree.size)
		}
	}
	f.Inbox, f.Follow, f.Told = inbox, e.ID, false
	if err := n.saveFollowerLocked(ctx, f); err != nil {
		return err
	}
	if f.State == FollowerAsked {
		n.log.Info("somebody asks to follow a list: `tocsin followers` shows who", "list", d.Name, "follower", who.ID)
	}
	return nil
}

// roomLocked bounds how many may ask at once, and how many are kept: each is a row, and
// whoever has a domain has servers without end.
func (n *Node) roomLocked(list, actor string) error {
	origin, err := hashlist.Origin(actor)
	if err != nil {
		return err
	}
	waiting, undecided, same := 0, 0, 0
	for _, f := range n.followers[list] {
		if f.State == FollowerAsked {
			waiting++
		}
		if isOf(f.Actor, origin) {
			same++
			if f.State != FollowerApproved {
				undecided++
			}
		}
	}
	if waiting >= maxAsking || undecided >= maxAskOrigin || same >= n.maxOfOrigin || len(n.followers[list]) >= maxKept {
		return errTooOften
	}
	return nil
}

// isOf reports whether an address is of an origin. Most are not, which is told without reading them.
func isOf(iri, origin string) bool {
	if !strings.HasPrefix(iri, origin) {
		return false
	}
	o, err := hashlist.Origin(iri)
	return err == nil && o == origin
}

// left: a follower follows no more.
func (n *Node) left(ctx context.Context, e envelope) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for list, actors := range n.followers {
		f := actors[e.Actor]
		if f == nil || f.State == FollowerLeft {
			continue
		}
		v := *f
		switch {
		// By the id of the Follow if there is one: an old Undo that comes again ends nothing.
		case e.Object == f.Follow, e.Object == "" && e.ObjectObject == list:
			v.State, v.Decided, v.Told = FollowerLeft, n.stamp(), true
		// Which of two Follows came last is known over there: it hears which one counts here.
		case f.State == FollowerApproved && e.ObjectObject == list:
			v.Told = false
		default:
			continue
		}
		if err := n.saveFollowerLocked(ctx, v); err != nil {
			return err
		}
	}
	return nil
}

// answered: the publisher of a list answers a Follow. An Accept that comes
// again says that its actors have changed.
func (n *Node) answered(ctx context.Context, e envelope, accepted bool) error {
	s, err := n.subscription(e.Actor)
	if err != nil {
		return errIgnored
	}
	if f := s.follow(); n.ours(e.Object) {
		other := f.ID != e.Object
		switch {
		case other && (f.State == FollowAsked || f.State == FollowAccepted),
			other && accepted && f.State == FollowRefused,
			accepted && f.State == FollowEnded:
			return n.contradict(ctx, s, e.Object)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.f.ID != e.Object || s.f.State != FollowAsked && s.f.State != FollowAccepted && s.f.State != FollowRefused {
		return errIgnored
	}
	state := FollowRefused
	if accepted {
		state = FollowAccepted
		s.stale = true
	}
	if s.f.State != state {
		if err := n.updateLocked(ctx, s, func(f *Follow) { f.State, f.Answered, f.Told, f.Trouble = state, n.stamp(), true, "" }); err != nil {
			return err
		}
		n.heedLocked(s)
		n.log.Info("a publisher has answered", "list", s.f.List, "accepted", accepted)
	}
	s.nudge()
	return nil
}

// pushed: a list that is followed has grown.
func (n *Node) pushed(ctx context.Context, body []byte, who *remoteActor) error {
	s, err := n.subscription(who.ID)
	if err != nil {
		return errIgnored
	}
	o := newObject(body)
	if o.err == nil && o.text("actor") != who.ID {
		o.fail("the activity is not of the list that signed the request")
	}
	if o.err != nil {
		return badActivity{o.err.Error()}
	}
	if v := o.values["object"]; len(v) == 0 || v[0] != '{' {
		return errIgnored
	}
	p, err := readPage(o.values["object"], who.ID)
	if err != nil {
		return badActivity{err.Error()}
	}
	err = n.take(ctx, s, p)
	switch {
	case errors.Is(err, errGap), errors.Is(err, errNoHead), errors.As(err, new(*doubtError)):
		err = nil // it is not the publisher's doing, or is told to the operator when the log says no better
		s.nudge()
	case errors.Is(err, ErrState):
		if state := s.follow().State; state == FollowRefused || state == FollowEnded {
			return n.contradict(ctx, s, "")
		}
		return errIgnored
	case err == nil:
		s.mu.Lock()
		behind := p.more || s.shown > s.tree.size
		s.mu.Unlock()
		if behind {
			s.nudge()
		}
	}
	return err
}
