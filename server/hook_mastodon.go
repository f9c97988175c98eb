package server

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// mastodonEvent is what is taken from a webhook of Mastodon
// (REST::Admin::WebhookEventSerializer). What is not here is dropped as it is read: events of accounts and
// reports carry e-mail addresses and IP addresses, which this node has no use for and never holds
// beyond the bytes of the request.
type mastodonEvent struct {
	Event   string         `json:"event"` // status.created, status.updated, account.created, report.created, ...
	Created time.Time      `json:"created_at"`
	Object  mastodonStatus `json:"object"`
}

type mastodonStatus struct {
	ID      string `json:"id"`
	URI     string `json:"uri"`
	URL     string `json:"url"`
	Account struct {
		URI     string    `json:"uri"` // since 4.2
		URL     string    `json:"url"`
		Acct    string    `json:"acct"` // with a domain if it is of another server
		Created time.Time `json:"created_at"`
		Posts   *int      `json:"statuses_count"`
	} `json:"account"`
	Media []struct {
		ID     string `json:"id"`
		URL    string `json:"url"`
		Remote string `json:"remote_url"`
	} `json:"media_attachments"`
}

const (
	maxMastodonEvent = 1 << 20           // bytes
	maxMastodonMedia = 16                // of one post; Mastodon allows four
	mastodonAge      = 72 * time.Hour    // Mastodon tries a delivery again for about two days
	mastodonWait     = 8 * time.Second   // it gives up an answer after ten
	mastodonMemory   = 10_000            // media and events that are remembered
	mastodonHeader   = "X-Hub-Signature" //
	mastodonPrefix   = "sha256="         // in it
	mastodonAhead    = 10 * time.Minute  // that its clock may be ahead
)

// hookMastodon receives the webhooks of Mastodon, which has no hook for uploads:
//
//	POST /hook/mastodon/TOKEN
//
// The media of a new or edited post are fetched and looked up. Mastodon does nothing with the
// answer, so a match goes where matches go that a person or this node itself has to act on. The request must carry the
// signature that Mastodon makes with the webhook's secret, and be of the last three days;
// what was looked at is not looked at again, so that a recorded request says nothing new.
//
//	202  done, or nothing to do
//	400  no event             401  no such token, or no good signature
//	409  too old, or dated ahead
//	503  not done in time, or not to be fetched: Mastodon asks again, for two days, and what was looked at meanwhile is not fetched again
func (s *Server) hookMastodon(w http.ResponseWriter, r *http.Request) {
	h := &hook{s, "mastodon", *s.cfg.Hooks.Mastodon}
	a := h.answer(w, r, r.PathValue("token"), func(ctx context.Context, c *caller) hookAnswer {
		end, _ := ctx.Value(endKey{}).(time.Time)
		in := &body{r: r.Body, rc: http.NewResponseController(w), end: end, idle: s.cfg.Limit.Idle}
		raw, err := io.ReadAll(io.LimitReader(in, maxMastodonEvent+1))
		if err != nil || len(raw) > maxMastodonEvent {
			return answerCut
		}
		defer clear(raw) // it may hold what we do not want to have
		if !signedBy(s.cfg.Hooks.MastodonSecret, r.Header.Get(mastodonHeader), raw) {
			h.metrics.strangers.Inc()
			if h.strikes.note(remoteAddr(r)) {
				h.log.Warn("hook: a webhook with a good token has no good signature: hook.mastodon.secret_file must hold the secret "+
					"that Mastodon shows of the webhook", slog.String("hook", h.name), logRemote(r))
			}
			return answerNobody
		}
		return h.mastodon(ctx, r, c, raw)
	})
	if a.status == http.StatusOK || a.status == http.StatusForbidden {
		a.status = http.StatusAccepted
	} else {
		w.Header().Set("Connection", "close")
	}
	// Nothing of what was found: nobody reads it, and it would be logged there.
	writeJSON(w, a.status, struct{}{})
}

// signedBy checks a signature as Mastodon makes it: sha256= and the HMAC of the body in hexadecimal.
func signedBy(secret []byte, header string, body []byte) bool {
	digits, ok := strings.CutPrefix(header, mastodonPrefix)
	if !ok || len(digits) != hex.EncodedLen(sha256.Size) || len(secret) == 0 {
		return false
	}
	given, err := hex.DecodeString(digits)
	if err != nil {
		return false
	}
	m := hmac.New(sha256.New, secret)
	m.Write(body)
	return hmac.Equal(given, m.Sum(nil)) // in constant time
}

