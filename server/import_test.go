package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tocsin-fed/tocsin/exchange"
	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// importFile imports a file in chunks and returns the messages that came back.
func importFile(ctx context.Context, c pb.ListServiceClient, o *pb.ImportOptions, file []byte, chunk int) ([]*pb.ImportResponse, error) {
	stream, err := c.Import(ctx)
	if err != nil {
		return nil, err
	}
	var sender sync.WaitGroup
	defer sender.Wait()
	sender.Go(func() {
		defer stream.CloseSend()
		if stream.Send(&pb.ImportRequest{Options: o}) != nil {
			return
		}
		for len(file) > 0 {
			n := min(chunk, len(file))
			if stream.Send(&pb.ImportRequest{Chunk: file[:n]}) != nil {
				return
			}
			file = file[n:]
		}
	})
	var all []*pb.ImportResponse
	for {
		v, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		all = append(all, v)
	}
}

func plain(hashes []hashlist.Hash) []byte {
	var b bytes.Buffer
	for _, h := range hashes {
		fmt.Fprintln(&b, h.Hex())
	}
	return b.Bytes()
}

func TestImport(t *testing.T) {
	n := start(t)
	c := n.newList("gore")
	h := randomHashes(2500)
	n.add("gore", h[10])
	file := append(plain(h[:2500]), []byte("# a comment\n\nnot a hash\n"+strings.Repeat("0", 64)+"\n")...)
	file = append(file, plain(h[:3])...)
	o := &pb.ImportOptions{List: "gore", Format: "plain", Labels: []string{"imported"}, Reason: "from a file"}
	dry := &pb.ImportOptions{List: "gore", Format: "plain", DryRun: true}
	all, err := importFile(t.Context(), c, dry, file, 1000)
	if err != nil || n.lists.Seq() != 2 {
		t.Fatalf("dry run: %v, log at %d", err, n.lists.Seq())
	}
	last := all[len(all)-1]
	if last.GetRows() != 2505 || last.GetListed() != 0 || last.GetSkipped() != 4 || last.GetRefused() != 2 || !last.GetDone() {
		t.Errorf("dry run: %v", last)
	}
	all, err = importFile(t.Context(), c, o, file, 777)
	if err != nil {
		t.Fatal(err)
	}
	last = all[len(all)-1]
	if last.GetRows() != 2505 || last.GetListed() != 2499 || last.GetSkipped() != 4 || last.GetRefused() != 2 || !last.GetDone() || last.GetBytes() != uint64(len(file)) {
		t.Errorf("summary: %v", last)
	}
	var refused []uint64
	for _, m := range all {
		for _, r := range m.GetRefusedRows() {
			refused = append(refused, r.GetLine())
			if r.GetReason() == "" {
				t.Error("a refused row has no reason")
			}
		}
	}
	if !slices.Equal(refused, []uint64{2503, 2504}) {
		t.Errorf("refused lines %v", refused)
	}
	if got := n.lists.Seq(); got != 2+3 {
		t.Errorf("the log is at %d: 2499 hashes should take 3 statements", got)
	}
	all, err = importFile(t.Context(), c, o, file, 1<<20)
	if last := all[len(all)-1]; err != nil || last.GetListed() != 0 || last.GetSkipped() != 2503 || n.lists.Seq() != 5 {
		t.Errorf("again: %v, %v", last, err)
	}
	v, err := c.ListEntries(t.Context(), &pb.ListEntriesRequest{List: "gore"})
	if err != nil || len(v.GetEntries()) != 4 {
		t.Fatalf("entries: %d, %v", len(v.GetEntries()), err)
	}
	if e := v.GetEntries()[3]; !slices.Equal(e.GetLabels(), []string{"imported"}) || e.GetReason() != "from a file" {
		t.Errorf("entry: labels %v, reason %q", e.GetLabels(), e.GetReason())
	}
}

