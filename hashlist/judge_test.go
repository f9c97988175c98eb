package hashlist

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// town is a node and the others it knows. Each has a list "ban" (label csam,
// action reject) and a list "trust", and a letter for a name; the node itself is "me".
type town struct {
	t     testing.TB
	l     *Lists
	clock int
	n     int
}

func newTown(t testing.TB, change func(*Policy), others ...string) *town {
	t.Helper()
	p := DefaultPolicy()
	p.Own = "https://me.example"
	if change != nil {
		change(&p)
	}
	f := newFold()
	f.own = p.Own
	w := &town{t: t, l: &Lists{fold: f, policy: p, stir: make(chan struct{}, 1), stirred: map[string]bool{}}}
	for _, o := range append(others, "me") {
		for list, action := range map[string]Action{"ban": Reject, "trust": Filter, "harmless": Accept} {
			if o != "me" {
				w.l.Heed(w.list(o, list), VerdictReject, 0)
			}
			s := w.statement(o, list, DefineList)
			s.Definition = &Definition{Name: list, Audience: Public, Action: action, Radii: DefaultRadii}
			if list == "ban" {
				s.Definition.Labels = []string{"csam"}
			}
			w.say(s)
		}
	}
	return w
}

func (w *town) issuer(who string) string     { return "https://" + who + ".example/users/" + who }
func (w *town) list(who, name string) string { return "https://" + who + ".example/lists/" + name }

func (w *town) statement(who, list string, kind Kind) Statement {
	w.n++
	w.clock++
	return Statement{
		ID: fmt.Sprintf("https://%s.example/statements/%d", who, w.n), Issuer: w.issuer(who), List: w.list(who, list), Kind: kind,
		Published: epoch.Add(time.Duration(w.clock) * time.Second),
	}
}

func (w *town) say(s Statement) Statement {
	w.t.Helper()
	if err := s.Validate(); err != nil {
		w.t.Fatal(err)
	}
	w.l.fold.merge(uint64(w.n), &s, epoch)
	return s
}

func (w *town) vouch(for_ string, amount uint8, labels ...string) Statement {
	w.t.Helper()
	s := w.statement("me", "trust", Vouch)
	s.Labels, s.Vouch = labels, &Vouching{Object: w.issuer(for_), Amount: amount}
	return w.say(s)
}

func (w *town) ban(who string, hashes ...Hash) Statement {
	w.t.Helper()
	s := w.statement(who, "ban", AddHashes)
	s.Hashes = hashes
	return w.say(s)
}

func (w *town) opinion(who string, kind Kind, about Statement) Statement {
	w.t.Helper()
	s := w.statement(who, "ban", kind)
	s.About = about.ID
	return w.say(s)
}

func (w *town) confirm(who string, s Statement) Statement { return w.opinion(who, Confirmation, s) }
func (w *town) dispute(who string, s Statement) Statement { return w.opinion(who, Dispute, s) }

