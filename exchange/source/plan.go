package source

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/tocsin-fed/tocsin/exchange"
	"github.com/tocsin-fed/tocsin/hashlist"
)

type key struct {
	kind    hashlist.Kind
	hash    hashlist.Hash
	subject string
}

func keyOf(r *exchange.Row) key { return key{r.Kind(), r.Hash, r.Subject} }

// terms are what is said of a key.
type terms struct {
	action hashlist.Action
	labels []string
	reason string
}

// standing is what the source said before of a key, and the statement in which it stands here.
type standing struct {
	*terms
	statement string
	off       bool // a person has taken it off the list since
	seen      bool // the source says it again
}

// maxItems is how much one source may say, so that a run fits into memory: some 150 bytes each.
const maxItems = 3_000_000

// mark begins the reason of every retraction that a run makes, and no other's.
func mark(s *Source) string { return "source " + s.Name + ", run " }

// before reads from the log what the source said before: what is on its list, and what a
// person has taken off it. A retraction that no run made is a person's.
func before(ctx context.Context, lists *hashlist.Lists, s *Source, issuer string, now time.Time) (map[key]*standing, error) {
	said := map[key]*standing{}
	of := map[string][]key{} // by statement
	for r, err := range lists.After(ctx, 0, hashlist.Selection{List: s.List}) {
		if err != nil {
			return nil, fmt.Errorf("read what the source said before: %w", err)
		}
		v := &r.Statement
		if v.Issuer != issuer {
			continue
		}
		keys := keysOf(v)
		switch v.Kind {
		case hashlist.AddHashes, hashlist.AddAccounts, hashlist.AddInstances, hashlist.AddContent:
			if !v.Expires.IsZero() && !v.Expires.After(now) {
				continue
			}
			t := &terms{v.Action, v.Labels, v.Reason}
			for _, k := range keys {
				said[k] = &standing{terms: t, statement: v.ID}
			}
			of[v.ID] = keys
		case hashlist.Retraction:
			if len(keys) == 0 {
				keys = of[v.Retracts]
			} else if about := of[v.Retracts]; len(about) > 0 {
				for i := range keys {
					keys[i].kind = about[0].kind
				}
			}
			byRun := strings.HasPrefix(v.Reason, mark(s))
			for _, k := range keys {
				switch was := said[k]; {
				case was == nil || was.statement != v.Retracts: // said anew since, on other terms
				case byRun:
					delete(said, k)
				default:
					was.off = true
				}
			}
		}
	}
	return said, nil
}

// keysOf are what a statement is about. Those of a retraction get their kind from what it retracts.
func keysOf(v *hashlist.Statement) []key {
	kind := v.Kind
	if kind == hashlist.Retraction && len(v.Hashes) > 0 {
		kind = hashlist.AddHashes
	}
	keys := make([]key, 0, len(v.Hashes)+len(v.Subjects))
	for _, h := range v.Hashes {
		keys = append(keys, key{kind: kind, hash: h})
	}
	for _, subject := range v.Subjects {
		keys = append(keys, key{kind: kind, subject: subject})
	}
	return keys
}

// addition is a key with what is to be said of it.
type addition struct {
	key
	*terms
}

// plan is what a run would sign.
type plan struct {
	adds  []addition
	ends  map[string][]key // by the statement in which they stand
	whole map[string]int   // how much stands in it
	held  string           // why it is too much, "" if it is not
}

// entries are what a source's own names for its entries stand for.
type entries struct {
	ctx    context.Context
	store  Store
	source string
	fresh  []Entry // not yet saved
}

// note remembers the name of a row.
func (e *entries) note(r *exchange.Row) error {
	if r.Key == "" || r.Withdrawn || !r.Hash.Algorithm().Valid() {
		return nil
	}
	if e.fresh = append(e.fresh, Entry{r.Key, r.Hash}); len(e.fresh) < 10_000 {
		return nil
	}
	return e.flush()
}

func (e *entries) flush() error {
	fresh := e.fresh
	e.fresh = nil
	if len(fresh) == 0 {
		return nil
	}
	return e.store.SaveEntries(e.ctx, e.source, fresh)
}

// find returns what a withdrawn entry stands for, if all there is of it is its name.
func (e *entries) find(r *exchange.Row) ([]hashlist.Hash, error) {
	if err := e.flush(); err != nil {
		return nil, err
	}
	return e.store.Entry(e.ctx, e.source, r.Key)
}

