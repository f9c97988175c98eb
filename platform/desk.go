package platform

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// Acts keeps acts. Methods may be called concurrently.
type Acts interface {
	// Acts returns all acts in the order in which they were made.
	Acts(context.Context) ([]Act, error)
	// SaveAct stores an act over one of the same ID. When it returns without an error, the act
	// survives the loss of the process and of power.
	SaveAct(context.Context, Act) error
	// ForgetActs removes the acts that came to rest before a time.
	ForgetActs(ctx context.Context, before time.Time) error
}

// Config is all that a Desk is made of.
type Config struct {
	Platforms []Platform
	Acts      Acts
	Own       []string // hosts that are never blocked, beside those of the platforms
	// Audit writes down what was done, is about to be done, or was decided. If it fails, nothing is done.
	Audit func(context.Context, Act) error
	Ask   func(context.Context, Act) error // a person is needed; nil for nobody to ask
	Log   *slog.Logger                     // nil for slog.Default. It gets no credential and no hash.
	HTTP  *http.Client                     // nil for NewClient
}

// Errors of Decide that callers are told apart.
var (
	ErrNoAct = errors.New("there is no such act")
	ErrState = errors.New("not possible")
)

const (
	// again is how long after a request whose outcome is unknown it may be repeated if
	// the platform shows that it had no effect. Later, somebody may have taken it back.
	again     = 10 * time.Minute
	firstWait = time.Minute // before a platform that did not answer is asked again; then twice as long, and so on
	lastWait  = 6 * time.Hour
	maxTries  = 12             // about two days
	recent    = 24 * time.Hour // for which a new finding about a target that was just acted on asks for nothing
	keepFor   = 400 * 24 * time.Hour
)

// Desk decides what is done, does it, and remembers it.
type Desk struct {
	Config
	platforms map[string]*place
	mu        sync.Mutex // guards what follows; held while an act is saved, so that memory and disk agree
	acts      map[string]*Act
	changed   chan struct{} // closed at every change, and replaced
}

// place is a platform with what does the work there, one act at a time.
type place struct {
	Platform
	api  acting
	wake chan struct{}
}

// NewDesk reads what was under way. Nothing is done before Run.
func NewDesk(ctx context.Context, c Config) (*Desk, error) {
	c.Log = cmp.Or(c.Log, slog.Default())
	if c.HTTP == nil {
		c.HTTP = NewClient()
	}
	d := &Desk{Config: c, platforms: map[string]*place{}, acts: map[string]*Act{}, changed: make(chan struct{})}
	for _, p := range c.Platforms {
		if err := p.Validate(); err != nil {
			return nil, err
		}
		if d.platforms[p.Name] != nil {
			return nil, fmt.Errorf("there are two platforms with the name %s", p.Name)
		}
		api, err := p.connect(c.HTTP)
		if err != nil {
			return nil, err
		}
		d.platforms[p.Name] = &place{p, api, make(chan struct{}, 1)}
		d.Own = append(d.Own, host(p.URL))
	}
	if err := c.Acts.ForgetActs(ctx, time.Now().Add(-keepFor)); err != nil {
		return nil, err
	}
	all, err := c.Acts.Acts(ctx)
	if err != nil {
		return nil, err
	}
	for i := range all {
		d.acts[all[i].ID] = &all[i]
	}
	return d, nil
}

// Run does what is due until ctx ends. An act whose platform is no longer configured rests.
func (d *Desk) Run(ctx context.Context) error {
	var work sync.WaitGroup
	for _, p := range d.platforms {
		work.Go(func() { d.work(ctx, p) })
	}
	work.Wait()
	return nil
}

func (d *Desk) work(ctx context.Context, p *place) {
	for ctx.Err() == nil {
		a, wait := d.next(p)
		if a != nil {
			d.perform(ctx, p, *a)
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-p.wake:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// next returns the act of p that is due first, or how long there is none.
func (d *Desk) next(p *place) (*Act, time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	var first *Act
	wait := time.Hour
	for _, a := range d.acts {
		if a.Platform != p.Name || !a.State.Open() {
			continue
		}
		if until := a.Next.Sub(now); until > 0 {
			wait = min(wait, until)
		} else if first == nil || a.Made.Before(first.Made) {
			first = a
		}
	}
	if first == nil {
		return nil, wait
	}
	v := *first
	return &v, 0
}

// id names an act: the same finding about the same target is the same act.
func id(platform string, k Kind, target, finding string) string {
	sum := sha256.Sum256([]byte(strings.Join([]string{platform, string(k), target, finding}, "\x00")))
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:10]))
}

