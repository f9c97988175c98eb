package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/tocsin-fed/tocsin/guarded"
	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/server"
)

// hookKeys are the keys of a platform's hook.
type hookKeys struct {
	Enabled     bool   `toml:"enabled"`
	Undecodable answer `toml:"undecodable"`
	Video       answer `toml:"video"`
	Trouble     answer `toml:"trouble"`
	Hold        answer `toml:"hold"`
}

// pieFedKeys and mastodonKeys have more than these. They are not made of hookKeys, since the keys
// stand beside one another in the file.
type (
	pieFedKeys struct {
		Enabled     bool   `toml:"enabled"`
		Undecodable answer `toml:"undecodable"`
		Video       answer `toml:"video"`
		Trouble     answer `toml:"trouble"`
		Hold        answer `toml:"hold"`
		Blocked     string `toml:"blocked"`
	}
	mastodonKeys struct {
		Enabled     bool   `toml:"enabled"`
		Undecodable answer `toml:"undecodable"`
		Video       answer `toml:"video"`
		Trouble     answer `toml:"trouble"`
		Hold        answer `toml:"hold"`
		SecretFile  string `toml:"secret_file"`
	}
)

// hook is nil for a hook that is off.
func (k *hookKeys) hook() *server.Hook {
	if !k.Enabled {
		return nil
	}
	return &server.Hook{Undecodable: k.Undecodable.answer, Video: k.Video.answer, Trouble: k.Trouble.answer, Hold: k.Hold.answer}
}

// hooks are those of [hook], but for secrets, which reach reads.
func (c *config) hooks() server.Hooks {
	h := &c.Hook
	return server.Hooks{
		PieFed:   (&hookKeys{h.PieFed.Enabled, h.PieFed.Undecodable, h.PieFed.Video, h.PieFed.Trouble, h.PieFed.Hold}).hook(),
		Mastodon: (&hookKeys{h.Mastodon.Enabled, h.Mastodon.Undecodable, h.Mastodon.Video, h.Mastodon.Trouble, h.Mastodon.Hold}).hook(),
		HMA:      h.HMA.hook(), NSFW: h.NSFW.hook(), Indigo: h.Indigo.hook(),
	}
}

// reach adds to sc what hooks need of the outside: a client for files whose addresses they
// are told, and secrets in files, whose paths are taken relative to dir.
func (c *config) reach(dir string, sc *server.Config) error {
	o, err := c.fetch()
	if err != nil {
		return err
	}
	sc.Fetch = guarded.Client(o)
	if text := c.Hook.PieFed.Blocked; text != "" {
		if sc.Hooks.Blocked, err = hashlist.ParseHashLenient(hashlist.PDQ, text); err != nil {
			return fmt.Errorf("hook.piefed.blocked: %w", err)
		}
	}
	if !c.Hook.Mastodon.Enabled {
		return nil
	}
	path := c.Hook.Mastodon.SecretFile
	if path == "" {
		return fmt.Errorf("hook.mastodon needs secret_file: a file with the secret that Mastodon shows of the webhook")
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	secret, err := readBounded(path, 4096)
	if err != nil {
		return fmt.Errorf("hook.mastodon.secret_file: %w", err)
	}
	sc.Hooks.MastodonSecret = bytes.TrimSpace(secret)
	return nil
}

// fetch reads [fetch].
func (c *config) fetch() (guarded.Options, error) {
	o := guarded.Options{HTTP: c.Fetch.HTTP, Loopback: c.Fetch.Loopback}
	for _, text := range strings.FieldsFunc(c.Fetch.Allow, func(r rune) bool { return r == ',' || r == ' ' }) {
		p, err := netip.ParsePrefix(text)
		if a, not := netip.ParseAddr(text); err != nil && not == nil {
			p, err = a.Prefix(a.BitLen())
		}
		if err != nil {
			return o, fmt.Errorf("fetch.allow: %.60q is no network (want one such as 10.1.2.0/24, or an address)", text)
		}
		o.Allow = append(o.Allow, p.Masked())
	}
	return o, nil
}
