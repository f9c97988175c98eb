package exchange

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// readRapidBlock reads {"blocks":{domain:{isBlocked,reason,tags}}}. A domain that is there with isBlocked false was
// blocked before.
func readRapidBlock(r io.Reader, o Options) iter.Seq2[Row, error] {
	return readJSON(r, func(j *jsonFile, put func(Row, error) error) error {
		found := false
		err := j.object(func(key string) error {
			if key == "publishedAt" {
				text, err := j.text()
				o.beside(key, text)
				return err
			}
			if key != "blocks" {
				return j.skip()
			}
			found = true
			return j.object(func(domain string) error {
				b := struct {
					IsBlocked bool     `json:"isBlocked"`
					Reason    string   `json:"reason"`
					Tags      []string `json:"tags"`
				}{}
				bad, err := j.value(&b)
				if err != nil {
					return err
				}
				row := Row{Quality: -1, Withdrawn: !b.IsBlocked, Action: o.blocks()}
				if bad == nil {
					row.Reason = comment(b.Reason)
					row.Subject, bad = o.domain(domain, "", row.Reason)
				}
				if bad == nil {
					row.Labels, bad = labelsOf(b.Tags)
				}
				return put(row, bad)
			})
		})
		if err == nil && !found {
			err = errors.New("this is not RapidBlock's JSON: it has no blocks")
		}
		return err
	})
}

// labelsOf makes labels of words of any kind.
func labelsOf(words []string) ([]string, error) {
	if len(words) > 4*hashlist.MaxLabels { // with repetitions
		return nil, errors.New("too many labels")
	}
	var labels []string
	for _, w := range words {
		label, err := labelOf(w)
		if err != nil {
			return nil, fmt.Errorf("%.12q cannot be made a label of a-z, 0-9 and hyphens, 1 to %d characters long", w, hashlist.MaxName)
		}
		labels = append(labels, label)
	}
	return labelSet(labels)
}

func writeRapidBlock(w io.Writer, head Head) *RowWriter {
	at := stampOf(head.At)
	start := `{"@spec":"https://rapidblock.org/spec/v1/","publishedAt":"` + at + `","blocks":{`
	return newJSONWriter(w, start, "}}", ofDomain(func(line []byte, row Row) ([]byte, error) {
		if !row.blocked() {
			return line, ErrCannotCarry
		}
		tags, err := json.Marshal(append([]string{}, row.Labels...))
		if err != nil {
			return line, err
		}
		line = append(quote(line, row.Subject), `:{"isBlocked":true,"reason":`...)
		line = append(quote(line, row.Reason), `,"tags":`...)
		line = append(line, tags...)
		return append(append(append(line, `,"dateRequested":"`...), at...), `","dateDecided":"`+at+`"}`...), nil
	}))
}

func stampOf(t time.Time) string {
	if t.IsZero() {
		t = time.Unix(0, 0)
	}
	return t.UTC().Format(time.RFC3339)
}

// readPeerTube reads {"data":[{"value","action","updatedAt"}]}, where value is a host or
// user@host.
func readPeerTube(r io.Reader, o Options) iter.Seq2[Row, error] {
	return readJSON(r, func(j *jsonFile, put func(Row, error) error) error {
		each := func() error {
			e := struct {
				Value  string `json:"value"`
				Action string `json:"action"`
			}{}
			bad, err := j.value(&e)
			if err != nil {
				return err
			}
			row := Row{Quality: -1, Action: hashlist.Reject}
			if o.Action != 0 {
				row.Action = o.Action
			}
			switch {
			case bad != nil:
			case e.Action != "" && e.Action != "add" && e.Action != "remove":
				bad = fmt.Errorf("action %.20q is neither add nor remove", e.Action)
			case strings.Contains(e.Value, "@"):
				row.Subject, bad = o.account(e.Value, "")
			default:
				row.Subject, bad = o.domain(e.Value, "", "")
			}
			row.Withdrawn = e.Action == "remove"
			return put(row, bad)
		}
		return j.under(each, nil, "data")
	})
}

func writePeerTube(w io.Writer, head Head) *RowWriter {
	return newJSONWriter(w, `{"data":[`, "]}", func(line []byte, row Row) ([]byte, error) {
		value := row.Subject
		if row.Kind() == hashlist.AddAccounts {
			value = handleOf(row.Subject)
		}
		if value == "" || !row.blocked() {
			return line, ErrCannotCarry
		}
		line = quote(append(line, `{"value":`...), value)
		return append(line, `,"action":"add","updatedAt":"`+stampOf(head.At)+`"}`...), nil
	})
}

