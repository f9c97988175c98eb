package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var came = time.Date(2026, 11, 26, 10, 11, 12, 0, time.UTC)

func full() (*Case, *Reporter) {
	return &Case{
			Verdict: "v-1", At: came, Node: "https://hashes.example", Action: "reject", Labels: []string{"csam"},
			Hashes: []Hash{{"MD5", strings.Repeat("0a", 16)}, {"SHA256", strings.Repeat("0b", 32)}, {"PDQ", strings.Repeat("0c", 32)}},
			Matches: []Match{{
				List: "https://near.example/lists/a&b", Issuer: "https://near.example/users/alice", Statement: "https://near.example/statements/1",
				Labels: []string{"csam"}, Algorithm: "pdq", Distance: 4,
			}, {List: "l", Issuer: "i", Statement: "s", Algorithm: "sha256"}},
			URL: "https://here.example/pictrs/image/x.webp", Alias: "x.webp", Post: "https://here.example/post/1?a=<b>", Actor: "https://here.example/u/mallory",
			People: []string{"alice confirmed it on 26 November 2026."}, Acts: []string{"ban https://here.example/u/mallory: done."},
		}, &Reporter{
			FirstName: "Ada", LastName: "Example", Email: "abuse@here.example", Company: "Here", TermsURL: "https://here.example/terms", LegalURL: "https://here.example/legal",
		}
}

// grammar reads testdata/cybertipline.dtd into a pattern for the children of each element. It was written
// apart from order.txt, and is checked in another way: by matching, not by walking.
func grammar(t *testing.T) map[string]*regexp.Regexp {
	t.Helper()
	text, err := os.ReadFile("testdata/cybertipline.dtd")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*regexp.Regexp{}
	for _, m := range regexp.MustCompile(`(?s)<!ELEMENT\s+(\w+)\s+\(([^)]*)\)>`).FindAllStringSubmatch(string(text), -1) {
		pattern := "^"
		for _, part := range strings.Split(m[2], ",") {
			part = strings.TrimSpace(part)
			name := strings.TrimRight(part, "?*+")
			if name == "#PCDATA" {
				continue
			}
			pattern += "(?:" + name + " )" + part[len(name):]
		}
		all[m[1]] = regexp.MustCompile(pattern + "$")
	}
	return all
}

// conforms reports how a document breaks the grammar.
func conforms(g map[string]*regexp.Regexp, document []byte) error {
	d := xml.NewDecoder(bytes.NewReader(document))
	type node struct{ name, children string }
	var stack []node
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch v := token.(type) {
		case xml.StartElement:
			if len(stack) > 0 {
				stack[len(stack)-1].children += v.Name.Local + " "
			}
			stack = append(stack, node{name: v.Name.Local})
		case xml.EndElement:
			n := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			if p := g[n.name]; p == nil {
				return fmt.Errorf("<%s> is not in the grammar", n.name)
			} else if !p.MatchString(n.children) {
				return fmt.Errorf("children of <%s>: %s", n.name, n.children)
			}
		}
	}
}

// A draft follows NCMEC's order, whatever is known and whatever is not.
func TestDraftsAreInOrder(t *testing.T) {
	g := grammar(t)
	for i := range 1 << 10 {
		c, r := full()
		claims := &Claims{}
		for bit, drop := range []func(){
			func() { c.URL = "" }, func() { c.Alias = "" }, func() { c.Post = "" }, func() { c.Actor = "" }, func() { c.Hashes = nil },
			func() { c.Matches = nil }, func() { r.FirstName, r.LastName = "", "" }, func() { r.Company = "" }, func() { r.TermsURL, r.LegalURL = "", "" },
			func() { claims = &Claims{Viewed: "Ada Example", Classification: "B2", Incident: Incidents[2]} },
		} {
			if i>>bit&1 == 1 {
				drop()
			}
		}
		d, err := Write(c, r, claims)
		if err != nil {
			t.Fatal(err)
		}
		if err := Check(d.Report, time.Now()); err != nil {
			t.Errorf("%d: %v\n%s", i, err, d.Report)
		}
		if err := Check(d.File, time.Now()); !errors.Is(err, errUnfilled) {
			t.Errorf("%d: %v\n%s", i, err, d.File)
		}
		for _, document := range [][]byte{d.Report, d.File} {
			if err := conforms(g, document); err != nil {
				t.Errorf("%d: %v\n%s", i, err, document)
			}
		}
	}
}

