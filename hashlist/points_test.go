package hashlist

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"github.com/tocsin-fed/tocsin/bktree"
)

func randomHash(r *rand.ChaCha8, a Algorithm) Hash {
	h := Hash{alg: a}
	r.Read(h.sum[:a.Size()])
	return h
}

// TestPoints: the points of every algorithm against a map.
func TestPoints(t *testing.T) {
	for _, a := range Algorithms {
		t.Run(a.String(), func(t *testing.T) {
			r := rand.NewChaCha8([32]byte{byte(a)})
			p := newPoints()[a]
			model := map[Hash]bktree.ID{}
			var hashes []Hash
			for range 3000 {
				hashes = append(hashes, randomHash(r, a))
			}
			hashes = append(hashes, hashes[:100]...) // twice in one statement
			add := func(hashes []Hash) {
				for i, id := range p.insertAll(hashes, nil) {
					if known, ok := model[hashes[i]]; ok && known != id {
						t.Fatalf("hash %d has numbers %d and %d", i, known, id)
					}
					model[hashes[i]] = id
				}
			}
			compare := func() {
				t.Helper()
				if p.len() != len(model) {
					t.Fatalf("%d hashes, want %d", p.len(), len(model))
				}
				seen := map[bktree.ID]Hash{}
				p.each(func(id bktree.ID, h Hash) { seen[id] = h })
				for h, id := range model {
					if seen[id] != h {
						t.Fatalf("number %d is of %v, want %v", id, seen[id], h)
					}
					if got, ok := p.find(h); !ok || got != id {
						t.Fatalf("find = %d, %v, want %d", got, ok, id)
					}
					// Other hashes are too far away for that.
					if near := p.near(h, 4, nil); len(near) != 1 || near[0] != (bktree.Neighbour{ID: id}) {
						t.Fatalf("near = %v, want %d", near, id)
					}
				}
				if len(seen) != len(model) {
					t.Fatalf("each visits %d hashes, want %d", len(seen), len(model))
				}
			}
			drop := func(hashes []Hash) {
				for _, h := range hashes {
					if id, ok := model[h]; ok {
						p.drop(id)
						delete(model, h)
					}
				}
			}
			p.beginBulk()
			add(hashes)
			drop(hashes[:500])
			if id, ok := p.find(hashes[700]); !ok || id != model[hashes[700]] {
				t.Error("not found while in bulk")
			}
			p.endBulk()
			compare()
			drop(hashes[400:1200])
			compare()
			add(hashes[1000:])
			if id := p.insert(hashes[0]); p.insert(hashes[0]) != id {
				t.Error("one hash has two numbers")
			} else {
				model[hashes[0]] = id
			}
			compare()

			// What is near is found, but of a digest only itself.
			h := hashes[2000]
			other := h
			other.sum[0] ^= 3
			near := p.near(other, 2, nil)
			if found := slices.Contains(near, bktree.Neighbour{ID: model[h], Distance: 2}); found != a.Perceptual() || len(near) > 1 {
				t.Errorf("near = %v", near)
			}
		})
	}
}

// BenchmarkPoints adds a million hashes, a statement of 1,000 after the other.
func BenchmarkPoints(b *testing.B) {
	for _, a := range []Algorithm{PDQ, SHA256} {
		b.Run(a.String(), func(b *testing.B) {
			r := rand.NewChaCha8([32]byte{42})
			hashes := make([]Hash, 1_000_000)
			for i := range hashes {
				hashes[i] = randomHash(r, a)
			}
			var ids []bktree.ID
			for b.Loop() {
				p := newPoints()[a]
				p.beginBulk()
				for part := range slices.Chunk(hashes, 1000) {
					ids = p.insertAll(part, ids[:0])
				}
				p.endBulk()
				runtime.KeepAlive(p)
			}
			b.ReportMetric(float64(len(hashes)*b.N)/b.Elapsed().Seconds(), "hashes/s")
		})
	}
}
