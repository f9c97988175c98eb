package exchange

import (
	"bufio"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// ncmecSpace is the name space of NCMEC's hash sharing API, version 2.
const ncmecSpace = "https://hashsharing.ncmec.org/hashsharing/v2"

// ncmecEntry is an image or a video, deleted or not.
type ncmecEntry struct {
	Member struct {
		ID string `xml:"id,attr"`
	} `xml:"member"`
	ID             string `xml:"id"`
	Classification string `xml:"classification"`
	Fingerprints   struct {
		MD5  []string `xml:"md5"`
		SHA1 []string `xml:"sha1"`
		PDQ  []string `xml:"pdq"`
		PDNA []string `xml:"pdna"`
	} `xml:"fingerprints"`
}

// readNCMEC reads a page of /v2/entries. An entry has a row for each fingerprint, with the Key
// MEMBER/ID; one that is deleted comes without fingerprints, as a row that is withdrawn and has a Key alone.
// Where the next page is (next) and up to when the page goes (maxTimestamp) is told beside. Pages are
// not in the order of time.
func readNCMEC(r io.Reader, o Options) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		if err := ncmecPage(r, o, yield); err != nil && !errors.Is(err, errStop) {
			yield(Row{}, err)
		}
	}
}

func ncmecPage(r io.Reader, o Options, yield func(Row, error) bool) error {
	in := bufio.NewReader(r)
	if err := skipMark(in, "XML", "<"); err != nil {
		return err
	}
	src := &budget{r: in}
	src.grant()
	// The decoder knows no entities but the five of XML, and expands none: strict is its default.
	d := xml.NewDecoder(src)
	fail := func(err error) error {
		line, _ := d.InputPos()
		switch s, ok := errors.AsType[*xml.SyntaxError](err); {
		case err == io.EOF || ok && strings.Contains(s.Msg, "unexpected EOF"):
			return fmt.Errorf("line %d: the file ends before its XML does: it was cut off", line)
		case ok:
			err = errors.New("it is not XML: " + s.Msg)
		case strings.Contains(err.Error(), "CharsetReader"):
			err = errors.New("it is not in UTF-8; convert it")
		}
		return fmt.Errorf("couldn't read line %d: %w", line, err)
	}
	root := false
	for depth := 0; ; {
		src.grant()
		t, err := d.Token()
		if err == io.EOF && root && depth == 0 {
			return nil
		} else if err != nil {
			return fail(err)
		}
		switch t := t.(type) {
		case xml.Directive:
			line, _ := d.InputPos()
			return fmt.Errorf("line %d: it declares a type of document, which may hold entities: that is refused", line)
		case xml.EndElement:
			depth--
		case xml.StartElement:
			if !root && t.Name.Local != "queryResult" || t.Name.Space != ncmecSpace {
				return fmt.Errorf("this is not NCMEC's hash sharing, version 2: it has %.40s in name space %.80q", t.Name.Local, t.Name.Space)
			}
			line, _ := d.InputPos()
			if root && depth == 0 {
				return fmt.Errorf("line %d: something follows behind the XML", line)
			}
			root = true
			switch t.Name.Local {
			case "image", "video", "deletedImage", "deletedVideo":
				src.grant()
				var e ncmecEntry
				if err := d.DecodeElement(&e, &t); err != nil {
					return fail(err)
				}
				if err := e.rows(line, strings.HasPrefix(t.Name.Local, "deleted"), yield); err != nil {
					return err
				}
				continue
			case "images", "videos":
				for _, a := range t.Attr {
					if a.Name.Local == "maxTimestamp" {
						o.beside(a.Name.Local, a.Value)
					}
				}
			case "next":
				src.grant()
				var next string
				if err := d.DecodeElement(&next, &t); err != nil {
					return fail(err)
				}
				o.beside("next", strings.TrimSpace(next))
				continue
			}
			if depth++; depth > maxDepth {
				return fmt.Errorf("line %d: it is nested too deep", line)
			}
		}
	}
}

func (e *ncmecEntry) rows(line int, deleted bool, yield func(Row, error) bool) error {
	put := func(row Row, err error) error {
		row.Line = line
		if err != nil {
			row, err = Row{}, BadRow{line, err.Error()}
		}
		if !yield(row, err) {
			return errStop
		}
		return nil
	}
	key := strings.TrimSpace(e.Member.ID) + "/" + strings.TrimSpace(e.ID)
	if len(key) > hashlist.MaxURL || strings.TrimSpace(e.ID) == "" {
		return put(Row{}, errors.New("the entry has no id"))
	}
	if deleted {
		return put(Row{Quality: -1, Key: key, Withdrawn: true}, nil)
	}
	labels := []string{labelCSAM}
	if e.Classification != "" {
		class, err := labelOf("ncmec " + e.Classification)
		if err == nil {
			labels, err = labelSet(append(labels, class))
		}
		if err != nil {
			return put(Row{}, errors.New("the classification cannot be made a label"))
		}
	}
	n := 0
	for _, f := range [...]struct {
		a     hashlist.Algorithm
		texts []string
	}{{hashlist.MD5, e.Fingerprints.MD5}, {hashlist.SHA1, e.Fingerprints.SHA1}, {hashlist.PDQ, e.Fingerprints.PDQ}} {
		for _, text := range f.texts {
			row, err := hashRow(f.a, text)
			row.Labels, row.Key = labels, key
			n++
			if err := put(row, err); err != nil {
				return err
			}
		}
	}
	switch {
	case n > 0:
		return nil // PhotoDNA beside them adds nothing that could be compared here
	case len(e.Fingerprints.PDNA) > 0:
		return put(Row{}, errors.New("it has a fingerprint by PhotoDNA alone, which cannot be compared here"))
	}
	return put(Row{}, errors.New("the entry has no fingerprints"))
}

// writeNCMEC writes each hash as an entry of an image.
func writeNCMEC(w io.Writer, head Head) *RowWriter {
	start := "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<queryResult xmlns=\"" + ncmecSpace + "\">\n<images maxTimestamp=\"" + stampOf(head.At) + "\">\n"
	n := 0
	v := newRowWriter(w, []byte(start), ofHash(func(line []byte, row Row) ([]byte, error) {
		a := row.Hash.Algorithm()
		if a != hashlist.MD5 && a != hashlist.SHA1 && a != hashlist.PDQ {
			return line, ErrCannotCarry
		}
		n++
		line = fmt.Appendf(line, `<image><member id="0">%s</member><timestamp>%s</timestamp><id>%d</id>`, "tocsin", stampOf(head.At), n)
		for _, l := range row.Labels {
			if class, ok := strings.CutPrefix(l, "ncmec-"); ok {
				line = append(append(append(line, "<classification>"...), strings.ToUpper(class)...), "</classification>"...)
				break
			}
		}
		line = fmt.Appendf(line, "<fingerprints><%v>", a)
		line = hex.AppendEncode(line, row.Hash.Sum())
		return fmt.Appendf(line, "</%v></fingerprints></image>", a), nil
	}))
	v.end = []byte("</images>\n</queryResult>\n")
	return v
}
