package server

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"

	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

func TestValidate(t *testing.T) {
	base, _ := testConfig(t)
	if err := base.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(*Config)
		want   string // in the error; "" for none
	}{
		{"gRPC everywhere", func(c *Config) { c.GRPC.Address = "0.0.0.0:0" }, "grpc.cert_file"},
		{"gRPC everywhere, IPv6", func(c *Config) { c.GRPC.Address = "[::]:0" }, "grpc.cert_file"},
		{"gRPC on no host", func(c *Config) { c.GRPC.Address = ":7447" }, "every address"},
		{"gRPC on a private network", func(c *Config) { c.GRPC.Address = "10.1.2.3:7447" }, "grpc.socket"},
		{"gRPC on a mapped address", func(c *Config) { c.GRPC.Address = "[::ffff:10.1.2.3]:1" }, "grpc.cert_file"},
		{"gRPC on IPv4 in other words", func(c *Config) { c.GRPC.Address = "[::ffff:127.0.0.1]:1" }, ""},
		{"gRPC on another loopback address", func(c *Config) { c.GRPC.Address = "127.1.2.3:1" }, ""},
		{"gRPC on localhost", func(c *Config) { c.GRPC.Address = "localhost:1" }, ""},
		{"gRPC on no name there is", func(c *Config) { c.GRPC.Address = "nowhere.invalid:1" }, "cannot tell"},
		{"gRPC with plaintext allowed", func(c *Config) { c.GRPC.Plaintext = true }, "grpc.cert_file"},
		{"gRPC nowhere", func(c *Config) { c.GRPC = Listener{} }, "grpc.address"},
		{"gRPC on the socket alone", func(c *Config) { c.GRPC.Address = "" }, ""},
		{"gRPC without a port", func(c *Config) { c.GRPC.Address = "127.0.0.1" }, "host:port"},
		{"half of TLS", func(c *Config) { c.GRPC.CertFile = "x" }, "key_file"},
		{"mTLS without TLS", func(c *Config) { c.GRPC.ClientCAFile = "x" }, "needs TLS"},
		{"HTTP everywhere", func(c *Config) { c.HTTP.Address = "0.0.0.0:0" }, "http.plaintext"},
		{"HTTP everywhere, as told", func(c *Config) { c.HTTP.Address, c.HTTP.Plaintext = "0.0.0.0:0", true }, ""},
		{"HTTP nowhere", func(c *Config) { c.HTTP.Address = "" }, ""},
		{"HTTP on a socket", func(c *Config) { c.HTTP.Socket = "x" }, "http.address"},
		{"federation everywhere", func(c *Config) { c.Public.Address = "0.0.0.0:0" }, "federation.plaintext"},
		{"federation everywhere, as told", func(c *Config) { c.Public.Address, c.Public.Plaintext = "0.0.0.0:0", true }, ""},
		{"federation for those with certificates", func(c *Config) { c.Public.ClientCAFile = "x" }, "everybody"},
		{"federation on a socket", func(c *Config) { c.Public.Socket = "x" }, "federation.address"},
		{"hook", func(c *Config) { c.Hook.Video = "maybe" }, "video"},
		{"origin with a path", func(c *Config) { c.Origin = testOrigin + "/x" }, "path"},
		{"no origin", func(c *Config) { c.Origin = "" }, "origin"},
		{"quality", func(c *Config) { c.Policy.MinQuality = 101 }, "quality"},
		{"limit", func(c *Config) { c.Limit.LookupsPerSecond = -1 }, "lookups"},
		{"burst", func(c *Config) { c.Limit.Burst = -1 }, "limit"},
		{"messages", func(c *Config) { c.Limit.MessageBytes = 1000 }, "message"},
		{"files", func(c *Config) { c.Limit.MediaBytes = 1 << 40 }, "file"},
	} {
		cfg := base
		c.change(&cfg)
		err := cfg.Validate()
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want something of %q", c.name, err, c.want)
		}
	}
	if _, err := New(Config{}); err == nil {
		t.Error("a server of nothing")
	}
}

// serveOnce runs a server until it has closed its listeners.
func serveOnce(t *testing.T, s *Server) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Serve(ctx); err != nil {
		t.Error(err)
	}
}

