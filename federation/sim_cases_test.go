package federation_test

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
)

// inBubble runs a small simulation under a clock of its own. It fails if one of
// its nodes leaves a goroutine behind.
func inBubble(t *testing.T, run func(t *testing.T, net *simNet)) {
	simKeys() // outside: it takes long
	synctest.Test(t, func(t *testing.T) {
		net := newSimNet(1, func(what string) { t.Errorf("a contract was broken: %s", what) })
		defer func() {
			for _, all := range net.hosts {
				for _, s := range all {
					s.stop(false, false)
				}
			}
			net.running.Wait()
		}()
		run(t, net)
	})
}

// simFollow has b follow a list of a, and a approve it.
func simFollow(t *testing.T, a, b *simNode, list string) {
	t.Helper()
	if _, err := b.living().Follow(t.Context(), list, hashlist.VerdictReject); err != nil {
		t.Fatal(err)
	}
	simWait(t, "the publisher hears of it", time.Minute, func() bool { return a.follower(list, b) != 0 })
	if _, err := a.living().Decide(t.Context(), list, b.origin+"/actor", true); err != nil {
		t.Fatal(err)
	}
	simWait(t, "the follow is accepted", time.Minute, func() bool { return b.follow(list).State == federation.FollowAccepted })
}

// follower returns how another node stands to a list of s, 0 for not at all.
func (s *simNode) follower(list string, other *simNode) federation.FollowerState {
	l := s.living()
	if l == nil {
		return 0
	}
	all, _ := l.Followers(list)
	for _, f := range all {
		if f.Actor == other.origin+"/actor" {
			return f.State
		}
	}
	return 0
}

// simHold takes the first request that is meant, and delivers it when it is let
// go, when its sender has long given up.
func simHold(net *simNet, from *simNode, text string, after time.Duration) {
	held := false
	net.mu.Lock()
	defer net.mu.Unlock()
	net.meddle = func(sender, _ *simNode, r *http.Request, body []byte, f *simFate) {
		if !held && sender == from && r.Method == http.MethodPost && bytes.Contains(body, []byte(text)) {
			held = true
			f.out = after
		}
	}
}

// A follower is off for weeks, so long that its publisher gives it up; what it then finds is
// all there is, and the next ban is pushed to it again.
func TestSimulationLongAbsence(t *testing.T) {
	inBubble(t, func(t *testing.T, net *simNet) {
		a, b := net.add(1), net.add(2)
		mustStart(t, a, b)
		list := a.list("refused")
		a.define(list, "a list", hashlist.Followers)
		early, _ := a.ban(list, pdq(t, 1))
		simFollow(t, a, b, list)
		b.stop(false, false)
		a.ban(list, pdq(t, 2))
		a.say(hashlist.Statement{Kind: hashlist.Retraction, List: list, Retracts: early.ID})
		pause(t.Context(), 22*24*time.Hour)
		if p := a.living().PeerStatuses(); len(p) != 1 || !p[0].Retired {
			t.Errorf("after three weeks: %+v", p)
		}
		a.ban(list, pdq(t, 3))
		a.stop(false, false)
		mustStart(t, a, b)
		took := simWait(t, "it has all", time.Minute, func() bool { return b.fold() == a.fold() })
		t.Logf("caught up in %v", took)
		a.ban(list, pdq(t, 4))
		if took := simWait(t, "it is pushed to again", 20*time.Minute, func() bool { return b.fold() == a.fold() }); took > 10*time.Second {
			t.Errorf("a push took %v", took)
		}
		if p := a.living().PeerStatuses(); len(p) != 1 || p[0].Retired || p[0].Failures > 0 {
			t.Errorf("when it is back: %+v", p)
		}
	})
}

// A node whose clock is wrong by more than signatures live is shut out by all, and takes part
// again by itself once its clock is right.
func TestSimulationWrongClock(t *testing.T) {
	for name, skew := range map[string]time.Duration{"ahead": 2 * time.Hour, "ahead when started": 2 * time.Hour, "behind": -2 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, net *simNet) {
				a, b := net.add(1), net.add(2)
				mustStart(t, a, b)
				theirs, ours := a.list("theirs"), b.list("ours")
				a.define(theirs, "a list", hashlist.Followers)
				b.define(ours, "another", hashlist.Followers)
				simFollow(t, a, b, theirs)
				simFollow(t, b, a, ours)
				pause(t.Context(), time.Minute)
				b.skew.Store(int64(skew))
				if name == "ahead when started" {
					b.stop(false, false)
					mustStart(t, b)
				}
				pause(t.Context(), time.Minute)
				a.ban(theirs, pdq(t, 1))
				b.ban(ours, pdq(t, 2))
				pause(t.Context(), time.Hour)
				if a.fold() == b.fold() {
					t.Fatal("the clocks change nothing: the test tests nothing")
				}
				b.skew.Store(0)
				took := simWait(t, "both have all", time.Hour, func() bool { return a.fold() == b.fold() })
				t.Logf("after %v", took)
				pause(t.Context(), 15*time.Minute)
				a.ban(theirs, pdq(t, 3))
				if took := simWait(t, "it is pushed to", time.Hour, func() bool { return a.fold() == b.fold() }); took > 10*time.Second {
					t.Errorf("a push took %v", took)
				}
			})
		})
	}
}

