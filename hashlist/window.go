package hashlist

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Window remembers what passed: of each picture that was let through or held lately
// its hashes, never the picture, and what the caller calls it. Whatever comes to
// act later is compared with it at once: what is banned an hour too late is found, and
// says which upload it was.
//
// What it keeps is encrypted where it is stored. It is bounded in number and in time;
// the oldest go first. Methods may be called concurrently, and a nil Window remembers
// nothing.
type Window struct {
	lists  *Lists
	config WindowConfig
	log    *slog.Logger
	sealer *sealer
	store  WindowStore

	queue   chan sighting
	numbers atomic.Uint64 // the last number given to a sighting; see number
	dropped atomic.Uint64
	found   atomic.Uint64 // hits
	taken   atomic.Uint64 // hits withdrawn

	changing sync.Mutex // held while rows of uploads and hits are read, changed and written

	mu    sync.RWMutex // guards what follows
	index *windowIndex
	hit   map[uint64]struct{} // the uploads with a hit that is not withdrawn
	seq   uint64              // of the last hit
	grown chan struct{}       // closed, and replaced, when seq grows

	matching sync.Mutex    // held by whoever compares with the log
	compared atomic.Uint64 // the log up to here; written under matching
	since    uint64        // the log up to here was there at Start
	turned   int64         // Unix seconds: what began or ended up to then was compared before the node ended; 0 if that is not known

	quarantining sync.Mutex // guards quarantine
	quarantine   quarantine
	asked        chan struct{} // has room for one; see Asked

	ctx  context.Context // ends with Close
	stop context.CancelFunc
	done sync.WaitGroup
}

// WindowConfig is what a Window is made of and told.
type WindowConfig struct {
	Store   WindowStore
	Key     []byte        // WindowKeySize random bytes; without it nothing stored can be read
	Keep    time.Duration // for which an upload is remembered after it came last; above 0
	Entries int           // different pictures that are remembered; above 0
	// Durable has See wait until what it was told is stored. Otherwise what waits to be
	// written when the process dies, some milliseconds' worth, is forgotten.
	Durable bool
	// Flood says when a statement of another node goes into quarantine, and
	// Quarantine keeps what is there; with nil nothing goes there.
	Flood      Flood
	Quarantine QuarantineStore
	Log        *slog.Logger     // nil for slog.Default; it gets no hash and no reference
	Now        func() time.Time // nil for time.Now
}

// WindowStore keeps the rows of a window, sealed, and its hits. It learns nothing of
// what is in them. What it has acknowledged is durable.
type WindowStore interface {
	// SaveUploads stores rows, new or in the place of those of the same ID, and deletes
	// those named in drop with their tags; all or none.
	SaveUploads(ctx context.Context, rows []UploadRow, drop []uint64) error
	// Uploads yields all rows by ID, without their tags.
	Uploads(context.Context) iter.Seq2[UploadRow, error]
	// FindUploads returns those of the rows that are there, without their tags.
	FindUploads(ctx context.Context, ids []uint64) ([]UploadRow, error)
	// TaggedUploads returns the IDs of the rows with a tag.
	TaggedUploads(ctx context.Context, tag [16]byte) ([]uint64, error)

	// AppendHits stores hits and returns their places, which grow.
	AppendHits(context.Context, []HitRow) ([]uint64, error)
	// HitsAfter yields the hits behind place seq.
	HitsAfter(ctx context.Context, seq uint64) iter.Seq2[HitRow, error]
	// DropHits deletes the hits up to place seq, and those of the given uploads.
	DropHits(ctx context.Context, seq uint64, uploads []uint64) error

	// Cursor returns how far the reader of the given name has come, 0 if nothing was
	// saved of it.
	Cursor(ctx context.Context, name string) (uint64, error)
	SaveCursor(ctx context.Context, name string, position uint64) error

	// ClearWindow deletes all of it.
	ClearWindow(context.Context) error
}

// UploadRow is an upload as it is stored.
type UploadRow struct {
	ID     uint64
	Sealed []byte
	Tags   [][16]byte // by which it is found; of the row that SaveUploads replaces they are replaced
}

// HitRow is a hit as it is stored.
type HitRow struct {
	Seq    uint64 // place, given by AppendHits
	Upload uint64
	Sealed []byte
}

