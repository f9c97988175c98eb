package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-fed/tocsin/federation"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
	"github.com/tocsin-fed/tocsin/store"
)

func (a *app) keysCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "keys", Short: "Keep the keys with which issuers sign", Args: cobra.NoArgs}
	cmd.AddCommand(a.keysListCommand(), a.keysFingerprintCommand(), a.keysRotateCommand(), a.keysNewCommand())
	return cmd
}

type keyLine struct {
	Issuer  string  `json:"issuer"`
	Key     string  `json:"key"` // Multikey
	State   string  `json:"state"`
	Seen    *string `json:"seen"`
	Expires *string `json:"expires"`
	Revoked *string `json:"revoked"`
	Current bool    `json:"current"`
}

func describeKey(k *pb.Key, now time.Time) keyLine {
	l := keyLine{k.GetIssuer(), federation.Multikey(k.GetPublicKey()), "good", stamp(k.GetSeen()), stamp(k.GetExpires()), stamp(k.GetRevoked()), k.GetCurrent()}
	switch {
	case l.Revoked != nil:
		l.State = "compromised"
	case l.Expires != nil && !k.GetExpires().AsTime().After(now):
		l.State = "replaced"
	case l.Current:
		l.State = "in use"
	}
	return l
}

func (a *app) keysListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list [ISSUER]", Short: "Show the keys of this node's issuer and of those it has met", Args: cobra.MaximumNArgs(1),
		Long: `Show the keys of the issuers that the node knows, or of the one of that address,
newest first. What was signed with a key that was replaced stays valid; what was
signed with one that was in other hands does not, from that time on.`,
	}
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		request := &pb.ListKeysRequest{Issuer: strings.Join(args, "")}
		return c.call(cmd, func(ctx context.Context, n *node) error {
			answer, err := n.peers.ListKeys(ctx, request)
			if err != nil {
				return err
			}
			var rows [][]string
			for _, k := range answer.GetKeys() {
				l := describeKey(k, time.Now())
				if a.json {
					if err := a.line(l); err != nil {
						return err
					}
					continue
				}
				since := or(l.Expires, "")
				if l.Revoked != nil {
					since = *l.Revoked
				}
				rows = append(rows, []string{l.Issuer, l.Key, l.State, or(l.Seen, ""), since})
			}
			switch {
			case a.json:
				return nil
			case len(rows) == 0:
				a.warn("no such issuer is known here")
				return nil
			}
			return a.table([]string{"ISSUER", "KEY", "STATE", "SEEN", "UNTIL"}, rows)
		})
	}
	return cmd
}

func (a *app) keysFingerprintCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "fingerprint [FILE...]", Short: "Print the public key of this node's issuer, or of files, to compare", Args: cobra.ArbitraryArgs,
		Long: `Print the public key of this node's issuer as others see it (a Multikey), from the
data directory, or those of PEM files, private or public. To be sure whom you
follow, compare it on another way, by telephone for example, with what
"tocsin keys list ISSUER" or "tocsin inspect" shows there.`,
	}
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		type line struct {
			Of  string `json:"of"`
			Key string `json:"key"`
		}
		var all []line
		if len(args) == 0 {
			dir := a.dataDir()
			conf, err := loadConfig(dir, os.Environ(), nil)
			if err != nil {
				return err
			}
			public, _, err := readIssuerKey(dir, conf.Node.Issuer)
			if err != nil {
				return err
			}
			all = append(all, line{conf.actor(), federation.Multikey(public)})
		}
		for _, path := range args {
			public, err := readPublic(path)
			if private, e := readKey(path); e == nil {
				public = private.Public().(ed25519.PublicKey)
			} else if err != nil {
				return err
			}
			all = append(all, line{path, federation.Multikey(public)})
		}
		for _, l := range all {
			var err error
			if a.json {
				err = a.line(l)
			} else {
				_, err = fmt.Fprintf(a.out, "%s  %s\n", l.Key, printable(l.Of))
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

func (a *app) keysRotateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rotate", Short: "Give this node's issuer a new key", Args: cobra.NoArgs,
		Long: `Give the issuer of this node a new key. Followers learn of it by themselves. What was
signed before stays valid, and the old private key is removed from the node.

--compromised-since says that the old key was in other hands since then. What was
signed with it from then on counts no more, here and, as they learn of it, at
followers: say it again with the new key. What was signed before stays.

--public names the PEM file of the public half of a key that is kept elsewhere
("tocsin keys new" makes one). Without it the node makes a key and keeps it; if the
old one is kept elsewhere, only with --keep-here. Keep a copy of keys/ afterwards: the
old backup has the old key.

--requests replaces the key of the node itself, which signs its requests to other nodes and no
statement: after a break-in, say. Other nodes fetch the new one when a request no longer fits.

Look before you say --compromised-since: definitions of lists count as well, and a list
whose definitions all count no more is gone. "tocsin export" and "tocsin list entries"
show what there is while it is there.`,
		Example: `  tocsin keys rotate
  tocsin keys rotate --compromised-since 2026-11-20
  tocsin keys rotate --public admin.pub.pem
  tocsin keys rotate --requests`,
	}
	since := cmd.Flags().String("compromised-since", "", "since when the old key was in other hands: a date such as 2026-11-20, or 2026-11-20T18:00:00Z")
	public := cmd.Flags().String("public", "", "PEM file of the new public key, if the private one is kept elsewhere")
	requests := cmd.Flags().Bool("requests", false, "replace the key that signs requests to other nodes instead; the node must not run")
	cmd.MarkFlagsMutuallyExclusive("requests", "public")
	cmd.MarkFlagsMutuallyExclusive("requests", "compromised-since")
	here := cmd.Flags().Bool("keep-here", false, "let the node keep the new key although the old one is kept elsewhere")
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *requests {
			return a.rotateRequestKey(cmd.Context())
		}
		request := &pb.RotateKeyRequest{KeepHere: *here}
		if *since != "" {
			t, err := parsePast(*since, time.Now())
			if err != nil {
				return a.usage("compromised-since: %w", err)
			}
			request.CompromisedSince = timestamppb.New(t)
		}
		if *public != "" {
			key, err := readPublic(*public)
			if err != nil {
				return err
			}
			request.PublicKey = key
		}
		return c.call(cmd, func(ctx context.Context, n *node) error {
			answer, err := n.peers.RotateKey(ctx, request)
			if err != nil {
				return err
			}
			l := describeKey(answer.GetKey(), time.Now())
			if a.json {
				return a.line(l)
			}
			what := "Its private half lies in the node's keys/: keep a new copy of that directory."
			if *public != "" {
				what = "This node signs nothing itself any more: `tocsin sign` does, where the private key is.\nDrafts that were signed with the old key and not published must be signed anew."
			}
			if *since != "" {
				what += fmt.Sprintf("\nWhat was signed with the old key since %s counts no more: `tocsin list ls` shows the lists that are left. Say again what you meant.", *since)
			}
			_, err = fmt.Fprintf(a.out, "%s signs with %s now.\n%s\n", printable(l.Issuer), l.Key, what)
			return err
		})
	}
	return cmd
}

