package server

import (
	"context"
	"errors"
	"io"
	"math"
	"runtime"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// Bounds of what is asked, as the API documents them.
const (
	maxLookupHashes = 256
	maxLookupLists  = 64
	maxLookups      = 1024 // in one message of a LookupStream
	defaultMatches  = 100
	maxMatches      = 1000
)

// answerBytes is what the matches in one answer may take together. Callers
// refuse messages of more than 4 MiB unless they are told otherwise, and a match
// with a long reason takes several KiB.
const answerBytes = 3 << 20

type lookupService struct {
	pb.UnimplementedLookupServiceServer
	s *Server
}

// listIRI makes the address of a list from its name or address.
func (s *Server) listIRI(list string) (string, error) {
	if strings.Contains(list, "/") {
		if _, err := hashlist.Origin(list); err != nil {
			return "", invalid("list", err)
		}
		return list, nil
	}
	if err := hashlist.CheckName(list); err != nil {
		return "", invalid("list", err)
	}
	return s.cfg.Origin + "/lists/" + list, nil
}

// listsAndLimit reads what a lookup says beside its hashes.
func (s *Server) listsAndLimit(lists []string, limit uint32) (iris []string, matches int, err error) {
	if len(lists) > maxLookupLists {
		return nil, 0, refuse(errInvalid, "%d lists are more than %d", len(lists), maxLookupLists)
	}
	if limit > maxMatches {
		return nil, 0, refuse(errInvalid, "limit %d is more than %d", limit, maxMatches)
	}
	for _, name := range lists {
		l, err := s.find(name)
		if err != nil {
			return nil, 0, err
		}
		iris = append(iris, l.ID)
	}
	if limit == 0 {
		limit = defaultMatches
	}
	return iris, int(limit), nil
}

// query reads a lookup of hashes.
func (s *Server) query(r *pb.LookupRequest) (q hashlist.Query, err error) {
	hashes := r.GetHashes()
	switch n := len(hashes); {
	case n == 0:
		return q, refuse(errInvalid, "no hashes to look up")
	case n > maxLookupHashes:
		return q, refuse(errInvalid, "%d hashes are more than %d", n, maxLookupHashes)
	}
	if q.Lists, q.Limit, err = s.listsAndLimit(r.GetLists(), r.GetLimit()); err != nil {
		return q, err
	}
	if q.Reference, err = readReference(r.GetReference()); err != nil {
		return q, err
	}
	if q.Uploader, err = readUploader(r.GetUploader()); err != nil {
		return q, err
	}
	q.Probes = make([]hashlist.Probe, 0, 2*len(hashes))
	for i, text := range hashes {
		h, err := hashlist.ParseHash(text)
		if err != nil {
			return q, refuse(errInvalid, "hash %d: %v", i+1, err)
		}
		q.Probes = append(q.Probes, hashlist.Probe{Hash: h, Index: i})
		if h.Algorithm() == hashlist.PDQ {
			// A copy with inverted colours is at distance 256, out of every radius.
			q.Probes = append(q.Probes, hashlist.Probe{Hash: h.Complement(), Index: i, Transform: "inverted"})
		}
	}
	return q, nil
}

// maxAge bounds the age of an account in seconds: a thousand years.
const maxAge = 1000 * 365 * 24 * 3600

// readUploader reads what a caller knows of who uploads; nil for nothing.
func readUploader(u *pb.Uploader) (*hashlist.Uploader, error) {
	if u == nil {
		return nil, nil
	}
	v := &hashlist.Uploader{Local: u.Local, Domain: u.GetDomain()}
	if u.AgeSeconds != nil {
		if u.GetAgeSeconds() > maxAge {
			return nil, refuse(errInvalid, "uploader: an age of %d seconds is more than a thousand years", u.GetAgeSeconds())
		}
		age := time.Duration(min(u.GetAgeSeconds(), math.MaxInt64/uint64(time.Second))) * time.Second
		v.Age = &age
	}
	if v.Domain != "" {
		if err := hashlist.CheckDomain(v.Domain); err != nil {
			return nil, invalid("uploader", err)
		}
	}
	count := func(n *uint32) *int {
		if n == nil {
			return nil
		}
		i := int(*n)
		return &i
	}
	v.Actions, v.Posts = count(u.Actions), count(u.Posts)
	return v, nil
}

// answer answers a query in v, of which result came. What its matches take is taken from budget.
func (s *Server) answer(ctx context.Context, r *pb.LookupRequest, q *hashlist.Query, result *hashlist.Result, budget *int, v *pb.LookupResponse) {
	s.metrics.verdict(result.Verdict)
	respond(result, budget, v)
	if r.GetAsking() {
		s.asked(ctx, result)
		return
	}
	v.VerdictId = s.audit.verdict(ctx, q, result, askedHashes(q))
	s.held(q, result, v.GetVerdictId())
	s.actOn(v.VerdictId, q, result)
	// Who names nothing, as in a check of old files, would push out what was uploaded.
	if r.GetReference() != nil {
		v.SeenId = s.see(*q, result)
	}
}

func lookupResponse(r *hashlist.Result, budget *int) *pb.LookupResponse {
	v := new(pb.LookupResponse)
	respond(r, budget, v)
	return v
}

// respond fills in v. What the matches take is taken from budget.
func respond(r *hashlist.Result, budget *int, v *pb.LookupResponse) {
	v.Truncated, v.Verdict, v.Reason, v.IndexSeq = r.Truncated, pb.Verdict(r.Verdict), r.Reason, r.Seq
	if len(r.Matches) > 0 {
		v.Matches = make([]*pb.Match, 0, len(r.Matches))
	}
	for i := range r.Matches {
		m := match(&r.Matches[i])
		if *budget -= proto.Size(m) + 8; *budget < 0 {
			v.Truncated = true
			break
		}
		v.Matches = append(v.Matches, m)
	}
}

func match(m *hashlist.Match) *pb.Match {
	return &pb.Match{
		List: m.ListName, ListId: m.List, Labels: m.Labels,
		Algorithm: m.Probe.Hash.Algorithm().String(), Distance: uint32(m.Distance),
		SimilarityPercent: math.Floor(m.Similarity()*10) / 10,
		Issuer:            m.Issuer, StatementId: m.Statement, Action: pb.Action(m.Action),
		Transform: m.Probe.Transform, QueryIndex: uint32(m.Probe.Index),
		Suppressed: m.Suppressed, Reason: m.Reason, Published: timestamppb.New(m.Published),
		AskedShare: uint32(m.AskedShare), ListedShare: uint32(m.ListedShare),
	}
}

// Lookup implements the RPC.
func (l *lookupService) Lookup(ctx context.Context, r *pb.LookupRequest) (*pb.LookupResponse, error) {
	if err := callerOf(ctx).spend(max(1, len(r.GetHashes()))); err != nil {
		return nil, err
	}
	q, err := l.s.query(r)
	if err != nil {
		return nil, err
	}
	v, budget := new(pb.LookupResponse), answerBytes
	result := l.s.cfg.Lists.Lookup(q)
	l.s.answer(ctx, r, &q, &result, &budget, v)
	return v, nil
}

// answered is the outcome of one message of a LookupStream.
type answered struct {
	answer *pb.LookupStreamResponse
	err    error
}

// LookupStream implements the RPC. Messages are worked on as they come, as many
// at once as there are processors, and answered in their order. When that many
// wait for the caller to read, no more are taken.
func (l *lookupService) LookupStream(stream pb.LookupService_LookupStreamServer) error {
	ctx, cancel := context.WithCancel(stream.Context())
	c := callerOf(ctx)
	in := receive(ctx, l.s, stream, 10*l.s.cfg.Limit.Idle, l.s.stopping)
	queue := make(chan chan answered, runtime.GOMAXPROCS(0))
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		defer close(queue)
		for {
			answer := make(chan answered, 1)
			r, err := in.next()
			if err == nil {
				err = c.spend(cost(r))
			}
			if err != nil {
				answer <- answered{err: err}
			}
			select {
			case queue <- answer:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
			l.s.running.Go(func() {
				var a answered
				defer func() { answer <- a }()
				defer l.s.caught(&a.err)
				a.answer, a.err = l.batch(ctx, r)
			})
		}
	}()
	defer func() { cancel(); <-finished }()
	for answer := range queue {
		a := <-answer
		if errors.Is(a.err, io.EOF) {
			return nil
		}
		if a.err != nil {
			return a.err
		}
		if err := stream.Send(a.answer); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// cost is what a message of a LookupStream is charged.
func cost(r *pb.LookupStreamRequest) int {
	n := 0
	for _, q := range r.GetLookups() {
		n += max(1, len(q.GetHashes()))
	}
	return max(1, n)
}

func (l *lookupService) batch(ctx context.Context, r *pb.LookupStreamRequest) (*pb.LookupStreamResponse, error) {
	if n := len(r.GetLookups()); n > maxLookups {
		return nil, refuse(errInvalid, "%d lookups in one message are more than %d", n, maxLookups)
	}
	queries := make([]hashlist.Query, len(r.GetLookups()))
	for i, asked := range r.GetLookups() {
		var err error
		if queries[i], err = l.s.query(asked); err != nil {
			return nil, refuse(errors.Unwrap(err), "lookup %d of the message with tag %d: %v", i+1, r.GetTag(), err)
		}
	}
	v := &pb.LookupStreamResponse{Tag: r.GetTag(), Lookups: make([]*pb.LookupResponse, len(queries))}
	answers := make([]pb.LookupResponse, len(queries)) // at once: they come and go together
	budget := answerBytes
	l.s.cfg.Lists.LookupAll(queries, func(i int, result *hashlist.Result) {
		v.Lookups[i] = &answers[i]
		l.s.answer(ctx, r.GetLookups()[i], &queries[i], result, &budget, v.Lookups[i])
	})
	return v, nil
}
