package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/hashlist/imagehash"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// banLine is what ban prints for one statement.
type banLine struct {
	Subject       string   `json:"subject"` // the file, or the hash
	List          string   `json:"list"`
	Hashes        []string `json:"hashes"`
	Quality       *int     `json:"quality"`
	Statement     string   `json:"statement_id"`
	Seq           uint64   `json:"seq"`
	AlreadyListed uint32   `json:"already_listed"`
}

func (a *app) banCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ban FILE|HASH... --list NAME", Short: "Put pictures, accounts, servers or addresses on a list", Args: cobra.ArbitraryArgs,
		Long: `Put pictures or hashes on a list, in one signed statement for each argument.
Files are hashed here and do not leave this machine; only hashes go to the node.
A hash is written algorithm:hex, or as bare hexadecimal with one --algorithm.

Pictures without structure would match each other. If the PDQ quality of a file
is below --min-quality, only its digests are listed. The node refuses what is
below its own least quality. A file that cannot be decoded as a picture is
refused; with --algorithm its digests among those named are listed.

A video is listed by a selection of its frames together, as vpdq, which matches videos alone: a
frame of a banned video says nothing of a picture. That needs ffmpeg.

To list what is known to be harmless, use a list whose action is accept, or
"tocsin allow".

With --account, --instance or --content, accounts, whole servers, or posts and files
are listed by their addresses, all of a kind in one statement, as in
--account https://bad.example/users/mallory.

If they match more of what was let through lately than is expected (flood in config.toml),
nothing is listed until you say --yes: look at "tocsin window preview" first.

Where two persons have to agree on bans (review.two_person), nothing is listed yet: the
ban waits in "tocsin review list" for a second one.

With --draft nothing is listed: the statements are printed as they are to be signed
with "tocsin sign", where the issuer's key is kept elsewhere.`,
		Example: `  tocsin ban --list refused --label spam --reason "sold fake shoes" shoes.jpg
  tocsin ban --list refused --expires 30d pdq:f8f8...
  tocsin ban --list spam --instance spam.example --instance more.spam.example`,
	}
	list := cmd.Flags().String("list", "", "name of the list (required)")
	labels := cmd.Flags().StringSlice("label", nil, "label beside those of the list; may be repeated")
	reason := cmd.Flags().String("reason", "", "why, for people")
	expires := cmd.Flags().String("expires", "", `when it lapses: a time such as "30d" or "12h", or a date such as 2030-12-31`)
	action := cmd.Flags().String("action", "", "accept, filter, reject or drop (default: that of the list)")
	algorithms := cmd.Flags().StringSlice("algorithm", []string{"pdq", "sha256"}, "what to list of a file: pdq (of a video vpdq), phash, dhash, md5, sha1, sha256")
	allFrames := cmd.Flags().Bool("all-frames", false, "list a sample of the frames of an animation, not only the first")
	minQuality := cmd.Flags().Int("min-quality", hashlist.DefaultPolicy().MinQuality, "least PDQ quality, 0 to 100, at which perceptual hashes of a file are listed")
	yes := cmd.Flags().Bool("yes", false, "also if more of the recent uploads match than is expected")
	draft := cmd.Flags().Bool("draft", false, draftUsage)
	others := subjectFlags(cmd)
	c := a.client(cmd)
	required(cmd, "list")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		subjects, err := others()
		if err != nil {
			return a.usage("%w", err)
		}
		if len(args)+len(subjects) == 0 {
			return a.usage("nothing to list: name files, hashes, --account, --instance or --content")
		}
		wanted, err := parseAlgorithms(*algorithms)
		if err != nil {
			return a.usage("%w", err)
		}
		if err := checkRef(*list); err != nil {
			return a.usage("%w", err)
		}
		also, err := checkedLabels(*labels)
		if err != nil {
			return a.usage("%w", err)
		}
		if *minQuality < 0 || *minQuality > 100 {
			return a.usage("least quality %d is not between 0 and 100", *minQuality)
		}
		act, err := parseAction(*action)
		if err != nil {
			return a.usage("%w", err)
		}
		until, err := parseExpiry(*expires, time.Now())
		if err != nil {
			return a.usage("%w", err)
		}
		var bare hashlist.Algorithm
		chosen := cmd.Flags().Changed("algorithm")
		if chosen && len(wanted) == 1 {
			bare = wanted[0]
		}
		hashes := make([]hashlist.Hash, len(args))
		for i, arg := range args {
			if hashes[i], _, err = parseSubject(arg, bare); err != nil {
				return a.usage("%w", err)
			}
		}
		n, err := c.dial(cmd.Context())
		if err != nil {
			return err
		}
		defer n.Close()
		if err := checkList(cmd.Context(), n, *list); err != nil {
			return err
		}
		for _, r := range subjects {
			r.List, r.Labels, r.Action, r.Reason, r.Expires, r.Draft = *list, also, act, *reason, until, *draft
			if err := a.banSubjects(cmd.Context(), n, r); err != nil {
				return err
			}
		}
		if len(args) == 0 {
			return nil
		}
		_, _, ofNothing := imagehash.Digests(nil)
		return a.withHasher(func(hasher *imagehash.Hasher) error {
			var errs []error
			for i, arg := range args {
				request := &pb.SubmitRequest{List: *list, Labels: also, Action: act, Reason: *reason, Expires: until, Draft: *draft, Confirmed: *yes}
				if hashes[i].IsZero() {
					m, err := a.hashFile(cmd.Context(), hasher, arg)
					switch {
					case m.SHA256.IsZero() || cmd.Context().Err() != nil: // it could not even be read
						errs = append(errs, err)
						continue
					case m.SHA256 == ofNothing:
						errs = append(errs, fmt.Errorf("%s is empty: its digest would match every empty file", printable(arg)))
						continue
					case err != nil && !chosen:
						errs = append(errs, fmt.Errorf("%w: nothing is listed; to list its digest all the same, give --algorithm sha256", err))
						continue
					case err != nil:
						a.warn("%v: only digests are listed", err)
					}
					request.Hashes, request.Quality = a.choose(arg, &m, wanted, *allFrames, *minQuality)
				} else {
					request.Hashes = []string{hashes[i].String()}
				}
				if len(request.Hashes) == 0 {
					errs = append(errs, fmt.Errorf("%s: nothing is left to list; add sha256 to --algorithm", printable(arg)))
					continue
				}
				ctx, cancel := context.WithTimeout(cmd.Context(), callTime)
				answer, err := n.lists.Submit(ctx, request)
				cancel()
				if err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", printable(arg), plain(err)))
					continue
				}
				if err := a.printBan(arg, request, answer); err != nil {
					return err
				}
			}
			return errors.Join(errs...)
		})
	}
	return cmd
}

