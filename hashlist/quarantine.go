package hashlist

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// QuarantineState says whether a person has decided about a statement that would match
// more than expected. The numbers are stored in databases: they are never reused.
type QuarantineState uint8

// The states.
const (
	QuarantineHeld     QuarantineState = 1 // nobody has decided: it does not act
	QuarantineReleased QuarantineState = 2 // it acts
	QuarantineKept     QuarantineState = 3 // it does not act, for good
)

// Quarantined is a statement of another node that would match more than expected of what
// was let through lately. It stays in the log and in the fold that nodes compare, and
// matches nothing here until a person has decided.
type Quarantined struct {
	Statement string // its ID
	List      string
	Issuer    string
	Matched   int       // recent uploads that it would match by itself
	Uploads   int       // recent uploads there were
	Since     time.Time // UTC, whole microseconds, as all times here
	State     QuarantineState
	Decided   time.Time // zero for not yet
	Who, Why  string    // at most MaxReviewWho and MaxReason bytes
}

// QuarantineStore keeps what is in quarantine. What it has acknowledged is durable.
type QuarantineStore interface {
	SaveQuarantine(context.Context, []Quarantined) error   // new ones, or in the place of those of the same Statement; all or none
	Quarantine(ctx context.Context) ([]Quarantined, error) // the oldest first
}

// Flood says how much of what was let through lately the statements of one list may
// match within a day before a person is asked. The zero Flood lets everything act.
type Flood struct {
	// Uploads is how many it may be in any case, and Share what share of all different ones in the window.
	// Beyond both, all of the day's statements that match anything go into quarantine, and so
	// does whatever else of the list matches anything until a person has decided.
	//
	// An upload of the last Fresh counts a tenth: a ban comes soon after what it is about,
	// in a wave of spam after hundreds of copies, whereas one who bans what is harmless hits
	// uploads of any age.
	Uploads int
	Share   float64
}

// Fresh is how old an upload is at which it counts fully; see Flood.
const Fresh = 6 * time.Hour

// floodDay is the time over which the matches of a list are added up.
const floodDay = 24 * time.Hour

// maxTally bounds what is remembered of one list and day.
const maxTally = 10_000

// tally is what statements of one list have matched within a day.
type tally struct {
	since      time.Time
	uploads    map[uint64]float64 // what each counts, by its ID
	sum        float64
	statements []Quarantined // those that matched something
}

// limit is how much may be matched of so many different uploads. How often each came does not count: one
// file that is uploaded without end would raise it as far as whoever does it likes.
func (f Flood) limit(uploads int) float64 {
	return max(float64(f.Uploads), f.Share*float64(uploads))
}

// quarantine is what was put there, and what may come to it.
type quarantine struct {
	all     map[string]Quarantined
	waiting map[string]int // by list: statements that nobody decided on
	days    map[string]*tally
}

func (q *quarantine) put(v Quarantined) {
	if old, ok := q.all[v.Statement]; ok && old.State == QuarantineHeld {
		q.waiting[v.List]--
	}
	if q.all[v.Statement] = v; v.State == QuarantineHeld {
		q.waiting[v.List]++
	}
	if q.waiting[v.List] == 0 {
		delete(q.waiting, v.List)
	}
}

// loadQuarantine reads what was decided, before anything acts.
func (w *Window) loadQuarantine(ctx context.Context) error {
	w.quarantine = quarantine{all: map[string]Quarantined{}, waiting: map[string]int{}, days: map[string]*tally{}}
	if w.config.Quarantine == nil {
		return nil
	}
	all, err := w.config.Quarantine.Quarantine(ctx)
	if err != nil {
		return err
	}
	var hold []string
	for _, v := range all {
		w.quarantine.put(v)
		if v.State != QuarantineReleased {
			hold = append(hold, v.Statement)
		}
	}
	w.lists.hold(hold, true)
	if w.config.Flood.Uploads > 0 {
		w.lists.mu.Lock()
		w.lists.guard = w.guard
		w.lists.mu.Unlock()
	}
	return nil
}

