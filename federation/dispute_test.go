package federation_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
)

// disputed makes a dispute on the node's own list of opinions, and has it sent.
func (n *node) dispute(about, reason string) hashlist.Statement {
	n.t.Helper()
	if _, ok := n.lists.List(n.list("opinions")); !ok {
		n.define("opinions", hashlist.Followers)
	}
	s := n.say(hashlist.Statement{Kind: hashlist.Dispute, List: n.list("opinions"), About: about, Reason: reason})
	issuer, _, _ := n.lists.Belongs(about)
	if err := n.SendLetter(n.t.Context(), s.ID, about, issuer); err != nil {
		n.t.Fatal(err)
	}
	return s
}

func (n *node) reviews() []hashlist.Review {
	n.t.Helper()
	all, err := n.db.Reviews(n.t.Context(), hashlist.ReviewSelection{})
	if err != nil {
		n.t.Fatal(err)
	}
	return all
}

// letter returns what became of the only letter that a node sent.
func (n *node) letter() federation.Letter {
	n.t.Helper()
	all := n.Letters()
	if len(all) != 1 {
		n.t.Fatalf("%d letters", len(all))
	}
	return all[0]
}

// TestDispute: a dispute reaches the issuer's node, and the answer acts everywhere as fast as a ban.
func TestDispute(t *testing.T) {
	a, b, c := newNode(t), newNode(t), newNode(t)
	list := a.define("refused", hashlist.Followers)
	for _, n := range []*node{b, c} {
		if _, err := n.Follow(t.Context(), list, hashlist.VerdictReject); err != nil {
			t.Fatal(err)
		}
		until(t, "it is approved", func() bool { _, err := a.Decide(t.Context(), list, n.origin+"/actor", true); return err == nil })
		until(t, "it is accepted", func() bool { return statusOf(t, n, list).State == federation.FollowAccepted })
	}
	h := pdq(t, 901)
	begun := time.Now()
	banned := a.ban(list, h)
	everywhere := func(want hashlist.Verdict) func() bool {
		return func() bool { return a.verdict(h) == want && b.verdict(h) == want && c.verdict(h) == want }
	}
	until(t, "the ban acts everywhere", everywhere(hashlist.VerdictReject))
	toBan := time.Since(begun)

	b.dispute(banned.ID, "a painting that hangs in a museum")
	until(t, "the dispute waits for a person", func() bool { return len(a.reviews()) == 1 })
	r := a.reviews()[0]
	if r.Kind != hashlist.ReviewDispute || r.State != hashlist.ReviewOpen || r.Statement != banned.ID || r.List != list || r.Issuer != b.issuer.Actor() ||
		!strings.Contains(r.Summary, "hangs in a museum") {
		t.Errorf("%+v", r)
	}
	until(t, "it is known to be taken", func() bool { return !b.letter().Taken.IsZero() })
	if l := b.letter(); l.Answer != "" || l.GivenUp || l.Failures != 0 {
		t.Errorf("%+v", l)
	}
	if size := a.lists.Seq(); size != 2 {
		t.Errorf("a dispute is in the log of who is disputed: %d statements", size)
	}

	begun = time.Now()
	undone := a.say(hashlist.Statement{Kind: hashlist.Retraction, List: list, Retracts: banned.ID, Reason: "so it is"})
	until(t, "the retraction acts everywhere", everywhere(hashlist.VerdictAllow))
	toUndo := time.Since(begun)
	t.Logf("the ban acts everywhere after %v, its retraction after %v", toBan, toUndo)
	if toUndo > time.Second {
		t.Errorf("it took %v", toUndo)
	}
	until(t, "the answer is noted", func() bool { return b.letter().Withdrawn })
	if l := b.letter(); l.Answer != undone.ID {
		t.Errorf("%+v", l)
	}
}

