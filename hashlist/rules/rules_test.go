package rules_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/hashlist/rules"
)

func load(t testing.TB, text string) *rules.Set {
	t.Helper()
	s, err := rules.Load("rules.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func facts() *hashlist.Facts {
	return &hashlist.Facts{
		Verdict: hashlist.VerdictHold, Label: "spam", Labels: []string{"nsfw", "spam"}, Belief: 80, Independent: 2, Disputed: 10,
		Algorithm: hashlist.PDQ, Distance: 12, Action: hashlist.Reject, List: "https://a.example/lists/spam",
		Issuer: "https://a.example/users/alice", Matches: 3, Now: time.Date(2026, 11, 26, 3, 0, 0, 0, time.UTC),
	}
}

func TestApply(t *testing.T) {
	day, no, three := 24*time.Hour, false, 3
	known := &hashlist.Uploader{Age: &day, Local: &no, Domain: "b.example", Actions: &three, Posts: new(int)}
	for when, want := range map[string]struct{ unknown, known bool }{
		"true":  {true, true},
		"false": {false, false},
		"verdict == 'hold' && label == 'spam' && 'nsfw' in labels":                   {true, true},
		"belief == 80 && independent == 2 && disputed == 10 && !own":                 {true, true},
		"algorithm == 'pdq' && distance <= 12 && action == 'reject' && matches == 3": {true, true},
		"list.startsWith('https://a.example/') && issuer.endsWith('/alice')":         {true, true},
		"now.getHours() < 6 && now > timestamp('2026-01-01T00:00:00Z')":              {true, true},
		"labels.exists(l, l.matches('^ns'))":                                         {true, true},
		"uploader.age < duration('48h')":                                             {false, true},
		"uploader.age < duration('23h')":                                             {false, false},
		"!(uploader.age < duration('23h'))":                                          {false, true}, // what is unknown is not false either
		"uploader.age < duration('1h') || belief >= 80":                              {true, true},
		"uploader.age < duration('48h') && belief < 80":                              {false, false},
		"uploader.local":      {false, false},
		"!uploader.local":     {false, true},
		"uploader.posts == 0": {false, true},
		"uploader.actions > 2 && uploader.domain == 'b.example'": {false, true},
		"1 / (belief - 80) > 0":                                  {false, false}, // fails
	} {
		s := load(t, fmt.Sprintf("[[rule]]\nname = \"r\"\nwhen = '''%s'''\nthen = \"reject\"\n", when))
		for _, c := range []struct {
			u    *hashlist.Uploader
			want bool
		}{{nil, want.unknown}, {new(hashlist.Uploader), want.unknown}, {known, want.known}} {
			f := facts()
			f.Uploader = c.u
			v, name, applies := s.Apply(f)
			if applies != c.want || applies && (v != hashlist.VerdictReject || name != "r") {
				t.Errorf("%s with %+v: %v %q %v, want %v", when, c.u, v, name, applies, c.want)
			}
		}
	}
}

// TestFirstApplies: rules are asked in their order, and one that fails is passed over and counted.
func TestFirstApplies(t *testing.T) {
	s := load(t, `
[[rule]]
name = "fails"
when = "1 / (belief - 80) > 0"
then = "reject"

[[rule]]
name = "soft"
when = "belief == 80"
then = "flag"

[[rule]]
name = "hard"
when = "true"
then = "reject"
`)
	if v, name, ok := s.Apply(facts()); v != hashlist.VerdictFlag || name != "soft" || !ok {
		t.Errorf("%v %q %v", v, name, ok)
	}
	if s.Failed() != 1 {
		t.Errorf("%d failures", s.Failed())
	}
	if s.Text("soft") != "belief == 80 -> flag" || s.Text("none") != "" {
		t.Errorf("text %q, %q", s.Text("soft"), s.Text("none"))
	}
	if r := s.Rules(); len(r) != 3 || r[1].Line != 7 {
		t.Errorf("%+v", r)
	}
}

// TestCostLimit: an expression that would take long is cut off, and does not apply.
func TestCostLimit(t *testing.T) {
	all := "[0,1,2,3,4,5,6,7,8,9]"
	when := "true"
	for _, v := range "abcdef" {
		when = fmt.Sprintf("%s.all(%c, %s)", all, v, when)
	}
	s := load(t, fmt.Sprintf("[[rule]]\nname = \"long\"\nwhen = '''%s'''\nthen = \"reject\"\n", when))
	begun := time.Now()
	if v, name, applies := s.Apply(facts()); applies {
		t.Errorf("%v by %s", v, name)
	}
	if s.Failed() != 1 {
		t.Errorf("%d failures", s.Failed())
	}
	t.Logf("cut off after %v", time.Since(begun))
}

func TestMistakes(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"not TOML":       {"[[rule]\n", "rules.toml:1:"},
		"unknown key":    {"[[rule]]\nname = \"a\"\nif = \"true\"\n", "rules.toml:3:1: a rule has name, when and then, and no "},
		"no name":        {"\n[[rule]]\nwhen = \"true\"\nthen = \"hold\"\n", "rules.toml:2: rule \"\": name: "},
		"name twice":     {"[[rule]]\nname = \"a\"\nwhen = \"true\"\nthen = \"hold\"\n[[rule]]\nname = \"a\"\nwhen = \"true\"\nthen = \"hold\"\n", "rules.toml:5: rule \"a\": another"},
		"no condition":   {"[[rule]]\nname = \"a\"\nthen = \"hold\"\n", "rules.toml:1: rule \"a\": when: it says nothing"},
		"unknown word":   {"[[rule]]\nname = \"a\"\nwhen = \"believe > 3\"\nthen = \"hold\"\n", "rules.toml:3: rule \"a\": when: column 1 of the expression: undeclared reference to 'believe'"},
		"unknown fact":   {"[[rule]]\nname = \"a\"\nwhen = \"belief > 3 && uploader.ip == ''\"\nthen = \"hold\"\n", "rules.toml:3: rule \"a\": when: column 15"},
		"wrong type":     {"[[rule]]\nname = \"a\"\nwhen = \"belief == 'full'\"\nthen = \"hold\"\n", "no matching overload"},
		"no condition 2": {"[[rule]]\nname = \"a\"\nwhen = \"belief\"\nthen = \"hold\"\n", "rules.toml:3: rule \"a\": when: it does not come to true or false"},
		"unknown then":   {"[[rule]]\nname = \"a\"\nwhen = \"true\"\nthen = \"ban\"\n", "rules.toml:4: rule \"a\": then: unknown verdict"},
		"many lines":     {"[[rule]]\nname = \"a\"\nwhen = '''\n  true &&\n  nonsense\n'''\nthen = \"hold\"\n", "rules.toml:5: rule \"a\": when: column 3"},
		"syntax":         {"[[rule]]\nname = \"a\"\nwhen = \"belief >\"\nthen = \"hold\"\n", "rules.toml:3: rule \"a\": when: column 9 of the expression: syntax error"},
		"inline":         {"rule = [{name = \"a\", when = \"true\", then = \"hold\"}]\n", "write each rule as a table"},
		"too long":       {"[[rule]]\nname = \"a\"\nwhen = \"true" + strings.Repeat(" ", 5000) + "\"\nthen = \"hold\"\n", "more than 4096"},
		"too many":       {strings.Repeat("[[rule]]\n", 101), "101 rules"},
		"deep":           {"[[rule]]\nname = \"a\"\nwhen = \"" + strings.Repeat("(", 300) + "true" + strings.Repeat(")", 300) + "\"\nthen = \"hold\"\n", "rules.toml:3:"},
	} {
		if _, err := rules.Load("rules.toml", []byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if s := load(t, ""); len(s.Rules()) != 0 {
		t.Error("an empty file has rules")
	}
	// All mistakes are told at once.
	_, err := rules.Load("rules.toml", []byte("[[rule]]\nname = \"a\"\nwhen = \"x\"\nthen = \"y\"\n"))
	if err == nil || strings.Count(err.Error(), "rules.toml:") != 2 {
		t.Errorf("%v", err)
	}
}

// FuzzLoad: whatever is in the file, it is read or refused with a place, and what was
// read applies within its time.
func FuzzLoad(f *testing.F) {
	f.Add("[[rule]]\nname = \"a\"\nwhen = \"uploader.age < duration('1h') && labels.exists(l, l == label)\"\nthen = \"hold\"\n")
	f.Add("[[rule]]\nname = \"a\"\nwhen = '''\ntrue\n'''\nthen = \"allow\"\n[[rule]]\n")
	f.Add("rule = 1\n")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := rules.Load("rules.toml", []byte(text))
		if err != nil {
			if !strings.HasPrefix(err.Error(), "rules.toml") {
				t.Fatalf("no place: %v", err)
			}
			return
		}
		v, name, applies := s.Apply(facts())
		if applies && (v < hashlist.VerdictAllow || v > hashlist.VerdictReject || s.Text(name) == "") {
			t.Fatalf("%v by %q", v, name)
		}
	})
}

