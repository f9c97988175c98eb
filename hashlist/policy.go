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
	Ceiling [VPDQ + 1]Verdict
	// MinQuality is the least PDQ quality, 0 to 100, at which the perceptual
	// hashes of a picture are listed. Flat pictures have bits of noise and match
	// each other. A copy may have been made flat so that it passes, so one that is
	// looked up is compared down to LeastQuality, but comes to hold at most.
	MinQuality int
	// VideoShare is how many in a hundred of the frames of a video must match those of a
	// listed one, of either of the two: a part of a banned video is banned, and so is
	// a longer one that holds it. 1 to 100; 0 stands for 80, which is what Meta's vPDQ takes.
	VideoShare int
	// VideoFrames is how many frames of a video must match at least, unless fewer are
	// listed: one second of a banned video may be anybody's. 0 stands for 3.
	VideoFrames int
	// Own is the origin of this node's own lists, as in https://hashes.example,
	// which are heeded fully. Those of other origins are heeded as far as
	// Lists.Heed says, and before it says anything, not at all. "" makes every list
	// the node's own.
	Own string
	// Default says what the verdicts about what others list need, and Labels the same for single
	// labels, in place of it.
	Default Thresholds
	Labels  map[string]Thresholds
	// Rules are asked about what matches, after the thresholds; nil for none. A rule may
	// come to a graver verdict than these or to a milder one, but to none that is milder than
	// what this node's own statements come to, and to none that a list's most or the
	// algorithms' ceilings forbid. What this node knows to be harmless, or disputes,
	// no rule sees.
	Rules Rules
}

// Thresholds are what a flag, a hold and a rejection need, as far as they rest
// on other nodes' statements. A verdict needs no less than a milder one.
type Thresholds struct{ Flag, Hold, Reject Threshold }

// Threshold is what one verdict needs. This node's own statements, and those that it
// confirmed, need nothing.
type Threshold struct {
	// Belief is the least that those who stand behind it together are believed, 1
	// to 120, less what those are believed who dispute it.
	Belief int
	// Issuers is how many of them there must be who do not rely on each other, at least 1.
	Issuers int
	// Radii are the largest distances at which a match counts, beside the list's own.
	Radii Radii
	// Second asks for a second algorithm by which the same statement matches.
	Second bool
}

// MostBelief is full belief, and MarginalBelief some: three who are believed
// marginally are together believed fully, as with OpenPGP.
const (
	MostBelief     = 120
	MarginalBelief = 40
)

// DefaultThresholds are cautious: a flag needs one who is believed marginally,
// a hold two, and a rejection full belief and a nearer match than the customary
// radii ask for. 24 bits of PDQ are a re-encoded, scaled or marked copy; what lies between
// them and 31 is held. Of a video it is the share of frames that tells, and the distance is the
// nearest frame's.
func DefaultThresholds() Thresholds {
	far := Radii{PDQ: 63, PHash: 16, DHash: 16, VPDQ: 63}
	return Thresholds{
		Flag:   Threshold{Belief: MarginalBelief, Issuers: 1, Radii: far},
		Hold:   Threshold{Belief: 2 * MarginalBelief, Issuers: 1, Radii: far},
		Reject: Threshold{Belief: MostBelief, Issuers: 1, Radii: Radii{PDQ: 24, PHash: 6, DHash: 4, VPDQ: 31}},
	}
}