// simple is a policy of Pleroma's SimplePolicy, with what it comes to here. The action of a domain is the
// gravest of its policies; the others are kept as labels.
type simple struct {
	name   string
	action hashlist.Action // 0: it asks for nothing against the server as a whole
	label  string
}

var simplePolicies = []simple{
	{"reject", hashlist.Drop, ""},
	{"federated_timeline_removal", hashlist.Filter, ""},
	{"media_removal", 0, LabelRejectMedia},
	{"report_removal", 0, LabelRejectReports},
	{"media_nsfw", 0, "media-nsfw"},
	{"avatar_removal", 0, "avatar-removal"},
	{"banner_removal", 0, "banner-removal"},
	{"background_removal", 0, "background-removal"},
	{"followers_only", 0, "followers-only"},
	{"reject_deletes", 0, "reject-deletes"},
	{"accept", hashlist.Accept, ""},
}

// simplePolicy finds one by its name, nil if there is none.
func simplePolicy(name string) *simple {
	for i := range simplePolicies {
		if simplePolicies[i].name == name {
			return &simplePolicies[i]
		}
	}
	return nil
}

// policyRows is how many domains of a nodeinfo are held: they are gathered, since each policy
// names its domains apart.
const policyRows = 100_000

// readPleroma gathers: memory grows with the number of domains, of which there may be
// policyRows. Where a name stands in several policies it has the line of the first.
func readPleroma(r io.Reader, o Options) iter.Seq2[Row, error] {
	return readJSON(r, func(j *jsonFile, put func(Row, error) error) error {
		rows := map[string]*Row{}
		var order []string
		reasons := map[string][]string{}
		simple := func(policy string) error {
			p := simplePolicy(policy)
			if p == nil {
				return j.skip()
			}
			return j.array(func() error {
				var name string
				bad, err := j.value(&name)
				if err != nil {
					return err
				}
				domain := ""
				if bad == nil {
					domain, bad = o.domain(name, "", "")
				}
				if bad != nil {
					return put(Row{}, bad)
				}
				row := rows[domain]
				if row == nil {
					if len(rows) == policyRows {
						return fmt.Errorf("line %d: there are more than %d domains", j.line(), policyRows)
					}
					row = &Row{Line: j.line(), Subject: domain, Quality: -1}
					rows[domain], order = row, append(order, domain)
				}
				row.Action = max(row.Action, p.action)
				if p.label != "" && !row.has(p.label) {
					row.Labels = append(row.Labels, p.label)
				}
				return nil
			})
		}
		info := func(policy string) error {
			if simplePolicy(policy) == nil {
				return j.skip()
			}
			return j.object(func(name string) error {
				v := struct {
					Reason string `json:"reason"`
				}{}
				bad, err := j.value(&v)
				if bad != nil || err != nil {
					return err
				}
				if domain, err := o.domain(name, "", v.Reason); err == nil && v.Reason != "" && len(reasons) < policyRows &&
					!slices.Contains(reasons[domain], v.Reason) && len(reasons[domain]) < len(simplePolicies) {
					reasons[domain] = append(reasons[domain], v.Reason)
				}
				return nil
			})
		}
		found := false
		into := func(name string, then func(string) error) func(string) error {
			return func(key string) error {
				if key != name {
					return j.skip()
				}
				return j.object(then)
			}
		}
		err := j.object(into("metadata", into("federation", func(key string) error {
			switch key {
			case "mrf_simple":
				found = true
				return j.object(simple)
			case "mrf_simple_info":
				return j.object(info)
			}
			return j.skip()
		})))
		if err == nil && !found {
			err = errors.New("this is not Pleroma's nodeinfo: it has no metadata.federation.mrf_simple")
		}
		if err != nil {
			return err
		}
		for _, domain := range order {
			row := rows[domain]
			row.Reason = comment(strings.Join(reasons[domain], "\n"))
			if row.Action == 0 {
				row.Action, row.Labels = hashlist.Filter, append(row.Labels, LabelAdvisory)
			}
			var bad error
			if row.Labels, bad = labelSet(row.Labels); bad == nil {
				bad = checkCanary(domain, row.Reason)
			}
			if err := put(*row, bad); err != nil {
				return err
			}
		}
		return nil
	})
}

