package hashlist

import (
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/tocsin-fed/tocsin/bktree"
)

// write prints the fold in a form that depends on nothing but the statements: what
// is in force at now if nothing is void, sorted. Two nodes that hold the same statements print the
// same bytes.
func (f *fold) write(w io.Writer, now time.Time) error {
	var lines []string
	for _, l := range f.lists {
		if c := l.stated; c != nil {
			lines = append(lines, fmt.Sprintf("list %s %s %q labels=%v audience=%v action=%v radii=%v by %s\n",
				l.iri, c.Name, c.Summary, c.Labels, c.Audience, c.Action, c.Radii, f.stmts[c.stmt].id))
		}
	}
	for _, a := range Algorithms {
		f.points[a].each(func(id bktree.ID, h Hash) {
			for o := f.owners[a][id]; o != 0; o = f.postings[o-1].next {
				if s := &f.stmts[f.postings[o-1].stmt]; !f.postings[o-1].kept && (s.expires == 0 || s.expires > now.Unix()) {
					lines = append(lines, fmt.Sprintf("hash %v on %s labels=%v action=%v until=%d by %s\n",
						h, s.list.iri, s.labels, s.action, s.expires, s.id))
				}
			}
		})
	}
	for kind := AddAccounts; kind <= Vouch; kind++ {
		f.textsOf(kind.table()).all(func(id bktree.ID, text string) {
			for o := f.owners[kind.table()][id]; o != 0; o = f.postings[o-1].next {
				s := &f.stmts[f.postings[o-1].stmt]
				switch {
				case f.postings[o-1].kept || s.expires != 0 && s.expires <= now.Unix():
				case kind == Confirmation || kind == Dispute:
					lines = append(lines, fmt.Sprintf("%v of %s on %s until=%d by %s\n", kind, text, s.list.iri, s.expires, s.id))
				case kind == Vouch:
					v := f.trust.said[f.postings[o-1].stmt]
					lines = append(lines, fmt.Sprintf("vouch for %s on %s labels=%v amount=%d depth=%d from=%d until=%d by %s\n",
						text, s.list.iri, s.labels, v.amount, v.depth, v.from, s.expires, s.id))
				default:
					lines = append(lines, fmt.Sprintf("%v %s on %s labels=%v action=%v until=%d by %s\n",
						kind, text, s.list.iri, s.labels, s.action, s.expires, s.id))
				}
			}
		})
	}
	slices.Sort(lines)
	for _, l := range lines {
		if _, err := io.WriteString(w, l); err != nil {
			return err
		}
	}
	return nil
}
