-- What a node has agreed with others: federation.Peers. Texts are ordered by
-- their bytes. In every table sum is the xxHash64, as a signed number, of the
-- row's other columns in the order in which peers.go or leaves.go names them.

-- +goose Up

CREATE TABLE follows (
    list     TEXT    PRIMARY KEY NOT NULL,
    id       TEXT    NOT NULL,
    state    INTEGER NOT NULL, -- federation.FollowState
    most     INTEGER NOT NULL, -- hashlist.Verdict
    asked    INTEGER NOT NULL, -- microseconds since 1970
    answered INTEGER NOT NULL, -- microseconds since 1970, 0 for not yet
    skipped  INTEGER NOT NULL,
    trouble  TEXT    NOT NULL,
    sum      INTEGER NOT NULL,
    head     BLOB    NOT NULL,
    actor    BLOB    NOT NULL
) STRICT;

-- One row is a run of a tree's leaves, so that a million are loaded with some
-- thousand rows. All runs of a list but its last are full.
CREATE TABLE leaves (
    list   TEXT    NOT NULL,
    place  INTEGER NOT NULL, -- of the first of them, from 0
    sum    INTEGER NOT NULL,
    hashes BLOB    NOT NULL, -- of 32 bytes each, one behind the other
    PRIMARY KEY (list, place)
) STRICT;

CREATE TABLE followers (
    list     TEXT    NOT NULL,
    actor    TEXT    NOT NULL,
    inbox    TEXT    NOT NULL,
    follow   TEXT    NOT NULL,
    state    INTEGER NOT NULL, -- federation.FollowerState
    asked    INTEGER NOT NULL, -- microseconds since 1970
    decided  INTEGER NOT NULL, -- microseconds since 1970, 0 for not yet
    told     INTEGER NOT NULL, -- 0 or 1
    position INTEGER NOT NULL,
    sum      INTEGER NOT NULL,
    PRIMARY KEY (list, actor)
) STRICT;

CREATE TABLE peers (
    inbox    TEXT    PRIMARY KEY NOT NULL,
    failing  INTEGER NOT NULL, -- microseconds since 1970, 0 for not failing
    failures INTEGER NOT NULL,
    retired  INTEGER NOT NULL, -- 0 or 1
    trouble  TEXT    NOT NULL,
    sum      INTEGER NOT NULL
) STRICT;

-- method contains issuer and the key, so of one method there is one row.
CREATE TABLE keys (
    issuer  TEXT    NOT NULL,
    method  TEXT    NOT NULL,
    public  BLOB    NOT NULL, -- Ed25519, 32 bytes
    seen    INTEGER NOT NULL, -- microseconds since 1970
    expires INTEGER NOT NULL, -- microseconds since 1970, 0 for never
    revoked INTEGER NOT NULL, -- microseconds since 1970, 0 for never
    sum     INTEGER NOT NULL,
    PRIMARY KEY (issuer, method)
) STRICT;

-- +goose Down

DROP TABLE keys;
DROP TABLE peers;
DROP TABLE followers;
DROP TABLE leaves;
DROP TABLE follows;
