package exchange

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// mastodonHeader is what Mastodon writes, and what GoToSocial counts the fields of.
// If the first name is not exactly this, or a byte order mark is before it, Mastodon takes the file for a
// list of names and suspends each (app/models/form/domain_block_import, app/models/admin/import.rb).
const mastodonHeader = "#domain,#severity,#reject_media,#reject_reports,#public_comment,#obfuscate"

// mastodonRows is how many rows Mastodon imports at once; it refuses a file with more.
const mastodonRows = 20_000

// Severities and actions. Suspend deletes what there was of a server, which is drop. Reject is
// written as suspend too, and so comes back as drop: there is no word for it.
// Silence hides a server from those who do not follow it, which is filter. Noop does nothing: the
// entry is there for its comment, or for reject_media and reject_reports.
func severityOf(row *Row) (string, error) {
	switch {
	case row.blocked():
		return "suspend", nil
	case row.Action == hashlist.Filter && row.has(LabelAdvisory):
		return "noop", nil
	case row.Action == hashlist.Filter:
		return "silence", nil
	}
	return "", ErrCannotCarry // accept: the rows of a list of blocks are blocks
}

// terms sets a row's action and labels from a severity and flags.
func (r *Row) terms(severity string, o Options, media, reports, obfuscate bool) error {
	switch strings.ToLower(severity) {
	case "":
		r.Action = o.blocks() // as Mastodon has it, which knows no other default
	case "suspend":
		r.Action = hashlist.Drop
	case "silence", "limit":
		r.Action = hashlist.Filter
	case "noop", "none":
		r.Action, r.Labels = hashlist.Filter, append(r.Labels, LabelAdvisory)
	default:
		return fmt.Errorf("severity %.20q is not suspend, silence or noop", severity)
	}
	if media {
		r.Labels = append(r.Labels, LabelRejectMedia)
	}
	if reports {
		r.Labels = append(r.Labels, LabelRejectReports)
	}
	if obfuscate {
		r.Labels = append(r.Labels, LabelObfuscate)
	}
	var err error
	r.Labels, err = labelSet(r.Labels)
	return err
}

// blockColumns are indexes of fields; -1: there is no such column.
type blockColumns struct {
	o                                                              Options
	n, domain, severity, media, reports, public, obfuscate, digest int
}

// columns finds the columns of domain blocks by their names, with # before them or not. All
// others are not looked at, above all private_comment, which is nobody else's business.
func columnsOf(c *csvReader, o Options) (*blockColumns, error) {
	t := &blockColumns{o: o, n: c.len(), domain: -1, severity: -1, media: -1, reports: -1, public: -1, obfuscate: -1, digest: -1}
	for i := range c.len() {
		var column *int
		switch strings.ToLower(strings.TrimPrefix(string(bytes.TrimSpace(c.field(i))), "#")) {
		case "domain":
			column = &t.domain
		case "severity":
			column = &t.severity
		case "reject_media":
			column = &t.media
		case "reject_reports":
			column = &t.reports
		case "public_comment", "comment":
			column = &t.public
		case "obfuscate":
			column = &t.obfuscate
		case "digest":
			column = &t.digest
		default:
			continue
		}
		if *column >= 0 {
			return nil, errors.New("the header has a column twice")
		}
		*column = i
	}
	if t.domain < 0 {
		return nil, errors.New("the header has no column named domain")
	}
	return t, nil
}

func (t *blockColumns) parse(c *csvReader) (Row, error) {
	blank := true
	for i := range c.len() {
		blank = blank && len(bytes.TrimSpace(c.field(i))) == 0
	}
	if blank {
		return Row{}, errNoRow
	}
	if c.len() != t.n {
		return Row{}, fmt.Errorf("%d fields, and the header has %d", c.len(), t.n)
	}
	get := func(i int) string {
		if i < 0 {
			return ""
		}
		return strings.TrimSpace(string(c.field(i)))
	}
	row := Row{Quality: -1, Reason: flat(comment(unguard(get(t.public))))}
	var flags [3]bool
	for i, column := range [...]int{t.media, t.reports, t.obfuscate} {
		var err error
		if flags[i], err = parseBool(get(column)); err != nil {
			return Row{}, fmt.Errorf("%s is neither true nor false: do the columns fit the header?",
				[...]string{"reject_media", "reject_reports", "obfuscate"}[i])
		}
	}
	var err error
	if row.Subject, err = t.o.domain(get(t.domain), get(t.digest), row.Reason); err != nil {
		return Row{}, err
	}
	return row, row.terms(get(t.severity), t.o, flags[0], flags[1], flags[2])
}

