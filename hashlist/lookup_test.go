package hashlist

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestLookupAgainstModel compares lookups with a walk over all statements.
func TestLookupAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var world []Statement
		for id := range rapid.IntRange(1, 30).Draw(t, "statements") {
			s := anyStatement(t, id)
			if s.Expires.IsZero() { // time is for another test
				world = append(world, s)
			}
		}
		p := DefaultPolicy()
		heeded := map[string]Verdict{}
		if rapid.Bool().Draw(t, "of one node") {
			p.Own = origin
			for n := range 3 {
				heeded[fmt.Sprintf("%s/lists/%d", foreign, n)] = Verdict(rapid.IntRange(0, 4).Draw(t, "heeded"))
			}
		}
		l, err := Open(t.Context(), &memoryLog{}, p)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		// All of it may be said before, between and after the statements.
		at := rapid.IntRange(0, len(world)).Draw(t, "say after")
		voids := anyVoids(t)
		for i := range len(world) + 1 {
			if i == at {
				for list, most := range heeded {
					l.Heed(list, most, DirectBelief(most))
				}
				for issuer, spans := range voids {
					if err := l.Void(t.Context(), issuer, spans); err != nil {
						t.Fatal(err)
					}
				}
			}
			if i < len(world) {
				if _, err := l.Apply(t.Context(), Record{Statement: world[i]}); err != nil {
					t.Fatal(err)
				}
			}
		}
		all := world // what is known, also if it does not act
		world = without(world, voids)
		most := func(list string) Verdict {
			if m, said := heeded[list]; said {
				return m
			}
			return VerdictReject
		}
		heard := slices.DeleteFunc(slices.Clone(world), func(s Statement) bool { return most(s.List) == 0 })
		modelSubjects(t, l, heard, all)
		var q Query
		for range rapid.IntRange(1, 6).Draw(t, "probes") {
			p := Probe{Hash: anyHash(t), Index: rapid.IntRange(0, 2).Draw(t, "frame")}
			q.Probes = append(q.Probes, p)
			if p.Hash.Algorithm() == PDQ && rapid.Bool().Draw(t, "with its complement") { // the two are looked up together
				if p.Hash = p.Hash.Complement(); rapid.Bool().Draw(t, "first") {
					last := &q.Probes[len(q.Probes)-1]
					*last, p = p, *last
				}
				q.Probes = append(q.Probes, p)
			}
		}
		if rapid.Bool().Draw(t, "one list") {
			q.Lists = []string{origin + "/lists/0", foreign + "/lists/0"}
		}
		r := l.Lookup(q)
		var together []Query // parts of it, too, which tear pairs apart, and more than are looked up at a time
		for len(together) < 2*maxTogether {
			for from := range q.Probes {
				for to := from + 1; to <= len(q.Probes); to++ {
					together = append(together, Query{Probes: q.Probes[from:to], Lists: q.Lists})
				}
			}
		}
		answered := 0
		l.LookupAll(together, func(i int, r *Result) {
			if alone := l.Lookup(together[i]); i != answered || !reflect.DeepEqual(*r, alone) {
				t.Fatalf("query %d, together as the %dth: %v, alone %v", i, answered, *r, alone)
			}
			answered++
		})
		if answered != len(together) {
			t.Fatalf("%d of %d queries answered", answered, len(together))
		}
		want := modelLookup(heard, q, p.Own)
		// With each probe often enough that they are not all searched for at a time.
		for _, r := range []Result{r, l.Lookup(Query{Probes: slices.Repeat(q.Probes, 2*maxTogether), Lists: q.Lists})} {
			var got []string
			for _, m := range r.Matches {
				got = append(got, fmt.Sprintf("%s %v %d %v %v", m.Statement, m.Probe.Hash.Algorithm(), m.Distance, m.Action, m.Labels))
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Fatalf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		}
		own := func(list string) bool { return p.Own == "" || strings.HasPrefix(list, p.Own+"/") }
		settled := func(m Match) (confirmed, ignored bool) {
			var said [2]time.Time
			for i, kind := range []Kind{Confirmation, Dispute} {
				for _, s := range l.fold.said(kind, m.Statement, func(*stmt, *Statement) bool { return true }) {
					if own(s.List) && s.Issuer != m.Issuer && s.Published.After(said[i]) {
						said[i] = s.Published
					}
				}
			}
			return said[0].After(said[1]), !said[1].IsZero() && !said[0].After(said[1])
		}
		suppressed := func(m Match) bool {
			if _, ignored := settled(m); ignored {
				return true
			}
			return m.Action != Accept && slices.ContainsFunc(r.Matches, func(a Match) bool {
				if a.Action != Accept || !own(a.List) && (own(m.List) || !strings.HasPrefix(m.List, foreign+"/")) {
					return false
				}
				if _, ignored := settled(a); ignored {
					return false
				}
				alg := a.Probe.Hash.Algorithm()
				return alg == SHA256 || alg == m.Probe.Hash.Algorithm() && a.Probe.Index == m.Probe.Index && a.Distance <= m.Distance
			})
		}
		agree := map[string]uint8{}
		for _, m := range r.Matches {
			if m.Suppressed != suppressed(m) {
				t.Fatalf("suppressed %v: %+v among\n%+v", m.Suppressed, m, r.Matches)
			}
			if !m.Suppressed {
				agree[m.Statement] |= 1 << m.Probe.Hash.Algorithm()
			}
		}
		worst := VerdictAllow
		var foreign []weighable
		for _, m := range r.Matches {
			if m.Suppressed || m.Action == Accept {
				continue
			}
			v := p.of(m.Action, agree[m.Statement])
			if confirmed, _ := settled(m); confirmed || own(m.List) {
				worst = max(worst, v)
			} else {
				foreign = append(foreign, weighable{m, min(v, most(m.List))})
			}
		}
		if worst = max(worst, modelBelief(l, &p, foreign)); r.Verdict != worst {
			t.Fatalf("verdict %v (%+v), want %v of\n%+v", r.Verdict, r.Decision, worst, r.Matches)
		}
		if (r.Verdict == VerdictAllow) != (len(r.Decision.Statements) == 0) && !r.Decision.Own {
			t.Fatalf("verdict %v rests on %+v", r.Verdict, r.Decision)
		}
	})
}

