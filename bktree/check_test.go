package bktree

import (
	"cmp"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"
)

// check fails the test unless everything inside x agrees with everything else.
// Nothing may be using x.
func check[P Point](t testing.TB, x *Index[P]) {
	t.Helper()
	owner := make(map[ID]P) // permuted, as everything inside
	for i := range x.exact.shard {
		sh := &x.exact.shard[i]
		s := sh.slots.Load()
		if s == nil {
			if sh.live != 0 || sh.used != 0 {
				t.Fatalf("shard %d has no slots and counts %d points, %d slots in use", i, sh.live, sh.used)
			}
			continue
		}
		live, used := 0, 0
		for j := range s.slot {
			v := s.slot[j]
			if v == emptySlot {
				continue
			}
			if used++; v == vacatedSlot {
				continue
			}
			live++
			id := ID(v&(1<<s.idBits-1)) - firstID
			p, ok := x.structure.at(id)
			if !ok {
				t.Fatalf("shard %d has ID %d, which is no point", i, id)
			}
			if found, ok := x.exact.find(p, x.structure); !ok || found != id || x.exact.hash(p)%shards != uint64(i) {
				t.Fatalf("the point of ID %d is in shard %d and found as %d, %v", id, i, found, ok)
			}
			if _, twice := owner[id]; twice {
				t.Fatalf("ID %d is given to two points", id)
			}
			owner[id] = p
		}
		if live != sh.live || used != sh.used || used == len(s.slot) {
			t.Fatalf("shard %d counts %d points, %d slots in use; has %d, %d of %d", i, sh.live, sh.used, live, used, len(s.slot))
		}
		if len(s.slot) > minSlots && live < len(s.slot)/4 {
			t.Fatalf("shard %d holds memory for %d points and has %d", i, len(s.slot), live)
		}
	}
	if len(owner) != x.exact.n {
		t.Fatalf("table counts %d points, has %d", x.exact.n, len(owner))
	}
	free := 0
	for w, word := range x.alloc.free {
		free += bits.OnesCount64(word)
		if x.alloc.words[w>>6]>>(w&63)&1 != 0 != (word != 0) {
			t.Fatalf("allocator: word %d is %#x, and its summary bit says otherwise", w, word)
		}
	}
	free += len(x.removed)
	if free+len(owner) != x.alloc.end {
		t.Fatalf("%d IDs free, %d used, %d ever given", free, len(owner), x.alloc.end)
	}
	for id := range owner {
		if int(id) >= x.alloc.end || x.alloc.free[id>>6]>>(id&63)&1 != 0 {
			t.Fatalf("ID %d is used and free", id)
		}
	}
	for _, w := range x.alloc.words[:min(x.alloc.first, len(x.alloc.words))] {
		if w != 0 {
			t.Fatal("allocator skips free IDs")
		}
	}
	for id := range ID(x.alloc.end) + 1 {
		want, used := owner[id]
		want = restore(want)
		if p, ok := x.Point(id); ok != used || p != want {
			t.Fatalf("ID %d: Point says %v, %v, want %v, %v", id, p, ok, want, used)
		}
	}
	switch s := x.structure.(type) {
	case *scan[P]:
		checkScan(t, s, owner)
	case *tree[P]:
		checkTree(t, s, owner)
	case *multi[P]:
		checkMulti(t, s, owner)
	}
}

func checkScan[P Point](t testing.TB, s *scan[P], owner map[ID]P) {
	t.Helper()
	total := 0
	for i, c := range *s.chunks.Load() {
		n := 0
		for slot := range chunkSlots {
			if c.live[slot>>6]>>(slot&63)&1 == 0 {
				continue
			}
			n++
			id := ID(i<<chunkBits + slot)
			if p, ok := owner[id]; !ok || c.points[slot] != p {
				t.Fatalf("slot %d of chunk %d is live and not the point of ID %d", slot, i, id)
			}
		}
		if n != c.n {
			t.Fatalf("chunk %d counts %d points, has %d", i, c.n, n)
		}
		if n == 0 && c.points != nil || cap(c.points) > chunkSlots {
			t.Fatalf("chunk %d has %d points and memory for %d", i, n, cap(c.points))
		}
		total += n
	}
	if total != len(owner) {
		t.Fatalf("scan has %d points, table %d", total, len(owner))
	}
}

