package server

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/guarded"
	"github.com/tocsin-fed/tocsin/hashlist"
)

const webhookSecret = "0123456789abcdef0123456789abcdef01234567"

// everyHook switches all hooks on, and lets them fetch from this machine.
func everyHook(answer Answer) func(*Config) {
	return func(c *Config) {
		h := Hook{Undecodable: answer, Video: answer, Trouble: answer, Hold: AnswerReject}
		c.Hooks = Hooks{PieFed: &h, HMA: &h, NSFW: &h, Mastodon: &h, Indigo: &h, MastodonSecret: []byte(webhookSecret)}
		c.Fetch = guarded.Client(guarded.Options{Loopback: true})
	}
}

// mediaServer serves files by their paths, and counts how often it is asked.
func mediaServer(t *testing.T, files map[string][]byte) (base string, asked *atomic.Int32) {
	t.Helper()
	asked = new(atomic.Int32)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		b, ok := files[r.URL.RequestURI()]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/plain") // it is not believed
		w.Write(b)
	}))
	t.Cleanup(s.Close)
	return s.URL, asked
}

// talk sends the bytes of a request as they are, and returns the answer.
func (n *node) talk(request string) (int, string) {
	n.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(n.http, "http://"))
	if err != nil {
		n.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		n.t.Fatal(err)
	}
	b, err := io.ReadAll(conn)
	if err != nil {
		n.t.Fatal(err)
	}
	head, body, _ := strings.Cut(string(b), "\r\n\r\n")
	var code int
	if _, err := fmt.Sscanf(head, "HTTP/1.1 %d", &code); err != nil {
		n.t.Fatalf("answer %q", b)
	}
	if strings.Contains(strings.ToLower(head), "transfer-encoding: chunked") {
		n.t.Fatalf("chunked answer %q", b)
	}
	for _, secret := range n.secrets {
		if strings.Contains(body, secret) {
			n.t.Errorf("the answer holds a secret: %s", body)
		}
	}
	return code, strings.TrimSpace(body)
}

// sameJSON compares two JSON texts as values.
func sameJSON(t *testing.T, what, got, want string) {
	t.Helper()
	var g, w any
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(got), &g); err != nil {
		t.Errorf("%s: %q is no JSON", what, got)
		return
	}
	a, _ := json.Marshal(g)
	b, _ := json.Marshal(w)
	if !bytes.Equal(a, b) {
		t.Errorf("%s:\ngot  %s\nwant %s", what, a, b)
	}
}

// mirrored is a picture with left and right exchanged.
type mirrored struct{ image.Image }

func (m mirrored) At(x, y int) color.Color { return m.Image.At(m.Bounds().Dx()-1-x, y) }

// samples are a banned picture, another, and what is no picture.
func samples(t *testing.T) map[string][]byte {
	return map[string][]byte{
		"/banned.jpg":  encodeJPEG(t, photo(2, 320, 240), 90),
		"/copy.jpg":    encodeJPEG(t, photo(2, 400, 300), 60),
		"/good.jpg":    encodeJPEG(t, photo(1, 320, 240), 90),
		"/broken.jpg":  encodeJPEG(t, photo(1, 320, 240), 90)[:40],
		"/mirror.jpg":  encodeJPEG(t, mirrored{photo(2, 320, 240)}, 90),
		"/a.jpg?x=1&y": encodeJPEG(t, photo(2, 400, 300), 60),
	}
}

