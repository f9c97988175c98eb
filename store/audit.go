package store

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
)

var _ hashlist.Audit = (*DB)(nil)

// auditRows is how many entries AuditAfter and VerifyAudit read at a time.
const auditRows = 200

// auditQueue is what waits to be written to the audit log. Whoever has the turn
// writes for all who wait, so that many callers share one flush to the disk.
type auditQueue struct {
	turn    chan struct{} // holds a value while somebody writes
	mu      sync.Mutex    // guards waiting
	waiting []*auditAppend
}

type auditAppend struct {
	entry hashlist.AuditEntry
	done  chan error // has room for one
}

// AppendAudit implements hashlist.Audit. It refuses an entry that does not have
// the shape that hashlist.AuditEntry documents, and an ID that is there already.
func (db *DB) AppendAudit(ctx context.Context, e hashlist.AuditEntry) (hashlist.AuditEntry, error) {
	if e.ID == "" {
		e.ID = strings.ToLower(rand.Text())
	}
	e.At = e.At.UTC().Truncate(time.Microsecond)
	if err := checkAudit(&e); err != nil {
		return e, fmt.Errorf("append to the audit log: %w", err)
	}
	a := &auditAppend{entry: e, done: make(chan error, 1)}
	db.audit.mu.Lock()
	db.audit.waiting = append(db.audit.waiting, a)
	db.audit.mu.Unlock()
	var err error
	select {
	case err = <-a.done:
	case db.audit.turn <- struct{}{}:
		db.appendWaiting()
		<-db.audit.turn
		err = <-a.done // by this turn or an earlier one
	case <-ctx.Done():
		db.audit.mu.Lock()
		defer db.audit.mu.Unlock()
		db.audit.waiting = slices.DeleteFunc(db.audit.waiting, func(w *auditAppend) bool { return w == a })
		return e, ctx.Err()
	}
	if err != nil {
		return e, fmt.Errorf("append to the audit log: %w", explain(err))
	}
	return a.entry, nil
}

// appendWaiting writes all that waits in one transaction.
func (db *DB) appendWaiting() {
	db.audit.mu.Lock()
	batch := db.audit.waiting
	db.audit.waiting = nil
	db.audit.mu.Unlock()
	if len(batch) == 0 {
		return
	}
	err := db.appendAudit(batch)
	for i, a := range batch {
		if err != nil && len(batch) > 1 {
			// One of them may be to blame, by an ID that is there already.
			a.done <- db.appendAudit(batch[i : i+1])
		} else {
			a.done <- err
		}
	}
}

