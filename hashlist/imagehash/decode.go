package imagehash

import (
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"sync"
	"time"

	"github.com/corona10/goimagehash"
	"github.com/tocsin-fed/tocsin/hashlist"
)

// A decoder examines one file. It lives in a child.
type decoder struct {
	maxPixels int64
	maxFrames int

	media                Media
	firstIndex           int // of the animation: 1 when a picture comes before it
	decodeTime, hashTime time.Duration
}

// examine decodes a file of a known format and hashes its frames. It is all
// that a child does. A panic of a decoder is the file's fault.
func examine(r request, media []byte) (m Media, err error) {
	d := &decoder{maxPixels: r.maxPixels, maxFrames: r.maxFrames}
	d.media.Format = formats[r.format]
	defer func() {
		if p := recover(); p != nil {
			m, err = Media{}, fmt.Errorf("%w: the %s decoder failed: %.100v", ErrUndecodable, d.media.Format, p)
		}
	}()
	switch d.media.Format {
	case "jpeg":
		err = d.jpeg(media)
	case "png":
		err = d.png(media)
	case "gif":
		err = d.gif(media)
	case "webp":
		err = d.webp(media)
	case "avif":
		err = d.avif(media)
	case "heic":
		err = d.heic(media)
	case "jxl":
		err = d.jxl(media)
	}
	if err == nil && len(d.media.Frames) == 0 {
		err = fmt.Errorf("%w: %s without a frame", ErrUndecodable, d.media.Format)
	}
	if err != nil {
		if !errors.Is(err, ErrTooLarge) && !errors.Is(err, ErrUndecodable) {
			err = fmt.Errorf("%w: %w", ErrUndecodable, err)
		}
		return Media{}, err
	}
	d.media.DecodeTime, d.media.HashTime = d.decodeTime, d.hashTime
	return d.media, nil
}

// declare notes the size that the header declares, and refuses what is beyond
// the limit. It comes before any decoding.
func (d *decoder) declare(w, h int64) error {
	if err := checkPixels(d.media.Format, w, h, d.maxPixels); err != nil {
		return err
	}
	d.media.Width, d.media.Height = int(w), int(h)
	return nil
}

// still decodes a file of one frame.
func (d *decoder) still(decode func() (image.Image, error)) error {
	start := time.Now()
	img, err := decode()
	if err != nil {
		return err
	}
	d.decodeTime += time.Since(start)
	d.show(0, img)
	return nil
}

// show hashes a frame: as it is stored and, if it is transparent anywhere, as it
// is seen on white and on black.
func (d *decoder) show(index int, img image.Image) {
	start := time.Now()
	d.hash(index, img)
	if !opaque(img) {
		var canvas *image.RGBA
		for _, background := range backgrounds {
			canvas = onBackground(canvas, img, background)
			d.hash(index, canvas)
		}
	}
	d.hashTime += time.Since(start)
}

func (d *decoder) hash(index int, img image.Image) {
	f := Frame{Index: index}
	var small sync.WaitGroup
	small.Go(func() {
		f.PHash, f.DHash = hashSmall(img)
	})
	f.PDQ, f.Quality = hashPDQ(img)
	small.Wait()
	d.media.Frames = append(d.media.Frames, f)
}

// hashSmall computes pHash and dHash, of which the library would make the
// picture small itself if it were not.
func hashSmall(img image.Image) (phash, dhash hashlist.Hash) {
	small, ok := thumbnails(img)
	if !ok {
		small = [2]image.Image{img, img}
	}
	return hash64(hashlist.PHash, goimagehash.PerceptionHash, small[0]),
		hash64(hashlist.DHash, goimagehash.DifferenceHash, small[1])
}

func hash64(a hashlist.Algorithm, hash func(image.Image) (*goimagehash.ImageHash, error), img image.Image) hashlist.Hash {
	v, err := hash(img)
	if err != nil { // for a nil picture only
		return hashlist.Hash{}
	}
	h, err := hashlist.NewHash(a, binary.BigEndian.AppendUint64(nil, v.GetHash()))
	if err != nil { // all zero
		return hashlist.Hash{}
	}
	return h
}