// Find notes the acts that the operator's settings draw from a finding, and returns those
// that are new. They are durable when it returns. A finding that calls for nothing is no error.
func (d *Desk) Find(ctx context.Context, f Finding) ([]Act, error) {
	if f.ID == "" || f.At.IsZero() {
		return nil, errors.New("a finding needs an id and a time")
	}
	var made []Act
	for _, name := range d.names() {
		p := d.platforms[name]
		if len(p.Labels) > 0 && !slices.ContainsFunc(p.Labels, func(l string) bool { return slices.Contains(f.Labels, l) }) {
			continue
		}
		for _, k := range p.On[f.Verdict] {
			a, err := d.propose(ctx, p, k, f)
			if err != nil {
				return made, err
			}
			if a != nil {
				made = append(made, *a)
			}
		}
	}
	return made, nil
}

func (d *Desk) names() []string {
	var all []string
	for name := range d.platforms {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

func (d *Desk) propose(ctx context.Context, p *place, k Kind, f Finding) (*Act, error) {
	target := f.target(k)
	if target == "" || k == BlockInstance && slices.Contains(d.Own, target) {
		return nil, nil
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	a := Act{
		ID: id(p.Name, k, target, f.ID), Platform: p.Name, Kind: k, Target: target, State: Due, Made: now, Changed: now,
		Finding: f, Note: "will be done",
	}
	d.mu.Lock()
	var hour, day int
	for _, old := range d.acts {
		if old.ID == a.ID {
			d.mu.Unlock()
			return nil, nil
		}
		if old.Platform != p.Name {
			continue
		}
		if old.State != Waiting && old.State != Declined {
			if now.Sub(old.Made) < time.Hour {
				hour++
			}
			if now.Sub(old.Made) < 24*time.Hour {
				day++
			}
		}
		if old.Kind != k || old.Target != target {
			continue
		}
		if old.State.Open() || old.State == Waiting || now.Sub(old.Changed) < recent && (old.State == Done || old.State == Needless || old.State == Dry) {
			d.mu.Unlock()
			return nil, nil
		}
		a.State, a.Note = Waiting, fmt.Sprintf("an act on the same target, %s, is %v: a person decides whether to do it again", old.ID, old.State)
	}
	switch {
	case p.DryRun:
		a.State, a.Note = Dry, "would be done, but for dry_run"
		if p.asks(k) {
			a.Note = "would wait for a person, but for dry_run"
		}
	case a.State == Waiting:
	case p.asks(k):
		a.State, a.Note = Waiting, "a person must approve it"
	case hour >= p.PerHour:
		a.State, a.Note = Waiting, fmt.Sprintf("beyond the cap of %d acts in an hour: a person must approve it", p.PerHour)
	case day >= p.PerDay:
		a.State, a.Note = Waiting, fmt.Sprintf("beyond the cap of %d acts in a day: a person must approve it", p.PerDay)
	}
	err := d.save(ctx, &a, true)
	d.mu.Unlock()
	if err != nil {
		return nil, err
	}
	d.tell(ctx, p, &a)
	return &a, nil
}

// save makes an act durable, in the audit log too if it is told, and then known. d.mu is held.
func (d *Desk) save(ctx context.Context, a *Act, audit bool) error {
	if audit && d.Audit != nil {
		if err := d.Audit(ctx, *a); err != nil {
			return fmt.Errorf("write act %s to the audit log: %w", a.ID, err)
		}
	}
	if err := d.Acts.SaveAct(ctx, *a); err != nil {
		return err
	}
	v := *a
	d.acts[a.ID] = &v
	close(d.changed)
	d.changed = make(chan struct{})
	return nil
}

// tell wakes who does the act, or asks a person.
func (d *Desk) tell(ctx context.Context, p *place, a *Act) {
	d.Log.Info("act", slog.String("id", a.ID), slog.String("platform", a.Platform), slog.String("kind", string(a.Kind)),
		slog.String("state", a.State.String()), slog.String("note", a.Note))
	if p != nil && a.State.Open() {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
	if d.Ask != nil && (a.State == Waiting || a.State == Unsure || a.State == Failed) {
		if err := d.Ask(ctx, *a); err != nil {
			d.Log.Error("act: could not ask a person", slog.String("id", a.ID), slog.String("error", err.Error()))
		}
	}
}

// List returns the acts whose platform and state are those given, "" and 0 for any, newest first.
func (d *Desk) List(platform string, state State) []Act {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []Act
	for _, a := range d.acts {
		if (platform == "" || a.Platform == platform) && (state == 0 || a.State == state) {
			all = append(all, *a)
		}
	}
	slices.SortFunc(all, func(a, b Act) int { return cmp.Or(b.Made.Compare(a.Made), cmp.Compare(a.ID, b.ID)) })
	return all
}

// Act returns one act.
func (d *Desk) Act(id string) (Act, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if a := d.acts[id]; a != nil {
		return *a, nil
	}
	return Act{}, ErrNoAct
}

// Decide is what a person, who, decides about an act: approve one that waits or was only tried in
// dry_run, decline one that waits, run one again that failed or is unsure, or undo one that is done.
func (d *Desk) Decide(ctx context.Context, id, what, who, why string) (Act, error) {
	if who == "" {
		return Act{}, fmt.Errorf("%w: a decision needs somebody who takes it", ErrState)
	}
	d.mu.Lock()
	old := d.acts[id]
	if old == nil {
		d.mu.Unlock()
		return Act{}, ErrNoAct
	}
	a := *old
	p := d.platforms[a.Platform]
	next, err := decided(&a, what)
	if err == nil && p == nil && next.Open() {
		err = fmt.Errorf("%w: there is no platform %s in the configuration any more", ErrState, a.Platform)
	}
	if err == nil {
		now := time.Now().UTC().Truncate(time.Microsecond)
		a.State, a.Changed, a.Tries, a.Next, a.Note = next, now, 0, time.Time{}, what+" by "+who
		a.People = append(slices.Clone(a.People), Decision{Who: who, At: now, What: what, Why: why})
		err = d.save(ctx, &a, true)
	}
	d.mu.Unlock()
	if err != nil {
		return Act{}, err
	}
	d.tell(ctx, p, &a)
	return a, nil
}

// decided is the state that a decision brings an act to.
func decided(a *Act, what string) (State, error) {
	from := map[string][]State{
		"approve": {Waiting, Dry}, "decline": {Waiting, Unsure}, "run": {Failed, Unsure}, "undo": {Done},
	}
	to := map[string]State{"approve": Due, "decline": Declined, "run": Due, "undo": Undoing}
	why, cannot := final[a.Kind]
	switch {
	case from[what] == nil:
		return 0, fmt.Errorf("%w: %.40q is no decision about an act (want approve, decline, run or undo)", ErrState, what)
	case what == "undo" && cannot:
		return 0, fmt.Errorf("%w: it cannot be undone: %s", ErrState, why)
	case !slices.Contains(from[what], a.State):
		return 0, fmt.Errorf("%w: act %s is %v, so there is nothing to %s", ErrState, a.ID, a.State, what)
	}
	return to[what], nil
}

// Settled returns an act once nothing is under way with it, or as it is when ctx ends.
func (d *Desk) Settled(ctx context.Context, id string) (Act, error) {
	for {
		d.mu.Lock()
		a, changed := d.acts[id], d.changed
		d.mu.Unlock()
		if a == nil {
			return Act{}, ErrNoAct
		}
		if !a.State.Open() || !a.Next.IsZero() {
			return *a, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return *a, nil
		}
	}
}

// Serves reports whether anything is switched on for a verdict.
func (d *Desk) Serves(v hashlist.Verdict) bool {
	for _, p := range d.platforms {
		if len(p.On[v]) > 0 {
			return true
		}
	}
	return false
}
