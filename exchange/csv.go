package exchange

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
)

// readCSV reads CSV. open reads the header and returns what parses the record that c has
// read. Records with nothing in them are passed over.
func readCSV(r io.Reader, open func(c *csvReader) (parse func() (Row, error), err error)) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		c := &csvReader{lines: newLines(r)}
		parse, err := open(c)
		if err != nil {
			yield(Row{}, err)
			return
		}
		for {
			err := c.next()
			var bad csvError
			if err == io.EOF {
				return
			}
			if err != nil && !errors.As(err, &bad) {
				yield(Row{}, err)
				return
			}
			var row Row
			if err == nil {
				if c.blank() {
					continue
				}
				row, err = parse()
			}
			if err == errNoRow {
				continue
			}
			if err != nil {
				if !yield(Row{}, BadRow{c.line, err.Error()}) {
					return
				}
				continue
			}
			row.Line = c.line
			if !yield(row, nil) {
				return
			}
		}
	}
}

// blank reports whether a record is one field of nothing.
func (c *csvReader) blank() bool { return c.len() == 1 && len(bytes.TrimSpace(c.field(0))) == 0 }

// appendField quotes a field where CSV (RFC 4180) needs it.
func appendField(line []byte, field string) []byte {
	if !strings.ContainsAny(field, "\",\r\n") {
		return append(line, field...)
	}
	line = append(line, '"')
	line = append(line, strings.ReplaceAll(field, `"`, `""`)...)
	return append(line, '"')
}

// guard has a text that others wrote be no formula when a spreadsheet opens the file: before one
// that begins with = + - or @, also wide, or with apostrophes and one of these, there is an apostrophe more. Spaces,
// tabs and line ends before it are left out, as they are in reading. unguard takes the apostrophe away.
func guard(text string) string {
	text = strings.TrimSpace(text)
	if formula(text) {
		return "'" + text
	}
	return text
}

func unguard(text string) string {
	if rest, ok := strings.CutPrefix(text, "'"); ok && formula(rest) {
		return rest
	}
	return text
}

func formula(text string) bool {
	text = strings.TrimLeft(text, "'")
	return text != "" && strings.ContainsRune("=+-@＝＋－＠", []rune(text)[0])
}

// csvReader reads CSV as Python's csv module writes and reads it: a quote
// counts at the beginning of a field alone, and a quoted field may go on for
// several lines. Not encoding/csv, because that has no limit: it would read a
// whole file into one field after a quote that is never closed.
type csvReader struct {
	lines *lines
	line  int    // where the record last read begins
	text  []byte // its fields, one after the other
	ends  []int  // of each in text
}

// csvError is about one record; the next can be read.
type csvError string

// Error implements error.
func (e csvError) Error() string { return string(e) }

func (c *csvReader) len() int { return len(c.ends) }

func (c *csvReader) field(i int) []byte {
	start := 0
	if i > 0 {
		start = c.ends[i-1]
	}
	return c.text[start:c.ends[i]]
}

// next reads a record. Its error is a csvError, io.EOF, or final.
func (c *csvReader) next() error {
	c.text, c.ends = c.text[:0], c.ends[:0]
	quoted := false
	for first := true; first || quoted; first = false {
		line, err := c.lines.next()
		switch {
		case first:
			c.line = c.lines.n
		case err == io.EOF:
			return csvError("a quoted field begins here and has no end")
		case err == errLineTooLong, len(c.text)+len(line) > maxLine:
			return csvError(fmt.Sprintf("a quoted field begins here and does not end; what follows is skipped up to line %d", c.lines.n))
		}
		if err == errLineTooLong {
			return csvError(err.Error())
		}
		if err != nil {
			return err
		}
		if !first {
			c.text = append(c.text, '\n')
		}
		quoted = c.split(line, quoted)
	}
	return nil
}

// split adds the fields of a line and reports whether the last goes on.
func (c *csvReader) split(line []byte, quoted bool) bool {
	for {
		if !quoted && len(line) > 0 && line[0] == '"' {
			quoted, line = true, line[1:]
		}
		for quoted {
			i := bytes.IndexByte(line, '"')
			if i < 0 {
				c.text = append(c.text, line...)
				return true
			}
			c.text = append(c.text, line[:i]...)
			line = line[i+1:]
			if len(line) > 0 && line[0] == '"' {
				c.text = append(c.text, '"')
				line = line[1:]
				continue
			}
			quoted = false
		}
		i := bytes.IndexByte(line, ',')
		if i < 0 {
			c.text = append(c.text, line...)
			c.ends = append(c.ends, len(c.text))
			return false
		}
		c.text = append(c.text, line[:i]...)
		c.ends = append(c.ends, len(c.text))
		line = line[i+1:]
	}
}
