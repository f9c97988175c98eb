package server

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// Bounds of one explanation.
const (
	maxExplained  = 50   // statements, and matches of a lookup
	maxExplaining = 40   // hashes of a statement, or of a verdict of the past, that are looked up again
	maxSought     = 1000 // retractions of a list that are read to find those of one statement
)

type explainService struct {
	pb.UnimplementedExplainServiceServer
	s *Server
}

// Explain implements the RPC.
func (e *explainService) Explain(ctx context.Context, r *pb.ExplainRequest) (*pb.ExplainResponse, error) {
	subject := r.GetSubject()
	if subject == "" || len(subject) > hashlist.MaxIRI {
		return nil, refuse(errInvalid, "subject of %d bytes is not 1 to %d bytes long", len(subject), hashlist.MaxIRI)
	}
	keys, err := e.s.provingKeys(ctx)
	if err != nil {
		return nil, err
	}
	v := new(pb.ExplainResponse)
	var q hashlist.Query
	var also []string
	switch {
	case strings.Contains(subject, "/"):
		rec, known, err := e.s.cfg.Lists.Record(ctx, subject)
		if err != nil {
			return nil, err
		}
		if !known {
			return nil, refuse(errUnknown, "this node has no statement %s", subject)
		}
		also = append(also, subject)
		// What of it is in force is looked up as if it were uploaded, but for its neighbours.
		q = queryOf(e.s.cfg.Lists.InForce(&rec.Statement))
	case strings.Contains(subject, ":"):
		h, err := hashlist.ParseHash(subject)
		if err != nil {
			return nil, invalid("hash", err)
		}
		q = queryOf([]hashlist.Hash{h})
	default:
		entry, err := e.s.auditEntry(ctx, subject)
		if err != nil {
			return nil, err
		}
		v.Then = entryMessage(entry)
		if q, also, err = past(entry); err != nil {
			return nil, err
		}
	}
	seen := slices.Clone(also)
	if len(q.Probes) > 0 {
		q.Limit = maxExplained
		x := e.s.cfg.Lists.Explain(q)
		for _, q := range e.s.cfg.Window.Quarantined(true) {
			if slices.Contains(x.Held, q.Statement) {
				x.Change = append(x.Change, fmt.Sprintf("statement %s is in quarantine since %s: it would match %d of %d recent uploads; to have it act: tocsin quarantine release %s",
					q.Statement, q.Since.UTC().Format("2006-01-02 15:04 MST"), q.Matched, q.Uploads, q.Statement))
			}
		}
		v.Now = e.s.explained(&x)
		seen = append(seen, x.Held...)
		for i := range x.Matches {
			seen = append(seen, x.Matches[i].Statement)
		}
	}
	gone, err := e.s.retracted(ctx, also)
	if err != nil {
		return nil, err
	}
	if len(gone) > 0 && v.Now == nil {
		v.Now = &pb.Explained{Lookup: &pb.LookupResponse{Verdict: pb.Verdict_VERDICT_ALLOW, Reason: "nothing of it is in force"}}
	}
	if v.Now != nil {
		v.Now.Change = append(v.Now.Change, gone...)
	}
	done := map[string]bool{}
	for _, id := range seen {
		if done[id] || len(v.Statements) >= maxExplained {
			continue
		}
		done[id] = true
		m, err := e.s.explainStatement(ctx, id, keys)
		if err != nil {
			return nil, err
		}
		if m != nil {
			v.Statements = append(v.Statements, m)
		}
	}
	return v, nil
}

