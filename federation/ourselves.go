package federation

import (
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// The media types that the documents below are served with.
const (
	typeActivity = "application/activity+json"
	typeJRD      = "application/jrd+json"
	typeNodeInfo = `application/json; profile="` + relNodeInfo + `#"`
)

// Where this node's documents are. The rest hangs below an actor: /inbox, /outbox, and for lists /followers.
func nodeActor(origin string) string         { return origin + "/actor" }
func personActor(origin, name string) string { return origin + "/users/" + name }
func listActor(origin, name string) string   { return origin + "/lists/" + name }
func sharedInbox(origin string) string       { return origin + "/inbox" }
func labelIRI(origin, name string) string    { return origin + "/labels/" + name }
func labelsIRI(origin string) string         { return origin + "/labels" }

// actorContext is the @context of actors, in the order in which Fedify's are known to expand:
// did/v1 defines assertionMethod, multikey/v1 what is in it, with expires and revoked.
// What is ours is written out, because nobody should have to fetch it.
var actorContext = []any{
	activityStreams,
	"https://w3id.org/security/v1",
	"https://w3id.org/security/data-integrity/v1",
	"https://www.w3.org/ns/did/v1",
	"https://w3id.org/security/multikey/v1",
	map[string]any{
		"manuallyApprovesFollowers": "as:manuallyApprovesFollowers",
		"tocsin":                    namespace,
		"Label":                     "tocsin:Label",
		"log":                       map[string]string{"@id": "tocsin:log", "@type": "@id"},
		"head":                      map[string]string{"@id": "tocsin:head", "@type": "@id"},
		"trust":                     map[string]string{"@id": "tocsin:trust", "@type": "@id"},
		"succeeds":                  map[string]string{"@id": "tocsin:succeeds", "@type": "@id"},
		"successionProof":           "tocsin:successionProof",
	},
}

// ourselves is what the documents that describe this node are made from. They are
// in canonical form: the same facts give the same bytes.
type ourselves struct {
	Origin  string            // as in https://hashes.example
	Version string            // of the program
	Key     *rsa.PublicKey    // checks the requests of this node
	HeadKey ed25519.PublicKey // checks the heads of its lists
}

// ourPerson is an admin who makes statements.
type ourPerson struct {
	Name string // as in ORIGIN/users/NAME
	Keys []Key  // Public, Expires and Revoked count. Retired ones stay, so that others can check what they signed.
	// Marks are of these keys, by method: which one backs which.
	Marks map[string]KeyMark
	Trust string // IRI of the list of those for whom they vouch, "" for none that others may read
}

// ourList is a list that others may follow.
type ourList struct {
	Name    string // as in ORIGIN/lists/NAME
	Title   string // for people
	Summary string // for people; "" for none
	Public  bool   // anybody may follow it; otherwise somebody decides
	Writers []string
	Labels  []string
	Log     string // IRI of its statements in order
	Head    string // IRI of the signed head of its log
}

type actorDocument struct {
	Context           []any        `json:"@context"`
	ID                string       `json:"id"`
	Type              string       `json:"type"`
	Name              string       `json:"name"`
	PreferredUsername string       `json:"preferredUsername"`
	Summary           string       `json:"summary,omitempty"`
	Inbox             string       `json:"inbox"`
	Outbox            string       `json:"outbox"`
	Followers         string       `json:"followers,omitempty"`
	Endpoints         endpoints    `json:"endpoints"`
	ManuallyApproves  bool         `json:"manuallyApprovesFollowers"`
	PublicKey         *securityKey `json:"publicKey,omitempty"`
	AssertionMethod   []multikey   `json:"assertionMethod,omitempty"`
	AttributedTo      []string     `json:"attributedTo,omitempty"`
	Tag               []label      `json:"tag,omitempty"`
	Log               string       `json:"log,omitempty"`
	Head              string       `json:"head,omitempty"`
	Trust             string       `json:"trust,omitempty"`
}

type endpoints struct {
	SharedInbox string `json:"sharedInbox"`
}

// securityKey is a key for requests as security/v1 has it. An actor has one: Mastodon reads no second.
type securityKey struct {
	ID    string `json:"id"`
	Owner string `json:"owner"`
	PEM   string `json:"publicKeyPem"`
}

type multikey struct {
	ID         string `json:"id"`
	Type       string `json:"type"`
	Controller string `json:"controller"`
	Public     string `json:"publicKeyMultibase"`
	Expires    string `json:"expires,omitempty"`
	Revoked    string `json:"revoked,omitempty"`
	Old        string `json:"succeeds,omitempty"`
	Proof      string `json:"successionProof,omitempty"`
}

// nodeDocument is the actor that signs the node's requests. It is served to everybody without
// a signature: two servers that both want one could never meet otherwise.
func (o ourselves) nodeDocument() ([]byte, error) {
	a, err := o.actor(nodeActor(o.Origin), "Application")
	if err != nil {
		return nil, err
	}
	a.PreferredUsername = o.hostname()
	a.Name = "tocsin at " + o.hostname()
	a.ManuallyApproves = true
	a.PublicKey, err = o.requestKey(a.ID)
	if err != nil {
		return nil, err
	}
	return marshal(a)
}

// personDocument is the actor of an admin. Its keys sign statements and nothing
// else; there is no key for requests that somebody could take for one of these.
func (o ourselves) personDocument(p ourPerson) ([]byte, error) {
	a, err := o.actor(personActor(o.Origin, p.Name), "Person")
	if err != nil {
		return nil, err
	}
	a.PreferredUsername, a.Name = p.Name, p.Name
	a.ManuallyApproves = true
	for _, k := range p.Keys {
		m := publishKey(a.ID, k)
		m.Old, m.Proof = p.Marks[m.ID].Old, p.Marks[m.ID].Proof
		a.AssertionMethod = append(a.AssertionMethod, m)
	}
	a.Trust = p.Trust
	return marshal(a)
}

// listDocument is the actor of a list. It has the node's key under an id of its own, because an
// Accept from the list is checked against the keys that the list itself shows.
func (o ourselves) listDocument(l ourList) ([]byte, error) {
	a, err := o.actor(listActor(o.Origin, l.Name), "Service")
	if err != nil {
		return nil, err
	}
	a.PreferredUsername, a.Name, a.Summary = l.Name, l.Title, l.Summary
	a.Followers = a.ID + "/followers"
	a.ManuallyApproves = !l.Public
	a.AttributedTo, a.Log, a.Head = l.Writers, l.Log, l.Head
	for _, name := range l.Labels {
		a.Tag = append(a.Tag, label{"Label", name, labelIRI(o.Origin, name)})
	}
	if a.PublicKey, err = o.requestKey(a.ID); err != nil {
		return nil, err
	}
	a.AssertionMethod = []multikey{publishKey(a.ID, Key{Public: o.HeadKey})}
	return marshal(a)
}

func (o ourselves) actor(id, kind string) (actorDocument, error) {
	if _, err := hashlist.Origin(id); err != nil {
		return actorDocument{}, fmt.Errorf("actor: %w", err)
	}
	return actorDocument{
		Context: actorContext, ID: id, Type: kind, Inbox: id + "/inbox", Outbox: id + "/outbox",
		Endpoints: endpoints{sharedInbox(o.Origin)},
	}, nil
}

func (o ourselves) requestKey(actor string) (*securityKey, error) {
	der, err := x509.MarshalPKIXPublicKey(o.Key)
	if err != nil {
		return nil, fmt.Errorf("key of the node: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	return &securityKey{requestKeyID(actor), actor, string(text)}, nil
}

// requestKeyID is the id of an actor's key for requests.
func requestKeyID(actor string) string { return actor + "#main-key" }

func publishKey(actor string, k Key) multikey {
	text := Multikey(k.Public)
	m := multikey{ID: actor + "#" + text, Type: "Multikey", Controller: actor, Public: text}
	// To the second, as everybody reads it, and down: a key ends rather early than late.
	if !k.Expires.IsZero() {
		m.Expires = k.Expires.UTC().Truncate(time.Second).Format(time.RFC3339)
	}
	if !k.Revoked.IsZero() {
		m.Revoked = k.Revoked.UTC().Truncate(time.Second).Format(time.RFC3339)
	}
	return m
}

// hostname is the host of the node without its port. Other servers want a node's
// actor to have a name, and no list or person can have this one, as it has a dot.
func (o ourselves) hostname() string { u := url.URL{Host: o.host()}; return u.Hostname() }

func (o ourselves) host() string {
	_, host, _ := strings.Cut(o.Origin, "://")
	return host
}

// webFinger answers a question for a resource: acct:NAME@HOST, the IRI of an
// actor, or the node's origin, which is its own actor (FEP-d556). find tells which
// actor has a name, "" for none; it decides which lists strangers may learn of. The
// answer is nil if there is none (404).
func (o ourselves) webFinger(resource string, find func(name string) (actor string)) ([]byte, error) {
	j := jrd{}
	var actor string
	switch name, host, isHandle := strings.Cut(strings.TrimPrefix(resource, "acct:"), "@"); {
	case resource == o.Origin || resource == o.Origin+"/":
		j.Subject = o.Origin + "/"
		j.Links = []jrdLink{{relServerWide, typeActivity, nodeActor(o.Origin)}}
		return marshal(j)
	case strings.HasPrefix(resource, "acct:") && isHandle && strings.ToLower(host) == o.host():
		name = strings.ToLower(name) // as Mastodon writes names
		if actor = o.find(name, find); actor == "" {
			return nil, nil
		}
		j.Subject = "acct:" + name + "@" + o.host()
	case resource == nodeActor(o.Origin):
		actor, j.Subject = resource, "acct:"+o.hostname()+"@"+o.host()
	case strings.HasPrefix(resource, o.Origin+"/"):
		name := resource[strings.LastIndexByte(resource, '/')+1:]
		if actor = o.find(name, find); actor != resource {
			return nil, nil
		}
		j.Subject = "acct:" + name + "@" + o.host()
	default:
		return nil, nil
	}
	j.Aliases = []string{actor}
	j.Links = []jrdLink{{relSelf, typeActivity, actor}}
	return marshal(j)
}

func (o ourselves) find(name string, find func(string) string) string {
	if name == o.hostname() {
		return nodeActor(o.Origin)
	}
	if hashlist.CheckName(name) != nil {
		return ""
	}
	return find(name)
}

// nodeInfoLinks is what /.well-known/nodeinfo answers: where the document is, and which actor is the node's (FEP-2677).
func (o ourselves) nodeInfoLinks() ([]byte, error) {
	return marshal(jrd{Links: []jrdLink{
		{Rel: relNodeInfo, Href: o.Origin + "/nodeinfo/2.1"},
		{Rel: relAppActor, Type: typeActivity, Href: nodeActor(o.Origin)},
	}})
}

// nodeFacts is what an operator lets everybody know. Numbers of statements and
// names of admins are not among it: public lists bring harassment on who keeps them.
type nodeFacts struct {
	Users       *int   // admins; nil to say nothing, 0 is a number
	Name        string // "" for none, as Description
	Description string
}

// nodeInfo is a NodeInfo 2.1 document (FEP-0151; nodeinfo.diaspora.software). It is for
// people and statistics: peers take nothing from it.
func (o ourselves) nodeInfo(facts nodeFacts) ([]byte, error) {
	type software struct {
		Name       string `json:"name"`
		Version    string `json:"version"`
		Repository string `json:"repository"`
	}
	type services struct {
		Inbound  []string `json:"inbound"`
		Outbound []string `json:"outbound"`
	}
	users, metadata := map[string]int{}, map[string]string{}
	if facts.Users != nil {
		users["total"] = *facts.Users
	}
	if facts.Name != "" {
		metadata["nodeName"] = facts.Name
	}
	if facts.Description != "" {
		metadata["nodeDescription"] = facts.Description
	}
	return marshal(struct {
		Version           string            `json:"version"`
		Software          software          `json:"software"`
		Protocols         []string          `json:"protocols"`
		Services          services          `json:"services"`
		OpenRegistrations bool              `json:"openRegistrations"`
		Usage             any               `json:"usage"`
		Metadata          map[string]string `json:"metadata"`
	}{
		"2.1", software{"tocsin", o.Version, "https://github.com/tocsin-fed/tocsin"}, []string{"activitypub"},
		services{[]string{}, []string{}}, false, map[string]any{"users": users}, metadata,
	})
}

// labelContext is written out for the reason that actorContext is: the draft's own context is not there to be fetched yet.
var labelContext = []any{activityStreams, map[string]string{"tocsin": namespace, "LabelDefinition": "tocsin:LabelDefinition"}}

// labelDefinition is what a label's address shows, as the SocialCG's trust and safety task force
// drafts it (FEP-4c96). summary may be "".
func (o ourselves) labelDefinition(name, summary string) ([]byte, error) {
	if err := hashlist.CheckName(name); err != nil {
		return nil, fmt.Errorf("label: %w", err)
	}
	return marshal(struct {
		Context    []any  `json:"@context"`
		ID         string `json:"id"`
		Type       string `json:"type"`
		Name       string `json:"name"`
		Summary    string `json:"summary,omitempty"`
		Vocabulary string `json:"context"`
	}{labelContext, labelIRI(o.Origin, name), "LabelDefinition", name, summary, labelsIRI(o.Origin)})
}

// labelVocabulary is the collection of all labels, which each definition points back to.
func (o ourselves) labelVocabulary(names []string) ([]byte, error) {
	type item struct {
		ID   string `json:"id"`
		Type string `json:"type"`
	}
	items := []item{}
	for _, n := range names {
		items = append(items, item{labelIRI(o.Origin, n), "LabelDefinition"})
	}
	return marshal(struct {
		Context      []any  `json:"@context"`
		ID           string `json:"id"`
		Type         string `json:"type"`
		AttributedTo string `json:"attributedTo"`
		TotalItems   int    `json:"totalItems"`
		Items        []item `json:"items"`
	}{labelContext, labelsIRI(o.Origin), "Collection", nodeActor(o.Origin), len(items), items})
}
