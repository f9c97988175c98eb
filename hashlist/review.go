package hashlist

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"
)

// Bounds of what waits for a person's decision.
const (
	MaxReviewID    = 128       // bytes of an id
	MaxReviewWho   = 128       // bytes of who has decided
	MaxReviewBody  = 256 << 10 // bytes that the owner of a kind keeps beside an item
	MaxDecisions   = 100       // on one item: two people who disagree for longer have to talk
	MaxOpenReviews = 2000      // of one kind that are not decided; what does not fit is refused with ErrReviewsFull
)

// ReviewKind says why a person has to look at something. The numbers are stored in
// databases: they are never reused.
type ReviewKind uint8

// The kinds of review.
const (
	ReviewHeld       ReviewKind = 1  // an upload was held, or would have been
	ReviewHit        ReviewKind = 2  // something that was accepted earlier is listed now
	ReviewDispute    ReviewKind = 3  // another issuer finds a statement of ours wrong
	ReviewQuarantine ReviewKind = 4  // a statement, a list or a rule would match more than expected
	ReviewKey        ReviewKind = 5  // an issuer has another key than before
	ReviewSource     ReviewKind = 6  // a run of a source changes more than it may unasked
	ReviewAct        ReviewKind = 7  // an act on a platform waits for approval
	ReviewPreserve   ReviewKind = 8  // what was reported must be kept, or may be deleted now
	ReviewAppeal     ReviewKind = 9  // somebody whose upload was refused says that this was wrong
	ReviewProposal   ReviewKind = 10 // statements that one person wants made, for a second to agree to
)

var reviewKinds = [...]string{"", "held", "hit", "dispute", "quarantine", "key", "source", "act", "preserve", "appeal", "proposal"}

// ReviewKinds are all kinds, in the order of their numbers.
var ReviewKinds = [...]ReviewKind{ReviewHeld, ReviewHit, ReviewDispute, ReviewQuarantine, ReviewKey, ReviewSource, ReviewAct,
	ReviewPreserve, ReviewAppeal, ReviewProposal}

// String returns held, hit, dispute, quarantine, key, source, act, preserve,
// appeal or proposal.
func (k ReviewKind) String() string { return nameOf("review", reviewKinds[:], uint8(k)) }

// ParseReviewKind reads what String prints.
func ParseReviewKind(s string) (ReviewKind, error) {
	n, err := numberOf("kind of review", reviewKinds[:], s)
	return ReviewKind(n), err
}

// ReviewState says how far an item has come. The numbers are stored in databases:
// they are never reused.
type ReviewState uint8

// The states of an item.
const (
	ReviewOpen     ReviewState = 1 // nobody has decided
	ReviewProposed ReviewState = 2 // one person has, and a second must agree: the last of Decisions is what was proposed
	ReviewDecided  ReviewState = 3 // the last of Decisions counts
	ReviewClosed   ReviewState = 4 // it has settled itself, so that there is nothing left to decide
)

var reviewStates = [...]string{"", "open", "proposed", "decided", "closed"}

// String returns open, proposed, decided or closed.
func (s ReviewState) String() string { return nameOf("state", reviewStates[:], uint8(s)) }

// ParseReviewState reads what String prints.
func ParseReviewState(s string) (ReviewState, error) {
	n, err := numberOf("state of a review", reviewStates[:], s)
	return ReviewState(n), err
}

// Waiting reports whether a person still has to decide.
func (s ReviewState) Waiting() bool { return s == ReviewOpen || s == ReviewProposed }

// ReviewChoice is what a person can decide. Which make sense depends on the kind. The
// numbers are stored in databases: they are never reused.
type ReviewChoice uint8

// The choices.
const (
	ChooseConfirm  ReviewChoice = 1  // the statement is right: say so, as a statement of ours
	ChooseDispute  ReviewChoice = 2  // it is wrong: say so to its issuer and to those who listen to us
	ChooseBan      ReviewChoice = 3  // list the picture here
	ChooseAllow    ReviewChoice = 4  // the picture is harmless, whatever others say
	ChooseIgnore   ReviewChoice = 5  // the statement does not act here; nobody is told
	ChooseRelease  ReviewChoice = 6  // let go what was kept back
	ChooseKeep     ReviewChoice = 7  // keep it back, or keep what was preserved
	ChooseDismiss  ReviewChoice = 8  // there is nothing to do
	ChooseUphold   ReviewChoice = 9  // our disputed statement is right: say so
	ChooseWithdraw ReviewChoice = 10 // our disputed statement was wrong: retract it
	ChooseApprove  ReviewChoice = 11 // do what waits for approval
)

