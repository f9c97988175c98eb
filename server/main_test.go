package server

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"io"
	"iter"
	"log/slog"
	"math"
	mathrand "math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/hashlist/imagehash"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

const testOrigin = "https://hashes.example"

// hasher is shared by the tests: its children take a while to start.
var hasher = sync.OnceValue(func() *imagehash.Hasher {
	h, err := imagehash.NewHasher(imagehash.Limits{Workers: 2, MaxBytes: 8 << 20, HEIC: true})
	if err != nil {
		panic(err)
	}
	return h
})

func TestMain(m *testing.M) {
	imagehash.WorkerMain()
	code := m.Run()
	hasher().Close()
	http.DefaultClient.CloseIdleConnections()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// memoryLog is a hashlist.Log that is as durable as the process.
type memoryLog struct {
	mu      sync.Mutex
	records []hashlist.Record
	places  map[string]uint64
	fail    error         // what Append answers, if set
	gate    chan struct{} // Append waits for it, if set
}

func (l *memoryLog) Append(ctx context.Context, records []hashlist.Record) ([]uint64, error) {
	l.mu.Lock()
	gate, fail := l.gate, l.fail
	l.mu.Unlock()
	if gate != nil {
		<-gate
	}
	if fail != nil {
		return nil, fail
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	seqs := make([]uint64, len(records))
	for i, r := range records {
		seq, ok := l.places[r.Statement.ID]
		if !ok {
			seq = uint64(len(l.records) + 1)
			r.Seq = seq
			l.records = append(l.records, r)
			l.places[r.Statement.ID] = seq
		}
		seqs[i] = seq
	}
	return seqs, nil
}

func (l *memoryLog) After(ctx context.Context, seq uint64, only hashlist.Selection) iter.Seq2[hashlist.Record, error] {
	l.mu.Lock()
	records := l.records
	l.mu.Unlock()
	return func(yield func(hashlist.Record, error) bool) {
		for i := seq; i < uint64(len(records)); i++ {
			if err := ctx.Err(); err != nil {
				yield(hashlist.Record{}, err)
				return
			}
			r := records[i]
			if only.List != "" && r.Statement.List != only.List {
				continue
			}
			if !only.Signed {
				r.Signed = nil
			}
			if s := &r.Statement; only.Bare {
				r.Statement = hashlist.Statement{ID: s.ID, Issuer: s.Issuer, List: s.List, Kind: s.Kind}
			}
			if !yield(r, nil) {
				return
			}
		}
	}
}

func (l *memoryLog) Find(_ context.Context, id string) (hashlist.Record, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	seq, ok := l.places[id]
	if !ok {
		return hashlist.Record{}, false, nil
	}
	return l.records[seq-1], true, nil
}

// memoryTokens keeps tokens as long as the process.
type memoryTokens struct {
	mu     sync.Mutex
	byName map[string]Token
}

func (m *memoryTokens) SaveToken(_ context.Context, t Token) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.byName[t.Name]; ok {
		return ErrTokenExists
	}
	m.byName[t.Name] = t
	return nil
}

func (m *memoryTokens) DeleteToken(_ context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.byName[name]; !ok {
		return ErrNoToken
	}
	delete(m.byName, name)
	return nil
}

func (m *memoryTokens) Tokens(context.Context) ([]Token, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []Token
	for _, t := range m.byName {
		all = append(all, t)
	}
	return all, nil
}

// capture keeps what is logged.
type capture struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (c *capture) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.Write(p)
}

func (c *capture) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.String()
}

// node is a server that runs, with all that it is made of.
type node struct {
	*Server
	t      testing.TB
	log    *memoryLog
	lists  *hashlist.Lists
	issuer *federation.Issuer
	logged *capture
	grpc   string // host:port
	http   string // http://host:port
	socket string

	stop   context.CancelFunc
	done   chan struct{}
	served error // of Serve, once done is closed

	secrets []string // must not be in the log
	conns   []*grpc.ClientConn
}