// simBack has the first answer to a request that is meant come so much later.
func simBack(net *simNet, from *simNode, text string, after time.Duration) {
	held := false
	net.mu.Lock()
	defer net.mu.Unlock()
	net.meddle = func(sender, _ *simNode, r *http.Request, body []byte, f *simFate) {
		if !held && sender == from && r.Method == http.MethodPost && bytes.Contains(body, []byte(text)) {
			held = true
			f.back = after
		}
	}
}

// Somebody changes their mind while what they decided before is on its way.
func TestSimulationChangeOfMind(t *testing.T) {
	for _, slow := range []string{`"Follow"`, `"Undo"`} {
		t.Run(slow, func(t *testing.T) {
			inBubble(t, func(t *testing.T, net *simNet) {
				a, b := net.add(1), net.add(2)
				mustStart(t, a, b)
				list := a.list("shown")
				a.define(list, "a list", hashlist.Public)
				decide := func(want federation.FollowerState, steps ...func(context.Context, string) error) {
					simBack(net, b, slow, 20*time.Second)
					for _, step := range steps {
						if err := step(t.Context(), list); err != nil {
							t.Fatal(err)
						}
						pause(t.Context(), 2*time.Second)
					}
					pause(t.Context(), 10*time.Minute)
					if state := a.follower(list, b); state != want {
						t.Errorf("the publisher has the follower in state %d, not %d", state, want)
					}
				}
				decide(federation.FollowerLeft, b.ask, b.leave)
				decide(federation.FollowerApproved, b.ask, b.leave, b.ask)
				if f := b.follow(list); f.State != federation.FollowAccepted {
					t.Errorf("the follow is in state %d", f.State)
				}
			})
		})
	}
}

func (s *simNode) ask(ctx context.Context, list string) error {
	_, err := s.living().Follow(ctx, list, hashlist.VerdictReject)
	return err
}

func (s *simNode) leave(ctx context.Context, list string) error {
	_, err := s.living().Unfollow(ctx, list)
	return err
}

// A list that grows while it is read is not in trouble: that its publisher holds
// statements back is not said unless it does.
func TestSimulationGrowth(t *testing.T) {
	inBubble(t, func(t *testing.T, net *simNet) {
		a, b := net.add(1), net.add(2)
		mustStart(t, a, b)
		list := a.list("refused")
		a.define(list, "a list", hashlist.Followers)
		simFollow(t, a, b, list)
		pause(t.Context(), time.Minute)
		reading := make(chan struct{})
		net.mu.Lock()
		gets, pushes := 0, 0
		net.meddle = func(sender, _ *simNode, r *http.Request, _ []byte, f *simFate) {
			switch {
			case sender == b && r.Method == http.MethodGet:
				if gets++; gets == 1 {
					f.back = 5 * time.Second
					close(reading)
				}
			case sender == a && r.Method == http.MethodPost:
				if pushes++; pushes > 1 {
					f.out = 20 * time.Second
				}
			}
		}
		net.mu.Unlock()
		<-reading
		pause(t.Context(), time.Second)
		var all []hashlist.Record
		for i := range 150 { // more than one push tells of
			r, err := a.issuer.Seal(hashlist.Statement{
				Kind: hashlist.AddHashes, List: list, Hashes: []hashlist.Hash{pdq(t, i)}, Published: a.now().UTC().Truncate(time.Second),
			})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, r)
		}
		if _, err := a.living().lists.Apply(t.Context(), all...); err != nil {
			t.Fatal(err)
		}
		for range 2000 {
			if f := b.follow(list); f.Trouble != "" {
				t.Fatalf("with %d statements: %s", f.Position, f.Trouble)
			}
			pause(t.Context(), 10*time.Millisecond)
		}
		if f := b.follow(list); f.Position != 151 {
			t.Errorf("%d statements have come", f.Position)
		}
	})
}

