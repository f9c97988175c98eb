package main

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// What lies in a data directory.
const (
	configName   = "config.toml"
	databaseName = "tocsin.db"
	keysName     = "keys" // directory of issuers' keys, NAME.pem
)

// systemData is the data directory of a node that was installed for the whole machine.
const systemData = "/var/lib/tocsin"

// dataDir finds the node: --data, TOCSIN_DATA, ./data if a node is there, or
// else that of the machine.
func (a *app) dataDir() string {
	if a.data != "" {
		return a.data
	}
	if dir := os.Getenv("TOCSIN_DATA"); dir != "" {
		return dir
	}
	if _, err := os.Stat(filepath.Join("data", configName)); err == nil {
		return "./data"
	}
	return systemData
}

func keyPath(dir, issuer string) string { return filepath.Join(dir, keysName, issuer+".pem") }

// writeKey makes a new signing key and writes it, PKCS #8 in PEM, to a new file
// that only its owner can read.
func writeKey(path string) error {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writeNew(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// readKey reads what writeKey wrote. It refuses a key that others than its
// owner may read: who has it can speak for the issuer.
func readKey(path string) (ed25519.PrivateKey, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the signing key %s is missing: restore it from a backup, or correct node.issuer", path)
	} else if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("the signing key %s may be read by others (mode %04o): run `chmod 600 %s`", path, mode, path)
	}
	text, err := readBounded(path, 1<<16)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("the signing key %s is damaged: it is not a PEM private key; restore it from a backup", path)
	}
	// The error of x509 is left out: nothing of a key belongs in a message.
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(ed25519.PrivateKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("the signing key %s is damaged or not an Ed25519 key: restore it from a backup", path)
	}
	return key, nil
}

// writeNew writes a file that must not exist yet, durably and readable by its
// owner alone.
func writeNew(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}