// TestImportLabels puts rows with the same labels into the same statements.
func TestImportLabels(t *testing.T) {
	n := start(t)
	c := n.newList("gore")
	h := randomHashes(40)
	n.secrets = append(n.secrets, h[0].Hex())
	var b strings.Builder
	b.WriteString("signal_type,signal_str,collab,category,tags\n")
	for i, h := range h {
		fmt.Fprintf(&b, "pdq,%s,c,,%s\n", h.Hex(), []string{"", "cat", "dog cat", "cat dog"}[i%4])
	}
	fmt.Fprintf(&b, "pdq,%s,c,,%s\n", randomHashes(1)[0].Hex(), "a b c d e f g h i j k l m n o p")
	all, err := importFile(t.Context(), c, &pb.ImportOptions{List: "gore", Format: "pytx", Labels: []string{"x"}}, []byte(b.String()), 100)
	if err != nil {
		t.Fatal(err)
	}
	if last := all[len(all)-1]; last.GetListed() != 40 || last.GetRefused() != 1 {
		t.Errorf("summary: %v", last) // the last row has one label too many, together with x
	}
	v, err := c.ListEntries(t.Context(), &pb.ListEntriesRequest{List: "gore"})
	if err != nil {
		t.Fatal(err)
	}
	sizes := map[string]int{}
	for _, e := range v.GetEntries() {
		sizes[strings.Join(e.GetLabels(), " ")] += len(e.GetHashes())
	}
	if len(v.GetEntries()) != 3 || sizes["x"] != 10 || sizes["cat x"] != 10 || sizes["cat dog x"] != 20 {
		t.Errorf("%d statements: %v", len(v.GetEntries()), sizes)
	}

	for format, want := range map[string]int{"plain": 40, "pdq": 40, "pdq-csv": 40, "pytx": 41} {
		out := export(t, c, "gore", format)
		if got := strings.Count(out, "\n"); got != want {
			t.Errorf("export as %s has %d lines, want %d", format, got, want)
		}
		n.newList("again")
		back, err := importFile(t.Context(), c, &pb.ImportOptions{List: "again", Format: format, DryRun: true}, []byte(out), 1000)
		if err != nil || back[len(back)-1].GetRows() != 40 || back[len(back)-1].GetRefused() != 0 {
			t.Errorf("export as %s comes back as %v, %v", format, back, err)
		}
	}
}

func export(t *testing.T, c pb.ListServiceClient, list, format string) string {
	t.Helper()
	stream, err := c.Export(t.Context(), &pb.ExportRequest{List: list, Format: format})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for {
		v, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return b.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		b.Write(v.GetChunk())
	}
}

func TestExportLeavesOut(t *testing.T) {
	n := start(t)
	c := n.newList("gore")
	digest := mustHash(t, "sha1:"+strings.Repeat("ab", 20))
	n.add("gore", append(randomHashes(2000)[:998], digest)...)
	gone, err := c.Submit(t.Context(), &pb.SubmitRequest{List: "gore", Hashes: texts(randomHashes(5))})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Retract(t.Context(), &pb.RetractRequest{StatementId: gone.GetStatementId()}); err != nil {
		t.Fatal(err)
	}
	stream, err := c.Export(t.Context(), &pb.ExportRequest{List: "gore", Format: "pdq-csv"})
	if err != nil {
		t.Fatal(err)
	}
	var last *pb.ExportResponse
	for {
		v, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(v.GetChunk()) > exportChunk {
			t.Errorf("a chunk of %d bytes", len(v.GetChunk()))
		}
		last = v
	}
	if last.GetHashes() != 998 || last.GetLeftOut() != 1 {
		t.Errorf("summary: %v", last)
	}
	stream, err = c.Export(t.Context(), &pb.ExportRequest{List: "gore", Format: "xml"})
	if err == nil {
		_, err = stream.Recv()
	}
	wantCode(t, "unknown format", err, codes.InvalidArgument)
}

func TestImportStrict(t *testing.T) {
	n := start(t)
	c := n.newList("gore")
	h := randomHashes(30)
	file := slices.Concat(plain(h[:20]), []byte("zzz\n"), plain(h[20:]))
	all, err := importFile(t.Context(), c, &pb.ImportOptions{List: "gore", Format: "plain", Strict: true}, file, 1000)
	wantCode(t, "strict", err, codes.InvalidArgument)
	if err == nil || !strings.Contains(err.Error(), "line 21") {
		t.Errorf("which line? %v", err)
	}
	if last := all[len(all)-1]; last.GetListed() != 20 || last.GetRefused() != 1 || last.GetDone() {
		t.Errorf("summary: %v", last)
	}
	if l, _ := n.lists.List(testOrigin + "/lists/gore"); l.Hashes != 20 {
		t.Errorf("%d hashes are listed: those before the bad row should be", l.Hashes)
	}
}

