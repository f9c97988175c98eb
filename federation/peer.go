package federation

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// FollowState is how far this node has come with a list of another node. The
// numbers are stored in databases: they are never reused.
type FollowState uint8

// The states of a follow.
const (
	FollowAsked    FollowState = 1 // no answer yet
	FollowAccepted FollowState = 2 // the list's statements come in
	FollowRefused  FollowState = 3 // its publisher said no, or ended it
	FollowEnded    FollowState = 4 // ended by this node; what came before stays in the log, and does not act
	FollowDiverged FollowState = 5 // its publisher showed a history that contradicts itself; nothing more is taken over
)

// Follow is a list of another node that this node follows, asked to, or once did.
type Follow struct {
	List     string           // IRI of the list
	ID       string           // IRI of the Follow activity, the last one sent
	State    FollowState      //
	Most     hashlist.Verdict // the gravest verdict that its matches may come to here
	Asked    time.Time        // UTC, whole microseconds, as all times here
	Answered time.Time        // zero while there is no answer
	Actor    []byte           // the list's actor document as it was last fetched, at most 64 KiB
	Told     bool             // the last thing sent, a Follow or its Undo, has reached the publisher
	Head     []byte           // the newest signed head that agreed with what was taken over, at most 4 KiB
	Skipped  uint64           // statements of kinds that this program does not know: counted, not taken over
	Trouble  string           // what is wrong at the moment, for people; at most 1,000 bytes
}

// FollowerState is what was decided about a follower. The numbers are stored in
// databases: they are never reused.
type FollowerState uint8

// The states of a follower.
const (
	FollowerAsked    FollowerState = 1 // waits for a person's decision
	FollowerApproved FollowerState = 2
	FollowerRejected FollowerState = 3 // by this node, before or after it was approved
	FollowerLeft     FollowerState = 4 // undone by the follower itself
)

// Follower is an actor of another node that follows a list of this one, asked
// to, or once did.
type Follower struct {
	List     string // IRI of the list
	Actor    string // IRI of the follower
	Inbox    string // where to deliver: the shared inbox if there is one
	Follow   string // IRI of the Follow activity that counts
	State    FollowerState
	Asked    time.Time
	Decided  time.Time // zero while nothing is decided
	Told     bool      // the decision has reached the follower
	Position uint64    // statements of the list that were delivered, or that it was told to fetch
}

// Peer is what is known of an inbox that this node delivers to.
type Peer struct {
	Inbox    string    // an address
	Failing  time.Time // since when every delivery failed; zero if the last one went well
	Failures uint32    // in a row
	Retired  bool      // nothing is delivered any more, until the peer is heard of again
	Trouble  string    // the last failure, for people; at most 1,000 bytes
}

// Key is a key of an issuer of another node, as its actor document told.
type Key struct {
	Issuer  string            // IRI
	Method  string            // IRI of the key: the issuer's, # and the Multikey
	Public  ed25519.PublicKey //
	Seen    time.Time         // when this node first saw it
	Expires time.Time         // proofs made then or later do not count; zero for never
	Revoked time.Time         // it was in other hands from then on: what was signed then or later does not count; zero for never
	State   KeyState          // is not saved with it: see KeyMark
}

// KeyState says how far this node takes a key for its issuer's. The numbers are stored in
// databases: they are never reused.
type KeyState uint8

// The states of a key.
const (
	KeyFirst    KeyState = 0 // there when this node met the issuer
	KeyBacked   KeyState = 1 // signed for by one that was taken for the issuer's
	KeyDoubted  KeyState = 2 // came later, and only the issuer's server says that it is theirs: what it signs waits
	KeyVerified KeyState = 3 // a person has compared its fingerprint with the issuer's
)

var keyStates = [...]string{"first", "backed", "doubted", "verified"}

// String returns first, backed, doubted or verified.
func (s KeyState) String() string {
	if int(s) < len(keyStates) {
		return keyStates[s]
	}
	return fmt.Sprintf("key state(%d)", uint8(s))
}

// KeyMark is what this node found out of a key, of its own issuers or others'.
type KeyMark struct {
	Issuer string   // IRI
	Method string   // IRI of the key, as in Key
	State  KeyState // KeyBacked, KeyDoubted or KeyVerified
	At     time.Time
	Who    string // who compared it, at most 128 bytes; "" for nobody
	Old    string // IRI of the key that backs it, "" for none
	Proof  string // by Old, at most 128 bytes; see succession
}

// Terms say what a followed list counts for, beside Follow.Most.
type Terms struct {
	List      string // IRI
	ByTrust   bool   // those who write to it are believed as far as they are vouched for, and not because it is followed
	TrustOnly bool   // it was followed by this node itself, for whom its issuers vouch for: nothing else of it is taken over
}

// Peers keeps what a node has agreed with others. Methods may be called
// concurrently. What is saved is durable when the method returns, but for
// SavePositions, whose loss costs a repetition and nothing else. After an error
// it may or may not have been saved: saving it again settles it, and for leaves,
// asking how many there are.
//
// What cannot be right is refused, and nothing changes: a list or issuer that
// hashlist.Origin refuses, another address that is empty, longer than
// hashlist.MaxIRI or has blanks, text that is not UTF-8 or has a NUL, counts of 2^63 and more, an
// unknown state or verdict, a missing Asked or Seen, a time in the first
// microsecond of 1970 or before it or behind 9999, a Method that does not fit its
// Issuer and Public. Who takes such values from strangers sees to it that none
// of them keeps the rest of what that stranger said, a revocation say, from being
// saved. Empty Actor and Head come back as nil. Reading fails as a whole if any
// of what is asked for is damaged.
//
// Whoever can write to its storage can make this node follow lists, serve its
// lists to strangers, and take keys for an issuer's that are not.
type Peers interface {
	Follows(context.Context) ([]Follow, error) // by List
	SaveFollow(context.Context, Follow) error  // a new one, or in the place of the one of the same List

	// Leaves returns the hashes of the leaves of a followed list's Merkle tree
	// from place from on, as AppendLeaves was given them; none if there are no more.
	Leaves(ctx context.Context, list string, from uint64) ([][32]byte, error)
	// AppendLeaves adds leaves at place at, all or none. If at is not how many
	// there are, that is an error, and nothing changes.
	AppendLeaves(ctx context.Context, list string, at uint64, leaves [][32]byte) error
	// DropLeaves removes all leaves of a list, so that it can be followed anew.
	DropLeaves(ctx context.Context, list string) error

	Followers(context.Context) ([]Follower, error) // by List, then Actor
	SaveFollower(context.Context, Follower) error  // a new one, or in the place of the one of the same List and Actor
	// SavePositions sets the Position of followers that are there; others are passed over.
	SavePositions(context.Context, []Follower) error

	Peers(context.Context) ([]Peer, error) // by Inbox
	SavePeer(context.Context, Peer) error  // a new one, or in the place of the one of the same Inbox

	Keys(context.Context) ([]Key, error)   // by Issuer, then Method
	SaveKeys(context.Context, []Key) error // new ones, or in the place of those of the same Method; all or none

	KeyMarks(context.Context) ([]KeyMark, error) // by Method
	SaveKeyMark(context.Context, KeyMark) error  // a new one, or in the place of the one of the same Method; its key need not be there

	Terms(context.Context) ([]Terms, error) // by List
	SaveTerms(context.Context, Terms) error // new ones, or in the place of those of the same List, which need not be followed
}
