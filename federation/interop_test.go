package federation_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
)

// method is the id of the key that the node's admin signs with.
func (n *node) method() string {
	return n.issuer.Actor() + "#" + federation.Multikey(n.issuer.PublicKey())
}

// A signature is worth nothing if only we can check it: what Seal makes is checked by
// another implementation of canonical JSON, Multikeys and eddsa-jcs-2022, which finds the key
// as any server would. The reason is made of what serialisers disagree about.
func TestInteropStatements(t *testing.T) {
	peer := startFedify(t)
	if peer == nil {
		return
	}
	n := newNode(t)
	seal := func(s hashlist.Statement) hashlist.Record {
		t.Helper()
		s.Reason = "<b>&amp;</b> \"\\/\" \t\n \u00e9e\u0301 \u2028\u2029 \ufb33 \U0001f514 \U0010ffff"
		s.List = n.list("csam")
		r, err := n.issuer.Seal(s)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	add := seal(hashlist.Statement{
		Kind: hashlist.AddHashes, Hashes: []hashlist.Hash{pdq(t, 1), pdq(t, 2)}, Labels: []string{"csam", "gore"}, Action: hashlist.Drop,
		Expires: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
	})
	for _, c := range []struct {
		name, class string
		hashlist.Record
	}{
		{"hashes", "Add", add},
		{"accounts", "Add", seal(hashlist.Statement{
			Kind: hashlist.AddAccounts, Subjects: []string{"https://bad.example/users/mallory", "https://bad.example/@m?id=%C3%A9&x=1"}, Labels: []string{"spam"},
		})},
		{"an account", "Add", seal(hashlist.Statement{Kind: hashlist.AddAccounts, Subjects: []string{"https://bad.example/users/mallory"}})},
		{"instances", "Add", seal(hashlist.Statement{Kind: hashlist.AddInstances, Subjects: []string{"bad.example", "xn--bcher-kva.example"}})},
		{"content", "Add", seal(hashlist.Statement{Kind: hashlist.AddContent, Subjects: []string{"https://bad.example/p/1", "https://bad.example/m/1.jpg"}})},
		{"undo", "Undo", seal(hashlist.Statement{Kind: hashlist.Retraction, Retracts: add.Statement.ID})},
		{"undo a hash", "Undo", seal(hashlist.Statement{Kind: hashlist.Retraction, Retracts: add.Statement.ID, Hashes: []hashlist.Hash{pdq(t, 1)}})},
		{"undo a subject", "Undo", seal(hashlist.Statement{Kind: hashlist.Retraction, Retracts: add.Statement.ID, Subjects: []string{"bad.example"}})},
		{"confirmation", "Announce", seal(hashlist.Statement{Kind: hashlist.Confirmation, About: "https://other.example/statements/1"})},
		{"dispute", "Flag", seal(hashlist.Statement{Kind: hashlist.Dispute, About: "https://other.example/statements/1"})},
		{"definition", "Update", seal(hashlist.Statement{Kind: hashlist.DefineList, Definition: &hashlist.Definition{
			Name: "csam", Summary: "\u00e9\U0001f514", Labels: []string{"csam"}, Audience: hashlist.Followers, Action: hashlist.Reject,
			Radii: hashlist.DefaultRadii,
		}})},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := peer.verify(c.Signed)
			if !got.Verified || len(got.Keys) != 1 || got.Keys[0].ID != n.method() || got.Keys[0].Controller != n.issuer.Actor() {
				t.Errorf("Fedify does not take %s: %+v", c.Signed, got)
			}
			// So that it is known to look: the same, said a thousand years later.
			altered := bytes.Replace(c.Signed, []byte(`"published":"2`), []byte(`"published":"3`), 1)
			if got := peer.verify(altered); got.Verified || got.Error != "" {
				t.Errorf("Fedify on an altered statement: %+v", got)
			}
			// A statement is an activity: by its proof alone it gets through an inbox, and as what it is.
			for _, want := range []struct {
				body     []byte
				status   int
				listened string
			}{{c.Signed, http.StatusAccepted, c.class}, {altered, http.StatusUnauthorized, ""}} {
				answer, err := http.Post(peer.SharedInbox, "application/activity+json", bytes.NewReader(want.body))
				if err != nil {
					t.Fatal(err)
				}
				answer.Body.Close()
				e := peer.inbox(c.class)
				ok := want.status == http.StatusAccepted
				if answer.StatusCode != want.status || e.Listened != want.listened || e.Verified != ok ||
					len(e.Proofs) != 1 || e.Proofs[0].Verified != ok || e.Proofs[0].Key != n.method() {
					t.Errorf("Fedify answers %s to %.80s: %+v", answer.Status, want.body, e)
				}
			}
		})
	}
}

