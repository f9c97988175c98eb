package platform

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// Kind is what an act does.
type Kind string

// The kinds of acts.
const (
	RemovePost    Kind = "remove-post"    // hide a post, as a moderator does; Lemmy, PieFed
	PurgePost     Kind = "purge-post"     // delete a post and its pictures from the database; Lemmy
	BanPerson     Kind = "ban-person"     // Lemmy, PieFed
	BlockInstance Kind = "block-instance" // Lemmy, Mastodon
	DeleteMedia   Kind = "delete-media"   // delete one alias of a file; pict-rs
	Sensitive     Kind = "sensitive"      // mark all that an account posts as sensitive; Mastodon
	Suspend       Kind = "suspend"        // suspend an account; Mastodon
)

// offers tells which acts the API of each platform has.
var offers = map[string][]Kind{
	"lemmy":    {RemovePost, PurgePost, BanPerson, BlockInstance},
	"pictrs":   {DeleteMedia},
	"mastodon": {Sensitive, Suspend, BlockInstance},
	"piefed":   {RemovePost, BanPerson}, // an instance is blocked there for one user only
}

// final are the acts that no request takes back.
var final = map[Kind]string{
	PurgePost:   "a purged post is gone from the database of Lemmy, with its pictures",
	DeleteMedia: "a deleted file is gone from pict-rs",
}

// State is how far an act is.
type State uint8

// The states. Those from Done on are where an act rests until a person moves it.
const (
	Waiting  State = 1  // a person must approve it
	Due      State = 2  // it will be done
	Doing    State = 3  // a request that does it may have left
	Undoing  State = 4  // a request that takes it back may have left, or will
	Done     State = 5  // the platform confirms it
	Needless State = 6  // it was so already, or its target is gone: nothing was changed
	Dry      State = 7  // it would have been done, but for dry_run
	Declined State = 8  // a person, or a rule that protects somebody, said no
	Failed   State = 9  // the platform refused, or could not be reached for too long
	Unsure   State = 10 // cut off in the middle, and the platform does not show whether it was done
	Undone   State = 11 // taken back
)

var states = [...]string{"", "waiting", "due", "doing", "undoing", "done", "needless", "dry-run", "declined", "failed", "unsure", "undone"}

// String returns the state's word.
func (s State) String() string {
	if s >= Waiting && int(s) < len(states) {
		return states[s]
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// Open reports whether the desk still has work with an act in this state.
func (s State) Open() bool { return s == Due || s == Doing || s == Undoing }

// Finding is a verdict, or a hit in the recent window, that may call for acts. It holds no
// hash and no picture.
type Finding struct {
	ID        string // of the verdict or the hit: the same one again asks for nothing new
	At        time.Time
	Verdict   hashlist.Verdict
	Labels    []string
	Statement string
	List      string
	Issuer    string
	Why       string // one sentence for people
	// What the caller said of the file when it came: the address it is shown at, its name in
	// pict-rs, the post and the account. Any may be empty; an act whose target is not known is
	// not proposed. Who uploads may have chosen them.
	URL, Alias, Post, Actor string
}

// Decision is what a person did about an act.
type Decision struct {
	Who  string
	At   time.Time
	What string // approve, decline, undo or run
	Why  string
}

// Act is one thing done, or to be done, to one target on one platform.
type Act struct {
	ID       string
	Platform string // its name in the configuration
	Kind     Kind
	Target   string // address of a post or an actor, a domain, or an alias
	State    State
	Soft     bool // in its softer form: see Softer
	Made     time.Time
	Changed  time.Time
	Begun    time.Time // when a request that changes something last was about to leave; zero for never
	Tries    int
	Next     time.Time // not before; zero for at once
	Note     string    // what happened last, for people; holds no hash and no secret
	Finding  Finding
	Before   []byte     // JSON: what of the target's state an undo needs
	People   []Decision // in their order
}

// Undo says how an act is taken back.
func (a *Act) Undo() string {
	if why, ok := final[a.Kind]; ok {
		return "cannot be undone: " + why
	}
	switch a.State {
	case Done, Undoing:
		return "tocsin acts undo " + a.ID
	case Undone:
		return "undone"
	}
	return "nothing to undo: it is " + a.State.String()
}

// Does says in a few words what the act does, or did.
func (a *Act) Does() string {
	verb := map[Kind]string{
		RemovePost: "remove post", PurgePost: "purge post", BanPerson: "ban", BlockInstance: "block instance",
		DeleteMedia: "delete file", Sensitive: "mark as sensitive", Suspend: "suspend",
	}[a.Kind]
	if a.Soft {
		verb = Softer(a.Kind)
	}
	return verb + " " + a.Target
}

// Softer is what an act becomes while people of the platform itself follow its
// target: they would lose their follows for good, which no undo brings back.
func Softer(k Kind) string {
	switch k {
	case Suspend:
		return "silence"
	case BlockInstance:
		return "silence instance, without media,"
	}
	return string(k)
}

// target is what an act of the kind is done to, as far as a finding tells; "" if it does not.
func (f *Finding) target(k Kind) string {
	switch k {
	case RemovePost, PurgePost:
		return address(f.Post)
	case BanPerson, Sensitive, Suspend:
		return address(f.Actor)
	case BlockInstance:
		return host(f.Actor)
	case DeleteMedia:
		if validAlias(f.Alias) {
			return f.Alias
		}
	}
	return ""
}

// validAlias reports whether s can be a name that pict-rs gives. Nothing else belongs in
// the address of a request to it.
func validAlias(s string) bool {
	return len(s) >= 5 && len(s) <= 255 && !strings.Contains(s, "..") && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.')
	})
}

// Offers returns the acts that a platform's API has, nil for a kind of platform that there is not.
func Offers(kind string) []Kind { return slices.Clone(offers[kind]) }
