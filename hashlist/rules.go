package hashlist

import "time"

// Uploader is what a caller knows of who uploads. What it does not know is the zero
// value, or nil: rules that ask for it then do not apply.
type Uploader struct {
	Age     *time.Duration // of the account, not negative
	Local   *bool          // an account of the caller's own server
	Domain  string         // of the account's server, as CheckDomain wants it
	Actions *int           // what moderators have done against the account before
	Posts   *int           // how many there are of it
}

// Facts are what a rule is asked about: a picture that matches, and what the
// thresholds make of it. Only matches of which somebody is believed are in them, so that
// nobody whom this node does not believe brings a rule about.
type Facts struct {
	Verdict     Verdict   // by the thresholds
	Label       string    // the one that decided, "" for none
	Labels      []string  // of all matches, sorted
	Belief      int       // in that label, 0 to 120, with what disputes take off
	Independent int       // issuers who stand behind it without relying on each other
	Disputed    int       // belief that disputes take off
	Own         bool      // this node's own statement, or one that it confirmed, is among the matches
	Algorithm   Algorithm // of the nearest match
	Distance    int       // of it, in bits
	Action      Action    // of the match that decided
	List        string    // address of its list
	Issuer      string    // address of its issuer
	Matches     int
	Uploader    *Uploader // nil if the caller says nothing
	Now         time.Time
}

// Rules are the operator's own, beyond the thresholds. What they may come to is
// bounded where they are asked; see Policy.Rules.
type Rules interface {
	// Apply returns the verdict of the first rule that applies, and its name, and
	// false if none does. A rule that fails or takes too long does not apply. It may be
	// called concurrently.
	Apply(*Facts) (Verdict, string, bool)
	// Text is a rule as it stands, for the audit log; "" for one that there is not.
	Text(name string) string
}

// Rules returns the rules in force, nil for none.
func (l *Lists) Rules() Rules {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.policy.Rules
}

// SetRules puts other rules in the place of those in force; nil for none.
func (l *Lists) SetRules(r Rules) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.policy.Rules = r
	l.changed("")
}