func parseBool(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "true", "t", "1", "yes":
		return true, nil
	case "", "false", "f", "0", "no":
		return false, nil
	}
	return false, errors.New("neither true nor false")
}

// header reads the first record.
func (c *csvReader) header(want string) error {
	err := c.next()
	var bad csvError
	if err == io.EOF || errors.As(err, &bad) {
		return fmt.Errorf("the first line is not a header (want %s)", want)
	} else if err != nil {
		return err
	}
	if first := bytes.TrimSpace(c.field(0)); len(first) > 0 && first[0] == '<' {
		return errors.New("this is not CSV: it is HTML or XML")
	}
	return nil
}

func readMastodon(r io.Reader, o Options) iter.Seq2[Row, error] {
	return readCSV(r, func(c *csvReader) (func() (Row, error), error) {
		if err := c.header(mastodonHeader); err != nil {
			return nil, err
		}
		if string(c.field(0)) != "#domain" {
			return nil, errors.New("this is not Mastodon's CSV: its first column is not named #domain, and so Mastodon would " +
				"suspend whatever it names; if you know what it is, read it as fediblockhole or domains")
		}
		t, err := columnsOf(c, o)
		return func() (Row, error) { return t.parse(c) }, err
	})
}

// readFediBlockHole refuses a file without severities, such as an allow list, unless Options say what
// it recommends: to suspend all that somebody allows would be the worst guess.
func readFediBlockHole(r io.Reader, o Options) iter.Seq2[Row, error] {
	return readCSV(r, func(c *csvReader) (func() (Row, error), error) {
		if err := c.header("domain,severity,..."); err != nil {
			return nil, err
		}
		t, err := columnsOf(c, o)
		if err == nil && t.severity < 0 && o.Action == 0 {
			err = errors.New("the header has no column named severity: say which action the file recommends, as in accept for an allow list")
		}
		return func() (Row, error) { return t.parse(c) }, err
	})
}

// readGoToSocialCSV passes over a header as GoToSocial does, and refuses what that leaves out.
func readGoToSocialCSV(r io.Reader, o Options) iter.Seq2[Row, error] {
	return readCSV(r, func(c *csvReader) (func() (Row, error), error) {
		t := &blockColumns{o: o, n: 6, domain: 0, severity: 1, media: 2, reports: 3, public: 4, obfuscate: 5, digest: -1}
		return func() (Row, error) {
			if c.len() != t.n {
				return Row{}, fmt.Errorf("%d fields: GoToSocial leaves out every row that has not exactly 6", c.len())
			}
			if first := string(c.field(0)); first == "#domain" || first == "domain" {
				return Row{}, errNoRow
			}
			row, err := t.parse(c)
			if err == nil && !row.blocked() {
				return Row{}, errors.New("its severity is not suspend: GoToSocial leaves it out")
			}
			return row, err
		}, nil
	})
}

func writeMastodon(w io.Writer, _ Head) *RowWriter {
	return newRowWriter(w, []byte(mastodonHeader+"\n"), limited(mastodonRows, ofDomain(func(line []byte, row Row) ([]byte, error) {
		return appendBlock(line, &row, "false", "true")
	})))
}

func writeFediBlockHole(w io.Writer, _ Head) *RowWriter {
	return newRowWriter(w, []byte("domain,severity,public_comment,reject_media,reject_reports,obfuscate\n"), ofDomain(func(line []byte, row Row) ([]byte, error) {
		severity, err := severityOf(&row)
		if err != nil {
			return line, err
		}
		line = append(append(append(append(line, row.Subject...), ','), severity...), ',')
		line = appendField(line, guard(flat(row.Reason)))
		return appendFlags(line, &row, "False", "True", LabelRejectMedia, LabelRejectReports, LabelObfuscate), nil
	}))
}

func writeGoToSocialCSV(w io.Writer, _ Head) *RowWriter {
	return newRowWriter(w, []byte(mastodonHeader+"\n"), ofDomain(func(line []byte, row Row) ([]byte, error) {
		if !row.blocked() {
			return line, ErrCannotCarry
		}
		return appendBlock(line, &row, "false", "true")
	}))
}

// limited carries n rows and no more.
func limited(n int, format func([]byte, Row) ([]byte, error)) func([]byte, Row) ([]byte, error) {
	return func(line []byte, row Row) ([]byte, error) {
		if n == 0 {
			return line, ErrCannotCarry
		}
		line, err := format(line, row)
		if err == nil {
			n--
		}
		return line, err
	}
}

