package store_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/store"
)

// leaf is the nth leaf of a list, always the same.
func leaf(list string, n uint64) [32]byte {
	return sha256.Sum256(binary.BigEndian.AppendUint64([]byte(list), n))
}

func leaves(list string, from, n uint64) [][32]byte {
	all := make([][32]byte, n)
	for i := range all {
		all[i] = leaf(list, from+uint64(i))
	}
	return all
}

func mustAppendLeaves(t testing.TB, db federation.Peers, list string, at, n uint64) {
	t.Helper()
	if err := db.AppendLeaves(t.Context(), list, at, leaves(list, at, n)); err != nil {
		t.Fatal(err)
	}
}

func wantLeaves(t testing.TB, db federation.Peers, list string, from, n uint64) {
	t.Helper()
	got, err := db.Leaves(t.Context(), list, from)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, leaves(list, from, n)) {
		t.Fatalf("%d leaves of %.40s from %d are not the %d that were appended", len(got), list, from, n)
	}
}

func TestLeaves(t *testing.T) {
	eachBackend(t, func(t *testing.T, db *store.DB, reopen func() *store.DB) {
		r := seeded(t)
		tricky := "https://alice.example/lists/'--" // beside listA in every order
		count := map[string]uint64{listA: 0, tricky: 0, longList: 0}
		sizes := []uint64{0, 1, 1, 2, 3, 117, 119, 120, 121, 239, 240, 241, 1000}
		for _, n := range append(sizes, sizes...) {
			for list, at := range count {
				mustAppendLeaves(t, db, list, at, n)
				count[list] += n
			}
			if r.IntN(3) == 0 {
				sizes[r.IntN(len(sizes))] = r.Uint64N(300)
			}
		}
		for range 2 {
			for list, n := range count {
				for _, from := range []uint64{0, 1, 119, 120, 121, n - 121, n - 1, r.Uint64N(n), r.Uint64N(n), r.Uint64N(n)} {
					wantLeaves(t, db, list, from, n-from)
				}
				for _, from := range []uint64{n, n + 1, math.MaxInt64, math.MaxInt64 + 1, math.MaxUint64} {
					wantLeaves(t, db, list, from, 0)
				}
			}
			wantLeaves(t, db, listB, 0, 0)
			wantLeaves(t, db, "' OR '1'='1", 0, 0)
			if err := db.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
			db.Close()
			db = reopen()
		}
		// Followed anew: one list's leaves go, the others stay.
		for _, list := range []string{listA, listB, "' OR '1'='1"} {
			if err := db.DropLeaves(t.Context(), list); err != nil {
				t.Fatal(err)
			}
		}
		wantLeaves(t, db, listA, 0, 0)
		mustAppendLeaves(t, db, listA, 0, 5)
		wantLeaves(t, db, listA, 0, 5)
		wantLeaves(t, db, tricky, 0, count[tricky])
		wantLeaves(t, db, longList, 0, count[longList])
	})
}

func TestAppendLeavesElsewhere(t *testing.T) {
	eachBackend(t, func(t *testing.T, db *store.DB, _ func() *store.DB) {
		mustAppendLeaves(t, db, listA, 0, 130)
		for _, at := range []uint64{0, 1, 119, 120, 129, 131, 250, math.MaxInt64, math.MaxInt64 + 1, math.MaxUint64} {
			for _, n := range []uint64{0, 1, 200} {
				if err := db.AppendLeaves(t.Context(), listA, at, make([][32]byte, n)); err == nil || !strings.Contains(err.Error(), "there are 130") {
					t.Errorf("%d at %d: %v", n, at, err)
				}
			}
		}
		for _, at := range []uint64{1, math.MaxUint64} {
			if err := db.AppendLeaves(t.Context(), listB, at, make([][32]byte, 1)); err == nil {
				t.Errorf("the first at %d: accepted", at)
			}
		}
		for _, list := range []string{"", "x", longList + "x", listA + "\x00", listA + "\xff", "' OR '1'='1"} {
			if err := db.AppendLeaves(t.Context(), list, 0, make([][32]byte, 1)); err == nil {
				t.Errorf("list %q: accepted", list)
			}
		}
		wantLeaves(t, db, listA, 0, 130)
		wantLeaves(t, db, listB, 0, 0)
	})
}

// Of those who append at one place one wins, and the rest change nothing.
func TestAppendLeavesConcurrently(t *testing.T) {
	eachBackend(t, func(t *testing.T, db *store.DB, _ func() *store.DB) {
		const writers, total = 5, 900
		ctx := t.Context()
		own := func(w int) string { return fmt.Sprintf("https://w%d.example/lists/x", w) }
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(w), 2))
				if err := db.AppendLeaves(ctx, own(w), 0, leaves(own(w), 0, 300)); err != nil {
					t.Error(err)
					return
				}
				for {
					there, err := db.Leaves(ctx, listA, 0)
					if err != nil {
						t.Error(err)
						return
					}
					at := uint64(len(there))
					if !slices.Equal(there, leaves(listA, 0, at)) {
						t.Errorf("the %d leaves are not a beginning", at)
						return
					}
					if at == total {
						return
					}
					n := min(1+r.Uint64N(70), total-at)
					if err := db.AppendLeaves(ctx, listA, at, leaves(listA, at, n)); err != nil && !strings.Contains(err.Error(), "there are ") {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		for w := range writers {
			wantLeaves(t, db, own(w), 0, 300)
		}
		if err := db.Check(ctx); err != nil {
			t.Fatal(err)
		}
	})
}

