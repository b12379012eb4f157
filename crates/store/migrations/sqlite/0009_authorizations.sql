-- Command lines that sign in by the browser. What is pending dies with the session of whoever approved it.

CREATE TABLE authorization_codes (
    code_hash BLOB PRIMARY KEY, -- keyed hash of the code that the browser carries to the command line
    session_id TEXT NOT NULL REFERENCES keys (id) ON DELETE CASCADE, -- of whoever approved
    challenge TEXT NOT NULL, -- of PKCE, S256
    redirect_uri TEXT NOT NULL,
    device TEXT NOT NULL, -- what the machine calls itself
    key_name TEXT NOT NULL, -- of the key to be made
    key_life_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX authorization_codes_session ON authorization_codes (session_id);

CREATE TABLE device_authorizations (
    id TEXT PRIMARY KEY,
    device_hash BLOB NOT NULL UNIQUE, -- keyed hash of the code that the command line keeps
    user_hash BLOB NOT NULL UNIQUE, -- keyed hash of the code that a person types
    device TEXT NOT NULL, -- what the machine calls itself
    peer TEXT NOT NULL, -- address that asked
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    interval_ms INTEGER NOT NULL, -- between two questions; grows when it is not kept
    polled_ms INTEGER NOT NULL, -- when it was last asked for
    state TEXT NOT NULL, -- pending, approved, denied
    session_id TEXT REFERENCES keys (id) ON DELETE CASCADE, -- of whoever approved
    key_name TEXT NOT NULL DEFAULT '', -- of the key to be made
    key_life_ms INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX device_authorizations_session ON device_authorizations (session_id);
CREATE INDEX device_authorizations_peer ON device_authorizations (peer);

-- Wrong codes that somebody typed.
CREATE TABLE code_tries (
    user_id TEXT PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    tries INTEGER NOT NULL,
    since_ms INTEGER NOT NULL
) STRICT;
