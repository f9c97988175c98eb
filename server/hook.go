package server

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/hashlist/imagehash"
)

// hookAnswer is what a hook answers. Platforms may log it or show it to whoever
// uploaded the file, who must not learn from it how near to what they came: it
// names no list, no distance and no hash. An operator finds these in the log by
// the reference.
type hookAnswer struct {
	Verdict   string `json:"verdict"` // allow or reject
	Reason    string `json:"reason,omitempty"`
	Reference string `json:"reference,omitempty"`

	status int
	why    string // the metrics' and the log's word for it
}

// The answers that need no reference.
var (
	answerAllow   = hookAnswer{Verdict: "allow", status: http.StatusOK, why: "no match"}
	answerNobody  = hookAnswer{Verdict: "reject", Reason: "not authenticated", status: http.StatusUnauthorized, why: "unauthenticated"}
	answerStrikes = hookAnswer{Verdict: "reject", Reason: "not authenticated", status: http.StatusTooManyRequests, why: "unauthenticated"}
	answerNothing = hookAnswer{Verdict: "reject", Reason: "no address of a file in the request", status: http.StatusBadRequest, why: "malformed"}
	answerLimit   = hookAnswer{Verdict: "reject", Reason: "too many uploads, try again later", status: http.StatusTooManyRequests, why: "rate limit"}
	answerTooLong = hookAnswer{Verdict: "reject", Reason: "the file is too large to be examined", status: http.StatusRequestEntityTooLarge, why: "too many bytes"}
	answerSlow    = hookAnswer{Verdict: "reject", Reason: "the file did not come in time", status: http.StatusRequestTimeout, why: "slow"}
	answerCut     = hookAnswer{Verdict: "reject", Reason: "the file did not come whole", status: http.StatusBadRequest, why: "cut off"}
)

// hook is the hook of one platform: its settings, and its name in metrics and in the log.
type hook struct {
	*Server
	name string
	Hook
}

// hookPictrs answers pict-rs's external validation: the file is the body,
// usually without a length; any 2xx accepts it, all else refuses it. The content
// type is pict-rs's guess and is passed over.
//
//	200  no match, or a setting accepts what could not be known
//	401  no such token
//	403  a match
//	408  the file came too slowly
//	413  more bytes than are looked at
//	415  video, 422 undecodable, 503 trouble: where the setting is reject
//	429  too many lookups for the token
//
// Three are refused whatever the settings say, because whoever uploads can bring
// them about: a file of too many bytes (padding would carry anything past), one
// that comes too slowly, and more uploads than the token may make.
func (s *Server) hookPictrs(w http.ResponseWriter, r *http.Request) {
	h := &hook{s, "pictrs", s.cfg.Hook}
	a := h.answer(w, r, r.PathValue("token"), func(ctx context.Context, c *caller) hookAnswer {
		_, a := h.upload(ctx, w, r, c, r.Body, hashlist.Query{})
		return a
	})
	if a.status != http.StatusOK && a.why != "match" {
		// The rest of the body is not waited for.
		w.Header().Set("Connection", "close")
	}
	writeJSON(w, a.status, a)
}

// answer authenticates a request, counts what it comes to, and lets work answer the
// rest of it within the server's deadline.
func (h *hook) answer(w http.ResponseWriter, r *http.Request, secret string, work func(context.Context, *caller) hookAnswer) hookAnswer {
	start := time.Now()
	a := h.admitted(w, r, secret, work)
	verb := "reject"
	if a.Verdict == "allow" {
		verb = "accept"
	}
	h.metrics.hooks.WithLabelValues(h.name, verb, a.why).Inc()
	h.metrics.hookTime.WithLabelValues(h.name).Observe(time.Since(start).Seconds())
	return a
}

