package bktree

import (
	"cmp"
	"slices"
)

// nearest collects the points a search comes across. With a limit it holds
// no more than a few times that many, whatever lies within the radius: when it
// is full it keeps the nearest and draws the radius in to the farthest of them.
type nearest struct {
	found     []Neighbour // the caller's, up to start; then ours
	start     int
	radius    int // bits; structures read it again after each add
	limit     int // 0 or less: none
	truncated bool

	spare  []Neighbour // of sortCrowd
	search *search     // what multi keeps between searches; that of an opposite one is the same
}

// slack is the least number of points kept beyond the limit, so that a small
// limit does not mean a sort for every point.
const slack = 64

func (n *nearest) add(id ID, distance int) {
	n.found = append(n.found, Neighbour{ID: id, Distance: distance})
	if n.limit > 0 && len(n.found)-n.start-n.limit >= max(n.limit, slack) {
		n.cut()
		// Not one less: points need not come in the order of their IDs, and
		// one as far as the farthest may still precede it.
		n.radius = n.found[len(n.found)-1].Distance
	}
}

// cut sorts what was found and drops what is beyond the limit.
func (n *nearest) cut() {
	ours := n.found[n.start:]
	if len(ours) < crowd {
		slices.SortFunc(ours, nearer)
	} else {
		n.sortCrowd(ours)
	}
	if n.limit > 0 && len(ours) > n.limit {
		n.found = n.found[:n.start+n.limit]
		n.truncated = true
	}
}

func nearer(a, b Neighbour) int {
	return cmp.Or(cmp.Compare(a.Distance, b.Distance), cmp.Compare(a.ID, b.ID))
}

// crowd is how many results are sorted by counting their distances first.
const crowd = 512

// sortCrowd sorts in linear time what comes in the order of its IDs, as a crowd
// does: it comes from the scan. To put results in place by their distance keeps that order.
func (n *nearest) sortCrowd(ours []Neighbour) {
	var end [257]int
	for _, o := range ours {
		end[o.Distance]++
	}
	for d := 1; d < len(end); d++ {
		end[d] += end[d-1]
	}
	start := end
	n.spare = append(n.spare[:0], ours...)
	for i := len(n.spare) - 1; i >= 0; i-- {
		o := n.spare[i]
		start[o.Distance]--
		ours[start[o.Distance]] = o
	}
	for d := range end {
		if same := ours[start[d]:end[d]]; !slices.IsSortedFunc(same, nearer) {
			slices.SortFunc(same, nearer)
		}
	}
	if len(n.spare) > 64*crowd {
		n.spare = nil
	}
}

// begin prepares for a search whose results go to the end of dst.
func (n *nearest) begin(radius, limit int, dst []Neighbour) {
	n.found, n.start, n.radius, n.limit, n.truncated = dst, len(dst), radius, limit, false
}

// finish returns the results, which are the caller's from here on.
func (n *nearest) finish() ([]Neighbour, bool) {
	n.cut()
	found := n.found
	n.found = nil
	return found, n.truncated
}
