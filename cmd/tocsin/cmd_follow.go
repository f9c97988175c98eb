package main

import (
	"context"
	"fmt"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

type followLine struct {
	List     string   `json:"list"`
	Name     string   `json:"name"`
	Summary  string   `json:"summary"`
	Issuers  []string `json:"issuers"`
	State    string   `json:"state"`
	Most     string   `json:"most"`
	Asked    *string  `json:"asked"`
	Answered *string  `json:"answered"`
	Told     bool     `json:"told"`
	Position uint64   `json:"position"`
	HeadSize uint64   `json:"head_size"`
	Skipped  uint64   `json:"skipped"`
	Checked  *string  `json:"checked"`
	Trouble  string   `json:"trouble"`
	// ByTrust and TrustOnly say what of it counts.
	ByTrust   bool `json:"by_trust"`
	TrustOnly bool `json:"trust_only"`
	// Headless: statements came, and never a signed head.
	Headless bool `json:"headless"`
	// Quarantined is how many of its statements wait for a decision; of all lists together at most 1000 are counted.
	Quarantined uint64 `json:"quarantined"`
}

func describeFollow(f *pb.Follow) followLine {
	return followLine{
		f.GetList(), f.GetName(), f.GetSummary(), some(f.GetIssuers()), word(f.GetState()), word(f.GetMost()), stamp(f.GetAsked()),
		stamp(f.GetAnswered()), f.GetTold(), f.GetPosition(), f.GetHeadSize(), f.GetSkipped(), stamp(f.GetChecked()), f.GetTrouble(),
		f.GetByTrust(), f.GetTrustOnly(), f.GetHeadless(), 0,
	}
}

// handle is how people write a list of another node: NAME@HOST if it can be, else
// its address. A list's title may be anything, so it has no say.
func handle(iri string) string {
	u, err := url.Parse(iri)
	if err != nil || hashlist.CheckName(path.Base(u.Path)) != nil {
		return iri
	}
	return path.Base(u.Path) + "@" + u.Host
}

// hostOf is the host of an address, with its port.
func hostOf(iri string) string {
	u, err := url.Parse(iri)
	if err != nil || u.Host == "" {
		return iri
	}
	return u.Host
}

func (a *app) followCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "follow [ADDRESS]", Short: "Follow a list of another node", Args: cobra.MaximumNArgs(1),
		Long: `Ask to follow a list of another node, named @LIST@HOST or by its address. Its
publisher is asked until it answers; a list that is not public waits for its admin.
From then on what is on the list acts here, and what is added to it arrives within
a second. Look at it first with "tocsin inspect".

--most bounds what a match of the list may come to here: flag lets it through and
marks it, hold keeps it for a person, reject refuses it. Without it the policy of
config.toml decides alone. For a list that is followed already, --most changes that.

--by-trust says that whoever writes to the list is believed only as far as you, or
those you vouch for, vouch for them ("tocsin trust"), and not because you follow it.

What the list would have refused, held and flagged of the uploads that the node remembers
is told first, as far as its hashes are here; if that is more than is expected (flood in
config.toml), nothing changes until you say --yes. What comes later is compared before it
acts ("tocsin quarantine"). --preview tells it and follows nothing.

--anew takes the list's whole history over once more. It is the way out when its
publisher had to go back to a backup and the list is marked as diverged: ask them
first, for a publisher who shows two histories looks just the same.

Without an address, the lists that are followed are shown, as by "tocsin follows".`,
		Example: `  tocsin follow @spam@hashes.example
  tocsin follow @new@hashes.example --most hold`,
	}
	most := cmd.Flags().String("most", "", "flag, hold or reject: the most that a match of the list may come to")
	anew := cmd.Flags().Bool("anew", false, "take over the history of a followed list once more")
	byTrust := cmd.Flags().Bool("by-trust", false, "believe its issuers only as far as they are vouched for")
	preview := cmd.Flags().Bool("preview", false, "tell what it would have done to the recent uploads, and follow nothing")
	yes := cmd.Flags().Bool("yes", false, "also if it would have refused more than is expected")
	cmd.MarkFlagsMutuallyExclusive("most", "anew")
	cmd.MarkFlagsMutuallyExclusive("preview", "anew")
	cmd.MarkFlagsMutuallyExclusive("by-trust", "anew")
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			if *most != "" || *anew {
				return a.usage("which list? (want @LIST@HOST or an address)")
			}
			return a.follows(cmd, c, *preview)
		}
		request := &pb.FollowRequest{Address: args[0]}
		if *most != "" {
			v, err := hashlist.ParseVerdict(*most)
			if err != nil || v == hashlist.VerdictAllow {
				return a.usage("most %.40q is not flag, hold or reject", *most)
			}
			request.Most = pb.Verdict(v)
		}
		if cmd.Flags().Changed("by-trust") {
			request.ByTrust = byTrust
		}
		if !strings.ContainsAny(args[0], "@/") {
			return a.usage("%.80q is neither @LIST@HOST nor an address", args[0])
		}
		return c.callFor(cmd, verifyTime, func(ctx context.Context, n *node) error {
			if *anew {
				answer, err := n.peers.FollowAnew(ctx, &pb.FollowAnewRequest{List: args[0]})
				if err != nil {
					return err
				}
				return a.printFollow(ctx, n, answer.GetFollow())
			}
			suspicious := a.foreseeList(ctx, n, args[0], request.GetMost())
			switch {
			case *preview:
				return nil
			case suspicious && !*yes:
				return fmt.Errorf("that is more than is expected: look at `tocsin window preview %s`, and add --yes if it is right", printable(args[0]))
			}
			answer, err := n.peers.Follow(ctx, request)
			if err != nil {
				return err
			}
			if suspicious {
				if err := letAct(ctx, n, answer.GetFollow().GetList(), "followed with --yes"); err != nil {
					return err
				}
			}
			return a.printFollow(ctx, n, answer.GetFollow())
		})
	}
	return cmd
}

