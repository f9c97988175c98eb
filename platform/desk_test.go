package platform_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/platform"
	"github.com/tocsin-fed/tocsin/store"
)

// site is a Lemmy 0.19 as far as bans go, which remembers who is banned and what it was asked.
type site struct {
	*httptest.Server
	mu     sync.Mutex
	banned map[string]bool
	bans   []string       // what changed somebody, in its order
	meet   func(ban bool) // called within the request that changes somebody, before the answer
}

func newSite(t *testing.T) *site {
	s := &site{banned: map[string]bool{}}
	ids := map[string]string{} // number to address
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v3/resolve_object", func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		actor := r.URL.Query().Get("q")
		id := fmt.Sprint(len(actor)*1000 + int(actor[len(actor)-1]))
		ids[id] = actor
		fmt.Fprintf(w, `{"person":{"person":{"id":%s,"banned":%v,"local":false},"is_admin":%v}}`, id, s.banned[actor], strings.HasSuffix(actor, "admin"))
	})
	mux.HandleFunc("POST /api/v3/user/ban", func(w http.ResponseWriter, r *http.Request) {
		var v struct {
			PersonID json.Number `json:"person_id"`
			Ban      bool        `json:"ban"`
		}
		json.NewDecoder(r.Body).Decode(&v)
		s.mu.Lock()
		actor := ids[v.PersonID.String()]
		s.banned[actor] = v.Ban
		s.bans = append(s.bans, fmt.Sprintf("%s %v", actor, v.Ban))
		meet := s.meet
		s.mu.Unlock()
		if meet != nil {
			meet(v.Ban)
		}
		io.WriteString(w, `{}`)
	})
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func (s *site) did() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.bans)
}

func (s *site) set(actor string, banned bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.banned[actor] = banned
}

// mortal is a database whose process ends: from then on nothing is written.
type mortal struct {
	*store.DB
	dead func() bool
}

func (m mortal) SaveAct(ctx context.Context, a platform.Act) error {
	if m.dead() {
		return errors.New("the process has ended")
	}
	return m.DB.SaveAct(ctx, a)
}

const mallory = "https://far.example/u/mallory"

// A process that ends between the request and the note of its outcome does nothing twice at the next
// start, and undoes nothing.
func TestKilledBetweenIntentAndOutcome(t *testing.T) {
	s := newSite(t)
	db := database(t)
	p := on("lemmy", "0.19", s.URL, platform.BanPerson)
	var once sync.Once
	ended := make(chan struct{})
	s.meet = func(bool) { once.Do(func() { close(ended) }) }
	dead := func() bool {
		select {
		case <-ended:
			return true
		default:
			return false
		}
	}
	d, stop := running(t, platform.Config{Platforms: []platform.Platform{p}, Acts: mortal{db, dead}, HTTP: quick()})
	id := find(t, d, finding("v1"))[0].ID
	<-ended
	stop()
	kept, err := db.Acts(t.Context())
	if err != nil || len(kept) != 1 || kept[0].State != platform.Doing || kept[0].Begun.IsZero() {
		t.Fatalf("what the next start finds: %+v, %v", kept, err)
	}

	d, stop = running(t, platform.Config{Platforms: []platform.Platform{p}, Acts: db, HTTP: quick()})
	if a := settle(t, d, id); a.State != platform.Done || !strings.Contains(a.Note, "cut off") {
		t.Errorf("%v: %s", a.State, a.Note)
	}
	if made := find(t, d, finding("v1")); len(made) != 0 {
		t.Errorf("the same finding asked for %+v", made)
	}
	stop()
	if got := s.did(); !slices.Equal(got, []string{mallory + " true"}) {
		t.Errorf("the platform was told %q", got)
	}

	// A restart with nothing under way leaves what an admin has taken back meanwhile.
	s.set(mallory, false)
	d, stop = running(t, platform.Config{Platforms: []platform.Platform{p}, Acts: db, HTTP: quick()})
	if a, err := d.Act(id); err != nil || a.State != platform.Done {
		t.Error(a, err)
	}
	stop()
	if got := s.did(); len(got) != 1 {
		t.Errorf("the platform was told %q", got)
	}
}

