package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"image"
	"image/color/palette"
	"image/gif"
	"image/jpeg"
	"image/png"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// traced are the system calls by which bytes could get into a file.
const traced = "trace=openat,open,openat2,creat,write,pwrite64,writev,pwritev,pwritev2,memfd_create,mmap,rename,renameat,renameat2,link,linkat,symlink,symlinkat,sendfile,copy_file_range,splice,ftruncate,truncate,fallocate"

// TestNoUploadIsWritten uploads files of every kind while strace looks on, and
// shows that the node opens no file for writing but its database, and that no
// part of an upload is in what it writes there.
func TestNoUploadIsWritten(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Fatal("install strace (make test does)")
	}
	dir := newNode(t)
	trace := filepath.Join(filepath.Dir(dir), "trace")
	serve := program(t, serveArgs(dir, "--set", "media.workers=2")...)
	// strace cannot set the name that makes the test binary the program: a link has it.
	link := filepath.Join(filepath.Dir(dir), "tocsin")
	if err := os.Symlink(serve.Path, link); err != nil {
		t.Fatal(err)
	}
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Fatal(err)
	}
	cmd := &exec.Cmd{Path: strace, Env: serve.Env, Args: slices.Concat(
		[]string{"strace", "-f", "-yy", "-xx", "-s", "65536", "-e", traced, "-e", "signal=none", "-o", trace, link}, serve.Args[1:])}
	d := startDaemon(t, dir, cmd)
	d.list(t, "refused")
	token := d.token(t, "pictrs", "lookup")
	uploads := strangersFiles(t)
	tocsin(t, "ban", "--data", dir, "--list", "refused", "../demo/photos/cat.jpg")
	refused := 0
	for _, u := range uploads {
		status, body, err := hook(t.Context(), http.DefaultClient, d.HTTP, token, "application/octet-stream", u.bytes)
		if err != nil {
			t.Fatalf("%s: %v", u.name, err)
		}
		want := http.StatusOK
		switch {
		case u.banned:
			want = http.StatusForbidden
		case !u.picture:
			want = http.StatusUnprocessableEntity
		}
		if status != want {
			t.Errorf("%s: the hook answered %d, want %d: %s", u.name, status, want, body)
		}
		if status == http.StatusForbidden {
			refused++
		}
		answer, err := lookupMedia(t.Context(), d.lookups, u.bytes)
		if (err == nil) != u.picture {
			t.Errorf("%s: gRPC answered %v, %v", u.name, answer, err)
		}
		if u.picture && answer.GetMedia().GetFormat() != u.format {
			t.Errorf("%s: was taken for %q, want %q", u.name, answer.GetMedia().GetFormat(), u.format)
		}
		if u.banned != (answer.GetLookup().GetVerdict() == pb.Verdict_VERDICT_REJECT) {
			t.Errorf("%s: gRPC answered %v", u.name, answer)
		}
	}
	if refused == 0 {
		t.Error("no upload was refused")
	}
	d.stop(t, childOf(t, d.cmd.Process.Pid))

	c := newChecker(dir, uploads)
	if err := c.read(trace); err != nil {
		t.Fatal(err)
	}
	for _, f := range c.found {
		t.Error(f)
	}
	// Without these the trace would show nothing because nothing was seen.
	if c.writes["tocsin.db-wal"] == 0 || c.toPipes < totalBytes(uploads)/2 {
		t.Errorf("the trace has %v writes to files and %d bytes to pipes and sockets for %d bytes of uploads: it is not whole", c.writes, c.toPipes, totalBytes(uploads))
	}
	t.Logf("%d lines of trace; %d uploads of %d bytes in all, %d refused; writes to files: %v; %d bytes to pipes and sockets",
		c.lines, len(uploads), totalBytes(uploads), refused, c.writes, c.toPipes)
}

