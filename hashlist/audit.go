package hashlist

import (
	"context"
	"iter"
	"time"
)

// MaxAudit is the most bytes of AuditEntry.Body.
const MaxAudit = 64 << 10

// AuditEntry is one thing that this node, or a person through it, did, and what it
// rested on: enough to explain it a year later.
type AuditEntry struct {
	Seq  uint64    // its place, from 1; given by AppendAudit
	ID   string    // a-z, 0-9 and hyphens, at most MaxName bytes; given by AppendAudit if it is empty
	Kind string    // a name as CheckName wants it: verdict, repeats, act, decision and the like
	At   time.Time // when it happened; UTC, whole microseconds
	Who  string    // the caller, person or rule that brought it about; at most MaxIRI bytes
	// Body is a JSON object of at most MaxAudit bytes, whose members are the kind's
	// own affair. It may hold hashes: the log is the operator's, like the lists. Nothing of
	// it goes into log lines.
	Body []byte
}

// AuditHead is the end of an audit log: how many entries there are, and a SHA-256
// over all of them. Who notes a head elsewhere can tell later whether entries
// before it were changed or cut off.
type AuditHead struct {
	Seq uint64
	Sum [32]byte
}

// Audit is an append-only log of what was done, each entry chained to the one
// before it by SHA-256. Methods may be called concurrently.
//
// Against whoever can write to its storage the chain helps only with a head that was
// noted elsewhere: they can write all of it anew.
type Audit interface {
	// AppendAudit stores an entry durably and returns it with its place and ID.
	// Entries of many callers share one flush to the disk. If ctx ends first, it may or
	// may not have been stored.
	AppendAudit(context.Context, AuditEntry) (AuditEntry, error)
	// FindAudit returns the entry with the given ID, and false if there is none.
	FindAudit(ctx context.Context, id string) (AuditEntry, bool, error)
	// AuditAfter yields the entries behind place seq in ascending order, up to
	// what was there when it was called, and checks that each continues the one before it.
	// An error ends it.
	AuditAfter(ctx context.Context, seq uint64) iter.Seq2[AuditEntry, error]
	// AuditEnd returns the head as it is.
	AuditEnd(context.Context) (AuditHead, error)
	// VerifyAudit reads the log from its beginning and returns its head. It fails at
	// the first entry that was changed, is missing or does not continue the one before
	// it, and if the log does not lead through noted (the zero head is in every log).
	VerifyAudit(ctx context.Context, noted AuditHead) (AuditHead, error)
}

// KindVerdict is the kind of an entry whose body is an AuditedVerdict, and KindRepeats of
// one whose body is AuditedRepeats.
const (
	KindVerdict = "verdict"
	KindRepeats = "repeats"
)

// AuditedVerdict is a hold or a rejection with what it rested on: the body of an
// entry of KindVerdict.
type AuditedVerdict struct {
	Verdict   string           `json:"verdict"`
	Reason    string           `json:"reason"`
	Labels    []string         `json:"labels,omitempty"` // of the matches that count
	Hashes    []string         `json:"hashes"`           // of what was asked about: digests, and each frame as it is
	Reference AuditedReference `json:"reference"`
	Uploader  *AuditedUploader `json:"uploader,omitempty"`
	Decision  AuditedDecision  `json:"decision"`
	Matches   []AuditedMatch   `json:"matches"`
	More      int              `json:"more,omitempty"` // matches that are left out
	Seq       uint64           `json:"index_seq"`      // the log up to here was heeded
}

// AuditedReference is a Reference.
type AuditedReference struct {
	URL   string `json:"url,omitempty"`
	Alias string `json:"alias,omitempty"`
	Post  string `json:"post,omitempty"`
	Actor string `json:"actor,omitempty"`
}

// AuditedUploader is an Uploader.
type AuditedUploader struct {
	AgeSeconds *int64 `json:"age_seconds,omitempty"`
	Local      *bool  `json:"local,omitempty"`
	Domain     string `json:"domain,omitempty"`
	Actions    *int   `json:"actions,omitempty"`
	Posts      *int   `json:"posts,omitempty"`
}

