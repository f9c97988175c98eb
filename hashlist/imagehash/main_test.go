package imagehash

import (
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	probe()
	WorkerMain()
	code := m.Run()
	sharedHasher().Close()
	videoHasher().Close()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// sharedHasher has one child, which keeps its decoders from test to test: under
// the race detector they take half a minute to compile.
var sharedHasher = sync.OnceValue(func() *Hasher {
	l := DefaultLimits()
	l.Workers, l.Timeout = 1, 4*time.Second
	return must(NewHasher(l))
})
