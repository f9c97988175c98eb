package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"math"
	"strings"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// maxSealed is the most bytes of one row of the window.
const maxSealed = 1 << 20

// windowPage is how many rows are read at once.
const windowPage = 1000

var _ hashlist.WindowStore = (*DB)(nil)

// SaveUploads implements hashlist.WindowStore.
func (db *DB) SaveUploads(ctx context.Context, rows []hashlist.UploadRow, drop []uint64) error {
	if len(rows)+len(drop) == 0 {
		return ctx.Err()
	}
	for _, r := range rows {
		if r.ID == 0 || r.ID > math.MaxInt64 || len(r.Sealed) == 0 || len(r.Sealed) > maxSealed {
			return fmt.Errorf("save upload %d: its number or its %d bytes are out of range", r.ID, len(r.Sealed))
		}
	}
	if err := db.saveUploads(ctx, rows, drop); err != nil {
		return fmt.Errorf("save uploads of the window: %w", explain(err))
	}
	return nil
}

func (db *DB) saveUploads(ctx context.Context, rows []hashlist.UploadRow, drop []uint64) error {
	tx, err := db.writer.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // of no effect after Commit
	prepared := map[string]*sql.Stmt{}
	run := func(query string, args ...any) error {
		s := prepared[query]
		if s == nil {
			if s, err = tx.PrepareContext(ctx, query); err != nil {
				return err
			}
			prepared[query] = s
		}
		_, err := s.ExecContext(ctx, args...)
		return err
	}
	defer func() {
		for _, s := range prepared {
			s.Close()
		}
	}()
	for _, id := range drop {
		if err := run("DELETE FROM window_tags WHERE upload = $1", int64(id)); err != nil {
			return err
		}
		if err := run("DELETE FROM window_uploads WHERE id = $1", int64(id)); err != nil {
			return err
		}
	}
	for _, r := range rows {
		id := int64(r.ID)
		if err := run(`INSERT INTO window_uploads (id, sealed) VALUES ($1, $2)
			ON CONFLICT (id) DO UPDATE SET sealed = excluded.sealed`, id, r.Sealed); err != nil {
			return err
		}
		if err := run("DELETE FROM window_tags WHERE upload = $1", id); err != nil {
			return err
		}
		for _, tag := range r.Tags {
			if err := run("INSERT INTO window_tags (tag, upload) VALUES ($1, $2) ON CONFLICT DO NOTHING", tag[:], id); err != nil {
				return err
			}
		}
	}
	return tx.Commit()
}

// Uploads implements hashlist.WindowStore. Rows that the disk has changed are yielded
// too: whoever opens them finds out.
func (db *DB) Uploads(ctx context.Context) iter.Seq2[hashlist.UploadRow, error] {
	return func(yield func(hashlist.UploadRow, error) bool) {
		for cursor := int64(0); ; {
			rows, err := db.uploads(ctx, "WHERE id > $1 ORDER BY id LIMIT $2", cursor, windowPage)
			if err != nil {
				yield(hashlist.UploadRow{}, fmt.Errorf("read uploads of the window: %w", explain(err)))
				return
			}
			for _, r := range rows {
				cursor = int64(r.ID)
				if !yield(r, nil) {
					return
				}
			}
			if len(rows) == 0 {
				return
			}
		}
	}
}

