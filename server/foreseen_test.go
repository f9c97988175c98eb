package server

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/hashlist/rules"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// uploaded is a node that has let 100 uploads through, of which statements may match 5; what is fresh counts a tenth.
func uploaded(t *testing.T, change ...func(*Config)) (*node, []hashlist.Hash) {
	n := start(t, append(change, rememberingUpTo(t, 5))...)
	n.newList("refused")
	hashes := randomHashes(100)
	n.passed(hashes)
	return n, hashes
}

// passed looks hashes up as uploads, and waits until they are remembered.
func (n *node) passed(hashes []hashlist.Hash) {
	n.t.Helper()
	lookups, window := pb.NewLookupServiceClient(n.owner()), pb.NewWindowServiceClient(n.owner())
	for i, h := range hashes {
		if _, err := lookups.Lookup(n.t.Context(), &pb.LookupRequest{Hashes: []string{h.String()}, Reference: &pb.Reference{Post: fmt.Sprint(i)}}); err != nil {
			n.t.Fatal(err)
		}
	}
	awaitWindow(n.t, "the uploads are remembered", func() bool {
		st, err := window.GetWindow(n.t.Context(), &pb.GetWindowRequest{})
		return err == nil && st.GetUploads() == uint64(len(hashes))
	})
}

// A ban of this node's own that matches more of what was let through than is expected is made only if
// somebody is sure. One that matches less, a draft, and what is harmless are as ever.
func TestSubmitForesees(t *testing.T) {
	n, hashes := uploaded(t)
	lists := pb.NewListServiceClient(n.owner())
	before := n.cfg.Lists.Seq()
	request := &pb.SubmitRequest{List: "refused", Hashes: texts(hashes[:80])}
	_, err := lists.Submit(t.Context(), request)
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "80 of the last 100 uploads") || !strings.Contains(err.Error(), "--yes") {
		t.Fatalf("%v", err)
	}
	if n.cfg.Lists.Seq() != before {
		t.Error("something was listed all the same")
	}
	request.Draft = true
	if answer, err := lists.Submit(t.Context(), request); err != nil || len(answer.GetDraft()) == 0 {
		t.Errorf("a draft: %v, %v", answer, err)
	}
	request.Draft = false
	if _, err := lists.Submit(t.Context(), &pb.SubmitRequest{List: "refused", Hashes: texts(hashes[80:])}); err != nil {
		t.Errorf("below the bound: %v", err)
	}
	if _, err := lists.Submit(t.Context(), &pb.SubmitRequest{List: "refused", Hashes: texts(hashes[:80]), Action: pb.Action_ACTION_ACCEPT, Draft: true}); err != nil {
		t.Errorf("accept: %v", err)
	}
	request.Confirmed = true
	if answer, err := lists.Submit(t.Context(), request); err != nil || answer.GetStatementId() == "" {
		t.Errorf("confirmed: %v, %v", answer, err)
	}
	// The same once more lists nothing, so it needs no second word.
	request.Confirmed = false
	if answer, err := lists.Submit(t.Context(), request); err != nil || answer.GetAlreadyListed() != 80 {
		t.Errorf("again: %v, %v", answer, err)
	}
	says := pb.NewStatementServiceClient(n.owner())
	more := randomHashes(60)
	if _, err := says.SubmitDecision(t.Context(), &pb.SubmitDecisionRequest{Choice: pb.ReviewChoice_REVIEW_CHOICE_ALLOW, Hashes: texts(more)}); err != nil {
		t.Errorf("what is harmless: %v", err)
	}
}

