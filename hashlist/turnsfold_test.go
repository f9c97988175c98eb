package hashlist

import (
	"slices"
	"testing"
	"time"
)

// A clock that was set back has what lies between come up once more, and nothing is told of twice otherwise.
func TestTurnsByAClockThatIsSet(t *testing.T) {
	f := newFold()
	f.own, f.looked = "https://own.example", epoch.Unix()
	v := vouching(person("A"), person("x"), 40, 0, 1)
	v.Vouch.From, v.Expires = epoch.Add(100*time.Second), epoch.Add(300*time.Second)
	gone := vouching(person("y"), person("x"), 40, 0, 2)
	gone.Vouch.From = epoch.Add(100 * time.Second)
	mergeAll(t, f, v, gone)
	f.rely(gone.List, false) // counts for nothing
	n := f.byID[v.ID]
	for _, c := range []struct {
		at           int
		turned, soon bool
	}{
		{69, false, false}, {70, false, true}, {99, false, false}, {100, true, false}, {101, false, false},
		{1000, true, true}, {90, false, false}, {100, true, false}, {50, false, false}, {99, false, true}, {270, true, true}, {300, true, false}, {301, false, false},
	} {
		turned, soon := f.turn(epoch.Unix() + int64(c.at))
		if slices.Contains(turned, n) != c.turned || slices.Contains(soon, n) != c.soon || len(turned)+len(soon) > 2 {
			t.Errorf("at %d: %v, %v", c.at, turned, soon)
		}
	}
}
