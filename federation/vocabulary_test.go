package federation

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/go-fed/activity/streams"
	"github.com/google/go-cmp/cmp"
)

const (
	ours      = "https://hashes.example/lists/csam"
	theirs    = "https://other.example/actor"
	theirID   = "https://other.example/follows/1"
	envelopes = `{"@context":"https://www.w3.org/ns/activitystreams",`
)

func TestReadEnvelope(t *testing.T) {
	follow := envelope{ID: theirID, Type: "Follow", Actor: theirs, Object: ours}
	undo := envelope{ID: "https://other.example/undo/1", Type: "Undo", Actor: theirs, Object: theirID, ObjectType: "Follow", ObjectActor: theirs, ObjectObject: ours}
	accept := envelope{ID: "https://hashes.example/a/1", Type: "Accept", Actor: ours, Object: theirID, ObjectType: "Follow", ObjectActor: theirs, ObjectObject: ours}
	for _, c := range []struct {
		name, raw string
		want      envelope
	}{
		{"Follow", `"id":"` + theirID + `","type":"Follow","actor":"` + theirs + `","object":"` + ours + `"}`, follow},
		{"with an actor embedded", `"id":"` + theirID + `","type":["Follow"],"actor":{"id":"` + theirs + `","type":"Person","inbox":"https://evil.example/"},"object":["` + ours + `"],"cc":null}`, follow},
		{"with an object that has nothing but its id", `"id":"` + theirID + `","type":"Follow","actor":["` + theirs + `"],"object":{"id":"` + ours + `"}}`, follow},
		{"addressed", `"id":"` + theirID + `","type":"Follow","actor":"` + theirs + `","object":"` + ours + `","to":["` + ours + `","as:Public"]}`,
			envelope{ID: theirID, Type: "Follow", Actor: theirs, Object: ours, To: []string{ours, "as:Public"}}},
		{"Undo", `"id":"https://other.example/undo/1","type":"Undo","actor":"` + theirs + `","object":{"id":"` + theirID + `","type":"Follow","actor":{"id":"` + theirs + `"},"object":"` + ours + `"}}`, undo},
		{"Undo by id", `"id":"https://other.example/undo/1","type":"Undo","actor":"` + theirs + `","object":"` + theirID + `"}`,
			envelope{ID: undo.ID, Type: "Undo", Actor: theirs, Object: theirID}},
		{"Accept", `"id":"https://hashes.example/a/1","type":"Accept","actor":"` + ours + `","object":{"id":"` + theirID + `","type":"Follow","actor":"` + theirs + `","object":"` + ours + `"}}`, accept},
		{"Accept of a Follow without id", `"id":"https://hashes.example/a/1","type":"Accept","actor":"` + ours + `","object":{"type":"Follow","actor":"` + theirs + `","object":"` + ours + `"}}`,
			envelope{ID: accept.ID, Type: "Accept", Actor: ours, ObjectType: "Follow", ObjectActor: theirs, ObjectObject: ours}},
		{"Delete of an actor", `"id":"` + theirs + `#delete","type":"Delete","actor":"` + theirs + `","object":"` + theirs + `","signature":{"type":"RsaSignature2017"}}`,
			envelope{ID: theirs + "#delete", Type: "Delete", Actor: theirs, Object: theirs}},
		{"Delete with a Tombstone", `"id":"` + theirs + `#delete","type":"Delete","actor":"` + theirs + `","object":{"id":"` + theirID + `","type":"Tombstone"}}`,
			envelope{ID: theirs + "#delete", Type: "Delete", Actor: theirs, Object: theirID, ObjectType: "Tombstone"}},
		{"Update of an actor", `"id":"` + theirs + `#u","type":"Update","actor":"` + theirs + `","object":{"id":"` + theirs + `","type":"Person","object":7}}`,
			envelope{ID: theirs + "#u", Type: "Update", Actor: theirs, Object: theirs, ObjectType: "Person"}},
		{"an object of a kind of its own", `"id":"` + theirs + `#u","type":"Update","actor":"` + theirs + `","object":{"id":"` + theirID + `","type":"HashList"}}`,
			envelope{ID: theirs + "#u", Type: "Update", Actor: theirs, Object: theirID, ObjectType: "HashList"}},
		{"without an object", `"id":"` + theirID + `","type":"Arrive","actor":"` + theirs + `"}`, envelope{ID: theirID, Type: "Arrive", Actor: theirs}},
	} {
		got, err := readEnvelope([]byte(envelopes + c.raw))
		if d := cmp.Diff(c.want, got); d != "" || err != nil {
			t.Errorf("%s: %v\n%s", c.name, err, d)
		}
	}
}

func TestReadEnvelopeRefuses(t *testing.T) {
	const rest = `"id":"` + theirID + `","type":"Follow","actor":"` + theirs + `","object":"` + ours + `"`
	for _, c := range []struct{ name, says, raw string }{
		{"nothing", "", ``},
		{"an array", "not a JSON object", `[{` + rest + `}]`},
		{"a name twice", "canonical", `{` + rest + `,"\u0061ctor":"https://third.example/actor"}`},
		{"too deep", "nested", `{` + rest + `,"x":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`},
		{"too large", "larger than", `{` + rest + `,"x":"` + strings.Repeat("x", maxEnvelope) + `"}`},
		{"a number too large", "2^53", `{` + rest + `,"x":9007199254740993}`},
		{"no id", "id", `{"type":"Follow","actor":"` + theirs + `","object":"` + ours + `"}`},
		{"another's id", "not of the server of its actor", `{"id":"` + ours + `/1","type":"Follow","actor":"` + theirs + `","object":"` + ours + `"}`},
		{"no actor", "actor", `{"id":"` + theirID + `","type":"Follow","object":"` + ours + `"}`},
		{"two actors", "at most 1", `{"id":"` + theirID + `","type":"Follow","actor":["` + theirs + `","` + ours + `"],"object":"` + ours + `"}`},
		{"an actor that is a number", "no address", `{"id":"` + theirID + `","type":"Follow","actor":3}`},
		{"an actor by another name", "actor", `{"@context":{"x":"https://www.w3.org/ns/activitystreams"},"x:id":"` + theirID + `","x:type":"Follow","id":"` + theirID + `","type":"Follow","x:actor":"` + theirs + `"}`},
		{"a type by another name", "not known", `{"@context":[{"x":"https://www.w3.org/ns/activitystreams"}],` + strings.Replace(rest, "Follow", "x:Follow", 1) + `}`},
		{"no type", "not known", `{"id":"` + theirID + `","actor":"` + theirs + `","object":"` + ours + `"}`},
		{"two types", "2 types", `{"id":"` + theirID + `","type":["Follow","Undo"],"actor":"` + theirs + `","object":"` + ours + `"}`},
		{"a type of nobody", "not known", `{` + strings.Replace(rest, "Follow", "Scan", 1) + `}`},
		{"a person", "no activity", `{` + strings.Replace(rest, "Follow", "Person", 1) + `}`},
		{"two objects", "at most 1", `{"id":"` + theirID + `","type":"Flag","actor":"` + theirs + `","object":["` + ours + `","` + theirs + `"]}`},
		{"an object that is a name", "object", `{"id":"` + theirID + `","type":"Follow","actor":"` + theirs + `","object":"csam"}`},
		{"an embedded object of two types", "2 types", `{"id":"` + theirID + `","type":"Undo","actor":"` + theirs + `","object":{"type":["Follow","Accept"]}}`},
		{"an embedded Follow of two", "at most 1", `{"id":"` + theirID + `","type":"Undo","actor":"` + theirs + `","object":{"type":"Follow","actor":["` + theirs + `","` + ours + `"]}}`},
		{"too many addressees", "at most 256", `{` + rest + `,"to":["` + strings.Repeat(ours+`","`, maxTo) + `x"]}`},
	} {
		if e, err := readEnvelope([]byte(c.raw)); err == nil || !strings.Contains(err.Error(), c.says) || len(err.Error()) > 1000 {
			t.Errorf("%s: %+v, %v, want an error that says %q", c.name, e, err, c.says)
		}
	}
}

func TestActivityType(t *testing.T) {
	for raw, want := range map[string]string{
		`{"type":"Add","object":{"type":"Document"}}`:   "Add",
		`{"object":{"type":"Document"},"type":["Add"]}`: "Add",
		`{"\u0074ype":"Add"}`:                           "Add",
		`{"type":["Add","Undo"]}`:                       "",
		`{"type":"Add","type":"Undo"}`:                  "",
		`{"Type":"Add"}`:                                "",
		`{"type":null}`:                                 "",
		`{"type":1}`:                                    "",
		`{"type":"Add"`:                                 "",
		`{"type":"Add"}{}`:                              "",
		`["type","Add"]`:                                "",
		`"type"`:                                        "",
		``:                                              "",
		`{"x":` + strings.Repeat(`[`, 1<<20):            "",
	} {
		if got := activityType([]byte(raw)); got != want {
			t.Errorf("%.80s: %q, want %q", raw, got, want)
		}
	}
}

