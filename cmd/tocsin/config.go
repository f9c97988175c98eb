package main

import (
	"bytes"
	_ "embed"
	"encoding"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/hashlist/imagehash"
	"github.com/tocsin-fed/tocsin/server"
)

// documented is the configuration with every key, its explanation and its
// default. The defaults are read from it, init writes it, and config print
// --defaults prints it, so no key can be without any of these.
//
//go:embed default.toml
var documented []byte

// maxConfig bounds the configuration file.
const maxConfig = 1 << 20

// config is a node's whole configuration. default.toml explains each key.
type config struct {
	from *sources // nil if it was not loaded

	Node struct {
		Origin string `toml:"origin"`
		Issuer string `toml:"issuer"`
	} `toml:"node"`
	Federation struct {
		Address   string `toml:"address"`
		CertFile  string `toml:"cert_file"`
		KeyFile   string `toml:"key_file"`
		Plaintext bool   `toml:"plaintext"`
		Loopback  bool   `toml:"loopback"`
	} `toml:"federation"`
	GRPC struct {
		Address      string `toml:"address"`
		Socket       string `toml:"socket"`
		CertFile     string `toml:"cert_file"`
		KeyFile      string `toml:"key_file"`
		ClientCAFile string `toml:"client_ca_file"`
		Reflection   bool   `toml:"reflection"`
	} `toml:"grpc"`
	HTTP struct {
		Address      string `toml:"address"`
		CertFile     string `toml:"cert_file"`
		KeyFile      string `toml:"key_file"`
		ClientCAFile string `toml:"client_ca_file"`
		Plaintext    bool   `toml:"plaintext"`
	} `toml:"http"`
	Hook struct {
		Pictrs struct {
			Undecodable answer `toml:"undecodable"`
			Video       answer `toml:"video"`
			Trouble     answer `toml:"trouble"`
			Hold        answer `toml:"hold"`
		} `toml:"pictrs"`
		PieFed   pieFedKeys   `toml:"piefed"`
		HMA      hookKeys     `toml:"hma"`
		NSFW     hookKeys     `toml:"nsfw"`
		Mastodon mastodonKeys `toml:"mastodon"`
		Indigo   hookKeys     `toml:"indigo"`
	} `toml:"hook"`
	Fetch struct {
		HTTP     bool   `toml:"http"`
		Loopback bool   `toml:"loopback"`
		Allow    string `toml:"allow"`
	} `toml:"fetch"`
	Media struct {
		MaxBytes     size     `toml:"max_bytes"`
		MaxPixels    int64    `toml:"max_pixels"`
		MaxFrames    int      `toml:"max_frames"`
		Timeout      duration `toml:"timeout"`
		Workers      int      `toml:"workers"`
		WorkerMemory size     `toml:"worker_memory"`
		HEIC         bool     `toml:"heic"`
		FFmpeg       string   `toml:"ffmpeg"`
		VideoTimeout duration `toml:"video_timeout"`
		TurboJPEG    bool     `toml:"turbojpeg"`
	} `toml:"media"`
	Limits struct {
		LookupsPerSecond float64  `toml:"lookups_per_second"`
		Burst            int      `toml:"burst"`
		MessageBytes     size     `toml:"message_bytes"`
		Deadline         duration `toml:"deadline"`
		Idle             duration `toml:"idle"`
		Uploads          int      `toml:"uploads"`
		Cached           int      `toml:"cached"`
		Memory           size     `toml:"memory"`
	} `toml:"limits"`
	Policy struct {
		Filter      verdict `toml:"filter"`
		Reject      verdict `toml:"reject"`
		Drop        verdict `toml:"drop"`
		MinQuality  int     `toml:"min_quality"`
		VideoShare  int     `toml:"video_share"`
		VideoFrames int     `toml:"video_frames"`
		Ceiling     struct {
			PDQ    verdict `toml:"pdq"`
			PHash  verdict `toml:"phash"`
			DHash  verdict `toml:"dhash"`
			MD5    verdict `toml:"md5"`
			SHA1   verdict `toml:"sha1"`
			SHA256 verdict `toml:"sha256"`
			VPDQ   verdict `toml:"vpdq"`
		} `toml:"ceiling"`
		Rules   string `toml:"rules"`
		Default struct {
			Flag   threshold `toml:"flag"`
			Hold   threshold `toml:"hold"`
			Reject threshold `toml:"reject"`
		} `toml:"default"`
		Label map[string]label `toml:"label"` // only in the file
	} `toml:"policy"`
	Revisit struct {
		Every   duration `toml:"every"`
		PerHost duration `toml:"per_host"`
		Max     int      `toml:"max"`
		Radius  int      `toml:"radius"`
	} `toml:"revisit"`
	Digest struct {
		At                clock  `toml:"at"`
		MailServer        string `toml:"mail_server"`
		MailUser          string `toml:"mail_user"`
		MailPasswordFile  string `toml:"mail_password_file"`
		From              string `toml:"from"`
		To                string `toml:"to"`
		Webhook           string `toml:"webhook"`
		WebhookSecretFile string `toml:"webhook_secret_file"`
	} `toml:"digest"`
	Review struct {
		TwoPerson        choices  `toml:"two_person"`
		Keep             duration `toml:"keep"`
		Decisions        string   `toml:"decisions"`
		Opinions         string   `toml:"opinions"`
		OpinionsAudience audience `toml:"opinions_audience"`
		Deadline         struct {
			Held       duration `toml:"held"`
			Hit        duration `toml:"hit"`
			Dispute    duration `toml:"dispute"`
			Quarantine duration `toml:"quarantine"`
			Key        duration `toml:"key"`
			Source     duration `toml:"source"`
			Act        duration `toml:"act"`
			Preserve   duration `toml:"preserve"`
			Appeal     duration `toml:"appeal"`
			Proposal   duration `toml:"proposal"`
		} `toml:"deadline"`
	} `toml:"review"`
	Report struct {
		FirstName string `toml:"first_name"`
		LastName  string `toml:"last_name"`
		Email     string `toml:"email"`
		Company   string `toml:"company"`
		TermsURL  string `toml:"terms_url"`
		LegalURL  string `toml:"legal_url"`
	} `toml:"report"`
	Platforms []platformConfig `toml:"platform"`
	Window    struct {
		Days    int  `toml:"days"`
		Entries int  `toml:"entries"`
		Durable bool `toml:"durable"`
	} `toml:"window"`
	Flood struct {
		Uploads int     `toml:"uploads"`
		Share   float64 `toml:"share"`
	} `toml:"flood"`
	Breaker struct {
		Issuer int      `toml:"issuer"`
		Total  int      `toml:"total"`
		Stay   duration `toml:"stay"`
	} `toml:"breaker"`
	Webhook struct {
		URLs       string `toml:"urls"`
		SecretFile string `toml:"secret_file"`
	} `toml:"webhook"`
	Opinion struct {
		Arachnid opinion `toml:"arachnid"`
		PhotoDNA opinion `toml:"photodna"`
	} `toml:"opinion"`
	Log struct {
		Level  level  `toml:"level"`
		Format format `toml:"format"`
	} `toml:"log"`
}

