package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mattn/go-sqlite3"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/store"
)

// Bits that fall over inside a value are no concern of SQLite's. They are found
// when the value is read, and the place is named.
func TestDecayedBytes(t *testing.T) {
	good, records := sample(t, seeded(t))
	last := records[len(records)-1]
	body, err := last.Statement.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	// Somewhere in the middle of a page, so that a few bytes of it stand together.
	flip := func(value []byte) []byte {
		for at := len(value) / 2; at+16 < len(value); at += 16 {
			if bytes.Count(good, value[at:at+16]) == 1 {
				b := bytes.Clone(good)
				b[bytes.Index(good, value[at:at+16])+7] ^= 0x10
				return b
			}
		}
		t.Fatal("value not found in the file")
		return nil
	}
	for name, c := range map[string]struct {
		value  []byte
		bodies bool // whether reading the bodies alone shows it
	}{"body": {body, true}, "signed": {last.Signed, false}} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log.db")
			write(t, path, flip(c.value))
			db, err := store.Open(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			read := func(only hashlist.Selection) (n int, got error) {
				for _, err := range db.After(t.Context(), 0, only) {
					if err != nil {
						got = err
					} else {
						n++
					}
				}
				return n, got
			}
			want := fmt.Sprintf("statement %d is damaged", len(records))
			n, err := read(hashlist.Selection{Signed: true})
			if err == nil || !strings.Contains(err.Error(), want) || n != len(records)-1 {
				t.Errorf("after %d records: %v", n, err)
			}
			if _, err := read(hashlist.Selection{}); (err != nil) != c.bodies {
				t.Errorf("bodies alone: %v", err)
			}
			if n, err := read(hashlist.Selection{Bare: true}); err != nil || n != len(records) {
				t.Errorf("a pass that reads neither ends after %d records: %v", n, err)
			}
			if _, _, err := db.Find(t.Context(), last.Statement.ID); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("find: %v", err)
			}
			if err := db.Check(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("check: %v", err)
			}
		})
	}
}

// What SQL can change without damage to the file is found as well.
func TestChangedRows(t *testing.T) {
	good, records := sample(t, seeded(t))
	for _, c := range []struct{ name, query, want string }{
		{"row gone", "DELETE FROM statements WHERE seq = 7", "statement 7 is missing"},
		{"last row gone from below", "UPDATE statements SET seq = 1000 WHERE seq = 61", "statement 61 is missing"},
		{"other list", "UPDATE statements SET list = 'https://alice.example/lists/x' WHERE seq = 7", "statement 7 is damaged"},
		{"other kind", "UPDATE statements SET kind = 2 WHERE seq = 7", "statement 7 is damaged"},
		{"body emptied", "UPDATE statements SET body = x'' WHERE seq = 7", "statement 7 is damaged"},
		{"type changed", "UPDATE statements SET received = 'noon' WHERE seq = 7", ""},
		{"huge", "UPDATE statements SET body = zeroblob(50000000) WHERE seq = 7", "longer than any"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log.db")
			write(t, path, good)
			raw(t, path, c.query)
			db, err := store.Open(t.Context(), path)
			if err != nil {
				if !strings.Contains(err.Error(), c.want) {
					t.Fatal(err)
				}
				return
			}
			defer db.Close()
			if err := db.Check(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("of %d statements: %v", len(records), err)
			}
		})
	}
}

func TestDiskFull(t *testing.T) {
	db, _ := createSQLite(t)
	r := seeded(t)
	kept := statements(t, r, 3)
	mustAppend(t, db, kept...)
	limit := func(pages int) {
		if _, err := db.Writer().Exec(fmt.Sprintf("PRAGMA max_page_count = %d", pages)); err != nil {
			t.Fatal(err)
		}
	}
	limit(30)
	batch := statements(t, r, 300)
	_, err := db.Append(t.Context(), batch)
	if err == nil || !strings.Contains(err.Error(), "no space is left") {
		t.Fatalf("got %v", err)
	}
	var e sqlite3.Error
	if !errors.As(err, &e) || e.Code != sqlite3.ErrFull {
		t.Fatalf("the cause is lost: %v", err)
	}
	wantRecords(t, collect(t, db, 0, hashlist.Selection{Signed: true}), kept, true)
	limit(1 << 30)
	mustAppend(t, db, batch...)
	wantRecords(t, collect(t, db, 0, hashlist.Selection{Signed: true}), append(kept, batch...), true)
}

func TestWriteAheadLogStaysBounded(t *testing.T) {
	db, _ := createSQLite(t)
	path := databasePath(t, db)
	r := seeded(t)
	var largest int64
	for range 20 { // some 3 MB each
		batch := make([]hashlist.Record, 30)
		for i := range batch {
			batch[i] = statement(t, r, listA, 100)
			batch[i].Signed = bytes.Repeat(batch[i].Signed, 14)
		}
		mustAppend(t, db, batch...)
		info, err := os.Stat(path + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		largest = max(largest, info.Size())
	}
	t.Logf("largest write-ahead log: %d bytes", largest)
	if largest > 16<<20 {
		t.Fatalf("the write-ahead log grew to %d bytes", largest)
	}
}
