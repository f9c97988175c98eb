package store

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
)

// field is a column of a table and its value in one T.
type field struct {
	column string
	into   any // where Scan puts it
	value  any // an int64, a string or a []byte
}

// table says how a T is kept in a row: saved over one of the same key, read in
// the order of keys, checked both ways.
type table[T any] struct {
	what   string // what people call a T
	keys   int    // how many of the first columns make up the primary key
	check  func(*T) error
	fields func(*T) []field

	insert, query, order string
}

func newTable[T any](name, what string, keys int, check func(*T) error, fields func(*T) []field) *table[T] {
	var columns, places, changes []string
	for i, f := range append(fields(new(T)), field{column: "sum"}) {
		columns = append(columns, f.column)
		places = append(places, fmt.Sprintf("$%d", i+1))
		if i >= keys {
			changes = append(changes, f.column+" = excluded."+f.column)
		}
	}
	list, key := strings.Join(columns, ", "), strings.Join(columns[:keys], ", ")
	return &table[T]{
		what: what, keys: keys, check: check, fields: fields,
		insert: "INSERT INTO " + name + " (" + list + ") VALUES (" + strings.Join(places, ", ") + ")" +
			" ON CONFLICT (" + key + ") DO UPDATE SET " + strings.Join(changes, ", "),
		query: "SELECT " + list + " FROM " + name,
		order: "ORDER BY " + key,
	}
}

// querier is a *sql.DB or a *sql.Tx.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// saveAll saves all or none.
func saveAll[T any](ctx context.Context, db *DB, t *table[T], all []T) error {
	if len(all) == 0 {
		return ctx.Err()
	}
	for i := range all {
		if err := t.check(&all[i]); err != nil {
			return fmt.Errorf("save %s: %w", t.name(&all[i]), err)
		}
	}
	err := func() error {
		tx, err := db.writer.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback() // of no effect after Commit
		for i := range all {
			if err := t.save(ctx, tx, &all[i]); err != nil {
				return err
			}
		}
		return tx.Commit()
	}()
	if err != nil {
		return fmt.Errorf("save %s: %w", t.name(&all[0]), explain(err))
	}
	return nil
}

// save expects what check has let pass.
func (t *table[T]) save(ctx context.Context, tx *sql.Tx, v *T) error {
	var args []any
	for _, f := range t.fields(v) {
		if b, ok := f.value.([]byte); ok && b == nil {
			f.value = []byte{} // nil would be NULL
		}
		args = append(args, f.value)
	}
	_, err := tx.ExecContext(ctx, t.insert, append(args, rowSum(args...))...)
	return err
}

func readAll[T any](ctx context.Context, db *DB, t *table[T]) ([]T, error) {
	all, err := t.read(ctx, db.reader, "")
	if err != nil {
		return nil, fmt.Errorf("read %ss: %w", t.what, explain(err))
	}
	return all, nil
}

func (t *table[T]) read(ctx context.Context, from querier, where string, args ...any) ([]T, error) {
	rows, err := from.QueryContext(ctx, strings.Join([]string{t.query, where, t.order}, " "), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		var v T
		fields := t.fields(&v)
		var into []any
		for _, f := range fields {
			into = append(into, f.into)
		}
		var sum int64
		if err := rows.Scan(append(into, &sum)...); err != nil {
			return nil, unreadable(ctx, "a "+t.what, err)
		}
		var values []any
		for _, f := range t.fields(&v) {
			values = append(values, f.value)
		}
		if rowSum(values...) != sum {
			return nil, fmt.Errorf("%s is damaged, its checksum is wrong: %s", t.name(&v), damaged)
		}
		if err := t.check(&v); err != nil {
			return nil, fmt.Errorf("%s: %w: %s", t.name(&v), err, damaged)
		}
		all = append(all, v)
	}
	return all, rows.Err()
}

// name says which T it is, in an error.
func (t *table[T]) name(v *T) string {
	return fmt.Sprintf("%s %.80q", t.what, t.fields(v)[t.keys-1].value)
}

// unreadable tells a row whose values have the wrong types, which only damage
// does to them, from one that was not read to the end.
func unreadable(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%s cannot be read: %s: %w", what, damaged, err)
}

// rowSum is the checksum of a row. It is kept with the row, so it never changes:
// xxHash64 over the values, numbers as 8 bytes, little end first, texts and
// blobs behind their lengths as such numbers.
func rowSum(values ...any) int64 {
	d := xxhash.New()
	number := func(n int64) {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], uint64(n))
		d.Write(b[:])
	}
	for _, v := range values {
		switch v := v.(type) {
		case int64:
			number(v)
		case string:
			number(int64(len(v)))
			d.WriteString(v)
		case []byte:
			number(int64(len(v)))
			d.Write(v)
		default:
			panic(fmt.Sprintf("no checksum of a %T", v))
		}
	}
	return int64(d.Sum64())
}

// moment reads what micros writes.
type moment time.Time

// Scan implements sql.Scanner.
func (m *moment) Scan(src any) error {
	n, ok := src.(int64)
	if !ok || n < 0 {
		return errors.New("it is not a time")
	}
	*m = moment{}
	if n > 0 {
		*m = moment(time.UnixMicro(n).UTC())
	}
	return nil
}

// blob reads bytes, and none as nil.
type blob []byte

// Scan implements sql.Scanner.
func (b *blob) Scan(src any) error {
	bytes, ok := src.([]byte)
	if !ok {
		return errors.New("it is not a blob")
	}
	*b = nil
	if len(bytes) > 0 {
		*b = slices.Clone(bytes)
	}
	return nil
}