func TestSocket(t *testing.T) {
	n := start(t)
	info, err := os.Stat(n.socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("socket: %v, %v", info.Mode(), err)
	}
	left, err := os.ReadDir(filepath.Dir(n.socket))
	if err != nil || len(left) != 1 {
		t.Errorf("beside the socket: %v, %v", left, err)
	}
	cfg, _ := testConfig(t)
	cfg.GRPC = Listener{Socket: n.socket}
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "running already") {
		t.Errorf("a socket in use: %v", err)
	}
	if _, err := pb.NewAdminServiceClient(n.owner()).GetStatus(t.Context(), &pb.GetStatusRequest{}); err != nil {
		t.Errorf("after that: %v", err)
	}

	dir := t.TempDir()
	stale := filepath.Join(dir, "stale")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	cfg.GRPC.Socket = stale
	s, err := New(cfg)
	if err != nil {
		t.Fatalf("a socket left behind: %v", err)
	}
	serveOnce(t, s)
	if _, err := os.Lstat(stale); !os.IsNotExist(err) {
		t.Errorf("the socket was left behind: %v", err)
	}

	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.GRPC.Socket = file
	if _, err := New(cfg); err == nil {
		t.Error("a file was taken for a socket")
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious" {
		t.Errorf("the file: %q, %v", b, err)
	}
	long := filepath.Join(dir, strings.Repeat("x", 100))
	cfg.GRPC.Socket = long
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("a long path: %v", err)
	}
	cfg.GRPC.Socket = filepath.Join(dir, "none", "s")
	if _, err := New(cfg); err == nil {
		t.Error("a socket in no directory")
	}
}

// TestNewFailsClean shows that what New opened before it failed is closed.
func TestNewFailsClean(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	cfg, _ := testConfig(t)
	cfg.HTTP.Address = taken.Addr().String()
	if _, err := New(cfg); err == nil {
		t.Fatal("an address was taken twice")
	}
	if _, err := os.Lstat(cfg.GRPC.Socket); !os.IsNotExist(err) {
		t.Errorf("the socket is there: %v", err)
	}
	cfg.HTTP.Address = "127.0.0.1:0"
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	serveOnce(t, s)
}

// authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	n    int64
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{t: t, cert: cert, key: key, n: 1}
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// issue returns a certificate and its key in PEM.
func (a *authority) issue(name string, usage x509.ExtKeyUsage) (cert, key []byte) {
	a.t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	a.n++
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(a.n), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, k.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		a.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

func write(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile, caFile := filepath.Join(dir, "cert"), filepath.Join(dir, "key"), filepath.Join(dir, "ca")
	servers, clients, strangers := newAuthority(t, "servers"), newAuthority(t, "clients"), newAuthority(t, "strangers")
	cert, key := servers.issue("node.test", x509.ExtKeyUsageServerAuth)
	write(t, certFile, cert)
	write(t, keyFile, key)
	write(t, caFile, clients.pem())
	n := start(t, func(c *Config) {
		// Every address, since there is TLS.
		c.GRPC = Listener{Address: "0.0.0.0:0", Socket: c.GRPC.Socket, CertFile: certFile, KeyFile: keyFile, ClientCAFile: caFile}
		c.HTTP = Listener{Address: "127.0.0.1:0", CertFile: certFile, KeyFile: keyFile}
	})
	_, port, _ := net.SplitHostPort(n.grpc)
	address := "127.0.0.1:" + port
	secret := n.token("t", ScopeLookup)
	client := func(a *authority) *tls.Config {
		c := &tls.Config{RootCAs: servers.pool(), ServerName: "node.test"}
		if a != nil {
			pair, err := tls.X509KeyPair(a.issue("client", x509.ExtKeyUsageClientAuth))
			if err != nil {
				t.Fatal(err)
			}
			c.Certificates = []tls.Certificate{pair}
		}
		return c
	}
	call := func(c *tls.Config, token string) error {
		conn := n.dial(address, token, grpc.WithTransportCredentials(credentials.NewTLS(c)))
		defer conn.Close()
		_, err := pb.NewListServiceClient(conn).ListLists(t.Context(), &pb.ListListsRequest{})
		return err
	}
	old := client(clients)
	old.MaxVersion = tls.VersionTLS12
	wrongUse := client(nil)
	if pair, err := tls.X509KeyPair(clients.issue("client", x509.ExtKeyUsageServerAuth)); err == nil {
		wrongUse.Certificates = []tls.Certificate{pair}
	}
	wantCode(t, "with certificate and token", call(client(clients), secret), codes.OK)
	wantCode(t, "with certificate, without token", call(client(clients), ""), codes.Unauthenticated)
	wantCode(t, "without certificate", call(client(nil), secret), codes.Unavailable)
	wantCode(t, "with a stranger's certificate", call(client(strangers), secret), codes.Unavailable)
	wantCode(t, "with a server's certificate", call(wrongUse, secret), codes.Unavailable)
	wantCode(t, "TLS 1.2", call(old, secret), codes.Unavailable)
	_, err := pb.NewListServiceClient(n.dial(address, secret)).ListLists(t.Context(), &pb.ListListsRequest{})
	wantCode(t, "plaintext", err, codes.Unavailable)

	// HTTP, without mTLS.
	get := func() error {
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: servers.pool(), ServerName: "node.test"}, DisableKeepAlives: true}
		defer tr.CloseIdleConnections()
		v, err := (&http.Client{Transport: tr}).Get(strings.Replace(n.http, "http://", "https://", 1) + "/readyz")
		if err == nil {
			v.Body.Close()
		}
		return err
	}
	if err := get(); err != nil {
		t.Errorf("https: %v", err)
	}

	// A new certificate of another authority counts for the next connection, once
	// its key is there too.
	before := *servers
	*servers = *newAuthority(t, "servers, renewed")
	cert, key = servers.issue("node.test", x509.ExtKeyUsageServerAuth)
	write(t, certFile, cert)
	renewed := servers
	servers = &before
	wantCode(t, "the certificate is new, the key is not", call(client(clients), secret), codes.OK)
	write(t, keyFile, key)
	wantCode(t, "both are new, the caller knows the old", call(client(clients), secret), codes.Unavailable)
	servers = renewed
	wantCode(t, "both are new", call(client(clients), secret), codes.OK)
	if err := get(); err != nil {
		t.Errorf("https, renewed: %v", err)
	}
	// A file that is broken or gone changes nothing.
	write(t, keyFile, key[:20])
	wantCode(t, "a broken key", call(client(clients), secret), codes.OK)
	if err := os.Remove(certFile); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		wantCode(t, "no certificate", call(client(clients), secret), codes.OK)
	}
	if got := strings.Count(n.logged.String(), "is gone"); got != 1 {
		t.Errorf("that a file is gone was logged %d times", got)
	}
	write(t, certFile, cert)
	write(t, keyFile, key)
	// An authority of callers that is taken away.
	write(t, caFile, strangers.pem())
	wantCode(t, "a caller of the authority before", call(client(clients), secret), codes.Unavailable)
	wantCode(t, "a caller of the authority now", call(client(strangers), secret), codes.OK)
	if bytes.Contains([]byte(n.logged.String()), key) {
		t.Error("the key is in the log")
	}
}

func TestTLSRefuses(t *testing.T) {
	dir := t.TempDir()
	ca := newAuthority(t, "a")
	cert, key := ca.issue("node.test", x509.ExtKeyUsageServerAuth)
	_, otherKey := ca.issue("node.test", x509.ExtKeyUsageServerAuth)
	for name, b := range map[string][]byte{"cert": cert, "key": key, "other": otherKey, "text": []byte("hello")} {
		write(t, filepath.Join(dir, name), b)
	}
	for _, files := range [][3]string{{"cert", "other", ""}, {"cert", "none", ""}, {"text", "key", ""}, {"cert", "key", "text"}, {"cert", "key", "none"}} {
		cfg, _ := testConfig(t)
		cfg.GRPC.CertFile, cfg.GRPC.KeyFile = filepath.Join(dir, files[0]), filepath.Join(dir, files[1])
		if files[2] != "" {
			cfg.GRPC.ClientCAFile = filepath.Join(dir, files[2])
		}
		if s, err := New(cfg); err == nil {
			t.Errorf("%v: no error", files)
			serveOnce(t, s)
		}
	}
}
