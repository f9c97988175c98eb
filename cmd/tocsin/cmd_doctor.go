package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/hashlist/imagehash"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
	"github.com/tocsin-fed/tocsin/store"
)

// finding is what doctor says of one thing.
type finding struct {
	Check  string `json:"check"`
	State  string `json:"state"`  // ok, warning, failed or skipped
	Detail string `json:"detail"` // what was found
	Remedy string `json:"remedy"` // what to do; empty if nothing
}

func (a *app) doctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "doctor", Short: "Look for what is wrong with the node, and say what to do", Args: cobra.NoArgs,
		Long: `Look at the configuration, the files and their permissions, the keys, the
database, the decoders, the ports and the clock. If the node runs, it is asked
for its status, and its database is not opened. Nothing is changed, except that the
database's schema is brought up to date as serve would.

Exit status: 0 if nothing failed, 1 otherwise. Warnings do not count.`,
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		d := &doctor{dir: a.dataDir()}
		d.examine(cmd.Context(), &client{app: a})
		failed := 0
		for _, f := range d.findings {
			if f.State == "failed" {
				failed++
			}
			if a.json {
				if err := a.line(f); err != nil {
					return err
				}
				continue
			}
			fmt.Fprintf(a.out, "%-8s %-15s %s\n", f.State, f.Check, printable(f.Detail))
			if f.Remedy != "" {
				fmt.Fprintf(a.out, "%-24s -> %s\n", "", f.Remedy)
			}
		}
		if failed > 0 {
			return fmt.Errorf("%s failed", plural(uint64(failed), "check"))
		}
		return nil
	}
	return cmd
}

// doctor examines the node in dir. Later checks rest on what earlier ones found.
type doctor struct {
	dir      string
	conf     *config // nil if it cannot be read
	running  bool    // the node answers on its socket
	findings []finding
}

func (d *doctor) say(check, state, remedy, detail string, args ...any) {
	d.findings = append(d.findings, finding{check, state, fmt.Sprintf(detail, args...), remedy})
}

func (d *doctor) examine(ctx context.Context, c *client) {
	d.directory()
	d.configuration()
	if d.conf == nil {
		for _, check := range []string{"signing key", "node", "database", "listeners"} {
			d.say(check, "skipped", "", "needs the configuration")
		}
	} else {
		d.key()
		d.node(ctx, c)
		d.database(ctx)
		d.listeners(ctx)
	}
	d.decoders(ctx)
	d.clock()
}

func (d *doctor) directory() {
	info, err := os.Stat(d.dir)
	switch {
	case err != nil:
		d.say("data directory", "failed", "make a node with `tocsin init --data "+d.dir+"`, or say where it is with --data", "%v", err)
		return
	case !info.IsDir():
		d.say("data directory", "failed", "say with --data where the node is", "%s is not a directory", d.dir)
		return
	case info.Mode().Perm()&0o077 != 0:
		d.say("data directory", "warning", "chmod 700 "+d.dir, "%s may be read by others (mode %04o)", d.dir, info.Mode().Perm())
	default:
		d.say("data directory", "ok", "", "%s", d.dir)
	}
	var disk syscall.Statfs_t
	const enough = 256 << 20
	if err := syscall.Statfs(d.dir, &disk); err == nil {
		if free := disk.Bavail * uint64(disk.Bsize); free < enough {
			d.say("disk", "warning", "make room: a node whose disk is full cannot list anything", "%d MiB are free", free>>20)
		} else {
			d.say("disk", "ok", "", "%d MiB are free", free>>20)
		}
	}
}

func (d *doctor) configuration() {
	conf, err := loadStrictly(d.dir, os.Environ(), nil)
	if err != nil {
		d.say("configuration", "failed", "correct it, then run `tocsin config check`", "%v", err)
		return
	}
	d.conf = conf
	if err := conf.check(d.dir); err != nil {
		d.say("configuration", "failed", "correct it, then run `tocsin config check`", "%v", err)
		return
	}
	if conf.trial() {
		d.say("configuration", "warning", originRemedy, "the origin is %s, which is for trying it out", conf.Node.Origin)
	} else {
		d.say("configuration", "ok", "", "%s", filepath.Join(d.dir, configName))
	}
	if conf.Federation.Address != "" && conf.Federation.Loopback {
		d.say("federation", "warning", "set federation.loopback to false on a real node",
			"federation.loopback is on: the node reaches out to this very machine, and believes what is there")
	}
}

