package source

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// fullEvery is how often a source is asked for all it says whatever its validators are: a
// server whose ETag never changes would else never be heard again.
const fullEvery = 7 * 24 * time.Hour

// applyAtOnce is how many statements are signed and appended together.
const applyAtOnce = 200

// RunNow reads a source, also one that is paused, and returns the report. That the source could not be
// read is in the report and not an error. progress, if not nil, is told what is being done
// and how many rows or statements there were so far.
func (k *Keeper) RunNow(ctx context.Context, name string, progress func(stage string, n uint64)) (Run, error) {
	if progress == nil {
		progress = func(string, uint64) {}
	}
	s, err := k.enter(ctx, name)
	if err != nil {
		return Run{}, err
	}
	defer k.leave(name)
	if s.State == Removed {
		return Run{}, fmt.Errorf("%w: source %s is removed: `tocsin subscribe` takes it up again", ErrState, name)
	}
	s.Runs++
	s.Tried = k.now()
	r := Run{Source: name, Number: s.Runs, Begun: s.Tried}
	if err := k.save(ctx, s); err != nil { // so that its number is not used again
		return Run{}, err
	}
	reading, cancel := context.WithTimeoutCause(ctx, k.cfg.RunTime, refused("it took longer than %v", k.cfg.RunTime))
	statements, why, err := k.read(reading, s, &r, progress)
	if cause := context.Cause(reading); err != nil && cause != nil && ctx.Err() == nil {
		err = cause
	}
	cancel()
	if ctx.Err() != nil {
		return Run{}, context.Cause(ctx) // the node stops: that says nothing of the source
	}
	if err != nil {
		return k.failed(ctx, s, r, err)
	}
	return k.conclude(ctx, s, r, statements, why, progress)
}

// read fetches what a source says and plans what is to be signed. why are the questions to a person.
func (k *Keeper) read(ctx context.Context, s *Source, r *Run, progress func(string, uint64)) (statements []hashlist.Statement, why []string, err error) {
	n := &session{client: k.client(), agent: "tocsin/" + k.cfg.Version + " (+" + k.cfg.Origin + ")", loopback: k.cfg.Loopback,
		limit: k.cfg.MaxBody, idle: k.cfg.Idle, progress: progress}
	if s.Credentials != "" {
		if n.headers, err = ReadCredentials(k.path(s.Credentials)); err != nil {
			return nil, nil, err
		}
	}
	progress("fetch", 0)
	ask := *s
	if ago := k.now().Sub(s.Full); ago < 0 || ago > fullEvery {
		ask.ETag, ask.Modified = "", ""
	}
	if s.Format == "mastodon-api" || s.Format == "fediblockhole" { // which may hide domains behind their digests
		if n.known, err = knownDomains(ctx, k.cfg.Lists); err != nil {
			return nil, nil, err
		}
	}
	b, err := formats[s.Format].open(ctx, n, &ask, k.now())
	if err != nil {
		return nil, nil, err
	}
	if b.close != nil {
		defer b.close()
	}
	if b.unchanged {
		r.ETag, r.Modified, r.Cursor = s.ETag, s.Modified, s.Cursor
		return nil, nil, nil
	}
	said, err := before(ctx, k.cfg.Lists, s, k.cfg.Issuer.Actor(), k.now())
	if err != nil {
		return nil, nil, err
	}
	p, err := compare(s, said, b, r, &entries{ctx: ctx, store: k.cfg.Store, source: s.Name}, func(rows uint64) { progress("read", rows) })
	if err != nil {
		return nil, nil, err
	}
	if b.finish != nil {
		b.finish(r)
	}
	statements = p.statements(s, r.Number)
	return statements, questions(s, r, p.held), nil
}

// client has no bound on the whole of an answer, as the run itself has one.
func (k *Keeper) client() *http.Client {
	c := *k.cfg.Client
	c.Timeout = 0
	return &c
}

// failed ends a run that came to nothing.
func (k *Keeper) failed(ctx context.Context, s *Source, r Run, why error) (Run, error) {
	r.State, r.Ended, r.Why = Failed, k.now(), cut(why.Error(), 1000)
	s.Failures++
	s.Trouble = r.Why
	if s.State == Draft || s.State == Active {
		s.Next = k.next(s)
		var status *statusError
		if errors.As(why, &status) && status.after > 0 && s.Next.Before(k.now().Add(status.after)) {
			s.Next = k.now().Add(status.after)
		}
	}
	return r, errors.Join(k.cfg.Store.SaveSourceRun(ctx, r, keptRuns), k.save(ctx, s))
}