// peersChild names the database that this process, run again by
// TestPeersKilled, is to write to until it is killed.
const peersChild = "TOCSIN_STORE_TEST_PEERS"

func TestPeersFill(t *testing.T) {
	path := os.Getenv(peersChild)
	if path == "" {
		return // only of use as a child of TestPeersKilled
	}
	ctx := context.Background()
	db, err := store.Open(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	there, err := db.Leaves(ctx, listA, 0)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(rand.Uint64(), 0))
	for at := uint64(len(there)); ; {
		n := 1 + r.Uint64N([]uint64{2, 50, 1000}[r.IntN(3)])
		if err := db.AppendLeaves(ctx, listA, at, leaves(listA, at, n)); err != nil {
			t.Fatal(err)
		}
		at += n
		f, keys := numbered(at)
		if _, err := fmt.Printf("leaves %d\n", at); err != nil {
			t.Fatal(err)
		}
		if err := db.SaveFollow(ctx, f); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Printf("follow %d\n", at); err != nil {
			t.Fatal(err)
		}
		if err := db.SaveKeys(ctx, keys); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Printf("keys %d\n", at); err != nil {
			t.Fatal(err)
		}
	}
}

// numbered makes a follow and keys that show which number they are, in every part.
func numbered(n uint64) (federation.Follow, []federation.Key) {
	f := follow(listA)
	f.Skipped, f.Trouble = n, fmt.Sprint(n)
	f.Head = bytes.Repeat([]byte{byte(n), byte(n >> 8)}, 1000)
	f.Actor = bytes.Repeat([]byte{byte(n), byte(n >> 8)}, 20_000)
	keys := full().Keys
	for i := range keys {
		keys[i].Seen = received.Add(time.Duration(n) * time.Second)
	}
	return f, keys
}

// A process that writes is killed at random moments. What it said it had saved
// is there, and what is there is whole.
func TestPeersKilled(t *testing.T) {
	const kills = 12
	r := seeded(t)
	path := filepath.Join(t.TempDir(), "log.db")
	db, err := store.Create(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	said := make(map[string]uint64)
	for kill := range kills {
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPeersFill$")
		child.Env = append(os.Environ(), peersChild+"="+path)
		child.Stderr = os.Stderr
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		wait, moment := r.IntN(30), time.Duration(r.IntN(10_000))*time.Microsecond
		lines := bufio.NewReader(out)
		for n := 0; ; n++ {
			line, err := lines.ReadString('\n')
			if err != nil {
				break
			}
			var what string
			var at uint64
			if _, err := fmt.Sscanf(line, "%s %d\n", &what, &at); err != nil {
				t.Fatalf("the child said %q", line)
			}
			said[what] = at
			if n == wait {
				timer := time.AfterFunc(moment, func() { child.Process.Kill() })
				defer timer.Stop()
			}
		}
		if err := child.Wait(); err == nil || child.ProcessState.Exited() {
			t.Fatalf("the child was not killed: %v", err)
		}
		db, err := store.Open(t.Context(), path)
		if err != nil {
			t.Fatalf("after kill %d: %v", kill+1, err)
		}
		got, err := db.Leaves(t.Context(), listA, 0)
		if err != nil {
			t.Fatal(err)
		}
		there := uint64(len(got))
		if there < said["leaves"] || !slices.Equal(got, leaves(listA, 0, there)) {
			t.Fatalf("after kill %d: %d leaves, %d were acknowledged", kill+1, there, said["leaves"])
		}
		k := readKept(t, db)
		if said["follow"] > 0 && (len(k.Follows) != 1 || k.Follows[0].Skipped < said["follow"]) {
			t.Fatalf("after kill %d: the follow acknowledged as %d is not there", kill+1, said["follow"])
		}
		if said["keys"] > 0 && (len(k.Keys) == 0 || k.Keys[0].Seen.Before(received.Add(time.Duration(said["keys"])*time.Second))) {
			t.Fatalf("after kill %d: the keys acknowledged as %d are not there", kill+1, said["keys"])
		}
		var want kept
		if len(k.Follows) > 0 {
			f, _ := numbered(k.Follows[0].Skipped)
			want.Follows = []federation.Follow{f}
		}
		if len(k.Keys) > 0 {
			_, want.Keys = numbered(uint64(k.Keys[0].Seen.Sub(received) / time.Second))
		}
		wantKept(t, db, want)
		if err := db.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d kills, acknowledged at last: %v", kills, said)
}

// A disk that fills up loses nothing, and what did not fit can be appended later.
func TestLeavesDiskFull(t *testing.T) {
	db, _ := createSQLite(t)
	mustAppendLeaves(t, db, listA, 0, 130)
	mustAppend(t, db, statements(t, seeded(t), 3)...)
	limit := func(pages int) {
		if _, err := db.Writer().Exec(fmt.Sprintf("PRAGMA max_page_count = %d", pages)); err != nil {
			t.Fatal(err)
		}
	}
	limit(40)
	if err := db.AppendLeaves(t.Context(), listA, 130, leaves(listA, 130, 5000)); err == nil || !strings.Contains(err.Error(), "no space is left") {
		t.Fatalf("got %v", err)
	}
	wantLeaves(t, db, listA, 0, 130)
	limit(1 << 30)
	mustAppendLeaves(t, db, listA, 130, 5000)
	wantLeaves(t, db, listA, 0, 5130)
	if n := len(collect(t, db, 0, hashlist.Selection{})); n != 3 {
		t.Fatalf("%d statements", n)
	}
}
