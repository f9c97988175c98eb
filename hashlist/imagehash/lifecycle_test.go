package imagehash

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// eventually polls until ok holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(2 * time.Minute)
	defer limit.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("%s did not happen", what)
		}
	}
}

// busy reports whether a process has computed for a while: it is in a file.
func busy(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	ticks, _ := strconv.Atoi(strings.Fields(rest)[11]) // user time in hundredths of a second
	return ticks > 15
}

// A child that is killed from outside is replaced and its file tried again; a
// file on which two are killed is not examined: the machine is in trouble.
func TestKilledFromOutside(t *testing.T) {
	l := DefaultLimits()
	l.Workers, l.Timeout = 1, 2*time.Minute
	h := newHasher(t, l)
	slow := manyScans(t, 5000, 5000, 95)
	good := jpegOf(t, picture(320, 240, 1))
	for _, kills := range []int{1, 2} {
		before := h.Stats()
		result := make(chan error, 1)
		go func() {
			_, err := h.Hash(context.Background(), slow)
			result <- err
		}()
		dead := make(map[int]bool)
		for range kills {
			eventually(t, "work on the file", func() bool {
				for _, pid := range pids(h) {
					if !dead[pid] && busy(pid) {
						dead[pid] = true
						return syscall.Kill(pid, syscall.SIGKILL) == nil
					}
				}
				return false
			})
		}
		err := <-result
		if kills == 1 && err != nil {
			t.Errorf("killed once: %v, want success by another child", err)
		}
		if kills == 2 && !errors.Is(err, ErrTrouble) {
			t.Errorf("killed twice: %v, want %v", err, ErrTrouble)
		}
		if n := h.Stats().Crashed - before.Crashed; n != uint64(kills) {
			t.Errorf("killed %d times: %d crashes counted", kills, n)
		}
		hashOK(t, h, "next", good)
		// The next round needs a child that has not computed yet.
		for _, pid := range pids(h) {
			dead[pid] = true
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		hashOK(t, h, "after an idle child was killed", good)
	}
}

// A child is replaced after so many files, whatever it says: the parent counts.
func TestRetirement(t *testing.T) {
	h := newHasher(t, Limits{Workers: 1, HEIC: true, Timeout: time.Minute})
	recycled := func(format string, n int, file []byte) {
		t.Helper()
		before := h.Stats().Recycled
		for i := range n {
			hashOK(t, h, format, file)
			if got := h.Stats().Recycled - before; got != uint64((i+1)/n) {
				t.Fatalf("%s: %d children replaced after %d files, want one after %d", format, got, i+1, n)
			}
		}
	}
	recycled("png", maxFiles, pngOf(picture(16, 16, 1)))
	recycled("jxl", maxCoded, sampleFile("jxl"))
	// Files that fail count as well.
	for range maxCoded {
		if _, err := h.Hash(context.Background(), sampleFile("jxl")[:60]); !errors.Is(err, ErrUndecodable) {
			t.Fatalf("broken: %v", err)
		}
	}
	if s := h.Stats(); s.Recycled != 3 || s.Started != 3 || s.Running != 0 {
		t.Errorf("counted %+v", s)
	}
}

func TestTimeout(t *testing.T) {
	l := DefaultLimits()
	l.Workers, l.Timeout = 1, 200*time.Millisecond
	h := newHasher(t, l)
	start := time.Now()
	_, err := h.Hash(context.Background(), manyScans(t, 7000, 7000, 95))
	if !errors.Is(err, ErrTimeout) {
		t.Errorf("got %v, want %v", err, ErrTimeout)
	}
	t.Logf("%v after %v", err, time.Since(start))
	l.Timeout = time.Minute
	hashOK(t, newHasher(t, l), "next", jpegOf(t, picture(64, 48, 1)))
	if s := h.Stats(); s.Killed != 1 || s.TimedOut != 1 || s.Crashed != 0 || s.Running != 0 {
		t.Errorf("counted %+v", s)
	}
}

func TestCancel(t *testing.T) {
	l := DefaultLimits()
	l.Workers, l.Timeout = 1, 2*time.Minute
	h := newHasher(t, l)
	slow := manyScans(t, 7000, 7000, 95)
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 2)
	hash := func() {
		_, err := h.Hash(ctx, slow)
		result <- err
	}
	go hash()
	eventually(t, "work on the file", func() bool { return len(pids(h)) == 1 && busy(pids(h)[0]) })
	go hash() // waits for the child
	cancel()
	for range 2 {
		if err := <-result; !errors.Is(err, context.Canceled) || errors.Is(err, ErrUndecodable) {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
	}
	hashOK(t, h, "next", jpegOf(t, picture(64, 48, 1)))
	if s := h.Stats(); s.Cancelled != 2 {
		t.Errorf("counted %+v", s)
	}
}

func TestClose(t *testing.T) {
	l := DefaultLimits()
	l.Workers, l.Timeout = 2, 2*time.Minute
	h := newHasher(t, l)
	slow := manyScans(t, 7000, 7000, 95)
	result := make(chan error, 3)
	for range 3 {
		go func() {
			_, err := h.Hash(context.Background(), slow)
			result <- err
		}()
	}
	eventually(t, "work on two files", func() bool { p := pids(h); return len(p) == 2 && busy(p[0]) && busy(p[1]) })
	running := pids(h)
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	for range 3 {
		if err := <-result; !errors.Is(err, ErrTrouble) {
			t.Errorf("got %v, want %v", err, ErrTrouble)
		}
	}
	for _, pid := range running {
		if err := syscall.Kill(pid, 0); err == nil {
			t.Errorf("child %d is still there", pid)
		}
	}
	if _, err := h.Hash(context.Background(), slow); !errors.Is(err, ErrTrouble) {
		t.Errorf("closed: got %v, want %v", err, ErrTrouble)
	}
	h.Close()
}

// A file that fits the limits on pixels but not the memory of a child.
func TestMemoryCap(t *testing.T) {
	l := DefaultLimits()
	l.Workers, l.WorkerMemory, l.MaxPixels = 1, 256<<20, 1<<30
	h := newHasher(t, l)
	_, err := h.Hash(context.Background(), manyScans(t, 16000, 12000, 0))
	if !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v, want %v", err, ErrTooLarge)
	}
	t.Log(err)
	hashOK(t, h, "next", jpegOf(t, picture(64, 48, 1)))
	if s := h.Stats(); s.Crashed != 1 || s.Started != 2 {
		t.Errorf("counted %+v", s)
	}
}

