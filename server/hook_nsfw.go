package server

import (
	"context"
	"net/http"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// nsfwScore is what an NSFW API answers (EugenCepoi/nsfw_api). Akkoma and Rebased act
// at a score that they set, 0.7 by default.
type nsfwScore struct {
	Score float64 `json:"score"`
}

// hookNSFW answers the policy NsfwApiPolicy of Akkoma and Rebased, which asks about
// each attachment by its address:
//
//	GET /hook/nsfw/TOKEN/?url=ADDRESS
//
// The score is 1 for what is to be refused, 0.5 for what is flagged, or held where
// the setting lets that through, and 0 for all else. What could not be examined scores by its setting.
// Without a good token there is no score, and the platform lets the post through.
func (s *Server) hookNSFW(w http.ResponseWriter, r *http.Request) {
	h := &hook{s, "nsfw", *s.cfg.Hooks.NSFW}
	var f *finding
	a := h.answer(w, r, r.PathValue("token"), func(ctx context.Context, c *caller) (a hookAnswer) {
		address, err := addressOf(r.URL.RawQuery, "url")
		if err != nil {
			return answerNothing
		}
		f, a = h.fetched(ctx, r, c, address, hashlist.Query{})
		return a
	})
	switch {
	case a.status == http.StatusUnauthorized || a.status == http.StatusTooManyRequests || a.status == http.StatusBadRequest:
		writeJSON(w, a.status, a)
	case a.Verdict != "allow":
		writeJSON(w, http.StatusOK, nsfwScore{1})
	case f != nil && f.Verdict > hashlist.VerdictAllow:
		writeJSON(w, http.StatusOK, nsfwScore{0.5})
	default:
		writeJSON(w, http.StatusOK, nsfwScore{0})
	}
}
