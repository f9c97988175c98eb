package federation_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
)

// simWorld is many nodes that publish, follow, fail and change their minds at
// random for a while, and what is known of them.
type simWorld struct {
	t     *testing.T
	net   *simNet
	rng   *rand.Rand // of the one goroutine that directs
	nodes []*simNode
	lists []*simList
	liar  []*simNode     // the faces of a publisher that shows them to one half of its followers each
	lie   string         // its list
	lies  int            // statements that it kept from one half
	ops   sync.WaitGroup // what people do, which may take as long as the network likes

	mu       sync.Mutex               // guards what follows
	problems []string                 // that must never occur, at any time
	approved map[[2]string]*simGrants // by list and origin of the follower
	leaked   int                      // looked at: answers and pushes with statements of restricted lists
	broken   bool                     // disks fail now and then
	diskRng  *rand.Rand
	did      map[string]int
}

// simList is a list and who publishes it.
type simList struct {
	iri    string
	by     *simNode
	public bool
	said   []hashlist.Statement // that may be retracted
}

// simGrants are the times in which a follower was approved.
type simGrants struct {
	now  bool
	last time.Time // when it ended
}

func newSimWorld(t *testing.T, seed uint64, count int) *simWorld {
	w := &simWorld{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), diskRng: rand.New(rand.NewPCG(seed, 2)), approved: map[[2]string]*simGrants{}, did: map[string]int{},
	}
	w.net = newSimNet(seed, w.problem)
	w.net.carried = w.watch
	publishers := max(4, count/10)
	for i := range count {
		s := w.net.add(i)
		s.fate = w.diskFate
		s.log = slog.New(slog.DiscardHandler)
		// Two minutes either way are within what signatures allow between any two.
		if i%5 == 0 {
			s.skew.Store(int64(w.rng.IntN(240)-120) * int64(time.Second))
		}
		w.nodes = append(w.nodes, s)
		if i < publishers {
			w.lists = append(w.lists, &simList{iri: s.list("restricted"), by: s})
			if i%4 == 0 {
				w.lists = append(w.lists, &simList{iri: s.list("public"), by: s, public: true})
			}
		}
	}
	for range 2 {
		s := w.net.add(count)
		w.liar = append(w.liar, s)
	}
	w.lie = w.liar[0].list("public")
	return w
}

// tell has the liar say something to one half or, mostly, to both.
func (w *simWorld) tell(v hashlist.Statement) {
	v.List, v.Published = w.lie, w.liar[0].now().UTC().Truncate(time.Second)
	r, err := w.liar[0].issuer.Seal(v)
	if err != nil {
		w.problem(err.Error())
		return
	}
	w.liar[0].apply(r)
	if v.Kind == hashlist.DefineList || w.lies > 0 && w.rng.IntN(4) > 0 {
		w.liar[1].apply(r)
	} else {
		w.lies++
	}
}

// findLiar has two of the liar's followers, who were shown different things, compare.
func (w *simWorld) findLiar() {
	w.tell(hashlist.Statement{Kind: hashlist.AddHashes, Hashes: []hashlist.Hash{pdq(w.t, 1000)}})
	pause(context.Background(), 11*time.Minute)
	var halves [2][]*simNode
	alone := 0
	for _, s := range w.nodes {
		if f := s.follow(w.lie); f.State == federation.FollowAccepted {
			halves[s.shown%2] = append(halves[s.shown%2], s)
			if f.Trouble != "" {
				alone++
			}
		}
	}
	if len(halves[0]) == 0 || len(halves[1]) == 0 {
		w.t.Errorf("only %d and %d nodes follow the liar: the test tests nothing", len(halves[0]), len(halves[1]))
		return
	}
	a, b := halves[0][0], halves[1][0]
	v, err := a.living().Verify(context.Background(), w.lie, []string{b.origin})
	if err != nil || !slices.ContainsFunc(v.Checks, func(c federation.Check) bool { return !c.Passed && strings.HasPrefix(c.Name, "compared") }) {
		w.t.Errorf("the liar was not found: %+v, %v", v, err)
	}
	pause(context.Background(), 11*time.Minute)
	if a.follow(w.lie).Trouble == "" || b.follow(w.lie).Trouble == "" {
		w.t.Errorf("the liar was found and forgotten: %q, %q", a.follow(w.lie).Trouble, b.follow(w.lie).Trouble)
	}
	w.t.Logf("the liar kept %d statements from half of its %d followers; %d had found out before they were told to compare",
		w.lies, len(halves[0])+len(halves[1]), alone)
}

