package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

func (a *app) quarantineCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "quarantine", Short: "Statements of other nodes that would match too much",
		Long: `A statement of another node that would match more of what was let through lately than
is expected does not act until somebody has decided: whoever bans popular harmless pictures, out of
malice or by mistake, blocks nothing here. "tocsin window preview LIST" shows what would be
refused.`,
	}
	cmd.AddCommand(a.quarantineListCommand(), a.quarantineDecideCommand("release", "Have statements act",
		"Have a statement act that is in quarantine, or all of a list that nobody has decided on.", pb.QuarantineState_QUARANTINE_STATE_RELEASED),
		a.quarantineDecideCommand("keep", "Keep statements from acting, for good",
			"Keep a statement that is in quarantine from acting for good, or all of a list that nobody has decided\non. Its issuer is not told; `tocsin dispute` does that.", pb.QuarantineState_QUARANTINE_STATE_KEPT),
		a.closeBreakerCommand())
	return cmd
}

type quarantinedLine struct {
	Statement string  `json:"statement"`
	List      string  `json:"list"`
	Issuer    string  `json:"issuer"`
	Matched   uint64  `json:"matched"`
	Uploads   uint64  `json:"uploads"`
	Since     *string `json:"since"`
	State     string  `json:"state"`
	Decided   *string `json:"decided"`
	Who       string  `json:"who"`
	Why       string  `json:"why"`
}

func (a *app) quarantineListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "Show what is in quarantine", Args: cobra.NoArgs,
		Long: "Show the statements that do not act until somebody has decided, and how many of the recent uploads each\nwould match.",
	}
	all := cmd.Flags().Bool("all", false, "also those that were decided on")
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.call(cmd, func(ctx context.Context, n *node) error {
			answer, err := n.window.ListQuarantine(ctx, &pb.ListQuarantineRequest{All: *all})
			if err != nil {
				return err
			}
			var rows [][]string
			for _, q := range answer.GetStatements() {
				l := quarantinedLine{
					q.GetStatementId(), q.GetList(), q.GetIssuer(), q.GetMatched(), q.GetUploads(), stamp(q.GetSince()), word(q.GetState()),
					stamp(q.GetDecided()), q.GetWho(), q.GetWhy(),
				}
				if a.json {
					if err := a.line(l); err != nil {
						return err
					}
					continue
				}
				rows = append(rows, []string{handle(l.List), l.State, fmt.Sprintf("%d of %d", l.Matched, l.Uploads), or(l.Since, ""), l.Who, l.Statement})
			}
			if answer.GetTruncated() {
				a.warn("there are more")
			}
			if a.json {
				return nil
			}
			if len(rows) == 0 {
				a.warn("nothing is in quarantine")
				return nil
			}
			return a.table([]string{"LIST", "STATE", "WOULD MATCH", "SINCE", "DECIDED BY", "STATEMENT"}, rows)
		})
	}
	return cmd
}

func (a *app) quarantineDecideCommand(verb, short, long string, state pb.QuarantineState) *cobra.Command {
	cmd := &cobra.Command{Use: verb + " STATEMENT|LIST", Short: short, Args: cobra.ExactArgs(1), Long: long}
	why := cmd.Flags().String("why", "", "the reason, for those who ask later")
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.call(cmd, func(ctx context.Context, n *node) error {
			answer, err := n.window.DecideQuarantine(ctx, &pb.DecideQuarantineRequest{Subject: args[0], State: state, Why: *why})
			if err != nil {
				return err
			}
			if a.json {
				return a.line(struct {
					Statements uint64 `json:"statements"`
					State      string `json:"state"`
				}{answer.GetStatements(), word(state)})
			}
			_, err = fmt.Fprintf(a.out, "%s: %s\n", plural(answer.GetStatements(), "statement"), word(state))
			return err
		})
	}
	return cmd
}

func (a *app) closeBreakerCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "close-breaker [ISSUER]", Short: "Have an issuer's matches count fully again", Args: cobra.MaximumNArgs(1),
		Long: `When what an issuer has listed refuses uploads by more different hashes within an hour than
is expected, its matches come to hold at most for a while. This ends that before its time; without an
issuer, for all other nodes together. "tocsin window status" shows the breakers that are open.`,
	}
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		request := &pb.CloseBreakerRequest{}
		if len(args) == 1 {
			request.Issuer = args[0]
		}
		return c.call(cmd, func(ctx context.Context, n *node) error {
			answer, err := n.window.CloseBreaker(ctx, request)
			if err != nil {
				return err
			}
			if a.json {
				return a.line(struct {
					WasOpen bool `json:"was_open"`
				}{answer.GetWasOpen()})
			}
			text := "that breaker was not open"
			if answer.GetWasOpen() {
				text = "the breaker is closed"
			}
			_, err = fmt.Fprintln(a.out, text)
			return err
		})
	}
	return cmd
}
