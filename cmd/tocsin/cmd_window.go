package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

func (a *app) windowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "window", Short: "What was let through lately, and what of it is banned by now",
		Long: `The node remembers the hashes, never the pictures, of what was let through or held
in the last days, with what the caller calls it. When something comes to be banned, on
a list of its own or of another node, it is found among them at once: "this was
accepted at 14:02 as post X; it is now banned by alice". See docs/window.md.`,
	}
	cmd.AddCommand(a.windowStatusCommand(), a.windowHitsCommand(), a.windowWatchCommand(), a.windowForgetCommand(), a.windowPreviewCommand())
	return cmd
}

type windowLine struct {
	On          bool          `json:"on"`
	Entries     uint64        `json:"entries"`
	Most        uint64        `json:"most"`
	Uploads     uint64        `json:"uploads"`
	Bytes       uint64        `json:"bytes"`
	Oldest      *string       `json:"oldest"`
	KeepSeconds uint64        `json:"keep_seconds"`
	Waiting     uint64        `json:"waiting"`
	Dropped     uint64        `json:"dropped"`
	Hits        uint64        `json:"hits"`
	Open        uint64        `json:"open"`
	Behind      uint64        `json:"behind"`
	Quarantined uint64        `json:"quarantined"`
	Breakers    []breakerLine `json:"breakers"`
}

type breakerLine struct {
	Issuer   string  `json:"issuer"`
	Refusals uint32  `json:"refusals"`
	Opened   *string `json:"opened"`
	Closes   *string `json:"closes"`
}

func (a *app) windowStatusCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "status", Short: "Tell how much is remembered, and what it found", Args: cobra.NoArgs}
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.call(cmd, func(ctx context.Context, n *node) error {
			v, err := n.window.GetWindow(ctx, &pb.GetWindowRequest{})
			if err != nil {
				return err
			}
			l := windowLine{
				v.GetOn(), v.GetEntries(), v.GetMost(), v.GetUploads(), v.GetBytes(), stamp(v.GetOldest()), v.GetKeepSeconds(), v.GetWaiting(),
				v.GetDropped(), v.GetHits(), v.GetOpen(), v.GetBehind(), v.GetQuarantined(), []breakerLine{},
			}
			for _, b := range v.GetBreakers() {
				l.Breakers = append(l.Breakers, breakerLine{b.GetIssuer(), b.GetRefusals(), stamp(b.GetOpened()), stamp(b.GetCloses())})
			}
			if a.json {
				return a.line(l)
			}
			for _, b := range l.Breakers {
				who := b.Issuer
				if who == "" {
					who = "all other nodes together"
				}
				a.warn("circuit breaker: %d different hashes of %s refused something within an hour; until %s their matches come to hold at most",
					b.Refusals, printable(who), or(b.Closes, ""))
			}
			if l.Quarantined > 0 {
				a.warn("%s in quarantine: see `tocsin quarantine list`", plural(l.Quarantined, "statement"))
			}
			if !l.On {
				a.warn("nothing is remembered: window.days is 0")
				return nil
			}
			return a.table([]string{"recent window", ""}, [][]string{
				{"pictures", fmt.Sprintf("%d of at most %d", l.Entries, l.Most)},
				{"uploads", fmt.Sprint(l.Uploads)},
				{"kept", fmt.Sprintf("%v after they came last; the oldest came at %s", time.Duration(l.KeepSeconds)*time.Second, or(l.Oldest, "-"))},
				{"memory", fmt.Sprintf("%d MiB", l.Bytes>>20)},
				{"hits", fmt.Sprintf("%d since the start, %d open", l.Hits, l.Open)},
				{"forgotten", fmt.Sprintf("%d since the start, because too many came at once", l.Dropped)},
				{"quarantine", fmt.Sprintf("%s of other nodes, which do not act until somebody has decided", plural(l.Quarantined, "statement"))},
				{"waiting", fmt.Sprintf("%s to be written, %s to be compared", plural(l.Waiting, "upload"), plural(l.Behind, "statement"))},
			})
		})
	}
	return cmd
}

type sightingLine struct {
	SeenID   uint64  `json:"seen_id"`
	At       *string `json:"at"`
	Answered string  `json:"answered"`
	URL      string  `json:"url"`
	Alias    string  `json:"alias"`
	Post     string  `json:"post"`
	Actor    string  `json:"actor"`
}

type hitLine struct {
	Seq       uint64         `json:"seq"`
	ID        string         `json:"id"`
	At        *string        `json:"at"`
	Verdict   string         `json:"verdict"`
	Answered  string         `json:"answered"`
	Withdrawn bool           `json:"withdrawn"`
	Reason    string         `json:"reason"`
	List      string         `json:"list"`
	Issuer    string         `json:"issuer"`
	Statement string         `json:"statement"`
	Algorithm string         `json:"algorithm"`
	Distance  uint32         `json:"distance"`
	Count     uint64         `json:"count"`
	Sightings []sightingLine `json:"sightings"`
}

