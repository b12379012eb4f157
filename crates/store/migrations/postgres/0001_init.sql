-- Times are milliseconds since 1970, UTC. Ids are UUIDv7 texts: they sort by the time of their making, byte by byte as in SQLite and not
-- as the database's language would.

CREATE TABLE orgs (
    id TEXT COLLATE "C" PRIMARY KEY,
    name TEXT COLLATE "C" NOT NULL UNIQUE,
    data_key BYTEA NOT NULL, -- wrapped by the root key, bound to id
    created_ms BIGINT NOT NULL
);

CREATE TABLE users (
    id TEXT COLLATE "C" PRIMARY KEY,
    email TEXT COLLATE "C" NOT NULL UNIQUE,
    password_hash TEXT, -- Argon2id, for the web
    created_ms BIGINT NOT NULL
);

CREATE TABLE members (
    org_id TEXT COLLATE "C" NOT NULL REFERENCES orgs (id) ON DELETE CASCADE,
    user_id TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    PRIMARY KEY (org_id, user_id)
);
CREATE INDEX members_user ON members (user_id);

CREATE TABLE keys (
    id TEXT COLLATE "C" PRIMARY KEY,
    user_id TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    hash BYTEA NOT NULL UNIQUE, -- keyed hash of the key
    last4 TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    expires_ms BIGINT,
    UNIQUE (user_id, name)
);

CREATE TABLE racks (
    id TEXT COLLATE "C" PRIMARY KEY,
    org_id TEXT COLLATE "C" NOT NULL REFERENCES orgs (id) ON DELETE CASCADE,
    name TEXT COLLATE "C" NOT NULL,
    provider TEXT NOT NULL,
    host TEXT NOT NULL,
    pin TEXT, -- sha256 fingerprint; without one, the system's roots decide
    password BYTEA NOT NULL, -- sealed under the organization's data key, bound to org, id and 'password'
    generation BIGINT NOT NULL, -- moves with every change of host, pin or password
    created_ms BIGINT NOT NULL,
    UNIQUE (org_id, name)
);

CREATE TABLE setup (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    code_hash BYTEA NOT NULL
);

CREATE TABLE audit (
    id TEXT COLLATE "C" PRIMARY KEY,
    at_ms BIGINT NOT NULL,
    actor TEXT NOT NULL,
    org TEXT NOT NULL,
    rack TEXT NOT NULL,
    app TEXT NOT NULL,
    effect TEXT NOT NULL,
    decision TEXT NOT NULL,
    status BIGINT, -- what came back; NULL while unknown
    event TEXT NOT NULL -- the whole event, one line of JSON
);
CREATE INDEX audit_org ON audit (org, id);

CREATE TABLE feed (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    seq BIGINT NOT NULL
);
INSERT INTO feed (id, seq) VALUES (1, 0);

CREATE TABLE nodes (
    id TEXT COLLATE "C" PRIMARY KEY,
    seen_seq BIGINT NOT NULL,
    beat_ms BIGINT NOT NULL
);
