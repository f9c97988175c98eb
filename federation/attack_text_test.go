package federation

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestBounded: what is stored of an error is text of at most 1,000 bytes. Cut in the middle of a character it would not
// be, and the database would refuse all that was to be stored with it.
func TestBounded(t *testing.T) {
	for _, text := range []string{
		strings.Repeat("é", 600), "x" + strings.Repeat("é", 600), strings.Repeat("\U0001f514", 300), "a\x00b", "\xff\xfe", "\x1b[2J", strings.Repeat("x", 5000),
	} {
		got := bounded(errors.New(text))
		if !utf8.ValidString(got) || len(got) > 1000 || strings.ContainsAny(got, "\x00\x1b") || got == "" {
			t.Errorf("%.20q became %d bytes: %.20q", text, len(got), got)
		}
	}
}
