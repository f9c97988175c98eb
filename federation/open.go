package federation

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// ErrUnknownKind is what Open's error wraps if a statement is sound as far as can be
// told, but of a kind that this program does not know. Count it and go on: it
// is not the sender's fault.
var ErrUnknownKind = errors.New("statement is of an unknown kind")

// Open reads a statement from the bytes that were signed and checks everything
// that can be checked without knowing what was said before: form and bounds,
// the proof, that issuer, key, list and statement are of one origin, and
// that the id is the digest of the content. key finds the public key for an
// issuer's verification method; it is asked for nothing that is not of the
// issuer.
//
// A statement of a kind that this program does not know is an error that wraps
// ErrUnknownKind. Id, proof, origins and time were checked then as for any
// other, and the statement returned has ID, Issuer, List and Published, and Kind 0: who
// follows a list can count it, and has no gap in the list's sequence.
//
// Members that are not part of the specification are covered by the proof and ignored.
func Open(signed []byte, key func(issuer, method string) (ed25519.PublicKey, error)) (hashlist.Statement, error) {
	document, err := canonical(signed)
	if err != nil {
		return hashlist.Statement{}, err
	}
	all, err := members(document)
	if err != nil {
		return hashlist.Statement{}, err
	}
	s, unknown, err := parse(document)
	if err != nil {
		return hashlist.Statement{}, err
	}
	if unknown != nil {
		s = hashlist.Statement{ID: s.ID, Issuer: s.Issuer, List: s.List, Published: s.Published}
		err = checkFrame(&s)
	} else {
		err = s.Validate()
	}
	if err != nil {
		return hashlist.Statement{}, err
	}
	origin, err := hashlist.Origin(s.Issuer)
	if err != nil {
		return hashlist.Statement{}, err
	}
	if want := origin + statementPath(join(all, "id", "proof", "signature")); s.ID != want {
		return hashlist.Statement{}, fmt.Errorf("statement %.200q is not the digest of its content", s.ID)
	}
	_, created, err := verify(all, func(method string) (ed25519.PublicKey, error) {
		if actor, _, ok := cutFragment(method); !ok || actor != s.Issuer {
			return nil, fmt.Errorf("verification method %.200q is not a key of %s", method, s.Issuer)
		}
		return key(s.Issuer, method)
	})
	if err != nil {
		return hashlist.Statement{}, err
	}
	if !created.Equal(s.Published) {
		return hashlist.Statement{}, errors.New("proof was not made when the statement was published")
	}
	return s, unknown
}

// checkFrame checks of a statement of an unknown kind what Validate checks of every
// kind.
func checkFrame(s *hashlist.Statement) error {
	origin, err := hashlist.Origin(s.ID)
	if err != nil {
		return fmt.Errorf("statement id: %w", err)
	}
	for _, iri := range []string{s.Issuer, s.List} {
		if o, err := hashlist.Origin(iri); err != nil {
			return err
		} else if o != origin {
			return fmt.Errorf("%.200q is of %s, but the statement is of %s", iri, o, origin)
		}
	}
	if s.Published.Unix() <= 0 {
		return fmt.Errorf("published: %v is not a time after 1970", s.Published)
	}
	return nil
}

// parse reads a statement. With unknown, which wraps ErrUnknownKind, it is of a
// kind that this program does not know, and what all kinds have is read.
func parse(document []byte) (s hashlist.Statement, unknown, err error) {
	o := newObject(document)
	s = hashlist.Statement{ID: o.text("id"), Issuer: o.text("actor"), List: o.text("target"), Reason: o.text("summary")}
	s.Published = o.time("published")
	// The decoder passes over line breaks: a nonce has one spelling, so the length is checked too.
	nonce := o.text("nonce")
	if b, err := base64.RawURLEncoding.Strict().DecodeString(nonce); err != nil || len(b) != 16 || len(nonce) != 22 {
		o.fail("nonce is not 128 bits in base64url")
	}
	if o.has("endTime") {
		s.Expires = o.time("endTime") // Validate refuses it where it has no meaning
	}
	switch o.text("type") {
	case "Add":
		m := newObject(o.values["object"])
		name, known := m.addition()
		if m.err == nil && !known {
			unknown = fmt.Errorf("%w: what is added is none of MediaHashes, Accounts, Instances, ContentNotice and Vouch", ErrUnknownKind)
			break
		}
		s.Kind = additions[name].kind
		switch s.Kind {
		case hashlist.AddHashes:
			s.Hashes, s.Action = m.hashes(), m.action()
		case hashlist.Vouch:
			s.Vouch = m.vouching(s.Issuer)
		default:
			s.Subjects, s.Action = m.texts(additions[name].member), m.action()
		}
		s.Labels = m.labels()
		o.take(m)
	case "Announce":
		s.Kind, s.About = hashlist.Confirmation, o.text("object")
	case "Flag":
		s.Kind, s.About = hashlist.Dispute, o.text("object")
	case "Undo":
		s.Kind = hashlist.Retraction
		if v := o.values["object"]; len(v) > 0 && v[0] == '{' {
			m := newObject(v)
			if is := m.is("Add"); !is && m.err == nil {
				unknown = fmt.Errorf("%w: part of what is undone is not an Add", ErrUnknownKind)
				break
			}
			s.Retracts, s.Hashes, s.Subjects = m.text("id"), m.hashes(), m.texts("subjects")
			if m.err == nil && len(s.Hashes)+len(s.Subjects) == 0 {
				o.fail("an Undo of single hashes or subjects names none")
			}
			o.take(m)
		} else {
			s.Retracts = o.text("object")
		}
	case "Update":
		m := newObject(o.values["object"])
		if is := m.is("HashList"); !is && m.err == nil {
			unknown = fmt.Errorf("%w: what is updated is not a HashList", ErrUnknownKind)
			break
		}
		s.Kind = hashlist.DefineList
		if s.List != "" {
			o.fail("an Update of a list has no target")
		}
		s.List = m.text("id")
		d := &hashlist.Definition{Name: m.text("name"), Summary: m.text("summary"), Labels: m.labels(), Action: m.action()}
		var err error
		if d.Audience, err = hashlist.ParseAudience(m.text("readers")); err != nil {
			m.fail("%w", err)
		}
		d.Radii = m.radii()
		s.Definition = d
		o.take(m)
	case "":
		o.fail("statement has no type")
	default:
		unknown = fmt.Errorf("%w: its type is %.60q", ErrUnknownKind, o.text("type"))
	}
	return s, unknown, o.err
}

