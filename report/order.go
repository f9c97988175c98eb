package report

import (
	"bytes"
	_ "embed"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

//go:embed order.txt
var orderText string

// child is one kind of child of an element.
type child struct {
	name           string
	optional, many bool
}

var order = readOrder(orderText)

func readOrder(text string) map[string][]child {
	all := map[string][]child{}
	for line := range strings.Lines(text) {
		name, children, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok || strings.HasPrefix(name, "#") {
			continue
		}
		for word := range strings.FieldsSeq(children) {
			c := child{name: strings.TrimRight(word, "?*+")}
			c.optional = strings.ContainsAny(word, "?*")
			c.many = strings.ContainsAny(word, "*+")
			all[name] = append(all[name], c)
		}
	}
	return all
}

// MaxXML is the longest report, in bytes.
const MaxXML = 1 << 20

// Incidents are NCMEC's names of what can be reported.
var Incidents = []string{
	"Child Pornography (possession, manufacture, and distribution)",
	"Child Sex Trafficking",
	"Child Sex Tourism",
	"Child Sexual Molestation",
	"Misleading Domain Name",
	"Misleading Words or Digital Images on the Internet",
	"Online Enticement of Children for Sexual Acts",
	"Unsolicited Obscene Material Sent to a Child",
}

// Classifications are the industry's classes of abuse images.
var Classifications = []string{"A1", "A2", "B1", "B2"}

// errUnfilled says that a document has the ids missing that are known only when it is sent.
var errUnfilled = errors.New("its reportId or fileId is not filled in")

// Check reports the first thing for which NCMEC would refuse a <report> or <fileDetails>, or which
// would be untrue on its face: an unknown or misplaced element, a missing one, a time that is none or lies
// in the future, EXIF data that were looked at without the file.
func Check(document []byte, now time.Time) error {
	if len(document) > MaxXML {
		return fmt.Errorf("it has more than %d bytes", MaxXML)
	}
	d := xml.NewDecoder(bytes.NewReader(document))
	d.Strict = true
	root, values, err := walk(d)
	if err != nil {
		return err
	}
	if root != "report" && root != "fileDetails" {
		return fmt.Errorf("its root is <%.40s>, not <report> or <fileDetails>", root)
	}
	one := func(path string) string {
		if v := values[path]; len(v) > 0 {
			return v[0]
		}
		return ""
	}
	for path, all := range values {
		name := path[strings.LastIndexByte(path, '/')+1:]
		for _, v := range all {
			if err := checkValue(name, v, now); err != nil {
				return fmt.Errorf("<%s>: %w", name, err)
			}
		}
	}
	if root == "fileDetails" {
		if one("fileDetails/exifViewedByEsp") == "true" && one("fileDetails/fileViewedByEsp") != "true" {
			return errors.New("it claims that a person looked at the EXIF data and not at the file")
		}
		if one("fileDetails/industryClassification") != "" && one("fileDetails/fileViewedByEsp") != "true" {
			return errors.New("it classifies a file that nobody looked at")
		}
		if one("fileDetails/reportId") == "" || one("fileDetails/fileId") == "" {
			return errUnfilled
		}
	}
	if root == "report" && one("report/reporter/reportingPerson/email") == "" {
		return errors.New("it has no e-mail address of the reporting person: write it into the file, or set report.email in config.toml, restart the node and draft it anew")
	}
	return nil
}

func checkValue(name, v string, now time.Time) error {
	switch name {
	case "incidentType":
		if !slices.Contains(Incidents, v) {
			return fmt.Errorf("%.80q is not one of NCMEC's incident types", v)
		}
	case "incidentDateTime", "dateTime", "uploadedToEspTimestamp":
		at, err := time.Parse(time.RFC3339, v)
		if err != nil {
			return fmt.Errorf("%.40q is not a time with a zone", v)
		}
		if at.After(now) {
			return fmt.Errorf("%s is in the future", v)
		}
	case "industryClassification":
		if !slices.Contains(Classifications, v) {
			return fmt.Errorf("%.40q is not A1, A2, B1 or B2", v)
		}
	case "fileViewedByEsp", "exifViewedByEsp", "publiclyAvailable":
		if v != "true" && v != "false" {
			return fmt.Errorf("%.40q is not true or false", v)
		}
	case "fileRelevance":
		if v != "Reported" && v != "Supplemental Reported" {
			return fmt.Errorf("%.40q is not Reported or Supplemental Reported", v)
		}
	case "espIdentifier":
		if len(v) > 255 {
			return errors.New("it is longer than 255 bytes")
		}
	case "url", "locationOfFile", "legalURL", "profileUrl":
		if len(v) > 2083 {
			return errors.New("it is longer than 2083 bytes")
		}
	}
	return nil
}

// maxDepth is how deep elements may lie in each other.
const maxDepth = 8

// walk reads a document and checks the order of its elements. It returns the root and the texts of
// the elements by their path.
func walk(d *xml.Decoder) (root string, values map[string][]string, err error) {
	type open struct {
		name string
		at   int // in order[name]
		seen bool
		text strings.Builder
	}
	var stack []*open
	values = map[string][]string{}
	leave := func(o *open) error {
		for i := o.at; i < len(order[o.name]); i++ {
			if c := order[o.name][i]; !c.optional && !(i == o.at && o.seen) {
				return fmt.Errorf("<%s> lacks <%s>", o.name, c.name)
			}
		}
		return nil
	}
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			if root == "" || len(stack) > 0 {
				return "", nil, errors.New("it ends before its root does")
			}
			return root, values, nil
		}
		if err != nil {
			return "", nil, fmt.Errorf("it is not XML: %w", err)
		}
		switch t := token.(type) {
		case xml.StartElement:
			name := t.Name.Local
			if t.Name.Space != "" || len(stack) == maxDepth {
				return "", nil, fmt.Errorf("<%.40s> does not belong here", name)
			}
			if len(stack) == 0 {
				if root != "" {
					return "", nil, errors.New("it has two roots")
				}
				root = name
			} else if err := func() error {
				o := stack[len(stack)-1]
				for i := o.at; i < len(order[o.name]); i++ {
					c := order[o.name][i]
					if c.name == name && (c.many || !(i == o.at && o.seen)) {
						o.at, o.seen = i, true
						return nil
					}
					if !c.optional && !(i == o.at && o.seen) {
						return fmt.Errorf("<%s> lacks <%s>, or has it too late", o.name, c.name)
					}
				}
				return fmt.Errorf("<%.40s> does not belong here in <%s>: NCMEC knows it not, or wants it earlier", name, o.name)
			}(); err != nil {
				return "", nil, err
			}
			stack = append(stack, &open{name: name})
		case xml.EndElement:
			o := stack[len(stack)-1]
			if err := leave(o); err != nil {
				return "", nil, err
			}
			if order[o.name] == nil {
				var path []string
				for _, s := range stack {
					path = append(path, s.name)
				}
				values[strings.Join(path, "/")] = append(values[strings.Join(path, "/")], strings.TrimSpace(o.text.String()))
			}
			stack = stack[:len(stack)-1]
		case xml.CharData:
			if len(stack) > 0 {
				stack[len(stack)-1].text.Write(t)
			}
		case xml.Directive:
			return "", nil, errors.New("it has a <! declaration, which has no place in it")
		}
	}
}
