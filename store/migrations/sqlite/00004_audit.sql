-- The audit log: hashlist.Audit. Rows are never deleted and seq has no gaps. body
-- may be emptied if a law asks for that: sum takes in its SHA-256 and not itself.

-- +goose Up

CREATE TABLE audit (
    seq      INTEGER PRIMARY KEY,  -- place, from 1
    id       TEXT    NOT NULL UNIQUE,
    kind     TEXT    NOT NULL,
    at       INTEGER NOT NULL,     -- microseconds since 1970
    who      TEXT    NOT NULL,
    body_sum BLOB    NOT NULL,     -- SHA-256 of body
    sum      BLOB    NOT NULL,     -- SHA-256 of the sum before it and of this row; see audit.go
    body     BLOB    NOT NULL      -- JSON
) STRICT;

-- +goose Down

DROP TABLE audit;
