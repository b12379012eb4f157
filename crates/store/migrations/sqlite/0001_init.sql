-- Times are milliseconds since 1970, UTC. Ids are UUIDv7 texts: they sort by the time of their making.

CREATE TABLE orgs (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    data_key BLOB NOT NULL, -- wrapped by the root key, bound to id
    created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE users (
    id TEXT PRIMARY KEY,
    email TEXT NOT NULL UNIQUE,
    password_hash TEXT, -- Argon2id, for the web
    created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE members (
    org_id TEXT NOT NULL REFERENCES orgs (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (org_id, user_id)
) STRICT;
CREATE INDEX members_user ON members (user_id);

CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    hash BLOB NOT NULL UNIQUE, -- keyed hash of the key
    last4 TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER,
    UNIQUE (user_id, name)
) STRICT;

CREATE TABLE racks (
    id TEXT PRIMARY KEY,
    org_id TEXT NOT NULL REFERENCES orgs (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    provider TEXT NOT NULL,
    host TEXT NOT NULL,
    pin TEXT, -- sha256 fingerprint; without one, the system's roots decide
    password BLOB NOT NULL, -- sealed under the organization's data key, bound to org, id and 'password'
    generation INTEGER NOT NULL, -- moves with every change of host, pin or password
    created_ms INTEGER NOT NULL,
    UNIQUE (org_id, name)
) STRICT;

CREATE TABLE setup (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    code_hash BLOB NOT NULL
) STRICT;

CREATE TABLE audit (
    id TEXT PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    actor TEXT NOT NULL,
    org TEXT NOT NULL,
    rack TEXT NOT NULL,
    app TEXT NOT NULL,
    effect TEXT NOT NULL,
    decision TEXT NOT NULL,
    status INTEGER, -- what came back; NULL while unknown
    event TEXT NOT NULL -- the whole event, one line of JSON
) STRICT;
CREATE INDEX audit_org ON audit (org, id);

CREATE TABLE feed (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    seq INTEGER NOT NULL
) STRICT;
INSERT INTO feed (id, seq) VALUES (1, 0);

CREATE TABLE nodes (
    id TEXT PRIMARY KEY,
    seen_seq INTEGER NOT NULL,
    beat_ms INTEGER NOT NULL
) STRICT;
