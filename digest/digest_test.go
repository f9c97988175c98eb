package digest

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"mime/quotedprintable"
	"net"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"regexp"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 11, 26, 8, 0, 0, 0, time.UTC)

func sample() *Digest {
	d := &Digest{Node: "https://hashes.example", Since: now.AddDate(0, 0, -1), Until: now, Refused: 60, Held: 2, Found: 1, Waiting: 3, Oldest: now.AddDate(0, 0, -3)}
	for i := range 60 {
		d.Add(Item{At: now, What: "refused", ID: fmt.Sprintf("v%d", i), Note: "on list refused (spam), ü"})
	}
	return d
}

func TestText(t *testing.T) {
	text := sample().Text()
	for _, want := range []string{"    60  uploads refused", "     3  wait for a person, the oldest since 23 November", "v59", "and 10 before them", "tocsin review list", "dispute"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "v9 ") {
		t.Error("it has more items than it should")
	}
}

func TestDue(t *testing.T) {
	for _, c := range []struct{ now, want string }{
		{"2026-11-26T08:00:00Z", "2026-11-26T08:00:00Z"}, {"2026-11-26T07:59:59Z", "2026-11-25T08:00:00Z"}, {"2026-03-01T00:00:00+02:00", "2026-02-28T08:00:00Z"},
	} {
		at, err := time.Parse(time.RFC3339, c.now)
		if err != nil {
			t.Fatal(err)
		}
		if got := Due(at, 8, 0).Format(time.RFC3339); got != c.want {
			t.Errorf("%s: %s, want %s", c.now, got, c.want)
		}
	}
}

// post is a mail server that takes one message. What it is told is on the channel.
func post(t *testing.T, secure bool) (address string, trust *httptest.Server, got <-chan string) {
	t.Helper()
	trust = httptest.NewTLSServer(http.NotFoundHandler()) // for its certificate, which is for 127.0.0.1
	t.Cleanup(trust.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	all := make(chan string, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(all)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer func() { conn.Close() }()
		var said strings.Builder
		r := bufio.NewReader(conn)
		answer := func(s string) { io.WriteString(conn, s+"\r\n") }
		answer("220 here")
		encrypted, data := false, false
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			said.WriteString(line)
			switch {
			case data:
				if line == ".\r\n" {
					data = false
					answer("250 taken")
				}
			case strings.HasPrefix(line, "EHLO") && secure && !encrypted:
				answer("250-here")
				answer("250 STARTTLS")
			case strings.HasPrefix(line, "EHLO") && encrypted:
				answer("250-here")
				answer("250 AUTH PLAIN")
			case strings.HasPrefix(line, "STARTTLS"):
				answer("220 go on")
				s := tls.Server(conn, &tls.Config{Certificates: trust.TLS.Certificates})
				conn, r, encrypted = s, bufio.NewReader(s), true
			case strings.HasPrefix(line, "AUTH"):
				answer("235 welcome")
			case strings.HasPrefix(line, "DATA"):
				data = true
				answer("354 go on")
			case strings.HasPrefix(line, "QUIT"):
				answer("221 bye")
				all <- said.String()
				return
			default:
				answer("250 ok")
			}
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String(), trust, all
}

func TestMail(t *testing.T) {
	address, trust, got := post(t, true)
	m := &Mail{Server: address, User: "node", Password: "secret", From: "tocsin@here.example", To: []string{"ada@here.example", "bob@here.example"}}
	m.Roots = trust.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	if err := m.Validate(); err != nil {
		t.Fatal(err)
	}
	if err := m.Send(t.Context(), sample()); err != nil {
		t.Fatal(err)
	}
	said := <-got
	before, rest, _ := strings.Cut(said, "DATA\r\n")
	for _, want := range []string{"STARTTLS", "AUTH PLAIN", "MAIL FROM:<tocsin@here.example>", "RCPT TO:<ada@here.example>", "RCPT TO:<bob@here.example>"} {
		if !strings.Contains(before, want) {
			t.Errorf("no %q in\n%s", want, before)
		}
	}
	text, _, _ := strings.Cut(rest, "\r\n.\r\n")
	v, err := mail.ReadMessage(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(quotedprintable.NewReader(v.Body))
	if err != nil || !strings.Contains(string(body), "60  uploads refused") || !strings.Contains(string(body), "ü") {
		t.Errorf("%v\n%s", err, body)
	}
	if s := v.Header.Get("Subject"); s != "tocsin on hashes.example: 60 refused, 2 held, 1 found, 3 waiting" {
		t.Error(s)
	}
	for line := range strings.Lines(text) {
		if len(line) > 200 {
			t.Errorf("a line of %d bytes", len(line))
		}
	}
}

// A certificate that is not believed is an error, and so is a far server without TLS.
func TestMailIsEncrypted(t *testing.T) {
	address, _, _ := post(t, true)
	m := &Mail{Server: address, From: "tocsin@here.example", To: []string{"ada@here.example"}}
	if err := m.Send(t.Context(), sample()); err == nil || !strings.Contains(err.Error(), "TLS") {
		t.Error(err)
	}
	address, _, got := post(t, false)
	m.Server = address
	if err := m.Send(t.Context(), sample()); err != nil {
		t.Errorf("on this machine: %v", err)
	}
	<-got
}

func TestHook(t *testing.T) {
	secret := []byte("shared")
	code := http.StatusNoContent
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		m := regexp.MustCompile(`^t=(\d+),v1=([0-9a-f]{64})$`).FindStringSubmatch(r.Header.Get(Signature))
		if m == nil {
			t.Errorf("signature %q", r.Header.Get(Signature))
			return
		}
		sum := hmac.New(sha256.New, secret)
		sum.Write([]byte(m[1] + "." + string(body)))
		if hex.EncodeToString(sum.Sum(nil)) != m[2] {
			t.Error("the signature is of something else")
		}
		var d Digest
		if err := json.Unmarshal(body, &d); err != nil || d.Refused != 60 || len(d.Items) != MaxItems {
			t.Error(err, d.Refused, len(d.Items))
		}
		w.WriteHeader(code)
	}))
	t.Cleanup(s.Close)
	h := &Hook{URL: s.URL + "/secret-path", Secret: secret}
	if err := h.Send(t.Context(), sample()); err != nil {
		t.Error(err)
	}
	code = http.StatusFound
	if err := h.Send(t.Context(), sample()); err == nil || strings.Contains(err.Error(), "secret-path") {
		t.Error(err)
	}
}

func TestRefused(t *testing.T) {
	for name, m := range map[string]*Mail{
		"port": {Server: "mail.example", From: "a@b.example", To: []string{"a@b.example"}}, "nobody": {Server: "m:25", From: "a@b.example"},
		"from": {Server: "m:25", From: "me", To: []string{"a@b.example"}}, "line": {Server: "m:25", From: "a@b.example", To: []string{"a@b.example\r\nBcc: x@y.example"}},
		"password": {Server: "m:25", From: "a@b.example", To: []string{"a@b.example"}, User: "x"},
	} {
		if m.Validate() == nil {
			t.Errorf("%s: passed", name)
		}
	}
	if (&Hook{URL: "file:///etc/passwd"}).Validate() == nil {
		t.Error("a file passed for a web hook")
	}
}