// A request that never arrived is repeated if that is noticed soon. If it is noticed late, an admin may
// have taken the act back, and a person is asked.
func TestKilledBeforeTheRequest(t *testing.T) {
	for _, c := range []struct {
		ago   time.Duration
		state platform.State
		bans  int
	}{{time.Minute, platform.Done, 1}, {time.Hour, platform.Unsure, 0}} {
		t.Run(c.ago.String(), func(t *testing.T) {
			s := newSite(t)
			db := database(t)
			begun := time.Now().Add(-c.ago).UTC().Truncate(time.Microsecond)
			if err := db.SaveAct(t.Context(), platform.Act{
				ID: "a", Platform: "ours", Kind: platform.BanPerson, Target: mallory, State: platform.Doing,
				Made: begun, Changed: begun, Begun: begun, Finding: finding("v1"),
			}); err != nil {
				t.Fatal(err)
			}
			asked := make(chan platform.Act, 1)
			d, stop := running(t, platform.Config{
				Platforms: []platform.Platform{on("lemmy", "0.19", s.URL, platform.BanPerson)}, Acts: db, HTTP: quick(),
				Ask: func(_ context.Context, a platform.Act) error { asked <- a; return nil },
			})
			if a := settle(t, d, "a"); a.State != c.state {
				t.Errorf("%v: %s", a.State, a.Note)
			}
			if c.state == platform.Unsure {
				if a := <-asked; a.ID != "a" {
					t.Error(a)
				}
				if _, err := d.Decide(t.Context(), "a", "run", "alice", ""); err != nil {
					t.Fatal(err)
				}
				if a := settle(t, d, "a"); a.State != platform.Done {
					t.Errorf("%v: %s", a.State, a.Note)
				}
				c.bans = 1
			}
			stop()
			if got := s.did(); len(got) != c.bans {
				t.Errorf("the platform was told %q", got)
			}
		})
	}
}

// An undo that is cut off is taken up again if that is noticed soon.
func TestKilledWhileTakingBack(t *testing.T) {
	s := newSite(t)
	s.set(mallory, true)
	db := database(t)
	now := time.Now().UTC().Truncate(time.Microsecond)
	for id, begun := range map[string]time.Duration{"soon": -time.Minute, "late": -time.Hour} {
		if err := db.SaveAct(t.Context(), platform.Act{
			ID: id, Platform: "ours", Kind: platform.BanPerson, Target: mallory + id, State: platform.Undoing,
			Made: now, Changed: now, Begun: now.Add(begun), Finding: finding("v1"),
			People: []platform.Decision{{Who: "alice", At: now.Add(begun - time.Second), What: "undo"}},
		}); err != nil {
			t.Fatal(err)
		}
		s.set(mallory+id, true)
	}
	d, stop := running(t, platform.Config{Platforms: []platform.Platform{on("lemmy", "0.19", s.URL, platform.BanPerson)}, Acts: db, HTTP: quick()})
	if a := settle(t, d, "soon"); a.State != platform.Undone {
		t.Errorf("%v: %s", a.State, a.Note)
	}
	if a := settle(t, d, "late"); a.State != platform.Done || !strings.Contains(a.Note, "may have done it anew") {
		t.Errorf("%v: %s", a.State, a.Note)
	}
	stop()
	if got := s.did(); !slices.Equal(got, []string{mallory + "soon false"}) {
		t.Errorf("the platform was told %q", got)
	}
}

