-- How a forwarded request ended; NULL while it is open, and when the Console was killed before.

ALTER TABLE audit ADD COLUMN bytes_up BIGINT;
ALTER TABLE audit ADD COLUMN bytes_down BIGINT;
ALTER TABLE audit ADD COLUMN duration_ms BIGINT;