// Validate reports the first value of t that is out of its range, or asks for
// less than that of a milder verdict.
func (t *Thresholds) Validate() error {
	var before *Threshold
	for v := VerdictFlag; v <= VerdictReject; v++ {
		n := t.of(v)
		if n.Belief < 1 || n.Belief > MostBelief {
			return fmt.Errorf("the belief that %v needs, %d, is not between 1 and %d", v, n.Belief, MostBelief)
		}
		if n.Issuers < 1 || n.Issuers > 100 {
			return fmt.Errorf("the number of issuers that %v needs, %d, is not between 1 and 100", v, n.Issuers)
		}
		for a, r := range n.Radii {
			if limit := Algorithm(a).MaxRadius(); int(r) > limit {
				return fmt.Errorf("the distance of %v for %v, %d, is more than %d", Algorithm(a), v, r, limit)
			}
			if before != nil && r > before.Radii[a] {
				return fmt.Errorf("%v is allowed a larger distance of %v, %d, than %v", v, Algorithm(a), r, v-1)
			}
		}
		if before != nil && (n.Belief < before.Belief || n.Issuers < before.Issuers || before.Second && !n.Second) {
			return fmt.Errorf("%v needs less than %v does", v, v-1)
		}
		before = n
	}
	return nil
}

// of returns what v needs, which is not VerdictAllow.
func (t *Thresholds) of(v Verdict) *Threshold {
	switch v {
	case VerdictFlag:
		return &t.Flag
	case VerdictHold:
		return &t.Hold
	}
	return &t.Reject
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
		Ceiling: [VPDQ + 1]Verdict{
			PDQ: VerdictReject, PHash: VerdictHold, DHash: VerdictHold,
			MD5: VerdictHold, SHA1: VerdictHold, SHA256: VerdictReject,
			VPDQ: VerdictReject,
		},
		MinQuality: 50, VideoShare: 80, VideoFrames: 3,
		Default: DefaultThresholds(),
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
	if err := p.Default.Validate(); err != nil {
		return err
	}
	for label, t := range p.Labels {
		if err := CheckName(label); err != nil {
			return fmt.Errorf("label: %w", err)
		}
		if err := t.Validate(); err != nil {
			return fmt.Errorf("label %s: %w", label, err)
		}
	}
	if p.VideoShare < 0 || p.VideoShare > 100 {
		return fmt.Errorf("share of %d %% of a video's frames is not between 1 and 100", p.VideoShare)
	}
	if p.VideoFrames < 0 || p.VideoFrames > MaxHashes {
		return fmt.Errorf("least number of frames %d is not between 1 and %d", p.VideoFrames, MaxHashes)
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
//
// direct, 0 to MostBelief, is how far those who write to the list are believed because it is followed, about what
// stands on it and nowhere else. With 0 they are believed as far as they are vouched for, and no further.
//
// What stands on the list already is compared with the recent window before it acts, once one was started.
func (l *Lists) Heed(list string, most Verdict, direct uint8) {
	most, direct = min(most, VerdictReject), min(direct, MostBelief)
	l.mu.RLock()
	acting, rises := l.acting, most > max(l.fold.heeded[list], VerdictAllow) || most > VerdictAllow && direct > l.fold.directs[list]
	l.mu.RUnlock()
	if acting != nil && rises {
		acting(list, true)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fold.heed(list, most, direct)
	l.changed(list)
}

// DirectBelief is what Heed is told for a list that is followed without saying whom of
// its issuers to believe: enough for what its matches may come to.
func DirectBelief(most Verdict) uint8 {
	switch min(most, VerdictReject) {
	case VerdictReject:
		return MostBelief
	case VerdictHold:
		return PartialBelief
	case VerdictFlag:
		return MarginalBelief
	}
	return 0
}

// Rely says whether this node believes what a list of another origin says of
// other issuers: without it, and without Heed, whom it vouches for does not count. What else stands
// on the list matches nothing because of this. It need not be known yet, and is not part of the log.
func (l *Lists) Rely(list string, relied bool) {
	l.mu.RLock()
	acting, rises := l.acting, relied && !l.fold.relied[list]
	l.mu.RUnlock()
	if acting != nil && rises {
		acting(list, false)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fold.rely(list, relied)
	l.changed("")
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
	return min(v, p.ceiling(algorithms))
}

// ceiling is the most that matches by the algorithms may come to.
func (p *Policy) ceiling(algorithms uint8) Verdict {
	for _, a := range Algorithms {
		if algorithms == 1<<a { // else two or more agree
			return p.Ceiling[a]
		}
	}
	return VerdictReject
}
