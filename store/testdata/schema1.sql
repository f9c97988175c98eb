-- A database of schema 1 as it was first made, for TestFirstSchemaIsFrozen. Never edit it.
PRAGMA application_id = 1953457011;
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE goose_db_version (
		id INTEGER PRIMARY KEY AUTOINCREMENT,
		version_id INTEGER NOT NULL,
		is_applied INTEGER NOT NULL,
		tstamp TIMESTAMP DEFAULT (datetime('now'))
	);
INSERT INTO goose_db_version VALUES(1,0,1,'2026-11-22 22:40:31');
INSERT INTO goose_db_version VALUES(2,1,1,'2026-11-22 22:40:31');
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
INSERT INTO statements VALUES(1,'https://alice.example/statements/1',3,'https://alice.example/users/admin','https://alice.example/lists/spam',1795342272345678,-1841727564018853499,1716503388730932306,X'01032268747470733a2f2f616c6963652e6578616d706c652f73746174656d656e74732f312168747470733a2f2f616c6963652e6578616d706c652f75736572732f61646d696e2068747470733a2f2f616c6963652e6578616d706c652f6c697374732f7370616d80f7c4d506000000000001047370616d047370616d01047370616d030307001f080600000000',X'7b226669727374223a747275657d');
INSERT INTO statements VALUES(2,'https://alice.example/statements/2',1,'https://alice.example/users/admin','https://alice.example/lists/spam',1795342272345678,-5347087653017764723,5737132117256360612,X'01012268747470733a2f2f616c6963652e6578616d706c652f73746174656d656e74732f322168747470733a2f2f616c6963652e6578616d706c652f75736572732f61646d696e2068747470733a2f2f616c6963652e6578616d706c652f6c697374732f7370616d80f7c4d50600000000000001010123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef',X'7b227365636f6e64223a747275657d');
CREATE TABLE tokens (
    name    TEXT    PRIMARY KEY NOT NULL,
    scope   TEXT    NOT NULL,
    sum     BLOB    NOT NULL UNIQUE, -- SHA-256 of the secret
    created INTEGER NOT NULL,        -- microseconds since 1970
    expires INTEGER NOT NULL         -- microseconds since 1970, 0 for never
);
INSERT INTO tokens VALUES('pict-rs','lookup',X'0102030000000000000000000000000000000000000000000000000000000000',1795342272345678,0);
DELETE FROM sqlite_sequence;
INSERT INTO sqlite_sequence VALUES('goose_db_version',2);
CREATE INDEX statements_of_list ON statements (list, seq);
COMMIT;
