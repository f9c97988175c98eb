//go:build linux && !race

package bktree

import (
	"syscall"
	"unsafe"
)

// mapHuge maps memory with room for size zeroed bytes, a multiple of the huge page,
// from an offset that is aligned to one, and asks for huge pages there; nil when the
// system gives no memory this way. The race detector does not see mapped
// memory, which is why a race build does without.
func mapHuge(size int) (mapped []byte, offset int) {
	for _, room := range []int{0, hugePage} {
		// First without room to align: neighbouring mappings tend to line up.
		// With it, what is over stays untouched: it costs addresses, not memory.
		var err error
		mapped, err = syscall.Mmap(-1, 0, size+room, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
		if err != nil {
			return nil, 0
		}
		offset = int(-uintptr(unsafe.Pointer(&mapped[0])) % hugePage)
		if offset <= room {
			break
		}
		_ = syscall.Munmap(mapped)
	}
	const madvHugepage = 14 // MADV_HUGEPAGE: advice, so a refusal is no error
	_ = syscall.Madvise(mapped[offset:offset+size], madvHugepage)
	mappedBytes.Add(int64(len(mapped)))
	return mapped, offset
}

func unmap(mapped []byte) {
	mappedBytes.Add(-int64(len(mapped)))
	_ = syscall.Munmap(mapped)
}
