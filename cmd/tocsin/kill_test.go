package main

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// kills is how many times TestKilled kills the node.
const kills = 50

// The import of TestKilled: so many files, of so many rows each.
const (
	importFiles = 150
	importRows  = 12
)

// model is what the node must hold: what it acknowledged, and what it held when
// it was seen after a kill. A statement that was sent and not acknowledged may
// be there or not, but once seen it has to stay.
type model struct {
	mu       sync.Mutex                    // guards what follows
	inForce  map[string]map[string]bool    // statement to its hashes in force
	acked    map[string]bool               // statements that were acknowledged, retractions too
	sent     map[string]bool               // hashes that were ever sent: no other may turn up
	imported map[string]bool               // hashes of imports that were acknowledged
	files    [][]string                    // what is imported, in small files
	next     int                           // the files before this one were acknowledged
	opened   map[string]hashlist.Statement // by the bytes that were signed; of the test goroutine alone
}

// hashOf makes a hash out of a name. PDQ hashes made so are some 128 bits apart.
func hashOf(a hashlist.Algorithm, round int, name string, i int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %s %d", round, name, i))
	h, err := hashlist.NewHash(a, sum[:a.Size()])
	if err != nil {
		panic(err) // not all zero
	}
	return h.String()
}

// TestKilled kills the node with SIGKILL at random moments while statements,
// retractions and an import come in, starts it again, and compares what it then
// holds and answers with what it acknowledged before.
func TestKilled(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	dir := newNode(t)
	key, err := readKey(keyPath(dir, "admin"))
	if err != nil {
		t.Fatal(err)
	}
	m := &model{inForce: map[string]map[string]bool{}, acked: map[string]bool{}, sent: map[string]bool{}, imported: map[string]bool{}, opened: map[string]hashlist.Statement{}}
	var all strings.Builder
	for f := range importFiles {
		rows := make([]string, importRows)
		for i := range rows {
			rows[i] = hashOf(hashlist.PDQ, f, fmt.Sprint("row ", seed), i)
			m.sent[rows[i]] = true
			all.WriteString(strings.TrimPrefix(rows[i], "pdq:") + "\n")
		}
		m.files = append(m.files, rows)
	}

	d := startDaemon(t, dir, program(t, serveArgs(dir)...))
	d.list(t, "killed")
	d.list(t, "imported")
	start, early := time.Now(), 0
	for round := range kills {
		ctx, cancel := context.WithCancel(t.Context())
		var work sync.WaitGroup
		for w := range 3 {
			work.Go(func() { m.submit(ctx, t, d, round, w) })
		}
		work.Go(func() { m.load(ctx, d) })
		<-time.After(time.Duration(random.IntN(200)) * time.Millisecond)
		d.kill()
		cancel()
		work.Wait()
		// Every fifth time it is killed again while it starts, at which it may be
		// writing back what the first kill left in the write-ahead log.
		if round%5 == 4 {
			again, lines, err := launch(dir, program(t, serveArgs(dir)...))
			if err != nil {
				t.Fatal(err)
			}
			select {
			case <-time.After(time.Duration(random.IntN(300)) * time.Millisecond):
			case <-lines:
			}
			again.kill()
			early++
		}
		d = startDaemon(t, dir, program(t, serveArgs(dir)...))
		m.compare(t, d, key.Public().(ed25519.PublicKey), round == kills-1)
		if t.Failed() {
			t.Fatalf("after kill %d; the seed is %d", round+1, seed)
		}
	}

	// Everything is imported again in one piece, to its end: what broke off is
	// there then, and nothing twice.
	path := filepath.Join(filepath.Dir(dir), "rows.txt")
	if err := writeNew(path, []byte(all.String())); err != nil {
		t.Fatal(err)
	}
	before := len(m.imported)
	tocsin(t, "import", "--data", dir, "--list", "imported", "--format", "plain", path)
	m.compare(t, d, key.Public().(ed25519.PublicKey), true)
	m.compareExport(t, dir)
	d.stop(t, d.cmd.Process.Pid)
	doctor := program(t, "doctor", "--data", dir, "--json")
	// It looks whether the ports are free.
	doctor.Env = append(doctor.Environ(), "TOCSIN_GRPC__ADDRESS=127.0.0.1:0", "TOCSIN_HTTP__ADDRESS=127.0.0.1:0", "TOCSIN_FEDERATION__ADDRESS=127.0.0.1:0")
	if out, err := doctor.CombinedOutput(); err != nil {
		t.Errorf("doctor: %v\n%s", err, out)
	}
	if len(m.acked) < kills || before < importRows {
		t.Errorf("only %d statements and %d imported hashes were acknowledged: the kills came too early to show anything", len(m.acked), before)
	}
	t.Logf("%d kills, %d of them while starting, in %v: %d statements and %d imported hashes had been acknowledged, none is lost",
		kills+early, early, time.Since(start).Round(time.Millisecond), len(m.acked), before)
}

