package hashlist

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"
)

// Lists is a log together with what its statements come to. Methods may be
// called concurrently.
type Lists struct {
	log    Log
	policy Policy
	opened time.Time // with its monotonic reading

	mu    sync.RWMutex // guards what follows; held to write for one batch of statements
	fold  *fold
	seq   uint64        // the fold holds the log up to here
	grown chan struct{} // closed, and replaced, when seq grows

	generation uint64           // grows whenever something may act that did not, or the reverse
	stirred    map[string]bool  // lists that changed otherwise than by statements in the log, "" for any; see changed
	turned     []string         // the IDs of statements that began or ended with time; see turn
	paced      map[string]*pace // by origin of other nodes: what they had stirred lately
	stir       chan struct{}    // has room for one: something changed
	// guard tells which of the statements that were appended are not to act yet; nil for none.
	guard func([]Record) []string
	// acting is told before something else of a list than before comes to act: what stands on it, if hashes is
	// set, and whom it vouches for. It sees to it that what must not act is held; nil for nothing.
	acting func(list string, hashes bool)

	voiding sync.Mutex // held for one Void

	requests chan request
	stop     context.CancelFunc
	done     chan struct{} // closed when the committer has returned
}

// ErrClosed is returned by Apply after Close.
var ErrClosed = errors.New("the lists are closed")

// Bounds of one append to the log: what waits is written together, so that many
// callers share one flush to the disk.
const (
	maxBatch     = 256 // requests
	maxBatchSize = 8 << 20
)

// sweep is how often lapsed statements are taken out of the index. Lookups do
// not wait for it: they look at the clock themselves.
const sweep = time.Minute

type request struct {
	records []Record
	reply   chan<- reply // has room for one
}

type reply struct {
	seqs []uint64
	err  error
}

// Open reads log to its end and returns what it comes to. Close ends it; the
// log remains the caller's.
func Open(ctx context.Context, log Log, policy Policy) (*Lists, error) {
	if err := policy.Validate(); err != nil {
		return nil, err
	}
	l := &Lists{
		log: log, policy: policy, opened: time.Now(), fold: newFold(), grown: make(chan struct{}),
		stirred: map[string]bool{}, paced: map[string]*pace{}, stir: make(chan struct{}, 1),
		requests: make(chan request), done: make(chan struct{}),
	}
	l.fold.own, l.fold.looked = policy.Own, l.opened.Unix()
	now := l.steady()
	for _, a := range Algorithms {
		l.fold.points[a].beginBulk()
	}
	for r, err := range readAhead(log.After(ctx, 0, Selection{})) {
		if err != nil {
			return nil, fmt.Errorf("read the log behind statement %d: %w", l.seq, err)
		}
		l.fold.merge(r.Seq, &r.Statement, now)
		l.seq = r.Seq
	}
	for _, a := range Algorithms {
		l.fold.points[a].endBulk()
	}
	ctx, l.stop = context.WithCancel(context.Background())
	go l.commit(ctx)
	return l, nil
}

// readAhead iterates over records in a goroutine of its own, a few ahead of the
// caller: one processor decodes while the other merges.
func readAhead(records iter.Seq2[Record, error]) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		type item struct {
			r   Record
			err error
		}
		ahead := make(chan item, 64)
		stop := make(chan struct{})
		var reader sync.WaitGroup
		defer reader.Wait()
		defer close(stop)
		reader.Go(func() {
			defer close(ahead)
			for r, err := range records {
				select {
				case ahead <- item{r, err}:
				case <-stop:
					return
				}
			}
		})
		for i := range ahead {
			if !yield(i.r, i.err) {
				return
			}
		}
	}
}

// Close waits for what Apply has begun and ends the lists' work. Lookups still
// answer.
func (l *Lists) Close() {
	l.stop()
	<-l.done
}

