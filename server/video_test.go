package server

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/hashlist/imagehash"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// film makes a video with ffmpeg.
func film(t *testing.T, args ...string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "film.mp4")
	args = append(append([]string{"-v", "error", "-y"}, args...), "-pix_fmt", "yuv420p", "-preset", "ultrafast", path)
	if out, err := exec.CommandContext(t.Context(), "ffmpeg", args...).CombinedOutput(); err != nil {
		t.Fatalf("ffmpeg (make test installs it): %v\n%s", err, out)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestVideo bans a film, and sends copies of it, others, and pictures to the hook and by gRPC.
func TestVideo(t *testing.T) {
	h, err := imagehash.NewHasher(imagehash.Limits{Workers: 2, FFmpeg: "ffmpeg"})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := h.Videos(); err != nil {
		t.Fatal(err)
	}
	n := start(t, func(c *Config) { c.Media = h; c.Hook.Video = AnswerReject })
	pan := func(photo string) []string {
		return []string{"-loop", "1", "-framerate", "8", "-t", "4", "-i", "../cmd/demo/photos/" + photo + ".jpg", "-vf", "scale=500:400,crop=320:240:x='t*20':y='t*12'"}
	}
	banned, other := film(t, pan("cat")...), film(t, pan("coffee")...)
	source := filepath.Join(t.TempDir(), "banned.mp4")
	if err := os.WriteFile(source, banned, 0o600); err != nil {
		t.Fatal(err)
	}
	copied := film(t, "-i", source, "-crf", "38", "-vf", "scale=240:180")
	part := film(t, "-ss", "1.3", "-i", source, "-t", "2")
	within := film(t, append(pan("coffee")[:8], "-i", source, "-filter_complex", "[0:v]scale=500:400,crop=320:240:x='t*20':y='t*12',setsar=1[a];[1:v]setsar=1[b];[a][b]concat=n=2:v=1[o]", "-map", "[o]")...)
	if i := bytes.Index(within, []byte("ftyp")); i != 4 {
		t.Fatal("no MP4")
	}
	frame, err := exec.CommandContext(t.Context(), "ffmpeg", "-v", "error", "-ss", "2", "-i", source, "-frames:v", "1", "-f", "mjpeg", "pipe:1").Output()
	if err != nil {
		t.Fatal(err)
	}
	m, err := h.Hash(t.Context(), banned)
	if err != nil {
		t.Fatal(err)
	}
	var hashes []hashlist.Hash
	for _, f := range m.Frames {
		if v := f.PDQ[0].OfVideo(); f.Quality >= 50 && !v.IsZero() {
			hashes = append(hashes, v)
		}
	}
	n.ban("films", hashes...)
	token := n.token("pictrs", ScopeLookup)
	c := pb.NewLookupServiceClient(n.dial(n.grpc, n.token("looks", ScopeLookup)))
	for _, v := range []struct {
		what string
		file []byte
		code int
	}{
		{"the film", banned, 403}, {"a copy", copied, 403}, {"a part of it", part, 403}, {"a longer one with it", within, 403},
		{"another film", other, 200}, {"a frame of it as a picture", frame, 200},
		{"half of the other's bytes", other[:len(other)/2], 415},
	} {
		if code, a := n.post(token, bytes.NewReader(v.file)); code != v.code {
			t.Errorf("%s: %d %+v, want %d", v.what, code, a, v.code)
		}
		r, err := sendMedia(t.Context(), c, v.file, nil, 1<<20)
		if v.code == 415 {
			if err == nil {
				t.Errorf("%s: gRPC answered %v", v.what, r)
			}
			continue
		}
		if err != nil || (r.GetLookup().GetVerdict() == pb.Verdict_VERDICT_REJECT) != (v.code == 403) {
			t.Errorf("%s: gRPC answered %v, %v", v.what, r.GetLookup().GetVerdict(), err)
		}
	}
	// A banned picture that is made a film.
	still := film(t, "-loop", "1", "-framerate", "5", "-t", "2", "-i", "../cmd/demo/photos/dogs.jpg", "-vf", "scale=480:360")
	dogs, err := os.ReadFile("../cmd/demo/photos/dogs.jpg")
	if err != nil {
		t.Fatal(err)
	}
	n.ban("pictures", n.media(dogs).Frames[0].PDQ[0])
	if code, a := n.post(token, bytes.NewReader(still)); code != 403 {
		t.Errorf("a banned picture as a film: %d %+v", code, a)
	}
}
