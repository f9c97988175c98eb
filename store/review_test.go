package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/store"
)

// review has every field of an open item filled.
func review(id string, kind hashlist.ReviewKind) hashlist.Review {
	return hashlist.Review{
		ID: id, Kind: kind, State: hashlist.ReviewOpen, At: received, Last: received.Add(time.Minute), Count: 3, Deadline: received.Add(time.Hour),
		Verdict: "v1", Statement: listA + "/x", List: listA, Issuer: issuerA,
		Reference: hashlist.Reference{URL: strings.Repeat("u", hashlist.MaxReference), Alias: "a b.png", Post: "17", Actor: "https://ä.example/@m"},
		Distance:  12, Algorithm: "pdq", Summary: "two\nlines", Body: bytes.Repeat([]byte{0, 255}, 100),
	}
}

func mustAddReview(t testing.TB, db hashlist.Reviews, r hashlist.Review) {
	t.Helper()
	if added, err := db.AddReview(t.Context(), r); err != nil || !added {
		t.Fatalf("added %v: %v", added, err)
	}
}

func wantReview(t testing.TB, db hashlist.Reviews, want hashlist.Review) {
	t.Helper()
	got, ok, err := db.FindReview(t.Context(), want.ID)
	if err != nil || !ok {
		t.Fatalf("found %v: %v", ok, err)
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Fatalf("want -, got +:\n%s", diff)
	}
}

func decision(what hashlist.ReviewChoice) hashlist.ReviewDecision {
	return hashlist.ReviewDecision{Who: "alice <ops>", When: received.Add(time.Hour), What: what, Why: "because & \"why\"", Statements: []string{"https://a.example/statements/x"}}
}

