package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

func (a *app) listCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "Keep the node's lists", Args: cobra.NoArgs}
	cmd.AddCommand(a.listCreateCommand(), a.listEditCommand(), a.listLsCommand(), a.listShowCommand(), a.listEntriesCommand(), a.listRemoveCommand())
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
	Own        bool              `json:"own"`
	Follow     string            `json:"follow"`
}

func describe(l *pb.List) listLine {
	return listLine{
		l.GetName(), l.GetId(), l.GetSummary(), some(l.GetLabels()), word(l.GetAudience()), word(l.GetAction()),
		l.GetRadius(), l.GetHashes(), l.GetStatements(), l.GetIssuer(), stamp(l.GetUpdated()), l.GetOwn(), word(l.GetFollow()),
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
	rows := [][]string{
		{"summary", d.Summary}, {"labels", strings.Join(d.Labels, ", ")}, {"audience", d.Audience}, {"action", d.Action},
		{"radius", strings.Join(radii, ", ")}, {"hashes", fmt.Sprint(d.Hashes)}, {"statements", fmt.Sprint(d.Statements)},
		{"issuer", d.Issuer}, {"updated", or(d.Updated, "")},
	}
	if !d.Own {
		rows = append(rows, []string{"whose", whoseIs(l)})
	}
	return a.table([]string{d.Name, d.ID}, rows)
}

// whoseIs tells of a list of another node whose it is.
func whoseIs(l *pb.List) string {
	of := "of " + hostOf(l.GetId()) + ", "
	switch l.GetFollow() {
	case pb.FollowState_FOLLOW_STATE_UNSPECIFIED:
		return of + "not followed"
	case pb.FollowState_FOLLOW_STATE_ACCEPTED:
		return of + "followed"
	}
	return of + "following it: " + word(l.GetFollow())
}

// listFlags are the flags that say what a list is.
type listFlags struct {
	summary, audience, action string
	labels                    []string
	partner                   bool
	radius                    map[string]int64
}

func (f *listFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.summary, "summary", "", "what is on it, for people")
	cmd.Flags().StringSliceVar(&f.labels, "label", nil, "label of everything on it; may be repeated")
	cmd.Flags().StringVar(&f.audience, "audience", "followers", "who may read it: local, followers or public")
	cmd.Flags().StringVar(&f.action, "action", "reject", "what to do with a match: accept, filter, reject or drop")
	cmd.Flags().StringToInt64Var(&f.radius, "radius", nil, "Hamming radius, as in pdq=31 (to 63), phash=8, dhash=6 (to 16)")
}

// list returns what the flags say, all of it or their defaults.
func (f *listFlags) list(name string) (*pb.List, error) {
	if err := checkListName(name); err != nil {
		return nil, err
	}
	act, err := parseAction(f.action)
	if err != nil {
		return nil, err
	}
	if f.partner {
		f.audience, f.labels = hashlist.Local.String(), append(f.labels, hashlist.PartnerData)
	}
	to, err := hashlist.ParseAudience(f.audience)
	if err != nil {
		return nil, err
	}
	labels, err := checkedLabels(f.labels)
	if err != nil {
		return nil, err
	}
	list := &pb.List{
		Name: name, Summary: f.summary, Labels: labels, Action: act,
		Audience: pb.Audience(pb.Audience_value["AUDIENCE_"+strings.ToUpper(to.String())]), Radius: map[string]uint32{},
	}
	for name, r := range f.radius {
		alg, err := hashlist.ParseAlgorithm(name)
		if err != nil {
			return nil, fmt.Errorf("radius: %w", err)
		}
		if r < 0 || r > int64(alg.MaxRadius()) {
			return nil, fmt.Errorf("radius %d of %s is not between 0 and %d", r, name, alg.MaxRadius())
		}
		list.Radius[name] = uint32(r)
	}
	return list, nil
}

