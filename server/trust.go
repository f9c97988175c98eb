package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

type trustService struct {
	pb.UnimplementedTrustServiceServer
	s *Server
}

// maxAsked bounds the labels that one GetIssuer tells the belief for.
const maxAsked = 256

// issuer makes the address of an issuer from how they are named. With met, one whom this
// node does not know is fetched, and their keys are kept.
func (s *Server) issuer(ctx context.Context, ref string, met bool) (string, error) {
	if err := checkAddress("issuer", ref); err != nil {
		return "", err
	}
	if !met && strings.Contains(ref, "/") {
		if _, err := hashlist.Origin(ref); err != nil {
			return "", invalid("issuer", err)
		}
		return ref, nil
	}
	if s.cfg.Federation == nil {
		if _, err := hashlist.Origin(ref); err != nil {
			return "", refuse(errInvalid, "issuer %.80q is not an address; federation is off, so that nobody can be asked for it", ref)
		}
		return ref, nil
	}
	if !met {
		name, host, _ := strings.Cut(strings.TrimPrefix(ref, "@"), "@")
		for _, k := range s.cfg.Federation.IssuerKeys("") {
			if hostOf(k.Issuer) == host && strings.HasSuffix(k.Issuer, "/"+name) {
				return k.Issuer, nil
			}
		}
	}
	return s.cfg.Federation.LearnIssuer(ctx, ref)
}

// vouchedFor is issuer for one whom this node vouches for: their server may be gone by now.
func (s *Server) vouchedFor(ctx context.Context, ref string) (string, error) {
	if err := checkAddress("issuer", ref); err != nil {
		return "", err
	}
	handle := strings.TrimPrefix(ref, "@")
	if name, host, ok := strings.Cut(handle, "@"); ok && !strings.Contains(ref, "/") {
		for _, v := range s.cfg.Lists.Vouchings(s.cfg.Issuer.Actor(), "") {
			if o := v.Vouch.Object; hostOf(o) == host && strings.HasSuffix(o, "/"+name) {
				return o, nil
			}
		}
	}
	object, err := s.issuer(ctx, ref, false)
	if err != nil && !strings.Contains(ref, "/") {
		return "", refuse(errUnknown, "this node does not vouch for %.200s: `tocsin trust list` shows for whom it does (nor is it known who that is: %v)", handle, err)
	}
	return object, err
}

func vouchingMessage(v *hashlist.Statement) *pb.Vouching {
	return &pb.Vouching{
		Issuer: v.Issuer, Object: v.Vouch.Object, Labels: v.Labels, Amount: uint32(v.Vouch.Amount), Depth: uint32(v.Vouch.Depth),
		From: when(v.Vouch.From), Until: when(v.Expires), Reason: v.Reason, StatementId: v.ID, List: v.List, Published: when(v.Published),
	}
}

// trustList returns the list for an audience, and, if it is not there, what defines it.
func (s *Server) trustList(audience pb.Audience) (iri string, definition *hashlist.Statement, err error) {
	d := &hashlist.Definition{
		Name: federation.PrivateTrustList, Summary: "whom this node believes; nobody else reads it", Audience: hashlist.Local,
		Action: hashlist.Filter, Radii: hashlist.DefaultRadii,
	}
	switch audience {
	case pb.Audience_AUDIENCE_UNSPECIFIED, pb.Audience_AUDIENCE_LOCAL:
	case pb.Audience_AUDIENCE_FOLLOWERS, pb.Audience_AUDIENCE_PUBLIC:
		d.Name, d.Summary, d.Audience = federation.TrustList, "whom this node believes", hashlist.Audience(audience)
	default:
		return "", nil, refuse(errInvalid, "unknown audience %d", audience)
	}
	if iri, err = s.listIRI(d.Name); err != nil {
		return "", nil, err
	}
	if l, ok := s.cfg.Lists.List(iri); ok {
		if private := d.Audience == hashlist.Local; private != (l.Audience == hashlist.Local) {
			return "", nil, refuse(errState, "list %s is for %v by now: with `tocsin list edit %s --audience %v` it is what it was meant for", l.Name, l.Audience, l.Name, d.Audience)
		}
		return iri, nil, nil
	}
	if err := s.checkListName(d.Name); err != nil {
		return "", nil, err
	}
	return iri, &hashlist.Statement{Kind: hashlist.DefineList, List: iri, Definition: d}, nil
}

