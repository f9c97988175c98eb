package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/hashlist/imagehash"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

func (a *app) retractCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "retract STATEMENT-ID [HASH|SUBJECT...] | --list NAME [FILE|HASH...]", Short: "Withdraw a statement, or some of what it lists", Args: cobra.ArbitraryArgs,
		Long: `Withdraw a statement of this node, or only what is named of it: hashes, or domains
of servers and addresses of accounts, posts and files. The statement stays in the log, but
what is withdrawn of it no longer acts. "tocsin list entries NAME" shows the statements.

With --list, withdraw hashes, or all hashes of files, from every statement of
the list that has exactly them. Hashes that are merely near stay. --subject withdraws
a server, an account or an address in the same way.

With --draft nothing is withdrawn: the retractions are printed as they are to be
signed with "tocsin sign", where the issuer's key is kept elsewhere.`,
		Example: `  tocsin retract https://hashes.example/statements/... --reason "mistaken"
  tocsin retract https://hashes.example/statements/... spam.example
  tocsin retract --list refused shoes.jpg
  tocsin retract --list refused --subject spam.example`,
	}
	reason := cmd.Flags().String("reason", "", "why, for people")
	list := cmd.Flags().String("list", "", "withdraw from this list what the arguments name")
	taken := cmd.Flags().StringArray("subject", nil, "domain of a server, or address of an account, post or file, to withdraw; may be repeated")
	algorithm := cmd.Flags().String("algorithm", "", "algorithm of hashes that are written without one")
	draft := cmd.Flags().Bool("draft", false, draftUsage)
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *list != "" {
			if err := checkRef(*list); err != nil {
				return a.usage("%w", err)
			}
		}
		for _, subject := range *taken {
			if !isSubject(subject) {
				return a.usage("%.80q is neither a domain like spam.example nor an address", subject)
			}
		}
		media, subjects := args, *taken
		switch {
		case *list != "" && len(args)+len(subjects) == 0:
			return a.usage("nothing to withdraw: name files, hashes or --subject")
		case *list == "" && len(args) == 0:
			return a.usage("nothing to withdraw: name a statement, which `tocsin list entries NAME` shows, or a list with --list")
		case *list == "":
			media = args[1:]
		}
		var bare hashlist.Algorithm
		if *algorithm != "" {
			var err error
			if bare, err = hashlist.ParseAlgorithm(*algorithm); err != nil {
				return a.usage("%w", err)
			}
		}
		hashes := make([]hashlist.Hash, len(media))
		for i, arg := range media {
			h, isHash, err := parseSubject(arg, bare)
			if err != nil {
				return a.usage("%w", err)
			}
			if !isHash && *list == "" {
				if !isSubject(arg) {
					return a.usage("%q is neither a hash (want algorithm:hex) nor a domain nor an address; with --list, files can be withdrawn", arg)
				}
				subjects = append(subjects, arg)
			}
			hashes[i] = h
		}
		n, err := c.dial(cmd.Context())
		if err != nil {
			return err
		}
		defer n.Close()
		if *list == "" {
			r := &pb.RetractRequest{StatementId: args[0], Subjects: subjects, Reason: *reason, Draft: *draft}
			for _, h := range hashes {
				if !h.IsZero() {
					r.Hashes = append(r.Hashes, h.String())
				}
			}
			return a.retract(cmd.Context(), n, r)
		}
		if err := checkList(cmd.Context(), n, *list); err != nil {
			return err
		}
		if len(subjects) > 0 {
			requests, err := a.listingSubjects(cmd.Context(), n, *list, subjects)
			if err != nil {
				return err
			}
			for _, r := range requests {
				r.Reason, r.Draft = *reason, *draft
				if err := a.retract(cmd.Context(), n, r); err != nil {
					return err
				}
			}
		}
		if len(args) == 0 {
			return nil
		}
		return a.withHasher(func(hasher *imagehash.Hasher) error {
			var errs []error
			for i, arg := range args {
				found := []hashlist.Hash{hashes[i]}
				if hashes[i].IsZero() {
					m, err := a.hashFile(cmd.Context(), hasher, arg)
					if m.SHA256.IsZero() {
						errs = append(errs, err)
						continue
					}
					found = hashesOf(&m)
				}
				requests, err := a.listing(cmd.Context(), n, *list, found)
				if err == nil && len(requests) == 0 {
					err = errors.New("not on list " + *list)
				}
				if err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", printable(arg), plain(err)))
				}
				for _, r := range requests {
					r.Reason, r.Draft = *reason, *draft
					if err := a.retract(cmd.Context(), n, r); err != nil {
						errs = append(errs, fmt.Errorf("%s: %w", printable(arg), plain(err)))
					}
				}
			}
			return errors.Join(errs...)
		})
	}
	return cmd
}

