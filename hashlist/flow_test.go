package hashlist

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// The examples with which Sequoia's web of trust and others that follow the draft are tested
// (sequoia-wot, tests/data), as far as they are about paths, depth and amounts.
// Where these ask for one best path, the flow may be more; such lines say why.
func TestBeliefAsInTheDraft(t *testing.T) {
	simple := []string{"A-b 100/2", "b-c 100/1", "c-d 100/1", "d-e 100/1"}
	roundabout := []string{
		"A-b 60/7", "A-c 120/6", "c-d 120/5", "d-e 120/4", "e-f 120/3", "f-b 120/2", "b-g 120/2", "g-h 120/1", "h-i 120/0", "j-e 100/5", "j-g 100/1",
	}
	cycle := []string{"A-b 120/3", "b-c 90/7", "c-d 60/7", "d-b 120/7", "d-e 30/1", "e-f 120/0"}
	optima := []string{
		"A-b 120/7", "b-c 100/7", "b-d 50/7", "b-f 75/7", "c-e 100/7", "d-e 50/7", "e-f 120/7", "e-g 30/0", "e-h 120/0",
	}
	viaRoot := []string{"A-b 120/7", "b-c 120/7", "c-t 120/7", "A-y 50/7", "y-z 50/7", "z-t 50/7"}
	for _, c := range []struct {
		name  string
		edges []string
		want  map[string]int
	}{
		{"simple", simple, map[string]int{"b": 100, "c": 100, "d": 100, "e": 0}},
		{"cycle", cycle, map[string]int{"b": 120, "c": 90, "d": 60, "e": 30, "f": 0}},
		// By two paths: 60 more than by the best one.
		{"roundabout", roundabout, map[string]int{"b": 120, "c": 120, "f": 120, "g": 120, "h": 120, "i": 60, "j": 0}},
		// Of what b passes on nothing is left for a second path but where it is introduced by several.
		{"local optima", optima, map[string]int{"e": 120, "f": 120, "g": 30, "h": 120}},
		{"best via root", viaRoot, map[string]int{"t": 120, "z": 50}},
	} {
		f := graphOf(t, c.edges...)
		for name, want := range c.want {
			if got, _ := f.believe("", epoch.Unix(), backersOf(name)); got != want {
				t.Errorf("%s: %s is believed %d, want %d", c.name, name, got, want)
			}
		}
	}
}

// randomGraph draws edges among a few people of which the first is an own issuer.
func randomGraph(r *rand.Rand, people, edges int, amount, depth func() int) []string {
	names := "Aabcdefghijklmnopqrstuvwxyz"[:people]
	seen := map[[2]int]bool{}
	var all []string
	for range edges {
		from, to := r.IntN(people), 1+r.IntN(people-1)
		if from == to || seen[[2]int{from, to}] {
			continue
		}
		seen[[2]int{from, to}] = true
		all = append(all, fmt.Sprintf("%c-%c %d/%d", names[from], names[to], amount(), depth()))
	}
	return all
}

