package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// Who tries again what failed waits so long at first, and at most.
const (
	firstPause = time.Second
	mostPause  = 10 * time.Minute
)

// readHits gives each hit to take, in order, until ctx ends, and remembers the place
// under a name, so that none is left out when the node was away; one may be given twice.
// What fails is tried again until it works.
func (s *Server) readHits(ctx context.Context, name string, take func(context.Context, *hashlist.Hit) error) {
	w := s.cfg.Window
	pause := firstPause
	failed := func(err error) bool {
		if ctx.Err() != nil {
			return false
		}
		s.log.Warn("hits of the recent window could not be passed on; it is tried again", slog.String("to", name),
			slog.Duration("in", pause), errorText(err))
		wait := time.NewTimer(pause)
		defer wait.Stop()
		pause = min(2*pause, mostPause)
		select {
		case <-wait.C:
			return true
		case <-ctx.Done():
			return false
		}
	}
	at, known := uint64(0), false
	for {
		err := func() (err error) {
			if !known {
				if at, err = w.Place(ctx, name); err != nil {
					return err
				}
				known = true
			}
			if err := w.WaitHits(ctx, at); err != nil {
				return err
			}
			last := w.LastHit()
			for h, err := range w.Hits(ctx, at) {
				if err != nil {
					return err
				}
				if err := take(ctx, &h); err != nil {
					return err
				}
				if err := w.SavePlace(ctx, name, h.Seq); err != nil {
					return err
				}
				at, pause = h.Seq, firstPause
			}
			at = max(at, last) // those between were not readable
			return nil
		}()
		if err != nil && !failed(err) {
			return
		}
	}
}

// reviewName makes the id of a review from what it is about.
func reviewName(kind hashlist.ReviewKind, about string) string {
	sum := sha256.Sum256([]byte(about))
	return kind.String() + "-" + hex.EncodeToString(sum[:12])
}

// reviewHit has a person decide on a hit.
func (s *Server) reviewHit(ctx context.Context, h *hashlist.Hit) error {
	id := reviewName(hashlist.ReviewHit, h.ID)
	if h.Withdrawn {
		_, err := s.cfg.Reviews.ChangeReview(ctx, id, func(r *hashlist.Review) error {
			if r.State.Waiting() {
				r.State, r.Settled = hashlist.ReviewClosed, time.Now().UTC().Truncate(time.Microsecond)
			}
			return nil
		})
		if errors.Is(err, hashlist.ErrNoReview) {
			return nil
		}
		return err
	}
	r := hashlist.Review{
		ID: id, Kind: hashlist.ReviewHit, Statement: h.Match.Statement, List: h.Match.List, Issuer: h.Match.Issuer,
		Distance: h.Match.Distance, Algorithm: h.Algorithm.String(), Summary: summary(h),
	}
	if n := len(h.Seen.Sightings); n > 0 {
		r.Reference = h.Seen.Sightings[n-1].Reference
	}
	_, err := s.cfg.Reviews.AddReview(ctx, r)
	return unlessFull(err)
}

// summary tells a hit in a sentence, without a hash.
func summary(h *hashlist.Hit) string {
	first := h.Seen.First
	what := "an upload"
	if n := len(h.Seen.Sightings); n > 0 {
		first = h.Seen.Sightings[0].At
		if p := h.Seen.Sightings[0].Reference; p.Post != "" {
			what = "post " + p.Post
		} else if p.URL != "" {
			what = p.URL
		} else if p.Alias != "" {
			what = "file " + p.Alias
		}
	}
	text := fmt.Sprintf("This was let through at %s as %.600s (answer: %v); it is now on list %s of %.200s, and comes to %v.",
		first.UTC().Format("2006-01-02 15:04 MST"), what, h.Seen.Answered, h.Match.ListName, h.Match.Issuer, h.Verdict)
	if h.Seen.Count > 1 {
		text += fmt.Sprintf(" It came %d times.", h.Seen.Count)
	}
	return text
}

// askQuarantine has a person decide on what is in quarantine, once for each list.
func (s *Server) askQuarantine(ctx context.Context) error {
	iris, statements, matched, of := quarantinedLists(s.cfg.Window.Quarantined(false))
	for _, list := range iris {
		q := of[list]
		id, err := s.quarantineItem(ctx, list, q.Since)
		if err != nil {
			return err
		}
		if id == "" {
			continue
		}
		_, err = s.cfg.Reviews.AddReview(ctx, hashlist.Review{
			ID: id, Kind: hashlist.ReviewQuarantine, Statement: q.Statement, List: list, Issuer: q.Issuer,
			Summary: fmt.Sprintf("%d statements of list %.300s would match %d of the last %d uploads, more than expected. They do not act, nor does what else of it matches any until this is decided. "+
				"Release them if that is right, keep them back if not: `tocsin quarantine list` shows them, `tocsin window preview` what they would match.",
				statements[list], list, matched[list], q.Uploads),
		})
		if err := unlessFull(err); err != nil {
			return err
		}
	}
	return nil
}

