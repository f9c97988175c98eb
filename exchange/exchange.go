// Package exchange reads and writes the lists of other systems: of hashes, of
// servers and of accounts.
//
// A [Format] turns a stream of bytes into [Row]s and back. Lists come from
// strangers and are large, so reading takes constant memory whatever the file
// holds (but where a format says otherwise, and then within bounds), and one bad row does not end it: the sequence yields a [BadRow] with
// its line number and goes on. Any other error is the last thing a sequence
// yields: the file could not be read, or is not in the format at all.
//
// What a format says that a row has no field for is kept as one of the labels that
// [LabelAdvisory] and its neighbours name, or else lost; docs/exchange.md says which is which. What a list is absent of, it does not take
// back, unless its format means that: see [Form] and [Compare].
//
//	format, err := exchange.Lookup("pytx")
//	...
//	for row, err := range format.Read(file, exchange.Options{}) {
//		if bad, ok := errors.AsType[exchange.BadRow](err); ok {
//			report(bad)
//			continue
//		} else if err != nil {
//			return err
//		}
//		list(row.Hash, row.Labels)
//	}
//
// What no format lets in: the all-zero perceptual hash, which tools print for
// what they could not decode, and a picture whose quality is known and below
// [Options].MinQuality, because the hash of a nearly flat picture matches
// others like it; and a domain that is a canary, obfuscated or no domain, see [Options].Known. Rows that repeat a hash are all yielded.
//
// Lines end in LF or CRLF, the last may have no end, and a UTF-8 byte order
// mark is passed over; UTF-16 is refused. A line, and an entry in JSON or XML, may have up to 64 KiB.
package exchange

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// Row is what a list says of one hash, one server or one account.
type Row struct {
	Line int // where it begins, from 1; not used in writing

	// One of the two is set; neither only if the row is Withdrawn and has a Key.
	Hash    hashlist.Hash
	Subject string // a domain as hashlist.CheckDomain wants it, or the address of an account

	Quality int             // of the picture, 0 to 100; -1: unknown
	Labels  []string        // as hashlist.CheckLabels wants them
	Action  hashlist.Action // 0 if the format does not say
	Reason  string          // for people, as the format makes it public; at most hashlist.MaxReason bytes

	// Withdrawn says that the list takes back what it said of this. It is not used in
	// writing.
	Withdrawn bool
	// Key is the list's own name for the entry or for the change that this is, "" where it has none.
	// Rows of one entry share it. It is not used in writing.
	Key string
}

// Kind is that of the statement that says what the row does.
func (r *Row) Kind() hashlist.Kind {
	switch {
	case r.Subject == "":
		return hashlist.AddHashes
	case strings.Contains(r.Subject, "/"):
		return hashlist.AddAccounts
	}
	return hashlist.AddInstances
}

// Labels that stand for what lists of servers say and an action cannot. They are
// read and written by every format that has a word for them.
const (
	// LabelAdvisory marks an entry that asks for nothing by itself: severity noop of
	// Mastodon, an Advisory of FIRES. Its action is Filter.
	LabelAdvisory      = "advisory"
	LabelRejectMedia   = "reject-media"   // take no media from there
	LabelRejectReports = "reject-reports" // take no reports from there
	LabelObfuscate     = "obfuscate"      // where the list is shown, show the domain with stars in it
)

// BadRow is the error for one row that was refused. It never holds a whole
// hash, so it may be shown and logged.
type BadRow struct {
	Line   int // where the row begins, from 1
	Reason string
}

// Error implements error.
func (b BadRow) Error() string { return fmt.Sprintf("line %d: %s", b.Line, b.Reason) }

// DefaultMinQuality is the least quality customary with PDQ: 49 and below are
// discarded.
const DefaultMinQuality = 50

// Options say how to read what a file leaves open.
type Options struct {
	// Algorithm is what the hashes were made with where a row does not say
	// so. 0: guess by length.
	Algorithm hashlist.Algorithm
	// MinQuality is the least quality to accept, where it is known. 0:
	// DefaultMinQuality; negative: any.
	MinQuality int
	// Action is that of rows which say none, in formats of servers and accounts. 0:
	// what the format means, or Drop.
	Action hashlist.Action
	// Known finds the domain with a SHA-256, where a list has obfuscated the domain and gives
	// its digest. nil, or a domain that is not known: the row is refused.
	Known func(digest [sha256.Size]byte) (domain string, known bool)
	// Columns says which columns of format csv mean what: by a name of CSVColumns, the header
	// of the column.
	Columns map[string]string
	// Names are the labels of the addresses by which FIRES names them. One that is not
	// here is made a label of the last part of its address.
	Names map[string]string
	// Beside is told what a file says beside its rows, by the format's own names: where it goes on, and how far it
	// goes. nil: nobody asks.
	Beside func(name, value string)
}