// opinion is a service elsewhere that is asked of uploads.
type opinion struct {
	Enabled     bool     `toml:"enabled"`
	URL         string   `toml:"url"`
	Credentials string   `toml:"credentials"`
	Timeout     duration `toml:"timeout"`
	Most        verdict  `toml:"most"`
	Trouble     answer   `toml:"trouble"`
}

// defaults returns the configuration of default.toml.
func defaults() *config {
	c := new(config)
	if err := toml.NewDecoder(bytes.NewReader(documented)).DisallowUnknownFields().Decode(c); err != nil {
		panic("default.toml: " + err.Error()) // a test reads it; it is part of the program
	}
	return c
}

// loadConfig reads the configuration of the data directory dir, then the
// environment (as os.Environ gives it), then set, which has key=value. Its
// errors name file, line and column, or the variable.
func loadConfig(dir string, environ, set []string) (*config, error) {
	path := filepath.Join(dir, configName)
	text, err := readBounded(path, maxConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no node in %s: make one with `tocsin init --data %s`, or say where it is with --data", dir, dir)
	} else if err != nil {
		return nil, err
	}
	c := defaults()
	if err := decodeTOML(path, text, c); err != nil {
		return nil, err
	}
	c.from = &sources{path: path, text: text, others: map[string]string{}}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		rest, ok := strings.CutPrefix(name, "TOCSIN_")
		if !ok || !strings.Contains(rest, "__") {
			continue // TOCSIN_DATA, TOCSIN_TOKEN and the like have no section
		}
		key := strings.ToLower(strings.ReplaceAll(rest, "__", "."))
		if err := c.set(key, value); err != nil {
			return nil, fmt.Errorf("environment variable %s: %w", name, err)
		}
		c.from.others[key] = "environment variable " + name
	}
	for _, entry := range set {
		key, value, ok := strings.Cut(entry, "=")
		if !ok {
			return nil, fmt.Errorf("setting %q has no value (want KEY=VALUE, as in log.level=debug)", entry)
		}
		if err := c.set(key, value); err != nil {
			return nil, err
		}
		c.from.others[key] = "command line"
	}
	return c, nil
}

