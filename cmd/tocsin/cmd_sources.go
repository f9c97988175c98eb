package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-fed/tocsin/exchange/source"
	"github.com/tocsin-fed/tocsin/guarded"
	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
	"github.com/tocsin-fed/tocsin/server"
	"github.com/tocsin-fed/tocsin/store"
)

// openSources takes up the lists of other systems. It must come before the first lookup.
func (c *config) openSources(ctx context.Context, dir string, log *slog.Logger, lists *hashlist.Lists, db *store.DB, issuer *signer) (*source.Keeper, error) {
	return source.Open(ctx, source.Config{
		Lists: lists, Store: db, Issuer: issuer, Origin: c.Node.Origin, Client: guarded.Client(guarded.Options{Loopback: c.Federation.Loopback}),
		Loopback: c.Federation.Loopback, Dir: dir, Offline: issuer.offline, Version: version, Log: log, Ask: server.AskAboutSource(db),
		Settle: server.SettleSource(db),
	})
}

// opinions are the services elsewhere that are asked of uploads. What leaves the host for them is said at
// every start.
func (c *config) opinions(dir string, log *slog.Logger) ([]server.Opinion, error) {
	var all []server.Opinion
	for _, o := range [...]struct {
		service source.Service
		*opinion
	}{{source.Arachnid, &c.Opinion.Arachnid}, {source.PhotoDNA, &c.Opinion.PhotoDNA}} {
		if !o.Enabled {
			continue
		}
		file := o.Credentials
		if !filepath.IsAbs(file) {
			file = filepath.Join(dir, file)
		}
		a, err := source.NewAsker(source.AskerConfig{
			Service: o.service, URL: o.URL, Credentials: file, Timeout: o.Timeout.time, Version: version,
			Client: guarded.Client(guarded.Options{Loopback: c.Federation.Loopback}), Loopback: c.Federation.Loopback,
		})
		if err != nil {
			return nil, err
		}
		log.Warn("uploads that would pass are shown to a service elsewhere", "service", a.Name(), "what_leaves_this_host", a.Leaves())
		all = append(all, server.Opinion{Asker: a, Most: o.Most.verdict, Trouble: o.Trouble.answer})
	}
	return all, nil
}

// beliefs are the words of the OpenPGP web of trust.
var beliefs = map[string]uint32{"full": 120, "partial": 80, "marginal": 40, "none": 0}

// parseBelief reads a number or one of those words.
func parseBelief(s string) (uint32, error) {
	if n, ok := beliefs[s]; ok {
		return n, nil
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil || n > 120 {
		return 0, fmt.Errorf("belief %.40q is not 0 to 120, full (120), partial (80), marginal (40) or none", s)
	}
	return uint32(n), nil
}

func (a *app) subscribeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "subscribe URL", Short: "Read a list of another system again and again", Args: cobra.ExactArgs(1),
		Long: `Read a list that no node like this one makes, at an address, now and every so often.
Format is one of
  ` + strings.Join(source.Formats(), ", ") + `;
docs/sources.md tells which address each of them wants.

What is read first is a draft: "tocsin sources show NAME" has a preview, and nothing
acts before "tocsin sources approve NAME". So it is later with a run that empties, shrinks or
changes the list by more than it may. The source's word stands on a list of
its own, which never leaves this node unless you say so, and acts as far as
--belief and --most allow. Your own lists stand above it.

Some formats cannot tell what was taken back from what was left out. For them nothing
is taken back, unless --snapshot says that the file is all there is.`,
		Example: `  tocsin subscribe https://lists.example/tier0.csv --format mastodon --name tier0 --snapshot
  tocsin subscribe https://fires.example/datasets/3102b05b-55e0-4f79-9672-fa7bf8bfd7e9 --format fires --belief full`,
	}
	f := cmd.Flags()
	format := f.String("format", "", "format of the list")
	name := f.String("name", "", "name of the source (default: made from the address)")
	list := f.String("list", "", "list to read it into, for it alone (default: one of the source's name, which is made)")
	every := f.String("every", "24h", "time between two runs, at least 5m")
	belief := f.String("belief", "marginal", "how far to believe it: 0 to 120, full, partial, marginal or none")
	most := f.String("most", "", "flag, hold or reject: the most that a match of it may come to")
	credentials := f.String("credentials", "", `file on the node's machine with lines such as "basic NAME:PASSWORD", "bearer TOKEN" or "header NAME: VALUE"`)
	maxChanges := f.Uint32("max-changes", source.DefaultMaxChanges, "ask before a run that changes more")
	maxShrink := f.Uint32("max-shrink", source.DefaultMaxShrink, "ask before a run in which more percent of it go")
	labels := f.StringArray("label", nil, "label of everything that it says; may be repeated")
	columns := f.String("columns", "", "for format csv: which column is what, as in domain=host,reason=note")
	snapshot := f.Bool("snapshot", false, "what is absent was taken back, although the format does not mean that")
	required(cmd, "format")
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s := &pb.Source{
			Name: *name, Url: args[0], Format: *format, List: *list, MaxChanges: *maxChanges, MaxShrink: maxShrink,
			Credentials: *credentials, Columns: *columns, Snapshot: *snapshot,
		}
		if s.Name == "" {
			s.Name = nameOfSource(args[0])
		}
		if err := hashlist.CheckName(s.Name); err != nil {
			return a.usage("name of the source: %w: give it one with --name", err)
		}
		d, err := time.ParseDuration(*every)
		if err != nil || d < source.MinEvery || d > source.MaxEvery {
			return a.usage("every %.40q is not a time of at least 5m, such as 6h", *every)
		}
		s.Every = durationpb.New(d)
		b, err := parseBelief(*belief)
		if err != nil {
			return a.usage("%w", err)
		}
		s.Belief = &b
		if s.Most, err = parseMost(*most); err != nil {
			return a.usage("%w", err)
		}
		if s.Labels, err = checkedLabels(*labels); err != nil {
			return a.usage("%w", err)
		}
		return c.call(cmd, func(ctx context.Context, n *node) error {
			answer, err := n.sources.Subscribe(ctx, &pb.SubscribeRequest{Source: s})
			if err != nil {
				return err
			}
			if a.json {
				return a.line(describeSource(answer.GetSource()))
			}
			_, err = fmt.Fprintf(a.out, "source %s is a draft on list %s and is being read: `tocsin sources show %[1]s` shows what it would put there\n",
				s.GetName(), handle(answer.GetSource().GetList()))
			return err
		})
	}
	return cmd
}

