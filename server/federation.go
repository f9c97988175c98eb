package server

import (
	"context"
	"crypto/ed25519"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// Federation is what an operator may ask of what this node has to do with
// others. A *federation.Node does all of it but RotateKey, which also has files to keep.
type Federation interface {
	Follow(ctx context.Context, address string, most hashlist.Verdict) (federation.FollowStatus, error)
	FollowByTrust(ctx context.Context, address string, most hashlist.Verdict, byTrust bool) (federation.FollowStatus, error)
	Unfollow(ctx context.Context, list string) (federation.FollowStatus, error)
	FollowAnew(ctx context.Context, list string) (federation.FollowStatus, error)
	Follows() []federation.FollowStatus
	Followers(list string) ([]federation.FollowerStatus, error)
	Decide(ctx context.Context, list, follower string, approve bool) (federation.FollowerStatus, error)
	PeerStatuses() []federation.PeerStatus
	Outbox(ctx context.Context) ([]federation.OutboxStatus, error)
	Verify(ctx context.Context, list string, with []string) (*federation.Verification, error)
	Inspect(ctx context.Context, address string) (*federation.Inspection, error)
	IssuerKeys(issuer string) []federation.Key
	KeyMarks(issuer string) map[string]federation.KeyMark
	LearnIssuer(ctx context.Context, address string) (string, error)
	VerifyKey(ctx context.Context, issuer, fingerprint, who string) (federation.Key, error)
	Counters() federation.Counters
	// Readable says who may read a list of this node: approved is asked where that is only for some.
	Readable(list string, approved func() bool) bool
	// RotateKey gives this node's issuer a new key: the one given, whose private half is kept
	// elsewhere, or else one that it makes and keeps. When it returns, Config.Issuer
	// signs with that key, or with none.
	RotateKey(ctx context.Context, public ed25519.PublicKey, compromised time.Time) error
}

// maxWith is how many other nodes one Verify asks beside those that are known.
const maxWith = 64

type federationService struct {
	pb.UnimplementedFederationServiceServer
	s *Server
}

// federation returns what the operator may ask, or why nothing can be.
func (s *Server) federation() (Federation, error) {
	if s.cfg.Federation == nil {
		return nil, refuse(errState, "federation is off: set federation.address in config.toml and start the node again")
	}
	return s.cfg.Federation, nil
}

// when is a moment in an answer, absent if there is none.
func when(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func followMessage(f *federation.FollowStatus) *pb.Follow {
	return &pb.Follow{
		List: f.List, Name: f.Name, Summary: f.Summary, Issuers: f.Issuers, State: pb.FollowState(f.State), Most: pb.Verdict(f.Most),
		Asked: when(f.Asked), Answered: when(f.Answered), Told: f.Told, Position: f.Position, HeadSize: f.HeadSize,
		Skipped: f.Skipped, Checked: when(f.Checked), Trouble: f.Trouble, ByTrust: f.Terms.ByTrust, TrustOnly: f.Terms.TrustOnly, Headless: f.Headless,
	}
}

func followerMessage(f *federation.FollowerStatus) *pb.Follower {
	return &pb.Follower{
		List: f.List, ListName: f.ListName, Actor: f.Actor, State: pb.FollowerState(f.State),
		Asked: when(f.Asked), Decided: when(f.Decided), Told: f.Told, Position: f.Position, Size: f.Size,
	}
}

func checkMessages(all []federation.Check) []*pb.Check {
	messages := make([]*pb.Check, len(all))
	for i, c := range all {
		messages[i] = &pb.Check{Name: c.Name, Passed: c.Passed, Detail: c.Detail, Alarm: c.Alarm}
	}
	return messages
}

// checkAddress refuses what is too long to be an address before anybody works on it.
func checkAddress(what, address string) error {
	if address == "" || len(address) > hashlist.MaxIRI {
		return refuse(errInvalid, "%s of %d bytes is not 1 to %d bytes long", what, len(address), hashlist.MaxIRI)
	}
	return nil
}

// Follow implements the RPC.
func (f *federationService) Follow(ctx context.Context, r *pb.FollowRequest) (*pb.FollowResponse, error) {
	fed, err := f.s.federation()
	if err != nil {
		return nil, err
	}
	if err := checkAddress("address", r.GetAddress()); err != nil {
		return nil, err
	}
	most := hashlist.Verdict(r.GetMost())
	switch r.GetMost() {
	case pb.Verdict_VERDICT_FLAG, pb.Verdict_VERDICT_HOLD, pb.Verdict_VERDICT_REJECT:
	case pb.Verdict_VERDICT_UNSPECIFIED:
		most = 0 // as it was: asking again must not lift what the operator once set
	default:
		return nil, refuse(errInvalid, "the gravest verdict is %d (want flag, hold or reject)", r.GetMost())
	}
	address := r.GetAddress()
	if iri, err := f.s.followed(address); err == nil {
		address = iri // nobody need be asked where it is
	}
	var v federation.FollowStatus
	if r.ByTrust != nil {
		v, err = fed.FollowByTrust(ctx, address, most, r.GetByTrust())
	} else {
		v, err = fed.Follow(ctx, address, most)
	}
	if err != nil {
		return nil, err
	}
	return &pb.FollowResponse{Follow: followMessage(&v)}, nil
}

// Unfollow implements the RPC.
func (f *federationService) Unfollow(ctx context.Context, r *pb.UnfollowRequest) (*pb.UnfollowResponse, error) {
	fed, err := f.s.federation()
	if err != nil {
		return nil, err
	}
	iri, err := f.s.followed(r.GetList())
	if err != nil {
		return nil, err
	}
	v, err := fed.Unfollow(ctx, iri)
	if err != nil {
		return nil, err
	}
	return &pb.UnfollowResponse{Follow: followMessage(&v)}, nil
}

// FollowAnew implements the RPC.
func (f *federationService) FollowAnew(ctx context.Context, r *pb.FollowAnewRequest) (*pb.FollowAnewResponse, error) {
	fed, err := f.s.federation()
	if err != nil {
		return nil, err
	}
	iri, err := f.s.followed(r.GetList())
	if err != nil {
		return nil, err
	}
	v, err := fed.FollowAnew(ctx, iri)
	if err != nil {
		return nil, err
	}
	return &pb.FollowAnewResponse{Follow: followMessage(&v)}, nil
}

// ListFollows implements the RPC.
func (f *federationService) ListFollows(context.Context, *pb.ListFollowsRequest) (*pb.ListFollowsResponse, error) {
	fed, err := f.s.federation()
	if err != nil {
		return nil, err
	}
	v := &pb.ListFollowsResponse{}
	for _, w := range fed.Follows() {
		v.Follows = append(v.Follows, followMessage(&w))
	}
	return v, nil
}

// ListPeers implements the RPC.
func (f *federationService) ListPeers(context.Context, *pb.ListPeersRequest) (*pb.ListPeersResponse, error) {
	fed, err := f.s.federation()
	if err != nil {
		return nil, err
	}
	v := &pb.ListPeersResponse{}
	for _, p := range fed.PeerStatuses() {
		v.Peers = append(v.Peers, &pb.Peer{
			Origin: p.Origin, Follows: uint32(p.Follows), Followers: uint32(p.Followers), Failing: when(p.Failing), Failures: p.Failures,
			Retired: p.Retired, Next: when(p.Next), Trouble: p.Trouble, Scheme: p.Scheme, Heard: when(p.Heard),
		})
	}
	return v, nil
}

// GetOutbox implements the RPC.
func (f *federationService) GetOutbox(ctx context.Context, r *pb.GetOutboxRequest) (*pb.GetOutboxResponse, error) {
	fed, err := f.s.federation()
	if err != nil {
		return nil, err
	}
	only := ""
	if r.GetList() != "" {
		list, err := f.s.find(r.GetList())
		if err != nil {
			return nil, err
		}
		if err := f.s.own(list.ID); err != nil {
			return nil, err
		}
		if list.Audience == hashlist.Local {
			return nil, refuse(errState, "list %s never leaves this node: give it another audience with `tocsin list edit %s --audience followers`", list.Name, list.Name)
		}
		only = list.ID
	}
	lists, err := fed.Outbox(ctx)
	if err != nil {
		return nil, err
	}
	v := &pb.GetOutboxResponse{}
	for _, o := range lists {
		if only == "" || o.List == only {
			v.Lists = append(v.Lists, &pb.Outbox{
				List: o.List, Name: o.Name, Audience: pb.Audience(o.Audience), Size: o.Size, Root: o.Root[:], Head: o.Head,
				Followers: uint32(o.Followers), Waiting: uint32(o.Waiting), Behind: uint32(o.Behind),
			})
		}
	}
	return v, nil
}

// Verify implements the RPC.
func (f *federationService) Verify(ctx context.Context, r *pb.VerifyRequest) (*pb.VerifyResponse, error) {
	fed, err := f.s.federation()
	if err != nil {
		return nil, err
	}
	if len(r.GetWith()) > maxWith {
		return nil, refuse(errInvalid, "%d other nodes to ask are more than %d", len(r.GetWith()), maxWith)
	}
	for _, w := range r.GetWith() {
		if err := checkAddress("address of another node", w); err != nil {
			return nil, err
		}
	}
	iri, err := f.s.resolve(r.GetList())
	if err != nil {
		return nil, err
	}
	v, err := fed.Verify(ctx, iri, r.GetWith())
	if err != nil {
		return nil, err
	}
	return &pb.VerifyResponse{List: v.List, Size: v.Size, Root: v.Root[:], Checks: checkMessages(v.Checks), Passed: v.Passed()}, nil
}

// Inspect implements the RPC.
func (f *federationService) Inspect(ctx context.Context, r *pb.InspectRequest) (*pb.InspectResponse, error) {
	fed, err := f.s.federation()
	if err != nil {
		return nil, err
	}
	if err := checkAddress("address", r.GetAddress()); err != nil {
		return nil, err
	}
	v, err := fed.Inspect(ctx, r.GetAddress())
	if err != nil {
		return nil, err
	}
	return &pb.InspectResponse{
		Address: v.Address, Kind: v.Kind, Id: v.ID, Summary: v.Summary, Checks: checkMessages(v.Checks), Passed: v.Passed(),
	}, nil
}
