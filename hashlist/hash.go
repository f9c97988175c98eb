package hashlist

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math/bits"
	"strings"
)

// Algorithm names the function a Hash was made with. The zero value is no
// algorithm. The numbers are stored in databases: they are never reused.
type Algorithm uint8

// The algorithms a statement may carry.
const (
	// PDQ is Meta's 256-bit perceptual hash, computed at full resolution
	// (not after the 512x512 shrink of the reference command line).
	// Source: facebook/ThreatExchange, hashing/hashing.pdf.
	PDQ Algorithm = 1
	// PHash is the 64-bit DCT hash as github.com/corona10/goimagehash computes
	// it. Python's imagehash.phash makes the picture smaller in another way: its
	// hashes are not the same.
	PHash Algorithm = 2
	// DHash is the 64-bit gradient hash as github.com/corona10/goimagehash
	// computes it. Python's imagehash.dhash makes the picture smaller in another
	// way: its hashes are not the same.
	DHash Algorithm = 3
	// MD5 is RFC 1321 over the bytes of the file.
	MD5 Algorithm = 4
	// SHA1 is FIPS 180-4 SHA-1 over the bytes of the file.
	SHA1 Algorithm = 5
	// SHA256 is FIPS 180-4 SHA-256 over the bytes of the file.
	SHA256 Algorithm = 6
	// VPDQ is the PDQ hash of one frame of a video, about one for each second. It is
	// an algorithm of its own so that a frame of a banned video says nothing of a
	// picture: it matches videos alone, and those by the share of their frames.
	// Source: facebook/ThreatExchange, vpdq.
	VPDQ Algorithm = 7
)

// Algorithms lists every algorithm, in the order of their numbers.
var Algorithms = [...]Algorithm{PDQ, PHash, DHash, MD5, SHA1, SHA256, VPDQ}

var algorithms = [...]struct {
	name string
	size int // bytes
	near bool
}{
	PDQ: {"pdq", 32, true}, PHash: {"phash", 8, true}, DHash: {"dhash", 8, true},
	MD5: {"md5", 16, false}, SHA1: {"sha1", 20, false}, SHA256: {"sha256", 32, false},
	VPDQ: {"vpdq", 32, true},
}

// Valid reports whether a is one of Algorithms.
func (a Algorithm) Valid() bool { return a >= PDQ && int(a) < len(algorithms) }

// String returns the name used in every text form: pdq, phash, dhash, md5, sha1, sha256 or vpdq.
func (a Algorithm) String() string {
	if !a.Valid() {
		return fmt.Sprintf("algorithm(%d)", uint8(a))
	}
	return algorithms[a].name
}

// Size is the length of a hash in bytes: 32, 8, 8, 16, 20, 32 or 32.
func (a Algorithm) Size() int {
	if !a.Valid() {
		return 0
	}
	return algorithms[a].size
}

// Perceptual reports whether near hashes mean near pictures, so that a radius
// makes sense. The digests of a file's bytes only match exactly.
func (a Algorithm) Perceptual() bool { return a.Valid() && algorithms[a].near }

// MaxRadius is the largest Hamming radius a lookup may use: 63 of 256 bits for
// PDQ and VPDQ, 16 of 64 bits for PHash and DHash, 0 for digests. Beyond it unrelated
// pictures match.
func (a Algorithm) MaxRadius() int {
	switch {
	case a == PDQ, a == VPDQ:
		return 63
	case a.Perceptual():
		return 16
	}
	return 0
}

// ParseAlgorithm reads an algorithm's name. Only the exact lower-case names of
// String are accepted.
func ParseAlgorithm(name string) (Algorithm, error) {
	for _, a := range Algorithms {
		if a.String() == name {
			return a, nil
		}
	}
	return 0, fmt.Errorf("unknown hash algorithm %.40q (want pdq, phash, dhash, md5, sha1, sha256 or vpdq)", name)
}

// Hash is the fingerprint of one file or picture. It is a value: it compares
// with == and may key a map. The zero Hash is not valid.
type Hash struct {
	alg Algorithm
	sum [32]byte // big-endian: the first hex digit is the top of sum[0]; unused bytes are zero
}

// errZeroHash: tools print the all-zero hash for what they could not decode,
// and StopNCII once shipped one. Listed, it would match every such failure.
var errZeroHash = errors.New("the all-zero hash stands for an undecodable picture and is refused")

// NewHash makes a Hash from its bytes, most significant first: for PDQ the
// order in which the reference prints it. It fails on a wrong length and on a
// perceptual hash that is all zero.
func NewHash(a Algorithm, sum []byte) (Hash, error) {
	if !a.Valid() {
		return Hash{}, fmt.Errorf("unknown hash %v", a)
	}
	if len(sum) != a.Size() {
		return Hash{}, fmt.Errorf("%v hash has %d bytes, want %d", a, len(sum), a.Size())
	}
	h := Hash{alg: a}
	copy(h.sum[:], sum)
	if h.sum == [32]byte{} && a.Perceptual() {
		return Hash{}, errZeroHash
	}
	return h, nil
}