// foreseeList tells what a list would do to the uploads of the recent window, or that it cannot be told yet. It
// reports whether that is more than is expected.
func (a *app) foreseeList(ctx context.Context, n *node, list string, most pb.Verdict) (suspicious bool) {
	p, err := n.window.Preview(ctx, &pb.PreviewRequest{List: list, Most: most})
	switch {
	case status.Code(err) == codes.FailedPrecondition:
		a.warn("what it would do to the recent uploads is not known: %v", plain(err))
	case err != nil || p.GetHashes() == 0:
		a.warn("what it would do to the recent uploads is not known yet: none of its hashes are here. Each is compared before it acts, and waits in `tocsin quarantine list` if too many match; `tocsin follows --preview` shows the figures once they are here")
	default:
		a.warn("with the %s of it that are here, list %s would have refused %d of the last %d uploads, held %d and flagged %d",
			plural(p.GetHashes(), "hash"), printable(list), p.GetRejected(), p.GetUploads(), p.GetHeld(), p.GetFlagged())
	}
	return p.GetSuspicious()
}

// letAct takes what stands on a list out of quarantine, after a person has said that it is right.
func letAct(ctx context.Context, n *node, list, why string) error {
	_, err := n.window.DecideQuarantine(ctx, &pb.DecideQuarantineRequest{
		Subject: list, State: pb.QuarantineState_QUARANTINE_STATE_RELEASED, Why: why,
	})
	if status.Code(err) == codes.NotFound { // nothing of it was held
		return nil
	}
	return err
}

// printFollow tells how far following a list is, and what happens next.
func (a *app) printFollow(ctx context.Context, n *node, f *pb.Follow) error {
	l := describeFollow(f)
	if a.json {
		return a.line(l)
	}
	name := handle(l.List)
	var text string
	switch f.GetState() {
	case pb.FollowState_FOLLOW_STATE_ASKED:
		text = fmt.Sprintf("asked %s for list %s", hostOf(l.List), name)
		if s, err := n.admin.GetStatus(ctx, &pb.GetStatusRequest{}); err == nil {
			text += fmt.Sprintf("\nUnless it is public, its admin has to approve that: `tocsin followers approve %s` there.", hostOf(s.GetOrigin()))
		}
		text += "\n`tocsin follows` shows when that has happened."
	case pb.FollowState_FOLLOW_STATE_ACCEPTED:
		text = fmt.Sprintf("following list %s: %d of %s are here", name, l.Position, plural(l.HeadSize, "statement"))
	case pb.FollowState_FOLLOW_STATE_ENDED:
		text = fmt.Sprintf("list %s is not followed any more: what came of it stays in the log, and does not act", name)
	default:
		text = fmt.Sprintf("list %s: %s", name, l.State)
	}
	if f.GetState() != pb.FollowState_FOLLOW_STATE_ENDED && f.GetMost() != pb.Verdict_VERDICT_REJECT {
		text += fmt.Sprintf("\nIts matches come to %s at most.", l.Most)
	}
	if l.ByTrust {
		text += "\nIts issuers are believed only as far as they are vouched for: see `tocsin trust`."
	}
	if l.Trouble != "" {
		text += "\nTrouble: " + printable(l.Trouble)
	}
	_, err := fmt.Fprintln(a.out, text)
	return err
}

