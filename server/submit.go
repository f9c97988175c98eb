package server

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// parseHashes reads hashes in the strict form. Repetitions are left out.
func parseHashes(texts []string) ([]hashlist.Hash, error) {
	if n := len(texts); n > hashlist.MaxHashes {
		return nil, refuse(errInvalid, "%d hashes are more than %d", n, hashlist.MaxHashes)
	}
	hashes := make([]hashlist.Hash, 0, len(texts))
	seen := make(map[hashlist.Hash]struct{}, len(texts))
	for i, text := range texts {
		h, err := hashlist.ParseHash(text)
		if err != nil {
			return nil, refuse(errInvalid, "hash %d: %v", i+1, err)
		}
		if _, ok := seen[h]; !ok {
			seen[h] = struct{}{}
			hashes = append(hashes, h)
		}
	}
	return hashes, nil
}

// expiry reads when a statement lapses, in whole seconds; the zero time for never.
func expiry(t *timestamppb.Timestamp) (time.Time, error) {
	if t == nil {
		return time.Time{}, nil
	}
	if err := t.CheckValid(); err != nil {
		return time.Time{}, refuse(errInvalid, "expires: not a time")
	}
	v := t.AsTime().UTC().Truncate(time.Second)
	// A second's grace, since the statement is dated in whole seconds after this.
	if !v.After(time.Now().Add(time.Second)) {
		return time.Time{}, refuse(errInvalid, "it would lapse at %s, which is past", v.Format(time.RFC3339))
	}
	return v, nil
}

// checkReason checks a reason before anything is done; statements are checked whole
// again when they are sealed.
func checkReason(reason string) error {
	if len(reason) > hashlist.MaxReason {
		return refuse(errInvalid, "a reason of %d bytes is longer than %d", len(reason), hashlist.MaxReason)
	}
	return nil
}

// validate checks what a caller wants a statement to say, so that what is wrong
// with it is the caller's error and not the node's.
func (s *Server) validate(v hashlist.Statement) error {
	// The fields that Seal fills in are of no matter here.
	v.ID, v.Issuer = s.cfg.Origin+"/statements/x", s.cfg.Issuer.Actor()
	v.Published = time.Now().UTC().Truncate(time.Second)
	if err := v.Validate(); err != nil {
		return refuse(errInvalid, "%v", err)
	}
	return nil
}

// Submit implements the RPC.
func (l *listService) Submit(ctx context.Context, r *pb.SubmitRequest) (*pb.SubmitResponse, error) {
	s := l.s
	list, err := s.find(r.GetList())
	if err != nil {
		return nil, err
	}
	if err := s.own(list.ID); err != nil {
		return nil, err
	}
	if err := s.byHand(&list); err != nil {
		return nil, err
	}
	if len(r.GetHashes()) == 0 {
		return nil, refuse(errInvalid, "no hashes to list")
	}
	hashes, err := parseHashes(r.GetHashes())
	if err != nil {
		return nil, err
	}
	if err := s.checkQuality(r, hashes); err != nil {
		return nil, err
	}
	v := hashlist.Statement{Kind: hashlist.AddHashes, List: list.ID, Reason: r.GetReason(), Hashes: hashes}
	if v.Labels, err = labels(r.GetLabels()); err != nil {
		return nil, err
	}
	if v.Action, err = action(r.GetAction()); err != nil {
		return nil, err
	}
	if v.Expires, err = expiry(r.GetExpires()); err != nil {
		return nil, err
	}
	if v.Action == hashlist.Accept && list.Action != hashlist.Accept && !callerOf(ctx).scope.includes(ScopeAdmin) {
		return nil, refuse(errForbidden, "accept on list %s, whose action is %v, suppresses what others listed: this needs a token with scope %s",
			list.Name, list.Action, ScopeAdmin)
	}
	if err := s.validate(v); err != nil {
		return nil, err
	}
	what := decisionOf(&v, list.Action)
	if what == hashlist.ChooseBan {
		if err := s.notAccepted(hashes); err != nil {
			return nil, err
		}
	}
	if !r.GetDraft() {
		left, err := s.unlisted(&v, list.Action)
		if err == nil {
			err = s.foreseen(&list, v.Action, left, r.GetConfirmed())
		}
		if err != nil {
			return nil, err
		}
	}
	answer, err := s.listOrPropose(ctx, what, v, r.GetDraft())
	if err != nil {
		return nil, err
	}
	answer.AlreadyListed += uint32(len(r.GetHashes()) - len(hashes)) // those that were named twice
	return answer, nil
}

