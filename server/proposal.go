package server

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// propose puts statements that take two persons into the queue instead of making
// them, as one person's decision to approve them. They are signed, and dated, when a
// second one agrees. It returns the item's id.
func (s *Server) propose(ctx context.Context, what hashlist.ReviewChoice, statements ...hashlist.Statement) (string, error) {
	if _, err := s.reviews(); err != nil {
		return "", err
	}
	by, err := who(ctx, "")
	if err != nil {
		return "", err
	}
	body, err := appendStatements(nil, statements)
	if err != nil {
		return "", err
	}
	first := &statements[0]
	now := time.Now()
	r := hashlist.Review{
		ID: reviewID(hashlist.ReviewProposal, first.List, string(body)), Kind: hashlist.ReviewProposal, State: hashlist.ReviewProposed, At: now,
		List: first.List, Statement: first.About + first.Retracts, Issuer: s.cfg.Issuer.Actor(),
		Summary: boundedText(fmt.Sprintf("%v: %s. Reason: %s", what, describe(first), first.Reason), hashlist.MaxReason), Body: body,
		Decisions: []hashlist.ReviewDecision{{Who: by, When: now, What: hashlist.ChooseApprove, Why: boundedText(first.Reason, hashlist.MaxReason)}},
	}
	added, err := s.addReview(ctx, r)
	switch {
	case errors.Is(err, hashlist.ErrReviewsFull):
		return "", refuse(errLimit, "%d proposals wait already: decide about those first", hashlist.MaxOpenReviews)
	case err != nil:
		return "", err
	case added:
		return r.ID, s.auditDecision(ctx, &r, &r.Decisions[0], "proposed")
	}
	// The same was asked before: for another person's, this is the second.
	old, err := s.findReview(ctx, r.ID)
	if err != nil {
		return "", err
	}
	if !old.State.Waiting() {
		return "", refuse(errState, "the same was proposed before, and decided (%s): give another reason to propose it anew", old.ID)
	}
	_, err = s.decide(ctx, r.ID, hashlist.ReviewDecision{Who: by, What: hashlist.ChooseApprove, Why: first.Reason})
	return r.ID, err
}

// describe says in a few words what a statement would do; no hashes.
func describe(v *hashlist.Statement) string {
	switch v.Kind {
	case hashlist.AddHashes:
		return fmt.Sprintf("%d hashes on list %s", len(v.Hashes), v.List)
	case hashlist.Confirmation, hashlist.Dispute:
		return fmt.Sprintf("a %v of statement %s", v.Kind, v.About)
	case hashlist.Retraction:
		if n := len(v.Hashes); n > 0 {
			return fmt.Sprintf("%d hashes of statement %s", n, v.Retracts)
		}
		if n := len(v.Subjects); n > 0 {
			return fmt.Sprintf("%d accounts, servers or addresses of statement %s", n, v.Retracts)
		}
		return "statement " + v.Retracts
	}
	return fmt.Sprintf("%d %v on list %s", len(v.Subjects), v.Kind, v.List)
}

// decideProposal makes the statements that two persons agreed on, each as if it were
// asked for now.
func (s *Server) decideProposal(ctx context.Context, r hashlist.Review, d *hashlist.ReviewDecision) error {
	if d.What != hashlist.ChooseApprove {
		return nil
	}
	statements, err := readStatements(r.Body)
	if err != nil {
		return fmt.Errorf("the proposal %s cannot be read: %w", r.ID, err)
	}
	for _, v := range statements {
		if err := s.validate(v); err != nil {
			return err
		}
		if v.Kind == hashlist.AddHashes {
			made, err := s.list(ctx, v, false)
			if err != nil {
				return err
			}
			if id := made.GetStatementId(); id != "" {
				d.Statements = append(d.Statements, id)
			}
			continue
		}
		what := hashlist.ChooseApprove
		// What is local is nobody else's to know.
		if l, ok := s.cfg.Lists.List(v.List); ok && v.Kind == hashlist.Dispute && l.Audience != hashlist.Local {
			what = hashlist.ChooseDispute
		}
		id, err := s.say(ctx, what, v)
		if err != nil {
			return err
		}
		d.Statements = append(d.Statements, id)
	}
	return nil
}

func appendStatements(b []byte, all []hashlist.Statement) ([]byte, error) {
	for _, v := range all {
		one, err := v.AppendBinary(nil)
		if err != nil {
			return nil, err
		}
		b = append(binary.AppendUvarint(b, uint64(len(one))), one...)
	}
	return b, nil
}

func readStatements(b []byte) ([]hashlist.Statement, error) {
	var all []hashlist.Statement
	for len(b) > 0 {
		n, k := binary.Uvarint(b)
		if k <= 0 || n > uint64(len(b)-k) {
			return nil, errors.New("it is cut short")
		}
		var v hashlist.Statement
		if err := v.UnmarshalBinary(b[k : k+int(n)]); err != nil {
			return nil, err
		}
		all, b = append(all, v), b[k+int(n):]
	}
	return all, nil
}