// compare reads what the source says now and works out what has changed. In r it counts, and
// describes what was refused.
func compare(s *Source, said map[key]*standing, b *batch, r *Run, names *entries, tick func(rows uint64)) (*plan, error) {
	p := &plan{ends: map[string][]key{}, whole: map[string]int{}}
	for _, was := range said {
		p.whole[was.statement]++
		if !was.off {
			r.Before++
		}
	}
	var read []exchange.Row
	for row, err := range b.rows {
		var bad exchange.BadRow
		if errors.As(err, &bad) {
			r.Rows++
			refuseRow(r, bad.Line, bad.Reason)
			continue
		} else if err != nil {
			return nil, err
		}
		if r.Rows++; r.Rows%1000 == 0 {
			tick(r.Rows)
		}
		if err := check(&row, s); err != nil {
			refuseRow(r, row.Line, err.Error())
			continue
		}
		if row.Withdrawn && row.Subject == "" && !row.Hash.Algorithm().Valid() {
			hashes, err := names.find(&row)
			if err != nil {
				return nil, err
			}
			for _, h := range hashes {
				read = append(read, exchange.Row{Line: row.Line, Hash: h, Quality: -1, Withdrawn: true})
			}
			continue
		}
		if err := names.note(&row); err != nil {
			return nil, err
		}
		if was := said[keyOf(&row)]; was != nil {
			was.seen = true
			if was.off {
				r.Kept++
				continue
			}
		}
		if n := len(read); n > 0 && read[n-1].Reason == row.Reason && slices.Equal(read[n-1].Labels, row.Labels) {
			row.Reason, row.Labels = read[n-1].Reason, read[n-1].Labels // most rows share theirs: one copy is enough
		}
		if read = append(read, row); len(read) > maxItems {
			return nil, refused("the source says more than %d things", maxItems)
		}
	}
	if err := names.flush(); err != nil {
		return nil, err
	}
	old := make([]exchange.Row, 0, r.Before)
	for k, was := range said {
		if was.off {
			continue
		}
		old = append(old, exchange.Row{Hash: k.hash, Subject: k.subject, Quality: -1, Action: was.action, Labels: was.labels, Reason: was.reason})
		if !was.seen && b.form != exchange.Changes {
			r.Missing++
		}
	}
	c := exchange.Compare(old, read, exchange.Limits{Form: b.form, Shrink: max(float64(s.MaxShrink)/100, 1e-9), Most: s.MaxChanges})
	p.held = c.Held
	r.Added, r.Changed, r.Retracted = uint64(len(c.Added)), uint64(len(c.Changed)), uint64(len(c.Retracted))
	for i := range c.Added {
		p.add(r, "+ ", &c.Added[i])
	}
	for i := range c.Changed {
		row := &c.Changed[i].New
		p.end(keyOf(row), said)
		p.add(r, "~ ", row)
	}
	for i := range c.Retracted {
		row := &c.Retracted[i]
		p.end(keyOf(row), said)
		p.show(r, "- "+row.Subject, row)
	}
	slices.Sort(r.Sample)
	r.Sample = r.Sample[:min(len(r.Sample), keptSamples)]
	return p, nil
}

func refuseRow(r *Run, line int, reason string) {
	if r.Refused++; len(r.Refusals) < keptRefused {
		r.Refusals = append(r.Refusals, Refusal{line, reason})
	}
}

// check brings a row into the form of statements, or says why it cannot be in one.
func check(row *exchange.Row, s *Source) error {
	switch {
	case row.Subject != "":
		if err := hashlist.CheckSubject(row.Kind(), row.Subject); err != nil {
			return err
		}
	case row.Hash.Algorithm().Valid():
	case !row.Withdrawn || row.Key == "":
		return errors.New("it has no hash")
	}
	if row.Withdrawn {
		return nil
	}
	if len(s.Labels) > 0 {
		row.Labels = slices.Concat(s.Labels, row.Labels)
		slices.Sort(row.Labels)
		row.Labels = slices.Compact(row.Labels)
	}
	if row.Action > hashlist.Drop {
		return fmt.Errorf("unknown action %d", row.Action)
	}
	return hashlist.CheckLabels(row.Labels)
}

func (p *plan) add(r *Run, sign string, row *exchange.Row) {
	p.adds = append(p.adds, addition{keyOf(row), &terms{row.Action, row.Labels, row.Reason}})
	text := sign + row.Subject
	if row.Action != 0 {
		text += " " + row.Action.String()
	}
	p.show(r, text, row)
}

