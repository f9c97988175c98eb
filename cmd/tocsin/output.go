package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// line prints one JSON object on a line.
func (a *app) line(v any) error {
	e := json.NewEncoder(a.out)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// failed is the object that stands, with --json, for an argument of which
// nothing can be said. Without --json nothing is printed: the error comes later.
func (a *app) failed(key, arg string, err error) error {
	if !a.json {
		return nil
	}
	return a.line(map[string]string{key: arg, "error": plain(err).Error()})
}

// table prints rows under a header, in columns.
func (a *app) table(header []string, rows [][]string) error {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(header, "\t"))
	for _, row := range rows {
		for i, cell := range row {
			row[i] = printable(cell)
		}
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

// width is how many characters a line of the terminal has, 0 if the output is none.
func (a *app) width() int {
	f, ok := a.out.(*os.File)
	if !ok {
		return 0
	}
	w, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return w
}

// fit cuts the last column of a table, with an ellipsis, where its lines would be longer than
// width characters; but it leaves some of it. 0 cuts nothing.
func fit(header []string, rows [][]string, width int) {
	if width <= 0 {
		return
	}
	const gap, least = 2, 20
	last := len(header) - 1
	left := width
	for i, name := range header[:last] {
		widest := utf8.RuneCountInString(name)
		for _, row := range rows {
			widest = max(widest, utf8.RuneCountInString(printable(row[i])))
		}
		left -= widest + gap
	}
	for _, row := range rows {
		row[last] = short(printable(row[last]), max(left, least))
	}
}

// warn tells what went not quite as wished, but well enough to go on.
func (a *app) warn(format string, args ...any) {
	fmt.Fprintf(a.err, "tocsin: "+format+"\n", args...)
}

// printable keeps what others wrote, such as reasons and names of files, from
// steering the terminal or breaking the lines of a table.
func printable(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return s
	}
	q := strconv.Quote(s)
	return q[1 : len(q)-1]
}

// stamp is a time in JSON and in tables: RFC 3339 in UTC, nil for none.
func stamp(t *timestamppb.Timestamp) *string {
	if t == nil || t.AsTime().IsZero() {
		return nil
	}
	s := t.AsTime().UTC().Format(time.RFC3339)
	return &s
}

// or returns what p points to, or else what.
func or(p *string, what string) string {
	if p == nil {
		return what
	}
	return *p
}

// some makes an empty list of a missing one, so that JSON has [] and not null.
func some[T any](v []T) []T {
	if v == nil {
		return []T{}
	}
	return v
}

// named makes an error about a file, which may have another name until it is
// complete, one about the file that the user asked for.
func named(what, name string, err error) error {
	var reason error
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		reason = path.Err
		if errors.Is(reason, fs.ErrExist) && path.Path != name {
			return fmt.Errorf("%s %s: %s is there, unfinished: another tocsin writes it, or one was cut off; in that case remove it", what, name, path.Path)
		}
	case errors.As(err, &link):
		reason = link.Err
	default:
		return err
	}
	return fmt.Errorf("%s %s: %w", what, name, reason)
}

// terminal reports whether w is a terminal.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// plural writes a count with its noun.
func plural(n uint64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if rest, ok := strings.CutSuffix(noun, "h"); ok {
		noun = rest + "he"
	}
	return strconv.FormatUint(n, 10) + " " + noun + "s"
}
