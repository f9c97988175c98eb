package platform

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// look is how the target of an act is before, or after, it is done.
type look struct {
	done   bool   // it is as the act would make it
	never  string // why nothing may be done to it; "" for nothing of the kind
	soften string // why only the softer form may be done; "" for none
	before []byte // JSON for Act.Before
	id     string // the platform's own number for it
}

// acting is what a client of a platform does. look returns errGone if there is nothing (any
// more) to act on.
type acting interface {
	look(ctx context.Context, a *Act) (look, error)
	do(ctx context.Context, a *Act, l *look) error
	undo(ctx context.Context, a *Act, l *look) error
}

// lemmy speaks to Lemmy: /api/v3 of 0.19, or /api/v4 of 1.0.
type lemmy struct {
	endpoint
	v4 bool
}

func newLemmy(p *Platform, token string) *lemmy {
	l := &lemmy{endpoint: p.endpoint("Authorization", "Bearer "+token), v4: p.API == "1.0"}
	l.classify = lemmyError
	l.base += "/api/v3"
	if l.v4 {
		l.base = strings.TrimSuffix(l.base, "3") + "4"
	}
	return l
}

// lemmyError reads the codes that Lemmy has in the place of statuses: most come with 400.
func lemmyError(_ int, code string) error {
	switch code {
	case "not_an_admin", "not_logged_in", "incorrect_login", "not_a_mod_or_admin", "not_higher_admin":
		return errRefused
	case "rate_limit_error":
		return errBusy
	case "couldnt_find_object", "couldnt_find_post", "couldnt_find_person", "not_found", "object_is_not_public", "resolve_object_failed":
		return errGone
	}
	return nil
}

// resolved is what of resolve_object is read. Pointers tell what is missing from
// what is false: where the platform does not say whether somebody is an admin, nobody may
// guess.
type resolved struct {
	Post *struct {
		Post struct {
			ID      json.Number `json:"id"`
			Removed *bool       `json:"removed"`
		} `json:"post"`
	} `json:"post"`
	Person *struct {
		Person struct {
			ID     json.Number `json:"id"`
			Banned *bool       `json:"banned"`
			Local  bool        `json:"local"`
		} `json:"person"`
		IsAdmin *bool `json:"is_admin"`
		Banned  *bool `json:"banned"` // since 1.0 it stands here
	} `json:"person"`
}

func (l *lemmy) look(ctx context.Context, a *Act) (look, error) {
	if a.Kind == BlockInstance {
		return l.lookInstance(ctx, a.Target)
	}
	return lookObject(ctx, &l.endpoint, a)
}

// lookObject looks at a post or a person, in Lemmy and in PieFed, whose API is like it.
func lookObject(ctx context.Context, e *endpoint, a *Act) (look, error) {
	var r resolved
	if _, err := e.call(ctx, http.MethodGet, "/resolve_object", url.Values{"q": {a.Target}}, nil, &r); err != nil {
		return look{}, err
	}
	switch {
	case a.Kind == BanPerson && r.Person != nil:
		p := r.Person
		banned := p.Person.Banned
		if banned == nil {
			banned = p.Banned
		}
		if p.Person.ID == "" || p.IsAdmin == nil || banned == nil {
			return look{}, fail(errAnswer, "it does not say who %s is, whether they are an admin, or whether they are banned", a.Target)
		}
		v := look{done: *banned, id: p.Person.ID.String()}
		if *p.IsAdmin {
			v.never = "they are an admin"
		}
		return v, nil
	case (a.Kind == RemovePost || a.Kind == PurgePost) && r.Post != nil:
		p := &r.Post.Post
		if p.ID == "" || p.Removed == nil {
			return look{}, fail(errAnswer, "it does not say which post %s is, or whether it is removed", a.Target)
		}
		return look{done: *p.Removed && a.Kind == RemovePost, id: p.ID.String()}, nil
	case a.Kind == BanPerson || a.Kind == RemovePost || a.Kind == PurgePost:
		return look{}, fail(errGone, "%s", a.Target)
	}
	return look{}, fail(errAnswer, "its API has no %s", a.Kind)
}

// reason is what the moderation log of the platform shows: who reads it need not learn more than
// which node it was.
func reason(a *Act) string { return "tocsin " + a.ID }

func (l *lemmy) do(ctx context.Context, a *Act, at *look) error { return l.set(ctx, a, at, true) }

func (l *lemmy) undo(ctx context.Context, a *Act, at *look) error { return l.set(ctx, a, at, false) }