var reviewChoices = [...]string{"", "confirm", "dispute", "ban", "allow", "ignore", "release", "keep", "dismiss", "uphold", "withdraw", "approve"}

// String returns confirm, dispute, ban, allow, ignore, release, keep, dismiss,
// uphold, withdraw or approve.
func (c ReviewChoice) String() string { return nameOf("choice", reviewChoices[:], uint8(c)) }

// ParseReviewChoice reads what String prints.
func ParseReviewChoice(s string) (ReviewChoice, error) {
	n, err := numberOf("decision", reviewChoices[:], s)
	return ReviewChoice(n), err
}

func nameOf(what string, names []string, n uint8) string {
	if n > 0 && int(n) < len(names) {
		return names[n]
	}
	return fmt.Sprintf("%s(%d)", what, n)
}

func numberOf(what string, names []string, s string) (uint8, error) {
	for i, name := range names {
		if i > 0 && name == s {
			return uint8(i), nil
		}
	}
	return 0, fmt.Errorf("unknown %s %.40q", what, s)
}

// Review is one thing that waits for a person's decision, or waited for one. It
// holds facts, distances and who said what; never a picture, and where people see it
// never a hash.
type Review struct {
	// Seq is its place in the order in which items came, from 1; given by AddReview.
	Seq uint64
	// ID is chosen by the part that asks, the same for the same thing, so that what is
	// asked twice waits once: 1 to MaxReviewID bytes of a-z, 0-9 and inner hyphens.
	ID       string
	Kind     ReviewKind
	State    ReviewState
	At       time.Time // when it was first asked; UTC, whole microseconds
	Last     time.Time // when it was last asked
	Count    uint64    // how often it was asked, at least 1
	Deadline time.Time // by when somebody should have decided; zero for what the node sets for the kind
	Settled  time.Time // since when nobody has to decide any more; given by ChangeReview

	// What it is about; each may be empty.
	Verdict   string // id of the verdict in the audit log
	Statement string // id of the statement
	List      string // IRI of its list
	Issuer    string // IRI of its issuer, or of who disputes or has another key
	Reference Reference
	Distance  int    // bits; of the nearest match
	Algorithm string // of that match; "" for none
	Summary   string // what a person has to know, in a few sentences; at most MaxReason bytes

	Decisions []ReviewDecision // the oldest first, at most MaxDecisions
	Body      []byte           // for the part that asks; at most MaxReviewBody bytes. It is shown to nobody.
}

// ReviewDecision is what one person decided.
type ReviewDecision struct {
	Who        string       // name of the token or of the socket, and what the caller said of themselves
	When       time.Time    // UTC, whole microseconds
	What       ReviewChoice //
	Why        string       // at most MaxReason bytes
	Labels     []string     `json:",omitempty"` // with ChooseBan: of the statement, sorted
	Expires    time.Time    `json:",omitzero"`  // when the statement lapses; zero for never
	Statements []string     `json:",omitempty"` // ids of those that were made because of it
}

// SameAs reports whether two people decided the same.
func (d *ReviewDecision) SameAs(o *ReviewDecision) bool {
	return d.What == o.What && slices.Equal(d.Labels, o.Labels) && d.Expires.Equal(o.Expires)
}

