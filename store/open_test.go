package store_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/store"
)

// sample makes a closed database of some statements and returns its bytes.
func sample(t testing.TB, r *rand.Rand) ([]byte, []hashlist.Record) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log.db")
	db, err := store.Create(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	records := append(statements(t, r, 60), statement(t, r, listA, 600))
	mustAppend(t, db, records...)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b, records
}

func write(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// snapshot reads every file in dir but the locks and SQLite's shared memory,
// which hold nothing.
func snapshot(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.HasSuffix(path, ".lock") || strings.HasSuffix(path, "-shm") {
			return err
		}
		b, err := os.ReadFile(path)
		if len(b) > 0 || !strings.HasSuffix(path, "-wal") {
			files[path] = string(b)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// refused opens what must not be opened, and sees that it is as it was.
func refused(t *testing.T, path string, want ...string) {
	t.Helper()
	before := snapshot(t, filepath.Dir(path))
	db, err := store.Open(t.Context(), path)
	if err == nil {
		db.Close()
		t.Fatal("opened")
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error does not say %q: %v", w, err)
		}
	}
	after := snapshot(t, filepath.Dir(path))
	for name := range after {
		if _, was := before[name]; !was {
			t.Errorf("%s was made", name)
		}
	}
	for name, b := range before {
		if after[name] != b {
			t.Errorf("%s was changed", name)
		}
	}
	t.Log(err)
}

func TestOpenRefuses(t *testing.T) {
	good, _ := sample(t, seeded(t))
	page := int(binary.BigEndian.Uint16(good[16:]))
	edit := func(change func(b []byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, path string) { write(t, path, change(bytes.Clone(good))) }
	}
	query := func(sql string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			write(t, path, good)
			raw(t, path, sql)
		}
	}
	for _, c := range []struct {
		name string
		make func(t *testing.T, path string)
		want string
	}{
		{"missing", func(*testing.T, string) {}, "run tocsin init"},
		{"dangling link", func(t *testing.T, path string) {
			if err := os.Symlink(path+".gone", path); err != nil {
				t.Fatal(err)
			}
		}, "run tocsin init"},
		{"directory", func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, "not a file"},
		{"pipe", func(t *testing.T, path string) {
			if err := syscall.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "not a file"},
		{"empty", edit(func([]byte) []byte { return nil }), "restore a backup"},
		{"text", edit(func([]byte) []byte { return bytes.Repeat([]byte("pdq:f8f8\n"), 1000) }), "not a database"},
		{"short text", edit(func([]byte) []byte { return []byte("hello") }), "not a database"},
		{"header garbage", edit(func(b []byte) []byte { copy(b, "GARBAGE GARBAGE!"); return b }), "not a database"},
		{"header alone", edit(func(b []byte) []byte { return b[:100] }), "restore a backup"},
		{"first page alone", edit(func(b []byte) []byte { return b[:page] }), "restore a backup"},
		{"cut in half", edit(func(b []byte) []byte { return b[:len(b)/2] }), "restore a backup"},
		{"last page cut off", edit(func(b []byte) []byte { return b[:len(b)-page] }), "restore a backup"},
		{"last byte cut off", edit(func(b []byte) []byte { return b[:len(b)-1] }), "cut short"},
		{"zeroed page", edit(func(b []byte) []byte { clear(b[page : 2*page]); return b }), "restore a backup"},
		{"pages flipped", edit(func(b []byte) []byte {
			for i := page; i < len(b); i++ {
				b[i] ^= 0xff
			}
			return b
		}), "restore a backup"},
		{"pages exchanged", edit(func(b []byte) []byte {
			return append(append(bytes.Clone(b[:page]), b[2*page:3*page]...), append(bytes.Clone(b[page:2*page]), b[3*page:]...)...)
		}), ""},
		{"page size", edit(func(b []byte) []byte { b[16], b[17] = 2, 0; return b }), "restore a backup"},
		{"no page size", edit(func(b []byte) []byte { b[16], b[17] = 0, 0; return b }), "restore a backup"},
		{"another program's", query("PRAGMA application_id = 7"), "another program"},
		{"newer", query("INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, 1)"), "newer version of tocsin"},
		{"no versions", query("DELETE FROM goose_db_version"), "restore a backup"},
		{"no version table", query("DROP TABLE goose_db_version"), "restore a backup"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log.db")
			c.make(t, path)
			refused(t, path, c.want)
		})
	}
	t.Run("good", func(t *testing.T) { // the control
		path := filepath.Join(t.TempDir(), "log.db")
		write(t, path, good)
		db, err := store.Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		db.Close()
	})
}

// raw runs SQL as another program would.
func raw(t testing.TB, path, query string) {
	t.Helper()
	db, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(query); err != nil {
		t.Fatal(err)
	}
}

// A node that was killed leaves a write-ahead log. If the database is then
// refused, the log must not be written back into it.
func TestOpenRefusesWithoutReplay(t *testing.T) {
	dir := t.TempDir()
	db, err := store.Create(t.Context(), filepath.Join(dir, "live.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	r := seeded(t)
	mustAppend(t, db, statements(t, r, 100)...)
	if _, err := db.Writer().Exec("PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		t.Fatal(err)
	}
	later := statement(t, r, listA, 1)
	mustAppend(t, db, later)

	copied := filepath.Join(dir, "copy", "log.db")
	if err := os.Mkdir(filepath.Dir(copied), 0o700); err != nil {
		t.Fatal(err)
	}
	main, err := os.ReadFile(filepath.Join(dir, "live.db"))
	if err != nil {
		t.Fatal(err)
	}
	wal, err := os.ReadFile(filepath.Join(dir, "live.db-wal"))
	if err != nil {
		t.Fatal(err)
	}
	// Without the damage the copy opens, and what is in the write-ahead log counts.
	write(t, copied, main)
	write(t, copied+"-wal", wal)
	again, err := store.Open(t.Context(), copied)
	if err != nil {
		t.Fatal(err)
	}
	if got := collect(t, again, 100, hashlist.Selection{}); len(got) != 1 || got[0].Statement.ID != later.Statement.ID {
		t.Fatalf("the write-ahead log was not replayed: %d records", len(got))
	}
	again.Close()

	for i := 4096; i < len(main); i++ {
		main[i] ^= 0xff
	}
	write(t, copied, main)
	write(t, copied+"-wal", wal)
	refused(t, copied, "restore a backup")
}

func TestOneProcessAtATime(t *testing.T) {
	db, reopen := createSQLite(t)
	path := databasePath(t, db)
	for _, alias := range []string{path, filepath.Join(filepath.Dir(path), "alias")} {
		if alias != path {
			if err := os.Symlink(path, alias); err != nil {
				t.Fatal(err)
			}
		}
		if second, err := store.Open(t.Context(), alias); err == nil {
			second.Close()
			t.Fatal("opened twice")
		} else if !strings.Contains(err.Error(), "in use by another") {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	reopen()
}

func databasePath(t testing.TB, db *store.DB) string {
	t.Helper()
	var n int
	var name, path string
	if err := db.Writer().QueryRow("PRAGMA database_list").Scan(&n, &name, &path); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCreate(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	ctx := t.Context()
	dir := t.TempDir()
	// Signs that mean something in an SQLite address or in a file name.
	path := filepath.Join(dir, "a?mode=ro&b#c%41 ü'.db")
	for _, left := range []string{path + ".new", path + ".new-wal"} { // of an init that was cut off
		write(t, left, []byte("half"))
	}
	old := syscall.Umask(0) // the modes must not depend on it
	db, err := store.Create(ctx, path)
	syscall.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, db, statement(t, seeded(t), listA, 1))
	for _, suffix := range []string{"", "-wal", "-shm", ".lock"} {
		info, err := os.Stat(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("mode of %s is %v", info.Name(), info.Mode())
		}
	}
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "trusted_schema": "0"} {
		var got string
		if err := db.Writer().QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %q (%v), want %q", pragma, got, err, want)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 2 {
		t.Errorf("a closed database leaves %v", entries)
	}

	was := snapshot(t, dir)
	for name, p := range map[string]string{"database": path, "directory": dir, "no directory": filepath.Join(dir, "none", "log.db"), "nothing": ""} {
		if db, err := store.Create(ctx, p); err == nil {
			db.Close()
			t.Errorf("%s: created", name)
		}
	}
	for p, b := range snapshot(t, dir) {
		if was[p] != b {
			t.Errorf("%s was made or changed", p)
		}
	}
	// A write-ahead log without its database would be replayed into the new one.
	orphan := filepath.Join(dir, "orphan.db")
	write(t, orphan+"-wal", []byte("x"))
	if db, err := store.Create(ctx, orphan); err == nil {
		db.Close()
		t.Error("created beside a left over write-ahead log")
	} else if !strings.Contains(err.Error(), "left over") {
		t.Error(err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if db, err := store.Create(cancelled, filepath.Join(dir, "cancelled.db")); err == nil {
		db.Close()
		t.Error("created though cancelled")
	}
	left, err := filepath.Glob(filepath.Join(dir, "cancelled.db*"))
	if err != nil || len(left) != 1 || !strings.HasSuffix(left[0], ".lock") {
		t.Errorf("a cancelled create leaves %v (%v)", left, err)
	}
}

func TestBackup(t *testing.T) {
	db, _ := createSQLite(t)
	ctx := t.Context()
	records := statements(t, seeded(t), 120)
	mustAppend(t, db, records...)
	if err := db.SaveToken(ctx, store.Token{Name: "x", Scope: "admin", Sum: [32]byte{1}, Created: received}); err != nil {
		t.Fatal(err)
	}
	saveKept(t, db, full())
	mustAppendLeaves(t, db, listA, 0, 300)
	dir := t.TempDir()
	path := filepath.Join(dir, "it's a backup?.db")
	old := syscall.Umask(0)
	err := db.Backup(ctx, path)
	syscall.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("a backup leaves %v", entries)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the backup: %v, %v", info.Mode(), err)
	}
	was := snapshot(t, dir)
	if err := db.Backup(ctx, path); err == nil || !strings.Contains(err.Error(), "exists already") {
		t.Fatalf("a second backup to the same place: %v", err)
	}
	if snapshot(t, dir)[path] != was[path] {
		t.Fatal("the first backup was changed")
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := db.Backup(cancelled, filepath.Join(dir, "cancelled")); !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled: %v", err)
	}
	if err := db.Backup(ctx, filepath.Join(dir, "none", "x")); err == nil {
		t.Fatal("backed up to a directory that is not there")
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("failed backups leave %v", entries)
	}
	later := mustAppend(t, db, statement(t, seeded(t), listA, 1)) // not in the backup
	mustAppendLeaves(t, db, listA, 300, 1)
	restored, err := store.Open(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	defer restored.Close()
	wantRecords(t, collect(t, restored, 0, hashlist.Selection{Signed: true}), records, true)
	if tokens, err := restored.Tokens(ctx); len(tokens) != 1 || err != nil {
		t.Fatalf("tokens of the backup: %v, %v", tokens, err)
	}
	wantKept(t, restored, full())
	wantLeaves(t, restored, listA, 0, 300)
	if seqs := mustAppend(t, restored, statement(t, seeded(t), listA, 1)); seqs[0] != later[0] {
		t.Fatalf("the backup goes on at %d", seqs[0])
	}
	if err := restored.Check(ctx); err != nil {
		t.Fatal(err)
	}
}

// The first schema is in the field. If its migration changes, databases of one
// version number differ; if the program no longer opens what it made, admins
// lose their logs. testdata/schema1.sql is a dump of such a database.
func TestFirstSchemaIsFrozen(t *testing.T) {
	const frozen = "2aafb2c74d9b81b20fd827e66210a500fd015cb65794177110b6107589018aac"
	b, err := os.ReadFile("migrations/sqlite/00001_log.sql")
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%x", sha256.Sum256(b)); got != frozen {
		t.Errorf("the first migration has changed (SHA-256 %s): undo it and write another one", got)
	}
	dump, err := os.ReadFile("testdata/schema1.sql")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "log.db")
	raw(t, path, string(dump))
	db, err := store.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := collect(t, db, 0, hashlist.Selection{Signed: true})
	if len(got) != 2 {
		t.Fatalf("%d statements", len(got))
	}
	first, second := got[0], got[1]
	if d := first.Statement.Definition; d == nil || d.Name != "spam" || first.Received != received {
		t.Errorf("first statement: %+v", first)
	}
	if s := second.Statement; s.ID != "https://alice.example/statements/2" || len(s.Hashes) != 1 || string(second.Signed) != `{"second":true}` ||
		s.Hashes[0].String() != "pdq:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef" {
		t.Errorf("second statement: %+v", second)
	}
	if tokens, err := db.Tokens(t.Context()); err != nil || len(tokens) != 1 || tokens[0].Name != "pict-rs" || !tokens[0].Expires.IsZero() {
		t.Errorf("tokens %v, %v", tokens, err)
	}
	if seqs := mustAppend(t, db, second, statement(t, seeded(t), listA, 1)); seqs[0] != 2 || seqs[1] != 3 {
		t.Errorf("places %v", seqs)
	}
	// What later schemas added is there, empty at first, and can be used.
	wantKept(t, db, kept{})
	wantLeaves(t, db, listA, 0, 0)
	saveKept(t, db, full())
	mustAppendLeaves(t, db, listA, 0, 200)
	db.Close()
	if db, err = store.Open(t.Context(), path); err != nil { // and is not brought up to date twice
		t.Fatal(err)
	}
	defer db.Close()
	wantKept(t, db, full())
	wantLeaves(t, db, listA, 0, 200)
	wantRecords(t, collect(t, db, 0, hashlist.Selection{Signed: true})[:2], got, true)
	if err := db.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A migration that fails leaves the first schema as it was, and the next try
// finds nothing half done.
func TestMigrationAllOrNone(t *testing.T) {
	dump, err := os.ReadFile("testdata/schema1.sql")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "log.db")
	raw(t, path, string(dump))
	raw(t, path, "CREATE TABLE keys (x)") // in the way of the last table
	if db, err := store.Open(t.Context(), path); err == nil {
		db.Close()
		t.Fatal("opened")
	}
	raw(t, path, "DROP TABLE keys; INSERT INTO tokens SELECT 'new', 'lookup', x'00', 1, 0 WHERE NOT EXISTS (SELECT * FROM sqlite_schema WHERE name = 'follows')")
	db, err := store.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if len(collect(t, db, 0, hashlist.Selection{Signed: true})) != 2 {
		t.Fatal("statements are lost")
	}
	var tokens int
	if err := db.Writer().QueryRow("SELECT count(*) FROM tokens").Scan(&tokens); err != nil || tokens != 2 {
		t.Fatalf("the failed migration left tables behind: %d, %v", tokens, err)
	}
	saveKept(t, db, full())
	wantKept(t, db, full())
}