func parseMost(s string) (pb.Verdict, error) {
	if s == "" {
		return 0, nil
	}
	v, err := hashlist.ParseVerdict(s)
	if err != nil || v == hashlist.VerdictAllow {
		return 0, fmt.Errorf("most %.40q is not flag, hold or reject", s)
	}
	return pb.Verdict(v), nil
}

// nameOfSource makes a name of an address, "" if it cannot.
func nameOfSource(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	host := strings.TrimPrefix(u.Hostname(), "www.")
	name := strings.Trim(strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || '0' <= r && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(host)), "-")
	for strings.Contains(name, "--") {
		name = strings.ReplaceAll(name, "--", "-")
	}
	return name[:min(len(name), hashlist.MaxName)]
}

type sourceLine struct {
	Name       string   `json:"name"`
	URL        string   `json:"url"`
	Format     string   `json:"format"`
	List       string   `json:"list"`
	State      string   `json:"state"`
	Every      string   `json:"every"`
	Belief     uint32   `json:"belief"`
	Most       string   `json:"most"`
	MaxChanges uint32   `json:"max_changes"`
	MaxShrink  uint32   `json:"max_shrink"`
	Labels     []string `json:"labels"`
	Snapshot   bool     `json:"snapshot"`
	Partner    bool     `json:"partner"`
	Created    *string  `json:"created"`
	Next       *string  `json:"next"`
	Tried      *string  `json:"tried"`
	Heard      *string  `json:"heard"`
	Failures   uint32   `json:"failures"`
	Trouble    string   `json:"trouble"`
	Pending    uint64   `json:"pending"`
}

func describeSource(s *pb.Source) sourceLine {
	return sourceLine{
		s.GetName(), s.GetUrl(), s.GetFormat(), s.GetList(), word(s.GetState()), s.GetEvery().AsDuration().String(), s.GetBelief(), word(s.GetMost()),
		s.GetMaxChanges(), s.GetMaxShrink(), some(s.GetLabels()), s.GetSnapshot(), s.GetPartner(), stamp(s.GetCreated()), stamp(s.GetNext()),
		stamp(s.GetTried()), stamp(s.GetHeard()), s.GetFailures(), s.GetTrouble(), s.GetPending(),
	}
}

