-- The Rack's password, as keyed hashes: the one that counts, the one that will, and the one that it was started with.
CREATE TABLE passwords (
    slot TEXT PRIMARY KEY CHECK (slot IN ('current', 'next', 'seed')),
    hash BLOB NOT NULL, -- of the password as it is
    encoded BLOB NOT NULL, -- of what the clients of Go make of it
    created_ms INTEGER NOT NULL,
    retire_ms INTEGER -- of next: when the Rack itself puts it in the place of current; NULL while it waits to be told
) STRICT;

-- From when on nothing that this key signed is believed; NULL for the one that signs.
ALTER TABLE signers ADD COLUMN until_ms INTEGER;

CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    parent TEXT NOT NULL, -- the token that made it; empty for one that the password made
    role TEXT NOT NULL, -- empty for one that was revoked before it was made
    made_by TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    revoked_ms INTEGER
) STRICT;
CREATE INDEX tokens_parent ON tokens (parent);

-- SSH keys by which the Rack logs in to its hosts.
CREATE TABLE host_keys (
    id TEXT PRIMARY KEY, -- of the host
    private BLOB NOT NULL, -- sealed, the key that counts
    public TEXT NOT NULL,
    step TEXT NOT NULL, -- of a roll: made, switched; empty when none is under way
    other_private BLOB NOT NULL, -- sealed; made: the next key, switched: the old one
    other_public TEXT NOT NULL,
    changed_ms INTEGER NOT NULL
) STRICT;
