package server

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// Letters brings single statements to single servers: a dispute to the one whose
// statement is disputed, and the answer back. *federation.Node is one.
type Letters interface {
	// SendLetter has a statement of this node, which the log has, brought to the server of
	// an actor. It returns when that is durable; delivery goes on for two weeks.
	SendLetter(ctx context.Context, statement, about, to string) error
	// Letters tells what became of those that were sent, the oldest first.
	Letters() []federation.Letter
}

// tellIssuer sends a dispute to the issuer of the disputed statement. The dispute stands
// whether or not that works, so a failure is for the log.
func (s *Server) tellIssuer(ctx context.Context, about, id string) {
	issuer, _, known := s.cfg.Lists.Issued(about)
	if s.cfg.Letters == nil || !known || s.own(about) == nil {
		return
	}
	s.send(ctx, id, about, issuer)
}

// tellDisputer sends the answer to a dispute to who brought it. Who follows the list gets
// it twice, which does no harm.
func (s *Server) tellDisputer(ctx context.Context, r *hashlist.Review, id string) {
	if s.cfg.Letters == nil || r.Issuer == "" || s.own(r.Issuer) == nil {
		return
	}
	s.send(ctx, id, r.Statement, r.Issuer)
}

func (s *Server) send(ctx context.Context, id, about, to string) {
	if err := s.cfg.Letters.SendLetter(ctx, id, about, to); err != nil {
		s.log.Error("could not note that a statement is to be sent", slog.String("statement", id), slog.String("to", to), errorText(err))
	}
}

// ListDisputes implements the RPC.
func (l *statementService) ListDisputes(context.Context, *pb.ListDisputesRequest) (*pb.ListDisputesResponse, error) {
	answer := &pb.ListDisputesResponse{}
	if l.s.cfg.Letters == nil {
		return answer, nil
	}
	all := l.s.cfg.Letters.Letters()
	for i := range all[max(0, len(all)-maxPage):] {
		v := &all[max(0, len(all)-maxPage)+i]
		answer.Deliveries = append(answer.Deliveries, &pb.DisputeDelivery{
			StatementId: v.Statement, About: v.About, To: v.To, Since: timestamppb.New(v.Since), Taken: when(v.Taken),
			GivenUp: v.GivenUp, Failures: v.Failures, Trouble: v.Trouble, AnswerId: v.Answer, Withdrawn: v.Withdrawn,
		})
	}
	return answer, nil
}

// recall fills in which statement a verdict rested on, if the audit log has it.
func (s *Server) recall(ctx context.Context, r *hashlist.Review) error {
	if r.Verdict == "" || s.cfg.Reviews == nil {
		return nil
	}
	// An upload that was held under this verdict has all there is to know.
	all, err := s.cfg.Reviews.Reviews(ctx, hashlist.ReviewSelection{Kinds: []hashlist.ReviewKind{hashlist.ReviewHeld}, Limit: 2 * hashlist.MaxOpenReviews})
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(h hashlist.Review) bool { return h.Verdict == r.Verdict })
	if i < 0 {
		return s.recallAudit(ctx, r)
	}
	h, ok, err := s.cfg.Reviews.FindReview(ctx, all[i].ID) // with its body
	if err != nil || !ok {
		return err
	}
	r.Statement, r.List, r.Issuer, r.Distance, r.Algorithm, r.Body = h.Statement, h.List, h.Issuer, h.Distance, h.Algorithm, h.Body
	return nil
}

// recallAudit does so from the audit log, for a verdict that refused something.
func (s *Server) recallAudit(ctx context.Context, r *hashlist.Review) error {
	if s.cfg.Audit == nil {
		return nil
	}
	entry, ok, err := s.cfg.Audit.FindAudit(ctx, r.Verdict)
	if err != nil || !ok || entry.Kind != "verdict" {
		return err
	}
	var v struct {
		Hashes  []string `json:"hashes"`
		Matches []struct {
			List, Issuer, Statement, Algorithm string
			Distance                           int
			Suppressed                         bool
		} `json:"matches"`
	}
	if err := json.Unmarshal(entry.Body, &v); err != nil {
		return fmt.Errorf("entry %s of the audit log: %w", entry.ID, err)
	}
	for _, m := range v.Matches {
		if !m.Suppressed {
			r.Statement, r.List, r.Issuer, r.Distance, r.Algorithm = m.Statement, m.List, m.Issuer, m.Distance, m.Algorithm
			break
		}
	}
	var hashes []hashlist.Hash
	for _, text := range v.Hashes {
		h, err := hashlist.ParseHash(text)
		if err == nil && (h.Algorithm() == hashlist.PDQ || h.Algorithm() == hashlist.SHA256) && len(hashes) < heldHashes {
			hashes = append(hashes, h)
		}
	}
	r.Body = writeHashes(hashes)
	return nil
}
