package server

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"image"
	"image/draw"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/store"
)

// instance is a whole node on loopback: database, window, federation, and the hook of a
// platform.
type instance struct {
	*node
	fed    *federation.Node
	window *hashlist.Window
	db     *store.DB
	origin string
	token  string
}

var instanceKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

func newInstance(t testing.TB) *instance {
	t.Helper()
	v := &instance{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	v.origin = "http://" + l.Addr().String()
	if v.db, err = store.Create(t.Context(), filepath.Join(t.TempDir(), "tocsin.db")); err != nil {
		t.Fatal(err)
	}
	policy := hashlist.DefaultPolicy()
	policy.Own = v.origin
	lists, err := hashlist.Open(t.Context(), v.db, policy)
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	if v.window, err = hashlist.OpenWindow(t.Context(), lists, hashlist.WindowConfig{
		Store: v.db, Quarantine: v.db, Key: bytes.Repeat([]byte{1}, hashlist.WindowKeySize), Keep: time.Hour, Entries: 10_000,
		Flood: hashlist.Flood{Uploads: 50, Share: .005}, Log: quiet,
	}); err != nil {
		t.Fatal(err)
	}
	_, secret, _ := ed25519.GenerateKey(rand.Reader)
	_, heads, _ := ed25519.GenerateKey(rand.Reader)
	issuer, err := federation.NewIssuer(v.origin+"/users/alice", secret)
	if err != nil {
		t.Fatal(err)
	}
	key, err := instanceKey()
	if err != nil {
		t.Fatal(err)
	}
	if v.fed, err = federation.New(t.Context(), federation.Config{
		Origin: v.origin, Lists: lists, Peers: v.db, Key: key, HeadKey: heads, Loopback: true, Version: "test", Log: quiet,
		Issuers: []federation.LocalIssuer{{Name: "alice", Public: issuer.PublicKey()}},
	}); err != nil {
		t.Fatal(err)
	}
	v.window.Start()
	web := &http.Server{Handler: v.fed.Handler(), ReadHeaderTimeout: 5 * time.Second}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { web.Serve(l) })
	running.Go(func() { v.fed.Run(ctx) })
	t.Cleanup(func() {
		web.Close()
		stop()
		running.Wait()
		v.window.Close()
		lists.Close()
		if err := v.db.Close(); err != nil {
			t.Error(err)
		}
	})
	v.node = start(t, func(c *Config) {
		c.Lists, c.Issuer, c.Origin, c.Policy, c.Window, c.Reviews = lists, issuer, v.origin, policy, v.window, v.db
	})
	v.lists, v.issuer = lists, issuer
	v.token = v.node.token("hook", ScopeLookup)
	return v
}

// say makes a statement of the instance's admin.
func (v *instance) say(s hashlist.Statement) string {
	v.t.Helper()
	r, err := v.issuer.Seal(s)
	if err != nil {
		v.t.Fatal(err)
	}
	if _, err := v.lists.Apply(v.t.Context(), r); err != nil {
		v.t.Fatal(err)
	}
	return r.Statement.ID
}

// upload has the platform's hook asked, and reports whether it accepts.
func (v *instance) upload(file []byte) bool {
	v.t.Helper()
	code, _, err := v.tryPost(v.token, bytes.NewReader(file))
	if err != nil {
		v.t.Error(err)
	}
	return code == http.StatusOK
}

