package federation_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gowebpki/jcs"
	"github.com/mr-tron/base58"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
)

// forged is a statement of b's as change leaves it, with a proof and an id that fit: an
// issuer may sign whatever they like.
func (b *bad) forged(s hashlist.Statement, change func(o object)) hashlist.Record {
	b.t.Helper()
	r := b.seal(s)
	var o object
	if err := json.Unmarshal(r.Signed, &o); err != nil {
		b.t.Fatal(err)
	}
	delete(o, "id")
	delete(o, "proof")
	change(o["object"].(object))
	canonical := func(v any) []byte {
		c, err := jcs.Transform(encode(b.t, v))
		if err != nil {
			b.t.Fatal(err)
		}
		return c
	}
	sum := sha256.Sum256(canonical(o))
	r.Statement.ID = b.origin + "/statements/" + base64.RawURLEncoding.EncodeToString(sum[:])
	o["id"] = r.Statement.ID
	proof := object{
		"@context": o["@context"], "type": "DataIntegrityProof", "cryptosuite": "eddsa-jcs-2022", "created": o["published"],
		"proofPurpose": "assertionMethod", "verificationMethod": b.issuer.Actor() + "#" + federation.Multikey(b.issuer.PublicKey()),
	}
	options, document := sha256.Sum256(canonical(proof)), sha256.Sum256(canonical(o))
	proof["proofValue"] = "z" + base58.Encode(ed25519.Sign(b.secret, append(options[:], document[:]...)))
	o["proof"] = proof
	r.Signed = canonical(o)
	return r
}

// vouches makes the statement by which b vouches for somebody.
func vouches(object string, amount, depth uint8) hashlist.Statement {
	return hashlist.Statement{Kind: hashlist.Vouch, Vouch: &hashlist.Vouching{Object: object, Amount: amount, Depth: depth}}
}

// trusts has the node's admin vouch for somebody, on a list that stays here.
func (n *node) trusts(object string, amount, depth uint8) hashlist.Statement {
	n.t.Helper()
	if _, ok := n.lists.List(n.list("trust-private")); !ok {
		n.define("trust-private", hashlist.Local)
	}
	s := vouches(object, amount, depth)
	s.List = n.list("trust-private")
	return n.say(s)
}

func (n *node) belief(issuers ...string) int {
	return n.lists.Belief(time.Now(), "spam", issuers...).Amount
}

// trusting makes b one whose actor names its list as that of whom it believes.
func (b *bad) trusting() *bad {
	b.document("/users/mallory", with(b.person("/users/mallory", method(b.origin+"/users/mallory", b.secret)), object{"trust": b.list}))
	return b
}

// accepted has b accept that a node follows its list by itself.
func (b *bad) relied(by *node) {
	b.t.Helper()
	until(b.t, "the list of whom it believes is followed", func() bool {
		for _, f := range by.Follows() {
			if f.List == b.list && f.Told {
				return true
			}
		}
		return false
	})
	b.accept(by, statusOf(b.t, by, b.list).ID)
}

// Whoever is vouched for with a depth is asked whom they believe, and what they say
// counts as far as they are believed, until it is taken back.
func TestTrustTravels(t *testing.T) {
	a, b := newNode(t), newNode(t)
	carol := "http://carol.example/users/carol"
	list := a.define("trust", hashlist.Public)
	s := vouches(carol, 120, 0)
	s.List = list
	s = a.say(s)
	a.ban(list, pdq(t, 901))
	own := b.trusts(a.issuer.Actor(), 80, 1)
	until(t, "who a believes is believed", func() bool { return b.belief(carol) == 80 })
	f := statusOf(t, b, list)
	if !f.Terms.TrustOnly || f.Skipped != 1 || b.verdict(pdq(t, 901)) != hashlist.VerdictAllow {
		t.Errorf("a list of whom somebody believes lists media: %+v, %v", f, b.verdict(pdq(t, 901)))
	}
	if got := b.lists.Belief(time.Now(), "spam", carol); len(got.Flows) != 1 || len(got.Flows[0].Path) != 2 || got.Flows[0].Path[1].Statement != s.ID {
		t.Errorf("%+v", got)
	}
	b.stop()
	b.restart()
	until(t, "it is the same after a restart", func() bool { return b.belief(carol) == 80 })

	a.say(hashlist.Statement{Kind: hashlist.Retraction, List: list, Retracts: s.ID})
	until(t, "what a takes back counts no more", func() bool { return b.belief(carol) == 0 })

	// Followed for what it lists, it is read from the start.
	if _, err := b.Follow(t.Context(), list, hashlist.VerdictReject); err != nil {
		t.Fatal(err)
	}
	until(t, "it lists media now", func() bool { return b.verdict(pdq(t, 901)) == hashlist.VerdictReject })
	if f := statusOf(t, b, list); f.Terms.TrustOnly {
		t.Errorf("%+v", f)
	}
	_ = own
}

