-- The web: sessions are keys that only a cookie carries; invitations and forgotten passwords; what pages show of keys and Racks.

ALTER TABLE keys ADD COLUMN used_ms INTEGER; -- last use, to about a minute
ALTER TABLE keys ADD COLUMN ends_ms INTEGER; -- of a session: expires_ms moves with its use, and never beyond this
ALTER TABLE keys ADD COLUMN peer TEXT NOT NULL DEFAULT ''; -- of a session: where it was signed in
ALTER TABLE keys ADD COLUMN agent TEXT NOT NULL DEFAULT ''; -- of a session: with which browser

ALTER TABLE racks ADD COLUMN protected INTEGER NOT NULL DEFAULT 0; -- 1: not removed before this is 0 again
ALTER TABLE racks ADD COLUMN password_ms INTEGER NOT NULL DEFAULT 0; -- since when the password is what it is
UPDATE racks SET password_ms = created_ms;

CREATE TABLE invitations (
    id TEXT PRIMARY KEY,
    org_id TEXT NOT NULL REFERENCES orgs (id) ON DELETE CASCADE,
    email TEXT NOT NULL,
    role TEXT NOT NULL,
    code_hash BLOB NOT NULL UNIQUE, -- keyed hash of the code in the link
    invited_by TEXT NOT NULL, -- address
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    UNIQUE (org_id, email)
) STRICT;

CREATE TABLE resets (
    user_id TEXT PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    code_hash BLOB NOT NULL UNIQUE, -- keyed hash of the code in the link
    expires_ms INTEGER NOT NULL
) STRICT;

-- Racks that this Console installs on its own machine.
CREATE TABLE installs (
    id TEXT PRIMARY KEY,
    org_id TEXT NOT NULL REFERENCES orgs (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    status TEXT NOT NULL, -- running, done, failed
    log TEXT NOT NULL,
    started_by TEXT NOT NULL, -- address
    started_ms INTEGER NOT NULL,
    ended_ms INTEGER
) STRICT;
CREATE INDEX installs_org ON installs (org_id, id);

-- Who used a Rack last.
CREATE INDEX audit_rack ON audit (org_id, rack, id);
