package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// node is a tocsin that runs as a process of its own, as it would for an operator.
type node struct {
	name        string // stands before what its operator types
	binary, dir string
	host        string    // of its origin, with its port
	out         io.Writer // the transcript
	process     *exec.Cmd
	grpc, http  string // addresses
	token       string
	conn        *grpc.ClientConn
}

// stopTime is how long a node may take to end.
const stopTime = 15 * time.Second

// newNode makes a node in a directory below dir. Its address is part of the name of all that
// it says, so it has to have a port before it runs.
func newNode(ctx context.Context, binary, dir, name string, out io.Writer) (*node, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	host := strings.Replace(l.Addr().String(), "127.0.0.1", "localhost", 1)
	if err := l.Close(); err != nil {
		return nil, err
	}
	n := &node{name: name, binary: binary, dir: filepath.Join(dir, name), host: host, out: out}
	return n, n.run(ctx, "init", "--origin", "http://"+host)
}

// serve runs the node, on ports that are free but for the one that others know.
func (n *node) serve(ctx context.Context) error {
	args := []string{
		"serve", "--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--federation-listen", n.host,
		"--set", "federation.loopback=true",
	}
	n.prompt(args...)
	log, err := os.OpenFile(n.dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	n.process = exec.CommandContext(ctx, n.binary, append(args, "--json", "--data", n.dir)...)
	n.process.Stderr = log
	n.process.Cancel = func() error { return n.process.Process.Signal(syscall.SIGTERM) }
	n.process.WaitDelay = stopTime
	// Ctrl-C reaches the node once, through Cancel.
	n.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdout, err := n.process.StdoutPipe()
	if err != nil {
		return err
	}
	if err := n.process.Start(); err != nil {
		return fmt.Errorf("start the node: %w", err)
	}
	var ready struct{ GRPC, HTTP string }
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &ready)
	}
	if err != nil {
		said, _ := os.ReadFile(log.Name())
		return errors.Join(fmt.Errorf("node %s did not become ready; it said:\n%s", n.name, said), n.stop())
	}
	n.grpc, n.http = ready.GRPC, ready.HTTP
	if n.conn != nil {
		n.conn.Close()
	}
	n.conn, err = grpc.NewClient("passthrough:///"+n.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	return err
}

// stop ends the node and waits until it is gone.
func (n *node) stop() error {
	if n.process == nil || n.process.ProcessState != nil {
		return nil
	}
	if err := n.process.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	kill := time.AfterFunc(stopTime, func() { n.process.Process.Kill() })
	defer kill.Stop()
	if err := n.process.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("the node did not end well: %w", err)
	}
	return nil
}

// output runs a command of tocsin against the node.
func (n *node) output(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, n.binary, append(args, "--data", n.dir)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("tocsin %s: %w\n%s", args[0], err, stderr.Bytes())
	}
	return out, nil
}

// prompt shows a command in the transcript.
func (n *node) prompt(args ...string) {
	shown := make([]string, len(args))
	for i, a := range args {
		if shown[i] = strings.TrimPrefix(a, filepath.Dir(n.dir)+"/"); strings.Contains(a, " ") {
			shown[i] = `"` + a + `"`
		}
	}
	fmt.Fprintf(n.out, "%s$ tocsin %s\n", n.name, strings.Join(shown, " "))
}

// run is output, shown in the transcript.
func (n *node) run(ctx context.Context, args ...string) error {
	n.prompt(args...)
	_, err := n.output(ctx, args...)
	return err
}

// say is run, with what it printed.
func (n *node) say(ctx context.Context, args ...string) error {
	n.prompt(args...)
	said, err := n.output(ctx, args...)
	for line := range strings.Lines(string(said)) {
		fmt.Fprintf(n.out, "   %s", line)
	}
	return err
}

// makeToken makes the token of the hook.
func (n *node) makeToken(ctx context.Context) error {
	n.prompt("token", "create", "pictrs", "--scope", "lookup")
	secret, err := n.output(ctx, "token", "create", "pictrs", "--scope", "lookup")
	n.token = strings.TrimSpace(string(secret))
	return err
}

// listed returns the hashes on the list.
func (n *node) listed(ctx context.Context) ([]string, error) {
	out, err := n.output(ctx, "list", "entries", "refused", "--json")
	if err != nil {
		return nil, err
	}
	var entry struct{ Hashes []string }
	if err := json.Unmarshal(out, &entry); err != nil || len(entry.Hashes) < 2 {
		return nil, fmt.Errorf("the photograph should be listed by two hashes, the list has %q (%v)", entry.Hashes, err)
	}
	return entry.Hashes, nil
}