func cut(text string, most int) string {
	text = strings.ToValidUTF8(strings.ReplaceAll(text, "\x00", "?"), "?")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "")
	}
	return text
}

// conclude does what follows from a run that was read to its end.
func (k *Keeper) conclude(ctx context.Context, s *Source, r Run, statements []hashlist.Statement, why []string, progress func(string, uint64)) (Run, error) {
	s.Failures, s.Trouble, s.Heard = 0, "", k.now()
	r.Statements = len(statements)
	if s.State == Draft || s.State == Active {
		s.Next = k.next(s)
	}
	if len(statements) == 0 {
		if err := k.settle(ctx, s, Superseded, ""); err != nil {
			return r, err
		}
		s.Pending = 0
		r.State, r.Why = Unchanged, cut(strings.Join(why, "; "), 1000)
		s.remember(&r)
		return k.end(ctx, s, r)
	}
	if k.cfg.Offline != nil && k.cfg.Offline() {
		why = append(why, "the issuer's key is kept elsewhere: `tocsin sources approve --draft` gives out what it is to sign")
	}
	if len(why) == 0 {
		if err := k.settle(ctx, s, Superseded, ""); err != nil {
			return r, err
		}
		s.Pending = 0
		r.State, r.Decided = Applied, k.now()
		if err := k.apply(ctx, statements, r.Decided, progress); err != nil {
			// What was applied stands, and the next run finds it there.
			return k.failed(ctx, s, r, err)
		}
		s.remember(&r)
		return k.end(ctx, s, r)
	}
	return k.hold(ctx, s, r, statements, why)
}

// hold keeps a run for a person. The same plan as that which waits already asks nobody again.
func (k *Keeper) hold(ctx context.Context, s *Source, r Run, statements []hashlist.Statement, why []string) (Run, error) {
	encoded, sum, err := encode(statements)
	if err != nil {
		return r, err
	}
	r.Sum, r.Why = sum, cut(strings.Join(why, "; "), 1000)
	if s.Pending != 0 {
		runs, err := k.cfg.Store.SourceRuns(ctx, s.Name, 0)
		if err != nil {
			return r, err
		}
		for _, was := range runs {
			if was.Number == s.Pending && was.Sum == sum && was.State == Held {
				r.State, r.Why = Unchanged, fmt.Sprintf("as run %d, which still waits: %s", s.Pending, r.Why)
				return k.end(ctx, s, r)
			}
		}
		if err := k.settle(ctx, s, Superseded, ""); err != nil {
			return r, err
		}
	}
	r.State = Held
	if err := k.cfg.Store.SavePlan(ctx, s.Name, r.Number, encoded); err != nil {
		return r, err
	}
	s.Pending = r.Number
	r, err = k.end(ctx, s, r)
	if err == nil && k.cfg.Ask != nil {
		if err := k.cfg.Ask(ctx, *s, r); err != nil {
			k.log.Error("nobody could be asked about a run of a source", "source", s.Name, "run", r.Number, "error", err)
		}
	}
	k.log.Info("a run of a source waits for a person", "source", s.Name, "run", r.Number, "added", r.Added, "changed", r.Changed, "retracted", r.Retracted)
	return r, err
}

// remember notes what was taken over.
func (s *Source) remember(r *Run) {
	s.ETag, s.Modified, s.Cursor = r.ETag, r.Modified, r.Cursor
	if r.Rows > 0 {
		s.Full = r.Begun
	}
}

func (k *Keeper) end(ctx context.Context, s *Source, r Run) (Run, error) {
	r.Ended = k.now()
	return r, errors.Join(k.cfg.Store.SaveSourceRun(ctx, r, keptRuns), k.save(ctx, s))
}

// apply signs statements as of a time and applies them. Done again with the same time it changes nothing:
// the statements have the same ids.
func (k *Keeper) apply(ctx context.Context, statements []hashlist.Statement, at time.Time, progress func(string, uint64)) error {
	for done := 0; done < len(statements); {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		var records []hashlist.Record
		for _, v := range statements[done:min(len(statements), done+applyAtOnce)] {
			v.Published = at.Truncate(time.Second)
			r, err := k.cfg.Issuer.Seal(v)
			if err != nil {
				return err
			}
			records = append(records, r)
		}
		if _, err := k.cfg.Lists.Apply(ctx, records...); err != nil {
			return err
		}
		done += len(records)
		progress("sign", uint64(done))
	}
	return nil
}

