package platform_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/platform"
	"github.com/tocsin-fed/tocsin/store"
)

const secret = "secret"

// finding is a reject with all that a caller can say.
func finding(id string) platform.Finding {
	return platform.Finding{
		ID: id, At: time.Now(), Verdict: hashlist.VerdictReject, Labels: []string{"spam"}, Statement: "https://near.example/statements/1",
		Alias: "0b1f2c3d-1111-2222-3333-444455556666.webp", Post: "https://far.example/post/77", Actor: "https://far.example/u/mallory",
	}
}

// on makes a platform that does one act at a reject.
func on(kind, api, url string, k platform.Kind) platform.Platform {
	return platform.Platform{
		Name: "ours", Kind: kind, API: api, URL: url, Token: secret, On: map[hashlist.Verdict][]platform.Kind{hashlist.VerdictReject: {k}},
		PerHour: 10, PerDay: 20,
	}
}

func database(t *testing.T) *store.DB {
	t.Helper()
	db, err := store.Create(t.Context(), filepath.Join(t.TempDir(), "log.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// running makes a desk that runs until the test, or the function it returns, ends it.
func running(t *testing.T, c platform.Config) (*platform.Desk, func()) {
	t.Helper()
	c.Log = slog.New(slog.DiscardHandler)
	d, err := platform.NewDesk(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); d.Run(ctx) }()
	stop := func() { cancel(); <-done }
	t.Cleanup(stop)
	return d, stop
}

// settle waits until nothing is under way with an act.
func settle(t *testing.T, d *platform.Desk, id string) platform.Act {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	a, err := d.Settled(ctx, id)
	if err != nil || ctx.Err() != nil {
		t.Fatalf("act %s: %v, %v: %s", id, err, a.State, a.Note)
	}
	return a
}

func find(t *testing.T, d *platform.Desk, f platform.Finding) []platform.Act {
	t.Helper()
	made, err := d.Find(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// Each act, and what goes wrong with it, request by request as the platforms document it. The files in
// testdata are the transcripts.
func TestTranscripts(t *testing.T) {
	far := func(f *platform.Finding) { f.Actor = "https://far.example/users/mallory" }
	for _, c := range []struct {
		name      string
		kind, api string
		act       platform.Kind
		approve   bool // it waits for a person
		undo      bool
		state     platform.State // at the end
		retry     time.Duration  // the least until it is tried again; 0 for never
		note      string         // part of what happened last
	}{
		{name: "lemmy-019-ban-person", kind: "lemmy", api: "0.19", act: platform.BanPerson, undo: true, state: platform.Undone},
		{name: "lemmy-019-remove-post", kind: "lemmy", api: "0.19", act: platform.RemovePost, undo: true, state: platform.Undone},
		{name: "lemmy-019-purge-post", kind: "lemmy", api: "0.19", act: platform.PurgePost, state: platform.Done},
		{name: "lemmy-019-block-instance", kind: "lemmy", api: "0.19", act: platform.BlockInstance, approve: true, undo: true, state: platform.Undone},
		{name: "lemmy-019-block-instance-half", kind: "lemmy", api: "0.19", act: platform.BlockInstance, approve: true, state: platform.Doing, retry: time.Minute, note: "cut off"},
		{name: "lemmy-019-block-instance-none", kind: "lemmy", api: "0.19", act: platform.BlockInstance, approve: true, state: platform.Failed, note: "no blocked ones"},
		{name: "lemmy-019-block-instance-allow", kind: "lemmy", api: "0.19", act: platform.BlockInstance, approve: true, state: platform.Failed, note: "allow list"},
		{name: "lemmy-10-ban-person", kind: "lemmy", api: "1.0", act: platform.BanPerson, undo: true, state: platform.Undone},
		{name: "lemmy-10-block-instance", kind: "lemmy", api: "1.0", act: platform.BlockInstance, approve: true, undo: true, state: platform.Undone},
		{name: "lemmy-10-purge-post", kind: "lemmy", api: "1.0", act: platform.PurgePost, state: platform.Done},
		{name: "lemmy-019-admin", kind: "lemmy", api: "0.19", act: platform.BanPerson, state: platform.Declined, note: "admin"},
		{name: "lemmy-019-unknown-admin", kind: "lemmy", api: "0.19", act: platform.BanPerson, state: platform.Failed, note: "whether they are an admin"},
		{name: "lemmy-019-banned-already", kind: "lemmy", api: "0.19", act: platform.BanPerson, state: platform.Needless},
		{name: "lemmy-019-forbidden", kind: "lemmy", api: "0.19", act: platform.BanPerson, state: platform.Failed, note: "not_an_admin"},
		{name: "lemmy-019-unauthorized", kind: "lemmy", api: "0.19", act: platform.BanPerson, state: platform.Failed, note: "incorrect_login"},
		{name: "lemmy-019-limited", kind: "lemmy", api: "0.19", act: platform.BanPerson, state: platform.Due, retry: 10 * time.Minute, note: "rate_limit_error"},
		{name: "lemmy-019-limited-code", kind: "lemmy", api: "0.19", act: platform.BanPerson, state: platform.Due, retry: time.Minute},
		{name: "lemmy-019-slow", kind: "lemmy", api: "0.19", act: platform.BanPerson, state: platform.Doing, retry: time.Minute},
		{name: "lemmy-019-half", kind: "lemmy", api: "0.19", act: platform.BanPerson, state: platform.Doing, retry: time.Minute},
		{name: "lemmy-019-lies", kind: "lemmy", api: "0.19", act: platform.BanPerson, state: platform.Failed, note: "does not show it"},
		{name: "lemmy-019-redirect", kind: "lemmy", api: "0.19", act: platform.BanPerson, state: platform.Failed, note: "302"},
		{name: "lemmy-019-html", kind: "lemmy", api: "0.19", act: platform.BanPerson, state: platform.Failed, note: "not the JSON"},
		{name: "lemmy-019-down", kind: "lemmy", api: "0.19", act: platform.BanPerson, state: platform.Due, retry: time.Minute, note: "502"},
		{name: "pictrs-delete-media", kind: "pictrs", act: platform.DeleteMedia, state: platform.Done},
		{name: "pictrs-gone", kind: "pictrs", act: platform.DeleteMedia, state: platform.Needless},
		{name: "pictrs-key", kind: "pictrs", act: platform.DeleteMedia, state: platform.Failed, note: "401"},
		{name: "piefed-ban-person", kind: "piefed", act: platform.BanPerson, undo: true, state: platform.Undone},
		{name: "piefed-remove-post", kind: "piefed", act: platform.RemovePost, undo: true, state: platform.Undone},
		{name: "piefed-forbidden", kind: "piefed", act: platform.BanPerson, state: platform.Failed, note: "incorrect_login"},
		{name: "mastodon-sensitive", kind: "mastodon", act: platform.Sensitive, undo: true, state: platform.Undone},
		{name: "mastodon-suspend", kind: "mastodon", act: platform.Suspend, undo: true, state: platform.Undone},
		{name: "mastodon-suspend-followed", kind: "mastodon", act: platform.Suspend, undo: true, state: platform.Undone},
		{name: "mastodon-suspend-hidden", kind: "mastodon", act: platform.Suspend, state: platform.Done, note: "softer"},
		{name: "mastodon-staff", kind: "mastodon", act: platform.Suspend, state: platform.Declined, note: "staff"},
		{name: "mastodon-local", kind: "mastodon", act: platform.Suspend, state: platform.Done},
		{name: "mastodon-unknown", kind: "mastodon", act: platform.Suspend, state: platform.Needless},
		{name: "mastodon-forbidden", kind: "mastodon", act: platform.Suspend, state: platform.Failed, note: "This action is not allowed"},
		{name: "mastodon-block-instance", kind: "mastodon", act: platform.BlockInstance, undo: true, state: platform.Undone},
		{name: "mastodon-block-instance-followed", kind: "mastodon", act: platform.BlockInstance, state: platform.Done, note: "softer"},
		{name: "mastodon-block-instance-silenced", kind: "mastodon", act: platform.BlockInstance, undo: true, state: platform.Undone},
		{name: "mastodon-block-instance-changed", kind: "mastodon", act: platform.BlockInstance, undo: true, state: platform.Done, note: "somebody has changed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := replay(t, c.name)
			db := database(t)
			d, stop := running(t, platform.Config{Platforms: []platform.Platform{on(c.kind, c.api, s.URL, c.act)}, Acts: db, HTTP: quick()})
			f := finding("verdict-1")
			if c.kind == "mastodon" {
				far(&f)
			}
			made := find(t, d, f)
			if len(made) != 1 {
				t.Fatalf("%d acts", len(made))
			}
			id := made[0].ID
			if c.approve {
				if made[0].State != platform.Waiting {
					t.Fatalf("it does not wait for a person: %v", made[0].State)
				}
				if _, err := d.Decide(t.Context(), id, "approve", "alice", "seen it"); err != nil {
					t.Fatal(err)
				}
			}
			a := settle(t, d, id)
			if c.undo {
				if a.State != platform.Done {
					t.Fatalf("before the undo: %v: %s", a.State, a.Note)
				}
				if _, err := d.Decide(t.Context(), id, "undo", "alice", "mistake"); err != nil {
					t.Fatal(err)
				}
				a = settle(t, d, id)
			}
			if a.State != c.state || !strings.Contains(a.Note, c.note) {
				t.Errorf("%v: %s; want %v: %s", a.State, a.Note, c.state, c.note)
			}
			if wait := time.Until(a.Next); (c.retry == 0) != a.Next.IsZero() || c.retry > 0 && (wait < c.retry-10*time.Second || wait > c.retry+10*time.Second) {
				t.Errorf("next in %v, want in %v", wait, c.retry)
			}
			if strings.Contains(a.Note, secret) {
				t.Errorf("the credential is in %q", a.Note)
			}
			stop()
			kept, err := db.Acts(t.Context())
			if err != nil || len(kept) != 1 || kept[0].State != a.State || kept[0].Note != a.Note {
				t.Errorf("kept %+v, %v", kept, err)
			}
		})
	}
}

// The transcripts that there are are those that are tried.
func TestEachTranscriptIsTried(t *testing.T) {
	files, err := filepath.Glob("testdata/*.http")
	if err != nil || len(files) != 41 {
		t.Errorf("%d transcripts, want as many as TestTranscripts has cases: 41; %v", len(files), err)
	}
}

func TestPlatformsRefused(t *testing.T) {
	good := on("lemmy", "0.19", "https://lemmy.example", platform.BanPerson)
	for name, change := range map[string]func(*platform.Platform){
		"name":        func(p *platform.Platform) { p.Name = "Our Lemmy" },
		"kind":        func(p *platform.Platform) { p.Kind = "friendica" },
		"path":        func(p *platform.Platform) { p.URL = "https://lemmy.example/api" },
		"scheme":      func(p *platform.Platform) { p.URL = "ftp://lemmy.example" },
		"user":        func(p *platform.Platform) { p.URL = "https://u:p@lemmy.example" },
		"api":         func(p *platform.Platform) { p.API = "" },
		"no token":    func(p *platform.Platform) { p.Token = "" },
		"split token": func(p *platform.Platform) { p.Token = "a\r\nHost: x" },
		"act":         func(p *platform.Platform) { p.On[hashlist.VerdictReject] = []platform.Kind{platform.Suspend} },
		"verdict": func(p *platform.Platform) {
			p.On = map[hashlist.Verdict][]platform.Kind{hashlist.VerdictAllow: {platform.BanPerson}}
		},
		"approve": func(p *platform.Platform) { p.Approve = []platform.Kind{"nothing"} },
		"cap":     func(p *platform.Platform) { p.PerHour = -1 },
	} {
		p := good
		p.On = map[hashlist.Verdict][]platform.Kind{hashlist.VerdictReject: {platform.BanPerson}}
		change(&p)
		err := p.Validate()
		if err == nil {
			t.Errorf("%s: accepted", name)
		} else if strings.Contains(err.Error(), "Host: x") {
			t.Errorf("%s: the credential is in %q", name, err)
		}
	}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	if !slices.Contains(platform.Offers("lemmy"), platform.PurgePost) || platform.Offers("x") != nil {
		t.Error(platform.Offers("lemmy"), platform.Offers("x"))
	}
}
