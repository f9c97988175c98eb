package store_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsin-fed/tocsin/exchange/source"
	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/store"
)

func aSource(name string) source.Source {
	at := time.Date(2026, 11, 1, 12, 0, 0, 1000, time.UTC)
	return source.Source{
		Name: name, URL: "https://lists.example/" + name + ".csv", Format: "mastodon", List: "https://hashes.example/lists/" + name, Every: time.Hour,
		Belief: 40, Most: hashlist.VerdictReject, MaxChanges: 10, MaxShrink: 5, Labels: []string{"a", "b"}, State: source.Active, Created: at, Next: at,
		ETag: `"x"`, Cursor: []byte{0, 255},
	}
}

func TestSources(t *testing.T) {
	eachBackend(t, func(t *testing.T, db *store.DB, reopen func() *store.DB) {
		ctx := t.Context()
		a, b := aSource("a"), aSource("b")
		for _, s := range []source.Source{b, aSource("a"), a} {
			if err := db.SaveSource(ctx, s); err != nil {
				t.Fatal(err)
			}
		}
		for n := uint64(1); n <= 5; n++ {
			if err := db.SaveSourceRun(ctx, source.Run{Source: "a", Number: n, State: source.Applied, Why: "é"}, 3); err != nil {
				t.Fatal(err)
			}
		}
		plan := make([][]byte, 600) // several pages
		for i := range plan {
			plan[i] = fmt.Append(nil, "statement ", i)
		}
		for _, p := range [][][]byte{plan[:3], plan} { // the second in the place of the first
			if err := db.SavePlan(ctx, "a", 5, p); err != nil {
				t.Fatal(err)
			}
		}
		h, _ := hashlist.ParseHash("md5:" + strings.Repeat("a", 32))
		g, _ := hashlist.ParseHash("md5:" + strings.Repeat("b", 32))
		for range 2 {
			if err := db.SaveEntries(ctx, "a", []source.Entry{{Key: "m/1", Hash: h}, {Key: "m/1", Hash: g}, {Key: "m/2", Hash: h}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		db = reopen()
		got, err := db.Sources(ctx)
		if err != nil || !cmp.Equal(got, []source.Source{a, b}) {
			t.Errorf("%v: %s", err, cmp.Diff(got, []source.Source{a, b}))
		}
		runs, err := db.SourceRuns(ctx, "a", 2)
		if err != nil || len(runs) != 2 || runs[0].Number != 5 || runs[1].Number != 4 {
			t.Errorf("runs %v, %v", runs, err)
		}
		if runs, err = db.SourceRuns(ctx, "a", 0); err != nil || len(runs) != 3 || runs[2].Why != "é" {
			t.Errorf("%d runs are kept, %v", len(runs), err)
		}
		read := func() (n int) {
			for b, err := range db.Plan(ctx, "a", 5) {
				if err != nil || string(b) != string(plan[n]) {
					t.Fatalf("statement %d of the plan: %q, %v", n, b, err)
				}
				n++
			}
			return n
		}
		if n := read(); n != len(plan) {
			t.Errorf("%d statements of the plan", n)
		}
		if err := db.DropPlan(ctx, "a", 5); err != nil || read() != 0 {
			t.Errorf("the plan is there after it was dropped: %v", err)
		}
		for key, want := range map[string]int{"m/1": 2, "m/2": 1, "m/3": 0} {
			if found, err := db.Entry(ctx, "a", key); err != nil || len(found) != want {
				t.Errorf("entry %s: %v, %v", key, found, err)
			}
		}
		if found, err := db.Entry(ctx, "b", "m/1"); err != nil || len(found) != 0 {
			t.Errorf("another source's entry: %v, %v", found, err)
		}
		bad := a
		bad.Belief = 121
		if err := db.SaveSource(ctx, bad); err == nil {
			t.Error("a source that is not valid was saved")
		}
	})
}
