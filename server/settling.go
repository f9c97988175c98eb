package server

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/tocsin-fed/tocsin/exchange"
	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// An import of servers and accounts is compared with the list as a whole: other than hashes, they come by the
// thousand and not by the million, and their terms change. So are hashes that
// the file takes back. This is the end of an import, after every row was read.

const (
	// maxImported is how many rows of servers and accounts, or of hashes that are taken back, one import holds.
	maxImported = 200_000
	// statementBytes is what the subjects of one statement may take: with what else is in it, it must not
	// be longer than a statement may be.
	statementBytes = 96 << 10
	// sealedAtOnce is how many statements are signed and written together.
	sealedAtOnce = 64
)

// addSubject puts a row of a server or account aside.
func (im *importer) addSubject(row exchange.Row) error {
	if len(im.subjects) == maxImported {
		return refuse(errInvalid, "line %d: there are more than %d servers and accounts: import the file in parts", row.Line, maxImported)
	}
	if err := im.complete(&row); err != nil {
		return err
	}
	row.Action = cmp.Or(row.Action, im.to.Action)
	row.Labels = slices.DeleteFunc(slices.Clone(row.Labels), func(l string) bool { return slices.Contains(im.to.Labels, l) })
	im.subjects = append(im.subjects, row)
	return nil
}

// takeBack notes a hash that the file withdraws.
func (im *importer) takeBack(row exchange.Row) error {
	if len(im.gone) == maxImported {
		return refuse(errInvalid, "line %d: more than %d hashes are taken back: import the file in parts", row.Line, maxImported)
	}
	if im.gone == nil {
		im.gone = map[hashlist.Hash]struct{}{}
	}
	im.gone[row.Hash] = struct{}{}
	return nil
}

// settle does what waited for the end of the file and of all batches. What is new is listed before what
// is old is retracted, so that nothing is let through in between.
func (im *importer) settle() error {
	if len(im.gone) == 0 && len(im.subjects) == 0 && !im.absent {
		return nil
	}
	s := im.s
	s.retracting.Lock()
	defer s.retracting.Unlock()
	add, end, err := im.compareSubjects()
	if err != nil {
		return err
	}
	withdrawn, taken := im.withdrawHashes()
	im.taken += taken
	im.repeated += uint64(len(im.gone)) - taken
	if n := uint64(im.to.Hashes); im.held == "" && !im.sure && float64(taken) > exchange.DefaultShrink*float64(n) {
		im.held = fmt.Sprintf("%d of %d hashes that were on it are taken back, more than %.0f %%", taken, n, 100*exchange.DefaultShrink)
	}
	if im.held != "" {
		im.changed, im.taken = 0, 0
		return nil
	}
	statements := slices.Concat(add, end, withdrawn)
	if !im.dry || im.draft {
		for _, v := range add {
			im.listed += uint64(len(v.Subjects))
		}
		im.listed -= im.changed
	}
	switch {
	case im.draft:
		for _, v := range statements {
			draft, err := s.draft(v)
			if err != nil {
				return err
			}
			im.drafts = append(im.drafts, draft)
		}
	case !im.dry:
		// Finished even if the caller leaves, as with hashes.
		for chunk := range slices.Chunk(statements, sealedAtOnce) {
			if _, err := s.seal(context.WithoutCancel(im.ctx), chunk...); err != nil {
				return err
			}
		}
	}
	return nil
}

// compareSubjects works out which statements make the list say what the file says of servers and accounts, and
// which retractions go with them.
func (im *importer) compareSubjects() (add, end []hashlist.Statement, err error) {
	if len(im.subjects) == 0 && !im.absent {
		return nil, nil, nil
	}
	s := im.s
	var old []exchange.Row
	by := map[string][]string{} // by subject: the statements that list it
	for record, err := range s.cfg.Lists.After(im.ctx, 0, hashlist.Selection{List: im.to.ID}) {
		if err != nil {
			return nil, nil, err
		}
		v := &record.Statement
		if v.Kind != hashlist.AddAccounts && v.Kind != hashlist.AddInstances || v.Issuer != s.cfg.Issuer.Actor() {
			continue
		}
		for _, subject := range s.cfg.Lists.SubjectsInForce(v) {
			if by[subject] = append(by[subject], v.ID); len(by[subject]) == 1 {
				old = append(old, exchange.Row{Subject: subject, Quality: -1, Labels: v.Labels, Action: cmp.Or(v.Action, im.to.Action), Reason: v.Reason})
			}
		}
	}
	limits := exchange.Limits{Form: exchange.Changes} // several files may go to one list
	if im.absent {
		limits.Form = exchange.Snapshot
	}
	plan := exchange.Compare(old, im.subjects, limits)
	im.changed, im.taken = uint64(len(plan.Changed)), uint64(len(plan.Retracted))
	im.fresh += uint64(len(plan.Added))
	im.repeated += uint64(len(im.subjects) - len(plan.Added) - len(plan.Changed) - takenBack(im.subjects, plan.Retracted))
	if !im.sure {
		im.held = plan.Held
	}
	added := slices.Clone(plan.Added)
	var gone []exchange.Row
	for _, c := range plan.Changed {
		added, gone = append(added, c.New), append(gone, c.Old)
		im.tell(&c.Old, &c.New)
	}
	for i := range plan.Added {
		im.tell(nil, &plan.Added[i])
	}
	for i := range plan.Retracted {
		im.tell(&plan.Retracted[i], nil)
	}
	return im.ofSubjects(added), im.retractions(append(gone, plan.Retracted...), by), nil
}

