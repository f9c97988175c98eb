package store

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"

	"github.com/mattn/go-sqlite3"
)

// applicationID stands in the header of the file and says whose it is: "tocs".
const applicationID = 0x746f6373

// pageSize is the unit in bytes in which SQLite reads and writes. With 16 KiB,
// large batches append in half the time, but a single ban takes almost three
// times as long and wears the disk four times as much; reading is alike.
const pageSize = 4096

// maxCell is the most bytes of one value or row, somewhat more than the
// longest record. A damaged file cannot make SQLite reserve more.
const maxCell = MaxSigned + 1<<20

// use is what a connection is for.
type use int

const (
	reading  use = iota
	writing      // and the database is there
	creating     // writing to an empty file
)

// connector opens connections of one use. It stands in for a driver registered
// by name because only so can each connection be set up before its first query.
type connector struct {
	dsn     string
	pragmas string
}

// connect prepares connections to a file that exists; none is opened yet.
func connect(path string, for_ use) *sql.DB {
	mode := "rw" // never rwc: whatever goes wrong, no new file
	// Values are not taken at their word: a view or trigger in a file that
	// somebody meddled with cannot call functions, and lengths are compared with
	// what is there.
	pragmas := "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY;"
	switch for_ {
	case reading:
		mode = "ro" // and not query_only, under which no backup can be written either
	case creating:
		pragmas += fmt.Sprintf("PRAGMA page_size = %d; PRAGMA application_id = %d;", pageSize, applicationID)
		fallthrough
	case writing:
		// FULL, and on macOS fullfsync: a commit returns when the disk has it. The
		// default of WAL, NORMAL, may lose the last commits with the power. The log
		// is written back every 4 MB or so, and shrinks again after a burst.
		pragmas += "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA fullfsync = ON;" +
			fmt.Sprintf("PRAGMA wal_autocheckpoint = %d; PRAGMA journal_size_limit = %d;", 4<<20/pageSize, 16<<20)
	}
	file := url.URL{Scheme: "file", Path: path, RawQuery: url.Values{
		"mode":             {mode},
		"_busy_timeout":    {"5000"}, // for an sqlite3 shell; we never wait for ourselves
		"_txlock":          {"immediate"},
		"_stmt_cache_size": {"16"},
	}.Encode()}
	db := sql.OpenDB(connector{file.String(), pragmas})
	db.SetMaxOpenConns(1)
	return db
}

// Connect implements driver.Connector.
func (c connector) Connect(context.Context) (driver.Conn, error) {
	return c.Driver().Open(c.dsn)
}

// Driver implements driver.Connector.
func (c connector) Driver() driver.Driver {
	return &sqlite3.SQLiteDriver{ConnectHook: func(conn *sqlite3.SQLiteConn) error {
		conn.SetLimit(sqlite3.SQLITE_LIMIT_LENGTH, maxCell)
		_, err := conn.Exec(c.pragmas, nil)
		return err
	}}
}

// inspect refuses what is no database of ours by its first bytes, before SQLite
// is let near it. SQLite takes an empty file for an empty database.
func inspect(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	if !info.Mode().IsRegular() { // asked first: to open a named pipe would hang
		return fmt.Errorf("%s is not a file, so it is not a database: correct the path", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	defer f.Close()
	var header [100]byte // https://www.sqlite.org/fileformat.html#the_database_header
	switch _, err := io.ReadFull(f, header[:]); {
	case err == io.EOF:
		return fmt.Errorf("%s is empty, so it is not a database: restore a backup, or remove it and run tocsin init if there never was one", path)
	case err == io.ErrUnexpectedEOF || err == nil && !bytes.HasPrefix(header[:], []byte("SQLite format 3\x00")):
		return fmt.Errorf("%s is not a database, or its beginning is damaged: correct the path, or restore a backup", path)
	case err != nil:
		return fmt.Errorf("read database: %w", err)
	}
	if id := binary.BigEndian.Uint32(header[68:]); id != applicationID {
		return fmt.Errorf("%s is a database of another program (application id %#x): correct the path", path, id)
	}
	// SQLite makes up a missing end of the last page with zeros. That is right
	// after a crash, when the write-ahead log holds the page; not otherwise.
	unit := max(512, int64(binary.BigEndian.Uint16(header[16:]))) // 1 stands for 65536, of which 512 is a part
	if wal, err := os.Stat(path + "-wal"); (err != nil || wal.Size() == 0) && info.Size()%unit != 0 {
		return fmt.Errorf("%s is cut short: restore a backup", path)
	}
	return nil
}

// verify refuses a database that is damaged or newer than this program. It only reads.
func verify(ctx context.Context, db *sql.DB, path string) error {
	known, err := newest(db)
	if err != nil {
		return err
	}
	var version sql.NullInt64
	if err := db.QueryRowContext(ctx, "SELECT max(version_id) FROM goose_db_version").Scan(&version); err != nil {
		if e := (sqlite3.Error{}); errors.As(err, &e) && e.Code == sqlite3.ErrError { // no such table
			return fmt.Errorf("database %s has no schema version, so it is damaged: restore a backup: %w", path, err)
		}
		return fmt.Errorf("read the schema version of database %s: %w", path, explain(err))
	}
	if version.Int64 > known {
		return fmt.Errorf("database %s has schema %d, this program knows schemas up to %d: a newer version of tocsin is needed", path, version.Int64, known)
	}
	if version.Int64 < 1 {
		return fmt.Errorf("database %s has no schema version, so it is damaged: restore a backup", path)
	}
	limited, cancel := context.WithTimeout(ctx, quickCheckTime)
	defer cancel()
	err = check(limited, db, "PRAGMA quick_check(1)")
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		return nil // too large to look at all of it now
	}
	if err != nil {
		return fmt.Errorf("check database %s: %w", path, err)
	}
	return nil
}

// check runs one of SQLite's own checks and turns what it finds into an error.
func check(ctx context.Context, db *sql.DB, pragma string) error {
	rows, err := db.QueryContext(ctx, pragma)
	if err != nil {
		return explain(err)
	}
	defer rows.Close()
	var found []error
	for rows.Next() {
		var finding string
		if err := rows.Scan(&finding); err != nil {
			return explain(err)
		}
		if finding != "ok" {
			found = append(found, errors.New(finding))
		}
	}
	if err := rows.Err(); err != nil {
		return explain(err)
	}
	if len(found) > 0 {
		return fmt.Errorf("%s: %w", damaged, errors.Join(found...))
	}
	return nil
}

const damaged = "the database is damaged; stop the node, keep the file, and restore a backup"

// explain says what to do about an error of SQLite's. Others pass unchanged.
func explain(err error) error {
	var e sqlite3.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code {
	case sqlite3.ErrFull:
		return fmt.Errorf("no space is left on the disk; free some: %w", err)
	case sqlite3.ErrBusy, sqlite3.ErrLocked, sqlite3.ErrProtocol:
		return fmt.Errorf("another program is writing to the database; close it: %w", err)
	case sqlite3.ErrCorrupt, sqlite3.ErrNotADB:
		return fmt.Errorf("%s: %w", damaged, err)
	case sqlite3.ErrIoErr:
		return fmt.Errorf("the disk or file system failed; look at the system's log: %w", err)
	case sqlite3.ErrReadonly, sqlite3.ErrPerm, sqlite3.ErrCantOpen, sqlite3.ErrAuth:
		return fmt.Errorf("the database or its directory may not be written; correct owner and mode: %w", err)
	case sqlite3.ErrTooBig:
		return fmt.Errorf("a value is longer than any this program writes; if it was read, %s: %w", damaged, err)
	}
	return err
}
