package bktree

import (
	"cmp"
	"flag"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"
)

// The benchmarks that compare take turns within one run: ratios count, for the
// machine may be busy. Distances found are compared as well as times.
var benchPoints = flag.String("points", "100000,1000000", "numbers of points to search among, in BenchmarkSearch and its like")

// workload is n points of which a tenth are the centres of 1 to 8 others at up to
// 40 bits (10 of 64), and queries: half of them unrelated, half a stored
// point with as many bits flipped as the radius allows, evenly. Points of 256 bits have exactly 128
// ones, as PDQ hashes do.
func workload[P Point](n, queries, radius int) (points, asked []P) {
	r := rand.New(rand.NewPCG(42, 0))
	points = make([]P, 0, n+8)
	for len(points) < n {
		p := balanced[P](r)
		points = append(points, p)
		if r.IntN(10) == 0 {
			first := len(points) - 1
			for range 1 + r.IntN(8) {
				near := balance(r, shaken(r, p, r.IntN(1+width[P]()*10/64)))
				if !slices.Contains(points[first:], near) { // identical points are one
					points = append(points, near)
				}
			}
		}
	}
	points = points[:n]
	for i := range queries {
		if i%2 == 0 {
			asked = append(asked, balanced[P](r))
		} else {
			asked = append(asked, shaken(r, points[r.IntN(n)], r.IntN(radius+1)))
		}
	}
	return points, asked
}

func balanced[P Point](r *rand.Rand) P { return balance(r, random[P](r)) }

// balance flips random bits until half of 256 are set.
func balance[P Point](r *rand.Rand, p P) P {
	q, ok := any(&p).(*Point256)
	for ok {
		ones := Distance(*q, Point256{})
		if ones == 128 {
			break
		}
		if i := r.IntN(256); (q[i>>6]>>(i&63)&1 == 1) == (ones > 128) {
			*q = flip(*q, i)
		}
	}
	return p
}

// loop is the yardstick: what one would write without this package.
func loop[P Point](points []P, q P, radius int, dst []Neighbour) []Neighbour {
	switch points := any(points).(type) {
	case []Point64:
		q := uint64(any(q).(Point64))
		for i, p := range points {
			if d := bits.OnesCount64(uint64(p) ^ q); d <= radius {
				dst = append(dst, Neighbour{ID(i), d})
			}
		}
	case []Point256:
		q := any(q).(Point256)
		for i := range points {
			p := &points[i]
			d := bits.OnesCount64(p[0]^q[0]) + bits.OnesCount64(p[1]^q[1]) +
				bits.OnesCount64(p[2]^q[2]) + bits.OnesCount64(p[3]^q[3])
			if d <= radius {
				dst = append(dst, Neighbour{ID(i), d})
			}
		}
	}
	return dst
}

func benchSizes(b *testing.B) (sizes []int) {
	for rest, n := *benchPoints+",", 0; rest != ""; {
		if _, err := fmt.Sscanf(rest, "%d,", &n); err != nil {
			b.Fatalf("-points: %v", err)
		}
		sizes = append(sizes, n)
		rest = rest[len(fmt.Sprint(n))+1:]
	}
	return sizes
}

// BenchmarkSearch reports the medians of the index, of the plain loop and of our
// own scan, and how many times the loop takes longer. "go test -bench Search/bits=256
// -benchtime 2000x": 2000 queries of the index and a few of the others, in turns.
func BenchmarkSearch(b *testing.B) {
	b.Run("bits=256", func(b *testing.B) { benchSearch[Point256](b, 31) })
	b.Run("bits=64", func(b *testing.B) { benchSearch[Point64](b, 8, 10) })
}

// BenchmarkRadius is BenchmarkSearch at other radii.
func BenchmarkRadius(b *testing.B) {
	b.Run("bits=256", func(b *testing.B) { benchSearch[Point256](b, 0, 7, 15, 19, 23, 27, 35, 39, 47, 55, 63) })
	b.Run("bits=64", func(b *testing.B) { benchSearch[Point64](b, 0, 2, 4, 6, 12, 16) })
}

func benchSearch[P Point](b *testing.B, radii ...int) {
	for _, n := range benchSizes(b) {
		var points []P
		var x *Index[P]
		for _, radius := range radii {
			for _, k := range kernels() {
				b.Run(fmt.Sprintf("n=%d/r=%d/%s", n, radius, k.name), func(b *testing.B) {
					if x == nil {
						points, _ = workload[P](n, 0, 0)
						x = filled(points)
					}
					m := x.structure.(*multi[P])
					m.kernel = k
					_, queries := workload[P](n, 20_000, radius)
					compareSearch(b, x, points, queries, radius)
				})
			}
		}
	}
}

