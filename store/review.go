package store

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
)

var _ hashlist.Reviews = (*DB)(nil)

const defaultReviews = 1000 // that Reviews returns at most where nothing is said

// The order of the fields is the order in which a row's sum takes them in, so it
// stays as it is.
var reviews = newTable("reviews", "review", 1, checkReview, func(r *hashlist.Review) []field {
	return []field{
		{"seq", &r.Seq, int64(r.Seq)},
		{"id", &r.ID, r.ID},
		{"kind", &r.Kind, int64(r.Kind)},
		{"state", &r.State, int64(r.State)},
		{"at", (*moment)(&r.At), micros(r.At)},
		{"last", (*moment)(&r.Last), micros(r.Last)},
		{"count", &r.Count, int64(r.Count)},
		{"deadline", (*moment)(&r.Deadline), micros(r.Deadline)},
		{"settled", (*moment)(&r.Settled), micros(r.Settled)},
		{"verdict", &r.Verdict, r.Verdict},
		{"statement", &r.Statement, r.Statement},
		{"list", &r.List, r.List},
		{"issuer", &r.Issuer, r.Issuer},
		{"url", &r.Reference.URL, r.Reference.URL},
		{"alias", &r.Reference.Alias, r.Reference.Alias},
		{"post", &r.Reference.Post, r.Reference.Post},
		{"actor", &r.Reference.Actor, r.Reference.Actor},
		{"distance", &r.Distance, int64(r.Distance)},
		{"algorithm", &r.Algorithm, r.Algorithm},
		{"summary", &r.Summary, r.Summary},
		{"decisions", (*decisions)(&r.Decisions), encodeDecisions(r.Decisions)},
		{"body", (*blob)(&r.Body), r.Body},
	}
})

// decisions reads what encodeDecisions wrote.
type decisions []hashlist.ReviewDecision

// Scan implements sql.Scanner.
func (d *decisions) Scan(src any) error {
	b, ok := src.([]byte)
	if !ok {
		return errors.New("it is not a blob")
	}
	*d = nil
	if len(b) == 0 {
		return nil
	}
	r := json.NewDecoder(bytes.NewReader(b))
	r.DisallowUnknownFields()
	return r.Decode((*[]hashlist.ReviewDecision)(d))
}

func encodeDecisions(d []hashlist.ReviewDecision) []byte {
	if len(d) == 0 {
		return nil
	}
	b, err := json.Marshal(d)
	if err != nil {
		return []byte("!") // for a year beyond 9999, which the check refuses
	}
	return b
}

func checkReview(r *hashlist.Review) error {
	if err := r.Validate(); err != nil {
		return err
	}
	for _, f := range [...]struct{ what, text string }{
		{"verdict", r.Verdict}, {"statement", r.Statement}, {"list", r.List}, {"issuer", r.Issuer},
		{"algorithm", r.Algorithm}, {"summary", r.Summary},
	} {
		if err := checkText(f.what, f.text, len(f.text)); err != nil {
			return err
		}
	}
	for _, d := range r.Decisions {
		if err := checkTime("time of a decision", d.When, true); err != nil {
			return err
		}
	}
	return cmp.Or(
		checkTime("time", r.At, true),
		checkTime("last time", r.Last, true),
		checkTime("deadline", r.Deadline, false),
		checkTime("time of being settled", r.Settled, false),
		checkCount("count", r.Count),
	)
}

// AddReview implements hashlist.Reviews.
func (db *DB) AddReview(ctx context.Context, r hashlist.Review) (added bool, err error) {
	if r.At.IsZero() {
		r.At = time.Now()
	}
	if r.Last.IsZero() {
		r.Last = r.At
	}
	r.Count = max(r.Count, 1)
	r.State = cmp.Or(r.State, hashlist.ReviewOpen)
	cutTimes(&r)
	if err := checkReview(&r); err != nil {
		return false, fmt.Errorf("save review %.80q: %w", r.ID, err)
	}
	err = db.change(ctx, func(tx *sql.Tx) error {
		found, err := reviews.read(ctx, tx, "WHERE id = $1", r.ID)
		if err != nil || len(found) > 0 {
			return err
		}
		var waiting int64
		if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM reviews WHERE kind = $1 AND state IN (1, 2)", int64(r.Kind)).Scan(&waiting); err != nil {
			return err
		}
		if waiting >= hashlist.MaxOpenReviews && r.State.Waiting() {
			return hashlist.ErrReviewsFull
		}
		// Places are not used again: what waits for an item behind a place must not miss one.
		if err := tx.QueryRowContext(ctx, "UPDATE review_places SET next = next + 1 RETURNING next").Scan(&r.Seq); err != nil {
			return err
		}
		added = true
		return reviews.save(ctx, tx, &r)
	})
	if err != nil {
		return false, fmt.Errorf("save review %.80q: %w", r.ID, explain(err))
	}
	if added {
		db.reviewed.grow(r.Seq)
	}
	return added, nil
}

