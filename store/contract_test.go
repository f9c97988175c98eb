package store_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/store"
)

// A backend makes databases of one kind. What is tested here holds for all.
type backend struct {
	name string
	// create makes an empty database, and returns it with a function that opens
	// it again after a Close.
	create func(*testing.T) (*store.DB, func() *store.DB)
}

var backends = []backend{{"sqlite", createSQLite}}

func createSQLite(t *testing.T) (*store.DB, func() *store.DB) {
	path := filepath.Join(t.TempDir(), "log.db")
	db, err := store.Create(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db, func() *store.DB {
		t.Helper()
		db, err := store.Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		return db
	}
}

func eachBackend(t *testing.T, test func(t *testing.T, db *store.DB, reopen func() *store.DB)) {
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) {
			before := goleak.IgnoreCurrent()
			t.Cleanup(func() { goleak.VerifyNone(t, before) }) // after the databases are closed
			db, reopen := b.create(t)
			test(t, db, reopen)
		})
	}
}

func TestAppendThenAfter(t *testing.T) {
	eachBackend(t, func(t *testing.T, db *store.DB, reopen func() *store.DB) {
		r := seeded(t)
		if got := collect(t, db, 0, hashlist.Selection{}); len(got) != 0 {
			t.Fatalf("an empty log yields %d records", len(got))
		}
		want := statements(t, r, 1300) // several pages
		retraction := hashlist.Record{Received: received, Signed: []byte{0, 255, '\n', 0}, Statement: hashlist.Statement{
			ID: "https://alice.example/statements/r", Issuer: "https://alice.example/users/admin", List: listA,
			Kind: hashlist.Retraction, Published: time.Unix(1_790_000_000, 0).UTC(), Retracts: want[0].Statement.ID, Reason: "tab\tand ünicode",
		}}
		definition := hashlist.Record{Received: received, Signed: []byte("x"), Statement: hashlist.Statement{
			ID: "https://alice.example/statements/d", Issuer: "https://alice.example/users/admin", List: listA,
			Kind: hashlist.DefineList, Published: time.Unix(1_790_000_000, 0).UTC(),
			Definition: &hashlist.Definition{Name: "spam", Summary: "spam", Labels: []string{"spam"},
				Audience: hashlist.Public, Action: hashlist.Reject, Radii: hashlist.DefaultRadii},
		}}
		want = append(want, retraction, definition, statement(t, r, listA, hashlist.MaxHashes))
		for i := range want {
			want[i].Seq = 99 // to be ignored
		}
		var seqs []uint64
		seqs = append(seqs, mustAppend(t, db, want[0])...)
		seqs = append(seqs, mustAppend(t, db, want[1:]...)...)
		for i, seq := range seqs {
			if seq != uint64(i+1) {
				t.Fatalf("record %d has place %d", i, seq)
			}
		}
		for range 2 {
			wantRecords(t, collect(t, db, 0, hashlist.Selection{Signed: true}), want, true)
			wantRecords(t, collect(t, db, 0, hashlist.Selection{}), want, false)
			wantRecords(t, collect(t, db, 700, hashlist.Selection{Signed: true}), want[700:], true)
			last := uint64(len(want))
			wantRecords(t, collect(t, db, last-1, hashlist.Selection{}), want[last-1:], false)
			for _, seq := range []uint64{last, last + 1, 1 << 63, ^uint64(0)} {
				wantRecords(t, collect(t, db, seq, hashlist.Selection{}), nil, false)
			}
			if err := db.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			db = reopen()
		}
		// The next place follows on from before the restart.
		if seqs := mustAppend(t, db, statement(t, r, listB, 1)); seqs[0] != uint64(len(want)+1) {
			t.Fatalf("first place after a restart is %d, want %d", seqs[0], len(want)+1)
		}
	})
}

