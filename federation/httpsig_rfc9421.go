package federation

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/dunglas/httpsfv"
)

const (
	algorithm9421  = "rsa-v1_5-sha256" // RFC 9421, section 3.3.2; the only one Mastodon 4.5 takes
	signatureLabel = "sig1"
)

// sign9421 signs what Mastodon 4.5 asks for (one signature, created, @method, @target-uri,
// content-digest with sha-256) and the content type.
func (s *requestSignature) sign9421(m httpMessage, body []byte, key *rsa.PrivateKey) error {
	s.covered = []string{"@method", "@target-uri"}
	if needsDigest(m.r.Method, body) {
		sum := sha256.Sum256(body)
		d := httpsfv.NewDictionary()
		d.Add("sha-256", httpsfv.NewItem(sum[:]))
		text, err := httpsfv.Marshal(d)
		if err != nil {
			return err
		}
		m.r.Header.Set("Content-Digest", text)
		s.covered = append(s.covered, "content-digest")
		if m.r.Header.Get("Content-Type") != "" {
			s.covered = append(s.covered, "content-type")
		}
	}
	list := httpsfv.InnerList{Params: httpsfv.NewParams()}
	for _, name := range s.covered {
		list.Items = append(list.Items, httpsfv.NewItem(name))
	}
	list.Params.Add("created", s.Created.Unix())
	list.Params.Add("keyid", s.KeyID)
	list.Params.Add("alg", algorithm9421)
	var err error
	if s.params, err = httpsfv.Marshal(list); err != nil {
		return err
	}
	base, err := s.base(m)
	if err != nil {
		return err
	}
	if s.signature, err = signRSA(key, base); err != nil {
		return err
	}
	d := httpsfv.NewDictionary()
	d.Add(signatureLabel, httpsfv.NewItem(s.signature))
	value, err := httpsfv.Marshal(d)
	if err != nil {
		return err
	}
	m.r.Header.Set("Signature-Input", signatureLabel+"="+s.params)
	m.r.Header.Set("Signature", value)
	return nil
}

// read9421 returns the first signature of a request that this node could check (RFC
// 9421, section 4). Others may stand beside it, from a proxy or with another
// algorithm.
//
// A label or parameter that is given twice counts as its last (RFC 9651, section 4.2.2).
// That cannot be used to be read in two ways: what is signed is what was read,
// written anew.
func read9421(inputs, values []string) (*requestSignature, error) {
	in, err := httpsfv.UnmarshalDictionary(inputs)
	if err != nil {
		return nil, fmt.Errorf("cannot read Signature-Input: %w", err)
	}
	signatures, err := httpsfv.UnmarshalDictionary(values)
	if err != nil {
		return nil, fmt.Errorf("cannot read Signature: %w", err)
	}
	labels := in.Names()
	if len(labels) == 0 {
		return nil, errors.New("Signature-Input is empty")
	}
	if len(labels) > maxSignatures {
		return nil, fmt.Errorf("request has %d signatures, more than %d", len(labels), maxSignatures)
	}
	var first error
	for _, label := range labels {
		input, _ := in.Get(label)
		value, _ := signatures.Get(label)
		s, err := readLabel(input, value)
		if err == nil {
			return s, nil
		}
		if first == nil {
			first = fmt.Errorf("signature %.60q: %w", label, err)
		}
	}
	return nil, first
}

