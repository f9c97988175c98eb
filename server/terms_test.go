package server

import (
	"errors"
	"io"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// TestAcceptTakesAdmin: a token that may only submit cannot clear what others
// listed by calling it harmless, and may add to a list of what is harmless.
func TestAcceptTakesAdmin(t *testing.T) {
	n := start(t)
	owner := n.newList("gore")
	if _, err := owner.CreateList(t.Context(), &pb.CreateListRequest{List: &pb.List{Name: "good", Action: pb.Action_ACTION_ACCEPT}}); err != nil {
		t.Fatal(err)
	}
	submits := pb.NewListServiceClient(n.dial(n.grpc, n.token("submits", ScopeSubmit)))
	h := texts(randomHashes(2))
	_, err := submits.Submit(t.Context(), &pb.SubmitRequest{List: "gore", Hashes: h[:1], Action: pb.Action_ACTION_ACCEPT})
	wantCode(t, "accept on a list of what is refused", err, codes.PermissionDenied)
	if _, err := submits.Submit(t.Context(), &pb.SubmitRequest{List: "good", Hashes: h[:1], Action: pb.Action_ACTION_ACCEPT}); err != nil {
		t.Errorf("on a list of what is harmless: %v", err)
	}
	if _, err := owner.Submit(t.Context(), &pb.SubmitRequest{List: "gore", Hashes: h[1:], Action: pb.Action_ACTION_ACCEPT}); err != nil {
		t.Errorf("by the owner: %v", err)
	}
}

// exported is an export as a whole.
func exported(t *testing.T, c pb.ListServiceClient, list, format string) (text string, left uint64, err error) {
	t.Helper()
	stream, err := c.Export(t.Context(), &pb.ExportRequest{List: list, Format: format})
	if err != nil {
		t.Fatal(err)
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return text, left, nil
		} else if err != nil {
			return text, left, err
		}
		text += string(m.GetChunk())
		left = m.GetLeftOut()
	}
}

// TestExportHarmless: what is known to be harmless does not go out as something
// to be refused.
func TestExportHarmless(t *testing.T) {
	n := start(t)
	owner := pb.NewListServiceClient(n.owner())
	h := texts(randomHashes(3))
	for _, l := range []*pb.List{{Name: "gore", Labels: []string{"gore"}}, {Name: "good", Action: pb.Action_ACTION_ACCEPT}} {
		if _, err := owner.CreateList(t.Context(), &pb.CreateListRequest{List: l}); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range []*pb.SubmitRequest{
		{List: "gore", Hashes: h[:1], Labels: []string{"spam"}}, {List: "gore", Hashes: h[1:2], Action: pb.Action_ACTION_ACCEPT}, {List: "good", Hashes: h[2:]},
	} {
		if _, err := owner.Submit(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	text, left, err := exported(t, owner, "gore", "pytx")
	if err != nil || left != 1 || !strings.Contains(text, h[0][4:]) || strings.Contains(text, h[1][4:]) || !strings.Contains(text, "gore spam") {
		t.Errorf("%d left out of\n%s%v", left, text, err)
	}
	_, _, err = exported(t, owner, "good", "pytx")
	wantCode(t, "a list of what is harmless", err, codes.FailedPrecondition)
	if text, left, err := exported(t, owner, "good", "plain"); err != nil || left != 0 || text != h[2]+"\n" {
		t.Errorf("%d left out of\n%s%v", left, text, err)
	}
}

func TestWatchUnknownList(t *testing.T) {
	n := start(t)
	stream, err := pb.NewListServiceClient(n.owner()).Watch(t.Context(), &pb.WatchRequest{List: "none"})
	if err == nil {
		_, err = stream.Recv()
	}
	wantCode(t, "a list that is not there", err, codes.NotFound)
}

// TestImportLastLine: the last line needs no end, and rows of two algorithms are
// not put into one statement, where they would count as two opinions of one picture.
func TestImportLastLine(t *testing.T) {
	n := start(t)
	owner := n.newList("gore")
	const rows = "phash:c3e4a9b1d2964b5a\ndhash:c3e4a9b1d2964b5a\nphash:a3e4a9b1d2964b5a"
	told, err := importFile(t.Context(), owner, &pb.ImportOptions{List: "gore", Format: "plain"}, []byte(rows), 1<<10)
	if err != nil {
		t.Fatal(err)
	}
	last := told[len(told)-1]
	if !last.GetDone() || last.GetListed() != 3 {
		t.Fatalf("%v", last)
	}
	entries, err := owner.ListEntries(t.Context(), &pb.ListEntriesRequest{List: "gore"})
	if err != nil || len(entries.GetEntries()) != 2 {
		t.Fatalf("%v, %v", entries, err)
	}
	for _, e := range entries.GetEntries() {
		for _, text := range e.GetHashes() {
			first, _ := hashlist.ParseHash(e.GetHashes()[0])
			if h, err := hashlist.ParseHash(text); err != nil || h.Algorithm() != first.Algorithm() {
				t.Errorf("%v in one statement", e.GetHashes())
			}
		}
	}
}