func TestAfterOfOneList(t *testing.T) {
	eachBackend(t, func(t *testing.T, db *store.DB, _ func() *store.DB) {
		records := statements(t, seeded(t), 1201)
		mustAppend(t, db, records...)
		var want []hashlist.Record
		var places []uint64
		for i, r := range records {
			if r.Statement.List == listB {
				want, places = append(want, r), append(places, uint64(i+1))
			}
		}
		got := collect(t, db, 0, hashlist.Selection{List: listB, Signed: true})
		wantRecords(t, got, want, true)
		for i := range got {
			if got[i].Seq != places[i] {
				t.Fatalf("record %d of the list has place %d, want %d", i, got[i].Seq, places[i])
			}
		}
		wantRecords(t, collect(t, db, places[10], hashlist.Selection{List: listB}), want[11:], false)
		wantRecords(t, collect(t, db, 0, hashlist.Selection{List: "https://nobody.example/lists/none"}), nil, false)
		// A name that is SQL is a name.
		wantRecords(t, collect(t, db, 0, hashlist.Selection{List: "' OR '1'='1"}), nil, false)
	})
}

// A bare pass yields the sequence, and nothing of the bodies.
func TestAfterBare(t *testing.T) {
	eachBackend(t, func(t *testing.T, db *store.DB, _ func() *store.DB) {
		records := statements(t, seeded(t), 1201)
		mustAppend(t, db, records...)
		for _, only := range []hashlist.Selection{
			{Bare: true}, {Bare: true, Signed: true}, {Bare: true, List: listB}, {Bare: true, Signed: true, List: listA},
		} {
			var want []hashlist.Record
			for i, r := range records {
				if s := r.Statement; only.List == "" || s.List == only.List {
					r.Seq, r.Statement = uint64(i+1), hashlist.Statement{ID: s.ID, Issuer: s.Issuer, List: s.List, Kind: s.Kind}
					if !only.Signed {
						r.Signed = nil
					}
					want = append(want, r)
				}
			}
			if diff := cmp.Diff(want, collect(t, db, 0, only), cmp.AllowUnexported(hashlist.Hash{})); diff != "" {
				t.Fatalf("%+v:\n%s", only, diff)
			}
		}
	})
}

