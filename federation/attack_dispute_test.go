package federation_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
)

// flag is a dispute of the attacker's admin.
func (b *bad) flag(about, reason string) hashlist.Record {
	b.t.Helper()
	return b.seal(hashlist.Statement{Kind: hashlist.Dispute, About: about, Reason: reason})
}

// TestAttackForgedDisputes: what is sent as a dispute in the name of somebody else, or with something wrong.
func TestAttackForgedDisputes(t *testing.T) {
	n, friend, mallory := newNode(t), newBad(t), newBad(t)
	list := n.define("open", hashlist.Public)
	banned := n.ban(list, pdq(t, 911)).ID
	good := mallory.flag(banned, "wrong")
	theirs := friend.flag(banned, "wrong")
	_, other, _ := ed25519.GenerateKey(rand.Reader)
	stranger, err := federation.NewIssuer(mallory.origin+"/users/mallory", other) // with a key that is not in the document
	if err != nil {
		t.Fatal(err)
	}
	unlisted, err := stranger.Seal(hashlist.Statement{Kind: hashlist.Dispute, List: mallory.list, About: banned})
	if err != nil {
		t.Fatal(err)
	}
	nobody, err := federation.NewIssuer(mallory.origin+"/users/nobody", other) // who has no document
	if err != nil {
		t.Fatal(err)
	}
	absent, err := nobody.Seal(hashlist.Statement{Kind: hashlist.Dispute, List: mallory.list, About: banned})
	if err != nil {
		t.Fatal(err)
	}
	late := mallory.seal(hashlist.Statement{Kind: hashlist.Dispute, About: banned, Published: time.Now().UTC().Truncate(time.Second).Add(time.Hour)})
	for _, c := range []struct {
		name string
		body []byte
		code int
		says string
	}{
		{"another's dispute, relayed", theirs.Signed, 400, "another server sends it"},
		{"altered reason", bytes.Replace(good.Signed, []byte(`"wrong"`), []byte(`"right"`), 1), 400, "digest"},
		{"altered actor", bytes.Replace(good.Signed, []byte(mallory.origin+"/users/mallory"), []byte(friend.origin+"/users/mallory"), 1), 400, ""},
		{"a key that is not listed", unlisted.Signed, 400, "no key"},
		{"an issuer who is not there", absent.Signed, 400, ""},
		{"made in the future", late.Signed, 400, "future"},
		{"too long", append(bytes.TrimSuffix(bytes.Clone(good.Signed), []byte("}")), []byte(`,"x":"`+strings.Repeat("x", 17<<10)+`"}`)...), 400, "at most"},
		{"nonsense with a nonce", []byte(`{"type":"Flag","nonce":"x","proof":1}`), 400, ""},
		{"a report of another kind of server", encode(t, mallory.activity("Flag", mallory.origin+"/actor", []string{list})), 202, ""},
	} {
		got := mallory.send(n, letter{body: c.body})
		if got.code != c.code || !strings.Contains(got.body, c.says) {
			t.Errorf("%s: %d %q", c.name, got.code, got.body)
		}
	}
	if all := n.reviews(); len(all) != 0 {
		t.Fatalf("a person has to look at %+v", all)
	}
	// The good one is taken, also with what a relay put beside it, and once.
	for i := range 2 {
		if got := mallory.send(n, letter{body: good.Signed, at: time.Now().Add(time.Duration(i) * time.Second)}); got.code != 202 {
			t.Fatalf("%+v", got)
		}
	}
	again := mallory.flag(banned, "still wrong")
	if got := mallory.send(n, letter{body: append([]byte(`{"signature":{"type":"RsaSignature2017"},`), again.Signed[1:]...)}); got.code != 202 {
		t.Fatalf("%+v", got)
	}
	all := n.reviews()
	if len(all) != 1 || !strings.HasSuffix(all[0].Summary, "In their words: wrong") {
		t.Errorf("a person has to look at %+v", all)
	}
	// Keys of strangers do not fill the database, nor do disputes fill the log.
	keys, err := n.db.Keys(t.Context())
	if err != nil || len(keys) != 1 || n.lists.Seq() != 2 {
		t.Errorf("%d keys, %d statements, %v", len(keys), n.lists.Seq(), err)
	}
	// The same request again is a replay, whatever is in it.
	r := mallory.build(n, letter{body: mallory.flag(banned, "x").Signed})
	first := do(t, r)
	r2 := r.Clone(t.Context())
	r2.Body, _ = r.GetBody()
	if second := do(t, r2); first.code != 202 || second.code != 401 {
		t.Errorf("%d, then %d", first.code, second.code)
	}
}

