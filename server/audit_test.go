package server

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
	"github.com/tocsin-fed/tocsin/store"
)

// startAudited starts a node that keeps an audit log in a real database.
func startAudited(t testing.TB, change ...func(*Config)) *node {
	t.Helper()
	db, err := store.Create(t.Context(), filepath.Join(t.TempDir(), "log.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() }) // after the node has stopped
	return start(t, append([]func(*Config){func(c *Config) { c.Audit = db }}, change...)...)
}

// TestVerdictsAreKept: a rejection is in the log before it is answered, the same again within a
// minute is counted, and what was let through is not there.
func TestVerdictsAreKept(t *testing.T) {
	n := startAudited(t)
	n.newList("refused")
	hashes := randomHashes(2)
	n.ban("refused", hashes[0])
	conn := n.owner()
	ask := func(h hashlist.Hash) *pb.LookupResponse {
		t.Helper()
		age := uint64(60)
		v, err := pb.NewLookupServiceClient(conn).Lookup(t.Context(), &pb.LookupRequest{
			Hashes: []string{h.String()}, Reference: &pb.Reference{Post: "post-7"}, Uploader: &pb.Uploader{AgeSeconds: &age, Domain: "b.example"},
		})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if v := ask(hashes[1]); v.GetVerdict() != pb.Verdict_VERDICT_ALLOW || v.GetVerdictId() != "" {
		t.Errorf("%v", v)
	}
	first := ask(hashes[0])
	audit := pb.NewAuditServiceClient(conn)
	e, err := audit.GetAudit(t.Context(), &pb.GetAuditRequest{Id: first.GetVerdictId()})
	if err != nil {
		t.Fatal(err)
	}
	var body hashlist.AuditedVerdict
	if err := json.Unmarshal([]byte(e.GetEntry().GetBody()), &body); err != nil {
		t.Fatal(err)
	}
	if e.GetEntry().GetKind() != hashlist.KindVerdict || body.Verdict != "reject" || !body.Decision.Own || body.Reference.Post != "post-7" ||
		*body.Uploader.AgeSeconds != 60 || len(body.Matches) != 1 || body.Matches[0].Hash != hashes[0].String() || len(body.Hashes) != 1 {
		t.Errorf("%s", e.GetEntry().GetBody())
	}
	for range 5 {
		if v := ask(hashes[0]); v.GetVerdictId() != first.GetVerdictId() {
			t.Errorf("a repeat has the id %q, want %q", v.GetVerdictId(), first.GetVerdictId())
		}
	}
	n.audit.flush(t.Context())
	head, err := n.cfg.Audit.VerifyAudit(t.Context(), hashlist.AuditHead{})
	if err != nil || head.Seq != 2 {
		t.Fatalf("head %v, %v", head, err)
	}
	for entry, err := range n.cfg.Audit.AuditAfter(t.Context(), 1) {
		var r hashlist.AuditedRepeats
		if err != nil || json.Unmarshal(entry.Body, &r) != nil || entry.Kind != hashlist.KindRepeats || r.Count != 5 || r.Of != first.GetVerdictId() || len(r.References) != 5 {
			t.Errorf("%s %s, %v", entry.Kind, entry.Body, err)
		}
	}
	x, err := pb.NewExplainServiceClient(conn).Explain(t.Context(), &pb.ExplainRequest{Subject: first.GetVerdictId()})
	if err != nil || x.GetNow().GetLookup().GetVerdict() != pb.Verdict_VERDICT_REJECT || len(x.GetStatements()) != 1 || !x.GetStatements()[0].GetProof() {
		t.Errorf("%v, %v", x, err)
	}
	if strings.Contains(n.logged.String(), hashes[0].Hex()) {
		t.Error("a hash is in the log")
	}
	_, err = pb.NewExplainServiceClient(conn).Explain(t.Context(), &pb.ExplainRequest{Subject: "nothing"})
	wantCode(t, "an unknown verdict", err, codes.NotFound)
}

// TestFloodOfVerdicts: ever new rejections come to no more entries than are allowed in a minute.
func TestFloodOfVerdicts(t *testing.T) {
	n := startAudited(t)
	n.newList("refused")
	conn := n.owner()
	hashes := randomHashes(maxAudited + 30)
	for _, h := range hashes {
		n.ban("refused", h) // a statement of its own
	}
	var r pb.LookupStreamRequest
	for _, h := range hashes {
		r.Lookups = append(r.Lookups, &pb.LookupRequest{Hashes: []string{h.String()}})
	}
	stream, err := pb.NewLookupServiceClient(conn).LookupStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&r); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	n.audit.flush(t.Context())
	head, err := n.cfg.Audit.AuditEnd(t.Context())
	if err != nil || head.Seq != maxAudited+1 {
		t.Errorf("%d entries, %v; want %d and one that counts", head.Seq, err, maxAudited)
	}
}
