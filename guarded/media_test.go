package guarded

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestMediaRefuses: whatever an address means, at once, after a redirect, or the second
// time it is asked for, nothing behind the firewall is reached.
func TestMediaRefuses(t *testing.T) {
	var reached, asked atomic.Int32
	var secure, plain string // ports
	handle := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reached.Add(1)
		to := r.URL.Query().Get("to")
		if to == "" {
			fmt.Fprint(w, "the file")
			return
		}
		http.Redirect(w, r, to, http.StatusFound)
	})
	_, secure = serve(t, handle)
	_, plain = servePlain(t, handle)
	_, roots := testCA()
	resolver := names(t, func(name string) []string {
		switch name {
		case "private.example":
			return []string{"10.0.0.1"}
		case "mapped.example":
			return []string{"::ffff:127.0.0.1"}
		case "self.example":
			return []string{"127.0.0.1"}
		case "rebound.example":
			if asked.Add(1) <= 2 { // A and AAAA
				return []string{"127.0.0.1"}
			}
			return []string{"169.254.169.254"}
		}
		return nil
	})
	open := Options{HTTP: true, Loopback: true, Roots: roots, Resolver: resolver}
	strict := Options{Roots: roots, Resolver: resolver}
	http1 := Options{HTTP: true, Roots: roots, Resolver: resolver}
	for _, c := range []struct {
		what, address string
		options       Options
		want          error // nil for the file
	}{
		{"this machine, where it is allowed", "http://127.0.0.1:PLAIN/x", open, nil},
		{"this machine by TLS", "https://self.example:PORT/x", open, nil},
		{"loopback", "http://127.0.0.1:PLAIN/x", http1, ErrRefused},
		{"loopback by TLS", "https://127.0.0.1:PORT/x", strict, ErrRefused},
		{"loopback, another one", "http://127.9.9.9:PLAIN/x", http1, ErrRefused},
		{"localhost", "http://localhost:PLAIN/x", http1, ErrRefused},
		{"a name of loopback", "https://self.example:PORT/x", strict, ErrRefused},
		{"loopback, IPv6", "http://[::1]:PLAIN/x", http1, ErrRefused},
		{"mapped", "http://[::ffff:127.0.0.1]:PLAIN/x", http1, ErrRefused},
		{"a name of a mapped address", "https://mapped.example:PORT/x", strict, ErrRefused},
		{"decimal", "http://2130706433:PLAIN/x", http1, errAny},
		{"octal", "http://0177.0.0.1:PLAIN/x", http1, errAny},
		{"short", "http://127.1:PLAIN/x", http1, errAny},
		{"zero", "http://0.0.0.0:PLAIN/x", http1, ErrRefused},
		{"private, 10", "http://10.0.0.1/x", open, ErrRefused},
		{"private, 172.16", "http://172.16.3.4/x", open, ErrRefused},
		{"private, 192.168", "http://192.168.0.1/x", open, ErrRefused},
		{"carrier", "http://100.64.0.1/x", open, ErrRefused},
		{"metadata", "http://169.254.169.254/latest/meta-data", open, ErrRefused},
		{"a private name", "https://private.example/x", open, ErrRefused},
		{"unique local", "http://[fd00::1]/x", open, ErrRefused},
		{"link local", "http://[fe80::1]/x", open, ErrRefused},
		{"NAT64", "http://[64:ff9b::a00:1]/x", open, ErrRefused},
		{"6to4", "http://[2002:a00:1::]/x", open, ErrRefused},
		{"multicast", "http://224.0.0.1/x", open, ErrRefused},
		{"http, where only https is spoken", "http://8.8.8.8/x", strict, errAny},
		{"redirected to itself", "https://self.example:PORT/?to=/x", open, nil},
		{"redirected to a private address", "http://127.0.0.1:PLAIN/?to=http://10.0.0.1/", open, ErrRefused},
		{"redirected to a private name", "https://self.example:PORT/?to=https://private.example/", open, ErrRefused},
		{"redirected to metadata", "http://127.0.0.1:PLAIN/?to=//169.254.169.254/", open, ErrRefused},
		{"redirected from https to http", "https://self.example:PORT/?to=http://127.0.0.1:PLAIN/x", open, ErrAnswer},
		{"redirected to a file", "http://127.0.0.1:PLAIN/?to=file:///etc/passwd", open, ErrAddress},
		{"redirected to gopher", "http://127.0.0.1:PLAIN/?to=gopher://127.0.0.1:PLAIN/x", open, ErrAddress},
		{"redirected for ever", "http://127.0.0.1:PLAIN/?to=%3Fto=", open, nil},
		{"rebound, the first time", "https://rebound.example:PORT/x", open, nil},
		{"rebound, the second time", "https://rebound.example:PORT/x", open, ErrRefused},
		{"allowed network", "http://127.0.0.1:PLAIN/x", Options{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}, nil},
		{"beside the allowed network", "http://127.0.0.2:PLAIN/x", Options{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}, ErrRefused},
		{"public by http, where a network is allowed", "http://8.8.8.8/x", Options{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}, ErrRefused},
		{"a file", "file:///etc/passwd", open, ErrAddress},
		{"no scheme", "127.0.0.1:PLAIN/x", open, ErrAddress},
		{"with a user", "http://a:b@127.0.0.1:PLAIN/x", open, ErrAddress},
		{"a line break", "http://127.0.0.1:PLAIN/x\r\nHost: y", open, ErrAddress},
		{"too long", "http://127.0.0.1:PLAIN/" + strings.Repeat("x", MaxURL), open, ErrAddress},
		{"nothing", "", open, ErrAddress},
	} {
		client := Client(c.options)
		reached.Store(0)
		address := strings.NewReplacer("PORT", secure, "PLAIN", plain).Replace(c.address)
		body, err := Media(t.Context(), client, address, "test", 1000)
		client.CloseIdleConnections()
		switch {
		case c.want == nil && (err != nil || string(body) != "the file"):
			t.Errorf("%s: %q, %v", c.what, body, err)
		case c.want == errAny && err == nil, c.want != nil && c.want != errAny && !errors.Is(err, c.want):
			t.Errorf("%s: %q, %v; want %v", c.what, body, err, c.want)
		case c.want == ErrRefused && reached.Load() > 1, c.want != nil && c.want != ErrAnswer && c.want != ErrAddress && !strings.HasPrefix(c.what, "redirected") && reached.Load() > 0:
			t.Errorf("%s: %d requests got through", c.what, reached.Load())
		}
	}
}

