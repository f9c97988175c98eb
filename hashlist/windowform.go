package hashlist

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"
)

// windowForm is the version of the forms below, in which uploads and hits are sealed.
const windowForm = 1

// Bounds of one upload in the window.
const (
	maxWindowProbes = 4096
	maxTransform    = 64 // bytes
)

// upload is what the window keeps of one picture.
type upload struct {
	id     uint64 // of its row, and of its first sighting
	seen   SeenUpload
	hit    Verdict // what its hit says, unless that was withdrawn; 0 for none
	hitSeq uint64  // place of that hit
	probes []Probe
}

// transforms are the words for turned pictures that take one byte. The numbers are
// stored: they are never reused.
var transforms = [...]string{"", "original", "rot90", "rot180", "rot270", "flipx", "flipy", "transpose", "antitranspose", "inverted"}

const spelled = 255 // a transform that is not among them follows as a text

// Flags of a probe.
const (
	flagFlat     = 1 << iota
	flagInverted // the probe that follows is its complement, and is not stored
)

// encode appends the form of u: version, times in seconds since 1970, numbers as
// unsigned varints, texts behind their length.
func (u *upload) encode(b []byte) []byte {
	b = u.seen.encode(append(b, windowForm))
	b = binary.AppendUvarint(append(b, byte(u.hit)), u.hitSeq)
	at := len(b)
	n := 0
	for i := 0; i < len(u.probes); i++ {
		p := &u.probes[i]
		var flags byte
		if p.Flat {
			flags |= flagFlat
		}
		next := i + 1
		if next < len(u.probes) && p.Hash.alg == PDQ {
			if q := &u.probes[next]; q.Hash == p.Hash.Complement() && q.Index == p.Index && q.Flat == p.Flat && q.Transform == turned(p.Transform) {
				flags |= flagInverted
				i++
			}
		}
		b = append(b, byte(p.Hash.alg), flags)
		b = binary.AppendUvarint(b, uint64(p.Index))
		if code := slices.Index(transforms[:], p.Transform); code >= 0 {
			b = append(b, byte(code))
		} else {
			b = appendText(append(b, spelled), p.Transform)
		}
		b = append(b, p.Hash.sum[:p.Hash.alg.Size()]...)
		n++
	}
	return slices.Insert(b, at, binary.AppendUvarint(nil, uint64(n))...)
}

// turned is how the callers here name a picture with inverted colours.
func turned(transform string) string {
	if transform == "" {
		return "inverted"
	}
	return "inverted-" + transform
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// appendMoment writes what decoder.moment reads.
func appendMoment(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(b, 0)
	}
	return binary.AppendUvarint(b, uint64(t.Unix()))
}

func (s *SeenUpload) encode(b []byte) []byte {
	b = appendMoment(b, s.First)
	b = appendMoment(b, s.Last)
	b = binary.AppendUvarint(b, uint64(s.Count))
	b = append(b, byte(s.Answered), byte(len(s.Sightings)))
	for i := range s.Sightings {
		v := &s.Sightings[i]
		b = binary.AppendUvarint(b, v.ID)
		b = appendMoment(b, v.At)
		b = append(b, byte(v.Answered))
		for _, f := range v.Reference.fields() {
			b = appendText(b, f.text)
		}
	}
	return b
}

func (s *SeenUpload) decode(d *decoder) {
	s.First, s.Last = d.moment(), d.moment()
	n := d.uvarint()
	if n > 1<<31 {
		d.fail()
	}
	s.Count, s.Answered = int(n), d.verdict()
	many := d.byte()
	if many > MaxSightings {
		d.fail()
	}
	for range many {
		v := Sighting{ID: d.uvarint(), At: d.moment(), Answered: d.verdict()}
		v.Reference = Reference{d.text(), d.text(), d.text(), d.text()}
		if v.Reference.Validate() != nil {
			d.fail()
		}
		if d.err != nil {
			return
		}
		s.Sightings = append(s.Sightings, v)
	}
}

func (d *decoder) verdict() Verdict {
	v := Verdict(d.byte())
	if v > VerdictReject {
		d.fail()
	}
	return v
}

