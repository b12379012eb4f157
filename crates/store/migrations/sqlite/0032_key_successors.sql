-- A key that was rolled ends with the one that took its place, also where somebody else rolled it.

ALTER TABLE keys ADD COLUMN successor TEXT REFERENCES keys (id) ON DELETE CASCADE; -- of a key whose place was taken: id of the newest one
CREATE INDEX keys_successor ON keys (successor);
