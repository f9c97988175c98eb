package server

import (
	"bytes"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
	"github.com/tocsin-fed/tocsin/store"
)

// campaign is a node whose users have uploaded harmless pictures, and an issuer whom it
// believes partly and who bans them.
type campaign struct {
	*node
	window   *hashlist.Window
	token    string
	pictures [][]byte        // real ones
	copies   [][]byte        // of the same, compressed anew
	hashes   []hashlist.Hash // what is banned, those of the pictures first
	seen     uint64          // uploads that the window is to remember
	said     int             // statements of the issuer
}

const (
	eve     = "https://eve.example/users/eve"
	eveBans = "https://eve.example/lists/ban"
)

// startCampaign has so many harmless pictures uploaded at the hook, three times each, and others asked
// about by their hashes, twice each, and lets nine hours pass.
func startCampaign(t *testing.T, pictures, hashes int) *campaign {
	t.Helper()
	db, err := store.Create(t.Context(), filepath.Join(t.TempDir(), "tocsin.db"))
	if err != nil {
		t.Fatal(err)
	}
	policy := hashlist.DefaultPolicy()
	policy.Own = testOrigin
	lists, err := hashlist.Open(t.Context(), db, policy)
	if err != nil {
		t.Fatal(err)
	}
	v := &campaign{}
	var late atomic.Int64 // the window's clock
	late.Store(int64(-9 * time.Hour))
	t.Cleanup(func() {
		v.window.Close()
		lists.Close()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	v.node = start(t, func(c *Config) {
		c.Lists, c.Policy, c.Audit, c.Reviews = lists, policy, db, db
		if v.window, err = hashlist.OpenWindow(t.Context(), lists, hashlist.WindowConfig{ // the defaults of config.toml
			Store: db, Quarantine: db, Key: bytes.Repeat([]byte{7}, hashlist.WindowKeySize), Keep: 7 * 24 * time.Hour, Entries: 100_000, Log: c.Log,
			Flood: hashlist.Flood{Uploads: 50, Share: .005}, Now: func() time.Time { return time.Now().Add(time.Duration(late.Load())) },
		}); err != nil {
			t.Fatal(err)
		}
		v.window.Start()
		c.Window = v.window
	})
	v.lists = lists
	v.token = v.node.token("hook", ScopeLookup)
	for seed := uint64(1); len(v.pictures) < pictures; seed++ {
		img := photo(seed, 200, 150)
		file := encodeJPEG(t, img, 90)
		f := v.media(file).Frames[0]
		if f.Quality < policy.MinQuality {
			continue
		}
		v.pictures, v.copies, v.hashes = append(v.pictures, file), append(v.copies, encodeJPEG(t, img, 60)), append(v.hashes, f.PDQ[0])
	}
	v.hashes = append(v.hashes, randomHashes(hashes-pictures)...)
	for _, h := range v.hashes[:2*pictures] {
		v.secrets = append(v.secrets, h.Hex())
	}
	for range 3 {
		for i := range v.pictures {
			if code, _ := v.post(v.token, bytes.NewReader(v.pictures[i])); code != 200 {
				t.Fatalf("picture %d is refused before anything is banned: %d", i, code)
			}
			v.seen++
		}
	}
	for range 2 {
		v.lookUp(v.hashes[pictures:], true)
	}
	late.Store(0)
	return v
}

// lookUp asks about hashes and counts the verdicts. With remembered, the node keeps them in its window.
func (v *campaign) lookUp(hashes []hashlist.Hash, remembered bool) (count [hashlist.VerdictReject + 1]int) {
	v.t.Helper()
	stream, err := pb.NewLookupServiceClient(v.owner()).LookupStream(v.t.Context())
	if err != nil {
		v.t.Fatal(err)
	}
	defer stream.CloseSend()
	for len(hashes) > 0 {
		var r pb.LookupStreamRequest
		n := min(len(hashes), 500)
		for _, h := range hashes[:n] {
			l := &pb.LookupRequest{Hashes: []string{h.String()}}
			if remembered {
				l.Reference = &pb.Reference{Post: fmt.Sprintf("https://here.example/post/%.8s", h.Hex())}
			}
			r.Lookups = append(r.Lookups, l)
		}
		hashes = hashes[n:]
		if err := stream.Send(&r); err != nil {
			v.t.Fatal(err)
		}
		a, err := stream.Recv()
		if err != nil {
			v.t.Fatal(err)
		}
		for _, x := range a.GetLookups() {
			count[x.GetVerdict()]++
		}
		if remembered {
			v.seen += uint64(n)
			awaitWindow(v.t, "the window has stored what it saw", func() bool { return v.window.Stats().Uploads == v.seen })
		}
	}
	return count
}

// upload gives every picture and a copy of it to the hook, and counts what it refused, by verdict.
func (v *campaign) upload() (refused [hashlist.VerdictReject + 1]int, of int) {
	v.t.Helper()
	for _, files := range [][][]byte{v.pictures, v.copies} {
		for _, file := range files {
			of++
			if code, _ := v.post(v.token, bytes.NewReader(file)); code != 200 {
				refused[v.lists.Lookup(hashlist.Query{Probes: probes(v.media(file), v.cfg.Policy.MinQuality)}).Verdict]++
			}
		}
	}
	return refused, of
}

// harm tells what innocents suffer now.
func (v *campaign) harm(every int) (rejected, held int, text string) {
	v.t.Helper()
	hook, of := v.upload()
	var some []hashlist.Hash
	for i := 0; i < len(v.hashes); i += every {
		some = append(some, v.hashes[i])
	}
	asked := v.lookUp(some, false)
	text = fmt.Sprintf("hook: %d of %d uploads refused (%d rejected, %d held); lookups: %d of %d rejected, %d held",
		hook[hashlist.VerdictReject]+hook[hashlist.VerdictHold], of, hook[hashlist.VerdictReject], hook[hashlist.VerdictHold],
		asked[hashlist.VerdictReject], len(some), asked[hashlist.VerdictHold])
	return hook[hashlist.VerdictReject] + asked[hashlist.VerdictReject], hook[hashlist.VerdictHold] + asked[hashlist.VerdictHold], text
}

// say makes a statement of an issuer at eve's.
func (v *campaign) say(who, list string, kind hashlist.Kind, change func(*hashlist.Statement)) hashlist.Record {
	v.said++
	s := hashlist.Statement{
		ID: fmt.Sprintf("https://eve.example/statements/%d", v.said), Issuer: who, List: list, Kind: kind, Published: time.Now().UTC().Truncate(time.Second),
	}
	change(&s)
	return hashlist.Record{Statement: s, Received: s.Published, Signed: []byte("{}")}
}

func (v *campaign) apply(records ...hashlist.Record) {
	v.t.Helper()
	if _, err := v.lists.Apply(v.t.Context(), records...); err != nil {
		v.t.Fatal(err)
	}
}

// evilBan has eve ban hashes, and returns the ID of the statement.
func (v *campaign) evilBan(hashes []hashlist.Hash) string {
	r := v.say(eve, eveBans, hashlist.AddHashes, func(s *hashlist.Statement) { s.Hashes, s.Reason = hashes, "abuse of children" })
	v.apply(r)
	return r.Statement.ID
}

// TestPoisoningCampaign: an issuer who is partly believed turns hostile. They ban ten thousand hashes of harmless
// pictures that were let through here lately, a few first and then all, and a thousand invented issuers whom only they vouch
// for confirm each. The node has the settings of config.toml. Nothing is rejected at any time; once the list
// is in quarantine nothing is held either; and should somebody release it, each of three words undoes it.
func TestPoisoningCampaign(t *testing.T) {
	const pictures, few = 60, 10
	hashes, invented := 10_000, 1000
	if raceBuild { // which is ten times as slow
		hashes, invented = 2000, 200
	}
	v := startCampaign(t, pictures, hashes)
	w := v.window.Stats()
	t.Logf("before: %d different pictures in the recent window, which came %d times, nine hours ago; %d of them real pictures through the hook of pict-rs",
		w.Entries, w.Uploads, pictures)
	if w.Entries != hashes || w.Uploads != v.seen {
		t.Fatalf("%+v", w)
	}

	// The operator follows the list for what eve is believed, and believes her partly.
	const eveTrust = "https://eve.example/lists/trust"
	for list, name := range map[string]string{eveBans: "ban", eveTrust: "trust"} {
		v.apply(v.say(eve, list, hashlist.DefineList, func(s *hashlist.Statement) {
			s.Definition = &hashlist.Definition{Name: name, Labels: []string{"csam"}, Audience: hashlist.Public, Action: hashlist.Reject, Radii: hashlist.DefaultRadii}
		}))
	}
	trusts := pb.NewTrustServiceClient(v.owner())
	trust := func() {
		t.Helper()
		if _, err := trusts.Vouch(t.Context(), &pb.VouchRequest{Vouching: &pb.Vouching{Object: eve, Amount: hashlist.PartialBelief, Depth: 2}}); err != nil {
			t.Fatal(err)
		}
	}
	follow := func() { v.lists.Heed(eveBans, hashlist.VerdictReject, 0); v.lists.Rely(eveTrust, true) }
	trust()
	follow()

	// She begins with so few that it is not yet more than expected.
	bans := []string{v.evilBan(v.hashes[:few])}
	awaitWindow(t, "the window finds the pictures", func() bool { return len(v.waitingFor(hashlist.ReviewHit)) == few })
	rejected, held, text := v.harm(1)
	t.Logf("%d banned, not yet in quarantine: %s; %d hits wait for review", few, text, len(v.waitingFor(hashlist.ReviewHit)))
	if rejected != 0 || held == 0 {
		t.Errorf("%d rejected, %d held", rejected, held)
	}

	// Then all.
	begun := time.Now()
	for i := few; i < hashes; i += hashlist.MaxHashes {
		bans = append(bans, v.evilBan(v.hashes[i:min(i+hashlist.MaxHashes, hashes)]))
	}
	var crowd []hashlist.Record
	for i := range invented {
		sybil := fmt.Sprintf("https://eve.example/users/s%d", i)
		crowd = append(crowd, v.say(eve, eveTrust, hashlist.Vouch, func(s *hashlist.Statement) {
			s.Vouch = &hashlist.Vouching{Object: sybil, Amount: hashlist.MostBelief}
		}))
		crowd = append(crowd, v.say(sybil, eveBans, hashlist.Confirmation, func(s *hashlist.Statement) { s.About = bans[i%len(bans)] }))
	}
	v.apply(crowd...)
	t.Logf("%d banned in %d statements, confirmed by %d invented issuers, in %v", hashes, len(bans), invented, time.Since(begun).Round(time.Millisecond))
	rejected, held, text = v.harm(1)
	t.Logf("in quarantine: %s", text)
	if rejected != 0 || held != 0 {
		t.Errorf("in quarantine %d are rejected and %d held", rejected, held)
	}

	// What the admin sees.
	awaitWindow(t, "the admin is asked, and the hits are withdrawn", func() bool {
		return len(v.waitingFor(hashlist.ReviewQuarantine)) == 1 && len(v.waitingFor(hashlist.ReviewHit)) == 0
	})
	window := pb.NewWindowServiceClient(v.owner())
	q, err := window.ListQuarantine(t.Context(), &pb.ListQuarantineRequest{})
	if err != nil {
		t.Fatal(err)
	}
	reviews, err := pb.NewReviewServiceClient(v.owner()).ListReviews(t.Context(), &pb.ListReviewsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if len(q.GetStatements()) != len(bans) {
		t.Errorf("%d statements are in quarantine, want %d", len(q.GetStatements()), len(bans))
	}
	ofKind := map[string][]string{}
	for _, r := range reviews.GetReviews() {
		ofKind[r.GetKind().String()] = append(ofKind[r.GetKind().String()], r.GetSummary())
	}
	for _, kind := range slices.Sorted(maps.Keys(ofKind)) {
		t.Logf("tocsin review, %d of %s, the first: %s", len(ofKind[kind]), kind, ofKind[kind][0])
	}
	for _, s := range q.GetStatements()[:3] {
		t.Logf("tocsin quarantine, %d statements: %s of %s by %s would match %d of %d uploads", len(q.GetStatements()), s.GetStatementId(), s.GetList(), s.GetIssuer(),
			s.GetMatched(), s.GetUploads())
	}
	for _, secret := range v.secrets {
		if strings.Contains(q.String()+reviews.String(), secret) {
			t.Error("the admin is shown a hash") // and so is everybody who may decide
		}
	}

	// Should somebody release it, it is held and not rejected, and each of these undoes it.
	if r, err := window.DecideQuarantine(t.Context(), &pb.DecideQuarantineRequest{Subject: eveBans, State: pb.QuarantineState_QUARANTINE_STATE_RELEASED, Why: "a mistake"}); err != nil || r.GetStatements() != uint64(len(bans)) {
		t.Fatalf("%v, %v", r, err)
	}
	rejected, held, text = v.harm(100)
	t.Logf("released by mistake: %s", text)
	if rejected != 0 || held == 0 {
		t.Errorf("released: %d rejected, %d held", rejected, held)
	}
	x, err := pb.NewExplainServiceClient(v.owner()).Explain(t.Context(), &pb.ExplainRequest{Subject: v.hashes[0].String()})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range x.GetNow().GetChange() {
		t.Logf("tocsin explain: change %s", c)
	}
	says, own := pb.NewStatementServiceClient(v.owner()), pb.NewListServiceClient(v.owner())
	var disputes []string
	for _, c := range []struct {
		what       string
		undo, redo func() error
	}{
		{"trust remove", func() error {
			_, err := trusts.Unvouch(t.Context(), &pb.UnvouchRequest{Object: eve})
			return err
		}, func() error { trust(); return nil }},
		{fmt.Sprintf("ignore, for each of the %d statements", len(bans)), func() error {
			for _, id := range bans {
				d, err := says.SubmitOpinion(t.Context(), &pb.SubmitOpinionRequest{StatementId: id, Opinion: pb.Opinion_OPINION_IGNORE, Reason: "harmless"})
				if err != nil {
					return err
				}
				disputes = append(disputes, d.GetStatementId())
			}
			return nil
		}, func() error {
			for _, id := range disputes {
				if _, err := own.Retract(t.Context(), &pb.RetractRequest{StatementId: id}); err != nil {
					return err
				}
			}
			return nil
		}},
		{"unfollow", func() error { v.lists.Heed(eveBans, 0, 0); return nil }, func() error { follow(); return nil }},
		{"quarantine keep", func() error {
			_, err := window.DecideQuarantine(t.Context(), &pb.DecideQuarantineRequest{Subject: bans[0], State: pb.QuarantineState_QUARANTINE_STATE_KEPT})
			for _, id := range bans[1:] {
				if err == nil {
					_, err = window.DecideQuarantine(t.Context(), &pb.DecideQuarantineRequest{Subject: id, State: pb.QuarantineState_QUARANTINE_STATE_KEPT})
				}
			}
			return err
		}, nil},
	} {
		begun := time.Now()
		if err := c.undo(); err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		took := time.Since(begun)
		rejected, held, text := v.harm(100)
		t.Logf("undone by %s, in %v: %s", c.what, took.Round(time.Millisecond), text)
		if rejected+held != 0 {
			t.Errorf("after %s %d are rejected and %d held", c.what, rejected, held)
		}
		if c.redo == nil {
			continue
		}
		if err := c.redo(); err != nil {
			t.Fatalf("after %s: %v", c.what, err)
		}
		if n := v.lookUp(v.hashes[:few], false); n[hashlist.VerdictHold] != few { // or the next would undo nothing
			t.Errorf("%s, taken back: %v", c.what, n)
		}
	}
}
