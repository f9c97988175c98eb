package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

type followerLine struct {
	Actor    string  `json:"actor"`
	List     string  `json:"list"`
	ListName string  `json:"list_name"`
	State    string  `json:"state"`
	Asked    *string `json:"asked"`
	Decided  *string `json:"decided"`
	Told     bool    `json:"told"`
	Position uint64  `json:"position"`
	Size     uint64  `json:"size"`
}

func describeFollower(f *pb.Follower) followerLine {
	return followerLine{
		f.GetActor(), f.GetList(), f.GetListName(), word(f.GetState()), stamp(f.GetAsked()), stamp(f.GetDecided()), f.GetTold(),
		f.GetPosition(), f.GetSize(),
	}
}

func (a *app) followersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "followers [LIST]", Short: "Show who follows this node's lists, and decide who may", Args: cobra.MaximumNArgs(1),
		Long: `Show who follows the lists of this node, or one of them, who asks to, and who
once did. Whoever asks for a list that is not public waits until they are approved.

Anybody can ask under any name; what is proved is only the host. Ask its admin
on another way whether it was them. "tocsin inspect ADDRESS" shows who it is.

STATEMENTS has those that were delivered and those that are on the list.`,
		Example: `  tocsin followers
  tocsin followers approve other.example
  tocsin followers remove https://other.example/actor --list refused`,
	}
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		request := &pb.ListFollowersRequest{}
		if len(args) > 0 {
			if err := checkRef(args[0]); err != nil {
				return a.usage("%w", err)
			}
			request.List = args[0]
		}
		return c.call(cmd, func(ctx context.Context, n *node) error {
			answer, err := n.peers.ListFollowers(ctx, request)
			if err != nil {
				return err
			}
			var rows [][]string
			waiting := ""
			for _, f := range answer.GetFollowers() {
				l := describeFollower(f)
				if a.json {
					if err := a.line(l); err != nil {
						return err
					}
					continue
				}
				if f.GetState() == pb.FollowerState_FOLLOWER_STATE_ASKED {
					waiting = l.Actor
				}
				rows = append(rows, []string{l.Actor, l.ListName, l.State, or(l.Asked, ""), or(l.Decided, ""), fmt.Sprintf("%d/%d", l.Position, l.Size)})
			}
			switch {
			case a.json:
				return nil
			case len(rows) == 0:
				a.warn("nobody follows or asks to")
				return nil
			}
			if err := a.table([]string{"FOLLOWER", "LIST", "STATE", "ASKED", "DECIDED", "STATEMENTS"}, rows); err != nil {
				return err
			}
			if waiting != "" {
				a.warn("to let one who waits read the list: `tocsin followers approve %s`", printable(waiting))
			}
			return nil
		})
	}
	cmd.AddCommand(
		a.decideCommand(pb.Decision_DECISION_APPROVE, "Let a follower who asked read a list",
			`Let a follower read the list they asked for. From now on all that is on it, also what
is added later, is delivered to them: it cannot be taken back from them.`),
		a.decideCommand(pb.Decision_DECISION_REJECT, "Refuse a follower who asked",
			"Refuse a follower who asked for a list."),
		a.decideCommand(pb.Decision_DECISION_REMOVE, "Remove a follower who was approved",
			"Deliver nothing more to a follower who was approved, and answer nothing more to\nthem. What they have, they keep."),
	)
	return cmd
}

func (a *app) decideCommand(decision pb.Decision, short, long string) *cobra.Command {
	name := word(decision)
	cmd := &cobra.Command{
		Use: name + " FOLLOWER", Short: short, Args: cobra.ExactArgs(1),
		Long: long + `

FOLLOWER is an address, @NAME@HOST, or only the host, as "tocsin followers" shows
them. --list may be left out if they are in question for one list only.`,
		Example: "  tocsin followers " + name + " other.example --list refused",
	}
	list := cmd.Flags().String("list", "", "name of the list")
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *list != "" {
			if err := checkRef(*list); err != nil {
				return a.usage("%w", err)
			}
		}
		return c.call(cmd, func(ctx context.Context, n *node) error {
			answer, err := n.peers.DecideFollower(ctx, &pb.DecideFollowerRequest{List: *list, Follower: args[0], Decision: decision})
			if err != nil {
				return err
			}
			l := describeFollower(answer.GetFollower())
			if a.json {
				return a.line(l)
			}
			text := map[pb.Decision]string{
				pb.Decision_DECISION_APPROVE: "%s may read list %s now: it is told, and fetches what is on it",
				pb.Decision_DECISION_REJECT:  "%s may not read list %s, and is told so",
				pb.Decision_DECISION_REMOVE:  "%s gets nothing more of list %s, and is told so",
			}[decision]
			_, err = fmt.Fprintf(a.out, text+"\n", printable(l.Actor), printable(l.ListName))
			return err
		})
	}
	return cmd
}

