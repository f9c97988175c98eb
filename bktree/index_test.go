package bktree

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// race holds those that must agree: the structures behind an Index, the index
// with every kernel of this processor, and the model.
type race[P Point] struct {
	model   model[P]
	indexes map[string]*Index[P]
}

func newRace[P Point]() *race[P] {
	r := &race[P]{
		model: model[P]{ids: make(map[P]ID)},
		indexes: map[string]*Index[P]{
			"scan":  newIndex[P](newScan[P]()),
			"tree":  newIndex[P](newTree[P]()),
			"exact": NewExact[P](),
		},
	}
	r.indexes["index"] = New[P]()
	for _, k := range kernels() {
		r.indexes[k.name] = newEager[P](k, nil)
		if width[P]() == 256 {
			r.indexes[k.name+", folded"] = newEager[P](k, folded)
		}
	}
	if width[P]() == 256 {
		r.indexes["mixed"] = newEager[P](best, mixed)
	}
	return r
}

// What a folded index has from seven million points on, with few: folded tables of several shapes, and moves from one ring
// to another.
var (
	folded = []level{{thirteen, 7, 1}, {thirteen, 7, 2}, {thirteen, 7, 3}, {thirteen, 10, 1}, {thirteen, 10, 2}, {thirteen, 13, 1}, {thirteen, 13, 2}}
	mixed  = []level{{sixteen, 7, 1}, {thirteen, 7, 2}, {sixteen, 7, 3}, {thirteen, 10, 1}, {thirteen, 10, 2}, {sixteen, 13, 1}, {thirteen, 13, 2}}
)

// newEager is New with a kernel of one's choice, and with tables from eight points
// on that are searched always.
func newEager[P Point](k kernel, levels []level) *Index[P] {
	x := shaped[P](levels)
	m := x.structure.(*multi[P])
	m.kernel, m.from, m.until, m.always = k, 8, 4, true
	return x
}

// shaped is New with tables of one's choice; nil for those that an Index has.
func shaped[P Point](levels []level) *Index[P] {
	x := New[P]()
	if levels != nil {
		x.structure.(*multi[P]).levels = levels
	}
	return x
}

type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

func (r *race[P]) insert(t fataler, p P) {
	t.Helper()
	id, added := r.model.insert(p)
	for name, x := range r.indexes {
		if gotID, got := x.Insert(p); gotID != id || got != added {
			t.Fatalf("%s: Insert = %d, %v, want %d, %v", name, gotID, got, id, added)
		}
	}
}

func (r *race[P]) insertBatch(t fataler, points []P) {
	t.Helper()
	want := []ID{12345} // what is in ids already must stay
	for _, p := range points {
		id, _ := r.model.insert(p)
		want = append(want, id)
	}
	for name, x := range r.indexes {
		if got := x.InsertBatch(points, []ID{12345}); !slices.Equal(got, want) {
			t.Fatalf("%s: InsertBatch = %d, want %d", name, got, want)
		}
	}
}

// bulk begins or ends it. Neither changes what the indexes hold.
func (r *race[P]) bulk(begin bool) {
	for _, x := range r.indexes {
		if begin {
			x.BeginBulk()
		} else {
			x.EndBulk()
		}
	}
}

func (r *race[P]) remove(t fataler, p P) {
	t.Helper()
	id, removed := r.model.remove(p)
	for name, x := range r.indexes {
		if gotID, got := x.Remove(p); gotID != id || got != removed {
			t.Fatalf("%s: Remove = %d, %v, want %d, %v", name, gotID, got, id, removed)
		}
	}
}