// Of a file that matches more of what was let through than is expected, those hashes that do are held until a
// person approves, however the file is ordered; the others are listed.
func TestImportForesees(t *testing.T) {
	n, hashes := uploaded(t)
	lists := pb.NewListServiceClient(n.owner())
	fresh := randomHashes(400)[300:] // unlike those that came
	file := plain(append(append([]hashlist.Hash{}, fresh...), hashes[:80]...))
	options := &pb.ImportOptions{List: "refused", Format: "plain", DryRun: true}
	sum := func(file []byte) *pb.ImportResponse {
		t.Helper()
		all, err := importFile(t.Context(), lists, options, file, 1000)
		if err != nil {
			t.Fatal(err)
		}
		return all[len(all)-1]
	}
	if r := sum(file); r.GetRecentMatched() != 80 || r.GetRecentUploads() != 100 || !strings.Contains(r.GetHeld(), "80 of the last 100 uploads") || r.GetFresh() != 180 || r.GetListed() != 0 {
		t.Errorf("a dry run: %v", r)
	}
	options.DryRun = false
	if r := sum(file); r.GetListed() != 100 || r.GetHeld() == "" || !r.GetDone() {
		t.Errorf("held: %v", r)
	}
	refused := 0
	for _, h := range hashes {
		if n.cfg.Lists.Lookup(hashlist.Query{Probes: []hashlist.Probe{{Hash: h}}}).Verdict == hashlist.VerdictReject {
			refused++
		}
	}
	if refused != 0 {
		t.Errorf("%d harmless uploads would be refused", refused)
	}
	if r := sum(plain(append(hashes[80:100:100], hashes[80:100]...))); r.GetListed() != 20 || r.GetHeld() != "" || r.GetRecentMatched() != 20 {
		t.Errorf("below the bound: %v", r)
	}
	options.Approve = true
	if r := sum(file); r.GetListed() != 80 || r.GetSkipped() != 100 || r.GetHeld() != "" {
		t.Errorf("approved: %v", r)
	}
}

// Rules that would answer more of what was let through more gravely than is expected stay out of force
// until somebody is sure.
func TestReloadRulesForesees(t *testing.T) {
	text := `
[[rule]]
name = "all"
when = "belief >= 1"
then = "hold"
`
	n, _ := uploaded(t, func(c *Config) {
		c.LoadRules = func() (*rules.Set, error) { return rules.Load("rules.toml", []byte(text)) }
	})
	lists := pb.NewListServiceClient(n.owner())
	if _, err := lists.CreateList(t.Context(), &pb.CreateListRequest{List: &pb.List{Name: "marked", Action: pb.Action_ACTION_FILTER}}); err != nil {
		t.Fatal(err)
	}
	flagged := randomHashes(300)[200:]
	if _, err := lists.Submit(t.Context(), &pb.SubmitRequest{List: "marked", Hashes: texts(flagged)}); err != nil {
		t.Fatal(err)
	}
	lookups, window := pb.NewLookupServiceClient(n.owner()), pb.NewWindowServiceClient(n.owner())
	for _, h := range flagged {
		if r, err := lookups.Lookup(t.Context(), &pb.LookupRequest{Hashes: []string{h.String()}, Reference: &pb.Reference{}}); err != nil || r.GetVerdict() != pb.Verdict_VERDICT_FLAG {
			t.Fatalf("%v, %v", r, err)
		}
	}
	awaitWindow(t, "the uploads are remembered", func() bool {
		st, err := window.GetWindow(t.Context(), &pb.GetWindowRequest{})
		return err == nil && st.GetUploads() == 200
	})
	service := pb.NewRulesServiceClient(n.owner())
	_, err := service.ReloadRules(t.Context(), &pb.ReloadRulesRequest{})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "hold 100 and refuse 0 of the last 200 uploads") {
		t.Fatalf("%v", err)
	}
	if all, err := service.ListRules(t.Context(), &pb.ListRulesRequest{}); err != nil || len(all.GetRules()) != 0 {
		t.Errorf("the rules are in force all the same: %v, %v", all, err)
	}
	answer, err := service.ReloadRules(t.Context(), &pb.ReloadRulesRequest{Confirmed: true})
	if err != nil || len(answer.GetRules()) != 1 || answer.GetUploads() != 200 || answer.GetGraver()["hold"] != 100 {
		t.Errorf("confirmed: %v, %v", answer, err)
	}
	text = strings.Replace(text, "belief >= 1", "belief >= 1000", 1)
	if answer, err = service.ReloadRules(t.Context(), &pb.ReloadRulesRequest{}); err != nil || len(answer.GetRules()) != 1 {
		t.Errorf("rules that do little: %v, %v", answer, err)
	}
}
