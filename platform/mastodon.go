package platform

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// mastodon speaks the admin API of Mastodon 4.0 and later.
type mastodon struct{ endpoint }

func newMastodon(p *Platform, token string) *mastodon {
	m := &mastodon{p.endpoint("Authorization", "Bearer "+token)}
	m.base += "/api"
	return m
}

// adminAccount is what of an Admin::Account is read.
type adminAccount struct {
	ID         string  `json:"id"`
	Domain     *string `json:"domain"` // null for a local account
	Suspended  *bool   `json:"suspended"`
	Silenced   *bool   `json:"silenced"`
	Sensitized *bool   `json:"sensitized"`
	Role       *struct {
		ID any `json:"id"` // a number or a text, by the version
	} `json:"role"`
	Account struct {
		HideCollections bool `json:"hide_collections"`
	} `json:"account"`
}

// everyone is the id of the role that gives no rights.
const everyone = "-99"

func (m *mastodon) look(ctx context.Context, a *Act) (look, error) {
	if a.Kind == BlockInstance {
		return m.lookDomain(ctx, a)
	}
	id, err := m.find(ctx, a.Target)
	if err != nil {
		return look{}, err
	}
	var v adminAccount
	if _, err := m.call(ctx, http.MethodGet, "/v1/admin/accounts/"+url.PathEscape(id), nil, nil, &v); err != nil {
		return look{}, err
	}
	if v.ID != id || v.Suspended == nil || v.Silenced == nil || v.Sensitized == nil {
		return look{}, fail(errAnswer, "it does not say whether %s is suspended, silenced or sensitized", a.Target)
	}
	l := look{id: id, done: *v.Suspended}
	if v.Domain == nil && (v.Role == nil || fmt.Sprint(v.Role.ID) != everyone) {
		// A role beyond everyone's belongs to staff; without a role, nobody knows.
		l.never = "they belong to the staff of this server"
		return l, nil
	}
	switch {
	case a.Kind == Sensitive:
		l.done = *v.Sensitized || *v.Suspended
	case a.Soft:
		l.done = *v.Silenced || *v.Suspended
	case !*v.Suspended:
		if l.soften, err = m.followed(ctx, id, v.Account.HideCollections); err != nil {
			return look{}, err
		}
	}
	return l, nil
}

// find returns the id of an account that the server knows already. It is not made to fetch one:
// there would be nothing to act on.
func (m *mastodon) find(ctx context.Context, actor string) (string, error) {
	var v struct {
		Accounts *[]struct{ ID, URL, URI string } `json:"accounts"`
	}
	query := url.Values{"q": {actor}, "type": {"accounts"}, "resolve": {"false"}, "limit": {"5"}}
	if _, err := m.call(ctx, http.MethodGet, "/v2/search", query, nil, &v); err != nil {
		return "", err
	}
	if v.Accounts == nil {
		return "", fail(errAnswer, "its search has no accounts in it")
	}
	for _, a := range *v.Accounts {
		if a.ID != "" && (a.URI == actor || a.URL == actor) {
			return a.ID, nil
		}
	}
	return "", fail(errGone, "%s", actor)
}

// followed says why an account may not be suspended: people here follow it. Of a remote account
// only what this server knows of its followers is shown, which are those that are here.
func (m *mastodon) followed(ctx context.Context, id string, hidden bool) (string, error) {
	if hidden {
		return "whether people here follow it is hidden", nil
	}
	var all []struct {
		Acct string `json:"acct"`
	}
	if _, err := m.call(ctx, http.MethodGet, "/v1/accounts/"+url.PathEscape(id)+"/followers", url.Values{"limit": {"80"}}, nil, &all); err != nil {
		return "", err
	}
	for _, f := range all {
		if !strings.Contains(f.Acct, "@") {
			return "people here follow it", nil
		}
	}
	return "", nil
}

func (m *mastodon) do(ctx context.Context, a *Act, l *look) error {
	if a.Kind == BlockInstance {
		return m.block(ctx, a)
	}
	action := map[Kind]string{Sensitive: "sensitive", Suspend: "suspend"}[a.Kind]
	if a.Soft {
		action = "silence"
	}
	form := url.Values{"type": {action}, "text": {reason(a)}, "send_email_notification": {"false"}}
	_, err := m.call(ctx, http.MethodPost, "/v1/admin/accounts/"+url.PathEscape(l.id)+"/action", nil, form, nil)
	return err
}

func (m *mastodon) undo(ctx context.Context, a *Act, l *look) error {
	if a.Kind == BlockInstance {
		return m.unblock(ctx, a, l)
	}
	action := map[Kind]string{Sensitive: "unsensitive", Suspend: "unsuspend"}[a.Kind]
	if a.Soft {
		action = "unsilence"
	}
	_, err := m.call(ctx, http.MethodPost, "/v1/admin/accounts/"+url.PathEscape(l.id)+"/"+action, nil, nil, nil)
	return err
}

// domainBlock is what of an Admin::DomainBlock is read, and kept to be restored.
type domainBlock struct {
	ID            string `json:"id"`
	Domain        string `json:"domain"`
	Severity      string `json:"severity"`
	RejectMedia   bool   `json:"reject_media"`
	RejectReports bool   `json:"reject_reports"`
}

