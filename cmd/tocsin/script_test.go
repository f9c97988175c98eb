package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs the files of testdata/script, each of which is a session at a
// terminal in a directory of its own. Beside the commands of testscript they
// have: serve, which runs the node of ./data on free ports and sets GRPC and
// HTTP to where; stop and kill, which end it; all three with @DIR for the node of
// another directory; port NAME, which sets a variable to a port that is free; field NAME
// KEY, which sets a variable to a field of the JSON that was printed last; upload
// STATUS FILE, which gives a file to the hook with $TOKEN; await REGEXP COMMAND...,
// which runs a command of tocsin until what it prints matches; lists N, which serves a list of
// another system with N domains at $LISTS/blocks.csv, and lists gone, which serves a page for people there.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			photos, err := filepath.Abs("../demo/photos")
			if err != nil {
				return err
			}
			return os.CopyFS(filepath.Join(env.WorkDir, "photos"), os.DirFS(photos))
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"serve": scriptServe, "stop": scriptStop, "kill": scriptStop, "field": scriptField, "upload": scriptUpload,
			"port": scriptPort, "await": scriptAwait, "lists": scriptLists,
		},
	})
}

// running are the nodes of the scripts, by their directory. A script's node is
// only touched by the script's own goroutine; the map is shared.
var running = make(chan map[string]*daemon, 1)

func init() { running <- map[string]*daemon{} }

func scriptServe(ts *testscript.TestScript, neg bool, args []string) {
	self, err := os.Executable()
	ts.Check(err)
	name, args := scriptNode(args)
	work := ts.MkAbs(".")
	cmd := &exec.Cmd{Path: self, Args: append([]string{"tocsin"}, serveArgs("./"+name, args...)...), Dir: work, Env: os.Environ()}
	if v := ts.Getenv("TOCSIN_HOOK__PICTRS__UNDECODABLE"); v != "" { // of what a script sets, what matters to a node
		cmd.Env = append(cmd.Env, "TOCSIN_HOOK__PICTRS__UNDECODABLE="+v)
	}
	d, lines, err := launch(filepath.Join(work, name), cmd)
	ts.Check(err)
	ts.Defer(d.kill)
	select {
	case line, ok := <-lines:
		if ok == neg {
			d.kill()
			ts.Fatalf("serve: ready is %v:\n%s", ok, d.log.Bytes())
		}
		if !ok {
			d.kill()
			ts.Logf("%s", d.log.Bytes())
			ts.Check(os.WriteFile(ts.MkAbs("node.log"), d.log.Bytes(), 0o600))
			return
		}
		ts.Check(d.connect(line))
	case <-time.After(waitTime):
		d.kill()
		ts.Fatalf("serve: not ready in %v:\n%s", waitTime, d.log.Bytes())
	}
	ts.Setenv("GRPC", d.GRPC)
	ts.Setenv("HTTP", d.HTTP)
	all := <-running
	all[d.dir] = d
	running <- all
}

// scriptNode takes the directory of the node from the arguments of a command.
func scriptNode(args []string) (name string, rest []string) {
	if len(args) > 0 {
		if name, ok := strings.CutPrefix(args[0], "@"); ok {
			return name, args[1:]
		}
	}
	return "data", args
}

// listServers have what the servers of the scripts serve, by directory.
var listServers = make(chan map[string]*atomic.Value, 1)

func init() { listServers <- map[string]*atomic.Value{} }

func scriptLists(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 || neg {
		ts.Fatalf("usage: lists N|gone")
	}
	all := <-listServers
	v := all[ts.MkAbs(".")]
	begin := v == nil
	if begin {
		v = new(atomic.Value)
		all[ts.MkAbs(".")] = v
	}
	listServers <- all
	n, err := strconv.Atoi(args[0])
	body := "#domain,#severity,#reject_media,#reject_reports,#public_comment,#obfuscate\n"
	for i := range n {
		body += fmt.Sprintf("bad%d.example,suspend,false,false,spam,false\n", i)
	}
	if err != nil {
		body = "<!doctype html><title>Gone</title>"
	}
	v.Store(body)
	if begin {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/csv")
			fmt.Fprint(w, v.Load())
		}))
		ts.Defer(s.Close)
		ts.Setenv("LISTS", s.URL)
	}
}

func scriptPort(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 || neg {
		ts.Fatalf("usage: port VARIABLE")
	}
	ts.Setenv(args[0], freePort(ts.Fatalf))
}

// ports are those that freePort gave out. They are free again as soon as they are known, so
// the kernel could give one twice.
var ports = make(chan map[string]bool, 1)

func init() { ports <- map[string]bool{} }

// freePort is a port on which nothing listens, for a node that must know its
// address before it has one.
func freePort(fatalf func(string, ...any)) string {
	given := <-ports
	defer func() { ports <- given }()
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			fatalf("%v", err)
		}
		_, port, _ := net.SplitHostPort(l.Addr().String())
		l.Close()
		if !given[port] {
			given[port] = true
			return port
		}
	}
}

func scriptAwait(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || neg {
		ts.Fatalf("usage: await REGEXP COMMAND...")
	}
	want, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	deadline := time.After(waitTime)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ts.Exec("tocsin", args[1:]...)
		out := ts.ReadFile("stdout")
		if want.MatchString(out) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			ts.Fatalf("await: after %v tocsin %v still printed (%v):\n%s%s", waitTime, args[1:], err, out, ts.ReadFile("stderr"))
		}
	}
}

func scriptStop(ts *testscript.TestScript, neg bool, args []string) {
	name, args := scriptNode(args)
	dir := ts.MkAbs(name)
	all := <-running
	d := all[dir]
	delete(all, dir)
	running <- all
	if d == nil {
		ts.Fatalf("no node is running")
	}
	if len(args) > 0 { // kill is SIGKILL
		d.kill()
		return
	}
	d.conn.Close()
	ts.Check(syscall.Kill(d.cmd.Process.Pid, syscall.SIGTERM))
	select {
	case err := <-d.done:
		d.done <- err
		ts.Logf("%s", d.log.Bytes())
		ts.Check(os.WriteFile(ts.MkAbs("node.log"), d.log.Bytes(), 0o600))
		ts.Check(err)
	case <-time.After(waitTime):
		ts.Fatalf("stop: the node did not end in %v", waitTime)
	}
}

func scriptField(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 || neg {
		ts.Fatalf("usage: field VARIABLE KEY")
	}
	var object map[string]any
	line, _, _ := strings.Cut(ts.ReadFile("stdout"), "\n")
	ts.Check(json.Unmarshal([]byte(line), &object))
	v, ok := object[args[1]]
	if !ok {
		ts.Fatalf("there is no %s in %s", args[1], line)
	}
	if list, ok := v.([]any); ok && len(list) > 0 {
		v = list[0]
	}
	ts.Setenv(args[0], fmt.Sprint(v))
}

func scriptUpload(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 || neg {
		ts.Fatalf("usage: upload STATUS FILE")
	}
	ctx, cancel := context.WithTimeout(context.Background(), waitTime)
	defer cancel()
	status, body, err := hook(ctx, http.DefaultClient, ts.Getenv("HTTP"), ts.Getenv("TOKEN"), "application/octet-stream", []byte(ts.ReadFile(args[1])))
	ts.Check(err)
	ts.Logf("%d %s", status, body)
	if fmt.Sprint(status) != args[0] {
		ts.Fatalf("upload: %d, want %s", status, args[0])
	}
	ts.Check(os.WriteFile(ts.MkAbs("answer"), body, 0o600))
}
