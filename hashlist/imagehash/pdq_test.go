package imagehash

import (
	"bufio"
	"image"
	"image/color"
	_ "image/jpeg"
	_ "image/png"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tocsin-fed/tocsin/hashlist"
	_ "golang.org/x/image/webp"
)

// testdata returns a file or folder of the shared test data, of which nothing is kept here.
func sharedData(t *testing.T, path string) string {
	t.Helper()
	root := os.Getenv("TOCSIN_TESTDATA")
	if root == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("TOCSIN_TESTDATA is not set: the reference vectors cannot be checked")
		}
		t.Logf("TOCSIN_TESTDATA is not set: %s is not looked at", path)
		return ""
	}
	return filepath.Join(root, path)
}

// table reads a file of tab-separated values with a heading.
func table(t *testing.T, path string) (rows []map[string]string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	var head []string
	for lines.Scan() {
		cells := strings.Split(lines.Text(), "\t")
		if head == nil {
			head = cells
			continue
		}
		row := make(map[string]string)
		for i, name := range head {
			if i < len(cells) {
				row[name] = cells[i]
			}
		}
		rows = append(rows, row)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return rows
}

func openImage(t *testing.T, path string) image.Image {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, _, err := image.Decode(f)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return img
}

func hexOf(h hashlist.Hash) string {
	if h.IsZero() {
		return strings.Repeat("0", 64)
	}
	return h.Hex()
}

// Rows of the reference's core on the very pixels of these files.
func TestReferenceExact(t *testing.T) {
	dir := sharedData(t, "pdq")
	if dir == "" {
		return
	}
	exact, degenerate := 0, 0
	columns := [8]string{"dih_orig", "dih_rot90", "dih_rot180", "dih_rot270", "dih_flipx", "dih_flipy", "dih_flipplus1", "dih_flipminus1"}
	rows := table(t, filepath.Join(dir, "exact.tsv"))
	for _, row := range rows {
		set, quality := hashPDQ(openImage(t, filepath.Join(dir, row["file"])))
		if want, _ := strconv.Atoi(row["quality"]); quality != want {
			t.Errorf("%s: quality %d, want %d", row["file"], quality, want)
		}
		if row["float64_hash_distance"] != "0" {
			degenerate++
			continue
		}
		if got := hexOf(set[0]); got != row["hash"] {
			t.Errorf("%s: hash\n%s, want\n%s", row["file"], got, row["hash"])
		}
		for i, column := range columns {
			if got := hexOf(set[i]); got != row[column] {
				t.Errorf("%s: %s\n%s, want\n%s", row["file"], Transforms[i], got, row[column])
			}
		}
		exact++
	}
	t.Logf("%d rows: %d to the bit with their dihedrals, %d degenerate by quality", len(rows), exact, degenerate)
	if exact < 15 {
		t.Errorf("only %d rows compared: the table is not what it was", exact)
	}
}

// Rows of the reference on files as another decoder (libjpeg-turbo) sees them.
func TestReferencePhotographs(t *testing.T) {
	dir := sharedData(t, "pdq")
	if dir == "" {
		return
	}
	compared, worst, worstGo := 0, 0, 0
	for _, row := range table(t, filepath.Join(dir, "vectors.tsv")) {
		path := filepath.Join(dir, "images", row["file"])
		if same, ok := strings.CutPrefix(row["copied"], "same-as:"); ok {
			path = filepath.Join(dir, "images", same)
		} else if row["copied"] != "yes" {
			continue
		}
		set, quality := hashPDQ(openImage(t, path))
		if row["go_full_hash"] != "-" && hexOf(set[0]) != row["go_full_hash"] {
			want, _ := hashlist.ParseHashLenient(hashlist.PDQ, row["go_full_hash"])
			d, _ := set[0].Distance(want)
			worstGo = max(worstGo, d)
			t.Logf("%s: %d bits from the core on pixels decoded by Go", row["file"], d)
		}
		if mode := row["pil_mode"]; mode == "P" || mode == "CMYK" {
			continue // taken wrongly by the tool that made this column
		}
		if quality < 80 {
			continue
		}
		want, err := hashlist.ParseHashLenient(hashlist.PDQ, row["full_hash"])
		if err != nil {
			t.Fatal(err)
		}
		d, _ := set[0].Distance(want)
		worst = max(worst, d)
		if d > 10 {
			t.Errorf("%s: %d bits from the reference, want at most 10", row["file"], d)
		}
		compared++
	}
	t.Logf("%d photographs, worst distance %d; worst from the core on pixels decoded by Go %d", compared, worst, worstGo)
	if compared < 20 {
		t.Errorf("only %d rows compared: the table is not what it was", compared)
	}
}

// naive is the definition of the blur, one vector at a time.
func naive(in []float32, n, stride, win int) []float32 {
	out := make([]float32, n)
	lead := (win+2)/2 - 1
	var sum float32
	size, li, ri, oi := 0, 0, 0, 0
	step := func(add, sub, write bool) {
		if add {
			sum += in[ri*stride]
			ri++
			size++
		}
		if sub {
			sum -= in[li*stride]
			li++
			size--
		}
		if write {
			out[oi] = sum / float32(size)
			oi++
		}
	}
	for range lead {
		step(true, false, false)
	}
	for range win - lead {
		step(true, false, true)
	}
	for range n - win {
		step(true, true, true)
	}
	for range lead {
		step(false, true, true)
	}
	return out
}

func naiveTile(img image.Image) (out tile) {
	b := img.Bounds()
	w, h := b.Dx(), b.Dy()
	v := make([]float32, w*h)
	for y := range h {
		for x := range w {
			c := color.NRGBAModel.Convert(img.At(b.Min.X+x, b.Min.Y+y)).(color.NRGBA)
			if _, ok := img.(*image.Gray); ok {
				v[y*w+x] = float32(c.R)
			} else {
				v[y*w+x] = float32(float32(float32(.299)*float32(c.R))+float32(float32(.587)*float32(c.G))) + float32(float32(.114)*float32(c.B))
			}
		}
	}
	if w != side || h != side {
		for range 2 {
			for y := range h {
				copy(v[y*w:], naive(v[y*w:], w, 1, window(w)))
			}
			for x := range w {
				for y, s := range naive(v[x:], h, w, window(h)) {
					v[y*w+x] = s
				}
			}
		}
	}
	for i, y := range samples(h) {
		for j, x := range samples(w) {
			out[i*side+j] = v[y*w+x]
		}
	}
	return out
}

// The passes of the reference round exactly as the plain ones, for every kind of picture.
func TestReduceEqualsDefinition(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, size := range [][2]int{{5, 5}, {5, 700}, {700, 5}, {6, 9}, {63, 65}, {64, 64}, {64, 65}, {65, 64}, {127, 128}, {129, 130}, {257, 383}, {401, 66}, {640, 11}, {1283, 7}, {7, 1283}} {
		w, h := size[0], size[1]
		rect := image.Rect(3, -2, 3+w, -2+h)
		cmyk, rgba, nrgba, grey := image.NewCMYK(rect), image.NewRGBA(rect), image.NewNRGBA(rect), image.NewGray(rect)
		ycc := image.NewYCbCr(rect, image.YCbCrSubsampleRatio420)
		nrgba64 := image.NewNRGBA64(rect)
		paletted := image.NewPaletted(rect, color.Palette{color.Black, color.White, color.RGBA{200, 10, 30, 255}, color.NRGBA{10, 200, 30, 128}})
		for _, pix := range [][]uint8{cmyk.Pix, rgba.Pix, nrgba.Pix, grey.Pix, ycc.Y, ycc.Cb, ycc.Cr, nrgba64.Pix, paletted.Pix} {
			for i := range pix {
				pix[i] = uint8(r.Uint32())
			}
		}
		for i := range paletted.Pix {
			paletted.Pix[i] &= 3
		}
		for i := 0; i < len(rgba.Pix); i += 4 {
			rgba.Pix[i+3] = 255
			nrgba.Pix[i+3] |= 128 // at lower alpha At() loses colour that Pix still has
		}
		for i := 0; i < len(nrgba64.Pix); i += 8 {
			nrgba64.Pix[i+6], nrgba64.Pix[i+7] = 255, 255
		}
		for _, img := range []image.Image{cmyk, rgba, nrgba, grey, ycc, nrgba64, paletted} {
			var got tile
			referenceReduce(img, &got)
			if got != naiveTile(img) {
				t.Errorf("%T of %dx%d: the tile differs from the definition's", img, w, h)
			}
		}
	}
}

func TestReciprocal(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for n := 1; n < 3000; n++ {
		d := inverse(n)
		for range 300 {
			x := float32(r.Float64() * float64(int(1)<<r.IntN(28)))
			// Products of middles are the hard cases.
			hard := float32((float64(x) + float64(math.Nextafter32(x, 1e30))) / 2 * float64(n))
			for _, v := range []float32{x, -x, hard, math.Nextafter32(hard, 0), math.Nextafter32(hard, 1e30)} {
				if got, want := d.of(v), v/float32(n); got != want {
					t.Fatalf("%v/%d is %v, got %v", v, n, want, got)
				}
			}
		}
	}
}
