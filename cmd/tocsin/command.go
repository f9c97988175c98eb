package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// The exit statuses.
const (
	exitTrouble = 1 // something could not be done
	exitUsage   = 2 // the command line was wrong
	exitMatch   = 3 // lookup or scan found what is not to be published
)

// errMatch makes lookup and scan exit with exitMatch. It is not printed.
var errMatch = errors.New("a match")

// app is one run of the program.
type app struct {
	in       io.Reader
	out, err io.Writer

	json  bool   // --json
	data  string // --data
	ready bool   // the command line is in order; what fails now is no mistake of usage
}

// run is main without the process: it runs the command of args and returns the
// exit status.
func run(args []string, in io.Reader, out, err io.Writer) int {
	a := &app{in: in, out: out, err: err}
	root := a.commands()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(err)
	// The first signal ends the work in order, the second one ends the process.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	cmd, fail := root.ExecuteContextC(ctx)
	switch {
	case fail == nil:
		return 0
	case errors.Is(fail, errMatch):
		return exitMatch
	case !a.ready:
		fmt.Fprintf(err, "tocsin: %v\nRun `%s --help` for its usage.\n", fail, cmd.CommandPath())
		return exitUsage
	}
	a.tell(fail)
	return exitTrouble
}

// tell prints an error, and each of several on a line of its own.
func (a *app) tell(err error) {
	for line := range strings.Lines(plain(err).Error()) {
		fmt.Fprintf(a.err, "tocsin: %s\n", printable(strings.TrimSuffix(line, "\n"))) // parts of it may be others' words
	}
}

// commands is the table of commands.
func (a *app) commands() *cobra.Command {
	root := &cobra.Command{
		Use:   "tocsin",
		Short: "Find out whether an uploaded picture is known",
		Long: `tocsin keeps lists of hashes of pictures that a server refuses, and says of an
uploaded picture whether it, or a copy of it that was changed, is on one of them.
Nodes follow each other's lists.

Begin with "tocsin init" and "tocsin serve"; the other commands talk to the node
that runs in the data directory, or with --server to one elsewhere.

Exit status: 0 if all went well, 1 if something could not be done, 2 for a
mistake on the command line; lookup exits with 3 if the verdict is hold or reject, and
scan if a file is to be refused.`,
		SilenceUsage: true, SilenceErrors: true,
	}
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print one JSON object a line")
	root.PersistentFlags().StringVar(&a.data, "data", "", "data directory (default $TOCSIN_DATA, or ./data if a node is there, or "+systemData+")")
	group := func(id, title string, commands ...*cobra.Command) {
		root.AddGroup(&cobra.Group{ID: id, Title: title})
		for _, c := range commands {
			c.GroupID = id
			root.AddCommand(c)
		}
	}
	group("node", "The node:", a.initCommand(), a.serveCommand(), a.statusCommand(), a.doctorCommand(), a.backupCommand(), a.configCommand(), a.tokenCommand())
	group("pictures", "Pictures and hashes:", a.hashCommand(), a.lookupCommand(), a.scanCommand(), a.banCommand(), a.allowCommand(), a.retractCommand(),
		a.explainCommand(), a.rulesCommand(), a.auditCommand())
	group("people", "What people decide:", a.reviewCommand(), a.confirmCommand(), a.disputeCommand(), a.ignoreCommand(), a.disputesCommand())
	group("lists", "Lists:", a.listCommand(), a.importCommand(), a.exportCommand(), a.watchCommand())
	group("belief", "Whom to believe:", a.trustCommand())
	group("sources", "Lists of other systems:", a.subscribeCommand(), a.sourcesCommand())
	group("others", "Other nodes:", a.followCommand(), a.unfollowCommand(), a.followsCommand(), a.followersCommand(), a.peersCommand(),
		a.outboxCommand(), a.verifyCommand(), a.inspectCommand())
	group("acting", "Acting and reporting:", a.actsCommand(), a.revisitCommand(), a.reportCommand(), a.digestCommand())
	group("window", "What was let through:", a.windowCommand(), a.quarantineCommand())
	group("keys", "Keys:", a.keysCommand(), a.signCommand(), a.publishCommand())
	root.AddCommand(a.versionCommand(), a.manCommand())
	root.SetOut(a.out) // the completions keep it
	root.InitDefaultCompletionCmd()
	a.begin(root)
	root.InitDefaultHelpCmd()
	if help, _, err := root.Find([]string{"help"}); err == nil {
		help.Args = func(_ *cobra.Command, args []string) error {
			if c, rest, err := root.Find(args); err == nil && c.HasSubCommands() {
				return unknownCommand(c, rest)
			}
			return nil
		}
	}
	return root
}

