package source

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/tocsin-fed/tocsin/exchange"
)

// with returns an address with parameters of its query set.
func with(address string, parameters ...string) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", refused("address %.200q cannot be read", address)
	}
	q := u.Query()
	for i := 0; i < len(parameters); i += 2 {
		q.Set(parameters[i], parameters[i+1])
	}
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// sameOrigin refuses to be led to another server by what an answer says.
func sameOrigin(address, next string) (string, error) {
	base, err := url.Parse(address)
	if err != nil {
		return "", refused("address %.200q cannot be read", address)
	}
	u, err := base.Parse(next)
	if err != nil || len(next) > MaxURL {
		return "", refused("the next page is no address")
	}
	if u.Scheme != base.Scheme || u.Host != base.Host {
		return "", refused("the next page is on another server, %.100q", u.Host)
	}
	return u.String(), nil
}

// openFIRES reads a dataset of FIRES 0.8, whose address is that of the dataset: the snapshot first, then
// its changes. The cursor is the id of the last change that was seen, and never what the page calls its
// next: that is the id of the first change of the next page, and since is exclusive, so
// that who follows it loses one change for each full page.
func openFIRES(ctx context.Context, n *session, s *Source, _ time.Time) (*batch, error) {
	dataset := strings.TrimSuffix(s.URL, "/")
	f := formatOf("fires-changes")
	since := string(s.Cursor)
	history := since != ""
	last := since
	first := true
	rows := n.pages(ctx, f, s.options(), func(p *page) (request, bool, error) {
		if first {
			first = false
			if !history {
				return request{url: dataset + "/snapshot", accept: jsonTypes}, true, nil
			}
		} else {
			switch id := changeID(p.last); {
			case !history && id == "":
				return request{}, false, nil // an empty snapshot: there is nothing to go on from
			case !history:
				last = newest(last, id)
				return request{}, false, nil
			case p.rows == 0 || id == last:
				return request{}, false, nil
			case id == "":
				return request{}, false, refused("a page of its changes has no id to go on from")
			default:
				last = id
			}
		}
		at, err := with(dataset+"/changes", "since", last)
		return request{url: at, accept: jsonTypes}, err == nil, err
	})
	if !history {
		// The order of a snapshot is not promised: its cursor is the newest of its changes.
		rows = watchKeys(rows, func(key string) { last = newest(last, changeID(key)) })
	}
	form := exchange.Changes
	if !history {
		form = exchange.Snapshot
	}
	return &batch{rows: rows, form: form, finish: func(r *Run) { r.Cursor = []byte(last) }}, nil
}

func watchKeys(rows iter.Seq2[exchange.Row, error], seen func(string)) iter.Seq2[exchange.Row, error] {
	return func(yield func(exchange.Row, error) bool) {
		for row, err := range rows {
			if row.Key != "" {
				seen(row.Key)
			}
			if !yield(row, err) {
				return
			}
		}
	}
}

// changeID is the UUID at the end of a change's address, "" if there is none. Being of version 7, they
// sort by time.
func changeID(key string) string {
	id := strings.ToLower(key[strings.LastIndexByte(key, '/')+1:])
	if len(id) != 36 || strings.Trim(id, "0123456789abcdef-") != "" {
		return ""
	}
	return id
}

func newest(a, b string) string { return max(a, b) }

// openFediseer reads what a domain says of others on Fediseer: the address is one of
// /api/v1/{censures,hesitations,endorsements,guarantees}/{domain}. It has pages of a hundred.
func openFediseer(ctx context.Context, n *session, s *Source, _ time.Time) (*batch, error) {
	number := 0
	rows := n.pages(ctx, formatOf("fediseer"), s.options(), func(p *page) (request, bool, error) {
		if p != nil && p.rows < 100 {
			return request{}, false, nil
		}
		number++
		at, err := with(s.URL, "page", strconv.Itoa(number), "limit", "100")
		return request{url: at, accept: jsonTypes}, err == nil, err
	})
	return &batch{rows: rows, form: exchange.Snapshot}, nil
}

// ncmecOverlap is how far a range reaches back over the one before: what was entered while that
// was read may be dated earlier.
const ncmecOverlap = time.Hour

