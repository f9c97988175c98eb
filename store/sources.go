package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/tocsin-fed/tocsin/exchange/source"
	"github.com/tocsin-fed/tocsin/hashlist"
)

var _ source.Store = (*DB)(nil)

const (
	maxSourceBody = 2 << 20 // bytes of a source or a run; their reports are bounded where they are made
	maxPlanBody   = 1 << 20 // of a statement in its binary form
	planPage      = 256     // statements of a plan that are read at once
)

// sourceRow, runRow, planRow and entryRow are rows as they stand.
type (
	sourceRow struct {
		name string
		body []byte
	}
	runRow struct {
		source string
		number uint64
		body   []byte
	}
	planRow struct {
		source string
		run    uint64
		place  int64
		body   []byte
	}
	entryRow struct{ source, entry, hash string }
)

// The order of the fields is the order in which a row's sum takes them in, so
// it stays as it is.
var (
	sources = newTable("sources", "source", 1, func(r *sourceRow) error {
		return cmp.Or(checkText("name", r.name, hashlist.MaxName), checkLength("settings", len(r.body), maxSourceBody))
	}, func(r *sourceRow) []field {
		return []field{{"name", &r.name, r.name}, {"body", (*blob)(&r.body), r.body}}
	})
	sourceRuns = newTable("source_runs", "run of source", 2, func(r *runRow) error {
		return cmp.Or(checkText("name", r.source, hashlist.MaxName), checkCount("number", r.number), checkLength("report", len(r.body), maxSourceBody))
	}, func(r *runRow) []field {
		return []field{{"source", &r.source, r.source}, {"number", &r.number, int64(r.number)}, {"body", (*blob)(&r.body), r.body}}
	})
	sourcePlans = newTable("source_plans", "plan of source", 3, func(r *planRow) error {
		return cmp.Or(checkText("name", r.source, hashlist.MaxName), checkCount("run", r.run), checkLength("statement", len(r.body), maxPlanBody))
	}, func(r *planRow) []field {
		return []field{
			{"source", &r.source, r.source}, {"run", &r.run, int64(r.run)}, {"place", &r.place, r.place}, {"body", (*blob)(&r.body), r.body},
		}
	})
	sourceEntries = newTable("source_entries", "entry of source", 3, func(r *entryRow) error {
		return cmp.Or(checkText("name", r.source, hashlist.MaxName), checkText("entry", r.entry, hashlist.MaxURL), checkText("hash", r.hash, 200))
	}, func(r *entryRow) []field {
		return []field{{"source", &r.source, r.source}, {"entry", &r.entry, r.entry}, {"hash", &r.hash, r.hash}}
	})
)

// Sources implements source.Store. It fails at the first that is damaged: one that is left out
// would have its list act as the node's own.
func (db *DB) Sources(ctx context.Context) ([]source.Source, error) {
	rows, err := readAll(ctx, db, sources)
	if err != nil {
		return nil, err
	}
	var all []source.Source
	for _, r := range rows {
		var s source.Source
		if err := json.Unmarshal(r.body, &s); err != nil {
			return nil, fmt.Errorf("source %.80q cannot be read: %s: %w", r.name, damaged, err)
		}
		if err := s.Validate(); err != nil || s.Name != r.name {
			return nil, fmt.Errorf("source %.80q is not as it was saved: %s: %w", r.name, damaged, cmp.Or(err, errors.New("it has another name")))
		}
		all = append(all, s)
	}
	return all, nil
}

// SaveSource implements source.Store.
func (db *DB) SaveSource(ctx context.Context, s source.Source) error {
	if err := s.Validate(); err != nil {
		return fmt.Errorf("save source %.80q: %w", s.Name, err)
	}
	body, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("save source %.80q: %w", s.Name, err)
	}
	return saveAll(ctx, db, sources, []sourceRow{{s.Name, body}})
}