func (l *lemmy) set(ctx context.Context, a *Act, at *look, on bool) error {
	id := json.Number(at.id)
	switch a.Kind {
	case RemovePost:
		return l.post(ctx, "/post/remove", struct {
			PostID  json.Number `json:"post_id"`
			Removed bool        `json:"removed"`
			Reason  string      `json:"reason"`
		}{id, on, reason(a)})
	case PurgePost:
		return l.post(ctx, "/admin/purge/post", struct {
			PostID json.Number `json:"post_id"`
			Reason string      `json:"reason"`
		}{id, reason(a)})
	case BanPerson:
		path := "/user/ban"
		if l.v4 {
			path = "/admin/ban"
		}
		// Neither version is asked to remove what the person posted: no undo would bring back all of it.
		return l.post(ctx, path, struct {
			PersonID json.Number `json:"person_id"`
			Ban      bool        `json:"ban"`
			Reason   string      `json:"reason"`
		}{id, on, reason(a)})
	case BlockInstance:
		return l.block(ctx, a, on)
	}
	return fail(errAnswer, "its API has no %s", a.Kind)
}

func (l *lemmy) post(ctx context.Context, path string, in any) error {
	_, err := l.call(ctx, http.MethodPost, path, nil, in, nil)
	return err
}

// blocked reads the whole list of blocked instances of 0.19. Whatever is missing from it when
// it is written back is unblocked, so an answer without the list is no empty list.
func (l *lemmy) blocked(ctx context.Context) ([]string, error) {
	type instance struct {
		Domain string `json:"domain"`
	}
	var v struct {
		FederatedInstances *struct {
			Allowed []instance  `json:"allowed"`
			Blocked *[]instance `json:"blocked"`
		} `json:"federated_instances"`
	}
	if _, err := l.call(ctx, http.MethodGet, "/federated_instances", nil, nil, &v); err != nil {
		return nil, err
	}
	if v.FederatedInstances == nil || v.FederatedInstances.Blocked == nil {
		return nil, fail(errAnswer, "its list of federated instances has no blocked ones in it")
	}
	if len(v.FederatedInstances.Allowed) > 0 {
		return nil, fail(errRefused, "it federates with an allow list, beside which it takes no block list")
	}
	var all []string
	for _, i := range *v.FederatedInstances.Blocked {
		if i.Domain == "" {
			return nil, fail(errAnswer, "its list of blocked instances has one without a domain")
		}
		all = append(all, i.Domain)
	}
	return all, nil
}

func (l *lemmy) lookInstance(ctx context.Context, domain string) (look, error) {
	if !l.v4 {
		all, err := l.blocked(ctx)
		return look{done: slices.Contains(all, domain)}, err
	}
	var page struct {
		Items *[]struct {
			Instance struct {
				Domain string `json:"domain"`
			} `json:"instance"`
		} `json:"items"`
	}
	query := url.Values{"kind": {"blocked"}, "domain_filter": {domain}, "limit": {"50"}}
	if _, err := l.call(ctx, http.MethodGet, "/federated_instances", query, nil, &page); err != nil {
		return look{}, err
	}
	if page.Items == nil {
		return look{}, fail(errAnswer, "its page of blocked instances has no items")
	}
	for _, i := range *page.Items {
		if i.Instance.Domain == domain {
			return look{done: true}, nil
		}
	}
	return look{}, nil
}

// block adds a domain to the blocked ones, or takes it from them. 0.19 replaces its
// whole list by the one it is sent: it is read immediately before, sent with the one
// change, and read again, and what another admin has changed meanwhile is told.
func (l *lemmy) block(ctx context.Context, a *Act, on bool) error {
	if l.v4 {
		return l.post(ctx, "/admin/instance/block", struct {
			Instance string `json:"instance"`
			Block    bool   `json:"block"`
			Reason   string `json:"reason"`
		}{a.Target, on, reason(a)})
	}
	all, err := l.blocked(ctx)
	if err != nil {
		return err
	}
	changed := slices.DeleteFunc(slices.Clone(all), func(d string) bool { return d == a.Target })
	if on {
		changed = append(changed, a.Target)
	}
	if changed == nil {
		changed = []string{} // null would mean no change
	}
	if _, err := l.call(ctx, http.MethodPut, "/site", nil, struct {
		BlockedInstances []string `json:"blocked_instances"`
	}{changed}, nil); err != nil {
		return err
	}
	now, err := l.blocked(ctx)
	if err != nil {
		return err
	}
	for _, d := range changed {
		if !slices.Contains(now, d) {
			return fail(errAnswer, "after the change %s is not among its blocked instances: look at them", d)
		}
	}
	return nil
}
