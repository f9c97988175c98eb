package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tocsin-fed/tocsin/hashlist/imagehash"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// TestMain makes the test binary the real program when it is started under the
// name tocsin: what the tests run is main itself, in a process of its own.
func TestMain(m *testing.M) {
	imagehash.WorkerMain()
	testscript.Main(m, map[string]func(){"tocsin": main})
}

// waitTime bounds every wait of the tests for something to happen.
const waitTime = time.Minute

// program is the command line that runs the program.
func program(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &exec.Cmd{Path: self, Args: append([]string{"tocsin"}, args...), Env: append(os.Environ(), "TOCSIN_DATA=", "TOCSIN_SERVER=")}
}

// tocsin runs a command of the program and returns what it printed.
func tocsin(t testing.TB, args ...string) string {
	t.Helper()
	cmd := program(t, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tocsin %q: %v\n%s", args, err, stderr.Bytes())
	}
	return string(out)
}

// newNode makes a data directory. Its path is short, because of its socket.
func newNode(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tocsin")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	data := filepath.Join(dir, "data")
	tocsin(t, "init", "--data", data)
	return data
}

// daemon is a node that runs in a process of its own.
type daemon struct {
	dir  string
	cmd  *exec.Cmd
	log  *bytes.Buffer // its standard error; to be read when it has ended
	GRPC string
	HTTP string
	// Federation is where other nodes reach it.
	Federation string
	done       chan error // what Wait returned, once

	conn    *grpc.ClientConn // to its socket
	lookups pb.LookupServiceClient
	lists   pb.ListServiceClient
	admin   pb.AdminServiceClient
}

// serveArgs runs the node of dir on free ports.
func serveArgs(dir string, more ...string) []string {
	return append([]string{
		"serve", "--json", "--data", dir, "--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--federation-listen", "127.0.0.1:0",
	}, more...)
}

// launch starts cmd, which is to run the node of dir, without waiting for it.
// The line with which it says that it is ready comes on the channel, which is
// closed when there is none.
func launch(dir string, cmd *exec.Cmd) (*daemon, <-chan []byte, error) {
	d := &daemon{dir: dir, cmd: cmd, log: new(bytes.Buffer), done: make(chan error, 1)}
	cmd.Stderr = d.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	cmd.Stdout = w
	err = cmd.Start()
	w.Close()
	if err != nil {
		r.Close()
		return nil, nil, err
	}
	lines := make(chan []byte, 1)
	go func() {
		b := bufio.NewReader(r)
		if line, err := b.ReadBytes('\n'); err == nil {
			lines <- line
		}
		close(lines)
		_, _ = io.Copy(io.Discard, b)
		r.Close()
		d.done <- cmd.Wait()
	}()
	return d, lines, nil
}

// connect reads the line of a node that is ready, and connects to it.
func (d *daemon) connect(line []byte) error {
	if err := json.Unmarshal(line, d); err != nil {
		return fmt.Errorf("ready line %q: %w", line, err)
	}
	socket := filepath.Join(d.dir, "tocsin.sock")
	var err error
	d.conn, err = grpc.NewClient("passthrough:///node", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		}))
	if err != nil {
		return err
	}
	d.lookups, d.lists, d.admin = pb.NewLookupServiceClient(d.conn), pb.NewListServiceClient(d.conn), pb.NewAdminServiceClient(d.conn)
	return nil
}

// startDaemon runs cmd, which is to run the node of dir, until the test ends or stops it.
func startDaemon(t testing.TB, dir string, cmd *exec.Cmd) *daemon {
	t.Helper()
	d, lines, err := launch(dir, cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.kill() })
	select {
	case line, ok := <-lines:
		if !ok {
			<-d.done
			d.done <- nil
			t.Fatalf("the node did not become ready:\n%s", d.log.Bytes())
		}
		if err := d.connect(line); err != nil {
			t.Fatal(err)
		}
	case <-time.After(waitTime):
		d.kill()
		t.Fatalf("the node was not ready in %v:\n%s", waitTime, d.log.Bytes())
	}
	return d
}

// kill ends the node by SIGKILL, and waits until it is gone. Killing again does nothing.
func (d *daemon) kill() {
	if d.conn != nil {
		d.conn.Close()
	}
	_ = syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL)
	d.done <- <-d.done
}

// stop ends the node as its operator would, and fails the test if it does not end well.
func (d *daemon) stop(t testing.TB, pid int) {
	t.Helper()
	d.conn.Close()
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-d.done:
		d.done <- err
		if err != nil {
			t.Fatalf("the node did not end well: %v\n%s", err, d.log.Bytes())
		}
	case <-time.After(waitTime):
		t.Fatalf("the node did not end in %v", waitTime)
	}
}

// token makes a token over the socket and returns its secret.
func (d *daemon) token(t testing.TB, name, scope string) string {
	t.Helper()
	r, err := d.admin.CreateToken(t.Context(), &pb.CreateTokenRequest{Token: &pb.Token{Name: name, Scope: scope}})
	if err != nil {
		t.Fatal(err)
	}
	return r.GetSecret()
}

// list makes a list.
func (d *daemon) list(t testing.TB, name string) {
	t.Helper()
	if _, err := d.lists.CreateList(t.Context(), &pb.CreateListRequest{List: &pb.List{Name: name}}); err != nil {
		t.Fatal(err)
	}
}

// hook uploads a file as pict-rs does: in chunks, without a length.
func hook(ctx context.Context, client *http.Client, address, token, contentType string, file []byte) (status int, body []byte, err error) {
	unsized := io.MultiReader(bytes.NewReader(file)) // of no length that net/http could see
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/hook/pictrs/"+token, unsized)
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Content-Type", contentType)
	answer, err := client.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer answer.Body.Close()
	body, err = io.ReadAll(answer.Body)
	return answer.StatusCode, body, err
}

// lookupMedia uploads a file over gRPC.
func lookupMedia(ctx context.Context, c pb.LookupServiceClient, file []byte) (*pb.LookupMediaResponse, error) {
	stream, err := c.LookupMedia(ctx)
	if err != nil {
		return nil, err
	}
	for len(file) > 0 {
		piece := file[:min(len(file), chunkSize)]
		file = file[len(piece):]
		if stream.Send(&pb.LookupMediaRequest{Chunk: piece}) != nil {
			break // CloseAndRecv has the reason
		}
	}
	return stream.CloseAndRecv()
}

// photo is a photograph of the demo.
func photo(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "demo", "photos", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestFit(t *testing.T) {
	for _, c := range []struct {
		width int
		want  string
	}{
		{0, "one two three four five six seven"},  // no terminal
		{80, "one two three four five six seven"}, // it fits
		{40, "one two three four five six…"},      // 40 - 4 - 2 - 4 - 2 are 28
		{30, "one two three four …"},              // some of it is left
	} {
		rows := [][]string{{"held", "äöü!", "one two three four five six seven"}}
		if fit([]string{"ID", "KIND", "SUMMARY"}, rows, c.width); rows[0][2] != c.want {
			t.Errorf("width %d: %q, want %q", c.width, rows[0][2], c.want)
		}
	}
}