func checkMulti[P Point](t testing.TB, m *multi[P], owner map[ID]P) {
	t.Helper()
	if n := m.n.Load(); n != int64(len(owner)) {
		t.Fatalf("multi counts %d points, table %d", n, len(owner))
	}
	live := 0
	held := int64(0)
	for at, seg := range *m.store.segments.Load() {
		if seg == nil {
			continue
		}
		held += seg.bytes()
		n := 0
		for slot := range seg.points {
			id := ID(at<<segmentBits[P]() + slot)
			p, used := owner[id]
			if is := seg.live[slot>>6]>>(slot&63)&1 != 0; is != used || used && seg.points[slot] != p {
				t.Fatalf("slot of ID %d is wrong", id)
			} else if is {
				n++
			}
		}
		if n != seg.n || n == 0 {
			t.Fatalf("segment %d counts %d points, has %d", at, seg.n, n)
		}
		live += n
	}
	if live != len(owner) || held != m.store.held {
		t.Fatalf("store has %d points, table %d; holds %d bytes, counts %d", live, len(owner), held, m.store.held)
	}
	waiting := int64(0)
	for _, r := range m.limbo.waiting {
		waiting += r.mem.bytes()
	}
	if waiting != m.limbo.bytes {
		t.Fatalf("%d bytes wait to be freed, %d counted", waiting, m.limbo.bytes)
	}
	// By ID, and quicker than the map, with two lookups for each entry of each table.
	points := make([]*P, 0, len(owner))
	for id, p := range owner {
		for int(id) >= len(points) {
			points = append(points, nil)
		}
		points[id] = &p
	}
	odds, apart := 0, m.odd.Load()
	for id, p := range points {
		if p == nil || !weighsOdd(*p) {
			continue
		}
		odds++
		if apart != nil {
			if at := slices.Index(apart.ids, ID(id)); at < 0 || apart.points[at] != *p {
				t.Fatalf("ID %d has an odd number of ones, and is not with the others", id)
			}
		}
	}
	if odds != m.odds || apart == nil && odds == 0 || apart != nil && (len(apart.ids) != odds || odds > maxOdd) {
		t.Fatalf("%d points with an odd number of ones, %d counted, apart %v", odds, m.odds, apart)
	}
	r := m.ring.Load()
	if (r == nil) != (m.level < 0) {
		t.Fatalf("level %d, and the ring is %v", m.level, r)
	}
	if r != nil {
		checkRing(t, r, points)
		for c := range r.cut.words {
			if tb := r.tables[c].Load(); tb.idBits < m.idBits {
				t.Fatalf("table %d has %d bits for an ID, of which there should be %d", c, tb.idBits, m.idBits)
			}
		}
	}
	if b := m.build; b != nil {
		if b.from != r.tables[b.word].Load() || b.next >= b.from.buckets() {
			t.Fatalf("a build is stuck at %d", b.next)
		}
		checkTable(t, b.to, b.word, b.next, points)
	}
	if mv := m.move; mv != nil {
		if mv.next >= m.end || mv.to.cut == r.cut || m.build != nil {
			t.Fatalf("a move is stuck at %d of %d", mv.next, m.end)
		}
		checkRing(t, mv.to, points[:min(mv.next, len(points))])
	}
}

func checkRing[P Point](t testing.TB, r *ring, points []*P) {
	t.Helper()
	for c := range maxWords {
		tb := r.tables[c].Load()
		if (tb != nil) != (c < r.cut.words) {
			t.Fatalf("table %d of %d is %v", c, r.cut.words, tb)
		}
		if tb != nil {
			checkTable(t, tb, c, tb.buckets(), points)
		}
	}
}

