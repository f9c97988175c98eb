package server

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
	"github.com/tocsin-fed/tocsin/report"
)

// preserveFor is how long what was reported to NCMEC must be preserved (18 U.S.C. 2258A(h)).
const preserveFor = 365 * 24 * time.Hour

type reportService struct {
	pb.UnimplementedReportServiceServer
	s *Server
}

// caseOf gathers what is known of a verdict.
func (s *Server) caseOf(ctx context.Context, id string) (*report.Case, error) {
	if s.cfg.Audit == nil {
		return nil, refuse(errState, "this node keeps no audit log, so it knows nothing of past verdicts")
	}
	if id == "" || len(id) > hashlist.MaxName {
		return nil, refuse(errInvalid, "a verdict's id of %d bytes is not 1 to %d long", len(id), hashlist.MaxName)
	}
	e, ok, err := s.cfg.Audit.FindAudit(ctx, id)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, refuse(errUnknown, "the audit log has no verdict %s", id)
	}
	if e.Kind != "verdict" {
		return nil, refuse(errState, "%s is no verdict but an entry of the kind %s", id, e.Kind)
	}
	c := &report.Case{Verdict: e.ID, At: e.At, Node: s.cfg.Origin}
	if err := fillCase(c, e.Body); err != nil {
		return nil, fmt.Errorf("verdict %s in the audit log: %w", id, err)
	}
	if s.cfg.Acts != nil {
		for _, a := range s.cfg.Acts.List("", 0) {
			if a.Finding.ID == id {
				c.Acts = append(c.Acts, fmt.Sprintf("%s on %s: %v (%s).", a.Does(), a.Platform, a.State, a.Note))
			}
		}
	}
	return c, nil
}

// fillCase reads what a report needs of a verdict's entry in the audit log. What it does not
// know, it leaves out.
func fillCase(c *report.Case, body []byte) error {
	var v struct {
		Verdict   string   `json:"verdict"`
		Labels    []string `json:"labels"`
		Hashes    []string `json:"hashes"`
		Reference struct {
			URL   string `json:"url"`
			Alias string `json:"alias"`
			Post  string `json:"post"`
			Actor string `json:"actor"`
		} `json:"reference"`
		Matches []struct {
			List      string   `json:"list"`
			Issuer    string   `json:"issuer"`
			Statement string   `json:"statement"`
			Labels    []string `json:"labels"`
			Algorithm string   `json:"algorithm"`
			Distance  int      `json:"distance"`
			// Something harmless outweighed it.
			Suppressed bool `json:"suppressed"`
		} `json:"matches"`
	}
	if err := json.Unmarshal(body, &v); err != nil {
		return err
	}
	c.Action, c.Labels = v.Verdict, v.Labels
	c.URL, c.Alias, c.Post, c.Actor = v.Reference.URL, v.Reference.Alias, v.Reference.Post, v.Reference.Actor
	for _, m := range v.Matches {
		if !m.Suppressed {
			c.Matches = append(c.Matches, report.Match{
				List: m.List, Issuer: m.Issuer, Statement: m.Statement, Labels: m.Labels, Algorithm: m.Algorithm, Distance: m.Distance,
			})
		}
	}
	names := map[string]string{"md5": "MD5", "sha1": "SHA1", "sha256": "SHA256", "pdq": "PDQ"}
	for _, h := range v.Hashes {
		algorithm, hex, _ := strings.Cut(h, ":")
		if name := names[algorithm]; name != "" {
			c.Hashes = append(c.Hashes, report.Hash{Type: name, Value: hex})
		}
	}
	return nil
}

// DraftReport implements the RPC.
func (r *reportService) DraftReport(ctx context.Context, q *pb.DraftReportRequest) (*pb.DraftReportResponse, error) {
	if len(q.GetViewedBy()) > maxWho {
		return nil, refuse(errInvalid, "a name of %d bytes is longer than %d", len(q.GetViewedBy()), maxWho)
	}
	c, err := r.s.caseOf(ctx, q.GetVerdictId())
	if err != nil {
		return nil, err
	}
	d, err := report.Write(c, &r.s.cfg.Reporter, &report.Claims{
		Viewed: q.GetViewedBy(), Incident: q.GetIncidentType(), Classification: q.GetClassification(),
	})
	if err != nil {
		return nil, invalid("report", err)
	}
	return &pb.DraftReportResponse{ReportXml: d.Report, FileXml: d.File, Summary: d.Summary, Open: d.Open}, nil
}