func (db *DB) uploads(ctx context.Context, where string, args ...any) ([]hashlist.UploadRow, error) {
	rows, err := db.reader.QueryContext(ctx, "SELECT id, sealed FROM window_uploads "+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []hashlist.UploadRow
	for rows.Next() {
		var id int64
		var sealed blob
		if err := rows.Scan(&id, &sealed); err != nil {
			return nil, unreadable(ctx, "an upload of the window", err)
		}
		all = append(all, hashlist.UploadRow{ID: uint64(id), Sealed: sealed})
	}
	return all, rows.Err()
}

// FindUploads implements hashlist.WindowStore.
func (db *DB) FindUploads(ctx context.Context, ids []uint64) ([]hashlist.UploadRow, error) {
	if len(ids) == 0 {
		return nil, ctx.Err()
	}
	args := make([]any, len(ids))
	for i, id := range ids {
		args[i] = int64(id)
	}
	rows, err := db.uploads(ctx, "WHERE id IN (?"+strings.Repeat(", ?", len(ids)-1)+")", args...)
	if err != nil {
		return nil, fmt.Errorf("read uploads of the window: %w", explain(err))
	}
	return rows, nil
}

// TaggedUploads implements hashlist.WindowStore.
func (db *DB) TaggedUploads(ctx context.Context, tag [16]byte) ([]uint64, error) {
	ids, err := func() ([]uint64, error) {
		rows, err := db.reader.QueryContext(ctx, "SELECT upload FROM window_tags WHERE tag = $1 ORDER BY upload", tag[:])
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		var ids []uint64
		for rows.Next() {
			var id int64
			if err := rows.Scan(&id); err != nil {
				return nil, unreadable(ctx, "a tag of the window", err)
			}
			ids = append(ids, uint64(id))
		}
		return ids, rows.Err()
	}()
	if err != nil {
		return nil, fmt.Errorf("find uploads of the window: %w", explain(err))
	}
	return ids, nil
}

// AppendHits implements hashlist.WindowStore.
func (db *DB) AppendHits(ctx context.Context, hits []hashlist.HitRow) ([]uint64, error) {
	seqs, err := db.appendHits(ctx, hits)
	if err != nil {
		return nil, fmt.Errorf("save hits: %w", explain(err))
	}
	return seqs, nil
}

func (db *DB) appendHits(ctx context.Context, hits []hashlist.HitRow) ([]uint64, error) {
	tx, err := db.writer.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer tx.Rollback() // of no effect after Commit
	seqs := make([]uint64, len(hits))
	for i, h := range hits {
		upload := int64(h.Upload)
		done, err := tx.ExecContext(ctx, "INSERT INTO window_hits (upload, sealed) VALUES ($1, $2)", upload, h.Sealed)
		if err != nil {
			return nil, err
		}
		seq, err := done.LastInsertId()
		if err != nil {
			return nil, err
		}
		seqs[i] = uint64(seq)
	}
	return seqs, tx.Commit()
}

// HitsAfter implements hashlist.WindowStore.
func (db *DB) HitsAfter(ctx context.Context, seq uint64) iter.Seq2[hashlist.HitRow, error] {
	return func(yield func(hashlist.HitRow, error) bool) {
		for cursor := seq; ; {
			page, err := db.hits(ctx, cursor)
			if err != nil {
				yield(hashlist.HitRow{}, fmt.Errorf("read hits: %w", explain(err)))
				return
			}
			for _, h := range page {
				cursor = h.Seq
				if !yield(h, nil) {
					return
				}
			}
			if len(page) == 0 {
				return
			}
		}
	}
}

func (db *DB) hits(ctx context.Context, after uint64) ([]hashlist.HitRow, error) {
	rows, err := db.reader.QueryContext(ctx, "SELECT seq, upload, sealed FROM window_hits WHERE seq > $1 ORDER BY seq LIMIT $2",
		int64(min(after, math.MaxInt64)), windowPage)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var page []hashlist.HitRow
	for rows.Next() {
		var seq, upload int64
		var sealed blob
		if err := rows.Scan(&seq, &upload, &sealed); err != nil {
			return nil, unreadable(ctx, "a hit", err)
		}
		page = append(page, hashlist.HitRow{Seq: uint64(seq), Upload: uint64(upload), Sealed: sealed})
	}
	return page, rows.Err()
}

// DropHits implements hashlist.WindowStore.
func (db *DB) DropHits(ctx context.Context, seq uint64, uploads []uint64) error {
	err := func() error {
		tx, err := db.writer.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback() // of no effect after Commit
		if _, err := tx.ExecContext(ctx, "DELETE FROM window_hits WHERE seq <= $1", int64(min(seq, math.MaxInt64))); err != nil {
			return err
		}
		for _, id := range uploads {
			if _, err := tx.ExecContext(ctx, "DELETE FROM window_hits WHERE upload = $1", int64(id)); err != nil {
				return err
			}
		}
		return tx.Commit()
	}()
	if err != nil {
		return fmt.Errorf("delete hits: %w", explain(err))
	}
	return nil
}

// Cursor implements hashlist.WindowStore.
func (db *DB) Cursor(ctx context.Context, name string) (uint64, error) {
	var position, sum int64
	err := db.reader.QueryRowContext(ctx, "SELECT position, sum FROM window_cursors WHERE name = $1", name).Scan(&position, &sum)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("read a cursor: %w", explain(err))
	case rowSum(name, position) != sum:
		return 0, fmt.Errorf("cursor %.80q is damaged, its checksum is wrong: %s", name, damaged)
	}
	return uint64(position), nil
}

// SaveCursor implements hashlist.WindowStore.
func (db *DB) SaveCursor(ctx context.Context, name string, position uint64) error {
	p := int64(min(position, math.MaxInt64))
	_, err := db.writer.ExecContext(ctx, `INSERT INTO window_cursors (name, position, sum) VALUES ($1, $2, $3)
		ON CONFLICT (name) DO UPDATE SET position = excluded.position, sum = excluded.sum`, name, p, rowSum(name, p))
	if err != nil {
		return fmt.Errorf("save a cursor: %w", explain(err))
	}
	return nil
}

// ClearWindow implements hashlist.WindowStore. Cursors stay: they say nothing of
// anybody.
func (db *DB) ClearWindow(ctx context.Context) error {
	for _, table := range [...]string{"window_uploads", "window_tags", "window_hits"} {
		if _, err := db.writer.ExecContext(ctx, "DELETE FROM "+table); err != nil {
			return fmt.Errorf("clear the window: %w", explain(err))
		}
	}
	return nil
}
