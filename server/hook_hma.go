package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/hashlist/imagehash"
)

// The surface of Meta's Hasher-Matcher-Actioner that its clients use
// (facebook/ThreatExchange, hasher-matcher-actioner, OpenMediaMatch/blueprints), for
// matrix-org/policyserv, ROOST Coop and others:
//
//	GET  /h/hash?url=           POST /h/hash with one file, photo or video
//	GET  /m/lookup?url=         POST /m/lookup with one file
//	GET  /m/lookup?signal_type=&signal=
//	GET  /m/raw_lookup?signal_type=&signal=[&include_distance=true]
//	GET  /m/index/status        GET /c/banks        GET /c/bank/NAME        GET /status
//
// HMA has no authentication of its own: the token is in the path, or where the client
// can send one, in Authorization. A list is a bank; banks are read only.
//
// What a lookup names is what the node's policy refuses: HMA's clients act on any match.
// raw_lookup names everything that is near, as HMA's does.

// hmaMatch is a match in HMA's words.
type hmaMatch struct {
	Content  uint64 `json:"bank_content_id"` // the statement's place in the log
	Distance string `json:"distance"`        // a number, as text
}

// hmaBank is a list in HMA's words.
type hmaBank struct {
	Name  string  `json:"name"`
	Ratio float64 `json:"matching_enabled_ratio"`
}

// hmaError is an error in HMA's words.
type hmaError struct {
	Message string `json:"message"`
}

// hmaSignals are the types of signals that are known, by the algorithm they are of.
var hmaSignals = []struct {
	name string
	alg  hashlist.Algorithm
}{
	{"pdq", hashlist.PDQ}, {"video_md5", hashlist.MD5}, {"md5", hashlist.MD5}, {"sha1", hashlist.SHA1},
	{"video_sha256", hashlist.SHA256}, {"sha256", hashlist.SHA256}, {"vpdq", hashlist.VPDQ},
}

func (s *Server) hmaRoutes(mux *http.ServeMux) {
	h := &hook{s, "hma", *s.cfg.Hooks.HMA}
	for _, base := range []string{"/hook/hma", "/hook/hma/{token}"} {
		mux.HandleFunc("GET "+base+"/h/hash", h.hma((*hook).hmaHash))
		mux.HandleFunc("POST "+base+"/h/hash", h.hma((*hook).hmaHash))
		mux.HandleFunc("GET "+base+"/m/lookup", h.hma((*hook).hmaLookup))
		mux.HandleFunc("POST "+base+"/m/lookup", h.hma((*hook).hmaLookup))
		mux.HandleFunc("GET "+base+"/m/raw_lookup", h.hma((*hook).hmaRaw))
		mux.HandleFunc("GET "+base+"/m/index/status", h.hma((*hook).hmaIndex))
		mux.HandleFunc("GET "+base+"/c/banks", h.hma((*hook).hmaBanks))
		mux.HandleFunc("GET "+base+"/c/bank/{name}", h.hma((*hook).hmaBank))
		mux.HandleFunc("GET "+base+"/c/exchanges/apis", h.hma(func(*hook, context.Context, http.ResponseWriter, *http.Request, *caller) (any, hookAnswer) {
			return []string{}, answerAllow
		}))
		mux.HandleFunc("GET "+base+"/status", func(w http.ResponseWriter, _ *http.Request) {
			if !s.ready.Load() {
				http.Error(w, "INDEX-NOT-LOADED", http.StatusServiceUnavailable)
				return
			}
			io.WriteString(w, "I-AM-ALIVE")
		})
	}
}

// hma answers one request: with the value of work, or if that is nil with an error in HMA's form.
func (h *hook) hma(work func(*hook, context.Context, http.ResponseWriter, *http.Request, *caller) (any, hookAnswer)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		secret := r.PathValue("token")
		if secret == "" {
			if kind, rest, _ := strings.Cut(r.Header.Get("Authorization"), " "); strings.EqualFold(kind, "bearer") {
				secret = rest
			}
		}
		var v any
		a := h.answer(w, r, secret, func(ctx context.Context, c *caller) (a hookAnswer) {
			v, a = work(h, ctx, w, r, c)
			return a
		})
		if v == nil {
			w.Header().Set("Connection", "close")
			writeJSON(w, a.status, hmaError{a.Reason})
			return
		}
		writeJSON(w, http.StatusOK, v)
	}
}

