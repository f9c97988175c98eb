package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/hashlist/imagehash"
)

const (
	heldAhead     = 256             // held uploads that wait to be put into the queue; more are only counted
	heldEvery     = 5 * time.Second // how often it is noted that the same was held again
	heldOfOne     = 20              // different pictures held because of one statement that have an item each
	heldRemember  = 4096            // statements, and items, of which that is counted
	heldHashes    = 16              // that an item keeps
	heldReference = "many different pictures are held because of this statement; they share this item"
)

// heldUploads brings what was held into the review queue. Who uploads waits for none
// of it: what a flood brings is put together, and what is too much is dropped and counted.
type heldUploads struct {
	come chan hashlist.Review
}

// held has a person look at what was held, if that was the verdict. verdict is its id in
// the audit log, "" for none.
func (s *Server) held(q *hashlist.Query, r *hashlist.Result, verdict string) {
	if r.Verdict != hashlist.VerdictHold || s.cfg.Reviews == nil {
		return
	}
	item := hashlist.Review{
		Kind: hashlist.ReviewHeld, At: time.Now(), Verdict: verdict, Reference: q.Reference,
		Summary: boundedText("Held: "+r.Reason, hashlist.MaxReason),
	}
	if m := r.Decided(); m != nil {
		item.Statement, item.List, item.Issuer = m.Statement, m.List, m.Issuer
		item.Distance, item.Algorithm = m.Distance, m.Probe.Hash.Algorithm().String()
		item.Summary = boundedText(fmt.Sprintf("Held: %s. Labels: %s. Reason there: %s",
			r.Reason, cmp.Or(strings.Join(m.Labels, ", "), "none"), cmp.Or(m.Reason, "none given")), hashlist.MaxReason)
	}
	item.Body = writeHashes(listable(q.Probes))
	select {
	case s.heldUploads.come <- item:
	default:
		s.metrics.reviewsLost.WithLabelValues(item.Kind.String()).Inc()
	}
}

// queueHeld puts what was held into the queue until ctx ends.
func (s *Server) queueHeld(ctx context.Context) {
	t := time.NewTicker(heldEvery)
	defer t.Stop()
	of := map[string]int{}               // items by statement
	again := map[string]*heldAgain{}     // items that were there before
	flush := func(ctx context.Context) { // what was held again is one write for many
		for id, a := range again {
			_, err := s.cfg.Reviews.ChangeReview(ctx, id, func(r *hashlist.Review) error {
				r.Count += a.count
				if a.last.After(r.Last) {
					r.Last = a.last
				}
				return nil
			})
			if err != nil && !errors.Is(err, hashlist.ErrNoReview) && ctx.Err() == nil {
				s.log.Error("could not note that something was held again", errorText(err))
			}
		}
		clear(again)
	}
	for {
		select {
		case item := <-s.heldUploads.come:
			s.queueOne(ctx, item, of, again)
		case <-t.C:
			flush(ctx)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			for len(s.heldUploads.come) > 0 {
				s.queueOne(last, <-s.heldUploads.come, of, again)
			}
			flush(last)
			return
		}
	}
}

// heldAgain is how often something was held since that was noted.
type heldAgain struct {
	count uint64
	last  time.Time
}

func (s *Server) queueOne(ctx context.Context, item hashlist.Review, of map[string]int, again map[string]*heldAgain) {
	picture, _, _ := strings.Cut(string(item.Body), "\n")
	item.ID = reviewID(item.Kind, item.Statement, picture)
	if len(of) >= heldRemember {
		clear(of)
	}
	if of[item.Statement] >= heldOfOne {
		if _, ok, err := s.cfg.Reviews.FindReview(ctx, item.ID); err == nil && !ok {
			item.ID, item.Body = reviewID(item.Kind, item.Statement, "and more"), nil
			item.Summary = boundedText(heldReference+". "+item.Summary, hashlist.MaxReason)
		}
	}
	if a := again[item.ID]; a != nil {
		a.count, a.last = a.count+1, item.At
		return
	}
	added, err := s.addReview(ctx, item)
	switch {
	case errors.Is(err, hashlist.ErrReviewsFull): // counted there
	case err != nil:
		if ctx.Err() == nil {
			s.log.Error("could not put a held upload into the review queue", errorText(err))
		}
	case added:
		of[item.Statement]++
	case len(again) < heldRemember:
		again[item.ID] = &heldAgain{1, item.At}
	}
}

// listable are the hashes of a picture or file by which it can be banned or allowed: not
// those of its copies turned round, and none that would match unrelated pictures.
func listable(all []hashlist.Probe) []hashlist.Hash {
	var perceptual, digests []hashlist.Hash
	for i := range all {
		p := &all[i]
		if p.Transform != "" && p.Transform != imagehash.Transforms[0] || p.Flat || len(perceptual)+len(digests) == heldHashes {
			continue
		}
		switch p.Hash.Algorithm() {
		case hashlist.PDQ:
			if !slices.Contains(perceptual, p.Hash) {
				perceptual = append(perceptual, p.Hash)
			}
		case hashlist.SHA256:
			digests = append(digests, p.Hash)
		}
	}
	return append(perceptual, digests...)
}
