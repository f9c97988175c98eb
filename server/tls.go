package server

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
)

// certificates is a TLS configuration that follows its files. They are looked
// at on every handshake, which costs three stats and needs no goroutine; a
// renewed certificate counts for the next connection. Files that are half
// written, or a key that does not fit yet, leave the old ones in use until they
// are whole.
type certificates struct {
	cert, key, clientCA string
	least               uint16 // version of TLS
	protocols           []string
	log                 *slog.Logger

	mu      sync.Mutex // guards what follows
	seen    []os.FileInfo
	current *tls.Config
}

func loadCertificates(l Listener, log *slog.Logger, least uint16, protocols ...string) (*certificates, error) {
	c := &certificates{cert: l.CertFile, key: l.KeyFile, clientCA: l.ClientCAFile, least: least, protocols: protocols, log: log}
	// Looked at before they are read: a change in between is seen the next time.
	var err error
	if c.seen, err = c.stat(); err != nil {
		return nil, err
	}
	if c.current, err = c.load(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *certificates) stat() ([]os.FileInfo, error) {
	var infos []os.FileInfo
	for _, name := range []string{c.cert, c.key, c.clientCA} {
		if name == "" {
			continue
		}
		info, err := os.Stat(name)
		if err != nil {
			return nil, fmt.Errorf("certificates: %w", err)
		}
		infos = append(infos, info)
	}
	return infos, nil
}

func (c *certificates) load() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", c.cert, c.key, err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: c.least, NextProtos: c.protocols}
	if c.clientCA != "" {
		pem, err := os.ReadFile(c.clientCA)
		if err != nil {
			return nil, fmt.Errorf("client certificates: %w", err)
		}
		config.ClientCAs = x509.NewCertPool()
		if !config.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", c.clientCA)
		}
		config.ClientAuth = tls.RequireAndVerifyClientCert
		// A resumed session would not be checked against an authority that was
		// taken out of the file since.
		config.SessionTicketsDisabled = true
	}
	return config, nil
}

// config returns what a listener is to be given.
func (c *certificates) config() *tls.Config {
	return &tls.Config{
		MinVersion: c.least, NextProtos: c.protocols,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.now() },
	}
}

// now returns the configuration by the files as they are.
func (c *certificates) now() (*tls.Config, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	infos, err := c.stat()
	if err != nil {
		if c.seen != nil {
			c.log.Warn("keeping the certificates in use: a file of theirs is gone", errorText(err))
			c.seen = nil // said once; it is read again when it is back
		}
		return c.current, nil
	}
	if !changed(c.seen, infos) {
		return c.current, nil
	}
	c.seen = infos // also when they turn out bad: they are read again when they change again
	next, err := c.load()
	if err != nil {
		c.log.Warn("keeping the certificates in use: the new ones cannot be read", errorText(err))
		return c.current, nil
	}
	c.current = next
	c.log.Info("certificates were read again", slog.String("file", c.cert))
	return next, nil
}

func changed(before, after []os.FileInfo) bool {
	if len(before) != len(after) {
		return true
	}
	for i, a := range after {
		if b := before[i]; !os.SameFile(a, b) || !a.ModTime().Equal(b.ModTime()) || a.Size() != b.Size() {
			return true
		}
	}
	return false
}