// takenBack counts the rows by which the file itself takes back one of gone.
func takenBack(rows, gone []exchange.Row) (n int) {
	of := map[string]bool{}
	for i := range gone {
		of[gone[i].Subject] = true
	}
	for i := range rows {
		if rows[i].Withdrawn && of[rows[i].Subject] {
			delete(of, rows[i].Subject)
			n++
		}
	}
	return n
}

// tell describes a change.
func (im *importer) tell(from, to *exchange.Row) {
	if im.told++; im.told > changesInAll {
		return
	}
	terms := func(r *exchange.Row) *pb.ImportTerms {
		if r == nil {
			return nil
		}
		return &pb.ImportTerms{Action: pb.Action(r.Action), Labels: r.Labels, Reason: r.Reason}
	}
	of := to
	if of == nil {
		of = from
	}
	im.changes = append(im.changes, &pb.ImportChange{Subject: of.Subject, Old: terms(from), New: terms(to)})
}

// ofSubjects puts rows into statements, those with the same terms together.
func (im *importer) ofSubjects(rows []exchange.Row) []hashlist.Statement {
	order := func(a, b exchange.Row) int {
		return cmp.Or(cmp.Compare(a.Kind(), b.Kind()), cmp.Compare(a.Action, b.Action), slices.Compare(a.Labels, b.Labels), strings.Compare(a.Reason, b.Reason))
	}
	slices.SortStableFunc(rows, order)
	var all []hashlist.Statement
	size := 0
	for i, row := range rows {
		size += len(row.Subject) + 8
		if i == 0 || order(row, rows[i-1]) != 0 || len(all[len(all)-1].Subjects) == hashlist.MaxSubjects || size > statementBytes {
			v := im.model
			v.Kind, v.Labels, v.Action, v.Reason = row.Kind(), row.Labels, row.Action, row.Reason
			all, size = append(all, v), len(row.Subject)+8
		}
		last := &all[len(all)-1]
		last.Subjects = append(last.Subjects, row.Subject)
	}
	return all
}

// retractions withdraws rows from each statement that lists them.
func (im *importer) retractions(rows []exchange.Row, by map[string][]string) []hashlist.Statement {
	of := map[string][]string{}
	for i := range rows {
		for _, id := range by[rows[i].Subject] {
			of[id] = append(of[id], rows[i].Subject)
		}
	}
	var all []hashlist.Statement
	for id, subjects := range of {
		slices.Sort(subjects)
		all = append(all, hashlist.Statement{Kind: hashlist.Retraction, List: im.to.ID, Retracts: id, Subjects: subjects, Reason: retracted(im.format.Name)})
	}
	slices.SortFunc(all, func(a, b hashlist.Statement) int { return strings.Compare(a.Retracts, b.Retracts) })
	return all
}

func retracted(format string) string {
	return "an imported file (" + format + ") no longer says so, or says something else"
}

// withdrawHashes withdraws what the file takes back from each statement that lists it, and counts the hashes.
func (im *importer) withdrawHashes() (all []hashlist.Statement, taken uint64) {
	of := map[string][]hashlist.Hash{}
	for h := range im.gone {
		standing := im.s.cfg.Lists.Standing(im.to.ID, im.s.cfg.Issuer.Actor(), h)
		if len(standing) > 0 {
			taken++
		}
		for _, v := range standing {
			of[v.ID] = append(of[v.ID], h)
		}
	}
	for id, hashes := range of {
		slices.SortFunc(hashes, func(a, b hashlist.Hash) int { return strings.Compare(a.String(), b.String()) })
		all = append(all, hashlist.Statement{Kind: hashlist.Retraction, List: im.to.ID, Retracts: id, Hashes: hashes, Reason: retracted(im.format.Name)})
	}
	slices.SortFunc(all, func(a, b hashlist.Statement) int { return strings.Compare(a.Retracts, b.Retracts) })
	return all, taken
}
