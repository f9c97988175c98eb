package federation

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func TestResolve(t *testing.T) {
	n := newInternet(t, func(n *internet, w http.ResponseWriter, r *http.Request) {
		a, b := n.origin("a.example"), n.origin("b.example")
		answer := func(subject string, links ...string) {
			w.Header().Set("Content-Type", "application/jrd+json; charset=utf-8")
			fmt.Fprintf(w, `{"subject":%q,"aliases":["x"],"links":[%s]}`, subject, strings.Join(links, ","))
		}
		self := func(href string) string {
			return fmt.Sprintf(`{"rel":"self","type":"application/activity+json","href":%q}`, href)
		}
		page := fmt.Sprintf(`{"rel":"http://webfinger.net/rel/profile-page","type":"text/html","href":%q},{"rel":"self","type":"text/html","href":"%s/page"},{"rel":"x","template":"y{uri}"}`, a+"/@csam", a)
		app := func(href string) string {
			return fmt.Sprintf(`{"rel":"http://nodeinfo.diaspora.software/ns/schema/2.1","href":"%s/nodeinfo"},{"rel":"https://www.w3.org/ns/activitystreams#Application","href":%q}`, a, href)
		}
		name, host, _ := strings.Cut(strings.TrimPrefix(r.URL.Query().Get("resource"), "acct:"), "@")
		switch {
		case r.URL.Path == "/.well-known/nodeinfo" && strings.HasPrefix(r.Host, "a."):
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"links":[%s]}`, app(a+"/actor"))
		case r.URL.Path == "/.well-known/nodeinfo" && strings.HasPrefix(r.Host, "b."):
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"links":[%s]}`, app(a+"/actor")) // another's
		case r.URL.Path != "/.well-known/webfinger" || host != r.Host || !strings.Contains(r.URL.RawQuery, "resource=acct:"):
			http.NotFound(w, r)
		case name == "csam" || name == "CSAM":
			answer("acct:csam@"+r.Host, page, self(a+"/lists/csam"))
		case name == "ld":
			answer("", `{"rel":"self","type":"application/ld+json; profile=\"https://www.w3.org/ns/activitystreams\"","href":"`+a+`/lists/csam"}`, self(a+"/lists/csam"))
		case name == "json":
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"subject":null,"links":[%s]}`, self(a+"/lists/csam"))
		case name == "html":
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprintf(w, `{"links":[%s]}`, self(a+"/lists/csam"))
		case name == "abroad":
			answer("acct:abroad@"+r.Host, self(b+"/lists/csam"))
		case name == "subject":
			answer("acct:csam@b.example", self(a+"/lists/csam"))
		case name == "two":
			answer("acct:two@"+r.Host, self(a+"/c/two"), self(a+"/u/two"))
		case name == "page":
			answer("acct:page@"+r.Host, page)
		case name == "relative":
			answer("acct:relative@"+r.Host, self("/lists/csam"))
		case name == "empty":
			answer("acct:empty@" + r.Host)
		case name == "moved":
			http.Redirect(w, r, b+"/.well-known/webfinger?"+r.URL.RawQuery, http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	})
	a := n.origin("a.example")
	for _, c := range []struct{ address, iri, says string }{
		{"@csam@HOST", a + "/lists/csam", ""}, {"csam@HOST", a + "/lists/csam", ""}, {"acct:csam@HOST", a + "/lists/csam", ""},
		{"@CSAM@A.Example:PORT", a + "/lists/csam", ""}, {"ld@HOST", a + "/lists/csam", ""}, {"json@HOST", a + "/lists/csam", ""},
		{"HOST", a + "/actor", ""}, {"A.EXAMPLE:PORT", a + "/actor", ""}, {a, a + "/actor", ""}, {a + "/", a + "/actor", ""},
		{a + "/lists/csam", a + "/lists/csam", ""}, {"https://other.example/lists/x", "https://other.example/lists/x", ""},
		{"html@HOST", "", "media type"}, {"abroad@HOST", "", "another server: give that address"}, {"subject@HOST", "", "on another server: ask there"},
		{"two@HOST", "", "several actors"}, {"page@HOST", "", "no ActivityPub actor"}, {"empty@HOST", "", "no ActivityPub actor"},
		{"relative@HOST", "", "plain https"}, {"moved@HOST", "", "another server"}, {"missing@HOST", "", "does not know missing"},
		{"b.example:PORT", "", "another server"}, {"c.example:PORT", "", "404"},
		{"", "", "write @csam@hashes.example"}, {"@", "", "write @"}, {"csam@", "", "write @"}, {"@@HOST", "", "write @"}, {"a b@HOST", "", "write @"},
		{"a&b@HOST", "", "write @"}, {"a%40b@HOST", "", "write @"}, {"csam@HOST/path", "", "write @"}, {"csam@u@HOST", "", "write @"}, {"csam@HOST?x", "", "write @"},
		{"csam@HOST#x", "", "write @"}, {"csam@exämple.org", "", "write @"}, {strings.Repeat("x", 200) + "@HOST", "", "write @"}, {"csam@", "", "write @"},
		{"https://u:p@a.example/", "", "not like"}, {"https://a.example/x?y", "", "plain https"}, {"ftp://a.example", "", "write @"}, {"did:key:x", "", "write @"},
	} {
		address := strings.ReplaceAll(strings.ReplaceAll(c.address, "HOST", "a.example:"+n.port), "PORT", n.port)
		iri, err := n.fetcher.resolve(t.Context(), address)
		if c.says != "" {
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%.80q: %s, %v, want an error that says %q", c.address, iri, err, c.says)
			}
		} else if err != nil || iri != c.iri {
			t.Errorf("%q: %s, %v, want %s", c.address, iri, err, c.iri)
		}
	}
}

func TestOriginOf(t *testing.T) {
	for _, c := range []struct {
		loopback bool
		host     string
		origin   string
	}{
		{false, "hashes.example", "https://hashes.example"}, {false, "localhost:8080", "https://localhost:8080"}, {false, "[::1]:8080", "https://[::1]:8080"},
		{true, "hashes.example", "https://hashes.example"}, {true, "localhost:8080", "http://localhost:8080"}, {true, "127.0.0.1:8080", "http://127.0.0.1:8080"},
		{true, "[::1]:8080", "http://[::1]:8080"}, {true, "10.0.0.1", "https://10.0.0.1"}, {true, "localhost.example", "https://localhost.example"},
		{false, "a/b", ""}, {false, "a?b", ""}, {false, "a:b", ""}, {false, "a@b", ""}, {false, "", ""}, {false, "a:", ""}, {false, "[::1", ""},
	} {
		f := &fetcher{loopback: c.loopback}
		if origin, err := f.originOf(c.host); origin != c.origin || (err == nil) != (c.origin != "") {
			t.Errorf("%q: %s, %v", c.host, origin, err)
		}
	}
}

// TestKey walks from the id of a key to its owner, on servers that are honest and on others.
func TestKey(t *testing.T) {
	pemText, other := spki(t, requestKey().Public()), "https://b.example"
	n := newInternet(t, func(n *internet, w http.ResponseWriter, r *http.Request) {
		a := n.origin("a.example")
		self := "https://" + r.Host + r.URL.Path
		actor := func(id, keyID, owner string) {
			activityJSON(w, `{"id":%q,"type":"Person","inbox":"%s/inbox","publicKey":{"id":%q,"owner":%q,"publicKeyPem":%q}}`, id, id, keyID, owner, pemText)
		}
		switch r.URL.Path {
		case "/alice":
			actor(self, self+"#main-key", self)
		case "/gts":
			actor(self, self+"/main-key", self)
		case "/gts/main-key": // a stub that has the actor's id
			activityJSON(w, `{"id":%q,"publicKey":{"id":%q,"owner":%q,"publicKeyPem":%q},"type":"Person"}`, a+"/gts", self, a+"/gts", pemText)
		case "/bob":
			actor(self, a+"/keys/bob", self)
		case "/keys/bob": // a document of its own, without the key itself: what counts is the actor's
			activityJSON(w, `{"id":%q,"type":"Key","owner":"%s/bob"}`, self, a)
		case "/keys/stub":
			activityJSON(w, `{"id":%q,"publicKey":{"id":%q,"owner":"%s/stubbed"}}`, self, self, a)
		case "/stubbed":
			actor(self, a+"/keys/stub", self)
		case "/keys/two": // shows two keys, of two owners
			activityJSON(w, `{"id":%q,"publicKey":[{"id":"%s/keys/stub","owner":"%s/stubbed"},{"id":%q,"owner":"%s/second"}]}`, self, a, a, self, a)
		case "/second":
			actor(self, a+"/keys/two", self)
		case "/keys/stolen": // names an actor that does not list it
			activityJSON(w, `{"id":%q,"owner":"%s/bob","publicKeyPem":%q}`, self, a, pemText)
		case "/keys/abroad":
			activityJSON(w, `{"id":%q,"owner":"%s/bob","publicKeyPem":%q}`, self, other, pemText)
		case "/keys/nobody":
			activityJSON(w, `{"id":%q,"publicKeyPem":%q}`, self, pemText)
		case "/keys/chain":
			activityJSON(w, `{"id":%q,"owner":"%s/keys/bob"}`, self, a)
		case "/foreign":
			actor(self, self+"#main-key", other+"/bob")
		case "/gone":
			w.WriteHeader(http.StatusGone)
		case "/moved":
			http.Redirect(w, r, other+"/bob", http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	})
	a := n.origin("a.example")
	for _, c := range []struct {
		key, owner, says string
		asks             int
	}{
		{"/alice#main-key", "/alice", "", 1}, {"/gts/main-key", "/gts", "", 2}, {"/keys/bob", "/bob", "", 2}, {"/keys/stub", "/stubbed", "", 2},
		{"/keys/two", "/second", "", 2},
		{"/alice#other-key", "", "does not list the key", 1}, {"/alice", "", "does not list the key", 1},
		{"/keys/stolen", "", "does not list the key", 2}, {"/keys/abroad", "", "on another server", 1},
		{"/keys/nobody", "", "actor", 1}, {"/keys/chain", "", "actor", 2},
		{"/foreign#main-key", "", "is owned by", 1}, {"/gone#main-key", "", "410", 1}, {"/moved#main-key", "", "another server", 1},
	} {
		t.Run(c.key, func(t *testing.T) {
			n.requests()
			actor, key, err := n.fetcher.key(t.Context(), a+c.key)
			if asked := n.requests(); len(asked) != c.asks {
				t.Errorf("asked for %v", asked)
			}
			if c.says != "" {
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%+v, %v, want an error that says %q", actor, err, c.says)
				}
				return
			}
			if err != nil || actor.ID != a+c.owner || !requestKey().PublicKey.Equal(key) {
				t.Errorf("%+v, %v", actor, err)
			}
		})
	}
	if _, _, err := n.fetcher.key(t.Context(), "did:key:"+w3cPublic); err == nil {
		t.Error("fetched a did")
	}
	if actor, err := n.fetcher.actor(t.Context(), a+"/alice"); err != nil || actor.ID != a+"/alice" {
		t.Errorf("%+v, %v", actor, err)
	}
	if actor, err := n.fetcher.actor(t.Context(), a+"/keys/bob"); err == nil {
		t.Errorf("a key is the actor %+v", actor)
	}
}

func FuzzReadJRD(f *testing.F) {
	const origin = "https://hashes.example"
	f.Add([]byte(`{"subject":"acct:csam@hashes.example","links":[{"rel":"self","type":"application/activity+json","href":"https://hashes.example/lists/csam"}]}`))
	f.Add([]byte(`{"links":{"rel":"https://www.w3.org/ns/activitystreams#Application","href":"https://hashes.example/actor"}}`))
	f.Add([]byte(`{"links":[null,{"rel":1}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		j, err := readJRD(data)
		if err != nil {
			return
		}
		for _, rel := range []string{relSelf, relAppActor} {
			if iri, err := j.actor(rel, origin); err == nil && !ofOneOrigin(iri, origin) {
				t.Errorf("%s is the actor %s", data, iri)
			}
		}
	})
}
