package source

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// Issuer signs as this node's admin. *federation.Issuer is one.
type Issuer interface {
	Actor() string
	Seal(hashlist.Statement) (hashlist.Record, error)
}

// Config is all that a Keeper is made of and told.
type Config struct {
	Lists    *hashlist.Lists
	Store    Store
	Issuer   Issuer
	Origin   string       // public address of the node
	Client   *http.Client // the guarded one of package federation
	Loopback bool         // Client reaches http and loopback
	Dir      string       // what paths of credentials are relative to
	Offline  func() bool  // whether the issuer's private key is kept elsewhere; nil for never
	Version  string
	Log      *slog.Logger     // nil for slog.Default. It gets no hash, and no address with a query.
	Now      func() time.Time // nil for time.Now

	// Ask tells a person that a run waits for them; nil for nobody. It may be called again with the same run.
	Ask func(ctx context.Context, s Source, r Run) error
	// Settle tells that a run waits no more, however that came; nil for nobody.
	Settle func(ctx context.Context, source string, run uint64) error

	// For tests; 0 for the package's own.
	RunTime, Idle time.Duration
	MaxBody       int64
}

// Keeper keeps the sources of one node. Methods may be called concurrently.
type Keeper struct {
	cfg Config
	log *slog.Logger

	poke chan struct{} // has room for one: something is due that was not

	mu      sync.Mutex // guards what follows; never held while a source is read
	sources map[string]*Source
	busy    map[string]chan struct{} // by name: a run, or its application, is at work; closed when it has ended
}

// Open reads the sources from the store and tells the lists how far to heed them. Call it
// before the first lookup: until then a source's list would act as the node's own.
func Open(ctx context.Context, cfg Config) (*Keeper, error) {
	if cfg.Lists == nil || cfg.Store == nil || cfg.Issuer == nil || cfg.Client == nil {
		return nil, errors.New("sources need lists, a store, an issuer and a client")
	}
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.RunTime, cfg.Idle, cfg.MaxBody = cmp.Or(cfg.RunTime, runTime), cmp.Or(cfg.Idle, idleTime), cmp.Or(cfg.MaxBody, maxBody)
	k := &Keeper{cfg: cfg, log: cfg.Log, poke: make(chan struct{}, 1), sources: map[string]*Source{}, busy: map[string]chan struct{}{}}
	all, err := cfg.Store.Sources(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		k.sources[s.Name] = &s
		k.heed(&s)
	}
	return k, nil
}

// heed lets what came of a source act as far as it is believed.
func (k *Keeper) heed(s *Source) {
	most := s.Most
	if s.State == Removed || s.Belief == 0 {
		most = 0
	}
	k.cfg.Lists.OnBehalf(s.List)
	k.cfg.Lists.Heed(s.List, most, s.Belief)
}

func (k *Keeper) now() time.Time { return k.cfg.Now().UTC().Truncate(time.Microsecond) }