// cutTimes leaves of times what is stored of them.
func cutTimes(r *hashlist.Review) {
	for _, t := range [...]*time.Time{&r.At, &r.Last, &r.Deadline, &r.Settled} {
		*t = t.UTC().Truncate(time.Microsecond)
	}
	for i := range r.Decisions {
		r.Decisions[i].When = r.Decisions[i].When.UTC().Truncate(time.Microsecond)
	}
}

// change runs do in a transaction that writes.
func (db *DB) change(ctx context.Context, do func(*sql.Tx) error) error {
	tx, err := db.writer.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // of no effect after Commit
	if err := do(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// FindReview implements hashlist.Reviews.
func (db *DB) FindReview(ctx context.Context, id string) (hashlist.Review, bool, error) {
	found, err := reviews.read(ctx, db.reader, "WHERE id = $1", id)
	if err != nil {
		return hashlist.Review{}, false, fmt.Errorf("read review %.80q: %w", id, explain(err))
	}
	if len(found) == 0 {
		return hashlist.Review{}, false, nil
	}
	return found[0], true, nil
}

// Reviews implements hashlist.Reviews.
func (db *DB) Reviews(ctx context.Context, only hashlist.ReviewSelection) ([]hashlist.Review, error) {
	where := []string{"seq > $1"}
	if len(only.Kinds) > 0 {
		where = append(where, among("kind", only.Kinds))
	}
	if len(only.States) > 0 {
		where = append(where, among("state", only.States))
	}
	t := *reviews
	t.order = fmt.Sprintf("ORDER BY seq LIMIT %d", cmp.Or(max(only.Limit, 0), defaultReviews))
	all, err := t.read(ctx, db.reader, "WHERE "+strings.Join(where, " AND "), int64(min(only.After, 1<<62)))
	if err != nil {
		return nil, fmt.Errorf("read reviews: %w", explain(err))
	}
	for i := range all {
		all[i].Body = nil
	}
	return all, nil
}

// among is a condition on a column that holds one of some numbers.
func among[T ~uint8](column string, values []T) string {
	var texts []string
	for _, v := range values {
		texts = append(texts, fmt.Sprint(uint8(v)))
	}
	return column + " IN (" + strings.Join(texts, ", ") + ")"
}

// ChangeReview implements hashlist.Reviews.
func (db *DB) ChangeReview(ctx context.Context, id string, change func(*hashlist.Review) error) (changed hashlist.Review, err error) {
	var refused error
	err = db.change(ctx, func(tx *sql.Tx) error {
		found, err := reviews.read(ctx, tx, "WHERE id = $1", id)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return hashlist.ErrNoReview
		}
		changed = found[0]
		if refused = change(&changed); refused != nil {
			return refused
		}
		changed.Seq, changed.ID, changed.Kind = found[0].Seq, found[0].ID, found[0].Kind
		switch {
		case changed.State.Waiting():
			changed.Settled = time.Time{}
		case changed.Settled.IsZero():
			changed.Settled = time.Now()
		}
		cutTimes(&changed)
		if err := checkReview(&changed); err != nil {
			return err
		}
		return reviews.save(ctx, tx, &changed)
	})
	switch {
	case refused != nil:
		return hashlist.Review{}, refused
	case err != nil:
		return hashlist.Review{}, fmt.Errorf("change review %.80q: %w", id, explain(err))
	}
	return changed, nil
}

// WaitReviews implements hashlist.Reviews.
func (db *DB) WaitReviews(ctx context.Context, seq uint64) error {
	return db.reviewed.wait(ctx, seq)
}

// DropReviews implements hashlist.Reviews.
func (db *DB) DropReviews(ctx context.Context, before time.Time) (int, error) {
	done, err := db.writer.ExecContext(ctx, "DELETE FROM reviews WHERE state IN (3, 4) AND settled < $1", micros(before))
	if err != nil {
		return 0, fmt.Errorf("delete old reviews: %w", explain(err))
	}
	n, err := done.RowsAffected()
	return int(n), err
}

// countReviews finds out which place was given last.
func (db *DB) countReviews(ctx context.Context) error {
	var next uint64
	if err := db.reader.QueryRowContext(ctx, "SELECT next FROM review_places").Scan(&next); err != nil {
		return fmt.Errorf("count the reviews: %w", explain(err))
	}
	db.reviewed.grow(next)
	return nil
}

// checkReviews reads every item.
func (db *DB) checkReviews(ctx context.Context) error {
	var after uint64
	for {
		page, err := db.Reviews(ctx, hashlist.ReviewSelection{After: after})
		if err != nil || len(page) == 0 {
			return err
		}
		after = page[len(page)-1].Seq
	}
}
