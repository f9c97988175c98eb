package hashlist

import (
	"context"
	"slices"
	"time"
)

// Replay is what the uploads of the recent window come to under other rules.
type Replay struct {
	Uploads  int                    // looked at: different pictures
	Would    [VerdictReject + 1]int // by what they would come to
	Graver   [VerdictReject + 1]int // those that would come to more than now, by what they would come to
	Milder   [VerdictReject + 1]int // those that would come to less, by the same
	Rules    map[string]int         // by name of the rule that would decide
	Examples []ReplayExample        // of those that would change, the newest first
}

// ReplayExample is an upload that would come to another answer.
type ReplayExample struct {
	Seen  SeenUpload
	Now   Verdict
	Would Verdict
	Rule  string // "" if none would decide
}

// Replay looks the newest uploads of the window up again, at most so many (0 for all), with
// rules in the place of those in force, and changes nothing. The window does not remember who
// uploaded: rules that ask for it do not apply here.
func (w *Window) Replay(ctx context.Context, most, examples int, rules Rules) (Replay, error) {
	r := Replay{Rules: map[string]int{}}
	if w == nil {
		return r, nil
	}
	for chunk := range slices.Chunk(w.ids(most), windowBatch) {
		uploads, err := w.read(ctx, chunk)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return r, err
		}
		for _, id := range chunk {
			u := uploads[id]
			if u == nil {
				continue // it was forgotten meanwhile
			}
			now, would := w.lists.compareRules(Query{Probes: u.probes}, rules)
			r.Uploads++
			r.Would[would.Verdict]++
			if would.Decision.Rule != "" {
				r.Rules[would.Decision.Rule]++
			}
			switch {
			case would.Verdict > now.Verdict:
				r.Graver[would.Verdict]++
			case would.Verdict < now.Verdict:
				r.Milder[would.Verdict]++
			default:
				continue
			}
			if len(r.Examples) < examples {
				r.Examples = append(r.Examples, ReplayExample{u.seen, now.Verdict, would.Verdict, would.Decision.Rule})
			}
		}
	}
	return r, nil
}

// compareRules looks q up with the rules in force and with others.
func (l *Lists) compareRules(q Query, rules Rules) (now, would Result) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	at := time.Now()
	now, _ = l.lookup(&q, &l.policy, at)
	policy := l.policy
	policy.Rules = rules
	would, _ = l.lookup(&q, &policy, at)
	return now, would
}
