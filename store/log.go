package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// MaxSigned is the most bytes of Record.Signed. A statement of MaxHashes takes
// about 70,000.
const MaxSigned = 1 << 20

// After reads pages of at most pageRows records and, but for the last record,
// pageBytes bytes.
const (
	pageRows  = 500
	pageBytes = 4 << 20
)

// checksum finds bytes that a disk has changed. xxHash is enough for that: it
// misses an accident in 2^64, at the speed of memory. It does not stop a
// person, who can write a fitting sum beside a changed body; against that
// stands the proof in the signed bytes.
func checksum(b []byte) int64 { return int64(xxhash.Sum64(b)) }

// Append implements hashlist.Log. It refuses, and stores nothing, if one of the
// statements does not validate, has no signed bytes or more than MaxSigned, or
// has no time of receipt. A time of receipt is cut to whole microseconds.
func (db *DB) Append(ctx context.Context, records []hashlist.Record) ([]uint64, error) {
	if len(records) == 0 {
		return nil, ctx.Err()
	}
	// All that can be done without the database is done before it is locked.
	bodies := make([][]byte, len(records))
	for i := range records {
		body, err := encode(&records[i])
		if err != nil {
			return nil, fmt.Errorf("append statement %d of %d: %w", i+1, len(records), err)
		}
		bodies[i] = body
	}
	seqs, err := db.append(ctx, records, bodies)
	if err != nil {
		return nil, fmt.Errorf("append to the log: %w", explain(err))
	}
	return seqs, nil
}

func encode(r *hashlist.Record) ([]byte, error) {
	if err := r.Statement.Validate(); err != nil {
		return nil, err
	}
	switch n := len(r.Signed); {
	case n == 0: // kept free to mean bytes that had to be erased
		return nil, errors.New("it has no signed bytes")
	case n > MaxSigned:
		return nil, fmt.Errorf("its %d signed bytes are more than %d", n, MaxSigned)
	case r.Received.IsZero():
		return nil, errors.New("it has no time of receipt")
	}
	return r.Statement.AppendBinary(nil)
}

func (db *DB) append(ctx context.Context, records []hashlist.Record, bodies [][]byte) ([]uint64, error) {
	tx, err := db.writer.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer tx.Rollback() // of no effect after Commit
	var head uint64
	if err := tx.QueryRowContext(ctx, "SELECT coalesce(max(seq), 0) FROM statements").Scan(&head); err != nil {
		return nil, err
	}
	find, err := tx.PrepareContext(ctx, "SELECT seq FROM statements WHERE id = $1")
	if err != nil {
		return nil, err
	}
	defer find.Close()
	insert, err := tx.PrepareContext(ctx, `INSERT INTO statements
		(seq, id, kind, issuer, list, received, body_sum, signed_sum, body, signed)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`)
	if err != nil {
		return nil, err
	}
	defer insert.Close()
	seqs := make([]uint64, len(records))
	for i := range records {
		r, s := &records[i], &records[i].Statement
		err := find.QueryRowContext(ctx, s.ID).Scan(&seqs[i])
		if err == nil {
			continue
		} else if !errors.Is(err, sql.ErrNoRows) {
			return nil, err
		}
		head++
		seqs[i] = head
		if _, err := insert.ExecContext(ctx, head, s.ID, uint8(s.Kind), s.Issuer, s.List, r.Received.UnixMicro(),
			checksum(bodies[i]), checksum(r.Signed), bodies[i], r.Signed); err != nil {
			return nil, err
		}
	}
	return seqs, tx.Commit()
}

// After implements hashlist.Log. It reads a page at a time and keeps neither
// connection nor transaction while the caller has the record, so a slow reader
// holds up nobody. It ends with an error at the first record that is damaged
// or, unless a list is selected, missing.
func (db *DB) After(ctx context.Context, seq uint64, only hashlist.Selection) iter.Seq2[hashlist.Record, error] {
	// The end is settled now and not when the iteration begins.
	var head uint64
	err := db.reader.QueryRowContext(ctx, "SELECT coalesce(max(seq), 0) FROM statements").Scan(&head)
	return func(yield func(hashlist.Record, error) bool) {
		if err != nil {
			yield(hashlist.Record{}, fmt.Errorf("read the log: %w", explain(err)))
			return
		}
		var records []hashlist.Record
		for cursor := seq; cursor < head; {
			var err error
			records, err = db.page(ctx, records[:0], cursor, head, only)
			for i := range records {
				if ctxErr := ctx.Err(); ctxErr != nil {
					err = ctxErr
					break
				}
				cursor = records[i].Seq
				if !yield(records[i], nil) {
					return
				}
				records[i] = hashlist.Record{} // the caller alone decides how long it lives
			}
			if err != nil {
				yield(hashlist.Record{}, fmt.Errorf("read the log behind place %d: %w", cursor, explain(err)))
				return
			}
			if len(records) == 0 {
				return
			}
		}
	}
}

