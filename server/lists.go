package server

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

type listService struct {
	pb.UnimplementedListServiceServer
	s *Server
}

// seal signs a statement of this node's issuer and applies it.
func (s *Server) seal(ctx context.Context, statements ...hashlist.Statement) ([]hashlist.Record, error) {
	records := make([]hashlist.Record, len(statements))
	for i, v := range statements {
		r, err := s.cfg.Issuer.Seal(v)
		if err != nil {
			return nil, err
		}
		records[i] = r
	}
	seqs, err := s.cfg.Lists.Apply(ctx, records...)
	if err != nil {
		return nil, err
	}
	for i := range records {
		records[i].Seq = seqs[i]
	}
	return records, nil
}

// labels puts labels into the order that statements want.
func labels(names []string) ([]string, error) {
	names = slices.Clone(names)
	slices.Sort(names)
	names = slices.Compact(names)
	if err := hashlist.CheckLabels(names); err != nil {
		return nil, refuse(errInvalid, "%v", err)
	}
	return names, nil
}

// definition reads what a caller says of a list.
func definition(v *pb.List) (*hashlist.Definition, error) {
	if v == nil {
		return nil, refuse(errInvalid, "no list was described")
	}
	d := &hashlist.Definition{
		Name: v.GetName(), Summary: v.GetSummary(),
		Audience: hashlist.Followers, Action: hashlist.Reject, Radii: hashlist.DefaultRadii,
	}
	var err error
	if d.Labels, err = labels(v.GetLabels()); err != nil {
		return nil, err
	}
	if a := v.GetAudience(); a != pb.Audience_AUDIENCE_UNSPECIFIED {
		if _, known := pb.Audience_name[int32(a)]; !known {
			return nil, refuse(errInvalid, "unknown audience %d", a)
		}
		d.Audience = hashlist.Audience(a)
	}
	if a := v.GetAction(); a != pb.Action_ACTION_UNSPECIFIED {
		if d.Action, err = action(a); err != nil {
			return nil, err
		}
	}
	for name, r := range v.GetRadius() {
		a, err := hashlist.ParseAlgorithm(name)
		if err != nil {
			return nil, invalid("radius", err)
		}
		if !a.Perceptual() || r > uint32(a.MaxRadius()) {
			return nil, refuse(errInvalid, "radius %d of %v is more than %d", r, a, a.MaxRadius())
		}
		d.Radii[a] = uint8(r)
	}
	if err := d.Validate(); err != nil {
		return nil, refuse(errInvalid, "%v", err)
	}
	return d, nil
}

func action(a pb.Action) (hashlist.Action, error) {
	if _, known := pb.Action_name[int32(a)]; !known {
		return 0, refuse(errInvalid, "unknown action %d", a)
	}
	return hashlist.Action(a), nil
}

// listMessage describes a list, with what this node has to do with it.
func (s *Server) listMessage(l *hashlist.List) *pb.List {
	v := &pb.List{
		Id: l.ID, Name: l.Name, Summary: l.Summary, Labels: l.Labels,
		Audience: pb.Audience(l.Audience), Action: pb.Action(l.Action), Radius: map[string]uint32{},
		Hashes: uint64(l.Hashes), Statements: uint64(l.Statements), Issuer: l.Issuer, Updated: timestamppb.New(l.Updated),
		Own: s.own(l.ID) == nil, Follow: pb.FollowState(s.following(l.ID)),
	}
	for _, a := range hashlist.Algorithms {
		if a.Perceptual() {
			v.Radius[a.String()] = uint32(l.Radii[a])
		}
	}
	return v
}

