package hashlist

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

const origin = "https://hashes.example"

var epoch = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// foreign is the origin of every third statement.
const foreign = "https://other.example"

func home(id int) string {
	if id%3 == 2 {
		return foreign
	}
	return origin
}

// anyStatement draws a valid statement from a small world: three issuers, three
// lists of each of two origins, thirty ids, so that statements collide, retract and redefine each other.
// A statement's content follows from its id, as it does in the world.
func anyStatement(t *rapid.T, id int) Statement {
	s := Statement{
		ID:     fmt.Sprintf("%s/statements/%d", home(id), id),
		Issuer: fmt.Sprintf("%s/users/%d", home(id), rapid.IntRange(0, 2).Draw(t, "issuer")),
		List:   fmt.Sprintf("%s/lists/%d", home(id), rapid.IntRange(0, 2).Draw(t, "list")),
		Kind: rapid.SampledFrom([]Kind{
			AddHashes, AddHashes, AddHashes, Retraction, Retraction, Retraction, DefineList,
			AddAccounts, AddInstances, AddContent, Confirmation, Dispute, Vouch,
		}).Draw(t, "kind"),
		Published: epoch.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "published")) * time.Second),
		Reason:    rapid.SampledFrom([]string{"", "because", "weil\nüber"}).Draw(t, "reason"),
	}
	labels := func() []string {
		l := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"csam", "gore", "ncii", "spam"}), 0, 3, rapid.ID).Draw(t, "labels")
		slices.Sort(l)
		if len(l) == 0 {
			return nil
		}
		return l
	}
	hashes := func(least int) []Hash {
		h := rapid.SliceOfNDistinct(rapid.Custom(anyHash), least, 5, rapid.ID).Draw(t, "hashes")
		if len(h) == 0 {
			return nil
		}
		return h
	}
	// Accounts and content have addresses in common, and retractions name any.
	addresses := []string{"https://bad.example/1", "https://bad.example/2", "https://bad.example/?author=1"}
	domains := []string{"bad.example", "worse.example", "xn--bcher-kva.example"}
	subjects := func(of []string) []string {
		return rapid.SliceOfNDistinct(rapid.SampledFrom(of), 1, len(of), rapid.ID).Draw(t, "subjects")
	}
	if s.Kind != Retraction && s.Kind != DefineList && rapid.Bool().Draw(t, "lapses") {
		s.Expires = s.Published.Add(time.Duration(rapid.IntRange(1, 200).Draw(t, "lifetime")) * time.Second)
	}
	terms := func() {
		s.Labels = labels()
		s.Action = rapid.SampledFrom([]Action{0, 0, Accept, Filter, Reject, Drop}).Draw(t, "action")
	}
	switch s.Kind {
	case AddHashes:
		s.Hashes = hashes(1)
		terms()
	case AddAccounts, AddContent:
		s.Subjects = subjects(addresses)
		terms()
	case AddInstances:
		s.Subjects = subjects(domains)
		terms()
	case Confirmation, Dispute:
		other := rapid.IntRange(0, 29).Filter(func(n int) bool { return n != id }).Draw(t, "about")
		s.About = fmt.Sprintf("%s/statements/%d", home(other), other)
	case Vouch:
		s.Labels = labels()
		other := rapid.IntRange(0, 29).Filter(func(n int) bool { return home(n) != home(id) }).Draw(t, "object")
		s.Vouch = &Vouching{
			Object: fmt.Sprintf("%s/users/%d", home(other), rapid.IntRange(0, 2).Draw(t, "vouched for")),
			Amount: rapid.Uint8Range(1, MostBelief).Draw(t, "amount"), Depth: rapid.Uint8Range(0, MaxDepth).Draw(t, "depth"),
		}
		if from := s.Published.Add(time.Duration(rapid.IntRange(-20, 200).Draw(t, "from")) * time.Second); s.Expires.IsZero() || s.Expires.After(from) {
			s.Vouch.From = from
		}
	case Retraction:
		other := rapid.IntRange(0, 29).Draw(t, "retracts")
		if home(other) != home(id) { // nobody retracts across origins
			other = other/3*3 + id%3
		}
		s.Retracts = fmt.Sprintf("%s/statements/%d", home(other), other)
		switch rapid.IntRange(0, 2).Draw(t, "what") {
		case 0:
			s.Hashes = hashes(1)
		case 1:
			s.Subjects = subjects(append(append([]string{s.Retracts}, addresses...), domains...))
		}
	case DefineList:
		s.Definition = &Definition{
			Name: rapid.SampledFrom([]string{"a", "list-2"}).Draw(t, "name"), Labels: labels(), Summary: "what it is for",
			Audience: rapid.SampledFrom([]Audience{Local, Followers, Public}).Draw(t, "audience"),
			Action:   rapid.SampledFrom([]Action{Accept, Filter, Reject, Drop}).Draw(t, "list action"),
			Radii: Radii{
				PDQ:   uint8(rapid.IntRange(0, 63).Draw(t, "radius")),
				PHash: uint8(rapid.IntRange(0, 16).Draw(t, "radius of phash")),
				DHash: uint8(rapid.IntRange(0, 16).Draw(t, "radius of dhash")),
			},
		}
	}
	if err := s.Validate(); err != nil {
		t.Fatalf("%+v: %v", s, err)
	}
	return s
}

