package federation_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"
)

// TestAttackAborts: a publisher that hangs up while its push is worked on leaves everything in step.
func TestAttackAborts(t *testing.T) {
	n, b := newNode(t), newBad(t)
	b.followed(n)
	reached(t, n, b.list, 1)
	for i := range 40 {
		b.mu.Lock()
		b.items = append(b.items, b.ban(pdq(t, 700+i)))
		b.mu.Unlock()
		body := encode(t, b.activity("Announce", b.list, json.RawMessage(b.pageOf(i+1, i+2, b.head(i+2), false))))
		ctx, cancel := context.WithCancel(t.Context())
		r := b.build(n, letter{body: body, keyID: b.list + "#main-key"}).WithContext(ctx)
		timer := time.AfterFunc(time.Duration(i)*200*time.Microsecond, cancel)
		res, err := plain.Do(r)
		if err == nil {
			res.Body.Close()
		} else if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		timer.Stop()
		cancel()
		until(t, "what was cut off is settled", func() bool {
			b.push(n, b.pageOf(0, i+2, b.head(i+2), false))
			return statusOf(t, n, b.list).Position == uint64(i+2)
		})
		v, err := n.Verify(t.Context(), b.list, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range v.Checks {
			if !c.Passed && c.Name != "publisher" { // whose log is not served here
				t.Fatalf("after %d: %s: %s", i, c.Name, c.Detail)
			}
		}
	}
}
