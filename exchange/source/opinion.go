package source

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// Bounds of what is asked of a service elsewhere while an upload waits.
const (
	maxAsked       = 64      // hashes of one upload
	maxOpinion     = 1 << 20 // bytes of an answer
	maxPicture     = 4 << 20 // bytes that PhotoDNA takes
	leastPicture   = 160     // pixels of a side that it takes
	keptOpinions   = 100_000
	opinionAge     = time.Hour
	opinionTimeout = 2 * time.Second
)

// Service is a kind of service that says of one upload whether it is known there, and keeps its list to
// itself.
type Service string

// The services.
const (
	// Arachnid is Project Arachnid Shield. What leaves the host is the PDQ hash of each frame, and nothing
	// else.
	Arachnid Service = "arachnid"
	// PhotoDNA is PhotoDNA Cloud. What leaves the host is the whole picture.
	PhotoDNA Service = "photodna"
)

// AskerConfig says how a service is asked.
type AskerConfig struct {
	Service     Service
	URL         string        // of the service's API: for Arachnid the base, for PhotoDNA the whole address of Match
	Credentials string        // path of a file, see ReadCredentials
	Timeout     time.Duration // for one upload; 0 for 2 s
	Client      *http.Client  // the guarded one
	Loopback    bool
	Version     string
}

// Asker asks one service. Methods may be called concurrently.
type Asker struct {
	cfg     AskerConfig
	headers http.Header
	known   *lru.Cache[string, remembered] // by hash or digest
}

// remembered is what a service said, until it is asked again.
type remembered struct {
	Opinion
	at time.Time
}

// recall returns what was said of a hash or file within the hour.
func (a *Asker) recall(key string) (Opinion, bool) {
	r, ok := a.known.Get(key)
	if age := time.Since(r.at); !ok || age < 0 || age > opinionAge {
		return Opinion{}, false
	}
	return r.Opinion, true
}

// Opinion is what a service says of an upload.
type Opinion struct {
	Known  bool
	Near   bool     // it resembles what is known, and is not the same
	Labels []string // in the words of hashlist, sorted
}

// Upload is what a service may be told of.
type Upload struct {
	PDQ           []hashlist.Hash // of each frame
	SHA256        hashlist.Hash   // for remembering; it does not leave the host
	File          []byte
	Media         string // image/jpeg and the like, as the decoder found it
	Width, Height int
}

// NewAsker checks the configuration and reads the credentials.
func NewAsker(cfg AskerConfig) (*Asker, error) {
	if cfg.Service != Arachnid && cfg.Service != PhotoDNA {
		return nil, fmt.Errorf("there is no service %.40q", cfg.Service)
	}
	if !strings.HasPrefix(cfg.URL, "https://") && !(cfg.Loopback && strings.HasPrefix(cfg.URL, "http://")) {
		return nil, fmt.Errorf("the address of %s is not https: %.80q", cfg.Service, cfg.URL)
	}
	known, err := lru.New[string, remembered](keptOpinions)
	if err != nil {
		return nil, err
	}
	a := &Asker{cfg: cfg, known: known}
	if a.cfg.Timeout == 0 {
		a.cfg.Timeout = opinionTimeout
	}
	if a.headers, err = ReadCredentials(cfg.Credentials); err != nil {
		return nil, fmt.Errorf("%s: %w", cfg.Service, err)
	}
	return a, nil
}

// Name is the service's.
func (a *Asker) Name() string { return string(a.cfg.Service) }

// Leaves says in a few words what leaves the host.
func (a *Asker) Leaves() string {
	if a.cfg.Service == PhotoDNA {
		return "the whole picture"
	}
	return "the PDQ hash of each frame, and nothing else"
}

// Ask asks the service, within its time and that of ctx. It is not asked of what it could not say anything
// of; then the zero Opinion is returned.
func (a *Asker) Ask(ctx context.Context, u Upload) (Opinion, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, a.cfg.Timeout, refused("%s did not answer within %v", a.cfg.Service, a.cfg.Timeout))
	defer cancel()
	c := *a.cfg.Client
	c.Timeout = 0
	n := &session{client: &c, agent: "tocsin/" + a.cfg.Version, loopback: a.cfg.Loopback, headers: a.headers, limit: maxOpinion, idle: a.cfg.Timeout}
	var o Opinion
	var err error
	if a.cfg.Service == PhotoDNA {
		o, err = a.photoDNA(ctx, n, u)
	} else {
		o, err = a.arachnid(ctx, n, u)
	}
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	if err != nil {
		return Opinion{}, fmt.Errorf("ask %s: %w", a.cfg.Service, err)
	}
	return o, nil
}