// retracted tells which statements retracted any of the given ones, or parts of them.
func (s *Server) retracted(ctx context.Context, ids []string) (all []string, err error) {
	for _, id := range ids[:min(len(ids), maxExplained)] {
		rec, known, err := s.cfg.Lists.Record(ctx, id)
		if err != nil {
			return nil, err
		}
		st := &rec.Statement
		if n := len(st.Hashes) + len(st.Subjects); !known || n == 0 || len(s.cfg.Lists.InForce(st))+len(s.cfg.Lists.SubjectsInForce(st)) == n {
			continue
		}
		sought := 0
		for r, err := range s.cfg.Lists.After(ctx, rec.Seq, hashlist.Selection{List: st.List, Bare: true}) {
			if err != nil {
				return nil, err
			}
			if r.Statement.Kind != hashlist.Retraction || r.Statement.Issuer != st.Issuer {
				continue
			}
			if sought++; sought > maxSought || len(all) >= maxExplained {
				break
			}
			full, known, err := s.cfg.Lists.Record(ctx, r.Statement.ID)
			if err != nil {
				return nil, err
			}
			by := &full.Statement
			if !known || by.Retracts != id {
				continue
			}
			what := "all"
			if n := len(by.Hashes) + len(by.Subjects); n > 0 {
				what = fmt.Sprint(n)
			}
			text := fmt.Sprintf("statement %s: %s of it was retracted by statement %s of %s at %s", id, what, by.ID, by.Issuer, by.Published.UTC().Format("2006-01-02 15:04 MST"))
			if by.Reason != "" {
				text += ": " + by.Reason
			}
			all = append(all, text)
		}
	}
	return all, nil
}

// queryOf looks hashes up as Lookup does: as the pictures of one file.
func queryOf(hashes []hashlist.Hash) (q hashlist.Query) {
	for i, h := range hashes[:min(len(hashes), maxExplaining)] {
		q.Probes = append(q.Probes, hashlist.Probe{Hash: h, Index: i})
		if h.Algorithm() == hashlist.PDQ {
			q.Probes = append(q.Probes, hashlist.Probe{Hash: h.Complement(), Index: i, Transform: "inverted"})
		}
	}
	return q
}

// past asks again what a verdict of the audit log was about, and names the statements that
// it rested on.
func past(entry hashlist.AuditEntry) (q hashlist.Query, statements []string, err error) {
	if entry.Kind != hashlist.KindVerdict {
		return q, nil, nil
	}
	var v hashlist.AuditedVerdict
	if err := json.Unmarshal(entry.Body, &v); err != nil {
		return q, nil, fmt.Errorf("entry %s of the audit log: %w", entry.ID, err)
	}
	var hashes []hashlist.Hash
	add := func(text string) {
		if h, err := hashlist.ParseHash(text); err == nil && !slices.Contains(hashes, h) {
			hashes = append(hashes, h)
		}
	}
	for _, h := range v.Hashes {
		add(h)
	}
	for _, m := range v.Matches {
		add(m.Hash) // turned as it was when it matched
		statements = append(statements, m.Statement)
	}
	q = queryOf(hashes)
	if u := v.Uploader; u != nil {
		q.Uploader = &hashlist.Uploader{Local: u.Local, Domain: u.Domain, Actions: u.Actions, Posts: u.Posts}
		if u.AgeSeconds != nil {
			age := time.Duration(*u.AgeSeconds) * time.Second
			q.Uploader.Age = &age
		}
	}
	return q, statements, nil
}

func (s *Server) explained(x *hashlist.Explanation) *pb.Explained {
	d := &x.Decision
	budget := answerBytes
	v := &pb.Explained{
		Lookup: lookupResponse(&x.Result, &budget), Label: d.Label, Belief: uint32(d.Belief), Disputed: uint32(d.Disputed),
		Independent: uint32(d.Independent), Own: d.Own, Rule: d.Rule, Change: x.Change,
	}
	if rules := s.cfg.Lists.Rules(); rules != nil && d.Rule != "" {
		v.RuleText = rules.Text(d.Rule)
	}
	for _, w := range x.Labels {
		v.Weighed = append(v.Weighed, &pb.Weighed{
			Label: w.Label, Verdict: pb.Verdict(w.Verdict), Belief: uint32(w.Belief), NeedBelief: uint32(w.Need.Belief), Disputed: uint32(w.Disputed),
			Independent: uint32(w.Independent), NeedIssuers: uint32(w.Need.Issuers), Reached: w.Reached, Nearest: int32(w.Nearest),
			Statements: w.Statements, Missing: w.Missing, Flows: flowMessages(w.Flows),
		})
	}
	return v
}

func flowMessages(flows []hashlist.Flow) []*pb.BeliefFlow {
	var all []*pb.BeliefFlow
	for _, f := range flows[:min(len(flows), maxExplained)] {
		m := &pb.BeliefFlow{Amount: uint32(f.Amount)}
		for _, e := range f.Path {
			m.Path = append(m.Path, &pb.BeliefEdge{
				From: e.From, To: e.To, StatementId: e.Statement, Amount: uint32(e.Amount), Depth: uint32(e.Depth), Used: uint32(e.Used),
			})
		}
		all = append(all, m)
	}
	return all
}

