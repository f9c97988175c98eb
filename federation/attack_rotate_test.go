package federation_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/mr-tron/base58"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
)

// backed is a key for which an older one has signed.
func backed(m object, old *federation.Issuer, secret ed25519.PrivateKey) object {
	text := "tocsin key succession 1\n" + old.Actor() + "\n" + m["publicKeyMultibase"].(string) + "\n"
	return with(m, object{
		"succeeds": old.Actor() + "#" + federation.Multikey(old.PublicKey()), "successionProof": "z" + base58.Encode(ed25519.Sign(secret, []byte(text))),
	})
}

// TestAttackKeys: what can be done with keys that are replaced, were stolen, or are too many.
func TestAttackKeys(t *testing.T) {
	second := func(ago time.Duration) time.Time { return time.Now().UTC().Add(-ago).Truncate(time.Second) }
	stamp := func(t time.Time) string { return t.Format(time.RFC3339) }
	newKey := func() ed25519.PrivateKey { _, k, _ := ed25519.GenerateKey(rand.Reader); return k }
	at := func(b *bad, h int, when time.Time) hashlist.Record {
		return b.seal(hashlist.Statement{Kind: hashlist.AddHashes, Hashes: []hashlist.Hash{pdq(t, h)}, Published: when})
	}
	user := "/users/mallory"

	t.Run("replaced", func(t *testing.T) {
		n, b := newNode(t), newBad(t)
		old, next := method(b.origin+user, b.secret), newKey()
		b.document(user, b.person(user, with(old, object{"expires": stamp(second(time.Hour))}), method(b.origin+user, next)))
		b.items = nil
		b.add(b.seal(hashlist.Statement{Kind: hashlist.DefineList, Published: second(3 * time.Hour), Definition: &hashlist.Definition{
			Name: "bad", Audience: hashlist.Public, Action: hashlist.Reject, Radii: hashlist.DefaultRadii,
		}}), at(b, 801, second(2*time.Hour)), at(b, 802, second(time.Minute)))
		b.followed(n)
		reached(t, n, b.list, 3)
		judged(t, n, map[int]hashlist.Verdict{801: hashlist.VerdictReject, 802: hashlist.VerdictAllow})
		if s := statusOf(t, n, b.list); s.Skipped != 1 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("in other hands", func(t *testing.T) {
		n, b := newNode(t), newBad(t)
		b.items = nil
		b.add(b.seal(hashlist.Statement{Kind: hashlist.DefineList, Published: second(3 * time.Hour), Definition: &hashlist.Definition{
			Name: "bad", Audience: hashlist.Public, Action: hashlist.Reject, Radii: hashlist.DefaultRadii,
		}}), at(b, 811, second(2*time.Hour)), at(b, 812, second(time.Minute)))
		s := b.followed(n)
		reached(t, n, b.list, 3)
		judged(t, n, map[int]hashlist.Verdict{811: hashlist.VerdictReject, 812: hashlist.VerdictReject})
		old, next := method(b.origin+user, b.secret), newKey()
		b.document(user, b.person(user, with(old, object{"expires": stamp(second(0)), "revoked": stamp(second(time.Hour))}), method(b.origin+user, next)))
		b.accept(n, s.ID)
		until(t, "the theft is known", func() bool { return n.verdict(pdq(t, 812)) == hashlist.VerdictAllow })
		judged(t, n, map[int]hashlist.Verdict{811: hashlist.VerdictReject})
		// The thief goes on, and says that it was said before.
		b.add(at(b, 813, second(-2*time.Second)))
		b.push(n, b.pageOf(3, 4, b.head(4), false))
		judged(t, n, map[int]hashlist.Verdict{813: hashlist.VerdictAllow})
		n.stop()
		n.restart()
		judged(t, n, map[int]hashlist.Verdict{811: hashlist.VerdictReject, 812: hashlist.VerdictAllow, 813: hashlist.VerdictAllow})
	})
	t.Run("not told of any more", func(t *testing.T) {
		n, b := newNode(t), newBad(t)
		s := b.followed(n)
		reached(t, n, b.list, 1)
		b.document(user, b.person(user, method(b.origin+user, newKey())))
		b.accept(n, s.ID)
		until(t, "the new key is known", func() bool { return len(n.IssuerKeys(b.origin+user)) == 2 })
		b.add(at(b, 821, second(-time.Minute)))
		b.push(n, b.pageOf(1, 2, b.head(2), false))
		judged(t, n, map[int]hashlist.Verdict{821: hashlist.VerdictAllow})
		if s := statusOf(t, n, b.list); s.Position != 2 || s.Skipped != 1 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("new, and found by fetching", func(t *testing.T) {
		n, b := newNode(t), newBad(t)
		b.followed(n)
		reached(t, n, b.list, 1)
		next := newKey()
		old, err := federation.NewIssuer(b.origin+user, b.secret)
		if err != nil {
			t.Fatal(err)
		}
		b.document(user, b.person(user, method(b.origin+user, b.secret), backed(method(b.origin+user, next), old, b.secret)))
		if b.issuer, err = federation.NewIssuer(b.origin+user, next); err != nil {
			t.Fatal(err)
		}
		b.add(b.ban(pdq(t, 831)))
		if got := b.push(n, b.pageOf(1, 2, b.head(2), false)); got.code != 202 {
			t.Errorf("%+v", got)
		}
		judged(t, n, map[int]hashlist.Verdict{831: hashlist.VerdictReject})
	})
	t.Run("unknown, over and over", func(t *testing.T) {
		n, b := newNode(t), newBad(t)
		b.followed(n)
		reached(t, n, b.list, 1)
		before := b.requests("GET " + user)
		stranger, err := federation.NewIssuer(b.origin+user, newKey())
		if err != nil {
			t.Fatal(err)
		}
		b.issuer = stranger
		page := b.rawPage(1, []any{jsonOf(b.ban(pdq(t, 841)))}, "", false)
		for range 60 {
			if got := b.push(n, page); got.code != 400 {
				t.Fatalf("%+v", got)
			}
		}
		if times := b.requests("GET "+user) - before; times > 12 {
			t.Errorf("the issuer was fetched %d times", times)
		}
	})
	t.Run("without end", func(t *testing.T) {
		n, b := newNode(t), newBad(t)
		s := b.followed(n)
		reached(t, n, b.list, 1)
		b.page(user, func(w http.ResponseWriter, r *http.Request) {
			methods := []any{method(b.origin+user, b.secret)}
			for range 31 {
				methods = append(methods, method(b.origin+user, newKey()))
			}
			w.Header().Set("Content-Type", "application/activity+json")
			w.Write(encode(t, b.person(user, methods...)))
		})
		for range 12 {
			before := b.requests("GET " + user)
			b.accept(n, s.ID)
			until(t, "it is asked again", func() bool { return b.requests("GET "+user) > before })
		}
		until(t, "it is too much", func() bool { return strings.Contains(statusOf(t, n, b.list).Trouble, "more than 256 keys") })
		if all := len(n.IssuerKeys(b.origin + user)); all > 256 {
			t.Errorf("%d keys are kept", all)
		}
		// What is said of those that are known still counts.
		b.document(user, b.person(user, with(method(b.origin+user, b.secret), object{"revoked": stamp(second(time.Hour))})))
		b.accept(n, s.ID)
		until(t, "a revocation", func() bool {
			for _, k := range n.IssuerKeys(b.origin + user) {
				if !k.Revoked.IsZero() {
					return true
				}
			}
			return false
		})
	})
}

// TestAttackThirdParties: a publisher cannot have this node trouble others.
func TestAttackThirdParties(t *testing.T) {
	n, b, other := newNode(t), newBad(t), newAttacker(t)
	other.follow(n, n.define("open", hashlist.Public)) // so that this node knows it
	s := b.followed(n)
	reached(t, n, b.list, 1)
	for range 15 {
		before := b.requests("GET /lists/bad/log/1")
		b.accept(n, s.ID)
		until(t, "the log is read", func() bool { return b.requests("GET /lists/bad/log/1") > before })
	}
	if times := other.requests("POST /witness"); times > 2 { // one question, in two schemes
		t.Errorf("somebody else was asked %d times", times)
	}
}

// TestAttackNames: what a server calls its things does not reach an operator's screen as it is, and
// a name leads to no other server.
func TestAttackNames(t *testing.T) {
	n, b := newNode(t), newBad(t)
	dirty := "\x1b[2Jpwned\r\n\u202egnp\u0085\u2028" + strings.Repeat("x", 5000)
	b.document("/lists/bad", with(b.listActor(), object{"name": dirty, "summary": dirty, "preferredUsername": "bad\x1b[1m"}))
	clean := func(what, text string) {
		t.Helper()
		if strings.ContainsAny(text, "\x1b\r\n\u202e\u0085\u2028") || len(text) > 2100 {
			t.Errorf("%s is %d bytes: %.80q", what, len(text), text)
		}
	}
	s := b.followed(n)
	clean("name", s.Name)
	clean("summary", s.Summary)
	if v, err := n.Inspect(t.Context(), b.list); err != nil {
		t.Error(err)
	} else {
		for _, l := range v.Summary {
			clean("summary of the inspection", l)
		}
		for _, c := range v.Checks {
			clean(c.Name, c.Detail)
		}
	}
	link := func(href, subject string) {
		b.page("/.well-known/webfinger", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/jrd+json")
			w.Write(encode(t, object{"subject": subject, "links": []any{object{"rel": "self", "type": "application/activity+json", "href": href}}}))
		})
	}
	victim := newBad(t)
	for name, c := range map[string][2]string{
		"link to another server": {victim.list, "acct:bad@" + b.addr},
		"subject elsewhere":      {b.list, "acct:bad@" + victim.addr},
		"link to a file":         {"file:///etc/passwd", "acct:bad@" + b.addr},
		"link with a user":       {strings.Replace(b.list, "http://", "http://x@", 1), "acct:bad@" + b.addr},
		"control characters":     {"\x1b[2J", "\x1b[2J@\x1b[2J"},
	} {
		t.Run("WebFinger, "+name, func(t *testing.T) {
			link(c[0], c[1])
			_, err := n.Follow(t.Context(), "@bad@"+b.addr, hashlist.VerdictReject)
			if err == nil {
				t.Fatal("it was followed")
			}
			clean("error", err.Error())
			if victim.requests("GET /lists/bad") != 0 {
				t.Error("it asked the other server")
			}
		})
	}
	for name, doc := range map[string]object{
		"inbox elsewhere":  with(b.listActor(), object{"inbox": victim.origin + "/actor/inbox"}),
		"issuer elsewhere": with(b.listActor(), object{"attributedTo": []string{victim.issuer.Actor()}}),
		"log elsewhere":    with(b.listActor(), object{"log": victim.list + "/log"}),
		"log of another":   with(b.listActor(), object{"log": b.origin + "/lists/other/log"}),
		"head elsewhere":   with(b.listActor(), object{"head": victim.list + "/head"}),
		"no head key":      with(b.listActor(), object{"assertionMethod": nil}),
		"another's id":     with(b.listActor(), object{"id": victim.list}),
		"no issuers":       with(b.listActor(), object{"attributedTo": nil}),
	} {
		t.Run("list actor, "+name, func(t *testing.T) {
			b.document("/lists/bad", doc)
			if _, err := n.Follow(t.Context(), b.list, 0); err == nil {
				t.Error("it was followed")
			}
			// Nor is what is followed already led elsewhere.
			before := b.requests("GET /lists/bad")
			b.accept(n, s.ID)
			until(t, "it is read again", func() bool { return b.requests("GET /lists/bad") > before })
			until(t, "the trouble is shown", func() bool { return statusOf(t, n, b.list).Trouble != "" })
			if got := statusOf(t, n, b.list); fmt.Sprint(got.Issuers) != fmt.Sprint([]string{b.issuer.Actor()}) {
				t.Errorf("%+v", got)
			}
		})
	}
	if victim.requests("POST /actor/inbox")+victim.requests("GET /lists/bad/log/0")+victim.requests("GET /users/mallory") != 0 {
		t.Error("another server was asked")
	}
}