func writePleroma(w io.Writer, _ Head) *RowWriter {
	domains := map[string][]string{}
	type reason struct {
		Reason string `json:"reason"`
	}
	reasons := map[string]map[string]reason{}
	take := func(line []byte, row Row) ([]byte, error) {
		carried := false
		for _, p := range simplePolicies {
			is := row.Action == p.action && !(p.action == hashlist.Filter && row.has(LabelAdvisory)) ||
				p.name == "reject" && row.blocked()
			if p.label != "" {
				is = row.has(p.label)
			}
			if !is {
				continue
			}
			domains[p.name] = append(domains[p.name], row.Subject)
			if row.Reason != "" && !carried {
				if reasons[p.name] == nil {
					reasons[p.name] = map[string]reason{}
				}
				reasons[p.name][row.Subject] = reason{row.Reason}
			}
			carried = true
		}
		if !carried {
			return line, ErrCannotCarry
		}
		return line, nil
	}
	return newDocumentWriter(w, ofDomain(take), func() any {
		return map[string]any{"metadata": map[string]any{"federation": map[string]any{
			"enabled": true, "mrf_policies": []string{"SimplePolicy"}, "mrf_simple": domains, "mrf_simple_info": reasons,
		}}}
	})
}

// fediseerKinds are what one server says of another on Fediseer. Reasons are words with commas
// between them, and become labels; evidence is for people.
var fediseerKinds = []struct {
	action            hashlist.Action
	reasons, evidence string
}{
	{hashlist.Reject, "censure_reasons", "censure_evidence"},
	{hashlist.Filter, "hesitation_reasons", "hesitation_evidence"},
	{hashlist.Accept, "endorsement_reasons", "endorsement_evidence"},
}

// readFediseer reads {"instances":[...]}. With Options.Action it also reads {"domains":[...]}, which does not
// tell what is said of them.
func readFediseer(r io.Reader, o Options) iter.Seq2[Row, error] {
	return readJSON(r, func(j *jsonFile, put func(Row, error) error) error {
		plain := func() error {
			var domain string
			bad, err := j.value(&domain)
			if err != nil {
				return err
			}
			row := Row{Quality: -1, Action: o.Action}
			if bad == nil && o.Action == 0 {
				bad = errors.New("the file does not tell whether this is censured, hesitated about or endorsed: say which action it is")
			}
			if bad == nil {
				row.Subject, bad = o.domain(domain, "", "")
			}
			return put(row, bad)
		}
		domains := false
		each := func() error {
			var e map[string]json.RawMessage
			bad, err := j.value(&e)
			if err != nil {
				return err
			}
			row := Row{Quality: -1}
			if bad == nil {
				row, bad = fediseerRow(e, o)
			}
			return put(row, bad)
		}
		err := j.under(each, func(key string) error {
			if key == "domains" {
				domains = true
				return j.array(plain)
			}
			return j.skip()
		}, "instances")
		if err != nil && domains && !errors.Is(err, errStop) {
			return nil // that was all there is
		}
		return err
	})
}

func fediseerRow(e map[string]json.RawMessage, o Options) (Row, error) {
	row := Row{Quality: -1, Action: o.Action}
	var domain string
	if json.Unmarshal(e["domain"], &domain) != nil {
		return row, errors.New("the entry has no domain")
	}
	for _, k := range fediseerKinds {
		raw, ok := e[k.reasons]
		if !ok {
			continue
		}
		row.Action = k.action
		var said, evidence []string
		// Each of those who say so gives a list of their own. A server may give none.
		_ = decode(raw, &said)
		_ = decode(e[k.evidence], &evidence)
		var words, odd []string
		for _, s := range said {
			for w := range strings.SplitSeq(s, ",") {
				w = strings.TrimSpace(w)
				if w == "" {
					continue
				}
				if _, err := labelOf(w); err != nil || len(words) >= hashlist.MaxLabels {
					odd = append(odd, w)
				} else {
					words = append(words, w)
				}
			}
		}
		var err error
		if row.Labels, err = labelsOf(words); err != nil {
			return row, err
		}
		row.Reason = comment(strings.Join(append(odd, evidence...), "\n"))
		break
	}
	if row.Action == 0 {
		return row, errors.New("the entry is no censure, no hesitation and no endorsement: say which action it is")
	}
	var err error
	row.Subject, err = o.domain(domain, "", row.Reason)
	return row, err
}

