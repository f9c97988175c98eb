package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

func (a *app) auditCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "audit", Short: "Read and check the log of what was decided", Args: cobra.NoArgs,
		Long: `The audit log keeps every upload that was refused or held, every decision of a
moderator and every act on a platform, with what it rested on. Nothing in it is
ever changed: each entry is chained to the one before it.`,
	}
	cmd.AddCommand(a.auditListCommand(), a.auditShowCommand(), a.auditVerifyCommand())
	return cmd
}

type auditLine struct {
	Seq  uint64          `json:"seq"`
	ID   string          `json:"id"`
	Kind string          `json:"kind"`
	At   string          `json:"at"`
	Who  string          `json:"who"`
	Body json.RawMessage `json:"body"`
}

func describeEntry(e *pb.AuditEntry) auditLine {
	v := auditLine{e.GetSeq(), e.GetId(), e.GetKind(), e.GetAt().AsTime().Format("2006-01-02T15:04:05.000000Z"), e.GetWho(), json.RawMessage(e.GetBody())}
	if !json.Valid(v.Body) {
		v.Body = json.RawMessage("null") // it was emptied
	}
	return v
}

func (a *app) auditListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List the last entries", Args: cobra.NoArgs,
		Long: `List the last entries of the audit log, or with --after all behind a place, the
oldest first: for each its place, time, kind, id, who brought it about, and the gist of
it. With --json each line has the whole entry.`,
		Example: "  tocsin audit list --kind verdict --limit 20\n  tocsin audit list --after 0 --json",
	}
	kind := cmd.Flags().String("kind", "", "only entries of this kind, such as verdict, decision or act")
	limit := cmd.Flags().Uint32("limit", 50, "at most this many, 1 to 1000; with --after 0 stands for all")
	after := cmd.Flags().Uint64("after", 0, "those behind this place, instead of the last ones")
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		last := !cmd.Flags().Changed("after")
		if last && (*limit == 0 || *limit > 1000) {
			return a.usage("--limit is %d (want 1 to 1000, or --after)", *limit)
		}
		return c.callFor(cmd, verifyTime, func(ctx context.Context, n *node) error {
			stream, err := pb.NewAuditServiceClient(n.ClientConn).ListAudit(ctx, &pb.ListAuditRequest{After: *after, Kind: *kind, Limit: *limit, Last: last})
			if err != nil {
				return err
			}
			const row = "%6v  %-19s  %-9s %-27s %-16s %s\n"
			for first := true; ; first = false {
				m, err := stream.Recv()
				if errors.Is(err, io.EOF) {
					if first && !a.json {
						a.warn("the audit log has no such entry")
					}
					return nil
				} else if err != nil {
					return err
				}
				e := describeEntry(m.GetEntry())
				if a.json {
					err = a.line(e)
				} else {
					if first {
						fmt.Fprintf(a.out, row, "SEQ", "TIME", "KIND", "ID", "WHO", "WHAT")
					}
					_, err = fmt.Fprintf(a.out, row, e.Seq, e.At[:19], printable(e.Kind), printable(e.ID), printable(e.Who), printable(gist(e.Kind, e.Body)))
				}
				if err != nil {
					return err
				}
			}
		})
	}
	return cmd
}

// gist is what one line says of an entry.
func gist(kind string, body json.RawMessage) string {
	var v struct {
		Verdict, Reason string
		Reference       struct{ URL, Alias, Post, Actor string }
		// Of repeats.
		Count int
		Of    string
		// Of decisions.
		Review, Choice, Outcome, Why string
		// Of acts.
		Does, Platform, Target, State, Note string
		// Of reports.
		Agency, Number string
		// Of addresses that are watched.
		URL, Post, Actor string
	}
	if json.Unmarshal(body, &v) != nil {
		return "emptied"
	}
	switch kind {
	case "repeats":
		return fmt.Sprintf("%d more: %s %s", v.Count, v.Verdict, v.Of)
	case "decision":
		text := spaced(v.Choice, "of", v.Review, v.Outcome)
		if v.Why != "" {
			text += ": " + v.Why
		}
		return text
	case "act":
		return spaced(v.Does, "on", v.Platform, v.Target, v.State, v.Note)
	case "report":
		return spaced("verdict", v.Verdict, "to", v.Agency, v.Number)
	case "revisit":
		return spaced(v.Verdict, cmp.Or(v.Post, v.URL, v.Actor), v.State, v.Note)
	}
	r := &v.Reference
	return spaced(v.Verdict, v.Reason, cmp.Or(r.Post, r.URL, r.Alias, r.Actor))
}

// spaced joins what there is with spaces.
func spaced(all ...string) string {
	return strings.Join(slices.DeleteFunc(all, func(s string) bool { return s == "" }), " ")
}

func (a *app) auditShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show ID", Short: "Show one entry", Args: cobra.ExactArgs(1),
		Long: `Show one entry of the audit log as JSON: all that was noted when it was written.
"tocsin explain ID" tells it in words, and how it would be decided today.`,
	}
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.call(cmd, func(ctx context.Context, n *node) error {
			v, err := pb.NewAuditServiceClient(n.ClientConn).GetAudit(ctx, &pb.GetAuditRequest{Id: args[0]})
			if err != nil {
				return err
			}
			e := describeEntry(v.GetEntry())
			if a.json {
				return a.line(e)
			}
			b, err := json.MarshalIndent(e, "", "  ")
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.out, "%s\n", b)
			return err
		})
	}
	return cmd
}

func (a *app) auditVerifyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "verify", Short: "Check that nothing in the log was changed or cut off", Args: cobra.NoArgs,
		Long: `Read the audit log from its beginning and check that every entry continues the
one before it. That finds an entry that was changed or taken out. It does not find
entries that were cut off at the end, nor a log that was written anew: for that,
note the head that is printed, on paper or on another machine, and give it as
--head the next time.

Exit status: 0 if the log is whole, 1 otherwise.`,
		Example: "  tocsin audit verify\n  tocsin audit verify --head 1042:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
	}
	head := cmd.Flags().String("head", "", "a head that was noted earlier")
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.callFor(cmd, verifyTime, func(ctx context.Context, n *node) error {
			v, err := pb.NewAuditServiceClient(n.ClientConn).VerifyAudit(ctx, &pb.VerifyAuditRequest{Head: *head})
			if err != nil {
				return err
			}
			if a.json {
				if err := a.line(struct {
					Whole   bool   `json:"whole"`
					Entries uint64 `json:"entries"`
					Head    string `json:"head"`
					Wrong   string `json:"wrong,omitempty"`
				}{v.GetWrong() == "", v.GetEntries(), v.GetHead(), v.GetWrong()}); err != nil {
					return err
				}
			} else if v.GetWrong() == "" {
				fmt.Fprintf(a.out, "%d entries, each continues the one before it.\nNote this head elsewhere, and check against it with --head later:\n%s\n", v.GetEntries(), v.GetHead())
			}
			if v.GetWrong() != "" {
				return fmt.Errorf("the audit log is not whole; up to entry %d it is: %s", v.GetEntries(), v.GetWrong())
			}
			return nil
		})
	}
	return cmd
}
