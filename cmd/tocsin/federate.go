package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/store"
)

// federate makes what the node has to do with others.
func (c *config) federate(ctx context.Context, dir string, log *slog.Logger, lists *hashlist.Lists, db *store.DB, issuer *signer) (*federation.Node, error) {
	key, head, err := nodeKeys(ctx, dir, log, db)
	if err != nil {
		return nil, err
	}
	return federation.New(ctx, federation.Config{
		Origin: c.Node.Origin, Lists: lists, Peers: db, Letters: db, Reviews: db, Key: key, HeadKey: head,
		Issuers:  []federation.LocalIssuer{{Name: c.Node.Issuer, Public: issuer.PublicKey()}},
		Loopback: c.Federation.Loopback, Log: log, Version: version,
		Doubt: func(ctx context.Context, k federation.Key) {
			_, err := db.AddReview(ctx, hashlist.Review{
				ID: federation.KeyReview(k), Kind: hashlist.ReviewKey, Issuer: k.Issuer,
				Summary: "A new key that none of this issuer's older keys backs. Its fingerprint is " + federation.Fingerprint(k.Issuer, k.Public) +
					". Ask them for theirs over the telephone, then `tocsin trust verify " + k.Issuer + " FINGERPRINT`. What it signs waits until then.",
			})
			if err != nil {
				log.Error("could not ask a person about a new key", "issuer", k.Issuer, "error", err)
			}
		},
	})
}

// nodeKeys reads the keys of the node itself. A data directory that is older than
// the federation gets them here.
func nodeKeys(ctx context.Context, dir string, log *slog.Logger, db *store.DB) (*rsa.PrivateKey, ed25519.PrivateKey, error) {
	key, err := readRequestKey(requestKeyPath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		// Whatever was signed with one that is lost: others fetch this one when they meet it.
		if err = writeRequestKey(requestKeyPath(dir)); err == nil {
			log.Info("made a new key for requests to other nodes", "file", requestKeyPath(dir))
			key, err = readRequestKey(requestKeyPath(dir))
		}
	}
	if err != nil {
		return nil, nil, err
	}
	head, err := readHeadKey(headKeyPath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		// Followers would take heads by another key for a forgery.
		followers, dberr := db.Followers(ctx)
		if dberr != nil {
			return nil, nil, dberr
		}
		if len(followers) > 0 {
			return nil, nil, err
		}
		if err = writeIssuerKey(headKeyPath(dir)); err == nil {
			log.Info("made a new key for the heads of lists", "file", headKeyPath(dir))
			head, err = readHeadKey(headKeyPath(dir))
		}
	}
	if err != nil {
		return nil, nil, err
	}
	return key, head, syncDir(filepath.Dir(headKeyPath(dir)))
}

// federationWarnings are what the operator is told at every start and in every
// status of how this node meets others.
func (c *config) federationWarnings() []string {
	switch {
	case c.Federation.Loopback:
		return []string{"federation.loopback is on: this node reaches out to http addresses and to programs of this very machine, " +
			"and believes what is there. That is for trying it out only: set it to false on a real node"}
	case c.trial():
		return []string{fmt.Sprintf("the origin %s is for trying it out: no other node can reach it, and this one reaches out to none. %s",
			c.Node.Origin, capital(originRemedy))}
	case strings.HasPrefix(c.Node.Origin, "http://"):
		return []string{fmt.Sprintf("the origin %s is not https: other nodes refuse it, and this one reaches out to none. %s",
			c.Node.Origin, capital(originRemedy))}
	}
	return nil
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
