package server

import (
	"context"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

func TestCreateList(t *testing.T) {
	n := start(t)
	c := pb.NewListServiceClient(n.owner())
	create := func(l *pb.List) (*pb.List, error) {
		v, err := c.CreateList(t.Context(), &pb.CreateListRequest{List: l})
		return v.GetList(), err
	}
	v, err := create(&pb.List{Name: "gore", Summary: "s", Labels: []string{"b", "a", "b"}, Radius: map[string]uint32{"pdq": 20}})
	if err != nil {
		t.Fatal(err)
	}
	if v.GetId() != testOrigin+"/lists/gore" || !slices.Equal(v.GetLabels(), []string{"a", "b"}) || v.GetAction() != pb.Action_ACTION_REJECT ||
		v.GetAudience() != pb.Audience_AUDIENCE_FOLLOWERS || v.GetRadius()["pdq"] != 20 || v.GetRadius()["phash"] != 8 || v.GetRadius()["dhash"] != 6 ||
		v.GetIssuer() != n.issuer.Actor() || v.GetUpdated() == nil {
		t.Errorf("list: %v", v)
	}
	seq := n.lists.Seq()
	if _, err := create(&pb.List{Name: "gore", Summary: "s", Labels: []string{"a", "b"}, Radius: map[string]uint32{"pdq": 20}}); err != nil || n.lists.Seq() != seq {
		t.Errorf("the same again: %v, log grew by %d", err, n.lists.Seq()-seq)
	}
	// Within one second, each definition must still outdo the one before.
	for i := range 5 {
		v, err := create(&pb.List{Name: "gore", Radius: map[string]uint32{"pdq": uint32(i)}})
		if err != nil || v.GetRadius()["pdq"] != uint32(i) {
			t.Errorf("redefinition %d: %v, %v", i, v, err)
		}
	}
	for name, l := range map[string]*pb.List{
		"nothing":         nil,
		"no name":         {},
		"bad name":        {Name: "Gore Pictures"},
		"long name":       {Name: strings.Repeat("a", 65)},
		"bad label":       {Name: "x", Labels: []string{"A"}},
		"too many labels": {Name: "x", Labels: strings.Split("a b c d e f g h i j k l m n o p q", " ")},
		"audience":        {Name: "x", Audience: 9},
		"action":          {Name: "x", Action: -1},
		"radius":          {Name: "x", Radius: map[string]uint32{"pdq": 64}},
		"huge radius":     {Name: "x", Radius: map[string]uint32{"pdq": 256 + 31}},
		"digest radius":   {Name: "x", Radius: map[string]uint32{"md5": 0}},
		"unknown radius":  {Name: "x", Radius: map[string]uint32{"crc": 0}},
		"long summary":    {Name: "x", Summary: strings.Repeat("s", 2001)},
		"control summary": {Name: "x", Summary: "\x1b[31m"},
		"address":         {Name: "x", Id: "https://other.example/lists/x"},
	} {
		_, err := create(l)
		wantCode(t, name, err, codes.InvalidArgument)
	}
	all, err := c.ListLists(t.Context(), &pb.ListListsRequest{})
	if err != nil || len(all.GetLists()) != 1 || all.GetIndexSeq() != n.lists.Seq() {
		t.Errorf("all: %v, %v", all, err)
	}
	_, err = c.GetList(t.Context(), &pb.GetListRequest{List: "gore"})
	wantCode(t, "get", err, codes.OK)
	_, err = c.GetList(t.Context(), &pb.GetListRequest{List: "none"})
	wantCode(t, "get none", err, codes.NotFound)

	h := randomHashes(1)
	n.add("gore", h...)
	look := func() pb.Verdict {
		v, err := pb.NewLookupServiceClient(n.owner()).Lookup(t.Context(), &pb.LookupRequest{Hashes: texts(h)})
		if err != nil {
			t.Fatal(err)
		}
		return v.GetVerdict()
	}
	if v := look(); v != pb.Verdict_VERDICT_REJECT {
		t.Errorf("listed: %v", v)
	}
	_, err = c.RemoveList(t.Context(), &pb.RemoveListRequest{List: "gore", Reason: "done"})
	wantCode(t, "remove", err, codes.OK)
	if v := look(); v != pb.Verdict_VERDICT_ALLOW {
		t.Errorf("on a list that was removed: %v", v)
	}
	_, err = c.RemoveList(t.Context(), &pb.RemoveListRequest{List: "gore"})
	wantCode(t, "remove again", err, codes.NotFound)
	if _, err := create(&pb.List{Name: "gore"}); err != nil {
		t.Error(err)
	}
	if v := look(); v != pb.Verdict_VERDICT_REJECT {
		t.Errorf("on a list that was made again: %v", v)
	}
}

func TestSubmitAndRetract(t *testing.T) {
	n := start(t)
	c := n.newList("gore")
	h := randomHashes(10)
	low, high := uint32(49), uint32(101)
	for name, r := range map[string]*pb.SubmitRequest{
		"no hashes":   {List: "gore"},
		"bad hash":    {List: "gore", Hashes: []string{"x"}},
		"too many":    {List: "gore", Hashes: texts(randomHashes(1001))},
		"no list":     {Hashes: texts(h)},
		"flat":        {List: "gore", Hashes: texts(h), Quality: &low},
		"quality":     {List: "gore", Hashes: texts(h), Quality: &high},
		"label":       {List: "gore", Hashes: texts(h), Labels: []string{"No"}},
		"action":      {List: "gore", Hashes: texts(h), Action: 77},
		"reason":      {List: "gore", Hashes: texts(h), Reason: strings.Repeat("x", 2001)},
		"reason text": {List: "gore", Hashes: texts(h), Reason: "\x00"},
		"past":        {List: "gore", Hashes: texts(h), Expires: timestamppb.New(time.Now().Add(-time.Hour))},
		"not a time":  {List: "gore", Hashes: texts(h), Expires: &timestamppb.Timestamp{Seconds: math.MaxInt64}},
		"year 10000":  {List: "gore", Hashes: texts(h), Expires: &timestamppb.Timestamp{Seconds: 253402300800}},
	} {
		_, err := c.Submit(t.Context(), r)
		wantCode(t, name, err, codes.InvalidArgument)
	}
	_, err := c.Submit(t.Context(), &pb.SubmitRequest{List: "none", Hashes: texts(h)})
	wantCode(t, "unknown list", err, codes.NotFound)
	if !strings.Contains(err.Error(), "create it") {
		t.Errorf("no hint: %v", err)
	}
	digest := "sha256:" + strings.Repeat("ab", 32)
	if _, err := c.Submit(t.Context(), &pb.SubmitRequest{List: "gore", Hashes: []string{digest}, Quality: &low}); err != nil {
		t.Errorf("a digest of a flat picture: %v", err)
	}

	one, err := c.Submit(t.Context(), &pb.SubmitRequest{List: "gore", Hashes: texts(h[:4]), Labels: []string{"z", "a"}, Action: pb.Action_ACTION_DROP, Reason: "r"})
	if err != nil || one.GetStatementId() == "" || one.GetSeq() != n.lists.Seq() || one.GetAlreadyListed() != 0 {
		t.Fatalf("submit: %v, %v", one, err)
	}
	again, err := c.Submit(t.Context(), &pb.SubmitRequest{List: "gore", Hashes: texts(h[:4])})
	if err != nil || again.GetStatementId() != "" || again.GetAlreadyListed() != 4 {
		t.Errorf("again: %v, %v", again, err)
	}
	more, err := c.Submit(t.Context(), &pb.SubmitRequest{List: "gore", Hashes: texts([]hashlist.Hash{h[3], h[4], h[4]})})
	if err != nil || more.GetAlreadyListed() != 2 {
		t.Errorf("one more: %v, %v", more, err)
	}

	// What stands there and says less is neither passed over nor doubled.
	until := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(time.Now().Add(d)) }
	if _, err := c.Submit(t.Context(), &pb.SubmitRequest{List: "gore", Hashes: texts(h[6:7]), Action: pb.Action_ACTION_ACCEPT}); err != nil {
		t.Error(err)
	}
	if _, err := c.Submit(t.Context(), &pb.SubmitRequest{List: "gore", Hashes: texts(h[7:8]), Expires: until(time.Hour)}); err != nil {
		t.Error(err)
	}
	before := n.lists.Seq()
	for name, r := range map[string]*pb.SubmitRequest{
		"harmless before": {Hashes: texts(h[6:7])},
		"banned before":   {Hashes: texts(h[4:5]), Action: pb.Action_ACTION_ACCEPT},
		"milder before":   {Hashes: texts(h[4:5]), Action: pb.Action_ACTION_DROP},
		"fewer labels":    {Hashes: texts(h[:1]), Labels: []string{"b"}},
		"an earlier end":  {Hashes: texts(h[7:9]), Expires: until(2 * time.Hour)},
		"an end":          {Hashes: texts(h[7:9])},
	} {
		r.List = "gore"
		_, err := c.Submit(t.Context(), r)
		wantCode(t, name, err, codes.FailedPrecondition)
	}
	if again, err := c.Submit(t.Context(), &pb.SubmitRequest{List: "gore", Hashes: texts(h[7:8]), Expires: until(time.Minute)}); err != nil || again.GetAlreadyListed() != 1 {
		t.Errorf("a sooner end: %v, %v", again, err)
	}
	if n.lists.Seq() != before {
		t.Error("something was listed")
	}

	retract := func(id string, hashes []string) (*pb.RetractResponse, error) {
		return c.Retract(t.Context(), &pb.RetractRequest{StatementId: id, Hashes: hashes, Reason: "wrong"})
	}
	_, err = retract("https://hashes.example/statements/none", nil)
	wantCode(t, "unknown statement", err, codes.NotFound)
	_, err = retract("", nil)
	wantCode(t, "no statement", err, codes.NotFound)
	_, err = retract(one.GetStatementId(), texts(h[3:5]))
	wantCode(t, "a hash of another statement", err, codes.InvalidArgument)
	_, err = retract(one.GetStatementId(), []string{"x"})
	wantCode(t, "no hash", err, codes.InvalidArgument)
	l, _ := n.lists.List(testOrigin + "/lists/gore")
	_, err = retract(l.Statement, nil)
	wantCode(t, "the definition", err, codes.InvalidArgument)

	part, err := retract(one.GetStatementId(), texts(h[:1]))
	if err != nil || part.GetRetracted() != 1 || part.GetStatementId() == "" || part.GetSeq() != n.lists.Seq() {
		t.Errorf("one hash: %v, %v", part, err)
	}
	part, err = retract(one.GetStatementId(), texts(h[:2]))
	if err != nil || part.GetRetracted() != 1 {
		t.Errorf("that one and another: %v, %v", part, err)
	}
	part, err = retract(one.GetStatementId(), nil)
	if err != nil || part.GetRetracted() != 2 {
		t.Errorf("the rest: %v, %v", part, err)
	}
	part, err = retract(one.GetStatementId(), nil)
	if err != nil || part.GetRetracted() != 0 || part.GetStatementId() != "" {
		t.Errorf("nothing: %v, %v", part, err)
	}
	// What was retracted can be listed again, by a new statement.
	back, err := c.Submit(t.Context(), &pb.SubmitRequest{List: "gore", Hashes: texts(h[:4])})
	if err != nil || back.GetAlreadyListed() != 0 {
		t.Errorf("listed again: %v, %v", back, err)
	}
	if got := n.lists.Listed(l.ID, n.issuer.Actor(), h[:5]); slices.Contains(got, false) {
		t.Errorf("in force: %v", got)
	}
}

