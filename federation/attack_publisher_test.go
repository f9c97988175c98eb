package federation_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
)

// edited is a sealed statement changed as by somebody on the way: the proof stays.
func edited(t testing.TB, signed []byte, change func(object)) json.RawMessage {
	t.Helper()
	var o object
	if err := json.Unmarshal(signed, &o); err != nil {
		t.Fatal(err)
	}
	change(o)
	return encode(t, o)
}

// TestAttackPages: what a publisher, or somebody who got between, can do with a page of a list that is
// followed. Whatever it is, nothing of the page counts, and the list goes on as soon as a good one comes.
func TestAttackPages(t *testing.T) {
	n := newNode(t)
	own := n.define("own", hashlist.Public)
	n.ban(own, pdq(t, 900))
	victim := newBad(t) // another list that is followed
	victim.followed(n)
	reached(t, n, victim.list, 1)
	b := newBad(t)
	b.add(b.ban(pdq(t, 101)))
	b.followed(n)
	reached(t, n, b.list, 2)
	foreign := newBad(t) // not followed

	// An issuer of the same server who may not write to the list, and one whose key nobody lists.
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	eve, err := federation.NewIssuer(b.origin+"/users/eve", key)
	if err != nil {
		t.Fatal(err)
	}
	b.document("/users/eve", b.person("/users/eve", method(eve.Actor(), key)))
	unlisted, err := federation.NewIssuer(b.origin+"/users/mallory", key)
	if err != nil {
		t.Fatal(err)
	}
	by := func(i *federation.Issuer, s hashlist.Statement) json.RawMessage {
		r, err := i.Seal(s)
		if err != nil {
			t.Fatal(err)
		}
		return r.Signed
	}
	add := func(list string, h int) hashlist.Statement {
		return hashlist.Statement{Kind: hashlist.AddHashes, List: list, Hashes: []hashlist.Hash{pdq(t, h)}}
	}
	good := b.ban(pdq(t, 102))
	one := func(items ...json.RawMessage) []byte { return b.rawPage(2, items, "", false) }
	top := b.head(2)
	raw := func(format string, args ...any) []byte {
		return fmt.Appendf(nil, `{"type":"OrderedCollectionPage","partOf":"%s/log",`+format+`}`, append([]any{b.list}, args...)...)
	}
	for _, c := range []struct {
		name string
		page []byte
		says string
	}{
		{"statement altered on the way", one(edited(t, good.Signed, func(o object) { o["summary"] = "x" })), "digest of its content"},
		{"hash altered on the way", one(edited(t, good.Signed, func(o object) { o["object"].(object)["hashes"] = []string{pdq(t, 103).String()} })), "digest of its content"},
		{"proof over other bytes", one(edited(t, good.Signed, func(o object) { o["proof"] = json.RawMessage(proofOf(t, b.items[1].Signed)) })), ""},
		{"no proof", one(edited(t, good.Signed, func(o object) { delete(o, "proof") })), "no proof"},
		{"hash that cannot be read", one(edited(t, good.Signed, func(o object) {
			o["object"].(object)["hashes"] = []string{strings.Replace(pdq(t, 103).String(), "pdq:", "pdx:", 1)}
		})), ""},
		{"hash without algorithm", one(edited(t, good.Signed, func(o object) { o["object"].(object)["hashes"] = []string{pdq(t, 103).Hex()} })), ""},
		{"issuer of the server who may not write", one(by(eve, add(b.list, 104))), "may not write"},
		{"issuer of another server", one(foreign.ban(pdq(t, 105)).Signed), "may not write"},
		{"issuer of another server for this list", one(edited(t, good.Signed, func(o object) { o["actor"] = foreign.issuer.Actor() })), ""},
		{"statement of another list", one(by(b.issuer, add(b.origin+"/lists/other", 106))), "of the list"},
		{"statement of this node's own list", one(firstOf(t, n, own)), "may not write"},
		{"statement of another followed list", one(victim.items[0].Signed), "may not write"},
		{"key that the issuer does not list", one(by(unlisted, add(b.list, 107))), "has no key"},
		{"null for a statement", one(json.RawMessage(`null`)), "not a JSON object"},
		{"a string for a statement", one(json.RawMessage(`"` + good.Statement.ID + `"`)), "not a JSON object"},
		{"deep statement", one(edited(t, good.Signed, func(o object) {
			o["x"] = json.RawMessage(strings.Repeat("[", 40) + strings.Repeat("]", 40))
		})), "nested"},
		{"number above 2^53 in a statement", one(edited(t, good.Signed, func(o object) { o["x"] = json.RawMessage("9007199254740993") })), "2^53"},
		{"duplicate keys in a statement", one(json.RawMessage(`{"type":"Add",` + string(good.Signed[1:]))), ""},
		{"good one behind a bad one", one(json.RawMessage(`{}`), good.Signed), ""},
		{"bad one behind a good one", one(good.Signed, json.RawMessage(`{}`)), ""},
		{"startIndex below zero", raw(`"startIndex":-1,"orderedItems":[]`), "place in a log"},
		{"startIndex above 2^53", raw(`"startIndex":9007199254740994,"orderedItems":[]`), "place in a log"},
		{"startIndex beyond 64 bits", raw(`"startIndex":1e40,"orderedItems":[]`), "place in a log"},
		{"startIndex with a fraction", raw(`"startIndex":2.5,"orderedItems":[]`), "place in a log"},
		{"no startIndex", raw(`"orderedItems":[]`), "place in a log"},
		{"orderedItems is no array", raw(`"startIndex":2,"orderedItems":{}`), "not an array"},
		{"too many statements", raw(`"startIndex":2,"orderedItems":[%s0]`, strings.Repeat("0,", 1000)), "more than"},
		{"page of another list", bytes.ReplaceAll(one(good.Signed), []byte(b.list+"/log"), []byte(victim.list+"/log")), "no part of the log"},
		{"not a page", bytes.Replace(one(), []byte("OrderedCollectionPage"), []byte("Collection"), 1), "OrderedCollectionPage"},
		{"head of another list", b.rawPage(2, []any{}, signHead(t, victim.list, b.heads, 2, rootOf(t, nil)), false), "not signed"},
		{"head by another key", b.rawPage(2, []any{}, signHead(t, b.list, key, 2, rootOf(t, idsOf(b.items))), false), "not signed"},
		{"head by the issuer's key", b.rawPage(2, []any{}, signHead(t, b.list, b.secret, 2, rootOf(t, idsOf(b.items))), false), "not signed"},
		{"head altered on the way", b.rawPage(2, []any{}, strings.Replace(top, "\n2\n", "\n1\n", 1), false), "not signed"},
		{"head with a negative size", b.rawPage(2, []any{}, signHead(t, b.list, b.heads, -1, tlog.Hash{}), false), "size"},
		{"head that is too large", b.rawPage(2, []any{}, top+strings.Repeat("x", 5000), false), "larger than"},
		{"head with control characters", b.rawPage(2, []any{}, "\x1b[2J\n", false), "not signed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := statusOf(t, n, b.list)
			got := b.push(n, c.page)
			if got.code != 400 || !strings.Contains(got.body, c.says) || strings.ContainsAny(got.body, "\x1b\x00") {
				t.Errorf("got %d %q, want 400 %q", got.code, got.body, c.says)
			}
			if strings.Contains(got.body, pdq(t, 103).Hex()) {
				t.Errorf("a hash of a list is in %q", got.body)
			}
			after := statusOf(t, n, b.list)
			if after.Position != before.Position || after.State != federation.FollowAccepted || n.verdict(pdq(t, 102)) != hashlist.VerdictAllow {
				t.Errorf("%+v", after)
			}
		})
	}
	for name, l := range map[string]letter{
		"push by somebody else's key":         {body: encode(t, foreign.activity("Announce", b.list, json.RawMessage(one(good.Signed)))), keyID: foreign.list + "#main-key"},
		"push for a list of somebody else":    {body: encode(t, foreign.activity("Announce", foreign.list, json.RawMessage(one(good.Signed)))), keyID: foreign.list + "#main-key"},
		"push by another actor of the server": {body: encode(t, b.activity("Announce", b.list, json.RawMessage(one(good.Signed)))), keyID: b.origin + "/actor#main-key"},
	} {
		t.Run(name, func(t *testing.T) {
			sender := foreign.attacker
			if strings.HasPrefix(l.keyID, b.origin) {
				sender = b.attacker
			}
			before := n.Counters()
			if got := sender.send(n, l); got.code != 202 || n.Counters().Ignored != before.Ignored+1 || statusOf(t, n, b.list).Position != 2 {
				t.Errorf("%+v, %+v", got, statusOf(t, n, b.list))
			}
		})
	}
	t.Run("a followed publisher pushes for another list", func(t *testing.T) {
		l := letter{body: encode(t, victim.activity("Announce", b.list, json.RawMessage(one(good.Signed)))), keyID: victim.list + "#main-key"}
		if got := victim.send(n, l); got.code != 400 || statusOf(t, n, b.list).Position != 2 {
			t.Errorf("%+v", got)
		}
	})
	t.Run("it goes on", func(t *testing.T) {
		b.add(good)
		if got := b.push(n, b.pageOf(2, 3, b.head(3), false)); got.code != 202 || n.verdict(pdq(t, 102)) != hashlist.VerdictReject {
			t.Fatalf("%+v", got)
		}
		if got := b.push(n, b.pageOf(0, 3, b.head(3), false)); got.code != 202 || statusOf(t, n, b.list).Position != 3 {
			t.Errorf("an overlap: %+v, %+v", got, statusOf(t, n, b.list))
		}
		b.add(b.ban(pdq(t, 108)), b.ban(pdq(t, 109)))
		if got := b.push(n, b.pageOf(4, 5, b.head(5), false)); got.code != 202 {
			t.Errorf("a gap: %+v", got)
		}
		until(t, "the gap is fetched", func() bool { return n.verdict(pdq(t, 108)) == hashlist.VerdictReject })
		v, err := n.Verify(t.Context(), b.list, nil)
		if err != nil || !v.Passed() || v.Size != 5 {
			t.Errorf("%+v, %v", v, err)
		}
		if s := statusOf(t, n, victim.list); s.State != federation.FollowAccepted || s.Position != 1 || s.Trouble != "" {
			t.Errorf("the other list: %+v", s)
		}
	})
}

