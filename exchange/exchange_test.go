package exchange

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tocsin-fed/tocsin/hashlist"
)

const (
	pdqHex    = "d8f8f0cee0f4a84f0637022a078f67f0b36e2ed596621e1d33e6339c4e9c9b22"
	pdqHex2   = "63fe6ef267ecb642fa014fb1019993310c0d6dfc04cffc299f6673849f729002"
	md5Hex    = "d41d8cd98f00b204e9800998ecf8427e"
	sha1Hex   = "da39a3ee5e6b4b0d3255bfef95601890afd80709"
	sha256Hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	phashHex  = "f8f8f0ce5c5c1e00"
	zeroPDQ   = "0000000000000000000000000000000000000000000000000000000000000000"
)

func hash(t testing.TB, text string) hashlist.Hash {
	t.Helper()
	h, err := hashlist.ParseHash(text)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func format(t testing.TB, name string) Format {
	t.Helper()
	f, err := Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// transcript writes down what a sequence yields, a line each.
func transcript(rows iter.Seq2[Row, error]) string {
	var b strings.Builder
	for row, err := range rows {
		if bad, ok := errors.AsType[BadRow](err); ok {
			fmt.Fprintf(&b, "%d bad: %s\n", bad.Line, bad.Reason)
		} else if err != nil {
			fmt.Fprintf(&b, "error: %v\n", err)
		} else {
			fmt.Fprintf(&b, "%d %v", row.Line, row.Hash)
			if row.Quality >= 0 {
				fmt.Fprintf(&b, " q%d", row.Quality)
			}
			for _, l := range row.Labels {
				fmt.Fprintf(&b, " %s", l)
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}

func TestRead(t *testing.T) {
	const header = pytxHeader + "\n"
	long := strings.Repeat("a", maxLine+1)
	tests := []struct {
		name, format string
		o            Options
		in, want     string
	}{
		{"lengths", "plain", Options{},
			pdqHex + "\n" + strings.ToUpper(md5Hex) + "\n  " + sha1Hex + "\t\nsha256:" + sha256Hex + "\nphash:" + phashHex + "\nPDQ:" + strings.ToUpper(pdqHex2),
			"1 pdq:" + pdqHex + "\n2 md5:" + md5Hex + "\n3 sha1:" + sha1Hex + "\n4 sha256:" + sha256Hex + "\n5 phash:" + phashHex + "\n6 pdq:" + pdqHex2 + "\n"},
		{"algorithm given", "plain", Options{Algorithm: hashlist.SHA256}, sha256Hex + "\nmd5:" + md5Hex + "\n" + md5Hex,
			"1 sha256:" + sha256Hex + "\n2 md5:" + md5Hex + "\n3 bad: sha256 hash has 32 characters, want 64 (hex), 44 (base64) or 256 (bits)\n"},
		{"ambiguous", "plain", Options{}, phashHex + "\n2Pjwzg/+s7Zuj5vXqHNTB7PoKkmVxNbl5kA2ic8Yr1A=",
			"1 bad: 16 hex digits may be phash or dhash: say which algorithm it is\n2 bad: 44 characters may be pdq or sha256 in base64: say which algorithm it is\n"},
		{"16 digits with algorithm", "plain", Options{Algorithm: hashlist.DHash}, phashHex, "1 dhash:" + phashHex + "\n"},
		{"bits", "plain", Options{}, strings.Repeat("1", 256), "1 pdq:" + strings.Repeat("f", 64) + "\n"},
		{"blank lines and comments", "plain", Options{}, "# a list\n\n \t\n#\n" + md5Hex + "\n\n", "5 md5:" + md5Hex + "\n"},
		{"CRLF and BOM", "plain", Options{}, "\xef\xbb\xbf" + md5Hex + "\r\n\r\n" + sha1Hex + "\r\n", "1 md5:" + md5Hex + "\n3 sha1:" + sha1Hex + "\n"},
		{"BOM before a comment", "plain", Options{}, "\xef\xbb\xbf# list\n" + md5Hex, "2 md5:" + md5Hex + "\n"},
		{"BOM further down", "plain", Options{}, md5Hex + "\n\xef\xbb\xbf" + md5Hex, "1 md5:" + md5Hex + "\n2 bad: 35 characters are no hash (pdq and sha256 have 64 hex digits, sha1 40, md5 32, phash and dhash 16)\n"},
		{"UTF-16", "plain", Options{}, "\xff\xfed\x004\x00\n\x00", "error: the file is UTF-16; convert it to UTF-8\n"},
		{"empty", "plain", Options{}, "", ""},
		{"zero", "plain", Options{}, zeroPDQ + "\nmd5:" + zeroPDQ[:32] + "\nphash:" + zeroPDQ[:16],
			"1 bad: the all-zero hash stands for an undecodable picture and is refused\n2 md5:" + zeroPDQ[:32] + "\n3 bad: the all-zero hash stands for an undecodable picture and is refused\n"},
		{"NUL and bad UTF-8", "plain", Options{}, strings.Repeat("\x00", 32) + "\n" + strings.Repeat("\xff", 64) + "\nmd5:" + md5Hex + "\x00\n" + md5Hex,
			"1 bad: md5 hash is not hexadecimal\n2 bad: pdq hash is not hexadecimal\n3 bad: md5 hash has 33 characters, want 32 (hex), 24 (base64) or 128 (bits)\n4 md5:" + md5Hex + "\n"},
		{"long line", "plain", Options{}, md5Hex + "\n" + long + "\n" + sha1Hex + "\n" + long + long + long + "\n" + long,
			"1 md5:" + md5Hex + "\n2 bad: line is longer than 65536 bytes\n3 sha1:" + sha1Hex + "\n4 bad: line is longer than 65536 bytes\n5 bad: line is longer than 65536 bytes\n"},
		{"longest line", "plain", Options{}, "#" + long[:maxLine-1] + "\r\n#" + long[:maxLine-1] + "\n" + md5Hex + "\n#" + long[:maxLine-1], "3 md5:" + md5Hex + "\n"},
		{"one byte longer", "plain", Options{}, "#" + long[:maxLine] + "\n" + md5Hex + "\n#" + long[:maxLine],
			"1 bad: line is longer than 65536 bytes\n2 md5:" + md5Hex + "\n3 bad: line is longer than 65536 bytes\n"},
		{"unknown algorithm", "plain", Options{}, "crc32:00000000\nmd5:sha1:" + sha1Hex + "\n:" + md5Hex + "\n" + pdqHex + ":pdq",
			"1 bad: unknown hash algorithm \"crc32\" (want pdq, phash, dhash, md5, sha1, sha256 or vpdq)\n2 bad: md5 hash has a colon in it\n" +
				"3 bad: unknown hash algorithm \"\" (want pdq, phash, dhash, md5, sha1, sha256 or vpdq)\n4 bad: unknown hash algorithm \"d8f8f0cee0f4\" (want pdq, phash, dhash, md5, sha1, sha256 or vpdq)\n"},

		{"pairs", "pdq", Options{}, "pdq " + pdqHex + "\nMD5\t \t" + md5Hex + "\n# x\n" + pdqHex + "\npdq " + pdqHex + " x\ntmk 1\npdq:" + pdqHex + "\npdq " + zeroPDQ,
			"1 pdq:" + pdqHex + "\n2 md5:" + md5Hex + "\n4 bad: no blank (want the algorithm's name and the hash, as in \"pdq f8f8…\")\n" +
				"5 bad: pdq hash has 66 characters, want 64 (hex), 44 (base64) or 256 (bits)\n6 bad: unknown hash algorithm \"tmk\" (want pdq, phash, dhash, md5, sha1, sha256 or vpdq)\n" +
				"7 bad: no blank (want the algorithm's name and the hash, as in \"pdq f8f8…\")\n8 bad: the all-zero hash stands for an undecodable picture and is refused\n"},

		{"reference tool", "pdq-csv", Options{},
			pdqHex + ",100,images/a.jpg\n" + pdqHex2 + ",50,a, \"b\", c.jpg\n" + pdqHex + ",49,flat.png\n" + pdqHex + ",0,\"x",
			"1 pdq:" + pdqHex + " q100\n2 pdq:" + pdqHex2 + " q50\n3 bad: quality 49 is below 50\n4 bad: quality 0 is below 50\n"},
		{"quality", "pdq-csv", Options{MinQuality: -1}, pdqHex + ",0,\n" + pdqHex + ",,\n" + pdqHex + ",101,\n" + pdqHex + ",-1,\n" + pdqHex + ",1e1,\n" + pdqHex + "\n" + pdqHex + ",7\n" + pdqHex + ",99999999999999999999,",
			"1 pdq:" + pdqHex + " q0\n2 pdq:" + pdqHex + "\n3 bad: the second field is not a quality from 0 to 100\n4 bad: the second field is not a quality from 0 to 100\n" +
				"5 bad: the second field is not a quality from 0 to 100\n6 bad: no comma (want hash,quality,filename)\n7 pdq:" + pdqHex + " q7\n8 bad: the second field is not a quality from 0 to 100\n"},
		{"least quality", "pdq-csv", Options{MinQuality: 80}, pdqHex + ",79,a\n" + pdqHex + ",80,a", "1 bad: quality 79 is below 80\n2 pdq:" + pdqHex + " q80\n"},
		{"header and quotes", "pdq-csv", Options{}, "hash,quality,filename\n\"" + pdqHex + "\",\"90\",\"a,\"\"b\"\".jpg\"\nhash,quality,filename\n",
			"2 pdq:" + pdqHex + " q90\n3 bad: pdq hash has 4 characters, want 64 (hex), 44 (base64) or 256 (bits)\n"},
		{"other outputs of the tool", "pdq-csv", Options{}, "hash=" + pdqHex + ",norm=128,delta=0,quality=100,filename=a\n" + pdqHex + "," + pdqHex2 + ",100,a\n" + zeroPDQ + ",100,a",
			"1 bad: this is the tool's detailed output: run it without --details\n2 bad: the second field is not a quality from 0 to 100\n3 bad: the all-zero hash stands for an undecodable picture and is refused\n"},

		{"pytx", "pytx", Options{}, header + "pdq," + pdqHex + ",Sample Signals,POSITIVE_CLASS,csam media_type_photo\nvideo_md5," + md5Hex + ",\"a, \"\"b\"\"\",INVESTIGATION_SEED,\n",
			"2 pdq:" + pdqHex + " csam media-type-photo\n3 md5:" + md5Hex + "\n"},
		{"pytx of old", "pytx", Options{}, "collab,signal_type,signal_str,category,tags\r\nSample Signals,pdq," + pdqHex + ",WORTH_INVESTIGATING,\r\n", "2 pdq:" + pdqHex + "\n"},
		{"fewest columns", "pytx", Options{}, "signal_str,signal_type\n" + md5Hex + ",md5\n\n" + sha256Hex + ",sha256\n", "2 md5:" + md5Hex + "\n4 sha256:" + sha256Hex + "\n"},
		{"signal types", "pytx", Options{}, header + "pdq_ocr,x,,,\nurl_md5," + md5Hex + ",,,\nraw_text,\"bad\nwords\",,,\npdq," + zeroPDQ + ",,,\npdq,xyz,,,\nsha1," + sha1Hex + ",,,",
			"2 bad: signal type \"pdq_ocr\" is not supported (pdq, video_md5, md5, sha1, video_sha256 and sha256 are)\n3 bad: signal type \"url_md5\" is not supported (pdq, video_md5, md5, sha1, video_sha256 and sha256 are)\n" +
				"4 bad: signal type \"raw_text\" is not supported (pdq, video_md5, md5, sha1, video_sha256 and sha256 are)\n6 bad: the all-zero hash stands for an undecodable picture and is refused\n" +
				"7 bad: pdq hash has 3 characters, want 64 (hex), 44 (base64) or 256 (bits)\n8 sha1:" + sha1Hex + "\n"},
		{"categories", "pytx", Options{}, header + "pdq," + pdqHex + ",,NEGATIVE_CLASS,\npdq," + pdqHex + ",,DISPUTED,\npdq," + pdqHex + ",,FALSE_POSITIVE,\npdq," + pdqHex + ",,2,\n",
			"2 bad: category NEGATIVE_CLASS says that it finds the wrong content\n3 bad: category DISPUTED: some say that it finds the wrong content\n4 bad: category FALSE_POSITIVE says that it finds the wrong content\n5 bad: unknown category \"2\"\n"},
		{"tags", "pytx", Options{}, header + "pdq," + pdqHex + ",,,b  a b A\npdq," + pdqHex + ",,,日本\npdq," + pdqHex + ",,,\xff\npdq," + pdqHex + ",,," + strings.Repeat("x ", 100) +
			"\npdq," + pdqHex + ",,," + strings.Repeat("x", 65) + "\npdq," + pdqHex + ",,,a b c d e f g h i j k l m n o p q\n",
			"2 pdq:" + pdqHex + " a b\n3 bad: tag \"日本\" cannot be made a label of a-z, 0-9 and hyphens, 1 to 64 characters long\n4 bad: the tags are not UTF-8\n5 bad: too many tags\n" +
				"6 bad: tag \"xxxxxxxxxxxx\" cannot be made a label of a-z, 0-9 and hyphens, 1 to 64 characters long\n7 bad: 17 labels are more than 16\n"},
		{"fields", "pytx", Options{}, header + "pdq," + pdqHex + "\npdq," + pdqHex + ",,,,\n,,,,\n", "2 bad: 2 fields, and the header has 5\n3 bad: 6 fields, and the header has 5\n4 bad: signal type \"\" is not supported (pdq, video_md5, md5, sha1, video_sha256 and sha256 are)\n"},
		{"rows inside a field", "pytx", Options{}, header + "md5," + md5Hex + ",\"evil\npdq," + pdqHex + ",,,\n\",,\nmd5," + md5Hex + ",,,\n", "2 md5:" + md5Hex + "\n5 md5:" + md5Hex + "\n"},
		{"quotes inside fields", "pytx", Options{}, header + "md5," + md5Hex + ",a\"b,,\"x\"y\n", "2 md5:" + md5Hex + " xy\n"},
		{"quote without end", "pytx", Options{}, header + "md5," + md5Hex + ",\"a,,\nmd5," + md5Hex + ",,,\n", "2 bad: a quoted field begins here and has no end\n"},
		{"endless quote", "pytx", Options{}, header + "md5," + md5Hex + ",\"a,,\n" + strings.Repeat("md5,"+md5Hex+",,,\n", 2000) + "\nsha1," + sha1Hex + ",,,",
			"2 bad: a quoted field begins here and does not end; what follows is skipped up to line 1640\n" + md5Lines(1641, 2002) + "2004 sha1:" + sha1Hex + "\n"},
		{"long line in a quote", "pytx", Options{}, header + "md5," + md5Hex + ",\"a,,\n" + long + "\nmd5," + md5Hex + ",,,\n" + long,
			"2 bad: a quoted field begins here and does not end; what follows is skipped up to line 3\n4 md5:" + md5Hex + "\n5 bad: line is longer than 65536 bytes\n"},
		{"no header", "pytx", Options{}, "pdq," + pdqHex + ",,,\n", "error: this is not a pytx CSV: its header has no signal_type or no signal_str (want signal_type,signal_str,collab,category,tags)\n"},
		{"header twice the column", "pytx", Options{}, "signal_type,signal_type,signal_str\n", "error: this is not a pytx CSV: its header has a column twice (want signal_type,signal_str,collab,category,tags)\n"},
		{"header too long", "pytx", Options{}, long, "error: this is not a pytx CSV: its first line is not a header (want signal_type,signal_str,collab,category,tags)\n"},
		{"nothing", "pytx", Options{}, "", "error: this is not a pytx CSV: its first line is not a header (want signal_type,signal_str,collab,category,tags)\n"},
		{"header alone, BOM", "pytx", Options{}, "\xef\xbb\xbf" + header, ""},
	}
	for _, test := range tests {
		t.Run(test.format+"/"+test.name, func(t *testing.T) {
			f := format(t, test.format)
			for name, r := range map[string]io.Reader{
				"whole":   strings.NewReader(test.in),
				"by byte": iotest.OneByteReader(strings.NewReader(test.in)),
			} {
				if diff := cmp.Diff(test.want, transcript(f.Read(r, test.o))); diff != "" {
					t.Errorf("read %s (-want +got):\n%s", name, diff)
				}
			}
		})
	}
}

func md5Lines(from, to int) string {
	var b strings.Builder
	for i := from; i <= to; i++ {
		fmt.Fprintf(&b, "%d md5:%s\n", i, md5Hex)
	}
	return b.String()
}

// lineFormats are those of hashes on lines.
func lineFormats() []Format { return Formats()[:4] }

func TestReadError(t *testing.T) {
	broken := errors.New("the disk is gone")
	for _, f := range lineFormats() {
		start := "# fine\n"
		if f.Name == "pytx" {
			start = pytxHeader + "\n"
		}
		var got []error
		for _, err := range f.Read(io.MultiReader(strings.NewReader(start+"half a li"), iotest.ErrReader(broken)), Options{}) {
			got = append(got, err)
		}
		if len(got) != 1 || !errors.Is(got[0], broken) || errors.As(got[0], new(BadRow)) {
			t.Errorf("%s: %v", f.Name, got)
		} else if !strings.Contains(got[0].Error(), "line 2") {
			t.Errorf("%s: error does not say where: %v", f.Name, got[0])
		}
	}
}

// TestBreak leaves the loop after each kind of thing that is yielded; the
// runtime panics if the sequence goes on.
func TestBreak(t *testing.T) {
	for _, f := range lineFormats() {
		in := "md5 " + md5Hex + "\nbad\n" + pdqHex + ",99,\nmd5:" + md5Hex + "\n"
		if f.Name == "pytx" {
			in = pytxHeader + "\nbad\nmd5," + md5Hex + ",,,\n"
		}
		for stop := range 5 {
			n := 0
			for range f.Read(strings.NewReader(in), Options{}) {
				if n++; n > stop {
					break
				}
			}
			if n > stop+1 {
				t.Errorf("%s yielded %d things to a loop that was left at %d", f.Name, n, stop+1)
			}
		}
	}
}

func TestBadRowHidesHash(t *testing.T) {
	for _, f := range lineFormats() {
		for _, in := range []string{pdqHex, pdqHex + ":" + pdqHex, pdqHex + " x", "x " + pdqHex, pdqHex + "," + pdqHex, "pdq:" + pdqHex + "x",
			phashHex, phashHex + ":x", phashHex + " x", phashHex + ",0,x"} {
			for _, field := range []string{in, "\n" + in + ",,,,", "\npdq," + in + ",,,", "\npdq," + pdqHex + ",,," + in + strings.Repeat("x", 70), "\npdq," + pdqHex + ",," + in + ","} {
				if f.Name == "pytx" {
					field = pytxHeader + field
				}
				for _, err := range f.Read(strings.NewReader(field), Options{}) {
					if err != nil && (strings.Contains(err.Error(), phashHex) || strings.Contains(err.Error(), pdqHex[:16])) {
						t.Errorf("%s: %v", f.Name, err)
					}
				}
			}
		}
	}
}

// roundTrip writes rows and reads them again.
func roundTrip(t interface {
	Helper()
	Fatalf(string, ...any)
}, f Format, list string, rows []Row) {
	t.Helper()
	var file bytes.Buffer
	var want []Row
	w := f.Write(&file, Head{Name: list})
	for _, row := range rows {
		err := w.Write(row)
		kept, ok := carried(f.Name, row)
		if ok && err != nil || !ok && !errors.Is(err, ErrCannotCarry) {
			t.Fatalf("%s: writing %+v: %v", f.Name, row, err)
		}
		if ok {
			want = append(want, kept)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatalf("%s: %v", f.Name, err)
	}
	text := file.String()
	var got []Row
	for row, err := range f.Read(&file, Options{MinQuality: -1}) {
		if err != nil {
			t.Fatalf("%s: reading what was written: %v\n%s", f.Name, err, text)
		}
		row.Line, row.Key = 0, ""
		got = append(got, row)
	}
	if f.Name == "lemmy" || f.Name == "pleroma" { // what is said of servers stands in groups
		order := func(a, b Row) int { return strings.Compare(a.Subject, b.Subject) }
		slices.SortStableFunc(want, order)
		slices.SortStableFunc(got, order)
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b hashlist.Hash) bool { return a == b })); diff != "" {
		t.Fatalf("%s: rows changed (-want +got):\n%s\n%s", f.Name, diff, text)
	}
}

func TestRoundTrip(t *testing.T) {
	rows := []Row{
		{Hash: hash(t, "pdq:"+pdqHex), Quality: 100, Labels: []string{"csam", "media-type-photo"}},
		{Hash: hash(t, "pdq:"+pdqHex2), Quality: 0},
		{Hash: hash(t, "pdq:"+pdqHex2), Quality: -1, Labels: []string{"0"}},
		{Hash: hash(t, "phash:"+phashHex), Quality: -1},
		{Hash: hash(t, "dhash:"+phashHex), Quality: -1},
		{Hash: hash(t, "md5:"+md5Hex), Quality: -1},
		{Hash: hash(t, "md5:"+zeroPDQ[:32]), Quality: -1},
		{Hash: hash(t, "sha1:"+sha1Hex), Quality: -1},
		{Hash: hash(t, "sha256:"+sha256Hex), Quality: -1, Labels: []string{"a", "b", "c"}},
	}
	for _, f := range Formats() {
		t.Run(f.Name, func(t *testing.T) {
			for _, list := range []string{"", "terror", "a, \"b\"\r\nc"} {
				roundTrip(t, f, list, rows)
				roundTrip(t, f, list, nil)
			}
		})
	}
}

func TestRoundTripAnyRows(t *testing.T) {
	label := rapid.OneOf(rapid.StringMatching(`[a-z0-9]{1,8}(-[a-z0-9]{1,8}){0,3}`),
		rapid.SampledFrom([]string{LabelAdvisory, LabelRejectMedia, LabelRejectReports, LabelObfuscate, "media-nsfw", "csam", "terrorism", "ncmec-a1"}))
	row := rapid.Custom(func(t *rapid.T) Row {
		labels := rapid.SliceOfNDistinct(label, 0, hashlist.MaxLabels, rapid.ID).Draw(t, "labels")
		if len(labels) == 0 {
			labels = nil
		}
		row := Row{Quality: -1, Labels: slices.Sorted(slices.Values(labels))}
		if kind := rapid.IntRange(0, 2).Draw(t, "kind"); kind > 0 {
			row.Subject = rapid.StringMatching(`[a-z]{1,6}\.[a-z]{3}\.example`).Draw(t, "domain")
			if kind == 2 {
				row.Subject = "https://" + row.Subject + rapid.SampledFrom([]string{"/@", "/users/", "/", "/c/"}).Draw(t, "path") + rapid.StringMatching(`[a-z]{0,4}`).Draw(t, "user")
			}
			row.Action = hashlist.Action(rapid.IntRange(1, 4).Draw(t, "action"))
			row.Reason = comment(rapid.StringMatching(`[ -~\nßé日]{0,30}`).Draw(t, "reason"))
			return row
		}
		a := rapid.SampledFrom(hashlist.Algorithms[:]).Draw(t, "algorithm")
		sum := rapid.SliceOfN(rapid.Byte(), a.Size(), a.Size()).Draw(t, "sum")
		sum[0] |= 1
		h, err := hashlist.NewHash(a, sum)
		if err != nil {
			t.Fatal(err)
		}
		row.Hash, row.Quality = h, rapid.IntRange(-1, 100).Draw(t, "quality")
		return row
	})
	for _, f := range Formats() {
		t.Run(f.Name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				rows := rapid.SliceOfNDistinct(row, 0, 20, func(r Row) thing { return r.thing() }).Draw(t, "rows")
				roundTrip(t, f, rapid.String().Draw(t, "list"), rows)
			})
		})
	}
}

// TestNoFormulas: what others give as a reason does nothing when a spreadsheet opens it, and comes back as it was.
func TestNoFormulas(t *testing.T) {
	for _, reason := range []string{"=1+1", "+1", "-1", "@SUM(1)", "'=1", "''=1", "＝1", "\t=1", "\r\n=1", " =1"} {
		for _, name := range []string{"csv", "mastodon", "fediblockhole", "gotosocial-csv"} {
			f, err := Lookup(name)
			if err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			w := f.Write(&b, Head{})
			if err := errors.Join(w.Write(Row{Subject: "bad.example", Quality: -1, Action: hashlist.Drop, Reason: reason}), w.Close()); err != nil {
				t.Fatal(err)
			}
			c := &csvReader{lines: newLines(bytes.NewReader(b.Bytes()))}
			for c.next() == nil {
				for i := range c.len() {
					if formula(string(c.field(i))) && c.field(i)[0] != '\'' {
						t.Errorf("%s: %q is a formula", name, c.field(i))
					}
				}
			}
			for row, err := range f.Read(&b, Options{}) {
				if want := strings.TrimSpace(reason); err != nil || row.Reason != want {
					t.Errorf("%s: %q, %v came of %q", name, row.Reason, err, want)
				}
			}
		}
	}
}

func TestWrite(t *testing.T) {
	rows := []Row{{Hash: hash(t, "pdq:"+pdqHex), Quality: 90, Labels: []string{"csam", "x"}}, {Hash: hash(t, "md5:"+md5Hex), Quality: -1}}
	for name, want := range map[string]string{
		"plain":   "pdq:" + pdqHex + "\nmd5:" + md5Hex + "\n",
		"pdq":     "pdq " + pdqHex + "\nmd5 " + md5Hex + "\n",
		"pdq-csv": pdqHex + ",90,\n",
		"pytx":    pytxHeader + "\npdq," + pdqHex + ",\"my, list\",POSITIVE_CLASS,csam x\nvideo_md5," + md5Hex + ",\"my, list\",POSITIVE_CLASS,\n",
	} {
		var file strings.Builder
		w := format(t, name).Write(&file, Head{Name: "my, list"})
		for _, row := range rows {
			if err := w.Write(row); err != nil && !errors.Is(err, ErrCannotCarry) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := w.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, file.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	h := hash(t, "pdq:"+pdqHex)
	for _, f := range lineFormats() {
		var file strings.Builder
		w := f.Write(&file, Head{})
		for _, row := range []Row{{}, {Hash: h, Quality: 101}, {Hash: h, Quality: -2}, {Hash: h, Labels: []string{"a b"}}, {Hash: h, Labels: []string{"b", "a"}}, {Hash: h, Labels: []string{"a\n"}}} {
			if err := w.Write(row); err == nil || errors.Is(err, ErrCannotCarry) {
				t.Errorf("%s: %+v: error %v", f.Name, row, err)
			}
		}
		full := errors.New("disk full")
		w = f.Write(failingWriter{full}, Head{})
		var err error
		for range 5000 { // more than the buffer
			if err = w.Write(Row{Hash: h, Quality: -1}); err != nil {
				break
			}
		}
		if !errors.Is(err, full) || !errors.Is(w.Close(), full) {
			t.Errorf("%s: error %v", f.Name, err)
		}
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

func TestLookup(t *testing.T) {
	for _, f := range Formats() {
		if got := format(t, f.Name); got.Name != f.Name || got.Description == "" {
			t.Errorf("Lookup(%q) = %+v", f.Name, got)
		}
	}
	_, err := Lookup("photodna")
	if want := `unknown format "photodna" (want one of plain, pdq, pdq-csv, pytx, hma, `; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("error %v, want %s", err, want)
	}
}

// TestConstantMemory reads far more than it may hold: a line and a quoted field
// without end.
func TestConstantMemory(t *testing.T) {
	for _, f := range lineFormats() {
		for _, unit := range []string{"a", "\na"} {
			start := ""
			if f.Name == "pytx" {
				start = pytxHeader + "\nmd5,\""
			}
			in := io.MultiReader(strings.NewReader(start), io.LimitReader(endless(unit), 16<<20))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for row, err := range f.Read(in, Options{}) {
				if err == nil {
					t.Fatalf("%s: a row: %v", f.Name, row)
				}
				break // the first is the endless one, and errors take memory too
			}
			runtime.ReadMemStats(&after)
			if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
				t.Errorf("%s: %d bytes allocated", f.Name, n)
			}
		}
	}
}

// endless repeats itself.
type endless string

func (e endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = e[i%len(e)]
	}
	return len(p), nil
}

// TestReferenceFiles reads the lists that come with the PDQ reference.
func TestReferenceFiles(t *testing.T) {
	dir := os.Getenv("TOCSIN_TESTDATA")
	if dir == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("TOCSIN_TESTDATA is not set")
		}
		return
	}
	for name, want := range map[string]int{"haystack.txt": 1350, "needles.txt": 100} {
		file, err := os.Open(filepath.Join(dir, "pdq", name))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		n := 0
		for row, err := range format(t, "plain").Read(file, Options{}) {
			if err != nil || row.Hash.Algorithm() != hashlist.PDQ {
				t.Errorf("%s: %v %v", name, row.Hash.Algorithm(), err)
			}
			n++
		}
		if n != want {
			t.Errorf("%s: %d rows, want %d", name, n, want)
		}
	}
}
