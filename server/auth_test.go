package server

import (
	"context"
	"encoding/base64"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// TestScopes calls every method that the API declares, with every kind of
// caller. A method that is added without a scope fails here.
func TestScopes(t *testing.T) {
	n := start(t)
	n.newList("some")
	callers := []struct {
		name string
		conn *grpc.ClientConn
		has  []Scope
	}{
		{"nobody", n.dial(n.grpc, ""), nil},
		{"unknown token", n.dial(n.grpc, newSecret()), nil},
		{"lookup", n.dial(n.grpc, n.token("looks", ScopeLookup)), []Scope{ScopeLookup}},
		{"submit", n.dial(n.grpc, n.token("submits", ScopeSubmit)), []Scope{ScopeLookup, ScopeSubmit}},
		{"admin", n.dial(n.grpc, n.token("administers", ScopeAdmin)), []Scope{ScopeLookup, ScopeSubmit, ScopeAdmin}},
		{"owner", n.owner(), []Scope{ScopeLookup, ScopeSubmit, ScopeAdmin}},
	}
	n.Server.strikes = newStrikes()
	methods := 0
	for _, service := range ourServices() {
		for j := range service.Methods().Len() {
			m := service.Methods().Get(j)
			methods++
			name := "/" + string(service.FullName()) + "/" + string(m.Name())
			need, ok := needs[name]
			if !ok {
				t.Errorf("%s has no scope", name)
				continue
			}
			for _, c := range callers {
				// Each caller without a token gets a fresh allowance of failures.
				n.Server.strikes.seen.Purge()
				got := callEmpty(t, c.conn, name, m.IsStreamingClient(), m.IsStreamingServer())
				allowed := false
				for _, s := range c.has {
					allowed = allowed || s == need
				}
				switch {
				case c.has == nil && got != codes.Unauthenticated:
					t.Errorf("%s by %s: %v, want Unauthenticated", name, c.name, got)
				case c.has != nil && !allowed && got != codes.PermissionDenied:
					t.Errorf("%s by %s: %v, want PermissionDenied", name, c.name, got)
				case allowed && (got == codes.Unauthenticated || got == codes.PermissionDenied || got == codes.Unimplemented || got == codes.Internal):
					t.Errorf("%s by %s: %v", name, c.name, got)
				}
			}
		}
	}
	if methods != len(needs) {
		t.Errorf("%d methods have a scope, the API has %d", len(needs), methods)
	}
}

// ourServices are the services of the API, of all its files.
func ourServices() (all []protoreflect.ServiceDescriptor) {
	protoregistry.GlobalFiles.RangeFilesByPackage(pb.File_tocsin_v1_tocsin_proto.Package(), func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			all = append(all, f.Services().Get(i))
		}
		return true
	})
	return all
}

func callEmpty(t *testing.T, conn *grpc.ClientConn, method string, clientStreams, serverStreams bool) codes.Code {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: clientStreams, ServerStreams: serverStreams}, method)
	if err != nil {
		return status.Code(err)
	}
	if stream.SendMsg(&emptypb.Empty{}) == nil {
		stream.CloseSend()
	}
	return status.Code(stream.RecvMsg(&emptypb.Empty{}))
}

func TestOpenServices(t *testing.T) {
	n := start(t)
	conn := n.dial(n.grpc, "")
	v, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: "tocsin.v1.LookupService"}, grpc.WaitForReady(true))
	if err != nil || v.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", v, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
	r, err := stream.Recv()
	if err != nil || len(r.GetListServicesResponse().GetService()) < 4 {
		t.Errorf("reflection: %v, %v", r, err)
	}

	off := start(t, func(c *Config) { c.GRPC.Reflection = false })
	stream, err = reflectionpb.NewServerReflectionClient(off.dial(off.grpc, "")).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	wantCode(t, "reflection that is off", err, codes.Unimplemented)
}

