package imagehash

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// The protocol between a Hasher and a child. Both are the same program, so it
// has no versions. Parent to child, on standard input: a request header and
// the bytes of the file, again and again. Child to parent, on descriptor 3:
// messages of a kind, a length and a body. A child says hello once it is
// confined, begun when its decoder is ready, and then result or failure.
//
// The child may have been taken over by the file it decodes. So the parent
// reads at most maxReply bytes of a message and believes nothing but hashes:
// the worst a lying child can do is to answer wrongly for its own file (and for
// later files, until its parent replaces it, which it cannot put off).

const (
	requestSize = 48
	maxReply    = 64 << 10
	// maxReplyFrames keeps a result below maxReply: a picture before the
	// animation comes in addition, and each may be hashed in several ways.
	maxReplyFrames = 64
	// maxWays is how often one frame is hashed: stored, on white and on black.
	maxWays    = 1 + len(backgrounds)
	frameSize  = 4 + 1 + 8*32 + 8 + 8
	resultSize = 1 + 1 + 4 + 4 + 8 + 8 + 2
	maxMessage = 200 // bytes of the text of a failure
)

type request struct {
	size, maxPixels int64
	maxFrames       int
	timeout         time.Duration // of the child's own watchdog
	format          int           // index of formats
}

func (r request) encode() []byte {
	b := make([]byte, 0, requestSize)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.size))
	b = binary.LittleEndian.AppendUint64(b, uint64(r.maxPixels))
	b = binary.LittleEndian.AppendUint64(b, uint64(r.maxFrames))
	b = binary.LittleEndian.AppendUint64(b, uint64(r.timeout))
	b = binary.LittleEndian.AppendUint64(b, uint64(r.format))
	return append(b, "requests"...)
}

func parseRequest(b []byte) (r request, err error) {
	if len(b) != requestSize || string(b[40:]) != "requests" {
		return r, errors.New("request is malformed")
	}
	r = request{
		size:      int64(binary.LittleEndian.Uint64(b)),
		maxPixels: int64(binary.LittleEndian.Uint64(b[8:])),
		maxFrames: int(binary.LittleEndian.Uint64(b[16:])),
		timeout:   time.Duration(binary.LittleEndian.Uint64(b[24:])),
		format:    int(binary.LittleEndian.Uint64(b[32:])),
	}
	if r.size < 0 || r.maxPixels <= 0 || r.maxFrames <= 0 || r.timeout <= 0 || r.format < 0 || r.format >= len(formats) {
		return r, errors.New("request is out of range")
	}
	return r, nil
}

// The kinds of message a child sends.
const (
	sayHello   = 'H'
	sayBegun   = 'B'
	sayResult  = 'R'
	sayFailure = 'F'
)

func writeMessage(w io.Writer, kind byte, body []byte) error {
	b := make([]byte, 5, 5+len(body))
	b[0] = kind
	binary.LittleEndian.PutUint32(b[1:], uint32(len(body)))
	_, err := w.Write(append(b, body...))
	return err
}

func readMessage(r io.Reader) (kind byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.LittleEndian.Uint32(head[1:])
	if n > maxReply {
		return 0, nil, errMalformed
	}
	body = make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, nil, err
	}
	return head[0], body, nil
}

// errMalformed is a reply that a sound child does not send.
var errMalformed = errors.New("reply is malformed")

// The flags of a result.
const (
	flagTruncated = 1 << iota
	flagsKnown    = 1<<iota - 1
)

// encodeResult packs what a child found. The digests are not in it: the parent
// computes them itself.
func encodeResult(m *Media) []byte {
	b := make([]byte, 0, resultSize+len(m.Frames)*frameSize)
	var flags byte
	if m.Truncated {
		flags |= flagTruncated
	}
	format := byte(len(formats))
	for i, name := range formats {
		if name == m.Format {
			format = byte(i)
		}
	}
	b = append(b, flags, format)
	b = binary.LittleEndian.AppendUint32(b, uint32(m.Width))
	b = binary.LittleEndian.AppendUint32(b, uint32(m.Height))
	b = binary.LittleEndian.AppendUint64(b, uint64(m.DecodeTime))
	b = binary.LittleEndian.AppendUint64(b, uint64(m.HashTime))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(m.Frames)))
	put := func(h hashlist.Hash, size int) {
		sum := make([]byte, size) // zero stands for none
		copy(sum, h.Sum())
		b = append(b, sum...)
	}
	for _, f := range m.Frames {
		b = binary.LittleEndian.AppendUint32(b, uint32(f.Index))
		b = append(b, byte(f.Quality))
		for _, h := range f.PDQ {
			put(h, 32)
		}
		put(f.PHash, 8)
		put(f.DHash, 8)
	}
	return b
}

