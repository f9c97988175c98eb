// Package revisit looks again at pictures that stay on other people's servers. Such a picture can
// be swapped after it was approved, and then whoever links to it shows what nobody
// has looked at. A caller hands over addresses; they are fetched on a schedule, and what changed
// beyond its radius, or matches by now, is told once.
//
// The servers are strangers, and so is who posted the address: the client that fetches must be one
// that reaches public addresses only. Of a picture only hashes are kept.
package revisit

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// State is what was found at an address when it was last asked.
type State uint8

// The states.
const (
	New     State = 1 // not fetched yet
	Same    State = 2 // within its radius of what was approved
	Changed State = 3 // something else is there now; told once
	Matched State = 4 // what is there is listed; told once
	Gone    State = 5 // 404 or 410; told once, and asked for again, seldom
	Failing State = 6 // it cannot be fetched, or not be examined
)

var states = [...]string{"", "new", "same", "changed", "matched", "gone", "failing"}

// String returns the state's word.
func (s State) String() string {
	if s >= New && int(s) < len(states) {
		return states[s]
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// Address is one address that is looked at again.
type Address struct {
	URL   string // https; at most MaxURL bytes
	Post  string // where it is shown, for people; may be empty
	Actor string // who posted it; may be empty
	Added time.Time
	State State
	// Approved are the hashes of the picture as it was when it was handed over, or else
	// first fetched: the PDQ hash of its first frame, absent if that is too flat, and its SHA-256.
	Approved []hashlist.Hash
	// What the server said of the picture, so that it need not send it again.
	ETag, LastModified string
	Checked            time.Time // when it was last asked; zero for never
	Next               time.Time
	Failures           int    // in a row
	Told               string // the SHA-256, in hex, of what was last told of; "gone" for an empty place
	Note               string // for people; holds no hash
}

// MaxURL is the longest address, in bytes.
const MaxURL = 2048

// Validate reports the first mistake of a.
func (a *Address) Validate() error {
	u, err := url.Parse(a.URL)
	switch {
	case len(a.URL) > MaxURL || len(a.Post) > MaxURL || len(a.Actor) > MaxURL:
		return fmt.Errorf("an address has more than %d bytes", MaxURL)
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.Fragment != "":
		return errors.New("it is not an address such as https://far.example/picture.png")
	case strings.ContainsFunc(a.URL, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return errors.New("an address has no spaces and no control characters")
	case a.State < New || int(a.State) >= len(states):
		return fmt.Errorf("its state is %d", a.State)
	case len(a.Approved) > 2:
		return errors.New("it has more than two approved hashes")
	}
	return nil
}

// Addresses keeps addresses. Methods may be called concurrently.
type Addresses interface {
	// Addresses returns all, in the order of their URLs.
	Addresses(context.Context) ([]Address, error)
	// SaveAddress stores one over another of the same URL, durably.
	SaveAddress(context.Context, Address) error
	// DropAddress removes one, and reports whether it was there.
	DropAddress(ctx context.Context, url string) (bool, error)
}
