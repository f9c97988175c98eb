-- What the node does on platforms, and what it remembers to look at again or to
-- tell. In every table sum is the xxHash64, as a signed number, of the row's other
-- columns in the order in which acts.go names them.

-- +goose Up

CREATE TABLE acts (
    id      TEXT    PRIMARY KEY NOT NULL,
    made    INTEGER NOT NULL, -- microseconds since 1970
    changed INTEGER NOT NULL, -- microseconds since 1970
    state   INTEGER NOT NULL, -- platform.State
    sum     INTEGER NOT NULL,
    body    BLOB    NOT NULL  -- platform.Act in JSON
) STRICT;

-- Addresses whose pictures stay on other people's servers.
CREATE TABLE revisits (
    url     TEXT    PRIMARY KEY NOT NULL,
    added   INTEGER NOT NULL, -- microseconds since 1970
    state   INTEGER NOT NULL, -- revisit.State
    next    INTEGER NOT NULL, -- microseconds since 1970
    sum     INTEGER NOT NULL,
    body    BLOB    NOT NULL  -- revisit.Address in JSON
) STRICT;

-- Reports to authorities, one of each verdict to each of them.
CREATE TABLE reports (
    verdict TEXT    NOT NULL,
    agency  TEXT    NOT NULL,
    number  TEXT    NOT NULL, -- the agency's, '' while it is not known whether it was taken
    begun   INTEGER NOT NULL, -- microseconds since 1970
    sent    INTEGER NOT NULL, -- microseconds since 1970, 0 for not yet
    who     TEXT    NOT NULL,
    sum     INTEGER NOT NULL,
    PRIMARY KEY (verdict, agency)
) STRICT;

-- How far those who read something in its order have come.
CREATE TABLE marks (
    name     TEXT    PRIMARY KEY NOT NULL,
    at       INTEGER NOT NULL, -- microseconds since 1970
    position INTEGER NOT NULL,
    sum      INTEGER NOT NULL
) STRICT;

-- +goose Down

DROP TABLE marks;
DROP TABLE reports;
DROP TABLE revisits;
DROP TABLE acts;
