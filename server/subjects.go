package server

import (
	"context"
	"slices"

	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// SubmitSubjects implements the RPC.
func (l *statementService) SubmitSubjects(ctx context.Context, r *pb.SubmitSubjectsRequest) (*pb.SubmitSubjectsResponse, error) {
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
	v := hashlist.Statement{List: list.ID, Reason: r.GetReason(), Subjects: slices.Clone(r.GetSubjects())}
	switch r.GetKind() {
	case pb.SubjectKind_SUBJECT_KIND_ACCOUNT:
		v.Kind = hashlist.AddAccounts
	case pb.SubjectKind_SUBJECT_KIND_INSTANCE:
		v.Kind = hashlist.AddInstances
	case pb.SubjectKind_SUBJECT_KIND_CONTENT:
		v.Kind = hashlist.AddContent
	default:
		return nil, refuse(errInvalid, "unknown kind of subject %d", r.GetKind())
	}
	if v.Labels, err = labels(r.GetLabels()); err != nil {
		return nil, err
	}
	if v.Action, err = action(r.GetAction()); err != nil {
		return nil, err
	}
	what := decisionOf(&v, list.Action)
	if err := maySuppress(ctx, what); err != nil {
		return nil, err
	}
	if v.Expires, err = expiry(r.GetExpires()); err != nil {
		return nil, err
	}
	if err := s.validate(v); err != nil {
		return nil, err
	}
	s.opining.Lock() // so that the same is not listed twice
	defer s.opining.Unlock()
	all := len(v.Subjects)
	if v.Subjects, err = s.unlistedSubjects(&v, list.Action); err != nil {
		return nil, err
	}
	answer := &pb.SubmitSubjectsResponse{AlreadyListed: uint32(all - len(v.Subjects))}
	switch {
	case len(v.Subjects) == 0:
		return answer, nil
	case r.GetDraft():
		answer.Draft, err = s.draft(v)
		return answer, err
	case s.takesTwo(0, what):
		answer.ReviewId, err = s.propose(ctx, what, v)
		return answer, err
	}
	records, err := s.seal(context.WithoutCancel(ctx), v)
	if err != nil {
		return nil, err
	}
	answer.StatementId, answer.Seq = records[0].Statement.ID, records[0].Seq
	return answer, nil
}

// unlistedSubjects is unlisted for what is no media.
func (s *Server) unlistedSubjects(v *hashlist.Statement, usual hashlist.Action) ([]string, error) {
	var out []string
	for i, subject := range v.Subjects {
		var standing []hashlist.Statement
		for _, k := range s.cfg.Lists.Subject(v.Kind, subject) {
			if k.List == v.List && k.Issuer == s.cfg.Issuer.Actor() {
				standing = append(standing, k)
			}
		}
		if len(standing) == 0 {
			out = append(out, subject)
		} else if !slices.ContainsFunc(standing, func(k hashlist.Statement) bool { return serves(&k, v, usual) }) {
			return nil, refuse(errState, "number %d is on the list on other terms already: retract statement %s first", i+1, standing[0].ID)
		}
	}
	return out, nil
}
