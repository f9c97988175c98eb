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
		Use: "retract STATEMENT-ID [HASH...] | --list NAME FILE|HASH...", Short: "Withdraw a statement, or some of its hashes", Args: cobra.MinimumNArgs(1),
		Long: `Withdraw a statement of this node, or only the hashes that are named. The
statement stays in the log, but no longer acts.

With --list, withdraw hashes, or all hashes of files, from every statement of
the list that has exactly them. Hashes that are merely near stay.

With --draft nothing is withdrawn: the retractions are printed as they are to be
signed with "tocsin sign", where the issuer's key is kept elsewhere.`,
		Example: `  tocsin retract https://hashes.example/statements/... --reason "mistaken"
  tocsin retract --list refused shoes.jpg`,
	}
	reason := cmd.Flags().String("reason", "", "why, for people")
	list := cmd.Flags().String("list", "", "withdraw from this list what the arguments name")
	algorithm := cmd.Flags().String("algorithm", "", "algorithm of hashes that are written without one")
	draft := cmd.Flags().Bool("draft", false, draftUsage)
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *list != "" {
			if err := checkRef(*list); err != nil {
				return a.usage("%w", err)
			}
		}
		subjects := args
		if *list == "" {
			subjects = args[1:]
		}
		var bare hashlist.Algorithm
		if *algorithm != "" {
			var err error
			if bare, err = hashlist.ParseAlgorithm(*algorithm); err != nil {
				return a.usage("%w", err)
			}
		}
		hashes := make([]hashlist.Hash, len(subjects))
		for i, arg := range subjects {
			h, isHash, err := parseSubject(arg, bare)
			if err != nil {
				return a.usage("%w", err)
			}
			if !isHash && *list == "" {
				return a.usage("%q is not a hash (want algorithm:hex); with --list, files can be withdrawn", arg)
			}
			hashes[i] = h
		}
		n, err := c.dial(cmd.Context())
		if err != nil {
			return err
		}
		defer n.Close()
		if *list == "" {
			r := &pb.RetractRequest{StatementId: args[0], Reason: *reason, Draft: *draft}
			for _, h := range hashes {
				r.Hashes = append(r.Hashes, h.String())
			}
			return a.retract(cmd.Context(), n, r)
		}
		if err := checkList(cmd.Context(), n, *list); err != nil {
			return err
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
		r, err := n.lookups.Lookup(ctx, &pb.LookupRequest{Hashes: []string{h.String()}, Lists: []string{list}, Limit: 1000})
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
	n64 := uint64(answer.GetRetracted())
	_, err = fmt.Fprintf(a.out, "%s withdrawn from %s\n", plural(n64, "hash"), r.GetStatementId())
	return err
}
