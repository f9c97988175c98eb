// Package server is the operator's side of a node: gRPC, the upload hooks of
// platforms, and metrics. What it hears comes from the operator's own machines,
// with a token or through the unix socket, but the files they pass on come from
// anybody. It also keeps the public listener, whose requests it hands on unread to
// what the federation answers.
//
// Every call is authenticated before a byte of it is read, limited by its
// token, and refused in one way: an error becomes a status in statusOf and
// nowhere else. No file that passes through is written down, and no hash and no
// token enters a log line.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/hashlist/imagehash"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
	"github.com/tocsin-fed/tocsin/revisit"
)

const (
	drainFor       = 10 * time.Second // for calls that run when the node is told to stop
	maxConnections = 1024             // on each TCP listener
	maxStreams     = 128              // calls at once on one connection
	maxHeaders     = 16 << 10         // bytes of one call's metadata or HTTP header
	handshakeTime  = 10 * time.Second // for TLS and HTTP/2 to be agreed
	headerTime     = 5 * time.Second  // for an HTTP request's header
	idleTime       = 10 * time.Second // for which an HTTP connection may wait for its next request: connections are few
)

// Server serves one node. Its zero value is of no use: call New.
type Server struct {
	cfg      Config
	log      *slog.Logger
	started  time.Time
	keys     *keyring
	strikes  *strikes
	metrics  *metrics
	fetches  *semaphore.Weighted                    // one for each file that is being fetched for a hook: half as many
	uploads  *semaphore.Weighted                    // one for each file held in memory
	cache    *lru.Cache[[32]byte, *imagehash.Media] // by SHA-256 of the bytes; nil for none
	claims   claims
	doings   doings                               // of Mastodon's webhooks
	hashed   *lru.Cache[string, *imagehash.Media] // by a signal that HMA's hook gave out lately; nil without it
	breaker  *hashlist.Breaker
	webhooks *prometheus.CounterVec
	audit    *auditor // nil without an audit log

	strangers atomic.Int64 // calls without a token that are under way

	// retracting is held from counting what a retraction will end to its end, so
	// that two of them do not count the same hash.
	retracting sync.Mutex
	backingUp  sync.Mutex // held while a copy of the database is made and sent
	defining   sync.Mutex // held from reading a list's definition to replacing it
	rotating   sync.Mutex // held while the issuer gets another key
	reporting  sync.Mutex // held from reading which reports were sent to noting another
	deciding   sync.Mutex // held while an item of the review queue is decided
	opining    sync.Mutex // held from finding out that something is not said yet to saying it

	heldUploads heldUploads

	revisits *revisit.Visitor // nil for none
	digests  *digestService

	health *health.Server
	remote *grpc.Server // nil without a TCP listener
	local  *grpc.Server // on the unix socket; nil without one
	web    *http.Server // nil without an HTTP listener
	public *http.Server // nil without a public listener

	grpcListener, socketListener, webListener, publicListener net.Listener

	drainTime time.Duration // drainFor but in tests

	ready    atomic.Bool
	stopping chan struct{}      // closed when the drain begins
	hard     context.Context    // ends when the drain has taken too long
	abort    context.CancelFunc //
	running  sync.WaitGroup     // every goroutine and HTTP request of the server

	entering sync.Mutex // guards closed
	closed   bool       // no HTTP request is let in any more
}