func (o Options) beside(name, value string) {
	if o.Beside != nil && value != "" {
		o.Beside(name, value)
	}
}

func (o Options) checkQuality(quality int) error {
	least := o.MinQuality
	if least == 0 {
		least = DefaultMinQuality
	}
	if quality < least {
		return fmt.Errorf("quality %d is below %d", quality, least)
	}
	return nil
}

// ErrCannotCarry is in the error of RowWriter.Write for a row that the
// format has no place for. A caller may leave it out and go on.
var ErrCannotCarry = errors.New("the format cannot carry it")

// Form says what it means that something is absent from a file.
type Form uint8

// The forms.
const (
	Listing  Form = 0 // nothing: a file may be a part, or cut off
	Snapshot Form = 1 // that it was taken back: the file is all there is
	Changes  Form = 2 // that it did not change: what is taken back is in the file as such
)

// String returns listing, snapshot or changes.
func (f Form) String() string { return [...]string{"listing", "snapshot", "changes"}[f] }

// Head is what a file says of the list that it is of.
type Head struct {
	Name    string    // of the list
	Address string    // of the list, "" if it has none that others know
	At      time.Time // when it was like this; the zero time is written as the Unix epoch
}

// Format is a form of file.
type Format struct {
	Name        string // lower case, as given to Lookup
	Description string // one line for a list of formats
	Kinds       []hashlist.Kind
	Form        Form
	// Partner reports that what comes in this format was given to one receiver alone: it
	// may only go to a list of hashlist.PartnerData.
	Partner bool

	// Read yields the rows of r in their order. It reads r as the loop goes
	// on, through a buffer, and can be ranged over once. A row comes with a
	// nil error; with an error there is no row.
	Read func(r io.Reader, o Options) iter.Seq2[Row, error]

	// Write returns a writer of rows to w. What head says goes where the format has a
	// place for it.
	Write func(w io.Writer, head Head) *RowWriter
}

var (
	hashes    = []hashlist.Kind{hashlist.AddHashes}
	instances = []hashlist.Kind{hashlist.AddInstances}
	both      = []hashlist.Kind{hashlist.AddInstances, hashlist.AddAccounts}
)

