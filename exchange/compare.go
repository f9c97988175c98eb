package exchange

import (
	"fmt"
	"slices"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// Limits say how much of a list may change before a person is asked.
type Limits struct {
	Form Form // of the format that the new rows came in
	// Shrink is the largest share of the old rows, above 0 and up to 1, that may be missing
	// from the new ones, or be taken back by them. 0: DefaultShrink.
	Shrink float64
	// Most is the largest number of changes. 0: any.
	Most int
}

// DefaultShrink is a third: a list that lost more than that since it was last read is
// more often one that was cut off, emptied or moved than one that was tidied up.
const DefaultShrink = 1.0 / 3

// Changed is a row whose terms changed.
type Changed struct{ Old, New Row }

// Plan is what is to be done so that a list says what was read.
type Plan struct {
	Added     []Row
	Changed   []Changed
	Retracted []Row // as they were
	Same      int
	// Unknown counts the withdrawals of what is not on the list.
	Unknown int
	// Held says why a person must approve of the plan before any of it is done, "" for no
	// reason.
	Held string
}

// Changes is the number of things that the plan changes.
func (p *Plan) Changes() int { return len(p.Added) + len(p.Changed) + len(p.Retracted) }

// thing is what a row is of.
type thing struct {
	hash    hashlist.Hash
	subject string
}

func (r *Row) thing() thing { return thing{r.Hash, r.Subject} }

// sameTerms reports whether two rows say the same of a thing. The quality and the place in the file are
// not terms.
func sameTerms(a, b *Row) bool {
	return a.Action == b.Action && a.Reason == b.Reason && slices.Equal(a.Labels, b.Labels)
}

// Compare finds out what is to be done so that a list on which old is, each thing once, says what
// was read from a file. Of several new rows of one thing the last counts. What is absent from
// the file is retracted only if it is a Snapshot. Whatever the form, a plan is held if the new
// rows say that too much has gone: a server that answers with an empty page, or half of one,
// must not lift a ban.
func Compare(old, read []Row, l Limits) Plan {
	var p Plan
	at := make(map[thing]int, len(old))
	keys := map[string][]int{}
	for i := range old {
		at[old[i].thing()] = i
		if k := old[i].Key; k != "" {
			keys[k] = append(keys[k], i)
		}
	}
	last := make(map[thing]int, len(read))
	gone := make([]bool, len(old))    // taken back in so many words
	present := make([]bool, len(old)) // or spoken of otherwise
	for i := range read {
		r := &read[i]
		if r.thing() != (thing{}) {
			last[r.thing()] = i
			continue
		}
		// An entry that is named by its key alone. A later row lists its thing again.
		if n := len(keys[r.Key]); r.Key == "" || n == 0 {
			p.Unknown++
		}
		for _, k := range keys[r.Key] {
			gone[k] = true
		}
	}
	for i := range read {
		r := &read[i]
		if r.thing() == (thing{}) || last[r.thing()] != i {
			continue
		}
		k, listed := at[r.thing()]
		switch {
		case r.Withdrawn && !listed:
			p.Unknown++
		case r.Withdrawn:
			gone[k] = true
		case !listed:
			p.Added = append(p.Added, *r)
		default:
			present[k], gone[k] = true, false
			if sameTerms(&old[k], r) {
				p.Same++
			} else {
				p.Changed = append(p.Changed, Changed{old[k], *r})
			}
		}
	}
	missing := 0
	for k := range old {
		absent := !present[k] && !gone[k]
		if gone[k] || absent && l.Form != Changes {
			missing++
		}
		if gone[k] || absent && l.Form == Snapshot {
			p.Retracted = append(p.Retracted, old[k])
		} else if absent {
			p.Same++
		}
	}
	share := l.Shrink
	if share <= 0 {
		share = DefaultShrink
	}
	switch n := len(old); {
	case n > 0 && len(read) == 0 && l.Form != Changes:
		p.Held = fmt.Sprintf("it came back empty, and %d were on it", n)
	case float64(missing) > share*float64(n):
		p.Held = fmt.Sprintf("%d of %d that were on it are gone, more than %.0f %%", missing, n, 100*share)
	case l.Most > 0 && p.Changes() > l.Most:
		p.Held = fmt.Sprintf("it would change %d, more than %d", p.Changes(), l.Most)
	}
	return p
}
