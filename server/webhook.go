package server

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// Webhook says who is told of hits, and how they know that it is this node that tells
// them.
type Webhook struct {
	URLs   []string // http or https; the operator's own, so they may be private
	Secret []byte   // at least MinWebhookSecret bytes
}

// MinWebhookSecret is the least length of a secret, in bytes.
const MinWebhookSecret = 16

const webhookTime = 10 * time.Second // for one delivery

// hookSighting and hookHit are the body of a webhook. It holds no hash.
type hookSighting struct {
	SeenID   uint64 `json:"seen_id"`
	At       string `json:"at"`
	Answered string `json:"answered"`
	URL      string `json:"url"`
	Alias    string `json:"alias"`
	Post     string `json:"post"`
	Actor    string `json:"actor"`
}

type hookHit struct {
	Type      string         `json:"type"` // hit or withdrawal
	ID        string         `json:"id"`
	Seq       uint64         `json:"seq"`
	At        string         `json:"at"`
	Verdict   string         `json:"verdict"`
	Answered  string         `json:"answered"`
	Reason    string         `json:"reason"`
	List      string         `json:"list"`
	Issuer    string         `json:"issuer"`
	Statement string         `json:"statement"`
	Labels    []string       `json:"labels"`
	Algorithm string         `json:"algorithm"`
	Distance  int            `json:"distance"`
	Count     int            `json:"count"`
	Sightings []hookSighting `json:"sightings"`
}

func hookBody(h *hashlist.Hit) ([]byte, error) {
	at := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	v := hookHit{
		Type: "hit", ID: h.ID, Seq: h.Seq, At: at(h.At), Verdict: h.Verdict.String(), Answered: h.Seen.Answered.String(), Reason: h.Reason,
		List: h.Match.List, Issuer: h.Match.Issuer, Statement: h.Match.Statement, Labels: append([]string{}, h.Match.Labels...),
		Algorithm: h.Algorithm.String(), Distance: h.Match.Distance, Count: h.Seen.Count, Sightings: []hookSighting{},
	}
	if h.Withdrawn {
		v.Type = "withdrawal"
	}
	for i := range h.Seen.Sightings {
		s := &h.Seen.Sightings[i]
		v.Sightings = append(v.Sightings, hookSighting{s.ID, at(s.At), s.Answered.String(), s.Reference.URL, s.Reference.Alias, s.Reference.Post, s.Reference.Actor})
	}
	return json.Marshal(v)
}

// SignWebhook is the value of the header Tocsin-Signature: the time of sending in
// seconds since 1970, and the HMAC-SHA256 of that, a full stop and the body. Who receives
// it checks both, and refuses what is older than some minutes, so that nobody sends an
// old one again.
func SignWebhook(secret []byte, at time.Time, body []byte) string {
	stamp := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, secret)
	io.WriteString(mac, stamp+".")
	mac.Write(body)
	return "t=" + stamp + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}

// hookClient follows no redirect: the address is what the operator wrote.
var hookClient = &http.Client{
	Timeout:       webhookTime,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// webhook returns what tells an address of a hit. Any 2xx means that it was taken. What
// the receiver finds wrong (4xx, but for 408 and 429) is logged and not sent again,
// so that one hit that it cannot read does not hold up the rest.
func (s *Server) webhook(url string) func(context.Context, *hashlist.Hit) error {
	return func(ctx context.Context, h *hashlist.Hit) error {
		body, err := hookBody(h)
		if err != nil {
			return err
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
		if err != nil {
			return errors.New("the address of the webhook is not one")
		}
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("User-Agent", "tocsin/"+s.cfg.Version)
		request.Header.Set("Tocsin-Delivery", h.ID)
		request.Header.Set("Tocsin-Signature", SignWebhook(s.cfg.Webhook.Secret, time.Now(), body))
		answer, err := hookClient.Do(request)
		if err != nil {
			// Without the address, which may hold a secret.
			s.webhooks.WithLabelValues("failed").Inc()
			var inner interface{ Unwrap() error }
			if errors.As(err, &inner) && inner.Unwrap() != nil {
				err = inner.Unwrap()
			}
			return fmt.Errorf("webhook: %w", err)
		}
		defer answer.Body.Close()
		_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 4096)) // so that the connection is used again
		switch c := answer.StatusCode; {
		case c >= 200 && c < 300:
			s.webhooks.WithLabelValues("delivered").Inc()
			return nil
		case c >= 400 && c < 500 && c != http.StatusRequestTimeout && c != http.StatusTooManyRequests:
			s.webhooks.WithLabelValues("refused").Inc()
			s.log.Error("a webhook was refused by its receiver, and is not sent again", slog.Int("status", c), slog.Uint64("hit", h.Seq))
			return nil
		default:
			s.webhooks.WithLabelValues("failed").Inc()
			return fmt.Errorf("webhook: the receiver answered %d", c)
		}
	}
}
