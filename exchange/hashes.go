package exchange

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// hashRow makes a row of an algorithm and the text of a hash.
func hashRow(a hashlist.Algorithm, text string) (Row, error) {
	row := Row{Quality: -1}
	var err error
	row.Hash, err = parseHash(a, []byte(strings.TrimSpace(text)))
	return row, err
}

// readHMA reads the contents of a bank: an array, or an object with it, of contents with
// their signals, or of signals alone with their type. A content has a row for each signal that
// is one of our algorithms; one that is switched off is refused.
func readHMA(r io.Reader, o Options) iter.Seq2[Row, error] {
	return readJSON(r, func(j *jsonFile, put func(Row, error) error) error {
		each := func() error {
			c := struct {
				ID      uint64            `json:"id"`
				Until   int64             `json:"disable_match_until_ts"`
				Signals map[string]string `json:"signals"`
				Type    string            `json:"signal_type"`
				Value   string            `json:"signal_val"`
				Signal  string            `json:"signal"`
			}{}
			bad, err := j.value(&c)
			if err != nil {
				return err
			}
			if c.Type != "" {
				c.Signals = map[string]string{c.Type: c.Value + c.Signal}
			}
			switch {
			case bad != nil:
			case c.Until != 0:
				bad = errors.New("the content is switched off in its bank")
			case len(c.Signals) == 0:
				bad = errors.New("the content has no signals: ask for them with include_signals")
			}
			if bad != nil {
				return put(Row{}, bad)
			}
			for _, kind := range slices.Sorted(maps.Keys(c.Signals)) {
				a, bad := parseSignalType([]byte(kind))
				row := Row{Quality: -1}
				if bad == nil {
					row, bad = hashRow(a, c.Signals[kind])
				}
				if c.ID != 0 {
					row.Key = strconv.FormatUint(c.ID, 10)
				}
				if err := put(row, bad); err != nil {
					return err
				}
			}
			return nil
		}
		return j.under(each, nil, "contents", "content", "signals")
	})
}

func writeHMA(w io.Writer, _ Head) *RowWriter {
	n := 0
	return newJSONWriter(w, "[", "]", ofHash(func(line []byte, row Row) ([]byte, error) {
		for _, t := range pytxTypes {
			if t.a == row.Hash.Algorithm() {
				n++
				line = fmt.Appendf(line, `{"id":%d,"signals":{"%s":"`, n, t.name)
				return append(hex.AppendEncode(line, row.Hash.Sum()), `"}}`...), nil
			}
		}
		return line, ErrCannotCarry
	}))
}

// readVPDQ reads the frames of one video: each is "hex,quality,seconds". When a frame is shown is not kept.
func readVPDQ(r io.Reader, o Options) iter.Seq2[Row, error] {
	return readJSON(r, func(j *jsonFile, put func(Row, error) error) error {
		return j.array(func() error {
			var text string
			bad, err := j.value(&text)
			if err != nil {
				return err
			}
			row := Row{Quality: -1}
			parts := strings.Split(text, ",")
			if bad == nil && len(parts) != 3 {
				bad = errors.New("it is not hash,quality,seconds")
			}
			if bad == nil {
				row, bad = hashRow(hashlist.VPDQ, parts[0])
			}
			if bad == nil {
				if row.Quality, err = strconv.Atoi(strings.TrimSpace(parts[1])); err != nil || row.Quality < 0 || row.Quality > 100 {
					bad = errors.New("the second part is not a quality from 0 to 100")
				} else {
					bad = o.checkQuality(row.Quality)
				}
			}
			return put(row, bad)
		})
	})
}

// writeVPDQ counts the seconds on. A quality that is not known is written as 100: what is on
// a list was good enough for it.
func writeVPDQ(w io.Writer, _ Head) *RowWriter {
	n := 0
	return newJSONWriter(w, "[", "]", ofHash(func(line []byte, row Row) ([]byte, error) {
		if row.Hash.Algorithm() != hashlist.VPDQ {
			return line, ErrCannotCarry
		}
		quality := row.Quality
		if quality < 0 {
			quality = 100
		}
		line = hex.AppendEncode(append(line, '"'), row.Hash.Sum())
		line = fmt.Appendf(line, `,%d,%d.000"`, quality, n)
		n++
		return line, nil
	}))
}

// Labels that the partners' lists come with.
const (
	labelCSAM      = "csam"
	labelNCII      = "ncii"
	labelTerrorism = "terrorism"
)