var formats = []Format{
	{
		Name: "plain", Kinds: hashes,
		Description: "a hash on each line, as algorithm:hex or bare (64 hex digits are taken for pdq, 40 sha1, 32 md5); " +
			"carries hashes alone",
		Read:  func(r io.Reader, o Options) iter.Seq2[Row, error] { return readLines(r, o, parsePlain) },
		Write: func(w io.Writer, _ Head) *RowWriter { return newRowWriter(w, nil, ofHash(appendPlain)) },
	},
	{
		Name: "pdq", Kinds: hashes,
		Description: `"pdq <hex>" on each line, or another algorithm's name; carries hashes alone`,
		Read:        func(r io.Reader, o Options) iter.Seq2[Row, error] { return readLines(r, o, parsePair) },
		Write:       func(w io.Writer, _ Head) *RowWriter { return newRowWriter(w, nil, ofHash(appendPair)) },
	},
	{
		Name: "pdq-csv", Kinds: hashes,
		Description: `"hash,quality,filename" on each line, as pdq-photo-hasher prints it; carries PDQ hashes and their quality`,
		Read:        func(r io.Reader, o Options) iter.Seq2[Row, error] { return readLines(r, o, parsePDQCSV) },
		Write:       func(w io.Writer, _ Head) *RowWriter { return newRowWriter(w, nil, ofHash(appendPDQCSV)) },
	},
	{
		Name: "pytx", Kinds: hashes,
		Description: "CSV of \"threatexchange dataset -P --csv\" (" + pytxHeader + "); carries PDQ, MD5, SHA-256 and labels",
		Read:        readPytx,
		Write:       writePytx,
	},
	{
		Name: "hma", Kinds: hashes,
		Description: `JSON of a bank of Meta's HMA, [{"id":1,"signals":{"pdq":"..."}}]; carries PDQ, MD5 and SHA-256`,
		Read:        readHMA,
		Write:       writeHMA,
	},
	{
		Name: "vpdq", Kinds: hashes,
		Description: `JSON of vPDQ, ["hex,quality,seconds"]; carries the frames of one video and their quality`,
		Read:        readVPDQ,
		Write:       writeVPDQ,
	},
	{
		Name: "ncmec", Kinds: hashes, Form: Changes, Partner: true,
		Description: "XML of NCMEC's hash sharing v2, pages of /v2/entries; carries PDQ, MD5, SHA-1 and the classification",
		Read:        readNCMEC,
		Write:       writeNCMEC,
	},
	{
		Name: "stopncii", Kinds: hashes, Form: Changes, Partner: true,
		Description: "JSON of StopNCII's FetchHashes; carries PDQ and MD5",
		Read:        readStopNCII,
		Write:       writeStopNCII,
	},
	{
		Name: "techagainstterrorism", Kinds: hashes, Form: Changes, Partner: true,
		Description: "JSON of Tech Against Terrorism's hash list; carries PDQ, digests and the ideology",
		Read:        readTAT,
		Write:       writeTAT,
	},
	{
		Name: "mastodon", Kinds: instances,
		Description: "CSV of domain blocks as Mastodon imports and exports it (" + mastodonHeader + "), at most 20,000 rows",
		Read:        readMastodon,
		Write:       writeMastodon,
	},
	{
		Name: "fediblockhole", Kinds: instances,
		Description: "CSV of domain blocks with any of Mastodon's columns in any order, with # or without, as FediBlockHole writes it",
		Read:        readFediBlockHole,
		Write:       writeFediBlockHole,
	},
	{
		Name: "mastodon-api", Kinds: instances, Form: Snapshot,
		Description: "JSON of /api/v1/instance/domain_blocks or /api/v1/admin/domain_blocks",
		Read:        readMastodonAPI,
		Write:       writeMastodonAPI,
	},
	{
		Name: "gotosocial-csv", Kinds: instances,
		Description: "CSV of GoToSocial's domain permissions, exactly six columns; carries suspensions alone",
		Read:        readGoToSocialCSV,
		Write:       writeGoToSocialCSV,
	},
	{
		Name: "gotosocial-json", Kinds: instances,
		Description: `JSON of GoToSocial's domain permissions, [{"domain":"...","public_comment":"..."}]; carries suspensions alone`,
		Read:        readGoToSocialJSON,
		Write:       writeGoToSocialJSON,
	},
	{
		Name: "domains", Kinds: instances,
		Description: "a domain on each line, as GoToSocial and others read plain text; carries suspensions alone",
		Read:        func(r io.Reader, o Options) iter.Seq2[Row, error] { return readLines(r, o, parseDomain) },
		Write:       func(w io.Writer, _ Head) *RowWriter { return newRowWriter(w, nil, appendDomain) },
	},
	{
		Name: "rapidblock", Kinds: instances, Form: Changes,
		Description: "JSON of RapidBlock; carries blocks, their reasons and tags",
		Read:        readRapidBlock,
		Write:       writeRapidBlock,
	},
	{
		Name: "peertube", Kinds: both, Form: Changes,
		Description: "JSON of PeerTube's auto-mute plugin; carries servers and accounts to be refused",
		Read:        readPeerTube,
		Write:       writePeerTube,
	},
	{
		Name: "pleroma", Kinds: instances, Form: Snapshot,
		Description: "JSON of nodeinfo of Pleroma or Akkoma, metadata.federation.mrf_simple and its reasons",
		Read:        readPleroma,
		Write:       writePleroma,
	},
	{
		Name: "fediseer", Kinds: instances,
		Description: "JSON of Fediseer's /api/v1/censures, hesitations and endorsements of a domain, with reasons",
		Read:        readFediseer,
		Write:       writeFediseer,
	},
	{
		Name: "lemmy", Kinds: instances, Form: Snapshot,
		Description: "JSON of Lemmy's /api/v3/federated_instances; carries what is blocked and what is allowed",
		Read:        readLemmy,
		Write:       writeLemmy,
	},
	{
		Name: "fires", Kinds: both, Form: Snapshot,
		Description: "JSON of the snapshot of a FIRES dataset",
		Read:        readFIRES,
		Write:       writeFIRES,
	},
	{
		Name: "fires-changes", Kinds: both, Form: Changes,
		Description: "JSON of a page of changes of a FIRES dataset",
		Read:        readFIRES,
		Write:       writeFIRESChanges,
	},
	{
		Name: "csv", Kinds: []hashlist.Kind{hashlist.AddHashes, hashlist.AddInstances, hashlist.AddAccounts},
		Description: "CSV with a header whose columns you name; carries everything",
		Read:        readColumns,
		Write:       writeColumns,
	},
}

// Formats returns every format there is.
func Formats() []Format { return append([]Format(nil), formats...) }

// Lookup returns the format of that name. Its error lists the names there are.
func Lookup(name string) (Format, error) {
	for _, f := range formats {
		if f.Name == name {
			return f, nil
		}
	}
	return Format{}, fmt.Errorf("unknown format %.40q (want one of %s)", name, formatNames())
}

// formatNames are the names of all formats, for people.
func formatNames() string {
	names := make([]string, len(formats))
	for i, f := range formats {
		names[i] = f.Name
	}
	return strings.Join(names, ", ")
}

// RowWriter writes rows in one format. It must be closed.
type RowWriter struct {
	w       *bufio.Writer
	start   []byte // to be written before the first row
	between string // two rows
	after   string // each row
	end     []byte // after the last
	format  func(line []byte, row Row) ([]byte, error)
	finish  func() ([]byte, error) // writes the rows, where they must all be known first; may be nil
	rows    int
	line    []byte
}

