package hashlist

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memoryLog keeps the contract of Log in memory, and can be told to fail before
// or after it has stored, because an error does not mean that nothing happened.
type memoryLog struct {
	mu         sync.Mutex
	records    []Record
	fail       error
	storeFirst bool // with fail: only after storing
	failFind   error
	appends    int
}

func (m *memoryLog) Append(_ context.Context, records []Record) ([]uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.appends++
	if m.fail != nil && !m.storeFirst {
		return nil, m.fail
	}
	var seqs []uint64
	for _, r := range records {
		i := slices.IndexFunc(m.records, func(k Record) bool { return k.Statement.ID == r.Statement.ID })
		if i < 0 {
			i = len(m.records)
			r.Seq = uint64(i + 1)
			m.records = append(m.records, r)
		}
		seqs = append(seqs, uint64(i+1))
	}
	return seqs, m.fail
}

func (m *memoryLog) After(_ context.Context, seq uint64, only Selection) iter.Seq2[Record, error] {
	m.mu.Lock()
	records := slices.Clone(m.records)
	m.mu.Unlock()
	return func(yield func(Record, error) bool) {
		for _, r := range records {
			if r.Seq <= seq || only.List != "" && only.List != r.Statement.List {
				continue
			}
			if s := &r.Statement; only.Bare {
				r.Statement = Statement{ID: s.ID, Issuer: s.Issuer, List: s.List, Kind: s.Kind}
			}
			if !only.Signed {
				r.Signed = nil
			}
			if !yield(r, nil) {
				return
			}
		}
	}
}

func (m *memoryLog) Find(_ context.Context, id string) (Record, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failFind != nil {
		return Record{}, false, m.failFind
	}
	for _, r := range m.records {
		if r.Statement.ID == id {
			return r, true, nil
		}
	}
	return Record{}, false, nil
}

func open(t testing.TB, log Log) *Lists {
	t.Helper()
	l, err := Open(context.Background(), log, DefaultPolicy())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func apply(t testing.TB, l *Lists, statements ...Statement) []uint64 {
	t.Helper()
	var records []Record
	for _, s := range statements {
		records = append(records, Record{Statement: s})
	}
	seqs, err := l.Apply(context.Background(), records...)
	if err != nil {
		t.Fatal(err)
	}
	return seqs
}

func folded(t testing.TB, l *Lists) string {
	t.Helper()
	var b bytes.Buffer
	if err := l.WriteFold(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestMergeAnyOrder is the promise of the package: any order of arrival and any
// repetition of the same statements come to the same fold, and so does reading
// them from the log.
func TestMergeAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var world []Statement
		for id := range rapid.IntRange(1, 30).Draw(t, "statements") {
			world = append(world, anyStatement(t, id))
		}
		now := epoch.Add(time.Duration(rapid.IntRange(0, 250).Draw(t, "now")) * time.Second)
		fold := func(order []Statement, times ...time.Time) string {
			f := newFold()
			for i := range order {
				at := now
				if len(times) > 0 { // a clock that runs while statements come in
					at = times[min(i, len(times)-1)]
					f.lapse(at)
				}
				f.merge(uint64(i+1), &order[i], at)
			}
			f.lapse(now)
			check(t, f)
			var b bytes.Buffer
			if err := f.write(&b, now); err != nil {
				t.Fatal(err)
			}
			return b.String()
		}
		want := fold(world)
		if model := modelFold(world, now); model != want {
			t.Fatalf("fold:\n%s\nmodel:\n%s", want, model)
		}
		shuffled := rapid.Permutation(world).Draw(t, "order")
		repeated := append(slices.Clone(shuffled), rapid.SliceOf(rapid.SampledFrom(world)).Draw(t, "again")...)
		if got := fold(repeated); got != want {
			t.Fatalf("in order %v:\n%s\nwant:\n%s", ids(repeated), got, want)
		}
		var times []time.Time
		for i := range repeated {
			times = append(times, now.Add(time.Duration(i-len(repeated)+1)*10*time.Second))
		}
		if got := fold(repeated, times...); got != want {
			t.Fatalf("with a running clock, in order %v:\n%s\nwant:\n%s", ids(repeated), got, want)
		}
	})
}

