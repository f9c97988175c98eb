package federation_test

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"testing"

	"github.com/tocsin-fed/tocsin/federation"
)

// followersKey in the environment makes this program the followers of
// BenchmarkFederationFanOut: in a process of their own, so that the processor time of the publisher
// can be told from theirs.
const followersKey = "FEDERATION_BENCH_KEY"

// beFollowers reports whether this program was started for that, and then is done.
func beFollowers() bool {
	key := os.Getenv(followersKey)
	if key == "" {
		return false
	}
	if err := serveFollowers(key, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

// serveFollowers takes pushes for any number of servers, all of 127.0.0.0/8,
// and checks who signed them. It writes its port, and for each line of numbers it
// reads a line when so many servers have been pushed to since.
func serveFollowers(key string, in io.Reader, out io.Writer) error {
	der, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		return err
	}
	public, err := x509.ParsePKCS1PublicKey(der)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		return err
	}
	var mu sync.Mutex
	seen := map[string]bool{}
	wanted, refused := 0, 0
	done := make(chan int, 1)
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = federation.CheckRequest(r, body, "http://"+r.Host, public)
		}
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			refused++
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		w.WriteHeader(http.StatusAccepted)
		if bytes.Contains(body, []byte(`"orderedItems":[{`)) {
			seen[r.Host] = true
		}
		if wanted > 0 && len(seen) == wanted {
			wanted = 0
			done <- refused
		}
	}))
	fmt.Fprintln(out, l.Addr().(*net.TCPAddr).Port)
	for lines := bufio.NewScanner(in); lines.Scan(); {
		mu.Lock()
		clear(seen)
		refused = 0
		if _, err := fmt.Sscan(lines.Text(), &wanted); err != nil {
			mu.Unlock()
			return err
		}
		mu.Unlock()
		fmt.Fprintln(out, "ready")
		fmt.Fprintln(out, <-done)
	}
	return nil
}

// followersPeer is that process.
type followersPeer struct {
	port int
	in   io.Writer
	out  *bufio.Reader
}

func startFollowers(b *testing.B) *followersPeer {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), followersKey+"="+base64.StdEncoding.EncodeToString(x509.MarshalPKCS1PublicKey(&requestKey().PublicKey)))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
	})
	p := &followersPeer{in: in, out: bufio.NewReader(out)}
	p.port = p.number(b)
	return p
}

func (p *followersPeer) line(b *testing.B) string {
	b.Helper()
	text, err := p.out.ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return text
}

func (p *followersPeer) number(b *testing.B) (n int) {
	b.Helper()
	text := p.line(b)
	if _, err := fmt.Sscan(text, &n); err != nil {
		b.Fatalf("%q: %v", text, err)
	}
	return n
}

// expect has the peer wait for pushes to so many servers.
func (p *followersPeer) expect(b *testing.B, servers int) {
	fmt.Fprintln(p.in, servers)
	p.line(b)
}
