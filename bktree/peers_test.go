package bktree

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"
)

var (
	faissProgram = flag.String("faiss", "", "tools/bench-faiss, to have FAISS in BenchmarkPeers")
	slowPeers    = flag.Int("slow", 1_000_000, "the most points that the slowest peers are given, in BenchmarkPeers")
)

// contestant is one row of the table of BenchmarkPeers.
type contestant struct {
	name   string
	batch  int // queries in a turn; the more, the faster it is
	warm   int // queries before, untimed: the turns of others empty the caches
	search func(from, n int) (each []time.Duration, found [][]int)
	exact  bool
	upTo   int     // the largest radius at which it is
	from   int     // the smallest at which it is worth asking
	bytes  float64 // of a point
	build  time.Duration

	took          []time.Duration
	wanted, found int // points
}

// BenchmarkPeers prints tables of how long one query takes with the index, with
// what one would write instead, and with FAISS. All have the same points and
// queries and one thread, and take turns. What they find is compared, too.
// "go test -bench Peers -benchtime 1x -faiss ../tools/bench-faiss".
func BenchmarkPeers(b *testing.B) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var f *faiss
	if *faissProgram != "" {
		f = startFaiss(b, *faissProgram)
		defer f.stop(b)
	}
	for b.Loop() {
		for _, n := range benchSizes(b) {
			comparePeers[Point256](b, f, n, 31)
			comparePeers[Point64](b, f, n, 8, 10)
		}
		for _, n := range benchSizes(b) {
			compareRadii[Point256](b, n, 0, 7, 15, 19, 23, 27, 31, 35, 39, 47, 55, 63)
			compareRadii[Point64](b, n, 0, 2, 4, 6, 8, 10, 12, 14, 16)
		}
	}
}

func comparePeers[P Point](b *testing.B, f *faiss, n int, radii ...int) {
	points, _ := workload[P](n, 0, 0)
	var all []*contestant

	x := New[P]()
	built := timed(func() { x.BeginBulk(); insertBatches(x, points); x.EndBulk() })
	m := x.structure.(*multi[P])
	kernel := m.kernel
	same := make([][]int, 0) // rows of the points that are one in the index, by ID
	for row, p := range points {
		id, _ := x.Find(p)
		for int(id) >= len(same) {
			same = append(same, nil)
		}
		same[id] = append(same[id], row)
	}
	var queries []P
	radius := 0
	ours := func(x *Index[P], before func()) func(from, n int) ([]time.Duration, [][]int) {
		return func(from, n int) (each []time.Duration, found [][]int) {
			before()
			defer func() { m.kernel = kernel }()
			dst := make([]Neighbour, 0, 64)
			for _, q := range queries[from : from+n] {
				start := time.Now()
				dst, _ = x.Near(q, radius, 0, dst[:0])
				each = append(each, time.Since(start))
				var rows []int
				for _, d := range dst {
					rows = append(rows, same[d.ID]...)
				}
				slices.Sort(rows)
				found = append(found, rows)
			}
			return each, found
		}
	}
	for _, k := range kernels() {
		all = append(all, &contestant{
			name: "index, " + k.name, batch: 400, warm: 50, exact: true, build: built,
			bytes:  float64(x.Stats().Bytes) / float64(x.Stats().Points),
			search: ours(x, func() { m.kernel = k }),
		})
	}
	plain := func(from, n int) (each []time.Duration, found [][]int) {
		var dst []Neighbour
		for _, q := range queries[from : from+n] {
			start := time.Now()
			dst = loop(points, q, radius, dst[:0])
			each = append(each, time.Since(start))
			var rows []int
			for _, d := range dst {
				rows = append(rows, int(d.ID))
			}
			found = append(found, rows)
		}
		return each, found
	}
	var p P
	all = append(all, &contestant{name: "loop, OnesCount64", batch: 5, exact: true, bytes: float64(unsafe.Sizeof(p)), search: plain})
	if n <= *slowPeers {
		tree := newIndex[P](newTree[P]())
		took := timed(func() { insertBatches(tree, points) })
		all = append(all, &contestant{
			name: "BK-tree", batch: 2, exact: true, build: took,
			bytes: float64(tree.structure.bytes()) / float64(n), search: ours(tree, func() {}),
		})
	}
	if f != nil {
		f.load(b, points)
		kinds := []string{"flat", "multihash 11 23 2", "multihash 16 16 1", "hash 16 1"}
		if len(words(&p)) == 1 {
			kinds = []string{"flat", "multihash 3 21 2", "multihash 3 21 3", "multihash 4 16 2", "hash 16 2"}
		}
		for _, kind := range kinds {
			if n > *slowPeers && strings.HasPrefix(kind, "multihash") {
				continue
			}
			upTo, from := math.MaxInt, 0
			if k, flips := 0, 0; strings.HasPrefix(kind, "multihash") {
				if _, err := fmt.Sscanf(kind, "multihash %d %d %d", &k, new(int), &flips); err != nil {
					b.Fatal(err)
				}
				// With one flip more in each of k words than it tries, it misses a point.
				from, upTo = k*flips, k*(flips+1)-1
			}
			built := f.build(b, kind)
			defer f.ask(b, "drop "+id(kind))
			batch := 10
			if n > 1_000_000 {
				batch = 3
			}
			all = append(all, &contestant{
				name: "FAISS " + f.version + " " + kind, batch: batch, exact: !strings.HasPrefix(kind, "hash"), from: from, upTo: upTo,
				bytes: built.Bytes / float64(n), build: time.Duration(built.Seconds * 1e9),
				search: func(from, n int) ([]time.Duration, [][]int) { return f.search(b, kind, radius, from, n) },
			})
		}
	}

	for _, c := range all {
		if c.upTo == 0 {
			c.upTo = math.MaxInt
		}
	}
	for _, radius = range radii {
		_, queries = workload[P](n, 20_000, radius)
		if f != nil {
			f.write(b, fmt.Sprint("queries", radius), queries)
		}
		racing := slices.DeleteFunc(slices.Clone(all), func(c *contestant) bool { return radius < c.from || radius > c.upTo })
		for _, c := range racing {
			c.took, c.wanted, c.found = nil, 0, 0
		}
		for round := range 7 {
			for _, c := range racing {
				from := round * 500
				c.search(from+c.batch, c.warm)
				each, found := c.search(from, c.batch)
				c.took = append(c.took, each...)
				_, want := plain(from, min(c.batch, 10))
				for i, want := range want {
					c.compare(b, n, radius, found[i], want)
				}
			}
		}
		printPeers(racing, width[P](), n, radius)
	}
}