// New checks cfg, reads the tokens and opens the listeners, so that their ports
// are known. Nothing is answered before Serve, which also closes them. The node
// counts as ready as soon as Serve runs: the lists must be loaded before.
func New(cfg Config) (_ *Server, err error) {
	if cfg.Lists == nil || cfg.Media == nil || cfg.Issuer == nil || cfg.Tokens == nil {
		return nil, errors.New("a server needs lists, a hasher, an issuer and tokens")
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.withDefaults()
	s := &Server{
		cfg: cfg, log: cfg.Log, drainTime: drainFor, started: time.Now(), strikes: newStrikes(),
		uploads: semaphore.NewWeighted(int64(cfg.Limit.Uploads)), fetches: semaphore.NewWeighted(int64(max(1, cfg.Limit.Uploads/2))), health: health.NewServer(), stopping: make(chan struct{}),
		heldUploads: heldUploads{make(chan hashlist.Review, heldAhead)},
	}
	s.hard, s.abort = context.WithCancel(context.Background())
	if s.keys, err = openKeyring(s.hard, cfg.Tokens, cfg.Limit); err != nil {
		return nil, err
	}
	if cfg.Limit.Cached > 0 {
		if s.cache, err = lru.New[[32]byte, *imagehash.Media](cfg.Limit.Cached); err != nil {
			return nil, fmt.Errorf("cache: %w", err)
		}
	}
	if cfg.Hooks.HMA != nil {
		if s.hashed, err = lru.New[string, *imagehash.Media](hmaMemory); err != nil {
			return nil, fmt.Errorf("memory of HMA's hook: %w", err)
		}
	}
	cfg.Breaker.Opened = s.askBreaker
	s.breaker = hashlist.NewBreaker(cfg.Lists, cfg.Breaker)
	s.metrics, s.webhooks = newMetrics(s), newWebhookCounter()
	s.metrics.registry.MustRegister(s.webhooks, &windowState{s})
	s.digests = &digestService{s: s}
	if err := s.openRevisits(s.hard); err != nil {
		return nil, err
	}
	if cfg.Audit != nil {
		s.audit = &auditor{s: s, at: map[string]*repeats{}}
	}
	defer func() {
		if err != nil {
			s.closeListeners()
		}
	}()
	if cfg.GRPC.Address != "" {
		if err := s.listenGRPC(); err != nil {
			return nil, err
		}
	}
	if cfg.GRPC.Socket != "" {
		if s.socketListener, err = listenSocket(cfg.GRPC.Socket); err != nil {
			return nil, err
		}
		s.local = s.newGRPC(s.admitOwner)
	}
	if cfg.HTTP.Address != "" {
		if err := s.listenHTTP(); err != nil {
			return nil, err
		}
	}
	if cfg.Public.Address != "" && cfg.PublicHandler != nil {
		if err := s.listenPublic(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *Server) listenGRPC() error {
	address, err := s.cfg.GRPC.exposure("grpc")
	if err != nil {
		return err
	}
	var options []grpc.ServerOption
	if s.cfg.GRPC.CertFile != "" {
		certs, err := loadCertificates(s.cfg.GRPC, s.log, tls.VersionTLS13, "h2")
		if err != nil {
			return fmt.Errorf("grpc: %w", err)
		}
		options = append(options, grpc.Creds(credentials.NewTLS(certs.config())))
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("grpc: %w", err)
	}
	s.grpcListener = netutil.LimitListener(l, maxConnections)
	s.remote = s.newGRPC(s.admit, options...)
	return nil
}

func (s *Server) listenHTTP() error {
	address, err := s.cfg.HTTP.exposure("http")
	if err != nil {
		return err
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true) // hooks need no more, and it has one request a connection at a time
	s.web = &http.Server{
		Handler: s.routes(), Protocols: protocols,
		ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeaders,
		// For what a handler leaves unread, and for answers nobody takes. Handlers themselves take less.
		ReadTimeout: s.cfg.Limit.Deadline + headerTime, WriteTimeout: s.cfg.Limit.Deadline + 2*headerTime,
		ErrorLog:    slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return s.hard },
	}
	var certs *certificates
	if s.cfg.HTTP.CertFile != "" {
		if certs, err = loadCertificates(s.cfg.HTTP, s.log, tls.VersionTLS13, "http/1.1"); err != nil {
			return fmt.Errorf("http: %w", err)
		}
	} else if s.cfg.HTTP.Plaintext {
		s.log.Warn("HTTP has no TLS: whoever can listen on the way to it sees the files and the hooks' tokens",
			slog.String("address", address))
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("http: %w", err)
	}
	l = netutil.LimitListener(l, maxConnections)
	if certs != nil {
		l = tls.NewListener(l, certs.config())
	}
	s.webListener = l
	return nil
}

// newGRPC makes a gRPC server. The unix socket has one of its own: what marks
// its callers as the owner is the server they reached, which no caller on the
// network can pretend.
func (s *Server) newGRPC(admit admission, options ...grpc.ServerOption) *grpc.Server {
	caught := recovery.WithRecoveryHandlerContext(func(_ context.Context, p any) error { return s.panicked(p) })
	g := grpc.NewServer(append(options,
		grpc.InTapHandle(s.tap(admit)),
		// Recovery is innermost, so that a panic is counted and logged as what it becomes.
		grpc.ChainUnaryInterceptor(s.unary, recovery.UnaryServerInterceptor(caught)),
		grpc.ChainStreamInterceptor(s.stream, recovery.StreamServerInterceptor(caught)),
		grpc.MaxRecvMsgSize(s.cfg.Limit.MessageBytes),
		grpc.MaxHeaderListSize(maxHeaders),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(handshakeTime),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: time.Minute, Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.WaitForHandlers(true),
		// A goroutine made for one call has to grow its stack first, which took a tenth of all
		// the processor's time. Calls that find no worker idle,
		// because streams hold them, get a goroutine as before.
		grpc.NumStreamWorkers(uint32(8*runtime.GOMAXPROCS(0))),
	)...)
	pb.RegisterLookupServiceServer(g, &lookupService{s: s})
	pb.RegisterListServiceServer(g, &listService{s: s})
	pb.RegisterAdminServiceServer(g, &adminService{s: s})
	pb.RegisterFederationServiceServer(g, &federationService{s: s})
	pb.RegisterTrustServiceServer(g, &trustService{s: s})
	pb.RegisterSourceServiceServer(g, &sourceService{s: s})
	pb.RegisterActServiceServer(g, &actService{s: s})
	pb.RegisterReportServiceServer(g, &reportService{s: s})
	pb.RegisterRevisitServiceServer(g, &revisitService{s: s})
	pb.RegisterDigestServiceServer(g, s.digests)
	pb.RegisterReviewServiceServer(g, &reviewService{s: s})
	pb.RegisterStatementServiceServer(g, &statementService{s: s})
	pb.RegisterWindowServiceServer(g, &windowService{s: s})
	pb.RegisterExplainServiceServer(g, &explainService{s: s})
	pb.RegisterAuditServiceServer(g, &auditService{s: s})
	pb.RegisterRulesServiceServer(g, &rulesService{s: s})
	healthpb.RegisterHealthServer(g, s.health)
	if s.cfg.GRPC.Reflection {
		reflection.Register(g)
	}
	s.setHealth(healthpb.HealthCheckResponse_NOT_SERVING)
	return g
}

// setHealth sets the health of the node as a whole and of each service.
func (s *Server) setHealth(v healthpb.HealthCheckResponse_ServingStatus) {
	for _, name := range [...]string{"", pb.LookupService_ServiceDesc.ServiceName, pb.ListService_ServiceDesc.ServiceName,
		pb.AdminService_ServiceDesc.ServiceName, pb.FederationService_ServiceDesc.ServiceName, pb.SourceService_ServiceDesc.ServiceName, pb.ActService_ServiceDesc.ServiceName, pb.ReportService_ServiceDesc.ServiceName, pb.RevisitService_ServiceDesc.ServiceName, pb.DigestService_ServiceDesc.ServiceName, pb.ReviewService_ServiceDesc.ServiceName, pb.StatementService_ServiceDesc.ServiceName, pb.WindowService_ServiceDesc.ServiceName} {
		s.health.SetServingStatus(name, v)
	}
}

// PublicAddr returns the address that federation is bound to, "" if it is off.
func (s *Server) PublicAddr() string {
	if s.publicListener == nil {
		return ""
	}
	return s.publicListener.Addr().String()
}

// Addrs returns the addresses that gRPC and HTTP are bound to, "" for one that
// does not listen on TCP.
func (s *Server) Addrs() (grpc, http string) {
	if s.grpcListener != nil {
		grpc = s.grpcListener.Addr().String()
	}
	if s.webListener != nil {
		http = s.webListener.Addr().String()
	}
	return grpc, http
}

// Serve answers until ctx ends. Then it takes no new calls, gives those that
// run ten seconds, and returns when every goroutine has ended. It returns an
// error if a listener fails or if calls had to be cut off. It must be called
// once, also with a context that has ended: it is what closes the listeners.
func (s *Server) Serve(ctx context.Context) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	serve := func(what string, f func() error) {
		s.running.Go(func() {
			if err := f(); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, grpc.ErrServerStopped) {
				fail(fmt.Errorf("%s: %w", what, err))
			}
		})
	}
	if s.remote != nil {
		serve("grpc", func() error { return s.remote.Serve(s.grpcListener) })
	}
	if s.local != nil {
		serve("socket", func() error { return s.local.Serve(s.socketListener) })
	}
	if s.web != nil {
		serve("http", func() error { return s.web.Serve(s.webListener) })
	}
	if s.public != nil {
		serve("federation", func() error { return s.public.Serve(s.publicListener) })
	}
	if s.cfg.Sources != nil {
		// Until the drain begins: what it is in the middle of is begun again, or goes on, at the next start.
		reading, stop := s.untilStopping(s.hard)
		defer stop()
		s.running.Go(func() { s.cfg.Sources.Run(reading) })
	}
	if s.revisits != nil {
		ctx, cancel := s.untilStopping(s.hard)
		defer cancel()
		s.running.Go(func() { s.runRevisits(ctx) })
	}
	if s.cfg.Digest != nil && s.cfg.Marks != nil && s.cfg.Audit != nil {
		ctx, cancel := s.untilStopping(s.hard)
		defer cancel()
		s.running.Go(func() { s.digests.run(ctx) })
	}
	if s.cfg.Acts != nil && s.cfg.Window != nil && s.cfg.Marks != nil {
		ctx, cancel := s.untilStopping(s.hard)
		defer cancel()
		s.running.Go(func() { s.actOnHits(ctx) })
	}
	if s.cfg.Reviews != nil {
		s.running.Go(func() { s.queueHeld(ctx) })
		if s.cfg.Review.Keep > 0 {
			s.running.Go(func() { s.keepReviews(ctx) })
		}
	}
	s.watchWindow()
	if s.audit != nil {
		s.running.Go(func() { s.audit.run(s.hard) })
	}
	s.setHealth(healthpb.HealthCheckResponse_SERVING)
	s.ready.Store(true)
	grpcAddr, httpAddr := s.Addrs()
	s.log.Info("serving", slog.String("grpc", grpcAddr), slog.String("socket", s.cfg.GRPC.Socket), slog.String("http", httpAddr),
		slog.String("federation", s.PublicAddr()))
	<-ctx.Done()
	var failed error
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
		failed = cause
	}
	return errors.Join(failed, s.drain())
}