func TestImportRefuses(t *testing.T) {
	n := start(t, func(c *Config) { c.Limit.Idle = 200 * time.Millisecond })
	c := n.newList("gore")
	for _, r := range []struct {
		name string
		o    *pb.ImportOptions
		file string
		want codes.Code
	}{
		{"nothing to import", &pb.ImportOptions{List: "gore", Format: "plain"}, "", codes.OK},
		{"no options", nil, "x", codes.InvalidArgument},
		{"no list", &pb.ImportOptions{Format: "plain"}, "x", codes.InvalidArgument},
		{"unknown list", &pb.ImportOptions{List: "none", Format: "plain"}, "x", codes.NotFound},
		{"unknown format", &pb.ImportOptions{List: "gore", Format: "xml"}, "x", codes.InvalidArgument},
		{"unknown algorithm", &pb.ImportOptions{List: "gore", Format: "plain", Algorithm: "crc"}, "x", codes.InvalidArgument},
		{"bad label", &pb.ImportOptions{List: "gore", Format: "plain", Labels: []string{"X"}}, "x", codes.InvalidArgument},
		{"long reason", &pb.ImportOptions{List: "gore", Format: "plain", Reason: strings.Repeat("x", 2001)}, "x", codes.InvalidArgument},
		{"not in the format", &pb.ImportOptions{List: "gore", Format: "pytx"}, "hello\n", codes.InvalidArgument},
		{"UTF-16", &pb.ImportOptions{List: "gore", Format: "plain"}, "\xff\xfea\x00\n\x00", codes.InvalidArgument},
	} {
		_, err := importFile(t.Context(), c, r.o, []byte(r.file), 100)
		wantCode(t, r.name, err, r.want)
	}
	for name, send := range map[string]func(pb.ListService_ImportClient) codes.Code{
		"silence": func(s pb.ListService_ImportClient) codes.Code { return codes.DeadlineExceeded },
		"options twice": func(s pb.ListService_ImportClient) codes.Code {
			s.Send(&pb.ImportRequest{Options: &pb.ImportOptions{}})
			return codes.InvalidArgument
		},
		"a chunk too large": func(s pb.ListService_ImportClient) codes.Code {
			s.Send(&pb.ImportRequest{Chunk: make([]byte, maxChunk+1)})
			return codes.InvalidArgument
		},
	} {
		stream, err := c.Import(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		stream.Send(&pb.ImportRequest{Options: &pb.ImportOptions{List: "gore", Format: "plain"}})
		want := send(stream)
		for err == nil {
			_, err = stream.Recv()
		}
		wantCode(t, name, err, want)
	}
	// Bad rows are described up to a bound, in messages of bounded size, and all counted.
	bad := strings.Repeat("zzz\n", refusedInAll+500)
	all, err := importFile(t.Context(), c, &pb.ImportOptions{List: "gore", Format: "plain"}, []byte(bad), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	described := 0
	for _, m := range all {
		described += len(m.GetRefusedRows())
		if len(m.GetRefusedRows()) > refusedAtOnce {
			t.Errorf("%d refused rows in one message", len(m.GetRefusedRows()))
		}
	}
	if last := all[len(all)-1]; described != refusedInAll || last.GetRefused() != refusedInAll+500 {
		t.Errorf("%d rows described, %d counted", described, last.GetRefused())
	}
}

// TestImportInterrupted breaks imports off at random moments and begins them
// again at once, while the one before may still be writing. In the end every
// hash is on the list once.
func TestImportInterrupted(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	n := start(t)
	c := n.newList("gore")
	h := randomHashes(40_000)
	file := plain(h)
	o := &pb.ImportOptions{List: "gore", Format: "plain"}
	cut := 0
	for range 12 {
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := c.Import(ctx)
		if err != nil {
			t.Fatal(err)
		}
		stream.Send(&pb.ImportRequest{Options: o})
		rest := file[:r.IntN(len(file))]
		for len(rest) > 0 {
			k := min(len(rest), 32<<10)
			if stream.Send(&pb.ImportRequest{Chunk: rest[:k]}) != nil {
				break
			}
			rest = rest[k:]
		}
		cancel()
		if _, err := stream.Recv(); status.Code(err) == codes.Canceled {
			cut++
		}
	}
	all, err := importFile(t.Context(), c, o, file, 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	last := all[len(all)-1]
	l, _ := n.lists.List(testOrigin + "/lists/gore")
	t.Logf("%d of 12 were cut off; the last import listed %d and skipped %d; %d statements", cut, last.GetListed(), last.GetSkipped(), l.Statements)
	if last.GetListed()+last.GetSkipped() != uint64(len(h)) || l.Hashes != len(h) {
		t.Errorf("%v; the list has %d hashes, want %d", last, l.Hashes, len(h))
	}
	if slices.Contains(n.lists.Listed(l.ID, n.issuer.Actor(), h), false) {
		t.Error("a hash is missing")
	}
	if l.Statements > 40+13*10 {
		t.Errorf("%d statements", l.Statements)
	}
}

// TestClaimsOutliveCallers shows that hashes stay claimed while their statement
// is being written, although the caller has gone: whoever lists them next waits
// and then finds them listed.
func TestClaimsOutliveCallers(t *testing.T) {
	hasher() // its goroutines belong to no bubble
	synctest.Test(t, func(t *testing.T) {
		cfg, log := testConfig(t)
		cfg.withDefaults()
		s := &Server{cfg: cfg}
		lists := &listService{s: s}
		if _, err := lists.CreateList(t.Context(), &pb.CreateListRequest{List: &pb.List{Name: "gore"}}); err != nil {
			t.Fatal(err)
		}
		iri := testOrigin + "/lists/gore"
		h := randomHashes(4)
		log.gate = make(chan struct{})
		ctx, leave := context.WithCancel(t.Context())
		im := &importer{s: s, ctx: ctx, model: hashlist.Statement{Kind: hashlist.AddHashes, List: iri}, reach: cfg.Window.Reach()}
		go im.list([]exchange.Row{{Hash: h[0]}, {Hash: h[1]}}, false)
		go lists.Submit(ctx, &pb.SubmitRequest{List: "gore", Hashes: texts(h[2:])})
		synctest.Wait()
		leave()
		synctest.Wait()
		if got := len(s.claims.held); got != 4 {
			t.Errorf("%d hashes are claimed while 4 are being listed", got)
		}
		var again *pb.SubmitResponse
		var err error
		go func() { again, err = lists.Submit(t.Context(), &pb.SubmitRequest{List: "gore", Hashes: texts(h)}) }()
		synctest.Wait()
		close(log.gate)
		synctest.Wait()
		if err != nil || again.GetAlreadyListed() != 4 {
			t.Errorf("listed again: %v, %v", again, err)
		}
		if l, _ := cfg.Lists.List(iri); l.Hashes != 4 || len(s.claims.held) != 0 {
			t.Errorf("%d hashes are listed, %d claimed", l.Hashes, len(s.claims.held))
		}
	})
}

// TestImportsTogether imports the same file from two callers at once.
func TestImportsTogether(t *testing.T) {
	n := start(t)
	c := n.newList("gore")
	h := randomHashes(20_000)
	var listed, skipped uint64
	var mu sync.Mutex
	var both sync.WaitGroup
	for i := range 2 {
		mine := slices.Clone(h)
		if i == 1 {
			slices.Reverse(mine)
		}
		both.Go(func() {
			all, err := importFile(t.Context(), c, &pb.ImportOptions{List: "gore", Format: "plain"}, plain(mine), 64<<10)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			listed += all[len(all)-1].GetListed()
			skipped += all[len(all)-1].GetSkipped()
		})
	}
	both.Wait()
	l, _ := n.lists.List(testOrigin + "/lists/gore")
	if listed != 20_000 || skipped != 20_000 || l.Hashes != 20_000 {
		t.Errorf("listed %d, skipped %d, on the list %d", listed, skipped, l.Hashes)
	}
}

// TestImportStoreTrouble shows that an import ends when its statements cannot be
// stored, and completes when it is run again.
func TestImportStoreTrouble(t *testing.T) {
	n := start(t)
	c := n.newList("gore")
	n.log.mu.Lock()
	n.log.fail = errTest
	n.log.mu.Unlock()
	o := &pb.ImportOptions{List: "gore", Format: "plain"}
	file := plain(randomHashes(20_000))
	_, err := importFile(t.Context(), c, o, file, 1<<20)
	wantCode(t, "import", err, codes.Internal)
	n.log.mu.Lock()
	n.log.fail = nil
	n.log.mu.Unlock()
	all, err := importFile(t.Context(), c, o, file, 1<<20)
	if err != nil || all[len(all)-1].GetListed() != 20_000 {
		t.Errorf("again: %v", err)
	}
}