func (db *DB) appendAudit(batch []*auditAppend) error {
	// Not the callers' contexts: one of them leaving must not fail the others.
	ctx := context.Background()
	tx, err := db.writer.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // of no effect after Commit
	head, err := auditEnd(ctx, tx)
	if err != nil {
		return err
	}
	for _, a := range batch {
		e := &a.entry
		e.Seq = head.Seq + 1
		body := sha256.Sum256(e.Body)
		head = hashlist.AuditHead{Seq: e.Seq, Sum: auditSum(head.Sum, e, body)}
		if _, err := tx.ExecContext(ctx, `INSERT INTO audit (seq, id, kind, at, who, body_sum, sum, body)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
			e.Seq, e.ID, e.Kind, e.At.UnixMicro(), e.Who, body[:], head.Sum[:], e.Body); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// auditSum chains an entry to the sum before it, which is all zeros before the
// first. It is kept in the database and noted by operators, so it never changes: SHA-256 over the
// sum before, the place and the time in microseconds as 8 bytes each, little end first, ID, kind and who
// behind their lengths as such numbers, and the SHA-256 of the body.
func auditSum(before [32]byte, e *hashlist.AuditEntry, body [32]byte) (sum [32]byte) {
	d := sha256.New()
	number := func(n uint64) { d.Write(binary.LittleEndian.AppendUint64(nil, n)) }
	d.Write(before[:])
	number(e.Seq)
	number(uint64(e.At.UnixMicro()))
	for _, s := range [...]string{e.ID, e.Kind, e.Who} {
		number(uint64(len(s)))
		d.Write([]byte(s))
	}
	d.Write(body[:])
	d.Sum(sum[:0])
	return sum
}

func checkAudit(e *hashlist.AuditEntry) error {
	if err := hashlist.CheckName(e.ID); err != nil {
		return fmt.Errorf("its id: %w", err)
	}
	if err := hashlist.CheckName(e.Kind); err != nil {
		return fmt.Errorf("its kind: %w", err)
	}
	if !json.Valid(e.Body) {
		return errors.New("its body is not JSON")
	}
	return cmp.Or(
		checkTime("time", e.At, true),
		checkText("who", e.Who, hashlist.MaxIRI),
		checkLength("body", len(e.Body), hashlist.MaxAudit),
	)
}

// rowQuerier is a *sql.DB or a *sql.Tx.
type rowQuerier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func auditEnd(ctx context.Context, from rowQuerier) (h hashlist.AuditHead, err error) {
	var sum []byte
	err = from.QueryRowContext(ctx, "SELECT seq, sum FROM audit ORDER BY seq DESC LIMIT 1").Scan(&h.Seq, &sum)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return hashlist.AuditHead{}, nil
	case err != nil:
		return h, err
	case copy(h.Sum[:], sum) != len(h.Sum) || len(sum) != len(h.Sum):
		return h, fmt.Errorf("entry %d of the audit log has no sum: %s", h.Seq, damaged)
	}
	return h, nil
}

// AuditEnd implements hashlist.Audit.
func (db *DB) AuditEnd(ctx context.Context) (hashlist.AuditHead, error) {
	h, err := auditEnd(ctx, db.reader)
	if err != nil {
		return h, fmt.Errorf("read the end of the audit log: %w", explain(err))
	}
	return h, nil
}

// FindAudit implements hashlist.Audit. It checks the entry against the one before it.
func (db *DB) FindAudit(ctx context.Context, id string) (hashlist.AuditEntry, bool, error) {
	if hashlist.CheckName(id) != nil {
		return hashlist.AuditEntry{}, false, ctx.Err() // no entry has such an id
	}
	fail := func(err error) (hashlist.AuditEntry, bool, error) {
		return hashlist.AuditEntry{}, false, fmt.Errorf("read the audit log: %w", explain(err))
	}
	var seq uint64
	err := db.reader.QueryRowContext(ctx, "SELECT seq FROM audit WHERE id = $1", id).Scan(&seq)
	if errors.Is(err, sql.ErrNoRows) {
		return hashlist.AuditEntry{}, false, nil
	} else if err != nil {
		return fail(err)
	}
	before, err := db.auditSumAt(ctx, seq-1)
	if err != nil {
		return fail(err)
	}
	entries, _, err := db.auditPage(ctx, hashlist.AuditHead{Seq: seq - 1, Sum: before}, 1)
	if err != nil {
		return fail(err)
	}
	if len(entries) != 1 || entries[0].ID != id {
		return fail(fmt.Errorf("entry %d is not where its id says: %s", seq, damaged))
	}
	return entries[0], true, nil
}

// auditSumAt returns the sum of the entry at seq; that of 0 is all zeros.
func (db *DB) auditSumAt(ctx context.Context, seq uint64) (sum [32]byte, err error) {
	if seq == 0 {
		return sum, nil
	}
	var b []byte
	err = db.reader.QueryRowContext(ctx, "SELECT sum FROM audit WHERE seq = $1", seq).Scan(&b)
	if errors.Is(err, sql.ErrNoRows) || err == nil && len(b) != len(sum) {
		return sum, fmt.Errorf("entry %d of the audit log is missing: %s", seq, damaged)
	}
	copy(sum[:], b)
	return sum, err
}

// auditPage reads up to n entries behind a place, checks that they continue it, and
// returns the sum of the last.
func (db *DB) auditPage(ctx context.Context, at hashlist.AuditHead, n int) ([]hashlist.AuditEntry, hashlist.AuditHead, error) {
	rows, err := db.reader.QueryContext(ctx, `SELECT seq, id, kind, at, who, body_sum, sum, body FROM audit
		WHERE seq > $1 ORDER BY seq LIMIT $2`, at.Seq, n)
	if err != nil {
		return nil, at, err
	}
	defer rows.Close()
	var entries []hashlist.AuditEntry
	for rows.Next() {
		var e hashlist.AuditEntry
		var bodySum, sum []byte
		if err := rows.Scan(&e.Seq, &e.ID, &e.Kind, (*moment)(&e.At), &e.Who, &bodySum, &sum, &e.Body); err != nil {
			return entries, at, unreadable(ctx, fmt.Sprintf("the entry behind %d of the audit log", at.Seq), err)
		}
		if e.Seq != at.Seq+1 {
			return entries, at, fmt.Errorf("entry %d of the audit log is missing: %s", at.Seq+1, damaged)
		}
		body := sha256.Sum256(e.Body)
		if len(e.Body) == 0 { // emptied because a law asked for that
			copy(body[:], bodySum)
		}
		at = hashlist.AuditHead{Seq: e.Seq, Sum: auditSum(at.Sum, &e, body)}
		if string(bodySum) != string(body[:]) || string(sum) != string(at.Sum[:]) {
			return entries, at, fmt.Errorf("entry %d of the audit log was changed after it was written, or the one before it was: %s", e.Seq, damaged)
		}
		entries = append(entries, e)
	}
	return entries, at, rows.Err()
}

// AuditAfter implements hashlist.Audit. It reads a page at a time and keeps
// neither connection nor transaction while the caller has an entry.
func (db *DB) AuditAfter(ctx context.Context, seq uint64) iter.Seq2[hashlist.AuditEntry, error] {
	end, err := auditEnd(ctx, db.reader) // now, and not when the iteration begins
	return func(yield func(hashlist.AuditEntry, error) bool) {
		fail := func(err error) { yield(hashlist.AuditEntry{}, fmt.Errorf("read the audit log: %w", explain(err))) }
		if err != nil {
			fail(err)
			return
		}
		if seq >= end.Seq {
			return
		}
		sum, err := db.auditSumAt(ctx, seq)
		if err != nil {
			fail(err)
			return
		}
		for at := (hashlist.AuditHead{Seq: seq, Sum: sum}); at.Seq < end.Seq; {
			entries, next, err := db.auditPage(ctx, at, int(min(auditRows, end.Seq-at.Seq)))
			at = next
			for _, e := range entries {
				if !yield(e, nil) {
					return
				}
			}
			if err == nil && len(entries) == 0 {
				err = fmt.Errorf("entry %d of the audit log is missing: %s", at.Seq+1, damaged)
			}
			if err != nil {
				fail(err)
				return
			}
		}
	}
}

// VerifyAudit implements hashlist.Audit.
func (db *DB) VerifyAudit(ctx context.Context, noted hashlist.AuditHead) (hashlist.AuditHead, error) {
	var at hashlist.AuditHead
	fail := func(err error) (hashlist.AuditHead, error) {
		return at, fmt.Errorf("check the audit log: %w", explain(err))
	}
	end, err := auditEnd(ctx, db.reader)
	if err != nil {
		return fail(err)
	}
	if end.Seq < noted.Seq {
		return fail(fmt.Errorf("it ends at entry %d, but had %d when its head was noted: entries were cut off, or an older copy was put in its place", end.Seq, noted.Seq))
	}
	passed := noted.Seq == 0
	if passed && noted.Sum != ([32]byte{}) {
		return fail(errors.New("the sum that was noted is of no entry: the head of an empty log is all zeros"))
	}
	for at.Seq < end.Seq {
		n := end.Seq - at.Seq
		if !passed {
			n = noted.Seq - at.Seq // so that a page ends there
		}
		entries, next, err := db.auditPage(ctx, at, int(min(auditRows, n)))
		if err != nil {
			return fail(err)
		}
		if len(entries) == 0 {
			return fail(fmt.Errorf("entry %d of the audit log is missing: %s", at.Seq+1, damaged))
		}
		at = next
		if at.Seq == noted.Seq {
			if at.Sum != noted.Sum {
				return fail(fmt.Errorf("entry %d is not the one it was when its head was noted: the log was written anew", at.Seq))
			}
			passed = true
		}
	}
	return at, nil
}
