package server

import (
	"context"
	"sync"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// claims makes one step of finding out which hashes are not on a list yet and
// listing them, without holding up those who list others. Two submissions of the
// same hash, or an import that is begun again while the last statement of the
// one before is being written, would otherwise list it twice.
type claims struct {
	mu   sync.Mutex // guards held
	held map[claim]chan struct{}
}

type claim struct {
	list string
	hash hashlist.Hash
}

// take waits until nobody else is listing one of hashes, and keeps others from
// it until release is called. It holds nothing while it waits, so there is no
// deadlock.
func (c *claims) take(ctx context.Context, list string, hashes []hashlist.Hash) (release func(), err error) {
	for {
		busy := c.try(list, hashes)
		if busy == nil {
			break
		}
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for i, h := range hashes {
			k := claim{list, h}
			if i == 0 {
				close(c.held[k])
			}
			delete(c.held, k)
		}
	}, nil
}

// try claims all of hashes, or returns what closes when one of them is free.
// No hash may be there twice.
func (c *claims) try(list string, hashes []hashlist.Hash) (busy <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range hashes {
		if busy := c.held[claim{list, h}]; busy != nil {
			return busy
		}
	}
	if c.held == nil {
		c.held = map[claim]chan struct{}{}
	}
	done := make(chan struct{})
	for _, h := range hashes {
		c.held[claim{list, h}] = done
	}
	return nil
}
