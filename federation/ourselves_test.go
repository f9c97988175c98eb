package federation

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func hashesExample(t testing.TB) ourselves {
	return ourselves{
		Origin: "https://hashes.example", Version: "1.2.3", Key: &requestKey().PublicKey, HeadKey: w3cKey(t).Public().(ed25519.PublicKey),
	}
}

var (
	retired, _, _ = ed25519.GenerateKey(bytes.NewReader(make([]byte, 32)))
	expired       = time.Date(2026, 5, 1, 12, 0, 0, 999999000, time.FixedZone("", 3600))
	revoked       = time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)
)

// ourActors are the actors of a node, by type.
func ourActors(t testing.TB) map[string][]byte {
	t.Helper()
	o := hashesExample(t)
	actors := map[string][]byte{}
	add := func(kind string, raw []byte, err error) {
		if err != nil {
			t.Fatal(err)
		}
		actors[kind] = raw
	}
	raw, err := o.nodeDocument()
	add("Application", raw, err)
	raw, err = o.personDocument(ourPerson{Name: "alice", Keys: []Key{{Public: o.HeadKey}, {Public: retired, Expires: expired, Revoked: revoked}}})
	add("Person", raw, err)
	raw, err = o.listDocument(ourList{
		Name: "csam", Title: "CSAM", Summary: "known <material>", Writers: []string{actor}, Labels: []string{"csam", "ncii"},
		Log: "https://hashes.example/lists/csam/log", Head: "https://hashes.example/lists/csam/head",
	})
	add("Service", raw, err)
	return actors
}

// TestOurActors: what we write is what readActor, strict as it is, understands.
func TestOurActors(t *testing.T) {
	o, actors := hashesExample(t), ourActors(t)
	const list = "https://hashes.example/lists/csam"
	multikey := Multikey(o.HeadKey)
	for _, want := range []*remoteActor{
		{
			ID: "https://hashes.example/actor", Type: "Application", Name: "tocsin at hashes.example", PreferredUsername: "hashes.example",
			Inbox: "https://hashes.example/actor/inbox", Outbox: "https://hashes.example/actor/outbox", ManuallyApproves: true,
			PublicKeys: []rsaKey{{"https://hashes.example/actor#main-key", "https://hashes.example/actor", o.Key}},
		}, {
			ID: actor, Type: "Person", Name: "alice", PreferredUsername: "alice", Inbox: actor + "/inbox", Outbox: actor + "/outbox", ManuallyApproves: true,
			Methods: []proofKey{
				{ID: actor + "#" + multikey, Controller: actor, Public: o.HeadKey},
				{ID: actor + "#" + Multikey(retired), Controller: actor, Public: retired, Expires: time.Date(2026, 5, 1, 11, 0, 0, 0, time.UTC), Revoked: revoked},
			},
		}, {
			ID: list, Type: "Service", Name: "CSAM", Summary: "known <material>", PreferredUsername: "csam", Inbox: list + "/inbox", Outbox: list + "/outbox",
			Followers: list + "/followers", Log: list + "/log", Head: list + "/head", Writers: []string{actor}, ManuallyApproves: true,
			PublicKeys: []rsaKey{{list + "#main-key", list, o.Key}},
			Methods:    []proofKey{{ID: list + "#" + multikey, Controller: list, Public: o.HeadKey}},
		},
	} {
		want.SharedInbox, want.Raw = "https://hashes.example/inbox", actors[want.Type]
		got, err := readActor(want.Raw)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		// The names that readers of linked data look up.
		o := newObject(want.Raw)
		var context []any
		if err := json.Unmarshal(o.values["@context"], &context); err != nil || !slices.Equal(context[:5], []any{
			"https://www.w3.org/ns/activitystreams", "https://w3id.org/security/v1", "https://w3id.org/security/data-integrity/v1",
			"https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1",
		}) {
			t.Errorf("%v, %v", context, err)
		}
		if terms := context[5].(map[string]any); cmp.Diff(terms["log"], map[string]any{"@id": "tocsin:log", "@type": "@id"}) != "" || terms["tocsin"] != namespace {
			t.Errorf("terms %v", terms)
		}
		if again := ourActors(t)[want.Type]; !bytes.Equal(again, want.Raw) {
			t.Errorf("the same facts give\n%s\n%s", want.Raw, again)
		}
	}
	if strings.Contains(string(actors["Person"]), "publicKey\"") {
		t.Error("a person has a key for requests")
	}
	public, err := o.listDocument(ourList{Name: "x", Title: "x", Public: true})
	if err != nil {
		t.Fatal(err)
	}
	if a, err := readActor(public); err != nil || a.ManuallyApproves {
		t.Errorf("%+v, %v", a, err)
	}
	o.Origin = "hashes.example"
	if _, err := o.nodeDocument(); err == nil {
		t.Error("a node without address")
	}
}

