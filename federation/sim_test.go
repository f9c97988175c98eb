package federation_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
)

// TestSimulation is the promise of the package: many nodes on a bad network, of
// which some fail, change their minds or have the wrong time, come to the same once it is over.
//
// SIMSEED repeats a run, as far as it can be repeated (see simNet). With SIMTIME, as in
// 10m, it runs one seed after the other for so long; see `make sim`.
func TestSimulation(t *testing.T) {
	simKeys()
	seed := rand.Uint64N(1_000_000)
	if text := os.Getenv("SIMSEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("SIMSEED: %v", err)
		}
	}
	var more time.Duration
	if text := os.Getenv("SIMTIME"); text != "" {
		var err error
		if more, err = time.ParseDuration(text); err != nil {
			t.Fatalf("SIMTIME: %v", err)
		}
	}
	for from := time.Now(); ; seed++ {
		if !t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Logf("SIMSEED=%d, %d nodes", seed, simNodes)
			synctest.Test(t, func(t *testing.T) { simulate(t, seed) })
		}) || time.Since(from) >= more {
			break
		}
	}
}

// Of the clock of a bubble.
const (
	simBad   = 8 * time.Minute // that the network is bad
	simSteps = 2.5             // things done, on average, a second
	simCalm  = time.Hour       // at most, until all is well again
)

func simulate(t *testing.T, seed uint64) {
	w := newSimWorld(t, seed, simNodes)
	defer func() {
		for _, s := range append(w.nodes, w.liar...) {
			s.stop(false, false)
		}
		w.net.running.Wait()
	}()
	mustStart(t, w.nodes...)
	mustStart(t, w.liar...)
	w.tell(hashlist.Statement{Kind: hashlist.DefineList, Definition: &hashlist.Definition{
		Name: "public", Audience: hashlist.Public, Action: hashlist.Reject, Radii: hashlist.DefaultRadii,
	}})
	for _, l := range w.lists {
		l.by.define(l.iri, "a list", l.audience())
	}
	// Some follow the same lists, in the end, and nothing else ever.
	twins := map[*simNode][]*simList{}
	for i := len(w.nodes) - len(w.nodes)/5; i < len(w.nodes); i++ {
		group := i / 4
		for k := range 3 {
			twins[w.nodes[i]] = append(twins[w.nodes[i]], w.lists[(group*5+k*3)%len(w.lists)])
		}
	}
	for i, s := range w.nodes {
		if 30 <= i && i < 40 {
			w.ops.Go(func() { s.living().Follow(context.Background(), w.lie, hashlist.VerdictReject) })
		}
		lists := twins[s]
		if lists == nil {
			lists = []*simList{w.lists[w.rng.IntN(len(w.lists))], w.lists[w.rng.IntN(len(w.lists))]}
		}
		for _, l := range lists {
			if l.by != s {
				w.ops.Go(func() { s.living().Follow(context.Background(), l.iri, hashlist.VerdictReject) })
			}
		}
	}
	w.ops.Wait()

	// One clock is beyond all bounds, until somebody sets it right.
	w.nodes[1].skew.Store(int64(100 * time.Minute))
	w.mu.Lock()
	w.broken = true
	w.mu.Unlock()
	w.net.setRough(true)
	all := w.nodes
	for end := time.Now().Add(simBad); time.Now().Before(end); {
		pause(context.Background(), time.Duration(w.rng.ExpFloat64()/simSteps*float64(time.Second)))
		w.nodes = all[:len(all)-len(twins)]
		if w.rng.IntN(5) == 0 { // twins fail like others, but follow nothing else
			w.nodes = all[len(all)-len(twins):]
			w.stumble(twins)
		} else {
			w.op()
		}
		w.nodes = all
	}
	w.heal()
	w.nodes[1].skew.Store(0)
	for s, lists := range twins {
		for _, l := range lists {
			w.ops.Go(func() {
				for range 20 {
					if s.living().Follow(context.Background(), l.iri, hashlist.VerdictReject); s.follow(l.iri).State != 0 {
						return
					}
				}
			})
		}
	}
	w.ops.Wait()
	for _, l := range w.lists {
		l.by.ban(l.iri, pdq(t, 1000)) // the last word, which reaches whoever was forgotten
	}
	healed := time.Now()
	for problem := w.unsettled(); problem != ""; problem = w.unsettled() {
		if time.Since(healed) > simCalm {
			t.Fatalf("%v after all was well again: %s", simCalm, problem)
		}
		pause(context.Background(), 20*time.Second)
	}
	took := time.Since(healed)
	for s, lists := range twins { // who was refused asks again, until it is not
		for _, l := range lists {
			if s.follow(l.iri).State == federation.FollowRefused {
				w.decide(l, s.origin+"/actor", true)
			}
		}
	}
	for problem := w.unsettled(); problem != ""; problem = w.unsettled() {
		if time.Since(healed) > simCalm+time.Hour {
			t.Fatalf("after everybody was approved: %s", problem)
		}
		pause(context.Background(), 20*time.Second)
	}
	w.compareFolds(twins)
	w.verifySome()
	w.findLiar()

	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.problems {
		t.Error(p)
	}
	w.net.mu.Lock()
	defer w.net.mu.Unlock()
	var calls int
	for _, c := range w.net.calls {
		calls += int(c)
	}
	t.Logf("%d lists, %d requests: %s", len(w.lists), calls, counted(w.net.fates))
	t.Logf("%s; %d times statements of a restricted list were given to somebody approved", counted(w.did), w.leaked)
	t.Logf("settled %v after the network was well again", took)
}

