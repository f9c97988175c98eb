package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/store"
)

// peersSample makes a closed database of all that is kept about peers, 250
// leaves of a list and 3 of another, and returns its bytes.
func peersSample(t testing.TB) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log.db")
	db, err := store.Create(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	saveKept(t, db, full())
	mustAppendLeaves(t, db, listA, 0, 250)
	mustAppendLeaves(t, db, listB, 0, 3)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Bits that fall over inside a value are no concern of SQLite's. They are found
// when the value is read, appended to or checked.
func TestPeersDecayedBytes(t *testing.T) {
	good := peersSample(t)
	first, middle, last := leaf(listA, 0), leaf(listA, 130), leaf(listA, 249)
	k := full().Keys[2]
	leavesOf := func(from uint64) func(*store.DB) error {
		return func(db *store.DB) error { _, err := db.Leaves(t.Context(), listA, from); return err }
	}
	readFollows := func(db *store.DB) error { _, err := db.Follows(t.Context()); return err }
	readKeys := func(db *store.DB) error { _, err := db.Keys(t.Context()); return err }
	for name, c := range map[string]struct {
		value []byte
		at    int
		reads []func(*store.DB) error
	}{
		"first leaf":  {first[:], 0, []func(*store.DB) error{leavesOf(0)}},
		"middle leaf": {middle[:], 31, []func(*store.DB) error{leavesOf(0), leavesOf(200)}},
		"last leaf": {last[:], 16, []func(*store.DB) error{leavesOf(0), leavesOf(249), leavesOf(0), func(db *store.DB) error {
			// What has decayed must not get a fresh checksum.
			return db.AppendLeaves(t.Context(), listA, 250, make([][32]byte, 1))
		}}},
		"public key": {k.Public, 5, []func(*store.DB) error{readKeys}},
		"head":       {follow(listA).Head[:64], 20, []func(*store.DB) error{readFollows}},
		"actor":      {follow(listA).Actor[:64], 20, []func(*store.DB) error{readFollows}},
	} {
		t.Run(name, func(t *testing.T) {
			b := bytes.Clone(good)
			at := bytes.LastIndex(b, c.value) // where pages moved, old copies may lie about before
			if at < 0 {
				t.Fatal("value not found in the file")
			}
			for at := range len(b) {
				if bytes.HasPrefix(b[at:], c.value) {
					b[at+c.at] ^= 0x10
				}
			}
			path := filepath.Join(t.TempDir(), "log.db")
			write(t, path, b)
			db, err := store.Open(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			for i, read := range append(c.reads, func(db *store.DB) error { return db.Check(t.Context()) }) {
				if err := read(db); err == nil || !strings.Contains(err.Error(), "restore a backup") || !strings.Contains(err.Error(), "damaged") {
					t.Errorf("look %d: %v", i, err)
				}
			}
			// What is beside it can still be read.
			wantLeaves(t, db, listB, 0, 3)
		})
	}
}

// What SQL can change without damage to the file is found as well.
func TestPeersChangedRows(t *testing.T) {
	good := peersSample(t)
	for _, query := range []string{
		"UPDATE follows SET most = 4 WHERE list = '" + listA + "'",
		"UPDATE follows SET state = 5 WHERE list = '" + listB + "'",
		"UPDATE follows SET list = 'https://alice.example/lists/x' WHERE list = '" + listA + "'",
		"UPDATE follows SET answered = 0",
		"UPDATE follows SET asked = -1",
		"UPDATE follows SET skipped = -1",
		"UPDATE follows SET actor = x'' WHERE list = '" + listA + "'",
		"UPDATE follows SET head = actor, actor = head",
		"UPDATE follows SET trouble = CAST(x'ff' AS TEXT)",
		"UPDATE follows SET actor = zeroblob(50000000)",
		"UPDATE followers SET state = 2",
		"UPDATE followers SET position = 5",
		"UPDATE followers SET told = 2",
		"UPDATE followers SET told = 1 - told",
		"UPDATE followers SET inbox = 'https://mallory.example/inbox'",
		"UPDATE peers SET retired = 1 - retired",
		"UPDATE peers SET failures = -1",
		"UPDATE peers SET failures = 4294967296",
		"UPDATE peers SET failing = 9e15",
		"UPDATE keys SET revoked = 0",
		"UPDATE keys SET public = zeroblob(32)",
		"UPDATE keys SET public = x''",
		"UPDATE keys SET issuer = 'https://mallory.example/users/m' WHERE issuer = '" + issuerA + "'",
		"UPDATE keys SET sum = sum + 1",
		"DELETE FROM leaves WHERE list = '" + listA + "' AND place = 0",
		"DELETE FROM leaves WHERE list = '" + listA + "' AND place = 120",
		"UPDATE leaves SET place = 121 WHERE list = '" + listA + "' AND place = 120",
		"UPDATE leaves SET place = -1 WHERE place = 120; UPDATE leaves SET place = 120 WHERE place = 0 AND list = '" + listA + "'; UPDATE leaves SET place = 0 WHERE place = -1",
		"UPDATE leaves SET list = '" + listB + "2' WHERE list = '" + listB + "'",
		"UPDATE leaves SET hashes = x''",
		"UPDATE leaves SET hashes = zeroblob(50000000) WHERE list = '" + listB + "'",
		"UPDATE leaves SET hashes = substr(hashes, 1, 33)",
		"UPDATE leaves SET hashes = substr(hashes, 1, 32) WHERE list = '" + listB + "'",
		"UPDATE leaves SET place = -1 WHERE list = '" + listB + "'",
	} {
		t.Run(query, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log.db")
			write(t, path, good)
			raw(t, path, query)
			db, err := store.Open(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if err := db.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "restore a backup") {
				t.Fatal(err)
			}
			if strings.Contains(query, " leaves ") {
				_, a := db.Leaves(t.Context(), listA, 0)
				_, b := db.Leaves(t.Context(), listB, 0)
				if errors.Join(a, b) == nil && !strings.Contains(query, listB+"2") { // which looks as if dropped
					t.Error("the leaves were read all the same")
				}
			}
		})
	}
}

// A row of another program's, or of one with other rules, is not taken over
// because its sum fits.
func TestPeersFittingSums(t *testing.T) {
	k := key(issuerA, 1)
	for name, c := range map[string]struct {
		insert string
		values []any
	}{
		"inbox":  {"peers (inbox, failing, failures, retired, trouble, sum)", []any{"a\nb", int64(0), int64(0), int64(0), ""}},
		"issuer": {"keys (issuer, method, public, seen, expires, revoked, sum)", []any{issuerB, k.Method, []byte(k.Public), int64(1), int64(0), int64(0)}},
		"key":    {"keys (issuer, method, public, seen, expires, revoked, sum)", []any{issuerA, k.Method, make([]byte, 31), int64(1), int64(0), int64(0)}},
		"unseen": {"keys (issuer, method, public, seen, expires, revoked, sum)", []any{issuerA, k.Method, []byte(k.Public), int64(0), int64(0), int64(0)}},
		"state":  {"followers (list, actor, inbox, follow, state, asked, decided, told, position, sum)", []any{listA, "a", "a", "a", int64(5), int64(1), int64(0), int64(0), int64(0)}},
		"leaves": {"leaves (list, place, hashes, sum)", []any{listA, int64(0), make([]byte, 33)}},
		"place":  {"leaves (list, place, hashes, sum)", []any{listA, int64(-1), make([]byte, 32)}},
		"none":   {"leaves (list, place, hashes, sum)", []any{listA, int64(0), []byte{}}},
	} {
		t.Run(name, func(t *testing.T) {
			db, _ := createSQLite(t)
			var places []string
			for i := range len(c.values) + 1 {
				places = append(places, fmt.Sprintf("$%d", i+1))
			}
			if _, err := db.Writer().Exec("INSERT INTO "+c.insert+" VALUES ("+strings.Join(places, ", ")+")", append(c.values, store.RowSum(c.values...))...); err != nil {
				t.Fatal(err)
			}
			if err := db.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "restore a backup") || strings.Contains(err.Error(), "checksum") {
				t.Fatal(err)
			}
		})
	}
}