func sightings(s *pb.SeenUpload) []sightingLine {
	lines := []sightingLine{}
	for _, v := range s.GetSightings() {
		r := v.GetReference()
		lines = append(lines, sightingLine{v.GetSeenId(), stamp(v.GetAt()), word(v.GetAnswered()), r.GetUrl(), r.GetAlias(), r.GetPost(), r.GetActor()})
	}
	return lines
}

func describeHit(h *pb.Hit) hitLine {
	m := h.GetMatch()
	return hitLine{
		h.GetSeq(), h.GetId(), stamp(h.GetAt()), word(h.GetVerdict()), word(h.GetSeen().GetAnswered()), h.GetWithdrawn(), h.GetReason(),
		m.GetListId(), m.GetIssuer(), m.GetStatementId(), m.GetAlgorithm(), m.GetDistance(), h.GetSeen().GetCount(), sightings(h.GetSeen()),
	}
}

// reference is the best name of a sighting.
func (s *sightingLine) reference() string {
	for _, v := range [...]string{s.Post, s.URL, s.Alias, s.Actor} {
		if v != "" {
			return v
		}
	}
	return fmt.Sprintf("upload %d", s.SeenID)
}

// printHit tells a hit as people would.
func (a *app) printHit(h *pb.Hit) error {
	l := describeHit(h)
	if a.json {
		return a.line(l)
	}
	var b strings.Builder
	if l.Withdrawn {
		fmt.Fprintf(&b, "%d  WITHDRAWN %s: list %s does not speak against it any more\n", l.Seq, or(l.At, ""), printable(handle(l.List)))
	} else {
		fmt.Fprintf(&b, "%d  %s %s: banned on list %s by %s (%s at distance %d)\n", l.Seq, strings.ToUpper(l.Verdict), or(l.At, ""),
			printable(handle(l.List)), printable(l.Issuer), l.Algorithm, l.Distance)
	}
	for _, s := range l.Sightings {
		by := ""
		if s.Actor != "" && s.reference() != s.Actor {
			by = " by " + printable(s.Actor)
		}
		fmt.Fprintf(&b, "   accepted (%s) at %s as %s%s\n", s.Answered, or(s.At, ""), printable(s.reference()), by)
	}
	if more := l.Count - uint64(len(l.Sightings)); more > 0 && l.Count > uint64(len(l.Sightings)) {
		fmt.Fprintf(&b, "   and %d times more\n", more)
	}
	_, err := io.WriteString(a.out, b.String())
	return err
}

func (a *app) windowHitsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "hits", Short: "Show uploads of the past that are banned by now", Args: cobra.NoArgs,
		Long: `Show the uploads that were let through or held, and are refused by now because what
they match was banned later. Hits are kept for a month.`,
	}
	all := cmd.Flags().Bool("all", false, "also those of which nothing is left, because the ban was withdrawn")
	after := cmd.Flags().Uint64("after", 0, "only those behind this number")
	limit := cmd.Flags().Uint32("limit", 100, "at most so many, 1 to 1000")
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.call(cmd, func(ctx context.Context, n *node) error {
			answer, err := n.window.ListHits(ctx, &pb.ListHitsRequest{After: *after, Limit: *limit, OpenOnly: !*all})
			if err != nil {
				return err
			}
			for _, h := range answer.GetHits() {
				if err := a.printHit(h); err != nil {
					return err
				}
			}
			if len(answer.GetHits()) == 0 && !a.json {
				a.warn("nothing that was let through lately is banned by now")
			}
			if answer.GetTruncated() {
				a.warn("there are more: go on with --after %d", answer.GetHits()[len(answer.GetHits())-1].GetSeq())
			}
			return nil
		})
	}
	return cmd
}

func (a *app) windowWatchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "watch", Short: "Print hits as they are found", Args: cobra.NoArgs,
		Long: `Print uploads of the past that turn out to be banned, as they are found, until the
node stops or this is interrupted. A program that remembers the number of the last one and
gives it with --after misses nothing and reads nothing twice.`,
		Example: `  tocsin window watch --json | while read -r hit; do ...; done`,
	}
	after := cmd.Flags().Uint64("after", 0, "begin behind this number, and not with what comes from now on")
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		n, err := c.dial(cmd.Context())
		if err != nil {
			return err
		}
		defer n.Close()
		stream, err := n.window.WatchHits(cmd.Context(), &pb.WatchHitsRequest{After: *after, NewOnly: !cmd.Flags().Changed("after")})
		if err != nil {
			return err
		}
		for {
			m, err := stream.Recv()
			if errors.Is(err, io.EOF) || status.Code(err) == codes.Canceled && cmd.Context().Err() != nil {
				return nil
			}
			if err != nil {
				return err
			}
			if err := a.printHit(m.GetHit()); err != nil {
				return err
			}
		}
	}
	return cmd
}

