package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/store"
)

func entry(n int) hashlist.AuditEntry {
	return hashlist.AuditEntry{
		ID: fmt.Sprintf("e-%d", n), Kind: "verdict", At: received.Add(time.Duration(n) * time.Second), Who: "pictrs ünicode",
		Body: fmt.Appendf(nil, `{"n":%d,"text":"%s"}`, n, strings.Repeat("x", n%300)),
	}
}

func audited(t *testing.T, db *store.DB, seq uint64) ([]hashlist.AuditEntry, error) {
	t.Helper()
	var all []hashlist.AuditEntry
	for e, err := range db.AuditAfter(t.Context(), seq) {
		if err != nil {
			return all, err
		}
		all = append(all, e)
	}
	return all, nil
}

func TestAudit(t *testing.T) {
	eachBackend(t, func(t *testing.T, db *store.DB, reopen func() *store.DB) {
		if h, err := db.VerifyAudit(t.Context(), hashlist.AuditHead{}); err != nil || h != (hashlist.AuditHead{}) {
			t.Fatalf("an empty log has the head %v, %v", h, err)
		}
		var want []hashlist.AuditEntry
		var heads []hashlist.AuditHead
		for n := range 250 { // several pages
			e, err := db.AppendAudit(t.Context(), entry(n))
			if err != nil {
				t.Fatal(err)
			}
			h, err := db.AuditEnd(t.Context())
			if err != nil || e.Seq != uint64(n+1) || h.Seq != e.Seq {
				t.Fatalf("entry %d has place %d, head %v, %v", n, e.Seq, h, err)
			}
			want, heads = append(want, e), append(heads, h)
		}
		for range 2 {
			for _, from := range []int{0, 1, 199, 200, 249, 250} {
				got, err := audited(t, db, uint64(from))
				if err != nil {
					t.Fatal(err)
				}
				if !slices.EqualFunc(got, want[from:], func(a, b hashlist.AuditEntry) bool { return cmp.Equal(a, b) }) {
					t.Fatalf("%d entries behind %d, and not those appended", len(got), from)
				}
			}
			for _, n := range []int{0, 1, 210, 249} {
				if e, found, err := db.FindAudit(t.Context(), want[n].ID); err != nil || !found || !cmp.Equal(e, want[n]) {
					t.Fatalf("find: %+v, %v, %v", e, found, err)
				}
				if h, err := db.VerifyAudit(t.Context(), heads[n]); err != nil || h != heads[249] {
					t.Fatalf("head %v after %d, %v", h, n, err)
				}
			}
			for _, id := range []string{"e-250", "", "no id at all", "é"} {
				if _, found, err := db.FindAudit(t.Context(), id); found || err != nil {
					t.Errorf("found %q: %v, %v", id, found, err)
				}
			}
			if err := db.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
			db.Close()
			db = reopen()
		}
		// A head that the log does not lead through.
		for name, h := range map[string]hashlist.AuditHead{
			"further":      {Seq: 251, Sum: heads[249].Sum},
			"another sum":  {Seq: 210, Sum: heads[211].Sum},
			"of the last":  {Seq: 250, Sum: heads[248].Sum},
			"none, with a": {Seq: 0, Sum: heads[0].Sum},
		} {
			if _, err := db.VerifyAudit(t.Context(), h); err == nil {
				t.Errorf("%s: a head of another log passed", name)
			}
		}
		e, err := db.AppendAudit(t.Context(), hashlist.AuditEntry{Kind: "act", At: received, Body: []byte("{}")})
		if err != nil || e.Seq != 251 || hashlist.CheckName(e.ID) != nil {
			t.Errorf("entry without an ID: %+v, %v", e, err)
		}
	})
}

