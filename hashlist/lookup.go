package hashlist

import (
	"cmp"
	"iter"
	"slices"
	"time"

	"github.com/tocsin-fed/tocsin/bktree"
)

// Query asks about one file or one picture.
type Query struct {
	Probes []Probe
	Lists  []string // IRIs of the lists to look in; none for all
	Limit  int      // most matches returned; 0 for all
	// Uploader is what the caller knows of who uploads it, for rules; nil for nothing.
	Uploader *Uploader

	Reference Reference // what the caller calls it; for the recent window, of no matter to the verdict

	held bool // look among what is in quarantine, and there alone; for Explain
}

// Probe is one hash of what is asked about. A picture has many: its digests,
// and of each frame the dihedral set of its PDQ hash and their complements.
type Probe struct {
	Hash      Hash
	Index     int    // the caller's number of the frame or picture it is of, returned in Match
	Transform string // the caller's own word for how the picture was turned, returned in Match
	Flat      bool   // of a picture with a quality below the policy's: what it matches comes to hold at most
}

// Match is one listed hash within its list's radius of a probe. If several
// probes of one frame come near it, the nearest of them is reported.
type Match struct {
	Probe      Probe
	Distance   int // Hamming distance in bits
	List       string
	ListName   string
	Labels     []string // of the list and the statement together, sorted
	Issuer     string
	Statement  string // ID
	Action     Action // the statement's, or else the list's
	Reason     string
	Published  time.Time
	Suppressed bool // a hash known to be harmless outweighs it, or this node disputes the statement

	// Of a video: how many in a hundred of the frames asked about, and of the frames that the
	// statement lists, find one another. Both are 0 for all else.
	AskedShare, ListedShare int
	posting                 uint32 // which hash of the statement
}

// Similarity is 100 for identical hashes and 0 for complements.
func (m *Match) Similarity() float64 {
	bits := 8 * m.Probe.Hash.Algorithm().Size()
	return 100 * float64(bits-m.Distance) / float64(bits)
}

// Result is the answer to a Query.
type Result struct {
	Matches   []Match // nearest first; those that are not suppressed come before the others
	Truncated bool    // there were more than the query's limit
	Verdict   Verdict
	Reason    string // one sentence that holds no hash
	Seq       uint64 // the log up to here was heeded
	Decision  Decision

	generation uint64    // of what acts; see Lists.changed
	decided    *Match    // see Decided
	behind     []backing // of other nodes, at most some more than maxStatements, the nearest first
}

// backing is that an issuer stands behind something listed, by listing or confirming it.
type backing struct {
	issuer string
	what   listed
}

// Decided returns the match that the verdict rests on most, nil if nothing speaks against
// the media. It is the nearest of those by whom is believed, and need not be the first of Matches, nor
// be among them if there were more than the query's limit.
func (r *Result) Decided() *Match {
	if r.decided != nil {
		return r.decided
	}
	for i := range r.Matches {
		if m := &r.Matches[i]; !m.Suppressed && m.Action != Accept {
			return m
		}
	}
	return nil
}

// Decision is what a verdict that is graver than VerdictAllow rests on.
type Decision struct {
	Label       string    // in which those who stand behind it are believed; "" for one without labels
	Belief      int       // 0 to 120, with what disputes take off
	Disputed    int       // what they take off
	Independent int       // issuers who do not rely on each other
	Need        Threshold // of that verdict in that label
	Own         bool      // this node's own word: neither thresholds nor rules soften it
	Rule        string    // the name of the rule that decided, "" for none
	Statements  []string  // IDs of those that list it and are believed, the nearest first, and then of those that confirm them
	Algorithm   Algorithm // of the nearest match that counts for it
	Distance    int       // of that, in bits
}

// candidate is a posting near a probe.
type candidate struct {
	posting    uint32
	probe      uint32
	distance   int
	flat       bool
	suppressed bool
	own        bool  // this node's own statement, or one that it confirmed
	ignored    bool  // this node disputes the statement
	asked      uint8 // of a video: the shares of Match
	listed     uint8
}

// Lookup finds what is known near the probes of q, and draws the verdict from
// all of it, also from matches beyond the query's limit.
//
// A match is suppressed by a hash on a list whose action is Accept, if that
// hash is no further from the same frame (the probes of one Index) by the same
// algorithm: what is banned at distance 3 stays banned although something
// harmless lies at distance 5, and a harmless frame says nothing of the one behind
// it. A SHA-256 that is known to be harmless suppresses everything, because it is
// the very file. All that goes for a hash on one of the node's own lists; one on a list
// of another origin suppresses matches of that origin's lists alone, so that
// nobody else lifts what is banned here.
//
// Lists of other origins match, and speak against media, as far as Heed says, and as
// far as those who stand behind their statements are believed; see Policy. What this node itself
// disputes is suppressed, and what it confirmed acts like its own.
func (l *Lists) Lookup(q Query) (r Result) {
	l.LookupAll([]Query{q}, func(_ int, one *Result) { r = *one })
	return r
}