func TestBadTokens(t *testing.T) {
	n := start(t)
	good := n.token("good", ScopeLookup)
	ask := func(values ...string) error {
		n.Server.strikes.seen.Purge()
		ctx := t.Context()
		for _, v := range values {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", v)
		}
		_, err := pb.NewListServiceClient(n.dial(n.grpc, "")).ListLists(ctx, &pb.ListListsRequest{})
		return err
	}
	for _, c := range []struct {
		name   string
		values []string
		want   codes.Code
	}{
		{"good", []string{"Bearer " + good}, codes.OK},
		{"any case of the scheme", []string{"bearer " + good}, codes.OK},
		{"none", nil, codes.Unauthenticated},
		{"empty", []string{""}, codes.Unauthenticated},
		{"no scheme", []string{good}, codes.Unauthenticated},
		{"basic", []string{"Basic " + good}, codes.Unauthenticated},
		{"two", []string{"Bearer " + good, "Bearer " + good}, codes.Unauthenticated},
		{"no prefix", []string{"Bearer " + strings.TrimPrefix(good, secretPrefix)}, codes.Unauthenticated},
		{"short", []string{"Bearer " + good[:len(good)-1]}, codes.Unauthenticated},
		{"long", []string{"Bearer " + good + "A"}, codes.Unauthenticated},
		{"other", []string{"Bearer " + newSecret()}, codes.Unauthenticated},
		{"8 KiB", []string{"Bearer " + strings.Repeat("A", 8<<10)}, codes.Unauthenticated},
	} {
		wantCode(t, c.name, ask(c.values...), c.want)
	}
	if err := ask("Bearer " + strings.Repeat("A", 64<<10)); err == nil {
		t.Error("64 KiB of metadata were taken")
	}
}

// TestStrikes shows that bad tokens soon get no explanation and no log line,
// and that a good token works from the same address all the same.
func TestStrikes(t *testing.T) {
	n := start(t)
	good := pb.NewListServiceClient(n.dial(n.grpc, n.token("good", ScopeLookup)))
	bad := pb.NewListServiceClient(n.dial(n.grpc, newSecret()))
	var last error
	for range 4 * strikeBurst {
		_, last = bad.ListLists(t.Context(), &pb.ListListsRequest{})
	}
	wantCode(t, "the 40th bad token", last, codes.ResourceExhausted)
	if got := strings.Count(n.logged.String(), "without a good token"); got > strikeBurst+1 {
		t.Errorf("%d log lines for %d failures", got, 4*strikeBurst)
	}
	_, err := good.ListLists(t.Context(), &pb.ListListsRequest{})
	wantCode(t, "a good token from the same address", err, codes.OK)
}

func TestStrikesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStrikes()
		addr := func(text string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(text), Port: 1} }
		for range strikeBurst {
			if !s.note(addr("192.0.2.1")) {
				t.Fatal("struck out within the burst")
			}
		}
		if s.note(addr("192.0.2.1")) || s.note(addr("::ffff:192.0.2.1")) {
			t.Error("more than the burst were let through")
		}
		if !s.note(addr("192.0.2.2")) {
			t.Error("a neighbour is held to account")
		}
		time.Sleep(strikeEvery)
		if !s.note(addr("192.0.2.1")) {
			t.Error("not forgiven with time")
		}
		for range strikeBurst {
			s.note(addr("2001:db8::1"))
		}
		if s.note(addr("2001:db8::ffff")) {
			t.Error("one network of 64 bits counts as many callers")
		}
		for i := range 2 * strikeMemory {
			s.note(addr(net.IPv4(10, byte(i>>16), byte(i>>8), byte(i)).String()))
		}
		if got := s.seen.Len(); got > strikeMemory {
			t.Errorf("%d addresses are remembered", got)
		}
	})
}