// Apply appends records to the log and merges their statements. When it
// returns they are durable, and every later Lookup heeds them. It returns their
// places in the log; those of statements that were there before are smaller
// than the others. The statements must be valid and their proofs checked.
//
// If ctx ends first, the records may or may not have been stored: applying them
// again is safe and settles it.
func (l *Lists) Apply(ctx context.Context, records ...Record) ([]uint64, error) {
	for i := range records {
		if err := records[i].Statement.Validate(); err != nil {
			return nil, fmt.Errorf("statement %s: %w", records[i].Statement.ID, err)
		}
	}
	answer := make(chan reply, 1)
	select {
	case l.requests <- request{records, answer}:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-l.done:
		return nil, ErrClosed
	}
	select {
	case r := <-answer:
		return r.seqs, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// commit owns the order of appends: it writes what waits in one go, merges it,
// and then answers.
func (l *Lists) commit(ctx context.Context) {
	defer close(l.done)
	tick := time.NewTicker(sweep)
	defer tick.Stop()
	next := time.NewTimer(sweep)
	defer next.Stop()
	for {
		next.Reset(l.untilTurn())
		select {
		case <-ctx.Done():
			return
		case <-next.C:
			l.turn()
		case <-tick.C: // also for a clock that was set, which next knows nothing of
			l.turn()
			l.mu.Lock()
			l.fold.lapse(l.steady())
			l.mu.Unlock()
		case r := <-l.requests:
			batch := append(make([]request, 0, 8), r)
			size := weight(r)
			for more := true; more && len(batch) < maxBatch && size < maxBatchSize; {
				select {
				case r := <-l.requests:
					batch = append(batch, r)
					size += weight(r)
				default:
					more = false
				}
			}
			l.write(batch)
		}
	}
}

// steady is the time by a clock that nobody sets: what has lapsed by it is
// forgotten until the node starts again, and a system clock that jumps to next year
// and back would otherwise lift every ban that ever ends. Lookups go by the
// system's clock, which may be set right.
func (l *Lists) steady() time.Time { return l.opened.Add(time.Since(l.opened)) }

func weight(r request) (n int) {
	for i := range r.records {
		n += len(r.records[i].Signed)
	}
	return n
}

func (l *Lists) write(batch []request) {
	records := batch[0].records
	if len(batch) > 1 {
		records = nil
		for _, r := range batch {
			records = append(records, r.records...)
		}
	}
	// Not the callers' contexts: one of them leaving must not fail the others.
	seqs, err := l.log.Append(context.Background(), records)
	if err == nil && len(seqs) != len(records) {
		err = fmt.Errorf("the log gave %d places for %d statements", len(seqs), len(records))
	}
	if err != nil {
		for _, r := range batch {
			r.reply <- reply{err: fmt.Errorf("append to the log: %w", err)}
		}
		return
	}
	var held []string
	l.mu.RLock()
	guard := l.guard
	l.mu.RUnlock()
	if guard != nil {
		held = guard(records)
	}
	l.mu.Lock()
	now := l.steady()
	l.fold.lapse(now)
	for _, id := range held { // also such as act already
		l.fold.quarantine(id, true)
	}
	for i := range records {
		s, related := &records[i].Statement, l.fold.trust.generation
		l.fold.merge(seqs[i], s, now)
		l.seq = max(l.seq, seqs[i])
		if list := l.fold.redefines(s); list != nil {
			l.stirBy(s.List, list.iri)
		}
		if related != l.fold.trust.generation {
			l.stirBy(s.List, "") // whoever is believed now may have listed anything
		}
	}
	l.changed()
	close(l.grown)
	l.grown = make(chan struct{})
	l.mu.Unlock()
	for _, r := range batch {
		r.reply <- reply{seqs: seqs[:len(r.records):len(r.records)]}
		seqs = seqs[len(r.records):]
	}
}

// changed notes that something else than before may act from now on: the log has
// grown, or what the given lists say counts otherwise; "" stands for any list. The
// recent window looks at it as soon as it can. l.mu is held to write.
func (l *Lists) changed(lists ...string) {
	l.generation++
	for _, iri := range lists {
		l.stirred[iri] = true
	}
	select {
	case l.stir <- struct{}{}:
	default: // somebody has been told and has not looked yet
	}
}

func (l *Lists) generationNow() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.generation
}

// stirring is what changed otherwise than by statements in the log.
type stirring struct {
	lists      []string // by their IRI
	statements []string // the IDs of those that began or ended with time
	all        bool     // any list
	seq        uint64   // the log up to here was merged
	waits      bool     // what others had stirred is to come yet
	until      int64    // Unix seconds: what began or ended up to then is among it
}

// takeStirred takes what changed since it was called last.
func (l *Lists) takeStirred() stirring {
	l.mu.Lock()
	defer l.mu.Unlock()
	st := stirring{statements: l.turned, until: l.fold.looked, seq: l.seq}
	for _, p := range l.paced {
		st.waits = st.waits || len(p.lists) > 0
	}
	for iri := range l.stirred {
		if iri == "" {
			st.all = true
		} else {
			st.lists = append(st.lists, iri)
		}
	}
	l.turned = nil
	clear(l.stirred)
	slices.Sort(st.lists)
	return st
}

// Seq returns the place in the log up to which lookups heed it.
func (l *Lists) Seq() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.seq
}

