package federation

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// sequence is a list of this node in the order in which its statements came.
// Node.mu guards it.
type sequence struct {
	seqs []uint64 // places in the log
	tree tree
	head []byte // signed, of size
	size int64
}

// Bounds of what is sent in one piece. A page has at least one statement,
// which may have up to MaxSigned bytes.
const (
	maxPageItems = 1000
	maxPageBytes = 3 << 20 // about what the store reads at once
	maxPushItems = 100
	maxPushBytes = 384 << 10
)

// audience says for whom a list is: Local also for one that is not of this node or not
// there. Of a list whose definition was retracted the followers may read on:
// else they would not learn that it was. One of partner data has none, whatever was
// said of it.
func (n *Node) audience(list string) hashlist.Audience {
	if !n.ours(list) || n.cfg.Lists.Partner(list) {
		return hashlist.Local
	}
	d, ok := n.cfg.Lists.List(list)
	if !ok {
		return hashlist.Followers
	}
	return d.Audience
}

// mayRead says who may read a list: the servers of approved followers one for followers. actor is who
// signed the request, "" for nobody.
//
// A server may read what one of its actors was approved for: it sees what they are sent
// anyway, and most servers fetch as an actor of their own.
func (n *Node) mayRead(list, actor string) bool {
	return n.Readable(list, func() bool {
		origin, err := hashlist.Origin(actor)
		if err != nil {
			return false
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, f := range n.followers[list] {
			if f.State == FollowerApproved && isOf(f.Actor, origin) {
				return true
			}
		}
		return false
	})
}

// Readable is the one place that says who may read a list: anybody a public one, whoever is approved
// one for followers, nobody a local one, one of partner data or one that is not there.
func (n *Node) Readable(list string, approved func() bool) bool {
	switch n.audience(list) {
	case hashlist.Public:
		return true
	case hashlist.Followers:
		return approved()
	}
	return false
}

// open reports whether anybody may follow a list unasked.
func (n *Node) open(list string) bool { return n.audience(list) == hashlist.Public }

// published returns the definition of a list of this node that others may know of.
func (n *Node) published(list string) (hashlist.List, bool) {
	d, ok := n.cfg.Lists.List(list)
	return d, ok && n.ours(list) && d.Audience != hashlist.Local
}

// sizeOf is the number of statements of a list of this node.
func (n *Node) sizeOf(list string) int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s := n.sequences[list]; s != nil {
		return s.tree.size
	}
	return 0
}

// signedHead returns the head of a list of this node as it is now.
func (n *Node) signedHead(list string) ([]byte, head, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.sequences[list]
	if s == nil {
		s = &sequence{}
	}
	h := head{list, s.tree.size, tlog.Hash{}}
	h.root = s.tree.root(h.size)
	if s.head == nil || s.size != h.size {
		signed, err := h.sign(n.cfg.HeadKey)
		if err != nil {
			return nil, head{}, fmt.Errorf("sign the head of %s: %w", list, err)
		}
		s.head, s.size = signed, h.size
	}
	return s.head, h, nil
}

// statements returns statements of a list of this node as they were signed,
// from place from on: as many as fit into the bounds, but at least one, if there is
// one.
func (n *Node) statements(ctx context.Context, list string, from int64, items, size int) ([][]byte, error) {
	n.mu.Lock()
	s := n.sequences[list]
	if s == nil || from >= s.tree.size {
		n.mu.Unlock()
		return nil, nil
	}
	seq, most := s.seqs[from], s.tree.size-from
	n.mu.Unlock()
	var all [][]byte
	for r, err := range n.cfg.Lists.After(ctx, seq-1, hashlist.Selection{List: list, Signed: true, Bare: true}) {
		if err != nil {
			return nil, err
		}
		if size -= len(r.Signed); size < 0 && len(all) > 0 {
			break
		}
		all = append(all, r.Signed)
		if len(all) == items || int64(len(all)) == most {
			break
		}
	}
	return all, nil
}

// page is a piece of a list's log as it travels: in answer to who reads the log, and
// inside of a push.
type page struct {
	list  string
	start int64
	items []json.RawMessage // statements as they were signed
	head  []byte            // nil if it was left out
	more  bool              // there is a next page
	asked bool              // this node has asked for it, and was not just sent it
}

// encode writes a page. The statements stand in it as they were signed, byte for byte.
func (p *page) encode(w io.Writer) error {
	id := p.list + "/log/" + strconv.FormatInt(p.start, 10)
	fields := []struct {
		name  string
		value any
	}{{"id", id}, {"type", "OrderedCollectionPage"}, {"partOf", p.list + "/log"}, {"startIndex", p.start}, {"head", string(p.head)}}
	if p.more {
		fields = append(fields, struct {
			name  string
			value any
		}{"next", p.list + "/log/" + strconv.FormatInt(p.start+int64(len(p.items)), 10)})
	}
	var b bytes.Buffer
	b.WriteString(`{"@context":` + pageContext)
	for _, f := range fields {
		v, err := json.Marshal(f.value)
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, ",%q:%s", f.name, v)
	}
	b.WriteString(`,"orderedItems":[`)
	if _, err := w.Write(b.Bytes()); err != nil {
		return err
	}
	for i, item := range p.items {
		if i > 0 {
			if _, err := io.WriteString(w, ",\n"); err != nil {
				return err
			}
		}
		if _, err := w.Write(item); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, "]}\n")
	return err
}

