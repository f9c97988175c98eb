package imagehash

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// A child is a decode worker as its parent sees it. One goroutine at a time
// uses it; kill alone may be called from any.
type child struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *os.File
	stderr  *tail
	killed  atomic.Bool   // by us
	exited  chan struct{} // closed when the process is gone and reaped
	state   *os.ProcessState
	warm    [len(formats)]bool // decoders that are compiled
	files   int                // that it was sent
	coded   int                // of those, the ones whose decoder is not memory-safe
	greeted bool
}

// startChild starts a worker. It must run on the thread that lives as long as
// the worker may, for the kernel ties the child's life to it.
func startChild(memory int64, turbo bool) (*child, error) {
	attributes, err := childAttributes()
	if err != nil {
		return nil, err
	}
	path, err := selfPath()
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	c := &child{out: r, stderr: new(tail), exited: make(chan struct{})}
	c.cmd = &exec.Cmd{
		Path: path,
		Args: []string{workerName},
		// Nothing of the parent's environment: it may hold secrets.
		Env: []string{
			workerEnv + "=1", workerMemoryEnv + "=" + strconv.FormatInt(memory, 10),
			workerTurboEnv + "=" + strconv.FormatBool(turbo), "GOMAXPROCS=2", "GOTRACEBACK=none",
		},
		Dir:         "/",
		Stderr:      c.stderr,
		ExtraFiles:  []*os.File{w},
		SysProcAttr: attributes,
	}
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		r.Close()
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		r.Close()
		return nil, err
	}
	return c, nil
}

// reap waits for the process to end. It runs in a goroutine of its own, which
// ends with the process.
func (c *child) reap() {
	_ = c.cmd.Wait() // the state tells more than the error
	c.state = c.cmd.ProcessState
	close(c.exited)
}

// kill ends the process. Whoever talks to it gets an error at once.
func (c *child) kill() {
	c.killed.Store(true)
	_ = c.cmd.Process.Kill() // fails only when it is dead already
}

// close kills and waits.
func (c *child) close() {
	c.kill()
	<-c.exited
	c.out.Close()
}

// expect reads the next message, which must be of the kind wanted or a failure.
func (c *child) expect(kind byte) (got byte, body []byte, err error) {
	got, body, err = readMessage(c.out)
	if err == nil && got != kind && (got != sayFailure || kind == sayBegun) {
		err = errMalformed
	}
	return got, body, err
}

// greet waits until a new child is confined and ready.
func (c *child) greet() error {
	if c.greeted {
		return nil
	}
	kind, body, err := c.expect(sayHello)
	if err != nil {
		return err
	}
	if kind == sayFailure {
		return fmt.Errorf("worker cannot confine itself: %s", strings.TrimPrefix(string(body), "c"))
	}
	c.greeted = true
	return nil
}

// After so many files a child is replaced, well or not. A file that took it over
// could answer for the files after it, so its parent counts. A decoder written in C
// makes that likelier. A fresh child pays
// up to three seconds for its first AVIF, HEIC or JPEG XL, of which the decoders
// are C compiled to WebAssembly, and which so have the smaller number: of 256
// files of 50 ms each, compiling one of them anew takes a fifth of the time.
const (
	maxFiles = 2000
	maxCoded = 256
)

var codedFormats = []string{"avif", "heic", "jxl", "jpeg"} // of which the decoder is C, or may be

// spent reports whether the child is to be replaced.
func (c *child) spent() bool { return c.files >= maxFiles || c.coded >= maxCoded }

// A reply is what came of one file.
type reply struct {
	media   Media
	failure error // the file's
}

// send passes a request and waits until the child has begun on it.
func (c *child) send(r request, media []byte) error {
	if err := c.greet(); err != nil {
		return err
	}
	if _, err := c.in.Write(r.encode()); err != nil {
		return err
	}
	if _, err := c.in.Write(media); err != nil {
		return err
	}
	if _, _, err := c.expect(sayBegun); err != nil {
		return err
	}
	c.warm[r.format] = true
	if c.files++; slices.Contains(codedFormats, formats[r.format]) {
		c.coded++
	}
	return nil
}

// receive waits for the answer to the request sent.
func (c *child) receive(r request) (reply, error) {
	kind, body, err := c.expect(sayResult)
	if err != nil {
		return reply{}, err
	}
	if kind == sayFailure {
		failure, err := parseFailure(body)
		return reply{failure: failure}, err
	}
	m, err := parseResult(body, r)
	return reply{media: m}, err
}

// A death is why a child that we did not kill is gone.
type death int

const (
	crashed   death = iota // by its own fault, or that of the file
	memoryOut              // beyond its cap
	slain                  // by a signal from outside
)

// memoryWords are what the Go runtime, the C library's threads and the race
// detector say when they get no more memory.
var memoryWords = []string{
	"out of memory", "cannot allocate memory", "failed to reserve", "failed to allocate",
	"failed to create new OS thread", "pthread_create failed",
}

// autopsy tells why the child died. It must have exited.
func (c *child) autopsy() death {
	status, _ := c.state.Sys().(syscall.WaitStatus)
	said := c.stderr.text()
	switch {
	case status.Signaled() && (status.Signal() == syscall.SIGKILL || status.Signal() == syscall.SIGTERM):
		return slain
	case slices.ContainsFunc(memoryWords, func(w string) bool { return strings.Contains(said, w) }):
		return memoryOut
	}
	return crashed
}

// tail keeps the beginning of what a child prints when it dies, and lets it
// print the rest into the void.
type tail struct{ b bytes.Buffer }

// Write never fails. It is called by the goroutine that cmd.Wait waits for.
func (t *tail) Write(p []byte) (int, error) {
	t.b.Write(p[:min(len(p), max(0, 4096-t.b.Len()))])
	return len(p), nil
}

func (t *tail) text() string { return t.b.String() }

// lastWords is the first line a dead child printed, for the log.
func (c *child) lastWords() string {
	line, _, _ := strings.Cut(c.stderr.text(), "\n")
	if line == "" {
		return ""
	}
	return fmt.Sprintf(" (%.120q)", line)
}

// waitExit waits for a child that has stopped to talk sense, and kills it if
// it does not go by itself.
func (c *child) waitExit() {
	t := time.AfterFunc(2*time.Second, func() { _ = c.cmd.Process.Kill() })
	<-c.exited
	t.Stop()
}

var errClosed = errors.New("the hasher is closed")
