//go:build linux && !race

package bktree

import (
	"os"
	"syscall"
	"testing"
	"unsafe"
)

// TestKernelsFetchNothing: with nothing to fetch ahead no kernel looks beyond the addresses of the buckets it is given.
func TestKernelsFetchNothing(t *testing.T) {
	page := os.Getpagesize()
	mem, err := syscall.Mmap(-1, 0, 2*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Munmap(mem) }()
	if err := syscall.Mprotect(mem[page:], syscall.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	tb := newTable(level{sixteen, 7, 1}, minIDBits)
	tb.put(5, 0x1234, tb.entry(7, 0))
	last := (*uintptr)(unsafe.Pointer(&mem[page-8]))
	fps, _ := tb.block(5)
	*last = uintptr(unsafe.Pointer(&fps[0]))
	for _, k := range kernels() {
		var hits [2]hit
		var full [2]uint32
		var flip uint32
		var none shells
		s := &sweep{
			at: unsafe.Pointer(last), flips: unsafe.Pointer(&flip), n: 1, fps: unsafe.Pointer(&tb.fps[0]), distance: bucketsAhead,
			fp: 0x1235, allow: 1, capacity: tb.capacity(), shells: unsafe.Pointer(&none), key: 5, stride: tb.stride(), lines: tb.lines,
		}
		if n, _ := k.sweep(s, &hits[0], &full[0]); n != 1 || hits[0].mask != 2 {
			t.Errorf("%s: %d hits, %v", k.name, n, hits[0])
		}
	}
}
