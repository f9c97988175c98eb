package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// needs names the scope that each method of this API takes. A method that is
// neither here nor open is refused.
var needs = map[string]Scope{
	pb.LookupService_Lookup_FullMethodName:       ScopeLookup,
	pb.LookupService_LookupMedia_FullMethodName:  ScopeLookup,
	pb.LookupService_LookupStream_FullMethodName: ScopeLookup,

	pb.ListService_GetList_FullMethodName:     ScopeLookup,
	pb.ListService_ListLists_FullMethodName:   ScopeLookup,
	pb.ListService_Submit_FullMethodName:      ScopeSubmit,
	pb.ListService_Retract_FullMethodName:     ScopeSubmit,
	pb.ListService_CreateList_FullMethodName:  ScopeAdmin,
	pb.ListService_RemoveList_FullMethodName:  ScopeAdmin,
	pb.ListService_ListEntries_FullMethodName: ScopeAdmin,
	pb.ListService_Import_FullMethodName:      ScopeAdmin,
	pb.ListService_Export_FullMethodName:      ScopeAdmin,
	pb.ListService_Watch_FullMethodName:       ScopeAdmin,
	pb.ListService_Publish_FullMethodName:     ScopeAdmin,

	pb.FederationService_Follow_FullMethodName:         ScopeAdmin,
	pb.FederationService_Unfollow_FullMethodName:       ScopeAdmin,
	pb.FederationService_FollowAnew_FullMethodName:     ScopeAdmin,
	pb.FederationService_ListFollows_FullMethodName:    ScopeAdmin,
	pb.FederationService_ListFollowers_FullMethodName:  ScopeAdmin,
	pb.FederationService_DecideFollower_FullMethodName: ScopeAdmin,
	pb.FederationService_ListPeers_FullMethodName:      ScopeAdmin,
	pb.FederationService_GetOutbox_FullMethodName:      ScopeAdmin,
	pb.FederationService_Verify_FullMethodName:         ScopeAdmin,
	pb.FederationService_Inspect_FullMethodName:        ScopeAdmin,
	pb.FederationService_ListKeys_FullMethodName:       ScopeAdmin,
	pb.FederationService_RotateKey_FullMethodName:      ScopeAdmin,

	pb.TrustService_Vouch_FullMethodName:         ScopeAdmin,
	pb.TrustService_Unvouch_FullMethodName:       ScopeAdmin,
	pb.TrustService_ListVouchings_FullMethodName: ScopeAdmin,
	pb.TrustService_GetIssuer_FullMethodName:     ScopeAdmin,
	pb.TrustService_VerifyKey_FullMethodName:     ScopeAdmin,

	pb.SourceService_Subscribe_FullMethodName:     ScopeAdmin,
	pb.SourceService_ListSources_FullMethodName:   ScopeAdmin,
	pb.SourceService_GetSource_FullMethodName:     ScopeAdmin,
	pb.SourceService_RunSource_FullMethodName:     ScopeAdmin,
	pb.SourceService_ApproveSource_FullMethodName: ScopeAdmin,
	pb.SourceService_PauseSource_FullMethodName:   ScopeAdmin,
	pb.SourceService_ResumeSource_FullMethodName:  ScopeAdmin,
	pb.SourceService_RemoveSource_FullMethodName:  ScopeAdmin,
	pb.SourceService_BelieveSource_FullMethodName: ScopeAdmin,
	pb.ActService_ListActs_FullMethodName:         ScopeAdmin,
	pb.ActService_GetAct_FullMethodName:           ScopeAdmin,
	pb.ActService_DecideAct_FullMethodName:        ScopeAdmin,

	pb.ReportService_DraftReport_FullMethodName:      ScopeAdmin,
	pb.ReportService_RecordReport_FullMethodName:     ScopeAdmin,
	pb.ReportService_ListReports_FullMethodName:      ScopeAdmin,
	pb.WindowService_WatchHits_FullMethodName:        ScopeAdmin,
	pb.WindowService_ListHits_FullMethodName:         ScopeAdmin,
	pb.WindowService_GetWindow_FullMethodName:        ScopeAdmin,
	pb.WindowService_Forget_FullMethodName:           ScopeSubmit,
	pb.WindowService_Preview_FullMethodName:          ScopeAdmin,
	pb.WindowService_ListQuarantine_FullMethodName:   ScopeAdmin,
	pb.WindowService_DecideQuarantine_FullMethodName: ScopeAdmin,
	pb.WindowService_CloseBreaker_FullMethodName:     ScopeAdmin,
	pb.ExplainService_Explain_FullMethodName:         ScopeAdmin,
	pb.AuditService_ListAudit_FullMethodName:         ScopeAdmin,
	pb.AuditService_GetAudit_FullMethodName:          ScopeAdmin,
	pb.AuditService_VerifyAudit_FullMethodName:       ScopeAdmin,
	pb.RulesService_ListRules_FullMethodName:         ScopeAdmin,
	pb.RulesService_DryRun_FullMethodName:            ScopeAdmin,
	pb.RulesService_ReloadRules_FullMethodName:       ScopeAdmin,

	pb.RevisitService_AddRevisit_FullMethodName:    ScopeSubmit,
	pb.RevisitService_ListRevisits_FullMethodName:  ScopeAdmin,
	pb.RevisitService_RemoveRevisit_FullMethodName: ScopeAdmin,

	pb.DigestService_GetDigest_FullMethodName:  ScopeAdmin,
	pb.DigestService_SendDigest_FullMethodName: ScopeAdmin,

	pb.ReviewService_ListReviews_FullMethodName:  ScopeSubmit,
	pb.ReviewService_GetReview_FullMethodName:    ScopeSubmit,
	pb.ReviewService_DecideReview_FullMethodName: ScopeSubmit, // some kinds take more, see deciderOf
	pb.ReviewService_WatchReviews_FullMethodName: ScopeSubmit,
	pb.ReviewService_Appeal_FullMethodName:       ScopeLookup,
	pb.ReviewService_GetAppeal_FullMethodName:    ScopeLookup,

	pb.StatementService_SubmitOpinion_FullMethodName:  ScopeSubmit,
	pb.StatementService_SubmitSubjects_FullMethodName: ScopeSubmit,
	pb.StatementService_SubmitDecision_FullMethodName: ScopeSubmit,
	pb.StatementService_ListDisputes_FullMethodName:   ScopeSubmit,

	pb.AdminService_CreateToken_FullMethodName: ScopeAdmin,
	pb.AdminService_ListTokens_FullMethodName:  ScopeAdmin,
	pb.AdminService_RevokeToken_FullMethodName: ScopeAdmin,
	pb.AdminService_GetStatus_FullMethodName:   ScopeAdmin,
	pb.AdminService_Backup_FullMethodName:      ScopeAdmin,
}