// slow works out a belief in another way: it looks at all admissible paths, and
// takes the most that can be sent over them together by trying what each may carry. It knows nothing
// of networks, layers and residues, and takes time that grows with the product of the amounts.
func slow(edges []string, backers []string) int {
	type link struct {
		from, to      string
		amount, depth int
	}
	var links []link
	for _, e := range edges {
		var l link
		fmt.Sscanf(e, "%1s-%1s %d/%d", &l.from, &l.to, &l.amount, &l.depth)
		links = append(links, l)
	}
	var paths [][]int
	var walk func(at string, path []int, been []string)
	walk = func(at string, path []int, been []string) {
		if slices.Contains(backers, at) {
			paths = append(paths, slices.Clone(path))
		}
		for i, l := range links {
			if l.from != at || slices.Contains(been, l.to) {
				continue
			}
			next := append(slices.Clone(path), i)
			admissible := true
			for j, k := range next {
				admissible = admissible && links[k].depth >= len(next)-1-j
			}
			if admissible {
				walk(l.to, next, append(slices.Clone(been), l.to))
			}
		}
	}
	walk("A", nil, []string{"A"})
	// Fewest edges first: what a longer path can do, one of its parts may do as well.
	slices.SortStableFunc(paths, func(a, b []int) int { return len(a) - len(b) })
	left := make([]int, len(links))
	for i, l := range links {
		left[i] = l.amount
	}
	best := 0
	var try func(i, sum int)
	try = func(i, sum int) {
		best = max(best, sum)
		if i == len(paths) || best >= MostBelief {
			return
		}
		room := 0 // what all paths that are left could bring at most
		for _, p := range paths[i:] {
			room += links[p[len(p)-1]].amount
		}
		if sum+room <= best {
			return
		}
		most := MostBelief
		for _, k := range paths[i] {
			most = min(most, left[k])
		}
		for by := most; by >= 0; by-- {
			for _, k := range paths[i] {
				left[k] -= by
			}
			try(i+1, sum+by)
			for _, k := range paths[i] {
				left[k] += by
			}
		}
	}
	try(0, 0)
	return min(best, MostBelief)
}

// TestBeliefAgainstSlow: on random graphs the flow is never more than the maximum, which another
// method finds, and hardly ever less.
func TestBeliefAgainstSlow(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	graphs, less := 0, 0
	for range 3000 {
		people := 3 + r.IntN(4)
		edges := randomGraph(r, people, 2+r.IntN(12), func() int { return 1 + r.IntN(3) }, func() int { return r.IntN(4) })
		var backers []string
		for _, n := range "abcdefghij"[:people-1] {
			if r.IntN(3) == 0 {
				backers = append(backers, string(n))
			}
		}
		if len(backers) == 0 {
			continue
		}
		graphs++
		got, independent := graphOf(t, edges...).believe("", epoch.Unix(), backersOf(backers...))
		want := slow(edges, backers)
		if got > want || independent > len(backers) || (independent > 0) != (got > 0) {
			t.Fatalf("%v in %q: %d by %d, want %d", backers, edges, got, independent, want)
		}
		if got < want {
			less++
			t.Logf("%v in %q: %d, and %d would be the maximum", backers, edges, got, want)
		}
	}
	if t.Logf("%d of %d below the maximum", less, graphs); less*100 > graphs {
		t.Errorf("%d of %d graphs are below the maximum", less, graphs)
	}
}

// TestBeliefIsBounded: whoever is invented behind an edge, and however they vouch for each other and for
// those who are known, all of them together with the one who invented them come to no more than the edge.
func TestBeliefIsBounded(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 2))
	for _, amount := range []uint8{1, 40, 119} {
		f := graphOf(t, "A-a 120/7", "A-b 120/7", "a-c 60/7")
		evil := "https://evil.example/users/0"
		all := []Statement{vouching(person("c"), evil, amount, MaxDepth, 1)}
		invented := []string{evil}
		for i := range 1000 {
			invented = append(invented, fmt.Sprintf("https://evil%d.example/users/x", i%700))
		}
		for i := range 5000 {
			from, to := invented[r.IntN(len(invented))], invented[r.IntN(len(invented))]
			if r.IntN(10) == 0 {
				to = []string{person("A"), person("a"), person("b"), person("c")}[r.IntN(4)]
			}
			if from != to {
				all = append(all, vouching(from, to, MostBelief, MaxDepth, 10+i))
			}
		}
		mergeAll(t, f, all...)
		var backers []backer
		for _, v := range invented {
			backers = append(backers, backer{issuer: v})
		}
		got, independent := f.believe("csam", epoch.Unix(), backers)
		if want := min(int(amount), 60); got != want || independent != 1 {
			t.Errorf("a thousand behind an edge of %d are believed %d and pass for %d", amount, got, independent)
		}
		// Those who are known gain nothing by what is said of them.
		for name, want := range map[string]int{"a": 120, "b": 120, "c": 60} {
			if got, _ := f.believe("csam", epoch.Unix(), backersOf(name)); got != want {
				t.Errorf("%s is believed %d, want %d", name, got, want)
			}
		}
	}
}

