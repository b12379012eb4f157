-- How many chains the audit log has, and how many events from before there were chains: sealed, so that one that is taken out or put in is missed
-- even when no chain has moved since.

CREATE TABLE audit_register (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    chains INTEGER NOT NULL,
    unchained INTEGER NOT NULL, -- events from before there were chains
    seal BLOB NOT NULL -- over both, by a key that is not in the database
) STRICT;