func proofOf(t testing.TB, signed []byte) []byte {
	t.Helper()
	var o map[string]json.RawMessage
	if err := json.Unmarshal(signed, &o); err != nil {
		t.Fatal(err)
	}
	return o["proof"]
}

func idsOf(all []hashlist.Record) (ids []string) {
	for _, r := range all {
		ids = append(ids, r.Statement.ID)
	}
	return ids
}

func firstOf(t testing.TB, n *node, list string) json.RawMessage {
	t.Helper()
	for r, err := range n.lists.After(t.Context(), 0, hashlist.Selection{List: list, Signed: true}) {
		if err != nil {
			t.Fatal(err)
		}
		return r.Signed
	}
	t.Fatal("the list is empty")
	return nil
}

// TestAttackHistory: a publisher that changes what it has shown is found out, and nothing more is taken over.
func TestAttackHistory(t *testing.T) {
	for name, lie := range map[string]func(t *testing.T, n *node, b *bad){
		"two heads of one size": func(t *testing.T, n *node, b *bad) {
			ids := idsOf(b.items)
			ids[1], ids[2] = ids[2], ids[1]
			b.push(n, b.rawPage(3, []any{}, signHead(t, b.list, b.heads, 3, rootOf(t, ids)), false))
		},
		"head of fewer with another root": func(t *testing.T, n *node, b *bad) {
			b.push(n, b.rawPage(3, []any{}, signHead(t, b.list, b.heads, 1, rootOf(t, []string{"x"})), false))
		},
		"gone back and on": func(t *testing.T, n *node, b *bad) {
			b.items = append(b.items[:2:2], b.ban(pdq(t, 204)))
			b.add(b.ban(pdq(t, 205)))
			b.push(n, b.pageOf(3, 4, b.head(4), false))
		},
		"a statement taken out": func(t *testing.T, n *node, b *bad) {
			b.items = append(b.items[:1:1], b.items[2:]...)
			b.add(b.ban(pdq(t, 205)))
			b.push(n, b.pageOf(2, 3, b.head(3), false))
		},
	} {
		t.Run(name, func(t *testing.T) {
			n, b := newNode(t), newBad(t)
			b.add(b.ban(pdq(t, 201)), b.ban(pdq(t, 202)))
			b.followed(n)
			reached(t, n, b.list, 3)
			before := n.fold()
			lie(t, n, b)
			s := statusOf(t, n, b.list)
			if s.State != federation.FollowDiverged || !strings.Contains(s.Trouble, "different histories") || s.Position != 3 || n.fold() != before {
				t.Fatalf("%+v", s)
			}
			if n.verdict(pdq(t, 201)) != hashlist.VerdictReject {
				t.Error("what came before acts no more")
			}
			// It stays so, whatever comes, and after a restart.
			b.accept(n, s.ID)
			b.push(n, b.pageOf(0, len(b.items), b.head(len(b.items)), false))
			n.stop()
			n.restart()
			if s := statusOf(t, n, b.list); s.State != federation.FollowDiverged || s.Position != 3 {
				t.Errorf("after a restart: %+v", s)
			}
			if v, err := n.Verify(t.Context(), b.list, nil); err != nil || v.Passed() {
				t.Errorf("%+v, %v", v, err)
			}
			if _, err := n.FollowAnew(t.Context(), b.list); err != nil {
				t.Fatal(err)
			}
			reached(t, n, b.list, uint64(len(b.items)))
		})
	}
	t.Run("log shorter than a head it signed", func(t *testing.T) {
		n, b := newNode(t), newBad(t)
		b.followed(n)
		reached(t, n, b.list, 1)
		b.push(n, b.rawPage(1, []any{}, signHead(t, b.list, b.heads, 1<<60, tlog.Hash{1}), true))
		until(t, "it is noticed", func() bool { return strings.Contains(statusOf(t, n, b.list).Trouble, "holds some back") })
		if s := statusOf(t, n, b.list); s.State != federation.FollowAccepted || s.Position != 1 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("different histories for different followers", func(t *testing.T) {
		n, m, b := newNode(t), newNode(t), newBad(t)
		b.add(b.ban(pdq(t, 301)))
		b.followed(n)
		reached(t, n, b.list, 2)
		b.items = b.items[:1]
		b.add(b.ban(pdq(t, 302)))
		b.followed(m)
		reached(t, m, b.list, 2)
		v, err := n.Verify(t.Context(), b.list, []string{m.origin})
		if err != nil || v.Passed() {
			t.Errorf("%+v, %v", v, err)
		}
		for _, who := range []*node{n, m} {
			if s := statusOf(t, who, b.list); !strings.Contains(s.Trouble, "another history") {
				t.Errorf("%s: %+v", who.origin, s)
			}
		}
	})
}

// TestAttackLog: what a publisher can answer to who reads its log.
func TestAttackLog(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(b *bad) http.HandlerFunc // at /log/1
		says   string
	}{
		"a page of elsewhere": {func(b *bad) http.HandlerFunc { return sendPage(b.pageOf(0, 1, b.head(1), false)) }, "begins elsewhere"},
		"more and no items":   {func(b *bad) http.HandlerFunc { return sendPage(b.rawPage(1, []any{}, b.head(1), true)) }, "begins elsewhere"},
		"wrong media type": {func(b *bad) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/html")
				w.Write(b.pageOf(1, 1, b.head(1), false))
			}
		}, "media type"},
		"gzip bomb": {func(b *bad) http.HandlerFunc {
			bomb := gzipBomb(b.t, 32<<20)
			return func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/activity+json")
				w.Header().Set("Content-Encoding", "gzip")
				w.Write(bomb)
			}
		}, "larger than"},
		"endless page": {func(b *bad) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/activity+json")
				blank := bytes.Repeat([]byte(" "), 1<<16)
				for {
					if _, err := w.Write(blank); err != nil {
						return
					}
				}
			}
		}, "larger than"},
		"redirect to another server": {func(b *bad) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
			}
		}, "redirects to another server"},
		"redirect to a file": {func(b *bad) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", "file:///etc/passwd")
				w.WriteHeader(http.StatusFound)
			}
		}, "redirects"},
		"redirect in a circle": {func(b *bad) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }
		}, "more than 3 redirects"},
		"control characters": {func(b *bad) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/\x1b[2Jx")
				fmt.Fprint(w, "\x1b[2J")
			}
		}, ""},
		"bytes that are no HTTP": {func(b *bad) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				c, _, err := w.(http.Hijacker).Hijack()
				if err != nil {
					panic(err)
				}
				fmt.Fprintf(c, "\x1b[2J\xff\x00 not HTTP %s\r\n\r\n", strings.Repeat("\xff", 2000))
				c.Close()
			}
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			n, b := newNode(t), newBad(t)
			b.page("/lists/bad/log/1", c.answer(b))
			b.followed(n)
			// By a push of one it gets past the first page, and then asks for the next.
			if got := b.push(n, b.pageOf(0, 1, b.head(1), true)); got.code != 202 {
				t.Fatalf("%+v", got)
			}
			until(t, "the trouble is noted", func() bool { return statusOf(t, n, b.list).Trouble != "" })
			s := statusOf(t, n, b.list)
			if !strings.Contains(s.Trouble, c.says) || strings.ContainsAny(s.Trouble, "\x1b\x00") || !utf8.ValidString(s.Trouble) || s.Position != 1 || s.State != federation.FollowAccepted {
				t.Errorf("%+v", s)
			}
			b.add(b.ban(pdq(t, 401)))
			b.accept(n, s.ID)
			reached(t, n, b.list, 2)
		})
	}
	t.Run("items that repeat", func(t *testing.T) {
		n, b := newNode(t), newBad(t)
		twice := b.ban(pdq(t, 402))
		b.add(twice, twice, twice)
		b.followed(n)
		reached(t, n, b.list, 4)
		if n.verdict(pdq(t, 402)) != hashlist.VerdictReject || n.lists.Counts().Statements != 2 {
			t.Errorf("%+v", n.lists.Counts())
		}
	})
	t.Run("retraction of another's statement", func(t *testing.T) {
		n, b, victim := newNode(t), newBad(t), newBad(t)
		ban := victim.ban(pdq(t, 403))
		victim.add(ban)
		victim.followed(n)
		reached(t, n, victim.list, 2)
		// Of another server it is no statement at all; the wire form is written by hand.
		undo := b.seal(hashlist.Statement{Kind: hashlist.Retraction, Retracts: b.items[0].Statement.ID})
		b.followed(n)
		reached(t, n, b.list, 1)
		forged := edited(t, undo.Signed, func(o object) { o["object"] = ban.Statement.ID })
		if got := b.push(n, b.rawPage(1, []any{forged}, "", false)); got.code != 400 {
			t.Errorf("%+v", got)
		}
		// Of the same server and list, by another who may write to it: it is kept, and does nothing.
		_, key, _ := ed25519.GenerateKey(rand.Reader)
		eve, err := federation.NewIssuer(b.origin+"/users/eve", key)
		if err != nil {
			t.Fatal(err)
		}
		b.document("/users/eve", b.person("/users/eve", method(eve.Actor(), key)))
		b.document("/lists/bad", with(b.listActor(), object{"attributedTo": []string{b.origin + "/users/mallory", eve.Actor()}}))
		mine := b.ban(pdq(t, 404))
		r, err := eve.Seal(hashlist.Statement{Kind: hashlist.Retraction, List: b.list, Retracts: mine.Statement.ID})
		if err != nil {
			t.Fatal(err)
		}
		b.add(mine, r)
		b.accept(n, statusOf(t, n, b.list).ID) // its actors have changed
		reached(t, n, b.list, 3)
		for _, h := range []int{403, 404} {
			if v := n.verdict(pdq(t, h)); v != hashlist.VerdictReject {
				t.Errorf("hash %d: %v", h, v)
			}
		}
	})
	t.Run("published far in the future", func(t *testing.T) {
		n, b := newNode(t), newBad(t)
		late := b.seal(hashlist.Statement{Kind: hashlist.AddHashes, Hashes: []hashlist.Hash{pdq(t, 405)}, Published: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)})
		b.add(late)
		b.followed(n)
		reached(t, n, b.list, 2)
		// It counts, on its own list, and a retraction of today ends it.
		if v := n.verdict(pdq(t, 405)); v != hashlist.VerdictReject {
			t.Errorf("%v", v)
		}
		b.add(b.seal(hashlist.Statement{Kind: hashlist.Retraction, Retracts: late.Statement.ID}))
		b.push(n, b.pageOf(2, 3, b.head(3), false))
		if v := n.verdict(pdq(t, 405)); v != hashlist.VerdictAllow {
			t.Errorf("retracted: %v", v)
		}
	})
}

