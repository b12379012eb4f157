-- When what was kept of a build (source, images) was given up; NULL while it is there. The row stays for those who look back.
ALTER TABLE builds ADD COLUMN removed_ms INTEGER;
