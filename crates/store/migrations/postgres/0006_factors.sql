-- The second factor: what people have, what is under way, and which sessions were proven by it.

-- What is sealed for people rather than for an organization has one data key for all of them, wrapped for the scope "users".
CREATE TABLE user_scope (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    data_key BYTEA NOT NULL -- wrapped by the root key, bound to "users"
);

CREATE TABLE passkeys (
    id TEXT COLLATE "C" PRIMARY KEY,
    user_id TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    kind TEXT NOT NULL, -- passkey, security-key
    name TEXT COLLATE "C" NOT NULL,
    credential_id BYTEA NOT NULL UNIQUE,
    credential TEXT NOT NULL, -- public key, counter and flags, as JSON: nothing secret
    created_ms BIGINT NOT NULL,
    used_ms BIGINT,
    UNIQUE (user_id, name)
);

CREATE TABLE totp (
    user_id TEXT COLLATE "C" PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    secret BYTEA NOT NULL, -- sealed under the data key of user_scope, bound to "users", user_id and 'totp'
    last_step BIGINT NOT NULL, -- the newest step whose code was used: no code up to it counts again
    created_ms BIGINT NOT NULL,
    used_ms BIGINT
);

CREATE TABLE recovery_codes (
    user_id TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    code_hash BYTEA NOT NULL, -- keyed hash; the row is gone once the code is used
    PRIMARY KEY (user_id, code_hash)
);

-- Codes that were tried in the present window.
CREATE TABLE factor_tries (
    user_id TEXT COLLATE "C" PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    window_ms BIGINT NOT NULL, -- its beginning
    tries BIGINT NOT NULL
);

-- Ceremonies under way; each is answered once.
CREATE TABLE challenges (
    id_hash BYTEA PRIMARY KEY, -- keyed hash of the id that travels
    purpose TEXT NOT NULL,
    user_id TEXT COLLATE "C" REFERENCES users (id) ON DELETE CASCADE, -- NULL while it is not known who answers
    key_id TEXT COLLATE "C" REFERENCES keys (id) ON DELETE CASCADE, -- the key or session that asked
    state BYTEA NOT NULL,
    peer TEXT NOT NULL,
    proof_hash BYTEA, -- keyed hash of what a page gave for an answer, to be brought by the command line
    proof_factor TEXT NOT NULL DEFAULT '', -- by which factor
    created_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL
);
CREATE INDEX challenges_user ON challenges (user_id);
CREATE INDEX challenges_key ON challenges (key_id);

ALTER TABLE keys ADD COLUMN proven_ms BIGINT NOT NULL DEFAULT 0; -- of a session: when its owner last proved who they are
ALTER TABLE keys ADD COLUMN factor TEXT NOT NULL DEFAULT ''; -- of a session: by which second factor; empty without one
ALTER TABLE keys ADD COLUMN goes_with TEXT COLLATE "C" REFERENCES keys (id) ON DELETE CASCADE; -- of a command line's session: its API key
UPDATE keys SET proven_ms = created_ms WHERE kind = 'session';
CREATE INDEX keys_goes_with ON keys (goes_with);

ALTER TABLE orgs ADD COLUMN needs_factor BIGINT NOT NULL DEFAULT 0; -- 1: members do nothing without a second factor
