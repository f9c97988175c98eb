// Package digest tells an operator once a day what their node did: how much was refused, held and found,
// by counts and references, and what waits for a person. It holds no hash and no picture, and it goes by mail,
// or to a web hook, that the operator names.
package digest

import (
	"fmt"
	"strings"
	"time"
)

// Digest is what happened in a time.
type Digest struct {
	Node    string    `json:"node"` // origin
	Since   time.Time `json:"since"`
	Until   time.Time `json:"until"`
	Refused int       `json:"refused"`
	Held    int       `json:"held"`
	Flagged int       `json:"flagged"`
	Found   int       `json:"found"`   // in the recent window, after they had been let through
	Changed int       `json:"changed"` // pictures on other servers that were swapped, are listed by now, or are gone
	Acts    int       `json:"acts"`    // done on platforms
	Undone  int       `json:"undone"`
	Failed  int       `json:"failed"` // acts that need somebody to look
	Reports int       `json:"reports"`
	Waiting int       `json:"waiting"` // for a person, now
	Oldest  time.Time `json:"oldest,omitzero"`
	Items   []Item    `json:"items"` // some of what is counted, the newest first
	More    int       `json:"more"`  // how many items are left out
}

// Item is one thing that happened.
type Item struct {
	At   time.Time `json:"at"`
	What string    `json:"what"` // such as refused, found or act
	ID   string    `json:"id"`   // by which the node knows it
	Note string    `json:"note"` // for people; no hash
}

// MaxItems is how many items a digest has.
const MaxItems = 50

// Add notes an item, as long as there is room.
func (d *Digest) Add(i Item) {
	if len(d.Items) == MaxItems {
		d.Items = d.Items[1:]
		d.More++
	}
	d.Items = append(d.Items, i)
}

// Subject is the digest in a line.
func (d *Digest) Subject() string {
	return fmt.Sprintf("tocsin on %s: %d refused, %d held, %d found, %d waiting", strings.TrimPrefix(d.Node, "https://"), d.Refused, d.Held, d.Found, d.Waiting)
}

// Text is the digest for people.
func (d *Digest) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s from %s to %s\n\n", d.Node, d.Since.UTC().Format("2 January 2006 15:04"), d.Until.UTC().Format("2 January 15:04 UTC"))
	for _, l := range []struct {
		n    int
		what string
	}{
		{d.Refused, "uploads refused"}, {d.Held, "uploads held"}, {d.Flagged, "uploads let through and marked"},
		{d.Found, "earlier uploads that are listed by now"}, {d.Changed, "pictures on other servers that changed, are listed or are gone"},
		{d.Acts, "acts on platforms"}, {d.Undone, "acts undone"}, {d.Failed, "acts that need somebody to look"}, {d.Reports, "reports to authorities"},
	} {
		fmt.Fprintf(&b, "%6d  %s\n", l.n, l.what)
	}
	fmt.Fprintf(&b, "\n%6d  wait for a person", d.Waiting)
	if !d.Oldest.IsZero() {
		fmt.Fprintf(&b, ", the oldest since %s", d.Oldest.UTC().Format("2 January 15:04"))
	}
	b.WriteString("\n")
	if len(d.Items) > 0 {
		b.WriteString("\nThe last of them:\n")
		for i := len(d.Items) - 1; i >= 0; i-- {
			it := d.Items[i]
			fmt.Fprintf(&b, "  %s  %-8s  %s  %s\n", it.At.UTC().Format("02 Jan 15:04"), it.What, it.ID, it.Note)
		}
		if d.More > 0 {
			fmt.Fprintf(&b, "  and %d before them\n", d.More)
		}
	}
	b.WriteString(`
To see why:               tocsin explain ID
To decide what waits:     tocsin review list
To see or undo an act:    tocsin acts show ID, tocsin acts undo ID
If a statement is wrong:  tocsin dispute STATEMENT --reason "..."
Uploaders appeal through your platform; their appeals are in the review list.
`)
	return b.String()
}

// Due is the last time up to now at which a digest was due, if one is due every day at a time of day, in UTC.
func Due(now time.Time, hour, minute int) time.Time {
	now = now.UTC()
	at := time.Date(now.Year(), now.Month(), now.Day(), hour, minute, 0, 0, time.UTC)
	if at.After(now) {
		at = at.AddDate(0, 0, -1)
	}
	return at
}
