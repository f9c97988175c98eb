package source_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/exchange/source"
	"github.com/tocsin-fed/tocsin/hashlist"
)

// secret writes credentials and returns the path.
func (n *node) secret(text string) string {
	n.t.Helper()
	path := filepath.Join(n.cfg.Dir, "secret")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
	return "secret"
}

// hashes is how many hashes are in force on the source's list.
func (n *node) hashes() int {
	l, _ := n.lists.List(origin + "/lists/blocks")
	return l.Hashes
}

// want checks what a run came to.
func (n *node) want(r source.Run, state source.RunState, added, retracted uint64) {
	n.t.Helper()
	if r.State != state || r.Added != added || r.Retracted != retracted {
		n.t.Fatalf("run %d is %v with %d added, %d retracted (%s), want %v with %d, %d", r.Number, r.State, r.Added, r.Retracted, r.Why, state, added, retracted)
	}
}

func md5(n int) string { return fmt.Sprintf("%032x", n+1) }

// ncmec follows the published protocol of NCMEC's hash sharing, version 2: ranges of time,
// pages that are not in order of it, a next that dies, and deletions by id alone.
type ncmec struct {
	t       *testing.T
	entries []ncmecEntry
	age     int  // goes up when every next that was given out has died
	dies    bool // the next of the first page dies before it is used
	half    bool // the second page ends in the middle
	ranges  []string
	refused int
}

type ncmecEntry struct {
	at      time.Time
	id      int
	deleted bool
}

func (s *ncmec) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if user, password, _ := r.BasicAuth(); user != "me" || password != "pass:word" {
		s.refused++
		http.Error(w, "unauthorized", http.StatusUnauthorized)
		return
	}
	q := r.URL.Query()
	from, err1 := time.Parse(time.RFC3339, q.Get("from"))
	to, err2 := time.Parse(time.RFC3339, q.Get("to"))
	start, _ := strconv.Atoi(q.Get("start"))
	if err1 != nil || err2 != nil || r.URL.Path != "/v2/entries" {
		http.Error(w, "bad request", http.StatusBadRequest)
		return
	}
	if a := q.Get("age"); a != "" && a != strconv.Itoa(s.age) {
		w.WriteHeader(http.StatusGone) // twelve hours later
		return
	}
	if start == 0 {
		s.ranges = append(s.ranges, q.Get("from"))
	}
	var in []ncmecEntry
	for _, e := range s.entries {
		if !e.at.Before(from) && e.at.Before(to) {
			in = append(in, e)
		}
	}
	slices.Reverse(in) // not in order of time
	next := ""
	page := in[min(start, len(in)):]
	if len(page) > 3 {
		page = page[:3]
		next = fmt.Sprintf("<paging><next>/v2/entries?from=%s&amp;to=%s&amp;start=%d&amp;age=%d</next></paging>", q.Get("from"), q.Get("to"), start+3, s.age)
	}
	w.Header().Set("Content-Type", "application/xml")
	body := `<?xml version="1.0" encoding="UTF-8"?><queryResult xmlns="https://hashsharing.ncmec.org/hashsharing/v2"><images maxTimestamp="` + to.Format(time.RFC3339) + `">`
	for _, e := range page {
		if e.deleted {
			body += fmt.Sprintf(`<deletedImage><member id="42">X</member><id>%d</id><timestamp>%s</timestamp></deletedImage>`, e.id, e.at.Format(time.RFC3339))
			continue
		}
		body += fmt.Sprintf(`<image><member id="42">X</member><timestamp>%s</timestamp><id>%d</id><classification>A1</classification><fingerprints><md5>%s</md5></fingerprints></image>`,
			e.at.Format(time.RFC3339), e.id, md5(e.id))
	}
	body += "</images>" + next + "</queryResult>"
	if s.half && start > 0 {
		body = body[:len(body)/2]
	}
	fmt.Fprint(w, body)
	if s.dies {
		s.dies = false
		s.age++
	}
}

