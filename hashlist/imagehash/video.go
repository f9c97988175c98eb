package imagehash

import (
	"context"
	"errors"
	"fmt"
	"image"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Videos are decoded by ffmpeg, which is not part of this program: there is no
// decoder of H.264 and its kind in Go, nor one compiled to WebAssembly that keeps
// up. It runs as a child that is confined before ffmpeg is begun (see
// confineVideo): no network, no files but for reading, no other processes, capped
// memory and time. The file is given to it in memory that has no name on any disk (memfd), for MP4 is not
// read front to back; what it answers is frames of one size, of which this
// process reads no more than it wants and trusts nothing.
//
// A few frames of each second are hashed, by PDQ alone, as Meta's vPDQ does it
// (facebook/ThreatExchange, vpdq), but scaled to videoSide: PDQ reduces a
// picture to 64x64 anyway. vPDQ takes one frame a second; where a picture moves, half a second is
// enough for PDQ to miss it, so that a film cut at another place than a whole second was not found. A frame
// also comes after 75 others, however little time they claim to take: the
// times in a file are its author's. Sound is not looked at, nor are subtitles, cover pictures and
// second pictures.

// Bounds of a video.
const (
	videoSide      = 512 // pixels, both ways
	videoFrameSize = videoSide * videoSide * 3
	// maxVideoFrames are kept: four a second of the first minute. Of a longer video every second one is, then
	// every fourth, and so on, so that its end is looked at as well as its beginning.
	maxVideoFrames = 256
	videoPause     = "0.249" // seconds between frames
	videoEvery     = 75      // or so many frames
)

// videoCodecs are those that browsers play, and those that old videos have. ffmpeg
// knows hundreds more, most of which nobody has looked at for years.
const videoCodecs = "h264,hevc,vp8,vp9,av1,libdav1d,libaom-av1,mpeg4,mpeg1video,mpeg2video,theora,h263,flv,msmpeg4v2,msmpeg4,wmv1,wmv2,wmv3,vc1,mjpeg"

// Videos returns why videos are not examined, and what to do about it, or nil if they are.
func (h *Hasher) Videos() error { return h.blind }

// findFFmpeg returns the path of ffmpeg by its name or path.
func findFFmpeg(name string) (string, error) {
	if name == "" {
		return "", errors.New("ffmpeg is switched off, so videos are recognised but not examined")
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("there is no %s here, so videos are recognised but not examined: install it (Debian: apt-get install ffmpeg)", name)
	}
	if !canConfineVideo {
		return "", errors.New("ffmpeg is not run on this kind of machine, where it cannot be confined, so videos are recognised but not examined")
	}
	return path, nil
}

// videoDemuxers are ffmpeg's names for the containers that are looked into, by Media.Format.
// Naming one keeps ffmpeg from taking a file for a playlist, which names other files.
var videoDemuxers = map[string]string{
	"mp4": "mov", "webm": "matroska", "ogg": "ogg", "flv": "flv", "mpeg": "mpeg", "mpegvideo": "mpegvideo",
	"asf": "asf", "avi": "avi", "mpegts": "mpegts",
}

// videoArgs are ffmpeg's.
func videoArgs(demuxer string, maxPixels int64) []string {
	const sample = "isnan(prev_selected_t)+gte(abs(t-prev_selected_t)\\,%s)+gte(n-prev_selected_n\\,%d)"
	return []string{
		"ffmpeg", "-hide_banner", "-nostdin", "-v", "error", "-threads", "2", "-filter_threads", "1",
		"-protocol_whitelist", "file", "-codec_whitelist", videoCodecs, "-max_pixels", strconv.FormatInt(maxPixels, 10),
		"-f", demuxer, "-i", "file:/proc/self/fd/" + strconv.Itoa(videoFD),
		"-map", "0:V:0", "-an", "-sn", "-dn",
		"-vf", "select='" + fmt.Sprintf(sample, videoPause, videoEvery) + fmt.Sprintf("',scale=%d:%d:flags=area,format=rgb24", videoSide, videoSide),
		"-vsync", "passthrough", "-f", "rawvideo", "pipe:1",
	}
}

// video hashes a video. If it could not be looked at whole, the error wraps ErrVideo, and the media
// has the frames that were.
func (h *Hasher) video(ctx context.Context, format string, media []byte) (m Media, err error) {
	m = Media{Video: true, Format: format}
	m.MD5, m.SHA1, m.SHA256 = Digests(media)
	if h.blind != nil {
		return m, fmt.Errorf("%w: %w", ErrVideo, h.blind)
	}
	demuxer, ok := videoDemuxers[format]
	if !ok {
		return m, fmt.Errorf("%w: %s, of which nothing is examined", ErrVideo, format)
	}
	// Few may wait: each keeps a file in memory and a place among the uploads, which pictures need as well.
	select {
	case h.waiting <- struct{}{}:
		defer func() { <-h.waiting }()
	default:
		return m, fmt.Errorf("%w: more videos come at once than can be looked at", ErrVideo)
	}
	select {
	case h.videos <- struct{}{}:
	case <-ctx.Done():
		return m, fmt.Errorf("wait for other videos: %w", ctx.Err())
	case <-h.done:
		return m, fmt.Errorf("%w: %w", ErrTrouble, errClosed)
	}
	defer func() { <-h.videos }()

	file, err := memoryFile(media)
	if err != nil {
		return m, fmt.Errorf("%w: keep a video in memory: %w", ErrTrouble, err)
	}
	defer file.Close()
	cmd, err := h.videoChild(file, demuxer)
	if err != nil {
		return m, fmt.Errorf("%w: %w", ErrTrouble, err)
	}
	frames, err := cmd.StdoutPipe()
	if err != nil {
		return m, fmt.Errorf("%w: %w", ErrTrouble, err)
	}
	said := new(tail)
	cmd.Stderr = said
	if err := h.onStarter(cmd.Start); err != nil {
		return m, fmt.Errorf("%w: start ffmpeg: %w", ErrTrouble, err)
	}
	within, cancel := context.WithTimeout(ctx, h.limits.VideoTimeout)
	defer cancel()
	stop := context.AfterFunc(within, func() { _ = cmd.Process.Kill() })
	start := time.Now()
	err = m.readVideo(frames)
	whole := stop() // before Wait, after which the process's number may be another's
	if err != nil {
		_ = cmd.Process.Kill()
	}
	ended := cmd.Wait()
	m.DecodeTime = max(0, time.Since(start)-m.HashTime)
	switch {
	case err != nil:
		return m, fmt.Errorf("%w: %w", ErrVideo, err)
	case !whole && ctx.Err() != nil:
		return m, fmt.Errorf("hash video: %w", ctx.Err())
	case !whole:
		m.Truncated = true
		return m, fmt.Errorf("%w: %s was not done after %v, %d frames were examined", ErrVideo, format, h.limits.VideoTimeout, len(m.Frames))
	case len(m.Frames) == 0:
		return m, fmt.Errorf("%w: %s of which no frame can be shown: %s", ErrVideo, format, said.brief())
	case ended != nil:
		m.Truncated = true
		return m, fmt.Errorf("%w: %s was broken off after %d frames: %s", ErrVideo, format, len(m.Frames), said.brief())
	}
	return m, nil
}

// readVideo hashes the frames that come in from r.
func (m *Media) readVideo(r io.Reader) error {
	frame := image.NewRGBA(image.Rect(0, 0, videoSide, videoSide))
	raw := make([]byte, videoFrameSize)
	every := 1
	m.Width, m.Height = videoSide, videoSide
	for n := 0; ; n++ {
		if _, err := io.ReadFull(r, raw); err == io.EOF || err == io.ErrUnexpectedEOF || errors.Is(err, os.ErrClosed) {
			return nil // it ended, or was ended
		} else if err != nil {
			return err
		}
		if n%every != 0 {
			continue
		}
		begun := time.Now()
		for i, o := 0, 0; i < len(raw); i, o = i+3, o+4 {
			p := frame.Pix[o : o+4 : o+4]
			p[0], p[1], p[2], p[3] = raw[i], raw[i+1], raw[i+2], 0xff
		}
		f := Frame{Index: n}
		f.PDQ, f.Quality = hashPDQ(frame)
		m.Frames = append(m.Frames, f)
		if len(m.Frames) == maxVideoFrames {
			for i := range maxVideoFrames / 2 {
				m.Frames[i] = m.Frames[2*i]
			}
			m.Frames = m.Frames[:maxVideoFrames/2]
			every *= 2
		}
		m.HashTime += time.Since(begun)
	}
}

// brief is what ffmpeg said first, made harmless: it quotes the file.
func (t *tail) brief() string {
	text := strings.TrimPrefix(t.text(), "Warning: using insecure memory!\n") // a library's, which may lock none
	line, _, _ := strings.Cut(text, "\n")
	return strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '?'
		}
		return c
	}, line[:min(len(line), maxMessage)])
}