// TestTheTraceCheckFinds shows that the check of TestNoUploadIsWritten finds a
// program that does what the node must not, in each of the ways it looks for.
func TestTheTraceCheckFinds(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Fatal("install strace (make test does)")
	}
	dir := t.TempDir()
	marker := make([]byte, 4096)
	seeded := rand.NewChaCha8([32]byte{1})
	seeded.Read(marker)
	upload := filepath.Join(dir, "upload")
	if err := os.WriteFile(upload, marker, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ what, script, want string }{
		{"a write to another file", `echo harmless > "$D/other"`, "opens"},
		{"part of an upload in the database", `dd if="$D/upload" of="$D/tocsin.db" bs=1 skip=1001 count=40 2>/dev/null; dd if="$D/upload" of="$D/tocsin.db" bs=999 count=1 2>/dev/null`, "upload"},
		{"a file that is renamed into place", `mv "$D/upload" "$D/kept"`, "rename"},
		{"nothing of an upload in the database", `echo harmless > "$D/tocsin.db"`, ""},
	} {
		trace := filepath.Join(t.TempDir(), "trace")
		cmd := exec.Command("strace", "-f", "-yy", "-xx", "-s", "65536", "-e", traced, "-o", trace, "sh", "-c", c.script)
		cmd.Env = append(os.Environ(), "D="+dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", c.what, err, out)
		}
		ch := newChecker(dir, []stranger{{name: "marker", bytes: marker}})
		if err := ch.read(trace); err != nil {
			t.Fatal(err)
		}
		switch {
		case c.want == "" && len(ch.found) > 0:
			t.Errorf("%s: found %q", c.what, ch.found)
		case c.want != "" && !slices.ContainsFunc(ch.found, func(f string) bool { return strings.Contains(f, c.want) }):
			t.Errorf("%s: found %q, want something about %q", c.what, ch.found, c.want)
		}
	}
}

// childOf is the process that strace runs.
func childOf(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.Fields(string(b) + " none")[0])
	if err != nil {
		t.Fatalf("strace has no child: %q", b)
	}
	return child
}

// stranger is a file that is uploaded.
type stranger struct {
	name, format    string
	bytes           []byte
	picture, banned bool
}

func totalBytes(all []stranger) (n int) {
	for _, u := range all {
		n += len(u.bytes)
	}
	return n
}

// strangersFiles are files of every kind, most of them hard to compress, so
// that a part of one is not anything else.
func strangersFiles(t *testing.T) []stranger {
	t.Helper()
	seed := rand.NewPCG(7, 7)
	noise := func(w, h int) image.Image {
		img := image.NewRGBA(image.Rect(0, 0, w, h))
		for i := range img.Pix {
			img.Pix[i] = byte(seed.Uint64())
		}
		return img
	}
	var big, small bytes.Buffer
	if err := png.Encode(&big, noise(800, 600)); err != nil {
		t.Fatal(err)
	}
	if err := jpeg.Encode(&small, noise(640, 480), &jpeg.Options{Quality: 90}); err != nil {
		t.Fatal(err)
	}
	if big.Len() < 1<<20 {
		t.Fatalf("the big picture has %d bytes, want more than 1 MiB", big.Len())
	}
	cat := photo(t, "cat.jpg")
	junk := make([]byte, 300_000)
	for i := range junk {
		junk[i] = byte(seed.Uint64())
	}
	all := []stranger{
		{"the banned photograph", "jpeg", cat, true, true},
		{"the banned photograph, with a comment behind it", "jpeg", append(slices.Clone(cat), junk[:5000]...), true, true},
		{"another photograph", "jpeg", photo(t, "coffee.jpg"), true, false},
		{"a JPEG of noise", "jpeg", small.Bytes(), true, false},
		{"a PNG of more than 1 MiB", "png", big.Bytes(), true, false},
		{"no picture", "", junk, false, false},
		{"a broken JPEG", "", append(slices.Clone(cat[:300]), junk[:9000]...), false, false},
	}
	var moving bytes.Buffer
	animation := &gif.GIF{}
	for range 3 {
		frame := image.NewPaletted(image.Rect(0, 0, 200, 150), palette.Plan9)
		for i := range frame.Pix {
			frame.Pix[i] = byte(seed.Uint64())
		}
		animation.Image, animation.Delay = append(animation.Image, frame), append(animation.Delay, 10)
	}
	if err := gif.EncodeAll(&moving, animation); err != nil {
		t.Fatal(err)
	}
	all = append(all, stranger{"an animated GIF", "gif", moving.Bytes(), true, false})
	for name, args := range map[string][]string{
		"the banned photograph as a film": {"-loop", "1", "-t", "2", "-framerate", "5", "-i", "../demo/photos/cat.jpg", "-vf", "scale=640:480"},
		"a film":                          {"-f", "lavfi", "-i", "mandelbrot=size=320x240:rate=10", "-t", "3"},
	} {
		path := filepath.Join(t.TempDir(), "film.mp4")
		if out, err := exec.Command("ffmpeg", append(append([]string{"-v", "error", "-y"}, args...), "-pix_fmt", "yuv420p", path)...).CombinedOutput(); err != nil {
			t.Fatalf("ffmpeg (make test installs it): %v\n%s", err, out)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, stranger{name, "mp4", b, true, args[0] == "-loop"})
	}
	for _, path := range []string{
		"testdata/media/coffee.webp", "../../hashlist/imagehash/testdata/sample.avif",
		"../../hashlist/imagehash/testdata/sample.heic", "../../hashlist/imagehash/testdata/sample.jxl",
	} {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, stranger{path, strings.TrimPrefix(filepath.Ext(path), "."), b, true, false})
	}
	return all
}