// TestForeignLists shows that lists and statements of others cannot be changed.
func TestForeignLists(t *testing.T) {
	n := start(t)
	const list = "https://other.example/lists/gore"
	other := hashlist.Statement{
		ID: "https://other.example/statements/1", Issuer: "https://other.example/users/bob", List: list, Kind: hashlist.DefineList,
		Published: time.Now().UTC().Truncate(time.Second), Definition: &hashlist.Definition{
			Name: "gore", Audience: hashlist.Public, Action: hashlist.Reject, Radii: hashlist.DefaultRadii,
		},
	}
	add := hashlist.Statement{ID: "https://other.example/statements/2", Issuer: other.Issuer, List: list, Kind: hashlist.AddHashes,
		Published: other.Published, Hashes: randomHashes(1)}
	if _, err := n.lists.Apply(t.Context(), hashlist.Record{Statement: other}, hashlist.Record{Statement: add}); err != nil {
		t.Fatal(err)
	}
	c := pb.NewListServiceClient(n.owner())
	_, err := c.Submit(t.Context(), &pb.SubmitRequest{List: list, Hashes: texts(randomHashes(1))})
	wantCode(t, "submit", err, codes.FailedPrecondition)
	_, err = c.RemoveList(t.Context(), &pb.RemoveListRequest{List: list})
	wantCode(t, "remove", err, codes.FailedPrecondition)
	_, err = c.Retract(t.Context(), &pb.RetractRequest{StatementId: add.ID})
	wantCode(t, "retract", err, codes.FailedPrecondition)
	v, err := pb.NewLookupServiceClient(n.owner()).Lookup(t.Context(), &pb.LookupRequest{Hashes: texts(add.Hashes), Lists: []string{list}})
	if err != nil || len(v.GetMatches()) != 1 {
		t.Errorf("lookup: %v, %v", v, err)
	}
}

