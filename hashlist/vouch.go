package hashlist

import (
	"fmt"
	"time"
)

// PartialBelief is between MarginalBelief and MostBelief.
const PartialBelief = 80

// MaxDepth is the greatest depth of a vouching: a chain of more than nine people is hearsay.
const MaxDepth = 7

// Vouching says how far another issuer is to be believed. It is carried by a Vouch
// statement, whose Labels are what it holds for, none for everything, whose Expires is until
// when, and whose Reason says why. Of several by one issuer for one object that hold for a
// label at one time the latest counts, by (published, id).
type Vouching struct {
	Object string    // IRI of the issuer who is vouched for, of any origin
	Amount uint8     // 1 to MostBelief
	Depth  uint8     // 0: they are believed; 1: those too for whom they vouch; at most MaxDepth
	From   time.Time // it holds from then on; UTC, whole seconds; zero for since Published
}

func (s *Statement) validateVouch() error {
	v := s.Vouch
	switch {
	case v == nil:
		return fmt.Errorf("statement vouches for nobody")
	case len(s.Hashes) > 0 || len(s.Subjects) > 0 || s.About != "" || s.Action != 0 || s.Retracts != "" || s.Definition != nil:
		return fmt.Errorf("a statement that vouches for an issuer carries nothing but that, labels, an end and a reason")
	}
	if _, err := Origin(v.Object); err != nil {
		return fmt.Errorf("who is vouched for: %w", err)
	}
	if v.Object == s.Issuer {
		return fmt.Errorf("%s vouches for itself", s.Issuer)
	}
	if v.Amount < 1 || v.Amount > MostBelief {
		return fmt.Errorf("amount %d is not between 1 and %d", v.Amount, MostBelief)
	}
	if v.Depth > MaxDepth {
		return fmt.Errorf("depth %d is more than %d", v.Depth, MaxDepth)
	}
	if !v.From.IsZero() {
		if err := checkTime(v.From); err != nil {
			return fmt.Errorf("from: %w", err)
		}
		if !s.Expires.IsZero() && !s.Expires.After(v.From) {
			return fmt.Errorf("it ends at %s, before it begins", s.Expires.Format(time.RFC3339))
		}
	}
	return s.checkExpires()
}
