package revisit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// Config is all that a Visitor is made of and told.
type Config struct {
	Addresses Addresses
	// Client fetches. It must reach public addresses only, and hand redirects to its caller: the
	// addresses are strangers' words.
	Client *http.Client
	// Examine hashes a file and says what the lists make of it. It fails with ErrNoPicture for what
	// is none, or is too much to look into.
	Examine func(ctx context.Context, file []byte) (Seen, error)
	// Judge says what the lists make of hashes now.
	Judge func(hashes []hashlist.Hash) hashlist.Result
	// Tell tells of a change, a match or an empty place, each once. If it fails, it is told again later.
	Tell func(ctx context.Context, n News) error
	Log  *slog.Logger // nil for slog.Default; gets no address and no hash

	Agent    string        // who asks
	Every    time.Duration // how often an address is asked; above 0
	PerHost  time.Duration // between two requests to one host
	Max      int           // addresses
	MaxBytes int64         // of a file
	Radius   int           // the largest PDQ distance, in bits, at which it is the same picture
}

// Seen is what was found at an address.
type Seen struct {
	Hashes []hashlist.Hash // the SHA-256, and the PDQ hash of the first frame if it is not too flat
	Result hashlist.Result // what the lists make of all hashes of the file
}

// News is told once of each thing found.
type News struct {
	Address Address // with the state it came to
	Result  hashlist.Result
}

// Errors that callers are told apart.
var (
	ErrNoPicture = errors.New("there is no picture that can be examined")
	ErrFull      = errors.New("no more addresses can be watched")
	ErrNotThere  = errors.New("this address is not watched")
)

const (
	fetchTime  = 20 * time.Second
	redirects  = 3
	workers    = 4
	seldom     = 7 * 24 * time.Hour // for an empty place, and the most that failures lengthen the wait to
	firstRetry = 15 * time.Minute
)

// Visitor looks at addresses again.
type Visitor struct {
	Config
	wake chan struct{}

	mu   sync.Mutex // guards what follows; held while an address is saved
	all  map[string]*Address
	busy map[string]time.Time // host to when it may be asked again; in the far future while it is asked
}

// NewVisitor reads the addresses. Nothing is fetched before Run or Visit.
func NewVisitor(ctx context.Context, c Config) (*Visitor, error) {
	if c.Every <= 0 || c.Max <= 0 || c.MaxBytes <= 0 {
		return nil, errors.New("a visitor needs a time, a number of addresses and a size that are above 0")
	}
	c.Log = cmp.Or(c.Log, slog.Default())
	v := &Visitor{Config: c, wake: make(chan struct{}, 1), all: map[string]*Address{}, busy: map[string]time.Time{}}
	all, err := c.Addresses.Addresses(ctx)
	if err != nil {
		return nil, err
	}
	for i := range all {
		v.all[all[i].URL] = &all[i]
	}
	return v, nil
}

// Add takes an address over. One that is there already gets the post, the actor and the approved hashes of a
// where they are given, and known is true.
func (v *Visitor) Add(ctx context.Context, a Address) (added Address, known bool, err error) {
	now := time.Now().UTC().Truncate(time.Microsecond)
	a.State, a.Added, a.Next = New, now, now
	if err := a.Validate(); err != nil {
		return a, false, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	old := v.all[a.URL]
	if old != nil {
		b := *old
		b.Post, b.Actor = cmp.Or(a.Post, b.Post), cmp.Or(a.Actor, b.Actor)
		if len(a.Approved) > 0 {
			b.Approved, b.State, b.ETag, b.LastModified, b.Next, b.Told = a.Approved, New, "", "", now, ""
		}
		a = b
	} else if len(v.all) >= v.Max {
		return a, false, fmt.Errorf("%w: there are %d", ErrFull, len(v.all))
	}
	if err := v.save(ctx, &a); err != nil {
		return a, false, err
	}
	select {
	case v.wake <- struct{}{}:
	default:
	}
	return a, old != nil, nil
}

// save makes an address durable, and then known. v.mu is held.
func (v *Visitor) save(ctx context.Context, a *Address) error {
	if err := v.Addresses.SaveAddress(ctx, *a); err != nil {
		return err
	}
	b := *a
	v.all[a.URL] = &b
	return nil
}

// Remove forgets an address.
func (v *Visitor) Remove(ctx context.Context, url string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.all[url] == nil {
		return ErrNotThere
	}
	if _, err := v.Addresses.DropAddress(ctx, url); err != nil {
		return err
	}
	delete(v.all, url)
	return nil
}

// List returns the addresses that begin so, in their order.
func (v *Visitor) List(prefix string) []Address {
	v.mu.Lock()
	defer v.mu.Unlock()
	var all []Address
	for u, a := range v.all {
		if strings.HasPrefix(u, prefix) {
			all = append(all, *a)
		}
	}
	slices.SortFunc(all, func(a, b Address) int { return cmp.Compare(a.URL, b.URL) })
	return all
}

// Run visits what is due until ctx ends, some at once but never two of one host.
func (v *Visitor) Run(ctx context.Context) error {
	var work sync.WaitGroup
	for range workers {
		work.Go(func() {
			for ctx.Err() == nil {
				url, wait := v.next()
				if url != "" {
					v.visit(ctx, url)
					continue
				}
				timer := time.NewTimer(wait)
				select {
				case <-v.wake:
				case <-timer.C:
				case <-ctx.Done():
				}
				timer.Stop()
			}
		})
	}
	work.Wait()
	return nil
}

const asking = 100 * 365 * 24 * time.Hour

// next takes the address that is due first, and its host, or says how long there is none.
func (v *Visitor) next() (string, time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := time.Now()
	for h, until := range v.busy {
		if !until.After(now) {
			delete(v.busy, h)
		}
	}
	var first *Address
	wait := time.Minute
	for _, a := range v.all {
		until := a.Next
		if b := v.busy[hostOf(a.URL)]; b.After(until) {
			until = b
		}
		if d := until.Sub(now); d > 0 {
			wait = min(wait, d)
		} else if first == nil || a.Next.Before(first.Next) {
			first = a
		}
	}
	if first == nil {
		return "", max(wait, 10*time.Millisecond)
	}
	v.busy[hostOf(first.URL)] = now.Add(asking)
	return first.URL, 0
}

func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Hostname())
}

