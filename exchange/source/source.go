package source

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// Bounds of a source.
const (
	MinEvery = 5 * time.Minute      // between two runs
	MaxEvery = 366 * 24 * time.Hour //
	MaxURL   = 2048                 // bytes of an address

	DefaultEvery      = 24 * time.Hour
	DefaultBelief     = 40 // marginal, in the words of the OpenPGP web of trust
	DefaultMaxChanges = 1000
	DefaultMaxShrink  = 10 // percent

	keptRuns    = 100 // of each source
	keptRefused = 100 // rows of one run that are described; all are counted
	keptSamples = 20  // changes of one run that are shown in a preview
	manySamples = 10_000
	maxCursor   = 64 << 10 // bytes
)

// State is how far a source has come. The numbers are stored: they are never reused.
type State uint8

// The states of a source.
const (
	Draft   State = 1 // nothing of it was approved yet: nothing of it acts
	Active  State = 2
	Paused  State = 3 // it is not read; what came of it acts as before
	Removed State = 4 // it is not read, and what came of it acts no more
)

var states = [...]string{"", "draft", "active", "paused", "removed"}

// String returns draft, active, paused or removed.
func (s State) String() string {
	if s >= Draft && int(s) < len(states) {
		return states[s]
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// Source is a list elsewhere that is read into a list of this node.
type Source struct {
	Name        string           // as hashlist.CheckName wants it; unlike every other source's
	URL         string           // of the file or the API; https, or http to loopback where the node may
	Format      string           // one of Formats
	List        string           // IRI of the list that it feeds, which no other source does
	Every       time.Duration    // MinEvery to MaxEvery, less a jitter of up to a fifth
	Belief      uint8            // 0 to 120: how far the operator believes it
	Most        hashlist.Verdict // the gravest verdict that its matches may come to
	MaxChanges  int              // in one run without asking; at least 1
	MaxShrink   int              // percent of what it said that may go in one run without asking, 0 to 100
	Labels      []string         // of everything that it says, sorted
	Credentials string           // path of a file, "" for none; see ReadCredentials
	Columns     string           // of format csv: which column is what, as in domain=host,reason=note
	Snapshot    bool             // what is absent was taken back, also where the format does not mean that
	State       State
	Created     time.Time
	Next        time.Time // when it is to be read; zero for not
	Tried       time.Time // the last run's begin; zero for never
	Heard       time.Time // the last time it answered as it should; zero for never
	Failures    uint32    // runs in a row that failed
	Trouble     string    // why the last one did, "" if it did not
	Runs        uint64    // the number of the last run
	Pending     uint64    // the run that waits for a person, 0 for none

	// What it said last that was taken over.
	ETag     string
	Modified string // its Last-Modified
	Full     time.Time
	Cursor   []byte // of a connector
}

// RunState is what became of a run. The numbers are stored: they are never reused.
type RunState uint8

// The states of a run.
const (
	Unchanged  RunState = 1 // there was nothing to do
	Applied    RunState = 2
	Held       RunState = 3 // it waits for a person
	Approved   RunState = 4 // a person said yes, and it is being applied
	Discarded  RunState = 5 // a person said no
	Superseded RunState = 6 // a later one came before a person decided
	Failed     RunState = 7
	Drafted    RunState = 8 // a person said yes, and took it away to be signed elsewhere
)

var runStates = [...]string{"", "unchanged", "applied", "held", "approved", "discarded", "superseded", "failed", "drafted"}

// String returns the name of the state in lower case.
func (s RunState) String() string {
	if s >= Unchanged && int(s) < len(runStates) {
		return runStates[s]
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// Refusal is a row that could not be read.
type Refusal struct {
	Line   int    // from 1
	Reason string // without the row's hash
}

// Run is one reading of a source, and its report.
type Run struct {
	Source       string
	Number       uint64 // from 1
	Begun, Ended time.Time
	State        RunState
	Rows         uint64 // read, those that were refused included
	Refused      uint64
	Repeated     uint64 // rows that say what another row said
	Before       uint64 // what the source said before
	Added        uint64
	Changed      uint64
	Retracted    uint64
	Missing      uint64 // that it said before and does not say now, where that means anything or might
	Kept         uint64 // said again although a person here has taken it off the list: it stays off
	Why          string // Held: what a person is asked about; Failed: what failed
	Refusals     []Refusal
	Sample       []string // the first changes, without hashes
	Statements   int      // that are or were planned
	Who          string   // decided
	Decided      time.Time

	// What the source is remembered by once the run is applied.
	ETag, Modified string
	Cursor         []byte
	Sum            [32]byte // of what is planned: the same plan again asks nobody again
}

// Changes is how much a run would change.
func (r *Run) Changes() uint64 { return r.Added + r.Changed + r.Retracted }

// Store keeps sources and their runs. *store.DB is one. What Save methods returned without an
// error for is durable.
type Store interface {
	Sources(context.Context) ([]Source, error)
	SaveSource(context.Context, Source) error
	// SourceRuns returns the runs of a source, the latest first, at most limit of them, 0 for all.
	SourceRuns(ctx context.Context, source string, limit int) ([]Run, error)
	// SaveSourceRun saves a run over that of the same number, and forgets all but the latest keep.
	SaveSourceRun(ctx context.Context, r Run, keep int) error
	// SavePlan keeps the statements that a run would sign, in their binary form, in the place of
	// whatever was kept for the run.
	SavePlan(ctx context.Context, source string, run uint64, statements [][]byte) error
	// Plan yields them in their order.
	Plan(ctx context.Context, source string, run uint64) iter.Seq2[[]byte, error]
	DropPlan(ctx context.Context, source string, run uint64) error
	// SaveEntries notes which hashes the source's own names for entries stand for. What was noted stays.
	SaveEntries(ctx context.Context, source string, entries []Entry) error
	// Entry returns the hashes that a name stands for, none if it was never heard of.
	Entry(ctx context.Context, source, key string) ([]hashlist.Hash, error)
}

// Entry is a hash under the name that its source has for it.
type Entry struct {
	Key  string
	Hash hashlist.Hash
}

// Errors that callers tell apart.
var (
	ErrUnknown = errors.New("there is no such source")
	ErrState   = errors.New("that cannot be done now")
	ErrInvalid = errors.New("that is not allowed")
)

// Validate reports the first field of s that is out of its range.
func (s *Source) Validate() error {
	if err := hashlist.CheckName(s.Name); err != nil {
		return fmt.Errorf("name of the source: %w", err)
	}
	u, err := url.Parse(s.URL)
	switch {
	case len(s.URL) > MaxURL:
		return fmt.Errorf("address of %d bytes is longer than %d", len(s.URL), MaxURL)
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.Opaque != "":
		return fmt.Errorf("address %.80q is not like https://lists.example/blocks.csv", s.URL)
	case u.User != nil:
		return errors.New("the address has a name or password in it: put them into a file and give its path as credentials")
	case u.Fragment != "":
		return fmt.Errorf("address %.80q has a fragment, which no server sees", s.URL)
	}
	for _, c := range []byte(s.URL) {
		if c <= ' ' || c >= 0x7f {
			return fmt.Errorf("address %.80q has characters that do not belong in one", s.URL)
		}
	}
	if _, err := hashlist.Origin(s.List); err != nil {
		return fmt.Errorf("list of the source: %w", err)
	}
	if !slices.Contains(Formats(), s.Format) {
		return fmt.Errorf("unknown format %.40q (want one of %s)", s.Format, strings.Join(Formats(), ", "))
	}
	switch {
	case s.Every < MinEvery || s.Every > MaxEvery:
		return fmt.Errorf("a source is read every %v to %v, not every %v", MinEvery, MaxEvery, s.Every)
	case s.Belief > 120:
		return fmt.Errorf("belief %d is not 0 to 120", s.Belief)
	case s.Most < hashlist.VerdictAllow || s.Most > hashlist.VerdictReject:
		return errors.New("the gravest verdict is none of allow, flag, hold and reject")
	case s.MaxChanges < 1:
		return fmt.Errorf("at most %d changes in a run are none at all", s.MaxChanges)
	case s.MaxShrink < 0 || s.MaxShrink > 100:
		return fmt.Errorf("%d is no percentage", s.MaxShrink)
	case s.State < Draft || s.State > Removed:
		return fmt.Errorf("state %d is not 1 to 4", s.State)
	case len(s.Credentials) > 4096 || len(s.Columns) > 1024 || len(s.Trouble) > 1000 || len(s.ETag) > maxValidator || len(s.Modified) > maxValidator:
		return errors.New("a text of the source is too long")
	case len(s.Cursor) > maxCursor:
		return fmt.Errorf("a cursor of %d bytes is longer than %d", len(s.Cursor), maxCursor)
	}
	return hashlist.CheckLabels(s.Labels)
}
