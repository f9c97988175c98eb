package hashlist

import "testing"

// A list of another node that is defined wide neither matches beyond the default nor slows down lookups; an own one
// does as it says.
func TestForeignRadii(t *testing.T) {
	for _, c := range []struct {
		who   string
		given uint8
		want  int
	}{{"a", 63, 31}, {"a", 31, 31}, {"a", 7, 7}, {"me", 63, 63}} {
		w := newTown(t, nil, "a")
		w.vouch("a", MostBelief)
		s := w.statement(c.who, "ban", DefineList)
		s.Definition = &Definition{Name: "ban", Audience: Public, Action: Reject, Radii: Radii{PDQ: c.given, PHash: 16, DHash: 16}}
		w.say(s)
		w.ban(c.who, hashAt(t, PDQ))
		for distance := range 64 {
			q := Query{Lists: []string{w.list(c.who, "ban")}, Probes: []Probe{{Hash: hashAt(t, PDQ, first(distance)...)}}}
			if found, want := len(w.l.Lookup(q).Matches) > 0, distance <= c.want; found != want {
				t.Errorf("%s defines %d: a match at %d is %v, want %v", c.who, c.given, distance, found, want)
			}
		}
		if r := w.l.fold.radius[PDQ]; r != max(c.want, int(DefaultRadii[PDQ])) {
			t.Errorf("%s defines %d: lookups search %d bits", c.who, c.given, r)
		}
		if r := w.l.radiiOf(w.list(c.who, "ban")); int(r[PDQ]) != c.want {
			t.Errorf("%s defines %d: the recent window is searched by %d bits", c.who, c.given, r[PDQ])
		}
	}
}
