package bktree

import (
	"flag"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"weak"
)

// TestGrowth takes the index through several levels and back, and compares it
// with a scan of its own store in the middle of builds.
func TestGrowth(t *testing.T) {
	t.Run("64", func(t *testing.T) { growth[Point64](t, 16, nil) })
	t.Run("256", func(t *testing.T) { growth[Point256](t, 63, nil) })
	t.Run("folded", func(t *testing.T) { growth[Point256](t, 63, folded) })
	t.Run("mixed", func(t *testing.T) { growth[Point256](t, 63, mixed) })
}

func growth[P Point](t *testing.T, largest int, levels []level) {
	rnd := newRand(t)
	n := sized(35_000)
	points := distinct(rnd, clustered[P](rnd, n))
	x := shaped[P](levels)
	m := x.structure.(*multi[P])
	m.always = true
	seen := make(map[int]bool)
	building := 0
	passed := 0
	step := func(i int) {
		seen[m.level] = true
		if mv := m.move; mv == nil {
			passed = 0
		} else if mv.next-passed > movePace {
			t.Fatalf("point %d: a move went on by %d IDs", i, mv.next-passed)
		} else {
			passed = mv.next
		}
		if i%500 != 0 {
			return
		}
		if m.build != nil || m.move != nil {
			building++
		}
		for _, k := range kernels() {
			m.kernel = k
			likeScan(t, x, shaken(rnd, points[rnd.IntN(n)], rnd.IntN(largest+1)), rnd.IntN(largest+1), rnd.IntN(3))
		}
		if i%5000 == 0 || (m.build != nil || m.move != nil) && i%2500 == 0 {
			check(t, x)
		}
	}
	for i, p := range points {
		x.Insert(p)
		step(i)
	}
	for radius := range largest + 1 {
		likeScan(t, x, points[rnd.IntN(n)], radius, 0)
	}
	rnd.Shuffle(n, func(i, j int) { points[i], points[j] = points[j], points[i] })
	for i, p := range points {
		if _, ok := x.Remove(p); !ok {
			t.Fatalf("point %d is not there", i)
		}
		step(i)
	}
	check(t, x)
	if len(seen) < 4 || building == 0 {
		t.Errorf("levels %v, %d looks during builds", seen, building)
	}
	if b := x.Stats().Bytes; b > 1<<20 {
		t.Errorf("an empty index holds %d bytes", b)
	}
}

// likeScan fails unless a search of the tables finds what a scan of the store finds.
// Nothing may be writing.
func likeScan[P Point](t testing.TB, x *Index[P], q P, radius, limit int) {
	t.Helper()
	m := x.structure.(*multi[P])
	want := nearest{radius: radius, limit: limit}
	m.store.scan(permute(q), &want)
	wanted, wantCut := want.finish()
	got, cut := x.Near(q, radius, limit, nil)
	if !slices.Equal(got, wanted) || cut != wantCut {
		t.Fatalf("%s: within %d, limit %d: %v, %v\nwant %v, %v", m.kernel.name, radius, limit, got, cut, wanted, wantCut)
	}
	if limit > 0 {
		return
	}
	opposite := nearest{radius: radius}
	m.store.scan(complement(permute(q)), &opposite)
	wantedOpposite, _ := opposite.finish()
	var found [1]Both
	x.NearEither([]P{q}, radius, found[:])
	if !slices.Equal(found[0].Near, wanted) || !slices.Equal(found[0].Opposite, wantedOpposite) {
		t.Fatalf("%s: either within %d: %v\nwant %v, %v", m.kernel.name, radius, found[0], wanted, wantedOpposite)
	}
}

// TestFlood: thousands of points that share words with one another, so that buckets
// overflow into long chains, which then lose most of their points.
func TestFlood(t *testing.T) {
	t.Run("as it is", func(t *testing.T) { flood(t, nil) })
	t.Run("folded", func(t *testing.T) { flood(t, folded[:4]) })
}