// TestBelieved: what it takes until others' statements act.
func TestBelieved(t *testing.T) {
	at := func(n int) Hash { return hashAt(t, PDQ, first(n)...) }
	h := at(0)
	two := func(v Verdict) func(*Policy) {
		return func(p *Policy) { p.Default.of(v).Issuers = 2; p.Default.Reject.Issuers = 2 }
	}
	for _, c := range []struct {
		name   string
		policy func(*Policy)
		given  func(*town)
		want   Verdict
		belief int
	}{
		{"nobody is believed", nil, func(w *town) { w.ban("a", h) }, VerdictAllow, 0},
		{"a little less than marginally", nil, func(w *town) { w.vouch("a", 39); w.ban("a", h) }, VerdictAllow, 0},
		{"marginally", nil, func(w *town) { w.vouch("a", 40); w.ban("a", h) }, VerdictFlag, 40},
		{"partly", nil, func(w *town) { w.vouch("a", 80); w.ban("a", h) }, VerdictHold, 80},
		{"fully", nil, func(w *town) { w.vouch("a", 120); w.ban("a", h) }, VerdictReject, 120},
		{"fully, of something else", nil, func(w *town) { w.vouch("a", 120, "spam"); w.ban("a", h) }, VerdictAllow, 0},
		{"fully, of this", nil, func(w *town) { w.vouch("a", 120, "csam", "spam"); w.ban("a", h) }, VerdictReject, 120},
		{"two marginally", nil, func(w *town) { w.vouch("a", 40); w.vouch("b", 40); w.ban("a", h); w.ban("b", at(5)) }, VerdictHold, 80},
		{"one marginally, twice", nil, func(w *town) { w.vouch("a", 40); w.ban("a", h); w.ban("a", at(1)) }, VerdictFlag, 40},
		{"one lists it, one confirms", nil, func(w *town) { w.vouch("a", 40); w.vouch("b", 40); w.confirm("b", w.ban("a", h)) }, VerdictHold, 80},
		{"three stand behind it", nil, func(w *town) {
			for _, o := range []string{"a", "b", "c"} {
				w.vouch(o, 40)
			}
			s := w.ban("a", h)
			w.confirm("b", s)
			w.confirm("c", s)
		}, VerdictReject, 120},
		{"confirmed by the believed, listed by nobody", nil, func(w *town) { w.vouch("b", 120); w.confirm("b", w.ban("a", h)) }, VerdictReject, 120},
		{"nobody confirms", nil, func(w *town) { w.vouch("a", 40); w.confirm("c", w.ban("a", h)) }, VerdictFlag, 40},
		{"at the distance of a rejection", nil, func(w *town) { w.vouch("a", 120); w.ban("a", at(24)) }, VerdictReject, 120},
		{"behind it", nil, func(w *town) { w.vouch("a", 120); w.ban("a", at(25)) }, VerdictHold, 120},
		{"a nearer one by somebody else", nil, func(w *town) { w.vouch("a", 120); w.vouch("b", 40); w.ban("a", at(25)); w.ban("b", h) }, VerdictHold, 120},
		{"one where two are asked for", two(VerdictHold), func(w *town) { w.vouch("a", 120); w.ban("a", h) }, VerdictFlag, 120},
		{"two where two are asked for", two(VerdictHold), func(w *town) { w.vouch("a", 120); w.vouch("b", 40); w.ban("a", h); w.ban("b", h) }, VerdictReject, 120},
		{"a stricter label", func(p *Policy) {
			d := DefaultThresholds()
			d.Flag.Belief, d.Hold.Belief = 80, 120
			p.Labels = map[string]Thresholds{"csam": d}
		}, func(w *town) { w.vouch("a", 80); w.ban("a", h) }, VerdictFlag, 80},
		{"a second algorithm is asked for", func(p *Policy) { p.Default.Reject.Second = true },
			func(w *town) { w.vouch("a", 120); w.ban("a", h) }, VerdictHold, 120},
		{"and is there", func(p *Policy) { p.Default.Reject.Second = true },
			func(w *town) { w.vouch("a", 120); w.ban("a", h, hashAt(t, PHash)) }, VerdictReject, 120},
		{"a list that may only flag", nil, func(w *town) {
			w.vouch("a", 120)
			w.l.Heed(w.list("a", "ban"), VerdictFlag, 40)
			w.ban("a", h)
		}, VerdictFlag, 120},
		{"followed, with no belief of its own", nil, func(w *town) {
			w.l.Heed(w.list("a", "ban"), VerdictReject, DirectBelief(VerdictReject))
			w.ban("a", h)
		}, VerdictReject, 120},
		{"a confirmation that may only flag", nil, func(w *town) {
			w.vouch("b", 120)
			w.l.Heed(w.list("b", "ban"), VerdictFlag, 0)
			w.confirm("b", w.ban("a", h))
		}, VerdictFlag, 120},

		{"disputed by nobody", nil, func(w *town) { w.vouch("a", 120); w.dispute("c", w.ban("a", h)) }, VerdictReject, 120},
		{"disputed by the marginally believed", nil, func(w *town) { w.vouch("a", 120); w.vouch("b", 40); w.dispute("b", w.ban("a", h)) }, VerdictHold, 80},
		{"disputed by the fully believed", nil, func(w *town) { w.vouch("a", 120); w.vouch("b", 120); w.dispute("b", w.ban("a", h)) }, VerdictAllow, 0},
		{"disputed, and upheld", nil, func(w *town) {
			w.vouch("a", 120)
			w.vouch("b", 80)
			s := w.ban("a", h)
			w.dispute("b", s)
			w.confirm("a", s)
		}, VerdictHold, 80},
		{"upheld before it was disputed", nil, func(w *town) {
			w.vouch("a", 120)
			w.vouch("b", 80)
			s := w.ban("a", h)
			w.confirm("a", s)
			w.dispute("b", s)
		}, VerdictFlag, 40},
		{"one of two is disputed", nil, func(w *town) {
			w.vouch("a", 120)
			w.vouch("b", 80)
			w.vouch("c", 120)
			w.dispute("c", w.ban("a", h))
			w.ban("b", h)
		}, VerdictHold, 80},
		{"disputed by its issuer", nil, func(w *town) { w.vouch("a", 120); w.dispute("a", w.ban("a", h)) }, VerdictReject, 120},

		{"our own", nil, func(w *town) { w.ban("me", at(31)) }, VerdictReject, 120},
		{"disputed by others", nil, func(w *town) { w.vouch("a", 120); w.dispute("a", w.ban("me", h)) }, VerdictReject, 120},
		{"ignored here", nil, func(w *town) { w.vouch("a", 120); w.dispute("me", w.ban("a", h)) }, VerdictAllow, 0},
		{"ignored here, and listed by another", nil, func(w *town) {
			w.vouch("a", 120)
			w.vouch("b", 80)
			w.dispute("me", w.ban("a", h))
			w.ban("b", h)
		}, VerdictHold, 80},
		{"confirmed here", nil, func(w *town) { w.confirm("me", w.ban("a", at(30))) }, VerdictReject, 120},
		{"confirmed here, and disputed by the believed", nil, func(w *town) {
			w.vouch("b", 120)
			s := w.ban("a", h)
			w.dispute("b", s)
			w.confirm("me", s)
		}, VerdictReject, 120},
		{"confirmed, then ignored here", nil, func(w *town) { s := w.ban("a", h); w.confirm("me", s); w.dispute("me", s) }, VerdictAllow, 0},
		{"ignored, then confirmed here", nil, func(w *town) { s := w.ban("a", h); w.dispute("me", s); w.confirm("me", s) }, VerdictReject, 120},
		{"harmless here", nil, func(w *town) {
			w.vouch("a", 120)
			w.ban("a", h)
			s := w.statement("me", "harmless", AddHashes)
			s.Hashes = []Hash{h}
			w.say(s)
		}, VerdictAllow, 0},
		{"called harmless by others, which is ignored here", nil, func(w *town) {
			w.vouch("a", 120)
			w.ban("a", h)
			s := w.statement("a", "harmless", AddHashes)
			s.Hashes = []Hash{h}
			w.dispute("me", w.say(s))
		}, VerdictReject, 120},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newTown(t, c.policy, "a", "b", "c")
			c.given(w)
			r := w.l.Lookup(probe(h, hashAt(t, PHash)))
			if r.Verdict != c.want || r.Decision.Belief != c.belief {
				t.Errorf("%v (%s), %+v; want %v believed %d", r.Verdict, r.Reason, r.Decision, c.want, c.belief)
			}
			if r.Verdict > VerdictAllow && (len(r.Decision.Statements) == 0 || r.Decision.Algorithm != PDQ) {
				t.Errorf("decision %+v", r.Decision)
			}
			if strings.Contains(r.Reason, "a5a5") {
				t.Errorf("reason %q", r.Reason)
			}
		})
	}
}

