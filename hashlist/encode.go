package hashlist

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// The versions of the binary form. The form is what a store keeps
// beside the signed bytes, so that a node with ten million hashes starts
// without reading ten million hashes from JSON; it never travels. Statements with
// subjects, or about another, have the second form, those that vouch for an issuer the third, and
// all others the first, so that an older program reads what it understands and refuses the rest.
const (
	encoding        = 1
	encodingSubject = 2 // with Subjects and About behind the hashes
	encodingVouch   = 3 // with the Vouching behind the hashes
)

// AppendBinary appends the binary form of s, which UnmarshalBinary reads. It
// implements encoding.BinaryAppender. The form: a version byte, then the
// fields in a fixed order, integers as unsigned varints, texts behind their
// length, times in seconds since 1970 (0 for none), each hash as a byte for its
// algorithm followed by its bytes.
func (s Statement) AppendBinary(b []byte) ([]byte, error) {
	text := func(v string) { b = append(binary.AppendUvarint(b, uint64(len(v))), v...) }
	texts := func(v []string) {
		b = binary.AppendUvarint(b, uint64(len(v)))
		for _, t := range v {
			text(t)
		}
	}
	moment := func(t time.Time) {
		if t.IsZero() {
			b = append(b, 0)
		} else {
			b = binary.AppendUvarint(b, uint64(t.Unix()))
		}
	}
	version := byte(encoding)
	if len(s.Subjects) > 0 || s.About != "" {
		version = encodingSubject
	}
	if s.Vouch != nil {
		version = encodingVouch
	}
	b = append(b, version, byte(s.Kind))
	text(s.ID)
	text(s.Issuer)
	text(s.List)
	moment(s.Published)
	moment(s.Expires)
	texts(s.Labels)
	b = append(b, byte(s.Action))
	text(s.Reason)
	text(s.Retracts)
	if d := s.Definition; d != nil {
		b = append(b, 1)
		text(d.Name)
		text(d.Summary)
		texts(d.Labels)
		b = append(b, byte(d.Audience), byte(d.Action))
		n := len(d.Radii)
		if d.Radii[VPDQ] == DefaultRadii[VPDQ] {
			n = int(VPDQ) // what programs wrote that know no videos, so that each definition has one form
		}
		b = append(b, byte(n))
		b = append(b, d.Radii[:n]...)
	} else {
		b = append(b, 0)
	}
	b = binary.AppendUvarint(b, uint64(len(s.Hashes)))
	for _, h := range s.Hashes {
		if !h.alg.Valid() {
			return nil, errors.New("cannot encode an empty hash")
		}
		b = append(append(b, byte(h.alg)), h.sum[:h.alg.Size()]...)
	}
	if version == encodingSubject {
		texts(s.Subjects)
		text(s.About)
	}
	if v := s.Vouch; version == encodingVouch {
		text(v.Object)
		b = append(b, v.Amount, v.Depth)
		moment(v.From)
	}
	return b, nil
}

// UnmarshalBinary reads what AppendBinary wrote. It implements
// encoding.BinaryUnmarshaler. It refuses what is too short, too long or of
// another version or kind, but does not call Validate.
func (s *Statement) UnmarshalBinary(data []byte) error {
	d := decoder{rest: data}
	version := d.byte()
	if d.err == nil && version != encoding && version != encodingSubject && version != encodingVouch {
		return fmt.Errorf("statement is encoded in version %d, this program reads versions up to %d", version, encodingVouch)
	}
	*s = Statement{Kind: Kind(d.byte())}
	if d.err == nil && (s.Kind < AddHashes || s.Kind > Vouch) {
		return fmt.Errorf("statement is of kind %d, which this program does not know: a newer one wrote it", s.Kind)
	}
	s.ID, s.Issuer, s.List = d.text(), d.text(), d.text()
	s.Published, s.Expires = d.moment(), d.moment()
	s.Labels = d.texts(MaxLabels)
	s.Action = Action(d.byte())
	s.Reason, s.Retracts = d.text(), d.text()
	if d.byte() == 1 {
		def := &Definition{Name: d.text(), Summary: d.text(), Labels: d.texts(MaxLabels)}
		def.Audience, def.Action = Audience(d.byte()), Action(d.byte())
		if n := int(d.byte()); n > len(def.Radii) {
			d.fail()
		} else {
			def.Radii[VPDQ] = DefaultRadii[VPDQ]
			copy(def.Radii[:], d.bytes(n))
		}
		s.Definition = def
	}
	if n := d.uvarint(); n > MaxHashes {
		d.fail()
	} else if n > 0 {
		s.Hashes = make([]Hash, n)
		for i := range s.Hashes {
			h := &s.Hashes[i]
			h.alg = Algorithm(d.byte())
			if !h.alg.Valid() {
				d.fail()
				break
			}
			copy(h.sum[:], d.bytes(h.alg.Size()))
		}
	}
	if version == encodingSubject {
		s.Subjects, s.About = d.texts(MaxSubjects), d.text()
		if len(s.Subjects) == 0 && s.About == "" {
			d.fail() // it has the first form: a statement has one
		}
	}
	if version == encodingVouch {
		s.Vouch = &Vouching{Object: d.text(), Amount: d.byte(), Depth: d.byte(), From: d.moment()}
	}
	if d.err == nil && len(d.rest) > 0 {
		d.fail()
	}
	return d.err
}

// decoder reads from rest until the first failure, and then nothing but zeros,
// so that its callers check once.
type decoder struct {
	rest []byte
	err  error
}

var errEncoding = errors.New("the stored form of a statement is damaged")

func (d *decoder) fail() { d.rest, d.err = nil, errEncoding }

func (d *decoder) bytes(n int) []byte {
	if n > len(d.rest) {
		d.fail()
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) byte() byte {
	if b := d.bytes(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) text() string {
	n := d.uvarint()
	if n > uint64(len(d.rest)) {
		d.fail()
		return ""
	}
	return string(d.bytes(int(n)))
}

func (d *decoder) texts(most uint64) []string {
	n := d.uvarint()
	if n > most {
		d.fail()
		return nil
	}
	var v []string
	for range n {
		v = append(v, d.text())
	}
	return v
}

func (d *decoder) moment() time.Time {
	switch v := d.uvarint(); {
	case v == 0:
		return time.Time{}
	case v > 1<<40:
		d.fail()
		return time.Time{}
	default:
		return time.Unix(int64(v), 0).UTC()
	}
}