func flood(t *testing.T, levels []level) {
	rnd := newRand(t)
	x := shaped[Point256](levels)
	m := x.structure.(*multi[Point256])
	for _, p := range clustered[Point256](rnd, 2000) {
		x.Insert(p)
	}
	centre := random[Point256](rnd)
	crowd := []Point256{}
	for range sized(20_000) {
		p := shaken(rnd, centre, rnd.IntN(24))
		if rnd.IntN(2) == 0 {
			p = complement(p)
		}
		if _, added := x.Insert(p); added {
			crowd = append(crowd, p)
		}
	}
	look := func() {
		t.Helper()
		check(t, x)
		for i, k := range append(kernels(), kernels()...) {
			m.kernel = k
			m.always = i%2 == 0 // and otherwise give up half-way
			for _, q := range []Point256{centre, crowd[rnd.IntN(len(crowd))], random[Point256](rnd)} {
				for _, radius := range []int{0, 3, 17, 31, 40, 63} {
					likeScan(t, x, q, radius, 0)
					likeScan(t, x, q, radius, 1+rnd.IntN(100))
				}
			}
		}
	}
	used := 0
	for c := range m.ring.Load().cut.words {
		used = max(used, m.ring.Load().tables[c].Load().used)
	}
	if used < sized(100) {
		t.Errorf("%d blocks beside the buckets: no flood", used)
	}
	look()
	x.BeginBulk()
	x.EndBulk()
	look()
	for _, p := range crowd[:len(crowd)*9/10] {
		x.Remove(p)
	}
	look()
	for _, p := range crowd[:len(crowd)/2] { // into the lanes that are free again
		x.Insert(p)
	}
	look()
}

var long = flag.Duration("long", 8*time.Second, "how long TestMillions goes on")

// TestMillions: random operations at every radius while readers look on, whose
// searches must find what is there for good. "go test -race -run Millions ./bktree -long 1h".
func TestMillions(t *testing.T) {
	total := *long
	if testing.Short() {
		total = time.Second
	}
	var operations atomic.Int64
	t.Run("64", func(t *testing.T) { millions[Point64](t, time.Now().Add(total/3), 16, nil, &operations) })
	t.Run("256", func(t *testing.T) { millions[Point256](t, time.Now().Add(total/3), 63, nil, &operations) })
	t.Run("mixed", func(t *testing.T) { millions[Point256](t, time.Now().Add(total/3), 63, mixed, &operations) })
	t.Logf("%d operations", operations.Load())
}