// checkTable looks at the table of word c, whose buckets below upto must have
// all the points that belong there, and the others none.
func checkTable[P Point](t testing.TB, tb *table, c, upto int, points []*P) {
	t.Helper()
	if tb.idBits < minIDBits || tb.idBits > 32 || len(points) > 1<<tb.idBits-1 {
		t.Fatalf("%d IDs in a table with %d bits for them", len(points), tb.idBits)
	}
	live, dead := 0, 0
	seen := make([]bool, len(points))
	blocks := make(map[int]bool)
	for bucket := range tb.buckets() {
		for i, first := bucket, true; ; first = false {
			fps, ids := tb.block(i)
			head := fingerprint(fps, 0)
			count, holes := int(head&^vacated), 0
			if count > tb.capacity() || ids[0] != 0 && first && count < tb.capacity() {
				t.Fatalf("block %d has %d entries of %d and goes on at %d", i, count, tb.capacity(), ids[0])
			}
			for lane := 1; lane <= count; lane++ {
				if ids[lane] == noPoint {
					holes++
					continue
				}
				id := tb.id(ids[lane])
				if int(id) >= len(points) || points[id] == nil {
					t.Fatalf("word %d, bucket %d: ID %d is no point", c, bucket, id)
				}
				at, fp, following := filing(tb, c, points[id])
				tag, kept := tb.spareTag(fps, lane)
				kept = kept && tb.folded
				if seen[id] || at != bucket || fingerprint(fps, lane) != fp || ids[lane] != tb.entry(id, following) ||
					kept && int(tag) != int(following>>12)&^(0xf>>min(tb.tagBits(), 4)) || !kept && tb.cut.folded && count < tb.lines*lanes*3/4-2 {
					t.Fatalf("word %d, bucket %d: ID %d is there wrongly (seen: %v)", c, bucket, id, seen[id])
				}
				seen[id] = true
				live++
			}
			if holes > 0 != (head&vacated != 0) {
				t.Fatalf("word %d, block %d: %d vacated lanes, flag %v", c, i, holes, head&vacated != 0)
			}
			dead += holes
			if i = int(ids[0]); i == 0 {
				break
			}
			if blocks[i] || i < tb.buckets() || i >= tb.buckets()+tb.used {
				t.Fatalf("word %d, bucket %d goes on at block %d", c, bucket, i)
			}
			blocks[i] = true
		}
	}
	if live != tb.live || dead != tb.dead || len(blocks) != tb.used {
		t.Fatalf("word %d: counts %d points, %d vacated lanes, %d blocks; has %d, %d, %d", c, tb.live, tb.dead, tb.used, live, dead, len(blocks))
	}
	for id, p := range points {
		below := p != nil
		if below {
			bucket, _, _ := filing(tb, c, p)
			below = bucket < upto
		}
		if seen[id] != below {
			t.Fatalf("word %d: ID %d is there: %v, should be: %v", c, id, seen[id], below)
		}
	}
}

// filing says where a table of word c has a point, and as what, bit by bit.
func filing[P Point](tb *table, c int, p *P) (bucket int, fp, following uint16) {
	k := tb.cut
	bit := func(c, i int) int { // the ith, from the first, of a word
		at := k.offset[c%k.words] + k.width[c%k.words] - 1 - i
		return int(words(p)[at>>6] >> (at & 63) & 1)
	}
	first, skip := 0, 0
	if k.folded {
		first, skip = bit(c, 0), 1
	}
	for i := range tb.bits {
		bucket = bucket<<1 | bit(c, skip+i) ^ first
	}
	for i := range fingerprintBits {
		fp = fp<<1 | uint16(bit(c+1, i)^first)
		if i < k.rest[c] {
			following = following<<1 | uint16(bit(c+1, fingerprintBits+i)^first)
		} else {
			following = following<<1 | uint16(bit(c+2, i-k.rest[c])^first)
		}
	}
	return bucket, fp, following
}