func testConfig(t testing.TB) (Config, *memoryLog) {
	t.Helper()
	log := &memoryLog{places: map[string]uint64{}}
	lists, err := hashlist.Open(t.Context(), log, hashlist.DefaultPolicy())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lists.Close)
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := federation.NewIssuer(testOrigin+"/users/alice", key)
	if err != nil {
		t.Fatal(err)
	}
	return Config{
		Lists: lists, Media: hasher(), Issuer: issuer, Tokens: &memoryTokens{byName: map[string]Token{}},
		Origin: testOrigin, Policy: hashlist.DefaultPolicy(), Version: "test",
		GRPC:  Listener{Address: "127.0.0.1:0", Socket: filepath.Join(t.TempDir(), "s"), Reflection: true},
		HTTP:  Listener{Address: "127.0.0.1:0"},
		Hook:  Hook{Undecodable: AnswerReject, Video: AnswerReject, Trouble: AnswerReject, Hold: AnswerReject},
		Limit: Limit{MediaBytes: 8 << 20, Cached: 100},
	}, log
}

// start runs a node until the test ends, and then checks that its log holds no
// secret.
func start(t testing.TB, change ...func(*Config)) *node {
	t.Helper()
	cfg, log := testConfig(t)
	n := &node{t: t, log: log, lists: cfg.Lists, issuer: cfg.Issuer.(*federation.Issuer), logged: &capture{}, done: make(chan struct{})}
	cfg.Log = slog.New(slog.NewJSONHandler(n.logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	for _, f := range change {
		f(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.Server = s
	var web string
	n.grpc, web = s.Addrs()
	n.http, n.socket = "http://"+web, cfg.GRPC.Socket
	ctx, cancel := context.WithCancel(context.Background())
	n.stop = cancel
	go func() { defer close(n.done); n.served = s.Serve(ctx) }()
	t.Cleanup(func() {
		for _, c := range n.conns {
			c.Close()
		}
		cancel()
		<-n.done
		out := n.logged.String()
		for _, s := range n.secrets {
			if strings.Contains(out, s) {
				t.Errorf("the log holds a secret: %.20s...", s)
			}
		}
		if t.Failed() {
			t.Logf("log of the node:\n%s", out)
		}
	})
	return n
}

// dial connects to address and sends token, if there is one, with each call.
func (n *node) dial(address, token string, options ...grpc.DialOption) *grpc.ClientConn {
	n.t.Helper()
	options = append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, options...)
	if token != "" {
		with := func(ctx context.Context) context.Context {
			return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
		}
		options = append(options,
			grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
				return invoke(with(ctx), method, req, reply, cc, opts...)
			}),
			grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, stream grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
				return stream(with(ctx), desc, cc, method, opts...)
			}))
	}
	conn, err := grpc.NewClient(address, options...)
	if err != nil {
		n.t.Fatal(err)
	}
	n.conns = append(n.conns, conn)
	return conn
}

// owner connects through the unix socket.
func (n *node) owner() *grpc.ClientConn { return n.dial("unix:"+n.socket, "") }

// token makes a token and returns its secret.
func (n *node) token(name string, scope Scope) string {
	n.t.Helper()
	v, err := pb.NewAdminServiceClient(n.owner()).CreateToken(n.t.Context(), &pb.CreateTokenRequest{Token: &pb.Token{Name: name, Scope: string(scope)}})
	if err != nil {
		n.t.Fatal(err)
	}
	n.secrets = append(n.secrets, v.GetSecret(), strings.TrimPrefix(v.GetSecret(), secretPrefix))
	return v.GetSecret()
}

// newList makes a list and returns a client to keep it.
func (n *node) newList(name string) pb.ListServiceClient {
	n.t.Helper()
	c := pb.NewListServiceClient(n.owner())
	if _, err := c.CreateList(n.t.Context(), &pb.CreateListRequest{List: &pb.List{Name: name, Labels: []string{"gore"}}}); err != nil {
		n.t.Fatal(err)
	}
	return c
}

