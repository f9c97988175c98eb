package federation_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// hung is a page that never answers, until its test ends.
func (a *attacker) hung(path string) (asked <-chan struct{}) {
	arrived := make(chan struct{}, 1000)
	a.page(path, func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		select {
		case <-a.done:
		case <-r.Context().Done():
		}
	})
	return arrived
}

// TestAttackSlowKey: a server that does not answer when it is asked for a key takes no
// place from others, whose requests are answered meanwhile.
func TestAttackSlowKey(t *testing.T) {
	n := newNode(t)
	list := n.define("secret", hashlist.Followers)
	friend, mallory := newAttacker(t), newAttacker(t)
	friend.follow(n, list)
	if _, err := n.Decide(t.Context(), list, friend.origin+"/actor", true); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	var mu sync.Mutex
	codes := map[int]int{}
	asked := mallory.hung("/slow")
	for i := range 400 {
		r := mallory.build(n, letter{body: encode(t, mallory.activity("Follow", mallory.origin+"/actor", list)), keyID: fmt.Sprintf("%s/slow#%d", mallory.origin, i)}).WithContext(ctx)
		all.Go(func() {
			res, err := plain.Do(r)
			if err != nil {
				return
			}
			res.Body.Close()
			mu.Lock()
			defer mu.Unlock()
			codes[res.StatusCode]++
		})
	}
	<-asked
	begin := time.Now()
	until(t, "those that found no place are told so", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return codes[429]+codes[503] >= 350
	})
	if n.get(t, "/actor") != 200 {
		t.Error("the actor is not served")
	}
	if got := friend.get(n, "/lists/secret/log/0"); got.code != 200 {
		t.Errorf("a follower is answered: %+v", got)
	}
	if got := friend.send(n, letter{body: encode(t, friend.activity("Like", friend.origin+"/actor", list))}); got.code != 202 {
		t.Errorf("a follower's activity: %+v", got)
	}
	// And somebody who was not met before.
	stranger := newAttacker(t)
	if got, _ := stranger.follow(n, list); got.code != 202 {
		t.Errorf("a new follower: %+v", got)
	}
	if took := time.Since(begin); took > 8*time.Second {
		t.Errorf("others were held up for %v", took) // until the fetches had timed out
	}
}

// TestAttackPace: a flood in the name of another server does not keep that server out, and does not have
// this node fetch from it without end.
func TestAttackPace(t *testing.T) {
	n := newNode(t)
	list := n.define("secret", hashlist.Followers)
	friend, mallory := newAttacker(t), newAttacker(t)
	friend.follow(n, list)
	if _, err := n.Decide(t.Context(), list, friend.origin+"/actor", true); err != nil {
		t.Fatal(err)
	}
	fetched := func() int {
		friend.mu.Lock()
		defer friend.mu.Unlock()
		all := 0
		for of, times := range friend.asked {
			if strings.HasPrefix(of, "GET ") {
				all += times
			}
		}
		return all
	}
	before := fetched()
	for i := range 1200 {
		keyID := friend.origin + "/actor#main-key"
		if i%2 == 0 {
			keyID = fmt.Sprintf("%s/made-up-%d#main-key", friend.origin, i)
		}
		r := mallory.build(n, letter{method: "GET", path: "/lists/secret/head", unsigned: true})
		r.Header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
		r.Header.Set("Signature", `keyId="`+keyID+`",algorithm="rsa-sha256",headers="(request-target) host date",signature="AAAA"`)
		do(t, r)
	}
	if made := fetched() - before; made > 300 { // each fetch asks twice, in two schemes
		t.Errorf("%d requests to another server for 1,200 that somebody else made up", made)
	}
	if got := friend.get(n, "/lists/secret/log/0"); got.code != 200 {
		t.Errorf("the follower is kept out: %+v", got)
	}
	if got := friend.send(n, letter{body: encode(t, friend.activity("Like", friend.origin+"/actor", list))}); got.code != 202 {
		t.Errorf("the follower is kept out: %+v", got)
	}
}

// TestAttackKeyHammer: a key that cannot be had, or does not fit, is not fetched for every request.
func TestAttackKeyHammer(t *testing.T) {
	n, mallory := newNode(t), newAttacker(t)
	mallory.document("/good", mallory.actor("/good"))
	for _, key := range []string{"/missing#main-key", "/good#main-key", "/good#other-key"} {
		path, _, _ := strings.Cut(key, "#")
		before := mallory.requests("GET " + path)
		for range 40 {
			got := mallory.send(n, letter{body: encode(t, mallory.activity("Like", mallory.origin+"/good", n.origin)), keyID: mallory.origin + key, key: otherKey()})
			if got.code != 401 && got.code != 429 {
				t.Fatalf("%s: %+v", key, got)
			}
		}
		if times := mallory.requests("GET "+path) - before; times > 4 {
			t.Errorf("%s was fetched %d times", key, times)
		}
	}
	// One that is replaced is found, if a minute has passed or it was not asked for yet.
	t.Run("replaced key", func(t *testing.T) {
		m := newAttacker(t)
		if got := m.send(n, letter{body: encode(t, m.activity("Like", m.origin+"/actor", n.origin))}); got.code != 202 {
			t.Fatalf("%+v", got)
		}
		n.AgeKeys(2 * time.Minute)
		m.document("/actor", with(m.actor("/actor"), object{"publicKey": object{"id": m.origin + "/actor#main-key", "owner": m.origin + "/actor", "publicKeyPem": pemOf(otherKey())}}))
		if got := m.send(n, letter{body: encode(t, m.activity("Like", m.origin+"/actor", n.origin)), key: otherKey()}); got.code != 202 {
			t.Errorf("%+v", got)
		}
		if got := m.send(n, letter{body: encode(t, m.activity("Like", m.origin+"/actor", n.origin))}); got.code != 401 {
			t.Errorf("the old key: %+v", got)
		}
	})
}

// TestAttackMemory: what is remembered of a key does not grow with the document it stands in.
func TestAttackMemory(t *testing.T) {
	n, mallory := newNode(t), newAttacker(t)
	pad := strings.Repeat("x", 50_000)
	for i := range 50 {
		path := fmt.Sprintf("/users/%d", i)
		mallory.document(path, with(mallory.actor(path), object{"summary": pad, "x": pad[:9000]}))
		body := encode(t, mallory.activity("Like", mallory.origin+path, n.origin))
		if got := mallory.send(n, letter{body: body, keyID: mallory.origin + path + "#main-key"}); got.code != 202 {
			t.Fatalf("%+v", got)
		}
	}
	if keys, size := n.Signers(); keys != 50 || size > 50*2048 {
		t.Errorf("%d keys of strangers take %d bytes", keys, size)
	}
}