// checker reads what strace wrote and notes what must not be.
type checker struct {
	dir     string
	uploads []stranger
	blocks  map[[blockSize]byte][]place // every block of the uploads that is not monotonous

	lines   int
	writes  map[string]int // to files of dir, by name
	toPipes int            // bytes written to pipes and sockets
	found   []string
}

type place struct{ upload, offset int }

// A run of 32 bytes of an upload has one of its blocks of 16 at a multiple of 16
// whole within it, wherever it begins.
const (
	blockSize = 16
	runSize   = 32
)

func newChecker(dir string, uploads []stranger) *checker {
	c := &checker{dir: dir, uploads: uploads, blocks: map[[blockSize]byte][]place{}, writes: map[string]int{}}
	for i, u := range uploads {
		for o := 0; o+blockSize <= len(u.bytes); o += blockSize {
			if b := u.bytes[o : o+blockSize]; telling(b) {
				c.blocks[[blockSize]byte(b)] = append(c.blocks[[blockSize]byte(b)], place{i, o})
			}
		}
	}
	return c
}

// telling reports whether bytes are varied enough to come from one place only:
// zeros are in every file and every database.
func telling(b []byte) bool {
	var seen [256]bool
	n := 0
	for _, v := range b {
		if !seen[v] {
			seen[v] = true
			n++
		}
	}
	return n >= 8
}

var (
	callLine = regexp.MustCompile(`^\d+ +([a-z0-9_]+)\((.*)$`)
	quoted   = regexp.MustCompile(`"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?`)
	// The first argument of a call that writes: a descriptor and what is behind it.
	written = regexp.MustCompile(`^\d+<((?:->|"[^"]*"|[^">])*)>(?:\(deleted\))?, `)
)

func (c *checker) read(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		c.lines++
		m := callLine.FindStringSubmatch(lines.Text())
		if m == nil {
			continue // the end of a call that was interrupted, a signal, an exit
		}
		c.call(m[1], m[2])
	}
	return lines.Err()
}

func (c *checker) note(format string, args ...any) {
	c.found = append(c.found, fmt.Sprintf(format, args...))
}

// own returns the name of one of the node's own files, and false for any other.
func (c *checker) own(path string) (string, bool) {
	name, ok := strings.CutPrefix(path, c.dir+"/")
	return name, ok && slices.Contains([]string{"tocsin.db", "tocsin.db-wal", "tocsin.db-shm", "tocsin.db.lock", "keys/window.key"}, name)
}

