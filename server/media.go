package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/hashlist/imagehash"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// finding is what is known of one file.
type finding struct {
	hashlist.Result
	media *imagehash.Media // with digests alone if the file could not be hashed
	seen  uint64           // under which the recent window keeps it; 0 if it does not
	// elsewhere is set if a service elsewhere decided, and no list.
	elsewhere bool
	blind     error  // why the file could not be hashed, though its digests decided; nil if it was
	id        string // of a hold or rejection in the audit log; "" if it is not there
}

// hold waits for room to keep one more file in memory. What has passed this
// door is at most Limit.Uploads files of Limit.MediaBytes, and as much again
// while the pieces of one are put together.
func (s *Server) hold(ctx context.Context) (release func(), err error) {
	if err := s.uploads.Acquire(ctx, 1); err != nil {
		return nil, fmt.Errorf("wait for other files to be examined: %w", context.Cause(ctx))
	}
	s.metrics.held.Inc()
	return func() { s.metrics.held.Dec(); s.uploads.Release(1) }, nil
}

// tooLong is a file of more bytes than are held in memory.
func (s *Server) tooLong() error {
	return fmt.Errorf("%w: it has more than %d bytes", imagehash.ErrTooLarge, s.cfg.Limit.MediaBytes)
}

// readFile reads a whole file into memory. With an error that is ErrTooLarge it
// returns the bytes read so far.
func (s *Server) readFile(r io.Reader) ([]byte, error) {
	var b bytes.Buffer
	_, err := b.ReadFrom(io.LimitReader(r, s.cfg.Limit.MediaBytes+1))
	if err == nil && int64(b.Len()) > s.cfg.Limit.MediaBytes {
		err = s.tooLong()
	}
	return b.Bytes(), err
}

// examine hashes a file and looks it up as q says, which has all but the probes. If it
// cannot be hashed its digests are still looked up; if they decide, that is the answer,
// and otherwise the error of hashing is. What is answered goes into the recent window,
// by its digests alone if there is no more. When asking, it is answered and nothing comes of it.
func (s *Server) examine(ctx context.Context, file []byte, q hashlist.Query, asking bool) (finding, error) {
	media, err := s.hash(ctx, file)
	if media == nil { // of a video that was not looked at whole there is what was seen
		media = new(imagehash.Media)
		media.MD5, media.SHA1, media.SHA256 = imagehash.Digests(file)
	}
	f := finding{media: media}
	q.Probes = probes(media, s.cfg.Policy.MinQuality)
	f.Result = s.cfg.Lists.Lookup(q)
	lists := f.Result // what others' services say is nobody's doing who listed something
	f.elsewhere = s.consult(ctx, file, media, &f.Result)
	if !asking {
		s.breaker.Note(&lists)
		f.seen = s.cfg.Window.See(q, &f.Result)
	}
	if err != nil && !s.decides(&f.Result) {
		return f, err
	}
	f.blind = err
	s.metrics.verdict(f.Verdict)
	if asking {
		s.asked(ctx, &f.Result)
		return f, nil
	}
	f.id = s.audit.verdict(ctx, &q, &f.Result, mediaHashes(media))
	held := f.Result
	if f.elsewhere {
		held = hashlist.Result{Verdict: f.Verdict, Reason: f.Reason}
	}
	s.held(&q, &held, f.id)
	s.actOn(f.id, &q, &lists)
	return f, nil
}

// decides reports whether matches of digests alone settle what a file is: if they speak against it by a hold at
// least, or if this node itself knows its SHA-256 to be harmless. For MD5 and SHA-1 another file can be made to
// fit, what is flagged passes, and so does what somebody lists who is not believed: with that a file that cannot
// be looked into would get past the settings for such files. Where held files pass too, see look.
func (s *Server) decides(r *hashlist.Result) bool {
	if r.Verdict >= hashlist.VerdictHold {
		return true
	}
	for i := range r.Matches {
		if m := &r.Matches[i]; m.Probe.Hash.Algorithm() == hashlist.SHA256 && s.harmless(m) {
			return true
		}
	}
	return false
}

// harmless reports whether a match is the word of this node itself, not of one whose list it keeps,
// that something is harmless.
func (s *Server) harmless(m *hashlist.Match) bool {
	return m.Action == hashlist.Accept && !m.Suppressed && s.own(m.List) == nil && (s.cfg.Sources == nil || s.cfg.Sources.Feeds(m.List) == "")
}

// hash returns the hashes of a file, from the cache if the same bytes were
// hashed before. Hashes are a function of the bytes, so what is cached is never
// stale; verdicts are not cached. Failures are not either: they may be the
// node's own.
func (s *Server) hash(ctx context.Context, file []byte) (*imagehash.Media, error) {
	var sum [32]byte
	if s.cache != nil {
		sum = sha256.Sum256(file)
		if m, ok := s.cache.Get(sum); ok {
			s.metrics.cached.WithLabelValues("hit").Inc()
			return m, nil
		}
		s.metrics.cached.WithLabelValues("miss").Inc()
	}
	m, err := s.cfg.Media.Hash(ctx, file)
	s.metrics.media(&m, err)
	if err != nil && m.Video {
		return &m, err
	} else if err != nil {
		return nil, err
	}
	if s.cache != nil {
		s.cache.Add(sum, &m)
	}
	return &m, nil
}

