package source

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds of what a source sends.
const (
	maxBody      = 256 << 20        // bytes of one answer, decompressed
	maxPages     = 10_000           // answers in one run
	runTime      = 15 * time.Minute // for one run
	idleTime     = 30 * time.Second // for which an answer may bring nothing
	maxRedirects = 3
	maxValidator = 1024      // bytes of an ETag or Last-Modified
	maxSniff     = 1024      // bytes that are looked at before anything is read
	maxSecret    = 64 << 10  // bytes of a credentials file
	maxRetry     = time.Hour // that a server may have us wait within its Retry-After; beyond, the run fails and comes again
)

// Refused is an answer that is not what was asked for. Its text may be shown: it holds nothing of the body.
type refusedError struct{ text string }

func (e *refusedError) Error() string { return e.text }

func refused(format string, args ...any) error { return &refusedError{fmt.Sprintf(format, args...)} }

// statusError says that a server answered, but not with what it was asked for.
type statusError struct {
	code  int
	after time.Duration // how long the server wants to be left alone, 0 if it did not say
}

func (e *statusError) Error() string {
	text := fmt.Sprintf("the server answered %d %s", e.code, http.StatusText(e.code))
	if e.code == http.StatusUnauthorized || e.code == http.StatusForbidden {
		text += ": are the credentials right?"
	}
	if e.after > 0 {
		text += fmt.Sprintf(" and wants to be left alone for %v", e.after)
	}
	return text
}

// session is what one run may use of the network.
type session struct {
	client   *http.Client
	agent    string
	loopback bool // http is spoken too; the client sees to it that it leads to loopback
	headers  http.Header
	limit    int64         // of one answer
	idle     time.Duration //
	asked    int           // answers so far
	known    func([32]byte) (string, bool)
	progress func(stage string, n uint64)
}

// request is what is asked for.
type request struct {
	method         string // "" for GET
	url            string
	accept         []string // media types, the best first
	body           []byte
	media          string // of body
	etag, modified string // what is here already; "" to ask without condition
}

// answer is a body that has been looked at, and must be closed.
type answer struct {
	io.Reader
	close          func()
	etag, modified string
	unchanged      bool // there is no body
}

// get sends a request and follows redirects within its origin. Credentials go nowhere else, and a
// list counts as said by the server that was named.
func (s *session) get(ctx context.Context, q request) (*answer, error) {
	if s.asked++; s.asked > maxPages {
		return nil, refused("the source has more than %d pages", maxPages)
	}
	at, err := url.Parse(q.url)
	if err != nil {
		return nil, refused("address %.200q cannot be read", q.url)
	}
	for redirects := 0; ; redirects++ {
		if at.Scheme != "https" && (at.Scheme != "http" || !s.loopback) {
			return nil, refused("%.200q is not an https address", at)
		}
		a, next, err := s.ask(ctx, at, q)
		if err != nil || next == nil {
			return a, err
		}
		switch {
		case redirects == maxRedirects:
			return nil, refused("more than %d redirects", maxRedirects)
		case next.Scheme != at.Scheme || next.Host != at.Host:
			return nil, refused("it redirects to another server, %.200q: subscribe there if you trust it", next)
		case q.body != nil:
			return nil, refused("it redirects what was posted to it")
		}
		at = next
	}
}

