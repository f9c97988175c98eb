package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// decider is how items of one kind are decided.
type decider struct {
	choices []hashlist.ReviewChoice
	scope   Scope // that deciding takes; "" for submit
	// decide does what was chosen, and may add to d.Statements; nil if it is enough that the
	// choice is noted. It may be called again for the same item: the node may stop between what it
	// did and the note that it was done.
	decide func(ctx context.Context, r hashlist.Review, d *hashlist.ReviewDecision) error
}

// deciderOf is the table of who decides what: a part that asks people has its line here.
func (s *Server) deciderOf(kind hashlist.ReviewKind) decider {
	const (
		confirm, dispute, ban, allow, ignore = hashlist.ChooseConfirm, hashlist.ChooseDispute, hashlist.ChooseBan, hashlist.ChooseAllow, hashlist.ChooseIgnore
		release, keep, dismiss               = hashlist.ChooseRelease, hashlist.ChooseKeep, hashlist.ChooseDismiss
		uphold, withdraw, approve            = hashlist.ChooseUphold, hashlist.ChooseWithdraw, hashlist.ChooseApprove
	)
	of := func(choices ...hashlist.ReviewChoice) []hashlist.ReviewChoice { return choices }
	switch kind {
	case hashlist.ReviewHeld, hashlist.ReviewHit, hashlist.ReviewAppeal:
		return decider{of(confirm, dispute, ban, allow, ignore, release, keep, dismiss), ScopeSubmit, s.decideMedia}
	case hashlist.ReviewDispute:
		return decider{of(uphold, withdraw, dismiss), ScopeSubmit, s.decideDispute}
	case hashlist.ReviewProposal:
		return decider{of(approve, dismiss), ScopeSubmit, s.decideProposal}
	case hashlist.ReviewQuarantine:
		return decider{of(release, keep, dismiss), ScopeAdmin, s.decideQuarantine}
	case hashlist.ReviewKey:
		// Nobody's word makes a key somebody's: that takes its fingerprint, see VerifyKey.
		return decider{of(keep, dismiss), ScopeAdmin, nil}
	case hashlist.ReviewSource:
		return decider{of(approve, dismiss), ScopeAdmin, s.decideSource}
	case hashlist.ReviewAct:
		return decider{of(approve, dismiss), ScopeAdmin, s.decideActReview}
	case hashlist.ReviewPreserve:
		return decider{of(keep, release, dismiss), ScopeAdmin, nil}
	}
	return decider{}
}

// offered are the choices for an item that can do something: of a hit the hashes are not kept here, so that
// nothing can be listed from it, and nobody gives an opinion of what this node itself said.
func (s *Server) offered(r *hashlist.Review) []hashlist.ReviewChoice {
	all := s.deciderOf(r.Kind).choices
	switch r.Kind {
	case hashlist.ReviewHeld, hashlist.ReviewHit, hashlist.ReviewAppeal:
	default:
		return all
	}
	hashes, err := readHashes(r.Body)
	known, theirs := err == nil && len(hashes) > 0, r.Statement != "" && s.own(r.List) != nil
	return slices.DeleteFunc(slices.Clone(all), func(c hashlist.ReviewChoice) bool {
		switch c {
		case hashlist.ChooseBan, hashlist.ChooseAllow:
			return !known
		case hashlist.ChooseConfirm, hashlist.ChooseDispute, hashlist.ChooseIgnore:
			return !theirs
		}
		return false
	})
}

// takesTwo reports whether a choice takes two persons. What somebody proposed because
// it takes two is not made by one.
func (s *Server) takesTwo(kind hashlist.ReviewKind, c hashlist.ReviewChoice) bool {
	return slices.Contains(s.cfg.Review.TwoPerson, c) || kind == hashlist.ReviewProposal && c == hashlist.ChooseApprove
}

