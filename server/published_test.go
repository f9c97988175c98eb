package server

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// say seals a statement of the node's own issuer.
func (n *node) say(v hashlist.Statement) {
	n.t.Helper()
	r, err := n.issuer.Seal(v)
	if err != nil {
		n.t.Fatal(err)
	}
	r.Received = time.Now().UTC().Truncate(time.Microsecond)
	if _, err := n.lists.Apply(n.t.Context(), r); err != nil {
		n.t.Fatal(err)
	}
}

// instances makes a list of servers.
func (n *node) instances(name string, audience hashlist.Audience, labels ...string) string {
	n.t.Helper()
	iri := testOrigin + "/lists/" + name
	n.say(hashlist.Statement{Kind: hashlist.DefineList, List: iri, Definition: &hashlist.Definition{
		Name: name, Audience: audience, Action: hashlist.Reject, Labels: labels, Radii: hashlist.DefaultRadii,
	}})
	n.say(hashlist.Statement{Kind: hashlist.AddInstances, List: iri, Action: hashlist.Drop, Reason: "spam, \"and\" more\nof it", Subjects: []string{"bad.example", "worse.example"}})
	n.say(hashlist.Statement{Kind: hashlist.AddInstances, List: iri, Action: hashlist.Filter, Subjects: []string{"loud.example"}})
	n.say(hashlist.Statement{Kind: hashlist.AddInstances, List: iri, Action: hashlist.Accept, Subjects: []string{"good.example"}})
	return iri
}

