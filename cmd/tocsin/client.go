package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
	"github.com/tocsin-fed/tocsin/server"
)

// maxMessage is the largest answer a command reads; a page of a list has the
// largest ones.
const maxMessage = 128 << 20

// client is how a command reaches its node.
type client struct {
	app       *app
	server    string
	token     string
	tokenFile string
	ca        string
	cert, key string
	plaintext bool
}

// node is a connection to a node.
type node struct {
	*grpc.ClientConn
	lookups pb.LookupServiceClient
	lists   pb.ListServiceClient
	peers   pb.FederationServiceClient
	admin   pb.AdminServiceClient
	sources pb.SourceServiceClient
	reviews pb.ReviewServiceClient
	says    pb.StatementServiceClient
	window  pb.WindowServiceClient
}

// client gives cmd the flags that say which node to talk to.
func (a *app) client(cmd *cobra.Command) *client {
	c := &client{app: a}
	f := cmd.Flags()
	f.StringVar(&c.server, "server", os.Getenv("TOCSIN_SERVER"), "address host:port of the node (default: the socket in the data directory; $TOCSIN_SERVER)")
	f.StringVar(&c.token, "token", "", "token for --server; other users of this machine can see it, $TOCSIN_TOKEN or --token-file are better")
	f.StringVar(&c.tokenFile, "token-file", "", "file that holds the token for --server")
	f.StringVar(&c.ca, "ca", "", "PEM file of the authorities to trust for --server (default: those of the system)")
	f.StringVar(&c.cert, "cert", "", "PEM file of the certificate to show to --server")
	f.StringVar(&c.key, "key", "", "PEM file of the key of --cert")
	f.BoolVar(&c.plaintext, "insecure-plaintext", false, "talk to --server without TLS; on loopback only")
	cmd.MarkFlagsMutuallyExclusive("token", "token-file")
	cmd.MarkFlagsRequiredTogether("cert", "key")
	return c
}

// dial connects to the node. Close ends the connection.
func (c *client) dial(ctx context.Context) (*node, error) {
	options := []grpc.DialOption{grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage))}
	var target string
	if c.server == "" {
		if c.token != "" || c.tokenFile != "" {
			// The socket asks for no token: the call would be the admin's, not the token's.
			return nil, c.app.usage("a token is for --server: say --server HOST:PORT, and --insecure-plaintext on loopback without TLS")
		}
		socket, err := c.socket(ctx)
		if err != nil {
			return nil, err
		}
		target = "passthrough:///" + socket
		options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", socket)
			}))
	} else {
		more, err := c.remote()
		if err != nil {
			return nil, err
		}
		target, options = "dns:///"+c.server, append(options, more...)
	}
	conn, err := grpc.NewClient(target, options...)
	if err != nil {
		return nil, fmt.Errorf("connect to the node: %w", err)
	}
	return &node{
		conn, pb.NewLookupServiceClient(conn), pb.NewListServiceClient(conn), pb.NewFederationServiceClient(conn), pb.NewAdminServiceClient(conn),
		pb.NewSourceServiceClient(conn), pb.NewReviewServiceClient(conn), pb.NewStatementServiceClient(conn), pb.NewWindowServiceClient(conn),
	}, nil
}

// errNoNode is told apart by commands that can do without a node.
var errNoNode = errors.New("no node is running")

// socket returns the path of the local node's socket once something answers there.
func (c *client) socket(ctx context.Context) (string, error) {
	dir := c.app.dataDir()
	conf, err := loadConfig(dir, os.Environ(), nil)
	if err != nil {
		return "", err
	}
	path := conf.server(dir).GRPC.Socket
	if path == "" {
		return "", fmt.Errorf("the node in %s has no socket (grpc.socket is empty): say where it listens with --server", dir)
	}
	// A relative path is shorter, and a socket's path may have 107 bytes only.
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return "", fmt.Errorf("%w in %s: start it with `tocsin serve --data %s`", errNoNode, dir, dir)
	case errors.Is(err, fs.ErrPermission):
		return "", fmt.Errorf("the socket %s is not yours to open: run this as the user the node runs as, or use --server with a token", path)
	case err != nil:
		return "", fmt.Errorf("connect to the node in %s: %w", dir, err)
	}
	conn.Close()
	return path, nil
}

