package server

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"time"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

const (
	maxPublished = 1000 // statements in one Publish
	// maxAhead is how far in the future a statement may be dated: other nodes refuse
	// what is much farther, and a clock that is wrong is better found before.
	maxAhead = 5 * time.Minute
)

// draft is a statement of this node's issuer as it is to be signed elsewhere.
func (s *Server) draft(v hashlist.Statement) ([]byte, error) {
	draft, err := federation.Draft(s.cfg.Issuer.Actor(), v)
	if err != nil {
		return nil, fmt.Errorf("draft: %w", err)
	}
	return draft, nil
}

// Publish implements the RPC. The caller is the operator, but what is published goes
// through the same door as what strangers send, and may say no more than what is signed here.
func (l *listService) Publish(ctx context.Context, r *pb.PublishRequest) (*pb.PublishResponse, error) {
	s := l.s
	if len(r.GetSigned()) > maxPublished {
		return nil, refuse(errInvalid, "%d statements are more than %d", len(r.GetSigned()), maxPublished)
	}
	records := make([]hashlist.Record, len(r.GetSigned()))
	for i, signed := range r.GetSigned() {
		v, err := s.signedElsewhere(signed)
		if err != nil {
			return nil, refuse(errInvalid, "statement %d: %v", i+1, err)
		}
		records[i] = hashlist.Record{Received: time.Now().UTC().Truncate(time.Microsecond), Statement: v, Signed: signed}
	}
	answer := &pb.PublishResponse{}
	if len(records) == 0 {
		return answer, nil
	}
	seqs, err := s.cfg.Lists.Apply(context.WithoutCancel(ctx), records...)
	if err != nil {
		return nil, err
	}
	for i := range records {
		v := &records[i].Statement
		answer.Published = append(answer.Published, &pb.Published{StatementId: v.ID, Seq: seqs[i], Kind: v.Kind.String(), List: v.List})
	}
	return answer, nil
}

// signedElsewhere opens a statement that was signed where the issuer's key is.
func (s *Server) signedElsewhere(signed []byte) (hashlist.Statement, error) {
	public, actor := s.cfg.Issuer.PublicKey(), s.cfg.Issuer.Actor()
	v, err := federation.Open(signed, func(issuer, method string) (ed25519.PublicKey, error) {
		switch {
		case issuer != actor:
			return nil, fmt.Errorf("it is a statement of %s, and this node's issuer is %s", issuer, actor)
		case method != actor+"#"+federation.Multikey(public):
			return nil, fmt.Errorf("it was signed with another key than the issuer's key of now, %s: sign the draft with that one", federation.Multikey(public))
		}
		return public, nil
	})
	if err != nil {
		return v, err
	}
	if err := s.own(v.List); err != nil {
		return v, err
	}
	if ahead := time.Until(v.Published); ahead > maxAhead {
		return v, fmt.Errorf("it is dated %v in the future: set the clock of the machine that signed it, and make it anew", ahead.Round(time.Second))
	}
	if v.Kind == hashlist.DefineList {
		// The definition is found by the list's address, and the list by its name.
		if iri, err := s.listIRI(v.Definition.Name); err != nil || iri != v.List {
			return v, fmt.Errorf("it defines list %s under the address %s, which is not its own", v.Definition.Name, v.List)
		}
		if err := s.checkPartner(v.List, v.Definition); err != nil {
			return v, err
		}
		if _, defined := s.cfg.Lists.List(v.List); !defined {
			return v, s.checkListName(v.Definition.Name)
		}
	}
	if v.Kind == hashlist.Retraction {
		if issuer, _, known := s.cfg.Lists.Issued(v.Retracts); known && issuer != actor {
			return v, fmt.Errorf("it retracts a statement of %s: only they can", issuer)
		}
	}
	return v, nil
}
