// Package rules reads the operator's rules about uploads that match, and applies
// them. They are written in CEL (Common Expression Language), which cannot loop without end,
// reach for anything but the facts it is given, or change them, and whose cost is
// counted while it runs.
//
// It is apart from package hashlist so that the heart does not link the compiler of a
// language.
package rules

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/interpreter"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// Bounds of rules. A rule of ordinary size costs some ten units, and takes about a
// microsecond.
const (
	MaxFile  = 256 << 10             // bytes of a file of rules
	MaxRules = 100                   // in one file
	maxWhen  = 4 << 10               // bytes of one expression
	maxCost  = 10_000                // units of CEL's cost that one rule may come to
	maxTime  = 20 * time.Millisecond // for all rules of one lookup
)

// Rule is one rule.
type Rule struct {
	Name string           // as hashlist.CheckName wants it
	When string           // a CEL expression that comes to true or false
	Then hashlist.Verdict // the verdict if it is true
	Line int              // where in the file it begins, from 1
}

// Set is a file of rules. It implements hashlist.Rules.
type Set struct {
	rules    []Rule
	programs []cel.Program
	failed   atomic.Uint64
}

var _ hashlist.Rules = (*Set)(nil)

// Rules returns the rules in the order in which they are asked. The caller must
// not change them.
func (s *Set) Rules() []Rule { return s.rules }

// Text implements hashlist.Rules.
func (s *Set) Text(name string) string {
	for _, r := range s.rules {
		if r.Name == name {
			return r.When + " -> " + r.Then.String()
		}
	}
	return ""
}

// Failed is how often a rule failed, mostly because it cost too much, and so did not apply.
func (s *Set) Failed() uint64 { return s.failed.Load() }

// variables are what expressions may name. docs/policy.md explains them.
var variables = []struct {
	name string
	of   *cel.Type
}{
	{"verdict", cel.StringType}, {"label", cel.StringType}, {"labels", cel.ListType(cel.StringType)},
	{"belief", cel.IntType}, {"independent", cel.IntType}, {"disputed", cel.IntType}, {"own", cel.BoolType},
	{"algorithm", cel.StringType}, {"distance", cel.IntType}, {"action", cel.StringType},
	{"list", cel.StringType}, {"issuer", cel.StringType}, {"matches", cel.IntType}, {"now", cel.TimestampType},
	{"uploader.age", cel.DurationType}, {"uploader.local", cel.BoolType}, {"uploader.domain", cel.StringType},
	{"uploader.actions", cel.IntType}, {"uploader.posts", cel.IntType},
}

var environment = func() *cel.Env {
	options := []cel.EnvOption{cel.DefaultUTCTimeZone(true), cel.ParserExpressionSizeLimit(maxWhen), cel.ParserRecursionLimit(50)}
	for _, v := range variables {
		options = append(options, cel.Variable(v.name, v.of))
	}
	env, err := cel.NewEnv(options...)
	if err != nil {
		panic(fmt.Sprintf("rules: %v", err)) // of constants alone
	}
	return env
}()

// errBool tells a rule whose expression is of another type.
var errBool = errors.New("it does not come to true or false")

// compile returns the program of an expression. The error's place is in the
// expression: lines and columns from 1, 0 if it has none.
func compile(when string) (p cel.Program, line, column int, err error) {
	ast, issues := environment.Compile(when)
	if issues.Err() != nil {
		e := issues.Errors()[0]
		return nil, e.Location.Line(), e.Location.Column() + 1, errors.New(strings.ToLower(e.Message[:1]) + e.Message[1:])
	}
	if ast.OutputType() != cel.BoolType {
		return nil, 0, 0, errBool
	}
	// What is known of the uploader differs from call to call: what needs more is unknown.
	p, err = environment.Program(ast, cel.EvalOptions(cel.OptOptimize, cel.OptPartialEval), cel.CostLimit(maxCost), cel.InterruptCheckFrequency(100))
	return p, 0, 0, err
}

// Apply implements hashlist.Rules.
func (s *Set) Apply(f *hashlist.Facts) (hashlist.Verdict, string, bool) {
	if len(s.rules) == 0 {
		return 0, "", false
	}
	known, unknown := values(f)
	facts, err := cel.PartialVars(known, unknown...)
	if err != nil {
		s.failed.Add(1)
		return 0, "", false
	}
	ctx, cancel := context.WithTimeout(context.Background(), maxTime)
	defer cancel()
	for i, p := range s.programs {
		v, _, err := p.ContextEval(ctx, facts)
		if err != nil {
			s.failed.Add(1)
			if ctx.Err() != nil {
				break
			}
			continue
		}
		if v == types.True { // and not an unknown
			return s.rules[i].Then, s.rules[i].Name, true
		}
	}
	return 0, "", false
}

// values are the facts by name, and patterns of those that nobody knows.
func values(f *hashlist.Facts) (map[string]any, []*interpreter.AttributePattern) {
	labels := f.Labels
	if labels == nil {
		labels = []string{}
	}
	known := map[string]any{
		"verdict": f.Verdict.String(), "label": f.Label, "labels": labels, "belief": f.Belief, "independent": f.Independent,
		"disputed": f.Disputed, "own": f.Own, "algorithm": f.Algorithm.String(), "distance": f.Distance,
		"action": f.Action.String(), "list": f.List, "issuer": f.Issuer, "matches": f.Matches, "now": f.Now.UTC(),
	}
	var unknown []*interpreter.AttributePattern
	fact := func(name string, v any, is bool) {
		if is {
			known[name] = v
		} else {
			unknown = append(unknown, cel.AttributePattern(name))
		}
	}
	u := f.Uploader
	if u == nil {
		u = new(hashlist.Uploader)
	}
	fact("uploader.age", value(u.Age), u.Age != nil)
	fact("uploader.local", value(u.Local), u.Local != nil)
	fact("uploader.domain", u.Domain, u.Domain != "")
	fact("uploader.actions", value(u.Actions), u.Actions != nil)
	fact("uploader.posts", value(u.Posts), u.Posts != nil)
	return known, unknown
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
