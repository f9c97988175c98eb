package server

import (
	"context"
	"net/http"
	"strings"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// pieFedHash is what PieFed's IMAGE_HASHING_ENDPOINT answers (app/utils.py,
// retrieve_image_hash). PieFed compares the hash with those of its own blocked images, at a
// distance below 15, if the quality is at least 70.
type pieFedHash struct {
	Quality int    `json:"quality"`         // PDQ's, 0 to 100
	Hash    string `json:"pdq_hash_binary"` // 256 characters of 0 and 1, the first is bit 255
}

// hookPieFed answers PieFed, which asks for the hash of a picture by its address:
//
//	GET /hook/piefed/TOKEN?image_url=ADDRESS
//
// The platform knows only its own blocked images, so a picture that is to be refused gets
// the hash that the operator has blocked there (hook.piefed.blocked), if there is one,
// and otherwise its own. What could not be examined has no hash: PieFed then lets it
// through, unless the setting says reject and there is such a hash.
func (s *Server) hookPieFed(w http.ResponseWriter, r *http.Request) {
	h := &hook{s, "piefed", *s.cfg.Hooks.PieFed}
	var f *finding
	a := h.answer(w, r, r.PathValue("token"), func(ctx context.Context, c *caller) (a hookAnswer) {
		address, err := addressOf(r.URL.RawQuery, "image_url")
		if err != nil {
			return answerNothing
		}
		f, a = h.fetched(ctx, r, c, address, hashlist.Query{})
		return a
	})
	blocked := s.cfg.Hooks.Blocked
	switch {
	case a.Verdict != "allow" && !blocked.IsZero() && (f != nil || a.why == "unreachable" || a.why == "too many bytes"):
		writeJSON(w, http.StatusOK, pieFedHash{100, bits(blocked)})
	case f != nil && len(f.media.Frames) > 0:
		frame := &f.media.Frames[0]
		writeJSON(w, http.StatusOK, pieFedHash{frame.Quality, bits(frame.PDQ[0])})
	case a.status == http.StatusOK: // accepted unseen: there is no hash to give
		writeJSON(w, http.StatusUnprocessableEntity, a)
	default:
		writeJSON(w, a.status, a)
	}
}

// bits are the bits of a hash as text, the most significant first. The zero Hash has
// those of an all-zero PDQ hash.
func bits(h hashlist.Hash) string {
	sum := make([]byte, hashlist.PDQ.Size())
	copy(sum, h.Sum())
	var b strings.Builder
	for _, v := range sum {
		for i := 7; i >= 0; i-- {
			b.WriteByte('0' + v>>i&1)
		}
	}
	return b.String()
}
