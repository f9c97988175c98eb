package server

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"log/slog"
	mathbits "math/bits"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// benchmark runs ask b.N times from each number of callers and reports the
// median and the 99th percentile of its time, and what share of the time was
// spent on decoding.
func benchmark(b *testing.B, ask func(n *node, token string) func(file []byte) error) {
	file := encodeJPEG(b, photo(1, 1600, 1200), 85)
	for _, callers := range []int{1, 8} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			n := start(b, func(c *Config) { c.Limit.Cached = 0 })
			call := ask(n, n.token("bench", ScopeLookup))
			if err := call(file); err != nil { // starts a worker
				b.Fatal(err)
			}
			before := hasher().Stats()
			b.SetBytes(int64(len(file)))
			b.ResetTimer()
			var mu sync.Mutex
			var took []time.Duration
			var all sync.WaitGroup
			next := make(chan struct{})
			for range callers {
				all.Go(func() {
					for range next {
						start := time.Now()
						if err := call(file); err != nil {
							b.Error(err)
						}
						mu.Lock()
						took = append(took, time.Since(start))
						mu.Unlock()
					}
				})
			}
			for range b.N {
				next <- struct{}{}
			}
			close(next)
			all.Wait()
			b.StopTimer()
			after := hasher().Stats()
			slices.Sort(took)
			ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
			total := time.Duration(0)
			for _, d := range took {
				total += d
			}
			b.ReportMetric(ms(took[len(took)/2]), "p50-ms")
			b.ReportMetric(ms(took[len(took)*99/100]), "p99-ms")
			b.ReportMetric(100*float64(after.DecodeTime-before.DecodeTime)/float64(total), "%decoding")
			b.ReportMetric(100*float64(after.HashTime-before.HashTime)/float64(total), "%hashing")
			b.ReportMetric(100*float64(after.QueueTime-before.QueueTime)/float64(total), "%waiting")
		})
	}
}

func BenchmarkHook(b *testing.B) {
	benchmark(b, func(n *node, token string) func([]byte) error {
		return func(file []byte) error {
			code, a, err := n.tryPost(token, bytes.NewReader(file))
			if err == nil && code != 200 {
				err = fmt.Errorf("%d %+v", code, a)
			}
			return err
		}
	})
}

func BenchmarkLookupMedia(b *testing.B) {
	benchmark(b, func(n *node, token string) func([]byte) error {
		c := pb.NewLookupServiceClient(n.dial(n.grpc, token))
		return func(file []byte) error {
			_, err := sendMedia(b.Context(), c, file, nil, 256<<10)
			return err
		}
	})
}

var benchHashes = flag.Int("hashes", 100_000, "PDQ hashes on the node of BenchmarkLookup and BenchmarkLookupStream, in statements of 1,000")

// grownLog is a log that has a list of so many random hashes from the start.
type grownLog struct {
	*memoryLog
	hashes int
}

// turn turns a random one of the bits that are what is given.
func turn(r *mathrand.Rand, sum []byte, is byte) {
	for {
		if bit := r.IntN(8 * len(sum)); sum[bit/8]>>(bit%8)&1 == is {
			sum[bit/8] ^= 1 << (bit % 8)
			return
		}
	}
}

// listed is hash i of a grownLog. It has 128 ones, as the hashes of pictures have.
func listed(i int) hashlist.Hash {
	var sum [32]byte
	r := mathrand.New(mathrand.NewPCG(42, uint64(i)))
	ones := 0
	for j := range 4 {
		x := r.Uint64()
		binary.BigEndian.PutUint64(sum[8*j:], x)
		ones += mathbits.OnesCount64(x)
	}
	for ; ones > 128; ones-- {
		turn(r, sum[:], 1)
	}
	for ; ones < 128; ones++ {
		turn(r, sum[:], 0)
	}
	h, err := hashlist.NewHash(hashlist.PDQ, sum[:])
	if err != nil {
		panic(err)
	}
	return h
}

func (l *grownLog) After(ctx context.Context, seq uint64, only hashlist.Selection) iter.Seq2[hashlist.Record, error] {
	return func(yield func(hashlist.Record, error) bool) {
		list, issuer := testOrigin+"/lists/grown", testOrigin+"/users/alice"
		d := hashlist.Statement{ID: testOrigin + "/statements/0", Issuer: issuer, List: list, Kind: hashlist.DefineList, Published: time.Now(),
			Definition: &hashlist.Definition{Name: "grown", Action: hashlist.Reject, Radii: hashlist.DefaultRadii}}
		if !yield(hashlist.Record{Seq: 1, Statement: d}, nil) {
			return
		}
		for i := 0; i < l.hashes; i += 1000 {
			s := hashlist.Statement{ID: fmt.Sprintf("%s/statements/%d", testOrigin, 1+i), Issuer: issuer, List: list, Kind: hashlist.AddHashes, Published: time.Now()}
			for j := range min(1000, l.hashes-i) {
				s.Hashes = append(s.Hashes, listed(i+j))
			}
			if !yield(hashlist.Record{Seq: uint64(2 + i/1000), Statement: s}, nil) {
				return
			}
		}
	}
}

