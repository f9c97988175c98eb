package server

import (
	"context"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// ListFollowers implements the RPC.
func (f *federationService) ListFollowers(_ context.Context, r *pb.ListFollowersRequest) (*pb.ListFollowersResponse, error) {
	fed, err := f.s.federation()
	if err != nil {
		return nil, err
	}
	list, err := f.s.ownOrAll(r.GetList())
	if err != nil {
		return nil, err
	}
	all, err := fed.Followers(list)
	if err != nil {
		return nil, err
	}
	v := &pb.ListFollowersResponse{}
	for _, w := range all {
		v.Followers = append(v.Followers, followerMessage(&w))
	}
	return v, nil
}

// ownOrAll resolves how a list of this node is named, "" for all. A list that was
// removed still has its followers, so it need not be defined.
func (s *Server) ownOrAll(ref string) (iri string, err error) {
	if ref == "" {
		return "", nil
	}
	if iri, err = s.resolve(ref); err != nil {
		return "", err
	}
	return iri, s.own(iri)
}

// DecideFollower implements the RPC.
func (f *federationService) DecideFollower(ctx context.Context, r *pb.DecideFollowerRequest) (*pb.DecideFollowerResponse, error) {
	fed, err := f.s.federation()
	if err != nil {
		return nil, err
	}
	if err := checkAddress("follower", r.GetFollower()); err != nil {
		return nil, err
	}
	list, err := f.s.ownOrAll(r.GetList())
	if err != nil {
		return nil, err
	}
	all, err := fed.Followers(list)
	if err != nil {
		return nil, err
	}
	chosen, err := choose(all, r.GetFollower(), r.GetDecision())
	if err != nil {
		return nil, err
	}
	v, err := fed.Decide(ctx, chosen.List, chosen.Actor, r.GetDecision() == pb.Decision_DECISION_APPROVE)
	if err != nil {
		return nil, err
	}
	return &pb.DecideFollowerResponse{Follower: followerMessage(&v)}, nil
}

// decidable are the states in which a follower can be decided about so. Who was
// rejected may still be approved: a decision may be regretted.
var decidable = map[pb.Decision][]federation.FollowerState{
	pb.Decision_DECISION_APPROVE: {federation.FollowerAsked, federation.FollowerRejected},
	pb.Decision_DECISION_REJECT:  {federation.FollowerAsked},
	pb.Decision_DECISION_REMOVE:  {federation.FollowerApproved},
}

// choose finds the one follower that is meant. What fits several is refused and
// told, not guessed: it decides who may read a list.
func choose(all []federation.FollowerStatus, ref string, d pb.Decision) (*federation.FollowerStatus, error) {
	states, known := decidable[d]
	if !known {
		return nil, refuse(errInvalid, "unknown decision %d (want approve, reject or remove)", d)
	}
	var named, fit []*federation.FollowerStatus
	for i := range all {
		if w := &all[i]; refersTo(ref, w.Actor) {
			if named = append(named, w); slices.Contains(states, w.State) {
				fit = append(fit, w)
			}
		}
	}
	// Who waits is meant before who was rejected long ago.
	if waiting := slices.DeleteFunc(slices.Clone(fit), func(w *federation.FollowerStatus) bool { return w.State != federation.FollowerAsked }); len(waiting) > 0 {
		fit = waiting
	}
	switch {
	case len(named) == 0:
		return nil, fmt.Errorf("%w: %.*s; `tocsin followers` shows who asked", federation.ErrUnknownFollower, hashlist.MaxIRI, ref)
	case len(fit) == 0:
		w := named[0]
		advice := ""
		if w.State == federation.FollowerAsked && d == pb.Decision_DECISION_REMOVE {
			advice = ": reject it"
		} else if w.State == federation.FollowerApproved && d == pb.Decision_DECISION_REJECT {
			advice = ": remove it"
		}
		return nil, refuse(errState, "%s %s for list %s%s", w.Actor, followerStates[w.State], w.ListName, advice)
	case len(fit) > 1:
		var which []string
		for _, w := range fit {
			which = append(which, w.Actor+" for list "+w.ListName)
		}
		return nil, refuse(errInvalid, "that may mean %s: name the list, and the follower by its address", strings.Join(which, ", or "))
	}
	return fit[0], nil
}

var followerStates = map[federation.FollowerState]string{
	federation.FollowerAsked: "waits for a decision", federation.FollowerApproved: "is approved already",
	federation.FollowerRejected: "is rejected already", federation.FollowerLeft: "has left and would have to ask again",
}

// refersTo reports whether an actor is meant by its address, by @name@host, or by
// its host. The actor of a whole server is named like its host. Addresses are made up by their own
// server, so a name is only ever as good as the host that stands behind it.
func refersTo(ref, actor string) bool {
	if ref == actor {
		return true
	}
	u, err := url.Parse(actor)
	if err != nil || strings.Contains(ref, "/") {
		return false
	}
	name, host, both := strings.Cut(strings.TrimPrefix(ref, "@"), "@")
	if !both {
		return name == u.Host
	}
	return host == u.Host && (name == host || name == u.Hostname() || name == strings.TrimPrefix(path.Base(u.Path), "@"))
}
