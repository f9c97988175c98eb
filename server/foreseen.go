package server

import (
	"github.com/tocsin-fed/tocsin/hashlist"
)

// foreseen refuses hashes that are about to speak against uploads on a list of this node and match more of
// what was let through lately than is expected: a moderator who bans a popular harmless picture by mistake
// would else refuse everybody's. Whoever is sure says so.
func (s *Server) foreseen(list *hashlist.List, action hashlist.Action, hashes []hashlist.Hash, confirmed bool) error {
	if action == 0 {
		action = list.Action
	}
	if confirmed || action == hashlist.Accept {
		return nil
	}
	matched, of, suspicious := s.cfg.Window.Suspicious(hashes, list.Radii)
	if !suspicious {
		return nil
	}
	return refuse(errState, "this would match %d of the last %d uploads that were let through, more than is expected of one ban: nothing is listed; look at `tocsin window preview`, and repeat it with --yes if it is right",
		matched, of)
}