type runLine struct {
	Source      string       `json:"source"`
	Number      uint64       `json:"run"`
	Begun       *string      `json:"begun"`
	State       string       `json:"state"`
	Rows        uint64       `json:"rows"`
	Refused     uint64       `json:"refused"`
	Before      uint64       `json:"before"`
	Added       uint64       `json:"added"`
	Changed     uint64       `json:"changed"`
	Retracted   uint64       `json:"retracted"`
	Missing     uint64       `json:"missing"`
	Kept        uint64       `json:"kept_off"`
	Why         string       `json:"why"`
	Who         string       `json:"who"`
	Decided     *string      `json:"decided"`
	Statements  uint32       `json:"statements"`
	Sample      []string     `json:"sample"`
	RefusedRows []refusedRow `json:"refused_rows"`
}

type refusedRow struct {
	Line   uint64 `json:"line"`
	Reason string `json:"reason"`
}

func describeRun(name string, r *pb.SourceRun) runLine {
	l := runLine{
		name, r.GetNumber(), stamp(r.GetBegun()), word(r.GetState()), r.GetRows(), r.GetRefused(), r.GetBefore(), r.GetAdded(), r.GetChanged(),
		r.GetRetracted(), r.GetMissing(), r.GetKept(), r.GetWhy(), r.GetWho(), stamp(r.GetDecided()), r.GetStatements(), some(r.GetSample()), []refusedRow{},
	}
	for _, f := range r.GetRefusedRows() {
		l.RefusedRows = append(l.RefusedRows, refusedRow{f.GetLine(), f.GetReason()})
	}
	return l
}

// printRun prints the report of a run.
func (a *app) printRun(name string, r *pb.SourceRun) error {
	l := describeRun(name, r)
	if a.json {
		return a.line(l)
	}
	fmt.Fprintf(a.out, "source %s, run %d: %s\n", name, l.Number, l.State)
	fmt.Fprintf(a.out, "  %s read, %d refused; %d said before: %d added, %d changed, %d retracted, %d kept off by a person here\n",
		plural(l.Rows, "row"), l.Refused, l.Before, l.Added, l.Changed, l.Retracted, l.Kept)
	if l.Why != "" {
		fmt.Fprintf(a.out, "  %s\n", printable(l.Why))
	}
	for _, s := range l.Sample {
		fmt.Fprintf(a.out, "  %s\n", printable(s))
	}
	if n := l.Added + l.Changed + l.Retracted; len(l.Sample) > 0 && uint64(len(l.Sample)) < n {
		fmt.Fprintf(a.out, "  and %d more\n", n-uint64(len(l.Sample)))
	}
	for i, f := range l.RefusedRows {
		if i == refusedShown {
			a.warn("and %d more refused rows", l.Refused-refusedShown)
			break
		}
		a.warn("line %d: %s", f.Line, printable(f.Reason))
	}
	if r.GetState() == pb.RunState_RUN_STATE_HELD {
		fmt.Fprintf(a.out, "It waits for you: `tocsin sources approve %s --run %d` does it, `tocsin sources pause %[1]s` does not.\n", name, l.Number)
	}
	return nil
}

// runTime bounds the commands that wait for a run.
const runWait = 30 * time.Minute

func (a *app) sourcesCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "sources", Short: "Keep the lists of other systems that are read", Args: cobra.NoArgs}
	cmd.AddCommand(a.sourcesListCommand(), a.sourcesShowCommand(), a.sourcesRunCommand(), a.sourcesApproveCommand(),
		a.sourcesChange("pause", "Read a source no more for the time being", `Read a source no more until "tocsin sources resume". What came of it acts on; a run
that waits for you is discarded.`, func(ctx context.Context, n *node, name string) (*pb.Source, error) {
			v, err := n.sources.PauseSource(ctx, &pb.PauseSourceRequest{Name: name})
			return v.GetSource(), err
		}),
		a.sourcesChange("resume", "Read a paused source again", "Read a paused source again, at once and then as before.", func(ctx context.Context, n *node, name string) (*pb.Source, error) {
			v, err := n.sources.ResumeSource(ctx, &pb.ResumeSourceRequest{Name: name})
			return v.GetSource(), err
		}),
		a.sourcesChange("remove", "End a source: what came of it acts no more", `Read a source no more, and let what came of it act no more. The list stays, with its history;
to subscribe again under the same name takes it up where it was.`, func(ctx context.Context, n *node, name string) (*pb.Source, error) {
			v, err := n.sources.RemoveSource(ctx, &pb.RemoveSourceRequest{Name: name})
			return v.GetSource(), err
		}),
		a.sourcesBelieveCommand(), a.sourcesHistoryCommand())
	return cmd
}

