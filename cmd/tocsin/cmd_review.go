package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

type decisionLine struct {
	Who        string   `json:"who"`
	When       *string  `json:"when"`
	What       string   `json:"what"`
	Why        string   `json:"why"`
	Statements []string `json:"statement_ids"`
}

type reviewLine struct {
	Seq       uint64         `json:"seq"`
	ID        string         `json:"id"`
	Kind      string         `json:"kind"`
	State     string         `json:"state"`
	Asked     *string        `json:"asked"`
	Last      *string        `json:"last"`
	Count     uint64         `json:"count"`
	Deadline  *string        `json:"deadline"`
	Overdue   bool           `json:"overdue"`
	Verdict   string         `json:"verdict_id"`
	Statement string         `json:"statement_id"`
	List      string         `json:"list"`
	Issuer    string         `json:"issuer"`
	URL       string         `json:"url"`
	Alias     string         `json:"alias"`
	Post      string         `json:"post"`
	Actor     string         `json:"actor"`
	Distance  uint32         `json:"distance"`
	Algorithm string         `json:"algorithm"`
	Summary   string         `json:"summary"`
	Decisions []decisionLine `json:"decisions"`
	Choices   []string       `json:"choices"`
	TwoPerson []string       `json:"two_person"`
}

func describeReview(r *pb.Review) reviewLine {
	v := reviewLine{
		Seq: r.GetSeq(), ID: r.GetId(), Kind: hashlist.ReviewKind(r.GetKind()).String(), State: hashlist.ReviewState(r.GetState()).String(),
		Asked: stamp(r.GetAsked()), Last: stamp(r.GetLast()), Count: r.GetCount(), Deadline: stamp(r.GetDeadline()), Overdue: r.GetOverdue(),
		Verdict: r.GetVerdictId(), Statement: r.GetStatementId(), List: r.GetList(), Issuer: r.GetIssuer(), URL: r.GetUrl(), Alias: r.GetAlias(),
		Post: r.GetPost(), Actor: r.GetActor(), Distance: r.GetDistance(), Algorithm: r.GetAlgorithm(), Summary: r.GetSummary(),
		Decisions: []decisionLine{}, Choices: choiceNames(r.GetChoices()), TwoPerson: choiceNames(r.GetTwoPerson()),
	}
	for _, d := range r.GetDecisions() {
		v.Decisions = append(v.Decisions, decisionLine{d.GetWho(), stamp(d.GetWhen()), hashlist.ReviewChoice(d.GetWhat()).String(), d.GetWhy(), some(d.GetStatementIds())})
	}
	return v
}

func choiceNames(all []pb.ReviewChoice) []string {
	names := []string{}
	for _, c := range all {
		names = append(names, hashlist.ReviewChoice(c).String())
	}
	return names
}

// choicesHelp says what can be decided about what.
const choicesHelp = `What can be decided depends on the kind:

  held      an upload was held. confirm (the statement that it matched is right), dispute (it is
            wrong), ban or allow (this picture), ignore (the statement, here), release or keep
            (this upload), dismiss
  hit       something that was accepted is listed now. The same
  appeal    somebody objects to a verdict. The same
  dispute   another issuer finds our statement wrong. uphold (say once more that it is right),
            withdraw (retract it), dismiss (say nothing)
  quarantine  a statement or list would match more than expected. release (let it act), keep
            (it does not), dismiss. Of a circuit breaker: release (close it)
  key       an issuer has another key. approve, keep (the old one), dismiss
  source, act   a run or an act waits. approve, dismiss
  preserve  something that was reported must be kept. keep, release, dismiss
  proposal  one person wants something done that takes two. approve, dismiss

confirm, dispute, ban, allow, ignore, uphold and withdraw make signed statements; every
decision goes into the audit log. ban and allow go on a local list (review.decisions).`

func (a *app) reviewCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "review", Short: "Show what waits for a person's decision, and decide",
		Long: `Show and decide what waits for a person: held uploads, copies that came before a ban,
disputes, appeals, quarantined statements, changed keys, and what takes two persons. It
never holds a picture: only facts, distances, and who said what.

` + choicesHelp,
	}
	cmd.AddCommand(a.reviewListCommand(), a.reviewShowCommand(), a.reviewDecideCommand(), a.reviewWatchCommand())
	return cmd
}

// kindFlag reads kinds of reviews.
func kindFlag(names []string) ([]pb.ReviewKind, error) {
	var all []pb.ReviewKind
	for _, name := range names {
		k, err := hashlist.ParseReviewKind(name)
		if err != nil {
			return nil, err
		}
		all = append(all, pb.ReviewKind(k))
	}
	return all, nil
}

