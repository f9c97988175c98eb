package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/store"
)

func (a *app) initCommand() *cobra.Command {
	origin, issuer := defaults().Node.Origin, defaults().Node.Issuer
	cmd := &cobra.Command{
		Use: "init", Short: "Make a new node", Args: cobra.NoArgs,
		Long: `Make the data directory of a new node: config.toml with every key explained, a
signing key for the issuer, two keys with which the node itself signs requests and
the heads of its lists, and an empty database. What is there already is never
touched. No list is made; the hint at the end tells how.

The origin is part of the name of every statement and list that the node signs,
and cannot be changed later. The default is for trying tocsin out.

The issuer's key can be kept off the node: make it elsewhere with "tocsin keys new",
and give its public half with --issuer-key. Then the node drafts, "tocsin sign"
signs where the key is, and "tocsin publish" brings back what was signed.

Without --data the directory is $TOCSIN_DATA or else ./data.`,
		Example: "  tocsin init --data /var/lib/tocsin --origin https://hashes.example --issuer alice",
	}
	cmd.Flags().StringVar(&origin, "origin", origin, "public address of the node; it cannot be changed later")
	cmd.Flags().StringVar(&issuer, "issuer", issuer, "name of the issuer who signs")
	publicKey := cmd.Flags().String("issuer-key", "", "PEM file of the issuer's public key, if the private one is kept elsewhere")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		dir := a.data
		if dir == "" {
			dir = os.Getenv("TOCSIN_DATA")
		}
		if dir == "" {
			dir = "./data"
		}
		conf := defaults()
		conf.Node.Origin, conf.Node.Issuer = origin, issuer
		if err := conf.checkNode(); err != nil {
			return a.usage("%w", err)
		}
		var public ed25519.PublicKey
		if *publicKey != "" {
			var err error
			if public, err = readPublic(*publicKey); err != nil {
				return err
			}
		}
		if err := makeNode(cmd.Context(), dir, origin, issuer, public); err != nil {
			return fmt.Errorf("make a node in %s: %w", dir, err)
		}
		if a.json {
			return a.line(struct {
				Data   string `json:"data"`
				Origin string `json:"origin"`
				Issuer string `json:"issuer"`
			}{dir, origin, conf.actor()})
		}
		signing := keyPath(dir, issuer) + "   the signing key of " + conf.actor() + ": keep a copy in a safe place"
		if public != nil {
			signing = publicKeyPath(dir, issuer) + "   the public key of " + conf.actor() + "; what it says is signed elsewhere"
		}
		_, err := fmt.Fprintf(a.out, `A node is in %[1]s:
  %[2]s   its settings, each explained
  %[3]s
  %[4]s, %[5]s   the keys of the node itself: keep copies too
  %[7]s   its log, empty
The origin %[6]s cannot be changed later: it is part of every name the node signs.
Next:
  tocsin serve --data %[1]s
`, dir, filepath.Join(dir, configName), signing, requestKeyPath(dir), headKeyPath(dir), origin, filepath.Join(dir, databaseName))
		return err
	}
	return cmd
}

// checkNode reports what is wrong with who the node says it is.
func (c *config) checkNode() error {
	origin, err := hashlist.Origin(c.Node.Origin)
	if err != nil {
		return c.wrong("node.origin", err)
	}
	if origin != c.Node.Origin {
		return c.wrong("node.origin", fmt.Errorf("%q has more than scheme and host (want %q)", c.Node.Origin, origin))
	}
	if err := hashlist.CheckName(c.Node.Issuer); err != nil {
		return c.wrong("node.issuer", err)
	}
	return nil
}

// originRemedy is what can be done about an origin that is not the one wanted.
const originRemedy = "the origin cannot be changed in place: make a new data directory with `tocsin init --origin https://...`, and move lists with export and import"

// whose is a list and who defined it, by their addresses.
type whose struct{ list, issuer string }

// elsewhere are those of lists that this node's issuer made while the node had another
// origin. Lists of others are none of them: those that it follows or once did, and
// those of issuers of other names.
func (c *config) elsewhere(lists []whose, followed func(list string) bool) (ids []string) {
	for _, l := range lists {
		origin, err := hashlist.Origin(l.list)
		if err == nil && origin != c.Node.Origin && l.issuer == origin+"/users/"+c.Node.Issuer && !followed(l.list) {
			ids = append(ids, l.list)
		}
	}
	return ids
}

// trial reports whether the origin is one that only this machine can reach.
func (c *config) trial() bool {
	u, err := url.Parse(c.Node.Origin)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// actor is the address of the node's issuer.
func (c *config) actor() string { return c.Node.Origin + "/users/" + c.Node.Issuer }

// makeNode makes a data directory. If it fails it removes what it made, and
// nothing else. public is the issuer's key if the private one is kept elsewhere.
func makeNode(ctx context.Context, dir, origin, issuer string, public ed25519.PublicKey) (err error) {
	var made []string
	defer func() {
		if err != nil {
			for i := len(made) - 1; i >= 0; i-- {
				os.Remove(made[i]) // of a directory only if it is empty
			}
		}
	}()
	key := keyPath(dir, issuer)
	writeIssuer := writeIssuerKey
	if public != nil {
		key = publicKeyPath(dir, issuer)
		writeIssuer = func(path string) error {
			text, err := publicPEM(public)
			return errors.Join(err, writeNew(path, text))
		}
	}
	database, conf := filepath.Join(dir, databaseName), filepath.Join(dir, configName)
	for _, path := range []string{conf, database, keyPath(dir, issuer), publicKeyPath(dir, issuer), requestKeyPath(dir), headKeyPath(dir)} {
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("%s exists already and is left as it is: choose another directory with --data", path)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for _, d := range []string{dir, filepath.Dir(key)} {
		if _, err := os.Stat(d); err == nil {
			continue
		}
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
		made = append(made, d)
	}
	for _, k := range []struct {
		path  string
		write func(path string) error
	}{{key, writeIssuer}, {requestKeyPath(dir), writeRequestKey}, {headKeyPath(dir), writeIssuerKey}} {
		if err := k.write(k.path); err != nil {
			return err
		}
		made = append(made, k.path)
	}
	db, err := store.Create(ctx, database)
	if err != nil {
		return err
	}
	made = append(made, database, database+".lock")
	if err := db.Close(); err != nil {
		return err
	}
	// The configuration comes last: where it is, the rest is complete.
	if err := writeNew(conf, starter(map[string]string{"node.origin": origin, "node.issuer": issuer})); err != nil {
		return err
	}
	made = append(made, conf)
	return errors.Join(syncDir(filepath.Dir(key)), syncDir(dir))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