func millions[P Point](t *testing.T, deadline time.Time, largest int, levels []level, operations *atomic.Int64) {
	const (
		fixed = 2000
		loose = 6000
	)
	rnd := newRand(t)
	points := clustered[P](rnd, fixed+loose)
	if largest > 16 {
		// Either odd ones are few, and some stay. Or they come to be too many, and are removed now and then.
		few := rnd.IntN(2) == 0
		for i, p := range points {
			if weighsOdd(p) && (few && i%50 != 0 || !few && (i < fixed || i%8 != 0)) {
				points[i] = flip(p, rnd.IntN(width[P]()))
			}
		}
	}
	points = distinct(rnd, points)
	x := shaped[P](levels)
	m := x.structure.(*multi[P])
	m.always = true
	ids := make(map[P]ID)
	for _, p := range points[:fixed] {
		ids[p], _ = x.Insert(p)
	}
	var stop atomic.Bool
	var wait sync.WaitGroup
	for reader := range 2 {
		seed := rnd.Uint64()
		wait.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(reader)))
			var dst []Neighbour
			found := make([]Both, 3)
			for ; !stop.Load(); operations.Add(1) {
				p := points[rnd.IntN(fixed)]
				radius := rnd.IntN(largest + 1)
				q := shaken(rnd, p, rnd.IntN(radius+1))
				dst, _ = x.Near(q, radius, 0, dst[:0])
				x.NearEither([]P{random[P](rnd), complement(q), q}, radius, empty(found))
				for _, got := range [][]Neighbour{dst, found[1].Opposite, found[2].Near} {
					count := 0
					for _, n := range got {
						if n.Distance > radius {
							t.Errorf("distance %d beyond %d", n.Distance, radius)
						}
						if n.ID == ids[p] && n.Distance == Distance(p, q) {
							count++
						}
					}
					if count != 1 {
						t.Errorf("a point that stays is found %d times within %d", count, radius)
						return
					}
				}
				if id, ok := x.Find(p); !ok || id != ids[p] {
					t.Errorf("Find = %d, %v, want %d", id, ok, ids[p])
				}
				if got, ok := x.Point(ids[p]); !ok || got != p {
					t.Errorf("Point = %v, %v, want %v", got, ok, p)
				}
			}
		})
	}
	in := make([]bool, loose)
	target := loose / 2
	for i := 0; i%512 != 0 || time.Now().Before(deadline) && !t.Failed(); i++ {
		if i%20_000 == 0 { // growing, shrinking, and between
			target = []int{0, loose, loose / 2, 10}[rnd.IntN(4)]
			for j, p := range points[fixed:] {
				if in[j] && weighsOdd(p) {
					in[j] = false
					x.Remove(p)
				}
			}
		}
		j := rnd.IntN(loose)
		if rnd.IntN(3) == 0 { // any
			in[j] = !in[j]
		} else {
			in[j] = j < target
		}
		p := points[fixed+j]
		_, there := x.Find(p)
		if in[j] {
			if _, added := x.Insert(p); added == there {
				t.Errorf("Insert of a point: found %v, added %v", there, added)
			}
		} else if _, removed := x.Remove(p); removed != there {
			t.Errorf("Remove of a point: found %v, removed %v", there, removed)
		}
		operations.Add(1)
		switch i % 30_000 {
		case 10_000:
			k := rnd.IntN(loose)
			x.InsertBatch(points[fixed+k:], nil)
			for ; k < loose; k++ {
				in[k] = true
			}
		case 20_000:
			x.BeginBulk()
		case 21_000:
			x.EndBulk()
		}
		if i%256 == 0 { // the readers do not write
			likeScan(t, x, shaken(rnd, p, rnd.IntN(largest+1)), rnd.IntN(largest+1), rnd.IntN(4))
		}
	}
	stop.Store(true)
	wait.Wait()
	check(t, x)
}

// TestBulk: tables built at once are like those that grew, and later inserts find their
// place in them.
func TestBulk(t *testing.T) {
	t.Run("64", func(t *testing.T) { bulk[Point64](t, 10, nil) })
	t.Run("mixed", func(t *testing.T) { bulk[Point256](t, 31, mixed) })
}

func bulk[P Point](t *testing.T, radius int, levels []level) {
	rnd := newRand(t)
	n := sized(150_000)
	points := distinct(rnd, clustered[P](rnd, n))
	x := shaped[P](levels)
	x.InsertBatch(points[:n/4], nil)
	x.BeginBulk()
	x.InsertBatch(points[n/4:n/2], nil)
	likeModel := func(p P) {
		t.Helper()
		likeScan(t, x, shaken(rnd, p, rnd.IntN(radius+1)), radius, 0)
	}
	likeModel(points[0])
	check(t, x)
	x.EndBulk()
	m := x.structure.(*multi[P])
	if want := m.levelFor(n / 2); m.level != want {
		t.Errorf("level %d, want %d", m.level, want)
	}
	check(t, x)
	x.InsertBatch(points[n/2:], nil)
	check(t, x)
	m.always = true
	for range 100 {
		likeModel(points[rnd.IntN(n)])
	}
	x.EndBulk() // changes nothing
	check(t, x)
}

