package server

import (
	"context"
	"crypto/ed25519"
	"time"

	"github.com/tocsin-fed/tocsin/federation"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

func (s *Server) keyMessage(k *federation.Key) *pb.Key {
	return &pb.Key{
		Issuer: k.Issuer, Method: k.Method, PublicKey: k.Public, Seen: when(k.Seen), Expires: when(k.Expires), Revoked: when(k.Revoked),
		Current: k.Issuer == s.cfg.Issuer.Actor() && k.Public.Equal(s.cfg.Issuer.PublicKey()),
	}
}

// ListKeys implements the RPC.
func (f *federationService) ListKeys(_ context.Context, r *pb.ListKeysRequest) (*pb.ListKeysResponse, error) {
	fed, err := f.s.federation()
	if err != nil {
		return nil, err
	}
	v := &pb.ListKeysResponse{}
	for _, k := range fed.IssuerKeys(r.GetIssuer()) {
		v.Keys = append(v.Keys, f.s.keyMessage(&k))
	}
	return v, nil
}

// RotateKey implements the RPC. It is finished even if the caller leaves: a key that
// is half replaced signs nothing that others would take.
func (f *federationService) RotateKey(ctx context.Context, r *pb.RotateKeyRequest) (*pb.RotateKeyResponse, error) {
	s := f.s
	fed, err := s.federation()
	if err != nil {
		return nil, err
	}
	public := ed25519.PublicKey(r.GetPublicKey())
	if len(public) != 0 && len(public) != ed25519.PublicKeySize {
		return nil, refuse(errInvalid, "a public key of %d bytes is no Ed25519 key, which has %d", len(public), ed25519.PublicKeySize)
	}
	if len(public) == 0 && !r.GetKeepHere() && s.cfg.Offline != nil && s.cfg.Offline() {
		return nil, refuse(errState, "the key of this node's issuer is kept elsewhere: give the new public key (--public), or say that the node is to keep the new one (--keep-here)")
	}
	for _, k := range fed.IssuerKeys("") {
		if len(public) != 0 && k.Public.Equal(public) {
			return nil, refuse(errState, "that key was used by %s already: a key that was replaced stays so, make a new one", k.Issuer)
		}
	}
	var compromised time.Time
	if t := r.GetCompromisedSince(); t != nil {
		if err := t.CheckValid(); err != nil {
			return nil, refuse(errInvalid, "compromised since: not a time")
		}
		if compromised = t.AsTime().UTC(); compromised.After(time.Now()) {
			return nil, refuse(errInvalid, "the key would be in other hands since %s, which is in the future", compromised.Format(time.RFC3339))
		}
	}
	s.rotating.Lock()
	defer s.rotating.Unlock()
	if err := fed.RotateKey(context.WithoutCancel(ctx), public, compromised); err != nil {
		return nil, err
	}
	actor, now := s.cfg.Issuer.Actor(), s.cfg.Issuer.PublicKey()
	for _, k := range fed.IssuerKeys(actor) {
		if k.Public.Equal(now) {
			return &pb.RotateKeyResponse{Key: s.keyMessage(&k)}, nil
		}
	}
	return &pb.RotateKeyResponse{Key: s.keyMessage(&federation.Key{Issuer: actor, Method: actor + "#" + federation.Multikey(now), Public: now})}, nil
}
