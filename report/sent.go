package report

import (
	"context"
	"time"
)

// Sent is a report of a verdict to an agency.
type Sent struct {
	Verdict string
	Agency  string    // ncmec, or the name of a hotline that a person told
	Number  string    // the agency's; "" while it is not known whether the report was taken
	Begun   time.Time // when it was about to be sent
	Sent    time.Time // zero for not yet
	Who     string
}

// Reports keeps what was reported. Methods may be called concurrently.
type Reports interface {
	// Reports returns all, in the order of their verdicts.
	Reports(context.Context) ([]Sent, error)
	// SaveReport stores one over another of the same verdict and agency, durably.
	SaveReport(context.Context, Sent) error
}