// weighable is a match that has to be believed, and what it may come to.
type weighable struct {
	Match
	upper Verdict
}

// modelBelief says what matches come to by those who stand behind them, label by label.
func modelBelief(l *Lists, p *Policy, matches []weighable) Verdict {
	f := l.fold
	now := time.Now().Unix()
	everything := func(*stmt, *Statement) bool { return true }
	back := func(s Statement) backer { return backer{s.Issuer, f.list(s.List).direct} }
	worst := VerdictAllow
	for v := VerdictFlag; v <= VerdictReject; v++ {
		for _, label := range []string{"", "csam", "gore", "ncii", "spam"} {
			type side struct{ behind, against, answered []backer }
			var sides []side
			for _, m := range matches {
				if m.upper < v || m.Distance > int(p.Default.of(v).Radii[m.Probe.Hash.Algorithm()]) ||
					label == "" && len(m.Labels) > 0 || label != "" && !slices.Contains(m.Labels, label) {
					continue
				}
				one := side{behind: []backer{back(Statement{Issuer: m.Issuer, List: m.List})}}
				var upheld time.Time
				for _, s := range f.said(Confirmation, m.Statement, everything) {
					if s.Issuer == m.Issuer && s.Published.After(upheld) {
						upheld = s.Published
					}
					if s.Issuer != m.Issuer && f.list(s.List).most >= v {
						one.behind = append(one.behind, back(s))
					}
				}
				for _, s := range f.said(Dispute, m.Statement, everything) {
					if s.Issuer == m.Issuer {
						continue
					}
					if upheld.After(s.Published) {
						one.answered = append(one.answered, back(s))
					} else {
						one.against = append(one.against, back(s))
					}
				}
				sides = append(sides, one)
			}
			believed := func(b []backer) int { n, _ := f.believe(label, now, b); return n }
			for relied := 1; relied < 1<<min(len(sides), 10); relied++ {
				var all side
				for i, one := range sides {
					if relied>>min(i, 9)&1 != 0 {
						all.behind = append(all.behind, one.behind...)
						all.against = append(all.against, one.against...)
						all.answered = append(all.answered, one.answered...)
					}
				}
				full := believed(all.against)
				if believed(all.behind)-full-(believed(slices.Concat(all.against, all.answered))-full+1)/2 >= p.Default.of(v).Belief {
					worst = v
				}
			}
		}
	}
	return worst
}