// Types are SQLite's to keep: a row of the wrong ones does not even get in.
func TestPeersStrict(t *testing.T) {
	db, _ := createSQLite(t)
	saveKept(t, db, full())
	for _, query := range []string{
		"UPDATE follows SET asked = 'noon'", "UPDATE follows SET actor = 'text'", "UPDATE followers SET told = NULL",
		"UPDATE keys SET public = 'text'", "INSERT INTO leaves VALUES ('x', 'y', 0, x'')", "INSERT INTO leaves VALUES (NULL, 0, 0, x'')",
	} {
		if _, err := db.Writer().Exec(query); err == nil {
			t.Errorf("%s: accepted", query)
		}
	}
}

// Rows as databases in the field have them. If a sum comes out otherwise, admins
// are told that their databases are damaged.
func TestPeersRowsAreFrozen(t *testing.T) {
	db, _ := createSQLite(t)
	for _, query := range []string{
		`INSERT INTO follows (list, id, state, most, asked, answered, skipped, trouble, head, actor, sum)
			VALUES ('https://alice.example/lists/spam', 'id', 2, 3, 1, 2, 3, 'ü', x'00ff', x'', 7798845261491500336)`,
		`INSERT INTO followers (list, actor, inbox, follow, state, asked, decided, told, position, sum)
			VALUES ('https://alice.example/lists/spam', 'a', 'i', 'f', 2, 1, 0, 1, 7, -7011758972391829842)`,
		`INSERT INTO peers (inbox, failing, failures, retired, trouble, sum) VALUES ('i', 1, 2, 1, '', -1925604316419486742)`,
		`INSERT INTO keys (issuer, method, public, seen, expires, revoked, sum) VALUES ('https://alice.example/users/admin',
			'https://alice.example/users/admin#z6MkeTG3bFFSLYVU7VqhgZxqr6YzpaGrQtFMh1uvqGy1vDnP',
			x'0000000000000000000000000000000000000000000000000000000000000000', 1, 0, 2, -4973765230395865318)`,
		`INSERT INTO leaves (list, place, sum, hashes) VALUES ('https://alice.example/lists/spam', 0, -3788347760836629634,
			x'6100000000000000000000000000000000000000000000000000000000000062')`,
	} {
		if _, err := db.Writer().Exec(query); err != nil {
			t.Fatal(err)
		}
	}
	wantKept(t, db, kept{
		Follows: []federation.Follow{{List: listA, ID: "id", State: federation.FollowAccepted, Most: hashlist.VerdictHold,
			Asked: time.UnixMicro(1).UTC(), Answered: time.UnixMicro(2).UTC(), Skipped: 3, Trouble: "ü", Head: []byte{0, 255}}},
		Followers: []federation.Follower{{List: listA, Actor: "a", Inbox: "i", Follow: "f", State: federation.FollowerApproved,
			Asked: time.UnixMicro(1).UTC(), Told: true, Position: 7}},
		Peers: []federation.Peer{{Inbox: "i", Failing: time.UnixMicro(1).UTC(), Failures: 2, Retired: true}},
		Keys: []federation.Key{{Issuer: issuerA, Method: issuerA + "#" + federation.Multikey(make([]byte, 32)), Public: make([]byte, 32),
			Seen: time.UnixMicro(1).UTC(), Revoked: time.UnixMicro(2).UTC()}},
	})
	got, err := db.Leaves(t.Context(), listA, 0)
	if want := [32]byte{0: 'a', 31: 'b'}; err != nil || len(got) != 1 || got[0] != want {
		t.Fatalf("%d leaves, %v", len(got), err)
	}
}

