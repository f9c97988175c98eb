package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tocsin-fed/tocsin/digest"
	"github.com/tocsin-fed/tocsin/guarded"
	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/platform"
	"github.com/tocsin-fed/tocsin/revisit"
	"github.com/tocsin-fed/tocsin/server"
	"github.com/tocsin-fed/tocsin/store"
)

// platformConfig is one [[platform]].
type platformConfig struct {
	Name        string          `toml:"name"`
	Kind        string          `toml:"kind"`
	URL         string          `toml:"url"`
	API         string          `toml:"api"`
	Credentials string          `toml:"credentials_file"`
	Flag        []platform.Kind `toml:"flag"`
	Hold        []platform.Kind `toml:"hold"`
	Reject      []platform.Kind `toml:"reject"`
	Labels      []string        `toml:"labels"`
	Approve     []platform.Kind `toml:"approve"`
	DryRun      *bool           `toml:"dry_run"`
	PerHour     *int            `toml:"per_hour"`
	PerDay      *int            `toml:"per_day"`
}

// What holds where a [[platform]] does not say otherwise: nothing is done in earnest, and not much.
const (
	actsPerHour = 10
	actsPerDay  = 50
)

// platforms reads the [[platform]] sections, with the credentials in their files.
func (c *config) platforms(dir string) ([]platform.Platform, error) {
	var all []platform.Platform
	for _, p := range c.Platforms {
		v := platform.Platform{
			Name: p.Name, Kind: p.Kind, URL: p.URL, API: p.API, Labels: p.Labels, Approve: p.Approve, DryRun: true, PerHour: actsPerHour, PerDay: actsPerDay,
			On: map[hashlist.Verdict][]platform.Kind{hashlist.VerdictFlag: p.Flag, hashlist.VerdictHold: p.Hold, hashlist.VerdictReject: p.Reject},
		}
		if p.DryRun != nil {
			v.DryRun = *p.DryRun
		}
		if p.PerHour != nil {
			v.PerHour = *p.PerHour
		}
		if p.PerDay != nil {
			v.PerDay = *p.PerDay
		}
		file := p.Credentials
		if file == "" {
			return nil, fmt.Errorf("platform %s: credentials_file is not set: put the token of an admin into a file that only its owner can read", p.Name)
		}
		if !filepath.IsAbs(file) {
			file = filepath.Join(dir, file)
		}
		secret, err := readSecret(file)
		if err != nil {
			return nil, fmt.Errorf("platform %s: %w", p.Name, err)
		}
		v.Token = secret
		if err := v.Validate(); err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

// readSecret reads a file of one secret, and refuses one that others may read.
func readSecret(path string) (string, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("the file %s with its credential is missing", path)
	} else if err != nil {
		return "", err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return "", fmt.Errorf("the credential in %s may be read by others (mode %04o): run `chmod 600 %s`", path, mode, path)
	}
	text, err := readBounded(path, 16<<10)
	if err != nil {
		return "", err
	}
	secret := strings.TrimSpace(string(text))
	if secret == "" {
		return "", fmt.Errorf("the file %s is empty: it should hold a credential", path)
	}
	return secret, nil
}

// desk makes what acts on platforms, nil if none is configured.
func (c *config) desk(ctx context.Context, dir string, log *slog.Logger, db *store.DB) (*platform.Desk, error) {
	all, err := c.platforms(dir)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	var own []string
	if u, err := url.Parse(c.Node.Origin); err == nil {
		own = append(own, u.Hostname())
	}
	return platform.NewDesk(ctx, platform.Config{
		Platforms: all, Acts: db, Own: own, Log: log,
		Audit: func(ctx context.Context, a platform.Act) error { return auditAct(ctx, db, &a) },
		Ask:   func(ctx context.Context, a platform.Act) error { return server.AskAboutAct(ctx, db, &a) },
	})
}

// auditAct writes an act, as it is now, into the audit log, with its undo.
func auditAct(ctx context.Context, db hashlist.Audit, a *platform.Act) error {
	who := "settings of platform " + a.Platform
	if n := len(a.People); n > 0 {
		who = a.People[n-1].Who
	}
	body, err := json.Marshal(map[string]any{
		"act": a.ID, "platform": a.Platform, "kind": a.Kind, "target": a.Target, "does": a.Does(), "state": a.State.String(), "note": a.Note,
		"undo": a.Undo(), "finding": a.Finding.ID, "statement": a.Finding.Statement, "before": json.RawMessage(before(a)),
	})
	if err != nil {
		return err
	}
	_, err = db.AppendAudit(ctx, hashlist.AuditEntry{Kind: "act", At: time.Now().UTC().Truncate(time.Microsecond), Who: who, Body: body})
	return err
}

func before(a *platform.Act) []byte {
	if len(a.Before) == 0 {
		return []byte("null")
	}
	return a.Before
}

// revisits says how addresses are looked at again, nil if they are not.
func (c *config) revisits(db *store.DB) *revisit.Config {
	r := &c.Revisit
	if r.Every.time == 0 {
		return nil
	}
	return &revisit.Config{
		Addresses: db, Client: guarded.Client(guarded.Options{Loopback: c.Federation.Loopback}), Agent: "tocsin/" + version,
		Every: r.Every.time, PerHost: r.PerHost.time, Max: r.Max, MaxBytes: c.Media.MaxBytes.bytes, Radius: r.Radius,
	}
}

// digest says how the operator is told what happened, nil if they are not.
func (c *config) digest(dir string) (*server.Digest, error) {
	d := &c.Digest
	v := &server.Digest{Hour: d.At.hour, Minute: d.At.minute}
	secret := func(key, file string) (string, error) {
		if file == "" {
			return "", nil
		}
		if !filepath.IsAbs(file) {
			file = filepath.Join(dir, file)
		}
		s, err := readSecret(file)
		if err != nil {
			return "", c.wrong(key, err)
		}
		return s, nil
	}
	if d.MailServer != "" {
		password, err := secret("digest.mail_password_file", d.MailPasswordFile)
		if err != nil {
			return nil, err
		}
		v.Mail = &digest.Mail{Server: d.MailServer, User: d.MailUser, Password: password, From: d.From}
		for to := range strings.SplitSeq(d.To, ",") {
			if to = strings.TrimSpace(to); to != "" {
				v.Mail.To = append(v.Mail.To, to)
			}
		}
	}
	if d.Webhook != "" {
		s, err := secret("digest.webhook_secret_file", d.WebhookSecretFile)
		if err != nil {
			return nil, err
		}
		v.Hook = &digest.Hook{URL: d.Webhook, Secret: []byte(s)}
	}
	if v.Mail == nil && v.Hook == nil {
		return nil, nil
	}
	return v, nil
}