// modelSubjects asks for every subject and every statement there may be. heard is what
// of the world is heeded and not void.
func modelSubjects(t *rapid.T, l *Lists, heard, world []Statement) {
	defs, in := definitions(heard), modelFold(heard, epoch)
	by := func(s Statement, format string, args ...any) bool {
		_, defined := defs[s.List]
		line := fmt.Sprintf(format, args...)
		return defined && strings.HasPrefix(in, line) || defined && strings.Contains(in, "\n"+line)
	}
	compare := func(what string, got []Statement, want []string) {
		var lines []string
		for _, s := range got {
			lines = append(lines, fmt.Sprintf("%s %s %v %v %q %v %s %v", s.ID, s.Issuer, s.Action, s.Labels, s.Reason, s.Published, s.About, s.Subjects))
		}
		slices.Sort(lines)
		slices.Sort(want)
		if !slices.Equal(lines, want) {
			t.Fatalf("%s: got\n%s\nwant\n%s", what, strings.Join(lines, "\n"), strings.Join(want, "\n"))
		}
	}
	for _, kind := range []Kind{AddAccounts, AddInstances, AddContent} {
		for _, subject := range []string{"https://bad.example/1", "https://bad.example/2", "https://bad.example/?author=1", "bad.example", "xn--bcher-kva.example"} {
			var want []string
			for _, s := range heard {
				if s.Kind == kind && slices.Contains(s.Subjects, subject) &&
					by(s, "%v %s on %s labels=%v action=%v until=0 by %s\n", kind, subject, s.List, s.Labels, s.Action, s.ID) {
					d := defs[s.List]
					labels := slices.Concat(d.Labels, s.Labels)
					slices.Sort(labels)
					want = append(want, fmt.Sprintf("%s %s %v %v %q %v  %v", s.ID, s.Issuer, cmp.Or(s.Action, d.Action), slices.Compact(labels), s.Reason, s.Published, []string{subject}))
				}
			}
			compare(fmt.Sprint(kind, subject), l.Subject(kind, subject), want)
		}
	}
	for id := range 30 {
		about := fmt.Sprintf("%s/statements/%d", home(id), id)
		confirmed, disputed := l.About(about)
		for kind, got := range map[Kind][]Statement{Confirmation: confirmed, Dispute: disputed} {
			var want []string
			for _, s := range heard {
				own := slices.ContainsFunc(world, func(o Statement) bool { return o.ID == about && o.Kind != Retraction && o.Issuer == s.Issuer })
				if s.Kind == kind && s.About == about && !own && by(s, "%v of %s on %s until=0 by %s\n", kind, about, s.List, s.ID) {
					want = append(want, fmt.Sprintf("%s %s  [] %q %v %s []", s.ID, s.Issuer, s.Reason, s.Published, about))
				}
			}
			compare(fmt.Sprint(kind, about), got, want)
		}
	}
}

func definitions(world []Statement) map[string]Definition {
	in := modelFold(world, epoch)
	defs := map[string]Definition{}
	for _, s := range world {
		if s.Kind == DefineList && strings.Contains(in, fmt.Sprintf(" by %s\n", s.ID)) {
			defs[s.List] = *s.Definition
		}
	}
	return defs
}

// modelLookup has lists of other origins than own, "" for none, match by the default radii at most.
func modelLookup(world []Statement, q Query, own string) []string {
	in := modelFold(world, epoch)
	defs := definitions(world)
	var found []string
	for _, s := range world {
		d, defined := defs[s.List]
		if s.Kind != AddHashes || !defined || len(q.Lists) > 0 && !slices.Contains(q.Lists, s.List) {
			continue
		}
		if !strings.HasPrefix(s.List, own) {
			for a := range d.Radii {
				d.Radii[a] = min(d.Radii[a], DefaultRadii[a])
			}
		}
		action := s.Action
		if action == 0 {
			action = d.Action
		}
		labels := slices.Concat(d.Labels, s.Labels)
		slices.Sort(labels)
		labels = slices.Compact(labels)
		report := func(a Algorithm, distance int) {
			found = append(found, fmt.Sprintf("%s %v %d %v %v", s.ID, a, distance, action, labels))
		}
		// Of a video, what is listed, what of that was met, by which frames, and how near.
		listed, met, frames, nearest := 0, 0, map[int]bool{}, 999
		for _, h := range s.Hashes {
			if !strings.Contains(in, fmt.Sprintf("hash %v on %s labels=%v action=%v until=0 by %s\n", h, s.List, s.Labels, s.Action, s.ID)) {
				continue
			}
			best := map[int]int{} // of each frame
			for _, p := range q.Probes {
				n, ok := p.Hash.Distance(h)
				if was, known := best[p.Index]; ok && n <= int(d.Radii[h.Algorithm()]) && (!known || n < was) {
					best[p.Index] = n
				}
			}
			if h.Algorithm() == VPDQ {
				listed++
				if len(best) > 0 {
					met++
				}
			}
			for frame, n := range best {
				if h.Algorithm() == VPDQ {
					frames[frame], nearest = true, min(nearest, n)
				} else {
					report(h.Algorithm(), n)
				}
			}
		}
		asked := map[int]bool{}
		for _, p := range q.Probes {
			if p.Hash.Algorithm() == VPDQ {
				asked[p.Index] = true
			}
		}
		// Three frames, or all if there are fewer, and four fifths of what is asked about or of what is listed.
		if n := len(frames); n > 0 && n >= min(3, listed) && (5*n >= 4*len(asked) || 5*met >= 4*listed) {
			report(VPDQ, nearest)
		}
	}
	slices.Sort(found)
	return found
}