// inverted are the transforms of copies with inverted colours.
var inverted = func() (t [len(imagehash.Transforms)]string) {
	for i, name := range imagehash.Transforms {
		t[i] = "inverted-" + name
	}
	return t
}()

// probes are the hashes by which a file is looked up: its digests, and of each
// frame that shows anything the dihedral set of PDQ, the complements of that, and
// the two 64-bit hashes. What a transparent frame shows on white, on black and
// without its transparency are three frames here: one of them may be harmless
// and another banned.
//
// What moves is looked up among videos as well, by the frames that show enough. A video is looked up among
// pictures, too, by a sample of its frames: a banned picture is as easily posted as a video of one second.
func probes(m *imagehash.Media, minQuality int) []hashlist.Probe {
	p := make([]hashlist.Probe, 0, 3+18*len(m.Frames))
	for _, h := range [...]hashlist.Hash{m.SHA256, m.SHA1, m.MD5} {
		p = append(p, hashlist.Probe{Hash: h})
	}
	moves := len(m.Frames) > 0 && m.Frames[len(m.Frames)-1].Index > m.Frames[0].Index
	for i := range m.Frames {
		f := &m.Frames[i]
		if f.Quality < min(minQuality, hashlist.LeastQuality) {
			continue
		}
		flat := f.Quality < minQuality
		if moves && !flat {
			for t, h := range f.PDQ {
				if !h.IsZero() {
					p = append(p, hashlist.Probe{Hash: h.OfVideo(), Index: i, Transform: imagehash.Transforms[t]})
				}
			}
		}
		if m.Video && !isSampled(i, len(m.Frames)) {
			continue
		}
		for t, h := range f.PDQ {
			if !h.IsZero() {
				p = append(p, hashlist.Probe{Hash: h, Index: i, Transform: imagehash.Transforms[t], Flat: flat},
					hashlist.Probe{Hash: h.Complement(), Index: i, Transform: inverted[t], Flat: flat})
			}
		}
		for _, h := range [...]hashlist.Hash{f.PHash, f.DHash} {
			if !h.IsZero() {
				p = append(p, hashlist.Probe{Hash: h, Index: i, Transform: imagehash.Transforms[0], Flat: flat})
			}
		}
	}
	return p
}

// isSampled chooses 48 of n frames of a video, evenly: what is looked up is bounded, and so is what the
// recent window keeps.
func isSampled(i, n int) bool {
	const most = 48
	return n <= most || i*most/n != (i-1)*most/n || i == 0
}

// LookupMedia implements the RPC.
func (l *lookupService) LookupMedia(stream pb.LookupService_LookupMediaServer) error {
	s := l.s
	if err := callerOf(stream.Context()).spend(1); err != nil {
		return err
	}
	ctx, cancel := s.within(stream.Context())
	defer cancel()
	in := receive(ctx, s, stream, s.cfg.Limit.Idle, nil)
	first, err := in.next()
	if errors.Is(err, io.EOF) {
		return refuse(errInvalid, "no file was sent")
	} else if err != nil {
		return err
	}
	lists, limit, err := s.listsAndLimit(first.GetOptions().GetLists(), first.GetOptions().GetLimit())
	if err != nil {
		return err
	}
	ref, err := readReference(first.GetOptions().GetReference())
	if err != nil {
		return err
	}
	uploader, err := readUploader(first.GetOptions().GetUploader())
	if err != nil {
		return err
	}
	// Not before something came: a caller who is silent takes no room.
	release, err := s.hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	pending := first
	file, err := s.readFile(&pieces{next: func() (chunk []byte, err error) {
		m := pending
		if pending = nil; m == nil {
			if m, err = in.next(); err != nil {
				return nil, err
			}
			if m.GetOptions() != nil {
				return nil, refuse(errInvalid, "options belong in the first message")
			}
		}
		return m.GetChunk(), checkChunk(m.GetChunk())
	}})
	switch {
	case err != nil:
		return err
	case len(file) == 0:
		return refuse(errInvalid, "the file is empty")
	}
	f, err := s.examine(ctx, file, hashlist.Query{Lists: lists, Limit: limit, Reference: ref, Uploader: uploader}, first.GetOptions().GetAsking())
	if err != nil {
		return err
	}
	budget := answerBytes
	answer := lookupResponse(&f.Result, &budget)
	answer.SeenId, answer.VerdictId = f.seen, f.id
	return stream.SendAndClose(&pb.LookupMediaResponse{Lookup: answer, Media: mediaMessage(f.media)})
}

func checkChunk(chunk []byte) error {
	if len(chunk) > maxChunk {
		return refuse(errInvalid, "a chunk of %d bytes is more than 1 MiB", len(chunk))
	}
	return nil
}

func mediaMessage(m *imagehash.Media) *pb.Media {
	v := &pb.Media{
		Format: m.Format, Width: uint32(m.Width), Height: uint32(m.Height),
		Digests: []string{m.MD5.String(), m.SHA1.String(), m.SHA256.String()},
	}
	for i := range m.Frames {
		f := &m.Frames[i]
		frame := &pb.Frame{Index: uint32(f.Index), Quality: uint32(f.Quality)}
		for _, h := range [...]hashlist.Hash{f.PDQ[0], f.PHash, f.DHash} {
			if !h.IsZero() {
				frame.Hashes = append(frame.Hashes, h.String())
			}
		}
		v.Frames = append(v.Frames, frame)
	}
	return v
}
