package federation_test

import (
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
)

// TestAttackFollowFlood: who asks to follow a thousand times fills neither memory nor the list of those who wait.
func TestAttackFollowFlood(t *testing.T) {
	n := newNode(t)
	secret, public := n.define("secret", hashlist.Followers), n.define("open", hashlist.Public)
	mallory := newAttacker(t)
	n.RoomOfOrigin(20)
	goroutines := runtime.NumGoroutine()
	for i := range 60 {
		path := fmt.Sprintf("/users/%d", i)
		mallory.document(path, with(mallory.actor(path), object{"inbox": mallory.origin + path + "/inbox"}))
		for _, list := range []string{secret, public} {
			mallory.send(n, letter{body: encode(t, mallory.activity("Follow", mallory.origin+path, list)), keyID: mallory.origin + path + "#main-key"})
			if list == secret && i%2 == 1 {
				f := object{"type": "Follow", "actor": mallory.origin + path, "object": list}
				mallory.send(n, letter{body: encode(t, mallory.activity("Undo", mallory.origin+path, f)), keyID: mallory.origin + path + "#main-key"})
			}
		}
	}
	count := func(list string) (waiting, approved, all int) {
		f, err := n.Followers(list)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range f {
			switch f.State {
			case federation.FollowerAsked:
				waiting++
			case federation.FollowerApproved:
				approved++
			}
		}
		return waiting, approved, len(f)
	}
	if _, _, all := count(secret); all != 5 {
		t.Errorf("%d rows of one server for a restricted list", all)
	}
	if _, approved, all := count(public); approved != 20 || all != 20 {
		t.Errorf("%d followers, %d of them approved, of one server", all, approved)
	}
	if now := runtime.NumGoroutine() - goroutines; now > 120 {
		t.Errorf("%d goroutines for one server", now)
	}
	if all := n.Outlets(); all != 20 {
		t.Errorf("%d inboxes are delivered to: those who wait have nothing to get", all)
	}
	// Others are served.
	other := newAttacker(t)
	other.follow(n, secret)
	other.follow(n, public)
	if _, approved, _ := count(public); approved == 0 {
		t.Error("nobody else was taken")
	}
	if _, err := n.Decide(t.Context(), secret, other.addr, true); err != nil {
		t.Error(err)
	}
	until(t, "it is told", func() bool { return len(other.posted()) >= 2 })
}

// TestAttackInboxChanges: a follower who moves its inbox about leaves nothing behind.
func TestAttackInboxChanges(t *testing.T) {
	n, mallory := newNode(t), newAttacker(t)
	list := n.define("open", hashlist.Public)
	for i := range 30 {
		inbox := fmt.Sprintf("%s/inboxes/%d", mallory.origin, i)
		mallory.page(fmt.Sprintf("/inboxes/%d", i), func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(202) })
		mallory.document("/actor", with(mallory.actor("/actor"), object{"inbox": inbox}))
		n.AgeKeys(25 * time.Hour)
		if got, _ := mallory.follow(n, list); got.code != 202 {
			t.Fatalf("%+v", got)
		}
		if f, err := n.Followers(list); err != nil || len(f) != 1 || f[0].Inbox != inbox {
			t.Fatalf("%+v, %v", f, err)
		}
	}
	if all := n.Outlets(); all != 1 {
		t.Errorf("%d inboxes are delivered to", all)
	}
	f := object{"type": "Follow", "actor": mallory.origin + "/actor", "object": list}
	mallory.send(n, letter{body: encode(t, mallory.activity("Undo", mallory.origin+"/actor", f))})
	if all := n.Outlets(); all != 0 {
		t.Errorf("%d inboxes are delivered to, and nobody follows", all)
	}
}

// TestAttackDelivery: inboxes that answer with anything but thanks. The one that answers well has all, at once.
func TestAttackDelivery(t *testing.T) {
	n := newNode(t)
	list := n.define("open", hashlist.Public)
	forbidden := newAttacker(t)
	answers := map[string]http.HandlerFunc{
		"endless body": func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.WriteHeader(200)
			blank := make([]byte, 1<<16)
			for {
				if _, err := w.Write(blank); err != nil {
					return
				}
			}
		},
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, forbidden.origin+"/actor/inbox", http.StatusTemporaryRedirect)
		},
		"gone": func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(410) },
		"too often": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "4294967295")
			w.WriteHeader(429)
		},
		"no HTTP": func(w http.ResponseWriter, r *http.Request) {
			c, _, _ := w.(http.Hijacker).Hijack()
			fmt.Fprint(c, "\x1b[2J\xff\xfe\r\n\r\n")
			c.Close()
		},
	}
	all := map[string]*attacker{}
	for name, h := range answers {
		a := newAttacker(t)
		a.page("/actor/inbox", h)
		all[name] = a
		a.follow(n, list)
	}
	silent := newAttacker(t)
	asked := silent.hung("/actor/inbox")
	all["never"] = silent
	silent.follow(n, list)
	good := newAttacker(t)
	good.follow(n, list)
	until(t, "the good one is told", func() bool { return len(good.posted()) == 1 })
	<-asked
	begin := time.Now()
	n.ban(list, pdq(t, 600))
	until(t, "the good one has the news", func() bool { return len(good.posted()) == 2 })
	t.Logf("with six bad inboxes, the good one had the news after %v", time.Since(begin))
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("the news took %v", took)
	}
	peers := func(name string) federation.PeerStatus {
		for _, p := range n.PeerStatuses() {
			if p.Origin == all[name].origin {
				return p
			}
		}
		t.Fatalf("%s is no peer", name)
		return federation.PeerStatus{}
	}
	for name, check := range map[string]func(federation.PeerStatus) bool{
		"redirect":  func(p federation.PeerStatus) bool { return strings.Contains(p.Trouble, "307") },
		"gone":      func(p federation.PeerStatus) bool { return p.Retired },
		"too often": func(p federation.PeerStatus) bool { return p.Failures == 1 && time.Until(p.Next) > 23*time.Hour },
		"no HTTP": func(p federation.PeerStatus) bool {
			return p.Failures > 0 && !strings.Contains(p.Trouble, "\x1b") && utf8.ValidString(p.Trouble)
		},
	} {
		until(t, name+" is noted", func() bool { return check(peers(name)) })
	}
	if got := forbidden.posted(); len(got) != 0 {
		t.Errorf("a redirect was followed: %s", got)
	}
	// A peer is back when it is heard of.
	all["gone"].page("/actor/inbox", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(202) })
	all["gone"].get(n, "/lists/open/head")
	until(t, "it is taken up again", func() bool { p := peers("gone"); return !p.Retired && p.Failures == 0 })
}
