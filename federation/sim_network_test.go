package federation_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"
)

// simNet carries requests between the nodes of one process, and badly if it is
// told to. It must be made inside of a bubble of testing/synctest.
//
// Its seed decides what happens to the n-th request from one node to another. In which order
// the nodes' goroutines run is not decided by it: the same seed tells the same
// story, but not to the last word.
type simNet struct {
	seed    uint64
	broken  func(what string)
	running sync.WaitGroup // requests that are on their way, also when nobody waits for the answer any more

	// carried is called with every answer when it leaves the node that gives it.
	carried func(from, to *simNode, r *http.Request, body []byte, answer *http.Response)

	mu     sync.Mutex // guards what follows
	hosts  map[string][]*simNode
	calls  map[string]uint64
	rough  bool
	side   map[*simNode]int // of a partition; nobody reaches the other side
	meddle func(from, to *simNode, r *http.Request, body []byte, f *simFate)
	fates  map[string]int // how often what happened
}

// simFate is what becomes of one request.
type simFate struct {
	lost   bool            // it never arrives
	deaf   bool            // its answer never arrives
	short  bool            // the answer breaks off
	silent bool            // what is lost is waited for until time is up; otherwise the connection breaks
	out    time.Duration   // on the way
	back   time.Duration   // of the answer
	again  []time.Duration // after which it arrives once more
}

func newSimNet(seed uint64, broken func(string)) *simNet {
	return &simNet{seed: seed, broken: broken, hosts: map[string][]*simNode{}, calls: map[string]uint64{}, side: map[*simNode]int{}, fates: map[string]int{}}
}

var (
	errSimRefused = errors.New("connection refused")
	errSimReset   = errors.New("connection reset by peer")
)

// fate decides about a request.
func (n *simNet) fate(from, to *simNode, r *http.Request, body []byte) simFate {
	n.mu.Lock()
	defer n.mu.Unlock()
	link := from.origin + " " + to.origin
	n.calls[link]++
	h := fnv.New64a()
	fmt.Fprint(h, link, n.calls[link])
	rng := rand.New(rand.NewPCG(n.seed, h.Sum64()))
	ms := func(least, most int) time.Duration {
		return time.Duration(least+rng.IntN(most-least)) * time.Millisecond
	}
	f := simFate{out: ms(1, 60), back: ms(1, 60), silent: rng.IntN(2) == 0}
	if n.rough {
		if f.lost = rng.IntN(100) < 8; f.lost {
			n.fates["lost"]++
		}
		if f.deaf = rng.IntN(100) < 6; f.deaf {
			n.fates["answers lost"]++
		}
		if f.short = rng.IntN(100) < 2; f.short {
			n.fates["answers cut short"]++
		}
		switch rng.IntN(12) {
		case 0: // later than others that were sent after it
			f.out = ms(1000, 20_000)
			n.fates["late"]++
		case 1: // later than anybody waits
			f.out = ms(30_000, 120_000)
			n.fates["very late"]++
		}
		for rng.IntN(100) < 6 {
			f.again = append(f.again, ms(0, 90_000))
			n.fates["doubled"]++
		}
	}
	if n.side[from] != n.side[to] {
		f.lost = true
		n.fates["lost to a partition"]++
	}
	if n.meddle != nil {
		n.meddle(from, to, r, body, &f)
	}
	return f
}

// setRough says whether requests are lost, doubled and late from now on.
func (n *simNet) setRough(rough bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rough = rough
}

// part puts nodes on two sides that do not reach each other; without any it ends that.
func (n *simNet) part(other ...*simNode) {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.side)
	for _, o := range other {
		n.side[o] = 1
	}
}

// at returns the node that another one finds under a host. A liar has several.
func (n *simNet) at(host string, from *simNode) *simNode {
	n.mu.Lock()
	defer n.mu.Unlock()
	if all := n.hosts[host]; len(all) > 0 {
		return all[from.shown%len(all)]
	}
	return nil
}

// simDoor is the network as one node has it.
type simDoor struct {
	net  *simNet
	from *simNode
}

// RoundTrip implements http.RoundTripper.
func (d simDoor) RoundTrip(r *http.Request) (*http.Response, error) {
	n, ctx := d.net, r.Context()
	var body []byte
	if r.Body != nil {
		var err error
		body, err = io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil {
			return nil, err
		}
	}
	if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > time.Minute {
		n.broken(fmt.Sprintf("%s %s has no limit of time, or one of more than a minute", r.Method, r.URL))
	}
	to := n.at(r.URL.Host, d.from)
	if to == nil {
		return nil, fmt.Errorf("lookup %s: no such host", r.URL.Host)
	}
	if r.URL.Scheme != "https" {
		n.broken("a request that is not for https: " + r.URL.String())
	}
	f := n.fate(d.from, to, r, body)
	lost := func() (*http.Response, error) {
		if f.silent {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return nil, errSimReset
	}
	answers := make(chan *http.Response, 1)
	if !f.lost {
		n.running.Go(func() {
			pause(context.Background(), f.out)
			answers <- n.serve(d.from, to, r, body)
		})
	}
	for _, later := range f.again {
		n.running.Go(func() {
			pause(context.Background(), f.out+later)
			n.serve(d.from, to, r, body)
		})
	}
	if f.lost {
		return lost()
	}
	select {
	case answer := <-answers:
		if answer == nil {
			return nil, errSimRefused
		}
		if f.deaf {
			return lost()
		}
		if err := pause(ctx, f.back); err != nil {
			return nil, err
		}
		answer.Request = r
		if f.short {
			half, _ := io.ReadAll(answer.Body)
			answer.Body = io.NopCloser(io.MultiReader(bytes.NewReader(half[:len(half)/2]), brokenReader{}))
		}
		return answer, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// serve has a node answer, nil if it is off or goes off meanwhile.
func (n *simNet) serve(from, to *simNode, r *http.Request, body []byte) *http.Response {
	life := to.living()
	if life == nil {
		return nil
	}
	arrived := httptest.NewRequest(r.Method, r.URL.RequestURI(), bytes.NewReader(body))
	arrived.Header = r.Header.Clone()
	arrived.Host = r.Host
	if len(body) == 0 {
		arrived.Body = http.NoBody
	}
	w := httptest.NewRecorder()
	life.handler.ServeHTTP(w, arrived.WithContext(life.ctx))
	if to.living() != life {
		return nil
	}
	answer := w.Result()
	if n.carried != nil {
		n.carried(from, to, r, body, answer)
	}
	return answer
}

// pause waits, by the clock of the bubble.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
