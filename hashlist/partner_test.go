package hashlist

import (
	"testing"
	"time"
)

// TestPartnerForGood: once a definition has marked a list as one of partner data, nothing that
// enters the log widens it: no later definition, no earlier one that comes late, no
// retraction, and no order of them.
func TestPartnerForGood(t *testing.T) {
	mark := define("csam", Reject)
	mark.Definition.Audience, mark.Definition.Labels = Local, []string{"csam", PartnerData}
	widen := define("csam", Reject)
	widen.ID += "-wider"
	widen.Published = mark.Published.Add(time.Hour)
	widen.Definition.Audience, widen.Definition.Labels = Public, nil
	if err := widen.Validate(); err != nil {
		t.Fatal(err)
	}
	retract := Statement{
		ID: mark.ID + "-retracted", Issuer: mark.Issuer, List: mark.List, Kind: Retraction,
		Published: mark.Published.Add(time.Minute), Retracts: mark.ID,
	}
	for name, statements := range map[string][]Statement{
		"marked, then widened":         {mark, widen},
		"widened, then marked":         {widen, mark},
		"mark retracted, then widened": {mark, retract, widen},
		"retraction first":             {retract, widen, mark},
	} {
		log := &memoryLog{}
		l := open(t, log)
		apply(t, l, statements...)
		reopened := open(t, log)
		for when, l := range map[string]*Lists{"at once": l, "after a restart": reopened} {
			d, ok := l.List(mark.List)
			if !ok || !d.Partner || d.Audience != Local || !l.Partner(mark.List) {
				t.Errorf("%s, %s: partner %t %t, audience %v", name, when, d.Partner, l.Partner(mark.List), d.Audience)
			}
		}
	}
	l := open(t, &memoryLog{})
	apply(t, l, mark, retract)
	if _, ok := l.List(mark.List); ok || !l.Partner(mark.List) {
		t.Error("a list that was removed is not known as one of partner data any more")
	}
	if l.Partner(origin + "/lists/other") {
		t.Error("a list that nobody knows is of partner data")
	}
	mark.Definition.Audience = Followers
	if err := mark.Validate(); err == nil {
		t.Error("a definition marks a list of partner data and lets others read it")
	}
}