// open reports whether a method needs no token: health is for load balancers,
// reflection tells what the published API says anyway and has a setting.
func open(method string) bool {
	return strings.HasPrefix(method, "/grpc.health.v1.Health/") || strings.HasPrefix(method, "/grpc.reflection.")
}

// admission finds out who calls.
type admission func(context.Context, *tap.Info) (*caller, error)

// admitOwner admits callers on the unix socket, which only its owner can open.
func (s *Server) admitOwner(context.Context, *tap.Info) (*caller, error) {
	return &caller{name: "unix socket", scope: ScopeAdmin}, nil
}

// admit admits callers with a token.
func (s *Server) admit(ctx context.Context, info *tap.Info) (*caller, error) {
	secret, err := bearer(info.Header)
	if err != nil {
		return nil, err
	}
	return s.keys.find(secret)
}

type callerKey struct{}

// callerOf returns who makes a call, nil for nobody.
func callerOf(ctx context.Context) *caller {
	c, _ := ctx.Value(callerKey{}).(*caller)
	return c
}

// tap judges calls by their headers. An interceptor would come too late: by
// then gRPC has read the first message into memory, whoever sent it.
func (s *Server) tap(admit admission) tap.ServerInHandle {
	return func(ctx context.Context, info *tap.Info) (context.Context, error) {
		scope, known := needs[info.FullMethodName]
		if !known {
			return s.admitStranger(ctx, info.FullMethodName)
		}
		c, err := admit(ctx, info)
		switch {
		case err != nil:
			var addr = peerOf(ctx)
			if addr.Addr != nil && !s.strikes.note(addr.Addr) {
				err = errStrikes
			} else {
				s.log.Warn("refused a call without a good token", slog.String("method", info.FullMethodName), slog.String("peer", addr.String()))
			}
			s.metrics.strangers.Inc()
		case !c.scope.includes(scope):
			err = refuse(errForbidden, "token %s may %s, this needs a token with scope %s", c.name, c.scope, scope)
		}
		if err != nil {
			st := statusOf(err)
			s.metrics.call(info.FullMethodName, st.Code(), 0)
			return ctx, st.Err()
		}
		return context.WithValue(ctx, callerKey{}, c), nil
	}
}

const (
	strangerTime  = 10 * time.Second // for a call that needs no token
	strangerCalls = 64               // of them at once
)

