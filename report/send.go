package report

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Addresses of NCMEC's service.
const (
	Production = "https://report.cybertip.org/ispws"
	Test       = "https://exttest.cybertip.org/ispws"
)

// Errors of Send.
var (
	// ErrUnknown says that nobody knows whether a report was opened: look with NCMEC before another try.
	ErrUnknown = errors.New("it is not known whether NCMEC has taken the report")
	// ErrRefused says that NCMEC has not taken it.
	ErrRefused = errors.New("NCMEC has not taken the report")
)

// Tipline is NCMEC's CyberTipline.
type Tipline struct {
	URL            string // Production or Test
	User, Password string
	HTTP           *http.Client // nil for one with a time limit that follows no redirect
	Progress       func(step string)
}

const (
	maxReply  = 1 << 20
	replyTime = 2 * time.Minute // an upload is stored before it is answered
	// MaxFile is the largest file that is uploaded.
	MaxFile = 1 << 30
)

// reply is what every method of the service answers.
type reply struct {
	XMLName     xml.Name
	Code        *int   `xml:"responseCode"`
	Description string `xml:"responseDescription"`
	ReportID    string `xml:"reportId"`
	FileID      string `xml:"fileId"`
}

// codeSchema is the code for XML that does not follow NCMEC's schema.
const codeSchema = 4100

// Send opens a report, tells of the file if there is one, and finishes it. It returns NCMEC's number of the
// report as soon as there is one, also with an error. file is nil for a report without media: then there is
// nothing that <fileDetails> could be about, and what it says stands in the report itself.
//
// If it fails before the end it cancels the report, so that a half one is not left open; what cannot be
// cancelled, NCMEC drops by itself when nobody has finished it for a day.
func (t *Tipline) Send(ctx context.Context, report, fileDetails []byte, name string, file io.Reader, now time.Time) (number string, err error) {
	if err := Check(report, now); err != nil {
		return "", fmt.Errorf("%w: report.xml: %w", ErrRefused, err)
	}
	if err := Check(fileDetails, now); err != nil && !errors.Is(err, errUnfilled) {
		return "", fmt.Errorf("%w: file.xml: %w", ErrRefused, err)
	}
	t.step("open the report")
	r, err := t.post(ctx, "/submit", "text/xml; charset=utf-8", bytes.NewReader(report))
	if err != nil {
		return "", err
	}
	if r.ReportID == "" {
		return "", fmt.Errorf("%w: it answered with no number", ErrUnknown)
	}
	number = r.ReportID
	defer func() {
		if err == nil {
			return
		}
		// The caller may have given up; the half report must go all the same.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		t.step("cancel the report")
		if _, late := t.form(ctx, "/retract", url.Values{"id": {number}}); late != nil {
			err = fmt.Errorf("%w; it could not be cancelled either: report %s is open, and lapses if nobody finishes it for a day", err, number)
		} else {
			err = fmt.Errorf("%w; report %s was cancelled", err, number)
		}
	}()
	if file != nil {
		t.step("upload the file")
		fileID, err := t.upload(ctx, number, name, file)
		if err != nil {
			return number, err
		}
		filled, err := fill(fileDetails, number, fileID)
		if err != nil {
			return number, err
		}
		if err := Check(filled, now); err != nil {
			return number, fmt.Errorf("%w: file.xml: %w", ErrRefused, err)
		}
		t.step("tell of the file")
		if _, err := t.post(ctx, "/fileinfo", "text/xml; charset=utf-8", bytes.NewReader(filled)); err != nil {
			return number, err
		}
	}
	t.step("finish the report")
	if _, err := t.form(ctx, "/finish", url.Values{"id": {number}}); err != nil {
		return number, err
	}
	return number, nil
}

func (t *Tipline) step(what string) {
	if t.Progress != nil {
		t.Progress(what)
	}
}

