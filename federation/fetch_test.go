package federation

import (
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"
)

var quiet = log.New(io.Discard, "", 0)

// internet is some servers, each at its name under .example, and a fetcher that
// reaches them.
type internet struct {
	fetcher *fetcher
	port    string
	mu      sync.Mutex
	asked   []string // guarded by mu: host and path of each request
}

func (n *internet) origin(host string) string { return "https://" + host + ":" + n.port }

// requests returns what was asked since the last call.
func (n *internet) requests() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	asked := n.asked
	n.asked = nil
	return asked
}

// testCA is a certificate for *.example, localhost and loopback, and the roots that know it.
var testCA = sync.OnceValues(func() (tls.Certificate, *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		DNSNames: []string{"*.example", "localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(c)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
})

// serve is a server with a certificate of testCA. It returns its port.
func serve(t *testing.T, h http.Handler) (s *httptest.Server, port string) {
	t.Helper()
	certificate, _ := testCA()
	s = httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	s.EnableHTTP2 = true
	s.Config.ErrorLog = quiet
	s.StartTLS()
	t.Cleanup(s.Close)
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return s, port
}

func newInternet(t *testing.T, handle func(n *internet, w http.ResponseWriter, r *http.Request)) *internet {
	t.Helper()
	n := &internet{}
	_, port := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.Host)
		n.mu.Lock()
		n.asked = append(n.asked, host+r.URL.Path)
		n.mu.Unlock()
		handle(n, w, r)
	}))
	n.port = port
	_, roots := testCA()
	// Every name is this machine; what the node's own client makes of names is tested where it is.
	client := &http.Client{
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true,
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				_, port, err := net.SplitHostPort(address)
				if err != nil {
					return nil, err
				}
				return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
			},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(client.CloseIdleConnections)
	n.fetcher = &fetcher{client: client, agent: "tocsin/test (+https://hashes.example)", loopback: true}
	return n
}

func activityJSON(w http.ResponseWriter, format string, args ...any) {
	w.Header().Set("Content-Type", typeActivity)
	fmt.Fprintf(w, format, args...)
}