// compareRadii prints how long the index and the plain loop take at other radii, in turns.
func compareRadii[P Point](b *testing.B, n int, radii ...int) {
	points, _ := workload[P](n, 0, 0)
	x := filled(points)
	fmt.Printf("\n%d bits, %d points\n\n| radius | index p50 us | p99 us | loop p50 us | loop takes |\n|---|---|---|---|---|\n", width[P](), n)
	for _, radius := range radii {
		_, queries := workload[P](n, 20_000, radius)
		var ours, plain []time.Duration
		var dst, want []Neighbour
		for i := range 7 * 400 {
			if i%400 == 0 {
				for _, q := range queries[i+1000 : i+1005] {
					plain = append(plain, timed(func() { want = loop(points, q, radius, want[:0]) }))
					dst, _ = x.Near(q, radius, 0, dst[:0])
					same := make(map[ID]bool)
					for _, w := range want { // identical points are one
						id, _ := x.Find(points[w.ID])
						same[id] = true
					}
					for _, d := range dst {
						if !same[d.ID] {
							b.Fatalf("%d points within %d: ID %d is found wrongly", n, radius, d.ID)
						}
					}
					if len(dst) != len(same) {
						b.Fatalf("%d points within %d: %d, found %d", n, radius, len(same), len(dst))
					}
				}
				for _, q := range queries[i+2000 : i+2050] { // the loop has emptied the caches
					dst, _ = x.Near(q, radius, 0, dst[:0])
				}
			}
			ours = append(ours, timed(func() { dst, _ = x.Near(queries[i], radius, 0, dst[:0]) }))
		}
		us := func(v []time.Duration, q float64) float64 { return float64(quantile(v, q)) / 1e3 }
		fmt.Printf("| %d | %.3g | %.3g | %.4g | %.3g times |\n", radius, us(ours, 0.5), us(ours, 0.99), us(plain, 0.5), us(plain, 0.5)/us(ours, 0.5))
	}
}

func (c *contestant) compare(b *testing.B, n, radius int, found, want []int) {
	c.wanted += len(want)
	for _, row := range found {
		if _, ok := slices.BinarySearch(want, row); !ok {
			b.Fatalf("%s: among %d points within %d row %d is found wrongly", c.name, n, radius, row)
		}
	}
	if c.found += len(found); c.exact && len(found) != len(want) {
		b.Fatalf("%s: among %d points within %d there are %v, found were %v", c.name, n, radius, want, found)
	}
}