// Whom a node does not rely on any more, it does not ask any more.
func TestTrustEnds(t *testing.T) {
	a, b := newNode(t), newNode(t)
	carol := "http://carol.example/users/carol"
	list := a.define("trust", hashlist.Public)
	s := vouches(carol, 120, 0)
	s.List = list
	a.say(s)
	own := b.trusts(a.issuer.Actor(), 80, 1)
	until(t, "who a believes is believed", func() bool { return b.belief(carol) == 80 })
	b.say(hashlist.Statement{Kind: hashlist.Retraction, List: own.List, Retracts: own.ID})
	if got := b.belief(carol); got != 0 {
		t.Errorf("taken back, and believed %d", got)
	}
	until(t, "the list is unfollowed", func() bool { return statusOf(t, b, list).State == federation.FollowEnded })
}

// TestAttackTrust: what one who is believed a little, and may introduce others, can make of it.
func TestAttackTrust(t *testing.T) {
	me := func(b *bad) string { return b.issuer.Actor() }
	for _, c := range []struct {
		name    string
		records func(b *bad, n *node) []hashlist.Record
		believe func(b *bad, n *node) []string // who together must come to at most
		most    int
		refused bool // the list goes no further
	}{
		{"another's subject", func(b *bad, n *node) []hashlist.Record {
			return []hashlist.Record{b.forged(vouches("http://x.example/users/x", 120, 7), func(o object) { o["subject"] = n.issuer.Actor() })}
		}, func(b *bad, n *node) []string { return []string{"http://x.example/users/x"} }, 0, true},
		{"another relationship", func(b *bad, n *node) []hashlist.Record {
			return []hashlist.Record{b.forged(vouches("http://x.example/users/x", 120, 7), func(o object) { o["relationship"] = "http://purl.org/vocab/relationship/knowsOf" })}
		}, func(b *bad, n *node) []string { return []string{"http://x.example/users/x"} }, 0, true},
		{"more than there is", func(b *bad, n *node) []hashlist.Record {
			return []hashlist.Record{b.forged(vouches("http://x.example/users/x", 120, 7), func(o object) { o["amount"] = 255 })}
		}, func(b *bad, n *node) []string { return []string{"http://x.example/users/x"} }, 0, true},
		{"a number that wraps", func(b *bad, n *node) []hashlist.Record {
			return []hashlist.Record{b.forged(vouches("http://x.example/users/x", 120, 7), func(o object) { o["amount"], o["depth"] = 256+120, -1 })}
		}, func(b *bad, n *node) []string { return []string{"http://x.example/users/x"} }, 0, true},
		{"deeper than there is", func(b *bad, n *node) []hashlist.Record {
			return []hashlist.Record{b.forged(vouches("http://x.example/users/x", 120, 7), func(o object) { o["depth"] = 8 })}
		}, func(b *bad, n *node) []string { return []string{"http://x.example/users/x"} }, 0, true},
		{"itself", func(b *bad, n *node) []hashlist.Record {
			return []hashlist.Record{b.forged(vouches("http://x.example/users/x", 120, 7), func(o object) { o["object"] = me(b) })}
		}, func(b *bad, n *node) []string { return []string{me(b)} }, 40, true},
		{"deeper than it may", func(b *bad, n *node) []hashlist.Record {
			return []hashlist.Record{b.seal(vouches(b.origin+"/users/second", 120, 7))}
		}, func(b *bad, n *node) []string { return []string{b.origin + "/users/second"} }, 40, false},
		{"the node's own issuer", func(b *bad, n *node) []hashlist.Record {
			return []hashlist.Record{b.seal(vouches(n.issuer.Actor(), 120, 7)), b.seal(vouches("http://x.example/users/x", 120, 0))}
		}, func(b *bad, n *node) []string { return []string{me(b), "http://x.example/users/x"} }, 40, false},
		{"a thousand invented ones", func(b *bad, n *node) []hashlist.Record {
			var all []hashlist.Record
			for i := range 1000 {
				all = append(all, b.seal(vouches(fmt.Sprintf("http://x%d.example/users/x", i), 120, 7)))
			}
			return all
		}, func(b *bad, n *node) []string {
			all := []string{me(b)}
			for i := range 1000 {
				all = append(all, fmt.Sprintf("http://x%d.example/users/x", i))
			}
			return all
		}, 40, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, b := newNode(t), newBad(t).trusting()
			records := c.records(b, n)
			if b.items = append(b.items, records...); len(b.items) > 1000 {
				b.servePage(0, b.pageOf(0, 1000, b.head(1000), true))
				b.servePage(1000, b.pageOf(1000, len(b.items), b.head(len(b.items)), false))
			} else {
				b.serveLog()
			}
			n.trusts(me(b), 40, 1)
			b.relied(n)
			if c.refused {
				until(t, "it is in trouble", func() bool { return statusOf(t, n, b.list).Trouble != "" })
				if f := statusOf(t, n, b.list); f.Position != 0 || strings.Contains(f.Trouble, "pdq:") {
					t.Errorf("%+v", f)
				}
			} else {
				reached(t, n, b.list, uint64(1+len(records)))
			}
			got := n.lists.Belief(time.Now(), "spam", c.believe(b, n)...)
			if got.Amount > c.most || got.Independent > 1 {
				t.Errorf("believed %d, as %d, at most %d is right", got.Amount, got.Independent, c.most)
			}
			if got := n.belief(me(b)); got != 40 {
				t.Errorf("who did it is believed %d", got)
			}
		})
	}
}

