package federation

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
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
		"tocsin": namespace, "MediaHashes": "tocsin:MediaHashes", "Accounts": "tocsin:Accounts", "Instances": "tocsin:Instances",
		"ContentNotice": "tocsin:ContentNotice", "HashList": "tocsin:HashList", "Label": "tocsin:Label",
		"hashes": "tocsin:hashes", "domains": "tocsin:domains", "subjects": "tocsin:subjects",
		"recommendedAction": "tocsin:recommendedAction", "readers": "tocsin:readers", "radius": "tocsin:radius", "nonce": "tocsin:nonce",
	},
}

// vouchContext is that of statements that vouch for an issuer. The others keep theirs: those
// who read them have not seen these names.
var vouchContext = []any{
	"https://www.w3.org/ns/activitystreams",
	"https://w3id.org/security/data-integrity/v2",
	map[string]string{
		"tocsin": namespace, "Vouch": "tocsin:Vouch", "Label": "tocsin:Label", "amount": "tocsin:amount", "depth": "tocsin:depth", "nonce": "tocsin:nonce",
	},
}

// relationship is the object of an Add by which an issuer vouches for another. The type of
// ActivityStreams comes first, for servers that know no other.
type relationship struct {
	Type         []string `json:"type"`
	Subject      string   `json:"subject"`
	Object       string   `json:"object"`
	Relationship string   `json:"relationship"`
	Amount       uint8    `json:"amount"`
	Depth        uint8    `json:"depth"`
	StartTime    string   `json:"startTime,omitempty"`
	Tag          []label  `json:"tag,omitempty"`
}

// vouchesFor is the relationship in which an issuer is to whom it vouches for.
const vouchesFor = namespace + "vouchesFor"

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

// addition is the object of an Add: of one of the types in additions, with the member
// that goes with it. A server that knows none of ours still sees a standard type in
// front, and an Add to a collection that is none of its own, which it passes over. A
// Block would fit accounts and servers that are to be refused, but not those to be
// accepted or marked, and others act on one.
type addition struct {
	Type    []string        `json:"type"`
	Hashes  []hashlist.Hash `json:"hashes,omitempty"`
	Items   []string        `json:"items,omitempty"`
	Domains []string        `json:"domains,omitempty"`
	URL     []string        `json:"url,omitempty"`
	Action  string          `json:"recommendedAction,omitempty"`
	Tag     []label         `json:"tag,omitempty"`
}

// additions are the kinds of Add by the type of what is added: the standard type
// that stands before it, and the member with the subjects. Domains have a
// member of their own because items are addresses, and would be read as such, relative
// to the statement.
var additions = map[string]struct {
	kind           hashlist.Kind
	before, member string
}{
	"MediaHashes":   {hashlist.AddHashes, "Document", "hashes"},
	"Accounts":      {hashlist.AddAccounts, "Collection", "items"},
	"Instances":     {hashlist.AddInstances, "Collection", "domains"},
	"ContentNotice": {hashlist.AddContent, "Document", "url"},
	"Vouch":         {hashlist.Vouch, "Relationship", ""},
}

// retracted is the object of an Undo that withdraws single hashes or subjects.
type retracted struct {
	ID       string          `json:"id"`
	Type     string          `json:"type"`
	Hashes   []hashlist.Hash `json:"hashes,omitempty"`
	Subjects []string        `json:"subjects,omitempty"`
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
	if !s.Expires.IsZero() { // Validate refuses it where it has no meaning
		a.EndTime = s.Expires.Format(time.RFC3339)
	}
	switch s.Kind {
	case hashlist.AddHashes, hashlist.AddAccounts, hashlist.AddInstances, hashlist.AddContent:
		a.Type, a.Object = "Add", i.addition(&s)
	case hashlist.Vouch:
		if s.Vouch == nil {
			return hashlist.Record{}, errors.New("statement vouches for nobody")
		}
		a.Context, a.Type, a.Object = vouchContext, "Add", i.vouching(&s)
	case hashlist.Confirmation:
		a.Type, a.Object = "Announce", s.About
	case hashlist.Dispute:
		a.Type, a.Object = "Flag", s.About
	case hashlist.Retraction:
		a.Type = "Undo"
		if len(s.Hashes)+len(s.Subjects) == 0 {
			a.Object = s.Retracts
		} else {
			a.Object = retracted{s.Retracts, "Add", s.Hashes, s.Subjects}
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
			// The radius of videos came later: without it a definition is what it always was.
			if alg.Perceptual() && (alg != hashlist.VPDQ || d.Radii[alg] != hashlist.DefaultRadii[alg]) {
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
	if len(signed) > MaxSigned {
		return hashlist.Record{}, fmt.Errorf("seal statement: its %d bytes are more than %d: say it in several", len(signed), MaxSigned)
	}
	return hashlist.Record{Received: time.Now().UTC().Truncate(time.Microsecond), Statement: s, Signed: signed}, nil
}

func (i *Issuer) addition(s *hashlist.Statement) addition {
	v := addition{Hashes: s.Hashes, Action: s.Action.String(), Tag: i.labels(s.Labels)}
	for name, k := range additions {
		if k.kind == s.Kind {
			v.Type = []string{k.before, name}
		}
	}
	switch s.Kind {
	case hashlist.AddAccounts:
		v.Items = s.Subjects
	case hashlist.AddInstances:
		v.Domains = s.Subjects
	case hashlist.AddContent:
		v.URL = s.Subjects
	}
	return v
}

func (i *Issuer) vouching(s *hashlist.Statement) relationship {
	v := relationship{
		Type: []string{"Relationship", "Vouch"}, Subject: i.actor, Object: s.Vouch.Object, Relationship: vouchesFor,
		Amount: s.Vouch.Amount, Depth: s.Vouch.Depth, Tag: i.labels(s.Labels),
	}
	if !s.Vouch.From.IsZero() {
		v.StartTime = s.Vouch.From.Format(time.RFC3339)
	}
	return v
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
