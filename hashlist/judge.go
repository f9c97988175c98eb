package hashlist

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// How a verdict comes about. What this node itself says is done first: its own
// statements act as they stand, and so do those of others that it confirmed; what it
// disputed, or knows to be harmless, does not act. All else has to be believed. For each
// label by itself, those who list something within reach of what is asked about, and those who
// confirm their statements, are taken together, and they are believed as much as flows to all of
// them (see believe), less what flows to those who dispute. What of that a verdict needs the
// policy's thresholds say; the gravest verdict over all labels counts. Then the operator's rules are asked.
//
// What disputes take off: of the statements those are relied on for which most is left, if
// the belief of all who dispute any of them is taken from the belief of all who stand behind them.
// So a dispute never costs more than its weight, and a statement that nobody disputes keeps all of
// its own. A dispute that the issuer of the statement answered by confirming it again counts half:
// both have spoken, and a third should decide. One by somebody who is not believed counts nothing.
//
// All matches of one query count together, whichever frame they are of: a query is one
// file, and who lists a frame of it speaks against it.

// maxStatements bounds Decision.Statements.
const maxStatements = 50

// weighing is one query whose matches are weighed.
type weighing struct {
	f      *fold
	policy *Policy
	at     int64 // Unix seconds
	found  []candidate
	agree  map[uint32]uint8    // statement to the algorithms that matched it
	met    map[uint32]struct{} // of weigh
	talk   map[uint32]*talk    // of statements that are not this node's own; nil if nobody says anything of any
}

// talk is what is said of one statement.
type talk struct{ confirmed, disputed []opinion }

// opinion is a confirmation or a dispute in force by another than the issuer of the
// statement.
type opinion struct {
	stmt     uint32
	answered bool // a dispute after which the issuer upheld the statement
}

// acting weighs those of found that are not suppressed.
func (f *fold) acting(found []candidate, policy *Policy, at int64) *weighing {
	w := &weighing{f: f, policy: policy, at: at, found: found, agree: make(map[uint32]uint8, len(found)), met: map[uint32]struct{}{}}
	for _, c := range found {
		if p := &f.postings[c.posting]; !c.suppressed {
			w.agree[p.stmt] |= 1 << p.in
		}
	}
	if f.textsOf(Confirmation.table()).len() == 0 && f.textsOf(Dispute.table()).len() == 0 {
		return w
	}
	w.talk = make(map[uint32]*talk, len(w.agree))
	for n := range w.agree {
		if f.stmts[n].list.origin != "" {
			w.talk[n] = f.talk(n, at)
		}
	}
	return w
}

// talk returns what others say of statement n.
func (f *fold) talk(n uint32, at int64) *talk {
	t := new(talk)
	upheld := int64(-1)
	confirmed, disputed := crowd{}, crowd{} // one of each is enough of anybody on one list
	f.opinions(Confirmation, n, at, func(m uint32) {
		if s := &f.stmts[m]; f.voice(s) == f.voice(&f.stmts[n]) {
			upheld = max(upheld, s.published)
		} else if !confirmed.full(crowdOf{list: s.list, issuer: s.issuer}, 1) {
			t.confirmed = append(t.confirmed, opinion{stmt: m})
		}
	})
	f.opinions(Dispute, n, at, func(m uint32) {
		if s := &f.stmts[m]; f.voice(s) != f.voice(&f.stmts[n]) && !disputed.full(crowdOf{list: s.list, issuer: s.issuer}, 1) {
			t.disputed = append(t.disputed, opinion{m, upheld > s.published})
		}
	})
	return t
}

// opinions visits the confirmations or disputes of statement n that act.
func (f *fold) opinions(kind Kind, n uint32, at int64, visit func(uint32)) {
	id, ok := f.textsOf(kind.table()).get(f.stmts[n].id)
	if !ok {
		return
	}
	for o := f.owners[kind.table()][id]; o != 0; o = f.postings[o-1].next {
		m := f.postings[o-1].stmt
		if s := &f.stmts[m]; s.stands(at) && s.list.most != 0 && s.list.current != nil {
			visit(m)
		}
	}
}

// settled returns what this node itself said of statement n, if it did: it is right
// (own), or it is to be ignored. Of both the later counts; of two of one second, the milder.
// What an issuer says of its own statements counts for nothing.
func (f *fold) settled(n uint32, at int64) (own, ignored bool) {
	confirmed, disputed := int64(-1), int64(-1)
	latest := func(kind Kind, into *int64) {
		f.opinions(kind, n, at, func(m uint32) {
			if s := &f.stmts[m]; s.list.origin == "" && f.voice(s) != f.voice(&f.stmts[n]) {
				*into = max(*into, s.published)
			}
		})
	}
	latest(Dispute, &disputed)
	latest(Confirmation, &confirmed)
	return confirmed > disputed, disputed >= 0 && disputed >= confirmed
}