// A new key that no older one backs says nothing here until a person has compared it, and
// what the old one said stays as it was.
func TestAttackNewKey(t *testing.T) {
	n, b := newNode(t), newBad(t)
	user := "/users/mallory"
	b.add(b.ban(pdq(t, 911)))
	b.followed(n)
	reached(t, n, b.list, 2)
	_, next, _ := ed25519.GenerateKey(rand.Reader)
	old := method(b.origin+user, b.secret)
	b.document(user, b.person(user, old, method(b.origin+user, next)))
	b.secret = next
	var err error
	if b.issuer, err = federation.NewIssuer(b.origin+user, next); err != nil {
		t.Fatal(err)
	}
	b.add(b.ban(pdq(t, 912)))
	if got := b.push(n, b.pageOf(2, 3, b.head(3), false)); got.code != 202 {
		t.Errorf("%+v", got)
	}
	until(t, "the operator is told", func() bool { return strings.Contains(statusOf(t, n, b.list).Trouble, "tocsin trust verify") })
	check := func(after hashlist.Verdict, state federation.KeyState) {
		t.Helper()
		if got := n.verdict(pdq(t, 911)); got != hashlist.VerdictReject {
			t.Errorf("what the old key said: %v", got)
		}
		if got := n.verdict(pdq(t, 912)); got != after {
			t.Errorf("what the new key said: %v", got)
		}
		for _, k := range n.IssuerKeys(b.issuer.Actor()) {
			if k.Public.Equal(b.issuer.PublicKey()) && k.State != state {
				t.Errorf("the key is %v, want %v", k.State, state)
			}
		}
	}
	check(hashlist.VerdictAllow, federation.KeyDoubted)
	// Nor does it say anything in a letter.
	mine := n.ban(n.define("mine", hashlist.Public), pdq(t, 913)).ID
	if got := b.send(n, letter{body: b.flag(mine, "wrong").Signed}); got.code != 400 || !strings.Contains(got.body, "nothing but the server") || len(n.reviews()) != 0 {
		t.Errorf("a dispute with the new key: %+v, %d wait", got, len(n.reviews()))
	}
	n.stop()
	n.restart()
	check(hashlist.VerdictAllow, federation.KeyDoubted)

	print := federation.Fingerprint(b.issuer.Actor(), b.issuer.PublicKey())
	for _, wrong := range []string{"", "x", print[:len(print)-1], print + "1", strings.Replace(print, print[:1], string('0'+(print[0]-'0'+1)%10), 1)} {
		if _, err := n.VerifyKey(t.Context(), b.issuer.Actor(), wrong, "alice"); err == nil {
			t.Errorf("the fingerprint %q was taken", wrong)
		}
	}
	check(hashlist.VerdictAllow, federation.KeyDoubted)
	if _, err := n.VerifyKey(t.Context(), b.issuer.Actor(), strings.ReplaceAll(print, " ", "-"), "alice"); err != nil {
		t.Fatal(err)
	}
	until(t, "what waited is taken over", func() bool { return n.verdict(pdq(t, 912)) == hashlist.VerdictReject })
	check(hashlist.VerdictReject, federation.KeyVerified)
	n.stop()
	n.restart()
	check(hashlist.VerdictReject, federation.KeyVerified)
}