// TestHookPieFed sends what httpx sends for PieFed's retrieve_image_hash.
func TestHookPieFed(t *testing.T) {
	files := samples(t)
	base, _ := mediaServer(t, files)
	for _, blocked := range []string{"", strings.Repeat("0123456789abcdef", 4)} {
		n := start(t, everyHook(AnswerReject), func(c *Config) {
			if blocked != "" {
				c.Hooks.Blocked = mustHash(t, "pdq:"+blocked)
			}
		})
		media := n.media(files["/copy.jpg"])
		good := n.media(files["/good.jpg"])
		n.ban("gore", n.media(files["/banned.jpg"]).Frames[0].PDQ[0])
		token := n.token("piefed", ScopeLookup)
		ask := func(token, address string) (int, string) {
			return n.talk("GET /hook/piefed/" + token + "?image_url=" + url.QueryEscape(address) + " HTTP/1.1\r\nHost: tocsin:7480\r\n" +
				"Accept: */*\r\nAccept-Encoding: gzip, deflate\r\nConnection: close\r\nUser-Agent: PieFed/1.3; +https://piefed.example\r\n\r\n")
		}
		code, body := ask(token, base+"/good.jpg")
		if code != 200 {
			t.Errorf("a good picture: %d %s", code, body)
		}
		sameJSON(t, "a good picture", body, fmt.Sprintf(`{"quality":%d,"pdq_hash_binary":%q}`, good.Frames[0].Quality, bits(good.Frames[0].PDQ[0])))
		if h, err := hashlist.ParseHashLenient(hashlist.PDQ, bits(good.Frames[0].PDQ[0])); err != nil || h != good.Frames[0].PDQ[0] {
			t.Errorf("the bits are of another hash: %v", err)
		}
		_, body = ask(token, base+"/copy.jpg")
		want := fmt.Sprintf(`{"quality":%d,"pdq_hash_binary":%q}`, media.Frames[0].Quality, bits(media.Frames[0].PDQ[0]))
		if blocked != "" {
			want = fmt.Sprintf(`{"quality":100,"pdq_hash_binary":%q}`, bits(mustHash(t, "pdq:"+blocked)))
		}
		sameJSON(t, "a banned picture", body, want)
		code, body = ask(token, base+"/broken.jpg")
		if blocked != "" && !strings.Contains(body, bits(mustHash(t, "pdq:"+blocked))) || blocked == "" && code != 422 {
			t.Errorf("a broken picture: %d %s", code, body)
		}
		if code, _ := ask("tocsin_nobody", base+"/good.jpg"); code != 401 {
			t.Errorf("without a token: %d", code)
		}
		if code, _ := ask(token, ""); code != 400 {
			t.Errorf("without an address: %d", code)
		}
		code, body = ask(token, "http://10.0.0.1/x.jpg")
		if blocked == "" && code != http.StatusBadGateway || strings.Contains(body, "10.0.0.1") {
			t.Errorf("a private address: %d %s", code, body)
		}
	}
}

// TestHookNSFW sends what Akkoma's NsfwApiPolicy sends: the address as it is.
func TestHookNSFW(t *testing.T) {
	files := samples(t)
	base, _ := mediaServer(t, files)
	for _, answer := range []Answer{AnswerAccept, AnswerReject} {
		n := start(t, everyHook(answer))
		n.ban("gore", n.media(files["/banned.jpg"]).Frames[0].PDQ[0])
		token := n.token("akkoma", ScopeLookup)
		unknown := `{"score":0}`
		if answer == AnswerReject {
			unknown = `{"score":1}`
		}
		for address, want := range map[string]string{
			base + "/good.jpg": `{"score":0}`, base + "/copy.jpg": `{"score":1}`, base + "/a.jpg?x=1&y": `{"score":1}`,
			url.QueryEscape(base + "/a.jpg?x=1&y"): `{"score":1}`, base + "/broken.jpg": unknown, base + "/gone.jpg": unknown,
			"http://169.254.169.254/latest": unknown,
		} {
			code, body := n.talk("GET /hook/nsfw/" + token + "/?url=" + address + " HTTP/1.1\r\nHost: tocsin:7480\r\nConnection: close\r\n" +
				"user-agent: Akkoma 3.13.2; https://akkoma.example <admin@akkoma.example>\r\n\r\n")
			if code != 200 {
				t.Errorf("%s: %d %s", address, code, body)
				continue
			}
			sameJSON(t, address, body, want)
		}
		if code, _ := n.talk("GET /hook/nsfw/tocsin_x/?url=" + base + "/good.jpg HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); code != 401 {
			t.Errorf("without a token: %d", code)
		}
	}
}

