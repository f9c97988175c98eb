package federation

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of a fetch.
const (
	fetchTime    = 10 * time.Second // for all requests that one question takes
	maxRedirects = 3
	maxAddress   = 1024     // bytes; more than hashlist.MaxIRI, for queries
	maxActor     = 64 << 10 // bytes of an actor, a key, or a WebFinger answer, decompressed
)

// activityStreams is the vocabulary's context, and the profile that makes application/ld+json an activity.
const activityStreams = "https://www.w3.org/ns/activitystreams"

// acceptActivity asks for ActivityStreams (ActivityPub, section 3.2).
const acceptActivity = `application/activity+json, application/ld+json; profile="` + activityStreams + `"`

// doer sends a request, signed or not. It must not follow redirects: each
// request needs a signature of its own, and the fetcher decides where it may lead.
type doer interface {
	Do(*http.Request) (*http.Response, error)
}

// fetcher reads documents of other nodes, each within bounds of size, time and
// number of requests. It may be used concurrently if its doer may.
type fetcher struct {
	client   doer
	agent    string // User-Agent
	loopback bool   // http is read as well; the client sees to it that it comes from loopback
}

// statusError says that a server answered, but not with what it was asked for.
type statusError struct {
	Address    string
	Code       int           // HTTP status, not 200
	RetryAfter time.Duration // how long the server wants to be left alone, at most a day; 0 if it did not say
}

func (e *statusError) Error() string {
	text := fmt.Sprintf("%.200q answered %d %s", e.Address, e.Code, http.StatusText(e.Code))
	if e.RetryAfter > 0 {
		text += fmt.Sprintf(", and wants to be left alone for %v", e.RetryAfter)
	}
	return text
}

// document fetches an ActivityStreams document of at most limit bytes and
// returns it as it came. The document's id is the address it came from: otherwise any
// file that somebody may upload to a server could pass for a document of that
// server (CVE-2024-23832). If the id is another one of the same origin, that is
// fetched, once, and must be its own. A fragment of iri is not looked at.
//
// Nothing is read from another origin than iri's, whatever redirects say: the
// answer counts as said by that origin (FEP-fe34).
func (f *fetcher) document(ctx context.Context, iri string, limit int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	raw, from, err := f.get(ctx, iri, acceptActivity, isActivity, limit)
	if err != nil {
		return nil, err
	}
	id, err := f.identity(raw, from)
	if err != nil || id == from.String() {
		return raw, err
	}
	raw, again, err := f.get(ctx, id, acceptActivity, isActivity, limit)
	if err != nil {
		return nil, fmt.Errorf("%.200q says that it is another document: %w", from, err)
	}
	if last, err := f.identity(raw, again); err != nil {
		return nil, err
	} else if last != again.String() {
		return nil, fmt.Errorf("%.200q says that it is %.200q, which says that it is %.200q: none of them can be believed", from, id, last)
	}
	return raw, nil
}

// identity returns the id of a document that came from an address, which is of the same origin.
func (f *fetcher) identity(raw []byte, from *url.URL) (string, error) {
	value, err := topMember(raw, "id")
	if err != nil {
		return "", fmt.Errorf("%.200q: %w", from, err)
	}
	var id string
	if json.Unmarshal(value, &id) != nil || id == "" {
		return "", fmt.Errorf("%.200q: the document has no id", from)
	}
	u, err := f.locate(id)
	if err != nil {
		return "", fmt.Errorf("%.200q: id of the document: %w", from, err)
	}
	if !sameOrigin(u, from) {
		return "", fmt.Errorf("%.200q says that it is %.200q, of another server: ask there", from, id)
	}
	return id, nil
}

// raw fetches what is no ActivityStreams document: WebFinger, NodeInfo, the head
// of a list. accept is sent, and the answer must be of one of its media types.
func (f *fetcher) raw(ctx context.Context, address, accept string, limit int64) ([]byte, error) {
	return f.rawWithin(ctx, fetchTime, address, accept, limit)
}

// rawWithin is raw for what is large, and may take longer.
func (f *fetcher) rawWithin(ctx context.Context, within time.Duration, address, accept string, limit int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	wanted := strings.Split(accept, ",")
	for i, w := range wanted {
		w, _, _ = strings.Cut(w, ";")
		wanted[i] = strings.TrimSpace(w)
	}
	body, _, err := f.get(ctx, address, accept, func(media string, _ map[string]string) bool { return slices.Contains(wanted, media) }, limit)
	return body, err
}

