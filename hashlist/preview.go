package hashlist

import (
	"context"
	"slices"
	"time"
)

// Preview is what would have been answered to the uploads of the window.
type Preview struct {
	Uploads    int                    // there are: pictures, each as often as it came
	Changed    [VerdictReject + 1]int // uploads that would have been answered more gravely, by what they would have come to
	Hashes     int                    // that were compared
	Suspicious bool                   // more than is expected; see Flood
	Examples   []PreviewExample       // the newest first
}

// PreviewExample is an upload that would have been answered otherwise.
type PreviewExample struct {
	Seen      SeenUpload
	Verdict   Verdict
	Distance  int
	Algorithm Algorithm
}

// A Supposition is hashes that might be listed, with what a match of them would come to
// at most.
type Supposition struct {
	Hashes []Hash
	Radii  Radii
	Most   Verdict
	Action Action
}

// Preview tells what would have been answered if what is supposed had been in force, with
// at most so many examples. A match counts by itself: that a second algorithm may lift a
// ceiling, that others' belief may be wanting, or that something is known to be harmless, is
// left out of account. It changes nothing.
func (w *Window) Preview(ctx context.Context, suppose []Supposition, examples int) (Preview, error) {
	var p Preview
	if w == nil {
		return p, nil
	}
	gravest := map[uint64]Verdict{}
	var found []uint32
	weighed := map[uint64]uint32{}
	for _, s := range suppose {
		p.Hashes += len(s.Hashes)
		for _, h := range s.Hashes {
			v := min(w.lists.policy.of(s.Action, 1<<h.alg), s.Most)
			if v <= VerdictAllow {
				continue
			}
			w.mu.RLock()
			found = w.index.search(h, int(s.Radii[h.alg]), found[:0])
			for _, n := range found {
				r := &w.index.uploads[n]
				gravest[r.id] = max(gravest[r.id], v)
				weighed[r.id] = r.count
			}
			w.mu.RUnlock()
			if err := ctx.Err(); err != nil {
				return p, err
			}
		}
	}
	ids := make([]uint64, 0, len(gravest))
	sum, now := 0.0, w.config.Now().UnixMicro()
	for id := range gravest {
		ids = append(ids, id)
		if now-int64(id) < int64(Fresh/time.Microsecond) {
			sum += float64(weighed[id]) / 10
		} else {
			sum += float64(weighed[id])
		}
	}
	slices.Sort(ids)
	slices.Reverse(ids)
	w.mu.RLock()
	p.Uploads = int(w.index.count)
	p.Suspicious = w.config.Flood.Uploads > 0 && sum > w.config.Flood.limit(w.index.len)
	w.mu.RUnlock()
	for chunk := range slices.Chunk(ids, windowBatch) {
		uploads, err := w.read(ctx, chunk)
		if err != nil {
			return p, err
		}
		for _, id := range chunk {
			u := uploads[id]
			if u == nil || gravest[id] <= u.seen.Answered {
				continue
			}
			e, near := PreviewExample{Seen: u.seen, Verdict: gravest[id]}, false
			if len(p.Examples) < examples {
				e.Distance, e.Algorithm, near = u.nearest(suppose)
			}
			p.Changed[gravest[id]] += u.seen.Count
			if near {
				p.Examples = append(p.Examples, e)
			}
		}
	}
	return p, nil
}

// nearest finds how far an upload is from the nearest supposed hash.
func (u *upload) nearest(suppose []Supposition) (distance int, alg Algorithm, near bool) {
	for _, s := range suppose {
		for _, h := range s.Hashes {
			for i := range u.probes {
				d, ok := u.probes[i].Hash.Distance(h)
				if ok && d <= int(s.Radii[h.alg]) && (!near || d < distance) {
					distance, alg, near = d, h.alg, true
				}
			}
		}
	}
	return distance, alg, near
}

// Suppose returns what a list says as a Supposition for each of its actions: the hashes in
// force, with the radii of its definition. It fails with the log.
func (l *Lists) Suppose(ctx context.Context, list string, most Verdict) ([]Supposition, error) {
	info, ok := l.List(list)
	if !ok {
		return nil, nil
	}
	by := map[Action]*Supposition{}
	for r, err := range l.After(ctx, 0, Selection{List: list}) {
		if err != nil {
			return nil, err
		}
		if r.Statement.Kind != AddHashes {
			continue
		}
		action := r.Statement.Action
		if action == 0 {
			action = info.Action
		}
		if by[action] == nil {
			by[action] = &Supposition{Radii: l.radiiOf(list), Most: most, Action: action}
		}
		by[action].Hashes = append(by[action].Hashes, l.InForce(&r.Statement)...)
	}
	var all []Supposition
	for _, s := range by {
		all = append(all, *s)
	}
	return all, nil
}
