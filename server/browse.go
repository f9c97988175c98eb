package server

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-fed/tocsin/exchange"
	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

const (
	defaultPage = 100
	maxPage     = 1000
	// exportChunk is what one message of an export holds at most.
	exportChunk = 64 << 10
)

// A page token is the place in the log behind which the page begins. It is
// opaque so that callers do not come to rely on that.
func pageToken(seq uint64) string {
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, seq))
}

func parsePageToken(token string) (uint64, error) {
	if token == "" {
		return 0, nil
	}
	// The decoder passes over line breaks: a token has one spelling.
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(b) != 8 || len(token) != base64.RawURLEncoding.EncodedLen(8) {
		return 0, refuse(errInvalid, "page token is not one that was given out")
	}
	return binary.BigEndian.Uint64(b), nil
}

// ListEntries implements the RPC. A page ends early when it gets too large for
// a message. There is a token for the next page only if something is on it.
func (l *listService) ListEntries(ctx context.Context, r *pb.ListEntriesRequest) (*pb.ListEntriesResponse, error) {
	s := l.s
	list, err := s.find(r.GetList())
	if err != nil {
		return nil, err
	}
	after, err := parsePageToken(r.GetPageToken())
	if err != nil {
		return nil, err
	}
	size := int(r.GetPageSize())
	switch {
	case size > maxPage:
		return nil, refuse(errInvalid, "page size %d is more than %d", size, maxPage)
	case size == 0:
		size = defaultPage
	}
	v := &pb.ListEntriesResponse{}
	budget := answerBytes
	for record, err := range s.cfg.Lists.After(ctx, after, hashlist.Selection{List: list.ID}) {
		if err != nil {
			return nil, err
		}
		e := s.entry(&record)
		if e == nil {
			continue
		}
		if budget -= proto.Size(e) + 8; len(v.Entries) == size || budget < 0 && len(v.Entries) > 0 {
			v.NextPageToken = pageToken(v.Entries[len(v.Entries)-1].Seq)
			break
		}
		v.Entries = append(v.Entries, e)
	}
	return v, nil
}

// entry describes a statement that adds hashes or subjects, nil if none of them is in force.
func (s *Server) entry(r *hashlist.Record) *pb.Entry {
	hashes, subjects := s.cfg.Lists.InForce(&r.Statement), s.cfg.Lists.SubjectsInForce(&r.Statement)
	switch r.Statement.Kind {
	case hashlist.AddHashes, hashlist.AddAccounts, hashlist.AddInstances, hashlist.AddContent:
	default: // a retraction has hashes, too
		return nil
	}
	if len(hashes)+len(subjects) == 0 {
		return nil
	}
	v := &pb.Entry{
		Seq: r.Seq, StatementId: r.Statement.ID, Issuer: r.Statement.Issuer, Hashes: make([]string, len(hashes)), Subjects: subjects,
		Labels: r.Statement.Labels, Action: pb.Action(r.Statement.Action), Reason: r.Statement.Reason,
		Published: timestamppb.New(r.Statement.Published), Kind: r.Statement.Kind.String(),
	}
	for i, h := range hashes {
		v.Hashes[i] = h.String()
	}
	if !r.Statement.Expires.IsZero() {
		v.Expires = timestamppb.New(r.Statement.Expires)
	}
	return v
}

