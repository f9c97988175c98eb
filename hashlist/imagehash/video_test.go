package imagehash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// videoHasher hashes videos.
var videoHasher = sync.OnceValue(func() *Hasher {
	l := DefaultLimits()
	l.Workers = 1
	return must(NewHasher(l))
})

// film makes a video with ffmpeg and returns its bytes.
func film(t testing.TB, name string, args ...string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	cmd := exec.CommandContext(t.Context(), "ffmpeg", append(append([]string{"-hide_banner", "-nostdin", "-v", "error", "-y"}, args...), path)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ffmpeg %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// original is a film: photographs that the camera pans over, three seconds each.
func original(t testing.TB, name string, photos ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	args := []string{"-hide_banner", "-nostdin", "-v", "error", "-y"}
	var graph, chain string
	for i, p := range photos {
		args = append(args, "-loop", "1", "-t", "3", "-framerate", "8", "-i", "../../cmd/demo/photos/"+p+".jpg")
		graph += fmt.Sprintf("[%d:v]scale=540:400,crop=320:240:x='t*27':y='t*14',setsar=1[v%d];", i, i)
		chain += fmt.Sprintf("[v%d]", i)
	}
	args = append(args, "-filter_complex", graph+chain+fmt.Sprintf("concat=n=%d:v=1[out]", len(photos)), "-map", "[out]",
		"-c:v", "libx264", "-preset", "ultrafast", "-crf", "20", "-pix_fmt", "yuv420p", path)
	if out, err := exec.CommandContext(t.Context(), "ffmpeg", args...).CombinedOutput(); err != nil {
		t.Fatalf("ffmpeg: %v\n%s", err, out)
	}
	return path
}

// share is how many in a hundred of the frames of a that show something have one in b within 31 bits,
// in any of the ways they can be turned.
func share(a, b *Media) int {
	asked, matched := 0, 0
	for i := range a.Frames {
		if a.Frames[i].Quality < 50 {
			continue
		}
		asked++
	search:
		for j := range b.Frames {
			if b.Frames[j].Quality < 50 {
				continue
			}
			for _, h := range a.Frames[i].PDQ {
				if d, ok := h.Distance(b.Frames[j].PDQ[0]); ok && d <= int(hashlist.DefaultRadii[hashlist.VPDQ]) {
					matched++
					break search
				}
			}
		}
	}
	if asked == 0 {
		return 0
	}
	return 100 * matched / asked
}

// TestVideoCopies makes copies of a film as they go around, and compares them with it.
func TestVideoCopies(t *testing.T) {
	h := videoHasher()
	path := original(t, "a.mp4", "cat", "coffee", "mountains")
	a, err := h.Hash(t.Context(), must(os.ReadFile(path)))
	if err != nil {
		t.Fatal(err)
	}
	if !a.Video || a.Format != "mp4" || len(a.Frames) < 30 || len(a.Frames) > 40 {
		t.Fatalf("%v %s with %d frames, want about 36", a.Video, a.Format, len(a.Frames))
	}
	x264 := []string{"-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"}
	edit := func(args ...string) []string { return append(append([]string{"-i", path}, args...), x264...) }
	var shares []string
	for _, c := range []struct {
		what, name string
		args       []string
		min        int // of the larger share
	}{
		{"re-encoded, CRF 40", "b.mp4", edit("-crf", "40"), 100},
		{"as WebM", "b.webm", []string{"-i", path, "-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "300k"}, 100},
		{"as MPEG-TS", "b.ts", edit("-f", "mpegts"), 100},
		{"scaled to 160x120", "b.mp4", edit("-vf", "scale=160:120"), 90},
		{"cropped by 1 %", "b.mp4", edit("-vf", "crop=iw*0.99:ih*0.99"), 80},
		{"cropped by 2 %", "b.mp4", edit("-vf", "crop=iw*0.98:ih*0.98"), 0},
		{"cut to its half", "b.mp4", append([]string{"-ss", "4.4"}, edit("-t", "4")...), 80},
		{"letterboxed by 2 %", "b.mp4", edit("-vf", "pad=iw:ih*1.02:0:(oh-ih)/2"), 0},
		{"letterboxed by 10 %", "b.mp4", edit("-vf", "pad=iw:ih*1.1:0:(oh-ih)/2"), 0},
		{"twice as fast", "b.mp4", edit("-vf", "setpts=PTS/2"), 80},
		{"half as fast", "b.mp4", edit("-vf", "setpts=PTS*2"), 80},
		{"mirrored", "b.mp4", edit("-vf", "hflip"), 100},
		{"with a logo", "b.mp4", edit("-vf", "drawbox=x=6:y=6:w=28:h=14:color=white:t=fill"), 80},
		{"in fragments", "b.mp4", append(edit(), "-movflags", "frag_keyframe+empty_moov"), 100},
	} {
		b, err := h.Hash(t.Context(), film(t, c.name, c.args...))
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		asked, listed := share(&b, &a), share(&a, &b)
		shares = append(shares, fmt.Sprintf("%-28s %3d %% of its %2d frames, %3d %% of the original's", c.what, asked, len(b.Frames), listed))
		if max(asked, listed) < c.min {
			t.Errorf("%s: shares %d and %d, want %d", c.what, asked, listed, c.min)
		}
	}
	t.Logf("shares:\n%s", strings.Join(shares, "\n"))
}

// TestVideoOthers: unrelated films do not match.
func TestVideoOthers(t *testing.T) {
	h := videoHasher()
	var all []Media
	for i, b := range [][]byte{
		must(os.ReadFile(original(t, "a.mp4", "cat", "coffee"))),
		must(os.ReadFile(original(t, "b.mp4", "dogs", "brook"))),
		must(os.ReadFile(original(t, "c.mp4", "mountains"))),
		film(t, "d.mp4", "-f", "lavfi", "-i", "mandelbrot=size=320x240:rate=5", "-t", "4", "-c:v", "libx264", "-preset", "ultrafast"),
		film(t, "e.mp4", "-f", "lavfi", "-i", "testsrc=size=320x240:rate=5", "-t", "4", "-c:v", "libx264", "-preset", "ultrafast"),
		film(t, "f.mp4", "-f", "lavfi", "-i", "life=size=320x240:rate=5:mold=10", "-t", "12", "-c:v", "libx264", "-preset", "ultrafast"),
		film(t, "g.mp4", "-f", "lavfi", "-i", "smptebars=size=320x240:rate=5", "-t", "4", "-c:v", "libx264", "-preset", "ultrafast"),
	} {
		m, err := h.Hash(t.Context(), b)
		if err != nil {
			t.Fatalf("film %d: %v", i, err)
		}
		all = append(all, m)
	}
	pairs := 0
	for i := range all {
		for j := range all {
			if i != j {
				pairs++
				if s := share(&all[i], &all[j]); s > 0 {
					t.Errorf("film %d shares %d %% of its frames with film %d", i, s, j)
				}
			}
		}
	}
	t.Logf("%d pairs of unrelated films", pairs)
}

// TestVideoHostile: whatever a file does, it costs no more than the limits.
func TestVideoHostile(t *testing.T) {
	l := DefaultLimits()
	l.Workers, l.VideoTimeout = 1, 10*time.Second
	h := must(NewHasher(l))
	defer h.Close()
	secret := filepath.Join(t.TempDir(), "secret.mp4")
	good := film(t, "a.mp4", "-f", "lavfi", "-i", "testsrc=size=320x240:rate=10", "-t", "5", "-c:v", "libx264", "-preset", "ultrafast")
	if err := os.WriteFile(secret, good, 0o600); err != nil {
		t.Fatal(err)
	}
	faststart := film(t, "b.mp4", "-f", "lavfi", "-i", "testsrc=size=320x240:rate=10", "-t", "5", "-c:v", "libx264", "-preset", "ultrafast", "-movflags", "+faststart")
	subtitles := filepath.Join(t.TempDir(), "s.srt")
	if err := os.WriteFile(subtitles, []byte("1\n00:00:00,000 --> 00:00:04,000\n{\\fn/etc/passwd}hello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	flip := bytes.Clone(faststart)
	for i := 3000; i < len(flip); i += 97 {
		flip[i] ^= 0x55
	}
	for _, c := range []struct {
		what   string
		file   []byte
		frames int // at least
		whole  bool
	}{
		{"good", good, 5, true},
		{"truncated, the index first", faststart[:len(faststart)*2/3], 1, false},
		{"truncated, the index lost", good[:len(good)*2/3], 0, false},
		{"only its beginning", good[:40], 0, false},
		{"with bits turned", flip, 0, false},
		{"a thousand frames a second", film(t, "c.mp4", "-f", "lavfi", "-i", "testsrc=size=64x64:rate=1000", "-frames:v", "2000", "-c:v", "libx264", "-preset", "ultrafast"), 5, false},
		{"600 frames of a few milliseconds", film(t, "d.mkv", "-f", "lavfi", "-i", "testsrc=size=64x64:rate=10", "-frames:v", "600", "-vf", "setpts=N", "-vsync", "passthrough", "-enc_time_base", "1/100000", "-c:v", "mjpeg"), 2, false},
		{"a million seconds between two frames", film(t, "e.mkv", "-f", "lavfi", "-i", "testsrc=size=64x64:rate=10", "-frames:v", "20", "-vf", "setpts=PTS*100000", "-vsync", "passthrough", "-c:v", "mjpeg"), 20, true},
		{"huge", film(t, "f.mp4", "-f", "lavfi", "-i", "color=size=12000x8000:rate=1", "-frames:v", "1", "-c:v", "mjpeg", "-pix_fmt", "yuvj420p"), 0, false},
		{"sound alone", film(t, "g.mp4", "-f", "lavfi", "-i", "sine", "-t", "2"), 0, false},
		{"sound, pictures, subtitles", film(t, "h.mkv", "-i", secret, "-f", "lavfi", "-i", "sine", "-i", subtitles, "-t", "4", "-map", "0", "-map", "1", "-map", "2", "-c:v", "copy", "-c:s", "srt"), 4, true},
		{"a playlist", []byte("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile://" + secret + "\n#EXT-X-ENDLIST\n"), 0, false},
		{"a concat script", []byte("ffconcat version 1.0\nfile " + secret + "\n"), 0, false},
		{"a playlist that calls itself a film", append([]byte("\x00\x00\x00\x14ftypisom\x00\x00\x00\x00isom"), "#EXTM3U\nfile://"+secret...), 0, false},
		{"FLV of noise", append([]byte("FLV\x01\x05\x00\x00\x00\x09"), bytes.Repeat([]byte("noise"), 2000)...), 0, false},
		{"Matroska of noise", append([]byte("\x1aE\xdf\xa3"), bytes.Repeat([]byte("\xff\x00noise"), 2000)...), 0, false},
	} {
		start := time.Now()
		m, err := h.Hash(t.Context(), c.file)
		took := time.Since(start)
		known := err == nil || errors.Is(err, ErrVideo) || errors.Is(err, ErrUndecodable)
		if !known || c.whole && err != nil || len(m.Frames) < c.frames || len(m.Frames) > maxVideoFrames {
			t.Errorf("%s: %d frames, %v", c.what, len(m.Frames), err)
		}
		if took > l.VideoTimeout+10*time.Second {
			t.Errorf("%s: took %v", c.what, took)
		}
		t.Logf("%s: %d frames in %v, %v", c.what, len(m.Frames), took.Round(time.Millisecond), err)
	}
}

// TestVideoEnds: a caller who leaves, time that is up, and a hasher that is closed end it.
func TestVideoEnds(t *testing.T) {
	long := film(t, "a.mp4", "-f", "lavfi", "-i", "testsrc2=size=640x480:rate=30", "-t", "20", "-c:v", "libx264", "-preset", "ultrafast", "-crf", "35")
	l := DefaultLimits()
	l.Workers, l.VideoTimeout = 1, 30*time.Millisecond
	h := must(NewHasher(l))
	defer h.Close()
	m, err := h.Hash(t.Context(), long)
	if !errors.Is(err, ErrVideo) || !m.Truncated || !strings.Contains(err.Error(), "not done after") {
		t.Errorf("time is up: %d frames, %v", len(m.Frames), err)
	}
	l.VideoTimeout = time.Minute
	slow := must(NewHasher(l))
	defer slow.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := slow.Hash(ctx, long); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		t.Errorf("the caller left: %v", err)
	}
	l.FFmpeg = ""
	none := must(NewHasher(l))
	defer none.Close()
	if m, err := none.Hash(t.Context(), long); !errors.Is(err, ErrVideo) || m.SHA256.IsZero() || len(m.Frames) > 0 {
		t.Errorf("without ffmpeg: %v", err)
	}
}

// BenchmarkVideo takes the time for a minute of video at 1280x720.
func BenchmarkVideo(b *testing.B) {
	file := film(b, "a.mp4", "-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=30", "-t", "60", "-c:v", "libx264", "-preset", "ultrafast", "-crf", "30")
	l := DefaultLimits()
	l.Workers, l.VideoTimeout, l.MaxBytes = 1, 5*time.Minute, 1<<30
	h := must(NewHasher(l))
	defer h.Close()
	var decode, hash time.Duration
	for b.Loop() {
		m, err := h.Hash(b.Context(), file)
		if err != nil {
			b.Fatal(err)
		}
		decode, hash = decode+m.DecodeTime, hash+m.HashTime
	}
	b.ReportMetric(decode.Seconds()/float64(b.N), "s-ffmpeg/min")
	b.ReportMetric(hash.Seconds()/float64(b.N), "s-PDQ/min")
	b.ReportMetric(0, "ns/op")
}

// probeVideo is what TestVideoConfined starts: it confines itself as ffmpeg is, and tries what a
// decoder that was taken over would.
func probeVideo() {
	dir, err := os.MkdirTemp("", "probe")
	if err != nil {
		fmt.Println("temp:", err)
		os.Exit(1)
	}
	defer os.RemoveAll(dir)
	old := filepath.Join(dir, "old")
	if err := errors.Join(os.WriteFile(old, []byte("x"), 0o600), confineVideo(1<<50, 60)); err != nil {
		fmt.Println("confine:", err)
		os.Exit(1)
	}
	open := func(name string, flags int) error {
		f, err := os.OpenFile(name, flags, 0o600)
		if err == nil {
			f.Close()
		}
		return err
	}
	_, dialErr := net.Dial("udp", "127.0.0.1:9")
	_, listenErr := net.Listen("tcp", "127.0.0.1:0")
	for _, c := range []struct {
		what string
		err  error
	}{
		{"create", open(filepath.Join(dir, "new"), os.O_WRONLY|os.O_CREATE)}, {"write", open(old, os.O_WRONLY)}, {"read and write", open(old, os.O_RDWR)},
		{"append", open(old, os.O_WRONLY|os.O_APPEND)}, {"empty", open(old, os.O_TRUNC)}, {"remove", os.Remove(old)}, {"rename", os.Rename(old, old+"2")},
		{"link", os.Symlink(old, old+"3")}, {"mkdir", os.Mkdir(filepath.Join(dir, "d"), 0o700)}, {"chmod", os.Chmod(old, 0o777)},
		{"dial", dialErr}, {"listen", listenErr}, {"exec", exec.Command("/bin/true").Run()}, {"kill", syscall.Kill(os.Getppid(), 0)},
	} {
		if !errors.Is(c.err, syscall.EPERM) {
			fmt.Printf("%s: %v\n", c.what, c.err)
		}
	}
	if err := open("/etc/passwd", os.O_RDONLY); err != nil {
		fmt.Println("cannot read:", err)
	}
	fmt.Println("done")
	os.Exit(0)
}

// TestVideoConfined: what becomes ffmpeg can read, and neither write, nor connect, nor start
// anything, nor signal anybody.
func TestVideoConfined(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), must(os.Executable()))
	cmd.Env = append(os.Environ(), probeEnv+"=video")
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "done\n" {
		t.Errorf("%v: %s", err, out)
	}
}

// TestVideosAtOnce: of many videos at once some are looked at, and none waits for long.
func TestVideosAtOnce(t *testing.T) {
	file := film(t, "a.mp4", "-f", "lavfi", "-i", "testsrc=size=160x120:rate=10", "-t", "2", "-c:v", "libx264", "-preset", "ultrafast")
	h := videoHasher()
	var all sync.WaitGroup
	var mu sync.Mutex
	seen, refused := 0, 0
	for range 12 {
		all.Go(func() {
			_, err := h.Hash(t.Context(), file)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				seen++
			case errors.Is(err, ErrVideo) && strings.Contains(err.Error(), "at once"):
				refused++
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if seen == 0 || seen+refused != 12 {
		t.Errorf("%d were looked at and %d refused", seen, refused)
	}
}
