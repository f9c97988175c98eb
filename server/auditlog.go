package server

import (
	"context"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"

	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// maxLast is how many of the last entries one call can ask for.
const maxLast = 1000

type auditService struct {
	pb.UnimplementedAuditServiceServer
	s *Server
}

func (s *Server) auditLog() (hashlist.Audit, error) {
	if s.cfg.Audit == nil {
		return nil, refuse(errState, "this node keeps no audit log")
	}
	return s.cfg.Audit, nil
}

// auditEntry reads one entry.
func (s *Server) auditEntry(ctx context.Context, id string) (hashlist.AuditEntry, error) {
	log, err := s.auditLog()
	if err != nil {
		return hashlist.AuditEntry{}, err
	}
	if hint := notVerdict(id); hint != "" {
		return hashlist.AuditEntry{}, refuse(errInvalid, "%.80s %s", id, hint)
	}
	if err := hashlist.CheckName(id); err != nil {
		return hashlist.AuditEntry{}, refuse(errInvalid, "%.80q is neither a hash (algorithm:hex) nor the address of a statement nor the id of a verdict", id)
	}
	e, known, err := log.FindAudit(ctx, id)
	if err == nil && !known {
		err = refuse(errUnknown, "the audit log has no entry %s. It keeps what was decided because something matched: what was let through is not in it, "+
			"nor what was refused without a verdict, such as a file that cannot be decoded, of which the node's own log has a line with this reference", id)
	}
	return e, err
}

// notVerdict tells of what is taken for the id of a verdict what it is instead, empty if it may be one.
func notVerdict(id string) string {
	kind, _, dashed := strings.Cut(id, "-")
	if dashed && kind == "hit" {
		return "is the id of a hit, not of a verdict: `tocsin window hits` and `tocsin review show` tell of it"
	}
	if k, err := hashlist.ParseReviewKind(kind); dashed && err == nil && k != 0 {
		return "is the id of an item of the review queue, not of a verdict: `tocsin review show` tells of it"
	}
	if strings.Trim(id, "0123456789abcdefABCDEF") != "" {
		return ""
	}
	switch len(id) {
	case 64:
		return "is a hash without its algorithm: put pdq: or sha256: before it, whichever it is"
	case 40:
		return "is a hash without its algorithm: put sha1: before it"
	case 32:
		return "is a hash without its algorithm: put md5: before it"
	}
	return ""
}

func entryMessage(e hashlist.AuditEntry) *pb.AuditEntry {
	return &pb.AuditEntry{Seq: e.Seq, Id: e.ID, Kind: e.Kind, At: when(e.At), Who: e.Who, Body: string(e.Body)}
}

// GetAudit implements the RPC.
func (a *auditService) GetAudit(ctx context.Context, r *pb.GetAuditRequest) (*pb.GetAuditResponse, error) {
	e, err := a.s.auditEntry(ctx, r.GetId())
	if err != nil {
		return nil, err
	}
	return &pb.GetAuditResponse{Entry: entryMessage(e)}, nil
}

// ListAudit implements the RPC.
func (a *auditService) ListAudit(r *pb.ListAuditRequest, stream pb.AuditService_ListAuditServer) error {
	log, err := a.s.auditLog()
	if err != nil {
		return err
	}
	if r.GetLast() && (r.GetLimit() == 0 || r.GetLimit() > maxLast) {
		return refuse(errInvalid, "the last entries are asked for by a limit of 1 to %d, not %d", maxLast, r.GetLimit())
	}
	ctx := stream.Context()
	send := func(e hashlist.AuditEntry) error { return stream.Send(&pb.ListAuditResponse{Entry: entryMessage(e)}) }
	var last []hashlist.AuditEntry
	n := uint32(0)
	for e, err := range log.AuditAfter(ctx, r.GetAfter()) {
		if err != nil {
			return err
		}
		if r.GetKind() != "" && e.Kind != r.GetKind() {
			continue
		}
		if r.GetLast() {
			if last = append(last, e); len(last) > int(r.GetLimit()) {
				last = last[1:]
			}
			continue
		}
		if err := send(e); err != nil {
			return err
		}
		if n++; n == r.GetLimit() {
			return nil
		}
	}
	for _, e := range last {
		if err := send(e); err != nil {
			return err
		}
	}
	return nil
}

// VerifyAudit implements the RPC.
func (a *auditService) VerifyAudit(ctx context.Context, r *pb.VerifyAuditRequest) (*pb.VerifyAuditResponse, error) {
	log, err := a.s.auditLog()
	if err != nil {
		return nil, err
	}
	noted, err := parseAuditHead(r.GetHead())
	if err != nil {
		return nil, invalid("head", err)
	}
	head, err := log.VerifyAudit(ctx, noted)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	v := &pb.VerifyAuditResponse{Head: auditHead(head), Entries: head.Seq}
	if err != nil {
		v.Wrong = err.Error()
	}
	return v, nil
}

// auditHead writes a head as people note it: the place, a colon, and the sum in hexadecimal.
func auditHead(h hashlist.AuditHead) string {
	return strconv.FormatUint(h.Seq, 10) + ":" + hex.EncodeToString(h.Sum[:])
}

// parseAuditHead reads what auditHead writes; "" is the head of an empty log.
func parseAuditHead(text string) (h hashlist.AuditHead, err error) {
	if text == "" {
		return h, nil
	}
	seq, sum, ok := strings.Cut(text, ":")
	b, hexErr := hex.DecodeString(sum)
	if h.Seq, err = strconv.ParseUint(seq, 10, 63); !ok || err != nil || hexErr != nil || copy(h.Sum[:], b) != len(h.Sum) || len(b) != len(h.Sum) {
		return h, errors.New("it is not a number, a colon and 64 hexadecimal digits, as `tocsin audit verify` prints it")
	}
	return h, nil
}