func TestTokensLifecycle(t *testing.T) {
	n := start(t)
	admin := pb.NewAdminServiceClient(n.owner())
	ctx := t.Context()
	create := func(name, scope string, expires *timestamppb.Timestamp) error {
		_, err := admin.CreateToken(ctx, &pb.CreateTokenRequest{Token: &pb.Token{Name: name, Scope: scope, Expires: expires}})
		return err
	}
	secret := n.token("one", ScopeSubmit)
	wantCode(t, "the same name again", create("one", "lookup", nil), codes.AlreadyExists)
	wantCode(t, "bad name", create("One!", "lookup", nil), codes.InvalidArgument)
	wantCode(t, "no name", create("", "lookup", nil), codes.InvalidArgument)
	wantCode(t, "bad scope", create("two", "root", nil), codes.InvalidArgument)
	wantCode(t, "past", create("two", "lookup", timestamppb.New(time.Now().Add(-time.Hour))), codes.InvalidArgument)
	wantCode(t, "not a time", create("two", "lookup", &timestamppb.Timestamp{Nanos: -1}), codes.InvalidArgument)
	wantCode(t, "with an end", create("two", "lookup", timestamppb.New(time.Now().Add(time.Hour))), codes.OK)
	all, err := admin.ListTokens(ctx, &pb.ListTokensRequest{})
	if err != nil || len(all.GetTokens()) != 2 || all.GetTokens()[0].GetName() != "one" || all.GetTokens()[1].GetExpires() == nil {
		t.Errorf("tokens: %v, %v", all, err)
	}
	if strings.Contains(all.String(), secret) {
		t.Error("the secret is shown again")
	}
	conn := n.dial(n.grpc, secret)
	c := pb.NewListServiceClient(conn)
	if _, err := c.ListLists(ctx, &pb.ListListsRequest{}); err != nil {
		t.Fatal(err)
	}
	// A stream that is open when its token is revoked ends too.
	stream, err := pb.NewLookupServiceClient(conn).LookupStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&pb.LookupStreamRequest{Tag: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.RevokeToken(ctx, &pb.RevokeTokenRequest{Name: "one"}); err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	wantCode(t, "stream of a revoked token", err, codes.Unauthenticated)
	_, err = c.ListLists(ctx, &pb.ListListsRequest{})
	wantCode(t, "revoked token", err, codes.Unauthenticated)
	_, err = admin.RevokeToken(ctx, &pb.RevokeTokenRequest{Name: "one"})
	wantCode(t, "revoked again", err, codes.NotFound)
	_, err = admin.RevokeToken(ctx, &pb.RevokeTokenRequest{Name: "../one"})
	wantCode(t, "bad name", err, codes.InvalidArgument)
}

func TestTokenEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, err := openKeyring(t.Context(), &memoryTokens{byName: map[string]Token{}}, Limit{})
		if err != nil {
			t.Fatal(err)
		}
		_, secret, err := k.create(t.Context(), "brief", ScopeLookup, time.Now().Add(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		c, err := k.find(secret)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := c.bound(t.Context())
		defer cancel()
		time.Sleep(59 * time.Second)
		if _, err := k.find(secret); err != nil || ctx.Err() != nil {
			t.Errorf("before its end: %v, %v", err, ctx.Err())
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if _, err := k.find(secret); statusOf(err).Code() != codes.Unauthenticated {
			t.Errorf("after its end: %v", err)
		}
		if statusOf(context.Cause(ctx)).Code() != codes.Unauthenticated {
			t.Errorf("its calls: %v", context.Cause(ctx))
		}
	})
}

// TestTokensAreReadAtStart shows that a token outlives the server that made it.
func TestTokensAreReadAtStart(t *testing.T) {
	tokens := &memoryTokens{byName: map[string]Token{}}
	one := start(t, func(c *Config) { c.Tokens = tokens })
	secret := one.token("keeps", ScopeLookup)
	two := start(t, func(c *Config) { c.Tokens = tokens })
	_, err := pb.NewListServiceClient(two.dial(two.grpc, secret)).ListLists(t.Context(), &pb.ListListsRequest{})
	wantCode(t, "token of before", err, codes.OK)
	cfg, _ := testConfig(t)
	cfg.Tokens = &memoryTokens{byName: map[string]Token{"x": {Name: "x", Scope: "god"}}}
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "scope") {
		t.Errorf("a token of an unknown scope: %v", err)
	}
}

