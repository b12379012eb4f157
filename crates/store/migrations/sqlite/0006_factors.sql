-- The second factor: what people have, what is under way, and which sessions were proven by it.

-- What is sealed for people rather than for an organization has one data key for all of them, wrapped for the scope "users".
CREATE TABLE user_scope (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    data_key BLOB NOT NULL -- wrapped by the root key, bound to "users"
) STRICT;

CREATE TABLE passkeys (
    id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    kind TEXT NOT NULL, -- passkey, security-key
    name TEXT NOT NULL,
    credential_id BLOB NOT NULL UNIQUE,
    credential TEXT NOT NULL, -- public key, counter and flags, as JSON: nothing secret
    created_ms INTEGER NOT NULL,
    used_ms INTEGER,
    UNIQUE (user_id, name)
) STRICT;

CREATE TABLE totp (
    user_id TEXT PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    secret BLOB NOT NULL, -- sealed under the data key of user_scope, bound to "users", user_id and 'totp'
    last_step INTEGER NOT NULL, -- the newest step whose code was used: no code up to it counts again
    created_ms INTEGER NOT NULL,
    used_ms INTEGER
) STRICT;

CREATE TABLE recovery_codes (
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    code_hash BLOB NOT NULL, -- keyed hash; the row is gone once the code is used
    PRIMARY KEY (user_id, code_hash)
) STRICT;

-- Codes that were tried in the present window.
CREATE TABLE factor_tries (
    user_id TEXT PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    window_ms INTEGER NOT NULL, -- its beginning
    tries INTEGER NOT NULL
) STRICT;

-- Ceremonies under way; each is answered once.
CREATE TABLE challenges (
    id_hash BLOB PRIMARY KEY, -- keyed hash of the id that travels
    purpose TEXT NOT NULL,
    user_id TEXT REFERENCES users (id) ON DELETE CASCADE, -- NULL while it is not known who answers
    key_id TEXT REFERENCES keys (id) ON DELETE CASCADE, -- the key or session that asked
    state BLOB NOT NULL,
    peer TEXT NOT NULL,
    proof_hash BLOB, -- keyed hash of what a page gave for an answer, to be brought by the command line
    proof_factor TEXT NOT NULL DEFAULT '', -- by which factor
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX challenges_user ON challenges (user_id);
CREATE INDEX challenges_key ON challenges (key_id);

ALTER TABLE keys ADD COLUMN proven_ms INTEGER NOT NULL DEFAULT 0; -- of a session: when its owner last proved who they are
ALTER TABLE keys ADD COLUMN factor TEXT NOT NULL DEFAULT ''; -- of a session: by which second factor; empty without one
ALTER TABLE keys ADD COLUMN goes_with TEXT REFERENCES keys (id) ON DELETE CASCADE; -- of a command line's session: its API key
UPDATE keys SET proven_ms = created_ms WHERE kind = 'session';
CREATE INDEX keys_goes_with ON keys (goes_with);

ALTER TABLE orgs ADD COLUMN needs_factor INTEGER NOT NULL DEFAULT 0; -- 1: members do nothing without a second factor
