package federation_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
)

// judged checks what a node comes to about some hashes.
func judged(t *testing.T, n *node, want map[int]hashlist.Verdict) {
	t.Helper()
	for h, v := range want {
		if got := n.verdict(pdq(t, h)); got != v {
			t.Errorf("hash %d: %v, want %v", h, got, v)
		}
	}
}

// TestAttackHead: a publisher that has signed heads and leaves them away, or shows old ones, so that nothing it signed says
// what it showed to whom. What comes so is kept back, pushed or read, until a head stands for it.
func TestAttackHead(t *testing.T) {
	for name, head := range map[string]func(b *bad) string{
		"no head":                    func(*bad) string { return "" },
		"an old head":                func(b *bad) string { return b.head(2) },
		"a head of fewer, but newer": func(b *bad) string { return b.head(3) },
	} {
		t.Run(name, func(t *testing.T) {
			n, b := newNode(t), newBad(t)
			ban := b.ban(pdq(t, 1001))
			b.add(ban)
			b.followed(n)
			reached(t, n, b.list, 2)
			before := n.fold()

			// It bans something else for this follower, and takes back the first ban for the others.
			b.mu.Lock()
			b.items = append(b.items, b.ban(pdq(t, 1002)), b.ban(pdq(t, 1003)))
			b.mu.Unlock()
			page := b.pageOf(2, 4, head(b), false)
			b.servePage(2, page)
			if got := b.push(n, page); got.code != 202 {
				t.Errorf("%+v", got)
			}
			until(t, "it is told of", func() bool { return strings.Contains(statusOf(t, n, b.list).Trouble, "kept back") })
			if s := statusOf(t, n, b.list); s.State != federation.FollowAccepted || s.Position != 2 || s.Headless || n.fold() != before {
				t.Errorf("%+v", s)
			}
			judged(t, n, map[int]hashlist.Verdict{1001: hashlist.VerdictReject, 1002: hashlist.VerdictAllow, 1003: hashlist.VerdictAllow})

			// Nor does it forget in a restart that there were heads.
			n.stop()
			n.restart()
			until(t, "it is told of again", func() bool {
				return b.push(n, page).code == 202 && strings.Contains(statusOf(t, n, b.list).Trouble, "kept back")
			})
			if s := statusOf(t, n, b.list); s.Position != 2 {
				t.Errorf("after a restart: %+v", s)
			}

			// With a head it goes on, and the trouble is over.
			b.serveLog()
			b.push(n, b.pageOf(2, 4, b.head(4), false))
			reached(t, n, b.list, 4)
			judged(t, n, map[int]hashlist.Verdict{1002: hashlist.VerdictReject, 1003: hashlist.VerdictReject})
			b.accept(n, statusOf(t, n, b.list).ID)
			until(t, "the trouble is over", func() bool { return statusOf(t, n, b.list).Trouble == "" })
		})
	}
	for name, head := range map[string]func(b *bad) string{
		"no head":     func(*bad) string { return "" },
		"an old head": func(b *bad) string { return b.head(1) },
	} {
		// The retraction is never shown: the log just ends before it.
		t.Run("an end of the log with "+name, func(t *testing.T) {
			n, b := newNode(t), newBad(t)
			b.add(b.ban(pdq(t, 1011)))
			b.followed(n)
			reached(t, n, b.list, 2)
			b.servePage(2, b.pageOf(2, 2, head(b), false))
			b.accept(n, statusOf(t, n, b.list).ID)
			until(t, "it is told of", func() bool { return strings.Contains(statusOf(t, n, b.list).Trouble, "kept back") })
			b.add(b.seal(hashlist.Statement{Kind: hashlist.Retraction, Retracts: b.items[1].Statement.ID}))
			b.push(n, b.pageOf(2, 3, b.head(3), false))
			reached(t, n, b.list, 3)
			judged(t, n, map[int]hashlist.Verdict{1011: hashlist.VerdictAllow})
		})
	}
	t.Run("a push that brings nothing new may be late", func(t *testing.T) {
		n, b := newNode(t), newBad(t)
		b.add(b.ban(pdq(t, 1021)))
		b.followed(n)
		reached(t, n, b.list, 2)
		for _, page := range []json.RawMessage{b.pageOf(0, 1, b.head(1), false), b.pageOf(0, 2, "", false)} {
			if got := b.push(n, page); got.code != 202 {
				t.Errorf("%+v", got)
			}
		}
		if s := statusOf(t, n, b.list); s.Trouble != "" || s.Position != 2 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("a publisher that never signed one", func(t *testing.T) {
		n, b := newNode(t), newBad(t)
		b.mu.Lock()
		b.items = append(b.items, b.ban(pdq(t, 1031)))
		b.mu.Unlock()
		for at := range 3 {
			b.servePage(at, b.pageOf(at, 2, "", false))
		}
		b.followed(n)
		reached(t, n, b.list, 2)
		if s := statusOf(t, n, b.list); !s.Headless || s.Trouble != "" {
			t.Errorf("%+v", s)
		}
		judged(t, n, map[int]hashlist.Verdict{1031: hashlist.VerdictReject})
		// From its first head on it owes them.
		b.add(b.ban(pdq(t, 1032)))
		b.push(n, b.pageOf(2, 3, b.head(3), false))
		reached(t, n, b.list, 3)
		if s := statusOf(t, n, b.list); s.Headless {
			t.Errorf("%+v", s)
		}
		b.push(n, b.rawPage(3, []any{jsonOf(b.ban(pdq(t, 1033)))}, "", false))
		judged(t, n, map[int]hashlist.Verdict{1032: hashlist.VerdictReject, 1033: hashlist.VerdictAllow})
	})
	t.Run("its operator takes it over anew", func(t *testing.T) {
		n, b := newNode(t), newBad(t)
		b.followed(n)
		reached(t, n, b.list, 1)
		b.mu.Lock()
		b.items = append(b.items, b.ban(pdq(t, 1041)))
		b.mu.Unlock()
		for at := range 3 {
			b.servePage(at, b.pageOf(at, 2, "", false))
		}
		b.accept(n, statusOf(t, n, b.list).ID)
		until(t, "it is told of", func() bool { return strings.Contains(statusOf(t, n, b.list).Trouble, "--anew") })
		if _, err := n.FollowAnew(t.Context(), b.list); err != nil {
			t.Fatal(err)
		}
		reached(t, n, b.list, 2)
		if s := statusOf(t, n, b.list); !s.Headless {
			t.Errorf("%+v", s)
		}
	})
}
