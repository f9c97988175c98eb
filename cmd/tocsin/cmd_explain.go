package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

func (a *app) explainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "explain HASH|STATEMENT|VERDICT-ID", Short: "Tell how a verdict came about, and what would change it", Args: cobra.ExactArgs(1),
		Long: `Tell what a verdict rests on: what matches and how near it is, who says so and
whether their proof holds (it is checked again from the bytes that were signed),
who confirms and who disputes it, over which relationships they are believed, what
the thresholds ask for, which rule applied, and what would have to change for
another outcome.

HASH is algorithm:hex. STATEMENT is the address of a statement: what it lists is
looked up. VERDICT-ID is what a hook answered as its reference, or a lookup of an upload as its
verdict_id: then it also tells what was decided at the time.`,
		Example: "  tocsin explain pdq:f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22\n  tocsin explain https://hashes.example/statements/LLdA...\n  tocsin explain k5zq3v...",
	}
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.call(cmd, func(ctx context.Context, n *node) error {
			v, err := pb.NewExplainServiceClient(n.ClientConn).Explain(ctx, &pb.ExplainRequest{Subject: args[0]})
			if err != nil {
				return err
			}
			if a.json {
				return a.message(v)
			}
			if v.GetThen() != nil {
				if err := a.printThen(v.GetThen()); err != nil {
					return err
				}
			}
			if v.GetNow() != nil {
				a.printNow(v.GetNow(), v.GetThen() != nil)
			}
			for _, s := range v.GetStatements() {
				a.printExplained(s)
			}
			return nil
		})
	}
	return cmd
}

// message prints a message of the API as one JSON object on a line.
func (a *app) message(m proto.Message) error {
	b, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		return err
	}
	var v json.RawMessage = b // whose spaces are not the same each time
	return a.line(v)
}

// then is what of a verdict's entry in the audit log is for people.
type then struct {
	Verdict, Reason string
	Decision        struct {
		Own         bool
		Label, Rule string
		RuleText    string `json:"rule_text"`
		Belief      int
		Disputed    int
		Independent int
		NeedBelief  int `json:"need_belief"`
		NeedIssuers int `json:"need_issuers"`
		NeedRadius  int `json:"need_radius"`
	}
	Reference struct{ URL, Alias, Post, Actor string }
	Matches   []struct {
		List, Issuer, Statement, Algorithm, Action string
		Distance                                   int
		Suppressed                                 bool
	}
	More int
}

func (a *app) printThen(e *pb.AuditEntry) error {
	at := e.GetAt().AsTime().Format("2006-01-02 15:04:05 MST")
	if e.GetKind() != "verdict" {
		_, err := fmt.Fprintf(a.out, "%s at %s by %s: %s\n", e.GetKind(), at, printable(e.GetWho()), printable(e.GetBody()))
		return err
	}
	var v then
	if err := json.Unmarshal([]byte(e.GetBody()), &v); err != nil {
		return errors.New("the entry in the audit log cannot be read")
	}
	fmt.Fprintf(a.out, "Decided %s for %s: %s\n  because  %s\n", at, printable(e.GetWho()), v.Verdict, printable(v.Reason))
	for _, r := range []struct{ what, is string }{{"url", v.Reference.URL}, {"alias", v.Reference.Alias}, {"post", v.Reference.Post}, {"actor", v.Reference.Actor}} {
		if r.is != "" {
			fmt.Fprintf(a.out, "  %-8s %s\n", r.what, printable(r.is))
		}
	}
	d := &v.Decision
	switch {
	case d.Own:
		fmt.Fprintln(a.out, "  by       this node's own word")
	case d.NeedBelief > 0:
		fmt.Fprintf(a.out, "  belief   %d%s of %d needed, %s of %d\n", d.Belief, in(d.Label), d.NeedBelief, issuers(d.Independent), d.NeedIssuers)
	}
	if d.Rule != "" {
		fmt.Fprintf(a.out, "  rule     %s: %s\n", d.Rule, printable(d.RuleText))
	}
	for _, m := range v.Matches {
		suppressed := ""
		if m.Suppressed {
			suppressed = " (suppressed)"
		}
		fmt.Fprintf(a.out, "  match    %s at distance %d on %s by %s%s\n", m.Algorithm, m.Distance, printable(m.List), printable(m.Issuer), suppressed)
	}
	_, err := fmt.Fprintln(a.out)
	return err
}

func in(label string) string {
	if label == "" {
		return ""
	}
	return " in " + label
}

func issuers(n int) string {
	if n == 1 {
		return "1 issuer"
	}
	return fmt.Sprintf("%d issuers", n)
}