// problem notes what must never be.
func (w *simWorld) problem(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.problems) < 20 {
		w.problems = append(w.problems, time.Now().Format("15:04:05.000 ")+what)
	}
}

func (w *simWorld) note(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.did[what]++
}

func (w *simWorld) diskFate() (fail, storeFirst bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.broken || w.diskRng.IntN(200) > 0 {
		return false, false
	}
	w.did["writes failed"]++
	return true, w.diskRng.IntN(2) == 0
}

// watch looks at every answer: nothing of a restricted list may go to who is not approved.
func (w *simWorld) watch(from, to *simNode, r *http.Request, body []byte, answer *http.Response) {
	var list, reader string
	switch {
	case r.Method == http.MethodPost && strings.Contains(string(body), `"orderedItems":[{`):
		list, _, _ = strings.Cut(string(body[strings.Index(string(body), `"partOf":"`)+len(`"partOf":"`):]), `/log"`)
		reader = to.origin
	case r.Method == http.MethodGet && answer.StatusCode == http.StatusOK && strings.Contains(r.URL.Path, "/log/"):
		list, _, _ = strings.Cut(r.URL.String(), "/log/")
		reader = from.origin
	default:
		return
	}
	if strings.HasSuffix(list, "/public") {
		return
	}
	w.mu.Lock()
	w.leaked++
	g := w.approved[[2]string{list, reader}]
	// What was sent before the end may arrive, twice and late, after it: the network takes up to four minutes.
	fine := g != nil && (g.now || time.Since(g.last) < 4*time.Minute && r.Method == http.MethodPost || time.Since(g.last) < time.Second)
	w.mu.Unlock()
	if !fine {
		w.problem(reader + " was given statements of " + list + " and is not approved")
	}
}

// decide has a publisher decide about a follower.
func (w *simWorld) decide(l *simList, follower string, approve bool) {
	life := l.by.living()
	if life == nil {
		return
	}
	origin := strings.TrimSuffix(follower, "/actor")
	w.mu.Lock()
	g := w.approved[[2]string{l.iri, origin}]
	if g == nil {
		g = &simGrants{}
		w.approved[[2]string{l.iri, origin}] = g
	}
	if approve {
		g.now = true // before: what follows may come at once
	}
	w.mu.Unlock()
	_, err := life.Decide(context.Background(), l.iri, follower, approve)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.did["decisions"]++
	if !approve && err == nil {
		g.now, g.last = false, time.Now()
	}
}

// op is one thing that somebody does, or that happens.
func (w *simWorld) op() {
	r := w.rng
	l := w.lists[r.IntN(len(w.lists))]
	s := w.nodes[r.IntN(len(w.nodes))]
	on := func(do func(life *simLife)) {
		if life := s.living(); life != nil {
			w.ops.Go(func() { do(life) })
		}
	}
	switch n := r.IntN(100); {
	case n < 2:
		w.tell(hashlist.Statement{Kind: hashlist.AddHashes, Hashes: []hashlist.Hash{pdq(w.t, r.IntN(500))}})
	case n < 34:
		w.publish(l)
	case n < 50:
		if l.by != s {
			w.note("follows")
			on(func(life *simLife) { life.Follow(context.Background(), l.iri, hashlist.VerdictReject) })
		}
	case n < 56:
		if life := s.living(); life != nil {
			if all := life.Follows(); len(all) > 0 {
				list := all[r.IntN(len(all))].List
				w.note("unfollows")
				on(func(life *simLife) { life.Unfollow(context.Background(), list) })
			}
		}
	case n < 80:
		if life := l.by.living(); life != nil {
			all, err := life.Followers(l.iri)
			if err != nil || len(all) == 0 {
				return
			}
			f := all[r.IntN(len(all))]
			w.decide(l, f.Actor, f.State == federation.FollowerAsked && r.IntN(10) > 1 || r.IntN(10) > 2)
		}
	case n < 90:
		if s.living() != nil {
			killed := r.IntN(2) == 0
			w.note("stops")
			s.stop(killed, killed && r.IntN(2) == 0)
		}
	case n < 96:
		for _, s := range w.nodes {
			if s.living() == nil && r.IntN(2) == 0 {
				s.start() // or not, if its disk fails
			}
		}
	case n < 98:
		w.note("partitions")
		var other []*simNode
		for _, s := range w.nodes {
			if r.IntN(3) == 0 {
				other = append(other, s)
			}
		}
		w.net.part(other...)
	default:
		w.net.part()
	}
}

