package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"runtime"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// maxChunk is the most bytes of a file in one message of a stream.
const maxChunk = 1 << 20

// Validate reports the first setting that cannot work or would not be safe, and fills in
// the names of lists that are not given. It
// looks up the names of the hosts to listen on.
func (c *Config) Validate() error {
	if o, err := hashlist.Origin(c.Origin); err != nil {
		return fmt.Errorf("origin: %w", err)
	} else if o != c.Origin {
		return fmt.Errorf("origin %q has a path (want only scheme and host, as in %s)", c.Origin, o)
	}
	if err := c.Hook.validate(); err != nil {
		return err
	}
	if err := c.validateHooks(); err != nil {
		return err
	}
	for _, o := range c.Opinions {
		if o.Asker == nil || o.Most < hashlist.VerdictFlag || o.Most > hashlist.VerdictReject || o.Trouble != AnswerAccept && o.Trouble != AnswerReject {
			return errors.New("a service that is asked of uploads needs most (flag, hold or reject) and trouble (accept or reject)")
		}
	}
	if c.Policy.MinQuality < 0 || c.Policy.MinQuality > 100 {
		return fmt.Errorf("least quality %d is not between 0 and 100", c.Policy.MinQuality)
	}
	if err := c.Limit.validate(); err != nil {
		return err
	}
	if err := c.Review.validate(); err != nil {
		return err
	}
	switch {
	case c.GRPC.Address == "" && c.GRPC.Socket == "":
		return errors.New("nothing to listen on for gRPC: set grpc.address, grpc.socket or both")
	case c.GRPC.Plaintext:
		return errors.New("gRPC without TLS is for loopback and unix sockets only: set grpc.cert_file and grpc.key_file instead of grpc.plaintext")
	case c.HTTP.Socket != "":
		return errors.New("HTTP does not listen on unix sockets: set http.address")
	case c.HTTP.Reflection:
		return errors.New("there is no reflection over HTTP")
	}
	switch p := &c.Public; {
	case p.Socket != "" || p.Reflection:
		return errors.New("federation is HTTP over TCP: set federation.address")
	case p.ClientCAFile != "":
		return errors.New("federation is for everybody: other nodes have no certificate to show")
	}
	if _, err := c.GRPC.exposure("grpc"); err != nil {
		return err
	}
	if _, err := c.HTTP.exposure("http"); err != nil {
		return err
	}
	_, err := c.Public.exposure("federation")
	return err
}

func (h *Hook) validate() error {
	for _, a := range [...]struct {
		key string
		v   Answer
	}{{"undecodable", h.Undecodable}, {"video", h.Video}, {"trouble", h.Trouble}, {"hold", h.Hold}} {
		if a.v != AnswerAccept && a.v != AnswerReject {
			return fmt.Errorf("hook answer for %s is %q (want accept or reject)", a.key, a.v)
		}
	}
	return nil
}

func (c *Config) validateHooks() error {
	h := &c.Hooks
	for _, v := range [...]*Hook{h.PieFed, h.HMA, h.NSFW, h.Mastodon, h.Indigo} {
		if v == nil {
			continue
		}
		if err := v.validate(); err != nil {
			return err
		}
	}
	switch {
	case c.Fetch == nil && (h.PieFed != nil || h.HMA != nil || h.NSFW != nil || h.Mastodon != nil):
		return errors.New("a hook that is told addresses needs a client to fetch them with")
	case h.Mastodon != nil && len(h.MastodonSecret) < minWebhookSecret:
		return fmt.Errorf("the secret of Mastodon's webhooks has %d bytes, fewer than %d: set hook.mastodon.secret_file to a file that holds "+
			"the secret which Mastodon shows of the webhook", len(h.MastodonSecret), minWebhookSecret)
	case !h.Blocked.IsZero() && h.Blocked.Algorithm() != hashlist.PDQ:
		return fmt.Errorf("hook.piefed.blocked is of %v, want a PDQ hash", h.Blocked.Algorithm())
	}
	return nil
}

// minWebhookSecret is how many bytes of a webhook's secret are enough; Mastodon makes 40.
const minWebhookSecret = 16