// TestInventedIssuers: a thousand who stand behind one edge come to that edge.
func TestInventedIssuers(t *testing.T) {
	others := []string{"a"}
	for i := range 50 {
		others = append(others, fmt.Sprintf("x%d", i))
	}
	w := newTown(t, nil, others...)
	s := w.statement("me", "trust", Vouch)
	s.Vouch = &Vouching{Object: w.issuer("a"), Amount: 40, Depth: 2}
	w.say(s)
	banned := w.ban("a", hashAt(t, PDQ))
	w.l.Rely(w.list("a", "trust"), true)
	for _, o := range others[1:] {
		s := w.statement("a", "trust", Vouch)
		s.Vouch = &Vouching{Object: w.issuer(o), Amount: 120}
		w.say(s)
		w.confirm(o, banned)
		w.ban(o, hashAt(t, PDQ, 3))
	}
	if r := w.l.Lookup(probe(hashAt(t, PDQ))); r.Verdict != VerdictFlag || r.Decision.Belief != 40 {
		t.Errorf("%v: %+v", r.Verdict, r.Decision)
	}
}

// TestMoreBelief: more belief in those who list something, and less in those who dispute it, never makes
// the verdict milder; and nobody who is not believed changes it.
func TestMoreBelief(t *testing.T) {
	names := []string{"a", "b", "c", "d", "liar"}
	tb := t
	rapid.Check(t, func(t *rapid.T) {
		amounts := map[string]uint8{}
		for _, o := range names[:4] {
			amounts[o] = rapid.Uint8Range(0, 120).Draw(t, "amount")
		}
		type say struct {
			who      string
			kind     Kind
			about, d int
		}
		var said []say
		for range rapid.IntRange(1, 8).Draw(t, "statements") {
			said = append(said, say{
				rapid.SampledFrom(names[:4]).Draw(t, "who"), rapid.SampledFrom([]Kind{AddHashes, Confirmation, Dispute}).Draw(t, "kind"),
				rapid.IntRange(0, 7).Draw(t, "about"), rapid.IntRange(0, 31).Draw(t, "distance"),
			})
		}
		verdict := func(amounts map[string]uint8, said []say) Verdict {
			w := newTown(tb, nil, names...)
			for _, o := range names[:4] {
				if amounts[o] > 0 {
					w.vouch(o, amounts[o])
				}
			}
			var bans []Statement
			for _, s := range said {
				if s.kind == AddHashes {
					ban := w.ban(s.who, hashAt(w.t, PDQ, first(s.d)...))
					if s.who != "liar" { // so that the others speak of the same with and without
						bans = append(bans, ban)
					}
				}
			}
			for _, s := range said {
				if s.kind != AddHashes && len(bans) > 0 {
					w.opinion(s.who, s.kind, bans[s.about%len(bans)])
				}
			}
			return w.l.Lookup(probe(hashAt(w.t, PDQ))).Verdict
		}
		before := verdict(amounts, said)

		// Nobody believes the liar.
		lies := slices.Clone(said)
		for range 4 {
			lies = append(lies, say{"liar", rapid.SampledFrom([]Kind{AddHashes, Confirmation, Dispute}).Draw(t, "lie"), rapid.IntRange(0, 7).Draw(t, "about"), rapid.IntRange(0, 31).Draw(t, "distance")})
		}
		if got := verdict(amounts, lies); got != before {
			t.Fatalf("%v, and %v with what nobody believes", before, got)
		}
		// Who disputes nothing may be believed more, and who does nothing else less.
		one := rapid.SampledFrom(names[:4]).Draw(t, "one")
		disputes := slices.ContainsFunc(said, func(s say) bool { return s.who == one && s.kind == Dispute })
		backs := slices.ContainsFunc(said, func(s say) bool { return s.who == one && s.kind != Dispute })
		changed := map[string]uint8{}
		for o, n := range amounts {
			changed[o] = n
		}
		switch {
		case !disputes:
			changed[one] = rapid.Uint8Range(amounts[one], 120).Draw(t, "more")
		case !backs:
			changed[one] = rapid.Uint8Range(0, amounts[one]).Draw(t, "less")
		default:
			return
		}
		if got := verdict(changed, said); got < before {
			t.Fatalf("%v became %v when the belief in %s went from %d to %d: %+v, %v", before, got, one, amounts[one], changed[one], said, amounts)
		}
	})
}

