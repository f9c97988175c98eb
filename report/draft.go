package report

import (
	"encoding/xml"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Reporter is who reports: the operator, from the configuration. Any may be empty until a report is sent.
type Reporter struct {
	FirstName, LastName, Email string
	Company                    string // NCMEC's name of the company's template
	TermsURL, LegalURL         string
}

// ReporterOf reads who reports from the XML of a report.
func ReporterOf(text []byte) (Reporter, error) {
	var v struct {
		Reporter reporter `xml:"reporter"`
	}
	err := xml.Unmarshal(text, &v)
	r := &v.Reporter
	return Reporter{r.First, r.Last, r.Email, r.Company, r.Terms, r.Legal}, err
}

// Case is what the node knows of one verdict. It has no media and no bytes of any.
type Case struct {
	Verdict string    // its id
	At      time.Time // when the file came
	Node    string    // origin of this node
	Action  string    // what was done with the file: allow, flag, hold or reject
	Labels  []string
	Hashes  []Hash // of the file itself
	Matches []Match
	// What the platform said of the upload; any may be empty.
	URL, Alias, Post, Actor string
	People                  []string // what people decided about it, a sentence each
	Acts                    []string // what the node did on platforms, a sentence each
}

// Hash is one hash of the file.
type Hash struct{ Type, Value string } // as in MD5 and hex

// Match is one listed hash that the file came near.
type Match struct {
	List, Issuer, Statement string
	Labels                  []string
	Algorithm               string
	Distance                int
}

// Claims are what an admin says beyond what the node knows.
type Claims struct {
	Viewed         string // who looked at the file themselves; "" if nobody says so
	Incident       string // one of Incidents; "" for the first
	Classification string // one of Classifications; "" for none. Only who looked can tell.
}

// Draft is a report for a person to read.
type Draft struct {
	Report  []byte   // <report>
	File    []byte   // <fileDetails>, without the ids that are known when it is sent
	Summary string   // in plain words
	Open    []string // what is missing, or not claimed, a sentence each
}

type fileHash struct {
	Type  string `xml:"hashType,attr"`
	Value string `xml:",chardata"`
}

// The documents. The order of the fields is that of order.txt.
type (
	document struct {
		XMLName  xml.Name  `xml:"report"`
		XSI      string    `xml:"xmlns:xsi,attr"`
		Schema   string    `xml:"xsi:noNamespaceSchemaLocation,attr"`
		Incident incident  `xml:"incidentSummary"`
		Internet *internet `xml:"internetDetails"`
		Reporter reporter  `xml:"reporter"`
		Reported *reported `xml:"personOrUserReported"`
		Info     string    `xml:"additionalInfo,omitempty"`
	}
	incident struct {
		Type        string `xml:"incidentType"`
		At          string `xml:"incidentDateTime"`
		Description string `xml:"incidentDateTimeDescription"`
	}
	internet struct {
		URLs []string `xml:"webPageIncident>url"`
	}
	reporter struct {
		First   string `xml:"reportingPerson>firstName,omitempty"`
		Last    string `xml:"reportingPerson>lastName,omitempty"`
		Email   string `xml:"reportingPerson>email,omitempty"`
		Company string `xml:"companyTemplate,omitempty"`
		Terms   string `xml:"termsOfService,omitempty"`
		Legal   string `xml:"legalURL,omitempty"`
	}
	reported struct {
		ID      string `xml:"espIdentifier,omitempty"`
		Profile string `xml:"profileUrl,omitempty"`
	}
	details struct {
		XMLName        xml.Name   `xml:"fileDetails"`
		XSI            string     `xml:"xmlns:xsi,attr"`
		Schema         string     `xml:"xsi:noNamespaceSchemaLocation,attr"`
		ReportID       string     `xml:"reportId"`
		FileID         string     `xml:"fileId"`
		Uploaded       string     `xml:"uploadedToEspTimestamp,omitempty"`
		Location       string     `xml:"locationOfFile,omitempty"`
		Viewed         bool       `xml:"fileViewedByEsp"`
		EXIF           bool       `xml:"exifViewedByEsp"`
		Relevance      string     `xml:"fileRelevance"`
		Classification string     `xml:"industryClassification,omitempty"`
		Hashes         []fileHash `xml:"originalFileHash"`
		Info           string     `xml:"additionalInfo,omitempty"`
	}
)

const (
	xsi    = "http://www.w3.org/2001/XMLSchema-instance"
	schema = "https://report.cybertip.org/ispws/xsd"
)

// Write drafts a report. It fails if the claims contradict themselves.
func Write(c *Case, r *Reporter, claims *Claims) (*Draft, error) {
	incidentType := claims.Incident
	if incidentType == "" {
		incidentType = Incidents[0]
	}
	switch {
	case !slices.Contains(Incidents, incidentType):
		return nil, fmt.Errorf("%.80q is not one of NCMEC's incident types: %s", incidentType, strings.Join(Incidents, "; "))
	case claims.Classification != "" && !slices.Contains(Classifications, claims.Classification):
		return nil, fmt.Errorf("classification %.40q is not A1, A2, B1 or B2", claims.Classification)
	case claims.Classification != "" && claims.Viewed == "":
		return nil, errors.New("a file can be classified only by somebody who looked at it: say who did")
	case c.At.IsZero():
		return nil, errors.New("it is not known when the file came")
	}
	at := c.At.UTC().Format(time.RFC3339)
	d := &Draft{Open: open(c, r, claims)}
	doc := document{
		XSI: xsi, Schema: schema,
		Incident: incident{incidentType, at, "when the file came to the service and was compared with hash lists"},
		Reporter: reporter{r.FirstName, r.LastName, r.Email, r.Company, r.TermsURL, r.LegalURL},
		Info:     strings.Join(facts(c, claims), "\n"),
	}
	for _, u := range []string{c.Post, c.URL} {
		if u != "" && len(u) <= 2083 {
			if doc.Internet == nil {
				doc.Internet = &internet{}
			}
			doc.Internet.URLs = append(doc.Internet.URLs, u)
		}
	}
	if c.Actor != "" {
		doc.Reported = &reported{}
		if len(c.Actor) <= 255 {
			doc.Reported.ID = c.Actor
		}
		if strings.HasPrefix(c.Actor, "https://") && len(c.Actor) <= 2083 {
			doc.Reported.Profile = c.Actor
		}
	}
	file := details{
		XSI: xsi, Schema: schema, Uploaded: at, Viewed: claims.Viewed != "", Relevance: "Reported", Classification: claims.Classification,
		Info: strings.Join(matched(c), "\n"),
	}
	if len(c.URL) <= 2083 {
		file.Location = c.URL
	}
	for _, h := range c.Hashes {
		file.Hashes = append(file.Hashes, fileHash(h))
	}
	var err error
	if d.Report, err = encode(doc); err != nil {
		return nil, err
	}
	if d.File, err = encode(file); err != nil {
		return nil, err
	}
	d.Summary = summary(c, r, claims, d.Open)
	return d, nil
}

func encode(v any) ([]byte, error) {
	b, err := xml.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write XML: %w", err)
	}
	return append(append([]byte(xml.Header), b...), '\n'), nil
}