func TestVerdicts(t *testing.T) {
	pdq := func(n int) Hash { return hashAt(t, PDQ, first(n)...) }
	ban, harmless, marked := define("ban", Reject), define("harmless", Accept), define("marked", Filter)
	for _, c := range []struct {
		name       string
		statements []Statement
		ask        Query
		verdict    Verdict
		matches    int
		suppressed int
	}{
		{"nothing listed", nil, probe(pdq(0)), VerdictAllow, 0, 0},
		{"the very hash", []Statement{add("ban", pdq(0))}, probe(pdq(0)), VerdictReject, 1, 0},
		{"at the radius", []Statement{add("ban", pdq(0))}, probe(pdq(31)), VerdictReject, 1, 0},
		{"behind the radius", []Statement{add("ban", pdq(0))}, probe(pdq(32)), VerdictAllow, 0, 0},
		{"a milder list", []Statement{add("marked", pdq(0))}, probe(pdq(1)), VerdictFlag, 1, 0},
		{"the worst counts", []Statement{add("marked", pdq(0)), add("ban", pdq(9))}, probe(pdq(0)), VerdictReject, 2, 0},
		{"a list nobody defined", []Statement{add("unknown", pdq(0))}, probe(pdq(0)), VerdictAllow, 0, 0},
		{"a 64-bit hash alone", []Statement{add("ban", hashAt(t, PHash))}, probe(hashAt(t, PHash)), VerdictHold, 1, 0},
		{"two 64-bit hashes agree", []Statement{add("ban", hashAt(t, PHash), hashAt(t, DHash))}, probe(hashAt(t, PHash), hashAt(t, DHash)), VerdictReject, 2, 0},
		{"two, of different statements", []Statement{add("ban", hashAt(t, PHash)), add("ban", hashAt(t, DHash))}, probe(hashAt(t, PHash), hashAt(t, DHash)), VerdictHold, 2, 0},
		{"md5 alone", []Statement{add("ban", hashAt(t, MD5))}, probe(hashAt(t, MD5)), VerdictHold, 1, 0},
		{"sha256 alone", []Statement{add("ban", hashAt(t, SHA256))}, probe(hashAt(t, SHA256)), VerdictReject, 1, 0},
		{"a digest one bit off", []Statement{add("ban", hashAt(t, SHA256))}, probe(hashAt(t, SHA256, 3)), VerdictAllow, 0, 0},
		{"harmless and as near", []Statement{add("ban", pdq(0)), add("harmless", pdq(2))}, probe(pdq(1)), VerdictAllow, 2, 1},
		{"harmless but further", []Statement{add("ban", pdq(0)), add("harmless", pdq(5))}, probe(pdq(1)), VerdictReject, 2, 0},
		{"harmless by another algorithm", []Statement{add("ban", pdq(0)), add("harmless", hashAt(t, PHash))}, probe(pdq(0), hashAt(t, PHash)), VerdictReject, 2, 0},
		{"the very file is harmless", []Statement{add("ban", pdq(0)), add("harmless", hashAt(t, SHA256))}, probe(pdq(0), hashAt(t, SHA256)), VerdictAllow, 2, 1},
		{"a harmless frame beside a banned one", []Statement{add("ban", pdq(0)), add("harmless", pdq(100))}, probe(pdq(100), pdq(0)), VerdictReject, 2, 0},
		{"a harmless frame nearer than another's ban", []Statement{add("ban", pdq(10)), add("harmless", pdq(0))}, probe(pdq(0), pdq(8)), VerdictReject, 4, 1},
		{"a picture made flat", []Statement{add("ban", pdq(0))}, Query{Probes: []Probe{{Hash: pdq(0), Flat: true}}}, VerdictHold, 1, 0},
		{"a flat frame beside another", []Statement{add("ban", pdq(0))}, Query{Probes: []Probe{{Hash: pdq(0), Flat: true}, {Hash: pdq(1), Index: 1}}}, VerdictReject, 2, 0},
		{"a flat picture that is marked", []Statement{add("marked", pdq(0))}, Query{Probes: []Probe{{Hash: pdq(0), Flat: true}}}, VerdictFlag, 1, 0},
		{"only harmless", []Statement{add("harmless", pdq(0))}, probe(pdq(0)), VerdictAllow, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := open(t, &memoryLog{})
			apply(t, l, append([]Statement{ban, harmless, marked}, c.statements...)...)
			r := l.Lookup(c.ask)
			suppressed := 0
			for _, m := range r.Matches {
				if m.Suppressed {
					suppressed++
				}
			}
			if r.Verdict != c.verdict || len(r.Matches) != c.matches || suppressed != c.suppressed {
				t.Errorf("verdict %v of %d matches, %d suppressed (%s); want %v of %d, %d", r.Verdict, len(r.Matches), suppressed, r.Reason, c.verdict, c.matches, c.suppressed)
			}
			if r.Reason == "" || strings.Contains(r.Reason, "a5a5") {
				t.Errorf("reason %q", r.Reason)
			}
			if r.Seq != l.Seq() {
				t.Errorf("answered at %d, log is at %d", r.Seq, l.Seq())
			}
		})
	}
}