// Vouch implements the RPC.
func (t *trustService) Vouch(ctx context.Context, r *pb.VouchRequest) (*pb.VouchResponse, error) {
	s, m := t.s, r.GetVouching()
	if m == nil {
		return nil, refuse(errInvalid, "nobody to vouch for")
	}
	if m.GetAmount() > hashlist.MostBelief || m.GetDepth() > hashlist.MaxDepth {
		return nil, refuse(errInvalid, "amount %d or depth %d is more than %d or %d", m.GetAmount(), m.GetDepth(), hashlist.MostBelief, hashlist.MaxDepth)
	}
	v := hashlist.Statement{Kind: hashlist.Vouch, Reason: m.GetReason(), Vouch: &hashlist.Vouching{
		Object: m.GetObject(), Amount: uint8(m.GetAmount()), Depth: uint8(m.GetDepth()),
	}}
	var err error
	if v.Labels, err = labels(m.GetLabels()); err != nil {
		return nil, err
	}
	if len(v.Labels) == 0 {
		v.Labels = nil
	}
	if v.Expires, err = expiry(m.GetUntil()); err != nil {
		return nil, err
	}
	if f := m.GetFrom(); f != nil {
		if err := f.CheckValid(); err != nil {
			return nil, refuse(errInvalid, "from: not a time")
		}
		v.Vouch.From = f.AsTime().UTC().Truncate(time.Second)
	}
	if v.Vouch.Object, err = s.issuer(ctx, m.GetObject(), true); err != nil {
		return nil, err
	}
	s.defining.Lock()
	defer s.defining.Unlock()
	list, definition, err := s.trustList(r.GetAudience())
	if err != nil {
		return nil, err
	}
	v.List = list
	if err := s.validate(v); err != nil {
		return nil, err
	}
	var all []hashlist.Statement
	if definition != nil {
		all = append(all, *definition)
	}
	now := time.Now().UTC().Truncate(time.Second)
	v.Published = now
	answer := &pb.VouchResponse{}
	var replaced []hashlist.Statement
	for _, old := range s.cfg.Lists.Vouchings(s.cfg.Issuer.Actor(), v.Vouch.Object) {
		if slices.Equal(old.Labels, v.Labels) {
			answer.Replaced = append(answer.Replaced, old.ID)
			replaced = append(replaced, hashlist.Statement{Kind: hashlist.Retraction, List: old.List, Retracts: old.ID, Reason: "said anew"})
		} else if !v.Published.After(old.Published) {
			v.Published = old.Published.Add(time.Second)
		}
	}
	// Of several that hold for a label the latest counts, and times are in whole seconds; but it holds from now on.
	if v.Published.After(now) && v.Vouch.From.IsZero() {
		v.Vouch.From = now
	}
	all = append(append(all, v), replaced...)
	if s.cfg.Federation != nil {
		answer.Keys = s.issuerKeys(v.Vouch.Object)
	}
	if r.GetDraft() {
		for _, d := range all {
			draft, err := s.draft(d)
			if err != nil {
				return nil, err
			}
			answer.Drafts = append(answer.Drafts, draft)
		}
		v.Issuer = s.cfg.Issuer.Actor()
		answer.Vouching = vouchingMessage(&v)
		return answer, nil
	}
	records, err := s.seal(context.WithoutCancel(ctx), all...)
	if err != nil {
		return nil, err
	}
	for i := range records {
		if said := &records[i].Statement; said.Kind == hashlist.Vouch {
			answer.Vouching = vouchingMessage(said)
		}
	}
	return answer, nil
}

