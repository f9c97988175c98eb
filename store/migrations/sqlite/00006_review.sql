-- What waits for a person's decision: hashlist.Reviews. sum is the xxHash64, as a
-- signed number, of the row's other columns in the order in which review.go names them.

-- +goose Up

CREATE TABLE reviews (
    seq       INTEGER PRIMARY KEY, -- place, from 1
    id        TEXT    NOT NULL UNIQUE,
    kind      INTEGER NOT NULL,    -- hashlist.ReviewKind
    state     INTEGER NOT NULL,    -- hashlist.ReviewState
    at        INTEGER NOT NULL,    -- microseconds since 1970, as the times below
    last      INTEGER NOT NULL,
    count     INTEGER NOT NULL,
    deadline  INTEGER NOT NULL,    -- 0 for none
    settled   INTEGER NOT NULL,    -- when it was decided or closed, 0 for not yet
    verdict   TEXT    NOT NULL,
    statement TEXT    NOT NULL,
    list      TEXT    NOT NULL,
    issuer    TEXT    NOT NULL,
    url       TEXT    NOT NULL,
    alias     TEXT    NOT NULL,
    post      TEXT    NOT NULL,
    actor     TEXT    NOT NULL,
    distance  INTEGER NOT NULL,
    algorithm TEXT    NOT NULL,
    summary   TEXT    NOT NULL,
    decisions BLOB    NOT NULL,    -- JSON
    body      BLOB    NOT NULL,
    sum       INTEGER NOT NULL
) STRICT;

CREATE INDEX reviews_of_kind ON reviews (kind, state, seq);

-- The place that was given last; old items are deleted, and places are not used again.
CREATE TABLE review_places (
    next INTEGER NOT NULL
) STRICT;

INSERT INTO review_places (next) VALUES (0);

-- Statements of this node that are brought to single servers: federation.Letters.
CREATE TABLE letters (
    statement TEXT    NOT NULL,
    recipient TEXT    NOT NULL,    -- the actor whose server gets it
    about     TEXT    NOT NULL,
    since     INTEGER NOT NULL,
    taken     INTEGER NOT NULL,    -- 0 for not yet
    given_up  INTEGER NOT NULL,    -- 0 or 1
    failures  INTEGER NOT NULL,
    trouble   TEXT    NOT NULL,
    answer    TEXT    NOT NULL,
    withdrawn INTEGER NOT NULL,    -- 0 or 1
    sum       INTEGER NOT NULL,
    PRIMARY KEY (statement, recipient)
) STRICT;

-- +goose Down

DROP TABLE letters;

DROP TABLE review_places;
DROP TABLE reviews;
