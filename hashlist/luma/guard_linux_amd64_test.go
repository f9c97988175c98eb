package luma

import (
	"fmt"
	"image"
	"math/rand/v2"
	"syscall"
	"testing"
	"unsafe"
)

// guarded returns whole pages, with pages before and behind them that may not be touched.
func guarded(t *testing.T) []uint8 {
	t.Helper()
	page := syscall.Getpagesize()
	inner := 2 * page
	mem, err := syscall.Mmap(-1, 0, inner+2*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Munmap(mem) })
	for _, p := range [][]byte{mem[:page], mem[page+inner:]} {
		if err := syscall.Mprotect(p, syscall.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	return mem[page : page+inner : page+inner]
}

// TestStaysInside: no row, plane or window is read or written beyond its ends, where a page faults.
func TestStaysInside(t *testing.T) {
	const maxWidth, height = 200, 5
	for _, atEnd := range []bool{false, true} {
		r := rand.New(rand.NewPCG(11, 12))
		var planes [3][]uint8
		for i := range planes {
			planes[i] = guarded(t)
			for j := range planes[i] {
				planes[i][j] = uint8(r.Uint32())
			}
		}
		// edge is the first or the last n bytes.
		edge := func(b []uint8, n int) []uint8 {
			if atEnd {
				return b[len(b)-n:]
			}
			return b[:n:n]
		}
		out := guarded(t)
		rows := func(n int) []uint32 {
			return unsafe.Slice((*uint32)(unsafe.Pointer(&edge(out, 4*n)[0])), n)
		}
		read := func(what string, m image.Image) {
			t.Helper()
			row, want := rows(m.Bounds().Dx()), make([]uint32, m.Bounds().Dx())
			src := NewSource(m)
			for y := range m.Bounds().Dy() {
				src.Read(row, y)
				was := vectors
				vectors = false
				NewSource(m).Read(want, y)
				vectors = was
				for x := range row {
					if row[x] != want[x] {
						t.Fatalf("%s: pixel %d of row %d is %d, want %d", what, x, y, row[x], want[x])
					}
				}
			}
		}
		for w := 1; w <= maxWidth; w++ {
			for ratio := image.YCbCrSubsampleRatio444; ratio <= image.YCbCrSubsampleRatio410; ratio++ {
				for _, at := range []image.Point{{}, {X: 1, Y: 1}, {X: 2, Y: 3}, {X: -3, Y: -1}} {
					m := image.NewYCbCr(image.Rectangle{Min: at, Max: at.Add(image.Pt(w, height))}, ratio)
					m.YStride += w % 4
					// Not a byte more than the last pixel needs.
					corner := m.Rect.Max.Sub(image.Pt(1, 1))
					y, c := m.YOffset(corner.X, corner.Y)+1, m.COffset(corner.X, corner.Y)+1
					m.Y, m.Cb, m.Cr = edge(planes[0], y), edge(planes[1], c), edge(planes[2], c)
					read(fmt.Sprintf("%v at %v, width %d", ratio, at, w), m)
				}
			}
			read(fmt.Sprintf("grey, width %d", w), &image.Gray{Pix: edge(planes[0], w*height), Stride: w, Rect: image.Rect(0, 0, w, height)})
		}
		for n := 1; n <= 2*maxWidth; n++ {
			shorts := make([]uint16, (n+15)&^15)
			for i := range n {
				shorts[i] = uint16(r.Uint32N(8000))
			}
			for _, there := range []int{n, len(shorts), len(shorts) + 1} {
				want := uint32(0)
				in := edge(planes[0], there)
				for i, v := range in[:min(len(in), n)] {
					want += uint32(v) * uint32(shorts[i])
				}
				b := edge(out, 2*len(shorts))
				w := unsafe.Slice((*uint16)(unsafe.Pointer(&b[0])), len(shorts))
				copy(w, shorts)
				if got := WeighBytes(in, w); got != want {
					t.Fatalf("%d bytes of %d: %d, want %d", there, n, got, want)
				}
			}
			weights := make([]uint32, (n+7)&^7)
			for i := range n {
				weights[i] = uint32(min(i+1, n-i))
			}
			for behind := range 9 {
				row := rows(n + behind)
				want := uint64(0)
				for i := range row {
					row[i] = r.Uint32N(255*Unit + 1)
					if i < n {
						want += uint64(row[i]) * uint64(weights[i])
					}
				}
				if got := Weigh(row[:n], weights); got != want {
					t.Fatalf("%d pixels, %d behind: %d, want %d", n, behind, got, want)
				}
			}
		}
	}
}
