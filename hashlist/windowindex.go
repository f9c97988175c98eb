package hashlist

import (
	"math"
	"slices"

	"github.com/tocsin-fed/tocsin/bktree"
)

// windowIndex finds the uploads of the window near a hash. It holds the hashes and
// little else; the rest of an upload is read from the store. It is not locked: the
// window's lock covers it, and whoever holds that to read may search.
//
// A picture is looked up by 16 PDQ hashes, those of its dihedral variants and their
// complements, and is in the index by 4 of them. Exchanging the axes of a picture
// exchanges the rows and columns of its hash, exactly, and inverting it inverts the hash; so a
// new statement's hash is searched for in these ways instead, as it is, transposed,
// inverted and both. The other variants cannot be had from a hash.
type windowIndex struct {
	points  [VPDQ + 1]points
	heads   [VPDQ + 1][]uint32 // by the IDs in points: 1 + the number of the first link
	links   []windowLink
	free    map[uint16][]uint32 // blocks of links to use again, by length
	uploads []recent
	vacant  []uint32 // numbers of uploads to use again
	newest  uint32   // the ends of the chain of uploads by their last sighting; none
	oldest  uint32
	len     int
	count   uint64 // sightings of all uploads
}

const none = math.MaxUint32

// windowLink says that an upload has a hash. Those of one upload are a block.
type windowLink struct {
	upload uint32
	next   uint32 // 1 + the number of the next with the same hash
	point  bktree.ID
	alg    Algorithm
}

// recent is what is held in memory of an upload.
type recent struct {
	id           uint64 // of its row, 0 for none
	sum          uint64
	last         int64 // Unix seconds
	first        uint32
	n            uint16 // links from first on
	count        uint32
	newer, older uint32
}

func newWindowIndex() *windowIndex {
	return &windowIndex{points: newPoints(), free: map[uint16][]uint32{}, newest: none, oldest: none}
}

// transposed exchanges rows and columns of a PDQ hash: bit 16i+j, counted from the
// least significant bit of the last byte, goes to 16j+i.
func (h Hash) transposed() Hash {
	t := Hash{alg: h.alg}
	for i := range 16 {
		for j := range 16 {
			if k := 16*i + j; h.sum[31-k/8]>>(k%8)&1 == 1 {
				k := 16*j + i
				t.sum[31-k/8] |= 1 << (k % 8)
			}
		}
	}
	return t
}

// variants are the hashes by which search looks for a hash of a statement.
func (h Hash) variants() []Hash {
	if h.alg != PDQ {
		return []Hash{h}
	}
	t := h.transposed()
	return []Hash{h, h.Complement(), t, t.Complement()}
}

// filed returns those hashes of the probes by which an upload is in the index.
func filed(probes []Probe) []Hash {
	var hashes []Hash
	covered := make(map[Hash]struct{}, 2*len(probes))
	for i := range probes {
		h := probes[i].Hash
		if _, ok := covered[h]; ok || !h.alg.Valid() || len(hashes) == math.MaxUint16 {
			continue
		}
		hashes = append(hashes, h)
		for _, v := range h.variants() {
			covered[v] = struct{}{}
		}
	}
	return hashes
}

// find returns the upload with the given sum, which is filed by hash.
func (x *windowIndex) find(h Hash, sum uint64) (uint32, bool) {
	id, ok := x.points[h.alg].find(h)
	if !ok {
		return 0, false
	}
	for o := x.heads[h.alg][id]; o != 0; o = x.links[o-1].next {
		if n := x.links[o-1].upload; x.uploads[n].sum == sum {
			return n, true
		}
	}
	return 0, false
}

