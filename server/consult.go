package server

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/tocsin-fed/tocsin/exchange/source"
	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/hashlist/imagehash"
)

// Opinion is a service elsewhere that is asked of each upload which this node would let pass.
type Opinion struct {
	Asker   *source.Asker
	Most    hashlist.Verdict // what an upload that it knows comes to
	Trouble Answer           // reject: an upload that it could not be asked of is refused
}

// consult asks the services, all at once, and makes the verdict graver by what they say. What they decide
// rests on no list: that it did is returned, and the result has no Decision. It is no milder for
// anything: what this node refuses they are not asked of, and neither are they of what it knows to
// be harmless. An upload waits for each of them no longer than that one's timeout.
func (s *Server) consult(ctx context.Context, file []byte, media *imagehash.Media, r *hashlist.Result) (graver bool) {
	if len(s.cfg.Opinions) == 0 || r.Verdict == hashlist.VerdictReject || len(media.Frames) == 0 {
		return false
	}
	for i := range r.Matches {
		if s.harmless(&r.Matches[i]) {
			return false
		}
	}
	u := source.Upload{SHA256: media.SHA256, File: file, Media: "image/" + media.Format, Width: media.Width, Height: media.Height}
	for i := range media.Frames {
		if f := &media.Frames[i]; f.Quality >= s.cfg.Policy.MinQuality {
			u.PDQ = append(u.PDQ, f.PDQ[0])
		}
	}
	type said struct {
		verdict hashlist.Verdict
		reason  string
	}
	all := make([]said, len(s.cfg.Opinions))
	var asked sync.WaitGroup
	for i, o := range s.cfg.Opinions {
		asked.Go(func() {
			start := time.Now()
			v, err := o.Asker.Ask(ctx, u)
			result := "unknown"
			switch {
			case err != nil:
				result = "trouble"
				s.log.Warn("a service could not be asked of an upload", slog.String("service", o.Asker.Name()), errorText(err))
				if o.Trouble == AnswerReject {
					all[i] = said{hashlist.VerdictReject, o.Asker.Name() + " could not be asked, and nothing passes without it"}
				}
			case v.Known:
				result = "known"
				all[i] = said{o.Most, fmt.Sprintf("known to %s as %s", o.Asker.Name(), strings.Join(v.Labels, ", "))}
			}
			s.metrics.opinions.WithLabelValues(o.Asker.Name(), result).Inc()
			s.metrics.opinionTime.WithLabelValues(o.Asker.Name()).Observe(time.Since(start).Seconds())
		})
	}
	asked.Wait()
	for _, v := range all {
		if v.verdict > r.Verdict {
			r.Verdict, r.Reason, r.Decision, graver = v.verdict, v.reason, hashlist.Decision{}, true
		}
	}
	return graver
}
