package store_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/store"
)

// The longest that is allowed, and what other programs call themselves.
var (
	longList    = "https://long.example/lists/" + strings.Repeat("x", hashlist.MaxIRI-len("https://long.example/lists/"))
	longTrouble = strings.Repeat("ü", 500)
	blog        = "https://blog.example/?author=1&x=');DROP/**/TABLE/**/follows;--"
)

func follow(list string) federation.Follow {
	return federation.Follow{
		List: list, ID: "https://here.example/follows/1#x", State: federation.FollowAccepted, Most: hashlist.VerdictHold,
		Asked: received, Answered: received.Add(time.Microsecond), Skipped: math.MaxInt64, Trouble: longTrouble,
		Actor: bytes.Repeat([]byte{0, 255}, 32<<10), Head: bytes.Repeat([]byte{'\n', 128}, 2<<10),
	}
}

func follower(list, actor string) federation.Follower {
	return federation.Follower{
		List: list, Actor: actor, Inbox: "https://blog.example/inbox?shared", Follow: "https://blog.example/ä#follows/1",
		State: federation.FollowerApproved, Asked: received, Decided: received.Add(time.Hour), Told: true, Position: math.MaxInt64,
	}
}

func peer(inbox string) federation.Peer {
	return federation.Peer{Inbox: inbox, Failing: received, Failures: math.MaxUint32, Retired: true, Trouble: longTrouble}
}

// key makes the nth key of an issuer, always the same.
func key(issuer string, n byte) federation.Key {
	public := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize)).Public().(ed25519.PublicKey)
	return federation.Key{
		Issuer: issuer, Method: issuer + "#" + federation.Multikey(public), Public: public,
		Seen: received, Expires: received.Add(time.Hour), Revoked: time.UnixMicro(1).UTC(),
	}
}

const issuerA, issuerB = "https://alice.example/users/admin", "https://bob.example/users/bob"

// kept is all that is kept about peers.
type kept struct {
	Follows   []federation.Follow
	Followers []federation.Follower
	Peers     []federation.Peer
	Keys      []federation.Key
	Marks     []federation.KeyMark
	Terms     []federation.Terms
}

func readKept(t testing.TB, db federation.Peers) (k kept) {
	t.Helper()
	var errs [6]error
	k.Follows, errs[0] = db.Follows(t.Context())
	k.Followers, errs[1] = db.Followers(t.Context())
	k.Peers, errs[2] = db.Peers(t.Context())
	k.Keys, errs[3] = db.Keys(t.Context())
	k.Marks, errs[4] = db.KeyMarks(t.Context())
	k.Terms, errs[5] = db.Terms(t.Context())
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	return k
}

func wantKept(t testing.TB, db federation.Peers, want kept) {
	t.Helper()
	if diff := gocmp.Diff(want, readKept(t, db)); diff != "" {
		t.Fatalf("want -, got +:\n%s", diff)
	}
}