func (s *session) ask(ctx context.Context, at *url.URL, q request) (_ *answer, next *url.URL, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	// The clock runs while nothing comes, not while an answer is being read.
	watch := time.AfterFunc(s.idle, func() { cancel(refused("nothing came for %v", s.idle)) })
	done := func() { watch.Stop(); cancel(nil) }
	defer func() {
		if err != nil || next != nil {
			if cause := context.Cause(ctx); cause != nil && err != nil && !errors.Is(cause, context.Canceled) {
				err = cause
			}
			done()
		}
	}()
	method, body := q.method, io.Reader(nil)
	if method == "" {
		method = http.MethodGet
	}
	if q.body != nil {
		body = bytes.NewReader(q.body)
	}
	r, err := http.NewRequestWithContext(ctx, method, at.String(), body)
	if err != nil {
		return nil, nil, refused("address %.200q cannot be asked", at)
	}
	for name, values := range s.headers {
		r.Header[name] = values
	}
	r.Header.Set("User-Agent", s.agent)
	r.Header.Set("Accept", strings.Join(append(slices.Clone(q.accept), "*/*;q=0.1"), ", "))
	if q.media != "" {
		r.Header.Set("Content-Type", q.media)
	}
	if q.etag != "" {
		r.Header.Set("If-None-Match", q.etag)
	}
	if q.modified != "" {
		r.Header.Set("If-Modified-Since", q.modified)
	}
	res, err := s.client.Do(r)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the address, which may hold a secret in its query
		}
		return nil, nil, fmt.Errorf("it cannot be reached: %w", err)
	}
	drop := func(err error) (*answer, *url.URL, error) { res.Body.Close(); return nil, nil, err }
	switch c := res.StatusCode; {
	case c == http.StatusNotModified && (q.etag != "" || q.modified != ""):
		res.Body.Close()
		done()
		return &answer{Reader: strings.NewReader(""), close: func() {}, unchanged: true, etag: q.etag, modified: q.modified}, nil, nil
	case c == http.StatusMovedPermanently, c == http.StatusFound, c == http.StatusSeeOther, c == http.StatusTemporaryRedirect, c == http.StatusPermanentRedirect:
		location, err := at.Parse(res.Header.Get("Location"))
		if err != nil || res.Header.Get("Location") == "" {
			return drop(refused("it redirects to nowhere"))
		}
		res.Body.Close()
		return nil, location, nil
	case c != http.StatusOK:
		return drop(&statusError{c, retryAfter(res.Header.Get("Retry-After"))})
	}
	if err := s.checkHead(res, q.accept); err != nil {
		return drop(err)
	}
	watch.Reset(s.idle)
	in := bufio.NewReaderSize(&bounded{r: res.Body, left: s.limit, most: s.limit, watch: watch, idle: s.idle, ctx: ctx}, 64<<10)
	start, err := in.Peek(maxSniff)
	if err != nil && err != io.EOF {
		return drop(err)
	}
	if err := sniff(start); err != nil {
		return drop(err)
	}
	a := &answer{Reader: in, close: func() { res.Body.Close(); done() }}
	a.etag, a.modified = validator(res.Header.Get("ETag")), validator(res.Header.Get("Last-Modified"))
	return a, nil, nil
}

// textual are the media types under which lists are served that have no better one.
var textual = []string{"text/plain", "application/octet-stream", "binary/octet-stream"}

// checkHead refuses an answer by what it says of itself.
func (s *session) checkHead(res *http.Response, accept []string) error {
	types := res.Header.Values("Content-Type")
	if len(types) > 1 {
		return refused("the answer has %d media types", len(types))
	}
	if len(types) == 1 {
		media, params, err := mime.ParseMediaType(types[0])
		if err != nil || !slices.Contains(accept, media) && !slices.Contains(textual, media) {
			return refused("the answer is of the media type %.80q, want %s", types[0], strings.Join(accept, " or "))
		}
		if c := strings.ToLower(params["charset"]); c != "" && c != "utf-8" && c != "us-ascii" && c != "utf8" {
			return refused("the answer is in the character set %.40q, want utf-8", c)
		}
	}
	if e := res.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return refused("the answer is encoded as %.40q, which was not asked for", e)
	}
	if res.ContentLength > s.limit {
		return refused("the answer of %d bytes is larger than %d", res.ContentLength, s.limit)
	}
	return nil
}