func TestStatementBinary(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := anyStatement(t, 1)
		b, err := s.AppendBinary([]byte("before"))
		if err != nil {
			t.Fatal(err)
		}
		b = b[len("before"):]
		var back Statement
		if err := back.UnmarshalBinary(b); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(s, back, cmp.AllowUnexported(Hash{})); d != "" {
			t.Fatal(d)
		}
		for n := range b {
			if err := back.UnmarshalBinary(b[:n]); err == nil {
				t.Fatalf("the first %d of %d bytes were read", n, len(b))
			}
		}
		if err := back.UnmarshalBinary(append(b, 0)); err == nil {
			t.Fatal("a byte too many was read")
		}
	})
	var s Statement
	if err := s.UnmarshalBinary([]byte{9, 1}); err == nil || !strings.Contains(err.Error(), "version 9") {
		t.Errorf("another version: %v", err)
	}
	// A log that a newer program wrote is not read as if its kinds meant nothing.
	for _, kind := range []byte{0, byte(Vouch) + 1, 255} {
		if err := s.UnmarshalBinary([]byte{1, kind}); err == nil || !strings.Contains(err.Error(), "does not know") {
			t.Errorf("kind %d: %v", kind, err)
		}
	}
}

func FuzzStatementBinary(f *testing.F) {
	h, _ := ParseHash("md5:d41d8cd98f00b204e9800998ecf8427e")
	b, err := Statement{ID: "https://a.example/1", Kind: AddHashes, Published: epoch, Labels: []string{"x"}, Hashes: []Hash{h}}.AppendBinary(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	if b, err = (Statement{ID: "https://a.example/2", Kind: AddInstances, Published: epoch, Subjects: []string{"bad.example"}, About: "x"}).AppendBinary(nil); err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	v := &Vouching{Object: "https://b.example/u", Amount: 40, Depth: 1, From: epoch}
	if b, err = (Statement{ID: "https://a.example/3", Kind: Vouch, Published: epoch, Vouch: v}).AppendBinary(nil); err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, data []byte) {
		var s, again Statement
		if s.UnmarshalBinary(data) != nil {
			return
		}
		b, err := s.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := again.UnmarshalBinary(b); err != nil || !reflect.DeepEqual(s, again) {
			t.Errorf("%+v became %+v: %v", s, again, err)
		}
	})
}

