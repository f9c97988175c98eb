package store_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/store"
)

func TestLettersRoundTrip(t *testing.T) {
	eachBackend(t, func(t *testing.T, db *store.DB, reopen func() *store.DB) {
		want := []federation.Letter{
			{Statement: listA + "/1", To: issuerA, About: listB + "/1", Since: received},
			{
				Statement: listA + "/1", To: issuerB, About: listB + "/1", Since: received, Taken: received.Add(time.Hour), GivenUp: true,
				Failures: 7, Trouble: longTrouble, Answer: listB + "/2", Withdrawn: true,
			},
			{Statement: listB + "/9", To: issuerA, About: listA + "/1", Since: received},
		}
		for _, l := range slices.Backward(want) {
			if err := db.SaveLetter(t.Context(), l); err != nil {
				t.Fatal(err)
			}
		}
		want[0].Failures, want[0].Trouble = 1, "x"
		if err := db.SaveLetter(t.Context(), want[0]); err != nil { // over the one that is there
			t.Fatal(err)
		}
		for range 2 {
			got, err := db.Letters(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if diff := gocmp.Diff(want, got); diff != "" {
				t.Fatalf("want -, got +:\n%s", diff)
			}
			if err := db.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			db = reopen()
		}
		for name, spoil := range map[string]func(*federation.Letter){
			"statement": func(l *federation.Letter) { l.Statement = "x" },
			"recipient": func(l *federation.Letter) { l.To = "" },
			"about":     func(l *federation.Letter) { l.About = "mailto:x" },
			"answer":    func(l *federation.Letter) { l.Answer = "x" },
			"since":     func(l *federation.Letter) { l.Since = time.Time{} },
			"trouble":   func(l *federation.Letter) { l.Trouble = strings.Repeat("x", 1001) },
		} {
			bad := want[0]
			spoil(&bad)
			if err := db.SaveLetter(t.Context(), bad); err == nil {
				t.Errorf("%s: it was saved", name)
			}
		}
	})
}
