// Package bktree finds every point within a Hamming radius of another, exactly:
// all of them and nothing else. It knows points of 64 and of 256 bits, such as
// a pHash and a PDQ hash, and nothing of what they stand for.
//
// # The tree, and why it is not enough
//
// A BK-tree (W. A. Burkhard and R. M. Keller, "Some approaches to best-match file
// searching", Communications of the ACM 16(4), 1973) files the points below a
// node by their distance from it. When the query is at distance d from the node,
// whatever lies within r of the query is filed under a distance from d-r to d+r,
// by the triangle inequality, and the rest need not be looked at.
//
// That saves work if distances differ by more than r. Between unrelated hashes
// of 256 bits they do not: each bit differs or not as a coin falls, so distances
// crowd round 128 with a standard deviation of 8. At PDQ's customary radius of 31
// the range from d-31 to d+31 is nearly all of them: the search visits 96 nodes in
// 100, each wherever in memory it happened to be put, and is a hundred times slower than
// a loop over all points. The tree wins at a radius of 1 or 2 bits only.
//
// # Words instead of points
//
// So cut the points into words of 16 bits: 16 of them, or 4. If two points differ in
// at most 31 bits, then in at least one of the 16 words they differ in at most one
// bit, for 16 words with two differing bits each would make 32. This is the
// pigeonhole principle, and the index is known as multi-index hashing (M. Norouzi, A.
// Punjani and D. J. Fleet, "Fast search in Hamming space with multi-index
// hashing", CVPR 2012). For each word there is a table from its value to the
// points that have it; a search looks up the query's own value and the 16 that differ in one bit,
// in 16 tables: 272 small buckets instead of all points. It is a forest of BK-trees
// over the words, if one likes, whose walk at radius 1 is known beforehand.
//
// # The ring
//
// Among a million points those buckets hold some 4,000, and to verify each of
// them is an access to memory that nobody foresaw. Most are spared it by a stronger
// form of the principle (J. Qin and C. Xiao, "Pigeonring: a principle for faster
// thresholded similarity search", PVLDB 12(1), 2018): not only is some
// word within its bound, but some word and the next after it together are within
// theirs. So beside each point in a bucket lie the 16 bits of its next word, its
// fingerprint, to be compared first. Of 4,000 candidates some 20 are left. Three in a row are
// within theirs, too: so the bits that an ID leaves free hold some of the word after that,
// a tag, and of the 20 points 3 or 4 are fetched.
//
// To be exact about it, let word c of n have threshold t(c), an integer of -1 or more,
// such that the sum of all t(c)+1 is r+1. Let d(c) be the number of bits in which
// two points differ in word c, and x(c) = d(c) - t(c) - 1. If the points are
// within r, then the sum of all x(c) is at most r - (r+1) < 0. Go round the ring of words
// again and again and add up x(c): since each round loses, there is a last position
// at which the running sum is as large as it ever is. Start from the word s that follows it:
// every sum of consecutive x(s), x(s+1), ... is negative. The first of them
// says d(s) <= t(s), the first two d(s) + d(s+1) <= t(s) + t(s+1) + 1, and the first three
// the like with + 2. So to
// look up every word with t >= 0 in the ball of radius t(c), and there to keep the points
// whose next word differs in at most t(c) + t(c+1) + 1 - d(c) bits, misses nothing. A
// word with t = -1 cannot be such a start and is not looked up. Nothing in this
// needs the thresholds to be equal, so every radius has its own: 31 is 1 for
// every word, 7 is 0 for half of them and 8 lookups in all, 63 is 3 for every
// word and 11,152 lookups. Beyond some radius, which depends on the number of
// points, a scan is cheaper; Near estimates both and takes it then.
//
// A point can be found from several words. It is reported from the first of those that
// satisfy all three conditions, and so once. Every candidate is judged by its full
// distance in the end: whatever the tables say, nothing too far is reported.
//
// Two points that both have an even number of ones differ in an even number of bits. Half of a PDQ hash are ones, so within
// 31 of one there is nothing that is not within 30. While the points with an odd number of ones are few, they are looked at one by
// one, and the tables are searched for the others within the radius less one, if that has the parity of the distance; see oddPoints.
//
// # A point and its complement
//
// A picture with inverted colours has about the complement of the hash, so who looks for copies asks for both. With a folded index
// (NewFolded) one search answers that: a point whose word begins with a one is filed as if all of its bits
// were turned, so that a word and its complement have the same bucket. To look up a word is
// to look at the ball round the filed form of the query's, where the points lie that are as the query is or that are its
// complement, and at the ball of one bit less round the turned form, for those that differ in the bit that was
// folded away. In the end the full distance tells which of both a point is near.
//
// That alone would leave as many fingerprints to look at, in half as many buckets, twice as long. What it
// gives is room for longer words: thirteen of 19 to 21 bits, with thresholds of 2 in five of them and 1 in eight at a radius
// of 30, and buckets that are a single line for most words, three fifths full, at ten million points: 1,400 lines instead
// of twice 1,280. The bits of the next word that are not in its fingerprint come first in the tag; and where a bucket is not
// full, four bits of the tags lie at the end of its line, so that of three entries two need not be looked at. Entries are in an
// array of their own here: as buckets are many and short, it matters more that their fingerprints are in few pages. Below
// seven million points two searches are as fast, and less memory is needed, so a folded index begins like any other and
// moves over, some points with each insert.
//
// # What the machine likes
//
// A bucket is a cache line of 32 fingerprints, or several lines, at a place that
// follows from the word: no pointer leads to it. While a bucket is looked at, the lines of
// one further on are asked for, so memory is at work all the time and a search does not wait for it 272 times; a line is
// compared in four instructions by the AVX-512 kernel, in some twenty with AVX2 or NEON. Entries
// and points are noted and then fetched 64 at a time, and looked at when the next are on their way: each is in another page, and the
// processor looks up the addresses of several at once only if nothing comes between. The arrays lie in huge pages outside the Go heap, where
// the system has them. Points are permuted by a fixed permutation of bits before they
// are cut, because real hashes are not random; see permute.
//
// With few points a table is keyed by the upper 7, 10 or 13 bits of the word, so that
// buckets are never nearly empty: that is the same search with a ball in fewer
// dimensions, and the conditions hold, as dropping bits makes no distance larger. Below 1,500 points
// there are no tables, and Near scans. Tables grow one at a time: to
// longer buckets, a few of them with each insert, or to more of them, a whole table at
// once while there are few points.
//
// An insert writes to three lines in each table. InsertBatch has those of 64
// points on their way together. To build an index of what is known beforehand, between
// BeginBulk and EndBulk, is cheaper by far: each table is filled by itself, from points
// sorted by the upper half of its word, so that the buckets being written to stay
// in the processor's own cache.
//
// NearEither takes several points, and goes through the tables word by word for 32 of them together: so they have
// common pages, of which the processor need not look up the address again, and what is found on the way is looked at
// in larger numbers. That saves a tenth. More at a time gain nothing until there are thousands, and there is no such Near: a
// search alone has its lines on their way already.
//
// # Readers and the writer
//
// Writers take turns. Readers take no lock at all: the writer changes tables in place, in an
// order that makes sense at every moment (see table), and a reader announces
// itself (see readers), so that neither an ID nor memory that it may have in
// hand is used for something else before it is finished. No entry moves while it can
// be looked for: a table that is to have another shape is made anew beside the
// old one and then put in its place.
//
// # What to expect
//
// Microseconds for one Near, the median; points and queries as in the
// benchmarks: a tenth of the points in clusters, half of the queries near a stored
// one. Two virtual cores of an Intel Xeon at 2.5 GHz with AVX2, otherwise idle, Go 1.26; loop is the plain loop over a slice
// of points with bits.OnesCount64, in the same run.
//
//	                 points      loop     index   ratio
//	256 bits, r=31     100k       566       8.6      66
//	                     1M     8,530        13     674
//	                    10M    71,900        50   1,430
//	256 bits at 1M    r=0:0.7  7:2.5  15:3.9  23:8.4  39:23  47:47  55:169
//	 64 bits at 1M    r=0:0.5  4:1.0  8:4.9  10:8.9  12:24  16:219
//
// An AMD Zen 5 with the AVX-512 kernel takes half of that or less. Without vector instructions, but fetching ahead, r=31 takes 34 at
// 1M; in pure Go 64. The tree needs 178,000. The NEON kernel is tested under an
// emulator and has not been timed.
//
// NearEither of a folded index takes 35 at 10M for one point, and 32 each for 64, where two searches of another take 61, on a day when
// that machine ran a third faster: one search took 30. Near of the folded index takes as long as NearEither.
//
// At 1M a search reads 272 lines of fingerprints at random from 250 MB, and at 10M some 1,360 from 1.2 GB, where
// each bucket is in a page of its own; 256 and 1,280 for a point with as many ones as zeros. To read these and look at
// none takes this machine four fifths of the time of a search at 1M and half of it at 10M. So what is left to gain is
// in reading fewer lines, and from fewer pages, not in comparing faster: a kernel of half the instructions gained 4 %.
// Nor did it help to fetch further ahead or less far, to fetch more lines while candidates are looked at, to fetch past
// the larger caches (prefetchnta), to cut folded points into fourteen words, or to leave every other line to the
// processor's own fetching; to spread buckets so that they share no sets of the cache gained 2 %.
//
// A point of 256 bits takes 240 bytes at a million and 159 at ten million, all told; just after
// the tables have grown it may be 350, also while a folded index moves over. An insert takes 2.7
// microseconds on that machine, or 1.3 in a batch, also beside lookups. Memory comes back when points are removed: tables shrink when a
// quarter of a smaller size would do, segments of the store go when they are empty, and
// new points fill the lowest gaps first.
//
// Near-copies of one point, however many, share its buckets, which then go on in
// chains: they slow down searches near that point.
package bktree
