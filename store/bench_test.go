package store_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
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

// BenchmarkAppendLeaves reports what a leaf costs, in time and in the file. One
// delivery brings one statement, a first fetch brings pages of them.
func BenchmarkAppendLeaves(b *testing.B) {
	for _, batch := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint(batch), func(b *testing.B) {
			db, _ := benchDB(b)
			leaves, at := make([][32]byte, batch), uint64(0)
			for b.Loop() {
				appendNumbered(b, db, at, leaves)
				at += uint64(batch)
			}
			b.ReportMetric(float64(at)/b.Elapsed().Seconds(), "leaves/s")
		})
	}
}

// BenchmarkLeaves writes a million leaves in batches of 100 and reads them, as a
// node that starts does for each list it follows.
func BenchmarkLeaves(b *testing.B) {
	const million = 1_000_000
	db, _ := benchDB(b)
	leaves := make([][32]byte, 100)
	b.Run("append", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			if err := db.DropLeaves(b.Context(), listA); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			for at := uint64(0); at < million; at += 100 {
				appendNumbered(b, db, at, leaves)
			}
		}
	})
	if _, err := db.Writer().Exec("PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		b.Fatal(err)
	}
	info, err := os.Stat(databasePath(b, db))
	if err != nil {
		b.Fatal(err)
	}
	for _, from := range []uint64{0, million - 1} {
		b.Run(fmt.Sprintf("from%d", from), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				got, err := db.Leaves(b.Context(), listA, from)
				if err != nil || uint64(len(got)) != million-from {
					b.Fatalf("%d leaves, %v", len(got), err)
				}
			}
			b.ReportMetric(float64(info.Size())/million, "bytes/leaf")
		})
	}
}

func appendNumbered(b *testing.B, db *store.DB, at uint64, leaves [][32]byte) {
	for i := range leaves {
		binary.BigEndian.PutUint64(leaves[i][:], at+uint64(i))
	}
	if err := db.AppendLeaves(b.Context(), listA, at, leaves); err != nil {
		b.Fatal(err)
	}
}
