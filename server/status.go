package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/hashlist/imagehash"
)

// Errors of Tokens and Issuer that callers are told apart.
var (
	ErrTokenExists = errors.New("there is a token of this name already")
	ErrNoToken     = errors.New("there is no token of this name")
	ErrOffline     = errors.New("the key of this node's issuer is kept elsewhere, so nothing can be signed here: " +
		"make a draft (--draft), sign it with `tocsin sign` where the key is, and give it to the node with `tocsin publish`")
)

// ReasonRemote is the reason in the ErrorInfo of a status that tells of a failure of
// another server, not of this node.
const ReasonRemote = "REMOTE_SERVER"

// The ways a call is refused. The texts are for callers: a fault says which one
// it is and then what is wrong.
var (
	errInvalid   = errors.New("invalid request")
	errUnknown   = errors.New("not found")
	errState     = errors.New("not possible")
	errNobody    = errors.New("not authenticated")
	errForbidden = errors.New("not permitted")
	errLimit     = errors.New("beyond the limit")
	errIdle      = errors.New("nothing came")
	errStopping  = errors.New("the node is stopping: try again when it is back")
	errPanic     = errors.New("panic")
)

// fault is an error whose text may be shown to the caller.
type fault struct {
	class error // one of the errors above
	text  string
	retry time.Duration // for errLimit: when it may work again; 0 for never
}

func (f *fault) Error() string { return f.text }
func (f *fault) Unwrap() error { return f.class }

func refuse(class error, format string, args ...any) error {
	return &fault{class: class, text: fmt.Sprintf(format, args...)}
}

// invalid wraps an error about what the caller sent.
func invalid(what string, err error) error { return refuse(errInvalid, "%s: %v", what, err) }

// statusOf is the one place where an error becomes a status code. What it does
// not know is Internal, and its text stays here: it may speak of anything.
func statusOf(err error) *status.Status {
	if err == nil {
		return nil
	}
	code := codes.Internal
	switch {
	case errors.Is(err, errInvalid):
		code = codes.InvalidArgument
	case errors.Is(err, errUnknown), errors.Is(err, ErrNoToken), errors.Is(err, federation.ErrUnknownList), errors.Is(err, federation.ErrUnknownFollower):
		code = codes.NotFound
	case errors.Is(err, ErrTokenExists):
		code = codes.AlreadyExists
	case errors.Is(err, errState), errors.Is(err, federation.ErrState), errors.Is(err, ErrOffline):
		code = codes.FailedPrecondition
	case errors.Is(err, federation.ErrRemote):
		code = codes.Unavailable
	case errors.Is(err, errNobody):
		code = codes.Unauthenticated
	case errors.Is(err, errForbidden):
		code = codes.PermissionDenied
	case errors.Is(err, errLimit), errors.Is(err, imagehash.ErrTooLarge):
		code = codes.ResourceExhausted
	case errors.Is(err, imagehash.ErrUndecodable), errors.Is(err, imagehash.ErrVideo):
		code = codes.InvalidArgument
	case errors.Is(err, errIdle), errors.Is(err, imagehash.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	case errors.Is(err, errStopping), errors.Is(err, hashlist.ErrClosed):
		return status.New(codes.Unavailable, errStopping.Error())
	case errors.Is(err, imagehash.ErrTrouble):
		return status.New(codes.Unavailable, "the node could not examine the file: try again; its log says more")
	case errors.Is(err, errPanic):
	default:
		// What gRPC itself reports: a stream that was cut, a message too large.
		if st, ok := status.FromError(err); ok {
			return st
		}
	}
	if code == codes.Internal {
		return status.New(code, "internal error: the node's log says more")
	}
	st := status.New(code, err.Error())
	if errors.Is(err, federation.ErrRemote) {
		// It is not this node that cannot be reached.
		if with, err := st.WithDetails(&errdetails.ErrorInfo{Reason: ReasonRemote, Domain: "tocsin"}); err == nil {
			st = with
		}
	}
	var f *fault
	if errors.As(err, &f) && f.retry > 0 {
		if with, err := st.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(f.retry)}); err == nil {
			st = with
		}
	}
	return st
}

// troubled reports whether err is the node's doing, so that its text belongs in
// the log. The texts of other errors may repeat what the caller sent.
func troubled(err error) bool {
	switch statusOf(err).Code() {
	case codes.Internal, codes.Unavailable, codes.Unknown, codes.DataLoss:
		// Panics are logged where they are caught; what another server did is not this node's doing.
		return !errors.Is(err, errStopping) && !errors.Is(err, errPanic) && !errors.Is(err, federation.ErrRemote)
	}
	return false
}

// errorText is an error in a log line.
func errorText(err error) slog.Attr { return slog.String("error", err.Error()) }
