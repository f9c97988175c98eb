package hashlist

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"time"
)

// Start has the window compared with whatever comes to act from now on, and with what
// the log has that was not compared before the node ended. What was said of other nodes' lists
// before is taken for what was said before the node ended: it stirs nothing. What began or ended by the clock in between does.
func (w *Window) Start() {
	if w == nil {
		return
	}
	w.since = w.lists.takeStirred().seq
	if w.turned > 0 {
		w.lists.turnSince(w.turned)
	}
	w.lists.mu.Lock()
	if w.lists.guard != nil {
		w.lists.acting = w.acting
	}
	w.lists.mu.Unlock()
	w.done.Go(w.watch)
}

// A comparison that failed is tried again after a while.
const compareAgain = 10 * time.Second

func (w *Window) watch() {
	for {
		var again <-chan time.Time
		if err := w.compare(w.ctx); err != nil && w.ctx.Err() == nil {
			w.log.Error("the recent window could not be compared with what is new; it is tried again", "error", err.Error())
			again = time.After(compareAgain)
		}
		select {
		case <-w.lists.stir:
		case <-again:
		case <-w.ctx.Done():
			return
		}
	}
}

// news is what may act that did not, or act no more.
type news struct {
	hashes []newHash
	open   bool // hits may have to be withdrawn
	all    bool // anything may act otherwise: every upload is looked up again
}

type newHash struct {
	hash   Hash
	radius int
}

// newsChunk is how many new hashes are compared together.
const newsChunk = 10_000

// perUpload is how many new hashes cost as much to compare as one upload costs to be
// looked up again, by all its hashes: with more of them than that, looking up is cheaper.
const perUpload = 4

// compare finds what of the window comes to another answer by what has changed since it
// was called last.
func (w *Window) compare(ctx context.Context) error {
	w.matching.Lock()
	defer w.matching.Unlock()
	var n news
	st := w.lists.takeStirred()
	n.all, n.open = st.all, len(st.lists)+len(st.statements) > 0
	err := w.gather(ctx, &n, st)
	if err == nil {
		err = w.compareNews(ctx, &n)
	}
	if err != nil {
		w.lists.stirAgain(st)
		return err
	}
	if st.waits {
		return nil // if the node ends before it comes, it is found in the log
	}
	if err := w.store.SaveCursor(ctx, windowClock, uint64(max(st.until, 0))); err != nil {
		return err
	}
	return w.store.SaveCursor(ctx, windowCursor, min(w.compared.Load(), st.seq))
}