// RecordReport implements the RPC. One report of a verdict to an agency is enough: a second is let through
// only where nobody knows what became of the first.
func (r *reportService) RecordReport(ctx context.Context, q *pb.RecordReportRequest) (*pb.RecordReportResponse, error) {
	s := r.s
	if s.cfg.Reports == nil {
		return nil, refuse(errState, "this node remembers no reports")
	}
	for what, v := range map[string]string{"verdict": q.GetVerdictId(), "agency": q.GetAgency()} {
		if v == "" || len(v) > 100 {
			return nil, refuse(errInvalid, "the %s of %d bytes is not 1 to 100 long", what, len(v))
		}
	}
	if len(q.GetNumber()) > 100 {
		return nil, refuse(errInvalid, "the number has %d bytes, more than 100", len(q.GetNumber()))
	}
	who, err := s.person(ctx, q.GetWho())
	if err != nil {
		return nil, err
	}
	s.reporting.Lock()
	defer s.reporting.Unlock()
	all, err := s.cfg.Reports.Reports(ctx)
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	sent := report.Sent{Verdict: q.GetVerdictId(), Agency: q.GetAgency(), Begun: now, Who: who}
	for _, old := range all {
		if old.Verdict != sent.Verdict || old.Agency != sent.Agency {
			continue
		}
		switch {
		case !old.Sent.IsZero():
			return nil, refuse(errState, "verdict %s was reported to %s already, on %s, as %s", old.Verdict, old.Agency, old.Sent.Format(time.DateOnly), old.Number)
		case q.GetNumber() == "" && !q.GetAgain():
			return nil, refuse(errState, "a report of verdict %s to %s was begun on %s, and nobody knows whether it was taken: ask there, "+
				"then note its number with `tocsin report record`, or send it --again", old.Verdict, old.Agency, old.Begun.Format(time.DateTime))
		}
		sent.Begun = old.Begun
	}
	sent.Number = q.GetNumber()
	if sent.Number != "" {
		sent.Sent = now
	}
	if err := s.noteReport(ctx, &sent); err != nil {
		return nil, err
	}
	return &pb.RecordReportResponse{}, nil
}

// noteReport writes a report down, and where it was taken asks a person to preserve what it is about.
func (s *Server) noteReport(ctx context.Context, r *report.Sent) error {
	ctx = context.WithoutCancel(ctx) // what was sent is noted, however impatient the caller
	if err := s.cfg.Reports.SaveReport(ctx, *r); err != nil {
		return err
	}
	if s.cfg.Audit != nil {
		body, err := json.Marshal(map[string]string{"verdict": r.Verdict, "agency": r.Agency, "number": r.Number})
		if err != nil {
			return err
		}
		if _, err := s.cfg.Audit.AppendAudit(ctx, hashlist.AuditEntry{Kind: "report", At: r.Begun, Who: r.Who, Body: body}); err != nil {
			return err
		}
	}
	if r.Number == "" || s.cfg.Reviews == nil {
		return nil
	}
	until := r.Sent.Add(preserveFor)
	_, err := s.cfg.Reviews.AddReview(ctx, hashlist.Review{
		ID: "preserve-" + r.Verdict, Kind: hashlist.ReviewPreserve, Verdict: r.Verdict, Deadline: until,
		Summary: fmt.Sprintf("Reported to %s as %s on %s by %s. The platform must preserve what was reported until %s, where few can reach it, and then delete it unless an authority has asked for more time.",
			r.Agency, r.Number, r.Sent.Format(time.DateOnly), r.Who, until.Format(time.DateOnly)),
	})
	return err
}

// ListReports implements the RPC.
func (r *reportService) ListReports(ctx context.Context, _ *pb.ListReportsRequest) (*pb.ListReportsResponse, error) {
	if r.s.cfg.Reports == nil {
		return nil, refuse(errState, "this node remembers no reports")
	}
	all, err := r.s.cfg.Reports.Reports(ctx)
	if err != nil {
		return nil, err
	}
	v := &pb.ListReportsResponse{}
	for _, x := range all {
		v.Reports = append(v.Reports, &pb.SentReport{VerdictId: x.Verdict, Agency: x.Agency, Number: x.Number, Begun: when(x.Begun), Sent: when(x.Sent), Who: x.Who})
	}
	return v, nil
}
