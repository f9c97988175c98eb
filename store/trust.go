package store

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
)

// The longest values of a key's mark, in bytes.
const (
	maxWho   = 128
	maxProof = 128
)

var (
	terms = newTable("terms", "terms", 1, checkTerms, func(t *federation.Terms) []field {
		return []field{
			{"list", &t.List, t.List},
			{"by_trust", &t.ByTrust, number(t.ByTrust)},
			{"trust_only", &t.TrustOnly, number(t.TrustOnly)},
		}
	})
	keyMarks = newTable("key_marks", "mark of a key", 1, checkKeyMark, func(m *federation.KeyMark) []field {
		return []field{
			{"method", &m.Method, m.Method},
			{"issuer", &m.Issuer, m.Issuer},
			{"state", &m.State, int64(m.State)},
			{"at", (*moment)(&m.At), micros(m.At)},
			{"who", &m.Who, m.Who},
			{"old", &m.Old, m.Old},
			{"proof", &m.Proof, m.Proof},
		}
	})
)

// Terms implements federation.Peers.
func (db *DB) Terms(ctx context.Context) ([]federation.Terms, error) { return readAll(ctx, db, terms) }

// SaveTerms implements federation.Peers.
func (db *DB) SaveTerms(ctx context.Context, t federation.Terms) error {
	return saveAll(ctx, db, terms, []federation.Terms{t})
}

// KeyMarks implements federation.Peers.
func (db *DB) KeyMarks(ctx context.Context) ([]federation.KeyMark, error) {
	return readAll(ctx, db, keyMarks)
}

// SaveKeyMark implements federation.Peers.
func (db *DB) SaveKeyMark(ctx context.Context, m federation.KeyMark) error {
	return saveAll(ctx, db, keyMarks, []federation.KeyMark{m})
}

func checkTerms(t *federation.Terms) error { return checkName("list", t.List) }

func checkKeyMark(m *federation.KeyMark) error {
	if err := checkName("issuer", m.Issuer); err != nil {
		return err
	}
	if !strings.HasPrefix(m.Method, m.Issuer+"#") || m.Old != "" && !strings.HasPrefix(m.Old, m.Issuer+"#") {
		return fmt.Errorf("its key %.80q is not one of its issuer", m.Method)
	}
	return cmp.Or(
		checkText("key", m.Method, hashlist.MaxIRI+maxProof),
		checkRange("state", int64(m.State), int64(federation.KeyBacked), int64(federation.KeyVerified)),
		checkTime("time of marking", m.At, true),
		checkText("author", m.Who, maxWho),
		checkText("older key", m.Old, hashlist.MaxIRI+maxProof),
		checkText("proof", m.Proof, maxProof),
	)
}
