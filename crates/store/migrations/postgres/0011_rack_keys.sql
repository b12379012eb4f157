-- Credentials of Racks: rolls of their passwords, and the tokens that they signed for people.

ALTER TABLE racks ADD COLUMN password_known BIGINT NOT NULL DEFAULT 1; -- 1: a person entered the password; 0: the Console made it, and nobody saw it
ALTER TABLE racks ADD COLUMN roll_days BIGINT NOT NULL DEFAULT 0; -- the password is rolled when it is so old; 0: not by itself
ALTER TABLE racks ADD COLUMN roll_wanted TEXT NOT NULL DEFAULT ''; -- why a roll is to begin soon; empty when none is

CREATE TABLE rack_rolls (
    rack_id TEXT COLLATE "C" PRIMARY KEY REFERENCES racks (id) ON DELETE CASCADE,
    step TEXT NOT NULL, -- begun, accepted, switched, reverted
    kind TEXT NOT NULL, -- phases, or parameter for Racks that know but one password
    next BYTEA NOT NULL, -- the new password, sealed for this place
    before BYTEA NOT NULL, -- the old one, as the Rack's row held it
    before_ms BIGINT NOT NULL, -- since when the old one counted
    reason TEXT NOT NULL,
    started_by TEXT NOT NULL,
    started_ms BIGINT NOT NULL,
    window_ms BIGINT NOT NULL, -- both are accepted so long after the switch
    cut BIGINT NOT NULL, -- 1: streams that the old password opened end with it
    step_ms BIGINT NOT NULL, -- when the step was reached
    step_seq BIGINT NOT NULL, -- position of the feed that servers must know of
    fault TEXT NOT NULL DEFAULT '', -- why it does not go on
    tries BIGINT NOT NULL DEFAULT 0,
    next_try_ms BIGINT NOT NULL DEFAULT 0,
    holder TEXT NOT NULL DEFAULT '', -- the server that works on it
    held_until_ms BIGINT NOT NULL DEFAULT 0
);

CREATE TABLE rack_tokens (
    id TEXT COLLATE "C" PRIMARY KEY, -- by which the Rack knows it
    rack_id TEXT COLLATE "C" NOT NULL REFERENCES racks (id) ON DELETE CASCADE,
    user_id TEXT COLLATE "C" NOT NULL,
    key_id TEXT COLLATE "C" NOT NULL, -- the key or session that asked for it
    created_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL -- at the latest
);
CREATE INDEX rack_tokens_key ON rack_tokens (key_id);
