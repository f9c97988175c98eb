package server

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// partnerList makes a list of partner data.
func (n *node) partnerList(name string) pb.ListServiceClient {
	n.t.Helper()
	c := pb.NewListServiceClient(n.owner())
	if _, err := c.CreateList(n.t.Context(), &pb.CreateListRequest{List: partner(name)}); err != nil {
		n.t.Fatal(err)
	}
	return c
}

func partner(name string) *pb.List {
	return &pb.List{Name: name, Labels: []string{hashlist.PartnerData}, Audience: pb.Audience_AUDIENCE_LOCAL}
}

// TestPartnerDataStays tries every way out that there is for what a partner gave, also with the
// issuer's key and around the checks of the RPCs. Each is refused, and what is on the list
// still acts.
func TestPartnerDataStays(t *testing.T) {
	n := start(t, withFederation(t, nil))
	c := n.partnerList("ncmec")
	h := randomHashes(3)
	n.add("ncmec", h...)
	create := func(l *pb.List) error {
		_, err := c.CreateList(t.Context(), &pb.CreateListRequest{List: l})
		return err
	}
	refused := func(what string, err error) {
		t.Helper()
		wantCode(t, what, err, codes.FailedPrecondition)
		t.Logf("%-46s %v", what, err)
	}

	wider := partner("ncmec")
	wider.Audience = pb.Audience_AUDIENCE_PUBLIC
	wantCode(t, "marked and public", create(wider), codes.InvalidArgument)
	wider.Labels = nil
	refused("defined anew, public and without the mark", create(wider))
	wider.Audience = pb.Audience_AUDIENCE_LOCAL
	refused("defined anew, local and without the mark", create(wider))
	if _, err := c.RemoveList(t.Context(), &pb.RemoveListRequest{List: "ncmec"}); err != nil {
		t.Fatal(err)
	}
	wider.Audience = pb.Audience_AUDIENCE_FOLLOWERS
	refused("removed and created anew, for followers", create(wider))
	if err := create(partner("ncmec")); err != nil {
		t.Fatal(err)
	}
	n.newList("open")
	refused("marked after others could read it", create(partner("open")))

	for _, format := range []string{"plain", "pdq", "pdq-csv", "pytx", "hma", "vpdq", "ncmec", "csv"} {
		stream, err := c.Export(t.Context(), &pb.ExportRequest{List: "ncmec", Format: format})
		if err == nil {
			_, err = stream.Recv()
		}
		refused("exported as "+format, err)
	}

	// A definition that was signed with the issuer's key, past the checks of CreateList.
	widest := hashlist.Statement{
		Kind: hashlist.DefineList, List: testOrigin + "/lists/ncmec", Published: time.Now().UTC().Truncate(time.Second).Add(time.Minute),
		Definition: &hashlist.Definition{Name: "ncmec", Audience: hashlist.Public, Action: hashlist.Reject, Radii: hashlist.DefaultRadii},
	}
	signed, err := n.issuer.Seal(widest)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Publish(t.Context(), &pb.PublishRequest{Signed: [][]byte{signed.Signed}})
	wantCode(t, "published", err, codes.InvalidArgument)
	t.Logf("%-46s %v", "signed elsewhere and published", err)

	// And one that got into the log somehow.
	if _, err := n.lists.Apply(t.Context(), signed); err != nil {
		t.Fatal(err)
	}
	list, err := c.GetList(t.Context(), &pb.GetListRequest{List: "ncmec"})
	if err != nil || list.GetList().GetAudience() != pb.Audience_AUDIENCE_LOCAL {
		t.Errorf("with a public definition in the log: %v, %v", list, err)
	}
	get := func(path string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+n.PublicAddr()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "hashes.example"
		r.Header.Set("Accept", "application/activity+json")
		a, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		body, err := io.ReadAll(io.LimitReader(a.Body, 1<<20))
		if err != nil {
			t.Fatal(err)
		}
		return a.StatusCode, string(body)
	}
	for _, path := range []string{"", "/outbox", "/head", "/followers"} {
		missing, nothing := get("/lists/no-such-list" + path)
		if code, body := get("/lists/ncmec" + path); code != missing || strings.ReplaceAll(body, "ncmec", "no-such-list") != nothing || path == "" && code != http.StatusNotFound {
			t.Errorf("a stranger who asks for /lists/ncmec%s got %d %s, and for one that is not there %d %s", path, code, body, missing, nothing)
		} else {
			t.Logf("%-46s %d, as of one that is not there", "a stranger asks for /lists/ncmec"+path, code)
		}
	}

	// Watched, whole and signed: by name, and among all there is.
	watch, err := c.Watch(t.Context(), &pb.WatchRequest{List: "ncmec"})
	if err == nil {
		_, err = watch.Recv()
	}
	refused("watched", err)
	n.add("open", randomHashes(1)...)
	if watch, err = c.Watch(t.Context(), &pb.WatchRequest{}); err != nil {
		t.Fatal(err)
	}
	for at := uint64(0); at < n.lists.Seq(); {
		v, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if at = v.GetSeq(); strings.Contains(string(v.GetSigned()), "/lists/ncmec") {
			t.Errorf("place %d is of what a partner gave", at)
		}
	}

	stream, err := c.Export(t.Context(), &pb.ExportRequest{List: "ncmec", Format: "plain"})
	if err == nil {
		_, err = stream.Recv()
	}
	refused("exported with a public definition in the log", err)
	if errors.Is(err, io.EOF) {
		t.Error("an export ended without an error")
	}
	answer := n.lists.Lookup(hashlist.Query{Probes: []hashlist.Probe{{Hash: h[0]}}})
	if len(answer.Matches) != 1 {
		t.Errorf("it no longer acts: %v", answer)
	}
}
