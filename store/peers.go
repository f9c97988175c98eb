package store

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
)

var _ federation.Peers = (*DB)(nil)

// The longest values that federation.Peers promises to keep, in bytes.
const (
	maxActor   = 64 << 10
	maxHead    = 4 << 10
	maxTrouble = 1000
)

// The order of the fields is the order in which a row's sum takes them in, so
// it stays as it is.
var (
	follows = newTable("follows", "follow", 1, checkFollow, func(f *federation.Follow) []field {
		return []field{
			{"list", &f.List, f.List},
			{"id", &f.ID, f.ID},
			{"state", &f.State, int64(f.State)},
			{"most", &f.Most, int64(f.Most)},
			{"asked", (*moment)(&f.Asked), micros(f.Asked)},
			{"answered", (*moment)(&f.Answered), micros(f.Answered)},
			{"skipped", &f.Skipped, int64(f.Skipped)},
			{"trouble", &f.Trouble, f.Trouble},
			{"head", (*blob)(&f.Head), f.Head},
			{"actor", (*blob)(&f.Actor), f.Actor},
		}
	})
	followers = newTable("followers", "follower", 2, checkFollower, func(f *federation.Follower) []field {
		return []field{
			{"list", &f.List, f.List},
			{"actor", &f.Actor, f.Actor},
			{"inbox", &f.Inbox, f.Inbox},
			{"follow", &f.Follow, f.Follow},
			{"state", &f.State, int64(f.State)},
			{"asked", (*moment)(&f.Asked), micros(f.Asked)},
			{"decided", (*moment)(&f.Decided), micros(f.Decided)},
			{"told", &f.Told, number(f.Told)},
			{"position", &f.Position, int64(f.Position)},
		}
	})
	peers = newTable("peers", "peer", 1, checkPeer, func(p *federation.Peer) []field {
		return []field{
			{"inbox", &p.Inbox, p.Inbox},
			{"failing", (*moment)(&p.Failing), micros(p.Failing)},
			{"failures", &p.Failures, int64(p.Failures)},
			{"retired", &p.Retired, number(p.Retired)},
			{"trouble", &p.Trouble, p.Trouble},
		}
	})
	keys = newTable("keys", "key", 2, checkKey, func(k *federation.Key) []field {
		return []field{
			{"issuer", &k.Issuer, k.Issuer},
			{"method", &k.Method, k.Method},
			{"public", (*blob)(&k.Public), []byte(k.Public)},
			{"seen", (*moment)(&k.Seen), micros(k.Seen)},
			{"expires", (*moment)(&k.Expires), micros(k.Expires)},
			{"revoked", (*moment)(&k.Revoked), micros(k.Revoked)},
		}
	})
)

// Follows implements federation.Peers. It fails at the first that is damaged,
// as the other lists of this file do.
func (db *DB) Follows(ctx context.Context) ([]federation.Follow, error) {
	return readAll(ctx, db, follows)
}

// SaveFollow implements federation.Peers. Like the other methods that save, it
// refuses, and changes nothing, what the types' comments do not allow, what
// lacks a list, an address or a time that only the zero value would stand for,
// and text that is not UTF-8. Times are cut to whole microseconds.
func (db *DB) SaveFollow(ctx context.Context, f federation.Follow) error {
	return saveAll(ctx, db, follows, []federation.Follow{f})
}

// Followers implements federation.Peers.
func (db *DB) Followers(ctx context.Context) ([]federation.Follower, error) {
	return readAll(ctx, db, followers)
}

// SaveFollower implements federation.Peers.
func (db *DB) SaveFollower(ctx context.Context, f federation.Follower) error {
	return saveAll(ctx, db, followers, []federation.Follower{f})
}

// SavePositions implements federation.Peers, all or none, and as durably as the
// rest.
func (db *DB) SavePositions(ctx context.Context, at []federation.Follower) error {
	if len(at) == 0 {
		return ctx.Err()
	}
	for i := range at {
		if err := checkCount("position", at[i].Position); err != nil {
			return fmt.Errorf("save position of follower %.80q: %w", at[i].Actor, err)
		}
	}
	if err := db.savePositions(ctx, at); err != nil {
		return fmt.Errorf("save positions: %w", explain(err))
	}
	return nil
}

func (db *DB) savePositions(ctx context.Context, at []federation.Follower) error {
	tx, err := db.writer.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // of no effect after Commit
	for i := range at {
		// The row is read and written whole because its sum covers the position: a
		// flipped bit there could let a follower miss years of statements.
		found, err := followers.read(ctx, tx, "WHERE list = $1 AND actor = $2", at[i].List, at[i].Actor)
		if err != nil {
			return err
		}
		for _, f := range found { // one or none
			f.Position = at[i].Position
			if err := followers.save(ctx, tx, &f); err != nil {
				return err
			}
		}
	}
	return tx.Commit()
}