// variant is a picture as somebody posts it who was refused before: compressed anew, made
// smaller, mirrored, turned, inverted, with its edge cut off.
func variant(t testing.TB, src image.Image, n int) []byte {
	b := src.Bounds()
	w, h := b.Dx(), b.Dy()
	at := func(f func(x, y int) (int, int), w, h int) image.Image {
		dst := image.NewRGBA(image.Rect(0, 0, w, h))
		for y := range h {
			for x := range w {
				fx, fy := f(x, y)
				dst.Set(x, y, src.At(b.Min.X+fx, b.Min.Y+fy))
			}
		}
		return dst
	}
	switch n % 5 {
	case 0:
		return encodeJPEG(t, src, 60+n%30)
	case 1:
		return encodeJPEG(t, at(func(x, y int) (int, int) { return w - 1 - x, y }, w, h), 80)
	case 2:
		return encodeJPEG(t, at(func(x, y int) (int, int) { return y, h - 1 - x }, h, w), 85)
	case 3:
		return encodeJPEG(t, at(func(x, y int) (int, int) { return x * 3 / 2, y * 3 / 2 }, w*2/3, h*2/3), 85)
	default:
		dst := image.NewRGBA(image.Rect(0, 0, w, h))
		draw.Draw(dst, dst.Bounds(), src, b.Min, draw.Src)
		for i := range dst.Pix {
			if i%4 != 3 {
				dst.Pix[i] = 255 - dst.Pix[i]
			}
		}
		return encodeJPEG(t, dst, 85)
	}
}

