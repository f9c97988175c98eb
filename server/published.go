package server

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"github.com/tocsin-fed/tocsin/exchange"
	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// Bounds of the lists that other software reads.
const (
	maxPublishedBytes = 32 << 20         // of one file: Mastodon's 20,000 rows take two
	keptPublished     = 64               // files that are remembered
	keptBytes         = 1 << 20          // of each of them at most; of larger ones
	keptLarge         = 64 << 20         // is kept what fits in this together
	publishedStale    = 10 * time.Second // for which one is served although the log has grown
	publishedAge      = time.Minute      // and although it has not: statements lapse
	readersEvery      = 100 * time.Millisecond
	readersBurst      = 100
)

// published are the forms in which a list can be read, by the end of its address.
var published = map[string]struct{ format, media string }{
	".csv":             {"mastodon", "text/csv; charset=utf-8"},
	".json":            {"gotosocial-json", "application/json"},
	".txt":             {"domains", "text/plain; charset=utf-8"}, // of hashes: plain
	".peertube.json":   {"peertube", "application/json"},
	".rapidblock.json": {"rapidblock", "application/json"},
	".fires":           {"", "application/ld+json"}, // these are not of package exchange, see fires.go
	".fires/snapshot":  {"", "application/ld+json"},
	".fires/changes":   {"", "application/ld+json"},
}

// publisher serves lists in the forms of other software.
type publisher struct {
	s       *Server
	next    http.Handler
	readers *lru.Cache[string, *rate.Limiter] // by network
	files   *lru.Cache[string, *file]         // by address
	work    chan struct{}                     // has room for who makes one: they are made one after the other
	mu      sync.Mutex
	large   map[string]*file // the newest copies of files of more than keptBytes, by address, under mu
}

// file is a list as it is served.
type file struct {
	body  []byte
	etag  string
	seq   uint64 // of the log that it was made from
	made  time.Time
	since time.Time // when it became what it is
}

// publish serves the lists of this node to readers of other software, and leaves everything
// else to next. Whatever is not for the caller is left to next as well, which knows nothing of
// it: so it is answered, byte for byte, like what is not there.
func (s *Server) publish(next http.Handler) (http.Handler, error) {
	readers, err := lru.New[string, *rate.Limiter](strikeMemory)
	if err != nil {
		return nil, err
	}
	files, err := lru.New[string, *file](keptPublished)
	if err != nil {
		return nil, err
	}
	return &publisher{s: s, next: next, readers: readers, files: files, work: make(chan struct{}, 1), large: map[string]*file{}}, nil
}

// kept is a file that was made before. All who read it share it: whoever reads slowly holds no copy.
func (p *publisher) kept(address string) (*file, bool) {
	if f, ok := p.files.Get(address); ok {
		return f, true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	f, ok := p.large[address]
	return f, ok
}

// keep keeps a file in place of what was at its address; of the large ones the oldest go where there are too many bytes.
func (p *publisher) keep(address string, f *file) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.large, address)
	if len(f.body) <= keptBytes {
		p.files.Add(address, f)
		return
	}
	p.files.Remove(address)
	p.large[address] = f
	for {
		total, oldest := 0, ""
		for a, v := range p.large {
			total += len(v.body)
			if oldest == "" || v.made.Before(p.large[oldest].made) {
				oldest = a
			}
		}
		if total <= keptLarge {
			return
		}
		delete(p.large, oldest)
	}
}

// ServeHTTP implements http.Handler.
func (p *publisher) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, form, ok := publishedPath(r.URL.Path)
	if !ok || r.Method != http.MethodGet && r.Method != http.MethodHead {
		p.next.ServeHTTP(w, r)
		return
	}
	c := p.s.reader(r)
	if !p.allowed(r, c) {
		w.Header().Set("Retry-After", "60")
		http.Error(w, "too many requests: lists change seldom, once an hour is enough", http.StatusTooManyRequests)
		return
	}
	f, err := p.file(r.Context(), c, name, form, r.URL.Query().Get("since"))
	switch {
	case err != nil:
		p.s.log.Error("a list could not be published", "error", err)
		w.Header().Set("Retry-After", "60")
		http.Error(w, "the list cannot be read now: try again later", http.StatusServiceUnavailable)
	case f == nil:
		p.next.ServeHTTP(w, r)
	default:
		h := w.Header()
		h.Set("Content-Type", published[form].media)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'")
		h.Set("Cache-Control", "private, no-cache")
		h.Set("Vary", "Authorization")
		h.Set("ETag", f.etag)
		http.ServeContent(w, r, "", f.since, bytes.NewReader(f.body))
	}
}

