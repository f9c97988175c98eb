-- The recent window: what passed and was not refused, and what of it turned out to be
-- banned. What is in sealed can be read with the key of the window alone, which is not
-- in this database; package hashlist says how, and finds there what a disk has changed.
-- In the other tables sum is the xxHash64, as a signed number, of the row's other columns
-- in the order in which window.go names them.

-- +goose Up

CREATE TABLE window_uploads (
    id     INTEGER PRIMARY KEY, -- grows with time
    sealed BLOB    NOT NULL
) STRICT;

-- By these an upload is found by its reference. A tag is a keyed hash: two uploads of
-- one actor can be told to be so, but not whose they are.
CREATE TABLE window_tags (
    tag    BLOB    NOT NULL, -- 16 bytes
    upload INTEGER NOT NULL,
    PRIMARY KEY (tag, upload)
) STRICT, WITHOUT ROWID;

CREATE INDEX window_tags_of_upload ON window_tags (upload);

CREATE TABLE window_hits (
    seq    INTEGER PRIMARY KEY AUTOINCREMENT, -- never used again, so that a cursor stays good
    upload INTEGER NOT NULL,                  -- as in window_uploads, where it may be gone
    sealed BLOB    NOT NULL
) STRICT;

CREATE INDEX window_hits_of_upload ON window_hits (upload);

-- How far those who read the log or the hits have come.
CREATE TABLE window_cursors (
    name     TEXT    PRIMARY KEY NOT NULL,
    position INTEGER NOT NULL,
    sum      INTEGER NOT NULL
) STRICT;

-- Statements that do not act until a person has decided, and those of which one has.
CREATE TABLE quarantine (
    statement TEXT    PRIMARY KEY NOT NULL,
    list      TEXT    NOT NULL,
    issuer    TEXT    NOT NULL,
    matched   INTEGER NOT NULL, -- recent uploads that it would match
    uploads   INTEGER NOT NULL, -- recent uploads there were
    since     INTEGER NOT NULL, -- microseconds since 1970
    state     INTEGER NOT NULL, -- hashlist.QuarantineState
    decided   INTEGER NOT NULL, -- microseconds since 1970, 0 for not yet
    who       TEXT    NOT NULL,
    why       TEXT    NOT NULL,
    sum       INTEGER NOT NULL
) STRICT;

CREATE INDEX quarantine_of_list ON quarantine (list);

-- +goose Down

DROP TABLE quarantine;
DROP TABLE window_cursors;
DROP TABLE window_hits;
DROP TABLE window_tags;
DROP TABLE window_uploads;
