package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/server"
)

// signer is the node's issuer, whose key may be replaced while the node works,
// or be kept elsewhere.
type signer struct {
	dir, name, actor string

	mu     sync.RWMutex       // held to write while the key is replaced; guards what follows
	public ed25519.PublicKey  //
	issuer *federation.Issuer // nil if the private key is kept elsewhere

	dating sync.Mutex // guards latest
	latest time.Time  // of the dates of what was signed
}

// next is added to the name of a key that is to replace another, until it has.
const next = ".next"

// openSigner reads the key of the node's issuer. stored are the keys that the database
// knows: they tell whether a replacement that was cut off had taken effect.
func openSigner(dir, name, actor string, stored []federation.Key) (*signer, error) {
	s := &signer{dir: dir, name: name, actor: actor}
	if err := s.settle(stored); err != nil {
		return nil, fmt.Errorf("finish replacing the signing key: %w", err)
	}
	return s, s.read()
}

// readIssuerKey reads the key of an issuer: the private one if it is there, else
// the public one.
func readIssuerKey(dir, name string) (public ed25519.PublicKey, private ed25519.PrivateKey, err error) {
	private, err = readKey(keyPath(dir, name))
	if err == nil {
		public = private.Public().(ed25519.PublicKey)
		// Who moved the key away and forgot, or put the wrong one back, must be told.
		if other, err := readPublic(publicKeyPath(dir, name)); err == nil && !other.Equal(public) {
			return nil, nil, fmt.Errorf("%s and %s are different keys: remove the one that is not in use", keyPath(dir, name), publicKeyPath(dir, name))
		}
		return public, private, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	if _, err := os.Lstat(publicKeyPath(dir, name)); err == nil {
		public, err := readPublic(publicKeyPath(dir, name))
		return public, nil, err
	}
	return nil, nil, err
}

func (s *signer) read() error {
	public, private, err := readIssuerKey(s.dir, s.name)
	if err != nil {
		return err
	}
	return s.use(public, private)
}

// use takes a key into use. private is nil if it is kept elsewhere.
func (s *signer) use(public ed25519.PublicKey, private ed25519.PrivateKey) error {
	var issuer *federation.Issuer
	if private != nil {
		var err error
		if issuer, err = federation.NewIssuer(s.actor, private); err != nil {
			return fmt.Errorf("issuer: %w", err)
		}
	}
	s.public, s.issuer = public, issuer
	return nil
}

// Actor implements server.Issuer.
func (s *signer) Actor() string { return s.actor }

// PublicKey implements server.Issuer.
func (s *signer) PublicKey() ed25519.PublicKey {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.public
}

// offline reports whether the private key is kept elsewhere.
func (s *signer) offline() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.issuer == nil
}

// Seal implements server.Issuer.
func (s *signer) Seal(v hashlist.Statement) (hashlist.Record, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.issuer == nil {
		return hashlist.Record{}, server.ErrOffline
	}
	r, err := s.issuer.Seal(v)
	if err == nil {
		s.dating.Lock()
		if r.Statement.Published.After(s.latest) {
			s.latest = r.Statement.Published
		}
		s.dating.Unlock()
	}
	return r, err
}

// maxSettling is how long a new key waits for what the old one has dated ahead.
const maxSettling = 10 * time.Second

// federated is what the node's operator may ask of the federation.
type federated struct {
	*federation.Node
	signer *signer
}

// RotateKey implements server.Federation. Nothing is signed meanwhile. The new key is on
// the disk before anybody hears of it, and the old one is gone as soon as the new one is in
// use: dates are the signer's word, so who finds an old key could still date statements back.
func (f federated) RotateKey(ctx context.Context, public ed25519.PublicKey, compromised time.Time) error {
	s := f.signer
	s.mu.Lock()
	defer s.mu.Unlock()
	// What the old key signed with a date of the time after it would not count. Dates are
	// in whole seconds, and a list that is edited twice in one is dated ahead.
	if wait := time.Until(s.latest.Add(time.Second)); wait > maxSettling {
		return fmt.Errorf("%w: the last statement is dated %v ahead, because a list was edited so often: try again then", federation.ErrState, wait.Round(time.Second))
	} else if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	var private ed25519.PrivateKey
	path := publicKeyPath(s.dir, s.name) + next
	if public == nil {
		var err error
		if public, private, err = ed25519.GenerateKey(nil); err != nil {
			return err
		}
		path = keyPath(s.dir, s.name) + next
	}
	if err := s.propose(path, public, private); err != nil {
		return fmt.Errorf("write the new key: %w", err)
	}
	if err := f.RotateIssuerKey(ctx, s.actor, public, s.issuer, compromised); err != nil {
		// It may have got as far as the database: then the new key is the one that counts.
		if !keyCounts(f.IssuerKeys(s.actor), s.actor, public) {
			err = errors.Join(err, os.Remove(path))
		}
		return err
	}
	if err := s.install(path); err != nil {
		return fmt.Errorf("the new key counts already, but lies in %s: start the node again: %w", path, err)
	}
	return s.use(public, private)
}

// propose writes a key to the place of one that is to replace another.
func (s *signer) propose(path string, public ed25519.PublicKey, private ed25519.PrivateKey) error {
	// One that was left behind was settled when the node started, or its proposal failed.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var err error
	if private != nil {
		err = writePrivate(path, private)
	} else {
		var text []byte
		if text, err = publicPEM(public); err == nil {
			err = writeNew(path, text)
		}
	}
	return errors.Join(err, syncDir(filepath.Dir(path)))
}

// install puts a proposed key into the place of the one before, which is gone
// then. Cut off in between, it can be done again.
func (s *signer) install(path string) error {
	final := path[:len(path)-len(next)]
	for _, old := range []string{keyPath(s.dir, s.name), publicKeyPath(s.dir, s.name)} {
		if old == final {
			continue
		}
		if err := os.Remove(old); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return errors.Join(os.Rename(path, final), syncDir(filepath.Dir(final)))
}

// settle finishes a replacement that was cut off, or takes it back.
func (s *signer) settle(stored []federation.Key) error {
	for _, path := range []string{keyPath(s.dir, s.name) + next, publicKeyPath(s.dir, s.name) + next} {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var public ed25519.PublicKey
		if private, err := readKey(path); err == nil {
			public = private.Public().(ed25519.PublicKey)
		} else if public, err = readPublic(path); err != nil {
			public = nil // written half, so nobody has heard of it
		}
		if keyCounts(stored, s.actor, public) {
			if err := s.install(path); err != nil {
				return err
			}
		} else if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

// keyCounts reports whether a key is among those of an issuer and was not replaced.
func keyCounts(all []federation.Key, issuer string, public ed25519.PublicKey) bool {
	return slices.ContainsFunc(all, func(k federation.Key) bool {
		return k.Issuer == issuer && k.Public.Equal(public) && k.Expires.IsZero() && k.Revoked.IsZero()
	})
}