func (r *race[P]) near(t fataler, p P, radius, limit int) {
	t.Helper()
	want, wantCut := r.model.near(p, radius, limit)
	wantID, wantFound := r.model.ids[p]
	for name, x := range r.indexes {
		if id, ok := x.Find(p); id != wantID || ok != wantFound {
			t.Fatalf("%s: Find = %d, %v, want %d, %v", name, id, ok, wantID, wantFound)
		}
		// What is in dst already must stay.
		mark := Neighbour{ID: 7, Distance: -7}
		got, cut := x.Near(p, radius, limit, []Neighbour{mark})
		if got[0] != mark || !slices.Equal(got[1:], want) || cut != wantCut {
			t.Fatalf("%s: Near within %d, limit %d = %v, %v\nwant %v, %v", name, radius, limit, got, cut, want, wantCut)
		}
		// Index answers radius 0 from its table; the structures must too.
		into := nearest{radius: radius, limit: limit}
		x.structure.near(permute(p), &into)
		if got, cut := into.finish(); !slices.Equal(got, want) || cut != wantCut {
			t.Fatalf("%s: structure.near within %d, limit %d = %v, %v\nwant %v, %v", name, radius, limit, got, cut, want, wantCut)
		}
		if limit <= 0 {
			wantOpposite, _ := r.model.near(complement(p), radius, 0)
			found := []Both{{[]Neighbour{mark}, []Neighbour{mark}}, {}, {nil, []Neighbour{mark}}}
			x.NearEither([]P{p, complement(p), p}, radius, found)
			if found[0].Near[0] != mark || found[0].Opposite[0] != mark || found[2].Opposite[0] != mark {
				t.Fatalf("%s: NearEither overwrote what was there", name)
			}
			for i, got := range []Both{
				{found[0].Near[1:], found[0].Opposite[1:]}, {found[1].Opposite, found[1].Near}, {found[2].Near, found[2].Opposite[1:]},
			} {
				if !slices.Equal(got.Near, want) || !slices.Equal(got.Opposite, wantOpposite) {
					t.Fatalf("%s: NearEither within %d, point %d: %v\nwant %v, %v", name, radius, i, got, want, wantOpposite)
				}
			}
		}
		if n := x.Stats().Points; n != len(r.model.ids) {
			t.Fatalf("%s: %d points, want %d", name, n, len(r.model.ids))
		}
	}
}

func (r *race[P]) check(t testing.TB) {
	t.Helper()
	for _, x := range r.indexes {
		check(t, x)
	}
}

// TestDistance counts bit by bit: the model trusts Distance.
func TestDistance(t *testing.T) {
	t.Run("64", distance[Point64])
	t.Run("256", distance[Point256])
}

func distance[P Point](t *testing.T) {
	rnd := newRand(t)
	for range 100 {
		a := random[P](rnd)
		b := a
		for n, i := range rnd.Perm(width[P]()) {
			if d := Distance(a, b); d != n || Distance(b, a) != n {
				t.Fatalf("Distance = %d and %d, want %d", d, Distance(b, a), n)
			}
			b = flip(b, i)
		}
	}
	if a, b := (Point256{1}), (Point256{0, 0, 0, 1}); Distance(a, b) != 2 {
		t.Error("words are mixed up")
	}
}

func TestRandomOperations(t *testing.T) {
	t.Run("64", randomOperations[Point64])
	t.Run("256", randomOperations[Point256])
}

func randomOperations[P Point](t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newRace[P]()
		defer r.check(t)
		word := rapid.Uint64()
		point := rapid.Custom(func(t *rapid.T) P {
			var p P
			switch p := any(&p).(type) {
			case *Point64:
				*p = Point64(word.Draw(t, "word"))
			case *Point256:
				for i := range p {
					p[i] = word.Draw(t, "word")
				}
			}
			return p
		})
		bases := rapid.SliceOfN(point, 1, 6).Draw(rt, "bases")
		// Near one of a few bases, where collisions and full buckets are.
		nearby := rapid.Custom(func(t *rapid.T) P {
			p := rapid.SampledFrom(bases).Draw(t, "base")
			for _, i := range rapid.SliceOfN(rapid.IntRange(0, width[P]()-1), 0, 12).Draw(t, "flips") {
				p = flip(p, i)
			}
			if rapid.IntRange(0, 3).Draw(t, "turned") == 0 {
				p = complement(p)
			}
			return p
		})
		present := func(t *rapid.T) P {
			// Maps have no order; rapid needs one to shrink.
			points := make([]P, 0, len(r.model.ids))
			for p := range r.model.ids {
				points = append(points, p)
			}
			slices.SortFunc(points, func(a, b P) int { return int(r.model.ids[a]) - int(r.model.ids[b]) })
			if len(points) == 0 {
				return nearby.Draw(t, "point")
			}
			return rapid.SampledFrom(points).Draw(t, "present")
		}
		insert := func(t *rapid.T) { r.insert(t, nearby.Draw(t, "point")) }
		rt.Repeat(map[string]func(*rapid.T){
			"insert": insert, "insert more": insert, "insert yet more": insert,
			"insert batch": func(t *rapid.T) {
				r.insertBatch(t, rapid.SliceOfN(nearby, 0, 2*maxBatch+1).Draw(t, "points"))
			},
			"begin bulk":     func(*rapid.T) { r.bulk(true) },
			"end bulk":       func(*rapid.T) { r.bulk(false) },
			"remove any":     func(t *rapid.T) { r.remove(t, nearby.Draw(t, "point")) },
			"remove present": func(t *rapid.T) { r.remove(t, present(t)) },
			"near": func(t *rapid.T) {
				limit := rapid.SampledFrom([]int{0, -1, 1, 2, 5, 100, math.MaxInt}).Draw(t, "limit")
				r.near(t, nearby.Draw(t, "point"), rapid.IntRange(-1, 64).Draw(t, "radius"), limit)
			},
			"near present": func(t *rapid.T) {
				r.near(t, present(t), rapid.IntRange(0, width[P]()+1).Draw(t, "radius"), 0)
			},
		})
	})
}

