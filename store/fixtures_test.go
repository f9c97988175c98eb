package store_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/store"
)

const listA, listB = "https://alice.example/lists/spam", "https://bob.example/lists/gore"

// received has a fraction to lose if microseconds are not kept.
var received = time.Date(2026, 11, 22, 10, 11, 12, 345678000, time.UTC)

// statement makes the record of a valid statement of so many PDQ hashes, with
// signed bytes of the length that such a statement has in JSON.
func statement(t testing.TB, r *rand.Rand, list string, hashes int) hashlist.Record {
	t.Helper()
	origin, err := hashlist.Origin(list)
	if err != nil {
		t.Fatal(err)
	}
	s := hashlist.Statement{
		ID:        fmt.Sprintf("%s/statements/%016x%016x", origin, r.Uint64(), r.Uint64()),
		Issuer:    origin + "/users/admin",
		List:      list,
		Kind:      hashlist.AddHashes,
		Published: time.Unix(1_790_000_000+r.Int64N(1e6), 0).UTC(),
		Labels:    []string{"gore", "spam"},
		Action:    hashlist.Reject,
		Reason:    "made for a test",
	}
	signed := []byte(`{"id":"` + s.ID + `","hashes":["`)
	for range hashes {
		var sum [32]byte
		for i := range sum {
			sum[i] = byte(r.Uint32())
		}
		h, err := hashlist.NewHash(hashlist.PDQ, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		s.Hashes = append(s.Hashes, h)
		signed = hex.AppendEncode(append(signed, "pdq:"...), sum[:])
		signed = append(signed, `","`...)
	}
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	return hashlist.Record{Received: received.Add(time.Duration(r.Int64N(1e9)) * time.Microsecond), Statement: s, Signed: signed}
}

// statements makes n small records that alternate between two lists.
func statements(t testing.TB, r *rand.Rand, n int) []hashlist.Record {
	t.Helper()
	records := make([]hashlist.Record, n)
	for i := range records {
		records[i] = statement(t, r, []string{listA, listB}[i%2], 1+r.IntN(20))
	}
	return records
}

func seeded(t testing.TB) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func mustAppend(t testing.TB, db *store.DB, records ...hashlist.Record) []uint64 {
	t.Helper()
	seqs, err := db.Append(t.Context(), records)
	if err != nil {
		t.Fatal(err)
	}
	return seqs
}

func collect(t testing.TB, db *store.DB, seq uint64, only hashlist.Selection) []hashlist.Record {
	t.Helper()
	var got []hashlist.Record
	for r, err := range db.After(t.Context(), seq, only) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, r)
	}
	return got
}

// wantRecords compares what was read with what was appended, to the byte.
func wantRecords(t testing.TB, got, want []hashlist.Record, signed bool) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("got %d records, want %d", len(got), len(want))
	}
	for i, g := range got {
		w := want[i]
		gb, err := g.Statement.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		wb, err := w.Statement.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(gb, wb) {
			t.Fatalf("record %d: got statement\n%+v\nwant\n%+v", i, g.Statement, w.Statement)
		}
		if g.Received != w.Received {
			t.Fatalf("record %d: received %v, want %v", i, g.Received, w.Received)
		}
		if !signed {
			w.Signed = nil
		}
		if !bytes.Equal(g.Signed, w.Signed) {
			t.Fatalf("record %d: signed bytes differ", i)
		}
	}
}
