package federation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/tocsin-fed/tocsin/hashlist"
)

const (
	maxWitnesses = 20 // asked at once about one list
	compareEvery = 24 * time.Hour
)

// witness answers whoever shows a head of a list with the one that this node was
// shown. A publisher that shows different histories to different followers is
// found out when two of them compare. Who has a signed head has read the list, so nobody
// learns what they were not given.
func (n *Node) witness(w http.ResponseWriter, r *http.Request) {
	body, ok := n.readBody(w, r, maxHead)
	if !ok {
		return
	}
	if !n.inProgress.TryAcquire(1) {
		n.refuse(w, r, http.StatusServiceUnavailable, errBusy)
		return
	}
	defer n.inProgress.Release(1)
	who, err := n.authenticate(r, body)
	if err != nil {
		n.refuse(w, r, http.StatusUnauthorized, err)
		return
	}
	text, _, _ := strings.Cut(string(body), "\n\n")
	claimed, err := parseHead(text + "\n")
	if err != nil {
		n.refuse(w, r, http.StatusBadRequest, err)
		return
	}
	for _, scheme := range []string{"https://", "http://"} {
		list := scheme + claimed.list
		if _, err := hashlist.Origin(list); err != nil {
			continue
		}
		if n.ours(list) && n.mayRead(list, who.ID) {
			n.serveHead(w, r, list)
			return
		}
		if s, err := n.subscription(list); err == nil {
			n.witnessOf(w, r, s, body)
			return
		}
	}
	http.NotFound(w, r)
}