// call judges one call by its name and the text of its arguments.
func (c *checker) call(name, args string) {
	switch name {
	case "open", "openat", "openat2", "creat":
		path, whole := literal(args)
		flags := args[strings.LastIndex(args, `"`)+1:]
		if name != "creat" && !strings.Contains(flags, "O_WRONLY") && !strings.Contains(flags, "O_RDWR") && !strings.Contains(flags, "O_CREAT") && !strings.Contains(flags, "O_TMPFILE") {
			return
		}
		if _, ok := c.own(string(path)); !ok && !harmlessFiles[string(path)] || !whole {
			c.note("it opens %q for writing: %s", path, flags)
		}
	case "write", "pwrite64", "writev", "pwritev", "pwritev2":
		m := written.FindStringSubmatch(args)
		if m == nil {
			c.note("%s to an unknown place: %.200s", name, args)
			return
		}
		target := unhex(m[1])
		data, whole := literal(args[len(m[0]):])
		// A pipe, a socket, an event counter; memory that has no name, in which a video is given to its decoder.
		if !strings.HasPrefix(target, "/") || harmlessFiles[target] || target == "/memfd:video" {
			c.toPipes += len(data)
			return
		}
		file, ok := c.own(target)
		if !ok {
			c.note("it writes to %s", target)
		}
		c.writes[file]++
		if !whole {
			c.note("a write to %s is not wholly in the trace", target)
		}
		c.compare(target, data)
	case "mmap":
		// A shared mapping of a file that may be written writes it without a call.
		if strings.Contains(args, "PROT_WRITE") && strings.Contains(args, "MAP_SHARED") && !strings.Contains(args, "MAP_ANONYMOUS") && !strings.Contains(args, "/tocsin.db-shm>") {
			if !strings.Contains(unhex(args), c.dir+"/tocsin.db-shm") {
				c.note("it maps a file for writing: %.300s", args)
			}
		}
	case "memfd_create":
		if name, _ := literal(args); string(name) != "video" {
			c.note("it makes a file in memory called %q", name)
		}
	case "ftruncate", "truncate", "fallocate":
		// They write zeros at most.
	case "rename", "renameat", "renameat2":
		// The socket is made under another name. It is no file: no open made it.
		if to := quoted.FindAllStringSubmatch(args, -1); len(to) != 2 || unhex(to[1][1]) != c.dir+"/tocsin.sock" {
			c.note("it calls %s, which could keep a file: %.300s", name, unhex(args))
		}
	default: // link, symlink, sendfile, copy_file_range, splice, memfd_create
		if name == "splice" && !strings.Contains(unhex(args), "</") || strings.HasPrefix(name, "sendfile") && !strings.Contains(unhex(args), "</") {
			return // from a socket to a pipe
		}
		c.note("it calls %s, which could keep a file: %.300s", name, args)
	}
}

// harmlessFiles keep nothing.
var harmlessFiles = map[string]bool{"/dev/null": true}

// literal joins the strings of a call's arguments, and says whether strace
// showed them whole.
func literal(args string) (data []byte, whole bool) {
	whole = true
	for _, m := range quoted.FindAllStringSubmatch(args, -1) {
		b, err := hex.DecodeString(strings.ReplaceAll(m[1], `\x`, ""))
		if err != nil || m[2] != "" {
			whole = false
		}
		data = append(data, b...)
	}
	return data, whole
}

// unhex undoes strace's spelling of bytes in what is behind a descriptor.
func unhex(s string) string {
	return hexByte.ReplaceAllStringFunc(s, func(x string) string {
		b, err := hex.DecodeString(x[2:])
		if err != nil {
			return x
		}
		return string(b)
	})
}

var hexByte = regexp.MustCompile(`\\x[0-9a-f]{2}`)

// compare looks for a run of an upload in what was written.
func (c *checker) compare(target string, data []byte) {
	for o := 0; o+blockSize <= len(data); o++ {
		for _, p := range c.blocks[[blockSize]byte(data[o:])] {
			u := c.uploads[p.upload].bytes
			before, after := 0, blockSize
			for o-before > 0 && p.offset-before > 0 && data[o-before-1] == u[p.offset-before-1] {
				before++
			}
			for o+after < len(data) && p.offset+after < len(u) && data[o+after] == u[p.offset+after] {
				after++
			}
			if before+after >= runSize {
				c.note("%d bytes of the upload %q are written to %s", before+after, c.uploads[p.upload].name, target)
				return
			}
		}
	}
}