// What is not switched on is not done, and nothing goes beyond a cap or past an audit log that is full.
func TestNothingUnasked(t *testing.T) {
	s := newSite(t)
	ban := []platform.Kind{platform.BanPerson}
	reject := map[hashlist.Verdict][]platform.Kind{hashlist.VerdictReject: ban}
	base := on("lemmy", "0.19", s.URL, platform.BanPerson)
	for name, c := range map[string]struct {
		change  func(*platform.Platform, *platform.Finding)
		want    platform.State // 0 for no act
		audited bool
	}{
		"off":         {func(p *platform.Platform, _ *platform.Finding) { p.On = nil }, 0, true},
		"milder":      {func(_ *platform.Platform, f *platform.Finding) { f.Verdict = hashlist.VerdictHold }, 0, true},
		"other label": {func(p *platform.Platform, _ *platform.Finding) { p.Labels = []string{"csam"} }, 0, true},
		"label":       {func(p *platform.Platform, _ *platform.Finding) { p.Labels = []string{"csam", "spam"} }, platform.Done, true},
		"no actor":    {func(_ *platform.Platform, f *platform.Finding) { f.Actor = "" }, 0, true},
		"bad actor":   {func(_ *platform.Platform, f *platform.Finding) { f.Actor = "javascript:alert(1)" }, 0, true},
		"dry run":     {func(p *platform.Platform, _ *platform.Finding) { p.DryRun = true }, platform.Dry, true},
		"approve":     {func(p *platform.Platform, _ *platform.Finding) { p.Approve = ban }, platform.Waiting, true},
		"hour":        {func(p *platform.Platform, _ *platform.Finding) { p.PerHour = 0 }, platform.Waiting, true},
		"day":         {func(p *platform.Platform, _ *platform.Finding) { p.PerDay = 0 }, platform.Waiting, true},
		"admin":       {func(_ *platform.Platform, f *platform.Finding) { f.Actor = "https://here.example/u/admin" }, platform.Declined, true},
		"ourselves": {func(p *platform.Platform, f *platform.Finding) {
			p.On = map[hashlist.Verdict][]platform.Kind{hashlist.VerdictReject: {platform.BlockInstance}}
			f.Actor = "https://Here.example:443/u/x"
		}, 0, true},
		"no audit": {func(*platform.Platform, *platform.Finding) {}, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			p, f := base, finding("v-"+name)
			p.On = reject
			f.Actor += name[:1]
			if f.Actor == mallory+"n" {
				f.Actor = ""
			}
			c.change(&p, &f)
			before := len(s.did())
			d, _ := running(t, platform.Config{
				Platforms: []platform.Platform{p}, Acts: database(t), HTTP: quick(), Own: []string{"here.example"},
				Audit: func(context.Context, platform.Act) error {
					if c.audited {
						return nil
					}
					return errors.New("the disk is full")
				},
			})
			if !c.audited {
				f.Actor = mallory + "-audit"
			}
			made, err := d.Find(t.Context(), f)
			if (err == nil) != c.audited {
				t.Fatal(err)
			}
			if c.want == 0 {
				if len(made) != 0 {
					t.Fatalf("%+v", made)
				}
				if got := s.did(); len(got) != before {
					t.Errorf("the platform was told %q", got)
				}
				return
			}
			if a := settle(t, d, made[0].ID); a.State != c.want {
				t.Errorf("%v: %s", a.State, a.Note)
			}
			if got := s.did(); (len(got) != before) != (c.want == platform.Done) {
				t.Errorf("the platform was told %q", got)
			}
		})
	}
}

