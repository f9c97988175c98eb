package hashlist_test

import (
	"crypto/sha256"
	"encoding/binary"
	"runtime"
	"testing"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// BenchmarkSee tells what the window adds to a lookup: the same lookups with and without
// it, of pictures that come for the first time.
func BenchmarkSee(b *testing.B) {
	for _, c := range []struct {
		name string
		see  bool
	}{{"without", false}, {"with", true}} {
		b.Run(c.name, func(b *testing.B) {
			w := newWorld(b, nil)
			for n := range 1000 {
				w.ban(refused, picture(b, n, 0))
			}
			queries := make([]hashlist.Query, b.N)
			for i := range queries {
				sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i)))
				q := &queries[i]
				q.Probes = append(q.Probes, hashlist.Probe{Hash: hash(b, hashlist.SHA256, sum[:])})
				for n := range 8 {
					h := picture(b, 1_000_000+8*i+n, 0)
					q.Probes = append(q.Probes, hashlist.Probe{Hash: h, Transform: "rot90"}, hashlist.Probe{Hash: h.Complement(), Transform: "inverted-rot90"})
				}
			}
			runtime.GC()
			b.ResetTimer()
			for i := range queries {
				r := w.lists.Lookup(queries[i])
				if c.see {
					w.window.See(queries[i], &r)
				}
			}
			b.StopTimer()
			b.ReportMetric(float64(w.window.Stats().Dropped)/float64(b.N), "dropped/op")
		})
	}
}
