package imagehash

import (
	"fmt"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

const canConfineVideo = auditArch != 0

// memoryFile is a file in memory that has no name, and that nobody can change any more.
func memoryFile(content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("video", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "video")
	if _, err := f.Write(content); err != nil {
		f.Close()
		return nil, err
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// videoCalls is what ffmpeg needs beyond a decode worker: to be begun, to find its
// libraries, and to look around. It may open files for reading; what it reads it can tell
// nobody but by the frames that it answers with.
var videoCalls = append([]uint32{
	unix.SYS_EXECVE, unix.SYS_READLINKAT, unix.SYS_FACCESSAT, unix.SYS_FACCESSAT2, unix.SYS_STATX, unix.SYS_PREAD64, unix.SYS_READV, unix.SYS_WRITEV,
	unix.SYS_GETCWD, unix.SYS_UNAME, unix.SYS_SYSINFO, unix.SYS_PRLIMIT64, unix.SYS_PRCTL, unix.SYS_PSELECT6,
	unix.SYS_GETUID, unix.SYS_GETEUID, unix.SYS_GETGID, unix.SYS_GETEGID, unix.SYS_GETPPID, unix.SYS_TIMES, unix.SYS_CLOCK_GETRES,
	unix.SYS_GETDENTS64, unix.SYS_STATFS, unix.SYS_GETPRIORITY,
}, videoArchCalls...)

// openFlags are those of open that change something: O_WRONLY and O_RDWR, and to make, empty or extend a file.
const openFlags = unix.O_WRONLY | unix.O_RDWR | unix.O_CREAT | unix.O_TRUNC | unix.O_APPEND | unix.O_TMPFILE&^unix.O_DIRECTORY

// confineVideo takes from this process, and from the program that it becomes, what decoding a
// video does not need. Unlike confine it leaves it able to read files and to begin a
// program, since it has yet to begin one.
func confineVideo(memory int64, seconds uint64) error {
	if !canConfineVideo {
		return fmt.Errorf("not on this kind of machine")
	}
	for _, l := range []struct {
		resource int
		max      uint64
	}{
		{unix.RLIMIT_CORE, 0},
		{unix.RLIMIT_FSIZE, 0},
		{unix.RLIMIT_NOFILE, 64},
		{unix.RLIMIT_CPU, 4 * seconds},           // of all its threads
		{unix.RLIMIT_AS, uint64(memory) + 1<<30}, // a gigabyte for this runtime, and for libraries that are mapped and not touched
	} {
		r := unix.Rlimit{Cur: l.max, Max: l.max}
		if err := unix.Setrlimit(l.resource, &r); err != nil {
			return fmt.Errorf("set resource limit %d to %d: %w", l.resource, l.max, err)
		}
	}
	return installFilter(slices.Concat(allowedCalls, videoCalls), true)
}

func execProgram(path string, args []string) error {
	return syscall.Exec(path, args, []string{"LC_ALL=C", "AV_LOG_FORCE_NOCOLOR=1"})
}
