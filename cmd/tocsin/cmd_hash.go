package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/hashlist/imagehash"
)

func (a *app) hashCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "hash FILE...", Short: "Print the hashes of pictures", Args: cobra.MinimumNArgs(1),
		Long: `Print the hashes of pictures, here, without a node. FILE may be - for standard
input. For each algorithm there is a line; of an animation the first frame is
hashed unless --frames asks for more. Of a video a few frames of each second are, as vpdq;
that needs ffmpeg. Where a file is no picture, its digests
are printed all the same, and the exit status is 1.

With --json each line is an object with file, algorithm, hash (hexadecimal) and
quality. Quality is PDQ's, 0 to 100, and null for the other algorithms. --frames
adds frame, --dihedral adds transform. A file that cannot be read, or is no
picture, has an object with file and error.`,
		Example: "  tocsin hash --algorithm pdq *.jpg",
	}
	algorithms := cmd.Flags().StringSlice("algorithm", nil, "only these: pdq, vpdq, phash, dhash, md5, sha1, sha256")
	frames := cmd.Flags().Bool("frames", false, "hash a sample of the frames of an animation")
	dihedral := cmd.Flags().Bool("dihedral", false, "print the PDQ hashes of the turned and mirrored picture too")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		only, err := parseAlgorithms(*algorithms)
		if err != nil {
			return a.usage("%w", err)
		}
		if len(only) == 0 {
			only = hashlist.Algorithms[:]
		}
		return a.withHasher(func(h *imagehash.Hasher) error {
			var errs []error
			for _, name := range args {
				m, err := a.hashFile(cmd.Context(), h, name)
				if err != nil {
					errs = append(errs, err)
					if err := a.failed("file", name, err); err != nil {
						return errors.Join(append(errs, err)...)
					}
				}
				for _, row := range hashRows(name, &m, *frames, *dihedral) {
					if alg, _ := hashlist.ParseAlgorithm(row.Algorithm); !slices.Contains(only, alg) {
						continue
					}
					if err := a.hashRow(row); err != nil {
						return errors.Join(append(errs, err)...)
					}
				}
			}
			return errors.Join(errs...)
		})
	}
	return cmd
}

// hashRow is a line of hash.
type hashRow struct {
	File      string  `json:"file"`
	Algorithm string  `json:"algorithm"`
	Hash      string  `json:"hash"`
	Quality   *int    `json:"quality"`
	Frame     *int    `json:"frame,omitempty"`
	Transform *string `json:"transform,omitempty"`
}

func hashRows(file string, m *imagehash.Media, frames, dihedral bool) []hashRow {
	var rows []hashRow
	add := func(h hashlist.Hash, quality *int, frame *int, transform *string) {
		if !h.IsZero() {
			rows = append(rows, hashRow{file, h.Algorithm().String(), h.Hex(), quality, frame, transform})
		}
	}
	for i, f := range m.Frames {
		if m.Video { // its frames are one hash together
			if h := f.PDQ[0].OfVideo(); !h.IsZero() {
				rows = append(rows, hashRow{file, h.Algorithm().String(), h.Hex(), &f.Quality, &f.Index, nil})
			}
			continue
		}
		if i > 0 && !frames {
			break
		}
		var frame *int
		if frames {
			frame = &f.Index
		}
		for t, h := range f.PDQ {
			if dihedral {
				add(h, &f.Quality, frame, &imagehash.Transforms[t])
			} else if t == 0 {
				add(h, &f.Quality, frame, nil)
			}
		}
		add(f.PHash, nil, frame, nil)
		add(f.DHash, nil, frame, nil)
	}
	for _, h := range []hashlist.Hash{m.MD5, m.SHA1, m.SHA256} {
		add(h, nil, nil, nil)
	}
	return rows
}

func (a *app) hashRow(r hashRow) error {
	if a.json {
		return a.line(r)
	}
	fields := []string{r.Algorithm + ":" + r.Hash}
	if r.Quality != nil {
		fields = append(fields, "quality "+strconv.Itoa(*r.Quality))
	}
	if r.Frame != nil {
		fields = append(fields, "frame "+strconv.Itoa(*r.Frame))
	}
	if r.Transform != nil {
		fields = append(fields, *r.Transform)
	}
	_, err := fmt.Fprintln(a.out, strings.Join(append(fields, printable(r.File)), "  "))
	return err
}

// ownFileBytes and ownVideoTime are what a file of the operator's own may take: more than a stranger's.
const (
	ownFileBytes = 1 << 30
	ownVideoTime = 10 * time.Minute
)

// withHasher lends a Hasher for the operator's own files.
func (a *app) withHasher(use func(*imagehash.Hasher) error) error {
	limits := imagehash.DefaultLimits()
	limits.Workers = 1 // files are hashed one after the other
	limits.MaxBytes, limits.VideoTimeout = ownFileBytes, ownVideoTime
	h, err := imagehash.NewHasher(limits)
	if err != nil {
		return err
	}
	defer h.Close()
	return use(h)
}

// hashFile hashes a file, or standard input for "-". With an error about what
// is in the file, the media has its digests.
func (a *app) hashFile(ctx context.Context, h *imagehash.Hasher, name string) (imagehash.Media, error) {
	b, err := a.read(name, ownFileBytes)
	if err != nil {
		return imagehash.Media{}, err
	}
	m, err := h.Hash(ctx, b)
	if err != nil {
		m.Frames = nil
		m.MD5, m.SHA1, m.SHA256 = imagehash.Digests(b)
		return m, fmt.Errorf("%s: %w", printable(name), err)
	}
	return m, nil
}

// open opens a file, or standard input for "-".
func (a *app) open(name string) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(a.in), nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err == nil && info.IsDir() {
		f.Close()
		return nil, fmt.Errorf("%s is a directory", printable(name))
	}
	return f, nil
}

func (a *app) read(name string, limit int64) ([]byte, error) {
	f, err := a.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", printable(name), limit)
	}
	return b, nil
}