// hashesOf are all hashes under which ban may have listed a file.
func hashesOf(m *imagehash.Media) []hashlist.Hash {
	all := []hashlist.Hash{m.MD5, m.SHA1, m.SHA256}
	for _, f := range m.Frames {
		for _, h := range []hashlist.Hash{f.PDQ[0], f.PHash, f.DHash} {
			if !h.IsZero() && !slices.Contains(all, h) {
				all = append(all, h)
			}
		}
	}
	return all
}

// listing asks for the statements of a list that have one of hashes, and
// returns for each statement the request that withdraws them.
func (a *app) listing(ctx context.Context, n *node, list string, hashes []hashlist.Hash) ([]*pb.RetractRequest, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	var requests []*pb.RetractRequest
	for _, h := range hashes {
		// One hash at a time, because of many only the nearest is told for each listed one.
		r, err := n.lookups.Lookup(ctx, &pb.LookupRequest{Hashes: []string{h.String()}, Lists: []string{list}, Limit: 1000, Asking: true})
		if err != nil {
			return nil, err
		}
		for _, m := range r.GetMatches() {
			if m.GetDistance() != 0 || m.GetTransform() != "" && m.GetTransform() != imagehash.Transforms[0] {
				continue
			}
			i := slices.IndexFunc(requests, func(r *pb.RetractRequest) bool { return r.StatementId == m.GetStatementId() })
			if i < 0 {
				i = len(requests)
				requests = append(requests, &pb.RetractRequest{StatementId: m.GetStatementId()})
			}
			requests[i].Hashes = append(requests[i].Hashes, h.String())
		}
		if r.GetTruncated() {
			a.warn("more than 1000 statements match; run this again for the rest")
		}
	}
	return requests, nil
}

// isSubject reports whether a statement may be about s, other than media.
func isSubject(s string) bool {
	return hashlist.CheckDomain(s) == nil || hashlist.CheckURL(s) == nil
}

// listingSubjects is listing for what is no media. It reads the whole list, and fails if one is not on it.
func (a *app) listingSubjects(ctx context.Context, n *node, list string, subjects []string) ([]*pb.RetractRequest, error) {
	var requests []*pb.RetractRequest
	found := map[string]bool{}
	for page := ""; ; {
		ctx, cancel := context.WithTimeout(ctx, callTime)
		answer, err := n.lists.ListEntries(ctx, &pb.ListEntriesRequest{List: list, PageToken: page})
		cancel()
		if err != nil {
			return nil, err
		}
		for _, e := range answer.GetEntries() {
			var of []string
			for _, subject := range e.GetSubjects() {
				if slices.Contains(subjects, subject) {
					of, found[subject] = append(of, subject), true
				}
			}
			if len(of) > 0 {
				requests = append(requests, &pb.RetractRequest{StatementId: e.GetStatementId(), Subjects: of})
			}
		}
		if page = answer.GetNextPageToken(); page == "" {
			break
		}
	}
	for _, subject := range subjects {
		if !found[subject] {
			return nil, fmt.Errorf("%s: not on list %s, so nothing is withdrawn", printable(subject), list)
		}
	}
	return requests, nil
}

// withdrawn tells what a retraction took out of force.
func withdrawn(answer *pb.RetractResponse, statement string) string {
	n := uint64(answer.GetRetracted())
	nouns := map[hashlist.Kind]string{
		hashlist.AddHashes: "hash", hashlist.AddAccounts: "account", hashlist.AddInstances: "server", hashlist.AddContent: "address",
	}
	for kind, noun := range nouns {
		switch {
		case kind.String() != answer.GetKind():
		case n == 0:
			return "nothing of " + statement + " is in force any more: it, or what was named of it, was withdrawn before or has lapsed"
		case noun == "address" && n > 1:
			return fmt.Sprintf("%d addresses withdrawn from %s", n, statement)
		default:
			return plural(n, noun) + " withdrawn from " + statement
		}
	}
	if n == 0 {
		return statement + " is not in force any more: it was withdrawn before or has lapsed"
	}
	return statement + " is withdrawn"
}

func (a *app) retract(ctx context.Context, n *node, r *pb.RetractRequest) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	answer, err := n.lists.Retract(ctx, r)
	if status.Code(err) == codes.NotFound {
		return fmt.Errorf("%w: `tocsin list entries NAME` shows the ids of the statements on a list", plain(err))
	} else if err != nil {
		return err
	}
	if r.GetDraft() {
		if len(answer.GetDraft()) == 0 {
			a.warn("nothing of %s is in force any more", r.GetStatementId())
		}
		return a.drafted(answer.GetDraft())
	}
	if answer.GetReviewId() != "" {
		return a.proposed("retract "+r.GetStatementId(), answer.GetReviewId())
	}
	if a.json {
		return a.line(struct {
			Retracts  string `json:"retracts"`
			Statement string `json:"statement_id"`
			Seq       uint64 `json:"seq"`
			Retracted uint32 `json:"retracted"`
		}{r.GetStatementId(), answer.GetStatementId(), answer.GetSeq(), answer.GetRetracted()})
	}
	_, err = fmt.Fprintln(a.out, withdrawn(answer, r.GetStatementId()))
	return err
}