func (a *app) sourcesListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "Show the sources", Args: cobra.NoArgs,
		Long: "Show the lists of other systems that are read, or once were.\n\nWAITS has the run that waits for your approval.",
	}
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.call(cmd, func(ctx context.Context, n *node) error {
			answer, err := n.sources.ListSources(ctx, &pb.ListSourcesRequest{})
			if err != nil {
				return err
			}
			var rows [][]string
			for _, s := range answer.GetSources() {
				l := describeSource(s)
				if a.json {
					if err := a.line(l); err != nil {
						return err
					}
					continue
				}
				waits := ""
				if l.Pending != 0 {
					waits = fmt.Sprint("run ", l.Pending)
				}
				rows = append(rows, []string{l.Name, l.State, l.Format, fmt.Sprint(l.Belief), ago(s.GetHeard().AsTime(), s.Heard == nil), waits, l.Trouble})
			}
			switch {
			case a.json:
				return nil
			case len(rows) == 0:
				a.warn("no list of another system is read; `tocsin subscribe URL --format FORMAT` does it")
				return nil
			}
			return a.table([]string{"SOURCE", "STATE", "FORMAT", "BELIEF", "HEARD", "WAITS", "TROUBLE"}, rows)
		})
	}
	return cmd
}

func (a *app) sourcesShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show NAME", Short: "Show a source, and what its last run would change", Args: cobra.ExactArgs(1),
		Long: `Show a source and its last run: what it read, what it refused, and what it changed, or would
change once you approve. Changes of hashes are counted and not shown.`,
	}
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.call(cmd, func(ctx context.Context, n *node) error {
			answer, err := n.sources.GetSource(ctx, &pb.GetSourceRequest{Name: args[0]})
			if err != nil {
				return err
			}
			s, runs := answer.GetSource(), answer.GetRuns()
			l := describeSource(s)
			last := runs
			for _, r := range runs { // what waits is what people want to see
				if r.GetNumber() == s.GetPending() {
					last = []*pb.SourceRun{r}
				}
			}
			if a.json {
				if err := a.line(l); err != nil {
					return err
				}
			} else {
				rows := [][]string{
					{"source", l.Name}, {"address", l.URL}, {"format", l.Format}, {"list", handle(l.List)}, {"state", l.State},
					{"belief", fmt.Sprintf("%d of 120, %s at most", l.Belief, l.Most)}, {"read", "every " + l.Every},
					{"heard", ago(s.GetHeard().AsTime(), s.Heard == nil)}, {"next", or(l.Next, "not")},
					{"asks before", fmt.Sprintf("more than %d changes, or %d %% of it gone", l.MaxChanges, l.MaxShrink)},
				}
				if l.Partner {
					rows = append(rows, []string{"partner data", "never leaves this node"})
				}
				if l.Trouble != "" {
					rows = append(rows, []string{"trouble", l.Trouble})
				}
				if err := a.facts(rows); err != nil {
					return err
				}
			}
			if len(last) == 0 {
				return nil
			}
			return a.printRun(l.Name, last[0])
		})
	}
	return cmd
}

// facts prints names and values.
func (a *app) facts(rows [][]string) error {
	for _, r := range rows {
		if _, err := fmt.Fprintf(a.out, "%-14s%s\n", r[0], printable(r[1])); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) sourcesRunCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "run NAME", Short: "Read a source now", Args: cobra.ExactArgs(1),
		Long: "Read a source now, whether or not it is due, and print the report.\n\nExit status: 1 if it could not be read.",
	}
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.callFor(cmd, runWait, func(ctx context.Context, n *node) error {
			stream, err := n.sources.RunSource(ctx, &pb.RunSourceRequest{Name: args[0]})
			if err != nil {
				return err
			}
			p := a.progress("source "+args[0], -1, a.json)
			defer p.end()
			for {
				m, err := stream.Recv()
				if err == io.EOF {
					return nil
				} else if err != nil {
					return err
				}
				if m.GetRun() == nil {
					p.set(int64(m.GetCount()), m.GetStage())
					continue
				}
				p.clear()
				if err := a.printRun(args[0], m.GetRun()); err != nil {
					return err
				}
				if m.GetRun().GetState() == pb.RunState_RUN_STATE_FAILED {
					return fmt.Errorf("source %s could not be read", args[0])
				}
			}
		})
	}
	return cmd
}