// TestDisputeAnswerToNonFollower: who has left hears the answer all the same, and once.
func TestDisputeAnswerToNonFollower(t *testing.T) {
	a, b := newNode(t), newNode(t)
	list := a.define("refused", hashlist.Public)
	if _, err := b.Follow(t.Context(), list, hashlist.VerdictReject); err != nil {
		t.Fatal(err)
	}
	h := pdq(t, 902)
	banned := a.ban(list, h)
	until(t, "the ban acts", func() bool { return b.verdict(h) == hashlist.VerdictReject })
	if _, err := b.Unfollow(t.Context(), list); err != nil {
		t.Fatal(err)
	}
	b.dispute(banned.ID, "wrong")
	until(t, "the dispute waits", func() bool { return len(a.reviews()) == 1 })
	size := b.lists.Seq()
	answer := func(s hashlist.Statement) hashlist.Statement {
		t.Helper()
		s.List = list
		s = a.say(s)
		if err := a.SendLetter(t.Context(), s.ID, banned.ID, b.issuer.Actor()); err != nil {
			t.Fatal(err)
		}
		return s
	}
	upheld := answer(hashlist.Statement{Kind: hashlist.Confirmation, About: banned.ID, Reason: "looked at again"})
	until(t, "the answer comes", func() bool { return b.letter().Answer == upheld.ID })
	if b.letter().Withdrawn || b.lists.Seq() != size+1 {
		t.Errorf("%+v, %d statements", b.letter(), b.lists.Seq()-size)
	}
	more := answer(hashlist.Statement{Kind: hashlist.Confirmation, About: banned.ID, Reason: "and again"})
	undone := answer(hashlist.Statement{Kind: hashlist.Retraction, Retracts: banned.ID})
	until(t, "the retraction comes", func() bool { return b.letter().Withdrawn })
	if b.letter().Answer != undone.ID || b.lists.Seq() != size+2 {
		t.Errorf("%+v, %d statements", b.letter(), b.lists.Seq()-size)
	}
	if _, ok, err := b.lists.Record(t.Context(), more.ID); ok || err != nil {
		t.Errorf("a second confirmation was taken: %v, %v", ok, err)
	}
	// Whoever follows again loses nothing by what came by itself.
	if _, err := b.Follow(t.Context(), list, hashlist.VerdictReject); err != nil {
		t.Fatal(err)
	}
	reached(t, b, list, 5)
	if v, err := b.Verify(t.Context(), list, nil); err != nil || !v.Passed() {
		t.Errorf("%+v, %v", v, err)
	}
}

// TestDisputeOfFollowedList: a dispute that comes over a list that is followed waits for a person, too.
func TestDisputeOfFollowedList(t *testing.T) {
	a, b := newNode(t), newNode(t)
	list := a.define("refused", hashlist.Local) // which b cannot read: it has the id from somewhere
	banned := a.ban(list, pdq(t, 903))
	opinions := b.define("opinions", hashlist.Public)
	if _, err := a.Follow(t.Context(), opinions, hashlist.VerdictFlag); err != nil {
		t.Fatal(err)
	}
	b.say(hashlist.Statement{Kind: hashlist.Dispute, List: opinions, About: banned.ID, Reason: "no"})
	until(t, "it waits", func() bool { return len(a.reviews()) == 1 })
}

// TestLetterSurvives: what is to be sent is sent when both are up again.
func TestLetterSurvives(t *testing.T) {
	a, b := newNode(t), newNode(t)
	list := a.define("refused", hashlist.Public)
	if _, err := b.Follow(t.Context(), list, hashlist.VerdictReject); err != nil {
		t.Fatal(err)
	}
	h := pdq(t, 904)
	banned := a.ban(list, h)
	until(t, "the ban acts", func() bool { return b.verdict(h) == hashlist.VerdictReject })
	a.stop()
	b.dispute(banned.ID, "wrong")
	until(t, "it was tried", func() bool { return b.letter().Failures > 0 })
	if l := b.letter(); l.Trouble == "" || !l.Taken.IsZero() || l.GivenUp {
		t.Errorf("%+v", l)
	}
	b.stop()
	a.restart()
	b.restart()
	until(t, "it is taken", func() bool { return !b.letter().Taken.IsZero() })
	if len(a.reviews()) != 1 {
		t.Errorf("%d wait", len(a.reviews()))
	}
	// The same letter is not sent twice.
	l := b.letter()
	if err := b.SendLetter(t.Context(), l.Statement, l.About, l.To); err != nil || len(b.Letters()) != 1 {
		t.Errorf("%v, %d letters", err, len(b.Letters()))
	}
	for what, c := range map[string][2]string{"of another node": {banned.ID, a.issuer.Actor()}, "to oneself": {l.Statement, b.issuer.Actor()}, "to nowhere": {l.Statement, "x"}} {
		if err := b.SendLetter(t.Context(), c[0], l.About, c[1]); err == nil {
			t.Errorf("a letter %s was taken", what)
		}
	}
}

// TestLetterIsGivenUp: a server that refuses a letter is not asked for ever.
func TestLetterIsGivenUp(t *testing.T) {
	n, mallory := newNode(t), newBad(t)
	mallory.followed(n)
	about := mallory.ban(pdq(t, 905))
	mallory.add(about)
	reached(t, n, mallory.list, 2)
	mallory.page("/actor/inbox", func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", http.StatusBadRequest) })
	n.dispute(about.Statement.ID, "wrong")
	until(t, "it is given up", func() bool { return n.letter().GivenUp })
	if l := n.letter(); l.Failures != 3 || !strings.Contains(l.Trouble, "400") {
		t.Errorf("%+v", l)
	}
}