// readBounded reads a small file, and refuses one that is larger than limit.
func readBounded(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > limit {
		return nil, fmt.Errorf("%s is not a file of at most %d bytes", path, limit)
	}
	return os.ReadFile(path)
}

// decodeTOML reads text into c, and gives every mistake its place in the file.
func decodeTOML(path string, text []byte, c *config) error {
	err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(c)
	var unknown *toml.StrictMissingError
	var wrong *toml.DecodeError
	switch {
	case errors.As(err, &unknown):
		var errs []error
		for _, e := range unknown.Errors {
			row, col := e.Position()
			errs = append(errs, fmt.Errorf("%s:%d:%d: there is no key %s; `tocsin config print --defaults` shows them all", path, row, col, strings.Join(e.Key(), ".")))
		}
		return errors.Join(errs...)
	case errors.As(err, &wrong):
		row, col := wrong.Position()
		return fmt.Errorf("%s:%d:%d: %s", path, row, col, strings.TrimPrefix(wrong.Error(), "toml: "))
	case err != nil:
		// A number where a text should be has no place in the decoder's error: the
		// fault is in the first line with which the file gets it.
		for end := range len(text) {
			if text[end] != '\n' {
				continue
			}
			if e := toml.NewDecoder(bytes.NewReader(text[:end])).Decode(new(config)); e != nil && e.Error() == err.Error() {
				return fmt.Errorf("%s:%d: %w", path, 1+bytes.Count(text[:end], []byte("\n")), err)
			}
		}
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// each visits every key with its value, in the order of the struct, but for those
// of sections that may stand there many times. The value can be set.
func (c *config) each(visit func(key string, v reflect.Value)) {
	var walk func(prefix string, v reflect.Value)
	walk = func(prefix string, v reflect.Value) {
		for i := range v.NumField() {
			if k := v.Field(i).Kind(); !v.Type().Field(i).IsExported() || k == reflect.Map || k == reflect.Slice && v.Field(i).Type().Elem().Kind() == reflect.Struct {
				continue // a section that may stand there many times has no key of its own
			}
			key := prefix + v.Type().Field(i).Tag.Get("toml")
			f := v.Field(i)
			_, isText := f.Addr().Interface().(encoding.TextUnmarshaler)
			if f.Kind() == reflect.Struct && !isText {
				walk(key+".", f)
			} else {
				visit(key, f)
			}
		}
	}
	walk("", reflect.ValueOf(c).Elem())
}

// set gives one key a value in the spelling of the environment and of flags:
// that of the file, without quotation marks. After an error c is as it was.
func (c *config) set(key, value string) error {
	err := fmt.Errorf("there is no key %s; `tocsin config print --defaults` shows them all", key)
	c.each(func(k string, v reflect.Value) {
		if k != key {
			return
		}
		if t, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
			err = t.UnmarshalText([]byte(value))
		} else {
			switch v.Kind() {
			case reflect.String:
				v.SetString(value)
				err = nil
			case reflect.Bool:
				var b bool
				if b, err = strconv.ParseBool(value); err != nil {
					err = fmt.Errorf("%.40q is not true or false", value)
				} else {
					v.SetBool(b)
				}
			case reflect.Int, reflect.Int64:
				var n int64
				if n, err = strconv.ParseInt(value, 10, v.Type().Bits()); err != nil {
					err = fmt.Errorf("%.40q is not a whole number of that size", value)
				} else {
					v.SetInt(n)
				}
			case reflect.Float64:
				var f float64
				if f, err = strconv.ParseFloat(value, 64); err != nil {
					err = fmt.Errorf("%.40q is not a number", value)
				} else {
					v.SetFloat(f)
				}
			}
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", key, err)
		}
	})
	return err
}

// text returns a value as it is written in the file.
func text(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case encoding.TextMarshaler:
		b, _ := x.MarshalText() // of our own types, which do not fail
		return strconv.Quote(string(b))
	case string:
		return strconv.Quote(x)
	case float64:
		return strconv.FormatFloat(x, 'g', -1, 64)
	}
	return fmt.Sprint(v.Interface())
}

