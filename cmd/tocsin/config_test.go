package main

import (
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
	if got, want := c.policy(), hashlist.DefaultPolicy(); got != want {
		t.Errorf("policy %+v, want %+v", got, want)
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
	if *c != *want {
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
	if *all != *want {
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
	if want := defaults(); *c != *want {
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
