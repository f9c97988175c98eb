package store_test

import (
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/store"
)

func benchDB(b *testing.B) (*store.DB, *rand.Rand) {
	db, err := store.Create(b.Context(), filepath.Join(b.TempDir(), "log.db"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	return db, rand.New(rand.NewPCG(1, 2))
}

func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct {
		name          string
		batch, hashes int
	}{{"1x1", 1, 1}, {"1x1000", 1, 1000}, {"100x1", 100, 1}, {"100x1000", 100, 1000}} {
		b.Run(c.name, func(b *testing.B) {
			db, r := benchDB(b)
			batch := make([]hashlist.Record, c.batch)
			for b.Loop() {
				b.StopTimer()
				for i := range batch {
					batch[i] = statement(b, r, listA, c.hashes)
				}
				b.StartTimer()
				if _, err := db.Append(b.Context(), batch); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*c.batch)/b.Elapsed().Seconds(), "statements/s")
		})
	}
}

// BenchmarkAfter reads a million hashes, as a node that starts does.
func BenchmarkAfter(b *testing.B) {
	db, r := benchDB(b)
	for range 10 {
		batch := make([]hashlist.Record, 100)
		for i := range batch {
			batch[i] = statement(b, r, []string{listA, listB}[i%2], 1000)
		}
		if _, err := db.Append(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		only hashlist.Selection
	}{{"bodies", hashlist.Selection{}}, {"signed", hashlist.Selection{Signed: true}}, {"list", hashlist.Selection{List: listA}}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			hashes := 0
			for b.Loop() {
				for r, err := range db.After(b.Context(), 0, c.only) {
					if err != nil {
						b.Fatal(err)
					}
					hashes += len(r.Statement.Hashes)
				}
			}
			b.ReportMetric(float64(hashes)/b.Elapsed().Seconds(), "hashes/s")
		})
	}
	b.Run("check", func(b *testing.B) {
		for b.Loop() {
			if err := db.Check(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkOpen is dominated by the check for damage.
func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "log.db")
	db, err := store.Create(b.Context(), path)
	if err != nil {
		b.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		if _, err := db.Append(b.Context(), []hashlist.Record{statement(b, r, listA, 1000)}); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if err := db.Close(); err != nil {
			b.Fatal(err)
		}
		if db, err = store.Open(b.Context(), path); err != nil {
			b.Fatal(err)
		}
	}
	db.Close()
}
