package federation

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// describe serves what this node says of itself to everybody: no signature is
// asked for, because a server that does not answer before it knows the other's
// key could never be met by another such.
func (n *Node) describe(mux *http.ServeMux) {
	o := n.ourselves()
	document := func(media string, make func(r *http.Request) ([]byte, error)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			b, err := make(r)
			switch {
			case err != nil:
				n.fail(w, err)
			case b == nil:
				http.NotFound(w, r)
			default:
				w.Header().Set("Content-Type", media)
				w.Header().Set("Cache-Control", "public, max-age=60")
				w.Write(b)
			}
		}
	}
	activity := func(make func(r *http.Request) ([]byte, error)) http.HandlerFunc {
		return document(activityMediaType, make)
	}
	mux.HandleFunc("GET /actor", activity(func(*http.Request) ([]byte, error) { return o.nodeDocument() }))
	mux.HandleFunc("GET /users/{name}", activity(func(r *http.Request) ([]byte, error) {
		keys := n.IssuerKeys(personActor(n.cfg.Origin, r.PathValue("name")))
		if len(keys) == 0 {
			return nil, nil
		}
		p := ourPerson{Name: r.PathValue("name"), Keys: keys, Marks: n.KeyMarks(personActor(n.cfg.Origin, r.PathValue("name")))}
		if list := listActor(n.cfg.Origin, TrustList); n.isPublished(list) {
			p.Trust = list
		}
		return o.personDocument(p)
	}))
	mux.HandleFunc("GET /lists/{name}", activity(func(r *http.Request) ([]byte, error) {
		d, ok := n.published(listActor(n.cfg.Origin, r.PathValue("name")))
		if !ok {
			return nil, nil
		}
		return o.listDocument(ourList{
			Name: d.Name, Title: d.Name, Summary: d.Summary, Public: n.open(d.ID), Labels: d.Labels,
			Writers: n.writers(), Log: d.ID + "/log", Head: d.ID + "/head",
		})
	}))
	mux.HandleFunc("GET /labels/{name}", activity(func(r *http.Request) ([]byte, error) {
		if !n.saysLabel(r.PathValue("name")) {
			return nil, nil
		}
		return o.labelDefinition(r.PathValue("name"), "")
	}))
	mux.HandleFunc("GET /labels", activity(func(*http.Request) ([]byte, error) {
		labels := map[string]bool{}
		for _, l := range n.cfg.Lists.All() {
			if _, ok := n.published(l.ID); ok {
				for _, name := range l.Labels {
					labels[name] = true
				}
			}
		}
		return o.labelVocabulary(sortedKeys(labels))
	}))
	// Collections that ActivityPub wants an actor to have, and that tell nothing:
	// who follows whom is not for strangers.
	empty := func(path string) {
		mux.HandleFunc("GET "+path, activity(func(r *http.Request) ([]byte, error) {
			return marshal(map[string]any{"@context": activityStreams, "id": n.cfg.Origin + r.URL.Path, "type": "OrderedCollection", "orderedItems": []string{}})
		}))
	}
	empty("/actor/outbox")
	empty("/users/{name}/outbox")
	empty("/lists/{name}/followers")
	mux.HandleFunc("GET /.well-known/webfinger", document("application/jrd+json", func(r *http.Request) ([]byte, error) {
		return o.webFinger(r.URL.Query().Get("resource"), func(name string) string {
			if a := personActor(n.cfg.Origin, name); len(n.IssuerKeys(a)) > 0 {
				return a
			}
			if a := listActor(n.cfg.Origin, name); n.isPublished(a) {
				return a
			}
			return ""
		})
	}))
	mux.HandleFunc("GET /.well-known/nodeinfo", document("application/json", func(*http.Request) ([]byte, error) { return o.nodeInfoLinks() }))
	mux.HandleFunc("GET /nodeinfo/2.1", document(`application/json; profile="http://nodeinfo.diaspora.software/ns/schema/2.1#"`,
		func(*http.Request) ([]byte, error) {
			users := len(n.cfg.Issuers)
			return o.nodeInfo(nodeFacts{Users: &users})
		}))
}

func (n *Node) ourselves() ourselves {
	return ourselves{Origin: n.cfg.Origin, Version: n.cfg.Version, Key: &n.cfg.Key.PublicKey, HeadKey: n.headKey()}
}

