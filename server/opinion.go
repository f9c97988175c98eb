package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

type statementService struct {
	pb.UnimplementedStatementServiceServer
	s *Server
}

// opinion is what somebody wants to say of a statement.
type opinion struct {
	what    hashlist.ReviewChoice // confirm, dispute or ignore
	about   string
	list    string // name or address; "" for the configured one
	reason  string
	expires time.Time
}

// opine makes the statement that says an opinion. If it stands already, given is its id.
func (s *Server) opine(ctx context.Context, o opinion) (v hashlist.Statement, given string, err error) {
	issuer, _, known := s.cfg.Lists.Issued(o.about)
	if !known {
		return v, "", refuse(errUnknown, "there is no statement %.*s here", hashlist.MaxIRI, o.about)
	}
	own := s.cfg.Issuer.Actor()
	if issuer == own {
		if o.what == hashlist.ChooseConfirm {
			return v, "", refuse(errState, "that statement is this node's own: it says so already")
		}
		return v, "", refuse(errState, "that statement is this node's own: retract it")
	}
	v = hashlist.Statement{Kind: hashlist.Dispute, About: o.about, Reason: o.reason, Expires: o.expires}
	if o.what == hashlist.ChooseConfirm {
		v.Kind = hashlist.Confirmation
	}
	list, err := s.listOf(ctx, o)
	if err != nil {
		return v, "", err
	}
	v.List = list.ID
	confirmed, disputed := s.cfg.Lists.About(o.about)
	same, other := disputed, confirmed
	if o.what == hashlist.ChooseConfirm {
		same, other = confirmed, disputed
	}
	for _, k := range other {
		if k.Issuer == own {
			return v, "", refuse(errState, "this node says the opposite already, in statement %s: retract that first", k.ID)
		}
	}
	for _, k := range same {
		if k.Issuer == own && k.List == v.List && (k.Expires.IsZero() || !v.Expires.IsZero() && !k.Expires.Before(v.Expires)) {
			return v, k.ID, nil
		}
	}
	return v, "", s.validate(v)
}

// listOf is the list that an opinion goes to, made when it is first needed.
func (s *Server) listOf(ctx context.Context, o opinion) (hashlist.List, error) {
	if o.what == hashlist.ChooseIgnore {
		if o.list != "" && o.list != s.cfg.Review.Decisions {
			return hashlist.List{}, refuse(errInvalid, "what is ignored here goes on the local list %s: to tell others, dispute it", s.cfg.Review.Decisions)
		}
		return s.decisions(ctx)
	}
	if o.list == "" || o.list == s.cfg.Review.Opinions {
		return s.made(ctx, hashlist.Definition{
			Name: s.cfg.Review.Opinions, Summary: "What we think of others' statements", Audience: s.cfg.Review.OpinionsAudience,
			Action: hashlist.Filter, Radii: hashlist.DefaultRadii,
		})
	}
	list, err := s.find(o.list)
	if err != nil {
		return list, err
	}
	return list, s.own(list.ID)
}

// decisions is the list of what was decided here for this node alone.
func (s *Server) decisions(ctx context.Context) (hashlist.List, error) {
	list, err := s.made(ctx, hashlist.Definition{
		Name: s.cfg.Review.Decisions, Summary: "What we decided for ourselves", Audience: hashlist.Local,
		Action: hashlist.Reject, Radii: hashlist.DefaultRadii,
	})
	if err == nil && list.Audience != hashlist.Local {
		return list, refuse(errState, "list %s may be read by others (%v), and what is decided here alone does not belong on it: name another in review.decisions",
			list.Name, list.Audience)
	}
	return list, err
}

// made finds a list of this node by its name, and makes it if it is not there.
func (s *Server) made(ctx context.Context, d hashlist.Definition) (hashlist.List, error) {
	iri, err := s.listIRI(d.Name)
	if err != nil {
		return hashlist.List{}, err
	}
	s.defining.Lock()
	defer s.defining.Unlock()
	if list, ok := s.cfg.Lists.List(iri); ok {
		return list, nil
	}
	if err := s.checkListName(d.Name); err != nil {
		return hashlist.List{}, err
	}
	_, err = s.seal(ctx, hashlist.Statement{Kind: hashlist.DefineList, List: iri, Definition: &d})
	switch {
	case errors.Is(err, ErrOffline):
		return hashlist.List{}, refuse(errState, "list %[1]s is not there yet, and the issuer's key is kept elsewhere: make it first, "+
			"with `tocsin list create %[1]s --audience %[2]v --action %[3]v --draft`, `tocsin sign` and `tocsin publish`", d.Name, d.Audience, d.Action)
	case err != nil:
		return hashlist.List{}, err
	}
	s.log.Info("made a list, because it was first needed", "list", d.Name, "audience", d.Audience.String())
	list, ok := s.cfg.Lists.List(iri)
	if !ok {
		return list, fmt.Errorf("list %s is not there after it was defined", iri)
	}
	return list, nil
}

// say signs an opinion, applies it, and has a dispute sent to the one whose statement it
// is about.
func (s *Server) say(ctx context.Context, what hashlist.ReviewChoice, v hashlist.Statement) (id string, err error) {
	records, err := s.seal(ctx, v)
	if err != nil {
		return "", err
	}
	id = records[0].Statement.ID
	if what == hashlist.ChooseDispute {
		s.tellIssuer(ctx, v.About, id)
	}
	return id, nil
}

// SubmitOpinion implements the RPC.
func (l *statementService) SubmitOpinion(ctx context.Context, r *pb.SubmitOpinionRequest) (*pb.SubmitOpinionResponse, error) {
	s := l.s
	o := opinion{about: r.GetStatementId(), list: r.GetList(), reason: r.GetReason()}
	switch r.GetOpinion() {
	case pb.Opinion_OPINION_CONFIRM:
		o.what = hashlist.ChooseConfirm
	case pb.Opinion_OPINION_DISPUTE:
		o.what = hashlist.ChooseDispute
	case pb.Opinion_OPINION_IGNORE:
		o.what = hashlist.ChooseIgnore
	default:
		return nil, refuse(errInvalid, "unknown opinion %d", r.GetOpinion())
	}
	if err := maySuppress(ctx, o.what); err != nil {
		return nil, err
	}
	if err := checkReason(o.reason); err != nil {
		return nil, err
	}
	if o.reason == "" && o.what == hashlist.ChooseDispute {
		return nil, refuse(errInvalid, "a dispute without a reason helps nobody: say why")
	}
	var err error
	if o.expires, err = expiry(r.GetExpires()); err != nil {
		return nil, err
	}
	s.opining.Lock() // so that the same is not said twice
	defer s.opining.Unlock()
	v, given, err := s.opine(ctx, o)
	if err != nil {
		return nil, err
	}
	answer := &pb.SubmitOpinionResponse{StatementId: given, GivenBefore: given != ""}
	if given != "" {
		_, answer.Seq, _ = s.cfg.Lists.Issued(given)
		return answer, nil
	}
	if r.GetDraft() {
		answer.Draft, err = s.draft(v)
		return answer, err
	}
	if s.takesTwo(0, o.what) {
		answer.ReviewId, err = s.propose(ctx, o.what, v)
		return answer, err
	}
	ctx = context.WithoutCancel(ctx)
	if answer.StatementId, err = s.say(ctx, o.what, v); err != nil {
		return nil, err
	}
	_, answer.Seq, _ = s.cfg.Lists.Issued(answer.StatementId)
	if o.what == hashlist.ChooseDispute && s.cfg.Federation != nil {
		answer.SentTo = hostOf(o.about)
	}
	return answer, nil
}
