package exchange

import (
	"bytes"
	"crypto/sha256"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/idna"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// said is what a fold keeps of a thing that a list was read into.
type said struct {
	Action hashlist.Action
	Labels string
	Reason string
}

// folded is what a list says when its rows were read in order: of each thing the last.
func folded(rows []Row) map[string]said {
	fold := map[string]said{}
	for _, r := range rows {
		name := r.Subject
		if name == "" {
			name = r.Hash.String()
		}
		if r.Withdrawn {
			delete(fold, name)
			continue
		}
		fold[name] = said{r.Action, strings.Join(r.Labels, " "), r.Reason}
	}
	return fold
}

// readAll reads a file to its end. final is the error that ended it.
func readAll(f Format, file []byte, o Options) (rows []Row, bad []BadRow, final error) {
	for row, err := range f.Read(bytes.NewReader(file), o) {
		if b, ok := errors.AsType[BadRow](err); ok {
			bad = append(bad, b)
		} else if err != nil {
			final = err
		} else {
			rows = append(rows, row)
		}
	}
	return rows, bad, final
}

// samples are small files after the published formats, with what honest and dishonest files have in
// them. Those of TOCSIN_TESTDATA are real.
var samples = []struct {
	format, name, text string
	rows, bad          int
	why                string // something that the reasons of the bad rows say
}{
	{"mastodon", "export", "#domain,#severity,#reject_media,#reject_reports,#public_comment,#obfuscate\r\n" +
		"spam.example,suspend,false,false,\"spam, and \"\"more\"\"\",false\r\nquiet.example,silence,true,true,,true\r\n\r\n,,,,,\r\n" +
		"nothing.example,noop,true,false,only media,false\r\nnote.example,noop,false,false,watch,false\r\nb\u00fccher.example,suspend,,,,\r\nxn--bcher-kva.example,suspend,,,,\r\n*.star.example,suspend,false,false,,false\r\n" +
		"a**.example,suspend,false,false,,true\r\nap.invalid,suspend,false,false,,false\r\nreal.example,suspend,false,false,iftas:canary,true\r\nodd.example,block,false,false,,false\r\n" +
		"lie.example,suspend,delete this line,false,false,false\r\nshort.example,suspend\r\n1.2.3.4,suspend,false,false,,false\r\n", 7, 7, "canary"},
	{"fediblockhole", "columns in another order, True and False, private comments", "domain,severity,public_comment,private_comment,reject_media,reject_reports,obfuscate\n" +
		"spam.example,suspend,spam,our own business,True,False,False\nquiet.example,silence,,,FALSE,TRUE,True\n", 2, 0, ""},
	{"fediblockhole", "an allow list", "domain,\nok.example,\ncanary.tier0.example.com,\n", 1, 1, "canary"},
	{"gotosocial-csv", "six columns", mastodonHeader + "\nspam.example,suspend,false,false,spam,false\nquiet.example,silence,false,false,,false\nfive.example,suspend,false,false,\n", 1, 2, "exactly 6"},
	{"gotosocial-json", "permissions", `[{"domain":"spam.example","public_comment":"spam"},{"domain":"x.example","obfuscate":true,"private_comment":"ours"},{"domain":7}]`, 2, 1, "number"},
	{"mastodon-api", "public list", `[{"domain":"spam.example","digest":"` + digest("spam.example") + `","severity":"suspend","comment":"spam"},
		{"domain":"kn***.example","digest":"` + digest("known.example") + `","severity":"silence","comment":""},
		{"domain":"un*****.example","digest":"` + digest("unknown.example") + `","severity":"suspend","comment":null},
		{"domain":"liar.example","digest":"` + digest("other.example") + `","severity":"suspend"}]`, 2, 2, "digest"},
	{"mastodon-api", "admin list", `[{"id":"1","domain":"spam.example","digest":"` + digest("spam.example") + `","created_at":"2026-01-01T00:00:00Z","severity":"noop","reject_media":true,"reject_reports":false,"private_comment":"ours","public_comment":"spam","obfuscate":true}]`, 1, 0, ""},
	{"domains", "plain text", "# ours\nspam.example\n\n.quiet.example.\nhttps://link.example/\nnodot\n", 2, 2, "not a domain alone"},
	{"rapidblock", "blocks", `{"@spec":"https://rapidblock.org/spec/v1/","publishedAt":"2026-01-01T00:00:00Z","blocks":{
		"spam.example":{"isBlocked":true,"reason":"spam","tags":["spam","hate speech"],"dateRequested":"2026-01-01T00:00:00Z","dateDecided":"2026-01-01T00:00:00Z"},
		"former.example":{"isBlocked":false,"reason":"they moved on","tags":[]},
		"canary.list.invalid":{"isBlocked":true}}}`, 2, 1, "canary"},
	{"peertube", "auto-mute", `{"data":[{"value":"spam.example","updatedAt":"2026-01-01T00:00:00.000Z"},{"value":"mallory@bad.example","action":"add"},{"value":"former.example","action":"remove"},{"value":"x","action":"add"},{"value":"a b@c.example"}]}`, 3, 2, "user's name"},
	{"pleroma", "nodeinfo", `{"version":"2.0","metadata":{"federation":{"enabled":true,"quarantined_instances":["not.read.example"],"mrf_policies":["SimplePolicy"],
		"mrf_simple":{"reject":["spam.example","*.wild.example"],"media_removal":["spam.example","pictures.example"],"report_removal":["whiny.example"],"federated_timeline_removal":["loud.example"],"accept":["good.example"],"unknown_policy":["skipped.example"]},
		"mrf_simple_info":{"reject":{"spam.example":{"reason":"spam"}},"media_removal":{"pictures.example":{"reason":"bad pictures"}}}}}}`, 6, 0, ""},
	{"fediseer", "censures", `{"instances":[{"id":1,"domain":"spam.example","censure_reasons":["spam, hate speech","spam"],"censure_evidence":["https://fediseer.example/evidence"]},
		{"domain":"doubt.example","hesitation_reasons":[],"hesitation_evidence":null},{"domain":"good.example","endorsement_reasons":["friendly"]},{"domain":"what.example"}]}`, 3, 1, "say which action"},
	{"lemmy", "federated instances", `{"federated_instances":{"linked":[{"id":1,"domain":"linked.example"}],"allowed":[{"id":2,"domain":"ok.example"}],"blocked":[{"id":3,"domain":"spam.example","software":"lemmy"},"old.example"]}}`, 3, 0, ""},
	{"fires", "snapshot", firesSample("Collection", false), 4, 2, "policy"},
	{"fires-changes", "page of changes", firesSample("OrderedCollectionPage", true), 6, 2, "policy"},
	{"plain", "hashes", pdqHex + "\nmd5:" + md5Hex + "\nnonsense\n", 2, 1, "no hash"},
	{"pdq", "pairs", "pdq " + pdqHex + "\nsha256 " + sha256Hex + "\nx\n", 2, 1, "no blank"},
	{"pdq-csv", "of the PDQ tool", "hash,quality,filename\n" + pdqHex + ",100,a.jpg\n" + pdqHex2 + ",12,flat.jpg\n", 1, 1, "quality"},
	{"pytx", "dataset", pytxHeader + "\npdq," + pdqHex + ",c,TRUE_POSITIVE,csam media_type_photo\nvideo_md5," + md5Hex + ",c,,\nurl,https://x.example/,c,,\n", 2, 1, "not supported"},
	{"hma", "bank", `[{"id":1001,"signals":{"pdq":"` + pdqHex + `","video_md5":"` + md5Hex + `"}},{"id":1002,"disable_match_until_ts":-1,"signals":{"pdq":"` + pdqHex2 + `"}},{"signal_type":"pdq","signal_val":"` + pdqHex2 + `"}]`, 3, 1, "switched off"},
	{"vpdq", "frames", `["` + pdqHex + `,100,0.000","` + pdqHex2 + `,30,1.000","` + zeroPDQ + `,100,2.0"]`, 1, 2, "quality 30"},
	{"ncmec", "entries", ncmecSample, 5, 2, "PhotoDNA"},
	{"stopncii", "FetchHashes", `{"count":4,"hasMoreRecords":true,"nextSetTimestamp":1700000000,"nextPageToken":"abc","hashRecords":[
		{"lastModtimestamp":1,"signalType":"ImagePDQ","hashValue":"` + pdqHex + `","hashStatus":"Active","caseNumbers":{"1":"a"},"CSPFeedbacks":[]},
		{"signalType":"VideoMD5","hashValue":"` + md5Hex + `","hashStatus":"Active"},
		{"signalType":"ImagePDQ","hashValue":"` + pdqHex2 + `","hashStatus":"Withdrawn"},
		{"signalType":"ImagePDQ","hashValue":"` + zeroPDQ + `","hashStatus":"Active"},
		{"signalType":"ImageTMK","hashValue":"x","hashStatus":"Active"},
		{"signalType":"ImagePDQ","hashValue":"` + pdqHex2 + `","hashStatus":"Received"}]}`, 3, 3, "all-zero"},
	{"techagainstterrorism", "hash list", `[{"hash_digest":"` + md5Hex + `","algorithm":"MD5","ideology":"Far Right","file_type":"mp4","deleted":false,"updated_on":"2026-01-01","created_on":"2026-01-01","id":"7"},
		{"hash_digest":"` + pdqHex + `","algorithm":"PDQ","ideology":"islamist","deleted":false,"id":8},
		{"hash_digest":"` + sha256Hex + `","algorithm":"SHA-256","ideology":"","deleted":true,"id":9},{"hash_digest":"x","algorithm":"SIFT"}]`, 3, 1, "unknown hash algorithm"},
	{"csv", "everything", "hash,domain,account,action,labels,reason\nmd5:" + md5Hex + ",,,,\"gore, spam\",why\n,spam.example,,silence,,\n,,mallory@bad.example,reject,spam,\n,,https://bad.example/users/eve,,,\n,a.example,b@c.example,,,\n", 4, 1, "more than one"},
}

func firesSample(kind string, changes bool) string {
	item := func(n int, kind, entity, key, rest string) string {
		return fmt.Sprintf(`{"id":"https://fires.example/datasets/d/changes/%d","type":"%s","published":"2026-01-01T00:00:00Z","entityKind":"%s","entityKey":"%s"%s}`, n, kind, entity, key, rest)
	}
	items := []string{
		item(1, "Advisory", "domain", "watch.example", `,"labels":["https://fires.example/labels/0197aaaa-0000-7000-8000-000000000001"]`),
		item(2, "Recommendation", "domain", "spam.example", `,"labels":["https://fires.example/labels/spam"],"recommendedPolicy":"drop","recommendedFilters":[]`),
		item(3, "Recommendation", "domain", "loud.example", `,"recommendedPolicy":"filter","recommendedFilters":["reject-media","hide"]`),
		item(4, "Recommendation", "actor", "https://bad.example/users/mallory", `,"recommendedPolicy":"reject","comment":"spam"`),
		item(5, "Recommendation", "domain", "odd.example", `,"recommendedPolicy":"nuke"`),
		item(6, "Recommendation", "server", "odd.example", `,"recommendedPolicy":"drop"`),
	}
	if changes {
		items = append(items, item(7, "Retraction", "domain", "watch.example", ""), item(8, "Tombstone", "actor", "https://bad.example/users/mallory", ""))
	}
	return `{"@context":["https://www.w3.org/ns/activitystreams"],"type":"` + kind + `","next":"https://fires.example/next","totalItems":8,"orderedItems":[` + strings.Join(items, ",\n") + "]}"
}

var ncmecSample = `<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<queryResult xmlns="https://hashsharing.ncmec.org/hashsharing/v2">
 <images count="3" maxTimestamp="2026-01-02T00:00:00Z">
  <image><member id="42">Member</member><timestamp>2026-01-02T00:00:00Z</timestamp><id>image1</id><classification>A1</classification>
   <fingerprints><md5>` + md5Hex + `</md5><sha1>` + sha1Hex + `</sha1><pdna>AAAA</pdna><pdq>` + pdqHex + `</pdq></fingerprints></image>
  <image><member id="42">Member</member><timestamp>2026-01-01T00:00:00Z</timestamp><id>image2</id><classification>B2</classification><fingerprints><pdna>AAAA</pdna></fingerprints></image>
  <image><member id="43">Other</member><id>image3</id><fingerprints><pdq>` + zeroPDQ + `</pdq></fingerprints></image>
  <deletedImage><member id="42">Member</member><timestamp>2026-01-01T00:00:00Z</timestamp><id>image0</id></deletedImage>
 </images>
 <videos count="1" maxTimestamp="2026-01-01T00:00:00Z">
  <video><member id="42">Member</member><id>video1</id><fingerprints><md5>` + md5Hex[:30] + `ff</md5></fingerprints></video>
 </videos>
 <paging><next>/v2/entries?from=a&amp;to=b&amp;start=3</next></paging>
</queryResult>
`

// TestContract reads each sample, writes what was read and reads it again: both come to the same
// fold. With -v it prints the table of formats.
func TestContract(t *testing.T) {
	known := func(sum [32]byte) (string, bool) {
		return "known.example", fmt.Sprintf("%x", sum) == digest("known.example")
	}
	seen := map[string]bool{}
	var table strings.Builder
	fmt.Fprintf(&table, "%-21s %-52s %5s %8s %6s  %s\n", "format", "sample", "rows", "refused", "again", "one of the reasons")
	check := func(format, name string, file []byte, rows, bad int, why string) {
		f, err := Lookup(format)
		if err != nil {
			t.Fatal(err)
		}
		seen[format] = true
		o := Options{Known: known}
		if strings.Contains(name, "allow") {
			o.Action = hashlist.Drop // what it must be told, and the format can carry
			if rows, _, err := readAll(f, file, Options{}); err == nil || len(rows) > 0 {
				t.Errorf("%s, %s was guessed to be of blocks", format, name)
			}
		}
		in, refused, final := readAll(f, file, o)
		if final != nil || len(in) != rows || len(refused) != bad {
			t.Errorf("%s, %s: %d rows and %d refused, want %d and %d; %v\n%v", format, name, len(in), len(refused), rows, bad, final, refused)
		}
		reason := ""
		for _, b := range refused {
			if reason == "" || why != "" && strings.Contains(b.Reason, why) && !strings.Contains(reason, why) {
				reason = b.Error()
			}
		}
		if !strings.Contains(reason, why) {
			t.Errorf("%s, %s: %v does not say %q", format, name, refused, why)
		}
		var out bytes.Buffer
		w := f.Write(&out, Head{Name: "list"})
		for _, row := range in {
			if row.Withdrawn {
				continue
			}
			if _, still := folded(in)[cmpName(row)]; !still {
				continue
			}
			row.Quality = max(row.Quality, -1)
			if err := w.Write(row); err != nil {
				t.Errorf("%s, %s: line %d: %v", format, name, row.Line, err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		back, badly, final := readAll(f, out.Bytes(), Options{})
		diff := cmp.Diff(folded(in), folded(back))
		again := "equal"
		if final != nil || len(badly) > 0 || diff != "" {
			again = "DIFFERS"
			t.Errorf("%s, %s: what was written is read otherwise: %v %v\n%s\n%s", format, name, badly, final, diff, &out)
		}
		if detected, err := Detect(file[:min(len(file), 4096)]); err == nil && detected.Name != format {
			// FediBlockHole's columns may be Mastodon's, which reads the same from them.
			if !(format == "gotosocial-csv" && detected.Name == "mastodon") && !(detected.Name == "fediblockhole" || format == "fediblockhole") {
				t.Errorf("%s, %s is detected as %s", format, name, detected.Name)
			}
		}
		fmt.Fprintf(&table, "%-21s %-52s %5d %8d %6s  %.90s\n", format, name, len(in), len(refused), again, reason)
	}
	for _, s := range samples {
		check(s.format, s.name, []byte(s.text), s.rows, s.bad, s.why)
	}
	if dir := os.Getenv("TOCSIN_TESTDATA"); dir != "" {
		for _, s := range []struct {
			format, name string
			rows, bad    int
			why          string
		}{
			{"fediblockhole", "oliphant/__allowlist.csv", 0, 8, "canary"},
			{"fediblockhole", "oliphant/_unified_tier0_blocklist.csv", 449, 0, ""},
			{"mastodon", "oliphant/dni.csv", 86, 1, "canary"},
			{"fediblockhole", "oliphant/gardenfence.csv", 147, 0, ""},
			{"mastodon", "oliphant/iftas-aud.csv", 36, 1, "canary"},
			{"mastodon", "oliphant/mastodon-format__unified_tier0_blocklist.csv", 449, 0, ""},
			{"mastodon", "oliphant/mastodon-format_mastodon.social.csv", 266, 130, "obfuscated"},
			{"mastodon", "oliphant/mastodon-format_seirdy-tier0.csv", 373, 2, "do the columns fit"},
			{"fediblockhole", "oliphant/mastodon.online.csv", 217, 108, "obfuscated"},
			{"fediblockhole", "oliphant/mastodon.social.csv", 266, 130, "obfuscated"},
			{"fediblockhole", "oliphant/seirdy-tier0.csv", 373, 2, "canary"},
			{"fires", "fires/snapshot.constructed.json", 1, 0, ""},
			{"fires-changes", "fires/changes-page.constructed.json", 3, 0, ""},
			{"pleroma", "pleroma/nodeinfo_federation.constructed.json", 3, 0, ""},
		} {
			file, err := os.ReadFile(filepath.Join(dir, "blocklists", s.name))
			if err != nil {
				t.Fatal(err)
			}
			check(s.format, s.name, file, s.rows, s.bad, s.why)
		}
		for name, rows := range map[string]int{"haystack.txt": 1350, "needles.txt": 100} {
			file, err := os.ReadFile(filepath.Join(dir, "pdq", name))
			if err != nil {
				t.Fatal(err)
			}
			check("plain", "pdq/"+name, file, rows, 0, "")
		}
	} else if os.Getenv("CI") == "true" {
		t.Fatal("TOCSIN_TESTDATA is not set")
	}
	for _, f := range Formats() {
		if !seen[f.Name] {
			t.Errorf("format %s has no sample", f.Name)
		}
	}
	t.Log("\n" + table.String())
}

func cmpName(r Row) string {
	if r.Subject != "" {
		return r.Subject
	}
	return r.Hash.String()
}

// strictMastodon reads a file as Mastodon does: without its header exactly, every name is suspended, and more
// than 20,000 rows are refused. It is written from Mastodon's rules, not from this package.
func strictMastodon(file []byte) (map[string][5]string, error) {
	if bytes.HasPrefix(file, []byte("\xef\xbb\xbf")) || !bytes.HasPrefix(file, []byte("#domain,")) {
		return nil, errors.New("the header is not #domain: every row would be a suspension")
	}
	rows, err := csv.NewReader(bytes.NewReader(file)).ReadAll()
	if err != nil {
		return nil, err
	}
	if len(rows)-1 > 20_000 {
		return nil, errors.New("more than 20,000 rows")
	}
	want := []string{"#domain", "#severity", "#reject_media", "#reject_reports", "#public_comment", "#obfuscate"}
	if !slices.Equal(rows[0], want) {
		return nil, fmt.Errorf("header %q", rows[0])
	}
	all := map[string][5]string{}
	for _, r := range rows[1:] {
		if !slices.Contains([]string{"noop", "silence", "suspend"}, r[1]) {
			return nil, fmt.Errorf("severity %q", r[1])
		}
		for _, i := range []int{2, 3, 5} {
			if r[i] != "true" && r[i] != "false" {
				return nil, fmt.Errorf("flag %q", r[i])
			}
		}
		if a, err := idna.Registration.ToASCII(r[0]); err != nil || a != r[0] || !strings.Contains(a, ".") || strings.ToLower(a) != a {
			return nil, fmt.Errorf("domain %q: %v", r[0], err)
		}
		if _, twice := all[r[0]]; twice {
			return nil, fmt.Errorf("domain %q is there twice", r[0])
		}
		all[r[0]] = [5]string(r[1:])
	}
	return all, nil
}

// strictGoToSocial reads CSV as GoToSocial's subscriptions do: a row of exactly six columns is
// used if it is a suspension, and no usable row is an error.
func strictGoToSocial(file []byte) ([]string, error) {
	r := csv.NewReader(bytes.NewReader(file))
	r.FieldsPerRecord = -1
	rows, err := r.ReadAll()
	if err != nil {
		return nil, err
	}
	var domains []string
	for i, row := range rows {
		switch {
		case len(row) != 6:
			return nil, fmt.Errorf("row %d has %d columns and would be left out", i+1, len(row))
		case i == 0 && row[0] == "#domain":
		case row[1] != "suspend":
			return nil, fmt.Errorf("row %d is %s and would be left out", i+1, row[1])
		default:
			domains = append(domains, row[0])
		}
	}
	if len(domains) == 0 {
		return nil, errors.New("no usable row")
	}
	return domains, nil
}

// TestReadBackByOthers writes what real lists say, merged, and reads it by the rules of those for whom it is.
func TestReadBackByOthers(t *testing.T) {
	f, _ := Lookup("mastodon")
	texts := [][]byte{[]byte(samples[0].text)}
	if dir := os.Getenv("TOCSIN_TESTDATA"); dir != "" {
		files, err := filepath.Glob(filepath.Join(dir, "blocklists/oliphant/mastodon-format_*.csv"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no samples: %v", err)
		}
		for _, name := range files {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			texts = append(texts, text)
		}
	}
	merged := map[string]Row{}
	for _, text := range texts {
		rows, _, err := readAll(f, text, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			if has, ok := merged[r.Subject]; !ok || has.Action < r.Action { // the gravest
				merged[r.Subject] = r
			}
		}
	}
	write := func(format string, rows map[string]Row) (file []byte, left int) {
		f, err := Lookup(format)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		w := f.Write(&b, Head{})
		for _, r := range rows {
			if err := w.Write(r); errors.Is(err, ErrCannotCarry) {
				left++
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes(), left
	}
	file, left := write("mastodon", merged)
	all, err := strictMastodon(file)
	if err != nil || left != 0 || len(all) != len(merged) {
		t.Fatalf("Mastodon reads %d of %d, %d left out: %v", len(all), len(merged), left, err)
	}
	suspended := 0
	for domain, r := range merged {
		want := map[hashlist.Action]string{hashlist.Drop: "suspend", hashlist.Filter: "silence"}[r.Action]
		if slices.Contains(r.Labels, LabelAdvisory) {
			want = "noop"
		}
		if got := all[domain]; got[0] != want || got[1] != fmt.Sprint(slices.Contains(r.Labels, LabelRejectMedia)) ||
			got[2] != fmt.Sprint(slices.Contains(r.Labels, LabelRejectReports)) || got[3] != r.Reason || got[4] != fmt.Sprint(slices.Contains(r.Labels, LabelObfuscate)) {
			t.Errorf("%s: Mastodon reads %q of %+v", domain, got, r)
		}
		if r.Action == hashlist.Drop {
			suspended++
		}
	}
	file, left = write("gotosocial-csv", merged)
	domains, err := strictGoToSocial(file)
	if err != nil || len(domains) != suspended || left != len(merged)-suspended {
		t.Errorf("GoToSocial reads %d of %d suspensions, %d left out: %v", len(domains), suspended, left, err)
	}
	t.Logf("%d lists merged to %d domains: Mastodon reads all of them, GoToSocial the %d suspensions", len(texts), len(merged), suspended)

	many := map[string]Row{}
	for i := range 20_050 {
		domain := fmt.Sprintf("d%d.example", i)
		many[domain] = Row{Subject: domain, Quality: -1, Action: hashlist.Drop}
	}
	file, left = write("mastodon", many)
	if all, err := strictMastodon(file); err != nil || len(all) != 20_000 || left != 50 {
		t.Errorf("of 20,050 rows Mastodon reads %d, %d left out: %v", len(all), left, err)
	}
}

// TestNotTheFormat: what is not in a format at all ends with one error that says so, and files that are cut off
// do not pass for whole ones.
func TestNotTheFormat(t *testing.T) {
	page := "<!DOCTYPE html>\n<html><body>Too many requests</body></html>\n"
	entity := `<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><queryResult xmlns="` + ncmecSpace + `"><images>&b;</images></queryResult>`
	for _, f := range Formats() {
		switch f.Name {
		case "plain", "pdq", "pdq-csv", "domains": // any line may be one of theirs
			continue
		}
		for name, file := range map[string]string{
			"web page": page, "UTF-16": "\xff\xfe{\x00}\x00", "empty": "", "another JSON": `{"a":1}`, "another XML": "<a><b/></a>", "entities": entity,
			"deep JSON": strings.Repeat(`[`, 100_000), "deep value": `[` + strings.Repeat(`[`, 5000) + strings.Repeat(`]`, 5000) + `]`,
			"deep XML": `<queryResult xmlns="` + ncmecSpace + `">` + strings.Repeat("<images>", 100_000),
			"latin-1":  `<?xml version="1.0" encoding="ISO-8859-1"?><queryResult xmlns="` + ncmecSpace + `"/>`,
			"endless":  `[{"domain":"` + strings.Repeat("a", 1<<20) + `"}]`, "endless key": `{"` + strings.Repeat("a", 1<<20) + `":1}`,
		} {
			if f.Name == "gotosocial-csv" {
				continue // has no header: each row is refused
			}
			rows, _, final := readAll(f, []byte(file), Options{})
			if len(rows) != 0 || final == nil && name != "deep value" && !(name == "another JSON" && f.Name == "fires") {
				t.Errorf("%s reads %s as %d rows, error %v", f.Name, name, len(rows), final)
			}
		}
	}
	for _, s := range samples {
		f := format(t, s.format)
		if head := s.text[0]; head != '{' && head != '[' && head != '<' {
			continue
		}
		for n := 1; n < len(s.text)-2; n += 7 {
			if _, _, final := readAll(f, []byte(s.text[:n]), Options{}); final == nil {
				t.Errorf("%s, cut off behind %d of %d bytes, passes for whole", s.format, n, len(s.text))
				break
			}
		}
		if _, _, final := readAll(f, []byte(s.text+s.text), Options{}); final == nil {
			t.Errorf("%s, twice, passes for once", s.format)
		}
		broken := errors.New("the line went dead")
		var final error
		for _, err := range f.Read(io.MultiReader(strings.NewReader(s.text[:len(s.text)/2]), iotest.ErrReader(broken)), Options{}) {
			final = err
		}
		if !errors.Is(final, broken) {
			t.Errorf("%s: a read that fails ends in %v", s.format, final)
		}
		for stop := range 3 { // the runtime panics if the sequence goes on
			n := 0
			for range f.Read(strings.NewReader(s.text), Options{}) {
				if n++; n > stop {
					break
				}
			}
		}
	}
}

// TestBeside hears what files say beside their rows.
func TestBeside(t *testing.T) {
	for format, want := range map[string]string{
		"ncmec":    "maxTimestamp=2026-01-02T00:00:00Z maxTimestamp=2026-01-01T00:00:00Z next=/v2/entries?from=a&to=b&start=3",
		"stopncii": "count=4 hasMoreRecords=true nextSetTimestamp=1700000000 nextPageToken=abc",
		"fires":    "next=https://fires.example/next", "rapidblock": "publishedAt=2026-01-01T00:00:00Z",
	} {
		for _, s := range samples {
			if s.format != format {
				continue
			}
			var got []string
			_, _, err := readAll(formatNamed(format), []byte(s.text), Options{Beside: func(name, value string) { got = append(got, name+"="+value) }})
			if err != nil || strings.Join(got, " ") != want {
				t.Errorf("%s: %q, %v, want %s", format, got, err, want)
			}
		}
	}
}

func formatNamed(name string) Format { f, _ := Lookup(name); return f }

func digest(domain string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(domain))) }