// decide decides an item for one person: it is done, or waits for a second one to
// agree, or, if that one differs, waits again for both.
func (s *Server) decide(ctx context.Context, id string, d hashlist.ReviewDecision) (hashlist.Review, error) {
	// One at a time: two who decide at once must not both find the item open.
	s.deciding.Lock()
	defer s.deciding.Unlock()
	r, err := s.findReview(ctx, id)
	if err != nil {
		return r, err
	}
	by := s.deciderOf(r.Kind)
	if err := s.mayDecide(ctx, &r, by, &d); err != nil {
		return r, err
	}
	// From here on not cut short by the caller: what is done is noted.
	ctx = context.WithoutCancel(ctx)
	d.When = time.Now().UTC().Truncate(time.Microsecond)
	state, outcome := hashlist.ReviewDecided, "decided"
	if r.State == hashlist.ReviewProposed {
		p := &r.Decisions[len(r.Decisions)-1]
		switch another := personOf(p.Who) != personOf(d.Who); {
		case another && agrees(p, &d):
		case another:
			state, outcome = hashlist.ReviewOpen, "reopened"
		case p.SameAs(&d):
			return r, refuse(errState, "%s has proposed this already: now a second person has to agree, with a token of another name", personOf(d.Who))
		case s.takesTwo(r.Kind, d.What):
			state, outcome = hashlist.ReviewProposed, "proposed"
		}
	} else if s.takesTwo(r.Kind, d.What) {
		state, outcome = hashlist.ReviewProposed, "proposed"
	}
	if state == hashlist.ReviewDecided && by.decide != nil {
		if err := by.decide(ctx, r, &d); err != nil {
			return r, err
		}
	}
	changed, err := s.cfg.Reviews.ChangeReview(ctx, id, func(r *hashlist.Review) error {
		r.State, r.Decisions = state, append(r.Decisions, d)
		return nil
	})
	if err != nil {
		return r, err
	}
	s.metrics.reviewsDecided.WithLabelValues(r.Kind.String(), d.What.String(), outcome).Inc()
	return changed, s.auditDecision(ctx, &changed, &d, outcome)
}

// agrees reports whether a second person decides as was proposed. Terms that they do
// not give are those of the proposal.
func agrees(proposed, d *hashlist.ReviewDecision) bool {
	if d.What == proposed.What && len(d.Labels) == 0 && d.Expires.IsZero() {
		d.Labels, d.Expires = proposed.Labels, proposed.Expires
	}
	return d.SameAs(proposed)
}

// saysWhy are the choices whose reason stands in a statement, or is owed to somebody.
var saysWhy = []hashlist.ReviewChoice{hashlist.ChooseDispute, hashlist.ChooseBan, hashlist.ChooseAllow, hashlist.ChooseIgnore, hashlist.ChooseWithdraw}

// mayDecide refuses what cannot be decided so, or not by this caller.
func (s *Server) mayDecide(ctx context.Context, r *hashlist.Review, by decider, d *hashlist.ReviewDecision) error {
	if !r.State.Waiting() {
		if n := len(r.Decisions); r.State == hashlist.ReviewDecided && n > 0 {
			last := &r.Decisions[n-1]
			return refuse(errState, "%s has decided this at %s: %v", last.Who, last.When.Format(time.RFC3339), last.What)
		}
		return refuse(errState, "this has settled itself: there is nothing left to decide")
	}
	if !slices.Contains(by.choices, d.What) {
		var names []string
		for _, c := range by.choices {
			names = append(names, c.String())
		}
		return refuse(errInvalid, "%v is no decision about something of kind %v (want %s)", d.What, r.Kind, strings.Join(names, ", "))
	}
	if c := callerOf(ctx); by.scope != "" && (c == nil || !c.scope.includes(by.scope)) {
		return refuse(errForbidden, "to decide about something of kind %v takes a token with scope %s", r.Kind, by.scope)
	}
	if err := maySuppress(ctx, d.What); err != nil {
		return err
	}
	if d.Why == "" && slices.Contains(saysWhy, d.What) {
		return refuse(errInvalid, "say why: others will have to understand it later")
	}
	if len(d.Labels) > 0 && d.What != hashlist.ChooseBan {
		return refuse(errInvalid, "labels go with ban alone")
	}
	if !d.Expires.IsZero() && !slices.Contains([]hashlist.ReviewChoice{hashlist.ChooseBan, hashlist.ChooseAllow, hashlist.ChooseIgnore}, d.What) {
		return refuse(errInvalid, "only ban, allow and ignore lapse")
	}
	if len(r.Decisions) >= hashlist.MaxDecisions {
		return refuse(errState, "there were %d decisions on this already: talk to each other, and do it with a command of its own", len(r.Decisions))
	}
	return nil
}

