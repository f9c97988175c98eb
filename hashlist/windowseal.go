package hashlist

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// WindowKeySize is the size in bytes of the key of the window.
const WindowKeySize = 32

// sealer encrypts what the window keeps. Three keys are made of the one that the
// operator has (HKDF, RFC 5869), so that no two uses of it meet. Rows are sealed with
// AES-256-GCM under random nonces: at a hundred rows a second for ten years, two of them
// are the same with a chance of one in 10^8, and then say little of two rows. What a row is
// is bound to it, so that whoever can write to the database can delete rows, but neither
// exchange nor make them.
type sealer struct {
	rows cipher.AEAD
	tags []byte // key of the tags of references
	sums []byte // key of the sums by which an upload is known again
}

func newSealer(key []byte) (*sealer, error) {
	if len(key) != WindowKeySize {
		return nil, fmt.Errorf("the key of the window has %d bytes, want %d", len(key), WindowKeySize)
	}
	derive := func(use string) ([]byte, error) { return hkdf.Key(sha256.New, key, nil, "tocsin window "+use, 32) }
	s := &sealer{}
	secret, err := derive("rows")
	if err != nil {
		return nil, err
	}
	if s.tags, err = derive("tags"); err != nil {
		return nil, err
	}
	if s.sums, err = derive("sums"); err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, err
	}
	s.rows, err = cipher.NewGCMWithRandomNonce(block)
	return s, err
}

// The kinds of row that are sealed.
const (
	sealedUpload = "upload"
	sealedHit    = "hit"
)

func (s *sealer) seal(kind string, id uint64, plain []byte) []byte {
	return s.rows.Seal(nil, nil, plain, binary.BigEndian.AppendUint64([]byte(kind), id))
}

var errSealed = errors.New("what was kept of an upload cannot be read: it is damaged, or the key of the window is another than it was sealed with")

func (s *sealer) open(kind string, id uint64, sealed []byte) ([]byte, error) {
	plain, err := s.rows.Open(nil, nil, sealed, binary.BigEndian.AppendUint64([]byte(kind), id))
	if err != nil {
		return nil, errSealed
	}
	return plain, nil
}

// tag is by what an upload is found by one text of its reference.
func (s *sealer) tag(name, text string) [16]byte {
	h := hmac.New(sha256.New, s.tags)
	h.Write([]byte(name))
	h.Write([]byte{0})
	h.Write([]byte(text))
	return [16]byte(h.Sum(nil))
}

// sum is by what an upload is known again: the very file, or else the very same
// hashes. It is keyed, so that nobody can have one upload taken for another.
func (s *sealer) sum(probes []Probe) uint64 {
	h := hmac.New(sha256.New, s.sums)
	write := func(v Hash) {
		h.Write([]byte{byte(v.alg)})
		h.Write(v.sum[:v.alg.Size()])
	}
	if file, ok := fileOf(probes); ok {
		write(file)
	} else {
		for i := range probes {
			write(probes[i].Hash)
		}
	}
	return binary.BigEndian.Uint64(h.Sum(nil))
}

// fileOf returns the SHA-256 of the file, if it is among the probes.
func fileOf(probes []Probe) (Hash, bool) {
	for i := range probes {
		if probes[i].Hash.alg == SHA256 {
			return probes[i].Hash, true
		}
	}
	return Hash{}, false
}
