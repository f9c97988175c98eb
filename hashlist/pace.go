package hashlist

import (
	"maps"
	"slices"
	"time"
)

// paceEvery is the time within which another node has the window compared once with all of a list, or with everything.
// Whoever writes to a list that is followed can define it anew and vouch without end, and each time costs as much as looking up every upload of
// the window. What is decided on this node does not wait.
const paceEvery = 5 * time.Second

// pace is what another node has had stirred lately.
type pace struct {
	next  time.Time       // before it nothing more is stirred
	lists map[string]bool // what is stirred then, as in Lists.stirred
}

// redefines returns the list that means something else because of a statement, nil if none does.
func (f *fold) redefines(s *Statement) *list {
	id := s.ID
	switch s.Kind {
	case Retraction:
		id = s.Retracts
	case Confirmation, Dispute:
		id = s.About
	}
	n, known := f.byID[id]
	if !known || f.stmts[n].kind != DefineList {
		return nil
	}
	return f.stmts[n].list
}

// stirBy is changed for what a statement on the list by says. If that is another node's it may wait. l.mu is held to write.
func (l *Lists) stirBy(by, list string) {
	v := l.fold.lists[by]
	if v == nil || v.origin == "" {
		l.changed(list)
		return
	}
	p := l.paced[v.origin]
	if p == nil {
		p = &pace{lists: map[string]bool{}}
		l.paced[v.origin] = p
	}
	p.lists[list] = true
	l.stirDue()
}

// stirDue has stirred what has waited long enough. l.mu is held to write.
func (l *Lists) stirDue() {
	now := time.Now()
	for origin, p := range l.paced {
		switch {
		case now.Before(p.next):
		case len(p.lists) == 0:
			delete(l.paced, origin)
		default:
			l.changed(slices.Collect(maps.Keys(p.lists))...)
			p.next = now.Add(paceEvery)
			clear(p.lists)
		}
	}
}
