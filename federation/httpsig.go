package federation

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// Requests between nodes are signed in one of two ways, and there is no one that
// everybody takes: GoToSocial 0.20 and Misskey know only the draft, Mastodon
// since 4.5 and Fedify know both.
//
// Both are built here from their texts, with dunglas/httpsfv for the structured
// fields of RFC 9421. What else there is was tried. yaronf/httpsign is right,
// but links 47 more packages and a megabyte, and of what decides whether a
// request may be trusted (what is covered, the body's digest, the host,
// an exact window around a given now) it leaves most to the caller.
// go-fed/httpsig and GoToSocial's fork of it write the decoded path into what is
// signed, read the clock themselves, split parameters at commas inside quotes, let
// the last of two equal parameters win, and write to the headers of the
// request they check.
//
// All of it is RSA: RSASSA-PKCS1-v1_5 with SHA-256 is the one algorithm that every
// server checks. An Ed25519 key id in an HTTP signature makes Fedify distrust that
// key's object proofs too.

// scheme is a way of signing HTTP requests.
type scheme uint8

const (
	schemeCavage scheme = 1 // draft-cavage-http-signatures-12
	scheme9421   scheme = 2 // RFC 9421, HTTP Message Signatures
)

// When a signature counts. Mastodon (app/lib/signed_request.rb) gives a signature
// that names no end five minutes, and clocks an hour, both ways. The hour back is
// kept: a clock in the wrong summer time is an hour off, and queues are slow. The hour
// ahead is not: a signature dated ahead can be replayed for longer.
const (
	signatureLife = 5 * time.Minute // of a signature, after it was made
	signatureSkew = time.Hour       // by which a signer's clock may be behind
	signatureLead = 5 * time.Minute // by which a signer's clock may be ahead

	// signaturePast is how long after its Created a signature is accepted, and so
	// how long a replay cache has to remember it.
	signaturePast = signatureLife + signatureSkew
)

// Bounds of what a request claims, checked before anything is built from it.
const (
	maxSignatureField = 4 << 10 // bytes of Signature, Signature-Input, Digest, Content-Digest: four signatures of RSA-4096 are 2.8 KiB
	maxCovered        = 32      // components of one signature
	maxSignatures     = 4       // labels; proxies may add one
	minRSABits        = 2048    // what everybody uses at least; Go's verifier would take 1024
	maxRSABits        = 8192    // one check takes half a millisecond
)

// errUnsigned says that a request carries no signature at all. One with a signature that
// cannot be read is another error.
var errUnsigned = errors.New("request is not signed")

// requestSignature is what a request claims about who signed it. Nothing of it is
// to be believed before verify.
type requestSignature struct {
	KeyID   string // printable ASCII, 1 to hashlist.MaxIRI bytes; not covered by a draft-cavage signature
	Scheme  scheme
	Created time.Time // whole seconds; zero if neither date nor (created) is signed, which verify refuses
	Expires time.Time // zero if the signature names no end

	covered   []string // names of the components, in the order they are signed, lower case, none twice
	params    string   // RFC 9421: the value of @signature-params
	signature []byte
}

// signRequest signs r, which is about to be sent with the given body (nil for
// none), with key. keyID is where others find the public key. It sets what is
// signed: Host, Date, the digest of the body and the signature, and takes away
// what an earlier call set. It sets the body too, so that what is signed is what is sent,
// and so that r can be signed with the other scheme and sent again.
//
// Of the headers only Content-Type is signed: proxies rewrite the others.
func signRequest(r *http.Request, body []byte, keyID string, key *rsa.PrivateKey, s scheme, now time.Time) error {
	if key == nil {
		return errors.New("sign request: no key")
	}
	if err := checkRSA(&key.PublicKey); err != nil {
		return fmt.Errorf("sign request: %w", err)
	}
	if err := checkKeyID(keyID); err != nil {
		return fmt.Errorf("sign request: %w", err)
	}
	authority, err := authorityOf(r.URL)
	if err != nil {
		return fmt.Errorf("sign request: %w", err)
	}
	if r.Header == nil {
		r.Header = http.Header{}
	}
	for _, name := range []string{"Signature", "Signature-Input", "Digest", "Content-Digest"} {
		r.Header.Del(name)
	}
	if r.Method == "" {
		r.Method = http.MethodGet // what an empty one means to net/http
	}
	// The Host that is sent is the one that is signed: lower case, without a default port.
	r.Host = authority
	r.Header.Set("Date", now.UTC().Format(http.TimeFormat))
	setBody(r, body)

	c := &requestSignature{KeyID: keyID, Scheme: s, Created: now.UTC().Truncate(time.Second)}
	m := httpMessage{r, r.URL.Scheme, authority, r.URL.RequestURI()}
	if !strings.HasPrefix(m.target, "/") {
		return fmt.Errorf("sign request: path %.200q does not begin with a slash", m.target)
	}
	switch s {
	case schemeCavage:
		err = c.signCavage(m, body, key)
	case scheme9421:
		err = c.sign9421(m, body, key)
	default:
		err = fmt.Errorf("unknown scheme %d", s)
	}
	if err != nil {
		return fmt.Errorf("sign request: %w", err)
	}
	return nil
}

