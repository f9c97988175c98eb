-- What federation.Peers keeps of whom this node believes, beside the log. In both
-- tables sum is the xxHash64, as a signed number, of the row's other columns in the order in
-- which trust.go names them.

-- +goose Up

-- Of a list that is followed; one that is not here is followed in the usual way.
CREATE TABLE terms (
    list       TEXT    PRIMARY KEY NOT NULL,
    by_trust   INTEGER NOT NULL, -- 0 or 1
    trust_only INTEGER NOT NULL, -- 0 or 1
    sum        INTEGER NOT NULL
) STRICT;

-- Of a key; one that is not here was there when its issuer was met.
CREATE TABLE key_marks (
    method TEXT    PRIMARY KEY NOT NULL,
    issuer TEXT    NOT NULL,
    state  INTEGER NOT NULL, -- federation.KeyState
    at     INTEGER NOT NULL, -- microseconds since 1970
    who    TEXT    NOT NULL,
    old    TEXT    NOT NULL, -- the key that backs it, '' for none
    proof  TEXT    NOT NULL, -- by old
    sum    INTEGER NOT NULL
) STRICT;

-- +goose Down

DROP TABLE key_marks;
DROP TABLE terms;