// A child does not keep the memory of a large picture.
func TestMemoryGivenBack(t *testing.T) {
	h := newHasher(t, Limits{Workers: 1, Timeout: time.Minute})
	resident := func() int64 {
		b := must(os.ReadFile(fmt.Sprintf("/proc/%d/statm", pids(h)[0])))
		pages, _ := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
		return pages * int64(os.Getpagesize())
	}
	hashOK(t, h, "small", jpegOf(t, picture(64, 48, 1)))
	before := resident()
	hashOK(t, h, "large", manyScans(t, 8000, 8000, 0))
	peak := peakMemory(pids(h)[0])
	t.Logf("%d MiB before, %d at the most", before>>20, peak>>20)
	if peak < before+200<<20 {
		t.Fatal("the picture is not large")
	}
	if raceDetector {
		return // its own memory for the picture stays
	}
	eventually(t, "giving back", func() bool { return resident() < before+(peak-before)/3 })
}

// Many callers, good and bad files mixed, few children.
func TestConcurrent(t *testing.T) {
	h := newHasher(t, DefaultLimits())
	type work struct {
		file []byte
		want Frame
		err  error
	}
	var all []work
	for i := range 4 {
		file := jpegOf(t, picture(200, 150, float64(i)))
		all = append(all, work{file: file, want: hashOK(t, h, "alone", file).Frames[0]})
	}
	all = append(all, work{file: []byte("\xff\xd8\xff\xe0broken"), err: ErrUndecodable}, work{file: []byte("OggS"), err: ErrVideo})
	var wg sync.WaitGroup
	for g := range 32 {
		wg.Go(func() {
			for i := range 6 {
				w := all[(g+i)%len(all)]
				m, err := h.Hash(context.Background(), w.file)
				if !errors.Is(err, w.err) || err == nil && m.Frames[0] != w.want {
					t.Errorf("got %v and %v, want %v", m, err, w.err)
				}
			}
		})
	}
	wg.Wait()
	if s := h.Stats(); s.Running > s.Busy+DefaultLimits().Workers || s.Started > uint64(DefaultLimits().Workers) {
		t.Errorf("counted %+v", s)
	}
}