func setBody(r *http.Request, body []byte) {
	r.ContentLength = int64(len(body))
	if len(body) == 0 {
		r.Body, r.GetBody = http.NoBody, func() (io.ReadCloser, error) { return http.NoBody, nil }
		return
	}
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	r.Body, _ = r.GetBody()
}

// readSignature reads what a request claims about its signer, within bounds, and checks
// nothing of it. It returns errUnsigned if the request carries no signature.
func readSignature(r *http.Request) (*requestSignature, error) {
	inputs, values := r.Header.Values("Signature-Input"), r.Header.Values("Signature")
	if len(inputs) == 0 && len(values) == 0 {
		return nil, errUnsigned
	}
	for _, name := range []string{"Signature-Input", "Signature"} {
		size := 0
		for _, v := range r.Header.Values(name) {
			size += len(v)
		}
		if size > maxSignatureField {
			return nil, fmt.Errorf("%s of %d bytes is longer than %d", name, size, maxSignatureField)
		}
	}
	// Signature-Input decides, as with Mastodon and Fedify: the draft has no such field. A
	// Signature that is not of the scheme it promises is an error, not a second try.
	if len(inputs) > 0 {
		return read9421(inputs, values)
	}
	if len(values) > 1 {
		return nil, fmt.Errorf("request has %d Signature headers, one was expected", len(values))
	}
	return readCavage(r, values[0])
}

// verify checks everything that there is to check of a request: that what decides
// its meaning is covered, that it is meant for origin (this node's, as in
// https://hashes.example; what the request says about its own address is only
// compared with that), the window around now, the digest against body, which is
// the whole body, and last the signature.
//
// Whether public is the key that KeyID names, and whose it is, is the caller's to know. With
// draft-cavage KeyID is not signed: a key must be refused if its own document
// gives it another id, or one request could be replayed under many names.
func (s *requestSignature) verify(r *http.Request, body []byte, origin string, public *rsa.PublicKey, now time.Time) error {
	if err := checkRSA(public); err != nil {
		return err
	}
	m, err := receivedAt(r, origin)
	if err != nil {
		return err
	}
	if err := s.checkCoverage(r, body); err != nil {
		return err
	}
	if err := s.checkTime(r, now); err != nil {
		return err
	}
	if err := s.checkDigest(r, body); err != nil {
		return err
	}
	base, err := s.base(m)
	if err != nil {
		return err
	}
	if verifyRSA(public, base, s.signature) == nil {
		return nil
	}
	// Fedify and Misskey leave the query out of the draft's (request-target), older
	// Mastodons did. What an attacker on the way could do with that is ask for another
	// page of what the signer may read anyway. No inbox has a query, so there it is not allowed.
	path, _, query := strings.Cut(m.target, "?")
	if s.Scheme == schemeCavage && query && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		m.target = path
		if base, err = s.base(m); err == nil && verifyRSA(public, base, s.signature) == nil {
			return nil
		}
	}
	return errors.New("signature does not fit the request: it was altered, or signed with another key")
}

// replayKey stands for this signature in a cache of those that were seen. It is to be added
// only once verify has agreed, and kept until Created + signaturePast.
func (s *requestSignature) replayKey() [32]byte {
	// The length comes first, so that no two pairs give the same bytes.
	b := binary.BigEndian.AppendUint64(nil, uint64(len(s.KeyID)))
	return sha256.Sum256(append(append(b, s.KeyID...), s.signature...))
}

func (s *requestSignature) covers(name string) bool { return slices.Contains(s.covered, name) }

// needsDigest reports whether a request's body must be covered. A POST without a
// body is covered too: otherwise one could be given to it.
func needsDigest(method string, body []byte) bool { return method == http.MethodPost || len(body) > 0 }