// viewed says what is known of whether a person looked.
func viewed(claims *Claims) string {
	if claims.Viewed == "" {
		return "Nobody at this service has said that they looked at the file. It was found by comparing hashes alone."
	}
	return claims.Viewed + " has said that they looked at the file. Nobody has said that they looked at its EXIF data."
}

var done = map[string]string{
	"reject": "refused", "hold": "held back until a person decides", "flag": "let through and marked", "allow": "let through",
}

// facts are the sentences of a report's additionalInfo.
func facts(c *Case, claims *Claims) []string {
	what := done[c.Action]
	if what == "" {
		what = "answered in a way that was not noted"
	}
	all := []string{
		fmt.Sprintf("A file that was uploaded to, or shown by, the service was compared with hash lists by %s. It was %s. Reference of the verdict: %s.", c.Node, what, c.Verdict),
		viewed(claims),
		"This service kept no copy of the file for this comparison; the platform may have one.",
	}
	all = append(all, matched(c)...)
	for _, h := range c.Hashes {
		all = append(all, h.Type+" of the file as it was compared: "+h.Value+".")
	}
	if c.Alias != "" {
		all = append(all, "The platform's name of the file: "+c.Alias+".")
	}
	all = append(all, c.People...)
	return append(all, c.Acts...)
}