var errWindowForm = errors.New("what was kept of an upload is damaged")

// windowDecoder reads a form of the window.
func windowDecoder(b []byte) (*decoder, error) {
	if len(b) == 0 {
		return nil, errWindowForm
	}
	if b[0] != windowForm {
		return nil, fmt.Errorf("what was kept of an upload is in version %d, this program reads version %d", b[0], windowForm)
	}
	return &decoder{rest: b[1:]}, nil
}

// done reports whether all was read, and nothing is left.
func (d *decoder) done() error {
	if d.err != nil || len(d.rest) > 0 {
		return errWindowForm
	}
	return nil
}

// decodeUpload reads what encode wrote. The id is not in it.
func decodeUpload(id uint64, b []byte) (*upload, error) {
	d, err := windowDecoder(b)
	if err != nil {
		return nil, err
	}
	u := &upload{id: id}
	if u.seen.decode(d); len(u.seen.Sightings) == 0 {
		return nil, errWindowForm // somebody brought it
	}
	u.hit, u.hitSeq = d.verdict(), d.uvarint()
	n := d.uvarint()
	if n > maxWindowProbes {
		return nil, errWindowForm
	}
	for range n {
		alg, flags := Algorithm(d.byte()), d.byte()
		p := Probe{Flat: flags&flagFlat != 0}
		index := d.uvarint()
		if p.Index = int(index); index > maxWindowProbes {
			return nil, errWindowForm
		}
		switch code := d.byte(); {
		case code == spelled:
			if p.Transform = d.text(); len(p.Transform) > maxTransform {
				return nil, errWindowForm
			}
		case int(code) < len(transforms):
			p.Transform = transforms[code]
		default:
			return nil, errWindowForm
		}
		if !alg.Valid() || flags&flagInverted != 0 && alg != PDQ {
			return nil, errWindowForm
		}
		p.Hash.alg = alg
		copy(p.Hash.sum[:], d.bytes(alg.Size()))
		if d.err != nil {
			return nil, errWindowForm
		}
		u.probes = append(u.probes, p)
		if flags&flagInverted != 0 {
			q := p
			q.Hash, q.Transform = p.Hash.Complement(), turned(p.Transform)
			u.probes = append(u.probes, q)
		}
	}
	return u, d.done()
}

func (h *Hit) encode(b []byte) []byte {
	b = append(b, windowForm)
	b = appendText(b, h.ID)
	b = appendMoment(b, h.At)
	b = append(b, byte(h.Verdict), byte(h.Algorithm))
	if h.Withdrawn {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	b = appendText(b, h.Reason)
	m := &h.Match
	b = binary.AppendUvarint(b, uint64(m.Distance))
	b = append(b, byte(m.Action))
	b = appendMoment(b, m.Published)
	for _, text := range [...]string{m.List, m.ListName, m.Issuer, m.Statement, m.Reason, m.Probe.Transform} {
		b = appendText(b, text)
	}
	b = binary.AppendUvarint(b, uint64(len(m.Labels)))
	for _, l := range m.Labels {
		b = appendText(b, l)
	}
	return h.Seen.encode(b)
}

// decodeHit reads what encode wrote. The place is not in it.
func decodeHit(seq uint64, b []byte) (*Hit, error) {
	d, err := windowDecoder(b)
	if err != nil {
		return nil, err
	}
	h := &Hit{Seq: seq, ID: d.text(), At: d.moment(), Verdict: d.verdict(), Algorithm: Algorithm(d.byte()), Withdrawn: d.byte() == 1, Reason: d.text()}
	m := &h.Match
	m.Distance, m.Action, m.Published = int(d.uvarint()), Action(d.byte()), d.moment()
	for _, text := range [...]*string{&m.List, &m.ListName, &m.Issuer, &m.Statement, &m.Reason, &m.Probe.Transform} {
		*text = d.text()
	}
	m.Labels = d.texts(2 * MaxLabels)
	h.Seen.decode(d)
	return h, d.done()
}

// wholeSecond cuts a time to what the window keeps.
func wholeSecond(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }
