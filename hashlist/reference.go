package hashlist

import (
	"fmt"
	"unicode"
	"unicode/utf8"
)

// MaxReference bounds each text of a Reference, in bytes.
const MaxReference = 2048

// Reference is by which name the caller knows what it asks about, so that it can be
// found again when it turns out to be banned. Any of the texts may be empty. They are the
// caller's own words: nothing is fetched from a URL, and no authority is drawn from
// any of them.
type Reference struct {
	URL   string // where the file is or will be
	Alias string // the caller's name for the file, such as pict-rs's alias
	Post  string // the post that it belongs to
	Actor string // who uploaded it
}

// IsZero reports whether r says nothing.
func (r Reference) IsZero() bool { return r == Reference{} }

// Validate reports what is wrong with r: a text that is longer than MaxReference, is
// not UTF-8, or would steer a terminal or break a line.
func (r Reference) Validate() error {
	for _, f := range r.fields() {
		switch {
		case len(f.text) > MaxReference:
			return fmt.Errorf("%s of %d bytes is longer than %d", f.name, len(f.text), MaxReference)
		case !utf8.ValidString(f.text):
			return fmt.Errorf("%s is not UTF-8", f.name)
		}
		for _, c := range f.text {
			if unicode.IsControl(c) {
				return fmt.Errorf("%s has control characters", f.name)
			}
		}
	}
	return nil
}

type referenceField struct{ name, text string }

func (r Reference) fields() [4]referenceField {
	return [4]referenceField{{"url", r.URL}, {"alias", r.Alias}, {"post", r.Post}, {"actor", r.Actor}}
}