// innocent are pictures that nobody bans: the photographs of the demo, some that are made,
// and those of TOCSIN_TESTDATA.
func innocent(t testing.TB) (files [][]byte) {
	t.Helper()
	read := func(dir string) {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || len(files) >= 150 {
				return err
			}
			if e := filepath.Ext(path); e != ".jpg" && e != ".jpeg" && e != ".png" {
				return nil
			}
			file, err := os.ReadFile(path)
			if err == nil {
				files = append(files, file)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	read("../cmd/demo/photos")
	if dir := os.Getenv("TOCSIN_TESTDATA"); dir != "" {
		read(dir)
	}
	for seed := range uint64(20) {
		files = append(files, encodeJPEG(t, photo(1000+seed, 240, 180), 85))
	}
	return files
}

// TestAttackOfAugust replays what happened in August 2023: somebody posts variants of ten
// pictures through five of twenty instances, over and over. One moderator, on another
// instance, bans what they see. All is real: sockets, signatures, databases, hooks.
func TestAttackOfAugust(t *testing.T) {
	const instances, through, pictures = 20, 5, 10
	all := make([]*instance, instances)
	var starting sync.WaitGroup
	for i := range all {
		all[i] = newInstance(t)
	}
	moderator := all[instances-1]
	list := moderator.origin + "/lists/refused"
	moderator.say(hashlist.Statement{Kind: hashlist.DefineList, List: list, Definition: &hashlist.Definition{
		Name: "refused", Labels: []string{"csam"}, Audience: hashlist.Public, Action: hashlist.Reject, Radii: hashlist.DefaultRadii,
	}})
	for _, v := range all[:instances-1] {
		starting.Go(func() {
			if _, err := v.fed.Follow(t.Context(), list, hashlist.VerdictReject); err != nil {
				t.Error(err)
			}
		})
	}
	starting.Wait()
	for _, v := range all[:instances-1] {
		awaitWindow(t, "everybody trusts the moderator", func() bool {
			f := v.fed.Follows()
			return len(f) == 1 && f[0].State == federation.FollowAccepted
		})
	}
	// Everyday life.
	corpus := innocent(t)
	for i, file := range corpus {
		for j := range 3 {
			if !all[(i+j)%instances].upload(file) {
				t.Fatalf("picture %d is refused before anything is banned", i)
			}
		}
	}
	// The attack, until nothing gets through any more.
	var banning [pictures]hashlist.Hash
	var posts [pictures][5][]byte
	var asked [pictures]hashlist.Query
	for p, seed := 0, uint64(1); p < pictures; seed++ {
		original := photo(seed, 320, 320)
		banning[p] = moderator.media(encodeJPEG(t, original, 90)).Frames[0].PDQ[0]
		if banning[p].IsZero() {
			continue
		}
		known := true
		for n := range posts[p] {
			posts[p][n] = variant(t, original, n)
			q := hashlist.Query{Probes: probes(moderator.media(posts[p][n]), moderator.cfg.Policy.MinQuality)}
			// What PDQ does not know again is another test's; here it is about who learns of it when.
			known = known && slices.ContainsFunc(q.Probes, func(v hashlist.Probe) bool {
				d, same := v.Hash.Distance(banning[p])
				return same && d <= 20
			})
			asked[p] = q
		}
		if known {
			p++
		}
	}
	var accepted [through]atomic.Int64 // by instance
	var afterBan, refused atomic.Int64
	var banned atomic.Bool
	over := make(chan struct{})
	var attack sync.WaitGroup
	for i := range through {
		attack.Go(func() {
			pace := time.NewTicker(20 * time.Millisecond)
			defer pace.Stop()
			for n := 0; ; n++ {
				select {
				case <-pace.C:
				case <-over:
					return
				case <-t.Context().Done():
					return
				}
				late := banned.Load()
				if all[i].upload(posts[n%pictures][(n/pictures+i)%5]) {
					accepted[i].Add(1)
					if late {
						afterBan.Add(1)
					}
				} else {
					refused.Add(1)
				}
			}
		})
	}
	awaitWindow(t, "the attack is under way", func() bool {
		for i := range accepted {
			if accepted[i].Load() < 15 {
				return false
			}
		}
		return true
	})
	// The moderator sees each of the ten once, and bans it.
	begun := time.Now()
	banned.Store(true)
	for p := range pictures {
		moderator.say(hashlist.Statement{Kind: hashlist.AddHashes, List: list, Hashes: banning[p : p+1], Reason: "abuse of children"})
	}
	saidAfter := time.Since(begun)
	waiting := slices.Clone(all)
	var slowest time.Duration
	awaitWindow(t, "every instance refuses all ten", func() bool {
		waiting = slices.DeleteFunc(waiting, func(v *instance) bool {
			for p := range pictures {
				if v.lists.Lookup(asked[p]).Verdict < hashlist.VerdictHold { // the hook refuses what it cannot hold
					return false
				}
			}
			return true
		})
		slowest = time.Since(begun)
		return len(waiting) == 0
	})
	close(over)
	attack.Wait()
	// Every copy, at every instance, is refused.
	for i, v := range all {
		for p := range pictures {
			if v.upload(posts[p][(i+p)%5]) {
				t.Errorf("instance %d accepts a copy of picture %d", i, p)
			}
		}
	}
	// Everything that was accepted was found, at the instance that has it, and nothing else.
	copies, found := 0, 0
	for i := range through {
		want := int(accepted[i].Load())
		copies += want
		count := 0
		awaitWindow(t, fmt.Sprintf("instance %d finds its %d copies", i, want), func() bool {
			count = 0
			for h, err := range all[i].window.Hits(t.Context(), 0) {
				if err != nil {
					t.Fatal(err)
				}
				count += h.Seen.Count
			}
			return count >= want
		})
		found += count
	}
	foundAfter := time.Since(begun)
	if found != copies {
		t.Errorf("%d copies were found, %d were let through", found, copies)
	}
	for _, v := range all[through:] {
		if n := v.window.LastHit(); n != 0 {
			t.Errorf("%s found %d copies, and had none", v.origin, n)
		}
		if q := v.window.Quarantined(true); len(q) != 0 {
			t.Errorf("%s put the ban into quarantine: %+v", v.origin, q)
		}
	}
	blocked, tried := 0, 0
	for i, file := range corpus {
		for j := range 3 {
			tried++
			if !all[(i+j)%instances].upload(file) {
				blocked++
			}
		}
	}
	if blocked != 0 {
		t.Errorf("%d of %d innocent uploads were blocked", blocked, tried)
	}
	t.Logf("%d instances, %d pictures in 5 variants each through %d of them; said in %v; every instance refused all %v after the ban began;\n"+
		"copies let through: %d before the ban, %d after it began; found in recent windows: %d of %d, the last %v after the ban began; refused: %d; innocent uploads blocked: %d of %d",
		instances, pictures, through, saidAfter.Round(time.Millisecond), slowest.Round(time.Millisecond), int64(copies)-afterBan.Load(), afterBan.Load(), found, copies,
		foundAfter.Round(time.Millisecond), refused.Load(), blocked, tried)
}
