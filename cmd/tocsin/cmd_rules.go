package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tocsin-fed/tocsin/hashlist/rules"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

func (a *app) rulesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rules", Short: "Try and show the operator's own rules about uploads that match", Args: cobra.NoArgs,
		Long: `Rules say what an upload that matches comes to, beyond belief and distance: by who
uploads it, by what hour it is, by the labels it matches. They stand in the file
that policy.rules names, and docs/policy.md explains them:

  [[rule]]
  name = "new-accounts"
  when = 'belief >= 40 && uploader.age < duration("24h")'
  then = "hold"

The first that applies counts. A rule never softens what this node itself banned,
and sees nothing of what nobody who is believed lists.`,
	}
	cmd.AddCommand(a.rulesCheckCommand(), a.rulesDryRunCommand(), a.rulesListCommand(), a.rulesReloadCommand())
	return cmd
}

type ruleLine struct {
	Name string `json:"name"`
	When string `json:"when"`
	Then string `json:"then"`
	Line uint32 `json:"line"`
}

func (a *app) printRules(all []ruleLine) error {
	for _, r := range all {
		var err error
		if a.json {
			err = a.line(r)
		} else {
			_, err = fmt.Fprintf(a.out, "%s: %s if %s\n", printable(r.Name), r.Then, printable(r.When))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func describeRules(all []*pb.Rule) []ruleLine {
	lines := []ruleLine{}
	for _, r := range all {
		lines = append(lines, ruleLine{r.GetName(), r.GetWhen(), word(r.GetThen()), r.GetLine()})
	}
	return lines
}

func (a *app) rulesCheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "check FILE", Short: "Say whether a file of rules is good", Args: cobra.ExactArgs(1),
		Long: `Read a file of rules and tell every mistake with its line. No node needs to run.
With --json each rule is printed, or an object with file and error.`,
	}
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		text, err := readBounded(args[0], rules.MaxFile)
		if err != nil {
			return err
		}
		set, err := rules.Load(args[0], text)
		if err != nil {
			return errors.Join(a.failed("file", args[0], err), err)
		}
		if len(set.Rules()) == 0 && !a.json {
			a.warn("%s has no rules, which is no mistake: each begins with [[rule]]", printable(args[0]))
		}
		lines := []ruleLine{}
		for _, r := range set.Rules() {
			lines = append(lines, ruleLine{r.Name, r.When, r.Then.String(), uint32(r.Line)})
		}
		return a.printRules(lines)
	}
	return cmd
}

func (a *app) rulesDryRunCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "dry-run FILE", Short: "Tell what rules would have done to the recent uploads", Args: cobra.ExactArgs(1),
		Long: `Look the uploads that this node remembers up again, with the rules of FILE in the
place of those in force, and tell what would come out otherwise. Nothing changes.
What is remembered does not say who uploaded it: rules that ask for the uploader
apply to nothing here.`,
		Example: "  tocsin rules dry-run rules.toml --uploads 40000",
	}
	uploads := cmd.Flags().Uint32("uploads", 0, "look at this many of the newest uploads; 0 for all")
	examples := cmd.Flags().Uint32("examples", 10, "show this many that would change, at most 100")
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *examples > 100 {
			return a.usage("--examples is %d (want at most 100)", *examples)
		}
		text, err := readBounded(args[0], rules.MaxFile)
		if err != nil {
			return err
		}
		if _, err := rules.Load(args[0], text); err != nil { // which names the file
			return err
		}
		return c.callFor(cmd, verifyTime, func(ctx context.Context, n *node) error {
			v, err := pb.NewRulesServiceClient(n.ClientConn).DryRun(ctx, &pb.DryRunRequest{Rules: text, Uploads: *uploads, Examples: *examples})
			if err != nil {
				return err
			}
			if a.json {
				return a.message(v)
			}
			for _, name := range []string{"reject", "hold", "flag", "allow"} {
				fmt.Fprintf(a.out, "would %-6s %d of the last %d uploads: %d more than now, %d instead of something graver\n",
					name, v.GetWould()[name], v.GetUploads(), v.GetGraver()[name], v.GetMilder()[name])
			}
			for _, r := range v.GetRules() {
				fmt.Fprintf(a.out, "rule %s would decide about %d\n", printable(r.GetName()), v.GetByRule()[r.GetName()])
			}
			for _, x := range v.GetExamples() {
				ref := x.GetReference()
				fmt.Fprintf(a.out, "  %s  %s -> %s by %s  %s %s %s\n", x.GetAt().AsTime().Format("2006-01-02 15:04:05"), word(x.GetNow()), word(x.GetWould()),
					printable(x.GetRule()), printable(ref.GetUrl()), printable(ref.GetPost()), printable(ref.GetActor()))
			}
			return nil
		})
	}
	return cmd
}

func (a *app) rulesListCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "Show the rules in force, in the order in which they are asked", Args: cobra.NoArgs}
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.call(cmd, func(ctx context.Context, n *node) error {
			v, err := pb.NewRulesServiceClient(n.ClientConn).ListRules(ctx, &pb.ListRulesRequest{})
			if err != nil {
				return err
			}
			if v.GetFailed() > 0 {
				a.warn("rules failed %d times since they were read, mostly because they cost too much, and did not apply", v.GetFailed())
			}
			if len(v.GetRules()) == 0 && !a.json {
				a.warn("there are no rules; write them into a file, try it with `tocsin rules check FILE`, name it as policy.rules in config.toml and restart the node: docs/policy.md explains them")
			}
			return a.printRules(describeRules(v.GetRules()))
		})
	}
	return cmd
}

func (a *app) rulesReloadCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "reload", Short: "Have the node read its file of rules again", Args: cobra.NoArgs,
		Long: `Have the node read its file of rules again. If it has a mistake, the rules stay as
they were. The uploads that the node remembers are looked up with them first, and what would
come out otherwise is told; if they would treat more of them more gravely than
is expected (flood in config.toml), the rules stay as they were until you say --yes.`,
	}
	yes := cmd.Flags().Bool("yes", false, "also if more of the recent uploads would be treated more gravely than is expected")
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.callFor(cmd, verifyTime, func(ctx context.Context, n *node) error {
			v, err := pb.NewRulesServiceClient(n.ClientConn).ReloadRules(ctx, &pb.ReloadRulesRequest{Confirmed: *yes})
			if err != nil {
				return err
			}
			if v.GetUploads() > 0 {
				for _, name := range []string{"reject", "hold", "flag", "allow"} {
					if more, less := v.GetGraver()[name], v.GetMilder()[name]; more+less > 0 {
						a.warn("of the last %d uploads %d come to %s that came to less, and %d that came to something graver", v.GetUploads(), more, name, less)
					}
				}
			}
			return a.printRules(describeRules(v.GetRules()))
		})
	}
	return cmd
}