func (a *app) unfollowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "unfollow LIST", Short: "Follow a list of another node no longer", Args: cobra.ExactArgs(1),
		Long: `Follow a list no longer. What came of it stays in the log, and does not act any
more. The publisher is told in the background.`,
	}
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkRef(args[0]); err != nil {
			return a.usage("%w", err)
		}
		return c.call(cmd, func(ctx context.Context, n *node) error {
			answer, err := n.peers.Unfollow(ctx, &pb.UnfollowRequest{List: args[0]})
			if err != nil {
				return err
			}
			return a.printFollow(ctx, n, answer.GetFollow())
		})
	}
	return cmd
}

func (a *app) followsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "follows", Short: "Show the lists of other nodes that are followed", Args: cobra.NoArgs,
		Long: `Show the lists of other nodes that this one follows, asked to follow, or once did.

STATEMENTS has those that are here and those that the publisher has shown. With --preview
it is told what each would have done to the uploads that the node remembers.`,
	}
	preview := cmd.Flags().Bool("preview", false, "tell what each would have done to the recent uploads")
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.follows(cmd, c, *preview) }
	return cmd
}

func (a *app) follows(cmd *cobra.Command, c *client, preview bool) error {
	return c.callFor(cmd, verifyTime, func(ctx context.Context, n *node) error {
		answer, err := n.peers.ListFollows(ctx, &pb.ListFollowsRequest{})
		if err != nil {
			return err
		}
		waiting := map[string]uint64{}
		if held, err := n.window.ListQuarantine(ctx, &pb.ListQuarantineRequest{}); err == nil { // else nothing is remembered
			for _, q := range held.GetStatements() {
				waiting[q.GetList()]++
			}
		}
		var rows [][]string
		for _, f := range answer.GetFollows() {
			l := describeFollow(f)
			l.Quarantined = waiting[l.List]
			if preview && f.GetState() != pb.FollowState_FOLLOW_STATE_ENDED {
				a.foreseeList(ctx, n, handle(l.List), f.GetMost())
			}
			if a.json {
				if err := a.line(l); err != nil {
					return err
				}
				continue
			}
			if l.Headless {
				l.Trouble = strings.TrimPrefix(l.Trouble+"; shows no signed heads: it could show others something else", "; ")
			}
			if l.Quarantined > 0 {
				l.Trouble = strings.TrimPrefix(l.Trouble+"; "+plural(l.Quarantined, "statement")+" in `tocsin quarantine list`", "; ")
			}
			switch {
			case l.TrustOnly:
				l.Most = "(trust)"
			case l.ByTrust:
				l.Most += ", by trust"
			}
			rows = append(rows, []string{handle(l.List), l.State, l.Most, fmt.Sprintf("%d/%d", l.Position, l.HeadSize), ago(f.GetChecked().AsTime(), f.Checked == nil), l.Trouble})
		}
		switch {
		case a.json:
			return nil
		case len(rows) == 0:
			a.warn("no list of another node is followed; `tocsin follow @LIST@HOST` does it")
			return nil
		}
		return a.table([]string{"LIST", "STATE", "MOST", "STATEMENTS", "ASKED", "TROUBLE"}, rows)
	})
}

// ago tells how long ago something was.
func ago(t time.Time, never bool) string {
	if never {
		return "never"
	}
	return max(0, time.Since(t)).Round(time.Second).String() + " ago"
}