func (l *Limit) validate() error {
	switch {
	case math.IsNaN(l.LookupsPerSecond) || math.IsInf(l.LookupsPerSecond, 0) || l.LookupsPerSecond < 0:
		return fmt.Errorf("limit of %v lookups a second is not a number of at least 0", l.LookupsPerSecond)
	case l.Burst < 0 || l.Uploads < 0 || l.Cached < 0 || l.MediaBytes < 0 || l.Deadline < 0 || l.Idle < 0:
		return errors.New("a limit is less than 0")
	case l.MessageBytes != 0 && (l.MessageBytes < 2*maxChunk || l.MessageBytes > 256<<20):
		return fmt.Errorf("limit of %d bytes a message is not between 2 MiB and 256 MiB", l.MessageBytes)
	case l.MediaBytes > 1<<30:
		return fmt.Errorf("limit of %d bytes a file is more than 1 GiB", l.MediaBytes)
	}
	return nil
}

func (c *Config) withDefaults() {
	c.Log = cmp.Or(c.Log, slog.Default())
	l := &c.Limit
	l.Burst = cmp.Or(l.Burst, max(1024, int(math.Ceil(min(l.LookupsPerSecond, 1<<30)))))
	l.MessageBytes = cmp.Or(l.MessageBytes, 4<<20)
	l.Deadline = cmp.Or(l.Deadline, 30*time.Second)
	l.Uploads = cmp.Or(l.Uploads, 4*runtime.NumCPU())
	l.MediaBytes = cmp.Or(l.MediaBytes, 50<<20)
	l.Idle = cmp.Or(l.Idle, 30*time.Second)
}

// exposure checks how a listener is protected. It returns the address to bind,
// in numbers, so that no name is looked up again after it was judged. section
// is the part of the configuration that errors name.
func (l *Listener) exposure(section string) (address string, err error) {
	if (l.CertFile == "") != (l.KeyFile == "") {
		return "", fmt.Errorf("%s has only one of cert_file and key_file: set both for TLS, or none", section)
	}
	if l.ClientCAFile != "" && l.CertFile == "" {
		return "", fmt.Errorf("%[1]s.client_ca_file needs TLS: set %[1]s.cert_file and %[1]s.key_file too", section)
	}
	if l.Address == "" {
		return "", nil
	}
	host, port, err := net.SplitHostPort(l.Address)
	if err != nil {
		return "", fmt.Errorf("%s.address %q is not host:port", section, l.Address)
	}
	if l.CertFile != "" || l.Plaintext {
		return l.Address, nil
	}
	refuse := func(why string) error {
		also := "listen on 127.0.0.1"
		switch section {
		case "grpc":
			also += ", or use grpc.socket alone"
		case "http":
			also += ", or set http.plaintext if only machines you trust can reach it"
		default:
			also += " with a proxy before it that has a certificate, or set federation.plaintext if only that proxy can reach it"
		}
		return fmt.Errorf("refusing to listen on %s without TLS: %s; set %s.cert_file and %s.key_file, or %s",
			l.Address, why, section, section, also)
	}
	if host == "" {
		return "", refuse("that is every address of this machine")
	}
	if host == "localhost" {
		// It means this machine whatever a resolver says (RFC 6761, section 6.3),
		// and a machine without /etc/hosts would ask one.
		return net.JoinHostPort("127.0.0.1", port), nil
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if !ip.Unmap().IsLoopback() {
			return "", refuse("others can reach it")
		}
		return l.Address, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return "", fmt.Errorf("%s.address: cannot tell whether %s is this machine alone: %w", section, host, err)
	}
	best := netip.Addr{}
	for _, ip := range ips {
		ip = ip.Unmap()
		if !ip.IsLoopback() {
			return "", refuse(fmt.Sprintf("%s is %s, which others can reach", host, ip))
		}
		// IPv4 where there is a choice, as net.Listen does.
		if !best.IsValid() || ip.Is4() && !best.Is4() {
			best = ip
		}
	}
	if !best.IsValid() {
		return "", fmt.Errorf("%s.address: %s has no address", section, host)
	}
	return net.JoinHostPort(best.String(), port), nil
}
