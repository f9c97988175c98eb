package store_test

import (
	"bytes"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/store"
)

// FuzzOpen opens a database of which some bytes were overwritten or cut off. It
// may be refused or found damaged when it is read; it must not panic, hang, or
// yield a statement that was never appended.
func FuzzOpen(f *testing.F) {
	good, records := sample(f, rand.New(rand.NewPCG(1, 2))) // the same in every process, or no finding can be run again
	for _, off := range []uint32{16, 18, 28, 44, 56, 60, 68, 100, 103, 105, 108, 4096, 8192, 8195, 12288, 20480} {
		f.Add(off, []byte{0xff, 0xff, 0x00, 0x7f}, uint32(0))
	}
	f.Add(uint32(0), []byte{}, uint32(1))
	f.Add(uint32(5000), bytes.Repeat([]byte{0}, 4096), uint32(4096))
	var bodies [][]byte
	for _, r := range records {
		b, err := r.Statement.AppendBinary(nil)
		if err != nil {
			f.Fatal(err)
		}
		bodies = append(bodies, b)
	}
	f.Fuzz(func(t *testing.T, off uint32, patch []byte, cut uint32) {
		b := bytes.Clone(good)
		copy(b[int(off)%len(b):], patch)
		b = b[:len(b)-int(cut)%len(b)]
		path := filepath.Join(t.TempDir(), "log.db")
		write(t, path, b)
		db, err := store.Open(t.Context(), path)
		if err != nil {
			return
		}
		defer db.Close()
		for r, err := range db.After(t.Context(), 0, hashlist.Selection{Signed: true}) {
			if err != nil {
				return
			}
			got, err := r.Statement.AppendBinary(nil)
			if err != nil {
				t.Fatal(err)
			}
			if r.Seq > uint64(len(bodies)) || !bytes.Equal(got, bodies[r.Seq-1]) {
				t.Fatalf("place %d holds what was not put there", r.Seq)
			}
		}
		db.Append(t.Context(), statements(t, seeded(t), 2))
	})
}
