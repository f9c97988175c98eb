package federation

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// signCavage signs as Mastodon does: rsa-sha256, which says what it is. hs2019
// would mean "look at the key", and some older servers refuse it.
//
// The query is signed, as the draft has it. Fedify 2.3.6 leaves it out when it checks, too, and
// so refuses a GET with a query that is signed like this; it takes RFC 9421. GoToSocial and
// go-fed check against the decoded path, and refuse paths with %2F in them.
func (s *requestSignature) signCavage(m httpMessage, body []byte, key *rsa.PrivateKey) error {
	s.covered = []string{"(request-target)", "host", "date"}
	if needsDigest(m.r.Method, body) {
		sum := sha256.Sum256(body)
		m.r.Header.Set("Digest", "SHA-256="+base64.StdEncoding.EncodeToString(sum[:]))
		s.covered = append(s.covered, "digest")
		if m.r.Header.Get("Content-Type") != "" {
			s.covered = append(s.covered, "content-type")
		}
	}
	base, err := s.base(m)
	if err != nil {
		return err
	}
	if s.signature, err = signRSA(key, base); err != nil {
		return err
	}
	m.r.Header.Set("Signature", fmt.Sprintf(`keyId="%s",algorithm="rsa-sha256",headers="%s",signature="%s"`,
		s.KeyID, strings.Join(s.covered, " "), base64.StdEncoding.EncodeToString(s.signature)))
	return nil
}

// readCavage reads a Signature header of draft-cavage-http-signatures-12, section 2.1.
func readCavage(r *http.Request, header string) (*requestSignature, error) {
	p, err := parseCavage(header)
	if err != nil {
		return nil, err
	}
	s := &requestSignature{KeyID: p["keyId"], Scheme: schemeCavage}
	if err := checkKeyID(s.KeyID); err != nil {
		return nil, err
	}
	if s.signature, err = base64.StdEncoding.Strict().DecodeString(p["signature"]); err != nil || len(s.signature) == 0 {
		return nil, errors.New("signature is not in base64")
	}
	// hs2019 leaves the algorithm to the key, and RSA keys sign with RSASSA-PKCS1-v1_5
	// here; in the text of the draft it is PSS with SHA-512, which nobody does.
	algorithm, given := p["algorithm"]
	if given && algorithm != "rsa-sha256" && algorithm != "hs2019" {
		return nil, fmt.Errorf("signature has algorithm %.60q, want rsa-sha256 or hs2019", algorithm)
	}
	// Without a list only (created) would be covered, in older drafts only date.
	s.covered = strings.Fields(strings.ToLower(p["headers"]))
	if len(s.covered) == 0 {
		return nil, errors.New("signature lists no headers, so it covers too little")
	}
	if err := checkCovered(s.covered); err != nil {
		return nil, err
	}
	for _, name := range s.covered {
		switch name {
		case "(request-target)":
		case "(created)", "(expires)":
			// Section 2.3: implementations must refuse these with the older algorithms,
			// whose verifiers did not know them.
			if algorithm == "rsa-sha256" {
				return nil, fmt.Errorf("signature covers %s, which rsa-sha256 cannot", name)
			}
			if _, ok := p[strings.Trim(name, "()")]; !ok {
				return nil, fmt.Errorf("signature covers %s, but does not give it", name)
			}
		default:
			if !isFieldName(name) {
				return nil, fmt.Errorf("signature covers %.100q, which is not a header", name)
			}
		}
	}
	// An end counts even if it is not signed: heeding it can only make a signature weaker.
	if text, ok := p["expires"]; ok {
		if s.Expires, err = parseUnix(text); err != nil {
			return nil, fmt.Errorf("expires: %w", err)
		}
	}
	switch {
	case s.covers("(created)"):
		if s.Created, err = parseUnix(p["created"]); err != nil {
			return nil, fmt.Errorf("created: %w", err)
		}
	case s.covers("date"):
		if s.Created, err = dateOf(r); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// parseCavage splits name="value" pairs. A name that is given twice is refused (the draft
// forbids it), because programs differ on which of the two counts. Unknown names are
// left out, as the draft wants.
func parseCavage(text string) (map[string]string, error) {
	p := map[string]string{}
	for rest := strings.Trim(text, " \t"); ; {
		name, after, ok := strings.Cut(rest, "=")
		if !ok || name == "" {
			return nil, errors.New(`signature is not a list of name="value"`)
		}
		var value string
		if quoted, isQuoted := strings.CutPrefix(after, `"`); isQuoted {
			if value, rest, ok = strings.Cut(quoted, `"`); !ok {
				return nil, errors.New("signature has a quote that is not closed")
			}
		} else {
			end := strings.IndexAny(after, ", \t")
			if end < 0 {
				end = len(after)
			}
			value, rest = after[:end], after[end:]
		}
		// Nothing that is read here has a quote or a backslash in it, so escapes are refused
		// rather than decoded.
		if strings.ContainsAny(name, "\"\\, \t") || strings.ContainsAny(value, "\"\\") {
			return nil, errors.New(`signature is not a list of name="value"`)
		}
		switch name {
		case "keyId", "algorithm", "headers", "signature", "created", "expires":
			if _, twice := p[name]; twice {
				return nil, fmt.Errorf("signature has %s twice", name)
			}
			p[name] = value
		}
		rest = strings.TrimLeft(rest, " \t")
		if rest == "" {
			return p, nil
		}
		if rest, ok = strings.CutPrefix(rest, ","); !ok {
			return nil, errors.New(`signature is not a list of name="value"`)
		}
		rest = strings.TrimLeft(rest, " \t")
	}
}

// parseUnix reads seconds since 1970, in one spelling. The draft allows expires
// fractions; nobody sends them.
func parseUnix(text string) (time.Time, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > 1<<40 || strconv.FormatInt(n, 10) != text {
		return time.Time{}, fmt.Errorf("%.40q is not a number of seconds since 1970", text)
	}
	return time.Unix(n, 0).UTC(), nil
}

// pseudoHeader is the value of a component in parentheses (section 2.3).
func (s *requestSignature) pseudoHeader(m httpMessage, name string) (string, error) {
	switch name {
	case "(request-target)":
		// The draft signs the method in lower case, though get and GET are two methods.
		if m.r.Method != strings.ToUpper(m.r.Method) {
			return "", fmt.Errorf("method %.20q is not in capitals", m.r.Method)
		}
		return strings.ToLower(m.r.Method) + " " + m.target, nil
	case "(created)":
		return strconv.FormatInt(s.Created.Unix(), 10), nil
	case "(expires)":
		return strconv.FormatInt(s.Expires.Unix(), 10), nil
	}
	return "", fmt.Errorf("signature covers %.100q, which is not a header", name)
}

// checkDigest compares a Digest header (RFC 3230) with the body. Only SHA-256 is
// looked at; every one that is given must fit.
func checkDigest(r *http.Request, body []byte) error {
	values := r.Header.Values("Digest")
	if len(values) != 1 || len(values[0]) > maxSignatureField {
		return errors.New("request has no Digest header, or too many")
	}
	sum, found := sha256.Sum256(body), false
	for _, part := range strings.Split(values[0], ",") {
		name, text, _ := strings.Cut(strings.Trim(part, " \t"), "=")
		if !strings.EqualFold(name, "SHA-256") {
			continue
		}
		got, err := base64.StdEncoding.Strict().DecodeString(text)
		if err != nil || !bytes.Equal(got, sum[:]) {
			return errors.New("digest does not fit the body: it was altered on the way")
		}
		found = true
	}
	if !found {
		return errors.New("digest header has no SHA-256")
	}
	return nil
}
