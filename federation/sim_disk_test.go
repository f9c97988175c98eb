package federation_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// Whichever of a follower's writes fails, before or after it was stored, and
// whether the follower lives on or dies of it: it goes on by itself, and what
// it has stands up to being verified.
func TestSimulationFailingDisk(t *testing.T) {
	for _, what := range []string{"a ban", "a statement by a replaced key"} {
		for _, dies := range []bool{false, true} {
			for _, storeFirst := range []bool{false, true} {
				for write := range int64(4) {
					t.Run(fmt.Sprintf("%s, write %d, dies %v, stored %v", what, write, dies, storeFirst), func(t *testing.T) {
						inBubble(t, func(t *testing.T, net *simNet) { failWrite(t, net, what == "a ban", dies, storeFirst, write) })
					})
				}
			}
		}
	}
}

func failWrite(t *testing.T, net *simNet, counts, dies, storeFirst bool, write int64) {
	a, b := net.add(1), net.add(2)
	var left atomic.Int64
	left.Store(-1)
	b.fate = func() (bool, bool) {
		if left.Add(-1) != 0 {
			return false, false
		}
		if life := b.living(); dies && life != nil {
			defer life.store.cut.Store(true)
		}
		return true, storeFirst
	}
	mustStart(t, a, b)
	list := a.list("refused")
	a.define(list, "a list", hashlist.Followers)
	simFollow(t, a, b, list)
	if !counts {
		public, _, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.living().RotateIssuerKey(t.Context(), a.issuer.Actor(), public, nil, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	pause(t.Context(), time.Minute)
	left.Store(write + 1)
	a.ban(list, pdq(t, 1))
	pause(t.Context(), 2*time.Second)
	if dies {
		b.stop(true, true)
		left.Store(-1)
		mustStart(t, b)
	}
	simWait(t, "it has all", 20*time.Minute, func() bool { return b.follow(list).Position == 2 && b.follow(list).Trouble == "" })
	if (a.fold() == b.fold()) != counts {
		t.Errorf("the folds are\n%s\nand\n%s", a.fold(), b.fold())
	}
	v, err := b.living().Verify(context.Background(), list, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range v.Checks {
		if !c.Passed {
			t.Errorf("%s: %s", c.Name, c.Detail)
		}
	}
}
