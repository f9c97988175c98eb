package federation

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// Letter is a statement of this node that is brought to one other server, beside
// those that follow its list: a dispute to the server whose statement it disputes, or the
// answer to one.
type Letter struct {
	Statement string    // IRI
	To        string    // IRI of the actor whose server gets it
	About     string    // IRI of the statement that is disputed
	Since     time.Time // UTC, whole microseconds; as all times
	Taken     time.Time // when the other server took it; zero for not yet
	GivenUp   bool      // after two weeks, or because it refuses
	Failures  uint32    // in a row
	Trouble   string    // why the last of them; at most 1000 bytes
	// Answer is the IRI of the other issuer's statement by which a dispute was answered: "" for
	// not yet. Withdrawn tells a retraction from a confirmation.
	Answer    string
	Withdrawn bool
}

// Letters keeps letters. SaveLetter is durable, and replaces one of the same Statement and To.
type Letters interface {
	Letters(context.Context) ([]Letter, error)
	SaveLetter(context.Context, Letter) error
}

const (
	maxCarried  = 8    // letters that are under way at once
	keptLetters = 5000 // that are remembered; the oldest that are settled are forgotten first
)

// loadLetters reads the letters and takes up those that were not taken yet.
func (n *Node) loadLetters(ctx context.Context) error {
	if n.cfg.Letters == nil {
		return nil
	}
	all, err := n.cfg.Letters.Letters(ctx)
	if err != nil {
		return err
	}
	for _, l := range all {
		n.letters[[2]string{l.Statement, l.To}] = &l
	}
	return nil
}

// SendLetter has a statement of this node, which the log has, brought to the server of an
// actor of another. It returns when that is noted, durably; delivery goes on by itself, also after a
// restart, for two weeks.
func (n *Node) SendLetter(ctx context.Context, statement, about, to string) error {
	switch {
	case n.cfg.Letters == nil:
		return fmt.Errorf("%w: this node sends no letters", ErrState)
	case !n.ours(statement):
		return fmt.Errorf("%w: %s is not a statement of this node", ErrState, statement)
	case n.ours(to):
		return fmt.Errorf("%w: %s is of this node", ErrState, to)
	}
	if _, err := hashlist.Origin(to); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.letters[[2]string{statement, to}] != nil {
		return nil
	}
	if len(n.letters) >= keptLetters && !n.forgetLetterLocked() {
		return fmt.Errorf("%w: %d letters are under way already", ErrState, keptLetters)
	}
	l := Letter{Statement: statement, To: to, About: about, Since: n.stamp()}
	if err := n.saveLetterLocked(ctx, l); err != nil {
		return err
	}
	n.carryLocked(to)
	return nil
}

// forgetLetterLocked makes room, in memory, for one more. The store keeps all.
func (n *Node) forgetLetterLocked() bool {
	var oldest *Letter
	for _, l := range n.letters {
		if (!l.Taken.IsZero() || l.GivenUp) && (oldest == nil || l.Since.Before(oldest.Since)) {
			oldest = l
		}
	}
	if oldest == nil {
		return false
	}
	delete(n.letters, [2]string{oldest.Statement, oldest.To})
	return true
}

func (n *Node) saveLetterLocked(ctx context.Context, l Letter) error {
	if err := n.cfg.Letters.SaveLetter(ctx, l); err != nil {
		return fmt.Errorf("save the letter to %s: %w", l.To, err)
	}
	n.letters[[2]string{l.Statement, l.To}] = &l
	return nil
}

// Letters tells what became of the letters, the oldest first.
func (n *Node) Letters() []Letter {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []Letter
	for _, l := range n.letters {
		all = append(all, *l)
	}
	slices.SortFunc(all, func(a, b Letter) int {
		if c := a.Since.Compare(b.Since); c != 0 {
			return c
		}
		return strings.Compare(a.Statement+a.To, b.Statement+b.To)
	})
	return all
}

