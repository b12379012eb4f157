-- The web: sessions are keys that only a cookie carries; invitations and forgotten passwords; what pages show of keys and Racks.

ALTER TABLE keys ADD COLUMN used_ms BIGINT; -- last use, to about a minute
ALTER TABLE keys ADD COLUMN ends_ms BIGINT; -- of a session: expires_ms moves with its use, and never beyond this
ALTER TABLE keys ADD COLUMN peer TEXT NOT NULL DEFAULT ''; -- of a session: where it was signed in
ALTER TABLE keys ADD COLUMN agent TEXT NOT NULL DEFAULT ''; -- of a session: with which browser

ALTER TABLE racks ADD COLUMN protected BIGINT NOT NULL DEFAULT 0; -- 1: not removed before this is 0 again
ALTER TABLE racks ADD COLUMN password_ms BIGINT NOT NULL DEFAULT 0; -- since when the password is what it is
UPDATE racks SET password_ms = created_ms;

CREATE TABLE invitations (
    id TEXT COLLATE "C" PRIMARY KEY,
    org_id TEXT COLLATE "C" NOT NULL REFERENCES orgs (id) ON DELETE CASCADE,
    email TEXT COLLATE "C" NOT NULL,
    role TEXT NOT NULL,
    code_hash BYTEA NOT NULL UNIQUE, -- keyed hash of the code in the link
    invited_by TEXT NOT NULL, -- address
    created_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL,
    UNIQUE (org_id, email)
);

CREATE TABLE resets (
    user_id TEXT COLLATE "C" PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    code_hash BYTEA NOT NULL UNIQUE, -- keyed hash of the code in the link
    expires_ms BIGINT NOT NULL
);

-- Racks that this Console installs on its own machine.
CREATE TABLE installs (
    id TEXT COLLATE "C" PRIMARY KEY,
    org_id TEXT COLLATE "C" NOT NULL REFERENCES orgs (id) ON DELETE CASCADE,
    name TEXT COLLATE "C" NOT NULL,
    status TEXT NOT NULL, -- running, done, failed
    log TEXT NOT NULL,
    started_by TEXT NOT NULL, -- address
    started_ms BIGINT NOT NULL,
    ended_ms BIGINT
);
CREATE INDEX installs_org ON installs (org_id, id);

-- Who used a Rack last.
CREATE INDEX audit_rack ON audit (org_id, rack, id);