func (n *Node) witnessOf(w http.ResponseWriter, r *http.Request, s *subscription, shown []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, err := openHead(shown, s.f.List, headKeys(s.actor))
	if err != nil || s.f.State == FollowEnded || s.f.Head == nil {
		http.NotFound(w, r)
		return
	}
	code := http.StatusOK
	if err := n.weighLocked(r.Context(), s, h); err != nil {
		code = http.StatusConflict
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	w.Write(s.f.Head)
}

// weighLocked compares a head that somebody else was shown with what this node
// was. It notes, for people to see, if the two cannot both be true; a larger one is news.
func (n *Node) weighLocked(ctx context.Context, s *subscription, h head) error {
	if h.size > s.tree.size {
		if h.size > s.shown {
			s.shown = h.size
			s.nudge()
		}
		return nil
	}
	if s.tree.root(h.size) == h.root {
		return nil
	}
	err := &divergence{fmt.Sprintf(otherHistory+"%s: its first %d statements are not those that came here; "+
		"both heads are signed by its publisher", s.f.List, h.size)}
	n.log.Error("a publisher shows different histories of a list to different followers", "list", s.f.List, "size", h.size)
	if saveErr := n.updateLocked(ctx, s, func(f *Follow) { f.Trouble = bounded(err) }); saveErr != nil {
		n.log.Error("could not note it", "error", saveErr)
	}
	return err
}

// otherHistory begins what is noted then.
const otherHistory = "somebody else was shown another history of "

// compare asks another node for the head of a list that it was shown. It
// returns false if that node does not follow the list, or does not say.
func (n *Node) compare(ctx context.Context, s *subscription, origin string) (head, bool, error) {
	s.mu.Lock()
	list, mine := s.f.List, s.f.Head
	s.mu.Unlock()
	if mine == nil {
		return head{}, false, errors.New("this node has no head of the list to show")
	}
	ctx, cancel := context.WithTimeout(ctx, sendTime)
	defer cancel()
	if !n.cfg.Loopback && !outside(origin) {
		return head{}, false, fmt.Errorf("%s is not an https address", origin)
	}
	answer, err := n.send(ctx, http.MethodPost, origin+"/witness", n.nodeKey(), mine, http.Header{"Content-Type": {"text/plain; charset=utf-8"}})
	if err != nil {
		return head{}, false, tame(err)
	}
	defer drain(answer)
	switch answer.StatusCode {
	case http.StatusOK, http.StatusConflict:
	case http.StatusNotFound:
		return head{}, false, nil
	default:
		return head{}, false, &statusError{Address: origin, Code: answer.StatusCode}
	}
	theirs, err := io.ReadAll(io.LimitReader(answer.Body, maxHead+1))
	if err != nil {
		return head{}, false, tame(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	h, err := openHead(theirs, list, headKeys(s.actor))
	if err != nil {
		return head{}, false, err
	}
	return h, true, n.weighLocked(ctx, s, h)
}

// compareAll asks the servers this node knows.
func (n *Node) compareAll(ctx context.Context, s *subscription) {
	own, err := hashlist.Origin(s.follow().List)
	if err != nil {
		return
	}
	asked := 0
	for _, p := range n.PeerStatuses() {
		if p.Origin == own || p.Retired || asked == maxWitnesses {
			continue
		}
		asked++
		if _, _, err := n.compare(ctx, s, p.Origin); err != nil {
			n.log.Debug("could not compare heads", "peer", p.Origin, "error", err)
		}
	}
}

// checks collects what was looked at.
type checks []Check

func (c *checks) add(name string, passed bool, format string, args ...any) {
	*c = append(*c, Check{Name: name, Passed: passed, Detail: fmt.Sprintf(format, args...)})
}

// alarm is add for what does not fail by accident.
func (c *checks) alarm(name string, passed bool, format string, args ...any) {
	c.add(name, passed, format, args...)
	(*c)[len(*c)-1].Alarm = !passed
}

// Verify checks a list that this node publishes or follows against everything
// that is known: each statement's proof once more, the Merkle root of them in
// their order against the signed head, the head the publisher shows now, and
// those that other nodes were shown, which are asked at the given origins beside
// the peers this node knows. It fails only if it cannot begin.
func (n *Node) Verify(ctx context.Context, list string, with []string) (*Verification, error) {
	v := &Verification{List: list}
	if n.ours(list) {
		return v, n.verifyOwn(ctx, v)
	}
	s, err := n.subscription(list)
	if err != nil {
		return nil, err
	}
	var c checks
	switch f := s.follow(); f.State {
	case FollowAccepted:
		if err := n.pull(ctx, s); err != nil {
			c.add("publisher", false, "could not read on to the end of its log: %v", err)
			c[len(c)-1].Alarm = isDivergence(err)
		} else {
			c.add("publisher", true, "its log was read to the end")
		}
	case FollowAsked:
		c.add("publisher", false, "it has not answered yet: there is nothing to check")
		v.Checks = c
		return v, nil
	case FollowDiverged:
		c.alarm("publisher", false, "%s", f.Trouble)
	case FollowRefused:
		c.add("publisher", false, "it has said no, or ended it: what came before is checked, and still acts; `tocsin unfollow` ends that")
	default:
		c.add("publisher", false, "the list is followed no more, and does not act: what came before is checked")
	}
	s.mu.Lock()
	size, stored, skipped, actor := s.tree.size, s.f.Head, s.f.Skipped, s.actor
	places := make(map[tlog.Hash]bool, size)
	for i := range size {
		places[s.tree.leaf(i)] = false
	}
	root := s.tree.root(size)
	s.mu.Unlock()
	v.Size, v.Root = uint64(size), root

	keys := n.keysOf(actor.Writers)
	found, extra, err := n.verifyStatements(ctx, list, keys, places)
	switch {
	case err != nil:
		c.alarm("proofs", false, "%v", err)
	default:
		c.add("proofs", true, "%d statements in the log, each with a proof of an issuer who may write to the list", found+extra)
	}
	if missing := uint64(len(places)) - found; missing > skipped {
		c.alarm("complete", false, "%d statements of the list are not in this node's log, and only %d were of kinds it does not know", missing, skipped)
	} else {
		c.add("complete", true, "%d statements, %d of them of kinds that this version does not know or by replaced keys", size, missing)
	}
	if extra > 0 {
		c.add("history", false, "%d statements came as part of the list, and its history as it is shown now has them no more", extra)
	}
	if stored == nil {
		c.add("head", false, "none was seen yet that is of what came here")
	} else if h, err := openHead(stored, list, headKeys(actor)); err != nil {
		c.alarm("head", false, "%v", err)
	} else {
		s.mu.Lock()
		at := h.size <= s.tree.size && s.tree.root(h.size) == h.root
		s.mu.Unlock()
		c.alarm("head", at && h.size == size, "the publisher signed %d statements with the root %v; this node has %d", h.size, h.root, size)
	}
	n.verifyWitnesses(ctx, s, with, &c)
	v.Checks = c
	return v, nil
}

// verifyStatements opens every statement of a list once more. It counts those that have a
// place in the list, each place once, and those that have none.
func (n *Node) verifyStatements(ctx context.Context, list string, keys map[string][]Key, places map[tlog.Hash]bool) (found, extra uint64, err error) {
	for r, err := range n.cfg.Lists.After(ctx, 0, hashlist.Selection{List: list, Signed: true}) {
		if err != nil {
			return found, extra, err
		}
		o := openOf(list, keys, r.Signed)
		if o.err != nil {
			return found, extra, fmt.Errorf("statement %d of the log: %w", r.Seq, o.err)
		}
		if o.statement.ID != r.Statement.ID {
			return found, extra, fmt.Errorf("statement %d of the log is kept as another than was signed", r.Seq)
		}
		switch seen, ok := places[leafOf(o.statement.ID)]; {
		case !ok:
			extra++
		case !seen:
			places[leafOf(o.statement.ID)] = true
			found++
		}
	}
	return found, extra, nil
}

func (n *Node) verifyOwn(ctx context.Context, v *Verification) error {
	if _, ok := n.cfg.Lists.List(v.List); !ok && n.sizeOf(v.List) == 0 {
		return fmt.Errorf("%w: %s", ErrUnknownList, v.List)
	}
	_, h, err := n.signedHead(v.List)
	if err != nil {
		return err
	}
	n.mu.Lock()
	keys := make(map[string][]Key, len(n.keys))
	for i, k := range n.keys {
		if n.ours(i) {
			keys[i] = slices.Clone(k)
		}
	}
	places := map[tlog.Hash]bool{}
	if s := n.sequences[v.List]; s != nil {
		for i := range h.size {
			places[s.tree.leaf(i)] = false
		}
	}
	n.mu.Unlock()
	var c checks
	found, extra, err := n.verifyStatements(ctx, v.List, keys, places)
	if err != nil {
		c.add("proofs", false, "%v", err)
	} else {
		c.add("proofs", true, "%d statements, each with a proof of an issuer of this node", found)
	}
	// What was listed meanwhile is extra, and no fault.
	c.add("complete", err != nil || found == uint64(len(places)), "%d statements in the log, %d in the head, %d listed meanwhile", found+extra, h.size, extra)
	v.Size, v.Root, v.Checks = uint64(h.size), h.root, c
	return nil
}

// verifyWitnesses compares heads with other nodes: those named, which must
// answer, and those known, which may not follow the list.
func (n *Node) verifyWitnesses(ctx context.Context, s *subscription, with []string, c *checks) {
	list := s.follow().List
	ask := func(origin string, named bool) {
		h, follows, err := n.compare(ctx, s, origin)
		s.mu.Lock()
		size := s.tree.size
		s.mu.Unlock()
		switch {
		case err != nil && isDivergence(err):
			c.alarm("compared with "+origin, false, "%v", err)
		case err != nil && named:
			c.add("compared with "+origin, false, "%v", err)
		case err != nil || !follows && !named:
		case !follows:
			c.add("compared with "+origin, false, "it does not follow the list, or does not say what it was shown")
		case h.size > size:
			c.add("compared with "+origin, false, "it was shown %d statements, this node %d: the publisher holds some back, or they are on their way", h.size, size)
		default:
			c.add("compared with "+origin, true, "it was shown the same first %d statements", h.size)
		}
	}
	asked := map[string]bool{}
	for _, w := range with {
		origin := w
		if !strings.Contains(origin, "://") {
			origin = "https://" + origin
			if n.cfg.Loopback && isLoopback(w) {
				origin = "http://" + w
			}
		}
		if o, err := hashlist.Origin(origin); err != nil || o != origin {
			c.add("compared with "+w, false, "%q is not a host or origin", w)
			continue
		}
		asked[origin] = true
		ask(origin, true)
	}
	for _, p := range n.PeerStatuses() {
		if !asked[p.Origin] && !ofOneOrigin(p.Origin, list) && len(asked) < maxWitnesses {
			asked[p.Origin] = true
			ask(p.Origin, false)
		}
	}
	if !slices.ContainsFunc(*c, func(c Check) bool { return strings.HasPrefix(c.Name, "compared") }) {
		c.add("compared with others", true, "nobody this node knows follows the list: name a follower with --with to compare")
	}
}

func isDivergence(err error) bool {
	var d *divergence
	return errors.As(err, &d)
}

// withoutSignature is the canonical form of a signed statement without an old
// linked-data signature, which relays may add at the top and which the proof does not cover.
func withoutSignature(signed []byte) ([]byte, error) {
	document, err := canonical(signed)
	if err != nil {
		return nil, err
	}
	if !bytes.Contains(document, []byte(`"signature":`)) {
		return document, nil
	}
	all, err := members(document)
	if err != nil {
		return nil, err
	}
	return join(all, "signature"), nil
}
