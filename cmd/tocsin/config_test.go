package main

import (
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/hashlist/imagehash"
)

// TestEveryKeyIsDocumented holds default.toml and the struct to each other: what
// is in one is in the other, and each key has a comment before it or shares that
// of the key before it.
func TestEveryKeyIsDocumented(t *testing.T) {
	var keys []string
	defaults().each(func(key string, _ reflect.Value) { keys = append(keys, key) })
	var tree map[string]any
	if err := toml.Unmarshal(documented, &tree); err != nil {
		t.Fatal(err)
	}
	var documentedKeys []string
	var walk func(prefix string, v map[string]any)
	walk = func(prefix string, v map[string]any) {
		for name, x := range v {
			if sub, ok := x.(map[string]any); ok {
				walk(prefix+name+".", sub)
			} else {
				documentedKeys = append(documentedKeys, prefix+name)
			}
		}
	}
	walk("", tree)
	slices.Sort(keys)
	slices.Sort(documentedKeys)
	if !slices.Equal(keys, documentedKeys) {
		t.Errorf("keys are\n%s\ndefault.toml has\n%s", strings.Join(keys, "\n"), strings.Join(documentedKeys, "\n"))
	}
	explained := false
	for line := range strings.Lines(string(documented)) {
		switch {
		case strings.HasPrefix(line, "#"):
			explained = true
		case strings.TrimSpace(line) == "":
			explained = false
		case !strings.HasPrefix(line, "[") && !explained:
			t.Errorf("default.toml does not explain %s", line)
		}
	}
}

// TestDefaultsAreThoseOfThePackages shows that default.toml does not quietly
// differ from what the packages document as their defaults.
func TestDefaultsAreThoseOfThePackages(t *testing.T) {
	c := defaults()
	policy := hashlist.DefaultPolicy()
	policy.Own = c.Node.Origin
	if got := c.policy(); !reflect.DeepEqual(got, policy) {
		t.Errorf("policy %+v, want %+v", got, policy)
	}
	limits, want := c.mediaLimits(), imagehash.DefaultLimits()
	limits.Workers = want.Workers // 0 stands for the number of processors
	if limits != want {
		t.Errorf("limits %+v, want %+v", limits, want)
	}
	if err := c.check(t.TempDir()[:4]); err != nil {
		t.Errorf("the defaults are refused: %v", err)
	}
}

// TestStarterIsTheDefaults reads the file that init writes, as it is and with
// every key taken out of its comment.
func TestStarterIsTheDefaults(t *testing.T) {
	want := defaults()
	want.Node.Origin, want.Node.Issuer = "https://hashes.example", "alice"
	text := starter(map[string]string{"node.origin": "https://hashes.example", "node.issuer": "alice"})
	c := defaults()
	if err := decodeTOML("config.toml", text, c); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got %+v, want %+v", c, want)
	}
	commented := 0
	var b strings.Builder
	for line := range strings.Lines(string(text)) {
		if key, ok := strings.CutPrefix(line, "#"); ok && !strings.HasPrefix(key, " ") && strings.Contains(key, " = ") {
			line = key
			commented++
		}
		b.WriteString(line)
	}
	all := new(config)
	if err := decodeTOML("config.toml", []byte(b.String()), all); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(all, want) {
		t.Errorf("got %+v, want %+v", all, want)
	}
	keys := 0
	all.each(func(string, reflect.Value) { keys++ })
	if commented != keys-2 {
		t.Errorf("%d keys are commented out, want all %d but two", commented, keys)
	}
}

// TestSetReadsWhatPrintWrites gives every key back the text of its own value.
func TestSetReadsWhatPrintWrites(t *testing.T) {
	c := new(config)
	defaults().each(func(key string, v reflect.Value) {
		if err := c.set(key, spelled(v)); err != nil {
			t.Error(err)
		}
	})
	if want := defaults(); !reflect.DeepEqual(c, want) {
		t.Errorf("got %+v, want %+v", c, want)
	}
}

// spelled is what text writes, without quotation marks.
func spelled(v reflect.Value) string {
	s := text(v)
	if plain, err := strconv.Unquote(s); err == nil {
		return plain
	}
	return s
}

func TestSize(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "7": 7, "7B": 7, "3KiB": 3072, "50MiB": 50 << 20, "2 GiB": 2 << 30} {
		var s size
		if err := s.UnmarshalText([]byte(text)); err != nil || s.bytes != want {
			t.Errorf("%q: %d, %v, want %d", text, s.bytes, err, want)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "-1MiB", "1.5GiB", "1MB", "9999999999GiB", "9223372036854775808", "0x10"} {
		var s size
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is %d, want an error", text, s.bytes)
		}
	}
}