// decide marks what this node itself lists or confirmed, and suppresses what it disputed.
func (f *fold) decide(found []candidate, at int64) {
	said := f.textsOf(Confirmation.table()).len() > 0 || f.textsOf(Dispute.table()).len() > 0
	for i := range found {
		c := &found[i]
		n := f.postings[c.posting].stmt
		c.own = f.stmts[n].list.origin == ""
		if said {
			own, ignored := f.settled(n, at)
			c.own, c.ignored = c.own || own, ignored
			c.suppressed = ignored
		}
	}
}

// most is the gravest verdict that a candidate may come to, whatever its issuer
// recommends, and upper what it may come to with that.
func (w *weighing) most(c *candidate) Verdict {
	return min(w.policy.ceiling(w.agree[w.f.postings[c.posting].stmt]), w.bound(c))
}

func (w *weighing) upper(c *candidate) Verdict {
	return min(w.policy.of(w.f.action(*c), w.agree[w.f.postings[c.posting].stmt]), w.bound(c))
}

func (w *weighing) bound(c *candidate) Verdict {
	v := VerdictReject
	if s := &w.f.stmts[w.f.postings[c.posting].stmt]; !c.own {
		v = s.list.most
	}
	if c.flat {
		v = min(v, VerdictHold)
	}
	return v
}

// foreign reports whether a candidate speaks against the media and has to be believed.
func (w *weighing) foreign(c *candidate) bool {
	return !c.suppressed && !c.own && w.f.action(*c) != Accept
}

// counts reports whether a candidate counts for verdict v in a label.
func (w *weighing) counts(c *candidate, label string, v Verdict, need *Threshold) bool {
	p := &w.f.postings[c.posting]
	if !w.foreign(c) || w.upper(c) < v || c.distance > int(need.Radii[p.in]) {
		return false
	}
	agree := w.agree[p.stmt]
	return (!need.Second || agree&(agree-1) != 0) && w.f.stmts[p.stmt].bears(label)
}

// bears reports whether s has a label, itself or by its list. "" stands for none at all.
func (s *stmt) bears(label string) bool {
	if label == "" {
		return len(s.labels) == 0 && len(s.list.current.Labels) == 0
	}
	return slices.Contains(s.labels, label) || slices.Contains(s.list.current.Labels, label)
}

