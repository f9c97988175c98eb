package guarded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

// Bounds of a file that is fetched.
const (
	MaxURL       = 2048 // bytes of an address
	maxRedirects = 3
	mediaIdle    = 10 * time.Second // for which a server may send nothing of it
)

// The ways a file cannot be fetched that are its address's or its server's doing.
// An error that is neither of them nor ErrRefused is of the network, or the end of the context.
var (
	ErrAddress  = errors.New("no address of a file")
	ErrTooLarge = errors.New("the file is too large")
	ErrAnswer   = errors.New("the server did not answer with a file")
)

// Media fetches a file of at most limit bytes with a client of Client, and
// follows a few redirects, none from https to http. What the server says of the
// file's type is not looked at, and nothing is decompressed: a file is what its
// bytes are. Errors tell hosts of the network as this node sees it: they are for
// its operator, not for whoever named the address.
func Media(ctx context.Context, client *http.Client, address, agent string, limit int64) ([]byte, error) {
	u, err := parse(address)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	for hop := 0; ; hop++ {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrAddress, err)
		}
		r.Header.Set("User-Agent", agent)
		r.Header.Set("Accept", "*/*")
		r.Header.Set("Accept-Encoding", "identity") // asked for by hand, nothing is decompressed
		v, err := client.Do(r)
		if err != nil {
			return nil, fmt.Errorf("fetch from %.100q: %w", u.Host, tame(err))
		}
		next, body, err := receive(v, u, limit, stop)
		if err != nil || next == nil {
			return body, err
		}
		if hop == maxRedirects {
			return nil, fmt.Errorf("%w: %.100q redirects more than %d times", ErrAnswer, u.Host, maxRedirects)
		}
		u = next
	}
}

// receive reads an answer, or where it redirects to. stop ends one that brings nothing.
func receive(v *http.Response, from *url.URL, limit int64, stop func()) (next *url.URL, body []byte, err error) {
	defer v.Body.Close()
	switch v.StatusCode {
	case http.StatusOK:
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		to, err := from.Parse(v.Header.Get("Location"))
		if err != nil {
			return nil, nil, fmt.Errorf("%w: %.100q redirects to no address", ErrAnswer, from.Host)
		}
		if next, err = parse(to.String()); err != nil {
			return nil, nil, fmt.Errorf("%.100q redirects: %w", from.Host, err)
		}
		if from.Scheme == "https" && next.Scheme != "https" {
			return nil, nil, fmt.Errorf("%w: %.100q redirects from https to http", ErrAnswer, from.Host)
		}
		return next, nil, nil
	default:
		return nil, nil, fmt.Errorf("%w: %.100q answered %d", ErrAnswer, from.Host, v.StatusCode)
	}
	if v.ContentLength > limit {
		return nil, nil, fmt.Errorf("%w: %d bytes are more than %d", ErrTooLarge, v.ContentLength, limit)
	}
	in := &lively{Reader: v.Body}
	in.watch = time.AfterFunc(mediaIdle, func() { in.silent.Store(true); stop() })
	body, err = io.ReadAll(io.LimitReader(in, limit+1))
	in.watch.Stop()
	switch {
	case in.silent.Load():
		return nil, nil, fmt.Errorf("%w: %.100q sent nothing for %v", ErrAnswer, from.Host, mediaIdle)
	case int64(len(body)) > limit:
		return nil, nil, fmt.Errorf("%w: it has more than %d bytes", ErrTooLarge, limit)
	case err != nil:
		return nil, nil, fmt.Errorf("fetch from %.100q: %w", from.Host, tame(err))
	case len(body) == 0:
		return nil, nil, fmt.Errorf("%w: %.100q answered with nothing", ErrAnswer, from.Host)
	}
	return nil, body, nil
}

// lively is a body that is given up when nothing came of it for mediaIdle.
type lively struct {
	io.Reader
	watch  *time.Timer
	silent atomic.Bool
}

// Read implements io.Reader.
func (l *lively) Read(p []byte) (int, error) {
	n, err := l.Reader.Read(p)
	if n > 0 {
		l.watch.Reset(mediaIdle)
	}
	return n, err
}

func parse(address string) (*url.URL, error) {
	if address == "" || len(address) > MaxURL {
		return nil, fmt.Errorf("%w: it has %d bytes, want 1 to %d", ErrAddress, len(address), MaxURL)
	}
	for i := range len(address) {
		if address[i] <= ' ' || address[i] == 0x7f {
			return nil, fmt.Errorf("%w: it has spaces or control characters", ErrAddress)
		}
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.Opaque != "" || u.User != nil {
		return nil, fmt.Errorf("%w: want one like https://media.example/picture.jpg", ErrAddress)
	}
	u.Fragment, u.RawFragment = "", ""
	return u, nil
}

// tame keeps what the other side sent, which is in errors of the network, to a
// bounded text without control characters. What the error is stays.
func tame(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return tamed{err}
}

type tamed struct{ error }

// Unwrap returns the error as it was.
func (e tamed) Unwrap() error { return e.error }

// Error implements error.
func (e tamed) Error() string {
	text := e.error.Error()
	return strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '?'
		}
		return c
	}, text[:min(len(text), 300)])
}