// A server of another kind follows a list, from its handle to the end, once for each way
// of signing requests, of which it takes no other: what it signs is believed here, and what comes
// from here it believes.
func TestInteropFollow(t *testing.T) {
	for _, scheme := range []string{"rfc9421", "cavage"} {
		t.Run(scheme, func(t *testing.T) {
			peer := startFedify(t, scheme)
			if peer == nil {
				return
			}
			interopFollow(t, peer, newNode(t), scheme)
		})
	}
}

func interopFollow(t *testing.T, peer *fedify, n *node, scheme string) {
	list := n.define("refused", hashlist.Followers)
	early := n.ban(list, pdq(t, 1))

	var found struct {
		Class, ID, Inbox, SharedInbox, PreferredUsername string
		PublicKeys, AssertionMethods                     []struct{ ID, Owner, Controller, Algorithm string }
	}
	if _, err := peer.call("lookup", map[string]any{"handle": "@refused@" + n.addr}, &found); err != nil {
		t.Fatal(err)
	}
	if found.ID != list || found.Class != "Service" || found.PreferredUsername != "refused" || found.SharedInbox != n.origin+"/inbox" ||
		len(found.PublicKeys) != 1 || found.PublicKeys[0].ID != list+"#main-key" || found.PublicKeys[0].Owner != list ||
		len(found.AssertionMethods) != 1 || found.AssertionMethods[0].Controller != list || found.AssertionMethods[0].Algorithm != "Ed25519" {
		t.Fatalf("Fedify finds %+v", found)
	}

	follower := func() federation.FollowerStatus {
		t.Helper()
		all, err := n.Followers(list)
		if err != nil || len(all) != 1 {
			t.Fatalf("%+v, %v", all, err)
		}
		return all[0]
	}
	// tell has Fedify send an activity. It has to get in at the first knock, a second one would be in the other scheme.
	tell := func(command string, args map[string]any) (id string) {
		t.Helper()
		args["scheme"] = scheme
		var sent struct{ ID string }
		requests, err := peer.call(command, args, &sent)
		if err != nil {
			t.Fatal(err)
		}
		if last := requests[len(requests)-1]; last != (fedifyRequest{"POST", found.Inbox, scheme, http.StatusAccepted}) {
			t.Fatalf("Fedify sent %+v", requests)
		}
		return sent.ID
	}
	follow := tell("follow", map[string]any{"actor": list})
	if f := follower(); f.State != federation.FollowerAsked || f.Actor != peer.Actor || f.Inbox != peer.SharedInbox || f.Follow != follow {
		t.Fatalf("%+v", f)
	}
	interopReads(t, peer, n, list, scheme, nil)

	if _, err := n.Decide(t.Context(), list, peer.Actor, true); err != nil {
		t.Fatal(err)
	}
	answered := func(kind string) {
		t.Helper()
		e := peer.inbox(kind)
		var body struct {
			Actor  string
			Object struct{ ID, Actor, Object string }
		}
		o := &body.Object
		if err := json.Unmarshal([]byte(e.Body), &body); err != nil || body.Actor != list || o.ID != follow || o.Actor != peer.Actor || o.Object != list {
			t.Fatalf("%s, %v", e.Body, err)
		}
		interopBelieved(t, e, list, scheme, kind)
	}
	answered("Accept")
	interopReads(t, peer, n, list, scheme, []string{"Update", "Add"})

	said := []hashlist.Statement{
		n.ban(list, pdq(t, 2), pdq(t, 3)),
		n.say(hashlist.Statement{Kind: hashlist.AddInstances, List: list, Subjects: []string{"bad.example"}}),
		n.say(hashlist.Statement{Kind: hashlist.Retraction, List: list, Retracts: early.ID}),
	}
	interopPushed(t, peer, n, list, scheme, 2, said)

	// A new key is known before anything comes that was signed with it.
	_, secret, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if n.issuer, err = federation.NewIssuer(n.issuer.Actor(), secret); err != nil {
		t.Fatal(err)
	}
	if err := n.RotateIssuerKey(t.Context(), n.issuer.Actor(), n.issuer.PublicKey(), nil, time.Time{}); err != nil {
		t.Fatal(err)
	}
	interopPushed(t, peer, n, list, scheme, 5, []hashlist.Statement{n.ban(list, pdq(t, 4))})
	answered("Accept") // by which followers learn of it
	interopReads(t, peer, n, list, scheme, []string{"Update", "Add", "Add", "Add", "Undo", "Add"})
	if p := n.PeerStatuses(); len(p) != 1 || p[0].Scheme != scheme || p[0].Followers != 1 || p[0].Failures != 0 || p[0].Heard.IsZero() {
		t.Errorf("%+v", p)
	}

	// Another's follow is not for it to end.
	var answer struct {
		Status   int
		Response string
	}
	undo := fmt.Sprintf(`{"@context":"https://www.w3.org/ns/activitystreams","id":"https://other.example/undo","type":"Undo",
		"actor":"https://other.example/actor","object":%q}`, follow)
	_, err = peer.call("post", map[string]any{"inbox": found.Inbox, "scheme": scheme, "body": undo}, &answer)
	if err != nil || answer.Status != http.StatusBadRequest || !strings.Contains(answer.Response, "signed the request") {
		t.Errorf("%+v, %v", answer, err)
	}
	until(t, "all is noted as delivered", func() bool { f := follower(); return f.State == federation.FollowerApproved && f.Position == 6 })

	tell("undo", map[string]any{"follow": follow})
	if f := follower(); f.State != federation.FollowerLeft {
		t.Errorf("%+v", f)
	}
	interopReads(t, peer, n, list, scheme, nil)

	follow = tell("follow", map[string]any{"actor": list})
	if _, err := n.Decide(t.Context(), list, peer.Actor, false); err != nil {
		t.Fatal(err)
	}
	answered("Reject")
}

