package server

import (
	"slices"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// checkPartner refuses a definition that would take the mark of partner data off a list,
// or put it on one that others could read before. The lists themselves keep a list that is
// marked from leaving, whatever its definition says; this is so that nobody believes to
// have widened it.
func (s *Server) checkPartner(iri string, d *hashlist.Definition) error {
	marked := slices.Contains(d.Labels, hashlist.PartnerData)
	if s.cfg.Lists.Partner(iri) {
		if !marked || d.Audience != hashlist.Local {
			return refuse(errState, "list %s is of partner data, and stays so: it keeps the label %s and the audience local", d.Name, hashlist.PartnerData)
		}
		return nil
	}
	if now, ok := s.cfg.Lists.List(iri); marked && ok && now.Audience != hashlist.Local {
		return refuse(errState, "others could read list %s until now, so it is no place for partner data: create a new list", d.Name)
	}
	return nil
}

// mayLeave refuses to give a list away in any form: what a partner gave stays here. Exports and
// whatever else copies a list ask it; other nodes are kept off by its audience, which is
// local.
func (s *Server) mayLeave(list *hashlist.List) error {
	if list.Partner {
		return refuse(errState, "list %s is of partner data, which never leaves this node", list.Name)
	}
	return nil
}