// What a publisher decided last is what counts, also if an earlier answer of it
// is so late that it comes last.
func TestSimulationLateRefusal(t *testing.T) {
	inBubble(t, func(t *testing.T, net *simNet) {
		a, b := net.add(1), net.add(2)
		mustStart(t, a, b)
		list := a.list("refused")
		a.define(list, "a list", hashlist.Followers)
		simFollow(t, a, b, list)
		simHold(net, a, `"Reject"`, 3*time.Minute)
		for _, approve := range []bool{false, true} {
			if _, err := a.living().Decide(t.Context(), list, b.origin+"/actor", approve); err != nil {
				t.Fatal(err)
			}
			pause(t.Context(), time.Second)
		}
		pause(t.Context(), 5*time.Minute)
		a.ban(list, pdq(t, 1))
		simWait(t, "the follower follows", 30*time.Minute, func() bool { return b.fold() == a.fold() })
	})
}

func TestSimulationLateApproval(t *testing.T) {
	inBubble(t, func(t *testing.T, net *simNet) {
		a, b := net.add(1), net.add(2)
		mustStart(t, a, b)
		list := a.list("refused")
		a.define(list, "a list", hashlist.Followers)
		if err := b.ask(t.Context(), list); err != nil {
			t.Fatal(err)
		}
		pause(t.Context(), time.Second)
		simHold(net, a, `"Accept"`, 3*time.Minute)
		for _, approve := range []bool{true, false} {
			if _, err := a.living().Decide(t.Context(), list, b.origin+"/actor", approve); err != nil {
				t.Fatal(err)
			}
			pause(t.Context(), time.Second)
		}
		pause(t.Context(), 10*time.Minute)
		if f := b.follow(list); f.State != federation.FollowRefused {
			t.Errorf("the follow is in state %d: %s", f.State, f.Trouble)
		}
	})
}

// What a follower asked for last is what counts, also if an earlier request of
// it is so late that it comes last.
func TestSimulationLateFollow(t *testing.T) {
	t.Run("after it was undone", func(t *testing.T) {
		inBubble(t, func(t *testing.T, net *simNet) {
			a, b := net.add(1), net.add(2)
			mustStart(t, a, b)
			list := a.list("shown")
			a.define(list, "a list", hashlist.Public)
			simHold(net, b, `"Follow"`, 2*time.Minute)
			if _, err := b.living().Follow(t.Context(), list, hashlist.VerdictReject); err != nil {
				t.Fatal(err)
			}
			pause(t.Context(), time.Second)
			if _, err := b.living().Unfollow(t.Context(), list); err != nil {
				t.Fatal(err)
			}
			pause(t.Context(), 10*time.Minute)
			if state := a.follower(list, b); state != federation.FollowerLeft {
				t.Errorf("the publisher has it in state %d", state)
			}
		})
	})
	t.Run("after it was asked anew, and refused", func(t *testing.T) {
		inBubble(t, func(t *testing.T, net *simNet) {
			a, b := net.add(1), net.add(2)
			mustStart(t, a, b)
			list := a.list("refused")
			a.define(list, "a list", hashlist.Followers)
			simHold(net, b, `"Follow"`, 2*time.Minute)
			for _, step := range []func(context.Context, string) error{b.ask, b.leave, b.ask} {
				if err := step(t.Context(), list); err != nil {
					t.Fatal(err)
				}
				pause(t.Context(), time.Second)
			}
			pause(t.Context(), 10*time.Minute)
			for _, approve := range []bool{false, true, false} {
				if _, err := a.living().Decide(t.Context(), list, b.origin+"/actor", approve); err != nil {
					t.Fatal(err)
				}
				pause(t.Context(), time.Minute)
				want := map[bool]federation.FollowState{true: federation.FollowAccepted, false: federation.FollowRefused}[approve]
				if f := b.follow(list); f.State != want {
					t.Errorf("the follow is in state %d, not %d", f.State, want)
				}
			}
		})
	})
	t.Run("after it was asked anew", func(t *testing.T) {
		inBubble(t, func(t *testing.T, net *simNet) {
			a, b := net.add(1), net.add(2)
			mustStart(t, a, b)
			list := a.list("shown")
			a.define(list, "a list", hashlist.Public)
			simHold(net, b, `"Follow"`, 2*time.Minute)
			for range 2 {
				if _, err := b.living().Follow(t.Context(), list, hashlist.VerdictReject); err != nil {
					t.Fatal(err)
				}
				pause(t.Context(), time.Second)
				if _, err := b.living().Unfollow(t.Context(), list); err != nil {
					t.Fatal(err)
				}
				pause(t.Context(), time.Second)
			}
			if _, err := b.living().Follow(t.Context(), list, hashlist.VerdictReject); err != nil {
				t.Fatal(err)
			}
			pause(t.Context(), 10*time.Minute)
			if f := b.follow(list); f.State != federation.FollowAccepted {
				t.Fatalf("the follow is in state %d", f.State)
			}
			if _, err := b.living().Unfollow(t.Context(), list); err != nil {
				t.Fatal(err)
			}
			pause(t.Context(), 10*time.Minute)
			if state := a.follower(list, b); state != federation.FollowerLeft {
				t.Errorf("the publisher has it in state %d", state)
			}
		})
	})
}