// interopBelieved checks that Fedify took an activity for the list's, by the signature of the request.
func interopBelieved(t *testing.T, e fedifyEvent, list, scheme, class string) {
	t.Helper()
	if e.Status != http.StatusAccepted || e.Actor != list || !e.Verified || e.LD || len(e.Proofs) != 0 || e.Scheme != scheme ||
		e.HTTP == nil || !e.HTTP.Verified || e.HTTP.Key != list+"#main-key" || e.Listened != class {
		t.Fatalf("Fedify got %+v", e)
	}
}

// interopPushed checks that Fedify is sent statements, in that order from a place in the log
// on, that it can read each, and that each is proved by its issuer, whatever the signature of the request says.
func interopPushed(t *testing.T, peer *fedify, n *node, list, scheme string, at int, want []hashlist.Statement) {
	t.Helper()
	for len(want) > 0 {
		e := peer.inbox("Announce")
		interopBelieved(t, e, list, scheme, "Announce")
		p := e.Page
		if p == nil || p.Error != "" || p.Class != "OrderedCollectionPage" || p.PartOf != list+"/log" || p.StartIndex != uint64(at) ||
			len(p.Items) == 0 || len(p.Items) > len(want) || len(e.Statements) != len(p.Items) {
			t.Fatalf("Fedify reads %+v in %s", p, e.Body)
		}
		for i, s := range e.Statements {
			if s.ID != want[0].ID || p.Items[i].ID != s.ID || !s.Verified || len(s.Keys) != 1 || s.Keys[0].ID != n.method() {
				t.Errorf("Fedify takes %+v for %+v, want %s", s, p.Items[i], want[0].ID)
			}
			want = want[1:]
			at++
		}
	}
}

// interopReads checks what Fedify reads of a list: its log in order and its outbox, newest
// first, if its requests are signed, and nothing if they are not. The types of nil: nothing at all.
func interopReads(t *testing.T, peer *fedify, n *node, list, scheme string, types []string) {
	t.Helper()
	for _, path := range []string{"/log", "/outbox"} {
		for _, s := range []string{"", scheme} {
			args := map[string]any{"url": list + path}
			if s != "" {
				args["scheme"] = s
			}
			var read struct {
				Class      string
				TotalItems int
				Items      []struct{ Class, ID string }
			}
			requests, err := peer.call("walk", args, &read)
			if requests[0].URL != list+path || requests[0].Scheme != s {
				t.Errorf("Fedify sent %+v, want it signed by %q", requests, s)
			}
			if types == nil || s == "" {
				if err == nil || requests[0].Status != http.StatusNotFound {
					t.Errorf("Fedify reads %s, signed by %q: %+v, %+v", path, s, read, requests)
				}
				continue
			}
			for _, r := range requests {
				if r.Scheme != s || r.Status != http.StatusOK {
					t.Errorf("Fedify sent %+v", r)
				}
			}
			var got []string
			for _, i := range read.Items {
				got = append(got, i.Class)
			}
			if path == "/outbox" {
				slices.Reverse(got)
			}
			if err != nil || read.Class != "OrderedCollection" || read.TotalItems != len(types) || !slices.Equal(got, types) {
				t.Errorf("Fedify reads %s, signed by %s: %+v, want %v; %v", path, s, read, types, err)
			}
		}
	}
}
