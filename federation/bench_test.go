package federation_test

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/store"
)

// BenchmarkFederationLatency measures from when an admin bans on one node until
// a lookup on another one refuses, over sockets and with databases on disk.
func BenchmarkFederationLatency(b *testing.B) {
	from, to := newNode(b), newNode(b)
	list := from.define("refused", hashlist.Followers)
	befriend(b, from, to, list)
	var took []time.Duration
	for b.Loop() {
		h := sha256Hash(b, uint64(len(took)))
		began := time.Now()
		from.ban(list, h)
		for seq := to.lists.Seq(); to.verdict(h) != hashlist.VerdictReject; seq = to.lists.Seq() {
			if err := to.lists.Wait(b.Context(), seq); err != nil {
				b.Fatal(err)
			}
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	ms := func(share float64) float64 {
		return float64(took[min(int(share*float64(len(took))), len(took)-1)].Microseconds()) / 1000
	}
	b.ReportMetric(ms(0.5), "p50-ms")
	b.ReportMetric(ms(0.99), "p99-ms")
	b.ReportMetric(float64(len(took)), "bans")
}

// BenchmarkFederationFanOut measures from a ban until the last of many followers,
// each a server of its own, has it.
func BenchmarkFederationFanOut(b *testing.B) {
	for _, hashes := range []int{1, 1000} {
		b.Run(fmt.Sprintf("hashes=%d", hashes), func(b *testing.B) { fanOut(b, 1000, hashes) })
	}
}

func fanOut(b *testing.B, followers, hashes int) {
	peer := startFollowers(b)
	n := newNode(b)
	list := n.define("refused", hashlist.Followers)
	n.stop()
	db, err := store.Open(b.Context(), filepath.Join(n.dir, "tocsin.db"))
	if err != nil {
		b.Fatal(err)
	}
	for i := range followers {
		origin := fmt.Sprintf("http://127.1.%d.%d:%d", i/250, i%250+1, peer.port)
		if err := db.SaveFollower(b.Context(), federation.Follower{
			List: list, Actor: origin + "/actor", Inbox: origin + "/inbox", Follow: origin + "/follows/1", State: federation.FollowerApproved,
			Asked: time.Now().UTC().Truncate(time.Microsecond), Decided: time.Now().UTC().Truncate(time.Microsecond), Told: true, Position: 1,
		}); err != nil {
			b.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	n.restart()
	bans, refused := uint64(0), 0
	var longest time.Duration
	var cpu time.Duration
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for b.Loop() {
		b.StopTimer()
		peer.expect(b, followers)
		used := processorTime(b)
		b.StartTimer()
		began := time.Now()
		publish(b, n, list, 1, hashes)
		refused += peer.number(b)
		longest = max(longest, time.Since(began))
		cpu += processorTime(b) - used
		bans++
	}
	runtime.ReadMemStats(&after)
	b.ReportMetric(longest.Seconds(), "s-worst")
	b.ReportMetric(cpu.Seconds()/float64(bans), "cpu-s/op")
	b.ReportMetric(float64(after.Sys)/(1<<20), "MB-process")
	b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/(1<<20)/float64(bans), "MB-allocated/op")
	if refused > 0 {
		b.Errorf("%d requests did not verify", refused)
	}
}

// BenchmarkFederationCatchUp measures how a node that follows a list for the
// first time takes it over, until the last hash is durable and looked up.
// Publisher and follower are one process, so both cores serve both.
func BenchmarkFederationCatchUp(b *testing.B) {
	for _, size := range []struct{ statements, hashes int }{{1000, 1000}, {5000, 100}, {50_000, 1}} {
		b.Run(fmt.Sprintf("%dx%d", size.statements, size.hashes), func(b *testing.B) {
			from := newNode(b)
			list := from.define("shown", hashlist.Public)
			publish(b, from, list, size.statements, size.hashes)
			wire := countWire(b, from)
			for b.Loop() {
				b.StopTimer()
				to := newNode(b)
				wire.sent.Store(0)
				used := processorTime(b)
				b.StartTimer()
				began := time.Now()
				if _, err := to.Follow(b.Context(), list, hashlist.VerdictReject); err != nil {
					b.Fatal(err)
				}
				want := uint64(size.statements + 1)
				for to.Follows()[0].Position < want {
					if err := to.lists.Wait(b.Context(), to.lists.Seq()); err != nil {
						b.Fatal(err)
					}
					if to.lists.Seq() == want {
						until(b, "the last place is noted", func() bool { return to.Follows()[0].Position == want })
					}
				}
				took := time.Since(began)
				b.StopTimer()
				total := float64(size.statements * size.hashes)
				b.ReportMetric(took.Seconds(), "s")
				b.ReportMetric((processorTime(b) - used).Seconds(), "cpu-s")
				b.ReportMetric(float64(wire.sent.Load())/total, "wire-B/hash")
				b.ReportMetric(float64(size.statements)/took.Seconds(), "signatures/s")
				b.ReportMetric(total/took.Seconds(), "hashes/s")
				if v := to.verdict(sha256Hash(b, uint64(total)-1)); v != hashlist.VerdictReject {
					b.Errorf("the last hash is %v", v)
				}
				to.stop()
				b.StartTimer()
			}
		})
	}
}

// A node that is cut off and stopped while it takes a list over goes on where it
// was: what it has is not sent again.
func TestCatchUpInterrupted(t *testing.T) {
	const statements = 3300
	from, whole, to := newNode(t), newNode(t), newNode(t)
	list := from.define("shown", hashlist.Public)
	publish(t, from, list, statements, 1)
	wire := countWire(t, from)
	follow := func(n *node) {
		t.Helper()
		if _, err := n.Follow(t.Context(), list, hashlist.VerdictReject); err != nil {
			t.Fatal(err)
		}
	}
	has := func(n *node, least uint64) func() bool {
		return func() bool { return n.Follows()[0].Position >= least }
	}
	follow(whole)
	until(t, "one takes over all at once", has(whole, statements+1))
	all := wire.sent.Load()

	wire.sent.Store(0)
	wire.limit.Store(all * 6 / 10)
	follow(to)
	until(t, "half of it comes", func() bool { return wire.sent.Load() > wire.limit.Load() && has(to, 1000)() })
	to.stop()
	to.restart()
	before := to.Follows()[0].Position
	if before == 0 || before > statements {
		t.Fatalf("%d of %d statements came before it was interrupted", before, statements)
	}
	wire.sent.Store(0)
	wire.limit.Store(0)
	until(t, "the rest comes", has(to, statements+1))
	if to.fold() != whole.fold() {
		t.Error("the folds differ")
	}
	v, err := to.Verify(t.Context(), list, []string{whole.origin})
	if err != nil || !v.Passed() {
		t.Errorf("%+v, %v", v, err)
	}
	rest := wire.sent.Load()
	if float64(rest) > 1.1*float64(all)*(1-float64(before)/statements) {
		t.Errorf("%d bytes came after it had %d of %d statements, and %d come in all", rest, before, statements, all)
	}
	t.Logf("%d bytes for all; %d more when %d of %d statements were there", all, rest, before, statements)
}

// publish has a list say much at once.
func publish(t testing.TB, n *node, list string, statements, hashes int) {
	t.Helper()
	h := uint64(0)
	var records []hashlist.Record
	for i := range statements {
		s := hashlist.Statement{Kind: hashlist.AddHashes, List: list}
		for range hashes {
			s.Hashes = append(s.Hashes, sha256Hash(t, h))
			h++
		}
		r, err := n.issuer.Seal(s)
		if err != nil {
			t.Fatal(err)
		}
		if records = append(records, r); len(records) == 1000 || i == statements-1 {
			if _, err := n.lists.Apply(t.Context(), records...); err != nil {
				t.Fatal(err)
			}
			records = nil
		}
	}
}

func sha256Hash(t testing.TB, n uint64) hashlist.Hash {
	t.Helper()
	h, err := hashlist.ParseHash(fmt.Sprintf("sha256:%x", sha256.Sum256(binary.BigEndian.AppendUint64(nil, n))))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// processorTime is what this process has used so far.
func processorTime(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// countWire restarts a node so that the bytes it sends are counted.
func countWire(t testing.TB, n *node) *wireListener {
	t.Helper()
	n.stop()
	db, err := store.Open(t.Context(), filepath.Join(n.dir, "tocsin.db"))
	if err != nil {
		t.Fatal(err)
	}
	n.db = db
	l, err := net.Listen("tcp", n.addr)
	if err != nil {
		t.Fatal(err)
	}
	w := &wireListener{Listener: l}
	n.start(w)
	return w
}

type wireListener struct {
	net.Listener
	sent  atomic.Int64
	limit atomic.Int64 // of sent, beyond which connections break; 0 for none
}

func (l *wireListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return wireConn{c, l}, nil
}

type wireConn struct {
	net.Conn
	of *wireListener
}

func (c wireConn) Write(b []byte) (int, error) {
	if limit := c.of.limit.Load(); limit > 0 && c.of.sent.Load() > limit {
		c.Conn.Close()
		return 0, net.ErrClosed
	}
	n, err := c.Conn.Write(b)
	c.of.sent.Add(int64(n))
	return n, err
}
