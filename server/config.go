package server

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/tocsin-fed/tocsin/exchange/source"
	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/hashlist/imagehash"
	"github.com/tocsin-fed/tocsin/hashlist/rules"
	"github.com/tocsin-fed/tocsin/platform"
	"github.com/tocsin-fed/tocsin/report"
	"github.com/tocsin-fed/tocsin/revisit"
)

// Config is all that a Server is made of and told.
type Config struct {
	Lists   *hashlist.Lists
	Media   *imagehash.Hasher
	Issuer  Issuer
	Tokens  Tokens
	Origin  string          // public address of the node, as in https://hashes.example
	Policy  hashlist.Policy // for MinQuality; the lists judge by their own copy
	Version string
	Log     *slog.Logger // nil for slog.Default. It gets no token, no hash and no path of a hook.

	// Backup writes a copy of the database to a new file; nil if the store cannot.
	Backup  func(ctx context.Context, path string) error
	Scratch string // an existing directory that only the owner may enter, for copies on their way

	// Reviews keeps what waits for a person's decision; nil for none: then nothing is asked.
	Reviews hashlist.Reviews
	Review  Review  // how it is decided
	Letters Letters // brings disputes to other nodes; nil for none

	Loaded time.Duration // how long the lists took to load, for GetStatus

	// Window remembers what passed; nil if nothing is remembered.
	Window  *hashlist.Window
	Breaker hashlist.BreakerConfig // its Opened is the server's own
	Webhook Webhook

	// Federation is what this node has to do with others; nil if it is off.
	Federation Federation
	// PublicHandler is what strangers reach through Public.
	PublicHandler http.Handler
	// Offline reports whether the private key of Issuer is kept elsewhere; nil for never.
	Offline func() bool
	// Audit keeps what was decided; nil for nowhere.
	Audit hashlist.Audit
	// Sources are the lists of other systems that are read; nil for none. Serve runs them.
	Sources *source.Keeper
	// Acts acts on platforms; nil if none is configured. Whoever runs the Server runs it.
	Acts *platform.Desk
	// Marks remember how far the server's own readers have come; needed for Acts on hits of a Window.
	Marks Marks
	// Reports remembers what was reported, and Reporter is who reports; nil for no reports.
	Reports  report.Reports
	Reporter report.Reporter
	// Revisits looks again at addresses; nil for none. What it examines, judges and tells, the server fills in.
	Revisits *revisit.Config
	// Digest says when and how the operator is told what happened; nil for never.
	Digest *Digest
	// Opinions are the services elsewhere that are asked of uploads.
	Opinions []Opinion
	// Keys returns the keys of issuers that this node knows, to check proofs anew; nil for that of Issuer alone.
	Keys func(context.Context) ([]federation.Key, error)
	// LoadRules reads the operator's rules again; nil if there is no file of them.
	LoadRules func() (*rules.Set, error)
	// Warnings are what GetStatus tells the operator each time, a sentence each.
	Warnings []string

	GRPC   Listener
	HTTP   Listener
	Public Listener // federation; needs a PublicHandler
	Hook   Hook     // of pict-rs
	Hooks  Hooks
	// Fetch reaches out for files whose addresses platforms name: a guarded.Client, or nil if no hook needs one.
	Fetch *http.Client
	Limit Limit
}

// Listener says where to listen and how a connection is protected.
type Listener struct {
	Address string // host:port; "" for none. Port 0 takes a free one.
	Socket  string // path of a unix socket, for gRPC only; "" for none. Whoever may open it is admin.

	CertFile, KeyFile string // TLS; read again when the files change
	ClientCAFile      string // mTLS: callers must show a certificate signed by one of these

	// Plaintext allows a listener without TLS beyond loopback, not for gRPC: in a
	// container's private network there may be no other way to reach pict-rs, or to be
	// reached by a proxy that has the certificate.
	Plaintext bool

	Reflection bool // gRPC only
}

// Answer is what a hook says when it cannot know.
type Answer string

// The two answers.
const (
	AnswerAccept Answer = "accept"
	AnswerReject Answer = "reject"
)

// Hook says what the upload hooks answer where the verdict alone does not tell.
type Hook struct {
	Undecodable Answer // a file that is no picture, is broken, or is beyond the limits
	Video       Answer // a file that is a video or sound
	Trouble     Answer // the node could not do its work
	Hold        Answer // the verdict is hold, which a hook cannot do
}

// Hooks are the hooks of other platforms; nil for one that is off.
type Hooks struct {
	PieFed, HMA, NSFW, Mastodon, Indigo *Hook

	// Blocked is the PDQ hash that PieFed's operator has blocked there, which stands for
	// everything that is to be refused; the zero Hash for none.
	Blocked hashlist.Hash
	// MastodonSecret is the secret with which Mastodon signs its webhooks.
	MastodonSecret []byte
}

// Limit bounds what one token may cost.
type Limit struct {
	LookupsPerSecond float64       // each hash or file that is looked up costs one, any other request too; 0 for no limit
	Burst            int           // lookups that may come at once; default a second's worth, at least 1024
	MessageBytes     int           // of one gRPC message; default 4 MiB
	Deadline         time.Duration // for unary calls that bring none; default 30 s
	Uploads          int           // files held in memory at once; more wait; default 4 for each processor
	MediaBytes       int64         // of one file; default 50 MiB. Files beyond what the Hasher takes are held in vain.
	Idle             time.Duration // for which an upload or import may bring nothing; default 30 s. A LookupStream may pause ten times as long.
	Cached           int           // files whose hashes are remembered; 0 for none
}

// Issuer signs statements as this node's admin. *federation.Issuer is one.
type Issuer interface {
	// Actor is the issuer's address.
	Actor() string
	// Seal gives a statement its id, signs it, and returns the record to apply. It fails
	// with ErrOffline if the private key is kept elsewhere.
	Seal(hashlist.Statement) (hashlist.Record, error)
	// PublicKey is the key that checks what Seal signs now.
	PublicKey() ed25519.PublicKey
}

// Scope is what a token may do. Each of the first three includes those before it; the others include nothing
// but what they name, and are for other people's servers.
type Scope string

// The scopes.
const (
	ScopeLookup Scope = "lookup"
	ScopeSubmit Scope = "submit"
	ScopeAdmin  Scope = "admin"
	// ScopeBlocks is for reading what this node makes of all lists of servers together, at
	// /blocks.csv and its like: for the operator's own servers, since lists that others gave to
	// this node alone are in it.
	ScopeBlocks Scope = "blocks"
	// ScopeRead and the name of a list are for reading that list where it is published.
	ScopeRead = "read:"
)

// Valid reports whether s is a scope.
func (s Scope) Valid() bool {
	if list, ok := strings.CutPrefix(string(s), ScopeRead); ok {
		return hashlist.CheckName(list) == nil
	}
	return slices.Contains(scopes[:], s) || s == ScopeBlocks
}

// Token is a token as it is stored.
type Token struct {
	Name    string
	Scope   Scope
	Sum     [32]byte // SHA-256 of the secret, which is random enough to need no salt
	Created time.Time
	Expires time.Time // zero for never
}

// Tokens keeps tokens. Whoever can read them learns no secret; whoever can
// change them can call everything.
type Tokens interface {
	// SaveToken fails with ErrTokenExists if the name is taken.
	SaveToken(context.Context, Token) error
	// DeleteToken fails with ErrNoToken if there is none of that name.
	DeleteToken(ctx context.Context, name string) error
	Tokens(context.Context) ([]Token, error)
}