var errAny = errors.New("any error")

// TestMediaSilent: a server that stops in the middle is given up, and one that is slow is not.
func TestMediaSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for pause, ok := range map[time.Duration]bool{9 * time.Second: true, time.Hour: false} {
			r, w := io.Pipe()
			var sender sync.WaitGroup
			sender.Go(func() {
				defer w.Close()
				for range 5 {
					time.Sleep(pause)
					if _, err := w.Write([]byte("x")); err != nil {
						return
					}
				}
			})
			begun := time.Now()
			_, body, err := receive(&http.Response{StatusCode: http.StatusOK, Body: r}, &url.URL{Host: "media.example"}, 100, func() { r.Close() })
			if (err == nil) != ok || ok && len(body) != 5 || !ok && (!errors.Is(err, ErrAnswer) || time.Since(begun) != mediaIdle) {
				t.Errorf("pauses of %v: %d bytes, %v after %v", pause, len(body), err, time.Since(begun))
			}
			sender.Wait()
		}
	})
}

// TestMediaBounds: what servers may send.
func TestMediaBounds(t *testing.T) {
	const limit = 100_000
	hold := make(chan struct{})
	defer close(hold)
	_, port := servePlain(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ae := r.Header.Get("Accept-Encoding"); ae != "identity" {
			t.Errorf("asked for the encoding %q", ae)
		}
		switch r.URL.Path {
		case "/most":
			w.Write(make([]byte, limit))
		case "/more", "/more-chunked":
			if r.URL.Path == "/more" {
				w.Header().Set("Content-Length", fmt.Sprint(limit+1))
			}
			for range limit/1000 + 1 {
				w.Write(make([]byte, 1000))
				w.(http.Flusher).Flush()
			}
		case "/endless":
			for range 1000 { // as good as endless
				if _, err := w.Write(make([]byte, 1<<14)); err != nil {
					return
				}
			}
		case "/bomb":
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			z.Write(make([]byte, 10*limit))
			z.Close()
		case "/text":
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, "a picture, by its own account")
		case "/empty":
		case "/gone":
			w.WriteHeader(http.StatusNotFound)
		case "/cut":
			w.Header().Set("Content-Length", "50000")
			w.Write(make([]byte, 1000))
			panic(http.ErrAbortHandler)
		case "/headers":
			for i := range 200 {
				w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("x", 1024))
			}
			w.Write([]byte("a picture"))
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/slow":
			w.(http.Flusher).Flush()
			select {
			case <-hold:
			case <-r.Context().Done():
			}
		}
	}))
	client := Client(Options{Loopback: true})
	defer client.CloseIdleConnections()
	for path, want := range map[string]error{
		"/most": nil, "/more": ErrTooLarge, "/more-chunked": ErrTooLarge, "/endless": ErrTooLarge, "/bomb": nil, "/text": nil,
		"/empty": ErrAnswer, "/gone": ErrAnswer, "/cut": errAny, "/headers": errAny, "/loop": ErrAnswer, "/slow": context.DeadlineExceeded,
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if path == "/slow" {
			cancel()
			ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
		}
		body, err := Media(ctx, client, "http://127.0.0.1:"+port+path, "test", limit)
		cancel()
		if want == nil && (err != nil || len(body) > limit) || want == errAny && err == nil || want != nil && want != errAny && !errors.Is(err, want) {
			t.Errorf("%s: %d bytes, %v; want %v", path, len(body), err, want)
		}
	}
}

// FuzzParse: an address that is taken leads where it says.
func FuzzParse(f *testing.F) {
	for _, a := range []string{"https://a.example/x?y#z", "http://[::1]:80/", "https://a@b/", "//x", "https:x", "HTTPS://A/%zz", "http://a\\@b/"} {
		f.Add(a)
	}
	f.Fuzz(func(t *testing.T, address string) {
		u, err := parse(address)
		if err != nil {
			return
		}
		again, err := parse(u.String())
		if err == nil && (again.Host != u.Host || again.Scheme != u.Scheme) || u.User != nil || u.Scheme != "http" && u.Scheme != "https" {
			t.Errorf("%q is %v, and again %v", address, u, again)
		}
	})
}