// TestHookIndigo sends what indigo's AbyssClient.ScanBlob sends.
func TestHookIndigo(t *testing.T) {
	files := samples(t)
	n := start(t, everyHook(AnswerReject))
	n.ban("gore", n.media(files["/banned.jpg"]).Frames[0].PDQ[0])
	token := n.token("indigo", ScopeLookup)
	ask := func(password string, file []byte) (int, string) {
		r, err := http.NewRequest("POST", n.http+"/hook/indigo/xrpc/com.atproto.unspecced.scanBlob", bytes.NewBuffer(file))
		if err != nil {
			t.Fatal(err)
		}
		r.URL.RawQuery = url.Values{"did": {"did:plc:abc"}, "uri": {"at://did:plc:abc/app.bsky.feed.post/3k"}}.Encode()
		r.SetBasicAuth("admin", password)
		r.Header.Add("Content-Type", "image/jpeg")
		r.Header.Add("Content-Length", fmt.Sprint(len(file)))
		r.Header.Set("Accept", "application/json")
		r.Header.Set("User-Agent", "indigo-automod/test")
		r.Header.Set("x-ratelimit-bypass", password)
		v, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer v.Body.Close()
		b, err := io.ReadAll(v.Body)
		if err != nil {
			t.Fatal(err)
		}
		return v.StatusCode, string(b)
	}
	code, body := ask(token, files["/good.jpg"])
	if code != 200 {
		t.Errorf("%d", code)
	}
	sameJSON(t, "good", body, `{"blob":null,"match":{"status":"success","hits":[]}}`)
	if code, body = ask(token, files["/copy.jpg"]); code != 200 {
		t.Errorf("%d", code)
	}
	sameJSON(t, "banned", body, `{"blob":null,"match":{"status":"success","hits":[{"hashType":"pdq","label":"gore"}]}}`)
	if code, body = ask(token, files["/broken.jpg"]); code != 422 {
		t.Errorf("broken: %d %s", code, body)
	}
	if code, body = ask("wrong", files["/good.jpg"]); code != 401 {
		t.Errorf("a wrong password: %d %s", code, body)
	}
}