// TestBeliefInAnyOrder: no order of arrival matters, and neither does what was asked meanwhile.
func TestBeliefInAnyOrder(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 3))
	for range 200 {
		edges := randomGraph(r, 12, 60, func() int { return 1 + r.IntN(120) }, func() int { return r.IntN(5) })
		var all []Statement
		for i, e := range edges {
			var from, to string
			var amount, depth uint8
			fmt.Sscanf(e, "%1s-%1s %d/%d", &from, &to, &amount, &depth)
			all = append(all, vouching(person(from), person(to), amount, depth, i))
		}
		backers := backersOf("b", "c", "d", "e")[:1+r.IntN(4)]
		var first Belief
		for i := range 4 {
			f := newFold()
			f.own = "https://own.example"
			for j := range all {
				mergeAll(t, f, all[j])
				if i%2 == 1 {
					f.believe("", epoch.Unix(), backers)
				}
			}
			got := f.explainBelief("", epoch.Unix(), backers)
			sum := 0
			for _, v := range got.Flows {
				sum += v.Amount
				for k, e := range v.Path {
					if e.Used > e.Amount || v.Amount > e.Used || e.Depth < len(v.Path)-1-k || k > 0 && v.Path[k-1].To != e.From {
						t.Fatalf("%q: the path %+v", edges, v)
					}
				}
			}
			if sum != got.Amount {
				t.Fatalf("%q: flows of %d together, belief %d", edges, sum, got.Amount)
			}
			if i == 0 {
				first = got
			} else if fmt.Sprint(got) != fmt.Sprint(first) {
				t.Fatalf("%q: %+v, and in another order %+v", edges, first, got)
			}
			r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			r.Shuffle(len(backers), func(i, j int) { backers[i], backers[j] = backers[j], backers[i] })
		}
	}
}

// TestBeliefGrows: one more vouching, and a greater one, never takes belief away on graphs like these.
func TestBeliefGrows(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 4))
	for range 300 {
		edges := randomGraph(r, 10, 40, func() int { return 1 + r.IntN(60) }, func() int { return r.IntN(3) })
		last, f := 0, newFold()
		f.own = "https://own.example"
		for i, e := range edges {
			var from, to string
			var amount, depth uint8
			fmt.Sscanf(e, "%1s-%1s %d/%d", &from, &to, &amount, &depth)
			mergeAll(t, f, vouching(person(from), person(to), amount, depth, i))
			got, _ := f.believe("", epoch.Unix(), backersOf("e", "f"))
			if got < last {
				t.Fatalf("%q: %d, and with %s only %d", edges[:i], last, e, got)
			}
			last = got
		}
	}
}

// TestBeliefAfterChanges: what is taken over change by change comes to what it would from the start,
// for each issuer alone and for several together, whatever is retracted and said anew.
func TestBeliefAfterChanges(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 5))
	everybody := "abcdefghijkl"
	for range 40 {
		f := newFold()
		f.own = "https://own.example"
		var said []Statement
		for i := range 60 {
			if len(said) > 0 && r.IntN(3) == 0 {
				s := said[r.IntN(len(said))]
				s = Statement{ID: fmt.Sprintf("%s-undone-%d", s.ID, i), Issuer: s.Issuer, List: s.List, Kind: Retraction, Published: epoch, Retracts: s.ID}
				f.merge(uint64(i), &s, epoch)
				said = append(said, s)
			} else {
				edge := randomGraph(r, 13, 1, func() int { return 1 + r.IntN(120) }, func() int { return r.IntN(4) })
				if len(edge) == 0 {
					continue
				}
				var from, to string
				var amount, depth uint8
				fmt.Sscanf(edge[0], "%1s-%1s %d/%d", &from, &to, &amount, &depth)
				s := vouching(person(from), person(to), amount, depth, i)
				s.Published = epoch.Add(-time.Duration(r.IntN(5)) * time.Second)
				if r.IntN(4) == 0 {
					s.Labels = []string{"spam"}
				}
				mergeAll(t, f, s)
				said = append(said, s)
			}
			fresh := newFold()
			fresh.own = f.own
			for j := range said {
				if said[j].Kind == Retraction {
					fresh.merge(uint64(j), &said[j], epoch)
				} else {
					mergeAll(t, fresh, said[j])
				}
			}
			for _, label := range []string{"", "spam"} {
				for _, name := range everybody {
					b := backersOf(string(name))
					got, _ := f.believe(label, epoch.Unix(), b)
					if want, _ := fresh.believe(label, epoch.Unix(), b); got != want {
						t.Fatalf("after %d statements %c is believed %d about %q, and %d from the start", len(said), name, got, label, want)
					}
				}
				b := backersOf("c", "d", "e")
				got, _ := f.believe(label, epoch.Unix(), b)
				if want, _ := fresh.believe(label, epoch.Unix(), b); got != want {
					t.Fatalf("after %d statements: %d, and %d from the start", len(said), got, want)
				}
			}
		}
	}
}

