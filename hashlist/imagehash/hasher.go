package imagehash

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"
)

// A Hasher hashes media in a pool of child processes. Its methods may be called
// from any goroutine.
type Hasher struct {
	limits  Limits
	slots   chan struct{}     // one token for each file in work
	starts  chan startRequest // to the goroutine that starts children
	runs    chan func()       // to the same, for what starts videos' children
	videos  chan struct{}     // one token for each video in work
	waiting chan struct{}     // one for each in work or waiting
	ffmpeg  string            // its path; "" for none, because of blind
	blind   error
	done    chan struct{}  // closed by Close
	wg      sync.WaitGroup // the starter, the reapers and calls of Hash

	mu     sync.Mutex // guards what follows
	closed bool
	all    map[*child]bool // every child that runs
	idle   []*child        // the last one was used last
	stats  Stats
}

// Stats counts what a Hasher did. Counters only grow.
type Stats struct {
	Decoded map[string]uint64 // files hashed, by Media.Format

	Undecodable, Videos, TooLarge, TimedOut, Cancelled, Troubles uint64 // files that failed

	Started  uint64 // children started
	Killed   uint64 // children killed by the Hasher: timeout, cancellation, nonsense, Close
	Crashed  uint64 // children that died by themselves or by a signal from outside
	Recycled uint64 // children replaced in good health

	Bytes         uint64        // of the files hashed
	DecodeTime    time.Duration // spent by children on decoding
	HashTime      time.Duration // spent by children on perceptual hashes
	QueueTime     time.Duration // spent by calls waiting for a free child
	Busy, Running int           // children at work, and all of them, now
}

type startRequest struct{ answer chan<- startAnswer }

type startAnswer struct {
	c   *child
	err error
}

// NewHasher makes a Hasher. Children start when they are first needed. It fails
// when the limits cannot work.
func NewHasher(l Limits) (*Hasher, error) {
	l, err := l.withDefaults()
	if err != nil {
		return nil, err
	}
	h := &Hasher{
		limits:  l,
		slots:   make(chan struct{}, l.Workers),
		starts:  make(chan startRequest),
		runs:    make(chan func()),
		videos:  make(chan struct{}, max(1, l.Workers/2)), // each keeps two processors busy
		waiting: make(chan struct{}, 2*max(1, l.Workers/2)),
		done:    make(chan struct{}),
		all:     make(map[*child]bool),
		stats:   Stats{Decoded: make(map[string]uint64)},
	}
	h.ffmpeg, h.blind = findFFmpeg(l.FFmpeg)
	h.wg.Go(h.starter)
	return h, nil
}

// starter starts the children, all from one thread that ends after them: a
// child is killed by the kernel when the thread that started it ends, and other
// threads come and go as the runtime likes.
func (h *Hasher) starter() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for {
		select {
		case r := <-h.starts:
			c, err := startChild(h.limits.WorkerMemory, h.limits.TurboJPEG)
			if err == nil {
				h.mu.Lock()
				h.stats.Started++
				h.all[c] = true
				if h.closed {
					c.kill()
				}
				h.mu.Unlock()
				h.wg.Go(c.reap)
			}
			r.answer <- startAnswer{c, err}
		case f := <-h.runs:
			f()
		case <-h.done:
			h.mu.Lock()
			running := slices.Collect(maps.Keys(h.all))
			h.mu.Unlock()
			for _, c := range running {
				<-c.exited
			}
			return
		}
	}
}

// Close kills the children and waits for them and for calls of Hash, which fail
// with ErrTrouble. It always returns nil.
func (h *Hasher) Close() error {
	h.mu.Lock()
	if !h.closed {
		h.closed = true
		close(h.done)
		for c := range h.all {
			h.stats.Killed++
			c.kill()
		}
	}
	h.mu.Unlock()
	h.wg.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.all {
		c.out.Close()
		delete(h.all, c)
	}
	h.idle = nil
	return nil
}

// Stats returns the counters as they are now.
func (h *Hasher) Stats() Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.stats
	s.Decoded = maps.Clone(s.Decoded)
	s.Running = len(h.all)
	s.Busy = len(h.slots)
	return s
}