// refusal is an answer to a request that makes no sense.
func refusal(code int, format string, args ...any) hookAnswer {
	return hookAnswer{Verdict: "reject", Reason: fmt.Sprintf(format, args...), status: code, why: "malformed"}
}

// hmaFile examines the file of a request, fetched or sent.
func (h *hook) hmaFile(ctx context.Context, w http.ResponseWriter, r *http.Request, c *caller) (*finding, hookAnswer) {
	if r.Method == http.MethodGet {
		address := r.URL.Query().Get("url")
		if address == "" {
			return nil, refusal(http.StatusBadRequest, "url is required")
		}
		return h.fetched(ctx, r, c, address, hashlist.Query{})
	}
	parts, err := r.MultipartReader()
	if err != nil {
		return nil, refusal(http.StatusBadRequest, "Missing multipart/form-data file upload")
	}
	for n := 0; n < 16; n++ {
		p, err := parts.NextPart()
		if err != nil {
			break
		}
		if p.FileName() == "" {
			continue // a field of the form
		}
		if name := p.FormName(); name != "photo" && name != "video" {
			return nil, refusal(http.StatusBadRequest, "no such content_type: '%.40s'", name)
		}
		return h.upload(ctx, w, r, c, io.Reader((*multipart.Part)(p)), hashlist.Query{})
	}
	return nil, refusal(http.StatusBadRequest, "Missing multipart/form-data file upload")
}

// signals are the hashes of a file by which HMA would look it up. vPDQ's is long, so it is
// there when it is asked for.
func signals(m *imagehash.Media, only []string) map[string]string {
	v := map[string]string{}
	if m.Video || len(m.Frames) == 0 {
		v["video_md5"] = m.MD5.Hex()
		if m.Video && slices.Contains(only, "vpdq") {
			frames := []string{}
			for i := range m.Frames {
				f := &m.Frames[i]
				if !f.PDQ[0].IsZero() {
					frames = append(frames, fmt.Sprintf("%s,%d,%d", f.PDQ[0].Hex(), f.Quality, i))
				}
			}
			text, _ := json.Marshal(frames) // of strings
			v["vpdq"] = string(text)
		}
	} else if h := m.Frames[0].PDQ[0]; !h.IsZero() {
		v["pdq"] = h.Hex()
	}
	if len(only) > 0 {
		for name := range v {
			if !slices.Contains(only, name) {
				delete(v, name)
			}
		}
	}
	return v
}

// types reads the signal types that a request asks for, none for all.
func types(q url.Values) ([]string, error) {
	var only []string
	for _, name := range strings.Split(q.Get("types"), ",") {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		if _, ok := signalAlgorithm(name); !ok {
			return nil, fmt.Errorf("signal type '%.40s' doesn't exist or is disabled", name)
		}
		only = append(only, name)
	}
	return only, nil
}

func signalAlgorithm(name string) (hashlist.Algorithm, bool) {
	for _, s := range hmaSignals {
		if s.name == name {
			return s.alg, true
		}
	}
	return 0, false
}

func (h *hook) hmaHash(ctx context.Context, w http.ResponseWriter, r *http.Request, c *caller) (any, hookAnswer) {
	only, err := types(r.URL.Query())
	if err != nil {
		return nil, refusal(http.StatusBadRequest, "%v", err)
	}
	f, a := h.hmaFile(ctx, w, r, c)
	if f == nil || len(f.media.Frames) == 0 && a.status != http.StatusOK {
		return nil, a
	}
	v := signals(f.media, only)
	for name, signal := range v {
		// Not what is behind the first picture of a file: whoever puts a banned one there would have others' harmless
		// picture, whose hash is the same, refused.
		if name != "pdq" || len(f.media.Frames) == 1 {
			h.hashed.Add(name+":"+signal, f.media)
		}
	}
	return v, a
}

// hmaMemory is how many files are remembered for whoever asks for a hash first, and then
// about it: a hash alone has lost the picture, and with it what is needed to find mirrored and turned copies.
const hmaMemory = 1024