// newRowWriter writes a row a line.
func newRowWriter(w io.Writer, start []byte, format func([]byte, Row) ([]byte, error)) *RowWriter {
	return &RowWriter{w: bufio.NewWriterSize(w, 64<<10), start: start, format: format, after: "\n"}
}

// newJSONWriter writes rows between start and end, with commas.
func newJSONWriter(w io.Writer, start, end string, format func([]byte, Row) ([]byte, error)) *RowWriter {
	return &RowWriter{w: bufio.NewWriterSize(w, 64<<10), start: []byte(start + "\n"), between: ",\n", end: []byte("\n" + end + "\n"), format: format}
}

// newDocumentWriter gathers rows by take and writes what document then returns, as JSON.
func newDocumentWriter(w io.Writer, take func([]byte, Row) ([]byte, error), document func() any) *RowWriter {
	return &RowWriter{w: bufio.NewWriterSize(w, 64<<10), end: []byte("\n"), format: take, finish: func() ([]byte, error) {
		return json.MarshalIndent(document(), "", " ")
	}}
}

// ofHash makes a form of hashes one of rows.
func ofHash(format func([]byte, Row) ([]byte, error)) func([]byte, Row) ([]byte, error) {
	return func(line []byte, row Row) ([]byte, error) {
		if row.Kind() != hashlist.AddHashes {
			return line, ErrCannotCarry
		}
		return format(line, row)
	}
}

// ofDomain makes a form of domains one of rows.
func ofDomain(format func([]byte, Row) ([]byte, error)) func([]byte, Row) ([]byte, error) {
	return func(line []byte, row Row) ([]byte, error) {
		if row.Kind() != hashlist.AddInstances {
			return line, ErrCannotCarry
		}
		return format(line, row)
	}
}

func (r *Row) check() error {
	switch {
	case (r.Hash == hashlist.Hash{}) == (r.Subject == ""):
		return errors.New("it has no hash and no subject, or both")
	case r.Subject == "" && !r.Hash.Algorithm().Valid():
		return errors.New("it has no hash")
	case r.Quality < -1 || r.Quality > 100:
		return fmt.Errorf("its quality is %d", r.Quality)
	case r.Withdrawn:
		return errors.New("it is withdrawn")
	case r.Action > hashlist.Drop:
		return fmt.Errorf("its action is %d", r.Action)
	case len(r.Reason) > hashlist.MaxReason:
		return fmt.Errorf("its reason has more than %d bytes", hashlist.MaxReason)
	}
	if r.Subject != "" {
		if err := hashlist.CheckSubject(r.Kind(), r.Subject); err != nil {
			return err
		}
	}
	return hashlist.CheckLabels(r.Labels)
}

// Write adds a row. What the format has no place for is left out; if that is
// the hash or subject itself, or leaving it out would say something else, nothing is written and the error is ErrCannotCarry.
func (w *RowWriter) Write(row Row) error {
	var err error
	if err := row.check(); err != nil {
		return fmt.Errorf("couldn't write a row: %w", err)
	}
	if w.line, err = w.format(w.line[:0], row); err != nil {
		if row.Subject != "" {
			return fmt.Errorf("couldn't write a row of %v: %w", row.Kind(), err)
		}
		return fmt.Errorf("couldn't write a %v hash: %w", row.Hash.Algorithm(), err)
	}
	if w.finish != nil {
		return nil
	}
	if err := w.begin(); err != nil {
		return err
	}
	if w.rows++; w.rows > 1 {
		if _, err := w.w.WriteString(w.between); err != nil {
			return fmt.Errorf("couldn't write rows: %w", err)
		}
	}
	if _, err := w.w.Write(append(w.line, w.after...)); err != nil {
		return fmt.Errorf("couldn't write rows: %w", err)
	}
	return nil
}

// Close writes out what is buffered. It does not close the writer below.
func (w *RowWriter) Close() error {
	if err := w.begin(); err != nil {
		return err
	}
	if w.finish != nil {
		rows, err := w.finish()
		if err != nil {
			return fmt.Errorf("couldn't write rows: %w", err)
		}
		w.end = append(rows, w.end...)
		w.finish = nil
	}
	if _, err := w.w.Write(w.end); err != nil {
		return fmt.Errorf("couldn't write rows: %w", err)
	}
	if err := w.w.Flush(); err != nil {
		return fmt.Errorf("couldn't write rows: %w", err)
	}
	return nil
}

func (w *RowWriter) begin() error {
	if _, err := w.w.Write(w.start); err != nil {
		return fmt.Errorf("couldn't write rows: %w", err)
	}
	w.start = nil
	return nil
}