func TestOurWebFinger(t *testing.T) {
	o := hashesExample(t)
	o.Origin = "https://hashes.example:8443"
	find := func(name string) string {
		switch name {
		case "csam":
			return listActor(o.Origin, name)
		case "alice":
			return personActor(o.Origin, name)
		case "hashes.example", "":
			t.Errorf("asked for %q", name)
		}
		return ""
	}
	type reply struct{ resource, subject, actor string }
	for _, c := range []reply{
		{"acct:csam@hashes.example:8443", "acct:csam@hashes.example:8443", "https://hashes.example:8443/lists/csam"},
		{"acct:CSAM@Hashes.Example:8443", "acct:csam@hashes.example:8443", "https://hashes.example:8443/lists/csam"},
		{"acct:alice@hashes.example:8443", "acct:alice@hashes.example:8443", "https://hashes.example:8443/users/alice"},
		{"acct:hashes.example@hashes.example:8443", "acct:hashes.example@hashes.example:8443", "https://hashes.example:8443/actor"},
		{"https://hashes.example:8443/users/alice", "acct:alice@hashes.example:8443", "https://hashes.example:8443/users/alice"},
		{"https://hashes.example:8443/actor", "acct:hashes.example@hashes.example:8443", "https://hashes.example:8443/actor"},
		{"acct:csam@hashes.example", "", ""}, {"acct:csam@other.example", "", ""}, {"acct:nobody@hashes.example:8443", "", ""}, {"acct:@hashes.example:8443", "", ""},
		{"acct:a/b@hashes.example:8443", "", ""}, {"acct:csam", "", ""}, {"csam@hashes.example:8443", "", ""}, {"", "", ""}, {"https://other.example/users/alice", "", ""},
		{"https://hashes.example:8443/lists/alice", "", ""}, {"https://hashes.example:8443/users/csam", "", ""}, {"https://hashes.example:8443/x", "", ""},
	} {
		raw, err := o.webFinger(c.resource, find)
		if err != nil {
			t.Fatal(err)
		}
		if c.actor == "" {
			if raw != nil {
				t.Errorf("%q: %s", c.resource, raw)
			}
			continue
		}
		j, err := readJRD(raw)
		if err != nil {
			t.Errorf("%q: %s: %v", c.resource, raw, err)
			continue
		}
		if iri, err := j.actor(relSelf, o.Origin); err != nil || iri != c.actor || j.Subject != c.subject {
			t.Errorf("%q: %s, %v", c.resource, raw, err)
		}
	}
	// FEP-d556
	for _, resource := range []string{o.Origin, o.Origin + "/"} {
		const want = `{"links":[{"href":"https://hashes.example:8443/actor","rel":"https://www.w3.org/ns/activitystreams#Service","type":"application/activity+json"}],"subject":"https://hashes.example:8443/"}`
		if raw, err := o.webFinger(resource, find); err != nil || string(raw) != want {
			t.Errorf("%s: %s, %v", resource, raw, err)
		}
	}
}