// TestVerdictsOfOthers: who lifts whose ban.
func TestVerdictsOfOthers(t *testing.T) {
	h, file := hashAt(t, PDQ), hashAt(t, SHA256)
	at := func(origin string, s Statement) Statement {
		s.ID, s.Issuer, s.List = origin+s.ID[len(home(0)):], origin+s.Issuer[len(home(0)):], origin+s.List[len(home(0)):]
		return s
	}
	const a, b, own = "https://a.example", "https://b.example", origin
	for _, c := range []struct {
		name       string
		statements []Statement
		verdict    Verdict
		suppressed int
	}{
		{"own ban, another's harmless", []Statement{at(own, add("ban", h)), at(a, add("harmless", h))}, VerdictReject, 0},
		{"own ban, another's harmless file", []Statement{at(own, add("ban", h)), at(a, add("harmless", file))}, VerdictReject, 0},
		{"another's ban, own harmless", []Statement{at(a, add("ban", h)), at(own, add("harmless", h))}, VerdictAllow, 1},
		{"another's ban, own harmless file", []Statement{at(a, add("ban", h)), at(own, add("harmless", file))}, VerdictAllow, 1},
		{"another's ban, their harmless", []Statement{at(a, add("ban", h)), at(a, add("harmless", h))}, VerdictAllow, 1},
		{"another's ban, a third's harmless", []Statement{at(a, add("ban", h)), at(b, add("harmless", h))}, VerdictReject, 0},
		{"another's ban, a third's harmless file", []Statement{at(a, add("ban", h)), at(b, add("harmless", file))}, VerdictReject, 0},
		{"two bans, one lifted", []Statement{at(a, add("ban", h)), at(b, add("ban", h)), at(b, add("harmless", h))}, VerdictReject, 1},
		{"own ban, own harmless", []Statement{at(own, add("ban", h)), at(own, add("harmless", h))}, VerdictAllow, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := DefaultPolicy()
			p.Own = own
			l, err := Open(t.Context(), &memoryLog{}, p)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			for _, o := range []string{a, b, own} {
				l.Heed(o+"/lists/ban", VerdictReject, DirectBelief(VerdictReject)) // before anything is known of them
				l.Heed(o+"/lists/harmless", VerdictAllow, DirectBelief(VerdictAllow))
				apply(t, l, at(o, define("ban", Reject)), at(o, define("harmless", Accept)))
			}
			apply(t, l, c.statements...)
			r := l.Lookup(probe(h, file))
			suppressed := 0
			for _, m := range r.Matches {
				if m.Suppressed {
					suppressed++
				}
			}
			if r.Verdict != c.verdict || suppressed != c.suppressed || len(r.Matches) != len(c.statements) {
				t.Errorf("%v, %d of %d suppressed (%s); want %v, %d", r.Verdict, suppressed, len(r.Matches), r.Reason, c.verdict, c.suppressed)
			}
		})
	}
}

