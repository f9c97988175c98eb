package store

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/tocsin-fed/tocsin/platform"
	"github.com/tocsin-fed/tocsin/report"
	"github.com/tocsin-fed/tocsin/revisit"
)

var (
	_ platform.Acts     = (*DB)(nil)
	_ revisit.Addresses = (*DB)(nil)
	_ report.Reports    = (*DB)(nil)
)

// maxBody is the longest body of an act or an address, which hold a dozen addresses at most.
const maxBody = 64 << 10

// An act or address is kept whole in its body. The columns beside it are for queries and for people
// with a SQL shell, and must agree with it.
type bodied struct {
	key  string
	at   [2]time.Time
	n    uint8
	body []byte
}

// The order of the fields is the order in which a row's sum takes them in, so
// it stays as it is.
var (
	acts = newTable("acts", "act", 1, checkAct, func(b *bodied) []field {
		return []field{
			{"id", &b.key, b.key},
			{"made", (*moment)(&b.at[0]), micros(b.at[0])},
			{"changed", (*moment)(&b.at[1]), micros(b.at[1])},
			{"state", &b.n, int64(b.n)},
			{"body", (*blob)(&b.body), b.body},
		}
	})
	revisits = newTable("revisits", "watched address", 1, checkRevisit, func(b *bodied) []field {
		return []field{
			{"url", &b.key, b.key},
			{"added", (*moment)(&b.at[0]), micros(b.at[0])},
			{"state", &b.n, int64(b.n)},
			{"next", (*moment)(&b.at[1]), micros(b.at[1])},
			{"body", (*blob)(&b.body), b.body},
		}
	})
	reports = newTable("reports", "report", 2, checkReport, func(r *report.Sent) []field {
		return []field{
			{"verdict", &r.Verdict, r.Verdict},
			{"agency", &r.Agency, r.Agency},
			{"number", &r.Number, r.Number},
			{"begun", (*moment)(&r.Begun), micros(r.Begun)},
			{"sent", (*moment)(&r.Sent), micros(r.Sent)},
			{"who", &r.Who, r.Who},
		}
	})
	marks = newTable("marks", "mark", 1, checkMark, func(c *mark) []field {
		return []field{
			{"name", &c.Name, c.Name},
			{"at", (*moment)(&c.At), micros(c.At)},
			{"position", &c.Position, int64(c.Position)},
		}
	})
)

// mark is how far a reader of something in its order has come.
type mark struct {
	Name     string
	At       time.Time
	Position uint64
}

// Mark returns the place that the reader of a name has come to, and the time it noted with it; zero if it
// has noted none.
func (db *DB) Mark(ctx context.Context, name string) (position uint64, at time.Time, err error) {
	found, err := marks.read(ctx, db.reader, "WHERE name = $1", name)
	if err != nil || len(found) == 0 {
		return 0, time.Time{}, explain(err)
	}
	return found[0].Position, found[0].At, nil
}

// SaveMark notes both durably.
func (db *DB) SaveMark(ctx context.Context, name string, position uint64, at time.Time) error {
	return saveAll(ctx, db, marks, []mark{{name, at, position}})
}

func checkMark(c *mark) error {
	return cmp.Or(checkWord("name", c.Name), checkTime("time", c.At, false), checkCount("position", c.Position))
}

// Acts implements platform.Acts.
func (db *DB) Acts(ctx context.Context) ([]platform.Act, error) {
	rows, err := readAll(ctx, db, acts)
	if err != nil {
		return nil, err
	}
	all := make([]platform.Act, len(rows))
	for i := range rows {
		if all[i], err = actOf(&rows[i]); err != nil {
			return nil, fmt.Errorf("read acts: %w", err)
		}
	}
	slices.SortFunc(all, func(a, b platform.Act) int { return cmp.Or(a.Made.Compare(b.Made), cmp.Compare(a.ID, b.ID)) })
	return all, nil
}

// SaveAct implements platform.Acts.
func (db *DB) SaveAct(ctx context.Context, a platform.Act) error {
	body, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("save act: %w", err)
	}
	return saveAll(ctx, db, acts, []bodied{{a.ID, [2]time.Time{a.Made, a.Changed}, uint8(a.State), body}})
}