// pageContext is the @context of pages and pushes. The term is written out: nobody has to fetch it.
const pageContext = `["https://www.w3.org/ns/activitystreams",{"head":"` + namespace + `head"}]`

// readPage reads what encode wrote, from whoever it came.
func readPage(data []byte, list string) (*page, error) {
	o := newObject(data)
	if o.err == nil && !o.is("OrderedCollectionPage") {
		o.fail("it is no OrderedCollectionPage")
	}
	if o.err == nil && o.text("partOf") != list+"/log" {
		o.fail("it is no part of the log of %s", list)
	}
	p := &page{list: list, head: []byte(o.text("head")), more: o.text("next") != ""}
	if v, ok := o.values["startIndex"]; !ok || json.Unmarshal(v, &p.start) != nil || p.start < 0 || p.start > 1<<53 {
		o.fail("startIndex is not a place in a log")
	}
	if v, ok := o.values["orderedItems"]; ok && json.Unmarshal(v, &p.items) != nil {
		o.fail("orderedItems is not an array")
	}
	switch {
	case o.err != nil:
		return nil, fmt.Errorf("page of %s: %w", list, o.err)
	case len(p.items) > maxPageItems:
		return nil, fmt.Errorf("page of %s: %d statements are more than %d", list, len(p.items), maxPageItems)
	case len(p.head) > maxHead:
		return nil, fmt.Errorf("page of %s: its head is larger than %d bytes", list, maxHead)
	case len(p.head) == 0:
		p.head = nil
	}
	return p, nil
}

// Handler serves the public side: actors, WebFinger, NodeInfo, inboxes, lists.
// It expects to be reached under the node's origin, through a proxy or not.
//
// Whatever is there but not for the caller is answered like what is not there:
// 404, decided before anything is read.
func (n *Node) Handler() http.Handler {
	mux := http.NewServeMux()
	n.describe(mux)
	for _, path := range []string{"/inbox", "/actor/inbox", "/users/{name}/inbox", "/lists/{name}/inbox"} {
		mux.HandleFunc("POST "+path, n.receive)
	}
	mux.HandleFunc("POST /witness", n.witness)
	mux.HandleFunc("GET /lists/{name}/outbox", n.forReaders(n.serveOutbox))
	mux.HandleFunc("GET /lists/{name}/outbox/{upto}", n.forReaders(n.serveOutboxPage))
	mux.HandleFunc("GET /lists/{name}/log", n.forReaders(n.serveLog))
	mux.HandleFunc("GET /lists/{name}/log/{from}", n.forReaders(n.serveLogPage))
	mux.HandleFunc("GET /lists/{name}/head", n.forReaders(n.serveHead))
	mux.HandleFunc("GET /statements/{id}", n.serveStatement)
	return n.guard(mux)
}

// guard bounds how many requests are worked on at once. Those that post count once their body is there.
func (n *Node) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Content-Security-Policy", "default-src 'none'")
		if r.Method == http.MethodPost {
			next.ServeHTTP(w, r)
			return
		}
		if !n.inProgress.TryAcquire(1) {
			w.Header().Set("Retry-After", "5")
			http.Error(w, errBusy.Error(), http.StatusServiceUnavailable)
			return
		}
		defer n.inProgress.Release(1)
		next.ServeHTTP(w, r)
	})
}

// maxRequests is the most requests that are worked on at once.
const maxRequests = 256

// reader returns who asks for something: the actor who signed the request, or "". A
// signature that does not hold is no signature.
func (n *Node) reader(r *http.Request) string {
	if r.Header.Get("Signature") == "" {
		return ""
	}
	who, err := n.authenticate(r, nil)
	if err != nil {
		n.count(func(c *Counters) { c.Refused++ })
		n.log.Debug("refused a signed request", "path", r.URL.Path, "error", err)
		return ""
	}
	return who.ID
}

