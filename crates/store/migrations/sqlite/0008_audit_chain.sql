-- The log in chains: each entry's link is a hash over the one before and over the entry. An organization has a chain for each writer, so
-- that servers write without waiting for each other, and so that its own log can be checked and shortened without anybody else's.

CREATE TABLE audit_chains (
    id INTEGER PRIMARY KEY,
    org_id TEXT NOT NULL, -- empty for what belongs to no organization
    slot INTEGER NOT NULL, -- the writer: 0 for changes of the Console, which follow each other anyway; else a server's
    number INTEGER NOT NULL, -- of the newest entry
    link BLOB NOT NULL, -- at the newest entry
    seal BLOB NOT NULL, -- over number and link, by a key that is not in the database
    anchor INTEGER NOT NULL, -- entries up to this number were removed because of their age
    anchor_link BLOB NOT NULL, -- at that entry
    anchor_seal BLOB NOT NULL,
    UNIQUE (org_id, slot)
) STRICT;

ALTER TABLE audit ADD COLUMN chain INTEGER NOT NULL DEFAULT 0; -- 0: from before there were chains
ALTER TABLE audit ADD COLUMN number INTEGER NOT NULL DEFAULT 0;
ALTER TABLE audit ADD COLUMN link BLOB NOT NULL DEFAULT x'';
CREATE INDEX audit_chain ON audit (chain, number);

-- How a forwarded request ended: an entry of its own, since the event is never changed.
CREATE TABLE audit_ends (
    event_id TEXT PRIMARY KEY,
    status INTEGER,
    bytes_up INTEGER NOT NULL,
    bytes_down INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    chain INTEGER NOT NULL,
    number INTEGER NOT NULL,
    link BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX audit_ends_chain ON audit_ends (chain, number);

-- How long events are kept, for each organization; for ever without a row.
CREATE TABLE audit_rules (
    org_id TEXT PRIMARY KEY,
    keep_ms INTEGER, -- NULL: for ever
    hold INTEGER NOT NULL DEFAULT 0 -- 1: nothing is removed, whatever its age
) STRICT;

ALTER TABLE nodes ADD COLUMN slot INTEGER NOT NULL DEFAULT 0; -- as which writer
