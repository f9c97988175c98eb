package main

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"

	"github.com/spf13/cobra"
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
say whether the node would start with it and with its issuer's key. Nothing is
started and nothing is written; the database, and whether the ports are free, is
for "tocsin doctor" to see.`,
	}
	set := overrides(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		dir := a.dataDir()
		conf, err := loadStrictly(dir, os.Environ(), set())
		if err != nil {
			return err
		}
		if err := conf.check(dir); err != nil {
			return err
		}
		if _, _, err := readIssuerKey(dir, conf.Node.Issuer); err != nil {
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
			if conf, err = loadStrictly(a.dataDir(), os.Environ(), set()); err != nil {
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
