package exchange

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// names makes A-labels of internationalised names, in the way of browsers and DNS
// (UTS 46, not transitional), and refuses what is no host name.
var names = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.Transitional(false), idna.StrictDomainName(true))

// domain reads the domain of a server as a list has it. A domain stands for itself and all that
// is below it, as everywhere in the fediverse, so "*.social.example" and ".social.example" are
// social.example; a domain below one that is listed too is kept, since the upper one may be
// withdrawn alone. digest is the domain's SHA-256 in hexadecimal, "" if
// the list gives none. comment is what the list says of it: canaries are told by that too.
func (o Options) domain(text, digest, comment string) (string, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return "", errors.New("there is no domain")
	}
	if strings.ContainsAny(text, "/@:") {
		return "", fmt.Errorf("%.80q is not a domain alone", text)
	}
	text = strings.TrimPrefix(text, "*")
	text = strings.TrimPrefix(text, ".")
	text = strings.TrimSuffix(text, ".")
	var sum [sha256.Size]byte
	if digest != "" {
		if n, err := hex.Decode(sum[:], []byte(digest)[:min(len(digest), 2*len(sum))]); err != nil || n != len(sum) || len(digest) != 2*n {
			return "", errors.New("the digest is not a SHA-256 in hexadecimal")
		}
	}
	if strings.ContainsAny(text, "*?") {
		return o.uncover(text, digest != "", sum)
	}
	domain, err := names.ToASCII(text)
	if again, twice := names.ToASCII(domain); err != nil || twice != nil || again != domain { // which some odd names are not
		return "", fmt.Errorf("%.80q is not a domain", text)
	}
	if err := hashlist.CheckDomain(domain); err != nil {
		return "", err
	}
	if digest != "" && sum != sha256.Sum256([]byte(domain)) && sum != sha256.Sum256([]byte(text)) {
		return "", errors.New("the digest is that of another domain")
	}
	return domain, checkCanary(domain, comment)
}

// uncover finds the domain that was obfuscated: each star or question mark stands for one character.
func (o Options) uncover(text string, has bool, sum [sha256.Size]byte) (string, error) {
	if !has {
		return "", errors.New("the domain is obfuscated, and there is no digest to tell which it is")
	}
	if o.Known != nil {
		domain, known := o.Known(sum)
		if known && sha256.Sum256([]byte(domain)) == sum && covers(text, domain) {
			return domain, checkCanary(domain, "")
		}
	}
	return "", errors.New("the domain is obfuscated, and its digest is that of no domain known here")
}

func covers(text, domain string) bool {
	if len(text) != len(domain) {
		return false
	}
	for i := range len(text) {
		if text[i] != '*' && text[i] != '?' && text[i] != domain[i] {
			return false
		}
	}
	return true
}

// checkCanary refuses the names that makers of lists put in to see who copies them
// unread. To pass them on, or to act on them, is to fall into the trap. They are under names
// that no server can have, or say what they are. (.example is let through: documentation
// and tests use it.)
func checkCanary(domain, comment string) error {
	labels := strings.Split(domain, ".")
	last := labels[len(labels)-1]
	parent := labels[len(labels)-2] + "." + last
	canary := last == "invalid" || last == "test" || last == "localhost" ||
		parent == "example.com" || parent == "example.net" || parent == "example.org" ||
		strings.HasPrefix(domain, "000delete.this.line.") || strings.HasPrefix(domain, "000this.is.")
	for _, l := range labels[:len(labels)-1] {
		canary = canary || l == "canary"
	}
	for word := range strings.FieldsFuncSeq(strings.ToLower(comment), func(r rune) bool { return r < 'a' || r > 'z' }) {
		canary = canary || word == "canary"
	}
	if canary {
		return fmt.Errorf("%.80q is a canary, put in to see who copies the list unread", domain)
	}
	return nil
}

// comment makes a reason of what a list says: on lines of text without control characters, and
// cut where it is longer than a reason may be.
func comment(text string) string {
	text = strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case unicode.IsControl(r):
			return ' '
		}
		return r
	}, strings.ToValidUTF8(strings.ReplaceAll(text, "\r\n", "\n"), "\uFFFD")))
	const mark = "…"
	if len(text) > hashlist.MaxReason {
		text = text[:hashlist.MaxReason-len(mark)]
		for !utf8.ValidString(text) {
			text = text[:len(text)-1]
		}
		text = strings.TrimSpace(text) + mark
	}
	return text
}

// Accounts are listed by address. Where a format names them user@host, the address is that at which
// most servers show them, and these are those that are taken for such.
var accountPaths = [...]string{"/@", "/users/", "/accounts/", "/u/"}

// account reads user@host.
func (o Options) account(handle, why string) (string, error) {
	user, host, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(handle), "@"), "@")
	domain, err := o.domain(host, "", why)
	if err != nil {
		return "", err
	}
	if user == "" || len(user) > 64 || strings.ContainsFunc(user, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("_.-", r)
	}) {
		return "", fmt.Errorf("%.80q is not a user's name", user)
	}
	return "https://" + domain + accountPaths[0] + user, nil
}

// handleOf is the opposite of account, "" for an address that no handle can be told from.
func handleOf(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Port() != "" || u.RawQuery != "" {
		return ""
	}
	for _, p := range accountPaths {
		if user, ok := strings.CutPrefix(u.Path, p); ok && user != "" {
			handle := user + "@" + u.Host
			if _, err := (Options{}).account(handle, ""); err != nil {
				return ""
			}
			return handle
		}
	}
	return ""
}

// actorOf checks the address of an account.
func (o Options) actorOf(address string) (string, error) {
	if err := hashlist.CheckURL(address); err != nil {
		return "", err
	}
	u, err := url.Parse(address)
	if err != nil {
		return "", fmt.Errorf("address %.80q cannot be read", address)
	}
	_, err = o.domain(u.Hostname(), "", "")
	return address, err
}

// has reports whether a row has a label.
func (r *Row) has(label string) bool {
	for _, l := range r.Labels {
		if l == label {
			return true
		}
	}
	return false
}

func parseDomain(line []byte, _ int, o Options) (Row, error) {
	row := Row{Quality: -1, Action: o.blocks()}
	var err error
	row.Subject, err = o.domain(string(line), "", "")
	return row, err
}

// blocks is the action of formats that say only that a server is blocked.
func (o Options) blocks() hashlist.Action {
	if o.Action != 0 {
		return o.Action
	}
	return hashlist.Drop
}

// blocked reports whether a row is a block, for formats that have no word for less.
func (r *Row) blocked() bool { return r.Action == 0 || r.Action >= hashlist.Reject }

var appendDomain = ofDomain(func(line []byte, row Row) ([]byte, error) {
	if !row.blocked() {
		return line, ErrCannotCarry
	}
	return append(line, row.Subject...), nil
})
