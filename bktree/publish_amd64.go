//go:build amd64 && !race

package bktree

// publish and publishID store where readers without a lock look, after all that
// was stored before. On amd64 every store does that. What sync/atomic would add is to wait
// until the store has reached the cache, and an insert makes some fifty of them, most
// to lines that are far away: it would take three times as long. The compiler keeps
// stores in order and does not tear them.
//
// A race build, in which the detector watches, and every other architecture use sync/atomic.
func publish(p *uint64, v uint64)   { *p = v }
func publishID(p *uint32, v uint32) { *p = v }
