package hashlist

import (
	"context"
	"iter"
	"time"
)

// Record is a statement at its place in a log.
type Record struct {
	Seq       uint64    // place, from 1; given by Append
	Received  time.Time // when this node accepted it; UTC, whole microseconds
	Statement Statement
	Signed    []byte // the very bytes the issuer signed, proof included
}

// Selection chooses records. The zero Selection takes all, without their signed bytes.
type Selection struct {
	List   string // only statements of this list; "" for every list
	Signed bool   // fill in Record.Signed, which is most of a record's size
	// Bare leaves the statements' bodies unread: of Record.Statement only ID, Issuer,
	// List and Kind are filled in, beside Seq and Received. Who counts or pages
	// through a list of a million hashes decodes none of them. What was not read is not
	// checked either: damage to a body shows in a pass that is not bare.
	Bare bool
}

// Log is the append-only record of the statements a node has accepted. It is
// the only thing a node must not lose. Methods may be called concurrently.
//
// Whoever can write to a log's storage can hide statements from this node and
// change what it believes their fields to be, but cannot make an issuer have
// said something: the signed bytes carry the issuer's proof, which anybody can
// check again.
type Log interface {
	// Append stores records durably, all or none, and returns their places in
	// the order given. When it returns without an error they survive the loss of
	// the process and of power. A statement whose ID is in the log already, or
	// twice among records, keeps its first place and changes nothing. Seq of the
	// given records is ignored. After an error the records may or may not have
	// been stored: appending them again is safe and settles it.
	Append(ctx context.Context, records []Record) ([]uint64, error)

	// After yields the records behind place seq in ascending order, up to what
	// was in the log when it was called. Once it has yielded a place, no smaller
	// place ever appears, so a reader may keep a cursor. An error ends it.
	After(ctx context.Context, seq uint64, only Selection) iter.Seq2[Record, error]

	// Find returns the record of the statement with the given ID, with its signed
	// bytes, and false if the log does not have it. A record that Append has
	// acknowledged is found from then on. An id that is no address is not an
	// error: it is in no log.
	Find(ctx context.Context, id string) (Record, bool, error)
}
