package imagehash

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
	everyLane = 1 | 1<<lane | 1<<(2*lane)
	perY      = 257 * everyLane
	guards    = 3<<16 | 3<<(16+lane) | (1<<64-1)&^(1<<(16+2*lane)-1)
	wholes    = 0xff00 * everyLane
	weigh     = 299<<(2*lane+2) | 587<<(lane+2) | 114<<2 // of R in the lowest lane, G, B
	weighed   = 8 + 2*lane + 2
)

// The lanes of R and B, which hang on Cr and Cb alone.
var lanesOfCr, lanesOfCb = func() (red, blue [256]uint64) {
	for i := range red {
		v := int64(i) - 128
		red[i] = uint64(part(91881 * v))
		blue[i] = uint64(part(116130*v) << (2 * lane))
	}
	return red, blue
}()

// part brings what chroma adds from 16 bits of fraction to what decides.
func part(c int64) int64 { return c>>16*256 + (c&0xffff+256)/257 }

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
	cb, cr := m.Cb[at:at+n], m.Cr[at:at+n]
	for i := range c.lanes {
		b, r := cb[i], cr[i]
		green := part(-22554*(int64(b)-128) - 46802*(int64(r)-128))
		c.lanes[i] = lanesOfCr[r] + lanesOfCb[b] + uint64(green<<lane)
	}
}

// ycbcrRow fills row with the luma of the pixels of row y, in the picture's own
// coordinates.
func (c *chromaRow) ycbcrRow(row []uint32, m *image.YCbCr, y int) {
	left := m.Rect.Min.X
	at := m.COffset(left, y)
	c.load(m, at, m.COffset(left+len(row)-1, y)-at+1)
	luma := m.Y[m.YOffset(left, y):]
	luma = luma[:len(row)]
	switch {
	case m.SubsampleRatio == image.YCbCrSubsampleRatio444, m.SubsampleRatio == image.YCbCrSubsampleRatio440:
		for x, add := range c.lanes[:len(row)] {
			v := uint64(luma[x])*perY + add
			if v&guards != 0 {
				row[x] = c.clamped(m, luma[x], x)
				continue
			}
			row[x] = uint32(v & wholes * weigh >> weighed)
		}
	case left >= 0 && left%2 == 0 && (m.SubsampleRatio == image.YCbCrSubsampleRatio422 || m.SubsampleRatio == image.YCbCrSubsampleRatio420):
		pairs := len(row) / 2
		for i, add := range c.lanes[:pairs] {
			out, in := row[2*i:2*i+2:2*i+2], luma[2*i:2*i+2:2*i+2]
			v, w := uint64(in[0])*perY+add, uint64(in[1])*perY+add
			if (v|w)&guards != 0 {
				out[0], out[1] = c.clamped(m, in[0], i), c.clamped(m, in[1], i)
				continue
			}
			out[0], out[1] = uint32(v&wholes*weigh>>weighed), uint32(w&wholes*weigh>>weighed)
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

// clamped is the luma of a pixel of which nothing need be true.
func (c *chromaRow) clamped(m *image.YCbCr, y uint8, i int) uint32 {
	return luma(color.YCbCrToRGB(y, m.Cb[c.at+i], m.Cr[c.at+i]))
}