// guard tells which of some statements must not act yet. The lists ask it after they are
// durable and before they act, so it takes no longer than their comparison with the window.
func (w *Window) guard(records []Record) []string {
	var hold []Quarantined
	var objects []string
	for i := range records {
		s := &records[i].Statement
		switch {
		case s.Kind == AddHashes && !w.lists.ours(s.List):
			hold = append(hold, w.check(s)...)
		case s.Kind == Vouch && w.lists.counts(s.List):
			objects = append(objects, s.Vouch.Object)
		}
	}
	w.vouched(objects)
	return w.quarantined(hold)
}

// counts reports whether it matters here what a list says of issuers.
func (l *Lists) counts(list string) bool {
	l.mu.RLock()
	counts := l.fold.heeded[list] != 0 || l.fold.relied[list]
	l.mu.RUnlock()
	return counts || l.ours(list)
}

// quarantined stores what was put into quarantine and has a person asked. It returns the
// statements.
func (w *Window) quarantined(hold []Quarantined) []string {
	if len(hold) == 0 {
		return nil
	}
	if err := w.config.Quarantine.SaveQuarantine(w.ctx, hold); err != nil && w.ctx.Err() == nil {
		// They are held until the node starts again, which is the safer side.
		w.log.Error("statements were put into quarantine, which could not be stored", "statements", len(hold), "error", err.Error())
	}
	ids := make([]string, len(hold))
	for i, v := range hold {
		ids[i] = v.Statement
	}
	w.log.Warn("statements of another node would match more than expected of what was let through lately: they do not act until somebody decides (`tocsin quarantine`)",
		"list", hold[0].List, "statements", len(hold))
	select {
	case w.asked <- struct{}{}:
	default: // somebody has been told and has not looked yet
	}
	return ids
}

// Asked tells, by what comes through it, that something is in quarantine that a person
// has not been asked about. It has one reader.
func (w *Window) Asked() <-chan struct{} { return w.asked }

// ours reports whether a list is this node's own, and not kept for somebody else.
func (l *Lists) ours(list string) bool {
	l.mu.RLock()
	behalf := l.fold.behalf[list]
	l.mu.RUnlock()
	o, err := Origin(list)
	return !behalf && (l.policy.Own == "" || err == nil && o == l.policy.Own)
}

// matched returns the IDs of the uploads near one of hashes that nothing speaks against
// yet, with how often each came, and how many there are with repetitions and without.
func (w *Window) matched(hashes []Hash, radii Radii) (uploads map[uint64]uint32, of uint64, distinct int) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	var found []uint32
	for _, h := range hashes {
		found = w.index.search(h, int(radii[h.alg]), found)
		if len(found) > 1<<20 {
			found = unique(found)
		}
	}
	uploads = map[uint64]uint32{}
	for _, n := range unique(found) {
		r := &w.index.uploads[n]
		if _, hit := w.hit[r.id]; !hit {
			uploads[r.id] = r.count
		}
	}
	return uploads, w.index.count, w.index.len
}

// check decides about one statement of another node, and returns what goes into quarantine because of it.
// It compares by the widest radii that such a list can have, not by its own: those its issuer can widen
// when the statements act already.
func (w *Window) check(s *Statement) (hold []Quarantined) {
	uploads, of, distinct := w.matched(s.Hashes, DefaultRadii)
	if len(uploads) == 0 {
		return nil
	}
	now := w.config.Now().UTC().Truncate(time.Microsecond)
	v := Quarantined{Statement: s.ID, List: s.List, Issuer: s.Issuer, Uploads: int(of), Since: now, State: QuarantineHeld}
	for _, count := range uploads {
		v.Matched += int(count)
	}
	w.quarantining.Lock()
	defer w.quarantining.Unlock()
	q := &w.quarantine
	if _, known := q.all[s.ID]; known {
		return nil
	}
	day := q.days[s.List]
	if day == nil || now.Sub(day.since) > floodDay || now.Before(day.since) {
		day = &tally{since: now, uploads: map[uint64]float64{}}
		q.days[s.List] = day
	}
	for id, count := range uploads {
		if _, counted := day.uploads[id]; counted || len(day.uploads) >= maxTally {
			continue
		}
		weight := weigh(id, count, now)
		day.uploads[id] = weight
		day.sum += weight
	}
	if q.waiting[s.List] == 0 && day.sum <= w.config.Flood.limit(distinct) && len(day.uploads) < maxTally {
		day.statements = append(day.statements, v)
		return nil
	}
	hold = append(day.statements, v)
	day.statements = nil
	for _, h := range hold {
		q.put(h)
	}
	return hold
}