// Peers implements federation.Peers.
func (db *DB) Peers(ctx context.Context) ([]federation.Peer, error) {
	return readAll(ctx, db, peers)
}

// SavePeer implements federation.Peers.
func (db *DB) SavePeer(ctx context.Context, p federation.Peer) error {
	return saveAll(ctx, db, peers, []federation.Peer{p})
}

// Keys implements federation.Peers.
func (db *DB) Keys(ctx context.Context) ([]federation.Key, error) {
	return readAll(ctx, db, keys)
}

// SaveKeys implements federation.Peers. Of two of one Method the later counts.
func (db *DB) SaveKeys(ctx context.Context, all []federation.Key) error {
	return saveAll(ctx, db, keys, all)
}

func checkFollow(f *federation.Follow) error {
	return cmp.Or(
		checkName("list", f.List),
		checkAddress("id", f.ID),
		checkRange("state", int64(f.State), int64(federation.FollowAsked), int64(federation.FollowDiverged)),
		checkRange("gravest verdict", int64(f.Most), int64(hashlist.VerdictAllow), int64(hashlist.VerdictReject)),
		checkTime("time of asking", f.Asked, true),
		checkTime("time of the answer", f.Answered, false),
		checkCount("number of skipped statements", f.Skipped),
		checkText("trouble", f.Trouble, maxTrouble),
		checkLength("head", len(f.Head), maxHead),
		checkLength("actor document", len(f.Actor), maxActor),
	)
}

func checkFollower(f *federation.Follower) error {
	return cmp.Or(
		checkName("list", f.List),
		checkAddress("actor", f.Actor),
		checkAddress("inbox", f.Inbox),
		checkAddress("follow", f.Follow),
		checkRange("state", int64(f.State), int64(federation.FollowerAsked), int64(federation.FollowerLeft)),
		checkTime("time of asking", f.Asked, true),
		checkTime("time of the decision", f.Decided, false),
		checkCount("position", f.Position),
	)
}

func checkPeer(p *federation.Peer) error {
	return cmp.Or(
		checkAddress("inbox", p.Inbox),
		checkTime("time of the first failure", p.Failing, false),
		checkText("trouble", p.Trouble, maxTrouble),
	)
}

func checkKey(k *federation.Key) error {
	if err := checkName("issuer", k.Issuer); err != nil {
		return err
	}
	if len(k.Public) != ed25519.PublicKeySize {
		return fmt.Errorf("its public key has %d bytes, not %d", len(k.Public), ed25519.PublicKeySize)
	}
	if k.Method != k.Issuer+"#"+federation.Multikey(k.Public) {
		return errors.New("its method is not its issuer, # and the Multikey of its public key")
	}
	return cmp.Or(
		checkTime("time of first sight", k.Seen, true),
		checkTime("time of expiry", k.Expires, false),
		checkTime("time of revocation", k.Revoked, false),
	)
}

// checkName is for lists and issuers, whose addresses statements hold to the
// same rule.
func checkName(what, iri string) error {
	if _, err := hashlist.Origin(iri); err != nil {
		return fmt.Errorf("its %s: %w", what, err)
	}
	return nil
}

// checkAddress is for what other software named: with queries, fragments and
// letters of all languages.
func checkAddress(what, iri string) error {
	if iri == "" || len(iri) > hashlist.MaxIRI {
		return fmt.Errorf("its %s of %d bytes is not 1 to %d long", what, len(iri), hashlist.MaxIRI)
	}
	if !utf8.ValidString(iri) || strings.ContainsFunc(iri, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		return fmt.Errorf("its %s %.80q has characters that do not belong in an address", what, iri)
	}
	return nil
}

func checkText(what, text string, most int) error {
	if !utf8.ValidString(text) || strings.IndexByte(text, 0) >= 0 { // which not every database can hold
		return fmt.Errorf("its %s is not text", what)
	}
	return checkLength(what, len(text), most)
}

func checkLength(what string, n, most int) error {
	if n > most {
		return fmt.Errorf("its %s of %d bytes is longer than %d", what, n, most)
	}
	return nil
}

func checkRange(what string, n, least, most int64) error {
	if n < least || n > most {
		return fmt.Errorf("its %s %d is not %d to %d", what, n, least, most)
	}
	return nil
}

func checkCount(what string, n uint64) error {
	if n > math.MaxInt64 {
		return fmt.Errorf("its %s %d is larger than %d", what, n, int64(math.MaxInt64))
	}
	return nil
}

// checkTime refuses the beginning of 1970, whose number means no time at all: a
// key that a stranger says was revoked then must not become one that never was.
func checkTime(what string, t time.Time, needed bool) error {
	switch {
	case t.IsZero() && needed:
		return fmt.Errorf("it has no %s", what)
	case t.IsZero():
		return nil
	case t.Before(time.UnixMicro(1)) || t.UTC().Year() > 9999:
		return fmt.Errorf("its %s, %v, is not within the years 1970 to 9999", what, t)
	}
	return nil
}

func number(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