func ids(all []Statement) (ids []string) {
	for _, s := range all {
		ids = append(ids, s.ID[strings.LastIndexByte(s.ID, '/')+1:])
	}
	return ids
}

// modelFold is the definition of the fold, written down as plainly as can be.
func modelFold(world []Statement, now time.Time) string {
	// of is the hash or the subject in question, nil for a statement that has neither.
	retracted := func(s Statement, of any) bool {
		return slices.ContainsFunc(world, func(r Statement) bool {
			if r.Kind != Retraction || r.Retracts != s.ID || r.Issuer != s.Issuer || r.List != s.List {
				return false
			}
			whole := len(r.Hashes) == 0 && len(r.Subjects) == 0
			switch v := of.(type) {
			case Hash:
				return whole || slices.Contains(r.Hashes, v)
			case string:
				return whole || slices.Contains(r.Subjects, v)
			}
			return whole || s.Kind == DefineList
		})
	}
	var lines []string
	latest := map[string]Statement{}
	for _, s := range world {
		until := int64(0)
		if !s.Expires.IsZero() {
			until = s.Expires.Unix()
		}
		if until != 0 && !s.Expires.After(now) {
			continue
		}
		say := func(of any, format string, args ...any) {
			if !retracted(s, of) {
				lines = append(lines, fmt.Sprintf(format, args...))
			}
		}
		switch s.Kind {
		case DefineList:
			l, ok := latest[s.List]
			if !retracted(s, nil) && (!ok || s.Published.After(l.Published) || s.Published.Equal(l.Published) && s.ID > l.ID) {
				latest[s.List] = s
			}
		case AddHashes:
			for _, h := range s.Hashes {
				say(h, "hash %v on %s labels=%v action=%v until=%d by %s\n", h, s.List, s.Labels, s.Action, until, s.ID)
			}
		case AddAccounts, AddInstances, AddContent:
			for _, v := range s.Subjects {
				say(v, "%v %s on %s labels=%v action=%v until=%d by %s\n", s.Kind, v, s.List, s.Labels, s.Action, until, s.ID)
			}
		case Confirmation, Dispute:
			say(nil, "%v of %s on %s until=%d by %s\n", s.Kind, s.About, s.List, until, s.ID)
		case Vouch:
			from := s.Published
			if !s.Vouch.From.IsZero() {
				from = s.Vouch.From
			}
			say(nil, "vouch for %s on %s labels=%v amount=%d depth=%d from=%d until=%d by %s\n",
				s.Vouch.Object, s.List, s.Labels, s.Vouch.Amount, s.Vouch.Depth, from.Unix(), until, s.ID)
		}
	}
	for iri, s := range latest {
		d := s.Definition
		lines = append(lines, fmt.Sprintf("list %s %s %q labels=%v audience=%v action=%v radii=%v by %s\n",
			iri, d.Name, d.Summary, d.Labels, d.Audience, d.Action, d.Radii, s.ID))
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// check verifies what must always hold inside a fold.
func check(t interface {
	Fatalf(string, ...any)
	Helper()
}, f *fold) {
	t.Helper()
	chained := 0
	for in := range table(tables) {
		for id, o := range f.owners[in] {
			for ; o != 0; o = f.postings[o-1].next {
				p := f.postings[o-1]
				if p.in != in || int(p.point) != id {
					t.Fatalf("posting %d is chained to %v %d but is of %v %d", o-1, in, id, p.in, p.point)
				}
				chained++
			}
		}
	}
	for in := table(VPDQ) + 1; in < table(tables); in++ {
		texts := f.textsOf(in)
		if len(texts.ids)+len(texts.free) != len(texts.keys) {
			t.Fatalf("table %d has %d texts and %d free places among %d", in, len(texts.ids), len(texts.free), len(texts.keys))
		}
		for _, id := range texts.free {
			if texts.keys[id] != "" {
				t.Fatalf("text %q of table %d is gone and kept", texts.keys[id], in)
			}
		}
		for text, id := range texts.ids {
			if f.owners[in][id] == 0 || texts.keys[id] != text {
				t.Fatalf("text %q of table %d is nobody's", text, in)
			}
		}
	}
	live, hashes, subjects, statements := 0, map[*list]int{}, map[*list]int{}, map[*list]int{}
	for n, s := range f.stmts {
		of := uint32(0)
		for i := s.first; i < s.first+s.count; i++ {
			if p := f.postings[i]; p.in != 0 {
				if p.stmt != uint32(n) {
					t.Fatalf("statement %d has a posting of %d", n, p.stmt)
				}
				of++
			}
		}
		if of != s.live {
			t.Fatalf("statement %d has %d postings in force, and says %d", n, of, s.live)
		}
		live += int(of)
		if of > 0 && !s.void {
			switch s.kind {
			case AddHashes:
				hashes[s.list] += int(of)
			case AddAccounts, AddInstances, AddContent:
				subjects[s.list] += int(of)
			}
			statements[s.list]++
		}
	}
	if live != chained {
		t.Fatalf("%d postings are in force, %d are chained", live, chained)
	}
	for _, l := range f.lists {
		if l.hashes != hashes[l] || l.subjects != subjects[l] || l.statements != statements[l] {
			t.Fatalf("list %s has %d hashes and %d subjects in %d statements, and says %d and %d in %d", l.iri,
				hashes[l], subjects[l], statements[l], l.hashes, l.subjects, l.statements)
		}
	}
}

// hashAt returns a hash of a fixed picture with bits turned.
func hashAt(t testing.TB, a Algorithm, flips ...int) Hash {
	t.Helper()
	sum := bytes.Repeat([]byte{0xa5}, a.Size())
	for _, f := range flips {
		sum[f/8] ^= 1 << (f % 8)
	}
	h, err := NewHash(a, sum)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func first(n int) (flips []int) {
	for i := range n {
		flips = append(flips, i)
	}
	return flips
}

// statements counts those that the tests have made. Of two of one second the ID decides, as text, so it is
// written with as many digits for each: what a test sees does not depend on which ran before it.
var statements int

func define(name string, action Action) Statement {
	statements++
	return Statement{
		ID: fmt.Sprintf("%s/statements/d%06d", origin, statements), Issuer: origin + "/users/a", List: origin + "/lists/" + name,
		Kind: DefineList, Published: epoch,
		Definition: &Definition{Name: name, Labels: []string{"csam"}, Audience: Local, Action: action, Radii: DefaultRadii},
	}
}

func add(list string, hashes ...Hash) Statement {
	statements++
	return Statement{
		ID: fmt.Sprintf("%s/statements/a%06d", origin, statements), Issuer: origin + "/users/a", List: origin + "/lists/" + list,
		Kind: AddHashes, Published: epoch, Hashes: hashes,
	}
}

func probe(hashes ...Hash) Query {
	var q Query
	for i, h := range hashes {
		q.Probes = append(q.Probes, Probe{Hash: h, Index: i})
	}
	return q
}

func TestRetractAndList(t *testing.T) {
	l := open(t, &memoryLog{})
	def := define("ban", Reject)
	a := add("ban", hashAt(t, PDQ), hashAt(t, SHA256), hashAt(t, MD5))
	apply(t, l, def, a)
	listed := func() []bool { return l.Listed(a.List, a.Issuer, a.Hashes) }
	if got := listed(); !slices.Equal(got, []bool{true, true, true}) {
		t.Fatal(got)
	}
	if l.Listed(a.List, origin+"/users/b", a.Hashes)[0] || l.Listed(origin+"/lists/x", a.Issuer, a.Hashes)[0] {
		t.Error("listed by somebody else, or elsewhere")
	}
	undo := Statement{
		ID: origin + "/statements/u1", Issuer: a.Issuer, List: a.List, Kind: Retraction, Published: epoch, Retracts: a.ID,
		Hashes: []Hash{a.Hashes[1]},
	}
	foreign := undo
	foreign.ID, foreign.Issuer, foreign.Hashes = origin+"/statements/u2", origin+"/users/b", nil
	apply(t, l, foreign)
	if got := listed(); !slices.Equal(got, []bool{true, true, true}) {
		t.Fatal("another issuer's retraction acted", got)
	}
	apply(t, l, undo)
	if got := listed(); !slices.Equal(got, []bool{true, false, true}) {
		t.Fatal(got)
	}
	if in := l.InForce(&a); !slices.Equal(in, []Hash{a.Hashes[0], a.Hashes[2]}) {
		t.Fatal(in)
	}
	if v, ok := l.List(a.List); !ok || v.Hashes != 2 || v.Statements != 1 || v.Name != "ban" || v.Statement != def.ID {
		t.Fatalf("%+v", v)
	}
	undo.ID, undo.Hashes = origin+"/statements/u3", nil
	apply(t, l, undo)
	if v, _ := l.List(a.List); v.Hashes != 0 || v.Statements != 0 || l.InForce(&a) != nil {
		t.Fatalf("%+v", v)
	}
	if c := l.Counts(); c.Hashes[PDQ] != 0 || c.Hashes[SHA256] != 0 || c.Lists != 1 {
		t.Fatalf("%+v", c)
	}
	if r := l.Lookup(probe(a.Hashes[0])); r.Verdict != VerdictAllow {
		t.Fatal(r)
	}
	apply(t, l, add("ban", a.Hashes...)) // listed again by a new statement
	if r := l.Lookup(probe(a.Hashes[0])); r.Verdict != VerdictReject {
		t.Fatal(r)
	}
	apply(t, l, Statement{
		ID: origin + "/statements/u4", Issuer: def.Issuer, List: def.List, Kind: Retraction, Published: epoch, Retracts: def.ID,
	})
	if r := l.Lookup(probe(a.Hashes[0])); r.Verdict != VerdictAllow || len(l.All()) != 0 || len(l.Definitions(def.List)) != 0 {
		t.Fatal("the list is gone, but its hashes still match")
	}
	if issuer, seq, known := l.Issued(a.ID); issuer != a.Issuer || seq != 2 || !known {
		t.Error(issuer, seq, known)
	}
}

// TestLapse runs in a bubble, where time passes at once.
func TestLapse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, &memoryLog{})
		def := define("ban", Reject)
		now := time.Now().UTC().Truncate(time.Second)
		def.Published = now
		a := add("ban", hashAt(t, PDQ))
		a.Published, a.Expires = now, now.Add(time.Hour)
		apply(t, l, def, a)
		time.Sleep(time.Hour - time.Second)
		if r := l.Lookup(probe(a.Hashes[0])); r.Verdict != VerdictReject {
			t.Error("lapsed too early")
		}
		time.Sleep(time.Second)
		// Nothing has swept yet: the lookup itself looks at the clock.
		if r := l.Lookup(probe(a.Hashes[0])); r.Verdict != VerdictAllow || l.Listed(a.List, a.Issuer, a.Hashes)[0] || l.InForce(&a) != nil {
			t.Error("lapsed statement still acts")
		}
		time.Sleep(sweep + time.Second)
		synctest.Wait()
		if c := l.Counts(); c.Hashes[PDQ] != 0 {
			t.Error("the hash of a lapsed statement is still in the index")
		}
		b := add("ban", hashAt(t, PDQ))
		b.Published, b.Expires = now, now.Add(time.Minute)
		apply(t, l, b) // already over when it comes
		if r := l.Lookup(probe(a.Hashes[0])); r.Verdict != VerdictAllow {
			t.Error("a statement that came too late acts")
		}
		l.Close()
	})
}