// Hash decodes a file in a child and returns its hashes. It waits for a free
// child as long as the context allows; Limits.Timeout counts from when the
// child begins. An error wraps ErrUndecodable, ErrVideo, ErrTooLarge,
// ErrTimeout, ErrTrouble or the error of the context.
//
// A file on which a child dies is the file's fault: ErrTooLarge when it ran out
// of memory, ErrUndecodable when it crashed. A child that was killed from
// outside (an administrator, the kernel short of memory) or that died before it
// began is replaced, and the file is tried once more; the second time it is
// ErrTrouble, for a machine that is short of memory says nothing of the file.
//
// Hash reads media until it returns and does not change it.
func (h *Hasher) Hash(ctx context.Context, media []byte) (Media, error) {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return Media{}, fmt.Errorf("%w: %w", ErrTrouble, errClosed)
	}
	h.wg.Add(1)
	h.mu.Unlock()
	defer h.wg.Done()

	m, err := h.hash(ctx, media)
	h.count(ctx, &m, int64(len(media)), err)
	return m, err
}

func (h *Hasher) count(ctx context.Context, m *Media, size int64, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &h.stats
	switch {
	case err == nil:
		s.Decoded[m.Format]++
		s.Bytes += uint64(size)
		s.DecodeTime += m.DecodeTime
		s.HashTime += m.HashTime
	case errors.Is(err, ErrUndecodable):
		s.Undecodable++
	case errors.Is(err, ErrVideo):
		s.Videos++
	case errors.Is(err, ErrTooLarge):
		s.TooLarge++
	case errors.Is(err, ErrTimeout):
		s.TimedOut++
	case ctx.Err() != nil:
		s.Cancelled++
	default:
		s.Troubles++
	}
}

func (h *Hasher) hash(ctx context.Context, media []byte) (Media, error) {
	if err := ctx.Err(); err != nil {
		return Media{}, fmt.Errorf("hash media: %w", err)
	}
	if n := int64(len(media)); n > h.limits.MaxBytes {
		return Media{}, fmt.Errorf("%w: %d bytes, more than the limit of %d", ErrTooLarge, n, h.limits.MaxBytes)
	}
	format, err := sniff(media)
	if video := new(videoError); errors.As(err, &video) {
		return h.video(ctx, video.format, media)
	}
	if err != nil {
		return Media{}, err
	}
	if format == "heic" && !h.limits.HEIC {
		return Media{}, fmt.Errorf("%w: heic is switched off", ErrUndecodable)
	}
	r := request{
		size: int64(len(media)), maxPixels: h.limits.MaxPixels, maxFrames: h.limits.MaxFrames,
		timeout: h.limits.Timeout, format: slices.Index(formats[:], format),
	}
	waiting := time.Now()
	select {
	case h.slots <- struct{}{}:
	case <-ctx.Done():
		return Media{}, fmt.Errorf("wait for a decode worker: %w", ctx.Err())
	case <-h.done:
		return Media{}, fmt.Errorf("%w: %w", ErrTrouble, errClosed)
	}
	defer func() { <-h.slots }()
	h.mu.Lock()
	h.stats.QueueTime += time.Since(waiting)
	h.mu.Unlock()

	for attempt := 1; ; attempt++ {
		m, again, err := h.try(ctx, r, media)
		if again && attempt == 1 {
			continue
		}
		return m, err
	}
}

