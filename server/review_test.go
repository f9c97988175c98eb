package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
	"github.com/tocsin-fed/tocsin/store"
)

// withQueue gives a node a real database for its review queue and its audit log.
func withQueue(t testing.TB, change ...func(*Review)) (func(*Config), *store.DB) {
	t.Helper()
	db, err := store.Create(t.Context(), filepath.Join(t.TempDir(), "log.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return func(c *Config) {
		c.Reviews, c.Audit = db, db
		for _, f := range change {
			f(&c.Review)
		}
	}, db
}

// theirs applies a statement of another node's issuer, on a list that is heeded fully, and returns its id.
func (n *node) theirs(hashes ...hashlist.Hash) string {
	n.t.Helper()
	const list = "https://other.example/lists/refused"
	records := []hashlist.Record{{Statement: hashlist.Statement{
		ID: "https://other.example/statements/d", Issuer: "https://other.example/users/bob", List: list, Kind: hashlist.DefineList,
		Published: time.Unix(1_790_000_000, 0).UTC(), Definition: &hashlist.Definition{
			Name: "refused", Audience: hashlist.Public, Action: hashlist.Reject, Radii: hashlist.DefaultRadii, Labels: []string{"spam"},
		},
	}}}
	id := "https://other.example/statements/" + hashes[0].Hex()[:16]
	records = append(records, hashlist.Record{Statement: hashlist.Statement{
		ID: id, Issuer: "https://other.example/users/bob", List: list, Kind: hashlist.AddHashes,
		Published: time.Unix(1_790_000_001, 0).UTC(), Hashes: hashes, Reason: "seen too often",
	}})
	if _, err := n.lists.Apply(n.t.Context(), records...); err != nil {
		n.t.Fatal(err)
	}
	return id
}

type clients struct {
	reviews pb.ReviewServiceClient
	says    pb.StatementServiceClient
	lists   pb.ListServiceClient
	lookups pb.LookupServiceClient
}

func clientsOf(c grpc.ClientConnInterface) clients {
	return clients{pb.NewReviewServiceClient(c), pb.NewStatementServiceClient(c), pb.NewListServiceClient(c), pb.NewLookupServiceClient(c)}
}

// as returns clients with a token of a name and scope.
func (n *node) as(name string, scope Scope) clients {
	return clientsOf(n.dial(n.grpc, n.token(name, scope)))
}

func (n *node) asks(db hashlist.Reviews, r hashlist.Review) {
	n.t.Helper()
	if added, err := db.AddReview(n.t.Context(), r); err != nil || !added {
		n.t.Fatalf("added %v: %v", added, err)
	}
}

func (c clients) decide(t testing.TB, id string, what pb.ReviewChoice, why string) (*pb.Review, error) {
	t.Helper()
	answer, err := c.reviews.DecideReview(t.Context(), &pb.DecideReviewRequest{Id: id, Choice: what, Why: why})
	return answer.GetReview(), err
}

func (c clients) verdict(t testing.TB, h hashlist.Hash) pb.Verdict {
	t.Helper()
	v, err := c.lookups.Lookup(t.Context(), &pb.LookupRequest{Hashes: []string{h.String()}})
	if err != nil {
		t.Fatal(err)
	}
	return v.GetVerdict()
}

// What a policy holds waits for a person once for each picture, and what they
// decide is a statement that acts at once.
func TestHeldUploadsWait(t *testing.T) {
	change, db := withQueue(t)
	n := start(t, change, func(c *Config) { c.HTTP.Address = "127.0.0.1:0" })
	owner := clientsOf(n.owner())
	file := encodeJPEG(t, photo(1, 400, 300), 90)
	m := n.media(file)
	n.ban("refused", m.Frames[0].PHash) // which comes to hold at most
	hook := n.http + "/hook/pictrs/" + n.token("pictrs", ScopeLookup)
	upload := func() int {
		r, err := http.Post(hook, "image/jpeg", strings.NewReader(string(file)))
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		return r.StatusCode
	}
	for range 3 {
		if code := upload(); code != http.StatusForbidden {
			t.Fatalf("status %d", code)
		}
	}
	var item *pb.Review
	poll(t, "the held upload waits", func() bool {
		all, err := owner.reviews.ListReviews(t.Context(), &pb.ListReviewsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if len(all.GetReviews()) > 1 {
			t.Fatalf("%d items for one picture", len(all.GetReviews()))
		}
		if len(all.GetReviews()) == 1 {
			item = all.GetReviews()[0]
		}
		return item != nil
	})
	if item.GetKind() != pb.ReviewKind_REVIEW_KIND_HELD || item.GetAlgorithm() != "phash" || item.GetStatementId() == "" || !strings.Contains(item.GetSummary(), "list refused") {
		t.Errorf("got %v", item)
	}
	for _, h := range []hashlist.Hash{m.SHA256, m.Frames[0].PDQ[0], m.Frames[0].PHash} {
		if strings.Contains(item.String(), h.Hex()) {
			t.Error("the item shows a hash")
		}
	}
	if _, err := owner.decide(t, item.GetId(), pb.ReviewChoice_REVIEW_CHOICE_ALLOW, "a painting"); err != nil {
		t.Fatal(err)
	}
	if code := upload(); code != http.StatusOK {
		t.Errorf("status %d after it was allowed", code)
	}
	list, ok := n.lists.List(testOrigin + "/lists/decisions")
	if !ok || list.Audience != hashlist.Local || list.Hashes != 2 {
		t.Errorf("list of decisions: %+v", list)
	}
	_, err := owner.decide(t, item.GetId(), pb.ReviewChoice_REVIEW_CHOICE_BAN, "or not")
	wantCode(t, "decided twice", err, codes.FailedPrecondition)
	n.stop()
	<-n.done
	r, _, err := db.FindReview(context.Background(), item.GetId())
	if err != nil || r.Count != 3 || r.State != hashlist.ReviewDecided || len(r.Decisions) != 1 || len(r.Decisions[0].Statements) != 1 {
		t.Errorf("got %+v, %v", r, err)
	}
	var entries int
	for e, err := range db.AuditAfter(context.Background(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == "decision" && e.Who == "unix socket" && strings.Contains(string(e.Body), `"choice":"allow"`) && strings.Contains(string(e.Body), "a painting") {
			entries++
		}
	}
	if entries != 1 {
		t.Errorf("%d entries in the audit log", entries)
	}
}

// A flood of pictures that match one statement has a bounded number of items.
func TestHeldUploadsAreBounded(t *testing.T) {
	change, db := withQueue(t)
	n := start(t, change)
	many := 3 * heldOfOne
	for i := range many {
		n.held(&hashlist.Query{Probes: []hashlist.Probe{{Hash: randomHashes(1)[0]}}}, &hashlist.Result{
			Verdict: hashlist.VerdictHold, Reason: fmt.Sprint("reason ", i),
			Matches: []hashlist.Match{{Statement: "https://a.example/statements/x", Probe: hashlist.Probe{Hash: randomHashes(1)[0]}}},
		}, "")
	}
	var all []hashlist.Review
	poll(t, "all are put together", func() bool {
		var err error
		if all, err = db.Reviews(t.Context(), hashlist.ReviewSelection{}); err != nil {
			t.Fatal(err)
		}
		return len(n.heldUploads.come) == 0 && len(all) > heldOfOne
	})
	n.stop()
	<-n.done
	all, err := db.Reviews(context.Background(), hashlist.ReviewSelection{})
	if err != nil || len(all) != heldOfOne+1 {
		t.Fatalf("%d items, %v", len(all), err)
	}
	if last := all[heldOfOne]; last.Count != uint64(many-heldOfOne) {
		t.Errorf("the last stands for %d, want %d", last.Count, many-heldOfOne)
	}
}

// Each decision about a statement of somebody else makes the statement it should.
func TestDecisionsAreStatements(t *testing.T) {
	change, db := withQueue(t)
	n := start(t, change)
	owner := clientsOf(n.owner())
	for i, c := range []struct {
		what pb.ReviewChoice
		kind hashlist.Kind // 0 for none
		list string
		act  hashlist.Action
	}{
		{pb.ReviewChoice_REVIEW_CHOICE_CONFIRM, hashlist.Confirmation, "opinions", 0},
		{pb.ReviewChoice_REVIEW_CHOICE_DISPUTE, hashlist.Dispute, "opinions", 0},
		{pb.ReviewChoice_REVIEW_CHOICE_IGNORE, hashlist.Dispute, "decisions", 0},
		{pb.ReviewChoice_REVIEW_CHOICE_BAN, hashlist.AddHashes, "decisions", hashlist.Reject},
		{pb.ReviewChoice_REVIEW_CHOICE_ALLOW, hashlist.AddHashes, "decisions", hashlist.Accept},
		{pb.ReviewChoice_REVIEW_CHOICE_RELEASE, 0, "", 0},
		{pb.ReviewChoice_REVIEW_CHOICE_KEEP, 0, "", 0},
		{pb.ReviewChoice_REVIEW_CHOICE_DISMISS, 0, "", 0},
	} {
		h := randomHashes(2)
		id := fmt.Sprint("hit-", i)
		about := n.theirs(h[0])
		n.asks(db, hashlist.Review{ID: id, Kind: hashlist.ReviewHit, Statement: about, Body: writeHashes(h[1:])})
		r, err := owner.decide(t, id, c.what, "because")
		if err != nil {
			t.Fatalf("%v: %v", c.what, err)
		}
		made := r.GetDecisions()[0].GetStatementIds()
		if c.kind == 0 {
			if len(made) != 0 {
				t.Errorf("%v made %v", c.what, made)
			}
			continue
		}
		record, ok, err := n.lists.Record(t.Context(), made[0])
		if err != nil || !ok {
			t.Fatalf("%v: %v", c.what, err)
		}
		s := record.Statement
		if s.Kind != c.kind || s.List != testOrigin+"/lists/"+c.list || s.Action != c.act || s.Reason != "because" ||
			c.kind == hashlist.AddHashes && !slices.Equal(s.Hashes, h[1:]) || c.kind != hashlist.AddHashes && s.About != about {
			t.Errorf("%v made %+v", c.what, s)
		}
	}
}

func TestDecisionsAreRefused(t *testing.T) {
	change, db := withQueue(t)
	n := start(t, change)
	owner, mod, reader := clientsOf(n.owner()), n.as("mod", ScopeSubmit), n.as("reader", ScopeLookup)
	h := randomHashes(1)
	about := n.theirs(h...)
	mine := n.ban("refused", randomHashes(1)...).GetStatementId()
	n.asks(db, hashlist.Review{ID: "hit-1", Kind: hashlist.ReviewHit, Statement: about})
	n.asks(db, hashlist.Review{ID: "hit-2", Kind: hashlist.ReviewHit, Statement: mine})
	n.asks(db, hashlist.Review{ID: "hit-3", Kind: hashlist.ReviewHit, Statement: "https://other.example/statements/unknown"})
	n.asks(db, hashlist.Review{ID: "key-1", Kind: hashlist.ReviewKey})
	n.asks(db, hashlist.Review{ID: "closed-1", Kind: hashlist.ReviewHit, State: hashlist.ReviewClosed})
	for _, c := range []struct {
		by   clients
		id   string
		what pb.ReviewChoice
		why  string
		code codes.Code
	}{
		{owner, "nothing", pb.ReviewChoice_REVIEW_CHOICE_DISMISS, "", codes.NotFound},
		{owner, "hit-1", 0, "", codes.InvalidArgument},
		{owner, "hit-1", 99, "", codes.InvalidArgument},
		{owner, "hit-1", pb.ReviewChoice_REVIEW_CHOICE_UPHOLD, "x", codes.InvalidArgument},
		{owner, "hit-1", pb.ReviewChoice_REVIEW_CHOICE_DISPUTE, "", codes.InvalidArgument}, // without a reason
		{owner, "hit-1", pb.ReviewChoice_REVIEW_CHOICE_DISPUTE, strings.Repeat("x", 2001), codes.InvalidArgument},
		{owner, "hit-1", pb.ReviewChoice_REVIEW_CHOICE_BAN, "x", codes.FailedPrecondition}, // its hashes are not known
		{owner, "hit-2", pb.ReviewChoice_REVIEW_CHOICE_CONFIRM, "x", codes.FailedPrecondition},
		{owner, "hit-2", pb.ReviewChoice_REVIEW_CHOICE_IGNORE, "x", codes.FailedPrecondition},
		{owner, "hit-3", pb.ReviewChoice_REVIEW_CHOICE_DISPUTE, "x", codes.NotFound},
		{owner, "closed-1", pb.ReviewChoice_REVIEW_CHOICE_DISMISS, "x", codes.FailedPrecondition},
		{mod, "hit-1", pb.ReviewChoice_REVIEW_CHOICE_ALLOW, "x", codes.PermissionDenied},
		{mod, "hit-1", pb.ReviewChoice_REVIEW_CHOICE_IGNORE, "x", codes.PermissionDenied},
		{mod, "key-1", pb.ReviewChoice_REVIEW_CHOICE_KEEP, "x", codes.PermissionDenied},
		{reader, "hit-1", pb.ReviewChoice_REVIEW_CHOICE_DISMISS, "x", codes.PermissionDenied},
	} {
		_, err := c.by.decide(t, c.id, c.what, c.why)
		wantCode(t, fmt.Sprint(c.id, " ", c.what), err, c.code)
	}
	all, err := db.Reviews(t.Context(), hashlist.ReviewSelection{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		if len(r.Decisions) > 0 {
			t.Errorf("%s was decided: %+v", r.ID, r.Decisions)
		}
	}
	_, err = owner.reviews.DecideReview(t.Context(), &pb.DecideReviewRequest{Id: "hit-1", Choice: pb.ReviewChoice_REVIEW_CHOICE_DISMISS, Who: "alice (admin)"})
	wantCode(t, "a name with brackets", err, codes.InvalidArgument)
	if _, err := mod.decide(t, "hit-1", pb.ReviewChoice_REVIEW_CHOICE_DISMISS, ""); err != nil {
		t.Error(err)
	}
}

// Two persons are two tokens. What callers call themselves proves nothing.
func TestTwoPersons(t *testing.T) {
	change, db := withQueue(t, func(r *Review) {
		r.TwoPerson = []hashlist.ReviewChoice{hashlist.ChooseBan, hashlist.ChooseDispute, hashlist.ChooseWithdraw}
	})
	n := start(t, change)
	alice, bob, owner := n.as("alice", ScopeAdmin), n.as("bob", ScopeSubmit), clientsOf(n.owner())
	const ban, allow, dismiss, dispute = pb.ReviewChoice_REVIEW_CHOICE_BAN, pb.ReviewChoice_REVIEW_CHOICE_ALLOW, pb.ReviewChoice_REVIEW_CHOICE_DISMISS, pb.ReviewChoice_REVIEW_CHOICE_DISPUTE
	h := randomHashes(4)
	item := func(id string, h hashlist.Hash) {
		n.asks(db, hashlist.Review{ID: id, Kind: hashlist.ReviewHit, Statement: n.theirs(randomHashes(1)...), Body: writeHashes([]hashlist.Hash{h})})
	}
	state := func(what string, r *pb.Review, err error, want pb.ReviewState) {
		t.Helper()
		if err != nil || r.GetState() != want {
			t.Fatalf("%s: %v, %v, want %v", what, r.GetState(), err, want)
		}
	}
	item("hit-1", h[0])
	r, err := alice.decide(t, "hit-1", ban, "bad")
	state("the first", r, err, pb.ReviewState_REVIEW_STATE_PROPOSED)
	if v := owner.verdict(t, h[0]); v != pb.Verdict_VERDICT_ALLOW {
		t.Errorf("one person's ban acts: %v", v)
	}
	_, err = alice.decide(t, "hit-1", ban, "really")
	wantCode(t, "the same person", err, codes.FailedPrecondition)
	_, err = alice.reviews.DecideReview(t.Context(), &pb.DecideReviewRequest{Id: "hit-1", Choice: ban, Why: "really", Who: "bob"})
	wantCode(t, "the same person under another name", err, codes.FailedPrecondition)
	r, err = bob.decide(t, "hit-1", ban, "yes")
	state("the second", r, err, pb.ReviewState_REVIEW_STATE_DECIDED)
	if v := owner.verdict(t, h[0]); v != pb.Verdict_VERDICT_REJECT {
		t.Errorf("two persons' ban does not act: %v", v)
	}

	// Who differs opens it again, for both.
	item("hit-2", h[1])
	r, err = alice.decide(t, "hit-2", ban, "bad")
	state("the first", r, err, pb.ReviewState_REVIEW_STATE_PROPOSED)
	r, err = bob.decide(t, "hit-2", dismiss, "not bad")
	state("who differs", r, err, pb.ReviewState_REVIEW_STATE_OPEN)
	r, err = bob.decide(t, "hit-2", ban, "on second thought")
	state("the first again", r, err, pb.ReviewState_REVIEW_STATE_PROPOSED)
	if v := owner.verdict(t, h[1]); v != pb.Verdict_VERDICT_ALLOW {
		t.Errorf("what was said before it was opened again counts: %v", v)
	}
	r, err = alice.decide(t, "hit-2", ban, "good")
	state("the second again", r, err, pb.ReviewState_REVIEW_STATE_DECIDED)
	if len(r.GetDecisions()) != 4 {
		t.Errorf("%d decisions are kept", len(r.GetDecisions()))
	}

	// Other terms are another decision; terms that are not given are those proposed.
	item("hit-3", h[2])
	r, err = alice.decide(t, "hit-3", dispute, "wrong")
	state("a dispute", r, err, pb.ReviewState_REVIEW_STATE_PROPOSED)
	r, err = alice.decide(t, "hit-3", dismiss, "")
	state("who takes their own back for what one may do", r, err, pb.ReviewState_REVIEW_STATE_DECIDED)

	// The commands of these names are held to it as well.
	n.newList("refused")
	made, err := alice.lists.Submit(t.Context(), &pb.SubmitRequest{List: "refused", Hashes: texts(h[3:]), Reason: "bad"})
	if err != nil || made.GetReviewId() == "" || made.GetStatementId() != "" {
		t.Fatalf("got %v, %v", made, err)
	}
	if v := owner.verdict(t, h[3]); v != pb.Verdict_VERDICT_ALLOW {
		t.Errorf("one person's ban acts: %v", v)
	}
	shown, err := owner.reviews.GetReview(t.Context(), &pb.GetReviewRequest{Id: made.GetReviewId()})
	if err != nil || strings.Contains(shown.String(), h[3].Hex()) || !strings.Contains(shown.GetReview().GetSummary(), "ban: 1 hashes on list") {
		t.Errorf("got %v, %v", shown, err)
	}
	r, err = bob.decide(t, made.GetReviewId(), pb.ReviewChoice_REVIEW_CHOICE_APPROVE, "")
	state("the proposal", r, err, pb.ReviewState_REVIEW_STATE_DECIDED)
	if v := owner.verdict(t, h[3]); v != pb.Verdict_VERDICT_REJECT {
		t.Errorf("two persons' ban does not act: %v", v)
	}
	banned := r.GetDecisions()[1].GetStatementIds()[0]
	back, err := bob.lists.Retract(t.Context(), &pb.RetractRequest{StatementId: banned, Reason: "oops"})
	if err != nil || back.GetReviewId() == "" || owner.verdict(t, h[3]) != pb.Verdict_VERDICT_REJECT {
		t.Fatalf("got %v, %v", back, err)
	}
	// To ask for the same is to agree.
	back, err = owner.lists.Retract(t.Context(), &pb.RetractRequest{StatementId: banned, Reason: "oops"})
	if err != nil || owner.verdict(t, h[3]) != pb.Verdict_VERDICT_ALLOW {
		t.Fatalf("got %v, %v", back, err)
	}
	// In bulk, nothing passes by.
	stream, err := owner.lists.Import(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&pb.ImportRequest{Options: &pb.ImportOptions{List: "refused", Format: "plain"}}); err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	wantCode(t, "an import", err, codes.FailedPrecondition)
	_, err = owner.lists.RemoveList(t.Context(), &pb.RemoveListRequest{List: "refused"})
	wantCode(t, "to remove a list", err, codes.FailedPrecondition)
	if _, err := owner.lists.Submit(t.Context(), &pb.SubmitRequest{List: "refused", Hashes: texts(randomHashes(1)), Draft: true}); err != nil {
		t.Errorf("a draft: %v", err)
	}
}

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

func TestReviewsAreListedAndWatched(t *testing.T) {
	change, db := withQueue(t, func(r *Review) {
		r.Deadlines = map[hashlist.ReviewKind]time.Duration{hashlist.ReviewKey: time.Nanosecond}
	})
	n := start(t, change)
	owner := clientsOf(n.owner())
	for i := range 5 {
		n.asks(db, hashlist.Review{ID: fmt.Sprint("hit-", i), Kind: hashlist.ReviewHit, Summary: "x"})
	}
	n.asks(db, hashlist.Review{ID: "key-1", Kind: hashlist.ReviewKey})
	ids := func(r *pb.ListReviewsRequest) (all []string) {
		t.Helper()
		for {
			v, err := owner.reviews.ListReviews(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range v.GetReviews() {
				all = append(all, i.GetId())
			}
			if r.PageToken = v.GetNextPageToken(); r.PageToken == "" {
				return all
			}
		}
	}
	if got := strings.Join(ids(&pb.ListReviewsRequest{PageSize: 2}), " "); got != "hit-0 hit-1 hit-2 hit-3 hit-4 key-1" {
		t.Error(got)
	}
	if got := ids(&pb.ListReviewsRequest{Overdue: true}); len(got) != 1 || got[0] != "key-1" {
		t.Error(got)
	}
	if got := ids(&pb.ListReviewsRequest{Kinds: []pb.ReviewKind{pb.ReviewKind_REVIEW_KIND_HIT}, PageSize: 3}); len(got) != 5 {
		t.Error(got)
	}
	_, err := owner.reviews.ListReviews(t.Context(), &pb.ListReviewsRequest{PageSize: 1001})
	wantCode(t, "a large page", err, codes.InvalidArgument)
	_, err = owner.reviews.ListReviews(t.Context(), &pb.ListReviewsRequest{PageToken: "x"})
	wantCode(t, "a token of nobody's", err, codes.InvalidArgument)
	_, err = owner.reviews.ListReviews(t.Context(), &pb.ListReviewsRequest{Kinds: []pb.ReviewKind{99}})
	wantCode(t, "a kind", err, codes.InvalidArgument)

	status, err := pb.NewAdminServiceClient(n.owner()).GetStatus(t.Context(), &pb.GetStatusRequest{})
	if err != nil || len(status.GetWarnings()) != 1 || !strings.HasPrefix(status.GetWarnings()[0], "6 wait for a decision (5 hit, 1 key), 1 of them for longer") {
		t.Errorf("got %q, %v", status.GetWarnings(), err)
	}
	metrics, err := http.Get(n.http + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer metrics.Body.Close()
	var b strings.Builder
	if err := metrics.Write(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`tocsin_reviews{kind="hit",state="open"} 5`, `tocsin_reviews{kind="dispute",state="open"} 0`, `tocsin_reviews_overdue{kind="key"} 1`, `tocsin_reviews_oldest_seconds{kind="hit"}`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the metrics lack %s", want)
		}
	}

	stream, err := owner.reviews.WatchReviews(t.Context(), &pb.WatchReviewsRequest{After: 4, Kinds: []pb.ReviewKind{pb.ReviewKind_REVIEW_KIND_HIT}})
	if err != nil {
		t.Fatal(err)
	}
	next := func(want string) {
		t.Helper()
		m, err := stream.Recv()
		if err != nil || m.GetReview().GetId() != want {
			t.Fatalf("got %v, %v, want %s", m, err, want)
		}
	}
	next("hit-4")
	n.asks(db, hashlist.Review{ID: "key-2", Kind: hashlist.ReviewKey})
	n.asks(db, hashlist.Review{ID: "hit-5", Kind: hashlist.ReviewHit})
	next("hit-5")
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

func TestQuarantineIsDecided(t *testing.T) {
	change, db := withQueue(t)
	n := start(t, change)
	owner := clientsOf(n.owner())
	n.asks(db, hashlist.Review{ID: "quarantine-1", Kind: hashlist.ReviewQuarantine, Issuer: "https://other.example/users/bob"}) // a breaker
	if _, err := owner.decide(t, "quarantine-1", pb.ReviewChoice_REVIEW_CHOICE_RELEASE, ""); err != nil {
		t.Error(err)
	}
	n.asks(db, hashlist.Review{ID: "quarantine-2", Kind: hashlist.ReviewQuarantine, List: "https://other.example/lists/refused"})
	_, err := owner.decide(t, "quarantine-2", pb.ReviewChoice_REVIEW_CHOICE_RELEASE, "")
	wantCode(t, "without a window", err, codes.FailedPrecondition)
	_, err = owner.decide(t, "quarantine-2", pb.ReviewChoice_REVIEW_CHOICE_BAN, "x")
	wantCode(t, "ban a list", err, codes.InvalidArgument)
}

// What cannot be stored is said, and nothing is taken for decided.
func TestDecisionThatFails(t *testing.T) {
	change, db := withQueue(t)
	n := start(t, change)
	owner := clientsOf(n.owner())
	about := n.theirs(randomHashes(1)...)
	n.asks(db, hashlist.Review{ID: "hit-1", Kind: hashlist.ReviewHit, Statement: about})
	n.log.mu.Lock()
	n.log.fail = errTest
	n.log.mu.Unlock()
	_, err := owner.decide(t, "hit-1", pb.ReviewChoice_REVIEW_CHOICE_CONFIRM, "yes")
	wantCode(t, "a log that fails", err, codes.Internal)
	n.log.mu.Lock()
	n.log.fail = nil
	n.log.mu.Unlock()
	if r, _, err := db.FindReview(t.Context(), "hit-1"); err != nil || r.State != hashlist.ReviewOpen {
		t.Errorf("got %+v, %v", r, err)
	}
	if _, err := owner.decide(t, "hit-1", pb.ReviewChoice_REVIEW_CHOICE_CONFIRM, "yes"); err != nil {
		t.Error(err)
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

// A decision is about the statement that brought the verdict about, and not about one by
// somebody who is not believed.
func TestHeldByWhoIsBelieved(t *testing.T) {
	change, db := withQueue(t)
	n := start(t, change, func(c *Config) {
		policy := hashlist.DefaultPolicy()
		policy.Own = testOrigin
		lists, err := hashlist.Open(t.Context(), &memoryLog{places: map[string]uint64{}}, policy)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(lists.Close)
		c.Lists = lists
	})
	lists := n.Server.cfg.Lists
	h := randomHashes(1)[0]
	said := map[string]string{}
	for _, who := range []string{"bob", "alice"} {
		origin := "https://" + who + ".example"
		list := origin + "/lists/refused"
		belief := uint8(0)
		if who == "alice" {
			belief = 80
		}
		lists.Heed(list, hashlist.VerdictReject, belief)
		said[who] = origin + "/statements/a"
		_, err := lists.Apply(t.Context(), hashlist.Record{Statement: hashlist.Statement{
			ID: origin + "/statements/d", Issuer: origin + "/users/" + who, List: list, Kind: hashlist.DefineList, Published: time.Unix(1_790_000_000, 0).UTC(),
			Definition: &hashlist.Definition{Name: "refused", Audience: hashlist.Public, Action: hashlist.Reject, Radii: hashlist.DefaultRadii},
		}}, hashlist.Record{Statement: hashlist.Statement{
			ID: said[who], Issuer: origin + "/users/" + who, List: list, Kind: hashlist.AddHashes, Published: time.Unix(1_790_000_001, 0).UTC(), Hashes: []hashlist.Hash{h},
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	q := hashlist.Query{Probes: []hashlist.Probe{{Hash: h}}, Limit: 1}
	r := lists.Lookup(q)
	if r.Verdict != hashlist.VerdictHold {
		t.Fatalf("%v: %s", r.Verdict, r.Reason)
	}
	n.held(&q, &r, "")
	poll(t, "it waits", func() bool {
		all, err := db.Reviews(t.Context(), hashlist.ReviewSelection{})
		if err != nil {
			t.Fatal(err)
		}
		if len(all) == 1 && (all[0].Statement != said["alice"] || !strings.Contains(all[0].List, "alice")) {
			t.Fatalf("it is about %s", all[0].Statement)
		}
		return len(all) == 1
	})
}
