package hashlist

import (
	"context"
	"iter"
	"time"
)

// MaxAudit is the most bytes of AuditEntry.Body.
const MaxAudit = 64 << 10

// AuditEntry is one thing that this node, or a person through it, did, and what it
// rested on: enough to explain it a year later.
type AuditEntry struct {
	Seq  uint64    // its place, from 1; given by AppendAudit
	ID   string    // a-z, 0-9 and hyphens, at most MaxName bytes; given by AppendAudit if it is empty
	Kind string    // a name as CheckName wants it: verdict, repeats, act, decision and the like
	At   time.Time // when it happened; UTC, whole microseconds
	Who  string    // the caller, person or rule that brought it about; at most MaxIRI bytes
	// Body is a JSON object of at most MaxAudit bytes, whose members are the kind's
	// own affair. It may hold hashes: the log is the operator's, like the lists. Nothing of
	// it goes into log lines.
	Body []byte
}

// AuditHead is the end of an audit log: how many entries there are, and a SHA-256
// over all of them. Who notes a head elsewhere can tell later whether entries
// before it were changed or cut off.
type AuditHead struct {
	Seq uint64
	Sum [32]byte
}

// Audit is an append-only log of what was done, each entry chained to the one
// before it by SHA-256. Methods may be called concurrently.
//
// Against whoever can write to its storage the chain helps only with a head that was
// noted elsewhere: they can write all of it anew.
type Audit interface {
	// AppendAudit stores an entry durably and returns it with its place and ID.
	// Entries of many callers share one flush to the disk. If ctx ends first, it may or
	// may not have been stored.
	AppendAudit(context.Context, AuditEntry) (AuditEntry, error)
	// FindAudit returns the entry with the given ID, and false if there is none.
	FindAudit(ctx context.Context, id string) (AuditEntry, bool, error)
	// AuditAfter yields the entries behind place seq in ascending order, up to
	// what was there when it was called, and checks that each continues the one before it.
	// An error ends it.
	AuditAfter(ctx context.Context, seq uint64) iter.Seq2[AuditEntry, error]
	// AuditEnd returns the head as it is.
	AuditEnd(context.Context) (AuditHead, error)
	// VerifyAudit reads the log from its beginning and returns its head. It fails at
	// the first entry that was changed, is missing or does not continue the one before
	// it, and if the log does not lead through noted (the zero head is in every log).
	VerifyAudit(ctx context.Context, noted AuditHead) (AuditHead, error)
}
