package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// publicly serves a handler to strangers.
func publicly(h http.HandlerFunc) func(*Config) {
	return func(c *Config) { c.Public, c.PublicHandler = Listener{Address: "127.0.0.1:0"}, h }
}

// TestPublicTLS speaks to the public listener as servers of the fediverse do, old
// ones too.
func TestPublicTLS(t *testing.T) {
	dir := t.TempDir()
	a := newAuthority(t, "everybody's")
	certFile, keyFile := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	cert, key := a.issue("hashes.example", x509.ExtKeyUsageServerAuth)
	write(t, certFile, cert)
	write(t, keyFile, key)
	n := start(t, publicly(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }), func(c *Config) {
		c.Public.CertFile, c.Public.KeyFile, c.Public.Address = certFile, keyFile, "0.0.0.0:0" // everywhere, since there is TLS
	})
	_, port, _ := net.SplitHostPort(n.PublicAddr())
	for _, c := range []struct {
		version uint16
		http2   bool
		want    string
	}{
		{tls.VersionTLS13, true, "HTTP/2.0"}, {tls.VersionTLS12, true, "HTTP/2.0"}, {tls.VersionTLS12, false, "HTTP/1.1"}, {tls.VersionTLS11, false, ""},
	} {
		protocols := new(http.Protocols)
		protocols.SetHTTP1(!c.http2)
		protocols.SetHTTP2(c.http2)
		tr := &http.Transport{Protocols: protocols, TLSClientConfig: &tls.Config{
			RootCAs: a.pool(), ServerName: "hashes.example", MinVersion: c.version, MaxVersion: c.version,
		}}
		r, err := (&http.Client{Transport: tr}).Get("https://127.0.0.1:" + port)
		got := ""
		if err == nil {
			b, _ := io.ReadAll(r.Body)
			r.Body.Close()
			got = string(b)
		}
		tr.CloseIdleConnections()
		if got != c.want {
			t.Errorf("TLS %#x: %q, %v, want %q", c.version, got, err, c.want)
		}
	}
}

// TestPublicIsBounded gives the public listener what is too much, and too slow.
func TestPublicIsBounded(t *testing.T) {
	t.Parallel()
	n := start(t, publicly(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/panic":
			panic("a bug of the test")
		case "/body":
			_, err := io.ReadAll(r.Body)
			if err != nil {
				t.Errorf("body: %v", err)
			}
		}
		io.WriteString(w, "fine")
	}))
	url := "http://" + n.PublicAddr()
	get := func(path, header string) (int, error) {
		r, err := http.NewRequest(http.MethodGet, url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Test", header)
		v, err := http.DefaultClient.Do(r)
		if err != nil {
			return 0, err
		}
		v.Body.Close()
		return v.StatusCode, nil
	}
	if code, err := get("/", strings.Repeat("x", 8<<10)); code != http.StatusOK {
		t.Errorf("8 KiB of header: %d, %v", code, err)
	}
	if code, err := get("/", strings.Repeat("x", 32<<10)); code != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("32 KiB of header: %d, %v", code, err)
	}
	if code, err := get("/panic", ""); err == nil {
		t.Errorf("a panic: %d", code)
	}
	if !n.metric("tocsin_panics_total 1") {
		t.Error("the panic was not counted")
	}
	// A header that never ends.
	conn, err := net.Dial("tcp", n.PublicAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if err := conn.SetDeadline(begun.Add(4 * headerTime)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); err != nil && time.Since(begun) > 2*headerTime {
		t.Errorf("a slow header: %v after %v", err, time.Since(begun))
	}
	if code, err := get("/", ""); code != http.StatusOK {
		t.Errorf("after all that: %d, %v", code, err)
	}
}

// sham is a listener whose connections come from where the test says.
type sham struct {
	from chan net.Addr
	net.Listener
}

type shamConn struct {
	net.Conn
	from net.Addr
}

func (c *shamConn) RemoteAddr() net.Addr { return c.from }
func (c *shamConn) Close() error         { return nil }

func (s *sham) Accept() (net.Conn, error) {
	a, ok := <-s.from
	if !ok {
		return nil, net.ErrClosed
	}
	return &shamConn{from: a}, nil
}

// TestFair shows that one network cannot hold all connections, and a proxy can.
func TestFair(t *testing.T) {
	from := make(chan net.Addr, 4*perNetwork)
	f := &fair{Listener: &sham{from: from}, held: map[netip.Prefix]int{}}
	come := func(address string, times int) {
		for range times {
			from <- net.TCPAddrFromAddrPort(netip.MustParseAddrPort(address))
		}
	}
	accept := func() net.Conn {
		t.Helper()
		c, err := f.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	var held []net.Conn
	come("[2001:db8::1]:1", perNetwork/2)
	come("[2001:db8::2]:1", perNetwork/2) // the same network
	for range perNetwork {
		held = append(held, accept())
	}
	come("[2001:db8::3]:1", 3)
	come("[2001:db8:0:1::1]:1", 1) // another
	if c := accept(); c.RemoteAddr().String() != "[2001:db8:0:1::1]:1" {
		t.Errorf("%v was let in", c.RemoteAddr())
	}
	held[0].Close()
	held[0].Close() // counts once
	come("[2001:db8::4]:1", 2)
	come("192.0.2.1:1", 1)
	if c := accept(); c.RemoteAddr().String() != "[2001:db8::4]:1" {
		t.Errorf("%v was let in, want the one for whom there is room again", c.RemoteAddr())
	}
	if c := accept(); c.RemoteAddr().String() != "192.0.2.1:1" {
		t.Errorf("%v was let in", c.RemoteAddr())
	}
	for _, proxy := range []string{"127.0.0.1:1", "172.17.0.1:1", "[::ffff:10.0.0.1]:1", "[fd00::1]:1"} {
		come(proxy, perNetwork+1)
		for range perNetwork + 1 {
			if c := accept(); c.RemoteAddr().String() != net.TCPAddrFromAddrPort(netip.MustParseAddrPort(proxy)).String() {
				t.Errorf("%v was let in, want %s", c.RemoteAddr(), proxy)
			}
		}
	}
	for _, c := range held[1:] {
		c.Close()
	}
	close(from)
	if _, err := f.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("at the end: %v", err)
	}
	if len(f.held) != 3 { // the other network, the one that came when there was room, and 192.0.2.1
		t.Errorf("%v is remembered", f.held)
	}
}
