package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

type actLine struct {
	ID        string            `json:"id"`
	Platform  string            `json:"platform"`
	Kind      string            `json:"kind"`
	Target    string            `json:"target"`
	State     string            `json:"state"`
	Soft      bool              `json:"soft"`
	Made      *string           `json:"made"`
	Changed   *string           `json:"changed"`
	Next      *string           `json:"next"`
	Tries     uint32            `json:"tries"`
	Note      string            `json:"note"`
	Undo      string            `json:"undo"`
	Finding   string            `json:"finding"`
	Why       string            `json:"why"`
	Statement string            `json:"statement_id"`
	Decisions []actDecisionLine `json:"decisions"`
}

type actDecisionLine struct {
	Who  string  `json:"who"`
	At   *string `json:"at"`
	What string  `json:"what"`
	Why  string  `json:"why"`
}

// actState is a state's word.
func actState(s pb.ActState) string {
	if s == pb.ActState_ACT_STATE_DRY {
		return "dry-run"
	}
	return word(s)
}

func describeAct(a *pb.Act) actLine {
	l := actLine{
		a.GetId(), a.GetPlatform(), a.GetKind(), a.GetTarget(), actState(a.GetState()), a.GetSoft(), stamp(a.GetMade()), stamp(a.GetChanged()), stamp(a.GetNext()),
		a.GetTries(), a.GetNote(), a.GetUndo(), a.GetFinding(), a.GetWhy(), a.GetStatement(), nil,
	}
	for _, d := range a.GetDecisions() {
		l.Decisions = append(l.Decisions, actDecisionLine{d.GetWho(), stamp(d.GetAt()), d.GetWhat(), d.GetWhy()})
	}
	l.Decisions = some(l.Decisions)
	return l
}

func (a *app) actsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "acts", Short: "See what the node does on platforms, approve it and undo it", Args: cobra.NoArgs,
		Long: `See what the node did on the platforms of config.toml ([[platform]]), or would do,
and decide about it. Nothing is done that is not switched on there, and at first
everything is a dry run. Local admins are never touched; where people would lose
their follows, the softer form is taken; what goes beyond a cap waits for a person.

Every act is in the audit log with its undo. What a purge or a deletion removed, no
undo brings back.`,
	}
	cmd.AddCommand(a.actsListCommand(), a.actsShowCommand(),
		a.actsDecideCommand("approve", "Do an act that waits, or that was only tried in a dry run"),
		a.actsDecideCommand("decline", "Do not do an act that waits"),
		a.actsDecideCommand("run", "Do an act again that failed, or of which nobody knows whether it was done"),
		a.actsDecideCommand("undo", "Take back an act that was done"))
	return cmd
}

func (a *app) actsListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List acts, the newest first", Args: cobra.NoArgs,
		Example: "  tocsin acts list --state waiting",
	}
	platform := cmd.Flags().String("platform", "", "only of this platform")
	var words []string
	for n := int32(1); n < int32(len(pb.ActState_name)); n++ {
		words = append(words, actState(pb.ActState(n)))
	}
	state := cmd.Flags().String("state", "", "only in this state: "+strings.Join(words, ", "))
	limit := cmd.Flags().Uint32("limit", 100, "at most so many, up to 1000")
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var chosen pb.ActState
		if *state != "" {
			for i, w := range words {
				if w == *state {
					chosen = pb.ActState(i + 1)
				}
			}
			if chosen == 0 {
				return a.usage("unknown state %.40q (want %s)", *state, strings.Join(words, ", "))
			}
		}
		return c.call(cmd, func(ctx context.Context, n *node) error {
			answer, err := pb.NewActServiceClient(n).ListActs(ctx, &pb.ListActsRequest{Platform: *platform, State: chosen, Limit: *limit})
			if err != nil {
				return err
			}
			var rows [][]string
			for _, act := range answer.GetActs() {
				l := describeAct(act)
				if a.json {
					if err := a.line(l); err != nil {
						return err
					}
					continue
				}
				rows = append(rows, []string{l.ID, l.Platform, l.State, or(l.Made, ""), act.GetDoes()})
			}
			if more := answer.GetMore(); more > 0 {
				defer a.warn("%d older acts are not shown: --limit shows more", more)
			}
			switch {
			case a.json:
				return nil
			case len(rows) == 0:
				a.warn("there are no such acts")
				return nil
			}
			return a.table([]string{"ACT", "PLATFORM", "STATE", "NOTED", "DOES"}, rows)
		})
	}
	return cmd
}

func (a *app) printAct(act *pb.Act) error {
	l := describeAct(act)
	if a.json {
		return a.line(l)
	}
	fmt.Fprintf(a.out, "%s on %s: %s\n", printable(act.GetDoes()), l.Platform, l.State)
	for _, r := range [][2]string{
		{"act", l.ID}, {"noted", or(l.Made, "")}, {"changed", or(l.Changed, "")}, {"what happened", l.Note}, {"tried again", or(l.Next, "")},
		{"undo", l.Undo}, {"because of", l.Finding}, {"why", l.Why}, {"statement", l.Statement},
	} {
		if r[1] != "" {
			fmt.Fprintf(a.out, "  %-14s %s\n", r[0], printable(r[1]))
		}
	}
	for _, d := range l.Decisions {
		fmt.Fprintf(a.out, "  %s %s by %s %s\n", or(d.At, ""), d.What, printable(d.Who), printable(d.Why))
	}
	return nil
}

func (a *app) actsShowCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "show ACT", Short: "Show an act, why there is one, and what people decided", Args: cobra.ExactArgs(1)}
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.call(cmd, func(ctx context.Context, n *node) error {
			answer, err := pb.NewActServiceClient(n).GetAct(ctx, &pb.GetActRequest{Id: args[0]})
			if err != nil {
				return err
			}
			return a.printAct(answer.GetAct())
		})
	}
	return cmd
}

func (a *app) actsDecideCommand(what, short string) *cobra.Command {
	cmd := &cobra.Command{
		Use: what + " ACT", Short: short, Args: cobra.ExactArgs(1),
		Long: short + `. It waits a little for the outcome; what takes
longer goes on, and "tocsin acts show" tells of it. The decision goes into the
audit log.`,
		Example: "  tocsin acts " + what + ` mfrggzdfmztwq2lk --why "seen it"`,
	}
	why := cmd.Flags().String("why", "", "why, for the audit log")
	who := cmd.Flags().String("who", "", "who decides, beside the name of the token")
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.call(cmd, func(ctx context.Context, n *node) error {
			answer, err := pb.NewActServiceClient(n).DecideAct(ctx, &pb.DecideActRequest{Id: args[0], What: what, Why: *why, Who: *who})
			if err != nil {
				return err
			}
			return a.printAct(answer.GetAct())
		})
	}
	return cmd
}