// addition returns which of additions o is of, and false if of none.
func (o *object) addition() (name string, known bool) {
	for _, t := range o.texts("type") {
		if _, ours := additions[t]; ours {
			if known && t != name {
				o.fail("it is both %s and %s", name, t) // and readers might differ on which
			}
			name, known = t, true
		}
	}
	return name, known
}

// vouching reads for whom the issuer vouches, and how far. Nobody says
// in whom another believes.
func (o *object) vouching(issuer string) *hashlist.Vouching {
	v := &hashlist.Vouching{Object: o.text("object"), Amount: o.small("amount"), Depth: o.small("depth")}
	if subject := o.text("subject"); subject != issuer {
		o.fail("it is about whom %.200q believes, and said by %.200q", subject, issuer)
	}
	if r := o.text("relationship"); r != vouchesFor {
		o.fail("the relationship %.200q is not %s", r, vouchesFor)
	}
	if o.has("startTime") {
		v.From = o.time("startTime")
	}
	return v
}

// small returns a whole number of at most 255, which must be there.
func (o *object) small(name string) (n uint8) {
	if v := o.values[name]; v == nil || json.Unmarshal(v, &n) != nil || string(v) == "null" {
		o.fail("%s is not a small whole number", name)
	}
	return n
}

// take makes the failure of a part one of the whole.
func (o *object) take(part *object) {
	if part.err != nil {
		o.fail("object: %w", part.err)
	}
}

func (o *object) time(name string) time.Time {
	t, err := parseTime(o.text(name))
	if err != nil {
		o.fail("%s: %w", name, err)
	}
	return t
}

func (o *object) hashes() []hashlist.Hash {
	texts := o.texts("hashes")
	if len(texts) > hashlist.MaxHashes {
		o.fail("%d hashes, at most %d fit in a statement", len(texts), hashlist.MaxHashes)
		return nil
	}
	var all []hashlist.Hash
	for i, t := range texts {
		// The text of an error is logged, and hashes are not: what has no algorithm may be one, or the half of one.
		if name, _, _ := strings.Cut(t, ":"); !isAlgorithm(name) {
			o.fail("hash %d has no known algorithm (want algorithm:hex, as in pdq:f8f8…)", i+1)
			return nil
		}
		h, err := hashlist.ParseHash(t)
		if err != nil {
			o.fail("%w", err)
			return nil
		}
		all = append(all, h)
	}
	return all
}

func (o *object) labels() []string {
	var names []string
	for _, t := range o.objects("tag") {
		if t.is("Label") {
			names = append(names, t.text("name"))
		}
		o.take(t)
	}
	return names
}

func (o *object) action() hashlist.Action {
	if !o.has("recommendedAction") {
		return 0
	}
	a, err := hashlist.ParseAction(o.text("recommendedAction"))
	if err != nil {
		o.fail("%w", err)
	} else if a == 0 {
		o.fail("recommendedAction is empty")
	}
	return a
}

func (o *object) radii() hashlist.Radii {
	r := hashlist.DefaultRadii
	if !o.has("radius") {
		return r
	}
	m := newObject(o.values["radius"])
	for name, v := range m.values {
		a, err := hashlist.ParseAlgorithm(name)
		if err != nil {
			continue // of an algorithm that this program does not know
		}
		if json.Unmarshal(v, &r[a]) != nil || string(v) == "null" {
			o.fail("radius of %s is not a small whole number", name)
		}
	}
	o.take(m)
	return r
}

func cutFragment(iri string) (before, fragment string, ok bool) {
	for i := range len(iri) {
		if iri[i] == '#' {
			return iri[:i], iri[i+1:], true
		}
	}
	return iri, "", false
}

func isAlgorithm(name string) bool {
	_, err := hashlist.ParseAlgorithm(name)
	return err == nil
}