// FuzzOpenPeers overwrites some bytes of a database. It may be refused or found
// damaged when it is read; it must not panic, hang, or yield what was never saved.
func FuzzOpenPeers(f *testing.F) {
	good := peersSample(f)
	for _, value := range [][]byte{full().Keys[0].Public, []byte(issuerA), []byte(blog), full().Follows[0].Head[:8]} {
		for at := bytes.Index(good, value); at >= 0 && at < len(good); at += 1 + len(good) { // the first
			for _, before := range []int{0, 1, 5, 9} {
				f.Add(uint32(at-before), []byte{0xff, 0x00, 0x7f})
			}
		}
	}
	for page := 4096; page < len(good); page += 3 * 4096 {
		f.Add(uint32(page+3), []byte{0, 1})
		f.Add(uint32(page+8), []byte{0xff})
	}
	saved := make(map[string]bool)
	remember := func(k kept) (all []string) {
		for _, v := range k.Follows {
			all = append(all, fmt.Sprintf("%#v", v))
		}
		for _, v := range k.Followers {
			all = append(all, fmt.Sprintf("%#v", v))
		}
		for _, v := range k.Peers {
			all = append(all, fmt.Sprintf("%#v", v))
		}
		for _, v := range k.Keys {
			all = append(all, fmt.Sprintf("%#v", v))
		}
		return all
	}
	for _, v := range remember(full()) {
		saved[v] = true
	}
	f.Fuzz(func(t *testing.T, off uint32, patch []byte) {
		b := bytes.Clone(good)
		copy(b[int(off)%len(b):], patch)
		path := filepath.Join(t.TempDir(), "log.db")
		write(t, path, b)
		db, err := store.Open(t.Context(), path)
		if err != nil {
			return
		}
		defer db.Close()
		var k kept // what cannot be read is nil
		k.Follows, _ = db.Follows(t.Context())
		k.Followers, _ = db.Followers(t.Context())
		k.Peers, _ = db.Peers(t.Context())
		k.Keys, _ = db.Keys(t.Context())
		for _, v := range remember(k) {
			if !saved[v] {
				t.Fatalf("never saved: %.300s", v)
			}
		}
		for list, n := range map[string]uint64{listA: 250, listB: 3} {
			for _, from := range []uint64{0, 2, 125} {
				got, err := db.Leaves(t.Context(), list, from)
				if err != nil {
					continue
				}
				if uint64(len(got)) > n {
					t.Fatalf("%d leaves", len(got))
				}
				for i, l := range got {
					if l != leaf(list, from+uint64(i)) {
						t.Fatalf("leaf %d was never appended", from+uint64(i))
					}
				}
			}
		}
		db.SavePositions(t.Context(), full().Followers)
		db.AppendLeaves(t.Context(), listA, 250, make([][32]byte, 2))
	})
}