func (a *app) printNow(x *pb.Explained, past bool) {
	l := x.GetLookup()
	when := ""
	if past {
		when = "Today: "
	}
	fmt.Fprintf(a.out, "%s%s\n  because  %s\n", when, word(l.GetVerdict()), printable(l.GetReason()))
	if x.GetRule() != "" {
		fmt.Fprintf(a.out, "  rule     %s: %s\n", x.GetRule(), printable(x.GetRuleText()))
	}
	for _, m := range l.GetMatches() {
		suppressed := ""
		if m.GetSuppressed() {
			suppressed = " (suppressed)"
		}
		turned := ""
		if t := m.GetTransform(); t != "" && t != "original" {
			turned = ", " + t
		}
		fmt.Fprintf(a.out, "  match    %s at distance %d%s on %s by %s%s\n           %s\n", m.GetAlgorithm(), m.GetDistance(), turned,
			printable(m.GetListId()), printable(m.GetIssuer()), suppressed, printable(m.GetStatementId()))
	}
	for _, w := range x.GetWeighed() {
		state := "not reached"
		if w.GetReached() {
			state = "reached"
		}
		disputed := ""
		if w.GetDisputed() > 0 {
			disputed = fmt.Sprintf(" (disputes take off %d)", w.GetDisputed())
		}
		fmt.Fprintf(a.out, "  %-8s %s%s: belief %d of %d%s, %s of %d\n", word(w.GetVerdict()), state, in(w.GetLabel()),
			w.GetBelief(), w.GetNeedBelief(), disputed, issuers(int(w.GetIndependent())), w.GetNeedIssuers())
	}
	a.printFlows(x.GetWeighed())
	for _, c := range x.GetChange() {
		fmt.Fprintf(a.out, "  change   %s\n", printable(c))
	}
	fmt.Fprintln(a.out)
}

// printFlows prints the paths of belief, each label's once.
func (a *app) printFlows(all []*pb.Weighed) {
	done := map[string]bool{}
	for _, w := range slices.Backward(all) { // the mildest verdict has the most behind it
		if done[w.GetLabel()] {
			continue
		}
		done[w.GetLabel()] = true
		for _, f := range w.GetFlows() {
			var path []string
			for _, e := range f.GetPath() {
				from, by := e.GetFrom(), e.GetStatementId()
				if from == "" {
					from, by = "this node", "follows a list of theirs"
				}
				path = append(path, fmt.Sprintf("%s -> %s: %d of %d, %s", from, e.GetTo(), e.GetUsed(), e.GetAmount(), by))
			}
			if len(path) == 0 {
				path = []string{"an issuer of this node"}
			}
			fmt.Fprintf(a.out, "  believed %d%s\n", f.GetAmount(), in(w.GetLabel()))
			for _, p := range path {
				fmt.Fprintf(a.out, "             %s\n", printable(p))
			}
		}
	}
}

func (a *app) printExplained(s *pb.ExplainedStatement) {
	fmt.Fprintf(a.out, "statement %s\n", printable(s.GetId()))
	line := func(what, format string, args ...any) {
		fmt.Fprintf(a.out, "  %-9s %s\n", what, printable(fmt.Sprintf(format, args...)))
	}
	line("by", "%s on %s, %s, dated %s, accepted %s", s.GetIssuer(), s.GetList(), s.GetKind(), s.GetPublished().AsTime().Format("2006-01-02 15:04:05 MST"), s.GetReceived().AsTime().Format("2006-01-02 15:04:05 MST"))
	if len(s.GetLabels()) > 0 {
		line("labels", "%s", strings.Join(s.GetLabels(), ", "))
	}
	if s.GetReason() != "" {
		line("reason", "%s", s.GetReason())
	}
	state := "FAILED: "
	if s.GetProof() {
		state = ""
	}
	line("proof", "%s%s", state, s.GetProofDetail())
	switch {
	case s.GetIgnored():
		line("here", "disputed by this node: it does not act")
	case s.GetOwn():
		line("here", "confirmed by this node: it acts as its own")
	case s.GetInForce() == 0 && s.GetExpires() != nil && s.GetExpires().AsTime().Before(time.Now()):
		line("in force", "nothing of it: it lapsed %s", s.GetExpires().AsTime().Format("2006-01-02 15:04:05 MST"))
	case s.GetInForce() == 0:
		line("in force", "nothing of it: it was retracted, has lapsed, or says something else")
	default:
		line("in force", "%d", s.GetInForce())
	}
	labels := make([]string, 0, len(s.GetBelief()))
	for l, n := range s.GetBelief() {
		labels = append(labels, fmt.Sprintf("%d%s", n, in(l)))
	}
	slices.Sort(labels)
	if len(labels) > 0 {
		line("believed", "%s of 120", strings.Join(labels, ", "))
	}
	for _, o := range s.GetConfirmed() {
		line("confirmed", "by %s: %s", o.GetIssuer(), o.GetReason())
	}
	for _, o := range s.GetDisputed() {
		line("disputed", "by %s: %s", o.GetIssuer(), o.GetReason())
	}
	fmt.Fprintln(a.out)
}