// TestMovesEndInTime: before IDs outgrow the tables of the old ring, which would have all tables made anew at once.
func TestMovesEndInTime(t *testing.T) {
	moves := 0
	for i, l := range levelsFolded[:len(levelsFolded)-1] {
		to := levelsFolded[i+1]
		if l.cut == to.cut {
			continue
		}
		moves++
		m := newMulti[Point256](new(readers))
		m.levels, m.end = levelsFolded, l.fits()
		pages := 0
		for c := range to.cut.words {
			shape := to.of(c)
			pages += shape.buckets() * shape.lines * linesEach * lineWords * 8 / hugePage
		}
		// A page is had with each batch of points, the points are passed with one after the other.
		if end := m.end + pages*maxBatch; end*movePace/(movePace-1) >= 1<<m.idBitsFor(i) {
			t.Errorf("a move that begins with %d points ends with %d, and there is room for %d IDs", m.end, end*movePace/(movePace-1), 1<<m.idBitsFor(i))
		}
	}
	if moves != 1 {
		t.Errorf("%d moves", moves)
	}
}

// TestTogether: as many points as one likes are asked for together, of which some are in crowds that the search of the tables
// gives up on, and some have an odd number of ones where those are few, many, and few again.
func TestTogether(t *testing.T) {
	for name, levels := range map[string][]level{"256": nil, "folded": folded} {
		t.Run(name, func(t *testing.T) { together(t, levels) })
	}
}

func together(t *testing.T, levels []level) {
	rnd := newRand(t)
	x := shaped[Point256](levels)
	m := x.structure.(*multi[Point256])
	var asked, odd []Point256
	for _, p := range clustered[Point256](rnd, sized(8_000)) {
		if weighsOdd(p) {
			p = flip(p, rnd.IntN(256))
		}
		if x.Insert(p); rnd.IntN(100) == 0 {
			asked = append(asked, p)
		}
	}
	crowd := random[Point256](rnd)
	for range sized(4000) {
		p := shaken(rnd, crowd, rnd.IntN(12))
		if weighsOdd(p) {
			p = flip(p, rnd.IntN(256))
		}
		x.Insert(p)
	}
	gaveUp := 0
	ask := func(when string, apart bool) {
		t.Helper()
		if (m.odd.Load() != nil) != apart {
			t.Fatalf("%s: the odd ones are apart: %v", when, !apart)
		}
		for _, radius := range []int{1, 30, 31, 40} {
			for _, n := range []int{1, maxAsked + 7} {
				points := make([]Point256, n)
				for i := range points {
					switch p := asked[rnd.IntN(len(asked))]; {
					case rnd.IntN(9) == 0:
						points[i] = shaken(rnd, crowd, rnd.IntN(6))
					case len(odd) > 0 && rnd.IntN(3) == 0:
						points[i] = shaken(rnd, odd[rnd.IntN(len(odd))], rnd.IntN(radius+1))
					default:
						points[i] = shaken(rnd, p, rnd.IntN(radius+1))
					}
					if rnd.IntN(2) == 0 {
						points[i] = complement(points[i])
					}
				}
				points[n-1] = complement(shaken(rnd, crowd, rnd.IntN(6))) // in the search that the reader remembers
				found := make([]Both, n)
				x.NearEither(points, radius, found)
				for r := x.readers.head.Load(); r != nil; r = r.next {
					if r.either == nil || r.either[0][0].search == nil {
						continue
					}
					for _, a := range r.either[0][0].search.asked {
						if a.budget < 0 {
							gaveUp++
						}
					}
					spare := cap(r.nearest.spare)
					for i := range maxAsked {
						spare += cap(r.either[0][i].spare) + cap(r.either[1][i].spare)
					}
					if spare > 33_000 {
						t.Errorf("a reader keeps room for %d neighbours", spare)
					}
				}
				for i, p := range points {
					for j, p := range []Point256{p, complement(p)} {
						want := nearest{radius: radius}
						m.store.scan(permute(p), &want)
						wanted, _ := want.finish()
						got, _ := x.Near(p, radius, 0, nil)
						if either := [][]Neighbour{found[i].Near, found[i].Opposite}[j]; !slices.Equal(got, wanted) || !slices.Equal(either, wanted) {
							t.Fatalf("%s, %d points, within %d: %v, alone %v, want %v", when, n, radius, either, got, wanted)
						}
					}
				}
			}
		}
	}
	ask("no odd ones", true)
	if gaveUp == 0 {
		t.Error("no point was in a crowd")
	}
	for range maxOdd {
		p := random[Point256](rnd)
		if !weighsOdd(p) {
			p = flip(p, 7)
		}
		odd = append(odd, p)
		x.Insert(p)
	}
	ask("some odd ones", true)
	check(t, x)
	one := flip(asked[0], 100)
	x.Insert(one)
	ask("many", false)
	x.Remove(one)
	ask("still", false)
	for _, p := range odd[1:] {
		x.Remove(p)
	}
	ask("one", false)
	x.Remove(odd[0])
	ask("none again", true)
	check(t, x)
	x.Insert(odd[0])
	x.Insert(one)
	x.Remove(odd[0])
	ask("and one", true)
}