// quarantineItem returns the id of the item in which a person is asked about a list, "" if
// nothing came into quarantine after they last decided. A day has one item, and one more for what
// comes after it was settled.
func (s *Server) quarantineItem(ctx context.Context, list string, newest time.Time) (string, error) {
	about := list + " " + newest.UTC().Format(time.DateOnly)
	for {
		id := reviewName(hashlist.ReviewQuarantine, about)
		r, known, err := s.cfg.Reviews.FindReview(ctx, id)
		if err != nil || !known || r.State.Waiting() {
			return id, err
		}
		settled := r.At
		for _, d := range r.Decisions {
			if d.When.After(settled) {
				settled = d.When
			}
		}
		about = ""
		for _, q := range s.cfg.Window.Quarantined(false) { // the oldest first
			if q.List == list && q.Since.After(settled) {
				about = list + " " + q.Since.UTC().Format(time.RFC3339Nano)
				break
			}
		}
		if about == "" {
			return "", nil
		}
	}
}

// settleQuarantine settles the items about a list of which nothing waits in quarantine any more, with
// what was decided elsewhere. s.deciding is held.
func (s *Server) settleQuarantine(ctx context.Context, subject string, d hashlist.ReviewDecision) error {
	if s.cfg.Reviews == nil {
		return nil
	}
	list := subject
	waiting := map[string]bool{}
	for _, q := range s.cfg.Window.Quarantined(true) {
		if q.Statement == subject {
			list = q.List
		}
		waiting[q.List] = waiting[q.List] || q.State == hashlist.QuarantineHeld
	}
	if waiting[list] {
		return nil
	}
	all, err := s.cfg.Reviews.Reviews(ctx, hashlist.ReviewSelection{
		Kinds: []hashlist.ReviewKind{hashlist.ReviewQuarantine}, States: []hashlist.ReviewState{hashlist.ReviewOpen, hashlist.ReviewProposed},
		Limit: hashlist.MaxOpenReviews,
	})
	if err != nil {
		return err
	}
	for i := range all {
		if all[i].List != list {
			continue
		}
		_, err := s.cfg.Reviews.ChangeReview(ctx, all[i].ID, func(r *hashlist.Review) error {
			r.State = hashlist.ReviewClosed
			if len(r.Decisions) < hashlist.MaxDecisions {
				r.State, r.Decisions = hashlist.ReviewDecided, append(r.Decisions, d)
			}
			return nil
		})
		if err != nil && !errors.Is(err, hashlist.ErrNoReview) {
			return err
		}
	}
	return nil
}

// askBreaker tells a person of a breaker that has opened.
func (s *Server) askBreaker(o hashlist.OpenBreaker) {
	who := o.Issuer
	if who == "" {
		who = "all other nodes together"
	}
	s.log.Error("circuit breaker: more was refused within an hour than may be; matches come to hold at most meanwhile",
		slog.String("issuer", who), slog.Int("listed_hashes", o.Refusals), slog.Time("until", o.Closes))
	if s.cfg.Reviews == nil || !s.enter() {
		return
	}
	go func() {
		defer s.running.Done()
		_, err := s.cfg.Reviews.AddReview(s.hard, hashlist.Review{
			ID: reviewName(hashlist.ReviewQuarantine, "breaker "+o.Issuer+o.Opened.UTC().Format(time.RFC3339)), Kind: hashlist.ReviewQuarantine, Issuer: o.Issuer,
			Summary: fmt.Sprintf("Within an hour %d different listed hashes of %.300s refused uploads, more than expected. Until %s their matches come to hold at most; "+
				"`tocsin quarantine close-breaker` ends that before.", o.Refusals, who, o.Closes.UTC().Format("15:04 MST")),
		})
		if err := unlessFull(err); err != nil {
			s.log.Error("nobody could be asked about the circuit breaker", errorText(err))
		}
	}()
}

// watchWindow passes on what the window finds, until the server stops.
func (s *Server) watchWindow() {
	if s.cfg.Window == nil {
		return
	}
	ctx, cancel := s.untilStopping(s.hard)
	s.running.Go(func() {
		defer cancel()
		<-ctx.Done()
	})
	if s.cfg.Reviews != nil {
		s.running.Go(func() { s.readHits(ctx, "reviews", s.reviewHit) })
		s.running.Go(func() {
			for {
				if err := s.askQuarantine(ctx); err != nil && ctx.Err() == nil {
					s.log.Error("nobody could be asked about what is in quarantine", errorText(err))
				}
				select {
				case <-s.cfg.Window.Asked():
				case <-ctx.Done():
					return
				}
			}
		})
	}
	for _, url := range s.cfg.Webhook.URLs {
		s.running.Go(func() { s.readHits(ctx, reviewName(hashlist.ReviewHit, url), s.webhook(url)) })
	}
}

// unlessFull passes over that too much waits for a decision already: those who look at
// that find the rest in its own place.
func unlessFull(err error) error {
	if errors.Is(err, hashlist.ErrReviewsFull) {
		return nil
	}
	return err
}
