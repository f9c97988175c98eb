package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tocsin-fed/tocsin/hashlist/imagehash"
)

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Check or print the configuration", Args: cobra.NoArgs}
	cmd.AddCommand(a.configCheckCommand(), a.configPrintCommand())
	return cmd
}

func (a *app) configCheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "check", Short: "Say whether the node would start with its configuration", Args: cobra.NoArgs,
		Long: `Read the configuration as serve would, with the environment and the flags, and
say whether the node would start with it. Nothing is started and nothing is
written; whether the ports are free is for "tocsin doctor" to see.`,
	}
	set := overrides(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		dir := a.dataDir()
		conf, err := loadConfig(dir, os.Environ(), set())
		if err != nil {
			return err
		}
		if err := conf.check(dir); err != nil {
			return err
		}
		if a.json {
			return a.line(struct {
				OK   bool   `json:"ok"`
				Data string `json:"data"`
			}{true, dir})
		}
		_, err = fmt.Fprintf(a.out, "the configuration in %s is good\n", dir)
		return err
	}
	return cmd
}

func (a *app) configPrintCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "print", Short: "Print the configuration in effect, or the defaults with their explanation", Args: cobra.NoArgs,
	}
	set := overrides(cmd)
	standard := cmd.Flags().Bool("defaults", false, "print every key with its explanation and default")
	cmd.RunE = func(*cobra.Command, []string) error {
		conf, base := defaults(), defaults()
		if *standard && !a.json {
			_, err := a.out.Write(documented)
			return err
		}
		if !*standard {
			var err error
			if conf, err = loadConfig(a.dataDir(), os.Environ(), set()); err != nil {
				return err
			}
		}
		var usual []string
		base.each(func(_ string, v reflect.Value) { usual = append(usual, text(v)) })
		var errs []error
		section := ""
		conf.each(func(key string, v reflect.Value) {
			isDefault := text(v) == usual[0]
			usual = usual[1:]
			if a.json {
				errs = append(errs, a.line(struct {
					Key       string `json:"key"`
					Value     any    `json:"value"`
					IsDefault bool   `json:"is_default"`
				}{key, v.Interface(), isDefault}))
				return
			}
			i := strings.LastIndex(key, ".")
			if key[:i] != section {
				if section != "" {
					fmt.Fprintln(a.out)
				}
				section = key[:i]
				fmt.Fprintf(a.out, "[%s]\n", section)
			}
			_, err := fmt.Fprintf(a.out, "%s = %s\n", key[i+1:], text(v))
			errs = append(errs, err)
		})
		return errors.Join(errs...)
	}
	return cmd
}

// maxSocketPath is what fits in a sockaddr_un, with its final zero.
const maxSocketPath = 107

// check reports the first thing with which serve would not start, without
// starting anything. It looks at the configuration and the files it names, not
// at keys, database and ports.
func (c *config) check(dir string) error {
	if err := c.checkNode(); err != nil {
		return err
	}
	p := c.policy()
	if err := p.Validate(); err != nil {
		return err
	}
	hasher, err := imagehash.NewHasher(c.mediaLimits())
	if err != nil {
		return fmt.Errorf("media: %w", err)
	}
	hasher.Close()
	sc := c.server(dir)
	if n := len(sc.GRPC.Socket); n > maxSocketPath {
		return fmt.Errorf("grpc.socket: the path %s has %d bytes, a unix socket's may have %d: set a shorter one, such as /run/tocsin.sock", sc.GRPC.Socket, n, maxSocketPath)
	}
	for _, l := range []struct{ section, cert, key string }{
		{"grpc", sc.GRPC.CertFile, sc.GRPC.KeyFile},
		{"http", sc.HTTP.CertFile, sc.HTTP.KeyFile},
	} {
		if l.cert != "" || l.key != "" {
			if _, err := tls.LoadX509KeyPair(l.cert, l.key); err != nil {
				return fmt.Errorf("%s.cert_file and key_file: %w", l.section, err)
			}
		}
	}
	return sc.Validate()
}