// TestHugeSpares: a large folded table has the blocks that its buckets go on in in huge pages, which are given back when no
// reader can be looking at them.
func TestHugeSpares(t *testing.T) {
	rnd := newRand(t)
	before := mappedBytes.Load()
	x := shaped[Point256]([]level{{thirteen, 13, 2}})
	m := x.structure.(*multi[Point256])
	for _, p := range clustered[Point256](rnd, 3000) {
		x.Insert(p)
	}
	centre := random[Point256](rnd)
	for range 8000 {
		x.Insert(shaken(rnd, centre, rnd.IntN(20)))
	}
	check(t, x)
	m.always = true
	for _, k := range kernels() {
		m.kernel = k
		for range 20 {
			likeScan(t, x, shaken(rnd, centre, rnd.IntN(40)), 31, 0)
		}
	}
	huge := 0
	tables := m.ring.Load()
	for c := range tables.cut.words {
		for _, s := range *tables.tables[c].Load().spares.Load() {
			if s.mem.mapped != nil {
				huge++
			}
		}
	}
	if raceBuild || runtime.GOOS != "linux" {
		return // maps nothing
	}
	if huge < tables.cut.words {
		t.Errorf("%d huge pages of spares for %d tables", huge, tables.cut.words)
	}
	held := x.begin()
	x.BeginBulk()
	x.Insert(random[Point256](rnd))
	check(t, x)
	waiting := mappedBytes.Load()
	x.end(held)
	x.Insert(random[Point256](rnd))
	for range 3 { // not all at once
		x.Insert(random[Point256](rnd))
	}
	if left := mappedBytes.Load() - before; left >= int64(huge*hugePage) || waiting-before < int64(huge*hugePage) {
		t.Errorf("%d bytes mapped, %d when a reader might still look at them", left, waiting-before)
	}
}

// TestNarrowWords: in words too narrow for as many buckets as the others have, tables have fewer and longer ones.
func TestNarrowWords(t *testing.T) {
	rnd := newRand(t)
	k := newCutting([]int{14, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}, 17, 17, 17, 17, 17, 17, 17, 17, 17, 17, 17, 17, 17, 17, 18)
	x := shaped[Point256]([]level{{k, 17, 1}})
	x.structure.(*multi[Point256]).always = true
	if balls[15] == nil { // of no level that an Index has
		balls[15] = newBall(15)
	}
	points := distinct(rnd, clustered[Point256](rnd, tablesFrom))
	for _, p := range points {
		x.Insert(p)
	}
	check(t, x)
	r := x.structure.(*multi[Point256]).ring.Load()
	if narrow, wide := r.tables[0].Load().level, r.tables[14].Load().level; narrow != (level{k, 15, 3}) || wide != (level{k, 17, 1}) {
		t.Errorf("tables of %v and %v", narrow, wide)
	}
	for radius := range 64 {
		likeScan(t, x, shaken(rnd, points[rnd.IntN(len(points))], rnd.IntN(radius+1)), radius, 0)
	}
}