func (n *Node) isPublished(list string) bool { _, ok := n.published(list); return ok }

// writers are those who may write to the lists of this node.
func (n *Node) writers() []string {
	var all []string
	for _, i := range n.cfg.Issuers {
		all = append(all, personActor(n.cfg.Origin, i.Name))
	}
	return all
}

func (n *Node) saysLabel(name string) bool {
	for _, l := range n.cfg.Lists.All() {
		if n.isPublished(l.ID) && slices.Contains(l.Labels, name) {
			return true
		}
	}
	return false
}

// IssuerKeys returns the keys of this node's issuers, or of an issuer of another
// node that it has met, newest first; all for "".
func (n *Node) IssuerKeys(issuer string) []Key {
	n.mu.Lock()
	defer n.mu.Unlock()
	if issuer != "" {
		return slices.Clone(n.keys[issuer])
	}
	var all []Key
	for _, i := range sortedKeys(n.keys) {
		all = append(all, n.keys[i]...)
	}
	return all
}

// adopt makes public the key of one of this node's issuers, if it is not. The one before is
// replaced from now on.
func (n *Node) adopt(ctx context.Context, issuer string, public ed25519.PublicKey) error {
	return n.rotate(ctx, issuer, public, nil, time.Time{})
}

func (n *Node) rotate(ctx context.Context, issuer string, public ed25519.PublicKey, old *Issuer, compromised time.Time) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.stamp()
	method := issuer + "#" + Multikey(public)
	var changed []Key
	known := false
	for _, k := range n.keys[issuer] {
		switch {
		case k.Method == method && !k.Expires.IsZero():
			return fmt.Errorf("%w: the key %s was replaced at %s: it cannot come back", ErrState, method, k.Expires.Format(time.RFC3339))
		case k.Method == method:
			known = true
			continue
		case k.Expires.IsZero():
			k.Expires = now.Truncate(time.Second)
		case compromised.IsZero() || !k.Expires.After(compromised):
			continue
		}
		if !compromised.IsZero() && (k.Revoked.IsZero() || compromised.Before(k.Revoked)) {
			k.Revoked = compromised.UTC().Truncate(time.Second)
		}
		changed = append(changed, k)
	}
	if !known {
		changed = append(changed, Key{Issuer: issuer, Method: method, Public: public, Seen: now})
		// A key that was in other hands backs nothing: whoever had it could back a key of theirs.
		if old != nil && compromised.IsZero() {
			if err := n.saveMarkLocked(ctx, backing(issuer, public, old, now)); err != nil {
				return err
			}
		}
	}
	return n.saveKeysLocked(ctx, issuer, changed)
}

// RotateIssuerKey gives one of this node's issuers a new key. Statements made
// with the old ones stay valid, unless those were in other hands since
// compromised: then what was said since then counts no more, here and, as they learn of it, at
// followers. Zero if they were not.
//
// old signs with the key of now, which backs the new one before others, so that
// they take it without asking; nil if it is not at hand or was in other hands. Then what the new key signs
// waits at each of them until a person has compared fingerprints.
//
// The caller makes the statements that follow with the new key, and keeps its private half.
func (n *Node) RotateIssuerKey(ctx context.Context, issuer string, public ed25519.PublicKey, old *Issuer, compromised time.Time) error {
	if len(n.IssuerKeys(issuer)) == 0 || !n.ours(issuer) {
		return fmt.Errorf("%w: %s is no issuer of this node", ErrState, issuer)
	}
	if compromised.After(n.now()) {
		return fmt.Errorf("%w: the key cannot have been in other hands since %s, which is to come", ErrState, compromised.Format(time.RFC3339))
	}
	if err := n.rotate(ctx, issuer, public, old, compromised); err != nil {
		return err
	}
	return n.announceActors(ctx)
}

// announceActors has every follower read the actors of this node again: it
// accepts them once more, which survives a restart and a peer that is away.
func (n *Node) announceActors(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for list, actors := range n.followers {
		for _, a := range sortedKeys(actors) {
			if f := *n.followers[list][a]; f.State == FollowerApproved {
				f.Told = false
				if err := n.saveFollowerLocked(ctx, f); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
