package hashlist

import (
	"bytes"
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCheckSubject(t *testing.T) {
	long := "https://bad.example/" + strings.Repeat("x", MaxURL-len("https://bad.example/"))
	label := strings.Repeat("a", 63)
	for _, c := range []struct {
		kind    Kind
		subject string
		says    string // "" if nothing is wrong
	}{
		{AddAccounts, "https://bad.example/users/mallory", ""},
		{AddAccounts, "https://bad.example/?author=1", ""},
		{AddAccounts, "http://127.0.0.1:8080/u", ""},
		{AddContent, "https://bad.example", ""},
		{AddContent, "https://bad.example/a%20b.png?size=%C3%A9&x[]=1#top", ""},
		{AddContent, "https://[2001:db8::1]:8443/1.png", ""},
		{AddContent, long, ""},
		{AddContent, long + "x", "longer than 2048"},
		{AddContent, "", "not an https address"},
		{AddContent, "bad.example/1.png", "not an https address"},
		{AddContent, "//bad.example/1.png", "not an https address"},
		{AddContent, "https:bad.example", "not an https address"},
		{AddContent, "https:///1.png", "not an https address"},
		{AddContent, "https://:443/1.png", "not an https address"},
		{AddContent, "ftp://bad.example/1.png", "not an https address"},
		{AddContent, "javascript:alert(1)", "not an https address"},
		{AddContent, "https://a@bad.example/", "not an https address"},
		{AddContent, "https://:@bad.example/", "not an https address"},
		{AddContent, "HTTPS://bad.example/", "capitals"},
		{AddContent, "https://Bad.example/", "capitals"},
		{AddContent, "https://b%C3%BCcher.example/", "escapes in its host"},
		{AddContent, "https://bad.example/%", "half an escape"},
		{AddContent, "https://bad.example/?50%", "half an escape"},
		{AddContent, "https://bad.example/%2", "half an escape"},
		{AddContent, "https://bad.example/%zz", "half an escape"},
		{AddContent, "https://bad.example:x/", "cannot be read"},
		{AddContent, "https://bad.example/a b", "do not belong"},
		{AddContent, "https://bad.example/\n", "do not belong"},
		{AddContent, "https://bad.example/\x00", "do not belong"},
		{AddContent, "https://bad.example/é", "do not belong"},
		{AddContent, "https://bad.example/<script>", "do not belong"},
		{AddContent, `https://bad.example\@good.example/`, "do not belong"},
		{AddInstances, "bad.example", ""},
		{AddInstances, "xn--bcher-kva.example", ""},
		{AddInstances, "1.2.3.4.example", ""},
		{AddInstances, strings.Repeat("a.", 125) + "abc", ""},
		{AddInstances, label + ".example", ""},
		{AddInstances, strings.Repeat("a.", 126) + "ab", "longer than 253"},
		{AddInstances, label + "a.example", "not a domain"},
		{AddInstances, "", "not a domain"},
		{AddInstances, ".", "not a domain"},
		{AddInstances, "bad.example.", "not a domain"},
		{AddInstances, "bad..example", "not a domain"},
		{AddInstances, "-bad.example", "not a domain"},
		{AddInstances, "bad-.example", "not a domain"},
		{AddInstances, "*.example", "not a domain"},
		{AddInstances, "b*d.example", "not a domain"},
		{AddInstances, "Bad.example", "not a domain"},
		{AddInstances, "bücher.example", "not a domain"},
		{AddInstances, "bad.example:443", "not a domain"},
		{AddInstances, "https://bad.example", "not a domain"},
		{AddInstances, "a_b.example", "not a domain"},
		{AddInstances, "localhost", "not the domain of a server"},
		{AddInstances, "192.0.2.1", "an IP address"},
		{AddInstances, "1.0x7f", "an IP address"},
		{AddHashes, "https://bad.example/", "has no subjects"},
		{Dispute, "https://bad.example/", "has no subjects"},
	} {
		err := CheckSubject(c.kind, c.subject)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v %.80q: got %v, want %q", c.kind, c.subject, err, c.says)
		}
	}
}