func saveKept(t testing.TB, db federation.Peers, k kept) {
	t.Helper()
	var errs []error
	for _, f := range k.Follows {
		errs = append(errs, db.SaveFollow(t.Context(), f))
	}
	for _, f := range k.Followers {
		errs = append(errs, db.SaveFollower(t.Context(), f))
	}
	for _, p := range k.Peers {
		errs = append(errs, db.SavePeer(t.Context(), p))
	}
	errs = append(errs, db.SaveKeys(t.Context(), k.Keys))
	for _, m := range k.Marks {
		errs = append(errs, db.SaveKeyMark(t.Context(), m))
	}
	for _, v := range k.Terms {
		errs = append(errs, db.SaveTerms(t.Context(), v))
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// full has every field filled, and beside each the least that is allowed, in
// the order in which they are to be read.
func full() kept {
	return kept{
		Follows: []federation.Follow{
			follow(listA),
			{List: listB, ID: "a", State: federation.FollowAsked, Most: hashlist.VerdictAllow, Asked: time.UnixMicro(1).UTC()},
			follow(longList),
		},
		Followers: []federation.Follower{
			{List: listA, Actor: "A", Inbox: "a", Follow: "a", State: federation.FollowerAsked, Asked: received},
			follower(listA, blog),
			follower(listA, blog+"ü"),
			follower(listB, blog),
			follower(longList, strings.Repeat("x", hashlist.MaxIRI)),
		},
		Peers: []federation.Peer{{Inbox: "a"}, peer(blog), peer(strings.Repeat("x", hashlist.MaxIRI))},
		Keys: slices.SortedFunc(slices.Values([]federation.Key{
			key(issuerA, 1), key(issuerA, 2), key(issuerB, 1), key(longList, 3),
			{Issuer: issuerB, Method: key(issuerB, 4).Method, Public: key(issuerB, 4).Public, Seen: received},
		}), func(a, b federation.Key) int {
			return cmp.Or(strings.Compare(a.Issuer, b.Issuer), strings.Compare(a.Method, b.Method))
		}),
		Marks: []federation.KeyMark{
			{Issuer: issuerA, Method: issuerA + "#a", State: federation.KeyBacked, At: received, Old: issuerA + "#b", Proof: strings.Repeat("z", 128)},
			{Issuer: issuerB, Method: issuerB + "#a", State: federation.KeyVerified, At: received, Who: strings.Repeat("ü", 64)},
			{Issuer: longList, Method: longList + "#", State: federation.KeyDoubted, At: time.UnixMicro(1).UTC()},
		},
		Terms: []federation.Terms{{List: listA, ByTrust: true}, {List: listB, TrustOnly: true}, {List: longList}},
	}
}

func TestPeersRoundTrip(t *testing.T) {
	eachBackend(t, func(t *testing.T, db *store.DB, reopen func() *store.DB) {
		wantKept(t, db, kept{}) // a new database has none
		want := full()
		backwards := full()
		slices.Reverse(backwards.Follows)
		slices.Reverse(backwards.Followers)
		slices.Reverse(backwards.Peers)
		slices.Reverse(backwards.Keys)
		saveKept(t, db, backwards)
		wantKept(t, db, want)
		saveKept(t, db, want) // each in its own place
		for range 2 {
			wantKept(t, db, want)
			if err := db.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			db = reopen()
		}
	})
}

// Whatever is saved over, nothing of what was there before shows through.
func TestPeersReplace(t *testing.T) {
	eachBackend(t, func(t *testing.T, db *store.DB, reopen func() *store.DB) {
		saveKept(t, db, full())
		want := full()
		want.Follows[0] = federation.Follow{List: listA, ID: "other", State: federation.FollowDiverged, Most: hashlist.VerdictReject, Asked: received.Add(1e6)}
		want.Followers[1] = federation.Follower{List: listA, Actor: blog, Inbox: "other", Follow: "other", State: federation.FollowerLeft, Asked: received.Add(1e6)}
		want.Peers[1] = federation.Peer{Inbox: blog}
		k := &want.Keys[0]
		*k = federation.Key{Issuer: k.Issuer, Method: k.Method, Public: k.Public, Seen: received.Add(1e6)}
		want.Marks[0] = federation.KeyMark{Issuer: issuerA, Method: issuerA + "#a", State: federation.KeyVerified, At: received.Add(1e6)}
		want.Terms[0] = federation.Terms{List: listA, TrustOnly: true}
		saveKept(t, db, kept{want.Follows[:1], want.Followers[1:2], want.Peers[1:2], want.Keys[:1], want.Marks[:1], want.Terms[:1]})
		wantKept(t, db, want)
		saveKept(t, db, full()) // and back
		wantKept(t, db, full())

		// Of two of one Method the later counts.
		twice := full().Keys[0]
		twice.Revoked = received
		if err := db.SaveKeys(t.Context(), []federation.Key{full().Keys[0], twice}); err != nil {
			t.Fatal(err)
		}
		want = full()
		want.Keys[0] = twice
		db.Close()
		wantKept(t, reopen(), want)
	})
}

func TestPeersTimes(t *testing.T) {
	eachBackend(t, func(t *testing.T, db *store.DB, _ func() *store.DB) {
		f := follow(listA)
		f.Asked = received.Add(999 * time.Nanosecond).In(time.FixedZone("", 3600))
		f.Answered = time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC)
		if err := db.SaveFollow(t.Context(), f); err != nil {
			t.Fatal(err)
		}
		f.Asked, f.Answered = received, f.Answered.Truncate(time.Microsecond)
		wantKept(t, db, kept{Follows: []federation.Follow{f}})
	})
}

func TestPeersRefuse(t *testing.T) {
	eachBackend(t, func(t *testing.T, db *store.DB, _ func() *store.DB) {
		saveKept(t, db, full())
		ctx := t.Context()
		follow := func(spoil func(*federation.Follow)) error {
			f := full().Follows[0]
			f.Skipped = 7 // to see that nothing of it is stored
			spoil(&f)
			return db.SaveFollow(ctx, f)
		}
		follower := func(spoil func(*federation.Follower)) error {
			f := full().Followers[1]
			f.Position = 7
			spoil(&f)
			return db.SaveFollower(ctx, f)
		}
		peer := func(spoil func(*federation.Peer)) error {
			p := full().Peers[1]
			p.Failures = 7
			spoil(&p)
			return db.SavePeer(ctx, p)
		}
		key := func(spoil func(*federation.Key)) error { // with good ones before and behind
			all := full().Keys
			for i := range all {
				all[i].Seen = received.Add(time.Hour)
			}
			spoil(&all[1])
			return db.SaveKeys(ctx, all)
		}
		last := time.Date(9999, 12, 31, 23, 59, 59, 1e9-1, time.UTC)
		for name, err := range map[string]error{
			"no list":            follow(func(f *federation.Follow) { f.List = "" }),
			"list of another":    follow(func(f *federation.Follow) { f.List = "acct:x@y" }),
			"long list":          follow(func(f *federation.Follow) { f.List = longList + "x" }),
			"SQL":                follow(func(f *federation.Follow) { f.List = "' OR '1'='1" }),
			"NUL in list":        follow(func(f *federation.Follow) { f.List += "\x00" }),
			"no id":              follow(func(f *federation.Follow) { f.ID = "" }),
			"long id":            follow(func(f *federation.Follow) { f.ID = strings.Repeat("x", hashlist.MaxIRI+1) }),
			"id of two lines":    follow(func(f *federation.Follow) { f.ID = "a\nb" }),
			"id with NUL":        follow(func(f *federation.Follow) { f.ID = "a\x00b" }),
			"id not UTF-8":       follow(func(f *federation.Follow) { f.ID = "a\xff" }),
			"no state":           follow(func(f *federation.Follow) { f.State = 0 }),
			"unknown state":      follow(func(f *federation.Follow) { f.State = federation.FollowDiverged + 1 }),
			"no verdict":         follow(func(f *federation.Follow) { f.Most = 0 }),
			"unknown verdict":    follow(func(f *federation.Follow) { f.Most = hashlist.VerdictReject + 1 }),
			"not asked":          follow(func(f *federation.Follow) { f.Asked = time.Time{} }),
			"asked in 1969":      follow(func(f *federation.Follow) { f.Asked = time.Unix(-1, 0) }),
			"answered too late":  follow(func(f *federation.Follow) { f.Answered = last.Add(1) }),
			"skipped":            follow(func(f *federation.Follow) { f.Skipped = 1 << 63 }),
			"long actor":         follow(func(f *federation.Follow) { f.Actor = make([]byte, 64<<10+1) }),
			"long head":          follow(func(f *federation.Follow) { f.Head = make([]byte, 4<<10+1) }),
			"long trouble":       follow(func(f *federation.Follow) { f.Trouble += "x" }),
			"trouble not UTF-8":  follow(func(f *federation.Follow) { f.Trouble = "\xc3" }),
			"trouble with NUL":   follow(func(f *federation.Follow) { f.Trouble = "\x00" }),
			"no follower's list": follower(func(f *federation.Follower) { f.List = "" }),
			"no actor":           follower(func(f *federation.Follower) { f.Actor = "" }),
			"actor not UTF-8":    follower(func(f *federation.Follower) { f.Actor += "\xff" }),
			"long inbox":         follower(func(f *federation.Follower) { f.Inbox = strings.Repeat("x", hashlist.MaxIRI+1) }),
			"no follow":          follower(func(f *federation.Follower) { f.Follow = "" }),
			"no decision":        follower(func(f *federation.Follower) { f.State = 0 }),
			"unknown decision":   follower(func(f *federation.Follower) { f.State = federation.FollowerLeft + 1 }),
			"never asked":        follower(func(f *federation.Follower) { f.Asked = time.Time{} }),
			"decided in 1970":    follower(func(f *federation.Follower) { f.Decided = time.Unix(0, 999) }),
			"position":           follower(func(f *federation.Follower) { f.Position = 1 << 63 }),
			"no inbox":           peer(func(p *federation.Peer) { p.Inbox = "" }),
			"inbox with a blank": peer(func(p *federation.Peer) { p.Inbox += " " }),
			"failing in 10000":   peer(func(p *federation.Peer) { p.Failing = last.Add(1) }),
			"long failure":       peer(func(p *federation.Peer) { p.Trouble += "x" }),
			"no issuer":          key(func(k *federation.Key) { k.Issuer, k.Method = "", strings.TrimPrefix(k.Method, k.Issuer) }),
			"another's method":   key(func(k *federation.Key) { k.Issuer = issuerB }),
			"another key":        key(func(k *federation.Key) { k.Public = bytes.Repeat([]byte{1}, 32) }),
			"no key":             key(func(k *federation.Key) { k.Public = nil }),
			"long key":           key(func(k *federation.Key) { k.Public = append(bytes.Clone(k.Public), 0) }),
			"no fragment":        key(func(k *federation.Key) { k.Method = k.Issuer }),
			"method not UTF-8":   key(func(k *federation.Key) { k.Method += "\xff" }),
			"never seen":         key(func(k *federation.Key) { k.Seen = time.Time{} }),
			"expired in 1970":    key(func(k *federation.Key) { k.Expires = time.Unix(0, 0) }),
			"revoked in 1970":    key(func(k *federation.Key) { k.Revoked = time.Unix(0, 0) }),
			"revoked in -5":      key(func(k *federation.Key) { k.Revoked = time.Date(-5, 1, 1, 0, 0, 0, 0, time.UTC) }),
			"positions": db.SavePositions(ctx, []federation.Follower{
				{List: listA, Actor: blog, Position: 7}, {List: listB, Actor: blog, Position: 1 << 63},
			}),
		} {
			if err == nil {
				t.Errorf("%s: accepted", name)
			} else if !strings.HasPrefix(err.Error(), "save ") || len(err.Error()) > 500 {
				t.Errorf("%s: %v", name, err)
			}
		}
		wantKept(t, db, full())
	})
}

func TestSavePositions(t *testing.T) {
	eachBackend(t, func(t *testing.T, db *store.DB, reopen func() *store.DB) {
		saveKept(t, db, full())
		want := full()
		want.Followers[1].Position, want.Followers[3].Position = 0, 12
		at := []federation.Follower{
			{List: listA, Actor: blog, Position: 99},
			{List: listB, Actor: "A", Position: 1}, // of another list
			{List: "\x00\xff", Actor: "' OR '1'='1", Position: 2},
			{},
			{List: listB, Actor: blog, Position: 12, Inbox: "not looked at", State: 77},
			{List: listA, Actor: blog},
		}
		if err := db.SavePositions(t.Context(), at); err != nil {
			t.Fatal(err)
		}
		if err := db.SavePositions(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		wantKept(t, db, want)
		db.Close()
		wantKept(t, reopen(), want)
	})
}

// Many write at once; each row is as one of them left it, and a batch of keys is
// whole at any moment.
func TestPeersConcurrently(t *testing.T) {
	eachBackend(t, func(t *testing.T, db *store.DB, _ func() *store.DB) {
		const writers, rounds = 4, 12
		ctx := t.Context()
		saveKept(t, db, full())
		var writing, reading sync.WaitGroup
		for w := range writers {
			writing.Go(func() {
				r := rand.New(rand.NewPCG(uint64(w), 1))
				for i := range rounds {
					n := uint64(w*rounds + i)
					own := fmt.Sprintf("https://w%d.example/lists/x", w)
					f, g, p, keys := follow(own), follower(listA, blog), peer(own), full().Keys
					f.Skipped, g.Position, p.Failures = n, n, uint32(n)
					for i := range keys {
						keys[i].Seen = received.Add(time.Duration(n) * time.Second)
					}
					err := errors.Join(db.SaveFollow(ctx, f), db.SaveFollower(ctx, g), db.SavePeer(ctx, p), db.SaveKeys(ctx, keys),
						db.SavePositions(ctx, []federation.Follower{{List: listB, Actor: blog, Position: n}}))
					if err != nil {
						t.Error(err)
						return
					}
					if r.IntN(4) == 0 {
						if _, err := db.Follows(ctx); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		done := make(chan struct{})
		reading.Go(func() {
			for running := true; running; {
				select {
				case <-done:
					running = false
				default:
				}
				keys, err := db.Keys(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				for _, k := range keys {
					if k.Seen != keys[0].Seen {
						t.Errorf("half a batch of keys: %v and %v", k.Seen, keys[0].Seen)
						return
					}
				}
			}
		})
		writing.Wait()
		close(done)
		reading.Wait()
		got := readKept(t, db)
		if len(got.Follows) != len(full().Follows)+writers || len(got.Followers) != len(full().Followers) || len(got.Peers) != len(full().Peers)+writers {
			t.Fatalf("%d follows, %d followers, %d peers", len(got.Follows), len(got.Followers), len(got.Peers))
		}
		for _, f := range got.Follows {
			var w int
			if n, _ := fmt.Sscanf(f.List, "https://w%d.example", &w); n == 1 && f.Skipped != uint64(w*rounds+rounds-1) {
				t.Errorf("writer %d last saved another than %d", w, f.Skipped)
			}
		}
		if err := db.Check(ctx); err != nil {
			t.Fatal(err)
		}
	})
}

func TestPeersCancelledAndClosed(t *testing.T) {
	eachBackend(t, func(t *testing.T, db *store.DB, reopen func() *store.DB) {
		saveKept(t, db, full())
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		all := func(ctx context.Context) map[string]error {
			_, follows := db.Follows(ctx)
			_, followers := db.Followers(ctx)
			_, peers := db.Peers(ctx)
			_, keys := db.Keys(ctx)
			_, leaves := db.Leaves(ctx, listA, 0)
			return map[string]error{
				"follows": follows, "followers": followers, "peers": peers, "keys": keys, "leaves": leaves,
				"save follow":    db.SaveFollow(ctx, follow("https://new.example/lists/x")),
				"save follower":  db.SaveFollower(ctx, follower("https://new.example/lists/x", "x")),
				"save positions": db.SavePositions(ctx, []federation.Follower{{List: listA, Actor: blog, Position: 7}}),
				"save peer":      db.SavePeer(ctx, peer("new")),
				"save keys":      db.SaveKeys(ctx, []federation.Key{key(issuerA, 77)}),
				"append leaves":  db.AppendLeaves(ctx, listA, 0, make([][32]byte, 3)),
				"drop leaves":    db.DropLeaves(ctx, listA),
			}
		}
		for name, err := range all(ctx) {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", name, err)
			}
		}
		wantKept(t, db, full())
		db.Close()
		for name, err := range all(t.Context()) {
			if err == nil {
				t.Errorf("%s: on a closed database", name)
			}
		}
		wantKept(t, reopen(), full())
	})
}

func TestTrustRefuses(t *testing.T) {
	eachBackend(t, func(t *testing.T, db *store.DB, _ func() *store.DB) {
		saveKept(t, db, full())
		for name, spoil := range map[string]func(*federation.KeyMark){
			"no issuer":           func(m *federation.KeyMark) { m.Issuer = "" },
			"another's key":       func(m *federation.KeyMark) { m.Method = issuerB + "#a" },
			"backed by another's": func(m *federation.KeyMark) { m.Old = issuerB + "#a" },
			"no state":            func(m *federation.KeyMark) { m.State = 0 },
			"a state of tomorrow": func(m *federation.KeyMark) { m.State = 4 },
			"no time":             func(m *federation.KeyMark) { m.At = time.Time{} },
			"a long name":         func(m *federation.KeyMark) { m.Who = strings.Repeat("x", 129) },
			"a proof without end": func(m *federation.KeyMark) { m.Proof = strings.Repeat("x", 129) },
			"a key without end":   func(m *federation.KeyMark) { m.Method = issuerA + "#" + strings.Repeat("x", 700) },
		} {
			m := full().Marks[0]
			if spoil(&m); db.SaveKeyMark(t.Context(), m) == nil {
				t.Errorf("%s was saved", name)
			}
		}
		if err := db.SaveTerms(t.Context(), federation.Terms{List: "x"}); err == nil {
			t.Error("terms of no list were saved")
		}
		wantKept(t, db, full())
	})
}