func checkTree[P Point](t testing.TB, tr *tree[P], owner map[ID]P) {
	t.Helper()
	live := 0
	for name, a := range map[string]*arena[P]{"growing": &tr.grow, "old": &tr.old} {
		dead, seen := 0, make([]bool, len(a.nodes))
		if len(a.nodes) > 0 {
			seen[0] = true
		}
		for i := range a.nodes {
			n := &a.nodes[i]
			if n.id == noID {
				dead++
			} else if p, ok := owner[n.id]; !ok || p != n.point {
				t.Fatalf("%s tree: node %d is not the point of ID %d", name, i, n.id)
			}
			last := 0
			for at := n.child; at != 0; at = a.nodes[at].sibling {
				c := &a.nodes[at]
				if seen[at] || int(c.distance) <= last {
					t.Fatalf("%s tree: children of node %d are not in order", name, i)
				}
				seen[at], last = true, int(c.distance)
				// Everything below c is at c's distance from n.
				for below := []uint32{at}; len(below) > 0; {
					b := &a.nodes[below[len(below)-1]]
					below = below[:len(below)-1]
					if d := Distance(b.point, n.point); d != last {
						t.Fatalf("%s tree: a node filed at distance %d is at %d", name, last, d)
					}
					for g := b.child; g != 0; g = a.nodes[g].sibling {
						below = append(below, g)
					}
				}
			}
		}
		if i := slices.Index(seen, false); i >= 0 {
			t.Fatalf("%s tree: node %d cannot be reached", name, i)
		}
		if dead != a.dead {
			t.Fatalf("%s tree: counts %d dead nodes, has %d", name, a.dead, dead)
		}
		live += len(a.nodes) - dead
	}
	if live != len(owner) {
		t.Fatalf("tree has %d points, table %d", live, len(owner))
	}
	if n := len(tr.grow.nodes); len(tr.old.nodes) == 0 && tr.grow.dead > n/2+1 && tr.grow.dead > minDead {
		t.Fatalf("%d of %d nodes are dead", tr.grow.dead, n)
	}
}

// model is the index as one would write it down: the contract.
type model[P Point] struct {
	ids  map[P]ID
	used []bool // by ID
}

func (m *model[P]) insert(p P) (ID, bool) {
	if id, ok := m.ids[p]; ok {
		return id, false
	}
	id := slices.Index(m.used, false)
	if id < 0 {
		id = len(m.used)
		m.used = append(m.used, false)
	}
	m.used[id] = true
	m.ids[p] = ID(id)
	return ID(id), true
}

func (m *model[P]) remove(p P) (ID, bool) {
	id, ok := m.ids[p]
	if ok {
		delete(m.ids, p)
		m.used[id] = false
	}
	return id, ok
}

func (m *model[P]) near(q P, radius, limit int) (found []Neighbour, truncated bool) {
	for p, id := range m.ids {
		if d := Distance(p, q); d <= radius {
			found = append(found, Neighbour{id, d})
		}
	}
	slices.SortFunc(found, func(a, b Neighbour) int {
		return cmp.Or(cmp.Compare(a.Distance, b.Distance), cmp.Compare(a.ID, b.ID))
	})
	if limit > 0 && len(found) > limit {
		return found[:limit], true
	}
	return found, false
}

func words[P Point](p *P) []uint64 {
	switch p := any(p).(type) {
	case *Point64:
		return []uint64{uint64(*p)}
	case *Point256:
		return p[:]
	}
	panic("unreachable")
}

func flip[P Point](p P, i int) P {
	switch p := any(&p).(type) {
	case *Point64:
		*p ^= 1 << (i & 63)
	case *Point256:
		p[i>>6&3] ^= 1 << (i & 63)
	}
	return p
}

func random[P Point](r *rand.Rand) P {
	var p P
	switch p := any(&p).(type) {
	case *Point64:
		*p = Point64(r.Uint64())
	case *Point256:
		for i := range p {
			p[i] = r.Uint64()
		}
	}
	return p
}

// clustered makes n points of which a tenth are the centre of up to eight
// others no more than 40 (of 256) or 10 (of 64) bits away, or as far from its complement.
func clustered[P Point](r *rand.Rand, n int) []P {
	points := make([]P, 0, n+8)
	for len(points) < n {
		p := random[P](r)
		points = append(points, p)
		if r.IntN(10) == 0 {
			for range 1 + r.IntN(8) {
				near := shaken(r, p, r.IntN(1+min(40, width[P]()*10/64)))
				if r.IntN(4) == 0 {
					near = complement(near)
				}
				points = append(points, near)
			}
		}
	}
	return points[:n]
}

// distinct puts a random point in the place of each that came before.
func distinct[P Point](r *rand.Rand, points []P) []P {
	seen := make(map[P]bool)
	for i, p := range points {
		for seen[p] {
			p = random[P](r)
		}
		seen[p], points[i] = true, p
	}
	return points
}

// shaken flips n random bits, some perhaps back again.
func shaken[P Point](r *rand.Rand, p P, n int) P {
	for range n {
		p = flip(p, r.IntN(width[P]()))
	}
	return p
}

// sized is n, or a part of it in a race build, which is ten to fifty times slower.
func sized(n int) int {
	if raceBuild {
		return n / 5
	}
	return n
}

func newRand(t testing.TB) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}
