package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// These ask other servers, and read whole lists.
const (
	verifyTime  = time.Hour
	inspectTime = 2 * time.Minute
)

type checkLine struct {
	Check  string `json:"check"`
	Passed bool   `json:"passed"`
	Detail string `json:"detail"`
	Alarm  bool   `json:"alarm"`
}

func describeChecks(all []*pb.Check) []checkLine {
	lines := []checkLine{}
	for _, c := range all {
		lines = append(lines, checkLine{c.GetName(), c.GetPassed(), c.GetDetail(), c.GetAlarm()})
	}
	return lines
}

// printChecks prints a line for each check and returns how many failed.
func (a *app) printChecks(all []checkLine) (failed uint64) {
	wide := 0
	for _, c := range all {
		wide = max(wide, len(c.Check))
	}
	for _, c := range all {
		state := "ok    "
		if !c.Passed {
			state = "FAILED"
			failed++
		}
		fmt.Fprintf(a.out, "%s  %-*s  %s\n", state, wide, printable(c.Check), printable(c.Detail))
	}
	return failed
}

func (a *app) verifyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "verify LIST", Short: "Check that a list is complete and the same for everybody", Args: cobra.ExactArgs(1),
		Long: `Check a list of this node, or one that it follows, against everything that can be
known: the proof of every statement once more, the signed head of the list against
the statements in their order, the head its publisher shows now, and those that
other nodes were shown. So a publisher who drops a statement in silence, or shows
different lists to different followers, is found out.

The peers that this node knows are asked, and the nodes named by --with. The more
of them do not know the publisher, the more their word is worth.

Exit status: 0 if every check passed, 1 otherwise.`,
		Example: "  tocsin verify spam@hashes.example --with third.example",
	}
	with := cmd.Flags().StringSlice("with", nil, "host of another node to ask what it was shown; may be repeated")
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkRef(args[0]); err != nil {
			return a.usage("%w", err)
		}
		return c.callFor(cmd, verifyTime, func(ctx context.Context, n *node) error {
			answer, err := n.peers.Verify(ctx, &pb.VerifyRequest{List: args[0], With: *with})
			if err != nil {
				return err
			}
			checks, root := describeChecks(answer.GetChecks()), base64.StdEncoding.EncodeToString(answer.GetRoot())
			if a.json {
				if err := a.line(struct {
					List   string      `json:"list"`
					Size   uint64      `json:"size"`
					Root   string      `json:"root"`
					Passed bool        `json:"passed"`
					Checks []checkLine `json:"checks"`
				}{answer.GetList(), answer.GetSize(), root, answer.GetPassed(), checks}); err != nil {
					return err
				}
			} else {
				fmt.Fprintf(a.out, "%s: %s, root %s\n", printable(answer.GetList()), plural(answer.GetSize(), "statement"), root)
			}
			loud := ""
			if slices.ContainsFunc(checks, func(c checkLine) bool { return c.Alarm }) {
				loud = `THIS LIST CANNOT BE RELIED ON AS IT IS.
If its publisher cannot explain it, follow it no longer (` + "`tocsin unfollow`" + `), and tell the
others who follow it. What was taken over before stays in force until then.`
			}
			return a.judge(answer.GetPassed(), checks, loud)
		})
	}
	return cmd
}

// judge prints checks, unless they were printed in JSON, and fails if one failed.
func (a *app) judge(passed bool, checks []checkLine, loud string) error {
	failed := uint64(0)
	if !a.json {
		failed = a.printChecks(checks)
	}
	if passed {
		return nil
	}
	if a.json {
		return errors.New("not every check passed")
	}
	if loud != "" {
		loud = "\n" + loud
	}
	return fmt.Errorf("%s of %d failed%s", plural(failed, "check"), len(checks), loud)
}

func (a *app) inspectCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "inspect ADDRESS", Short: "Look at a node, issuer, list or statement elsewhere", Args: cobra.ExactArgs(1),
		Long: `Fetch what lies at an address (an address, @NAME@HOST or a host), and tell what it
is, what it says of itself, and every check it passes or fails. Nothing is kept.

Exit status: 0 if every check passed, 1 otherwise.`,
		Example: `  tocsin inspect hashes.example
  tocsin inspect @spam@hashes.example`,
	}
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.callFor(cmd, inspectTime, func(ctx context.Context, n *node) error {
			answer, err := n.peers.Inspect(ctx, &pb.InspectRequest{Address: args[0]})
			if err != nil {
				return err
			}
			checks := describeChecks(answer.GetChecks())
			if a.json {
				if err := a.line(struct {
					Address string      `json:"address"`
					Kind    string      `json:"kind"`
					ID      string      `json:"id"`
					Summary []string    `json:"summary"`
					Passed  bool        `json:"passed"`
					Checks  []checkLine `json:"checks"`
				}{answer.GetAddress(), answer.GetKind(), answer.GetId(), some(answer.GetSummary()), answer.GetPassed(), checks}); err != nil {
					return err
				}
			} else {
				fmt.Fprintf(a.out, "%s: %s %s\n", printable(answer.GetAddress()), answer.GetKind(), printable(answer.GetId()))
				for _, s := range answer.GetSummary() {
					fmt.Fprintf(a.out, "  %s\n", printable(s))
				}
			}
			return a.judge(answer.GetPassed(), checks, "")
		})
	}
	return cmd
}