// signalTypes are StopNCII's names of what we know.
var signalTypes = []struct {
	name string
	a    hashlist.Algorithm
}{{"ImagePDQ", hashlist.PDQ}, {"ImageMD5", hashlist.MD5}, {"VideoMD5", hashlist.MD5}}

// readStopNCII reads an answer to FetchHashes. A record says by its status that it is withdrawn; one that was
// received and is not active yet is refused.
func readStopNCII(r io.Reader, o Options) iter.Seq2[Row, error] {
	return readJSON(r, func(j *jsonFile, put func(Row, error) error) error {
		each := func() error {
			v := struct {
				Type   string `json:"signalType"`
				Value  string `json:"hashValue"`
				Status string `json:"hashStatus"`
			}{}
			bad, err := j.value(&v)
			if err != nil {
				return err
			}
			row := Row{Quality: -1}
			var a hashlist.Algorithm
			for _, t := range signalTypes {
				if t.name == v.Type {
					a = t.a
				}
			}
			switch {
			case bad != nil:
			case a == 0:
				bad = fmt.Errorf("signal type %.20q is not supported (ImagePDQ, ImageMD5 and VideoMD5 are)", v.Type)
			case v.Status != "Active" && v.Status != "Withdrawn" && v.Status != "Deleted":
				bad = fmt.Errorf("the status %.20q is not Active, Withdrawn or Deleted", v.Status)
			default:
				row, bad = hashRow(a, v.Value)
				row.Withdrawn, row.Labels = v.Status != "Active", []string{labelNCII}
			}
			return put(row, bad)
		}
		return j.under(each, func(key string) error {
			if key != "nextPageToken" && key != "nextSetTimestamp" && key != "hasMoreRecords" && key != "count" {
				return j.skip()
			}
			raw, err := j.raw()
			o.beside(key, strings.Trim(string(raw), `"`))
			return err
		}, "hashRecords")
	})
}

func writeStopNCII(w io.Writer, _ Head) *RowWriter {
	return newJSONWriter(w, `{"hashRecords":[`, "]}", ofHash(func(line []byte, row Row) ([]byte, error) {
		for _, t := range signalTypes {
			if t.a == row.Hash.Algorithm() {
				line = append(append(append(line, `{"signalType":"`...), t.name...), `","hashValue":"`...)
				return append(hex.AppendEncode(line, row.Hash.Sum()), `","hashStatus":"Active"}`...), nil
			}
		}
		return line, ErrCannotCarry
	}))
}

// readTAT reads Tech Against Terrorism's hash list. The ideology becomes a label.
func readTAT(r io.Reader, o Options) iter.Seq2[Row, error] {
	return readJSON(r, func(j *jsonFile, put func(Row, error) error) error {
		each := func() error {
			v := struct {
				Digest    string `json:"hash_digest"`
				Algorithm string `json:"algorithm"`
				Ideology  string `json:"ideology"`
				Deleted   bool   `json:"deleted"`
				ID        any    `json:"id"`
			}{}
			bad, err := j.value(&v)
			if err != nil {
				return err
			}
			row := Row{Quality: -1}
			var a hashlist.Algorithm
			if bad == nil {
				a, bad = parseAlgorithm([]byte(strings.ReplaceAll(v.Algorithm, "-", "")))
			}
			if bad == nil {
				row, bad = hashRow(a, v.Digest)
			}
			if bad == nil && !v.Deleted {
				words := []string{labelTerrorism}
				if v.Ideology != "" {
					words = append(words, v.Ideology)
				}
				row.Labels, bad = labelsOf(words)
			}
			row.Withdrawn = v.Deleted
			if v.ID != nil {
				row.Key = fmt.Sprintf("%.64v", v.ID)
			}
			return put(row, bad)
		}
		return j.under(each, func(key string) error {
			if key != "next" {
				return j.skip()
			}
			text, err := j.text()
			o.beside(key, text)
			return err
		}, "results", "data")
	})
}

func writeTAT(w io.Writer, _ Head) *RowWriter {
	n := 0
	return newJSONWriter(w, "[", "]", ofHash(func(line []byte, row Row) ([]byte, error) {
		ideology := ""
		for _, l := range row.Labels {
			if l != labelTerrorism && ideology == "" {
				ideology = l
			}
		}
		n++
		line = hex.AppendEncode(append(line, `{"hash_digest":"`...), row.Hash.Sum())
		return fmt.Appendf(line, `","algorithm":"%s","ideology":"%s","deleted":false,"id":%d}`,
			strings.ToUpper(row.Hash.Algorithm().String()), ideology, n), nil
	}))
}