func TestLimits(t *testing.T) {
	for _, l := range []Limits{
		{MaxBytes: 2 << 30}, {MaxPixels: 1 << 40}, {MaxFrames: 1000}, {WorkerMemory: 1},
	} {
		if h, err := NewHasher(l); err == nil {
			h.Close()
			t.Errorf("%+v is accepted", l)
		}
	}
	h := newHasher(t, Limits{MaxBytes: 6000, MaxPixels: 100 * 100, MaxFrames: 1})
	if _, err := h.Hash(context.Background(), make([]byte, 6001)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too many bytes: %v", err)
	}
	if _, err := h.Hash(context.Background(), pngOf(picture(101, 100, 1))[:5000]); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too many pixels: %v", err)
	}
	if _, err := h.Hash(context.Background(), sampleFile("heic")); !errors.Is(err, ErrUndecodable) {
		t.Errorf("heic switched off: %v", err)
	}
	m, err := h.Hash(context.Background(), gifOf(picture(30, 20, 1), picture(30, 20, 2)))
	if err != nil || len(m.Frames) != 1 {
		t.Errorf("one frame: %+v, %v", m, err)
	}
}

// A cut that browsers do not mind does not hide a picture.
func TestTruncatedJPEG(t *testing.T) {
	h := newHasher(t, DefaultLimits())
	file := jpegOf(t, picture(640, 480, 4))
	whole := hashOK(t, h, "whole", file)
	for _, cut := range []int{1, 2, 3, 50, 500} {
		m := hashOK(t, h, "cut", file[:len(file)-cut])
		d := distance(m.Frames[0].PDQ[0], whole.Frames[0].PDQ[0])
		if !m.Truncated || d > 10 {
			t.Errorf("%d bytes cut: distance %d, truncated %v", cut, d, m.Truncated)
		}
	}
}

const probeEnv = "TOCSIN_TEST_PROBE"

// probe runs in a process of its own: it confines itself and tries what a
// decoder that was taken over would.
func probe() {
	if os.Getenv(probeEnv) == "" {
		return
	}
	if os.Getenv(probeEnv) == "video" {
		probeVideo()
	}
	file, err := os.CreateTemp("", "probe")
	if err != nil {
		fmt.Println("create temp:", err)
		os.Exit(1)
	}
	os.Remove(file.Name())
	if err := confine(DefaultLimits().WorkerMemory); err != nil {
		fmt.Println("confine:", err)
		os.Exit(1)
	}
	_, openErr := os.Open("/etc/passwd")
	_, createErr := os.Create("/tmp/tocsin-probe")
	_, dialErr := net.Dial("udp", "127.0.0.1:9")
	execErr := exec.Command("/bin/true").Run()
	killErr := syscall.Kill(os.Getppid(), 0)
	linkErr := os.Rename("/etc/passwd", "/tmp/x")
	for what, err := range map[string]error{"open": openErr, "create": createErr, "dial": dialErr, "exec": execErr, "kill": killErr, "rename": linkErr} {
		fmt.Printf("%s %v\n", what, errors.Is(err, syscall.EPERM))
	}
	// Threads can still be started, and computing goes on.
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			b := make([]byte, 1<<20)
			for i := range b {
				b[i] = byte(i)
			}
		})
	}
	wg.Wait()
	fmt.Println("done")
	os.Exit(0)
}

func TestConfinement(t *testing.T) {
	cmd := exec.Command(must(os.Executable()))
	cmd.Env = append(os.Environ(), probeEnv+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{"open true", "create true", "dial true", "exec true", "kill true", "rename true", "done"} {
		if !strings.Contains(string(out), want+"\n") {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
}

// A child gets nothing of its parent's environment, and its limits hold.
func TestChildEnvironment(t *testing.T) {
	t.Setenv("SECRET_OF_PARENT", "do not tell")
	h := newHasher(t, Limits{Workers: 1})
	hashOK(t, h, "jpeg", jpegOf(t, picture(64, 48, 1)))
	pid := pids(h)[0]
	limits := string(must(os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))))
	for _, name := range []string{"Max core file size", "Max file size"} {
		_, line, _ := strings.Cut(limits, name)
		if f := strings.Fields(line); len(f) < 2 || f[0] != "0" || f[1] != "0" {
			t.Errorf("%s is %v", name, f)
		}
	}
	status := string(must(os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))))
	for _, want := range []string{"NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(status, want) {
			t.Errorf("status of the child has no %q", want)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.all {
		for _, v := range c.cmd.Env {
			if strings.Contains(v, "SECRET") {
				t.Errorf("child has %q", v)
			}
		}
	}
}

// The marks of a worker must come together.
func TestNotAWorkerByAccident(t *testing.T) {
	for name, cmd := range map[string]*exec.Cmd{
		"variable": {Path: must(os.Executable()), Args: []string{"x", "-test.run=^$"}, Env: []string{workerEnv + "=1", workerMemoryEnv + "=1"}},
		"name":     {Path: must(os.Executable()), Args: []string{workerName, "-test.run=^$"}},
	} {
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS") {
			t.Errorf("%s alone: %v, %s", name, err, out)
		}
	}
}