func TestApplyAndReopen(t *testing.T) {
	log := &memoryLog{}
	l := open(t, log)
	def := define("ban", Reject)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(7, uint64(i)))
			for range 50 {
				var sum [32]byte
				for i := range sum {
					sum[i] = byte(r.Uint32())
				}
				h, _ := NewHash(PDQ, sum[:])
				s := Statement{
					ID: fmt.Sprintf("%s/statements/%s", origin, h.Hex()), Issuer: def.Issuer, List: def.List, Kind: AddHashes,
					Published: epoch, Hashes: []Hash{h},
				}
				seqs, err := l.Apply(context.Background(), Record{Statement: s}, Record{Statement: def})
				if err != nil || len(seqs) != 2 {
					t.Error(seqs, err)
					return
				}
				// What was acknowledged is heeded by the next lookup.
				if r := l.Lookup(probe(h)); len(r.Matches) != 1 || r.Verdict != VerdictReject || r.Seq < seqs[0] {
					t.Errorf("%+v", r)
					return
				}
			}
		})
	}
	seen := 0
	wg.Go(func() {
		for cursor := uint64(0); cursor < 401; {
			if err := l.Wait(context.Background(), cursor); err != nil {
				t.Error(err)
				return
			}
			for r, err := range l.After(context.Background(), cursor, Selection{}) {
				if err != nil || r.Seq != cursor+1 {
					t.Errorf("place %d after %d: %v", r.Seq, cursor, err)
					return
				}
				cursor = r.Seq
				seen++
			}
		}
	})
	wg.Wait()
	if seen != 401 || l.Seq() != 401 {
		t.Errorf("%d statements seen, log is at %d, want 401", seen, l.Seq())
	}
	want := folded(t, l)
	if got := folded(t, open(t, log)); got != want || strings.Count(got, "hash ") != 400 {
		t.Error("the log, read again, comes to another fold")
	}
	l.Close()
	if _, err := l.Apply(context.Background(), Record{Statement: def}); !errors.Is(err, ErrClosed) {
		t.Errorf("apply after close: %v", err)
	}
	if err := l.Wait(context.Background(), 1000); !errors.Is(err, ErrClosed) {
		t.Errorf("wait after close: %v", err)
	}
}