// starter is the file that init writes: documented, with every key but those of
// set as a comment.
func starter(set map[string]string) []byte {
	var b bytes.Buffer
	section := ""
	for line := range strings.Lines(string(documented)) {
		line = strings.TrimSuffix(line, "\n")
		if name, ok := strings.CutPrefix(line, "["); ok {
			section = strings.TrimSuffix(name, "]") + "."
		} else if key, _, ok := strings.Cut(line, " = "); ok && !strings.HasPrefix(line, "#") {
			if value, ok := set[section+key]; ok {
				line = key + " = " + strconv.Quote(value)
			} else {
				line = "#" + line
			}
		}
		b.WriteString(line + "\n")
	}
	return b.Bytes()
}

// mediaLimits are those of [media].
func (c *config) mediaLimits() imagehash.Limits {
	m := &c.Media
	return imagehash.Limits{
		MaxBytes: m.MaxBytes.bytes, MaxPixels: m.MaxPixels, MaxFrames: m.MaxFrames, FFmpeg: m.FFmpeg, VideoTimeout: m.VideoTimeout.time,
		Timeout: m.Timeout.time, Workers: m.Workers, WorkerMemory: m.WorkerMemory.bytes, HEIC: m.HEIC, TurboJPEG: m.TurboJPEG,
	}
}

// policy is that of [policy].
func (c *config) policy() hashlist.Policy {
	p := &c.Policy
	all, labels := c.thresholds()
	return hashlist.Policy{
		Filter: p.Filter.verdict, Reject: p.Reject.verdict, Drop: p.Drop.verdict,
		Ceiling: [hashlist.VPDQ + 1]hashlist.Verdict{
			hashlist.PDQ: p.Ceiling.PDQ.verdict, hashlist.PHash: p.Ceiling.PHash.verdict,
			hashlist.DHash: p.Ceiling.DHash.verdict, hashlist.MD5: p.Ceiling.MD5.verdict,
			hashlist.SHA1: p.Ceiling.SHA1.verdict, hashlist.SHA256: p.Ceiling.SHA256.verdict,
			hashlist.VPDQ: p.Ceiling.VPDQ.verdict,
		},
		MinQuality: p.MinQuality, VideoShare: p.VideoShare, VideoFrames: p.VideoFrames,
		Default: all, Labels: labels,
		Own: c.Node.Origin,
	}
}

