package server

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

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
	changesInAll   = 10_000 // changes described
	// sniffed is how much of a file is looked at to tell its format.
	sniffed = 4 << 10
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
	to     hashlist.List      // the list
	format exchange.Format
	strict bool
	dry    bool            // nothing is listed
	draft  bool            // so is what is drafted; then dry is set too
	absent bool            // what is not in the file is retracted
	sure   bool            // a person approved of what would be held
	reach  *hashlist.Reach // what of the recent window the new hashes match; guarded by mu

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
	subjects []exchange.Row             // servers and accounts, to be compared when all are there
	gone     map[hashlist.Hash]struct{} // taken back by the file; nil for none
	fresh    uint64                     // not on the list yet
	changed  uint64
	taken    uint64 // retracted
	held     string
	heldNear string             // the same of hashes
	changes  []*pb.ImportChange // not yet sent
	told     int                // changes described
	sent     time.Time
	sentRows uint64

	room chan struct{}  // one for each batch at work
	work sync.WaitGroup // the batches at work

	mu      sync.Mutex // guards what follows
	listed  uint64
	skipped uint64
	found   uint64         // hashes that are not on the list yet
	drafts  [][]byte       // not yet sent
	near    []exchange.Row // match something recent: listed when all of the file was compared
	waits   int            // how many did, those too that were not kept
}

// maxNear is how many rows that match something recent wait for the end of the file.
const maxNear = 100_000

// Import implements the RPC. Rows of hashes are gathered into batches; each is compared
// with the list and what is new is signed, one statement for each set of
// terms, and applied, all or nothing. Rows of servers and accounts, and what the file takes
// back, wait for the end of the file. What has been begun when the caller
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
	im, err := s.newImporter(stream, first.GetOptions())
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
	whole := bufio.NewReaderSize(file, sniffed)
	options, err := im.choose(whole, first.GetOptions())
	if err != nil {
		return err
	}
	err = im.read(im.format.Read(whole, options))
	im.work.Wait()
	if context.Cause(im.ctx) == nil {
		switch near := im.settleNear(); {
		case err != nil: // the rows before the one that ended it stay
		case near != nil:
			err = near
		default:
			err = im.settle() // only of a whole file
		}
	}
	if failed := context.Cause(im.ctx); failed != nil {
		return failed
	}
	// What was listed is told also when the import ends in an error.
	if sendErr := im.report(err == nil); err == nil {
		err = sendErr
	}
	return err
}

func (s *Server) newImporter(stream pb.ListService_ImportServer, o *pb.ImportOptions) (*importer, error) {
	if o == nil {
		return nil, refuse(errInvalid, "the first message has no options")
	}
	list, err := s.find(o.GetList())
	if err != nil {
		return nil, err
	}
	if err := s.own(list.ID); err != nil {
		return nil, err
	}
	if err := s.byHand(&list); err != nil {
		return nil, err
	}
	if !o.GetDryRun() && !o.GetDraft() {
		if err := s.barTwo(decisionOf(&hashlist.Statement{}, list.Action), "an import",
			"import with --draft, let a second person look, then sign and publish it"); err != nil {
			return nil, err
		}
	}
	im := &importer{
		s: s, stream: stream, strict: o.GetStrict(), dry: o.GetDryRun() || o.GetDraft(), draft: o.GetDraft() && !o.GetDryRun(),
		to: list, absent: o.GetRetractAbsent(), sure: o.GetApprove(), reach: s.cfg.Window.Reach(),
		inBatch: map[hashlist.Hash]struct{}{}, sent: time.Now(), room: make(chan struct{}, importParallel),
		model: hashlist.Statement{Kind: hashlist.AddHashes, List: list.ID, Reason: o.GetReason()},
	}
	if im.model.Labels, err = labels(o.GetLabels()); err != nil {
		return nil, err
	}
	if im.model.Expires, err = expiry(o.GetExpires()); err != nil {
		return nil, err
	}
	// Everything but the hashes can be checked before the first row.
	probe := im.model
	probe.Hashes = []hashlist.Hash{anyHash}
	if err := s.validate(probe); err != nil {
		return nil, err
	}
	if o.GetFormat() != autoFormat {
		if im.format, err = exchange.Lookup(o.GetFormat()); err != nil {
			return nil, refuse(errInvalid, "%v", err)
		}
	}
	if im.dry {
		im.seen, im.seed = map[uint64]struct{}{}, maphash.MakeSeed()
	}
	im.ctx, im.cancel = context.WithCancelCause(stream.Context())
	return im, nil
}