// notAccepted refuses to ban what this node's issuer says is harmless: its own word suppresses
// the match, so that the ban would be answered with success and do nothing.
func (s *Server) notAccepted(hashes []hashlist.Hash) error {
	for i, h := range hashes {
		for _, k := range s.cfg.Lists.Accepted(s.cfg.Issuer.Actor(), h) {
			return refuse(errState, "hash %d is allowed by this node itself, on list %s, and a ban beside that would do nothing: take that back first with `tocsin retract %s`",
				i+1, k.List, k.ID)
		}
	}
	return nil
}

// checkQuality refuses perceptual hashes of a picture that is too flat to have
// any.
func (s *Server) checkQuality(r *pb.SubmitRequest, hashes []hashlist.Hash) error {
	if r.Quality == nil {
		return nil
	}
	q := int64(r.GetQuality())
	if q > 100 {
		return refuse(errInvalid, "quality %d is more than 100", q)
	}
	if q < int64(s.cfg.Policy.MinQuality) && slices.ContainsFunc(hashes, func(h hashlist.Hash) bool { return h.Algorithm().Perceptual() }) {
		return refuse(errInvalid, "the picture's quality %d is below %d: its perceptual hashes would match unrelated pictures; list its sha256 instead",
			q, s.cfg.Policy.MinQuality)
	}
	return nil
}

// unlisted returns the hashes of v that this node's issuer does not have on the
// list, whose action is usual. It fails if one is there on terms that say less: to pass over
// it would lose what the caller says now, and to list it beside would leave both in force.
func (s *Server) unlisted(v *hashlist.Statement, usual hashlist.Action) ([]hashlist.Hash, error) {
	var out []hashlist.Hash
	for i, h := range v.Hashes {
		standing := s.cfg.Lists.Standing(v.List, s.cfg.Issuer.Actor(), h)
		if len(standing) == 0 {
			out = append(out, h)
			continue
		}
		if !slices.ContainsFunc(standing, func(k hashlist.Statement) bool { return serves(&k, v, usual) }) {
			k := &standing[0]
			terms := "for ever"
			if !k.Expires.IsZero() {
				terms = "until " + k.Expires.Format(time.RFC3339)
			}
			if k.Action != 0 {
				terms += ", action " + k.Action.String()
			}
			if len(k.Labels) > 0 {
				terms += ", labels " + strings.Join(k.Labels, ", ")
			}
			return nil, refuse(errState, "hash %d is on the list on other terms already (%s): retract statement %s first", i+1, terms, k.ID)
		}
	}
	return out, nil
}

// serves reports whether a statement that stands says all that a new one would:
// an action at least as grave, the labels, and for as long.
func serves(standing, v *hashlist.Statement, usual hashlist.Action) bool {
	has, wants := cmp.Or(standing.Action, usual), cmp.Or(v.Action, usual)
	return has >= wants && (has == hashlist.Accept) == (wants == hashlist.Accept) &&
		!slices.ContainsFunc(v.Labels, func(l string) bool { return !slices.Contains(standing.Labels, l) }) &&
		(standing.Expires.IsZero() || !v.Expires.IsZero() && !standing.Expires.Before(v.Expires))
}

