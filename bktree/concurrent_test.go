package bktree

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

// TestReadersBesideWriter: readers know, before each query, which points are in
// the index for good, because the writer says so after Insert has returned.
// Whatever else goes on, these must be found, once each, at their distance.
func TestReadersBesideWriter(t *testing.T) {
	t.Run("scan 64", func(t *testing.T) { besideWriter(t, newIndex[Point64](newScan[Point64]())) })
	t.Run("tree 64", func(t *testing.T) { besideWriter(t, newIndex[Point64](newTree[Point64]())) })
	t.Run("scan 256", func(t *testing.T) { besideWriter(t, newIndex[Point256](newScan[Point256]())) })
	t.Run("64", func(t *testing.T) { besideWriter(t, New[Point64]()) })
	t.Run("256", func(t *testing.T) { besideWriter(t, New[Point256]()) })
	t.Run("mixed 256", func(t *testing.T) { besideWriter(t, shaped[Point256](mixed)) })
	t.Run("tree 256", func(t *testing.T) { besideWriter(t, newIndex[Point256](newTree[Point256]())) })
}

func besideWriter[P Point](t *testing.T, x *Index[P]) {
	const n = 4000
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	// Even points stay, odd ones come and go; the IDs of those that stay.
	points := distinct(rnd, clustered[P](rnd, n))
	ids := make([]ID, n)
	var settled, gone atomic.Int64 // even points below settled are in; odd ones below gone are out
	var wait sync.WaitGroup
	done := make(chan struct{})
	for reader := range 3 {
		wait.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(reader+1)))
			var dst []Neighbour
			for {
				in, out := int(settled.Load()), int(gone.Load())
				for range 20 {
					if in == 0 {
						break
					}
					i := rnd.IntN(in/2+1) * 2 % in
					p := points[i]
					radius := rnd.IntN(12)
					q := shaken(rnd, p, rnd.IntN(radius+1))
					dst, _ = x.Near(q, radius, 0, dst[:0])
					count := 0
					for _, found := range dst {
						if found.ID == ids[i] {
							count++
							if d := Distance(p, q); d != found.Distance {
								t.Errorf("point %d at distance %d, want %d", i, found.Distance, d)
							}
						}
						if found.Distance > radius {
							t.Errorf("distance %d beyond %d", found.Distance, radius)
						}
					}
					if count != 1 {
						t.Errorf("point %d found %d times of %d", i, count, in)
						return
					}
					if id, ok := x.Find(p); !ok || id != ids[i] {
						t.Errorf("Find of point %d = %d, %v, want %d", i, id, ok, ids[i])
					}
					if out > 1 {
						if _, ok := x.Find(points[rnd.IntN(out/2)*2+1]); ok {
							t.Error("a removed point is found")
						}
					}
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for i, p := range points {
		id, added := x.Insert(p)
		if !added {
			t.Fatalf("point %d is there already", i)
		}
		if i%2 == 0 {
			ids[i] = id
			settled.Store(int64(i + 1))
		}
		if i%3 == 0 { // IDs go round
			extra := random[P](rnd)
			x.Insert(extra)
			x.Remove(extra)
		}
		if j := i - 200; j > 0 && j%2 == 1 {
			if _, removed := x.Remove(points[j]); !removed {
				t.Fatalf("point %d was not there to remove", j)
			}
			gone.Store(int64(j + 1))
		}
		_ = x.Stats()
	}
	close(done)
	wait.Wait()
	check(t, x)
}

// TestManyWriters: inserts and removes of the same points from several
// goroutines; each point is added once more than it is removed, or as often.
func TestManyWriters(t *testing.T) {
	rnd := newRand(t)
	points := distinct(rnd, clustered[Point256](rnd, 500))
	for name, x := range newRace[Point256]().indexes {
		balance := make([]atomic.Int32, len(points))
		var wait sync.WaitGroup
		for range 4 {
			order := rnd.Perm(len(points))
			wait.Go(func() {
				for _, i := range order {
					if _, added := x.Insert(points[i]); added {
						balance[i].Add(1)
					}
					if i%3 == 0 {
						if _, removed := x.Remove(points[i]); removed {
							balance[i].Add(-1)
						}
					}
				}
			})
		}
		wait.Wait()
		check(t, x)
		for i, p := range points {
			_, there := x.Find(p)
			if n := balance[i].Load(); n != 0 && n != 1 || (n == 1) != there {
				t.Errorf("%s: point %d: balance %d, there %v", name, i, n, there)
			}
		}
	}
}