func writeFediseer(w io.Writer, _ Head) *RowWriter {
	return newJSONWriter(w, `{"instances":[`, "]}", ofDomain(func(line []byte, row Row) ([]byte, error) {
		action := row.Action
		if row.blocked() {
			action = hashlist.Reject
		}
		for _, k := range fediseerKinds {
			if k.action != action {
				continue
			}
			entry := map[string]any{"domain": row.Subject, k.reasons: []string{strings.Join(row.Labels, ",")}, k.evidence: []string{row.Reason}}
			b, err := json.Marshal(entry)
			return append(line, b...), err
		}
		return line, ErrCannotCarry
	}))
}

// readLemmy reads {"federated_instances":{"linked":[],"allowed":[],"blocked":[]}}, where an instance is an object
// with a domain, or, before 0.19, the domain. That two servers are linked says nothing.
func readLemmy(r io.Reader, o Options) iter.Seq2[Row, error] {
	return readJSON(r, func(j *jsonFile, put func(Row, error) error) error {
		found := false
		of := func(action hashlist.Action) error {
			return j.array(func() error {
				raw, err := j.raw()
				if err != nil {
					return err
				}
				e := struct {
					Domain string `json:"domain"`
				}{}
				var bad error
				if len(raw) > 0 && raw[0] == '"' {
					bad = decode(raw, &e.Domain)
				} else {
					bad = decode(raw, &e)
				}
				row := Row{Quality: -1, Action: action}
				if bad == nil {
					row.Subject, bad = o.domain(e.Domain, "", "")
				}
				return put(row, bad)
			})
		}
		err := j.object(func(key string) error {
			if key != "federated_instances" {
				return j.skip()
			}
			found = true
			return j.object(func(key string) error {
				switch key {
				case "blocked":
					return of(o.blocks())
				case "allowed":
					return of(hashlist.Accept)
				}
				return j.skip()
			})
		})
		if err == nil && !found {
			err = errors.New("this is not Lemmy's JSON: it has no federated_instances")
		}
		return err
	})
}

func writeLemmy(w io.Writer, _ Head) *RowWriter {
	lists := map[string][]map[string]string{"linked": {}, "allowed": {}, "blocked": {}}
	take := func(line []byte, row Row) ([]byte, error) {
		name := "blocked"
		switch {
		case row.Action == hashlist.Accept:
			name = "allowed"
		case !row.blocked():
			return line, ErrCannotCarry
		}
		lists[name] = append(lists[name], map[string]string{"domain": row.Subject})
		return line, nil
	}
	return newDocumentWriter(w, ofDomain(take), func() any { return map[string]any{"federated_instances": lists} })
}

// fires reads a snapshot of a FIRES dataset or a page of its changes. Both have orderedItems;
// in changes a later one of the same entity counts. The Key of a row is the address of the change: the
// cursor to go on from is the last of them, since the "next" of a full page passes over a change
// (the next page is asked for after the 101st, which is not on this one).
func readFIRES(r io.Reader, o Options) iter.Seq2[Row, error] {
	return readJSON(r, func(j *jsonFile, put func(Row, error) error) error {
		each := func() error {
			var c firesChange
			bad, err := j.value(&c)
			if err != nil {
				return err
			}
			row := Row{Quality: -1}
			if bad == nil {
				row, bad = c.row(o)
			}
			return put(row, bad)
		}
		return j.under(each, func(key string) error {
			if key != "next" && key != "changes" && key != "updated" {
				return j.skip()
			}
			text, err := j.text()
			o.beside(key, text)
			return err
		}, "orderedItems", "items")
	})
}

type firesChange struct {
	ID         string   `json:"id"`
	Type       string   `json:"type"`
	EntityKind string   `json:"entityKind"`
	EntityKey  string   `json:"entityKey"`
	Labels     []string `json:"labels"`
	Policy     string   `json:"recommendedPolicy"`
	Filters    []string `json:"recommendedFilters"`
	Comment    string   `json:"comment"`
}

