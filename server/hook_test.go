package server

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/hashlist/imagehash"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// post sends a body as pict-rs does: chunked, with a content type that may be wrong.
func (n *node) post(token string, body io.Reader) (int, hookAnswer) {
	n.t.Helper()
	code, a, err := n.tryPost(token, body)
	if err != nil {
		n.t.Fatal(err)
	}
	return code, a
}

func (n *node) tryPost(token string, body io.Reader) (int, hookAnswer, error) {
	r, err := http.NewRequest("POST", n.http+"/hook/pictrs/"+token, struct{ io.Reader }{body})
	if err != nil {
		return 0, hookAnswer{}, err
	}
	r.Header.Set("Content-Type", "text/html")
	v, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, hookAnswer{}, err
	}
	defer v.Body.Close()
	text, err := io.ReadAll(v.Body)
	if err != nil {
		return 0, hookAnswer{}, err
	}
	var a hookAnswer
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&a); err != nil {
		return 0, a, fmt.Errorf("answer %q: %w", text, err)
	}
	for _, secret := range n.secrets {
		if strings.Contains(string(text), secret) {
			return 0, a, fmt.Errorf("the answer holds a secret: %s", text)
		}
	}
	return v.StatusCode, a, nil
}

func (n *node) metric(line string) bool {
	n.t.Helper()
	v, err := http.Get(n.http + "/metrics")
	if err != nil {
		n.t.Fatal(err)
	}
	defer v.Body.Close()
	text, err := io.ReadAll(v.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return strings.Contains(string(text), line+"\n")
}

func TestHook(t *testing.T) {
	good := encodeJPEG(t, photo(1, 320, 240), 90)
	banned := encodeJPEG(t, photo(2, 320, 240), 90)
	copied := encodeJPEG(t, photo(2, 400, 300), 60)
	held := encodeJPEG(t, photo(3, 320, 240), 90)
	flagged := encodeJPEG(t, photo(4, 320, 240), 90)
	broken := good[:40]
	bannedBroken := append([]byte(nil), good[:41]...)
	video := []byte("\x1aE\xdf\xa3 a film in a box")
	bomb := []byte("GIF89a\xff\xff\xff\xff\x00\x00\x00,\x00\x00\x00\x00\xff\xff\xff\xff\x00\x02\x02\x44\x01\x00;")
	const limit = 1 << 20
	long := bytes.Repeat([]byte("x"), limit+1)
	longVideo := append(append([]byte(nil), video...), long...)
	closed, err := imagehash.NewHasher(imagehash.Limits{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()

	for _, answer := range []Answer{AnswerAccept, AnswerReject} {
		pick := func(accepted, rejected int) int {
			if answer == AnswerAccept {
				return accepted
			}
			return rejected
		}
		for _, trouble := range []bool{false, true} {
			t.Run(fmt.Sprintf("settings=%s,trouble=%v", answer, trouble), func(t *testing.T) {
				n := start(t, func(c *Config) {
					c.Hook = Hook{Undecodable: answer, Video: answer, Trouble: answer, Hold: answer}
					c.Limit.MediaBytes = limit
					if trouble {
						c.Media = closed
					}
				})
				n.ban("gore", n.media(banned).Frames[0].PDQ[0])
				_, _, sum := imagehash.Digests(bannedBroken)
				n.ban("broken", sum)
				// phash alone may at most hold; see hashlist.DefaultPolicy.
				n.ban("odd", n.media(held).Frames[0].PHash)
				owner := pb.NewListServiceClient(n.owner())
				if _, err := owner.CreateList(t.Context(), &pb.CreateListRequest{List: &pb.List{Name: "rude", Action: pb.Action_ACTION_FILTER}}); err != nil {
					t.Fatal(err)
				}
				n.add("rude", n.media(flagged).Frames[0].PDQ[0])
				secret := n.token("pictrs", ScopeLookup)
				for _, c := range []struct {
					name string
					body []byte
					code int // with a hasher that works
					then int // with one that does not; 0 for the same
				}{
					{"no match", good, 200, pick(200, 503)},
					{"match", banned, 403, pick(200, 503)},
					{"match of a copy", copied, 403, pick(200, 503)},
					{"hold", held, pick(200, 403), pick(200, 503)},
					{"flag", flagged, 200, pick(200, 503)},
					{"broken", broken, pick(200, 422), pick(200, 503)},
					{"nothing", nil, pick(200, 422), pick(200, 503)},
					{"beyond the decoder's limits", bomb, pick(200, 422), pick(200, 503)},
					{"video", video, pick(200, 415), pick(200, 503)},
					{"undecodable with a banned digest", bannedBroken, 403, 403},
					{"too many bytes", long, 413, 413},
					{"too many bytes of video", longVideo, pick(200, 415), pick(200, 415)}, // nothing is to be examined
				} {
					want := c.code
					if trouble {
						want = c.then
					}
					code, a := n.post(secret, bytes.NewReader(c.body))
					if code != want {
						t.Errorf("%s: %d %+v, want %d", c.name, code, a, want)
					}
					if (code == 200) != (a.Verdict == "allow") || code != 200 && a.Reason == "" {
						t.Errorf("%s: %d %+v", c.name, code, a)
					}
					if a.Reference != "" && !strings.Contains(n.logged.String(), a.Reference) {
						t.Errorf("%s: its reference is not in the log", c.name)
					}
					if code == 403 && (a.Reference == "" || a.Reason != "matched a blocked-media list") {
						t.Errorf("%s: %+v", c.name, a)
					}
				}
				if !trouble {
					for _, line := range []string{
						`tocsin_hook_answers_total{answer="reject",hook="pictrs",reason="match"} 3`,
						`tocsin_hook_answers_total{answer="accept",hook="pictrs",reason="no match"} 1`,
						`tocsin_hook_answers_total{answer="` + string(answer) + `",hook="pictrs",reason="undecodable"} 3`,
						`tocsin_hook_answers_total{answer="` + string(answer) + `",hook="pictrs",reason="video"} 2`,
						`tocsin_hook_answers_total{answer="` + string(answer) + `",hook="pictrs",reason="hold"} 1`,
						`tocsin_index_hashes{algorithm="pdq"} 2`,
						`tocsin_uploads_held 0`,
					} {
						if !n.metric(line) {
							t.Errorf("the metrics do not say %s", line)
						}
					}
					if !strings.Contains(n.logged.String(), `"list":"gore"`) || !strings.Contains(n.logged.String(), `"distance":`) {
						t.Error("the log does not say which list an upload matched")
					}
				}
			})
		}
	}
}

// add lists hashes on a list that is there.
func (n *node) add(name string, hashes ...hashlist.Hash) {
	n.t.Helper()
	for _, h := range hashes {
		n.secrets = append(n.secrets, h.Hex())
	}
	if _, err := pb.NewListServiceClient(n.owner()).Submit(n.t.Context(), &pb.SubmitRequest{List: name, Hashes: texts(hashes)}); err != nil {
		n.t.Fatal(err)
	}
}

// A file that cannot be looked into is refused where such files are, unless something graver is known of it or this
// node itself knows it to be harmless: no flag, no list that is only reported, and no hold where what is held
// passes lets it through.
func TestHookUndecodable(t *testing.T) {
	for _, c := range []struct {
		name string
		hold Answer
		most hashlist.Verdict // of the list, if it is kept for somebody else; 0 if it is our own
		acts hashlist.Action
		md5  bool
		want int
	}{
		{"our flag", AnswerReject, 0, hashlist.Filter, false, 422},
		{"our ban", AnswerAccept, 0, hashlist.Reject, false, 403},
		{"our hold", AnswerReject, 0, hashlist.Reject, true, 403},
		{"our hold, where held files pass", AnswerAccept, 0, hashlist.Reject, true, 422},
		{"our word that it is harmless", AnswerAccept, 0, hashlist.Accept, false, 200},
		{"a ban that is only reported", AnswerReject, hashlist.VerdictAllow, hashlist.Reject, false, 422},
	} {
		n := start(t, func(cfg *Config) {
			cfg.Hook = Hook{Undecodable: AnswerReject, Video: AnswerReject, Trouble: AnswerReject, Hold: c.hold}
		})
		file := []byte("no picture at all")
		md5, _, h := imagehash.Digests(file)
		if c.md5 {
			h = md5
		}
		iri := testOrigin + "/lists/kept"
		if c.most != 0 {
			n.lists.OnBehalf(iri)
			n.lists.Heed(iri, c.most, 0)
		}
		n.say(hashlist.Statement{Kind: hashlist.DefineList, List: iri, Definition: &hashlist.Definition{
			Name: "kept", Audience: hashlist.Local, Action: c.acts, Radii: hashlist.DefaultRadii,
		}})
		n.say(hashlist.Statement{Kind: hashlist.AddHashes, List: iri, Hashes: []hashlist.Hash{h}})
		if code, a := n.post(n.token("pictrs", ScopeLookup), bytes.NewReader(file)); code != c.want {
			t.Errorf("%s: %d %+v, want %d", c.name, code, a, c.want)
		}
	}
}

func TestHookTokens(t *testing.T) {
	n := start(t)
	file := encodeJPEG(t, photo(1, 64, 64), 90)
	good := n.token("pictrs", ScopeLookup)
	unknown := newSecret()
	n.secrets = append(n.secrets, unknown)
	for _, c := range []struct {
		name, token string
		want        int
	}{
		{"good", good, 200},
		{"unknown", unknown, 401},
		{"short", "x", 401},
		{"escaped", good[:10] + "%2f" + good[10:], 401},
	} {
		if code, a := n.post(c.token, bytes.NewReader(file)); code != c.want {
			t.Errorf("%s: %d %+v, want %d", c.name, code, a, c.want)
		}
	}
	if !strings.Contains(n.logged.String(), "PICTRS__MEDIA__EXTERNAL_VALIDATION") {
		t.Error("the log does not say what to do about an unknown token")
	}
	var last int
	for range 2 * strikeBurst {
		last, _ = n.post(unknown, bytes.NewReader(file))
	}
	if last != 429 {
		t.Errorf("the last of many unknown tokens: %d", last)
	}
	if code, _ := n.post(good, bytes.NewReader(file)); code != 200 {
		t.Errorf("a good token after many that were not: %d", code)
	}
	for path, want := range map[string]int{
		"/hook/pictrs/": 404, "/hook/other/" + good: 404, "/hook/pictrs/" + good + "/more": 404, "/": 404,
	} {
		v, err := http.Post(n.http+path, "image/jpeg", bytes.NewReader(file))
		if err != nil {
			t.Fatal(err)
		}
		v.Body.Close()
		if v.StatusCode != want {
			t.Errorf("%q: %d, want %d", path, v.StatusCode, want)
		}
	}
	v, err := http.Get(n.http + "/hook/pictrs/" + good)
	if err != nil {
		t.Fatal(err)
	}
	v.Body.Close()
	if v.StatusCode != 405 {
		t.Errorf("GET: %d", v.StatusCode)
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		v, err := http.Get(n.http + path)
		if err != nil {
			t.Fatal(err)
		}
		v.Body.Close()
		if v.StatusCode != 200 {
			t.Errorf("%s: %d", path, v.StatusCode)
		}
	}
}

func TestHookRateLimit(t *testing.T) {
	n := start(t, func(c *Config) {
		c.Limit.LookupsPerSecond, c.Limit.Burst = 0.01, 2
		c.Hook = Hook{AnswerAccept, AnswerAccept, AnswerAccept, AnswerAccept}
	})
	file := encodeJPEG(t, photo(1, 64, 64), 90)
	secret := n.token("pictrs", ScopeLookup)
	for i, want := range []int{200, 200, 429} {
		if code, _ := n.post(secret, bytes.NewReader(file)); code != want {
			t.Errorf("upload %d: %d, want %d", i+1, code, want)
		}
	}
}

// raw sends text to the HTTP listener and returns what comes back until the
// connection ends, or until one answer is read if there is one.
func (n *node) raw(text string) (string, error) {
	conn, err := net.Dial("tcp", strings.TrimPrefix(n.http, "http://"))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, text); err != nil {
		return "", err
	}
	v, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", err
	}
	defer v.Body.Close()
	io.Copy(io.Discard, v.Body)
	return v.Status, nil
}

func TestHookHostileHTTP(t *testing.T) {
	n := start(t, func(c *Config) {
		c.Limit.Idle, c.Limit.MediaBytes = 50*time.Millisecond, 1<<20
		c.Hook = Hook{AnswerAccept, AnswerReject, AnswerAccept, AnswerAccept}
	})
	secret := n.token("pictrs", ScopeLookup)
	head := "POST /hook/pictrs/" + secret + " HTTP/1.1\r\nHost: x\r\n"
	for _, c := range []struct{ name, text, want string }{
		{"a length that is too large", head + "Content-Length: 99999999\r\n\r\n", "413 Request Entity Too Large"},
		{"a body that does not come", head + "Content-Length: 10\r\n\r\n", "408 Request Timeout"},
		{"a chunk that does not come", head + "Transfer-Encoding: chunked\r\n\r\nff\r\nabc", "408 Request Timeout"},
		{"a chunk of no length", head + "Transfer-Encoding: chunked\r\n\r\nxyz\r\nabc", "400 Bad Request"},
		{"a header too large", head + "X: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", "431 Request Header Fields Too Large"},
		{"two lengths", head + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", "400 Bad Request"},
	} {
		if got, err := n.raw(c.text); err != nil || got != c.want {
			t.Errorf("%s: %q, %v, want %q", c.name, got, err, c.want)
		}
	}
	// Cut off in the middle: nobody is there to be answered, and no room stays taken.
	conn, err := net.Dial("tcp", strings.TrimPrefix(n.http, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, head+"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
	conn.Close()
	poll(t, "the upload that was cut off is given up", func() bool {
		return n.metric(`tocsin_hook_answers_total{answer="reject",hook="pictrs",reason="cut off"} 2`) && n.metric("tocsin_uploads_held 0")
	})
}

// TestHookPanics shows that a panic is answered as trouble, counted and logged.
func TestHookPanics(t *testing.T) {
	n := start(t, func(c *Config) { c.Hook.Trouble = AnswerAccept })
	secret := n.token("pictrs", ScopeLookup)
	// Nothing from outside is known to cause one, so the server is broken from inside.
	n.Server.cfg.Media = nil
	code, a := n.post(secret, strings.NewReader("x"))
	n.Server.cfg.Media = hasher()
	if code != 200 || a.Reference == "" {
		t.Errorf("hook: %d %+v", code, a)
	}
	if !n.metric("tocsin_panics_total 1") || !strings.Contains(n.logged.String(), "media.go") {
		t.Error("the panic was not counted, or its stack is not in the log")
	}
}

// TestUploadsAreBounded begins a hundred uploads at once, of which four may be
// held in memory.
func TestUploadsAreBounded(t *testing.T) {
	const uploads, room, size = 100, 4, 1 << 20
	n := start(t, func(c *Config) { c.Limit.Uploads, c.Limit.Cached, c.Limit.Deadline = room, 0, 2*time.Minute })
	secret := n.token("pictrs", ScopeLookup)
	defer debug.SetGCPercent(debug.SetGCPercent(20))
	runtime.GC()
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	half := bytes.Repeat([]byte("no picture "), size/22)
	gate := make(chan struct{})
	begun := make(chan struct{}, uploads)
	var all sync.WaitGroup
	for range uploads {
		all.Go(func() {
			code, a, err := n.tryPost(secret, &gated{parts: [][]byte{half, half}, gate: gate, begun: begun})
			if err != nil || code != 422 {
				t.Errorf("%d %+v %v", code, a, err)
			}
		})
	}
	poll(t, "all the room is taken", func() bool { return n.metric(fmt.Sprintf("tocsin_uploads_held %d", room)) })
	for range room {
		<-begun
	}
	runtime.ReadMemStats(&now)
	peak := now.HeapAlloc
	close(gate)
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for waiting := true; waiting; {
		select {
		case <-done:
			waiting = false
		case <-tick.C:
			runtime.ReadMemStats(&now)
			peak = max(peak, now.HeapAlloc)
		}
	}
	used := int64(peak) - int64(before.HeapAlloc)
	t.Logf("at most %d MiB for %d uploads of %d MiB", used>>20, uploads, size>>20)
	// Each held file may be there twice while it grows, and as often again as
	// garbage; the connections of both sides take another 16 MiB.
	if used > 8*room*size+16<<20 {
		t.Errorf("%d MiB were in use, for %d files of %d MiB that may be held", used>>20, room, size>>20)
	}
}

// TestMadeFlat: who takes the contrast out of a banned picture takes its
// quality below the least, but not its hash away: it is held.
func TestMadeFlat(t *testing.T) {
	n := start(t, func(c *Config) { c.Hook.Hold = AnswerReject })
	file, err := os.ReadFile("../cmd/demo/photos/cat.jpg")
	if err != nil {
		t.Fatal(err)
	}
	original, err := jpeg.Decode(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	n.ban("gore", n.media(file).Frames[0].PDQ[0])
	c := pb.NewLookupServiceClient(n.dial(n.grpc, n.token("looks", ScopeLookup)))
	seen := map[bool]bool{}
	for _, contrast := range []int{100, 20, 10, 5, 3} { // per cent
		flat := image.NewGray(original.Bounds())
		for y := range original.Bounds().Dy() {
			for x := range original.Bounds().Dx() {
				g := color.GrayModel.Convert(original.At(x, y)).(color.Gray)
				flat.SetGray(x, y, color.Gray{Y: uint8(128 + (int(g.Y)-128)*contrast/100)})
			}
		}
		file := encodeJPEG(t, flat, 95)
		quality := n.media(file).Frames[0].Quality
		if quality < hashlist.LeastQuality {
			continue
		}
		want := pb.Verdict_VERDICT_REJECT
		if quality < 50 {
			want = pb.Verdict_VERDICT_HOLD
		}
		seen[quality < 50] = true
		r, err := sendMedia(t.Context(), c, file, nil, 1<<20)
		if err != nil || r.GetLookup().GetVerdict() != want {
			t.Errorf("contrast %d %%, quality %d: %v, %v, want %v", contrast, quality, r.GetLookup().GetVerdict(), err, want)
		}
		if code, a := n.post(n.token(fmt.Sprintf("pictrs-%d", contrast), ScopeLookup), bytes.NewReader(file)); code != 403 {
			t.Errorf("contrast %d %%, quality %d: the hook answers %d %+v", contrast, quality, code, a)
		}
	}
	if !seen[true] || !seen[false] {
		t.Errorf("the pictures had qualities below and above the least: %v", seen)
	}
}