// checkCoverage refuses signatures over too little: they are good, and say nothing about
// the rest of the request.
func (s *requestSignature) checkCoverage(r *http.Request, body []byte) error {
	digest := "digest"
	switch s.Scheme {
	case schemeCavage:
		for _, name := range []string{"(request-target)", "host"} {
			if !s.covers(name) {
				return fmt.Errorf("signature does not cover %s", name)
			}
		}
		if !s.covers("date") && !s.covers("(created)") {
			return errors.New("signature covers neither date nor (created)")
		}
	case scheme9421:
		digest = "content-digest"
		if !s.covers("@method") {
			return errors.New("signature does not cover @method")
		}
		// An absent query is covered as "?": leaving @query out would allow to take one away.
		path := s.covers("@request-target") || s.covers("@path") && s.covers("@query")
		if !s.covers("@target-uri") && !(s.covers("@authority") && path) {
			return errors.New("signature covers neither @target-uri nor @authority, @path and @query")
		}
	default:
		return fmt.Errorf("unknown scheme %d", s.Scheme)
	}
	if needsDigest(r.Method, body) && !s.covers(digest) {
		return fmt.Errorf("signature does not cover %s, but the request has a body or is a POST", digest)
	}
	return nil
}

// checkTime holds every time that is signed against now: if a signature carries two,
// either may be the one that its signer thought of.
func (s *requestSignature) checkTime(r *http.Request, now time.Time) error {
	times := []time.Time{s.Created}
	if s.covers("date") {
		date, err := dateOf(r)
		if err != nil {
			return err
		}
		times = append(times, date)
	}
	for _, t := range times {
		if t.After(now.Add(signatureLead)) {
			return fmt.Errorf("signature was made at %s, in the future: check both clocks", t.UTC().Format(time.RFC3339))
		}
		if t.Before(now.Add(-signaturePast)) {
			return fmt.Errorf("signature was made at %s, too long ago: check both clocks", t.UTC().Format(time.RFC3339))
		}
	}
	// No grace here: who names an end has chosen it.
	if !s.Expires.IsZero() && now.After(s.Expires) {
		return fmt.Errorf("signature expired at %s", s.Expires.UTC().Format(time.RFC3339))
	}
	return nil
}

// checkDigest compares the digest that is signed with the body. One that is not signed
// proves nothing and is not looked at.
func (s *requestSignature) checkDigest(r *http.Request, body []byte) error {
	if s.Scheme == schemeCavage && s.covers("digest") {
		return checkDigest(r, body)
	}
	if s.Scheme == scheme9421 && s.covers("content-digest") {
		return checkContentDigest(r, body)
	}
	return nil
}

// base is what is signed.
func (s *requestSignature) base(m httpMessage) ([]byte, error) {
	var b bytes.Buffer
	for i, name := range s.covered {
		value, err := s.component(m, name)
		if err != nil {
			return nil, err
		}
		// A line break would let one component speak for others. net/http takes none in, but
		// this must not depend on where a request came from.
		if strings.ContainsAny(value, "\r\n\x00") {
			return nil, fmt.Errorf("%s has a line break in it", name)
		}
		if s.Scheme == scheme9421 {
			fmt.Fprintf(&b, "\"%s\": %s\n", name, value)
			continue
		}
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(name + ": " + value)
	}
	if s.Scheme == scheme9421 {
		b.WriteString(`"@signature-params": ` + s.params)
	}
	return b.Bytes(), nil
}

func (s *requestSignature) component(m httpMessage, name string) (string, error) {
	switch {
	case s.Scheme == schemeCavage && name[0] == '(':
		return s.pseudoHeader(m, name)
	case s.Scheme == scheme9421 && name[0] == '@':
		return m.derived(name)
	default:
		return m.field(name)
	}
}

// checkCovered refuses a list that is too long or names a component twice: with two
// lines of one name, programs may differ on which one they look at.
func checkCovered(names []string) error {
	if len(names) > maxCovered {
		return fmt.Errorf("signature covers %d components, more than %d", len(names), maxCovered)
	}
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			return fmt.Errorf("signature covers %.100q twice", name)
		}
	}
	return nil
}

// checkKeyID bounds a key id to what can be written in both schemes.
func checkKeyID(id string) error {
	if id == "" || len(id) > hashlist.MaxIRI {
		return fmt.Errorf("key id of %d bytes is not 1 to %d long", len(id), hashlist.MaxIRI)
	}
	for i := range len(id) {
		if c := id[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return fmt.Errorf("key id %.80q has characters that do not belong in one", id)
		}
	}
	return nil
}

func checkRSA(key *rsa.PublicKey) error {
	if key == nil || key.N == nil {
		return errors.New("no RSA key")
	}
	if n := key.N.BitLen(); n < minRSABits || n > maxRSABits {
		return fmt.Errorf("RSA key of %d bits is not %d to %d long", n, minRSABits, maxRSABits)
	}
	return nil
}

func signRSA(key *rsa.PrivateKey, base []byte) ([]byte, error) {
	sum := sha256.Sum256(base)
	return rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
}

func verifyRSA(key *rsa.PublicKey, base, signature []byte) error {
	sum := sha256.Sum256(base)
	return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature)
}
