package exchange

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// rowsFor returns n rows that format f carries, the same each time.
func rowsFor(tb testing.TB, f Format, n int) func(i int) Row {
	tb.Helper()
	a := hashlist.PDQ
	if f.Name == "vpdq" {
		a = hashlist.VPDQ
	}
	rnd := rand.New(rand.NewPCG(42, 0))
	labels := []string{"csam", "video"}
	return func(i int) Row {
		if !slices.Contains(f.Kinds, hashlist.AddHashes) {
			return Row{Subject: fmt.Sprintf("server-%d.example", i), Quality: -1, Action: hashlist.Drop, Reason: "spam, and worse"}
		}
		var sum [32]byte
		for j := range sum {
			sum[j] = byte(rnd.Uint32())
		}
		h, err := hashlist.NewHash(a, sum[:])
		if err != nil {
			tb.Fatal(err)
		}
		return Row{Hash: h, Quality: 90, Labels: labels}
	}
}

func writeRows(tb testing.TB, f Format, w io.Writer, n int) {
	tb.Helper()
	row := rowsFor(tb, f, n)
	out := f.Write(w, Head{Name: "list"})
	for i := range n {
		if err := out.Write(row(i)); err != nil {
			tb.Error(f.Name, err)
			return
		}
	}
	if err := out.Close(); err != nil {
		tb.Error(f.Name, err)
	}
}

// BenchmarkRows reads and writes 10,000 rows a time.
func BenchmarkRows(b *testing.B) {
	const n = 10_000
	for _, f := range Formats() {
		var file bytes.Buffer
		writeRows(b, f, &file, n)
		measure := func(name string, pass func()) {
			b.Run(name+"/"+f.Name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					pass()
				}
				b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds()/1e6, "Mrows/s")
			})
		}
		measure("read", func() {
			for _, err := range f.Read(bytes.NewReader(file.Bytes()), Options{}) {
				if err != nil {
					b.Fatal(err)
				}
			}
		})
		measure("write", func() { writeRows(b, f, io.Discard, n) })
	}
}

// BenchmarkMillion reads 1,000,000 hashes in each format of hashes from a pipe, and tells how much the heap
// grew meanwhile. Run it with -benchtime 1x.
func BenchmarkMillion(b *testing.B) {
	const n = 1_000_000
	for _, f := range Formats() {
		if !slices.Contains(f.Kinds, hashlist.AddHashes) {
			continue
		}
		b.Run(f.Name, func(b *testing.B) {
			for b.Loop() {
				runtime.GC()
				var before, now runtime.MemStats
				runtime.ReadMemStats(&before)
				r, w := io.Pipe()
				go func() {
					writeRows(b, f, w, n)
					w.Close()
				}()
				most, rows := uint64(0), 0
				for _, err := range f.Read(r, Options{}) {
					if err != nil {
						b.Fatal(err)
					}
					if rows++; rows%50_000 == 0 {
						runtime.ReadMemStats(&now)
						most = max(most, now.HeapInuse-min(now.HeapInuse, before.HeapInuse))
					}
				}
				if rows != n {
					b.Fatalf("%d rows", rows)
				}
				b.ReportMetric(float64(most)/(1<<20), "MiB")
			}
		})
	}
}