// TestEveryRadius is larger: chunks fill, empty and fill again, the tree is
// planted anew, and every radius is asked for at each stage.
func TestEveryRadius(t *testing.T) {
	t.Run("64", func(t *testing.T) { everyRadius[Point64](t, 16) })
	t.Run("256", func(t *testing.T) { everyRadius[Point256](t, 63) })
}

func everyRadius[P Point](t *testing.T, largest int) {
	rnd := newRand(t)
	r := newRace[P]()
	points := distinct(rnd, clustered[P](rnd, chunkSlots+1000))
	step := 5 / sized(5) // 1, or 5 in a race build
	query := func() {
		t.Helper()
		r.check(t)
		for radius := rnd.IntN(step); radius <= largest; radius += step {
			p := points[rnd.IntN(len(points))]
			r.near(t, shaken(rnd, p, rnd.IntN(largest+1)), radius, rnd.IntN(4))
		}
	}
	insert := func(points []P) {
		for _, p := range points {
			r.insert(t, p)
		}
	}
	insert(points)
	query()
	for round := range 4 {
		rnd.Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
		keep := []int{chunkSlots + 10, 2000, 300, 0}[round]
		for i, p := range points[keep:] {
			r.remove(t, p)
			if i%(1000*step) == 0 { // in the middle of the move to a new tree, too
				query()
			}
		}
		query()
		switch round {
		case 0:
			insert(points[keep:])
		case 1:
			r.insertBatch(t, points) // most are there
		default:
			r.bulk(true)
			r.insertBatch(t, points[keep:])
			r.near(t, points[0], 31, 0)
			for _, p := range points[keep : keep+100] {
				r.remove(t, p)
			}
			r.bulk(false)
			r.insertBatch(t, points[keep:keep+100])
		}
		query()
	}
}

func TestMemoryComesBack(t *testing.T) {
	t.Run("scan", func(t *testing.T) { memoryComesBack(t, newIndex[Point256](newScan[Point256]())) })
	t.Run("tree", func(t *testing.T) { memoryComesBack(t, newIndex[Point256](newTree[Point256]())) })
	t.Run("index", func(t *testing.T) { memoryComesBack(t, New[Point256]()) })
}

func memoryComesBack(t *testing.T, x *Index[Point256]) {
	n := sized(60_000)
	r := newRand(t)
	points := distinct(r, clustered[Point256](r, n))
	for _, p := range points {
		x.Insert(p)
	}
	full := x.Stats()
	if per := full.Bytes / int64(n); per < 32 || per > 400 {
		t.Errorf("%d bytes a point", per)
	}
	for _, p := range points[100:] {
		x.Remove(p)
	}
	check(t, x)
	left := x.Stats()
	if left.Bytes > full.Bytes/10+chunkSlots*32 { // the scan keeps a chunk
		t.Errorf("%d bytes for %d points after %d bytes for %d", left.Bytes, left.Points, full.Bytes, full.Points)
	}
	for _, p := range points[:100] {
		if found, _ := x.Near(p, 5, 0, nil); len(found) == 0 || found[0].Distance != 0 {
			t.Fatal("a point that stayed is not found")
		}
	}
	for _, p := range points {
		x.Insert(p)
	}
	check(t, x)
	if again := x.Stats(); again.IDs != full.IDs {
		t.Errorf("IDs up to %d after %d: the free ones were not used again", again.IDs, full.IDs)
	}
}

// TestChain: one-bit points are all two bits apart, which makes the tree a
// chain, and all within a small radius, which floods a limited search.
func TestChain(t *testing.T) {
	for name, x := range newRace[Point256]().indexes {
		var zero Point256
		for i := range 256 {
			x.Insert(flip(zero, i))
		}
		x.Insert(zero)
		for _, limit := range []int{1, 3, 64, 65, 256} {
			found, truncated := x.Near(zero, 1, limit, nil)
			if len(found) != limit || !truncated || found[0] != (Neighbour{ID: 256}) {
				t.Errorf("%s: limit %d: %d found, truncated %v, first %v", name, limit, len(found), truncated, found[0])
			}
			for i, n := range found[1:] {
				if n != (Neighbour{ID: ID(i), Distance: 1}) {
					t.Fatalf("%s: limit %d: neighbour %d is %v", name, limit, i, n)
				}
			}
		}
		if found, truncated := x.Near(zero, 1, 257, nil); len(found) != 257 || truncated {
			t.Errorf("%s: %d found, truncated %v", name, len(found), truncated)
		}
		check(t, x)
	}
}