// Unvouch implements the RPC.
func (t *trustService) Unvouch(ctx context.Context, r *pb.UnvouchRequest) (*pb.UnvouchResponse, error) {
	s := t.s
	if err := checkReason(r.GetReason()); err != nil {
		return nil, err
	}
	only, err := labels(r.GetLabels())
	if err != nil {
		return nil, err
	}
	object, err := s.vouchedFor(ctx, r.GetObject())
	if err != nil {
		return nil, err
	}
	s.defining.Lock()
	defer s.defining.Unlock()
	answer := &pb.UnvouchResponse{}
	var all []hashlist.Statement
	for _, old := range s.cfg.Lists.Vouchings(s.cfg.Issuer.Actor(), object) {
		if len(only) > 0 && !slices.Equal(old.Labels, only) {
			continue
		}
		answer.Withdrawn = append(answer.Withdrawn, vouchingMessage(&old))
		all = append(all, hashlist.Statement{Kind: hashlist.Retraction, List: old.List, Retracts: old.ID, Reason: r.GetReason()})
	}
	switch {
	case len(all) == 0 && len(only) > 0:
		return nil, refuse(errUnknown, "this node does not vouch for %s for just these labels: `tocsin trust list` shows what it says", object)
	case len(all) == 0:
		return nil, refuse(errUnknown, "this node does not vouch for %s: `tocsin trust list` shows for whom it does", object)
	case r.GetDraft():
		for _, v := range all {
			draft, err := s.draft(v)
			if err != nil {
				return nil, err
			}
			answer.Drafts = append(answer.Drafts, draft)
		}
		return answer, nil
	}
	_, err = s.seal(context.WithoutCancel(ctx), all...)
	return answer, err
}

// ListVouchings implements the RPC.
func (t *trustService) ListVouchings(ctx context.Context, r *pb.ListVouchingsRequest) (*pb.ListVouchingsResponse, error) {
	var names [2]string
	for i, ref := range []string{r.GetIssuer(), r.GetObject()} {
		if ref == "" {
			continue
		}
		var err error
		if names[i], err = t.s.issuer(ctx, ref, false); err != nil {
			return nil, err
		}
	}
	answer := &pb.ListVouchingsResponse{}
	for _, v := range t.s.cfg.Lists.Vouchings(names[0], names[1]) {
		answer.Vouchings = append(answer.Vouchings, vouchingMessage(&v))
	}
	return answer, nil
}

// GetIssuer implements the RPC. Without an issuer it describes this node's own.
func (t *trustService) GetIssuer(ctx context.Context, r *pb.GetIssuerRequest) (*pb.GetIssuerResponse, error) {
	s := t.s
	if len(r.GetLabels()) > maxAsked {
		return nil, refuse(errInvalid, "%d labels are more than %d", len(r.GetLabels()), maxAsked)
	}
	issuer := s.cfg.Issuer.Actor()
	if r.GetIssuer() != "" {
		var err error
		if issuer, err = s.issuer(ctx, r.GetIssuer(), false); err != nil {
			return nil, err
		}
	}
	asked := slices.Clone(r.GetLabels())
	if len(asked) == 0 {
		for _, v := range s.cfg.Lists.Vouchings("", "") {
			asked = append(asked, v.Labels...)
		}
		for _, l := range s.cfg.Lists.All() {
			asked = append(asked, l.Labels...)
		}
		slices.Sort(asked)
		asked = slices.Compact(append([]string{""}, asked...))
		asked = asked[:min(len(asked), maxAsked)]
	}
	answer := &pb.GetIssuerResponse{Issuer: issuer}
	now := time.Now()
	for _, l := range asked {
		b := s.cfg.Lists.Belief(now, l, issuer)
		m := &pb.Belief{Label: l, Amount: uint32(b.Amount)}
		for _, f := range b.Flows {
			p := &pb.TrustPath{Amount: uint32(f.Amount)}
			for _, e := range f.Path {
				p.Edges = append(p.Edges, &pb.TrustEdge{
					From: e.From, To: e.To, StatementId: e.Statement, Amount: uint32(e.Amount), Depth: uint32(e.Depth), Used: uint32(e.Used),
				})
			}
			m.Paths = append(m.Paths, p)
		}
		answer.Beliefs = append(answer.Beliefs, m)
	}
	if s.cfg.Federation != nil {
		answer.Keys = s.issuerKeys(issuer)
		for _, f := range s.cfg.Federation.Follows() {
			if f.State != federation.FollowEnded && slices.Contains(f.Issuers, issuer) {
				answer.Lists = append(answer.Lists, f.List)
			}
		}
	} else if issuer == s.cfg.Issuer.Actor() {
		public := s.cfg.Issuer.PublicKey()
		answer.Keys = []*pb.IssuerKey{{
			Key: federation.Multikey(public), Fingerprint: federation.Fingerprint(issuer, public), State: pb.KeyState_KEY_STATE_FIRST,
		}}
	}
	return answer, nil
}

