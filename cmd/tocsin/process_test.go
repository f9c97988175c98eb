package main

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// TestImportIsInterrupted interrupts an import from a pipe as Ctrl-C does, and
// runs it again.
func TestImportIsInterrupted(t *testing.T) {
	dir := newNode(t)
	d := startDaemon(t, dir, program(t, serveArgs(dir)...))
	d.list(t, "partner")
	const half = 20_000
	var rows [2 * half]string
	for i := range rows {
		rows[i] = strings.TrimPrefix(hashOf(hashlist.PDQ, 0, "row", i), "pdq:") + "\n"
	}
	cmd := program(t, "import", "-", "--data", dir, "--list", "partner", "--format", "plain")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdin.Write([]byte(strings.Join(rows[:half], ""))); err != nil {
		t.Fatal(err)
	}
	// Once the node has listed some of it, it is under way.
	watch, err := d.lists.Watch(t.Context(), &pb.WatchRequest{After: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	stop := time.AfterFunc(waitTime, func() { cmd.Process.Kill() })
	defer stop.Stop()
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != exitTrouble {
		t.Fatalf("the interrupted import ended with %v, want exit status %d\n%s", err, exitTrouble, stderr.Bytes())
	}
	for _, want := range []string{"run it again to go on", "interrupted"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("it said %q, want %q in it", stderr.String(), want)
		}
	}
	if want := "hashes listed on partner"; !strings.Contains(stdout.String(), "at least ") || !strings.Contains(stdout.String(), want) {
		t.Errorf("it printed %q, want how many %s at least", stdout.String(), want)
	}
	path := filepath.Join(filepath.Dir(dir), "rows.txt")
	if err := writeNew(path, []byte(strings.Join(rows[:], ""))); err != nil {
		t.Fatal(err)
	}
	tocsin(t, "import", path, "--data", dir, "--list", "partner", "--format", "plain")
	l, err := d.lists.GetList(t.Context(), &pb.GetListRequest{List: "partner"})
	if err != nil || l.GetList().GetHashes() != 2*half {
		t.Errorf("the list has %d hashes, %v, want %d, each once", l.GetList().GetHashes(), err, 2*half)
	}
}

// TestSystemdIsTold plays systemd's part in the start and end of a service.
func TestSystemdIsTold(t *testing.T) {
	dir := newNode(t)
	path := filepath.Join(filepath.Dir(dir), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.SetReadDeadline(time.Now().Add(waitTime)); err != nil {
		t.Fatal(err)
	}
	cmd := program(t, serveArgs(dir)...)
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+path)
	d := startDaemon(t, dir, cmd)
	for _, want := range []string{"READY=1", "STOPPING=1"} {
		b := make([]byte, 100)
		n, err := l.Read(b)
		if err != nil || string(b[:n]) != want {
			t.Fatalf("systemd was told %q, %v, want %q", b[:n], err, want)
		}
		if want == "READY=1" {
			if err := syscall.Kill(cmd.Process.Pid, syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
		}
	}
	select {
	case err := <-d.done:
		d.done <- err
		if err != nil {
			t.Errorf("the node did not end well: %v", err)
		}
	case <-time.After(waitTime):
		t.Errorf("the node did not end in %v", waitTime)
	}
}
