package source

import (
	"context"
	"crypto/sha256"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tocsin-fed/tocsin/exchange"
	"github.com/tocsin-fed/tocsin/hashlist"
)

// reader asks a source for what it says.
type reader func(ctx context.Context, n *session, s *Source, now time.Time) (*batch, error)

// format is how a source is read.
type format struct {
	open    reader
	partner bool // what it gives may not be passed on
}

// formats are the formats of files, each of package exchange, and over them the APIs that have
// pages or cursors.
var formats = func() map[string]format {
	all := map[string]format{}
	for _, f := range exchange.Formats() {
		all[f.Name] = format{file(f), f.Partner}
	}
	all["fires"] = format{openFIRES, false}
	delete(all, "fires-changes") // fires reads them when it has read the snapshot
	all["fediseer"] = format{openFediseer, false}
	all["ncmec"] = format{openNCMEC, true}
	all["stopncii"] = format{openStopNCII, true}
	return all
}()

// Formats returns the names of the formats of sources, sorted.
func Formats() []string { return slices.Sorted(maps.Keys(formats)) }

// Partner reports whether what comes in a format may not be passed on.
func Partner(format string) bool { return formats[format].partner }

// The media types under which lists are served. Text is accepted for all.
var (
	csvTypes  = []string{"text/csv", "application/csv", "text/plain"}
	jsonTypes = []string{"application/json", "application/ld+json", "application/activity+json"}
	xmlTypes  = []string{"application/xml", "text/xml"}
)

func typesOf(f exchange.Format) []string {
	switch d := f.Description; {
	case strings.HasPrefix(d, "JSON"):
		return jsonTypes
	case strings.HasPrefix(d, "XML"):
		return xmlTypes
	}
	return csvTypes
}

// options are how the rows of a source are read.
func (s *Source) options() exchange.Options {
	o := exchange.Options{}
	for pair := range strings.SplitSeq(s.Columns, ",") {
		if name, column, ok := strings.Cut(pair, "="); ok {
			if o.Columns == nil {
				o.Columns = map[string]string{}
			}
			o.Columns[strings.TrimSpace(name)] = strings.TrimSpace(column)
		}
	}
	return o
}

// file reads a source that is one answer.
func file(f exchange.Format) reader {
	return func(ctx context.Context, n *session, s *Source, _ time.Time) (*batch, error) {
		a, err := n.get(ctx, request{url: s.URL, accept: typesOf(f), etag: s.ETag, modified: s.Modified})
		if err != nil {
			return nil, err
		}
		if a.unchanged {
			return &batch{unchanged: true}, nil
		}
		o := s.options()
		o.Known = n.known
		form := f.Form
		if s.Snapshot {
			form = exchange.Snapshot
		}
		return &batch{
			rows: f.Read(a, o), form: form,
			finish: func(r *Run) { r.ETag, r.Modified = a.etag, a.modified }, close: a.close,
		}, nil
	}
}

// formatOf is a format of package exchange that this package knows to be there.
func formatOf(name string) exchange.Format {
	f, err := exchange.Lookup(name)
	if err != nil {
		panic(err) // a mistake in this program, which the tests find
	}
	return f
}

// page is one answer of several, read to its end and closed.
type page struct {
	rows   int
	last   string            // the Key of its last row
	beside map[string]string // what the file says beside its rows
}

// pages reads answers one after the other into one sequence. next returns what to ask for, given the
// page before, nil at first; false ends it.
func (n *session) pages(ctx context.Context, f exchange.Format, o exchange.Options, next func(before *page) (request, bool, error)) iter.Seq2[exchange.Row, error] {
	return func(yield func(exchange.Row, error) bool) {
		var p *page
		for {
			q, more, err := next(p)
			if err != nil {
				yield(exchange.Row{}, err)
				return
			}
			if !more {
				return
			}
			a, err := n.get(ctx, q)
			if err != nil {
				yield(exchange.Row{}, err)
				return
			}
			p = &page{beside: map[string]string{}}
			o.Beside = func(name, value string) { p.beside[name] = value }
			left := false
			for row, err := range f.Read(a, o) {
				p.rows++
				if row.Key != "" {
					p.last = row.Key
				}
				if left = !yield(row, err); left {
					break
				}
			}
			a.close()
			if left {
				return
			}
		}
	}
}

// Known finds the domain that has a digest among those that this node has heard of, for lists
// that obfuscate their domains.
func knownDomains(ctx context.Context, lists *hashlist.Lists) (func([sha256.Size]byte) (string, bool), error) {
	known := map[[sha256.Size]byte]string{}
	for r, err := range lists.After(ctx, 0, hashlist.Selection{}) {
		if err != nil {
			return nil, fmt.Errorf("read the domains that are known: %w", err)
		}
		if r.Statement.Kind != hashlist.AddInstances {
			continue
		}
		for _, d := range r.Statement.Subjects {
			known[sha256.Sum256([]byte(d))] = d
		}
	}
	return func(sum [sha256.Size]byte) (string, bool) { d, ok := known[sum]; return d, ok }, nil
}
