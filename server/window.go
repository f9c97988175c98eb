package server

import (
	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// readReference reads what a caller calls what it asks about.
func readReference(r *pb.Reference) (hashlist.Reference, error) {
	ref := hashlist.Reference{URL: r.GetUrl(), Alias: r.GetAlias(), Post: r.GetPost(), Actor: r.GetActor()}
	if err := ref.Validate(); err != nil {
		return hashlist.Reference{}, invalid("reference", err)
	}
	return ref, nil
}

// see has the recent window keep what was asked and answered, and returns its number
// there; 0 if it is not kept.
func (s *Server) see(q hashlist.Query, r *hashlist.Result) uint64 {
	if s.cfg.Window == nil {
		return 0
	}
	return s.cfg.Window.See(q, r)
}
