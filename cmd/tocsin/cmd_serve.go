package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/hashlist/imagehash"
	"github.com/tocsin-fed/tocsin/hashlist/rules"
	"github.com/tocsin-fed/tocsin/report"
	"github.com/tocsin-fed/tocsin/server"
	"github.com/tocsin-fed/tocsin/store"
)

// keyFlags are flags that are short for a key of the configuration.
var keyFlags = []struct{ name, key, usage string }{
	{"grpc-listen", "grpc.address", "host:port for gRPC"},
	{"http-listen", "http.address", "host:port for the hook and /metrics"},
	{"federation-listen", "federation.address", "host:port for other nodes"},
	{"log-level", "log.level", "debug, info, warn or error"},
	{"log-format", "log.format", "text, json or auto"},
}

// overrides gives cmd the flags that override the configuration, and returns
// what reads them.
func overrides(cmd *cobra.Command) func() []string {
	set := cmd.Flags().StringArray("set", nil, "set a key of the configuration, as in --set hook.pictrs.hold=accept; may be repeated")
	for _, f := range keyFlags {
		cmd.Flags().String(f.name, "", f.usage+" (key "+f.key+")")
	}
	return func() []string {
		all := *set
		for _, f := range keyFlags {
			if flag := cmd.Flags().Lookup(f.name); flag.Changed {
				all = append(all, f.key+"="+flag.Value.String())
			}
		}
		return all
	}
}

func (a *app) serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "serve", Short: "Run the node", Args: cobra.NoArgs,
		Long: `Run the node of the data directory until SIGINT or SIGTERM; a second signal ends
it at once. When it answers, it says so with its addresses on standard output,
with --json in one line, and to systemd (Type=notify). The log goes to standard
error.`,
	}
	set := overrides(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		dir := a.dataDir()
		conf, err := loadStrictly(dir, os.Environ(), set())
		if err != nil {
			return err
		}
		return a.serve(cmd.Context(), dir, conf)
	}
	return cmd
}

