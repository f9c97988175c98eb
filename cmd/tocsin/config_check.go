package main

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/tocsin-fed/tocsin/hashlist/imagehash"
)

// sources remembers where values of a configuration came from.
type sources struct {
	path   string
	text   []byte            // of the file at path
	others map[string]string // by key, what came over the file
}

// of tells where a key has its value from, with a colon behind it; "" for a default.
func (s *sources) of(key string) string {
	if s == nil {
		return ""
	}
	if other, ok := s.others[key]; ok {
		return other + ": "
	}
	if line := lineOf(s.text, key); line > 0 {
		return fmt.Sprintf("%s:%d: ", s.path, line)
	}
	return ""
}

// lineOf finds the line on which a file, which was decoded already, sets key;
// 0 if it does not.
func lineOf(text []byte, key string) (line int) {
	var p unstable.Parser
	p.Reset(text)
	section := ""
	for p.NextExpression() {
		e := p.Expression()
		var name strings.Builder
		var first unstable.Range
		for it := e.Key(); it.Next(); {
			if name.Len() == 0 {
				first = it.Node().Raw
			} else {
				name.WriteByte('.')
			}
			name.Write(it.Node().Data)
		}
		if e.Kind != unstable.KeyValue {
			section = name.String() + "."
		} else if full := section + name.String(); full == key || strings.HasPrefix(key, full+".") { // the latter is an inline table
			line = p.Shape(first).Start.Line
		}
	}
	return line
}

// wrong says what is wrong with the value of a key, and where it stands.
func (c *config) wrong(key string, err error) error {
	return fmt.Errorf("%s%s: %w", c.from.of(key), key, err)
}

