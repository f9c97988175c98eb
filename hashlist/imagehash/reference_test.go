package imagehash

import (
	"image"
	"image/color"
	"image/draw"
	"slices"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// referenceReduce is reduce as the reference does it, to the bit: first the blur,
// in float32 and with its order of additions, then the sampling.
//
// The four passes run as one stream over the rows and hold a few windows of
// rows instead of two copies of the picture in float32 (half a gigabyte at 64
// megapixels). Within each pass the sums are taken in the reference's order.
func referenceReduce(img image.Image, out *tile) {
	b := img.Bounds()
	w, h := b.Dx(), b.Dy()
	src := newReferenceLuma(img)
	if w == side && h == side {
		// The reference takes such a picture as reduced already.
		src.read(out[:], 0, side)
		return
	}
	winX, winY := window(w), window(h)
	cols, rows := samples(w), samples(h)

	// Last pass, down the columns that are sampled.
	var sampled, next int
	second := newColumnFilter(side, h, winY, func(row []float32) {
		for next < side && rows[next] == sampled {
			copy(out[next*side:], row)
			next++
		}
		sampled++
	})
	// Third pass, along rows: wanted only where it is sampled.
	narrow := make([]float32, batch*side)
	wide := make([]float32, 0, batch*w)
	third := func() {
		for n := len(wide) / w; n > 0; n = 0 {
			boxRowsAt(wide, narrow, w, n, winX, &cols)
			for i := range n {
				second.push(narrow[i*side : (i+1)*side])
			}
			wide = wide[:0]
		}
	}
	first := newColumnFilter(w, h, winY, func(row []float32) {
		wide = append(wide, row...)
		if len(wide) == batch*w {
			third()
		}
	})
	in, filtered := make([]float32, batch*w), make([]float32, batch*w)
	for y := 0; y < h; y += batch {
		n := min(batch, h-y)
		src.read(in, y, n)
		boxRows(in, filtered, w, n, winX)
		for i := range n {
			first.push(filtered[i*w : (i+1)*w])
		}
	}
	first.flush()
	third()
	second.flush()
}

// batch is how many rows are filtered side by side: a running sum is a chain of
// dependent additions, and four chains keep the processor busy where one waits.
const batch = 4

// A reciprocal divides float32 values by a small whole number, to the bit as a
// float32 division does, in a third of the time.
//
// The product in float64 is off by less than 2^-51 of the quotient, so it rounds
// like the quotient unless that lies as near to the middle of two float32
// values. A middle has 25 bits, m; were x/n equal to one, x = m*n would not fit
// in 24 bits; and if it is not equal, x and m*n differ by a whole unit of their
// last place, which is more than 2^-26/n of x, and 2^-26/n > 2^-50 for n < 2^24.
type reciprocal float64

func inverse(n int) reciprocal { return 1 / reciprocal(n) }

func (r reciprocal) of(x float32) float32 { return float32(float64(x) * float64(r)) }

// boxRows filters n rows of w values each. The window around a value reaches
// (win+2)/2 - 1 values to the right; at the edges it is cut and the sum divided
// by what is left of it.
func boxRows(in, out []float32, w, n, win int) {
	lead := (win+2)/2 - 1
	var r [batch][]float32
	var o [batch][]float32
	for i := range batch {
		// Missing rows repeat the last one: cheaper than a second loop.
		k := min(i, n-1)
		r[i], o[i] = in[k*w:k*w+w:k*w+w], out[k*w:k*w+w:k*w+w]
	}
	r0, r1, r2, r3 := r[0], r[1], r[2], r[3]
	o0, o1, o2, o3 := o[0], o[1], o[2], o[3]
	var s0, s1, s2, s3 float32
	for x := range lead {
		s0, s1, s2, s3 = s0+r0[x], s1+r1[x], s2+r2[x], s3+r3[x]
	}
	x := lead
	for ; x < win; x++ {
		s0, s1, s2, s3 = s0+r0[x], s1+r1[x], s2+r2[x], s3+r3[x]
		d := inverse(x + 1)
		k := x - lead
		o0[k], o1[k], o2[k], o3[k] = d.of(s0), d.of(s1), d.of(s2), d.of(s3)
	}
	d := inverse(win)
	for ; x < w; x++ {
		s0, s1, s2, s3 = s0+r0[x], s1+r1[x], s2+r2[x], s3+r3[x]
		l := x - win
		s0, s1, s2, s3 = s0-r0[l], s1-r1[l], s2-r2[l], s3-r3[l]
		k := x - lead
		o0[k], o1[k], o2[k], o3[k] = d.of(s0), d.of(s1), d.of(s2), d.of(s3)
	}
	for i := range lead {
		l := w - win + i
		s0, s1, s2, s3 = s0-r0[l], s1-r1[l], s2-r2[l], s3-r3[l]
		d := inverse(win - 1 - i)
		k := w - lead + i
		o0[k], o1[k], o2[k], o3[k] = d.of(s0), d.of(s1), d.of(s2), d.of(s3)
	}
}

// boxRowsAt is boxRows for those values only that are sampled: cols, ascending.
// The sums must run over all of them.
func boxRowsAt(in, out []float32, w, n, win int, cols *[side]int) {
	lead := (win+2)/2 - 1
	var r [batch][]float32
	for i := range batch {
		k := min(i, n-1)
		r[i] = in[k*w : k*w+w : k*w+w]
	}
	r0, r1, r2, r3 := r[0], r[1], r[2], r[3]
	var s0, s1, s2, s3 float32
	x := 0 // values added so far
	l := 0 // values taken away so far
	for j, k := range cols {
		// The window of value k ends before k+lead+1 and begins at k+lead+1-win.
		for ; x <= k+lead && x < win && x < w; x++ {
			s0, s1, s2, s3 = s0+r0[x], s1+r1[x], s2+r2[x], s3+r3[x]
		}
		for ; x <= k+lead && x < w; x++ {
			s0, s1, s2, s3 = s0+r0[x], s1+r1[x], s2+r2[x], s3+r3[x]
			s0, s1, s2, s3 = s0-r0[l], s1-r1[l], s2-r2[l], s3-r3[l]
			l++
		}
		for ; l < k+lead+1-win; l++ {
			s0, s1, s2, s3 = s0-r0[l], s1-r1[l], s2-r2[l], s3-r3[l]
		}
		d := float32(x - l)
		for i, s := range [batch]float32{s0, s1, s2, s3} {
			if i < n {
				out[i*side+j] = s / d
			}
		}
	}
}

// A columnFilter is the box filter down the columns of a picture, fed and
// emitting row by row.
type columnFilter struct {
	width, height, win, lead int
	emit                     func(row []float32)
	sums, out                []float32
	ring                     []float32 // the last win rows
	added, removed           int       // rows
}

func newColumnFilter(width, height, win int, emit func([]float32)) *columnFilter {
	return &columnFilter{
		width: width, height: height, win: win, lead: (win+2)/2 - 1, emit: emit,
		sums: make([]float32, width), out: make([]float32, width), ring: make([]float32, width*win),
	}
}

// push adds the next row and emits the one that it completes.
func (f *columnFilter) push(row []float32) {
	slot := f.added % f.win * f.width
	old := f.ring[slot : slot+f.width]
	sums := f.sums[:len(old)]
	row = row[:len(old)]
	f.added++
	switch {
	case f.added <= f.lead:
		for i, v := range row {
			sums[i] += v
		}
	case f.added <= f.win:
		d, out := inverse(f.added), f.out[:len(old)]
		for i, v := range row {
			sums[i] += v
			out[i] = d.of(sums[i])
		}
	default:
		f.removed++
		d, out := inverse(f.win), f.out[:len(old)]
		for i, v := range row {
			s := sums[i] + v
			s -= old[i]
			sums[i] = s
			out[i] = d.of(s)
		}
	}
	copy(old, row)
	if f.added > f.lead {
		f.emit(f.out)
	}
}

// flush emits the rows whose windows reach beyond the lower edge.
func (f *columnFilter) flush() {
	for range f.lead {
		slot := f.removed % f.win * f.width
		old := f.ring[slot : slot+f.width]
		f.removed++
		d := float32(f.added - f.removed)
		for i := range f.sums {
			f.sums[i] -= old[i]
			f.out[i] = f.sums[i] / d
		}
		f.emit(f.out)
	}
}

// referenceLumaOf holds the reference's weights times each 8-bit value, rounded to
// float32: a luma is the sum of three of them, from left to right.
var referenceLumaOf = func() (t [3][256]float32) {
	for c, weight := range [3]float32{.299, .587, .114} {
		for v := range t[c] {
			t[c][v] = weight * float32(v)
		}
	}
	return t
}()

func lumaFloat(r, g, b uint8) float32 {
	return float32(float32(referenceLumaOf[0][r]+referenceLumaOf[1][g]) + referenceLumaOf[2][b])
}

// A referenceLuma gives the rows of a picture as luma values, 0 to 255.
//
// Colours become 8-bit RGB first, whatever they were: that is what other
// implementations hash. Samples of 16 bits lose their lower half. Alpha is
// dropped, not composited, as the reference does it; where a decoder has
// multiplied it in, it is divided out. Palettes and CMYK are converted to the
// colours they stand for (python-threatexchange hashes the palette's indices
// and takes C, M and Y for R, G and B; its hashes of such files differ).
type referenceLuma struct {
	img    image.Image
	strip  *image.RGBA // of batch rows, for what is converted by package draw
	lookup []float32   // luma of each palette index
}

func newReferenceLuma(img image.Image) *referenceLuma {
	s := &referenceLuma{img: img}
	w := img.Bounds().Dx()
	switch m := img.(type) {
	case *image.NYCbCrA:
		s.img = &m.YCbCr
		s.strip = image.NewRGBA(image.Rect(0, 0, w, batch))
	case *image.YCbCr, *image.CMYK:
		s.strip = image.NewRGBA(image.Rect(0, 0, w, batch))
	case *image.Paletted:
		s.lookup = make([]float32, 256)
		for i, c := range m.Palette {
			n := color.NRGBAModel.Convert(c).(color.NRGBA)
			s.lookup[i&255] = lumaFloat(n.R, n.G, n.B)
		}
	}
	return s
}

// read fills out with n rows from row y on, counted from the top of the picture.
func (s *referenceLuma) read(out []float32, y, n int) {
	b := s.img.Bounds()
	w := b.Dx()
	for i := 0; i < n; i++ {
		row := out[i*w : (i+1)*w]
		at := b.Min.Y + y + i
		switch m := s.img.(type) {
		case *image.YCbCr, *image.CMYK:
			// package draw knows both, and converts them exactly as package color does.
			k := min(n-i, batch)
			draw.Draw(s.strip, image.Rect(0, 0, w, k), m, image.Pt(b.Min.X, at), draw.Src)
			for j := range k {
				referenceRow(out[(i+j)*w:(i+j+1)*w], s.strip.Pix[j*s.strip.Stride:])
			}
			i += k - 1
		case *image.Gray:
			pix := m.Pix[m.PixOffset(b.Min.X, at):]
			for x := range row {
				row[x] = float32(pix[x])
			}
		case *image.Gray16:
			pix := m.Pix[m.PixOffset(b.Min.X, at):]
			for x := range row {
				row[x] = float32(pix[2*x])
			}
		case *image.Paletted:
			pix := m.Pix[m.PixOffset(b.Min.X, at):]
			for x := range row {
				row[x] = s.lookup[pix[x]]
			}
		case *image.NRGBA:
			referenceRow(row, m.Pix[m.PixOffset(b.Min.X, at):])
		case *image.NRGBA64:
			pix := m.Pix[m.PixOffset(b.Min.X, at):]
			for x := range row {
				row[x] = lumaFloat(pix[8*x], pix[8*x+2], pix[8*x+4])
			}
		case *image.RGBA:
			pix := m.Pix[m.PixOffset(b.Min.X, at):]
			for x := range row {
				p := pix[4*x : 4*x+4 : 4*x+4]
				if p[3] == 255 {
					row[x] = lumaFloat(p[0], p[1], p[2])
				} else {
					c := color.NRGBAModel.Convert(color.RGBA{R: p[0], G: p[1], B: p[2], A: p[3]}).(color.NRGBA)
					row[x] = lumaFloat(c.R, c.G, c.B)
				}
			}
		default:
			for x := range row {
				c := color.NRGBAModel.Convert(m.At(b.Min.X+x, at)).(color.NRGBA)
				row[x] = lumaFloat(c.R, c.G, c.B)
			}
		}
	}
}

func referenceRow(row []float32, pix []uint8) {
	pix = pix[:4*len(row)]
	for x := range row {
		p := pix[4*x : 4*x+4 : 4*x+4]
		row[x] = lumaFloat(p[0], p[1], p[2])
	}
}

// referenceSigns makes the hash of one dihedral variant alone.
func referenceSigns(a *[freqs][freqs]float32, variant int) hashlist.Hash {
	var v [freqs * freqs]float32
	for i := range freqs {
		for j := range freqs {
			var transposed, negated bool
			switch variant {
			case 1:
				transposed, negated = true, j%2 == 0
			case 2:
				negated = (i+j)%2 == 1
			case 3:
				transposed, negated = true, i%2 == 0
			case 4:
				negated = i%2 == 0
			case 5:
				negated = j%2 == 0
			case 6:
				transposed = true
			case 7:
				transposed, negated = true, (i+j)%2 == 1
			}
			x := a[i][j]
			if negated {
				x = -x
			}
			if transposed {
				v[j*freqs+i] = x
			} else {
				v[i*freqs+j] = x
			}
		}
	}
	sorted := v
	slices.Sort(sorted[:])
	median := sorted[len(sorted)/2-1] // the lower one of the two
	var sum [32]byte
	for k, x := range v {
		if x > median {
			sum[31-k/8] |= 1 << (k % 8)
		}
	}
	h, err := hashlist.NewHash(hashlist.PDQ, sum[:])
	if err != nil { // all zero: no coefficient stands out of a flat picture
		return hashlist.Hash{}
	}
	return h
}
