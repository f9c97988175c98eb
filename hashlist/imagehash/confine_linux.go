package imagehash

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// confine takes from this process whatever a decoder does not need. Limits are
// required; the filter of system calls is required unless the kernel has none.
func confine(memory int64) error {
	used, err := addressSpace()
	if err != nil {
		return err
	}
	// The cap is relative: the runtime reserves about a gigabyte that it never
	// touches, and the race detector terabytes.
	limits := []struct {
		resource int
		max      uint64
	}{
		{unix.RLIMIT_CORE, 0},
		{unix.RLIMIT_FSIZE, 0},
		{unix.RLIMIT_NOFILE, 16},
		{unix.RLIMIT_AS, uint64(used + memory)},
	}
	for _, l := range limits {
		r := unix.Rlimit{Cur: l.max, Max: l.max}
		if err := unix.Setrlimit(l.resource, &r); err != nil {
			return fmt.Errorf("set resource limit %d to %d: %w", l.resource, l.max, err)
		}
	}
	// No other process of this user may trace it or read its memory.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("make worker undumpable: %w", err)
	}
	return installFilter(allowedCalls, false)
}

// addressSpace is what this process has mapped, in bytes.
func addressSpace() (int64, error) {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, fmt.Errorf("read own memory size (is /proc mounted?): %w", err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(b) + " 0")[0], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read own memory size: %w", err)
	}
	return pages * int64(os.Getpagesize()), nil
}

// allowedCalls is what the Go runtime and the C library need to compute,
// to allocate, to start threads and to use the open pipes. Everything else
// fails with EPERM: opening files, sockets, other processes.
var allowedCalls = append([]uint32{
	unix.SYS_READ, unix.SYS_WRITE, unix.SYS_CLOSE, unix.SYS_LSEEK, unix.SYS_FSTAT, unix.SYS_FCNTL,
	unix.SYS_MMAP, unix.SYS_MUNMAP, unix.SYS_MPROTECT, unix.SYS_MADVISE, unix.SYS_MREMAP, unix.SYS_BRK, unix.SYS_MINCORE,
	unix.SYS_FUTEX, unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY, unix.SYS_MEMBARRIER, unix.SYS_RSEQ,
	unix.SYS_SET_ROBUST_LIST, unix.SYS_SET_TID_ADDRESS, unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
	unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_CLOCK_GETTIME, unix.SYS_GETTIMEOFDAY,
	unix.SYS_GETPID, unix.SYS_GETTID, unix.SYS_GETRANDOM, unix.SYS_GETRUSAGE, unix.SYS_RESTART_SYSCALL,
	unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK,
	unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EVENTFD2, unix.SYS_PPOLL,
}, archCalls...)

// installFilter installs a seccomp filter on all threads, which lets the calls through. With reading,
// files may be opened to be read, and a kernel that has no filters is an error.
// (Landlock would cover files only, and in programs with C code each thread on its own.)
func installFilter(calls []uint32, reading bool) error {
	if auditArch == 0 {
		return nil
	}
	const (
		offNumber, offArch, offArg0 = 0, 4, 16 // of struct seccomp_data
		load                        = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal                       = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		offArg2                     = 32
		anyBit                      = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
		ret                         = unix.BPF_RET | unix.BPF_K
		deny                        = unix.SECCOMP_RET_ERRNO
	)
	prog := []unix.SockFilter{
		{Code: load, K: offArch},
		{Code: equal, K: auditArch, Jt: 1},
		{Code: ret, K: unix.SECCOMP_RET_KILL_PROCESS},
		{Code: load, K: offNumber},
		// The arguments of clone3 are out of a filter's sight. Without it, the C library uses clone.
		{Code: equal, K: unix.SYS_CLONE3, Jf: 1},
		{Code: ret, K: deny | uint32(unix.ENOSYS)},
		// New threads, but no new processes.
		{Code: equal, K: unix.SYS_CLONE, Jf: 4},
		{Code: load, K: offArg0},
		{Code: anyBit, K: unix.CLONE_THREAD, Jf: 1},
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
		{Code: ret, K: deny | uint32(unix.EPERM)},
		// Signals to its own threads (the runtime preempts with them), to nobody else.
		{Code: equal, K: unix.SYS_TGKILL, Jf: 4},
		{Code: load, K: offArg0},
		{Code: equal, K: uint32(os.Getpid()), Jf: 1},
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
		{Code: ret, K: deny | uint32(unix.EPERM)},
	}
	if reading {
		// The flags are the third argument of openat.
		prog = append(prog,
			unix.SockFilter{Code: equal, K: unix.SYS_OPENAT, Jf: 4},
			unix.SockFilter{Code: load, K: offArg2},
			unix.SockFilter{Code: anyBit, K: openFlags, Jf: 1},
			unix.SockFilter{Code: ret, K: deny | uint32(unix.EPERM)},
			unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ALLOW})
	}
	for _, call := range calls {
		prog = append(prog,
			unix.SockFilter{Code: equal, K: call, Jf: 1},
			unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ALLOW})
	}
	prog = append(prog, unix.SockFilter{Code: ret, K: deny | uint32(unix.EPERM)})

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid new privileges: %w", err)
	}
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&fprog)))
	if e == 0 || !reading && (errors.Is(e, unix.ENOSYS) || errors.Is(e, unix.EINVAL)) {
		return nil // installed, or a kernel without
	}
	return fmt.Errorf("install filter of system calls: %w", e)
}

// childAttributes makes a child die with the thread that starts it.
func childAttributes() (*syscall.SysProcAttr, error) {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}, nil
}

// selfPath is the file of this very program, even if another has taken its
// place since, as happens in an upgrade.
func selfPath() (string, error) {
	const self = "/proc/self/exe"
	if _, err := os.Stat(self); err == nil {
		return self, nil
	}
	return os.Executable()
}