// ruled is one rule.
type ruled func(*Facts) (Verdict, bool)

func (r ruled) Apply(f *Facts) (Verdict, string, bool) { v, ok := r(f); return v, "only", ok }
func (r ruled) Text(string) string                     { return "" }

// TestRulesAreBounded: what a rule may and may not do.
func TestRulesAreBounded(t *testing.T) {
	h := hashAt(t, PDQ)
	always := func(v Verdict) ruled { return func(*Facts) (Verdict, bool) { return v, true } }
	for _, c := range []struct {
		name  string
		rule  ruled
		given func(*town)
		want  Verdict
		asked bool
	}{
		{"harder than the thresholds", always(VerdictReject), func(w *town) { w.vouch("a", 10); w.ban("a", h) }, VerdictReject, true},
		{"softer than them", always(VerdictAllow), func(w *town) { w.vouch("a", 120); w.ban("a", h) }, VerdictAllow, true},
		{"about those whom nobody believes", always(VerdictReject), func(w *town) { w.ban("a", h) }, VerdictAllow, false},
		{"softer than our own ban", always(VerdictAllow), func(w *town) { w.ban("me", h) }, VerdictReject, true},
		{"softer than what we confirmed", always(VerdictFlag), func(w *town) { w.confirm("me", w.ban("a", h)) }, VerdictReject, true},
		{"what we ignore", always(VerdictReject), func(w *town) { w.vouch("a", 120); w.dispute("me", w.ban("a", h)) }, VerdictAllow, false},
		{"beyond what a list may", always(VerdictReject), func(w *town) {
			w.vouch("a", 120)
			w.ban("a", h)
			w.l.Heed(w.list("a", "ban"), VerdictFlag, 0)
		}, VerdictFlag, true},
		{"beyond what a list may, by another's list that is not believed", always(VerdictReject), func(w *town) {
			w.vouch("a", 120)
			w.ban("a", h)
			w.l.Heed(w.list("a", "ban"), VerdictFlag, 0)
			w.ban("b", h)
		}, VerdictFlag, true},
		{"beyond an algorithm's ceiling", always(VerdictReject), func(w *town) { w.vouch("a", 120); w.ban("a", hashAt(t, PHash)) }, VerdictHold, true},
		{"where nothing matches", always(VerdictReject), func(*town) {}, VerdictAllow, false},
		{"by what it is told", func(f *Facts) (Verdict, bool) {
			return VerdictReject, f.Verdict == VerdictHold && f.Label == "csam" && f.Belief == 80 && f.Independent == 1 && !f.Own && f.Matches == 1 &&
				f.Distance == 0 && f.Algorithm == PDQ && f.Action == Reject && f.Issuer == "https://a.example/users/a" && *f.Uploader.Posts == 3
		}, func(w *town) { w.vouch("a", 80); w.ban("a", h) }, VerdictReject, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked := false
			w := newTown(t, func(p *Policy) {
				p.Rules = ruled(func(f *Facts) (Verdict, bool) { asked = true; return c.rule(f) })
			}, "a", "b")
			c.given(w)
			q := probe(h, hashAt(t, PHash))
			posts := 3
			q.Uploader = &Uploader{Posts: &posts}
			r := w.l.Lookup(q)
			if r.Verdict != c.want || asked != c.asked {
				t.Errorf("%v (%s), asked %v; want %v, %v", r.Verdict, r.Reason, asked, c.want, c.asked)
			}
			if asked && !strings.HasPrefix(r.Reason, "rule only: ") {
				t.Errorf("reason %q", r.Reason)
			}
		})
	}
}