func readLabel(input, value httpsfv.Member) (*requestSignature, error) {
	list, ok := input.(httpsfv.InnerList)
	if !ok {
		return nil, errors.New("input is not a list of components")
	}
	item, ok := value.(httpsfv.Item)
	if !ok {
		return nil, errors.New("the Signature header does not have it")
	}
	s := &requestSignature{Scheme: scheme9421}
	if s.signature, ok = item.Value.([]byte); !ok || len(s.signature) == 0 {
		return nil, errors.New("it is not a byte sequence")
	}
	if len(list.Items) > maxCovered {
		return nil, fmt.Errorf("it covers %d components, more than %d", len(list.Items), maxCovered)
	}
	for _, i := range list.Items {
		name, ok := i.Value.(string)
		if !ok {
			return nil, errors.New("a component is not a string")
		}
		// Parameters change what is covered: sf, key and bs how a value is read, req and tr
		// where it is from. @query-param covers one and leaves the others open.
		if len(i.Params.Names()) > 0 {
			return nil, fmt.Errorf("component %.100q has parameters, which this node does not support", name)
		}
		if !isDerived(name) && !isFieldName(name) {
			return nil, fmt.Errorf("component %.100q is not supported", name)
		}
		s.covered = append(s.covered, name)
	}
	if err := checkCovered(s.covered); err != nil {
		return nil, err
	}
	if alg, given := list.Params.Get("alg"); given && alg != algorithm9421 {
		return nil, fmt.Errorf("its algorithm is not %s", algorithm9421)
	}
	keyID, _ := list.Params.Get("keyid")
	if s.KeyID, ok = keyID.(string); !ok {
		return nil, errors.New("it has no keyid")
	}
	if err := checkKeyID(s.KeyID); err != nil {
		return nil, err
	}
	created, _ := list.Params.Get("created")
	seconds, ok := created.(int64)
	if !ok {
		return nil, errors.New("it does not say when it was created")
	}
	s.Created = time.Unix(seconds, 0).UTC()
	if expires, given := list.Params.Get("expires"); given {
		if seconds, ok = expires.(int64); !ok {
			return nil, errors.New("its expires is not a number of seconds since 1970")
		}
		s.Expires = time.Unix(seconds, 0).UTC()
	}
	// nonce, tag and what else there may be is covered, and means nothing here.
	var err error
	if s.params, err = httpsfv.Marshal(list); err != nil {
		return nil, fmt.Errorf("its parameters cannot be written again: %w", err)
	}
	return s, nil
}

func isDerived(name string) bool {
	switch name {
	case "@method", "@target-uri", "@authority", "@scheme", "@request-target", "@path", "@query":
		return true
	}
	return false
}

// derived is the value of a component that is not a header (RFC 9421, section 2.2).
func (m httpMessage) derived(name string) (string, error) {
	path, query, _ := strings.Cut(m.target, "?")
	switch name {
	case "@method":
		return m.r.Method, nil
	case "@target-uri":
		return m.scheme + "://" + m.authority + m.target, nil
	case "@authority":
		return m.authority, nil
	case "@scheme":
		return m.scheme, nil
	case "@request-target":
		return m.target, nil
	case "@path":
		return path, nil
	case "@query":
		return "?" + query, nil // also if there is none (section 2.2.7)
	}
	return "", fmt.Errorf("component %.100q is not supported", name)
}

// checkContentDigest compares a Content-Digest header (RFC 9530) with the body.
// SHA-256 and SHA-512 are looked at; every one that is given must fit.
func checkContentDigest(r *http.Request, body []byte) error {
	values := r.Header.Values("Content-Digest")
	if len(values) != 1 || len(values[0]) > maxSignatureField {
		return errors.New("request has no Content-Digest header, or too many")
	}
	d, err := httpsfv.UnmarshalDictionary(values)
	if err != nil {
		return fmt.Errorf("cannot read Content-Digest: %w", err)
	}
	found := false
	for _, name := range []string{"sha-256", "sha-512"} {
		m, given := d.Get(name)
		if !given {
			continue
		}
		var sum []byte
		if name == "sha-256" {
			s := sha256.Sum256(body)
			sum = s[:]
		} else {
			s := sha512.Sum512(body)
			sum = s[:]
		}
		item, _ := m.(httpsfv.Item)
		if got, _ := item.Value.([]byte); !bytes.Equal(got, sum) {
			return errors.New("content digest does not fit the body: it was altered on the way")
		}
		found = true
	}
	if !found {
		return errors.New("Content-Digest header has neither sha-256 nor sha-512")
	}
	return nil
}
