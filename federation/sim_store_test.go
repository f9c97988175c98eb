package federation_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
)

// simDisk is what survives a node's death: a hashlist.Log and a
// federation.Peers in memory. A node gets at it through a simStore, which dies with it.
type simDisk struct {
	mu        sync.Mutex // guards what follows
	records   []hashlist.Record
	byID      map[string]uint64
	follows   map[string]federation.Follow
	leaves    map[string][][32]byte
	followers map[[2]string]federation.Follower // by list and actor
	positions map[[2]string]uint64              // saved, and lost with the power
	peers     map[string]federation.Peer
	keys      map[string]federation.Key
	marks     map[string]federation.KeyMark
	terms     map[string]federation.Terms
}

func newSimDisk() *simDisk {
	return &simDisk{
		byID: map[string]uint64{}, follows: map[string]federation.Follow{}, leaves: map[string][][32]byte{},
		followers: map[[2]string]federation.Follower{}, positions: map[[2]string]uint64{}, peers: map[string]federation.Peer{},
		keys: map[string]federation.Key{}, marks: map[string]federation.KeyMark{}, terms: map[string]federation.Terms{},
	}
}

// settle is what a restart does to saved positions: they are there, or lost.
func (d *simDisk) settle(lose bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !lose {
		for at, p := range d.positions {
			f := d.followers[at]
			f.Position = p
			d.followers[at] = f
		}
	}
	clear(d.positions)
}

// simStore is a disk as one life of a node sees it. It holds the node to the
// contracts, and can fail before or after it has stored, because an error does
// not mean that nothing happened. After it is cut off it stores nothing more.
type simStore struct {
	*simDisk
	broken func(what string)              // the caller broke a contract
	fate   func() (fail, storeFirst bool) // of the next write
	cut    atomic.Bool
}

var (
	errSimDisk = errors.New("the disk failed")
	errSimCut  = errors.New("the node is dead")
)

// write does one write of all or nothing.
func (s *simStore) write(do func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cut.Load() {
		return errSimCut
	}
	fail, storeFirst := s.fate()
	if fail && !storeFirst {
		return errSimDisk
	}
	if err := do(); err != nil {
		return err
	}
	if fail {
		return errSimDisk
	}
	return nil
}

func (s *simStore) check(ok bool, format string, args ...any) {
	if !ok {
		s.broken(fmt.Sprintf(format, args...))
	}
}

func (s *simStore) moment(what string, t time.Time, needed bool) {
	s.check(!t.IsZero() || !needed, "%s is missing", what)
	s.check(t.IsZero() || t.Location() == time.UTC && t.Nanosecond()%1000 == 0, "%s %v is not in whole microseconds of UTC", what, t)
}