// What is not known is not claimed, and above all not that a person looked.
func TestWhatADraftRefusesToClaim(t *testing.T) {
	c, r := full()
	d, err := Write(c, r, &Claims{})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"<fileViewedByEsp>false</fileViewedByEsp>", "<exifViewedByEsp>false</exifViewedByEsp>"} {
		if !bytes.Contains(d.File, []byte(want)) {
			t.Errorf("no %s in\n%s", want, d.File)
		}
	}
	if bytes.Contains(d.File, []byte("industryClassification")) || bytes.Contains(d.Report, []byte("looked at the file.")) && !bytes.Contains(d.Report, []byte("Nobody at this service has said")) {
		t.Errorf("it claims too much:\n%s\n%s", d.Report, d.File)
	}
	if !slices.ContainsFunc(d.Open, func(s string) bool { return strings.Contains(s, "does not claim that a person looked") }) {
		t.Errorf("%q", d.Open)
	}
	if d, err = Write(c, r, &Claims{Viewed: "Ada Example", Classification: "A1"}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"<fileViewedByEsp>true</fileViewedByEsp>", "<exifViewedByEsp>false</exifViewedByEsp>", "<industryClassification>A1<"} {
		if !bytes.Contains(d.File, []byte(want)) {
			t.Errorf("no %s in\n%s", want, d.File)
		}
	}
	if !bytes.Contains(d.Report, []byte("Ada Example has said that they looked")) || !strings.Contains(d.Summary, "Ada Example has said that they looked") {
		t.Errorf("it does not say who looked:\n%s", d.Report)
	}
	for name, claims := range map[string]*Claims{
		"classified unseen": {Classification: "A1"}, "no such class": {Viewed: "Ada", Classification: "A"}, "no such incident": {Incident: "Spam"},
	} {
		if _, err := Write(c, r, claims); err == nil {
			t.Errorf("%s: written", name)
		}
	}
	c.At = time.Time{}
	if _, err := Write(c, r, &Claims{}); err == nil {
		t.Error("written without a time")
	}
}

// The whole draft, as an admin gets it.
func TestDraft(t *testing.T) {
	c, r := full()
	d, err := Write(c, r, &Claims{})
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string][]byte{"report.xml": d.Report, "file.xml": d.File, "summary.txt": []byte(d.Summary)} {
		want, err := os.ReadFile("testdata/" + name)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %v; it is now\n%s", name, err, got)
		}
	}
}

func TestCheckFinds(t *testing.T) {
	c, r := full()
	d, err := Write(c, r, &Claims{})
	if err != nil {
		t.Fatal(err)
	}
	now := came.Add(time.Hour)
	swap := func(b []byte, old, new string) []byte {
		if !bytes.Contains(b, []byte(old)) {
			t.Fatalf("no %s", old)
		}
		return bytes.Replace(b, []byte(old), []byte(new), 1)
	}
	for name, document := range map[string][]byte{
		"order":        swap(swap(d.Report, "<incidentType>"+Incidents[0]+"</incidentType>", ""), "</incidentSummary>", "<incidentType>"+Incidents[0]+"</incidentType></incidentSummary>"),
		"unknown":      swap(d.Report, "<reporter>", "<mood>bad</mood><reporter>"),
		"twice":        swap(d.Report, "<reporter>", "<lawEnforcement/><lawEnforcement/><reporter>"),
		"missing":      swap(d.Report, "incidentDateTime>2026-11-26T10:11:12Z</incidentDateTime>", "incidentDateTimeDescription>x</incidentDateTimeDescription>"),
		"incident":     swap(d.Report, Incidents[0], "Spam"),
		"no zone":      swap(d.Report, "2026-11-26T10:11:12Z", "2026-11-26T10:11:12"),
		"future":       swap(d.Report, "2026-11-26T10:11:12Z", "2036-11-26T10:11:12Z"),
		"no email":     swap(d.Report, "<email>abuse@here.example</email>", ""),
		"root":         []byte("<tip/>"),
		"two roots":    append(bytes.Clone(d.Report), "<report/>"...),
		"half":         d.Report[:len(d.Report)/2],
		"entity":       swap(d.Report, "<report ", "<!DOCTYPE x [<!ENTITY e 'x'>]><report "),
		"deep":         []byte("<report>" + strings.Repeat("<victim>", 1000)),
		"not xml":      []byte("{}"),
		"empty":        nil,
		"too long":     bytes.Repeat([]byte(" "), MaxXML+1),
		"exif":         swap(d.File, "<exifViewedByEsp>false", "<exifViewedByEsp>true"),
		"unseen class": swap(d.File, "</fileRelevance>", "</fileRelevance><industryClassification>A1</industryClassification>"),
		"not a bool":   swap(d.File, "<fileViewedByEsp>false", "<fileViewedByEsp>no"),
		"relevance":    swap(d.File, ">Reported<", ">Important<"),
		"unfilled":     d.File,
	} {
		if err := Check(document, now); err == nil {
			t.Errorf("%s: passed", name)
		}
	}
}