func (h *hook) admitted(w http.ResponseWriter, r *http.Request, secret string, work func(context.Context, *caller) hookAnswer) (a hookAnswer) {
	c, err := h.keys.find(secret)
	if err == nil && !c.scope.includes(ScopeLookup) {
		err = errForbidden
	}
	if err != nil {
		return h.stranger(r)
	}
	defer func() {
		if p := recover(); p != nil && p != http.ErrAbortHandler {
			a = h.unknown(r, "trouble", h.panicked(p))
		} else if p != nil {
			panic(p)
		}
	}()
	if err := c.spend(1); err != nil {
		var f *fault
		if errors.As(err, &f) && f.retry > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(f.retry.Seconds()))))
		}
		h.log.Warn("hook: refused an upload: the token's limit is reached", slog.String("caller", c.name))
		return answerLimit
	}
	ctx, cancel, end := h.requestContext(r)
	defer cancel()
	ctx = context.WithValue(ctx, callerKey{}, c)
	return work(context.WithValue(ctx, endKey{}, end), c)
}

// endKey finds in a hook's context when the request's time is up, by the clock of connections.
type endKey struct{}

// upload examines the file that a request brings in from. The query says what the platform
// tells beside its bytes. The finding is nil if there is none.
func (h *hook) upload(ctx context.Context, w http.ResponseWriter, r *http.Request, c *caller, from io.Reader, of hashlist.Query) (*finding, hookAnswer) {
	if r.ContentLength > h.cfg.Limit.MediaBytes && h.Video != AnswerAccept {
		return nil, answerTooLong // at once, when it says so itself
	}
	release, err := h.hold(ctx)
	if err != nil {
		return nil, h.unknown(r, "trouble", err)
	}
	defer release()
	end, _ := ctx.Value(endKey{}).(time.Time)
	in := &body{r: from, rc: http.NewResponseController(w), end: end, idle: h.cfg.Limit.Idle}
	file, err := h.readFile(in)
	switch {
	case errors.Is(err, imagehash.ErrTooLarge):
		return nil, h.tooLong(ctx, r, in, file)
	case errors.Is(err, errSlow):
		return nil, answerSlow
	case err != nil:
		return nil, answerCut
	}
	return h.look(ctx, r, c, file, of)
}

// look examines a file that is in memory.
func (h *hook) look(ctx context.Context, r *http.Request, c *caller, file []byte, of hashlist.Query) (*finding, hookAnswer) {
	of.Limit = defaultMatches
	f, err := h.examine(ctx, file, of, false)
	if err != nil {
		return &f, h.unknown(r, hookReason(err), err)
	}
	if f.blind != nil && f.Verdict == hashlist.VerdictHold && !h.refuses(f.Verdict) {
		// It is held, which lets it pass here: what goes for any file that nobody can look into goes for it too.
		if a := h.unknown(r, hookReason(f.blind), f.blind); a.status != http.StatusOK {
			return &f, a
		}
	}
	return &f, h.verdict(c, &f)
}

// stranger answers a caller without a good token. Platforms take it for a
// refusal of every upload, or for trouble, so the log says what to do.
func (h *hook) stranger(r *http.Request) hookAnswer {
	h.metrics.strangers.Inc()
	if !h.strikes.note(remoteAddr(r)) {
		return answerStrikes
	}
	if h.name == "pictrs" {
		h.log.Warn("hook: called with an unknown or lapsed token, and every upload through it is refused: "+
			"if this is your pict-rs, make a token with scope lookup and set PICTRS__MEDIA__EXTERNAL_VALIDATION "+
			"to http://THIS-ADDRESS/hook/pictrs/TOKEN", logRemote(r))
	} else {
		h.log.Warn("hook: called with an unknown or lapsed token, so nothing is looked up: if this is your platform, "+
			"make a token with scope lookup, and see docs/hooks.md for where it goes", slog.String("hook", h.name), logRemote(r))
	}
	return answerNobody
}

func remoteAddr(r *http.Request) net.Addr {
	ap, _ := netip.ParseAddrPort(r.RemoteAddr) // net/http's own
	return net.TCPAddrFromAddrPort(ap)
}

// hookReason names the setting that decides about a file that could not be
// examined. What is beyond the decoders' limits is undecodable: it may well be a
// picture, but not one that anybody can look into here.
func hookReason(err error) string {
	switch why := failure(err); why {
	case "too_large", "timeout":
		return "undecodable"
	default:
		return why
	}
}