const kindUsage = "only this kind: held, hit, dispute, quarantine, key, source, act, preserve, appeal or proposal; may be repeated"

func (a *app) reviewListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "Show what waits for a decision", Args: cobra.NoArgs,
		Long: `Show what waits for a decision, the oldest first. With --all, what was decided, too.
BY is the time by which somebody should decide, with ! if it has passed; nothing is decided then.
On a terminal, SUMMARY is cut where a line ends; "tocsin review show ID" has all of it.`,
		Example: `  tocsin review list
  tocsin review list --kind dispute --kind appeal
  tocsin review list --overdue`,
	}
	kinds := cmd.Flags().StringSlice("kind", nil, kindUsage)
	all := cmd.Flags().Bool("all", false, "also what was decided, or has settled itself")
	overdue := cmd.Flags().Bool("overdue", false, "only what has waited longer than it should")
	limit := cmd.Flags().Uint32("limit", 200, "show at most so many")
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		r := &pb.ListReviewsRequest{Overdue: *overdue}
		var err error
		if r.Kinds, err = kindFlag(*kinds); err != nil {
			return a.usage("%w", err)
		}
		if *all {
			for s := hashlist.ReviewOpen; s <= hashlist.ReviewClosed; s++ {
				r.States = append(r.States, pb.ReviewState(s))
			}
		}
		return c.call(cmd, func(ctx context.Context, n *node) error {
			var rows [][]string
			shown := uint32(0)
			for {
				r.PageSize = min(1000, *limit-shown)
				if r.PageSize == 0 {
					a.warn("there is more: --limit shows it")
					break
				}
				answer, err := n.reviews.ListReviews(ctx, r)
				if err != nil {
					return err
				}
				for _, v := range answer.GetReviews() {
					shown++
					l := describeReview(v)
					if a.json {
						if err := a.line(l); err != nil {
							return err
						}
						continue
					}
					by := or(l.Deadline, "")
					if l.Overdue {
						by += " !"
					}
					rows = append(rows, []string{l.ID, l.Kind, l.State, or(l.Asked, ""), fmt.Sprint(l.Count), by, strings.Join(strings.Fields(l.Summary), " ")})
				}
				if r.PageToken = answer.GetNextPageToken(); r.PageToken == "" {
					break
				}
			}
			switch {
			case a.json:
				return nil
			case len(rows) == 0:
				a.warn("nothing waits for a decision")
				return nil
			}
			header := []string{"ID", "KIND", "STATE", "SINCE", "TIMES", "BY", "SUMMARY"}
			fit(header, rows, a.width())
			return a.table(header, rows)
		})
	}
	return cmd
}

// short is the beginning of a text, on one line.
func short(text string, most int) string {
	text = strings.Join(strings.Fields(text), " ")
	if r := []rune(text); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return text
}

func (a *app) reviewShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show ID", Short: "Show all about one thing that waits", Args: cobra.ExactArgs(1),
		Long: "Show all that is known about one thing that waits for a decision, and what can be decided.",
	}
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.call(cmd, func(ctx context.Context, n *node) error {
			answer, err := n.reviews.GetReview(ctx, &pb.GetReviewRequest{Id: args[0]})
			if err != nil {
				return err
			}
			return a.printReview(answer.GetReview())
		})
	}
	return cmd
}

// printReview prints all about an item.
func (a *app) printReview(r *pb.Review) error {
	l := describeReview(r)
	if a.json {
		return a.line(l)
	}
	deadline := or(l.Deadline, "")
	if l.Overdue {
		deadline += ", which has passed"
	}
	near := ""
	if l.Algorithm != "" {
		near = fmt.Sprintf("%d bits by %s", l.Distance, l.Algorithm)
	}
	for _, f := range [][2]string{
		{"id", l.ID}, {"kind", l.Kind}, {"state", l.State}, {"asked", or(l.Asked, "")}, {"last", or(l.Last, "")}, {"times", fmt.Sprint(l.Count)},
		{"decide by", deadline}, {"verdict", l.Verdict}, {"statement", l.Statement}, {"list", l.List}, {"issuer", l.Issuer}, {"distance", near},
		{"url", l.URL}, {"alias", l.Alias}, {"post", l.Post}, {"actor", l.Actor}, {"what", l.Summary},
	} {
		if f[1] == "" {
			continue
		}
		for i, line := range strings.Split(f[1], "\n") {
			if i > 0 {
				f[0] = ""
			}
			if _, err := fmt.Fprintf(a.out, "%-10s %s\n", f[0], printable(line)); err != nil {
				return err
			}
		}
	}
	for _, d := range l.Decisions {
		fmt.Fprintf(a.out, "%-10s %s: %s, %s\n", "decision", or(d.When, ""), printable(d.Who), d.What)
		if d.Why != "" {
			fmt.Fprintf(a.out, "%-10s %s\n", "", printable(d.Why))
		}
		for _, s := range d.Statements {
			fmt.Fprintf(a.out, "%-10s statement %s\n", "", printable(s))
		}
	}
	if len(l.Choices) > 0 {
		fmt.Fprintf(a.out, "%-10s %s\n", "choices", strings.Join(l.Choices, ", "))
	}
	if len(l.TwoPerson) > 0 {
		fmt.Fprintf(a.out, "%-10s %s\n", "two agree", "on "+strings.Join(l.TwoPerson, ", "))
	}
	return nil
}