// Approve is a person's yes to the run that waits; run 0 is whichever does. What was shown is applied, and nothing
// else. From then on the source is active. With draft the statements are given to it instead of being
// signed here, to be signed where the issuer's key is, and published.
func (k *Keeper) Approve(ctx context.Context, name string, run uint64, who string, draft func(hashlist.Statement) error, progress func(string, uint64)) (Run, error) {
	if progress == nil {
		progress = func(string, uint64) {}
	}
	s, err := k.enter(ctx, name)
	if err != nil {
		return Run{}, err
	}
	defer k.leave(name)
	if err := waits(s, run); err != nil {
		return Run{}, err
	}
	if draft == nil && k.cfg.Offline != nil && k.cfg.Offline() {
		return Run{}, fmt.Errorf("%w: the issuer's key is kept elsewhere: approve with --draft, sign what that prints, and publish it", ErrState)
	}
	r, err := k.pending(ctx, s)
	if err != nil {
		return Run{}, err
	}
	if r.State == Held {
		r.State, r.Who, r.Decided = Approved, cut(who, 200), k.now()
		if draft != nil {
			r.State = Drafted
		}
		if err := k.cfg.Store.SaveSourceRun(ctx, r, keptRuns); err != nil {
			return r, err
		}
	}
	if draft == nil {
		return k.carryOut(ctx, s, r, progress)
	}
	statements, err := k.planned(ctx, s.Name, r.Number)
	if err != nil {
		return r, err
	}
	for _, v := range statements {
		if err := draft(v); err != nil {
			return r, err // what was given out so far can be had again
		}
	}
	return r, k.done(ctx, s, &r)
}

func (k *Keeper) pending(ctx context.Context, s *Source) (Run, error) {
	runs, err := k.cfg.Store.SourceRuns(ctx, s.Name, 0)
	if err != nil {
		return Run{}, err
	}
	for _, r := range runs {
		if r.Number == s.Pending && (r.State == Held || r.State == Approved || r.State == Drafted) {
			return r, nil
		}
	}
	return Run{}, fmt.Errorf("run %d of source %s, which waits, is not in the store", s.Pending, s.Name)
}

func (k *Keeper) planned(ctx context.Context, name string, run uint64) ([]hashlist.Statement, error) {
	var all []hashlist.Statement
	for b, err := range k.cfg.Store.Plan(ctx, name, run) {
		if err != nil {
			return nil, err
		}
		var v hashlist.Statement
		if err := v.UnmarshalBinary(b); err != nil {
			return nil, fmt.Errorf("the plan of run %d of source %s: %w", run, name, err)
		}
		all = append(all, v)
	}
	return all, nil
}

// carryOut applies an approved run. It may be begun again.
func (k *Keeper) carryOut(ctx context.Context, s *Source, r Run, progress func(string, uint64)) (Run, error) {
	statements, err := k.planned(ctx, s.Name, r.Number)
	if err != nil {
		return r, err
	}
	if err := k.apply(ctx, statements, r.Decided, progress); err != nil {
		return r, err
	}
	r.State = Applied
	return r, k.done(ctx, s, &r)
}

// done ends an approved run: first the source is as it is to be, then the plan goes.
func (k *Keeper) done(ctx context.Context, s *Source, r *Run) error {
	if err := k.cfg.Store.SaveSourceRun(ctx, *r, keptRuns); err != nil {
		return err
	}
	s.Pending = 0
	if r.State == Applied {
		s.remember(r)
	}
	if s.State == Draft {
		s.State = Active
	}
	if err := k.save(ctx, s); err != nil {
		return err
	}
	k.settled(ctx, s.Name, r.Number)
	return k.cfg.Store.DropPlan(ctx, s.Name, r.Number)
}

// continueApproved carries out what was approved when the node was last stopped.
func (k *Keeper) continueApproved(ctx context.Context) {
	for _, s := range k.Sources() {
		if s.Pending == 0 {
			continue
		}
		own, err := k.enter(ctx, s.Name)
		if err != nil {
			continue
		}
		r, err := k.pending(ctx, own)
		if err == nil && r.State == Approved {
			_, err = k.carryOut(ctx, own, r, func(string, uint64) {})
		}
		k.leave(s.Name)
		if err != nil && ctx.Err() == nil {
			k.log.Error("an approved run of a source could not be carried out", "source", s.Name, "error", err)
		}
	}
}