// publishedPath takes an address apart: /lists/NAME.FORM, or /blocks.FORM for what is made of all, whose
// name is "".
func publishedPath(path string) (name, form string, ok bool) {
	rest, ok := strings.CutPrefix(path, "/lists/")
	if !ok {
		if rest, ok = strings.CutPrefix(path, "/blocks"); !ok {
			return "", "", false
		}
	}
	i := strings.IndexByte(rest, '.')
	if i < 0 {
		return "", "", false
	}
	name, form = rest[:i], rest[i:]
	if _, known := published[form]; !known {
		return "", "", false
	}
	if strings.HasPrefix(path, "/blocks") {
		return "", form, name == "" && !strings.HasPrefix(form, ".fires")
	}
	return name, form, hashlist.CheckName(name) == nil
}

// reader returns who reads, nil for nobody. A token comes as a bearer or, because that is what GoToSocial
// and most others can send, as the password of basic authentication. One that is not good is no token.
func (s *Server) reader(r *http.Request) *caller {
	values := r.Header.Values("Authorization")
	if len(values) != 1 {
		return nil
	}
	kind, rest, _ := strings.Cut(values[0], " ")
	var secret string
	switch {
	case strings.EqualFold(kind, "bearer"):
		secret = strings.TrimSpace(rest)
	case strings.EqualFold(kind, "basic"):
		b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(rest))
		if err != nil {
			return nil
		}
		_, secret, _ = strings.Cut(string(b), ":")
	}
	c, err := s.keys.find(secret)
	if err != nil {
		s.metrics.strangers.Inc()
		return nil
	}
	return c
}

// allowed reports whether a caller may read once more.
func (p *publisher) allowed(r *http.Request, c *caller) bool {
	if c != nil {
		return c.spend(1) == nil
	}
	from := network(remoteAddr(r)).String()
	l, ok := p.readers.Get(from)
	if !ok {
		l = rate.NewLimiter(rate.Every(readersEvery), readersBurst)
		if before, ok, _ := p.readers.PeekOrAdd(from, l); ok {
			l = before
		}
	}
	return l.Allow()
}

// file returns what a caller may read, nil if that is nothing.
func (p *publisher) file(ctx context.Context, c *caller, name, form, since string) (*file, error) {
	s := p.s
	if name == "" {
		if c == nil || c.scope != ScopeBlocks && !c.scope.includes(ScopeAdmin) {
			return nil, nil
		}
		return p.made(ctx, "/blocks"+form, func(w io.Writer) error { return s.writeBlocks(w, published[form].format) })
	}
	iri := s.cfg.Origin + "/lists/" + name
	if s.cfg.Federation == nil || !s.cfg.Federation.Readable(iri, func() bool {
		return c != nil && (c.scope == Scope(ScopeRead+name) || c.scope.includes(ScopeAdmin))
	}) {
		return nil, nil
	}
	list, ok := s.cfg.Lists.List(iri)
	if !ok || s.mayLeave(&list) != nil {
		return nil, nil
	}
	hashes := list.Hashes > 0
	if hashes && form != ".txt" { // the others have no word for a hash
		return nil, nil
	}
	address := iri + form
	if form == ".fires/changes" {
		seq, index := firesPlace(since) // as it is understood: what is written otherwise is no other page
		address += fmt.Sprintf("?%d,%d", seq, index)
	}
	return p.made(ctx, address, func(w io.Writer) error {
		format := published[form].format
		switch {
		case hashes:
			format = "plain"
		case form == ".fires":
			return s.writeDataset(w, &list)
		case form == ".fires/snapshot":
			return s.writeSnapshot(ctx, w, &list)
		case form == ".fires/changes":
			return s.writeChanges(ctx, w, &list, since)
		}
		return s.writeList(ctx, w, &list, format)
	})
}