func printPeers(racing []*contestant, bits, n, radius int) {
	fmt.Printf("\n%d bits, radius %d, %d points\n\n| method | p50 us | p99 us | loop takes | it takes this many times the index | B/point | points/s to build | found |\n|---|---|---|---|---|---|---|---|\n", bits, radius, n)
	us := func(d time.Duration) float64 { return float64(d) / 1e3 }
	loopTook, indexTook := 0.0, us(quantile(racing[0].took, 0.5))
	for _, c := range racing {
		if strings.HasPrefix(c.name, "loop") {
			loopTook = us(quantile(c.took, 0.5))
		}
	}
	for _, c := range racing {
		half, tail, build := us(quantile(c.took, 0.5)), "", ""
		if len(c.took) >= 1000 {
			tail = fmt.Sprintf("%.3g", us(quantile(c.took, 0.99)))
		}
		if c.build > 0 {
			build = fmt.Sprintf("%.3g", float64(n)/c.build.Seconds())
		}
		bytes := "" // of FAISS, how much its process grew: not at all where it had memory left
		if c.bytes >= float64(bits/8) {
			bytes = fmt.Sprintf("%.0f", c.bytes)
		}
		fmt.Printf("| %s | %.3g | %s | %.3g times | %.3g | %s | %s | %.3g %% |\n",
			c.name, half, tail, loopTook/half, half/indexTook, bytes, build, 100*float64(c.found)/float64(max(c.wanted, 1)))
	}
}

// faiss is the other process.
type faiss struct {
	dir     string
	version string
	command *exec.Cmd
	in      *bufio.Writer
	out     *bufio.Reader
	close   func() error
}

type answer struct {
	Version     string
	Seconds     float64
	Bytes       float64
	Nanoseconds float64
	Found       [][]int
}

// id names an index of FAISS by its kind.
func id(kind string) string { return strings.ReplaceAll(kind, " ", "-") }

func startFaiss(b *testing.B, program string) *faiss {
	f := &faiss{dir: b.TempDir(), command: exec.Command(program)}
	f.command.Args = append(f.command.Args, f.dir)
	f.command.Stderr = os.Stderr
	in, err := f.command.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := f.command.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := f.command.Start(); err != nil {
		b.Fatal(err)
	}
	f.in, f.out, f.close = bufio.NewWriter(in), bufio.NewReader(out), in.Close
	f.version = f.read(b).Version
	return f
}

func (f *faiss) stop(b *testing.B) {
	_ = f.close()
	if err := f.command.Wait(); err != nil {
		b.Errorf("%s: %v", f.command.Path, err)
	}
}

func (f *faiss) ask(b *testing.B, command string) answer {
	fmt.Fprintln(f.in, command)
	if err := f.in.Flush(); err != nil {
		b.Fatal(err)
	}
	return f.read(b)
}

func (f *faiss) read(b *testing.B) (a answer) {
	line, err := f.out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &a)
	}
	if err != nil {
		b.Fatalf("%s: %v", f.command.Path, err)
	}
	return a
}

func (f *faiss) write(b *testing.B, name string, points any) {
	var raw []byte
	switch p := points.(type) {
	case []Point64:
		raw = unsafe.Slice((*byte)(unsafe.Pointer(&p[0])), len(p)*8)
	case []Point256:
		raw = unsafe.Slice((*byte)(unsafe.Pointer(&p[0])), len(p)*32)
	}
	if err := os.WriteFile(filepath.Join(f.dir, name), raw, 0o600); err != nil {
		b.Fatal(err)
	}
}

func (f *faiss) load(b *testing.B, points any) {
	f.write(b, "points", points)
	bits := 256
	if _, ok := points.([]Point64); ok {
		bits = 64
	}
	f.ask(b, fmt.Sprintf("load %d points", bits))
}

func (f *faiss) build(b *testing.B, kind string) answer {
	return f.ask(b, "build "+id(kind)+" "+kind)
}

func (f *faiss) search(b *testing.B, kind string, radius, from, n int) (each []time.Duration, found [][]int) {
	if n == 0 {
		return nil, nil
	}
	a := f.ask(b, fmt.Sprintf("search %s queries%d %d %d %d", id(kind), radius, from, n, radius))
	return []time.Duration{time.Duration(a.Nanoseconds / float64(n))}, a.Found
}