// openNCMEC reads NCMEC's hash sharing, version 2; the address ends in /v2/entries. Entries are asked for
// by ranges of time. Within a range the pages are in no order of time, so that
// the only place to go on from is the end of a range that was read whole: the cursor is
// that, and a run that breaks off begins its range again. So it does, once, when the
// page's next has died, which it does after twelve hours. Entries that were deleted come as
// such, with their id alone.
func openNCMEC(ctx context.Context, n *session, s *Source, now time.Time) (*batch, error) {
	until := now.UTC().Truncate(time.Second)
	from := time.Unix(0, 0).UTC()
	if len(s.Cursor) > 0 {
		t, err := time.Parse(time.RFC3339, string(s.Cursor))
		if err != nil {
			return nil, errors.New("the cursor of the source cannot be read: remove it and subscribe anew")
		}
		from = t.Add(-ncmecOverlap)
	}
	first, err := with(s.URL, "from", from.Format(time.RFC3339), "to", until.Format(time.RFC3339))
	if err != nil {
		return nil, err
	}
	range_ := func() iter.Seq2[exchange.Row, error] {
		seen := map[string]bool{}
		return n.pages(ctx, formatOf("ncmec"), s.options(), func(p *page) (request, bool, error) {
			at := first
			if p != nil {
				next := p.beside["next"]
				if next == "" {
					return request{}, false, nil
				}
				var err error
				if at, err = sameOrigin(s.URL, next); err != nil {
					return request{}, false, err
				}
			}
			if seen[at] {
				return request{}, false, refused("its pages go round in a circle")
			}
			seen[at] = true
			return request{url: at, accept: xmlTypes}, true, nil
		})
	}
	rows := func(yield func(exchange.Row, error) bool) {
		for again := false; ; again = true {
			var dead bool
			for row, err := range range_() {
				var status *statusError
				if !again && n.asked > 1 && errors.As(err, &status) && (status.code == http.StatusGone || status.code == http.StatusBadRequest || status.code == http.StatusNotFound) {
					dead = true
					break
				}
				if !yield(row, err) {
					return
				}
			}
			if !dead {
				return
			}
		}
	}
	return &batch{rows: rows, form: exchange.Changes, finish: func(r *Run) { r.Cursor = []byte(until.Format(time.RFC3339)) }}, nil
}

// stopNCIIPage is how many records are asked for at once.
const stopNCIIPage = 1000

// openStopNCII reads StopNCII's hashes; the address ends in /v1/FetchHashes, and the
// two keys come in headers from the credentials. That a hash is withdrawn is said by its hashStatus. The cursor is the
// nextSetTimestamp that the last page gives, or else when the run began, less an hour: what came late may be
// dated earlier.
func openStopNCII(ctx context.Context, n *session, s *Source, now time.Time) (*batch, error) {
	since := int64(0)
	if len(s.Cursor) > 0 {
		v, err := strconv.ParseInt(string(s.Cursor), 10, 64)
		if err != nil {
			return nil, errors.New("the cursor of the source cannot be read: remove it and subscribe anew")
		}
		since = v
	}
	token, upTo := "", int64(0)
	rows := n.pages(ctx, formatOf("stopncii"), s.options(), func(p *page) (request, bool, error) {
		if p != nil {
			next := p.beside["nextPageToken"]
			if at := p.beside["nextSetTimestamp"]; at != "" {
				if v, err := strconv.ParseInt(at, 10, 64); err == nil && v > since {
					upTo = v
				}
			}
			if next == "" || next == "null" || p.beside["hasMoreRecords"] == "false" {
				return request{}, false, nil
			}
			if next == token {
				return request{}, false, refused("its pages go round in a circle")
			}
			token = next
		}
		parameters := []string{"startTimestamp", strconv.FormatInt(since, 10), "pageSize", strconv.Itoa(stopNCIIPage)}
		if token != "" {
			parameters = append(parameters, "nextPageToken", token)
		}
		at, err := with(s.URL, parameters...)
		return request{url: at, accept: jsonTypes}, err == nil, err
	})
	return &batch{rows: rows, form: exchange.Changes, finish: func(r *Run) {
		if upTo == 0 {
			upTo = max(since, now.Add(-time.Hour).Unix())
		}
		r.Cursor = []byte(strconv.FormatInt(upTo, 10))
	}}, nil
}