// bounds are those of the values that are numbers, beyond what zero may stand
// for. Below the lower ones nothing works: a file of fewer bytes is no picture,
// and a daemon with less memory collects garbage without end. Packages take
// zero for their default; in a file it would be a riddle, so it is only allowed
// where default.toml says what it stands for.
var bounds = []struct {
	key       string
	least     float64
	most      float64
	zero      bool // 0 is allowed as well
	unit      string
	unitScale float64
}{
	{key: "media.max_bytes", least: 1 << 10, most: 1 << 30, unit: "bytes (1KiB to 1GiB)"},
	{key: "media.max_pixels", least: 1 << 10, most: 1 << 31},
	{key: "media.max_frames", least: 1, most: 64},
	{key: "media.timeout", least: float64(10 * time.Millisecond), most: float64(time.Hour), unit: "seconds", unitScale: 1e9},
	{key: "media.workers", least: 1, most: 1024, zero: true},
	{key: "media.worker_memory", least: 256 << 20, most: 1 << 40, unit: "bytes (256MiB to 1024GiB)"},
	{key: "limits.lookups_per_second", least: 0, most: 1e9},
	{key: "limits.burst", least: 0, most: 1e9},
	{key: "limits.message_bytes", least: 2 << 20, most: 256 << 20, unit: "bytes (2MiB to 256MiB)"},
	{key: "limits.deadline", least: float64(10 * time.Millisecond), most: float64(24 * time.Hour), unit: "seconds", unitScale: 1e9},
	{key: "limits.idle", least: float64(10 * time.Millisecond), most: float64(24 * time.Hour), unit: "seconds", unitScale: 1e9},
	{key: "limits.uploads", least: 0, most: 1e6},
	{key: "limits.cached", least: 0, most: 1e9},
	{key: "limits.memory", least: 64 << 20, most: 1 << 50, zero: true, unit: "bytes (64MiB or more, or 0)"},
	{key: "window.days", least: 0, most: 366},
	{key: "window.entries", least: 1, most: 1e8},
	{key: "flood.uploads", least: 0, most: 1e9},
	{key: "flood.share", least: 0, most: 1},
	{key: "breaker.issuer", least: 0, most: 1e9},
	{key: "breaker.total", least: 0, most: 1e9},
	{key: "breaker.stay", least: float64(time.Minute), most: float64(30 * 24 * time.Hour), unit: "seconds", unitScale: 1e9},
	{key: "policy.min_quality", least: 0, most: 100},
	{key: "revisit.every", least: float64(time.Minute), most: float64(365 * 24 * time.Hour), zero: true, unit: "seconds", unitScale: 1e9},
	{key: "revisit.per_host", least: 0, most: float64(time.Hour), unit: "seconds", unitScale: 1e9},
	{key: "revisit.max", least: 1, most: 1e6},
	{key: "revisit.radius", least: 0, most: 128},
	{key: "policy.video_share", least: 1, most: 100},
	{key: "policy.video_frames", least: 1, most: 1000},
	{key: "media.video_timeout", least: float64(10 * time.Millisecond), most: float64(time.Hour), unit: "seconds", unitScale: 1e9},
	{key: "opinion.arachnid.timeout", least: float64(10 * time.Millisecond), most: float64(time.Hour), unit: "seconds", unitScale: 1e9},
	{key: "opinion.photodna.timeout", least: float64(10 * time.Millisecond), most: float64(time.Hour), unit: "seconds", unitScale: 1e9},
	{key: "review.keep", least: float64(time.Minute), most: float64(100 * 365 * 24 * time.Hour), zero: true, unit: "minutes", unitScale: 60e9},
	{key: "review.deadline.held", least: float64(time.Minute), most: float64(100 * 365 * 24 * time.Hour), zero: true, unit: "minutes", unitScale: 60e9},
	{key: "review.deadline.hit", least: float64(time.Minute), most: float64(100 * 365 * 24 * time.Hour), zero: true, unit: "minutes", unitScale: 60e9},
	{key: "review.deadline.dispute", least: float64(time.Minute), most: float64(100 * 365 * 24 * time.Hour), zero: true, unit: "minutes", unitScale: 60e9},
	{key: "review.deadline.quarantine", least: float64(time.Minute), most: float64(100 * 365 * 24 * time.Hour), zero: true, unit: "minutes", unitScale: 60e9},
	{key: "review.deadline.key", least: float64(time.Minute), most: float64(100 * 365 * 24 * time.Hour), zero: true, unit: "minutes", unitScale: 60e9},
	{key: "review.deadline.source", least: float64(time.Minute), most: float64(100 * 365 * 24 * time.Hour), zero: true, unit: "minutes", unitScale: 60e9},
	{key: "review.deadline.act", least: float64(time.Minute), most: float64(100 * 365 * 24 * time.Hour), zero: true, unit: "minutes", unitScale: 60e9},
	{key: "review.deadline.preserve", least: float64(time.Minute), most: float64(100 * 365 * 24 * time.Hour), zero: true, unit: "minutes", unitScale: 60e9},
	{key: "review.deadline.appeal", least: float64(time.Minute), most: float64(100 * 365 * 24 * time.Hour), zero: true, unit: "minutes", unitScale: 60e9},
	{key: "review.deadline.proposal", least: float64(time.Minute), most: float64(100 * 365 * 24 * time.Hour), zero: true, unit: "minutes", unitScale: 60e9},
	{key: "policy.default.flag.belief", least: 1, most: 120},
	{key: "policy.default.flag.issuers", least: 1, most: 100},
	{key: "policy.default.flag.pdq", least: 0, most: 63},
	{key: "policy.default.flag.phash", least: 0, most: 16},
	{key: "policy.default.flag.dhash", least: 0, most: 16},
	{key: "policy.default.flag.vpdq", least: 0, most: 63},
	{key: "policy.default.hold.belief", least: 1, most: 120},
	{key: "policy.default.hold.issuers", least: 1, most: 100},
	{key: "policy.default.hold.pdq", least: 0, most: 63},
	{key: "policy.default.hold.phash", least: 0, most: 16},
	{key: "policy.default.hold.dhash", least: 0, most: 16},
	{key: "policy.default.hold.vpdq", least: 0, most: 63},
	{key: "policy.default.reject.belief", least: 1, most: 120},
	{key: "policy.default.reject.issuers", least: 1, most: 100},
	{key: "policy.default.reject.pdq", least: 0, most: 63},
	{key: "policy.default.reject.phash", least: 0, most: 16},
	{key: "policy.default.reject.dhash", least: 0, most: 16},
	{key: "policy.default.reject.vpdq", least: 0, most: 63},
}

// checkBounds reports every number that is out of its range.
func (c *config) checkBounds() error {
	numbers := map[string]float64{}
	c.each(func(key string, v reflect.Value) {
		switch x := v.Interface().(type) {
		case size:
			numbers[key] = float64(x.bytes)
		case duration:
			numbers[key] = float64(x.time)
		case int:
			numbers[key] = float64(x)
		case int64:
			numbers[key] = float64(x)
		case float64:
			numbers[key] = x
		}
	})
	var errs []error
	for _, b := range bounds {
		v := numbers[b.key]
		if v >= b.least && v <= b.most || b.zero && v == 0 { // no NaN is
			continue
		}
		scale := cmp.Or(b.unitScale, 1)
		zero := ""
		if b.zero {
			zero = ", nor 0"
		}
		errs = append(errs, c.wrong(b.key, fmt.Errorf("%s is not between %s and %s%s",
			strings.TrimSuffix(number(v/scale)+" "+b.unit, " "), number(b.least/scale), number(b.most/scale), zero)))
	}
	return errors.Join(errs...)
}