func FuzzCheck(f *testing.F) {
	c, r := full()
	d, err := Write(c, r, &Claims{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(d.Report)
	f.Add(d.File)
	f.Add([]byte("<report><incidentSummary/></report>"))
	g := grammar(&testing.T{})
	f.Fuzz(func(t *testing.T, document []byte) {
		if Check(document, came) == nil {
			if err := conforms(g, document); err != nil {
				t.Errorf("%v:\n%s", err, document)
			}
		}
	})
}

// tipline is NCMEC's service as far as its documentation goes.
type tipline struct {
	*httptest.Server
	g     map[string]*regexp.Regexp
	mu    sync.Mutex // guards what follows: a call that is cut off ends when it likes
	calls []string
	fail  map[string]http.HandlerFunc // by path
	done  map[string]bool             // number to finished
}

func newTipline(t *testing.T) *tipline {
	s := &tipline{g: grammar(t), fail: map[string]http.HandlerFunc{}, done: map[string]bool{}}
	answer := func(w http.ResponseWriter, root string, code int, more string) {
		fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8" standalone="yes"?><%s><responseCode>%d</responseCode><responseDescription>x</responseDescription>%s</%s>`, root, code, more, root)
	}
	document := func(r *http.Request) int {
		b, _ := io.ReadAll(r.Body)
		if r.Header.Get("Content-Type") != "text/xml; charset=utf-8" || conforms(s.g, b) != nil {
			return 4100
		}
		return 0
	}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.calls = append(s.calls, r.URL.Path)
		if f := s.fail[r.URL.Path]; f != nil {
			f(w, r)
			return
		}
		if user, password, _ := r.BasicAuth(); user != "ada" || password != "secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		switch r.URL.Path {
		case "/submit":
			code := document(r)
			more := ""
			if code == 0 {
				more = "<reportId>4564654</reportId>"
				s.done["4564654"] = false
			}
			answer(w, "reportResponse", code, more)
		case "/upload":
			file, _, err := r.FormFile("file")
			if err != nil || r.FormValue("id") != "4564654" {
				answer(w, "reportResponse", 4000, "")
				return
			}
			file.Close()
			answer(w, "reportResponse", 0, "<reportId>4564654</reportId><fileId>b0754af766b426f2928a02c651ed4b99</fileId><hash>fafa5efeaf3cbe3b23b2748d13e629a1</hash>")
		case "/fileinfo":
			answer(w, "reportResponse", document(r), "<reportId>4564654</reportId>")
		case "/finish":
			s.done[r.FormValue("id")] = true
			answer(w, "reportDoneResponse", 0, "<reportId>4564654</reportId><files><fileId>b0754af766b426f2928a02c651ed4b99</fileId></files>")
		case "/retract":
			delete(s.done, r.FormValue("id"))
			answer(w, "reportResponse", 0, "<reportId>4564654</reportId>")
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func TestSend(t *testing.T) {
	code := func(n int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `<reportResponse><responseCode>%d</responseCode><responseDescription>said so</responseDescription></reportResponse>`, n)
		}
	}
	cut := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	for _, c := range []struct {
		name     string
		file     bool
		fail     map[string]http.HandlerFunc
		password string
		calls    string
		err      error
		text     string
		number   string
	}{
		{name: "without a file", calls: "/submit /finish", number: "4564654"},
		{name: "with a file", file: true, calls: "/submit /upload /fileinfo /finish", number: "4564654"},
		{name: "schema", fail: map[string]http.HandlerFunc{"/submit": code(4100)}, calls: "/submit", err: ErrRefused, text: "out of order"},
		{name: "password", password: "wrong", calls: "/submit", err: ErrRefused, text: "password"},
		{name: "no answer", fail: map[string]http.HandlerFunc{"/submit": cut}, calls: "/submit", err: ErrUnknown},
		{name: "no number", fail: map[string]http.HandlerFunc{"/submit": code(0)}, calls: "/submit", err: ErrUnknown},
		{name: "html", fail: map[string]http.HandlerFunc{"/submit": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") }}, calls: "/submit", err: ErrUnknown},
		{name: "file refused", file: true, fail: map[string]http.HandlerFunc{"/upload": code(4000)}, calls: "/submit /upload /retract", err: ErrRefused, text: "was cancelled", number: "4564654"},
		{name: "file cut off", file: true, fail: map[string]http.HandlerFunc{"/upload": cut}, calls: "/submit /upload /retract", err: ErrRefused, text: "was cancelled", number: "4564654"},
		{name: "details refused", file: true, fail: map[string]http.HandlerFunc{"/fileinfo": code(4100)}, calls: "/submit /upload /fileinfo /retract", err: ErrRefused, text: "4100", number: "4564654"},
		{name: "not finished", fail: map[string]http.HandlerFunc{"/finish": code(5000)}, calls: "/submit /finish /retract", err: ErrRefused, text: "code 5000", number: "4564654"},
		{name: "nor cancelled", fail: map[string]http.HandlerFunc{"/finish": code(5000), "/retract": cut}, calls: "/submit /finish /retract", err: ErrRefused, text: "lapses", number: "4564654"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newTipline(t)
			s.Config.ErrorLog = nil
			for path, f := range c.fail {
				s.fail[path] = f
			}
			k, r := full()
			d, err := Write(k, r, &Claims{})
			if err != nil {
				t.Fatal(err)
			}
			tip := Tipline{URL: s.URL, User: "ada", Password: "secret"}
			if c.password != "" {
				tip.Password = c.password
			}
			var file io.Reader
			if c.file {
				file = strings.NewReader("not a picture")
			}
			number, err := tip.Send(t.Context(), d.Report, d.File, "x.webp", file, time.Now())
			if !errors.Is(err, c.err) || err != nil && !strings.Contains(err.Error(), c.text) || number != c.number {
				t.Errorf("%q, %v", number, err)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the password is in %q", err)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if got := strings.Join(s.calls, " "); got != c.calls {
				t.Errorf("called %s, want %s", got, c.calls)
			}
			if err == nil && !s.done[number] {
				t.Error("not finished")
			}
		})
	}
}

// What would be refused is not even sent.
func TestSendChecksFirst(t *testing.T) {
	s := newTipline(t)
	k, r := full()
	d, err := Write(k, r, &Claims{})
	if err != nil {
		t.Fatal(err)
	}
	tip := Tipline{URL: s.URL, User: "ada", Password: "secret"}
	bad := bytes.Replace(d.Report, []byte(Incidents[0]), []byte("x"), 1)
	if _, err := tip.Send(t.Context(), bad, d.File, "", nil, time.Now()); !errors.Is(err, ErrRefused) {
		t.Error(err)
	}
	bad = bytes.Replace(d.File, []byte("<exifViewedByEsp>false"), []byte("<exifViewedByEsp>true"), 1)
	if _, err := tip.Send(t.Context(), d.Report, bad, "", nil, time.Now()); !errors.Is(err, ErrRefused) {
		t.Error(err)
	}
	if len(s.calls) != 0 {
		t.Errorf("called %q", s.calls)
	}
}