// AuditedDecision is a Decision, with what the policy in force asked for.
type AuditedDecision struct {
	Own         bool     `json:"own,omitempty"`
	Label       string   `json:"label,omitempty"`
	Belief      int      `json:"belief"`
	Disputed    int      `json:"disputed,omitempty"`
	Independent int      `json:"independent"`
	NeedBelief  int      `json:"need_belief,omitempty"`
	NeedIssuers int      `json:"need_issuers,omitempty"`
	NeedRadius  int      `json:"need_radius,omitempty"` // for the algorithm of the match that decided
	NeedSecond  bool     `json:"need_second,omitempty"`
	Rule        string   `json:"rule,omitempty"`
	RuleText    string   `json:"rule_text,omitempty"`
	Statements  []string `json:"statements"`
}

// AuditedMatch is a Match.
type AuditedMatch struct {
	List       string    `json:"list"`
	Issuer     string    `json:"issuer"`
	Statement  string    `json:"statement"`
	Labels     []string  `json:"labels,omitempty"`
	Action     string    `json:"action"`
	Algorithm  string    `json:"algorithm"`
	Distance   int       `json:"distance"`
	Hash       string    `json:"hash"` // the one asked about, turned or inverted as Transform says
	Transform  string    `json:"transform,omitempty"`
	Suppressed bool      `json:"suppressed,omitempty"`
	Published  time.Time `json:"published"`
}

// AuditedRepeats counts verdicts that are not entries of their own, so that a flood of
// them does not fill the disk: the body of an entry of KindRepeats.
type AuditedRepeats struct {
	Of         string             `json:"of,omitempty"` // the ID of the entry that they repeat; "" for those of which there were too many different ones
	Verdict    string             `json:"verdict"`
	Statements []string           `json:"statements,omitempty"`
	Count      int                `json:"count"`
	First      time.Time          `json:"first"`
	Last       time.Time          `json:"last"`
	References []AuditedReference `json:"references,omitempty"` // of some of them
}

// maxAuditedMatches bounds the matches in one entry.
const maxAuditedMatches = 20

// NewAuditedVerdict tells what r, the answer to q, rests on. hashes are those of what was asked
// about.
func NewAuditedVerdict(q *Query, r *Result, hashes []Hash, rules Rules) AuditedVerdict {
	d := &r.Decision
	v := AuditedVerdict{
		Verdict: r.Verdict.String(), Reason: r.Reason, Seq: r.Seq, Hashes: []string{}, Matches: []AuditedMatch{},
		Reference: AuditedReference(q.Reference),
		Decision: AuditedDecision{
			Own: d.Own, Label: d.Label, Belief: d.Belief, Disputed: d.Disputed, Independent: d.Independent, Rule: d.Rule, Statements: d.Statements,
			NeedBelief: d.Need.Belief, NeedIssuers: d.Need.Issuers, NeedRadius: int(d.Need.Radii[d.Algorithm]), NeedSecond: d.Need.Second,
		},
	}
	if d.Rule != "" && rules != nil {
		v.Decision.RuleText = rules.Text(d.Rule)
	}
	for _, h := range hashes {
		v.Hashes = append(v.Hashes, h.String())
	}
	if u := q.Uploader; u != nil {
		v.Uploader = &AuditedUploader{Local: u.Local, Domain: u.Domain, Actions: u.Actions, Posts: u.Posts}
		if u.Age != nil {
			seconds := int64(u.Age.Seconds())
			v.Uploader.AgeSeconds = &seconds
		}
	}
	for i := range r.Matches {
		m := &r.Matches[i]
		if !m.Suppressed && m.Action != Accept {
			v.Labels = union(v.Labels, m.Labels)
		}
		if i >= maxAuditedMatches {
			v.More++
			continue
		}
		v.Matches = append(v.Matches, AuditedMatch{
			List: m.List, Issuer: m.Issuer, Statement: m.Statement, Labels: m.Labels, Action: m.Action.String(),
			Algorithm: m.Probe.Hash.Algorithm().String(), Distance: m.Distance, Hash: m.Probe.Hash.String(), Transform: m.Probe.Transform,
			Suppressed: m.Suppressed, Published: m.Published,
		})
	}
	return v
}
