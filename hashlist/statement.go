package hashlist

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Bounds of one statement. They hold for every statement that enters a log,
// whoever made it.
const (
	MaxHashes = 1000 // hashes in one statement
	MaxLabels = 16   // labels on a statement or a list
	MaxReason = 2000 // bytes of a reason or summary
	MaxIRI    = 512  // bytes of an id, issuer or list
	MaxName   = 64   // bytes of a list's name or a label
)

// Kind says what a statement does. The numbers are stored in databases: they
// are never reused.
type Kind uint8

// The kinds of statement.
const (
	AddHashes  Kind = 1 // puts hashes on a list
	Retraction Kind = 2 // withdraws an earlier statement of the same issuer, or some of its hashes or subjects
	DefineList Kind = 3 // names a list and says how what is on it is to be used

	AddAccounts  Kind = 4 // puts accounts on a list
	AddInstances Kind = 5 // puts whole servers on a list
	AddContent   Kind = 6 // puts posts and files on a list by their addresses: you may hold a copy of this
	Confirmation Kind = 7 // says that a statement, of another issuer mostly, is right
	Dispute      Kind = 8 // says that it is wrong
	Vouch        Kind = 9 // says how far another issuer is to be believed
)

var kinds = [...]string{"", "add", "retraction", "list", "accounts", "instances", "content", "confirmation", "dispute", "vouch"}