// server fills in what of server.Config comes from the configuration. Paths are
// taken relative to dir.
func (c *config) server(dir string) server.Config {
	in := func(p string) string {
		if p == "" || filepath.IsAbs(p) {
			return p
		}
		return filepath.Join(dir, p)
	}
	f, g, h, l := &c.Federation, &c.GRPC, &c.HTTP, &c.Limits
	return server.Config{
		Origin: c.Node.Origin, Policy: c.policy(), Version: version, Review: c.review(),
		Breaker: hashlist.BreakerConfig{PerIssuer: c.Breaker.Issuer, Total: c.Breaker.Total, Stay: c.Breaker.Stay.time},
		GRPC: server.Listener{
			Address: g.Address, Socket: in(g.Socket), CertFile: in(g.CertFile), KeyFile: in(g.KeyFile),
			ClientCAFile: in(g.ClientCAFile), Reflection: g.Reflection,
		},
		HTTP: server.Listener{
			Address: h.Address, CertFile: in(h.CertFile), KeyFile: in(h.KeyFile),
			ClientCAFile: in(h.ClientCAFile), Plaintext: h.Plaintext,
		},
		Public: server.Listener{
			Address: f.Address, CertFile: in(f.CertFile), KeyFile: in(f.KeyFile), Plaintext: f.Plaintext,
		},
		Hooks: c.hooks(),
		Hook: server.Hook{
			Undecodable: c.Hook.Pictrs.Undecodable.answer, Video: c.Hook.Pictrs.Video.answer,
			Trouble: c.Hook.Pictrs.Trouble.answer, Hold: c.Hook.Pictrs.Hold.answer,
		},
		Limit: server.Limit{
			LookupsPerSecond: l.LookupsPerSecond, Burst: l.Burst, MessageBytes: int(l.MessageBytes.bytes),
			Deadline: l.Deadline.time, Idle: l.Idle.time, Uploads: l.Uploads, Cached: l.Cached,
			MediaBytes: c.Media.MaxBytes.bytes,
		},
	}
}

// The types below are those of the keys that the file spells as text. They are
// structs because the decoder sets numbers and strings without asking them: a
// timeout = 10 would be ten nanoseconds.

type duration struct{ time time.Duration }

func (d *duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil || v < 0 {
		return fmt.Errorf(`%.40q is not a time (want one such as "10s", "5m" or "1h30m")`, b)
	}
	d.time = v
	return nil
}

func (d duration) MarshalText() ([]byte, error) { return []byte(d.time.String()), nil }

type size struct{ bytes int64 }

var units = []struct {
	name  string
	bytes int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}, {"", 1}}

