-- A roll that came to nothing is not begun again at once, and what could not be done at one Rack waits for that Rack alone.

ALTER TABLE racks ADD COLUMN roll_not_before_ms BIGINT NOT NULL DEFAULT 0; -- by itself no roll begins before
ALTER TABLE racks ADD COLUMN roll_fault TEXT NOT NULL DEFAULT ''; -- why the last one came to nothing; empty if it did not
ALTER TABLE rack_tokens ADD COLUMN next_try_ms BIGINT NOT NULL DEFAULT 0; -- its revocation is tried again then
