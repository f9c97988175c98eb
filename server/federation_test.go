package server

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
	"github.com/tocsin-fed/tocsin/store"
)

// requestKey is shared by the tests: it takes a while to make.
var requestKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// federated is a node of the federation whose keys nobody replaces.
type federated struct{ *federation.Node }

var errKeptKey = errors.New("the test keeps no keys")

func (federated) RotateKey(context.Context, ed25519.PublicKey, time.Time) error { return errKeptKey }

// nowhere is a network on which nobody answers.
type nowhere struct{}

func (nowhere) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("there is no network in this test")
}

// withFederation makes the node of a test one that others can follow, and that has
// met whom the database has.
func withFederation(t *testing.T, met func(db *store.DB)) func(*Config) {
	return func(c *Config) {
		db, err := store.Create(t.Context(), filepath.Join(t.TempDir(), "peers.db"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		if met != nil {
			met(db)
		}
		_, head, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		fed, err := federation.New(t.Context(), federation.Config{
			Origin: c.Origin, Lists: c.Lists, Peers: db, Key: requestKey(), HeadKey: head, Log: slog.New(slog.DiscardHandler),
			Issuers:   []federation.LocalIssuer{{Name: "alice", Public: c.Issuer.PublicKey()}},
			Transport: nowhere{},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		ran := make(chan error)
		go func() { ran <- fed.Run(ctx) }()
		t.Cleanup(func() {
			stop()
			if err := <-ran; err != nil {
				t.Error(err)
			}
		})
		c.Federation, c.PublicHandler, c.Public = federated{fed}, fed.Handler(), Listener{Address: "127.0.0.1:0"}
	}
}

// foreign puts a list of another node into the log, with one hash.
func (n *node) foreign(iri string) hashlist.Hash {
	n.t.Helper()
	origin, err := hashlist.Origin(iri)
	if err != nil {
		n.t.Fatal(err)
	}
	define := hashlist.Statement{
		ID: iri + "/definition", Issuer: origin + "/users/bob", List: iri, Kind: hashlist.DefineList,
		Published: time.Now().UTC().Truncate(time.Second), Definition: &hashlist.Definition{
			Name: "gore", Audience: hashlist.Public, Action: hashlist.Reject, Radii: hashlist.DefaultRadii,
		},
	}
	add := hashlist.Statement{ID: iri + "/add", Issuer: define.Issuer, List: iri, Kind: hashlist.AddHashes, Published: define.Published, Hashes: randomHashes(1)}
	if _, err := n.lists.Apply(n.t.Context(), hashlist.Record{Statement: define}, hashlist.Record{Statement: add}); err != nil {
		n.t.Fatal(err)
	}
	return add.Hashes[0]
}

// wantText checks that an error says something.
func wantText(t *testing.T, what string, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(status.Convert(err).Message(), want) {
		t.Errorf("%s: %v, want %q in it", what, err, want)
	}
}

// TestFederationIsOff calls every method of a node that has to do with no other.
func TestFederationIsOff(t *testing.T) {
	n := start(t)
	conn := n.owner()
	for _, m := range pb.FederationService_ServiceDesc.Methods {
		err := conn.Invoke(t.Context(), "/"+pb.FederationService_ServiceDesc.ServiceName+"/"+m.MethodName, &pb.ListPeersRequest{}, &pb.ListPeersResponse{})
		wantCode(t, m.MethodName, err, codes.FailedPrecondition)
		wantText(t, m.MethodName, err, "set federation.address")
	}
	v, err := pb.NewAdminServiceClient(conn).GetStatus(t.Context(), &pb.GetStatusRequest{})
	if err != nil || v.GetFederation() != "" || len(v.GetWarnings()) != 0 {
		t.Errorf("status: %v, %v", v, err)
	}
}

// TestNamesOfLists shows that a bare name is always the node's own list, and how
// others are named.
func TestNamesOfLists(t *testing.T) {
	n := start(t)
	c := n.newList("own")
	n.foreign("https://other.example/lists/gore")
	n.foreign("https://third.example/lists/gore")
	n.foreign("https://third.example/old/gore")
	n.foreign("https://other.example:8443/lists/spam")
	for _, c := range []struct{ ref, want string }{
		{"own", testOrigin + "/lists/own"},
		{"own@hashes.example", testOrigin + "/lists/own"},
		{"@own@hashes.example", testOrigin + "/lists/own"},
		{"gore@other.example", "https://other.example/lists/gore"},
		{"@gore@other.example", "https://other.example/lists/gore"},
		{"https://third.example/old/gore", "https://third.example/old/gore"},
		{"spam@other.example:8443", "https://other.example:8443/lists/spam"},
	} {
		v, err := n.find(c.ref)
		if err != nil || v.ID != c.want {
			t.Errorf("%s: %s, %v, want %s", c.ref, v.ID, err, c.want)
		}
	}
	for _, r := range []struct {
		ref  string
		code codes.Code
		want string
	}{
		{"gore", codes.NotFound, "gore@other.example or gore@third.example"},
		{"gore@third.example", codes.InvalidArgument, "/lists/gore or https://third.example/old/gore"},
		{"spam@other.example", codes.NotFound, "tocsin follow @spam@other.example"},
		{"none", codes.NotFound, "create it first"},
		{"@own", codes.InvalidArgument, "neither NAME nor NAME@HOST"},
		{"@@x", codes.InvalidArgument, "list"},
		{"Own@hashes.example", codes.InvalidArgument, "a-z"},
		{"own@Hashes.example", codes.NotFound, "no list own@Hashes.example"},
		{"", codes.InvalidArgument, "list"},
		{"ftp://x/y", codes.InvalidArgument, "plain https"},
	} {
		_, err := c.GetList(t.Context(), &pb.GetListRequest{List: r.ref})
		wantCode(t, r.ref, err, r.code)
		wantText(t, r.ref, err, r.want)
	}
	all, err := c.ListLists(t.Context(), &pb.ListListsRequest{})
	if err != nil || len(all.GetLists()) != 5 {
		t.Fatalf("lists: %v, %v", all, err)
	}
	for _, l := range all.GetLists() {
		if l.GetOwn() != strings.HasPrefix(l.GetId(), testOrigin) {
			t.Errorf("%s: own is %v", l.GetId(), l.GetOwn())
		}
	}
	for _, name := range []string{"alice"} {
		_, err := c.CreateList(t.Context(), &pb.CreateListRequest{List: &pb.List{Name: name}})
		wantCode(t, name, err, codes.InvalidArgument)
		wantText(t, name, err, "is the name of this node's issuer")
	}
	local := start(t, func(c *Config) { c.Origin = "http://localhost:7482" })
	_, err = pb.NewListServiceClient(local.owner()).CreateList(t.Context(), &pb.CreateListRequest{List: &pb.List{Name: "localhost"}})
	wantText(t, "localhost", err, "the name of the node itself")
}

// TestFollowers decides about those who asked, named in every way.
func TestFollowers(t *testing.T) {
	const carol, dave = "https://third.example/users/carol", "https://third.example/@dave"
	now := time.Now().UTC().Truncate(time.Second)
	n := start(t, withFederation(t, func(db *store.DB) {
		for _, f := range []federation.Follower{
			{List: testOrigin + "/lists/gore", Actor: "https://other.example/actor", State: federation.FollowerAsked},
			{List: testOrigin + "/lists/spam", Actor: "https://other.example/actor", State: federation.FollowerApproved},
			{List: testOrigin + "/lists/gore", Actor: carol, State: federation.FollowerAsked},
			{List: testOrigin + "/lists/spam", Actor: carol, State: federation.FollowerAsked},
			{List: testOrigin + "/lists/spam", Actor: dave, State: federation.FollowerLeft},
			{List: testOrigin + "/lists/gore", Actor: "https://fourth.example/actor", State: federation.FollowerRejected},
		} {
			origin, err := hashlist.Origin(f.Actor)
			if err != nil {
				t.Fatal(err)
			}
			f.Inbox, f.Follow, f.Asked = origin+"/inbox", origin+"/follows/1", now
			if f.State != federation.FollowerAsked {
				f.Decided = now
			}
			if err := db.SaveFollower(t.Context(), f); err != nil {
				t.Fatal(err)
			}
		}
	}))
	n.newList("gore")
	n.newList("spam")
	c := pb.NewFederationServiceClient(n.owner())
	decide := func(list, follower string, d pb.Decision) (*pb.Follower, error) {
		v, err := c.DecideFollower(t.Context(), &pb.DecideFollowerRequest{List: list, Follower: follower, Decision: d})
		return v.GetFollower(), err
	}
	for _, r := range []struct {
		list, follower string
		decision       pb.Decision
		code           codes.Code
		want           string
	}{
		{"", "other.example", 0, codes.InvalidArgument, "unknown decision"},
		{"", "", pb.Decision_DECISION_APPROVE, codes.InvalidArgument, "follower"},
		{"", "nobody.example", pb.Decision_DECISION_APPROVE, codes.NotFound, "no such follower"},
		{"", "other.example.", pb.Decision_DECISION_APPROVE, codes.NotFound, "no such follower"},
		{"", "https://other.example", pb.Decision_DECISION_APPROVE, codes.NotFound, "no such follower"},
		{"none", "other.example", pb.Decision_DECISION_APPROVE, codes.NotFound, "list"},
		{"gore@other.example", "other.example", pb.Decision_DECISION_APPROVE, codes.NotFound, "gore@other.example"},
		{"", "third.example", pb.Decision_DECISION_APPROVE, codes.InvalidArgument, carol + " for list gore, or " + carol + " for list spam"},
		{"", carol, pb.Decision_DECISION_APPROVE, codes.InvalidArgument, "name the list"},
		{"gore", "@dave@third.example", pb.Decision_DECISION_APPROVE, codes.NotFound, "no such follower"},
		{"spam", "@dave@third.example", pb.Decision_DECISION_APPROVE, codes.FailedPrecondition, "has left"},
		{"gore", "other.example", pb.Decision_DECISION_REMOVE, codes.FailedPrecondition, "waits for a decision for list gore: reject it"},
		{"spam", "other.example", pb.Decision_DECISION_REJECT, codes.FailedPrecondition, "is approved already for list spam: remove it"},
		{"", "fourth.example", pb.Decision_DECISION_REMOVE, codes.FailedPrecondition, "is rejected already"},
	} {
		what := fmt.Sprint(r.list, " ", r.follower, " ", r.decision)
		_, err := decide(r.list, r.follower, r.decision)
		wantCode(t, what, err, r.code)
		wantText(t, what, err, r.want)
	}
	for _, r := range []struct {
		list, follower string
		decision       pb.Decision
		wantActor      string
		want           pb.FollowerState
	}{
		{"", "@other.example@other.example", pb.Decision_DECISION_APPROVE, "https://other.example/actor", pb.FollowerState_FOLLOWER_STATE_APPROVED},
		{"gore", "@carol@third.example", pb.Decision_DECISION_REJECT, carol, pb.FollowerState_FOLLOWER_STATE_REJECTED},
		{"", carol, pb.Decision_DECISION_APPROVE, carol, pb.FollowerState_FOLLOWER_STATE_APPROVED}, // the one that waits
		{"", "fourth.example", pb.Decision_DECISION_APPROVE, "https://fourth.example/actor", pb.FollowerState_FOLLOWER_STATE_APPROVED},
		{"spam", "other.example", pb.Decision_DECISION_REMOVE, "https://other.example/actor", pb.FollowerState_FOLLOWER_STATE_REJECTED},
	} {
		v, err := decide(r.list, r.follower, r.decision)
		if err != nil || v.GetActor() != r.wantActor || v.GetState() != r.want || v.GetDecided() == nil {
			t.Errorf("%s %s %v: %v, %v", r.list, r.follower, r.decision, v, err)
		}
	}
	v, err := c.ListFollowers(t.Context(), &pb.ListFollowersRequest{List: "gore"})
	if err != nil || len(v.GetFollowers()) != 3 {
		t.Errorf("followers of gore: %v, %v", v, err)
	}
	var out *pb.GetOutboxResponse
	poll(t, "the definition is in the outbox", func() bool {
		out, err = c.GetOutbox(t.Context(), &pb.GetOutboxRequest{List: "gore"})
		return err != nil || len(out.GetLists()) == 1 && out.GetLists()[0].GetSize() > 0
	})
	if err != nil || len(out.GetLists()) != 1 || out.GetLists()[0].GetFollowers() != 2 || out.GetLists()[0].GetSize() != 1 || len(out.GetLists()[0].GetRoot()) != 32 {
		t.Errorf("outbox of gore: %v, %v", out, err)
	}
	for _, want := range []string{`tocsin_followers{state="approved"} 3`, `tocsin_followers{state="asked"} 0`, `tocsin_follows{state="diverged"} 0`, `tocsin_peers{state="retired"} 0`} {
		poll(t, want, func() bool { return n.metric(want) })
	}
}

// TestFollowRefuses asks for what cannot be followed. Nothing here is on the network.
func TestFollowRefuses(t *testing.T) {
	n := start(t, withFederation(t, nil))
	n.newList("own")
	n.foreign("https://other.example/lists/gore")
	c := pb.NewFederationServiceClient(n.owner())
	for _, r := range []struct {
		name string
		call func() error
		code codes.Code
		want string
	}{
		{"no address", func() error { _, err := c.Follow(t.Context(), &pb.FollowRequest{}); return err }, codes.InvalidArgument, "address"},
		{"a long address", func() error {
			_, err := c.Follow(t.Context(), &pb.FollowRequest{Address: strings.Repeat("x", 600)})
			return err
		}, codes.InvalidArgument, "600 bytes"},
		{"allow", func() error {
			_, err := c.Follow(t.Context(), &pb.FollowRequest{Address: "@a@b.example", Most: pb.Verdict_VERDICT_ALLOW})
			return err
		}, codes.InvalidArgument, "want flag, hold or reject"},
		{"a list of its own", func() error {
			_, err := c.Follow(t.Context(), &pb.FollowRequest{Address: testOrigin + "/lists/own"})
			return err
		}, codes.FailedPrecondition, "of this node"},
		{"unfollow its own", func() error {
			_, err := c.Unfollow(t.Context(), &pb.UnfollowRequest{List: "own"})
			return err
		}, codes.InvalidArgument, "of this node itself"},
		{"unfollow what is not followed", func() error {
			_, err := c.Unfollow(t.Context(), &pb.UnfollowRequest{List: "gore@other.example"})
			return err
		}, codes.NotFound, "no such list"},
		{"follow that anew", func() error {
			_, err := c.FollowAnew(t.Context(), &pb.FollowAnewRequest{List: "gore@other.example"})
			return err
		}, codes.NotFound, "no such list"},
		{"verify with many", func() error {
			_, err := c.Verify(t.Context(), &pb.VerifyRequest{List: "own", With: make([]string, 65)})
			return err
		}, codes.InvalidArgument, "65"},
		{"inspect nothing", func() error { _, err := c.Inspect(t.Context(), &pb.InspectRequest{}); return err }, codes.InvalidArgument, "address"},
		{"outbox of another's list", func() error {
			_, err := c.GetOutbox(t.Context(), &pb.GetOutboxRequest{List: "gore@other.example"})
			return err
		}, codes.FailedPrecondition, "not of this node"},
		{"half a key", func() error {
			_, err := c.RotateKey(t.Context(), &pb.RotateKeyRequest{PublicKey: make([]byte, 31)})
			return err
		}, codes.InvalidArgument, "31 bytes"},
		{"the same key", func() error {
			_, err := c.RotateKey(t.Context(), &pb.RotateKeyRequest{PublicKey: n.issuer.PublicKey()})
			return err
		}, codes.FailedPrecondition, "used by"},
		{"a leak to come", func() error {
			_, err := c.RotateKey(t.Context(), &pb.RotateKeyRequest{CompromisedSince: when(time.Now().Add(time.Hour))})
			return err
		}, codes.InvalidArgument, "in the future"},
		{"a key that cannot be kept", func() error { _, err := c.RotateKey(t.Context(), &pb.RotateKeyRequest{}); return err }, codes.Internal, "log"},
	} {
		err := r.call()
		wantCode(t, r.name, err, r.code)
		wantText(t, r.name, err, r.want)
	}
	poll(t, "the definition is in the outbox", func() bool {
		out, err := c.GetOutbox(t.Context(), &pb.GetOutboxRequest{List: "own"})
		return err != nil || len(out.GetLists()) == 1 && out.GetLists()[0].GetSize() > 0
	})
	v, err := c.Verify(t.Context(), &pb.VerifyRequest{List: "own"})
	if err != nil || !v.GetPassed() || v.GetSize() != 1 {
		t.Errorf("verify: %v, %v", v, err)
	}
	keys, err := c.ListKeys(t.Context(), &pb.ListKeysRequest{})
	if err != nil || len(keys.GetKeys()) != 1 || !keys.GetKeys()[0].GetCurrent() || keys.GetKeys()[0].GetIssuer() != n.issuer.Actor() {
		t.Errorf("keys: %v, %v", keys, err)
	}
}

// TestFederationErrors shows which status each error of the federation becomes, and
// that a failure of another server can be told from one of the node.
func TestFederationErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		want codes.Code
	}{
		{federation.ErrUnknownList, codes.NotFound}, {federation.ErrUnknownFollower, codes.NotFound},
		{federation.ErrState, codes.FailedPrecondition}, {federation.ErrRemote, codes.Unavailable}, {ErrOffline, codes.FailedPrecondition},
	} {
		st := statusOf(fmt.Errorf("what it is: %w", c.err))
		if st.Code() != c.want || !strings.Contains(st.Message(), "what it is") || len(st.Details()) > 0 != (c.err == federation.ErrRemote) {
			t.Errorf("%v: %v", c.err, st)
		}
		if troubled(c.err) {
			t.Errorf("%v is taken for trouble of the node", c.err)
		}
	}
}

// keyless is an issuer whose key is kept elsewhere.
type keyless struct{ *federation.Issuer }

func (keyless) Seal(hashlist.Statement) (hashlist.Record, error) {
	return hashlist.Record{}, ErrOffline
}

// TestDraftAndPublish takes statements to a key that is kept elsewhere and back,
// and refuses what should not come that way.
func TestDraftAndPublish(t *testing.T) {
	n := start(t, func(c *Config) {
		c.Issuer = keyless{c.Issuer.(*federation.Issuer)}
		c.Offline = func() bool { return true }
	})
	conn := n.owner()
	c := pb.NewListServiceClient(conn)
	sign := func(draft []byte) []byte {
		t.Helper()
		r, err := n.issuer.SealDraft(draft)
		if err != nil {
			t.Fatalf("%v\n%s", err, draft)
		}
		return r.Signed
	}
	publish := func(signed ...[]byte) (*pb.PublishResponse, error) {
		return c.Publish(t.Context(), &pb.PublishRequest{Signed: signed})
	}
	_, err := c.CreateList(t.Context(), &pb.CreateListRequest{List: &pb.List{Name: "gore"}})
	wantCode(t, "without a draft", err, codes.FailedPrecondition)
	made, err := c.CreateList(t.Context(), &pb.CreateListRequest{List: &pb.List{Name: "gore"}, Draft: true})
	if err != nil || made.GetList().GetId() != testOrigin+"/lists/gore" || n.lists.Seq() != 0 {
		t.Fatalf("drafted list: %v, %v, %d in the log", made, err, n.lists.Seq())
	}
	definition := sign(made.GetDraft())
	if v, err := publish(definition, definition); err != nil || len(v.GetPublished()) != 2 || v.GetPublished()[1].GetSeq() != 1 || v.GetPublished()[0].GetKind() != "list" {
		t.Fatalf("published: %v, %v", v, err)
	}
	again, err := c.CreateList(t.Context(), &pb.CreateListRequest{List: &pb.List{Name: "gore"}, Draft: true})
	if err != nil || len(again.GetDraft()) != 0 {
		t.Errorf("a definition that stands: %v, %v", again, err)
	}

	h := randomHashes(3)
	added, err := c.Submit(t.Context(), &pb.SubmitRequest{List: "gore", Hashes: texts(h), Draft: true})
	if err != nil || added.GetStatementId() != "" || n.lists.Seq() != 1 {
		t.Fatalf("drafted: %v, %v", added, err)
	}
	add := sign(added.GetDraft())
	v, err := publish(add)
	if err != nil {
		t.Fatal(err)
	}
	id := v.GetPublished()[0].GetStatementId()
	part, err := c.Retract(t.Context(), &pb.RetractRequest{StatementId: id, Hashes: texts(h[:1]), Draft: true})
	if err != nil || part.GetRetracted() != 1 || n.lists.Seq() != 2 {
		t.Fatalf("drafted retraction: %v, %v", part, err)
	}
	if _, err := publish(sign(part.GetDraft())); err != nil {
		t.Fatal(err)
	}
	removal, err := c.RemoveList(t.Context(), &pb.RemoveListRequest{List: "gore", Draft: true})
	if err != nil || len(removal.GetDrafts()) != 1 || n.lists.Seq() != 3 {
		t.Fatalf("drafted removal: %v, %v", removal, err)
	}

	// What must not come in. With what is good beside it, to see that all or nothing is taken.
	draft := func(actor string, s hashlist.Statement) []byte {
		t.Helper()
		d, err := federation.Draft(actor, s)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	sealed := func(origin, name string, key ed25519.PrivateKey, s hashlist.Statement) []byte {
		t.Helper()
		i, err := federation.NewIssuer(origin+"/users/"+name, key)
		if err != nil {
			t.Fatal(err)
		}
		r, err := i.Seal(s)
		if err != nil {
			t.Fatal(err)
		}
		return r.Signed
	}
	_, stranger, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	more := hashlist.Statement{Kind: hashlist.AddHashes, List: testOrigin + "/lists/gore", Hashes: randomHashes(1)}
	late := more
	late.Published = time.Now().UTC().Truncate(time.Second).Add(time.Hour)
	named := &hashlist.Definition{Name: "other", Audience: hashlist.Public, Action: hashlist.Reject, Radii: hashlist.DefaultRadii}
	alice := &hashlist.Definition{Name: "alice", Audience: hashlist.Public, Action: hashlist.Reject, Radii: hashlist.DefaultRadii}
	n.foreign("https://other.example/lists/gore")
	theirs := more
	theirs.List = "https://other.example/lists/gore"
	good := sign(draft(n.issuer.Actor(), more))
	for _, r := range []struct {
		name   string
		signed []byte
		want   string
	}{
		{"nothing", nil, "document"},
		{"too much", make([]byte, federation.MaxSigned+1), "larger than"},
		{"a draft", draft(n.issuer.Actor(), more), "id"},
		{"altered", []byte(strings.Replace(string(add), `"Add"`, `"Undo"`, 1)), ""},
		{"signed by a stranger", sealed(testOrigin, "alice", stranger, more), "another key"},
		{"of another issuer of this node", sealed(testOrigin, "eve", stranger, more), "this node's issuer is"},
		{"of another node", sealed("https://other.example", "bob", stranger, theirs), "this node's issuer is"},
		{"of next year", sign(draft(n.issuer.Actor(), late)), "in the future"},
		{"a list under another's address", sign(draft(n.issuer.Actor(), hashlist.Statement{Kind: hashlist.DefineList, List: testOrigin + "/lists/gore", Definition: named})), "not its own"},
		{"a list called like the issuer", sign(draft(n.issuer.Actor(), hashlist.Statement{Kind: hashlist.DefineList, List: testOrigin + "/lists/alice", Definition: alice})), "the name of this node's issuer"},
	} {
		before := n.lists.Seq()
		_, err := publish(good, r.signed)
		wantCode(t, r.name, err, codes.InvalidArgument)
		wantText(t, r.name, err, "statement 2: ")
		wantText(t, r.name, err, r.want)
		if n.lists.Seq() != before {
			t.Errorf("%s: something was taken", r.name)
		}
	}
	_, err = publish(make([][]byte, 1001)...)
	wantCode(t, "too many", err, codes.InvalidArgument)
	if v, err := publish(); err != nil || len(v.GetPublished()) != 0 {
		t.Errorf("none: %v, %v", v, err)
	}
	s, err := pb.NewAdminServiceClient(conn).GetStatus(t.Context(), &pb.GetStatusRequest{})
	if err != nil || !s.GetOffline() {
		t.Errorf("status: %v, %v", s, err)
	}
}

// TestImportDraft drafts an import of many batches, and publishes it.
func TestImportDraft(t *testing.T) {
	n := start(t)
	n.newList("gore")
	c := pb.NewListServiceClient(n.dial("unix:"+n.socket, "", grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(4<<20))))
	stream, err := c.Import(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h := randomHashes(30_000)
	sent := make(chan error, 1)
	go func() { // beside the answers, as the command does: the drafts fill the connection
		var err error
		send := func(m *pb.ImportRequest) {
			if err == nil {
				err = stream.Send(m)
			}
		}
		send(&pb.ImportRequest{Options: &pb.ImportOptions{List: "gore", Format: "plain", Draft: true, Reason: "a test"}})
		for file := plain(h); len(file) > 0; {
			k := min(len(file), maxChunk)
			send(&pb.ImportRequest{Chunk: file[:k]})
			file = file[k:]
		}
		send(&pb.ImportRequest{Chunk: plain(h[:1000])}) // once more
		sent <- errors.Join(err, stream.CloseSend())
	}()
	var signed [][]byte
	for {
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range m.GetDrafts() {
			r, err := n.issuer.SealDraft(d)
			if err != nil {
				t.Fatal(err)
			}
			signed = append(signed, r.Signed)
		}
		if m.GetDone() {
			if m.GetListed() != uint64(len(h)) || m.GetSkipped() != 1000 {
				t.Errorf("at the end: %d listed, %d skipped", m.GetListed(), m.GetSkipped())
			}
			break
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if n.lists.Seq() != 1 {
		t.Errorf("%d statements in the log", n.lists.Seq())
	}
	for len(signed) > 0 {
		k := min(len(signed), 20)
		if _, err := c.Publish(t.Context(), &pb.PublishRequest{Signed: signed[:k]}); err != nil {
			t.Fatal(err)
		}
		signed = signed[k:]
	}
	if l, ok := n.lists.List(testOrigin + "/lists/gore"); !ok || l.Hashes != len(h) {
		t.Errorf("%d hashes on the list, want %d", l.Hashes, len(h))
	}
}
