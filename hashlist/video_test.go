package hashlist

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestVideo lists a video of ten frames and one of two, and looks up what is made of them.
func TestVideo(t *testing.T) {
	seed := uint64(20261126)
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	random := func(n int) []Hash {
		all := make([]Hash, n)
		for i := range all {
			all[i] = Hash{alg: VPDQ}
			for b := range all[i].sum {
				all[i].sum[b] = byte(r.Uint32())
			}
		}
		return all
	}
	near := func(h Hash, bits int) Hash {
		for _, b := range r.Perm(256)[:bits] {
			h.sum[b/8] ^= 1 << (b % 8)
		}
		return h
	}
	long, short, other := random(10), random(2), random(40)
	sha := hashAt(t, SHA256, 1)
	l := open(t, &memoryLog{})
	defer l.Close()
	apply(t, l, define("videos", Reject), define("fine", Accept), add("videos", append([]Hash{sha}, long...)...), add("videos", short...))
	join := func(parts ...[]Hash) (all []Hash) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	var copied, far []Hash
	for _, h := range long {
		copied, far = append(copied, near(h, 31)), append(far, near(h, 32))
	}
	ask := func(frames []Hash) Query {
		var q Query
		for i, h := range frames {
			q.Probes = append(q.Probes, Probe{Hash: h, Index: i})
		}
		return q
	}
	for _, c := range []struct {
		what          string
		frames        []Hash
		asked, listed int // shares; 0 for no match
	}{
		{"itself", long, 100, 100},
		{"a copy at the radius", copied, 100, 100},
		{"a copy beyond it", far, 0, 0},
		{"its half", long[:5], 100, 50},
		{"three of its frames", long[4:7], 100, 30},
		{"two of its frames, which may be anybody's", long[4:6], 0, 0},
		{"one of its frames", long[:1], 0, 0},
		{"one of its frames, again and again", join(long[:1], long[:1], long[:1], long[:1]), 100, 10},
		{"eight of its frames among as many others", join(other[:8], long[:8]), 50, 80},
		{"seven of its frames among as many others", join(other[:7], long[:7]), 0, 0},
		{"all of it within a longer one", join(other[:20], long, other[20:]), 20, 100},
		{"four of five frames are of it", join(long[:4], other[:1]), 80, 40},
		{"three of four frames are of it", join(long[:3], other[:1]), 0, 0},
		{"the short one", short, 100, 100},
		{"half of the short one", short[:1], 0, 0},
		{"the short one within a longer one", join(other, short), 4, 100},
		{"another", other, 0, 0},
	} {
		v := l.Lookup(ask(c.frames))
		var asked, listed int
		if len(v.Matches) > 0 {
			asked, listed = v.Matches[0].AskedShare, v.Matches[0].ListedShare
		}
		if asked != c.asked || listed != c.listed || (v.Verdict == VerdictReject) != (c.listed > 0) || len(v.Matches) > 1 {
			t.Errorf("%s: shares %d and %d, want %d and %d; %v, %d matches", c.what, asked, listed, c.asked, c.listed, v.Verdict, len(v.Matches))
		}
	}

	// A frame of a video says nothing of a picture, nor a picture of a video.
	picture := long[0]
	picture.alg = PDQ
	if v := l.Lookup(probe(picture)); len(v.Matches) != 0 {
		t.Errorf("a picture that is a frame of a banned video: %+v", v)
	}
	if picture.OfVideo() != long[0] || !sha.OfVideo().IsZero() {
		t.Error("OfVideo")
	}
	// What is known to be harmless as a whole outweighs no more than it is like.
	apply(t, l, add("fine", copied...))
	if v := l.Lookup(ask(copied)); v.Verdict != VerdictAllow {
		t.Errorf("a video known to be harmless: %v", v.Verdict)
	}
	if v := l.Lookup(ask(join(long[:5], other[:1]))); v.Verdict != VerdictAllow {
		t.Errorf("a part that both hold: %v", v.Verdict)
	}
	// Turned frames count once.
	q := ask(long)
	for i := range long {
		q.Probes = append(q.Probes, Probe{Hash: random(1)[0], Index: i, Transform: "flipx"})
	}
	if v := l.Lookup(q); len(v.Matches) == 0 || v.Matches[0].AskedShare != 100 {
		t.Errorf("with turned frames: %+v", v.Matches)
	}
}

// TestVideoDefinitionKeepsItsForm: a definition with the usual radius of videos has the form
// that it had before there were any, and another radius comes back.
func TestVideoDefinitionKeepsItsForm(t *testing.T) {
	s := define("videos", Reject)
	for _, r := range []uint8{31, 0, 20} {
		s.Definition.Radii = DefaultRadii
		s.Definition.Radii[VPDQ] = r
		b, err := s.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		var back Statement
		if err := back.UnmarshalBinary(b); err != nil || back.Definition.Radii != s.Definition.Radii {
			t.Errorf("radius %d: %v, %v", r, back.Definition.Radii, err)
		}
	}
}

// BenchmarkVideo looks up a video of ten minutes, in each of 16 ways, among as
// many listed videos as hold 100,000 frames.
func BenchmarkVideo(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	l := open(b, &memoryLog{})
	defer l.Close()
	apply(b, l, define("videos", Reject))
	random := func() Hash {
		h := Hash{alg: VPDQ}
		for i := range h.sum {
			h.sum[i] = byte(r.Uint32())
		}
		return h
	}
	for v := range 1000 {
		s := add("videos")
		s.ID = fmt.Sprintf("%s/statements/video-%d", origin, v)
		for range 100 {
			s.Hashes = append(s.Hashes, random())
		}
		apply(b, l, s)
	}
	var q Query
	for i := range 600 {
		for range 16 {
			q.Probes = append(q.Probes, Probe{Hash: random(), Index: i})
		}
	}
	for b.Loop() {
		l.Lookup(q)
	}
}
