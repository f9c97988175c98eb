package hashlist

import (
	"fmt"
	"net/url"
	"strings"
)

// Bounds of what statements are about that are not of hashes.
const (
	MaxSubjects = 1000 // subjects in one statement; long ones fill it sooner, see package federation
	MaxURL      = 2048 // bytes of a subject
)

// CheckSubject reports what is wrong with what a statement of the given kind is
// about. AddAccounts and AddContent are of addresses as CheckURL wants them, and
// AddInstances of domains as CheckDomain wants them.
func CheckSubject(kind Kind, subject string) error {
	switch kind {
	case AddAccounts, AddContent:
		return CheckURL(subject)
	case AddInstances:
		return CheckDomain(subject)
	}
	return fmt.Errorf("a statement of kind %v has no subjects", kind)
}

// CheckURL reports what is wrong with the address of an account, a post or a
// file: http or https, a host in lower case, no user, no line breaks or spaces, whole
// escapes, at most MaxURL bytes. Unlike Origin it allows a query, by which some servers
// name accounts, and escapes. It names what is elsewhere, byte by byte as that
// server spells it, and nobody's authority is drawn from it.
func CheckURL(address string) error {
	if len(address) > MaxURL {
		return fmt.Errorf("address of %d bytes is longer than %d", len(address), MaxURL)
	}
	for i := 0; i < len(address); i++ {
		c := address[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"<>\^{|}`+"`", c) >= 0 {
			return fmt.Errorf("address %.80q has characters that do not belong in one", address)
		}
		if c == '%' && (i+2 >= len(address) || !hexadecimal(address[i+1]) || !hexadecimal(address[i+2])) {
			return fmt.Errorf("address %.80q has half an escape", address)
		}
	}
	u, err := url.Parse(address)
	if err != nil {
		return fmt.Errorf("address %.80q cannot be read", address)
	}
	if u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.Opaque != "" || u.User != nil {
		return fmt.Errorf("address %.80q is not an https address", address)
	}
	// As it is spelled, not as it was parsed, which takes capitals from the scheme and escapes from the host.
	if !strings.HasPrefix(address, u.Scheme+"://"+u.Host) || u.Host != strings.ToLower(u.Host) {
		return fmt.Errorf("address %.80q has capitals or escapes in its host", address)
	}
	return nil
}

func hexadecimal(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// CheckDomain reports what is wrong with the domain of a server: at least two
// labels of a-z, 0-9 and inner hyphens (RFC 952, RFC 1123), as in
// xn--bcher-kva.example, at most 253 bytes, no dot at the end and no port. An IP
// address is none, and neither is a top-level domain: to list that would be
// a slip of the pen that shuts out a country.
func CheckDomain(domain string) error {
	if len(domain) > 253 {
		return fmt.Errorf("domain of %d bytes is longer than 253", len(domain))
	}
	labels := strings.Split(domain, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
			return fmt.Errorf("%.80q is not a domain like social.example", domain)
		}
		for _, c := range []byte(l) {
			if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-') {
				return fmt.Errorf("%.80q is not a domain in lower case without port, with other letters as xn--", domain)
			}
		}
	}
	if len(labels) < 2 {
		return fmt.Errorf("%.80q is not the domain of a server", domain)
	}
	if last := labels[len(labels)-1]; strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") {
		return fmt.Errorf("%.80q is an IP address, not a domain", domain)
	}
	return nil
}

// checkSubjects is for Validate.
func (s *Statement) checkSubjects(check func(string) error) error {
	if len(s.Subjects) > MaxSubjects {
		return fmt.Errorf("statement has %d subjects, at most %d fit in one", len(s.Subjects), MaxSubjects)
	}
	seen := make(map[string]struct{}, len(s.Subjects))
	for i, v := range s.Subjects {
		if err := check(v); err != nil {
			return fmt.Errorf("subject %d: %w", i+1, err)
		}
		if _, dup := seen[v]; dup {
			return fmt.Errorf("subject %d of the statement is in it twice", i+1)
		}
		seen[v] = struct{}{}
	}
	return nil
}

func (s *Statement) validateSubjects() error {
	switch {
	case len(s.Subjects) == 0:
		return fmt.Errorf("statement of kind %v is about nothing", s.Kind)
	case len(s.Hashes) > 0 || s.About != "" || s.Retracts != "" || s.Definition != nil:
		return fmt.Errorf("a statement of kind %v carries nothing but subjects and its terms", s.Kind)
	}
	if err := s.checkSubjects(func(v string) error { return CheckSubject(s.Kind, v) }); err != nil {
		return err
	}
	return s.checkExpires()
}

// validateOpinion is for Confirmation and Dispute. What they are about may be of any
// origin: it is another's.
func (s *Statement) validateOpinion() error {
	if _, err := Origin(s.About); err != nil {
		return fmt.Errorf("what the %v is about: %w", s.Kind, err)
	}
	switch {
	case s.About == s.ID:
		return fmt.Errorf("a %v is not about itself", s.Kind)
	case len(s.Hashes) > 0 || len(s.Subjects) > 0 || len(s.Labels) > 0 || s.Action != 0 || s.Retracts != "" || s.Definition != nil:
		return fmt.Errorf("a %v carries nothing but what it is about, an end and a reason", s.Kind)
	}
	return s.checkExpires()
}
