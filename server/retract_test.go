package server

import (
	"slices"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// Statements of subjects and of others' statements come through Publish; they
// are retracted like those of hashes, and shown by ListEntries as long as they are in force.
func TestRetractEveryKind(t *testing.T) {
	n := start(t)
	c := n.newList("spam")
	list := n.cfg.Origin + "/lists/spam"
	about := "https://other.example/statements/x"
	for _, v := range []hashlist.Statement{
		{Kind: hashlist.AddAccounts, Subjects: []string{"https://bad.example/users/a", "https://bad.example/users/b"}},
		{Kind: hashlist.AddInstances, Subjects: []string{"bad.example"}},
		{Kind: hashlist.AddContent, Subjects: []string{"https://bad.example/picture.jpg?v=1"}},
		{Kind: hashlist.Confirmation, About: about},
		{Kind: hashlist.Dispute, About: about},
		{Kind: hashlist.Vouch, Vouch: &hashlist.Vouching{Object: "https://other.example/users/bob", Amount: 40}},
	} {
		v.List = list
		r, err := n.cfg.Issuer.Seal(v)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.cfg.Lists.Apply(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		_, err = c.Retract(t.Context(), &pb.RetractRequest{StatementId: r.Statement.ID, Hashes: texts(randomHashes(1))})
		wantCode(t, "hashes of "+v.Kind.String(), err, codes.InvalidArgument)
		shown := func() (subjects []string) {
			t.Helper()
			entries, err := c.ListEntries(t.Context(), &pb.ListEntriesRequest{List: "spam"})
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries.GetEntries() {
				if e.GetStatementId() == r.Statement.ID && e.GetKind() == v.Kind.String() {
					subjects = append(subjects, e.GetSubjects()...)
				}
			}
			return subjects
		}
		if got := shown(); !slices.Equal(got, v.Subjects) {
			t.Errorf("%v is shown with %q, want %q", v.Kind, got, v.Subjects)
		}
		_, err = c.Retract(t.Context(), &pb.RetractRequest{StatementId: r.Statement.ID, Subjects: []string{"elsewhere.example"}})
		wantCode(t, "a subject that is not in "+v.Kind.String(), err, codes.InvalidArgument)
		if len(v.Subjects) > 1 { // one of them is taken back, and once
			for round, want := range []uint32{1, 0} {
				answer, err := c.Retract(t.Context(), &pb.RetractRequest{StatementId: r.Statement.ID, Subjects: v.Subjects[:1]})
				if err != nil || answer.GetRetracted() != want || answer.GetKind() != v.Kind.String() {
					t.Errorf("one of %v, round %d: %v, %v, want %d", v.Kind, round, answer, err, want)
				}
			}
			v.Subjects = v.Subjects[1:]
			if got := shown(); !slices.Equal(got, v.Subjects) {
				t.Errorf("after one was retracted %v is shown with %q, want %q", v.Kind, got, v.Subjects)
			}
		}
		for round, want := range []uint32{uint32(max(1, len(v.Subjects))), 0} {
			answer, err := c.Retract(t.Context(), &pb.RetractRequest{StatementId: r.Statement.ID, Reason: "a mistake"})
			if err != nil || answer.GetRetracted() != want {
				t.Errorf("%v, round %d: %v, %v, want %d", v.Kind, round, answer, err, want)
			}
		}
	}
}