// drain ends the server: at first gently, then not.
func (s *Server) drain() error {
	s.ready.Store(false)
	s.health.Shutdown()
	close(s.stopping)
	s.log.Info("stopping: waiting for the calls that run", slog.Duration("at_most", s.drainTime))
	ctx, cancel := context.WithTimeout(context.Background(), s.drainTime)
	defer cancel()
	var cut atomic.Bool
	var stops sync.WaitGroup
	for _, g := range []*grpc.Server{s.remote, s.local} {
		if g == nil {
			continue
		}
		stops.Go(func() {
			late := context.AfterFunc(ctx, func() { cut.Store(true); s.abort(); g.Stop() })
			g.GracefulStop()
			late()
		})
	}
	for _, w := range []*http.Server{s.web, s.public} {
		if w == nil {
			continue
		}
		stops.Go(func() {
			if err := w.Shutdown(ctx); err != nil {
				cut.Store(true)
				s.abort()
				w.Close()
			}
		})
	}
	stops.Wait()
	s.abort()
	s.closeListeners()
	s.entering.Lock()
	s.closed = true
	s.entering.Unlock()
	s.running.Wait()
	if cut.Load() {
		return fmt.Errorf("calls that ran for more than %v after the node was told to stop were cut off", s.drainTime)
	}
	return nil
}

// closeListeners closes what no server has taken over, and ends servers that never began.
// Closing again does nothing.
func (s *Server) closeListeners() {
	for _, g := range []*grpc.Server{s.remote, s.local} {
		if g != nil {
			g.Stop()
		}
	}
	for _, l := range []net.Listener{s.grpcListener, s.socketListener, s.webListener, s.publicListener} {
		if l != nil {
			l.Close()
		}
	}
}
