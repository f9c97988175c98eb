package server

import (
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
)

// How lists are named: by their address; by NAME alone, which is always a list of this node, so
// that no other node can make a name mean something else here; or by
// NAME@HOST, as in the fediverse, with an @ before it or not. The NAME of a list is the end of
// its address; what it calls itself may change, and may be anything.

// others are the addresses of the lists of other nodes that are defined here or followed.
func (s *Server) others() []string {
	var all []string
	for _, l := range s.cfg.Lists.All() {
		if s.own(l.ID) != nil {
			all = append(all, l.ID)
		}
	}
	if s.cfg.Federation != nil {
		for _, f := range s.cfg.Federation.Follows() {
			if !slices.Contains(all, f.List) {
				all = append(all, f.List)
			}
		}
	}
	return all
}

func hostOf(iri string) string {
	u, err := url.Parse(iri)
	if err != nil {
		return ""
	}
	return u.Host
}

// resolve makes the address of a list from how it is named. It need not be defined.
func (s *Server) resolve(ref string) (iri string, err error) {
	if strings.Contains(ref, "/") {
		return s.listIRI(ref)
	}
	name, host, both := strings.Cut(strings.TrimPrefix(ref, "@"), "@")
	if !both && strings.HasPrefix(ref, "@") {
		return "", refuse(errInvalid, "list: %.80q is neither NAME nor NAME@HOST", ref)
	}
	if err := hashlist.CheckName(name); err != nil {
		return "", invalid("list", err)
	}
	if !both || host == hostOf(s.cfg.Origin) {
		return s.listIRI(name)
	}
	var found []string
	for _, o := range s.others() {
		if hostOf(o) == host && path.Base(o) == name {
			found = append(found, o)
		}
	}
	switch len(found) {
	case 0:
		return "", refuse(errUnknown, "there is no list %s@%.255s here: follow it first with `tocsin follow @%[1]s@%.255[2]s`", name, host)
	case 1:
		return found[0], nil
	}
	return "", refuse(errInvalid, "%s@%.255s may mean %s: name it by its address", name, host, strings.Join(found, " or "))
}

// find finds a list that is defined by its name or address.
func (s *Server) find(ref string) (hashlist.List, error) {
	iri, err := s.resolve(ref)
	if err != nil {
		return hashlist.List{}, err
	}
	l, ok := s.cfg.Lists.List(iri)
	if ok {
		return l, nil
	}
	var namesakes []string
	for _, o := range s.others() {
		if o == iri {
			return l, refuse(errUnknown, "nothing of list %s has come yet: `tocsin follows` tells how far it is", iri)
		}
		if path.Base(o) == ref {
			namesakes = append(namesakes, ref+"@"+hostOf(o))
		}
	}
	if len(namesakes) > 0 {
		return l, refuse(errUnknown, "this node has no list %s of its own; write %s for that of another node", ref, strings.Join(namesakes, " or "))
	}
	return l, refuse(errUnknown, "there is no list %.*s: create it first", hashlist.MaxIRI, ref)
}

// followed resolves how a list of another node is named.
func (s *Server) followed(ref string) (iri string, err error) {
	if iri, err = s.resolve(ref); err != nil {
		return "", err
	}
	if s.own(iri) == nil {
		for _, o := range s.others() {
			if path.Base(o) == ref {
				return "", refuse(errInvalid, "%s would be a list of this node: write %[1]s@%s for that of another", ref, hostOf(o))
			}
		}
		return "", refuse(errInvalid, "list %s is of this node itself", iri)
	}
	return iri, nil
}

// own refuses a list that this node's issuer may not speak for.
func (s *Server) own(iri string) error {
	o, err := hashlist.Origin(iri)
	if err == nil && o == s.cfg.Origin {
		return nil
	}
	return refuse(errState, "list %s is not of this node: only its own issuers can change it", iri)
}

// following tells how far this node has come with a list of another, 0 if it
// has nothing to do with it.
func (s *Server) following(iri string) federation.FollowState {
	if s.cfg.Federation == nil {
		return 0
	}
	for _, f := range s.cfg.Federation.Follows() {
		if f.List == iri {
			return f.State
		}
	}
	return 0
}

// checkListName refuses a name that another actor of this node has: lists and
// issuers are found under one kind of handle, @NAME@HOST.
func (s *Server) checkListName(name string) error {
	if name == path.Base(s.cfg.Issuer.Actor()) {
		return refuse(errInvalid, "%s is the name of this node's issuer: @%[1]s@%s could mean either, so give the list another", name, hostOf(s.cfg.Origin))
	}
	if u, err := url.Parse(s.cfg.Origin); err == nil && name == u.Hostname() {
		return refuse(errInvalid, "%s is the name of the node itself: give the list another", name)
	}
	return nil
}
