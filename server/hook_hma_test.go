package server

import (
	"bytes"
	"image"
	"image/color/palette"
	"image/draw"
	"image/gif"
	"io"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"
)

// Whoever puts a banned picture behind a harmless one has nobody else's harmless picture refused: what HMA's surface
// remembers of a hash is the picture it is of, not the file that brought it.
func TestHookHMARemembersOnePicture(t *testing.T) {
	n := start(t, everyHook(AnswerReject))
	var frames []*image.Paletted
	for seed := range 2 {
		p := image.NewPaletted(image.Rect(0, 0, 320, 240), palette.Plan9)
		draw.FloydSteinberg.Draw(p, p.Rect, photo(40+uint64(seed), 320, 240), image.Point{})
		frames = append(frames, p)
	}
	file := func(frames ...*image.Paletted) []byte {
		var b bytes.Buffer
		if err := gif.EncodeAll(&b, &gif.GIF{Image: frames, Delay: make([]int, len(frames))}); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	harmless, both := file(frames[0]), file(frames...)
	m := n.media(both)
	if len(m.Frames) != 2 {
		t.Fatalf("%d frames of two", len(m.Frames))
	}
	n.ban("re-fused", m.Frames[1].PDQ[0])
	base := n.http + "/hook/hma/" + n.token("hma", ScopeLookup)
	ask := func(r *http.Response, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil || r.StatusCode != http.StatusOK {
			t.Fatalf("%d %s, %v", r.StatusCode, b, err)
		}
		return string(b)
	}
	hash := n.media(harmless).Frames[0].PDQ[0].Hex()
	for _, f := range [][]byte{harmless, both} {
		var b bytes.Buffer
		w := multipart.NewWriter(&b)
		part, err := w.CreateFormFile("photo", "x")
		if err != nil {
			t.Fatal(err)
		}
		part.Write(f)
		w.Close()
		if got := ask(http.Post(base+"/h/hash", w.FormDataContentType(), &b)); !strings.Contains(got, hash) {
			t.Fatalf("the hash is %s, want %s", got, hash)
		}
		if got := ask(http.Get(base + "/m/lookup?signal_type=pdq&signal=" + hash)); strings.TrimSpace(got) != "{}" {
			t.Errorf("the harmless hash is answered with %s", got)
		}
	}
}
