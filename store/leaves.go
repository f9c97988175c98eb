package store

import (
	"context"
	"database/sql"
	"fmt"
)

// runLeaves is the number of leaves in a full row. With 120 a row fits into a
// page, so that one leaf more writes 4 KB and a million are loaded in 0.15 s.
// With 1000 one more writes 25 KB and loading takes as long; one row for each
// leaf loads ten times as slowly and takes four times the space.
const runLeaves = 120

// leafSize is the length of a SHA-256.
const leafSize = 32

// Leaves implements federation.Peers. Behind the last leaf, and of a list that
// it has none of, it returns none.
func (db *DB) Leaves(ctx context.Context, list string, from uint64) ([][leafSize]byte, error) {
	leaves, err := db.leaves(ctx, list, from)
	if err != nil {
		return nil, fmt.Errorf("read leaves of %.80q: %w", list, explain(err))
	}
	return leaves, nil
}

func (db *DB) leaves(ctx context.Context, list string, from uint64) ([][leafSize]byte, error) {
	// How many there are is asked first, so that they need not move as they grow.
	last, err := lastRun(ctx, db.reader, list)
	if err != nil || from >= last.end() {
		return nil, err
	}
	rows, err := db.reader.QueryContext(ctx, `SELECT list, place, sum, hashes FROM leaves WHERE list = $1 AND place >=
		(SELECT coalesce(max(place), 0) FROM leaves WHERE list = $1 AND place <= $2) ORDER BY place`, list, int64(from))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	leaves := make([][leafSize]byte, 0, last.end()-from)
	for next := uint64(0); rows.Next(); {
		var r run
		if err := r.scan(ctx, rows); err != nil {
			return nil, err
		}
		if next == 0 { // the first row, which holds from unless something is wrong
			next = min(r.place, from)
		}
		if r.place != next {
			return nil, fmt.Errorf("leaf %d is missing: %s", next, damaged)
		}
		next = r.end()
		for b := r.hashes; len(b) > 0; b = b[leafSize:] {
			if r.place++; r.place > from {
				leaves = append(leaves, [leafSize]byte(b))
			}
		}
	}
	return leaves, rows.Err()
}

// maxPlace is beyond any place that can be reached.
const maxPlace = 1 << 62

// AppendLeaves implements federation.Peers, all or none.
func (db *DB) AppendLeaves(ctx context.Context, list string, at uint64, leaves [][leafSize]byte) error {
	err := checkName("list", list)
	if err == nil {
		err = db.appendLeaves(ctx, list, at, leaves)
	}
	if err != nil {
		return fmt.Errorf("append leaves of %.80q: %w", list, explain(err))
	}
	return nil
}

func (db *DB) appendLeaves(ctx context.Context, list string, at uint64, leaves [][leafSize]byte) error {
	tx, err := db.writer.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // of no effect after Commit
	last, err := lastRun(ctx, tx, list)
	if err != nil {
		return err
	}
	if last.end() != at {
		return fmt.Errorf("there are %d, so the next is not at place %d", last.end(), at)
	}
	if len(leaves) == 0 {
		return nil
	}
	insert, err := tx.PrepareContext(ctx, `INSERT INTO leaves (list, place, sum, hashes) VALUES ($1, $2, $3, $4)
		ON CONFLICT (list, place) DO UPDATE SET sum = excluded.sum, hashes = excluded.hashes`)
	if err != nil {
		return err
	}
	defer insert.Close()
	place, hashes := last.place, last.hashes // to be filled up, or written again as it is
	for len(leaves) > 0 {
		for len(leaves) > 0 && len(hashes) < runLeaves*leafSize {
			hashes = append(hashes, leaves[0][:]...)
			leaves = leaves[1:]
		}
		if _, err := insert.ExecContext(ctx, list, int64(place), rowSum(list, int64(place), hashes), hashes); err != nil {
			return err
		}
		place += uint64(len(hashes) / leafSize)
		hashes = hashes[:0]
	}
	return tx.Commit()
}

func lastRun(ctx context.Context, from querier, list string) (last run, err error) {
	rows, err := from.QueryContext(ctx, "SELECT list, place, sum, hashes FROM leaves WHERE list = $1 ORDER BY place DESC LIMIT 1", list)
	if err != nil {
		return last, err
	}
	defer rows.Close()
	if rows.Next() {
		if err := last.scan(ctx, rows); err != nil {
			return last, err
		}
		last.hashes = append(make([]byte, 0, runLeaves*leafSize), last.hashes...) // SQLite's until now
	}
	return last, rows.Err()
}

// DropLeaves implements federation.Peers. It is no error if there are none.
func (db *DB) DropLeaves(ctx context.Context, list string) error {
	if _, err := db.writer.ExecContext(ctx, "DELETE FROM leaves WHERE list = $1", list); err != nil {
		return fmt.Errorf("drop leaves of %.80q: %w", list, explain(err))
	}
	return nil
}

// checkLeaves looks at all leaves of all lists.
func (db *DB) checkLeaves(ctx context.Context) error {
	rows, err := db.reader.QueryContext(ctx, "SELECT list, place, sum, hashes FROM leaves ORDER BY list, place")
	if err != nil {
		return err
	}
	defer rows.Close()
	var before run
	for rows.Next() {
		var r run
		if err := r.scan(ctx, rows); err != nil {
			return err
		}
		if r.list != before.list {
			before = run{}
		}
		if r.place != before.end() {
			return fmt.Errorf("leaf %d of %.80q is missing: %s", before.end(), r.list, damaged)
		}
		before = r
	}
	return rows.Err()
}

// run is a row of the table leaves.
type run struct {
	list   string
	place  uint64
	hashes []byte // SQLite's until the next row
}

// end is the place behind the last leaf.
func (r *run) end() uint64 { return r.place + uint64(len(r.hashes)/leafSize) }

func (r *run) scan(ctx context.Context, rows *sql.Rows) error {
	var place, sum int64
	var hashes sql.RawBytes
	if err := rows.Scan(&r.list, &place, &sum, &hashes); err != nil {
		return unreadable(ctx, "a run of leaves", err)
	}
	r.place, r.hashes = uint64(place), hashes
	switch {
	case rowSum(r.list, place, []byte(hashes)) != sum:
		return fmt.Errorf("leaves of %.80q from place %d are damaged, their checksum is wrong: %s", r.list, place, damaged)
	case place < 0 || place > maxPlace || len(hashes) == 0 || len(hashes)%leafSize != 0:
		return fmt.Errorf("leaves of %.80q from place %d are damaged, they are not whole: %s", r.list, place, damaged)
	}
	return nil
}
