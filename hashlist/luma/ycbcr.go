package luma

import (
	"image"
	"image/color"
)

// A pixel of Y, Cb and Cr becomes luma by way of 8-bit RGB, as package color
// converts it: each of R, G and B is y + (257*y + c) / 65536, rounded down and
// clamped to 0 to 255, where c hangs on the chroma alone. Whether the fraction
// carries is decided by the multiples of 257 that y gives, so of the fraction of
// c no more than one in 256 parts is needed, and each of the three is
//
//	(257*y + 256*whole + part) >> 8 with part = (fraction + 256) / 257.
//
// That fits in 16 bits unless it must be clamped, so the three are added as lanes
// of one word. Clamping shows in a lane's guard, the two bits above; what is
// negative borrows from the lane above, but sets its own guard. The weighted sum
// is then one multiplication, whose other products fall below it or out at the top.
const (
	lane      = 18
	everyLane = 1<<(2*lane) | 1<<lane | 1
	guards    = 3<<16 | 3<<(16+lane) | (1<<64-1)&^(1<<(16+2*lane)-1)
	wholes    = 0xff00 * everyLane
	weigh     = 299<<(2*lane+2) | 587<<(lane+2) | 114<<2 // of R in the lowest lane, G, B
	weighed   = 8 + 2*lane + 2
)

// The part of Y in every lane. A table, because the multiplier is busy weighing.
var lanesOfY = func() (lanes [256]uint64) {
	for y := range lanes {
		lanes[y] = 257 * everyLane * uint64(y)
	}
	return lanes
}()

// The lanes of R and B, which hang on Cr and Cb alone.
var lanesOfCr, lanesOfCb = func() (red, blue [256]uint64) {
	for i := range red {
		v := int32(i) - 128
		red[i] = uint64(part(91881 * v))
		blue[i] = uint64(part(116130*v) << (2 * lane))
	}
	return red, blue
}()

// part brings what chroma adds from 16 bits of fraction to what decides.
func part(c int32) int64 { return int64(c>>16*256) + int64((uint32(c)&0xffff+256)/257) }

// A chromaRow holds what a row of chroma adds to the lanes of its pixels.
type chromaRow struct {
	at    int // offset of the row in Cb and Cr
	lanes []uint64
}

// load computes the row of chroma that begins at an offset. Rows of luma share
// it in most pictures.
func (c *chromaRow) load(m *image.YCbCr, at, n int) {
	if len(c.lanes) == n && c.at == at {
		return
	}
	if cap(c.lanes) < n {
		c.lanes = make([]uint64, n)
	}
	c.at, c.lanes = at, c.lanes[:n]
	lanes, cb, cr := c.lanes, m.Cb[at:], m.Cr[at:]
	cb, cr = cb[:len(lanes)], cr[:len(lanes)]
	for i := range lanes {
		b, r := cb[i], cr[i]
		green := part(-22554*(int32(b)-128) - 46802*(int32(r)-128))
		lanes[i] = lanesOfCr[r] + lanesOfCb[b] + uint64(green<<lane)
	}
}

// ycbcrRow fills row with the luma of the pixels of row y, in the picture's own
// coordinates.
func (c *chromaRow) ycbcrRow(row []uint32, m *image.YCbCr, y int) {
	left := m.Rect.Min.X
	at := m.COffset(left, y)
	if vectors && vectorRow(row, m, y) {
		return
	}
	c.load(m, at, m.COffset(left+len(row)-1, y)-at+1)
	luma := m.Y[m.YOffset(left, y):]
	luma = luma[:len(row)]
	switch sharing(m) {
	case 1:
		for x := single(row, luma, c.lanes); x < len(row); {
			row[x] = c.clamped(m, luma[x], x)
			x++
			x += single(row[x:], luma[x:], c.lanes[x:])
		}
	case 2:
		pairs := len(row) / 2
		for i := double(row, luma, c.lanes[:pairs]); i < pairs; {
			row[2*i], row[2*i+1] = c.clamped(m, luma[2*i], i), c.clamped(m, luma[2*i+1], i)
			i++
			i += double(row[2*i:], luma[2*i:], c.lanes[i:pairs])
		}
		if x := 2 * pairs; x < len(row) {
			row[x] = c.clamped(m, luma[x], pairs)
		}
	default:
		for x, v := range luma {
			row[x] = c.clamped(m, v, m.COffset(left+x, y)-at)
		}
	}
}

// sharing says how many pixels of a row share chroma, all of them in the same way from the first on; 0
// for what is rare.
func sharing(m *image.YCbCr) int {
	left := m.Rect.Min.X
	switch m.SubsampleRatio {
	case image.YCbCrSubsampleRatio444, image.YCbCrSubsampleRatio440:
		return 1
	case image.YCbCrSubsampleRatio422, image.YCbCrSubsampleRatio420:
		if left >= 0 && left%2 == 0 {
			return 2
		}
	}
	return 0
}

// vectorRow is ycbcrRow with vector instructions, which do not mind what must be clamped. It reports
// whether the row was long enough and of a kind that they know.
func vectorRow(row []uint32, m *image.YCbCr, y int) bool {
	left, share := m.Rect.Min.X, sharing(m)
	n := len(row) &^ (8*share - 1)
	if share == 0 || n == 0 {
		return false
	}
	luma := m.Y[m.YOffset(left, y):][:len(row)]
	chroma := (len(row) + share - 1) / share
	at := m.COffset(left, y)
	cb, cr := m.Cb[at:][:chroma], m.Cr[at:][:chroma]
	if share == 1 {
		lumaSingles(&row[0], &luma[0], &cb[0], &cr[0], n)
	} else {
		lumaPairs(&row[0], &luma[0], &cb[0], &cr[0], n)
	}
	for x := n; x < len(row); x++ {
		row[x] = lumaOf(luma[x], cb[x/share], cr[x/share])
	}
	return true
}

func lumaOf(y, cb, cr uint8) uint32 { return luma(color.YCbCrToRGB(y, cb, cr)) }

// single converts pixels that have chroma each, up to the first that must be
// clamped, and returns how many.
func single(row []uint32, luma []uint8, lanes []uint64) int {
	row, luma = row[:len(lanes)], luma[:len(lanes)]
	for x, add := range lanes {
		v := lanesOfY[luma[x]] + add
		if v&guards != 0 {
			return x
		}
		row[x] = uint32(v & wholes * weigh >> weighed)
	}
	return len(lanes)
}

// double converts pairs of pixels that share chroma, up to the first pair that
// must be clamped, and returns how many.
func double(row []uint32, luma []uint8, lanes []uint64) int {
	row, luma = row[:2*len(lanes)], luma[:2*len(lanes)]
	for i, add := range lanes {
		if 2*i+1 >= len(row) || 2*i+1 >= len(luma) { // never: it spares four checks
			break
		}
		v, w := lanesOfY[luma[2*i]]+add, lanesOfY[luma[2*i+1]]+add
		if (v|w)&guards != 0 {
			return i
		}
		row[2*i], row[2*i+1] = uint32(v&wholes*weigh>>weighed), uint32(w&wholes*weigh>>weighed)
	}
	return len(lanes)
}

// clamped is the luma of a pixel of which nothing need be true.
func (c *chromaRow) clamped(m *image.YCbCr, y uint8, i int) uint32 {
	return lumaOf(y, m.Cb[c.at+i], m.Cr[c.at+i])
}