func TestApplyFailures(t *testing.T) {
	log := &memoryLog{}
	l := open(t, log)
	def, a := define("ban", Reject), add("ban", hashAt(t, PDQ))
	apply(t, l, def)
	bad := a
	bad.Hashes = nil
	if _, err := l.Apply(context.Background(), Record{Statement: a}, Record{Statement: bad}); err == nil || l.Seq() != 1 {
		t.Errorf("a statement without hashes was applied: %v", err)
	}
	disk := errors.New("disk full")
	for _, storeFirst := range []bool{false, true} {
		log.fail, log.storeFirst = disk, storeFirst
		if _, err := l.Apply(context.Background(), Record{Statement: a}); !errors.Is(err, disk) {
			t.Errorf("got %v", err)
		}
		if r := l.Lookup(probe(a.Hashes[0])); r.Verdict != VerdictAllow {
			t.Error("a statement acts that was not acknowledged")
		}
	}
	log.fail = nil
	apply(t, l, a) // again, which settles it
	if r := l.Lookup(probe(a.Hashes[0])); r.Verdict != VerdictReject || r.Seq != 2 {
		t.Errorf("%+v", r)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.Wait(ended, 1000); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := Open(context.Background(), failingLog{log}, DefaultPolicy()); !errors.Is(err, disk) && err == nil {
		t.Errorf("a log that cannot be read was opened: %v", err)
	}
	p := DefaultPolicy()
	p.Ceiling[PDQ] = 0
	if _, err := Open(context.Background(), log, p); err == nil || !strings.Contains(err.Error(), "ceiling of pdq") {
		t.Errorf("got %v", err)
	}
}

type failingLog struct{ *memoryLog }

func (failingLog) After(context.Context, uint64, Selection) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) { yield(Record{}, errors.New("unreadable")) }
}

