package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

func TestOpinions(t *testing.T) {
	n := start(t)
	owner, mod := clientsOf(n.owner()), n.as("mod", ScopeSubmit)
	h := randomHashes(1)
	about := n.theirs(h...)
	say := func(c clients, o pb.Opinion, id, why string) (*pb.SubmitOpinionResponse, error) {
		return c.says.SubmitOpinion(t.Context(), &pb.SubmitOpinionRequest{StatementId: id, Opinion: o, Reason: why})
	}
	const confirm, dispute, ignore = pb.Opinion_OPINION_CONFIRM, pb.Opinion_OPINION_DISPUTE, pb.Opinion_OPINION_IGNORE
	_, err := say(owner, confirm, "https://other.example/statements/unknown", "")
	wantCode(t, "an unknown statement", err, codes.NotFound)
	_, err = say(owner, 0, about, "")
	wantCode(t, "no opinion", err, codes.InvalidArgument)
	_, err = say(owner, dispute, about, "")
	wantCode(t, "a dispute without a reason", err, codes.InvalidArgument)
	_, err = say(mod, ignore, about, "x")
	wantCode(t, "ignore without the scope", err, codes.PermissionDenied)
	v, err := say(mod, confirm, about, "so it is")
	if err != nil || v.GetSeq() == 0 || v.GetGivenBefore() {
		t.Fatalf("got %v, %v", v, err)
	}
	again, err := say(mod, confirm, about, "so it is, I say")
	if err != nil || !again.GetGivenBefore() || again.GetStatementId() != v.GetStatementId() {
		t.Errorf("got %v, %v", again, err)
	}
	_, err = say(mod, dispute, about, "or not")
	wantCode(t, "the opposite", err, codes.FailedPrecondition)
	if _, err := owner.lists.Retract(t.Context(), &pb.RetractRequest{StatementId: v.GetStatementId()}); err != nil {
		t.Fatal(err)
	}
	if _, err = say(mod, dispute, about, "or not"); err != nil {
		t.Fatal(err)
	}
	if l, ok := n.lists.List(testOrigin + "/lists/opinions"); !ok || l.Audience != hashlist.Followers {
		t.Errorf("list of opinions: %+v", l)
	}
	draft, err := owner.says.SubmitOpinion(t.Context(), &pb.SubmitOpinionRequest{StatementId: n.theirs(randomHashes(1)...), Opinion: ignore, Reason: "x", Draft: true})
	if err != nil || !strings.Contains(string(draft.GetDraft()), `"type":"Flag"`) || draft.GetStatementId() != "" {
		t.Errorf("got %v, %v", draft, err)
	}
	// What is decided for this node alone never goes on a list that others read.
	n2 := start(t, func(c *Config) { c.Review.Decisions = "shared" })
	n2.newList("shared")
	_, err = clientsOf(n2.owner()).says.SubmitOpinion(t.Context(), &pb.SubmitOpinionRequest{StatementId: n2.theirs(h...), Opinion: ignore, Reason: "x"})
	wantCode(t, "a list of decisions that is not local", err, codes.FailedPrecondition)
	if cfg, _ := testConfig(t); cfg.Validate() != nil {
		t.Error("the defaults are refused")
	} else if cfg.Review.Opinions = "decisions"; cfg.Validate() == nil {
		t.Error("decisions and opinions may be one list")
	}
}

func TestSubjectsAreListed(t *testing.T) {
	n := start(t)
	n.newList("spam")
	says := clientsOf(n.owner()).says
	for kind, subject := range map[pb.SubjectKind]string{
		pb.SubjectKind_SUBJECT_KIND_ACCOUNT: "https://bad.example/users/mallory", pb.SubjectKind_SUBJECT_KIND_INSTANCE: "bad.example",
		pb.SubjectKind_SUBJECT_KIND_CONTENT: "https://bad.example/a.png?x=1",
	} {
		r := &pb.SubmitSubjectsRequest{List: "spam", Kind: kind, Subjects: []string{subject}, Reason: "spam"}
		v, err := says.SubmitSubjects(t.Context(), r)
		if err != nil || v.GetSeq() == 0 || v.GetAlreadyListed() != 0 {
			t.Fatalf("%v: %v, %v", kind, v, err)
		}
		if v, err = says.SubmitSubjects(t.Context(), r); err != nil || v.GetStatementId() != "" || v.GetAlreadyListed() != 1 {
			t.Errorf("%v again: %v, %v", kind, v, err)
		}
		if found := n.lists.Subject(hashlist.AddAccounts-1+hashlist.Kind(kind), subject); len(found) != 1 {
			t.Errorf("%v: %d statements list it", kind, len(found))
		}
		r.Subjects = []string{"no such thing"}
		_, err = says.SubmitSubjects(t.Context(), r)
		wantCode(t, "nonsense", err, codes.InvalidArgument)
		r.Action, r.Subjects = pb.Action_ACTION_DROP, []string{subject}
		_, err = says.SubmitSubjects(t.Context(), r)
		wantCode(t, "on graver terms", err, codes.FailedPrecondition)
	}
	_, err := says.SubmitSubjects(t.Context(), &pb.SubmitSubjectsRequest{List: "spam", Subjects: []string{"bad.example"}})
	wantCode(t, "no kind", err, codes.InvalidArgument)

	// What would have a blocked server pass takes more than a token that may list.
	lift := &pb.SubmitSubjectsRequest{List: "spam", Kind: pb.SubjectKind_SUBJECT_KIND_INSTANCE, Subjects: []string{"worse.example"}, Action: pb.Action_ACTION_ACCEPT}
	_, err = n.as("bot", ScopeSubmit).says.SubmitSubjects(t.Context(), lift)
	wantCode(t, "accept with a token that may list", err, codes.PermissionDenied)
	if _, err := says.SubmitSubjects(t.Context(), lift); err != nil {
		t.Error(err)
	}
}

