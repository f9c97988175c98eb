package federation

import (
	"errors"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// The operator's side of a Node: what a person may ask of it. All of it may be
// called concurrently, also before Run and after it has returned.

// What callers branch on.
var (
	// ErrUnknownList: neither a list of this node nor one that it follows or has followed.
	ErrUnknownList = errors.New("there is no such list here")
	// ErrUnknownFollower: nobody of that address follows the list or asked to.
	ErrUnknownFollower = errors.New("there is no such follower")
	// ErrState: the thing is there, but not in a state in which it can be done.
	ErrState = errors.New("not in this state")
	// ErrRemote: another server could not be reached, or what it answered will not do.
	ErrRemote = errors.New("another server")
)

// FollowStatus is a follow and how far it has come.
type FollowStatus struct {
	Follow
	Terms    Terms
	Name     string    // the list's name, as its publisher calls it; may be empty
	Summary  string    // what is on it, in the publisher's words
	Issuers  []string  // IRIs of those who may write to it
	Position uint64    // statements taken over, of known kinds or not
	HeadSize uint64    // statements the publisher has shown a signed head for
	Headless bool      // statements came, and never a signed head: nothing shows whether others get the same
	Checked  time.Time // when the publisher was last asked successfully; zero for not since the start
}

// FollowerStatus is a follower and how far delivery has come.
type FollowerStatus struct {
	Follower
	ListName string
	Size     uint64 // statements on the list
}

// PeerStatus is another server this node has to do with.
type PeerStatus struct {
	Origin    string    // scheme, host and port
	Follows   int       // lists of it that this node follows
	Followers int       // approved followers of it
	Failing   time.Time // since when nothing could be delivered; zero if it goes well
	Failures  uint32
	Retired   bool
	Next      time.Time // when delivery is tried again; zero if there is nothing to wait for
	Trouble   string
	Scheme    string    // how it takes signed requests: rfc9421, cavage, or "" while unknown
	Heard     time.Time // last signed request of it; zero for not since the start
}

// OutboxStatus is one of this node's own lists as others see it.
type OutboxStatus struct {
	List      string
	Name      string
	Audience  hashlist.Audience
	Size      uint64   // statements
	Root      [32]byte // of the Merkle tree over them
	Head      string   // the signed head, a C2SP checkpoint
	Followers int      // approved
	Waiting   int      // of them asked and not yet answered
	Behind    int      // approved followers to whom something is still to be delivered
}

// Check is one thing that was looked at.
type Check struct {
	Name   string // a few words
	Passed bool
	Detail string // what was found, or what is wrong and what to do
	Alarm  bool   // it failed, and not by accident: somebody altered something, or said two things that cannot both be true
}

// Inspection tells what lies at an address and what is to be thought of it.
type Inspection struct {
	Address string
	Kind    string // node, issuer, list, statement, or actor for what is none of these
	ID      string
	Summary []string // what it says of itself, a line each; no hashes
	Checks  []Check
}

// Passed reports whether every check passed.
func (i *Inspection) Passed() bool { return passed(i.Checks) }

// Verification tells whether a list is complete and the same for everybody.
type Verification struct {
	List   string
	Size   uint64 // statements checked
	Root   [32]byte
	Checks []Check
}

// Passed reports whether every check passed.
func (v *Verification) Passed() bool { return passed(v.Checks) }

func passed(all []Check) bool {
	for _, c := range all {
		if !c.Passed {
			return false
		}
	}
	return true
}
