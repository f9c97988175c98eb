package federation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/go-fed/activity/streams"
	"github.com/go-fed/activity/streams/vocab"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// The vocabulary of ActivityStreams comes from go-fed, and is used at the edge
// only: for the small activities with which nodes follow each other. Statements never pass
// through here. Reading one into go-fed's types and writing it again loses what was
// signed, and costs a hundred times what plain JSON does.

const (
	maxEnvelope = 64 << 10 // bytes of an activity that is no statement
	maxTo       = 256      // addressees
)

// envelope is an activity between nodes, down to who does what to what. Whatever the sender
// embedded is reduced to its id: what an object is, only its own server can say.
type envelope struct {
	ID           string // of the origin of Actor
	Type         string // of an activity, as go-fed knows them
	Actor        string
	Object       string // "" if there is none, or one without id
	ObjectType   string // of an object that was embedded; "" if it was only named
	ObjectActor  string // of an embedded activity, as in an Undo or Accept of a Follow
	ObjectObject string
	To           []string
}

// readEnvelope reads an activity of at most maxEnvelope bytes, one actor and one object at most.
// Like statements it is refused if another reader might take it for something else.
// Nothing in it is believed but what its sender may say: the caller checks the signature.
func readEnvelope(raw []byte) (envelope, error) {
	if len(raw) > maxEnvelope {
		return envelope{}, fmt.Errorf("activity of %d bytes is larger than %d", len(raw), maxEnvelope)
	}
	document, err := canonical(raw)
	if err != nil {
		return envelope{}, err
	}
	o := newObject(document)
	o.dropNulls()
	e := envelope{ID: o.text("id"), Type: o.onlyType(), Actor: o.reference("actor"), To: o.references("to", maxTo)}
	if objects := o.several("object", 1); len(objects) == 1 && objects[0][0] == '{' {
		inner := newObject(objects[0])
		inner.dropNulls()
		e.Object, e.ObjectType = inner.text("id"), inner.onlyType()
		// Of other things than activities these are whatever their makers like, as in a
		// picture's "object"; only of these few they are read.
		switch e.ObjectType {
		case "Follow", "Accept", "Reject", "Undo":
			e.ObjectActor, e.ObjectObject = inner.reference("actor"), inner.reference("object")
		}
		o.take(inner)
	} else {
		e.Object = o.reference("object")
	}
	if o.err != nil {
		return envelope{}, o.err
	}
	if err := e.check(); err != nil {
		return envelope{}, err
	}
	return e, nil
}

// check holds an envelope to the vocabulary, and its addresses to what addresses are.
func (e envelope) check() error {
	for _, a := range [...]struct{ what, iri string }{
		{"id", e.ID}, {"actor", e.Actor}, {"object", e.Object}, {"actor of the object", e.ObjectActor}, {"object of the object", e.ObjectObject},
	} {
		if a.iri == "" && a.what != "id" && a.what != "actor" {
			continue
		}
		if _, err := hashlist.Origin(a.iri); err != nil {
			return fmt.Errorf("%s: %w", a.what, err)
		}
	}
	if !ofOneOrigin(e.ID, e.Actor) {
		return fmt.Errorf("activity %.200q is not of the server of its actor %.200q", e.ID, e.Actor)
	}
	// go-fed gets the few members that count, under a context of ours. With the sender's it would
	// read {"@context": {"x": "https://www.w3.org/ns/activitystreams"}, "x:actor": ...},
	// which nobody else reads that way.
	document := map[string]any{"@context": activityStreams, "id": e.ID, "type": e.Type, "actor": e.Actor}
	switch {
	case e.ObjectType != "":
		inner := map[string]any{"type": e.ObjectType}
		for name, iri := range map[string]string{"id": e.Object, "actor": e.ObjectActor, "object": e.ObjectObject} {
			if iri != "" {
				inner[name] = iri
			}
		}
		document["object"] = inner
	case e.Object != "":
		document["object"] = e.Object
	}
	t, err := streams.ToType(context.Background(), document)
	if err != nil {
		return fmt.Errorf("activity is of the type %.60q, which is not known: %w", e.Type, tame(err))
	}
	if !streams.IsOrExtendsActivityStreamsActivity(t) {
		return fmt.Errorf("%.60q is no activity", e.Type)
	}
	return nil
}

// onlyType returns the one type of an object, "" if there is none.
func (o *object) onlyType() string {
	types := o.texts("type")
	if len(types) > 1 {
		o.fail("it has %d types", len(types))
	}
	if len(types) != 1 {
		return ""
	}
	return types[0]
}

// activityType returns the type of an activity of any size, "" if there is not
// exactly one, or raw is no JSON object. It reads each byte once and believes
// nothing: it tells which reader to give raw to, and that one checks all of it.
func activityType(raw []byte) string {
	value, err := topMember(raw, "type")
	if err != nil || value == nil {
		return ""
	}
	var one string
	if json.Unmarshal(value, &one) == nil {
		return one
	}
	var all []string
	if json.Unmarshal(value, &all) == nil && len(all) == 1 {
		return all[0]
	}
	return ""
}