func (h *hook) hmaLookup(ctx context.Context, w http.ResponseWriter, r *http.Request, c *caller) (any, hookAnswer) {
	q := r.URL.Query()
	if r.Method == http.MethodGet && q.Get("url") == "" {
		if q.Get("signal") == "" || q.Get("signal_type") == "" {
			return nil, refusal(http.StatusBadRequest, "Either url or both signal and signal_type are required")
		}
		f, a := h.hmaSignal(ctx, q)
		if f == nil {
			return nil, a
		}
		if a = h.verdict(c, f); a.Verdict == "allow" {
			return map[string][]hmaMatch{}, a
		}
		return h.hmaMatches(f, q.Get("banks"), nil), a
	}
	only, err := types(q)
	if err != nil {
		return nil, refusal(http.StatusBadRequest, "%v", err)
	}
	f, a := h.hmaFile(ctx, w, r, c)
	if f == nil || a.status != http.StatusOK && a.status != http.StatusForbidden {
		return nil, a
	}
	// A type for each kind of hash that there is, matched or not. What matches by a digest
	// is put where clients look.
	all := map[string]map[string][]hmaMatch{}
	names := signals(f.media, nil)
	if f.media.Video {
		names["vpdq"] = ""
	}
	main := "pdq"
	if _, ok := names["pdq"]; !ok {
		main = "video_md5"
	}
	for name := range names {
		if len(only) > 0 && !slices.Contains(only, name) {
			continue
		}
		all[name] = map[string][]hmaMatch{}
		if a.Verdict == "allow" {
			continue
		}
		all[name] = h.hmaMatches(f, q.Get("banks"), func(alg hashlist.Algorithm) bool {
			switch {
			case name == "vpdq":
				return alg == hashlist.VPDQ
			case name == main:
				return alg != hashlist.VPDQ
			}
			return false
		})
	}
	if t := q.Get("signal_type"); t != "" {
		return all[t], a
	}
	return all, a
}

func (h *hook) hmaRaw(ctx context.Context, _ http.ResponseWriter, r *http.Request, c *caller) (any, hookAnswer) {
	q := r.URL.Query()
	if q.Get("signal") == "" || q.Get("signal_type") == "" {
		return nil, refusal(http.StatusBadRequest, "both signal and signal_type are required")
	}
	f, a := h.hmaSignal(ctx, q)
	if f == nil {
		return nil, a
	}
	var full []hmaMatch
	for _, matches := range h.hmaMatches(f, q.Get("banks"), nil) {
		full = append(full, matches...)
	}
	slices.SortFunc(full, func(a, b hmaMatch) int { return int(a.Content) - int(b.Content) })
	if with, _ := strconv.ParseBool(q.Get("include_distance")); with {
		return map[string][]hmaMatch{"matches": append([]hmaMatch{}, full...)}, answerAllow
	}
	ids := []uint64{}
	for _, m := range full {
		ids = append(ids, m.Content)
	}
	return map[string][]uint64{"matches": ids}, answerAllow
}

// hmaSignal looks up one hash. As with other lookups of hashes that name no upload, the recent window does not keep
// it: a token could push out what was uploaded.
func (h *hook) hmaSignal(ctx context.Context, q url.Values) (*finding, hookAnswer) {
	alg, ok := signalAlgorithm(q.Get("signal_type"))
	if !ok {
		return nil, refusal(http.StatusBadRequest, "No such SignalType '%.40s'", q.Get("signal_type"))
	}
	var query hashlist.Query
	query.Limit = maxMatches
	if alg == hashlist.VPDQ {
		frames, err := vpdqFrames(q.Get("signal"))
		if err != nil {
			return nil, refusal(http.StatusBadRequest, "invalid signal: %v", err)
		}
		for i, v := range frames {
			query.Probes = append(query.Probes, hashlist.Probe{Hash: v.OfVideo(), Index: i})
		}
	} else {
		v, err := hashlist.ParseHashLenient(alg, strings.TrimSpace(q.Get("signal")))
		if err != nil {
			return nil, refusal(http.StatusBadRequest, "invalid signal: not a %v hash", alg)
		}
		query.Probes = []hashlist.Probe{{Hash: v}}
		if m, ok := h.hashed.Get(q.Get("signal_type") + ":" + v.Hex()); ok {
			query.Probes = probes(m, h.cfg.Policy.MinQuality)
		} else if alg == hashlist.PDQ {
			query.Probes = append(query.Probes, hashlist.Probe{Hash: v.Complement(), Transform: "inverted"})
		}
	}
	f := &finding{Result: h.cfg.Lists.Lookup(query)}
	h.metrics.verdict(f.Verdict)
	f.id = h.audit.verdict(ctx, &query, &f.Result, askedHashes(&query))
	h.held(&query, &f.Result, f.id)
	h.actOn(f.id, &query, &f.Result)
	return f, answerAllow
}

