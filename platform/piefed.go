package platform

import (
	"context"
	"encoding/json"
	"net/http"
)

// piefed speaks PieFed's alpha API, which is like Lemmy's. It has no purge, and blocks an
// instance for one user only, so neither is offered.
type piefed struct{ endpoint }

func newPiefed(p *Platform, token string) *piefed {
	f := &piefed{p.endpoint("Authorization", "Bearer "+token)}
	f.base += "/api/alpha"
	f.classify = func(_ int, said string) error {
		switch said {
		case "incorrect_login", "Invalid authorization", "You do not have permission to perform this action.":
			return errRefused
		case "No object found.":
			return errGone
		}
		return nil
	}
	return f
}

func (p *piefed) look(ctx context.Context, a *Act) (look, error) {
	return lookObject(ctx, &p.endpoint, a)
}

func (p *piefed) do(ctx context.Context, a *Act, l *look) error {
	if a.Kind == BanPerson {
		return p.post(ctx, "/user/ban", struct {
			PersonID     json.Number `json:"person_id"`
			BanIPAddress bool        `json:"ban_ip_address"`
			PurgeContent bool        `json:"purge_content"`
			Reason       string      `json:"reason"`
		}{json.Number(l.id), false, false, reason(a)})
	}
	return p.remove(ctx, a, l, true)
}

func (p *piefed) undo(ctx context.Context, a *Act, l *look) error {
	if a.Kind == BanPerson {
		return p.post(ctx, "/user/unban", struct {
			PersonID json.Number `json:"person_id"`
			Reason   string      `json:"reason"`
		}{json.Number(l.id), reason(a)})
	}
	return p.remove(ctx, a, l, false)
}

func (p *piefed) remove(ctx context.Context, a *Act, l *look, on bool) error {
	return p.post(ctx, "/post/remove", struct {
		PostID  json.Number `json:"post_id"`
		Removed bool        `json:"removed"`
		Reason  string      `json:"reason"`
	}{json.Number(l.id), on, reason(a)})
}

func (p *piefed) post(ctx context.Context, path string, in any) error {
	_, err := p.call(ctx, http.MethodPost, path, nil, in, nil)
	return err
}