type peerLine struct {
	Origin    string  `json:"origin"`
	Follows   uint32  `json:"follows"`
	Followers uint32  `json:"followers"`
	State     string  `json:"state"`
	Failing   *string `json:"failing"`
	Failures  uint32  `json:"failures"`
	Next      *string `json:"next"`
	Trouble   string  `json:"trouble"`
	Scheme    string  `json:"scheme"`
	Heard     *string `json:"heard"`
}

func (a *app) peersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "peers", Short: "Show the servers this node has to do with", Args: cobra.NoArgs,
		Long: `Show the servers whose lists this node follows, or that follow its own. STATE is
well, failing while nothing can be delivered and it is tried again, or retired when
it has been given up until the server is heard of again.`,
	}
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.call(cmd, func(ctx context.Context, n *node) error {
			answer, err := n.peers.ListPeers(ctx, &pb.ListPeersRequest{})
			if err != nil {
				return err
			}
			var rows [][]string
			for _, p := range answer.GetPeers() {
				l := peerLine{
					p.GetOrigin(), p.GetFollows(), p.GetFollowers(), "well", stamp(p.GetFailing()), p.GetFailures(), stamp(p.GetNext()),
					p.GetTrouble(), p.GetScheme(), stamp(p.GetHeard()),
				}
				if p.GetRetired() {
					l.State = "retired"
				} else if l.Failing != nil {
					l.State = "failing"
				}
				if a.json {
					if err := a.line(l); err != nil {
						return err
					}
					continue
				}
				rows = append(rows, []string{
					l.Origin, fmt.Sprint(l.Follows), fmt.Sprint(l.Followers), l.State, or(l.Failing, ""), or(l.Next, ""),
					ago(p.GetHeard().AsTime(), p.Heard == nil), l.Trouble,
				})
			}
			switch {
			case a.json:
				return nil
			case len(rows) == 0:
				a.warn("this node has to do with no other yet")
				return nil
			}
			return a.table([]string{"SERVER", "FOLLOWS", "FOLLOWERS", "STATE", "SINCE", "NEXT", "HEARD", "TROUBLE"}, rows)
		})
	}
	return cmd
}

type outboxLine struct {
	List      string `json:"list"`
	Name      string `json:"name"`
	Audience  string `json:"audience"`
	Size      uint64 `json:"size"`
	Root      string `json:"root"`
	Head      string `json:"head"`
	Followers uint32 `json:"followers"`
	Waiting   uint32 `json:"waiting"`
	Behind    uint32 `json:"behind"`
}

func (a *app) outboxCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "outbox [LIST]", Short: "Show this node's lists as others see them", Args: cobra.MaximumNArgs(1),
		Long: `Show the lists of this node that others may read: how many statements each has,
who follows, and how many of those are still to get something. Of one list its
signed head is shown too: whoever has the same head has the same list.`,
	}
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		request := &pb.GetOutboxRequest{}
		if len(args) > 0 {
			if err := checkRef(args[0]); err != nil {
				return a.usage("%w", err)
			}
			request.List = args[0]
		}
		return c.call(cmd, func(ctx context.Context, n *node) error {
			answer, err := n.peers.GetOutbox(ctx, request)
			if err != nil {
				return err
			}
			var rows [][]string
			var head string
			for _, o := range answer.GetLists() {
				l := outboxLine{
					o.GetList(), o.GetName(), word(o.GetAudience()), o.GetSize(), fmt.Sprintf("%x", o.GetRoot()), o.GetHead(),
					o.GetFollowers(), o.GetWaiting(), o.GetBehind(),
				}
				if a.json {
					if err := a.line(l); err != nil {
						return err
					}
					continue
				}
				head = l.Head
				rows = append(rows, []string{
					l.Name, "@" + handle(l.List), l.Audience, fmt.Sprint(l.Size), fmt.Sprint(l.Followers), fmt.Sprint(l.Waiting), fmt.Sprint(l.Behind),
				})
			}
			switch {
			case a.json:
				return nil
			case len(rows) == 0:
				a.warn("there is no list that others may read; make one with `tocsin list create NAME`")
				return nil
			}
			if err := a.table([]string{"NAME", "FOLLOWED AS", "AUDIENCE", "STATEMENTS", "FOLLOWERS", "WAITING", "BEHIND"}, rows); err != nil {
				return err
			}
			if len(args) == 0 {
				return nil
			}
			_, err = fmt.Fprintf(a.out, "\n%s\n", strings.TrimSpace(head))
			return err
		})
	}
	return cmd
}
