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
	return readCSV(r, func(c *csvReader) (func() (Row, error), error) {
		columns, err := readHeader(c)
		return func() (Row, error) { return columns.parse(c) }, err
	})
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
		label, err := labelOf(string(tag))
		if err != nil {
			return nil, fmt.Errorf("tag %.12q cannot be made a label of a-z, 0-9 and hyphens, 1 to %d characters long", tag, hashlist.MaxName)
		}
		labels = append(labels, label)
	}
	return labelSet(labels)
}

// labelOf makes a label of a word: each run of characters that a label may not have
// becomes a hyphen, and capitals become small.
func labelOf(word string) (string, error) {
	label := strings.Join(strings.FieldsFunc(strings.ToLower(word), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9')
	}), "-")
	return label, hashlist.CheckName(label)
}

// labelSet puts labels into the order that rows want.
func labelSet(labels []string) ([]string, error) {
	slices.Sort(labels)
	labels = slices.Compact(labels)
	if err := hashlist.CheckLabels(labels); err != nil {
		return nil, err
	}
	return labels, nil
}

func writePytx(w io.Writer, head Head) *RowWriter {
	list := string(appendField(nil, head.Name))
	return newRowWriter(w, []byte(pytxHeader+"\n"), ofHash(func(line []byte, row Row) ([]byte, error) {
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
	}))
}