// Export implements the RPC. A hash that two statements list is written twice; of a server or account
// the gravest that is said. Of hashes, what an entry recommends to accept is left out, unless the whole list does: the formats
// have no word for it, and would have others refuse what is known to be harmless.
func (l *listService) Export(r *pb.ExportRequest, stream pb.ListService_ExportServer) error {
	s := l.s
	if r.GetMerged() {
		return s.exportBlocks(r, stream)
	}
	list, err := s.find(r.GetList())
	if err != nil {
		return err
	}
	if err := s.mayLeave(&list); err != nil {
		return err
	}
	format, err := exchange.Lookup(r.GetFormat())
	if err != nil {
		return refuse(errInvalid, "%v", err)
	}
	lossless := format.Name == "csv"
	if list.Action == hashlist.Accept && (format.Name == "pytx" || format.Partner) {
		return refuse(errState, "list %s is of what is known to be harmless, and %s would have others refuse it: export it as plain", list.Name, format.Name)
	}
	out := &exportWriter{stream: stream}
	w := format.Write(out, exchange.Head{Name: list.Name, Address: list.ID, At: list.Updated})
	write := func(row exchange.Row) error {
		switch err := w.Write(row); {
		case errors.Is(err, exchange.ErrCannotCarry):
			out.progress.LeftOut++
		case err != nil:
			return err
		case row.Subject != "":
			out.progress.Subjects++
		default:
			out.progress.Hashes++
		}
		return nil
	}
	subjects := map[string]exchange.Row{}
	for record, err := range s.cfg.Lists.After(stream.Context(), 0, hashlist.Selection{List: list.ID}) {
		if err != nil {
			return err
		}
		v := &record.Statement
		row := exchange.Row{Quality: -1, Labels: slices.Concat(list.Labels, v.Labels), Action: cmp.Or(v.Action, list.Action), Reason: v.Reason}
		slices.Sort(row.Labels)
		row.Labels = slices.Compact(row.Labels)
		row.Labels = row.Labels[:min(len(row.Labels), hashlist.MaxLabels)]
		switch v.Kind {
		case hashlist.AddHashes:
			for _, h := range s.cfg.Lists.InForce(v) {
				if row.Action == hashlist.Accept && list.Action != hashlist.Accept && !lossless {
					out.progress.LeftOut++
					continue
				}
				row.Hash = h
				if err := write(row); err != nil {
					return err
				}
			}
		case hashlist.AddAccounts, hashlist.AddInstances:
			for _, subject := range s.cfg.Lists.SubjectsInForce(v) {
				if has, ok := subjects[subject]; !ok || has.Action < row.Action {
					row.Subject = subject
					subjects[subject] = row
				}
			}
		case hashlist.AddContent:
			out.progress.LeftOut += uint64(len(s.cfg.Lists.SubjectsInForce(v)))
		}
	}
	for _, subject := range slices.Sorted(maps.Keys(subjects)) {
		if err := write(subjects[subject]); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return stream.Send(&out.progress) // the counts, also of a list with nothing to write
}

// exportWriter sends what is written to it.
type exportWriter struct {
	stream   pb.ListService_ExportServer
	progress pb.ExportResponse // without bytes
}

// Write implements io.Writer.
func (w *exportWriter) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		chunk := b[:min(len(b), exportChunk)]
		b = b[len(chunk):]
		m := &pb.ExportResponse{Chunk: chunk, Hashes: w.progress.Hashes, LeftOut: w.progress.LeftOut, Subjects: w.progress.Subjects}
		if err := w.stream.Send(m); err != nil {
			return n, err
		}
		n += len(chunk)
	}
	return n, nil
}

// Watch implements the RPC. It ends when the node stops. What is on lists that may not leave this node is passed over.
func (l *listService) Watch(r *pb.WatchRequest, stream pb.ListService_WatchServer) error {
	s := l.s
	only := hashlist.Selection{Signed: true}
	if r.GetList() != "" {
		list, err := s.find(r.GetList())
		if err != nil {
			return err
		}
		if err := s.mayLeave(&list); err != nil {
			return err
		}
		only.List = list.ID
	}
	ctx, cancel := s.untilStopping(stream.Context())
	defer cancel()
	for cursor := r.GetAfter(); ; {
		if err := s.cfg.Lists.Wait(ctx, cursor); err != nil {
			return causeOf(ctx, err)
		}
		// What is behind the cursor up to here is read below, or is of another list.
		head := s.cfg.Lists.Seq()
		for record, err := range s.cfg.Lists.After(ctx, cursor, only) {
			if err != nil {
				return causeOf(ctx, err)
			}
			cursor = record.Seq
			if list := record.Statement.List; s.mayLeave(&hashlist.List{ID: list, Partner: s.cfg.Lists.Partner(list)}) != nil {
				continue // also when the list was removed
			}
			if err := stream.Send(&pb.WatchResponse{
				Seq: record.Seq, Received: timestamppb.New(record.Received), Kind: record.Statement.Kind.String(),
				Signed: record.Signed, StatementId: record.Statement.ID,
			}); err != nil {
				return err
			}
		}
		cursor = max(cursor, head)
	}
}

// causeOf returns why ctx ended if it did, and err if not.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}
