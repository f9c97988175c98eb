package bktree

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// BenchmarkNear is where the rule in the package comment comes from: both
// structures, clustered points, half of the queries near a stored one.
func BenchmarkNear(b *testing.B) {
	b.Run("bits=64", func(b *testing.B) { benchNear[Point64](b, 0, 1, 2, 3, 4, 8, 10, 16) })
	b.Run("bits=256", func(b *testing.B) { benchNear[Point256](b, 0, 2, 8, 15, 31, 63) })
}

func benchNear[P Point](b *testing.B, radii ...int) {
	for _, n := range []int{1000, 100_000, 1_000_000} {
		points := clustered[P](rand.New(rand.NewPCG(42, 0)), n)
		for _, name := range []string{"scan", "tree"} {
			var s structure[P] = newScan[P]()
			if name == "tree" {
				s = newTree[P]()
			}
			x := newIndex(s)
			for _, p := range points {
				x.Insert(p)
			}
			for _, radius := range radii {
				b.Run(fmt.Sprintf("n=%d/r=%d/%s", n, radius, name), func(b *testing.B) {
					rnd := rand.New(rand.NewPCG(7, 0))
					queries := make([]P, 1000)
					for i := range queries {
						if queries[i] = random[P](rnd); i%2 == 0 {
							queries[i] = shaken(rnd, points[rnd.IntN(n)], rnd.IntN(radius+1))
						}
					}
					var dst []Neighbour
					i := 0
					b.ReportAllocs()
					for b.Loop() {
						// The structure, not Index.Near, which answers radius 0 itself.
						into := nearest{found: dst[:0], radius: radius}
						s.near(queries[i%len(queries)], &into)
						dst, _ = into.finish()
						i++
					}
				})
			}
		}
	}
}

func BenchmarkFind(b *testing.B) {
	const n = 1_000_000
	points := clustered[Point256](rand.New(rand.NewPCG(42, 0)), n)
	x := New[Point256]()
	for _, p := range points {
		x.Insert(p)
	}
	i := 0
	for b.Loop() {
		x.Find(points[i*7919%n])
		i++
	}
}

func BenchmarkInsertRemove(b *testing.B) {
	for _, name := range []string{"scan", "tree"} {
		b.Run(name, func(b *testing.B) {
			points := clustered[Point256](rand.New(rand.NewPCG(42, 0)), 100_000)
			for b.Loop() {
				x := newRace[Point256]().indexes[name]
				for _, p := range points {
					x.Insert(p)
				}
				for _, p := range points {
					x.Remove(p)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(2*len(points)), "ns/change")
		})
	}
}
