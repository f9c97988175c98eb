package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/server"
	"github.com/tocsin-fed/tocsin/store"
)

// windowKeyPath is the key of the recent window.
func windowKeyPath(dir string) string { return filepath.Join(dir, keysName, "window.key") }

// remember opens the recent window, nil if nothing is to be remembered. What was is deleted
// then.
func (c *config) remember(ctx context.Context, dir string, log *slog.Logger, lists *hashlist.Lists, db *store.DB) (*hashlist.Window, error) {
	if c.Window.Days == 0 {
		return nil, db.ClearWindow(ctx)
	}
	key, err := windowKey(windowKeyPath(dir))
	if err != nil {
		return nil, err
	}
	return hashlist.OpenWindow(ctx, lists, hashlist.WindowConfig{
		Store: db, Quarantine: db, Key: key, Keep: time.Duration(c.Window.Days) * 24 * time.Hour, Entries: c.Window.Entries,
		Durable: c.Window.Durable, Flood: hashlist.Flood{Uploads: c.Flood.Uploads, Share: c.Flood.Share}, Log: log,
	})
}

// windowKey reads the key of the window, or makes it. One that is lost costs what was
// remembered and no more.
func windowKey(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		key := make([]byte, hashlist.WindowKeySize)
		rand.Read(key) // never fails
		if err := writeNew(path, []byte(base64.StdEncoding.EncodeToString(key)+"\n")); err != nil {
			return nil, fmt.Errorf("key of the recent window: %w", err)
		}
		return key, syncDir(filepath.Dir(path))
	} else if err != nil {
		return nil, fmt.Errorf("key of the recent window: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("the key of the recent window %s may be read by others (mode %04o): run `chmod 600 %s`", path, mode, path)
	}
	text, err := readBounded(path, 4096)
	if err != nil {
		return nil, fmt.Errorf("key of the recent window: %w", err)
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != hashlist.WindowKeySize {
		return nil, fmt.Errorf("the key of the recent window %s is damaged: restore it from a backup, or remove it and lose what was remembered", path)
	}
	return key, nil
}

// webhook is who is told of hits. Addresses are separated by spaces.
func (c *config) webhook(dir string) (server.Webhook, error) {
	w := server.Webhook{URLs: strings.Fields(c.Webhook.URLs)}
	if len(w.URLs) == 0 {
		return w, nil
	}
	for _, address := range w.URLs {
		// The error of url.Parse has the address in it, and that may hold a secret.
		if u, err := url.Parse(address); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
			return w, c.wrong("webhook.urls", errors.New("one of them is not an https or http address"))
		}
	}
	if c.Webhook.SecretFile == "" {
		return w, c.wrong("webhook.secret_file", errors.New("is empty: receivers could not tell this node from anybody else"))
	}
	path := c.Webhook.SecretFile
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	text, err := readBounded(path, 4096)
	if err != nil {
		return w, c.wrong("webhook.secret_file", err)
	}
	if w.Secret = []byte(strings.TrimSpace(string(text))); len(w.Secret) < server.MinWebhookSecret {
		return w, c.wrong("webhook.secret_file", fmt.Errorf("%s has less than %d bytes: make it with `openssl rand -hex 32`", path, server.MinWebhookSecret))
	}
	return w, nil
}
