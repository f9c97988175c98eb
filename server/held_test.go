package server

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// What a policy holds waits for a person once for each picture, and what they
// decide is a statement that acts at once.
func TestHeldUploadsWait(t *testing.T) {
	change, db := withQueue(t)
	n := start(t, change, func(c *Config) { c.HTTP.Address = "127.0.0.1:0" })
	owner := clientsOf(n.owner())
	file := encodeJPEG(t, photo(1, 400, 300), 90)
	m := n.media(file)
	n.ban("refused", m.Frames[0].PHash) // which comes to hold at most
	hook := n.http + "/hook/pictrs/" + n.token("pictrs", ScopeLookup)
	upload := func() int {
		r, err := http.Post(hook, "image/jpeg", strings.NewReader(string(file)))
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		return r.StatusCode
	}
	for range 3 {
		if code := upload(); code != http.StatusForbidden {
			t.Fatalf("status %d", code)
		}
	}
	var item *pb.Review
	poll(t, "the held upload waits", func() bool {
		all, err := owner.reviews.ListReviews(t.Context(), &pb.ListReviewsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if len(all.GetReviews()) > 1 {
			t.Fatalf("%d items for one picture", len(all.GetReviews()))
		}
		if len(all.GetReviews()) == 1 {
			item = all.GetReviews()[0]
		}
		return item != nil
	})
	if item.GetKind() != pb.ReviewKind_REVIEW_KIND_HELD || item.GetAlgorithm() != "phash" || item.GetStatementId() == "" || !strings.Contains(item.GetSummary(), "list refused") {
		t.Errorf("got %v", item)
	}
	for _, h := range []hashlist.Hash{m.SHA256, m.Frames[0].PDQ[0], m.Frames[0].PHash} {
		if strings.Contains(item.String(), h.Hex()) {
			t.Error("the item shows a hash")
		}
	}
	if _, err := owner.decide(t, item.GetId(), pb.ReviewChoice_REVIEW_CHOICE_ALLOW, "a painting"); err != nil {
		t.Fatal(err)
	}
	if code := upload(); code != http.StatusOK {
		t.Errorf("status %d after it was allowed", code)
	}
	list, ok := n.lists.List(testOrigin + "/lists/decisions")
	if !ok || list.Audience != hashlist.Local || list.Hashes != 2 {
		t.Errorf("list of decisions: %+v", list)
	}
	_, err := owner.decide(t, item.GetId(), pb.ReviewChoice_REVIEW_CHOICE_BAN, "or not")
	wantCode(t, "decided twice", err, codes.FailedPrecondition)
	n.stop()
	<-n.done
	r, _, err := db.FindReview(context.Background(), item.GetId())
	if err != nil || r.Count != 3 || r.State != hashlist.ReviewDecided || len(r.Decisions) != 1 || len(r.Decisions[0].Statements) != 1 {
		t.Errorf("got %+v, %v", r, err)
	}
	var entries int
	for e, err := range db.AuditAfter(context.Background(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == "decision" && e.Who == "unix socket" && strings.Contains(string(e.Body), `"choice":"allow"`) && strings.Contains(string(e.Body), "a painting") {
			entries++
		}
	}
	if entries != 1 {
		t.Errorf("%d entries in the audit log", entries)
	}
}

// A flood of pictures that match one statement has a bounded number of items.
func TestHeldUploadsAreBounded(t *testing.T) {
	change, db := withQueue(t)
	n := start(t, change)
	many := 3 * heldOfOne
	for i := range many {
		n.held(&hashlist.Query{Probes: []hashlist.Probe{{Hash: randomHashes(1)[0]}}}, &hashlist.Result{
			Verdict: hashlist.VerdictHold, Reason: fmt.Sprint("reason ", i),
			Matches: []hashlist.Match{{Statement: "https://a.example/statements/x", Probe: hashlist.Probe{Hash: randomHashes(1)[0]}}},
		}, "")
	}
	var all []hashlist.Review
	poll(t, "all are put together", func() bool {
		var err error
		if all, err = db.Reviews(t.Context(), hashlist.ReviewSelection{}); err != nil {
			t.Fatal(err)
		}
		return len(n.heldUploads.come) == 0 && len(all) > heldOfOne
	})
	n.stop()
	<-n.done
	all, err := db.Reviews(context.Background(), hashlist.ReviewSelection{})
	if err != nil || len(all) != heldOfOne+1 {
		t.Fatalf("%d items, %v", len(all), err)
	}
	if last := all[heldOfOne]; last.Count != uint64(many-heldOfOne) {
		t.Errorf("the last stands for %d, want %d", last.Count, many-heldOfOne)
	}
}

// A decision is about the statement that brought the verdict about, and not about one by
// somebody who is not believed.
func TestHeldByWhoIsBelieved(t *testing.T) {
	change, db := withQueue(t)
	n := start(t, change, func(c *Config) {
		policy := hashlist.DefaultPolicy()
		policy.Own = testOrigin
		lists, err := hashlist.Open(t.Context(), &memoryLog{places: map[string]uint64{}}, policy)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(lists.Close)
		c.Lists = lists
	})
	lists := n.Server.cfg.Lists
	h := randomHashes(1)[0]
	said := map[string]string{}
	for _, who := range []string{"bob", "alice"} {
		origin := "https://" + who + ".example"
		list := origin + "/lists/refused"
		belief := uint8(0)
		if who == "alice" {
			belief = 80
		}
		lists.Heed(list, hashlist.VerdictReject, belief)
		said[who] = origin + "/statements/a"
		_, err := lists.Apply(t.Context(), hashlist.Record{Statement: hashlist.Statement{
			ID: origin + "/statements/d", Issuer: origin + "/users/" + who, List: list, Kind: hashlist.DefineList, Published: time.Unix(1_790_000_000, 0).UTC(),
			Definition: &hashlist.Definition{Name: "refused", Audience: hashlist.Public, Action: hashlist.Reject, Radii: hashlist.DefaultRadii},
		}}, hashlist.Record{Statement: hashlist.Statement{
			ID: said[who], Issuer: origin + "/users/" + who, List: list, Kind: hashlist.AddHashes, Published: time.Unix(1_790_000_001, 0).UTC(), Hashes: []hashlist.Hash{h},
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	q := hashlist.Query{Probes: []hashlist.Probe{{Hash: h}}, Limit: 1}
	r := lists.Lookup(q)
	if r.Verdict != hashlist.VerdictHold {
		t.Fatalf("%v: %s", r.Verdict, r.Reason)
	}
	n.held(&q, &r, "")
	poll(t, "it waits", func() bool {
		all, err := db.Reviews(t.Context(), hashlist.ReviewSelection{})
		if err != nil {
			t.Fatal(err)
		}
		if len(all) == 1 && (all[0].Statement != said["alice"] || !strings.Contains(all[0].List, "alice")) {
			t.Fatalf("it is about %s", all[0].Statement)
		}
		return len(all) == 1
	})
}
