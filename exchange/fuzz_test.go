package exchange

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsin-fed/tocsin/hashlist"
)

func FuzzPlain(f *testing.F) {
	f.Add(uint8(0), "# list\n"+pdqHex+"\r\nmd5:"+md5Hex+"\n"+sha1Hex)
	f.Add(uint8(2), phashHex+"\n\x00\xff\n")
	fuzzFormat(f, "plain")
}

func FuzzPDQ(f *testing.F) {
	f.Add(uint8(0), "pdq "+pdqHex+"\nsha1\t"+sha1Hex+"\n")
	fuzzFormat(f, "pdq")
}

func FuzzPDQCSV(f *testing.F) {
	f.Add(uint8(0), "hash,quality,filename\n"+pdqHex+",100,a\n"+pdqHex2+",51,\"a,\"\"b\"\n")
	fuzzFormat(f, "pdq-csv")
}

func FuzzPytx(f *testing.F) {
	f.Add(uint8(0), pytxHeader+"\npdq,"+pdqHex+",\"a\nb\"\"\",POSITIVE_CLASS,x y_Z\nvideo_md5,"+md5Hex+",,,\n")
	f.Add(uint8(0), "\xef\xbb\xbftags,signal_str,signal_type\r\n\"a b\","+sha256Hex+",sha256\r\n\"")
	fuzzFormat(f, "pytx")
}

// fuzzFormat holds reading to its promises: rows come in order, are fit to
// enter a log, nothing follows a final error, and what was read is the same
// after it was written.
func fuzzFormat(f *testing.F, name string) {
	f.Fuzz(func(t *testing.T, algorithm uint8, in string) {
		o := Options{Algorithm: hashlist.Algorithm(algorithm % 7)}
		var rows []Row
		last, final := 0, error(nil)
		for row, err := range format(t, name).Read(strings.NewReader(in), o) {
			if final != nil {
				t.Fatalf("something follows the error %v", final)
			}
			line := row.Line
			if bad, ok := errors.AsType[BadRow](err); ok {
				line = bad.Line
				if bad.Reason == "" {
					t.Fatal("a bad row without a reason")
				}
			} else if err != nil {
				final = err
				continue
			}
			if line <= last {
				t.Fatalf("line %d after line %d", line, last)
			}
			last = line
			if err != nil {
				continue
			}
			if _, err := hashlist.NewHash(row.Hash.Algorithm(), row.Hash.Sum()); err != nil {
				t.Fatal(err)
			}
			if row.Quality >= 0 && row.Quality < DefaultMinQuality || row.Quality < -1 || row.Quality > 100 {
				t.Fatalf("quality %d", row.Quality)
			}
			if err := hashlist.CheckLabels(row.Labels); err != nil {
				t.Fatal(err)
			}
			row.Line = 0
			rows = append(rows, row)
		}
		if last > 1+strings.Count(in, "\n") {
			t.Fatalf("line %d of %d", last, 1+strings.Count(in, "\n"))
		}
		roundTrip(t, format(t, name), in[:min(len(in), 20)], rows)
	})
}

// FuzzRows reads anything in every format that is not of hashes on lines: rows are fit to enter a log, nothing
// follows a final error, and what was read comes to the same fold after it was written.
func FuzzRows(f *testing.F) {
	var names []string
	for _, format := range Formats()[len(lineFormats()):] {
		names = append(names, format.Name)
	}
	for _, s := range samples {
		if i := slices.Index(names, s.format); i >= 0 {
			f.Add(uint8(i), s.text)
		}
	}
	f.Fuzz(func(t *testing.T, n uint8, in string) {
		format := format(t, names[int(n)%len(names)])
		var rows []Row
		last, final := 0, error(nil)
		for row, err := range format.Read(strings.NewReader(in), Options{}) {
			if final != nil {
				t.Fatalf("something follows the error %v", final)
			}
			line := row.Line
			if bad, ok := errors.AsType[BadRow](err); ok {
				if line = bad.Line; bad.Reason == "" {
					t.Fatal("a bad row without a reason")
				}
			} else if err != nil {
				final = err
				continue
			}
			if line < 1 || line > 1+strings.Count(in, "\n") || line < last && format.Name != "pleroma" {
				t.Fatalf("line %d after %d of %d", line, last, 1+strings.Count(in, "\n"))
			}
			last = line
			if err != nil {
				continue
			}
			withdrawn := row.Withdrawn
			if row.Withdrawn = false; withdrawn && row.thing() == (thing{}) {
				continue
			}
			if err := row.check(); err != nil {
				t.Fatalf("%+v: %v", row, err)
			}
			if row.Reason != comment(row.Reason) {
				t.Fatalf("reason %q", row.Reason)
			}
			row.Withdrawn = withdrawn
			rows = append(rows, row)
		}
		fold := folded(rows)
		var file bytes.Buffer
		w := format.Write(&file, Head{Name: "list"})
		for _, row := range rows {
			if _, still := fold[cmpName(row)]; !still || row.Withdrawn {
				continue
			}
			if err := w.Write(row); err != nil {
				t.Fatalf("%s: writing %+v: %v", format.Name, row, err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		text := file.String()
		back, bad, err := readAll(format, file.Bytes(), Options{})
		if err != nil || len(bad) > 0 {
			t.Fatalf("%s: reading what was written: %v %v\n%s", format.Name, bad, err, text)
		}
		if diff := cmp.Diff(fold, folded(back)); diff != "" {
			t.Fatalf("%s: the fold changed: %s\n%s", format.Name, diff, text)
		}
	})
}

// FuzzDetect must find a format or say that it cannot.
func FuzzDetect(f *testing.F) {
	for _, s := range samples {
		f.Add([]byte(s.text))
	}
	f.Fuzz(func(t *testing.T, head []byte) {
		if format, err := Detect(head); (err == nil) != (format.Read != nil) {
			t.Fatalf("%q, %v", format.Name, err)
		}
	})
}