// TestNearestInAnyOrder: the tree does not come across points in the order of
// their IDs, and of those equally far the lowest must stay.
func TestNearestInAnyOrder(t *testing.T) {
	rnd := newRand(t)
	for _, limit := range []int{1, 3, slack, slack + 1} {
		into := nearest{radius: 9, limit: limit}
		for _, i := range rnd.Perm(2000) {
			if d := 5 + i/1000; d <= into.radius {
				into.add(ID(i), d)
			}
		}
		found, truncated := into.finish()
		if len(found) != limit || !truncated {
			t.Fatalf("limit %d: %d found, truncated %v", limit, len(found), truncated)
		}
		for i, n := range found {
			if n != (Neighbour{ID: ID(i), Distance: 5}) {
				t.Fatalf("limit %d: neighbour %d is %v", limit, i, n)
			}
		}
	}
}

// TestCrowd: many results are sorted in another way than few.
func TestCrowd(t *testing.T) {
	rnd := newRand(t)
	for _, n := range []int{crowd - 1, crowd, crowd + 1, 100 * crowd} {
		for _, limit := range []int{0, n / 2, n + 1} {
			mark := Neighbour{7, -7}
			var into nearest
			into.begin(256, limit, []Neighbour{mark})
			want := make([]Neighbour, n)
			for i := range want {
				want[i] = Neighbour{ID(i), rnd.IntN(4) * rnd.IntN(65)}
				if want[i].Distance == 192 {
					want[i].Distance = 256
				}
			}
			if limit == 0 { // otherwise in order, as from the scan
				rnd.Shuffle(n, func(i, j int) { want[i], want[j] = want[j], want[i] })
			}
			for _, w := range want {
				if w.Distance <= into.radius {
					into.add(w.ID, w.Distance)
				}
			}
			slices.SortFunc(want, nearer)
			if limit > 0 && limit < n {
				want = want[:limit]
			}
			got, truncated := into.finish()
			if got[0] != mark || !slices.Equal(got[1:], want) || truncated != (limit > 0 && limit < n) {
				t.Fatalf("%d results, limit %d: not sorted, or truncated wrongly (%v)", n, limit, truncated)
			}
		}
	}
}

func TestNearDoesNotAllocate(t *testing.T) {
	rnd := newRand(t)
	x := New[Point256]()
	points := clustered[Point256](rnd, 5000)
	for _, p := range points {
		x.Insert(p)
	}
	dst := make([]Neighbour, 0, 100)
	if n := testing.AllocsPerRun(20, func() { dst, _ = x.Near(points[rnd.IntN(5000)], 31, 0, dst[:0]) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzOperations(f *testing.F) {
	f.Add([]byte("\x00\x01\x02\x03\x40\x41\x42\x80\x81\xc1\xc2\x05"))
	f.Add([]byte{0, 10, 0, 11, 0, 12, 1, 11, 2, 3, 3, 40, 0, 11, 2, 0})
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) > 512 {
			return
		}
		runProgram[Point64](t, program)
		runProgram[Point256](t, program)
	})
}

// runProgram reads two bytes an operation. The points are walks from a few
// bases, one bit a step, so that bytes the fuzzer repeats meet again.
func runProgram[P Point](t *testing.T, program []byte) {
	r := newRace[P]()
	defer r.check(t)
	var at P
	for len(program) >= 2 {
		op, arg := program[0], program[1]
		program = program[2:]
		at = flip(at, int(arg)%width[P]())
		switch op % 4 {
		case 0:
			r.insert(t, at)
		case 1:
			r.remove(t, at)
		case 2:
			r.near(t, at, int(op>>2), int(arg)%3)
		case 3:
			for i := range int(op >> 2) { // many points, and perhaps many removals
				p := flip(flip(at, i), int(arg))
				if arg%2 == 0 {
					r.insert(t, p)
				} else {
					r.remove(t, p)
				}
			}
		}
	}
	r.near(t, at, 64, 0)
}

func ExampleIndex() {
	x := New[Point64]()
	x.Insert(0xf8f8f0ce5c5c1e00)
	x.Insert(0xf8f8f0ce5c5c1e03)
	x.Insert(0x0123456789abcdef)
	near, _ := x.Near(0xf8f8f0ce5c5c1e01, 8, 0, nil)
	fmt.Println(near)
	// Output: [{0 1} {1 1}]
}