// Retract implements the RPC. What is not in force any more is not retracted
// again: then no statement is made, and retracted is 0.
func (l *listService) Retract(ctx context.Context, r *pb.RetractRequest) (*pb.RetractResponse, error) {
	s := l.s
	hashes, err := parseHashes(r.GetHashes())
	if err != nil {
		return nil, err
	}
	if err := checkReason(r.GetReason()); err != nil {
		return nil, err
	}
	issuer, seq, known := s.cfg.Lists.Issued(r.GetStatementId())
	if !known {
		return nil, refuse(errUnknown, "there is no statement %.*s", hashlist.MaxIRI, r.GetStatementId())
	}
	if issuer != s.cfg.Issuer.Actor() {
		return nil, refuse(errState, "that statement is %s's: only they can retract it", issuer)
	}
	s.retracting.Lock()
	defer s.retracting.Unlock()
	said, err := s.statement(ctx, seq)
	if err != nil {
		return nil, err
	}
	if said.Kind == hashlist.DefineList {
		return nil, refuse(errInvalid, "that statement defines list %s: remove the list instead", said.List)
	}
	for i, h := range hashes {
		if !slices.Contains(said.Hashes, h) {
			return nil, refuse(errInvalid, "hash %d is not in that statement", i+1)
		}
	}
	for i, subject := range r.GetSubjects() {
		if !slices.Contains(said.Subjects, subject) {
			return nil, refuse(errInvalid, "account, server or address %d is not in that statement: `tocsin list entries` shows what is", i+1)
		}
	}
	v := hashlist.Statement{Kind: hashlist.Retraction, List: said.List, Retracts: said.ID, Reason: r.GetReason()}
	ends := s.standing(said)
	if len(hashes) > 0 {
		v.Hashes = slices.DeleteFunc(s.cfg.Lists.InForce(said), func(h hashlist.Hash) bool { return !slices.Contains(hashes, h) })
		ends = len(v.Hashes)
	}
	if len(r.GetSubjects()) > 0 {
		v.Subjects = slices.DeleteFunc(slices.Clone(s.cfg.Lists.SubjectsInForce(said)), func(subject string) bool { return !slices.Contains(r.GetSubjects(), subject) })
		ends = len(v.Subjects)
	}
	if ends == 0 {
		return &pb.RetractResponse{Kind: said.Kind.String()}, nil
	}
	if err := s.validate(v); err != nil {
		return nil, err
	}
	if r.GetDraft() {
		draft, err := s.draft(v)
		return &pb.RetractResponse{Kind: said.Kind.String(), Draft: draft, Retracted: uint32(ends)}, err
	}
	if s.takesTwo(0, hashlist.ChooseWithdraw) {
		id, err := s.propose(ctx, hashlist.ChooseWithdraw, v)
		return &pb.RetractResponse{Kind: said.Kind.String(), ReviewId: id}, err
	}
	records, err := s.seal(ctx, v)
	if err != nil {
		return nil, err
	}
	return &pb.RetractResponse{StatementId: records[0].Statement.ID, Seq: records[0].Seq, Retracted: uint32(ends), Kind: said.Kind.String()}, nil
}

// standing is how much of a statement is in force: hashes, subjects, or the opinion that it is.
func (s *Server) standing(said *hashlist.Statement) int {
	switch said.Kind {
	case hashlist.AddHashes:
		return len(s.cfg.Lists.InForce(said))
	case hashlist.Confirmation, hashlist.Dispute:
		confirmed, disputed := s.cfg.Lists.About(said.About)
		for _, o := range slices.Concat(confirmed, disputed) {
			if o.ID == said.ID {
				return 1
			}
		}
		return 0
	}
	if said.Kind == hashlist.Vouch {
		for _, v := range s.cfg.Lists.Vouchings(said.Issuer, said.Vouch.Object) {
			if v.ID == said.ID {
				return 1
			}
		}
		return 0
	}
	return len(s.cfg.Lists.SubjectsInForce(said))
}

// statement reads one statement from the log: the fold does not keep the hashes
// of a statement together.
func (s *Server) statement(ctx context.Context, seq uint64) (*hashlist.Statement, error) {
	for r, err := range s.cfg.Lists.After(ctx, seq-1, hashlist.Selection{}) {
		if err != nil {
			return nil, err
		}
		if r.Seq == seq {
			return &r.Statement, nil
		}
		break
	}
	return nil, fmt.Errorf("statement %d is in the index and not in the log", seq)
}