// submit puts statements on the list one after the other, and withdraws some,
// until the node is gone.
func (m *model) submit(ctx context.Context, t *testing.T, d *daemon, round, worker int) {
	for i := 0; ; i++ {
		name := fmt.Sprintf("worker %d, statement %d", worker, i)
		hashes := []string{hashOf(hashlist.PDQ, round, name, 0), hashOf(hashlist.SHA256, round, name, 1), hashOf(hashlist.PHash, round, name, 2)}
		m.mu.Lock()
		for _, h := range hashes {
			m.sent[h] = true
		}
		m.mu.Unlock()
		r, err := d.lists.Submit(ctx, &pb.SubmitRequest{List: "killed", Hashes: hashes, Reason: name})
		if err != nil {
			return
		}
		if r.GetStatementId() == "" || r.GetSeq() == 0 {
			t.Errorf("submit gave no statement: %v", r)
			return
		}
		m.mu.Lock()
		m.acked[r.GetStatementId()] = true
		m.inForce[r.GetStatementId()] = map[string]bool{hashes[0]: true, hashes[1]: true, hashes[2]: true}
		m.mu.Unlock()
		if i%4 != 3 {
			continue
		}
		// A retraction that is not acknowledged may have happened: until it is seen,
		// neither is wrong.
		m.mu.Lock()
		of := m.inForce[r.GetStatementId()]
		of[hashes[1]] = false
		m.mu.Unlock()
		back, err := d.lists.Retract(ctx, &pb.RetractRequest{StatementId: r.GetStatementId(), Hashes: hashes[1:2]})
		if err != nil {
			return
		}
		m.mu.Lock()
		m.acked[back.GetStatementId()] = true
		delete(of, hashes[1])
		m.mu.Unlock()
	}
}

// load imports the files one after the other, from the first that was not
// acknowledged, until the node is gone.
func (m *model) load(ctx context.Context, d *daemon) {
	for m.next < len(m.files) { // next is this goroutine's own while it runs
		stream, err := d.lists.Import(ctx)
		if err != nil {
			return
		}
		options := &pb.ImportOptions{List: "imported", Format: "plain"}
		for rows := range slices.Chunk(m.files[m.next], importRows/4) {
			chunk := strings.ReplaceAll(strings.Join(rows, "\n"), "pdq:", "") + "\n"
			if stream.Send(&pb.ImportRequest{Options: options, Chunk: []byte(chunk)}) != nil {
				return
			}
			options = nil
		}
		if stream.CloseSend() != nil {
			return
		}
		done := false
		for !done {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			done = r.GetDone()
		}
		m.mu.Lock()
		for _, h := range m.files[m.next] {
			m.imported[h] = true
		}
		m.mu.Unlock()
		m.next++
	}
}