func TestAuditRefuses(t *testing.T) {
	eachBackend(t, func(t *testing.T, db *store.DB, _ func() *store.DB) {
		if _, err := db.AppendAudit(t.Context(), entry(1)); err != nil {
			t.Fatal(err)
		}
		for name, change := range map[string]func(*hashlist.AuditEntry){
			"an ID that is there":  func(e *hashlist.AuditEntry) { e.ID = "e-1" },
			"an ID with capitals":  func(e *hashlist.AuditEntry) { e.ID = "E" },
			"no kind":              func(e *hashlist.AuditEntry) { e.Kind = "" },
			"no time":              func(e *hashlist.AuditEntry) { e.At = time.Time{} },
			"no body":              func(e *hashlist.AuditEntry) { e.Body = nil },
			"a body that is not J": func(e *hashlist.AuditEntry) { e.Body = []byte("{") },
			"a body too long":      func(e *hashlist.AuditEntry) { e.Body = fmt.Appendf(nil, "%q", strings.Repeat("x", hashlist.MaxAudit)) },
			"who is not text":      func(e *hashlist.AuditEntry) { e.Who = "\xff" },
		} {
			e := entry(2)
			change(&e)
			if _, err := db.AppendAudit(t.Context(), e); err == nil {
				t.Errorf("%s was stored", name)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for range 20 { // which of two ready cases a select takes is drawn
			if _, err := db.AppendAudit(ctx, hashlist.AuditEntry{Kind: "act", At: received, Body: []byte("{}")}); err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
		all, err := audited(t, db, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all[1:] {
			if e.Kind != "act" {
				t.Errorf("stored %+v", e)
			}
		}
	})
}

// TestAuditTogether: many callers, none of whom fails by another's doing.
func TestAuditTogether(t *testing.T) {
	eachBackend(t, func(t *testing.T, db *store.DB, _ func() *store.DB) {
		var all sync.WaitGroup
		for w := range 16 {
			all.Go(func() {
				for i := range 20 {
					n := w*100 + i
					if _, err := db.AppendAudit(t.Context(), entry(n)); err != nil {
						t.Error(err)
					}
					if _, err := db.AppendAudit(t.Context(), entry(n)); err == nil {
						t.Error("an ID that is there was stored again")
					}
				}
			})
		}
		all.Wait()
		if h, err := db.VerifyAudit(t.Context(), hashlist.AuditHead{}); err != nil || h.Seq != 320 {
			t.Errorf("head %v, %v", h, err)
		}
	})
}

// TestAuditTampered changes rows as somebody with the file would.
func TestAuditTampered(t *testing.T) {
	for name, c := range map[string]struct {
		change string
		noted  bool // only a head that was noted gives it away
	}{
		"a body":             {"UPDATE audit SET body = x'7b7d' WHERE seq = 5", false},
		"a body and its sum": {"UPDATE audit SET body = x'7b7d', body_sum = x'44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a' WHERE seq = 5", false},
		"a time":             {"UPDATE audit SET at = at + 1 WHERE seq = 5", false},
		"who":                {"UPDATE audit SET who = 'somebody' WHERE seq = 5", false},
		"a kind":             {"UPDATE audit SET kind = 'act' WHERE seq = 5", false},
		"an ID":              {"UPDATE audit SET id = 'other' WHERE seq = 5", false},
		"a sum":              {"UPDATE audit SET sum = zeroblob(32) WHERE seq = 5", false},
		"one missing":        {"DELETE FROM audit WHERE seq = 5", false},
		"the first missing":  {"DELETE FROM audit WHERE seq = 1", false},
		"the end cut off":    {"DELETE FROM audit WHERE seq > 7", true},
		"all gone":           {"DELETE FROM audit", true},
	} {
		t.Run(name, func(t *testing.T) {
			db, _ := createSQLite(t)
			for n := range 10 {
				if _, err := db.AppendAudit(t.Context(), entry(n)); err != nil {
					t.Fatal(err)
				}
			}
			noted, err := db.AuditEnd(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := db.Writer().Exec(c.change); err != nil {
				t.Fatal(err)
			}
			if _, err := db.VerifyAudit(t.Context(), hashlist.AuditHead{}); (err == nil) != c.noted {
				t.Errorf("without a noted head: %v", err)
			}
			if _, err := db.VerifyAudit(t.Context(), noted); err == nil {
				t.Error("with the noted head it passed")
			} else {
				t.Log(err)
			}
		})
	}
	t.Run("a body emptied by law", func(t *testing.T) {
		db, _ := createSQLite(t)
		for n := range 3 {
			if _, err := db.AppendAudit(t.Context(), entry(n)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := db.Writer().Exec("UPDATE audit SET body = zeroblob(0) WHERE seq = 2"); err != nil {
			t.Fatal(err)
		}
		if h, err := db.VerifyAudit(t.Context(), hashlist.AuditHead{}); err != nil || h.Seq != 3 {
			t.Errorf("head %v, %v", h, err)
		}
	})
}

// BenchmarkAudit is what a rejection waits for, alone and beside others.
func BenchmarkAudit(b *testing.B) {
	for _, callers := range []int{1, 16} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			db, _ := benchDB(b)
			e := entry(250)
			e.ID = ""
			b.SetParallelism(callers)
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					if _, err := db.AppendAudit(b.Context(), e); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