// labels returns those of all that has to be believed, sorted, "" for statements without any.
func (w *weighing) labels() []string {
	var all []string
	seen := map[uint32]bool{}
	for i := range w.found {
		c := &w.found[i]
		n := w.f.postings[c.posting].stmt
		if !w.foreign(c) || seen[n] {
			continue
		}
		seen[n] = true
		s := &w.f.stmts[n]
		if len(s.labels)+len(s.list.current.Labels) == 0 {
			all = append(all, "")
		}
		all = append(append(all, s.labels...), s.list.current.Labels...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// thresholds are those of a label.
func (p *Policy) thresholds(label string) *Thresholds {
	if t, ok := p.Labels[label]; ok {
		return &t
	}
	return &p.Default
}

// weighed is what the matches come to for one verdict in one label.
type weighed struct {
	label       string
	verdict     Verdict
	need        *Threshold
	first       int // the nearest candidate that counts, -1 for none
	stmts       []uint32
	belief      int
	disputed    int
	independent int
}

func (d *weighed) reached() bool {
	return d.first >= 0 && d.belief >= d.need.Belief && d.independent >= d.need.Issuers
}

// weigh works out what there is for verdict v in a label. found is sorted, the
// nearest first.
func (w *weighing) weigh(label string, v Verdict, need *Threshold) weighed {
	d := weighed{label: label, verdict: v, need: need, first: -1}
	clear(w.met)
	for i := range w.found {
		c := &w.found[i]
		if !w.counts(c, label, v, need) {
			continue
		}
		if d.first < 0 {
			d.first = i
		}
		n := w.f.postings[c.posting].stmt
		if _, met := w.met[n]; !met {
			w.met[n] = struct{}{}
			d.stmts = append(d.stmts, n)
		}
	}
	if d.first < 0 {
		return d
	}
	var calm []uint32
	var groups []contested
	for _, n := range d.stmts {
		g := w.contest(n, label)
		if len(g.against)+len(g.answered) == 0 {
			calm = append(calm, n)
			continue
		}
		i := slices.IndexFunc(groups, func(o contested) bool {
			return slices.Equal(o.against, g.against) && slices.Equal(o.answered, g.answered)
		})
		if i < 0 && len(groups) == maxContested {
			i = maxContested - 1 // with the last, and against both those who dispute either
			groups[i].against = append(groups[i].against, g.against...)
			groups[i].answered = append(groups[i].answered, g.answered...)
		}
		if i < 0 {
			groups = append(groups, g)
		} else {
			groups[i].stmts = append(groups[i].stmts, n)
		}
	}
	for relied := range 1 << len(groups) {
		stmts, against, answered := calm[:len(calm):len(calm)], []backer(nil), []backer(nil)
		for i, g := range groups {
			if relied>>i&1 != 0 {
				stmts, against, answered = append(stmts, g.stmts...), append(against, g.against...), append(answered, g.answered...)
			}
		}
		belief, independent := w.believe(label, v, stmts)
		all := belief
		if len(against)+len(answered) > 0 {
			full, _ := w.f.believe(label, w.at, against)
			both, _ := w.f.believe(label, w.at, append(answered, against...))
			belief = max(0, belief-full-(both-full+1)/2)
		}
		o := d
		o.belief, o.independent = belief, independent
		if relied == 1<<len(groups)-1 {
			d.disputed = all // for now
		}
		if relied == 0 || o.reached() && !d.reached() || o.reached() == d.reached() && belief > d.belief {
			d.belief, d.independent = belief, independent
		}
	}
	d.disputed -= d.belief
	return d
}

// maxContested bounds the work of finding the statements to rely on: it doubles with
// every set of disputers that differs from the others. Those beyond it go together.
const maxContested = 4

// contested are statements that the same issuers dispute.
type contested struct {
	stmts             []uint32
	against, answered []backer // sorted
}

// contest returns who dispute statement n and are believed in a label.
func (w *weighing) contest(n uint32, label string) contested {
	g := contested{stmts: []uint32{n}}
	t := w.talk[n]
	if t == nil {
		return g
	}
	var against, answered sides
	for _, o := range t.disputed {
		v := &w.f.stmts[o.stmt]
		if amount, _ := w.f.believe(label, w.at, []backer{{w.f.voice(v), v.list.direct}}); amount == 0 {
			continue
		}
		if o.answered {
			w.stand(&answered, o.stmt)
		} else {
			w.stand(&against, o.stmt)
		}
	}
	by := func(a, b backer) int { return strings.Compare(a.issuer, b.issuer) }
	slices.SortFunc(against.backers, by)
	slices.SortFunc(answered.backers, by)
	g.against, g.answered = against.backers, answered.backers
	return g
}

// believe is the belief in all who stand behind statements, for verdict v.
func (w *weighing) believe(label string, v Verdict, stmts []uint32) (amount, independent int) {
	if len(stmts) == 0 {
		return 0, 0
	}
	var all sides
	for _, n := range stmts {
		w.stand(&all, n)
		t := w.talk[n]
		if t == nil {
			continue
		}
		for _, o := range t.confirmed {
			// What a confirmation may come to its own list says, and the circuit breaker.
			if s := &w.f.stmts[o.stmt]; s.list.most >= v && (v <= VerdictHold || !w.f.softened(s)) {
				w.stand(&all, o.stmt)
			}
		}
	}
	return w.f.believe(label, w.at, all.backers)
}

// sides are issuers who stand together, each once with the most that was given to
// it directly.
type sides struct {
	backers []backer
	place   map[string]int // in backers, by issuer; nil while they are few
}

// manySides is from how many backers on they are found by a map: anybody whose list is
// heeded can have thousands confirm a statement, and every lookup that it matches adds them up.
const manySides = 16

func (w *weighing) stand(s *sides, n uint32) {
	v := &w.f.stmts[n]
	s.add(w.f.voice(v), v.list.direct)
}

func (s *sides) add(who string, direct uint8) {
	i := -1
	if s.place != nil {
		if n, met := s.place[who]; met {
			i = n
		}
	} else {
		i = slices.IndexFunc(s.backers, func(b backer) bool { return b.issuer == who })
	}
	if i >= 0 {
		s.backers[i].direct = max(s.backers[i].direct, direct)
		return
	}
	s.backers = append(s.backers, backer{who, direct})
	switch {
	case s.place != nil:
		s.place[who] = len(s.backers) - 1
	case len(s.backers) == manySides:
		s.place = make(map[string]int, 2*manySides)
		for i, b := range s.backers {
			s.place[b.issuer] = i
		}
	}
}

// judge sets the verdict, its reason and what it rests on, and returns the place in found of
// the match that decided, or -1 if none speaks against the media. found is sorted.
func (f *fold) judge(found []candidate, q *Query, policy *Policy, now time.Time, r *Result) int {
	w := f.acting(found, policy, now.Unix())
	best, foreign := -1, false
	for i := range found {
		c := &found[i]
		if c.suppressed || f.action(*c) == Accept {
			continue
		}
		if best < 0 {
			best = i
		}
		if !c.own {
			foreign = true
			continue
		}
		if v := w.upper(c); v > r.Verdict || r.Verdict == VerdictAllow && !r.Decision.Own {
			best, r.Verdict = i, v
			r.Decision = w.own(c)
		}
	}
	if best < 0 {
		return best
	}
	floor := r.Verdict
	var top weighed
	if foreign && floor < VerdictReject {
		if top = w.gravest(floor); top.reached() {
			w.rely(&top)
			best, r.Verdict, r.Decision, r.behind = top.first, top.verdict, w.decision(&top), w.behind(&top)
		}
	}
	if policy.Rules != nil {
		w.ask(policy.Rules, q, now, floor, &best, r)
	}
	r.Reason = w.reason(best, r)
	return best
}

// gravest returns the gravest verdict above floor that the thresholds allow, the
// first label's of those of one verdict.
func (w *weighing) gravest(floor Verdict) weighed {
	top := weighed{first: -1}
	labels := w.labels()
	for v := VerdictReject; v > floor; v-- {
		for _, label := range labels {
			if d := w.weigh(label, v, w.policy.thresholds(label).of(v)); d.reached() {
				return d
			}
		}
	}
	return top
}

func (w *weighing) own(c *candidate) Decision {
	p := &w.f.postings[c.posting]
	d := Decision{Belief: MostBelief, Independent: 1, Own: true, Statements: []string{w.f.stmts[p.stmt].id}, Algorithm: Algorithm(p.in), Distance: c.distance}
	if labels := union(w.f.stmts[p.stmt].list.current.Labels, w.f.stmts[p.stmt].labels); len(labels) > 0 {
		d.Label = labels[0]
	}
	return d
}

// rely leaves those statements in d behind which somebody stands who is believed in its
// label: whoever else listed the same adds nothing to it. If there are none, all stay.
func (w *weighing) rely(d *weighed) {
	believed := func(n uint32) bool { return w.heardIn(n, d.label) }
	stmts := slices.DeleteFunc(slices.Clone(d.stmts), func(n uint32) bool { return !believed(n) })
	if len(stmts) == 0 {
		return
	}
	d.stmts = stmts
	for i := max(d.first, 0); i < len(w.found); i++ {
		if c := &w.found[i]; w.counts(c, d.label, d.verdict, d.need) && slices.Contains(stmts, w.f.postings[c.posting].stmt) {
			d.first = i
			return
		}
	}
}

// behind returns which hashes of whom d rests on: of other issuers who list them, and of those
// who confirm their statements.
func (w *weighing) behind(d *weighed) (all []backing) {
	for i := max(d.first, 0); i < len(w.found) && len(all) < maxStatements; i++ {
		c := &w.found[i]
		n := w.f.postings[c.posting].stmt
		if !w.counts(c, d.label, d.verdict, d.need) || !slices.Contains(d.stmts, n) {
			continue
		}
		what := listed{w.f.stmts[n].id, c.posting}
		all = append(all, backing{w.f.stmts[n].issuer, what})
		if t := w.talk[n]; t != nil {
			for _, o := range t.confirmed {
				if w.heardIn(o.stmt, d.label) {
					all = append(all, backing{w.f.stmts[o.stmt].issuer, what})
				}
			}
		}
	}
	return all
}

func (w *weighing) decision(d *weighed) Decision {
	v := Decision{Label: d.label, Belief: d.belief, Disputed: d.disputed, Independent: d.independent, Need: *d.need}
	if d.first >= 0 {
		c := &w.found[d.first]
		v.Algorithm, v.Distance = Algorithm(w.f.postings[c.posting].in), c.distance
	}
	for _, n := range d.stmts {
		v.Statements = append(v.Statements, w.f.stmts[n].id)
	}
	for _, n := range d.stmts {
		if t := w.talk[n]; t != nil {
			for _, o := range t.confirmed {
				v.Statements = append(v.Statements, w.f.stmts[o.stmt].id)
			}
		}
	}
	v.Statements = v.Statements[:min(len(v.Statements), maxStatements)]
	return v
}

// heard reports whether anybody who stands behind the statement of a candidate is
// believed in one of its labels.
func (w *weighing) heard(c *candidate) bool {
	if c.own {
		return true
	}
	n := w.f.postings[c.posting].stmt
	s := &w.f.stmts[n]
	labels := union(s.list.current.Labels, s.labels)
	if len(labels) == 0 {
		labels = []string{""}
	}
	return slices.ContainsFunc(labels, func(label string) bool { return w.heardIn(n, label) })
}

// heardIn reports whether anybody who stands behind statement n is believed in a label.
func (w *weighing) heardIn(n uint32, label string) bool {
	var one sides
	w.stand(&one, n)
	if t := w.talk[n]; t != nil {
		for _, o := range t.confirmed {
			w.stand(&one, o.stmt)
		}
	}
	for _, b := range one.backers {
		if amount, _ := w.f.believe(label, w.at, []backer{b}); amount > 0 {
			return true
		}
	}
	return false
}

// ask lets the rules decide within what they may. floor is what this node's own
// statements come to.
func (w *weighing) ask(rules Rules, q *Query, now time.Time, floor Verdict, best *int, r *Result) {
	first, most := -1, VerdictAllow
	facts := Facts{Verdict: r.Verdict, Uploader: q.Uploader, Now: now}
	for i := range w.found {
		c := &w.found[i]
		if c.suppressed || w.f.action(*c) == Accept || !w.heard(c) {
			continue
		}
		if first < 0 {
			first = i
		}
		s := &w.f.stmts[w.f.postings[c.posting].stmt]
		facts.Matches++
		facts.Own = facts.Own || c.own
		facts.Labels = union(union(s.list.current.Labels, s.labels), facts.Labels)
		most = max(most, w.most(c))
	}
	if first < 0 {
		return
	}
	facts.Labels = slices.Compact(slices.Sorted(slices.Values(facts.Labels)))
	at, d := first, r.Decision
	if r.Verdict > VerdictAllow {
		at = *best
	} else if !d.Own {
		d, r.behind = w.nearest()
	}
	c, p := &w.found[at], &w.f.postings[w.found[at].posting]
	facts.Label, facts.Belief, facts.Independent, facts.Disputed = d.Label, d.Belief, d.Independent, d.Disputed
	facts.Algorithm, facts.Distance = Algorithm(p.in), c.distance
	facts.Action, facts.List, facts.Issuer = w.f.action(*c), w.f.stmts[p.stmt].list.iri, w.f.stmts[p.stmt].issuer
	v, name, applies := rules.Apply(&facts)
	if !applies {
		return
	}
	v = max(min(v, most), floor)
	*best, r.Verdict = at, v
	d.Rule = name
	d.Own = d.Own && v == floor
	r.Decision = d
}

// nearest is what the label comes to that is nearest to a flag.
func (w *weighing) nearest() (Decision, []backing) {
	top := weighed{first: -1, need: &Threshold{}}
	for _, label := range w.labels() {
		if d := w.weigh(label, VerdictFlag, w.policy.thresholds(label).of(VerdictFlag)); d.first >= 0 && (top.first < 0 || d.belief > top.belief) {
			top = d
		}
	}
	w.rely(&top)
	return w.decision(&top), w.behind(&top)
}

// reason is one sentence about the match that decided. It holds no hash.
func (w *weighing) reason(best int, r *Result) string {
	c := &w.found[best]
	p := &w.f.postings[c.posting]
	s := &w.f.stmts[p.stmt]
	var b strings.Builder
	if r.Decision.Rule != "" {
		fmt.Fprintf(&b, "rule %s: ", r.Decision.Rule)
	}
	fmt.Fprintf(&b, "on list %s", s.list.current.Name)
	if labels := union(s.list.current.Labels, s.labels); len(labels) > 0 {
		b.WriteString(" (" + strings.Join(labels, ", ") + ")")
	}
	if c.asked|c.listed != 0 {
		fmt.Fprintf(&b, ", with %d %% of its frames, which are %d %% of the listed video's, listed by %s", c.asked, c.listed, s.issuer)
	} else {
		fmt.Fprintf(&b, ", %v at distance %d, listed by %s", Algorithm(p.in), c.distance, s.issuer)
	}
	switch {
	case c.own && s.list.origin != "":
		b.WriteString(", confirmed here")
	case c.own:
	case r.Verdict == VerdictAllow && r.Decision.Rule == "":
		b.WriteString(", who is not believed enough, or whose list is only reported")
	default:
		fmt.Fprintf(&b, ", believed with %d of %d", r.Decision.Belief, MostBelief)
		if r.Decision.Label != "" {
			b.WriteString(" in " + r.Decision.Label)
		}
	}
	return b.String()
}