func TestOurNodeInfo(t *testing.T) {
	o := hashesExample(t)
	raw, err := o.nodeInfoLinks()
	if want := `{"links":[{"href":"https://hashes.example/nodeinfo/2.1","rel":"http://nodeinfo.diaspora.software/ns/schema/2.1"},` +
		`{"href":"https://hashes.example/actor","rel":"https://www.w3.org/ns/activitystreams#Application","type":"application/activity+json"}]}`; err != nil || string(raw) != want {
		t.Errorf("%s, %v", raw, err)
	}
	two := 2
	for want, facts := range map[string]nodeFacts{
		`"metadata":{},"openRegistrations":false,"protocols":["activitypub"],"services":{"inbound":[],"outbound":[]},"software":{"name":"tocsin","repository":"https://github.com/tocsin-fed/tocsin","version":"1.2.3"},"usage":{"users":{}},"version":"2.1"}`:                                              {},
		`"metadata":{"nodeDescription":"d","nodeName":"n"},"openRegistrations":false,"protocols":["activitypub"],"services":{"inbound":[],"outbound":[]},"software":{"name":"tocsin","repository":"https://github.com/tocsin-fed/tocsin","version":"1.2.3"},"usage":{"users":{"total":2}},"version":"2.1"}`: {&two, "n", "d"},
	} {
		if raw, err := o.nodeInfo(facts); err != nil || string(raw) != "{"+want {
			t.Errorf("%v\n got %s\nwant {%s", err, raw, want)
		}
	}
}

func TestOurLabels(t *testing.T) {
	o := hashesExample(t)
	raw, err := o.labelDefinition("csam", "x & y")
	if err != nil {
		t.Fatal(err)
	}
	d := newObject(raw)
	vocabulary, err := o.labelVocabulary([]string{"csam", "gore"})
	if err != nil {
		t.Fatal(err)
	}
	v := newObject(vocabulary)
	if d.text("id") != "https://hashes.example/labels/csam" || d.text("type") != "LabelDefinition" || d.text("name") != "csam" || d.text("summary") != "x & y" ||
		d.text("context") != v.text("id") || v.text("type") != "Collection" || string(v.values["totalItems"]) != "2" {
		t.Errorf("%s\n%s", raw, vocabulary)
	}
	if ids := v.references("items", 9); !slices.Equal(ids, []string{"https://hashes.example/labels/csam", "https://hashes.example/labels/gore"}) {
		t.Errorf("labels %v", ids)
	}
	// A statement points to the same place.
	if got := alice(t).labels([]string{"csam"}); got[0].Href != d.text("id") {
		t.Errorf("statements point to %s", got[0].Href)
	}
	if raw, err := o.labelDefinition("../x", ""); err == nil {
		t.Errorf("%s", raw)
	}
}

// TestFoundByOthers serves the documents of a node, and finds the node as another would.
func TestFoundByOthers(t *testing.T) {
	var o ourselves
	n := newInternet(t, func(n *internet, w http.ResponseWriter, r *http.Request) {
		var raw []byte
		var err error
		media := typeActivity
		switch r.URL.Path {
		case "/.well-known/webfinger":
			media = typeJRD
			raw, err = o.webFinger(r.URL.Query().Get("resource"), func(name string) string { return listActor(o.Origin, name) })
		case "/.well-known/nodeinfo":
			media = typeJRD
			raw, err = o.nodeInfoLinks()
		case "/nodeinfo/2.1":
			media = typeNodeInfo
			raw, err = o.nodeInfo(nodeFacts{})
		case "/actor":
			raw, err = o.nodeDocument()
		case "/lists/csam":
			raw, err = o.listDocument(ourList{Name: "csam", Title: "csam"})
		}
		if err != nil || raw == nil {
			http.Error(w, "no", http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", media)
		w.Write(raw)
	})
	o = hashesExample(t)
	o.Origin = n.origin("a.example")
	host := "a.example:" + n.port
	for address, want := range map[string]string{"@csam@" + host: o.Origin + "/lists/csam", host: o.Origin + "/actor", "a.example@" + host: o.Origin + "/actor"} {
		iri, err := n.fetcher.resolve(t.Context(), address)
		if err != nil || iri != want {
			t.Fatalf("%s is %s, %v", address, iri, err)
		}
		a, key, err := n.fetcher.key(t.Context(), requestKeyID(iri))
		if err != nil || a.ID != iri || !key.Equal(o.Key) {
			t.Errorf("%s: %+v, %v", iri, a, err)
		}
	}
	if raw, err := n.fetcher.raw(t.Context(), o.Origin+"/nodeinfo/2.1", "application/json", maxActor); err != nil || !json.Valid(raw) {
		t.Errorf("%s, %v", raw, err)
	}
}