func TestDocument(t *testing.T) {
	n := newInternet(t, func(n *internet, w http.ResponseWriter, r *http.Request) {
		a, other := n.origin("a.example"), n.origin("b.example")
		self := "https://" + r.Host + r.URL.Path
		media := func(m string) {
			w.Header().Set("Content-Type", m)
			fmt.Fprintf(w, `{"id":%q}`, self)
		}
		switch r.URL.Path {
		case "/good":
			if r.Header.Get("Accept") != `application/activity+json, application/ld+json; profile="https://www.w3.org/ns/activitystreams"` ||
				r.Header.Get("User-Agent") != "tocsin/test (+https://hashes.example)" || r.Header.Get("Cookie") != "" {
				http.Error(w, "wrong headers", http.StatusTeapot)
			}
			media(typeActivity)
		case "/charset":
			media("application/activity+json; charset=utf-8")
		case "/ld":
			media(`application/ld+json; profile="https://www.w3.org/ns/activitystreams"`)
		case "/ld2":
			media(`application/ld+json; profile="http://www.w3.org/ns/json-ld#compacted https://www.w3.org/ns/activitystreams"`)
		case "/ld-bare":
			media(`application/ld+json`)
		case "/ld-other":
			media(`application/ld+json; profile="https://www.w3.org/ns/activitystreams2"`)
		case "/json":
			media("application/json")
		case "/html":
			media("text/html; x=application/activity+json")
		case "/two-types":
			w.Header().Add("Content-Type", "text/html")
			media2 := w.Header().Values("Content-Type")
			w.Header()["Content-Type"] = append(media2, typeActivity)
			fmt.Fprintf(w, `{"id":%q}`, self)
		case "/no-type":
			w.Header()["Content-Type"] = nil
			fmt.Fprintf(w, `{"id":%q}`, self)
		case "/gzip":
			w.Header().Set("Content-Type", typeActivity)
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			fmt.Fprintf(z, `{"id":%q}`, self)
			z.Close()
		case "/bomb":
			w.Header().Set("Content-Type", typeActivity)
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			fmt.Fprintf(z, `{"id":%q,"x":"`, self)
			spaces := []byte(strings.Repeat(" ", 1<<16))
			for range 256 {
				z.Write(spaces)
			}
			z.Close()
		case "/brotli":
			w.Header().Set("Content-Encoding", "br")
			media(typeActivity)
		case "/exactly":
			activityJSON(w, "%s", exactly(self, 4096))
		case "/one-more":
			activityJSON(w, "%s ", exactly(self, 4096))
		case "/stream":
			activityJSON(w, `{"id":%q,"x":"`, self)
			for {
				if _, err := fmt.Fprintf(w, "%04096d", 0); err != nil || r.Context().Err() != nil {
					return
				}
			}
		case "/short", "/shorter":
			w.Header().Set("Content-Length", "300")
			activityJSON(w, `{"id":%q}`, self)
		case "/redirect":
			http.Redirect(w, r, "/good", http.StatusMovedPermanently)
		case "/redirect3":
			http.Redirect(w, r, "/redirect2", http.StatusTemporaryRedirect)
		case "/redirect2":
			http.Redirect(w, r, a+"/redirect", http.StatusPermanentRedirect)
		case "/redirect4":
			http.Redirect(w, r, "/redirect3", http.StatusFound)
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/abroad":
			http.Redirect(w, r, other+"/good", http.StatusFound)
		case "/private":
			http.Redirect(w, r, "https://169.254.169.254/latest/meta-data", http.StatusFound)
		case "/plain":
			http.Redirect(w, r, "http://a.example:"+n.port+"/good", http.StatusFound)
		case "/nowhere":
			w.WriteHeader(http.StatusFound)
		case "/script":
			w.Header().Set("Location", "javascript:alert(1)")
			w.WriteHeader(http.StatusFound)
		case "/choices":
			w.Header().Set("Location", "/good")
			w.WriteHeader(http.StatusMultipleChoices)
		case "/moved-id":
			activityJSON(w, `{"id":"%s/good"}`, a)
		case "/moved-id-key":
			activityJSON(w, `{"id":"%s/good#main-key"}`, a)
		case "/moved-id-twice":
			activityJSON(w, `{"id":"%s/moved-id"}`, a)
		case "/moved-id-redirect":
			activityJSON(w, `{"id":"%s/redirect"}`, a)
		case "/abroad-id":
			activityJSON(w, `{"id":"%s/good"}`, other)
		case "/port-id":
			activityJSON(w, `{"id":"https://a.example/port-id"}`)
		case "/no-id":
			activityJSON(w, `{"type":"Person"}`)
		case "/number-id":
			activityJSON(w, `{"id":1}`)
		case "/two-ids":
			activityJSON(w, `{"id":%q,"\u0069d":"%s/good"}`, self, other)
		case "/nested-id":
			activityJSON(w, `{"x":{"id":%q}}`, self)
		case "/array":
			activityJSON(w, `[{"id":%q}]`, self)
		case "/two-documents":
			activityJSON(w, `{"id":%q}{}`, self)
		case "/broken":
			activityJSON(w, `{"id":%q,"x":[}`, self)
		case "/gone":
			http.Error(w, strings.Repeat("gone ", 1<<12), http.StatusGone)
		case "/busy":
			w.Header().Set("Retry-After", "90")
			w.WriteHeader(http.StatusTooManyRequests)
		case "/sign":
			w.WriteHeader(http.StatusUnauthorized)
		case "/empty":
			w.WriteHeader(http.StatusNoContent)
		default:
			http.NotFound(w, r)
		}
	})
	a := n.origin("a.example")
	for _, c := range []struct {
		path string
		says string // "" if it is fetched
		from string // where it comes from, path if ""
		asks int    // requests, 1 if 0
	}{
		{"/good", "", "", 1}, {"/good#main-key", "", "/good", 1},
		{"/charset", "", "", 1}, {"/ld", "", "", 1}, {"/ld2", "", "", 1}, {"/gzip", "", "", 1}, {"/exactly", "", "", 1},
		{"/redirect", "", "/good", 2}, {"/redirect3", "", "/good", 4},
		{"/moved-id", "", "/good", 2},
		{"/ld-bare", "media type", "", 1}, {"/ld-other", "media type", "", 1}, {"/json", "media type", "", 1}, {"/html", "media type", "", 1},
		{"/two-types", "2 media types", "", 1}, {"/no-type", "0 media types", "", 1},
		{"/brotli", "not asked for", "", 1}, {"/bomb", "larger than 4096", "", 1},
		{"/one-more", "larger than 4096", "", 1}, {"/stream", "larger than 4096", "", 1}, {"/short", "read the answer", "", 1},
		{"/redirect4", "more than 3 redirects", "", 4}, {"/loop", "more than 3 redirects", "", 4},
		{"/abroad", "redirects to another server", "", 1}, {"/private", "redirects to another server", "", 1},
		{"/plain", "redirects to another server", "", 1}, {"/nowhere", "redirects to nowhere", "", 1}, {"/script", "redirects", "", 1},
		{"/choices", "300", "", 1},
		{"/moved-id-key", "", "/good", 2}, {"/moved-id-twice", "none of them can be believed", "", 2},
		{"/moved-id-redirect", "", "/good", 3},
		{"/abroad-id", "of another server", "", 1}, {"/port-id", "of another server", "", 1},
		{"/no-id", "has no id", "", 1}, {"/number-id", "has no id", "", 1}, {"/nested-id", "has no id", "", 1}, {"/two-ids", "id twice", "", 1},
		{"/array", "not a JSON object", "", 1}, {"/two-documents", "not one JSON", "", 1}, {"/broken", "not one JSON", "", 1},
		{"/gone", "410 Gone", "", 1}, {"/missing", "404 Not Found", "", 1}, {"/empty", "204", "", 1},
		{"/busy", "wants to be left alone for 1m30s", "", 1}, {"/sign", "401", "", 1},
	} {
		t.Run(c.path, func(t *testing.T) {
			n.requests()
			raw, err := n.fetcher.document(t.Context(), a+c.path, 4096)
			asked := n.requests()
			if len(asked) != c.asks {
				t.Errorf("asked for %v", asked)
			}
			for _, r := range asked {
				if !strings.HasPrefix(r, "a.example/") {
					t.Errorf("asked %s", r)
				}
			}
			if c.says != "" {
				if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), a+"/") || len(err.Error()) > 900 {
					t.Errorf("got %.100s, %v, want an error that says %q", raw, err, c.says)
				}
				return
			}
			from := c.from
			if from == "" {
				from = c.path
			}
			if err != nil || !strings.Contains(string(raw), `"`+a+from+`"`) {
				t.Errorf("got %.100s, %v", raw, err)
			}
		})
	}
	var status *statusError
	if _, err := n.fetcher.document(t.Context(), a+"/busy", 4096); !errors.As(err, &status) || status.Code != 429 || status.RetryAfter != 90*time.Second {
		t.Errorf("%+v, %v", status, err)
	}
	n.requests()
	n.fetcher.loopback = false
	for _, address := range []string{
		"", "/good", "a.example/good", "http://a.example/good", "https://", "https:///good", "https://u@a.example/", "https://u:p@a.example/",
		"https://A.example/", "https://a.example:/", "https:good", "ftp://a.example/", "https://a.example/ x", "https://a.example/\n", "https://a.example/é",
		"https://a.example/" + strings.Repeat("x", maxAddress), "https://a.example:99999999/", "javascript:alert(1)",
	} {
		if raw, err := n.fetcher.document(t.Context(), address, 4096); err == nil || len(err.Error()) > 900 {
			t.Errorf("%.80q: %s, %v", address, raw, err)
		}
	}
	if asked := n.requests(); len(asked) != 0 {
		t.Errorf("asked for %v", asked)
	}
}