// maySuppress refuses callers who may list, but not have pass what others listed.
func maySuppress(ctx context.Context, what hashlist.ReviewChoice) error {
	if what != hashlist.ChooseAllow && what != hashlist.ChooseIgnore {
		return nil
	}
	if c := callerOf(ctx); c == nil || !c.scope.includes(ScopeAdmin) {
		return refuse(errForbidden, "to %v suppresses what others listed: this needs a token with scope %s", what, ScopeAdmin)
	}
	return nil
}

// auditDecision notes a decision in the audit log.
func (s *Server) auditDecision(ctx context.Context, r *hashlist.Review, d *hashlist.ReviewDecision, outcome string) error {
	if s.cfg.Audit == nil {
		return nil
	}
	body, err := json.Marshal(struct {
		Review     string   `json:"review"`
		Kind       string   `json:"kind"`
		Choice     string   `json:"choice"`
		Outcome    string   `json:"outcome"`
		Why        string   `json:"why,omitempty"`
		Verdict    string   `json:"verdict,omitempty"`
		Statement  string   `json:"statement,omitempty"`
		Statements []string `json:"statements,omitempty"`
	}{r.ID, r.Kind.String(), d.What.String(), outcome, d.Why, r.Verdict, r.Statement, d.Statements})
	if err == nil {
		_, err = s.cfg.Audit.AppendAudit(ctx, hashlist.AuditEntry{Kind: "decision", At: d.When, Who: d.Who, Body: body})
	}
	if err != nil {
		return fmt.Errorf("note decision on %s in the audit log: %w", r.ID, err)
	}
	return nil
}

// decideMedia decides about something that was uploaded: by a statement about what it
// matched, by one about its own hashes, or by none.
func (s *Server) decideMedia(ctx context.Context, r hashlist.Review, d *hashlist.ReviewDecision) error {
	switch d.What {
	case hashlist.ChooseBan, hashlist.ChooseAllow:
		hashes, err := readHashes(r.Body)
		if err != nil {
			return err
		}
		if len(hashes) == 0 {
			return refuse(errState, "the hashes of it are not known here: `tocsin %v` the file itself, then dismiss this", d.What)
		}
		v, err := s.ownDecision(ctx, d.What, hashes, d.Labels, d.Why, d.Expires)
		if err != nil {
			return err
		}
		made, err := s.list(ctx, v, false)
		if err == nil && made.GetStatementId() != "" {
			d.Statements = append(d.Statements, made.GetStatementId())
		}
		return err
	}
	return s.decideStatement(ctx, r, d)
}

// decideStatement decides about a statement of somebody else, by a statement about it.
func (s *Server) decideStatement(ctx context.Context, r hashlist.Review, d *hashlist.ReviewDecision) error {
	o := opinion{about: r.Statement, reason: d.Why, expires: d.Expires}
	switch d.What {
	case hashlist.ChooseConfirm, hashlist.ChooseDispute, hashlist.ChooseIgnore:
		o.what = d.What
	default:
		return nil
	}
	if r.Statement == "" {
		return refuse(errState, "it is not known which statement this is about: `tocsin %v STATEMENT`, then dismiss this", d.What)
	}
	s.opining.Lock()
	defer s.opining.Unlock()
	v, given, err := s.opine(ctx, o)
	if err != nil {
		return err
	}
	if given != "" {
		d.Statements = append(d.Statements, given)
		return nil
	}
	id, err := s.say(ctx, o.what, v)
	if err == nil {
		d.Statements = append(d.Statements, id)
	}
	return err
}