func TestRateLimit(t *testing.T) {
	n := start(t, func(c *Config) { c.Limit.LookupsPerSecond, c.Limit.Burst = 0.001, 300 })
	c := pb.NewLookupServiceClient(n.dial(n.grpc, n.token("limited", ScopeLookup)))
	hashes := texts(randomHashes(200))
	ask := func(n int) error {
		_, err := c.Lookup(t.Context(), &pb.LookupRequest{Hashes: hashes[:n]})
		return err
	}
	wantCode(t, "200 of 300", ask(200), codes.OK)
	err := ask(101)
	wantCode(t, "101 of 100", err, codes.ResourceExhausted)
	var retry *errdetails.RetryInfo
	for _, d := range status.Convert(err).Details() {
		if v, ok := d.(*errdetails.RetryInfo); ok {
			retry = v
		}
	}
	if retry == nil || retry.GetRetryDelay().AsDuration() <= 0 {
		t.Errorf("no delay to retry after: %v", status.Convert(err).Details())
	}
	wantCode(t, "100 of 100: a refused call costs nothing", ask(100), codes.OK)
	wantCode(t, "1 of 0", ask(1), codes.ResourceExhausted)
	stream, err := c.LookupStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stream.Send(&pb.LookupStreamRequest{Lookups: []*pb.LookupRequest{{Hashes: hashes[:1]}}})
	_, err = stream.Recv()
	wantCode(t, "stream beyond the limit", err, codes.ResourceExhausted)
	media, err := c.LookupMedia(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	media.Send(&pb.LookupMediaRequest{Chunk: []byte("x")})
	_, err = media.CloseAndRecv()
	wantCode(t, "file beyond the limit", err, codes.ResourceExhausted)

	other := pb.NewLookupServiceClient(n.dial(n.grpc, n.token("other", ScopeLookup)))
	_, err = other.Lookup(t.Context(), &pb.LookupRequest{Hashes: hashes[:1]})
	wantCode(t, "another token", err, codes.OK)
	owner := pb.NewLookupServiceClient(n.owner())
	for range 5 {
		_, err = owner.Lookup(t.Context(), &pb.LookupRequest{Hashes: hashes})
		wantCode(t, "the owner", err, codes.OK)
	}
	// More than the burst can never succeed, so nothing says when to try again.
	f, _ := (&caller{name: "x", key: &key{rate: rate.NewLimiter(1, 5)}}).spend(6).(*fault)
	if f == nil || f.retry != 0 {
		t.Errorf("more than the burst: %+v", f)
	}
}

func FuzzSecret(f *testing.F) {
	f.Add(newSecret())
	f.Add("tocsin_")
	f.Add("tocsin_" + strings.Repeat("A", 42) + "\n")
	f.Add("tocsin_" + strings.Repeat("A", 42) + "B")
	f.Fuzz(func(t *testing.T, text string) {
		if _, ok := secretSum(text); !ok {
			return
		}
		b, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimPrefix(text, secretPrefix))
		if err != nil || secretPrefix+base64.RawURLEncoding.EncodeToString(b) != text {
			t.Errorf("%q has a second spelling", text)
		}
	})
}

// TestStrangersAreFew: calls without a token are bounded together, whatever
// they leave unfinished, and do not stand in the way of callers with one.
func TestStrangersAreFew(t *testing.T) {
	n := start(t)
	n.newList("some")
	known := pb.NewListServiceClient(n.dial(n.grpc, n.token("known", ScopeLookup)))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	// Several connections: one may have as many calls as this by itself.
	for range strangerCalls {
		stream, err := n.dial(n.grpc, "").NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, healthpb.Health_Watch_FullMethodName)
		if err != nil {
			t.Fatal(err) // its message is never sent
		}
		_ = stream
	}
	poll(t, "the calls to have come", func() bool { return n.Server.strangers.Load() == strangerCalls })
	health := healthpb.NewHealthClient(n.dial(n.grpc, ""))
	_, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{})
	wantCode(t, "one more without a token", err, codes.ResourceExhausted)
	if _, err := known.ListLists(t.Context(), &pb.ListListsRequest{}); err != nil {
		t.Errorf("with a token: %v", err)
	}
	cancel()
	poll(t, "the calls to end", func() bool { return n.Server.strangers.Load() == 0 })
	if _, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
		t.Errorf("when the others have gone: %v", err)
	}
}

// TestUnfinishedCall: a call that needs no token cannot keep what it has sent so
// far in memory for longer than strangerTime, whatever deadline it asks for.
func TestUnfinishedCall(t *testing.T) {
	s := &Server{}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got, err := s.admitStranger(ctx, healthpb.Health_Check_FullMethodName)
	if err != nil {
		t.Fatal(err)
	}
	if end, ok := got.Deadline(); !ok || time.Until(end) > strangerTime {
		t.Errorf("it may go on until %v", end)
	}
}
