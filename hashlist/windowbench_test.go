package hashlist

import (
	"flag"
	"math/rand/v2"
	"testing"
)

var windowUploads = flag.Int("window-uploads", 100_000, "uploads in the window of BenchmarkWindow")

// uploadedHash is a hash of no picture.
func uploadedHash(r *rand.Rand, a Algorithm) Hash {
	h := Hash{alg: a}
	for i := range a.Size() {
		h.sum[i] = byte(r.Uint32())
	}
	return h
}

// anyUploadOf has the probes of an uploaded picture: its digests, the eight variants of PDQ, of
// which four are the others transposed, their complements, and the two small hashes.
func anyUploadOf(r *rand.Rand) []Probe {
	var p []Probe
	for _, a := range [...]Algorithm{SHA256, SHA1, MD5} {
		p = append(p, Probe{Hash: uploadedHash(r, a)})
	}
	for range 4 {
		h := uploadedHash(r, PDQ)
		for _, v := range []Hash{h, h.transposed()} {
			p = append(p, Probe{Hash: v}, Probe{Hash: v.Complement()})
		}
	}
	return append(p, Probe{Hash: uploadedHash(r, PHash)}, Probe{Hash: uploadedHash(r, DHash)})
}

// BenchmarkWindow tells what a window of many uploads costs: memory for each, the time to
// file one, and the time to compare one new hash at the customary radius.
func BenchmarkWindow(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	x := newWindowIndex()
	fill := func(n int) {
		for x.len < n {
			probes := anyUploadOf(r)
			x.add(recent{id: uint64(x.len + 1), sum: r.Uint64(), count: 1}, filed(probes))
		}
	}
	fill(*windowUploads)
	b.Run("file", func(b *testing.B) {
		all := make([][]Hash, 1024)
		for i := range all {
			all[i] = filed(anyUploadOf(r))
		}
		var added []uint32
		b.ResetTimer()
		for i := range b.N {
			added = append(added, x.add(recent{id: 1, count: 1}, all[i%len(all)]))
			if len(added) == len(all) {
				for _, n := range added {
					x.drop(n)
				}
				added = added[:0]
			}
		}
		for _, n := range added {
			x.drop(n)
		}
	})
	b.Run("compare", func(b *testing.B) {
		hashes := make([]Hash, 4096)
		for i := range hashes {
			hashes[i] = uploadedHash(r, PDQ)
		}
		var found []uint32
		b.ResetTimer()
		for i := range b.N {
			found = x.search(hashes[i%len(hashes)], int(DefaultRadii[PDQ]), found[:0])
		}
		b.ReportMetric(float64(x.bytes())/float64(x.len), "bytes/upload")
	})
	b.Run("digests", func(b *testing.B) {
		hashes := make([]Hash, 4096)
		for i := range hashes {
			hashes[i] = uploadedHash(r, SHA256)
		}
		var found []uint32
		b.ResetTimer()
		for i := range b.N {
			found = x.search(hashes[i%len(hashes)], 0, found[:0])
		}
	})
}