func TestParseExpiry(t *testing.T) {
	now := time.Date(2026, 11, 22, 10, 0, 0, 5, time.UTC)
	for text, want := range map[string]string{
		"30d": "2026-12-22T10:00:00Z", "12h": "2026-11-22T22:00:00Z", "2030-12-31": "2030-12-31T00:00:00Z",
		"2030-12-31T18:00:00+02:00": "2030-12-31T16:00:00Z",
	} {
		got, err := parseExpiry(text, now)
		if err != nil || *stamp(got) != want {
			t.Errorf("%q: %v, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"0d", "-3h", "d", "yesterday", "2001-01-01", "99999999d", "30"} {
		if got, err := parseExpiry(text, now); err == nil {
			t.Errorf("%q is %v, want an error", text, got)
		}
	}
}

// TestConfigTellsTheLine finds keys in every spelling that a file may give them.
func TestConfigTellsTheLine(t *testing.T) {
	file := []byte("# media.workers = 1\nnode.origin = \"x\"\n[media]\nworkers = 1\n\n[policy]\n'min_quality' = 3\n" +
		"ceiling = { pdq = \"hold\" }\n[hook.pictrs]\n\nhold = \"\"\n")
	for key, want := range map[string]int{
		"node.origin": 2, "node.issuer": 0, "media.workers": 4, "policy.min_quality": 7,
		"policy.ceiling.pdq": 8, "hook.pictrs.hold": 11, "log.level": 0,
	} {
		if got := lineOf(file, key); got != want {
			t.Errorf("%s is found on line %d, want %d", key, got, want)
		}
	}
}

// TestConfigEveryNumberIsBounded keeps a new number from going unchecked.
func TestConfigEveryNumberIsBounded(t *testing.T) {
	bounded := map[string]bool{}
	for _, b := range bounds {
		bounded[b.key] = true
	}
	defaults().each(func(key string, v reflect.Value) {
		switch v.Interface().(type) {
		case int, int64, float64, size, duration:
			if !bounded[key] {
				t.Errorf("%s has no bounds", key)
			}
			delete(bounded, key)
		}
	})
	for key := range bounded {
		t.Errorf("%s is no number of the configuration", key)
	}
	c := defaults()
	c.Limits.LookupsPerSecond = math.NaN()
	if err := c.checkBounds(); err == nil {
		t.Error("NaN lookups a second are accepted")
	}
}

func TestConfigEnvironment(t *testing.T) {
	var every []string
	defaults().each(func(key string, _ reflect.Value) { every = append(every, variable(key)+"=x") })
	for _, good := range append(every, "TOCSIN_DATA=x", "TOCSIN_TOKEN=x", "TOCSIN_SERVER=x", "TOCSIN_TESTDATA=x", "TOCSIN_DECODE_WORKER=1",
		"TOCSIN_DECODE_WORKER_MEMORY=1", "TOCSIN_log__level=x", "TOCSINX=1", "HOME=/", "TOCSIN_SERVICE_HOST=10.0.0.1", "TOCSIN_HOOK_SERVICE_PORT_GRPC=7481",
		"TOCSIN_PORT=tcp://10.0.0.1:7480", "TOCSIN_PORT_7480_TCP=tcp://10.0.0.1:7480", "TOCSIN_PORT_7480_TCP_PROTO=tcp") {
		if err := checkEnviron([]string{good}); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for entry, want := range map[string]string{
		"TOCSIN_HOOK_PICTRS_HOLD=reject": "did you mean TOCSIN_HOOK__PICTRS__HOLD?",
		"TOCSIN_GRPC__ADRESS=x":          "did you mean TOCSIN_GRPC__ADDRESS?",
		"TOCSIN_DATE=x":                  "did you mean TOCSIN_DATA?",
		"TOCSIN_PORT=7480":               "sets nothing",
		"TOCSIN_=":                       "sets nothing",
		"TOCSIN_SOMETHING__ELSE=x":       "two underscores",
	} {
		if err := checkEnviron([]string{"HOME=/", entry}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q in it", entry, err, want)
		}
	}
}

// FuzzConfig feeds the configuration file and the setting of keys: neither may
// panic, and of a file that is accepted, set takes every value as print writes it.
func FuzzConfig(f *testing.F) {
	f.Add(documented, "log.level", "debug")
	f.Add([]byte("[media]\nmax_bytes = \"1GiB\"\n"), "media.timeout", "-1s")
	f.Add([]byte("[policy]\nreject = 2\n"), "policy.ceiling", "reject")
	f.Fuzz(func(t *testing.T, file []byte, key, value string) {
		c := defaults()
		_ = c.set(key, value)
		if len(file) > maxConfig || decodeTOML("config.toml", file, c) != nil {
			return
		}
		again := new(config)
		defaults().each(func(key string, _ reflect.Value) {
			if line := lineOf(file, key); line < 0 || line > 1+strings.Count(string(file), "\n") {
				t.Errorf("%s is on line %d of %q", key, line, file)
			}
		})
		c.each(func(key string, v reflect.Value) {
			value := spelled(v)
			if err := again.set(key, value); err != nil {
				t.Errorf("printed and set: %v", err)
			}
		})
		again.each(func(key string, v reflect.Value) {
			c.each(func(k string, w reflect.Value) {
				if k == key && spelled(v) != spelled(w) {
					t.Errorf("%s is %s, and printed and set %s", key, spelled(w), spelled(v))
				}
			})
		})
	})
}
