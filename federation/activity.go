package federation

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// namespace is where the terms that ActivityStreams lacks are defined.
const namespace = "https://tocsin-fed.github.io/ns#"

// statementContext is the @context of every statement. The extension is written out, not
// given by address: servers that expand contexts would have to fetch it.
var statementContext = []any{
	"https://www.w3.org/ns/activitystreams",
	"https://w3id.org/security/data-integrity/v2",
	map[string]string{
		"tocsin": namespace, "MediaHashes": "tocsin:MediaHashes", "HashList": "tocsin:HashList", "Label": "tocsin:Label",
		"hashes": "tocsin:hashes", "recommendedAction": "tocsin:recommendedAction", "readers": "tocsin:readers",
		"radius": "tocsin:radius", "nonce": "tocsin:nonce",
	},
}

// activity is what a statement looks like on the wire. Fields are in no order
// that matters: what is signed is the canonical form.
type activity struct {
	Context   []any  `json:"@context"`
	Type      string `json:"type"`
	Actor     string `json:"actor"`
	Target    string `json:"target,omitempty"`
	Published string `json:"published"`
	EndTime   string `json:"endTime,omitempty"`
	Summary   string `json:"summary,omitempty"`
	Nonce     string `json:"nonce"`
	Object    any    `json:"object"`
}

type mediaHashes struct {
	Type   []string        `json:"type"`
	Hashes []hashlist.Hash `json:"hashes"`
	Action string          `json:"recommendedAction,omitempty"`
	Tag    []label         `json:"tag,omitempty"`
}

// retracted is the object of an Undo that withdraws single hashes.
type retracted struct {
	ID     string          `json:"id"`
	Type   string          `json:"type"`
	Hashes []hashlist.Hash `json:"hashes"`
}

type hashList struct {
	ID      string           `json:"id"`
	Type    []string         `json:"type"`
	Name    string           `json:"name"`
	Summary string           `json:"summary,omitempty"`
	Tag     []label          `json:"tag,omitempty"`
	Readers string           `json:"readers"`
	Action  string           `json:"recommendedAction"`
	Radius  map[string]uint8 `json:"radius"`
}

// label is a label as the SocialCG's trust and safety task force drafts it: a
// tag that points to its definition.
type label struct {
	Type string `json:"type"`
	Name string `json:"name"`
	Href string `json:"href"`
}

// Issuer is an admin who makes statements.
type Issuer struct {
	actor  string
	origin string
	key    ed25519.PrivateKey
	method string
}

// NewIssuer returns the issuer with the given actor address, as in
// https://hashes.example/users/alice, who signs with key. The id of the key is
// the actor's address, # and the key's Multikey: keys may be replaced, and no two
// have the same id.
func NewIssuer(actor string, key ed25519.PrivateKey) (*Issuer, error) {
	origin, err := hashlist.Origin(actor)
	if err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	if len(key) != ed25519.PrivateKeySize {
		return nil, errors.New("issuer's key is not an Ed25519 private key")
	}
	return &Issuer{actor, origin, key, actor + "#" + Multikey(key.Public().(ed25519.PublicKey))}, nil
}

// Actor is the issuer's address.
func (i *Issuer) Actor() string { return i.actor }

// PublicKey is the key that checks what Seal signed.
func (i *Issuer) PublicKey() ed25519.PublicKey { return i.key.Public().(ed25519.PublicKey) }

