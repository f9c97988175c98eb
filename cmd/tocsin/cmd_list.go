package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

func (a *app) listCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "Keep the node's lists", Args: cobra.NoArgs}
	cmd.AddCommand(a.listCreateCommand(), a.listLsCommand(), a.listShowCommand(), a.listEntriesCommand(), a.listRemoveCommand())
	return cmd
}

type listLine struct {
	Name       string            `json:"name"`
	ID         string            `json:"id"`
	Summary    string            `json:"summary"`
	Labels     []string          `json:"labels"`
	Audience   string            `json:"audience"`
	Action     string            `json:"action"`
	Radius     map[string]uint32 `json:"radius"`
	Hashes     uint64            `json:"hashes"`
	Statements uint64            `json:"statements"`
	Issuer     string            `json:"issuer"`
	Updated    *string           `json:"updated"`
}

func describe(l *pb.List) listLine {
	return listLine{
		l.GetName(), l.GetId(), l.GetSummary(), some(l.GetLabels()), word(l.GetAudience()), word(l.GetAction()),
		l.GetRadius(), l.GetHashes(), l.GetStatements(), l.GetIssuer(), stamp(l.GetUpdated()),
	}
}

// printList shows everything about one list.
func (a *app) printList(l *pb.List) error {
	d := describe(l)
	if a.json {
		return a.line(d)
	}
	var radii []string
	for _, name := range slices.Sorted(maps.Keys(d.Radius)) {
		radii = append(radii, fmt.Sprintf("%s %d", name, d.Radius[name]))
	}
	return a.table([]string{d.Name, d.ID}, [][]string{
		{"summary", d.Summary}, {"labels", strings.Join(d.Labels, ", ")}, {"audience", d.Audience}, {"action", d.Action},
		{"radius", strings.Join(radii, ", ")}, {"hashes", fmt.Sprint(d.Hashes)}, {"statements", fmt.Sprint(d.Statements)},
		{"issuer", d.Issuer}, {"updated", or(d.Updated, "")},
	})
}

func (a *app) listCreateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Define a list, or define it anew", Args: cobra.ExactArgs(1),
		Long: `Define a list, or define it anew; what is on it stays. A name has a-z, 0-9 and
hyphens. Its action says what is to be done with a match: reject refuses it,
filter lets it through and marks it, drop refuses it and keeps nothing. A list
whose action is accept holds what is known to be harmless: it suppresses matches
on other lists that are no nearer.`,
		Example: `  tocsin list create refused --summary "what we do not want" --label spam
  tocsin list create harmless --action accept --audience local --radius pdq=8`,
	}
	summary := cmd.Flags().String("summary", "", "what is on it, for people")
	labels := cmd.Flags().StringSlice("label", nil, "label of everything on it; may be repeated")
	audience := cmd.Flags().String("audience", "followers", "who may read it: local, followers or public")
	action := cmd.Flags().String("action", "reject", "what to do with a match: accept, filter, reject or drop")
	radius := cmd.Flags().StringToInt64("radius", nil, "Hamming radius, as in pdq=31 (to 63), phash=8, dhash=6 (to 16)")
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		act, err := parseAction(*action)
		if err != nil {
			return a.usage("%w", err)
		}
		to, err := hashlist.ParseAudience(*audience)
		if err != nil {
			return a.usage("%w", err)
		}
		slices.Sort(*labels)
		list := &pb.List{
			Name: args[0], Summary: *summary, Labels: slices.Compact(*labels), Action: act,
			Audience: pb.Audience(pb.Audience_value["AUDIENCE_"+strings.ToUpper(to.String())]), Radius: map[string]uint32{},
		}
		for name, r := range *radius {
			alg, err := hashlist.ParseAlgorithm(name)
			if err != nil {
				return a.usage("radius: %w", err)
			}
			if r < 0 || r > int64(alg.MaxRadius()) {
				return a.usage("radius %d of %s is not between 0 and %d", r, name, alg.MaxRadius())
			}
			list.Radius[name] = uint32(r)
		}
		return c.call(cmd, func(ctx context.Context, n *node) error {
			answer, err := n.lists.CreateList(ctx, &pb.CreateListRequest{List: list})
			if err != nil {
				return err
			}
			return a.printList(answer.GetList())
		})
	}
	return cmd
}

