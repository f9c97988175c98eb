package hashlist

import (
	"cmp"
	"slices"
)

// How many statements of one issuer on one list of another node are looked at for one hash or domain. What
// a verdict needs is who stands behind it and how near, not how often they say so, and whoever
// lists one hash in 40,000 statements must not have every lookup of it weigh them all. Of one hash the
// newest are looked at, because what an issuer said last is what it means; of one frame the nearest, and
// of those the newest. This node's own statements are all looked at.
//
// The statements of one frame of videos are of as many videos, which may have an opening in common.
const (
	maxAlike       = 64
	maxAlikeVideos = 1024
)

// crowd counts statements of others.
type crowd map[crowdOf]int

type crowdOf struct {
	list   *list
	issuer string
	frame  int
	alg    Algorithm
}

// full counts one more, and reports whether most were counted before.
func (c crowd) full(of crowdOf, most int) bool {
	if of.list.origin == "" {
		return false
	}
	c[of]++
	return c[of] > most
}

// few returns those of found that are to be weighed, in no order.
func (f *fold) few(found []candidate, probes []Probe) []candidate {
	if len(found) <= maxAlike {
		return found
	}
	slices.SortFunc(found, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), cmp.Compare(f.postings[b.posting].stmt, f.postings[a.posting].stmt),
			cmp.Compare(a.posting, b.posting))
	})
	met := crowd{}
	return slices.DeleteFunc(found, func(c candidate) bool {
		s, p := &f.stmts[f.postings[c.posting].stmt], &probes[c.probe]
		return p.Hash.alg != VPDQ && met.full(crowdOf{s.list, s.issuer, p.Index, p.Hash.alg}, maxAlike)
	})
}
