package hashlist

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Explanation is a lookup with how it came to its answer.
type Explanation struct {
	Result
	Labels []Weighed // of all that has to be believed: each label by itself, each verdict, the gravest first
	Change []string  // what would bring another verdict about, a sentence each
	Held   []string  // IDs of statements that would match, were they not in quarantine, at most maxStatements
}

// Weighed is what all who stand behind what matches come to in one label for one
// verdict.
type Weighed struct {
	Label       string // "" for what has none
	Verdict     Verdict
	Need        Threshold
	Belief      int // with what disputes take off
	Disputed    int // what they take off
	Independent int
	Reached     bool
	Nearest     int      // distance of the nearest match that counts for it, -1 if none does
	Statements  []string // IDs of those that count
	Missing     []string // why it is not reached
	Flows       []Flow   // over which they are believed
}

// Opinions are what is said of one statement, the oldest first, by others than its issuer.
type Opinions struct{ Confirmed, Disputed []Statement }

// Explain looks q up, and tells how it came to the answer and what would change it.
// It is much slower than Lookup.
func (l *Lists) Explain(q Query) Explanation {
	now := time.Now()
	l.mu.RLock()
	defer l.mu.RUnlock()
	f := l.fold
	limit := q.Limit
	q.Limit = 0
	var e Explanation
	var found []candidate
	e.Result, found = l.lookup(&q, &l.policy, now)
	if limit > 0 && len(e.Matches) > limit {
		e.Matches, e.Truncated = e.Matches[:limit], true
	}
	held := q
	held.held = true
	for _, c := range f.candidates(&held, f.searchPairs([]Query{held}), now.Unix()) {
		if id := f.stmts[f.postings[c.posting].stmt].id; len(e.Held) < maxStatements && !slices.Contains(e.Held, id) {
			e.Held = append(e.Held, id)
		}
	}
	if len(found) == 0 && len(e.Held) > 0 {
		e.Reason = "what it matches is in quarantine and does not act"
		return e
	}
	if len(found) == 0 {
		e.Change = []string{"nothing that is listed is near it: somebody who is believed would have to list it"}
		return e
	}
	w := f.acting(found, &l.policy, now.Unix())
	for _, label := range w.labels() {
		for v := VerdictReject; v >= VerdictFlag; v-- {
			need := l.policy.thresholds(label).of(v)
			d := w.weigh(label, v, need)
			x := Weighed{
				Label: label, Verdict: v, Need: *need, Belief: d.belief, Disputed: d.disputed, Independent: d.independent,
				Reached: d.reached(), Nearest: -1, Flows: w.flows(&d),
			}
			for _, n := range d.stmts {
				x.Statements = append(x.Statements, f.stmts[n].id)
			}
			if d.first >= 0 {
				x.Nearest = found[d.first].distance
			}
			if !x.Reached {
				x.Missing = w.missing(&d)
			}
			e.Labels = append(e.Labels, x)
		}
	}
	e.Change = w.change(&e)
	return e
}

// flows are the paths over which those who stand behind d are believed.
func (w *weighing) flows(d *weighed) []Flow {
	var all sides
	for _, n := range d.stmts {
		w.stand(&all, n)
		if t := w.talk[n]; t != nil {
			for _, o := range t.confirmed {
				w.stand(&all, o.stmt)
			}
		}
	}
	if len(all.backers) == 0 {
		return nil
	}
	return w.f.explainBelief(d.label, w.at, all.backers).Flows
}

