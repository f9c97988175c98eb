package rules

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// Load reads a file of rules, TOML with a table [[rule]] for each: name, when and
// then. It compiles them, and fails with the place of each mistake: file is the name that stands
// before it.
func Load(file string, text []byte) (*Set, error) {
	if len(text) > MaxFile {
		return nil, fmt.Errorf("%s has %d bytes, at most %d are read", file, len(text), MaxFile)
	}
	var doc struct {
		Rule []struct {
			Name string `toml:"name"`
			When string `toml:"when"`
			Then string `toml:"then"`
		} `toml:"rule"`
	}
	if err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(&doc); err != nil {
		return nil, located(file, err)
	}
	if n := len(doc.Rule); n > MaxRules {
		return nil, fmt.Errorf("%s has %d rules, at most %d are allowed", file, n, MaxRules)
	}
	at, err := places(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(at) != len(doc.Rule) {
		return nil, fmt.Errorf("%s: write each rule as a table of its own, under [[rule]]", file)
	}
	s := new(Set)
	var errs []error
	names := map[string]bool{}
	for i, r := range doc.Rule {
		rule := Rule{Name: r.Name, When: r.When, Line: at[i].rule}
		wrong := func(line int, format string, args ...any) {
			errs = append(errs, fmt.Errorf("%s:%d: rule %.64q: %w", file, line, r.Name, fmt.Errorf(format, args...)))
		}
		if err := hashlist.CheckName(r.Name); err != nil {
			wrong(at[i].rule, "name: %w", err)
		} else if names[r.Name] {
			wrong(at[i].rule, "another rule has this name")
		}
		names[r.Name] = true
		if rule.Then, err = hashlist.ParseVerdict(r.Then); err != nil {
			wrong(at[i].line("then"), "then: %w", err)
		}
		switch {
		case strings.TrimSpace(r.When) == "":
			wrong(at[i].line("when"), "when: it says nothing (write \"true\" for always)")
			continue
		case len(r.When) > maxWhen:
			wrong(at[i].line("when"), "when: %d bytes are more than %d", len(r.When), maxWhen)
			continue
		}
		program, line, column, err := compile(r.When)
		switch {
		case err != nil && line > 0:
			wrong(at[i].line("when")+line-1, "when: column %d of the expression: %w", column, err)
		case err != nil:
			wrong(at[i].line("when"), "when: %w", err)
		}
		s.rules, s.programs = append(s.rules, rule), append(s.programs, program)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return s, nil
}

// located gives a mistake of TOML its place.
func located(file string, err error) error {
	var unknown *toml.StrictMissingError
	var wrong *toml.DecodeError
	switch {
	case errors.As(err, &unknown) && len(unknown.Errors) > 0:
		line, column := unknown.Errors[0].Position()
		return fmt.Errorf("%s:%d:%d: a rule has name, when and then, and no %s", file, line, column, strings.Join(unknown.Errors[0].Key(), "."))
	case errors.As(err, &wrong):
		line, column := wrong.Position()
		return fmt.Errorf("%s:%d:%d: %s", file, line, column, strings.TrimPrefix(wrong.Error(), "toml: "))
	}
	return fmt.Errorf("%s: %w", file, err)
}

// place is where a rule stands: the line of its [[rule]], and those in which its values begin.
type place struct {
	rule int
	keys map[string]int
}

func (p *place) line(key string) int {
	if n := p.keys[key]; n > 0 {
		return n
	}
	return p.rule
}

// places returns where each rule of a file stands that the decoder has read.
func places(text []byte) ([]place, error) {
	var all []place
	var p unstable.Parser
	p.Reset(text)
	for p.NextExpression() {
		e := p.Expression()
		switch e.Kind {
		case unstable.ArrayTable:
			line := 0
			if k := e.Key(); k.Next() {
				line = p.Shape(k.Node().Raw).Start.Line
			}
			all = append(all, place{rule: line, keys: map[string]int{}})
		case unstable.KeyValue:
			k := e.Key()
			if !k.Next() || len(all) == 0 {
				continue
			}
			raw := e.Value().Raw
			line := p.Shape(k.Node().Raw).Start.Line
			if raw.Length > 0 {
				line = p.Shape(raw).Start.Line
				// What a text of many lines says begins behind its first line break.
				for _, q := range []string{"'''\n", "\"\"\"\n", "'''\r\n", "\"\"\"\r\n"} {
					if bytes.HasPrefix(p.Raw(raw), []byte(q)) {
						line++
					}
				}
			}
			all[len(all)-1].keys[string(k.Node().Data)] = line
		}
	}
	return all, p.Error()
}