// TestGroupCommit shows that callers share appends: while one is written, the
// others gather.
func TestGroupCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &slowLog{leave: make(chan struct{})}
		l := open(t, log)
		var wg sync.WaitGroup
		def := define("ban", Reject)
		wg.Go(func() { apply(t, l, def) })
		synctest.Wait() // the first append is at the disk
		for range 20 {
			s := add("ban", hashAt(t, PDQ))
			wg.Go(func() { apply(t, l, s) })
		}
		synctest.Wait()
		close(log.leave)
		wg.Wait()
		if l.Seq() != 21 || log.appends != 2 {
			t.Errorf("log is at %d after %d appends, want 21 after 2", l.Seq(), log.appends)
		}
		l.Close()
	})
}

type slowLog struct {
	memoryLog
	leave chan struct{}
}

func (s *slowLog) Append(ctx context.Context, r []Record) ([]uint64, error) {
	<-s.leave
	return s.memoryLog.Append(ctx, r)
}

// TestRecord reads statements one by one, also those that the fold keeps only
// as what they did, and leaves the bodies of a sequence unread.
func TestRecord(t *testing.T) {
	l := open(t, &memoryLog{})
	a := add("ban", hashAt(t, PDQ))
	undo := Statement{ID: origin + "/statements/undo", Issuer: a.Issuer, List: a.List, Kind: Retraction, Published: epoch, Retracts: a.ID}
	for i, s := range []Statement{a, undo} {
		if _, err := l.Apply(t.Context(), Record{Statement: s, Signed: []byte(s.ID)}); err != nil {
			t.Fatal(err)
		}
		r, ok, err := l.Record(t.Context(), s.ID)
		if err != nil || !ok || r.Seq != uint64(i+1) || string(r.Signed) != s.ID || r.Statement.Kind != s.Kind || !r.Statement.Published.Equal(epoch) {
			t.Errorf("%+v, %v, %v", r, ok, err)
		}
	}
	if r, ok, err := l.Record(t.Context(), origin+"/statements/none"); ok || err != nil {
		t.Errorf("%+v, %v", r, err)
	}
	n := 0
	for r, err := range l.After(t.Context(), 0, Selection{Bare: true}) {
		if n++; err != nil || r.Seq != uint64(n) || r.Statement.ID == "" || r.Statement.Kind == 0 || r.Statement.Hashes != nil || r.Statement.Retracts != "" || r.Signed != nil {
			t.Errorf("%+v, %v", r, err)
		}
	}
	if n != 2 {
		t.Errorf("%d records", n)
	}
}

