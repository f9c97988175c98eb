package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

type revisitLine struct {
	URL      string  `json:"url"`
	Post     string  `json:"post"`
	Actor    string  `json:"actor"`
	State    string  `json:"state"`
	Added    *string `json:"added"`
	Checked  *string `json:"checked"`
	Next     *string `json:"next"`
	Failures uint32  `json:"failures"`
	Note     string  `json:"note"`
}

func describeRevisit(r *pb.Revisit) revisitLine {
	return revisitLine{r.GetUrl(), r.GetPost(), r.GetActor(), word(r.GetState()), stamp(r.GetAdded()), stamp(r.GetChecked()), stamp(r.GetNext()), r.GetFailures(), r.GetNote()}
}

func (a *app) revisitCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "revisit", Short: "Look again at pictures that stay on other people's servers", Args: cobra.NoArgs,
		Long: `Look again at pictures that stay on other people's servers: they can be swapped
after they were approved. The node fetches each address every so often
(revisit.every), from public addresses alone, and compares. What changed beyond
revisit.radius, or is listed by now, waits in the review queue, and is acted on as
the platforms' settings say. Of a picture only hashes are kept.`,
	}
	cmd.AddCommand(a.revisitAddCommand(), a.revisitListCommand(), a.revisitRemoveCommand())
	return cmd
}

func (a *app) revisitAddCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "add URL", Short: "Watch an address from now on", Args: cobra.ExactArgs(1),
		Long: `Watch an address from now on. What is found there first counts as approved, unless
--approved says what was.`,
		Example: "  tocsin revisit add https://far.example/picture.png --post https://here.example/post/7",
	}
	post := cmd.Flags().String("post", "", "where it is shown")
	actor := cmd.Flags().String("actor", "", "who posted it")
	approved := cmd.Flags().StringSlice("approved", nil, "PDQ hash or SHA-256 of what was approved, as in sha256:...; may be repeated once")
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.call(cmd, func(ctx context.Context, n *node) error {
			answer, err := pb.NewRevisitServiceClient(n).AddRevisit(ctx, &pb.AddRevisitRequest{Url: args[0], Post: *post, Actor: *actor, Approved: *approved})
			if err != nil {
				return err
			}
			if a.json {
				return a.line(describeRevisit(answer.GetRevisit()))
			}
			word := "is watched now"
			if answer.GetKnown() {
				word = "was watched already"
			}
			_, err = fmt.Fprintf(a.out, "%s %s\n", printable(args[0]), word)
			return err
		})
	}
	return cmd
}

func (a *app) revisitListCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the addresses, and what was found there", Args: cobra.NoArgs}
	prefix := cmd.Flags().String("prefix", "", "only addresses that begin so")
	limit := cmd.Flags().Uint32("limit", 1000, "at most so many, up to 10000")
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.call(cmd, func(ctx context.Context, n *node) error {
			answer, err := pb.NewRevisitServiceClient(n).ListRevisits(ctx, &pb.ListRevisitsRequest{Prefix: *prefix, Limit: *limit})
			if err != nil {
				return err
			}
			var rows [][]string
			for _, r := range answer.GetRevisits() {
				l := describeRevisit(r)
				if a.json {
					if err := a.line(l); err != nil {
						return err
					}
					continue
				}
				rows = append(rows, []string{l.URL, l.State, or(l.Checked, "not yet"), or(l.Next, ""), l.Note})
			}
			if more := answer.GetMore(); more > 0 {
				defer a.warn("%d more are not shown: --limit and --prefix show others", more)
			}
			switch {
			case a.json:
				return nil
			case len(rows) == 0:
				a.warn("no such address is watched")
				return nil
			}
			return a.table([]string{"ADDRESS", "STATE", "ASKED", "NEXT", "NOTE"}, rows)
		})
	}
	return cmd
}

func (a *app) revisitRemoveCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "remove URL", Short: "Watch an address no more, and forget its hashes", Args: cobra.ExactArgs(1)}
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.call(cmd, func(ctx context.Context, n *node) error {
			if _, err := pb.NewRevisitServiceClient(n).RemoveRevisit(ctx, &pb.RemoveRevisitRequest{Url: args[0]}); err != nil {
				return err
			}
			if a.json {
				return a.line(map[string]string{"removed": args[0]})
			}
			_, err := fmt.Fprintf(a.out, "%s is watched no more\n", printable(args[0]))
			return err
		})
	}
	return cmd
}