// logger writes to w as the configuration says.
func (c *config) logger(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.Log.Level.level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Value.Kind() == slog.KindDuration { // JSON would have a number of nanoseconds
			a.Value = slog.StringValue(a.Value.Duration().String())
		}
		return a
	}}
	if c.Log.Format.name == "text" || c.Log.Format.name == "auto" && terminal(w) {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

func (a *app) serve(ctx context.Context, dir string, conf *config) (err error) {
	syscall.Umask(0o077)
	log := conf.logger(a.err)
	slog.SetDefault(log)
	if conf.Limits.Memory.bytes > 0 {
		debug.SetMemoryLimit(conf.Limits.Memory.bytes)
	}
	if err := conf.check(dir); err != nil {
		return err
	}
	// Whoever can write here can put another database or socket in the place of ours.
	if info, err := os.Stat(dir); err != nil {
		return err
	} else if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("others can write to the data directory %s (mode %04o): run `chmod 700 %s`", dir, info.Mode().Perm(), dir)
	}
	if _, _, err := readIssuerKey(dir, conf.Node.Issuer); err != nil { // before the database is brought up to date
		return err
	}
	db, err := store.Open(ctx, filepath.Join(dir, databaseName))
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, db.Close()); err == nil {
			log.Info("stopped")
		}
	}()

	keys, err := db.Keys(ctx)
	if err != nil {
		return err
	}
	issuer, err := openSigner(dir, conf.Node.Issuer, conf.actor(), keys)
	if err != nil {
		return err
	}

	begun := time.Now()
	loading := &loadingLog{Log: db, log: log}
	policy := conf.policy()
	if set, err := conf.rules(dir); err != nil {
		return err
	} else if set != nil {
		policy.Rules = set
	}
	lists, err := hashlist.Open(ctx, loading, policy)
	if err != nil {
		return err
	}
	defer lists.Close()
	loading.done.Store(true)
	loaded := time.Since(begun)
	counts := lists.Counts()
	log.Info("loaded", "statements", counts.Statements, "lists", counts.Lists, "took", loaded.Round(time.Millisecond))
	if err := conf.tellElsewhere(ctx, log, lists, db); err != nil {
		return err
	}

	// Before anything of another node acts: what is in quarantine must not.
	window, err := conf.remember(ctx, dir, log, lists, db)
	if err != nil {
		return err
	}
	defer window.Close()

	hasher, err := imagehash.NewHasher(conf.mediaLimits())
	if err != nil {
		return fmt.Errorf("media: %w", err)
	}
	defer hasher.Close()
	if err := hasher.Videos(); err != nil {
		log.Warn(err.Error())
	}

	sc := conf.server(dir)
	if sc.Webhook, err = conf.webhook(dir); err != nil {
		return err
	}
	sc.Window = window
	sc.Lists, sc.Media, sc.Issuer, sc.Tokens, sc.Loaded, sc.Log = lists, hasher, issuer, tokens{db}, loaded, log
	if err := conf.reach(dir, &sc); err != nil {
		return err
	}
	sc.Backup, sc.Scratch, sc.Offline = db.Backup, dir, issuer.offline
	sc.Audit, sc.Reviews, sc.Keys = db, db, db.Keys
	if sc.Acts, err = conf.desk(ctx, dir, log, db); err != nil {
		return err
	}
	sc.Marks, sc.Reports, sc.Reporter = db, db, report.Reporter(conf.Report)
	sc.Revisits = conf.revisits(db)
	if sc.Digest, err = conf.digest(dir); err != nil {
		return err
	}
	if conf.Policy.Rules != "" {
		sc.LoadRules = func() (*rules.Set, error) { return conf.rules(dir) }
	}
	var peers *federation.Node
	// Also where it is off: which lists of others act, and which keys count no more, was agreed on before.
	if peers, err = conf.federate(ctx, dir, log, lists, db, issuer); err != nil {
		return fmt.Errorf("federation: %w", err)
	}
	if conf.Federation.Address == "" {
		if follows := peers.Follows(); len(follows) > 0 {
			log.Warn("the federation is off (federation.address is empty): lists of other nodes act as they last were, and nothing new of them comes",
				"lists", len(follows))
		}
		peers = nil
	} else {
		sc.Federation, sc.PublicHandler, sc.Warnings = federated{peers, issuer}, peers.Handler(), conf.federationWarnings()
		sc.Letters = peers
		for _, w := range sc.Warnings {
			log.Warn(w)
		}
	}
	if sc.Sources, err = conf.openSources(ctx, dir, log, lists, db, issuer); err != nil {
		return fmt.Errorf("sources: %w", err)
	}
	if sc.Opinions, err = conf.opinions(dir, log); err != nil {
		return fmt.Errorf("opinion: %w", err)
	}
	window.Start()
	srv, err := server.New(sc)
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(ctx)
	defer stop()
	// The federation outlives the listeners, so that what the last calls and
	// requests brought is still passed on, and nothing is left to wait for it.
	reaching, leave := context.WithCancel(context.WithoutCancel(ctx))
	defer leave()
	reached := make(chan error, 1)
	go func() {
		defer stop()
		if peers == nil {
			<-reaching.Done()
			reached <- nil
			return
		}
		err := peers.Run(reaching)
		if err != nil {
			err = fmt.Errorf("federation: %w", err)
		} else if reaching.Err() == nil {
			err = errors.New("federation ended by itself")
		}
		reached <- err
	}()
	acted := make(chan error, 1)
	go func() {
		if sc.Acts == nil {
			acted <- nil
			return
		}
		acted <- sc.Acts.Run(reaching)
	}()
	done := make(chan error, 1)
	go func() {
		err := srv.Serve(serving)
		leave()
		done <- errors.Join(err, <-reached, <-acted)
	}()

	grpcAddr, httpAddr := srv.Addrs()
	if err := errors.Join(a.announce(dir, conf.Node.Origin, grpcAddr, httpAddr, sc.GRPC.Socket, srv.PublicAddr()), notify("READY=1")); err != nil {
		stop()
		return errors.Join(err, <-done)
	}
	select {
	case err = <-done:
		if ctx.Err() != nil { // it stopped before this was noticed
			_ = notify("STOPPING=1")
		}
		return err
	case <-ctx.Done():
		_ = notify("STOPPING=1")
		return <-done
	}
}