// ForgetActs implements platform.Acts.
func (db *DB) ForgetActs(ctx context.Context, before time.Time) error {
	_, err := db.writer.ExecContext(ctx, "DELETE FROM acts WHERE changed < $1 AND state NOT IN ($2, $3, $4, $5)", micros(before),
		platform.Waiting, platform.Due, platform.Doing, platform.Undoing)
	if err != nil {
		return fmt.Errorf("forget old acts: %w", explain(err))
	}
	return nil
}

func actOf(b *bodied) (platform.Act, error) {
	a, err := strictly[platform.Act](b.body)
	if err == nil && (a.ID != b.key || !a.Made.Equal(b.at[0]) || !a.Changed.Equal(b.at[1]) || uint8(a.State) != b.n) {
		err = errors.New("its body is of another act")
	}
	return a, err
}

func checkAct(b *bodied) error {
	err := cmp.Or(checkWord("id", b.key), checkTime("time", b.at[0], true), checkTime("time of change", b.at[1], true),
		checkRange("state", int64(b.n), int64(platform.Waiting), int64(platform.Undone)), checkLength("body", len(b.body), maxBody))
	if err == nil {
		_, err = actOf(b)
	}
	return err
}

// Addresses implements revisit.Addresses.
func (db *DB) Addresses(ctx context.Context) ([]revisit.Address, error) {
	rows, err := readAll(ctx, db, revisits)
	if err != nil {
		return nil, err
	}
	all := make([]revisit.Address, len(rows))
	for i := range rows {
		if all[i], err = addressOf(&rows[i]); err != nil {
			return nil, fmt.Errorf("read watched addresses: %w", err)
		}
	}
	return all, nil
}

// SaveAddress implements revisit.Addresses.
func (db *DB) SaveAddress(ctx context.Context, a revisit.Address) error {
	body, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("save watched address: %w", err)
	}
	return saveAll(ctx, db, revisits, []bodied{{a.URL, [2]time.Time{a.Added, a.Next}, uint8(a.State), body}})
}

// DropAddress implements revisit.Addresses.
func (db *DB) DropAddress(ctx context.Context, url string) (bool, error) {
	done, err := db.writer.ExecContext(ctx, "DELETE FROM revisits WHERE url = $1", url)
	if err != nil {
		return false, fmt.Errorf("drop watched address: %w", explain(err))
	}
	n, err := done.RowsAffected()
	return n > 0, err
}

func addressOf(b *bodied) (revisit.Address, error) {
	a, err := strictly[revisit.Address](b.body)
	if err == nil && (a.URL != b.key || !a.Added.Equal(b.at[0]) || !a.Next.Equal(b.at[1]) || uint8(a.State) != b.n) {
		err = errors.New("its body is of another address")
	}
	if err == nil {
		err = a.Validate()
	}
	return a, err
}

func checkRevisit(b *bodied) error {
	err := cmp.Or(checkAddress("address", b.key), checkTime("time", b.at[0], true), checkTime("next time", b.at[1], true),
		checkLength("body", len(b.body), maxBody))
	if err == nil {
		_, err = addressOf(b)
	}
	return err
}

// Reports implements report.Reports.
func (db *DB) Reports(ctx context.Context) ([]report.Sent, error) { return readAll(ctx, db, reports) }

// SaveReport implements report.Reports.
func (db *DB) SaveReport(ctx context.Context, r report.Sent) error {
	return saveAll(ctx, db, reports, []report.Sent{r})
}

func checkReport(r *report.Sent) error {
	return cmp.Or(checkWord("verdict", r.Verdict), checkWord("agency", r.Agency), checkText("number", r.Number, 100),
		checkTime("time", r.Begun, true), checkTime("time of sending", r.Sent, false), checkText("reporter", r.Who, 200))
}

// checkWord is for short names that this program or its operator gave.
func checkWord(what, s string) error {
	if s == "" {
		return fmt.Errorf("it has no %s", what)
	}
	return checkText(what, s, 200)
}

// strictly decodes JSON that this program wrote. What it does not know is damage, or of a later program.
func strictly[T any](b []byte) (v T, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err = d.Decode(&v); err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("something stands behind its end")
		}
	}
	if err != nil {
		return v, fmt.Errorf("its body cannot be read: %w", err)
	}
	return v, nil
}
