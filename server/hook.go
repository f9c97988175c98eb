package server

import (
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
	answerLimit   = hookAnswer{Verdict: "reject", Reason: "too many uploads, try again later", status: http.StatusTooManyRequests, why: "rate limit"}
	answerTooLong = hookAnswer{Verdict: "reject", Reason: "the file is too large to be examined", status: http.StatusRequestEntityTooLarge, why: "too many bytes"}
	answerSlow    = hookAnswer{Verdict: "reject", Reason: "the file did not come in time", status: http.StatusRequestTimeout, why: "slow"}
	answerCut     = hookAnswer{Verdict: "reject", Reason: "the file did not come whole", status: http.StatusBadRequest, why: "cut off"}
)

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
	start := time.Now()
	a := s.pictrs(w, r)
	verb := "reject"
	if a.status == http.StatusOK {
		verb = "accept"
	}
	s.metrics.hooks.WithLabelValues("pictrs", verb, a.why).Inc()
	s.metrics.hookTime.WithLabelValues("pictrs").Observe(time.Since(start).Seconds())
	if a.status != http.StatusOK && a.why != "match" {
		// The rest of the body is not waited for.
		w.Header().Set("Connection", "close")
	}
	writeJSON(w, a.status, a)
}

func (s *Server) pictrs(w http.ResponseWriter, r *http.Request) (a hookAnswer) {
	c, err := s.keys.find(r.PathValue("token"))
	if err == nil && !c.scope.includes(ScopeLookup) {
		err = errForbidden
	}
	if err != nil {
		return s.hookStranger(r)
	}
	defer func() {
		if p := recover(); p != nil && p != http.ErrAbortHandler {
			a = s.unknown(r, "trouble", s.panicked(p))
		} else if p != nil {
			panic(p)
		}
	}()
	if err := c.spend(1); err != nil {
		var f *fault
		if errors.As(err, &f) && f.retry > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(f.retry.Seconds()))))
		}
		s.log.Warn("hook: refused an upload: the token's limit is reached", slog.String("caller", c.name))
		return answerLimit
	}
	ctx, cancel, end := s.requestContext(r)
	defer cancel()
	if r.ContentLength > s.cfg.Limit.MediaBytes && s.cfg.Hook.Video != AnswerAccept {
		return answerTooLong // at once, when it says so itself
	}
	release, err := s.hold(ctx)
	if err != nil {
		return s.unknown(r, "trouble", err)
	}
	defer release()
	in := &body{r: r.Body, rc: http.NewResponseController(w), end: end, idle: s.cfg.Limit.Idle}
	file, err := s.readFile(in)
	switch {
	case errors.Is(err, imagehash.ErrTooLarge):
		return s.hookTooLong(ctx, r, in, file)
	case errors.Is(err, errSlow):
		return answerSlow
	case err != nil:
		return answerCut
	}
	f, err := s.examine(ctx, file, hashlist.Query{Limit: defaultMatches})
	if err != nil {
		return s.unknown(r, hookReason(err), err)
	}
	return s.hookVerdict(c, &f)
}

// hookStranger answers a caller without a good token. pict-rs takes it for a
// refusal of every upload, so the log says what to do.
func (s *Server) hookStranger(r *http.Request) hookAnswer {
	s.metrics.strangers.Inc()
	if !s.strikes.note(remoteAddr(r)) {
		return answerStrikes
	}
	s.log.Warn("hook: called with an unknown or lapsed token, and every upload through it is refused: "+
		"if this is your pict-rs, make a token with scope lookup and set PICTRS__MEDIA__EXTERNAL_VALIDATION "+
		"to http://THIS-ADDRESS/hook/pictrs/TOKEN", logRemote(r))
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
func (s *Server) unknown(r *http.Request, why string, err error) hookAnswer {
	var setting Answer
	a := hookAnswer{Verdict: "allow", status: http.StatusOK, why: why}
	refused := http.StatusServiceUnavailable
	level := slog.LevelInfo
	switch why {
	case "undecodable":
		setting, refused, a.Reason = s.cfg.Hook.Undecodable, http.StatusUnprocessableEntity, "not a picture that can be examined"
	case "video":
		setting, refused, a.Reason = s.cfg.Hook.Video, http.StatusUnsupportedMediaType, "video is not examined"
	default:
		if r.Context().Err() != nil {
			return answerCut // the caller has gone: there is no trouble of ours
		}
		setting, level, a.Reason = s.cfg.Hook.Trouble, slog.LevelError, "the file could not be examined, try again later"
	}
	if setting != AnswerAccept {
		a.Verdict, a.status = "reject", refused
	}
	a.Reference = reference()
	// Errors of imagehash describe a file by its format and size.
	s.log.LogAttrs(r.Context(), level, "hook: the file could not be examined", slog.String("because", why),
		slog.String("answer", a.Verdict), slog.String("reference", a.Reference), errorText(err))
	return a
}

// hookTooLong answers for a file of more bytes than are held in memory, by its
// beginning if that is a video's, which is not examined anyway.
func (s *Server) hookTooLong(ctx context.Context, r *http.Request, in io.Reader, file []byte) hookAnswer {
	const beginning = 4096 // no format is told from farther in
	if _, err := s.cfg.Media.Hash(ctx, file[:min(len(file), beginning)]); !errors.Is(err, imagehash.ErrVideo) {
		s.log.Info("hook: refused a file of more bytes than are examined", slog.Int64("limit", s.cfg.Limit.MediaBytes))
		return answerTooLong
	}
	a := s.unknown(r, "video", s.tooLong())
	if a.status == http.StatusOK {
		// A client that is still sending would take an early answer for a failure.
		if _, err := io.Copy(io.Discard, in); err != nil {
			return answerSlow
		}
	}
	return a
}

// hookVerdict answers by a verdict, and logs what it rests on.
func (s *Server) hookVerdict(c *caller, f *finding) hookAnswer {
	if f.Verdict == hashlist.VerdictAllow {
		return answerAllow
	}
	a := hookAnswer{Verdict: "allow", status: http.StatusOK, Reference: reference(), why: f.Verdict.String()}
	if f.Verdict == hashlist.VerdictReject || f.Verdict == hashlist.VerdictHold && s.cfg.Hook.Hold != AnswerAccept {
		a.Verdict, a.status = "reject", http.StatusForbidden
		a.Reason = "matched a blocked-media list"
	}
	if f.Verdict == hashlist.VerdictReject {
		a.why = "match"
	}
	attrs := []slog.Attr{
		slog.String("reference", a.Reference), slog.String("verdict", f.Verdict.String()), slog.String("answer", a.Verdict),
		slog.String("caller", c.name), slog.Int("matches", len(f.Matches)), slog.Uint64("index_seq", f.Seq),
	}
	if len(f.Matches) > 0 {
		m := &f.Matches[0]
		attrs = append(attrs, slog.String("list", m.ListName), slog.String("labels", strings.Join(m.Labels, ",")),
			slog.String("algorithm", m.Probe.Hash.Algorithm().String()), slog.Int("distance", m.Distance),
			slog.String("transform", m.Probe.Transform), slog.String("issuer", m.Issuer), slog.String("statement", m.Statement))
	}
	s.log.LogAttrs(context.Background(), slog.LevelInfo, fmt.Sprintf("hook: %s an upload", map[string]string{"allow": "let through", "reject": "refused"}[a.Verdict]), attrs...)
	return a
}

// reference is a number by which an operator finds the log line of an answer.
func reference() string { return strings.ToLower(rand.Text()[:16]) }