func TestSubjectsValidate(t *testing.T) {
	of := func(kind Kind, change func(*Statement)) Statement {
		s := Statement{
			ID: origin + "/statements/1", Issuer: origin + "/users/a", List: origin + "/lists/l", Kind: kind, Published: epoch,
		}
		switch kind {
		case AddAccounts, AddContent:
			s.Subjects = []string{"https://bad.example/1"}
		case AddInstances:
			s.Subjects = []string{"bad.example"}
		case Retraction:
			s.Retracts, s.Subjects = origin+"/statements/0", []string{"bad.example", "https://bad.example/1"}
		case Confirmation, Dispute:
			s.About = foreign + "/statements/1"
		case Vouch:
			s.Vouch = &Vouching{Object: foreign + "/users/b", Amount: 1}
		case AddHashes:
			s.Hashes = []Hash{hashAt(t, PDQ)}
		case DefineList:
			s.Definition = &Definition{Name: "l", Audience: Local, Action: Reject, Radii: DefaultRadii}
		}
		if change != nil {
			change(&s)
		}
		return s
	}
	for kind := AddHashes; kind <= Vouch; kind++ {
		s := of(kind, nil)
		if err := s.Validate(); err != nil {
			t.Errorf("%v: %v", kind, err)
		}
		if strings.HasPrefix(kind.String(), "kind(") {
			t.Errorf("%v has no name", kind)
		}
	}
	many := make([]string, MaxSubjects+1)
	for i := range many {
		many[i] = fmt.Sprintf("https://bad.example/%d", i)
	}
	for _, kind := range []Kind{AddAccounts, AddInstances, AddContent} {
		for _, c := range []struct {
			says   string
			change func(*Statement)
		}{
			{"", func(s *Statement) {
				s.Labels, s.Action, s.Reason, s.Expires = []string{"spam"}, Drop, "why", epoch.Add(time.Second)
			}},
			{"about nothing", func(s *Statement) { s.Subjects = nil }},
			{"in it twice", func(s *Statement) { s.Subjects = append(s.Subjects, s.Subjects[0]) }},
			{"at most 1000", func(s *Statement) { s.Subjects = many }},
			{"subject 2", func(s *Statement) { s.Subjects = append(s.Subjects, "@mallory") }},
			{"before it was published", func(s *Statement) { s.Expires = epoch }},
			{"whole seconds", func(s *Statement) { s.Expires = epoch.Add(1) }},
			{"nothing but subjects", func(s *Statement) { s.Hashes = []Hash{hashAt(t, PDQ)} }},
			{"nothing but subjects", func(s *Statement) { s.About = s.ID }},
			{"nothing but subjects", func(s *Statement) { s.Retracts = s.ID }},
			{"nothing but subjects", func(s *Statement) { s.Definition = &Definition{} }},
		} {
			s := of(kind, c.change)
			if err := s.Validate(); (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v: got %v, want %q", kind, err, c.says)
			}
		}
	}
	for _, kind := range []Kind{Confirmation, Dispute} {
		for _, c := range []struct {
			says   string
			change func(*Statement)
		}{
			{"", func(s *Statement) { s.Reason, s.Expires = "why", epoch.Add(time.Second) }},
			{"", func(s *Statement) { s.About = origin + "/statements/2" }},
			{"is about", func(s *Statement) { s.About = "" }},
			{"is about", func(s *Statement) { s.About = foreign + "/statements/1?x" }},
			{"about itself", func(s *Statement) { s.About = s.ID }},
			{"before it was published", func(s *Statement) { s.Expires = epoch }},
			{"nothing but what", func(s *Statement) { s.Labels = []string{"spam"} }},
			{"nothing but what", func(s *Statement) { s.Action = Reject }},
			{"nothing but what", func(s *Statement) { s.Subjects = []string{"bad.example"} }},
			{"nothing but what", func(s *Statement) { s.Hashes = []Hash{hashAt(t, PDQ)} }},
			{"nothing but what", func(s *Statement) { s.Retracts = s.ID }},
			{"nothing but what", func(s *Statement) { s.Definition = &Definition{} }},
		} {
			s := of(kind, c.change)
			if err := s.Validate(); (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v: got %v, want %q", kind, err, c.says)
			}
		}
	}
	for _, c := range []struct {
		says string
		s    Statement
	}{
		{"both hashes and subjects", of(Retraction, func(s *Statement) { s.Hashes = []Hash{hashAt(t, PDQ)} })},
		{"subject 1", of(Retraction, func(s *Statement) { s.Subjects = []string{"bad"} })},
		{"subject 1", of(Retraction, func(s *Statement) { s.Subjects = []string{"bad/example"} })},
		{"in it twice", of(Retraction, func(s *Statement) { s.Subjects = []string{"bad.example", "bad.example"} })},
		{"nothing but hashes or subjects", of(Retraction, func(s *Statement) { s.About = s.Retracts })},
		{"nothing but hashes", of(AddHashes, func(s *Statement) { s.Subjects = []string{"bad.example"} })},
		{"nothing but hashes", of(AddHashes, func(s *Statement) { s.About = s.ID })},
		{"nothing but the list", of(DefineList, func(s *Statement) { s.Subjects = []string{"bad.example"} })},
		{"nothing but the list", of(DefineList, func(s *Statement) { s.About = s.ID })},
	} {
		if err := c.s.Validate(); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("got %v, want an error that says %q", err, c.says)
		}
	}
}