func TestNCMEC(t *testing.T) {
	n := newNode(t)
	begin := time.Now().UTC().Add(-48 * time.Hour).Truncate(time.Second)
	s := &ncmec{t: t}
	for i := range 8 {
		s.entries = append(s.entries, ncmecEntry{at: begin.Add(time.Duration(i) * time.Minute), id: i})
	}
	n.serve(s.ServeHTTP)
	n.subscribe(func(v *source.Source) {
		v.URL, v.Format, v.Snapshot, v.MaxShrink = n.server.URL+"/v2/entries", "ncmec", false, 50
		v.Credentials = n.secret("# of the agreement\nbasic me:pass:word\n")
	})
	// The list is marked for good before anything is on it.
	if l, _ := n.lists.List(origin + "/lists/blocks"); !l.Partner || l.Audience != hashlist.Local {
		t.Errorf("the list is not of partner data: %+v", l)
	}
	n.want(n.run(), source.Held, 8, 0)
	n.approve()
	if n.hashes() != 8 {
		t.Fatalf("%d hashes", n.hashes())
	}
	if len(s.ranges) != 1 || !strings.HasPrefix(s.ranges[0], "1970-") {
		t.Errorf("ranges %v", s.ranges)
	}
	// From where the last range ended, less the overlap; what came before is not asked for again.
	n.want(n.run(), source.Unchanged, 0, 0)
	if from, _ := time.Parse(time.RFC3339, s.ranges[1]); time.Since(from) > 2*time.Hour || time.Since(from) < time.Hour {
		t.Errorf("the second range is from %s", s.ranges[1])
	}
	// Deletions are by id, and what was never heard of is no harm.
	now := time.Now().UTC().Add(-time.Minute).Truncate(time.Second)
	s.entries = append(s.entries, ncmecEntry{now, 2, true}, ncmecEntry{now, 99, true}, ncmecEntry{now, 20, false}, ncmecEntry{now, 21, false}, ncmecEntry{now, 22, false})
	s.dies = true // the next of the first page has died when it is asked for: the range is begun again
	before := len(s.ranges)
	n.want(n.run(), source.Applied, 3, 1)
	if len(s.ranges) != before+2 || n.hashes() != 10 {
		t.Errorf("%d ranges were begun, %d hashes", len(s.ranges)-before, n.hashes())
	}
	// A range that was not read to its end is no place to go on from.
	now = time.Now().UTC().Add(-time.Second).Truncate(time.Second)
	for i := 30; i < 36; i++ {
		s.entries = append(s.entries, ncmecEntry{now, i, false})
	}
	s.half = true
	if r := n.run(); r.State != source.Failed || n.hashes() != 10 {
		t.Fatalf("half an answer: %v (%s), %d hashes", r.State, r.Why, n.hashes())
	}
	s.half = false
	n.want(n.run(), source.Applied, 6, 0)
	// Other credentials: nothing changes, and the report does not hold them.
	n.secret("basic me:wrong\n")
	if r := n.run(); r.State != source.Failed || !strings.Contains(r.Why, "401") || strings.Contains(r.Why, "wrong") || n.hashes() != 16 {
		t.Errorf("wrong credentials: %v (%s), %d hashes", r.State, r.Why, n.hashes())
	}
}

func TestNCMECGoesNowhereElse(t *testing.T) {
	n := newNode(t)
	n.serve(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/xml")
		fmt.Fprint(w, `<queryResult xmlns="https://hashsharing.ncmec.org/hashsharing/v2"><paging><next>https://evil.example/v2/entries?x</next></paging></queryResult>`)
	})
	n.subscribe(func(v *source.Source) { v.URL, v.Format, v.Snapshot = n.server.URL+"/v2/entries", "ncmec", false })
	if r := n.run(); r.State != source.Failed || !strings.Contains(r.Why, "another server") {
		t.Errorf("%v (%s)", r.State, r.Why)
	}
	n.serve(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/xml")
		fmt.Fprintf(w, `<queryResult xmlns="https://hashsharing.ncmec.org/hashsharing/v2"><paging><next>/v2/entries?round</next></paging></queryResult>`)
	})
	if r := n.run(); r.State != source.Failed || !strings.Contains(r.Why, "circle") {
		t.Errorf("%v (%s)", r.State, r.Why)
	}
}