// explainStatement tells what there is to say of a statement, nil if the log does not have it.
func (s *Server) explainStatement(ctx context.Context, id string, keys map[string]federation.Key) (*pb.ExplainedStatement, error) {
	rec, known, err := s.cfg.Lists.Record(ctx, id)
	if err != nil || !known {
		return nil, err
	}
	st := &rec.Statement
	m := &pb.ExplainedStatement{
		Id: st.ID, Issuer: st.Issuer, List: st.List, Kind: st.Kind.String(), Published: when(st.Published), Received: when(rec.Received),
		Expires: when(st.Expires), Reason: st.Reason, Labels: st.Labels, Belief: map[string]uint32{},
		InForce: uint32(len(s.cfg.Lists.InForce(st)) + len(s.cfg.Lists.SubjectsInForce(st))),
	}
	if l, ok := s.cfg.Lists.List(st.List); ok {
		m.Labels = slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(st.Labels), l.Labels...))))
	}
	for label, b := range s.cfg.Lists.BeliefIn(id) {
		m.Belief[label] = uint32(b.Amount)
	}
	var o hashlist.Opinions
	o, m.Own, m.Ignored = s.cfg.Lists.OpinionsOf(id)
	m.Confirmed, m.Disputed = opinionMessages(o.Confirmed), opinionMessages(o.Disputed)
	detail, err := proofState(rec, keys)
	m.Proof, m.ProofDetail = err == nil, detail
	if err != nil {
		m.ProofDetail = err.Error()
	}
	return m, nil
}

func opinionMessages(all []hashlist.Statement) []*pb.ExplainedOpinion {
	var m []*pb.ExplainedOpinion
	for _, o := range all[:min(len(all), maxExplained)] {
		m = append(m, &pb.ExplainedOpinion{Id: o.ID, Issuer: o.Issuer, Published: when(o.Published), Reason: o.Reason})
	}
	return m
}

// provingKeys are all keys of issuers that this node knows, by method.
func (s *Server) provingKeys(ctx context.Context) (map[string]federation.Key, error) {
	keys := map[string]federation.Key{}
	if public := s.cfg.Issuer.PublicKey(); len(public) > 0 {
		method := s.cfg.Issuer.Actor() + "#" + federation.Multikey(public)
		keys[method] = federation.Key{Issuer: s.cfg.Issuer.Actor(), Method: method, Public: public}
	}
	if s.cfg.Keys == nil {
		return keys, nil
	}
	all, err := s.cfg.Keys(ctx)
	for _, k := range all {
		keys[k.Method] = k
	}
	return keys, err
}

// proofState checks the proof of a record anew, from the bytes that were signed.
func proofState(rec hashlist.Record, keys map[string]federation.Key) (string, error) {
	if len(rec.Signed) == 0 {
		return "", errors.New("the signed bytes were erased")
	}
	var used federation.Key
	v, err := federation.Open(rec.Signed, func(issuer, method string) (ed25519.PublicKey, error) {
		k, known := keys[method]
		if !known || k.Issuer != issuer {
			return nil, errors.New("the key is not one that this node knows of the issuer")
		}
		used = k
		return k.Public, nil
	})
	switch {
	case err != nil:
		return "", fmt.Errorf("the proof does not hold: %w", err)
	case v.ID != rec.Statement.ID || v.Issuer != rec.Statement.Issuer || v.Kind != rec.Statement.Kind || len(v.Hashes) != len(rec.Statement.Hashes):
		return "", errors.New("the signed bytes say something else than the node's record of them")
	case !used.Expires.IsZero() && !v.Published.Before(used.Expires):
		return "", fmt.Errorf("it is dated %s, after its key was replaced", v.Published.Format(time.RFC3339))
	case !used.Revoked.IsZero() && !v.Published.Before(used.Revoked):
		return fmt.Sprintf("holds, by a key that was in other hands since %s, so it does not act", used.Revoked.Format(time.RFC3339)), nil
	}
	return "holds, by key " + federation.Multikey(used.Public), nil
}