// number writes a whole number without an exponent.
func number(v float64) string {
	if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprint(v)
}

// maxSocketPath is what fits in a sockaddr_un, with its final zero.
const maxSocketPath = 107

// check reports the first thing with which serve would not start, without
// starting anything. It looks at the configuration and the files it names, not
// at keys, database and ports.
func (c *config) check(dir string) error {
	if err := errors.Join(c.checkNode(), c.checkBounds()); err != nil {
		return err
	}
	p := c.policy()
	if err := p.Validate(); err != nil {
		return err
	}
	if _, err := c.rules(dir); err != nil {
		return err
	}
	hasher, err := imagehash.NewHasher(c.mediaLimits())
	if err != nil {
		return fmt.Errorf("media: %w", err)
	}
	hasher.Close()
	if _, err := c.platforms(dir); err != nil {
		return err
	}
	if d, err := c.digest(dir); err != nil {
		return err
	} else if d != nil {
		if err := d.Validate(); err != nil {
			return fmt.Errorf("digest: %w", err)
		}
	}
	if _, err := c.webhook(dir); err != nil {
		return err
	}
	sc := c.server(dir)
	if n := len(sc.GRPC.Socket); n > maxSocketPath {
		return c.wrong("grpc.socket", fmt.Errorf("the path %s has %d bytes, a unix socket's may have %d: set a shorter one, such as /run/tocsin.sock", sc.GRPC.Socket, n, maxSocketPath))
	}
	for _, l := range []struct{ section, cert, key string }{
		{"grpc", sc.GRPC.CertFile, sc.GRPC.KeyFile},
		{"http", sc.HTTP.CertFile, sc.HTTP.KeyFile},
		{"federation", sc.Public.CertFile, sc.Public.KeyFile},
	} {
		if l.cert != "" || l.key != "" {
			if _, err := tls.LoadX509KeyPair(l.cert, l.key); err != nil {
				return fmt.Errorf("%s%s.cert_file and key_file: %w", c.from.of(l.section+".cert_file"), l.section, err)
			}
		}
	}
	if err := c.reach(dir, &sc); err != nil {
		return err
	}
	sc.Fetch.CloseIdleConnections()
	return sc.Validate()
}

// variable is the environment variable that sets a key.
func variable(key string) string {
	return "TOCSIN_" + strings.ToUpper(strings.ReplaceAll(key, ".", "__"))
}

// linked matches the variables that Kubernetes and Docker set in containers
// beside one whose service is called tocsin, or tocsin-something. Nobody wrote
// them, so nobody can have meant a key by them.
var linked = regexp.MustCompile(`^TOCSIN_([A-Z0-9_]+_)?(SERVICE_HOST=|SERVICE_PORT(_[A-Z0-9_]+)?=|PORT=(tcp|udp|sctp)://|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?=)`)

// checkEnviron reports variables, as os.Environ gives them, that look like
// settings but have no effect: a slip in a name would else go unseen.
func checkEnviron(environ []string) error {
	known := []string{"TOCSIN_DATA", "TOCSIN_TOKEN", "TOCSIN_SERVER", "TOCSIN_TESTDATA"}
	defaults().each(func(key string, _ reflect.Value) { known = append(known, variable(key)) })
	var errs []error
next:
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, "TOCSIN_") || strings.HasPrefix(name, "TOCSIN_DECODE_WORKER") || linked.MatchString(entry) {
			continue
		}
		nearest, best := "", 4 // farther is another word
		for _, k := range known {
			if k == name || strings.Contains(k, "__") && k == strings.ToUpper(name) {
				continue next
			}
			// Underscores do not count: they are what is easiest to get wrong.
			bare := func(s string) string { return strings.ReplaceAll(s, "_", "") }
			if d := edits(bare(strings.ToUpper(name)), bare(k)); d < best {
				nearest, best = k, d
			}
		}
		hint := "two underscores stand between section and key, as in TOCSIN_LOG__LEVEL; `tocsin config print --defaults` shows all keys"
		if nearest != "" {
			hint = "did you mean " + nearest + "? There are two underscores between section and key"
		}
		errs = append(errs, fmt.Errorf("environment variable %s sets nothing: %s", printable(name), hint))
	}
	return errors.Join(errs...)
}

// edits is the Levenshtein distance of a and b in bytes.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diagonal
			if a[i] != b[j] {
				d = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], d
		}
	}
	return row[len(b)]
}

// loadStrictly is loadConfig for commands that are about the configuration: what
// looks like a setting and is none is an error.
func loadStrictly(dir string, environ, set []string) (*config, error) {
	if err := checkEnviron(environ); err != nil {
		return nil, err
	}
	return loadConfig(dir, environ, set)
}