func (a *app) listCreateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Define a list", Args: cobra.ExactArgs(1),
		Long: `Define a list. A name has a-z, 0-9 and hyphens. A list that exists is left as it
is: "tocsin list edit" changes it. One that was removed is defined anew, and what
was on it acts again.

Its action says what is to be done with a match: reject refuses it, filter lets
it through and marks it, drop refuses it and keeps nothing. A list whose action
is accept holds what is known to be harmless: it suppresses matches on other
lists that are no nearer.`,
		Example: `  tocsin list create refused --summary "what we do not want" --label spam
  tocsin list create harmless --action accept --audience local --radius pdq=8`,
	}
	var flags listFlags
	flags.add(cmd)
	cmd.Flags().BoolVar(&flags.partner, "partner", false, "it is for data of a partner: it is local and never leaves this node, for good")
	draft := cmd.Flags().Bool("draft", false, draftUsage)
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		list, err := flags.list(args[0])
		if err != nil {
			return a.usage("%w", err)
		}
		return c.call(cmd, func(ctx context.Context, n *node) error {
			_, err := n.lists.GetList(ctx, &pb.GetListRequest{List: list.Name})
			if err == nil {
				return fmt.Errorf("list %[1]s exists already: change it with `tocsin list edit %[1]s`", list.Name)
			} else if status.Code(err) != codes.NotFound {
				return err
			}
			answer, err := n.lists.CreateList(ctx, &pb.CreateListRequest{List: list, Draft: *draft})
			if err != nil {
				return err
			}
			if *draft {
				return a.drafted(answer.GetDraft())
			}
			return a.printList(answer.GetList())
		})
	}
	return cmd
}

func (a *app) listEditCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "edit NAME", Short: "Change what a list says of itself", Args: cobra.ExactArgs(1),
		Long: `Change the definition of a list. Only what a flag names is changed; what is on the
list stays. --label replaces all labels of the list, and --label "" leaves none.
--radius changes the radii it names.`,
		Example: `  tocsin list edit refused --audience public
  tocsin list edit refused --radius pdq=20`,
	}
	var flags listFlags
	flags.add(cmd)
	for _, name := range listFlagNames { // a default would look like what is set without the flag
		cmd.Flags().Lookup(name).DefValue = ""
	}
	draft := cmd.Flags().Bool("draft", false, draftUsage)
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		want, err := flags.list(args[0])
		if err != nil {
			return a.usage("%w", err)
		}
		given := cmd.Flags().Changed
		if !slices.ContainsFunc(listFlagNames, given) {
			return a.usage("nothing is to be changed (want one or more of --%s)", strings.Join(listFlagNames, ", --"))
		}
		return c.call(cmd, func(ctx context.Context, n *node) error {
			if err := checkList(ctx, n, want.Name); err != nil {
				return err
			}
			answer, err := n.lists.GetList(ctx, &pb.GetListRequest{List: want.Name})
			if err != nil {
				return err
			}
			list := answer.GetList()
			if given("summary") {
				list.Summary = want.Summary
			}
			if given("label") {
				list.Labels = want.Labels
			}
			if given("audience") {
				list.Audience = want.Audience
			}
			if given("action") {
				list.Action = want.Action
			}
			for name, r := range want.Radius {
				list.Radius[name] = r
			}
			made, err := n.lists.CreateList(ctx, &pb.CreateListRequest{List: list, Draft: *draft})
			if err != nil {
				return err
			}
			if *draft {
				if len(made.GetDraft()) == 0 {
					a.warn("list %s is so already", list.GetName())
				}
				return a.drafted(made.GetDraft())
			}
			return a.printList(made.GetList())
		})
	}
	return cmd
}

// listFlagNames are the names of listFlags.
var listFlagNames = []string{"summary", "label", "audience", "action", "radius"}