// The activities that this node writes. Each is addressed to the other side, because
// some servers route by "to"; a Follow is embedded in what is said about it, because some do not keep
// the ids of theirs.

// followActivity asks object, a list, to let actor follow it.
func followActivity(id, actor, object string) ([]byte, error) {
	f, err := newFollow(id, actor, object)
	if err != nil {
		return nil, err
	}
	f.SetActivityStreamsTo(f.to)
	return writeActivity(f.ActivityStreamsFollow)
}

// undoFollow takes back the Follow with the id followID.
func undoFollow(id, followID, actor, object string) ([]byte, error) {
	f, err := newFollow(followID, actor, object)
	if err != nil {
		return nil, err
	}
	u := streams.NewActivityStreamsUndo()
	if err := setObject(u, f, id, actor, f.to); err != nil {
		return nil, err
	}
	return writeActivity(u)
}

// acceptFollow answers the Follow with the id followID that actor sent to list.
func acceptFollow(id, followID, actor, list string) ([]byte, error) {
	return answerFollow(streams.NewActivityStreamsAccept(), id, followID, actor, list)
}

// rejectFollow is like acceptFollow. It also ends a follow that was accepted.
func rejectFollow(id, followID, actor, list string) ([]byte, error) {
	return answerFollow(streams.NewActivityStreamsReject(), id, followID, actor, list)
}

func answerFollow(a statable, id, followID, actor, list string) ([]byte, error) {
	f, err := newFollow(followID, actor, list)
	if err != nil {
		return nil, err
	}
	to := streams.NewActivityStreamsToProperty()
	to.AppendIRI(f.actor)
	if err := setObject(a, f, id, list, to); err != nil {
		return nil, err
	}
	return writeActivity(a)
}

// statable is what the types of activities written here have in common.
type statable interface {
	vocab.Type
	SetActivityStreamsActor(vocab.ActivityStreamsActorProperty)
	SetActivityStreamsObject(vocab.ActivityStreamsObjectProperty)
	SetActivityStreamsTo(vocab.ActivityStreamsToProperty)
}

type followType struct {
	vocab.ActivityStreamsFollow
	actor *url.URL
	to    vocab.ActivityStreamsToProperty // what is followed
}

func newFollow(id, actor, object string) (followType, error) {
	f := followType{ActivityStreamsFollow: streams.NewActivityStreamsFollow(), to: streams.NewActivityStreamsToProperty()}
	followed, err := parseReference(object)
	if err != nil {
		return f, err
	}
	o := streams.NewActivityStreamsObjectProperty()
	o.AppendIRI(followed)
	f.SetActivityStreamsObject(o)
	f.to.AppendIRI(followed)
	f.actor, err = setIDs(f, id, actor)
	return f, err
}

// setObject makes a say something about a Follow.
func setObject(a statable, f followType, id, actor string, to vocab.ActivityStreamsToProperty) error {
	o := streams.NewActivityStreamsObjectProperty()
	o.AppendActivityStreamsFollow(f.ActivityStreamsFollow)
	a.SetActivityStreamsObject(o)
	a.SetActivityStreamsTo(to)
	_, err := setIDs(a, id, actor)
	return err
}

// setIDs gives an activity its id and actor, and returns the latter.
func setIDs(a statable, id, actor string) (*url.URL, error) {
	if !ofOneOrigin(id, actor) {
		return nil, fmt.Errorf("activity %.200q is not of the server of its actor %.200q", id, actor)
	}
	u, err := parseReference(id)
	if err != nil {
		return nil, err
	}
	i := streams.NewJSONLDIdProperty()
	i.SetIRI(u)
	a.SetJSONLDId(i)
	if u, err = parseReference(actor); err != nil {
		return nil, err
	}
	p := streams.NewActivityStreamsActorProperty()
	p.AppendIRI(u)
	a.SetActivityStreamsActor(p)
	return u, nil
}

// parseReference reads an address that comes out of go-fed as it went in.
func parseReference(iri string) (*url.URL, error) {
	if _, err := hashlist.Origin(iri); err != nil {
		return nil, err
	}
	u, err := url.Parse(iri)
	if err != nil || u.String() != iri || strings.HasSuffix(iri, "#") {
		return nil, fmt.Errorf("address %.200q has another spelling", iri)
	}
	return u, nil
}

// writeActivity serializes what was built here. The result is canonical, so that a test
// or a person can compare it.
func writeActivity(t vocab.Type) ([]byte, error) {
	m, err := streams.Serialize(t)
	if err != nil {
		return nil, fmt.Errorf("write activity: %w", err)
	}
	if m == nil {
		return nil, errors.New("write activity: nothing came of it")
	}
	return marshal(m)
}
