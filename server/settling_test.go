package server

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

const blocks = `#domain,#severity,#reject_media,#reject_reports,#public_comment,#obfuscate
spam.example,suspend,false,false,spam,false
loud.example,silence,true,false,"loud, and rude",false
bücher.example,suspend,false,false,,false
canary.blocks.invalid,suspend,false,false,,false
hid***.example,suspend,false,false,,false
`

// counts are those of the last message of an import.
func counts(v *pb.ImportResponse) string {
	return fmt.Sprintf("%s: rows %d listed %d fresh %d changed %d retracted %d skipped %d refused %d held %q",
		v.GetFormat(), v.GetRows(), v.GetListed(), v.GetFresh(), v.GetChanged(), v.GetRetracted(), v.GetSkipped(), v.GetRefused(), v.GetHeld())
}

// TestImportServers brings a list of blocks in, again, changed, shrunk and emptied, and out again.
func TestImportServers(t *testing.T) {
	n := start(t)
	c := pb.NewListServiceClient(n.owner())
	if _, err := c.CreateList(t.Context(), &pb.CreateListRequest{List: &pb.List{Name: "blocks"}}); err != nil {
		t.Fatal(err)
	}
	var last *pb.ImportResponse
	var changes []*pb.ImportChange
	run := func(what, file, want string, o *pb.ImportOptions) {
		t.Helper()
		o.List = "blocks"
		all, err := importFile(t.Context(), c, o, []byte(file), 100)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		changes = nil
		for _, m := range all {
			changes = append(changes, m.GetChanges()...)
		}
		last = all[len(all)-1]
		if got := counts(last); got != want {
			t.Errorf("%s:\n got %s\nwant %s", what, got, want)
		}
	}
	says := func(domain, want string) {
		t.Helper()
		var got []string
		for _, v := range n.lists.Subject(hashlist.AddInstances, domain) {
			got = append(got, fmt.Sprintf("%v%v%s", v.Action, v.Labels, v.Reason))
		}
		if strings.Join(got, " and ") != want {
			t.Errorf("%s: %q, want %q", domain, got, want)
		}
	}

	auto := &pb.ImportOptions{Format: "auto", DryRun: true}
	run("dry", blocks, `mastodon: rows 5 listed 0 fresh 3 changed 0 retracted 0 skipped 0 refused 2 held ""`, auto)
	if len(changes) != 3 || n.lists.Seq() != 1 {
		t.Errorf("a dry run described %d changes, and the log is at %d", len(changes), n.lists.Seq())
	}
	run("first", blocks, `mastodon: rows 5 listed 3 fresh 3 changed 0 retracted 0 skipped 0 refused 2 held ""`, &pb.ImportOptions{Format: "auto"})
	says("spam.example", "drop[]spam")
	says("loud.example", "filter[reject-media]loud, and rude")
	says("xn--bcher-kva.example", "drop[]")
	at := n.lists.Seq()
	run("again", blocks, `mastodon: rows 5 listed 0 fresh 0 changed 0 retracted 0 skipped 3 refused 2 held ""`, &pb.ImportOptions{Format: "mastodon"})
	if n.lists.Seq() != at {
		t.Errorf("importing the same file again wrote %d statements", n.lists.Seq()-at)
	}

	harder := strings.Replace(blocks, "loud.example,silence", "loud.example,suspend", 1)
	run("changed", harder, `mastodon: rows 5 listed 0 fresh 0 changed 1 retracted 0 skipped 2 refused 2 held ""`, &pb.ImportOptions{Format: "mastodon"})
	says("loud.example", "drop[reject-media]loud, and rude")
	if len(changes) != 1 || changes[0].GetOld().GetAction() != pb.Action_ACTION_FILTER || changes[0].GetNew().GetAction() != pb.Action_ACTION_DROP {
		t.Errorf("described %v", changes)
	}

	// A domain that is known here is told from its digest.
	run("obfuscated", `[{"domain":"sp**.example","digest":"`+digestOf("spam.example")+`","severity":"silence","comment":"less"},
		{"domain":"other**.example","digest":"`+digestOf("other12.example")+`","severity":"suspend"}]`,
		`mastodon-api: rows 2 listed 0 fresh 0 changed 1 retracted 0 skipped 0 refused 1 held ""`, &pb.ImportOptions{Format: "auto"})
	says("spam.example", "filter[]less")

	// What is absent stays, and only a snapshot may say otherwise.
	short := `[{"domain":"spam.example","severity":"silence","comment":"less"},{"domain":"loud.example","severity":"suspend","comment":"loud, and rude","reject_media":true}]`
	run("shorter", short, `mastodon-api: rows 2 listed 0 fresh 0 changed 0 retracted 0 skipped 2 refused 0 held ""`, &pb.ImportOptions{Format: "mastodon-api"})
	_, err := importFile(t.Context(), c, &pb.ImportOptions{List: "blocks", Format: "mastodon", RetractAbsent: true}, []byte(blocks), 100)
	wantCode(t, "absent from a listing", err, codes.InvalidArgument)
	run("snapshot, shrunk", short[:strings.Index(short, ",{")]+"]",
		`mastodon-api: rows 1 listed 0 fresh 0 changed 0 retracted 0 skipped 1 refused 0 held "2 of 3 that were on it are gone, more than 33 %"`,
		&pb.ImportOptions{Format: "mastodon-api", RetractAbsent: true})
	run("snapshot, empty", "[]", `mastodon-api: rows 0 listed 0 fresh 0 changed 0 retracted 0 skipped 0 refused 0 held "it came back empty, and 3 were on it"`,
		&pb.ImportOptions{Format: "mastodon-api", RetractAbsent: true})
	says("xn--bcher-kva.example", "drop[]")
	if _, err := importFile(t.Context(), c, &pb.ImportOptions{List: "blocks", Format: "mastodon-api", RetractAbsent: true}, []byte(short[:40]), 100); err == nil {
		t.Error("a file that was cut off was taken for a whole one")
	}
	run("snapshot", short, `mastodon-api: rows 2 listed 0 fresh 0 changed 0 retracted 1 skipped 2 refused 0 held ""`,
		&pb.ImportOptions{Format: "mastodon-api", RetractAbsent: true})
	says("xn--bcher-kva.example", "")

	// Formats with a word for it take back.
	run("taken back, held", `{"blocks":{"loud.example":{"isBlocked":false},"never.example":{"isBlocked":false}}}`,
		`rapidblock: rows 2 listed 0 fresh 0 changed 0 retracted 0 skipped 1 refused 0 held "1 of 2 that were on it are gone, more than 33 %"`, &pb.ImportOptions{Format: "auto"})
	run("taken back, approved", `{"blocks":{"loud.example":{"isBlocked":false},"never.example":{"isBlocked":false}}}`,
		`rapidblock: rows 2 listed 0 fresh 0 changed 0 retracted 1 skipped 1 refused 0 held ""`, &pb.ImportOptions{Format: "auto", Approve: true})
	says("loud.example", "")

	run("accounts", `{"data":[{"value":"mallory@bad.example"},{"value":"bad.example","action":"add"}]}`,
		`peertube: rows 2 listed 2 fresh 2 changed 0 retracted 0 skipped 0 refused 0 held ""`, &pb.ImportOptions{Format: "peertube", Labels: []string{"spam"}})
	if got := n.lists.Subject(hashlist.AddAccounts, "https://bad.example/@mallory"); len(got) != 1 || !slices.Equal(got[0].Labels, []string{"spam"}) {
		t.Errorf("account: %v", got)
	}
	out := export(t, c, "blocks", "mastodon")
	if want := "#domain,#severity,#reject_media,#reject_reports,#public_comment,#obfuscate\nbad.example,suspend,false,false,,false\nspam.example,silence,false,false,less,false\n"; out != want {
		t.Errorf("exported:\n%s\nwant\n%s", out, want)
	}
	run("what was exported", export(t, c, "blocks", "csv"), `csv: rows 3 listed 0 fresh 0 changed 0 retracted 0 skipped 3 refused 0 held ""`, &pb.ImportOptions{Format: "csv"})
}