func (s *size) UnmarshalText(b []byte) error {
	for _, u := range units {
		digits, ok := strings.CutSuffix(string(b), u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > 1<<50/u.bytes {
			break
		}
		s.bytes = n * u.bytes
		return nil
	}
	return fmt.Errorf(`%.40q is not a size (want one such as "512KiB", "50MiB" or "4GiB")`, b)
}

func (s size) MarshalText() ([]byte, error) {
	for _, u := range units {
		if s.bytes != 0 && s.bytes%u.bytes == 0 {
			return fmt.Appendf(nil, "%d%s", s.bytes/u.bytes, u.name), nil
		}
	}
	return []byte("0"), nil
}

// clock is a time of day.
type clock struct{ hour, minute int }

func (c *clock) UnmarshalText(b []byte) error {
	t, err := time.Parse("15:04", string(b))
	if err != nil {
		return fmt.Errorf(`%.40q is not a time of day (want one such as "08:00")`, b)
	}
	c.hour, c.minute = t.Hour(), t.Minute()
	return nil
}

func (c clock) MarshalText() ([]byte, error) {
	return fmt.Appendf(nil, "%02d:%02d", c.hour, c.minute), nil
}

type verdict struct{ verdict hashlist.Verdict }

func (v *verdict) UnmarshalText(b []byte) error {
	p, err := hashlist.ParseVerdict(string(b))
	if err == nil {
		v.verdict = p
	}
	return err
}

func (v verdict) MarshalText() ([]byte, error) { return []byte(v.verdict.String()), nil }

type answer struct{ answer server.Answer }

func (a *answer) UnmarshalText(b []byte) error {
	if err := oneOf(string(b), string(server.AnswerAccept), string(server.AnswerReject)); err != nil {
		return err
	}
	a.answer = server.Answer(b)
	return nil
}

func (a answer) MarshalText() ([]byte, error) { return []byte(a.answer), nil }

// review is that of [review].
func (c *config) review() server.Review {
	r, d := &c.Review, &c.Review.Deadline
	return server.Review{
		TwoPerson: r.TwoPerson.all(), Keep: r.Keep.time, Decisions: r.Decisions, Opinions: r.Opinions, OpinionsAudience: r.OpinionsAudience.audience,
		Deadlines: map[hashlist.ReviewKind]time.Duration{
			hashlist.ReviewHeld: d.Held.time, hashlist.ReviewHit: d.Hit.time, hashlist.ReviewDispute: d.Dispute.time,
			hashlist.ReviewQuarantine: d.Quarantine.time, hashlist.ReviewKey: d.Key.time, hashlist.ReviewSource: d.Source.time,
			hashlist.ReviewAct: d.Act.time, hashlist.ReviewPreserve: d.Preserve.time, hashlist.ReviewAppeal: d.Appeal.time,
			hashlist.ReviewProposal: d.Proposal.time,
		},
	}
}

// choices are decisions, with commas between them; a bit for each, so that
// configurations can be compared.
type choices struct{ bits uint32 }

func (c *choices) UnmarshalText(b []byte) error {
	var bits uint32
	for name := range strings.SplitSeq(string(b), ",") {
		if name = strings.TrimSpace(name); name == "" && len(b) == 0 {
			break
		}
		v, err := hashlist.ParseReviewChoice(name)
		if err != nil {
			return err
		}
		bits |= 1 << v
	}
	c.bits = bits
	return nil
}

func (c choices) all() []hashlist.ReviewChoice {
	var all []hashlist.ReviewChoice
	for v := hashlist.ChooseConfirm; v <= hashlist.ChooseApprove; v++ {
		if c.bits&(1<<v) != 0 {
			all = append(all, v)
		}
	}
	return all
}

func (c choices) MarshalText() ([]byte, error) {
	var names []string
	for _, v := range c.all() {
		names = append(names, v.String())
	}
	return []byte(strings.Join(names, ", ")), nil
}

type audience struct{ audience hashlist.Audience }

func (a *audience) UnmarshalText(b []byte) error {
	v, err := hashlist.ParseAudience(string(b))
	if err == nil {
		a.audience = v
	}
	return err
}

func (a audience) MarshalText() ([]byte, error) { return []byte(a.audience.String()), nil }

type level struct{ level slog.Level }

func (l *level) UnmarshalText(b []byte) error {
	if err := oneOf(string(b), "debug", "info", "warn", "error"); err != nil {
		return err
	}
	return l.level.UnmarshalText(b)
}

func (l level) MarshalText() ([]byte, error) { return []byte(strings.ToLower(l.level.String())), nil }

type format struct{ name string }

func (f *format) UnmarshalText(b []byte) error {
	if err := oneOf(string(b), "auto", "text", "json"); err != nil {
		return err
	}
	f.name = string(b)
	return nil
}

func (f format) MarshalText() ([]byte, error) { return []byte(f.name), nil }

func oneOf(v string, allowed ...string) error {
	if slices.Contains(allowed, v) {
		return nil
	}
	last := len(allowed) - 1
	return fmt.Errorf("%.40q is not allowed (want %s or %s)", v, strings.Join(allowed[:last], ", "), allowed[last])
}
