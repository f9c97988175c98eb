package server

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// maxSocketPath is what fits in the kernel's sockaddr_un, with its final zero.
const maxSocketPath = 107

// socket is a unix socket that removes its file when it is closed, if the file
// is still its own.
type socket struct {
	net.Listener
	path string
	file os.FileInfo
}

// listenSocket listens on a unix socket that its owner alone may open. The
// socket is made in a directory that nobody else can enter and then moved to its
// place, so that there is no moment at which others could connect. (A umask
// would do the same, but it belongs to the whole process.) The move replaces a
// socket left behind by a process that was killed; one that still answers is
// left alone.
func listenSocket(path string) (_ net.Listener, err error) {
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("socket: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("socket %s: there is something else by that name: remove it or set grpc.socket", path)
	default:
		conn, err := net.DialTimeout("unix", path, 5*time.Second)
		if err == nil {
			conn.Close()
			return nil, fmt.Errorf("socket %s: another process answers on it: is the node running already?", path)
		}
		if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("socket %s: cannot tell whether it is in use: %w", path, err)
		}
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".t") // mode 0700
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	defer os.RemoveAll(dir)
	first := filepath.Join(dir, "s")
	if n := max(len(first), len(path)); n > maxSocketPath {
		return nil, fmt.Errorf("socket %s: its path is %d bytes too long for this system: use a shorter data directory, or set grpc.socket",
			path, n-maxSocketPath)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: first, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false) // it would look for the first path
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	if err := os.Chmod(first, 0o600); err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	info, err := os.Lstat(first)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := os.Rename(first, path); err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	return &socket{Listener: l, path: path, file: info}, nil
}

func (s *socket) Close() error {
	err := s.Listener.Close()
	if info, statErr := os.Lstat(s.path); statErr == nil && os.SameFile(info, s.file) {
		os.Remove(s.path)
	}
	return err
}