func sendPage(page []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/activity+json")
		w.Write(page)
	}
}

// TestAttackAnswers: who says that a Follow was accepted or not.
func TestAttackAnswers(t *testing.T) {
	n, b, mallory := newNode(t), newBad(t), newBad(t)
	s, err := n.Follow(t.Context(), b.list, hashlist.VerdictReject)
	if err != nil {
		t.Fatal(err)
	}
	mallory.followed(n)
	reached(t, n, mallory.list, 1)
	says := func(by *bad, kind, actor, follow, key string) letter {
		return letter{body: encode(t, by.activity(kind, actor, object{"type": "Follow", "id": follow, "actor": n.origin + "/actor", "object": b.list})), keyID: key}
	}
	rows := func(kind string, state federation.FollowState) {
		for name, l := range map[string]letter{
			"by another publisher in its name":    says(mallory, kind, b.list, s.ID, mallory.list+"#main-key"),
			"by another publisher":                says(mallory, kind, mallory.list, s.ID, mallory.list+"#main-key"),
			"by another actor of its server":      says(b, kind, b.origin+"/actor", s.ID, b.origin+"/actor#main-key"),
			"by its server in the list's name":    says(b, kind, b.list, s.ID, b.origin+"/actor#main-key"),
			"for another follow":                  says(b, kind, b.list, n.origin+"/follows/00000000000000000000000000000000", b.list+"#main-key"),
			"for no follow":                       {body: encode(t, b.activity(kind, b.list, object{"type": "Follow", "actor": n.origin + "/actor", "object": b.list})), keyID: b.list + "#main-key"},
			"for the list instead of the follow":  {body: encode(t, b.activity(kind, b.list, b.list)), keyID: b.list + "#main-key"},
			"for the follow of another publisher": says(b, kind, b.list, statusOf(t, n, mallory.list).ID, b.list+"#main-key"),
		} {
			t.Run(kind+" "+name, func(t *testing.T) {
				by := mallory.attacker
				if strings.HasPrefix(l.keyID, b.origin) {
					by = b.attacker
				}
				by.send(n, l)
				if got := statusOf(t, n, b.list); got.State != state {
					t.Errorf("%+v", got)
				}
				if got := statusOf(t, n, mallory.list); got.State != federation.FollowAccepted {
					t.Errorf("%+v", got)
				}
			})
		}
	}
	rows("Accept", federation.FollowAsked)
	b.push(n, b.pageOf(0, 1, b.head(1), false))
	if got := statusOf(t, n, b.list); got.Position != 0 {
		t.Errorf("a push before it was accepted: %+v", got)
	}
	b.accept(n, s.ID)
	reached(t, n, b.list, 1)
	rows("Reject", federation.FollowAccepted)

	// After it was ended nothing comes in, and no Accept takes it up again.
	if _, err := n.Unfollow(t.Context(), b.list); err != nil {
		t.Fatal(err)
	}
	b.add(b.ban(pdq(t, 501)))
	b.accept(n, s.ID)
	b.push(n, b.pageOf(1, 2, b.head(2), false))
	if got := statusOf(t, n, b.list); got.State != federation.FollowEnded || got.Position != 1 {
		t.Errorf("%+v", got)
	}
}