// row makes a row of a change. What is not known is refused, since it may be graver than what is made
// of it.
func (c *firesChange) row(o Options) (Row, error) {
	row := Row{Quality: -1, Key: c.ID, Reason: comment(c.Comment)}
	if len(c.ID) > hashlist.MaxURL {
		return row, errors.New("the id is too long")
	}
	var err error
	switch c.EntityKind {
	case "domain":
		row.Subject, err = o.domain(c.EntityKey, "", row.Reason)
	case "actor":
		if !strings.Contains(c.EntityKey, "://") && strings.Contains(c.EntityKey, "@") {
			row.Subject, err = o.account(c.EntityKey, row.Reason)
		} else {
			row.Subject, err = o.actorOf(c.EntityKey)
		}
	default:
		err = fmt.Errorf("entity of kind %.20q is neither domain nor actor", c.EntityKind)
	}
	if err != nil {
		return row, err
	}
	switch c.Type {
	case "Retraction", "Tombstone":
		row.Withdrawn, row.Reason = true, ""
		return row, nil
	case "Advisory":
		row.Action, row.Labels = hashlist.Filter, []string{LabelAdvisory}
	case "Recommendation":
		if row.Action, err = hashlist.ParseAction(c.Policy); err != nil || row.Action == 0 {
			return row, fmt.Errorf("policy %.20q is not accept, filter, reject or drop", c.Policy)
		}
	default:
		return row, fmt.Errorf("%.20q is not Advisory, Recommendation, Retraction or Tombstone", c.Type)
	}
	words := make([]string, 0, len(c.Labels)+len(c.Filters))
	for _, l := range c.Labels {
		if name, ok := o.Names[l]; ok {
			l = name
		} else {
			l = l[strings.LastIndexByte(strings.TrimSuffix(l, "/"), '/')+1:]
		}
		words = append(words, l)
	}
	for _, f := range c.Filters {
		if l, err := labelOf(f); err != nil || l != LabelRejectMedia && l != LabelRejectReports {
			f = firesFilter + f
		}
		words = append(words, f)
	}
	labels, err := labelsOf(words)
	if err != nil {
		return row, err
	}
	row.Labels, err = labelSet(append(row.Labels, labels...))
	return row, err
}

// firesFilter begins the labels that stand for recommendedFilters.
const firesFilter = "filter-"

func writeFIRES(w io.Writer, head Head) *RowWriter {
	return firesWriter(w, head, "Collection", "snapshot")
}

func writeFIRESChanges(w io.Writer, head Head) *RowWriter {
	return firesWriter(w, head, "OrderedCollectionPage", "changes")
}

// firesWriter writes each row as the change that it is the outcome of. Its id is made from the
// row's place: a file is a whole, and nobody asks for a part of it.
func firesWriter(w io.Writer, head Head, kind, what string) *RowWriter {
	base := head.Address
	if base == "" {
		base = "https://localhost/datasets/" + head.Name
	}
	start := fmt.Sprintf(`{"@context":["https://www.w3.org/ns/activitystreams","https://fires.fedimod.org/context/fires.jsonld"],`+
		`"id":%s,"type":"%s","dataset":%s,"updated":"%s","orderedItems":[`, quote(nil, base+"/"+what), kind, quote(nil, base), stampOf(head.At))
	n := 0
	return newJSONWriter(w, start, "]}", func(line []byte, row Row) ([]byte, error) {
		c := firesItem{
			ID: fmt.Sprintf("%s/changes/%d", base, n+1), Type: "Recommendation", Published: stampOf(head.At),
			EntityKind: "domain", EntityKey: row.Subject, Labels: []string{}, Policy: row.Action.String(), Comment: row.Reason, Filters: []string{},
		}
		switch row.Kind() {
		case hashlist.AddAccounts:
			c.EntityKind = "actor"
		case hashlist.AddHashes:
			return line, ErrCannotCarry
		}
		if row.Action == 0 {
			c.Policy = hashlist.Drop.String()
		}
		for _, l := range row.Labels {
			switch filter, ok := strings.CutPrefix(l, firesFilter); {
			case l == LabelAdvisory && row.Action == hashlist.Filter:
				c.Type, c.Policy = "Advisory", ""
			case ok && filter != LabelRejectMedia && filter != LabelRejectReports:
				c.Filters = append(c.Filters, filter)
			case l == LabelRejectMedia || l == LabelRejectReports:
				c.Filters = append(c.Filters, l)
			default:
				c.Labels = append(c.Labels, base+"/labels/"+l)
			}
		}
		b, err := json.Marshal(&c)
		if err != nil {
			return line, err
		}
		n++
		return append(line, b...), nil
	})
}

type firesItem struct {
	ID         string   `json:"id"`
	Type       string   `json:"type"`
	Published  string   `json:"published"`
	EntityKind string   `json:"entityKind"`
	EntityKey  string   `json:"entityKey"`
	Labels     []string `json:"labels"`
	Policy     string   `json:"recommendedPolicy,omitempty"`
	Filters    []string `json:"recommendedFilters"`
	Comment    string   `json:"comment,omitempty"`
}