func filled[P Point](points []P) *Index[P] {
	x := New[P]()
	x.BeginBulk()
	x.InsertBatch(points, nil)
	x.EndBulk()
	return x
}

func compareSearch[P Point](b *testing.B, x *Index[P], points, queries []P, radius int) {
	m := x.structure.(*multi[P])
	var index, plain, scan, only []time.Duration
	lines, s := 0, new(search)
	var dst, want []Neighbour
	distances := func(ns []Neighbour) (d []int) {
		seen := make(map[ID]bool)
		for _, n := range ns {
			if !seen[n.ID] {
				d = append(d, n.Distance)
			}
			seen[n.ID] = true
		}
		slices.Sort(d)
		return d
	}
	i := 0
	for b.Loop() {
		q := queries[i%len(queries)]
		start := time.Now()
		dst, _ = x.Near(q, radius, 0, dst[:0])
		index = append(index, time.Since(start))
		if i++; i%2000 != 0 {
			continue
		}
		for k := range 5 {
			q := queries[(i+777*k)%len(queries)]
			start := time.Now()
			want = loop(points, q, radius, want[:0])
			plain = append(plain, time.Since(start))
			start = time.Now()
			into := nearest{radius: radius}
			m.store.scan(permute(q), &into)
			scan = append(scan, time.Since(start))
			dst, _ = x.Near(q, radius, 0, dst[:0])
			for j := range want { // identical points are one, with the first one's ID here
				want[j].ID, _ = x.Find(points[want[j].ID])
			}
			if !slices.Equal(distances(want), distances(dst)) {
				b.Fatalf("found at %v, should be %v", distances(dst), distances(want))
			}
		}
		for k := range 50 { // the loop has emptied the caches, which is not the index's fault
			dst, _ = x.Near(queries[(i+k+9999)%len(queries)], radius, 0, dst[:0])
		}
		for k := range 200 {
			if took, n := onlyLines(m, queries[(i+k+7777)%len(queries)], radius, s); n > 0 {
				only, lines = append(only, took), lines+n
			}
		}
	}
	if len(plain) == 0 {
		return // a trial run of the testing package
	}
	half, tail := quantile(index, 0.5), quantile(index, 0.99)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(half)/1e3, "p50-us")
	b.ReportMetric(float64(tail)/1e3, "p99-us")
	b.ReportMetric(float64(quantile(plain, 0.5))/1e3, "loop-us")
	b.ReportMetric(float64(quantile(scan, 0.5))/1e3, "scan-us")
	b.ReportMetric(float64(quantile(plain, 0.5))/float64(half), "loops")
	b.ReportMetric(float64(x.Stats().Bytes)/float64(x.Stats().Points), "B/point")
	if len(only) > 0 {
		b.ReportMetric(float64(lines)/float64(len(only)), "lines")
		b.ReportMetric(float64(quantile(only, 0.5))/1e3, "lines-us")
	}
}

var benchTogether = flag.Int("together", 64, "points that BenchmarkEither asks for at a time")

