package store

import (
	"context"
	"sync"
)

// growth tells those who wait how far something has grown. Its zero value has grown
// nowhere.
type growth struct {
	mu    sync.Mutex
	at    uint64
	grown chan struct{} // closed, and replaced, when at grows; nil if nobody waits
}

// grow says that something has grown to a place.
func (g *growth) grow(to uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if to > g.at {
		g.at = to
		if g.grown != nil {
			close(g.grown)
			g.grown = nil
		}
	}
}

// wait returns once something has grown beyond a place.
func (g *growth) wait(ctx context.Context, seq uint64) error {
	for {
		g.mu.Lock()
		if g.at > seq {
			g.mu.Unlock()
			return nil
		}
		if g.grown == nil {
			g.grown = make(chan struct{})
		}
		grown := g.grown
		g.mu.Unlock()
		select {
		case <-grown:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