// said makes a statement of any kind on a list, at a second.
func said(kind Kind, list, issuer string, at int, texts ...string) Statement {
	statements++
	s := Statement{
		ID: fmt.Sprintf("%s/statements/s%06d", origin, statements), Issuer: origin + "/users/" + issuer, List: origin + "/lists/" + list,
		Kind: kind, Published: epoch.Add(time.Duration(at) * time.Second),
	}
	switch kind {
	case Confirmation, Dispute:
		s.About = texts[0]
	case Retraction:
		s.Retracts, s.Subjects = texts[0], texts[1:]
	default:
		s.Subjects = texts
	}
	return s
}

func idsOf(all []Statement) string { return strings.Join(ids(all), " ") }

// TestSubjects runs in a bubble, where time passes at once and begins long
// before the statements' own.
func TestSubjects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, &memoryLog{})
		const mallory, trent, server = "https://bad.example/users/mallory", "https://bad.example/users/trent", "bad.example"
		now := time.Now().UTC().Truncate(time.Second)
		late, early := said(AddAccounts, "ban", "a", 2, mallory, trent), said(AddAccounts, "ban", "b", 1, mallory)
		late.Labels, late.Reason, late.Action = []string{"spam"}, "why", Filter
		whole, post := said(AddInstances, "ban", "a", 0, server), said(AddContent, "ban", "a", 0, mallory)
		whole.Published, whole.Expires = now, now.Add(time.Hour)
		nowhere := said(AddAccounts, "undefined", "a", 0, mallory)
		apply(t, l, define("ban", Reject), late, early, whole, post, nowhere)

		got := l.Subject(AddAccounts, mallory)
		want := []Statement{early, late}
		want[0].Action, want[0].Labels = Reject, []string{"csam"}
		want[1].Labels, want[1].Subjects = []string{"csam", "spam"}, []string{mallory}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(Hash{})); diff != "" {
			t.Error(diff)
		}
		if got := l.Subject(AddContent, mallory); idsOf(got) != idsOf([]Statement{post}) {
			t.Errorf("content: %+v", got)
		}
		for _, none := range [][]Statement{
			l.Subject(AddInstances, "worse.example"), l.Subject(AddInstances, "x.bad.example"), l.Subject(AddHashes, mallory), l.Subject(0, mallory),
			l.Subject(Confirmation, mallory), l.Subject(255, mallory),
		} {
			if none != nil {
				t.Errorf("%+v", none)
			}
		}
		v, _ := l.List(late.List)
		if c := l.Counts(); c.Subjects[AddAccounts] != 2 || c.Subjects[AddInstances] != 1 || c.Subjects[AddContent] != 1 || c.Hashes[PDQ] != 0 || v.Subjects != 5 || v.Statements != 4 || v.Hashes != 0 {
			t.Errorf("%+v, %+v", c, v)
		}
		for _, want := range []string{"accounts " + mallory, "instances bad.example", "content " + mallory} {
			if !strings.Contains(folded(t, l), want+" on "+late.List) {
				t.Errorf("the fold does not show %s", want)
			}
		}

		apply(t, l, said(Retraction, "ban", "b", 9, late.ID, mallory), said(Retraction, "ban", "a", 9, late.ID, mallory, "worse.example"))
		if got := l.Subject(AddAccounts, mallory); idsOf(got) != idsOf([]Statement{early}) {
			t.Errorf("after the retraction: %+v", got)
		}
		if in := l.SubjectsInForce(&late); !slices.Equal(in, []string{trent}) || len(l.Subject(AddAccounts, trent)) != 1 || l.InForce(&late) != nil {
			t.Errorf("in force: %v", in)
		}
		// By a key that was in other hands, and then by its owner too.
		stolen := []Span{{From: epoch.Add(9 * time.Second)}}
		if err := l.Void(context.Background(), late.Issuer, stolen); err != nil {
			t.Fatal(err)
		}
		if got := l.Subject(AddAccounts, mallory); idsOf(got) != idsOf([]Statement{early, late}) || len(l.SubjectsInForce(&late)) != 2 {
			t.Errorf("after the retraction turned out to be void: %+v", got)
		}
		apply(t, l, said(Retraction, "ban", "a", 8, late.ID, mallory))
		if got := l.Subject(AddAccounts, mallory); idsOf(got) != idsOf([]Statement{early}) {
			t.Errorf("retracted again: %+v", got)
		}
		if err := l.Void(context.Background(), late.Issuer, nil); err != nil {
			t.Fatal(err)
		}
		if err := l.Void(context.Background(), late.Issuer, stolen); err != nil {
			t.Fatal(err)
		}
		if in := l.SubjectsInForce(&late); !slices.Equal(in, []string{trent}) {
			t.Errorf("in force: %v", in)
		}
		if err := l.Void(context.Background(), late.Issuer, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour - time.Second)
		if len(l.Subject(AddInstances, server)) != 1 {
			t.Error("lapsed too early")
		}
		time.Sleep(time.Second)
		if l.Subject(AddInstances, server) != nil || l.SubjectsInForce(&whole) != nil {
			t.Error("did not lapse")
		}
		time.Sleep(sweep + time.Second)
		synctest.Wait()
		if c := l.Counts(); c.Subjects[AddInstances] != 0 {
			t.Error("what has lapsed is still in the index")
		}

		agree, again, against := said(Confirmation, "ban", "b", 3, late.ID), said(Confirmation, "ban", "b", 4, late.ID), said(Dispute, "ban", "c", 3, late.ID)
		against.Reason = "no"
		own, about := said(Confirmation, "ban", "a", 3, late.ID), said(Dispute, "ban", "a", 3, agree.ID)
		apply(t, l, again, agree, against, own, about, said(Confirmation, "undefined", "b", 3, late.ID))
		confirmed, disputed := l.About(late.ID)
		if diff := cmp.Diff([][]Statement{{agree, again}, {against}}, [][]Statement{confirmed, disputed}, cmp.AllowUnexported(Hash{})); diff != "" {
			t.Error(diff)
		}
		if confirmed, disputed := l.About(agree.ID); confirmed != nil || idsOf(disputed) != idsOf([]Statement{about}) {
			t.Errorf("of a confirmation: %+v, %+v", confirmed, disputed)
		}
		// Single parts of it there are none to retract; all of it there is.
		apply(t, l, said(Retraction, "ban", "c", 9, against.ID, late.ID))
		if _, disputed := l.About(late.ID); len(disputed) != 1 {
			t.Errorf("retracted in part: %+v", disputed)
		}
		apply(t, l, said(Retraction, "ban", "c", 9, against.ID))
		if _, disputed := l.About(late.ID); disputed != nil {
			t.Errorf("retracted: %+v", disputed)
		}
		if !strings.Contains(folded(t, l), "confirmation of "+late.ID+" on ") {
			t.Error("the fold does not show a confirmation")
		}
		if err := l.Void(context.Background(), early.Issuer, []Span{{From: epoch, Until: epoch.Add(4 * time.Second)}}); err != nil {
			t.Fatal(err)
		}
		if confirmed, _ := l.About(late.ID); idsOf(confirmed) != idsOf([]Statement{again}) || l.Subject(AddAccounts, mallory) != nil {
			t.Errorf("void: %+v", confirmed)
		}
		l.Close()
	})
}

