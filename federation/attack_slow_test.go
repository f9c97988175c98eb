package federation_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestAttackSlowBody: connections that send a byte now and then take no place from others.
func TestAttackSlowBody(t *testing.T) {
	n := newNode(t)
	var all []net.Conn
	defer func() {
		for _, c := range all {
			c.Close()
		}
	}()
	for range 300 {
		c, err := net.Dial("tcp", n.addr)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
		fmt.Fprintf(c, "POST /inbox HTTP/1.1\r\nHost: %s\r\nContent-Type: application/activity+json\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n", n.addr)
	}
	// Each has begun to be read once it is told to go on, or was turned away.
	var goOn, busy int
	for _, c := range all {
		line, err := bufio.NewReader(c).ReadString('\n')
		switch {
		case err != nil:
			t.Fatal(err)
		case strings.Contains(line, " 100 "):
			goOn++
			c.Write([]byte("{"))
		case strings.Contains(line, " 503 "):
			busy++
		default:
			t.Fatalf("%q", line)
		}
	}
	if goOn == 0 || busy == 0 {
		t.Errorf("%d were read, %d turned away", goOn, busy)
	}
	if n.get(t, "/actor") != 200 {
		t.Error("the actor is not served")
	}
}

// TestAttackSlowBodyEnds: who sends too slowly is cut off by the handler itself, whatever server it runs under.
func TestAttackSlowBodyEnds(t *testing.T) {
	n := newNode(t)
	n.ShortenReading(50 * time.Millisecond)
	c, err := net.Dial("tcp", n.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "POST /inbox HTTP/1.1\r\nHost: %s\r\nContent-Type: application/activity+json\r\nContent-Length: 1000\r\n\r\n{", n.addr)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, res.Body)
	res.Body.Close()
	if res.StatusCode != 408 {
		t.Errorf("got %d", res.StatusCode)
	}
}
