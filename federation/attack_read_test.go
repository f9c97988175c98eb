package federation_test

import (
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
)

// TestAttackReading: what belongs to a list is answered to those who may not read it exactly as if
// there were no such list, whoever they are and however they ask.
func TestAttackReading(t *testing.T) {
	n := newNode(t)
	secret, inner := n.define("secret", hashlist.Followers), n.define("inner1", hashlist.Local)
	told := n.define("toldto", hashlist.Followers)
	nothing := n.list("nobody")
	item := n.ban(secret, pdq(t, 1))
	hidden := n.ban(inner, pdq(t, 2))
	n.ban(told, pdq(t, 3))
	until(t, "the log is read", func() bool {
		o, err := n.Outbox(t.Context())
		return err == nil && len(o) == 2 && o[0].Size == 2 && o[1].Size == 2
	})

	friend := newAttacker(t)
	reader := friend.origin + "/actor"
	friend.follow(n, secret)
	if _, err := n.Decide(t.Context(), secret, reader, true); err != nil {
		t.Fatal(err)
	}
	waiting, rejected, left, elsewhere, stranger := newAttacker(t), newAttacker(t), newAttacker(t), newAttacker(t), newAttacker(t)
	waiting.follow(n, secret)
	rejected.follow(n, secret)
	if _, err := n.Decide(t.Context(), secret, rejected.addr, false); err != nil {
		t.Fatal(err)
	}
	_, f := left.follow(n, secret)
	if _, err := n.Decide(t.Context(), secret, left.addr, true); err != nil {
		t.Fatal(err)
	}
	left.send(n, letter{body: encode(t, left.activity("Undo", left.origin+"/actor", f))})
	elsewhere.follow(n, told)
	if _, err := n.Decide(t.Context(), told, elsewhere.addr, true); err != nil {
		t.Fatal(err)
	}

	callers := map[string]func(method, path string) answer{
		"unsigned": func(m, p string) answer { return stranger.send(n, letter{method: m, path: p, unsigned: true}) },
		"unsigned, compressed": func(m, p string) answer {
			r := stranger.build(n, letter{method: m, path: p, unsigned: true})
			r.Header.Set("Accept-Encoding", "gzip")
			return do(t, r)
		},
		"unsigned, of a range": func(m, p string) answer {
			r := stranger.build(n, letter{method: m, path: p, unsigned: true})
			r.Header.Set("Range", "bytes=0-3")
			r.Header.Set("If-None-Match", "*")
			return do(t, r)
		},
		"stranger":  func(m, p string) answer { return stranger.send(n, letter{method: m, path: p}) },
		"waiting":   func(m, p string) answer { return waiting.send(n, letter{method: m, path: p}) },
		"rejected":  func(m, p string) answer { return rejected.send(n, letter{method: m, path: p}) },
		"left":      func(m, p string) answer { return left.send(n, letter{method: m, path: p}) },
		"elsewhere": func(m, p string) answer { return elsewhere.send(n, letter{method: m, path: p}) },
		"another's key id": func(m, p string) answer {
			return stranger.send(n, letter{method: m, path: p, keyID: reader + "#main-key", key: otherKey()})
		},
		"signed for another page": func(m, p string) answer {
			return friend.send(n, letter{method: m, path: p, signedPath: "/lists/secret"})
		},
		"signed for another method": func(m, p string) answer {
			r := friend.build(n, letter{method: "PUT", path: p})
			r.Method = m
			return do(t, r)
		},
		"signed with nonsense": func(m, p string) answer {
			return stranger.send(n, letter{method: m, path: p, headers: map[string]string{"Signature": "x"}})
		},
	}
	paths := []string{
		"/lists/%s/outbox", "/lists/%s/outbox/0", "/lists/%s/outbox/1", "/lists/%s/outbox/2", "/lists/%s/outbox/99", "/lists/%s/outbox/-1",
		"/lists/%s/log", "/lists/%s/log/0", "/lists/%s/log/1", "/lists/%s/log/2", "/lists/%s/log/99", "/lists/%s/log/x", "/lists/%s/head",
		"/lists/%s/followers", "/lists/%s/followers/1", "/lists/%s/inbox", "/lists/%s/", "/lists/%s/log/", "/lists//%s/log/0", "/lists/%s/log/0?page=true",
	}
	same := func(t *testing.T, what string, got, want answer) {
		t.Helper()
		if got.code != want.code || !maps.EqualFunc(got.header, want.header, func(a, b []string) bool { return reflect.DeepEqual(a, b) }) || got.body != want.body {
			t.Errorf("%s:\n%+v\nfor what is not there:\n%+v", what, got, want)
		}
	}
	id := func(s hashlist.Statement) string { return strings.TrimPrefix(s.ID, n.origin) }
	other := id(item)[:len(id(item))-3] + "abc"
	for name, ask := range callers {
		t.Run(name, func(t *testing.T) {
			for _, method := range []string{"GET", "HEAD", "POST", "OPTIONS", "DELETE"} {
				if method != "GET" && method != "HEAD" && name != "unsigned" {
					continue
				}
				for _, path := range paths {
					want := ask(method, fmt.Sprintf(path, "nobody"))
					for _, list := range []string{"secret", "inner1"} {
						got := ask(method, fmt.Sprintf(path, list))
						got.body = strings.ReplaceAll(got.body, list, "nobody")
						for _, v := range got.header {
							v[0] = strings.ReplaceAll(v[0], list, "nobody")
						}
						same(t, method+" "+fmt.Sprintf(path, list), got, want)
					}
				}
				want := ask(method, other)
				same(t, method+" a statement", ask(method, id(item)), want)
				same(t, method+" a statement of a local list", ask(method, id(hidden)), want)
				// A list that is kept to this node is not there at all.
				for _, p := range []string{"/lists/%s", "/.well-known/webfinger?resource=acct:%s@" + n.addr, "/.well-known/webfinger?resource=" + n.origin + "/lists/%s", "/labels/%s"} {
					same(t, method+" "+p, ask(method, fmt.Sprintf(p, "inner1")), ask(method, fmt.Sprintf(p, "nobody")))
				}
			}
		})
	}
	t.Run("one who may", func(t *testing.T) {
		for _, p := range []string{"/lists/secret/outbox", "/lists/secret/outbox/2", "/lists/secret/log", "/lists/secret/log/0", "/lists/secret/head", id(item)} {
			for _, method := range []string{"GET", "HEAD"} {
				if got := friend.send(n, letter{method: method, path: p}); got.code != 200 || got.header.Get("Cache-Control") != "private, no-store" || (got.body == "") != (method == "HEAD") {
					t.Errorf("%s %s: %+v", method, p, got)
				}
			}
		}
		same(t, "another list", friend.get(n, "/lists/toldto/log/0"), friend.get(n, "/lists/nobody/log/0"))
		same(t, "a local list", friend.get(n, "/lists/inner1/log/0"), friend.get(n, "/lists/nobody/log/0"))
	})
	t.Run("Follow", func(t *testing.T) {
		a, _ := stranger.follow(n, inner)
		b, _ := stranger.follow(n, nothing)
		same(t, "of a local list", a, b)
		if f, err := n.Followers(inner); err != nil || len(f) != 0 {
			t.Errorf("%+v, %v", f, err)
		}
	})
	t.Run("witness", func(t *testing.T) {
		// The shape of a head is easily made; who has not read the list cannot have a signed one.
		show := func(a *attacker, list string) answer {
			_, host, _ := strings.Cut(list, "://")
			text := host + "\n2\n" + strings.Repeat("A", 43) + "=\n\n— " + host + " AAAA\n"
			return a.send(n, letter{path: "/witness", body: []byte(text), media: "text/plain"})
		}
		want := show(stranger, nothing)
		if want.code != 404 {
			t.Errorf("%+v", want)
		}
		for _, a := range []*attacker{stranger, waiting, rejected, left, elsewhere} {
			same(t, "a restricted list", show(a, secret), want)
			same(t, "a local list", show(a, inner), want)
		}
		if got := show(friend, secret); got.code != 200 || !strings.Contains(got.body, "\n2\n") {
			t.Errorf("%+v", got)
		}
	})
	t.Run("removed between two pages", func(t *testing.T) {
		if got := friend.get(n, "/lists/secret/log/0"); got.code != 200 {
			t.Fatalf("%+v", got)
		}
		pushes := func() (all int) {
			for _, b := range friend.posted() {
				if strings.Contains(string(b), `"Announce"`) {
					all++
				}
			}
			return all
		}
		n.ban(secret, pdq(t, 4))
		until(t, "the last push", func() bool { return pushes() == 1 })
		if _, err := n.Decide(t.Context(), secret, reader, false); err != nil {
			t.Fatal(err)
		}
		same(t, "the next page", friend.get(n, "/lists/secret/log/1"), friend.get(n, "/lists/nobody/log/1"))
		same(t, "the head", friend.get(n, "/lists/secret/head"), friend.get(n, "/lists/nobody/head"))
		same(t, "a statement", friend.get(n, id(item)), friend.get(n, other))
		n.ban(secret, pdq(t, 5))
		until(t, "the follower hears of it", func() bool {
			f, err := n.Followers(secret)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range f {
				if f.Actor == reader {
					return f.State == federation.FollowerRejected && f.Told
				}
			}
			return false
		})
		if pushes() != 1 {
			t.Errorf("%d pushes to one who was removed", pushes()-1)
		}
		if got := friend.posted(); !strings.Contains(string(got[len(got)-1]), `"Reject"`) {
			t.Errorf("the last thing it was told: %s", got[len(got)-1])
		}
	})
	if http.StatusText(n.get(t, "/actor")) != "OK" {
		t.Error("the node's actor is not shown to strangers")
	}
}

func (n *node) get(t *testing.T, path string) int {
	res, err := plain.Get(n.origin + path)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	return res.StatusCode
}
