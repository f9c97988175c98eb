package store_test

import (
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/platform"
	"github.com/tocsin-fed/tocsin/report"
	"github.com/tocsin-fed/tocsin/revisit"
)

func act(id string, s platform.State, made time.Time) platform.Act {
	return platform.Act{
		ID: id, Platform: "ours", Kind: platform.BanPerson, Target: "https://far.example/u/ä", State: s, Soft: true, Made: made, Changed: made.Add(time.Hour),
		Begun: made.Add(time.Second), Tries: 3, Next: made.Add(time.Minute), Note: "ü", Before: []byte(`{"id":"1"}`),
		Finding: platform.Finding{ID: "v1", At: made, Verdict: hashlist.VerdictReject, Labels: []string{"spam"}, Post: "https://far.example/p?a=1&b=<2>"},
		People:  []platform.Decision{{Who: "alice", At: made, What: "approve", Why: "so"}},
	}
}

func address(t *testing.T, url string) revisit.Address {
	h, err := hashlist.ParseHash("sha256:" + strings.Repeat("0a", 32))
	if err != nil {
		t.Fatal(err)
	}
	return revisit.Address{
		URL: url, Post: "https://here.example/post/1", Added: received, State: revisit.Same, Approved: []hashlist.Hash{h}, ETag: `"x"`,
		Checked: received.Add(time.Hour), Next: received.Add(25 * time.Hour), Failures: 1, Told: "gone",
	}
}

func TestActsAreKept(t *testing.T) {
	db, reopen := createSQLite(t)
	ctx := t.Context()
	acts := []platform.Act{act("b", platform.Done, received), act("a", platform.Due, received.Add(time.Second)), act("c", platform.Undone, received.Add(time.Minute))}
	far := address(t, "https://far.example/b.png?x=1")
	sent := report.Sent{Verdict: "v1", Agency: "ncmec", Begun: received, Who: "alice"}
	for _, a := range acts {
		if err := db.SaveAct(ctx, a); err != nil {
			t.Fatal(err)
		}
	}
	acts[1].State = platform.Doing
	for _, err := range []error{
		db.SaveAct(ctx, acts[1]), db.SaveAddress(ctx, far), db.SaveAddress(ctx, address(t, "https://far.example/a.png")), db.SaveReport(ctx, sent),
		db.SaveMark(ctx, "digest", 7, received), db.SaveMark(ctx, "digest", 8, received),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	sent.Number, sent.Sent = "4711", received.Add(time.Hour)
	if err := db.SaveReport(ctx, sent); err != nil {
		t.Fatal(err)
	}
	if was, err := db.DropAddress(ctx, "https://far.example/a.png"); err != nil || !was {
		t.Error(was, err)
	}
	if was, err := db.DropAddress(ctx, "https://far.example/a.png"); err != nil || was {
		t.Error(was, err)
	}
	db.Close()
	db = reopen()
	if err := db.Check(ctx); err != nil {
		t.Error(err)
	}
	gotActs, err1 := db.Acts(ctx)
	gotAddresses, err2 := db.Addresses(ctx)
	gotReports, err3 := db.Reports(ctx)
	position, at, err4 := db.Mark(ctx, "digest")
	none, never, err5 := db.Mark(ctx, "acts")
	for _, err := range []error{err1, err2, err3, err4, err5} {
		if err != nil {
			t.Fatal(err)
		}
	}
	same := gocmp.Comparer(func(a, b hashlist.Hash) bool { return a == b })
	for _, c := range []struct{ got, want any }{
		{gotActs, acts}, {gotAddresses, []revisit.Address{far}}, {gotReports, []report.Sent{sent}},
		{position, uint64(8)}, {at, received}, {none, uint64(0)}, {never, time.Time{}},
	} {
		if d := gocmp.Diff(c.want, c.got, same); d != "" {
			t.Error(d)
		}
	}
	// What rests for long is forgotten, what is under way never.
	if err := db.ForgetActs(ctx, received.Add(time.Hour+2*time.Second)); err != nil {
		t.Fatal(err)
	}
	if got, err := db.Acts(ctx); err != nil || len(got) != 2 || got[0].ID != "a" || got[1].ID != "c" {
		t.Error(got, err)
	}
}

func TestActsRefused(t *testing.T) {
	db, _ := createSQLite(t)
	for name, save := range map[string]func() error{
		"no id":    func() error { return db.SaveAct(t.Context(), act("", platform.Done, received)) },
		"no state": func() error { return db.SaveAct(t.Context(), act("a", 0, received)) },
		"no time":  func() error { return db.SaveAct(t.Context(), act("a", platform.Done, time.Time{})) },
		"too long": func() error {
			a := act("a", platform.Done, received)
			a.Note = strings.Repeat("x", 70_000)
			return db.SaveAct(t.Context(), a)
		},
		"no url":     func() error { return db.SaveAddress(t.Context(), address(t, "")) },
		"no scheme":  func() error { return db.SaveAddress(t.Context(), address(t, "far.example/a.png")) },
		"no verdict": func() error { return db.SaveReport(t.Context(), report.Sent{Agency: "ncmec", Begun: received}) },
		"no name":    func() error { return db.SaveMark(t.Context(), "", 1, received) },
	} {
		if save() == nil {
			t.Errorf("%s: saved", name)
		}
	}
}

// What SQL can change without damage to the file is found.
func TestActsChangedRows(t *testing.T) {
	for _, query := range []string{
		"UPDATE acts SET state = 11", "UPDATE acts SET id = 'x'", "UPDATE acts SET body = CAST(replace(CAST(body AS TEXT), '/u/', '/x/') AS BLOB)", "UPDATE acts SET body = x''",
		"UPDATE revisits SET state = 3", "UPDATE revisits SET url = 'https://mallory.example/'", "UPDATE revisits SET next = 1",
		"UPDATE reports SET number = '1'", "UPDATE marks SET position = position + 1",
	} {
		t.Run(query, func(t *testing.T) {
			db, _ := createSQLite(t)
			for _, err := range []error{
				db.SaveAct(t.Context(), act("a", platform.Doing, received)), db.SaveAddress(t.Context(), address(t, "https://far.example/a.png")),
				db.SaveReport(t.Context(), report.Sent{Verdict: "v1", Agency: "ncmec", Begun: received, Who: "alice"}),
				db.SaveMark(t.Context(), "digest", 7, received),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			if _, err := db.Writer().Exec(query); err != nil {
				t.Fatal(err)
			}
			if err := db.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "restore a backup") {
				t.Error(err)
			}
		})
	}
}