// list puts the hashes of v on its list, but for those that are there already, or
// answers what is to be signed for it.
func (s *Server) list(ctx context.Context, v hashlist.Statement, draft bool) (*pb.SubmitResponse, error) {
	list, ok := s.cfg.Lists.List(v.List)
	if !ok {
		return nil, refuse(errUnknown, "list %s is not defined any more", v.List)
	}
	release, err := s.claims.take(ctx, list.ID, v.Hashes)
	if err != nil {
		return nil, err
	}
	defer release()
	all := len(v.Hashes)
	if v.Hashes, err = s.unlisted(&v, list.Action); err != nil {
		return nil, err
	}
	answer := &pb.SubmitResponse{AlreadyListed: uint32(all - len(v.Hashes))}
	if len(v.Hashes) == 0 {
		return answer, nil
	}
	if draft {
		answer.Draft, err = s.draft(v)
		return answer, err
	}
	// Not cut short by the caller: what is claimed is freed when it is settled.
	records, err := s.seal(context.WithoutCancel(ctx), v)
	if err != nil {
		return nil, err
	}
	answer.StatementId, answer.Seq = records[0].Statement.ID, records[0].Seq
	return answer, nil
}

// listOrPropose is list where one person may do it, and else a proposal.
func (s *Server) listOrPropose(ctx context.Context, what hashlist.ReviewChoice, v hashlist.Statement, draft bool) (*pb.SubmitResponse, error) {
	if draft || !s.takesTwo(0, what) {
		return s.list(ctx, v, draft)
	}
	list, ok := s.cfg.Lists.List(v.List)
	if !ok {
		return nil, refuse(errUnknown, "list %s is not defined any more", v.List)
	}
	left, err := s.unlisted(&v, list.Action)
	if err != nil || len(left) == 0 {
		return &pb.SubmitResponse{AlreadyListed: uint32(len(v.Hashes))}, err
	}
	id, err := s.propose(ctx, what, v)
	return &pb.SubmitResponse{ReviewId: id}, err
}

// ownDecision is a statement that bans or allows hashes here.
func (s *Server) ownDecision(ctx context.Context, what hashlist.ReviewChoice, hashes []hashlist.Hash, labels []string, why string, expires time.Time) (hashlist.Statement, error) {
	list, err := s.decisions(ctx)
	v := hashlist.Statement{
		Kind: hashlist.AddHashes, List: list.ID, Hashes: hashes, Labels: labels, Action: hashlist.Reject, Reason: why, Expires: expires,
	}
	if what == hashlist.ChooseAllow {
		v.Action, v.Labels = hashlist.Accept, nil
	}
	if err != nil {
		return v, err
	}
	return v, s.validate(v)
}

// SubmitDecision implements the RPC.
func (l *statementService) SubmitDecision(ctx context.Context, r *pb.SubmitDecisionRequest) (*pb.SubmitDecisionResponse, error) {
	s := l.s
	what := hashlist.ReviewChoice(r.GetChoice())
	if what != hashlist.ChooseBan && what != hashlist.ChooseAllow {
		return nil, refuse(errInvalid, "the decision is neither ban nor allow")
	}
	if err := maySuppress(ctx, what); err != nil {
		return nil, err
	}
	if len(r.GetHashes()) == 0 {
		return nil, refuse(errInvalid, "no hashes to decide about")
	}
	hashes, err := parseHashes(r.GetHashes())
	if err != nil {
		return nil, err
	}
	if err := s.checkQuality(&pb.SubmitRequest{Quality: r.Quality}, hashes); err != nil {
		return nil, err
	}
	also, err := labels(r.GetLabels())
	if err != nil {
		return nil, err
	}
	if what == hashlist.ChooseAllow && len(also) > 0 {
		return nil, refuse(errInvalid, "labels go with ban alone")
	}
	if err := checkReason(r.GetReason()); err != nil {
		return nil, err
	}
	until, err := expiry(r.GetExpires())
	if err != nil {
		return nil, err
	}
	v, err := s.ownDecision(ctx, what, hashes, also, r.GetReason(), until)
	if err != nil {
		return nil, err
	}
	if list, ok := s.cfg.Lists.List(v.List); ok && !r.GetDraft() {
		if err := s.foreseen(&list, v.Action, v.Hashes, r.GetConfirmed()); err != nil {
			return nil, err
		}
	}
	made, err := s.listOrPropose(ctx, what, v, r.GetDraft())
	if err != nil {
		return nil, err
	}
	made.AlreadyListed += uint32(len(r.GetHashes()) - len(hashes)) // those that were named twice
	return &pb.SubmitDecisionResponse{Submitted: made, List: s.cfg.Review.Decisions}, nil
}

// decisionOf is what a statement that lists hashes comes to, as the rule of two persons
// sees it.
func decisionOf(v *hashlist.Statement, usual hashlist.Action) hashlist.ReviewChoice {
	if v.Action == hashlist.Accept || v.Action == 0 && usual == hashlist.Accept {
		return hashlist.ChooseAllow
	}
	return hashlist.ChooseBan
}

// barTwo refuses what would list or withdraw in bulk, past the rule of two persons.
func (s *Server) barTwo(what hashlist.ReviewChoice, verb, instead string) error {
	if !s.takesTwo(0, what) {
		return nil
	}
	return refuse(errState, "%s would do without a second person what two have to agree on here (review.two_person has %v): %s", verb, what, instead)
}
