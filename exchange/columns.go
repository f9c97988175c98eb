package exchange

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// CSVColumns are the names that Options.Columns may map, and what a file's columns are called if it does
// not: hash (with algorithm, or as algorithm:hex, or bare as in format plain), domain, account (an
// address, or user@host), action (accept, filter, reject, drop, or Mastodon's severity), labels (with blanks,
// commas or semicolons between them) and reason.
var CSVColumns = []string{"hash", "algorithm", "domain", "account", "action", "labels", "reason"}

// readColumns reads CSV by the names of its columns. A row is of one thing: one with a hash and a domain is
// refused, since it is not known which is meant.
func readColumns(r io.Reader, o Options) iter.Seq2[Row, error] {
	return readCSV(r, func(c *csvReader) (func() (Row, error), error) {
		for name := range o.Columns {
			if !slices.Contains(CSVColumns, name) {
				return nil, fmt.Errorf("there is no column %.40q to name (want %s)", name, strings.Join(CSVColumns, ", "))
			}
		}
		if err := c.header("a name for each column"); err != nil {
			return nil, err
		}
		at := map[string]int{}
		for _, name := range CSVColumns {
			called, mapped := o.Columns[name]
			if !mapped {
				called = name
			}
			found := -1
			for i := range c.len() {
				if strings.EqualFold(strings.TrimSpace(string(c.field(i))), called) {
					if found >= 0 {
						return nil, fmt.Errorf("the header has column %.40q twice", called)
					}
					found = i
				}
			}
			if found < 0 && mapped {
				return nil, fmt.Errorf("the header has no column %.40q", called)
			}
			if found >= 0 {
				at[name] = found
			}
		}
		_, hash := at["hash"]
		_, domain := at["domain"]
		_, account := at["account"]
		if !hash && !domain && !account {
			return nil, errors.New("the header has none of the columns hash, domain and account: say which column is which")
		}
		n := c.len()
		return func() (Row, error) { return parseColumns(c, at, n, o) }, nil
	})
}

func parseColumns(c *csvReader, at map[string]int, n int, o Options) (Row, error) {
	if c.len() != n {
		return Row{}, fmt.Errorf("%d fields, and the header has %d", c.len(), n)
	}
	get := func(name string) string {
		if i, ok := at[name]; ok {
			return strings.TrimSpace(string(c.field(i)))
		}
		return ""
	}
	row := Row{Quality: -1, Reason: comment(unguard(get("reason"))), Action: o.Action}
	hash, domain, account := get("hash"), get("domain"), get("account")
	var err error
	switch {
	case hash == "" && domain == "" && account == "":
		return row, errors.New("it has no hash, no domain and no account")
	case hash != "" && domain+account != "" || domain != "" && account != "":
		return row, errors.New("it has more than one of hash, domain and account")
	case hash != "":
		if name := get("algorithm"); name != "" {
			if o.Algorithm, err = parseAlgorithm([]byte(name)); err != nil {
				return row, err
			}
		}
		var plain Row
		plain, err = parsePlain([]byte(hash), 0, o)
		row.Hash = plain.Hash
	case domain != "":
		row.Subject, err = o.domain(domain, "", row.Reason)
	case strings.Contains(account, "://"):
		row.Subject, err = o.actorOf(account)
	default:
		row.Subject, err = o.account(account, row.Reason)
	}
	if err != nil {
		return row, err
	}
	words := strings.FieldsFunc(get("labels"), func(r rune) bool { return strings.ContainsRune(" \t\n,;", r) })
	labels, err := labelsOf(words)
	if err != nil {
		return row, err
	}
	switch action := strings.ToLower(get("action")); action {
	case "":
	case "suspend", "silence", "limit", "noop", "none":
		err = row.terms(action, o, false, false, false)
	default:
		row.Action, err = hashlist.ParseAction(action)
	}
	if err != nil {
		return row, err
	}
	row.Labels, err = labelSet(append(row.Labels, labels...))
	return row, err
}

func writeColumns(w io.Writer, _ Head) *RowWriter {
	return newRowWriter(w, []byte("hash,domain,account,action,labels,reason\n"), func(line []byte, row Row) ([]byte, error) {
		switch row.Kind() {
		case hashlist.AddHashes:
			line = append(append(line, row.Hash.Algorithm().String()...), ':')
			line = append(hex.AppendEncode(line, row.Hash.Sum()), ",,"...)
		case hashlist.AddInstances:
			line = append(append(append(line, ','), row.Subject...), ',')
		default:
			line = appendField(append(line, ",,"...), row.Subject)
		}
		line = append(append(append(line, ','), row.Action.String()...), ',')
		for i, l := range row.Labels {
			if i > 0 {
				line = append(line, ' ')
			}
			line = append(line, l...)
		}
		return appendField(append(line, ','), guard(row.Reason)), nil
	})
}

// Detect tells the format of a file by how it begins: by a header or a key that no other format has. Its error
// says that it cannot be told; it does not guess between formats that would read the same file
// differently.
func Detect(head []byte) (Format, error) {
	head = bytes.TrimPrefix(head, []byte("\xef\xbb\xbf"))
	head = bytes.TrimLeft(head, " \t\r\n")
	line, _, _ := bytes.Cut(head, []byte("\n"))
	first := strings.TrimSpace(string(line))
	lower := strings.ToLower(first)
	names, _, _ := strings.Cut(lower, ",")
	has := func(key string) bool { return bytes.Contains(head, []byte(`"`+key+`"`)) }
	name := ""
	switch {
	case len(head) == 0:
		return Format{}, errors.New("the file is empty")
	case head[0] == '<':
		if bytes.Contains(head, []byte(ncmecSpace)) {
			name = "ncmec"
		}
	case head[0] == '{' || head[0] == '[':
		for _, m := range [...]struct{ format, key string }{
			{"stopncii", "hashRecords"}, {"stopncii", "hashStatus"}, {"techagainstterrorism", "hash_digest"},
			{"fires", "entityKey"}, {"rapidblock", "isBlocked"}, {"pleroma", "mrf_simple"}, {"lemmy", "federated_instances"},
			{"fediseer", "censure_reasons"}, {"fediseer", "hesitation_reasons"}, {"fediseer", "endorsement_reasons"},
			{"hma", "signals"}, {"hma", "signal_type"}, {"mastodon-api", "severity"}, {"gotosocial-json", "domain"},
		} {
			if has(m.key) {
				name = m.format
				break
			}
		}
		if name == "fires" && (has("OrderedCollectionPage") || has("OrderedCollection")) {
			name = "fires-changes"
		}
	case strings.HasPrefix(first, "#domain"):
		name = "mastodon"
	case strings.Contains(lower, "signal_type") && strings.Contains(lower, "signal_str"):
		name = "pytx"
	case names == "domain":
		name = "fediblockhole"
	case names == "hash" && strings.Contains(lower, "quality"):
		name = "pdq-csv"
	case strings.HasPrefix(lower, "pdq "):
		name = "pdq"
	case !strings.ContainsAny(first, ", \t"):
		// One word on each line: hashes have a colon or no dot.
		if _, err := (Options{}).domain(first, "", ""); err == nil {
			name = "domains"
		} else if _, err := parsePlain([]byte(first), 1, Options{}); err == nil {
			name = "plain"
		}
	}
	if name == "" {
		return Format{}, fmt.Errorf("the file does not tell its format by how it begins: say which it is, one of %s", formatNames())
	}
	return Lookup(name)
}
