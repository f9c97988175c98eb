package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// lemmy is a Lemmy 0.19 with one person, as far as bans go.
type lemmy struct {
	*httptest.Server
	mu     sync.Mutex
	banned bool
	bans   []bool
	meet   func() // called when a ban has taken effect and before it is answered
}

func newLemmy(t *testing.T) *lemmy {
	l := new(lemmy)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v3/resolve_object", func(w http.ResponseWriter, r *http.Request) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if r.Header.Get("Authorization") != "Bearer jwt-of-an-admin" {
			w.WriteHeader(http.StatusUnauthorized)
			io.WriteString(w, `{"error":"incorrect_login"}`)
			return
		}
		fmt.Fprintf(w, `{"person":{"person":{"id":7,"banned":%v,"local":false},"is_admin":false}}`, l.banned)
	})
	mux.HandleFunc("POST /api/v3/user/ban", func(w http.ResponseWriter, r *http.Request) {
		var v struct{ Ban bool }
		json.NewDecoder(r.Body).Decode(&v)
		l.mu.Lock()
		l.banned, l.bans = v.Ban, append(l.bans, v.Ban)
		meet := l.meet
		l.mu.Unlock()
		if meet != nil {
			meet()
		}
		io.WriteString(w, `{}`)
	})
	l.Server = httptest.NewServer(mux)
	t.Cleanup(l.Close)
	return l
}

func (l *lemmy) did() []bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.bans)
}

// configure adds a section to a node's configuration, and the credential that it names.
func configure(t *testing.T, dir, section string) {
	t.Helper()
	path := filepath.Join(dir, "config.toml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(text, section...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "keys", "lemmy.token"), []byte("jwt-of-an-admin\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// offend asks the node about a listed hash, as a platform does for one of its users.
func offend(t *testing.T, d *daemon, hash, actor string) {
	t.Helper()
	r, err := d.lookups.Lookup(t.Context(), &pb.LookupRequest{Hashes: []string{hash}, Reference: &pb.Reference{Actor: actor, Post: actor + "/post"}})
	if err != nil || r.GetVerdict() != pb.Verdict_VERDICT_REJECT {
		t.Fatal(r, err)
	}
}

type actJSON struct {
	ID, State, Note, Undo, Target string
	Decisions                     []struct{ Who, What, Why string }
}

func acts(t *testing.T, dir string) (all []actJSON) {
	t.Helper()
	for line := range strings.Lines(tocsin(t, "acts", "list", "--json", "--data", dir)) {
		var a actJSON
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Fatal(err)
		}
		all = append(all, a)
	}
	return all
}

func oneAct(t *testing.T, dir, state string) actJSON {
	t.Helper()
	deadline := time.Now().Add(waitTime)
	for {
		all := acts(t, dir)
		if len(all) == 1 && all[0].State == state {
			return all[0]
		}
		if time.Now().After(deadline) {
			t.Fatalf("acts are %+v, want one that is %s", all, state)
		}
	}
}

// A banned picture of a person who goes on: dry at first, in earnest when somebody approves it, taken back
// by a command. The node is killed while the platform has done its part and not answered yet.
func TestActsOnALemmy(t *testing.T) {
	const hash = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
	const mallory = "https://far.example/u/mallory"
	site := newLemmy(t)
	dir := newNode(t)
	configure(t, dir, fmt.Sprintf(`
[[platform]]
name = "lemmy"
kind = "lemmy"
url = %q
api = "0.19"
credentials_file = "keys/lemmy.token"
reject = ["ban-person"]
`, site.URL))
	d := startDaemon(t, dir, program(t, serveArgs(dir)...))
	d.list(t, "refused")
	tocsin(t, "ban", "--data", dir, "--list", "refused", "--label", "spam", hash)

	offend(t, d, hash, mallory)
	a := oneAct(t, dir, "dry-run")
	if a.Target != mallory || len(site.did()) != 0 {
		t.Fatalf("%+v; the platform was told %v", a, site.did())
	}

	reached := make(chan struct{})
	site.mu.Lock()
	site.meet = sync.OnceFunc(func() {
		close(reached)
		<-d.done // the node is gone before the answer
		d.done <- nil
	})
	site.mu.Unlock()
	approving := program(t, "acts", "approve", "--data", dir, a.ID, "--why", "seen it", "--who", "Alice")
	if err := approving.Start(); err != nil {
		t.Fatal(err)
	}
	<-reached
	d.kill()
	approving.Wait()

	d = startDaemon(t, dir, program(t, serveArgs(dir)...))
	a = oneAct(t, dir, "done")
	if !strings.Contains(a.Note, "cut off") || a.Undo != "tocsin acts undo "+a.ID || len(a.Decisions) != 1 || !strings.HasPrefix(a.Decisions[0].Who, "Alice") {
		t.Errorf("%+v", a)
	}
	if got := site.did(); !slices.Equal(got, []bool{true}) {
		t.Fatalf("the platform was told %v", got)
	}

	out := tocsin(t, "acts", "undo", "--data", dir, a.ID, "--why", "it was not her")
	if !strings.Contains(out, "ban "+mallory+" on lemmy: undone") {
		t.Error(out)
	}
	if got := site.did(); !slices.Equal(got, []bool{true, false}) {
		t.Errorf("the platform was told %v", got)
	}
	d.stop(t, d.cmd.Process.Pid)
	if strings.Contains(d.log.String(), "jwt-of-an-admin") {
		t.Error("the credential is in the log")
	}
}