// gather reads what is new. Hashes are compared while they are gathered, if they are many.
func (w *Window) gather(ctx context.Context, n *news, st stirring) error {
	stirred := st.lists
	if n.all {
		w.compared.Store(w.lists.Seq())
		return nil
	}
	for record, err := range w.lists.After(ctx, w.compared.Load(), Selection{}) {
		if err != nil {
			return err
		}
		if err := w.add(ctx, n, &record.Statement, &stirred, record.Seq <= w.since); err != nil {
			return err
		}
		if err := w.compareMany(ctx, n); err != nil {
			return err
		}
		w.compared.Store(record.Seq)
	}
	for _, id := range st.statements {
		record, known, err := w.lists.Record(ctx, id)
		if err == nil && known {
			err = w.add(ctx, n, &record.Statement, &stirred, false)
		}
		if err == nil {
			err = w.compareMany(ctx, n)
		}
		if err != nil {
			return err
		}
	}
	slices.Sort(stirred)
	for _, iri := range slices.Compact(stirred) {
		l, ok := w.lists.List(iri)
		if !ok || l.Most == 0 || n.all {
			continue
		}
		if l.Hashes > perUpload*w.entries() {
			n.all = true
			continue
		}
		for record, err := range w.lists.After(ctx, 0, Selection{List: iri}) {
			if err != nil {
				return err
			}
			if record.Statement.Kind == AddHashes {
				n.add(w.lists.InForce(&record.Statement), w.lists.radiiOf(iri))
			}
			if err := w.compareMany(ctx, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// add notes what a statement of the log may change. A list that is defined anew, and who is believed, was told of by
// stirBy, unless that was before Start: then such a list is added to stirred.
func (w *Window) add(ctx context.Context, n *news, s *Statement, stirred *[]string, untold bool) error {
	about := ""
	switch s.Kind {
	case AddHashes:
		n.add(s.Hashes, w.lists.radiiOf(s.List))
		return nil
	case DefineList:
		if untold {
			*stirred = append(*stirred, s.List)
		}
		n.open = true
		return nil
	case Vouch:
		n.all = n.all || untold
		return nil
	case Retraction:
		// What was withdrawn may have spoken against an upload, or for it.
		n.open = true
		if len(s.Hashes) > 0 {
			n.add(s.Hashes, w.lists.radiiOf(s.List))
			return nil
		}
		about = s.Retracts
	case Confirmation, Dispute:
		n.open = true
		about = s.About
	default: // what is no media
		return nil
	}
	r, known, err := w.lists.Record(ctx, about)
	if err != nil || !known {
		return err
	}
	if r.Statement.Kind == Vouch {
		n.all = n.all || untold
	}
	if r.Statement.Kind == DefineList && untold {
		*stirred = append(*stirred, r.Statement.List)
	}
	n.add(r.Statement.Hashes, w.lists.radiiOf(r.Statement.List))
	return nil
}

func (n *news) add(hashes []Hash, radii Radii) {
	if n.all {
		return
	}
	for _, h := range hashes {
		n.hashes = append(n.hashes, newHash{h, int(radii[h.alg])})
	}
}

// radiiOf returns the radii by which a list matches here, or what lists have that say nothing.
func (l *Lists) radiiOf(iri string) Radii {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if v := l.fold.lists[iri]; v != nil && v.current != nil {
		return v.radii()
	}
	return DefaultRadii
}

// stirAgain notes once more what takeStirred has taken.
func (l *Lists) stirAgain(st stirring) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turned = append(st.statements, l.turned...)
	if st.all {
		l.stirred[""] = true
	}
	for _, iri := range st.lists {
		l.stirred[iri] = true
	}
}

func (w *Window) entries() int {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.index.len
}

// compareMany compares the hashes that were gathered if they are many, or gives up on
// them if it is cheaper to look up every upload.
func (w *Window) compareMany(ctx context.Context, n *news) error {
	if len(n.hashes) < newsChunk {
		return ctx.Err()
	}
	if len(n.hashes) > perUpload*w.entries() {
		n.all, n.hashes = true, nil
		return nil
	}
	return w.compareHashes(ctx, n)
}

func (w *Window) compareNews(ctx context.Context, n *news) error {
	if n.all || len(n.hashes) > perUpload*w.entries() {
		return w.rejudge(ctx, w.ids(0))
	}
	if err := w.compareHashes(ctx, n); err != nil {
		return err
	}
	if !n.open {
		return nil
	}
	w.mu.RLock()
	ids := make([]uint64, 0, len(w.hit))
	for id := range w.hit {
		ids = append(ids, id)
	}
	w.mu.RUnlock()
	slices.Sort(ids)
	return w.rejudge(ctx, ids)
}

// compareHashes looks up every upload that is near one of the new hashes.
func (w *Window) compareHashes(ctx context.Context, n *news) error {
	var ids []uint64
	var found []uint32
	for _, h := range n.hashes {
		w.mu.RLock()
		found = w.index.search(h.hash, h.radius, found[:0])
		for _, u := range unique(found) {
			ids = append(ids, w.index.uploads[u].id)
		}
		w.mu.RUnlock()
	}
	n.hashes = n.hashes[:0]
	slices.Sort(ids)
	return w.rejudge(ctx, slices.Compact(ids))
}

// ids returns the IDs of the newest uploads, the newest first; of all for 0.
func (w *Window) ids(most int) []uint64 {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if most <= 0 || most > w.index.len {
		most = w.index.len
	}
	ids := make([]uint64, 0, most)
	for n := w.index.newest; n != none && len(ids) < most; n = w.index.uploads[n].older {
		ids = append(ids, w.index.uploads[n].id)
	}
	return ids
}

// rejudge reads uploads and judges them, some at a time.
func (w *Window) rejudge(ctx context.Context, ids []uint64) error {
	for chunk := range slices.Chunk(ids, windowBatch) {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := func() error {
			w.changing.Lock()
			defer w.changing.Unlock()
			uploads, err := w.read(ctx, chunk)
			if err != nil {
				return err
			}
			all := make([]*upload, 0, len(uploads))
			for _, id := range chunk {
				if u := uploads[id]; u != nil {
					all = append(all, u)
				}
			}
			return w.judge(ctx, all)
		}()
		if err != nil {
			return err
		}
	}
	return nil
}

// judge looks uploads up as anybody would today, and makes hits of those that come to
// a graver answer than they got, and than was found before. A hit of which nothing is left is
// withdrawn. w.changing is held.
func (w *Window) judge(ctx context.Context, uploads []*upload) error {
	var hits []*Hit
	var changed []*upload
	for _, u := range uploads {
		r := w.lists.Lookup(Query{Probes: u.probes, Reference: u.seen.Sightings[len(u.seen.Sightings)-1].Reference})
		switch {
		case r.Verdict > u.seen.Answered && r.Verdict > u.hit:
			hits = append(hits, w.hitOf(u, &r))
			u.hit = r.Verdict
		case u.hit != 0 && r.Verdict <= u.seen.Answered:
			h, err := w.withdrawal(ctx, u)
			if err != nil {
				return err
			}
			hits = append(hits, h)
			u.hit = 0
		default:
			continue
		}
		changed = append(changed, u)
	}
	if len(hits) == 0 {
		return nil
	}
	rows := make([]HitRow, len(hits))
	for i, h := range hits {
		// Bound to the upload and not to its place, which is not known yet.
		rows[i] = HitRow{Upload: changed[i].id, Sealed: w.sealer.seal(sealedHit, changed[i].id, h.encode(nil))}
	}
	seqs, err := w.store.AppendHits(ctx, rows)
	if err != nil {
		return fmt.Errorf("store hits: %w", err)
	}
	saved := make([]UploadRow, len(changed))
	for i, u := range changed {
		u.hitSeq = seqs[i]
		saved[i] = w.row(u)
	}
	if err := w.store.SaveUploads(ctx, saved, nil); err != nil {
		return fmt.Errorf("store what was hit: %w", err)
	}
	w.mu.Lock()
	for i, u := range changed {
		w.seq = max(w.seq, seqs[i])
		if u.hit == 0 {
			delete(w.hit, u.id)
			w.taken.Add(1)
		} else {
			w.hit[u.id] = struct{}{}
			w.found.Add(1)
		}
	}
	close(w.grown)
	w.grown = make(chan struct{})
	w.mu.Unlock()
	return nil
}

func (w *Window) hitOf(u *upload, r *Result) *Hit {
	h := &Hit{At: wholeSecond(w.config.Now()), Seen: u.seen, Verdict: r.Verdict, Reason: r.Reason}
	if m := r.Decided(); m != nil {
		h.Match, h.Algorithm = *m, m.Probe.Hash.alg
		h.Match.Probe.Hash = Hash{}
	}
	// Made from what it says, so that one that is found again after a crash is known again.
	id := w.sealer.tag("hit", strconv.FormatUint(u.id, 10)+" "+h.Verdict.String()+" "+h.Match.Statement)
	h.ID = hex.EncodeToString(id[:])
	return h
}

// withdrawal is the hit of an upload once more, as withdrawn.
func (w *Window) withdrawal(ctx context.Context, u *upload) (*Hit, error) {
	h := &Hit{}
	for row, err := range w.store.HitsAfter(ctx, max(u.hitSeq, 1)-1) {
		if err != nil {
			return nil, fmt.Errorf("read a hit: %w", err)
		}
		if row.Seq == u.hitSeq {
			if h, err = w.openHit(row); err != nil {
				return nil, err
			}
		}
		break
	}
	if h.ID == "" { // it was so long ago that it is not kept any more
		id := w.sealer.tag("hit", strconv.FormatUint(u.id, 10))
		h.ID, h.Verdict = hex.EncodeToString(id[:]), u.hit
	}
	h.At, h.Seen, h.Withdrawn = wholeSecond(w.config.Now()), u.seen, true
	h.Reason = "what was said against it does not act any more"
	return h, nil
}

func (w *Window) openHit(row HitRow) (*Hit, error) {
	plain, err := w.sealer.open(sealedHit, row.Upload, row.Sealed)
	if err != nil {
		return nil, err
	}
	return decodeHit(row.Seq, plain)
}

// Hits yields the hits behind place seq, and the withdrawals, in their order. Those that
// cannot be read are left out.
func (w *Window) Hits(ctx context.Context, seq uint64) iter.Seq2[Hit, error] {
	return func(yield func(Hit, error) bool) {
		if w == nil {
			return
		}
		for row, err := range w.store.HitsAfter(ctx, seq) {
			if err != nil {
				yield(Hit{}, fmt.Errorf("read hits: %w", err))
				return
			}
			h, err := w.openHit(row)
			if err != nil {
				continue
			}
			if !yield(*h, nil) {
				return
			}
		}
	}
}

// WaitHits returns once there is a hit behind place seq.
func (w *Window) WaitHits(ctx context.Context, seq uint64) error {
	if w == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	for {
		w.mu.RLock()
		now, grown := w.seq, w.grown
		w.mu.RUnlock()
		if now > seq {
			return nil
		}
		select {
		case <-grown:
		case <-w.ctx.Done():
			return ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// LastHit returns the place of the last hit, 0 if there is none.
func (w *Window) LastHit() uint64 {
	if w == nil {
		return 0
	}
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.seq
}

// Hits are kept as long as uploads are, but at least keepHits, and at most maxHits of
// them.
const (
	keepHits = 30 * 24 * time.Hour
	maxHits  = 100_000
)

// trimHits deletes hits that are too old or too many.
func (w *Window) trimHits(ctx context.Context) error {
	until := w.config.Now().Add(-max(w.config.Keep, keepHits))
	drop := uint64(0)
	if last := w.LastHit(); last > maxHits {
		drop = last - maxHits
	}
	for row, err := range w.store.HitsAfter(ctx, drop) {
		if err != nil {
			return err
		}
		h, err := w.openHit(row)
		if err == nil && !h.At.Before(until) {
			break
		}
		if errors.Is(err, errSealed) || err == nil {
			drop = row.Seq
		}
	}
	if drop == 0 {
		return nil
	}
	return w.store.DropHits(ctx, drop, nil)
}

// Recent is an upload of the window with what it was looked up by.
type Recent struct {
	Seen  SeenUpload
	Query Query
}

// Recent yields the uploads of the window, the newest first, at most so many; all for
// 0. Who wants to know what another policy would have answered looks each of them up.
func (w *Window) Recent(ctx context.Context, most int) iter.Seq2[Recent, error] {
	return func(yield func(Recent, error) bool) {
		if w == nil {
			return
		}
		for chunk := range slices.Chunk(w.ids(most), windowBatch) {
			uploads, err := w.read(ctx, chunk)
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				yield(Recent{}, err)
				return
			}
			for _, id := range chunk {
				u := uploads[id]
				if u == nil {
					continue
				}
				q := Query{Probes: u.probes, Reference: u.seen.Sightings[len(u.seen.Sightings)-1].Reference}
				if !yield(Recent{u.seen, q}, nil) {
					return
				}
			}
		}
	}
}
