package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

func (a *app) lookupCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "lookup FILE|HASH...", Short: "Ask the node whether pictures or hashes are known", Args: cobra.MinimumNArgs(1),
		Long: `Ask the node about pictures or hashes, each argument for itself. A hash is
written algorithm:hex, or as bare hexadecimal with --algorithm; all else is a
file, and - is standard input. The whole file is sent to the node, which forgets
it at once.

It is a question: nothing comes of it but the answer. Scripts that ask about what is being
uploaded use --upload. Then it is treated like what a hook brings: remembered for bans that come
later (a hash only if --url, --alias, --post or --actor names it), counted in the digest, put
before a person if it is held, acted on where a platform is configured, and written into the
audit log if it is held or refused, which gives it the verdict id that "tocsin explain" and
"tocsin report draft" take.

Exit status: 3 if the verdict on one of them is hold or reject, which is not to be
published; 1 if it is on none, but the node could not say of one of them; 0 if all are
allow or flag, also where something matches. With --json there is an object for each:
match says whether anything matches that is not suppressed as harmless, verdict what it comes
to, and what nothing can be said of has query and error.`,
		Example: `  tocsin lookup picture.jpg
  tocsin lookup --upload --actor https://here.example/u/mallory upload.jpg || echo refused or trouble`,
	}
	algorithm := cmd.Flags().String("algorithm", "", "algorithm of hashes that are written without one")
	lists := cmd.Flags().StringSlice("list", nil, "look in these lists only")
	limit := cmd.Flags().Uint32("limit", 100, "show at most this many matches, nearest first; at most 1000")
	upload := cmd.Flags().Bool("upload", false, "it is being uploaded: treat it like what a hook brings")
	ref := &pb.Reference{}
	cmd.Flags().StringVar(&ref.Url, "url", "", "with --upload: its address, under which the recent window keeps it")
	cmd.Flags().StringVar(&ref.Alias, "alias", "", "the same: name of the file")
	cmd.Flags().StringVar(&ref.Post, "post", "", "the same: post that it belongs to")
	cmd.Flags().StringVar(&ref.Actor, "actor", "", "the same: who uploaded it")
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var bare hashlist.Algorithm
		if *algorithm != "" {
			var err error
			if bare, err = hashlist.ParseAlgorithm(*algorithm); err != nil {
				return a.usage("%w", err)
			}
		}
		if *limit < 1 || *limit > 1000 {
			return a.usage("limit %d is not between 1 and 1000", *limit)
		}
		for _, list := range *lists {
			if err := checkRef(list); err != nil {
				return a.usage("%w", err)
			}
		}
		hashes := make([]hashlist.Hash, len(args)) // zero for files
		for i, arg := range args {
			h, _, err := parseSubject(arg, bare)
			if err != nil {
				return a.usage("%w", err)
			}
			hashes[i] = h
		}
		if ref.GetUrl()+ref.GetAlias()+ref.GetPost()+ref.GetActor() == "" {
			ref = nil
		} else if !*upload {
			return a.usage("nothing is kept of a question, so it needs no name: add --upload if this is being uploaded, or leave out --url, --alias, --post and --actor")
		}
		n, err := c.dial(cmd.Context())
		if err != nil {
			return err
		}
		defer n.Close()
		refused := false
		var errs []error
		for i, arg := range args {
			if cmd.Context().Err() != nil {
				errs = append(errs, fmt.Errorf("interrupted before %s", printable(arg)))
				break
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), callTime)
			answer := &pb.LookupMediaResponse{}
			var err error
			if hashes[i].IsZero() {
				answer, err = a.lookupFile(ctx, n, arg, &pb.LookupMediaOptions{Lists: *lists, Limit: *limit, Reference: ref, Asking: !*upload})
			} else {
				answer.Lookup, err = n.lookups.Lookup(ctx, &pb.LookupRequest{
					Hashes: []string{hashes[i].String()}, Lists: *lists, Limit: *limit, Reference: ref, Asking: !*upload,
				})
			}
			cancel()
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", printable(arg), plain(err)))
				err = a.failed("query", arg, err)
			} else {
				refused = refused || answer.GetLookup().GetVerdict() >= pb.Verdict_VERDICT_HOLD
				err = a.printLookup(arg, answer)
			}
			if err != nil { // standard output takes no more
				errs = append(errs, err)
				break
			}
		}
		err = errors.Join(errs...)
		if refused {
			// Whoever refuses by the exit status must not let it pass because of another file.
			if err != nil {
				a.tell(err)
			}
			return errMatch
		}
		return err
	}
	return cmd
}

// chunkSize is the size of the pieces in which files are sent.
const chunkSize = 256 << 10