// CreateList implements the RPC. A definition that is the same as the one that
// counts is not made again.
func (l *listService) CreateList(ctx context.Context, r *pb.CreateListRequest) (*pb.CreateListResponse, error) {
	s := l.s
	d, err := definition(r.GetList())
	if err != nil {
		return nil, err
	}
	iri, err := s.listIRI(d.Name)
	if err != nil {
		return nil, err
	}
	if id := r.GetList().GetId(); id != "" && id != iri {
		return nil, refuse(errInvalid, "list %s has the address %s: leave the address out", d.Name, iri)
	}
	s.defining.Lock()
	defer s.defining.Unlock()
	v := hashlist.Statement{Kind: hashlist.DefineList, List: iri, Definition: d}
	now, ok := s.cfg.Lists.List(iri)
	if ok {
		if same(&now.Definition, d) {
			return &pb.CreateListResponse{List: s.listMessage(&now)}, nil
		}
		// Of two definitions the later counts, and times are in whole seconds.
		v.Published = time.Now().UTC().Truncate(time.Second)
		if !v.Published.After(now.Updated) {
			v.Published = now.Updated.Add(time.Second)
		}
	} else if err := s.checkListName(d.Name); err != nil {
		return nil, err
	}
	if err := s.checkPartner(iri, d); err != nil {
		return nil, err
	}
	if r.GetDraft() {
		draft, err := s.draft(v)
		if err != nil {
			return nil, err
		}
		now.Definition, now.ID, now.Issuer = *d, iri, s.cfg.Issuer.Actor()
		return &pb.CreateListResponse{List: s.listMessage(&now), Draft: draft}, nil
	}
	if _, err := s.seal(ctx, v); err != nil {
		return nil, err
	}
	made, ok := s.cfg.Lists.List(iri)
	if !ok {
		return nil, fmt.Errorf("list %s is not there after it was defined", iri)
	}
	return &pb.CreateListResponse{List: s.listMessage(&made)}, nil
}

func same(a, b *hashlist.Definition) bool {
	return a.Name == b.Name && a.Summary == b.Summary && slices.Equal(a.Labels, b.Labels) &&
		a.Audience == b.Audience && a.Action == b.Action && a.Radii == b.Radii
}

// RemoveList implements the RPC.
func (l *listService) RemoveList(ctx context.Context, r *pb.RemoveListRequest) (*pb.RemoveListResponse, error) {
	s := l.s
	list, err := s.find(r.GetList())
	if err != nil {
		return nil, err
	}
	if err := s.own(list.ID); err != nil {
		return nil, err
	}
	if err := checkReason(r.GetReason()); err != nil {
		return nil, err
	}
	if !r.GetDraft() {
		if err := s.barTwo(hashlist.ChooseWithdraw, "to remove a list", "remove it with --draft, let a second person look, then sign and publish it"); err != nil {
			return nil, err
		}
	}
	s.defining.Lock()
	defer s.defining.Unlock()
	var statements []hashlist.Statement
	for _, id := range s.cfg.Lists.Definitions(list.ID) {
		if issuer, _, _ := s.cfg.Lists.Issued(id); issuer != s.cfg.Issuer.Actor() {
			return nil, refuse(errState, "list %s is defined by %s too: only they can take that back", list.ID, issuer)
		}
		statements = append(statements, hashlist.Statement{
			Kind: hashlist.Retraction, List: list.ID, Retracts: id, Reason: r.GetReason(),
		})
	}
	answer := &pb.RemoveListResponse{}
	if r.GetDraft() {
		for _, v := range statements {
			draft, err := s.draft(v)
			if err != nil {
				return nil, err
			}
			answer.Drafts = append(answer.Drafts, draft)
		}
	} else if len(statements) > 0 {
		if _, err := s.seal(ctx, statements...); err != nil {
			return nil, err
		}
	}
	return answer, nil
}

// GetList implements the RPC.
func (l *listService) GetList(_ context.Context, r *pb.GetListRequest) (*pb.GetListResponse, error) {
	v, err := l.s.find(r.GetList())
	if err != nil {
		return nil, err
	}
	return &pb.GetListResponse{List: l.s.listMessage(&v)}, nil
}

// ListLists implements the RPC.
func (l *listService) ListLists(context.Context, *pb.ListListsRequest) (*pb.ListListsResponse, error) {
	seq := l.s.cfg.Lists.Seq() // before the lists are read: they may be newer, not older
	v := &pb.ListListsResponse{IndexSeq: seq}
	for _, list := range l.s.cfg.Lists.All() {
		v.Lists = append(v.Lists, l.s.listMessage(&list))
	}
	return v, nil
}