// Suspicious reports whether so many hashes of one list would match more of the window
// than is expected, and how many uploads of how many they would match.
func (w *Window) Suspicious(hashes []Hash, radii Radii) (matched, uploads int, suspicious bool) {
	r := w.Reach()
	for _, h := range hashes {
		r.Add(h, radii)
	}
	return r.Sum()
}

// Quarantined returns what is in quarantine, the oldest first; with what was decided on if
// all is set.
func (w *Window) Quarantined(all bool) []Quarantined {
	if w == nil {
		return nil
	}
	w.quarantining.Lock()
	defer w.quarantining.Unlock()
	var some []Quarantined
	for _, v := range w.quarantine.all {
		if all || v.State == QuarantineHeld {
			some = append(some, v)
		}
	}
	slices.SortFunc(some, func(a, b Quarantined) int {
		if c := a.Since.Compare(b.Since); c != 0 {
			return c
		}
		return strings.Compare(a.Statement, b.Statement)
	})
	return some
}

// ErrNotQuarantined is returned for what is not in quarantine.
var ErrNotQuarantined = errors.New("nothing of that is in quarantine")

// Decide decides about a statement in quarantine, or about all of a list that nobody
// decided on. A decision can be changed. It returns how many statements it were.
func (w *Window) Decide(ctx context.Context, subject string, state QuarantineState, who, why string) (int, error) {
	if w == nil || state != QuarantineReleased && state != QuarantineKept {
		return 0, ErrNotQuarantined
	}
	w.quarantining.Lock()
	defer w.quarantining.Unlock()
	var decided []Quarantined
	for _, v := range w.quarantine.all {
		if v.Statement == subject || v.List == subject && v.State == QuarantineHeld {
			v.State, v.Decided, v.Who, v.Why = state, w.config.Now().UTC().Truncate(time.Microsecond), who, why
			decided = append(decided, v)
		}
	}
	if len(decided) == 0 {
		return 0, ErrNotQuarantined
	}
	if err := w.config.Quarantine.SaveQuarantine(ctx, decided); err != nil {
		return 0, fmt.Errorf("store the decision: %w", err)
	}
	ids := make([]string, len(decided))
	for i, v := range decided {
		ids[i] = v.Statement
		w.quarantine.put(v)
		delete(w.quarantine.days, v.List) // what comes now is counted from the beginning
	}
	w.lists.hold(ids, state == QuarantineKept)
	return len(ids), nil
}

// hold has statements match nothing, or again what they match. They need not be known
// yet.
func (l *Lists) hold(ids []string, held bool) {
	if len(ids) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	stirred := map[string]bool{}
	for _, id := range ids {
		if l.fold.quarantine(id, held) {
			stirred[l.fold.stmts[l.fold.byID[id]].list.iri] = true
		}
	}
	for iri := range stirred {
		l.changed(iri)
	}
}

// quarantine notes whether a statement matches nothing, and reports whether it is known
// and that is new.
func (f *fold) quarantine(id string, held bool) bool {
	if held {
		f.held[id] = struct{}{}
	} else {
		delete(f.held, id)
	}
	n, known := f.byID[id]
	if !known || f.stmts[n].held == held {
		return false
	}
	f.stmts[n].held = held
	return true
}
