package federation_test

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
)

// TestAttackForgedRequests: what is posted to an inbox in the name of somebody else, or with something wrong.
func TestAttackForgedRequests(t *testing.T) {
	n := newNode(t)
	other := newNode(t)
	list := n.define("secret", hashlist.Followers)
	friend, mallory := newAttacker(t), newAttacker(t)
	friendly := friend.origin + "/actor"
	_, following := friend.follow(n, list)
	if _, err := n.Decide(t.Context(), list, friendly, true); err != nil {
		t.Fatal(err)
	}
	me := mallory.origin + "/actor"
	undo := func(actor string) map[string]any { return mallory.activity("Undo", actor, following) }
	follow := func() []byte { return encode(t, mallory.activity("Follow", me, list)) }

	// Keys that say they are the friend's, or somebody's who does not know them.
	mallory.document("/stolen", object{"id": mallory.origin + "/stolen", "type": "Key", "owner": friendly, "publicKeyPem": pemOf(mallory.key)})
	mallory.document("/loose", object{"id": mallory.origin + "/loose", "type": "Key", "owner": mallory.origin + "/bystander", "publicKeyPem": pemOf(mallory.key)})
	mallory.document("/bystander", mallory.actor("/bystander"))
	mallory.document("/liar", with(mallory.actor("/liar"), object{"publicKey": object{"id": mallory.origin + "/liar#main-key", "owner": friendly, "publicKeyPem": pemOf(mallory.key)}}))
	mallory.document("/mirror", with(mallory.actor("/mirror"), object{"id": friendly}))
	mallory.document("/far", with(mallory.actor("/far"), object{"inbox": friend.origin + "/actor/inbox"}))
	mallory.document("/shared", with(mallory.actor("/shared"), object{"endpoints": object{"sharedInbox": "http://127.0.0.1:22/"}}))
	mallory.page("/away", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, friendly, http.StatusFound) })
	mallory.page("/html", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; x=application/activity+json")
		w.Write(encode(t, mallory.actor("/html")))
	})
	bomb := gzipBomb(t, 8<<20)
	mallory.page("/bomb", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/activity+json")
		w.Header().Set("Content-Encoding", "gzip")
		w.Write(bomb)
	})
	for i := range 5 {
		mallory.page(fmt.Sprintf("/hop%d", i), func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, fmt.Sprintf("/hop%d", i+1), http.StatusFound)
		})
	}

	// The attacker's own tool makes requests that are taken, else the table would prove nothing.
	if got := mallory.send(n, letter{body: encode(t, mallory.activity("Like", me, list))}); got.code != 202 {
		t.Fatalf("a good request: %+v", got)
	}

	for _, c := range []struct {
		name string
		l    letter
		code int
		says string
	}{
		{"no signature", letter{body: follow(), unsigned: true}, 401, "not signed"},
		{"forged actor", letter{body: encode(t, with(undo(friendly), object{"id": friend.origin + "/x"}))}, 400, "signed the request"},
		{"actor embedded", letter{body: encode(t, with(undo(me), object{"id": friend.origin + "/x", "actor": object{"id": friendly, "type": "Person"}}))}, 400, "signed the request"},
		{"two actors", letter{body: encode(t, with(undo(me), object{"actor": []string{me, friendly}}))}, 400, "at most 1"},
		{"activity id of another server", letter{body: encode(t, with(undo(me), object{"id": friend.origin + "/x"}))}, 400, "not of the server"},
		{"swapped signer: another's key id, own key", letter{body: encode(t, undo(friendly)), keyID: friendly + "#main-key", key: otherKey()}, 401, "does not fit"},
		{"key of another origin", letter{body: encode(t, undo(friendly)), keyID: mallory.origin + "/stolen"}, 401, "on another server"},
		{"owner does not list the key", letter{body: follow(), keyID: mallory.origin + "/loose"}, 401, "does not list the key"},
		{"actor lists a key of somebody else", letter{body: encode(t, undo(friendly)), keyID: mallory.origin + "/liar#main-key"}, 401, "owned by"},
		{"actor document with another's id", letter{body: encode(t, undo(friendly)), keyID: mallory.origin + "/mirror#main-key"}, 401, "another server"},
		{"actor redirects to another server", letter{body: encode(t, undo(friendly)), keyID: mallory.origin + "/away#main-key"}, 401, "redirects to another server"},
		{"actor redirects without end", letter{body: follow(), keyID: mallory.origin + "/hop0#main-key"}, 401, ""},
		{"actor of the wrong media type", letter{body: follow(), keyID: mallory.origin + "/html#main-key"}, 401, "media type"},
		{"actor is a gzip bomb", letter{body: follow(), keyID: mallory.origin + "/bomb#main-key"}, 401, "larger than"},
		{"inbox at another server", letter{body: follow(), keyID: mallory.origin + "/far#main-key"}, 401, "of another server"},
		{"shared inbox at a private address", letter{body: follow(), keyID: mallory.origin + "/shared#main-key"}, 401, "of another server"},
		{"key of this node itself", letter{body: encode(t, undo(friendly)), keyID: n.origin + "/actor#main-key"}, 401, "does not write to itself"},
		{"key id that is no address", letter{body: follow(), keyID: "mallory"}, 401, ""},
		{"stale date", letter{body: follow(), at: time.Now().Add(-66 * time.Minute)}, 401, "too long ago"},
		{"future date", letter{body: follow(), at: time.Now().Add(6 * time.Minute)}, 401, "in the future"},
		{"digest of other bytes", letter{body: follow(), signedBody: []byte("{}")}, 401, "digest does not fit"},
		{"digest taken away", letter{body: follow(), headers: map[string]string{"Digest": ""}}, 401, "no Digest"},
		{"digest not signed", letter{body: follow(), covered: "(request-target) host date"}, 401, "does not cover digest"},
		{"date not signed", letter{body: follow(), covered: "(request-target) host digest"}, 401, "neither date"},
		{"date changed on the way", letter{body: follow(), headers: map[string]string{"Date": time.Now().UTC().Add(-2 * time.Second).Format(http.TimeFormat)}}, 401, "altered"},
		{"signed for another path", letter{body: follow(), signedPath: "/actor/inbox"}, 401, "altered"},
		{"signed for another server", letter{body: follow(), host: other.addr}, 401, "altered"},
		{"other media type", letter{body: follow(), media: "application/json"}, 415, ""},
		{"media type that hides another", letter{body: follow(), media: "text/html; x=application/activity+json"}, 415, ""},
		{"no JSON", letter{body: []byte("\x1b[2J")}, 202, ""}, // of no kind that means anything here
		{"deep JSON", letter{body: []byte(`{"id":"` + me + `/1","type":"Follow","actor":"` + me + `","object":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`)}, 400, ""},
		{"deepest JSON", letter{body: []byte(`{"type":"Follow","object":` + strings.Repeat("[", 500_000) + strings.Repeat("]", 500_000) + `}`)}, 202, ""},
		{"duplicate keys", letter{body: []byte(`{"id":"` + me + `/2","type":"Follow","actor":"` + friendly + `","actor":"` + me + `","object":"` + list + `"}`)}, 400, ""},
		{"duplicate type", letter{body: []byte(`{"id":"` + me + `/2","type":"Delete","type":"Undo","actor":"` + me + `","object":"` + list + `"}`)}, 202, ""},
		{"number above 2^53", letter{body: []byte(`{"id":"` + me + `/3","type":"Follow","actor":"` + me + `","x":9007199254740993,"object":"` + list + `"}`)}, 400, "2^53"},
		{"oversize body", letter{body: bytes.Repeat([]byte(" "), 1<<20+1)}, 413, ""},
		{"oversize body in chunks", letter{body: bytes.Repeat([]byte(" "), 1<<20+1), chunked: true}, 413, ""},
		{"oversize envelope", letter{body: encode(t, with(undo(me), object{"x": strings.Repeat("x", 70_000)}))}, 400, "larger than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := n.Counters()
			got := mallory.send(n, c.l)
			if got.code != c.code || !strings.Contains(got.body, c.says) {
				t.Errorf("got %d %q, want %d %q", got.code, got.body, c.code, c.says)
			}
			if after := n.Counters(); after.Accepted != before.Accepted {
				t.Error("it was acted on")
			}
			f, err := n.Followers("")
			if err != nil || len(f) != 1 || f[0].Actor != friendly || f[0].State != federation.FollowerApproved || f[0].Inbox != friend.origin+"/actor/inbox" {
				t.Errorf("followers: %+v, %v", f, err)
			}
		})
	}

	t.Run("length that lies", func(t *testing.T) {
		c, err := net.Dial("tcp", n.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "POST /inbox HTTP/1.1\r\nHost: %s\r\nContent-Type: application/activity+json\r\nContent-Length: 1000\r\n\r\n{}", n.addr)
		c.(*net.TCPConn).CloseWrite()
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 400 {
			t.Errorf("got %d", res.StatusCode)
		}
	})
	t.Run("Delete by anybody", func(t *testing.T) {
		got := mallory.send(n, letter{body: encode(t, mallory.activity("Delete", friendly, friendly)), unsigned: true})
		if f, _ := n.Followers(list); got.code != 202 || f[0].State != federation.FollowerApproved {
			t.Errorf("%+v, %+v", got, f)
		}
	})
}
