package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Token lets whoever knows its secret call the node. The secret itself is not
// kept.
type Token struct {
	Name    string    // for people; 1 to 64 bytes of printable text
	Scope   string    // what it allows, in the caller's words; 1 to 64 bytes of printable text
	Sum     [32]byte  // SHA-256 of the secret
	Created time.Time // UTC, whole microseconds
	Expires time.Time // UTC, whole microseconds; zero for never
}

// Callers branch on these two.
var (
	ErrExists   = errors.New("a token of this name exists already")
	ErrNotFound = errors.New("there is no token of this name")
)

// SaveToken stores a new token durably. It fails with ErrExists if one of its
// name is there.
func (db *DB) SaveToken(ctx context.Context, t Token) error {
	for _, f := range [...]struct{ what, text string }{{"name", t.Name}, {"scope", t.Scope}} {
		if f.text == "" || len(f.text) > 64 || !utf8.ValidString(f.text) || strings.ContainsFunc(f.text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return fmt.Errorf("save token: its %s is not 1 to 64 bytes of printable text", f.what)
		}
	}
	switch {
	case t.Sum == [32]byte{}:
		return fmt.Errorf("save token %q: it has no sum of a secret", t.Name)
	case t.Created.IsZero():
		return fmt.Errorf("save token %q: it has no time of creation", t.Name)
	}
	done, err := db.writer.ExecContext(ctx, `INSERT INTO tokens (name, scope, sum, created, expires)
		VALUES ($1, $2, $3, $4, $5) ON CONFLICT (name) DO NOTHING`,
		t.Name, t.Scope, t.Sum[:], t.Created.UnixMicro(), micros(t.Expires))
	return oneRow(done, err, "save", t.Name, ErrExists)
}

// DeleteToken removes a token durably. It fails with ErrNotFound if there is
// none of that name.
func (db *DB) DeleteToken(ctx context.Context, name string) error {
	done, err := db.writer.ExecContext(ctx, "DELETE FROM tokens WHERE name = $1", name)
	return oneRow(done, err, "delete", name, ErrNotFound)
}

// oneRow turns the result of a change that found nothing to change into none.
func oneRow(done sql.Result, err error, verb, name string, none error) error {
	if err == nil {
		var n int64
		if n, err = done.RowsAffected(); err == nil && n == 0 {
			err = none
		}
	}
	if err != nil {
		return fmt.Errorf("%s token %.80q: %w", verb, name, explain(err))
	}
	return nil
}

// Tokens returns all tokens in the order of their names, the lapsed ones too.
func (db *DB) Tokens(ctx context.Context) ([]Token, error) {
	tokens, err := db.tokens(ctx)
	if err != nil {
		return nil, fmt.Errorf("read tokens: %w", explain(err))
	}
	return tokens, nil
}

func (db *DB) tokens(ctx context.Context) ([]Token, error) {
	rows, err := db.reader.QueryContext(ctx, "SELECT name, scope, sum, created, expires FROM tokens ORDER BY name")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var tokens []Token
	for rows.Next() {
		var t Token
		var sum sql.RawBytes
		var created, expires int64
		if err := rows.Scan(&t.Name, &t.Scope, &sum, &created, &expires); err != nil {
			return nil, err
		}
		if len(sum) != len(t.Sum) {
			return nil, fmt.Errorf("token %.80q: %s", t.Name, damaged)
		}
		copy(t.Sum[:], sum)
		t.Created = time.UnixMicro(created).UTC()
		if expires != 0 {
			t.Expires = time.UnixMicro(expires).UTC()
		}
		tokens = append(tokens, t)
	}
	return tokens, rows.Err()
}

// micros gives the zero time the number 0, which no token's lapse needs for itself.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}
