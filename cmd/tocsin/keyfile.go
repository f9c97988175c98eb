package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// The keys of a node, in its data directory. Names of issuers have no dots, so none of
// them is taken for another.

// keyPath is where an issuer's key lies, and publicKeyPath where its public half
// does if the private one is kept elsewhere.
func keyPath(dir, issuer string) string       { return filepath.Join(dir, keysName, issuer+".pem") }
func publicKeyPath(dir, issuer string) string { return filepath.Join(dir, keysName, issuer+".pub.pem") }

// requestKeyPath is the key that signs requests to other nodes, and headKeyPath the
// one that signs the heads of lists.
func requestKeyPath(dir string) string { return filepath.Join(dir, keysName, "request.rsa.pem") }
func headKeyPath(dir string) string    { return filepath.Join(dir, keysName, "heads.ed25519.pem") }

// requestKeyBits is the size that the fediverse demands.
const requestKeyBits = 2048

// writeIssuerKey makes a new Ed25519 key, and writes it to a new file.
func writeIssuerKey(path string) error {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	return writePrivate(path, key)
}

func writeRequestKey(path string) error {
	key, err := rsa.GenerateKey(rand.Reader, requestKeyBits)
	if err != nil {
		return err
	}
	return writePrivate(path, key)
}

// writePrivate writes a private key, PKCS #8 in PEM, to a new file that only its
// owner can read.
func writePrivate(path string, key any) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writeNew(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// publicPEM is a public key as openssl writes it.
func publicPEM(key ed25519.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

// readKey reads an issuer's private key.
func readKey(path string) (ed25519.PrivateKey, error) {
	return readPrivate[ed25519.PrivateKey](path, "signing key", "an Ed25519", "restore it from a backup, or correct node.issuer")
}

func readHeadKey(path string) (ed25519.PrivateKey, error) {
	return readPrivate[ed25519.PrivateKey](path, "key of heads", "an Ed25519", "restore it from a backup")
}

func readRequestKey(path string) (*rsa.PrivateKey, error) {
	key, err := readPrivate[*rsa.PrivateKey](path, "key of requests", "an RSA", "restore it from a backup")
	if err == nil && key.N.BitLen() < requestKeyBits {
		return nil, fmt.Errorf("the key of requests %s has %d bits, and other servers want %d: remove it, and the node makes another", path, key.N.BitLen(), requestKeyBits)
	}
	return key, err
}

// missingKey is an error about a key that is not there, for people and for errors.Is.
type missingKey string

func (m missingKey) Error() string        { return string(m) }
func (m missingKey) Is(target error) bool { return target == fs.ErrNotExist }

// readPrivate reads what writePrivate wrote. It refuses a key that others than its
// owner may read: who has it can speak for the node. kind has its article.
func readPrivate[K any](path, what, kind, missing string) (none K, err error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return none, missingKey(fmt.Sprintf("the %s %s is missing: %s", what, path, missing))
	} else if err != nil {
		return none, fmt.Errorf("%s: %w", what, err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return none, fmt.Errorf("the %s %s may be read by others (mode %04o): run `chmod 600 %s`", what, path, mode, path)
	}
	text, err := readBounded(path, 1<<16)
	if err != nil {
		return none, fmt.Errorf("%s: %w", what, err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" {
		return none, fmt.Errorf("the %s %s is damaged: it is not a PEM private key; restore it from a backup", what, path)
	}
	// The error of x509 is left out: nothing of a key belongs in a message.
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(K)
	if err != nil || !ok {
		return none, fmt.Errorf("the %s %s is damaged or not %s key: restore it from a backup", what, path, kind)
	}
	return key, nil
}

// readPublic reads an issuer's public key, as publicPEM and openssl write it.
func readPublic(path string) (ed25519.PublicKey, error) {
	text, err := readBounded(path, 1<<16)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	block, _ := pem.Decode(text)
	if block != nil && block.Type == "PRIVATE KEY" {
		return nil, fmt.Errorf("%s holds a private key, and only the public one is needed: make it with `openssl pkey -in KEY.pem -pubout`", path)
	}
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, fmt.Errorf("%s holds no public key in PEM", path)
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	key, ok := parsed.(ed25519.PublicKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("%s is damaged or not an Ed25519 public key", path)
	}
	return key, nil
}
