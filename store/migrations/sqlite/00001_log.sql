-- The log and the tokens of one node. This file is frozen: databases in the
-- field were made by it. What has to change goes into a later migration.

-- +goose Up

-- One row is one statement at its place in the log. Rows are never deleted and
-- seq has no gaps. body and what it is searched by come first and signed comes
-- last: a row is a chain of pages, SQLite follows it no further than the last
-- column asked for, and a node that starts asks for all the bodies and none of
-- the signed bytes, which are twice as long.
CREATE TABLE statements (
    seq        INTEGER PRIMARY KEY, -- place, from 1
    id         TEXT    NOT NULL UNIQUE,
    kind       INTEGER NOT NULL,    -- hashlist.Kind
    issuer     TEXT    NOT NULL,
    list       TEXT    NOT NULL,
    received   INTEGER NOT NULL,    -- microseconds since 1970
    body_sum   INTEGER NOT NULL,    -- xxHash64 of body, as a signed number
    signed_sum INTEGER NOT NULL,    -- xxHash64 of signed, as a signed number
    body       BLOB    NOT NULL,    -- hashlist.Statement in its binary form
    signed     BLOB    NOT NULL     -- the very bytes the issuer signed
);

CREATE INDEX statements_of_list ON statements (list, seq);

CREATE TABLE tokens (
    name    TEXT    PRIMARY KEY NOT NULL,
    scope   TEXT    NOT NULL,
    sum     BLOB    NOT NULL UNIQUE, -- SHA-256 of the secret
    created INTEGER NOT NULL,        -- microseconds since 1970
    expires INTEGER NOT NULL         -- microseconds since 1970, 0 for never
);

-- +goose Down

DROP TABLE tokens;
DROP TABLE statements;