// begin notes when a command of the tree starts to work, which is after all
// checks of its command line, and has these name what was meant.
func (a *app) begin(c *cobra.Command) {
	if work := c.RunE; work != nil {
		c.RunE = func(c *cobra.Command, args []string) error {
			a.ready = true
			return work(c, args)
		}
	}
	switch p := c.Parent(); {
	case c.HasSubCommands():
		// Without work of its own, a command with subcommands would take an unknown
		// one for a wish for help, and succeed.
		c.Args = unknownCommand
		if !c.Runnable() {
			c.DisableFlagsInUseLine = true
			c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
		}
	case c.Args != nil:
		check := c.Args
		c.Args = func(c *cobra.Command, args []string) error {
			if check(c, args) == nil {
				return nil
			}
			given := "no argument"
			if n := len(args); n > 0 {
				given = plural(uint64(n), "argument")
			}
			return fmt.Errorf("got %s (want `%s`)", given, strings.TrimSuffix(c.UseLine(), " [flags]"))
		}
		// People try both, as other tools have one or the other.
		if also := map[string]string{"list": "ls", "ls": "list"}[c.Name()]; also != "" && p.HasParent() && !c.HasAlias(also) {
			c.Aliases = append(c.Aliases, also)
		}
	}
	for _, sub := range c.Commands() {
		a.begin(sub)
	}
}

// unknownCommand checks the arguments of a command that has only subcommands: of what is left
// there is none. It names those that may have been meant, of the same command or of another.
func unknownCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var near []string
	if !c.HasParent() {
		near = below(c, args[0])
	}
	c.SuggestionsMinimumDistance = max(1, min(2, len(args[0])/3)) // to short words, all are near
	for _, name := range c.SuggestionsFor(args[0]) {
		near = append(near, "`"+c.CommandPath()+" "+name+"`")
	}
	text := fmt.Sprintf("unknown command %.40q for %q", args[0], c.CommandPath())
	if len(near) > 0 {
		text += ": did you mean " + strings.Join(near, " or ") + "?"
	}
	return errors.New(text)
}

// below finds the subcommands of c's commands that have a name, if they are few.
func below(c *cobra.Command, name string) (all []string) {
	for _, sub := range c.Commands() {
		for _, of := range sub.Commands() {
			if of.IsAvailableCommand() && of.Name() == name {
				all = append(all, "`"+of.CommandPath()+"`")
			}
		}
	}
	if len(all) > 3 {
		return nil
	}
	return all
}

// usage reports a mistake on the command line that cobra cannot find.
func (a *app) usage(format string, args ...any) error {
	a.ready = false
	return fmt.Errorf(format, args...)
}

func (a *app) manCommand() *cobra.Command {
	return &cobra.Command{
		Use: "man DIR", Short: "Write manual pages into a directory", Args: cobra.ExactArgs(1),
		Long: "Write a manual page for every command into a directory, for example /usr/local/share/man/man1.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			// The date would make every build's pages differ.
			cmd.Root().DisableAutoGenTag = true
			return doc.GenManTree(cmd.Root(), &doc.GenManHeader{Source: "tocsin " + version, Manual: "tocsin"}, args[0])
		},
	}
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if a.json {
				return a.line(struct {
					Version string `json:"version"`
					Go      string `json:"go"`
				}{version, runtime.Version()})
			}
			_, err := fmt.Fprintln(a.out, "tocsin", version)
			return err
		},
	}
}
