package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/tocsin-fed/tocsin/guarded"
	"github.com/tocsin-fed/tocsin/hashlist"
)

// fetched examines the file at an address that a platform names. Whoever posts
// chooses the address, so it is fetched through the guarded client alone.
func (h *hook) fetched(ctx context.Context, r *http.Request, c *caller, address string, of hashlist.Query) (*finding, hookAnswer) {
	// A door of its own: a server that sends slowly must not take the room of files that platforms bring.
	if err := h.fetches.Acquire(ctx, 1); err != nil {
		return nil, h.unknown(r, "trouble", fmt.Errorf("wait for other files to be fetched: %w", context.Cause(ctx)))
	}
	end := sync.OnceFunc(func() { h.fetches.Release(1) })
	defer end()
	file, err := guarded.Media(ctx, h.cfg.Fetch, address, h.agent(), h.cfg.Limit.MediaBytes)
	switch {
	case errors.Is(err, guarded.ErrTooLarge):
		return nil, answerTooLong
	case err != nil:
		return nil, h.unknown(r, "unreachable", err)
	}
	release, err := h.hold(ctx)
	if err != nil {
		return nil, h.unknown(r, "trouble", err)
	}
	defer release()
	end()
	if of.Reference.URL == "" {
		of.Reference.URL = address
	}
	return h.look(ctx, r, c, file, of)
}

// agent is the User-Agent of what is fetched.
func (s *Server) agent() string { return fmt.Sprintf("tocsin/%s (+%s)", s.cfg.Version, s.cfg.Origin) }

// addressOf takes the address of a file out of a query that ends with name=address.
// Akkoma writes the address as it is, with its own & and % in it, others encode it as
// queries are: one that begins with a scheme and // is not encoded.
func addressOf(rawQuery, name string) (string, error) {
	_, rest, ok := strings.Cut("&"+rawQuery, "&"+name+"=")
	if !ok || rest == "" {
		return "", fmt.Errorf("there is no %s in the query", name)
	}
	if strings.HasPrefix(rest, "https://") || strings.HasPrefix(rest, "http://") {
		return rest, nil
	}
	rest, _, _ = strings.Cut(rest, "&")
	return url.QueryUnescape(rest)
}

// reference bounds what a platform tells by which name it knows a file. What does not
// fit is left out: it is of no use, and no reason not to look.
func referenceOf(v hashlist.Reference) hashlist.Reference {
	for _, text := range []*string{&v.URL, &v.Alias, &v.Post, &v.Actor} {
		if len(*text) > hashlist.MaxReference || (&hashlist.Reference{URL: *text}).Validate() != nil {
			*text = ""
		}
	}
	return v
}
