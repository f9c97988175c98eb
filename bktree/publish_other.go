//go:build !amd64 || race

package bktree

import "sync/atomic"

func publish(p *uint64, v uint64)   { atomic.StoreUint64(p, v) }
func publishID(p *uint32, v uint32) { atomic.StoreUint32(p, v) }
