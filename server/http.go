package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// routes are the paths of the private HTTP listener. Paths are never logged:
// those of hooks hold tokens.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /hook/pictrs/{token}", s.hookPictrs)
	if s.cfg.Hooks.PieFed != nil {
		mux.HandleFunc("GET /hook/piefed/{token}", s.hookPieFed)
	}
	if s.cfg.Hooks.HMA != nil {
		s.hmaRoutes(mux)
	}
	if s.cfg.Hooks.NSFW != nil {
		mux.HandleFunc("GET /hook/nsfw/{token}/{$}", s.hookNSFW)
	}
	if s.cfg.Hooks.Mastodon != nil {
		mux.HandleFunc("POST /hook/mastodon/{token}", s.hookMastodon)
	}
	if s.cfg.Hooks.Indigo != nil {
		mux.HandleFunc("POST /hook/indigo/xrpc/com.atproto.unspecced.scanBlob", s.hookIndigo)
	}
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !s.ready.Load() {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, "ready\n")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: 4, Timeout: 10 * time.Second,
	}))
	return s.counted(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		mux.ServeHTTP(w, r)
	}))
}

// counted makes a handler's requests part of what the server waits for, and its panics
// faults that are counted and logged.
func (s *Server) counted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.enter() {
			http.Error(w, "stopping", http.StatusServiceUnavailable)
			return
		}
		defer s.running.Done()
		defer func() {
			if p := recover(); p != nil && p != http.ErrAbortHandler { // the mux's own; a hook has caught its panic before
				s.panicked(p)
				panic(http.ErrAbortHandler)
			} else if p != nil {
				panic(p)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// enter counts an HTTP request among what runs, unless the server has ended.
// net/http may start a handler after its Close has returned.
func (s *Server) enter() bool {
	s.entering.Lock()
	defer s.entering.Unlock()
	if s.closed {
		return false
	}
	s.running.Add(1)
	return true
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(v) // a caller who has gone is no error of ours
}

// body reads the body of a request within a deadline and without long pauses.
type body struct {
	r    io.Reader
	rc   *http.ResponseController
	end  time.Time
	idle time.Duration
}

// errSlow is a caller who does not send.
var errSlow = errors.New("the file did not come in time")

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	until := time.Now().Add(b.idle)
	if until.After(b.end) {
		until = b.end
	}
	if err := b.rc.SetReadDeadline(until); err != nil {
		return 0, fmt.Errorf("set a deadline: %w", err)
	}
	n, err := b.r.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = errSlow
	}
	return n, err
}

// requestContext gives a request the server's default deadline.
func (s *Server) requestContext(r *http.Request) (context.Context, context.CancelFunc, time.Time) {
	end := time.Now().Add(s.cfg.Limit.Deadline)
	ctx, cancel := context.WithDeadline(r.Context(), end)
	return ctx, cancel, end
}

func logRemote(r *http.Request) slog.Attr { return slog.String("peer", r.RemoteAddr) }
