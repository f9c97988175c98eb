package federation

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mr-tron/base58"
)

// ed25519Multicodec is the prefix of an Ed25519 public key in a Multikey
// (W3C Controlled Identifiers, section 2.2.2; multicodec ed25519-pub).
var ed25519Multicodec = [2]byte{0xed, 0x01}

// Multikey is the text form of a public key: z, then base58btc over the
// multicodec prefix and the 32 bytes. It begins with z6Mk.
func Multikey(key ed25519.PublicKey) string {
	return "z" + base58.Encode(append(ed25519Multicodec[:], key...))
}

// ParseMultikey reads what Multikey prints. Keys of other kinds are refused.
func ParseMultikey(text string) (ed25519.PublicKey, error) {
	digits, ok := strings.CutPrefix(text, "z")
	if !ok || len(digits) > 64 {
		return nil, errors.New("key is not a base58btc Multikey")
	}
	b, err := base58.Decode(digits)
	if err != nil || len(b) != 2+ed25519.PublicKeySize || [2]byte(b) != ed25519Multicodec {
		return nil, errors.New("key is not an Ed25519 Multikey")
	}
	return ed25519.PublicKey(b[2:]), nil
}

// proof is a data integrity proof (W3C VC Data Integrity; FEP-8b32).
type proof struct {
	Context json.RawMessage `json:"@context,omitempty"`
	Created string          `json:"created"`
	Suite   string          `json:"cryptosuite"`
	Purpose string          `json:"proofPurpose"`
	Type    string          `json:"type"`
	Method  string          `json:"verificationMethod"`
	Value   string          `json:"proofValue,omitempty"`
}

const (
	proofType    = "DataIntegrityProof"
	proofSuite   = "eddsa-jcs-2022"
	proofPurpose = "assertionMethod"
)

// signingInput is what eddsa-jcs-2022 signs: the SHA-256 of the canonical
// proof options followed by the SHA-256 of the canonical document without its
// proof (W3C Data Integrity EdDSA Cryptosuites, section 3.3.4).
func signingInput(options, document []byte) []byte {
	o, d := sha256.Sum256(options), sha256.Sum256(document)
	return append(o[:], d[:]...)
}

// sign adds a proof to a canonical document.
func sign(document []member, key ed25519.PrivateKey, method string, created time.Time) ([]byte, error) {
	p := proof{
		Created: created.UTC().Format(time.RFC3339), Suite: proofSuite, Purpose: proofPurpose, Type: proofType, Method: method,
	}
	for _, m := range document {
		if m.name == "@context" {
			p.Context = m.value
		}
	}
	options, err := marshal(p)
	if err != nil {
		return nil, err
	}
	p.Value = "z" + base58.Encode(ed25519.Sign(key, signingInput(options, join(document))))
	value, err := marshal(p)
	if err != nil {
		return nil, err
	}
	return join(insert(document, member{"proof", value})), nil
}

// marshal returns the canonical form of v.
func marshal(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return canonical(b)
}

// insert puts a member in its canonical place among others. All names must be ASCII, as ours
// are: others sort by UTF-16 code units (RFC 8785, section 3.2.3).
func insert(all []member, m member) []member {
	i := 0
	for i < len(all) && all[i].name < m.name {
		i++
	}
	out := append([]member(nil), all[:i]...)
	out = append(out, m)
	return append(out, all[i:]...)
}

// verify checks the proof of a canonical document and returns the method it
// was made with and when. key finds the public key of a method.
func verify(document []member, key func(method string) (ed25519.PublicKey, error)) (method string, created time.Time, err error) {
	var raw, context json.RawMessage
	for _, m := range document {
		switch m.name {
		case "proof":
			raw = m.value
		case "@context":
			context = m.value
		}
	}
	if raw == nil {
		return "", time.Time{}, errors.New("document has no proof")
	}
	o := newObject(raw)
	for _, want := range [...][2]string{{"type", proofType}, {"cryptosuite", proofSuite}, {"proofPurpose", proofPurpose}} {
		if got := o.text(want[0]); got != want[1] {
			o.fail("proof has %s %.60q, want %q", want[0], got, want[1])
		}
	}
	method = o.text("verificationMethod")
	// One that is left out is the document's (Fedify leaves it out).
	if o.has("@context") && !bytes.Equal(o.values["@context"], context) {
		o.fail("proof has another @context than the document")
	}
	if o.err == nil {
		created, o.err = parseTime(o.text("created"))
	}
	signature := parseSignature(o.text("proofValue"))
	if signature == nil {
		o.fail("proof has no base58btc signature of %d bytes", ed25519.SignatureSize)
	}
	if o.err != nil {
		return "", time.Time{}, o.err
	}
	public, err := key(method)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("key of the proof: %w", err)
	}
	if len(public) != ed25519.PublicKeySize {
		return "", time.Time{}, errors.New("key of the proof is not an Ed25519 key")
	}
	options, err := members(raw)
	if err != nil {
		return "", time.Time{}, err
	}
	// A top-level "signature" is an old linked-data signature. Fedify always adds one; it is
	// not part of what the proof covers, and never looked at.
	input := signingInput(join(options, "proofValue"), join(document, "proof", "signature"))
	if !ed25519.Verify(public, input, signature) {
		return "", time.Time{}, errors.New("proof does not fit the document: it was altered, or signed with another key")
	}
	return method, created, nil
}

func parseSignature(text string) []byte {
	digits, ok := strings.CutPrefix(text, "z")
	if !ok || len(digits) > 100 {
		return nil
	}
	b, err := base58.Decode(digits)
	if err != nil || len(b) != ed25519.SignatureSize {
		return nil
	}
	return b
}

// parseTime reads a moment in whole seconds of UTC, so that one moment has one
// spelling.
func parseTime(text string) (time.Time, error) {
	t, err := time.Parse("2006-01-02T15:04:05Z", text)
	if err != nil || len(text) != len("2006-01-02T15:04:05Z") {
		return time.Time{}, fmt.Errorf("%.40q is not a time like 2026-01-31T12:00:00Z", text)
	}
	return t.UTC(), nil
}