func (a *app) reviewDecideCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "decide ID DECISION", Short: "Decide what waits for a decision", Args: cobra.ExactArgs(2),
		Long: `Decide what waits. "tocsin review show ID" shows what can be decided about it.

` + choicesHelp + `

Where two persons have to agree (review.two_person), the first decision is a proposal, and
the second, with a token of another name, makes it count. A second one that differs opens
it again. All who use the socket of the node count as one person.

Allow and ignore suppress what others listed, so they take a token with scope admin, as
decisions on keys, sources, quarantine and acts do; submit is enough for the rest.`,
		Example: `  tocsin review decide held-abc... allow --why "a painting that hangs in a museum"
  tocsin review decide dispute-abc... withdraw --why "it was the wrong file" --who "Alice, on duty"`,
	}
	why := cmd.Flags().String("why", "", "why; needed for dispute, ban, allow, ignore and withdraw")
	who := cmd.Flags().String("who", "", "what you call yourself; noted beside the name of the token")
	labels := cmd.Flags().StringSlice("label", nil, "with ban: label of the statement; may be repeated")
	expires := cmd.Flags().String("expires", "", `with ban, allow and ignore: when it lapses, as "30d" or 2030-12-31`)
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		choice, err := hashlist.ParseReviewChoice(args[1])
		if err != nil {
			return a.usage("%w (see `tocsin review decide --help`)", err)
		}
		also, err := checkedLabels(*labels)
		if err != nil {
			return a.usage("%w", err)
		}
		until, err := parseExpiry(*expires, time.Now())
		if err != nil {
			return a.usage("%w", err)
		}
		return c.call(cmd, func(ctx context.Context, n *node) error {
			answer, err := n.reviews.DecideReview(ctx, &pb.DecideReviewRequest{
				Id: args[0], Choice: pb.ReviewChoice(choice), Why: *why, Who: *who, Labels: also, Expires: until,
			})
			if err != nil {
				return err
			}
			r := answer.GetReview()
			if a.json {
				return a.printReview(r)
			}
			switch r.GetState() {
			case pb.ReviewState_REVIEW_STATE_PROPOSED:
				_, err = fmt.Fprintf(a.out, "%s: %v is proposed: a second person has to agree\n", r.GetId(), choice)
			case pb.ReviewState_REVIEW_STATE_OPEN:
				_, err = fmt.Fprintf(a.out, "%s: two persons differ, so it is open again\n", r.GetId())
			default:
				_, err = fmt.Fprintf(a.out, "%s: %v\n", r.GetId(), choice)
				for _, s := range r.GetDecisions()[len(r.GetDecisions())-1].GetStatementIds() {
					fmt.Fprintf(a.out, "  statement %s\n", printable(s))
				}
			}
			return err
		})
	}
	return cmd
}

func (a *app) reviewWatchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "watch", Short: "Follow what comes to wait for a decision", Args: cobra.NoArgs,
		Long: "Print what waits for a decision as it comes, until interrupted; with --json one object a line.",
	}
	kinds := cmd.Flags().StringSlice("kind", nil, kindUsage)
	after := cmd.Flags().Uint64("after", 0, "begin behind this place (seq)")
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		wanted, err := kindFlag(*kinds)
		if err != nil {
			return a.usage("%w", err)
		}
		n, err := c.dial(cmd.Context())
		if err != nil {
			return err
		}
		defer n.Close()
		stream, err := n.reviews.WatchReviews(cmd.Context(), &pb.WatchReviewsRequest{After: *after, Kinds: wanted})
		if err != nil {
			return err
		}
		for {
			m, err := stream.Recv()
			if err != nil {
				if cmd.Context().Err() != nil {
					return nil // it was told to stop
				}
				return err
			}
			l := describeReview(m.GetReview())
			if a.json {
				err = a.line(l)
			} else {
				_, err = fmt.Fprintf(a.out, "%s  %-10s %s  %s\n", or(l.Asked, ""), l.Kind, l.ID, printable(short(l.Summary, 120)))
			}
			if err != nil {
				return err
			}
		}
	}
	return cmd
}