// page appends to records some of those selected with seq < place <= head, and
// returns none only if there are none. With an error it returns those before it.
func (db *DB) page(ctx context.Context, records []hashlist.Record, seq, head uint64, only hashlist.Selection) ([]hashlist.Record, error) {
	query := "SELECT " + columns(only) + " FROM statements WHERE seq > $1 AND seq <= $2"
	args := []any{seq, head}
	if only.List != "" {
		query += " AND list = $3"
		args = append(args, only.List)
	}
	rows, err := db.reader.QueryContext(ctx, query+" ORDER BY seq", args...)
	if err != nil {
		return records, err
	}
	defer rows.Close()
	for size := 0; len(records) < pageRows && size < pageBytes; {
		if !rows.Next() {
			if err := rows.Err(); err != nil {
				return records, err
			}
			if only.List == "" && seq != head {
				return records, fmt.Errorf("statement %d is missing: %s", seq+1, damaged)
			}
			break
		}
		var w row
		if err := w.scan(rows, only); err != nil {
			return records, err
		}
		if only.List == "" && w.seq != seq+1 {
			return records, fmt.Errorf("statement %d is missing: %s", seq+1, damaged)
		}
		r, err := w.record(only)
		if err != nil {
			return records, err
		}
		seq = w.seq
		size += len(w.body) + len(w.signed)
		records = append(records, r)
	}
	return records, rows.Close()
}

// Find implements hashlist.Log.
func (db *DB) Find(ctx context.Context, id string) (hashlist.Record, bool, error) {
	// No statement has such an id, and a database may balk at the bytes.
	if _, err := hashlist.Origin(id); err != nil {
		return hashlist.Record{}, false, ctx.Err()
	}
	r, found, err := db.find(ctx, id)
	if err != nil {
		return hashlist.Record{}, false, fmt.Errorf("read a statement from the log: %w", explain(err))
	}
	return r, found, nil
}

func (db *DB) find(ctx context.Context, id string) (r hashlist.Record, found bool, err error) {
	all := hashlist.Selection{Signed: true}
	// Not QueryRow: the bytes are read where they lie, which it does not allow.
	rows, err := db.reader.QueryContext(ctx, "SELECT "+columns(all)+" FROM statements WHERE id = $1", id)
	if err != nil {
		return r, false, err
	}
	defer rows.Close()
	if !rows.Next() {
		return r, false, rows.Err()
	}
	var w row
	if err := w.scan(rows, all); err != nil {
		return r, false, err
	}
	if r, err = w.record(all); err != nil {
		return r, false, err
	}
	return r, true, rows.Close()
}

// row is a row of the table statements. Its raw bytes are the driver's until the next row.
type row struct {
	seq                uint64
	id, issuer, list   sql.RawBytes
	kind               uint8
	received           int64
	bodySum, signedSum int64
	body, signed       sql.RawBytes
}

// columns are those that scan expects.
func columns(only hashlist.Selection) string {
	c := "seq, id, kind, issuer, list, received"
	if !only.Bare {
		c += ", body_sum, body"
	}
	if only.Signed {
		c += ", signed_sum, signed"
	}
	return c
}

func (w *row) scan(rows *sql.Rows, only hashlist.Selection) error {
	into := []any{&w.seq, &w.id, &w.kind, &w.issuer, &w.list, &w.received}
	if !only.Bare {
		into = append(into, &w.bodySum, &w.body)
	}
	if only.Signed {
		into = append(into, &w.signedSum, &w.signed)
	}
	return rows.Scan(into...)
}

func (w *row) record(only hashlist.Selection) (hashlist.Record, error) {
	r := hashlist.Record{Seq: w.seq, Received: time.UnixMicro(w.received).UTC()}
	s := &r.Statement
	if !only.Bare && checksum(w.body) != w.bodySum || only.Signed && checksum(w.signed) != w.signedSum {
		return r, fmt.Errorf("statement %d is damaged, its checksum is wrong: %s", w.seq, damaged)
	}
	if only.Bare {
		*s = hashlist.Statement{ID: string(w.id), Issuer: string(w.issuer), List: string(w.list), Kind: hashlist.Kind(w.kind)}
	} else if err := s.UnmarshalBinary(w.body); err != nil {
		return r, fmt.Errorf("statement %d: %w", w.seq, err)
	}
	// The columns repeat the body so that SQL can find it. If they have come
	// apart, a search by list would pass over what it should find.
	if string(w.id) != s.ID || string(w.issuer) != s.Issuer || string(w.list) != s.List || hashlist.Kind(w.kind) != s.Kind {
		return r, fmt.Errorf("statement %d is damaged, its columns and its body differ: %s", w.seq, damaged)
	}
	if only.Signed {
		r.Signed = bytes.Clone(w.signed)
	}
	return r, nil
}
