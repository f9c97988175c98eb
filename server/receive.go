package server

import (
	"context"
	"io"
	"time"
)

// receiver reads a stream one message ahead of its user, who can so stop
// waiting for the next: gRPC's own Recv ends only with the stream.
type receiver[T any] struct {
	ctx  context.Context
	idle time.Duration   // for which nothing may come
	stop <-chan struct{} // ends waiting; nil for never
	in   chan received[T]
	end  error // what Recv ended with, which is told again and again
}

type received[T any] struct {
	msg *T
	err error
}

// receive begins to read a stream. Its goroutine ends when the stream does,
// which is soon after its handler has returned; the server waits for it.
// Waiting also ends with ctx, which must end when the handler returns.
func receive[T any](ctx context.Context, s *Server, stream interface{ Recv() (*T, error) },
	idle time.Duration, stop <-chan struct{},
) *receiver[T] {
	r := &receiver[T]{ctx: ctx, idle: idle, stop: stop, in: make(chan received[T])}
	s.running.Go(func() {
		for {
			var m received[T]
			func() {
				defer s.caught(&m.err)
				m.msg, m.err = stream.Recv()
			}()
			select {
			case r.in <- m:
			case <-r.ctx.Done():
				return
			}
			if m.err != nil {
				return
			}
		}
	})
	return r
}

// next returns the next message, io.EOF when there is none, or why waiting for
// it ended.
func (r *receiver[T]) next() (*T, error) {
	if r.end != nil {
		// A reader of lines asks once more when the last line has no end.
		return nil, r.end
	}
	timer := time.NewTimer(r.idle)
	defer timer.Stop()
	select {
	case m := <-r.in:
		r.end = m.err
		return m.msg, m.err
	case <-timer.C:
		return nil, refuse(errIdle, "nothing came for %v", r.idle)
	case <-r.stop:
		return nil, errStopping
	case <-r.ctx.Done():
		return nil, context.Cause(r.ctx)
	}
}

// pieces reads the chunks of a stream as one sequence of bytes.
type pieces struct {
	next func() ([]byte, error)
	rest []byte
}

// Read implements io.Reader.
func (p *pieces) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		var err error
		if p.rest, err = p.next(); err != nil {
			return 0, err
		}
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

var _ io.Reader = (*pieces)(nil)
