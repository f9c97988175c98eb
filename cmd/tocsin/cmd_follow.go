package main

import (
	"context"
	"fmt"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/spf13/cobra"

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
}

func describeFollow(f *pb.Follow) followLine {
	return followLine{
		f.GetList(), f.GetName(), f.GetSummary(), some(f.GetIssuers()), word(f.GetState()), word(f.GetMost()), stamp(f.GetAsked()),
		stamp(f.GetAnswered()), f.GetTold(), f.GetPosition(), f.GetHeadSize(), f.GetSkipped(), stamp(f.GetChecked()), f.GetTrouble(),
		f.GetByTrust(), f.GetTrustOnly(),
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
	cmd.MarkFlagsMutuallyExclusive("most", "anew")
	cmd.MarkFlagsMutuallyExclusive("by-trust", "anew")
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			if *most != "" || *anew {
				return a.usage("which list? (want @LIST@HOST or an address)")
			}
			return a.follows(cmd, c)
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
		return c.call(cmd, func(ctx context.Context, n *node) error {
			if *anew {
				answer, err := n.peers.FollowAnew(ctx, &pb.FollowAnewRequest{List: args[0]})
				if err != nil {
					return err
				}
				return a.printFollow(ctx, n, answer.GetFollow())
			}
			answer, err := n.peers.Follow(ctx, request)
			if err != nil {
				return err
			}
			return a.printFollow(ctx, n, answer.GetFollow())
		})
	}
	return cmd
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

STATEMENTS has those that are here and those that the publisher has shown.`,
	}
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.follows(cmd, c) }
	return cmd
}

func (a *app) follows(cmd *cobra.Command, c *client) error {
	return c.call(cmd, func(ctx context.Context, n *node) error {
		answer, err := n.peers.ListFollows(ctx, &pb.ListFollowsRequest{})
		if err != nil {
			return err
		}
		var rows [][]string
		for _, f := range answer.GetFollows() {
			l := describeFollow(f)
			if a.json {
				if err := a.line(l); err != nil {
					return err
				}
				continue
			}
			if l.TrustOnly {
				l.Most = "(trust)"
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
