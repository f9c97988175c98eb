package platform

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// Platform is one server to act on, and what may be done there.
type Platform struct {
	Name  string // for people and in the names of acts; 1 to 64 letters, digits and -
	Kind  string // lemmy, pictrs, mastodon or piefed
	URL   string // scheme and host, as in https://lemmy.example
	API   string // of Lemmy: "0.19" or "1.0"
	Token string // the credential of an admin; never logged

	On      map[hashlist.Verdict][]Kind // what is done at which verdict; nothing that is not here
	Labels  []string                    // only where the verdict rests on one of these; none for any
	Approve []Kind                      // what of it waits until a person approves it
	DryRun  bool                        // only say what would be done
	// PerHour and PerDay cap the acts that are done without a person; what is beyond waits for one.
	PerHour, PerDay int
}

// Validate reports the first mistake of p.
func (p *Platform) Validate() error {
	if p.Name == "" || len(p.Name) > 64 || strings.ContainsFunc(p.Name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-')
	}) {
		return fmt.Errorf("platform %.70q: a name has 1 to 64 lower-case letters, digits and -", p.Name)
	}
	bad := func(format string, args ...any) error {
		return fmt.Errorf("platform %s: "+format, append([]any{p.Name}, args...)...)
	}
	can, ok := offers[p.Kind]
	if !ok {
		return bad("kind %.40q is not known (want lemmy, pictrs, mastodon or piefed)", p.Kind)
	}
	u, err := url.Parse(p.URL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || strings.TrimSuffix(u.Path, "/") != "" || u.RawQuery != "" {
		return bad("url %.80q is not just scheme and host, as in https://lemmy.example", p.URL)
	}
	switch {
	case p.Kind == "lemmy" && p.API != "0.19" && p.API != "1.0":
		return bad(`api %.40q is not "0.19" or "1.0"`, p.API)
	case p.Kind != "lemmy" && p.API != "":
		return bad("only lemmy has an api to choose")
	case p.Token == "" || strings.ContainsFunc(p.Token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return bad("its credential is empty, or more than one word")
	case p.PerHour < 0 || p.PerDay < 0:
		return bad("a cap is less than 0")
	}
	for v, kinds := range p.On {
		if v < hashlist.VerdictFlag || v > hashlist.VerdictReject {
			return bad("nothing can be done at verdict %v", v)
		}
		for _, k := range kinds {
			if !slices.Contains(can, k) {
				return bad("there is no act %.40q for %s (there is %s)", k, p.Kind, words(can))
			}
		}
	}
	for _, k := range p.Approve {
		if !slices.Contains(can, k) {
			return bad("there is no act %.40q for %s to approve (there is %s)", k, p.Kind, words(can))
		}
	}
	return nil
}

func words(kinds []Kind) string {
	var all []string
	for _, k := range kinds {
		all = append(all, string(k))
	}
	return strings.Join(all, ", ")
}

// asks reports whether an act waits for a person whatever the caps say. Blocking an instance on
// Lemmy always does: Lemmy has nothing softer, and does not say whose follows would be lost.
func (p *Platform) asks(k Kind) bool {
	return slices.Contains(p.Approve, k) || k == BlockInstance && p.Kind == "lemmy"
}

func (p *Platform) endpoint(name, value string) endpoint {
	h := http.Header{"User-Agent": {"tocsin (acting for its operator)"}}
	h.Set(name, value)
	return endpoint{base: strings.TrimSuffix(p.URL, "/"), header: h}
}

// connect makes the client of p.
func (p *Platform) connect(c *http.Client) (acting, error) {
	switch p.Kind {
	case "lemmy":
		l := newLemmy(p, p.Token)
		l.client = c
		return l, nil
	case "pictrs":
		l := newPictrs(p, p.Token)
		l.client = c
		return l, nil
	case "mastodon":
		l := newMastodon(p, p.Token)
		l.client = c
		return l, nil
	case "piefed":
		l := newPiefed(p, p.Token)
		l.client = c
		return l, nil
	}
	return nil, errors.New("no such platform")
}
