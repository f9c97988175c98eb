package hashlist

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// graphOf makes a fold of people who vouch for each other, as in "a-b 120/1", which says that a
// vouches for b with 120 and depth 1. Those whose names begin with a capital
// are this node's issuers; everybody else has a server of their own.
func graphOf(t testing.TB, edges ...string) *fold {
	t.Helper()
	f := newFold()
	f.own = "https://own.example"
	for i, e := range edges {
		var from, to string
		var amount, depth uint8
		if _, err := fmt.Sscanf(e, "%1s-%1s %d/%d", &from, &to, &amount, &depth); err != nil {
			t.Fatalf("%s: %v", e, err)
		}
		s := vouching(person(from), person(to), amount, depth, i)
		mergeAll(t, f, s)
	}
	return f
}

func person(name string) string {
	if name >= "A" && name <= "Z" {
		return "https://own.example/users/" + name
	}
	return "https://" + name + ".example/users/" + name
}

// vouching is a statement on a list that is defined and relied on.
func vouching(from, to string, amount, depth uint8, n int) Statement {
	o, _ := Origin(from)
	return Statement{
		ID: fmt.Sprintf("%s/statements/%d", o, n), Issuer: from, List: o + "/lists/trust", Kind: Vouch, Published: epoch,
		Vouch: &Vouching{Object: to, Amount: amount, Depth: depth},
	}
}

// mergeAll merges statements of lists that are defined as they come up.
func mergeAll(t testing.TB, f *fold, all ...Statement) {
	t.Helper()
	for i := range all {
		s := &all[i]
		if l := f.list(s.List); l.current == nil {
			f.rely(s.List, true)
			f.merge(uint64(len(f.stmts)+1), &Statement{
				ID: s.List + "/definition", Issuer: s.Issuer, List: s.List, Kind: DefineList, Published: epoch,
				Definition: &Definition{Name: "trust", Audience: Public, Action: Filter, Radii: DefaultRadii},
			}, epoch)
		}
		if err := s.Validate(); err != nil {
			t.Fatal(err)
		}
		f.merge(uint64(len(f.stmts)+1), s, epoch)
	}
}

func backersOf(names ...string) (all []backer) {
	for _, n := range names {
		all = append(all, backer{issuer: person(n)})
	}
	return all
}

// TestBelief: small worlds whose answers can be seen.
func TestBelief(t *testing.T) {
	for _, c := range []struct {
		name        string
		edges       []string
		backers     []backer
		amount      int
		independent int
	}{
		{"nobody", nil, backersOf("x"), 0, 0},
		{"an own issuer", nil, backersOf("A"), 120, 1},
		{"vouched for", []string{"A-x 40/0"}, backersOf("x"), 40, 1},
		{"not through who is only believed", []string{"A-b 120/0", "b-x 120/0"}, backersOf("x"), 0, 0},
		{"through one", []string{"A-b 120/1", "b-x 80/0"}, backersOf("x"), 80, 1},
		{"not through two", []string{"A-b 120/1", "b-c 120/1", "c-x 120/0"}, backersOf("x"), 0, 0},
		{"two marginal ones", []string{"A-b 40/0", "A-c 40/0"}, backersOf("b", "c"), 80, 2},
		{"four marginal ones", []string{"A-b 40/0", "A-c 40/0", "A-d 40/0", "A-e 40/0"}, backersOf("b", "c", "d", "e"), 120, 4},
		{"two who share an edge", []string{"A-b 40/1", "b-x 120/0", "b-y 120/0"}, backersOf("x", "y"), 40, 1},
		{"one and who introduced it", []string{"A-b 80/1", "b-x 120/0"}, backersOf("b", "x"), 80, 1},
		{"two roots", []string{"A-x 40/0", "B-x 40/0"}, backersOf("x"), 80, 1},
		{"a root of whom others speak", []string{"x-A 40/0"}, backersOf("A"), 120, 1},
		{"itself, in a circle", []string{"x-y 120/7", "y-x 120/7"}, backersOf("x", "y"), 0, 0},
		{"said twice", []string{"A-x 40/0", "A-x 40/0"}, backersOf("x"), 40, 1},
		{"a later path sends the first another way", []string{
			"A-b 40/3", "A-c 40/3", "b-x 40/0", "b-c 40/2", "c-y 40/1", "y-x 40/0",
		}, backersOf("x"), 80, 1},
		{"depth is what the way there left", []string{"A-a 10/5", "A-b 120/1", "b-a 120/5", "a-x 120/0"}, backersOf("x"), 10, 1},
		{"followed", nil, []backer{{person("x"), 80}}, 80, 1},
		{"followed and vouched for", []string{"A-x 40/0"}, []backer{{person("x"), 80}}, 80, 1},
		{"followed, and more vouched for", []string{"A-x 120/0"}, []backer{{person("x"), 80}}, 120, 1},
		{"followed, and introduced by another", []string{"A-b 40/1", "b-x 40/0"}, []backer{{person("x"), 40}}, 80, 1},
		{"many of one server that is followed", nil, []backer{
			{"https://x.example/users/1", 40}, {"https://x.example/users/2", 40}, {"https://x.example/users/3", 40}}, 40, 1},
		{"of two servers that are followed", nil, []backer{{person("x"), 40}, {person("y"), 40}}, 80, 2},
		{"the same one twice", nil, []backer{{person("x"), 40}, {person("x"), 80}}, 80, 1},
	} {
		f := graphOf(t, c.edges...)
		for range 2 { // the second time from memory
			amount, independent := f.believe("csam", epoch.Unix(), c.backers)
			if amount != c.amount || independent != c.independent {
				t.Errorf("%s: %d by %d, want %d by %d", c.name, amount, independent, c.amount, c.independent)
			}
		}
		slices.Reverse(c.backers)
		if amount, independent := f.believe("csam", epoch.Unix(), c.backers); amount != c.amount || independent != c.independent {
			t.Errorf("%s, the other way round: %d by %d, want %d by %d", c.name, amount, independent, c.amount, c.independent)
		}
	}
}

// TestBeliefWhen: labels, from and until are respected at the time that is asked about,
// whatever was asked before.
func TestBeliefWhen(t *testing.T) {
	f := newFold()
	f.own = "https://own.example"
	at := func(s int) time.Time { return epoch.Add(time.Duration(s) * time.Second) }
	csam := vouching(person("A"), person("x"), 120, 0, 1)
	csam.Labels, csam.Expires, csam.Vouch.From = []string{"csam", "gore"}, at(20), at(10)
	later := vouching(person("A"), person("x"), 40, 0, 2)
	later.Published, later.Labels = at(15), []string{"csam"}
	all := vouching(person("A"), person("x"), 60, 0, 3)
	all.Published, all.Vouch.From = at(1), at(30)
	mergeAll(t, f, csam, later, all)
	for range 3 {
		for _, c := range []struct {
			label string
			at    int
			want  int
		}{
			{"csam", 9, 0}, {"csam", 10, 120}, {"csam", 14, 120}, {"csam", 15, 40}, {"csam", 19, 40}, {"csam", 29, 40}, {"csam", 30, 40},
			{"gore", 9, 0}, {"gore", 10, 120}, {"gore", 19, 120}, {"gore", 20, 0}, {"gore", 30, 60},
			{"spam", 29, 0}, {"spam", 30, 60}, {"", 15, 0}, {"", 40, 60},
		} {
			if got, _ := f.believe(c.label, at(c.at).Unix(), backersOf("x")); got != c.want {
				t.Errorf("%q at %d: %d, want %d", c.label, c.at, got, c.want)
			}
		}
	}
}