func TestLookupLimit(t *testing.T) {
	l := open(t, &memoryLog{})
	apply(t, l, define("ban", Reject), define("marked", Filter))
	for n := range 10 {
		apply(t, l, add("marked", hashAt(t, PDQ, first(n)...)))
	}
	apply(t, l, add("ban", hashAt(t, PDQ, first(20)...)))
	q := probe(hashAt(t, PDQ))
	q.Limit = 3
	r := l.Lookup(q)
	if len(r.Matches) != 3 || !r.Truncated || r.Verdict != VerdictReject {
		t.Fatalf("%d matches, truncated %v, verdict %v", len(r.Matches), r.Truncated, r.Verdict)
	}
	for i, m := range r.Matches {
		if m.Distance != i || m.ListName != "marked" || m.Similarity() != 100-100*float64(i)/256 {
			t.Errorf("match %d: %+v", i, m)
		}
	}
	// A picture and its complement: the nearest probe of one hash is reported.
	q = probe(hashAt(t, PDQ, first(20)...), hashAt(t, PDQ, first(19)...))
	q.Probes[1].Index = 0
	q.Lists = []string{origin + "/lists/ban"}
	if r := l.Lookup(q); len(r.Matches) != 1 || r.Matches[0].Distance != 0 || r.Matches[0].Probe.Index != 0 || r.Truncated {
		t.Errorf("%+v", r)
	}
}

// BenchmarkLookup asks about one frame as a picture is looked up: sixteen
// probes among a hundred thousand hashes. Near nothing is the usual answer; near many
// is a picture that a hundred statements list.
func BenchmarkLookup(b *testing.B) {
	r := rand.New(rand.NewPCG(42, 42))
	drawn := func() (h Hash) {
		h.alg = PDQ
		for i := range h.sum {
			h.sum[i] = byte(r.Uint32())
		}
		return h
	}
	f := newFold()
	seq := uint64(0)
	merge := func(s Statement) {
		seq++
		f.merge(seq, &s, epoch)
	}
	merge(define("ban", Reject))
	for range 100 {
		s := add("ban")
		for range MaxHashes {
			s.Hashes = append(s.Hashes, drawn())
		}
		merge(s)
	}
	for range 100 {
		merge(add("ban", hashAt(b, PDQ)))
	}
	l := &Lists{fold: f, policy: DefaultPolicy()}
	for _, c := range []struct {
		name  string
		first Hash
		found int
	}{{"near nothing", drawn(), 0}, {"near many", hashAt(b, PDQ, first(5)...), 100}} {
		q := probe(c.first)
		for range 15 {
			q.Probes = append(q.Probes, Probe{Hash: drawn()})
		}
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				if v := l.Lookup(q); len(v.Matches) != c.found {
					b.Fatalf("%d matches, want %d", len(v.Matches), c.found)
				}
			}
		})
	}
}

// TestTogether: the lock is held for few hashes at a time, of whatever kind, and for a query of many alone.
func TestTogether(t *testing.T) {
	r := rand.NewChaCha8([32]byte{1})
	query := func(pairs, others int) (q Query) {
		for range pairs {
			h := randomHash(r, PDQ)
			q.Probes = append(q.Probes, Probe{Hash: h}, Probe{Hash: h.Complement()})
		}
		for range others {
			q.Probes = append(q.Probes, Probe{Hash: randomHash(r, VPDQ)})
		}
		return q
	}
	for _, c := range []struct {
		queries []Query
		want    int
	}{
		{[]Query{query(256, 0)}, 1},
		{[]Query{query(0, 256), query(0, 1)}, 1},
		{[]Query{query(1, 0), query(0, 256)}, 1},
		{slices.Repeat([]Query{query(1, 0)}, 64), maxTogether},
		{slices.Repeat([]Query{query(0, 1)}, 64), maxTogether},
		{slices.Repeat([]Query{query(2, 2)}, 64), maxTogether / 4},
		{slices.Repeat([]Query{{}}, 64), maxTogether},
		{[]Query{query(1, 0), query(1, 0)}, 2},
	} {
		if got := together(c.queries); got != c.want {
			t.Errorf("%d queries, the first of %d probes: %d together, want %d", len(c.queries), len(c.queries[0].Probes), got, c.want)
		}
	}
}