// tellElsewhere warns of lists that were made under another origin.
func (c *config) tellElsewhere(ctx context.Context, log *slog.Logger, lists *hashlist.Lists, db *store.DB) error {
	follows, err := db.Follows(ctx)
	if err != nil {
		return err
	}
	var all []whose
	for _, l := range lists.All() {
		all = append(all, whose{l.ID, l.Issuer})
	}
	if foreign := c.elsewhere(all, followed(follows)); len(foreign) > 0 {
		log.Warn("the log has lists of another origin than node.origin: they act no more, and cannot be changed; "+originRemedy,
			"origin", c.Node.Origin, "lists", len(foreign), "first", foreign[0])
	}
	return nil
}

// followed reports of a list whether it is followed, or ever was.
func followed(follows []federation.Follow) func(list string) bool {
	return func(list string) bool {
		return slices.ContainsFunc(follows, func(f federation.Follow) bool { return f.List == list })
	}
}

// announce tells on standard output where the node answers.
func (a *app) announce(dir, origin, grpcAddr, httpAddr, socket, public string) error {
	if a.json {
		return a.line(struct {
			Ready      bool   `json:"ready"`
			GRPC       string `json:"grpc"`
			HTTP       string `json:"http"`
			Socket     string `json:"socket"`
			Federation string `json:"federation"`
		}{true, grpcAddr, httpAddr, socket, public})
	}
	if public == "" {
		public = "off (federation.address is empty)"
	} else {
		public += ", for " + origin
	}
	with := ""
	if a.data != "" {
		with = " --data " + dir
	}
	_, err := fmt.Fprintf(a.out, `The node in %[1]s is ready.
  gRPC   %[2]s
  socket %[3]s
  HTTP   %[4]s
  other nodes %[6]s
To refuse a picture that pict-rs is sent:
  tocsin list create%[5]s refused --summary "pictures we do not want"
  tocsin ban%[5]s --list refused --reason "why" PICTURE
  tocsin token create%[5]s pictrs --scope lookup
then start pict-rs with PICTRS__MEDIA__EXTERNAL_VALIDATION=http://%[4]s/hook/pictrs/TOKEN
`, dir, grpcAddr, socket, httpAddr, with, public)
	return err
}

// notify tells systemd, if it started this process, how it is.
func notify(state string) error {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell systemd: %w", err)
	}
	_, err = io.WriteString(conn, state)
	return errors.Join(err, conn.Close())
}

// loadingLog tells, while the lists are read from a log, how far they are.
type loadingLog struct {
	hashlist.Log
	log  *slog.Logger
	done atomic.Bool // loading is over
}

// loadingEvery is the time between two lines about loading.
const loadingEvery = 5 * time.Second

// After is that of the log.
func (l *loadingLog) After(ctx context.Context, seq uint64, only hashlist.Selection) iter.Seq2[hashlist.Record, error] {
	records := l.Log.After(ctx, seq, only)
	if l.done.Load() {
		return records
	}
	return func(yield func(hashlist.Record, error) bool) {
		var hashes int
		next := time.Now().Add(loadingEvery)
		for r, err := range records {
			hashes += len(r.Statement.Hashes)
			if now := time.Now(); now.After(next) {
				l.log.Info("loading", "statements", r.Seq, "hashes", hashes)
				next = now.Add(loadingEvery)
			}
			if !yield(r, err) {
				return
			}
		}
	}
}

// tokens is the database as the server wants it.
type tokens struct{ db *store.DB }

// SaveToken implements server.Tokens.
func (t tokens) SaveToken(ctx context.Context, v server.Token) error {
	err := t.db.SaveToken(ctx, store.Token{Name: v.Name, Scope: string(v.Scope), Sum: v.Sum, Created: v.Created, Expires: v.Expires})
	if errors.Is(err, store.ErrExists) {
		return fmt.Errorf("%w: %w", server.ErrTokenExists, err)
	}
	return err
}

// DeleteToken implements server.Tokens.
func (t tokens) DeleteToken(ctx context.Context, name string) error {
	err := t.db.DeleteToken(ctx, name)
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("%w: %w", server.ErrNoToken, err)
	}
	return err
}

// Tokens implements server.Tokens.
func (t tokens) Tokens(ctx context.Context) ([]server.Token, error) {
	stored, err := t.db.Tokens(ctx)
	all := make([]server.Token, len(stored))
	for i, v := range stored {
		all[i] = server.Token{Name: v.Name, Scope: server.Scope(v.Scope), Sum: v.Sum, Created: v.Created, Expires: v.Expires}
	}
	return all, err
}