// A publisher that shows some of its followers a list without one of its
// statements is found out by any two of them who see different ones and compare heads, and
// what they found stays until somebody has dealt with it.
func TestSimulationLiar(t *testing.T) {
	liars := func(t *testing.T, net *simNet) (list string, faces []*simNode) {
		for range 2 {
			faces = append(faces, net.add(10))
		}
		mustStart(t, faces...)
		list = faces[0].list("refused")
		face := func(v hashlist.Statement, which ...*simNode) {
			v.Published = faces[0].now().UTC().Truncate(time.Second)
			r, err := faces[0].issuer.Seal(v)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range which {
				f.apply(r)
			}
		}
		face(hashlist.Statement{Kind: hashlist.DefineList, List: list, Definition: &hashlist.Definition{
			Name: "refused", Audience: hashlist.Public, Action: hashlist.Reject, Radii: hashlist.DefaultRadii,
		}}, faces...)
		for i := range 5 {
			which := faces
			if i == 2 {
				which = faces[:1] // the one that is kept from the others
			}
			face(hashlist.Statement{Kind: hashlist.AddHashes, List: list, Hashes: []hashlist.Hash{pdq(t, i)}}, which...)
		}
		return list, faces
	}
	// Who has the shorter history cannot see in the other head that it is another one, but that it was kept from something.
	told := func(s *simNode, list string) bool {
		trouble := s.follow(list).Trouble
		return strings.Contains(trouble, "another history") || strings.Contains(trouble, "holds some back")
	}

	t.Run("by verify", func(t *testing.T) {
		inBubble(t, func(t *testing.T, net *simNet) {
			list, _ := liars(t, net)
			b, c := net.add(2), net.add(3)
			mustStart(t, b, c)
			for _, s := range []*simNode{b, c} {
				if _, err := s.living().Follow(t.Context(), list, hashlist.VerdictReject); err != nil {
					t.Fatal(err)
				}
			}
			simWait(t, "both have their histories", time.Minute, func() bool {
				return b.follow(list).Position == 6 && c.follow(list).Position == 5
			})
			v, err := b.living().Verify(t.Context(), list, nil)
			if err != nil || !v.Passed() {
				t.Fatalf("alone it finds %+v, %v", v, err)
			}
			if v, err = c.living().Verify(t.Context(), list, []string{strings.TrimPrefix(b.origin, "https://")}); err != nil || v.Passed() {
				t.Fatalf("together they find nothing: %+v, %v", v, err)
			}
			pause(t.Context(), time.Second)
			for range 5 {
				if !told(b, list) || !told(c, list) {
					t.Fatalf("what is wrong is shown as %q and %q", b.follow(list).Trouble, c.follow(list).Trouble)
				}
				pause(t.Context(), 7*time.Minute)
			}
			b.stop(false, false)
			mustStart(t, b)
			pause(t.Context(), 30*time.Minute)
			if !told(b, list) {
				t.Fatalf("after a restart: %q", b.follow(list).Trouble)
			}
		})
	})
	t.Run("by themselves", func(t *testing.T) {
		inBubble(t, func(t *testing.T, net *simNet) {
			list, _ := liars(t, net)
			b, c := net.add(2), net.add(3)
			mustStart(t, b, c)
			own := b.list("own") // by which the two know each other
			b.define(own, "a list", hashlist.Public)
			for _, s := range []*simNode{b, c} {
				if _, err := s.living().Follow(t.Context(), list, hashlist.VerdictReject); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := c.living().Follow(t.Context(), own, hashlist.VerdictReject); err != nil {
				t.Fatal(err)
			}
			took := simWait(t, "it is noticed", 26*time.Hour, func() bool { return told(b, list) && told(c, list) })
			t.Logf("after %v", took)
		})
	})
}
