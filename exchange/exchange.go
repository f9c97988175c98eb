// Package exchange reads and writes the hash lists of other systems.
//
// A [Format] turns a stream of bytes into [Row]s and back. Lists come from
// strangers and are large, so reading takes constant memory whatever the file
// holds, and one bad row does not end it: the sequence yields a [BadRow] with
// its line number and goes on. Any other error is the last thing a sequence
// yields: the file could not be read, or is not in the format at all.
//
//	format, err := exchange.Lookup("pytx")
//	...
//	for row, err := range format.Read(file, exchange.Options{}) {
//		if bad, ok := errors.AsType[exchange.BadRow](err); ok {
//			report(bad)
//			continue
//		} else if err != nil {
//			return err
//		}
//		list(row.Hash, row.Labels)
//	}
//
// What no format lets in: the all-zero perceptual hash, which tools print for
// what they could not decode, and a picture whose quality is known and below
// [Options].MinQuality, because the hash of a nearly flat picture matches
// others like it. Rows that repeat a hash are all yielded.
//
// Lines end in LF or CRLF, the last may have no end, and a UTF-8 byte order
// mark is passed over. A line may have up to 64 KiB.
package exchange

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// Row is one hash of a list.
type Row struct {
	Line    int // where it begins, from 1; not used in writing
	Hash    hashlist.Hash
	Quality int      // of the picture, 0 to 100; -1: unknown
	Labels  []string // as hashlist.CheckLabels wants them
}

// BadRow is the error for one row that was refused. It never holds a whole
// hash, so it may be shown and logged.
type BadRow struct {
	Line   int // where the row begins, from 1
	Reason string
}

func (b BadRow) Error() string { return fmt.Sprintf("line %d: %s", b.Line, b.Reason) }

// DefaultMinQuality is the least quality customary with PDQ: 49 and below are
// discarded.
const DefaultMinQuality = 50

// Options say how to read what a file leaves open.
type Options struct {
	// Algorithm is what the hashes were made with where a row does not say
	// so. 0: guess by length.
	Algorithm hashlist.Algorithm
	// MinQuality is the least quality to accept, where it is known. 0:
	// DefaultMinQuality; negative: any.
	MinQuality int
}

func (o Options) checkQuality(quality int) error {
	least := o.MinQuality
	if least == 0 {
		least = DefaultMinQuality
	}
	if quality < least {
		return fmt.Errorf("quality %d is below %d", quality, least)
	}
	return nil
}

// ErrCannotCarry is in the error of RowWriter.Write for a row whose hash the
// format has no place for. A caller may leave it out and go on.
var ErrCannotCarry = errors.New("the format cannot carry it")

// Format is a form of file.
type Format struct {
	Name        string // lower case, as given to Lookup
	Description string // one line for a list of formats

	// Read yields the rows of r in their order. It reads r as the loop goes
	// on, through a buffer, and can be ranged over once. A row comes with a
	// nil error; with an error there is no row.
	Read func(r io.Reader, o Options) iter.Seq2[Row, error]

	// Write returns a writer of rows to w. The name of the list goes where the
	// format has a column for where a hash is from.
	Write func(w io.Writer, list string) *RowWriter
}

var formats = []Format{
	{
		Name: "plain",
		Description: "a hash on each line, as algorithm:hex or bare (64 hex digits are taken for pdq, 40 sha1, 32 md5); " +
			"carries hashes alone",
		Read:  func(r io.Reader, o Options) iter.Seq2[Row, error] { return readLines(r, o, parsePlain) },
		Write: func(w io.Writer, _ string) *RowWriter { return newRowWriter(w, nil, appendPlain) },
	},
	{
		Name:        "pdq",
		Description: `"pdq <hex>" on each line, or another algorithm's name; carries hashes alone`,
		Read:        func(r io.Reader, o Options) iter.Seq2[Row, error] { return readLines(r, o, parsePair) },
		Write:       func(w io.Writer, _ string) *RowWriter { return newRowWriter(w, nil, appendPair) },
	},
	{
		Name:        "pdq-csv",
		Description: `"hash,quality,filename" on each line, as pdq-photo-hasher prints it; carries PDQ hashes and their quality`,
		Read:        func(r io.Reader, o Options) iter.Seq2[Row, error] { return readLines(r, o, parsePDQCSV) },
		Write:       func(w io.Writer, _ string) *RowWriter { return newRowWriter(w, nil, appendPDQCSV) },
	},
	{
		Name:        "pytx",
		Description: "CSV of \"threatexchange dataset -P --csv\" (" + pytxHeader + "); carries PDQ, MD5, SHA-256 and labels",
		Read:        readPytx,
		Write:       writePytx,
	},
}

// Formats returns every format there is.
func Formats() []Format { return append([]Format(nil), formats...) }

// Lookup returns the format of that name. Its error lists the names there are.
func Lookup(name string) (Format, error) {
	names := make([]string, len(formats))
	for i, f := range formats {
		if f.Name == name {
			return f, nil
		}
		names[i] = f.Name
	}
	return Format{}, fmt.Errorf("unknown format %.40q (want one of %s)", name, strings.Join(names, ", "))
}

// RowWriter writes rows in one format. It must be closed.
type RowWriter struct {
	w      *bufio.Writer
	start  []byte // to be written before the first row
	format func(line []byte, row Row) ([]byte, error)
	line   []byte
}

func newRowWriter(w io.Writer, start []byte, format func([]byte, Row) ([]byte, error)) *RowWriter {
	return &RowWriter{w: bufio.NewWriterSize(w, 64<<10), start: start, format: format}
}

// Write adds a row. What the format has no place for is left out; if that is
// the hash itself, nothing is written and the error is ErrCannotCarry.
func (w *RowWriter) Write(row Row) error {
	var err error
	if !row.Hash.Algorithm().Valid() {
		return errors.New("couldn't write a row: it has no hash")
	}
	if row.Quality < -1 || row.Quality > 100 {
		return fmt.Errorf("couldn't write a row: its quality is %d", row.Quality)
	}
	if err := hashlist.CheckLabels(row.Labels); err != nil {
		return fmt.Errorf("couldn't write a row: %w", err)
	}
	if w.line, err = w.format(w.line[:0], row); err != nil {
		return fmt.Errorf("couldn't write a %v hash: %w", row.Hash.Algorithm(), err)
	}
	if err := w.begin(); err != nil {
		return err
	}
	if _, err := w.w.Write(append(w.line, '\n')); err != nil {
		return fmt.Errorf("couldn't write rows: %w", err)
	}
	return nil
}

// Close writes out what is buffered. It does not close the writer below.
func (w *RowWriter) Close() error {
	if err := w.begin(); err != nil {
		return err
	}
	if err := w.w.Flush(); err != nil {
		return fmt.Errorf("couldn't write rows: %w", err)
	}
	return nil
}

func (w *RowWriter) begin() error {
	if _, err := w.w.Write(w.start); err != nil {
		return fmt.Errorf("couldn't write rows: %w", err)
	}
	w.start = nil
	return nil
}