// fill puts the ids into a <fileDetails>, and leaves the rest of it as a person may have changed it.
func fill(details []byte, reportID, fileID string) ([]byte, error) {
	for name, id := range map[string]string{"reportId": reportID, "fileId": fileID} {
		var text bytes.Buffer
		if err := xml.EscapeText(&text, []byte(id)); err != nil {
			return nil, err
		}
		empty := []byte("<" + name + "></" + name + ">")
		if bytes.Count(details, empty) != 1 {
			return nil, fmt.Errorf("%w: file.xml has no empty <%s> to fill in", ErrRefused, name)
		}
		details = bytes.Replace(details, empty, []byte("<"+name+">"+text.String()+"</"+name+">"), 1)
	}
	return details, nil
}

func (t *Tipline) form(ctx context.Context, path string, v url.Values) (*reply, error) {
	return t.post(ctx, path, "application/x-www-form-urlencoded", strings.NewReader(v.Encode()))
}

// upload streams the file, so that a large one need not fit into memory.
func (t *Tipline) upload(ctx context.Context, number, name string, file io.Reader) (string, error) {
	in, out := io.Pipe()
	m := multipart.NewWriter(out)
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := m.WriteField("id", number)
		if err == nil {
			var part io.Writer
			if part, err = m.CreateFormFile("file", name); err == nil {
				if _, err = io.Copy(part, io.LimitReader(file, MaxFile)); err == nil {
					err = m.Close()
				}
			}
		}
		out.CloseWithError(err)
	}()
	r, err := t.post(ctx, "/upload", m.FormDataContentType(), in)
	in.Close() // whoever still writes ends
	<-done
	if err != nil {
		return "", err
	}
	if r.FileID == "" {
		return "", fmt.Errorf("%w: it took the file, but gave it no id", ErrRefused)
	}
	return r.FileID, nil
}

// post sends one request. Only opening a report leaves it unknown whether it was taken.
func (t *Tipline) post(ctx context.Context, path, kind string, body io.Reader) (*reply, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(t.URL, "/")+path, body)
	if err != nil {
		return nil, err
	}
	r.SetBasicAuth(t.User, t.Password)
	r.Header.Set("Content-Type", kind)
	r.Header.Set("Accept", "text/xml")
	c := t.HTTP
	if c == nil {
		c = &http.Client{Timeout: replyTime, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	unsure := ErrRefused
	if path == "/submit" || path == "/finish" {
		unsure = ErrUnknown
	}
	answer, err := c.Do(r)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return nil, fmt.Errorf("%w: %s: %w", unsure, path, err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxReply))
	if err != nil {
		return nil, fmt.Errorf("%w: %s: its answer was cut off", unsure, path)
	}
	var v reply
	if err := xml.Unmarshal(text, &v); err != nil || v.Code == nil {
		switch answer.StatusCode {
		case http.StatusUnauthorized, http.StatusForbidden:
			return nil, fmt.Errorf("%w: %s: %s: the user name or the password is wrong", ErrRefused, path, answer.Status)
		}
		return nil, fmt.Errorf("%w: %s: it answered %s, and nothing that is documented", unsure, path, answer.Status)
	}
	if *v.Code != 0 {
		meaning := "see the service's documentation"
		if *v.Code == codeSchema {
			meaning = "the XML does not follow its schema: an element is missing, unknown or out of order"
		}
		said := v.Description
		if len(said) > 300 {
			said = said[:300]
		}
		return nil, fmt.Errorf("%w: %s: code %d, %s (%q)", ErrRefused, path, *v.Code, meaning, said)
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%w: %s: it answered %s", unsure, path, answer.Status)
	}
	return &v, nil
}

// Filled is a <fileDetails> with ids in the place of those that are known only when it is sent, for
// who wants to check the rest of it.
func Filled(details []byte) []byte {
	if filled, err := fill(details, "0", "0"); err == nil {
		return filled
	}
	return details
}