// get asks for an address, follows redirects within its origin, and returns the
// body and where it came from in the end.
func (f *fetcher) get(ctx context.Context, address, accept string, wanted func(media string, params map[string]string) bool, limit int64) ([]byte, *url.URL, error) {
	from, err := f.locate(address)
	if err != nil {
		return nil, nil, err
	}
	for redirects := 0; ; redirects++ {
		body, next, err := f.ask(ctx, from, accept, wanted, limit)
		if err != nil {
			if ctx.Err() == context.DeadlineExceeded {
				err = fmt.Errorf("no whole answer in time: %w", err)
			}
			return nil, nil, fmt.Errorf("fetch %.200q: %w", from, err)
		}
		if next == nil {
			return body, from, nil
		}
		if redirects == maxRedirects {
			return nil, nil, fmt.Errorf("fetch %.200q: more than %d redirects", address, maxRedirects)
		}
		if !sameOrigin(next, from) {
			return nil, nil, fmt.Errorf("fetch %.200q: it redirects to another server, %.200q: give the address there", address, next)
		}
		from = next
	}
}

// ask sends one request. next is where it redirects to, nil if it does not.
func (f *fetcher) ask(ctx context.Context, from *url.URL, accept string, wanted func(string, map[string]string) bool, limit int64) (body []byte, next *url.URL, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, from.String(), nil)
	if err != nil {
		return nil, nil, err
	}
	r.Header.Set("Accept", accept)
	r.Header.Set("User-Agent", f.agent)
	res, err := f.client.Do(r)
	if err != nil {
		return nil, nil, unreachable{tame(err)}
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK:
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		location, err := from.Parse(res.Header.Get("Location"))
		if err != nil || res.Header.Get("Location") == "" {
			return nil, nil, errors.New("it redirects to nowhere")
		}
		next, err := f.locate(location.String())
		if err != nil {
			return nil, nil, fmt.Errorf("it redirects: %w", err)
		}
		return nil, next, nil
	default:
		return nil, nil, &statusError{from.String(), res.StatusCode, retryAfter(res.Header.Get("Retry-After"), time.Now())}
	}
	types := res.Header.Values("Content-Type")
	if len(types) != 1 {
		return nil, nil, fmt.Errorf("the answer has %d media types, want one", len(types))
	}
	media, params, err := mime.ParseMediaType(types[0])
	if err != nil || !wanted(media, params) {
		return nil, nil, fmt.Errorf("the answer is of the media type %.80q, want %s", types[0], accept)
	}
	if e := res.Header.Get("Content-Encoding"); e != "" {
		return nil, nil, fmt.Errorf("the answer is encoded as %.40q, which was not asked for", e)
	}
	if res.ContentLength > limit {
		return nil, nil, fmt.Errorf("the answer of %d bytes is larger than %d", res.ContentLength, limit)
	}
	// One byte more than may be there tells too much from just enough. This counts
	// what comes out of decompression.
	body, err = io.ReadAll(io.LimitReader(res.Body, limit+1))
	if err != nil {
		return nil, nil, fmt.Errorf("read the answer: %w", tame(err))
	}
	if int64(len(body)) > limit {
		return nil, nil, fmt.Errorf("the answer is larger than %d bytes", limit)
	}
	return body, nil, nil
}

// isActivity tells an ActivityStreams document by its exact media type. A server that
// hands out uploads under a type of the uploader's choice must not be able to speak for
// everybody on it by "text/html; x=application/activity+json".
func isActivity(media string, params map[string]string) bool {
	return media == "application/activity+json" ||
		media == "application/ld+json" && slices.Contains(strings.Fields(params["profile"]), activityStreams)
}

