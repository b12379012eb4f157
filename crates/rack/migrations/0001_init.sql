-- Times are milliseconds since 1970, UTC.

CREATE TABLE apps (
    name TEXT PRIMARY KEY,
    generation TEXT NOT NULL,
    locked INTEGER NOT NULL,
    status TEXT NOT NULL,
    release TEXT NOT NULL, -- the active one; empty before the first promote
    promoting TEXT NOT NULL, -- the one that was asked for and is not active yet; resumed after a crash
    parameters TEXT NOT NULL, -- JSON object
    created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE builds (
    id TEXT PRIMARY KEY,
    app TEXT NOT NULL REFERENCES apps (name) ON DELETE CASCADE,
    description TEXT NOT NULL,
    git_sha TEXT NOT NULL,
    manifest TEXT NOT NULL,
    release TEXT NOT NULL,
    reason TEXT NOT NULL,
    status TEXT NOT NULL,
    started_ms INTEGER NOT NULL,
    ended_ms INTEGER -- NULL while it runs
) STRICT;
CREATE INDEX builds_app ON builds (app, started_ms);

CREATE TABLE releases (
    seq INTEGER PRIMARY KEY, -- order of making; two can share a millisecond
    id TEXT NOT NULL UNIQUE,
    app TEXT NOT NULL REFERENCES apps (name) ON DELETE CASCADE,
    build TEXT NOT NULL,
    env BLOB NOT NULL, -- sealed, bound to app and release
    manifest TEXT NOT NULL,
    description TEXT NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX releases_app ON releases (app, seq);

CREATE TABLE formations (
    app TEXT NOT NULL REFERENCES apps (name) ON DELETE CASCADE,
    service TEXT NOT NULL,
    count INTEGER,
    cpu INTEGER,
    memory INTEGER,
    PRIMARY KEY (app, service)
) STRICT;

CREATE TABLE objects (
    app TEXT NOT NULL REFERENCES apps (name) ON DELETE CASCADE,
    key TEXT NOT NULL,
    file TEXT NOT NULL, -- name of the file that holds it
    size INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (app, key)
) STRICT;

CREATE TABLE system (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE signers (
    kid TEXT PRIMARY KEY,
    key BLOB NOT NULL, -- sealed, bound to kid
    created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE versions (
    version TEXT PRIMARY KEY,
    created_ms INTEGER NOT NULL
) STRICT;
