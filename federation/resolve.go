package federation

import (
	"context"
	"crypto/rsa"
	"encoding/json"
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

// actor fetches and reads an actor. Its ID is of the origin of iri, and is iri
// unless the server says otherwise.
func (f *fetcher) actor(ctx context.Context, iri string) (*remoteActor, error) {
	raw, err := f.document(ctx, iri, maxActor)
	if err != nil {
		return nil, err
	}
	return readActor(raw)
}

// key fetches a key that signs requests, with the actor it belongs to. The
// document at the key's address is the actor, or names it; in the end it is the
// actor that counts, and must list the key. Key, owner and actor are of one origin.
//
// Some servers keep a key document of its own beside the actor (GoToSocial's
// .../main-key), which they show when they would not show the actor to a stranger.
func (f *fetcher) key(ctx context.Context, keyID string) (*remoteActor, *rsa.PublicKey, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	if _, err := hashlist.Origin(keyID); err != nil {
		return nil, nil, fmt.Errorf("key: %w", err)
	}
	raw, err := f.document(ctx, keyID, maxActor)
	if err != nil {
		return nil, nil, fmt.Errorf("key %.200q: %w", keyID, err)
	}
	if owner := keyOwner(raw, keyID); owner != "" {
		if !ofOneOrigin(owner, keyID) {
			return nil, nil, fmt.Errorf("key %.200q belongs to %.200q, on another server", keyID, owner)
		}
		if raw, err = f.document(ctx, owner, maxActor); err != nil {
			return nil, nil, fmt.Errorf("owner of the key %.200q: %w", keyID, err)
		}
	}
	a, err := readActor(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("owner of the key %.200q: %w", keyID, err)
	}
	k := a.publicKey(keyID)
	if k == nil {
		return nil, nil, fmt.Errorf("actor %.200q does not list the key %.200q, or not as an RSA key of 2048 to 8192 bits", a.ID, keyID)
	}
	return a, k, nil
}

// keyOwner returns whom the document of a key names as its owner; "" if the document
// is an actor itself.
func keyOwner(raw []byte, keyID string) string {
	document, err := canonical(raw)
	if err != nil {
		return "" // readActor says what is wrong with it
	}
	o := newObject(document)
	o.dropNulls()
	if o.has("inbox") {
		return ""
	}
	for _, v := range append([]json.RawMessage{document}, o.several("publicKey", maxPublicKeys)...) {
		if v[0] != '{' {
			continue
		}
		k := newObject(v)
		if owner := k.loose("owner"); owner != "" && k.loose("id") == keyID {
			return owner
		}
	}
	return ""
}

func ofOneOrigin(a, b string) bool {
	x, err := hashlist.Origin(a)
	if err != nil {
		return false
	}
	y, err := hashlist.Origin(b)
	return err == nil && x == y
}
