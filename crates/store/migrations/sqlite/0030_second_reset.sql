-- The link for a forgotten password that was asked for before the last one stays good: who asks again takes nothing away.

ALTER TABLE resets ADD COLUMN before_hash BLOB; -- keyed hash of the code in the link before
ALTER TABLE resets ADD COLUMN before_ms INTEGER NOT NULL DEFAULT 0; -- its end
CREATE INDEX resets_before ON resets (before_hash);
