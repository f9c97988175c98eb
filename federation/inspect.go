package federation

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// Inspect fetches what lies at an address (an IRI, @name@host or a host) and
// tells what it is, with every check it passes or fails. Nothing is kept.
func (n *Node) Inspect(ctx context.Context, address string) (*Inspection, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	v := &Inspection{Address: address, Kind: "actor"}
	var c checks
	iri, err := n.fetch.resolve(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRemote, err)
	}
	if iri != address {
		c.add("address", true, "%s is %s", address, iri)
	}
	raw, err := n.fetch.document(ctx, iri, MaxSigned)
	if err != nil {
		var said *statusError
		if errors.As(err, &said) && said.Code == 404 {
			return nil, fmt.Errorf("%w: %w: nothing is there, or it is not for this node (its lists are only shown to followers that were approved)", ErrRemote, err)
		}
		return nil, fmt.Errorf("%w: %w", ErrRemote, err)
	}
	v.ID = iri
	c.add("document", true, "fetched from %s, %d bytes, its id is its address", iri, len(raw))
	switch activityType(raw) {
	case "Add", "Undo", "Update", "Announce", "Flag":
		n.inspectStatement(ctx, v, raw, &c)
		v.Checks = c
		return v, nil
	}
	a, err := readActor(raw)
	if err != nil {
		c.add("actor", false, "%v", err)
		v.Checks = c
		return v, nil
	}
	v.ID = a.ID
	c.add("actor", true, "type %s; inbox, keys and all it names are of one origin", a.Type)
	v.Summary = append(v.Summary, "name: "+a.Name)
	if a.Summary != "" {
		v.Summary = append(v.Summary, "summary: "+a.Summary)
	}
	n.inspectHandle(ctx, a, &c)
	for _, k := range a.PublicKeys {
		c.add("key for requests", true, "%s, RSA with %d bits", k.ID, k.Public.N.BitLen())
	}
	switch {
	case a.Log != "":
		v.Kind = "list"
		n.inspectList(ctx, a, &c)
	case len(a.Methods) > 0:
		v.Kind = "issuer"
		n.inspectKeys(a, &c)
	case a.Type == "Application":
		v.Kind = "node"
		if len(a.PublicKeys) == 0 {
			c.add("key for requests", false, "it has none: it cannot sign requests, and so not follow restricted lists")
		}
	}
	v.Checks = c
	return v, nil
}

// inspectHandle asks whether the actor's name leads back to it.
func (n *Node) inspectHandle(ctx context.Context, a *remoteActor, c *checks) {
	u, err := url.Parse(a.ID)
	if err != nil || a.PreferredUsername == "" {
		return
	}
	handle := a.PreferredUsername + "@" + u.Host
	switch found, err := n.fetch.resolve(ctx, handle); {
	case err != nil:
		c.add("webfinger", false, "@%s does not lead anywhere: %v", handle, err)
	default:
		c.add("webfinger", found == a.ID, "@%s is %s", handle, found)
	}
}

func (n *Node) inspectKeys(a *remoteActor, c *checks) {
	seen := map[string]bool{}
	for _, k := range n.IssuerKeys(a.ID) {
		seen[k.Method] = true
	}
	for _, m := range a.Methods {
		state := "in use"
		if !m.Expires.IsZero() {
			state = "replaced at " + m.Expires.Format(time.RFC3339)
		}
		if !m.Revoked.IsZero() {
			state += ", in other hands since " + m.Revoked.Format(time.RFC3339)
		}
		switch {
		case len(seen) == 0:
			state += "; this node has not met the issuer before"
		case !seen[m.ID]:
			state += "; NEW to this node: ask them over another way whether it is theirs"
		default:
			state += "; known to this node"
		}
		c.add("key for statements", len(seen) == 0 || seen[m.ID], "%s: %s", Multikey(m.Public), state)
	}
}

