package server

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/netutil"
)

// Bounds of the public listener, which anybody can reach. Answers are read
// more slowly than requests come: a page of a list is some megabytes.
const (
	publicReadTime  = 30 * time.Second
	publicWriteTime = 2 * time.Minute
	publicIdleTime  = time.Minute // other nodes push now and then over one connection
	publicStreams   = 64          // requests at once on one HTTP/2 connection
	perNetwork      = 64          // connections from one network, of maxConnections
)

func (s *Server) listenPublic() error {
	address, err := s.cfg.Public.exposure("federation")
	if err != nil {
		return err
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true) // over TLS only
	handler, err := s.publish(s.cfg.PublicHandler)
	if err != nil {
		return err
	}
	s.public = &http.Server{
		Handler: s.counted(handler), Protocols: protocols,
		ReadHeaderTimeout: headerTime, ReadTimeout: publicReadTime, WriteTimeout: publicWriteTime, IdleTimeout: publicIdleTime,
		MaxHeaderBytes: maxHeaders, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: publicStreams},
		ErrorLog:    slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return s.hard },
	}
	var certs *certificates
	if s.cfg.Public.CertFile != "" {
		// 1.2 too: there are servers in the fediverse that speak nothing newer, and what they say is signed.
		if certs, err = loadCertificates(s.cfg.Public, s.log, tls.VersionTLS12, "h2", "http/1.1"); err != nil {
			return fmt.Errorf("federation: %w", err)
		}
	} else if s.cfg.Public.Plaintext {
		s.log.Warn("federation has no TLS: whoever can listen on the way to it can read lists that are not public",
			slog.String("address", address))
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("federation: %w", err)
	}
	l = &fair{Listener: netutil.LimitListener(l, maxConnections), held: map[netip.Prefix]int{}}
	if certs != nil {
		l = tls.NewListener(l, certs.config())
	}
	s.publicListener = l
	return nil
}

// fair is a listener on which no network may hold all connections: a thousand
// that send a byte a second would else keep everybody else out. What comes from this
// machine or a private network is a proxy, which stands for everybody, and limits them itself.
type fair struct {
	net.Listener

	mu   sync.Mutex // guards held
	held map[netip.Prefix]int
}

// Accept closes what is too many without a word.
func (f *fair) Accept() (net.Conn, error) {
	for {
		c, err := f.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := network(c.RemoteAddr())
		if a := from.Addr(); !from.IsValid() || a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() {
			return c, nil
		}
		f.mu.Lock()
		many := f.held[from] >= perNetwork
		if !many {
			f.held[from]++
		}
		f.mu.Unlock()
		if many {
			c.Close()
			continue
		}
		return &heldConn{Conn: c, f: f, from: from}, nil
	}
}

// heldConn is a connection that counts.
type heldConn struct {
	net.Conn
	f    *fair
	from netip.Prefix
	once sync.Once
}

// Close implements net.Conn.
func (c *heldConn) Close() error {
	c.once.Do(func() {
		c.f.mu.Lock()
		defer c.f.mu.Unlock()
		if c.f.held[c.from]--; c.f.held[c.from] == 0 {
			delete(c.f.held, c.from)
		}
	})
	return c.Conn.Close()
}
