package server

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/hashlist/imagehash"
)

// Bounds of what verdicts cost the audit log in a minute. Whoever uploads decides how
// many verdicts there are, so they must not be able to fill the disk.
const (
	auditEvery  = time.Minute
	maxAudited  = 120             // entries of verdicts; those beyond are counted
	maxRepeated = 20              // references that are kept of those that are counted
	auditTime   = 5 * time.Second // for one entry to be written
)

// auditor writes holds and rejections into the audit log before they are answered. The first
// of one kind (verdict, statements, rule and caller) within a minute is an entry, with all that
// explains it; the others share its ID and are counted.
type auditor struct {
	s  *Server
	mu sync.Mutex
	at map[string]*repeats
	n  int // entries within this minute
}

type repeats struct {
	first chan struct{} // closed when the entry was written, or could not be
	hashlist.AuditedRepeats
	who string
}

// verdict notes what r, the answer to q, was, and returns its ID; "" if there is none. It
// returns when the entry is durable. A verdict stays what it is if it cannot be written down: a
// rejection is no more wrong for it. That is logged and counted.
func (a *auditor) verdict(ctx context.Context, q *hashlist.Query, r *hashlist.Result, hashes []hashlist.Hash) string {
	if a == nil || r.Verdict < hashlist.VerdictHold {
		return ""
	}
	who := "nobody known"
	if c := callerOf(ctx); c != nil {
		who = c.name
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	key := strings.Join(append([]string{who, r.Verdict.String(), r.Decision.Rule, r.Decision.Label}, r.Decision.Statements...), "\x00")
	a.mu.Lock()
	known := a.at[key]
	beyond := known == nil && a.n >= maxAudited
	if beyond {
		key = who + "\x00" + r.Verdict.String()
		known = a.at[key]
	}
	if known != nil || beyond {
		if known == nil {
			known = &repeats{first: make(chan struct{}), who: who, AuditedRepeats: hashlist.AuditedRepeats{Verdict: r.Verdict.String()}}
			close(known.first)
			a.at[key] = known
		}
		known.count(q, r, now)
		a.mu.Unlock()
		select {
		case <-known.first:
		case <-ctx.Done():
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		return known.Of
	}
	a.n++
	known = &repeats{first: make(chan struct{}), who: who, AuditedRepeats: hashlist.AuditedRepeats{Verdict: r.Verdict.String(), Statements: r.Decision.Statements}}
	a.at[key] = known
	a.mu.Unlock()
	defer close(known.first)
	v := hashlist.NewAuditedVerdict(q, r, hashes, a.s.cfg.Lists.Rules())
	id := a.write(ctx, hashlist.AuditEntry{Kind: hashlist.KindVerdict, At: now, Who: who}, v)
	a.mu.Lock()
	known.Of = id
	a.mu.Unlock()
	return id
}

// count adds one. Its lock is the auditor's.
func (r *repeats) count(q *hashlist.Query, v *hashlist.Result, at time.Time) {
	if r.Count == 0 {
		r.First = at
	}
	r.Count++
	r.Last = at
	if !q.Reference.IsZero() && len(r.References) < maxRepeated {
		r.References = append(r.References, hashlist.AuditedReference(q.Reference))
	}
	if r.Of == "" && len(r.Statements) < maxRepeated && len(v.Decision.Statements) > 0 {
		r.Statements = append(r.Statements, v.Decision.Statements[0])
	}
}

// write appends an entry and returns its ID, "" if it could not be written.
func (a *auditor) write(ctx context.Context, e hashlist.AuditEntry, body any) string {
	// Not ended by the caller who leaves: what was decided is written down all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditTime)
	defer cancel()
	var err error
	if e.Body, err = json.Marshal(body); err == nil {
		e, err = a.s.cfg.Audit.AppendAudit(ctx, e)
	}
	if err != nil {
		a.s.metrics.unaudited.Inc()
		a.s.log.Error("a verdict stands, but could not be written into the audit log", slog.String("kind", e.Kind), errorText(err))
		return ""
	}
	return e.ID
}

// run writes the counts of each minute until ctx ends, and then the last.
func (a *auditor) run(ctx context.Context) {
	tick := time.NewTicker(auditEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			a.flush(ctx)
		case <-ctx.Done():
			a.flush(ctx)
			return
		}
	}
}

// flush writes what was counted, and begins anew.
func (a *auditor) flush(ctx context.Context) {
	a.mu.Lock()
	done := a.at
	a.at, a.n = map[string]*repeats{}, 0
	a.mu.Unlock()
	for _, r := range done {
		<-r.first
		a.mu.Lock()
		body := r.AuditedRepeats
		a.mu.Unlock()
		if body.Count > 0 {
			a.write(ctx, hashlist.AuditEntry{Kind: hashlist.KindRepeats, At: body.Last, Who: r.who}, body)
		}
	}
}

// mediaHashes are those of a file that explain a verdict on it later: its digests, and
// each frame as it is.
func mediaHashes(m *imagehash.Media) []hashlist.Hash {
	var all []hashlist.Hash
	for _, h := range [...]hashlist.Hash{m.MD5, m.SHA1, m.SHA256} {
		if !h.IsZero() {
			all = append(all, h)
		}
	}
	for i := range m.Frames {
		if h := m.Frames[i].PDQ[0]; !h.IsZero() {
			all = append(all, h)
		}
	}
	return all
}

// askedHashes are the hashes of a lookup as they were asked for.
func askedHashes(q *hashlist.Query) []hashlist.Hash {
	var all []hashlist.Hash
	for _, p := range q.Probes {
		if p.Transform == "" && len(all) < maxAuditedHashes {
			all = append(all, p.Hash)
		}
	}
	return all
}

// maxAuditedHashes bounds the hashes of one entry.
const maxAuditedHashes = 64