// choose picks what of a file is listed. The quality is the least of the frames
// whose perceptual hashes are, nil if none is.
func (a *app) choose(name string, m *imagehash.Media, wanted []hashlist.Algorithm, allFrames bool, minQuality int) ([]string, *uint32) {
	if m.Video {
		return a.chooseVideo(name, m, wanted, minQuality)
	}
	var chosen []hashlist.Hash
	var least *uint32
	add := func(h hashlist.Hash) bool {
		if h.IsZero() || !slices.Contains(wanted, h.Algorithm()) || slices.Contains(chosen, h) {
			return false
		}
		chosen = append(chosen, h)
		return true
	}
	for _, f := range m.Frames {
		if !allFrames && f.Index != m.Frames[0].Index { // a transparent frame is there on white and on black too
			break
		}
		if f.Quality < minQuality {
			a.warn("%s: frame %d has PDQ quality %d, less than %d: its perceptual hashes are left out", printable(name), f.Index, f.Quality, minQuality)
			continue
		}
		added := false
		for _, h := range []hashlist.Hash{f.PDQ[0], f.PHash, f.DHash} {
			added = add(h) || added
		}
		if q := uint32(f.Quality); added && (least == nil || q < *least) {
			least = &q
		}
	}
	for _, h := range []hashlist.Hash{m.MD5, m.SHA1, m.SHA256} {
		add(h)
	}
	texts := make([]string, len(chosen))
	for i, h := range chosen {
		texts[i] = h.String()
	}
	return texts, least
}

// sameFrame is the distance up to which two frames of a video are as good as one.
const sameFrame = 6