// rotateRequestKey replaces the key of requests of a node that does not run.
func (a *app) rotateRequestKey(ctx context.Context) error {
	dir := a.dataDir()
	// The database's lock is the node's.
	db, err := store.Open(ctx, filepath.Join(dir, databaseName))
	if err != nil {
		return err
	}
	defer db.Close()
	path := requestKeyPath(dir)
	next := path + ".next"
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := writeRequestKey(next); err != nil {
		return err
	}
	if err := errors.Join(os.Rename(next, path), syncDir(filepath.Dir(path))); err != nil {
		return err
	}
	if a.json {
		return a.line(struct {
			File string `json:"file"`
		}{path})
	}
	_, err = fmt.Fprintf(a.out, "%s is new. Start the node: others fetch it when they meet it.\n", path)
	return err
}

// parsePast reads a date or time of RFC 3339 that is not in the future.
func parsePast(s string, now time.Time) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		if t, err = time.Parse(time.DateOnly, s); err != nil {
			return t, fmt.Errorf("cannot read %.40q as a time (want 2026-11-20 or 2026-11-20T18:00:00Z)", s)
		}
	}
	if t.After(now) {
		return t, fmt.Errorf("%s is in the future", t.Format(time.RFC3339))
	}
	return t.UTC(), nil
}

func (a *app) keysNewCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "new FILE.pem", Short: "Make a key to be kept elsewhere than on the node", Args: cobra.ExactArgs(1),
		Long: `Make a signing key: the private half in FILE.pem, which "tocsin sign" reads, the
public half in FILE.pub.pem, for "tocsin init --issuer-key" or "tocsin keys rotate
--public". It needs no node. Do it on the machine where the key is to stay, which
need not be online.`,
	}
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		base, ok := strings.CutSuffix(args[0], ".pem")
		if !ok || strings.HasSuffix(base, ".pub") {
			return a.usage("%s does not end in .pem", args[0])
		}
		pub := base + ".pub.pem"
		if _, err := os.Lstat(pub); err == nil {
			return fmt.Errorf("%s exists already and is left as it is: choose another name", pub)
		}
		if err := writeIssuerKey(args[0]); err != nil {
			return named("write the key to", args[0], err)
		}
		private, err := readKey(args[0])
		if err != nil {
			return err
		}
		public := private.Public().(ed25519.PublicKey)
		text, err := publicPEM(public)
		if err == nil {
			err = writeNew(pub, text)
		}
		if err != nil {
			return named("write the public key to", pub, err)
		}
		if a.json {
			return a.line(struct {
				Private string `json:"private"`
				Public  string `json:"public"`
				Key     string `json:"key"`
			}{args[0], pub, federation.Multikey(public)})
		}
		_, err = fmt.Fprintf(a.out, "%s: the private key, keep it here\n%s: the public key, for the node\n%s\n", printable(args[0]), printable(pub), federation.Multikey(public))
		return err
	}
	return cmd
}
