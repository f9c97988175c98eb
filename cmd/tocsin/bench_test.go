package main

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"image"
	"image/jpeg"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/image/draw"

	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// upload is a photograph of 1600x1200 as people upload it.
func upload(b *testing.B) []byte {
	b.Helper()
	src, err := jpeg.Decode(bytes.NewReader(photo(b, "mountains.jpg")))
	if err != nil {
		b.Fatal(err)
	}
	img := image.NewRGBA(image.Rect(0, 0, 1600, 1200))
	draw.CatmullRom.Scale(img, img.Bounds(), src, src.Bounds(), draw.Src, nil)
	var out bytes.Buffer
	if err := jpeg.Encode(&out, img, &jpeg.Options{Quality: 85}); err != nil {
		b.Fatal(err)
	}
	return out.Bytes()
}

// benchDaemon is a node without limits on lookups and without a cache, so that
// every upload is decoded.
func benchDaemon(b *testing.B) (d *daemon, token string) {
	dir := newNode(b)
	d = startDaemon(b, dir, program(b, serveArgs(dir, "--set", "limits.lookups_per_second=0", "--set", "limits.cached=0", "--log-level", "error")...))
	d.list(b, "refused")
	tocsin(b, "ban", "--data", dir, "--list", "refused", "../demo/photos/cat.jpg")
	return d, d.token(b, "bench", "lookup")
}

// spread runs do b.N times, so many at once, and reports how the times lie and
// what share of them the decoders were at work.
func spread(b *testing.B, d *daemon, concurrency int, do func() error) {
	if err := do(); err != nil { // starts the decoders
		b.Fatal(err)
	}
	before := decodeSeconds(b, d)
	times := make([]time.Duration, b.N)
	var next atomic.Int64
	var work sync.WaitGroup
	var failed atomic.Value
	b.ResetTimer()
	for range concurrency {
		work.Go(func() {
			for i := next.Add(1) - 1; i < int64(b.N); i = next.Add(1) - 1 {
				begun := time.Now()
				if err := do(); err != nil {
					failed.Store(err)
					return
				}
				times[i] = time.Since(begun)
			}
		})
	}
	work.Wait()
	b.StopTimer()
	if err := failed.Load(); err != nil {
		b.Fatal(err)
	}
	var sum time.Duration
	for _, t := range times {
		sum += t
	}
	slices.Sort(times)
	ms := func(t time.Duration) float64 { return float64(t.Microseconds()) / 1000 }
	b.ReportMetric(ms(times[len(times)/2]), "p50-ms")
	b.ReportMetric(ms(times[len(times)*99/100]), "p99-ms")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "uploads/s")
	b.ReportMetric(100*(decodeSeconds(b, d)-before)/sum.Seconds(), "%decoding")
}

// decodeSeconds reads from the node's metrics how long its decoders decoded in all.
func decodeSeconds(b *testing.B, d *daemon) (sum float64) {
	answer, err := http.Get("http://" + d.HTTP + "/metrics")
	if err != nil {
		b.Fatal(err)
	}
	defer answer.Body.Close()
	found := false
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if strings.HasPrefix(name, "tocsin_decode_seconds_sum") {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				b.Fatal(err)
			}
			sum, found = sum+v, true
		}
	}
	if !found {
		b.Fatal("the metrics have no tocsin_decode_seconds_sum")
	}
	return sum
}

// BenchmarkHook uploads a JPEG of 1600x1200 by the hook of pict-rs.
func BenchmarkHook(b *testing.B) {
	file := upload(b)
	for _, concurrency := range []int{1, 8} {
		b.Run(fmt.Sprintf("concurrency=%d", concurrency), func(b *testing.B) {
			d, token := benchDaemon(b)
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: concurrency}}
			defer client.CloseIdleConnections()
			spread(b, d, concurrency, func() error {
				status, body, err := hook(b.Context(), client, d.HTTP, token, "image/jpeg", file)
				if err == nil && status/100 != 2 {
					err = fmt.Errorf("the hook answered %d: %s", status, body)
				}
				return err
			})
		})
	}
}

// BenchmarkLookupMedia uploads a JPEG of 1600x1200 over gRPC.
func BenchmarkLookupMedia(b *testing.B) {
	file := upload(b)
	for _, concurrency := range []int{1, 8} {
		b.Run(fmt.Sprintf("concurrency=%d", concurrency), func(b *testing.B) {
			d, _ := benchDaemon(b)
			spread(b, d, concurrency, func() error {
				answer, err := lookupMedia(b.Context(), d.lookups, file)
				if err == nil && answer.GetLookup().GetVerdict() != pb.Verdict_VERDICT_ALLOW {
					err = fmt.Errorf("answer %v", answer)
				}
				return err
			})
		})
	}
}

var importHashes = flag.Int("hashes", 1_000_000, "PDQ hashes that BenchmarkImport imports")

// BenchmarkImport imports a million PDQ hashes, or as many as asked for, ends the node, and
// starts it again.
func BenchmarkImport(b *testing.B) {
	n := *importHashes
	path := filepath.Join(b.TempDir(), "hashes.txt")
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	random := rand.NewChaCha8([32]byte{42})
	w := bufio.NewWriter(f)
	for range n {
		var h [32]byte
		random.Read(h[:])
		fmt.Fprintf(w, "%x\n", h)
	}
	if err := w.Flush(); err != nil {
		b.Fatal(err)
	}
	f.Close()
	for b.Loop() {
		b.StopTimer()
		dir := newNode(b)
		d := startDaemon(b, dir, program(b, serveArgs(dir)...))
		d.list(b, "many")
		b.StartTimer()
		begun := time.Now()
		tocsin(b, "import", "--data", dir, "--list", "many", "--format", "plain", path)
		took := time.Since(begun)
		b.StopTimer()
		after := resident(b, d)
		d.stop(b, d.cmd.Process.Pid)

		begun = time.Now()
		d = startDaemon(b, dir, program(b, serveArgs(dir)...))
		ready := time.Since(begun)
		ctx, cancel := context.WithTimeout(b.Context(), waitTime)
		l, err := d.lists.GetList(ctx, &pb.GetListRequest{List: "many"})
		cancel()
		if err != nil || l.GetList().GetHashes() != uint64(n) {
			b.Fatalf("after the restart the list is %v, %v", l, err)
		}
		database, err := os.Stat(filepath.Join(dir, databaseName))
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(took.Seconds(), "import-s")
		b.ReportMetric(float64(n)/took.Seconds(), "hashes/s")
		b.ReportMetric(after, "MiB-imported")
		b.ReportMetric(resident(b, d), "MiB-restarted")
		b.ReportMetric(ready.Seconds(), "ready-s")
		b.ReportMetric(float64(database.Size())/(1<<20), "MiB-database")
		d.stop(b, d.cmd.Process.Pid)
		b.StartTimer()
	}
}

// resident is how many MiB of memory the node's process holds.
func resident(b *testing.B, d *daemon) float64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.Atoi(strings.Fields(v)[0])
			if err != nil {
				b.Fatal(err)
			}
			return float64(kib) / 1024
		}
	}
	b.Fatal("there is no VmRSS")
	return 0
}