// TestFirstEncoding: what an older program has written is read, and what it can
// understand is written as it wrote it.
func TestFirstEncoding(t *testing.T) {
	old := []byte("\x01\x02\x01i\x01u\x01l\x80\xe4\xf4\xb5\x0d\x00\x01\x01x\x04\x01r\x00\x00\x01\x04")
	old = append(old, bytes.Repeat([]byte{0xab}, 16)...)
	var s Statement
	if err := s.UnmarshalBinary(old); err != nil {
		t.Fatal(err)
	}
	h, _ := NewHash(MD5, bytes.Repeat([]byte{0xab}, 16))
	want := Statement{
		ID: "i", Issuer: "u", List: "l", Kind: Retraction, Published: time.Unix(3_602_723_328, 0).UTC(), Labels: []string{"x"},
		Action: Drop, Reason: "r", Hashes: []Hash{h},
	}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got %+v", s)
	}
	if b, err := s.AppendBinary(nil); err != nil || !bytes.Equal(b, old) {
		t.Errorf("written again: %q, %v", b, err)
	}
	s.About = "a"
	if b, err := s.AppendBinary(nil); err != nil || b[0] != 2 || !bytes.Equal(b[1:len(old)], old[1:]) {
		t.Errorf("with more: %q, %v", b, err)
	}
	if err := s.UnmarshalBinary(append(append([]byte{2}, old[1:]...), 0, 0)); err == nil {
		t.Error("a second form of the same statement was read")
	}
}
