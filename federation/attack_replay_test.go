package federation_test

import (
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
)

// TestAttackReplay: a request is taken once, also if the node was restarted between, or its memory flushed.
func TestAttackReplay(t *testing.T) {
	n := newNode(t)
	list := n.define("secret", hashlist.Followers)
	friend := newAttacker(t)
	state := func() federation.FollowerState {
		f, err := n.Followers(list)
		if err != nil || len(f) != 1 {
			t.Fatalf("%+v, %v", f, err)
		}
		return f[0].State
	}
	first := friend.activity("Follow", friend.origin+"/actor", list)
	// An Undo that does not name the Follow is the one that could be used again after the next.
	undo := friend.activity("Undo", friend.origin+"/actor", object{"type": "Follow", "actor": friend.origin + "/actor", "object": list})
	at := time.Now()
	asks, ends := letter{body: encode(t, first), at: at}, letter{body: encode(t, undo), at: at}
	for _, l := range []letter{asks, ends} {
		if got := friend.send(n, l); got.code != 202 {
			t.Fatalf("%+v", got)
		}
	}
	friend.follow(n, list)
	if _, err := n.Decide(t.Context(), list, friend.origin+"/actor", true); err != nil {
		t.Fatal(err)
	}
	replay := func(t *testing.T) {
		for _, l := range []letter{asks, ends} {
			if got := friend.send(n, l); got.code != 401 {
				t.Errorf("a replay is answered with %d %s", got.code, got.body)
			}
		}
		if state() != federation.FollowerApproved {
			t.Errorf("after a replay the follower is in the state %d", state())
		}
	}
	t.Run("at once", replay)
	if c := n.Counters(); c.Replayed != 2 {
		t.Errorf("%d replays counted", c.Replayed)
	}
	// An attacker who sends enough pushes out what was seen.
	n.ForgetSignatures()
	t.Run("after a flood", replay)
	n.stop()
	until(t, "the second is over", func() bool { return time.Now().Unix() > at.Unix() })
	n.restart()
	t.Run("after a restart", replay)
	t.Run("fresh after a restart", func(t *testing.T) {
		end := friend.activity("Undo", friend.origin+"/actor", object{"type": "Follow", "actor": friend.origin + "/actor", "object": list})
		if got := friend.send(n, letter{body: encode(t, end), at: time.Now().Add(time.Second)}); got.code != 202 || state() != federation.FollowerLeft {
			t.Errorf("%+v, state %d", got, state())
		}
	})
	t.Run("Follow that was ended, signed anew", func(t *testing.T) {
		f, _ := n.Followers(list)
		again := with(first, object{"id": f[0].Follow})
		if got := friend.send(n, letter{body: encode(t, again), at: time.Now().Add(2 * time.Second)}); got.code != 202 || state() != federation.FollowerLeft {
			t.Errorf("%+v, state %d", got, state())
		}
	})
}