func TestReviewsRoundTrip(t *testing.T) {
	eachBackend(t, func(t *testing.T, db *store.DB, reopen func() *store.DB) {
		if _, ok, err := db.FindReview(t.Context(), "x"); ok || err != nil {
			t.Fatalf("found %v: %v", ok, err)
		}
		want := review("held-1", hashlist.ReviewHeld)
		mustAddReview(t, db, want)
		want.Seq = 1
		wantReview(t, db, want)
		// The same thing asked twice waits once, and is not changed by it.
		again := review("held-1", hashlist.ReviewKey)
		again.Summary = "other"
		if added, err := db.AddReview(t.Context(), again); added || err != nil {
			t.Fatalf("added %v: %v", added, err)
		}
		wantReview(t, db, want)
		if _, err := db.ChangeReview(t.Context(), "held-1", func(r *hashlist.Review) error {
			r.Seq, r.ID, r.Kind = 9, "other", hashlist.ReviewKey // stay
			r.State, r.Decisions = hashlist.ReviewDecided, []hashlist.ReviewDecision{decision(hashlist.ChooseAllow)}
			r.Settled = received.Add(time.Hour)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		want.State, want.Decisions, want.Settled = hashlist.ReviewDecided, []hashlist.ReviewDecision{decision(hashlist.ChooseAllow)}, received.Add(time.Hour)
		wantReview(t, db, want)
		if err := errors.Join(db.Check(t.Context()), db.Close()); err != nil {
			t.Fatal(err)
		}
		db = reopen()
		wantReview(t, db, want)
		// Least of all: what is not given is made up.
		mustAddReview(t, db, hashlist.Review{ID: "k", Kind: hashlist.ReviewKey})
		least, _, err := db.FindReview(t.Context(), "k")
		if err != nil || least.Seq != 2 || least.State != hashlist.ReviewOpen || least.Count != 1 || least.At.IsZero() || !least.Last.Equal(least.At) {
			t.Fatalf("got %+v, %v", least, err)
		}
	})
}

func TestReviewsAreSelected(t *testing.T) {
	eachBackend(t, func(t *testing.T, db *store.DB, _ func() *store.DB) {
		kinds := []hashlist.ReviewKind{hashlist.ReviewHeld, hashlist.ReviewDispute, hashlist.ReviewHeld, hashlist.ReviewKey}
		for i, k := range kinds {
			mustAddReview(t, db, review(fmt.Sprint("r", i+1), k))
		}
		if _, err := db.ChangeReview(t.Context(), "r3", func(r *hashlist.Review) error { r.State = hashlist.ReviewClosed; return nil }); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			only hashlist.ReviewSelection
			want string
		}{
			{hashlist.ReviewSelection{}, "r1 r2 r3 r4"},
			{hashlist.ReviewSelection{Kinds: []hashlist.ReviewKind{hashlist.ReviewHeld}}, "r1 r3"},
			{hashlist.ReviewSelection{Kinds: []hashlist.ReviewKind{hashlist.ReviewHeld, hashlist.ReviewKey}, States: []hashlist.ReviewState{hashlist.ReviewOpen, hashlist.ReviewProposed}}, "r1 r4"},
			{hashlist.ReviewSelection{After: 2}, "r3 r4"},
			{hashlist.ReviewSelection{After: 1, Limit: 2}, "r2 r3"},
			{hashlist.ReviewSelection{States: []hashlist.ReviewState{hashlist.ReviewDecided}}, ""},
			{hashlist.ReviewSelection{After: 1 << 63}, ""},
		} {
			all, err := db.Reviews(t.Context(), c.only)
			if err != nil {
				t.Fatal(err)
			}
			var ids []string
			for _, r := range all {
				ids = append(ids, r.ID)
				if r.Body != nil {
					t.Errorf("%s came with its body", r.ID)
				}
			}
			if got := strings.Join(ids, " "); got != c.want {
				t.Errorf("%+v: got %q, want %q", c.only, got, c.want)
			}
		}
	})
}

func TestReviewsRefuse(t *testing.T) {
	eachBackend(t, func(t *testing.T, db *store.DB, _ func() *store.DB) {
		for name, spoil := range map[string]func(*hashlist.Review){
			"no id":          func(r *hashlist.Review) { r.ID = "" },
			"id":             func(r *hashlist.Review) { r.ID = "A b" },
			"hyphen":         func(r *hashlist.Review) { r.ID = "a-" },
			"long id":        func(r *hashlist.Review) { r.ID = strings.Repeat("a", 129) },
			"kind":           func(r *hashlist.Review) { r.Kind = 99 },
			"state":          func(r *hashlist.Review) { r.State = 5 },
			"nobody":         func(r *hashlist.Review) { r.State = hashlist.ReviewDecided },
			"last before":    func(r *hashlist.Review) { r.Last = r.At.Add(-time.Second) },
			"distance":       func(r *hashlist.Review) { r.Distance = 257 },
			"reference":      func(r *hashlist.Review) { r.Reference.Post += strings.Repeat("x", 2048) },
			"not text":       func(r *hashlist.Review) { r.Reference.Actor = "\xff" },
			"zero byte":      func(r *hashlist.Review) { r.Verdict = "a\x00b" },
			"summary":        func(r *hashlist.Review) { r.Summary = strings.Repeat("x", hashlist.MaxReason+1) },
			"control":        func(r *hashlist.Review) { r.Summary = "\x1b[31m" },
			"body":           func(r *hashlist.Review) { r.Body = make([]byte, hashlist.MaxReviewBody+1) },
			"year":           func(r *hashlist.Review) { r.Deadline = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
			"decision":       func(r *hashlist.Review) { r.Decisions = []hashlist.ReviewDecision{decision(0)} },
			"nobody's":       func(r *hashlist.Review) { d := decision(1); d.Who = ""; r.Decisions = append(r.Decisions, d) },
			"reason":         func(r *hashlist.Review) { d := decision(1); d.Why = "\xff"; r.Decisions = append(r.Decisions, d) },
			"many decisions": func(r *hashlist.Review) { r.Decisions = make([]hashlist.ReviewDecision, hashlist.MaxDecisions+1) },
			"year of decision": func(r *hashlist.Review) {
				d := decision(1)
				d.When = d.When.AddDate(9000, 0, 0)
				r.Decisions = append(r.Decisions, d)
			},
		} {
			bad := review("r", hashlist.ReviewHeld)
			spoil(&bad)
			if added, err := db.AddReview(t.Context(), bad); added || err == nil {
				t.Errorf("%s: added %v, %v", name, added, err)
			}
		}
		if _, err := db.ChangeReview(t.Context(), "r", func(*hashlist.Review) error { return nil }); !errors.Is(err, hashlist.ErrNoReview) {
			t.Error(err)
		}
		mustAddReview(t, db, review("r", hashlist.ReviewHeld))
		no := errors.New("no")
		if _, err := db.ChangeReview(t.Context(), "r", func(r *hashlist.Review) error { r.Summary = "x"; return no }); !errors.Is(err, no) {
			t.Error(err)
		}
		if _, err := db.ChangeReview(t.Context(), "r", func(r *hashlist.Review) error { r.Distance = -1; return nil }); err == nil {
			t.Error("what is not allowed was stored")
		}
		want := review("r", hashlist.ReviewHeld)
		want.Seq = 1
		wantReview(t, db, want)
	})
}

// A flood of one kind neither grows without end nor shuts out the others.
func TestReviewsAreBounded(t *testing.T) {
	eachBackend(t, func(t *testing.T, db *store.DB, _ func() *store.DB) {
		for i := range hashlist.MaxOpenReviews {
			mustAddReview(t, db, hashlist.Review{ID: fmt.Sprint("d", i), Kind: hashlist.ReviewDispute})
		}
		if _, err := db.AddReview(t.Context(), hashlist.Review{ID: "more", Kind: hashlist.ReviewDispute}); !errors.Is(err, hashlist.ErrReviewsFull) {
			t.Fatal(err)
		}
		if added, err := db.AddReview(t.Context(), hashlist.Review{ID: "d7", Kind: hashlist.ReviewDispute}); added || err != nil {
			t.Fatalf("what waits already: added %v, %v", added, err)
		}
		mustAddReview(t, db, hashlist.Review{ID: "k", Kind: hashlist.ReviewKey})
		if _, err := db.ChangeReview(t.Context(), "d0", func(r *hashlist.Review) error { r.State = hashlist.ReviewClosed; return nil }); err != nil {
			t.Fatal(err)
		}
		mustAddReview(t, db, hashlist.Review{ID: "more", Kind: hashlist.ReviewDispute})
	})
}

func TestReviewsAreDropped(t *testing.T) {
	eachBackend(t, func(t *testing.T, db *store.DB, reopen func() *store.DB) {
		for i, s := range []hashlist.ReviewState{hashlist.ReviewOpen, hashlist.ReviewProposed, hashlist.ReviewDecided, hashlist.ReviewClosed, hashlist.ReviewClosed} {
			id := fmt.Sprint("r", i)
			mustAddReview(t, db, review(id, hashlist.ReviewHeld))
			if _, err := db.ChangeReview(t.Context(), id, func(r *hashlist.Review) error {
				r.State, r.Decisions = s, []hashlist.ReviewDecision{decision(hashlist.ChooseKeep)}
				r.Settled = received.Add(time.Duration(i) * time.Hour)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		if n, err := db.DropReviews(t.Context(), received.Add(4*time.Hour)); n != 2 || err != nil {
			t.Fatalf("dropped %d, %v", n, err)
		}
		all, err := db.Reviews(t.Context(), hashlist.ReviewSelection{})
		if err != nil || len(all) != 3 || all[2].ID != "r4" {
			t.Fatalf("left %d, %v", len(all), err)
		}
		// Places are not given again, also not that of the last.
		if n, err := db.DropReviews(t.Context(), received.Add(time.Hour*9)); n != 1 || err != nil {
			t.Fatalf("dropped %d, %v", n, err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		db = reopen()
		mustAddReview(t, db, review("new", hashlist.ReviewHeld))
		if r, _, err := db.FindReview(t.Context(), "new"); r.Seq != 6 || err != nil {
			t.Fatalf("place %d, %v", r.Seq, err)
		}
	})
}

func TestReviewsAreWaitedFor(t *testing.T) {
	eachBackend(t, func(t *testing.T, db *store.DB, reopen func() *store.DB) {
		var waiting sync.WaitGroup
		for range 3 {
			waiting.Go(func() {
				if err := db.WaitReviews(t.Context(), 0); err != nil {
					t.Error(err)
				}
			})
		}
		mustAddReview(t, db, review("r", hashlist.ReviewHeld))
		waiting.Wait()
		if err := db.WaitReviews(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		ended, end := context.WithCancel(t.Context())
		end()
		if err := db.WaitReviews(ended, 1); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if err := reopen().WaitReviews(t.Context(), 0); err != nil { // what came before the start
			t.Fatal(err)
		}
	})
}

// Two who decide at once do not overwrite each other.
func TestReviewsChangeOneByOne(t *testing.T) {
	eachBackend(t, func(t *testing.T, db *store.DB, _ func() *store.DB) {
		mustAddReview(t, db, hashlist.Review{ID: "r", Kind: hashlist.ReviewHeld})
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for range 10 {
					if _, err := db.ChangeReview(t.Context(), "r", func(r *hashlist.Review) error { r.Count++; return nil }); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		if r, _, err := db.FindReview(t.Context(), "r"); r.Count != 41 || err != nil {
			t.Fatalf("count %d, %v", r.Count, err)
		}
	})
}

// What decays or is meddled with is found out, and is not decided on.
func TestReviewsDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.db")
	db, err := store.Create(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	mustAddReview(t, db, review("r", hashlist.ReviewHeld))
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, query := range []string{
		"UPDATE reviews SET state = 3",
		"UPDATE reviews SET kind = 2",
		"UPDATE reviews SET body = x'00'",
		"UPDATE reviews SET body = zeroblob(5000000)",
		"UPDATE reviews SET decisions = CAST('[{\"Who\":\"m\",\"What\":4}]' AS BLOB)",
		"UPDATE reviews SET decisions = CAST('nonsense' AS BLOB)",
		"UPDATE reviews SET statement = 'https://mallory.example/statements/x'",
		"UPDATE reviews SET count = -1",
		"UPDATE reviews SET sum = sum + 1",
	} {
		t.Run(query, func(t *testing.T) {
			copied := filepath.Join(t.TempDir(), "log.db")
			write(t, copied, good)
			raw(t, copied, query)
			db, err := store.Open(t.Context(), copied)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			_, _, find := db.FindReview(t.Context(), "r")
			_, change := db.ChangeReview(t.Context(), "r", func(*hashlist.Review) error { return nil })
			for _, err := range []error{db.Check(t.Context()), find, change} {
				if err == nil || !strings.Contains(err.Error(), "restore a backup") {
					t.Errorf("got %v", err)
				}
			}
		})
	}
}
