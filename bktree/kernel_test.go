package bktree

import (
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"
)

// sweepPlain is a kernel as one would write it down.
func sweepPlain(tb *table, flips []uint32, key, fp, allow int) (hits []hit, full []uint32) {
	for i, flip := range flips {
		bucket := key ^ int(flip&keyMask)
		fps, _ := tb.block(bucket)
		count := int(fingerprint(fps, 0) &^ vacated)
		if count == tb.capacity() {
			full = append(full, uint32(len(flips)-i))
		}
		for line := range tb.lines {
			h := hit{line: uint32(bucket*tb.stride() + line), left: uint32(len(flips) - i)}
			for j := range lanes {
				lane := line*lanes + j
				if lane > 0 && lane <= count && bits.OnesCount16(fingerprint(fps, lane)^uint16(fp)) <= allow-int(flip>>keyBits) {
					h.mask |= 1 << j
				}
			}
			if h.mask != 0 {
				hits = append(hits, h)
			}
		}
	}
	return hits, full
}

// raceKernels compares every kernel with sweepPlain on a table that fill fills, and returns how many lines have hits.
func raceKernels(t *testing.T, l level, from, n, key, fp, allow int, fill func(fps []uint64)) int {
	t.Helper()
	flips := balls[l.bits].flips[from:][:n]
	tb := newTable(l, minIDBits)
	for bucket := range tb.buckets() {
		fps, _ := tb.block(bucket)
		fill(fps)
	}
	wantHits, wantFull := sweepPlain(tb, flips, key, fp, allow)
	var at []uintptr
	for _, flip := range flips {
		fps, _ := tb.block(key ^ int(flip&keyMask))
		at = append(at, uintptr(unsafe.Pointer(&fps[0])))
	}
	at = append(at, at[:min(len(at), 1+key%bucketsAhead)]...)
	for _, k := range kernels() {
		// What is behind the room that was promised must stay as it is.
		hits := make([]hit, len(flips)*l.lines+1)
		full := make([]uint32, len(flips)+1)
		hits[len(hits)-1], full[len(full)-1] = hit{7, 7, 7, 7}, 7
		s := &sweep{
			fps: unsafe.Pointer(&tb.fps[0]), flips: unsafe.Pointer(&flips[0]), n: len(flips), key: key,
			stride: tb.stride(), lines: l.lines, fp: fp, allow: allow, capacity: l.capacity(), at: unsafe.Pointer(&at[0]),
		}
		if k.fetches {
			s.ahead, s.distance = 1+len(flips)%l.lines, len(at)-len(flips)
		}
		left := balls[l.bits].shells(from, len(flips))
		s.shells = unsafe.Pointer(&left)
		nhits, nfull := k.sweep(s, &hits[0], &full[0])
		if !slices.Equal(hits[:nhits], wantHits) || !slices.Equal(full[:nfull], wantFull) {
			t.Fatalf("%s: %d bits, %d lines, %d flips, key %#x, fingerprint %#x, %d allowed:\n%v, %v, want\n%v, %v",
				k.name, l.bits, l.lines, len(flips), key, fp, allow, hits[:nhits], full[:nfull], wantHits, wantFull)
		}
		if hits[len(hits)-1] != (hit{7, 7, 7, 7}) || full[len(full)-1] != 7 {
			t.Fatalf("%s wrote beyond the end", k.name)
		}
		s.n = 0
		if nhits, nfull := k.sweep(s, &hits[0], &full[0]); nhits != 0 || nfull != 0 {
			t.Fatalf("%s: no bucket, and %d hits", k.name, nhits)
		}
	}
	return len(wantHits)
}

// TestKernels: buckets from empty to full, with fingerprints from random to all alike.
func TestKernels(t *testing.T) {
	t.Logf("fastest: %s", best.name)
	rnd := newRand(t)
	hits := 0
	for range sized(200) {
		l := level{cut: []*cutting{sixteen, thirteen}[rnd.IntN(2)], bits: 7, lines: 1 + rnd.IntN(12)}
		if rnd.IntN(20) == 0 {
			l.lines = maxLines
		}
		all := balls[l.bits].flips
		from := rnd.IntN(len(all))
		n := 1 + rnd.IntN(min(len(all)-from, maxFlips))
		fp, closeness := rnd.IntN(1<<16), rnd.IntN(12)
		hits += raceKernels(t, l, from, n, rnd.IntN(1<<l.bits), fp, maxThreshold+rnd.IntN(2*maxThreshold+2-maxThreshold), func(fps []uint64) {
			count := rnd.IntN(l.capacity() + 1)
			switch rnd.IntN(4) {
			case 0:
				count = l.capacity()
			case 1:
				count = 0
			}
			for lane := range l.lines * lanes { // lanes not in use, too
				v := uint16(fp)
				for range rnd.IntN(closeness + 1) {
					v ^= 1 << rnd.IntN(16)
				}
				if rnd.IntN(9) == 0 {
					v = ^v
				}
				setFingerprint(fps, lane, v)
			}
			setFingerprint(fps, 0, uint16(count)|uint16(rnd.IntN(2)*vacated))
		})
	}
	if hits < sized(1000) {
		t.Errorf("only %d lines with hits were compared", hits)
	}
}

func FuzzKernels(f *testing.F) {
	f.Add(uint64(1), uint8(1), uint8(7), uint8(3), []byte("fingerprints"))
	f.Add(uint64(2), uint8(6), uint8(127), uint8(9), []byte{0, 0, 255, 255, 128})
	f.Fuzz(func(t *testing.T, seed uint64, lines, n, allow uint8, data []byte) {
		l := level{cut: []*cutting{sixteen, thirteen}[lines>>7], bits: 7, lines: 1 + int(lines%8)}
		rnd := rand.New(rand.NewPCG(seed, 0))
		all := len(balls[7].flips)
		from := rnd.IntN(all)
		raceKernels(t, l, from, 1+int(n)%(all-from), rnd.IntN(128), rnd.IntN(1<<16), maxThreshold+int(allow)%(maxThreshold+2), func(fps []uint64) {
			for lane := range l.lines * lanes {
				v := uint16(rnd.Uint32())
				if len(data) > 1 {
					i := rnd.IntN(len(data) - 1)
					v = uint16(data[i])<<8 | uint16(data[i+1])
				}
				setFingerprint(fps, lane, v)
			}
			setFingerprint(fps, 0, uint16(rnd.IntN(l.capacity()+1))|uint16(rnd.IntN(2)*vacated))
		})
	})
}
