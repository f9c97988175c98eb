package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/exchange/source"
	"github.com/tocsin-fed/tocsin/guarded"
	"github.com/tocsin-fed/tocsin/hashlist"
)

// TestConsult uploads pictures through the hook while a service elsewhere knows them, does not, and is down.
func TestConsult(t *testing.T) {
	var asked atomic.Int32
	say := new(atomic.Value)
	say.Store("no-known-match")
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if say.Load() == "down" {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if say.Load() == "silent" {
			io.Copy(io.Discard, r.Body) // only then does the server notice that the caller has gone
			<-r.Context().Done()
			return
		}
		var q struct{ Hashes []string }
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			t.Error(err)
		}
		var all []string
		for _, h := range q.Hashes {
			all = append(all, fmt.Sprintf(`%q:{"classification":%q,"match_type":"exact"}`, h, say.Load()))
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"scanned_hashes":{%s}}`, strings.Join(all, ","))
	}))
	client := guarded.Client(guarded.Options{Loopback: true})
	t.Cleanup(func() { client.CloseIdleConnections(); service.CloseClientConnections(); service.Close() })
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("basic a:b"), 0o600); err != nil {
		t.Fatal(err)
	}
	asker := func(timeout time.Duration) *source.Asker {
		a, err := source.NewAsker(source.AskerConfig{Service: source.Arachnid, URL: service.URL, Credentials: secret, Timeout: timeout, Client: client, Loopback: true})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	seed := uint64(100)
	for _, c := range []struct {
		name    string
		say     string
		most    hashlist.Verdict
		trouble Answer
		before  string // what the node's own lists say: ban or accept
		want    int
		asked   int32
	}{
		{"not known there", "no-known-match", hashlist.VerdictReject, AnswerAccept, "", http.StatusOK, 1},
		{"known there", "csam", hashlist.VerdictReject, AnswerAccept, "", http.StatusForbidden, 1},
		{"known there, only to be marked", "csam", hashlist.VerdictFlag, AnswerAccept, "", http.StatusOK, 1},
		{"known there and harmless here", "csam", hashlist.VerdictReject, AnswerAccept, "accept", http.StatusOK, 0},
		{"refused here: not asked", "no-known-match", hashlist.VerdictReject, AnswerAccept, "ban", http.StatusForbidden, 0},
		{"down, and may be", "down", hashlist.VerdictReject, AnswerAccept, "", http.StatusOK, 1},
		{"down, and must not be", "down", hashlist.VerdictReject, AnswerReject, "", http.StatusForbidden, 1},
		{"silent, and must not be", "silent", hashlist.VerdictReject, AnswerReject, "", http.StatusForbidden, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			timeout := 10 * time.Second
			if c.say == "silent" {
				timeout = 100 * time.Millisecond
			}
			n := start(t, func(cfg *Config) { cfg.Opinions = []Opinion{{asker(timeout), c.most, c.trouble}} })
			seed++
			file := encodeJPEG(t, photo(seed, 320, 240), 90)
			if c.before != "" {
				action := hashlist.Reject
				if c.before == "accept" {
					action = hashlist.Accept
				}
				iri := testOrigin + "/lists/own"
				n.say(hashlist.Statement{Kind: hashlist.DefineList, List: iri, Definition: &hashlist.Definition{Name: "own", Audience: hashlist.Local, Action: action, Radii: hashlist.DefaultRadii}})
				n.say(hashlist.Statement{Kind: hashlist.AddHashes, List: iri, Hashes: []hashlist.Hash{n.media(file).SHA256}})
			}
			say.Store(c.say)
			asked.Store(0)
			res, err := http.Post(n.http+"/hook/pictrs/"+n.token("hook", ScopeLookup), "image/jpeg", bytes.NewReader(file))
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != c.want || asked.Load() != c.asked {
				t.Errorf("%d after %d questions, want %d after %d", res.StatusCode, asked.Load(), c.want, c.asked)
			}
		})
	}
}

// While a service is down without which nothing passes, what a list only flags is refused by that, and
// not by the list: neither does it open the breaker of who wrote it nor is anything done about it.
func TestConsultBlamesNobody(t *testing.T) {
	down := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
	client := guarded.Client(guarded.Options{Loopback: true})
	t.Cleanup(func() { client.CloseIdleConnections(); down.Close() })
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("basic a:b"), 0o600); err != nil {
		t.Fatal(err)
	}
	asker, err := source.NewAsker(source.AskerConfig{Service: source.Arachnid, URL: down.URL, Credentials: secret, Timeout: 10 * time.Second, Client: client, Loopback: true})
	if err != nil {
		t.Fatal(err)
	}
	n := start(t, func(cfg *Config) {
		cfg.Opinions = []Opinion{{asker, hashlist.VerdictReject, AnswerReject}}
		cfg.Breaker = hashlist.BreakerConfig{PerIssuer: 1, Total: 1, Stay: time.Hour}
	})
	iri := testOrigin + "/lists/kept"
	n.lists.OnBehalf(iri)
	n.lists.Heed(iri, hashlist.VerdictFlag, hashlist.MostBelief)
	n.say(hashlist.Statement{Kind: hashlist.DefineList, List: iri, Definition: &hashlist.Definition{Name: "kept", Audience: hashlist.Local, Action: hashlist.Reject, Radii: hashlist.DefaultRadii}})
	for seed := range uint64(3) {
		file := encodeJPEG(t, photo(200+seed, 320, 240), 90)
		n.say(hashlist.Statement{Kind: hashlist.AddHashes, List: iri, Hashes: []hashlist.Hash{n.media(file).Frames[0].PDQ[0]}})
		f, err := n.examine(t.Context(), file, hashlist.Query{}, false)
		if err != nil || f.Verdict != hashlist.VerdictReject || len(f.Matches) == 0 || !f.elsewhere || len(f.Decision.Statements) != 0 {
			t.Errorf("%v, %v, elsewhere %v, by %v", f.Verdict, err, f.elsewhere, f.Decision.Statements)
		}
	}
	if open := n.breaker.Open(); len(open) != 0 {
		t.Errorf("breakers are open: %+v", open)
	}
}
