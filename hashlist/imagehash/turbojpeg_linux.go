//go:build cgo

package imagehash

/*
#cgo LDFLAGS: -ldl
#include <dlfcn.h>
#include <stddef.h>

// Of TurboJPEG's interface (libturbojpeg.so.0, turbojpeg.h of libjpeg-turbo 2.1), which has kept its form since
// version 1.4, declared here so that a build needs neither header nor library.
static void *(*tj_init)(void);
static int (*tj_header)(void *, const unsigned char *, unsigned long, int *, int *, int *, int *);
static int (*tj_planes)(void *, const unsigned char *, unsigned long, unsigned char **, int, int *, int, int);
static int (*tj_destroy)(void *);

static int turbo_open(void) {
	void *lib = dlopen("libturbojpeg.so.0", RTLD_NOW | RTLD_LOCAL);
	if (lib == NULL)
		return 0;
	tj_init = dlsym(lib, "tjInitDecompress");
	tj_header = dlsym(lib, "tjDecompressHeader3");
	tj_planes = dlsym(lib, "tjDecompressToYUVPlanes");
	tj_destroy = dlsym(lib, "tjDestroy");
	return tj_init != NULL && tj_header != NULL && tj_planes != NULL && tj_destroy != NULL;
}

static void *turbo_init(void) { return tj_init(); }
static void turbo_destroy(void *h) { tj_destroy(h); }

static int turbo_header(void *h, const unsigned char *file, unsigned long size, int *v) {
	return tj_header(h, file, size, &v[0], &v[1], &v[2], &v[3]);
}

static int turbo_planes(void *h, const unsigned char *file, unsigned long size,
	unsigned char *y, unsigned char *cb, unsigned char *cr, int ystride, int cstride, int width, int height, int flags) {
	unsigned char *planes[3] = {y, cb, cr};
	int strides[3] = {ystride, cstride, cstride};
	return tj_planes(h, file, size, planes, width, strides, height, flags);
}
*/
import "C"

import (
	"image"
	"unsafe"
)

// turbo reports whether this process decodes JPEG files with libjpeg-turbo. A child
// sets it before it confines itself, and nobody later.
var turbo bool

// openTurbo loads libjpeg-turbo, if this machine has it.
func openTurbo() { turbo = C.turbo_open() != 0 }

// Values of turbojpeg.h.
const (
	stopOnWarning = 8192
	accurateDCT   = 4096
	grayColours   = 2 // TJCS_GRAY
	ycbcrColours  = 1 // TJCS_YCbCr
)

// How much less chroma than luma there is, by TJSAMP. 3, for none, is grey.
var subsampling = map[C.int]struct {
	ratio image.YCbCrSubsampleRatio
	x, y  int
}{
	0: {image.YCbCrSubsampleRatio444, 1, 1},
	1: {image.YCbCrSubsampleRatio422, 2, 1},
	2: {image.YCbCrSubsampleRatio420, 2, 2},
	4: {image.YCbCrSubsampleRatio440, 1, 2},
	5: {image.YCbCrSubsampleRatio411, 4, 1},
}

// decodeTurbo decodes a file of w by h pixels with the library that browsers use too, three to
// four times as fast as package jpeg. Its inverse transform rounds otherwise: a sample may differ by 1, and two bits
// of a hash in one picture of ten. It says no to whatever is not a plain file of grey or of Y, Cb and Cr, and
// to a file with any blemish: what a broken file shows is decided in one place, by the code around package jpeg.
//
// All hashing included this takes 0.30 of the time in which package jpeg decodes. Two ways to be faster were measured and not
// taken. To decode luma alone (the hashes of most pictures stay within two bits) saves a third of that; but colours beyond
// what a screen can show are clamped, so a file can be made whose Y is far from what people see. To
// decode at half size is as fast, and differs in four bits, because PDQ's windows come to lie otherwise.
func decodeTurbo(file []byte, w, h int) (image.Image, bool) {
	handle := C.turbo_init()
	if handle == nil || len(file) == 0 {
		return nil, false
	}
	defer C.turbo_destroy(handle)
	data, size := (*C.uchar)(unsafe.Pointer(&file[0])), C.ulong(len(file))
	var head [4]C.int
	if C.turbo_header(handle, data, size, &head[0]) != 0 || head[0] != C.int(w) || head[1] != C.int(h) {
		return nil, false
	}
	var y, cb, cr []byte
	decode := func(ystride, cstride int) bool {
		var planes [3]*C.uchar
		for i, p := range [3][]byte{y, cb, cr} {
			if len(p) > 0 {
				planes[i] = (*C.uchar)(unsafe.Pointer(&p[0]))
			}
		}
		return C.turbo_planes(handle, data, size, planes[0], planes[1], planes[2], C.int(ystride), C.int(cstride),
			C.int(w), C.int(h), stopOnWarning|accurateDCT) == 0
	}
	if head[3] == grayColours {
		y = make([]byte, w*h)
		return &image.Gray{Pix: y, Stride: w, Rect: image.Rect(0, 0, w, h)}, decode(w, 0)
	}
	s, ok := subsampling[head[2]]
	if head[3] != ycbcrColours || !ok {
		return nil, false
	}
	cw, ch := (w+s.x-1)/s.x, (h+s.y-1)/s.y
	yw, yh := cw*s.x, ch*s.y // the library fills up to whole samples of chroma
	y, cb, cr = make([]byte, yw*yh), make([]byte, cw*ch), make([]byte, cw*ch)
	return &image.YCbCr{
		Y: y, Cb: cb, Cr: cr, YStride: yw, CStride: cw, SubsampleRatio: s.ratio, Rect: image.Rect(0, 0, w, h),
	}, decode(yw, cw)
}