// arachnid asks POST v1/pdq/ for the hashes that are not remembered.
func (a *Asker) arachnid(ctx context.Context, n *session, u Upload) (Opinion, error) {
	var all Opinion
	add := func(o Opinion) {
		if o.Known {
			all.Near = o.Near && (all.Near || !all.Known)
			all.Known = true
			all.Labels = append(all.Labels, o.Labels...)
		}
	}
	var ask []string
	seen := map[string]bool{}
	for _, h := range u.PDQ {
		if h.Algorithm() != hashlist.PDQ || h.IsZero() {
			continue
		}
		key := base64.StdEncoding.EncodeToString(h.Sum())
		if seen[key] {
			continue
		}
		seen[key] = true
		if o, ok := a.recall(key); ok {
			add(o)
		} else {
			ask = append(ask, key)
		}
	}
	// All of them, or an error: a picture behind many others in one file is a picture. What was said before the time
	// was up is remembered, so that who asks again gets further.
	for part := range slices.Chunk(ask, maxAsked) {
		q := struct {
			Hashes []string `json:"hashes"`
		}{part}
		body, err := json.Marshal(q)
		if err != nil {
			return Opinion{}, err
		}
		v := struct {
			Scanned map[string]struct {
				Classification string `json:"classification"`
				Match          string `json:"match_type"`
			} `json:"scanned_hashes"`
		}{}
		if err := n.post(ctx, strings.TrimSuffix(a.cfg.URL, "/")+"/v1/pdq/", "application/json", body, maxOpinion, &v); err != nil {
			return Opinion{}, err
		}
		for _, key := range q.Hashes {
			said, ok := v.Scanned[key]
			if !ok {
				return Opinion{}, errors.New("the answer is not about all that was asked") // half of one must not pass for all clear
			}
			o := Opinion{Known: true, Near: said.Match == "near"}
			switch said.Classification {
			case "csam":
				o.Labels = []string{"csam"}
			case "harmful-abusive-material":
				o.Labels = []string{"harmful-abusive-material"}
			case "no-known-match":
				o = Opinion{}
			default:
				return Opinion{}, fmt.Errorf("the answer has the classification %.40q, which this program does not know", said.Classification)
			}
			a.known.Add(key, remembered{o, time.Now()})
			add(o)
		}
	}
	slices.Sort(all.Labels)
	all.Labels = slices.Compact(all.Labels)
	return all, nil
}

// photoDNA posts the picture.
func (a *Asker) photoDNA(ctx context.Context, n *session, u Upload) (Opinion, error) {
	if len(u.File) > maxPicture || u.Width < leastPicture || u.Height < leastPicture || !slices.Contains(photoDNATypes, u.Media) {
		return Opinion{}, nil
	}
	key := u.SHA256.String()
	if o, ok := a.recall(key); ok {
		return o, nil
	}
	v := struct {
		Status struct {
			Code int `json:"Code"`
		} `json:"Status"`
		IsMatch bool `json:"IsMatch"`
		Details struct {
			Flags []struct {
				Violations []string `json:"Violations"`
			} `json:"MatchFlags"`
		} `json:"MatchDetails"`
	}{}
	if err := n.post(ctx, a.cfg.URL, u.Media, u.File, maxOpinion, &v); err != nil {
		return Opinion{}, err
	}
	switch v.Status.Code {
	case 3000:
	case 3206, 3208: // not a picture that it takes, or not of a size
		return Opinion{}, nil
	default:
		return Opinion{}, fmt.Errorf("the answer has status %d", v.Status.Code)
	}
	o := Opinion{Known: v.IsMatch, Near: v.IsMatch}
	if v.IsMatch {
		o.Labels = []string{"csam"} // what the service is for; A1 to B2 are finer words of the same
	}
	a.known.Add(key, remembered{o, time.Now()})
	return o, nil
}

var photoDNATypes = []string{"image/jpeg", "image/png", "image/gif", "image/bmp", "image/tiff"}

// post sends a body and reads a JSON answer of at most limit bytes.
func (n *session) post(ctx context.Context, address, media string, body []byte, limit int64, v any) error {
	a, err := n.get(ctx, request{method: http.MethodPost, url: address, accept: jsonTypes, body: body, media: media})
	if err != nil {
		return err
	}
	b, err := readAll(a, limit)
	if err != nil {
		return err
	}
	if err := json.NewDecoder(bytes.NewReader(b)).Decode(v); err != nil {
		return errors.New("the answer is not the JSON that it should be")
	}
	return nil
}
