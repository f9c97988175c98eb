package federation

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// httpMessage is a request with its address, as this node knows it rather than as the
// request tells it.
type httpMessage struct {
	r         *http.Request
	scheme    string // http or https
	authority string // lower case, without a default port
	target    string // path and query as sent, still percent-encoded
}

// receivedAt is the message of a request that came in at origin.
func receivedAt(r *http.Request, origin string) (httpMessage, error) {
	u, err := url.Parse(origin)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Path != "" || u.RawQuery != "" {
		return httpMessage{}, fmt.Errorf("own origin %.200q is not like https://hashes.example", origin)
	}
	own, err := authorityOf(u)
	if err != nil {
		return httpMessage{}, fmt.Errorf("own origin: %w", err)
	}
	if host := authority(u.Scheme, r.Host); host != own {
		return httpMessage{}, fmt.Errorf("request is for host %.200q, this node is %s: a proxy in front of it must keep the Host header", host, own)
	}
	// RequestURI and not URL: routers rewrite that, and decode it.
	target := r.RequestURI
	if target == "" && r.URL != nil {
		target = r.URL.RequestURI()
	}
	if !strings.HasPrefix(target, "/") {
		return httpMessage{}, fmt.Errorf("request target %.200q is not a path", target)
	}
	return httpMessage{r, u.Scheme, own, target}, nil
}

// authorityOf is the authority of an address that requests may be sent to.
func authorityOf(u *url.URL) (string, error) {
	if u == nil || u.Scheme != "https" && u.Scheme != "http" || u.Opaque != "" {
		return "", errors.New("address is not http or https")
	}
	a := authority(u.Scheme, u.Host)
	if a == "" {
		return "", errors.New("address has no host")
	}
	for i := range len(a) {
		// net/http would send another spelling than the one that is signed.
		if a[i] <= ' ' || a[i] >= 0x7f || a[i] == '%' {
			return "", fmt.Errorf("host %.200q is not plain ASCII; internationalized names are written as xn--", a)
		}
	}
	return a, nil
}

// authority is a host with its port in the one spelling of RFC 9421, section 2.2.3:
// lower case, without the port that the scheme implies.
func authority(scheme, host string) string {
	host = strings.TrimSuffix(strings.ToLower(host), ":")
	if scheme == "https" {
		return strings.TrimSuffix(host, ":443")
	}
	return strings.TrimSuffix(host, ":80")
}

// field is the value of a header. Both schemes would join several of one name with
// commas. But what the two sides then take for the date or the digest differs with
// the program, and none of the servers signs a header that it sends twice.
func (m httpMessage) field(name string) (string, error) {
	if name == "host" {
		return m.r.Host, nil // net/http takes it out of Header; receivedAt has compared it
	}
	values := m.r.Header.Values(name)
	if len(values) == 0 {
		return "", fmt.Errorf("signature covers %s, which the request does not have", name)
	}
	if len(values) > 1 {
		return "", fmt.Errorf("signature covers %s, which the request has %d times", name, len(values))
	}
	return strings.Trim(values[0], " \t"), nil
}

// isFieldName reports whether a covered component is the name of a header, which contains
// nothing that could be taken for the end of a name.
func isFieldName(name string) bool {
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return name != ""
}

// dateOf reads the Date header in the one form that senders may use (RFC 9110,
// section 5.6.7).
func dateOf(r *http.Request) (time.Time, error) {
	values := r.Header.Values("Date")
	if len(values) != 1 {
		return time.Time{}, fmt.Errorf("request has %d Date headers, one was expected", len(values))
	}
	t, err := time.Parse(http.TimeFormat, strings.Trim(values[0], " \t"))
	if err != nil {
		return time.Time{}, fmt.Errorf("date %.60q is not like %q", values[0], http.TimeFormat)
	}
	return t.UTC().Truncate(time.Second), nil
}