// Wait returns once the log has grown beyond seq.
func (l *Lists) Wait(ctx context.Context, seq uint64) error {
	for {
		l.mu.RLock()
		now, grown := l.seq, l.grown
		l.mu.RUnlock()
		if now > seq {
			return nil
		}
		select {
		case <-grown:
		case <-l.done:
			return ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// After reads the log; see Log.After.
func (l *Lists) After(ctx context.Context, seq uint64, only Selection) func(yield func(Record, error) bool) {
	return l.log.After(ctx, seq, only)
}

// Record reads one statement from the log, of any kind, in force or not; see
// Log.Find.
func (l *Lists) Record(ctx context.Context, id string) (Record, bool, error) {
	return l.log.Find(ctx, id)
}

// List describes a list that has a definition.
type List struct {
	Definition
	ID         string // IRI
	Issuer     string // who made the definition that counts
	Statement  string // the ID of that definition
	Updated    time.Time
	Hashes     int // in force; one that two statements list counts twice
	Subjects   int // the same of accounts, servers and addresses of content
	Statements int // with at least one of these in force, or that confirm or dispute
	// Most is the gravest verdict that its matches may come to, 0 if the list is
	// not heeded; see Lists.Heed.
	Most Verdict
	// Partner reports that the list is of partner data: it never leaves this node, so its
	// Audience is Local whatever the definition says, and it is not exported.
	Partner bool
}

func (f *fold) describe(l *list) List {
	s := &f.stmts[l.current.stmt]
	v := List{
		Definition: l.current.Definition, ID: l.iri, Issuer: s.issuer, Statement: s.id,
		Updated: time.Unix(s.published, 0).UTC(), Hashes: l.hashes, Subjects: l.subjects, Statements: l.statements, Most: l.most,
		Partner: l.partner,
	}
	if v.Partner {
		v.Audience = Local
	}
	return v
}

// Partner reports whether a list was ever marked as one of partner data. Unlike List it
// knows this also of a list whose definition was retracted.
func (l *Lists) Partner(iri string) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	v := l.fold.lists[iri]
	return v != nil && v.partner
}

// List returns the list with the given IRI, and false if it has no definition.
func (l *Lists) List(iri string) (List, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if v := l.fold.lists[iri]; v != nil && v.current != nil {
		return l.fold.describe(v), true
	}
	return List{}, false
}

// All returns every list that has a definition, by name.
func (l *Lists) All() []List {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var all []List
	for _, v := range l.fold.lists {
		if v.current != nil {
			all = append(all, l.fold.describe(v))
		}
	}
	slices.SortFunc(all, func(a, b List) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID))
	})
	return all
}

// Definitions returns the IDs of the definitions of a list that are not
// retracted, or by nothing that is not void. Retracting them all ends the list.
func (l *Lists) Definitions(iri string) []string {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var ids []string
	if v := l.fold.lists[iri]; v != nil {
		for _, d := range v.defs {
			ids = append(ids, l.fold.stmts[d.stmt].id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Issued says who made a statement and where in the log it stands. It does not
// know retractions.
func (l *Lists) Issued(id string) (issuer string, seq uint64, known bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	n, ok := l.fold.byID[id]
	if !ok {
		return "", 0, false
	}
	s := &l.fold.stmts[n]
	return s.issuer, s.seq, true
}

// Belongs says who made a statement and to which list it belongs. It does not know
// retractions.
func (l *Lists) Belongs(id string) (issuer, list string, known bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	n, ok := l.fold.byID[id]
	if !ok {
		return "", "", false
	}
	s := &l.fold.stmts[n]
	return s.issuer, s.list.iri, true
}

// Counts tells how much is in force.
type Counts struct {
	Hashes     map[Algorithm]int // distinct, also those of lists that are not heeded and of void statements
	Statements int               // that are no retractions, also those no longer in force
	Subjects   map[Kind]int      // distinct, as with Hashes, by the kind of statement that lists them
	Lists      int               // with a definition
}

// Counts tells how much is in force.
func (l *Lists) Counts() Counts {
	l.mu.RLock()
	defer l.mu.RUnlock()
	c := Counts{Hashes: map[Algorithm]int{}, Subjects: map[Kind]int{}, Statements: len(l.fold.stmts)}
	for _, a := range Algorithms {
		c.Hashes[a] = l.fold.points[a].len()
	}
	for _, k := range [...]Kind{AddAccounts, AddInstances, AddContent} {
		c.Subjects[k] = l.fold.textsOf(k.table()).len()
	}
	for _, v := range l.fold.lists {
		if v.current != nil {
			c.Lists++
		}
	}
	return c
}

// WriteFold writes what is in force, sorted, a line each. Two nodes that hold
// the same statements write the same bytes, whatever they were told by Void and Heed. It holds every listed hash: it is
// for the operator and for tests, not for logs. Lookups go on meanwhile, but
// new statements wait.
func (l *Lists) WriteFold(w io.Writer) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	b := bufio.NewWriter(w)
	if err := l.fold.write(b, time.Now()); err != nil {
		return err
	}
	return b.Flush()
}
