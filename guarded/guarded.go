// Package guarded reaches out: to other nodes, and for media that somebody named
// the address of. Whoever may name an address to a server can otherwise have it
// ask the machines behind its firewall, so there is one dialer, and it looks where
// each connection leads.
package guarded

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"code.dny.dev/ssrf"
)

// Options say what more than the public Internet by https may be reached.
type Options struct {
	// HTTP lets http lead wherever https may, not to what Loopback and Allow name alone.
	// What comes by it may have been changed on the way, and who asks for what is seen there.
	HTTP bool
	// Loopback is for nodes tried out on one machine, and for media servers beside the node.
	Loopback bool
	// Allow are networks behind the firewall that may be reached as well, by https and http:
	// where an operator's own media server stands.
	Allow []netip.Prefix

	// What tests set: roots in the place of the system's, and where names are looked up.
	// The guard itself is the same.
	Roots    *x509.CertPool
	Resolver *net.Resolver
}

// Client returns a client that connects to public addresses and to what the
// options allow.
//
// The address is checked after DNS and immediately before connect, each time: a
// name that means something else by then (DNS rebinding) gains nothing. Without that check,
// whoever may name an address to us, as in a key id or an image_url, could have this node ask the
// machines behind its firewall. There is no proxy, not even from the environment,
// because the check would see the proxy's address. Redirects are handed to
// the caller, who knows what they must not change.
//
// NAT64 is refused with the rest: 64:ff9b::7f00:1 is 127.0.0.1. A node must have
// an IPv4 address of its own to reach peers that have no other.
//
// Bodies are decompressed and without bound: the caller limits what it reads.
func Client(o Options) *http.Client {
	secure, plain := guardians(o)
	g := &guard{https: transport(secure, o)}
	if plain != nil {
		g.http = transport(plain, o)
	}
	return &http.Client{
		Transport:     g,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       time.Minute, // of an answer with its body; callers set shorter ones
	}
}

// guardians tell where https and http may lead. plain is nil if http is refused.
func guardians(o Options) (secure, plain *ssrf.Guardian) {
	var v4, v6 []netip.Prefix
	if o.Loopback {
		v4, v6 = append(v4, netip.MustParsePrefix("127.0.0.0/8")), append(v6, netip.MustParsePrefix("::1/128"))
	}
	for _, p := range o.Allow {
		if p.Addr().Is4() {
			v4 = append(v4, p)
		} else {
			v6 = append(v6, p)
		}
	}
	own := []ssrf.Option{ssrf.WithAnyPort(), ssrf.WithAllowedV4Prefixes(v4...), ssrf.WithAllowedV6Prefixes(v6...)}
	secure = ssrf.New(own...)
	switch {
	case o.HTTP:
		return secure, secure
	case len(v4)+len(v6) == 0:
		return secure, nil
	}
	return secure, ssrf.New(append(own,
		ssrf.WithDeniedV4Prefixes(netip.MustParsePrefix("0.0.0.0/0")),
		ssrf.WithDeniedV6Prefixes(netip.MustParsePrefix("::/0")),
	)...)
}

func transport(allowed *ssrf.Guardian, o Options) *http.Transport {
	dialer := &net.Dialer{
		Timeout:  5 * time.Second,
		Resolver: o.Resolver,
		Control: func(network, address string, c syscall.RawConn) error {
			if err := allowed.Safe(network, address, c); err != nil {
				return fmt.Errorf("%w: %w", ErrRefused, err)
			}
			return nil
		},
	}
	return &http.Transport{
		Proxy:                  nil,
		DialContext:            dialLocalhost(dialer),
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.Roots},
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

// ErrRefused is an address that this node does not connect to.
var ErrRefused = errors.New("this node does not connect to such addresses")

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
// and allowed networks only unless http is allowed, so that the development switch does not send
// anything over the network in the clear.
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