func TestThresholdsValidate(t *testing.T) {
	good := DefaultThresholds()
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Thresholds){
		"no belief":                   func(d *Thresholds) { d.Flag.Belief = 0 },
		"more than full":              func(d *Thresholds) { d.Reject.Belief = 121 },
		"no issuers":                  func(d *Thresholds) { d.Hold.Issuers = 0 },
		"too many":                    func(d *Thresholds) { d.Hold.Issuers, d.Reject.Issuers = 101, 101 },
		"a rejection for less":        func(d *Thresholds) { d.Reject.Belief = 79 },
		"a rejection by fewer":        func(d *Thresholds) { d.Hold.Issuers = 2 },
		"a rejection from further":    func(d *Thresholds) { d.Hold.Radii[PDQ] = 20 },
		"beyond the greatest radius":  func(d *Thresholds) { d.Flag.Radii[PDQ] = 64 },
		"a digest's radius":           func(d *Thresholds) { d.Flag.Radii[MD5] = 1 },
		"a second only for the mild":  func(d *Thresholds) { d.Flag.Second = true },
		"a flag for more than a hold": func(d *Thresholds) { d.Flag.Belief = 81 },
	} {
		d := DefaultThresholds()
		change(&d)
		p := DefaultPolicy()
		p.Labels = map[string]Thresholds{"spam": d}
		if d.Validate() == nil || p.Validate() == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	p := DefaultPolicy()
	p.Labels = map[string]Thresholds{"No Label": good}
	if p.Validate() == nil {
		t.Error("a label that is none was accepted")
	}
}