// SourceRuns implements source.Store.
func (db *DB) SourceRuns(ctx context.Context, name string, limit int) ([]source.Run, error) {
	rows, err := sourceRuns.read(ctx, db.reader, "WHERE source = $1", name)
	if err != nil {
		return nil, fmt.Errorf("read runs of source %.80q: %w", name, explain(err))
	}
	slices.Reverse(rows)
	if limit > 0 && len(rows) > limit {
		rows = rows[:limit]
	}
	var all []source.Run
	for _, r := range rows {
		var v source.Run
		if err := json.Unmarshal(r.body, &v); err != nil {
			return nil, fmt.Errorf("run %d of source %.80q cannot be read: %s: %w", r.number, name, damaged, err)
		}
		all = append(all, v)
	}
	return all, nil
}

// SaveSourceRun implements source.Store.
func (db *DB) SaveSourceRun(ctx context.Context, v source.Run, keep int) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("save run of source %.80q: %w", v.Source, err)
	}
	row := runRow{v.Source, v.Number, body}
	if err := sourceRuns.check(&row); err != nil {
		return fmt.Errorf("save run of source %.80q: %w", v.Source, err)
	}
	err = db.change(ctx, func(tx *sql.Tx) error {
		if err := sourceRuns.save(ctx, tx, &row); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "DELETE FROM source_runs WHERE source = $1 AND number <= (SELECT max(number) FROM source_runs WHERE source = $1) - $2", v.Source, keep)
		return err
	})
	if err != nil {
		return fmt.Errorf("save run of source %.80q: %w", v.Source, explain(err))
	}
	return nil
}

// SavePlan implements source.Store, all or nothing.
func (db *DB) SavePlan(ctx context.Context, name string, run uint64, statements [][]byte) error {
	err := db.change(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "DELETE FROM source_plans WHERE source = $1 AND run = $2", name, int64(run)); err != nil {
			return err
		}
		for i, body := range statements {
			row := planRow{name, run, int64(i), body}
			if err := sourcePlans.check(&row); err != nil {
				return err
			}
			if err := sourcePlans.save(ctx, tx, &row); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("save plan of source %.80q: %w", name, explain(err))
	}
	return nil
}

// Plan implements source.Store.
func (db *DB) Plan(ctx context.Context, name string, run uint64) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for next := int64(0); ; {
			rows, err := sourcePlans.read(ctx, db.reader, "WHERE source = $1 AND run = $2 AND place >= $3 AND place < $4", name, int64(run), next, next+planPage)
			if err != nil {
				yield(nil, fmt.Errorf("read plan of source %.80q: %w", name, explain(err)))
				return
			}
			for _, r := range rows {
				if r.place != next {
					yield(nil, fmt.Errorf("plan of source %.80q lacks statement %d: %s", name, next, damaged))
					return
				}
				if next++; !yield(r.body, nil) {
					return
				}
			}
			if len(rows) < planPage {
				return
			}
		}
	}
}

// DropPlan implements source.Store.
func (db *DB) DropPlan(ctx context.Context, name string, run uint64) error {
	err := db.change(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "DELETE FROM source_plans WHERE source = $1 AND run = $2", name, int64(run))
		return err
	})
	if err != nil {
		return fmt.Errorf("drop plan of source %.80q: %w", name, explain(err))
	}
	return nil
}

// SaveEntries implements source.Store.
func (db *DB) SaveEntries(ctx context.Context, name string, entries []source.Entry) error {
	rows := make([]entryRow, len(entries))
	for i, e := range entries {
		rows[i] = entryRow{name, e.Key, e.Hash.String()}
	}
	return saveAll(ctx, db, sourceEntries, rows)
}

// Entry implements source.Store.
func (db *DB) Entry(ctx context.Context, name, key string) ([]hashlist.Hash, error) {
	rows, err := sourceEntries.read(ctx, db.reader, "WHERE source = $1 AND entry = $2", name, key)
	if err != nil {
		return nil, fmt.Errorf("read an entry of source %.80q: %w", name, explain(err))
	}
	var all []hashlist.Hash
	for _, r := range rows {
		h, err := hashlist.ParseHash(r.hash)
		if err != nil {
			return nil, fmt.Errorf("an entry of source %.80q cannot be read: %s", name, damaged)
		}
		all = append(all, h)
	}
	return all, nil
}
