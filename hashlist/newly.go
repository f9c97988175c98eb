package hashlist

import (
	"maps"
	"slices"
	"time"
)

// weigh is how much uploads that some statements match count towards a Flood.
func weigh(id uint64, count uint32, now time.Time) float64 {
	if now.UnixMicro()-int64(id) < Fresh.Microseconds() { // IDs are given by the clock
		return float64(count) / 10
	}
	return float64(count)
}

// Reach adds up how much of the window some hashes match, a few of them at a time. It is not for
// concurrent use.
type Reach struct {
	w       *Window
	uploads map[uint64]uint32
	found   []uint32
}

// Reach returns one that has met no hash yet. That of a nil Window matches nothing.
func (w *Window) Reach() *Reach { return &Reach{w: w, uploads: map[uint64]uint32{}} }

// Add adds what a hash matches, and reports whether that is anything that nothing speaks against yet.
func (r *Reach) Add(h Hash, radii Radii) (near bool) {
	if r.w == nil {
		return false
	}
	r.w.mu.RLock()
	defer r.w.mu.RUnlock()
	r.found = r.w.index.search(h, int(radii[h.alg]), r.found[:0])
	for _, n := range r.found {
		u := &r.w.index.uploads[n]
		if _, hit := r.w.hit[u.id]; !hit {
			r.uploads[u.id], near = u.count, true
		}
	}
	return near
}

// Merge adds what another has met.
func (r *Reach) Merge(o *Reach) { maps.Copy(r.uploads, o.uploads) }

// Sum returns how many uploads of how many are matched, and whether that is more than is
// expected; see Flood.
func (r *Reach) Sum() (matched, uploads int, suspicious bool) {
	if r.w == nil {
		return 0, 0, false
	}
	sum, now := 0.0, r.w.config.Now()
	for id, count := range r.uploads {
		matched += int(count)
		sum += weigh(id, count, now)
	}
	r.w.mu.RLock()
	of, distinct := r.w.index.count, r.w.index.len
	r.w.mu.RUnlock()
	return matched, int(of), r.w.config.Flood.Uploads > 0 && sum > r.w.config.Flood.limit(distinct)
}

// TooMany reports whether so many uploads of so many are more than is expected.
func (w *Window) TooMany(matched, uploads int) bool {
	return w != nil && w.config.Flood.Uploads > 0 && float64(matched) > w.config.Flood.limit(uploads)
}

// What stands in the log may come to act all at once: a list is followed that was not, or may come to more than
// before, or those who write to it are vouched for. It passed the guard when it came, one by one, and maybe when the window
// was empty. So it is compared with the window once more, all of a list together, before it acts. A node that starts says of
// lists what was said before, which was looked at then: only what is said after Start is.

// acting looks at what stands on a list before it acts, if hashes is set, and at what those write for whom
// it vouches.
func (w *Window) acting(list string, hashes bool) {
	if hashes && !w.lists.ours(list) {
		w.holdFlood(list, nil)
	}
	var objects []string
	for record, err := range w.lists.After(w.ctx, 0, Selection{List: list}) {
		if err != nil {
			w.log.Error("whom a list vouches for could not be read before it acts", "list", list, "error", err.Error())
			return
		}
		if s := &record.Statement; s.Kind == Vouch {
			objects = append(objects, s.Vouch.Object)
		}
	}
	w.vouched(objects)
}

// maxVouched bounds how many issuers are looked at because of some that are vouched for.
const maxVouched = 10_000

// vouched looks at what those write, and those for whom they vouch in turn, who are about to be believed.
func (w *Window) vouched(objects []string) {
	issuers := map[string]bool{}
	for len(objects) > 0 && len(issuers) < maxVouched {
		o := objects[0]
		if objects = objects[1:]; issuers[o] {
			continue
		}
		issuers[o] = true
		for _, v := range w.lists.Vouchings(o, "") {
			objects = append(objects, v.Vouch.Object)
		}
	}
	if len(issuers) == 0 {
		return
	}
	for _, l := range w.lists.All() {
		if l.Most > VerdictAllow && !w.lists.ours(l.ID) {
			w.holdFlood(l.ID, func(issuer string) bool { return issuers[issuer] && !w.lists.believes(&l, issuer) })
		}
	}
}

// believes reports whether an issuer is believed as far already as matters on a list.
func (l *Lists) believes(list *List, issuer string) bool {
	l.mu.RLock()
	direct := int(l.fold.directs[list.ID])
	l.mu.RUnlock()
	need := int(DirectBelief(list.Most))
	if direct >= need {
		return true
	}
	labels := list.Labels
	if len(labels) == 0 {
		labels = []string{""}
	}
	return !slices.ContainsFunc(labels, func(label string) bool { return direct+l.Belief(time.Now(), label, issuer).Amount < need })
}

// holdFlood puts into quarantine what stands on a list by some issuers (nil: by any) and matches anything
// recent, if together it matches more than is expected. What a person has decided on stays as decided.
func (w *Window) holdFlood(list string, by func(issuer string) bool) {
	total := map[uint64]uint32{}
	now := w.config.Now().UTC().Truncate(time.Microsecond)
	of, ask := 0, map[string]bool{} // by issuer, what by says: it may be costly
	var near []Quarantined
	for record, err := range w.lists.After(w.ctx, 0, Selection{List: list}) {
		if err != nil {
			w.log.Error("a list could not be compared with the recent window before it acts", "list", list, "error", err.Error())
			return
		}
		s := &record.Statement
		if s.Kind != AddHashes || w.decided(s.ID) {
			continue
		}
		if by != nil {
			asked, known := ask[s.Issuer]
			if !known {
				asked = by(s.Issuer)
				ask[s.Issuer] = asked
			}
			if !asked {
				continue
			}
		}
		uploads, all, distinct := w.matched(w.lists.InForce(s), DefaultRadii) // as in check
		of = distinct
		if len(uploads) == 0 {
			continue
		}
		v := Quarantined{Statement: s.ID, List: s.List, Issuer: s.Issuer, Uploads: int(all), Since: now, State: QuarantineHeld}
		for id, count := range uploads {
			v.Matched += int(count)
			total[id] = count
		}
		near = append(near, v)
	}
	sum := 0.0
	for id, count := range total {
		sum += weigh(id, count, now)
	}
	if len(near) == 0 || sum <= w.config.Flood.limit(of) {
		return
	}
	w.quarantining.Lock()
	near = slices.DeleteFunc(near, func(v Quarantined) bool { _, known := w.quarantine.all[v.Statement]; return known })
	for _, v := range near {
		w.quarantine.put(v)
	}
	w.quarantining.Unlock()
	w.lists.hold(w.quarantined(near), true)
}

func (w *Window) decided(statement string) bool {
	w.quarantining.Lock()
	defer w.quarantining.Unlock()
	_, known := w.quarantine.all[statement]
	return known
}
