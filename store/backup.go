package store

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// Backup writes a copy of the database to a new file at path, readable by its
// owner alone, while the node goes on. The copy is of one moment, is complete
// when Backup returns, and can be opened with Open. Whatever is at path already
// is left alone and Backup fails.
//
// While it runs the write-ahead log cannot be written back, so it grows by what
// is appended meanwhile.
func (db *DB) Backup(ctx context.Context, path string) error {
	if err := db.backup(ctx, path); err != nil {
		return fmt.Errorf("back up to %s: %w", path, explain(err))
	}
	return nil
}

func (db *DB) backup(ctx context.Context, path string) (err error) {
	if path == "" {
		return errors.New("a backup needs a path")
	}
	if err := vacant(path); err != nil {
		return err
	}
	// The name is taken first, with an empty file, and exchanged for the copy at
	// the end: a backup that was cut off is empty, which Open refuses, and not half.
	unfinished := path + ".new"
	for _, p := range []string{path, unfinished} {
		f, openErr := os.OpenFile(p, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if openErr != nil {
			return openErr
		}
		defer func() {
			if err != nil {
				os.Remove(p) // ours, by O_EXCL
			}
		}()
		if err := f.Close(); err != nil {
			return err
		}
	}
	if _, err := db.reader.ExecContext(ctx, "VACUUM INTO $1", unfinished); err != nil {
		return err
	}
	return publish(unfinished, path)
}

// Check looks at every byte: SQLite's own structures and indexes, each
// statement against its checksum and its place, the tokens, the audit log, what was
// agreed with other nodes, and what waits for a decision. It takes as long as it takes to read the file, and more than
// Open does for its check.
func (db *DB) Check(ctx context.Context) error {
	if err := check(ctx, db.reader, "PRAGMA integrity_check(20)"); err != nil {
		return fmt.Errorf("check database %s: %w", db.path, err)
	}
	for _, err := range db.After(ctx, 0, hashlist.Selection{Signed: true}) {
		if err != nil {
			return fmt.Errorf("check database %s: %w", db.path, err)
		}
	}
	for _, look := range [...]func() error{
		func() error { _, err := db.Tokens(ctx); return err },
		func() error { _, err := db.Follows(ctx); return err },
		func() error { _, err := db.Followers(ctx); return err },
		func() error { _, err := db.Peers(ctx); return err },
		func() error { _, err := db.Keys(ctx); return err },
		func() error { _, err := db.KeyMarks(ctx); return err },
		func() error { _, err := db.Terms(ctx); return err },
		func() error { return explain(db.checkLeaves(ctx)) },
		func() error { return db.checkReviews(ctx) },
		func() error { _, err := db.VerifyAudit(ctx, hashlist.AuditHead{}); return err },
		func() error { _, err := db.Acts(ctx); return err },
		func() error { _, err := db.Addresses(ctx); return err },
		func() error { _, err := db.Reports(ctx); return err },
		func() error { _, err := readAll(ctx, db, marks); return err },
		func() error { _, err := db.Letters(ctx); return err },
	} {
		if err := look(); err != nil {
			return fmt.Errorf("check database %s: %w", db.path, err)
		}
	}
	return nil
}
