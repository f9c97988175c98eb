package server

import (
	"cmp"
	"context"
	"errors"
	"hash/maphash"
	"io"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/tocsin-fed/tocsin/exchange"
	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

const (
	importBatch    = 8 * hashlist.MaxHashes // hashes that are listed together
	importParallel = 2                      // batches at work: one is signed while another is written
	progressEvery  = 100 * time.Millisecond
	progressRows   = 10_000
	refusedAtOnce  = 100    // refused rows in one message
	refusedInAll   = 10_000 // refused rows described; all are counted
	// dryMemory is how many hashes a dry run remembers to find repetitions. It
	// takes about 40 bytes for each. Beyond, it counts as new what may not be.
	dryMemory = 4_000_000
)

// importer is one import.
type importer struct {
	s      *Server
	stream pb.ListService_ImportServer
	ctx    context.Context
	cancel context.CancelCauseFunc
	model  hashlist.Statement // what all its statements share
	strict bool
	dry    bool // nothing is listed
	draft  bool // so is what is drafted; then dry is set too

	// The handler's own.
	batch    []exchange.Row
	inBatch  map[hashlist.Hash]struct{}
	seen     map[uint64]struct{} // dry runs only; keyed by a seeded hash of the hash
	seed     maphash.Seed
	rows     uint64
	refused  uint64
	bad      []*pb.RefusedRow // not yet sent
	repeated uint64           // found in the batch
	bytes    uint64
	sent     time.Time
	sentRows uint64

	room chan struct{}  // one for each batch at work
	work sync.WaitGroup // the batches at work

	mu      sync.Mutex // guards what follows
	listed  uint64
	skipped uint64
	drafts  [][]byte // not yet sent
}

// Import implements the RPC. Rows are gathered into batches; each is compared
// with the list and what is new is signed, one statement for each set of
// labels, and applied, all or nothing. What has been begun when the caller
// leaves is finished, so the list holds whole statements only, and the same
// import run again passes over what it finds there.
func (l *listService) Import(stream pb.ListService_ImportServer) error {
	s := l.s
	in := receive(stream.Context(), s, stream, s.cfg.Limit.Idle, s.stopping)
	first, err := in.next()
	if errors.Is(err, io.EOF) {
		return refuse(errInvalid, "no import was described")
	} else if err != nil {
		return err
	}
	im, format, options, err := s.newImporter(stream, first.GetOptions())
	if err != nil {
		return err
	}
	defer im.cancel(nil)
	pending := first
	file := &pieces{next: func() (chunk []byte, err error) {
		m := pending
		if pending = nil; m == nil {
			if err := context.Cause(im.ctx); err != nil {
				return nil, err // a batch failed
			}
			if m, err = in.next(); err != nil {
				return nil, err
			}
			if m.GetOptions() != nil {
				return nil, refuse(errInvalid, "options belong in the first message")
			}
		}
		im.bytes += uint64(len(m.GetChunk()))
		return m.GetChunk(), checkChunk(m.GetChunk())
	}}
	err = im.read(format.Read(file, options))
	im.work.Wait()
	if failed := context.Cause(im.ctx); failed != nil {
		return failed
	}
	// What was listed is told also when the import ends in an error.
	if sendErr := im.report(err == nil); err == nil {
		err = sendErr
	}
	return err
}

func (s *Server) newImporter(stream pb.ListService_ImportServer, o *pb.ImportOptions) (*importer, exchange.Format, exchange.Options, error) {
	var format exchange.Format
	var options exchange.Options
	fail := func(err error) (*importer, exchange.Format, exchange.Options, error) {
		return nil, format, options, err
	}
	if o == nil {
		return fail(refuse(errInvalid, "the first message has no options"))
	}
	list, err := s.find(o.GetList())
	if err != nil {
		return fail(err)
	}
	if err := s.own(list.ID); err != nil {
		return fail(err)
	}
	if err := s.byHand(&list); err != nil {
		return fail(err)
	}
	if format, err = exchange.Lookup(o.GetFormat()); err != nil {
		return fail(refuse(errInvalid, "%v", err))
	}
	if o.GetAlgorithm() != "" {
		if options.Algorithm, err = hashlist.ParseAlgorithm(o.GetAlgorithm()); err != nil {
			return fail(refuse(errInvalid, "%v", err))
		}
	}
	options.MinQuality = cmp.Or(s.cfg.Policy.MinQuality, -1) // 0 would be the default
	im := &importer{
		s: s, stream: stream, strict: o.GetStrict(), dry: o.GetDryRun() || o.GetDraft(), draft: o.GetDraft() && !o.GetDryRun(),
		inBatch: map[hashlist.Hash]struct{}{}, sent: time.Now(), room: make(chan struct{}, importParallel),
		model: hashlist.Statement{Kind: hashlist.AddHashes, List: list.ID, Reason: o.GetReason()},
	}
	if im.model.Labels, err = labels(o.GetLabels()); err != nil {
		return fail(err)
	}
	if im.model.Expires, err = expiry(o.GetExpires()); err != nil {
		return fail(err)
	}
	// Everything but the hashes can be checked before the first row.
	probe := im.model
	probe.Hashes = []hashlist.Hash{anyHash}
	if err := s.validate(probe); err != nil {
		return fail(err)
	}
	if im.dry {
		im.seen, im.seed = map[uint64]struct{}{}, maphash.MakeSeed()
	}
	im.ctx, im.cancel = context.WithCancelCause(stream.Context())
	return im, format, options, nil
}

// anyHash stands for the hashes to come when the rest of a statement is checked.
var anyHash, _ = hashlist.NewHash(hashlist.SHA256, make([]byte, 32))

// read works through the rows. It returns without waiting for the last batches.
func (im *importer) read(rows func(yield func(exchange.Row, error) bool)) error {
	var failed error
	for row, err := range rows {
		if err == nil {
			im.rows++
			err = im.add(row)
		} else if _, ok := errors.AsType[exchange.BadRow](err); ok {
			im.rows++
		}
		if bad, ok := errors.AsType[exchange.BadRow](err); ok {
			err = im.refuse(bad)
		} else if err != nil && statusOf(err).Code() == codes.Internal {
			// The file is not in the format at all.
			err = refuse(errInvalid, "%v", err)
		}
		if err == nil {
			err = im.progress()
		}
		if err != nil {
			failed = err
			break
		}
	}
	// The rows before the one that ended it stay.
	if err := im.flush(); failed == nil {
		failed = err
	}
	return failed
}

// add puts a row into the batch.
func (im *importer) add(row exchange.Row) error {
	if _, ok := im.inBatch[row.Hash]; ok {
		im.repeated++
		return nil
	}
	if im.dry {
		k := maphash.Comparable(im.seed, row.Hash)
		if _, ok := im.seen[k]; ok {
			im.repeated++
			return nil
		}
		if len(im.seen) < dryMemory {
			im.seen[k] = struct{}{}
		}
	}
	if len(im.model.Labels) > 0 && len(row.Labels) > 0 {
		row.Labels = slices.Concat(im.model.Labels, row.Labels)
		slices.Sort(row.Labels)
		row.Labels = slices.Compact(row.Labels)
		if err := hashlist.CheckLabels(row.Labels); err != nil {
			return exchange.BadRow{Line: row.Line, Reason: err.Error()}
		}
	} else if len(row.Labels) == 0 {
		row.Labels = im.model.Labels
	}
	im.inBatch[row.Hash] = struct{}{}
	if im.batch = append(im.batch, row); len(im.batch) == importBatch {
		return im.flush()
	}
	return nil
}

// refuse notes a bad row.
func (im *importer) refuse(bad exchange.BadRow) error {
	if im.refused++; im.refused <= refusedInAll {
		im.bad = append(im.bad, &pb.RefusedRow{Line: uint64(bad.Line), Reason: bad.Reason})
	}
	if im.strict {
		return refuse(errInvalid, "%v", bad)
	}
	if len(im.bad) == refusedAtOnce {
		return im.report(false)
	}
	return nil
}

// flush hands the batch on to be listed, and waits if too many are at work.
func (im *importer) flush() error {
	batch := im.batch
	if len(batch) == 0 {
		return nil
	}
	im.batch = nil
	clear(im.inBatch)
	select {
	case im.room <- struct{}{}:
	case <-im.ctx.Done():
		return context.Cause(im.ctx)
	}
	im.work.Go(func() {
		defer func() { <-im.room }()
		var err error
		func() {
			defer im.s.caught(&err)
			err = im.list(batch)
		}()
		if err != nil {
			im.cancel(err)
		}
	})
	return nil
}

// list lists what is new in a batch.
func (im *importer) list(batch []exchange.Row) error {
	hashes := make([]hashlist.Hash, len(batch))
	for i := range batch {
		hashes[i] = batch[i].Hash
	}
	release, err := im.s.claims.take(im.ctx, im.model.List, hashes)
	if err != nil {
		return err
	}
	defer release()
	listed := im.s.cfg.Lists.Listed(im.model.List, im.s.cfg.Issuer.Actor(), hashes)
	fresh := batch[:0]
	for i, row := range batch {
		if !listed[i] {
			fresh = append(fresh, row)
		}
	}
	if len(fresh) > 0 && !im.dry {
		// Finished even if the caller leaves: what is claimed is freed when it is settled.
		if _, err := im.s.seal(context.WithoutCancel(im.ctx), im.statements(fresh)...); err != nil {
			return err
		}
	}
	var drafts [][]byte
	if len(fresh) > 0 && im.draft {
		for _, v := range im.statements(fresh) {
			draft, err := im.s.draft(v)
			if err != nil {
				return err
			}
			drafts = append(drafts, draft)
		}
	}
	im.mu.Lock()
	defer im.mu.Unlock()
	im.skipped += uint64(len(hashes) - len(fresh))
	im.drafts = append(im.drafts, drafts...)
	if !im.dry || im.draft {
		im.listed += uint64(len(fresh))
	}
	return nil
}

// statements puts rows into statements, those with the same labels and algorithm
// together, in their order. Rows are of different pictures, and two algorithms in one
// statement would be taken for two opinions of one picture.
func (im *importer) statements(rows []exchange.Row) []hashlist.Statement {
	order := func(a, b exchange.Row) int {
		return cmp.Or(slices.Compare(a.Labels, b.Labels), cmp.Compare(a.Hash.Algorithm(), b.Hash.Algorithm()))
	}
	slices.SortStableFunc(rows, order)
	var all []hashlist.Statement
	for i, row := range rows {
		if i == 0 || order(row, rows[i-1]) != 0 || len(all[len(all)-1].Hashes) == hashlist.MaxHashes {
			v := im.model
			v.Labels = row.Labels
			all = append(all, v)
		}
		last := &all[len(all)-1]
		last.Hashes = append(last.Hashes, row.Hash)
	}
	return all
}

// progress reports now and then.
func (im *importer) progress() error {
	im.mu.Lock()
	drafted := len(im.drafts) > 0 // so that they are not held longer than need be
	im.mu.Unlock()
	if !drafted && im.rows-im.sentRows < progressRows && (im.rows%64 != 0 || time.Since(im.sent) < progressEvery) {
		return nil
	}
	return im.report(false)
}

func (im *importer) report(done bool) error {
	im.mu.Lock()
	m := &pb.ImportResponse{
		Rows: im.rows, Listed: im.listed, Skipped: im.skipped + im.repeated, Refused: im.refused,
		RefusedRows: im.bad, Done: done, Bytes: im.bytes,
	}
	drafts := im.drafts
	im.drafts = nil
	im.mu.Unlock()
	im.bad, im.sent, im.sentRows = nil, time.Now(), im.rows
	// A message holds what callers take at once.
	for size := 0; len(drafts) > 0; drafts = drafts[1:] {
		if size += len(drafts[0]); size > answerBytes && len(m.Drafts) > 0 {
			size = len(drafts[0])
			if err := im.stream.Send(&pb.ImportResponse{
				Rows: m.Rows, Listed: m.Listed, Skipped: m.Skipped, Refused: m.Refused, Bytes: m.Bytes, Drafts: m.Drafts,
			}); err != nil {
				return err
			}
			m.Drafts = nil
		}
		m.Drafts = append(m.Drafts, drafts[0])
	}
	return im.stream.Send(m)
}