func TestWrittenActivities(t *testing.T) {
	const ctx = `"@context":"https://www.w3.org/ns/activitystreams",`
	embedded := `"object":{"actor":"` + theirs + `","id":"` + theirID + `","object":"` + ours + `","type":"Follow"},`
	for _, c := range []struct {
		name  string
		write func() ([]byte, error)
		want  string
	}{
		{"Follow", func() ([]byte, error) { return followActivity(theirID, theirs, ours) },
			`{` + ctx + `"actor":"` + theirs + `","id":"` + theirID + `","object":"` + ours + `","to":"` + ours + `","type":"Follow"}`},
		{"Undo", func() ([]byte, error) { return undoFollow("https://other.example/undo/1", theirID, theirs, ours) },
			`{` + ctx + `"actor":"` + theirs + `","id":"https://other.example/undo/1",` + embedded + `"to":"` + ours + `","type":"Undo"}`},
		{"Accept", func() ([]byte, error) { return acceptFollow(ours+"/a/1", theirID, theirs, ours) },
			`{` + ctx + `"actor":"` + ours + `","id":"` + ours + `/a/1",` + embedded + `"to":"` + theirs + `","type":"Accept"}`},
		{"Reject", func() ([]byte, error) { return rejectFollow(ours+"/a/1", theirID, theirs, ours) },
			`{` + ctx + `"actor":"` + ours + `","id":"` + ours + `/a/1",` + embedded + `"to":"` + theirs + `","type":"Reject"}`},
	} {
		got, err := c.write()
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %v\n got %s\nwant %s", c.name, err, got, c.want)
			continue
		}
		e, err := readEnvelope(got)
		if err != nil || e.Type != c.name || activityType(got) != c.name {
			t.Errorf("%s: read back as %+v, %v", c.name, e, err)
		}
	}
	// An Accept of a Follow whose sender kept no id of its own server, and others that must not be written.
	for name, err := range map[string]error{
		"a Follow with another's id":    second(followActivity(ours+"/1", theirs, ours)),
		"an Undo with another's id":     second(undoFollow(ours+"/1", theirID, theirs, ours)),
		"an Undo of another's Follow":   second(undoFollow(theirID+"u", ours+"/1", theirs, ours)),
		"an Accept with another's id":   second(acceptFollow(theirID, theirID, theirs, ours)),
		"a Follow of nothing":           second(followActivity(theirID, theirs, "")),
		"a Follow of a name":            second(followActivity(theirID, theirs, "csam")),
		"a Follow of an empty fragment": second(followActivity(theirID, theirs, ours+"#")),
	} {
		if err == nil {
			t.Errorf("%s was written", name)
		}
	}
}

func second(_ []byte, err error) error { return err }

// TestOurActorsInVocabulary: go-fed, standing for software that is strict about types, knows our actors as what they are.
func TestOurActorsInVocabulary(t *testing.T) {
	for want, raw := range ourActors(t) {
		var m map[string]any
		if err := json.Unmarshal(raw, &m); err != nil {
			t.Fatal(err)
		}
		if a, err := streams.ToType(context.Background(), m); err != nil || a.GetTypeName() != want {
			t.Errorf("%s: %v, %v", want, a, err)
		}
	}
}

func FuzzReadEnvelope(f *testing.F) {
	for _, w := range []func() ([]byte, error){
		func() ([]byte, error) { return followActivity(theirID, theirs, ours) },
		func() ([]byte, error) { return undoFollow("https://other.example/undo/1", theirID, theirs, ours) },
		func() ([]byte, error) { return acceptFollow(ours+"/a/1", theirID, theirs, ours) },
	} {
		b, err := w()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"id":"https://a.example/1","type":"Delete","actor":{"id":"https://a.example/"},"object":[{"type":["Tombstone"],"id":null}],"to":[{"id":"x"},null]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		kind := activityType(data)
		e, err := readEnvelope(data)
		if err != nil {
			if len(err.Error()) > 2000 {
				t.Errorf("error of %d bytes", len(err.Error()))
			}
			return
		}
		if e.Type != kind {
			t.Errorf("%s is of the type %q, and %q", data, kind, e.Type)
		}
		if !ofOneOrigin(e.ID, e.Actor) {
			t.Errorf("%s of %s", e.ID, e.Actor)
		}
	})
}

func BenchmarkReadEnvelope(b *testing.B) {
	raw, err := acceptFollow(ours+"/a/1", theirID, theirs, ours)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			if _, err := readEnvelope(raw); err != nil {
				b.Fatal(err)
			}
		}
	})
	large := []byte(`{"object":"` + strings.Repeat("x", MaxSigned-100) + `","type":"Add"}`)
	b.Run("type of 256 KiB", func(b *testing.B) {
		b.SetBytes(int64(len(large)))
		for b.Loop() {
			if activityType(large) != "Add" {
				b.Fatal("not an Add")
			}
		}
	})
}
