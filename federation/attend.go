package federation

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

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
	from, shown := s.tree.size, s.shown
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
	// Of what was shown since, the last page could not know.
	if s.tree.size < shown && s.f.State == FollowAccepted {
		return fmt.Errorf("%w: the log of %s ends at %d statements, but a head it signed says %d: its publisher went back, or holds some back",
			ErrRemote, list, s.tree.size, shown)
	}
	if s.tree.size < s.shown {
		s.nudge()
	}
	return nil
}

func (n *Node) fetchPage(ctx context.Context, list string, at int64) (*page, error) {
	data, err := n.fetch.rawWithin(ctx, pageTime, fmt.Sprintf("%s/log/%d", list, at), activityMediaType, maxPageRead)
	if err != nil {
		return nil, err
	}
	p, err := readPage(data, list)
	if err == nil {
		p.asked = true
	}
	return p, err
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