// LookupAll is Lookup for several queries, in less time than one after the other takes, as the index is
// searched for several hashes together. It calls answer with the number of each query and its result, in their order; some
// of the next may have been decided before it returns.
func (l *Lists) LookupAll(queries []Query, answer func(i int, r *Result)) {
	for from := 0; from < len(queries); {
		n := together(queries[from:])
		results := l.lookupTogether(queries[from : from+n])
		for i := range results {
			answer(from+i, &results[i])
		}
		from += n
	}
}

// maxTogether bounds how many hashes of several queries are searched for before writers have their turn, and whoever waits
// behind them: a third of a millisecond, among ten million, but two scans for each that is in a crowd. With 32 at a time each
// would take a twentieth less.
const maxTogether = 8

// together is how many of the queries, at least the first, are looked up under one lock.
func together(queries []Query) (n int) {
	hashes := 0
	for _, q := range queries {
		searches := len(q.Probes)
		for range pairsIn(q.Probes) {
			searches--
		}
		if hashes += max(1, searches); n > 0 && hashes > maxTogether {
			break
		}
		n++
	}
	return n
}

func (l *Lists) lookupTogether(queries []Query) []Result {
	l.mu.RLock()
	defer l.mu.RUnlock()
	now := time.Now()
	pairs := l.fold.searchPairs(queries)
	results := make([]Result, len(queries))
	for i := range queries {
		results[i], _ = l.lookupNear(&queries[i], pairs, &l.policy, now)
	}
	return results
}

// lookup is Lookup by a policy at a time, and returns the candidates too, of which those beyond the
// query's limit are cut off. The lock is held.
func (l *Lists) lookup(q *Query, policy *Policy, now time.Time) (Result, []candidate) {
	return l.lookupNear(q, l.fold.searchPairs([]Query{*q}), policy, now)
}

// lookupNear is lookup, and takes what is near the pairs of q from pairs.
func (l *Lists) lookupNear(q *Query, pairs *pairSearch, policy *Policy, now time.Time) (Result, []candidate) {
	f := l.fold
	found := f.videos(f.candidates(q, pairs, now.Unix()), q.Probes, &l.policy)
	r := Result{Verdict: VerdictAllow, Reason: "nothing known against it", Seq: l.seq, generation: l.generation}
	if len(found) == 0 {
		return r, nil
	}
	f.decide(found, now.Unix())
	f.suppress(found, q.Probes)
	slices.SortFunc(found, func(a, b candidate) int {
		if a.suppressed != b.suppressed {
			if a.suppressed {
				return 1
			}
			return -1
		}
		return cmp.Or(cmp.Compare(a.distance, b.distance), cmp.Compare(f.postings[a.posting].stmt, f.postings[b.posting].stmt),
			cmp.Compare(a.posting, b.posting))
	})
	if by := f.judge(found, q, policy, now, &r); by < 0 {
		r.Reason = "what it matches is known to be harmless, or disputed here"
	} else {
		m := f.match(found[by], q.Probes)
		r.decided = &m
	}
	if q.Limit > 0 && len(found) > q.Limit {
		found, r.Truncated = found[:q.Limit], true
	}
	r.Matches = make([]Match, len(found))
	for i, c := range found {
		r.Matches[i] = f.match(c, q.Probes)
	}
	return r, found
}

// isPair reports whether a probe and the next are a PDQ hash and its complement, as in most queries: those are
// searched for at once.
func isPair(probes []Probe, i int) bool {
	return i+1 < len(probes) && probes[i].Hash.alg == PDQ && probes[i+1].Hash == probes[i].Hash.Complement()
}

// pairsIn yields the first hash of each pair, and then passes over the second.
func pairsIn(probes []Probe) iter.Seq[Hash] {
	return func(yield func(Hash) bool) {
		for i := 0; i < len(probes); i++ {
			if !isPair(probes, i) {
				continue
			}
			if !yield(probes[i].Hash) {
				return
			}
			i++
		}
	}
}

// pairSearch finds what is near the pairs of some queries, in their order, some at a time.
type pairSearch struct {
	f      *fold
	hashes []Hash // of each the first
	found  []bktree.Both
	next   int // of found
}

func (f *fold) searchPairs(queries []Query) *pairSearch {
	p := &pairSearch{f: f}
	for _, q := range queries {
		p.hashes = slices.AppendSeq(p.hashes, pairsIn(q.Probes))
	}
	return p
}