// Validate reports the first way in which r breaks the bounds that its fields document.
func (r *Review) Validate() error {
	switch {
	case r.ID == "" || len(r.ID) > MaxReviewID || !isReviewID(r.ID):
		return fmt.Errorf("id %.80q of a review is not 1 to %d of a-z, 0-9 and inner hyphens", r.ID, MaxReviewID)
	case r.Kind < ReviewHeld || r.Kind > ReviewProposal:
		return fmt.Errorf("review has the unknown kind %d", r.Kind)
	case r.State < ReviewOpen || r.State > ReviewClosed:
		return fmt.Errorf("review has the unknown state %d", r.State)
	case r.At.IsZero() || r.Last.Before(r.At) || r.Count < 1:
		return errors.New("review lacks the time or the number of times it was asked")
	case r.Distance < 0 || r.Distance > 256:
		return fmt.Errorf("distance %d is not 0 to 256", r.Distance)
	case len(r.Body) > MaxReviewBody:
		return fmt.Errorf("review has a body of %d bytes, more than %d", len(r.Body), MaxReviewBody)
	case len(r.Decisions) > MaxDecisions:
		return fmt.Errorf("review has %d decisions, more than %d", len(r.Decisions), MaxDecisions)
	case r.State == ReviewProposed && len(r.Decisions) == 0, r.State == ReviewDecided && len(r.Decisions) == 0:
		return fmt.Errorf("review is %v, but nobody has decided", r.State)
	}
	for _, f := range [...]struct {
		what, text string
		most       int
	}{
		{"verdict", r.Verdict, MaxIRI}, {"statement", r.Statement, MaxIRI}, {"list", r.List, MaxIRI}, {"issuer", r.Issuer, MaxIRI},
		{"algorithm", r.Algorithm, MaxName},
	} {
		if len(f.text) > f.most {
			return fmt.Errorf("%s of a review has %d bytes, more than %d", f.what, len(f.text), f.most)
		}
	}
	if err := r.Reference.Validate(); err != nil {
		return fmt.Errorf("reference of a review: %w", err)
	}
	if err := checkText("summary", r.Summary); err != nil {
		return err
	}
	for _, d := range r.Decisions {
		if d.What < ChooseConfirm || d.What > ChooseApprove {
			return fmt.Errorf("unknown decision %d", d.What)
		}
		if d.Who == "" || len(d.Who) > MaxReviewWho || !utf8.ValidString(d.Who) || d.When.IsZero() {
			return errors.New("decision lacks who made it, or when")
		}
		if err := checkText("reason of a decision", d.Why); err != nil {
			return err
		}
		if err := CheckLabels(d.Labels); err != nil {
			return err
		}
	}
	return nil
}

func isReviewID(id string) bool {
	for i, c := range []byte(id) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && (c != '-' || i == 0 || i == len(id)-1) {
			return false
		}
	}
	return true
}

// ReviewSelection chooses reviews. The zero ReviewSelection takes all.
type ReviewSelection struct {
	Kinds  []ReviewKind  // none for all
	States []ReviewState // none for all
	After  uint64        // only those behind this place
	Limit  int           // at most so many; 0 for 1000
}

// What callers of Reviews branch on.
var (
	ErrNoReview    = errors.New("nothing of this id waits or has waited for a decision")
	ErrReviewsFull = errors.New("too many of this kind wait for a decision already")
)

// Reviews keeps what waits for a person's decision. Methods may be called concurrently.
type Reviews interface {
	// AddReview stores an item durably and returns true. If there is one of its ID it
	// changes nothing and returns false. Seq is given, and zero values of At, Last, Count and
	// State become now, At, 1 and open. It fails with ErrReviewsFull if
	// MaxOpenReviews of the kind wait.
	AddReview(ctx context.Context, r Review) (added bool, err error)

	// FindReview returns the item of an id, and false if there is none.
	FindReview(ctx context.Context, id string) (Review, bool, error)

	// Reviews returns items in the order of their places, without their bodies.
	Reviews(ctx context.Context, only ReviewSelection) ([]Review, error)

	// ChangeReview lets change alter an item, and stores it durably unless change fails.
	// Nobody else changes it meanwhile; change must not call the store. Seq, ID and Kind stay. It fails
	// with ErrNoReview, or with what change returned.
	ChangeReview(ctx context.Context, id string, change func(*Review) error) (Review, error)

	// WaitReviews returns once an item behind place seq was added.
	WaitReviews(ctx context.Context, seq uint64) error

	// DropReviews deletes the items that have waited no more since before, and returns how many.
	DropReviews(ctx context.Context, before time.Time) (int, error)
}
