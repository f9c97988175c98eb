package server

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

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

func BenchmarkLookup(b *testing.B) {
	n := start(b)
	h := randomHashes(1000)
	n.ban("gore", h...)
	c := pb.NewLookupServiceClient(n.dial(n.grpc, n.token("bench", ScopeLookup)))
	r := &pb.LookupRequest{Hashes: texts(h[:1])}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Lookup(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
}