// visit is Visit for what next has taken.
func (v *Visitor) visit(ctx context.Context, url string) {
	defer func() {
		v.mu.Lock()
		v.busy[hostOf(url)] = time.Now().Add(v.PerHost)
		v.mu.Unlock()
	}()
	if _, err := v.Visit(ctx, url); err != nil && ctx.Err() == nil && !errors.Is(err, ErrNotThere) {
		v.Log.Error("a watched address could not be written down", slog.String("error", err.Error()))
		select { // whatever is wrong with the disk is not to be met in a loop
		case <-time.After(time.Minute):
		case <-ctx.Done():
		}
	}
}

// Visit fetches one address now, notes what is there, and tells of it. It fails only if that cannot be noted.
func (v *Visitor) Visit(ctx context.Context, url string) (Address, error) {
	v.mu.Lock()
	old := v.all[url]
	v.mu.Unlock()
	if old == nil {
		return Address{}, ErrNotThere
	}
	a := *old
	news := v.look(ctx, &a)
	if ctx.Err() != nil {
		return a, ctx.Err()
	}
	if news != nil {
		news.Address = a
		if err := v.Tell(ctx, *news); err != nil {
			// What was not told is told when the address is asked next, which is soon.
			v.Log.Error("news of a watched address could not be told", slog.String("error", err.Error()))
			a.Told, a.ETag, a.LastModified = old.Told, "", ""
			a.Next = a.Checked.Add(firstRetry)
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.all[url] != old {
		return a, nil // it was removed, or handed over anew, meanwhile
	}
	return a, v.save(ctx, &a)
}

// look fetches an address and brings a to what is there. It returns what is to be told, if anything.
func (v *Visitor) look(ctx context.Context, a *Address) *News {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	got, err := v.fetch(ctx, a)
	a.Checked = time.Now().UTC().Truncate(time.Microsecond)
	a.Next = a.Checked.Add(v.Every)
	switch {
	case errors.Is(err, errEmpty):
		a.State, a.Failures, a.Note, a.Next = Gone, 0, "nothing is there any more", a.Checked.Add(seldom)
		return a.news("gone", hashlist.Result{})
	case err != nil:
		a.Failures++
		a.State, a.Note = Failing, err.Error()
		a.Next = a.Checked.Add(min(max(v.Every, firstRetry)<<min(a.Failures-1, 10), seldom))
		return nil
	}
	a.Failures = 0
	if got.same {
		// It is what it was, but it may be listed by now.
		if r := v.Judge(a.Approved); r.Verdict > hashlist.VerdictAllow && a.State != Changed {
			a.State, a.Note = Matched, r.Reason
			return a.news(fingerprint(a.Approved), r)
		}
		return nil
	}
	seen, err := v.Examine(ctx, got.body)
	if errors.Is(err, ErrNoPicture) && len(a.Approved) > 0 {
		a.State, a.Note = Changed, "what is there now is no picture that can be examined"
		return a.news(fingerprint(seen.Hashes), seen.Result)
	}
	if err != nil {
		a.Failures++
		a.State, a.Note = Failing, "what is there could not be examined"
		a.Next = a.Checked.Add(min(max(v.Every, firstRetry)<<min(a.Failures-1, 10), seldom))
		return nil
	}
	a.ETag, a.LastModified = got.etag, got.modified
	if len(a.Approved) == 0 {
		a.Approved = seen.Hashes
	}
	switch distance := apart(a.Approved, seen.Hashes); {
	case seen.Result.Verdict > hashlist.VerdictAllow:
		a.State, a.Note = Matched, seen.Result.Reason
	case distance > v.Radius:
		a.State, a.Note = Changed, fmt.Sprintf("another picture is there now, %d bits apart from the one that was approved", distance)
	case distance < 0:
		a.State, a.Note = Changed, "another file is there now, which cannot be compared with the one that was approved"
	default:
		a.State, a.Note = Same, "it is what was approved"
		return nil
	}
	return a.news(fingerprint(seen.Hashes), seen.Result)
}

// news is what is to be told, unless it was.
func (a *Address) news(of string, r hashlist.Result) *News {
	if of = a.State.String() + " " + of; a.Told == of {
		return nil
	}
	a.Told = of
	return &News{Result: r}
}

// fingerprint names a file, "" if it has no SHA-256.
func fingerprint(hashes []hashlist.Hash) string {
	for _, h := range hashes {
		if h.Algorithm() == hashlist.SHA256 {
			return h.Hex()
		}
	}
	return ""
}

// apart is how far two pictures are apart: 0 for the same file, the distance of their PDQ hashes, or -1 if
// one of them has none.
func apart(a, b []hashlist.Hash) int {
	for _, x := range a {
		for _, y := range b {
			if x == y {
				return 0
			}
		}
	}
	for _, x := range a {
		for _, y := range b {
			if x.Algorithm() == hashlist.PDQ && y.Algorithm() == hashlist.PDQ {
				d, _ := x.Distance(y)
				return d
			}
		}
	}
	return -1
}

// errEmpty says that a server has nothing at an address.
var errEmpty = errors.New("nothing is there")

type fetched struct {
	same           bool // as the server says, it has not changed
	body           []byte
	etag, modified string
}

// fetch gets what is at an address, unless the server says that it has not changed. Its errors hold
// nothing of what the server said.
func (v *Visitor) fetch(ctx context.Context, a *Address) (*fetched, error) {
	address := a.URL
	for range redirects + 1 {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			return nil, errors.New("it leads to what is no address")
		}
		r.Header.Set("User-Agent", v.Agent)
		r.Header.Set("Accept", "image/*, video/*;q=0.5")
		r.Header.Set("Accept-Encoding", "identity") // asked for by hand, nothing is decompressed
		if len(a.Approved) > 0 && a.State != Failing && a.State != Gone {
			if a.ETag != "" {
				r.Header.Set("If-None-Match", a.ETag)
			} else if a.LastModified != "" {
				r.Header.Set("If-Modified-Since", a.LastModified)
			}
		}
		answer, err := v.Client.Do(r)
		if err != nil {
			return nil, fmt.Errorf("it could not be fetched: %w", causeOf(err))
		}
		got, next, err := v.read(answer)
		if got != nil && got.same && r.Header.Get("If-None-Match")+r.Header.Get("If-Modified-Since") == "" {
			// Whoever has the server must not keep what is there from ever being looked at.
			return nil, errors.New("its server answered that it is unchanged, which was not asked")
		}
		if err != nil || got != nil {
			return got, err
		}
		u, err := r.URL.Parse(next)
		if err != nil || u.Scheme != "https" && u.Scheme != r.URL.Scheme {
			return nil, errors.New("it leads to what is no address, or to a less safe one")
		}
		address = u.String()
	}
	return nil, fmt.Errorf("it leads on more than %d times", redirects)
}

// read reads an answer, or returns where it leads.
func (v *Visitor) read(answer *http.Response) (got *fetched, next string, err error) {
	defer answer.Body.Close()
	switch answer.StatusCode {
	case http.StatusOK:
	case http.StatusNotModified:
		return &fetched{same: true}, "", nil
	case http.StatusNotFound, http.StatusGone:
		return nil, "", errEmpty
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return nil, answer.Header.Get("Location"), nil
	default:
		return nil, "", fmt.Errorf("its server answered %d", answer.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, v.MaxBytes+1))
	switch {
	case err != nil:
		return nil, "", errors.New("it came only in part")
	case int64(len(body)) > v.MaxBytes:
		return nil, "", fmt.Errorf("it has more than %d bytes", v.MaxBytes)
	}
	return &fetched{body: body, etag: short(answer.Header.Get("ETag")), modified: short(answer.Header.Get("Last-Modified"))}, "", nil
}

// short drops what is too long to be remembered for strangers.
func short(s string) string {
	if len(s) > 200 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
		return ""
	}
	return s
}

// causeOf leaves the address out of an error of http.Client, and keeps the rest short and printable.
func causeOf(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	text := err.Error()
	return errors.New(strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, text[:min(len(text), 300)]))
}
