package store

import (
	"cmp"
	"context"

	"github.com/tocsin-fed/tocsin/federation"
)

var _ federation.Letters = (*DB)(nil)

// The order of the fields is the order in which a row's sum takes them in, so it
// stays as it is.
var letters = newTable("letters", "letter", 2, checkLetter, func(l *federation.Letter) []field {
	return []field{
		{"statement", &l.Statement, l.Statement},
		{"recipient", &l.To, l.To},
		{"about", &l.About, l.About},
		{"since", (*moment)(&l.Since), micros(l.Since)},
		{"taken", (*moment)(&l.Taken), micros(l.Taken)},
		{"given_up", &l.GivenUp, number(l.GivenUp)},
		{"failures", &l.Failures, int64(l.Failures)},
		{"trouble", &l.Trouble, l.Trouble},
		{"answer", &l.Answer, l.Answer},
		{"withdrawn", &l.Withdrawn, number(l.Withdrawn)},
	}
})

// Letters implements federation.Letters.
func (db *DB) Letters(ctx context.Context) ([]federation.Letter, error) {
	return readAll(ctx, db, letters)
}

// SaveLetter implements federation.Letters.
func (db *DB) SaveLetter(ctx context.Context, l federation.Letter) error {
	return saveAll(ctx, db, letters, []federation.Letter{l})
}

func checkLetter(l *federation.Letter) error {
	if l.Answer != "" {
		if err := checkName("answer", l.Answer); err != nil {
			return err
		}
	}
	return cmp.Or(
		checkName("statement", l.Statement),
		checkName("recipient", l.To),
		checkName("disputed statement", l.About),
		checkTime("time", l.Since, true),
		checkTime("time of being taken", l.Taken, false),
		checkText("trouble", l.Trouble, maxTrouble),
	)
}