// TestHookHMA asks what policyserv and Coop ask, and compares the answers field by field.
func TestHookHMA(t *testing.T) {
	files := samples(t)
	base, _ := mediaServer(t, files)
	n := start(t, everyHook(AnswerReject))
	banned := n.media(files["/banned.jpg"]).Frames[0].PDQ[0]
	copied := n.media(files["/copy.jpg"]).Frames[0].PDQ[0]
	distance, _ := banned.Distance(copied)
	v := n.ban("re-fused", banned)
	token := n.token("hma", ScopeLookup)
	// Where HMA's API key goes, and where there is none.
	for _, way := range []struct{ base, key string }{{n.http + "/hook/hma", token}, {n.http + "/hook/hma/" + token, ""}} {
		do := func(method, path, kind string, body io.Reader) (int, string) {
			t.Helper()
			r, err := http.NewRequest(method, way.base+path, body)
			if err != nil {
				t.Fatal(err)
			}
			if way.key != "" {
				r.Header.Set("Authorization", "Bearer "+way.key)
			}
			if kind != "" {
				r.Header.Set("Content-Type", kind)
			}
			v, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer v.Body.Close()
			b, err := io.ReadAll(v.Body)
			if err != nil {
				t.Fatal(err)
			}
			return v.StatusCode, string(b)
		}
		form := func(field string, file []byte) (string, io.Reader) { // as policyserv's HMAScanner.hash makes it
			var b bytes.Buffer
			w := multipart.NewWriter(&b)
			part, err := w.CreateFormFile(field, "x")
			if err != nil {
				t.Fatal(err)
			}
			part.Write(file)
			w.Close()
			return w.FormDataContentType(), &b
		}
		post := func(path, field string, file []byte) (int, string) {
			kind, body := form(field, file)
			return do("POST", path, kind, body)
		}
		match := func(d int) string { return fmt.Sprintf(`[{"bank_content_id":%d,"distance":"%d"}]`, v.GetSeq(), d) }
		for _, c := range []struct {
			what string
			code int
			want string
			ask  func() (int, string)
		}{
			{"hash of a photo", 200, `{"pdq":"` + copied.Hex() + `"}`, func() (int, string) { return post("/h/hash", "photo", files["/copy.jpg"]) }},
			{"hash by address", 200, `{"pdq":"` + copied.Hex() + `"}`, func() (int, string) { return do("GET", "/h/hash?url="+url.QueryEscape(base+"/copy.jpg"), "", nil) }},
			{"hash of no content type", 400, `{"message":"no such content_type: 'text'"}`, func() (int, string) { return post("/h/hash", "text", files["/copy.jpg"]) }},
			{"hash of nothing", 400, `{"message":"url is required"}`, func() (int, string) { return do("GET", "/h/hash", "", nil) }},
			{"hash of an unknown type", 400, `{"message":"signal type 'x' doesn't exist or is disabled"}`, func() (int, string) { return do("GET", "/h/hash?url=x&types=x", "", nil) }},
			{"hash without a form", 400, `{"message":"Missing multipart/form-data file upload"}`, func() (int, string) { return do("POST", "/h/hash", "", strings.NewReader("x")) }},
			{"hash of what is broken", 422, `{"message":"not a picture that can be examined"}`, func() (int, string) { return post("/h/hash", "photo", files["/broken.jpg"]) }},
			{"hash of what is private", 502, `{"message":"the file could not be fetched"}`, func() (int, string) { return do("GET", "/h/hash?url=http://10.0.0.1/x", "", nil) }},
			{"lookup by signal", 200, `{"RE_FUSED":` + match(distance) + `}`, func() (int, string) { return do("GET", "/m/lookup?signal_type=pdq&signal="+copied.Hex(), "", nil) }},
			{"lookup by signal in a bank", 200, `{"RE_FUSED":` + match(0) + `}`, func() (int, string) {
				return do("GET", "/m/lookup?signal_type=pdq&banks=A,RE_FUSED&signal="+banned.Hex(), "", nil)
			}},
			{"lookup by signal in another bank", 200, `{}`, func() (int, string) {
				return do("GET", "/m/lookup?signal_type=pdq&banks=A&signal="+banned.Hex(), "", nil)
			}},
			{"lookup of another signal", 200, `{}`, func() (int, string) {
				return do("GET", "/m/lookup?signal_type=pdq&signal="+strings.Repeat("0f", 32), "", nil)
			}},
			{"lookup by a digest", 200, `{}`, func() (int, string) {
				return do("GET", "/m/lookup?signal_type=video_md5&signal="+strings.Repeat("0f", 16), "", nil)
			}},
			{"lookup of a bad signal", 400, `{"message":"invalid signal: not a pdq hash"}`, func() (int, string) { return do("GET", "/m/lookup?signal_type=pdq&signal=zz", "", nil) }},
			{"lookup by an unknown type", 400, `{"message":"No such SignalType 'tmk'"}`, func() (int, string) { return do("GET", "/m/lookup?signal_type=tmk&signal=zz", "", nil) }},
			{"lookup of nothing", 400, `{"message":"Either url or both signal and signal_type are required"}`, func() (int, string) { return do("GET", "/m/lookup", "", nil) }},
			{"lookup by address", 200, `{"pdq":{"RE_FUSED":` + match(distance) + `}}`, func() (int, string) { return do("GET", "/m/lookup?url="+url.QueryEscape(base+"/copy.jpg"), "", nil) }},
			{"lookup by address, of a type", 200, `{"RE_FUSED":` + match(distance) + `}`, func() (int, string) {
				return do("GET", "/m/lookup?signal_type=pdq&url="+url.QueryEscape(base+"/copy.jpg"), "", nil)
			}},
			{"lookup of a photo", 200, `{"pdq":{"RE_FUSED":` + match(distance) + `}}`, func() (int, string) { return post("/m/lookup", "photo", files["/copy.jpg"]) }},
			{"lookup of a good photo", 200, `{"pdq":{}}`, func() (int, string) { return post("/m/lookup", "photo", files["/good.jpg"]) }},
			{"raw lookup", 200, fmt.Sprintf(`{"matches":[%d]}`, v.GetSeq()), func() (int, string) { return do("GET", "/m/raw_lookup?signal_type=pdq&signal="+copied.Hex(), "", nil) }},
			{"raw lookup with distances", 200, `{"matches":` + match(distance) + `}`, func() (int, string) {
				return do("GET", "/m/raw_lookup?include_distance=true&signal_type=pdq&signal="+copied.Hex(), "", nil)
			}},
			{"raw lookup of another", 200, `{"matches":[]}`, func() (int, string) {
				return do("GET", "/m/raw_lookup?signal_type=pdq&signal="+strings.Repeat("0f", 32), "", nil)
			}},
			{"banks", 200, `[{"name":"RE_FUSED","matching_enabled_ratio":1}]`, func() (int, string) { return do("GET", "/c/banks", "", nil) }},
			{"a bank", 200, `{"name":"RE_FUSED","matching_enabled_ratio":1}`, func() (int, string) { return do("GET", "/c/bank/RE_FUSED", "", nil) }},
			{"no bank", 404, `{"message":"bank 'NONE' not found"}`, func() (int, string) { return do("GET", "/c/bank/NONE", "", nil) }},
			{"the index", 200, fmt.Sprintf(`{"pdq":{"built_to":%d,"present":true,"size":1}}`, v.GetSeq()), func() (int, string) { return do("GET", "/m/index/status?signal_type=pdq", "", nil) }},
		} {
			code, body := c.ask()
			if code != c.code {
				t.Errorf("%s: %d %s, want %d", c.what, code, body, c.code)
				continue
			}
			sameJSON(t, c.what, body, c.want)
		}
		// As policyserv asks: at first for the hash, and then about it.
		turned := n.media(files["/mirror.jpg"]).Frames[0].PDQ[0].Hex()
		post("/h/hash", "photo", files["/mirror.jpg"])
		if code, body := do("GET", "/m/lookup?signal_type=pdq&signal="+turned, "", nil); code != 200 || !strings.Contains(body, "RE_FUSED") {
			t.Errorf("a mirrored copy: %d %s", code, body)
		}
		if code, body := do("GET", "/status", "", nil); code != 200 || body != "I-AM-ALIVE" {
			t.Errorf("status: %d %s", code, body)
		}
		if code, _ := do("POST", "/c/banks", "application/json", strings.NewReader(`{"name":"X"}`)); code != 405 {
			t.Errorf("a bank was made: %d", code)
		}
	}
	r, err := http.Get(n.http + "/hook/hma/c/banks")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != 401 {
		t.Errorf("without a token: %d", r.StatusCode)
	}
}

