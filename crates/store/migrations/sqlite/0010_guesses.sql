-- How often somebody tried to sign in, or came with a key that is none.

CREATE TABLE guesses (
    subject BLOB PRIMARY KEY, -- keyed hash of an address, a device, a network or the start of a key
    since_ms INTEGER NOT NULL, -- when the present window began
    tries INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX guesses_since ON guesses (since_ms);
