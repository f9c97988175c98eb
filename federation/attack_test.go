package federation_test

import (
	"bytes"
	"compress/gzip"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
)

// The attacks of this and the other attack_ files go over real sockets to real nodes. What the attacker
// sends is written and signed here by hand: code under test must not decide what
// an attack looks like.

// said is what nodes of this test process have logged that might be a hash, and the hashes that their lists had.
var said struct {
	sync.Mutex
	words  map[string]string // with the line
	hashes map[string]bool
}

var digits = regexp.MustCompile(`(?i)[0-9a-f]{16,}`)

func noteLog(line []byte) {
	for _, w := range digits.FindAll(line, -1) {
		said.Lock()
		if said.words == nil {
			said.words = map[string]string{}
		}
		said.words[strings.ToLower(string(w))] = string(line)
		said.Unlock()
	}
}

func noteHash(h hashlist.Hash) {
	said.Lock()
	defer said.Unlock()
	if said.hashes == nil {
		said.hashes = map[string]bool{}
	}
	said.hashes[h.Hex()] = true
}

// TestMain looks at all logs when all is done: no hash of a list is in one, whatever was tried.
func TestMain(m *testing.M) {
	if beFollowers() {
		return
	}
	code := m.Run()
	for w, line := range said.words {
		if said.hashes[w] {
			fmt.Printf("FAIL: a node has logged a hash of a list: %.600s\n", line)
			code = 1
		}
	}
	os.Exit(code)
}

// attacker is a server of its own, with actors and keys, that does as it is told.
type attacker struct {
	t      testing.TB
	origin string
	addr   string
	key    *rsa.PrivateKey
	web    *http.Server
	done   chan struct{} // closed by close
	close  func()

	mu    sync.Mutex
	pages map[string]http.HandlerFunc // by path; others answer 404
	asked map[string]int              // requests by method and path
	took  [][]byte                    // what was posted to inboxes
}

var attackerKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

// newAttacker starts a server with one actor, ORIGIN/actor, and an inbox that takes everything.
func newAttacker(t testing.TB) *attacker {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &attacker{
		t: t, addr: l.Addr().String(), origin: "http://" + l.Addr().String(), key: attackerKey(),
		pages: map[string]http.HandlerFunc{}, asked: map[string]int{},
	}
	a.web = &http.Server{Handler: http.HandlerFunc(a.serve)}
	served := make(chan struct{})
	go func() { defer close(served); a.web.Serve(l) }()
	a.done = make(chan struct{})
	a.close = sync.OnceFunc(func() { close(a.done); a.web.Close(); <-served })
	t.Cleanup(a.close)
	a.document("/actor", a.actor("/actor"))
	a.page("/actor/inbox", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		a.mu.Lock()
		a.took = append(a.took, b)
		a.mu.Unlock()
		w.WriteHeader(http.StatusAccepted)
	})
	return a
}

func (a *attacker) serve(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	page := a.pages[r.URL.Path]
	a.asked[r.Method+" "+r.URL.Path]++
	a.mu.Unlock()
	if page == nil {
		http.NotFound(w, r)
		return
	}
	page(w, r)
}

func (a *attacker) page(path string, h http.HandlerFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pages[path] = h
}

func (a *attacker) requests(of string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked[of]
}

func (a *attacker) posted() [][]byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([][]byte(nil), a.took...)
}

func (a *attacker) document(path string, v any) {
	b := encode(a.t, v)
	a.page(path, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/activity+json")
		w.Write(b)
	})
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

type object = map[string]any

func rsaSign(key *rsa.PrivateKey, text string) []byte {
	sum := sha256.Sum256([]byte(text))
	sig, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
	if err != nil {
		panic(err)
	}
	return sig
}

