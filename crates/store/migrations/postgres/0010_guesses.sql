-- How often somebody tried to sign in, or came with a key that is none.

CREATE TABLE guesses (
    subject BYTEA PRIMARY KEY, -- keyed hash of an address, a device, a network or the start of a key
    since_ms BIGINT NOT NULL, -- when the present window began
    tries BIGINT NOT NULL
);
CREATE INDEX guesses_since ON guesses (since_ms);
