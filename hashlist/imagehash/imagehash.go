// Package imagehash turns media files into hashes: PDQ with its dihedral set,
// 64-bit pHash and dHash, and the digests of the bytes.
//
// It is the one place where strangers' files meet decoders. The process that
// uses it never decodes: a Hasher keeps a pool of children, which are the same
// program started again, and passes them the bytes through a pipe. A child
// answers with hashes, never with pixels. It has no files, no network and no
// environment, its memory is capped, and it is killed when it takes too long.
// Whatever a decoder does with a hostile file, the worst outcome is an error
// for that file. Nothing of a file is written to disk.
//
// # Formats
//
// JPEG, PNG and GIF are decoded by the standard library, WebP by
// golang.org/x/image/webp, all memory-safe (but see Limits.TurboJPEG); AVIF, HEIC and JPEG XL by libavif,
// libheif and libjxl compiled to WebAssembly. Animations are looked at in their
// first frame, their last, and an even sample between them. The default image of
// an animated PNG that is not part of the animation is looked at as well.
//
// Videos are decoded by ffmpeg, where it is there: see video.go.
//
// Not decoded: JPEG with arithmetic coding, 12 bits a sample or lossless
// coding; the images of a HEIC file beyond its primary one. A JPEG, PNG or
// GIF file that ends early or is broken in its pixels, or a later frame of an
// animation that is broken, is hashed as far as a browser would show it; Media.Truncated
// tells. Everything else that is broken is
// ErrUndecodable, which means unknown, never clean.
//
// # What is hashed
//
// The pixels as they are stored, in 8-bit RGB at full size: EXIF orientation is
// ignored (the dihedral set covers it), colour profiles are ignored, alpha is
// dropped and not composited, as Meta's reference does. HEIC and AVIF apply
// their own rotation properties, which are part of the picture and not of EXIF.
// Canvas that no frame of an animation has painted is black.
//
// A frame with a pixel that is not opaque is hashed twice more, composited on
// white and on black: a picture can be kept in the alpha channel alone, or
// disturbed by the colours of pixels that nobody sees.
//
// A copy with inverted colours has about the complement of every PDQ hash, and
// is found by looking up the complement of each of the dihedral set
// (hashlist.Hash.Complement) as well. It is not part of Frame.PDQ because it
// can always be had from it.
//
// pHash and dHash are those of github.com/corona10/goimagehash v1.1.0, to the
// bit. Python's imagehash has the same definitions but another resampling
// filter (Lanczos) and, for pHash, a 32x32 picture instead of 64x64: expect a
// few bits of difference for dHash and for pHash more, and do not match lists
// made with it at a small radius.
package imagehash

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// Limits bounds what one file may cost. A field that is zero or negative gets
// its value of DefaultLimits, but for HEIC and TurboJPEG.
type Limits struct {
	MaxBytes  int64         // of the file; default 50 MiB
	MaxPixels int64         // width times height of one frame, checked before decoding; default 64,000,000
	MaxFrames int           // frames of an animation that are hashed: first, last and an even sample between; default 8, at most 64
	Timeout   time.Duration // from the moment a child starts on the file; then it is killed; default 10 s
	Workers   int           // child processes, and so files decoded at once; default runtime.NumCPU()

	// WorkerMemory is how many bytes of address space a child may map beyond
	// what it needed to start; default 1.5 GiB. The largest picture of the default
	// MaxPixels, a progressive JPEG without chroma subsampling, needs 1.1 GiB.
	// A child that would go beyond dies, and the file is ErrTooLarge. An idle
	// child gives back all but some tens of megabytes.
	WorkerMemory int64

	// FFmpeg is the name or path of ffmpeg, which decodes videos; "" for none. Where there is
	// none, videos are ErrVideo, and Hasher.Videos says so.
	FFmpeg string
	// VideoTimeout is how long a video may take, from when ffmpeg starts. What was seen by then
	// is hashed. Default 20 s.
	VideoTimeout time.Duration

	// HEIC says whether HEIC is decoded. It is a switch of its own because its
	// decoder is under the LGPL and the format under patents. When false, HEIC
	// files are ErrUndecodable.
	HEIC bool

	// TurboJPEG says whether plain JPEG files are decoded by the system's libjpeg-turbo, where it is
	// installed, and the rest by package jpeg. It is C, but it works in the child, as confined as all of it.
	TurboJPEG bool
}

// DefaultLimits returns the defaults named at each field of Limits, with HEIC and TurboJPEG on.
func DefaultLimits() Limits {
	return Limits{
		MaxBytes: 50 << 20, MaxPixels: 64_000_000, MaxFrames: 8, Timeout: 10 * time.Second,
		Workers: runtime.NumCPU(), WorkerMemory: 1536 << 20, HEIC: true, TurboJPEG: true,
		FFmpeg: "ffmpeg", VideoTimeout: 20 * time.Second,
	}
}

