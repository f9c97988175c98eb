package server

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/platform"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// A question is answered as an upload would be, and leaves nothing behind: the same asked again as uploads finds
// the window, the queue, the digest, the acts, the audit log and the breaker as if nobody had asked. So does a message that is refused.
func TestQuestionsAreNotKept(t *testing.T) {
	db := testDB(t)
	desk, err := platform.NewDesk(t.Context(), platform.Config{
		Platforms: []platform.Platform{{
			Name: "ours", Kind: "pictrs", URL: "http://127.0.0.1:1", Token: "secret", DryRun: true, PerHour: 9, PerDay: 9,
			On: map[hashlist.Verdict][]platform.Kind{hashlist.VerdictHold: {platform.DeleteMedia}, hashlist.VerdictReject: {platform.DeleteMedia}},
		}},
		Acts: db, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	n := start(t, func(c *Config) {
		policy := hashlist.DefaultPolicy()
		policy.Own = testOrigin // the others' refusals count for the breaker
		if c.Lists, err = hashlist.Open(t.Context(), &memoryLog{places: map[string]uint64{}}, policy); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Lists.Close)
		w, err := hashlist.OpenWindow(t.Context(), c.Lists, hashlist.WindowConfig{
			Store: db, Key: bytes.Repeat([]byte{7}, hashlist.WindowKeySize), Keep: time.Hour, Entries: 100, Durable: true, Log: c.Log,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(w.Close)
		w.Start()
		c.Window, c.Reviews, c.Audit, c.Marks, c.Acts = w, db, db, db, desk
		c.Breaker = hashlist.BreakerConfig{PerIssuer: 3, Total: 3, Stay: time.Hour}
	})
	n.lists = n.cfg.Lists
	lookups := pb.NewLookupServiceClient(n.owner())

	passing, held, refused := encodeJPEG(t, photo(1, 320, 240), 90), encodeJPEG(t, photo(2, 320, 240), 90), encodeJPEG(t, photo(3, 320, 240), 90)
	n.ban("held", n.media(held).Frames[0].PHash) // which comes to hold at most
	hashes := append(randomHashes(3), n.media(refused).SHA256)
	n.lists.Heed("https://other.example/lists/refused", hashlist.VerdictReject, hashlist.MostBelief)
	n.theirs(hashes...)

	// ask asks by all three calls, of a file that passes, one that is held and one that is refused, and of three hashes that are.
	ask := func(asking bool) (answers []*pb.LookupResponse) {
		t.Helper()
		named := func(alias string) *pb.Reference { return &pb.Reference{Alias: alias + ".webp"} }
		for i, file := range [][]byte{passing, held, refused} {
			v, err := sendMedia(t.Context(), lookups, file, &pb.LookupMediaOptions{Reference: named([]string{"a", "b", "c"}[i]), Asking: asking}, 64<<10)
			if err != nil {
				t.Fatal(err)
			}
			answers = append(answers, v.GetLookup())
		}
		request := func(h hashlist.Hash, alias string) *pb.LookupRequest {
			return &pb.LookupRequest{Hashes: []string{h.String()}, Reference: named(alias), Asking: asking}
		}
		v, err := lookups.Lookup(t.Context(), request(hashes[0], "d"))
		if err != nil {
			t.Fatal(err)
		}
		stream, err := lookups.LookupStream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&pb.LookupStreamRequest{Lookups: []*pb.LookupRequest{request(hashes[1], "e"), request(hashes[2], "f")}}); err != nil {
			t.Fatal(err)
		}
		more, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		stream.CloseSend()
		return append(append(answers, v), more.GetLookups()...)
	}
	digested := func() string {
		t.Helper()
		v, _, err := (&digestService{s: n.Server}).collect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		v.Since, v.Until = time.Time{}, time.Time{}
		return v.Text()
	}

	before := digested()
	questions := ask(true)
	for range 2 { // so that what is counted by the minute would be, too
		ask(true)
	}
	// Nor does an upload leave anything whose message is refused for what comes after it.
	stream, err := lookups.LookupStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&pb.LookupStreamRequest{Lookups: []*pb.LookupRequest{
		{Hashes: texts(hashes[:1]), Reference: &pb.Reference{Alias: "g.webp"}}, {Hashes: []string{"x"}},
	}}); err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	wantCode(t, "a bad lookup after a good one", err, codes.InvalidArgument)
	for i, v := range questions {
		want := pb.Verdict_VERDICT_REJECT
		if i < 2 {
			want = []pb.Verdict{pb.Verdict_VERDICT_ALLOW, pb.Verdict_VERDICT_HOLD}[i]
		}
		if v.GetVerdict() != want || v.GetVerdictId() != "" || v.GetSeenId() != 0 {
			t.Errorf("question %d: %v", i, v)
		}
	}
	n.audit.flush(t.Context())
	if head, err := db.VerifyAudit(t.Context(), hashlist.AuditHead{}); err != nil || head.Seq != 0 {
		t.Errorf("%d entries in the audit log, %v", head.Seq, err)
	}
	if st := n.cfg.Window.Stats(); st.Entries != 0 || st.Uploads != 0 || st.Waiting != 0 {
		t.Errorf("in the window: %+v", st)
	}
	if all := desk.List("", 0); len(all) != 0 {
		t.Errorf("acts: %+v", all)
	}
	if open := n.breaker.Open(); len(open) != 0 {
		t.Errorf("breakers: %+v", open)
	}
	if after := digested(); after != before {
		t.Errorf("the digest was\n%s\nand is\n%s", before, after)
	}

	// Uploads. What the questions had put into a queue would come out of it before what these do.
	for i, v := range ask(false) {
		if (v.GetVerdictId() == "") != (i == 0) || (v.GetSeenId() == 0) != (i > 1) {
			t.Errorf("upload %d: verdict %q, seen %d", i, v.GetVerdictId(), v.GetSeenId())
		}
		v.VerdictId, v.SeenId = "", 0
		if !proto.Equal(v, questions[i]) {
			t.Errorf("upload %d was answered %v, the question %v", i, v, questions[i])
		}
	}
	poll(t, "the held upload waits", func() bool { return len(n.waitingFor(hashlist.ReviewHeld)) > 0 })
	if waiting := n.waitingFor(hashlist.ReviewHeld); len(waiting) != 1 || waiting[0].Count != 1 {
		t.Errorf("waiting: %+v", waiting)
	}
	if all := desk.List("", 0); len(all) != 5 { // one for each that was held or refused
		t.Errorf("%d acts: %+v", len(all), all)
	}
	if st := n.cfg.Window.Stats(); st.Entries != 2 || st.Uploads != 2 {
		t.Errorf("in the window: %+v", st)
	}
	if open := n.breaker.Open(); len(open) == 0 {
		t.Error("the fourth refusal opens no breaker")
	}
	if digested() == before {
		t.Error("the digest counts no uploads")
	}
}

// A question leaves one trace: the log names the token with which somebody asks about what is listed, not the hash, and
// not for every question. What meets nothing, and what the owner asks, is not logged.
func TestQuestionsOfTokensAreLogged(t *testing.T) {
	n := start(t)
	hashes := randomHashes(2)
	n.ban("gore", hashes[0])
	const line = "a question met what is listed"
	logged := func() int { return strings.Count(n.logged.String(), line) }
	ask := func(c pb.LookupServiceClient, h hashlist.Hash) {
		t.Helper()
		if _, err := c.Lookup(t.Context(), &pb.LookupRequest{Hashes: []string{h.String()}, Asking: true}); err != nil {
			t.Fatal(err)
		}
	}
	byToken := pb.NewLookupServiceClient(n.dial(n.grpc, n.token("probe", ScopeLookup)))
	ask(byToken, hashes[1])
	ask(pb.NewLookupServiceClient(n.owner()), hashes[0])
	if got := logged(); got != 0 {
		t.Errorf("%d lines before a token met anything", got)
	}
	start := time.Now()
	for range 200 {
		ask(byToken, hashes[0])
	}
	if got, most := logged(), 1+int(time.Since(start)/askEvery); got < 1 || got > most {
		t.Errorf("%d lines, want 1 to %d", got, most)
	}
	file := encodeJPEG(t, photo(4, 320, 240), 90)
	n.ban("gore", n.media(file).SHA256)
	filed := pb.NewLookupServiceClient(n.dial(n.grpc, n.token("filer", ScopeLookup)))
	before := logged()
	if _, err := sendMedia(t.Context(), filed, file, &pb.LookupMediaOptions{Asking: true}, 64<<10); err != nil {
		t.Fatal(err)
	}
	if got := logged(); got != before+1 {
		t.Errorf("a question about a file: %d lines more, want 1", got-before)
	}
	out := n.logged.String()
	if !strings.Contains(out, `"caller":"probe"`) || !strings.Contains(out, `"caller":"filer"`) {
		t.Error("the log does not name the tokens")
	}
	for l := range strings.Lines(out) {
		if strings.Contains(l, line) && strings.Contains(l, hashes[0].String()) {
			t.Errorf("the log holds a hash: %s", l)
		}
	}
}