func (n *Node) inspectList(ctx context.Context, a *remoteActor, c *checks) {
	c.add("list", len(a.Writers) > 0 && len(headKeys(a)) > 0, "%d may write to it: %s; %d keys for its heads",
		len(a.Writers), strings.Join(a.Writers, ", "), len(headKeys(a)))
	for _, w := range a.Writers {
		raw, err := n.fetch.document(ctx, w, maxActor)
		var issuer *remoteActor
		if err == nil {
			issuer, err = readActor(raw)
		}
		if err != nil {
			c.add("issuer", false, "%s: %v", w, err)
			continue
		}
		n.inspectKeys(issuer, c)
	}
	if a.ManuallyApproves {
		c.add("followers", true, "its publisher approves each")
	} else {
		c.add("followers", true, "anybody may follow")
	}
	signed, err := n.fetch.raw(ctx, a.Head, "text/plain", maxHead)
	var said *statusError
	switch {
	case errors.As(err, &said) && (said.Code == 404 || said.Code == 401 || said.Code == 403):
		c.add("log", true, "not shown to this node: it is no approved follower")
		return
	case err != nil:
		c.add("head", false, "%v", err)
		return
	}
	h, err := openHead(signed, a.ID, headKeys(a))
	if err != nil {
		c.add("head", false, "%v", err)
		return
	}
	c.add("head", true, "signed: %d statements, root %v", h.size, h.root)
	if h.size == 0 {
		return
	}
	p, err := n.fetchPage(ctx, a.ID, h.size-1)
	if err != nil {
		c.add("log", false, "its last page: %v", err)
		return
	}
	c.add("log", len(p.items) > 0, "its last page has %d statements", len(p.items))
}

func (n *Node) inspectStatement(ctx context.Context, v *Inspection, raw []byte, c *checks) {
	v.Kind = "statement"
	signed, err := withoutSignature(raw)
	if err != nil {
		c.add("form", false, "%v", err)
		return
	}
	var used Key
	s, err := Open(signed, func(issuer, method string) (ed25519.PublicKey, error) {
		raw, err := n.fetch.document(ctx, issuer, maxActor)
		if err != nil {
			return nil, err
		}
		a, err := readActor(raw)
		if err != nil {
			return nil, err
		}
		for _, m := range a.Methods {
			if m.ID == method {
				used = Key{Issuer: issuer, Method: method, Public: m.Public, Expires: m.Expires, Revoked: m.Revoked}
				return m.Public, nil
			}
		}
		return nil, fmt.Errorf("%s does not list the key %.200s", issuer, method)
	})
	if err != nil && !errors.Is(err, ErrUnknownKind) {
		c.add("statement", false, "%v", err)
		return
	}
	v.ID = s.ID
	c.add("proof", true, "of %s, made with %s", s.Issuer, used.Method)
	c.add("id", true, "it is the digest of what is said")
	switch {
	case !used.Revoked.IsZero() && !s.Published.Before(used.Revoked):
		c.add("key", false, "it was in other hands since %s, before this was said", used.Revoked.Format(time.RFC3339))
	case !used.Expires.IsZero() && !s.Published.Before(used.Expires):
		c.add("key", false, "it was replaced at %s, before this was said", used.Expires.Format(time.RFC3339))
	default:
		c.add("key", true, "in use when this was said")
	}
	v.Summary = append(v.Summary, "kind: "+s.Kind.String(), "list: "+s.List, "published: "+s.Published.Format(time.RFC3339))
	if len(s.Hashes) > 0 {
		v.Summary = append(v.Summary, fmt.Sprintf("hashes: %d", len(s.Hashes)))
	}
	if s.Reason != "" {
		v.Summary = append(v.Summary, fmt.Sprintf("reason: %q", s.Reason))
	}
	if s.Kind == hashlist.Retraction {
		v.Summary = append(v.Summary, "retracts: "+s.Retracts)
	}
}
