package hashlist

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/tocsin-fed/tocsin/bktree"
)

// Block is what this node makes of all that is said of a domain.
type Block struct {
	Domain string
	Action Action   // Filter, Reject or Drop: the gravest that is borne out
	Labels []string // of the statements that bear it out, sorted
	Reason string   // of the first of them that gives one
	Own    bool     // this node's own lists say so
	Belief int      // 0 to MostBelief: how far those who say so are believed together
}

// Blocks merges what is said of domains, by domain. What this node's own lists say is final: their gravest
// action counts, and a domain that they accept is not blocked. Of what others say, those who
// recommend to reject or drop under one label are believed together, and have it refused if that
// is as much as the policy's Reject needs of belief and of issuers; otherwise it is filtered, if
// those who recommend at least that come to what Flag needs. What others accept lifts
// nothing, what a list's most forbids does not count, and neither do statements that an own
// issuer disputes. Lists of partner data are left out: blocks are made to be handed on.
func (l *Lists) Blocks() []Block {
	now := time.Now().Unix()
	l.mu.RLock()
	defer l.mu.RUnlock()
	f := l.fold
	var all []Block
	f.textsOf(AddInstances.table()).all(func(id bktree.ID, domain string) {
		var standing []*stmt
		met := crowd{}
		for o := f.owners[AddInstances.table()][id]; o != 0; o = f.postings[o-1].next {
			s := &f.stmts[f.postings[o-1].stmt]
			if s.stands(now) && s.list.most != 0 && s.list.current != nil && !s.list.partner && !f.ignored(s, now) &&
				!met.full(crowdOf{list: s.list, issuer: s.issuer}, maxAlike) {
				standing = append(standing, s)
			}
		}
		if b, blocked := f.block(domain, standing, &l.policy, now); blocked {
			all = append(all, b)
		}
	})
	slices.SortFunc(all, func(a, b Block) int { return strings.Compare(a.Domain, b.Domain) })
	return all
}

// ignored reports whether an own issuer disputes a statement of somebody else.
func (f *fold) ignored(s *stmt, now int64) bool {
	if s.list.origin == "" {
		return false
	}
	id, ok := f.textsOf(Dispute.table()).get(s.id)
	if !ok {
		return false
	}
	for o := f.owners[Dispute.table()][id]; o != 0; o = f.postings[o-1].next {
		if d := &f.stmts[f.postings[o-1].stmt]; d.stands(now) && d.list.origin == "" {
			return true
		}
	}
	return false
}

func (f *fold) block(domain string, standing []*stmt, policy *Policy, now int64) (Block, bool) {
	if len(standing) == 0 {
		return Block{}, false
	}
	earlier := func(a, b *stmt) int {
		return cmp.Or(cmp.Compare(a.published, b.published), strings.Compare(a.id, b.id))
	}
	slices.SortFunc(standing, earlier)
	does := func(s *stmt) Action { return cmp.Or(s.action, s.list.current.Action) }
	b := Block{Domain: domain}
	borne := func(s *stmt) {
		b.Action = max(b.Action, does(s))
		b.Labels = union(b.Labels, union(s.list.current.Labels, s.labels))
		b.Reason = cmp.Or(b.Reason, s.reason)
	}
	for _, s := range standing {
		if s.list.origin != "" {
			continue
		}
		if does(s) == Accept {
			return Block{}, false
		}
		b.Own, b.Belief = true, MostBelief
		borne(s)
	}
	if b.Own {
		return b, true
	}
	for _, step := range [...]struct {
		least Action
		v     Verdict
	}{{Reject, VerdictReject}, {Filter, VerdictFlag}} {
		byLabel := map[string][]*stmt{}
		for _, s := range standing {
			if does(s) < step.least || s.list.most < step.v {
				continue
			}
			labels := union(s.list.current.Labels, s.labels)
			if len(labels) == 0 {
				labels = []string{""}
			}
			for _, label := range labels {
				byLabel[label] = append(byLabel[label], s)
			}
		}
		found, stand, stands := false, []*stmt(nil), map[*stmt]bool{}
		for label, said := range byLabel {
			need := policy.Default
			if t, ok := policy.Labels[label]; ok {
				need = t
			}
			var all sides
			for _, s := range said {
				all.add(f.voice(s), s.list.direct)
			}
			amount, independent := f.believe(label, now, all.backers)
			if n := need.of(step.v); amount < n.Belief || independent < n.Issuers {
				continue
			}
			found = true
			b.Belief = max(b.Belief, amount)
			for _, s := range said {
				if !stands[s] {
					stands[s] = true
					stand = append(stand, s)
				}
			}
		}
		if found {
			slices.SortFunc(stand, earlier)
			for _, s := range stand {
				borne(s)
			}
			if step.least == Filter {
				b.Action = Filter
			}
			b.Labels = slices.Clip(b.Labels)
			return b, true
		}
	}
	return Block{}, false
}