// BenchmarkEither reports what it takes to look up a point and its complement: in an index that is folded, alone and
// with others, and by two searches in one that is not, in turns.
func BenchmarkEither(b *testing.B) {
	for _, n := range benchSizes(b) {
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			points, queries := workload[Point256](n, 20_000, 31)
			folded, plain := NewFolded(), filled(points)
			folded.BeginBulk()
			insertBatches(folded, points)
			folded.EndBulk()
			together := max(*benchTogether, 1)
			var either, batch, two []time.Duration
			found, want := make([]Both, together), make([]Both, 1)
			for i := 0; b.Loop(); i++ {
				q := queries[i%len(queries)]
				if i%4 < 2 { // of both kinds of queries
					q = complement(q)
				}
				switch i / 100 % 3 {
				case 0:
					either = append(either, timed(func() { folded.NearEither([]Point256{q}, 31, empty(found[:1])) }))
				case 1:
					two = append(two, timed(func() {
						empty(found)
						found[0].Near, _ = plain.Near(q, 31, 0, found[0].Near)
						found[0].Opposite, _ = plain.Near(complement(q), 31, 0, found[0].Opposite)
					}))
				case 2:
					at := i * together % max(len(queries)-together, 1)
					asked := queries[at:][:together]
					batch = append(batch, timed(func() { folded.NearEither(asked, 31, empty(found)) })/time.Duration(together))
					q = asked[i%together]
					found[0], found[i%together] = found[i%together], found[0]
				}
				if i%20 != 19 {
					continue
				}
				plain.NearEither([]Point256{q}, 31, empty(want))
				if !slices.Equal(found[0].Near, want[0].Near) || !slices.Equal(found[0].Opposite, want[0].Opposite) {
					b.Fatalf("folded: %v; not: %v", found[0], want[0])
				}
			}
			if len(batch) == 0 {
				return
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(quantile(either, 0.5))/1e3, "either-p50-us")
			b.ReportMetric(float64(quantile(either, 0.99))/1e3, "either-p99-us")
			b.ReportMetric(float64(quantile(batch, 0.5))/1e3, "together-p50-us")
			b.ReportMetric(float64(quantile(two, 0.5))/1e3, "two-p50-us")
			b.ReportMetric(float64(quantile(two, 0.99))/1e3, "two-p99-us")
			b.ReportMetric(float64(folded.Stats().Bytes)/float64(n), "B/point")
		})
	}
}

// empty is for the next answers, in the same memory.
func empty(found []Both) []Both {
	for i := range found {
		found[i] = Both{found[i].Near[:0], found[i].Opposite[:0]}
	}
	return found
}

var sink uint64

// onlyLines reads the lines of fingerprints that a search of the tables reads, as fast as this
// machine's memory gives them, and looks at none: what no search of this kind can beat.
func onlyLines[P Point](m *multi[P], q P, radius int, s *search) (took time.Duration, n int) {
	r := m.ring.Load()
	defer s.forget()
	if r == nil || !m.kernel.fetches || !m.prepare([]P{permute(q)}, r, m.odd.Load(), radius, false, s) {
		return 0, 0
	}
	start := time.Now()
	s.aim()
	sum := uint64(0)
	for _, sw := range s.sweeps {
		s.list(sw.n + sw.distance)
		for range sw.n {
			fetchBuckets(&s.at[s.done+sw.distance], 1, sw.ahead)
			first := *(*unsafe.Pointer)(unsafe.Pointer(&s.at[s.done]))
			for l := range sw.ahead {
				sum += *(*uint64)(unsafe.Add(first, l*64))
			}
			s.done++
			n += sw.ahead
		}
	}
	took = time.Since(start)
	sink += sum
	return took, n
}

func quantile[T cmp.Ordered](v []T, q float64) T {
	slices.Sort(v)
	return v[int(float64(len(v)-1)*q)]
}