// onStarter runs f on the thread that lives as long as children may.
func (h *Hasher) onStarter(f func() error) error {
	answer := make(chan error, 1)
	select {
	case h.runs <- func() { answer <- f() }:
		return <-answer
	case <-h.done:
		return errClosed
	}
}

// videoChild is ffmpeg as a child that confines itself first.
func (h *Hasher) videoChild(file *os.File, demuxer string) (*exec.Cmd, error) {
	attributes, err := childAttributes()
	if err != nil {
		return nil, err
	}
	path, err := selfPath()
	if err != nil {
		return nil, err
	}
	return &exec.Cmd{
		Path: path,
		Args: append([]string{videoName, h.ffmpeg}, videoArgs(demuxer, h.limits.MaxPixels)...),
		Env: []string{
			workerEnv + "=1", workerMemoryEnv + "=" + strconv.FormatInt(h.limits.WorkerMemory, 10),
			videoTimeEnv + "=" + strconv.FormatInt(int64(h.limits.VideoTimeout/time.Second)+1, 10),
			"GOMAXPROCS=1", "GOTRACEBACK=none",
		},
		Dir:         "/",
		ExtraFiles:  []*os.File{file},
		SysProcAttr: attributes,
	}, nil
}

const (
	videoName    = "tocsin-video-worker"
	videoTimeEnv = "TOCSIN_DECODE_WORKER_SECONDS"
	videoFD      = 3
)

// videoMain confines this process and becomes ffmpeg. It does not return.
func videoMain() {
	memory, err := strconv.ParseInt(os.Getenv(workerMemoryEnv), 10, 64)
	seconds, not := strconv.ParseUint(os.Getenv(videoTimeEnv), 10, 32)
	if err != nil || not != nil || len(os.Args) < 3 {
		os.Exit(3)
	}
	if err := confineVideo(memory, seconds); err != nil {
		fmt.Fprintln(os.Stderr, "cannot be confined:", err)
		os.Exit(3)
	}
	err = execProgram(os.Args[1], os.Args[2:])
	fmt.Fprintln(os.Stderr, "cannot be begun:", err)
	os.Exit(3)
}
