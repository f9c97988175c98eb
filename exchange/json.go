package exchange

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"unicode/utf8"
)

// maxDepth is how deep JSON and XML may be nested. The formats need less than ten.
const maxDepth = 32

// errStop says that the loop over a sequence was left.
var errStop = errors.New("stop")

// errTooLarge is final: where a value ends that is too large to be looked at is not known.
var errTooLarge = fmt.Errorf("an entry is larger than %d bytes", maxLine)

// budget reads no more than was granted, and notes where lines end if it is asked for them.
type budget struct {
	r      io.Reader
	left   int
	lines  bool
	offset int64
	ends   []int64 // offsets behind the line ends that were read and not yet passed
	line   int     // line ends passed
}

func (b *budget) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLarge
	}
	n, err := b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	for i, c := range p[:n] {
		if b.lines && c == '\n' {
			b.ends = append(b.ends, b.offset+int64(i)+1)
		}
	}
	b.offset += int64(n)
	return n, err
}

// grant lets one more entry be read.
func (b *budget) grant() { b.left = maxLine }

// lineAt returns the line, from 1, in which the byte at offset is. Offsets must not fall.
func (b *budget) lineAt(offset int64) int {
	n := 0
	for n < len(b.ends) && b.ends[n] <= offset {
		n++
	}
	b.line += n
	b.ends = append(b.ends[:0], b.ends[n:]...)
	return b.line + 1
}

// jsonFile reads JSON of any size, an entry at a time.
type jsonFile struct {
	dec *json.Decoder
	src *budget
	at  int64 // where the value last read begins
}

// readJSON makes a sequence of what read puts. read gets the file before its first value, and
// returns what is final.
func readJSON(r io.Reader, read func(j *jsonFile, put func(Row, error) error) error) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		j, err := openJSON(r)
		if err == nil {
			err = read(j, func(row Row, err error) error {
				row.Line = j.line()
				if err != nil {
					row, err = Row{}, BadRow{row.Line, err.Error()}
				}
				if !yield(row, err) {
					return errStop
				}
				return nil
			})
		}
		if err == nil {
			err = j.end()
		}
		if err != nil && !errors.Is(err, errStop) {
			yield(Row{}, err)
		}
	}
}

func openJSON(r io.Reader) (*jsonFile, error) {
	in := bufio.NewReader(r)
	if err := skipMark(in, "JSON", "{["); err != nil {
		return nil, err
	}
	j := &jsonFile{src: &budget{r: in, lines: true}}
	j.dec = json.NewDecoder(j.src)
	return j, nil
}

// skipMark passes over a byte order mark and checks that a file begins as it should.
func skipMark(in *bufio.Reader, format, begin string) error {
	head, err := in.Peek(3)
	if err != nil && err != io.EOF {
		return fmt.Errorf("couldn't read line 1: %w", err)
	}
	if bytes.HasPrefix(head, []byte("\xff\xfe")) || bytes.HasPrefix(head, []byte("\xfe\xff")) {
		return errors.New("the file is UTF-16; convert it to UTF-8")
	}
	if bytes.Equal(head, []byte("\xef\xbb\xbf")) {
		_, _ = in.Discard(len(head))
	}
	head, err = in.Peek(512)
	if err != nil && err != io.EOF && len(head) == 0 {
		return fmt.Errorf("couldn't read line 1: %w", err)
	}
	head = bytes.TrimLeft(head, " \t\r\n")
	switch {
	case len(head) == 0:
		return fmt.Errorf("this is not %s: it is empty", format)
	case bytes.IndexByte([]byte(begin), head[0]) >= 0:
		return nil
	case head[0] == '<':
		return fmt.Errorf("this is not %s: it is HTML or XML", format)
	}
	return fmt.Errorf("this is not %s", format)
}

func (j *jsonFile) line() int { return j.src.lineAt(j.at) }

func (j *jsonFile) fail(err error) error {
	if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("line %d: the file ends before its JSON does: it was cut off", j.src.lineAt(j.dec.InputOffset()))
	}
	if s, ok := errors.AsType[*json.SyntaxError](err); ok {
		err = errors.New("it is not JSON: " + s.Error())
	}
	return fmt.Errorf("couldn't read line %d: %w", j.src.lineAt(j.dec.InputOffset()), err)
}

func (j *jsonFile) token() (json.Token, error) {
	j.src.grant()
	t, err := j.dec.Token()
	if err != nil {
		return nil, j.fail(err)
	}
	j.at = j.dec.InputOffset() - 1
	return t, nil
}