// read asks the public listener, with a token if there is one, and returns the whole answer but its date.
func (n *node) read(path, token string, header ...string) (status int, body string, all string, h http.Header) {
	n.t.Helper()
	r, err := http.NewRequestWithContext(n.t.Context(), http.MethodGet, "http://"+n.PublicAddr()+path, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	r.Header.Set("User-Agent", "GoToSocial")
	if token != "" {
		r.SetBasicAuth("anybody", token)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		n.t.Fatal(err)
	}
	defer res.Body.Close()
	res.Header.Del("Date")
	dump, err := httputil.DumpResponse(res, false)
	if err != nil {
		n.t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return res.StatusCode, string(b), string(dump) + string(b), res.Header
}

// TestPublishedForms reads a public list as each of the others' software does.
func TestPublishedForms(t *testing.T) {
	n := start(t, withFederation(t, nil))
	n.instances("blocks", hashlist.Public)
	// Mastodon and GoToSocial: a header that is exactly so, and exactly six columns in each row.
	status, body, _, h := n.read("/lists/blocks.csv", "")
	if status != http.StatusOK || !strings.HasPrefix(h.Get("Content-Type"), "text/csv") {
		t.Fatalf("%d %v", status, h)
	}
	first, _, _ := strings.Cut(body, "\n")
	if strings.TrimSuffix(first, "\r") != "#domain,#severity,#reject_media,#reject_reports,#public_comment,#obfuscate" {
		t.Errorf("header %q", first)
	}
	rows, err := csv.NewReader(strings.NewReader(body)).ReadAll()
	if err != nil || len(rows) != 4 {
		t.Fatalf("%v: %q", err, body)
	}
	severities := map[string]string{}
	for _, row := range rows[1:] {
		if len(row) != 6 {
			t.Errorf("row of %d columns: %q", len(row), row)
		}
		severities[row[0]] = row[1]
	}
	if severities["bad.example"] != "suspend" || severities["loud.example"] != "silence" || severities["good.example"] != "" {
		t.Errorf("severities %v", severities)
	}
	// GoToSocial's JSON has no severity: whatever is in it is suspended.
	_, body, _, _ = n.read("/lists/blocks.json", "")
	var permissions []struct {
		Domain string `json:"domain"`
	}
	if err := json.Unmarshal([]byte(body), &permissions); err != nil || len(permissions) != 2 || strings.Contains(body, "loud") || strings.Contains(body, "good") {
		t.Errorf("%v: %s", err, body)
	}
	if _, body, _, _ = n.read("/lists/blocks.txt", ""); body != "bad.example\nworse.example\n" {
		t.Errorf("text %q", body)
	}
	if _, body, _, _ = n.read("/lists/blocks.peertube.json", ""); !json.Valid([]byte(body)) || !strings.Contains(body, `"value":"bad.example"`) {
		t.Errorf("PeerTube %s", body)
	}
	if _, body, _, _ = n.read("/lists/blocks.rapidblock.json", ""); !json.Valid([]byte(body)) || !strings.Contains(body, `"worse.example"`) {
		t.Errorf("RapidBlock %s", body)
	}
}

// TestPublishedFIRES walks through a dataset as its readers do.
func TestPublishedFIRES(t *testing.T) {
	n := start(t, withFederation(t, nil))
	iri := n.instances("blocks", hashlist.Public)
	var many []string
	for i := range 250 {
		many = append(many, fmt.Sprintf("many%d.example", i))
	}
	n.say(hashlist.Statement{Kind: hashlist.AddInstances, List: iri, Subjects: many})
	var id string
	for r, err := range n.lists.After(t.Context(), 0, hashlist.Selection{List: iri}) {
		if err != nil {
			t.Fatal(err)
		}
		if r.Statement.Action == hashlist.Drop {
			id = r.Statement.ID
		}
	}
	n.say(hashlist.Statement{Kind: hashlist.Retraction, List: iri, Retracts: id, Subjects: []string{"bad.example"}})
	n.say(hashlist.Statement{Kind: hashlist.Retraction, List: iri, Retracts: id})
	var p struct {
		Endpoints map[string]string `json:"endpoints"`
		Next      string            `json:"next"`
		Items     []firesChange     `json:"orderedItems"`
	}
	get := func(address string) {
		t.Helper()
		_, body, _, _ := n.read(strings.TrimPrefix(address, testOrigin), "")
		p.Next, p.Items = "", nil
		if err := json.Unmarshal([]byte(body), &p); err != nil {
			t.Fatalf("%s: %v: %s", address, err, body)
		}
	}
	get(iri + ".fires")
	snapshot, changes := p.Endpoints["snapshot"], p.Endpoints["changes"]
	get(snapshot)
	if len(p.Items) != 252 { // loud, good and many
		t.Errorf("%d in the snapshot", len(p.Items))
	}
	uuid := regexp.MustCompile(`/changes/[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	var seen []string
	pages, kinds := 0, map[string]int{}
	for at := changes + "?since=00000000-0000-7000-a000-000000000000"; at != ""; at = p.Next {
		get(at)
		pages++
		for _, c := range p.Items {
			if !uuid.MatchString(c.ID) || slices.Contains(seen, c.ID) {
				t.Fatalf("id %s is none, or is there twice", c.ID)
			}
			seen, kinds[c.Type] = append(seen, c.ID), kinds[c.Type]+1
		}
	}
	if len(seen) != 4+250+1+2 || pages != 3 || kinds["Retraction"] != 3 {
		t.Errorf("%d changes on %d pages: %v", len(seen), pages, kinds)
	}
	// From every place, what is behind it comes, and nothing else.
	for _, i := range []int{0, 3, 99, 100, len(seen) - 2, len(seen) - 1} {
		get(changes + "?since=" + seen[i][strings.LastIndexByte(seen[i], '/')+1:])
		if want := min(firesPage, len(seen)-1-i); len(p.Items) != want || want > 0 && p.Items[0].ID != seen[i+1] {
			t.Errorf("since change %d: %d changes, want %d", i, len(p.Items), want)
		}
	}
}

// TestPublishedConditions: what has not changed is not sent again.
func TestPublishedConditions(t *testing.T) {
	n := start(t, withFederation(t, nil))
	n.instances("blocks", hashlist.Public)
	_, body, _, h := n.read("/lists/blocks.csv", "")
	tag, since := h.Get("ETag"), h.Get("Last-Modified")
	if tag == "" || since == "" {
		t.Fatalf("no validators: %v", h)
	}
	for _, header := range [][]string{{"If-None-Match", tag}, {"If-Modified-Since", since}, {"If-None-Match", tag, "If-Modified-Since", since}} {
		if status, body, _, _ := n.read("/lists/blocks.csv", "", header...); status != http.StatusNotModified || body != "" {
			t.Errorf("%v: %d %q", header, status, body)
		}
	}
	if status, again, _, _ := n.read("/lists/blocks.csv", "", "If-None-Match", `"other"`); status != http.StatusOK || again != body {
		t.Errorf("another tag: %d %q", status, again)
	}
}

// TestPublishedAudience: who reads what, and that what is not for somebody is answered, byte for byte, as what is not there.
func TestPublishedAudience(t *testing.T) {
	n := start(t, withFederation(t, nil))
	n.instances("everybodys", hashlist.Public)
	n.instances("few", hashlist.Followers)
	n.instances("mine", hashlist.Local)
	n.instances("partners", hashlist.Local, hashlist.PartnerData)
	hashes := testOrigin + "/lists/hashes"
	h := randomHashes(1)[0]
	n.secrets = append(n.secrets, h.Hex())
	n.say(hashlist.Statement{Kind: hashlist.DefineList, List: hashes, Definition: &hashlist.Definition{
		Name: "hashes", Audience: hashlist.Followers, Action: hashlist.Reject, Radii: hashlist.DefaultRadii,
	}})
	n.say(hashlist.Statement{Kind: hashlist.AddHashes, List: hashes, Hashes: []hashlist.Hash{h}})
	tokens := map[string]string{
		"": "", "nonsense": "tocsin_nonsense", "lookup": n.token("lookup", ScopeLookup), "few": n.token("few", ScopeRead+"few"),
		"hashes": n.token("hashes", ScopeRead+"hashes"), "mine": n.token("mine", ScopeRead+"mine"), "partners": n.token("partners", ScopeRead+"partners"),
		"blocks": n.token("blocks", ScopeBlocks), "admin": n.token("admin", ScopeAdmin),
	}
	may := map[string][]string{
		"/lists/everybodys.csv": {"", "nonsense", "lookup", "few", "hashes", "mine", "partners", "blocks", "admin"},
		"/lists/few.csv":        {"few", "admin"}, "/lists/few.json": {"few", "admin"}, "/lists/few.fires": {"few", "admin"}, "/lists/few.fires/changes": {"few", "admin"},
		"/lists/hashes.txt": {"hashes", "admin"}, "/lists/hashes.csv": {}, "/lists/hashes.fires/snapshot": {},
		"/lists/mine.csv": {}, "/lists/mine.txt": {}, "/lists/partners.csv": {}, "/lists/partners.fires/snapshot": {}, "/lists/partners.txt": {},
		"/blocks.csv": {"blocks", "admin"}, "/blocks.json": {"blocks", "admin"}, "/blocks.fires": {}, "/lists/.csv": {}, "/lists/nothing.csv": {},
	}
	for path, who := range may {
		_, _, nothing, _ := n.read("/lists/no-such-list"+path[strings.IndexByte(path, '.'):], "")
		for name, token := range tokens {
			status, body, all, _ := n.read(path, token)
			if slices.Contains(who, name) {
				if status != http.StatusOK || body == "" {
					t.Errorf("%s with token %q: %d", path, name, status)
				}
			} else if status != http.StatusNotFound || all != nothing {
				t.Errorf("%s with token %q: %d, and it can be told from what is not there:\n%s\n%s", path, name, status, all, nothing)
			}
		}
	}
	// A token for one list may do nothing else.
	if _, err := pb.NewLookupServiceClient(n.dial(n.grpc, tokens["few"])).Lookup(t.Context(), &pb.LookupRequest{Hashes: []string{h.String()}}); err == nil {
		t.Error("a token for reading a list looked something up")
	}
	// A list that is narrowed is gone at once, also where it was remembered.
	iri := testOrigin + "/lists/everybodys"
	l, _ := n.lists.List(iri)
	d := l.Definition
	d.Audience = hashlist.Local
	n.say(hashlist.Statement{Kind: hashlist.DefineList, List: iri, Definition: &d, Published: l.Updated.Add(time.Second)})
	if status, _, _, _ := n.read("/lists/everybodys.csv", ""); status != http.StatusNotFound {
		t.Errorf("a list that was narrowed is still published: %d", status)
	}
}

// TestPublishedLimit: who asks without end is told to come back later, whether or not the list is there.
func TestPublishedLimit(t *testing.T) {
	n := start(t, withFederation(t, nil))
	limited := 0
	for range readersBurst + 20 {
		if status, _, _, _ := n.read("/lists/nothing.csv", ""); status == http.StatusTooManyRequests {
			limited++
		}
	}
	if limited == 0 {
		t.Error("nobody was limited")
	}
}

// TestMergedBlocks: what the node makes of what many say of servers.
func TestMergedBlocks(t *testing.T) {
	n := start(t, withFederation(t, nil))
	_ = n
	var b bytes.Buffer
	if err := n.writeBlocks(&b, "mastodon"); err != nil || strings.Count(b.String(), "\n") != 1 {
		t.Errorf("%v: %q", err, b.String())
	}
	n.instances("own", hashlist.Local)
	n.instances("partners", hashlist.Local, hashlist.PartnerData)
	b.Reset()
	if err := n.writeBlocks(&b, "domains"); err != nil || b.String() != "bad.example\nworse.example\n" {
		t.Errorf("%v: %q", err, b.String())
	}
}

// FuzzPublished: addresses and cursors come from anybody.
func FuzzPublished(f *testing.F) {
	f.Add("/lists/a.csv", "0197c0de-0000-7000-8000-000000000001")
	f.Add("/blocks.json", firesID(time.Unix(1_800_000_000, 0), 77, 5))
	f.Add("/lists/../x.csv", "%")
	f.Fuzz(func(t *testing.T, path, since string) {
		name, form, ok := publishedPath(path)
		if _, known := published[form]; ok && (!known || name != "" && hashlist.CheckName(name) != nil || !strings.HasSuffix(path, form)) {
			t.Errorf("%q is %q %q", path, name, form)
		}
		seq, index := firesPlace(since)
		if seq == 0 {
			return
		}
		if s, i := firesPlace(firesID(time.Unix(1_800_000_000, 0), seq, index)); s != seq || i != index {
			t.Errorf("place %d, %d comes back as %d, %d", seq, index, s, i)
		}
	})
}
