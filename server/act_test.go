package server

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/tocsin-fed/tocsin/digest"
	"github.com/tocsin-fed/tocsin/guarded"
	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/platform"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
	"github.com/tocsin-fed/tocsin/report"
	"github.com/tocsin-fed/tocsin/revisit"
	"github.com/tocsin-fed/tocsin/store"
)

func testDB(t *testing.T) *store.DB {
	t.Helper()
	db, err := store.Create(t.Context(), filepath.Join(t.TempDir(), "log.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

const listedHash = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

// audited writes a verdict into the audit log, as lookups do, and returns its id.
func audited(t *testing.T, db *store.DB, verdict string) string {
	t.Helper()
	body := fmt.Sprintf(`{"verdict":%q,"reason":"on list refused (csam)","labels":["csam"],"hashes":[%q],"reference":{"actor":"https://here.example/u/mallory","post":"https://here.example/post/1"},
		"matches":[{"list":"https://near.example/lists/refused","issuer":"https://near.example/users/alice","statement":"https://near.example/statements/1","labels":["csam"],"algorithm":"sha256","distance":0},
		{"list":"https://near.example/lists/harmless","issuer":"x","statement":"y","algorithm":"pdq","distance":9,"suppressed":true}]}`, verdict, listedHash)
	e, err := db.AppendAudit(t.Context(), hashlist.AuditEntry{Kind: "verdict", At: time.Now().UTC().Truncate(time.Microsecond), Who: "pict-rs", Body: []byte(body)})
	if err != nil {
		t.Fatal(err)
	}
	return e.ID
}

// A report is drafted from what the audit log has, sent once, and preserved for a year.
func TestReports(t *testing.T) {
	db := testDB(t)
	n := start(t, func(c *Config) {
		c.Audit, c.Reviews, c.Reports = db, db, db
		c.Reporter = report.Reporter{FirstName: "Ada", LastName: "Example", Email: "abuse@here.example"}
	})
	api := pb.NewReportServiceClient(n.owner())
	id := audited(t, db, "reject")
	d, err := api.DraftReport(t.Context(), &pb.DraftReportRequest{VerdictId: id})
	if err != nil {
		t.Fatal(err)
	}
	if err := report.Check(d.GetReportXml(), time.Now().Add(time.Minute)); err != nil {
		t.Errorf("%v\n%s", err, d.GetReportXml())
	}
	var file struct {
		Viewed bool     `xml:"fileViewedByEsp"`
		Hashes []string `xml:"originalFileHash"`
	}
	if err := xml.Unmarshal(d.GetFileXml(), &file); err != nil || file.Viewed || len(file.Hashes) != 1 {
		t.Errorf("%v: %+v", err, file)
	}
	if s := d.GetSummary(); !strings.Contains(s, "refused") || !strings.Contains(s, "mallory") || strings.Contains(s, "harmless") {
		t.Error(s)
	}
	for _, c := range []struct {
		q    *pb.DraftReportRequest
		code codes.Code
	}{
		{&pb.DraftReportRequest{}, codes.InvalidArgument},
		{&pb.DraftReportRequest{VerdictId: "none"}, codes.NotFound},
		{&pb.DraftReportRequest{VerdictId: id, Classification: "A1"}, codes.InvalidArgument},
		{&pb.DraftReportRequest{VerdictId: id, IncidentType: "Spam"}, codes.InvalidArgument},
		{&pb.DraftReportRequest{VerdictId: id, ViewedBy: strings.Repeat("x", 200)}, codes.InvalidArgument},
	} {
		_, err := api.DraftReport(t.Context(), c.q)
		wantCode(t, "call", err, c.code)
	}

	record := func(number string, again bool) error {
		_, err := api.RecordReport(t.Context(), &pb.RecordReportRequest{VerdictId: id, Agency: "ncmec", Number: number, Who: "Ada", Again: again})
		return err
	}
	if err := record("", false); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "begun twice", record("", false), codes.FailedPrecondition) // nobody knows what became of the first
	if err := record("", true); err != nil {
		t.Error(err)
	}
	if err := record("4711", false); err != nil {
		t.Error(err)
	}
	wantCode(t, "sent twice", record("4712", true), codes.FailedPrecondition)
	waiting, err := db.Reviews(t.Context(), hashlist.ReviewSelection{Kinds: []hashlist.ReviewKind{hashlist.ReviewPreserve}})
	if err != nil || len(waiting) != 1 || time.Until(waiting[0].Deadline) < 364*24*time.Hour || !strings.Contains(waiting[0].Summary, "4711") {
		t.Errorf("%+v, %v", waiting, err)
	}
	all, err := api.ListReports(t.Context(), &pb.ListReportsRequest{})
	if err != nil || len(all.GetReports()) != 1 || all.GetReports()[0].GetWho() != "Ada (unix socket)" {
		t.Errorf("%v, %v", all, err)
	}
}

// What is refused for a platform's user is acted on, asked about and decided over gRPC.
func TestActsOverGRPC(t *testing.T) {
	db := testDB(t)
	var mu sync.Mutex
	banned := false
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.Method == http.MethodPost {
			var v struct{ Ban bool }
			json.NewDecoder(r.Body).Decode(&v)
			banned = v.Ban
			io.WriteString(w, "{}")
			return
		}
		fmt.Fprintf(w, `{"person":{"person":{"id":1,"banned":%v},"is_admin":false}}`, banned)
	}))
	t.Cleanup(site.Close)
	desk, err := platform.NewDesk(t.Context(), platform.Config{
		Platforms: []platform.Platform{{
			Name: "ours", Kind: "lemmy", API: "0.19", URL: site.URL, Token: "secret", Approve: []platform.Kind{platform.BanPerson}, PerHour: 5, PerDay: 5,
			On: map[hashlist.Verdict][]platform.Kind{hashlist.VerdictReject: {platform.BanPerson}},
		}},
		Acts: db, Log: slog.New(slog.DiscardHandler), Ask: func(ctx context.Context, a platform.Act) error { return AskAboutAct(ctx, db, &a) },
	})
	if err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); desk.Run(running) }()
	t.Cleanup(func() { stop(); <-done })
	n := start(t, func(c *Config) { c.Acts, c.Reviews, c.Marks = desk, db, db })
	n.ban("refused", mustHash(t, listedHash))
	conn := n.owner()
	ask := func(r *pb.Reference) {
		t.Helper()
		v, err := pb.NewLookupServiceClient(conn).Lookup(t.Context(), &pb.LookupRequest{Hashes: []string{listedHash}, Reference: r})
		if err != nil || v.GetVerdict() != pb.Verdict_VERDICT_REJECT {
			t.Fatal(v, err)
		}
	}
	ask(nil)
	ask(&pb.Reference{Post: "https://far.example/post/1"})
	api := pb.NewActServiceClient(conn)
	if v, err := api.ListActs(t.Context(), &pb.ListActsRequest{}); err != nil || len(v.GetActs()) != 0 {
		t.Fatalf("an act without an actor: %v, %v", v, err)
	}
	ask(&pb.Reference{Actor: "https://far.example/u/mallory"})
	v, err := api.ListActs(t.Context(), &pb.ListActsRequest{State: pb.ActState_ACT_STATE_WAITING})
	if err != nil || len(v.GetActs()) != 1 {
		t.Fatal(v, err)
	}
	id := v.GetActs()[0].GetId()
	r, ok, err := db.FindReview(t.Context(), actReview(id, platform.Waiting))
	if err != nil || !ok || !r.State.Waiting() || strings.Contains(r.Summary, "0011223344") {
		t.Errorf("%+v, %v, %v", r, ok, err)
	}
	for _, c := range []struct {
		q    *pb.DecideActRequest
		code codes.Code
	}{
		{&pb.DecideActRequest{Id: "none", What: "approve"}, codes.NotFound},
		{&pb.DecideActRequest{Id: id, What: "undo"}, codes.FailedPrecondition},
		{&pb.DecideActRequest{Id: id, What: "approve", Why: strings.Repeat("x", 2001)}, codes.InvalidArgument},
	} {
		_, err := api.DecideAct(t.Context(), c.q)
		wantCode(t, "call", err, c.code)
	}
	for _, c := range []struct {
		what  string
		state pb.ActState
	}{{"approve", pb.ActState_ACT_STATE_DONE}, {"undo", pb.ActState_ACT_STATE_UNDONE}} {
		a, err := api.DecideAct(t.Context(), &pb.DecideActRequest{Id: id, What: c.what, Who: "Alice", Why: "because"})
		if err != nil || a.GetAct().GetState() != c.state {
			t.Errorf("%s: %v, %v", c.what, a, err)
		}
	}
	if r, _, err = db.FindReview(t.Context(), actReview(id, platform.Waiting)); err != nil || r.State.Waiting() {
		t.Errorf("the review still waits: %+v, %v", r, err)
	}
}