// ban puts hashes on a list, as secrets.
func (n *node) ban(name string, hashes ...hashlist.Hash) *pb.SubmitResponse {
	n.t.Helper()
	c := n.newList(name)
	r := &pb.SubmitRequest{List: name, Reason: "banned in a test"}
	for _, h := range hashes {
		r.Hashes = append(r.Hashes, h.String())
		n.secrets = append(n.secrets, h.Hex())
	}
	v, err := c.Submit(n.t.Context(), r)
	if err != nil {
		n.t.Fatal(err)
	}
	return v
}

// media hashes a file as the node would.
func (n *node) media(file []byte) *imagehash.Media {
	n.t.Helper()
	m, err := hasher().Hash(n.t.Context(), file)
	if err != nil {
		n.t.Fatal(err)
	}
	return &m
}

// wantCode checks the status code of an error, and that its text says something.
func wantCode(t testing.TB, what string, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Errorf("%s: %v, want %v", what, err, want)
	} else if err != nil && status.Convert(err).Message() == "" {
		t.Errorf("%s: the error has no text", what)
	}
}

// poll waits until ok says so.
func poll(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited too long until %s", what)
		}
	}
}

// photo makes a picture with the smooth structure of a photograph, another for
// each seed.
func photo(seed uint64, width, height int) image.Image {
	r := mathrand.New(mathrand.NewPCG(seed, 7))
	type wave struct{ x, y, phase, weight float64 }
	var waves [3][12]wave
	for c := range waves {
		for i := range waves[c] {
			f := math.Pow(1.35, float64(i)+1)
			waves[c][i] = wave{r.NormFloat64() * f, r.NormFloat64() * f, r.Float64() * 2 * math.Pi, 60 / math.Sqrt(f)}
		}
	}
	img := image.NewRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			var v [3]uint8
			for c := range v {
				s := 128.0
				for _, w := range waves[c] {
					s += w.weight * math.Sin(w.x*float64(x)/float64(width)+w.y*float64(y)/float64(height)+w.phase)
				}
				v[c] = uint8(max(0, min(255, s)))
			}
			img.SetRGBA(x, y, color.RGBA{v[0], v[1], v[2], 255})
		}
	}
	return img
}

func encodeJPEG(t testing.TB, img image.Image, quality int) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: quality}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func mustHash(t testing.TB, text string) hashlist.Hash {
	t.Helper()
	h, err := hashlist.ParseHash(text)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// randomHashes are PDQ hashes that are far from one another.
func randomHashes(n int) []hashlist.Hash {
	all := make([]hashlist.Hash, n)
	for i := range all {
		var sum [32]byte
		rand.Read(sum[:])
		all[i], _ = hashlist.NewHash(hashlist.PDQ, sum[:])
	}
	return all
}

func texts(hashes []hashlist.Hash) []string {
	all := make([]string, len(hashes))
	for i, h := range hashes {
		all[i] = h.String()
	}
	return all
}

// gated is a body that stops in the middle until its gate opens.
type gated struct {
	parts [][]byte
	gate  <-chan struct{}
	begun chan<- struct{} // told when the first part was taken, if not nil
}

func (g *gated) Read(p []byte) (int, error) {
	for len(g.parts) > 0 && len(g.parts[0]) == 0 {
		if g.parts = g.parts[1:]; len(g.parts) == 1 {
			if g.begun != nil {
				g.begun <- struct{}{}
			}
			<-g.gate
		}
	}
	if len(g.parts) == 0 {
		return 0, io.EOF
	}
	n := copy(p, g.parts[0])
	g.parts[0] = g.parts[0][n:]
	return n, nil
}

var errTest = errors.New("the disk of the test is full of " + hex.EncodeToString([]byte("things")))