// remote are the options for a node that is reached over TCP.
func (c *client) remote() ([]grpc.DialOption, error) {
	host, port, err := net.SplitHostPort(c.server)
	if err != nil {
		return nil, fmt.Errorf("server %q has no port (want host:port)", c.server)
	}
	secret := c.token
	if c.tokenFile != "" {
		b, err := readBounded(c.tokenFile, 4096)
		if err != nil {
			return nil, fmt.Errorf("token: %w", err)
		}
		secret = strings.TrimSpace(string(b))
	} else if secret == "" {
		secret = os.Getenv("TOCSIN_TOKEN")
	}
	var options []grpc.DialOption
	if secret != "" {
		options = append(options, grpc.WithPerRPCCredentials(bearer{secret, !c.plaintext}))
	}
	if c.plaintext {
		// Names are resolved by others than us, so only addresses count, and
		// "localhost", which is one (RFC 6761, section 6.3).
		if host == "localhost" {
			c.server = net.JoinHostPort("127.0.0.1", port)
		} else if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
			return nil, fmt.Errorf("--insecure-plaintext is for loopback only, and %s is not: give the node a certificate", host)
		}
		return append(options, grpc.WithTransportCredentials(insecure.NewCredentials())), nil
	}
	tc := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.ca != "" {
		b, err := readBounded(c.ca, 1<<20)
		if err != nil {
			return nil, fmt.Errorf("authorities: %w", err)
		}
		if tc.RootCAs = x509.NewCertPool(); !tc.RootCAs.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("%s holds no certificate in PEM", c.ca)
		}
	}
	if c.cert != "" {
		pair, err := tls.LoadX509KeyPair(c.cert, c.key)
		if err != nil {
			return nil, fmt.Errorf("certificate to show: %w", err)
		}
		tc.Certificates = []tls.Certificate{pair}
	}
	return append(options, grpc.WithTransportCredentials(credentials.NewTLS(tc))), nil
}

// bearer sends a token with each call.
type bearer struct {
	secret string
	tls    bool
}

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.secret}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (b bearer) RequireTransportSecurity() bool { return b.tls }

// plain makes of the status of a call the sentence it carries.
func plain(err error) error {
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	prefix := ""
	// FromError puts what an error was wrapped with before the message.
	if text, cut := strings.CutSuffix(err.Error(), s.Message()); cut && strings.Contains(text, "rpc error:") {
		prefix, _, _ = strings.Cut(text, "rpc error:")
	}
	message := s.Message()
	if i := strings.LastIndex(message, "rpc error: code = "); i >= 0 {
		if _, desc, ok := strings.Cut(message[i:], "desc = "); ok {
			prefix, message = message[:i], desc
		}
	}
	switch s.Code() {
	case codes.Unavailable:
		if elsewhereFailed(s) {
			break
		}
		message = "the node does not answer: " + strings.TrimPrefix(message, "connection error: desc = ")
		if strings.Contains(message, "does not look like a TLS handshake") {
			message += " (nothing there speaks TLS: if --server is on loopback, add --insecure-plaintext; else the node needs a certificate)"
		}
	case codes.Unauthenticated:
		message += " (a token comes from --token-file or $TOCSIN_TOKEN; the node's admin makes one with `tocsin token create`)"
	case codes.DeadlineExceeded:
		message = "it took too long: " + message
	case codes.Canceled:
		message = "interrupted"
	}
	return errors.New(prefix + message)
}

// elsewhereFailed reports whether it was another server that failed, not the node.
func elsewhereFailed(s *status.Status) bool {
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetReason() == server.ReasonRemote {
			return true
		}
	}
	return false
}

// callTime bounds calls that the node answers at once.
const callTime = time.Minute

// call runs a short call.
func (c *client) call(cmd *cobra.Command, do func(context.Context, *node) error) error {
	return c.callFor(cmd, callTime, do)
}

// callFor runs a call that may take so long.
func (c *client) callFor(cmd *cobra.Command, limit time.Duration, do func(context.Context, *node) error) error {
	n, err := c.dial(cmd.Context())
	if err != nil {
		return err
	}
	defer n.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), limit)
	defer cancel()
	return do(ctx, n)
}
