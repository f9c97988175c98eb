package hashlist

// OnBehalf says that a list of this node's own origin is kept for somebody else: a source
// that is read and put into statements here, because it makes none itself. The node's
// issuer signs what is on it, so that there is a record, and means no more by it
// than that the source said so. Like a list of another origin it acts as far as Heed says,
// and before that not at all; what it accepts suppresses nothing of the node's own lists; and its issuer
// stands behind none of it. It is not part of the log, as Heed is not: whoever opens the lists
// says it again before the first lookup. It is never taken back: whoever wants a
// source's word for their own says it again on another list.
func (l *Lists) OnBehalf(list string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.fold
	if f.behalf[list] {
		return
	}
	f.behalf[f.intern(list)] = true
	if v := f.lists[list]; v != nil {
		v.origin, v.most, v.direct, v.relied = v.iri, f.heeded[list], f.directs[list], f.relied[list]
		f.widen()
		f.retrust()
	}
}

// voice is who stands behind a statement: its issuer, or, of a list that is kept for
// somebody else, the list itself, for which nobody vouches.
func (f *fold) voice(s *stmt) string {
	if f.behalf[s.list.iri] {
		return s.list.iri
	}
	return s.issuer
}