func appendBlock(line []byte, row *Row, no, yes string) ([]byte, error) {
	severity, err := severityOf(row)
	if err != nil {
		return line, err
	}
	line = append(append(append(line, row.Subject...), ','), severity...)
	line = appendFlags(line, row, no, yes, LabelRejectMedia, LabelRejectReports)
	line = appendField(append(line, ','), guard(flat(row.Reason)))
	return appendFlags(line, row, no, yes, LabelObfuscate), nil
}

func appendFlags(line []byte, row *Row, no, yes string, labels ...string) []byte {
	for _, l := range labels {
		word := no
		if row.has(l) {
			word = yes
		}
		line = append(append(line, ','), word...)
	}
	return line
}

// flat puts a reason on one line: readers of other systems go by lines. One that is true or
// false is a flag in the wrong column, under a header that lies, and left out.
func flat(reason string) string {
	reason = strings.Join(strings.Fields(reason), " ")
	if _, err := parseBool(reason); err == nil {
		return ""
	}
	return reason
}

// apiBlock is a domain block in Mastodon's API: comment is of the public list,
// the others of the admin's.
type apiBlock struct {
	Domain        string  `json:"domain"`
	Digest        string  `json:"digest"`
	Severity      string  `json:"severity"`
	Comment       *string `json:"comment"`
	PublicComment *string `json:"public_comment"`
	RejectMedia   bool    `json:"reject_media"`
	RejectReports bool    `json:"reject_reports"`
	Obfuscate     bool    `json:"obfuscate"`
}

func readMastodonAPI(r io.Reader, o Options) iter.Seq2[Row, error] {
	return readJSON(r, func(j *jsonFile, put func(Row, error) error) error {
		return j.array(func() error {
			var b apiBlock
			bad, err := j.value(&b)
			if err != nil {
				return err
			}
			row := Row{Quality: -1}
			if b.Comment != nil {
				row.Reason = comment(*b.Comment)
			} else if b.PublicComment != nil {
				row.Reason = comment(*b.PublicComment)
			}
			if bad == nil {
				row.Subject, bad = o.domain(b.Domain, b.Digest, row.Reason)
			}
			if bad == nil {
				bad = row.terms(b.Severity, o, b.RejectMedia, b.RejectReports, b.Obfuscate)
			}
			return put(row, bad)
		})
	})
}

func writeMastodonAPI(w io.Writer, _ Head) *RowWriter {
	return newJSONWriter(w, "[", "]", ofDomain(func(line []byte, row Row) ([]byte, error) {
		severity, err := severityOf(&row)
		if err != nil {
			return line, err
		}
		sum := sha256.Sum256([]byte(row.Subject))
		line = quote(append(line, `{"domain":`...), row.Subject)
		line = hex.AppendEncode(append(line, `,"digest":"`...), sum[:])
		line = fmt.Appendf(line, `","severity":"%s","comment":`, severity)
		line = quote(line, row.Reason)
		return fmt.Appendf(line, `,"reject_media":%t,"reject_reports":%t,"obfuscate":%t}`,
			row.has(LabelRejectMedia), row.has(LabelRejectReports), row.has(LabelObfuscate)), nil
	}))
}

func readGoToSocialJSON(r io.Reader, o Options) iter.Seq2[Row, error] {
	return readJSON(r, func(j *jsonFile, put func(Row, error) error) error {
		return j.array(func() error {
			var b apiBlock
			bad, err := j.value(&b)
			if err != nil {
				return err
			}
			row := Row{Quality: -1}
			if b.PublicComment != nil {
				row.Reason = comment(*b.PublicComment)
			} else if b.Comment != nil {
				row.Reason = comment(*b.Comment)
			}
			if bad == nil {
				row.Subject, bad = o.domain(b.Domain, "", row.Reason)
			}
			if bad == nil {
				bad = row.terms("", o, false, false, b.Obfuscate)
			}
			return put(row, bad)
		})
	})
}

func writeGoToSocialJSON(w io.Writer, _ Head) *RowWriter {
	return newJSONWriter(w, "[", "]", ofDomain(func(line []byte, row Row) ([]byte, error) {
		if !row.blocked() {
			return line, ErrCannotCarry
		}
		line = quote(append(line, `{"domain":`...), row.Subject)
		line = quote(append(line, `,"public_comment":`...), row.Reason)
		return fmt.Appendf(line, `,"obfuscate":%t}`, row.has(LabelObfuscate)), nil
	}))
}