// missing tells why d is not reached.
func (w *weighing) missing(d *weighed) []string {
	f := w.f
	if d.first < 0 {
		// Of all that bears the label, what stands in the way of the nearest.
		for i := range w.found {
			c := &w.found[i]
			p := &f.postings[c.posting]
			s := &f.stmts[p.stmt]
			if !w.foreign(c) || !s.bears(d.label) {
				continue
			}
			agree := w.agree[p.stmt]
			alg := Algorithm(p.in)
			switch {
			case w.policy.of(f.action(*c), ^uint8(0)) < d.verdict:
				return []string{fmt.Sprintf("%s recommends %v, which comes to %v here at most", s.issuer, f.action(*c), w.policy.of(f.action(*c), ^uint8(0)))}
			case s.list.most < d.verdict:
				return []string{fmt.Sprintf("matches of the list %s may come to %v at most (follow --most)", s.list.iri, s.list.most)}
			case f.softened(s) && d.verdict > VerdictHold:
				return []string{fmt.Sprintf("a circuit breaker that is open has what %s lists come to hold at most (window status): an end to it", s.issuer)}
			case c.flat && d.verdict > VerdictHold:
				return []string{"the picture is so flat that it comes to hold at most"}
			case w.policy.ceiling(agree) < d.verdict:
				return []string{fmt.Sprintf("a match by %v alone comes to %v at most: a second algorithm would have to match the same statement", alg, w.policy.ceiling(agree))}
			case c.distance > int(d.need.Radii[alg]):
				return []string{fmt.Sprintf("a distance in %v of %d instead of %d", alg, d.need.Radii[alg], c.distance)}
			case d.need.Second && agree&(agree-1) == 0:
				return []string{"a second algorithm by which the same statement matches"}
			}
		}
		return []string{"a match that counts for it"}
	}
	var all []string
	about := ""
	if d.label != "" {
		about = " about " + d.label
	}
	if short := d.need.Belief - d.belief; short > 0 {
		all = append(all, fmt.Sprintf("belief of %d instead of %d: one more issuer who confirms it and is believed%s with %d", d.need.Belief, d.belief, about, short))
		if d.disputed > 0 {
			all = append(all, fmt.Sprintf("or an end to disputes, which take off %d", d.disputed))
		}
	}
	if short := d.need.Issuers - d.independent; short > 0 {
		all = append(all, fmt.Sprintf("%d issuers who do not depend on each other instead of %d", d.need.Issuers, d.independent))
	}
	return all
}

// change tells what would bring a graver verdict about, and what a milder one.
func (w *weighing) change(e *Explanation) []string {
	var all []string
	if e.Decision.Rule != "" {
		all = append(all, fmt.Sprintf("%v, because rule %s applies: without it the thresholds decide", e.Verdict, e.Decision.Rule))
	}
	for v := e.Verdict + 1; v <= VerdictReject; v++ {
		var ways []string
		for _, x := range e.Labels {
			if x.Verdict == v && len(x.Missing) > 0 {
				about := ""
				if x.Label != "" {
					about = " (" + x.Label + ")"
				}
				ways = append(ways, strings.Join(x.Missing, ", ")+about)
			}
		}
		if len(ways) > 0 {
			slices.Sort(ways)
			all = append(all, fmt.Sprintf("%v: %s", v, strings.Join(slices.Compact(ways), "; or ")))
		}
	}
	switch {
	case e.Decision.Own:
		all = append(all, "milder: this node's own statement decides; retract it, or put the picture on a list whose action is accept")
	case e.Verdict > VerdictAllow:
		ids := e.Decision.Statements
		all = append(all, fmt.Sprintf("allow: dispute the statements here (%s), or put the picture on a list of this node whose action is accept", strings.Join(ids[:min(len(ids), 3)], ", ")))
	}
	return all
}

// OpinionsOf tells what is said of a statement, and what this node itself has decided
// about it: right, or to be ignored.
func (l *Lists) OpinionsOf(statement string) (o Opinions, own, ignored bool) {
	o.Confirmed, o.Disputed = l.About(statement)
	l.mu.RLock()
	defer l.mu.RUnlock()
	if n, known := l.fold.byID[statement]; known {
		own, ignored = l.fold.settled(n, time.Now().Unix())
	}
	return o, own, ignored
}

// BeliefIn tells, for each label of a statement, how far its issuer is believed about it,
// with what following its list gives.
func (l *Lists) BeliefIn(statement string) map[string]Belief {
	l.mu.RLock()
	defer l.mu.RUnlock()
	f := l.fold
	n, known := f.byID[statement]
	if !known || f.stmts[n].list.current == nil {
		return nil
	}
	s := &f.stmts[n]
	labels := union(s.list.current.Labels, s.labels)
	if len(labels) == 0 {
		labels = []string{""}
	}
	all := map[string]Belief{}
	for _, label := range labels {
		all[label] = f.explainBelief(label, time.Now().Unix(), []backer{{f.voice(s), s.list.direct}})
	}
	return all
}