// TestStopNCII: pages with tokens, withdrawal by status, two keys in headers.
func TestStopNCII(t *testing.T) {
	n := newNode(t)
	status := map[int]string{0: "Active", 1: "Active", 2: "Active", 3: "Withdrawn"}
	var asked []string
	n.serve(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("x-functions-key") != "one" || r.Header.Get("Ocp-Apim-Subscription-Key") != "two" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		q := r.URL.Query()
		asked = append(asked, q.Get("startTimestamp")+" "+q.Get("nextPageToken"))
		w.Header().Set("Content-Type", "application/json")
		record := func(i int) string {
			return fmt.Sprintf(`{"lastModtimestamp":1,"signalType":"ImageMD5","hashValue":%q,"hashStatus":%q,"caseNumbers":{},"CSPFeedbacks":[]}`, md5(i), status[i])
		}
		if q.Get("nextPageToken") == "" {
			fmt.Fprintf(w, `{"count":2,"nextPageToken":"p2","nextSetTimestamp":1700000000,"hasMoreRecords":true,"hashRecords":[%s,%s]}`, record(0), record(1))
		} else {
			fmt.Fprintf(w, `{"count":2,"nextPageToken":null,"nextSetTimestamp":1700000000,"hasMoreRecords":false,"hashRecords":[%s,%s]}`, record(2), record(3))
		}
	})
	n.subscribe(func(v *source.Source) {
		v.URL, v.Format, v.Snapshot, v.MaxShrink = n.server.URL+"/v1/FetchHashes", "stopncii", false, 50
		v.Credentials = n.secret("header x-functions-key: one\nheader Ocp-Apim-Subscription-Key: two\n")
	})
	n.want(n.run(), source.Held, 3, 0)
	n.approve()
	status[1] = "Deleted"
	n.want(n.run(), source.Applied, 0, 1)
	if n.hashes() != 2 || !slices.Equal(asked, []string{"0 ", "0 p2", "1700000000 ", "1700000000 p2"}) {
		t.Errorf("%d hashes; asked %q", n.hashes(), asked)
	}
}

// TestFIRES: the snapshot, then changes from the last one seen. The server's own next loses a change of each
// full page, as FIRES 0.8 does.
func TestFIRES(t *testing.T) {
	n := newNode(t)
	type change struct {
		id, kind, domain, policy string
	}
	var log []change
	say := func(kind, domain, policy string) {
		log = append(log, change{fmt.Sprintf("0197c0de-0000-7000-8000-%012x", len(log)+1), kind, domain, policy})
	}
	for i := range 6 {
		say("Recommendation", fmt.Sprintf("bad%d.example", i), "drop")
	}
	write := func(w http.ResponseWriter, items []change, next string) {
		w.Header().Set("Content-Type", "application/ld+json; charset=utf-8")
		var all []string
		for _, c := range items {
			policy := ""
			if c.policy != "" {
				policy = fmt.Sprintf(`,"recommendedPolicy":%q`, c.policy)
			}
			all = append(all, fmt.Sprintf(`{"id":"https://fires.example/datasets/x/changes/%s","type":%q,"entityKind":"domain","entityKey":%q,"labels":[]%s}`, c.id, c.kind, c.domain, policy))
		}
		fmt.Fprintf(w, `{"type":"OrderedCollectionPage","next":%q,"orderedItems":[%s]}`, next, strings.Join(all, ","))
	}
	var asked []string
	n.serve(func(w http.ResponseWriter, r *http.Request) {
		since := r.URL.Query().Get("since")
		asked = append(asked, r.URL.Path+" "+since)
		switch r.URL.Path {
		case "/datasets/x/snapshot":
			items := slices.Clone(log)
			slices.Reverse(items) // in no order that was promised
			write(w, items, "")
		case "/datasets/x/changes":
			i := slices.IndexFunc(log, func(c change) bool { return c.id > since })
			if i < 0 {
				write(w, nil, "")
				return
			}
			rest, next := log[i:], ""
			if len(rest) > 3 {
				next = n.server.URL + "/datasets/x/changes?since=" + rest[3].id // the first that is not on this page, and since is exclusive
				rest = rest[:3]
			}
			write(w, rest, next)
		default:
			http.NotFound(w, r)
		}
	})
	n.subscribe(func(v *source.Source) {
		v.URL, v.Format, v.Snapshot, v.MaxShrink = n.server.URL+"/datasets/x/", "fires", false, 90
	})
	n.want(n.run(), source.Held, 6, 0)
	n.approve()
	for i := 10; i < 18; i++ {
		say("Recommendation", fmt.Sprintf("bad%d.example", i), "reject")
	}
	say("Retraction", "bad1.example", "")
	say("Tombstone", "bad2.example", "")
	say("Recommendation", "bad1.example", "filter") // said, taken back and said anew: the last counts
	r := n.run()
	n.want(r, source.Applied, 8, 1)
	if r.Changed != 1 || n.subjects() != 13 || n.listed("bad2.example") || !n.listed("bad13.example") || !n.listed("bad17.example") {
		t.Errorf("%d changed, %d on the list", r.Changed, n.subjects())
	}
	n.want(n.run(), source.Unchanged, 0, 0)
	if asked[0] != "/datasets/x/snapshot " || slices.Contains(asked[1:], asked[0]) {
		t.Errorf("asked %q", asked)
	}
}

