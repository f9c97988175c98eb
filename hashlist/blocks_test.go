package hashlist

import (
	"fmt"
	"strings"
	"testing"
)

// TestBlocks merges what is said of one server.
func TestBlocks(t *testing.T) {
	at := func(origin string, s Statement) Statement {
		s.ID, s.Issuer, s.List = origin+s.ID[len(home(0)):], origin+s.Issuer[len(home(0)):], origin+s.List[len(home(0)):]
		return s
	}
	block := func(origin, list string, a Action, labels ...string) Statement {
		s := add(list)
		s.Kind, s.Subjects, s.Action, s.Labels, s.Hashes = AddInstances, []string{"bad.example"}, a, labels, nil
		return at(origin, s)
	}
	const a, b, c = "https://a.example", "https://b.example", "https://c.example"
	dispute := func(s Statement) Statement {
		v := add("opinions")
		v.Kind, v.About, v.Hashes = Dispute, s.ID, nil
		return v
	}
	said := block(a, "full", Drop, "spam")
	for _, k := range []struct {
		name       string
		statements []Statement
		want       string
	}{
		{"nobody", nil, ""},
		{"own", []Statement{block(origin, "own", Filter)}, "filter own"},
		{"own, and others graver", []Statement{block(origin, "own", Filter), said}, "filter own"},
		{"own says it is harmless", []Statement{block(origin, "own", Accept), said}, ""},
		{"one who is believed fully", []Statement{said}, "drop"},
		{"who is disputed here", []Statement{said, dispute(said)}, ""},
		{"and another says it is harmless", []Statement{said, block(b, "full", Accept)}, "drop"},
		{"one who is believed a little", []Statement{block(a, "some", Drop, "spam")}, "filter"},
		{"three who are, of one thing", []Statement{block(a, "some", Drop, "spam"), block(b, "some", Reject, "spam"), block(c, "some", Drop, "spam")}, "drop"},
		{"three who are, each of another", []Statement{block(a, "some", Drop, "spam"), block(b, "some", Reject, "hate"), block(c, "some", Drop, "scam")}, "filter"},
		{"three lists of one", []Statement{block(a, "some", Drop, "spam"), block(a, "some2", Drop, "spam"), block(a, "some3", Drop, "spam")}, "filter"},
		{"one who may only flag", []Statement{block(a, "flag", Drop, "spam")}, "filter"},
		{"one who is not heeded", []Statement{block(a, "none", Drop, "spam")}, ""},
		{"a source that is believed a little", []Statement{block(origin, "source", Drop, "spam")}, "filter"},
		{"a partner", []Statement{block(origin, "partner", Drop)}, ""},
	} {
		p := DefaultPolicy()
		p.Own = origin
		l, err := Open(t.Context(), &memoryLog{}, p)
		if err != nil {
			t.Fatal(err)
		}
		partner := define("partner", Reject)
		partner.Definition.Labels = []string{PartnerData}
		plain := func(name string) Statement {
			d := define(name, Reject)
			d.Definition.Labels = nil
			return d
		}
		apply(t, l, plain("own"), plain("source"), plain("opinions"), partner)
		l.OnBehalf(origin + "/lists/source")
		l.Heed(origin+"/lists/source", VerdictReject, MarginalBelief)
		for _, o := range []string{a, b, c} {
			for list, direct := range map[string]uint8{"full": MostBelief, "some": MarginalBelief, "some2": MarginalBelief, "some3": MarginalBelief, "flag": MostBelief, "none": MostBelief} {
				most := VerdictReject
				switch list {
				case "flag":
					most = VerdictFlag
				case "none":
					most = 0
				}
				l.Heed(o+"/lists/"+list, most, direct)
				apply(t, l, at(o, plain(list)))
			}
		}
		apply(t, l, k.statements...)
		var got []string
		for _, b := range l.Blocks() {
			text := b.Action.String()
			if b.Own {
				text += " own"
			}
			if b.Domain != "bad.example" {
				t.Errorf("%s: domain %s", k.name, b.Domain)
			}
			got = append(got, text)
		}
		if fmt.Sprint(strings.Join(got, " ")) != k.want {
			t.Errorf("%s: %q, want %q", k.name, got, k.want)
		}
		l.Close()
	}
}