// issuerKeys describes the keys of an issuer, the newest first.
func (s *Server) issuerKeys(issuer string) []*pb.IssuerKey {
	marks := s.cfg.Federation.KeyMarks(issuer)
	var all []*pb.IssuerKey
	for _, k := range s.cfg.Federation.IssuerKeys(issuer) {
		m := issuerKeyMessage(&k)
		if mark := marks[k.Method]; mark.State == federation.KeyVerified {
			m.Verified, m.VerifiedBy = when(mark.At), mark.Who
		}
		all = append(all, m)
	}
	return all
}

func issuerKeyMessage(k *federation.Key) *pb.IssuerKey {
	return &pb.IssuerKey{
		Key: federation.Multikey(k.Public), Fingerprint: federation.Fingerprint(k.Issuer, k.Public), State: pb.KeyState(k.State + 1),
		Seen: timestamppb.New(k.Seen), Expires: when(k.Expires), Revoked: when(k.Revoked),
	}
}

// keyWarnings name the keys that wait to be compared.
func (s *Server) keyWarnings() (all []string) {
	if s.cfg.Federation == nil {
		return nil
	}
	for _, k := range s.cfg.Federation.IssuerKeys("") {
		if k.State == federation.KeyDoubted && k.Expires.IsZero() {
			all = append(all, fmt.Sprintf("%s shows a new key that none of theirs backs, and what it signs waits: ask them for its fingerprint over the telephone, "+
				"then `tocsin trust verify %s FINGERPRINT`", k.Issuer, k.Issuer))
		}
	}
	return all
}

// VerifyKey implements the RPC.
func (t *trustService) VerifyKey(ctx context.Context, r *pb.VerifyKeyRequest) (*pb.VerifyKeyResponse, error) {
	fed, err := t.s.federation()
	if err != nil {
		return nil, err
	}
	if len(r.GetFingerprint()) > 200 {
		return nil, refuse(errInvalid, "a fingerprint is eight groups of five digits")
	}
	issuer, err := t.s.issuer(ctx, r.GetIssuer(), false)
	if err != nil {
		return nil, err
	}
	if len(fed.IssuerKeys(issuer)) == 0 {
		if issuer, err = fed.LearnIssuer(ctx, cmp.Or(issuer, r.GetIssuer())); err != nil {
			return nil, err
		}
	}
	k, err := fed.VerifyKey(ctx, issuer, r.GetFingerprint(), callerOf(ctx).name)
	if err != nil {
		return nil, err
	}
	if t.s.cfg.Reviews != nil {
		_, err := t.s.cfg.Reviews.ChangeReview(ctx, federation.KeyReview(k), func(r *hashlist.Review) error {
			if r.State.Waiting() {
				r.State, r.Settled = hashlist.ReviewClosed, time.Now().UTC().Truncate(time.Microsecond)
			}
			return nil
		})
		if err != nil && !errors.Is(err, hashlist.ErrNoReview) {
			return nil, err
		}
	}
	m := issuerKeyMessage(&k)
	m.Verified = timestamppb.Now()
	return &pb.VerifyKeyResponse{Issuer: issuer, Key: m}, nil
}