const maxPages = 200 // of 200 domain blocks each

// findBlock returns the block of exactly this domain, nil if there is none. The API has no
// search, so all are read.
func (m *mastodon) findBlock(ctx context.Context, domain string) (*domainBlock, error) {
	query := url.Values{"limit": {"200"}}
	for range maxPages {
		var page []domainBlock
		header, err := m.call(ctx, http.MethodGet, "/v1/admin/domain_blocks", query, nil, &page)
		if err != nil {
			return nil, err
		}
		for _, b := range page {
			if b.Domain == domain {
				if b.ID == "" || b.Severity == "" {
					return nil, fail(errAnswer, "its block of %s has no id or no severity", domain)
				}
				return &b, nil
			}
		}
		next := nextPage(header.Get("Link"))
		if next == "" {
			return nil, nil
		}
		query.Set("max_id", next)
	}
	return nil, fail(errAnswer, "it has more than %d pages of domain blocks", maxPages)
}

// nextPage is the max_id of the next page in a Link header, "" for none. Of its address nothing else is
// taken: credentials go to no host but the platform's.
func nextPage(link string) string {
	for part := range strings.SplitSeq(link, ",") {
		target, rest, ok := strings.Cut(strings.TrimSpace(part), ">")
		if !ok || !strings.Contains(rest, `rel="next"`) {
			continue
		}
		u, err := url.Parse(strings.TrimPrefix(target, "<"))
		if err != nil {
			return ""
		}
		return u.Query().Get("max_id")
	}
	return ""
}

// severities in the order of their weight.
var severities = map[string]int{"noop": 0, "silence": 1, "suspend": 2}

func severity(a *Act) string {
	if a.Soft {
		return "silence"
	}
	return "suspend"
}

func (m *mastodon) lookDomain(ctx context.Context, a *Act) (look, error) {
	b, err := m.findBlock(ctx, a.Target)
	if err != nil {
		return look{}, err
	}
	l := look{before: []byte("null")}
	if b != nil {
		l.id = b.ID
		l.done = severities[b.Severity] > severities[severity(a)] || b.Severity == severity(a) && b.RejectMedia
		if l.before, err = json.Marshal(b); err != nil {
			return look{}, err
		}
	}
	if !l.done && !a.Soft {
		l.soften, err = m.follows(ctx, a.Target)
	}
	return l, err
}

// follows says why an instance may not be suspended: follows in either direction would be lost.
func (m *mastodon) follows(ctx context.Context, domain string) (string, error) {
	now := time.Now().UTC()
	form := url.Values{
		"keys[]": {"instance_follows", "instance_followers"}, "start_at": {now.AddDate(0, 0, -1).Format(time.DateOnly)}, "end_at": {now.Format(time.DateOnly)},
		"instance_follows[domain]": {domain}, "instance_followers[domain]": {domain},
	}
	var all []struct {
		Key   string `json:"key"`
		Total string `json:"total"`
	}
	if _, err := m.call(ctx, http.MethodPost, "/v1/admin/measures", nil, form, &all); err != nil {
		return "", err
	}
	if len(all) != 2 {
		return "", fail(errAnswer, "it does not say how many follows there are with %s", domain)
	}
	for _, v := range all {
		n, err := strconv.Atoi(v.Total)
		if err != nil {
			return "", fail(errAnswer, "its number of follows with %s is none", domain)
		}
		if n > 0 {
			return "there are follows between this server and it", nil
		}
	}
	return "", nil
}

func (m *mastodon) block(ctx context.Context, a *Act) error {
	b, err := m.findBlock(ctx, a.Target)
	if err != nil {
		return err
	}
	form := url.Values{"severity": {severity(a)}, "reject_media": {"true"}}
	if b != nil {
		form.Set("reject_reports", strconv.FormatBool(b.RejectReports))
		_, err = m.call(ctx, http.MethodPut, "/v1/admin/domain_blocks/"+url.PathEscape(b.ID), nil, form, nil)
		return err
	}
	form.Set("domain", a.Target)
	form.Set("private_comment", reason(a))
	_, err = m.call(ctx, http.MethodPost, "/v1/admin/domain_blocks", nil, form, nil)
	return err
}

// unblock restores what was there before the act, and nothing else: a block that an admin had
// set stays one.
func (m *mastodon) unblock(ctx context.Context, a *Act, l *look) error {
	var before *domainBlock
	if err := json.Unmarshal(a.Before, &before); err != nil {
		return fail(errRefused, "what was there before is not known: change the block of %s by hand", a.Target)
	}
	var now *domainBlock
	if err := json.Unmarshal(l.before, &now); err != nil || now == nil || now.Severity != severity(a) || !now.RejectMedia {
		return fail(errRefused, "somebody has changed the block of %s since: change it by hand", a.Target)
	}
	path := "/v1/admin/domain_blocks/" + url.PathEscape(l.id)
	if before == nil {
		_, err := m.call(ctx, http.MethodDelete, path, nil, nil, nil)
		return err
	}
	form := url.Values{
		"severity": {before.Severity}, "reject_media": {strconv.FormatBool(before.RejectMedia)},
		"reject_reports": {strconv.FormatBool(before.RejectReports)},
	}
	_, err := m.call(ctx, http.MethodPut, path, nil, form, nil)
	return err
}
