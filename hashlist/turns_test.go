package hashlist_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// What begins or ends with time alone is news like what comes in: each case brings one about, an hour after all was said,
// in a bubble, where time passes at once.
func TestWindowHearsOfTheClock(t *testing.T) {
	alice := abroad + "/users/alice"
	const trust = home + "/lists/trust"
	hour := func() time.Time { return time.Now().UTC().Truncate(time.Second).Add(time.Hour) }
	vouch := func(w *world, amount uint8, from, expires time.Time) {
		w.say(hashlist.Statement{Kind: hashlist.DefineList, List: trust, Definition: definition("trust")})
		w.say(hashlist.Statement{Kind: hashlist.Vouch, List: trust, Expires: expires,
			Vouch: &hashlist.Vouching{Object: alice, Amount: amount, From: from}})
	}
	byTrust := func(w *world) string {
		w.lists.Heed(theirs, hashlist.VerdictReject, 0)
		return w.ban(theirs, picture(t, 1, 5))
	}
	for _, c := range []struct {
		name      string
		say       func(w *world)
		before    hashlist.Verdict
		after     hashlist.Verdict
		heeded    bool // it is of another node
		withdrawn bool // there was a hit, of which nothing is left then
	}{
		{"a vouching begins", func(w *world) {
			byTrust(w)
			vouch(w, hashlist.MostBelief, hour(), time.Time{})
		}, hashlist.VerdictAllow, hashlist.VerdictReject, true, false},
		{"a vouching for less ends before one for more", func(w *world) {
			byTrust(w)
			vouch(w, hashlist.MostBelief, time.Time{}, time.Time{})
			time.Sleep(time.Second)
			vouch(w, 1, time.Time{}, hour())
		}, hashlist.VerdictAllow, hashlist.VerdictReject, true, false},
		{"what is known to be harmless is so no more", func(w *world) {
			w.ban(refused, picture(t, 1, 5))
			w.say(hashlist.Statement{Kind: hashlist.AddHashes, List: refused, Action: hashlist.Accept, Hashes: []hashlist.Hash{picture(t, 1, 0)}, Expires: hour()})
		}, hashlist.VerdictAllow, hashlist.VerdictReject, false, false},
		{"a dispute ends", func(w *world) {
			w.lists.Heed(theirs, hashlist.VerdictReject, hashlist.MostBelief)
			ban := w.ban(theirs, picture(t, 1, 5))
			w.say(hashlist.Statement{Kind: hashlist.Dispute, List: refused, About: ban, Reason: "no", Expires: hour()})
		}, hashlist.VerdictAllow, hashlist.VerdictReject, true, false},
		{"a ban ends", func(w *world) {
			w.say(hashlist.Statement{Kind: hashlist.AddHashes, List: refused, Hashes: []hashlist.Hash{picture(t, 1, 5)}, Expires: hour()})
		}, hashlist.VerdictReject, hashlist.VerdictAllow, false, true},
	} {
		for _, restart := range []bool{false, true} {
			name := c.name
			if restart {
				if c.heeded {
					continue // what is heeded again is compared anyway
				}
				name += " while the node is down"
			}
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, func(c *hashlist.WindowConfig) { c.Durable = true })
					w.t = t
					if c.withdrawn {
						w.upload(hashlist.Reference{Post: "p"}, picture(t, 1, 0))
					}
					c.say(w)
					after := uint64(0)
					if c.withdrawn {
						after = w.hit(0).Seq
					} else if v, id := w.upload(hashlist.Reference{Post: "p"}, picture(t, 1, 0)); v != c.before || id == 0 {
						t.Fatalf("before: %v, %d", v, id)
					}
					if restart {
						synctest.Wait()
						w.close()
						time.Sleep(2 * time.Hour)
						w.reopen()
					} else {
						time.Sleep(time.Hour - 2*time.Second)
						synctest.Wait()
						if n := w.window.LastHit(); n != after {
							t.Errorf("the last hit is %d before the time, want %d", n, after)
						}
						time.Sleep(3 * time.Second)
						synctest.Wait()
						if w.window.LastHit() == after {
							t.Fatal("nothing was found although its time has come")
						}
					}
					h := w.hit(after)
					if h.Withdrawn != c.withdrawn || !c.withdrawn && h.Verdict != c.after {
						t.Errorf("%+v", h)
					}
					if !c.heeded {
						w.restart()
					}
					time.Sleep(24 * time.Hour)
					synctest.Wait()
					if n := w.window.LastHit(); n != h.Seq {
						t.Errorf("the last hit is %d, want %d: what began was told of once more", n, h.Seq)
					}
				})
			})
		}
	}
}

// What those write who are believed from a moment on is compared with the window as it is then, before it acts: when the
// vouching came nothing was remembered that it could be compared with.
func TestFloodOfWhomAVouchingBeginsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *hashlist.WindowConfig) {
			c.Keep, c.Flood = 240*time.Hour, hashlist.Flood{Uploads: 50, Share: 0.005}
		})
		w.t = t
		const trust = home + "/lists/trust"
		w.lists.Heed(theirs, hashlist.VerdictReject, 0)
		for n := range 200 {
			w.ban(theirs, picture(t, n, 4))
		}
		w.say(hashlist.Statement{Kind: hashlist.DefineList, List: trust, Definition: definition("trust")})
		w.say(hashlist.Statement{Kind: hashlist.Vouch, List: trust, Vouch: &hashlist.Vouching{
			Object: abroad + "/users/alice", Amount: hashlist.MostBelief, From: time.Now().UTC().Truncate(time.Second).Add(12 * time.Hour),
		}})
		for n := range 300 {
			w.upload(hashlist.Reference{}, picture(t, n, 0))
		}
		w.settle()
		time.Sleep(11 * time.Hour)
		if held := w.window.Quarantined(false); len(held) != 0 {
			t.Fatalf("%d statements in quarantine long before they could act", len(held))
		}
		time.Sleep(time.Hour + time.Second)
		synctest.Wait()
		if n := w.refused(200); n != 0 {
			t.Errorf("%d harmless uploads would be refused", n)
		}
		if held := w.window.Quarantined(false); len(held) != 200 {
			t.Errorf("%d statements in quarantine, want 200", len(held))
		}
		if n := len(w.hits()); n != 0 {
			t.Errorf("%d hits", n)
		}
	})
}
