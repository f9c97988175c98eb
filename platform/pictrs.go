package platform

import (
	"context"
	"net/http"
	"net/url"
)

// pictrs deletes files of pict-rs by their alias. The other aliases of the same bytes stay: they are
// other people's uploads, and are found for themselves.
type pictrs struct{ endpoint }

func newPictrs(p *Platform, token string) *pictrs {
	return &pictrs{p.endpoint("X-Api-Token", token)}
}

func (p *pictrs) look(ctx context.Context, a *Act) (look, error) {
	_, err := p.call(ctx, http.MethodGet, "/internal/identifier", url.Values{"alias": {a.Target}}, nil, nil)
	return look{id: a.Target}, err
}

func (p *pictrs) do(ctx context.Context, _ *Act, l *look) error {
	_, err := p.call(ctx, http.MethodPost, "/internal/delete", url.Values{"alias": {l.id}}, nil, nil)
	return err
}

func (p *pictrs) undo(context.Context, *Act, *look) error {
	return fail(errRefused, "%s", final[DeleteMedia])
}