// autoFormat is the name under which the format is told from the file.
const autoFormat = "auto"

// choose finds the format, checks that what comes in it may go to the list, and says how it is read.
func (im *importer) choose(file *bufio.Reader, o *pb.ImportOptions) (exchange.Options, error) {
	options := exchange.Options{MinQuality: cmp.Or(im.s.cfg.Policy.MinQuality, -1), Columns: o.GetColumns(), Known: im.known()} // 0 would be the default
	if o.GetFormat() == autoFormat {
		head, err := file.Peek(sniffed)
		if err != nil && err != io.EOF {
			return options, err
		}
		if im.format, err = exchange.Detect(head); err != nil {
			how := ""
			if len(head) > 0 {
				how = " (`tocsin import --help` says what each is; then give --format NAME)"
			}
			return options, refuse(errInvalid, "%v%s", err, how)
		}
	}
	var err error
	if o.GetAlgorithm() != "" {
		if options.Algorithm, err = hashlist.ParseAlgorithm(o.GetAlgorithm()); err != nil {
			return options, refuse(errInvalid, "%v", err)
		}
	}
	if options.Action, err = action(o.GetAction()); err != nil {
		return options, err
	}
	switch {
	case im.format.Partner && !im.to.Partner:
		return options, refuse(errState, "what comes as %s was given to you alone, and list %s is not marked as one of partner data: create one with `tocsin list create NAME --partner`",
			im.format.Name, im.to.Name)
	case im.absent && im.format.Form != exchange.Snapshot:
		return options, refuse(errInvalid, "a file of format %s need not be all there is: nothing may be retracted because it is absent from one", im.format.Name)
	}
	return options, nil
}

// known finds domains by their digests among those that any list here has.
func (im *importer) known() func([sha256.Size]byte) (string, bool) {
	var domains map[[sha256.Size]byte]string
	return func(digest [sha256.Size]byte) (string, bool) {
		if domains == nil {
			domains = map[[sha256.Size]byte]string{}
			for _, d := range im.s.cfg.Lists.Known(hashlist.AddInstances) {
				domains[sha256.Sum256([]byte(d))] = d
			}
		}
		d, ok := domains[digest]
		return d, ok
	}
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

// add puts a row into the batch, or aside.
func (im *importer) add(row exchange.Row) error {
	switch {
	case row.Subject != "":
		return im.addSubject(row)
	case row.Withdrawn && row.Hash == hashlist.Hash{}:
		return exchange.BadRow{Line: row.Line, Reason: "it takes back an entry by its number alone: only a source that is subscribed to remembers which hashes that had"}
	case row.Withdrawn:
		return im.takeBack(row)
	}
	delete(im.gone, row.Hash) // of two rows the last counts
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
	if err := im.complete(&row); err != nil {
		return err
	}
	im.inBatch[row.Hash] = struct{}{}
	if im.batch = append(im.batch, row); len(im.batch) == importBatch {
		return im.flush()
	}
	return nil
}

// complete adds to a row what the import says of all.
func (im *importer) complete(row *exchange.Row) error {
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
	row.Reason = cmp.Or(row.Reason, im.model.Reason)
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
	batch, err := im.withoutPartners(batch)
	if err != nil {
		return err
	}
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
			err = im.list(batch, false)
		}()
		if err != nil {
			im.cancel(err)
		}
	})
	return nil
}

