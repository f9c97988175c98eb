// Package bktree finds every point within a Hamming radius of another, exactly:
// all of them and nothing else. It knows points of 64 and of 256 bits, such as
// a pHash and a PDQ hash, and nothing of what they stand for.
//
// # What is inside
//
// An [Index] is a hash table from points to their IDs, which answers Find and
// radius 0, and a structure that searches. There are two of these behind one
// small interface, and tests race them against each other and against a model:
//
//   - The tree is a BK-tree (W. A. Burkhard and R. M. Keller, "Some approaches
//     to best-match file searching", Communications of the ACM 16(4), 1973).
//   - The scan compares the query with every point there is.
//
// New uses the scan, which needs an explanation in a package of this name.
//
// # Why not the tree
//
// A BK-tree files the points below a node by their distance from it. When the
// query is at distance d from the node, whatever lies within r of the query is
// filed under a distance from d-r to d+r, and the rest need not be looked at.
// That saves work if distances differ by more than r. Between unrelated hashes
// of 256 bits they do not: each bit differs or not as a coin falls, so
// distances crowd round 128 with a standard deviation of 8. At PDQ's customary
// radius of 31 the range from d-31 to d+31 is nearly all of them: the search
// visits 96 nodes in 100, each wherever in memory it happened to be put, while
// the scan reads memory from one end to the other and needs a nanosecond or two
// for a point.
//
// Microseconds for one Near among a million points, a tenth of them in clusters,
// half of the queries near a stored point; one thread of an AMD Zen 5 (virtual),
// Go 1.26, by "go test -bench Near":
//
//	              radius     1      2      3      8     15      31      63
//	 64 bits      tree      39    340  1,570 41,000
//	              scan     890    890    930  1,020
//	256 bits      tree            130        10,900 81,000 157,000 151,000
//	              scan          1,470         1,500  1,360   1,530   2,000
//
// So the tree wins at a radius of 1 or 2 bits of 64, and up to about 4 of 256.
// Perceptual hashes are searched at 8 to 10 of 64 and at 31 of 256, and there
// the scan is forty and a hundred times faster. Keeping a tree as well for the
// few bits would double the memory and make a change some six times slower (1.1
// to 1.5 against 0.2 microseconds), for radii nobody asks for; so the rule is:
// radius 0 from the hash table, every other radius from the scan.
//
// Before each bits.OnesCount64, Go asks whether the processor has the
// instruction. A binary built with GOAMD64=v2 does not ask, and its scan takes
// two thirds of the time or less.
//
// # What to expect
//
// The scan's time grows with the number of points: 17 ms among ten million.
// An index takes 80 to 130 bytes for a point of 256 bits, 32 of them in the scan
// and the rest in the hash table. Memory of removed points comes back: a chunk of the scan when
// its 4096 points are gone, a part of the table when three quarters of it are.
// New points fill the lowest gaps first. What remains is some 600 bytes for
// each chunk there ever was.
package bktree
