package server

import (
	"context"
	"strings"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/hashlist/rules"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// maxDryRunExamples bounds the examples of one dry run.
const maxDryRunExamples = 100

type rulesService struct {
	pb.UnimplementedRulesServiceServer
	s *Server
}

func ruleMessages(s *rules.Set) []*pb.Rule {
	var all []*pb.Rule
	if s == nil {
		return nil
	}
	for _, r := range s.Rules() {
		all = append(all, &pb.Rule{Name: r.Name, When: r.When, Then: pb.Verdict(r.Then), Line: uint32(r.Line)})
	}
	return all
}

// ListRules implements the RPC.
func (r *rulesService) ListRules(context.Context, *pb.ListRulesRequest) (*pb.ListRulesResponse, error) {
	set, _ := r.s.cfg.Lists.Rules().(*rules.Set)
	v := &pb.ListRulesResponse{Rules: ruleMessages(set)}
	if set != nil {
		v.Failed = set.Failed()
	}
	return v, nil
}

// DryRun implements the RPC.
func (r *rulesService) DryRun(ctx context.Context, q *pb.DryRunRequest) (*pb.DryRunResponse, error) {
	if r.s.cfg.Window == nil {
		return nil, refuse(errState, "this node remembers no uploads, so rules cannot be tried on them (window.days is 0)")
	}
	if q.GetExamples() > maxDryRunExamples {
		return nil, refuse(errInvalid, "%d examples are more than %d", q.GetExamples(), maxDryRunExamples)
	}
	set, err := rules.Load("rules", q.GetRules())
	if err != nil {
		return nil, invalid("rules", err)
	}
	p, err := r.s.cfg.Window.Replay(ctx, int(q.GetUploads()), int(q.GetExamples()), set)
	if err != nil {
		return nil, err
	}
	v := &pb.DryRunResponse{
		Rules: ruleMessages(set), Uploads: uint64(p.Uploads), Would: byVerdict(p.Would), Graver: byVerdict(p.Graver), Milder: byVerdict(p.Milder),
		ByRule: map[string]uint64{},
	}
	for name, n := range p.Rules {
		v.ByRule[name] = uint64(n)
	}
	for i := range p.Examples {
		x := &p.Examples[i]
		m := &pb.DryRunExample{At: when(x.Seen.Last), Now: pb.Verdict(x.Now), Would: pb.Verdict(x.Would), Rule: x.Rule}
		if n := len(x.Seen.Sightings); n > 0 {
			ref := x.Seen.Sightings[n-1].Reference
			m.Reference = &pb.Reference{Url: ref.URL, Alias: ref.Alias, Post: ref.Post, Actor: ref.Actor}
		}
		v.Examples = append(v.Examples, m)
	}
	return v, nil
}

func byVerdict(n [hashlist.VerdictReject + 1]int) map[string]uint64 {
	m := map[string]uint64{}
	for v := hashlist.VerdictAllow; v <= hashlist.VerdictReject; v++ {
		m[v.String()] = uint64(n[v])
	}
	return m
}

// ReloadRules implements the RPC. What the rules would do to the recent window is told, and bounded, before they
// are in force.
func (r *rulesService) ReloadRules(ctx context.Context, q *pb.ReloadRulesRequest) (*pb.ReloadRulesResponse, error) {
	s := r.s
	if s.cfg.LoadRules == nil {
		return nil, refuse(errState, "this node has no file of rules: set policy.rules in config.toml and start the node again")
	}
	set, err := s.cfg.LoadRules()
	if err != nil {
		return nil, refuse(errState, "the rules stay as they were: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	p, err := s.cfg.Window.Replay(ctx, 0, 0, set)
	if err != nil {
		return nil, err
	}
	graver := 0
	for _, n := range p.Graver {
		graver += n
	}
	if !q.GetConfirmed() && s.cfg.Window.TooMany(graver, p.Uploads) {
		return nil, refuse(errState, "the rules stay as they were: these would flag %d, hold %d and refuse %d of the last %d uploads that come to less now, more than is expected; look at `tocsin rules dry-run`, and repeat it with --yes if it is right",
			p.Graver[hashlist.VerdictFlag], p.Graver[hashlist.VerdictHold], p.Graver[hashlist.VerdictReject], p.Uploads)
	}
	s.cfg.Lists.SetRules(set)
	s.log.Info("rules were read again", "rules", len(set.Rules()))
	return &pb.ReloadRulesResponse{Rules: ruleMessages(set), Uploads: uint64(p.Uploads), Graver: byVerdict(p.Graver), Milder: byVerdict(p.Milder)}, nil
}