// exactly makes a document of n bytes.
func exactly(id string, n int) string {
	head := fmt.Sprintf(`{"id":%q,"x":"`, id)
	return head + strings.Repeat("x", n-len(head)-2) + `"}`
}

func TestRaw(t *testing.T) {
	n := newInternet(t, func(n *internet, w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/head":
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			io.WriteString(w, "hashes.example/lists/csam\n1\n")
		case "/query":
			w.Header().Set("Content-Type", r.Header.Get("Accept"))
			io.WriteString(w, r.URL.RawQuery)
		case "/abroad":
			http.Redirect(w, r, n.origin("b.example")+"/head", http.StatusFound)
		}
	})
	a := n.origin("a.example")
	if b, err := n.fetcher.raw(t.Context(), a+"/head", "text/plain", 100); err != nil || string(b) != "hashes.example/lists/csam\n1\n" {
		t.Errorf("%q, %v", b, err)
	}
	if b, err := n.fetcher.raw(t.Context(), a+"/query?x=%2F&y", "application/json", 100); err != nil || string(b) != "x=%2F&y" {
		t.Errorf("%q, %v", b, err)
	}
	for _, c := range []struct {
		path, accept, says string
		limit              int64
	}{
		{"/head", "application/json", "media type", 100},
		{"/head", "text/plain", "larger than 10", 10},
		{"/abroad", "text/plain", "another server", 100},
	} {
		if b, err := n.fetcher.raw(t.Context(), a+c.path, c.accept, c.limit); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %q, %v", c.path, b, err)
		}
	}
}