// benchmarkFold is a world of 10,000 issuers and 100,000 vouchings, ten from each. The own issuer vouches for 20.
// One in ten edges is of depth 1 to 3, the others say only that somebody is to be believed.
func benchmarkFold(b testing.TB) (*fold, []string) {
	r := rand.New(rand.NewPCG(1, 2))
	issuers := []string{"https://own.example/users/a"}
	for i := 1; i < 10_000; i++ {
		issuers = append(issuers, fmt.Sprintf("https://n%d.example/users/a", i))
	}
	f := newFold()
	f.own = "https://own.example"
	n := 0
	for i, from := range issuers {
		edges := 10
		if i == 0 {
			edges = 20
		}
		for range edges {
			to := issuers[1+r.IntN(len(issuers)-1)]
			if to == from {
				continue
			}
			depth := uint8(0)
			if r.IntN(10) == 0 || i == 0 {
				depth = uint8(1 + r.IntN(3))
			}
			n++
			mergeAll(b, f, vouching(from, to, uint8(20+r.IntN(101)), depth, n))
		}
	}
	return f, issuers
}

// BenchmarkTrust measures what a change of the relationships costs: with "change" one vouching comes and the belief in
// who is vouched for is asked for; with "graph" the edges of a label are read anew; with "everybody" that and the belief in each of 10,000 issuers; with "pair"
// the joint belief in two, which is worked out each time; with "lookup" the belief in one as
// a lookup asks for it.
func BenchmarkTrust(b *testing.B) {
	f, issuers := benchmarkFold(b)
	at := epoch.Unix()
	b.Run("change", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			s := vouching(issuers[1+i%9000], issuers[1+(i*7+13)%9000], 40, 1, 1_000_000+i)
			s.List = "https://own.example/lists/trust"
			if s.Issuer == s.Vouch.Object {
				continue
			}
			f.merge(uint64(1_000_000+i), &s, epoch)
			f.believeOne("", at, &backer{issuer: s.Vouch.Object})
		}
	})
	f, issuers = benchmarkFold(b)
	b.Run("graph", func(b *testing.B) {
		for b.Loop() {
			f.retrust()
			f.graph("", at)
		}
	})
	b.Run("everybody", func(b *testing.B) {
		believed := 0
		for b.Loop() {
			f.retrust()
			believed = 0
			for _, v := range issuers {
				if f.believeOne("", at, &backer{issuer: v}) > 0 {
					believed++
				}
			}
		}
		b.ReportMetric(float64(believed), "believed")
	})
	b.Run("pair", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			f.believe("", at, []backer{{issuer: issuers[i%1000]}, {issuer: issuers[1+i%999]}})
		}
	})
	b.Run("lookup", func(b *testing.B) {
		v := []backer{{issuer: issuers[17]}}
		for b.Loop() {
			f.believe("", at, v)
		}
	})
}
