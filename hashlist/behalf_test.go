package hashlist

import "testing"

// TestOnBehalf: a list that is kept for a source acts as far as it is heeded, although
// this node's issuer signs it, and lifts nothing of the node's own lists.
func TestOnBehalf(t *testing.T) {
	h, file := hashAt(t, PDQ), hashAt(t, SHA256)
	for _, c := range []struct {
		name       string
		most       Verdict // of the source's lists
		statements []Statement
		want       Verdict
		matches    int
	}{
		{"a source that nothing was said of", 0, []Statement{add("source", h)}, VerdictAllow, 0},
		{"a source that is heeded to flag", VerdictFlag, []Statement{add("source", h)}, VerdictFlag, 1},
		{"a source that is heeded fully", VerdictReject, []Statement{add("source", h)}, VerdictReject, 1},
		{"own ban above the source's harmless", VerdictReject, []Statement{add("ban", h), add("harmless-there", h)}, VerdictReject, 2},
		{"own ban above the source's harmless file", VerdictReject, []Statement{add("ban", h), add("harmless-there", file)}, VerdictReject, 2},
		{"own harmless above the source's ban", VerdictReject, []Statement{add("source", h), add("harmless", h)}, VerdictAllow, 2},
	} {
		for _, early := range []bool{true, false} { // before anything is known of the lists, and after
			p := DefaultPolicy()
			p.Own = origin
			l, err := Open(t.Context(), &memoryLog{}, p)
			if err != nil {
				t.Fatal(err)
			}
			tell := func() {
				for _, name := range []string{"source", "harmless-there"} {
					l.OnBehalf(origin + "/lists/" + name)
					l.OnBehalf(origin + "/lists/" + name) // again changes nothing
					l.Heed(origin+"/lists/"+name, c.most, DirectBelief(c.most))
				}
			}
			if early {
				tell()
			}
			apply(t, l, define("source", Reject), define("harmless-there", Accept), define("ban", Reject), define("harmless", Accept))
			apply(t, l, c.statements...)
			if !early {
				tell()
			}
			if r := l.Lookup(probe(h, file)); r.Verdict != c.want || len(r.Matches) != c.matches {
				t.Errorf("%s, told early %v: %v, %d matches (%s); want %v, %d", c.name, early, r.Verdict, len(r.Matches), r.Reason, c.want, c.matches)
			}
			l.Close()
		}
	}
}
