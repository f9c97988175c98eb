package exchange

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// BenchmarkRows reads and writes 100,000 rows a time.
func BenchmarkRows(b *testing.B) {
	rnd := rand.New(rand.NewPCG(42, 0))
	const n = 100_000
	rows := make([]Row, n)
	for i := range rows {
		sum := make([]byte, 32)
		for j := range sum {
			sum[j] = byte(rnd.Uint32())
		}
		h, err := hashlist.NewHash(hashlist.PDQ, sum)
		if err != nil {
			b.Fatal(err)
		}
		rows[i] = Row{Hash: h, Quality: 90, Labels: []string{"csam", "video"}}
	}
	for _, f := range Formats() {
		var file bytes.Buffer
		write := func(to io.Writer) {
			w := f.Write(to, Head{Name: "list"})
			for _, row := range rows {
				if err := w.Write(row); err != nil {
					b.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				b.Fatal(err)
			}
		}
		write(&file)
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
		measure("write", func() { write(io.Discard) })
	}
	// As most lists are found: without the algorithm's name.
	var bare bytes.Buffer
	for _, row := range rows {
		bare.WriteString(row.Hash.Hex() + "\n")
	}
	b.Run("read/bare", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			for _, err := range format(b, "plain").Read(bytes.NewReader(bare.Bytes()), Options{}) {
				if err != nil {
					b.Fatal(err)
				}
			}
		}
		b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds()/1e6, "Mrows/s")
	})
}
