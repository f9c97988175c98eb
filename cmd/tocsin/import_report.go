package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// importReport is what an import writes to a file for --report: what came of each row that was
// refused or changed something of a server or account. It holds no hash.
type importReport struct {
	List        string         `json:"list"`
	Format      string         `json:"format"`
	DryRun      bool           `json:"dry_run"`
	Done        bool           `json:"done"`
	Error       string         `json:"error,omitempty"`
	Rows        uint64         `json:"rows"`
	Added       uint64         `json:"added"`
	Changed     uint64         `json:"changed"`
	Retracted   uint64         `json:"retracted"`
	Same        uint64         `json:"same"`
	Held        string         `json:"held"`
	Refused     uint64         `json:"refused"`
	RefusedRows []refusedRow   `json:"refused_rows"` // at most 10,000
	Changes     []importChange `json:"changes"`      // at most 10,000

	file *os.File // nil if nobody asked
}

type importChange struct {
	Subject string       `json:"subject"`
	Old     *importTerms `json:"old"`
	New     *importTerms `json:"new"`
}

type importTerms struct {
	Action string   `json:"action"`
	Labels []string `json:"labels"`
	Reason string   `json:"reason"`
}

func changeOf(c *pb.ImportChange) importChange {
	terms := func(t *pb.ImportTerms) *importTerms {
		if t == nil {
			return nil
		}
		return &importTerms{hashlist.Action(t.GetAction()).String(), some(t.GetLabels()), t.GetReason()}
	}
	return importChange{c.GetSubject(), terms(c.GetOld()), terms(c.GetNew())}
}

// String is one line for people.
func (c importChange) String() string {
	switch {
	case c.Old == nil:
		return "+ " + c.Subject + "  " + c.New.String()
	case c.New == nil:
		return "- " + c.Subject + "  " + c.Old.String()
	}
	return "~ " + c.Subject + "  " + c.Old.String() + "  ->  " + c.New.String()
}

func (t *importTerms) String() string {
	parts := append([]string{t.Action}, t.Labels...)
	if t.Reason != "" {
		parts = append(parts, fmt.Sprintf("%q", t.Reason))
	}
	return strings.Join(parts, " ")
}

// create makes the file before anything is done, so that a report that cannot be written is not
// found out when it is too late.
func (r *importReport) create(path string) error {
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists already and is left as it is", path)
	} else if err != nil {
		return named("write the report to", path, err)
	}
	r.file = f
	return nil
}

func (r *importReport) close() {
	if r.file != nil {
		r.file.Close()
	}
}

func (r *importReport) add(m *pb.ImportResponse) {
	if r.file == nil {
		return
	}
	for _, row := range m.GetRefusedRows() {
		r.RefusedRows = append(r.RefusedRows, refusedRow{row.GetLine(), row.GetReason()})
	}
	for _, c := range m.GetChanges() {
		r.Changes = append(r.Changes, changeOf(c))
	}
}

// write writes the report. failed is how the import ended.
func (r *importReport) write(sum *pb.ImportResponse, failed error) error {
	if r.file == nil {
		return nil
	}
	r.Format, r.Done, r.Rows, r.Added = sum.GetFormat(), sum.GetDone(), sum.GetRows(), sum.GetListed()
	r.Changed, r.Retracted, r.Same, r.Held, r.Refused = sum.GetChanged(), sum.GetRetracted(), sum.GetSkipped(), sum.GetHeld(), sum.GetRefused()
	if r.DryRun {
		r.Added = sum.GetFresh()
	}
	if failed != nil {
		r.Error = failed.Error()
	}
	e := json.NewEncoder(r.file)
	e.SetIndent("", "  ")
	err := e.Encode(r)
	if err == nil {
		err = r.file.Sync()
	}
	if err != nil {
		return named("write the report to", r.file.Name(), err)
	}
	return nil
}