// made returns a file as it was made a moment ago, or makes it.
func (p *publisher) made(ctx context.Context, address string, write func(io.Writer) error) (*file, error) {
	seq, now := p.s.cfg.Lists.Seq(), time.Now()
	fresh := func(f *file) bool {
		age := now.Sub(f.made)
		return age >= 0 && (age < publishedStale || f.seq == seq && age < publishedAge)
	}
	was, ok := p.kept(address)
	if ok && fresh(was) {
		return was, nil
	}
	select {
	case p.work <- struct{}{}:
		defer func() { <-p.work }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if was, ok = p.kept(address); ok && fresh(was) {
		return was, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var b boundedBuffer
	if err := write(&b); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b.Bytes())
	f := &file{body: b.Bytes(), etag: `"` + hex.EncodeToString(sum[:16]) + `"`, seq: seq, made: now, since: now.UTC().Truncate(time.Second)}
	if ok && was.etag == f.etag {
		f.since = was.since
	}
	p.keep(address, f)
	return f, nil
}

var errPublishedLarge = fmt.Errorf("the file is larger than %d bytes", maxPublishedBytes)

// boundedBuffer is a buffer that is not to grow for ever.
type boundedBuffer struct{ bytes.Buffer }

// Write implements io.Writer.
func (b *boundedBuffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxPublishedBytes {
		return 0, errPublishedLarge
	}
	return b.Buffer.Write(p)
}

// writeList writes what is in force on a list, each thing once, with the gravest action and what is
// said with it.
func (s *Server) writeList(ctx context.Context, w io.Writer, list *hashlist.List, format string) error {
	rows, latest, err := s.rowsOf(ctx, list)
	if err != nil {
		return err
	}
	return writeRows(w, rows, format, exchange.Head{Name: list.Name, Address: list.ID, At: latest})
}

// rowsOf are sorted, so that the same list is the same bytes. latest is when the last of what is in force was said.
func (s *Server) rowsOf(ctx context.Context, list *hashlist.List) (rows []exchange.Row, latest time.Time, err error) {
	type thing struct {
		hash    hashlist.Hash
		subject string
	}
	at := map[thing]int{}
	put := func(v *hashlist.Statement, t thing) {
		row := exchange.Row{Hash: t.hash, Subject: t.subject, Quality: -1, Action: cmp.Or(v.Action, list.Action), Reason: v.Reason}
		row.Labels = slices.Concat(list.Labels, v.Labels)
		slices.Sort(row.Labels)
		row.Labels = slices.Compact(row.Labels)
		if len(row.Labels) > hashlist.MaxLabels {
			row.Labels = row.Labels[:hashlist.MaxLabels]
		}
		if v.Published.After(latest) {
			latest = v.Published
		}
		if i, twice := at[t]; !twice {
			at[t] = len(rows)
			rows = append(rows, row)
		} else if row.Action > rows[i].Action {
			rows[i] = row
		}
	}
	for record, err := range s.cfg.Lists.After(ctx, 0, hashlist.Selection{List: list.ID}) {
		if err != nil {
			return nil, latest, err
		}
		v := &record.Statement
		switch v.Kind {
		case hashlist.AddHashes:
			for _, h := range s.cfg.Lists.InForce(v) {
				put(v, thing{hash: h})
			}
		case hashlist.AddInstances, hashlist.AddAccounts:
			for _, subject := range s.cfg.Lists.SubjectsInForce(v) {
				put(v, thing{subject: subject})
			}
		}
	}
	slices.SortFunc(rows, func(a, b exchange.Row) int {
		return cmp.Or(strings.Compare(a.Subject, b.Subject), strings.Compare(a.Hash.String(), b.Hash.String()))
	})
	return rows, latest, nil
}

// writeRows leaves out what a format has no place for, and what is harmless: lists in these forms are of what is
// to be refused.
func writeRows(w io.Writer, rows []exchange.Row, format string, head exchange.Head) error {
	f, err := exchange.Lookup(format)
	if err != nil {
		return err
	}
	out := f.Write(w, head)
	for _, row := range rows {
		if row.Action == hashlist.Accept {
			continue
		}
		if err := out.Write(row); err != nil && !errors.Is(err, exchange.ErrCannotCarry) {
			return err
		}
	}
	return out.Close()
}

// exportBlocks exports the same as is published at /blocks.csv.
func (s *Server) exportBlocks(r *pb.ExportRequest, stream pb.ListService_ExportServer) error {
	if r.GetList() != "" {
		return refuse(errInvalid, "what is made of all lists together is of no single list")
	}
	format, err := exchange.Lookup(r.GetFormat())
	if err != nil {
		return refuse(errInvalid, "%v", err)
	}
	if !slices.Contains(format.Kinds, hashlist.AddInstances) {
		return refuse(errInvalid, "format %s has no servers", format.Name)
	}
	out := &exportWriter{stream: stream}
	w := format.Write(out, exchange.Head{Name: "blocks"})
	for _, row := range s.blockRows() {
		switch err := w.Write(row); {
		case errors.Is(err, exchange.ErrCannotCarry):
			out.progress.LeftOut++
		case err != nil:
			return err
		default:
			out.progress.Subjects++
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return stream.Send(&out.progress)
}

// writeBlocks writes what this node makes of all lists of servers.
func (s *Server) writeBlocks(w io.Writer, format string) error {
	return writeRows(w, s.blockRows(), format, exchange.Head{Name: "blocks"})
}

func (s *Server) blockRows() []exchange.Row {
	var rows []exchange.Row
	for _, b := range s.cfg.Lists.Blocks() {
		labels := b.Labels[:min(len(b.Labels), hashlist.MaxLabels)]
		rows = append(rows, exchange.Row{Subject: b.Domain, Quality: -1, Action: b.Action, Labels: labels, Reason: b.Reason})
	}
	return rows
}