// admitStranger lets in a call that needs no token, or that asks for a method
// that is not there, which gRPC itself answers. Nobody knows who sends it, and gRPC
// reads its message into memory, so such calls are few and short. A watch of the
// node's health may go on.
func (s *Server) admitStranger(ctx context.Context, method string) (context.Context, error) {
	if s.strangers.Add(1) > strangerCalls {
		s.strangers.Add(-1)
		return ctx, status.Error(codes.ResourceExhausted, "too many calls without a token at once: try again")
	}
	context.AfterFunc(ctx, func() { s.strangers.Add(-1) })
	if method == healthpb.Health_Watch_FullMethodName {
		return ctx, nil
	}
	// The stream ends its context, and with it this one.
	ctx, cancel := context.WithTimeout(ctx, strangerTime)
	context.AfterFunc(ctx, cancel)
	return ctx, nil
}

func peerOf(ctx context.Context) peer.Peer {
	if p, ok := peer.FromContext(ctx); ok {
		return *p
	}
	return peer.Peer{}
}

// costly reports whether a method charges for itself, by what it looks up.
func costly(method string) bool {
	return strings.HasPrefix(method, "/"+pb.LookupService_ServiceDesc.ServiceName+"/")
}

// begin checks once more that somebody was admitted, charges for the call, and
// binds it to its token.
func (s *Server) begin(ctx context.Context, method string) (context.Context, context.CancelFunc, error) {
	if open(method) {
		ctx, cancel := context.WithCancel(ctx)
		return ctx, cancel, nil
	}
	c := callerOf(ctx)
	if c == nil {
		return ctx, func() {}, refuse(errNobody, "nobody was authenticated")
	}
	if !costly(method) {
		if err := c.spend(1); err != nil {
			return ctx, func() {}, err
		}
	}
	ctx, cancel := c.bound(ctx)
	return ctx, cancel, nil
}

// within gives ctx the default deadline if the caller set none.
func (s *Server) within(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, s.cfg.Limit.Deadline)
}

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (answer any, err error) {
	start := time.Now()
	ctx, cancel, err := s.begin(ctx, info.FullMethod)
	defer cancel()
	if err == nil {
		ctx, done := s.within(ctx)
		defer done()
		answer, err = next(ctx, req)
	}
	return answer, s.finish(ctx, info.FullMethod, start, err)
}

func (s *Server) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	start := time.Now()
	ctx, cancel, err := s.begin(stream.Context(), info.FullMethod)
	defer cancel()
	if err == nil {
		if open(info.FullMethod) {
			// Nothing else ends a health watch while its caller is there.
			ctx, cancel = s.untilStopping(ctx)
			defer cancel()
		}
		err = next(srv, &boundStream{stream, ctx})
	}
	return s.finish(ctx, info.FullMethod, start, err)
}

// boundStream is a stream with the context of its caller. A Recv that waits
// does not notice when that ends; see receiver.
type boundStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (b *boundStream) Context() context.Context { return b.ctx }

// untilStopping returns a context that ends when the drain begins.
func (s *Server) untilStopping(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	s.running.Go(func() {
		select {
		case <-s.stopping:
			cancel(errStopping)
		case <-done:
		}
	})
	return ctx, func() { close(done); cancel(nil) }
}

// finish turns the outcome of a call into its status, counts and logs it.
func (s *Server) finish(ctx context.Context, method string, start time.Time, err error) error {
	// Why the context ended says more than that it did.
	if cause := context.Cause(ctx); cause != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		err = cause
	}
	st := statusOf(err)
	took := time.Since(start)
	s.metrics.call(method, st.Code(), took)
	level, c := slog.LevelDebug, callerOf(ctx)
	trouble := err != nil && st.Code() != codes.Canceled && troubled(err)
	switch {
	case trouble:
		level = slog.LevelError
	case c != nil && needs[method] != ScopeLookup:
		level = slog.LevelInfo
	}
	if !s.log.Enabled(ctx, level) {
		return st.Err()
	}
	attrs := []slog.Attr{slog.String("method", method), slog.String("code", st.Code().String()), slog.Duration("took", took)}
	if c != nil {
		attrs = append(attrs, slog.String("caller", c.name))
	}
	if p := peerOf(ctx); p.Addr != nil {
		attrs = append(attrs, slog.String("peer", p.Addr.String()))
	}
	if trouble {
		attrs = append(attrs, errorText(err))
	}
	s.log.LogAttrs(ctx, level, "call", attrs...)
	return st.Err()
}

// panicked logs and counts a panic that was caught, and returns what it becomes.
func (s *Server) panicked(p any) error {
	s.metrics.panics.Inc()
	s.log.Error("panic", slog.String("panic", fmt.Sprintf("%.200v", p)), slog.String("stack", string(debug.Stack())))
	return errPanic
}

// caught is deferred in goroutines that do a caller's work, where gRPC's
// recovery does not reach.
func (s *Server) caught(err *error) {
	if p := recover(); p != nil {
		*err = s.panicked(p)
	}
}