func (a *app) lookupFile(ctx context.Context, n *node, name string, options *pb.LookupMediaOptions) (*pb.LookupMediaResponse, error) {
	f, err := a.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	stream, err := n.lookups.LookupMedia(ctx)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, chunkSize)
	for {
		k, err := io.ReadFull(f, buf)
		if k > 0 || options != nil {
			// The node may answer before it has everything; then Send says EOF,
			// and the reason is in the answer.
			if stream.Send(&pb.LookupMediaRequest{Options: options, Chunk: buf[:k]}) != nil {
				break
			}
			options = nil
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			break
		} else if err != nil {
			return nil, err
		}
	}
	return stream.CloseAndRecv()
}

// counts reports whether an answer holds a match that speaks against the media.
func counts(r *pb.LookupResponse) bool {
	for _, m := range r.GetMatches() {
		if !m.GetSuppressed() && m.GetAction() != pb.Action_ACTION_ACCEPT {
			return true
		}
	}
	return r.GetVerdict() > pb.Verdict_VERDICT_ALLOW
}

// word takes the word out of a name of the API: "reject" of ACTION_REJECT.
func word(v interface{ String() string }) string {
	_, w, _ := strings.Cut(v.String(), "_")
	w = strings.TrimPrefix(w, "STATE_")
	if w == "UNSPECIFIED" {
		return ""
	}
	return strings.ToLower(w)
}

type matchLine struct {
	List       string   `json:"list"`
	ListID     string   `json:"list_id"`
	Labels     []string `json:"labels"`
	Algorithm  string   `json:"algorithm"`
	Distance   uint32   `json:"distance"`
	Similarity float64  `json:"similarity_percent"`
	Transform  string   `json:"transform"`
	Index      uint32   `json:"query_index"`
	Action     string   `json:"action"`
	Suppressed bool     `json:"suppressed"`
	Issuer     string   `json:"issuer"`
	Statement  string   `json:"statement_id"`
	Reason     string   `json:"reason"`
	Published  *string  `json:"published"`
	Asked      uint32   `json:"asked_share,omitempty"`  // of a video, how many in a hundred of its frames match
	Listed     uint32   `json:"listed_share,omitempty"` // and of the listed video's
}

func (a *app) printLookup(query string, answer *pb.LookupMediaResponse) error {
	r := answer.GetLookup()
	if a.json {
		matches := []matchLine{}
		for _, m := range r.GetMatches() {
			matches = append(matches, matchLine{
				m.GetList(), m.GetListId(), some(m.GetLabels()), m.GetAlgorithm(), m.GetDistance(), m.GetSimilarityPercent(),
				m.GetTransform(), m.GetQueryIndex(), word(m.GetAction()), m.GetSuppressed(), m.GetIssuer(),
				m.GetStatementId(), m.GetReason(), stamp(m.GetPublished()),
				m.GetAskedShare(), m.GetListedShare(),
			})
		}
		return a.line(struct {
			Query     string      `json:"query"`
			Match     bool        `json:"match"`
			Verdict   string      `json:"verdict"`
			Reason    string      `json:"reason"`
			Matches   []matchLine `json:"matches"`
			Truncated bool        `json:"truncated"`
			Seq       uint64      `json:"index_seq"`
			VerdictID string      `json:"verdict_id,omitempty"` // of an upload, for tocsin explain
		}{query, counts(r), word(r.GetVerdict()), r.GetReason(), matches, r.GetTruncated(), r.GetIndexSeq(), r.GetVerdictId()})
	}
	if _, err := fmt.Fprintf(a.out, "%s: %s: %s\n", printable(query), word(r.GetVerdict()), printable(r.GetReason())); err != nil {
		return err
	}
	if id := r.GetVerdictId(); id != "" {
		if _, err := fmt.Fprintf(a.out, "  verdict %s, which `tocsin explain` takes\n", printable(id)); err != nil {
			return err
		}
	}
	if len(r.GetMatches()) == 0 {
		return nil
	}
	var rows [][]string
	for _, m := range r.GetMatches() {
		note := m.GetReason()
		if m.GetSuppressed() {
			note = strings.TrimSuffix("suppressed; "+note, "; ")
		}
		rows = append(rows, []string{
			"  " + m.GetList(), m.GetAlgorithm(), fmt.Sprint(m.GetDistance()), fmt.Sprintf("%.1f%%", m.GetSimilarityPercent()),
			m.GetTransform(), word(m.GetAction()), strings.Join(m.GetLabels(), ","), m.GetStatementId(), note,
		})
	}
	if err := a.table([]string{"  LIST", "BY", "DISTANCE", "ALIKE", "TURNED", "ACTION", "LABELS", "STATEMENT", "REASON"}, rows); err != nil {
		return err
	}
	if r.GetTruncated() {
		a.warn("there are more matches than these; --limit shows up to 1000")
	}
	return nil
}
