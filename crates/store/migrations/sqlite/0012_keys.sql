-- Keys that are limited to a scope, and that are rolled; data keys in versions, so that they can be rolled too.

ALTER TABLE keys ADD COLUMN org_id TEXT REFERENCES orgs (id) ON DELETE CASCADE; -- of a key for one organization
ALTER TABLE keys ADD COLUMN scope TEXT NOT NULL DEFAULT '{}'; -- what it is limited to otherwise, JSON
ALTER TABLE keys ADD COLUMN replaces TEXT; -- of a key that will take the place of another: id of that one
ALTER TABLE keys ADD COLUMN overlap_ms INTEGER NOT NULL DEFAULT 0; -- for how long that one is then still good
ALTER TABLE keys ADD COLUMN rolled_ms INTEGER; -- since when another one has taken its place
CREATE INDEX keys_org ON keys (org_id);

CREATE TABLE data_keys (
    owner TEXT NOT NULL, -- id of an organization; `users` for what is sealed for people; `lookup` for the key of the keyed hashes
    version INTEGER NOT NULL, -- the highest seals, all open
    key_id BLOB, -- as ciphertexts name it; NULL until somebody opened it
    wrapped BLOB NOT NULL, -- by a root key, bound to the owner
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (owner, version)
) STRICT;
INSERT INTO data_keys (owner, version, wrapped, created_ms) SELECT id, 1, data_key, created_ms FROM orgs;
ALTER TABLE orgs DROP COLUMN data_key;
INSERT INTO data_keys (owner, version, wrapped, created_ms) SELECT 'users', 1, data_key, 0 FROM user_scope;
DROP TABLE user_scope;

-- A data key is part of what is known of its organization.
CREATE TRIGGER changes_data_key_insert AFTER INSERT ON data_keys BEGIN
    INSERT INTO changes (seq, what, row_id) SELECT seq, 'org', NEW.owner FROM feed WHERE id = 1;
END;
CREATE TRIGGER changes_data_key_update AFTER UPDATE ON data_keys BEGIN
    INSERT INTO changes (seq, what, row_id) SELECT seq, 'org', NEW.owner FROM feed WHERE id = 1;
END;
CREATE TRIGGER changes_data_key_delete AFTER DELETE ON data_keys BEGIN
    INSERT INTO changes (seq, what, row_id) SELECT seq, 'org', OLD.owner FROM feed WHERE id = 1;
END;

CREATE TABLE root (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    key_id TEXT NOT NULL -- the one root key that may wrap; without a row any may
) STRICT;

ALTER TABLE nodes ADD COLUMN roots TEXT NOT NULL DEFAULT ''; -- ids of the root keys that it has