// sniff refuses what is no list whatever its head says: a page for people, as
// servers send it for a list that has gone, with status 200; another encoding; an archive.
func sniff(start []byte) error {
	text := bytes.TrimPrefix(start, []byte("\xef\xbb\xbf"))
	lower := bytes.ToLower(bytes.TrimLeft(text, " \t\r\n"))
	switch {
	case bytes.HasPrefix(start, []byte("\xff\xfe")), bytes.HasPrefix(start, []byte("\xfe\xff")):
		return refused("the answer is in UTF-16, want UTF-8")
	case bytes.HasPrefix(start, []byte("\x1f\x8b")), bytes.HasPrefix(start, []byte("PK\x03\x04")):
		return refused("the answer is an archive, want the list itself")
	case bytes.HasPrefix(lower, []byte("<!doctype")), bytes.HasPrefix(lower, []byte("<html")), bytes.HasPrefix(lower, []byte("<head")), bytes.HasPrefix(lower, []byte("<body")):
		return refused("the answer is a web page, not a list")
	case bytes.IndexByte(start, 0) >= 0:
		return refused("the answer is not text")
	}
	if len(text) == maxSniff { // it may end inside a character
		for range utf8.UTFMax - 1 {
			if utf8.Valid(text) {
				break
			}
			text = text[:len(text)-1]
		}
	}
	if !utf8.Valid(text) {
		return refused("the answer is not in UTF-8")
	}
	return nil
}

// validator is a value that may be sent back as it is.
func validator(v string) string {
	if len(v) > maxValidator || strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r >= 0x7f }) {
		return ""
	}
	return v
}

func retryAfter(v string) time.Duration {
	if n, err := strconv.ParseInt(v, 10, 32); err == nil && n > 0 {
		return min(time.Duration(n)*time.Second, 24*time.Hour)
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(0, min(time.Until(t), 24*time.Hour)).Round(time.Second)
	}
	return 0
}

// bounded reads a body that may end too late or never.
type bounded struct {
	r     io.Reader
	left  int64
	most  int64
	watch *time.Timer
	idle  time.Duration
	ctx   context.Context
}

// Read implements io.Reader. A body that is too long is an error and not an end: half a list is no list.
func (b *bounded) Read(p []byte) (int, error) {
	b.watch.Reset(b.idle)
	n, err := b.r.Read(p)
	b.watch.Stop()
	if b.left -= int64(n); b.left < 0 {
		return 0, refused("the answer is larger than %d bytes", b.most)
	}
	if err != nil && err != io.EOF {
		if cause := context.Cause(b.ctx); cause != nil && !errors.Is(cause, context.Canceled) {
			return n, cause
		}
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return n, refused("the answer was cut off")
		}
		return n, fmt.Errorf("the answer did not come whole: %w", err)
	}
	return n, err
}

// readAll reads an answer that is held in memory.
func readAll(a *answer, most int64) ([]byte, error) {
	defer a.close()
	b, err := io.ReadAll(io.LimitReader(a, most+1))
	if err == nil && int64(len(b)) > most {
		err = refused("the answer is larger than %d bytes", most)
	}
	return b, err
}

// ReadCredentials reads a file of credentials into the headers that carry them. Each of its lines is
//
//	basic NAME:PASSWORD
//	bearer TOKEN
//	header NAME: VALUE
//
// Blank lines and those that begin with # are passed over. The file must be for its owner
// alone. No error holds anything of it.
func ReadCredentials(path string) (http.Header, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("credentials: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxSecret {
		return nil, fmt.Errorf("credentials: %s is not a file of at most %d bytes", path, maxSecret)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("credentials: others can read %s (mode %04o): run `chmod 600 %s`", path, info.Mode().Perm(), path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("credentials: %w", err)
	}
	h := http.Header{}
	n := 0
	for line := range strings.Lines(string(b)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		kind, value, _ := strings.Cut(line, " ")
		value = strings.TrimSpace(value)
		bad := fmt.Errorf("credentials: line %d of %s is none of: basic NAME:PASSWORD, bearer TOKEN, header NAME: VALUE", n, path)
		if value == "" || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return nil, bad
		}
		switch kind {
		case "basic":
			name, password, ok := strings.Cut(value, ":")
			if !ok {
				return nil, bad
			}
			r := http.Request{Header: h}
			r.SetBasicAuth(name, password)
		case "bearer":
			h.Set("Authorization", "Bearer "+value)
		case "header":
			name, v, ok := strings.Cut(value, ":")
			if !ok || name == "" || strings.ContainsFunc(name, func(r rune) bool {
				return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_')
			}) {
				return nil, bad
			}
			h.Set(name, strings.TrimSpace(v))
		default:
			return nil, bad
		}
	}
	if len(h) == 0 {
		return nil, fmt.Errorf("credentials: %s holds none", path)
	}
	return h, nil
}
