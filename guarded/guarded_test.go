package guarded

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"code.dny.dev/ssrf"
	"golang.org/x/net/dns/dnsmessage"
)

var quiet = log.New(io.Discard, "", 0)

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

// names is a resolver that asks answer, and nothing outside this process.
func names(t *testing.T, answer func(name string) []string) *net.Resolver {
	var servers sync.WaitGroup
	t.Cleanup(servers.Wait)
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		servers.Go(func() {
			defer server.Close()
			for {
				if err := serveDNS(server, answer); err != nil {
					if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) {
						t.Errorf("name server: %v", err)
					}
					return
				}
			}
		})
		return client, nil
	}}
}

func serveDNS(c net.Conn, answer func(name string) []string) error {
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return err
	}
	query := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(c, query); err != nil {
		return err
	}
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		return err
	}
	m.Header.Response, m.Header.RecursionAvailable, m.Additionals = true, true, nil
	q := m.Questions[0]
	head := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}
	for _, a := range answer(strings.TrimSuffix(q.Name.String(), ".")) {
		switch ip := netip.MustParseAddr(a); {
		case ip.Is4() && q.Type == dnsmessage.TypeA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AResource{A: ip.As4()}})
		case ip.Is6() && q.Type == dnsmessage.TypeAAAA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AAAAResource{AAAA: ip.As16()}})
		}
	}
	packed, err := m.Pack()
	if err != nil {
		return err
	}
	_, err = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(packed))), packed...))
	return err
}

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

// servePlain is a server without a certificate.
func servePlain(t *testing.T, h http.Handler) (s *httptest.Server, port string) {
	t.Helper()
	s = httptest.NewServer(h)
	s.Config.ErrorLog = quiet
	t.Cleanup(s.Close)
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return s, port
}

func TestGuardians(t *testing.T) {
	production, none := guardians(Options{})
	secure, plain := guardians(Options{Loopback: true})
	if none != nil {
		t.Error("in production http is spoken")
	}
	for _, c := range []struct {
		addresses string
		all       [3]bool // allowed in production, with loopback, with loopback by http
	}{
		{"127.0.0.1 127.255.255.254 ::1", [3]bool{false, true, true}},
		{"8.8.8.8 1.1.1.1 185.1.2.3 2a00:1450:4001::1 2600::1", [3]bool{true, true, false}},
		{`0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.254 169.254.169.254 172.16.0.1 172.31.255.255
			192.168.0.1 192.168.255.255 192.0.0.1 192.0.2.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255
			240.0.0.1 255.255.255.255 :: fe80::1 fe80::1%eth0 fc00::1 fd12:3456::1 ff02::1 2001:db8::1 2002:7f00:1:: 2001::1
			64:ff9b::7f00:1 64:ff9b::8.8.8.8 64:ff9b:1::1 100::1 ::ffff:10.0.0.1 ::ffff:127.0.0.1 ::ffff:169.254.169.254
			::127.0.0.1 ::ffff:0:127.0.0.1 3fff::1 5f00::1 fec0::1`, [3]bool{}},
	} {
		for _, text := range strings.Fields(c.addresses) {
			a := netip.MustParseAddr(text)
			network := "tcp4"
			if a.Is6() {
				network = "tcp6"
			}
			for i, g := range []*ssrf.Guardian{production, secure, plain} {
				err := g.Safe(network, netip.AddrPortFrom(a, 8443).String(), nil)
				if (err == nil) != c.all[i] {
					t.Errorf("%s in setting %d: %v", text, i, err)
				}
			}
		}
	}
}

// TestClientRefuses asks for addresses of this very machine, where somebody
// listens, and of others.
func TestClientRefuses(t *testing.T) {
	var reached atomic.Int32
	_, port := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	_, roots := testCA()
	resolver := names(t, func(name string) []string {
		switch name {
		case "private.example":
			return []string{"10.0.0.1"}
		case "self.example":
			return []string{"127.0.0.1"}
		case "both.example":
			return []string{"192.168.1.1", "127.0.0.1"}
		case "mapped.example":
			return []string{"::ffff:127.0.0.1"}
		case "public.example":
			return []string{"8.8.8.8"}
		}
		return nil
	})
	for _, c := range []struct {
		loopback bool
		urls     string
	}{
		{false, `https://127.0.0.1:PORT https://127.1.2.3:PORT https://localhost:PORT https://self.example:PORT https://both.example:PORT
			https://private.example:PORT https://mapped.example:PORT https://0.0.0.0:PORT https://10.0.0.1 https://172.16.3.4 https://192.168.0.1
			https://169.254.169.254/latest/meta-data https://100.64.0.1 https://[::ffff:127.0.0.1]:PORT https://224.0.0.1 https://255.255.255.255`},
		{true, `https://private.example:PORT https://10.0.0.1 https://169.254.169.254 https://0.0.0.0:PORT
			http://private.example:PORT http://10.0.0.1 http://8.8.8.8 http://public.example http://169.254.169.254/latest/meta-data`},
	} {
		client := Client(Options{Loopback: c.loopback, Roots: roots, Resolver: resolver})
		for _, u := range strings.Fields(strings.ReplaceAll(c.urls, "PORT", port)) {
			res, err := client.Get(u)
			if err == nil {
				res.Body.Close()
			}
			if !errors.Is(err, ssrf.ErrProhibitedIP) || !strings.Contains(err.Error(), "does not connect to such addresses") {
				t.Errorf("loopback %v, %s: %v", c.loopback, u, err)
			}
		}
	}
	for _, u := range []string{"http://127.0.0.1:" + port, "http://8.8.8.8", "ftp://self.example", "file:///etc/passwd"} {
		if res, err := Client(Options{Roots: roots, Resolver: resolver}).Get(u); err == nil || !strings.Contains(err.Error(), "only https") {
			t.Errorf("%s: %v, %v", u, res, err)
		}
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("%d requests got through", n)
	}
}