// TestAttackDisputeOracle: the answer does not tell what is here, nor who may read it.
func TestAttackDisputeOracle(t *testing.T) {
	n := newNode(t)
	open, restricted, local := n.define("open", hashlist.Public), n.define("restricted", hashlist.Followers), n.define("local", hashlist.Local)
	mallory := newBad(t)
	var answers []answer
	for _, about := range []string{
		n.ban(open, pdq(t, 921)).ID, n.ban(restricted, pdq(t, 922)).ID, n.ban(local, pdq(t, 923)).ID,
		n.origin + "/statements/Tk9UIEEgUkVBTCBTVEFURU1FTlQsIEJVVCBBTiBJRC4", "https://elsewhere.example/statements/x", n.origin + "/lists/open",
	} {
		answers = append(answers, mallory.send(n, letter{body: mallory.flag(about, "wrong").Signed}))
	}
	for i, got := range answers {
		if fmt.Sprint(got) != fmt.Sprint(answers[0]) || got.code != http.StatusAccepted {
			t.Errorf("answer %d differs: %+v, %+v", i, got, answers[0])
		}
	}
	if all := n.reviews(); len(all) != 1 || all[0].List != open {
		t.Errorf("a person has to look at %+v", all)
	}
	// Who is approved may.
	if got, _ := mallory.attacker.follow(n, restricted); got.code != 202 {
		t.Fatalf("%+v", got)
	}
	if _, err := n.Decide(t.Context(), restricted, mallory.origin+"/actor", true); err != nil {
		t.Fatal(err)
	}
	mallory.send(n, letter{body: mallory.flag(n.ban(restricted, pdq(t, 924)).ID, "wrong").Signed})
	if all := n.reviews(); len(all) != 2 || all[1].List != restricted {
		t.Errorf("a person has to look at %+v", all)
	}
}

// TestAttackDisputeFlood: one server can neither bury a person in disputes nor shut out another.
func TestAttackDisputeFlood(t *testing.T) {
	n, mallory := newNode(t), newBad(t)
	list := n.define("open", hashlist.Public)
	var banned []string
	for i := range 40 {
		banned = append(banned, n.ban(list, pdq(t, 930+i)).ID)
	}
	codes := map[int]int{}
	for _, id := range banned {
		codes[mallory.send(n, letter{body: mallory.flag(id, "wrong").Signed}).code]++
	}
	if codes[202] < 30 || codes[429] == 0 || codes[202]+codes[429] != len(banned) {
		t.Errorf("answers: %v", codes)
	}
	if all := n.reviews(); len(all) != 20 {
		t.Errorf("a person has to look at %d", len(all))
	}
	other := newBad(t)
	if got := other.send(n, letter{body: other.flag(banned[39], "wrong").Signed}); got.code != 202 || len(n.reviews()) != 21 {
		t.Errorf("another server is shut out: %+v", got)
	}
}

// TestAttackUnaskedAnswers: nobody brings statements into a log by answering what was not asked.
func TestAttackUnaskedAnswers(t *testing.T) {
	n, mallory := newNode(t), newBad(t)
	mallory.followed(n)
	bans := []hashlist.Record{mallory.ban(pdq(t, 981)), mallory.ban(pdq(t, 982))}
	mallory.add(bans...)
	mallory.push(n, mallory.pageOf(1, 3, mallory.head(3), false))
	reached(t, n, mallory.list, 3)
	if _, err := n.Unfollow(t.Context(), mallory.list); err != nil {
		t.Fatal(err)
	}
	n.dispute(bans[0].Statement.ID, "wrong")
	until(t, "it is sent", func() bool { return !n.letter().Taken.IsZero() })
	size := n.lists.Seq()
	confirm := func(i int) []byte {
		return mallory.seal(hashlist.Statement{Kind: hashlist.Confirmation, About: bans[i].Statement.ID}).Signed
	}
	undo := func(i int, hashes ...hashlist.Hash) []byte {
		return mallory.seal(hashlist.Statement{Kind: hashlist.Retraction, Retracts: bans[i].Statement.ID, Hashes: hashes}).Signed
	}
	n.ForgetPaces()
	for what, body := range map[string][]byte{
		"to what was not asked":     confirm(1),
		"undoing what nobody asked": undo(1),
		"a part":                    undo(0, bans[0].Statement.Hashes...),
		"about nothing":             mallory.seal(hashlist.Statement{Kind: hashlist.Confirmation, About: "https://x.example/statements/x"}).Signed,
		"about this node's own":     mallory.seal(hashlist.Statement{Kind: hashlist.Confirmation, About: n.letter().Statement}).Signed,
		"a ban":                     mallory.ban(pdq(t, 983)).Signed,
	} {
		if got := mallory.send(n, letter{body: body}); got.code != 202 {
			t.Errorf("%s: %+v", what, got)
		}
		if n.lists.Seq() != size {
			t.Fatalf("%s: it is in the log", what)
		}
	}
	for range 3 {
		mallory.send(n, letter{body: confirm(0)})
	}
	if got := n.lists.Seq() - size; got != 1 {
		t.Errorf("%d confirmations are in the log", got)
	}
	for range 3 {
		mallory.send(n, letter{body: undo(0)})
	}
	if got := n.lists.Seq() - size; got != 2 {
		t.Errorf("%d answers are in the log", got)
	}
}