// webhook is an event as Mastodon serialises it, shortened where this node reads nothing.
func webhook(event string, at time.Time, object string) string {
	return fmt.Sprintf(`{"event":%q,"created_at":%q,"object":%s}`, event, at.UTC().Format("2006-01-02T15:04:05.000Z"), object)
}

// TestHookMastodon sends what Webhooks::DeliveryWorker sends.
func TestHookMastodon(t *testing.T) {
	files := samples(t)
	base, asked := mediaServer(t, files)
	n := start(t, everyHook(AnswerAccept))
	n.ban("gore", n.media(files["/banned.jpg"]).Frames[0].PDQ[0])
	token := n.token("mastodon", ScopeLookup)
	sign := func(body string) string {
		m := hmac.New(sha256.New, []byte(webhookSecret))
		io.WriteString(m, body)
		return "sha256=" + hex.EncodeToString(m.Sum(nil))
	}
	send := func(body, signature string) (int, string) {
		return n.talk("POST /hook/mastodon/" + token + " HTTP/1.1\r\nHost: tocsin:7480\r\nUser-Agent: Mastodon/4.3.1 (http.rb/5.2.0; +https://mastodon.example/)\r\n" +
			"Accept-Encoding: gzip\r\nContent-Type: application/json\r\nX-Hub-Signature: " + signature +
			fmt.Sprintf("\r\nContent-Length: %d\r\nConnection: close\r\n\r\n", len(body)) + body)
	}
	status := func(media ...string) string {
		var all []string
		for i, m := range media {
			all = append(all, fmt.Sprintf(`{"id":"1%d","type":"image","url":%q,"preview_url":%q,"remote_url":null,"meta":{},"description":null,"blurhash":"x"}`, i, base+m, base+m))
		}
		return fmt.Sprintf(`{"id":"112","created_at":"2026-11-26T11:00:00.000Z","sensitive":false,"visibility":"public","uri":"https://mastodon.example/users/eve/statuses/112",
			"url":"https://mastodon.example/@eve/112","content":"<p>hi</p>","account":{"id":"9","username":"eve","acct":"eve","created_at":"2026-11-25T00:00:00.000Z",
			"url":"https://mastodon.example/@eve","uri":"https://mastodon.example/users/eve","statuses_count":3},"media_attachments":[%s]}`, strings.Join(all, ","))
	}
	now := time.Now()
	body := webhook("status.created", now, status("/good.jpg", "/copy.jpg"))
	if code, text := send(body, sign(body)); code != 202 || text != "{}" {
		t.Errorf("a post with a banned picture: %d %s", code, text)
	}
	if !n.metric(`tocsin_hook_answers_total{answer="reject",hook="mastodon",reason="match"} 1`) {
		t.Error("the match is not counted")
	}
	if got := asked.Load(); got != 2 {
		t.Errorf("%d files were fetched, want 2", got)
	}
	if code, _ := send(body, sign(body)); code != 202 || asked.Load() != 2 {
		t.Errorf("again: %d, and %d files were fetched", code, asked.Load())
	}
	if !strings.Contains(n.logged.String(), `"verdict":"reject"`) {
		t.Error("the match is not in the log")
	}
	for what, signature := range map[string]string{
		"none": "", "another secret's": "sha256=" + strings.Repeat("0", 64), "without a kind": strings.TrimPrefix(sign(body), "sha256="),
		"cut": sign(body)[:40], "of another body": sign(body + " "), "no hexadecimal": "sha256=" + strings.Repeat("x", 64),
		"of SHA-1": strings.Replace(sign(body), "sha256", "sha1", 1),
	} {
		if code, _ := send(body, signature); code != 401 {
			t.Errorf("signature %s: %d", what, code)
		}
	}
	for what, at := range map[string]time.Time{"old": now.Add(-80 * time.Hour), "ahead": now.Add(time.Hour)} {
		late := webhook("status.created", at, status("/banned.jpg"))
		if code, _ := send(late, sign(late)); code != 409 {
			t.Errorf("an event that is %s: %d", what, code)
		}
	}
	// E-mail and IP addresses are in no log line, whatever is wrong with the rest.
	private := `{"id":"9","username":"eve","domain":null,"created_at":"2026-11-25T00:00:00.000Z","email":"eve@private.example","ip":{"user_id":1,"ip":"198.51.100.77"},
		"ips":[{"ip":"198.51.100.77","used_at":"2026-11-25T00:00:00.000Z"}],"role":{"id":"-99"},"account":{"id":"9"},"media_attachments":"none"}`
	for event, want := range map[string]int{"account.created": 202, "report.created": 202, "status.created": 400, "": 400} {
		b := webhook(event, now, private)
		if code, _ := send(b, sign(b)); code != want {
			t.Errorf("%s: %d, want %d", event, code, want)
		}
	}
	b := webhook("status.created", now, status("/broken.jpg"))
	if code, _ := send(b, sign(b)); code != 202 {
		t.Errorf("a post with what cannot be examined: %d", code)
	}
	// What cannot be fetched is asked for again, and hides nothing behind it.
	was := asked.Load()
	b = webhook("status.created", now, status("/gone.jpg", "/mirror.jpg"))
	for i, want := range []int32{2, 3} {
		if code, _ := send(b, sign(b)); code != 503 || asked.Load()-was != want {
			t.Errorf("delivery %d of what cannot be fetched: %d, %d files were fetched, want %d", i+1, code, asked.Load()-was, want)
		}
	}
	if out := n.logged.String(); strings.Contains(out, "private.example") || strings.Contains(out, "198.51.100.77") || strings.Contains(out, webhookSecret) {
		t.Error("the log holds what is private")
	}
	if code, _ := n.talk("POST /hook/mastodon/tocsin_x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"); code != 401 {
		t.Errorf("without a token: %d", code)
	}
}

