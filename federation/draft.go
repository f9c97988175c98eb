package federation

import (
	"crypto/ed25519"
	"errors"
	"fmt"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// A draft is a statement that is not signed yet: the wire form without id and
// proof. It is how a statement gets to a key that is kept offline, and a person
// can read what will be signed.

// Draft returns what the issuer with the given actor address would have to
// sign to say s. Published is set if it is zero.
func Draft(actor string, s hashlist.Statement) ([]byte, error) {
	// Sealed with a key of nobody's, so that there is one place where a statement gets its form.
	_, nobody, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	i, err := NewIssuer(actor, nobody)
	if err != nil {
		return nil, err
	}
	r, err := i.Seal(s)
	if err != nil {
		return nil, err
	}
	all, err := members(r.Signed)
	if err != nil {
		return nil, err
	}
	return join(all, "id", "proof"), nil
}

// SealDraft signs a draft as it stands: its nonce and its time are not changed, so
// that what was read is what is signed. The draft must be of this issuer.
func (i *Issuer) SealDraft(draft []byte) (hashlist.Record, error) {
	document, err := canonical(draft)
	if err != nil {
		return hashlist.Record{}, err
	}
	all, err := members(document)
	if err != nil {
		return hashlist.Record{}, err
	}
	for _, m := range all {
		if m.name == "id" || m.name == "proof" || m.name == "signature" {
			return hashlist.Record{}, fmt.Errorf("this is no draft: it has the member %s already", m.name)
		}
	}
	s, unknown, err := parse(document)
	if err := errors.Join(unknown, err); err != nil {
		return hashlist.Record{}, err
	}
	if s.Issuer != i.actor {
		return hashlist.Record{}, fmt.Errorf("the draft is %.200q's, and the key is %s's", s.Issuer, i.actor)
	}
	return i.seal(s, document, all)
}