// What was let through and is banned later is acted on where it was seen, and again after a restart nothing is.
func TestHitsAreActedOn(t *testing.T) {
	db := testDB(t)
	desk, err := platform.NewDesk(t.Context(), platform.Config{
		Platforms: []platform.Platform{{
			Name: "ours", Kind: "pictrs", URL: "http://127.0.0.1:1", Token: "secret", DryRun: true, PerHour: 5, PerDay: 5,
			On: map[hashlist.Verdict][]platform.Kind{hashlist.VerdictReject: {platform.DeleteMedia}},
		}},
		Acts: db, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	var w *hashlist.Window
	n := start(t, func(c *Config) {
		if w, err = hashlist.OpenWindow(t.Context(), c.Lists, hashlist.WindowConfig{
			Store: db, Key: make([]byte, hashlist.WindowKeySize), Keep: time.Hour, Entries: 10, Durable: true, Log: slog.New(slog.DiscardHandler),
		}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(w.Close)
		w.Start()
		c.Window, c.Acts, c.Marks = w, desk, db
	})
	conn := n.owner()
	for _, alias := range []string{"first.webp", "second.webp"} {
		v, err := pb.NewLookupServiceClient(conn).Lookup(t.Context(), &pb.LookupRequest{Hashes: []string{listedHash}, Reference: &pb.Reference{Alias: alias}})
		if err != nil || v.GetVerdict() != pb.Verdict_VERDICT_ALLOW {
			t.Fatal(v, err)
		}
	}
	n.ban("refused", mustHash(t, listedHash))
	poll(t, "both are noted", func() bool { return len(desk.List("", platform.Dry)) == 2 })
	poll(t, "the place is noted", func() bool { seq, _, err := db.Mark(t.Context(), hitsMark); return err == nil && seq > 0 })
	for _, a := range desk.List("", 0) {
		if a.Kind != platform.DeleteMedia || a.Target != "first.webp" && a.Target != "second.webp" || a.Finding.Statement == "" {
			t.Errorf("%+v", a)
		}
	}
	// Handed over again, as after a crash before the place was noted, it changes nothing.
	for hit, err := range w.Hits(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range findingsOf(&hit) {
			n.Server.act(t.Context(), f)
		}
	}
	if all := desk.List("", 0); len(all) != 2 {
		t.Errorf("%d acts", len(all))
	}
}

// The digest counts what is behind the last one, holds no hash, and is sent once.
func TestDigestCounts(t *testing.T) {
	db := testDB(t)
	got := make(chan digest.Digest, 2)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var d digest.Digest
		json.NewDecoder(r.Body).Decode(&d)
		got <- d
	}))
	t.Cleanup(hook.Close)
	n := start(t, func(c *Config) {
		c.Audit, c.Reviews, c.Marks = db, db, db
		c.Digest = &Digest{Hook: &digest.Hook{URL: hook.URL}}
	})
	// The first digest of a node that begins is due when there is a day to tell of.
	for {
		if _, at, err := db.Mark(t.Context(), digestMark); err != nil {
			t.Fatal(err)
		} else if !at.IsZero() {
			break
		}
	}
	for _, v := range []string{"reject", "reject", "hold", "flag"} {
		audited(t, db, v)
	}
	for kind, body := range map[string]string{
		"repeats": `{"verdict":"reject","count":7}`, "act": `{"act":"a1","state":"done","does":"ban x"}`, "revisit": `{"state":"changed","note":"another picture"}`,
		"report": `{"verdict":"v","agency":"ncmec"}`, "odd": `[]`,
	} {
		if _, err := db.AppendAudit(t.Context(), hashlist.AuditEntry{Kind: kind, At: time.Now().UTC().Truncate(time.Microsecond), Who: "x", Body: []byte(body)}); err != nil && kind != "odd" {
			t.Fatal(err)
		}
	}
	if _, err := db.AddReview(t.Context(), hashlist.Review{ID: "hit-1", Kind: hashlist.ReviewHit, Summary: "it was let through"}); err != nil {
		t.Fatal(err)
	}
	api := pb.NewDigestServiceClient(n.owner())
	v, err := api.GetDigest(t.Context(), &pb.GetDigestRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"     9  uploads refused", "     1  uploads held", "     1  earlier uploads", "     1  acts on platforms", "     1  pictures on other servers", "     1  reports", "     1  wait for a person", "ban x"} {
		if !strings.Contains(v.GetText(), want) {
			t.Errorf("no %q in\n%s", want, v.GetText())
		}
	}
	if strings.Contains(v.GetText()+v.GetJson(), "00112233445566") {
		t.Error("a hash is in the digest")
	}
	for _, refused := range []int{9, 0} {
		if _, err := api.SendDigest(t.Context(), &pb.SendDigestRequest{}); err != nil {
			t.Fatal(err)
		}
		if d := <-got; d.Refused != refused {
			t.Errorf("%d refused, want %d", d.Refused, refused)
		}
	}
}