// show puts a change into the preview. Hashes are not shown.
func (p *plan) show(r *Run, text string, row *exchange.Row) {
	if row.Subject != "" && len(r.Sample) < manySamples {
		r.Sample = append(r.Sample, text)
	}
}

func (p *plan) end(k key, said map[key]*standing) {
	if was := said[k]; was != nil {
		p.ends[was.statement] = append(p.ends[was.statement], k)
	}
}

func compareKeys(a, b key) int {
	return cmp.Or(cmp.Compare(a.kind, b.kind), strings.Compare(a.subject, b.subject), strings.Compare(a.hash.String(), b.hash.String()))
}

// subjectBytes is what the subjects of one statement may take together, so that it stays within what
// a statement may be when it is signed.
const subjectBytes = 32 << 10

// statements are what is to be signed, in an order that depends on nothing but what they say: what is
// new first, so that what changes is never off the list between the two.
func (p *plan) statements(s *Source, run uint64) []hashlist.Statement {
	order := func(a, b addition) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.hash.Algorithm(), b.hash.Algorithm()), cmp.Compare(a.action, b.action),
			slices.Compare(a.labels, b.labels), strings.Compare(a.reason, b.reason))
	}
	slices.SortFunc(p.adds, func(a, b addition) int { return cmp.Or(order(a, b), compareKeys(a.key, b.key)) })
	var all []hashlist.Statement
	size := 0
	for i, a := range p.adds {
		if i == 0 || order(a, p.adds[i-1]) != 0 || size >= subjectBytes || len(all[len(all)-1].Hashes) == hashlist.MaxHashes ||
			len(all[len(all)-1].Subjects) == hashlist.MaxSubjects {
			all = append(all, hashlist.Statement{Kind: a.kind, List: s.List, Action: a.action, Labels: a.labels, Reason: a.reason})
			size = 0
		}
		last := &all[len(all)-1]
		if a.kind == hashlist.AddHashes {
			last.Hashes = append(last.Hashes, a.hash)
		} else {
			last.Subjects = append(last.Subjects, a.subject)
			size += len(a.subject) + 4
		}
	}
	reason := fmt.Sprintf("%s%d: it says so no more", mark(s), run)
	ids := make([]string, 0, len(p.ends))
	for id := range p.ends {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		v := hashlist.Statement{Kind: hashlist.Retraction, List: s.List, Retracts: id, Reason: reason}
		keys := p.ends[id]
		slices.SortFunc(keys, compareKeys)
		if len(keys) < p.whole[id] { // else all of it, in fewer bytes
			for _, k := range keys {
				if k.kind == hashlist.AddHashes {
					v.Hashes = append(v.Hashes, k.hash)
				} else {
					v.Subjects = append(v.Subjects, k.subject)
				}
			}
		}
		all = append(all, v)
	}
	return all
}

// encode is the form in which a plan waits. The sum is the same for the same plan, whichever run made it.
func encode(all []hashlist.Statement) (encoded [][]byte, sum [32]byte, err error) {
	h := sha256.New()
	for i := range all {
		b, err := all[i].AppendBinary(nil)
		if err != nil {
			return nil, sum, fmt.Errorf("keep the plan: %w", err)
		}
		encoded = append(encoded, b)
		same := all[i]
		if same.Kind == hashlist.Retraction {
			same.Reason = ""
		}
		if b, err = same.AppendBinary(nil); err != nil {
			return nil, sum, fmt.Errorf("keep the plan: %w", err)
		}
		h.Write(b)
	}
	h.Sum(sum[:0])
	return encoded, sum, nil
}

// questions are why a person must be asked before a run is applied, none if they need not be.
func questions(s *Source, r *Run, held string) []string {
	var why []string
	if s.State == Draft {
		why = append(why, "it is the first run: look at what it would put on the list")
	}
	if accepted := r.Rows - r.Refused; r.Refused > accepted {
		why = append(why, fmt.Sprintf("%d of its %d rows could not be read: is it %s?", r.Refused, r.Rows, s.Format))
	}
	if held != "" {
		why = append(why, held)
	}
	return why
}

// batch is what one run has from a source.
type batch struct {
	rows      iter.Seq2[exchange.Row, error] // an exchange.BadRow goes on, any other error ends it
	form      exchange.Form                  // what it means that something is absent
	unchanged bool                           // nothing is new, and there are no rows
	finish    func(*Run)                     // called after the last row: what to remember; may be nil
	close     func()                         // may be nil
}
