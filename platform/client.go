package platform

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// How a platform fails.
var (
	errRefused = errors.New("the platform does not permit it") // trying again is of no use
	errBusy    = errors.New("the platform could not be asked") // trying again may help
	errAnswer  = errors.New("the platform answers otherwise than its API documents")
	errGone    = errors.New("the platform does not know it")
)

// failure is an error of a platform.
type failure struct {
	class error
	text  string
	retry time.Duration // how long the platform wants to be left alone; 0 if it did not say
	// denied says that the platform answered that it did nothing. After any other failure nobody knows.
	denied bool
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.class }

func fail(class error, format string, args ...any) error {
	return &failure{class: class, text: fmt.Sprintf("%v: ", class) + fmt.Sprintf(format, args...)}
}

const (
	maxAnswer   = 8 << 20 // the list of all instances that a Lemmy knows is the largest
	answerTime  = 30 * time.Second
	longestWait = time.Hour // however long a platform wants to be left alone
)

// NewClient returns an HTTP client for the operator's own servers, which may be at private
// addresses. It follows no redirect, so that no credential is carried on to another host, and
// uses no proxy.
func NewClient() *http.Client {
	return &http.Client{
		Timeout:       answerTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext:           (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			TLSHandshakeTimeout:   5 * time.Second,
			ResponseHeaderTimeout: answerTime,
			MaxIdleConnsPerHost:   1,
			IdleConnTimeout:       time.Minute,
			ForceAttemptHTTP2:     true,
		},
	}
}

// endpoint is the API of one platform.
type endpoint struct {
	base   string // without a slash at its end
	client *http.Client
	header http.Header // credentials, and who asks
	// classify names the error for what a platform says in a body with a status of 400 and more;
	// nil leaves it to the status.
	classify func(status int, code string) error
}

// call sends one request and reads the answer into into, if that is not nil. in goes
// as a form if it is url.Values, else as JSON. Whether a request that failed has done
// its work cannot be known: ask before trying again.
func (e *endpoint) call(ctx context.Context, method, path string, query url.Values, in, into any) (http.Header, error) {
	target := e.base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	var body io.Reader
	kind := ""
	switch v := in.(type) {
	case nil:
	case url.Values:
		kind, body = "application/x-www-form-urlencoded", strings.NewReader(v.Encode())
	default:
		b, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		kind, body = "application/json", bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, err
	}
	r.Header = e.header.Clone()
	r.Header.Set("Accept", "application/json")
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	answer, err := e.client.Do(r)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fail(errBusy, "%v", withoutQuery(err))
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, fail(errBusy, "%s %s: the answer was cut off", method, path)
	case len(text) > maxAnswer:
		return nil, fail(errAnswer, "%s %s: more than %d bytes", method, path, maxAnswer)
	case answer.StatusCode != http.StatusOK:
		return nil, e.refusal(method, path, answer, text)
	}
	if into != nil {
		if err := json.Unmarshal(text, into); err != nil {
			return nil, fail(errAnswer, "%s %s: not the JSON that was expected", method, path)
		}
	}
	return answer.Header, nil
}

// withoutQuery is the cause of an error of http.Client, whose own text has the whole address.
func withoutQuery(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// refusal is the error for an answer that is not 200.
func (e *endpoint) refusal(method, path string, answer *http.Response, text []byte) error {
	said := said(text)
	f := &failure{text: fmt.Sprintf("%s %s: %s", method, path, answer.Status)}
	if said != "" {
		f.text += ": " + said
	}
	if e.classify != nil {
		f.class = e.classify(answer.StatusCode, said)
	}
	switch s := answer.StatusCode; {
	case f.class != nil:
	case s == http.StatusUnauthorized, s == http.StatusForbidden:
		f.class = errRefused
	case s == http.StatusNotFound, s == http.StatusGone:
		f.class = errGone
	case s == http.StatusTooManyRequests, s == http.StatusRequestTimeout, s >= 500:
		f.class = errBusy
	default:
		f.class = errAnswer
	}
	f.denied = answer.StatusCode < 500 || answer.StatusCode == http.StatusServiceUnavailable
	if errors.Is(f.class, errBusy) {
		if n, err := strconv.Atoi(answer.Header.Get("Retry-After")); err == nil && n > 0 {
			f.retry = min(time.Duration(n)*time.Second, longestWait)
		}
	}
	f.text = f.class.Error() + ": " + f.text
	return f
}

// said is what an error's body says, in the ways these platforms do, printable and short.
func said(text []byte) string {
	var v struct{ Error, Message, Msg any }
	if json.Unmarshal(text, &v) != nil {
		return ""
	}
	for _, s := range []any{v.Error, v.Message, v.Msg} {
		if s, ok := s.(string); ok && s != "" {
			return strings.Map(func(r rune) rune {
				if !unicode.IsPrint(r) {
					return -1
				}
				return r
			}, s[:min(len(s), 200)])
		}
	}
	return ""
}

// address returns s if it is an http address with a host, "" otherwise.
func address(s string) string {
	if host(s) == "" {
		return ""
	}
	return s
}

// host is the lower-case host, without a port, of an http address; "" if it is none.
func host(s string) string {
	u, err := url.Parse(s)
	if err != nil || len(s) > 2048 || u.Scheme != "https" && u.Scheme != "http" || u.User != nil {
		return ""
	}
	return strings.ToLower(u.Hostname())
}
