package server

import (
	"context"
	"net/http"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// The answer of com.atproto.unspecced.scanBlob, as bluesky-social/indigo reads it
// (automod/visual). The hash is left out of a hit: it is a list's secret.
type (
	blobScan struct {
		Blob  *struct{}  `json:"blob"`
		Match *blobMatch `json:"match,omitempty"`
	}
	blobMatch struct {
		Status string    `json:"status"` // success
		Hits   []blobHit `json:"hits"`
	}
	blobHit struct {
		HashType string `json:"hashType,omitempty"` // by which algorithm
		Label    string `json:"label,omitempty"`    // indigo takes down csam and csem
	}
)

// hookIndigo answers the blob scanner of indigo's automod and of ozone:
//
//	POST /hook/indigo/xrpc/com.atproto.unspecced.scanBlob?did=DID
//
// The body is the blob; the password of Basic authentication is the token. A hit
// for each label of what matched says what the blob is. What could not be examined, where the setting
// is reject, is an error, which indigo logs: it looks after a post is there, so it cannot be
// refused.
func (s *Server) hookIndigo(w http.ResponseWriter, r *http.Request) {
	h := &hook{s, "indigo", *s.cfg.Hooks.Indigo}
	_, secret, _ := r.BasicAuth()
	var f *finding
	a := h.answer(w, r, secret, func(ctx context.Context, c *caller) (a hookAnswer) {
		q := r.URL.Query()
		f, a = h.upload(ctx, w, r, c, r.Body, hashlist.Query{Reference: referenceOf(hashlist.Reference{Actor: q.Get("did"), Post: q.Get("uri")})})
		return a
	})
	if a.status != http.StatusOK && a.status != http.StatusForbidden {
		w.Header().Set("Connection", "close")
		writeJSON(w, a.status, a)
		return
	}
	match := &blobMatch{Status: "success", Hits: []blobHit{}}
	if a.Verdict != "allow" {
		seen := map[string]bool{}
		for m := range against(f) {
			labels := m.Labels
			if len(labels) == 0 {
				labels = []string{"blocked"}
			}
			for _, l := range labels {
				if !seen[l] {
					seen[l] = true
					match.Hits = append(match.Hits, blobHit{m.Probe.Hash.Algorithm().String(), l})
				}
			}
		}
	}
	writeJSON(w, http.StatusOK, blobScan{Match: match})
}

// against are the matches that speak against a file.
func against(f *finding) func(yield func(*hashlist.Match) bool) {
	return func(yield func(*hashlist.Match) bool) {
		for i := range f.Matches {
			if m := &f.Matches[i]; !m.Suppressed && m.Action != hashlist.Accept && !yield(m) {
				return
			}
		}
	}
}