// A key that the one before it has signed for is taken without asking; one that is signed for by a key that was
// in other hands, or with a proof for another key, is not.
func TestKeySuccession(t *testing.T) {
	a, b := newNode(t), newNode(t)
	list := a.define("refused", hashlist.Public)
	if _, err := b.Follow(t.Context(), list, hashlist.VerdictReject); err != nil {
		t.Fatal(err)
	}
	until(t, "it is followed", func() bool { return statusOf(t, b, list).State == federation.FollowAccepted })
	rotate := func(old *federation.Issuer, stolen bool) {
		t.Helper()
		// What is dated in the second in which a key is replaced does not count.
		said := time.Now().Unix()
		until(t, "a second is over", func() bool { return time.Now().Unix() > said })
		var compromised time.Time
		if stolen {
			compromised = time.Now()
		}
		_, next, _ := ed25519.GenerateKey(rand.Reader)
		issuer, err := federation.NewIssuer(a.issuer.Actor(), next)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.RotateIssuerKey(t.Context(), a.issuer.Actor(), issuer.PublicKey(), old, compromised); err != nil {
			t.Fatal(err)
		}
		a.issuer = issuer
	}
	stateOf := func() federation.KeyState {
		for _, k := range b.IssuerKeys(a.issuer.Actor()) {
			if k.Public.Equal(a.issuer.PublicKey()) {
				return k.State
			}
		}
		return 255
	}
	rotate(a.issuer, false)
	a.ban(list, pdq(t, 921))
	until(t, "what the next key says is taken over", func() bool { return b.verdict(pdq(t, 921)) == hashlist.VerdictReject })
	if got := stateOf(); got != federation.KeyBacked {
		t.Errorf("a key that is backed is %v", got)
	}
	rotate(a.issuer, true)
	a.ban(list, pdq(t, 922))
	until(t, "the operator is told", func() bool { return strings.Contains(statusOf(t, b, list).Trouble, "tocsin trust verify") })
	if got := stateOf(); got != federation.KeyDoubted || b.verdict(pdq(t, 922)) != hashlist.VerdictAllow {
		t.Errorf("a key after one that was in other hands is %v, and what it says comes to %v", got, b.verdict(pdq(t, 922)))
	}
	if _, err := b.VerifyKey(t.Context(), a.issuer.Actor(), federation.Fingerprint(a.issuer.Actor(), a.issuer.PublicKey()), "bob"); err != nil {
		t.Fatal(err)
	}
	until(t, "what waited is taken over", func() bool { return b.verdict(pdq(t, 922)) == hashlist.VerdictReject })
}

func TestFingerprint(t *testing.T) {
	key := make(ed25519.PublicKey, ed25519.PublicKeySize)
	got := federation.Fingerprint("https://hashes.example/users/alice", key)
	if len(strings.Fields(got)) != 8 || len(got) != 47 || got == federation.Fingerprint("https://hashes.example/users/bob", key) {
		t.Errorf("%q", got)
	}
	// It stands in letters and on paper: it never changes.
	if want := "09032 25819 06704 82766 17895 15421 36668 50548"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