// TestRebinding: a name that means something else the second time is checked the second time.
func TestRebinding(t *testing.T) {
	var asked, reached atomic.Int32
	_, port := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	_, roots := testCA()
	client := Client(Options{Loopback: true, Roots: roots, Resolver: names(t, func(string) []string {
		if asked.Add(1) <= 2 { // A and AAAA
			return []string{"127.0.0.1"}
		}
		return []string{"10.0.0.1"}
	})})
	res, err := client.Get("https://rebinding.example:" + port)
	if err != nil {
		t.Fatal(err)
	}
	if res.ProtoMajor != 2 {
		t.Errorf("spoke %s, want HTTP/2", res.Proto)
	}
	res.Body.Close()
	client.CloseIdleConnections()
	if res, err := client.Get("https://rebinding.example:" + port); !errors.Is(err, ssrf.ErrProhibitedIP) {
		t.Errorf("%v, %v", res, err)
	}
	if reached.Load() != 1 {
		t.Errorf("%d requests got through, want 1", reached.Load())
	}
}

func TestClientSettings(t *testing.T) {
	var sawRedirect atomic.Int32
	_, port := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sawRedirect.Add(1)
		http.SetCookie(w, &http.Cookie{Name: "a", Value: "b"})
		http.Redirect(w, r, "/elsewhere", http.StatusFound)
	}))
	_, roots := testCA()
	client := Client(Options{Loopback: true, Roots: roots})
	res, err := client.Get("https://127.0.0.1:" + port)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusFound || sawRedirect.Load() != 1 {
		t.Errorf("got %s after %d requests: a redirect was followed", res.Status, sawRedirect.Load())
	}
	if client.Jar != nil {
		t.Error("there is a cookie jar")
	}
	for _, loopback := range []bool{false, true} {
		g := Client(Options{Loopback: loopback}).Transport.(*guard)
		for _, transport := range []*http.Transport{g.https, g.http} {
			if transport == nil {
				if loopback {
					t.Error("no http with the development switch")
				}
				continue
			}
			if transport.Proxy != nil {
				t.Error("a proxy from the environment goes around the guard")
			}
			if transport.TLSClientConfig.InsecureSkipVerify {
				t.Error("certificates are not checked")
			}
		}
	}
	// A certificate that nobody vouches for, and TLS of yesterday.
	if res, err := Client(Options{Loopback: true}).Get("https://127.0.0.1:" + port); err == nil {
		t.Errorf("%v from a server with an unknown certificate", res.Status)
	}
	certificate, _ := testCA()
	old := httptest.NewUnstartedServer(http.NotFoundHandler())
	old.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, MaxVersion: tls.VersionTLS11}
	old.Config.ErrorLog = quiet
	old.StartTLS()
	defer old.Close()
	if res, err := client.Get(old.URL); err == nil {
		t.Errorf("%v by TLS 1.1", res.Status)
	}
}

// TestLocalhost: a machine whose resolver does not know localhost is reached by it all
// the same, and only where loopback is reached at all.
func TestLocalhost(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	defer s.Close()
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	nobody := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("no resolver")
	}}
	dial := dialLocalhost(&net.Dialer{Resolver: nobody})
	for _, host := range []string{"localhost", "a.localhost"} {
		conn, err := dial(t.Context(), "tcp", net.JoinHostPort(host, port))
		if err != nil {
			t.Errorf("%s: %v", host, err)
			continue
		}
		conn.Close()
	}
	if conn, err := dial(t.Context(), "tcp", net.JoinHostPort("localhost.example", port)); err == nil {
		conn.Close()
		t.Error("localhost.example was taken for this machine")
	}
	if r, err := Client(Options{Resolver: nobody}).Get("https://localhost:" + port); err == nil {
		r.Body.Close()
		t.Error("loopback was reached without the switch")
	}
}
