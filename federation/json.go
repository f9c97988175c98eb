package federation

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/gowebpki/jcs"
)

// Bounds of a document that is read. They are checked before anything is
// built from it.
const (
	MaxSigned = 256 << 10 // bytes of one statement: 1000 SHA-256 hashes are 75 KiB
	maxDepth  = 32        // nested arrays and objects
)

// canonical checks that data is one JSON object that every reader understands
// in the same way, and returns its canonical form (RFC 8785). Refused are
// duplicate names, invalid UTF-8 and lone surrogates, more than maxDepth levels, and numbers
// that a double cannot hold exactly, because canonicalisation would round them:
// what is signed would not be what is read.
//
// What is in canonical form already is returned as it is, not copied.
func canonical(data []byte) ([]byte, error) {
	if len(data) > MaxSigned {
		return nil, fmt.Errorf("document of %d bytes is larger than %d", len(data), MaxSigned)
	}
	if isCanonical(data) {
		return data, nil
	}
	return canonicalize(data)
}

// canonicalize does what canonical does, but for the size.
func canonicalize(data []byte) ([]byte, error) {
	depth := 0
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	for first := true; ; first = false {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("document is not JSON: %w", err)
		}
		if first && token != json.Delim('{') {
			return nil, errors.New("document is not a JSON object")
		}
		switch t := token.(type) {
		case json.Delim:
			if t == '{' || t == '[' {
				depth++
			} else {
				depth--
			}
			if depth > maxDepth {
				return nil, fmt.Errorf("document is nested more than %d deep", maxDepth)
			}
		case json.Number:
			if err := checkNumber(t); err != nil {
				return nil, err
			}
		}
	}
	c, err := jcs.Transform(data)
	if err != nil {
		return nil, fmt.Errorf("document has no canonical form: %w", err)
	}
	return c, nil
}

func checkNumber(n json.Number) error {
	f, err := n.Float64()
	if err != nil {
		return fmt.Errorf("number %.40s is out of range", n)
	}
	const exact = 1 << 53
	if f >= exact || f <= -exact {
		return fmt.Errorf("number %.40s is not within 2^53", n)
	}
	return nil
}

// member is one name of a canonical object with its value, in canonical form.
type member struct {
	name  string
	value json.RawMessage
}

// members splits a canonical object, in its order.
func members(canonical []byte) ([]member, error) {
	if all, ok := split(canonical); ok {
		return all, nil
	}
	d := json.NewDecoder(bytes.NewReader(canonical))
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	var all []member
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		m := member{name: name.(string)}
		if err := d.Decode(&m.value); err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

// join puts members together again, but for those left out. They must be in
// canonical order.
func join(all []member, without ...string) []byte {
	var b bytes.Buffer
	b.WriteByte('{')
next:
	for _, m := range all {
		for _, w := range without {
			if m.name == w {
				continue next
			}
		}
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		b.Write(quote(m.name))
		b.WriteByte(':')
		b.Write(m.value)
	}
	b.WriteByte('}')
	return b.Bytes()
}

// quote is the canonical form of a string.
func quote(s string) []byte {
	if q := append(append([]byte{'"'}, s...), '"'); plain(s) {
		return q
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string that came out of a JSON document always goes into one
	c, err := jcs.Transform(bytes.TrimSpace(b.Bytes()))
	if err != nil {
		return b.Bytes()
	}
	return c
}

// plain reports whether s stands in JSON as it is.
func plain(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// object reads members by their exact names. encoding/json would also take
// "Hashes" for "hashes", and so read what others do not.
//
// The first failure sticks; callers check err once.
type object struct {
	values map[string]json.RawMessage
	err    error
}

func newObject(data json.RawMessage) *object {
	o := &object{}
	if all, ok := split(data); ok {
		o.values = make(map[string]json.RawMessage, len(all))
		for _, m := range all {
			o.values[m.name] = m.value
		}
		return o
	}
	if err := json.Unmarshal(data, &o.values); err != nil || o.values == nil {
		o.fail("an object was expected")
	}
	return o
}

func (o *object) fail(format string, args ...any) {
	if o.err == nil {
		o.err = fmt.Errorf(format, args...)
	}
}

func (o *object) has(name string) bool { _, ok := o.values[name]; return ok }

// text returns the string called name, "" if there is none.
func (o *object) text(name string) string {
	v, ok := o.values[name]
	if !ok {
		return ""
	}
	var s *string
	if json.Unmarshal(v, &s) != nil || s == nil {
		o.fail("%s is not a string", name)
		return ""
	}
	return *s
}

// texts returns the strings called name. In ActivityStreams a single one may
// stand without its array.
func (o *object) texts(name string) []string {
	v, ok := o.values[name]
	if !ok {
		return nil
	}
	if len(v) > 0 && v[0] == '"' {
		return []string{o.text(name)}
	}
	if texts, ok := splitTexts(v); ok {
		return texts
	}
	var s []*string
	if json.Unmarshal(v, &s) != nil {
		o.fail("%s is not an array of strings", name)
		return nil
	}
	var texts []string
	for _, t := range s {
		if t == nil {
			o.fail("%s is not an array of strings", name)
			return nil
		}
		texts = append(texts, *t)
	}
	return texts
}

// is reports whether one of the object's types is name.
func (o *object) is(name string) bool {
	for _, t := range o.texts("type") {
		if t == name {
			return true
		}
	}
	return false
}

// objects returns the objects called name; a single one may stand without its array.
func (o *object) objects(name string) []*object {
	v, ok := o.values[name]
	if !ok {
		return nil
	}
	var raw []json.RawMessage
	if strings.HasPrefix(string(v), "{") {
		raw = []json.RawMessage{v}
	} else if json.Unmarshal(v, &raw) != nil {
		o.fail("%s is not an array of objects", name)
		return nil
	}
	var all []*object
	for _, r := range raw {
		all = append(all, newObject(r))
	}
	return all
}
