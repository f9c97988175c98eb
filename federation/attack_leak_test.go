package federation_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// TestAttackLeaks: when a node has stopped, nothing of it runs on, whatever it was in the middle of.
func TestAttackLeaks(t *testing.T) {
	good := newAttacker(t) // which stays up, and would keep a connection open
	current := goleak.IgnoreCurrent()
	n := newNode(t)
	list := n.define("open", hashlist.Public)
	b, silent := newBad(t), newAttacker(t)
	b.add(b.ban(pdq(t, 901)))
	b.followed(n)
	reached(t, n, b.list, 2)
	delivering := silent.hung("/actor/inbox")
	silent.follow(n, list)
	good.follow(n, list)
	<-delivering
	reading := b.hung("/lists/bad/log/2")
	b.push(n, b.rawPage(2, []any{}, "", true))
	<-reading
	asking := silent.hung("/slow")
	ctx, cancel := context.WithCancel(t.Context())
	var requests sync.WaitGroup
	r := silent.build(n, letter{method: "GET", path: "/lists/open/head", keyID: silent.origin + "/slow#k"}).WithContext(ctx)
	requests.Go(func() {
		if res, err := plain.Do(r); err == nil {
			res.Body.Close()
		}
	})
	<-asking
	n.ban(list, pdq(t, 902))
	until(t, "the news is out", func() bool { return len(good.posted()) == 2 })
	cancel()
	for _, a := range []*attacker{silent, b.attacker} {
		a.close()
	}
	n.stop()
	requests.Wait()
	if err := goleak.Find(current); err != nil {
		t.Error(err)
	}
}

// TestAttackAllAtOnce: everything at the same time, for the race detector and for locks taken in different orders.
func TestAttackAllAtOnce(t *testing.T) {
	n, m := newNode(t), newNode(t)
	list := n.define("open", hashlist.Public)
	befriend(t, n, m, list)
	b := newBad(t)
	s := b.followed(n)
	for i := range 20 {
		b.items = append(b.items, b.ban(pdq(t, 910+i)))
	}
	b.serveLog()
	var all sync.WaitGroup
	each := func(times int, f func(i int)) {
		all.Go(func() {
			for i := range times {
				f(i)
			}
		})
	}
	ctx := t.Context()
	followers := make([]*attacker, 3)
	for i := range followers {
		followers[i] = newAttacker(t)
		a := followers[i]
		each(15, func(i int) {
			inbox := fmt.Sprintf("/inboxes/%d", i%3)
			a.page(inbox, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader([]int{202, 500, 410}[i%3]) })
			a.document("/actor", with(a.actor("/actor"), object{"inbox": a.origin + inbox}))
			n.AgeKeys(0)
			_, f := a.follow(n, list)
			a.get(n, "/lists/open/log/0")
			if i%2 == 0 {
				a.send(n, letter{body: encode(t, a.activity("Undo", a.origin+"/actor", f))})
			}
		})
		each(15, func(i int) { n.Decide(ctx, list, a.origin+"/actor", i%2 == 0) })
	}
	each(20, func(i int) { b.push(n, b.pageOf(i, i+1, b.head(i+1), true)) })
	each(20, func(i int) { b.accept(n, s.ID) })
	each(10, func(i int) { n.ban(list, pdq(t, 940+i)) })
	each(10, func(i int) {
		n.Follows()
		n.PeerStatuses()
		n.Outbox(ctx)
		n.Followers("")
		n.Counters()
	})
	each(4, func(i int) { n.Verify(ctx, b.list, []string{m.origin}) })
	each(4, func(i int) { m.Verify(ctx, list, []string{n.origin}) })
	each(4, func(i int) { n.Inspect(ctx, b.list) })
	all.Wait()
	until(t, "all of the list is there", func() bool { b.accept(n, s.ID); return statusOf(t, n, b.list).Position == 21 })
	until(t, "the follower has all", func() bool { return m.verdict(pdq(t, 949)) == hashlist.VerdictReject })
}