// TestSlow: a server that takes its time gets ten seconds for all of it, with
// redirects and with the document fetched again.
func TestSlow(t *testing.T) {
	for name, handle := range map[string]http.HandlerFunc{
		"never answers": func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"slow header": func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-time.After(time.Hour):
			}
		},
		"slow body": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", typeActivity)
			for r.Context().Err() == nil {
				io.WriteString(w, " ")
				w.(http.Flusher).Flush()
				select {
				case <-r.Context().Done():
				case <-time.After(time.Second):
				}
			}
		},
		"slow redirects": func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-time.After(4 * time.Second):
			}
			http.Redirect(w, r, r.URL.Path+"x", http.StatusFound)
		},
		"slow twice": func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-time.After(6 * time.Second):
			}
			activityJSON(w, `{"id":"http://slow.example/x"}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
				server := &http.Server{Handler: handle, ErrorLog: quiet}
				var serving sync.WaitGroup
				serving.Go(func() { server.Serve(l) })
				transport := &http.Transport{DialContext: l.dial}
				f := &fetcher{client: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, loopback: true}
				begin := time.Now()
				raw, err := f.document(context.Background(), "http://slow.example/", 4096)
				if took := time.Since(begin); took != fetchTime {
					t.Errorf("took %v", took)
				}
				if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "in time") {
					t.Errorf("%s, %v", raw, err)
				}
				transport.CloseIdleConnections()
				server.Close()
				serving.Wait()
			})
		})
	}
}

// pipes is a listener whose connections are in memory, so that the clock of a
// synctest bubble moves while they wait.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.conns <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"": 0, "0": 0, "30": 30 * time.Second, "-5": 0, "x": 0, "99999999999999999999": 0, "4000000000": 24 * time.Hour,
		"Sun, 22 Nov 2026 12:01:00 GMT": time.Minute, "Sun, 22 Nov 2026 11:00:00 GMT": 0, "Mon, 22 Nov 2027 11:00:00 GMT": 24 * time.Hour, "1.5": 0,
	} {
		if got := retryAfter(header, now); got != want {
			t.Errorf("%q: %v, want %v", header, got, want)
		}
	}
}

// TestTamed: what the other side sends does not get into a log unbounded.
func TestTamed(t *testing.T) {
	inner := errors.New("x\x1b[2J\r\n\u202e" + string([]byte{0xff}) + strings.Repeat("é", 1000))
	err := tame(inner)
	if !errors.Is(err, inner) || len(err.Error()) > 300 || strings.ContainsAny(err.Error(), "\x1b\r\n\u202e") || !utf8.ValidString(err.Error()) || !strings.HasSuffix(err.Error(), "é…") {
		t.Errorf("%q", err.Error())
	}
}

func FuzzTopMember(f *testing.F) {
	for _, s := range []string{`{"id":"x"}`, `{"a":{"id":1},"id":[]}`, `{"id":1,"\u0069d":2}`, `[]`, `{"id"`, `{"id":1}x`, ``, ` { "x" : "\\"},{" , "id" : {"id":[1,"]"]} , "y":[{"id":2},3]}`, `{"id":"a\\\\","x":"id"}`, `{"x":{"id":1}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := topMember(data, "id")
		if err != nil {
			return
		}
		doc, err := canonical(data)
		if err != nil {
			return
		}
		// Where both read it, they read the same.
		o := newObject(doc)
		if o.has("id") != (v != nil) {
			t.Fatalf("%s: %s", data, v)
		}
		if v != nil {
			if c, err := canonical([]byte(`{"id":` + string(v) + `}`)); err != nil || string(c) != `{"id":`+string(o.values["id"])+`}` {
				t.Errorf("%s: %s, %v", data, v, err)
			}
		}
	})
}
