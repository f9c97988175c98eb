package store_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/store"
)

// crashChild names the database that this process, run again by TestKilled, is
// to fill until it is killed.
const crashChild = "TOCSIN_STORE_TEST_FILL"

func TestFill(t *testing.T) {
	path := os.Getenv(crashChild)
	if path == "" {
		return // only of use as a child of TestKilled
	}
	db, err := store.Open(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(rand.Uint64(), 0))
	for {
		var batch []hashlist.Record
		for range 1 + r.IntN(4) {
			hashes := 1 + r.IntN(10)
			if r.IntN(8) == 0 {
				hashes = hashlist.MaxHashes
			}
			batch = append(batch, statement(t, r, listA, hashes))
		}
		seqs, err := db.Append(context.Background(), batch)
		if err != nil {
			t.Fatal(err)
		}
		var ack bytes.Buffer
		for i, seq := range seqs {
			fmt.Fprintf(&ack, "ack %d %s %d\n", seq, batch[i].Statement.ID, len(batch[i].Signed))
		}
		if _, err := os.Stdout.Write(ack.Bytes()); err != nil {
			t.Fatal(err)
		}
	}
}

// A process that appends is killed at random moments. What it said it had stored
// is there, and what is there is whole.
func TestKilled(t *testing.T) {
	const kills = 20
	r := seeded(t)
	path := filepath.Join(t.TempDir(), "log.db")
	db, err := store.Create(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	type ack struct {
		seq    uint64
		signed int
	}
	acked := make(map[string]ack)
	for kill := range kills {
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFill$")
		child.Env = append(os.Environ(), crashChild+"="+path)
		child.Stderr = os.Stderr
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		// Some acknowledgements in, at a moment that has nothing to do with them.
		wait, armed := r.IntN(30), false
		moment := time.Duration(r.IntN(20_000)) * time.Microsecond
		n := 0
		for lines := bufio.NewReader(out); ; {
			line, err := lines.ReadString('\n')
			if err != nil {
				break
			}
			var id string
			var a ack
			if _, err := fmt.Sscanf(line, "ack %d %s %d\n", &a.seq, &id, &a.signed); err != nil {
				t.Fatalf("the child said %q", line)
			}
			acked[id] = a
			if n++; n > wait && !armed {
				armed = true
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
		found := 0
		for _, got := range collect(t, db, 0, hashlist.Selection{Signed: true}) {
			a, ok := acked[got.Statement.ID]
			if !ok {
				continue // stored, and killed before it could be said
			}
			found++
			if a.seq != got.Seq || a.signed != len(got.Signed) {
				t.Fatalf("after kill %d: %s has place %d and %d bytes, acknowledged were %+v", kill+1, got.Statement.ID, got.Seq, len(got.Signed), a)
			}
		}
		if found != len(acked) {
			t.Fatalf("after kill %d: %d of %d acknowledged statements are there", kill+1, found, len(acked))
		}
		if err := db.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d kills, %d statements acknowledged, none lost", kills, len(acked))
}