// Seal says something: it fills in the statement's ID, Issuer and, if it is
// zero, Published, and signs it. It fails if the statement is not valid.
//
// Every statement carries a nonce of 128 random bits. Without it the id, which
// is a digest and may be seen by those who may not read the list, would let
// them check a guess at the hashes.
func (i *Issuer) Seal(s hashlist.Statement) (hashlist.Record, error) {
	s.Issuer = i.actor
	if s.Published.IsZero() {
		s.Published = time.Now().UTC().Truncate(time.Second)
	}
	a := activity{
		Context: statementContext, Actor: i.actor, Target: s.List, Published: s.Published.Format(time.RFC3339), Summary: s.Reason,
	}
	var nonce [16]byte
	rand.Read(nonce[:]) // never fails (crypto/rand, Go 1.24)
	a.Nonce = base64.RawURLEncoding.EncodeToString(nonce[:])
	switch s.Kind {
	case hashlist.AddHashes:
		a.Type = "Add"
		a.Object = mediaHashes{[]string{"Document", "MediaHashes"}, s.Hashes, s.Action.String(), i.labels(s.Labels)}
		if !s.Expires.IsZero() {
			a.EndTime = s.Expires.Format(time.RFC3339)
		}
	case hashlist.Retraction:
		a.Type = "Undo"
		if len(s.Hashes) == 0 {
			a.Object = s.Retracts
		} else {
			a.Object = retracted{s.Retracts, "Add", s.Hashes}
		}
	case hashlist.DefineList:
		if s.Definition == nil {
			return hashlist.Record{}, errors.New("statement defines no list")
		}
		d := s.Definition
		a.Type, a.Target = "Update", ""
		l := hashList{
			s.List, []string{"Service", "HashList"}, d.Name, d.Summary, i.labels(d.Labels), d.Audience.String(), d.Action.String(),
			map[string]uint8{},
		}
		for _, alg := range hashlist.Algorithms {
			if alg.Perceptual() {
				l.Radius[alg.String()] = d.Radii[alg]
			}
		}
		a.Object = l
	default:
		return hashlist.Record{}, fmt.Errorf("unknown kind of statement %d", s.Kind)
	}
	document, err := marshal(a)
	if err != nil {
		return hashlist.Record{}, fmt.Errorf("seal statement: %w", err)
	}
	all, err := members(document)
	if err != nil {
		return hashlist.Record{}, fmt.Errorf("seal statement: %w", err)
	}
	return i.seal(s, document, all)
}

// seal signs a document, whose members are all, that says s.
func (i *Issuer) seal(s hashlist.Statement, document []byte, all []member) (hashlist.Record, error) {
	s.ID = i.origin + statementPath(document)
	if err := s.Validate(); err != nil {
		return hashlist.Record{}, fmt.Errorf("seal statement: %w", err)
	}
	signed, err := sign(insert(all, member{"id", quote(s.ID)}), i.key, i.method, s.Published)
	if err != nil {
		return hashlist.Record{}, fmt.Errorf("seal statement: %w", err)
	}
	return hashlist.Record{Received: time.Now().UTC().Truncate(time.Microsecond), Statement: s, Signed: signed}, nil
}

func (i *Issuer) labels(names []string) []label {
	var all []label
	for _, n := range names {
		all = append(all, label{"Label", n, i.origin + "/labels/" + n})
	}
	return all
}

// statementPath makes the path of a statement's id from its canonical form
// without id and proof. An id that is a digest cannot be given to two statements, so
// there is nothing to decide when two nodes hold different ones.
func statementPath(document []byte) string {
	sum := sha256.Sum256(document)
	return "/statements/" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// Open reads a statement from the bytes that were signed and checks everything
// that can be checked without knowing what was said before: form and bounds,
// the proof, that issuer, key, list and statement are of one origin, and
// that the id is the digest of the content. key finds the public key for an
// issuer's verification method; it is asked for nothing that is not of the
// issuer.
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
	s, err := parse(document)
	if err != nil {
		return hashlist.Statement{}, err
	}
	if err := s.Validate(); err != nil {
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
	return s, nil
}

func parse(document []byte) (hashlist.Statement, error) {
	o := newObject(document)
	s := hashlist.Statement{ID: o.text("id"), Issuer: o.text("actor"), List: o.text("target"), Reason: o.text("summary")}
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
		s.Kind = hashlist.AddHashes
		m := newObject(o.values["object"])
		if m.err == nil && !m.is("MediaHashes") {
			o.fail("what is added is not MediaHashes")
		}
		s.Hashes, s.Labels, s.Action = m.hashes(), m.labels(), m.action()
		o.take(m)
	case "Undo":
		s.Kind = hashlist.Retraction
		if v := o.values["object"]; len(v) > 0 && v[0] == '{' {
			m := newObject(v)
			s.Retracts, s.Hashes = m.text("id"), m.hashes()
			if m.err == nil && !m.is("Add") {
				o.fail("what is undone is not an Add")
			}
			if m.err == nil && len(s.Hashes) == 0 {
				o.fail("an Undo of single hashes names none")
			}
			o.take(m)
		} else {
			s.Retracts = o.text("object")
		}
	case "Update":
		s.Kind = hashlist.DefineList
		m := newObject(o.values["object"])
		if m.err == nil && !m.is("HashList") {
			o.fail("what is updated is not a HashList")
		}
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
	default:
		o.fail("unknown type of statement %.60q", o.text("type"))
	}
	return s, o.err
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
	for _, t := range texts {
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
