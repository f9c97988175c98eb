package platform

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// perform brings one act that is due forward. a is a copy, kept only when it is saved.
func (d *Desk) perform(ctx context.Context, p *place, a Act) {
	now := time.Now().UTC().Truncate(time.Microsecond)
	at, err := p.api.look(ctx, &a)
	if err == nil && at.soften != "" && Softer(a.Kind) != string(a.Kind) && !a.Soft && a.State == Due {
		a.Soft, a.Note = true, "softened: "+at.soften
		at, err = p.api.look(ctx, &a)
	}
	switch {
	case ctx.Err() != nil:
		return // it is as it was
	case a.State == Undoing:
		d.takeBack(ctx, p, a, at, err)
	case errors.Is(err, errGone):
		if a.State == Doing {
			d.rest(ctx, p, a, Done, "its target is gone")
		} else {
			d.rest(ctx, p, a, Needless, "its target is not there, or not any more")
		}
	case err != nil:
		d.later(ctx, p, a, err)
	case at.never != "":
		d.rest(ctx, p, a, Declined, "nothing is done to them: "+at.never)
	case at.done && a.State == Doing:
		d.rest(ctx, p, a, Done, "it was cut off, and the platform shows that it was done")
	case at.done:
		d.rest(ctx, p, a, Needless, "it was so already")
	case a.State == Doing && now.Sub(a.Begun) > again:
		d.rest(ctx, p, a, Unsure, "it was cut off, and the platform does not show it now: it was never done, or somebody took it back; "+
			"`tocsin acts run "+a.ID+"` does it again")
	default:
		// The request leaves only when it is written down, with what an undo needs.
		a.State, a.Begun, a.Changed, a.Next = Doing, now, now, time.Time{}
		if at.before != nil {
			a.Before = at.before
		}
		if !d.keep(ctx, &a, true) {
			return
		}
		if err := p.api.do(ctx, &a, &at); err != nil && !errors.Is(err, errGone) {
			if ctx.Err() != nil {
				return // the next start looks what became of it
			}
			var f *failure
			if errors.As(err, &f) && f.denied {
				a.State = Due // it said that nothing was done
			}
			d.later(ctx, p, a, err)
			return
		}
		d.confirm(ctx, p, a)
	}
}

// confirm looks whether what was done is to be seen.
func (d *Desk) confirm(ctx context.Context, p *place, a Act) {
	at, err := p.api.look(ctx, &a)
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, errGone), err == nil && at.done:
		note := "done, and the platform confirms it"
		if a.Soft {
			note = "done in a softer form (" + Softer(a.Kind) + "), because people there have follows to lose; the platform confirms it"
		}
		d.rest(ctx, p, a, Done, note)
	case err != nil:
		d.later(ctx, p, a, err)
	default:
		d.rest(ctx, p, a, Failed, "the platform said that it did it, but does not show it")
	}
}

func (d *Desk) takeBack(ctx context.Context, p *place, a Act, at look, err error) {
	switch {
	case errors.Is(err, errGone):
		d.rest(ctx, p, a, Undone, "its target is gone")
		return
	case err != nil:
		d.later(ctx, p, a, err)
		return
	case !at.done:
		d.rest(ctx, p, a, Undone, "somebody had taken it back already")
		return
	}
	asked := a.People[len(a.People)-1].At
	now := time.Now().UTC().Truncate(time.Microsecond)
	if a.Begun.After(asked) && now.Sub(a.Begun) > again {
		d.rest(ctx, p, a, Done, "taking it back was cut off, and the platform shows it done now: somebody may have done it anew; undo it again if that is wanted")
		return
	}
	a.Begun, a.Changed, a.Next = now, now, time.Time{}
	if !d.keep(ctx, &a, false) {
		return
	}
	if err := p.api.undo(ctx, &a, &at); err != nil {
		if ctx.Err() == nil {
			d.later(ctx, p, a, err)
		}
		return
	}
	at, err = p.api.look(ctx, &a)
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, errGone), err == nil && !at.done:
		d.rest(ctx, p, a, Undone, "taken back, and the platform confirms it")
	case err != nil:
		d.later(ctx, p, a, err)
	default:
		d.rest(ctx, p, a, Done, "the platform said that it took it back, but does not show it")
	}
}

// rest brings an act to where it stays until a person moves it. That is written down even if the
// node is told to stop meanwhile.
func (d *Desk) rest(ctx context.Context, p *place, a Act, s State, note string) {
	a.State, a.Note, a.Next, a.Changed = s, note, time.Time{}, time.Now().UTC().Truncate(time.Microsecond)
	ctx = context.WithoutCancel(ctx)
	if d.keep(ctx, &a, true) {
		d.tell(ctx, p, &a)
	}
}

// later decides whether, and when, an act that met an error is tried again.
func (d *Desk) later(ctx context.Context, p *place, a Act, err error) {
	a.Tries++
	over, note := Failed, err.Error()
	if a.State == Undoing {
		over, note = Done, "not taken back: "+note // a person may undo it again
	}
	if !errors.Is(err, errBusy) {
		d.rest(ctx, p, a, over, note)
		return
	}
	if a.Tries >= maxTries {
		d.rest(ctx, p, a, over, fmt.Sprintf("given up after %d tries: %s", a.Tries, note))
		return
	}
	wait := min(firstWait<<(a.Tries-1), lastWait)
	var f *failure
	if errors.As(err, &f) && f.retry > wait {
		wait = f.retry
	}
	a.Note, a.Changed = err.Error(), time.Now().UTC().Truncate(time.Microsecond)
	a.Next = a.Changed.Add(wait)
	d.keep(context.WithoutCancel(ctx), &a, false)
}

// keep saves an act. If that fails, the act waits where it was, and nothing is done.
func (d *Desk) keep(ctx context.Context, a *Act, audit bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.save(ctx, a, audit)
	if err == nil {
		return true
	}
	if ctx.Err() == nil {
		d.Log.Error("act: could not write it down, so it rests", slog.String("id", a.ID), slog.String("error", err.Error()))
	}
	if old := d.acts[a.ID]; old != nil {
		old.Next = time.Now().Add(firstWait)
	}
	return false
}