func pemOf(k *rsa.PrivateKey) string {
	der, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// actor is the document of an actor of the attacker's.
func (a *attacker) actor(path string) object {
	id := a.origin + path
	return object{
		"@context": "https://www.w3.org/ns/activitystreams", "id": id, "type": "Service", "name": "x", "preferredUsername": "x",
		"inbox": a.origin + "/actor/inbox", "outbox": id + "/outbox",
		"publicKey": object{"id": id + "#main-key", "owner": id, "publicKeyPem": pemOf(a.key)},
	}
}

func with(o object, more object) object {
	o = maps.Clone(o)
	maps.Copy(o, more)
	for k, v := range o {
		if v == nil {
			delete(o, k)
		}
	}
	return o
}

// letter is a request of an attacker's, down to what is wrong with it. The zero value of a field is what is right.
type letter struct {
	method, path string
	body         []byte
	keyID        string
	at           time.Time
	signedBody   []byte            // what the digest is of
	signedPath   string            // what the signature is for
	headers      map[string]string // set after signing; "" takes one away
	covered      string            // instead of what is needed
	host         string
	media        string
	unsigned     bool
	chunked      bool
	key          *rsa.PrivateKey
}

// build writes and signs a request, as draft-cavage has it.
func (a *attacker) build(to *node, l letter) *http.Request {
	a.t.Helper()
	if l.method == "" {
		l.method = "POST"
	}
	if l.path == "" {
		l.path = "/inbox"
	}
	var body io.Reader
	if l.body != nil {
		body = bytes.NewReader(l.body)
		if l.chunked {
			body = io.MultiReader(body) // of a length that net/http does not know
		}
	}
	r, err := http.NewRequestWithContext(a.t.Context(), l.method, to.origin+l.path, body)
	if err != nil {
		a.t.Fatal(err)
	}
	if l.body != nil {
		r.Header.Set("Content-Type", "application/activity+json")
		if l.media != "" {
			r.Header.Set("Content-Type", l.media)
		}
	}
	if l.unsigned {
		return r
	}
	if l.at.IsZero() {
		l.at = time.Now()
	}
	if l.key == nil {
		l.key = a.key
	}
	if l.keyID == "" {
		l.keyID = a.origin + "/actor#main-key"
	}
	if l.covered == "" {
		l.covered = "(request-target) host date"
		if l.body != nil {
			l.covered += " digest"
		}
	}
	if l.signedBody == nil {
		l.signedBody = l.body
	}
	if l.signedPath == "" {
		l.signedPath = l.path
	}
	if l.host == "" {
		l.host = to.addr
	}
	r.Header.Set("Date", l.at.UTC().Format(http.TimeFormat))
	if l.body != nil {
		sum := sha256.Sum256(l.signedBody)
		r.Header.Set("Digest", "SHA-256="+base64.StdEncoding.EncodeToString(sum[:]))
	}
	var lines []string
	for _, name := range strings.Fields(l.covered) {
		value := r.Header.Get(name)
		switch name {
		case "(request-target)":
			value = strings.ToLower(l.method) + " " + l.signedPath
		case "host":
			value = l.host
		}
		lines = append(lines, name+": "+value)
	}
	r.Header.Set("Signature", fmt.Sprintf(`keyId="%s",algorithm="rsa-sha256",headers="%s",signature="%s"`,
		l.keyID, l.covered, base64.StdEncoding.EncodeToString(rsaSign(l.key, strings.Join(lines, "\n")))))
	for name, value := range l.headers {
		if value == "" {
			r.Header.Del(name)
		} else {
			r.Header.Set(name, value)
		}
	}
	return r
}

// answer is what came back, to the byte.
type answer struct {
	code   int
	header http.Header
	body   string
}

var plain = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true, DisableCompression: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func do(t testing.TB, r *http.Request) answer {
	t.Helper()
	res, err := plain.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	h := res.Header.Clone()
	h.Del("Date")
	return answer{res.StatusCode, h, string(b)}
}

func (a *attacker) send(to *node, l letter) answer {
	a.t.Helper()
	return do(a.t, a.build(to, l))
}

var serial struct {
	sync.Mutex
	n int
}

// fresh is an address at the attacker's that was not used before.
func (a *attacker) fresh(what string) string {
	serial.Lock()
	defer serial.Unlock()
	serial.n++
	return fmt.Sprintf("%s/%s/%d", a.origin, what, serial.n)
}

func (a *attacker) activity(kind, actor string, object any) map[string]any {
	return map[string]any{
		"@context": "https://www.w3.org/ns/activitystreams", "id": a.fresh("activities"), "type": kind, "actor": actor, "object": object,
	}
}

// follow asks to follow a list as ORIGIN/actor.
func (a *attacker) follow(to *node, list string) (answer, map[string]any) {
	a.t.Helper()
	f := a.activity("Follow", a.origin+"/actor", list)
	return a.send(to, letter{body: encode(a.t, f)}), f
}

func (a *attacker) get(to *node, path string) answer {
	a.t.Helper()
	return a.send(to, letter{method: "GET", path: path})
}

// bad is a list of an attacker's, whose publisher lies as it is told.
type bad struct {
	*attacker
	list   string
	issuer *federation.Issuer
	secret ed25519.PrivateKey
	heads  ed25519.PrivateKey
	items  []hashlist.Record
}

// newBad starts a server with a list ORIGIN/lists/bad of its admin ORIGIN/users/mallory.
func newBad(t testing.TB) *bad {
	t.Helper()
	b := &bad{attacker: newAttacker(t)}
	_, b.secret, _ = ed25519.GenerateKey(rand.Reader)
	_, b.heads, _ = ed25519.GenerateKey(rand.Reader)
	b.list = b.origin + "/lists/bad"
	var err error
	if b.issuer, err = federation.NewIssuer(b.origin+"/users/mallory", b.secret); err != nil {
		t.Fatal(err)
	}
	b.document("/lists/bad", b.listActor())
	b.document("/users/mallory", b.person("/users/mallory", method(b.origin+"/users/mallory", b.secret)))
	b.add(b.seal(hashlist.Statement{Kind: hashlist.DefineList, Definition: &hashlist.Definition{
		Name: "bad", Audience: hashlist.Public, Action: hashlist.Reject, Radii: hashlist.DefaultRadii,
	}}))
	return b
}

func (b *bad) listActor() object {
	return with(b.actor("/lists/bad"), object{
		"attributedTo": []string{b.origin + "/users/mallory"}, "log": b.list + "/log", "head": b.list + "/head",
		"followers": b.list + "/followers", "assertionMethod": []any{method(b.list, b.heads)},
	})
}

func (b *bad) person(path string, methods ...any) object {
	return with(b.actor(path), object{"type": "Person", "publicKey": nil, "assertionMethod": methods})
}

// method is a Multikey of an actor.
func method(actor string, key ed25519.PrivateKey) object {
	text := federation.Multikey(key.Public().(ed25519.PublicKey))
	return object{"id": actor + "#" + text, "type": "Multikey", "controller": actor, "publicKeyMultibase": text}
}

func (b *bad) seal(s hashlist.Statement) hashlist.Record {
	b.t.Helper()
	s.List = b.list
	r, err := b.issuer.Seal(s)
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

func (b *bad) ban(h ...hashlist.Hash) hashlist.Record {
	return b.seal(hashlist.Statement{Kind: hashlist.AddHashes, Hashes: h})
}

// add puts statements on the list's log, and serves it as one page from each place.
func (b *bad) add(all ...hashlist.Record) {
	b.mu.Lock()
	b.items = append(b.items, all...)
	b.mu.Unlock()
	b.serveLog()
}

func (b *bad) serveLog() {
	for at := range len(b.items) + 1 {
		b.servePage(at, b.pageOf(at, len(b.items), b.head(len(b.items)), false))
	}
}

func (b *bad) servePage(at int, page []byte) {
	b.page(fmt.Sprintf("/lists/bad/log/%d", at), func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/activity+json")
		w.Write(page)
	})
}

// pageOf is a page of the statements from one place to another.
func (b *bad) pageOf(from, to int, head string, more bool) []byte {
	items := []json.RawMessage{}
	for _, r := range b.items[from:to] {
		items = append(items, r.Signed)
	}
	return b.rawPage(from, items, head, more)
}

func (b *bad) rawPage(from any, items any, head string, more bool) []byte {
	p := object{
		"@context": "https://www.w3.org/ns/activitystreams", "id": fmt.Sprintf("%s/log/%v", b.list, from), "type": "OrderedCollectionPage",
		"partOf": b.list + "/log", "startIndex": from, "orderedItems": items,
	}
	if head != "" {
		p["head"] = head
	}
	if more {
		p["next"] = b.list + "/log/1"
	}
	return encode(b.t, p)
}

// head signs a head for the first statements of the log.
func (b *bad) head(size int) string {
	var ids []string
	for _, r := range b.items[:size] {
		ids = append(ids, r.Statement.ID)
	}
	return signHead(b.t, b.list, b.heads, int64(size), rootOf(b.t, ids))
}

// rootOf is the Merkle root over statement ids, worked out leaf by leaf.
func rootOf(t testing.TB, ids []string) tlog.Hash {
	t.Helper()
	var stored []tlog.Hash
	read := tlog.HashReaderFunc(func(at []int64) ([]tlog.Hash, error) {
		var all []tlog.Hash
		for _, i := range at {
			all = append(all, stored[i])
		}
		return all, nil
	})
	for n, id := range ids {
		more, err := tlog.StoredHashes(int64(n), []byte(id), read)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, more...)
	}
	root, err := tlog.TreeHash(int64(len(ids)), read)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// signHead writes a checkpoint by hand (C2SP tlog-checkpoint and signed-note).
func signHead(t testing.TB, list string, key ed25519.PrivateKey, size int64, root tlog.Hash) string {
	t.Helper()
	_, name, _ := strings.Cut(list, "://")
	text := fmt.Sprintf("%s\n%d\n%s\n", name, size, base64.StdEncoding.EncodeToString(root[:]))
	public := append([]byte{1}, key.Public().(ed25519.PublicKey)...)
	id := sha256.Sum256(append([]byte(name+"\n"), public...))
	sig := append(binary.BigEndian.AppendUint32(nil, binary.BigEndian.Uint32(id[:4])), ed25519.Sign(key, []byte(text))...)
	return text + "\n— " + name + " " + base64.StdEncoding.EncodeToString(sig) + "\n"
}

// followed has a node follow the list, and accepts it.
func (b *bad) followed(by *node) federation.FollowStatus {
	b.t.Helper()
	s, err := by.Follow(b.t.Context(), b.list, hashlist.VerdictReject)
	if err != nil {
		b.t.Fatal(err)
	}
	b.accept(by, s.ID)
	return s
}

func (b *bad) accept(by *node, follow string) {
	b.t.Helper()
	body := encode(b.t, b.activity("Accept", b.list, object{"type": "Follow", "id": follow, "actor": by.origin + "/actor", "object": b.list}))
	if got := b.send(by, letter{body: body, keyID: b.list + "#main-key"}); got.code != 202 {
		b.t.Fatalf("Accept: %+v", got)
	}
}

// push sends a page as news.
func (b *bad) push(to *node, page []byte) answer {
	b.t.Helper()
	a := b.activity("Announce", b.list, json.RawMessage(page))
	return b.send(to, letter{body: encode(b.t, a), keyID: b.list + "#main-key"})
}

func statusOf(t testing.TB, n *node, list string) federation.FollowStatus {
	t.Helper()
	for _, f := range n.Follows() {
		if f.List == list {
			return f
		}
	}
	t.Fatalf("%s is not followed", list)
	return federation.FollowStatus{}
}

// reached waits until a node has taken over so many statements of a list.
func reached(t testing.TB, n *node, list string, size uint64) {
	t.Helper()
	until(t, fmt.Sprintf("%d statements are taken over", size), func() bool { return statusOf(t, n, list).Position == size })
}

var otherKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

// gzipBomb is a little that becomes much.
func gzipBomb(t testing.TB, size int) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	blank := bytes.Repeat([]byte(" "), 1<<20)
	for range size >> 20 {
		if _, err := z.Write(blank); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func jsonOf(r hashlist.Record) json.RawMessage { return r.Signed }
