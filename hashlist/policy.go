package hashlist

import "fmt"

// Verdict is what a node makes of a hash or a file. Later ones outweigh
// earlier ones.
type Verdict uint8

// The verdicts, mildest first.
const (
	VerdictAllow  Verdict = 1 // nothing is known against it
	VerdictFlag   Verdict = 2 // let it through and mark it
	VerdictHold   Verdict = 3 // keep it back until a person has decided
	VerdictReject Verdict = 4 // refuse it
)

var verdicts = [...]string{"", "allow", "flag", "hold", "reject"}

// String returns allow, flag, hold or reject.
func (v Verdict) String() string {
	if v >= VerdictAllow && int(v) < len(verdicts) {
		return verdicts[v]
	}
	return fmt.Sprintf("verdict(%d)", uint8(v))
}

// ParseVerdict reads what String prints.
func ParseVerdict(s string) (Verdict, error) {
	for i, name := range verdicts[1:] {
		if name == s {
			return Verdict(i + 1), nil
		}
	}
	return 0, fmt.Errorf("unknown verdict %.40q (want allow, flag, hold or reject)", s)
}

// Policy is how a node draws a verdict from matches. It is the operator's own:
// issuers recommend, the node decides.
type Policy struct {
	// What a match comes to whose action is Filter, Reject or Drop.
	Filter, Reject, Drop Verdict
	// Ceiling is the most that matches by one algorithm alone may come to. It is
	// lifted when two algorithms match the same statement.
	Ceiling [SHA256 + 1]Verdict
	// MinQuality is the least PDQ quality, 0 to 100, at which the perceptual
	// hashes of a picture are listed. Flat pictures have bits of noise and match
	// each other. A copy may have been made flat so that it passes, so one that is
	// looked up is compared down to LeastQuality, but comes to hold at most.
	MinQuality int
	// Own is the origin of this node's own lists, as in https://hashes.example,
	// which are heeded fully. Those of other origins are heeded as far as
	// Lists.Heed says, and before it says anything, not at all. "" makes every list
	// the node's own.
	Own string
}

// LeastQuality is the PDQ quality below which a picture shows so little that its
// perceptual hashes are not looked up.
const LeastQuality = 5

// DefaultPolicy is cautious: what is recommended is done, but the 64-bit hashes,
// which confuse pictures, and MD5 and SHA-1, for which two files can be made to
// collide, hold a file for a person unless a second algorithm agrees.
// 50 is the customary least quality of PDQ.
func DefaultPolicy() Policy {
	return Policy{
		Filter: VerdictFlag, Reject: VerdictReject, Drop: VerdictReject,
		Ceiling: [SHA256 + 1]Verdict{
			PDQ: VerdictReject, PHash: VerdictHold, DHash: VerdictHold,
			MD5: VerdictHold, SHA1: VerdictHold, SHA256: VerdictReject,
		},
		MinQuality: 50,
	}
}

// Validate reports the first value of p that is out of its range.
func (p *Policy) Validate() error {
	for _, v := range [...]struct {
		name string
		v    Verdict
	}{{"filter", p.Filter}, {"reject", p.Reject}, {"drop", p.Drop}} {
		if v.v < VerdictAllow || v.v > VerdictReject {
			return fmt.Errorf("policy for %s is %v (want allow, flag, hold or reject)", v.name, v.v)
		}
	}
	for _, a := range Algorithms {
		if v := p.Ceiling[a]; v < VerdictAllow || v > VerdictReject {
			return fmt.Errorf("ceiling of %v is %v (want allow, flag, hold or reject)", a, v)
		}
	}
	if p.MinQuality < 0 || p.MinQuality > 100 {
		return fmt.Errorf("least quality %d is not between 0 and 100", p.MinQuality)
	}
	if o, err := Origin(p.Own); p.Own != "" && (err != nil || o != p.Own) {
		return fmt.Errorf("own origin %.80q is not just scheme and host", p.Own)
	}
	return nil
}

// Heed says how far this node heeds a list of another origin: most is the
// gravest verdict that its matches may come to. With VerdictAllow they are reported and
// speak against nothing; with 0, and before Heed was called, the list matches
// nothing and nothing of it is reported. It need not be known yet. The node's own
// lists are heeded fully, whatever is said here, but for those kept for others (OnBehalf). It is not part of the log: whoever opens
// the lists says it again.
func (l *Lists) Heed(list string, most Verdict) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fold.heed(list, min(most, VerdictReject))
}

// of returns what an action comes to. algorithms has a bit set for each
// algorithm by which a statement matched.
func (p *Policy) of(action Action, algorithms uint8) Verdict {
	v := VerdictAllow
	switch action {
	case Filter:
		v = p.Filter
	case Reject:
		v = p.Reject
	case Drop:
		v = p.Drop
	}
	if algorithms&(algorithms-1) != 0 { // two or more agree
		return v
	}
	for _, a := range Algorithms {
		if algorithms == 1<<a {
			return min(v, p.Ceiling[a])
		}
	}
	return v
}
