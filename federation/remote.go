package federation

import (
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// Bounds of an actor document.
const (
	maxPublicKeys = 8
	maxMethods    = 32
	maxWriters    = 64
	maxName       = 256  // bytes of a name that is shown
	maxSummary    = 2000 // bytes of a description that is shown
)

// remoteActor is what an actor document of another server says, as far as this
// node cares. Every address in it is of the origin of ID.
type remoteActor struct {
	ID                string // without fragment
	Type              string // Application, Group, Organization, Person or Service
	Name              string // for people, as Summary: cut, without control characters; a Summary may be HTML, which is not cleaned
	Summary           string
	PreferredUsername string
	Inbox             string
	SharedInbox       string // "" if there is none, as all that follow
	Outbox            string
	Followers         string
	Log               string     // of a list: its statements in order
	Head              string     // of a list: the signed head of its log
	Writers           []string   // attributedTo: of a list, who may write to it
	Trust             string     // of an issuer: the list of those for whom they vouch
	PublicKeys        []rsaKey   // for requests
	Methods           []proofKey // for proofs
	ManuallyApproves  bool
	Raw               []byte // the document as it came
}

// rsaKey is a key that signs HTTP requests, of the form that security/v1 gives it.
type rsaKey struct {
	ID     string
	Owner  string         // the actor's ID
	Public *rsa.PublicKey // 2048 to 8192 bits
}

// proofKey is a key that signs documents (FEP-521a; W3C Controlled Identifiers 1.0, section 2.2.2).
type proofKey struct {
	ID         string
	Controller string // the actor's ID
	Public     ed25519.PublicKey
	Expires    time.Time // UTC, whole microseconds; zero for never, as Revoked
	Revoked    time.Time
	Old, Proof string // the key that backs it, and its proof; "" for none
}

// publicKey returns the key for requests with an ID, nil if the actor does not list it.
func (a *remoteActor) publicKey(id string) *rsa.PublicKey {
	for _, k := range a.PublicKeys {
		if k.ID == id {
			return k.Public
		}
	}
	return nil
}

var actorTypes = []string{"Application", "Group", "Organization", "Person", "Service"}

// readActor reads an actor document of at most maxActor bytes. It refuses what other
// readers might read in another way (see canonical), and what mixes origins: a
// server speaks for itself only (FEP-fe34), and an inbox elsewhere would make this node write to
// whom it points at. Keys of kinds that this program cannot use are passed over;
// members that it does not know are ignored.
func readActor(raw []byte) (*remoteActor, error) {
	if len(raw) > maxActor {
		return nil, fmt.Errorf("actor document of %d bytes is larger than %d", len(raw), maxActor)
	}
	document, err := canonical(raw)
	if err != nil {
		return nil, fmt.Errorf("actor: %w", err)
	}
	o := newObject(document)
	o.dropNulls()
	a := &remoteActor{ID: o.text("id"), Raw: raw}
	if o.err != nil {
		return nil, fmt.Errorf("actor: %w", o.err)
	}
	origin, err := hashlist.Origin(a.ID)
	if err != nil {
		return nil, fmt.Errorf("actor's id: %w", err)
	}
	if strings.Contains(a.ID, "#") {
		return nil, fmt.Errorf("actor %.200q is only a part of a document", a.ID)
	}
	r := actorReader{o, origin, a.ID}
	for _, t := range o.texts("type") {
		if a.Type == "" && slices.Contains(actorTypes, t) {
			a.Type = t
		}
	}
	if a.Type == "" {
		o.fail("type is none of an actor's")
	}
	a.Name = printable(o.loose("name"), maxName)
	a.Summary = printable(o.loose("summary"), maxSummary)
	a.PreferredUsername = printable(o.loose("preferredUsername"), maxName)
	a.Inbox = r.ours("inbox", o.text("inbox"))
	if a.Inbox == "" {
		o.fail("there is no inbox")
	}
	if o.has("endpoints") {
		e := newObject(o.values["endpoints"])
		e.dropNulls()
		a.SharedInbox = r.ours("sharedInbox", e.text("sharedInbox"))
		if e.err != nil {
			o.fail("endpoints: %w", e.err)
		}
	}
	a.Outbox = r.ours("outbox", o.reference("outbox"))
	a.Followers = r.ours("followers", o.reference("followers"))
	a.Log = r.ours("log", o.reference("log"))
	a.Head = r.ours("head", o.reference("head"))
	a.Trust = r.ours("trust", o.reference("trust"))
	for _, w := range o.references("attributedTo", maxWriters) {
		a.Writers = append(a.Writers, r.ours("attributedTo", w))
	}
	a.PublicKeys = r.publicKeys()
	a.Methods = r.methods()
	if v, ok := o.values["manuallyApprovesFollowers"]; ok && json.Unmarshal(v, &a.ManuallyApproves) != nil {
		o.fail("manuallyApprovesFollowers is neither true nor false")
	}
	if o.err != nil {
		return nil, fmt.Errorf("actor %.200q: %w", a.ID, o.err)
	}
	return a, nil
}

type actorReader struct {
	*object
	origin string
	id     string
}

// ours returns an address that is of the actor's origin, or "" as it is.
func (r actorReader) ours(what, iri string) string {
	if iri == "" || r.err != nil {
		return ""
	}
	origin, err := hashlist.Origin(iri)
	if err != nil {
		r.fail("%s: %w", what, err)
		return ""
	}
	if origin != r.origin {
		r.fail("%s %.200q is of another server", what, iri)
		return ""
	}
	return iri
}

func (r actorReader) publicKeys() []rsaKey {
	var keys []rsaKey
	for _, v := range r.several("publicKey", maxPublicKeys) {
		if v[0] != '{' {
			continue // a key that is only named: whoever signs with it must list it in full
		}
		o := newObject(v)
		o.dropNulls()
		k := rsaKey{ID: r.ours("id of a publicKey", o.text("id")), Owner: o.text("owner")}
		text := o.text("publicKeyPem")
		switch {
		case o.err != nil:
			r.fail("publicKey: %w", o.err)
		case k.ID == "":
			r.fail("a publicKey has no id")
		case k.Owner != r.id:
			r.fail("publicKey %.200q is owned by %.200q", k.ID, k.Owner)
		case slices.ContainsFunc(keys, func(other rsaKey) bool { return other.ID == k.ID }):
			r.fail("publicKey %.200q is there twice", k.ID)
		}
		var err error
		if k.Public, err = parseRSA(text); err == nil {
			keys = append(keys, k)
		}
	}
	return keys
}

// parseRSA reads a public key in PEM, in the form of X.509 or of PKCS #1.
func parseRSA(text string) (*rsa.PublicKey, error) {
	block, rest := pem.Decode([]byte(text))
	if block == nil || strings.TrimSpace(string(rest)) != "" {
		return nil, errors.New("key is not one block of PEM")
	}
	var key any
	var err error
	switch block.Type {
	case "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		key, err = x509.ParsePKCS1PublicKey(block.Bytes)
	default:
		err = fmt.Errorf("PEM holds a %.40q", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("key cannot be read: %w", tame(err))
	}
	public, ok := key.(*rsa.PublicKey)
	if !ok {
		return nil, errors.New("key is not an RSA key")
	}
	// The cost of a check grows with the square of the size, and it is this node that pays.
	if bits := public.N.BitLen(); bits < 2048 || bits > 8192 || public.N.Bit(0) == 0 || public.E < 3 || public.E%2 == 0 {
		return nil, fmt.Errorf("RSA key of %d bits is not of 2048 to 8192, or not sound", bits)
	}
	return public, nil
}

func (r actorReader) methods() []proofKey {
	var methods []proofKey
	for _, v := range r.several("assertionMethod", maxMethods) {
		if v[0] != '{' {
			continue // named, not given
		}
		o := newObject(v)
		o.dropNulls()
		if o.err != nil || !o.is("Multikey") {
			continue // of another kind
		}
		public, err := ParseMultikey(o.text("publicKeyMultibase"))
		if err != nil {
			continue // of another algorithm: Fedify lists its RSA keys as well
		}
		m := proofKey{ID: r.ours("id of an assertionMethod", o.text("id")), Controller: o.text("controller"), Public: public}
		m.Expires, m.Revoked = o.moment("expires"), o.moment("revoked")
		m.Old, m.Proof = o.loose("succeeds"), o.loose("successionProof")
		switch {
		case o.err != nil:
			// What cannot be read may be the revocation.
			r.fail("assertionMethod %.200q: %w", m.ID, o.err)
		case m.ID == "":
			r.fail("an assertionMethod has no id")
		case m.Controller != r.id:
			r.fail("assertionMethod %.200q is controlled by %.200q", m.ID, m.Controller)
		case slices.ContainsFunc(methods, func(other proofKey) bool { return other.ID == m.ID }):
			r.fail("assertionMethod %.200q is there twice", m.ID)
		}
		methods = append(methods, m)
	}
	return methods
}

// moment reads an xsd:dateTime that has a time zone, as Controlled Identifiers
// wants it. It is cut to the microsecond, to the safe side for a key's end.
func (o *object) moment(name string) time.Time {
	if !o.has(name) {
		return time.Time{}
	}
	text := o.text(name)
	t, err := time.Parse(time.RFC3339Nano, text)
	// A key that expired in the year 1 must not pass for one that never does.
	if err != nil || t.Unix() < 1 || t.Year() > 9999 {
		o.fail("%s %.40q is not a time like 2026-01-31T12:00:00Z", name, text)
		return time.Time{}
	}
	return t.UTC().Truncate(time.Microsecond)
}

// dropNulls removes what is null, which many servers write for what they do not have.
func (o *object) dropNulls() {
	for name, v := range o.values {
		if string(v) == "null" {
			delete(o.values, name)
		}
	}
}

// loose returns the string called name, "" if it is something else. For what is only shown.
func (o *object) loose(name string) string {
	var s string
	_ = json.Unmarshal(o.values[name], &s)
	return s
}

// several returns the values called name, none of them null; a single one may stand without its array.
func (o *object) several(name string, most int) []json.RawMessage {
	v, ok := o.values[name]
	if !ok {
		return nil
	}
	all := []json.RawMessage{v}
	if v[0] == '[' {
		all = nil
		if err := json.Unmarshal(v, &all); err != nil {
			o.fail("%s is not an array", name)
		}
	}
	if len(all) > most {
		o.fail("%s has %d values, at most %d are read", name, len(all), most)
		return nil
	}
	return slices.DeleteFunc(all, func(v json.RawMessage) bool { return string(v) == "null" })
}

// references returns the addresses called name. In the place of an object that
// stands there itself comes its id.
func (o *object) references(name string, most int) []string {
	var iris []string
	for _, v := range o.several(name, most) {
		var iri string
		if v[0] == '{' {
			embedded := newObject(v)
			embedded.dropNulls()
			iri = embedded.text("id")
			if embedded.err != nil {
				o.fail("%s: %w", name, embedded.err)
			}
		} else if json.Unmarshal(v, &iri) != nil {
			o.fail("%s is no address", name)
		}
		if iri != "" {
			iris = append(iris, iri)
		}
	}
	return iris
}

// reference is references where there may be one at most.
func (o *object) reference(name string) string {
	iris := o.references(name, 1)
	if len(iris) == 0 {
		return ""
	}
	return iris[0]
}