func (a *app) listLsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "ls", Short: "Show all lists", Args: cobra.NoArgs}
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.call(cmd, func(ctx context.Context, n *node) error {
			answer, err := n.lists.ListLists(ctx, &pb.ListListsRequest{})
			if err != nil {
				return err
			}
			var rows [][]string
			for _, l := range answer.GetLists() {
				d := describe(l)
				if a.json {
					if err := a.line(d); err != nil {
						return err
					}
				}
				rows = append(rows, []string{d.Name, d.Action, d.Audience, fmt.Sprint(d.Hashes), fmt.Sprint(d.Statements), strings.Join(d.Labels, ","), d.Summary})
			}
			switch {
			case a.json:
				return nil
			case len(rows) == 0:
				a.warn("there is no list yet; make one with `tocsin list create NAME`")
				return nil
			}
			return a.table([]string{"NAME", "ACTION", "AUDIENCE", "HASHES", "STATEMENTS", "LABELS", "SUMMARY"}, rows)
		})
	}
	return cmd
}

func (a *app) listShowCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "show NAME", Short: "Describe a list", Args: cobra.ExactArgs(1)}
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.call(cmd, func(ctx context.Context, n *node) error {
			answer, err := n.lists.GetList(ctx, &pb.GetListRequest{List: args[0]})
			if err != nil {
				return err
			}
			return a.printList(answer.GetList())
		})
	}
	return cmd
}

func (a *app) listRemoveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "remove NAME", Short: "End a list: nothing on it matches any more", Args: cobra.ExactArgs(1),
		Long: "End a list by retracting its definition. Nothing on it matches any more. Its\nstatements stay in the log, and act again if a list of this name is made anew.",
	}
	reason := cmd.Flags().String("reason", "", "why, for people")
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.call(cmd, func(ctx context.Context, n *node) error {
			if _, err := n.lists.RemoveList(ctx, &pb.RemoveListRequest{List: args[0], Reason: *reason}); err != nil {
				return err
			}
			if a.json {
				return a.line(struct {
					Removed string `json:"removed"`
				}{args[0]})
			}
			_, err := fmt.Fprintf(a.out, "list %s is removed\n", printable(args[0]))
			return err
		})
	}
	return cmd
}

type entryLine struct {
	Seq       uint64   `json:"seq"`
	Statement string   `json:"statement_id"`
	Issuer    string   `json:"issuer"`
	Hashes    []string `json:"hashes"`
	Labels    []string `json:"labels"`
	Action    string   `json:"action"`
	Reason    string   `json:"reason"`
	Published *string  `json:"published"`
	Expires   *string  `json:"expires"`
}

func (a *app) listEntriesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "entries NAME", Short: "Show the statements in force on a list, oldest first", Args: cobra.ExactArgs(1),
		Long: "Show the statements in force on a list, oldest first, and with --json their\nhashes. Without it there is a line for each statement.",
	}
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		n, err := c.dial(cmd.Context())
		if err != nil {
			return err
		}
		defer n.Close()
		for page := ""; ; {
			ctx, cancel := context.WithTimeout(cmd.Context(), callTime)
			answer, err := n.lists.ListEntries(ctx, &pb.ListEntriesRequest{List: args[0], PageToken: page})
			cancel()
			if err != nil {
				return err
			}
			for _, e := range answer.GetEntries() {
				l := entryLine{
					e.GetSeq(), e.GetStatementId(), e.GetIssuer(), some(e.GetHashes()), some(e.GetLabels()), word(e.GetAction()),
					e.GetReason(), stamp(e.GetPublished()), stamp(e.GetExpires()),
				}
				if a.json {
					err = a.line(l)
				} else {
					// No table: a long list is printed as it comes.
					until := ""
					if l.Expires != nil {
						until = "  until " + *l.Expires
					}
					_, err = fmt.Fprintf(a.out, "%d  %s  %s  %s%s  %s\n", l.Seq, or(l.Published, ""), l.Statement, plural(uint64(len(l.Hashes)), "hash"), until, printable(l.Reason))
				}
				if err != nil {
					return err
				}
			}
			if page = answer.GetNextPageToken(); page == "" {
				return nil
			}
		}
	}
	return cmd
}