func (a *app) windowForgetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "forget", Short: "Delete what is remembered of a post, a file or a person", Args: cobra.NoArgs,
		Long: `Delete everything that is remembered of the uploads that were seen with one of the
given references: their hashes, who brought them, and the hits that speak of them. A
picture that several people uploaded is forgotten for all of them.`,
		Example: `  tocsin window forget --actor https://social.example/users/alice`,
	}
	ref := &pb.Reference{}
	cmd.Flags().StringVar(&ref.Url, "url", "", "the address of the file")
	cmd.Flags().StringVar(&ref.Alias, "alias", "", "the caller's name for the file")
	cmd.Flags().StringVar(&ref.Post, "post", "", "the post")
	cmd.Flags().StringVar(&ref.Actor, "actor", "", "who uploaded it")
	cmd.MarkFlagsOneRequired("url", "alias", "post", "actor")
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.call(cmd, func(ctx context.Context, n *node) error {
			answer, err := n.window.Forget(ctx, &pb.ForgetRequest{Reference: ref})
			if err != nil {
				return err
			}
			if a.json {
				return a.line(struct {
					Forgotten uint64 `json:"forgotten"`
				}{answer.GetForgotten()})
			}
			_, err = fmt.Fprintf(a.out, "%s forgotten\n", plural(answer.GetForgotten(), "picture"))
			return err
		})
	}
	return cmd
}

type previewLine struct {
	Hashes     uint64        `json:"hashes"`
	Uploads    uint64        `json:"uploads"`
	Flagged    uint64        `json:"flagged"`
	Held       uint64        `json:"held"`
	Rejected   uint64        `json:"rejected"`
	Suspicious bool          `json:"suspicious"`
	Examples   []exampleLine `json:"examples"`
}

type exampleLine struct {
	Verdict   string         `json:"verdict"`
	Algorithm string         `json:"algorithm"`
	Distance  uint32         `json:"distance"`
	Sightings []sightingLine `json:"sightings"`
}

// printPreview tells what would have been answered, and whether that is more than expected.
func (a *app) printPreview(v *pb.PreviewResponse) error {
	l := previewLine{v.GetHashes(), v.GetUploads(), v.GetFlagged(), v.GetHeld(), v.GetRejected(), v.GetSuspicious(), []exampleLine{}}
	for _, e := range v.GetExamples() {
		l.Examples = append(l.Examples, exampleLine{word(e.GetVerdict()), e.GetAlgorithm(), e.GetDistance(), sightings(e.GetSeen())})
	}
	if a.json {
		return a.line(l)
	}
	fmt.Fprintf(a.out, "%s would have refused %d of the last %d uploads, held %d and flagged %d.\n",
		capital(plural(l.Hashes, "hash")), l.Rejected, l.Uploads, l.Held, l.Flagged)
	for _, e := range l.Examples {
		if len(e.Sightings) > 0 {
			s := &e.Sightings[len(e.Sightings)-1]
			fmt.Fprintf(a.out, "  %-6s %s (%s at distance %d, of %s)\n", e.Verdict, printable(s.reference()), e.Algorithm, e.Distance, or(s.At, ""))
		}
	}
	if l.Suspicious {
		a.warn("that is more than is expected: statements of another node that match so much are put into quarantine")
	}
	return nil
}

func (a *app) windowPreviewCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "preview [LIST]", Short: "Tell what a list would have refused lately", Args: cobra.MaximumNArgs(1),
		Long: `Tell how many of the uploads that are remembered a list would have refused, held or
flagged, if it acted and were believed, or how many some hashes would have. It changes nothing.
A list that is followed with "--most flag" is here, and can be looked at before it refuses
anything.`,
		Example: `  tocsin window preview @spam@hashes.example --most hold
  tocsin window preview --hash pdq:f8f8…`,
	}
	most := cmd.Flags().String("most", "reject", "flag, hold or reject: the most that a match would come to")
	hashes := cmd.Flags().StringArray("hash", nil, "a hash instead of a list; may be repeated")
	examples := cmd.Flags().Uint32("examples", 10, "show so many of the uploads, 1 to 100")
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if (len(args) == 0) == (len(*hashes) == 0) {
			return a.usage("want a list, or hashes with --hash")
		}
		v, err := hashlist.ParseVerdict(*most)
		if err != nil || v == hashlist.VerdictAllow {
			return a.usage("most %.40q is not flag, hold or reject", *most)
		}
		request := &pb.PreviewRequest{Most: pb.Verdict(v), Hashes: *hashes, Examples: *examples}
		if len(args) == 1 {
			request.List = args[0]
		}
		return c.callFor(cmd, 5*callTime, func(ctx context.Context, n *node) error {
			answer, err := n.window.Preview(ctx, request)
			if err != nil {
				return err
			}
			return a.printPreview(answer)
		})
	}
	return cmd
}