// ParseHash reads the strict text form that String prints: the algorithm's
// name, a colon and lower-case hexadecimal of the exact length. It is the only
// form that travels in statements, so one hash has one spelling.
func ParseHash(text string) (Hash, error) {
	name, digits, ok := strings.Cut(text, ":")
	if !ok {
		return Hash{}, fmt.Errorf("hash %.80q has no algorithm (want algorithm:hex, as in pdq:f8f8…)", text)
	}
	a, err := ParseAlgorithm(name)
	if err != nil {
		return Hash{}, err
	}
	if strings.ToLower(digits) != digits {
		return Hash{}, fmt.Errorf("%v hash is not in lower case", a)
	}
	return parseHex(a, digits)
}

// ParseHashLenient reads the value of a hash as other systems write it:
// hexadecimal in any case, standard base64 (Arachnid Shield), or a string of
// 0 and 1, most significant bit first (PieFed). A text of the form that
// ParseHash reads is accepted too if its algorithm is a.
func ParseHashLenient(a Algorithm, text string) (Hash, error) {
	if !a.Valid() {
		return Hash{}, fmt.Errorf("unknown hash %v", a)
	}
	if name, rest, ok := strings.Cut(text, ":"); ok {
		if b, err := ParseAlgorithm(strings.ToLower(name)); err != nil {
			return Hash{}, err
		} else if b != a {
			return Hash{}, fmt.Errorf("hash is %v, want %v", b, a)
		}
		text = rest
	}
	switch n := a.Size(); len(text) {
	case 2 * n:
		return parseHex(a, strings.ToLower(text))
	case base64.StdEncoding.EncodedLen(n):
		sum, err := base64.StdEncoding.Strict().DecodeString(text)
		if err != nil {
			return Hash{}, fmt.Errorf("%v hash is not base64", a)
		}
		return NewHash(a, sum)
	case 8 * n:
		sum := make([]byte, n)
		for i, c := range []byte(text) {
			if c != '0' && c != '1' {
				return Hash{}, fmt.Errorf("%v hash of %d characters has one that is not 0 or 1", a, len(text))
			}
			sum[i/8] = sum[i/8]<<1 | (c - '0')
		}
		return NewHash(a, sum)
	}
	return Hash{}, fmt.Errorf("%v hash has %d characters, want %d (hex), %d (base64) or %d (bits)",
		a, len(text), 2*a.Size(), base64.StdEncoding.EncodedLen(a.Size()), 8*a.Size())
}

func parseHex(a Algorithm, digits string) (Hash, error) {
	if len(digits) != 2*a.Size() {
		return Hash{}, fmt.Errorf("%v hash has %d hex digits, want %d", a, len(digits), 2*a.Size())
	}
	sum, err := hex.DecodeString(digits)
	if err != nil {
		return Hash{}, fmt.Errorf("%v hash is not hexadecimal", a)
	}
	return NewHash(a, sum)
}

// Algorithm returns what the hash was made with, 0 for the zero Hash.
func (h Hash) Algorithm() Algorithm { return h.alg }

// IsZero reports whether h is the zero value, which is no hash at all.
func (h Hash) IsZero() bool { return h.alg == 0 }

// Sum returns the bytes of the hash, most significant first.
func (h Hash) Sum() []byte { return append([]byte(nil), h.sum[:h.alg.Size()]...) }

// Hex returns the lower-case hexadecimal digits without the algorithm.
func (h Hash) Hex() string { return hex.EncodeToString(h.sum[:h.alg.Size()]) }

// String returns the strict text form, as in "pdq:f8f8f0ce…".
func (h Hash) String() string { return h.alg.String() + ":" + h.Hex() }

// Complement returns the perceptual hash with every bit turned. A picture with
// inverted colours has the PDQ hash of the original complemented, at distance
// 256, because every DCT coefficient but the missing mean changes its sign and
// with it its side of the median. The complement of a digest means nothing:
// Complement returns the zero Hash for it.
func (h Hash) Complement() Hash {
	if !h.alg.Perceptual() {
		return Hash{}
	}
	for i := range h.alg.Size() {
		h.sum[i] = ^h.sum[i]
	}
	return h
}

// OfVideo returns the VPDQ hash of a video's frame that has the PDQ hash h, and
// the zero Hash for other algorithms.
func (h Hash) OfVideo() Hash {
	if h.alg != PDQ {
		return Hash{}
	}
	h.alg = VPDQ
	return h
}

// Distance is the Hamming distance in bits between two hashes of one
// algorithm, and false when the algorithms differ.
func (h Hash) Distance(o Hash) (int, bool) {
	if h.alg != o.alg || !h.alg.Valid() {
		return 0, false
	}
	n := 0
	for i := range h.sum {
		n += bits.OnesCount8(h.sum[i] ^ o.sum[i])
	}
	return n, true
}

// MarshalText implements encoding.TextMarshaler with the strict text form.
func (h Hash) MarshalText() ([]byte, error) {
	if !h.alg.Valid() {
		return nil, errors.New("the zero hash has no text form")
	}
	return []byte(h.String()), nil
}

// UnmarshalText implements encoding.TextUnmarshaler with ParseHash.
func (h *Hash) UnmarshalText(text []byte) error {
	v, err := ParseHash(string(text))
	if err != nil {
		return err
	}
	*h = v
	return nil
}