// withDefaults fills in what is not set and refuses what cannot work.
func (l Limits) withDefaults() (Limits, error) {
	d := DefaultLimits()
	fill := func(v *int64, def int64) {
		if *v <= 0 {
			*v = def
		}
	}
	fill(&l.MaxBytes, d.MaxBytes)
	fill(&l.MaxPixels, d.MaxPixels)
	fill(&l.WorkerMemory, d.WorkerMemory)
	fill((*int64)(&l.Timeout), int64(d.Timeout))
	fill((*int64)(&l.VideoTimeout), int64(d.VideoTimeout))
	if l.MaxFrames <= 0 {
		l.MaxFrames = d.MaxFrames
	}
	if l.Workers <= 0 {
		l.Workers = d.Workers
	}
	switch {
	case l.MaxBytes > 1<<30:
		return l, fmt.Errorf("limit of %d bytes a file is more than the 1 GiB that can be hashed in memory", l.MaxBytes)
	case l.MaxPixels > 1<<31:
		return l, fmt.Errorf("limit of %d pixels is more than the %d that can be decoded", l.MaxPixels, int64(1)<<31)
	case l.MaxFrames > maxReplyFrames:
		return l, fmt.Errorf("limit of %d frames is more than the %d a file may have hashed", l.MaxFrames, maxReplyFrames)
	case l.WorkerMemory < 256<<20:
		return l, fmt.Errorf("worker memory of %d bytes is less than the 256 MiB a decoder needs", l.WorkerMemory)
	}
	return l, nil
}

// Frame holds the perceptual hashes of one frame. A hash that does not exist is
// the zero Hash: PDQ of a picture less than 5 pixels across or without any
// structure, dHash of one that is nowhere brighter to the right. Hashes of a
// PDQ quality below 50 match at random and are not worth looking up or listing.
//
// A transparent frame makes three of the same Index: as it is stored, without
// its alpha, which comes first; composited on white; composited on black.
type Frame struct {
	// Index is the frame number in an animation, 0 first. Where an animated PNG
	// has a default image that is not part of the animation, that is number 0.
	Index        int
	PDQ          [8]hashlist.Hash // dihedral set in the order of Transforms
	Quality      int              // PDQ quality, 0 to 100
	PHash, DHash hashlist.Hash    // of the frame as it is, no dihedral variants
}

// Media is what a file hashes to.
type Media struct {
	Video             bool          // a video: Frames are about one for each second of it, see Video
	Format            string        // "jpeg", "png", "gif", "webp", "avif", "heic" or "jxl"; of a video "mp4", "webm", "ogg", "flv", "avi", "asf", "mpeg", "mpegvideo" or "mpegts"
	Width, Height     int           // in pixels, of the canvas
	Frames            []Frame       // ascending by Index; at most 3 of each
	Truncated         bool          // the file ends early or a later frame is broken
	MD5, SHA1, SHA256 hashlist.Hash // over the bytes as they arrived

	DecodeTime time.Duration // spent in the child on decoding
	HashTime   time.Duration // spent in the child on perceptual hashes
}

// The ways a file can fail. Each error that Hash returns wraps one of them, or
// the error of its context. Only ErrTrouble is not the file's doing.
var (
	// ErrUndecodable: not a picture of a known format, broken, or HEIC when that
	// is off. A file on which a decoder crashes is undecodable too.
	ErrUndecodable = errors.New("media cannot be decoded")
	// ErrVideo: a container of video or audio, by its first bytes, that was not looked at whole: there is
	// no ffmpeg, it has no picture, it is broken, or beyond the limits. The media
	// has the digests, and the frames that were seen.
	ErrVideo = errors.New("media is video or audio")
	// ErrTooLarge: more bytes, pixels, frames or memory than Limits allow, or a
	// JPEG of more than 100 scans.
	ErrTooLarge = errors.New("media is too large")
	// ErrTimeout: took longer than Limits.Timeout.
	ErrTimeout = errors.New("media took too long to decode")
	// ErrTrouble: a worker cannot be started, was killed from outside twice, as
	// the kernel does when memory is short, or the Hasher is closed.
	ErrTrouble = errors.New("media could not be examined")
)

// Digests returns the MD5, SHA-1 and SHA-256 of a file's bytes.
func Digests(media []byte) (md5sum, sha1sum, sha256sum hashlist.Hash) {
	m, s, l := md5.Sum(media), sha1.Sum(media), sha256.Sum256(media)
	// NewHash fails on a wrong length only.
	md5sum, _ = hashlist.NewHash(hashlist.MD5, m[:])
	sha1sum, _ = hashlist.NewHash(hashlist.SHA1, s[:])
	sha256sum, _ = hashlist.NewHash(hashlist.SHA256, l[:])
	return md5sum, sha1sum, sha256sum
}