func BenchmarkMerge(b *testing.B) {
	r := rand.New(rand.NewPCG(42, 42))
	f := newFold()
	for n := 0; b.Loop(); n++ {
		s := Statement{ID: fmt.Sprint(n), Issuer: origin, List: origin, Kind: AddHashes, Published: epoch, Hashes: make([]Hash, MaxHashes)}
		for i := range s.Hashes {
			s.Hashes[i].alg = PDQ
			for j := range s.Hashes[i].sum {
				s.Hashes[i].sum[j] = byte(r.Uint32())
			}
		}
		f.merge(uint64(n+1), &s, epoch)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*MaxHashes), "ns/hash")
}

// TestRetractedByTheThousand: hashes of one statement, retracted one by one
// before it comes, cost what they cost once.
func TestRetractedByTheThousand(t *testing.T) {
	a := add("ban")
	for i := range MaxHashes {
		a.Hashes = append(a.Hashes, hashAt(t, PDQ, i%256, 255-i/4))
	}
	slices.SortFunc(a.Hashes, func(x, y Hash) int { return strings.Compare(x.Hex(), y.Hex()) })
	a.Hashes = slices.Compact(a.Hashes)
	f := newFold()
	for round := range 20 {
		for i, h := range a.Hashes {
			r := Statement{ID: fmt.Sprintf("%s/statements/r%d-%d", origin, round, i), Issuer: a.Issuer, List: a.List, Kind: Retraction, Published: epoch, Retracts: a.ID, Hashes: []Hash{h}}
			f.merge(1, &r, epoch)
		}
	}
	if n := len(f.tombs); n != 1 || len(f.tombs[tombKey{a.ID, a.Issuer, a.List}].hashes) != len(a.Hashes) {
		t.Errorf("%d tombs", n)
	}
	f.merge(2, &a, epoch)
	if f.points[PDQ].len() != 0 {
		t.Errorf("%d hashes in force", f.points[PDQ].len())
	}
	check(t, f)
}

func TestStanding(t *testing.T) {
	l := open(t, &memoryLog{})
	a, b := add("ban", hashAt(t, PDQ)), add("ban", hashAt(t, PDQ))
	b.Labels, b.Action, b.Expires = []string{"spam"}, Drop, time.Now().UTC().Truncate(time.Second).Add(time.Hour)
	over := add("ban", hashAt(t, PDQ))
	over.Expires = epoch.Add(time.Second)
	apply(t, l, define("ban", Reject), a, b, over)
	got := l.Standing(a.List, a.Issuer, hashAt(t, PDQ))
	slices.SortFunc(got, func(x, y Statement) int { return strings.Compare(x.ID, y.ID) })
	if len(got) != 2 || got[0].ID != a.ID || got[1].ID != b.ID || got[1].Action != Drop || !slices.Equal(got[1].Labels, b.Labels) || !got[1].Expires.Equal(b.Expires) {
		t.Errorf("%+v", got)
	}
	if l.Standing(a.List, origin+"/users/b", hashAt(t, PDQ)) != nil || l.Standing(a.List, a.Issuer, hashAt(t, SHA256)) != nil {
		t.Error("another issuer, or another hash, stands")
	}
}
