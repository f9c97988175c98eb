package hashlist

import "cmp"

// unlike says how far a candidate is from being the very thing: the distance of a
// picture, and of a video the share of frames that it lacks.
func (c *candidate) unlike() int {
	if c.asked|c.listed != 0 {
		return 100 - int(max(c.asked, c.listed))
	}
	return c.distance
}

// videos makes of the frames of videos in found one candidate for each statement,
// the nearest, and drops the statements that too few frames match. All probes by
// VPDQ are of one video; a frame is what has one Index, and counts as matching however it had
// to be turned.
//
// That a frame of a video on a list matches says little: news, titles and black
// have frames in common with anything. So what counts is the share of the frames
// asked about that are in the listed video (then it is a part of it, or the whole), or the share of the
// listed ones that are in the one asked about (then it holds it, however much
// was put around).
func (f *fold) videos(found []candidate, probes []Probe, policy *Policy) []candidate {
	type tally struct {
		frames   map[int]struct{}    // asked about
		postings map[uint32]struct{} // listed
		nearest  candidate
	}
	var tallies map[uint32]*tally // by statement
	others := found[:0]
	for _, c := range found {
		if probes[c.probe].Hash.alg != VPDQ {
			others = append(others, c)
			continue
		}
		n := f.postings[c.posting].stmt
		t := tallies[n]
		if t == nil {
			if tallies == nil {
				tallies = map[uint32]*tally{}
			}
			t = &tally{map[int]struct{}{}, map[uint32]struct{}{}, c}
			tallies[n] = t
		}
		t.frames[probes[c.probe].Index] = struct{}{}
		t.postings[c.posting] = struct{}{}
		if cmp.Or(cmp.Compare(c.distance, t.nearest.distance), cmp.Compare(c.posting, t.nearest.posting)) < 0 {
			t.nearest = c
		}
	}
	if tallies == nil {
		return found
	}
	asked := map[int]struct{}{}
	for i := range probes {
		if probes[i].Hash.alg == VPDQ {
			asked[probes[i].Index] = struct{}{}
		}
	}
	for n, t := range tallies {
		listed := f.frames(n)
		t.nearest.asked = uint8(100 * len(t.frames) / len(asked))
		t.nearest.listed = uint8(100 * len(t.postings) / listed)
		enough := len(t.frames) >= min(cmp.Or(policy.VideoFrames, 3), listed)
		if enough && int(max(t.nearest.asked, t.nearest.listed)) >= cmp.Or(policy.VideoShare, 80) {
			others = append(others, t.nearest)
		}
	}
	return others // the caller sorts
}

// frames counts the frames of a video that statement n has in force.
func (f *fold) frames(n uint32) int {
	s, count := &f.stmts[n], 0
	for i := s.first; i < s.first+s.count; i++ {
		if f.postings[i].in == table(VPDQ) {
			count++
		}
	}
	return count
}
