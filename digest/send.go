package digest

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/http"
	"net/mail"
	"net/smtp"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Mail is where and how a digest is mailed. net/smtp does it: one message a day needs no more.
type Mail struct {
	Server         string // host:port
	User, Password string // empty for none
	From           string
	To             []string
	Roots          *x509.CertPool // what tests trust; nil for the system's
}

// Hook is where a digest is posted.
type Hook struct {
	URL    string
	Secret []byte // signs; empty for no signature
}

const (
	sendTime = time.Minute
	// Signature is the header of a hook's signature: t=SECONDS,v1=HEX, where HEX is the HMAC-SHA-256, by the
	// secret, of SECONDS, a full stop and the body.
	Signature = "Tocsin-Signature"
)

// Validate reports the first mistake of m.
func (m *Mail) Validate() error {
	if _, _, err := net.SplitHostPort(m.Server); err != nil {
		return fmt.Errorf("mail server %.80q is not host:port", m.Server)
	}
	if len(m.To) == 0 {
		return errors.New("a digest by mail needs somebody to send it to")
	}
	for _, a := range append([]string{m.From}, m.To...) {
		if p, err := mail.ParseAddress(a); err != nil || p.Address != a {
			return fmt.Errorf("%.80q is not a mail address", a)
		}
	}
	if (m.User == "") != (m.Password == "") {
		return errors.New("a user name for mail needs a password, and the other way round")
	}
	return nil
}

// Send mails a digest. The server must offer TLS, unless it is on this machine: what was refused is nobody
// else's affair, and neither is the password.
func (m *Mail) Send(ctx context.Context, d *Digest) (err error) {
	ctx, cancel := context.WithTimeout(ctx, sendTime)
	defer cancel()
	host, _, err := net.SplitHostPort(m.Server)
	if err != nil {
		return err
	}
	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", m.Server)
	if err != nil {
		return fmt.Errorf("mail: %w", err)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	c, err := smtp.NewClient(conn, host)
	if err != nil {
		return fmt.Errorf("mail: %w", err)
	}
	if secure, _ := c.Extension("STARTTLS"); secure {
		if err := c.StartTLS(&tls.Config{ServerName: host, MinVersion: tls.VersionTLS12, RootCAs: m.Roots}); err != nil {
			return fmt.Errorf("mail: TLS with %s: %w", host, err)
		}
	} else if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("mail: %s offers no TLS (STARTTLS), and only a server on this machine may do without", host)
	}
	if m.User != "" {
		if err := c.Auth(smtp.PlainAuth("", m.User, m.Password, host)); err != nil {
			return fmt.Errorf("mail: sign in to %s: %w", host, err)
		}
	}
	text, err := m.message(d)
	if err != nil {
		return err
	}
	if err := c.Mail(m.From); err != nil {
		return fmt.Errorf("mail: %w", err)
	}
	for _, to := range m.To {
		if err := c.Rcpt(to); err != nil {
			return fmt.Errorf("mail to %s: %w", to, err)
		}
	}
	w, err := c.Data()
	if err == nil {
		if _, err = w.Write(text); err == nil {
			err = w.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("mail: %w", err)
	}
	c.Quit() // the server has the mail, however it takes its leave
	return nil
}

func (m *Mail) message(d *Digest) ([]byte, error) {
	var b bytes.Buffer
	host := m.From[strings.LastIndexByte(m.From, '@')+1:]
	for _, h := range [][2]string{
		{"From", m.From}, {"To", strings.Join(m.To, ", ")}, {"Subject", mime.QEncoding.Encode("utf-8", d.Subject())},
		{"Date", d.Until.UTC().Format(time.RFC1123Z)}, {"Message-ID", "<" + rand.Text() + "@" + host + ">"}, {"MIME-Version", "1.0"},
		{"Content-Type", "text/plain; charset=utf-8"}, {"Content-Transfer-Encoding", "quoted-printable"},
		{"Auto-Submitted", "auto-generated"},
	} {
		b.WriteString(h[0] + ": " + h[1] + "\r\n")
	}
	b.WriteString("\r\n")
	q := quotedprintable.NewWriter(&b)
	if _, err := q.Write([]byte(strings.ReplaceAll(d.Text(), "\n", "\r\n"))); err != nil {
		return nil, err
	}
	return b.Bytes(), q.Close()
}

// Validate reports the first mistake of h.
func (h *Hook) Validate() error {
	u, err := url.Parse(h.URL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return fmt.Errorf("address of the digest's web hook %.80q is none", h.URL)
	}
	return nil
}

// Send posts a digest as JSON. It follows no redirect.
func (h *Hook) Send(ctx context.Context, d *Digest) error {
	body, err := json.Marshal(d)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, sendTime)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	if len(h.Secret) > 0 {
		r.Header.Set(Signature, h.sign(time.Now(), body))
	}
	c := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer c.CloseIdleConnections()
	answer, err := c.Do(r)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // the address may hold a token
		}
		return fmt.Errorf("web hook of the digest: %w", err)
	}
	answer.Body.Close()
	if answer.StatusCode/100 != 2 {
		return fmt.Errorf("web hook of the digest: it answered %s", answer.Status)
	}
	return nil
}

func (h *Hook) sign(now time.Time, body []byte) string {
	t := strconv.FormatInt(now.Unix(), 10)
	m := hmac.New(sha256.New, h.Secret)
	m.Write([]byte(t + "."))
	m.Write(body)
	return "t=" + t + ",v1=" + hex.EncodeToString(m.Sum(nil))
}