// An appeal is a stranger's words: it waits, and nothing follows from it.
func TestAppeals(t *testing.T) {
	change, db := withQueue(t, func(r *Review) {
		r.Deadlines = map[hashlist.ReviewKind]time.Duration{hashlist.ReviewAppeal: time.Nanosecond}
	})
	n := start(t, change)
	platform, owner := n.as("platform", ScopeLookup), clientsOf(n.owner())
	const text = "\x1b[31mIt is a painting! secret-of-a-stranger"
	n.secrets = append(n.secrets, "secret-of-a-stranger")
	appeal := &pb.AppealRequest{Post: "17", Actor: "https://here.example/u/eve", Text: text}
	a, err := platform.reviews.Appeal(t.Context(), appeal)
	if err != nil || a.GetKnown() {
		t.Fatalf("got %v, %v", a, err)
	}
	if again, err := platform.reviews.Appeal(t.Context(), appeal); err != nil || !again.GetKnown() || again.GetId() != a.GetId() {
		t.Errorf("got %v, %v", again, err)
	}
	for what, bad := range map[string]*pb.AppealRequest{
		"about nothing": {Text: "x"}, "long": {Post: "1", Text: strings.Repeat("x", 2001)}, "verdict": {VerdictId: "A B"}, "reference": {Url: strings.Repeat("x", 2049)},
	} {
		_, err := platform.reviews.Appeal(t.Context(), bad)
		wantCode(t, what, err, codes.InvalidArgument)
	}
	shown, err := owner.reviews.GetReview(t.Context(), &pb.GetReviewRequest{Id: a.GetId()})
	if err != nil || strings.Contains(shown.GetReview().GetSummary(), "\x1b") || !strings.Contains(shown.GetReview().GetSummary(), "painting") || !shown.GetReview().GetOverdue() {
		t.Errorf("got %v, %v", shown, err)
	}
	_, err = platform.reviews.GetReview(t.Context(), &pb.GetReviewRequest{Id: a.GetId()})
	wantCode(t, "the queue with the platform's token", err, codes.PermissionDenied)
	n.asks(db, hashlist.Review{ID: "key-1", Kind: hashlist.ReviewKey})
	_, err = platform.reviews.GetAppeal(t.Context(), &pb.GetAppealRequest{Id: "key-1"})
	wantCode(t, "what is no appeal", err, codes.NotFound)
	if _, err := owner.decide(t, a.GetId(), pb.ReviewChoice_REVIEW_CHOICE_RELEASE, "right"); err != nil {
		t.Fatal(err)
	}
	got, err := platform.reviews.GetAppeal(t.Context(), &pb.GetAppealRequest{Id: a.GetId()})
	if err != nil || !got.GetGranted() || got.GetState() != pb.ReviewState_REVIEW_STATE_DECIDED {
		t.Errorf("got %v, %v", got, err)
	}
	// Without a queue, nothing is asked and nothing is promised.
	_, err = clientsOf(start(t).owner()).reviews.Appeal(t.Context(), appeal)
	wantCode(t, "without a queue", err, codes.FailedPrecondition)
}

// An appeal against a verdict that the audit log has knows what it rested on.
func TestAppealRecallsVerdict(t *testing.T) {
	change, db := withQueue(t)
	n := start(t, change)
	owner := clientsOf(n.owner())
	h := randomHashes(1)
	about := n.theirs(h...)
	if _, err := db.AppendAudit(t.Context(), hashlist.AuditEntry{ID: "v1", Kind: "verdict", At: time.Now(), Who: "x", Body: []byte(fmt.Sprintf(
		`{"hashes":[%q,"nonsense"],"matches":[{"statement":"s","suppressed":true},{"list":"https://other.example/lists/refused","issuer":"https://other.example/users/bob","statement":%q,"algorithm":"pdq","distance":3}]}`,
		h[0].String(), about))}); err != nil {
		t.Fatal(err)
	}
	a, err := owner.reviews.Appeal(t.Context(), &pb.AppealRequest{VerdictId: "v1", Text: "a painting"})
	if err != nil {
		t.Fatal(err)
	}
	r, _, err := db.FindReview(t.Context(), a.GetId())
	if err != nil || r.Statement != about || r.Distance != 3 || string(r.Body) != h[0].String() {
		t.Fatalf("got %+v, %v", r, err)
	}
	if v := owner.verdict(t, h[0]); v != pb.Verdict_VERDICT_REJECT {
		t.Fatal(v)
	}
	if _, err := owner.decide(t, a.GetId(), pb.ReviewChoice_REVIEW_CHOICE_ALLOW, "so it is"); err != nil {
		t.Fatal(err)
	}
	if v := owner.verdict(t, h[0]); v != pb.Verdict_VERDICT_ALLOW {
		t.Errorf("%v after the appeal was granted", v)
	}
}

func TestBoundedText(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "abc": "abc", "a\x1b[0mb\x00": "a[0mb", "a\nb\tc": "a\nb\tc", "éééééé": "ééé…", "0123456789a": "0123456…", "\xff": "?", "a\u0085b": "ab",
	} {
		if got := boundedText(in, 10); got != want || len(got) > 10 {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func FuzzReadStatements(f *testing.F) {
	s := hashlist.Statement{Kind: hashlist.Dispute, About: "https://a.example/statements/x", List: "https://b.example/lists/x", Reason: "r"}
	b, err := appendStatements(nil, []hashlist.Statement{s, s})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{255, 255, 255, 255, 255, 255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := readStatements(b)
		if err != nil {
			return
		}
		if _, err := appendStatements(nil, all); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