// What decided is named, and counted, and not who listed the same and is believed by nobody.
func TestDecidedByTheBelieved(t *testing.T) {
	w := newTown(t, nil, "alice", "bob", "carol")
	h := hashAt(t, PDQ)
	var bobs Statement
	for range maxStatements + 1 {
		bobs = w.ban("bob", h)
	}
	w.vouch("alice", 120)
	s := w.ban("alice", hashAt(t, PDQ, 1))
	r := w.l.Lookup(Query{Probes: []Probe{{Hash: h}}, Limit: 1})
	if m := r.Decided(); r.Verdict != VerdictReject || m == nil || m.Statement != s.ID || m.Distance != 1 {
		t.Fatalf("%v, decided by %+v, not %s", r.Verdict, r.Decided(), s.ID)
	}
	if d := r.Decision; len(d.Statements) != 1 || d.Statements[0] != s.ID || d.Distance != 1 || !strings.Contains(r.Reason, s.Issuer) {
		t.Errorf("%+v, %q", d, r.Reason)
	}
	if len(r.behind) != 1 || r.behind[0].issuer != s.Issuer {
		t.Errorf("behind it stand %+v", r.behind)
	}
	// Whoever confirms what somebody else listed stands behind it, too.
	w.vouch("carol", 120)
	w.confirm("carol", bobs)
	far := hashAt(t, PDQ, first(80)...)
	w.confirm("carol", w.ban("bob", far))
	b := NewBreaker(w.l, BreakerConfig{PerIssuer: 1, Stay: time.Hour})
	for _, p := range []Hash{h, far} {
		r := w.l.Lookup(Query{Probes: []Probe{{Hash: p}}})
		b.Note(&r)
	}
	open := map[string]bool{}
	for _, o := range b.Open() {
		open[o.Issuer] = true
	}
	if !open[w.issuer("carol")] || open[w.issuer("alice")] {
		t.Errorf("open: %v", open)
	}
	b.Close(w.issuer("bob"))
	if r := w.l.Lookup(Query{Probes: []Probe{{Hash: far}}}); r.Verdict != VerdictHold {
		t.Errorf("%v by a confirmation of whom the breaker is open for", r.Verdict)
	}
}

// Explain names the breaker that caps a verdict, and not the picture.
func TestExplainBreaker(t *testing.T) {
	w := newTown(t, nil, "alice")
	w.vouch("alice", 120)
	b := NewBreaker(w.l, BreakerConfig{PerIssuer: 1, Stay: time.Hour})
	h, far := hashAt(t, PDQ), hashAt(t, PDQ, first(80)...)
	for _, p := range []Hash{h, far} {
		w.ban("alice", p)
		r := w.l.Lookup(Query{Probes: []Probe{{Hash: p}}})
		b.Note(&r)
	}
	e := w.l.Explain(Query{Probes: []Probe{{Hash: h}}})
	if e.Verdict != VerdictHold || !strings.Contains(strings.Join(e.Change, "\n"), "reject: a circuit breaker that is open has what "+w.issuer("alice")+" lists come to hold") {
		t.Errorf("%v, %q", e.Verdict, e.Change)
	}
}

// A breaker counts who decides, although somebody whom nobody believes lists the same.
func TestBreakerCountsTheBelieved(t *testing.T) {
	w := newTown(t, nil, "alice", "bob")
	w.vouch("alice", 120)
	b := NewBreaker(w.l, BreakerConfig{PerIssuer: 3, Stay: time.Hour})
	for n := range 4 {
		h := hashAt(t, PDQ, first(50*n)...)
		w.ban("bob", h)
		w.ban("alice", h)
	}
	for n := range 4 {
		r := w.l.Lookup(Query{Probes: []Probe{{Hash: hashAt(t, PDQ, first(50*n)...)}}})
		b.Note(&r)
	}
	if open := b.Open(); len(open) != 1 || open[0].Issuer != w.issuer("alice") {
		t.Errorf("open: %+v", open)
	}
}
