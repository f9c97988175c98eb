package federation

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net/netip"
	"net/url"
	"strings"

	"github.com/tocsin-fed/tocsin/hashlist"
)

const (
	acceptJRD     = "application/jrd+json, application/json" // many serve the second (RFC 7033, section 10.2 has the first)
	maxLinks      = 64
	maxHandle     = 128 // bytes of the part of a handle before the @
	relSelf       = "self"
	relNodeInfo   = "http://nodeinfo.diaspora.software/ns/schema/2.1"
	relAppActor   = activityStreams + "#Application" // FEP-2677
	relServerWide = activityStreams + "#Service"     // FEP-d556
)

// jrd is a JSON Resource Descriptor (RFC 7033, section 4.4), as far as it is read or written here.
type jrd struct {
	Subject string    `json:"subject,omitempty"`
	Aliases []string  `json:"aliases,omitempty"`
	Links   []jrdLink `json:"links"`
}

type jrdLink struct {
	Rel  string `json:"rel"`
	Type string `json:"type,omitempty"`
	Href string `json:"href,omitempty"`
}

// readJRD reads an answer of WebFinger, or of NodeInfo, which has the same form.
func readJRD(raw []byte) (jrd, error) {
	if len(raw) > maxActor {
		return jrd{}, fmt.Errorf("answer of %d bytes is larger than %d", len(raw), maxActor)
	}
	document, err := canonical(raw)
	if err != nil {
		return jrd{}, err
	}
	o := newObject(document)
	o.dropNulls()
	j := jrd{Subject: o.text("subject")}
	for _, v := range o.several("links", maxLinks) {
		l := newObject(v)
		l.dropNulls()
		j.Links = append(j.Links, jrdLink{l.text("rel"), l.text("type"), l.text("href")})
		if l.err != nil {
			o.fail("links: %w", l.err)
		}
	}
	return j, o.err
}

// resolve finds the IRI of an actor from what a person writes: @csam@hashes.example,
// csam@hashes.example, acct:csam@hashes.example, the IRI itself, or a server,
// hashes.example or https://hashes.example, for the actor of the whole server (FEP-2677).
//
// The actor must be on the server that was named. What a name means at one
// server is not for another to say; people who move their names to a domain of its own
// have an IRI to give.
func (f *fetcher) resolve(ctx context.Context, address string) (iri string, err error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	if strings.HasPrefix(address, "https://") || strings.HasPrefix(address, "http://") {
		u, err := f.locate(address)
		if err != nil {
			return "", err
		}
		if (u.Path == "" || u.Path == "/") && u.RawQuery == "" {
			return f.application(ctx, u.Scheme+"://"+u.Host)
		}
		if _, err := hashlist.Origin(address); err != nil {
			return "", err
		}
		return address, nil
	}
	name, host, isHandle := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(address, "acct:"), "@"), "@")
	if !isHandle {
		name, host = "", address
	}
	origin, err := f.originOf(host)
	if err != nil || isHandle && !isHandleName(name) {
		return "", fmt.Errorf("%.200q names no list or server: write @csam@hashes.example, https://hashes.example/lists/csam, or hashes.example", address)
	}
	if !isHandle {
		return f.application(ctx, origin)
	}
	host = strings.ToLower(host)
	raw, err := f.raw(ctx, origin+"/.well-known/webfinger?resource=acct:"+name+"@"+host, acceptJRD, maxActor)
	if err != nil {
		var status *statusError
		if errors.As(err, &status) && (status.Code == 404 || status.Code == 410) {
			return "", fmt.Errorf("%s does not know %s: %w", host, name, err)
		}
		return "", err
	}
	answer, err := readJRD(raw)
	if err != nil {
		return "", fmt.Errorf("WebFinger of %s: %w", host, err)
	}
	if _, at, ok := strings.Cut(strings.TrimPrefix(answer.Subject, "acct:"), "@"); ok && strings.ToLower(at) != host {
		return "", fmt.Errorf("%s says that %s is %.200q, on another server: ask there", host, name, answer.Subject)
	}
	iri, err = answer.actor(relSelf, origin)
	if err != nil {
		return "", fmt.Errorf("WebFinger of %s for %s: %w", host, name, err)
	}
	return iri, nil
}

// application finds the actor of a whole server through NodeInfo (FEP-2677).
func (f *fetcher) application(ctx context.Context, origin string) (string, error) {
	raw, err := f.raw(ctx, origin+"/.well-known/nodeinfo", acceptJRD, maxActor)
	if err != nil {
		return "", err
	}
	answer, err := readJRD(raw)
	if err != nil {
		return "", fmt.Errorf("NodeInfo of %s: %w", origin, err)
	}
	iri, err := answer.actor(relAppActor, origin)
	if err != nil {
		return "", fmt.Errorf("NodeInfo of %s: %w", origin, err)
	}
	return iri, nil
}

// actor returns the one actor of an origin that is linked to by a relation.
func (j jrd) actor(rel, origin string) (string, error) {
	var found string
	for _, l := range j.Links {
		// FEP-2677 gives its link no type; WebFinger links to web pages, too.
		media, params, err := mime.ParseMediaType(l.Type)
		if l.Rel != rel || l.Href == "" || !(l.Type == "" && rel != relSelf || err == nil && isActivity(media, params)) {
			continue
		}
		if found != "" && l.Href != found {
			return "", fmt.Errorf("it stands for several actors, %.200q and %.200q: give the address of one", found, l.Href)
		}
		found = l.Href
	}
	if found == "" {
		return "", errors.New("there is no ActivityPub actor of that name")
	}
	if got, err := hashlist.Origin(found); err != nil {
		return "", err
	} else if got != origin {
		return "", fmt.Errorf("the actor is %.200q, on another server: give that address", found)
	}
	return found, nil
}

// originOf makes an origin of a host and its port, if there is one.
func (f *fetcher) originOf(host string) (string, error) {
	host = strings.ToLower(host)
	scheme := "https"
	if f.loopback && isLoopback(host) {
		scheme = "http"
	}
	u, err := f.locate(scheme + "://" + host)
	if err != nil {
		return "", err
	}
	origin := u.Scheme + "://" + u.Host
	if origin != scheme+"://"+host {
		return "", fmt.Errorf("%.200q is not a host", host)
	}
	_, err = hashlist.Origin(origin)
	return origin, err
}

// isLoopback tells hosts, with or without port, that are this machine by their spelling.
func isLoopback(host string) bool {
	u := url.URL{Host: host}
	ip, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() == "localhost" || err == nil && ip.IsLoopback()
}

// isHandleName tells what may stand before the @: the characters that need no
// escape in a query, so that all servers read the same name.
func isHandleName(name string) bool {
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_' {
			return false
		}
	}
	return name != "" && len(name) <= maxHandle
}