// try passes the file to one child. again says that it may be another's fault
// than the file's that it failed.
func (h *Hasher) try(ctx context.Context, r request, media []byte) (m Media, again bool, err error) {
	c, err := h.take(r.format)
	if err != nil {
		return m, false, fmt.Errorf("%w: %w", ErrTrouble, err)
	}
	var timedOut, slow bool // written before the kill, read after both are stopped
	cancelled := make(chan struct{})
	stopCtx := context.AfterFunc(ctx, func() { c.kill(); close(cancelled) })
	starting := newDeadline(startTime, func() { slow = true; c.kill() })
	var running *deadline

	begun := false
	var got reply
	err = c.send(r, media)
	starting.stop()
	if err == nil {
		begun = true
		running = newDeadline(r.timeout, func() { timedOut = true; c.kill() })
		m.MD5, m.SHA1, m.SHA256 = Digests(media)
		got, err = c.receive(r)
		running.stop()
	}
	if !stopCtx() {
		<-cancelled // a kill that came later would hit another's file
	}
	if err == nil && !c.killed.Load() {
		h.give(c)
		if got.failure != nil {
			return Media{}, false, got.failure
		}
		got.media.MD5, got.media.SHA1, got.media.SHA256 = m.MD5, m.SHA1, m.SHA256
		return got.media, false, nil
	}

	if errors.Is(err, errMalformed) {
		_ = c.cmd.Process.Kill()
	}
	c.waitExit()
	killed := c.killed.Load()
	h.drop(c, killed || errors.Is(err, errMalformed))
	switch {
	case timedOut:
		return Media{}, false, fmt.Errorf("%w: %s was not done after %v", ErrTimeout, formats[r.format], r.timeout)
	case ctx.Err() != nil:
		return Media{}, false, fmt.Errorf("hash media: %w", ctx.Err())
	case slow:
		return Media{}, false, fmt.Errorf("%w: a decode worker was not ready after %v", ErrTrouble, startTime)
	case killed:
		return Media{}, false, fmt.Errorf("%w: %w", ErrTrouble, errClosed)
	}
	why := c.autopsy()
	switch {
	case !begun:
		return Media{}, true, fmt.Errorf("%w: a decode worker died before it began: %w%s", ErrTrouble, err, c.lastWords())
	case errors.Is(err, errMalformed):
		return Media{}, false, fmt.Errorf("%w: the decode worker of this %s answered nonsense", ErrUndecodable, formats[r.format])
	case why == slain:
		return Media{}, true, fmt.Errorf("%w: two decode workers were killed from outside on this %s, perhaps for lack of memory", ErrTrouble, formats[r.format])
	case why == memoryOut:
		return Media{}, false, fmt.Errorf("%w: %s needs more memory than the %d bytes a decode worker may use",
			ErrTooLarge, formats[r.format], h.limits.WorkerMemory)
	}
	return Media{}, false, fmt.Errorf("%w: the decode worker of this %s crashed", ErrUndecodable, formats[r.format])
}

// take returns an idle child, best one that has the format's decoder ready, or
// a new one.
func (h *Hasher) take(format int) (*child, error) {
	h.mu.Lock()
	if n := len(h.idle); n > 0 {
		pick := n - 1
		for i := n - 1; i >= 0; i-- {
			if h.idle[i].warm[format] {
				pick = i
				break
			}
		}
		c := h.idle[pick]
		h.idle = slices.Delete(h.idle, pick, pick+1)
		h.mu.Unlock()
		return c, nil
	}
	h.mu.Unlock()
	answer := make(chan startAnswer, 1)
	select {
	case h.starts <- startRequest{answer}:
		a := <-answer
		if a.err != nil {
			return nil, fmt.Errorf("start a decode worker: %w", a.err)
		}
		return a.c, nil
	case <-h.done:
		return nil, errClosed
	}
}

// give takes a child back in good health, or ends it when it has seen enough.
func (h *Hasher) give(c *child) {
	h.mu.Lock()
	if !c.spent() && !h.closed {
		h.idle = append(h.idle, c)
		h.mu.Unlock()
		return
	}
	closed := h.closed
	if !closed {
		h.stats.Recycled++
	}
	h.mu.Unlock()
	if closed {
		return // Close ends it
	}
	c.close()
	h.mu.Lock()
	delete(h.all, c)
	h.mu.Unlock()
}

// drop forgets a child that is gone.
func (h *Hasher) drop(c *child, killed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return // Close counts and forgets it
	}
	if killed {
		h.stats.Killed++
	} else {
		h.stats.Crashed++
	}
	delete(h.all, c)
	c.out.Close()
}

// A deadline calls a function when time is up. After stop has returned, the
// function has either finished or will not run.
type deadline struct {
	timer *time.Timer
	ran   chan struct{}
}

func newDeadline(d time.Duration, f func()) *deadline {
	l := &deadline{ran: make(chan struct{})}
	l.timer = time.AfterFunc(d, func() { f(); close(l.ran) })
	return l
}

func (l *deadline) stop() {
	if !l.timer.Stop() {
		<-l.ran
	}
}
