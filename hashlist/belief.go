package hashlist

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

// Belief is how far issuers are believed together about a label, and why.
type Belief struct {
	Amount      int    // 0 to MostBelief
	Independent int    // how many of them are reached over paths that share no server but this one
	Flows       []Flow // the paths over which it comes, the largest first; their amounts may be more than Amount together only if Amount is MostBelief
}

// Flow is a path from this node to an issuer, and how much of the belief comes over it.
type Flow struct {
	Amount int
	Path   []Edge // from an own issuer; empty if the issuer is an own one
}

// Edge is one vouching on the path of a Flow.
type Edge struct {
	From, To  string // IRIs of issuers; From is "" where following a list on which To writes is what gives belief
	Statement string // the ID of the vouching, "" where there is none
	Amount    int    // what it could carry
	Depth     int
	Used      int // what all flows together take of that
}

// Belief tells how far issuers are believed together about a label at a time, by
// relationships alone. "" is what has no label. What following a list adds for what stands on that list is not in it.
func (l *Lists) Belief(at time.Time, label string, issuers ...string) Belief {
	l.mu.RLock()
	defer l.mu.RUnlock()
	backers := make([]backer, len(issuers))
	for i, v := range issuers {
		backers[i] = backer{issuer: v}
	}
	return l.fold.explainBelief(label, at.Unix(), backers)
}

// explainBelief is believe, and how it came to that.
func (f *fold) explainBelief(label string, at int64, backers []backer) Belief {
	var b Belief
	b.Amount, b.Independent = f.believe(label, at, backers)
	for _, v := range backers {
		if f.ownIssuer(v.issuer) {
			b.Flows = []Flow{{Amount: MostBelief}}
			return b
		}
	}
	g := f.graph(label, at)
	n := networks.Get().(*network)
	defer networks.Put(n)
	left, _ := f.distinct(backers)
	n.lay(f, g, left, false)
	n.fill(MostBelief)
	b.Flows = n.flows(f)
	given := f.followed(g, left)
	for _, v := range left {
		server := f.server(v.issuer)
		more := int(v.direct)
		if at, known := f.trust.numbers[v.issuer]; known {
			more -= g.said(at)
		}
		if use := min(more, given[server]); use > 0 {
			given[server] -= use
			b.Flows = append(b.Flows, Flow{use, []Edge{{To: v.issuer, Amount: int(v.direct), Used: use}}})
		}
	}
	slices.SortStableFunc(b.Flows, func(a, b Flow) int { return cmp.Compare(b.Amount, a.Amount) })
	return b
}

// flows takes what fill let flow apart into paths.
func (n *network) flows(f *fold) (all []Flow) {
	left := make([]int32, len(n.arcs)/2)
	for i := range left {
		left[i] = n.arcs[2*i].flow
	}
	for {
		var path []int32
		by := int32(MostBelief)
		for at := int32(source); at != sink; {
			next := int32(-1)
			for a := n.first[at]; a >= 0; a = n.arcs[a].next {
				if a&1 == 0 && left[a/2] > 0 {
					next = a
					break
				}
			}
			if next < 0 {
				return all // at the source, because what comes to a node leaves it
			}
			path = append(path, next)
			by = min(by, left[next/2])
			at = n.arcs[next].to
		}
		v := Flow{Amount: int(by)}
		for _, a := range path {
			left[a/2] -= by
			if i := n.arcs[a].bundle; i >= 0 {
				b := &n.bundles[i]
				s := &f.stmts[b.edge.stmt]
				v.Path = append(v.Path, Edge{s.issuer, f.trust.names[b.head], s.id, int(b.edge.amount), int(b.edge.depth), int(b.used)})
			}
		}
		all = append(all, v)
	}
}

// Vouchings returns the statements in force by which issuer vouches for object, the
// oldest first; "" stands for anybody. They are of lists that have a definition and are heeded or relied on, and may begin
// to hold only later. Of those that hold for one label at one time the latest counts.
func (l *Lists) Vouchings(issuer, object string) []Statement {
	now := time.Now().Unix()
	l.mu.RLock()
	defer l.mu.RUnlock()
	f := l.fold
	var all []Statement
	of := func(v uint32) {
		for _, n := range f.trust.in[v] {
			s := &f.stmts[n.stmt]
			if issuer != "" && s.issuer != issuer || !s.stands(now) || s.list.current == nil || s.list.most == 0 && !s.list.relied {
				continue
			}
			said, d := s.terms(), n
			said.Vouch = &Vouching{Object: f.trust.names[v], Amount: d.amount, Depth: d.depth, From: time.Unix(d.from, 0).UTC()}
			all = append(all, said)
		}
	}
	if v, known := f.trust.numbers[object]; known {
		of(v)
	} else if object == "" {
		for v := range f.trust.in {
			of(uint32(v))
		}
	}
	slices.SortFunc(all, func(a, b Statement) int { return cmp.Or(a.Published.Compare(b.Published), strings.Compare(a.ID, b.ID)) })
	return all
}

// TrustGeneration grows whenever what is known of who vouches for whom changes. It does not when a
// vouching begins or ends with time.
func (l *Lists) TrustGeneration() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.fold.trust.generation
}

// Introducers returns the issuers of other nodes who are believed about anything and whose own
// vouchings count here, those first whose word reaches furthest.
func (l *Lists) Introducers(at time.Time) []string {
	l.mu.RLock()
	defer l.mu.RUnlock()
	f := l.fold
	reach := map[string]int8{}
	for v, r := range f.graph(anyLabel, at.Unix()).reach {
		if r > 0 && r != rootReach {
			reach[f.trust.names[v]] = r
		}
	}
	all := slices.Collect(maps.Keys(reach))
	slices.SortFunc(all, func(a, b string) int { return cmp.Or(cmp.Compare(reach[b], reach[a]), strings.Compare(a, b)) })
	return all
}