func (d *doctor) key() {
	switch _, private, err := readIssuerKey(d.dir, d.conf.Node.Issuer); {
	case err != nil:
		d.say("signing key", "failed", "see there", "%v", err)
	case private == nil:
		d.say("signing key", "ok", "", "%s; the private key is kept elsewhere", publicKeyPath(d.dir, d.conf.Node.Issuer))
	default:
		d.say("signing key", "ok", "", "%s", keyPath(d.dir, d.conf.Node.Issuer))
	}
	if d.conf.Federation.Address == "" {
		return
	}
	_, requests := readRequestKey(requestKeyPath(d.dir))
	_, heads := readHeadKey(headKeyPath(d.dir))
	switch err := errors.Join(requests, heads); {
	case err == nil:
		d.say("node's keys", "ok", "", "%s, %s", requestKeyPath(d.dir), headKeyPath(d.dir))
	case errors.Is(err, fs.ErrNotExist) && (requests == nil || errors.Is(requests, fs.ErrNotExist)) && (heads == nil || errors.Is(heads, fs.ErrNotExist)):
		d.say("node's keys", "warning", "if there never were any, serve makes them", "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	default:
		d.say("node's keys", "failed", "see there", "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
}

// doctorTime bounds a check that talks to something.
const doctorTime = 30 * time.Second

func (d *doctor) node(ctx context.Context, c *client) {
	ctx, cancel := context.WithTimeout(ctx, doctorTime)
	defer cancel()
	socket := d.conf.server(d.dir).GRPC.Socket
	if socket == "" {
		d.say("node", "skipped", "", "it has no socket to ask (grpc.socket is empty)")
		return
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
			d.say("node", "ok", "", "it does not run")
		default:
			d.say("node", "failed", "run this as the user the node runs as", "%v", err)
		}
		return
	}
	conn.Close()
	d.running = true
	n, err := c.dial(ctx)
	if err != nil {
		d.say("node", "failed", "look at its log", "%v", err)
		return
	}
	defer n.Close()
	s, err := n.admin.GetStatus(ctx, &pb.GetStatusRequest{})
	if err != nil {
		d.say("node", "failed", "look at its log, and start it again", "it takes connections, but does not answer: %v", plain(err))
		return
	}
	defer d.lists(ctx, n)
	if s.GetVersion() != version {
		d.say("node", "warning", "start the node again to bring it up to date", "it runs version %s, this is %s", s.GetVersion(), version)
		return
	}
	d.say("node", "ok", "", "it runs, with %d statements", s.GetStatements())
	for _, w := range s.GetWarnings() {
		if slices.Contains(d.conf.federationWarnings(), w) {
			continue // told by the configuration
		}
		d.say("node", "warning", "", "%s", w)
	}
}

// lists asks the running node whether its lists are of its own origin, or followed.
func (d *doctor) lists(ctx context.Context, n *node) {
	answer, err := n.lists.ListLists(ctx, &pb.ListListsRequest{})
	if err != nil {
		d.say("lists", "failed", "look at its log, and start it again", "%v", plain(err))
		return
	}
	var lists []whose
	followed := map[string]bool{}
	for _, l := range answer.GetLists() {
		lists = append(lists, whose{l.GetId(), l.GetIssuer()})
		followed[l.GetId()] = l.GetFollow() != pb.FollowState_FOLLOW_STATE_UNSPECIFIED
	}
	d.origins(lists, func(list string) bool { return followed[list] })
}

// origins says what it means where the lists lie.
func (d *doctor) origins(lists []whose, followed func(list string) bool) {
	if foreign := d.conf.elsewhere(lists, followed); len(foreign) > 0 {
		d.say("lists", "failed", "if node.origin was changed, put it back; "+originRemedy,
			"%s of another origin than %s, as %s: they act no more, and cannot be changed", plural(uint64(len(foreign)), "list"), d.conf.Node.Origin, foreign[0])
		return
	}
	others := 0
	for _, l := range lists {
		if followed(l.list) {
			others++
		}
	}
	if others > 0 {
		d.say("lists", "ok", "", "%s of this node, %d of others", plural(uint64(len(lists)-others), "list"), others)
		return
	}
	d.say("lists", "ok", "", "%s, of this origin", plural(uint64(len(lists)), "list"))
}

func (d *doctor) database(ctx context.Context) {
	if d.running {
		d.say("database", "skipped", "", "the running node has it; stop the node to have every byte checked")
		return
	}
	path := filepath.Join(d.dir, databaseName)
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
		d.say("database", "warning", "chmod 600 "+path, "%s may be read by others (mode %04o)", path, info.Mode().Perm())
	}
	db, err := store.Open(ctx, path)
	if err != nil {
		d.say("database", "failed", "see there; if it is damaged, restore a backup", "%v", err)
		return
	}
	err = db.Check(ctx)
	var lists []whose
	var follows []federation.Follow
	if err == nil {
		lists, err = listsOf(ctx, db)
	}
	if err == nil {
		follows, err = db.Follows(ctx)
	}
	if err == nil {
		err = d.keys(ctx, db)
	}
	if err = errors.Join(err, db.Close()); err != nil {
		d.say("database", "failed", "restore a backup", "%v", err)
		return
	}
	d.say("database", "ok", "", "every byte of %s is as it was written", path)
	d.origins(lists, followed(follows))
}

// keys tells which issuers' new keys wait to be compared.
func (d *doctor) keys(ctx context.Context, db *store.DB) error {
	marks, err := db.KeyMarks(ctx)
	for _, m := range marks {
		if m.State == federation.KeyDoubted {
			d.say("keys", "warning", "ask them for the fingerprint over the telephone, start the node, then `tocsin trust verify`",
				"%s shows a new key that none of theirs backs: what it signs waits", m.Issuer)
		}
	}
	return err
}

// listsOf reads which lists a log defines and does not end again.
func listsOf(ctx context.Context, log hashlist.Log) ([]whose, error) {
	of := map[string]whose{} // by the statement that defines it
	for r, err := range log.After(ctx, 0, hashlist.Selection{}) {
		if err != nil {
			return nil, err
		}
		switch r.Statement.Kind {
		case hashlist.DefineList:
			of[r.Statement.ID] = whose{r.Statement.List, r.Statement.Issuer}
		case hashlist.Retraction:
			delete(of, r.Statement.Retracts)
		}
	}
	all := slices.SortedFunc(maps.Values(of), func(a, b whose) int {
		return cmp.Or(strings.Compare(a.list, b.list), strings.Compare(a.issuer, b.issuer))
	})
	return slices.CompactFunc(all, func(a, b whose) bool { return a.list == b.list }), nil
}

func (d *doctor) listeners(ctx context.Context) {
	if d.running {
		return // the node has them
	}
	for _, l := range []struct{ key, address string }{
		{"grpc.address", d.conf.GRPC.Address}, {"http.address", d.conf.HTTP.Address}, {"federation.address", d.conf.Federation.Address},
	} {
		if l.address == "" {
			continue
		}
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", l.address)
		if err != nil {
			d.say(l.key, "failed", "stop what listens there, or choose another address", "%v", err)
			continue
		}
		listener.Close()
		d.say(l.key, "ok", "", "%s is free", l.address)
	}
}

// decoders has a picture hashed by a child process, as uploads are.
func (d *doctor) decoders(ctx context.Context) {
	const remedy = "this program must be allowed to start itself again and to take memory: look at limits of the service (MemoryMax, LimitAS, SystemCallFilter)"
	limits := imagehash.DefaultLimits()
	if d.conf != nil {
		limits = d.conf.mediaLimits()
	}
	h, err := imagehash.NewHasher(limits)
	if err != nil {
		d.say("decoders", "failed", "correct the section media", "%v", err)
		return
	}
	defer h.Close()
	ctx, cancel := context.WithTimeout(ctx, doctorTime)
	defer cancel()
	begun := time.Now()
	m, err := h.Hash(ctx, testPicture())
	switch {
	case err != nil:
		d.say("decoders", "failed", remedy, "%v", err)
	case len(m.Frames) != 1 || m.Frames[0].PDQ[0].Hex() != testPicturePDQ:
		d.say("decoders", "failed", "build tocsin again from a clean checkout: a hash that is wrong finds nothing", "the built-in picture has not the hash it should have")
	default:
		d.say("decoders", "ok", "", "a picture was hashed in %v", time.Since(begun).Round(time.Millisecond))
	}
	if err := h.Videos(); err != nil {
		d.say("videos", "warning", "install ffmpeg, or set media.ffmpeg to where it is", "%v", err)
	} else {
		d.say("videos", "ok", "", "ffmpeg is there")
	}
}

// testPicturePDQ is the PDQ hash of testPicture.
const testPicturePDQ = "2ccc5a9db32b4d4a9adc3682ed12926464cdcb2916dbb996e66d9d9363649899"

// testPicture is a PNG of 160x120 with enough structure for PDQ.
func testPicture() []byte {
	img := image.NewRGBA(image.Rect(0, 0, 160, 120))
	for y := range 120 {
		for x := range 160 {
			img.SetRGBA(x, y, color.RGBA{uint8(x * x / 100), uint8(x*y/75 ^ y), uint8(2 * y), 255})
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		panic(err) // a buffer takes everything
	}
	return b.Bytes()
}

// clock compares the clock with the newest thing the node wrote. A clock that
// is behind publishes statements that others have reason to doubt.
func (d *doctor) clock() {
	now := time.Now()
	newest := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) // the program is younger
	for _, name := range []string{configName, databaseName, databaseName + "-wal"} {
		if info, err := os.Stat(filepath.Join(d.dir, name)); err == nil && info.ModTime().After(newest) {
			newest = info.ModTime()
		}
	}
	if now.Before(newest.Add(-time.Minute)) {
		d.say("clock", "failed", "set the clock (chrony or systemd-timesyncd keep it right)", "it shows %s, but the node wrote its files at %s", now.UTC().Format(time.RFC3339), newest.UTC().Format(time.RFC3339))
		return
	}
	d.say("clock", "ok", "", "%s", now.UTC().Format(time.RFC3339))
}