func (a *app) sourcesApproveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "approve NAME", Short: "Let a run that waits for you take effect", Args: cobra.ExactArgs(1),
		Long: `Let the run of a source that waits take effect. What was shown is signed and acts, and nothing
else, whatever the source says by now. --run makes sure that it is the run you looked at.

Where the issuer's key is kept elsewhere, --draft prints what is to be signed, for
"tocsin sign" and "tocsin publish".`,
	}
	run := cmd.Flags().Uint64("run", 0, "the run that you looked at (default: whichever waits)")
	draft := cmd.Flags().Bool("draft", false, "print what is to be signed instead of signing it here")
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.callFor(cmd, runWait, func(ctx context.Context, n *node) error {
			stream, err := n.sources.ApproveSource(ctx, &pb.ApproveSourceRequest{Name: args[0], Run: *run, Draft: *draft})
			if err != nil {
				return err
			}
			p := a.progress("source "+args[0], -1, a.json)
			defer p.end()
			for {
				m, err := stream.Recv()
				if err == io.EOF {
					return nil
				} else if err != nil {
					return err
				}
				for _, d := range m.GetDrafts() {
					if _, err := fmt.Fprintf(a.out, "%s\n", d); err != nil {
						return err
					}
				}
				switch {
				case m.GetRun() == nil && m.GetCount() > 0:
					p.set(int64(m.GetCount()), "signed")
				case m.GetRun() != nil && *draft:
					a.warn("%s to be signed and published", plural(uint64(m.GetRun().GetStatements()), "statement"))
				case m.GetRun() != nil:
					p.clear()
					return a.printRun(args[0], m.GetRun())
				}
			}
		})
	}
	return cmd
}

func (a *app) sourcesChange(name, short, long string, change func(context.Context, *node, string) (*pb.Source, error)) *cobra.Command {
	cmd := &cobra.Command{Use: name + " NAME", Short: short, Long: long, Args: cobra.ExactArgs(1)}
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.call(cmd, func(ctx context.Context, n *node) error {
			s, err := change(ctx, n, args[0])
			if err != nil {
				return err
			}
			return a.printSource(s)
		})
	}
	return cmd
}

func (a *app) printSource(s *pb.Source) error {
	l := describeSource(s)
	if a.json {
		return a.line(l)
	}
	_, err := fmt.Fprintf(a.out, "source %s is %s, believed %d of 120, %s at most\n", l.Name, l.State, l.Belief, l.Most)
	return err
}

func (a *app) sourcesBelieveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "believe NAME BELIEF", Short: "Change how far a source is believed", Args: cobra.ExactArgs(2),
		Long: `Change how far a source is believed: 0 to 120, full (120), partial (80), marginal (40) or none. With
none, what came of it acts no more, and is still kept up to date.`,
	}
	most := cmd.Flags().String("most", "", "flag, hold or reject: the most that a match of it may come to (default: as it is)")
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		b, err := parseBelief(args[1])
		if err != nil {
			return a.usage("%w", err)
		}
		v, err := parseMost(*most)
		if err != nil {
			return a.usage("%w", err)
		}
		return c.call(cmd, func(ctx context.Context, n *node) error {
			answer, err := n.sources.BelieveSource(ctx, &pb.BelieveSourceRequest{Name: args[0], Belief: b, Most: v})
			if err != nil {
				return err
			}
			return a.printSource(answer.GetSource())
		})
	}
	return cmd
}

func (a *app) sourcesHistoryCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "history NAME", Short: "Show the last runs of a source", Args: cobra.ExactArgs(1)}
	limit := cmd.Flags().Uint32("limit", 20, "show at most so many")
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.call(cmd, func(ctx context.Context, n *node) error {
			answer, err := n.sources.GetSource(ctx, &pb.GetSourceRequest{Name: args[0], Runs: *limit})
			if err != nil {
				return err
			}
			var rows [][]string
			for _, r := range answer.GetRuns() {
				l := describeRun(args[0], r)
				if a.json {
					if err := a.line(l); err != nil {
						return err
					}
					continue
				}
				rows = append(rows, []string{
					fmt.Sprint(l.Number), or(l.Begun, ""), took(r.GetBegun(), r.GetEnded()), l.State, fmt.Sprint(l.Rows), fmt.Sprint(l.Refused),
					fmt.Sprint(l.Added), fmt.Sprint(l.Changed), fmt.Sprint(l.Retracted), l.Who, l.Why,
				})
			}
			if a.json {
				return nil
			}
			return a.table([]string{"RUN", "BEGUN", "TOOK", "STATE", "ROWS", "REFUSED", "ADDED", "CHANGED", "RETRACTED", "WHO", "WHY"}, rows)
		})
	}
	return cmd
}

func took(from, to *timestamppb.Timestamp) string {
	if from == nil || to == nil {
		return ""
	}
	return to.AsTime().Sub(from.AsTime()).Round(time.Millisecond).String()
}