// chooseVideo picks what of a video is listed: its frames together, as vpdq, and its digests. Frames
// that show nothing, and those that are like one before, are left out: they would say the same twice.
func (a *app) chooseVideo(name string, m *imagehash.Media, wanted []hashlist.Algorithm, minQuality int) ([]string, *uint32) {
	var texts []string
	var least *uint32
	if slices.Contains(wanted, hashlist.PDQ) || slices.Contains(wanted, hashlist.VPDQ) {
		var frames []hashlist.Hash
		for _, f := range m.Frames {
			h := f.PDQ[0].OfVideo()
			if h.IsZero() || f.Quality < minQuality || slices.ContainsFunc(frames, func(o hashlist.Hash) bool {
				d, _ := h.Distance(o)
				return d <= sameFrame
			}) {
				continue
			}
			frames = append(frames, h)
			if q := uint32(f.Quality); least == nil || q < *least {
				least = &q
			}
		}
		if len(frames) == 0 {
			a.warn("%s: none of its %d frames has PDQ quality %d: only digests are listed", printable(name), len(m.Frames), minQuality)
		}
		for _, h := range frames {
			texts = append(texts, h.String())
		}
	}
	for _, h := range []hashlist.Hash{m.MD5, m.SHA1, m.SHA256} {
		if slices.Contains(wanted, h.Algorithm()) {
			texts = append(texts, h.String())
		}
	}
	return texts, least
}

func (a *app) printBan(subject string, r *pb.SubmitRequest, answer *pb.SubmitResponse) error {
	var quality *int
	if r.Quality != nil {
		q := int(r.GetQuality())
		quality = &q
	}
	if r.GetDraft() {
		if len(answer.GetDraft()) == 0 {
			a.warn("%s: on list %s already", printable(subject), r.GetList())
		}
		return a.drafted(answer.GetDraft())
	}
	if a.json {
		return a.line(banLine{subject, r.GetList(), r.GetHashes(), quality, answer.GetStatementId(), answer.GetSeq(), answer.GetAlreadyListed()})
	}
	if id := answer.GetReviewId(); id != "" {
		return a.proposed(subject, id)
	}
	if answer.GetStatementId() == "" {
		_, err := fmt.Fprintf(a.out, "%s: on list %s already\n", printable(subject), r.GetList())
		return err
	}
	kinds := map[string]int{}
	for _, h := range r.GetHashes() {
		name, _, _ := strings.Cut(h, ":")
		kinds[name]++
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		part := name
		if kinds[name] > 1 {
			part += " x" + strconv.Itoa(kinds[name])
		}
		if (name == "pdq" || name == "vpdq") && quality != nil {
			part += fmt.Sprintf(" (quality %d)", *quality)
		}
		parts = append(parts, part)
	}
	already := ""
	if k := answer.GetAlreadyListed(); k > 0 {
		already = fmt.Sprintf(", %d listed already", k)
	}
	_, err := fmt.Fprintf(a.out, "%s: put on list %s by %s%s\n  statement %s\n", printable(subject), r.GetList(), strings.Join(parts, ", "), already, answer.GetStatementId())
	return err
}

// checkList tells what to do if a list is missing, before work is done for it.
func checkList(ctx context.Context, n *node, name string) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	_, err := n.lists.GetList(ctx, &pb.GetListRequest{List: name})
	if status.Code(err) == codes.NotFound {
		return fmt.Errorf("there is no list %q: make it with `tocsin list create NAME`, see `tocsin list ls`", name)
	}
	return err
}

func parseAction(s string) (pb.Action, error) {
	action, err := hashlist.ParseAction(s)
	return pb.Action(pb.Action_value["ACTION_"+strings.ToUpper(action.String())]), err
}

// parseExpiry reads when something lapses: a time from now, with d for days as
// well, or a date or time of RFC 3339. Empty is never.
func parseExpiry(s string, now time.Time) (*timestamppb.Timestamp, error) {
	if s == "" {
		return nil, nil
	}
	var t time.Time
	if days, err := strconv.ParseUint(strings.TrimSuffix(s, "d"), 10, 16); err == nil && strings.HasSuffix(s, "d") {
		t = now.AddDate(0, 0, int(days))
	} else if d, err := time.ParseDuration(s); err == nil {
		t = now.Add(d)
	} else if v, err := time.Parse(time.RFC3339, s); err == nil {
		t = v
	} else if v, err := time.Parse(time.DateOnly, s); err == nil {
		t = v
	} else {
		return nil, fmt.Errorf(`cannot read %.40q as a time (want "30d", "12h", 2030-12-31 or 2030-12-31T18:00:00Z)`, s)
	}
	t = t.UTC().Truncate(time.Second)
	if !t.After(now) {
		return nil, fmt.Errorf("%s is not in the future", t.Format(time.RFC3339))
	}
	return timestamppb.New(t), nil
}