// add files an upload, the newest of all, and returns its number.
func (x *windowIndex) add(r recent, hashes []Hash) uint32 {
	n := uint32(len(x.uploads))
	if k := len(x.vacant); k > 0 {
		n, x.vacant = x.vacant[k-1], x.vacant[:k-1]
	} else {
		x.uploads = append(x.uploads, recent{})
	}
	r.n = uint16(len(hashes))
	if blocks := x.free[r.n]; len(blocks) > 0 {
		r.first, x.free[r.n] = blocks[len(blocks)-1], blocks[:len(blocks)-1]
	} else {
		r.first = uint32(len(x.links))
		x.links = append(x.links, make([]windowLink, r.n)...)
	}
	for i, h := range hashes {
		id := x.points[h.alg].insert(h)
		for int(id) >= len(x.heads[h.alg]) {
			x.heads[h.alg] = append(x.heads[h.alg], 0)
		}
		x.links[r.first+uint32(i)] = windowLink{n, x.heads[h.alg][id], id, h.alg}
		x.heads[h.alg][id] = r.first + uint32(i) + 1
	}
	x.uploads[n] = r
	x.len++
	x.count += uint64(r.count)
	x.push(n)
	return n
}

// push makes an upload the newest.
func (x *windowIndex) push(n uint32) {
	r := &x.uploads[n]
	r.newer, r.older = none, x.newest
	if x.newest != none {
		x.uploads[x.newest].newer = n
	} else {
		x.oldest = n
	}
	x.newest = n
}

func (x *windowIndex) unchain(n uint32) {
	r := &x.uploads[n]
	if r.newer != none {
		x.uploads[r.newer].older = r.older
	} else {
		x.newest = r.older
	}
	if r.older != none {
		x.uploads[r.older].newer = r.newer
	} else {
		x.oldest = r.newer
	}
}

// again notes that an upload came once more.
func (x *windowIndex) again(n uint32, u *upload) {
	r := &x.uploads[n]
	x.count += uint64(u.seen.Count) - uint64(r.count)
	r.last, r.count = u.seen.Last.Unix(), uint32(u.seen.Count)
	x.unchain(n)
	x.push(n)
}

// drop takes an upload out.
func (x *windowIndex) drop(n uint32) {
	r := &x.uploads[n]
	for i := r.first; i < r.first+uint32(r.n); i++ {
		l := &x.links[i]
		at := &x.heads[l.alg][l.point]
		for *at != i+1 {
			at = &x.links[*at-1].next
		}
		*at = l.next
		if x.heads[l.alg][l.point] == 0 {
			x.points[l.alg].drop(l.point)
		}
	}
	x.free[r.n] = append(x.free[r.n], r.first)
	x.unchain(n)
	x.len--
	x.count -= uint64(r.count)
	*r = recent{}
	x.vacant = append(x.vacant, n)
}

// search appends the numbers of the uploads that have a hash within radius of h or of
// one of its variants. One may be there more than once.
func (x *windowIndex) search(h Hash, radius int, found []uint32) []uint32 {
	if !h.alg.Perceptual() {
		radius = 0
	}
	points := x.points[h.alg]
	var near [2]bktree.Both
	if h.alg == PDQ {
		points.nearEither([]Hash{h, h.transposed()}, radius, near[:])
	} else {
		near[0].Near = points.near(h, radius, nil)
	}
	for _, b := range near {
		for _, n := range [...][]bktree.Neighbour{b.Near, b.Opposite} {
			for _, p := range n {
				for o := x.heads[h.alg][p.ID]; o != 0; o = x.links[o-1].next {
					found = append(found, x.links[o-1].upload)
				}
			}
		}
	}
	return found
}

// unique sorts numbers and leaves out repetitions.
func unique(n []uint32) []uint32 {
	slices.Sort(n)
	return slices.Compact(n)
}

// bytes is about how much memory is held.
func (x *windowIndex) bytes() (n int64) {
	for _, a := range Algorithms {
		n += x.points[a].bytes() + 4*int64(cap(x.heads[a]))
	}
	return n + 16*int64(cap(x.links)) + 48*int64(cap(x.uploads)) + 4*int64(cap(x.vacant))
}