// decideQuarantine lets what waits of a list act, or keeps it from acting; or it closes a
// circuit breaker. What somebody has decided meanwhile stays as it is: the contrary is refused.
func (s *Server) decideQuarantine(ctx context.Context, r hashlist.Review, d *hashlist.ReviewDecision) error {
	state := hashlist.QuarantineReleased
	switch {
	case d.What == hashlist.ChooseDismiss:
		return nil
	case r.List == "" && d.What == hashlist.ChooseRelease:
		s.breaker.Close(r.Issuer)
		return nil
	case r.List == "":
		return nil // it closes by itself
	case d.What == hashlist.ChooseKeep:
		state = hashlist.QuarantineKept
	}
	w, err := s.window()
	if err != nil {
		return err
	}
	if _, err := w.Decide(ctx, r.List, state, d.Who, d.Why); !errors.Is(err, hashlist.ErrNotQuarantined) {
		return err
	}
	for _, q := range w.Quarantined(true) {
		if q.List == r.List && q.State != state && !q.Decided.Before(r.At) {
			return refuse(errState, "%s has decided otherwise about statement %s at %s, and nothing of the list waits any more: "+
				"`tocsin quarantine` decides about a statement again, dismiss this", q.Who, q.Statement, q.Decided.Format(time.RFC3339))
		}
	}
	return nil
}

// decideDispute answers who finds a statement of this node's issuer wrong: it is
// confirmed once more, or retracted.
func (s *Server) decideDispute(ctx context.Context, r hashlist.Review, d *hashlist.ReviewDecision) error {
	if d.What != hashlist.ChooseUphold && d.What != hashlist.ChooseWithdraw {
		return nil
	}
	_, seq, known := s.cfg.Lists.Issued(r.Statement)
	if !known {
		return refuse(errState, "statement %s is not in the log any more: dismiss this", r.Statement)
	}
	said, err := s.statement(ctx, seq)
	if err != nil {
		return err
	}
	v := hashlist.Statement{Kind: hashlist.Confirmation, List: said.List, About: said.ID, Reason: d.Why}
	if d.What == hashlist.ChooseWithdraw {
		s.retracting.Lock()
		defer s.retracting.Unlock()
		v = hashlist.Statement{Kind: hashlist.Retraction, List: said.List, Retracts: said.ID, Reason: d.Why}
		if s.standing(said) == 0 {
			return s.answered(ctx, &r, d) // it was retracted before: others who disputed it are answered with it
		}
	}
	if err := s.validate(v); err != nil {
		return err
	}
	records, err := s.seal(ctx, v)
	if err != nil {
		return err
	}
	d.Statements = append(d.Statements, records[0].Statement.ID)
	s.tellDisputer(ctx, &r, records[0].Statement.ID)
	if d.What == hashlist.ChooseWithdraw {
		return s.answered(ctx, &r, d)
	}
	return nil
}

// answered closes the other disputes of a statement that is retracted, and tells those
// who brought them.
func (s *Server) answered(ctx context.Context, r *hashlist.Review, d *hashlist.ReviewDecision) error {
	all, err := s.cfg.Reviews.Reviews(ctx, hashlist.ReviewSelection{
		Kinds: []hashlist.ReviewKind{hashlist.ReviewDispute}, States: []hashlist.ReviewState{hashlist.ReviewOpen, hashlist.ReviewProposed},
		Limit: hashlist.MaxOpenReviews,
	})
	if err != nil {
		return err
	}
	for i := range all {
		o := &all[i]
		if o.Statement != r.Statement || o.ID == r.ID {
			continue
		}
		_, err := s.cfg.Reviews.ChangeReview(ctx, o.ID, func(o *hashlist.Review) error { o.State = hashlist.ReviewClosed; return nil })
		if err != nil && !errors.Is(err, hashlist.ErrNoReview) {
			return err
		}
		for _, id := range d.Statements {
			s.tellDisputer(ctx, o, id)
		}
	}
	return nil
}

// readHashes reads what writeHashes wrote.
func readHashes(body []byte) ([]hashlist.Hash, error) {
	if len(body) == 0 {
		return nil, nil
	}
	return parseHashes(strings.Split(string(body), "\n"))
}

// writeHashes is how an item keeps the hashes of what was uploaded, for a decision
// to ban or allow it.
func writeHashes(hashes []hashlist.Hash) []byte {
	var texts []string
	for _, h := range hashes {
		texts = append(texts, h.String())
	}
	return []byte(strings.Join(texts, "\n"))
}
