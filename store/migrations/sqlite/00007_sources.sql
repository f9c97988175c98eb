-- Subscriptions to lists of other systems: source.Store. In every table sum is the
-- xxHash64, as a signed number, of the row's other columns in the order in which
-- sources.go names them. body is JSON: sources have many settings, of which none is
-- searched for.

-- +goose Up

CREATE TABLE sources (
    name TEXT    PRIMARY KEY NOT NULL,
    body BLOB    NOT NULL, -- source.Source
    sum  INTEGER NOT NULL
) STRICT;

CREATE TABLE source_runs (
    source TEXT    NOT NULL,
    number INTEGER NOT NULL,
    body   BLOB    NOT NULL, -- source.Run
    sum    INTEGER NOT NULL,
    PRIMARY KEY (source, number)
) STRICT;

-- What a run that waits for a person would sign, a statement a row.
CREATE TABLE source_plans (
    source TEXT    NOT NULL,
    run    INTEGER NOT NULL,
    place  INTEGER NOT NULL, -- from 0
    body   BLOB    NOT NULL, -- hashlist.Statement in its binary form
    sum    INTEGER NOT NULL,
    PRIMARY KEY (source, run, place)
) STRICT;

-- What the entries of a source were, for those that are taken back by their name alone.
CREATE TABLE source_entries (
    source TEXT    NOT NULL,
    entry  TEXT    NOT NULL, -- the source's own name for it
    hash   TEXT    NOT NULL, -- algorithm:hex
    sum    INTEGER NOT NULL,
    PRIMARY KEY (source, entry, hash)
) STRICT;

-- +goose Down

DROP TABLE source_entries;
DROP TABLE source_plans;
DROP TABLE source_runs;
DROP TABLE sources;
