package hashlist

import "testing"

// Every number has one name, and every name one number: both are kept and shown.
func TestReviewNames(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range ReviewKinds {
		got, err := ParseReviewKind(k.String())
		if err != nil || got != k || seen[k.String()] {
			t.Errorf("kind %d is %q, which is %d, %v", k, k, got, err)
		}
		seen[k.String()] = true
	}
	for s := ReviewOpen; s <= ReviewClosed; s++ {
		if got, err := ParseReviewState(s.String()); err != nil || got != s {
			t.Errorf("state %d is %q, which is %d, %v", s, s, got, err)
		}
	}
	for c := ChooseConfirm; c <= ChooseApprove; c++ {
		if got, err := ParseReviewChoice(c.String()); err != nil || got != c {
			t.Errorf("choice %d is %q, which is %d, %v", c, c, got, err)
		}
	}
	for _, text := range []string{"", "Held", "held ", "kind(0)", "review(11)"} {
		if k, err := ParseReviewKind(text); err == nil {
			t.Errorf("%q is %v", text, k)
		}
	}
	if got := ReviewKind(0).String() + ReviewState(9).String() + ReviewChoice(200).String(); got != "review(0)state(9)choice(200)" {
		t.Error(got)
	}
}