// mastodon looks at the media of an event.
func (h *hook) mastodon(ctx context.Context, r *http.Request, c *caller, raw []byte) hookAnswer {
	var e mastodonEvent
	if err := json.Unmarshal(raw, &e); err != nil {
		// Not the error: it may quote what is not to be logged. Events of accounts and reports
		// have objects of other forms, of which nothing is read.
		var kind struct {
			Event string `json:"event"`
		}
		if json.Unmarshal(raw, &kind) != nil || strings.HasPrefix(kind.Event, "status.") || kind.Event == "" {
			return refusal(http.StatusBadRequest, "no event of Mastodon")
		}
		e.Event = kind.Event
	}
	if e.Event != "status.created" && e.Event != "status.updated" {
		return answerAllow
	}
	if age := time.Since(e.Created); age > mastodonAge || age < -mastodonAhead {
		h.log.Warn("hook: passed over a webhook that is too old or dated ahead", slog.String("hook", h.name), slog.Duration("age", age.Round(time.Second)))
		return refusal(http.StatusConflict, "the event is not of the last days")
	}
	media := e.Object.Media
	if len(media) > maxMastodonMedia {
		h.log.Warn("hook: a post has more media than are looked at", slog.String("hook", h.name), slog.Int("media", len(media)))
		media = media[:maxMastodonMedia]
	}
	of := hashlist.Query{Uploader: mastodonUploader(&e.Object)}
	of.Reference = hashlist.Reference{Post: e.Object.URI, Actor: e.Object.Account.URI}
	if of.Reference.Actor == "" {
		of.Reference.Actor = e.Object.Account.URL
	}
	worst, again := answerAllow, false
	wait, stop := context.WithTimeout(ctx, mastodonWait)
	defer stop()
	for i := range media {
		m := &media[i]
		address := m.URL
		if address == "" {
			address = m.Remote
		}
		if address == "" {
			continue // not processed yet: status.updated tells when it is
		}
		if i > 0 {
			if err := c.spend(1); err != nil {
				return answerLimit
			}
		}
		of.Reference.Alias, of.Reference.URL = m.ID, address
		of := of
		of.Reference = referenceOf(of.Reference)
		a, done := h.once(wait, m.ID+" "+address, func(ctx context.Context) hookAnswer {
			_, a := h.fetched(ctx, r.WithContext(ctx), c, address, of)
			return a
		})
		if !done {
			return hookAnswer{Verdict: "allow", status: http.StatusServiceUnavailable, why: "slow"}
		}
		if a.status != http.StatusOK && worst.status == http.StatusOK || a.why == "match" {
			worst = a
		}
		again = again || a.askAgain()
	}
	if again {
		// Not before the others were looked at: nobody is to hide them behind one that is not to be had.
		return hookAnswer{Verdict: "allow", status: http.StatusServiceUnavailable, why: "trouble"}
	}
	return worst
}

// mastodonUploader is what an event tells of who posts.
func mastodonUploader(v *mastodonStatus) *hashlist.Uploader {
	u := &hashlist.Uploader{Posts: v.Account.Posts}
	if v.Account.Acct != "" {
		_, domain, remote := strings.Cut(v.Account.Acct, "@")
		local := !remote
		u.Local = &local
		if at, err := url.Parse(v.Account.URL); err == nil && !remote {
			domain = at.Hostname()
		}
		if hashlist.CheckDomain(domain) == nil {
			u.Domain = domain
		}
	}
	if !v.Account.Created.IsZero() {
		if age := time.Since(v.Account.Created); age >= 0 {
			u.Age = &age
		}
	}
	return u
}

// doings are the media of webhooks that are being looked at, and those that were.
type doings struct {
	mu    sync.Mutex
	begun map[string]*doing
	order []string // the oldest first, of those that are done
}

type doing struct {
	done   chan struct{}
	answer hookAnswer // once done is closed
}

// askAgain reports whether nothing is known of a file yet, so that a delivery that comes anew looks once more: whoever
// has the server it is on must not get a post past by being away while it comes.
func (a *hookAnswer) askAgain() bool { return a.why == "trouble" || a.why == "unreachable" }

// once does work at most once for a key, and waits for it as long as ctx allows. The work
// goes on when ctx ends, within the server's own deadline, so that whoever asks again finds
// it done. What ended in trouble, or could not be fetched, is done anew.
func (h *hook) once(ctx context.Context, key string, work func(context.Context) hookAnswer) (hookAnswer, bool) {
	d := &h.doings
	d.mu.Lock()
	v, ok := d.begun[key]
	if !ok && len(d.begun)-len(d.order) >= 4*maxMastodonMedia {
		d.mu.Unlock()
		return hookAnswer{}, false // enough is under way
	}
	if !ok {
		v = &doing{done: make(chan struct{})}
		if d.begun == nil {
			d.begun = map[string]*doing{}
		}
		d.begun[key] = v
		h.running.Go(func() {
			ctx, cancel := context.WithTimeout(h.hard, h.cfg.Limit.Deadline)
			defer cancel()
			v.answer = hookAnswer{status: http.StatusServiceUnavailable, why: "trouble"} // if work panics
			defer d.end(key, v)
			defer func() {
				if p := recover(); p != nil {
					h.panicked(p)
				}
			}()
			v.answer = work(ctx)
		})
	}
	d.mu.Unlock()
	select {
	case <-v.done:
		return v.answer, true
	case <-ctx.Done():
		return hookAnswer{}, false
	}
}

func (d *doings) end(key string, v *doing) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if v.answer.askAgain() {
		delete(d.begun, key)
	} else if d.order = append(d.order, key); len(d.order) > mastodonMemory {
		delete(d.begun, d.order[0])
		d.order = d.order[1:]
	}
	close(v.done)
}
