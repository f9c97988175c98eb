package server

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/tocsin-fed/tocsin/exchange"
	"github.com/tocsin-fed/tocsin/hashlist"
)

// A list is a dataset of FIRES 0.8 at /lists/NAME.fires, as far as its readers ask: a snapshot, and
// changes since one of them. A statement about a thousand domains is a thousand changes. Their ids are
// UUIDs of version 7, whose time is when this node accepted the statement, and whose random part is
// the statement's place in the log and the domain's place in it: so a reader's cursor says where
// to go on. Nothing is lost between two pages: next is the last id of the page, since since is
// exclusive.

// firesPage is how many changes stand on a page.
const firesPage = 100

var firesContext = []string{"https://www.w3.org/ns/activitystreams", "https://fires.fedimod.org/context/fires.jsonld"}

// The random part of an id: 44 bits of place, 18 bits of index.
const firesIndexBits = 18

func firesID(received time.Time, seq uint64, index int) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], uint64(received.UnixMilli())<<16|7<<12)
	binary.BigEndian.PutUint64(b[8:], 2<<62|(seq<<firesIndexBits|uint64(index))&(1<<62-1))
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// firesPlace reads an id, or the address that ends in one. What is none is the begin, and so is one of
// the year 1970: readers start with that.
func firesPlace(id string) (seq uint64, index int) {
	id = id[strings.LastIndexByte(id, '/')+1:]
	b, err := hex.DecodeString(strings.ReplaceAll(id, "-", ""))
	if err != nil || len(b) != 16 || b[8]>>6 != 2 || binary.BigEndian.Uint64(b)>>16 == 0 {
		return 0, -1
	}
	v := binary.BigEndian.Uint64(b[8:]) & (1<<62 - 1)
	if v>>firesIndexBits == 0 {
		return 0, -1
	}
	return v >> firesIndexBits, int(v & (1<<firesIndexBits - 1))
}

// firesChange is one change as FIRES has it.
type firesChange struct {
	ID        string   `json:"id"`
	Type      string   `json:"type"`
	Published string   `json:"published"`
	Kind      string   `json:"entityKind"`
	Key       string   `json:"entityKey"`
	Labels    []string `json:"labels,omitempty"`
	Policy    string   `json:"recommendedPolicy,omitempty"`
	Filters   []string `json:"recommendedFilters,omitempty"`
	Comment   string   `json:"comment,omitempty"`
}

// dataset is the address of a list as a dataset.
func dataset(list *hashlist.List) string { return list.ID + ".fires" }

// changesOf are the changes that a statement makes, in the order of what it is about.
func (s *Server) changesOf(ctx context.Context, list *hashlist.List, r *hashlist.Record) ([]firesChange, error) {
	v := &r.Statement
	c := firesChange{Published: v.Published.UTC().Format(time.RFC3339)}
	about, subjects := v.Kind, v.Subjects
	switch v.Kind {
	case hashlist.AddInstances, hashlist.AddAccounts:
		c.Type, c.Comment = "Recommendation", v.Reason
		action := cmp.Or(v.Action, list.Action)
		labels := slices.Concat(list.Labels, v.Labels)
		slices.Sort(labels)
		for _, l := range slices.Compact(labels) {
			switch l {
			case exchange.LabelAdvisory:
				c.Type = "Advisory"
			case exchange.LabelRejectMedia, exchange.LabelRejectReports:
				c.Filters = append(c.Filters, l)
			default:
				c.Labels = append(c.Labels, s.cfg.Origin+"/labels/"+l)
			}
		}
		if c.Type == "Recommendation" {
			c.Policy = action.String()
		}
	case hashlist.Retraction:
		if len(v.Hashes) > 0 {
			return nil, nil
		}
		was, known, err := s.cfg.Lists.Record(ctx, v.Retracts)
		if err != nil || !known {
			return nil, err
		}
		if about = was.Statement.Kind; about != hashlist.AddInstances && about != hashlist.AddAccounts {
			return nil, nil
		}
		if len(subjects) == 0 {
			subjects = was.Statement.Subjects
		}
		c.Type = "Retraction"
	default:
		return nil, nil
	}
	c.Kind = "domain"
	if about == hashlist.AddAccounts {
		c.Kind = "actor"
	}
	all := make([]firesChange, len(subjects))
	for i, subject := range subjects {
		all[i] = c
		all[i].ID, all[i].Key = dataset(list)+"/changes/"+firesID(r.Received, r.Seq, i), subject
	}
	return all, nil
}

// writeSnapshot writes what is in force on a list.
func (s *Server) writeSnapshot(ctx context.Context, w io.Writer, list *hashlist.List) error {
	items := []firesChange{}
	last := ""
	for r, err := range s.cfg.Lists.After(ctx, 0, hashlist.Selection{List: list.ID}) {
		if err != nil {
			return err
		}
		changes, err := s.changesOf(ctx, list, &r)
		if err != nil {
			return err
		}
		if len(changes) > 0 {
			last = changes[len(changes)-1].ID
		}
		if r.Statement.Kind == hashlist.Retraction {
			continue
		}
		standing := map[string]bool{}
		for _, subject := range s.cfg.Lists.SubjectsInForce(&r.Statement) {
			standing[subject] = true
		}
		for _, c := range changes {
			if standing[c.Key] {
				items = append(items, c)
			}
		}
	}
	return writeDocument(w, map[string]any{
		"@context": firesContext, "id": dataset(list) + "/snapshot", "type": "Collection", "summary": "Snapshot of " + list.Name,
		"dataset": dataset(list), "totalItems": len(items), "updated": list.Updated.UTC().Format(time.RFC3339),
		"changes": dataset(list) + "/changes?since=" + url.QueryEscape(last[strings.LastIndexByte(last, '/')+1:]), "orderedItems": items,
	})
}

// writeChanges writes a page of what has changed behind since.
func (s *Server) writeChanges(ctx context.Context, w io.Writer, list *hashlist.List, since string) error {
	seq, index := firesPlace(since)
	items := []firesChange{}
	more := false
	for r, err := range s.cfg.Lists.After(ctx, max(seq, 1)-1, hashlist.Selection{List: list.ID}) {
		if err != nil {
			return err
		}
		changes, err := s.changesOf(ctx, list, &r)
		if err != nil {
			return err
		}
		if r.Seq == seq {
			changes = changes[min(len(changes), index+1):]
		}
		if room := firesPage - len(items); len(changes) > room {
			changes, more = changes[:room], true
		}
		if items = append(items, changes...); more {
			break
		}
	}
	at := dataset(list) + "/changes"
	v := map[string]any{
		"@context": firesContext, "id": at + "?since=" + url.QueryEscape(since), "type": "OrderedCollectionPage", "partOf": at,
		"dataset": dataset(list), "orderedItems": items,
	}
	if more {
		last := items[len(items)-1].ID
		v["next"] = at + "?since=" + last[strings.LastIndexByte(last, '/')+1:]
	}
	return writeDocument(w, v)
}

// writeDataset describes a list as a dataset.
func (s *Server) writeDataset(w io.Writer, list *hashlist.List) error {
	return writeDocument(w, map[string]any{
		"@context": firesContext, "id": dataset(list), "type": "Dataset", "name": list.Name, "summary": list.Summary,
		"endpoints": map[string]string{"changes": dataset(list) + "/changes", "snapshot": dataset(list) + "/snapshot"},
		"updated":   list.Updated.UTC().Format(time.RFC3339),
	})
}

func writeDocument(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
