package exchange

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/tocsin-fed/tocsin/hashlist"
)

func server(n int, action hashlist.Action) Row {
	return Row{Subject: fmt.Sprintf("s%d.example", n), Quality: -1, Action: action}
}

func servers(from, to int) (rows []Row) {
	for n := from; n < to; n++ {
		rows = append(rows, server(n, hashlist.Drop))
	}
	return rows
}

func TestCompare(t *testing.T) {
	withdrawn := func(rows ...Row) []Row {
		for i := range rows {
			rows[i].Withdrawn = true
		}
		return rows
	}
	keyed := servers(0, 10)
	for i := range keyed {
		keyed[i].Key = fmt.Sprint("k", i)
	}
	for _, c := range []struct {
		name      string
		old, read []Row
		limits    Limits
		want      string // added, changed, retracted, same, unknown, held
	}{
		{"the same", servers(0, 10), servers(0, 10), Limits{Form: Snapshot}, "0 0 0 10 0 "},
		{"new and changed", servers(0, 10), append(servers(1, 12), server(0, hashlist.Filter)), Limits{Form: Snapshot}, "2 1 0 9 0 "},
		{"absent from a listing", servers(0, 10), servers(1, 10), Limits{}, "0 0 0 10 0 "},
		{"absent from changes", servers(0, 10), servers(20, 21), Limits{Form: Changes}, "1 0 0 10 0 "},
		{"absent from a snapshot", servers(0, 10), servers(1, 10), Limits{Form: Snapshot}, "0 0 1 9 0 "},
		{"empty snapshot", servers(0, 10), nil, Limits{Form: Snapshot}, "0 0 10 0 0 it came back empty, and 10 were on it"},
		{"empty listing", servers(0, 10), nil, Limits{}, "0 0 0 10 0 it came back empty, and 10 were on it"},
		{"no changes", servers(0, 10), nil, Limits{Form: Changes}, "0 0 0 10 0 "},
		{"half a snapshot", servers(0, 10), servers(0, 5), Limits{Form: Snapshot}, "0 0 5 5 0 5 of 10 that were on it are gone, more than 33 %"},
		{"half a listing", servers(0, 10), servers(0, 5), Limits{}, "0 0 0 10 0 5 of 10 that were on it are gone, more than 33 %"},
		{"half, and that is fine", servers(0, 10), servers(0, 5), Limits{Form: Snapshot, Shrink: 0.5}, "0 0 5 5 0 "},
		{"another list altogether", servers(0, 10), servers(50, 90), Limits{Form: Snapshot}, "40 0 10 0 0 10 of 10 that were on it are gone, more than 33 %"},
		{"ten times as long", servers(0, 10), servers(0, 100), Limits{Form: Snapshot, Most: 50}, "90 0 0 10 0 it would change 90, more than 50"},
		{"first time", nil, servers(0, 3), Limits{Form: Snapshot}, "3 0 0 0 0 "},
		{"nothing, the first time", nil, nil, Limits{Form: Snapshot}, "0 0 0 0 0 "},
		{"taken back", servers(0, 10), withdrawn(servers(8, 11)...), Limits{Form: Changes}, "0 0 2 8 1 "},
		{"all taken back", servers(0, 10), withdrawn(servers(0, 10)...), Limits{Form: Changes}, "0 0 10 0 0 10 of 10 that were on it are gone, more than 33 %"},
		{"taken back and listed again", servers(0, 10), append(withdrawn(servers(0, 5)...), servers(0, 5)...), Limits{Form: Changes}, "0 0 0 10 0 "},
		{"listed and taken back", servers(0, 10), append(servers(20, 21), withdrawn(servers(20, 21)...)...), Limits{Form: Changes}, "0 0 0 10 1 "},
		{"taken back by key", keyed, []Row{{Key: "k3", Withdrawn: true}, {Key: "k99", Withdrawn: true}}, Limits{Form: Changes}, "0 0 1 9 1 "},
		{"the last counts", servers(0, 1), []Row{server(0, hashlist.Filter), server(0, hashlist.Drop)}, Limits{}, "0 0 0 1 0 "},
	} {
		p := Compare(c.old, c.read, c.limits)
		if got := fmt.Sprint(len(p.Added), len(p.Changed), len(p.Retracted), p.Same, p.Unknown, " ", p.Held); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// TestCompareComesOut does what a plan says and finds the list saying what was read.
func TestCompareComesOut(t *testing.T) {
	row := rapid.Custom(func(t *rapid.T) Row {
		r := server(rapid.IntRange(0, 9).Draw(t, "server"), hashlist.Action(rapid.IntRange(2, 4).Draw(t, "action")))
		r.Withdrawn = rapid.IntRange(0, 3).Draw(t, "withdrawn") == 0
		return r
	})
	rapid.Check(t, func(t *rapid.T) {
		read := rapid.SliceOfN(row, 0, 20).Draw(t, "read")
		var old []Row
		for n := range 10 {
			if rapid.Bool().Draw(t, "listed") {
				old = append(old, server(n, hashlist.Action(rapid.IntRange(2, 4).Draw(t, "old action"))))
			}
		}
		form := Form(rapid.IntRange(0, 2).Draw(t, "form"))
		want := folded(old)
		if form == Snapshot {
			clear(want)
		}
		for _, r := range read {
			if r.Withdrawn {
				delete(want, r.Subject)
			} else {
				want[r.Subject] = folded([]Row{r})[r.Subject]
			}
		}
		p := Compare(old, read, Limits{Form: form})
		got := folded(old)
		for _, r := range p.Retracted {
			delete(got, r.Subject)
		}
		for _, c := range p.Changed {
			if got[c.Old.Subject] != folded([]Row{c.Old})[c.Old.Subject] || c.Old.Subject != c.New.Subject {
				t.Fatalf("it changes what is not there: %+v", c)
			}
			got[c.New.Subject] = folded([]Row{c.New})[c.New.Subject]
		}
		for _, r := range p.Added {
			if _, there := got[r.Subject]; there {
				t.Fatalf("it adds what is there: %+v", r)
			}
			got[r.Subject] = folded([]Row{r})[r.Subject]
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("%v: %v, want %v\nplan %+v", form, got, want, p)
		}
	})
}