// A cap lets through so many, and the rest waits for a person, who may let more through.
func TestCap(t *testing.T) {
	s := newSite(t)
	p := on("lemmy", "0.19", s.URL, platform.BanPerson)
	p.PerHour = 3
	d, _ := running(t, platform.Config{Platforms: []platform.Platform{p}, Acts: database(t), HTTP: quick()})
	var waiting []string
	for i := range 8 {
		f := finding(fmt.Sprint("v", i))
		f.Actor = fmt.Sprintf("https://far%d.example/u/%d", i, i)
		for _, a := range find(t, d, f) {
			if settle(t, d, a.ID).State == platform.Waiting {
				waiting = append(waiting, a.ID)
			}
		}
	}
	if got := s.did(); len(got) != 3 || len(waiting) != 5 {
		t.Fatalf("the platform was told %q, and %d wait", got, len(waiting))
	}
	if _, err := d.Decide(t.Context(), waiting[0], "approve", "alice", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Decide(t.Context(), waiting[1], "decline", "alice", "harmless"); err != nil {
		t.Fatal(err)
	}
	if a := settle(t, d, waiting[0]); a.State != platform.Done {
		t.Errorf("%v: %s", a.State, a.Note)
	}
	if got := s.did(); len(got) != 4 {
		t.Errorf("the platform was told %q", got)
	}
	for _, c := range []struct{ id, what, who string }{
		{waiting[1], "approve", "alice"}, {waiting[0], "approve", "alice"}, {waiting[2], "undo", "alice"}, {waiting[2], "explode", "alice"}, {waiting[2], "approve", ""},
	} {
		if _, err := d.Decide(t.Context(), c.id, c.what, c.who, ""); !errors.Is(err, platform.ErrState) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	if _, err := d.Decide(t.Context(), "nothing", "approve", "alice", ""); !errors.Is(err, platform.ErrNoAct) {
		t.Error(err)
	}
}

// What a person took back, another finding does not do again by itself.
func TestTakenBackStaysSo(t *testing.T) {
	s := newSite(t)
	d, _ := running(t, platform.Config{Platforms: []platform.Platform{on("lemmy", "0.19", s.URL, platform.BanPerson)}, Acts: database(t), HTTP: quick()})
	id := find(t, d, finding("v1"))[0].ID
	settle(t, d, id)
	if made := find(t, d, finding("v2")); len(made) != 0 {
		t.Errorf("another finding on the same day asked for %+v", made)
	}
	if _, err := d.Decide(t.Context(), id, "undo", "alice", "she is innocent"); err != nil {
		t.Fatal(err)
	}
	if a := settle(t, d, id); a.State != platform.Undone || len(a.People) != 1 || a.People[0].Why != "she is innocent" {
		t.Errorf("%+v", a)
	}
	made := find(t, d, finding("v3"))
	if len(made) != 1 || made[0].State != platform.Waiting {
		t.Errorf("%+v", made)
	}
	if got := s.did(); !slices.Equal(got, []string{mallory + " true", mallory + " false"}) {
		t.Errorf("the platform was told %q", got)
	}
}

// Every change of an act is in the audit log before the request that does it, with its undo.
func TestAuditComesFirst(t *testing.T) {
	s := newSite(t)
	var mu sync.Mutex
	var log []string
	note := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		log = append(log, fmt.Sprintf(format, args...))
	}
	s.meet = func(ban bool) { note("request %v", ban) }
	d, _ := running(t, platform.Config{
		Platforms: []platform.Platform{on("lemmy", "0.19", s.URL, platform.BanPerson)}, Acts: database(t), HTTP: quick(),
		Audit: func(_ context.Context, a platform.Act) error {
			note("%v: %s", a.State, strings.ReplaceAll(a.Undo(), a.ID, "ID"))
			return nil
		},
	})
	id := find(t, d, finding("v1"))[0].ID
	settle(t, d, id)
	if _, err := d.Decide(t.Context(), id, "undo", "alice", ""); err != nil {
		t.Fatal(err)
	}
	settle(t, d, id)
	want := []string{
		"due: nothing to undo: it is due", "doing: nothing to undo: it is doing", "request true", "done: tocsin acts undo ID",
		"undoing: tocsin acts undo ID", "request false", "undone: undone",
	}
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(log, want) {
		t.Errorf("got  %q\nwant %q", log, want)
	}
}

func TestTooMuchOfAnAnswer(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"person":"`)
		junk := strings.Repeat("x", 1<<20)
		for range 16 {
			if _, err := io.WriteString(w, junk); err != nil {
				return
			}
		}
	}))
	t.Cleanup(s.Close)
	c := platform.NewClient()
	d, _ := running(t, platform.Config{Platforms: []platform.Platform{on("lemmy", "0.19", s.URL, platform.BanPerson)}, Acts: database(t), HTTP: c})
	id := find(t, d, finding("v1"))[0].ID
	if a := settle(t, d, id); a.State != platform.Failed || !strings.Contains(a.Note, "more than 8388608 bytes") {
		t.Errorf("%v: %s", a.State, a.Note)
	}
}