// TestFediseer: pages until one is not full.
func TestFediseer(t *testing.T) {
	n := newNode(t)
	n.serve(func(w http.ResponseWriter, r *http.Request) {
		page, _ := strconv.Atoi(r.URL.Query().Get("page"))
		var all []string
		for i := (page - 1) * 100; i < min(page*100, 130); i++ {
			all = append(all, fmt.Sprintf(`{"domain":"bad%d.example","censure_reasons":["spam,hate speech"],"censure_evidence":[]}`, i))
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"instances":[%s]}`, strings.Join(all, ","))
	})
	n.subscribe(func(v *source.Source) {
		v.URL, v.Format, v.Snapshot = n.server.URL+"/api/v1/censures/x.example", "fediseer", false
	})
	n.want(n.run(), source.Held, 130, 0)
	n.approve()
	if n.subjects() != 130 {
		t.Errorf("%d on the list", n.subjects())
	}
}

// TestPatience: a server that wants to be left alone is, and one that answers 304 costs nothing.
func TestPatience(t *testing.T) {
	n := newNode(t)
	now := time.Now()
	n.cfg.Now = func() time.Time { return now }
	n.open()
	var full, conditional int
	busy := false
	n.serve(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case busy:
			w.Header().Set("Retry-After", "7200")
			w.WriteHeader(http.StatusServiceUnavailable)
		case r.Header.Get("If-None-Match") == `"v1"`:
			conditional++
			w.WriteHeader(http.StatusNotModified)
		default:
			full++
			w.Header().Set("ETag", `"v1"`)
			text("text/csv", blocks(3))(w, r)
		}
	})
	n.subscribe()
	n.run()
	n.run() // held: what it said was not taken over, so it is asked for again
	n.approve()
	for range 3 {
		n.want(n.run(), source.Unchanged, 0, 0)
	}
	if full != 2 || conditional != 3 {
		t.Errorf("%d whole answers and %d that nothing changed", full, conditional)
	}
	// Now and then everything is asked for whatever the server's validators say.
	now = now.Add(8 * 24 * time.Hour)
	n.run()
	if full != 3 {
		t.Errorf("%d whole answers after a week", full)
	}
	busy = true
	n.run()
	s, err := n.keeper.Source("blocks")
	if err != nil || s.Next.Sub(now) < 2*time.Hour-time.Second || s.Failures != 1 || s.Trouble == "" {
		t.Errorf("next in %v, %d failures, %q, %v", s.Next.Sub(now), s.Failures, s.Trouble, err)
	}
	busy = false
	n.run()
	if s, _ = n.keeper.Source("blocks"); s.Failures != 0 || s.Trouble != "" {
		t.Errorf("%d failures, %q", s.Failures, s.Trouble)
	}
}