// forReaders serves what belongs to a list to those who may read it.
func (n *Node) forReaders(serve func(w http.ResponseWriter, r *http.Request, list string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		// Who asks is found out first, whether or not the list is there: the time it takes tells nothing.
		who := n.reader(r)
		list := n.cfg.Origin + "/lists/" + r.PathValue("name")
		if !n.mayRead(list, who) {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Cache-Control", "private, no-store")
		w.Header().Set("Vary", "Signature, Accept-Encoding")
		serve(w, r, list)
	}
}

func (n *Node) serveLog(w http.ResponseWriter, r *http.Request, list string) {
	n.writeJSON(w, map[string]any{
		"@context": "https://www.w3.org/ns/activitystreams", "id": list + "/log", "type": "OrderedCollection",
		"totalItems": n.sizeOf(list), "first": list + "/log/0",
	})
}

// serveLogPage serves statements in the order in which they came. A page
// begins at whatever place is asked for: a reader's cursor is how many it has.
func (n *Node) serveLogPage(w http.ResponseWriter, r *http.Request, list string) {
	from, err := strconv.ParseInt(r.PathValue("from"), 10, 64)
	if err != nil || from < 0 {
		http.NotFound(w, r)
		return
	}
	p, err := n.page(r.Context(), list, from, maxPageItems, maxPageBytes)
	if err != nil {
		n.fail(w, err)
		return
	}
	n.writePage(w, r, p)
}

// page reads a piece of a list of this node. Its head may be of a larger size.
func (n *Node) page(ctx context.Context, list string, from int64, items, size int) (*page, error) {
	signed, err := n.statements(ctx, list, from, items, size)
	if err != nil {
		return nil, err
	}
	top, h, err := n.signedHead(list)
	if err != nil {
		return nil, err
	}
	p := &page{list: list, start: from, head: top, more: from+int64(len(signed)) < h.size}
	for _, s := range signed {
		p.items = append(p.items, s)
	}
	return p, nil
}

func (n *Node) writePage(w http.ResponseWriter, r *http.Request, p *page) {
	w.Header().Set("Content-Type", activityMediaType)
	if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") || r.Method == http.MethodHead {
		if err := p.encode(w); err != nil {
			n.log.Debug("could not write a page", "error", err)
		}
		return
	}
	w.Header().Set("Content-Encoding", "gzip")
	z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err == nil {
		err = p.encode(z)
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		n.log.Debug("could not write a page", "error", err)
	}
}

// serveOutbox and serveOutboxPage serve the same statements newest first, as
// ActivityPub wants an outbox (section 5.1), to those who know no log.
func (n *Node) serveOutbox(w http.ResponseWriter, r *http.Request, list string) {
	size := n.sizeOf(list)
	n.writeJSON(w, map[string]any{
		"@context": "https://www.w3.org/ns/activitystreams", "id": list + "/outbox", "type": "OrderedCollection",
		"totalItems": size, "first": list + "/outbox/" + strconv.FormatInt(size, 10),
	})
}

// outboxPage is how many statements stand on a page of an outbox.
const outboxPage = 20

func (n *Node) serveOutboxPage(w http.ResponseWriter, r *http.Request, list string) {
	upTo, err := strconv.ParseInt(r.PathValue("upto"), 10, 64)
	if err != nil || upTo < 0 || upTo > n.sizeOf(list) {
		http.NotFound(w, r)
		return
	}
	from := max(0, upTo-outboxPage)
	p, err := n.page(r.Context(), list, from, int(upTo-from), outboxPage*MaxSigned)
	if err != nil {
		n.fail(w, err)
		return
	}
	items := make([]json.RawMessage, 0, len(p.items))
	for i := len(p.items) - 1; i >= 0; i-- {
		items = append(items, p.items[i])
	}
	v := map[string]any{
		"@context": "https://www.w3.org/ns/activitystreams", "id": list + "/outbox/" + strconv.FormatInt(upTo, 10),
		"type": "OrderedCollectionPage", "partOf": list + "/outbox", "orderedItems": items,
	}
	if from > 0 {
		v["next"] = list + "/outbox/" + strconv.FormatInt(from, 10)
	}
	n.writeJSON(w, v)
}

func (n *Node) serveHead(w http.ResponseWriter, r *http.Request, list string) {
	signed, _, err := n.signedHead(list)
	if err != nil {
		n.fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Write(signed)
}

func (n *Node) serveStatement(w http.ResponseWriter, r *http.Request) {
	who := n.reader(r)
	record, ok, err := n.cfg.Lists.Record(r.Context(), n.cfg.Origin+"/statements/"+r.PathValue("id"))
	if err != nil {
		n.fail(w, err)
		return
	}
	if !ok || !n.mayRead(record.Statement.List, who) {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", activityMediaType)
	w.Header().Set("Cache-Control", "private, no-store")
	w.Write(record.Signed)
}

func (n *Node) writeJSON(w http.ResponseWriter, v any) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // statements stand in it
	if err := e.Encode(v); err != nil {
		n.fail(w, err)
		return
	}
	w.Header().Set("Content-Type", activityMediaType)
	w.Write(b.Bytes())
}

// fail answers what went wrong here, without saying what.
func (n *Node) fail(w http.ResponseWriter, err error) {
	n.log.Error("could not serve another server", "error", err)
	http.Error(w, "this node is in trouble: try again later", http.StatusInternalServerError)
}
