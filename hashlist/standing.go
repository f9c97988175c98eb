package hashlist

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/tocsin-fed/tocsin/bktree"
)

// Listed reports which of hashes are in force on a list by a statement of the
// given issuer.
func (l *Lists) Listed(list, issuer string, hashes []Hash) []bool {
	now := time.Now().Unix()
	listed := make([]bool, len(hashes))
	l.mu.RLock()
	defer l.mu.RUnlock()
	f := l.fold
	for i, h := range hashes {
		f.each(h, func(s *stmt) bool {
			listed[i] = s.list.iri == list && s.issuer == issuer && s.stands(now)
			return !listed[i]
		})
	}
	return listed
}

// OfPartners reports which of hashes are in force on a list of partner data, nil if none is.
func (l *Lists) OfPartners(hashes []Hash) []bool {
	now := time.Now().Unix()
	l.mu.RLock()
	defer l.mu.RUnlock()
	var theirs []bool
	for i, h := range hashes {
		l.fold.each(h, func(s *stmt) bool {
			if !s.list.partner || !s.stands(now) {
				return true
			}
			if theirs == nil {
				theirs = make([]bool, len(hashes))
			}
			theirs[i] = true
			return false
		})
	}
	return theirs
}

// Known returns the subjects of a kind that are in force on any list, each once and in no order. kind is
// AddAccounts, AddInstances or AddContent.
func (l *Lists) Known(kind Kind) []string {
	if kind != AddAccounts && kind != AddInstances && kind != AddContent {
		return nil
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	var all []string
	l.fold.textsOf(kind.table()).all(func(_ bktree.ID, text string) { all = append(all, text) })
	return all
}

// Standing returns the statements of the given issuer by which h is in force on
// a list, with their terms: ID, Action, Labels, Reason, Published and Expires.
func (l *Lists) Standing(list, issuer string, h Hash) []Statement {
	now := time.Now().Unix()
	l.mu.RLock()
	defer l.mu.RUnlock()
	var all []Statement
	l.fold.each(h, func(s *stmt) bool {
		if s.list.iri == list && s.issuer == issuer && s.stands(now) {
			all = append(all, s.terms())
		}
		return true
	})
	return all
}

// Accepted returns the statements of the given issuer by which h is in force as known to be
// harmless, on whichever list that is heeded and has a definition, with their terms as Standing tells them.
func (l *Lists) Accepted(issuer string, h Hash) []Statement {
	now := time.Now().Unix()
	l.mu.RLock()
	defer l.mu.RUnlock()
	var all []Statement
	l.fold.each(h, func(s *stmt) bool {
		if d := s.list.current; d != nil && s.list.most != 0 && s.issuer == issuer && s.stands(now) && cmp.Or(s.action, d.Action) == Accept {
			all = append(all, s.terms())
		}
		return true
	})
	return all
}

// terms is what the fold keeps of a statement.
func (s *stmt) terms() Statement {
	v := Statement{
		ID: s.id, Issuer: s.issuer, List: s.list.iri, Kind: s.kind, Action: s.action, Labels: s.labels, Reason: s.reason,
		Published: time.Unix(s.published, 0).UTC(),
	}
	if s.expires != 0 {
		v.Expires = time.Unix(s.expires, 0).UTC()
	}
	return v
}

// Subject returns the statements by which an account, a domain or an address of
// content is in force, the oldest first: who says so, on which list, since when and until
// when, and why. kind is AddAccounts, AddInstances or AddContent. Action is the statement's, or else the list's, and
// Labels are those of both; Subjects has the one that was asked for. Lists that are not
// heeded, or have no definition, say nothing. A domain is that very name: who wants to
// know of those above it asks for them too.
func (l *Lists) Subject(kind Kind, subject string) []Statement {
	if kind != AddAccounts && kind != AddInstances && kind != AddContent {
		return nil
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.fold.said(kind, subject, func(s *stmt, v *Statement) bool {
		d := s.list.current
		v.Action, v.Labels, v.Subjects = cmp.Or(v.Action, d.Action), union(d.Labels, v.Labels), []string{subject}
		return true
	})
}

// About returns the confirmations and the disputes in force of a statement, the
// oldest first. They come from lists that are heeded and have a definition. What the
// issuer of the statement says of it is left out; another issuer may be there with more
// than one statement.
func (l *Lists) About(statement string) (confirmed, disputed []Statement) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	f := l.fold
	of := func(s *stmt, v *Statement) bool {
		v.About = statement
		n, known := f.byID[statement]
		return !known || f.stmts[n].issuer != s.issuer
	}
	return f.said(Confirmation, statement, of), f.said(Dispute, statement, of)
}

// said returns the statements by which a text is in force, as complete makes them,
// but for those that it refuses.
func (f *fold) said(kind Kind, text string, complete func(*stmt, *Statement) bool) []Statement {
	id, ok := f.textsOf(kind.table()).get(text)
	if !ok {
		return nil
	}
	now := time.Now().Unix()
	var all []Statement
	for o := f.owners[kind.table()][id]; o != 0; o = f.postings[o-1].next {
		s := &f.stmts[f.postings[o-1].stmt]
		if !s.stands(now) || s.list.most == 0 || s.list.current == nil {
			continue
		}
		if v := s.terms(); complete(s, &v) {
			all = append(all, v)
		}
	}
	slices.SortFunc(all, func(a, b Statement) int { return cmp.Or(a.Published.Compare(b.Published), strings.Compare(a.ID, b.ID)) })
	return all
}

// InForce returns those of the hashes of an AddHashes statement that have
// neither been retracted nor lapsed.
func (l *Lists) InForce(s *Statement) []Hash { return inForce(l, s, s.Hashes) }

// SubjectsInForce returns those of the subjects of a statement that have neither
// been retracted nor lapsed.
func (l *Lists) SubjectsInForce(s *Statement) []string { return inForce(l, s, s.Subjects) }

func inForce[T any](l *Lists, s *Statement, all []T) []T {
	now := time.Now().Unix()
	l.mu.RLock()
	defer l.mu.RUnlock()
	f := l.fold
	n, ok := f.byID[s.ID]
	if !ok || f.stmts[n].live == 0 || !f.stmts[n].stands(now) {
		return nil
	}
	var in []T
	for i, v := range all[:min(len(all), int(f.stmts[n].count))] {
		if f.postings[f.stmts[n].first+uint32(i)].in != 0 {
			in = append(in, v)
		}
	}
	return in
}

// stands reports whether s has neither lapsed nor is void.
func (s *stmt) stands(now int64) bool { return !s.void && (s.expires == 0 || s.expires > now) }

// each visits the statements that list h itself, until visit returns false.
func (f *fold) each(h Hash, visit func(*stmt) bool) {
	if !h.alg.Valid() {
		return
	}
	id, ok := f.points[h.alg].find(h)
	if !ok {
		return
	}
	for o := f.owners[h.alg][id]; o != 0; o = f.postings[o-1].next {
		if !visit(&f.stmts[f.postings[o-1].stmt]) {
			return
		}
	}
}