// TestHooksAreOff: what is not switched on is not there.
func TestHooksAreOff(t *testing.T) {
	n := start(t)
	token := n.token("all", ScopeLookup)
	for _, path := range []string{"GET /hook/piefed/TOKEN?image_url=x", "GET /hook/nsfw/TOKEN/?url=x", "POST /hook/mastodon/TOKEN",
		"GET /hook/hma/TOKEN/status", "GET /hook/hma/status", "POST /hook/indigo/xrpc/com.atproto.unspecced.scanBlob"} {
		method, path, _ := strings.Cut(path, " ")
		if code, _ := n.talk(method + " " + strings.ReplaceAll(path, "TOKEN", token) + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); code != 404 {
			t.Errorf("%s: %d", path, code)
		}
	}
}

// FuzzVPDQ: what is taken for vPDQ's text form has as many hashes as frames at most.
func FuzzVPDQ(f *testing.F) {
	f.Add(`["` + strings.Repeat("0f", 32) + `,100,0.5"]`)
	f.Add(`[]`)
	f.Add(`["a,b"]`)
	f.Fuzz(func(t *testing.T, text string) {
		frames, err := vpdqFrames(text)
		if err == nil && (len(frames) == 0 || len(frames) > hashlist.MaxHashes || slices.ContainsFunc(frames, hashlist.Hash.IsZero)) {
			t.Errorf("%q: %d frames", text, len(frames))
		}
	})
}

// FuzzMastodon: no event brings the hook down.
func FuzzMastodon(f *testing.F) {
	f.Add([]byte(webhook("status.created", time.Now(), `{"media_attachments":[{"id":"1"}]}`)))
	f.Add([]byte(`{"event":"report.created","object":{"account":{"email":"x"}}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var e mastodonEvent
		if json.Unmarshal(raw, &e) == nil {
			u := mastodonUploader(&e.Object)
			if u.Age != nil && *u.Age < 0 {
				t.Error("an account from the future")
			}
			referenceOf(hashlist.Reference{Post: e.Object.URI, Actor: e.Object.Account.URI})
		}
	})
}

// FuzzAddressOf: an address comes out of a query whole, or not at all.
func FuzzAddressOf(f *testing.F) {
	for _, q := range []string{"url=https://a/b?c&d", "url=https%3A%2F%2Fa", "x=1&url=%zz", "url=", "image_url=a"} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, query string) {
		if v, err := addressOf(query, "url"); err == nil && len(v) > len(query) {
			t.Errorf("%q gives %q", query, v)
		}
	})
}
