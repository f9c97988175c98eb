package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/tocsin-fed/tocsin/hashlist"
)

//go:embed migrations
var migrations embed.FS

// quickCheckTime bounds the check that Open makes. A database of a million
// hashes takes a fraction of it; of one too large to finish, what was not
// looked at is still checked row by row as it is read, and by Check.
const quickCheckTime = 10 * time.Second

// readers is the number of connections that read. A reader holds one for the
// length of a page, not of an iteration, so a few serve many.
const readers = 4

// DB is a node's database. Its methods may be called concurrently, except that
// nothing may be called after Close.
type DB struct {
	path   string   // absolute, without symbolic links
	lock   *os.File // held as long as the DB is open
	writer *sql.DB  // one connection, so that writes queue here and not in SQLite
	reader *sql.DB  // cannot write
	audit  auditQueue

	reviewed growth // the place of the last review

	closing  sync.Once
	closeErr error // set within closing
}

var _ hashlist.Log = (*DB)(nil)

// Create makes a new database at path, readable by its owner alone, and opens
// it. The directory must exist. It fails if anything is at path already, and it
// leaves nothing at path unless the database is complete.
func Create(ctx context.Context, path string) (*DB, error) {
	if path == "" {
		return nil, errors.New("a database needs a path")
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("create database: %w", err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("create database: %w", err)
	}
	path = filepath.Join(dir, filepath.Base(path))
	if err := vacant(path); err != nil {
		return nil, err
	}
	lock, err := lockFile(path)
	if err != nil {
		return nil, err
	}
	if err := create(ctx, path); err != nil {
		lock.Close()
		return nil, fmt.Errorf("create database %s: %w", path, explain(err))
	}
	return open(ctx, path, lock)
}

// vacant reports what stands in the way of a new database at path. A
// write-ahead log without its database counts: SQLite would replay it into the
// new one.
func vacant(path string) error {
	for _, p := range []string{path, path + "-wal", path + "-journal"} {
		switch info, err := os.Lstat(p); {
		case err == nil && p != path && info.Size() == 0:
			continue // nothing to replay
		case err == nil && p == path:
			return fmt.Errorf("%s exists already and is left alone: choose another path, or move it away if you mean to start anew", p)
		case err == nil:
			return fmt.Errorf("%s is left over from a database that is gone: move it away first", p)
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	return nil
}

// create builds the database under another name and renames it when it is
// complete and on disk, so that an init that is cut off leaves nothing that
// looks like a log.
func create(ctx context.Context, path string) (err error) {
	unfinished := path + ".new"
	sweep := func() error {
		for _, p := range []string{unfinished, unfinished + "-wal", unfinished + "-shm", unfinished + "-journal"} {
			if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return nil
	}
	if err := sweep(); err != nil { // of an earlier try; the lock says nobody is at it now
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, sweep())
		}
	}()
	// SQLite gives its files the mode of the database, which is this one.
	f, err := os.OpenFile(unfinished, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	db := connect(unfinished, creating)
	err = migrate(ctx, db)
	if err == nil {
		_, err = db.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)")
	}
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	if err := vacant(path); err != nil {
		return err
	}
	return publish(unfinished, path)
}

// publish gives a complete file its name, and returns when both the bytes and
// the name would survive the loss of power.
func publish(from, to string) error {
	for _, step := range []func() error{
		func() error { return syncPath(from) },
		func() error { return os.Rename(from, to) },
		func() error { return syncPath(filepath.Dir(to)) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Open opens the database at path, brings its schema up to date and holds it
// until Close. It never makes one. It fails, and leaves the file as it is, if
// that is missing, in use by another process, damaged, not a database of
// this program, or of a newer schema than this program knows.
func Open(ctx context.Context, path string) (*DB, error) {
	target, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no database at %s: run tocsin init to make one, or correct the path", path)
	} else if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	if target, err = filepath.Abs(target); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	if err := inspect(target); err != nil { // before a lock file is put beside what is not ours
		return nil, err
	}
	lock, err := lockFile(target)
	if err != nil {
		return nil, err
	}
	return open(ctx, target, lock)
}

// open takes over lock, also when it fails.
func open(ctx context.Context, path string, lock *os.File) (*DB, error) {
	db := &DB{path: path, lock: lock, audit: auditQueue{turn: make(chan struct{}, 1)}}
	err := db.start(ctx)
	if err != nil {
		db.Close()
		return nil, err
	}
	return db, nil
}

func (db *DB) start(ctx context.Context) error {
	db.reader = connect(db.path, reading)
	db.reader.SetMaxOpenConns(readers)
	db.reader.SetMaxIdleConns(readers)
	// The reader goes first because it can change nothing.
	if err := verify(ctx, db.reader, db.path); err != nil {
		return err
	}
	db.writer = connect(db.path, writing)
	if err := migrate(ctx, db.writer); err != nil {
		return fmt.Errorf("bring database %s up to date: %w", db.path, explain(err))
	}
	return db.countReviews(ctx)
}

// migrate brings a schema up to date.
func migrate(ctx context.Context, db *sql.DB) error {
	p, err := provider(db)
	if err != nil {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

func provider(db *sql.DB) (*goose.Provider, error) {
	dir, err := fs.Sub(migrations, "migrations/sqlite")
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(goose.DialectSQLite3, db, dir, goose.WithDisableGlobalRegistry(true))
}

// newest is the version of the newest schema this program knows.
func newest(db *sql.DB) (int64, error) {
	p, err := provider(db)
	if err != nil {
		return 0, err
	}
	sources := p.ListSources() // ascending
	return sources[len(sources)-1].Version, nil
}

// lockFile takes the lock that keeps two processes off one log. The lock goes
// when the process does, however it goes. The file stays: if it were removed, a
// third process could lock a new one while a second still waits on the old.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock database: %w", err)
	}
	switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
	case errors.Is(err, syscall.EWOULDBLOCK):
		f.Close()
		return nil, fmt.Errorf("database %s is in use by another tocsin, which holds %s.lock: stop that one first", path, path)
	case err != nil:
		f.Close()
		return nil, fmt.Errorf("lock %s.lock: %w", path, err)
	}
	return f, nil
}

// Close writes the write-ahead log back into the database and lets go of it. It
// waits for calls in progress. Closing twice does no harm.
func (db *DB) Close() error {
	db.closing.Do(func() {
		var errs []error
		if db.reader != nil {
			errs = append(errs, db.reader.Close())
		}
		if db.writer != nil {
			// The last connection to close does this too, but keeps its errors to itself.
			_, err := db.writer.Exec("PRAGMA wal_checkpoint(TRUNCATE)")
			errs = append(errs, explain(err), db.writer.Close())
		}
		errs = append(errs, db.lock.Close())
		if err := errors.Join(errs...); err != nil {
			db.closeErr = fmt.Errorf("close database %s: %w", db.path, err)
		}
	})
	return db.closeErr
}