// benchLookups runs a node with many hashes, and calls ask from several goroutines for b.N
// lookups in all. The queries are those of a site: half near a listed hash, half
// strangers. Client and node share the processors.
func benchLookups(b *testing.B, callers, batch int, ask func(ctx context.Context, c pb.LookupServiceClient, next func() []*pb.LookupRequest, took func(time.Duration)) error) {
	lists, err := hashlist.Open(b.Context(), &grownLog{&memoryLog{places: map[string]uint64{}}, *benchHashes}, hashlist.DefaultPolicy())
	if err != nil {
		b.Fatal(err)
	}
	defer lists.Close()
	n := start(b, func(c *Config) {
		c.Lists, c.Log = lists, slog.New(slog.NewJSONHandler(io.Discard, nil))
	})
	r := mathrand.New(mathrand.NewPCG(1, 2))
	requests := make([]*pb.LookupRequest, 20_000)
	for i := range requests {
		h := listed(*benchHashes + i)
		if i%2 == 0 {
			sum := listed(r.IntN(*benchHashes)).Sum()
			for range r.IntN(16) {
				turn(r, sum, 0)
				turn(r, sum, 1)
			}
			if h, err = hashlist.NewHash(hashlist.PDQ, sum); err != nil {
				b.Fatal(err)
			}
		}
		requests[i] = &pb.LookupRequest{Hashes: []string{h.String()}}
	}
	token := n.token("bench", ScopeLookup)
	clients := make([]pb.LookupServiceClient, 2)
	for i := range clients {
		clients[i] = pb.NewLookupServiceClient(n.dial(n.grpc, token))
	}
	var taken atomic.Int64
	var mu sync.Mutex
	var times []time.Duration
	run := func(total int64) {
		taken.Store(0)
		var all sync.WaitGroup
		for i := range callers {
			all.Go(func() {
				next := func() []*pb.LookupRequest {
					from := taken.Add(int64(batch)) - int64(batch)
					if from >= total {
						return nil
					}
					at := int(from) % (len(requests) - batch)
					return requests[at : at+batch]
				}
				var mine []time.Duration
				if err := ask(b.Context(), clients[i%len(clients)], next, func(d time.Duration) { mine = append(mine, d) }); err != nil {
					b.Error(err)
				}
				mu.Lock()
				times = append(times, mine...)
				mu.Unlock()
			})
		}
		all.Wait()
	}
	run(int64(100 * callers * batch)) // connections, pools, caches
	times = nil
	b.ReportAllocs()
	b.ResetTimer()
	run(int64(b.N))
	b.StopTimer()
	slices.Sort(times)
	us := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lookups/s")
	b.ReportMetric(us(times[len(times)/2]), "p50-us")
	b.ReportMetric(us(times[len(times)*99/100]), "p99-us")
}

// BenchmarkLookup asks for one hash at a time, over TCP.
func BenchmarkLookup(b *testing.B) {
	for _, callers := range []int{1, 16, 32, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			benchLookups(b, callers, 1, func(ctx context.Context, c pb.LookupServiceClient, next func() []*pb.LookupRequest, took func(time.Duration)) error {
				for r := next(); r != nil; r = next() {
					start := time.Now()
					if _, err := c.Lookup(ctx, r[0]); err != nil {
						return err
					}
					took(time.Since(start))
				}
				return nil
			})
		})
	}
}

// BenchmarkLookupStream asks for 64 hashes in a message. Each caller has a few
// messages on their way; the times are those of a message.
func BenchmarkLookupStream(b *testing.B) {
	for _, callers := range []int{1, 4} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			benchLookups(b, callers, 64, func(ctx context.Context, c pb.LookupServiceClient, next func() []*pb.LookupRequest, took func(time.Duration)) error {
				stream, err := c.LookupStream(ctx)
				if err != nil {
					return err
				}
				sent := make(chan time.Time, 4)
				done := make(chan error, 1)
				go func() {
					for start := range sent {
						if _, err := stream.Recv(); err != nil {
							done <- err
							return
						}
						took(time.Since(start))
					}
					done <- nil
				}()
				for r := next(); r != nil; r = next() {
					select {
					case sent <- time.Now():
					case err := <-done:
						return err
					}
					if err := stream.Send(&pb.LookupStreamRequest{Lookups: r}); err != nil {
						return err
					}
				}
				close(sent)
				if err := <-done; err != nil {
					return err
				}
				if err := stream.CloseSend(); err != nil {
					return err
				}
				if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
					return fmt.Errorf("the stream ended with %w", err)
				}
				return nil
			})
		})
	}
}