// compare reads the whole log of a node that has just started, folds it by hand,
// and compares: nothing acknowledged is missing, nothing is there that was never
// sent, every signature is good, and lookups answer accordingly. What was not
// acknowledged and is there joins the model. Every hash is looked up if all is
// set, and else those of the last statements and a sample.
func (m *model) compare(t *testing.T, d *daemon, key ed25519.PublicKey, all bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitTime)
	defer cancel()
	status, err := d.admin.GetStatus(ctx, &pb.GetStatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	stream, err := d.lists.Watch(ctx, &pb.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	var order []string
	inForce := map[string]map[string]bool{}
	imported := map[string]int{}
	for seq := uint64(1); seq <= status.GetIndexSeq(); seq++ {
		r, err := stream.Recv()
		if err != nil {
			t.Fatalf("the log ends before statement %d of %d: %v", seq, status.GetIndexSeq(), err)
		}
		if r.GetSeq() != seq || there[r.GetStatementId()] {
			t.Errorf("statement %s has place %d, want %d, and must be there once", r.GetStatementId(), r.GetSeq(), seq)
		}
		s, seen := m.opened[string(r.GetSigned())] // the same bytes need be opened only once
		if !seen {
			if s, err = federation.Open(r.GetSigned(), func(_, _ string) (ed25519.PublicKey, error) { return key, nil }); err != nil {
				t.Fatalf("statement %d: %v", seq, err)
			}
			m.opened[string(r.GetSigned())] = s
		}
		if s.ID != r.GetStatementId() {
			t.Errorf("statement %d is %s, but what was signed is %s", seq, r.GetStatementId(), s.ID)
		}
		there[s.ID] = true
		switch {
		case s.Kind == hashlist.Retraction:
			for _, h := range s.Hashes {
				delete(inForce[s.Retracts], h.String())
			}
		case s.Kind == hashlist.AddHashes && strings.HasSuffix(s.List, "/imported"):
			for _, h := range s.Hashes {
				imported[h.String()]++
			}
		case s.Kind == hashlist.AddHashes:
			inForce[s.ID] = map[string]bool{}
			for _, h := range s.Hashes {
				inForce[s.ID][h.String()] = true
			}
			order = append(order, s.ID)
		}
	}
	cancel()
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := range m.acked {
		if !there[id] {
			t.Errorf("statement %s was acknowledged and is lost", id)
		}
	}
	for id, hashes := range m.inForce {
		for h, certain := range hashes {
			if certain && !inForce[id][h] {
				t.Errorf("hash %s of statement %s was acknowledged and is not in force", h, id)
			}
		}
		for h := range inForce[id] {
			if _, known := hashes[h]; !known {
				t.Errorf("hash %s of statement %s is in force, but its retraction was acknowledged", h, id)
			}
		}
	}
	for _, hashes := range inForce {
		for h := range hashes {
			if !m.sent[h] {
				t.Errorf("hash %s was never sent", h)
			}
		}
	}
	for h, n := range imported {
		if n != 1 || !m.sent[h] {
			t.Errorf("imported hash %s is there %d times", h, n)
		}
	}
	for h := range m.imported {
		if imported[h] == 0 {
			t.Errorf("imported hash %s was acknowledged and is lost", h)
		}
	}
	m.inForce = inForce // from here on all of it is certain
	for id := range there {
		m.acked[id] = true
	}
	for h := range imported {
		m.imported[h] = true
	}

	type question struct {
		hash, statement string
	}
	var questions []question
	for i, id := range order {
		if all || i >= len(order)-30 || i%17 == 0 {
			for h := range inForce[id] {
				questions = append(questions, question{h, id})
			}
		}
	}
	for i, h := range slices.Sorted(maps.Keys(imported)) {
		if i%97 == 0 || all && i%5 == 0 {
			questions = append(questions, question{h, ""})
		}
	}
	for batch := range slices.Chunk(questions, 256) {
		r := &pb.LookupStreamRequest{Tag: 7}
		for _, q := range batch {
			r.Lookups = append(r.Lookups, &pb.LookupRequest{Hashes: []string{q.hash}})
		}
		answer, err := ask(t.Context(), d.lookups, r)
		if err != nil {
			t.Fatal(err)
		}
		for i, q := range batch {
			if !slices.ContainsFunc(answer.GetLookups()[i].GetMatches(), func(m *pb.Match) bool {
				return m.GetDistance() == 0 && (q.statement == "" || m.GetStatementId() == q.statement)
			}) {
				t.Errorf("hash %s of statement %s is in force, and not found", q.hash, q.statement)
			}
		}
	}
}

// ask puts one request through a stream of lookups.
func ask(ctx context.Context, c pb.LookupServiceClient, r *pb.LookupStreamRequest) (*pb.LookupStreamResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, waitTime)
	defer cancel()
	stream, err := c.LookupStream(ctx)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(stream.Send(r), stream.CloseSend()); err != nil {
		return nil, err
	}
	answer, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	if _, err := stream.Recv(); err != io.EOF {
		return nil, fmt.Errorf("the stream does not end: %v", err)
	}
	return answer, nil
}

// compareExport compares what the node exports with the model.
func (m *model) compareExport(t *testing.T, dir string) {
	t.Helper()
	if got := strings.Count(tocsin(t, "export", "imported", "--data", dir, "--format", "plain"), "\n"); got != importFiles*importRows {
		t.Errorf("%d imported hashes are exported, want %d", got, importFiles*importRows)
	}
	want := map[string]bool{}
	for _, hashes := range m.inForce {
		for h := range hashes {
			want[strings.Replace(h, ":", " ", 1)] = true
		}
	}
	got := map[string]bool{}
	for line := range strings.Lines(tocsin(t, "export", "killed", "--data", dir, "--format", "pdq")) {
		if line = strings.TrimSpace(line); got[line] {
			t.Errorf("%s is exported twice", line)
		}
		got[line] = true
	}
	if !maps.Equal(got, want) {
		t.Errorf("%d hashes are exported, want %d", len(got), len(want))
	}
}