// BenchmarkInsert reports inserts and removes a second, one by one and in batches of
// 1,000, alone and beside a reader, and what the reader's lookups take meanwhile. The
// index starts with half of the points.
func BenchmarkInsert(b *testing.B) {
	for _, n := range benchSizes(b) {
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			points, queries := workload[Point256](n, 20_000, 31)
			rest := points[n/2:]
			report := func(what string, n int, took time.Duration) {
				b.ReportMetric(float64(n)/took.Seconds(), what+"/s")
			}
			x := New[Point256]()
			time1 := timed(func() { x.BeginBulk(); insertBatches(x, points) })
			time2 := timed(x.EndBulk)
			report("bulk", n, time1+time2)
			b.ReportMetric(time2.Seconds()*1e3, "build-ms")
			one := func() {
				for _, p := range rest {
					x.Insert(p)
				}
			}
			batched := func() { insertBatches(x, rest) }
			remove := func() {
				for _, p := range rest {
					x.Remove(p)
				}
			}
			var stop atomic.Bool
			lookups := func(what string, until func() bool) {
				var took []time.Duration
				var dst []Neighbour
				for i := 0; !until(); i++ {
					start := time.Now()
					dst, _ = x.Near(queries[i%len(queries)], 31, 0, dst[:0])
					took = append(took, time.Since(start))
				}
				b.ReportMetric(float64(quantile(took, 0.5))/1e3, what+"-p50-us")
				b.ReportMetric(float64(quantile(took, 0.99))/1e3, what+"-p99-us")
			}
			beside := func(what string, write func()) {
				var wait sync.WaitGroup
				stop.Store(false)
				wait.Go(func() { lookups(what, stop.Load) })
				report(what, len(rest), timed(write))
				stop.Store(true)
				wait.Wait()
			}
			for b.Loop() {
				x = filled(points[:n/2])
				report("inserts", len(rest), timed(one))
				left := 20_000
				lookups("quiet", func() bool { left--; return left < 0 })
				report("removes", len(rest), timed(remove))
				x = filled(points[:n/2])
				report("batched", len(rest), timed(batched))
				x = filled(points[:n/2])
				beside("beside-inserts", one)
				beside("beside-removes", remove)
				x = filled(points[:n/2])
				beside("beside-batched", batched)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

func timed(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

func insertBatches[P Point](x *Index[P], points []P) {
	var ids []ID
	for part := range slices.Chunk(points, 1000) {
		ids = x.InsertBatch(part, ids[:0])
	}
}

// BenchmarkCrossover is where the sizes from which there are tables come from.
func BenchmarkCrossover(b *testing.B) {
	for _, n := range []int{400, 800, 1200, 1600, 2400, 4000, 8000, 16000, 32000} {
		points, queries := workload[Point256](n, 20_000, 31)
		x := filled(points)
		m := x.structure.(*multi[Point256])
		if m.level < 0 {
			m.start(n)
		}
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) { compareSearch(b, x, points, queries, 31) })
	}
}

// BenchmarkTree is the story of the package comment: the plain tree, the plain
// scan and the index at some radii.
func BenchmarkTree(b *testing.B) {
	b.Run("bits=64", func(b *testing.B) { benchTree[Point64](b, 1, 2, 3, 8, 10) })
	b.Run("bits=256", func(b *testing.B) { benchTree[Point256](b, 2, 8, 15, 31, 63) })
}

func benchTree[P Point](b *testing.B, radii ...int) {
	for _, n := range benchSizes(b) {
		points, _ := workload[P](n, 0, 0)
		for name, x := range map[string]*Index[P]{"scan": newIndex[P](newScan[P]()), "tree": newIndex[P](newTree[P]()), "index": New[P]()} {
			for _, p := range points {
				x.Insert(p)
			}
			for _, radius := range radii {
				_, queries := workload[P](n, 1000, radius)
				b.Run(fmt.Sprintf("n=%d/r=%d/%s", n, radius, name), func(b *testing.B) {
					var dst []Neighbour
					i := 0
					b.ReportAllocs()
					for b.Loop() {
						dst, _ = x.Near(queries[i%len(queries)], radius, 0, dst[:0])
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
	x := filled(points)
	i := 0
	for b.Loop() {
		x.Find(points[i*7919%n])
		i++
	}
}

// BenchmarkFlood crowds a twentieth of the points round one, inserts another 50,000
// times, and asks the queries of the workload and the centre of the crowd in turns
// with an index without either.
func BenchmarkFlood(b *testing.B) {
	for _, n := range benchSizes(b) {
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			points, queries := workload[Point256](n, 20_000, 31)
			calm := filled(points)
			r := rand.New(rand.NewPCG(43, 0))
			centre := balanced[Point256](r)
			for i := range n / 20 {
				points[n-1-i] = balance(r, shaken(r, centre, r.IntN(41)))
			}
			flooded := filled(points)
			for range 50_000 {
				flooded.Insert(points[0])
			}
			var with, without, at []time.Duration
			var dst []Neighbour
			ask := func(x *Index[Point256], q Point256, took *[]time.Duration) {
				start := time.Now()
				dst, _ = x.Near(q, 31, 0, dst[:0])
				*took = append(*took, time.Since(start))
			}
			i := 0
			for b.Loop() {
				q := queries[i%len(queries)]
				if i++; i/1000%2 == 0 {
					ask(flooded, q, &with)
				} else {
					ask(calm, q, &without)
				}
				if i%1000 == 0 {
					ask(flooded, centre, &at)
				}
			}
			if len(at) < 2 {
				return
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(quantile(without, 0.5))/1e3, "calm-p50-us")
			b.ReportMetric(float64(quantile(with, 0.5))/1e3, "flooded-p50-us")
			b.ReportMetric(float64(quantile(without, 0.95))/1e3, "calm-p95-us")
			b.ReportMetric(float64(quantile(with, 0.95))/1e3, "flooded-p95-us")
			b.ReportMetric(float64(quantile(at, 0.5))/1e3, "centre-us")
		})
	}
}