// FuzzWhen reads expressions.
func FuzzWhen(f *testing.F) {
	for _, when := range []string{"true", "belief > 3", "labels.all(a, labels.exists(b, a == b))", "'x'.matches('(a+)+$')", "now.getDate('Europe/Paris') > 3", "[1,2,3].map(x, x * 2).size() > 2"} {
		f.Add(when)
	}
	f.Fuzz(func(t *testing.T, when string) {
		if strings.Contains(when, "'''") {
			return
		}
		s, err := rules.Load("rules.toml", []byte("[[rule]]\nname = \"a\"\nwhen = '''"+when+"'''\nthen = \"hold\"\n"))
		if err != nil {
			return
		}
		begun := time.Now()
		s.Apply(facts())
		if took := time.Since(begun); took > time.Second {
			t.Fatalf("%q took %v", when, took)
		}
	})
}

func BenchmarkApply(b *testing.B) {
	s := load(b, "[[rule]]\nname = \"a\"\nwhen = \"uploader.age < duration('24h') && belief >= 40 && distance < 8\"\nthen = \"hold\"\n")
	day := 48 * time.Hour
	f := facts()
	f.Uploader = &hashlist.Uploader{Age: &day}
	b.ReportAllocs()
	for b.Loop() {
		s.Apply(f)
	}
}
