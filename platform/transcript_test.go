package platform_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/platform"
)

// A transcript is what a client and a platform say to each other, request by request. A line
// that begins with "> " is of the request: first its method and address, then the headers that
// are compared. "< " is the status of the answer, then its headers. What follows each is
// the body, byte for byte but for the line end behind it. Instead of a status, "< hang" never answers
// and "< half STATUS" cuts the body off in its middle. Lines that begin with # are for people.
type exchange struct {
	method, uri string
	headers     map[string]string
	body        string
	answer      string // the status, hang or half
	status      int
	also        map[string]string
	reply       string
}

func readTranscript(t *testing.T, path string) []exchange {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []exchange
	side := byte(0)
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "> ") && side != '>':
			side = '>'
			method, uri, _ := strings.Cut(line[2:], " ")
			all = append(all, exchange{method: method, uri: uri, headers: map[string]string{}, also: map[string]string{}})
		case strings.HasPrefix(line, "< ") && side == '>':
			side = '<'
			e := &all[len(all)-1]
			e.answer, _, _ = strings.Cut(line[2:], " ")
			fmt.Sscan(strings.TrimPrefix(line[2:], "half "), &e.status)
		case strings.HasPrefix(line, "> "), strings.HasPrefix(line, "< "):
			k, v, _ := strings.Cut(line[2:], ": ")
			e := &all[len(all)-1]
			map[byte]map[string]string{'>': e.headers, '<': e.also}[side][k] = v
		case side == '>':
			all[len(all)-1].body += line + "\n"
		case side == '<':
			all[len(all)-1].reply += line + "\n"
		}
	}
	for i := range all {
		all[i].body, all[i].reply = strings.TrimRight(all[i].body, "\n"), strings.TrimRight(all[i].reply, "\n")
	}
	return all
}

// replay answers as a transcript says, and fails the test at the first request that is not the next one.
func replay(t *testing.T, name string) *httptest.Server {
	t.Helper()
	all := readTranscript(t, filepath.Join("testdata", name+".http"))
	next := 0
	turn := make(chan struct{}, 1) // one request at a time; it guards next
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		turn <- struct{}{}
		defer func() { <-turn }()
		body, _ := io.ReadAll(r.Body)
		body = actID.ReplaceAll(date.ReplaceAll(body, []byte("DATE")), []byte("tocsin${1}ACT"))
		if next == len(all) {
			t.Errorf("%s: one request too many: %s %s", name, r.Method, r.RequestURI)
			w.WriteHeader(http.StatusTeapot)
			return
		}
		e := all[next]
		next++
		if r.Method != e.method || r.RequestURI != e.uri {
			t.Errorf("%s, request %d: got %s %s\nwant %s %s", name, next, r.Method, r.RequestURI, e.method, e.uri)
		}
		for k, v := range e.headers {
			if r.Header.Get(k) != v {
				t.Errorf("%s, request %d: header %s is %q, want %q", name, next, k, r.Header.Get(k), v)
			}
		}
		if !bytes.Equal(body, []byte(e.body)) {
			t.Errorf("%s, request %d: body\n%s\nwant\n%s", name, next, body, e.body)
		}
		for k, v := range e.also {
			w.Header().Set(k, v)
		}
		switch e.answer {
		case "hang":
			<-r.Context().Done()
		case "half":
			w.Header().Set("Content-Length", fmt.Sprint(len(e.reply)))
			w.WriteHeader(e.status)
			io.WriteString(w, e.reply[:len(e.reply)/2])
		default:
			w.WriteHeader(e.status)
			io.WriteString(w, e.reply)
		}
	}))
	t.Cleanup(func() {
		s.Close()
		if next != len(all) {
			t.Errorf("%s: %d of %d requests came", name, next, len(all))
		}
	})
	return s
}

// What of a request is not the same each time.
var (
	date  = regexp.MustCompile(`\b2\d{3}-\d\d-\d\d\b`)
	actID = regexp.MustCompile(`tocsin([+ ])[a-z2-7]{16}`)
)

// quick is NewClient with less patience.
func quick() *http.Client {
	c := platform.NewClient()
	c.Timeout = 300 * time.Millisecond
	return c
}