// publish has a list grow by a statement of some kind.
func (w *simWorld) publish(l *simList) {
	if l.by.living() == nil {
		return
	}
	r := w.rng
	v := hashlist.Statement{List: l.iri}
	switch n := r.IntN(10); {
	case n == 0:
		w.note("definitions")
		if v, ok := l.by.define(l.iri, fmt.Sprintf("definition %d", r.IntN(100)), l.audience()); ok {
			if r.IntN(2) == 0 { // the first one stays
				l.said = append(l.said, v)
			}
		}
		return
	case n < 3 && len(l.said) > 0:
		w.note("retractions")
		what := l.said[r.IntN(len(l.said))]
		v.Kind, v.Retracts = hashlist.Retraction, what.ID
		if len(what.Hashes) > 1 && r.IntN(2) == 0 {
			v.Hashes = what.Hashes[:1]
		}
		l.by.say(v)
		return
	case n < 6:
		w.note("bans that lapse")
		v.Expires = l.by.now().UTC().Truncate(time.Second).Add(time.Duration(1+r.IntN(60)) * time.Minute)
	default:
		w.note("bans")
	}
	v.Kind = hashlist.AddHashes
	for range 1 + r.IntN(3) {
		h := pdq(w.t, r.IntN(500))
		if !slices.Contains(v.Hashes, h) {
			v.Hashes = append(v.Hashes, h)
		}
	}
	if v, ok := l.by.say(v); ok {
		l.said = append(l.said, v)
	}
}

func (l *simList) audience() hashlist.Audience {
	if l.public {
		return hashlist.Public
	}
	return hashlist.Followers
}

// heal brings everything up, ends what is bad about the network, and has every
// request decided.
func (w *simWorld) heal() {
	w.ops.Wait()
	w.mu.Lock()
	w.broken = false
	w.mu.Unlock()
	w.net.setRough(false)
	w.net.part()
	w.net.running.Wait()
	for _, s := range w.nodes {
		if s.living() == nil {
			mustStart(w.t, s)
		}
	}
}

// unsettled returns what keeps the world from being as it should be in the end, "" for nothing.
func (w *simWorld) unsettled() string {
	sizes := map[string]uint64{}
	states := map[[2]string]federation.FollowerState{}
	for _, l := range w.lists {
		all, err := l.by.living().Followers(l.iri)
		if err != nil {
			return err.Error()
		}
		for _, f := range all {
			if f.State == federation.FollowerAsked {
				w.decide(l, f.Actor, w.rng.IntN(4) > 0)
			}
			states[[2]string{l.iri, f.Actor}] = f.State
			sizes[l.iri] = f.Size
		}
	}
	for _, s := range w.nodes {
		for _, f := range s.living().Follows() {
			if f.List == w.lie {
				continue
			}
			at := [2]string{f.List, s.origin + "/actor"}
			there := states[at]
			delete(states, at)
			agreed := false
			switch f.State {
			case federation.FollowAccepted:
				// Who was refused a public list may read it, and a refusal that is overtaken by an approval goes unnoticed then.
				agreed = (there == federation.FollowerApproved || there == federation.FollowerRejected && strings.HasSuffix(f.List, "/public")) && f.Position == sizes[f.List] && f.Trouble == ""
			case federation.FollowRefused:
				agreed = there == federation.FollowerRejected
			case federation.FollowEnded:
				agreed = there != federation.FollowerApproved
			}
			if !agreed {
				return fmt.Sprintf("%s follows %s in state %d with %d of %d statements and the trouble %q; its publisher has it in state %d",
					s.origin, f.List, f.State, f.Position, sizes[f.List], f.Trouble, there)
			}
		}
	}
	for at, state := range states {
		if state == federation.FollowerApproved {
			return fmt.Sprintf("%s knows nothing of its following %s", at[1], at[0])
		}
	}
	return ""
}

// counted prints numbers in a fixed order.
func counted(m map[string]int) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%d %s", m[k], k))
	}
	return strings.Join(parts, ", ")
}
