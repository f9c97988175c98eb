package imagehash

import (
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/gen2brain/avif"
	"github.com/gen2brain/heic"
	"github.com/gen2brain/jpegxl"
)

// How a child knows what it is. Both must be there, so that neither a stray
// variable nor a strange name of the program makes one.
const (
	workerName      = "tocsin-decode-worker"
	workerEnv       = "TOCSIN_DECODE_WORKER"
	workerMemoryEnv = "TOCSIN_DECODE_WORKER_MEMORY"
	workerTurboEnv  = "TOCSIN_DECODE_WORKER_TURBO"
	replyFD         = 3
)

// startTime bounds what is not decoding: starting, and compiling a decoder.
const startTime = 60 * time.Second

// WorkerMain turns this process into a decode worker if it was started as one,
// and does not return then. A program that uses a Hasher calls it first thing
// in main, and tests in TestMain.
func WorkerMain() {
	if os.Getenv(workerEnv) != "1" || len(os.Args) == 0 {
		return
	}
	if os.Args[0] == videoName {
		videoMain()
	}
	if len(os.Args) != 1 || os.Args[0] != workerName {
		return
	}
	memory, err := strconv.ParseInt(os.Getenv(workerMemoryEnv), 10, 64)
	if err != nil {
		os.Exit(3)
	}
	// Libraries compiled to WebAssembly print to these.
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		os.Exit(3)
	}
	os.Stdout, os.Stderr = null, null
	out := os.NewFile(replyFD, "reply")
	if os.Getenv(workerTurboEnv) == "true" {
		openTurbo() // while files can still be opened
	}
	// Collect before the cap is reached: reaching it is fatal.
	debug.SetMemoryLimit(memory * 5 / 8)
	if err := confine(memory); err != nil {
		_ = writeMessage(out, sayFailure, []byte("c"+err.Error()))
		os.Exit(3)
	}
	if err := work(os.Stdin, out); err != nil {
		os.Exit(4)
	}
	os.Exit(0)
}

// work serves requests until the parent closes the pipe or is gone.
func work(in io.Reader, out io.Writer) error {
	if err := writeMessage(out, sayHello, nil); err != nil {
		return err
	}
	head := make([]byte, requestSize)
	for {
		if _, err := io.ReadFull(in, head); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		r, err := parseRequest(head)
		if err != nil {
			return err
		}
		media := make([]byte, r.size)
		if _, err := io.ReadFull(in, media); err != nil {
			return err
		}
		prepare(r.format)
		// The parent kills a child that takes too long. If the parent is gone, nobody does.
		watchdog := time.AfterFunc(r.timeout+startTime, func() { os.Exit(5) })
		if err := writeMessage(out, sayBegun, nil); err != nil {
			return err
		}
		m, err := examine(r, media)
		watchdog.Stop()
		kind, body := byte(sayResult), []byte(nil)
		var after runtime.MemStats
		runtime.ReadMemStats(&after)
		if err != nil {
			kind, body = sayFailure, encodeFailure(err)
		} else {
			m.DecodeTime, m.HashTime = min(m.DecodeTime, r.timeout), min(m.HashTime, r.timeout)
			body = encodeResult(&m)
		}
		if err := writeMessage(out, kind, body); err != nil {
			return err
		}
		// Give a large picture's memory back before the next one.
		if media = nil; after.HeapSys-after.HeapReleased > 64<<20 {
			debug.FreeOSMemory()
		}
	}
}

// prepare compiles the decoder of a format, once in the life of a child. It
// takes up to three seconds that are not the file's fault, so it comes before
// the file's time begins.
func prepare(format int) {
	switch formats[format] {
	case "avif":
		avif.InitDecoder()
	case "heic":
		heic.Init()
	case "jxl":
		jpegxl.InitDecoder()
	}
}
