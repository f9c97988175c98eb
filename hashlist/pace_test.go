package hashlist_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/store"
)

// countedStore counts how often uploads are read.
type countedStore struct {
	*store.DB
	reads *atomic.Int64
}

func (s countedStore) FindUploads(ctx context.Context, ids []uint64) ([]hashlist.UploadRow, error) {
	s.reads.Add(1)
	return s.DB.FindUploads(ctx, ids)
}

// A friend who may introduce others, and those it vouches for, by trust alone.
const (
	own     = home + "/lists/trust"
	friend  = "https://friend.example"
	friends = friend + "/lists/trust"
)

func pacedWorld(t *testing.T) *world {
	w := newWorld(t, func(c *hashlist.WindowConfig) { c.Durable = true })
	w.reads = new(atomic.Int64)
	w.heed = func(l *hashlist.Lists) {
		l.Heed(theirs, hashlist.VerdictReject, 0)
		l.Rely(friends, true)
	}
	w.restart()
	w.say(hashlist.Statement{Kind: hashlist.DefineList, List: own, Definition: definition("trust")})
	w.say(hashlist.Statement{Kind: hashlist.DefineList, List: friends, Definition: definition("trust")})
	w.vouch(own, friend+"/users/alice")
	w.ban(theirs, picture(t, 1, 5))
	if v, id := w.upload(hashlist.Reference{Post: "p"}, picture(t, 1, 0)); v != hashlist.VerdictAllow || id == 0 {
		t.Fatalf("%v, %d", v, id)
	}
	time.Sleep(time.Minute)
	synctest.Wait()
	return w
}

func (w *world) vouch(list, object string) {
	w.say(hashlist.Statement{Kind: hashlist.Vouch, List: list, Vouch: &hashlist.Vouching{Object: object, Amount: hashlist.MostBelief, Depth: 1}})
}

// Whoever is followed and goes on and on about their list, or whom they vouch for, has the window judged again every
// few seconds, the last time after all was said. What this node says itself counts at once.
func TestWindowIsJudgedAgainAtAPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := pacedWorld(t)
		w.reads.Store(0)
		for n := range 120 {
			if n%2 == 0 {
				w.vouch(friends, "https://nobody.example/users/bob")
			} else {
				w.say(hashlist.Statement{Kind: hashlist.DefineList, List: friends, Definition: definition("trust")})
			}
			time.Sleep(250 * time.Millisecond)
		}
		synctest.Wait()
		if n := w.reads.Load(); n < 2 || n > 7 {
			t.Errorf("the window was judged %d times within 30 seconds, want at most one in 5", n)
		}
		w.vouch(friends, abroad+"/users/alice") // what they vouched for before is due soon, and this with it
		if v, _ := w.upload(hashlist.Reference{Post: "q"}, picture(t, 2, 0)); v != hashlist.VerdictAllow {
			t.Errorf("%v", v)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if h := w.hit(0); h.Verdict != hashlist.VerdictReject {
			t.Errorf("%+v", h)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := pacedWorld(t)
		w.vouch(friends, "https://nobody.example/users/bob")
		w.vouch(friends, "https://nobody.example/users/eve")
		w.vouch(own, abroad+"/users/alice")
		synctest.Wait()
		if w.window.LastHit() == 0 {
			t.Error("what this node says waits for what others said")
		}
	})
}

// A node that ends before the window was judged again finds it in the log.
func TestWindowIsJudgedAgainAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := pacedWorld(t)
		w.vouch(friends, "https://nobody.example/users/bob")
		synctest.Wait()
		w.vouch(friends, abroad+"/users/alice")
		synctest.Wait()
		if n := w.window.LastHit(); n != 0 {
			t.Fatalf("hit %d came at once", n)
		}
		w.restart()
		synctest.Wait()
		if w.window.LastHit() == 0 {
			t.Error("it was lost in a restart")
		}
	})
}