// matched says what the file was found by.
func matched(c *Case) []string {
	var all []string
	for _, m := range c.Matches {
		how := fmt.Sprintf("by %s at a distance of %d bits", m.Algorithm, m.Distance)
		if m.Distance == 0 {
			how = "by " + m.Algorithm + ", exactly"
		}
		labels := ""
		if len(m.Labels) > 0 {
			labels = " (" + strings.Join(m.Labels, ", ") + ")"
		}
		all = append(all, fmt.Sprintf("It matched the hash list %s%s %s; listed by %s in %s.", m.List, labels, how, m.Issuer, m.Statement))
	}
	return all
}

// open says what is missing or not claimed.
func open(c *Case, r *Reporter, claims *Claims) []string {
	var all []string
	add := func(when bool, text string) {
		if when {
			all = append(all, text)
		}
	}
	add(r.Email == "", "No reporting person: set first_name, last_name and email of [report] in config.toml.")
	add(claims.Viewed == "", "It does not claim that a person looked at the file. If somebody did, and says so, draft it again with their name (--viewed-by).")
	add(claims.Viewed != "", "It claims that "+claims.Viewed+" looked at the file. Delete the draft if that is not so.")
	add(!slices.Contains(c.Labels, "csam"), "The verdict rests on nothing labelled csam: is the CyberTipline the place to report it to?")
	add(c.Actor == "", "Who uploaded the file is not known here: the platform may know, and NCMEC asks for it.")
	add(true, "IP addresses, e-mail addresses and other data of the account are not known here: add them from the platform.")
	add(c.Post == "" && c.URL == "", "No address of the file is known here.")
	add(len(c.Hashes) == 0, "No hash of the file itself is known any more.")
	add(true, "The file is not part of the report: it is not here. NCMEC wants it if the platform has it; `tocsin report send --file` uploads it.")
	return all
}

// summary is the report in plain words, for hotlines that take a form or a letter.
func summary(c *Case, r *Reporter, claims *Claims, open []string) string {
	var b strings.Builder
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%-22s %s\n", name+":", value)
		}
	}
	b.WriteString("REPORT OF A FILE FOUND BY ITS HASH (draft; read it before you send it)\n\n")
	line("Verdict", c.Verdict)
	line("When the file came", c.At.UTC().Format(time.RFC1123))
	line("Compared by", c.Node)
	line("What was done", done[c.Action])
	line("Labels", strings.Join(c.Labels, ", "))
	line("Address of the file", c.URL)
	line("Platform's name of it", c.Alias)
	line("Post", c.Post)
	line("Account", c.Actor)
	for _, h := range c.Hashes {
		line(h.Type, h.Value)
	}
	line("Reported by", strings.TrimSpace(r.FirstName+" "+r.LastName+" "+r.Email))
	b.WriteString("\nHow it was found\n")
	for _, m := range matched(c) {
		b.WriteString("  - " + m + "\n")
	}
	b.WriteString("\nWho looked\n  - " + viewed(claims) + "\n")
	if claims.Classification != "" {
		b.WriteString("  - They classify it as " + claims.Classification + ".\n")
	}
	for _, p := range c.People {
		b.WriteString("  - " + p + "\n")
	}
	if len(c.Acts) > 0 {
		b.WriteString("\nWhat was done on the platform\n")
		for _, a := range c.Acts {
			b.WriteString("  - " + a + "\n")
		}
	}
	b.WriteString("\nNot known, or not claimed\n")
	for _, o := range open {
		b.WriteString("  - " + o + "\n")
	}
	b.WriteString("\nThis holds hashes and addresses of what may be abuse of a child: treat it as you would the file.\n")
	return b.String()
}