// A picture on another server is approved, swapped for one that is listed, and a person is asked.
func TestRevisits(t *testing.T) {
	db := testDB(t)
	good, bad := encodeJPEG(t, photo(1, 256, 256), 90), encodeJPEG(t, photo(2, 256, 256), 90)
	var mu sync.Mutex
	shown := good
	far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		w.Write(shown)
	}))
	t.Cleanup(far.Close)
	n := start(t, func(c *Config) {
		c.Audit, c.Reviews = db, db
		c.Revisits = &revisit.Config{Addresses: db, Client: guarded.Client(guarded.Options{Loopback: true}), Every: time.Hour, Max: 10, MaxBytes: 1 << 20, Radius: 31}
	})
	conn := n.owner()
	api := pb.NewRevisitServiceClient(conn)
	if _, err := api.AddRevisit(t.Context(), &pb.AddRevisitRequest{Url: far.URL + "/a.jpg", Post: "https://here.example/post/7"}); err != nil {
		t.Fatal(err)
	}
	state := func() pb.RevisitState {
		v, err := api.ListRevisits(t.Context(), &pb.ListRevisitsRequest{})
		if err != nil || len(v.GetRevisits()) != 1 {
			t.Fatal(v, err)
		}
		return v.GetRevisits()[0].GetState()
	}
	deadline := time.Now().Add(20 * time.Second)
	for state() == pb.RevisitState_REVISIT_STATE_NEW && time.Now().Before(deadline) {
	}
	if s := state(); s != pb.RevisitState_REVISIT_STATE_SAME {
		t.Fatal(s)
	}
	mu.Lock()
	shown = bad
	mu.Unlock()
	if _, err := n.Server.revisits.Visit(t.Context(), far.URL+"/a.jpg"); err != nil {
		t.Fatal(err)
	}
	if s := state(); s != pb.RevisitState_REVISIT_STATE_CHANGED {
		t.Error(s)
	}
	waiting, err := db.Reviews(t.Context(), hashlist.ReviewSelection{Kinds: []hashlist.ReviewKind{hashlist.ReviewHit}})
	if err != nil || len(waiting) != 1 || waiting[0].Reference.Post != "https://here.example/post/7" {
		t.Errorf("%+v, %v", waiting, err)
	}
	for _, c := range []struct {
		q    *pb.AddRevisitRequest
		code codes.Code
	}{
		{&pb.AddRevisitRequest{}, codes.InvalidArgument}, {&pb.AddRevisitRequest{Url: "https://x.example/\x00"}, codes.InvalidArgument},
		{&pb.AddRevisitRequest{Url: "https://x.example/", Approved: []string{"md5:" + strings.Repeat("0a", 16)}}, codes.InvalidArgument},
		{&pb.AddRevisitRequest{Url: "https://x.example/", Approved: []string{"a", "b", "c"}}, codes.InvalidArgument},
	} {
		_, err := api.AddRevisit(t.Context(), c.q)
		wantCode(t, "call", err, c.code)
	}
	_, err = api.RemoveRevisit(t.Context(), &pb.RemoveRevisitRequest{Url: "https://x.example/"})
	wantCode(t, "call", err, codes.NotFound)
	if log := n.logged.String(); strings.Contains(log, "a.jpg") {
		t.Error("an address is in the log")
	}
}