// TestIDsWait: an ID that a reader may have in hand is not given to another point.
func TestIDsWait(t *testing.T) {
	x := New[Point256]()
	a, b, c := Point256{1}, Point256{2}, Point256{3}
	x.Insert(a)
	r := x.begin()
	x.Remove(a)
	if id, _ := x.Insert(b); id != 1 {
		t.Errorf("while a reader runs the ID is %d, want 1", id)
	}
	x.end(r)
	if id, _ := x.Insert(c); id != 0 {
		t.Errorf("after the reader the ID is %d, want 0", id)
	}
	check(t, x)
}

// TestReaders: as many announcements as there are readers at a time, used again.
func TestReaders(t *testing.T) {
	var rs readers
	before := rs.retire()
	a := rs.enter(nil)
	after := rs.retire()
	b := rs.enter(a) // the hint is taken
	if a == b || rs.oldest() <= before || rs.oldest() > after {
		t.Fatalf("oldest is %d, want in (%d, %d]", rs.oldest(), before, after)
	}
	a.exit()
	if rs.oldest() <= after {
		t.Errorf("oldest is %d, want above %d", rs.oldest(), after)
	}
	if c := rs.enter(nil); c != a {
		t.Error("an idle announcement is not used again")
	}
}

// TestMappedMemoryGoesWithTheIndex: an Index has no Close.
func TestMappedMemoryGoesWithTheIndex(t *testing.T) {
	rnd := newRand(t)
	before := mappedBytes.Load()
	x := New[Point256]()
	for _, p := range clustered[Point256](rnd, sized(80_000)) {
		x.Insert(p)
	}
	held := mappedBytes.Load() - before
	t.Logf("%d bytes mapped", held)
	runtime.KeepAlive(x)
	x = nil
	for start := time.Now(); mappedBytes.Load() > before && time.Since(start) < 10*time.Second; {
		runtime.GC()
		runtime.Gosched()
	}
	if left := mappedBytes.Load() - before; left > 0 {
		t.Errorf("%d of %d bytes are still mapped", left, held)
	}
}

// TestIDsOutgrowTheTables: readers that for long keep IDs from being given again make them
// larger than any table expects.
func TestIDsOutgrowTheTables(t *testing.T) {
	rnd := newRand(t)
	x := New[Point256]()
	m := x.structure.(*multi[Point256])
	m.always = true
	stay := distinct(rnd, clustered[Point256](rnd, 3000))
	x.InsertBatch(stay, nil)
	before := m.idBits
	r := x.begin()
	for m.end < 1<<before+100 {
		p := random[Point256](rnd)
		if x.Insert(p); m.end%1000 != 0 {
			x.Remove(p)
		}
	}
	x.end(r)
	if m.idBits <= before {
		t.Errorf("%d IDs, and tables for %d", m.end, 1<<m.idBits)
	}
	check(t, x)
	for _, p := range stay[:100] {
		likeScan(t, x, shaken(rnd, p, rnd.IntN(32)), 31, 0)
	}
}

// TestIdleReaders: what a reader keeps for its next search does not keep the memory of tables that are gone.
func TestIdleReaders(t *testing.T) {
	rnd := newRand(t)
	for _, radius := range []int{31, 63} { // by the tables, and by the scan
		x := New[Point256]()
		x.InsertBatch(clustered[Point256](rnd, 2000), nil)
		m := x.structure.(*multi[Point256])
		m.always = radius == 31
		r := x.begin() // the reader of the search
		x.end(r)
		x.Near(random[Point256](rnd), radius, 0, nil)
		old := m.ring.Load().tables[0].Load()
		tableOf, memoryOf := weak.Make(old), weak.Make(&old.fps[0])
		old = nil
		x.BeginBulk()
		x.Insert(random[Point256](rnd)) // frees what nobody reads
		for range 3 {
			runtime.GC()
		}
		if tableOf.Value() != nil || memoryOf.Value() != nil {
			t.Errorf("radius %d: an idle reader keeps the table: %v, its memory: %v", radius, tableOf.Value() != nil, memoryOf.Value() != nil)
		}
		runtime.KeepAlive(x)
	}
}