// unknown answers for a file of which nothing is known, by the setting for why.
func (h *hook) unknown(r *http.Request, why string, err error) hookAnswer {
	var setting Answer
	a := hookAnswer{Verdict: "allow", status: http.StatusOK, why: why}
	refused := http.StatusServiceUnavailable
	level := slog.LevelInfo
	switch why {
	case "undecodable":
		setting, refused, a.Reason = h.Undecodable, http.StatusUnprocessableEntity, "not a picture that can be examined"
	case "unreachable":
		setting, refused, a.Reason = h.Undecodable, http.StatusBadGateway, "the file could not be fetched"
	case "video":
		setting, refused, a.Reason = h.Video, http.StatusUnsupportedMediaType, "video is not examined"
	default:
		if r.Context().Err() != nil {
			return answerCut // the caller has gone: there is no trouble of ours
		}
		setting, level, a.Reason = h.Trouble, slog.LevelError, "the file could not be examined, try again later"
	}
	if setting != AnswerAccept {
		a.Verdict, a.status = "reject", refused
	}
	a.Reference = reference()
	// Errors of imagehash describe a file by its format and size.
	h.log.LogAttrs(r.Context(), level, "hook: the file could not be examined", slog.String("hook", h.name), slog.String("because", why),
		slog.String("answer", a.Verdict), slog.String("reference", a.Reference), errorText(err))
	return a
}

// tooLong answers for a file of more bytes than are held in memory, by its
// beginning if that is a video's, which is not examined then.
func (h *hook) tooLong(ctx context.Context, r *http.Request, in io.Reader, file []byte) hookAnswer {
	const beginning = 4096 // no format is told from farther in
	if !imagehash.IsVideo(file[:min(len(file), beginning)]) {
		h.log.Info("hook: refused a file of more bytes than are examined", slog.String("hook", h.name), slog.Int64("limit", h.cfg.Limit.MediaBytes))
		return answerTooLong
	}
	a := h.unknown(r, "video", h.Server.tooLong())
	if a.status == http.StatusOK {
		// A client that is still sending would take an early answer for a failure.
		if _, err := io.Copy(io.Discard, in); err != nil {
			return answerSlow
		}
	}
	return a
}

// verdict answers by a verdict, and logs what it rests on.
func (h *hook) verdict(c *caller, f *finding) hookAnswer {
	if f.Verdict == hashlist.VerdictAllow {
		return answerAllow
	}
	// For a hold or a rejection, tocsin explain knows it.
	a := hookAnswer{Verdict: "allow", status: http.StatusOK, Reference: cmp.Or(f.id, reference()), why: f.Verdict.String()}
	if h.refuses(f.Verdict) {
		a.Verdict, a.status = "reject", http.StatusForbidden
		a.Reason = "matched a blocked-media list"
	}
	if f.Verdict == hashlist.VerdictReject {
		a.why = "match"
	}
	attrs := []slog.Attr{
		slog.String("hook", h.name),
		slog.String("reference", a.Reference), slog.String("verdict", f.Verdict.String()), slog.String("answer", a.Verdict),
		slog.String("caller", c.name), slog.Int("matches", len(f.Matches)), slog.Uint64("index_seq", f.Seq),
	}
	if m := f.Decided(); m != nil && !f.elsewhere {
		attrs = append(attrs, slog.String("list", m.ListName), slog.String("labels", strings.Join(m.Labels, ",")),
			slog.String("algorithm", m.Probe.Hash.Algorithm().String()), slog.Int("distance", m.Distance),
			slog.String("transform", m.Probe.Transform), slog.String("issuer", m.Issuer), slog.String("statement", m.Statement))
	}
	h.log.LogAttrs(context.Background(), slog.LevelInfo, fmt.Sprintf("hook: %s an upload", map[string]string{"allow": "let through", "reject": "refused"}[a.Verdict]), attrs...)
	return a
}

// refuses reports what a verdict comes to at a hook, which cannot hold.
func (h *hook) refuses(v hashlist.Verdict) bool {
	return v == hashlist.VerdictReject || v == hashlist.VerdictHold && h.Hold != AnswerAccept
}

// reference is a number by which an operator finds the log line of an answer.
func reference() string { return strings.ToLower(rand.Text()[:16]) }