// vpdqFrames reads vPDQ's text form, a JSON array of "hash,quality,time", and leaves out
// frames too flat to have a hash.
func vpdqFrames(text string) ([]hashlist.Hash, error) {
	var lines []string
	if err := json.Unmarshal([]byte(text), &lines); err != nil || len(lines) > hashlist.MaxHashes {
		return nil, errors.New("not a JSON array of up to 1000 frames")
	}
	var all []hashlist.Hash
	for i, line := range lines {
		digits, rest, _ := strings.Cut(line, ",")
		quality, _, _ := strings.Cut(rest, ",")
		v, err := hashlist.ParseHashLenient(hashlist.PDQ, digits)
		if err != nil {
			return nil, fmt.Errorf("frame %d has no PDQ hash", i+1)
		}
		if n, err := strconv.Atoi(quality); err != nil || n >= vpdqQuality {
			all = append(all, v)
		}
	}
	if len(all) == 0 {
		return nil, errors.New("it has no frame that shows anything")
	}
	return all, nil
}

// vpdqQuality is the least quality of a frame; Meta's vPDQ drops what is below 31 to 50.
const vpdqQuality = 50

// hmaMatches are the matches that speak against a file, by bank.
func (h *hook) hmaMatches(f *finding, banks string, only func(hashlist.Algorithm) bool) map[string][]hmaMatch {
	all := map[string][]hmaMatch{}
	for m := range against(f) {
		name := h.bank(m.List, m.ListName)
		if banks != "" && !slices.Contains(strings.Split(banks, ","), name) || only != nil && !only(m.Probe.Hash.Algorithm()) {
			continue
		}
		_, seq, _ := h.cfg.Lists.Issued(m.Statement)
		if !slices.ContainsFunc(all[name], func(o hmaMatch) bool { return o.Content == seq }) { // nearest first
			all[name] = append(all[name], hmaMatch{seq, strconv.Itoa(m.Distance)})
		}
	}
	return all
}

// bank is the name of a list as HMA writes names of banks: capitals, digits and underscores.
// A list of another node has that node's name behind it.
func (s *Server) bank(iri, name string) string {
	if s.own(iri) != nil {
		if u, err := url.Parse(iri); err == nil {
			name += "_" + u.Host
		}
	}
	return strings.Map(func(c rune) rune {
		if c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
			return c
		}
		return '_'
	}, strings.ToUpper(name))
}

// banks are the lists that can speak against something, sorted.
func (s *Server) banks() []hmaBank {
	all := []hmaBank{}
	for _, l := range s.cfg.Lists.All() {
		if l.Action == hashlist.Accept {
			continue
		}
		if b := (hmaBank{s.bank(l.ID, l.Name), 1}); !slices.Contains(all, b) {
			all = append(all, b)
		}
	}
	slices.SortFunc(all, func(a, b hmaBank) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func (h *hook) hmaBanks(context.Context, http.ResponseWriter, *http.Request, *caller) (any, hookAnswer) {
	return h.banks(), answerAllow
}

func (h *hook) hmaBank(_ context.Context, _ http.ResponseWriter, r *http.Request, _ *caller) (any, hookAnswer) {
	for _, b := range h.banks() {
		if b.Name == r.PathValue("name") {
			return b, answerAllow
		}
	}
	return nil, refusal(http.StatusNotFound, "bank '%.80s' not found", r.PathValue("name"))
}

// hmaIndexStatus tells of an index in HMA's words.
type hmaIndexStatus struct {
	Built   int64 `json:"built_to"` // a time in HMA; here the place in the log
	Present bool  `json:"present"`
	Size    int   `json:"size"`
}

func (h *hook) hmaIndex(_ context.Context, _ http.ResponseWriter, r *http.Request, _ *caller) (any, hookAnswer) {
	only := r.URL.Query().Get("signal_type")
	if _, ok := signalAlgorithm(only); only != "" && !ok {
		return nil, refusal(http.StatusBadRequest, "No such signal type '%.40s'", only)
	}
	counts, seq := h.cfg.Lists.Counts(), int64(h.cfg.Lists.Seq())
	all := map[string]hmaIndexStatus{}
	for _, s := range hmaSignals {
		if only == "" || only == s.name {
			all[s.name] = hmaIndexStatus{seq, true, counts.Hashes[s.alg]}
		}
	}
	return all, answerAllow
}