// end checks that nothing follows.
func (j *jsonFile) end() error {
	j.src.grant()
	_, err := j.dec.Token()
	switch {
	case err == io.EOF:
		return nil
	case err == nil:
		err = errors.New("something follows behind the JSON")
	}
	return j.fail(err)
}

// begin reads the begin of an object or array, false if the value is null.
func (j *jsonFile) begin(delim json.Delim) (bool, error) {
	t, err := j.token()
	if err != nil || t == nil {
		return false, err
	}
	if t != delim {
		return false, fmt.Errorf("line %d: this is not the format: there should be a %v", j.line(), delim)
	}
	return true, nil
}

// object calls each for each key of the object that comes next. each reads or skips the value.
func (j *jsonFile) object(each func(key string) error) error {
	ok, err := j.begin('{')
	for err == nil && ok && j.more() {
		var key json.Token
		if key, err = j.token(); err == nil {
			name, _ := key.(string)
			err = each(name)
		}
	}
	if err != nil || !ok {
		return err
	}
	_, err = j.token()
	return err
}

// array calls each for each value of the array that comes next. each reads or skips it.
func (j *jsonFile) array(each func() error) error {
	ok, err := j.begin('[')
	for err == nil && ok && j.more() {
		err = each()
	}
	if err != nil || !ok {
		return err
	}
	_, err = j.token()
	return err
}

func (j *jsonFile) more() bool {
	j.src.grant()
	return j.dec.More()
}

// raw reads the next value as it stands.
func (j *jsonFile) raw() (json.RawMessage, error) {
	j.src.grant()
	var raw json.RawMessage
	if err := j.dec.Decode(&raw); err != nil {
		return nil, j.fail(err)
	}
	j.at = j.dec.InputOffset() - int64(len(raw))
	return raw, nil
}

// value reads the next value into v. bad is about this value alone.
func (j *jsonFile) value(v any) (bad, err error) {
	raw, err := j.raw()
	if err != nil {
		return nil, err
	}
	return decode(raw, v), nil
}

func decode(raw json.RawMessage, v any) error {
	if !utf8.Valid(raw) {
		return errors.New("the entry is not UTF-8")
	}
	depth, text := 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
		case text:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return errors.New("the entry is nested too deep")
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	if err := json.Unmarshal(raw, v); err != nil {
		if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return fmt.Errorf("%.40q of the entry is a %s", t.Field, t.Value)
		}
		return errors.New("the entry cannot be read")
	}
	return nil
}

// text reads the next value as a string; anything else is "".
func (j *jsonFile) text() (string, error) {
	var s string
	bad, err := j.value(&s)
	if bad != nil {
		s = ""
	}
	return s, err
}

// skip passes over the next value, which may have any size.
func (j *jsonFile) skip() error {
	for depth := 0; ; {
		t, err := j.token()
		if err != nil {
			return err
		}
		if d, ok := t.(json.Delim); ok {
			switch d {
			case '{', '[':
				if depth++; depth > maxDepth {
					return fmt.Errorf("line %d: it is nested too deep", j.line())
				}
			default:
				depth--
			}
		}
		if depth == 0 {
			return nil
		}
	}
}

// under reads the array that is the whole file, or is in it under one of keys. beside is told of the
// other keys, and reads or skips their values; nil skips them.
func (j *jsonFile) under(each func() error, beside func(key string) error, keys ...string) error {
	if j.startsWith('[') {
		return j.array(each)
	}
	found := false
	err := j.object(func(key string) error {
		for _, k := range keys {
			if k == key {
				found = true
				return j.array(each)
			}
		}
		if beside != nil {
			return beside(key)
		}
		return j.skip()
	})
	if err == nil && !found {
		err = fmt.Errorf("this is not the format: it has no %s", keys[0])
	}
	return err
}

// startsWith reports whether the next value begins with c. It may be asked before the first
// value alone.
func (j *jsonFile) startsWith(c byte) bool {
	in := j.src.r.(*bufio.Reader)
	head, _ := in.Peek(512)
	head = bytes.TrimLeft(head, " \t\r\n")
	return len(head) > 0 && head[0] == c
}

// quote writes a string as JSON.
func quote(line []byte, s string) []byte {
	b, _ := json.Marshal(s) // a string always can be
	return append(line, b...)
}