// Bounds of the window's work.
const (
	windowQueue  = 4096 // sightings that wait to be written
	windowBatch  = 512  // sightings that are written together
	windowCursor = "log"
	windowClock  = "clock"
	expireEvery  = time.Minute
)

// sighting is one time that something was let through or held.
type sighting struct {
	id         uint64
	at         time.Time
	probes     []Probe
	reference  Reference
	answered   Verdict
	generation uint64
	stored     chan<- struct{} // nil if nobody waits
}

// OpenWindow reads what is remembered. Start has it compared with what comes; Close ends
// it, before the lists are closed.
func OpenWindow(ctx context.Context, lists *Lists, config WindowConfig) (*Window, error) {
	if config.Keep <= 0 || config.Entries <= 0 {
		return nil, errors.New("a window remembers for some time, and something")
	}
	if config.Log == nil {
		config.Log = slog.Default()
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	w := &Window{
		lists: lists, config: config, log: config.Log, store: config.Store, queue: make(chan sighting, windowQueue),
		index: newWindowIndex(), hit: map[uint64]struct{}{}, grown: make(chan struct{}), asked: make(chan struct{}, 1),
	}
	var err error
	if w.sealer, err = newSealer(config.Key); err != nil {
		return nil, err
	}
	if err := w.load(ctx); err != nil {
		return nil, fmt.Errorf("read the recent window: %w", err)
	}
	w.ctx, w.stop = context.WithCancel(context.Background())
	if err := w.loadQuarantine(ctx); err != nil {
		w.stop()
		return nil, fmt.Errorf("read the quarantine: %w", err)
	}
	w.done.Go(w.write)
	return w, nil
}

// load reads the rows. One that cannot be read is left out, and told of: to lose a memory
// of a few days is better than not to start.
func (w *Window) load(ctx context.Context) error {
	var all []*upload
	unreadable := 0
	for row, err := range w.store.Uploads(ctx) {
		if err != nil {
			return err
		}
		u, err := w.open(row)
		if err != nil {
			unreadable++
			continue
		}
		all = append(all, u)
		w.numbers.Store(max(w.numbers.Load(), u.seen.lastID()))
	}
	if unreadable > 0 {
		w.log.Error("uploads of the recent window cannot be read: they are damaged, or keys/window.key is another than they were sealed with; they are left out",
			"uploads", unreadable)
	}
	slices.SortStableFunc(all, func(a, b *upload) int { return a.seen.Last.Compare(b.seen.Last) })
	for _, a := range Algorithms {
		w.index.points[a].beginBulk()
	}
	for _, u := range all {
		w.file(u)
	}
	for _, a := range Algorithms {
		w.index.points[a].endBulk()
	}
	for row, err := range w.store.HitsAfter(ctx, 0) {
		if err != nil {
			return err
		}
		w.seq = max(w.seq, row.Seq)
	}
	cursor, err := w.store.Cursor(ctx, windowCursor)
	if err != nil {
		return err
	}
	// Without anything to compare with there is nothing to catch up with, and a log that
	// is shorter than what was compared is another log.
	if head := w.lists.Seq(); len(all) == 0 || cursor > head {
		cursor = head
	}
	w.compared.Store(cursor)
	clock, err := w.store.Cursor(ctx, windowClock)
	if err != nil {
		return err
	}
	if len(all) > 0 {
		w.turned = int64(clock)
	}
	return w.trim(ctx)
}

func (s *SeenUpload) lastID() (id uint64) {
	for i := range s.Sightings {
		id = max(id, s.Sightings[i].ID)
	}
	return id
}

func (w *Window) open(row UploadRow) (*upload, error) {
	plain, err := w.sealer.open(sealedUpload, row.ID, row.Sealed)
	if err != nil {
		return nil, err
	}
	return decodeUpload(row.ID, plain)
}

func (w *Window) row(u *upload) UploadRow {
	row := UploadRow{ID: u.id, Sealed: w.sealer.seal(sealedUpload, u.id, u.encode(nil))}
	for i := range u.seen.Sightings {
		for _, f := range u.seen.Sightings[i].Reference.fields() {
			if t := w.sealer.tag(f.name, f.text); f.text != "" && !slices.Contains(row.Tags, t) {
				row.Tags = append(row.Tags, t)
			}
		}
	}
	return row
}

// file puts an upload into the index.
func (w *Window) file(u *upload) uint32 {
	n := w.index.add(recent{
		id: u.id, sum: w.sealer.sum(u.probes), last: u.seen.Last.Unix(), count: uint32(u.seen.Count),
	}, filed(u.probes))
	if u.hit != 0 {
		w.hit[u.id] = struct{}{}
	}
	return n
}

// Close waits for what See was told to be stored, and ends the window's work.
func (w *Window) Close() {
	if w == nil {
		return
	}
	w.lists.mu.Lock()
	w.lists.guard, w.lists.acting = nil, nil
	w.lists.mu.Unlock()
	w.stop()
	w.done.Wait()
}

// See notes what was asked, and answered with r, and returns its number in the window;
// 0 if it is not kept: it was refused, or too many wait to be written. The caller does not
// change q.Probes any more. It takes no longer than it takes to put it into a queue, unless
// the window is to be durable.
func (w *Window) See(q Query, r *Result) uint64 {
	if w == nil || r.Verdict > VerdictHold || len(q.Probes) == 0 || len(q.Probes) > maxWindowProbes || len(q.Lists) > 0 {
		return 0 // what was asked of some lists only says little of what was done
	}
	s := sighting{
		id: w.number(), at: wholeSecond(w.config.Now()), probes: q.Probes, reference: q.Reference, answered: r.Verdict, generation: r.generation,
	}
	var stored chan struct{}
	if w.config.Durable {
		stored = make(chan struct{})
		s.stored = stored
	}
	select {
	case w.queue <- s:
	default:
		w.dropped.Add(1)
		return 0
	}
	if stored != nil {
		select {
		case <-stored:
		case <-w.ctx.Done():
		}
	}
	return s.id
}

// number is the time in microseconds since 1970, or the next one that is free. So numbers
// grow with time, also over a restart, and tell when an upload came first.
func (w *Window) number() uint64 {
	for now := uint64(max(0, w.config.Now().UnixMicro())); ; {
		last := w.numbers.Load()
		if next := max(last+1, now); w.numbers.CompareAndSwap(last, next) {
			return next
		}
	}
}

// write owns the queue: it stores what waits together.
func (w *Window) write() {
	tick := time.NewTicker(expireEvery)
	defer tick.Stop()
	for {
		select {
		case s := <-w.queue:
			w.writeBatch(s)
		case <-tick.C:
			w.changing.Lock()
			err := w.trim(w.ctx)
			w.changing.Unlock()
			if err != nil && w.ctx.Err() == nil {
				w.log.Error("the recent window: what is too old could not be deleted", "error", err.Error())
			}
		case <-w.ctx.Done():
			for {
				select {
				case s := <-w.queue:
					w.writeBatch(s)
				default:
					return
				}
			}
		}
	}
}

func (w *Window) writeBatch(s sighting) {
	batch := append(make([]sighting, 0, 8), s)
	for more := true; more && len(batch) < windowBatch; {
		select {
		case s := <-w.queue:
			batch = append(batch, s)
		default:
			more = false
		}
	}
	ctx := context.WithoutCancel(w.ctx) // what was acknowledged is stored, also at the end
	if err := w.keep(ctx, slices.Clone(batch)); err != nil {
		w.dropped.Add(uint64(len(batch)))
		w.log.Error("the recent window: uploads could not be stored and are forgotten", "uploads", len(batch), "error", err.Error())
	}
	for _, s := range batch {
		if s.stored != nil {
			close(s.stored)
		}
	}
}

// keep stores sightings, and compares them with what has come since they were answered.
func (w *Window) keep(ctx context.Context, batch []sighting) error {
	batch = slices.DeleteFunc(batch, func(s sighting) bool { return len(s.probes) == 0 }) // see flush
	if len(batch) == 0 {
		return nil
	}
	w.changing.Lock()
	defer w.changing.Unlock()
	generation := w.lists.generationNow()
	// Which of them are known already.
	at := make([]place, len(batch))
	changed := map[place]*upload{}
	known := map[place]uint64{} // the IDs of their rows
	var order []place
	for i := range batch {
		at[i] = w.placeOf(batch[i].probes)
		if _, met := changed[at[i]]; met {
			continue
		}
		changed[at[i]] = nil
		order = append(order, at[i])
		w.mu.RLock()
		if n, ok := w.index.find(at[i].hash, at[i].sum); ok {
			known[at[i]] = w.index.uploads[n].id
		}
		w.mu.RUnlock()
	}
	uploads, err := w.read(ctx, slices.Collect(maps.Values(known)))
	if err != nil {
		return err
	}
	var lost []uint64
	for p, id := range known {
		if changed[p] = uploads[id]; changed[p] == nil {
			lost = append(lost, id) // its row cannot be read: it is made anew
			delete(known, p)
		}
	}
	for i := range batch {
		s := &batch[i]
		if changed[at[i]] == nil {
			changed[at[i]] = &upload{id: s.id, probes: s.probes, seen: SeenUpload{First: s.at, Answered: s.answered}}
		}
		changed[at[i]].note(s)
	}
	rows := make([]UploadRow, len(order))
	for i, p := range order {
		rows[i] = w.row(changed[p])
	}
	drop := slices.Concat(lost, w.excess(len(order)-len(known)))
	drop = slices.DeleteFunc(drop, func(id uint64) bool { // the oldest may have come again just now
		return slices.ContainsFunc(order, func(p place) bool { return changed[p].id == id })
	})
	if err := w.store.SaveUploads(ctx, rows, drop); err != nil {
		return err
	}
	w.mu.Lock()
	w.discard(drop)
	for _, p := range order {
		u := changed[p]
		if n, ok := w.index.find(p.hash, p.sum); ok {
			w.index.again(n, u)
		} else {
			w.file(u)
		}
	}
	w.mu.Unlock()
	// From here on whoever compares news finds them. News that came between the answer
	// and now may have been compared without them.
	now := w.lists.generationNow()
	stale := map[*upload]bool{}
	for i := range batch {
		if batch[i].generation != generation || generation != now {
			stale[changed[at[i]]] = true
		}
	}
	return w.judge(ctx, slices.Collect(maps.Keys(stale)))
}

// place is by what an upload is found: the file, or else its first hash, and its sum.
type place struct {
	hash Hash
	sum  uint64
}

func (w *Window) placeOf(probes []Probe) place {
	p := place{probes[0].Hash, w.sealer.sum(probes)}
	if file, ok := fileOf(probes); ok {
		p.hash = file
	}
	return p
}

// flush waits until all that See was told before is stored.
func (w *Window) flush(ctx context.Context) error {
	stored := make(chan struct{})
	select {
	case w.queue <- sighting{stored: stored}:
	case <-ctx.Done():
		return ctx.Err()
	case <-w.ctx.Done():
		return ErrClosed
	}
	select {
	case <-stored:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// note adds a sighting to what is known of an upload.
func (u *upload) note(s *sighting) {
	v := &u.seen
	v.Last = s.at
	v.Count++
	if u.hit == 0 {
		v.Answered = min(v.Answered, s.answered)
	}
	if len(v.Sightings) == MaxSightings {
		// The first one stays: it says who brought it.
		v.Sightings = slices.Delete(v.Sightings, 1, 2)
	}
	v.Sightings = append(v.Sightings, Sighting{ID: s.id, At: s.at, Answered: s.answered, Reference: s.reference})
}

// read returns the uploads with the given IDs, but for those whose rows are gone or
// cannot be read.
func (w *Window) read(ctx context.Context, ids []uint64) (map[uint64]*upload, error) {
	all := make(map[uint64]*upload, len(ids))
	for chunk := range slices.Chunk(ids, windowBatch) {
		rows, err := w.store.FindUploads(ctx, chunk)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			if u, err := w.open(row); err == nil {
				all[row.ID] = u
			}
		}
	}
	return all, nil
}

// excess returns the IDs of the oldest uploads, so many that another few fit.
func (w *Window) excess(more int) (ids []uint64) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	over := w.index.len + more - w.config.Entries
	for n := w.index.oldest; n != none && len(ids) < over; n = w.index.uploads[n].newer {
		ids = append(ids, w.index.uploads[n].id)
	}
	return ids
}

// discard takes uploads out of memory, the oldest or any. w.mu is held.
func (w *Window) discard(ids []uint64) {
	if len(ids) == 0 {
		return
	}
	drop := make(map[uint64]bool, len(ids))
	for _, id := range ids {
		drop[id] = true
		delete(w.hit, id)
	}
	for n := w.index.oldest; n != none && len(drop) > 0; {
		r := &w.index.uploads[n]
		next := r.newer
		if drop[r.id] {
			delete(drop, r.id)
			w.index.drop(n)
		}
		n = next
	}
}

// trim deletes what is too old or too much. w.changing is held, or nobody else is
// there yet.
func (w *Window) trim(ctx context.Context) error {
	until := w.config.Now().Add(-w.config.Keep).Unix()
	for {
		ids := w.excess(0)
		w.mu.RLock()
		for n := w.index.oldest; n != none && w.index.uploads[n].last < until && len(ids) < windowBatch; n = w.index.uploads[n].newer {
			if id := w.index.uploads[n].id; !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
		w.mu.RUnlock()
		if len(ids) == 0 {
			return w.trimHits(ctx)
		}
		if err := w.store.SaveUploads(ctx, nil, ids); err != nil {
			return err
		}
		w.mu.Lock()
		w.discard(ids)
		w.mu.Unlock()
	}
}

// WindowStats tells how much a window holds.
type WindowStats struct {
	Entries   int    // different pictures
	Uploads   uint64 // sightings of them
	Bytes     int64  // of memory, about
	Oldest    time.Time
	Waiting   int    // sightings that wait to be written
	Dropped   uint64 // sightings that were not kept, since the start
	Hits      uint64 // since the start
	Withdrawn uint64 // of them
	Open      int    // pictures with a hit that is not withdrawn
	Behind    uint64 // statements of the log that are not compared yet
	Keep      time.Duration
	Most      int // different pictures that are kept
}

// Stats tells how much the window holds.
func (w *Window) Stats() WindowStats {
	if w == nil {
		return WindowStats{}
	}
	s := WindowStats{
		Waiting: len(w.queue), Dropped: w.dropped.Load(), Hits: w.found.Load(), Withdrawn: w.taken.Load(),
		Keep: w.config.Keep, Most: w.config.Entries,
	}
	head := w.lists.Seq()
	w.mu.RLock()
	defer w.mu.RUnlock()
	s.Entries, s.Uploads, s.Bytes, s.Open = w.index.len, w.index.count, w.index.bytes(), len(w.hit)
	if n := w.index.oldest; n != none {
		s.Oldest = time.Unix(w.index.uploads[n].last, 0).UTC()
	}
	if c := w.compared.Load(); c < head {
		s.Behind = head - c
	}
	return s
}

// Forget deletes every upload that was seen with one of the texts of r, all that is
// kept of it: also the hits that speak of it. It returns how many it were.
func (w *Window) Forget(ctx context.Context, r Reference) (int, error) {
	if w == nil {
		return 0, nil
	}
	if err := w.flush(ctx); err != nil {
		return 0, err
	}
	w.changing.Lock()
	defer w.changing.Unlock()
	var ids []uint64
	for _, f := range r.fields() {
		if f.text == "" {
			continue
		}
		tagged, err := w.store.TaggedUploads(ctx, w.sealer.tag(f.name, f.text))
		if err != nil {
			return 0, fmt.Errorf("find uploads by %s: %w", f.name, err)
		}
		ids = append(ids, tagged...)
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	if len(ids) == 0 {
		return 0, nil
	}
	if err := w.store.DropHits(ctx, 0, ids); err != nil {
		return 0, fmt.Errorf("forget hits: %w", err)
	}
	if err := w.store.SaveUploads(ctx, nil, ids); err != nil {
		return 0, fmt.Errorf("forget uploads: %w", err)
	}
	w.mu.Lock()
	w.discard(ids)
	w.mu.Unlock()
	return len(ids), nil
}

// Place returns how far a reader of the hits has come, by the name it has given itself;
// 0 if nothing was saved of it.
func (w *Window) Place(ctx context.Context, reader string) (uint64, error) {
	return w.store.Cursor(ctx, "hits:"+reader)
}

// SavePlace notes that a reader has come to seq.
func (w *Window) SavePlace(ctx context.Context, reader string, seq uint64) error {
	return w.store.SaveCursor(ctx, "hits:"+reader, seq)
}
