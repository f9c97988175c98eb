package server

import (
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

// What is offered can be done: nothing is listed from an item that has no hashes, and
// nobody gives an opinion of what this node itself said.
func TestChoicesCanBeMade(t *testing.T) {
	change, db := withQueue(t)
	n := start(t, change)
	owner := clientsOf(n.owner())
	const confirm, ban, dismiss = pb.ReviewChoice_REVIEW_CHOICE_CONFIRM, pb.ReviewChoice_REVIEW_CHOICE_BAN, pb.ReviewChoice_REVIEW_CHOICE_DISMISS
	for id, c := range map[string]struct {
		r    hashlist.Review
		want map[pb.ReviewChoice]bool
	}{
		"hit-theirs": {hashlist.Review{Kind: hashlist.ReviewHit, Statement: n.theirs(randomHashes(1)...), List: "https://other.example/lists/x"},
			map[pb.ReviewChoice]bool{confirm: true, ban: false, dismiss: true}},
		"hit-own": {hashlist.Review{Kind: hashlist.ReviewHit, Statement: testOrigin + "/statements/1", List: testOrigin + "/lists/x"},
			map[pb.ReviewChoice]bool{confirm: false, ban: false, dismiss: true}},
		"held-nothing": {hashlist.Review{Kind: hashlist.ReviewHeld, Body: writeHashes(randomHashes(1))},
			map[pb.ReviewChoice]bool{confirm: false, ban: true, dismiss: true}},
	} {
		c.r.ID = id
		n.asks(db, c.r)
		v, err := owner.reviews.GetReview(t.Context(), &pb.GetReviewRequest{Id: id})
		if err != nil {
			t.Fatal(err)
		}
		for choice, want := range c.want {
			if slices.Contains(v.GetReview().GetChoices(), choice) != want {
				t.Errorf("%s: %v is in %v: %v, want %v", id, choice, v.GetReview().GetChoices(), !want, want)
			}
		}
	}
}