// list lists what is new in a batch. What matches something recent is put aside, unless it was.
func (im *importer) list(batch []exchange.Row, compared bool) error {
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
	skipped := uint64(len(hashes) - len(fresh))
	if !compared {
		fresh = im.foresee(fresh)
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
	im.skipped += skipped
	im.found += uint64(len(fresh))
	im.drafts = append(im.drafts, drafts...)
	if !im.dry || im.draft {
		im.listed += uint64(len(fresh))
	}
	return nil
}

// foresee compares new rows with the recent window, and returns those that may be listed at once: what matches
// something recent waits for the end of the file, so that all of it is known before any of it acts.
func (im *importer) foresee(fresh []exchange.Row) []exchange.Row {
	reach := im.s.cfg.Window.Reach()
	at := fresh[:0]
	var near []exchange.Row
	for _, row := range fresh {
		switch {
		case cmp.Or(row.Action, im.to.Action) == hashlist.Accept || !reach.Add(row.Hash, im.to.Radii) || im.dry || im.sure:
			at = append(at, row)
		default:
			near = append(near, row)
		}
	}
	im.mu.Lock()
	defer im.mu.Unlock()
	im.reach.Merge(reach)
	im.waits += len(near)
	im.near = append(im.near, near[:min(len(near), maxNear-len(im.near))]...)
	return at
}

// settleNear lists what waited for the end of the file, unless it matches more than is expected: then a person
// is asked. Only what was listed at once has begun to act.
func (im *importer) settleNear() error {
	matched, of, suspicious := im.reach.Sum()
	if !im.sure && !im.draft && (suspicious || im.waits > maxNear) {
		im.heldNear = fmt.Sprintf("hashes of it match %d of the last %d uploads that were let through, more than is expected", matched, of)
		im.near = nil
		return nil
	}
	met := map[hashlist.Hash]struct{}{}
	near := slices.DeleteFunc(im.near, func(row exchange.Row) bool {
		_, known := met[row.Hash]
		met[row.Hash] = struct{}{}
		return known
	})
	im.repeated += uint64(im.waits - len(near))
	for batch := range slices.Chunk(near, importBatch) {
		if err := im.list(batch, true); err != nil {
			return err
		}
	}
	return nil
}

// withoutPartners refuses the hashes that a partner's list has, unless they go to such a list: an
// import would else be the way out for what was copied from one. A moderator who has seen the
// picture can ban it all the same: that is their own knowledge.
func (im *importer) withoutPartners(batch []exchange.Row) ([]exchange.Row, error) {
	if im.to.Partner {
		return batch, nil
	}
	hashes := make([]hashlist.Hash, len(batch))
	for i := range batch {
		hashes[i] = batch[i].Hash
	}
	theirs := im.s.cfg.Lists.OfPartners(hashes)
	if theirs == nil {
		return batch, nil
	}
	free := batch[:0]
	for i, row := range batch {
		if !theirs[i] {
			free = append(free, row)
		} else if err := im.refuse(exchange.BadRow{Line: row.Line, Reason: "a list of partner data has this hash, and what a partner gave stays there"}); err != nil {
			return nil, err
		}
	}
	return free, nil
}

// statements puts rows into statements, those with the same terms and algorithm
// together, in their order. Rows are of different pictures, and two algorithms in one
// statement would be taken for two opinions of one picture.
func (im *importer) statements(rows []exchange.Row) []hashlist.Statement {
	order := func(a, b exchange.Row) int {
		return cmp.Or(slices.Compare(a.Labels, b.Labels), cmp.Compare(a.Hash.Algorithm(), b.Hash.Algorithm()),
			cmp.Compare(a.Action, b.Action), strings.Compare(a.Reason, b.Reason))
	}
	slices.SortStableFunc(rows, order)
	var all []hashlist.Statement
	for i, row := range rows {
		if i == 0 || order(row, rows[i-1]) != 0 || len(all[len(all)-1].Hashes) == hashlist.MaxHashes {
			v := im.model
			v.Labels, v.Action, v.Reason = row.Labels, row.Action, row.Reason
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
		Format: im.format.Name, Changed: im.changed, Retracted: im.taken, Held: strings.Trim(im.heldNear+"; "+im.held, "; "),
		Fresh: im.fresh + im.found,
	}
	if done {
		matched, of, _ := im.reach.Sum()
		m.RecentMatched, m.RecentUploads = uint64(matched), uint64(of)
	}
	changes := im.changes
	im.changes = nil
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
	for size := 0; len(changes) > 0; changes = changes[1:] {
		if size += proto.Size(changes[0]) + 8; size > answerBytes/2 && len(m.Changes) > 0 {
			size = 0
			if err := im.stream.Send(&pb.ImportResponse{
				Rows: m.Rows, Listed: m.Listed, Skipped: m.Skipped, Refused: m.Refused, Bytes: m.Bytes, Changes: m.Changes,
			}); err != nil {
				return err
			}
			m.Changes = nil
		}
		m.Changes = append(m.Changes, changes[0])
	}
	return im.stream.Send(m)
}
