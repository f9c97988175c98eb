package hashlist

import (
	"container/heap"
	"time"
)

// What statements say may begin and end with time alone: a vouching begins at its From, and everything may end. Lookups
// look at the clock themselves. But the recent window has to be told, since nothing comes in at that moment: who is believed from now on
// may have listed anything, and with what ends something else may count again, an older vouching or what an Accept spoke for.

// turn is a moment at which a statement counts otherwise than before.
type turn struct {
	at   int64 // Unix seconds: among fold.turns by the system's clock, as for lookups, among fold.lapsing by the steady one
	stmt uint32
	soon bool // not the moment itself, but turnSoon before it
}

// turnSoon is how long before a vouching begins or ends the window looks at what those write who may be believed then,
// so that what must not act is held in time.
const turnSoon = 30 // seconds

// maxTurned bounds the statements that are told of one by one; of more, anything may act otherwise.
const maxTurned = 1024

// await notes when what statement n says begins and ends, as far as that is still to come.
func (f *fold) await(n uint32) {
	s := &f.stmts[n]
	var moments [2]int64
	switch s.kind {
	case Vouch:
		moments = [2]int64{f.trust.said[n].from, s.expires}
	case AddHashes, Confirmation, Dispute:
		moments[1] = s.expires
	}
	for _, at := range moments {
		if at > f.looked {
			heap.Push(&f.turns, turn{at, n, false})
		}
		if s.kind == Vouch && at-turnSoon > f.looked {
			heap.Push(&f.turns, turn{at - turnSoon, n, true})
		}
	}
}

// turn returns the statements that began or ended since it was asked last, and the vouchings that do so soon.
// A clock that was set back has what lies between come once more.
func (f *fold) turn(now int64) (turned, soon []uint32) {
	if now < f.looked {
		f.lookBack(now)
	}
	f.looked = now
	for len(f.turns) > 0 && f.turns[0].at <= now {
		t := heap.Pop(&f.turns).(turn)
		s := &f.stmts[t.stmt]
		switch {
		case s.void || s.list.current == nil || s.list.most == 0 && (s.kind != Vouch || !s.list.relied):
			// It counts for nothing; whatever changes that is told of.
		case t.soon:
			soon = append(soon, t.stmt)
		default:
			turned = append(turned, t.stmt)
		}
	}
	return turned, soon
}

// lookBack has all that begins or ends after a time come up from now on.
func (f *fold) lookBack(since int64) {
	f.looked, f.turns = since, nil
	for n := range f.stmts {
		f.await(uint32(n))
	}
}

// turn tells the window of what began or ended by the clock since it was called last.
func (l *Lists) turn() {
	l.mu.Lock()
	turned, soon := l.fold.turn(time.Now().Unix())
	for _, n := range turned {
		if s := &l.fold.stmts[n]; s.kind == Vouch || len(l.turned) >= maxTurned {
			l.stirBy(s.list.iri, "")
		} else {
			l.turned = append(l.turned, s.id)
		}
	}
	if len(turned) > 0 {
		l.changed()
	}
	l.stirDue()
	guard := l.guard
	var vouchings []Record
	for _, n := range soon {
		s, object := &l.fold.stmts[n], l.fold.trust.names[l.fold.trust.said[n].object]
		vouchings = append(vouchings, Record{Statement: Statement{
			ID: s.id, Issuer: s.issuer, List: s.list.iri, Kind: Vouch, Vouch: &Vouching{Object: object},
		}})
	}
	l.mu.Unlock()
	if guard != nil && len(vouchings) > 0 {
		guard(vouchings) // as when they came: the window was another one then
	}
}

// untilTurn returns how long nothing begins or ends, and nothing that others had stirred is due, at most sweep.
func (l *Lists) untilTurn() time.Duration {
	l.mu.RLock()
	defer l.mu.RUnlock()
	wait := sweep
	if len(l.fold.turns) > 0 {
		wait = min(wait, time.Until(time.Unix(l.fold.turns[0].at, 0)))
	}
	for _, p := range l.paced {
		if len(p.lists) > 0 {
			wait = min(wait, time.Until(p.next))
		}
	}
	return wait
}

// turnSince has what began or ended after a time (Unix seconds) told of once more.
func (l *Lists) turnSince(since int64) {
	l.mu.Lock()
	if since < l.fold.looked {
		l.fold.lookBack(since)
	}
	l.mu.Unlock()
	l.turn()
}

// turns is a heap, the next one first.
type turns []turn

// Len implements heap.Interface.
func (h turns) Len() int { return len(h) }

// Less implements heap.Interface: the earlier one first.
func (h turns) Less(i, j int) bool { return h[i].at < h[j].at }

// Swap implements heap.Interface.
func (h turns) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *turns) Push(v any) { *h = append(*h, v.(turn)) }

// Pop implements heap.Interface.
func (h *turns) Pop() any {
	old := *h
	v := old[len(old)-1]
	*h = old[:len(old)-1]
	return v
}
