package source_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/exchange/source"
	"github.com/tocsin-fed/tocsin/hashlist"
)

func pdq(t *testing.T, first byte) hashlist.Hash {
	t.Helper()
	sum := bytes.Repeat([]byte{0x5a}, 32)
	sum[0] = first
	h, err := hashlist.NewHash(hashlist.PDQ, sum)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (n *node) asker(service source.Service, credentials string) *source.Asker {
	n.t.Helper()
	path := filepath.Join(n.cfg.Dir, string(service))
	if err := os.WriteFile(path, []byte(credentials), 0o600); err != nil {
		n.t.Fatal(err)
	}
	a, err := source.NewAsker(source.AskerConfig{
		Service: service, URL: n.server.URL + "/base", Credentials: path, Timeout: 2 * time.Second, Client: n.cfg.Client, Loopback: true, Version: "test",
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return a
}

// TestArachnid: nothing but the hash leaves the host, what was said is remembered, and half an answer is none.
func TestArachnid(t *testing.T) {
	n := newNode(t)
	requests, say := 0, "csam"
	var body string
	n.serve(func(w http.ResponseWriter, r *http.Request) {
		requests++
		b, _ := io.ReadAll(r.Body)
		body = string(b)
		if user, _, _ := r.BasicAuth(); user != "me" || r.URL.Path != "/base/v1/pdq/" || r.Method != http.MethodPost {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		var q struct{ Hashes []string }
		if err := json.Unmarshal(b, &q); err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/json")
		var all []string
		for i, h := range q.Hashes {
			switch {
			case say == "half" && i > 0:
			case i == 0 && say != "half":
				all = append(all, fmt.Sprintf(`%q:{"classification":%q,"match_type":"near","near_match_details":[]}`, h, say))
			default:
				all = append(all, fmt.Sprintf(`%q:{"classification":"no-known-match","match_type":null}`, h))
			}
		}
		fmt.Fprintf(w, `{"scanned_hashes":{%s}}`, strings.Join(all, ","))
	})
	a := n.asker(source.Arachnid, "basic me:secret")
	u := source.Upload{PDQ: []hashlist.Hash{pdq(t, 1), pdq(t, 2), pdq(t, 1)}, File: []byte("the picture itself"), Media: "image/jpeg", Width: 800, Height: 600}
	for range 3 {
		o, err := a.Ask(t.Context(), u)
		if err != nil || !o.Known || !o.Near || len(o.Labels) != 1 || o.Labels[0] != "csam" {
			t.Fatalf("%+v, %v", o, err)
		}
	}
	if requests != 1 {
		t.Errorf("asked %d times for the same", requests)
	}
	if strings.Contains(body, "picture") || len(body) > 120 {
		t.Errorf("more than hashes left the host: %s", body)
	}
	// The last of many frames is asked of as well.
	var many source.Upload
	for i := range 129 {
		many.PDQ = append(many.PDQ, pdq(t, byte(100+i)))
	}
	requests, say = 0, "no-known-match"
	if o, err := a.Ask(t.Context(), source.Upload{PDQ: many.PDQ[:128]}); err != nil || o.Known || requests != 2 {
		t.Errorf("128 frames: %+v, %v after %d requests", o, err, requests)
	}
	say = "csam"
	if o, err := a.Ask(t.Context(), many); err != nil || !o.Known || requests != 3 {
		t.Errorf("the 129th frame: %+v, %v after %d requests", o, err, requests)
	}
	say = "half"
	if o, err := a.Ask(t.Context(), source.Upload{PDQ: []hashlist.Hash{pdq(t, 7), pdq(t, 8)}}); err == nil {
		t.Errorf("half an answer is %+v", o)
	}
	say = "something-new"
	if o, err := a.Ask(t.Context(), source.Upload{PDQ: []hashlist.Hash{pdq(t, 9)}}); err == nil {
		t.Errorf("an unknown word is %+v", o)
	}
	if o, err := a.Ask(t.Context(), source.Upload{}); err != nil || o.Known {
		t.Errorf("nothing to ask of: %+v, %v", o, err)
	}
}

// TestOpinionTrouble: a service that is slow, down or out of patience is an error within the time, and nothing of it is remembered.
func TestOpinionTrouble(t *testing.T) {
	n := newNode(t)
	path := filepath.Join(n.cfg.Dir, "k")
	if err := os.WriteFile(path, []byte("header Ocp-Apim-Subscription-Key: k"), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := source.NewAsker(source.AskerConfig{
		Service: source.Arachnid, URL: n.server.URL, Credentials: path, Timeout: 100 * time.Millisecond, Client: n.cfg.Client, Loopback: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	u := source.Upload{PDQ: []hashlist.Hash{pdq(t, 1)}}
	for what, answer := range map[string]http.HandlerFunc{
		"slow":         func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body); <-r.Context().Done() },
		"429":          func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusTooManyRequests) },
		"500":          func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"a page":       text("text/html", "<html>"),
		"half a JSON":  text("application/json", `{"scanned_hashes":{`),
		"another JSON": text("application/json", `{}`),
		"endless": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			for r.Context().Err() == nil {
				if _, err := io.WriteString(w, strings.Repeat(" ", 1<<16)); err != nil {
					return
				}
			}
		},
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://elsewhere.example/", http.StatusTemporaryRedirect)
		},
	} {
		n.serve(answer)
		start := time.Now()
		if o, err := a.Ask(t.Context(), u); err == nil || strings.Contains(err.Error(), "5a5a") {
			t.Errorf("%s: %+v, %v", what, o, err)
		}
		if took := time.Since(start); took > 30*time.Second {
			t.Errorf("%s: an upload waited %v", what, took)
		}
	}
}

// TestPhotoDNA: the picture is sent as it is, and only such as the service takes.
func TestPhotoDNA(t *testing.T) {
	n := newNode(t)
	requests, code := 0, 3000
	n.serve(func(w http.ResponseWriter, r *http.Request) {
		requests++
		b, _ := io.ReadAll(r.Body)
		if r.Header.Get("Ocp-Apim-Subscription-Key") != "k" || r.Header.Get("Content-Type") != "image/jpeg" || string(b) != "JPEG" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		fmt.Fprintf(w, `{"Status":{"Code":%d,"Description":"OK"},"IsMatch":true,"MatchDetails":{"MatchFlags":[{"AdvancedInfo":[],"Source":"Test","Violations":["A1"]}]}}`, code)
	})
	a := n.asker(source.PhotoDNA, "header Ocp-Apim-Subscription-Key: k")
	u := source.Upload{File: []byte("JPEG"), Media: "image/jpeg", Width: 160, Height: 160, SHA256: pdqDigest(t, 1)}
	for range 2 {
		if o, err := a.Ask(t.Context(), u); err != nil || !o.Known {
			t.Fatalf("%+v, %v", o, err)
		}
	}
	for _, small := range []source.Upload{
		{File: u.File, Media: "image/jpeg", Width: 159, Height: 500}, {File: make([]byte, 5<<20), Media: "image/jpeg", Width: 500, Height: 500},
		{File: u.File, Media: "image/webp", Width: 500, Height: 500},
	} {
		if o, err := a.Ask(t.Context(), small); err != nil || o.Known {
			t.Errorf("%+v, %v", o, err)
		}
	}
	if requests != 1 {
		t.Errorf("%d requests", requests)
	}
	code, u.SHA256 = 3206, pdqDigest(t, 2)
	if o, err := a.Ask(t.Context(), u); err != nil || o.Known {
		t.Errorf("no picture: %+v, %v", o, err)
	}
	code = 3002
	if _, err := a.Ask(t.Context(), u); err == nil {
		t.Error("a status that is no answer was taken for one")
	}
}

func pdqDigest(t *testing.T, first byte) hashlist.Hash {
	t.Helper()
	h, err := hashlist.NewHash(hashlist.SHA256, append([]byte{first}, make([]byte, 31)...))
	if err != nil {
		t.Fatal(err)
	}
	return h
}
