-- How a forwarded request ended; NULL while it is open, and when the Console was killed before.

ALTER TABLE audit ADD COLUMN bytes_up INTEGER;
ALTER TABLE audit ADD COLUMN bytes_down INTEGER;
ALTER TABLE audit ADD COLUMN duration_ms INTEGER;