// near returns what is near the next pair. It is good until the next call.
func (p *pairSearch) near() *bktree.Both {
	if p.next == len(p.found) {
		n := min(len(p.hashes), maxTogether)
		if p.found == nil {
			p.found = make([]bktree.Both, n)
		}
		p.found, p.next = p.found[:n], 0
		for i := range p.found {
			p.found[i] = bktree.Both{Near: p.found[i].Near[:0], Opposite: p.found[i].Opposite[:0]}
		}
		p.f.points[PDQ].nearEither(p.hashes[:n], p.f.radius[PDQ], p.found)
		p.hashes = p.hashes[n:]
	}
	p.next++
	return &p.found[p.next-1]
}

// candidates finds the postings in force within their lists' radii, each once for
// each frame, and of one issuer not more than are weighed. What is near its pairs it takes from pairs.
func (f *fold) candidates(q *Query, pairs *pairSearch, now int64) []candidate {
	var found []candidate
	type place struct {
		posting uint32
		frame   int
	}
	var at map[place]int // where in found
	met := crowd{}       // of one point
	var near, alone []bktree.Neighbour
	var pair *bktree.Both // of which this probe is the second
	for i, probe := range q.Probes {
		a := probe.Hash.alg
		if !a.Valid() {
			continue
		}
		switch {
		case pair != nil:
			near, pair = pair.Opposite, nil
		case isPair(q.Probes, i):
			pair = pairs.near()
			near = pair.Near
		default:
			alone = f.points[a].near(probe.Hash, f.radius[a], alone[:0])
			near = alone
		}
		alike := maxAlike
		if a == VPDQ {
			alike = maxAlikeVideos
		}
		for _, n := range near {
			clear(met)
			first := f.owners[a][n.ID]
			many := first != 0 && f.postings[first-1].next != 0
			for o := first; o != 0; o = f.postings[o-1].next {
				s := &f.stmts[f.postings[o-1].stmt]
				if s.list.current == nil || n.Distance > int(s.list.radii()[a]) || !s.stands(now) || s.held != q.held || s.list.most == 0 ||
					len(q.Lists) > 0 && !slices.Contains(q.Lists, s.list.iri) {
					continue
				}
				if many && met.full(crowdOf{list: s.list, issuer: s.issuer}, alike) {
					continue
				}
				c := candidate{posting: uint32(o - 1), probe: uint32(i), distance: n.Distance, flat: probe.Flat || f.softened(s)}
				if at == nil {
					at = make(map[place]int)
				}
				if j, known := at[place{c.posting, probe.Index}]; !known {
					at[place{c.posting, probe.Index}] = len(found)
					found = append(found, c)
				} else if c.distance < found[j].distance {
					found[j] = c
				}
			}
		}
	}
	return f.few(found, q.Probes)
}

func (f *fold) action(c candidate) Action {
	s := &f.stmts[f.postings[c.posting].stmt]
	return cmp.Or(s.action, s.list.current.Action)
}

func (f *fold) suppress(found []candidate, probes []Probe) {
	type shown struct {
		origin string // of the list that accepts, "" for our own
		frame  int
		alg    Algorithm
	}
	harmless := map[shown]int{} // the least distance
	files := map[string]bool{}  // the origins that accept the very file
	origin := func(c *candidate) string { return f.stmts[f.postings[c.posting].stmt].list.origin }
	place := func(c *candidate, origin string) shown {
		p := &probes[c.probe]
		if p.Hash.alg == VPDQ {
			return shown{origin, 0, VPDQ} // a video is judged as a whole
		}
		return shown{origin, p.Index, p.Hash.alg}
	}
	for i := range found {
		if c := &found[i]; f.action(*c) == Accept && !c.suppressed {
			p, o := &probes[c.probe], origin(c)
			at := place(c, o)
			if d, ok := harmless[at]; !ok || c.unlike() < d {
				harmless[at] = c.unlike()
			}
			files[o] = files[o] || p.Hash.alg == SHA256
		}
	}
	if len(harmless) == 0 {
		return
	}
	for i := range found {
		c := &found[i]
		if f.action(*c) == Accept {
			continue
		}
		for _, o := range [...]string{"", origin(c)} {
			d, ok := harmless[place(c, o)]
			c.suppressed = c.suppressed || files[o] || ok && d <= c.unlike()
		}
	}
}

func (f *fold) match(c candidate, probes []Probe) Match {
	s := &f.stmts[f.postings[c.posting].stmt]
	d := s.list.current
	return Match{
		Probe: probes[c.probe], Distance: c.distance,
		List: s.list.iri, ListName: d.Name, Labels: union(d.Labels, s.labels),
		Issuer: s.issuer, Statement: s.id, Action: f.action(c), Reason: s.reason,
		Published: time.Unix(s.published, 0).UTC(), Suppressed: c.suppressed,
		AskedShare: int(c.asked), ListedShare: int(c.listed),
		posting: c.posting,
	}
}

// union merges two sorted sets of labels.
func union(a, b []string) []string {
	if len(b) == 0 {
		return a
	}
	u := slices.Concat(a, b)
	slices.Sort(u)
	return slices.Compact(u)
}