func TestStatementValidate(t *testing.T) {
	hash, err := ParseHash("md5:d41d8cd98f00b204e9800998ecf8427e")
	if err != nil {
		t.Fatal(err)
	}
	add := func(change func(*Statement)) Statement {
		s := Statement{
			ID: origin + "/statements/1", Issuer: origin + "/users/a", List: origin + "/lists/l", Kind: AddHashes,
			Published: epoch, Hashes: []Hash{hash},
		}
		change(&s)
		return s
	}
	undo := func(change func(*Statement)) Statement {
		return add(func(s *Statement) {
			s.Kind, s.Hashes, s.Retracts = Retraction, nil, origin+"/statements/0"
			change(s)
		})
	}
	list := func(change func(*Definition)) Statement {
		return add(func(s *Statement) {
			s.Kind, s.Hashes = DefineList, nil
			s.Definition = &Definition{Name: "l", Audience: Local, Action: Reject, Radii: DefaultRadii}
			change(s.Definition)
		})
	}
	for _, s := range []Statement{
		add(func(s *Statement) {}), undo(func(s *Statement) {}), list(func(*Definition) {}),
		add(func(s *Statement) { s.Expires = epoch.Add(time.Second) }),
		undo(func(s *Statement) { s.Hashes = []Hash{hash} }),
	} {
		if err := s.Validate(); err != nil {
			t.Errorf("%v: %v", s.Kind, err)
		}
	}
	many := make([]Hash, MaxHashes+1)
	for i := range many {
		many[i] = hash
		many[i].sum[0], many[i].sum[1] = byte(i), byte(i>>8)
	}
	for _, c := range []struct {
		says string
		s    Statement
	}{
		{"issuer is of https://other.example", add(func(s *Statement) { s.Issuer = "https://other.example/users/a" })},
		{"issuer is of http://hashes.example", add(func(s *Statement) { s.Issuer = "http://hashes.example/users/a" })},
		{"issuer is of https://hashes.example:8443", add(func(s *Statement) { s.Issuer = "https://hashes.example:8443/users/a" })},
		{"list is of https://other.example", add(func(s *Statement) { s.List = "https://other.example/lists/l" })},
		{"not a plain https address", add(func(s *Statement) { s.ID = "https://a@hashes.example/statements/1" })},
		{"not a plain https address", add(func(s *Statement) { s.ID = origin + "/statements/1?x=y" })},
		{"not a plain https address", add(func(s *Statement) { s.ID = "ftp://hashes.example/statements/1" })},
		{"not a plain https address", add(func(s *Statement) { s.ID = "statements/1" })},
		{"do not belong", add(func(s *Statement) { s.ID = origin + "/statements/1%2e" })},
		{"do not belong", add(func(s *Statement) { s.ID = origin + "/statements/1\n" })},
		{"do not belong", add(func(s *Statement) { s.ID = origin + "/statements/é" })},
		{"capitals", add(func(s *Statement) { s.ID = "https://Hashes.example/statements/1" })},
		{"longer than", add(func(s *Statement) { s.ID = origin + "/" + strings.Repeat("x", MaxIRI) })},
		{"whole seconds", add(func(s *Statement) { s.Published = epoch.Add(1) })},
		{"whole seconds", add(func(s *Statement) { s.Published = epoch.In(time.FixedZone("", 3600)) })},
		{"after 1970", add(func(s *Statement) { s.Published = time.Time{} })},
		{"before it was published", add(func(s *Statement) { s.Expires = epoch })},
		{"no hashes", add(func(s *Statement) { s.Hashes = nil })},
		{"at most 1000", add(func(s *Statement) { s.Hashes = many })},
		{"in it twice", add(func(s *Statement) { s.Hashes = []Hash{hash, hash} })},
		{"is empty", add(func(s *Statement) { s.Hashes = []Hash{{}} })},
		{"out of order", add(func(s *Statement) { s.Labels = []string{"b", "a"} })},
		{"there twice", add(func(s *Statement) { s.Labels = []string{"a", "a"} })},
		{"may only have", add(func(s *Statement) { s.Labels = []string{"A"} })},
		{"may only have", add(func(s *Statement) { s.Labels = []string{"a--b"} })},
		{"more than 16", add(func(s *Statement) { s.Labels = make([]string, 17) })},
		{"longer than", add(func(s *Statement) { s.Reason = strings.Repeat("x", MaxReason+1) })},
		{"not UTF-8", add(func(s *Statement) { s.Reason = "\xff" })},
		{"control characters", add(func(s *Statement) { s.Reason = "\x1b[2J" })},
		{"unknown action", add(func(s *Statement) { s.Action = 9 })},
		{"unknown kind", add(func(s *Statement) { s.Kind = 10 })},
		{"nothing but hashes", add(func(s *Statement) { s.Retracts = origin + "/statements/0" })},
		{"cannot be retracted from", undo(func(s *Statement) { s.Retracts = "https://other.example/statements/0" })},
		{"nothing but hashes", undo(func(s *Statement) { s.Labels = []string{"a"} })},
		{"retracted statement", undo(func(s *Statement) { s.Retracts = "" })},
		{"defines no list", add(func(s *Statement) { s.Kind, s.Hashes = DefineList, nil })},
		{"radius 64", list(func(d *Definition) { d.Radii[PDQ] = 64 })},
		{"radius 1 of sha256", list(func(d *Definition) { d.Radii[SHA256] = 1 })},
		{"list name", list(func(d *Definition) { d.Name = "-l" })},
		{"no audience", list(func(d *Definition) { d.Audience = 0 })},
		{"no action", list(func(d *Definition) { d.Action = 0 })},
	} {
		if err := c.s.Validate(); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("got %v, want an error that says %q", err, c.says)
		}
	}
}

func TestNamesOfValues(t *testing.T) {
	for a := Accept; a <= Drop; a++ {
		if got, err := ParseAction(a.String()); err != nil || got != a {
			t.Errorf("%v: %v, %v", a, got, err)
		}
	}
	for a := Local; a <= Public; a++ {
		if got, err := ParseAudience(a.String()); err != nil || got != a {
			t.Errorf("%v: %v, %v", a, got, err)
		}
	}
	for v := VerdictAllow; v <= VerdictReject; v++ {
		if got, err := ParseVerdict(v.String()); err != nil || got != v {
			t.Errorf("%v: %v, %v", v, got, err)
		}
	}
	for _, err := range []error{second(ParseAction("ban")), second(ParseAudience("")), second(ParseVerdict("")), second(ParseAlgorithm("PDQ"))} {
		if err == nil {
			t.Error("a name that means nothing was read")
		}
	}
}

func second[T any](_ T, err error) error { return err }