// TestSubmitRace submits the same hashes from many callers: each is listed once.
func TestSubmitRace(t *testing.T) {
	n := start(t)
	c := n.newList("gore")
	h := randomHashes(50)
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			r := texts(h[i : i+30])
			if i%2 == 0 {
				slices.Reverse(r)
			}
			if _, err := c.Submit(t.Context(), &pb.SubmitRequest{List: "gore", Hashes: r}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	// List.Hashes counts one that two statements list twice.
	if l, _ := n.lists.List(testOrigin + "/lists/gore"); l.Hashes != 49 {
		t.Errorf("%d hashes are listed, want 49", l.Hashes)
	}
	if len(n.Server.claims.held) != 0 {
		t.Errorf("%d claims are left", len(n.Server.claims.held))
	}
}

func TestListEntries(t *testing.T) {
	n := start(t)
	c := n.newList("gore")
	n.newList("other")
	var ids []string
	for i := range 25 {
		v, err := c.Submit(t.Context(), &pb.SubmitRequest{List: "gore", Hashes: texts(randomHashes(2)), Reason: "r"})
		if err != nil {
			t.Fatal(err)
		}
		n.add("other", randomHashes(1)...)
		if i%5 == 4 {
			if _, err := c.Retract(t.Context(), &pb.RetractRequest{StatementId: v.GetStatementId()}); err != nil {
				t.Fatal(err)
			}
			continue
		}
		ids = append(ids, v.GetStatementId())
	}
	for _, size := range []uint32{1, 4, 10, 20, 100, 0} {
		var got []string
		token := ""
		for {
			v, err := c.ListEntries(t.Context(), &pb.ListEntriesRequest{List: "gore", PageSize: size, PageToken: token})
			if err != nil {
				t.Fatal(err)
			}
			if len(v.GetEntries()) == 0 || size > 0 && len(v.GetEntries()) > int(size) {
				t.Fatalf("a page of %d has %d entries", size, len(v.GetEntries()))
			}
			for _, e := range v.GetEntries() {
				got = append(got, e.GetStatementId())
				if len(e.GetHashes()) != 2 || e.GetIssuer() != n.issuer.Actor() || e.GetReason() != "r" {
					t.Errorf("entry %v", e)
				}
			}
			if token = v.GetNextPageToken(); token == "" {
				break
			}
		}
		if !slices.Equal(got, ids) {
			t.Errorf("pages of %d: %d statements, want %d", size, len(got), len(ids))
		}
	}
	n.newList("empty")
	v, err := c.ListEntries(t.Context(), &pb.ListEntriesRequest{List: "empty"})
	if err != nil || len(v.GetEntries()) != 0 || v.GetNextPageToken() != "" {
		t.Errorf("empty list: %v, %v", v, err)
	}
	v, err = c.ListEntries(t.Context(), &pb.ListEntriesRequest{List: "gore", PageToken: pageToken(math.MaxUint64)})
	if err != nil || len(v.GetEntries()) != 0 {
		t.Errorf("behind the end: %v, %v", v, err)
	}
	for name, r := range map[string]*pb.ListEntriesRequest{
		"page size": {List: "gore", PageSize: 1001}, "page token": {List: "gore", PageToken: "x"}, "no list": {},
	} {
		_, err := c.ListEntries(t.Context(), r)
		wantCode(t, name, err, codes.InvalidArgument)
	}
}

// TestListEntriesFit fills a page with statements as large as they get.
func TestListEntriesFit(t *testing.T) {
	n := start(t)
	c := n.newList("gore")
	for range 60 {
		if _, err := c.Submit(t.Context(), &pb.SubmitRequest{List: "gore", Hashes: texts(randomHashes(1000))}); err != nil {
			t.Fatal(err)
		}
	}
	seen, token := 0, ""
	for pages := 1; ; pages++ {
		v, err := c.ListEntries(t.Context(), &pb.ListEntriesRequest{List: "gore", PageSize: 1000, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		seen += len(v.GetEntries())
		if token = v.GetNextPageToken(); token == "" {
			if seen != 60 || pages < 2 {
				t.Errorf("%d statements on %d pages", seen, pages)
			}
			return
		}
	}
}

func FuzzPageToken(f *testing.F) {
	f.Add("")
	f.Add(pageToken(1))
	f.Add(pageToken(math.MaxUint64))
	f.Add("AAAAAAAAAA\n")
	f.Fuzz(func(t *testing.T, token string) {
		seq, err := parsePageToken(token)
		if err == nil && token != "" && pageToken(seq) != token {
			t.Errorf("%q has a second spelling", token)
		}
		if err != nil && statusOf(err).Code() != codes.InvalidArgument {
			t.Error(err)
		}
	})
}

// TestWatch watches while statements come, breaks off in between, and sees each
// place of the log once and in order.
func TestWatch(t *testing.T) {
	n := start(t)
	c := n.newList("gore")
	n.newList("other")
	admin := pb.NewListServiceClient(n.dial(n.grpc, n.token("a", ScopeAdmin)))
	const statements = 60
	var writers sync.WaitGroup
	for range 3 {
		writers.Go(func() {
			for i := range statements / 3 {
				list := []string{"gore", "other"}[i%2]
				if _, err := c.Submit(t.Context(), &pb.SubmitRequest{List: list, Hashes: texts(randomHashes(1))}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	defer writers.Wait()
	var cursor uint64
	for cursor < statements+2 {
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := admin.Watch(ctx, &pb.WatchRequest{After: cursor})
		if err != nil {
			t.Fatal(err)
		}
		for range 25 {
			v, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if v.GetSeq() != cursor+1 || len(v.GetSigned()) == 0 || v.GetReceived() == nil || v.GetStatementId() == "" {
				t.Fatalf("behind %d came %d", cursor, v.GetSeq())
			}
			if want := map[bool]string{true: "list", false: "add"}[v.GetSeq() <= 2]; v.GetKind() != want {
				t.Errorf("place %d is %s, want %s", v.GetSeq(), v.GetKind(), want)
			}
			if cursor = v.GetSeq(); cursor == statements+2 {
				break
			}
		}
		cancel()
	}
	stream, err := admin.Watch(t.Context(), &pb.WatchRequest{List: "other"})
	if err != nil {
		t.Fatal(err)
	}
	var last uint64
	for range statements/2 + 1 {
		v, err := stream.Recv()
		if err != nil || v.GetSeq() <= last {
			t.Fatalf("behind %d: %v, %v", last, v, err)
		}
		last = v.GetSeq()
	}
	// The other list grows: nothing of it comes, and then what is new on this one.
	n.add("gore", randomHashes(1)...)
	n.add("other", randomHashes(1)...)
	if v, err := stream.Recv(); err != nil || v.GetSeq() != n.lists.Seq() {
		t.Errorf("the next: %v, %v", v, err)
	}
	n.stop()
	_, err = stream.Recv()
	wantCode(t, "watch when the node stops", err, codes.Unavailable)
}

func TestStatus(t *testing.T) {
	n := start(t, func(c *Config) { c.Loaded = 1500 * time.Millisecond })
	n.ban("gore", randomHashes(3)...)
	v, err := pb.NewAdminServiceClient(n.owner()).GetStatus(t.Context(), &pb.GetStatusRequest{})
	if err != nil || v.GetVersion() != "test" || v.GetOrigin() != testOrigin || v.GetIssuer() != n.issuer.Actor() || v.GetIndexSeq() != 2 ||
		v.GetHashes()["pdq"] != 3 || v.GetStatements() != 2 || v.GetLoadMilliseconds() != 1500 || v.GetStarted() == nil {
		t.Errorf("status: %v, %v", v, err)
	}
}

// TestStoreTrouble shows that what the store says goes to the log and not to
// the caller, and that nothing stays claimed.
func TestStoreTrouble(t *testing.T) {
	n := start(t)
	c := n.newList("gore")
	n.log.mu.Lock()
	n.log.fail = errTest
	n.log.mu.Unlock()
	h := texts(randomHashes(1))
	_, err := c.Submit(t.Context(), &pb.SubmitRequest{List: "gore", Hashes: h})
	wantCode(t, "submit", err, codes.Internal)
	if strings.Contains(err.Error(), "disk") {
		t.Errorf("the caller is told: %v", err)
	}
	if !strings.Contains(n.logged.String(), errTest.Error()) {
		t.Error("the log does not say what went wrong")
	}
	n.log.mu.Lock()
	n.log.fail = nil
	n.log.mu.Unlock()
	_, err = c.Submit(t.Context(), &pb.SubmitRequest{List: "gore", Hashes: h})
	wantCode(t, "submit again", err, codes.OK)
}