// String returns add, retraction, list, accounts, instances, content,
// confirmation, dispute or vouch.
func (k Kind) String() string {
	if k >= AddHashes && int(k) < len(kinds) {
		return kinds[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Action is what an issuer recommends to do with media that match, in the
// words of FIRES. The zero Action leaves it to the list. The numbers are
// stored in databases: they are never reused.
type Action uint8

// The recommended actions, mildest first.
const (
	Accept Action = 1 // known to be harmless: suppresses other matches
	Filter Action = 2 // let through, marked
	Reject Action = 3 // refuse
	Drop   Action = 4 // refuse, and keep nothing of it
)

var actions = [...]string{"", "accept", "filter", "reject", "drop"}

// String returns accept, filter, reject or drop, and "" for the zero Action.
func (a Action) String() string {
	if int(a) < len(actions) {
		return actions[a]
	}
	return fmt.Sprintf("action(%d)", uint8(a))
}

// ParseAction reads what String prints; "" is the zero Action.
func ParseAction(s string) (Action, error) {
	for i, name := range actions {
		if name == s {
			return Action(i), nil
		}
	}
	return 0, fmt.Errorf("unknown action %.40q (want accept, filter, reject or drop)", s)
}

// Audience says who may read a list. The numbers are stored in databases: they
// are never reused.
type Audience uint8

// The audiences, narrowest first.
const (
	Local     Audience = 1 // never leaves this node
	Followers Audience = 2 // approved followers only
	Public    Audience = 3 // anybody
)

var audiences = [...]string{"", "local", "followers", "public"}

// String returns local, followers or public.
func (a Audience) String() string {
	if a >= Local && int(a) < len(audiences) {
		return audiences[a]
	}
	return fmt.Sprintf("audience(%d)", uint8(a))
}

// ParseAudience reads what String prints.
func ParseAudience(s string) (Audience, error) {
	for i, name := range audiences[1:] {
		if name == s {
			return Audience(i + 1), nil
		}
	}
	return 0, fmt.Errorf("unknown audience %.40q (want local, followers or public)", s)
}

// Radii holds, for each algorithm, the Hamming distance in bits up to which a
// hash counts as a match. It is indexed by Algorithm; digests have radius 0.
type Radii [VPDQ + 1]uint8

// DefaultRadii is what a list gets that does not say otherwise. 31 is the
// customary radius of PDQ, also for the frames of videos; the two 64-bit hashes tell much less apart, and so
// get less than the 10 bits often used with them.
var DefaultRadii = Radii{PDQ: 31, PHash: 8, DHash: 6, VPDQ: 31}

// PartnerData is the label that marks a list as made of data of a partner, such as a
// clearing house of hashes, who gave it to this node alone. A list is marked for good: once
// a definition in the log has the label, no later one, no retraction and no
// setting takes it off, and the audience of the list is Local whatever a definition
// says; see List.Partner.
const PartnerData = "partner-data"

// Definition says what a list is for. It is carried by a DefineList statement.
type Definition struct {
	Name     string   // how people write it: a-z, 0-9 and -, at most MaxName bytes
	Summary  string   // what is on it, for people
	Labels   []string // apply to every hash on the list, sorted
	Audience Audience
	Action   Action // what to do with a match, unless the statement says otherwise
	Radii    Radii
}

// Statement is what one issuer said, once.
type Statement struct {
	ID        string    // IRI, of the issuer's origin; made from the statement's content
	Issuer    string    // IRI of the issuer's actor
	List      string    // IRI of the list it belongs to, of the issuer's origin
	Kind      Kind      //
	Published time.Time // when it was made; UTC, whole seconds
	Expires   time.Time // when it lapses; zero for never. Retractions and definitions do not.
	Labels    []string  // beside those of the list, sorted; only where there are Hashes or Subjects, and in a Vouch what it holds for
	Action    Action    // zero for the list's; only where there are Hashes or Subjects
	Reason    string    // for people; at most MaxReason bytes
	Hashes    []Hash    // AddHashes: 1 to MaxHashes; Retraction: those withdrawn, none for all
	Subjects  []string  // the Adds of other things: 1 to MaxSubjects, see CheckSubject; Retraction: those withdrawn
	About     string    // Confirmation, Dispute: the ID of a statement of any origin
	Retracts  string    // Retraction: the ID of the statement withdrawn

	Definition *Definition // DefineList only
	Vouch      *Vouching   // Vouch only
}

// Validate reports the first way in which s breaks the bounds and shapes that
// its fields document.
func (s *Statement) Validate() error {
	origin, err := Origin(s.ID)
	if err != nil {
		return fmt.Errorf("statement id: %w", err)
	}
	// One origin for the statement, who made it and what it belongs to: nobody
	// speaks for another server (FEP-fe34).
	for _, f := range [...]struct{ what, iri string }{{"issuer", s.Issuer}, {"list", s.List}} {
		o, err := Origin(f.iri)
		if err != nil {
			return fmt.Errorf("%s: %w", f.what, err)
		}
		if o != origin {
			return fmt.Errorf("%s is of %s, but the statement is of %s", f.what, o, origin)
		}
	}
	if err := checkTime(s.Published); err != nil {
		return fmt.Errorf("published: %w", err)
	}
	if err := checkText("reason", s.Reason); err != nil {
		return err
	}
	if err := CheckLabels(s.Labels); err != nil {
		return err
	}
	if s.Action > Drop {
		return fmt.Errorf("unknown action %d", s.Action)
	}
	if len(s.Hashes) > MaxHashes {
		return fmt.Errorf("statement has %d hashes, at most %d fit in one", len(s.Hashes), MaxHashes)
	}
	seen := make(map[Hash]struct{}, len(s.Hashes))
	for i, h := range s.Hashes {
		if !h.alg.Valid() {
			return fmt.Errorf("hash %d of the statement is empty", i+1)
		}
		if _, dup := seen[h]; dup {
			return fmt.Errorf("hash %d of the statement is in it twice", i+1)
		}
		seen[h] = struct{}{}
	}
	if s.Vouch != nil && s.Kind != Vouch {
		return fmt.Errorf("a statement of kind %v vouches for nobody", s.Kind)
	}
	switch s.Kind {
	case AddHashes:
		return s.validateAdd()
	case Retraction:
		return s.validateRetraction(origin)
	case DefineList:
		return s.validateDefinition()
	case AddAccounts, AddInstances, AddContent:
		return s.validateSubjects()
	case Confirmation, Dispute:
		return s.validateOpinion()
	case Vouch:
		return s.validateVouch()
	}
	return fmt.Errorf("unknown kind of statement %d", s.Kind)
}

func (s *Statement) validateAdd() error {
	switch {
	case len(s.Hashes) == 0:
		return fmt.Errorf("statement has no hashes")
	case len(s.Subjects) > 0 || s.About != "" || s.Retracts != "" || s.Definition != nil:
		return fmt.Errorf("a statement that adds hashes carries nothing but hashes and their terms")
	}
	return s.checkExpires()
}

func (s *Statement) checkExpires() error {
	if s.Expires.IsZero() {
		return nil
	}
	if err := checkTime(s.Expires); err != nil {
		return fmt.Errorf("expires: %w", err)
	}
	if !s.Expires.After(s.Published) {
		return fmt.Errorf("statement lapses at %s, before it was published", s.Expires.Format(time.RFC3339))
	}
	return nil
}

func (s *Statement) validateRetraction(origin string) error {
	switch o, err := Origin(s.Retracts); {
	case err != nil:
		return fmt.Errorf("retracted statement: %w", err)
	case o != origin:
		return fmt.Errorf("a statement of %s cannot be retracted from %s", o, origin)
	case !s.Expires.IsZero() || len(s.Labels) > 0 || s.Action != 0 || s.About != "" || s.Definition != nil:
		return fmt.Errorf("a retraction carries nothing but hashes or subjects and a reason")
	case len(s.Hashes) > 0 && len(s.Subjects) > 0:
		return fmt.Errorf("no statement has both hashes and subjects, so none can be retracted")
	}
	// Which of the kinds it retracts is not known here.
	return s.checkSubjects(func(v string) error {
		if strings.Contains(v, "/") {
			return CheckURL(v)
		}
		return CheckDomain(v)
	})
}

func (s *Statement) validateDefinition() error {
	d := s.Definition
	switch {
	case d == nil:
		return fmt.Errorf("statement defines no list")
	case len(s.Hashes) > 0 || len(s.Subjects) > 0 || s.About != "" || s.Retracts != "" || !s.Expires.IsZero() || len(s.Labels) > 0 || s.Action != 0:
		return fmt.Errorf("a definition carries nothing but the list and a reason")
	}
	return d.Validate()
}

// Validate reports the first way in which d breaks the shapes its fields document.
func (d *Definition) Validate() error {
	if err := CheckName(d.Name); err != nil {
		return fmt.Errorf("list name: %w", err)
	}
	if err := checkText("summary", d.Summary); err != nil {
		return err
	}
	if err := CheckLabels(d.Labels); err != nil {
		return err
	}
	if d.Audience < Local || d.Audience > Public {
		return fmt.Errorf("list %s has no audience (want local, followers or public)", d.Name)
	}
	if d.partner() && d.Audience != Local {
		return fmt.Errorf("list %s has the label %s, so its audience can only be local: what a partner gave may not be passed on", d.Name, PartnerData)
	}
	if d.Action < Accept || d.Action > Drop {
		return fmt.Errorf("list %s has no action (want accept, filter, reject or drop)", d.Name)
	}
	for a, r := range d.Radii {
		if limit := Algorithm(a).MaxRadius(); int(r) > limit {
			return fmt.Errorf("radius %d of %v is more than %d", r, Algorithm(a), limit)
		}
	}
	return nil
}

func (d *Definition) partner() bool { return slices.Contains(d.Labels, PartnerData) }

// Origin returns scheme and host (with port) of an IRI that names an actor,
// list or statement. It fails on what is not an absolute, plain http or https
// address: no user, no query, no escapes that two servers may read differently.
func Origin(iri string) (string, error) {
	if len(iri) > MaxIRI {
		return "", fmt.Errorf("address of %d bytes is longer than %d", len(iri), MaxIRI)
	}
	for i := 0; i < len(iri); i++ {
		if c := iri[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`"<>\^{|}%`+"`", c) >= 0 {
			return "", fmt.Errorf("address %.80q has characters that do not belong in one", iri)
		}
	}
	u, err := url.Parse(iri)
	if err != nil {
		return "", fmt.Errorf("address %.80q cannot be read", iri)
	}
	if u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.Opaque != "" || u.User != nil || u.RawQuery != "" || u.ForceQuery {
		return "", fmt.Errorf("address %.80q is not a plain https address", iri)
	}
	if u.Host != strings.ToLower(u.Host) {
		return "", fmt.Errorf("address %.80q has capitals in its host", iri)
	}
	return u.Scheme + "://" + u.Host, nil
}

// CheckName reports what is wrong with the name of a list or a label: a to z,
// 0 to 9 and single hyphens inside, 1 to MaxName bytes.
func CheckName(name string) error {
	if name == "" || len(name) > MaxName {
		return fmt.Errorf("%.80q is not 1 to %d characters long", name, MaxName)
	}
	for i, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		case c == '-' && i > 0 && i < len(name)-1 && name[i-1] != '-':
		default:
			return fmt.Errorf("%.80q may only have a-z, 0-9 and single hyphens inside", name)
		}
	}
	return nil
}

// CheckLabels reports what is wrong with a set of labels: at most MaxLabels,
// each as CheckName wants it, sorted and without repetition.
func CheckLabels(labels []string) error {
	if len(labels) > MaxLabels {
		return fmt.Errorf("%d labels are more than %d", len(labels), MaxLabels)
	}
	for i, l := range labels {
		if err := CheckName(l); err != nil {
			return fmt.Errorf("label: %w", err)
		}
		if i > 0 && l <= labels[i-1] {
			return fmt.Errorf("label %q is out of order or there twice", l)
		}
	}
	return nil
}

func checkText(what, s string) error {
	if len(s) > MaxReason {
		return fmt.Errorf("%s of %d bytes is longer than %d", what, len(s), MaxReason)
	}
	if !utf8.ValidString(s) {
		return fmt.Errorf("%s is not UTF-8", what)
	}
	for _, r := range s {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return fmt.Errorf("%s has control characters", what)
		}
	}
	return nil
}

// checkTime keeps times to what every JSON library, database and 40-bit
// counter can hold, and to whole seconds, so that one moment has one spelling.
func checkTime(t time.Time) error {
	switch {
	case t.IsZero() || t.Unix() <= 0 || t.Year() > 9999:
		return fmt.Errorf("%v is not a time after 1970", t)
	case t.Nanosecond() != 0 || t.Location() != time.UTC:
		return fmt.Errorf("%v is not in whole seconds of UTC", t)
	}
	return nil
}