// addressed are the lists, by address, whose name does not tell which one is
// meant: those that share it, and those that are not of the node itself.
func addressed(lists []*pb.List) map[string]bool {
	names := map[string]int{}
	for _, l := range lists {
		names[l.GetName()]++
	}
	show := map[string]bool{}
	for _, l := range lists {
		show[l.GetId()] = !l.GetOwn() || names[l.GetName()] > 1
	}
	return show
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
			header := []string{"NAME", "ACTION", "AUDIENCE", "HASHES", "STATEMENTS", "LABELS", "SUMMARY"}
			var show map[string]bool
			if !a.json { // there the address is always told
				show = addressed(answer.GetLists())
			}
			withAddress := slices.Contains(slices.Collect(maps.Values(show)), true)
			if withAddress {
				header = slices.Insert(header, 1, "ADDRESS")
			}
			var rows [][]string
			for _, l := range answer.GetLists() {
				d := describe(l)
				if a.json {
					if err := a.line(d); err != nil {
						return err
					}
				}
				row := []string{d.Name, d.Action, d.Audience, fmt.Sprint(d.Hashes), fmt.Sprint(d.Statements), strings.Join(d.Labels, ","), d.Summary}
				if withAddress {
					address := ""
					if show[d.ID] {
						address = d.ID
					}
					row = slices.Insert(row, 1, address)
				}
				rows = append(rows, row)
			}
			switch {
			case a.json:
				return nil
			case len(rows) == 0:
				a.warn("there is no list yet; make one with `tocsin list create NAME`")
				return nil
			}
			return a.table(header, rows)
		})
	}
	return cmd
}

func (a *app) listShowCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "show NAME", Short: "Describe a list", Args: cobra.ExactArgs(1)}
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkRef(args[0]); err != nil {
			return a.usage("%w", err)
		}
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
	draft := cmd.Flags().Bool("draft", false, draftUsage)
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkRef(args[0]); err != nil {
			return a.usage("%w", err)
		}
		return c.call(cmd, func(ctx context.Context, n *node) error {
			answer, err := n.lists.RemoveList(ctx, &pb.RemoveListRequest{List: args[0], Reason: *reason, Draft: *draft})
			if err != nil {
				return err
			}
			if *draft {
				return a.drafted(answer.GetDrafts()...)
			}
			if a.json {
				return a.line(struct {
					Removed string `json:"removed"`
				}{args[0]})
			}
			_, err = fmt.Fprintf(a.out, "list %s is removed\n", printable(args[0]))
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
	Kind      string   `json:"kind"`
	Subjects  []string `json:"subjects"` // accounts, servers, or addresses of content
}

// what tells in a few words what an entry is about.
func (l *entryLine) what() string {
	if len(l.Subjects) == 0 {
		return plural(uint64(len(l.Hashes)), "hash")
	}
	const shown = 3
	text := strings.Join(l.Subjects[:min(len(l.Subjects), shown)], ", ")
	if more := len(l.Subjects) - shown; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return printable(text)
}

func (a *app) listEntriesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "entries NAME", Short: "Show the statements in force on a list, oldest first", Args: cobra.ExactArgs(1),
		Long: "Show the statements in force on a list, oldest first: a line for each, with\nits address, which \"tocsin retract\" takes, and the accounts, servers or addresses it\nis about. With --json also its hashes, and all of what it is about.",
	}
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkRef(args[0]); err != nil {
			return a.usage("%w", err)
		}
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
					e.GetReason(), stamp(e.GetPublished()), stamp(e.GetExpires()), e.GetKind(), some(e.GetSubjects()),
				}
				if a.json {
					err = a.line(l)
				} else {
					// No table: a long list is printed as it comes.
					until := ""
					if l.Expires != nil {
						until = "  until " + *l.Expires
					}
					_, err = fmt.Fprintf(a.out, "%d  %s  %s  %s%s  %s\n", l.Seq, or(l.Published, ""), l.Statement, l.what(), until, printable(l.Reason))
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