// Sources returns all of them by name, those that were removed too.
func (k *Keeper) Sources() []Source {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []Source
	for _, s := range k.sources {
		all = append(all, *s)
	}
	slices.SortFunc(all, func(a, b Source) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Source returns one of them.
func (k *Keeper) Source(name string) (Source, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := k.sources[name]; s != nil {
		return *s, nil
	}
	return Source{}, fmt.Errorf("%w: %.80q", ErrUnknown, name)
}

// Feeds returns the name of the source that feeds a list, "" for none. One that was removed feeds it no
// more, and its list still is not the node's own.
func (k *Keeper) Feeds(list string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range k.sources {
		if s.List == list {
			return s.Name
		}
	}
	return ""
}

// Runs returns the last runs of a source, the latest first; limit 0 is all that are kept.
func (k *Keeper) Runs(ctx context.Context, name string, limit int) ([]Run, error) {
	if _, err := k.Source(name); err != nil {
		return nil, err
	}
	return k.cfg.Store.SourceRuns(ctx, name, limit)
}

// Subscribe adds a source as a draft: it is read soon, and nothing of it acts before a person
// has approved what came. Its list is made if it is not there. A source that was removed can be
// subscribed to again under its name.
func (k *Keeper) Subscribe(ctx context.Context, s Source) (Source, error) {
	s.Every, s.MaxChanges = cmp.Or(s.Every, DefaultEvery), cmp.Or(s.MaxChanges, DefaultMaxChanges)
	s.Most = cmp.Or(s.Most, hashlist.VerdictReject)
	s.State, s.Created, s.Next = Draft, k.now(), k.now()
	if err := s.Validate(); err != nil {
		return Source{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if !k.cfg.Loopback && !strings.HasPrefix(s.URL, "https://") {
		return Source{}, fmt.Errorf("%w: %.200q is not an https address", ErrInvalid, s.URL)
	}
	if o, err := hashlist.Origin(s.List); err != nil || o != k.cfg.Origin {
		return Source{}, fmt.Errorf("%w: list %s is not of this node", ErrInvalid, s.List)
	}
	if s.Credentials != "" {
		if _, err := ReadCredentials(k.path(s.Credentials)); err != nil {
			return Source{}, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
	}
	k.mu.Lock()
	was := k.sources[s.Name]
	taken := was != nil && was.State != Removed || k.busy[s.Name] != nil
	var other string
	for _, o := range k.sources {
		if o.List == s.List && o.Name != s.Name {
			other = o.Name
		}
	}
	if !taken && other == "" {
		k.busy[s.Name] = make(chan struct{})
	}
	k.mu.Unlock()
	switch {
	case taken:
		return Source{}, fmt.Errorf("%w: there is a source %s already; remove it first, or give this one another name", ErrState, s.Name)
	case other != "":
		return Source{}, fmt.Errorf("%w: list %s is that of source %s: each source has a list of its own", ErrState, s.List, other)
	}
	defer k.leave(s.Name)
	if was != nil { // its history goes on
		if was.List != s.List {
			return Source{}, fmt.Errorf("%w: source %s fed the list %s before: keep to that, or give it another name", ErrState, s.Name, was.List)
		}
		s.Runs = was.Runs
	} else if err := k.untouched(s.List); err != nil {
		return Source{}, err
	}
	// Saved before anything stands on the list: a list that is the node's own acts fully.
	if err := k.save(ctx, &s); err != nil {
		return Source{}, err
	}
	if err := k.define(ctx, &s); err != nil {
		s.State, s.Next = Removed, time.Time{}
		return Source{}, errors.Join(err, k.save(ctx, &s))
	}
	k.nudge()
	return s, nil
}

// untouched refuses a list that the node's own people use: what is on it would act less from now on.
func (k *Keeper) untouched(list string) error {
	if l, ok := k.cfg.Lists.List(list); ok && l.Statements > 0 {
		return fmt.Errorf("%w: list %s has statements of its own: a source needs a list for itself alone, see --list", ErrState, l.Name)
	}
	return nil
}

// define makes the list of a source.
func (k *Keeper) define(ctx context.Context, s *Source) error {
	l, there := k.cfg.Lists.List(s.List)
	partner := formats[s.Format].partner
	if there && (!partner || l.Partner) {
		return nil
	}
	if there {
		return fmt.Errorf("%w: list %s is not marked as of partner data, and %s is that: give it a list for itself", ErrState, l.Name, s.Format)
	}
	d := &hashlist.Definition{
		Name: s.List[strings.LastIndexByte(s.List, '/')+1:], Summary: "what " + hostOf(s.URL) + " says, kept on its behalf",
		Audience: hashlist.Local, Action: hashlist.Reject, Radii: hashlist.DefaultRadii,
	}
	if partner {
		d.Labels = []string{hashlist.PartnerData}
	}
	if err := d.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	r, err := k.cfg.Issuer.Seal(hashlist.Statement{Kind: hashlist.DefineList, List: s.List, Definition: d})
	if err != nil {
		return fmt.Errorf("make list %s (or make it yourself first, with the audience local): %w", d.Name, err)
	}
	_, err = k.cfg.Lists.Apply(ctx, r)
	return err
}

func hostOf(address string) string {
	_, rest, _ := strings.Cut(address, "://")
	host, _, _ := strings.Cut(rest, "/")
	return host
}

func (k *Keeper) path(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(k.cfg.Dir, p)
}

// save keeps a source and lets the lists know.
func (k *Keeper) save(ctx context.Context, s *Source) error {
	if err := k.cfg.Store.SaveSource(ctx, *s); err != nil {
		return err
	}
	k.mu.Lock()
	v := *s
	k.sources[s.Name] = &v
	k.mu.Unlock()
	k.heed(s)
	return nil
}

// enter reserves a source for one caller, waiting for another's work on it to end, and returns it as it is.
func (k *Keeper) enter(ctx context.Context, name string) (*Source, error) {
	for {
		k.mu.Lock()
		s, busy := k.sources[name], k.busy[name]
		if s != nil && busy == nil {
			k.busy[name] = make(chan struct{})
			v := *s
			k.mu.Unlock()
			return &v, nil
		}
		k.mu.Unlock()
		if s == nil {
			return nil, fmt.Errorf("%w: %.80q", ErrUnknown, name)
		}
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the run of source %s to end: %w", name, context.Cause(ctx))
		}
	}
}

func (k *Keeper) leave(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	close(k.busy[name])
	delete(k.busy, name)
}

func (k *Keeper) nudge() {
	select {
	case k.poke <- struct{}{}:
	default:
	}
}

// change changes how a source is kept.
func (k *Keeper) change(ctx context.Context, name string, how func(*Source) error) (Source, error) {
	s, err := k.enter(ctx, name)
	if err != nil {
		return Source{}, err
	}
	defer k.leave(name)
	if err := how(s); err != nil {
		return Source{}, err
	}
	if err := k.save(ctx, s); err != nil {
		return Source{}, err
	}
	k.nudge()
	return *s, nil
}

// Pause has a source read no more until Resume. What came of it acts on as it did; what waited for
// a person is discarded.
func (k *Keeper) Pause(ctx context.Context, name string) (Source, error) {
	return k.change(ctx, name, func(s *Source) error {
		if s.State == Removed || s.State == Draft {
			return fmt.Errorf("%w: source %s is %v: `tocsin sources remove` ends it", ErrState, name, s.State)
		}
		if err := k.settle(ctx, s, Discarded, ""); err != nil {
			return err
		}
		s.State, s.Next, s.Pending = Paused, time.Time{}, 0
		return nil
	})
}

// Refuse is a person's no to a run that waits: a source that was never approved is removed, and any other
// is paused, since it would say the same again tomorrow.
func (k *Keeper) Refuse(ctx context.Context, name string, run uint64, who string) (Source, error) {
	return k.change(ctx, name, func(s *Source) error {
		if err := waits(s, run); err != nil {
			return err
		}
		if err := k.settle(ctx, s, Discarded, who); err != nil {
			return err
		}
		state := Paused
		if s.State == Draft {
			state = Removed
		}
		s.State, s.Next, s.Pending = state, time.Time{}, 0
		return nil
	})
}

// waits reports why a run of a source does not wait for a person.
func waits(s *Source, run uint64) error {
	switch {
	case s.Pending == 0:
		return fmt.Errorf("%w: no run of source %s waits for anybody", ErrState, s.Name)
	case run != 0 && run != s.Pending:
		return fmt.Errorf("%w: it is run %d of source %s that waits, not run %d: look at that one", ErrState, s.Pending, s.Name, run)
	}
	return nil
}

// Resume has a paused source read again, soon.
func (k *Keeper) Resume(ctx context.Context, name string) (Source, error) {
	return k.change(ctx, name, func(s *Source) error {
		if s.State != Paused {
			return fmt.Errorf("%w: source %s is %v, not paused", ErrState, name, s.State)
		}
		s.State, s.Next, s.Failures = Active, k.now(), 0
		return nil
	})
}

// Remove ends a source: it is read no more, and what came of it acts no more. The
// list stays, with its history.
func (k *Keeper) Remove(ctx context.Context, name string) (Source, error) {
	return k.change(ctx, name, func(s *Source) error {
		if s.State == Removed {
			return fmt.Errorf("%w: source %s is removed already", ErrState, name)
		}
		if err := k.settle(ctx, s, Discarded, ""); err != nil {
			return err
		}
		s.State, s.Next, s.Pending = Removed, time.Time{}, 0
		s.ETag, s.Modified, s.Cursor, s.Full = "", "", nil, time.Time{} // from the start, if it is subscribed to again
		return nil
	})
}

// Believe changes how far a source is believed, and what its matches may come to.
func (k *Keeper) Believe(ctx context.Context, name string, belief uint8, most hashlist.Verdict) (Source, error) {
	return k.change(ctx, name, func(s *Source) error {
		s.Belief, s.Most = belief, cmp.Or(most, s.Most)
		if err := s.Validate(); err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		return nil
	})
}

// settle ends the run that waits for a person, if there is one.
func (k *Keeper) settle(ctx context.Context, s *Source, as RunState, who string) error {
	if s.Pending == 0 {
		return nil
	}
	runs, err := k.cfg.Store.SourceRuns(ctx, s.Name, 0)
	if err != nil {
		return err
	}
	for _, r := range runs {
		if r.Number == s.Pending && (r.State == Held || r.State == Approved) {
			r.State, r.Who, r.Decided = as, who, k.now()
			if err := k.cfg.Store.SaveSourceRun(ctx, r, keptRuns); err != nil {
				return err
			}
		}
	}
	k.settled(ctx, s.Name, s.Pending)
	return k.cfg.Store.DropPlan(ctx, s.Name, s.Pending)
}

// settled tells whoever was asked that there is nothing left to decide.
func (k *Keeper) settled(ctx context.Context, name string, run uint64) {
	if k.cfg.Settle == nil {
		return
	}
	if err := k.cfg.Settle(ctx, name, run); err != nil {
		k.log.Error("a run that is decided may still wait in the queue of reviews", "source", name, "run", run, "error", err)
	}
}

// Run reads sources as they become due until ctx ends, one after the other. It must be called once.
func (k *Keeper) Run(ctx context.Context) {
	k.continueApproved(ctx)
	for {
		name, wait := k.due()
		if name != "" {
			if _, err := k.RunNow(ctx, name, nil); err != nil && ctx.Err() == nil && !errors.Is(err, ErrState) {
				k.log.Warn("a source could not be read", "source", name, "error", err)
			}
			if ctx.Err() != nil {
				return
			}
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-k.poke:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// due returns the source that is due for longest, or how long to wait until one is.
func (k *Keeper) due() (name string, wait time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	wait = time.Hour // a clock that was set is noticed by then
	var first time.Time
	for _, s := range k.sources {
		if s.Next.IsZero() || k.busy[s.Name] != nil || s.State != Draft && s.State != Active {
			continue
		}
		if until := s.Next.Sub(now); until > 0 {
			wait = min(wait, until)
		} else if name == "" || s.Next.Before(first) {
			name, first = s.Name, s.Next
		}
	}
	return name, max(wait, time.Second)
}

// next is when a source is read again: less up to a fifth, so that a thousand nodes that
// subscribed on the same day do not come in the same minute.
func (k *Keeper) next(s *Source) time.Time {
	every := s.Every
	if s.Failures > 0 { // sooner, but less and less so
		every = min(every, MinEvery<<min(s.Failures-1, 10))
	}
	off, err := rand.Int(rand.Reader, big.NewInt(int64(every)/5+1))
	if err != nil {
		return k.now().Add(every)
	}
	return k.now().Add(every - time.Duration(off.Int64())).Truncate(time.Microsecond)
}
