package federation_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fedify is a Fedify server in a process of its own, on loopback. What it can be
// told, and what it tells, is written in testdata/fedify/peer.mjs. One goroutine
// at a time may use it.
type fedify struct {
	Origin, Actor, Inbox, SharedInbox, Handle string

	t      *testing.T
	ctx    context.Context // ends with the process, or before it when the test takes too long
	stdin  io.Writer
	lines  <-chan []byte // what it says; closed when it has ended
	calls  int
	events []fedifyEvent // that came while an answer was waited for
}

// fedifyEvent is a request that it got.
type fedifyEvent struct {
	Event, Method, Path, Scheme, Type, ID, Actor, Body, Response string

	Headers    map[string]string
	Status     int
	Listened   string // the class of the activity, if it came through
	Verified   bool   // the activity counts as its actor's
	LD         bool   // by a linked-data signature
	Proofs     []fedifyKey
	HTTP       *fedifyKey
	Page       *fedifyPage
	Statements []struct {
		ID string
		fedifyProofs
	}
	Requests []fedifyRequest
	Log      []string
}

type fedifyKey struct {
	Verified    bool
	Key, Reason string
}

// fedifyProofs is what it makes of the proofs in a document.
type fedifyProofs struct {
	Verified bool
	Keys     []struct{ ID, Controller string }
	Error    string
}

type fedifyPage struct {
	Class, ID, PartOf, Error string
	StartIndex               uint64
	Items                    []struct{ Class, ID string }
}

// fedifyRequest is a request that it sent.
type fedifyRequest struct {
	Method, URL, Scheme string
	Status              int
}

// startFedify starts a server that ends with the test. Given a scheme it takes no
// request that is signed in another. It is nil where Fedify is not
// installed (see tools/interop); with CI=true that is a failure.
func startFedify(t *testing.T, scheme ...string) *fedify {
	t.Helper()
	installed := os.Getenv("TOCSIN_FEDIFY")
	if installed == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("TOCSIN_FEDIFY is not set, but CI is; run: make interop")
		}
		t.Log("not tried: Fedify is not installed; run: make interop")
		return nil
	}
	// The program has to lie beside the packages that it imports.
	dir := t.TempDir()
	program, err := os.ReadFile(filepath.Join("testdata", "fedify", "peer.mjs"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "peer.mjs"), program, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(installed, "node_modules"), filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	cmd := exec.CommandContext(ctx, filepath.Join(installed, "node"), append([]string{filepath.Join(dir, "peer.mjs"), "127.0.0.1"}, scheme...)...)
	cmd.Stderr = t.Output()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan []byte)
	go func() {
		defer close(lines)
		for r := bufio.NewReader(stdout); ; {
			line, err := r.ReadBytes('\n')
			if err != nil {
				return
			}
			select {
			case lines <- line:
			case <-ctx.Done():
			}
		}
	}()
	t.Cleanup(func() {
		stdin.Close() // it ends when there is nothing more to read
		for range lines {
		}
		if err := cmd.Wait(); err != nil && ctx.Err() == nil {
			t.Errorf("Fedify ended with: %v", err)
		}
		cancel()
	})
	f := &fedify{t: t, ctx: ctx, stdin: stdin, lines: lines}
	if err := json.Unmarshal(f.line(), f); err != nil || f.Origin == "" {
		t.Fatal("Fedify did not say where it listens:", err)
	}
	return f
}

func (f *fedify) line() []byte {
	f.t.Helper()
	select {
	case line, ok := <-f.lines:
		if ok {
			return line
		}
		f.t.Fatal("Fedify has ended")
	case <-f.ctx.Done():
		f.t.Fatal("Fedify does not answer:", context.Cause(f.ctx))
	}
	return nil
}

// call tells it to do something, and reads its answer into result (which may be
// nil). The requests are those that it sent on the way. An error is what it said.
func (f *fedify) call(command string, args map[string]any, result any) ([]fedifyRequest, error) {
	f.t.Helper()
	f.calls++
	message := map[string]any{"n": f.calls, "cmd": command}
	for name, v := range args {
		message[name] = v
	}
	b, err := json.Marshal(message)
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := f.stdin.Write(append(b, '\n')); err != nil {
		f.t.Fatal("tell Fedify:", err)
	}
	for {
		line := f.line()
		var answer struct {
			N        int
			Error    string
			Requests []fedifyRequest
			Log      []string
			fedifyEvent
		}
		if err := json.Unmarshal(line, &answer); err != nil {
			f.t.Fatalf("Fedify said %.200s: %v", line, err)
		}
		switch {
		case answer.Event != "":
			f.events = append(f.events, answer.fedifyEvent)
			continue
		case answer.N != f.calls:
			f.t.Fatalf("Fedify answers command %d instead of %d", answer.N, f.calls)
		case answer.Error != "":
			return answer.Requests, fmt.Errorf("%s\n%s", answer.Error, strings.Join(answer.Log, "\n"))
		}
		if result != nil {
			if err := json.Unmarshal(line, result); err != nil {
				f.t.Fatalf("Fedify said %.200s: %v", line, err)
			}
		}
		return answer.Requests, nil
	}
}

// event returns the first event not yet returned that is wanted, which may be still to come.
func (f *fedify) event(wanted func(fedifyEvent) bool) fedifyEvent {
	f.t.Helper()
	for i := 0; ; i++ {
		if i == len(f.events) {
			var e fedifyEvent
			if line := f.line(); json.Unmarshal(line, &e) != nil || e.Event == "" {
				f.t.Fatalf("Fedify said %.200s where nothing was asked", line)
			}
			f.events = append(f.events, e)
		}
		if e := f.events[i]; wanted(e) {
			f.events = append(f.events[:i], f.events[i+1:]...)
			return e
		}
	}
}

// inbox returns the next activity of a type that was sent to it.
func (f *fedify) inbox(kind string) fedifyEvent {
	f.t.Helper()
	return f.event(func(e fedifyEvent) bool { return e.Event == "inbox" && e.Type == kind })
}

// verify asks it whether the proofs of a statement hold.
func (f *fedify) verify(statement []byte) fedifyProofs {
	f.t.Helper()
	var p fedifyProofs
	if _, err := f.call("verify", map[string]any{"statement": json.RawMessage(statement)}, &p); err != nil {
		f.t.Fatal(err)
	}
	return p
}