// parseResult is the inverse of encodeResult. It fails on whatever a sound child
// would not have sent for this request.
func parseResult(b []byte, r request) (m Media, err error) {
	if len(b) < resultSize || b[0] > flagsKnown || int(b[1]) != r.format {
		return m, errMalformed
	}
	m.Truncated = b[0]&flagTruncated != 0
	m.Format = formats[b[1]]
	m.Width = int(binary.LittleEndian.Uint32(b[2:]))
	m.Height = int(binary.LittleEndian.Uint32(b[6:]))
	m.DecodeTime = time.Duration(binary.LittleEndian.Uint64(b[10:]))
	m.HashTime = time.Duration(binary.LittleEndian.Uint64(b[18:]))
	n := int(binary.LittleEndian.Uint16(b[26:]))
	if checkPixels("", int64(m.Width), int64(m.Height), r.maxPixels) != nil ||
		m.DecodeTime < 0 || m.DecodeTime > r.timeout || m.HashTime < 0 || m.HashTime > r.timeout ||
		n < 1 || n > maxWays*(r.maxFrames+1) || len(b) != resultSize+n*frameSize {
		return Media{}, errMalformed
	}
	b = b[resultSize:]
	take := func(a hashlist.Algorithm) hashlist.Hash {
		h, err := hashlist.NewHash(a, b[:a.Size()])
		b = b[a.Size():]
		if err != nil { // all zero
			return hashlist.Hash{}
		}
		return h
	}
	m.Frames = make([]Frame, n)
	same := 1 // frames of the same number so far
	for i := range m.Frames {
		f := &m.Frames[i]
		f.Index, f.Quality = int(binary.LittleEndian.Uint32(b)), int(b[4])
		b = b[5:]
		if f.Quality > 100 || f.Index > maxAnimation {
			return Media{}, errMalformed
		}
		switch {
		case i == 0 && f.Index == 0 || i > 0 && f.Index > m.Frames[i-1].Index:
			same = 1
		case i > 0 && f.Index == m.Frames[i-1].Index && same < maxWays:
			same++
		default:
			return Media{}, errMalformed
		}
		for j := range f.PDQ {
			f.PDQ[j] = take(hashlist.PDQ)
		}
		f.PHash, f.DHash = take(hashlist.PHash), take(hashlist.DHash)
	}
	return m, nil
}

// A failure names one of the file's errors by a letter, and tells more in text.
func encodeFailure(err error) []byte {
	code := byte('u')
	if errors.Is(err, ErrTooLarge) {
		code = 'l'
	}
	text := err.Error()
	for _, e := range []error{ErrTooLarge, ErrUndecodable} {
		text = strings.TrimPrefix(text, e.Error()+": ")
	}
	text, _, _ = strings.Cut(text, "\n") // WebAssembly adds its stack
	return append([]byte{code}, text[:min(len(text), maxMessage)]...)
}

// parseFailure makes the error of a failure's body. The text comes from a child
// and can hold what the file's author likes, so only printable ASCII passes.
func parseFailure(b []byte) (error, error) {
	if len(b) < 1 || len(b) > 1+maxMessage {
		return nil, errMalformed
	}
	text := strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '?'
		}
		return c
	}, string(b[1:]))
	switch b[0] {
	case 'u':
		return fmt.Errorf("%w: %s", ErrUndecodable, text), nil
	case 'l':
		return fmt.Errorf("%w: %s", ErrTooLarge, text), nil
	}
	return nil, errMalformed
}
