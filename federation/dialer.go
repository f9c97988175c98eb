package federation

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"code.dny.dev/ssrf"
)

// NewClient returns the one client that this node speaks to others with. It
// connects to public addresses and, with loopback, to loopback as well; by https,
// and by http to loopback alone, with loopback.
//
// The address is checked after DNS and immediately before connect, each time: a
// name that means something else by then (DNS rebinding) gains nothing. Without that check,
// whoever may name an address to us, as in a key id, could have this node ask the
// machines behind its firewall. There is no proxy, not even from the environment,
// because the check would see the proxy's address. Redirects are handed to
// the caller, who knows what they must not change.
//
// NAT64 is refused with the rest: 64:ff9b::7f00:1 is 127.0.0.1. A node must have
// an IPv4 address of its own to reach peers that have no other.
//
// Bodies are decompressed and without bound: the caller limits what it reads.
func NewClient(loopback bool) *http.Client { return guardedClient(loopback, nil, nil) }

// guardedClient has what tests set: roots in the place of the system's, and where
// names are looked up. The guard itself is the same.
func guardedClient(loopback bool, roots *x509.CertPool, resolver *net.Resolver) *http.Client {
	secure, plain := guardians(loopback)
	g := &guard{https: guardedTransport(secure, roots, resolver)}
	if plain != nil {
		g.http = guardedTransport(plain, roots, resolver)
	}
	return &http.Client{
		Transport:     g,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       time.Minute, // of an answer with its body; callers set shorter ones
	}
}

// guardians tell where https and http may lead. plain is nil if http is refused.
func guardians(loopback bool) (secure, plain *ssrf.Guardian) {
	if !loopback {
		return ssrf.New(ssrf.WithAnyPort()), nil
	}
	own := []ssrf.Option{
		ssrf.WithAnyPort(),
		ssrf.WithAllowedV4Prefixes(netip.MustParsePrefix("127.0.0.0/8")),
		ssrf.WithAllowedV6Prefixes(netip.MustParsePrefix("::1/128")),
	}
	return ssrf.New(own...), ssrf.New(append(own,
		ssrf.WithDeniedV4Prefixes(netip.MustParsePrefix("0.0.0.0/0")),
		ssrf.WithDeniedV6Prefixes(netip.MustParsePrefix("::/0")),
	)...)
}

func guardedTransport(allowed *ssrf.Guardian, roots *x509.CertPool, resolver *net.Resolver) *http.Transport {
	dialer := &net.Dialer{
		Timeout:  5 * time.Second,
		Resolver: resolver,
		Control: func(network, address string, c syscall.RawConn) error {
			if err := allowed.Safe(network, address, c); err != nil {
				return fmt.Errorf("this node does not connect to such addresses: %w", err)
			}
			return nil
		},
	}
	return &http.Transport{
		Proxy:                  nil,
		DialContext:            dialLocalhost(dialer),
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		TLSHandshakeTimeout:    5 * time.Second,
		ResponseHeaderTimeout:  30 * time.Second, // some answer a delivery only when they have worked on it
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		MaxIdleConns:           64,
		MaxIdleConnsPerHost:    2,
		MaxConnsPerHost:        16,
		IdleConnTimeout:        time.Minute,
		ForceAttemptHTTP2:      true,
		// An HTTP/2 connection that has died silently would take every request with it.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second},
	}
}

// dialLocalhost dials names that mean this machine whatever a resolver says (RFC 6761,
// section 6.3): some resolvers do not know localhost, and some ask the network for it. The guard
// looks at where it leads as with any name.
func dialLocalhost(d *net.Dialer) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		host, port, err := net.SplitHostPort(address)
		if err != nil || host != "localhost" && !strings.HasSuffix(host, ".localhost") {
			return d.DialContext(ctx, network, address)
		}
		conn, err := d.DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
		if err == nil {
			return conn, nil
		}
		if conn, other := d.DialContext(ctx, network, net.JoinHostPort("::1", port)); other == nil {
			return conn, nil
		}
		return nil, err
	}
}

// guard chooses the transport by scheme. http has one of its own, which reaches loopback
// only, so that the development switch does not send anything over the network in the clear.
type guard struct {
	https *http.Transport
	http  *http.Transport // nil if http is refused
}

func (g *guard) RoundTrip(r *http.Request) (*http.Response, error) {
	switch {
	case r.URL.Scheme == "https":
		return g.https.RoundTrip(r)
	case r.URL.Scheme == "http" && g.http != nil:
		return g.http.RoundTrip(r)
	}
	if r.Body != nil {
		r.Body.Close()
	}
	return nil, fmt.Errorf("%.20q addresses are not spoken to, only https", r.URL.Scheme)
}

// CloseIdleConnections is what http.Client.CloseIdleConnections calls.
func (g *guard) CloseIdleConnections() {
	g.https.CloseIdleConnections()
	if g.http != nil {
		g.http.CloseIdleConnections()
	}
}