func TestFind(t *testing.T) {
	eachBackend(t, func(t *testing.T, db *store.DB, reopen func() *store.DB) {
		records := append(statements(t, seeded(t), 20), hashlist.Record{
			Received: received, Signed: []byte{0, 255}, Statement: hashlist.Statement{
				ID: "https://alice.example/statements/r", Issuer: "https://alice.example/users/admin", List: listA,
				Kind: hashlist.Retraction, Published: time.Unix(1_790_000_000, 0).UTC(), Retracts: "https://alice.example/statements/x",
			},
		})
		find := func(want hashlist.Record, seq uint64) {
			t.Helper()
			got, ok, err := db.Find(t.Context(), want.Statement.ID)
			if err != nil || !ok || got.Seq != seq {
				t.Fatalf("%s: place %d, %v, %v", want.Statement.ID, got.Seq, ok, err)
			}
			wantRecords(t, []hashlist.Record{got}, []hashlist.Record{want}, true)
		}
		for i, r := range records {
			mustAppend(t, db, r)
			find(r, uint64(i+1)) // as soon as it is acknowledged
		}
		for _, id := range []string{
			"", "x", "https://alice.example/statements/none", records[0].Statement.ID + "x", "' OR '1'='1",
			"https://alice.example/\x00", "https://alice.example/\xff", "HTTPS://ALICE.EXAMPLE/statements/r",
		} {
			if r, ok, err := db.Find(t.Context(), id); ok || err != nil {
				t.Errorf("%q was found: %+v, %v", id, r, err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, ok, err := db.Find(ctx, records[0].Statement.ID); ok || !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v, %v", ok, err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if _, ok, err := db.Find(t.Context(), records[0].Statement.ID); ok || err == nil {
			t.Error("a closed database does not have the statement, and does not say that it is closed")
		}
		db = reopen()
		for i, r := range records {
			find(r, uint64(i+1))
		}
	})
}

func TestAppendTwice(t *testing.T) {
	eachBackend(t, func(t *testing.T, db *store.DB, _ func() *store.DB) {
		r := seeded(t)
		a := statements(t, r, 3)
		mustAppend(t, db, a...)
		forged := a[1] // the same id with another content keeps what was first
		forged.Signed = []byte("other")
		forged.Statement.Reason = "other"
		fresh := statement(t, r, listA, 2)
		again := fresh
		again.Signed = []byte("second of the batch")
		seqs := mustAppend(t, db, fresh, forged, again, a[0])
		if want := []uint64{4, 2, 4, 1}; !slices.Equal(seqs, want) {
			t.Fatalf("places %v, want %v", seqs, want)
		}
		wantRecords(t, collect(t, db, 0, hashlist.Selection{Signed: true}), append(a, fresh), true)
		if seqs, err := db.Append(t.Context(), nil); len(seqs) != 0 || err != nil {
			t.Fatalf("an empty batch gave %v, %v", seqs, err)
		}
	})
}

func TestAppendAllOrNone(t *testing.T) {
	eachBackend(t, func(t *testing.T, db *store.DB, _ func() *store.DB) {
		r := seeded(t)
		kept := statements(t, r, 2)
		mustAppend(t, db, kept...)
		for name, spoil := range map[string]func(*hashlist.Record){
			"invalid statement":   func(r *hashlist.Record) { r.Statement.Issuer = "https://mallory.example/users/m" },
			"no hashes":           func(r *hashlist.Record) { r.Statement.Hashes = nil },
			"zero record":         func(r *hashlist.Record) { *r = hashlist.Record{} },
			"no signed bytes":     func(r *hashlist.Record) { r.Signed = nil },
			"long signed bytes":   func(r *hashlist.Record) { r.Signed = make([]byte, store.MaxSigned+1) },
			"no time of receipt":  func(r *hashlist.Record) { r.Received = time.Time{} },
			"statement's own end": func(r *hashlist.Record) { r.Statement.Expires = r.Statement.Published },
		} {
			batch := statements(t, r, 5)
			spoil(&batch[3])
			if _, err := db.Append(t.Context(), batch); err == nil {
				t.Errorf("%s: accepted", name)
			} else if !strings.Contains(err.Error(), "statement 4 of 5") {
				t.Errorf("%s: the error does not say which: %v", name, err)
			}
		}
		longest := statement(t, r, listA, 1)
		longest.Signed = make([]byte, store.MaxSigned)
		mustAppend(t, db, longest)
		wantRecords(t, collect(t, db, 0, hashlist.Selection{Signed: true}), append(kept, longest), true)
	})
}

func TestCancelled(t *testing.T) {
	eachBackend(t, func(t *testing.T, db *store.DB, _ func() *store.DB) {
		r := seeded(t)
		records := statements(t, r, 1100)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := db.Append(ctx, records); !errors.Is(err, context.Canceled) {
			t.Fatalf("append got %v", err)
		}
		// As the contract has it: doing it again settles it.
		mustAppend(t, db, records...)
		wantRecords(t, collect(t, db, 0, hashlist.Selection{}), records, false)

		var got error
		for _, err := range db.After(ctx, 0, hashlist.Selection{}) {
			got = err
		}
		if !errors.Is(got, context.Canceled) {
			t.Fatalf("an iteration under a cancelled context ended with %v", got)
		}
		for _, at := range []int{1, 499, 500, 501} { // within a page and at its edges
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			n, errs := 0, []error(nil)
			for _, err := range db.After(ctx, 0, hashlist.Selection{}) {
				if err != nil {
					errs = append(errs, err)
				} else if n++; n == at {
					cancel()
				}
			}
			if n != at || len(errs) != 1 || !errors.Is(errs[0], context.Canceled) {
				t.Fatalf("cancelled after %d: got %d records and errors %v", at, n, errs)
			}
		}
		// Cancelled at any moment of an Append, each batch is there whole or not at
		// all, and the log goes on without a gap.
		for i := range 30 {
			batch := statements(t, r, 20)
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(r.IntN(3000))*time.Microsecond)
			before := len(collect(t, db, 0, hashlist.Selection{}))
			_, err := db.Append(ctx, batch)
			cancel()
			after := collect(t, db, 0, hashlist.Selection{})
			switch n := len(after) - before; {
			case n != 0 && n != len(batch):
				t.Fatalf("try %d: %d of %d stored (%v)", i, n, len(batch), err)
			case err == nil && n == 0:
				t.Fatalf("try %d: acknowledged and not stored", i)
			}
			if last := after[len(after)-1].Seq; last != uint64(len(after)) {
				t.Fatalf("try %d: %d records end at place %d", i, len(after), last)
			}
		}
	})
}

func TestAfterStopsEarly(t *testing.T) {
	eachBackend(t, func(t *testing.T, db *store.DB, _ func() *store.DB) {
		r := seeded(t)
		records := statements(t, r, 700)
		mustAppend(t, db, records...)
		for range 50 { // many more than there are connections
			for got := range db.After(t.Context(), 0, hashlist.Selection{Signed: true}) {
				if got.Seq == 3 {
					break
				}
			}
		}
		// The consumer may write to the log from within, and does not see it: the
		// end was settled when After was called, not when the iteration began.
		pass := db.After(t.Context(), 0, hashlist.Selection{})
		mustAppend(t, db, statement(t, r, listA, 1))
		for range 2 { // an iteration can be repeated
			n := 0
			for _, err := range pass {
				if err != nil {
					t.Fatal(err)
				}
				if n++; n%100 == 0 {
					mustAppend(t, db, statement(t, r, listA, 1))
				}
			}
			if n != len(records) {
				t.Fatalf("got %d records, want the %d there were", n, len(records))
			}
		}
	})
}

// Many write, one follows with a cursor. What it passes over once it never gets,
// so there must be nothing to pass over.
func TestFollowWhileWriting(t *testing.T) {
	eachBackend(t, func(t *testing.T, db *store.DB, _ func() *store.DB) {
		const writers, batches = 8, 25
		r := seeded(t)
		var work [writers][][]hashlist.Record
		total := 0
		for w := range work {
			for range batches {
				batch := statements(t, r, 1+r.IntN(4))
				total += len(batch)
				work[w] = append(work[w], batch)
			}
		}
		place := make(map[string]uint64) // guarded by mu
		var mu sync.Mutex
		news := make(chan struct{}, 1)
		var wg sync.WaitGroup
		for _, batches := range work {
			wg.Go(func() {
				for _, batch := range batches {
					seqs, err := db.Append(t.Context(), batch)
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					for i, seq := range seqs {
						place[batch[i].Statement.ID] = seq
					}
					mu.Unlock()
					select {
					case news <- struct{}{}:
					default:
					}
				}
			})
		}
		done := make(chan struct{})
		go func() { wg.Wait(); close(done) }()
		var cursor uint64
		seen := make(map[string]uint64)
		follow := func() {
			for got, err := range db.After(t.Context(), cursor, hashlist.Selection{}) {
				if err != nil {
					t.Fatal(err)
				}
				if got.Seq != cursor+1 {
					t.Fatalf("place %d came after %d", got.Seq, cursor)
				}
				cursor = got.Seq
				seen[got.Statement.ID] = got.Seq
			}
		}
		for running := true; running; {
			select {
			case <-news:
			case <-done:
				running = false
			}
			follow()
		}
		if len(seen) != total {
			t.Fatalf("the follower saw %d of %d", len(seen), total)
		}
		if diff := cmp.Diff(place, seen); diff != "" {
			t.Fatalf("places acknowledged and places read differ:\n%s", diff)
		}
	})
}

// Two appends of the same statements at once agree on one place for each.
func TestAppendSameConcurrently(t *testing.T) {
	eachBackend(t, func(t *testing.T, db *store.DB, _ func() *store.DB) {
		batch := statements(t, seeded(t), 40)
		var places [6][]uint64
		var wg sync.WaitGroup
		for i := range places {
			wg.Go(func() {
				var err error
				if places[i], err = db.Append(t.Context(), batch); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for i := range places {
			if !slices.Equal(places[i], places[0]) {
				t.Fatalf("places %v and %v", places[i], places[0])
			}
		}
		wantRecords(t, collect(t, db, 0, hashlist.Selection{Signed: true}), batch, true)
	})
}

func TestTokens(t *testing.T) {
	eachBackend(t, func(t *testing.T, db *store.DB, reopen func() *store.DB) {
		ctx := t.Context()
		if got, err := db.Tokens(ctx); len(got) != 0 || err != nil {
			t.Fatalf("a new database has tokens %v, %v", got, err)
		}
		b := store.Token{Name: "pict-rs", Scope: "lookup", Sum: [32]byte{1}, Created: received}
		a := store.Token{Name: "Anna's laptop", Scope: "admin", Sum: [32]byte{2}, Created: received, Expires: received.Add(time.Hour)}
		for _, tok := range []store.Token{b, a} {
			if err := db.SaveToken(ctx, tok); err != nil {
				t.Fatal(err)
			}
		}
		other := b
		other.Sum, other.Scope = [32]byte{3}, "admin"
		if err := db.SaveToken(ctx, other); !errors.Is(err, store.ErrExists) {
			t.Fatalf("a second token of the name: %v", err)
		}
		twin := b
		twin.Name = "twin"
		if err := db.SaveToken(ctx, twin); err == nil || errors.Is(err, store.ErrExists) {
			t.Fatalf("two names for one secret: %v", err)
		}
		for name, bad := range map[string]store.Token{
			"no name":    {Scope: "lookup", Sum: [32]byte{9}, Created: received},
			"no scope":   {Name: "x", Sum: [32]byte{9}, Created: received},
			"no sum":     {Name: "x", Scope: "lookup", Created: received},
			"no time":    {Name: "x", Scope: "lookup", Sum: [32]byte{9}},
			"long name":  {Name: strings.Repeat("x", 65), Scope: "lookup", Sum: [32]byte{9}, Created: received},
			"line break": {Name: "x\ny", Scope: "lookup", Sum: [32]byte{9}, Created: received},
			"not UTF-8":  {Name: "x\xff", Scope: "lookup", Sum: [32]byte{9}, Created: received},
		} {
			if err := db.SaveToken(ctx, bad); err == nil {
				t.Errorf("%s: accepted", name)
			}
		}
		db.Close()
		db = reopen()
		got, err := db.Tokens(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]store.Token{a, b}, got); diff != "" {
			t.Fatal(diff)
		}
		if err := db.DeleteToken(ctx, "pict-rs"); err != nil {
			t.Fatal(err)
		}
		if err := db.DeleteToken(ctx, "pict-rs"); !errors.Is(err, store.ErrNotFound) {
			t.Fatalf("deleted twice: %v", err)
		}
		if got, _ := db.Tokens(ctx); len(got) != 1 || got[0] != a {
			t.Fatalf("left over: %v", got)
		}
	})
}

func TestClosed(t *testing.T) {
	eachBackend(t, func(t *testing.T, db *store.DB, _ func() *store.DB) {
		r := seeded(t)
		mustAppend(t, db, statements(t, r, 600)...)
		var got error
		for _, err := range db.After(t.Context(), 0, hashlist.Selection{}) {
			if err != nil {
				got = err
			}
			db.Close() // within an iteration, and again and again
		}
		if got == nil {
			t.Fatal("an iteration over a closed database ended as if it were complete")
		}
		if _, err := db.Append(t.Context(), statements(t, r, 1)); err == nil {
			t.Fatal("a closed database accepted a statement")
		}
	})
}