// stumble lets one of the nodes that are to be alike fail or change its mind.
func (w *simWorld) stumble(twins map[*simNode][]*simList) {
	s := w.nodes[w.rng.IntN(len(w.nodes))]
	l := twins[s][w.rng.IntN(len(twins[s]))]
	switch life := s.living(); {
	case life == nil:
		s.start()
	case w.rng.IntN(3) == 0:
		w.note("stops")
		s.stop(w.rng.IntN(2) == 0, w.rng.IntN(2) == 0)
	case w.rng.IntN(2) == 0:
		w.note("unfollows")
		w.ops.Go(func() { life.Unfollow(context.Background(), l.iri) })
	default:
		w.note("follows")
		w.ops.Go(func() { life.Follow(context.Background(), l.iri, hashlist.VerdictReject) })
	}
}

// compareFolds holds every follower's fold against its publishers', and those of nodes that
// follow the same against each other, byte for byte.
func (w *simWorld) compareFolds(twins map[*simNode][]*simList) {
	folds := map[*simNode]string{}
	lines := map[*simNode]map[string]string{} // by list
	for _, s := range w.nodes {
		folds[s] = s.fold()
		lines[s] = map[string]string{}
		for l := range strings.Lines(folds[s]) {
			list := strings.Fields(l)[1]
			if strings.HasPrefix(l, "hash ") {
				list = strings.Fields(l)[3]
			}
			lines[s][list] += l
		}
	}
	publishers := map[string]*simNode{}
	for _, l := range w.lists {
		publishers[l.iri] = l.by
	}
	compared := 0
	for _, s := range w.nodes {
		for _, f := range s.living().Follows() {
			if f.State != federation.FollowAccepted || f.List == w.lie {
				continue
			}
			compared++
			if got, want := lines[s][f.List], lines[publishers[f.List]][f.List]; got != want || want == "" {
				w.t.Errorf("%s has of %s\n%s\nits publisher\n%s", s.origin, f.List, got, want)
			}
		}
	}
	groups := map[string]*simNode{}
	alike := 0
	for s, lists := range twins {
		var names []string
		for _, l := range lists {
			names = append(names, l.iri)
		}
		slices.Sort(names)
		key := strings.Join(slices.Compact(names), " ")
		if first := groups[key]; first != nil {
			alike++
			if folds[s] != folds[first] {
				w.t.Errorf("%s and %s follow the same, and have\n%s\nand\n%s", s.origin, first.origin, folds[s], folds[first])
			}
		}
		groups[key] = s
	}
	w.t.Logf("%d follows agree with what was published; %d nodes have byte for byte the fold of another, in %d groups", compared, alike, len(groups))
	if compared < len(w.nodes) || alike < len(twins)/2 {
		w.t.Errorf("too few to mean anything")
	}
}

// verifySome has some nodes verify what they follow, and compare with others.
func (w *simWorld) verifySome() {
	followers := map[string][]*simNode{}
	for _, s := range w.nodes {
		for _, f := range s.living().Follows() {
			if f.State == federation.FollowAccepted && f.List != w.lie {
				followers[f.List] = append(followers[f.List], s)
			}
		}
	}
	for _, list := range slices.Sorted(maps.Keys(followers))[:3] {
		all := followers[list]
		with := strings.TrimPrefix(all[len(all)-1].origin, "https://")
		v, err := all[0].living().Verify(context.Background(), list, []string{with})
		if err != nil {
			w.t.Errorf("verify %s: %v", list, err)
			continue
		}
		for _, c := range v.Checks {
			if !c.Passed {
				w.t.Errorf("verify %s: %s: %s", list, c.Name, c.Detail)
			}
		}
	}
}
