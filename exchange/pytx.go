package exchange

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// pytxHeader is what python-threatexchange writes today; before version 1.0
// "collab" came first (facebook/ThreatExchange, python-threatexchange,
// threatexchange/cli/dataset_cmd.py). So columns go by their names.
const pytxHeader = "signal_type,signal_str,collab,category,tags"

// pytxTypes are the signal types that are one of our algorithms. All others
// are of something else, even where the name ends in md5: url_md5 and text_md5
// are not of the bytes of a file.
var pytxTypes = []struct {
	name string
	a    hashlist.Algorithm
}{
	// Python knows digests of videos alone, but a digest does not care; for
	// each algorithm the first name is the one to write.
	{"pdq", hashlist.PDQ},
	{"video_md5", hashlist.MD5},
	{"md5", hashlist.MD5},
	{"video_sha256", hashlist.SHA256},
	{"sha256", hashlist.SHA256},
	{"sha1", hashlist.SHA1},
}

func readPytx(r io.Reader, o Options) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		c := csvReader{lines: newLines(r)}
		columns, err := readHeader(&c)
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
				row, err = columns.parse(&c)
			}
			switch {
			case err == errNoRow:
				continue
			case err != nil:
				if !yield(Row{}, BadRow{c.line, err.Error()}) {
					return
				}
			default:
				row.Line = c.line
				if !yield(row, nil) {
					return
				}
			}
		}
	}
}

// pytxColumns are indexes of fields; -1: there is no such column.
type pytxColumns struct{ n, kind, signal, category, tags int }

func readHeader(c *csvReader) (pytxColumns, error) {
	err := c.next()
	var bad csvError
	if err == io.EOF || errors.As(err, &bad) {
		return pytxColumns{}, fmt.Errorf("this is not a pytx CSV: its first line is not a header (want %s)", pytxHeader)
	} else if err != nil {
		return pytxColumns{}, err
	}
	columns := pytxColumns{n: c.len(), kind: -1, signal: -1, category: -1, tags: -1}
	for i := range c.len() {
		var column *int
		switch string(bytes.TrimSpace(c.field(i))) {
		case "signal_type":
			column = &columns.kind
		case "signal_str":
			column = &columns.signal
		case "category":
			column = &columns.category
		case "tags":
			column = &columns.tags
		default:
			continue
		}
		if *column >= 0 {
			return pytxColumns{}, fmt.Errorf("this is not a pytx CSV: its header has a column twice (want %s)", pytxHeader)
		}
		*column = i
	}
	if columns.kind < 0 || columns.signal < 0 {
		return pytxColumns{}, fmt.Errorf("this is not a pytx CSV: its header has no signal_type or no signal_str (want %s)", pytxHeader)
	}
	return columns, nil
}

func (t *pytxColumns) parse(c *csvReader) (Row, error) {
	if c.len() == 1 && len(bytes.TrimSpace(c.field(0))) == 0 {
		return Row{}, errNoRow
	}
	if c.len() != t.n {
		return Row{}, fmt.Errorf("%d fields, and the header has %d", c.len(), t.n)
	}
	a, err := parseSignalType(bytes.TrimSpace(c.field(t.kind)))
	if err != nil {
		return Row{}, err
	}
	if t.category >= 0 {
		if err := checkCategory(bytes.TrimSpace(c.field(t.category))); err != nil {
			return Row{}, err
		}
	}
	row := Row{Quality: -1}
	if t.tags >= 0 {
		if row.Labels, err = parseTags(c.field(t.tags)); err != nil {
			return Row{}, err
		}
	}
	row.Hash, err = parseHash(a, bytes.TrimSpace(c.field(t.signal)))
	return row, err
}

func parseSignalType(name []byte) (hashlist.Algorithm, error) {
	for _, t := range pytxTypes {
		if string(name) == t.name {
			return t.a, nil
		}
	}
	return 0, fmt.Errorf("signal type %.12q is not supported (pdq, video_md5, md5, sha1, video_sha256 and sha256 are)", name)
}

// checkCategory refuses what its own list says does not match bad content. The
// names are those of SignalOpinionCategory, now and before version 1.0.
func checkCategory(name []byte) error {
	switch string(name) {
	case "", "POSITIVE_CLASS", "INVESTIGATION_SEED", "TRUE_POSITIVE", "WORTH_INVESTIGATING":
		return nil
	case "NEGATIVE_CLASS", "FALSE_POSITIVE":
		return fmt.Errorf("category %s says that it finds the wrong content", name)
	case "DISPUTED":
		return errors.New("category DISPUTED: some say that it finds the wrong content")
	}
	return fmt.Errorf("unknown category %.12q", name)
}

// parseTags makes labels of tags, which blanks separate. A tag may have
// characters that a label may not, as in media_type_photo: each run of them
// becomes a hyphen, and capitals become small.
func parseTags(tags []byte) ([]string, error) {
	if !utf8.Valid(tags) {
		return nil, errors.New("the tags are not UTF-8")
	}
	var labels []string
	for tag := range bytes.FieldsSeq(tags) {
		if len(labels) >= 4*hashlist.MaxLabels { // with repetitions
			return nil, errors.New("too many tags")
		}
		label := strings.Join(strings.FieldsFunc(strings.ToLower(string(tag)), func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < '0' || r > '9')
		}), "-")
		if err := hashlist.CheckName(label); err != nil {
			return nil, fmt.Errorf("tag %.12q cannot be made a label of a-z, 0-9 and hyphens, 1 to %d characters long", tag, hashlist.MaxName)
		}
		labels = append(labels, label)
	}
	slices.Sort(labels)
	labels = slices.Compact(labels)
	if err := hashlist.CheckLabels(labels); err != nil {
		return nil, err
	}
	return labels, nil
}

func writePytx(w io.Writer, list string) *RowWriter {
	list = string(appendField(nil, list))
	return newRowWriter(w, []byte(pytxHeader+"\n"), func(line []byte, row Row) ([]byte, error) {
		for _, t := range pytxTypes {
			if t.a == row.Hash.Algorithm() {
				line = append(append(line, t.name...), ',')
				line = append(hex.AppendEncode(line, row.Hash.Sum()), ',')
				line = append(append(line, list...), ",POSITIVE_CLASS,"...)
				for i, label := range row.Labels {
					if i > 0 {
						line = append(line, ' ')
					}
					line = append(line, label...)
				}
				return line, nil
			}
		}
		return line, ErrCannotCarry
	})
}

// appendField quotes a field where CSV (RFC 4180) needs it.
func appendField(line []byte, field string) []byte {
	if !strings.ContainsAny(field, "\",\r\n") {
		return append(line, field...)
	}
	line = append(line, '"')
	line = append(line, strings.ReplaceAll(field, `"`, `""`)...)
	return append(line, '"')
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
