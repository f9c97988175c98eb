package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
	"github.com/tocsin-fed/tocsin/server"
)

func (a *app) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Keep the tokens with which programs call the node", Args: cobra.NoArgs}
	cmd.AddCommand(a.tokenCreateCommand(), a.tokenLsCommand(), a.tokenRevokeCommand())
	return cmd
}

type tokenLine struct {
	Name    string  `json:"name"`
	Scope   string  `json:"scope"`
	Created *string `json:"created"`
	Expires *string `json:"expires"`
}

func (a *app) tokenCreateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Make a token", Args: cobra.ExactArgs(1),
		Long: `Make a token and print its secret, which is stored hashed and cannot be shown
again. Scope lookup is for asking, and for upload hooks; submit is for putting
hashes on lists too; admin is for everything.

Scope read:LIST is for somebody else's server that reads one list for followers, at
/lists/LIST.csv and its like; blocks is for your own servers that read at /blocks.csv what this node
makes of all lists of servers. Such a token is sent as a password with any name, or as
a bearer token. docs/sources.md has the addresses.`,
		Example: "  tocsin token create pictrs --scope lookup\n  tocsin token create bob-gts --scope read:spam",
	}
	scope := cmd.Flags().String("scope", "lookup", "lookup, submit or admin, each of which includes the one before it; or blocks, or read:LIST")
	expires := cmd.Flags().String("expires", "", `when it ends: a time such as "30d" or "12h", or a date such as 2030-12-31`)
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := hashlist.CheckName(args[0]); err != nil {
			return a.usage("name of a token: %w", err)
		}
		if !server.Scope(*scope).Valid() {
			return a.usage("unknown scope %.40q (want lookup, submit, admin, blocks or read:LIST)", *scope)
		}
		until, err := parseExpiry(*expires, time.Now())
		if err != nil {
			return a.usage("%w", err)
		}
		return c.call(cmd, func(ctx context.Context, n *node) error {
			answer, err := n.admin.CreateToken(ctx, &pb.CreateTokenRequest{Token: &pb.Token{Name: args[0], Scope: *scope, Expires: until}})
			if err != nil {
				return err
			}
			if t := answer.GetToken(); a.json {
				return a.line(struct {
					tokenLine
					Secret string `json:"secret"`
				}{tokenLine{t.GetName(), t.GetScope(), stamp(t.GetCreated()), stamp(t.GetExpires())}, answer.GetSecret()})
			}
			a.warn("this secret of token %s (scope %s) cannot be shown again:", printable(args[0]), *scope)
			_, err = fmt.Fprintln(a.out, answer.GetSecret())
			return err
		})
	}
	return cmd
}

func (a *app) tokenLsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "ls", Short: "Show the tokens, without their secrets", Args: cobra.NoArgs}
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.call(cmd, func(ctx context.Context, n *node) error {
			answer, err := n.admin.ListTokens(ctx, &pb.ListTokensRequest{})
			if err != nil {
				return err
			}
			var rows [][]string
			for _, t := range answer.GetTokens() {
				l := tokenLine{t.GetName(), t.GetScope(), stamp(t.GetCreated()), stamp(t.GetExpires())}
				if a.json {
					if err := a.line(l); err != nil {
						return err
					}
				}
				rows = append(rows, []string{l.Name, l.Scope, or(l.Created, ""), or(l.Expires, "never")})
			}
			if a.json {
				return nil
			}
			return a.table([]string{"NAME", "SCOPE", "CREATED", "EXPIRES"}, rows)
		})
	}
	return cmd
}

func (a *app) tokenRevokeCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "revoke NAME", Short: "End a token at once", Args: cobra.ExactArgs(1)}
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.call(cmd, func(ctx context.Context, n *node) error {
			if _, err := n.admin.RevokeToken(ctx, &pb.RevokeTokenRequest{Name: args[0]}); err != nil {
				return err
			}
			if a.json {
				return a.line(struct {
					Revoked string `json:"revoked"`
				}{args[0]})
			}
			_, err := fmt.Fprintf(a.out, "token %s is revoked\n", printable(args[0]))
			return err
		})
	}
	return cmd
}

func (a *app) statusCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "status", Short: "Tell how the running node is", Args: cobra.NoArgs}
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.call(cmd, func(ctx context.Context, n *node) error {
			s, err := n.admin.GetStatus(ctx, &pb.GetStatusRequest{})
			if err != nil {
				return err
			}
			if a.json {
				return a.line(struct {
					Version    string            `json:"version"`
					Origin     string            `json:"origin"`
					Issuer     string            `json:"issuer"`
					Seq        uint64            `json:"index_seq"`
					Hashes     map[string]uint64 `json:"hashes"`
					Statements uint64            `json:"statements"`
					Started    *string           `json:"started"`
					Load       uint64            `json:"load_milliseconds"`
					Federation string            `json:"federation"`
					Offline    bool              `json:"offline"`
					Warnings   []string          `json:"warnings"`
				}{
					s.GetVersion(), s.GetOrigin(), s.GetIssuer(), s.GetIndexSeq(), s.GetHashes(), s.GetStatements(), stamp(s.GetStarted()),
					s.GetLoadMilliseconds(), s.GetFederation(), s.GetOffline(), some(s.GetWarnings()),
				})
			}
			issuer, public := s.GetIssuer(), s.GetFederation()
			if s.GetOffline() {
				issuer += ", whose key is kept elsewhere"
			}
			if public == "" {
				public = "off"
			}
			rows := [][]string{
				{"version", s.GetVersion()}, {"issuer", issuer}, {"started", or(stamp(s.GetStarted()), "")}, {"federation", public},
				{"statements", fmt.Sprintf("%d, read in %v at the start", s.GetStatements(), time.Duration(s.GetLoadMilliseconds())*time.Millisecond)},
				{"index at", fmt.Sprint(s.GetIndexSeq())},
			}
			for _, name := range slices.Sorted(maps.Keys(s.GetHashes())) {
				rows = append(rows, []string{name, plural(s.GetHashes()[name], "hash")})
			}
			for _, w := range s.GetWarnings() {
				a.warn("%s", printable(w))
			}
			return a.table([]string{"node", s.GetOrigin()}, rows)
		})
	}
	return cmd
}
