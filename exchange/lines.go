package exchange

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
)

// maxLine is the longest line, without its end, that is looked at. The longest
// an honest file needs is a hash and a path; Linux paths have up to 4 KiB.
const maxLine = 64 << 10

// errLineTooLong is about one line; the next can be read.
var errLineTooLong = fmt.Errorf("line is longer than %d bytes", maxLine)

// lines reads a file line by line in constant memory.
type lines struct {
	r *bufio.Reader
	n int // number of the line last returned
}

func newLines(r io.Reader) *lines {
	return &lines{r: bufio.NewReaderSize(r, maxLine+2)} // CRLF
}

// next returns the next line without its end. It is valid until the next call.
// The error is errLineTooLong, io.EOF after the last line, or final.
func (l *lines) next() ([]byte, error) {
	line, err := l.r.ReadSlice('\n')
	l.n++
	tooLong := false
	for errors.Is(err, bufio.ErrBufferFull) {
		tooLong = true
		_, err = l.r.ReadSlice('\n')
	}
	switch {
	case err == io.EOF && (len(line) > 0 || tooLong):
		// The last line has no end.
	case err == io.EOF:
		return nil, io.EOF
	case err != nil:
		return nil, fmt.Errorf("couldn't read line %d: %w", l.n, err)
	}
	if tooLong {
		return nil, errLineTooLong
	}
	if l.n == 1 {
		if bytes.HasPrefix(line, []byte("\xff\xfe")) || bytes.HasPrefix(line, []byte("\xfe\xff")) {
			return nil, errors.New("the file is UTF-16; convert it to UTF-8")
		}
		line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))
	}
	line = bytes.TrimSuffix(line, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(line) > maxLine {
		return nil, errLineTooLong
	}
	return line, nil
}

// parser reads one line that is neither blank nor a comment. An error is about
// that line alone; errNoRow says that it is not a row and that this is fine.
type parser func(line []byte, number int, o Options) (Row, error)

var errNoRow = errors.New("no row")

// readLines reads a format of one row a line, with # before comments.
func readLines(r io.Reader, o Options, parse parser) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		l := newLines(r)
		for {
			line, err := l.next()
			if err == io.EOF {
				return
			}
			if err != nil && err != errLineTooLong {
				yield(Row{}, err)
				return
			}
			var row Row
			if err == nil {
				line = bytes.TrimSpace(line)
				if len(line) == 0 || line[0] == '#' {
					continue
				}
				row, err = parse(line, l.n, o)
			}
			switch {
			case err == errNoRow:
				continue
			case err != nil:
				if !yield(Row{}, BadRow{l.n, err.Error()}) {
					return
				}
			default:
				row.Line = l.n
				if !yield(row, nil) {
					return
				}
			}
		}
	}
}