// TestPartnerImports: what comes in a partner's format goes to a marked list alone, and does not
// get out by way of another import.
func TestPartnerImports(t *testing.T) {
	n := start(t)
	c := n.partnerList("partner")
	n.newList("open")
	hidden := &pb.List{Name: "hidden", Audience: pb.Audience_AUDIENCE_LOCAL}
	if _, err := c.CreateList(t.Context(), &pb.CreateListRequest{List: hidden}); err != nil {
		t.Fatal(err)
	}
	h := randomHashes(40)
	entry := func(h hashlist.Hash, status string) string {
		n.secrets = append(n.secrets, h.Hex())
		return `{"signalType":"ImagePDQ","hashValue":"` + h.Hex() + `","hashStatus":"` + status + `"}`
	}
	var records []string
	for _, h := range h {
		records = append(records, entry(h, "Active"))
	}
	file := func(records ...string) []byte {
		return []byte(`{"hashRecords":[` + strings.Join(records, ",\n") + `]}`)
	}
	for _, list := range []string{"open", "hidden"} {
		for _, format := range []string{"stopncii", "auto"} {
			_, err := importFile(t.Context(), c, &pb.ImportOptions{List: list, Format: format}, file(records...), 1000)
			wantCode(t, "partner data to list "+list, err, codes.FailedPrecondition)
			t.Logf("a partner's file imported to %s as %s: %v", list, format, err)
		}
	}
	all, err := importFile(t.Context(), c, &pb.ImportOptions{List: "partner", Format: "auto"}, file(records...), 1000)
	if err != nil || all[len(all)-1].GetListed() != 40 {
		t.Fatalf("%v, %v", all, err)
	}
	// Taken back by status.
	all, err = importFile(t.Context(), c, &pb.ImportOptions{List: "partner", Format: "stopncii"}, file(entry(h[0], "Withdrawn"), entry(h[1], "Deleted")), 1000)
	if last := all[len(all)-1]; err != nil || last.GetRetracted() != 2 {
		t.Fatalf("%v, %v", last, err)
	}
	all, err = importFile(t.Context(), c, &pb.ImportOptions{List: "partner", Format: "plain", DryRun: true}, plain(h), 1000)
	if last := all[len(all)-1]; err != nil || last.GetFresh() != 2 {
		t.Errorf("after the withdrawal: %v, %v", last, err)
	}
	var gone []string
	for _, h := range h[2:30] {
		gone = append(gone, entry(h, "Withdrawn"))
	}
	all, err = importFile(t.Context(), c, &pb.ImportOptions{List: "partner", Format: "stopncii"}, file(gone...), 1000)
	if last := all[len(all)-1]; err != nil || last.GetRetracted() != 0 || last.GetHeld() == "" {
		t.Errorf("most of it taken back: %v, %v", last, err)
	} else {
		t.Logf("28 of 38 taken back: held, %s", last.GetHeld())
	}
	// The same hashes in another format, as whoever copied them would bring them in.
	for _, list := range []string{"open", "hidden"} {
		all, err = importFile(t.Context(), c, &pb.ImportOptions{List: list, Format: "plain"}, append(plain(h), plain(randomHashes(41)[40:])...), 1000)
		last := all[len(all)-1]
		if err != nil || last.GetListed() != 3 || last.GetRefused() != 38 {
			t.Errorf("copied to %s: %v, %v", list, last, err)
		}
		for _, m := range all {
			for _, r := range m.GetRefusedRows()[:min(1, len(m.GetRefusedRows()))] {
				t.Logf("copied to %s: line %d: %s", list, r.GetLine(), r.GetReason())
			}
		}
	}
}

func digestOf(domain string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(domain))) }