// await uploads a picture to the hook until it gives the answer that is wanted,
// and returns how long that took.
func (n *node) await(ctx context.Context, file []byte, want int) (time.Duration, error) {
	begun := time.Now()
	ctx, cancel := context.WithTimeout(ctx, awaitTime)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		status, body, err := n.hook(ctx, file)
		if err != nil {
			return 0, fmt.Errorf("hook of node %s: %w", n.name, err)
		}
		if status == want {
			return time.Since(begun), nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, fmt.Errorf("the hook of node %s still answers %d after %v, want %d: %s", n.name, status, awaitTime, want, body)
		}
	}
}

// awaitTime is how long the demo waits for something to happen.
const awaitTime = 20 * time.Second

// show uploads a picture by both doors, prints what came of it, and returns what
// is not as it should be. No answer of the hook may have one of the listed hashes.
func (n *node) show(ctx context.Context, p picture, listed []string) error {
	status, body, err := n.hook(ctx, p.bytes)
	if err != nil {
		return fmt.Errorf("hook: %w", err)
	}
	answer, err := n.lookup(ctx, p.bytes)
	if err != nil {
		return fmt.Errorf("gRPC: %w", err)
	}
	said := strings.ToLower(strings.TrimPrefix(answer.GetVerdict().String(), "VERDICT_"))
	best := "no match"
	for _, m := range answer.GetMatches() {
		// The nearest picture is of more interest here than the same bytes.
		if m.GetAlgorithm() == "pdq" {
			best = fmt.Sprintf("distance %d of 256 (%.1f %% alike, %s)", m.GetDistance(), m.GetSimilarityPercent(), m.GetTransform())
			break
		}
	}
	fmt.Fprintf(n.out, "%-34s %9d   %-18s %s, %s\n", p.name, len(p.bytes), fmt.Sprintf("%d %s", status, http.StatusText(status)), said, best)

	wantStatus, wantVerdict := http.StatusOK, pb.Verdict_VERDICT_ALLOW
	if p.known {
		wantStatus, wantVerdict = http.StatusForbidden, pb.Verdict_VERDICT_REJECT
	}
	switch {
	case status != wantStatus && !(wantStatus == http.StatusOK && status/100 == 2):
		return fmt.Errorf("the hook answered %d, want %d: %s", status, wantStatus, body)
	case answer.GetVerdict() != wantVerdict:
		return fmt.Errorf("the verdict is %s, want %s", said, strings.ToLower(wantVerdict.String()))
	case p.known && best == "no match":
		return errors.New("it was not found by its PDQ hash")
	case !p.known && len(answer.GetMatches()) > 0:
		return fmt.Errorf("it matches, but should not: %s", best)
	case p.known && !json.Valid(body):
		return fmt.Errorf("the hook gave no reason in JSON: %q", body)
	}
	for _, h := range listed {
		if _, hex, _ := strings.Cut(h, ":"); bytes.Contains(bytes.ToLower(body), []byte(hex)) {
			return errors.New("the hook's answer tells a listed hash")
		}
	}
	return nil
}

// hook posts a file as pict-rs does: the bytes as they are, in chunks, without a length.
func (n *node) hook(ctx context.Context, file []byte) (status int, body []byte, err error) {
	unsized := io.MultiReader(bytes.NewReader(file)) // of no length that net/http could see
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+n.http+"/hook/pictrs/"+n.token, unsized)
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Content-Type", "image/jpeg")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer answer.Body.Close()
	body, err = io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	return answer.StatusCode, body, err
}

// lookup asks over gRPC, in pieces of 64 KiB.
func (n *node) lookup(ctx context.Context, file []byte) (*pb.LookupResponse, error) {
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+n.token)
	stream, err := pb.NewLookupServiceClient(n.conn).LookupMedia(ctx)
	if err != nil {
		return nil, err
	}
	for len(file) > 0 {
		piece := file[:min(len(file), 64<<10)]
		file = file[len(piece):]
		if stream.Send(&pb.LookupMediaRequest{Chunk: piece}) != nil {
			break // CloseAndRecv has the reason
		}
	}
	answer, err := stream.CloseAndRecv()
	return answer.GetLookup(), err
}