// Append implements hashlist.Log.
func (s *simStore) Append(_ context.Context, records []hashlist.Record) (seqs []uint64, err error) {
	for _, r := range records {
		s.check(r.Statement.Validate() == nil, "a statement that is not valid: %v", r.Statement.Validate())
		s.check(len(r.Signed) > 0 && len(r.Signed) <= federation.MaxSigned, "%d signed bytes", len(r.Signed))
		s.moment("time of receipt", r.Received, true)
	}
	err = s.write(func() error {
		for _, r := range records {
			if s.byID[r.Statement.ID] == 0 {
				r.Seq = uint64(len(s.records) + 1)
				r.Signed = slices.Clone(r.Signed)
				s.records = append(s.records, r)
				s.byID[r.Statement.ID] = r.Seq
			}
			seqs = append(seqs, s.byID[r.Statement.ID])
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return seqs, nil
}

// After implements hashlist.Log.
func (s *simStore) After(_ context.Context, seq uint64, only hashlist.Selection) iter.Seq2[hashlist.Record, error] {
	s.mu.Lock()
	records := s.records[min(seq, uint64(len(s.records))):] // nothing in it is ever changed
	s.mu.Unlock()
	return func(yield func(hashlist.Record, error) bool) {
		for _, r := range records {
			if only.List != "" && only.List != r.Statement.List {
				continue
			}
			if v := &r.Statement; only.Bare {
				r.Statement = hashlist.Statement{ID: v.ID, Issuer: v.Issuer, List: v.List, Kind: v.Kind}
			}
			if !only.Signed {
				r.Signed = nil
			}
			if !yield(r, nil) {
				return
			}
		}
	}
}

// Find implements hashlist.Log.
func (s *simStore) Find(_ context.Context, id string) (hashlist.Record, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if seq := s.byID[id]; seq > 0 {
		return s.records[seq-1], true, nil
	}
	return hashlist.Record{}, false, nil
}

// SaveFollow implements federation.Peers.
func (s *simStore) SaveFollow(_ context.Context, f federation.Follow) error {
	s.check(f.List != "" && f.ID != "" && f.State >= federation.FollowAsked && f.State <= federation.FollowDiverged, "follow %+v", f)
	s.check(f.Most >= hashlist.VerdictAllow && f.Most <= hashlist.VerdictReject, "follow comes to %v", f.Most)
	s.check(len(f.Trouble) <= 1000 && utf8.ValidString(f.Trouble), "trouble %q", f.Trouble)
	s.check(len(f.Head) <= 4<<10 && len(f.Actor) > 0 && len(f.Actor) <= 64<<10, "head of %d and actor of %d bytes", len(f.Head), len(f.Actor))
	s.moment("time of asking", f.Asked, true)
	s.moment("time of the answer", f.Answered, false)
	return s.write(func() error { s.follows[f.List] = f; return nil })
}

// Follows implements federation.Peers.
func (s *simStore) Follows(context.Context) ([]federation.Follow, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return sorted(s.follows, func(a, b federation.Follow) int { return strings.Compare(a.List, b.List) }), nil
}

// Leaves implements federation.Peers.
func (s *simStore) Leaves(_ context.Context, list string, from uint64) ([][32]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.leaves[list]
	return slices.Clone(all[min(from, uint64(len(all))):]), nil
}

// AppendLeaves implements federation.Peers.
func (s *simStore) AppendLeaves(_ context.Context, list string, at uint64, leaves [][32]byte) error {
	return s.write(func() error {
		if uint64(len(s.leaves[list])) != at {
			return fmt.Errorf("there are %d leaves, so the next is not at place %d", len(s.leaves[list]), at)
		}
		s.leaves[list] = append(s.leaves[list], leaves...)
		return nil
	})
}

// DropLeaves implements federation.Peers.
func (s *simStore) DropLeaves(_ context.Context, list string) error {
	return s.write(func() error { delete(s.leaves, list); return nil })
}

// SaveFollower implements federation.Peers.
func (s *simStore) SaveFollower(_ context.Context, f federation.Follower) error {
	s.check(f.List != "" && f.Actor != "" && f.Inbox != "" && f.Follow != "", "follower %+v", f)
	s.check(f.State >= federation.FollowerAsked && f.State <= federation.FollowerLeft, "follower in state %d", f.State)
	s.moment("time of asking", f.Asked, true)
	s.moment("time of the decision", f.Decided, false)
	return s.write(func() error {
		at := [2]string{f.List, f.Actor}
		s.followers[at] = f
		delete(s.positions, at)
		return nil
	})
}

// Followers implements federation.Peers.
func (s *simStore) Followers(context.Context) ([]federation.Follower, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return sorted(s.followers, func(a, b federation.Follower) int {
		return cmp.Or(strings.Compare(a.List, b.List), strings.Compare(a.Actor, b.Actor))
	}), nil
}

// SavePositions implements federation.Peers.
func (s *simStore) SavePositions(_ context.Context, all []federation.Follower) error {
	return s.write(func() error {
		for _, f := range all {
			at := [2]string{f.List, f.Actor}
			if _, known := s.followers[at]; known {
				s.positions[at] = f.Position
			}
		}
		return nil
	})
}

// SaveKeyMark implements federation.Peers.
func (s *simStore) SaveKeyMark(_ context.Context, m federation.KeyMark) error {
	s.check(strings.HasPrefix(m.Method, m.Issuer+"#") && m.State >= federation.KeyBacked && m.State <= federation.KeyVerified, "mark %+v", m)
	s.moment("time of marking", m.At, true)
	return s.write(func() error { s.marks[m.Method] = m; return nil })
}

// KeyMarks implements federation.Peers.
func (s *simStore) KeyMarks(context.Context) ([]federation.KeyMark, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return sorted(s.marks, func(a, b federation.KeyMark) int { return strings.Compare(a.Method, b.Method) }), nil
}

// SaveTerms implements federation.Peers.
func (s *simStore) SaveTerms(_ context.Context, t federation.Terms) error {
	return s.write(func() error { s.terms[t.List] = t; return nil })
}

// Terms implements federation.Peers.
func (s *simStore) Terms(context.Context) ([]federation.Terms, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return sorted(s.terms, func(a, b federation.Terms) int { return strings.Compare(a.List, b.List) }), nil
}

// SavePeer implements federation.Peers.
func (s *simStore) SavePeer(_ context.Context, p federation.Peer) error {
	s.check(p.Inbox != "" && len(p.Trouble) <= 1000 && utf8.ValidString(p.Trouble), "peer %+v", p)
	s.moment("time of the first failure", p.Failing, false)
	return s.write(func() error { s.peers[p.Inbox] = p; return nil })
}

// Peers implements federation.Peers.
func (s *simStore) Peers(context.Context) ([]federation.Peer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return sorted(s.peers, func(a, b federation.Peer) int { return strings.Compare(a.Inbox, b.Inbox) }), nil
}

// SaveKeys implements federation.Peers.
func (s *simStore) SaveKeys(_ context.Context, all []federation.Key) error {
	for _, k := range all {
		s.check(k.Method == k.Issuer+"#"+federation.Multikey(k.Public), "key %+v", k)
		s.moment("time of first sight", k.Seen, true)
		s.moment("time of expiry", k.Expires, false)
		s.moment("time of revocation", k.Revoked, false)
	}
	return s.write(func() error {
		for _, k := range all {
			s.keys[k.Method] = k
		}
		return nil
	})
}

// Keys implements federation.Peers.
func (s *simStore) Keys(context.Context) ([]federation.Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return sorted(s.keys, func(a, b federation.Key) int {
		return cmp.Or(strings.Compare(a.Issuer, b.Issuer), strings.Compare(a.Method, b.Method))
	}), nil
}

func sorted[K comparable, V any](m map[K]V, by func(a, b V) int) []V {
	return slices.SortedFunc(maps.Values(m), by)
}
