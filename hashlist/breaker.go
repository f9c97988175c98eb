package hashlist

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"
)

// Breaker is the circuit breaker on refusals. When what other nodes list refuses, within
// an hour, by more different listed hashes than it may, its matches come to hold at
// most until somebody closes the breaker or its time is over: those of one issuer, or
// those of all other nodes together. Who posts one banned picture a thousand times does
// not open it. The node's own lists refuse as ever. Methods may be called concurrently,
// and a nil Breaker never opens.
type Breaker struct {
	lists  *Lists
	config BreakerConfig

	mu      sync.Mutex // guards what follows
	begun   time.Time  // of the hour that is counted
	refused map[string]map[listed]struct{}
	all     map[listed]struct{}
	open    map[string]OpenBreaker // by issuer; "" for all
}

// BreakerConfig says when a breaker opens and for how long.
type BreakerConfig struct {
	PerIssuer int           // different listed hashes of one issuer that may refuse within an hour; 0 for any number
	Total     int           // the same of all other nodes together
	Stay      time.Duration // how long a breaker stays open
	Opened    func(OpenBreaker)
	Now       func() time.Time // nil for time.Now
}

// OpenBreaker is one that is open.
type OpenBreaker struct {
	Issuer         string // "" for all other nodes together
	Refusals       int    // different listed hashes that refused something within the hour
	Opened, Closes time.Time
}

// listed is a hash as one statement lists it.
type listed struct {
	statement string
	posting   uint32
}

// NewBreaker makes the breaker of lists.
func NewBreaker(lists *Lists, config BreakerConfig) *Breaker {
	if config.Now == nil {
		config.Now = time.Now
	}
	return &Breaker{lists: lists, config: config, open: map[string]OpenBreaker{}}
}

// Note counts a refusal for everybody who stands behind it, so that nobody hides behind others
// who listed the same. What is refused by this node's own word does not count.
func (b *Breaker) Note(r *Result) {
	if b == nil || r.Verdict != VerdictReject || r.Decision.Own || len(r.behind) == 0 {
		return
	}
	for _, o := range b.count(r.behind) {
		if b.config.Opened != nil {
			b.config.Opened(o)
		}
	}
}

// count counts one refusal that all of those stand behind.
func (b *Breaker) count(behind []backing) (opened []OpenBreaker) {
	now := b.config.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expire(now)
	if b.refused == nil || now.Sub(b.begun) > time.Hour || now.Before(b.begun) {
		b.begun, b.refused, b.all = now, map[string]map[listed]struct{}{}, map[listed]struct{}{}
	}
	add := func(issuer string, seen map[listed]struct{}, most int, what listed) {
		if most <= 0 || len(seen) > most {
			return
		}
		if seen[what] = struct{}{}; len(seen) > most {
			o := OpenBreaker{issuer, len(seen), now, now.Add(b.config.Stay)}
			b.open[issuer] = o
			opened = append(opened, o)
		}
	}
	counted := map[string]bool{}
	for _, s := range behind {
		if counted[s.issuer] {
			continue // one refusal, however many hashes of theirs it matched
		}
		counted[s.issuer] = true
		of := b.refused[s.issuer]
		if of == nil {
			of = map[listed]struct{}{}
			b.refused[s.issuer] = of
		}
		add(s.issuer, of, b.config.PerIssuer, s.what)
	}
	add("", b.all, b.config.Total, behind[0].what)
	if len(opened) > 0 {
		b.apply()
	}
	return opened
}

// expire closes the breakers whose time is over.
func (b *Breaker) expire(now time.Time) {
	closed := false
	for issuer, o := range b.open {
		if !o.Closes.After(now) {
			delete(b.open, issuer)
			closed = true
		}
	}
	if closed {
		b.refused = nil // what was counted is counted anew
		b.apply()
	}
}

func (b *Breaker) apply() {
	issuers := make([]string, 0, len(b.open))
	for issuer := range b.open {
		issuers = append(issuers, issuer)
	}
	b.lists.soften(issuers)
}

// Open returns the breakers that are open.
func (b *Breaker) Open() []OpenBreaker {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expire(b.config.Now())
	var all []OpenBreaker
	for _, o := range b.open {
		all = append(all, o)
	}
	slices.SortFunc(all, func(a, c OpenBreaker) int {
		return cmp.Or(a.Opened.Compare(c.Opened), strings.Compare(a.Issuer, c.Issuer))
	})
	return all
}

// Close closes a breaker before its time, and reports whether it was open. What it
// counted is counted anew.
func (b *Breaker) Close(issuer string) bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.open[issuer]; !ok {
		return false
	}
	delete(b.open, issuer)
	b.refused = nil
	b.apply()
	return true
}

// soften has the matches of some issuers of other nodes come to hold at most, and of no
// others; "" stands for all of them.
func (l *Lists) soften(issuers []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fold.soft = map[string]struct{}{}
	for _, issuer := range issuers {
		l.fold.soft[issuer] = struct{}{}
	}
	// Not news for the window: who was refused comes to hold, and who was held stays so.
	l.generation++
}

// softened reports whether what s matches comes to hold at most.
func (f *fold) softened(s *stmt) bool {
	if len(f.soft) == 0 || s.list.origin == "" {
		return false
	}
	_, all := f.soft[""]
	_, one := f.soft[s.issuer]
	return all || one
}
