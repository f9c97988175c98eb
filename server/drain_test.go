package server

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// TestDrain stops a node while calls run: those that can end do, those that
// would not are told, and new ones are not taken.
func TestDrain(t *testing.T) {
	n := start(t)
	n.newList("gore")
	secret := n.token("t", ScopeAdmin)
	conn := n.dial(n.grpc, secret)
	file := encodeJPEG(t, photo(1, 320, 240), 90)

	watch, err := pb.NewListServiceClient(conn).Watch(t.Context(), &pb.WatchRequest{After: n.lists.Seq()})
	if err != nil {
		t.Fatal(err)
	}
	health, err := healthpb.NewHealthClient(conn).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if v, err := health.Recv(); err != nil || v.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Fatalf("health: %v, %v", v, err)
	}
	lookups, err := pb.NewLookupServiceClient(conn).LookupStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	lookups.Send(&pb.LookupStreamRequest{Tag: 1})
	if _, err := lookups.Recv(); err != nil {
		t.Fatal(err)
	}
	importing, err := pb.NewListServiceClient(conn).Import(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	importing.Send(&pb.ImportRequest{Options: &pb.ImportOptions{List: "gore", Format: "plain"}})
	importing.Send(&pb.ImportRequest{Chunk: plain(randomHashes(10))})
	media, err := pb.NewLookupServiceClient(conn).LookupMedia(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	media.Send(&pb.LookupMediaRequest{Chunk: file[:100]})
	gate, begun := make(chan struct{}), make(chan struct{}, 1)
	type answer struct {
		code int
		err  error
	}
	upload := make(chan answer, 1)
	go func() {
		code, _, err := n.tryPost(secret, &gated{parts: [][]byte{file[:100], file[100:]}, gate: gate, begun: begun})
		upload <- answer{code, err}
	}()
	<-begun
	poll(t, "both uploads are held", func() bool { return n.metric("tocsin_uploads_held 2") })

	n.stop()
	<-n.Server.stopping
	for err = nil; err == nil; { // it may yet see what the import lists
		_, err = watch.Recv()
	}
	wantCode(t, "watch", err, codes.Unavailable)
	_, err = lookups.Recv()
	wantCode(t, "lookup stream", err, codes.Unavailable)
	var got uint64
	for err = nil; err == nil; {
		var m *pb.ImportResponse
		if m, err = importing.Recv(); err == nil {
			got = m.GetListed()
		}
	}
	wantCode(t, "import", err, codes.Unavailable)
	if l, _ := n.lists.List(testOrigin + "/lists/gore"); l.Hashes != 10 || got != 10 {
		t.Errorf("the import was told of %d hashes and listed %d, want 10", got, l.Hashes)
	}
	for err = nil; err == nil; {
		_, err = health.Recv()
	}
	_, err = pb.NewListServiceClient(n.dial(n.grpc, secret)).ListLists(t.Context(), &pb.ListListsRequest{})
	wantCode(t, "a new call", err, codes.Unavailable)

	for rest := file[100:]; ; rest = nil {
		if media.Send(&pb.LookupMediaRequest{Chunk: rest}) != nil || rest == nil {
			break
		}
	}
	if v, err := media.CloseAndRecv(); err != nil || v.GetLookup().GetVerdict() != pb.Verdict_VERDICT_ALLOW {
		t.Errorf("the file that was being sent: %v, %v", v, err)
	}
	close(gate)
	if a := <-upload; a.err != nil || a.code != 200 {
		t.Errorf("the upload that was running: %+v", a)
	}
	<-n.done
	if n.served != nil {
		t.Errorf("serve: %v", n.served)
	}
	if _, err := http.Get(n.http + "/healthz"); err == nil {
		t.Error("the node still answers")
	}
}

// TestDrainEnds shows that a node stops although a caller does not.
func TestDrainEnds(t *testing.T) {
	n := start(t)
	n.Server.drainTime = 50 * time.Millisecond
	secret := n.token("t", ScopeAdmin)
	media, err := pb.NewLookupServiceClient(n.dial(n.grpc, secret)).LookupMedia(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	media.Send(&pb.LookupMediaRequest{Chunk: []byte("x")})
	gate, begun, ended := make(chan struct{}), make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(ended)
		n.tryPost(secret, &gated{parts: [][]byte{[]byte("x"), []byte("y")}, gate: gate, begun: begun})
	}()
	<-begun
	poll(t, "both uploads are held", func() bool { return n.metric("tocsin_uploads_held 2") })
	n.stop()
	<-n.done
	if n.served == nil || !strings.Contains(n.served.Error(), "cut off") {
		t.Errorf("serve: %v", n.served)
	}
	close(gate)
	<-ended
}

// TestServeFails shows that a listener that breaks ends the server with an error.
func TestServeFails(t *testing.T) {
	n := start(t)
	poll(t, "it is ready", func() bool { return n.Server.ready.Load() })
	n.Server.grpcListener.Close()
	<-n.done
	if n.served == nil || !strings.Contains(n.served.Error(), "grpc") {
		t.Errorf("serve: %v", n.served)
	}
}

// TestReadiness asks before the node serves, while it does, and after.
func TestReadiness(t *testing.T) {
	n := start(t)
	get := func() int {
		v, err := http.Get(n.http + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		defer v.Body.Close()
		io.Copy(io.Discard, v.Body)
		return v.StatusCode
	}
	poll(t, "it is ready", func() bool { return n.Server.ready.Load() })
	if got := get(); got != 200 {
		t.Errorf("ready: %d", got)
	}
	n.Server.ready.Store(false)
	if got := get(); got != 503 {
		t.Errorf("not ready: %d", got)
	}
}

// TestDefaultDeadline shows that a call without a deadline gets one.
func TestDefaultDeadline(t *testing.T) {
	n := start(t, func(c *Config) { c.Limit.Deadline = 30 * time.Millisecond })
	c := pb.NewListServiceClient(n.owner())
	gate := make(chan struct{})
	n.log.mu.Lock()
	n.log.gate = gate
	n.log.mu.Unlock()
	_, err := c.CreateList(t.Context(), &pb.CreateListRequest{List: &pb.List{Name: "gore"}})
	wantCode(t, "a call that takes too long", err, codes.DeadlineExceeded)
	close(gate)
}

// TestPanic shows that a panic ends one call and not the node, wherever it is.
func TestPanic(t *testing.T) {
	n := start(t)
	lists := n.Server.cfg.Lists
	c := pb.NewLookupServiceClient(n.owner())
	r := &pb.LookupRequest{Hashes: texts(randomHashes(1))}
	n.secrets = append(n.secrets, r.Hashes[0][4:])
	n.Server.cfg.Lists = nil
	_, err := c.Lookup(t.Context(), r)
	wantCode(t, "in a call", err, codes.Internal)
	stream, err := c.LookupStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stream.Send(&pb.LookupStreamRequest{Lookups: []*pb.LookupRequest{r}})
	_, err = stream.Recv()
	wantCode(t, "in a goroutine of a call", err, codes.Internal)
	n.Server.cfg.Lists = lists
	_, err = c.Lookup(t.Context(), r)
	wantCode(t, "after that", err, codes.OK)
	if !n.metric("tocsin_panics_total 2") || !strings.Contains(n.logged.String(), "lookup.go") {
		t.Error("the panics were not counted, or their stacks are not in the log")
	}
}

// TestMessageSize sends more than a message may hold, to a method of one and
// of many messages.
func TestMessageSize(t *testing.T) {
	n := start(t)
	big := make([]byte, 5<<20)
	_, err := pb.NewListServiceClient(n.owner()).Submit(t.Context(), &pb.SubmitRequest{Reason: string(big)})
	wantCode(t, "unary", err, codes.ResourceExhausted)
	stream, err := pb.NewListServiceClient(n.owner()).Import(t.Context(), grpc.MaxCallSendMsgSize(16<<20))
	if err != nil {
		t.Fatal(err)
	}
	stream.Send(&pb.ImportRequest{Chunk: big})
	for err == nil {
		_, err = stream.Recv()
	}
	wantCode(t, "stream", err, codes.ResourceExhausted)
}

// TestCallersWhoLeave shows that what a caller leaves behind ends.
func TestCallersWhoLeave(t *testing.T) {
	n := start(t)
	n.newList("gore")
	for range 10 {
		ctx, cancel := context.WithCancel(t.Context())
		conn := n.dial(n.grpc, n.token(strings.ToLower(reference()), ScopeAdmin))
		w, err := pb.NewListServiceClient(conn).Watch(ctx, &pb.WatchRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Recv(); err != nil {
			t.Fatal(err)
		}
		s, err := pb.NewLookupServiceClient(conn).LookupStream(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for range 50 {
			s.Send(&pb.LookupStreamRequest{Lookups: []*pb.LookupRequest{{Hashes: texts(randomHashes(1))}}})
		}
		cancel()
	}
	// What is left running is found when the tests end, by goleak.
}
