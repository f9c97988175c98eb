package imagehash

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// The formats that can be decoded, by the names of Media.Format. The order is
// part of the protocol between a Hasher and its children.
var formats = [...]string{"jpeg", "png", "gif", "webp", "avif", "heic", "jxl"}

// sniff names the format of a file from its first bytes, and fails with
// ErrVideo or ErrUndecodable when it is not a picture that can be decoded.
func sniff(media []byte) (string, error) {
	if len(media) == 0 {
		return "", fmt.Errorf("%w: the file is empty", ErrUndecodable)
	}
	has := func(at int, magic string) bool {
		return len(media) >= at+len(magic) && string(media[at:at+len(magic)]) == magic
	}
	switch {
	case has(0, "\xff\xd8\xff"):
		return "jpeg", nil
	case has(0, "\x89PNG\r\n\x1a\n"):
		return "png", nil
	case has(0, "GIF87a"), has(0, "GIF89a"):
		return "gif", nil
	case has(0, "RIFF") && has(8, "WEBP"):
		return "webp", nil
	case has(0, "\xff\x0a"), has(0, "\x00\x00\x00\x0cJXL \r\n\x87\n"):
		return "jxl", nil
	case has(4, "ftyp"):
		return sniffBrands(media)
	}
	for _, v := range videoMagic {
		if has(v.at, v.magic) {
			return "", &videoError{v.format, v.name}
		}
	}
	// Transport streams have a sync byte every 188 bytes, or every 192 with a time stamp before it.
	for _, ts := range [][2]int{{0, 188}, {4, 192}} {
		if at, step := ts[0], ts[1]; len(media) > at+2*step &&
			media[at] == 0x47 && media[at+step] == 0x47 && media[at+2*step] == 0x47 {
			return "", &videoError{"mpegts", "MPEG transport stream"}
		}
	}
	// MPEG audio without a tag: eleven set bits, then a layer that is not reserved (or AAC's zero).
	if len(media) >= 4 && media[0] == 0xff && media[1]&0xe0 == 0xe0 && media[2]&0xf0 != 0xf0 {
		return "", &videoError{"", "MPEG audio"}
	}
	return "", fmt.Errorf("%w: not a picture of a known format", ErrUndecodable)
}

// IsVideo reports whether a file is video or audio by its first bytes.
func IsVideo(media []byte) bool {
	_, err := sniff(media)
	return errors.Is(err, ErrVideo)
}

// videoError is a file that is no picture but a video or audio.
type videoError struct {
	format string // as Media.Format; "" for audio
	name   string
}

func (e *videoError) Error() string { return ErrVideo.Error() + ": " + e.name }
func (e *videoError) Unwrap() error { return ErrVideo }

var videoMagic = []struct {
	at                  int
	magic, name, format string
}{
	{0, "\x1aE\xdf\xa3", "Matroska or WebM", "webm"},
	{0, "OggS", "Ogg", "ogg"},
	{0, "FLV\x01", "Flash video", "flv"},
	{0, "\x00\x00\x01\xba", "MPEG program stream", "mpeg"},
	{0, "\x00\x00\x01\xb3", "MPEG video", "mpegvideo"},
	{0, "\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Windows Media", "asf"},
	{0, ".RMF", "RealMedia", ""},
	{0, "ID3", "MP3", ""},
	{0, "fLaC", "FLAC", ""},
	{0, "#!AMR", "AMR", ""},
	{0, "MThd", "MIDI", ""},
	{8, "AVI ", "AVI", "avi"},
	{8, "WAVE", "WAVE", ""},
	{8, "AIFF", "AIFF", ""},
	{8, "AIFC", "AIFF", ""},
	{4, "moov", "QuickTime", "mp4"},
	{4, "mdat", "QuickTime", "mp4"},
	{4, "wide", "QuickTime", "mp4"},
	{4, "pnot", "QuickTime", "mp4"},
	{4, "skip", "QuickTime", "mp4"},
	{4, "free", "QuickTime", "mp4"},
	{4, "styp", "MPEG-4 segment", "mp4"},
	{4, "moof", "MPEG-4 fragment", "mp4"},
}

var (
	avifBrands = []string{"avif", "avis"}
	heicBrands = []string{"heic", "heix", "heim", "heis", "hevc", "hevx", "hevm", "hevs"}
	// Brands of pictures that cannot be decoded, or that do not say by what they
	// are coded.
	pictureBrands = []string{"mif1", "mif2", "msf1", "miaf", "MiHB", "MiHE", "avci", "crx ", "jpeg", "jpgs", "vvic", "j2ki"}
	// Major brands of video and audio (the MP4 registration authority's list), by
	// their beginnings.
	videoBrands = []string{
		"iso", "mp4", "M4V", "M4A", "M4B", "M4P", "F4V", "F4A", "qt  ", "3gp", "3g2", "3ge", "3gg", "3gs", "3gh", "3gr",
		"avc1", "dash", "MSNV", "mmp4", "mp71", "XAVC", "hvc1", "av01", "cmf", "ndx", "NDX", "niko", "pana", "kddi", "KDDI", "f4v", "caqv", "CAEP", "dby1", "piff",
	}
)

// sniffBrands tells pictures from video in the ISO base media format, which
// both are kept in. Browsers look for the brands of pictures among all of a
// file's and do not mind the major one, so that is asked last.
func sniffBrands(media []byte) (string, error) {
	if len(media) < 12 {
		return "", fmt.Errorf("%w: the file ends in its first box", ErrUndecodable)
	}
	size := int64(binary.BigEndian.Uint32(media))
	if size < 16 { // to the end of the file, or of 64 bits
		size = int64(len(media))
	}
	size = min(size, int64(len(media)), 4096)
	major := string(media[8:12])
	brands := []string{major}
	for at := int64(16); at+4 <= size; at += 4 {
		brands = append(brands, string(media[at:at+4]))
	}
	has := func(some []string) bool {
		return slices.ContainsFunc(brands, func(b string) bool { return slices.Contains(some, b) })
	}
	switch {
	case slices.Contains(avifBrands, major):
		return "avif", nil
	case slices.Contains(heicBrands, major):
		return "heic", nil
	case has(avifBrands):
		return "avif", nil
	case has(heicBrands):
		return "heic", nil
	case !has(pictureBrands) && slices.ContainsFunc(videoBrands, func(b string) bool { return strings.HasPrefix(major, b) }):
		return "", &videoError{"mp4", fmt.Sprintf("an ISO media file of the brand %.4q", major)}
	}
	return "", fmt.Errorf("%w: an ISO media file of the unknown brand %.4q", ErrUndecodable, major)
}