// locate reads an address that may be fetched. Unlike the names of things
// (hashlist.Origin) it may have a query and escapes. The fragment is dropped.
func (f *fetcher) locate(address string) (*url.URL, error) {
	if len(address) > maxAddress {
		return nil, fmt.Errorf("address of %d bytes is longer than %d", len(address), maxAddress)
	}
	for _, c := range []byte(address) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"<>\^{|}`+"`", c) >= 0 {
			return nil, fmt.Errorf("address %.200q has characters that do not belong in one", address)
		}
	}
	address, _, _ = cutFragment(address)
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("address %.200q cannot be read", address)
	}
	if u.Hostname() == "" || u.Opaque != "" || u.User != nil || u.Host != strings.ToLower(u.Host) || strings.HasSuffix(u.Host, ":") {
		return nil, fmt.Errorf("address %.200q is not like https://hashes.example/lists/csam", address)
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !f.loopback) {
		return nil, fmt.Errorf("address %.200q is not an https address", address)
	}
	return u, nil
}

func sameOrigin(a, b *url.URL) bool { return a.Scheme == b.Scheme && a.Host == b.Host }

// topMember returns the value of a name in one JSON object, nil if it is not
// there. It builds nothing, so it may look at documents of any size. Whoever reads
// the whole must check the whole: of other names it sees nothing.
func topMember(raw []byte, name string) (json.RawMessage, error) {
	if !json.Valid(raw) {
		return nil, errors.New("document is not one JSON document")
	}
	if bytes.TrimSpace(raw)[0] != '{' {
		return nil, errors.New("document is not a JSON object")
	}
	var found json.RawMessage
	depth, start := 0, -1 // start is where the value begins while it is passed
	inName, wanted := false, false
	for i := 0; i < len(raw); i++ {
		switch raw[i] {
		case '"':
			end := i + 1
			for ; raw[end] != '"'; end++ {
				if raw[end] == '\\' {
					end++
				}
			}
			if inName && depth == 1 {
				inName, wanted = false, isString(raw[i:end+1], name)
			}
			i = end
		case '{', '[':
			depth++
			inName = depth == 1
		case ':':
			if wanted && depth == 1 {
				if found != nil {
					return nil, fmt.Errorf("document has %s twice", name)
				}
				start, wanted = i+1, false
			}
		case ',', '}', ']':
			if raw[i] != ',' {
				depth--
			}
			if start >= 0 && (raw[i] == ',' && depth == 1 || depth == 0) {
				found, start = bytes.TrimSpace(raw[start:i]), -1
			}
			inName = raw[i] == ',' && depth == 1
		}
	}
	return found, nil
}

// isString reports whether a JSON string stands for text.
func isString(quoted []byte, text string) bool {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1:len(quoted)-1]) == text
	}
	var s string
	return json.Unmarshal(quoted, &s) == nil && s == text
}

// retryAfter reads the header of that name (RFC 9110, section 10.2.3).
func retryAfter(header string, now time.Time) time.Duration {
	const most = 24 * time.Hour
	var wait time.Duration
	if seconds, err := strconv.ParseUint(header, 10, 32); err == nil {
		wait = time.Duration(seconds) * time.Second
	} else if t, err := http.ParseTime(header); err == nil {
		wait = t.Sub(now)
	}
	return max(0, min(wait, most))
}

// unreachable: there was no answer. The text tells how names resolve and what listens
// where, as seen from this node: it is for its operator, and for nobody who had it fetch something.
type unreachable struct{ error }

func (e unreachable) Unwrap() error { return e.error }

// tamed is an error whose text is bounded and has no control characters. Those
// of the network carry what the other side sent: bytes that were not HTTP, the names in a certificate.
type tamed struct{ err error }

func tame(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // the address is said already
	}
	return tamed{err}
}

func (e tamed) Error() string { return printable(e.err.Error(), 300) }
func (e tamed) Unwrap() error { return e.err }

// printable cuts text of strangers to at most n bytes, and spaces out control characters
// and what is not UTF-8.
func printable(text string, n int) string {
	if len(text) > 4*n {
		text = text[:4*n] // the rest can no longer matter
	}
	text = strings.Map(func(r rune) rune {
		if r < ' ' || 0x7f <= r && r < 0xa0 || r == '\u2028' || r == '\u2029' || '\u202a' <= r && r <= '\u202e' || '\u2066' <= r && r <= '\u2069' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, " "))
	if len(text) <= n {
		return text
	}
	cut := n - len("…")
	for cut > 0 && text[cut]&0xc0 == 0x80 {
		cut--
	}
	return text[:cut] + "…"
}