// carryLocked sees to it that somebody brings the letters to the server of an actor.
func (n *Node) carryLocked(to string) {
	origin, err := hashlist.Origin(to)
	if err != nil {
		return
	}
	if wake := n.carriers[origin]; wake != nil {
		select {
		case wake <- struct{}{}:
		default:
		}
		return
	}
	if n.run == nil {
		return // Run begins with all there are
	}
	wake := make(chan struct{}, 1)
	n.carriers[origin] = wake
	n.spawnLocked(func(ctx context.Context) { n.carry(ctx, origin, wake) })
}

// carryAllLocked takes up what was left of an earlier run.
func (n *Node) carryAllLocked() {
	for _, l := range n.letters {
		if l.waits() {
			n.carryLocked(l.To)
		}
	}
}

func (l *Letter) waits() bool { return l.Taken.IsZero() && !l.GivenUp }

// carry brings the letters to one server, one after the other, until there are none left.
func (n *Node) carry(ctx context.Context, origin string, wake <-chan struct{}) {
	var pause time.Duration
	for {
		if pause > 0 {
			t := time.NewTimer(pause)
			select {
			case <-t.C:
			case <-wake: // a new one: perhaps the server is back
			case <-ctx.Done():
			}
			t.Stop()
		}
		n.mu.Lock()
		l, ok := n.nextLetterLocked(origin)
		if !ok || ctx.Err() != nil {
			delete(n.carriers, origin)
			n.mu.Unlock()
			return
		}
		n.mu.Unlock()
		if n.carrying.Acquire(ctx, 1) != nil {
			continue
		}
		err := n.bring(ctx, &l)
		n.carrying.Release(1)
		if ctx.Err() != nil {
			continue
		}
		pause = n.settleLetter(ctx, l, err)
	}
}

// nextLetterLocked is the letter to a server that waits with the fewest failures.
func (n *Node) nextLetterLocked(origin string) (Letter, bool) {
	var best *Letter
	for _, l := range n.letters {
		if l.waits() && isOf(l.To, origin) && (best == nil || l.Failures < best.Failures || l.Failures == best.Failures && l.Since.Before(best.Since)) {
			best = l
		}
	}
	if best == nil {
		return Letter{}, false
	}
	return *best, true
}

// bring delivers one letter, as the node.
func (n *Node) bring(ctx context.Context, l *Letter) error {
	record, ok, err := n.cfg.Lists.Record(ctx, l.Statement)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("statement %s is not in the log", l.Statement)
	}
	fetching, stop := context.WithTimeout(ctx, sendTime)
	defer stop()
	to, err := n.fetch.actor(fetching, l.To)
	if err != nil {
		return err
	}
	inbox := to.Inbox
	if to.SharedInbox != "" {
		inbox = to.SharedInbox
	}
	return n.post(ctx, inbox, n.nodeKey(), record.Signed)
}

// settleLetter notes what became of a letter, and returns how long to wait before the next.
func (n *Node) settleLetter(ctx context.Context, l Letter, err error) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.stamp()
	if at := n.letters[[2]string{l.Statement, l.To}]; at != nil {
		l.Answer, l.Withdrawn = at.Answer, at.Withdrawn // which may have come meanwhile
	}
	var pause time.Duration
	if err == nil {
		l.Taken, l.Failures, l.Trouble = now, 0, ""
		n.counters.Delivered++
	} else {
		n.counters.Failed++
		l.Failures++
		l.Trouble = bounded(tame(err))
		var said *statusError
		refused := errors.As(err, &said) && slices.Contains([]int{http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusGone}, said.Code)
		l.GivenUp = refused && l.Failures >= refusals || now.Sub(l.Since) > deadAfter
		pause = n.backoff(l.Failures, longestWait)
		if said != nil {
			pause = max(pause, min(said.RetryAfter, longestWait))
		}
		if l.GivenUp {
			n.log.Warn("a letter to another server could not be delivered, and is given up", "to", l.To, "statement", l.Statement, "error", err)
		}
	}
	if err := n.saveLetterLocked(ctx, l); err != nil && ctx.Err() == nil {
		n.log.Error("could not note what became of a letter", "error", err)
	}
	return pause
}
