package store

import (
	"context"
	"fmt"

	"github.com/tocsin-fed/tocsin/hashlist"
)

var _ hashlist.QuarantineStore = (*DB)(nil)

// The order of the fields is the order in which a row's sum takes them in, so it
// stays as it is.
var quarantined = newTable("quarantine", "quarantined statement", 1, checkQuarantined, func(v *hashlist.Quarantined) []field {
	return []field{
		{"statement", &v.Statement, v.Statement},
		{"list", &v.List, v.List},
		{"issuer", &v.Issuer, v.Issuer},
		{"matched", &v.Matched, int64(v.Matched)},
		{"uploads", &v.Uploads, int64(v.Uploads)},
		{"since", (*moment)(&v.Since), micros(v.Since)},
		{"state", &v.State, int64(v.State)},
		{"decided", (*moment)(&v.Decided), micros(v.Decided)},
		{"who", &v.Who, v.Who},
		{"why", &v.Why, v.Why},
	}
})

func checkQuarantined(v *hashlist.Quarantined) error {
	switch {
	case v.Statement == "" || len(v.Statement) > hashlist.MaxIRI || len(v.List) > hashlist.MaxIRI || len(v.Issuer) > hashlist.MaxIRI:
		return fmt.Errorf("its statement, list or issuer is missing or longer than %d bytes", hashlist.MaxIRI)
	case v.State < hashlist.QuarantineHeld || v.State > hashlist.QuarantineKept:
		return fmt.Errorf("it has the unknown state %d", v.State)
	case v.Since.IsZero() || v.Decided.IsZero() != (v.State == hashlist.QuarantineHeld):
		return fmt.Errorf("it lacks the time since when it is there, or the one of the decision")
	case len(v.Who) > hashlist.MaxReviewWho || len(v.Why) > hashlist.MaxReason:
		return fmt.Errorf("who has decided has more than %d bytes, or why more than %d", hashlist.MaxReviewWho, hashlist.MaxReason)
	}
	return nil
}

// SaveQuarantine implements hashlist.QuarantineStore.
func (db *DB) SaveQuarantine(ctx context.Context, all []hashlist.Quarantined) error {
	return saveAll(ctx, db, quarantined, all)
}

// Quarantine implements hashlist.QuarantineStore.
func (db *DB) Quarantine(ctx context.Context) ([]hashlist.Quarantined, error) {
	return readAll(ctx, db, quarantined)
}
